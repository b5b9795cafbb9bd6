//! Reads what a report is made of. No Secret is read.

use http::Request;
use k8s_openapi::{
    api::{apps::v1::Deployment, batch::v1::Job, coordination::v1::Lease, core::v1::Pod, events::v1::Event},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, LogParams},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde::Serialize;
use serde_json::Value;

use super::redact::without_values;
use crate::{
    api::{ACCOUNT_LABEL, GROUP, definitions},
    cli::{
        connection::Connection,
        seen::{Seen, list},
    },
    clock::Moment,
    mover::job::COMPONENT,
};

/// The port of the operator's metrics.
const METRICS: u16 = 8080;
/// The namespace of events about objects without a namespace.
const EVENTS: &str = "default";

/// What a report is made of, as the API server has it.
pub(super) struct Collected {
    /// When.
    pub at: Moment,
    /// The operator's kinds, each with its objects.
    pub objects: Vec<(String, Seen<Vec<Value>>)>,
    /// The version of the API server.
    pub version: Seen<Value>,
    /// The definitions of the operator's kinds: their names, versions and conditions.
    pub definitions: Seen<Vec<Value>>,
    /// The Deployments of operators.
    pub deployments: Seen<Vec<Value>>,
    /// The pods of operators and movers; of their specs only what runs.
    pub pods: Seen<Vec<Value>>,
    /// The Jobs of movers, without their specs.
    pub jobs: Seen<Vec<Value>>,
    /// The pods of tenants, without their specs.
    pub tenants: Seen<Vec<Value>>,
    /// The Leases in the operator's namespace.
    pub leases: Seen<Vec<Value>>,
    /// Events about these.
    pub events: Seen<Vec<Value>>,
    /// The ends of the logs of operators, by pod.
    pub logs: Vec<(String, Seen<String>)>,
    /// The metrics of operators, by pod.
    pub metrics: Vec<(String, Seen<String>)>,
}

/// Reads everything. What may not be read is noted, and keeps nothing else from being read.
pub(super) async fn collect(connection: &Connection, lines: i64, now: Moment) -> Collected {
    let (client, own) = (&connection.client, &connection.operator_namespace);
    let everything = ListParams::default();
    let of_operator = ListParams::default().labels("app.kubernetes.io/name=helpdesk-operator");
    let movers = ListParams::default().labels(&format!("{}={}", COMPONENT.0, COMPONENT.1));
    let of_tenants = ListParams::default().labels(ACCOUNT_LABEL);
    let mut objects = Vec::new();
    for (_, definition) in definitions() {
        let names = &definition.spec.names;
        let version = &definition.spec.versions[0].name;
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, version, &names.kind), &names.plural);
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        tell(&names.plural);
        objects.push((names.kind.clone(), values(list(&api, &everything, &names.plural).await)));
    }
    tell("the operator");
    let deployments = values(list(&Api::<Deployment>::all(client.clone()), &of_operator, "Deployments of operators").await);
    let pods: Seen<Vec<Pod>> = list(&Api::namespaced(client.clone(), own), &of_operator, "pods in the operator's namespace").await;
    let (mut logs, mut metrics) = (Vec::new(), Vec::new());
    for pod in pods.all().iter().filter(|pod| is_operator(pod)) {
        tell(&format!("the log of {}", pod.name_any()));
        logs.extend(logs_of(client, own, pod, lines).await);
        metrics.push((pod.name_any(), metrics_of(client, own, &pod.name_any()).await));
    }
    tell("events");
    let jobs = values(list(&Api::<Job>::namespaced(client.clone(), own), &movers, "the movers' Jobs").await);
    let tenants = values(list(&Api::<Pod>::all(client.clone()), &of_tenants, "pods of tenants").await);
    let without_spec =
        |seen: Seen<Vec<Value>>| seen.map(|all| all.into_iter().map(|object| part(&object, &["metadata", "status"])).collect());
    Collected {
        at: now,
        objects,
        version: Seen::of(client.apiserver_version().await, "the version of the API server").map(|version| value(&version)),
        definitions: definitions_of(client).await,
        deployments: deployments.map(|all| all.into_iter().map(without_values).collect()),
        pods: values(pods).map(|all| all.into_iter().map(without_values).collect()),
        jobs: without_spec(jobs),
        tenants: without_spec(tenants),
        leases: values(list(&Api::<Lease>::namespaced(client.clone(), own), &everything, "Leases").await),
        events: events(client, own).await,
        logs,
        metrics,
    }
}

fn tell(what: &str) {
    eprintln!("reading {what} …");
}

fn value(object: &impl Serialize) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

fn values<K: Serialize>(seen: Seen<Vec<K>>) -> Seen<Vec<Value>> {
    seen.map(|all| all.iter().map(value).collect())
}

/// Some fields of an object.
fn part(object: &Value, keys: &[&str]) -> Value {
    Value::Object(keys.iter().filter_map(|key| Some(((*key).to_owned(), object.get(*key)?.clone()))).collect())
}

/// An operator, and no mover or mail intake: the log of the intake is full of addresses.
fn is_operator(pod: &Pod) -> bool {
    pod.labels().get("app.kubernetes.io/component").is_some_and(|component| component == "operator")
}

/// The end of a pod's log, and of the container before it, if there was one.
async fn logs_of(client: &Client, namespace: &str, pod: &Pod, lines: i64) -> Vec<(String, Seen<String>)> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let name = pod.name_any();
    let params = LogParams { tail_lines: Some(lines), timestamps: false, ..LogParams::default() };
    let mut all = vec![(name.clone(), Seen::of(api.logs(&name, &params).await, &format!("the log of {name}")))];
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    if statuses.into_iter().flatten().any(|container| container.restart_count > 0) {
        let previous = LogParams { previous: true, ..params };
        all.push((
            format!("{name}-previous"),
            Seen::of(api.logs(&name, &previous).await, &format!("the log before the restart of {name}")),
        ));
    }
    all
}

/// The metrics of a pod, through the API server.
async fn metrics_of(client: &Client, namespace: &str, pod: &str) -> Seen<String> {
    let what = format!("the metrics of {pod}");
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{METRICS}/proxy/metrics");
    match Request::get(path).body(vec![]) {
        Ok(request) => Seen::of(client.request_text(request).await, &what),
        Err(error) => Seen::Unseen(format!("{what}: {error}")),
    }
}

async fn definitions_of(client: &Client) -> Seen<Vec<Value>> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let ours = |definition: &CustomResourceDefinition| definition.spec.group == GROUP;
    let short = |definition: &CustomResourceDefinition| {
        let versions: Vec<&str> = definition.spec.versions.iter().map(|version| version.name.as_str()).collect();
        serde_json::json!({"name": definition.name_any(), "labels": definition.labels(), "versions": versions, "status": value(&definition.status)})
    };
    list(&api, &ListParams::default(), "CustomResourceDefinitions").await.map(|all| all.iter().filter(|one| ours(one)).map(short).collect())
}

/// Events about the operator's kinds, and those in its namespace.
async fn events(client: &Client, own: &str) -> Seen<Vec<Value>> {
    let (about, inside) = (Api::<Event>::namespaced(client.clone(), EVENTS), Api::<Event>::namespaced(client.clone(), own));
    let (about, inside) = (
        list(&about, &ListParams::default(), "events about accounts").await,
        list(&inside, &ListParams::default(), "events in the operator's namespace").await,
    );
    let ours =
        |event: &&Event| event.regarding.as_ref().and_then(|r| r.api_version.as_ref()).is_some_and(|version| version.starts_with(GROUP));
    let short = |event: &Event| {
        serde_json::json!({"about": value(&event.regarding), "type": event.type_, "reason": event.reason, "note": event.note,
            "action": event.action, "at": value(&event.event_time), "series": value(&event.series)})
    };
    match (about, inside) {
        (Seen::Unseen(why), Seen::Unseen(_)) => Seen::Unseen(why),
        (about, inside) => Seen::There(about.all().iter().filter(ours).map(short).chain(inside.all().iter().map(short)).collect()),
    }
}
