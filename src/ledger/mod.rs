//! Truth about accounts, on the database server that holds their data.
//!
//! The ledger is the private database `helpdesk_operator`. A transition is written here before its effects and shown
//! in status after. Status lost: it is rebuilt from here. Status newer than the ledger, or older: the ledger wins.
//!
//! **Invariant: an entry changes only from the revision that was read** ([`Ledger::update`]). Two operators that both
//! believe to be the leader cannot both decide.
//!
//! **Invariant: entries are never removed.** What is personal in them is scrubbed; the tombstone stays.

mod accounts;
mod backups;
mod error;
mod transitions;

pub use accounts::{DatabaseEntry, Entry, LoginEntry, LoginSlot, NamespaceEntry, OnRoll};
pub use backups::BackupEntry;
pub use error::Error;

use std::time::Duration;

use sqlx::{PgExecutor, PgPool, migrate::Migrator};

use crate::clock::Moment;

/// The private database of the operator on every server.
pub const DATABASE: &str = "helpdesk_operator";

/// The ledger's tables, by version; applied under an advisory lock.
pub static MIGRATIONS: Migrator = sqlx::migrate!("src/ledger/migrations");

/// Longer than any statement of the ledger takes on a server that is well.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a migration may take, with the wait for another operator that migrates.
const MIGRATE: Duration = Duration::from_secs(40);

/// The server's code for a table that does not exist.
const NO_SUCH_TABLE: &str = "42P01";

/// The ledger of one server.
#[derive(Clone, Debug)]
pub struct Ledger {
    pool: PgPool,
}

/// Whose ledger it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// This installation's.
    Ours,
    /// That installation's: hands off.
    Foreign(String),
}

impl Ledger {
    /// The ledger behind a pool of connections to [`DATABASE`]. Nothing is asked of it yet.
    pub const fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Makes the tables or brings them up to date. Only for a ledger that is not somebody else's.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn migrate(&self) -> Result<(), Error> {
        match tokio::time::timeout(MIGRATE, MIGRATIONS.run(&self.pool)).await {
            Ok(result) => result.map_err(|error| Error::Migrate(error.into())),
            Err(_) => Err(Error::TooSlow { step: "bring the ledger's tables up to date", seconds: MIGRATE.as_secs() }),
        }
    }

    /// Claims an unclaimed ledger for this installation and says whose it is. Once claimed it stays so.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn claim(&self, installation_id: &str) -> Result<Claim, Error> {
        // The row that is there already is not visible to the same statement if another transaction has only just
        // made it, hence the second look.
        within("claim the ledger", async {
            sqlx::query("INSERT INTO installation (id) VALUES ($1) ON CONFLICT DO NOTHING")
                .bind(installation_id)
                .execute(&self.pool)
                .await?;
            sqlx::query_scalar::<_, String>("SELECT id FROM installation").fetch_one(&self.pool).await
        })
        .await
        .map(|id| if id == installation_id { Claim::Ours } else { Claim::Foreign(id) })
    }

    /// Claims the server for the DatabaseServer of this name, unless another one has it. Returns the name of the one that has
    /// it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn claim_server(&self, name: &str) -> Result<String, Error> {
        let query = sqlx::query_scalar("UPDATE installation SET database_server = coalesce(database_server, $1) RETURNING database_server");
        within("claim the server", query.bind(name).fetch_one(&self.pool)).await
    }

    /// Gives the server of a DatabaseServer that does not exist any more to another one.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn hand_over_server(&self, from: &str, to: &str) -> Result<(), Error> {
        let query = sqlx::query("UPDATE installation SET database_server = $2 WHERE database_server = $1").bind(from).bind(to);
        within("claim the server", query.execute(&self.pool)).await.map(drop)
    }

    /// Whose ledger it is, without claiming it; `None`: nobody's yet.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn claimed_by(&self) -> Result<Option<String>, Error> {
        within("read whose ledger it is", async {
            match sqlx::query_scalar("SELECT id FROM installation").fetch_optional(&self.pool).await {
                Err(error) if error.as_database_error().and_then(|e| e.code()).as_deref() == Some(NO_SUCH_TABLE) => Ok(None),
                result => result,
            }
        })
        .await
    }

    /// Says of every database in the ledger that it is on the server with this system identifier. Returns how many it was
    /// not said of before.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn carry_identity(&self, system_identifier: &str) -> Result<u64, Error> {
        let query = sqlx::query(
            "UPDATE accounts SET system_identifier = $1, revision = revision + 1, updated_at = now() WHERE system_identifier <> $1",
        );
        let written = within("write the server's identity into the ledger", query.bind(system_identifier).execute(&self.pool)).await?;
        Ok(written.rows_affected())
    }

    /// Records that it is `now`, and returns the highest time that was ever recorded, which may be later.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn raise_high_water(&self, now: Moment) -> Result<Moment, Error> {
        let query = sqlx::query_scalar::<_, i64>("UPDATE installation SET high_water = greatest(high_water, $1) RETURNING high_water")
            .bind(now.as_second());
        moment("", "high_water", within("record the time", query.fetch_one(&self.pool)).await?)
    }

    /// The highest time that was ever recorded.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn high_water(&self) -> Result<Option<Moment>, Error> {
        let query = sqlx::query_scalar::<_, Option<i64>>("SELECT max(high_water) FROM installation");
        let seconds = within("read the highest recorded time", query.fetch_one(&self.pool)).await?;
        seconds.map(|seconds| moment("", "high_water", seconds)).transpose()
    }

    /// Sets the highest recorded time to `now`, which is earlier.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn lower_high_water(&self, now: Moment) -> Result<(), Error> {
        let query = sqlx::query("UPDATE installation SET high_water = least(high_water, $1)").bind(now.as_second());
        within("correct the highest recorded time", query.execute(&self.pool)).await.map(drop)
    }

    /// How many decisions to destroy something were made at `since` or later: what the brake counts.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn destructive_steps_since(&self, since: Moment) -> Result<i64, Error> {
        within("count destructive steps", count_steps(&self.pool, since)).await
    }

    /// How many accounts have a database here.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn tenants(&self) -> Result<i64, Error> {
        within("count tenants", count_tenants(&self.pool)).await
    }
}

async fn count_steps(executor: impl PgExecutor<'_>, since: Moment) -> Result<i64, sqlx::Error> {
    let query = sqlx::query_scalar("SELECT count(*) FROM transitions WHERE decided_at >= $1 AND stage IN ('Deleted', 'Expired')");
    query.bind(since.as_second()).fetch_one(executor).await
}

async fn count_tenants(executor: impl PgExecutor<'_>) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT count(*) FROM accounts WHERE stage NOT IN ('Deleted', 'Expired')").fetch_one(executor).await
}

/// Runs a statement, but not for longer than the ledger may take.
async fn within<T>(step: &'static str, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Error> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(result) => result.map_err(|error| Error::Query { step, source: error.into() }),
        Err(_) => Err(Error::TooSlow { step, seconds: PATIENCE.as_secs() }),
    }
}

fn moment(uid: &str, column: &'static str, seconds: i64) -> Result<Moment, Error> {
    Moment::from_second(seconds).map_err(|error| Error::Damaged { uid: uid.to_owned(), column, problem: error.to_string() })
}
