//! Takes a backup: starts its mover, watches it, and reads the report that the mover signed into the bucket.

use std::{collections::BTreeSet, sync::PoisonError, time::Duration};

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
use crate::controller::{placement::Placement, tenant_secret::TenantSecret};
use crate::error_chain::chain;
use crate::{
    api::{
        ACCOUNT_UID, BackupPhase, BackupReason, ColdBackup, ColdBackupStatus, SHARD_LABEL, Time, VerifyMode,
        conditions::{Finding, Type},
    },
    app::secrets::AppSecrets,
    backup::{
        folder_of,
        keys::{self, Keys},
        manifest::{self, Verification},
        recheck::{NotVerified, SignedManifest, read_proof},
    },
    cluster::{During, ignore_not_found_or_conflict},
    mover::{
        Task,
        config::MoverConfig,
        job::{self, BACKUP, COMPONENT, MoverFiles, MoverJob, SERVER, State},
    },
    store,
};

/// How often a queued backup checks whether a mover slot is free.
const QUEUE_INTERVAL: Duration = Duration::from_secs(3);
/// How often a running Job is read, besides when a change of it triggers a reconcile.
const JOB_INTERVAL: Duration = Duration::from_secs(60);
/// After this many attempts, the objects of earlier attempts are erased before the next one.
const FRESH_AFTER: i32 = 3;
/// How many characters of a mover's error are shown: enough for a definition as it is in source and copy.
const LONGEST_TEXT: usize = 1000;
/// The name of a verification's scratch database; each tenant has one at a time.
const SCRATCH: &str = "verify";

/// The name of an attempt's Job.
pub(super) fn job_name(backup: &ColdBackup, attempt: i32) -> String {
    job::job_name(Task::Backup, &backup.name_any(), &backup.spec.account_uid, &attempt.to_string())
}

/// Takes a backup one step further. Returns when to reconcile again.
pub(super) async fn step(work: &mut Work<'_>, placement: &Placement) -> Result<Duration, Error> {
    let jobs: Api<Job> = Api::namespaced(work.ctx.client.clone(), &work.ctx.settings.namespace);
    if let Some(left) = retry_delay(work) {
        return Ok(left);
    }
    if work.status.phase != BackupPhase::Running && recover(work, placement).await? {
        return Ok(Duration::ZERO);
    }
    // The slot is kept until the mover is started. Otherwise two reconciles could both use the last free slot.
    let claim = || Claim {
        backup: work.backup.name_any(),
        account_uid: work.backup.spec.account_uid.clone(),
        server: placement.server.name.clone(),
    };
    let ctx = work.ctx;
    let slot = (work.status.phase != BackupPhase::Running).then(|| ctx.slots.take(claim()));
    if let Some(slot) = &slot {
        if let Some(refusal) = work.ctx.settings.clients.refusal(placement.server.identity.major) {
            work.set_finding(Finding::no(Type::Ready, "NoClient", refusal));
            return Ok(JOB_INTERVAL);
        }
        // A store that nobody has is told before a queue is waited in for nothing.
        work.ctx.stores.get(&work.backup.spec.store).await?;
        if let Some(why) = why_queued(work, placement, &jobs, slot).await? {
            work.set_finding(Finding::no(Type::Ready, "Waiting", why));
            return Ok(QUEUE_INTERVAL);
        }
        begin_attempt(work, placement).await?;
    }
    let name = job_name(work.backup, work.status.attempts);
    let job = jobs.get_opt(&name).await.during("read the mover's Job")?;
    match job.as_ref().map(job::state) {
        Some(State::Complete) => finish(work, placement, &name).await,
        Some(State::Failed(why)) => fail_attempt(work, placement, &name, &why).await,
        Some(State::Running) if secrets(work).get_opt(&name).await.during("read the mover's Secret")?.is_some() => Ok(JOB_INTERVAL),
        // Not started yet, or the process crashed after creating the Job and before its Secret.
        Some(State::Running) | None => {
            start(work, placement, job, &name).await?;
            drop(slot);
            Ok(JOB_INTERVAL)
        }
    }
}

/// How long to wait after a failed attempt: longer after each one. It is computed from the status, so that a restart of the
/// operator does not shorten it.
fn retry_delay(work: &Work<'_>) -> Option<Duration> {
    let begun = work.status.started_at.as_ref().filter(|_| work.status.phase == BackupPhase::Failed)?.0;
    let wait = if work.unprovable().is_some() {
        work.ctx.settings.patience.pause()
    } else {
        SignedDuration::from_secs((5 << work.status.attempts.clamp(0, 6)).min(300))
    };
    Duration::try_from((begun + wait).duration_since(work.now)).ok().filter(|left| !left.is_zero())
}

/// Why no mover can be started now, if so: a tenant has one at a time, and a server at most `spec.movers`.
async fn why_queued(work: &Work<'_>, placement: &Placement, jobs: &Api<Job>, slot: &MoverSlot<'_>) -> Result<Option<String>, Error> {
    if placement.entry.database.as_ref().is_none_or(|d| d.oid.is_none()) {
        return Err(Error::Mover("the account has no database".into()));
    }
    if work.backup.spec.reason == BackupReason::Frozen && placement.entry.record.sealed_since.is_none() {
        return Err(Error::Mover("the account is open again, so there is nothing frozen to back up".into()));
    }
    let movers = ListParams::default().labels(&format!("{}={},{SERVER}={}", COMPONENT.0, COMPONENT.1, placement.server.name));
    let listed = jobs.list(&movers).await.during("count the movers")?;
    let annotation = |job: &Job, key: &str| job.annotations().get(key).cloned().unwrap_or_default();
    let claim = |job: &Job| Claim {
        backup: annotation(job, BACKUP),
        account_uid: annotation(job, ACCOUNT_UID),
        server: placement.server.name.clone(),
    };
    let running: Vec<Claim> = listed.iter().filter(|job| job::state(job) == State::Running).map(claim).collect();
    let limit = usize::try_from(placement.server.spec.movers).unwrap_or(1);
    Ok(slot.refusal(&running, &work.backup.spec.account_uid, &placement.server.name, limit))
}

/// Stores the intent before its effect: the number of the attempt, which is in the name of its Job.
async fn begin_attempt(work: &mut Work<'_>, placement: &Placement) -> Result<(), Error> {
    let store = work.ctx.stores.get(&work.backup.spec.store).await?;
    store.check_identity().await?;
    let folder = folder_of(work.backup);
    if work.ctx.key_ring().load(work.backup).await?.is_none()
        && store.bucket.head(&format!("{folder}{}", manifest::VERIFICATION)).await?.is_some()
    {
        let why = "its folder holds a verification, and its key is not in the operator's namespace";
        return Err(NotVerified::Incomplete(format!("{why}: restore the Secret {}", keys::key_secret(&work.backup.name_any()))).into());
    }
    if work.status.attempts >= FRESH_AFTER {
        // Objects that could not be proven this often are damaged. Erasing them loses nothing: what is proven was found
        // before this attempt, see `recover`.
        let erased = store.bucket.erase_prefix(&folder).await?;
        tracing::warn!(versions = erased.versions, "erased what could not be proven; taking the backup anew");
    }
    work.status.phase = BackupPhase::Running;
    work.status.attempts += 1;
    work.status.started_at = Some(Time(work.now));
    work.status.key_escrow = work.key_escrow(Some(placement)).await?;
    work.status.prefix = Some(format!("{}{folder}", store.location.prefix));
    work.set_finding(Finding::no(
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

/// Creates the keys, escrows them, creates the logins, and starts the mover.
async fn start(work: &mut Work<'_>, placement: &Placement, job: Option<Job>, name: &str) -> Result<(), Error> {
    let (ctx, backup) = (work.ctx, work.backup);
    let store = ctx.stores.get(&backup.spec.store).await?;
    store.check_identity().await?;
    let ring = ctx.key_ring();
    let keys = ring.ensure(backup, store.key_escrow.as_ref(), &app_secrets(work, placement).await?).await?;
    escrow(work, &keys).await?;
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
        pod: &ctx.settings.mover_pod,
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

/// The secrets of the tenant's app for the keys of this backup. What was lost meanwhile comes from an earlier backup, if
/// that has it: a backup without it would be worth less.
async fn app_secrets(work: &Work<'_>, placement: &Placement) -> Result<AppSecrets, Error> {
    let own = TenantSecret::of(work.ctx, &placement.tenant);
    let mut secrets = own.app_secrets().await?;
    let handed_out = &placement.entry.record.app_secrets;
    let lost: BTreeSet<_> = handed_out.iter().filter(|name| secrets.get(name).is_none()).cloned().collect();
    secrets.fill_up(own.find_in_backups(&placement.entry.account, &lost).await?);
    Ok(secrets)
}

/// Writes the key to the recorded escrow, if there is one, and reads it back. The mover must not start before that, because a
/// backup whose key is lost cannot be read.
async fn escrow(work: &Work<'_>, keys: &Keys) -> Result<(), Error> {
    let (Some(escrow), Some(sealed)) = (&work.status.key_escrow, &keys.escrow) else { return Ok(()) };
    let second = work.ctx.stores.get(escrow).await?;
    let folder = folder_of(work.backup);
    if keys::has_escrow(&second, &folder, sealed).await? {
        return Ok(());
    }
    keys::put_escrow(&second, &folder, sealed).await?;
    if keys::has_escrow(&second, &folder, sealed).await? { Ok(()) } else { Err(Error::Escrow(escrow.clone())) }
}

/// The Job completed. The backup is proven only by the reports that the mover signed into the bucket.
async fn finish(work: &mut Work<'_>, placement: &Placement, name: &str) -> Result<Duration, Error> {
    let (ctx, backup) = (work.ctx, work.backup);
    let store = ctx.stores.get(&backup.spec.store).await?;
    store.check_identity().await?;
    let keys =
        ctx.key_ring().load(backup).await?.ok_or_else(|| NotVerified::Incomplete("its key is not in the operator's namespace".into()))?;
    match read_proof(&store, backup, &keys).await {
        Ok(proof) => {
            prove(work, placement, proof).await?;
            remove(work, name).await?;
            Ok(Duration::ZERO)
        }
        // The Job completed without a report, so the result is unknown and the backup is taken again.
        Err(NotVerified::Store(store::Error::Missing(what))) => {
            fail_attempt(work, placement, name, &format!("it left no report: {what} is missing")).await
        }
        // The report is invalid or about another backup. Reading it again would not help, so the attempt failed.
        Err(error @ (NotVerified::Report(_) | NotVerified::Mismatch(_))) => fail_attempt(work, placement, name, &chain(&error)).await,
        Err(error) => Err(error.into()),
    }
}

/// Whether the backup's folder holds a proof that can be believed, as after the object lost its status or a mover failed
/// after it had signed. The status is rebuilt from it: what is proven is never taken anew, and never erased for it.
async fn recover(work: &mut Work<'_>, placement: &Placement) -> Result<bool, Error> {
    let (ctx, backup) = (work.ctx, work.backup);
    let Some(keys) = ctx.key_ring().load(backup).await? else { return Ok(false) };
    let store = ctx.stores.get(&backup.spec.store).await?;
    store.check_identity().await?;
    let proof = match read_proof(&store, backup, &keys).await {
        Ok(proof) => proof,
        Err(NotVerified::Store(store::Error::Missing(_)) | NotVerified::Report(_) | NotVerified::Mismatch(_)) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    tracing::warn!("the status said nothing of a proof that is in the bucket; it is rebuilt from there");
    work.status.started_at.get_or_insert(Time(proof.0.manifest.snapshot_at));
    work.status.key_id = Some(keys.recipient);
    work.status.key_escrow = work.key_escrow(Some(placement)).await?;
    work.status.prefix = Some(format!("{}{}", store.location.prefix, folder_of(backup)));
    prove(work, placement, proof).await?;
    Ok(true)
}

/// Shows what the signed reports say, and destroys what was needed to make them.
async fn prove(work: &mut Work<'_>, placement: &Placement, (signed, verification): (SignedManifest, Verification)) -> Result<(), Error> {
    let (ctx, backup) = (work.ctx, work.backup);
    let manifest = signed.manifest;
    work.status.phase = BackupPhase::Verified;
    work.status.manifest_sha256 = Some(signed.sha256);
    work.status.bytes = i64::try_from(manifest.objects().map(|object| object.size).sum::<u64>()).ok();
    work.status.completed_at = Some(Time(manifest.completed_at));
    work.status.verified_at = Some(Time(verification.verified_at));
    work.status.failing = None;
    let restored = verification.restored.unwrap_or_default();
    work.status.restored_by = verification.fingerprint.is_some().then_some(restored.way);
    work.status.left_out = restored.left_out.iter().map(ToString::to_string).collect();
    work.set_finding(Finding::yes(Type::Ready, "Verified", proven(&work.status)));
    work.store(Some(placement)).await?;
    crate::crash::point("verified-recorded", &backup.spec.account);
    tracing::info!(bytes = work.status.bytes, "the backup is proven");
    ctx.wake_retained(backup);
    work.publish(EventType::Normal, "Verified", &format!("{} bytes, read back and proven", manifest.dump.size)).await;
    clean_up(work, placement).await?;
    ctx.key_ring().destroy_signing(backup).await?;
    Ok(())
}

/// Says that the backup is proven, and what a restore cannot create again because of the rows.
pub(super) fn proven(status: &ColdBackupStatus) -> String {
    let mut text = "read back, proven, and all there".to_owned();
    if !status.left_out.is_empty() {
        text += &format!("; every row is, but a restore makes not everything as it was: {}", status.left_out.join("; "));
    }
    text.chars().take(LONGEST_TEXT).collect()
}

/// Records a failed attempt, and removes its logins, scratch database and Job. Another attempt follows.
async fn fail_attempt(work: &mut Work<'_>, placement: &Placement, name: &str, why: &str) -> Result<Duration, Error> {
    let log_error = last_log_error(work, name).await.unwrap_or_default();
    let why = if log_error.is_empty() { why.to_owned() } else { format!("{why}; {log_error}") };
    let ending = failure::ending(&pods(work, name).await.unwrap_or_default());
    let before = work.unprovable().is_some();
    let why = failure::record_failure(&mut work.status, ending, why, &work.ctx.settings.patience, work.now);
    let error = Error::Mover(why);
    work.status.phase = BackupPhase::Failed;
    // Condition and count are written in one status patch, so that a reader never sees one without the other.
    work.set_finding(Finding::no(Type::Ready, error.reason(), error.to_string()));
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

/// The mover's error, from the log of the first pod that has one. The first pod's error is about the cause; a later pod may
/// only have met what the first one left.
async fn last_log_error(work: &Work<'_>, name: &str) -> Option<String> {
    let api: Api<Pod> = Api::namespaced(work.ctx.client.clone(), &work.ctx.settings.namespace);
    let mut found = api.list(&ListParams::default().labels(&format!("job-name={name}"))).await.ok()?.items;
    found.sort_by_key(ResourceExt::creation_timestamp);
    let error = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?.pointer("/fields/error")?.as_str().map(str::to_owned);
    for pod in found {
        let log = api.logs(&pod.name_any(), &LogParams { tail_lines: Some(20), ..LogParams::default() }).await.unwrap_or_default();
        if let Some(text) = log.lines().rev().find_map(error) {
            return Some(text.chars().take(LONGEST_TEXT).collect());
        }
    }
    None
}

/// Removes the logins and the scratch database of this backup's movers, also when the tenant's database is gone already: the
/// scratch database may hold a copy of it.
pub(super) async fn clean_up(work: &Work<'_>, placement: &Placement) -> Result<(), Error> {
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
