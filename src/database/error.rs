//! Why a call to a database server failed.

use std::sync::Arc;

use crate::error_chain::words;

use super::Lacking;

/// Why a database server did not do what it was asked. Never carries a password; can be cloned, because one failed
/// connection is the answer to everybody who waits for that server.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The DatabaseServer or one of its Secrets could not be read from the cluster.
    #[error("failed to read {what} from the cluster: {}", words(&**source))]
    ReadObject {
        /// Kind and name.
        what: String,
        /// Why.
        source: Arc<kube::Error>,
    },
    /// There is no such DatabaseServer.
    #[error("failed to find the DatabaseServer {0}: create it, or choose another plan or region")]
    NoSuchServer(String),
    /// A Secret, or a key in it, is missing or unreadable.
    #[error("failed to use the Secret {secret}: {problem}")]
    SecretMissing {
        /// The Secret, in the operator's namespace.
        secret: String,
        /// What is wrong and what to do.
        problem: String,
    },
    /// The admin Secret is for another host.
    #[error(
        "failed to trust the Secret {secret}: its key host says {found:?} and spec.host says {wanted:?}; set the key host to the address that these credentials are for"
    )]
    HostMismatch {
        /// The Secret.
        secret: String,
        /// What it says.
        found: String,
        /// `spec.host`.
        wanted: String,
    },
    /// The server did not answer, or not in time, or its certificate was refused.
    #[error("failed to reach the server at {address}: {reason}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// Why.
        reason: String,
    },
    /// The server refused the admin credentials.
    #[error("failed to log in at {address} as {user}: check username and password in the admin Secret ({reason})")]
    AuthenticationFailed {
        /// Host and port.
        address: String,
        /// The admin role.
        user: String,
        /// In the server's words.
        reason: String,
    },
    /// The ledger belongs to another installation.
    #[error(
        "failed to claim the ledger: this server belongs to the installation {0}; use another server, or restore that installation's Secret"
    )]
    ForeignLedger(String),
    /// The admin role lacks something.
    #[error("failed to use the admin role: it lacks rights; run this once as a superuser: {sql}")]
    MissingPrivileges {
        /// The exact SQL to run.
        sql: String,
    },
    /// The server does not speak TLS.
    #[error("failed to use the server: its connections are not encrypted; set ssl = on and give it a certificate")]
    NoTls,
    /// The server lets tenants prepare transactions.
    #[error(
        "failed to use the server: its tenants can prepare transactions (max_prepared_transactions is {0}), whose locks no session holds and nobody can end; set max_prepared_transactions = 0 and restart it"
    )]
    PreparedTransactions(i32),
    /// The server lets the operator in without proof, or sees its password.
    #[error(
        "failed to trust the server: it let the operator in by {0}; write scram-sha-256 into its pg_hba.conf, and change the password if it was asked for"
    )]
    WeakAuthentication(String),
    /// The server is too old.
    #[error("failed to use a server of version {0}: PostgreSQL 16 or later is needed")]
    VersionTooOld(String),
    /// The server takes no writes.
    #[error("failed to write: the server is read-only (a standby, or default_transaction_read_only is on)")]
    ReadOnly,
    /// The server's disk is full.
    #[error("failed to write: the server's disk is full; make room on it")]
    DiskFull,
    /// Another server answers at this address.
    #[error(
        "failed to recognise the server: it identifies itself as {seen}, and {recorded} is recorded; if it is the same server under another identity, as after pg_upgrade, a person with the verb accept-identity annotates the DatabaseServer with helpdesk-operator.io/accept-identity={seen}"
    )]
    IdentityChanged {
        /// In status.
        recorded: String,
        /// On the wire.
        seen: String,
    },
    /// The server is an earlier primary: a standby was promoted since.
    #[error(
        "failed to recognise the server: it is on timeline {seen}, and {recorded} was seen before: a standby was promoted since, and this former primary lacks what was written there; point spec.host at the present primary"
    )]
    FormerPrimary {
        /// In status.
        recorded: i32,
        /// On the wire.
        seen: i32,
    },
    /// Another DatabaseServer is this server.
    #[error(
        "failed to use the server: it is the DatabaseServer {0} already, whose capacity, brake and region apply to it; delete this object, or give it a server of its own"
    )]
    ServerTaken(String),
    /// The thing exists and does not carry the account's marker.
    #[error("failed to change {name}: it exists and does not carry the marker of account {uid}; nothing was done to it")]
    Foreign {
        /// The database or role.
        name: String,
        /// The account.
        uid: String,
    },
    /// The database is not there.
    #[error("failed to find the database {0}")]
    NoSuchDatabase(String),
    /// The login is not there.
    #[error("failed to find the login {0}")]
    NoSuchLogin(String),
    /// The authority is for another database.
    #[error("failed to drop {0}: the authority covers another account, another database or another server")]
    NotAuthorized(String),
    /// A database needs extensions that cannot be made in it.
    #[error("failed to make extensions in {database}, without which nothing can be restored into it: {}", lacking.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    ExtensionsMissing {
        /// The database.
        database: String,
        /// What is not there, and what to do.
        lacking: Vec<Lacking>,
    },
    /// A restore into this database runs.
    #[error("failed to open {0}: a restore into it is not finished")]
    Restoring(String),
    /// The database that should be made by a restore already exists.
    #[error("failed to prepare a restore into {0}: it exists and was in use before; a restore never replaces data")]
    AlreadyExists(String),
    /// A uid that Kubernetes does not give.
    #[error("failed to make a name from the uid {0:?}: it is no UUID")]
    BadUid(String),
    /// The server took longer than this step may.
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
    /// The ledger could not be read or written.
    #[error(transparent)]
    Ledger(#[from] crate::ledger::Error),
    /// The system gives no randomness.
    #[error("failed to get random bytes from the system")]
    Random,
}

impl Error {
    /// The reason of the server's `Ready` condition: one word in CamelCase.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::ReadObject { .. } => "ClusterUnreadable",
            Self::NoSuchServer(_) => "NotFound",
            Self::SecretMissing { .. } => "SecretMissing",
            Self::HostMismatch { .. } => "HostMismatch",
            Self::Unreachable { .. } | Self::TooSlow { .. } => "Unreachable",
            Self::AuthenticationFailed { .. } => "AuthenticationFailed",
            Self::ForeignLedger(_) => "ForeignLedger",
            Self::MissingPrivileges { .. } => "MissingPrivileges",
            Self::NoTls => "NoTls",
            Self::PreparedTransactions(_) => "PreparedTransactions",
            Self::WeakAuthentication(_) => "WeakAuthentication",
            Self::VersionTooOld(_) => "VersionTooOld",
            Self::ReadOnly => "ReadOnly",
            Self::DiskFull => "DiskFull",
            Self::IdentityChanged { .. } => "IdentityChanged",
            Self::FormerPrimary { .. } => "FormerPrimary",
            Self::ServerTaken(_) => "ServerTaken",
            Self::ExtensionsMissing { .. } => "ExtensionsMissing",
            Self::Ledger(error) => error.reason(),
            Self::Foreign { .. }
            | Self::NoSuchDatabase(_)
            | Self::NoSuchLogin(_)
            | Self::NotAuthorized(_)
            | Self::Restoring(_)
            | Self::AlreadyExists(_)
            | Self::BadUid(_)
            | Self::Query { .. }
            | Self::Random => "Failed",
        }
    }

    /// Whether trying again by itself may help; otherwise a person has to do something first.
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::ReadObject { .. } | Self::Unreachable { .. } | Self::TooSlow { .. } | Self::Query { .. } | Self::Ledger(_))
    }
}
