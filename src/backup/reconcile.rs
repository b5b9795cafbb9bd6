//! The controller of `ColdBackup`: taken, proven, kept, destroyed on time.
//!
//! 1. A backup that is wanted gets a mover ([`take`]); its signed report in the bucket is what is believed.
//! 2. At its deadline, or when its deletion is confirmed, it is destroyed ([`erase`]): objects, then keys.
//! 3. What is wrong stands in its conditions, with what to do; another try follows by itself.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::StreamExt;
use k8s_openapi::{api::batch::v1::Job, jiff::SignedDuration};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
    runtime::{
        Config, Controller, PredicateConfig, WatchStreamExt,
        controller::Action,
        events::EventType,
        reflector::{self, ObjectRef},
        watcher,
    },
};
use serde_json::json;
use tracing::Instrument;

use super::{
    FINALIZER,
    course::{self, Keeper, Step},
    erase,
    home::{self, Home},
    jobs::{BACKUP, COMPONENT},
    look,
    places::Places,
    recheck::{self, Unproven},
    sweep, take,
};
use crate::{
    api::{
        BackupPhase, BackupStore, ColdBackup, ColdBackupStatus, DatabaseServer,
        conditions::{self, Finding, Type},
    },
    clock::{self, Moment},
    context::{Context, Shared},
    database,
    lanes::Lanes,
    ledger,
    retry::{Backoff, spread},
    store,
};

/// Owns the fields that this controller writes.
const FIELD_MANAGER: &str = "helpdesk-operator-backups";
/// Timers die with the process and clocks are set: nothing sleeps longer.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);
/// When what could not be read is looked at again.
const SOON: SignedDuration = SignedDuration::from_secs(30);
/// For a mover to end.
const ENDING: Duration = Duration::from_secs(2);
/// So many backups of one server and one store are looked after at once.
const LANE: usize = 16;
/// Between two looks at the objects, key and escrow of a proven backup.
const CHECKUP: Duration = Duration::from_secs(6 * 3600);

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
    pub(super) fn reason(&self) -> &'static str {
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
    /// Those that are starting a mover.
    pub(super) places: Places,
    /// How many backups of one server and one store are looked after at once.
    lanes: Lanes,
    /// The servers on which accounts were found last, by their uids.
    servers_of: Mutex<HashMap<String, String>>,
    /// When the last attempt failed, by the backup's uid. A Job that goes wakes its backup, so that the backoff alone
    /// would not make it wait.
    pub(super) failed: Mutex<HashMap<String, Moment>>,
    checkups: Checkups,
    /// The uids of backups that are taken for unprovable, for the metrics.
    unprovable: Mutex<HashSet<String>>,
}

/// When proven backups are looked at next, by their uids.
#[derive(Default)]
struct Checkups(Mutex<HashMap<String, Instant>>);

impl Checkups {
    /// Whether it is time. The first look at each is put off by a share of the interval of its own, so that a start
    /// does not ask the bucket for everything at once.
    fn is_due(&self, uid: &str) -> bool {
        let now = Instant::now();
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = next.entry(uid.to_owned()).or_insert_with(|| now + CHECKUP.mul_f64(spread(uid)));
        let due = *at <= now;
        if due {
            *at = now + CHECKUP;
        }
        due
    }
}

impl std::ops::Deref for Desk {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.ctx
    }
}

/// Looks after the ColdBackups of this operator's shard, for ever.
pub async fn run(ctx: Shared) {
    let selector = ctx.settings.selector();
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
    let desk = Arc::new(Desk {
        ctx,
        backoff: Backoff::default(),
        written: Mutex::default(),
        places: Places::default(),
        lanes: Lanes::new(LANE),
        servers_of: Mutex::default(),
        failed: Mutex::default(),
        checkups: Checkups::default(),
        unprovable: Mutex::default(),
    });
    let stores = watcher(Api::<BackupStore>::all(desk.client.clone()), config())
        .default_backoff()
        .touched_objects()
        .predicate_filter(store::reconcile::turns, PredicateConfig::default());
    let servers = watcher(Api::<DatabaseServer>::all(desk.client.clone()), config())
        .default_backoff()
        .touched_objects()
        .predicate_filter(database::turns, PredicateConfig::default());
    // Whom a store or a server kept waiting is known by that it failed.
    let failing = {
        let (known, desk) = (backups.clone(), Arc::clone(&desk));
        move || {
            let fails = |backup: &ColdBackup| desk.backoff.is_failing(&backup.name_any());
            known.state().into_iter().filter(|b| fails(b)).map(|b| ObjectRef::from_obj(&*b)).collect::<Vec<_>>()
        }
    };
    let failing_too = failing.clone();
    let known = backups.clone();
    // As many as are woken begin; how many work at once is up to the lanes.
    let controller = Controller::for_stream(stream, backups)
        .with_config(Config::default().concurrency(0))
        .watches_stream(stores, move |_: BackupStore| failing())
        .watches_stream(servers, move |_: DatabaseServer| failing_too())
        .watches_stream(jobs, move |job: Job| {
            let of = job.annotations().get(BACKUP).map(|name| ObjectRef::<ColdBackup>::new(name));
            of.filter(|backup| known.get(backup).is_some())
        })
        .run(reconcile, failed, Arc::clone(&desk))
        .for_each(|_| std::future::ready(()));
    tokio::join!(controller, sweep::for_ever(&desk));
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
        // On the heap, because very many may wait for a turn.
        let Some(_turn) = desk.lanes.turn(&desk.lane(&backup)).await else { return Ok(Action::await_change()) };
        let before = desk.newest(&backup);
        let mut work = Work { desk: &desk, backup: &backup, status: before.clone(), now: (desk.now)() };
        let result = Box::pin(work.look()).await;
        match &result {
            Ok(_) => desk.backoff.succeeded(&backup.name_any()),
            Err(error) => work.told(error),
        }
        desk.count(&backup, work.unprovable().is_some());
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
        let home = match self.status.phase {
            BackupPhase::Erased => None,
            _ => Some(home::find(self.desk, self.backup).await),
        };
        if let Some(Ok(home)) = &home {
            self.desk.found(self.backup, &home.server.name);
        }
        let facts = look::facts(self, home.as_ref()).await?;
        let step = course::decide(&facts, self.now, self.now + SOON);
        if !matches!(step, Step::LetGo | Step::Forget) {
            self.hold_on().await?;
        }
        match (step, home) {
            (Step::LetGo, _) => self.let_go().await,
            (Step::Forget, _) => self.forget().await,
            (Step::Begin | Step::Watch, Some(home)) => {
                let sleep = take::step(self, &home?).await?;
                Ok(Action::requeue(sleep.min(self.until(facts.deadline))))
            }
            (Step::Erase, home) => self.end(home.and_then(Result::ok).as_ref()).await,
            (Step::Kept(keeper, until), _) => {
                self.kept(&keeper);
                Ok(Action::requeue(self.until(until)))
            }
            (Step::Rest(until), _) => {
                if self.status.phase == BackupPhase::Verified && self.desk.checkups.is_due(&self.backup.uid().unwrap_or_default()) {
                    // What lies in the bucket is looked at again, so that a loss is known before it is needed.
                    recheck::recheck(self.desk, self.backup, &self.backup.spec.account_uid).await?;
                    self.find(Finding::yes(Type::Ready, "Verified", take::proven(&self.status)));
                }
                Ok(Action::requeue(self.until(until)))
            }
            (Step::Begin | Step::Watch, None) => Ok(Action::requeue(self.until(self.now + SOON))),
        }
    }

    /// It should go and does not: says why.
    fn kept(&mut self, keeper: &Keeper) {
        match keeper {
            Keeper::Hold(who) => {
                self.find(Finding::yes(Type::Ready, "Held", "it should be destroyed and a hold keeps it"));
                self.also(Finding::yes(Type::Held, "Hold", who.clone()));
            }
            Keeper::Unknown(why) => {
                self.find(Finding::no(
                    Type::Ready,
                    "Unknown",
                    format!("it should be destroyed and is kept, because not all is known: {why}"),
                ));
                self.also(Finding::yes(Type::Overdue, "Unknown", why.clone()));
            }
            Keeper::Restore => {
                self.find(Finding::yes(
                    Type::Ready,
                    "Restoring",
                    "its deadline has come while it is being restored; that extends it by a day",
                ));
            }
        }
    }

    /// Destroys it: the intent, then the effects, and only what was seen to be gone is called so.
    async fn end(&mut self, home: Option<&Home>) -> Result<Action, Error> {
        if self.status.phase != BackupPhase::Erasing {
            self.status.phase = BackupPhase::Erasing;
            self.find(Finding::no(Type::Ready, "Erasing", "every version of its objects is being destroyed, then its keys"));
            self.store(home).await?;
            crate::crash::point("erasing-recorded", &self.backup.spec.account);
        }
        if !erase::erase(self, home).await? {
            return Ok(Action::requeue(ENDING));
        }
        self.status.phase = BackupPhase::Erased;
        // It may quote what the tenant wrote.
        self.status.failing = None;
        self.find(Finding::yes(Type::Ready, "Erased", "every version, delete marker and open upload is gone, and so are its keys"));
        self.store(home).await?;
        tracing::info!("erased: nothing of the backup is left");
        self.publish(EventType::Normal, "Erased", "every version, delete marker and open upload is gone, and so are its keys").await;
        Ok(Action::requeue(Duration::ZERO))
    }

    /// Removes the object of a destroyed backup that is no evidence any more.
    async fn forget(&mut self) -> Result<Action, Error> {
        self.let_go().await?;
        let api: Api<ColdBackup> = Api::all(self.desk.client.clone());
        let same = DeleteParams {
            preconditions: Some(Preconditions { uid: self.backup.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        api.delete(&self.backup.name_any(), &same)
            .await
            .map(drop)
            .or_else(gone_is_fine)
            .during("remove the object of a destroyed backup")?;
        Ok(Action::await_change())
    }

    async fn hold_on(&self) -> Result<(), Error> {
        if self.backup.finalizers().iter().any(|f| f == FINALIZER) || self.backup.meta().deletion_timestamp.is_some() {
            return Ok(());
        }
        let finalizers: Vec<_> = self.backup.finalizers().iter().cloned().chain([FINALIZER.to_owned()]).collect();
        self.set_finalizers(&finalizers).await
    }

    async fn let_go(&self) -> Result<Action, Error> {
        self.desk.forget(&self.backup.uid().unwrap_or_default());
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

    /// Replaces the conditions by this finding, and what has been true for longer.
    pub(super) fn find(&mut self, finding: Finding) {
        self.status.observed_generation = self.backup.metadata.generation;
        let findings: Vec<_> = [Some(finding), self.unprovable()].into_iter().flatten().collect();
        self.status.conditions = conditions::merge(&self.status.conditions, &findings, self.backup.metadata.generation, self.now);
    }

    /// That the backup is taken for unprovable, if it is.
    pub(super) fn unprovable(&self) -> Option<Finding> {
        let over = matches!(self.status.phase, BackupPhase::Erasing | BackupPhase::Erased);
        let failing = self.status.failing.as_ref().filter(|f| !over && f.unprovable_since.is_some())?;
        let message = format!(
            "{} attempts since {} came to nothing; the first: {}; it is tried again every {} minutes",
            failing.attempts,
            failing.since.0,
            failing.message,
            self.desk.settings.patience.pause().as_mins().max(1),
        );
        Some(Finding::yes(Type::Unprovable, failing.reason.clone(), message))
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
        self.desk.publish(&self.backup.object_ref(&()), kind, reason, note, "Look").await;
    }
}

impl Desk {
    /// What a backup's reconcile waits for: its server, as far as that is known, and its store.
    fn lane(&self, backup: &ColdBackup) -> String {
        let servers = self.servers_of.lock().unwrap_or_else(PoisonError::into_inner);
        let server = servers.get(&backup.spec.account_uid).map_or("", String::as_str);
        format!("server {server} store {}", backup.spec.store)
    }

    fn found(&self, backup: &ColdBackup, server: &str) {
        let mut servers = self.servers_of.lock().unwrap_or_else(PoisonError::into_inner);
        servers.insert(backup.spec.account_uid.clone(), server.to_owned());
    }

    /// The backup's status, or what was written of it after the watch last told.
    fn newest(&self, backup: &ColdBackup) -> ColdBackupStatus {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = || backup.status.clone().unwrap_or_default();
        backup.uid().and_then(|uid| written.get(&uid).cloned()).unwrap_or_else(shown)
    }

    /// Forgets what is remembered of a backup whose object goes.
    fn forget(&self, uid: &str) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        self.checkups.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        self.count_as(uid, false);
    }

    /// Counts the backups that are taken for unprovable anew.
    fn count(&self, backup: &ColdBackup, unprovable: bool) {
        self.count_as(&backup.uid().unwrap_or_default(), unprovable && backup.meta().deletion_timestamp.is_none());
    }

    fn count_as(&self, uid: &str, unprovable: bool) {
        let mut all = self.unprovable.lock().unwrap_or_else(PoisonError::into_inner);
        if unprovable {
            all.insert(uid.to_owned());
        } else {
            all.remove(uid);
        }
        self.telemetry.backups_unprovable.set(i64::try_from(all.len()).unwrap_or(i64::MAX));
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
