//! Why an app could not be made as its class asks.

use crate::cluster::ClusterError;

/// Why an app could not be made as its class asks.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// An object of that name belongs to somebody else.
    #[error("failed to use {0}: it exists and does not carry the marker of this account; nothing was done to it. Remove or rename it")]
    Foreign(String),
    /// The API server refuses an object that the class asks for.
    #[error("failed to make {what} of the app: {message}")]
    Refused {
        /// The object.
        what: String,
        /// What the API server said.
        message: String,
    },
    /// The system gives no random bytes.
    #[error("failed to make a secret of the app: the system gives no random bytes")]
    Random,
    /// A text of the class names a variable that does not exist.
    #[error("failed to fill in {field} of the class: ${{{variable}}} is no variable; there are {known}")]
    UnknownVariable {
        /// The field.
        field: String,
        /// The variable.
        variable: String,
        /// Those that exist.
        known: String,
    },
}

impl Error {
    /// One word for a condition's reason.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Cluster(_) => "ClusterUnreachable",
            Self::Foreign(_) => "Foreign",
            Self::Refused { .. } => "ObjectRefused",
            Self::Random => "NoRandomness",
            Self::UnknownVariable { .. } => "ClassInvalid",
        }
    }
}
