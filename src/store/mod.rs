//! What the rest may ask of a bucket.
//!
//! Keys are *below the store's prefix*: `9b1c…/20261123T100003Z/manifest.json`. The driver puts the prefix in front,
//! so nothing outside the folder of this installation can be reached by a wrong key.
//!
//! **Invariant:** "empty" is an answer only of a bucket that proved who it is ([`Connected::prove`]): the right
//! address with another bucket behind it is [`Error::ForeignBucket`], and nothing counts as erased there.

use std::fmt;

use crate::clock::Moment;
use crate::error_chain::chain;

mod connect;
pub mod s3;
mod silence;

pub use connect::{Connected, Credentials, Location, Marker, Stores};
pub use silence::Silence;

/// The object that says whose bucket this is; below the store's prefix.
pub const MARKER: &str = "helpdesk-operator.json";

/// A bucket, by the protocol it speaks.
pub enum Store {
    /// Amazon S3 and what speaks its protocol.
    S3(s3::S3),
}

impl Store {
    /// What is known of an object; `None` when there is none.
    ///
    /// # Errors
    /// Every answer but "there it is" and "there is none". A bucket that is missing may answer the second: ask
    /// [`Connected::prove`] first where that matters.
    pub async fn head(&self, key: &str) -> Result<Option<Head>, Error> {
        match self {
            Self::S3(s3) => s3.head(key).await,
        }
    }

    /// Opens an object for reading from its beginning to its end.
    ///
    /// # Errors
    /// [`Error::Missing`], or why the store could not be asked.
    pub async fn get(&self, key: &str) -> Result<Download<'_>, Error> {
        match self {
            Self::S3(s3) => s3.get(key).await.map(Download::S3),
        }
    }

    /// Reads a small object whole; one larger than `limit` bytes is [`Error::Altered`], because nothing here writes such.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Altered`], or why the store could not be asked.
    pub async fn read(&self, key: &str, limit: u64) -> Result<Vec<u8>, Error> {
        match self {
            Self::S3(s3) => s3.read(key, limit).await,
        }
    }

    /// Writes a small object where none is. Where the same bytes lie already it is done.
    ///
    /// # Errors
    /// [`Error::Altered`] when other bytes lie there, or why the store could not be asked.
    pub async fn write_once(&self, key: &str, bytes: Vec<u8>) -> Result<Stored, Error> {
        match self {
            Self::S3(s3) => s3.write_once(key, bytes).await,
        }
    }

    /// Begins the upload of a stream of unknown length; its memory does not grow with it.
    ///
    /// # Errors
    /// Why the store could not be asked.
    pub async fn upload(&self, key: &str) -> Result<Upload<'_>, Error> {
        match self {
            Self::S3(s3) => s3.upload(key).await.map(Upload::S3),
        }
    }

    /// Aborts every upload below `prefix` that was never completed, and says how many there were.
    ///
    /// # Errors
    /// Why the store could not be asked.
    pub async fn abort_uploads(&self, prefix: &str) -> Result<u64, Error> {
        match self {
            Self::S3(s3) => s3.abort_uploads(prefix).await,
        }
    }

    /// The names one level below `below` (empty, or with a slash at its end), each with a slash at its end.
    ///
    /// # Errors
    /// Why the store could not be asked.
    pub async fn folders(&self, below: &str) -> Result<Vec<String>, Error> {
        match self {
            Self::S3(s3) => s3.folders(below).await,
        }
    }

    /// What lies below `prefix`.
    ///
    /// # Errors
    /// Why the store could not be asked; nothing is known then.
    pub async fn contents(&self, prefix: &str) -> Result<Contents, Error> {
        match self {
            Self::S3(s3) => s3.contents(prefix).await,
        }
    }

    /// Erases every version, delete marker and open upload below `prefix`, and returns only when a listing afterwards
    /// was empty. Safe to repeat. A prefix without a folder's name is refused: it would be everybody's.
    ///
    /// # Errors
    /// [`Error::Locked`], or why the store could not be asked or did not obey.
    pub async fn erase_prefix(&self, prefix: &str) -> Result<Erased, Error> {
        if prefix.len() < 3 || !prefix.ends_with('/') || prefix.starts_with('/') {
            return Err(Error::Refused { action: "erase a prefix", code: "TooWide".into(), source: prefix.to_owned().into() });
        }
        match self {
            Self::S3(s3) => s3.erase_prefix(prefix).await,
        }
    }

    /// Whether the bucket keeps versions.
    ///
    /// # Errors
    /// Why the store could not be asked.
    pub async fn versioning(&self) -> Result<Versioning, Error> {
        match self {
            Self::S3(s3) => s3.versioning().await,
        }
    }

    /// The retention that the bucket puts on every new object.
    ///
    /// # Errors
    /// Why the store could not be asked.
    pub async fn default_lock(&self) -> Result<Option<Lock>, Error> {
        match self {
            Self::S3(s3) => s3.default_lock().await,
        }
    }

    /// What the store's clock showed in its newest answer, and ours at that time.
    pub fn clock(&self) -> Option<s3::Seen> {
        match self {
            Self::S3(s3) => s3.clock(),
        }
    }
}

/// An object being read.
pub enum Download<'s> {
    /// From S3.
    S3(s3::Download<'s>),
}

impl Download<'_> {
    /// The next bytes; `None` at the end, which comes only after as many bytes as the store announced.
    ///
    /// # Errors
    /// A connection that stays broken, or an object that changed meanwhile.
    pub async fn next(&mut self) -> Result<Option<bytes::Bytes>, Error> {
        match self {
            Self::S3(download) => download.next().await,
        }
    }
}

/// An object being uploaded; invisible until it is complete.
pub enum Upload<'s> {
    /// To S3.
    S3(s3::Upload<'s>),
}

impl Upload<'_> {
    /// Takes bytes; waits while enough of them are on their way.
    ///
    /// # Errors
    /// A part that could not be sent. Call [`Self::abort`] then.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Self::S3(upload) => upload.write(bytes).await,
        }
    }

    /// Makes the object visible, where none is. Only call it when what was written is known to be whole.
    ///
    /// # Errors
    /// [`Error::Altered`] when another object lies there or the store computed another checksum.
    pub async fn complete(self) -> Result<Stored, Error> {
        match self {
            Self::S3(upload) => upload.complete().await,
        }
    }

    /// Gives up: nothing becomes visible.
    ///
    /// # Errors
    /// When the store cannot be asked; the open upload then stays until the next attempt or the erasure.
    pub async fn abort(self) -> Result<(), Error> {
        match self {
            Self::S3(upload) => upload.abort().await,
        }
    }
}

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

/// Why the bucket did not do what it was asked.
#[derive(thiserror::Error)]
pub enum Error {
    /// No answer, or not from the right server.
    #[error("failed to reach the store at {endpoint}")]
    Unreachable {
        /// The store's address.
        endpoint: String,
        /// What the client said.
        #[source]
        source: Cause,
    },
    /// The credentials do not allow it, or are wrong.
    #[error("failed to {action}: the store denies access to these credentials ({code})")]
    AccessDenied {
        /// What was asked.
        action: &'static str,
        /// The store's code.
        code: String,
    },
    /// There is no such bucket.
    #[error("failed to find the bucket {0}")]
    NoSuchBucket(String),
    /// The bucket is not the one that it was before, or belongs to another installation.
    #[error("failed to recognise the bucket: {0}")]
    ForeignBucket(String),
    /// The bucket carries no marker yet: it was never taken into use.
    #[error("failed to recognise the bucket: it carries no {MARKER} yet")]
    Unclaimed,
    /// Object lock or a legal hold keeps an object from being deleted.
    #[error("failed to delete {key}: the bucket locks it{}", until.map_or(String::new(), |at| format!(" until {at}")))]
    Locked {
        /// The object, below the store's prefix.
        key: String,
        /// Until when; `None` for a legal hold, which has no end.
        until: Option<Moment>,
    },
    /// Another object lies where this one was to be written, or its bytes are not those that were written.
    #[error("failed to trust {key}: {why}")]
    Altered {
        /// The object, below the store's prefix.
        key: String,
        /// What differs.
        why: String,
    },
    /// There is no such object.
    #[error("failed to find {0}")]
    Missing(String),
    /// The store took an erasure for done and still lists something.
    #[error("failed to empty {prefix}: {left} entries are still listed; another try follows")]
    NotEmpty {
        /// The prefix.
        prefix: String,
        /// How many versions, markers and uploads are left.
        left: u64,
    },
    /// The `BackupStore` or a Secret that it names is missing or incomplete.
    #[error("failed to use the BackupStore {store}: {why}")]
    Configuration {
        /// The `BackupStore`.
        store: String,
        /// What is missing, and where.
        why: String,
    },
    /// The cluster could not be asked.
    #[error("failed to read the BackupStore {store} or its Secrets")]
    Cluster {
        /// The `BackupStore`.
        store: String,
        /// What the client said.
        #[source]
        source: Box<kube::Error>,
    },
    /// Anything else that the store answered.
    #[error("failed to {action}: the store answered {code}")]
    Refused {
        /// What was asked.
        action: &'static str,
        /// The store's code.
        code: String,
        /// What the client said.
        #[source]
        source: Cause,
    },
    /// What was to be uploaded could not be read.
    #[error("failed to read what was to be stored as {key}")]
    Source {
        /// The object, below the store's prefix.
        key: String,
        /// What the reader said.
        #[source]
        source: std::io::Error,
    },
}

/// The cause of an [`Error`], with its whole chain.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

impl Error {
    /// One word for a condition's reason.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "Unreachable",
            Self::AccessDenied { .. } => "AccessDenied",
            Self::NoSuchBucket(_) => "NoSuchBucket",
            Self::ForeignBucket(_) => "ForeignBucket",
            Self::Unclaimed => "Unclaimed",
            Self::Locked { .. } => "Locked",
            Self::Altered { .. } => "Altered",
            Self::Missing(_) => "Missing",
            Self::NotEmpty { .. } => "NotEmpty",
            Self::Configuration { .. } => "Configuration",
            Self::Cluster { .. } => "Unreadable",
            Self::Refused { .. } => "Refused",
            Self::Source { .. } => "SourceFailed",
        }
    }
}

// A service error of the client prints its whole answer; a log line needs the sentence.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(self))
    }
}
