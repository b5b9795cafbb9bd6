//! Starts the Job that restores a backup, reads its progress, and deletes it.

use k8s_openapi::api::{batch::v1::Job, core::v1::Secret};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, PostParams},
};
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};

use crate::digest;
use crate::{
    api::{ACCOUNT_UID, ColdBackup, SHARD_LABEL, plan::Extension},
    app::secrets::AppSecrets,
    backup::{
        folder_of,
        keys::{self, Keys},
        manifest::{self, RestoreReport},
        recheck::{NotVerified, read_manifest},
        stamp,
    },
    clock::Moment,
    context::Context,
    database::{DatabaseId, MoverLogin},
    mover::{
        Task,
        config::MoverConfig,
        job::{self, MoverFiles, MoverJob, State},
    },
    store,
};

/// Annotation on a restore's Job with the key that checks its report, in hexadecimal digits.
const VERIFYING_KEY: &str = "helpdesk-operator.io/verifying-key";
/// Annotation on a restore's Job with the oid of the database that it fills.
const DATABASE_OID: &str = "helpdesk-operator.io/database-oid";

/// The progress of a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is no attempt for this `since`: prepare an empty database and [`start`] one.
    NotStarted,
    /// The mover runs.
    Running,
    /// The restore is complete, and the database equals the backup by the mover's signed report.
    Done(Box<RestoreReport>),
    /// The attempt failed; the text says why. [`discard`] it before another one.
    Failed(String),
}

/// Reads the progress of the restore that was decided at `since`.
///
/// # Errors
/// Job, report or keys cannot be read; the progress is unknown then.
pub async fn progress(ctx: &Context, backup: &ColdBackup, since: Moment) -> Result<Progress, NotVerified> {
    let name = attempt(backup, since);
    let Some(job) = jobs_of(ctx).get_opt(&name).await.map_err(cluster)? else { return Ok(Progress::NotStarted) };
    if job.annotations().get(ACCOUNT_UID) != Some(&backup.spec.account_uid) {
        return Err(NotVerified::Mismatch(format!("the Job {name} belongs to another account")));
    }
    match job::state(&job) {
        State::Failed(why) => Ok(Progress::Failed(why)),
        State::Complete => read_report(ctx, backup, &job, since).await,
        // After a crash between creating the Job and its Secret, the pod would wait for ever.
        State::Running if secrets_of(ctx).get_opt(&name).await.map_err(cluster)?.is_none() => {
            Ok(Progress::Failed("its Secret was not made".into()))
        }
        State::Running => Ok(Progress::Running),
    }
}

/// Reads the mover's report. It counts only if this attempt's own key signed it and it is about this backup.
async fn read_report(ctx: &Context, backup: &ColdBackup, job: &Job, since: Moment) -> Result<Progress, NotVerified> {
    let failed = |why: &str| Ok(Progress::Failed(why.to_owned()));
    let annotation = |key| job.annotations().get(key);
    let Some(verifying) = annotation(VERIFYING_KEY).and_then(|text| digest::unhex(text)) else {
        return failed("its Job names no key that checks its report");
    };
    let Some(oid) = annotation(DATABASE_OID).and_then(|oid| oid.parse().ok()) else {
        return failed("its Job does not name the database");
    };
    let store = ctx.stores.get(&backup.spec.store).await?;
    store.check_identity().await?;
    let keys = load_keys(ctx, backup).await?;
    let signed = read_manifest(&store, backup, &keys).await?;
    let key = format!("{}{}", folder_of(backup), manifest::report_name(since, oid));
    let report: RestoreReport = match store.bucket.read(&key, manifest::LARGEST_REPORT).await {
        Ok(bytes) => manifest::verify(&bytes, &verifying)?,
        Err(store::Error::Missing(_)) => return failed("it left no report"),
        Err(error) => return Err(error.into()),
    };
    if report.account_uid != backup.spec.account_uid || report.manifest_sha256 != signed.sha256 || report.database_oid != oid {
        return Err(NotVerified::Mismatch("the restore's report is of another restore".into()));
    }
    // The mover compared the definitions, because only it knows whether both servers print them alike.
    match signed.manifest.fingerprint.differs(&report.fingerprint) {
        None => Ok(Progress::Done(Box::new(report))),
        Some(difference) => Ok(Progress::Failed(format!("what was restored is not what was backed up: {difference}"))),
    }
}

/// What the database needs besides its dump: the extensions, which
/// [`prepare_restore`](crate::database::Server::prepare_restore) creates, and the settings, which
/// [`finish_restore`](crate::database::Server::finish_restore) sets.
///
/// # Errors
/// Store, keys or manifest cannot be read.
pub async fn needs(ctx: &Context, backup: &ColdBackup) -> Result<(Vec<Extension>, Vec<(String, String)>), NotVerified> {
    let store = ctx.stores.get(&backup.spec.store).await?;
    store.check_identity().await?;
    let manifest = read_manifest(&store, backup, &load_keys(ctx, backup).await?).await?.manifest;
    Ok((manifest.extensions, manifest.settings))
}

/// The secrets of the tenant's app that are kept with the backup.
///
/// # Errors
/// The keys cannot be read.
pub async fn app_secrets(ctx: &Context, backup: &ColdBackup) -> Result<AppSecrets, NotVerified> {
    Ok(load_keys(ctx, backup).await?.app_secrets)
}

/// Starts a mover that fills the empty database, unless it was started before. If the restore began before the backup's
/// deadline, the backup is kept while it runs, for at most 24 hours after the deadline.
///
/// # Errors
/// Store or keys cannot be read, or Job or Secret cannot be created.
pub async fn start(
    ctx: &Context,
    backup: &ColdBackup,
    server: &str,
    login: &MoverLogin,
    database: &DatabaseId,
    since: Moment,
) -> Result<(), NotVerified> {
    let store = ctx.stores.get(&backup.spec.store).await?;
    store.check_identity().await?;
    let keys = load_keys(ctx, backup).await?;
    let random = |_| keys::Error::Random;
    let signing = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(random)?;
    let pair = Ed25519KeyPair::from_pkcs8(signing.as_ref()).map_err(|_| keys::Error::Random)?;
    let plan = MoverConfig {
        restore_since: Some(since),
        ..MoverConfig::new(backup, &store, &keys, database.oid, database.system_identifier.clone())
    };
    let order = MoverJob {
        name: attempt(backup, since),
        task: Task::Restore,
        backup,
        server,
        scratch: None,
        namespace: &ctx.settings.namespace,
        image: &ctx.settings.image,
        // The restore needs as much memory as the proof of the backup did.
        memory: backup.status.as_ref().and_then(|s| s.mover_memory).unwrap_or_default(),
        pod: &ctx.settings.mover_pod,
    };
    let files =
        MoverFiles { plan: &plan, store: &store, keys: &keys, signing: signing.as_ref(), source: None, target: Some(login) }.render()?;
    let mut job = order.job();
    job.annotations_mut().insert(VERIFYING_KEY.into(), crate::digest::hex(pair.public_key().as_ref()));
    job.annotations_mut().insert(DATABASE_OID.into(), database.oid.to_string());
    if let Some(shard) = &ctx.settings.shard {
        job.labels_mut().insert(SHARD_LABEL.into(), shard.clone());
    }
    let made = match jobs_of(ctx).create(&PostParams::default(), &job).await {
        Ok(made) => made,
        // 409 Conflict: the mover was started before. It has its own login and signing key, so the new ones are not used.
        Err(kube::Error::Api(status)) if status.code == 409 => return Ok(()),
        Err(error) => return Err(cluster(error)),
    };
    secrets_of(ctx).create(&PostParams::default(), &order.secret(&made, files)).await.map(drop).map_err(cluster)
}

/// Deletes the Job of a finished or failed attempt, and with it its Secret.
///
/// # Errors
/// The Job cannot be deleted.
pub async fn discard(ctx: &Context, backup: &ColdBackup, since: Moment) -> Result<(), NotVerified> {
    match jobs_of(ctx).delete(&attempt(backup, since), &DeleteParams::background()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(cluster(error)),
    }
}

async fn load_keys(ctx: &Context, backup: &ColdBackup) -> Result<Keys, NotVerified> {
    let ring = ctx.key_ring();
    ring.load(backup).await?.ok_or_else(|| NotVerified::Incomplete("its key is not in the operator's namespace".into()))
}

fn attempt(backup: &ColdBackup, since: Moment) -> String {
    job::job_name(Task::Restore, &backup.name_any(), &backup.spec.account_uid, &stamp(since).to_ascii_lowercase())
}

fn jobs_of(ctx: &Context) -> Api<Job> {
    Api::namespaced(ctx.client.clone(), &ctx.settings.namespace)
}

fn secrets_of(ctx: &Context) -> Api<Secret> {
    Api::namespaced(ctx.client.clone(), &ctx.settings.namespace)
}

fn cluster(error: kube::Error) -> NotVerified {
    NotVerified::Cluster(Box::new(error))
}
