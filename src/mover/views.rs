//! Refreshes materialized views after a restore, within a time limit.
//!
//! A dump does not contain their rows. A view whose query fails, or takes a day, must not prevent a verification or the
//! restore of an account: it stays empty and is reported.

use std::time::{Duration, Instant};

use sqlx::PgConnection;

use super::{
    Error,
    compare::shorten,
    fingerprint::Contents,
    postgres::{self, composed},
};
use crate::backup::manifest::{LeftOut, Remains};

/// The time limit for all views of a database together.
const TOGETHER: Duration = Duration::from_secs(600);
/// The lowest time limit for one view, even if the time for all is over.
const AT_LEAST: Duration = Duration::from_secs(10);

/// Refreshes the views that were populated in the source, in several rounds, within [`TOGETHER`] from `begun` on.
/// Returns those that stay empty.
///
/// # Errors
/// [`Error::Database`] if the session is lost.
pub(super) async fn fill(session: &mut PgConnection, source: &Contents, begun: Instant) -> Result<Vec<LeftOut>, Error> {
    let step = "fill a materialized view";
    let mut left: Vec<_> = source.views.iter().map(|view| (view.name.as_str(), String::new())).collect();
    if left.is_empty() {
        return Ok(Vec::new());
    }
    // Policies apply as for the view's owner.
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
        // A view that reads another view fails until that one is filled, so the next round tries it again.
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
