//! The task `restore`: fill a tenant's new, empty database from a backup, compare, sign the report.

use std::sync::Arc;

use super::{
    Error,
    config::{Mover, PLAN, TARGET},
    fill, postgres,
    progress::Progress,
    reports,
};
use crate::{
    backup::manifest::{self, RestoreReport},
    clock, store,
};

/// Restores the backup unless the bucket has the report of this restore. Returns the bytes of the report.
pub(super) async fn run(mover: &Mover) -> Result<Vec<u8>, Error> {
    mover.store.check_identity().await?;
    let (facts, manifest_sha256) = reports::read_manifest(mover).await?;
    let since = mover.plan.restore_since.ok_or(Error::Plan { file: PLAN, why: "restoreSince is missing".into() })?;
    let login = mover.target.as_ref().ok_or(Error::Plan { file: TARGET, why: "it is missing".into() })?;
    let key = mover.key(&manifest::report_name(since, mover.plan.database_oid));
    match mover.store.bucket.read(&key, manifest::LARGEST_REPORT).await {
        Ok(bytes) => return Ok(bytes),
        Err(store::Error::Missing(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let mut session = postgres::connect(login).await?;
    let (target, _, _) = postgres::who(&mut session).await?;
    let plan = &mover.plan;
    if target.database_oid != plan.database_oid || target.system_identifier != plan.system_identifier {
        return Err(Error::OtherDatabase(format!("expected oid {}, found oid {}", plan.database_oid, target.database_oid)));
    }
    drop(session);
    // Begins with the way that worked in the verification. Without a verification, begins with the first.
    let way = reports::read_verification(mover, &manifest_sha256).await?.and_then(|(proof, _)| proof.restored).map(|restored| restored.way);
    let filled = Box::pin(fill::fill(mover, &facts, login, way, &Arc::new(Progress::default()))).await?;
    let report = RestoreReport {
        account_uid: plan.account_uid.clone(),
        manifest_sha256,
        database_oid: target.database_oid,
        system_identifier: target.system_identifier,
        fingerprint: filled.fingerprint,
        restored: Some(filled.restored),
        completed_at: clock::now(),
    };
    let bytes = manifest::sign(report, &mover.signing)?;
    mover.store.bucket.write_once(&key, bytes.clone()).await?;
    Ok(bytes)
}
