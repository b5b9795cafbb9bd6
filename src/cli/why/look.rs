//! Reads what the rules of `why` look at.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        batch::v1::Job,
        coordination::v1::Lease,
        core::v1::{Namespace, Pod, Secret},
        events::v1::Event,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    jiff::SignedDuration,
};
use kube::{
    Api, Client, ResourceExt,
    api::ListParams,
    core::DynamicObject,
    runtime::wait::{Condition, conditions::is_crd_established},
};

use super::{
    objects,
    scene::{Leadership, Operator, Scene},
};
use crate::{
    api::{
        ACCOUNT_LABEL, BackupPhase, BackupStore, ColdBackup, DatabaseServer, HelpDeskAccount, HelpDeskClass, HelpDeskPlan, SHARD_LABEL,
        definitions,
        plan::{GatewayRef, IssuerRef},
    },
    backup::keys,
    cli::{
        connection::Connection,
        seen::{Seen, exists, get, list},
    },
    clock::Moment,
    edge::objects::Kind,
    mover::job::COMPONENT,
};

/// Longer than the leader takes between two renewals of its Lease.
const RENEWAL: Duration = Duration::from_secs(5);

/// Reads everything that the account refers to.
pub(super) async fn scene(connection: &Connection, account: HelpDeskAccount, now: Moment) -> Scene {
    let Connection { client, operator_namespace } = connection;
    let name = account.name_any();
    let status = account.status.clone().unwrap_or_default();
    let of_account = ListParams::default().labels(&format!("{ACCOUNT_LABEL}={name}"));
    let of_movers = ListParams::default().labels(&format!("{ACCOUNT_LABEL}={name},{}={}", COMPONENT.0, COMPONENT.1));
    let everything = ListParams::default();
    let in_own = |client: &Client| Api::<Pod>::namespaced(client.clone(), operator_namespace);
    let jobs: Api<Job> = Api::namespaced(client.clone(), operator_namespace);
    let (plans, servers, stores, backups) =
        (all::<HelpDeskPlan>(client), all::<DatabaseServer>(client), all::<BackupStore>(client), all::<ColdBackup>(client));
    let (operator_pods, mover_pods) = (in_own(client), in_own(client));
    let (plan, servers, stores, backups, mover_jobs, mover_pods, missing_definitions, operator) = tokio::join!(
        get(&plans, &account.spec.plan, "the plan"),
        list(&servers, &everything, "DatabaseServers"),
        list(&stores, &everything, "BackupStores"),
        list(&backups, &of_account, "the account's ColdBackups"),
        list(&jobs, &of_movers, "the movers' Jobs"),
        list(&mover_pods, &of_movers, "the movers' pods"),
        missing_definitions(client),
        operator(client, operator_namespace, &account, operator_pods),
    );
    let class = match plan.there().and_then(|plan| plan.spec.class.clone()) {
        Some(class) => Some(get(&all::<HelpDeskClass>(client), &class, "the class").await),
        None => None,
    };
    let placement = plan.there().and_then(|plan| plan.spec.placements.iter().find(|p| p.region == account.spec.region).cloned());
    let gateway = match placement.as_ref().and_then(|placement| placement.gateway.as_ref()) {
        Some(wanted) => Some(gateway(client, wanted).await),
        None => None,
    };
    let issuer = match placement.as_ref().and_then(|placement| placement.certificate_issuer.as_ref()) {
        Some(wanted) => issuer(client, wanted).await,
        None => None,
    };
    let (namespace, pods) = match &status.namespace {
        Some(own) => {
            let namespaces: Api<Namespace> = Api::all(client.clone());
            let pods: Api<Pod> = Api::namespaced(client.clone(), &own.name);
            let (namespace, pods) =
                tokio::join!(get(&namespaces, &own.name, "the tenant's namespace"), list(&pods, &of_account, "the tenant's pods"));
            (Some(namespace), pods)
        }
        None => (None, Seen::Missing),
    };
    let mut scene = Scene {
        now,
        operator_namespace: operator_namespace.clone(),
        missing_definitions,
        account,
        plan,
        class,
        servers,
        stores,
        backups: backups.map(|all| own_backups(all, &name)),
        secrets: BTreeMap::new(),
        mover_jobs,
        mover_pods,
        gateway,
        issuer,
        namespace,
        pods,
        operator,
    };
    scene.secrets = secrets(client, &scene).await;
    scene
}

fn all<K>(client: &Client) -> Api<K>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>,
{
    Api::all(client.clone())
}

/// A backup is an account's by its spec; a label only finds it.
fn own_backups(all: Vec<ColdBackup>, account: &str) -> Vec<ColdBackup> {
    all.into_iter().filter(|backup| backup.spec.account == account).collect()
}

/// The definitions of the operator's kinds that are not there, or not established.
async fn missing_definitions(client: &Client) -> Seen<Vec<String>> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let installed = list(&api, &ListParams::default(), "CustomResourceDefinitions").await;
    installed.map(|installed| {
        let is_there = |name: &String| is_crd_established().matches_object(installed.iter().find(|found| found.name_any() == *name));
        definitions().iter().map(|(_, definition)| definition.name_any()).filter(|name| !is_there(name)).collect()
    })
}

/// The operator that looks after the account.
async fn operator(client: &Client, namespace: &str, account: &HelpDeskAccount, pods: Api<Pod>) -> Operator {
    let of_operators = ListParams::default().labels("app.kubernetes.io/name=helpdesk-operator,app.kubernetes.io/component=operator");
    let lease_name = match account.labels().get(SHARD_LABEL) {
        Some(shard) => format!("helpdesk-operator-{shard}"),
        None => "helpdesk-operator".to_owned(),
    };
    let (deployments, events) = (Api::<Deployment>::all(client.clone()), Api::<Event>::namespaced(client.clone(), namespace));
    let not_ready = ListParams::default().fields("reason=NotReady");
    let (deployments, pods, lease, events) = tokio::join!(
        list(&deployments, &of_operators, "Deployments of operators"),
        list(&pods, &of_operators, "the operator's pods"),
        leadership(client, namespace, &lease_name),
        list(&events, &not_ready, "events of the operator"),
    );
    Operator { deployments, pods, lease, lease_name, events }
}

/// Who leads. The clock of this machine may differ from the leader's, so a Lease that looks old is read again.
async fn leadership(client: &Client, namespace: &str, name: &str) -> Seen<Leadership> {
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let first = get(&api, name, "the operator's Lease").await;
    let Some(lease) = first.there().cloned() else {
        return first.map(|_| Leadership { holder: None, renewed_at: None, is_renewed: false });
    };
    let renewed = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.renew_time.clone()).map(|at| at.0);
    let holder = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).filter(|holder| !holder.is_empty());
    let lasts = SignedDuration::from_secs(lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(0).into());
    let now = crate::clock::precise_now();
    let is_fresh = holder(&lease).is_some() && renewed(&lease).is_some_and(|at| now.duration_since(at).abs() < lasts);
    let told = |lease: &Lease, is_renewed| Leadership {
        holder: holder(lease),
        renewed_at: renewed(lease).map(crate::clock::whole_seconds),
        is_renewed,
    };
    if is_fresh {
        return Seen::There(told(&lease, true));
    }
    tokio::time::sleep(RENEWAL).await;
    let again = get(&api, name, "the operator's Lease").await;
    again.map(|later| told(&later, holder(&later).is_some() && renewed(&later) != renewed(&lease)))
}

async fn gateway(client: &Client, wanted: &GatewayRef) -> Seen<serde_json::Value> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &wanted.namespace, &Kind::Gateway.resource());
    get(&api, &wanted.name, "the Gateway").await.map(|gateway| gateway.data)
}

/// Whether a ClusterIssuer of cert-manager is there; of other issuers nothing is known.
async fn issuer(client: &Client, wanted: &IssuerRef) -> Option<Seen<()>> {
    let resource = Kind::ClusterIssuer.resource();
    if wanted.kind != resource.kind || wanted.group != resource.group {
        return None;
    }
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    Some(get(&api, &wanted.name, "the ClusterIssuer").await.map(drop))
}

/// Whether the Secrets are there that the objects of the scene name.
async fn secrets(client: &Client, scene: &Scene) -> BTreeMap<(String, String), Seen<()>> {
    let own = &scene.operator_namespace;
    let mut names: Vec<(String, String)> = vec![];
    names.extend(scene.account.spec.owner.secret_ref.iter().map(|secret| (secret.namespace.clone(), secret.name.clone())));
    let servers = scene.servers.all().iter().filter(|server| server.spec.region == scene.account.spec.region);
    names.extend(
        servers.flat_map(|s| [Some(s.spec.admin_secret.clone()), s.spec.tls.ca_secret.clone()]).flatten().map(|name| (own.clone(), name)),
    );
    let needed = objects::stores(scene);
    let is_escrow = |name: &str| {
        scene.stores.all().iter().any(|s| needed.contains(&s.name_any()) && s.spec.key_escrow.as_ref().is_some_and(|e| e.store == name))
    };
    let stores = scene.stores.all().iter().filter(|store| needed.contains(&store.name_any()) || is_escrow(&store.name_any()));
    let of_store = |store: &BackupStore| {
        let spec = &store.spec;
        [Some(spec.credentials_secret.clone()), spec.erase_credentials_secret.clone(), spec.ca_secret.clone()]
    };
    names.extend(stores.flat_map(of_store).flatten().map(|name| (own.clone(), name)));
    let has_key = |backup: &&ColdBackup| backup.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Verified && s.erased_at.is_none());
    names.extend(scene.backups.all().iter().filter(has_key).map(|backup| (own.clone(), keys::key_secret(&backup.name_any()))));
    let has_database = scene.account.status.as_ref().and_then(|status| status.stage).is_some_and(|stage| stage.has_database());
    names.extend(objects::login_name(scene).filter(|_| has_database).map(|name| (own.clone(), name)));
    names.sort();
    names.dedup();
    let looks = names.into_iter().map(async |(namespace, name)| {
        let api: Api<Secret> = Api::namespaced(client.clone(), &namespace);
        let seen = exists(&api, &name, &format!("whether Secrets of the namespace {namespace} are there")).await;
        ((namespace, name), seen)
    });
    join_all(looks).await.into_iter().collect()
}
