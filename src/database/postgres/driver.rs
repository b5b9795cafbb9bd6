//! The driver: a server's address, the pools of connections to it, and the bounds of what may go on at once.

use std::{fmt, time::Duration};

use sqlx::{AssertSqlSafe, PgExecutor, PgPool, postgres::PgConnectOptions};
use tokio::sync::Semaphore;

use crate::api::database_server::TlsMode;

/// How long a question may take.
pub(super) const ASK: Duration = Duration::from_secs(10);
/// How long a change may take; making a database writes its files.
pub(super) const CHANGE: Duration = Duration::from_secs(40);
/// How long dropping a database may take; it waits for a checkpoint.
pub(super) const DROP: Duration = Duration::from_secs(180);

/// How long others may be ahead in a queue.
pub(super) const PERMIT: Duration = Duration::from_secs(60);

/// A PostgreSQL server and the pools of connections to it.
pub struct Driver {
    pub(super) address: Address,
    pub(super) options: PgConnectOptions,
    pub(super) pool: PgPool,
    /// `DROP DATABASE` takes seconds: in a pool of its own it keeps nobody waiting.
    pub(super) drops: PgPool,
    /// Looks for whoever keeps the others waiting, when all of them wait.
    pub(super) watch: PgPool,
    /// Databases that are made at once: more would not be faster, and would hold every connection.
    pub(super) create_permits: Semaphore,
    /// Databases that are dropped at once; whoever waits holds no connection.
    pub(super) drop_permits: Semaphore,
    /// Sessions inside databases of tenants, which no pool can hold.
    pub(super) session_permits: Semaphore,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("address", &self.address.to_string()).finish_non_exhaustive()
    }
}

/// Where the server is and how it proves that it is the one.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// What is checked of its certificate.
    pub tls: TlsMode,
    /// The authority that is believed, in PEM, besides the system's.
    pub ca_pem: Option<String>,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Sends statements without parameters. Every name and text in them went through [`names`].
pub(super) async fn send(executor: impl PgExecutor<'_>, sql: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(executor).await.map(|_| ())
}
