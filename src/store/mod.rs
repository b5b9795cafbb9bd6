//! The interface of a bucket.
//!
//! Keys are *below the store's prefix*: `9b1c…/20261123T100003Z/manifest.json`. The driver puts the prefix in front,
//! so nothing outside the folder of this installation can be reached by a wrong key.
//!
//! **Invariant:** "empty" is an answer only of a bucket that proved who it is ([`ConnectedStore::prove`]): the right
//! address with another bucket behind it is [`Error::ForeignBucket`], and nothing counts as erased there.

mod answer;
mod connect;
mod error;
mod location;
pub mod s3;
mod silence;

pub use answer::{Contents, Erased, Head, Lock, Stored, Versioning};
pub use connect::{ConnectedStore, Marker, Stores};
pub use error::{Cause, Error};
pub use location::{Credentials, Location, MARKER};
pub use silence::Silence;

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
    /// [`ConnectedStore::prove`] first where that matters.
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
    pub fn clock(&self) -> Option<s3::ClockReading> {
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
