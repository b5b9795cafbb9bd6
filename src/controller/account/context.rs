//! The context of the account controller: caches of the watched kinds, and its state between reconciles.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared, join_all},
};

use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::{
    Resource,
    runtime::reflector::{ObjectRef, Store},
};

use crate::{
    api::{BackupStore, DatabaseServer, DomainClaim, HelpDeskClass, HelpDeskClassSpec, HelpDeskPlan},
    app::{self, revision},
    backup::index::BackupIndex,
    clock::Moment,
    context::Context,
    edge::{self, dns_challenge::ChallengeResolver, objects::Objects},
    keyed_semaphore::KeyedSemaphore,
    lifecycle::{Record, Stage},
    prober::Prober,
    retry::Backoff,
    telemetry::{StageLabel, Telemetry},
};

/// The field manager of what this controller applies.
pub(super) const FIELD_MANAGER: &str = "helpdesk-operator";

/// Caches of the watched kinds.
pub(super) struct Caches {
    /// All plans.
    pub plans: Store<HelpDeskPlan>,
    /// All servers.
    pub servers: Store<DatabaseServer>,
    /// All backups.
    pub backups: Arc<BackupIndex>,
    /// All stores.
    pub stores: Store<BackupStore>,
    /// All classes.
    pub classes: Store<HelpDeskClass>,
    /// All revisions of classes.
    pub revisions: Store<ControllerRevision>,
    /// All claims of host names.
    pub claims: Store<DomainClaim>,
    /// Gateways, routes and the objects that belong to them.
    pub edge: Objects,
}

impl Caches {
    /// Resolves once every cache has its first list. Nothing may be decided before that: what a cache does not have yet
    /// looks as if it did not exist. Which watch is slow or forbidden is told by the process's readiness.
    pub fn filled(&self) -> Filled {
        let backups = Arc::clone(&self.backups);
        let all: [BoxFuture<'static, ()>; 8] = [
            filled(&self.plans),
            filled(&self.servers),
            async move { backups.filled().await }.boxed(),
            filled(&self.stores),
            filled(&self.classes),
            filled(&self.revisions),
            filled(&self.claims),
            self.edge.filled().boxed(),
        ];
        join_all(all).map(drop).boxed().shared()
    }
}

/// See [`Caches::filled`].
pub(super) type Filled = Shared<BoxFuture<'static, ()>>;

fn filled<K>(cache: &Store<K>) -> BoxFuture<'static, ()>
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let cache = cache.clone();
    // An error says that the process is stopping.
    async move { cache.wait_until_ready().await.unwrap_or_default() }.boxed()
}

/// The context of a reconcile: clients, caches, and the state between reconciles.
pub(super) struct AccountContext {
    /// What all controllers share.
    pub shared: Arc<Context>,
    /// Caches of the watched kinds.
    pub caches: Caches,
    /// Resolves once every cache has its first list.
    pub filled: Filled,
    /// Failures in a row, by account.
    pub backoff: Backoff,
    /// Stage, deadline and last record of each account, for the metrics.
    pub stage_counts: StageCounts,
    /// When certificates of custom host names expire, for the metrics.
    pub expiries: CertificateExpiries,
    /// Probes the tenants' addresses from outside.
    pub prober: Arc<Prober<edge::check::View>>,
    /// Asks the tenants' apps for a value of their tenant.
    pub app_prober: Arc<Prober<app::check::View>>,
    /// Limits how many accounts of one server are reconciled at once.
    pub permits: KeyedSemaphore,
    /// The same for accounts whose database may be created or dropped.
    pub slow_permits: KeyedSemaphore,
    /// Checks the TXT records that prove host names.
    pub challenges: ChallengeResolver,
    /// Since when this operator leads, at the latest.
    pub led_since: Moment,
    /// Servers on which this process may have created entries of new accounts.
    pub attempts: PlacementAttempts,
}

impl std::ops::Deref for AccountContext {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.shared
    }
}

impl AccountContext {
    /// The class as the account has it: its pinned revision, or, before one is pinned, the class as it is now. `None`: there
    /// is none, or the revision was lost.
    pub fn class_of(&self, plan: &HelpDeskPlan, record: &Record) -> Option<Arc<HelpDeskClassSpec>> {
        let name = plan.spec.class.as_ref()?;
        match record.class.as_ref().filter(|pinned| pinned.name == *name) {
            Some(pinned) => self.class_in(&pinned.revision).map(Arc::new),
            None => Some(Arc::new(self.caches.classes.get(&ObjectRef::<HelpDeskClass>::new(name))?.spec.clone())),
        }
    }

    /// The class as it was in this revision.
    pub fn class_in(&self, revision: &str) -> Option<HelpDeskClassSpec> {
        let found = self.caches.revisions.get(&ObjectRef::new(revision).within(&self.settings.namespace))?;
        revision::content(&found).map(|(_, spec)| spec)
    }
}

/// Whether an account's deadline was kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deadline {
    /// No deadline has passed.
    Kept,
    /// A deadline has passed, and its step is delayed or its state cannot be read.
    Missed,
    /// A deadline has passed, and only a hold delays its step, as a person wants it.
    Held,
}

/// Stage, deadline and last record of each account: for the metrics, and to report what is due while a ledger cannot be
/// read.
#[derive(Default)]
pub(super) struct StageCounts {
    accounts: Mutex<HashMap<String, Counted>>,
}

struct Counted {
    stage: Option<Stage>,
    deadline: Deadline,
    record: Option<Record>,
}

impl StageCounts {
    /// Updates the count of an account whose ledger was read.
    pub fn count(&self, telemetry: &Telemetry, uid: &str, shown: Stage, record: &Record, deadline: Deadline) {
        self.replace(telemetry, uid, Some(Counted { stage: Some(shown), deadline, record: Some(record.clone()) }));
    }

    /// Updates the count of an account whose ledger cannot be read; `record` is assumed.
    pub fn presume(&self, telemetry: &Telemetry, uid: &str, stage: Option<Stage>, record: Option<Record>, deadline: Deadline) {
        self.replace(telemetry, uid, Some(Counted { stage, deadline, record }));
    }

    /// Removes an account from the count.
    pub fn forget(&self, telemetry: &Telemetry, uid: &str) {
        self.replace(telemetry, uid, None);
    }

    /// The last record of an account, read or assumed.
    pub fn record(&self, uid: &str) -> Option<Record> {
        self.lock().get(uid)?.record.clone()
    }

    fn replace(&self, telemetry: &Telemetry, uid: &str, now: Option<Counted>) {
        let mut accounts = self.lock();
        let counts = |counted: &Option<Counted>| counted.as_ref().map(|c| (c.stage, c.deadline));
        let after = counts(&now);
        let before = match now {
            Some(now) => accounts.insert(uid.to_owned(), now),
            None => accounts.remove(uid),
        };
        for (counted, by) in [(counts(&before), -1), (after, 1)] {
            let Some((stage, deadline)) = counted else { continue };
            if let Some(stage) = stage {
                telemetry.accounts.get_or_create(&StageLabel { stage: stage.name() }).inc_by(by);
            }
            telemetry.overdue.inc_by(if deadline == Deadline::Missed { by } else { 0 });
            telemetry.held.inc_by(if deadline == Deadline::Held { by } else { 0 });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Counted>> {
        self.accounts.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// When the first certificate of a custom host name expires, by account.
#[derive(Default)]
pub(super) struct CertificateExpiries(Mutex<HashMap<String, Moment>>);

impl CertificateExpiries {
    /// Sets or removes the time of one account. Returns the earliest time of all accounts.
    pub fn put(&self, uid: &str, first_expiry: Option<Moment>) -> Option<Moment> {
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match first_expiry {
            Some(at) => all.insert(uid.to_owned(), at),
            None => all.remove(uid),
        };
        all.values().min().copied()
    }
}

/// The servers on which this process started to create entries of new accounts, with the keys of these entries. If the
/// request was cut off, it is not known whether the entry exists.
#[derive(Default)]
pub(super) struct PlacementAttempts(Mutex<HashSet<(String, String)>>);

impl PlacementAttempts {
    pub fn try_at(&self, server: &str, marks: Vec<String>) {
        self.lock().extend(marks.into_iter().map(|mark| (server.to_owned(), mark)));
    }

    pub fn tried(&self, server: &str, marks: &[String]) -> bool {
        let all = self.lock();
        marks.iter().any(|mark| all.contains(&(server.to_owned(), mark.clone())))
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<(String, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_counted_once_whether_its_ledger_is_read_or_not() {
        let (stage_counts, telemetry) = (StageCounts::default(), Telemetry::default());
        let record = Record::created("2026-01-01T00:00:00Z".parse().unwrap());
        let counts = || (telemetry.overdue.get(), telemetry.held.get());
        let trials = || telemetry.accounts.get_or_create(&StageLabel { stage: "Trial" }).get();
        stage_counts.count(&telemetry, "a", Stage::Trial, &record, Deadline::Kept);
        assert_eq!((counts(), trials()), ((0, 0), 1));
        // Its server is away when its deadline comes.
        stage_counts.presume(&telemetry, "a", Some(Stage::Trial), stage_counts.record("a"), Deadline::Missed);
        stage_counts.presume(&telemetry, "a", Some(Stage::Trial), stage_counts.record("a"), Deadline::Missed);
        assert_eq!((counts(), trials()), ((1, 0), 1));
        stage_counts.count(&telemetry, "a", Stage::Terminated, &record, Deadline::Held);
        assert_eq!((counts(), trials()), ((0, 1), 0));
        stage_counts.forget(&telemetry, "a");
        assert_eq!((counts(), stage_counts.record("a")), ((0, 0), None));
    }
}
