//! Why an object of the edge could not be read or written.

/// Why the edge could not be made as it is wanted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster's API.
    #[error("failed to {action}")]
    Cluster {
        /// What was asked.
        action: &'static str,
        /// What the client said.
        #[source]
        source: Box<kube::Error>,
    },
    /// An object of that name belongs to somebody else.
    #[error("failed to use {0}: it exists and does not carry the marker of this account; nothing was done to it. Remove or rename it")]
    Foreign(String),
}

impl Error {
    /// Names what was asked of the cluster.
    pub fn cluster(action: &'static str, source: kube::Error) -> Self {
        Self::Cluster { action, source: Box::new(source) }
    }
}
