//! Ends the sessions of a tenant whose locks keep its database from being dumped.
//!
//! `pg_dump` and the reading of the contents want no more than `ACCESS SHARE`, which waits for a table that is being
//! changed. A change that ends is waited for; after that, the session that holds the table is ended. The login for dumps
//! may do that, as a member of the tenant's roles, and of nobody else's.

use std::time::Duration;

use sqlx::PgConnection;

use super::Error;

/// How long a mover waits for a tenant's own work.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_secs(2);

/// Ends sessions of the roles that this one is a member of, if they keep one of its sessions waiting for longer than $1
/// seconds.
const END_HOLDERS: &str = "SELECT s.usename::text, pg_terminate_backend(s.pid) FROM pg_stat_activity s \
    WHERE s.usename <> current_user AND s.usesysid IS NOT NULL AND pg_has_role(s.usesysid, 'USAGE') AND s.pid IN ( \
    SELECT unnest(pg_blocking_pids(w.pid)) FROM pg_stat_activity w JOIN pg_locks l ON l.pid = w.pid AND NOT l.granted \
    WHERE w.usename = current_user AND l.waitstart <= clock_timestamp() - make_interval(secs => $1))";

/// Does something while another session ends those whom it waits for too long.
///
/// # Errors
/// Those of `work`. That nobody could be ended is no error: what waits has a limit of its own.
pub(super) async fn past<T>(watch: &mut PgConnection, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::select! {
        done = work => done,
        never = end_holders(watch) => match never {},
    }
}

async fn end_holders(watch: &mut PgConnection) -> std::convert::Infallible {
    loop {
        tokio::time::sleep(LOOK).await;
        match sqlx::query_as::<_, (String, bool)>(END_HOLDERS).bind(PATIENCE.as_secs_f64()).fetch_all(&mut *watch).await {
            Ok(ended) => ended.iter().for_each(|(login, _)| tracing::warn!(login, "ended a session that kept the backup waiting")),
            Err(error) => tracing::debug!(%error, "cannot look for whoever holds a lock"),
        }
    }
}
