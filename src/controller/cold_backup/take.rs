//! Takes a backup: starts its mover, watches it, and reads the report that the mover signed into the bucket.

use std::{sync::PoisonError, time::Duration};

use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{Pod, Secret},
    },
    jiff::SignedDuration,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, LogParams, PostParams},
    runtime::events::EventType,
};

use super::{
    error::Error,
    failure,
    mover_slots::{Claim, MoverSlot},
    work::Work,
};
use crate::controller::placement::Placement;
use crate::error_chain::chain;
use crate::{
    api::{
        ACCOUNT_UID, BackupPhase, BackupReason, ColdBackup, ColdBackupStatus, SHARD_LABEL, Time, VerifyMode,
        conditions::{Finding, Type},
    },
    backup::{
        folder_of,
        keys::{self, Keys},
        manifest::{self, Verification},
        recheck::{NotVerified, read_manifest},
    },
    cluster::{During, ignore_not_found_or_conflict},
    mover::{
        Task,
        config::MoverConfig,
        job::{self, BACKUP, COMPONENT, MoverFiles, MoverJob, SERVER, State},
    },
    store::{self, ConnectedStore},
};

/// How often a waiting backup asks for its turn.
const TURN: Duration = Duration::from_secs(3);
/// How often a Job is looked at although it announces its end.
const PATIENCE: Duration = Duration::from_secs(60);
/// After so many attempts nothing of the ones before is built upon.
const FRESH_AFTER: i32 = 3;
/// So many letters of a mover's complaint are shown: enough for a definition as it is in source and copy.
const MOST_WORDS: usize = 1000;
/// Label of a verification's scratch database: one at a time for a tenant.
const SCRATCH: &str = "verify";

/// The Job of an attempt.
pub(super) fn job_name(backup: &ColdBackup, attempt: i32) -> String {
    job::job_name(Task::Backup, &backup.name_any(), &backup.spec.account_uid, &attempt.to_string())
}

/// Takes a backup one step further. Returns when to look again.
pub(super) async fn step(work: &mut Work<'_>, placement: &Placement) -> Result<Duration, Error> {
    let jobs: Api<Job> = Api::namespaced(work.ctx.client.clone(), &work.ctx.settings.namespace);
    if let Some(left) = retry_delay(work) {
        return Ok(left);
    }
    // Kept until the mover is started, or two reconciles would both take the last free place.
    let claim = || Claim {
        backup: work.backup.name_any(),
        account_uid: work.backup.spec.account_uid.clone(),
        server: placement.server.name.clone(),
    };
    let ctx = work.ctx;
    let place = (work.status.phase != BackupPhase::Running).then(|| ctx.slots.take(claim()));
    if let Some(place) = &place {
        if let Some(refusal) = work.ctx.settings.clients.refusal(placement.server.identity.major) {
            work.find(Finding::no(Type::Ready, "NoClient", refusal));
            return Ok(PATIENCE);
        }
        if let Some(why) = why_queued(work, placement, &jobs, place).await? {
            work.find(Finding::no(Type::Ready, "Waiting", why));
            return Ok(TURN);
        }
        begin(work, placement).await?;
    }
    let name = job_name(work.backup, work.status.attempts);
    let job = jobs.get_opt(&name).await.during("read the mover's Job")?;
    match job.as_ref().map(job::state) {
        Some(State::Complete) => finish(work, placement, &name).await,
        Some(State::Failed(why)) => fail_attempt(work, placement, &name, &why).await,
        Some(State::Running) if secrets(work).get_opt(&name).await.during("read the mover's Secret")?.is_some() => Ok(PATIENCE),
        // Not yet started, or a crash came between the Job and its Secret.
        Some(State::Running) | None => {
            start(work, placement, job, &name).await?;
            drop(place);
            Ok(PATIENCE)
        }
    }
}

/// How long a failed attempt is rested from: longer after each, by what is recorded, so that a restart does not hurry.
fn retry_delay(work: &Work<'_>) -> Option<Duration> {
    let begun = work.status.started_at.as_ref().filter(|_| work.status.phase == BackupPhase::Failed)?.0;
    let wait = if work.unprovable().is_some() {
        work.ctx.settings.patience.pause()
    } else {
        SignedDuration::from_secs((5 << work.status.attempts.clamp(0, 6)).min(300))
    };
    Duration::try_from((begun + wait).duration_since(work.now)).ok().filter(|left| !left.is_zero())
}

/// Why a mover cannot be started now: one at a time for a tenant, and so many at a server as it allows.
async fn why_queued(work: &Work<'_>, placement: &Placement, jobs: &Api<Job>, place: &MoverSlot<'_>) -> Result<Option<String>, Error> {
    if placement.entry.database.as_ref().is_none_or(|d| d.oid.is_none()) {
        return Err(Error::Mover("the account has no database".into()));
    }
    if work.backup.spec.reason == BackupReason::Frozen && placement.entry.record.sealed_since.is_none() {
        return Err(Error::Mover("the account is open again, so there is nothing frozen to back up".into()));
    }
    let movers = ListParams::default().labels(&format!("{}={},{SERVER}={}", COMPONENT.0, COMPONENT.1, placement.server.name));
    let listed = jobs.list(&movers).await.during("count the movers")?;
    let noted = |job: &Job, key: &str| job.annotations().get(key).cloned().unwrap_or_default();
    let claim =
        |job: &Job| Claim { backup: noted(job, BACKUP), account_uid: noted(job, ACCOUNT_UID), server: placement.server.name.clone() };
    let at_work: Vec<Claim> = listed.iter().filter(|job| job::state(job) == State::Running).map(claim).collect();
    let most = usize::try_from(placement.server.spec.movers).unwrap_or(1);
    Ok(place.refusal(&at_work, &work.backup.spec.account_uid, &placement.server.name, most))
}

/// Records the intent: the attempt's number names its Job.
async fn begin(work: &mut Work<'_>, placement: &Placement) -> Result<(), Error> {
    let store = work.ctx.stores.get(&work.backup.spec.store).await?;
    store.check_identity().await?;
    if work.status.attempts >= FRESH_AFTER && work.status.verified_at.is_none() {
        // What could not be proven so often is damaged for good. Nothing rests on it: it was never proven.
        let erased = store.bucket.erase_prefix(&folder_of(work.backup)).await?;
        tracing::warn!(versions = erased.versions, "erased what could not be proven; taking the backup anew");
    }
    work.status.phase = BackupPhase::Running;
    work.status.attempts += 1;
    work.status.started_at = Some(Time(work.now));
    work.status.prefix = Some(format!("{}{}", store.location.prefix, folder_of(work.backup)));
    work.find(Finding::no(
        Type::Ready,
        "Running",
        format!(
            "attempt {}: being taken and proven; kubectl logs of Job {} tell how far",
            work.status.attempts,
            job_name(work.backup, work.status.attempts)
        ),
    ));
    work.store(Some(placement)).await?;
    crate::crash::point("backup-recorded", &work.backup.spec.account);
    Ok(())
}

/// Makes the keys, escrows them, opens the logins, and starts the mover.
async fn start(work: &mut Work<'_>, placement: &Placement, job: Option<Job>, name: &str) -> Result<(), Error> {
    let (ctx, backup) = (work.ctx, work.backup);
    let store = ctx.stores.get(&backup.spec.store).await?;
    store.check_identity().await?;
    let ring = ctx.key_ring();
    let keys = ring.ensure(backup, store.key_escrow.as_ref()).await?;
    escrow(work, &store, &keys).await?;
    work.status.key_id = Some(keys.recipient.clone());

    let server = &placement.server.driver;
    let source = ctx.telemetry.measure("database", "dump_login", server.dump_login(&placement.tenant)).await?;
    let target = match backup.spec.verify {
        VerifyMode::Restore => Some(ctx.telemetry.measure("database", "scratch", server.scratch(&placement.tenant, SCRATCH)).await?),
        VerifyMode::Read => None,
    };
    let database = placement.entry.database.as_ref();
    let oid = database.and_then(|d| d.oid).unwrap_or_default();
    let system_identifier = database.map(|d| d.system_identifier.clone()).unwrap_or_default();
    let plan = MoverConfig::new(backup, &store, &keys, oid, system_identifier);
    let order = MoverJob {
        name: name.to_owned(),
        task: Task::Backup,
        backup,
        server: &placement.server.name,
        scratch: target.is_some().then_some(SCRATCH),
        namespace: &ctx.settings.namespace,
        image: &ctx.settings.image,
        memory: work.status.mover_memory.unwrap_or_default(),
    };
    let signing = ring.signing_key(backup).await?;
    let files = MoverFiles { plan: &plan, store: &store, keys: &keys, signing: &signing, source: Some(&source), target: target.as_ref() }
        .render()?;
    let jobs: Api<Job> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let job = match job {
        Some(job) => job,
        None => {
            let mut job = order.job();
            if let Some(shard) = &ctx.settings.shard {
                job.labels_mut().insert(SHARD_LABEL.into(), shard.clone());
            }
            jobs.create(&PostParams::default(), &job).await.during("start the mover")?
        }
    };
    secrets(work).create(&PostParams::default(), &order.secret(&job, files)).await.during("hand the mover its Secret")?;
    tracing::info!(job = name, attempt = work.status.attempts, "started a mover");
    work.store(Some(placement)).await
}

/// Nothing is backed up before its key lies in escrow and was read back from there.
async fn escrow(work: &Work<'_>, store: &ConnectedStore, keys: &Keys) -> Result<(), Error> {
    let (Some(escrow), Some(sealed)) = (&store.key_escrow, &keys.escrow) else { return Ok(()) };
    let second = work.ctx.stores.get(&escrow.store).await?;
    let folder = folder_of(work.backup);
    if keys::has_escrow(&second, &folder, sealed).await? {
        return Ok(());
    }
    keys::put_escrow(&second, &folder, sealed).await?;
    if keys::has_escrow(&second, &folder, sealed).await? { Ok(()) } else { Err(Error::Escrow(escrow.store.clone())) }
}

/// The Job ended well: what its mover signed into the bucket decides whether the backup is proven.
async fn finish(work: &mut Work<'_>, placement: &Placement, name: &str) -> Result<Duration, Error> {
    let (ctx, backup) = (work.ctx, work.backup);
    let store = ctx.stores.get(&backup.spec.store).await?;
    store.check_identity().await?;
    let ring = ctx.key_ring();
    let keys = ring.load(backup).await?.ok_or_else(|| NotVerified::Incomplete("its key is not in the operator's namespace".into()))?;
    let read = async {
        let believed = read_manifest(&store, backup, &keys).await?;
        let key = format!("{}{}", folder_of(backup), manifest::VERIFICATION);
        let verification: Verification = manifest::verify(&store.bucket.read(&key, manifest::LARGEST_REPORT).await?, &keys.verifying)?;
        if verification.manifest_sha256 != believed.sha256 {
            return Err(NotVerified::Mismatch("the verification is of another manifest".into()));
        }
        Ok((believed, verification))
    }
    .await;
    let (believed, verification) = match read {
        Ok(proof) => proof,
        // The Job says that all is well and its report is not there: unknown, so it is done again.
        Err(NotVerified::Store(store::Error::Missing(what))) => {
            return fail_attempt(work, placement, name, &format!("it left no report: {what} is missing")).await;
        }
        // A report that is not this backup's proves nothing, however often it is read.
        Err(error @ (NotVerified::Report(_) | NotVerified::Mismatch(_))) => {
            return fail_attempt(work, placement, name, &chain(&error)).await;
        }
        Err(error) => return Err(error.into()),
    };
    let manifest = believed.manifest;
    work.status.phase = BackupPhase::Verified;
    work.status.manifest_sha256 = Some(believed.sha256);
    work.status.bytes = i64::try_from(manifest.objects().map(|object| object.size).sum::<u64>()).ok();
    work.status.completed_at = Some(Time(manifest.completed_at));
    work.status.verified_at = Some(Time(verification.verified_at));
    work.status.failing = None;
    let restored = verification.restored.unwrap_or_default();
    work.status.restored_by = verification.fingerprint.is_some().then_some(restored.way);
    work.status.left_out = restored.left_out.iter().map(ToString::to_string).collect();
    work.find(Finding::yes(Type::Ready, "Verified", proven(&work.status)));
    work.store(Some(placement)).await?;
    crate::crash::point("verified-recorded", &backup.spec.account);
    tracing::info!(bytes = work.status.bytes, "the backup is proven");
    work.publish(EventType::Normal, "Verified", &format!("{} bytes, read back and proven", manifest.dump.size)).await;
    clean_up(work, placement).await?;
    ring.destroy_signing(backup).await?;
    remove(work, name).await?;
    Ok(Duration::ZERO)
}

/// That it is proven, and what its rows do not let be made again.
pub(super) fn proven(status: &ColdBackupStatus) -> String {
    let mut text = "read back, proven, and all there".to_owned();
    if !status.left_out.is_empty() {
        text += &format!("; every row is, but a restore makes not everything as it was: {}", status.left_out.join("; "));
    }
    text.chars().take(MOST_WORDS).collect()
}

/// The attempt failed: its traces are removed, and another one follows.
async fn fail_attempt(work: &mut Work<'_>, placement: &Placement, name: &str, why: &str) -> Result<Duration, Error> {
    let said = last_log_error(work, name).await.unwrap_or_default();
    let why = if said.is_empty() { why.to_owned() } else { format!("{why}; {said}") };
    let ending = failure::ending(&pods(work, name).await.unwrap_or_default());
    let before = work.unprovable().is_some();
    let why = failure::reckon(&mut work.status, ending, why, &work.ctx.settings.patience, work.now);
    let error = Error::Mover(why);
    work.status.phase = BackupPhase::Failed;
    // What is found goes out with the count, so that nobody sees one without the other.
    work.find(Finding::no(Type::Ready, error.reason(), error.to_string()));
    work.ctx.failed.lock().unwrap_or_else(PoisonError::into_inner).insert(work.backup.uid().unwrap_or_default(), work.now);
    work.store(Some(placement)).await?;
    clean_up(work, placement).await?;
    remove(work, name).await?;
    work.publish(EventType::Warning, "MoverFailed", &error.to_string()).await;
    if let Some(unprovable) = work.unprovable().filter(|_| !before) {
        tracing::warn!(attempts = work.status.attempts, "the backup is taken for unprovable");
        work.publish(EventType::Warning, "Unprovable", &unprovable.message).await;
    }
    Err(error)
}

/// The pods of an attempt.
async fn pods(work: &Work<'_>, name: &str) -> Result<Vec<Pod>, Error> {
    let pods: Api<Pod> = Api::namespaced(work.ctx.client.clone(), &work.ctx.settings.namespace);
    Ok(pods.list(&ListParams::default().labels(&format!("job-name={name}"))).await.during("list the mover's pods")?.items)
}

/// What the mover complained of, from its log: the first pod's, whose words are about the cause. A later one may have
/// met what that one left.
async fn last_log_error(work: &Work<'_>, name: &str) -> Option<String> {
    let api: Api<Pod> = Api::namespaced(work.ctx.client.clone(), &work.ctx.settings.namespace);
    let mut found = api.list(&ListParams::default().labels(&format!("job-name={name}"))).await.ok()?.items;
    found.sort_by_key(ResourceExt::creation_timestamp);
    let error = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?.pointer("/fields/error")?.as_str().map(str::to_owned);
    for pod in found {
        let log = api.logs(&pod.name_any(), &LogParams { tail_lines: Some(20), ..LogParams::default() }).await.unwrap_or_default();
        if let Some(text) = log.lines().rev().find_map(error) {
            return Some(text.chars().take(MOST_WORDS).collect());
        }
    }
    None
}

/// Removes the logins and the scratch database of this backup's movers.
pub(super) async fn clean_up(work: &Work<'_>, placement: &Placement) -> Result<(), Error> {
    if placement.entry.database.is_none() {
        return Ok(());
    }
    let (server, telemetry) = (&placement.server.driver, &work.ctx.telemetry);
    telemetry.measure("database", "revoke_dump_login", server.revoke_dump_login(&placement.tenant)).await?;
    if work.backup.spec.verify == VerifyMode::Restore {
        telemetry.measure("database", "drop_scratch", server.drop_scratch(&placement.tenant, SCRATCH)).await?;
    }
    Ok(())
}

async fn remove(work: &Work<'_>, name: &str) -> Result<(), Error> {
    let jobs: Api<Job> = Api::namespaced(work.ctx.client.clone(), &work.ctx.settings.namespace);
    jobs.delete(name, &DeleteParams::background())
        .await
        .map(drop)
        .or_else(ignore_not_found_or_conflict)
        .during("remove the mover's Job")
        .map_err(Error::from)
}

fn secrets(work: &Work<'_>) -> Api<Secret> {
    Api::namespaced(work.ctx.client.clone(), &work.ctx.settings.namespace)
}
