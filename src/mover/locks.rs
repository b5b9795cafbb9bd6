//! Ends the sessions of a tenant whose locks keep its database from being dumped.
//!
//! `pg_dump` and the reading of the contents take `ACCESS SHARE` locks, which wait while a table's definition is
//! changed. The mover waits for a while, and then ends the session that holds the lock. The login for dumps may do so,
//! because it is a member of the tenant's roles, and of no others.

use std::time::Duration;

use sqlx::PgConnection;

use super::Error;

/// How long a mover waits for a tenant's lock.
const PATIENCE: Duration = Duration::from_secs(20);
/// The pause between two checks for held locks.
const LOOK: Duration = Duration::from_secs(2);

/// Ends sessions of roles of which this login is a member, if they block one of this login's sessions for longer than
/// $1 seconds.
const END_HOLDERS: &str = "SELECT s.usename::text, pg_terminate_backend(s.pid) FROM pg_stat_activity s \
    WHERE s.usename <> current_user AND s.usesysid IS NOT NULL AND pg_has_role(s.usesysid, 'USAGE') AND s.pid IN ( \
    SELECT unnest(pg_blocking_pids(w.pid)) FROM pg_stat_activity w JOIN pg_locks l ON l.pid = w.pid AND NOT l.granted \
    WHERE w.usename = current_user AND l.waitstart <= clock_timestamp() - make_interval(secs => $1))";

/// Runs `work`, while the session `watcher` ends sessions that block it for too long.
///
/// # Errors
/// Those of `work`. If no session can be ended, that is no error: the blocked statement has its own `lock_timeout`.
pub(super) async fn past<T>(watcher: &mut PgConnection, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::select! {
        done = work => done,
        never = end_holders(watcher) => match never {},
    }
}

async fn end_holders(watcher: &mut PgConnection) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(LOOK).await;
        match sqlx::query_as::<_, (String, bool)>(END_HOLDERS).bind(PATIENCE.as_secs_f64()).fetch_all(&mut *watcher).await {
            Ok(ended) => ended.iter().for_each(|(login, _)| tracing::warn!(login, "ended a session that kept the backup waiting")),
            Err(error) => tracing::debug!(%error, "cannot look for whoever holds a lock"),
        }
    }
}
