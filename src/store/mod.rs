//! The interface of a bucket.
//!
//! Keys are *below the store's prefix*: `9b1c…/20261123T100003Z/manifest.json`. The driver puts the prefix in front,
//! so a wrong key cannot reach an object outside the folder of this installation.
//!
//! **Invariant:** a caller must check the bucket's identity ([`ConnectedStore::check_identity`]) before it believes
//! that a prefix is empty. Another bucket at the same address is [`Error::ForeignBucket`]; nothing counts as erased
//! there.

mod answer;
mod connect;
mod error;
mod location;
pub mod s3;
mod silence;

pub use answer::{Contents, Erased, Head, Lock, Stored, Versioning};
pub use connect::{ConnectedStore, Copies, Marker, Stores};
pub use error::{Cause, Error};
pub use location::{Credentials, Location, MARKER};
pub use silence::Silence;

/// A bucket, by the protocol it speaks.
pub enum Store {
    /// Amazon S3 and what speaks its protocol.
    S3(s3::S3),
}

impl Store {
    /// Reads the metadata of an object; `None` when there is no such object.
    ///
    /// # Errors
    /// The request failed. A store may answer `None` for a bucket that does not exist: call
    /// [`ConnectedStore::check_identity`] first where that matters.
    pub async fn head(&self, key: &str) -> Result<Option<Head>, Error> {
        match self {
            Self::S3(s3) => s3.head(key).await,
        }
    }

    /// Opens an object for reading from its beginning to its end.
    ///
    /// # Errors
    /// [`Error::Missing`], or the request failed.
    pub async fn get(&self, key: &str) -> Result<Download<'_>, Error> {
        match self {
            Self::S3(s3) => s3.get(key).await.map(Download::S3),
        }
    }

    /// Reads a whole small object. One of more than `limit` bytes is [`Error::Altered`]: the operator writes none.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Altered`], or the request failed.
    pub async fn read(&self, key: &str, limit: u64) -> Result<Vec<u8>, Error> {
        match self {
            Self::S3(s3) => s3.read(key, limit).await,
        }
    }

    /// Writes a small object and never overwrites one. Succeeds if the key already has the same bytes.
    ///
    /// # Errors
    /// [`Error::Altered`] when the key has other bytes, or the request failed.
    pub async fn write_once(&self, key: &str, bytes: Vec<u8>) -> Result<Stored, Error> {
        match self {
            Self::S3(s3) => s3.write_once(key, bytes).await,
        }
    }

    /// Begins the upload of a stream of unknown length. Its memory does not grow with the stream.
    ///
    /// # Errors
    /// The request failed.
    pub async fn upload(&self, key: &str) -> Result<Upload<'_>, Error> {
        match self {
            Self::S3(s3) => s3.upload(key).await.map(Upload::S3),
        }
    }

    /// Aborts every incomplete multipart upload below `prefix`, and returns their number.
    ///
    /// # Errors
    /// The request failed.
    pub async fn abort_uploads(&self, prefix: &str) -> Result<u64, Error> {
        match self {
            Self::S3(s3) => s3.abort_uploads(prefix).await,
        }
    }

    /// Lists the names one level below `below` (empty, or with a slash at its end), each with a slash at its end.
    ///
    /// # Errors
    /// The request failed.
    pub async fn folders(&self, below: &str) -> Result<Vec<String>, Error> {
        match self {
            Self::S3(s3) => s3.folders(below).await,
        }
    }

    /// Counts what lies below `prefix`.
    ///
    /// # Errors
    /// A request failed; the contents are unknown then.
    pub async fn contents(&self, prefix: &str) -> Result<Contents, Error> {
        match self {
            Self::S3(s3) => s3.contents(prefix).await,
        }
    }

    /// Erases every version, delete marker and open upload below `prefix`, and returns only when a listing afterwards
    /// was empty. Safe to repeat. Rejects a prefix without a folder's name, which would erase the data of all accounts.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::NotEmpty`], or a request failed.
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
    /// The request failed.
    pub async fn versioning(&self) -> Result<Versioning, Error> {
        match self {
            Self::S3(s3) => s3.versioning().await,
        }
    }

    /// The object lock retention that every new object gets by default.
    ///
    /// # Errors
    /// The request failed.
    pub async fn default_lock(&self) -> Result<Option<Lock>, Error> {
        match self {
            Self::S3(s3) => s3.default_lock().await,
        }
    }

    /// The time in the store's newest answer, and this machine's time when the answer came.
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
    /// Returns the next bytes; `None` only after as many bytes as the store announced.
    ///
    /// # Errors
    /// The connection broke too often, or the object changed meanwhile.
    pub async fn next(&mut self) -> Result<Option<bytes::Bytes>, Error> {
        match self {
            Self::S3(download) => download.next().await,
        }
    }
}

/// An object being uploaded. Readers see it only after [`Self::complete`].
pub enum Upload<'s> {
    /// To S3.
    S3(s3::Upload<'s>),
}

impl Upload<'_> {
    /// Adds bytes. Waits while too many bytes are being sent.
    ///
    /// # Errors
    /// A part could not be sent. Call [`Self::abort`] then.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Self::S3(upload) => upload.write(bytes).await,
        }
    }

    /// Makes the object visible and never overwrites one. Callers must know that they wrote the whole stream.
    ///
    /// # Errors
    /// [`Error::Altered`] when the key has another object or the store computed another checksum.
    pub async fn complete(self) -> Result<Stored, Error> {
        match self {
            Self::S3(upload) => upload.complete().await,
        }
    }

    /// Aborts the upload, so that no object becomes visible.
    ///
    /// # Errors
    /// The request failed; the open upload then stays until the next attempt or the erasure.
    pub async fn abort(self) -> Result<(), Error> {
        match self {
            Self::S3(upload) => upload.abort().await,
        }
    }
}
