//! Crashes, outages and clocks. Each story runs an operator of its own and hurts it.

use helpdesk_operator::{
    api::{BackupPhase, BackupReason, HelpDeskAccount},
    lifecycle::Stage,
};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{
    cluster::{OPERATOR, eventually, find},
    operator::{STOPPING, Servers, Shard, deadline_passes, scale},
    tenant::left_on_server,
};

#[tokio::test]
async fn a_crash_at_every_persisted_step_resumes_to_the_same_end() {
    let shard = Shard::new("crashes", Servers::First).await;
    shard.plan(json!({"trial": "2s", "blocked": "2s", "terminated": "2s", "coldBackup": "40s"})).await;
    let account = shard.account("crashes").await;

    let crash = async |at: &str| shard.operator("only", &[("HELPDESK_OPERATOR_CRASH_AT", at)]).died().await;
    crash("home-recorded:Trial").await;
    crash("enforced-recorded:Trial").await;
    crash("intent-recorded:Blocked").await;
    let tenant_name = account.get().await.status.unwrap().database.unwrap().name;
    crash("enforced-recorded:Blocked").await;
    crash("intent-recorded:Terminated").await;
    crash("enforced-recorded:Terminated").await;
    assert!(left_on_server(&tenant_name).await > 0);
    crash("intent-recorded:Deleted").await;
    crash("authority-recorded:Deleted").await;
    crash("database-dropped:Deleted").await;
    crash("enforced-recorded:Deleted").await;
    assert_eq!(left_on_server(&tenant_name).await, 0);
    account.bill("Active").await;
    crash("restore-prepared:Deleted").await;
    crash("restore-recorded:Active").await;
    crash("enforced-recorded:Active").await;
    let last = shard.operator("only", &[]);
    account.open(Stage::Active).await.connect().await.unwrap();

    let frozen: Vec<_> = account.backups().await.into_iter().filter(|b| b.spec.reason == BackupReason::Frozen).collect();
    assert_eq!(frozen.len(), 1, "a crash made a second backup");
    account.apply(json!({"closure": {"mode": "Erase", "coldBackup": false}})).await;
    shard.plan(json!({"eraseDelay": "1s"})).await;
    drop(last);
}

#[tokio::test]
async fn when_the_leader_is_killed_the_other_replica_keeps_the_deadline() {
    let shard = Shard::new("leaders", Servers::First).await;
    shard.plan(json!({"trial": "25s"})).await;
    let account = shard.account("leaders").await;
    let first = shard.operator("first", &[]);
    eventually("a leader", || async { first.log().contains("\"leading\"").then_some(()) }).await;
    let second = shard.operator("second", &[]);
    let tenant = account.open(Stage::Trial).await;
    assert!(!second.log().contains("\"leading\""), "two lead");
    first.kill();
    account.stage(Stage::Blocked).await;
    assert!(tenant.connect().await.is_err());
    assert!(second.log().contains("\"leading\""));
}

#[tokio::test]
async fn a_clock_that_runs_ahead_of_the_database_moves_nothing_and_says_so() {
    let shard = Shard::new("clocks", Servers::First).await;
    shard.plan(json!({"trial": "1h"})).await;
    let account = shard.account("clocks").await;
    let honest = shard.operator("only", &[]);
    let tenant = account.open(Stage::Trial).await;
    honest.kill();
    let faketime = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    let ahead = shard.operator("only", &[("LD_PRELOAD", faketime), ("FAKETIME", "+2d"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]);
    let told = account.until("Overdue", |a| find(a, "Overdue").is_some_and(|c| c.message.contains("the clock shows"))).await;
    assert_eq!(told.status.unwrap().stage, Some(Stage::Trial));
    tenant.connect().await.unwrap();
    ahead.kill();
}

#[tokio::test]
async fn a_mended_secret_is_noticed_within_seconds_whatever_else_happened_meanwhile() {
    let shard = Shard::new("mended", Servers::First).await;
    shard.plan(json!({"trial": "1h"})).await;
    let secrets: Api<Secret> = Api::namespaced(shard.cluster.client.clone(), OPERATOR);
    let name = format!("{}-admin", shard.name);
    let password = shard.cluster.secret(OPERATOR, &name).await.unwrap()["password"].clone();
    let set = async |password: &str| {
        let patch = json!({"stringData": {"password": password}});
        secrets.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    };
    set("mistyped").await;
    let _operator = shard.operator("only", &[]);
    let account = shard.account("mended").await;
    let told = |a: &HelpDeskAccount| find(a, "Ready").is_some_and(|c| c.message.contains("check username and password"));
    account.until("the wrong password is told", told).await;
    // Events that have nothing to do with it wake the account, again and again.
    for i in 0..16 {
        account.annotate("example.com/unrelated", &i.to_string()).await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    let begun = std::time::Instant::now();
    set(&password).await;
    account.open(Stage::Trial).await;
    // Long before anybody would look by itself at what worked.
    assert!(begun.elapsed() < std::time::Duration::from_secs(12), "noticed after {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_server_and_a_bucket_that_stop_for_a_while_delay_and_lose_nothing() {
    let _stopping = STOPPING.lock().await;
    let shard = Shard::new("outages", Servers::Second).await;
    shard.plan(json!({"trial": "15s", "blocked": "15s", "terminated": "15s", "coldBackup": "60s"})).await;
    let account = shard.account("outages").await;
    let operator = shard.operator("only", &[]);
    let trial = account.stage(Stage::Trial).await;
    let cluster = &shard.cluster;

    // The database server is away when the trial ends.
    scale(cluster, "databases", "pg-eu-2", 0).await;
    deadline_passes(trial.status.as_ref().unwrap().next_transition_time.as_ref().unwrap()).await;
    account.until("Overdue", |a| find(a, "Overdue").is_some()).await;
    scale(cluster, "databases", "pg-eu-2", 1).await;
    account.stage(Stage::Blocked).await;

    // The bucket is away when the Frozen backup should be taken, and past the end of Blocked.
    scale(cluster, "storage", "s3-eu-2", 0).await;
    let terminated = account.stage(Stage::Terminated).await;
    deadline_passes(terminated.status.as_ref().unwrap().next_transition_time.as_ref().unwrap()).await;
    let waiting =
        account.until("Overdue", |a| find(a, "Overdue").is_some_and(|c| c.reason == "AwaitingBackup" || c.reason == "Unknown")).await;
    assert_eq!(waiting.status.unwrap().stage, Some(Stage::Terminated), "dropped without a backup");
    scale(cluster, "storage", "s3-eu-2", 1).await;
    let deleted = account.stage(Stage::Deleted).await;

    // The bucket is away at the backup's deadline: its key goes on time, its objects as soon as they can.
    scale(cluster, "storage", "s3-eu-2", 0).await;
    deadline_passes(deleted.status.as_ref().unwrap().data_gone_by.as_ref().unwrap()).await;
    scale(cluster, "storage", "s3-eu-2", 1).await;
    account.stage(Stage::Expired).await;
    assert!(account.backups().await.iter().all(|b| b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Erased)));
    operator.kill();
}
