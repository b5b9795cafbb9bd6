//! What a bucket answers: about one object, about all below a prefix, about itself.

use crate::clock::Moment;

/// What is known of an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its size in bytes.
    pub size: u64,
    /// The store's own tag of these bytes, without quotes.
    pub etag: String,
    /// CRC-64/NVME over the whole object, where the store keeps one, in base64.
    pub crc64nvme: Option<String>,
    /// When the store accepted it, by the store's clock.
    pub modified_at: Option<Moment>,
}

/// An object that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its size in bytes.
    pub size: u64,
    /// The store's own tag of these bytes, without quotes.
    pub etag: String,
    /// CRC-64/NVME over the whole object in base64, if the store answered with the one that was computed here.
    pub crc64nvme: Option<String>,
}

/// What an erasure destroyed. Returned only after everything was listed again and nothing was left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Versions of objects.
    pub versions: u64,
    /// Delete markers.
    pub markers: u64,
    /// Uploads that were never completed.
    pub uploads: u64,
}

/// What lies below a prefix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Objects that a reader sees.
    pub objects: u64,
    /// Versions and delete markers, the present ones included.
    pub versions: u64,
    /// Uploads that were never completed.
    pub uploads: u64,
}

impl Contents {
    /// Whether nothing is there.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// Whether the bucket keeps versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Versioning {
    /// Every overwrite and every delete keeps the version before.
    Enabled,
    /// Old versions are kept, new ones are not made.
    Suspended,
    /// None.
    Off,
}

impl Versioning {
    /// The word in status.
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
