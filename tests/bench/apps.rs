//! Tenants with apps: 20 with real pods and the others on a node that kwok fakes, and one wave of upgrades over all of them.

use std::{
    collections::HashSet,
    process::{Child, Command},
};

use helpdesk_operator::api::{HelpDeskAccount, HelpDeskClass, conditions};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Node, Pod, Secret},
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    cluster::{Cluster, OPERATOR, eventually, has_condition, setting},
    deadlines::server,
    number,
    operator::{self, Processors, Requests, Usage},
    plain::side_by_side,
    report::{Table, mib, tell},
    seen,
};

/// How many tenants have real pods.
const REAL: usize = 20;
/// The name of the node that is no machine.
const FAKE: &str = "kwok";

pub async fn run() {
    let count = number("BENCH_APPS", 200);
    let cluster = Cluster::connect().await;
    let _kwok = fake_node(&cluster).await;
    operator::count_requests(&cluster.client).await;
    server(&cluster).await;
    class(&cluster, "1").await;
    cluster.administrator_applies_plan_with("bench", json!({"trial": "30d"}), json!({"class": "bench"})).await;

    let mut table = Table::new(format!("apps: {count} tenants with an app, {REAL} of them with real pods"));
    tell(&format!("{REAL} tenants with real pods"));
    sign_up(&cluster, 0..REAL, &mut table, "with real pods").await;
    only_node(&cluster, FAKE).await;
    tell(&format!("{} tenants with faked pods", count - REAL));
    sign_up(&cluster, REAL..count, &mut table, "with faked pods").await;
    wave(&cluster, count, &mut table).await;
    table.print();
}

async fn class(cluster: &Cluster, version: &str) {
    cluster
        .administrator_applies(json!({"kind": "HelpDeskClass", "metadata": {"name": "bench"}, "spec": {
            "app": {"name": "echo", "version": version},
            "components": [{"name": "web", "port": 8080, "workload": {
                "image": setting("HELPDESK_TEST_ECHO_IMAGE"), "runAsUser": 65532, "cpu": "1m", "memory": "16Mi"}}],
            "routes": [{"path": "/", "component": "web", "audience": "public"}],
            "env": [{"name": "VERSION", "value": version}, {"name": "PGPASSWORD", "value": "${db.password}"}],
            "upgrade": {"minReadySeconds": 0}}}))
        .await;
}

/// Signs tenants up, and waits until their apps are ready.
async fn sign_up(cluster: &Cluster, which: std::ops::Range<usize>, table: &mut Table, what: &str) {
    let names: HashSet<String> = which.clone().map(|n| format!("app-{n}")).collect();
    let is_ready = |a: &HelpDeskAccount| has_condition(a, "AppReady", "True") && a.status.as_ref().is_some_and(|s| s.app.is_some());
    let ready = seen::accounts(cluster, names, is_ready).await;
    let (requests, processors, begun) = (Requests::now(&cluster.client).await, Processors::now(&cluster.client).await, seen::now());
    let apply = |n: usize| async move { (format!("app-{n}"), cluster.customer_signs_up(&format!("app-{n}"), "bench").await, seen::now()) };
    let applied = side_by_side(8, which.map(apply)).await;
    let ready = ready.await.unwrap();
    let waits: Vec<_> = applied.iter().map(|(name, _, at)| ready[name] - at).collect();
    table.spread(&format!("{what}, from apply to AppReady"), &waits);
    costs(cluster, &requests, applied.len(), table, what).await;
    table.figure(format!("{what}, processor time"), Processors::now(&cluster.client).await.tell(&processors));
    table.figure(format!("{what}, all ready after"), super::report::time(seen::now() - begun));
}

/// The operator's requests since then, and its memory.
async fn costs(cluster: &Cluster, since: &Requests, accounts: usize, table: &mut Table, what: &str) {
    let now = Requests::now(&cluster.client).await;
    for kind in ["writes", "reads"] {
        let times = now.of_operator(since, kind);
        #[allow(clippy::cast_precision_loss)]
        let each = times / accounts as f64;
        table.figure(format!("{what}, {kind} of the operator"), format!("{times} ({each:.1} an account)"));
    }
    let usage = Usage::of(&operator::pod(&cluster.client).await.unwrap()).unwrap();
    table.figure(format!("{what}, memory of the operator then"), mib(usage.resident().unwrap_or_default()));
}

/// Changes the class, and waits until every account has the change; then the same change by patches of Secrets and
/// Deployments, so many at once as the wave has.
async fn wave(cluster: &Cluster, count: usize, table: &mut Table) {
    let classes: Api<HelpDeskClass> = Api::all(cluster.client.clone());
    tell(&format!("one wave over {count} accounts"));
    let (requests, begun) = (Requests::now(&cluster.client).await, seen::now());
    class(cluster, "2").await;
    let generation = classes.get("bench").await.unwrap().metadata.generation;
    let is_over = async || {
        let status = classes.get("bench").await.unwrap().status.unwrap_or_default();
        let is_over = status.observed_generation == generation && conditions::holds(&status.conditions, conditions::Type::Ready);
        (is_over && usize::try_from(status.updated_accounts).unwrap() == count).then_some(())
    };
    while is_over().await.is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    let took = seen::now() - begun;
    costs(cluster, &requests, count, table, "the wave").await;

    tell("the same by patches");
    scale_operator(cluster, 0).await;
    let namespaces: Vec<_> = cluster
        .accounts()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .into_iter()
        .filter_map(|a| Some(a.status?.namespace?.name))
        .collect();
    let begun = seen::now();
    side_by_side(count.div_ceil(10), namespaces.iter().map(|namespace| patched(cluster, namespace))).await;
    let by_hand = seen::now() - begun;
    scale_operator(cluster, 1).await;
    table.compared(
        format!("the wave, a tenth of {count} accounts at once"),
        took,
        "patches of Secret and Deployment, as many at once",
        by_hand,
    );
}

/// Gives the app of one namespace another environment, and waits until its pods have it.
async fn patched(cluster: &Cluster, namespace: &str) {
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), namespace);
    let environment = json!({"stringData": {"VERSION": "3"}});
    secrets.patch("app-env", &PatchParams::default(), &Patch::Merge(environment)).await.unwrap();
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), namespace);
    let anew = json!({"spec": {"template": {"metadata": {"annotations": {"bench": "3"}}}}});
    let patched = deployments.patch("web", &PatchParams::default(), &Patch::Merge(anew)).await.unwrap().metadata.generation;
    eventually("its pods", || async {
        let status = deployments.get("web").await.unwrap().status.unwrap_or_default();
        let is_done = status.observed_generation >= patched
            && (status.updated_replicas, status.ready_replicas, status.replicas) == (Some(1), Some(1), Some(1));
        is_done.then_some(())
    })
    .await;
}

async fn scale_operator(cluster: &Cluster, replicas: i32) {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), OPERATOR);
    let scale = json!({"spec": {"replicas": replicas}});
    deployments.patch("helpdesk-operator", &PatchParams::default(), &Patch::Merge(scale)).await.unwrap();
    eventually("the operator's pods", || async {
        let status = deployments.get("helpdesk-operator").await.unwrap().status.unwrap_or_default();
        (status.available_replicas.unwrap_or_default() == replicas).then_some(())
    })
    .await;
}

/// Ends when it is dropped.
struct Kwok(Child);

impl Drop for Kwok {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Adds a node on which kwok says that every pod runs, and lets nothing be scheduled there yet.
async fn fake_node(cluster: &Cluster) -> Kwok {
    let kwok = Command::new(setting("BENCH_KWOK"))
        .args(["--kubeconfig", &setting("HELPDESK_TEST_KUBECONFIG"), "--manage-all-nodes=false"])
        .args(["--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake", "--node-lease-duration-seconds=40"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let room = json!({"cpu": "64", "memory": "256Gi", "pods": "2000"});
    let node = json!({"apiVersion": "v1", "kind": "Node",
        "metadata": {"name": FAKE, "annotations": {"kwok.x-k8s.io/node": "fake"}, "labels": {"kubernetes.io/hostname": FAKE}},
        "spec": {"unschedulable": true}, "status": {"allocatable": room, "capacity": room}});
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    nodes.patch(FAKE, &PatchParams::apply("bench").force(), &Patch::Apply(&node)).await.unwrap();
    nodes.patch_status(FAKE, &PatchParams::apply("bench").force(), &Patch::Apply(&node)).await.unwrap();
    let is_ready = |node: &Node| {
        let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
        conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
    };
    eventually("the faked node", || async { is_ready(&nodes.get(FAKE).await.unwrap()).then_some(()) }).await;
    Kwok(kwok)
}

/// Lets pods be scheduled on this node alone from now on.
async fn only_node(cluster: &Cluster, name: &str) {
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    for node in nodes.list(&ListParams::default()).await.unwrap() {
        let spec: Value = json!({"spec": {"unschedulable": node.name_any() != name}});
        nodes.patch(&node.name_any(), &PatchParams::default(), &Patch::Merge(spec)).await.unwrap();
    }
    let pods: Api<Pod> = Api::all(cluster.client.clone());
    let faked = pods.list(&ListParams::default().fields(&format!("spec.nodeName={name}"))).await.unwrap().items.len();
    assert_eq!(faked, 0, "pods were scheduled on {name} before");
}
