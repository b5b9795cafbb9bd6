//! One reconcile of one server: whether it can be used, whether it offers the extensions that plans need, which databases
//! are orphaned.
//!
//! A health check every 30 s, which also shuts lost accounts on time ([`super::lost_accounts`]) and changes nothing else.
//! Every ten minutes also a check for orphaned databases and roles, which are reported and never dropped. That check
//! removes logins and scratch databases that movers left behind, which are the operator's own.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    core::PartialObjectMeta,
    runtime::{
        Controller, Predicate, PredicateConfig, WatchStreamExt,
        controller::Action,
        events::EventType,
        predicates,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use tokio::time::Instant;
use tracing::Span;

use super::lost_accounts::{self, Accounts, Check};
use crate::{
    api::{
        ACCEPT_IDENTITY, BackupPhase, ColdBackup, DatabaseServer, DatabaseServerStatus, HelpDeskAccount, HelpDeskClass, HelpDeskPlan,
        RELEASE_BRAKE, RESET_CLOCK,
        conditions::{self, Finding, Type},
        plan::Extension,
    },
    brake,
    clock::{self, Moment},
    context::{Context, Shared},
    controller::{self, Reconciler, about, cached},
    database::{ConnectedServer, Error, Holds, Lacking, ServerInfo, TenantLimits, extensions},
    mover::Clients,
    retry::Backoff,
    telemetry::LostLabel,
};

/// How often a server is checked.
const HEALTH_INTERVAL: Duration = Duration::from_secs(30);
/// The same for a server that cannot be used: many accounts may wait for it.
const NOT_READY_INTERVAL: Duration = Duration::from_secs(5);
/// The shortest time between two checks, when a lost account is to be shut.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(3);
/// How often orphans are looked for.
const ORPHAN_INTERVAL: Duration = Duration::from_secs(600);
/// The field manager of what this controller applies.
const FIELD_MANAGER: &str = "helpdesk-operator-servers";

struct ServerContext {
    shared: Arc<Context>,
    backoff: Backoff,
    /// Every account of the cluster, of every shard.
    accounts: Accounts,
    /// When orphans were looked for last, by server.
    orphans_checked: Mutex<HashMap<String, Instant>>,
}

impl std::ops::Deref for ServerContext {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.shared
    }
}

impl Reconciler for ServerContext {
    type Object = DatabaseServer;
    type Error = Error;
    const NAME: &'static str = "a database server";
    const CONTROLLER: &'static str = "DatabaseServer";

    fn span(server: &DatabaseServer) -> Span {
        tracing::info_span!("server", server = server.name_any())
    }

    fn backoff(&self) -> &Backoff {
        &self.backoff
    }

    fn reason(error: &Error) -> &'static str {
        error.reason()
    }

    async fn reconcile(&self, server: &DatabaseServer) -> Result<Action, Error> {
        reconcile(self, &server.name_any()).await
    }
}

/// Runs the controller of the DatabaseServers of this operator's shard.
pub async fn run(ctx: Shared) {
    let config = watcher::Config::default;
    let (servers, stream) =
        cached(&ctx.readiness, Api::<DatabaseServer>::all(ctx.client.clone()), config().labels(&ctx.settings.selector()));
    let stream =
        stream.applied_objects().predicate_filter(predicates::generation.combine(predicates::annotations), PredicateConfig::default());
    let secrets = ctx.secrets();
    let known = servers.clone();
    let named = move |secret: PartialObjectMeta<Secret>| {
        let name = secret.name_any();
        let names = |server: &DatabaseServer| server.spec.admin_secret == name || server.spec.tls.ca_secret.as_ref() == Some(&name);
        known.state().into_iter().filter(|s| names(s)).map(|s| ObjectRef::from_obj(&*s)).collect::<Vec<_>>()
    };
    let (accounts, all) = cached(&ctx.readiness, Api::<PartialObjectMeta<HelpDeskAccount>>::all(ctx.client.clone()), config());
    // Which extensions are wanted follows from plans and classes.
    let (all_servers, all_of_class) = (servers.clone(), servers.clone());
    let every = |servers: &Store<DatabaseServer>| servers.state().iter().map(|s| ObjectRef::from_obj(&**s)).collect::<Vec<_>>();
    let plans = ctx.readiness.watch(Api::<HelpDeskPlan>::all(ctx.client.clone()), config());
    let plans = plans.touched_objects().predicate_filter(predicates::generation, PredicateConfig::default());
    let classes = ctx.readiness.watch(Api::<HelpDeskClass>::all(ctx.client.clone()), config());
    let classes = classes.touched_objects().predicate_filter(predicates::generation, PredicateConfig::default());
    let triggers = Controller::for_stream(stream, servers)
        .watches_stream(secrets, named)
        .watches_stream(plans, move |_: HelpDeskPlan| every(&all_servers))
        .watches_stream(classes, move |_: HelpDeskClass| every(&all_of_class));
    let reconciler = Arc::new(ServerContext { shared: ctx, backoff: Backoff::default(), accounts, orphans_checked: Mutex::default() });
    futures::future::join(all.for_each(|_| std::future::ready(())), controller::run(triggers, reconciler)).await;
}

async fn reconcile(ctx: &ServerContext, name: &str) -> Result<Action, Error> {
    // Read from the API server, because the identity in status decides whether this is still the same server. A cache may
    // still have an identity that a person has just cleared.
    let api: Api<DatabaseServer> = Api::all(ctx.client.clone());
    let Some(server) = api.get_opt(name).await.map_err(|e| lost_accounts::unreadable(name, e))? else {
        ctx.servers.forget(name);
        count_lost(ctx, name, None);
        return Ok(Action::await_change());
    };
    let before = server.status.clone().unwrap_or_default();
    if before.observed_generation != server.metadata.generation {
        ctx.servers.invalidate(name);
    }
    // The trigger may be a changed Secret, so the connection is checked at once.
    ctx.servers.doubt(name);
    let now = (ctx.now)();
    let (facts, result) = observe(ctx, &server, &before, now).await;
    let requeue_at = facts.lost.as_ref().and_then(|lost| lost.requeue_at);
    let ready = match &result {
        Ok(identity) => readiness(&ctx.settings.clients, identity),
        Err(error) => {
            // The next reconcile connects again.
            ctx.servers.invalidate(name);
            Finding::no(Type::Ready, error.reason(), error.to_string())
        }
    };
    let interval = if result.is_ok() { HEALTH_INTERVAL } else { NOT_READY_INTERVAL };
    report(ctx, &api, &server, &before, facts, ready, now).await?;
    let health = about(interval, name, now);
    let until = |at: Moment| Duration::try_from(at.duration_since(now)).unwrap_or_default().max(SHORTEST_INTERVAL);
    Ok(Action::requeue(requeue_at.map_or(health, |at| until(at).min(health))))
}

fn count_lost(ctx: &Context, server: &str, counts: Option<(i64, i64, bool)>) {
    for state in ["open", "shut", "kept_open"] {
        let label = LostLabel { server: server.to_owned(), state };
        let Some((open, shut, too_many)) = counts else {
            ctx.telemetry.accounts_lost.remove(&label);
            continue;
        };
        let count = match state {
            "open" if !too_many => open,
            "kept_open" if too_many => open,
            "shut" => shut,
            _ => 0,
        };
        ctx.telemetry.accounts_lost.get_or_create(&label).set(count);
    }
}

/// Whether a server that answers is ready: a server whose version the movers cannot back up is not.
fn readiness(clients: &Clients, identity: &ServerInfo) -> Finding {
    if let Some(refusal) = clients.refusal(identity.major) {
        return Finding::no(Type::Ready, "NoClient", refusal);
    }
    let which = if clients.is_unknown() {
        "which versions the movers' image serves is not known: --client-majors tells the operator".to_owned()
    } else {
        format!("the movers' image serves {clients}")
    };
    Finding::yes(Type::Ready, "Connected", format!("PostgreSQL {} answers and its ledger is ours; {which}", identity.version))
}

/// What was read of a server. A field of the status that could not be read stays as it was.
struct Facts {
    status: DatabaseServerStatus,
    braked: Option<Finding>,
    extensions: Option<Finding>,
    connections: Option<Finding>,
    lost: Option<Check>,
}

/// Reads the server. Returns what was read, also if a later step failed.
async fn observe(
    ctx: &ServerContext,
    server: &DatabaseServer,
    before: &DatabaseServerStatus,
    now: Moment,
) -> (Facts, Result<ServerInfo, Error>) {
    let status = DatabaseServerStatus { conditions: Vec::new(), ..before.clone() };
    let mut facts = Facts { status, braked: None, extensions: None, connections: None, lost: None };
    let result = try_observe(ctx, server, &mut facts, now).await;
    (facts, result)
}

async fn try_observe(ctx: &ServerContext, server: &DatabaseServer, facts: &mut Facts, now: Moment) -> Result<ServerInfo, Error> {
    let name = server.name_any();
    let connected = ctx.telemetry.measure("database", "connect", ctx.servers.get(&name)).await?;
    let identity = ctx.telemetry.measure("database", "identify", connected.driver.identify()).await?;
    if identity.system_identifier != connected.identity.system_identifier {
        let (recorded, seen) = (connected.identity.system_identifier.clone(), identity.system_identifier);
        return Err(Error::IdentityChanged { recorded, seen });
    }
    accept_identity(ctx, server, &connected, &identity).await?;
    reset_clock(ctx, server, &connected, &identity, now).await?;
    facts.status.version = Some(identity.version.clone());
    facts.status.timeline = identity.timeline;
    facts.status.system_identifier = Some(identity.system_identifier.clone());
    facts.connections = Some(match identity.connections.scarcity() {
        Some((reason, message)) => Finding::yes(Type::Overcommitted, reason, message),
        None => Finding::no(Type::Overcommitted, "Fits", "the server has the connections that its tenants may open together"),
    });

    let tenants = connected.ledger.tenants().await?;
    facts.status.tenants = Some(i32::try_from(tenants).unwrap_or(i32::MAX));
    let released_at = server.annotations().get(RELEASE_BRAKE).and_then(|at| at.parse().ok());
    let since = brake::counted_since(&server.spec.brake, released_at, now);
    let steps = connected.ledger.destructive_steps_since(since).await?;
    let (braked, holds) = braked(server, tenants, steps);
    facts.braked = Some(braked);
    facts.status.braked_since = if holds { facts.status.braked_since.take().or(Some(conditions_time(now))) } else { None };

    let roll = connected.ledger.roll().await?;
    ctx.servers.remember_holds(&name, Holds::of(&roll));
    let lost = lost_accounts::check(ctx, &ctx.accounts, &connected, &roll, (&server.spec.brake, released_at), now).await;
    if lost.counts.is_some() {
        count_lost(ctx, &name, lost.counts);
    }
    facts.lost = Some(lost);

    let lacking = not_offered(ctx, server, &connected).await?;
    facts.status.missing_extensions = lacking.iter().map(|lacking| lacking.name.clone()).collect();
    facts.extensions = Some(offers(&lacking));
    if orphan_check_is_due(ctx, &name) {
        facts.status.orphans = ctx.telemetry.measure("database", "sweep", find_orphans(ctx, &connected)).await?;
        ctx.orphans_checked.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Instant::now());
    }
    Ok(identity)
}

/// Writes an identity that a person has accepted into the ledger, before the status shows it. A Frozen backup that was taken
/// under the identity of before is taken once more before its database is dropped.
async fn accept_identity(ctx: &Context, server: &DatabaseServer, connected: &ConnectedServer, identity: &ServerInfo) -> Result<(), Error> {
    let seen = &identity.system_identifier;
    let recorded = server.status.as_ref().and_then(|status| status.system_identifier.as_ref());
    if recorded == Some(seen) || server.annotations().get(ACCEPT_IDENTITY) != Some(seen) {
        return Ok(());
    }
    let carried = connected.ledger.carry_identity(seen).await?;
    let note = format!("the server identifies itself as {seen}, which a person has accepted; {carried} databases are recorded on it");
    ctx.publish(&server.object_ref(&()), EventType::Warning, "IdentityAccepted", &note, "Look").await;
    Ok(())
}

/// Corrects a highest recorded time that lies in the future, if a person asked for it.
async fn reset_clock(
    ctx: &Context,
    server: &DatabaseServer,
    connected: &ConnectedServer,
    identity: &ServerInfo,
    now: Moment,
) -> Result<(), Error> {
    let written = server.annotations().get(RESET_CLOCK).and_then(|at| at.parse().ok());
    let Some(mark) = connected.ledger.high_water().await? else { return Ok(()) };
    if !clock::is_to_be_reset(mark, written, now, clock::whole_seconds(identity.now)) {
        return Ok(());
    }
    connected.ledger.lower_high_water(now).await?;
    let note = format!("the latest time ever recorded was {mark}, and a person asked to correct it to {now}");
    ctx.publish(&server.object_ref(&()), EventType::Warning, "ClockReset", &note, "Look").await;
    Ok(())
}

/// What the server does not offer of the extensions of the plans in its region and of their classes.
async fn not_offered(ctx: &Context, server: &DatabaseServer, connected: &ConnectedServer) -> Result<Vec<Lacking>, Error> {
    let plans: Vec<HelpDeskPlan> = all(&Api::all(ctx.client.clone())).await?;
    let classes: Vec<HelpDeskClass> = all(&Api::all(ctx.client.clone())).await?;
    let wanted = wanted(&server.spec.region, &plans, &classes);
    if wanted.is_empty() {
        return Ok(vec![]);
    }
    let names: Vec<String> = wanted.iter().map(|extension| extension.name.clone()).collect();
    Ok(extensions::not_offered(&wanted, &connected.driver.offers(&names).await?))
}

fn offers(lacking: &[Lacking]) -> Finding {
    if lacking.is_empty() {
        return Finding::no(Type::ExtensionsMissing, "Offered", "every extension that plans of the region list can be made");
    }
    let text = lacking.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Finding::yes(Type::ExtensionsMissing, "NotOffered", text)
}

/// The extensions that plans with a placement in the region list, with those of their classes.
fn wanted(region: &str, plans: &[HelpDeskPlan], classes: &[HelpDeskClass]) -> Vec<Extension> {
    let here = plans.iter().filter(|plan| plan.spec.placements.iter().any(|p| p.region == region));
    here.fold(Vec::new(), |all, plan| {
        let class = classes.iter().find(|class| plan.spec.class == class.metadata.name && class.metadata.name.is_some());
        extensions::union(&all, &TenantLimits::of(&plan.spec.database, class.map(|class| &class.spec)).extensions)
    })
}

const fn conditions_time(now: Moment) -> crate::api::Time {
    k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now)
}

fn braked(server: &DatabaseServer, tenants: i64, steps: i64) -> (Finding, bool) {
    if brake::lets_through(&server.spec.brake, tenants, steps) {
        let text = format!("fewer than {} accounts were deleted within the window", brake::limit(&server.spec.brake, tenants));
        return (Finding::no(Type::Braked, "Released", text), false);
    }
    let text = format!(
        "{steps} steps that destroy data within the window: no other is taken until it has passed; if they are right, annotate this \
         DatabaseServer with {RELEASE_BRAKE} and the present time"
    );
    (Finding::yes(Type::Braked, "TooManyDeletions", text), true)
}

fn orphan_check_is_due(ctx: &ServerContext, name: &str) -> bool {
    let checked = ctx.orphans_checked.lock().unwrap_or_else(PoisonError::into_inner);
    checked.get(name).is_none_or(|at| at.elapsed() >= ORPHAN_INTERVAL)
}

/// Removes what movers left behind, and returns the orphans: databases and roles with the marker of an account that has no
/// object.
async fn find_orphans(ctx: &Context, connected: &ConnectedServer) -> Result<Vec<String>, Error> {
    let gone = connected.driver.drop_own_leftovers(&uids_with_movers(ctx).await?).await?;
    if !gone.is_empty() {
        tracing::info!(server = connected.name, removed = gone.join(", "), "removed what movers left behind");
    }
    connected.driver.remove_shells(&connected.ledger.gone().await?.into_iter().collect()).await?;
    let suspects = connected.driver.orphans(&uids_with_object(ctx, connected).await?).await?;
    if suspects.is_empty() {
        return Ok(suspects);
    }
    // An account may have been created between reading the objects and reading the databases. Its object is found when both
    // are read again.
    let again: BTreeSet<String> = connected.driver.orphans(&uids_with_object(ctx, connected).await?).await?.into_iter().collect();
    Ok(suspects.into_iter().filter(|name| again.contains(name)).collect())
}

/// The uids of all accounts in the ledger that have an object in the cluster.
async fn uids_with_object(ctx: &Context, connected: &ConnectedServer) -> Result<BTreeSet<String>, Error> {
    let api: Api<PartialObjectMeta<HelpDeskAccount>> = Api::all(ctx.client.clone());
    let objects: BTreeSet<String> = all(&api).await?.iter().filter_map(ResourceExt::uid).collect();
    let speakers = connected.ledger.speakers().await?;
    Ok(speakers.into_iter().filter(|(_, object)| objects.contains(object)).map(|(uid, _)| uid).collect())
}

/// The uids of accounts with a backup on which a mover may work.
async fn uids_with_movers(ctx: &Context) -> Result<BTreeSet<String>, Error> {
    let api: Api<ColdBackup> = Api::all(ctx.client.clone());
    let settled = |backup: &ColdBackup| {
        let phase = backup.status.as_ref().map(|status| status.phase);
        matches!(phase, Some(BackupPhase::Verified | BackupPhase::Erasing | BackupPhase::Erased))
    };
    Ok(all(&api).await?.into_iter().filter(|backup| !settled(backup)).map(|backup| backup.spec.account_uid).collect())
}

async fn all<K>(api: &Api<K>) -> Result<Vec<K>, Error>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + Resource,
{
    let mut params = ListParams::default().limit(500);
    let mut found = Vec::new();
    loop {
        let page = api.list(&params).await.map_err(|e| lost_accounts::unreadable("list of accounts and backups", e))?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(found),
        }
    }
}

async fn report(
    ctx: &Context,
    api: &Api<DatabaseServer>,
    server: &DatabaseServer,
    before: &DatabaseServerStatus,
    facts: Facts,
    ready: Finding,
    now: Moment,
) -> Result<(), Error> {
    let mut findings = vec![ready.clone()];
    match facts.braked {
        Some(braked) => findings.push(braked),
        None => findings.extend(previous(&before.conditions, Type::Braked)),
    }
    match facts.extensions {
        Some(offered) => findings.push(offered),
        None => findings.extend(previous(&before.conditions, Type::ExtensionsMissing)),
    }
    match facts.connections {
        Some(connections) => findings.push(connections),
        None => findings.extend(previous(&before.conditions, Type::Overcommitted)),
    }
    match facts.lost {
        Some(check) => findings.push(check.finding),
        None => findings.extend(previous(&before.conditions, Type::AccountsLost)),
    }
    let lost = findings.iter().find(|f| f.kind == Type::AccountsLost && f.holds == Some(true)).cloned();
    let generation = server.metadata.generation;
    let mut status = facts.status;
    status.observed_generation = generation;
    status.conditions = conditions::merge(&before.conditions, &findings, generation, now);
    if status == *before {
        return Ok(());
    }
    let name = server.name_any();
    let patch = serde_json::json!({
        "apiVersion": DatabaseServer::api_version(&()),
        "kind": DatabaseServer::kind(&()),
        "metadata": { "name": name, "uid": server.metadata.uid },
        "status": status,
    });
    api.patch_status(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(patch))
        .await
        .map_err(|e| lost_accounts::unreadable(&name, e))?;

    let has_changed = !before.conditions.iter().any(|c| c.type_ == Type::Ready.name() && c.reason == ready.reason);
    if has_changed {
        ctx.publish_readiness(&server.object_ref(&()), &ready).await;
    }
    if let Some(lost) = lost
        && !before.conditions.iter().any(|c| c.type_ == Type::AccountsLost.name() && c.reason == lost.reason)
    {
        ctx.publish(&server.object_ref(&()), EventType::Warning, &lost.reason, &lost.message, "Look").await;
    }
    Ok(())
}

/// The finding of before, for a condition that could not be read.
fn previous(before: &[crate::api::Condition], kind: Type) -> Option<Finding> {
    before.iter().find(|c| c.type_ == kind.name()).map(|c| {
        let holds = match c.status.as_str() {
            "True" => Some(true),
            "False" => Some(false),
            _ => None,
        };
        Finding { kind, holds, reason: c.reason.clone(), message: c.message.clone() }
    })
}
