//! Bringing a cold backup back into a new, empty database.

use crate::{api::ColdBackup, backup::mover::Login, clock::Moment, context::Context};

/// Where the data goes: an empty database and a role that may fill it.
#[derive(Clone, Debug)]
pub struct Target {
    /// The `DatabaseServer`, for the number of movers that it allows.
    pub server: String,
    /// The role that owns what the dump creates.
    pub owner: String,
    /// How the mover gets in.
    pub login: Login,
    /// The new database's own id; the report names it.
    pub database_oid: u32,
    /// Since when this restore is wanted; the same value finds the same attempt after a crash.
    pub since: Moment,
}

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
    pub fingerprint: String,
    /// When it was complete.
    pub completed_at: Moment,
}

/// How far a restore is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Under way.
    Running,
    /// Complete and equal to the backup, by the mover's signed report.
    Done(Report),
    /// This attempt failed and another follows; the text says why.
    Failed(String),
}

/// Takes a restore one step further: starts it, looks at it, or reads its report. Call it again until it is
/// [`Progress::Done`]; it starts nothing twice. The target must be empty before the first call and after a
/// [`Progress::Failed`].
///
/// While it runs the backup is kept for at most 24 hours past its deadline, if it began before the deadline.
///
/// # Errors
/// Whatever could not be read; nothing is known then.
pub async fn step(_ctx: &Context, _backup: &ColdBackup, _target: &Target, _now: Moment) -> Result<Progress, super::Unproven> {
    Err(super::Unproven::NotVerified("restore is not built yet".into()))
}
