//! Erases a backup: every version of its objects, then its keys, in the cluster and in escrow.

use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};

use super::{error::Error, take, work::Work};
use crate::controller::placement::Placement;
use crate::{
    api::{ACCOUNT_LABEL, ACCOUNT_UID, Time},
    backup::{
        folder_of,
        keys::{self},
    },
    cluster::{During, ignore_not_found_or_conflict},
    mover::job::{BACKUP, COMPONENT},
};

/// Erases the backup. `true` once the bucket lists nothing of it. `false` while its movers still end, because they could
/// write new objects meanwhile. Can be repeated.
///
/// The keys are destroyed even if the bucket cannot be reached: without them nobody can read the objects in it.
pub(super) async fn erase(work: &mut Work<'_>, placement: Option<&Placement>) -> Result<bool, Error> {
    let (ctx, backup) = (work.ctx, work.backup);
    if !end_movers(work, placement).await? {
        return Ok(false);
    }
    let folder = folder_of(backup);
    let store = ctx.stores.get(&backup.spec.store).await;
    let objects = async {
        let store = store.as_ref().map_err(|error| {
            Error::Store(crate::store::Error::Configuration { store: backup.spec.store.clone(), why: error.to_string() })
        })?;
        store.check_identity().await?;
        Ok::<_, Error>(ctx.telemetry.measure("store", "erase", store.bucket.erase_prefix(&folder)).await?)
    }
    .await;

    ctx.key_ring().destroy(backup).await?;
    if let Some(escrow) = work.key_escrow(placement).await? {
        let second = ctx.stores.get(&escrow).await?;
        keys::destroy_escrow(&second, &folder).await?;
    }
    if work.status.shredded_at.is_none() {
        work.status.shredded_at = Some(Time(work.now));
        work.store(placement).await?;
        crate::crash::point("shredded-recorded", &backup.spec.account);
    }
    let erased = objects?;
    tracing::info!(versions = erased.versions, markers = erased.markers, uploads = erased.uploads, "erased the backup's objects");
    work.status.erased_at = Some(Time((ctx.now)()));
    Ok(true)
}

/// Deletes every mover of the backup, also one that still restores it. `true` once their pods are gone too: with
/// foreground deletion a Job is removed after its pods.
async fn end_movers(work: &Work<'_>, placement: Option<&Placement>) -> Result<bool, Error> {
    let (ctx, backup) = (work.ctx, work.backup);
    let jobs: Api<Job> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let of_account = ListParams::default().labels(&format!("{}={},{ACCOUNT_LABEL}={}", COMPONENT.0, COMPONENT.1, backup.spec.account));
    let (name, uid) = (backup.name_any(), &backup.spec.account_uid);
    let movers = jobs.list(&of_account).await.during("list the movers")?.items;
    let own: Vec<_> =
        movers.iter().filter(|j| j.annotations().get(BACKUP) == Some(&name) && j.annotations().get(ACCOUNT_UID) == Some(uid)).collect();
    for job in &own {
        if job.metadata.deletion_timestamp.is_none() {
            jobs.delete(&job.name_any(), &DeleteParams::foreground())
                .await
                .map(drop)
                .or_else(ignore_not_found_or_conflict)
                .during("end the mover")?;
        }
    }
    // A proven backup has no mover logins any more: they were dropped when it was proven.
    if let Some(placement) = placement.filter(|_| own.is_empty() && work.status.attempts > 0 && work.status.verified_at.is_none()) {
        take::clean_up(work, placement).await?;
    }
    Ok(own.is_empty())
}
