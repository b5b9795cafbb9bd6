//! Why the ledger could not be read or written.

use std::sync::Arc;

use crate::error_chain::words;

/// Why the ledger could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else wrote first, or the entry is gone: read it again and decide anew.
    #[error("failed to write the ledger's entry {uid}: it is no longer at revision {expected}")]
    Conflict {
        /// The entry.
        uid: String,
        /// The revision that was read.
        expected: i64,
    },
    /// There is an entry for this account already.
    #[error("failed to add {uid} to the ledger: there is an entry for it")]
    Exists {
        /// The entry.
        uid: String,
    },
    /// An entry cannot be understood: written by a newer version, or damaged.
    #[error("failed to understand {column} of the ledger's entry {uid}: {problem}")]
    Damaged {
        /// The entry.
        uid: String,
        /// The column.
        column: &'static str,
        /// Why.
        problem: String,
    },
    /// The ledger's tables could not be made or brought up to date.
    #[error("failed to bring the ledger's tables up to date: {0}")]
    Migrate(Arc<sqlx::migrate::MigrateError>),
    /// The ledger took longer than this step may.
    #[error("failed to {step} within {seconds} s")]
    TooSlow {
        /// The step's verb and object.
        step: &'static str,
        /// The limit.
        seconds: u64,
    },
    /// The server refused or broke off.
    #[error("failed to {step}: {}", words(&**source))]
    Query {
        /// The step's verb and object.
        step: &'static str,
        /// Why.
        source: Arc<sqlx::Error>,
    },
}

impl Error {
    /// One word in CamelCase for conditions.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Query { source, .. } if refused_with(source, "53100") => "DiskFull",
            Self::Query { source, .. } if refused_with(source, "25006") => "ReadOnly",
            Self::Conflict { .. } => "Conflict",
            Self::Exists { .. } => "Exists",
            Self::Damaged { .. } => "LedgerDamaged",
            Self::Migrate(_) | Self::TooSlow { .. } | Self::Query { .. } => "LedgerUnreadable",
        }
    }

    /// Whether somebody else wrote first.
    pub const fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::Exists { .. })
    }
}

fn refused_with(error: &sqlx::Error, code: &str) -> bool {
    error.as_database_error().and_then(|e| e.code()).is_some_and(|c| c == code)
}
