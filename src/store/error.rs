//! Why a call to a bucket failed.

use std::fmt;

use super::MARKER;
use crate::{clock::Moment, error_chain::chain};

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
