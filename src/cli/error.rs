//! How a command ended, or why it failed.

use crate::cluster::ClusterError;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Everything is as it should be.
    Fine,
    /// What was asked for is not so.
    NotSo,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig.
    #[error("failed to read the kubeconfig; name one by --kubeconfig or KUBECONFIG, and a context of it by --context")]
    Kubeconfig(#[source] Box<kube::config::KubeconfigError>),
    /// The client of the API server.
    #[error("failed to connect to the cluster of the kubeconfig")]
    Connect(#[source] Box<kube::Error>),
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// There is no object of this name.
    #[error("failed to find {kind} {name}: there is none of this name in this cluster; `kubectl get {kind}` lists all")]
    NotFound {
        /// The kind.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// The command was used wrongly.
    #[error("{0}")]
    Usage(String),
    /// Nobody confirmed.
    #[error("nothing was done: {0} was not typed")]
    NotConfirmed(String),
    /// The account is not known well enough for what was asked.
    #[error("failed to {what}: {why}")]
    Unfit {
        /// What was asked.
        what: &'static str,
        /// Why it cannot be done.
        why: String,
    },
    /// A file.
    #[error("failed to read {path}")]
    File {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that cannot be written.
    #[error("failed to write {path}")]
    Write {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The output cannot be written.
    #[error("failed to write the output")]
    Output(#[source] std::io::Error),
    /// The output cannot be written as JSON or YAML.
    #[error("failed to write the output as JSON or YAML: {0}")]
    Format(String),
}

impl Error {
    /// The exit code of the process.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Kubeconfig(_)
            | Self::Connect(_)
            | Self::Cluster(_)
            | Self::NotFound { .. }
            | Self::NotConfirmed(_)
            | Self::Unfit { .. }
            | Self::File { .. }
            | Self::Write { .. }
            | Self::Output(_)
            | Self::Format(_) => 1,
        }
    }
}
