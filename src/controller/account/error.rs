//! Why a reconcile of an account failed.

use crate::cluster::ClusterError;
use crate::controller::tenant_secret;
use crate::error_chain::chain;
use crate::{backup, database, edge, ledger, store};

/// Why a reconcile failed. The message goes into the account's conditions, and says what a person can do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The app cannot be made as its class asks.
    #[error(transparent)]
    App(#[from] crate::app::Error),
    /// The plan is missing, or the account cannot be placed by it; the text names the field.
    #[error("failed to place the account: {0}")]
    Placement(String),
    /// The account is being deleted, and no server of its region has an entry of it.
    #[error("failed to find anything of the account: it was never placed")]
    NeverPlaced,
    /// The owner's mail address cannot be read.
    #[error("failed to read the owner: {0}")]
    Owner(String),
    /// The status names a server, and the ledger there has no entry of the account.
    #[error(
        "failed to find the account in the ledger of server {server}, where its status says it is; nothing is done to its data until a person restores the ledger, or gives it the data of another object with the annotation helpdesk-operator.io/adopt"
    )]
    LostEntry {
        /// The server.
        server: String,
    },
    /// A ledger has data of a deleted account object of the same name.
    #[error(
        "failed to begin: the ledger of server {server} holds data of an account of this name, whose object is gone, under the uid {uid}; a person with the verb adopt decides: the annotation helpdesk-operator.io/adopt: {uid} takes it over, helpdesk-operator.io/adopt: none begins with nothing and leaves it as it is"
    )]
    NeedsAdoption {
        /// The server.
        server: String,
        /// The uid of the entry.
        uid: String,
    },
    /// The account cannot take over the data that it names.
    #[error("failed to begin: {0}")]
    NotAdopted(String),
    /// The object that was to take over data was deleted, and another one has its name.
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
    /// An object with a name that the account needs does not carry the account's marker.
    #[error("failed to use {what}: it exists and does not carry the marker of this account; nothing was done to it. Remove or rename it")]
    Foreign {
        /// Kind and name.
        what: String,
    },
    /// The tenant's database is not the one that the ledger records.
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
    /// A backup could not be verified.
    #[error(transparent)]
    NotVerified(#[from] backup::NotVerified),
    /// A restore failed; another attempt follows.
    #[error("failed to restore ColdBackup {backup}, another try follows: {why}")]
    RestoreFailed {
        /// The backup.
        backup: String,
        /// Why, as the mover or its report says.
        why: String,
    },
    /// The permission to drop or restore is missing, or is about another database.
    #[error("failed to drop the database: {0}")]
    NoAuthority(String),
    /// A secret of the app was handed to it and cannot be found any more.
    #[error(
        "failed to find {names} of the app, which it was given before: neither the Secret {secret} nor the key of a proven backup has it, and none is made in its place, because what the app wrote may be encrypted with it. Put it into that Secret, under this name; the escrow of an older backup may have it. If nothing depends on it, put a new one there"
    )]
    SecretLost {
        /// The names of the secrets.
        names: String,
        /// Namespace and name of the operator's Secret of the tenant.
        secret: String,
    },
    /// The object has no uid or name, which the API server always gives.
    #[error("failed to read the account: it has no {0}")]
    Incomplete(&'static str),
}

impl From<tenant_secret::Error> for Error {
    fn from(error: tenant_secret::Error) -> Self {
        match error {
            tenant_secret::Error::Cluster(error) => Self::Cluster(error),
            tenant_secret::Error::Foreign(path) => Self::Foreign { what: format!("Secret {path}") },
            tenant_secret::Error::Keys(error) => Self::NotVerified(error.into()),
        }
    }
}

impl Error {
    /// The reason of the condition.
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
            Self::App(error) => error.reason(),
            Self::NotVerified(_) => "BackupUnproven",
            Self::RestoreFailed { .. } => "RestoreFailed",
            Self::NoAuthority(_) => "NoAuthority",
            Self::SecretLost { .. } => "SecretLost",
            Self::Incomplete(_) => "Incomplete",
        }
    }

    /// Whether a person has to act; otherwise the error may pass by itself.
    pub fn needs_a_person(&self) -> bool {
        match self {
            Self::Placement(_)
            | Self::Owner(_)
            | Self::LostEntry { .. }
            | Self::NeedsAdoption { .. }
            | Self::NotAdopted(_)
            | Self::Foreign { .. }
            | Self::NoAuthority(_)
            | Self::SecretLost { .. }
            | Self::LostDatabase { .. } => true,
            Self::Database(error) => !error.is_passing(),
            Self::Cluster(_)
            | Self::Ledger(_)
            | Self::Store(_)
            | Self::Edge(_)
            | Self::App(_)
            | Self::Replaced
            | Self::ServerAway { .. }
            | Self::NotVerified(_)
            | Self::RestoreFailed { .. }
            | Self::NeverPlaced
            | Self::Incomplete(_) => false,
        }
    }

    /// Whether the state of the account's database cannot be known because of this error.
    pub const fn is_of_server(&self) -> bool {
        matches!(self, Self::Database(_) | Self::Ledger(_))
    }

    /// Whether the next try may succeed, because a request failed and not what it asked for.
    pub fn may_pass_soon(&self) -> bool {
        !self.needs_a_person() && (self.is_of_server() || matches!(self, Self::Cluster(_)))
    }

    /// Whether a database server did not answer. The connection is then checked before other accounts wait for it.
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
