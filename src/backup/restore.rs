//! Bringing a cold backup back into a new, empty database.

use crate::{api::ColdBackup, clock::Moment, context::Context};

/// What a finished restore reports.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Report {
    /// The account's uid.
    pub account_uid: String,
    /// SHA-256 of the manifest of the backup that was restored.
    pub manifest_sha256: String,
    /// The id of the database that was filled.
    pub database_oid: u32,
    /// The server that it is on.
    pub system_identifier: String,
    /// The fingerprint of what was restored; equal to the manifest's.
    pub fingerprint: super::manifest::Fingerprint,
    /// When it was complete.
    pub completed_at: Moment,
}

/// The name of the report of the restore that is wanted since `since`, in the backup's folder.
pub(crate) fn report_name(since: Moment) -> String {
    format!("restore-{}.json", super::stamp(since))
}

/// How far a restore is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// No attempt is known for this `since`: prepare an empty database and [`start`] one.
    NotStarted,
    /// Under way.
    Running,
    /// Complete and equal to the backup, by the mover's signed report.
    Done(Report),
    /// The attempt failed; the text says why. [`discard`] it before another one.
    Failed(String),
}

/// Looks how far the restore is that is wanted since `since`. Reads only.
///
/// # Errors
/// Whatever could not be read; nothing is known then.
pub async fn progress(_ctx: &Context, _backup: &ColdBackup, _since: Moment) -> Result<Progress, super::Unproven> {
    Err(super::Unproven::NotVerified("restore is not built yet".into()))
}

/// Starts a mover that fills the empty database; starts nothing twice. While it runs the backup is kept for at most
/// 24 hours past its deadline, if it began before the deadline.
///
/// # Errors
/// Whatever could not be read or made.
pub async fn start(
    _ctx: &Context,
    _backup: &ColdBackup,
    _server: &str,
    _login: &crate::database::MoverLogin,
    _database: &crate::database::DatabaseFacts,
    _since: Moment,
) -> Result<(), super::Unproven> {
    Err(super::Unproven::NotVerified("restore is not built yet".into()))
}

/// Removes what is left of a finished or failed attempt: its Job and its Secret.
///
/// # Errors
/// Whatever could not be removed.
pub async fn discard(_ctx: &Context, _backup: &ColdBackup, _since: Moment) -> Result<(), super::Unproven> {
    Ok(())
}
