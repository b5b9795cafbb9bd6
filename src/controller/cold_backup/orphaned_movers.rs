//! Movers that no backup speaks for: their objects went while nobody looked.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};

use super::{
    context::Desk,
    error::{During, Error},
};
use crate::error_chain::chain;
use crate::{
    api::{ACCOUNT_UID, ColdBackup},
    cluster::gone_is_fine,
    mover::job::{BACKUP, COMPONENT},
};

/// Between two looks.
const SWEEP: Duration = Duration::from_secs(600);

/// Looks every ten minutes, for ever.
pub(super) async fn for_ever(desk: &Desk) {
    loop {
        tokio::time::sleep(SWEEP).await;
        if let Err(error) = sweep(desk).await {
            tracing::warn!(error = chain(&error), "failed to look for movers that no backup speaks for");
        }
    }
}

/// Removes Jobs that this operator made for backups whose objects are gone; their Secrets go with them.
async fn sweep(desk: &Desk) -> Result<(), Error> {
    let shard = desk.settings.selector();
    let movers = ListParams::default().labels(&format!("{}={},{shard}", COMPONENT.0, COMPONENT.1));
    let jobs: Api<Job> = Api::namespaced(desk.client.clone(), &desk.settings.namespace);
    let backups: Api<ColdBackup> = Api::all(desk.client.clone());
    for job in jobs.list(&movers).await.during("list the movers")? {
        let (Some(name), uid) = (job.annotations().get(BACKUP), job.annotations().get(ACCOUNT_UID)) else { continue };
        let backup = backups.get_opt(name).await.during("read the backup of a mover")?;
        if backup.is_none_or(|b| Some(&b.spec.account_uid) != uid) {
            tracing::info!(job = job.name_any(), backup = name, "removing a mover whose backup is gone");
            jobs.delete(&job.name_any(), &DeleteParams::background()).await.map(drop).or_else(gone_is_fine).during("remove a mover")?;
        }
    }
    Ok(())
}
