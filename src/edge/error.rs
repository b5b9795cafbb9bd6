//! Why an object of the edge could not be read or written.

use crate::cluster::ClusterError;

/// Why the edge's objects could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request to the API server failed.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// An object of that name exists without the account's uid in its annotation.
    #[error("failed to use {0}: it exists and does not carry the marker of this account; nothing was done to it. Remove or rename it")]
    Foreign(String),
}
