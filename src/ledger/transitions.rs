//! What an account went through: every decision to enter a stage.

use super::{Error, Ledger, moment, within};
use crate::api::{
    Time,
    stage::{Reason, Stage, Transition},
};

impl Ledger {
    /// The last decisions to enter a stage of the account that the data was made for; the newest is the last.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn last_transitions(&self, uid: &str, most: usize) -> Result<Vec<Transition>, Error> {
        let query = sqlx::query_as("SELECT stage, reason, decided_at FROM transitions WHERE uid = $1 ORDER BY revision DESC LIMIT $2")
            .bind(uid)
            .bind(i64::try_from(most).unwrap_or(i64::MAX));
        let mut rows: Vec<(String, String, i64)> = within("read the history of an account", query.fetch_all(&self.pool)).await?;
        rows.reverse();
        rows.into_iter().map(|row| read(uid, row)).collect()
    }
}

fn read(uid: &str, (stage, reason, decided_at): (String, String, i64)) -> Result<Transition, Error> {
    let damaged = |column, problem: String| Error::Damaged { uid: uid.to_owned(), column, problem };
    Ok(Transition {
        at: Time(moment(uid, "decided_at", decided_at)?),
        stage: Stage::from_name(&stage).ok_or_else(|| damaged("stage", format!("{stage} is no stage")))?,
        reason: Reason::from_name(&reason).ok_or_else(|| damaged("reason", format!("{reason} is no reason")))?,
    })
}
