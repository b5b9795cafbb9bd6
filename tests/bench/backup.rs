//! A backup and a restore, beside pipes of pg_dump, zstd and an upload; and what memory a mover takes.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use helpdesk_operator::{
    api::{BackupPhase, ColdBackup},
    clock,
    lifecycle::Stage,
};
use k8s_openapi::{api::core::v1::Pod, jiff::SignedDuration};
use kube::{
    Api, ResourceExt,
    api::{ListParams, LogParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tokio::task::JoinHandle;

use super::{
    cluster::{Account, Cluster, OPERATOR, eventually, setting},
    deadlines::server,
    operator::Usage,
    plain::{in_pod, side_by_side},
    report::{Table, mib, seconds, tell, time},
    seen,
    tenant::superuser_logs_in,
};

/// How long a backup or a restore may take.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Where the pod that pipes and this machine meet.
const PIPE: &str = "/pipe";

pub async fn run() {
    let cluster = Cluster::connect().await;
    server(&cluster).await;
    cluster
        .administrator_applies_plan(
            "bench",
            json!({"trial": "1d", "paymentGrace": "3s", "blocked": "3s", "terminated": "3s", "coldBackup": "1d"}),
        )
        .await;
    let sizes = std::env::var("BENCH_GIB").unwrap_or_else(|_| "1".into());
    let pipe = Pipe::start(&cluster).await;
    for size in sizes.split_whitespace() {
        let gib: f64 = size.parse().unwrap_or_else(|_| panic!("BENCH_GIB={sizes} is no list of numbers"));
        one(&cluster, &pipe, gib).await;
    }
}

async fn one(cluster: &Cluster, pipe: &Pipe, gib: f64) {
    let mut table = Table::new(format!("backup: a database of {gib} GiB"));
    tell(&format!("filling a database with {gib} GiB"));
    #[allow(clippy::cast_possible_truncation)]
    let bytes = (gib * f64::from(1 << 30)) as i64;
    let account = cluster.customer_signs_up(&format!("large-{}", bytes >> 20), "bench").await;
    account.billing_reports_active().await;
    account.receives_credentials_in(Stage::Active).await;
    let database = account.get().await.status.unwrap().database.unwrap().name;
    let bytes = fill(&database, bytes).await;
    table.figure("the database on disk", mib(bytes.unsigned_abs()));
    let movers = Movers::watch(cluster);

    tell("the pipe");
    let by_pipe = pipe.dump(&database).await;
    tell("the mover");
    let begun = seen::now();
    let backup = back_up(cluster, &account).await;
    let all = seen::now() - begun;
    let status = backup.status.clone().unwrap();
    let pipe_is = "pg_dump | zstd -3 | upload";
    match movers.of(&backup.name_any()).and_then(|most| most.dumped) {
        Some(took) => table.compared("the mover's dump, encrypted and fingerprinted", took, pipe_is, by_pipe),
        None => table.figure("the mover's dump", "its log was not seen"),
    }
    if let (Some(began), Some(ended)) = (&status.started_at, &status.completed_at) {
        table.compared("startedAt to completedAt", ended.0.duration_since(began.0).as_secs_f64(), pipe_is, by_pipe);
    }
    if let (Some(ended), Some(proven)) = (&status.completed_at, &status.verified_at) {
        table.figure("completedAt to verifiedAt (read back, restored, compared)", time(proven.0.duration_since(ended.0).as_secs_f64()));
    }
    table.figure("from the ColdBackup to Verified", time(all));
    table.figure("stored", mib(status.bytes.unwrap_or(0).unsigned_abs()));

    tell("the pipe back");
    let back_by_pipe = pipe.restore(&database).await;
    tell("nobody pays: blocked, frozen, terminated, deleted");
    account.billing_reports_past_due().await;
    until(cluster, &account, Stage::Deleted).await;
    tell("somebody pays: restored");
    account.billing_reports_active().await;
    let begun = seen::now();
    until(cluster, &account, Stage::Active).await;
    table.compared("from payment to Active, restored", seen::now() - begun, "download | zstd -d | pg_restore", back_by_pipe);

    for (pod, most) in movers.stop() {
        table.figure(
            format!("{pod}: most memory"),
            format!("{} with cached files, {} resident when sampled", mib(most.charged), mib(most.resident)),
        );
    }
    table.print();
}

async fn until(cluster: &Cluster, account: &Account, stage: Stage) {
    let reached = seen::accounts(cluster, [account.name.clone()].into(), move |a| {
        a.status.as_ref().is_some_and(|s| s.stage == Some(stage) && s.stage_since.is_some())
    });
    reached.await.await.unwrap();
}

/// Fills several tables with what compresses to about half, as mail does. Returns the database's size.
async fn fill(database: &str, bytes: i64) -> i64 {
    const TABLES: i64 = 4;
    // A row takes 1,080 bytes.
    let rows = bytes / TABLES / 1080;
    let fill = |table: i64| async move {
        let sql = format!(
            "SET ROLE {database}_own; CREATE TABLE app.tickets_{table} (id bigint PRIMARY KEY, customer int, opened timestamptz, body text);
             INSERT INTO app.tickets_{table} SELECT n, n % 1000, '2026-01-01'::timestamptz + n * interval '1 second',
               repeat('Thank you for your message. ', 8) || (SELECT string_agg(md5((n * 31 + i)::text || '{table}'), ' ') FROM generate_series(1, 24) i)
             FROM generate_series(1, {rows}) n"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut superuser_logs_in(database).await).await.unwrap();
    };
    side_by_side(2, (1..=TABLES).map(fill)).await;
    let mut superuser = superuser_logs_in(database).await;
    sqlx::raw_sql("CHECKPOINT").execute(&mut superuser).await.unwrap();
    sqlx::query_scalar("SELECT pg_database_size(current_database())").fetch_one(&mut superuser).await.unwrap()
}

/// Takes a backup as a person would, and waits until it is proven.
async fn back_up(cluster: &Cluster, account: &Account) -> ColdBackup {
    let uid = account.get().await.uid().unwrap();
    let name = format!("{}-by-hand", account.name);
    cluster
        .administrator_applies(
            json!({"kind": "ColdBackup", "metadata": {"name": name, "labels": {"helpdesk-operator.io/account": account.name}}, "spec": {
            "account": account.name, "accountUID": uid, "store": "eu-cold", "reason": "Manual", "verify": "Restore",
            "expiresAt": (clock::now() + SignedDuration::from_hours(12)).to_string()}}),
        )
        .await;
    let begun = Instant::now();
    loop {
        let backup = cluster.backups().get(&name).await.unwrap();
        let phase = backup.status.as_ref().map(|s| s.phase).unwrap_or_default();
        if phase == BackupPhase::Verified {
            return backup;
        }
        assert!(phase != BackupPhase::Failed && begun.elapsed() < PATIENCE, "{name}: {:#?}", backup.status);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// How long a mover says that its work took, in the newest line of its log with this message.
async fn logged(pods: &Api<Pod>, pod: &str, message: &str) -> Option<f64> {
    let text = pods.logs(pod, &LogParams::default()).await.ok()?;
    let mut lines = text.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok());
    lines.rfind(|l| l["fields"]["message"] == message)?["fields"]["seconds"].as_f64()
}

fn movers() -> ListParams {
    ListParams::default().labels("app.kubernetes.io/component=mover")
}

/// What was seen of one mover: its memory at the most, and what it said.
#[derive(Clone, Copy, Default)]
struct Most {
    charged: u64,
    resident: u64,
    /// Seconds, as the mover tells.
    dumped: Option<f64>,
}

/// Looks after the memory of every mover while it runs.
struct Movers {
    watching: JoinHandle<()>,
    seen: std::sync::Arc<std::sync::Mutex<HashMap<String, Most>>>,
}

impl Movers {
    fn watch(cluster: &Cluster) -> Self {
        let seen = std::sync::Arc::<std::sync::Mutex<HashMap<String, Most>>>::default();
        let (pods, shared) = (Api::<Pod>::namespaced(cluster.client.clone(), OPERATOR), seen.clone());
        let watching = tokio::spawn(async move {
            let mut groups: HashMap<String, Usage> = HashMap::new();
            loop {
                for pod in pods.list(&movers()).await.map(|l| l.items).unwrap_or_default() {
                    if let Some(usage) = Usage::of(&pod) {
                        groups.insert(pod.name_any(), usage);
                    }
                    if let Some(took) = logged(&pods, &pod.name_any(), "dumped").await {
                        shared.lock().unwrap().entry(pod.name_any()).or_default().dumped = Some(took);
                    }
                }
                for _ in 0..10 {
                    for (name, usage) in &groups {
                        let mut seen = shared.lock().unwrap();
                        let most = seen.entry(name.clone()).or_default();
                        most.charged = most.charged.max(usage.most().unwrap_or(0));
                        most.resident = most.resident.max(usage.resident().unwrap_or(0));
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        });
        Self { watching, seen }
    }

    /// What was seen of the mover of a backup.
    fn of(&self, backup: &str) -> Option<Most> {
        let seen = self.seen.lock().unwrap();
        seen.iter().find(|(pod, _)| pod.starts_with(&format!("backup-{backup}"))).map(|(_, most)| *most)
    }

    fn stop(self) -> Vec<(String, Most)> {
        self.watching.abort();
        let mut all: Vec<_> = self.seen.lock().unwrap().iter().map(|(name, most)| (name.clone(), *most)).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

/// A pod of the operator's image, in which the PostgreSQL tools run; the rest of the pipe runs on this machine, which
/// has zstd and boto3.
struct Pipe {
    folder: PathBuf,
}

impl Pipe {
    async fn start(cluster: &Cluster) -> Self {
        let folder = Path::new(&setting("HELPDESK_TEST_CA")).parent().unwrap().join("data/bench");
        std::fs::create_dir_all(&folder).unwrap();
        sh(&format!("chmod 777 {0} && mkfifo -m 666 {0}/fifo", folder.display()));
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "databases");
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pipe"}, "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "pipe", "image": "localhost/helpdesk-operator:dev", "imagePullPolicy": "Never",
                "command": ["sleep", "infinity"], "volumeMounts": [{"name": "pipe", "mountPath": PIPE}],
                "env": [{"name": "PGHOST", "value": "pg-eu-1.databases.svc"}, {"name": "PGUSER", "value": "postgres"}, {"name": "PGSSLMODE", "value": "require"},
                    {"name": "PGPASSWORD", "valueFrom": {"secretKeyRef": {"name": "pg-eu-1", "key": "superuser-password"}}}]}],
            "volumes": [{"name": "pipe", "hostPath": {"path": folder, "type": "Directory"}}]}});
        pods.patch("pipe", &PatchParams::apply("bench"), &Patch::Apply(pod)).await.unwrap();
        eventually("a pod of the operator's image", || async {
            let phase = pods.get("pipe").await.unwrap().status.and_then(|s| s.phase);
            (phase.as_deref() == Some("Running")).then_some(())
        })
        .await;
        Self { folder }
    }

    /// Seconds of a dump into the bucket.
    async fn dump(&self, database: &str) -> f64 {
        let there = format!("pg_dump --format=custom --compress=0 {database} >{PIPE}/fifo");
        let here = format!("zstd -3 --quiet --stdout <{} | {} put {}", self.fifo(), store(), key(database));
        both(there, here).await
    }

    /// Seconds of a restore from the bucket, into a new database.
    async fn restore(&self, database: &str) -> f64 {
        let there = format!(
            "createdb --template=template0 {database}_pipe && pg_restore --no-owner --no-acl --dbname={database}_pipe <{PIPE}/fifo"
        );
        let here = format!("{} get {} | zstd --decompress --quiet --stdout >{}", store(), key(database), self.fifo());
        let took = both(there, here).await;
        let drop = format!("DROP DATABASE {database}_pipe");
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut superuser_logs_in("postgres").await).await.unwrap();
        took
    }

    fn fifo(&self) -> String {
        self.folder.join("fifo").display().to_string()
    }
}

fn store() -> String {
    format!("{} {}/tests/bench/store.py", setting("HELPDESK_TEST_PYTHON"), env!("CARGO_MANIFEST_DIR"))
}

fn key(database: &str) -> String {
    format!("{} helpdesk-cold bench/{database}.dump.zst", setting("HELPDESK_TEST_S3_EU_1_ENDPOINT"))
}

/// Runs both ends of a pipe, until both have ended.
async fn both(there: String, here: String) -> f64 {
    let begun = Instant::now();
    let there = tokio::task::spawn_blocking(move || in_pod("databases", "pipe", &["bash", "-o", "errexit", "-c", &there], None));
    let here = tokio::task::spawn_blocking(move || sh(&here));
    there.await.unwrap();
    here.await.unwrap();
    seconds(begun.elapsed())
}

fn sh(script: &str) {
    let status = Command::new("bash")
        .args(["-o", "pipefail", "-ec", script])
        .env("AWS_ACCESS_KEY_ID", setting("HELPDESK_TEST_S3_EU_1_ACCESS_KEY_ID"))
        .env("AWS_SECRET_ACCESS_KEY", setting("HELPDESK_TEST_S3_EU_1_SECRET_ACCESS_KEY"))
        .env("AWS_CA_BUNDLE", setting("HELPDESK_TEST_CA"))
        .status()
        .unwrap();
    assert!(status.success(), "{script}: {status}");
}
