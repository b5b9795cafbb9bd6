//! From a deadline to nobody in, beside a server that is stopped, a store that is a black hole, and apps that never
//! answer. Whoever has nothing to do with them should notice nothing.

use std::{fs, path::Path, process::Command};

use helpdesk_operator::lifecycle::Stage;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{
    cluster::{Account, Cluster, find_condition, has_condition, setting},
    deadlines::{Fleet, no_movers, plan, server},
    number,
    plain::side_by_side,
    report::{Table, tell},
};

pub async fn run() {
    let (count, others) = (number("BENCH_ACCOUNTS", 50), number("BENCH_OTHERS", 40));
    let cluster = Cluster::connect().await;
    server(&cluster).await;
    no_movers(&cluster).await;
    plan(&cluster).await;
    tell(&format!("making {count} accounts that paid"));
    let mut fleet = Fleet::new(&cluster, count).await;
    fleet.bill("Active", |_| None).await;
    fleet.until_open().await;

    let title = format!("beside what hangs: {count} accounts with deadlines in the same second, an open session in each");
    let mut table = Table::new(title);
    tell("(a) alone");
    fleet.block(0).await.report(&mut table, "(a) alone");
    fleet.pay().await;
    fleet.until_open().await;

    let trouble = Trouble::begin(&cluster, others).await;
    let which = format!("(b) beside {others} due at a stopped server, {others} at a silent store, {others} silent apps");
    tell(&which);
    fleet.block(0).await.report(&mut table, &which);
    drop(trouble);
    table.print();
}

/// What hangs, until it is dropped.
struct Trouble {
    _stopped: [Stopped; 2],
    silent: tokio::task::JoinHandle<()>,
}

impl Drop for Trouble {
    fn drop(&mut self) {
        self.silent.abort();
    }
}

impl Trouble {
    async fn begin(cluster: &Cluster, others: usize) -> Self {
        prepare(cluster).await;
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let silent = tokio::spawn(async move {
            let mut held = vec![];
            while let Ok(connection) = listener.accept().await {
                held.push(connection);
            }
        });
        tell(&format!("making three times {others} accounts"));
        let away = sign_up(cluster, "away", "eu-2", others).await;
        let hole = sign_up(cluster, "hole", "eu-1", others).await;
        let apps = sign_up(cluster, "silent", "eu-1", others).await;
        for account in away.iter().chain(&hole).chain(&apps) {
            account.reaches(Stage::Active).await;
        }
        side_by_side(8, apps.iter().map(|account| be_silent(account, port))).await;
        for account in &apps {
            account.wait_until("seen to hang", |a| find_condition(a, "EdgeReady").is_some_and(|c| c.reason == "Unreachable")).await;
        }

        tell("stopping a server and a store");
        let stopped = [stop(cluster, "databases", "pg-eu-2").await, stop(cluster, "storage", "s3-eu-2").await];
        side_by_side(8, away.iter().chain(&hole).map(|account| account.billing_reports_past_due())).await;
        for account in &hole {
            account.reaches(Stage::Blocked).await;
        }
        for account in &away {
            account.wait_until("overdue", |a| has_condition(a, "Overdue", "True")).await;
        }
        Self { _stopped: stopped, silent }
    }
}

/// The servers, stores and plans of what will hang.
async fn prepare(cluster: &Cluster) {
    cluster
        .administrator_applies(json!({"kind": "DatabaseServer", "metadata": {"name": "pg-eu-2"}, "spec": {
            "engine": "postgresql", "region": "eu-2", "host": "pg-eu-2.databases.svc", "adminSecret": "pg-eu-2-admin",
            "tls": {"mode": "verify-full", "caSecret": "pg-ca"}, "capacity": 10000, "movers": 1,
            "brake": {"percent": 100, "atLeast": 10000}}}))
        .await;
    for (name, region) in [("hole", "eu-1"), ("away", "eu-2")] {
        cluster
            .administrator_applies(json!({"kind": "BackupStore", "metadata": {"name": name}, "spec": {
                "region": region, "signingRegion": "eu-1", "endpoint": "https://s3-eu-2.storage.svc", "bucket": "helpdesk-cold",
                "prefix": format!("{name}/"), "credentialsSecret": "s3-eu-2", "eraseCredentialsSecret": "s3-eu-2-erase",
                "caSecret": "s3-ca", "expectedBucketOwner": "100000000002"}}))
            .await;
    }
    cluster
        .administrator_applies(json!({"kind": "HelpDeskClass", "metadata": {"name": "echo"}, "spec": {
            "app": {"name": "echo", "version": "1"}, "components": [{"name": "web", "port": 8080}],
            "routes": [{"path": "/", "component": "web", "audience": "public"}]}}))
        .await;
    let windows = json!({"paymentGrace": "3s", "trial": "1d", "blocked": "1d", "terminated": "1d"});
    let placed = |region: &str, store: &str, gateway: Value| {
        let mut placement = json!({"region": region, "store": store, "domainBase": "helpdesk.example"});
        if !gateway.is_null() {
            placement["gateway"] = gateway;
        }
        json!({"placements": [placement]})
    };
    cluster.administrator_applies_plan_with("away", windows.clone(), placed("eu-2", "away", Value::Null)).await;
    cluster.administrator_applies_plan_with("hole", windows.clone(), placed("eu-1", "hole", Value::Null)).await;
    let mut web = placed("eu-1", "eu-cold", json!({"name": "edge", "namespace": "edge"}));
    web["class"] = json!("echo");
    cluster.administrator_applies_plan_with("silent", windows, web).await;
}

/// Accounts that paid, under the plan of the same name.
async fn sign_up(cluster: &Cluster, plan: &str, region: &str, count: usize) -> Vec<Account> {
    let one = |n: usize| async move {
        let name = format!("{plan}-{n}");
        // Of this operator's shard, whatever the region.
        cluster
            .administrator_applies(json!({"kind": "HelpDeskAccount", "metadata": {"name": name}, "spec": {
                "owner": {"name": "Ana", "email": format!("ana@{name}.example")}, "plan": plan, "region": region,
                "domain": {"slug": name}}}))
            .await;
        let account = Account { cluster: cluster.clone(), name, plan: plan.to_owned(), region: region.to_owned() };
        account.reaches(Stage::Trial).await;
        account.billing_reports_active().await;
        account
    };
    side_by_side(8, (0..count).map(one)).await
}

/// The account's app is this program, which takes connections and never answers.
async fn be_silent(account: &Account, port: u16) {
    let found = account.wait_until("its namespace", |a| a.status.as_ref().is_some_and(|s| s.namespace.is_some())).await;
    let namespace = found.status.unwrap().namespace.unwrap().name;
    let client = account.cluster.client.clone();
    let address = format!("{}.254", setting("HELPDESK_TEST_EDGE_ADDRESS").rsplit_once('.').unwrap().0);
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 8080}]}});
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web-silent", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}], "ports": [{"port": port}]});
    let params = PatchParams::apply("bench").force();
    Api::<Service>::namespaced(client.clone(), &namespace).patch("web", &params, &Patch::Apply(service)).await.unwrap();
    Api::<EndpointSlice>::namespaced(client, &namespace).patch("web-silent", &params, &Patch::Apply(slice)).await.unwrap();
}

/// Processes that were sent SIGSTOP, and go on when this is dropped.
struct Stopped(Vec<String>);

/// Stops all processes of a server's pod. Its service goes on to lead there, as an address outside of a cluster would.
async fn stop(cluster: &Cluster, namespace: &str, server: &str) -> Stopped {
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), namespace);
    let always = json!({"spec": {"publishNotReadyAddresses": true}});
    services.patch(server, &PatchParams::default(), &Patch::Merge(always)).await.unwrap();
    let pids = processes(&format!("{server}-0"));
    assert!(!pids.is_empty(), "no process of {server} was found");
    signal("-STOP", &pids);
    Stopped(pids)
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal("-CONT", &self.0);
    }
}

fn signal(which: &str, pids: &[String]) {
    Command::new("kill").arg(which).args(pids).status().unwrap();
}

/// The processes of a pod of this cluster, as this machine sees them.
fn processes(pod: &str) -> Vec<String> {
    let hostname = format!("HOSTNAME={pod}");
    let of_pod = |path: &Path| {
        let read = |file: &str| fs::read(path.join(file)).unwrap_or_default();
        let environment = read("environ");
        let is_its = environment.split(|byte| *byte == 0).any(|variable| variable == hostname.as_bytes());
        is_its && String::from_utf8_lossy(&read("cgroup")).contains("/helpdesk-operator/bench/")
    };
    let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    all.filter(|path| of_pod(path)).filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect()
}
