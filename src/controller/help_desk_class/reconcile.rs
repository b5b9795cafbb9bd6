//! One reconcile of one class, and what triggers it.

use std::{
    collections::{BTreeSet, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::apps::v1::ControllerRevision;
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    runtime::{
        Controller, Predicate, PredicateConfig, WatchStreamExt,
        controller::Action,
        events::EventType,
        predicates,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use serde_json::json;
use tracing::Span;

use super::rollout::{self, AccountFacts, AppState};
use crate::{
    api::{
        HelpDeskAccount, HelpDeskClass, HelpDeskPlan, InUseBy,
        conditions::{self, Finding, Type},
        help_desk_class::HelpDeskClassStatus,
    },
    app::{
        revision::{self, CLASS_REVISION},
        workloads,
    },
    clock::Moment,
    cluster::{ClusterError, During, ignore_not_found_or_conflict},
    context::{Context, Shared},
    controller::{self, Reconciler, cached, in_use, presence, until},
    lifecycle::Stage,
    retry::Backoff,
};

/// How many revisions that no account has are kept, as of a StatefulSet (`revisionHistoryLimit`).
const REVISIONS_KEPT: usize = 10;
/// The changes of so long are looked at together: a wave changes many accounts at once.
const PACE: Duration = Duration::from_secs(1);
/// The field manager of what this controller applies.
const FIELD_MANAGER: &str = "helpdesk-operator-classes";

struct ClassContext {
    shared: Arc<Context>,
    backoff: Backoff,
    accounts: Store<HelpDeskAccount>,
    plans: Store<HelpDeskPlan>,
}

impl std::ops::Deref for ClassContext {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.shared
    }
}

/// Why a class could not be taken further.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The API server did not answer, or refused.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The class cannot be written into a revision.
    #[error("failed to write the class into a ControllerRevision")]
    Revision(#[from] serde_json::Error),
}

impl Reconciler for ClassContext {
    type Object = HelpDeskClass;
    type Error = Error;
    const NAME: &'static str = "a class";
    const CONTROLLER: &'static str = "HelpDeskClass";
    const PACE: Duration = PACE;

    fn span(class: &HelpDeskClass) -> Span {
        tracing::info_span!("class", class = class.name_any())
    }

    fn backoff(&self) -> &Backoff {
        &self.backoff
    }

    fn reason(error: &Error) -> &'static str {
        match error {
            Error::Cluster(_) => "ClusterUnreachable",
            Error::Revision(_) => "ClassInvalid",
        }
    }

    async fn reconcile(&self, class: &HelpDeskClass) -> Result<Action, Error> {
        reconcile(self, &class.name_any()).await
    }
}

/// Runs the controller of the classes of this operator's shard. The accounts of all shards count.
pub async fn run(ctx: Shared) {
    let (client, readiness) = (ctx.client.clone(), &ctx.readiness);
    let (classes, class_stream) =
        cached(readiness, Api::<HelpDeskClass>::all(client.clone()), watcher::Config::default().labels(&ctx.settings.selector()));
    let class_stream = class_stream.applied_objects().predicate_filter(predicates::generation, PredicateConfig::default());
    let (plans, plan_stream) = cached(readiness, Api::<HelpDeskPlan>::all(client.clone()), watcher::Config::default());
    let plan_stream = plan_stream.touched_objects().predicate_filter(presence(&plans), PredicateConfig::default());
    let (accounts, account_stream) = in_use::accounts(readiness, Api::all(client), strip);
    let seen = accounts.clone();
    let usage = move |account: &HelpDeskAccount| Some(in_use::usage(&seen, account));
    let account_stream = account_stream.touched_objects().predicate_filter(usage.combine(progress), PredicateConfig::default());

    let all = classes.clone();
    let of_plan = move |_: HelpDeskPlan| all.state().iter().map(|class| ObjectRef::from_obj(&**class)).collect::<Vec<_>>();
    let known = plans.clone();
    let plans_of = in_use::Plans::default();
    let of_account = move |account: HelpDeskAccount| {
        let plans = plans_of.of(&account).into_iter().filter_map(|plan| known.get(&ObjectRef::new(&plan)));
        plans.filter_map(|plan| plan.spec.class.clone()).map(|class| ObjectRef::new(&class)).collect::<Vec<_>>()
    };
    let triggers =
        Controller::for_stream(class_stream, classes).watches_stream(plan_stream, of_plan).watches_stream(account_stream, of_account);
    controller::run(triggers, Arc::new(ClassContext { shared: ctx, backoff: Backoff::default(), accounts, plans })).await;
}

/// What of an account a rollout does not read.
fn strip(account: &mut HelpDeskAccount) {
    if let Some(status) = &mut account.status {
        status.domains = vec![];
        status.mail = None;
        status.conditions.retain(|condition| condition.type_ == Type::AppReady.name());
    }
}

/// What of an account triggers a reconcile of its class.
fn progress(account: &HelpDeskAccount) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    (&account.metadata.uid, &account.spec.plan, account.spec.paused, account.metadata.deletion_timestamp.is_some()).hash(&mut hasher);
    let status = account.status.as_ref();
    status.and_then(|status| status.stage).hash(&mut hasher);
    format!("{:?} {:?}", status.and_then(|status| status.app.as_ref()), app_ready(account)).hash(&mut hasher);
    Some(hasher.finish())
}

fn app_ready(account: &HelpDeskAccount) -> Option<(&str, &str, Moment)> {
    let ready = account.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == Type::AppReady.name())?;
    Some((&ready.status, &ready.reason, ready.last_transition_time.0))
}

async fn reconcile(ctx: &ClassContext, name: &str) -> Result<Action, Error> {
    let api: Api<HelpDeskClass> = Api::all(ctx.client.clone());
    // Read from the API server: by an old status, accounts that have had their turn would be upgraded a second time.
    let Some(class) = api.get_opt(name).await.during("read a class")? else { return Ok(Action::await_change()) };
    // An account that is not in the cache yet looks as if it did not exist, and its revision as if nobody had it.
    let is_stopping = ctx.plans.wait_until_ready().await.is_err() || ctx.accounts.wait_until_ready().await.is_err();
    if is_stopping {
        return Ok(Action::await_change());
    }
    let now = (ctx.now)();
    let revisions: Api<ControllerRevision> = Api::namespaced(ctx.client.clone(), &ctx.settings.namespace);
    let found = revisions.list(&ListParams::default().labels(CLASS_REVISION)).await.during("list the revisions of classes")?;
    let all: Vec<_> = found.items.into_iter().map(Arc::new).collect();
    let users = accounts_of(ctx, name);
    let in_use = in_use_by(ctx, name, &users);
    let class = in_use::hold(&api, class, &in_use).await?;
    if class.metadata.deletion_timestamp.is_some() && class.finalizers().is_empty() {
        return Ok(Action::await_change());
    }
    let ending = in_use::ending(&class, &in_use);
    let before = class.status.clone().unwrap_or_default();
    let has_workloads = workloads::has_workloads(&class.spec);
    let accounts: Vec<_> = users.iter().filter_map(|account| facts(account, name, has_workloads)).collect();
    if !has_workloads && accounts.is_empty() {
        let everybody = Finding::yes(Type::Ready, "UpToDate", "the class has no workloads, and holds for every account as it is now");
        let findings: Vec<Finding> = ending.into_iter().chain([everybody]).collect();
        let status = HelpDeskClassStatus {
            observed_generation: class.metadata.generation,
            in_use_by: Some(in_use),
            conditions: conditions::merge(&before.conditions, &findings, class.metadata.generation, now),
            ..HelpDeskClassStatus::default()
        };
        if status != before {
            write(&api, &class, &status).await?;
        }
        return Ok(Action::await_change());
    }
    let target = match revision::same(&all, name, &class.spec) {
        Some(same) => same.name_any(),
        None => create(ctx, &revisions, &all, name, &class).await?,
    };
    let rollout = rollout::step(&class.spec.upgrade, &target, &before, &accounts, now);
    let findings: Vec<Finding> = ending.into_iter().chain(rollout.findings).collect();
    let status = HelpDeskClassStatus {
        observed_generation: class.metadata.generation,
        revision: Some(target.clone()),
        in_use_by: Some(in_use),
        accounts: i32::try_from(rollout.accounts).unwrap_or(i32::MAX),
        updated_accounts: i32::try_from(rollout.updated).unwrap_or(i32::MAX),
        rollout_started_at: rollout.started_at,
        upgrading: rollout.upgrading,
        failed: rollout::first_names(&rollout.failed),
        conditions: conditions::merge(&before.conditions, &findings, class.metadata.generation, now),
    };
    if status != before {
        write(&api, &class, &status).await?;
        publish(ctx, &class, &before, &status, &findings).await;
    }
    discard(ctx, &revisions, &all, name, &target).await?;
    Ok(Action::requeue(until(rollout.wake_at)))
}

/// The accounts whose plan names the class.
fn accounts_of(ctx: &ClassContext, class: &str) -> Vec<Arc<HelpDeskAccount>> {
    let plans: HashSet<String> =
        ctx.plans.state().iter().filter(|plan| plan.spec.class.as_deref() == Some(class)).map(|plan| plan.name_any()).collect();
    ctx.accounts.state().into_iter().filter(|account| plans.contains(&account.spec.plan)).collect()
}

/// The accounts whose plan names the class, and those that have a revision of it still.
fn in_use_by(ctx: &ClassContext, class: &str, users: &[Arc<HelpDeskAccount>]) -> InUseBy {
    let has = |account: &Arc<HelpDeskAccount>| account.status.as_ref().and_then(|s| s.app.as_ref()).is_some_and(|app| app.class == class);
    let all = ctx.accounts.state().into_iter().filter(has).chain(users.iter().cloned());
    let names: BTreeSet<String> = all.filter(|account| in_use::uses(account)).map(|account| account.name_any()).collect();
    InUseBy::of(names.into_iter().collect())
}

/// `None`: the account has no revision of the class.
fn facts(account: &HelpDeskAccount, class: &str, has_workloads: bool) -> Option<AccountFacts> {
    let status = account.status.as_ref()?;
    let pinned = status.app.as_ref().filter(|app| app.class == class)?;
    let created_at = account.creation_timestamp().map_or(Moment::UNIX_EPOCH, |at| at.0);
    let app = match app_ready(account) {
        Some(("True", _, since)) => AppState::Ready(since),
        Some((_, reason, since)) => AppState::NotReady(since, reason.to_owned()),
        None if has_workloads => AppState::NotReady(created_at, "Unknown".into()),
        None => AppState::None,
    };
    Some(AccountFacts {
        name: account.name_any(),
        revision: pinned.revision.clone(),
        takes_part: status.stage.is_some_and(Stage::is_open) && !account.spec.paused && account.metadata.deletion_timestamp.is_none(),
        created_at,
        app,
    })
}

async fn create(
    ctx: &ClassContext,
    api: &Api<ControllerRevision>,
    all: &[Arc<ControllerRevision>],
    name: &str,
    class: &HelpDeskClass,
) -> Result<String, Error> {
    let number = all.iter().map(|revision| revision.revision).max().unwrap_or_default() + 1;
    let wanted = revision::of(name, &class.spec, &ctx.settings.namespace, number)?;
    let made = wanted.name_any();
    match api.create(&PostParams::default(), &wanted).await {
        Ok(_) => tracing::info!(revision = made, "keeping a revision of the class"),
        // It was made before a crash.
        Err(kube::Error::Api(answer)) if answer.code == 409 => {}
        Err(error) => return Err(ClusterError::new("keep a revision of a class", error).into()),
    }
    Ok(made)
}

/// Deletes old revisions that no account has. An account whose status does not say yet what it has may have any of them.
async fn discard(
    ctx: &ClassContext,
    api: &Api<ControllerRevision>,
    all: &[Arc<ControllerRevision>],
    class: &str,
    target: &str,
) -> Result<(), Error> {
    let accounts = ctx.accounts.state();
    let has_told = |account: &HelpDeskAccount| account.status.as_ref().is_some_and(|s| s.app.is_some() || s.stage == Some(Stage::Expired));
    if !accounts_of(ctx, class).iter().all(|account| has_told(account)) {
        return Ok(());
    }
    let used: HashSet<&str> =
        accounts.iter().filter_map(|account| Some(account.status.as_ref()?.app.as_ref()?.revision.as_str())).collect();
    for name in revision::unused(all, class, REVISIONS_KEPT, |name| name == target || used.contains(name)) {
        tracing::info!(revision = name, "deleting a revision of the class that no account has");
        api.delete(&name, &DeleteParams::default())
            .await
            .map(drop)
            .or_else(ignore_not_found_or_conflict)
            .during("delete a revision of a class")?;
    }
    Ok(())
}

async fn write(api: &Api<HelpDeskClass>, class: &HelpDeskClass, status: &HelpDeskClassStatus) -> Result<(), Error> {
    let name = class.name_any();
    // With the version that was read: of two operators that both believe to lead, one writes.
    let patch = json!({
        "apiVersion": HelpDeskClass::api_version(&()),
        "kind": HelpDeskClass::kind(&()),
        "metadata": {"name": name, "uid": class.metadata.uid, "resourceVersion": class.metadata.resource_version},
        "status": status,
    });
    api.patch_status(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(patch))
        .await
        .during("write the status of a class")?;
    Ok(())
}

/// Tells that an upgrade began, has ended or has stopped.
async fn publish(
    ctx: &ClassContext,
    class: &HelpDeskClass,
    before: &HelpDeskClassStatus,
    status: &HelpDeskClassStatus,
    findings: &[Finding],
) {
    let reason = |status: &HelpDeskClassStatus| status.conditions.iter().find(|c| c.type_ == Type::Ready.name()).map(|c| c.reason.clone());
    if reason(before) == reason(status) || (before.accounts == 0 && status.accounts == 0) {
        return;
    }
    let stalled = findings.iter().find(|finding| finding.kind == Type::Stalled);
    let Some(told) = stalled.or_else(|| findings.iter().find(|finding| finding.kind == Type::Ready)) else { return };
    let kind = if stalled.is_some() { EventType::Warning } else { EventType::Normal };
    ctx.publish(&class.object_ref(&()), kind, &told.reason, &told.message, "Upgrade").await;
}
