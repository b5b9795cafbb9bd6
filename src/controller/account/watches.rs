//! Which changes in the cluster trigger a reconcile of which accounts.

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment},
    batch::v1::Job,
    core::v1::{Namespace, Secret, Service},
    networking::v1::NetworkPolicy,
};
use kube::{
    Api, Resource, ResourceExt,
    core::{DynamicObject, PartialObjectMeta},
    runtime::{Controller, Predicate, PredicateConfig, WatchStreamExt, reflector::ObjectRef, watcher},
};

use super::context::{AccountContext, Caches, LastRecords, LastStatuses, PlacementAttempts};
use crate::{
    api::{ACCOUNT_LABEL, BackupStore, ColdBackup, DatabaseServer, DomainClaim, HelpDeskAccount, HelpDeskClass, HelpDeskPlan},
    app::{self, revision::CLASS_REVISION},
    context::Shared,
    controller::{
        self, cached, is_gone,
        object_metrics::{self, Delays, ObjectCaches},
        presence, server_readiness, store_readiness,
    },
    edge::{
        self,
        dns_challenge::ChallengeResolver,
        objects::{self, Kind},
    },
    keyed_semaphore::KeyedSemaphore,
    notices::Sender,
    prober::Prober,
    retry::Backoff,
};

/// Runs the controller until `shutdown` resolves; reconciles that run are finished first.
pub async fn run(ctx: Shared, shutdown: impl Future<Output = ()> + Send + Sync + 'static) {
    let client = ctx.client.clone();
    let (config, readiness) = (watcher::Config::default, &ctx.readiness);
    let selector = ctx.settings.selector();

    let (accounts, account_stream) = cached(readiness, Api::<HelpDeskAccount>::all(client.clone()), config().labels(&selector));
    let account_stream = account_stream.applied_objects().predicate_filter(account_hash, PredicateConfig::default());
    let (plans, plan_stream) = cached(readiness, Api::<HelpDeskPlan>::all(client.clone()), config());
    let plan_stream = plan_stream.touched_objects().predicate_filter(presence(&plans), PredicateConfig::default());
    let (servers, server_stream) = cached(readiness, Api::<DatabaseServer>::all(client.clone()), config());
    let server_stream = server_stream.touched_objects().predicate_filter(server_readiness, PredicateConfig::default());
    let backups = Arc::clone(&ctx.backups);
    let index = Arc::clone(&backups);
    let backup_stream = readiness
        .watch(Api::<ColdBackup>::all(client.clone()), config())
        .modify(|backup: &mut ColdBackup| backup.managed_fields_mut().clear())
        .inspect_ok(move |event| index.apply(event))
        .touched_objects();
    let labelled = || config().labels(ACCOUNT_LABEL);
    // What of the app was edited or deleted, and how far its pods and hooks are.
    let deployments = readiness
        .watch(Api::<Deployment>::all(client.clone()), labelled())
        .touched_objects()
        .predicate_filter(deployment_progress, PredicateConfig::default());
    let hooks = readiness
        .watch(Api::<Job>::all(client.clone()), labelled())
        .touched_objects()
        .predicate_filter(hook_progress, PredicateConfig::default());
    let services = readiness.watch(Api::<PartialObjectMeta<Service>>::all(client.clone()), labelled()).touched_objects();
    let policies = readiness.watch(Api::<PartialObjectMeta<NetworkPolicy>>::all(client.clone()), labelled()).touched_objects();

    let (classes, class_stream) = cached(readiness, Api::<HelpDeskClass>::all(client.clone()), config());
    let class_stream = class_stream.touched_objects();
    let (revisions, revision_stream) =
        cached(readiness, Api::<ControllerRevision>::namespaced(client.clone(), &ctx.settings.namespace), config().labels(CLASS_REVISION));
    let (claims, claim_stream) = cached(readiness, Api::<DomainClaim>::all(client.clone()), config());
    let claim_stream = claim_stream.touched_objects();
    let (stores, store_stream) = cached(readiness, Api::<BackupStore>::all(client.clone()), config());
    let store_stream =
        store_stream.touched_objects().predicate_filter(presence(&stores).combine(store_readiness), PredicateConfig::default());

    let namespaces = readiness.watch(Api::<PartialObjectMeta<Namespace>>::all(client.clone()), labelled()).touched_objects();
    let secrets = readiness.watch(Api::<PartialObjectMeta<Secret>>::all(client.clone()), labelled()).touched_objects();

    let (edge, edge_streams) = objects::watch(&client, readiness, &Kind::ALL);

    let of_plan = {
        let accounts = accounts.clone();
        move |plan: HelpDeskPlan| {
            let name = plan.name_any();
            accounts.state().into_iter().filter(move |a| a.spec.plan == name).map(|a| ObjectRef::from_obj(&*a)).collect::<Vec<_>>()
        }
    };
    let of_server = {
        let accounts = accounts.clone();
        move |server: DatabaseServer| {
            let name = server.name_any();
            let on = |a: &HelpDeskAccount| a.status.as_ref().and_then(|s| s.database.as_ref()).map(|d| d.server.clone());
            accounts
                .state()
                .into_iter()
                .filter(move |a| on(a).is_none_or(|s| s == name))
                .map(|a| ObjectRef::from_obj(&*a))
                .collect::<Vec<_>>()
        }
    };
    // A change of an object that tenants share, such as a Gateway, triggers every account whose plan has a Gateway.
    let published = {
        let (accounts, plans) = (accounts.clone(), plans.clone());
        move || {
            let plans: Vec<_> = plans.state().into_iter().filter(|p| p.spec.placements.iter().any(|p| p.gateway.is_some())).collect();
            let has = move |account: &HelpDeskAccount| plans.iter().any(|p| p.name_any() == account.spec.plan);
            accounts.state().into_iter().filter(|a| has(a)).map(|a| ObjectRef::from_obj(&*a)).collect::<Vec<_>>()
        }
    };
    let of_class = {
        let (accounts, plans, classes) = (accounts.clone(), plans.clone(), classes.clone());
        let seen: Mutex<HashMap<String, SeenClass>> = Mutex::default();
        move |class: HelpDeskClass| {
            let name = class.name_any();
            let after = classes.get(&ObjectRef::from_obj(&class)).map(|class| SeenClass::of(&class)).unwrap_or_default();
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            let before = seen.insert(name.clone(), after.clone()).unwrap_or_default();
            let plans: HashSet<_> =
                plans.state().into_iter().filter(|p| p.spec.class.as_ref() == Some(&name)).map(|p| p.name_any()).collect();
            let is_concerned = move |account: &HelpDeskAccount| plans.contains(&account.spec.plan) && after.concerns(&before, account);
            accounts.state().into_iter().filter(|a| is_concerned(a)).map(|a| ObjectRef::from_obj(&*a)).collect::<Vec<_>>()
        }
    };
    let (prober, changed_routes) = Prober::new(ctx.telemetry.edge_probe_failures.clone(), edge::check::check);
    let (app_prober, changed_apps) = Prober::new(ctx.telemetry.app_probe_failures.clone(), app::check::check);
    let (notices, noticed) = match &ctx.settings.notices {
        Some(endpoint) => {
            let (sender, noticed) = Sender::new(endpoint.clone(), client.clone(), &ctx.settings.namespace, ctx.now, &ctx.telemetry);
            let worker = Arc::clone(&sender);
            tokio::spawn(async move { worker.run().await });
            (Some(sender), noticed.boxed())
        }
        None => (None, stream::pending().boxed()),
    };
    let delays = Arc::new(Delays::default());
    object_metrics::register(
        &ctx,
        ObjectCaches {
            accounts: accounts.clone(),
            plans: plans.clone(),
            classes: classes.clone(),
            servers: servers.clone(),
            stores: stores.clone(),
            backups: backups.clone(),
            delays: delays.clone(),
        },
    );
    let caches = Caches { plans, servers, backups, stores, classes, revisions, claims, edge };
    let ctx = Arc::new(AccountContext {
        shared: ctx.clone(),
        filled: caches.filled(),
        caches,
        backoff: Backoff::default(),
        last_records: LastRecords::default(),
        last_statuses: LastStatuses::default(),
        delays,
        prober,
        app_prober,
        notices,
        permits: KeyedSemaphore::new(ctx.settings.concurrency.into()),
        slow_permits: KeyedSemaphore::new((ctx.settings.concurrency / 2).into()),
        challenges: ChallengeResolver::new(&ctx.settings.resolvers, ctx.settings.prove_again),
        led_since: (ctx.now)(),
        attempts: PlacementAttempts::default(),
    });

    // It is not recorded which accounts wait for a store. So a change of a store's readiness triggers all accounts whose last
    // reconcile failed. A store that appears or is gone triggers those whose plans name it.
    let of_store = {
        let (accounts, ctx) = (accounts.clone(), ctx.clone());
        let there: Mutex<HashSet<String>> = Mutex::default();
        move |store: BackupStore| {
            let name = store.name_any();
            let mut there = there.lock().unwrap_or_else(PoisonError::into_inner);
            let changed = if is_gone(&ctx.caches.stores, &store) { there.remove(&name) } else { there.insert(name.clone()) };
            let names = |plan: &HelpDeskPlan| changed && plan.spec.placements.iter().any(|p| p.store == name);
            let plans: HashSet<_> = ctx.caches.plans.state().iter().filter(|p| names(p)).map(|p| p.name_any()).collect();
            let fails = |account: &HelpDeskAccount| account.uid().is_some_and(|uid| ctx.backoff.is_failing(&uid));
            let waits = |account: &HelpDeskAccount| plans.contains(&account.spec.plan) || fails(account);
            accounts.state().into_iter().filter(|a| waits(a)).map(|a| ObjectRef::from_obj(&*a)).collect::<Vec<_>>()
        }
    };
    let mut triggers = Controller::for_stream(account_stream, accounts)
        .reconcile_on(stream::select(stream::select(changed_routes, changed_apps), noticed).map(|account| ObjectRef::new(&account)))
        .watches_stream(store_stream, of_store)
        .watches_stream(plan_stream, of_plan)
        .watches_stream(server_stream, of_server)
        .watches_stream(backup_stream, |backup: ColdBackup| [ObjectRef::new(&backup.spec.account)])
        .watches_stream(namespaces, |o| owner(&o))
        .watches_stream(secrets, |o| owner(&o))
        .watches_stream(deployments, |o| owner(&o))
        .watches_stream(hooks, |o| owner(&o))
        .watches_stream(services, |o| owner(&o))
        .watches_stream(policies, |o| owner(&o))
        .watches_stream(class_stream, of_class)
        // Revisions do not change, and an account looks for a new one by itself.
        .watches_stream(revision_stream.touched_objects(), |_: ControllerRevision| None::<ObjectRef<HelpDeskAccount>>)
        .watches_stream(claim_stream, |claim: DomainClaim| {
            let contender = claim.spec.contender.map(|contender| contender.account);
            [Some(claim.spec.account), contender].into_iter().flatten().map(|name| ObjectRef::new(&name))
        });
    for (kind, stream) in edge_streams {
        let published = published.clone();
        let stream = stream.predicate_filter(move |object: &DynamicObject| Some(objects::state(kind, object)), PredicateConfig::default());
        triggers = triggers.watches_stream_with(
            stream,
            move |object: DynamicObject| match object.labels().get(ACCOUNT_LABEL) {
                Some(name) => vec![ObjectRef::new(name)],
                None => published(),
            },
            kind.resource(),
        );
    }
    // Reconciles that still wait for a permit are not started after the shutdown.
    let closing = ctx.clone();
    let shutdown = async move {
        shutdown.await;
        closing.permits.close();
        closing.slow_permits.close();
    };
    controller::run(triggers.graceful_shutdown_on(shutdown), ctx).await;
}

/// What accounts have to know of a class.
#[derive(Clone, Default, PartialEq)]
struct SeenClass {
    /// `None`: there is no such class.
    generation: Option<i64>,
    /// The generation that its controller has seen, and its revision.
    current: Option<(i64, String)>,
    upgrading: HashSet<String>,
}

impl SeenClass {
    fn of(class: &HelpDeskClass) -> Self {
        let status = class.status.clone().unwrap_or_default();
        let upgrading = status.upgrading.into_iter().map(|entry| entry.account).collect();
        Self { generation: class.metadata.generation, current: status.observed_generation.zip(status.revision), upgrading }
    }

    /// Whether the account is to be reconciled because the class was changed: its own revision keeps it from most changes.
    fn concerns(&self, before: &Self, account: &HelpDeskAccount) -> bool {
        let is_pinned = account.status.as_ref().is_some_and(|status| status.app.is_some());
        let name = account.name_any();
        let has_turn = self.upgrading.contains(&name) && (self.current != before.current || !before.upgrading.contains(&name));
        let is_changed = self.generation != before.generation || self.current != before.current;
        has_turn || (!is_pinned && is_changed)
    }
}

fn owner(object: &impl ResourceExt) -> Option<ObjectRef<HelpDeskAccount>> {
    object.labels().get(ACCOUNT_LABEL).map(|name| ObjectRef::new(name))
}

/// What of a Deployment triggers a reconcile: that it was edited or deleted, and how many of its pods are ready.
fn deployment_progress(deployment: &Deployment) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    let status = deployment.status.as_ref();
    let pods = status.map(|s| (s.observed_generation, s.updated_replicas, s.ready_replicas, s.replicas));
    (&deployment.metadata.uid, deployment.metadata.generation, &deployment.metadata.labels, &deployment.metadata.annotations, pods)
        .hash(&mut hasher);
    Some(hasher.finish())
}

/// What of a hook's Job triggers a reconcile: that it was edited or deleted, and how it ended.
fn hook_progress(job: &Job) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    let conditions = job.status.as_ref().and_then(|s| s.conditions.as_ref()).into_iter().flatten();
    let conditions: Vec<_> = conditions.map(|c| (&c.type_, &c.status)).collect();
    (&job.metadata.uid, job.metadata.generation, conditions).hash(&mut hasher);
    Some(hasher.finish())
}

/// Hash of the fields whose change triggers a reconcile: the metadata, `status.stage` and `status.billing`. A status patch
/// does not change `generation`, so the generation alone would miss every payment.
fn account_hash(account: &HelpDeskAccount) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    let meta = account.meta();
    meta.uid.hash(&mut hasher);
    meta.generation.hash(&mut hasher);
    meta.deletion_timestamp.is_some().hash(&mut hasher);
    meta.finalizers.hash(&mut hasher);
    meta.annotations.hash(&mut hasher);
    meta.labels.hash(&mut hasher);
    let status = account.status.as_ref();
    status.and_then(|s| s.stage).hash(&mut hasher);
    format!("{:?}", status.and_then(|s| s.billing.as_ref())).hash(&mut hasher);
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Billing, BillingState, HelpDeskAccountStatus, Time};

    fn account() -> HelpDeskAccount {
        serde_json::from_value(serde_json::json!({
            "apiVersion": "helpdesk-operator.io/v1alpha1", "kind": "HelpDeskAccount",
            "metadata": {"name": "acme", "generation": 1},
            "spec": {"owner": {"name": "Ana", "email": "ana@acme.example"}, "plan": "standard", "region": "eu-1", "domain": {"slug": "acme"}}
        }))
        .unwrap()
    }

    #[test]
    fn a_payment_wakes_the_account_although_its_generation_stays() {
        let before = account();
        let mut after = account();
        let billing = Billing {
            state: BillingState::Active,
            since: Time("2026-11-23T10:00:00Z".parse().unwrap()),
            delinquent_since: None,
            period_end: None,
            subscription: None,
            sequence: 1,
            epoch: 0,
        };
        after.status = Some(HelpDeskAccountStatus { billing: Some(billing), ..HelpDeskAccountStatus::default() });
        assert_ne!(account_hash(&before), account_hash(&after));
    }

    #[test]
    fn what_the_operator_reports_does_not_wake_it() {
        let mut before = account();
        before.status = Some(HelpDeskAccountStatus { url: None, ..HelpDeskAccountStatus::default() });
        let mut after = account();
        after.status = Some(HelpDeskAccountStatus { url: Some("https://acme.example".into()), ..HelpDeskAccountStatus::default() });
        assert_eq!(account_hash(&before), account_hash(&after));
    }
}
