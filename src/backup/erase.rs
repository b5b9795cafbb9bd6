//! The end of a backup: every version of its objects, then its keys, in the cluster and in escrow.

use k8s_openapi::api::batch::v1::Job;
use kube::{Api, api::DeleteParams};

use super::{
    home::Home,
    keys::{self, KeyRing},
    recheck::folder_of,
    reconcile::{During, Error, Work, gone_is_fine},
    take,
};
use crate::{
    api::{ColdBackup, Time},
    clock::{self, Moment, Trust},
    context::Context,
};

/// The deadline counts only by a clock that another one confirms: the database server's, or else the bucket's.
pub(super) async fn trust_the_clock(ctx: &Context, backup: &ColdBackup, home: Option<&Home>, now: Moment) -> Result<(), Error> {
    let mut others = Vec::new();
    let mut high_water = None;
    if let Some(home) = home {
        high_water = home.server.ledger.high_water().await?;
        let identity = home.server.server.identify().await?;
        others.push((format!("server {}", home.server.name), clock::whole_seconds(identity.now)));
    } else {
        let store = ctx.stores.get(&backup.spec.store).await?;
        store.prove().await?;
        if let Some(seen) = store.store.clock() {
            others.push((format!("store {}", backup.spec.store), seen.theirs));
        }
    }
    if others.is_empty() {
        return Err(Error::Clock("no other clock could be asked".into()));
    }
    let others: Vec<_> = others.iter().map(|(whose, at)| (whose.as_str(), *at)).collect();
    match clock::judge(now, high_water, &others) {
        Trust::Trusted => Ok(()),
        Trust::Doubtful(why) => Err(Error::Clock(why)),
    }
}

/// Destroys the backup. Returns only when nothing of it was listed any more. Safe to repeat.
///
/// A bucket that cannot be reached does not keep the keys alive: without them nobody can read what lies there.
pub(super) async fn erase(work: &mut Work<'_>, home: Option<&Home>) -> Result<(), Error> {
    let (desk, backup) = (work.desk, work.backup);
    end_mover(work, home).await?;
    let folder = folder_of(backup);
    let store = desk.stores.get(&backup.spec.store).await;
    let objects = async {
        let store = store.as_ref().map_err(|error| {
            Error::Store(crate::store::Error::Configuration { store: backup.spec.store.clone(), why: error.to_string() })
        })?;
        store.prove().await?;
        Ok::<_, Error>(desk.telemetry.measure("store", "erase", store.store.erase_prefix(&folder)).await?)
    }
    .await;

    KeyRing::new(desk.client.clone(), &desk.settings.namespace).destroy(backup).await?;
    if let Some(escrow) = store.as_ref().ok().and_then(|s| s.key_escrow.clone()) {
        let second = desk.stores.get(&escrow.store).await?;
        keys::destroy_escrow(&second, &folder).await?;
    }
    if work.status.shredded_at.is_none() {
        work.status.shredded_at = Some(Time(work.now));
        work.store(home).await?;
        crate::crash::point("shredded-recorded", &backup.spec.account);
    }
    let erased = objects?;
    tracing::info!(versions = erased.versions, markers = erased.markers, uploads = erased.uploads, "erased the backup's objects");
    work.status.erased_at = Some(Time((desk.now)()));
    Ok(())
}

/// A mover that still runs would write what was just erased.
async fn end_mover(work: &Work<'_>, home: Option<&Home>) -> Result<(), Error> {
    let jobs: Api<Job> = Api::namespaced(work.desk.client.clone(), &work.desk.settings.namespace);
    let name = take::job_name(work.backup, work.status.attempts);
    if jobs.get_opt(&name).await.during("read the mover's Job")?.is_some() {
        jobs.delete(&name, &DeleteParams::foreground()).await.map(drop).or_else(gone_is_fine).during("end the mover")?;
        if let Some(home) = home {
            take::clean_up(work, home).await?;
        }
    }
    Ok(())
}
