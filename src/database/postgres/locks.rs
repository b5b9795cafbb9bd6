//! Ends the session of a tenant that keeps a statement of the operator waiting for a lock.
//!
//! A tenant can lock rows of the catalogs that all databases share (`ALTER ROLE CURRENT_USER PASSWORD …` in a
//! transaction that it leaves open), and name another tenant's roles and database in statements of its own. A statement
//! of the operator that waits for such a lock keeps its place in the queue while a second connection ends those who
//! stand before it. So it goes through at the first try, and the tenant that commits at the right moment only makes it
//! be sent once more.
//!
//! **Invariant: only tenants' sessions are ended.** A session counts as a tenant's by the role that logged in, whatever
//! its `SET ROLE` says and in whatever database it is: a role that carries a marker and the name that belongs to it.
//! Sessions of superusers, replication, autovacuum, movers and the operator are waited for, until `lock_timeout`.
//!
//! A lock that no session holds, that of a prepared transaction, could not be ended. Therefore a server on which they
//! can be made is not used ([`Error::PreparedTransactions`]).

use std::time::Duration;

use tokio::time::sleep;

use super::driver::{CHANGE, Driver, send};
use crate::database::Error;

/// How long a statement of the operator may wait for a tenant before that one is ended, at least.
const PATIENCE: Duration = Duration::from_millis(250);
/// How often a statement is sent that somebody else's commit made fail.
const TRIES: u32 = 5;

/// Ends sessions of tenants that keep a session of the operator waiting. `$1` is the least time in seconds that it waits
/// already; a wait that began this very moment has no start yet.
const END_HOLDERS: &str = "SELECT s.usename::text, pg_terminate_backend(s.pid) FROM pg_stat_activity s JOIN pg_roles r ON r.oid = s.usesysid \
    WHERE s.backend_type = 'client backend' AND NOT r.rolsuper AND NOT r.rolreplication \
    AND r.rolname ~ ('^t_' || left(replace(shobj_description(r.oid, 'pg_authid'), '-', ''), 16) || '_[ab]$') \
    AND s.pid IN (SELECT unnest(pg_blocking_pids(w.pid)) FROM pg_stat_activity w JOIN pg_locks l ON l.pid = w.pid AND NOT l.granted \
        WHERE w.usename = current_user AND w.application_name = current_setting('application_name') \
        AND l.waitstart <= clock_timestamp() - make_interval(secs => $1))";

impl Driver {
    /// Does a step that may have to wait for locks, and ends tenants that it waits for.
    pub(super) async fn past_locks<T>(
        &self,
        limit: Duration,
        step: &'static str,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, Error> {
        let guarded = async {
            tokio::select! {
                done = work => done,
                never = self.end_holders() => match never {},
            }
        };
        self.within(limit, step, guarded).await
    }

    /// Sends statements that are one transaction.
    pub(super) async fn change(&self, step: &'static str, sql: String) -> Result<(), Error> {
        if sql.is_empty() {
            return Ok(());
        }
        in_spite_of_races(step, || self.past_locks(CHANGE, step, send(&self.pool, sql.clone()))).await
    }

    /// Ends whoever keeps this operator waiting, for as long as it is asked to. That it cannot look is no error: what
    /// waits has a limit of its own.
    async fn end_holders(&self) -> std::convert::Infallible {
        loop {
            sleep(PATIENCE).await;
            let query = sqlx::query_as::<_, (String, bool)>(END_HOLDERS).bind(PATIENCE.as_secs_f64());
            match query.fetch_all(&self.watch).await {
                Ok(ended) => {
                    for (login, _) in ended {
                        tracing::warn!(server = %self.address, login, "ended a session of a tenant that kept the operator waiting");
                    }
                }
                Err(error) => tracing::debug!(server = %self.address, %error, "cannot look for whoever holds a lock"),
            }
        }
    }
}

/// Does something again as long as somebody else changed the same row meanwhile.
pub(super) async fn in_spite_of_races<W>(step: &'static str, attempt: impl Fn() -> W) -> Result<(), Error>
where
    W: Future<Output = Result<(), Error>>,
{
    let mut tries = 1;
    loop {
        match attempt().await {
            Err(Error::Query { source, .. }) if tries < TRIES && is_of_a_race(&source) => {
                tracing::debug!(step, tries, "somebody changed the same row; trying again");
                tries += 1;
            }
            done => return done,
        }
    }
}

/// Whether a statement failed because another one changed the same row a moment before. PostgreSQL has no code of its
/// own for it ("tuple concurrently updated", "tuple concurrently deleted": `XX000`); a deadlock has one.
fn is_of_a_race(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|e| match e.code().as_deref() {
        Some("XX000") => e.message().starts_with("tuple concurrently "),
        Some("40P01") => true,
        _ => false,
    })
}
