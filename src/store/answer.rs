//! The answers of a bucket: about one object, about everything below a prefix, about the bucket itself.

use crate::clock::Moment;

/// The metadata of an object, read without its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its size in bytes.
    pub size: u64,
    /// The entity tag (`ETag`) that the store gave these bytes, without quotes.
    pub etag: String,
    /// CRC-64/NVME over the whole object in base64; `None` if the store keeps none.
    pub crc64nvme: Option<String>,
    /// The id of this version; `None` if the bucket keeps no versions.
    pub version_id: Option<String>,
    /// When the store accepted it, by the store's clock.
    pub modified_at: Option<Moment>,
}

/// An object that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its size in bytes.
    pub size: u64,
    /// The entity tag (`ETag`) that the store gave these bytes, without quotes.
    pub etag: String,
    /// CRC-64/NVME over the whole object in base64; `None` unless the store answered with the checksum computed here.
    pub crc64nvme: Option<String>,
    /// The id of this version; `None` if the bucket keeps no versions.
    pub version_id: Option<String>,
}

impl From<Head> for Stored {
    fn from(head: Head) -> Self {
        Self { size: head.size, etag: head.etag, crc64nvme: head.crc64nvme, version_id: head.version_id }
    }
}

/// How much an erasure deleted. It is returned only after a second listing of the prefix was empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Versions of objects.
    pub versions: u64,
    /// Delete markers.
    pub markers: u64,
    /// Uploads that were never completed.
    pub uploads: u64,
}

/// How much lies below a prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Current objects, as `ListObjectsV2` lists them.
    pub objects: u64,
    /// Versions and delete markers, the current ones included.
    pub versions: u64,
    /// Uploads that were never completed.
    pub uploads: u64,
}

impl Contents {
    /// Whether there are no objects, versions, delete markers or open uploads.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// Whether the bucket keeps versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versioning {
    /// The bucket keeps the previous version at every overwrite and delete.
    Enabled,
    /// The bucket keeps its old versions and makes no new ones.
    Suspended,
    /// The bucket keeps no versions.
    Off,
}

impl Versioning {
    /// The value in the status of a `BackupStore`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enabled => "Enabled",
            Self::Suspended => "Suspended",
            Self::Off => "Off",
        }
    }
}

/// The bucket's default retention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// `COMPLIANCE` or `GOVERNANCE`.
    pub mode: String,
    /// For how many days every new object is locked.
    pub days: i64,
}
