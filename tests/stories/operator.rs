//! Operators that a story starts and kills itself. Each looks after a shard of its own, so no other story notices.

use std::{
    fs::File,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use helpdesk_operator::api::{HelpDeskPlan, SHARD_LABEL};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
    config::Kubeconfig,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    cluster::{Account, Cluster, OPERATOR, eventually, setting},
    postgres::Postgres,
};

/// A shard: a region of its own with a server, a store and an escrow, which its operator reaches from this machine.
#[derive(Clone)]
pub struct Shard {
    pub cluster: Cluster,
    pub name: String,
    /// Its server; `None`: one of another major version, which the cluster has.
    pub postgres: Option<Postgres>,
    /// The image that its movers run.
    pub image: String,
}

/// Which servers a shard uses: a PostgreSQL of its own, and the first or the second store. A story that stops a store uses
/// the second one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Servers {
    First,
    Second,
    /// PostgreSQL of this major version, and the first store.
    Major(u32),
}

impl Shard {
    /// Prepares the region `name`.
    pub async fn new(name: &str, servers: Servers) -> Self {
        let cluster = Cluster::connect().await;
        let number = if servers == Servers::Second { 2 } else { 1 };
        let s3 = format!("s3-eu-{number}");
        let endpoint = setting(&format!("HELPDESK_TEST_S3_EU_{number}_ENDPOINT"));
        let owner = setting(&format!("HELPDESK_TEST_S3_EU_{number}_ACCESS_KEY_ID"));

        let shard_label = json!({SHARD_LABEL: name});
        cluster
            .administrator_applies(
                json!({"kind": "BackupStore", "metadata": {"name": format!("{name}-escrow"), "labels": shard_label}, "spec": {
                "region": name, "signingRegion": "eu-1", "endpoint": endpoint, "bucket": "helpdesk-escrow", "prefix": format!("{name}/"),
                "credentialsSecret": format!("{s3}-escrow"), "caSecret": "s3-ca", "expectedBucketOwner": owner}}),
            )
            .await;
        cluster
            .administrator_applies(
                json!({"kind": "BackupStore", "metadata": {"name": format!("{name}-cold"), "labels": shard_label}, "spec": {
                "region": name, "signingRegion": "eu-1", "endpoint": endpoint, "bucket": "helpdesk-cold", "prefix": format!("{name}/"),
                "credentialsSecret": s3, "eraseCredentialsSecret": format!("{s3}-erase"), "caSecret": "s3-ca", "expectedBucketOwner": owner,
                "keyEscrow": {"store": format!("{name}-escrow"),
                    "recoveryRecipient": "age1tlk3wdrp5w3m5slgkmqexjys4tna4zha3ds5f55075r3g6xwlygsvjrl8s"}}}),
            )
            .await;
        let postgres = match servers {
            Servers::First | Servers::Second => {
                let postgres = Postgres::start(&cluster).await;
                postgres.administrator_writes_secret(&cluster, &format!("{name}-admin"), &postgres.host).await;
                server(&cluster, name, (name, &format!("{name}-admin")), &postgres.host).await;
                Some(postgres)
            }
            Servers::Major(major) => {
                administrator_copies_secret(&cluster, &format!("pg-{major}"), name).await;
                server(&cluster, name, (name, &format!("{name}-admin")), &setting(&format!("HELPDESK_TEST_PG_{major}_HOST"))).await;
                None
            }
        };
        let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), OPERATOR);
        let deployment = deployments.get("helpdesk-operator").await.unwrap();
        let image = deployment.spec.unwrap().template.spec.unwrap().containers[0].image.clone().unwrap();
        Self { cluster, name: name.to_owned(), postgres, image }
    }

    /// Another server of this region, under this name.
    pub async fn administrator_adds_server(&self, name: &str) -> Postgres {
        let postgres = Postgres::start(&self.cluster).await;
        postgres.administrator_writes_secret(&self.cluster, &format!("{name}-admin"), &postgres.host).await;
        self.administrator_applies_server(name, &format!("{name}-admin"), &postgres.host).await;
        postgres
    }

    /// Applies a `DatabaseServer` of this region, at this address and with this Secret.
    pub async fn administrator_applies_server(&self, name: &str, secret: &str, host: &str) {
        server(&self.cluster, &self.name, (name, secret), host).await;
    }

    /// Applies a plan of this region.
    pub async fn administrator_applies_plan(&self, windows: Value) {
        let mut lifecycle = json!({"trial": "1h", "paymentGrace": "1h", "blocked": "1h", "terminated": "1h", "coldBackup": "1h",
            "eraseDelay": "1h", "nameQuarantine": "1h", "holdNotice": "3s"});
        for (key, value) in windows.as_object().unwrap() {
            lifecycle[key] = value.clone();
        }
        self.cluster
            .administrator_applies(json!({"kind": "HelpDeskPlan", "metadata": {"name": self.name}, "spec": {
                "lifecycle": lifecycle,
                "backups": {"schedule": "0 0 1 1 *", "keep": "1h", "verify": "Restore"},
                "placements": [{"region": self.name, "store": format!("{}-cold", self.name), "domainBase": "helpdesk.example"}]}}))
            .await;
    }

    /// Changes when backups of the region's plan are due.
    pub async fn administrator_schedules_backups(&self, schedule: &str) {
        let plans: Api<HelpDeskPlan> = Api::all(self.cluster.client.clone());
        let patch = json!({"spec": {"backups": {"schedule": schedule}}});
        plans.patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// An account of this region under the region's plan.
    pub async fn customer_signs_up(&self, name: &str) -> Account {
        let account = Account { cluster: self.cluster.clone(), name: name.to_owned(), plan: self.name.clone(), region: self.name.clone() };
        account.administrator_applies(json!({})).await;
        account
    }

    /// Starts an operator for this shard. `settings` are added to its environment.
    pub fn start_operator(&self, replica: &str, settings: &[(&str, &str)]) -> Operator {
        self.start_operator_as("helpdesk-operator", replica, settings)
    }

    /// The same with the rights of another ServiceAccount in the operator's namespace.
    pub fn start_operator_as(&self, service_account: &str, replica: &str, settings: &[(&str, &str)]) -> Operator {
        let log = log_path(&format!("{}-{replica}", self.name));
        let sink = || Stdio::from(File::options().create(true).append(true).open(&log).unwrap());
        let child = Command::new(env!("CARGO_BIN_EXE_helpdesk-operator"))
            .args(["run", "--namespace", OPERATOR, "--shard", &self.name, "--image", &self.image])
            // An operator that an interrupted run left behind must not have this identity.
            .args(["--identity", &format!("{replica}-{}", std::process::id())])
            .args(["--metrics", "127.0.0.1:0", "--health", "127.0.0.1:0"])
            .env("KUBECONFIG", kubeconfig(service_account))
            // The movers run in an image: the PostgreSQL clients of this machine say nothing about it.
            .env("HELPDESK_OPERATOR_CLIENT_MAJORS", "17")
            .envs(settings.iter().copied())
            .stdout(sink())
            .stderr(sink())
            .spawn()
            .unwrap();
        Operator { child, log }
    }
}

/// Copies the admin Secret of a server of the cluster. It names the host that it is for, and a story's operator reaches the
/// server by its address.
async fn administrator_copies_secret(cluster: &Cluster, of: &str, name: &str) {
    let host = setting(&format!("HELPDESK_TEST_{}_HOST", of.to_uppercase().replace('-', "_")));
    let admin = cluster.secret(OPERATOR, &format!("{of}-admin")).await.unwrap();
    cluster.administrator_writes_admin_secret(&format!("{name}-admin"), &admin, &host).await;
}

/// Applies a `DatabaseServer` of a region, which its operator reaches from this machine.
async fn server(cluster: &Cluster, region: &str, (name, secret): (&str, &str), host: &str) {
    cluster
        .administrator_applies(json!({"kind": "DatabaseServer", "metadata": {"name": name, "labels": {SHARD_LABEL: region}}, "spec": {
            "engine": "postgresql", "region": region, "host": host, "adminSecret": secret,
            "tls": {"mode": "verify-full", "caSecret": "pg-ca"}, "capacity": 1000, "movers": 4,
            "brake": {"percent": 100, "atLeast": 10000}}}))
        .await;
}

/// Held by a story while it stops the second store.
pub static STOPPING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Writes a kubeconfig that impersonates a ServiceAccount, with its rights and no more.
fn kubeconfig(service_account: &str) -> PathBuf {
    let mut config = Kubeconfig::read_from(setting("HELPDESK_TEST_KUBECONFIG")).unwrap();
    for user in &mut config.auth_infos {
        user.auth_info.get_or_insert_default().impersonate = Some(format!("system:serviceaccount:{OPERATOR}:{service_account}"));
    }
    let path = log_path(&format!("{service_account}-kubeconfig"));
    // Written beside and moved, because stories run side by side.
    let fresh = path.with_extension(format!("{:?}", std::thread::current().id()).replace(['(', ')'], ""));
    std::fs::write(&fresh, serde_yaml_ng::to_string(&config).unwrap()).unwrap();
    std::fs::rename(&fresh, &path).unwrap();
    path
}

fn log_path(name: &str) -> PathBuf {
    // The name holds the process id, because the log of an earlier run would prove nothing.
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.log", std::process::id()))
}

/// A running operator. It is killed when this value is dropped.
pub struct Operator {
    child: Child,
    log: PathBuf,
}

impl Operator {
    /// Kills it with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until the process has crashed.
    pub async fn crashes(mut self) {
        let log = self.log.clone();
        let look = || {
            let ended = self.child.try_wait().unwrap().is_some();
            async move { ended.then_some(()) }
        };
        eventually(&format!("the crash of the operator that logs to {}", log.display()), look).await;
    }

    /// The address of one of its ports, `checks` or `metrics`. `None`: it does not serve yet.
    pub fn serves(&self, port: &str) -> Option<String> {
        let log = self.log();
        let is_it = |line: &Value| line["message"] == format!("serving {port}");
        let line = log.lines().rev().filter_map(|line| serde_json::from_str(line).ok()).find(is_it)?;
        Some(line["address"].as_str().unwrap().to_owned())
    }

    /// What it answers on one of its ports. `None`: it does not serve yet.
    pub async fn answers(&self, port: &str, path: &str) -> Option<String> {
        let mut connection = TcpStream::connect(self.serves(port)?).await.ok()?;
        connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        Some(answer)
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An administrator scales a StatefulSet. Waits until its pods run or are gone.
pub async fn administrator_scales(cluster: &Cluster, namespace: &str, name: &str, replicas: i32) {
    let sets: Api<k8s_openapi::api::apps::v1::StatefulSet> = Api::namespaced(cluster.client.clone(), namespace);
    let patch = json!({"spec": {"replicas": replicas}});
    sets.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    eventually(&format!("{name} at {replicas} replicas"), || async {
        let set = sets.get(name).await.unwrap();
        let status = set.status.clone().unwrap_or_default();
        let settled = status.replicas == replicas
            && status.ready_replicas.unwrap_or(0) == replicas
            && status.observed_generation == set.metadata.generation;
        settled.then_some(())
    })
    .await;
    if replicas == 0 {
        let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(cluster.client.clone(), namespace);
        eventually(&format!("the pod of {name} is gone"), || async {
            let all = pods.list(&Default::default()).await.unwrap();
            (!all.items.iter().any(|p| p.name_any().starts_with(name))).then_some(())
        })
        .await;
    }
}

/// Sleeps until a second after this time. For stories in which no operator or no server runs that could be watched.
pub async fn wait_until_after(at: &helpdesk_operator::api::Time) {
    let left = at.0.duration_since(helpdesk_operator::clock::precise_now());
    tokio::time::sleep(Duration::try_from(left).unwrap_or_default() + Duration::from_secs(1)).await;
}
