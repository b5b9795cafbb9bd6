//! Why a reconcile of a backup failed.

use super::placement;
use crate::cluster::ClusterError;
use crate::controller::tenant_secret;
use crate::{backup::recheck::NotVerified, database, ledger, store};

/// Why a reconcile of a backup failed. The message goes into its conditions.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The account's server cannot be found.
    #[error(transparent)]
    Placement(#[from] placement::Error),
    /// The database server.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] crate::backup::keys::Error),
    /// The secrets of the tenant's app, which are kept with the keys.
    #[error(transparent)]
    AppSecrets(#[from] tenant_secret::Error),
    /// The mover's reports do not prove the backup.
    #[error(transparent)]
    NotVerified(#[from] NotVerified),
    /// A mover's configuration could not be written as JSON.
    #[error("failed to write down what a mover is to do")]
    Plan(#[from] serde_json::Error),
    /// The mover failed.
    #[error("failed to take the backup, another try follows: {0}")]
    Mover(String),
    /// The key was written to the escrow and cannot be read back.
    #[error("failed to find the key in the escrow {0}; nothing is backed up without it")]
    Escrow(String),
}

impl Error {
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Cluster(_) => "ClusterUnreachable",
            Self::Placement(_) => "NoDatabase",
            Self::Database(error) => error.reason(),
            Self::Ledger(error) => error.reason(),
            Self::Store(error) | Self::NotVerified(NotVerified::Store(error)) => error.reason(),
            Self::Keys(_) => "KeyUnusable",
            Self::AppSecrets(tenant_secret::Error::Cluster(_)) => "ClusterUnreachable",
            Self::AppSecrets(_) => "AppSecretsUnusable",
            Self::NotVerified(_) => "Unproven",
            Self::Plan(_) => "Failed",
            Self::Mover(_) => "MoverFailed",
            Self::Escrow(_) => "NotEscrowed",
        }
    }

    /// Whether a person has to act; otherwise the error may pass by itself.
    pub(super) fn needs_a_person(&self) -> bool {
        use store::Error as S;
        match self {
            Self::Store(error) | Self::NotVerified(NotVerified::Store(error)) => {
                matches!(
                    error,
                    S::AccessDenied { .. }
                        | S::NoSuchBucket(_)
                        | S::ForeignBucket(_)
                        | S::Locked { .. }
                        | S::Altered { .. }
                        | S::Configuration { .. }
                )
            }
            Self::NotVerified(_) | Self::Keys(_) | Self::Escrow(_) => true,
            Self::AppSecrets(error) => !matches!(error, tenant_secret::Error::Cluster(_)),
            Self::Placement(error) => error.needs_a_person(),
            Self::Database(error) => !error.is_passing(),
            _ => false,
        }
    }
}
