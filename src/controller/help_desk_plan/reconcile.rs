//! One reconcile of one plan, and what triggers it.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    runtime::{
        Controller, Predicate, PredicateConfig, WatchStreamExt,
        controller::Action,
        predicates,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use serde_json::json;
use tracing::Span;

use super::references::{self, Present, Server};
use crate::{
    api::{
        BackupStore, DatabaseServer, HelpDeskAccount, HelpDeskAccountStatus, HelpDeskClass, HelpDeskPlan, HelpDeskPlanStatus, InUseBy,
        conditions::{self, Type},
    },
    cluster::{ClusterError, During},
    context::{self, Context},
    controller::{self, Reconciler, cached, in_use, presence, until},
    edge::{
        gateway, issuer,
        objects::{self, Kind, Objects},
    },
    retry::Backoff,
};

/// The field manager of what this controller applies.
const FIELD_MANAGER: &str = "helpdesk-operator-plans";
/// The changes of so long are looked at together: accounts may come in one after the other.
const PACE: Duration = Duration::from_secs(3);

struct PlanContext {
    shared: Arc<Context>,
    backoff: Backoff,
    classes: Store<HelpDeskClass>,
    stores: Store<BackupStore>,
    servers: Store<DatabaseServer>,
    accounts: Store<HelpDeskAccount>,
    edge: Objects,
    /// Resolves once every kind of the edge has its first list, or is known not to be installed.
    edge_filled: Shared<BoxFuture<'static, ()>>,
}

impl std::ops::Deref for PlanContext {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.shared
    }
}

impl Reconciler for PlanContext {
    type Object = HelpDeskPlan;
    type Error = ClusterError;
    const NAME: &'static str = "a plan";
    const CONTROLLER: &'static str = "HelpDeskPlan";
    const PACE: Duration = PACE;

    fn span(plan: &HelpDeskPlan) -> Span {
        tracing::info_span!("plan", plan = plan.name_any())
    }

    fn backoff(&self) -> &Backoff {
        &self.backoff
    }

    fn reason(_: &ClusterError) -> &'static str {
        "ClusterUnreachable"
    }

    async fn reconcile(&self, plan: &HelpDeskPlan) -> Result<Action, ClusterError> {
        reconcile(self, &plan.name_any()).await
    }
}

/// Runs the controller of the plans of this operator's shard.
pub async fn run(ctx: context::Shared) {
    let (client, readiness) = (ctx.client.clone(), &ctx.readiness);
    let config = watcher::Config::default;
    let (plans, plan_stream) = cached(readiness, Api::<HelpDeskPlan>::all(client.clone()), config().labels(&ctx.settings.selector()));
    let plan_stream = plan_stream.applied_objects().predicate_filter(predicates::generation, PredicateConfig::default());
    let (classes, class_stream) = cached(readiness, Api::<HelpDeskClass>::all(client.clone()), config());
    let class_stream = class_stream.touched_objects().predicate_filter(presence(&classes), PredicateConfig::default());
    let (stores, store_stream) = cached(readiness, Api::<BackupStore>::all(client.clone()), config());
    let store_stream = store_stream.touched_objects().predicate_filter(presence(&stores), PredicateConfig::default());
    let (servers, server_stream) = cached(readiness, Api::<DatabaseServer>::all(client.clone()), config());
    let server_stream =
        server_stream.touched_objects().predicate_filter(presence(&servers).combine(missing_extensions), PredicateConfig::default());
    let (accounts, account_stream) = in_use::accounts(readiness, Api::all(client.clone()), strip);
    let seen = accounts.clone();
    let usage = move |account: &HelpDeskAccount| Some(in_use::usage(&seen, account));
    let account_stream = account_stream.touched_objects().predicate_filter(usage, PredicateConfig::default());
    let (edge, edge_streams) = objects::watch(&client, readiness, &Kind::NAMED);

    // There are few plans, and one look sends one request.
    let known = plans.clone();
    let every = move || known.state().iter().map(|plan| ObjectRef::from_obj(&**plan)).collect::<Vec<_>>();
    let (of_class, of_store, of_server) = (every.clone(), every.clone(), every.clone());
    let (known, plans_of) = (plans.clone(), in_use::Plans::default());
    let of_account = move |account: HelpDeskAccount| {
        let plans = plans_of.of(&account).into_iter().map(|plan| ObjectRef::new(&plan));
        plans.filter(|plan| known.get(plan).is_some()).collect::<Vec<_>>()
    };
    let mut triggers = Controller::for_stream(plan_stream, plans)
        .watches_stream(account_stream, of_account)
        .watches_stream(class_stream, move |_: HelpDeskClass| of_class())
        .watches_stream(store_stream, move |_: BackupStore| of_store())
        .watches_stream(server_stream, move |_: DatabaseServer| of_server());
    for (kind, stream) in edge_streams {
        let every = every.clone();
        let stream = stream.predicate_filter(move |object: &DynamicObject| Some(objects::state(kind, object)), PredicateConfig::default());
        triggers = triggers.watches_stream_with(stream, move |_: DynamicObject| every(), kind.resource());
    }
    let edge_filled = edge.filled().boxed().shared();
    let reconciler = PlanContext { shared: ctx, backoff: Backoff::default(), classes, stores, servers, accounts, edge, edge_filled };
    controller::run(triggers, Arc::new(reconciler)).await;
}

/// What of an account the count does not read.
fn strip(account: &mut HelpDeskAccount) {
    let stage = account.status.as_ref().and_then(|status| status.stage);
    account.status = Some(HelpDeskAccountStatus { stage, ..HelpDeskAccountStatus::default() });
}

fn missing_extensions(server: &DatabaseServer) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    server.status.as_ref().map(|status| &status.missing_extensions).hash(&mut hasher);
    Some(hasher.finish())
}

async fn reconcile(ctx: &PlanContext, name: &str) -> Result<Action, ClusterError> {
    let api: Api<HelpDeskPlan> = Api::all(ctx.client.clone());
    let Some(plan) = api.get_opt(name).await.during("read a plan")? else { return Ok(Action::await_change()) };
    // What is not in a cache yet looks as if it did not exist.
    let is_stopping = ctx.classes.wait_until_ready().await.is_err()
        || ctx.stores.wait_until_ready().await.is_err()
        || ctx.servers.wait_until_ready().await.is_err()
        || ctx.accounts.wait_until_ready().await.is_err();
    if is_stopping {
        return Ok(Action::await_change());
    }
    ctx.edge_filled.clone().await;
    let now = (ctx.now)();
    let users: Vec<_> = ctx.accounts.state().into_iter().filter(|a| a.spec.plan == name && in_use::uses(a)).collect();
    let in_use = InUseBy::of(users.iter().map(|account| account.name_any()).collect());
    let plan = in_use::hold(&api, plan, &in_use).await?;
    if plan.metadata.deletion_timestamp.is_some() && plan.finalizers().is_empty() {
        return Ok(Action::await_change());
    }
    let before = plan.status.clone().unwrap_or_default();
    let resolved = references::ready(&plan.spec, &present(ctx, &plan), now);
    let ready = in_use::ending(&plan, &in_use).unwrap_or(resolved);
    let regions: BTreeSet<_> = users.iter().map(|account| account.spec.region.clone()).collect();
    let status = HelpDeskPlanStatus {
        observed_generation: plan.metadata.generation,
        in_use_by: Some(in_use),
        regions_in_use: regions.into_iter().collect(),
        conditions: conditions::merge(&before.conditions, std::slice::from_ref(&ready), plan.metadata.generation, now),
    };
    if status != before {
        write(&api, &plan, &status).await?;
        if !before.conditions.iter().any(|c| c.type_ == Type::Ready.name() && c.reason == ready.reason) {
            ctx.publish_readiness(&plan.object_ref(&()), &ready).await;
        }
    }
    Ok(Action::requeue(until(None)))
}

/// What there is of what the plan names.
fn present(ctx: &PlanContext, plan: &HelpDeskPlan) -> Present {
    let class = plan.spec.class.as_ref().and_then(|name| ctx.classes.get(&ObjectRef::new(name)));
    let server = |server: &Arc<DatabaseServer>| Server {
        name: server.name_any(),
        region: server.spec.region.clone(),
        missing_extensions: server.status.as_ref().map(|status| status.missing_extensions.clone()).unwrap_or_default(),
    };
    let mut present = Present {
        class: class.map(|class| class.spec.database.extensions.clone()),
        stores: ctx.stores.state().iter().map(|store| (store.name_any(), store.spec.region.clone())).collect(),
        servers: ctx.servers.state().iter().map(server).collect(),
        ..Present::default()
    };
    present.servers.sort_by(|a, b| a.name.cmp(&b.name));
    for placement in &plan.spec.placements {
        let region = &placement.region;
        if let Some(reference) = &placement.gateway {
            let why = gateway::refusal(&ctx.edge, reference, &placement.domain_base);
            present.gateways.extend(why.map(|why| (region.clone(), why)));
        }
        if let Some(reference) = &placement.certificate_issuer {
            let why = issuer::refusal(&ctx.edge, reference);
            present.issuers.extend(why.map(|why| (region.clone(), why)));
        }
    }
    present
}

async fn write(api: &Api<HelpDeskPlan>, plan: &HelpDeskPlan, status: &HelpDeskPlanStatus) -> Result<(), ClusterError> {
    let name = plan.name_any();
    // With the version that was read: of two operators that both believe to lead, one writes.
    let patch = json!({
        "apiVersion": HelpDeskPlan::api_version(&()),
        "kind": HelpDeskPlan::kind(&()),
        "metadata": {"name": name, "uid": plan.metadata.uid, "resourceVersion": plan.metadata.resource_version},
        "status": status,
    });
    api.patch_status(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(patch))
        .await
        .map(drop)
        .during("write the status of a plan")
}
