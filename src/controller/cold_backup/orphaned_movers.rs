//! Deletes Jobs and Secrets of movers whose ColdBackup does not exist any more.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};

use super::{context::ColdBackupContext, error::Error};
use crate::error_chain::chain;
use crate::{
    api::{ACCOUNT_UID, ColdBackup},
    cluster::{During, ignore_not_found_or_conflict},
    mover::job::{BACKUP, COMPONENT},
};

/// How often orphaned movers are looked for.
const ORPHAN_INTERVAL: Duration = Duration::from_secs(600);

/// Deletes orphaned movers every ten minutes. Never returns.
pub(super) async fn run(ctx: &ColdBackupContext) {
    loop {
        tokio::time::sleep(ORPHAN_INTERVAL).await;
        if let Err(error) = delete_orphans(ctx).await {
            tracing::warn!(error = chain(&error), "failed to look for movers that no backup speaks for");
        }
    }
}

/// Deletes the Jobs of movers in this operator's shard whose ColdBackup object is gone. Their Secrets are deleted with them.
async fn delete_orphans(ctx: &ColdBackupContext) -> Result<(), Error> {
    let shard = ctx.settings.selector();
    let movers = ListParams::default().labels(&format!("{}={},{shard}", COMPONENT.0, COMPONENT.1));
    let jobs: Api<Job> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let backups: Api<ColdBackup> = Api::all(ctx.client.clone());
    for job in jobs.list(&movers).await.during("list the movers")? {
        let (Some(name), uid) = (job.annotations().get(BACKUP), job.annotations().get(ACCOUNT_UID)) else { continue };
        let backup = backups.get_opt(name).await.during("read the backup of a mover")?;
        if backup.is_none_or(|b| Some(&b.spec.account_uid) != uid) {
            tracing::info!(job = job.name_any(), backup = name, "removing a mover whose backup is gone");
            jobs.delete(&job.name_any(), &DeleteParams::background())
                .await
                .map(drop)
                .or_else(ignore_not_found_or_conflict)
                .during("remove a mover")?;
        }
    }
    Ok(())
}
