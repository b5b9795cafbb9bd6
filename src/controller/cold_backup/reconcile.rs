//! The controller of `ColdBackup`: taken, proven, kept, destroyed on time.
//!
//! 1. A backup that is wanted gets a mover ([`take`]); its signed report in the bucket is what is believed.
//! 2. At its deadline, or when its deletion is confirmed, it is destroyed ([`erase`]): objects, then keys.
//! 3. What is wrong stands in its conditions, with what to do; another try follows by itself.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use k8s_openapi::{api::batch::v1::Job, jiff::SignedDuration};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Preconditions},
    runtime::{
        Config, Controller, PredicateConfig, WatchStreamExt,
        controller::Action,
        events::EventType,
        reflector::{self, ObjectRef},
        watcher,
    },
};
use tracing::Instrument;

use super::{
    context::ColdBackupContext,
    decide::{self, RetainedBy, Step},
    erase,
    error::{During, Error},
    observe, orphaned_movers,
    placement::{self, Placement},
    take,
    work::Work,
};
use crate::error_chain::chain;
use crate::{
    api::{
        BackupPhase, BackupStore, ColdBackup, DatabaseServer,
        conditions::{Finding, Type},
    },
    backup::recheck,
    cluster::ignore_not_found_or_conflict,
    context::Shared,
    controller::{backup_store, database_server},
    mover::job::{BACKUP, COMPONENT},
};

/// When what could not be read is looked at again.
const SOON: SignedDuration = SignedDuration::from_secs(30);
/// For a mover to end.
const ENDING: Duration = Duration::from_secs(2);

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
    let ctx = Arc::new(ColdBackupContext::new(ctx));
    let stores = watcher(Api::<BackupStore>::all(ctx.client.clone()), config())
        .default_backoff()
        .touched_objects()
        .predicate_filter(backup_store::turns, PredicateConfig::default());
    let servers = watcher(Api::<DatabaseServer>::all(ctx.client.clone()), config())
        .default_backoff()
        .touched_objects()
        .predicate_filter(database_server::turns, PredicateConfig::default());
    // Whom a store or a server kept waiting is known by that it failed.
    let failing = {
        let (known, ctx) = (backups.clone(), Arc::clone(&ctx));
        move || {
            let fails = |backup: &ColdBackup| ctx.backoff.is_failing(&backup.name_any());
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
        .run(reconcile, failed, Arc::clone(&ctx))
        .for_each(|_| std::future::ready(()));
    tokio::join!(controller, orphaned_movers::run(&ctx));
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

async fn reconcile(backup: Arc<ColdBackup>, ctx: Arc<ColdBackupContext>) -> Result<Action, Error> {
    let span = tracing::info_span!("backup", backup = backup.name_any(), account = backup.spec.account);
    async {
        // On the heap, because very many may wait for a turn.
        let Some(_turn) = ctx.permits.acquire(&ctx.lane(&backup)).await else { return Ok(Action::await_change()) };
        let before = ctx.newest(&backup);
        let mut work = Work { ctx: &ctx, backup: &backup, status: before.clone(), now: (ctx.now)() };
        let result = Box::pin(work.look()).await;
        match &result {
            Ok(_) => ctx.backoff.succeeded(&backup.name_any()),
            Err(error) => work.set_failure(error),
        }
        ctx.count(&backup, work.unprovable().is_some());
        let status = work.status;
        ctx.write(&backup, &before, &status).await?;
        result
    }
    .instrument(span)
    .await
}

impl Work<'_> {
    async fn look(&mut self) -> Result<Action, Error> {
        let placement = match self.status.phase {
            BackupPhase::Erased => None,
            _ => Some(placement::find(self.ctx, self.backup).await),
        };
        if let Some(Ok(placement)) = &placement {
            self.ctx.found(self.backup, &placement.server.name);
        }
        let facts = observe::facts(self, placement.as_ref()).await?;
        let step = decide::decide(&facts, self.now, self.now + SOON);
        if !matches!(step, Step::RemoveFinalizer | Step::DeleteObject) {
            self.ensure().await?;
        }
        match (step, placement) {
            (Step::RemoveFinalizer, _) => self.remove().await,
            (Step::DeleteObject, _) => self.forget().await,
            (Step::StartMover | Step::WatchMover, Some(placement)) => {
                let sleep = take::step(self, &placement?).await?;
                Ok(Action::requeue(sleep.min(self.until(facts.deadline))))
            }
            (Step::Erase, placement) => self.end(placement.and_then(Result::ok).as_ref()).await,
            (Step::Retain(keeper, until), _) => {
                self.kept(&keeper);
                Ok(Action::requeue(self.until(until)))
            }
            (Step::Wait(until), _) => {
                if self.status.phase == BackupPhase::Verified && self.ctx.checkups.is_due(&self.backup.uid().unwrap_or_default()) {
                    // What lies in the bucket is looked at again, so that a loss is known before it is needed.
                    recheck::recheck(&self.ctx.stores, &self.ctx.key_ring(), self.backup, &self.backup.spec.account_uid, (self.ctx.now)())
                        .await?;
                    self.find(Finding::yes(Type::Ready, "Verified", take::proven(&self.status)));
                }
                Ok(Action::requeue(self.until(until)))
            }
            (Step::StartMover | Step::WatchMover, None) => Ok(Action::requeue(self.until(self.now + SOON))),
        }
    }

    /// It should go and does not: says why.
    fn kept(&mut self, keeper: &RetainedBy) {
        match keeper {
            RetainedBy::Hold(who) => {
                self.find(Finding::yes(Type::Ready, "Held", "it should be destroyed and a hold keeps it"));
                self.also(Finding::yes(Type::Held, "Hold", who.clone()));
            }
            RetainedBy::Unknown(why) => {
                self.find(Finding::no(
                    Type::Ready,
                    "Unknown",
                    format!("it should be destroyed and is kept, because not all is known: {why}"),
                ));
                self.also(Finding::yes(Type::Overdue, "Unknown", why.clone()));
            }
            RetainedBy::Restore => {
                self.find(Finding::yes(
                    Type::Ready,
                    "Restoring",
                    "its deadline has come while it is being restored; that extends it by a day",
                ));
            }
        }
    }

    /// Destroys it: the intent, then the effects, and only what was seen to be gone is called so.
    async fn end(&mut self, placement: Option<&Placement>) -> Result<Action, Error> {
        if self.status.phase != BackupPhase::Erasing {
            self.status.phase = BackupPhase::Erasing;
            self.find(Finding::no(Type::Ready, "Erasing", "every version of its objects is being destroyed, then its keys"));
            self.store(placement).await?;
            crate::crash::point("erasing-recorded", &self.backup.spec.account);
        }
        if !erase::erase(self, placement).await? {
            return Ok(Action::requeue(ENDING));
        }
        self.status.phase = BackupPhase::Erased;
        // It may quote what the tenant wrote.
        self.status.failing = None;
        self.find(Finding::yes(Type::Ready, "Erased", "every version, delete marker and open upload is gone, and so are its keys"));
        self.store(placement).await?;
        tracing::info!("erased: nothing of the backup is left");
        self.publish(EventType::Normal, "Erased", "every version, delete marker and open upload is gone, and so are its keys").await;
        Ok(Action::requeue(Duration::ZERO))
    }

    /// Removes the object of a destroyed backup that is no evidence any more.
    async fn forget(&mut self) -> Result<Action, Error> {
        self.remove().await?;
        let api: Api<ColdBackup> = Api::all(self.ctx.client.clone());
        let same = DeleteParams {
            preconditions: Some(Preconditions { uid: self.backup.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        api.delete(&self.backup.name_any(), &same)
            .await
            .map(drop)
            .or_else(ignore_not_found_or_conflict)
            .during("remove the object of a destroyed backup")?;
        Ok(Action::await_change())
    }
}

fn failed(backup: Arc<ColdBackup>, error: &Error, ctx: Arc<ColdBackupContext>) -> Action {
    let wait = ctx.backoff.failed(&backup.name_any());
    tracing::warn!(
        backup = backup.name_any(),
        account = backup.spec.account,
        reason = error.reason(),
        error = chain(error),
        retry_in = wait.as_secs(),
        "a backup could not be taken further"
    );
    Action::requeue(wait)
}
