//! Refreshes materialized views after a restore, within a time limit.
//!
//! A dump does not contain them. A view whose query fails by now, or takes a day, must not keep a backup from being
//! proven or an account from coming back: it stays empty and is named.

use std::time::{Duration, Instant};

use sqlx::PgConnection;

use super::{
    Error,
    compare::shorten,
    fingerprint::Contents,
    postgres::{self, composed},
};
use crate::backup::manifest::{LeftOut, Remains};

/// How long all views of a database together may take.
const TOGETHER: Duration = Duration::from_secs(600);
/// The least that the last of them gets.
const AT_LEAST: Duration = Duration::from_secs(10);

/// Fills the views that were populated in the source, those first that others read, within [`TOGETHER`] from `begun` on.
/// Returns those that stay empty.
///
/// # Errors
/// [`Error::Database`], if the session is lost.
pub(super) async fn fill(session: &mut PgConnection, source: &Contents, begun: Instant) -> Result<Vec<LeftOut>, Error> {
    let step = "fill a materialized view";
    let mut left: Vec<_> = source.views.iter().map(|view| (view.name.as_str(), String::new())).collect();
    if left.is_empty() {
        return Ok(Vec::new());
    }
    // They are filled as their owner sees it, policies included.
    postgres::execute(session, step, "SET row_security = on").await?;
    loop {
        let before = left.len();
        let mut again = Vec::new();
        for (name, _) in left {
            let limit = TOGETHER.saturating_sub(begun.elapsed()).max(AT_LEAST).as_millis();
            let refresh = format!("SET statement_timeout = {limit}; REFRESH MATERIALIZED VIEW {name}");
            match sqlx::raw_sql(composed(refresh)).execute(&mut *session).await {
                Ok(_) => tracing::info!(view = name, "filled a materialized view"),
                Err(sqlx::Error::Database(why)) => again.push((name, why.message().to_owned())),
                Err(source) => return Err(Error::Database { step, source }),
            }
        }
        left = again;
        // One that reads another fails until that one is filled.
        if left.is_empty() || left.len() == before || begun.elapsed() >= TOGETHER {
            break;
        }
    }
    postgres::execute(session, step, "SET row_security = off; SET statement_timeout = 0").await?;
    let empty = |(name, why): (&str, String)| {
        tracing::warn!(view = name, why, "a materialized view stays empty");
        LeftOut { what: format!("materialized view {name}"), remains: Remains::Empty, why: shorten(&why) }
    };
    Ok(left.into_iter().map(empty).collect())
}
