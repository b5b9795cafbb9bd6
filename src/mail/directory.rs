//! What the cluster says about tenants: accounts, plans, classes with their revisions, and claims of host names, watched.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures::StreamExt;
use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::{
    Api, Client, Resource,
    api::ListParams,
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use serde::de::DeserializeOwned;
use std::sync::{Mutex, PoisonError};

use super::recipient::{Facts, is_of};
use crate::{
    api::{DomainClaim, HelpDeskAccount, HelpDeskClass, HelpDeskClassSpec, HelpDeskPlan, account::Owner, stage::Stage},
    app::revision::{self, CLASS_REVISION},
    readiness::{self, Readiness},
};

/// How often the API server is asked whether it is there.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// For how long its last answer counts.
const FRESH_FOR: Duration = Duration::from_secs(60);

/// Whether an account still has data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It does.
    GoesOn,
    /// Its database was dropped, or it does not exist.
    Over,
    /// That is not known.
    Unknown,
}

/// What the cluster says about tenants.
pub(super) struct Directory {
    accounts: Store<HelpDeskAccount>,
    plans: Store<HelpDeskPlan>,
    classes: Store<HelpDeskClass>,
    revisions: Store<ControllerRevision>,
    claims: Store<DomainClaim>,
    is_read: AtomicBool,
    answered: Mutex<Option<Instant>>,
    watches: Readiness,
}

impl Directory {
    /// Starts reading, and goes on until the process ends.
    pub(super) fn watch(client: &Client) -> Arc<Self> {
        let watches = Readiness::default();
        let directory = Arc::new(Self {
            // Who owns an account is nothing that mail needs.
            accounts: watch(&watches, all(client), everything(), |account: &mut HelpDeskAccount| account.spec.owner = Owner::default()),
            plans: watch(&watches, all(client), everything(), |_| ()),
            classes: watch(&watches, all(client), everything(), |_| ()),
            // The operator keeps them in its own namespace, which is this pod's.
            revisions: watch(&watches, Api::default_namespaced(client.clone()), everything().labels(CLASS_REVISION), |_| ()),
            claims: watch(&watches, all(client), everything(), |_| ()),
            is_read: AtomicBool::new(false),
            answered: Mutex::new(None),
            watches,
        });
        tokio::spawn(directory.clone().keep_asking(client.clone()));
        directory
    }

    /// One that nothing was read into.
    #[cfg(test)]
    pub(super) fn unread() -> Self {
        Self {
            accounts: reflector::store().0,
            plans: reflector::store().0,
            classes: reflector::store().0,
            revisions: reflector::store().0,
            claims: reflector::store().0,
            is_read: AtomicBool::new(false),
            answered: Mutex::new(None),
            watches: Readiness::default(),
        }
    }

    async fn keep_asking(self: Arc<Self>, client: Client) {
        let all_read = async {
            self.accounts.wait_until_ready().await.is_ok()
                && self.plans.wait_until_ready().await.is_ok()
                && self.classes.wait_until_ready().await.is_ok()
                && self.revisions.wait_until_ready().await.is_ok()
                && self.claims.wait_until_ready().await.is_ok()
        };
        if all_read.await {
            self.is_read.store(true, Ordering::Relaxed);
            tracing::info!("accounts, plans, classes and claims were read");
        }
        let claims: Api<DomainClaim> = Api::all(client);
        loop {
            match claims.list_metadata(&ListParams::default().limit(1)).await {
                Ok(_) => *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now()),
                Err(error) => tracing::warn!(%error, "the API server does not answer; nothing is refused for good meanwhile"),
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Whether everything was read once.
    pub(super) fn is_read(&self) -> bool {
        self.is_read.load(Ordering::Relaxed)
    }

    /// Whether everything was read once. What breaks off later makes no mail server unready: it answers 450 then.
    ///
    /// # Errors
    /// The text names the watches that have brought nothing, if that is known.
    pub(super) fn check(&self) -> Result<(), String> {
        let slow = || readiness::text(&self.watches.watch_obstacles());
        if self.is_read() { Ok(()) } else { Err(format!("not everything was read yet\n{}", slow())) }
    }

    /// Whether the API server answered a moment ago.
    pub(super) fn is_fresh(&self) -> bool {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at.elapsed() < FRESH_FOR)
    }

    /// Whether the account with this uid still has data, as far as is known.
    pub(super) fn life_of(&self, uid: &str) -> Life {
        if !self.is_read() || !self.is_fresh() {
            return Life::Unknown;
        }
        let Some(account) = self.accounts.find(|account| is_of(account, uid)) else {
            // An account whose object was lost keeps its names until it is known to be gone.
            let is_claimed = self.claims.find(|claim| claim.spec.account_uid == uid && claim.spec.reserved_until.is_none()).is_some();
            return if is_claimed { Life::Unknown } else { Life::Over };
        };
        match account.status.as_ref().and_then(|status| status.stage) {
            None => Life::Unknown,
            Some(stage) if stage.has_database() => Life::GoesOn,
            Some(_) => Life::Over,
        }
    }

    /// The account of this name and its namespace, if it is open.
    pub(super) fn open_account(&self, name: &str) -> Option<(Arc<HelpDeskAccount>, String)> {
        let account = self.accounts.get(&ObjectRef::new(name))?;
        let status = account.status.as_ref().filter(|status| status.stage.is_some_and(Stage::is_open))?;
        let namespace = status.namespace.as_ref()?.name.clone();
        Some((account, namespace))
    }

    /// The class as the account has it: the revision that its status names, or the class as it is now.
    fn class_of(&self, class: &str, account: &HelpDeskAccount) -> Option<Arc<HelpDeskClassSpec>> {
        let pinned = account.status.as_ref().and_then(|status| status.app.as_ref()).filter(|app| app.class == class);
        match pinned {
            Some(app) => {
                let is_it = |revision: &ControllerRevision| revision.metadata.name.as_deref() == Some(&app.revision);
                let (_, spec) = revision::content(&*self.revisions.find(is_it)?)?;
                Some(Arc::new(spec))
            }
            None => Some(Arc::new(self.classes.get(&ObjectRef::new(class))?.spec.clone())),
        }
    }

    /// What is known about a host name.
    pub(super) fn facts(&self, host: &str) -> Facts {
        let claim = self.claims.get(&ObjectRef::new(host));
        let account = claim.as_ref().and_then(|claim| self.accounts.get(&ObjectRef::new(&claim.spec.account)));
        let plan = account.as_ref().and_then(|account| self.plans.get(&ObjectRef::new(&account.spec.plan)));
        let class = plan.and_then(|plan| self.class_of(plan.spec.class.as_ref()?, account.as_deref()?));
        Facts { is_read: self.is_read(), is_fresh: self.is_fresh(), claim, account, class }
    }
}

fn all<K: Resource<DynamicType = ()>>(client: &Client) -> Api<K> {
    Api::all(client.clone())
}

fn everything() -> watcher::Config {
    watcher::Config::default()
}

fn watch<K>(readiness: &Readiness, api: Api<K>, config: watcher::Config, forget: fn(&mut K)) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let stream = readiness
        .watch(api, config)
        .modify(move |object: &mut K| {
            object.meta_mut().managed_fields = None;
            forget(object);
        })
        .reflect(writer)
        .for_each(|event| async move {
            if let Err(error) = event {
                tracing::warn!(%error, "a watch broke off; it is begun again");
            }
        });
    tokio::spawn(stream);
    store
}
