//! Why a reconcile of an account failed.

use crate::cluster::ClusterError;
use crate::error_chain::chain;
use crate::{backup, database, edge, ledger, store};

/// Why an account could not be taken further. The message goes into the account's conditions: it says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The plan is missing or does not fit; the text names the field.
    #[error("failed to place the account: {0}")]
    Placement(String),
    /// The account is being deleted and no server of its region ever held anything of it.
    #[error("failed to find anything of the account: it was never placed")]
    NeverPlaced,
    /// The owner cannot be told.
    #[error("failed to read the owner: {0}")]
    Owner(String),
    /// The ledger lacks what the status speaks of.
    #[error(
        "failed to find the account in the ledger of server {server}, where its status says it is; nothing is done to its data until a person restores the ledger, or gives it the data of another object with the annotation helpdesk-operator.io/adopt"
    )]
    LostEntry {
        /// The server.
        server: String,
    },
    /// Data waits under the account's name.
    #[error(
        "failed to begin: the ledger of server {server} holds data of an account of this name, whose object is gone, under the uid {uid}; a person with the verb adopt decides: the annotation helpdesk-operator.io/adopt: {uid} takes it over, helpdesk-operator.io/adopt: none begins with nothing and leaves it as it is"
    )]
    NeedsAdoption {
        /// The server.
        server: String,
        /// Whose data it was.
        uid: String,
    },
    /// What the account names to take over is not to be had.
    #[error("failed to begin: {0}")]
    NotAdopted(String),
    /// The object that was to take over data is not the one of its name any more.
    #[error("failed to adopt: another object has the account's name now; it is looked at again")]
    Replaced,
    /// A server that does not answer may hold the account's data.
    #[error(
        "failed to place the account: the server {server} does not answer and may hold data of it, because {why}; it is placed once the server answers"
    )]
    ServerAway {
        /// The server.
        server: String,
        /// Why it may.
        why: &'static str,
        /// Why it does not answer.
        #[source]
        source: Box<database::Error>,
    },
    /// Something of the account's name belongs to somebody else.
    #[error("failed to use {what}: it exists and does not carry the marker of this account; nothing was done to it. Remove or rename it")]
    Foreign {
        /// Kind and name.
        what: String,
    },
    /// The tenant's database is not the one that was made.
    #[error(
        "failed to recognise the database {name}: {why}; nothing is made or destroyed until a person restores it or erases the account"
    )]
    LostDatabase {
        /// Its name.
        name: String,
        /// What differs.
        why: String,
    },
    /// A database server.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// A ledger.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// A store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The edge.
    #[error(transparent)]
    Edge(#[from] edge::Error),
    /// A backup does not prove what it has to.
    #[error(transparent)]
    NotVerified(#[from] backup::NotVerified),
    /// A restore came to nothing; another one follows.
    #[error("failed to restore ColdBackup {backup}, another try follows: {why}")]
    RestoreFailed {
        /// The backup.
        backup: String,
        /// In the mover's words.
        why: String,
    },
    /// The proof is about something else than what would be dropped.
    #[error("failed to drop the database: {0}")]
    NoAuthority(String),
    /// The object has no uid or name, which the API server always gives.
    #[error("failed to read the account: it has no {0}")]
    Incomplete(&'static str),
}

impl Error {
    /// One word for the condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Cluster(_) => "ClusterUnreachable",
            Self::Placement(_) => "NoPlacement",
            Self::NeverPlaced => "NeverPlaced",
            Self::Owner(_) => "OwnerUnknown",
            Self::LostEntry { .. } => "LedgerEntryLost",
            Self::NeedsAdoption { .. } => "NeedsAdoption",
            Self::NotAdopted(_) => "NotAdopted",
            Self::Replaced => "Replaced",
            Self::ServerAway { .. } => "ServerAway",
            Self::Foreign { .. } => "Foreign",
            Self::LostDatabase { .. } => "DatabaseLost",
            Self::Database(error) => error.reason(),
            Self::Ledger(_) => "LedgerUnreachable",
            Self::Store(_) => "StoreUnreachable",
            Self::Edge(_) => "GatewayUnreachable",
            Self::NotVerified(_) => "BackupUnproven",
            Self::RestoreFailed { .. } => "RestoreFailed",
            Self::NoAuthority(_) => "NoAuthority",
            Self::Incomplete(_) => "Incomplete",
        }
    }

    /// Whether it needs a person; otherwise it may pass by itself.
    pub fn needs_a_person(&self) -> bool {
        match self {
            Self::Placement(_)
            | Self::Owner(_)
            | Self::LostEntry { .. }
            | Self::NeedsAdoption { .. }
            | Self::NotAdopted(_)
            | Self::Foreign { .. }
            | Self::NoAuthority(_)
            | Self::LostDatabase { .. } => true,
            Self::Database(error) => !error.is_passing(),
            Self::Cluster(_)
            | Self::Ledger(_)
            | Self::Store(_)
            | Self::Edge(_)
            | Self::Replaced
            | Self::ServerAway { .. }
            | Self::NotVerified(_)
            | Self::RestoreFailed { .. }
            | Self::NeverPlaced
            | Self::Incomplete(_) => false,
        }
    }

    /// Whether it keeps anybody from knowing how it is with the account's database.
    pub const fn is_of_server(&self) -> bool {
        matches!(self, Self::Database(_) | Self::Ledger(_))
    }

    /// Whether a database server did not answer, so that it has to be asked whether it is there before others wait for it.
    pub fn is_silence(&self) -> bool {
        match self {
            Self::Database(error) => matches!(error, database::Error::Unreachable { .. } | database::Error::TooSlow { .. }),
            Self::Ledger(error) => matches!(error, ledger::Error::Query { .. } | ledger::Error::TooSlow { .. }),
            _ => false,
        }
    }

    /// The message with the messages of its causes.
    pub fn with_causes(&self) -> String {
        chain(self)
    }
}
