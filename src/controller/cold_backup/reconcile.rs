//! One reconcile of one backup, and which changes in the cluster trigger it.
//!
//! 1. A backup is taken by a mover ([`take`]). Only the report counts that the mover signed into the bucket.
//! 2. At its deadline, or when its deletion is confirmed, the backup is erased ([`erase`]): objects, then keys.
//! 3. An error is shown in the conditions, with what a person can do. The operator retries by itself.

use std::{sync::Arc, time::Duration};

use futures::channel::mpsc;
use k8s_openapi::{api::batch::v1::Job, jiff::SignedDuration};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Preconditions},
    runtime::{Controller, PredicateConfig, WatchStreamExt, controller::Action, events::EventType, reflector::ObjectRef, watcher},
};
use tracing::Span;

use super::{
    context::ColdBackupContext,
    decide::{self, RetainedBy, Step},
    erase,
    error::Error,
    observe, orphaned_movers, placement, take,
    work::Work,
};
use crate::controller::placement::Placement;
use crate::{
    api::{
        BackupPhase, BackupStore, ColdBackup, ColdBackupStatus, DatabaseServer, Time,
        conditions::{Finding, Type},
    },
    backup::recheck,
    cluster::{During, ignore_not_found_or_conflict},
    context::Shared,
    controller::{self, API_SERVER, Reconciler, cached, server_readiness, store_readiness},
    keyed_semaphore::Permit,
    mover::job::{BACKUP, COMPONENT},
    retry::Backoff,
};

/// How soon an unknown fact is read again.
const RETRY_INTERVAL: SignedDuration = SignedDuration::from_secs(30);
/// How often is checked whether a deleted mover has ended.
const MOVER_END_INTERVAL: Duration = Duration::from_secs(2);

/// Runs the controller of the ColdBackups of this operator's shard.
pub async fn run(ctx: Shared) {
    let client = ctx.client.clone();
    let (config, readiness) = (watcher::Config::default, &ctx.readiness);
    let (backups, stream) = cached(readiness, Api::<ColdBackup>::all(client.clone()), config().labels(&ctx.settings.selector()));
    let stream = stream.applied_objects().predicate_filter(backup_hash, PredicateConfig::default());
    let movers = config().labels(&format!("{}={}", COMPONENT.0, COMPONENT.1));
    let jobs = readiness.watch(Api::<Job>::namespaced(client.clone(), &ctx.settings.namespace), movers).touched_objects();
    let stores = readiness
        .watch(Api::<BackupStore>::all(client.clone()), config())
        .touched_objects()
        .predicate_filter(store_readiness, PredicateConfig::default());
    let servers = readiness
        .watch(Api::<DatabaseServer>::all(client), config())
        .touched_objects()
        .predicate_filter(server_readiness, PredicateConfig::default());
    let (superseded, woken) = mpsc::unbounded();
    let ctx = Arc::new(ColdBackupContext::new(ctx, superseded));
    // It is not recorded which backups wait for a store or a server. So a change of readiness triggers all backups whose
    // last reconcile failed.
    let failing = {
        let (known, ctx) = (backups.clone(), Arc::clone(&ctx));
        move || {
            let fails = |backup: &ColdBackup| backup.uid().is_some_and(|uid| ctx.backoff.is_failing(&uid));
            known.state().into_iter().filter(|b| fails(b)).map(|b| ObjectRef::from_obj(&*b)).collect::<Vec<_>>()
        }
    };
    let failing_too = failing.clone();
    let known = backups.clone();
    let triggers = Controller::for_stream(stream, backups)
        .reconcile_on(woken)
        .watches_stream(stores, move |_: BackupStore| failing())
        .watches_stream(servers, move |_: DatabaseServer| failing_too())
        .watches_stream(jobs, move |job: Job| {
            let of = job.annotations().get(BACKUP).map(|name| ObjectRef::<ColdBackup>::new(name));
            of.filter(|backup| known.get(backup).is_some())
        });
    tokio::join!(controller::run(triggers, Arc::clone(&ctx)), orphaned_movers::run(&ctx));
}

/// What `Ready` says of a backup of which nothing is left. One that never was a backup is not ready: somebody may wait for it.
fn erased(status: &ColdBackupStatus) -> Finding {
    let not_taken = |why| Finding::no(Type::Ready, "NotTaken", why);
    match (&status.verified_at, status.attempts) {
        (Some(_), _) => Finding::yes(Type::Ready, "Erased", "every version, delete marker and open upload is gone, and so are its keys"),
        (None, 0) => not_taken("nothing was taken: its deadline came before a mover was started"),
        (None, _) => not_taken("no attempt proved it before its deadline; nothing is left of what they wrote"),
    }
}

/// Hash of the fields whose change triggers a reconcile: the metadata, and whether there is a status, so that a wiped
/// status is written again.
fn backup_hash(backup: &ColdBackup) -> Option<u64> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    let meta = backup.meta();
    (&meta.uid, meta.generation, meta.deletion_timestamp.is_some(), &meta.finalizers, &meta.annotations).hash(&mut hasher);
    backup.status.is_some().hash(&mut hasher);
    Some(hasher.finish())
}

impl Reconciler for ColdBackupContext {
    type Object = ColdBackup;
    type Error = Error;
    const NAME: &'static str = "a backup";
    const CONTROLLER: &'static str = "ColdBackup";

    fn span(backup: &ColdBackup) -> Span {
        tracing::info_span!("backup", backup = backup.name_any(), account = backup.spec.account)
    }

    fn backoff(&self) -> &Backoff {
        &self.backoff
    }

    async fn permit(&self, backup: &ColdBackup) -> Option<Permit> {
        self.permits.acquire(&self.semaphore_key(backup)).await
    }

    fn outage(&self, backup: &ColdBackup, error: &Error) -> Option<String> {
        match error {
            Error::Cluster(_) => Some(API_SERVER.to_owned()),
            _ if error.needs_a_person() => None,
            Error::Store(_) => Some(format!("store {}", backup.spec.store)),
            Error::Database(_) | Error::Ledger(_) => Some(self.semaphore_key(backup)),
            _ => None,
        }
    }

    fn reason(error: &Error) -> &'static str {
        error.reason()
    }

    async fn reconcile(&self, backup: &ColdBackup) -> Result<Action, Error> {
        let before = self.newest(backup);
        let mut work = Work { ctx: self, backup, status: before.clone(), now: (self.now)() };
        let result = work.reconcile().await;
        if let Err(error) = &result {
            work.set_failure(error);
        }
        let status = work.status;
        self.write(backup, &before, &status).await?;
        result
    }
}

impl Work<'_> {
    async fn reconcile(&mut self) -> Result<Action, Error> {
        let placement = match self.status.phase {
            BackupPhase::Erased => None,
            _ => Some(placement::find(self.ctx, self.backup).await),
        };
        if let Some(Ok(placement)) = &placement {
            self.ctx.remember_server(self.backup, &placement.server.name);
        }
        let facts = observe::facts(self, placement.as_ref()).await?;
        let step = decide::decide(&facts, self.now, self.now + RETRY_INTERVAL);
        if !matches!(step, Step::RemoveFinalizer | Step::DeleteObject) {
            self.ensure().await?;
        }
        match (step, placement) {
            (Step::RemoveFinalizer, _) => self.remove().await,
            (Step::DeleteObject, _) => self.delete_object().await,
            (Step::StartMover | Step::WatchMover, Some(placement)) => {
                let sleep = take::step(self, &placement?).await?;
                Ok(Action::requeue(sleep.min(controller::until(Some(facts.deadline)))))
            }
            (Step::Erase, placement) => self.erase(placement.and_then(Result::ok).as_ref()).await,
            (Step::Retain(retained_by, until), placement) => {
                if matches!(retained_by, RetainedBy::Newest(_)) {
                    self.recheck_if_due().await?;
                }
                self.report_retained(&retained_by);
                if self.status.retained_until != self.ctx.newest(self.backup).retained_until {
                    self.store(placement.and_then(Result::ok).as_ref()).await?;
                }
                Ok(Action::requeue(controller::until(Some(until))))
            }
            (Step::Wait(until), _) => {
                if self.status.phase == BackupPhase::Verified && self.recheck_if_due().await? {
                    self.set_finding(Finding::yes(Type::Ready, "Verified", take::proven(&self.status)));
                }
                Ok(Action::requeue(controller::until(Some(until))))
            }
            (Step::StartMover | Step::WatchMover, None) => Ok(Action::requeue(controller::until(Some(self.now + RETRY_INTERVAL)))),
        }
    }

    /// Reads the objects in the bucket again from time to time, so that a loss is found before the backup is needed.
    async fn recheck_if_due(&mut self) -> Result<bool, Error> {
        let (ctx, backup) = (self.ctx, self.backup);
        let is_due = ctx.recheck_times.is_due(&backup.uid().unwrap_or_default());
        if is_due {
            recheck::recheck(&ctx.stores, &ctx.key_ring(), backup, &backup.spec.account_uid, (ctx.now)()).await?;
            // A backup of an earlier version has no record of its escrow: its key was just found in this one.
            self.status.key_escrow = self.key_escrow(None).await?;
        }
        Ok(is_due)
    }

    /// Reports why the backup is not erased although that is due.
    fn report_retained(&mut self, retained_by: &RetainedBy) {
        match retained_by {
            RetainedBy::Hold(reason) => {
                self.set_finding(Finding::yes(Type::Ready, "Held", "it should be destroyed and a hold keeps it"));
                self.add_finding(Finding::yes(Type::Held, "Hold", reason.clone()));
            }
            RetainedBy::Unknown(why) => {
                self.set_finding(Finding::no(
                    Type::Ready,
                    "Unknown",
                    format!("it should be destroyed and is kept, because not all is known: {why}"),
                ));
                self.add_finding(Finding::yes(Type::Overdue, "Unknown", why.clone()));
            }
            RetainedBy::Newest(until) => {
                self.status.retained_until = Some(Time(*until));
                self.set_finding(Finding::yes(
                    Type::Ready,
                    "Retained",
                    "its deadline has come, and it is the newest proven backup of its account: it is kept until another is proven",
                ));
            }
            RetainedBy::Restore => {
                self.set_finding(Finding::yes(
                    Type::Ready,
                    "Restoring",
                    "its deadline has come while it is being restored; that extends it by a day",
                ));
            }
        }
    }

    /// Erases the backup: stores the phase `Erasing` first, and `Erased` only once the bucket lists nothing.
    async fn erase(&mut self, placement: Option<&Placement>) -> Result<Action, Error> {
        if self.status.phase != BackupPhase::Erasing {
            self.status.phase = BackupPhase::Erasing;
            self.set_finding(Finding::no(Type::Ready, "Erasing", "every version of its objects is being destroyed, then its keys"));
            self.store(placement).await?;
            crate::crash::point("erasing-recorded", &self.backup.spec.account);
        }
        if !erase::erase(self, placement).await? {
            return Ok(Action::requeue(MOVER_END_INTERVAL));
        }
        self.status.phase = BackupPhase::Erased;
        // The message may quote the tenant's data.
        self.status.failing = None;
        self.set_finding(erased(&self.status));
        self.store(placement).await?;
        tracing::info!("erased: nothing of the backup is left");
        self.publish(EventType::Normal, "Erased", "every version, delete marker and open upload is gone, and so are its keys").await;
        Ok(Action::requeue(Duration::ZERO))
    }

    /// Deletes the object of an erased backup that is not needed as evidence.
    async fn delete_object(&mut self) -> Result<Action, Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_that_was_never_proven_is_not_ready_when_nothing_is_left_of_it() {
        let told = |verified: Option<&str>, attempts| {
            let verified_at = verified.map(|at| Time(at.parse().unwrap()));
            let finding = erased(&ColdBackupStatus { verified_at, attempts, ..ColdBackupStatus::default() });
            (finding.holds, finding.reason.to_string())
        };
        assert_eq!(told(Some("2026-11-23T10:00:00Z"), 1), (Some(true), "Erased".into()));
        assert_eq!(told(None, 0), (Some(false), "NotTaken".into()), "its deadline had passed when it was created");
        assert_eq!(told(None, 3), (Some(false), "NotTaken".into()));
    }
}
