//! Why a call to a bucket failed.

use std::fmt;

use super::MARKER;
use crate::{clock::Moment, error_chain::chain};

/// Why a request to a bucket failed.
#[derive(thiserror::Error)]
pub enum Error {
    /// The store does not answer, answers 429 or 5xx, or its certificate is not trusted.
    #[error("failed to reach the store at {endpoint}")]
    Unreachable {
        /// The store's address.
        endpoint: String,
        /// What the client said.
        #[source]
        source: Cause,
    },
    /// The credentials are wrong, or do not allow the request.
    #[error("failed to {action}: the store denies access to these credentials ({code})")]
    AccessDenied {
        /// The request.
        action: &'static str,
        /// The store's error code.
        code: String,
    },
    /// There is no such bucket.
    #[error("failed to find the bucket {0}")]
    NoSuchBucket(String),
    /// The bucket's marker is gone, is unreadable, or names another identity, installation or `BackupStore`.
    #[error("failed to recognise the bucket: {0}")]
    ForeignBucket(String),
    /// The bucket has no marker yet, because no installation has used it.
    #[error("failed to recognise the bucket: it carries no {MARKER} yet")]
    Unclaimed,
    /// Object lock or a legal hold keeps an object from being deleted.
    #[error("failed to delete {key}: the bucket locks it{}", until.map_or(String::new(), |at| format!(" until {at}")))]
    Locked {
        /// The object, below the store's prefix.
        key: String,
        /// When the retention ends; `None` for a legal hold, which has no end.
        until: Option<Moment>,
    },
    /// Another object exists under this key, or the object's bytes are not those that were written.
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
    /// The store confirmed every deletion and still lists entries.
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
        /// The missing or invalid part, and the object where it belongs.
        why: String,
    },
    /// A request to the API server failed.
    #[error("failed to read the BackupStore {store} or its Secrets")]
    Cluster {
        /// The `BackupStore`.
        store: String,
        /// What the client said.
        #[source]
        source: Box<kube::Error>,
    },
    /// Any other error that the store answered.
    #[error("failed to {action}: the store answered {code}")]
    Refused {
        /// The request.
        action: &'static str,
        /// The store's error code.
        code: String,
        /// What the client said.
        #[source]
        source: Cause,
    },
    /// The bytes to upload could not be read.
    #[error("failed to read what was to be stored as {key}")]
    Source {
        /// The object, below the store's prefix.
        key: String,
        /// The reader's error.
        #[source]
        source: std::io::Error,
    },
}

/// The cause of an [`Error`], with its whole chain.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

impl Error {
    /// The reason that a condition gets for this error.
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

// The client's `Debug` prints the whole HTTP answer. A log line gets only the messages of the chain.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&chain(self))
    }
}
