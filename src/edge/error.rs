//! Why an object of the edge could not be read or written.

use crate::cluster::ClusterError;

/// Why the edge could not be made as it is wanted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// An object of that name belongs to somebody else.
    #[error("failed to use {0}: it exists and does not carry the marker of this account; nothing was done to it. Remove or rename it")]
    Foreign(String),
}
