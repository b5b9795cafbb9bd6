//! The context of the account controller: caches of the watched kinds, and its state between reconciles.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
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
    api::{BackupStore, DatabaseServer, DomainClaim, HelpDeskAccountStatus, HelpDeskClass, HelpDeskClassSpec, HelpDeskPlan},
    app::{self, revision},
    backup::index::BackupIndex,
    clock::Moment,
    context::Context,
    controller::object_metrics::Delays,
    edge::{self, dns_challenge::ChallengeResolver, objects::Objects},
    keyed_semaphore::KeyedSemaphore,
    lifecycle::Record,
    notices::Sender,
    prober::Prober,
    retry::Backoff,
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
    /// The last record of each account.
    pub last_records: LastRecords,
    /// The status of each account that was written last.
    pub last_statuses: LastStatuses,
    /// What delays the steps of accounts.
    pub delays: Arc<Delays>,
    /// Probes the tenants' addresses from outside.
    pub prober: Arc<Prober<edge::check::View>>,
    /// Asks the tenants' apps for a value of their tenant.
    pub app_prober: Arc<Prober<app::check::View>>,
    /// Delivers notices; `None`: there is no endpoint.
    pub notices: Option<Arc<Sender>>,
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

/// The last record of each account, to report what is due while a ledger cannot be read.
#[derive(Default)]
pub(super) struct LastRecords(Mutex<HashMap<String, Record>>);

impl LastRecords {
    /// Sets the record of an account, read or assumed.
    pub fn put(&self, uid: &str, record: Record) {
        self.lock().insert(uid.to_owned(), record);
    }

    /// Forgets an account.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// The last record of an account.
    pub fn get(&self, uid: &str) -> Option<Record> {
        self.lock().get(uid).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Record>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A hash of the status that this process wrote last, by account. A reconcile that follows at once reads an account from the
/// cache that does not have it yet: what equals the cache may differ from what was written.
#[derive(Default)]
pub(super) struct LastStatuses(Mutex<HashMap<String, u64>>);

impl LastStatuses {
    /// Whether this status has to be written: the cache has another one, or another one was written last.
    pub fn is_news(&self, uid: &str, cached: &HelpDeskAccountStatus, status: &HelpDeskAccountStatus) -> bool {
        status != cached || self.lock().get(uid).is_some_and(|written| *written != hash(status))
    }

    /// Sets what was written.
    pub fn put(&self, uid: &str, status: &HelpDeskAccountStatus) {
        self.lock().insert(uid.to_owned(), hash(status));
    }

    /// Forgets an account.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(status: &HelpDeskAccountStatus) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{status:?}").hash(&mut hasher);
    hasher.finish()
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
    fn what_equals_a_cache_that_lags_behind_is_written_again() {
        let statuses = LastStatuses::default();
        let status = |url: &str| HelpDeskAccountStatus { url: Some(url.to_owned()), ..HelpDeskAccountStatus::default() };
        let (first, second) = (status("https://a.example"), status("https://b.example"));
        assert!(!statuses.is_news("acme", &first, &first), "the process has just started");
        assert!(statuses.is_news("acme", &first, &second));
        statuses.put("acme", &second);
        assert!(statuses.is_news("acme", &first, &first), "the cache does not have the second one yet");
        statuses.put("acme", &first);
        assert!(!statuses.is_news("acme", &first, &first));
        assert!(statuses.is_news("acme", &second, &first), "somebody else wrote into it");
    }
}
