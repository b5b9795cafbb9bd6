//! Reading a backup's proof once more, immediately before anything rests on it; and what is left of an account.

use crate::{api::ColdBackup, context::Context, store};

use super::proof::Verified;

/// Why a backup proves nothing at this moment.
#[derive(Debug, thiserror::Error)]
pub enum Unproven {
    /// It was not proven yet, or is not any more.
    #[error("failed to rely on the backup: {0}")]
    NotVerified(String),
    /// Its proof is about something else: another account, another database, another key.
    #[error("failed to rely on the backup: {0}; its proof is about something else")]
    Mismatch(String),
    /// An object, a key or an escrow is missing or differs from what was proven.
    #[error("failed to find the backup complete: {0}")]
    Incomplete(String),
    /// The store could not be asked: nothing is known.
    #[error("failed to ask the store")]
    Store(#[from] store::Error),
    /// The cluster could not be asked: nothing is known.
    #[error("failed to ask the cluster")]
    Cluster(#[source] Box<kube::Error>),
}

/// Reads manifest and verification again, checks their signatures, and looks at every object, the key and its escrow.
///
/// # Errors
/// See [`Unproven`]; every one of them forbids a drop.
pub async fn recheck(_ctx: &Context, _backup: &ColdBackup, _account_uid: &str) -> Result<Verified, Unproven> {
    Err(Unproven::NotVerified("recheck is not built yet".into()))
}

/// What is left of an account's backups in one store and its escrow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remaining {
    /// Objects.
    pub objects: u64,
    /// Versions and delete markers.
    pub versions: u64,
    /// Uploads that were never completed.
    pub uploads: u64,
    /// Keys, as Secrets and in escrow.
    pub keys: u64,
}

impl Remaining {
    /// Whether nothing is left.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// Counts what is left; the last fact that a certificate of deletion needs.
///
/// # Errors
/// When the store, the escrow or the cluster cannot be asked, or the bucket does not prove who it is.
pub async fn remaining(_ctx: &Context, _account_uid: &str, _store: &str) -> Result<Remaining, Unproven> {
    Err(Unproven::NotVerified("remaining is not built yet".into()))
}
