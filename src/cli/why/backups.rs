//! What is wrong with an account's backups, down to the pod of a mover. Pure.

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;

use super::{
    chain::{Link, Object},
    objects::{missing_secret, server, store, unless},
    pods,
    scene::Scene,
};
use crate::{
    api::{BackupPhase, ColdBackup, Condition, conditions::Type},
    backup::keys,
    clock::Moment,
    mover::job::BACKUP,
};

/// What is wrong with the newest backup that matters.
pub(super) fn links(scene: &Scene) -> Vec<Link> {
    let wrong = scene.backups.all().iter().filter_map(|backup| Some((backup, complaint(scene, backup)?)));
    let Some((backup, condition)) = wrong.max_by_key(|(backup, _)| taken(backup)) else { return vec![] };
    let link = Link::told(Object::of("ColdBackup", backup.name_any()), condition);
    std::iter::once(link).chain(below(scene, backup, &condition.reason)).collect()
}

fn taken(backup: &ColdBackup) -> Option<Moment> {
    backup.creation_timestamp().map(|at| at.0)
}

/// The condition that says what is wrong with a backup.
fn complaint<'b>(scene: &Scene, backup: &'b ColdBackup) -> Option<&'b Condition> {
    let status = backup.status.as_ref()?;
    let holds = |kind: Type| status.conditions.iter().find(|c| c.type_ == kind.name() && c.status == "True");
    let grave = holds(Type::Overdue).or_else(|| holds(Type::Unprovable)).or_else(|| holds(Type::Stalled));
    if grave.is_some() {
        return grave;
    }
    let is_made_good = scene
        .backups
        .all()
        .iter()
        .any(|other| other.status.as_ref().is_some_and(|status| status.phase == BackupPhase::Verified) && taken(other) > taken(backup));
    let failing = match status.phase {
        BackupPhase::Pending | BackupPhase::Running | BackupPhase::Failed => !is_made_good,
        // Its objects or its key may not be what was proven.
        BackupPhase::Verified => true,
        BackupPhase::Erasing | BackupPhase::Erased => false,
    };
    unless(&status.conditions, Type::Ready, "True").filter(|_| failing)
}

/// What is behind a reason of a backup.
fn below(scene: &Scene, backup: &ColdBackup, reason: &str) -> Vec<Link> {
    let status = backup.status.clone().unwrap_or_default();
    match reason {
        "Configuration" | "Unreachable" | "AccessDenied" | "NoSuchBucket" | "ForeignBucket" | "Unclaimed" | "Unreadable" => {
            store(scene, &backup.spec.store)
        }
        "NotEscrowed" => store(scene, status.key_escrow.as_deref().unwrap_or(&backup.spec.store)),
        "KeyUnusable" | "Unproven" => {
            missing_secret(scene, &scene.operator_namespace, &keys::key_secret(&backup.name_any())).into_iter().collect()
        }
        "NoDatabase" | "NoClient" => {
            let database = scene.account.status.as_ref().and_then(|status| status.database.as_ref());
            database.map(|database| server(scene, &database.server)).unwrap_or_default()
        }
        _ => mover(scene, &backup.name_any()),
    }
}

/// The newest Job of a mover that works for the backup, and its pod.
fn mover(scene: &Scene, backup: &str) -> Vec<Link> {
    let of_backup = |job: &&Job| job.annotations().get(BACKUP).is_some_and(|name| name == backup);
    let Some(job) = scene.mover_jobs.all().iter().filter(of_backup).max_by_key(|job| job.creation_timestamp().map(|at| at.0)) else {
        return vec![];
    };
    let (namespace, name) = (job.namespace().unwrap_or_default(), job.name_any());
    let is_its = |pod: &&k8s_openapi::api::core::v1::Pod| pod.labels().get("batch.kubernetes.io/job-name") == Some(&name);
    let pod = scene.mover_pods.all().iter().filter(is_its).find_map(pods::of_pod);
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_ref());
    let failed = conditions.into_iter().flatten().find(|c| c.type_ == "Failed" && c.status == "True");
    let says = match (failed, &pod) {
        (Some(failed), _) => format!("it failed: {}", failed.message.as_deref().unwrap_or_default()),
        (None, Some(_)) => "its pod does not work".to_owned(),
        (None, None) => return vec![],
    };
    std::iter::once(Link::seen(Object::within("Job", namespace, name), says)).chain(pod).collect()
}
