//! Servers and stores that accept connections and never answer, beside others that do.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use helpdesk_operator::{
    api::{BackupPhase, BackupReason, DatabaseServer, SHARD_LABEL},
    lifecycle::Stage,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::{
    cluster::{Account, eventually, find_condition, has_condition, setting},
    operator::{Servers, Shard},
    postgres::Postgres,
};

/// A TCP proxy to a server. While it is silent it accepts connections and forwards nothing.
struct Proxy {
    port: u16,
    silent: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let silent = Arc::new(AtomicBool::new(false));
        let falls = Arc::clone(&silent);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (falls, server) = (Arc::clone(&falls), server.clone());
                tokio::spawn(async move {
                    while falls.load(Ordering::SeqCst) {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    let Ok(far) = TcpStream::connect(&server).await else { return };
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    tokio::join!(forward(near_in, far_out, &falls), forward(far_in, near_out, &falls));
                });
            }
        });
        Self { port, silent, task }
    }

    fn falls_silent(&self) {
        self.silent.store(true, Ordering::SeqCst);
    }

    fn speaks_again(&self) {
        self.silent.store(false, Ordering::SeqCst);
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, silent: &AtomicBool) {
    let mut part = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut part).await {
        while silent.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        if to.write_all(&part[..read]).await.is_err() {
            return;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn administrator_drains(shard: &Shard, server: &str, draining: bool) {
    let servers: Api<DatabaseServer> = Api::all(shard.cluster.client.clone());
    let patch = json!({"spec": {"draining": draining}});
    servers.patch(server, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    // The operator places by what its watch told it.
    tokio::time::sleep(Duration::from_secs(1)).await;
}

async fn customer_signs_up(shard: &Shard, name: &str, plan: &str) -> Account {
    let account = Account { cluster: shard.cluster.clone(), name: name.to_owned(), plan: plan.to_owned(), region: shard.name.clone() };
    account.administrator_applies(json!({})).await;
    account
}

fn plan(shard: &Shard, name: &str, store: &str) -> Value {
    json!({"kind": "HelpDeskPlan", "metadata": {"name": name}, "spec": {
        "lifecycle": {"trial": "1h", "paymentGrace": "3s", "blocked": "1h", "terminated": "1h", "coldBackup": "1h", "eraseDelay": "1h",
            "nameQuarantine": "1h", "holdNotice": "3s"},
        "backups": {"schedule": "0 0 1 1 *", "keep": "1h", "verify": "Restore"},
        "placements": [{"region": shard.name, "store": store, "domainBase": "helpdesk.example"}]}})
}

#[tokio::test]
async fn a_server_that_never_answers_keeps_no_account_of_another_waiting_and_what_is_due_on_it_is_told() {
    // Given two servers, one of them behind a proxy, and an operator that does two reconciles at once.
    let shard = Shard::new("silence", Servers::First).await;
    let away = Postgres::start(&shard.cluster).await;
    let proxy = Proxy::to(format!("{}:5432", away.host)).await;
    away.administrator_writes_secret(&shard.cluster, "silence-away-admin", "127.0.0.1").await;
    shard
        .cluster
        .administrator_applies(
            json!({"kind": "DatabaseServer", "metadata": {"name": "silence-away", "labels": {SHARD_LABEL: shard.name}}, "spec": {
            "engine": "postgresql", "region": shard.name, "host": "127.0.0.1", "port": proxy.port, "adminSecret": "silence-away-admin",
            "tls": {"mode": "verify-full", "caSecret": "pg-ca"}, "capacity": 1000, "movers": 4,
            "brake": {"percent": 100, "atLeast": 10000}}}),
        )
        .await;
    shard.cluster.administrator_applies(plan(&shard, "silence", "silence-cold")).await;
    let operator = shard
        .start_operator("only", &[("HELPDESK_OPERATOR_CONCURRENCY", "2"), ("HELPDESK_OPERATOR_RUNBOOK_BASE_URL", "https://git.example")]);

    // Given six tenants who pay on the server behind the proxy, and one on the other server.
    administrator_drains(&shard, "silence", true).await;
    let mut away = vec![];
    for i in 0..6 {
        away.push(customer_signs_up(&shard, &format!("silence-away-{i}"), "silence").await);
    }
    for account in &away {
        let found = account.wait_until("Ready", |a| has_condition(a, "Ready", "True")).await;
        assert_eq!(found.status.unwrap().database.unwrap().server, "silence-away");
        account.billing_reports_active().await;
        account.reaches(Stage::Active).await;
    }
    administrator_drains(&shard, "silence", false).await;
    administrator_drains(&shard, "silence-away", true).await;
    let well = customer_signs_up(&shard, "silence-well", "silence").await;
    well.reaches(Stage::Trial).await;
    well.billing_reports_active().await;
    well.reaches(Stage::Active).await;

    // When the proxy falls silent, and a payment of each of the six fails.
    proxy.falls_silent();
    for account in &away {
        account.billing_reports_past_due().await;
    }

    // Then each of the six says that it is overdue and that its database is Unknown.
    for account in &away {
        let overdue = account.wait_until("Overdue", |a| has_condition(a, "Overdue", "True")).await;
        assert!(has_condition(&overdue, "DatabaseReady", "Unknown"), "{:?}", find_condition(&overdue, "DatabaseReady"));
        let status = overdue.status.unwrap();
        assert_eq!(status.next_stage, Some(Stage::Blocked));
        // Its database or its ledger, which are on the same server.
        assert!(status.last_error.as_ref().is_some_and(|last| last.reason.ends_with("Unreachable")), "{:?}", status.last_error);
    }

    // Then each names its server with the server's own reason, and where to read on.
    for account in &away {
        let told = account.wait_until("the server", |a| !a.status.as_ref().unwrap().waiting_for.is_empty()).await.status.unwrap();
        let first = &told.waiting_for[0];
        assert_eq!((&*first.kind, &*first.name, &*first.reason), ("DatabaseServer", "silence-away", "Unreachable"));
        assert_eq!(told.runbook.as_deref(), Some("https://git.example/docs/operations.md#databaseserver"));
    }

    // Then the log has a line for the first of their failures, and one a minute for all others.
    let told = |message: &str| operator.log().lines().filter(|line| line.contains(message)).count();
    eventually("failures that are counted together", || async { (told("failures with one cause go on") > 0).then_some(()) }).await;
    assert_eq!(told("an account could not be taken further"), 1, "the log says it once");

    // Then the seventh is Blocked and Active again within seconds, three times.
    for _ in 0..3 {
        let begun = Instant::now();
        well.billing_reports_past_due().await;
        well.reaches(Stage::Blocked).await;
        assert!(begun.elapsed() < Duration::from_secs(12), "a block waited {:?} for a server that hangs", begun.elapsed());
        well.billing_reports_active().await;
        well.reaches(Stage::Active).await;
    }

    // When the server answers again.
    proxy.speaks_again();
    let begun = Instant::now();

    // Then the six are Blocked within seconds.
    for account in &away {
        account.reaches(Stage::Blocked).await;
    }
    let well = away[0].wait_until("nothing to wait for", |a| a.status.as_ref().unwrap().runbook.is_none()).await.status.unwrap();
    assert!(well.last_error.is_none() && well.waiting_for.is_empty());
    assert!(begun.elapsed() < Duration::from_secs(30), "what waited for the server went on after {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_store_that_never_answers_keeps_no_backup_of_another_waiting() {
    // Given two stores, one of them behind a proxy, and an operator that does two reconciles at once.
    let shard = Shard::new("hole", Servers::First).await;
    let endpoint = setting("HELPDESK_TEST_S3_EU_1_ENDPOINT");
    let server = endpoint.trim_start_matches("https://");
    let server = if server.contains(':') { server.to_owned() } else { format!("{server}:443") };
    let proxy = Proxy::to(server).await;
    let owner = setting("HELPDESK_TEST_S3_EU_1_ACCESS_KEY_ID");
    shard
        .cluster
        .administrator_applies(
            json!({"kind": "BackupStore", "metadata": {"name": "hole-away", "labels": {SHARD_LABEL: shard.name}}, "spec": {
            "region": shard.name, "signingRegion": "eu-1", "endpoint": format!("https://127.0.0.1:{}", proxy.port), "bucket": "helpdesk-cold",
            "prefix": "hole-away/", "credentialsSecret": "s3-eu-1", "eraseCredentialsSecret": "s3-eu-1-erase", "caSecret": "s3-ca",
            "expectedBucketOwner": owner}}),
        )
        .await;
    shard.cluster.administrator_applies(plan(&shard, "hole", "hole-cold")).await;
    shard.cluster.administrator_applies(plan(&shard, "hole-away", "hole-away")).await;
    let _operator = shard.start_operator("only", &[("HELPDESK_OPERATOR_CONCURRENCY", "2")]);
    let stores: Api<helpdesk_operator::api::BackupStore> = Api::all(shard.cluster.client.clone());
    eventually("the store that will be silent is ready", || async {
        let found = stores.get("hole-away").await.unwrap().status?;
        found.identity.map(drop)
    })
    .await;

    // Given six tenants with the store behind the proxy, and one with the other store.
    let well = customer_signs_up(&shard, "hole-well", "hole").await;
    well.receives_credentials_in(Stage::Trial).await;
    let mut away = vec![];
    for i in 0..6 {
        away.push(customer_signs_up(&shard, &format!("hole-away-{i}"), "hole-away").await);
    }
    for account in &away {
        account.receives_credentials_in(Stage::Trial).await;
    }

    // When the proxy falls silent, and a payment of each of the six fails.
    proxy.falls_silent();
    for account in &away {
        account.billing_reports_past_due().await;
    }

    // Then each of the six is Blocked and waits for its backup.
    for account in &away {
        account.reaches(Stage::Blocked).await;
        account.wait_for_backup("its backup is wanted", |b| b.spec.reason == BackupReason::Frozen).await;
    }

    // When a payment of the seventh fails.
    let begun = Instant::now();
    well.billing_reports_past_due().await;

    // Then the seventh is Blocked within seconds, and its backup is proven.
    well.reaches(Stage::Blocked).await;
    assert!(begun.elapsed() < Duration::from_secs(12), "a block waited {:?} for a store that hangs", begun.elapsed());
    let proven = |b: &helpdesk_operator::api::ColdBackup| b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Verified);
    well.wait_for_backup("its backup is proven", proven).await;
    assert!(begun.elapsed() < Duration::from_secs(120), "a backup waited {:?} for another's store", begun.elapsed());
    proxy.speaks_again();
}
