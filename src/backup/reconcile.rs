//! The controller of `ColdBackup`: taken, proven, kept, destroyed on time.
//!
//! 1. A backup that is wanted gets a mover ([`take`]); its signed report in the bucket is what is believed.
//! 2. At its deadline, or when its deletion is confirmed, it is destroyed ([`erase`]): objects, then keys.
//! 3. What is wrong stands in its conditions, with what to do; another try follows by itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
    runtime::{
        Config, Controller, PredicateConfig, WatchStreamExt,
        controller::Action,
        events::{Event, EventType},
        reflector::{self, ObjectRef},
        watcher,
    },
};
use serde_json::json;
use tracing::Instrument;

use super::{
    FINALIZER, erase,
    home::{self, Home},
    jobs::{BACKUP, COMPONENT},
    recheck::{self, Unproven},
    take,
};
use crate::{
    api::{
        BackupPhase, BackupReason, CONFIRM_DELETE, ColdBackup, ColdBackupStatus, HelpDeskAccount, SHARD_LABEL,
        conditions::{self, Finding, Type},
    },
    clock::{self, Moment},
    context::{Context, Shared},
    database, ledger,
    lifecycle::RESTORE_EXTENSION,
    retry::Backoff,
    store,
};

/// Owns the fields that this controller writes.
const FIELD_MANAGER: &str = "helpdesk-operator-backups";
/// Without a nearer deadline, a proven backup is looked at this often, objects, key and escrow.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// Why a backup could not be taken further. The message goes into its conditions.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster's API.
    #[error("failed to {action}")]
    Cluster {
        /// What was asked.
        action: &'static str,
        /// What the client said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The account's database cannot be found or asked.
    #[error(transparent)]
    Home(#[from] home::Error),
    /// The database server.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The keys.
    #[error(transparent)]
    Keys(#[from] super::keys::Error),
    /// What the mover left does not prove the backup.
    #[error(transparent)]
    Unproven(#[from] Unproven),
    /// The plan of a mover could not be written; it always can.
    #[error("failed to write down what a mover is to do")]
    Plan(#[from] serde_json::Error),
    /// The mover failed.
    #[error("failed to take the backup, another try follows: {0}")]
    Mover(String),
    /// The escrow does not hold the key although it took it.
    #[error("failed to find the key in the escrow {0}; nothing is backed up without it")]
    Escrow(String),
    /// The deadline came and this machine's clock cannot be believed.
    #[error("failed to destroy the backup at its deadline: {0}")]
    Clock(String),
}

impl Error {
    fn reason(&self) -> &'static str {
        match self {
            Self::Cluster { .. } => "ClusterUnreachable",
            Self::Home(_) => "NoDatabase",
            Self::Database(error) => error.reason(),
            Self::Ledger(error) => error.reason(),
            Self::Store(error) | Self::Unproven(Unproven::Store(error)) => error.reason(),
            Self::Keys(_) => "KeyUnusable",
            Self::Unproven(_) => "Unproven",
            Self::Plan(_) => "Failed",
            Self::Mover(_) => "MoverFailed",
            Self::Escrow(_) => "NotEscrowed",
            Self::Clock(_) => "ClockDoubtful",
        }
    }

    /// Whether a person has to do something first; it may pass by itself otherwise.
    fn needs_a_person(&self) -> bool {
        use store::Error as S;
        match self {
            Self::Store(error) | Self::Unproven(Unproven::Store(error)) => {
                matches!(
                    error,
                    S::AccessDenied { .. }
                        | S::NoSuchBucket(_)
                        | S::ForeignBucket(_)
                        | S::Locked { .. }
                        | S::Altered { .. }
                        | S::Configuration { .. }
                )
            }
            Self::Unproven(_) | Self::Keys(_) | Self::Escrow(_) => true,
            Self::Home(error) => error.needs_a_person(),
            Self::Database(error) => !error.is_passing(),
            _ => false,
        }
    }
}

/// Names what was asked of the cluster.
pub(super) trait During<T> {
    /// Names it.
    fn during(self, action: &'static str) -> Result<T, Error>;
}

impl<T> During<T> for Result<T, kube::Error> {
    fn during(self, action: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::Cluster { action, source: Box::new(source) })
    }
}

/// What a reconcile is given.
pub(super) struct Desk {
    pub(super) ctx: Shared,
    backoff: Backoff,
    /// The newest status that was written: the watch may still show an older one.
    written: Mutex<HashMap<String, ColdBackupStatus>>,
}

impl std::ops::Deref for Desk {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.ctx
    }
}

/// Looks after the ColdBackups of this operator's shard, for ever.
pub async fn run(ctx: Shared) {
    let selector = match &ctx.settings.shard {
        Some(shard) => format!("{SHARD_LABEL}={shard}"),
        None => format!("!{SHARD_LABEL}"),
    };
    let (backups, writer) = reflector::store();
    let config = || watcher::Config::default().streaming_lists();
    let stream = watcher(Api::<ColdBackup>::all(ctx.client.clone()), config().labels(&selector))
        .default_backoff()
        .modify(|backup| backup.managed_fields_mut().clear())
        .reflect(writer)
        .applied_objects()
        .predicate_filter(what_matters, PredicateConfig::default());
    let movers = config().labels(&format!("{}={}", COMPONENT.0, COMPONENT.1));
    let jobs = watcher(Api::<Job>::namespaced(ctx.client.clone(), &ctx.settings.namespace), movers).default_backoff().touched_objects();
    let desk = Arc::new(Desk { ctx, backoff: Backoff::default(), written: Mutex::default() });
    let known = backups.clone();
    Controller::for_stream(stream, backups)
        .with_config(Config::default().concurrency(16))
        .watches_stream(jobs, move |job: Job| {
            let of = job.annotations().get(BACKUP).map(|name| ObjectRef::<ColdBackup>::new(name));
            of.filter(|backup| known.get(backup).is_some())
        })
        .run(reconcile, failed, desk)
        .for_each(|_| std::future::ready(()))
        .await;
}

/// Everything but the status wakes a backup, and a status that somebody wiped.
fn what_matters(backup: &ColdBackup) -> Option<u64> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    let meta = backup.meta();
    (&meta.uid, meta.generation, meta.deletion_timestamp.is_some(), &meta.finalizers, &meta.annotations).hash(&mut hasher);
    backup.status.is_some().hash(&mut hasher);
    Some(hasher.finish())
}

async fn reconcile(backup: Arc<ColdBackup>, desk: Arc<Desk>) -> Result<Action, Error> {
    let span = tracing::info_span!("backup", backup = backup.name_any(), account = backup.spec.account);
    async {
        let before = desk.newest(&backup);
        let mut work = Work { desk: &desk, backup: &backup, status: before.clone(), now: (desk.now)() };
        let result = work.look().await;
        match &result {
            Ok(_) => desk.backoff.succeeded(&backup.name_any()),
            Err(error) => work.told(error),
        }
        let status = work.status;
        desk.write(&backup, &before, &status).await?;
        result
    }
    .instrument(span)
    .await
}

/// One backup in one reconcile.
pub(super) struct Work<'a> {
    pub(super) desk: &'a Desk,
    pub(super) backup: &'a ColdBackup,
    /// As it will be written.
    pub(super) status: ColdBackupStatus,
    pub(super) now: Moment,
}

impl Work<'_> {
    async fn look(&mut self) -> Result<Action, Error> {
        let deleting = self.backup.meta().deletion_timestamp.is_some();
        let confirmed = self.backup.annotations().get(CONFIRM_DELETE) == Some(&self.backup.name_any());
        if self.status.phase == BackupPhase::Erased {
            return self.erased(deleting).await;
        }
        if deleting && !confirmed {
            // The definition was deleted, or admission was gone around: no authority over data.
            return self.let_go().await;
        }
        self.hold_on().await?;
        let home = home::find(self.desk, self.backup).await;
        let ends = self.ends(home.as_ref().ok());
        if deleting || self.status.phase == BackupPhase::Erasing || ends <= self.now {
            return self.end(home, deleting).await;
        }
        match self.status.phase {
            BackupPhase::Pending | BackupPhase::Failed | BackupPhase::Running => {
                let sleep = take::step(self, &home?).await?;
                Ok(Action::requeue(sleep.min(self.until(ends))))
            }
            _ => {
                // What lies in the bucket is looked at again, so that a loss is known before it is needed.
                recheck::recheck(self.desk, self.backup, &self.backup.spec.account_uid).await?;
                self.find(Finding::yes(Type::Ready, "Verified", "read back, proven, and all there"));
                Ok(Action::requeue(self.until(ends)))
            }
        }
    }

    /// When it is destroyed: a person's own backup not after the account's end, and none while a restore that began
    /// in time needs it.
    fn ends(&self, home: Option<&Home>) -> Moment {
        let spec = self.backup.spec.expires_at.0;
        let Some(record) = home.map(|h| &h.entry.record) else { return spec };
        let capped = match (self.backup.spec.reason, record.data_gone_by) {
            (BackupReason::Manual, Some(gone_by)) => spec.min(gone_by),
            _ => spec,
        };
        match record.restoring_since {
            Some(begun) if begun < capped => capped + RESTORE_EXTENSION,
            _ => capped,
        }
    }

    /// The end: held back by a hold or a doubtful clock, and by nothing else.
    async fn end(&mut self, home: Result<Home, home::Error>, confirmed: bool) -> Result<Action, Error> {
        let record = home.as_ref().ok().map(|h| &h.entry.record);
        let noticed = record.is_some_and(|r| r.held_since.is_some() || r.notice_until.is_some_and(|until| until > self.now));
        if self.backup.spec.hold.is_some() || noticed {
            self.find(Finding::yes(Type::Ready, "Held", "its deadline has come and a hold keeps it"));
            self.also(Finding::yes(Type::Held, "Hold", "nothing is destroyed while the hold is set, or its notice runs"));
            return Ok(Action::requeue(Duration::from_secs(30)));
        }
        if !confirmed {
            erase::trust_the_clock(self.desk, self.backup, home.as_ref().ok(), self.now).await?;
        }
        if self.status.phase != BackupPhase::Erasing {
            self.status.phase = BackupPhase::Erasing;
            self.find(Finding::no(Type::Ready, "Erasing", "every version of its objects is being destroyed, then its keys"));
            self.store(home.as_ref().ok()).await?;
            crate::crash::point("erasing-recorded", &self.backup.spec.account);
        }
        erase::erase(self, home.as_ref().ok()).await?;
        self.status.phase = BackupPhase::Erased;
        self.find(Finding::yes(Type::Ready, "Erased", "every version, delete marker and open upload is gone, and so are its keys"));
        self.store(home.as_ref().ok()).await?;
        tracing::info!("erased: nothing of the backup is left");
        self.publish(EventType::Normal, "Erased", "every version, delete marker and open upload is gone, and so are its keys").await;
        self.erased(self.backup.meta().deletion_timestamp.is_some()).await
    }

    /// What becomes of the object of a destroyed backup: scheduled ones go, the others are evidence for as long as
    /// their account is there.
    async fn erased(&mut self, deleting: bool) -> Result<Action, Error> {
        if deleting {
            return self.let_go().await;
        }
        let evidence = self.backup.spec.reason != BackupReason::Scheduled && self.account_is_there().await?;
        if !evidence {
            let api: Api<ColdBackup> = Api::all(self.desk.client.clone());
            api.delete(&self.backup.name_any(), &DeleteParams::default())
                .await
                .map(drop)
                .or_else(gone_is_fine)
                .during("remove the object of a destroyed backup")?;
        }
        Ok(Action::requeue(LONGEST_SLEEP))
    }

    async fn account_is_there(&self) -> Result<bool, Error> {
        let api: Api<HelpDeskAccount> = Api::all(self.desk.client.clone());
        let account = api.get_opt(&self.backup.spec.account).await.during("read the account")?;
        Ok(account.is_some_and(|a| a.uid().as_deref() == Some(&self.backup.spec.account_uid)))
    }

    async fn hold_on(&self) -> Result<(), Error> {
        if self.backup.finalizers().iter().any(|f| f == FINALIZER) || self.backup.meta().deletion_timestamp.is_some() {
            return Ok(());
        }
        let finalizers: Vec<_> = self.backup.finalizers().iter().cloned().chain([FINALIZER.to_owned()]).collect();
        self.set_finalizers(&finalizers).await
    }

    async fn let_go(&self) -> Result<Action, Error> {
        let finalizers: Vec<_> = self.backup.finalizers().iter().filter(|f| *f != FINALIZER).cloned().collect();
        if finalizers.len() < self.backup.finalizers().len() {
            self.set_finalizers(&finalizers).await?;
        }
        Ok(Action::await_change())
    }

    async fn set_finalizers(&self, finalizers: &[String]) -> Result<(), Error> {
        let api: Api<ColdBackup> = Api::all(self.desk.client.clone());
        let patch = json!({"metadata": {"finalizers": finalizers, "uid": self.backup.uid()}});
        api.patch(&self.backup.name_any(), &PatchParams::default(), &Patch::Merge(patch))
            .await
            .map(drop)
            .or_else(gone_is_fine)
            .during("set the backup's finalizer")
    }

    /// Writes the status now: an intent before its effect.
    pub(super) async fn store(&mut self, home: Option<&Home>) -> Result<(), Error> {
        let before = self.desk.newest(self.backup);
        self.desk.write(self.backup, &before, &self.status).await?;
        if let Some(home) = home {
            home.remember(self.backup, &self.status).await?;
        }
        Ok(())
    }

    /// Replaces the conditions by this finding.
    pub(super) fn find(&mut self, finding: Finding) {
        self.status.observed_generation = self.backup.metadata.generation;
        self.status.conditions = conditions::merge(&self.status.conditions, &[finding], self.backup.metadata.generation, self.now);
    }

    /// Adds a finding to the conditions.
    fn also(&mut self, finding: Finding) {
        let more = conditions::merge(&self.status.conditions, &[finding], self.backup.metadata.generation, self.now);
        self.status.conditions.extend(more);
    }

    fn told(&mut self, error: &Error) {
        let message = store::chain(error);
        self.find(Finding::no(Type::Ready, error.reason(), message.clone()));
        if error.needs_a_person() {
            self.also(Finding::yes(Type::Stalled, error.reason(), message));
        }
    }

    /// Exactly until a moment, by the clock with its fraction, but not for too long.
    fn until(&self, at: Moment) -> Duration {
        let left = Duration::try_from(at.duration_since(clock::precise_now())).unwrap_or(Duration::ZERO);
        (left + Duration::from_millis(1)).min(LONGEST_SLEEP)
    }

    pub(super) async fn publish(&self, kind: EventType, reason: &str, note: &str) {
        let event = Event {
            type_: kind,
            reason: reason.to_owned(),
            note: Some(note.chars().take(1000).collect()),
            action: "Look".into(),
            secondary: None,
        };
        if let Err(error) = self.desk.recorder.publish(&event, &self.backup.object_ref(&())).await {
            tracing::warn!(%error, reason, "failed to publish an event");
        }
    }
}

impl Desk {
    /// The backup's status, or what was written of it after the watch last told.
    fn newest(&self, backup: &ColdBackup) -> ColdBackupStatus {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = || backup.status.clone().unwrap_or_default();
        backup.uid().and_then(|uid| written.get(&uid).cloned()).unwrap_or_else(shown)
    }

    async fn write(&self, backup: &ColdBackup, before: &ColdBackupStatus, status: &ColdBackupStatus) -> Result<(), Error> {
        let uid = backup.uid().unwrap_or_default();
        if status == before && backup.status.is_some() {
            return Ok(());
        }
        let api: Api<ColdBackup> = Api::all(self.client.clone());
        let applied = json!({
            "apiVersion": ColdBackup::api_version(&()), "kind": ColdBackup::kind(&()),
            "metadata": {"name": backup.name_any(), "uid": uid}, "status": status,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match api.patch_status(&backup.name_any(), &params, &Patch::Apply(applied)).await {
            Ok(_) => {
                self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, status.clone());
                Ok(())
            }
            Err(error) => {
                self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
                gone_is_fine(error).during("write the backup's status")
            }
        }
    }
}

/// What is not there any more, or was made anew in the meantime, needs no change.
pub(super) fn gone_is_fine(error: kube::Error) -> Result<(), kube::Error> {
    match error {
        kube::Error::Api(status) if status.code == 404 || status.code == 409 => Ok(()),
        other => Err(other),
    }
}

fn failed(backup: Arc<ColdBackup>, error: &Error, desk: Arc<Desk>) -> Action {
    let wait = desk.backoff.failed(&backup.name_any());
    tracing::warn!(
        backup = backup.name_any(),
        account = backup.spec.account,
        reason = error.reason(),
        error = store::chain(error),
        retry_in = wait.as_secs(),
        "a backup could not be taken further"
    );
    Action::requeue(wait)
}
