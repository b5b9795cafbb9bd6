//! Reads what a restore needs besides the dump: the extensions that were created for the tenant, and its settings.

use sqlx::{PgConnection, Row as _};

use super::Error;
use crate::{
    api::plan::Extension,
    database::{
        postgres::{MADE_FOR_TENANT, SETTINGS_OF_TENANT},
        settings::carried,
    },
};

/// The extensions that must exist before a restore begins, with their versions.
pub(super) async fn extensions(session: &mut PgConnection) -> Result<Vec<Extension>, Error> {
    let failed = |source| Error::Database { step: "read the extensions", source };
    let rows = sqlx::query(MADE_FOR_TENANT).fetch_all(session).await.map_err(failed)?;
    let read = |row: &sqlx::postgres::PgRow| Ok(Extension { name: row.try_get("name")?, version: Some(row.try_get("version")?) });
    rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)
}

/// The tenant's settings that a restore sets again.
pub(super) async fn settings(session: &mut PgConnection) -> Result<Vec<(String, String)>, Error> {
    let failed = |source| Error::Database { step: "read the tenant's settings", source };
    let lines: Vec<String> = sqlx::query_scalar(SETTINGS_OF_TENANT).fetch_all(session).await.map_err(failed)?;
    Ok(carried(lines.iter().map(String::as_str)))
}
