//! Crashes, outages and clocks. Each story runs an operator of its own and hurts it.

use helpdesk_operator::{
    api::{BackupPhase, BackupReason, ColdBackup, DatabaseServer, HelpDeskAccount},
    clock,
    lifecycle::Stage,
};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{
    cluster::{OPERATOR, eventually, find_condition},
    operator::{STOPPING, Servers, Shard, administrator_scales, wait_until_after},
    tenant::{databases_and_roles_left, superuser_logs_in_at},
};

#[tokio::test]
async fn a_crash_at_every_persisted_step_resumes_to_the_same_end() {
    // Given an account whose windows last seconds.
    let shard = Shard::new("crashes", Servers::First).await;
    shard.administrator_applies_plan(json!({"trial": "2s", "blocked": "2s", "terminated": "2s", "coldBackup": "120s"})).await;
    let account = shard.customer_signs_up("crashes").await;

    // When the operator crashes after each step that it has stored, and is started again each time.
    let operator_crashes = async |at: &str| shard.start_operator("only", &[("HELPDESK_OPERATOR_CRASH_AT", at)]).crashes().await;
    operator_crashes("home-recorded:Trial").await;
    operator_crashes("enforced-recorded:Trial").await;
    operator_crashes("intent-recorded:Blocked").await;
    let tenant_name = account.get().await.status.unwrap().database.unwrap().name;
    operator_crashes("enforced-recorded:Blocked").await;
    operator_crashes("intent-recorded:Terminated").await;
    operator_crashes("enforced-recorded:Terminated").await;
    assert!(databases_and_roles_left(&tenant_name).await > 0);
    operator_crashes("intent-recorded:Deleted").await;
    operator_crashes("authority-recorded:Deleted").await;
    operator_crashes("database-dropped:Deleted").await;
    operator_crashes("enforced-recorded:Deleted").await;
    assert_eq!(databases_and_roles_left(&tenant_name).await, 0);
    // Its ColdBackup is restored without a status, after the database is gone.
    account.backup_statuses_are_wiped().await;
    account.billing_reports_active().await;
    operator_crashes("restore-prepared:Deleted").await;
    operator_crashes("restore-proven:Deleted").await;

    // When the payment is taken back after the restore, then what was restored is dropped.
    assert!(databases_and_roles_left(&tenant_name).await > 0);
    account.billing_reports_past_due().await;
    operator_crashes("copy-dropped:Deleted").await;
    assert_eq!(databases_and_roles_left(&tenant_name).await, 0);

    // When it is paid for again.
    account.billing_reports_active().await;
    operator_crashes("restore-tidied:Deleted").await;
    operator_crashes("restore-recorded:Active").await;
    operator_crashes("enforced-recorded:Active").await;

    // When a backup is due every minute, and the operator crashes after it created one and before it stored that.
    shard.administrator_schedules_backups("* * * * *").await;
    operator_crashes("backup-scheduled:crashes").await;

    // Then that backup is proven.
    let last = shard.start_operator("only", &[]);
    let scheduled = |b: &ColdBackup| b.spec.reason == BackupReason::Scheduled;
    let created = account.backups().await.into_iter().find(scheduled).unwrap().metadata.name;
    let is_proven = |b: &ColdBackup| b.metadata.name == created && b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Verified);
    account.wait_for_backup("the scheduled backup is proven", is_proven).await;

    // Then the tenant logs in at the end, and only one Frozen backup was taken.
    account.receives_credentials_in(Stage::Active).await.logs_in().await.unwrap();
    let frozen: Vec<_> = account.backups().await.into_iter().filter(|b| b.spec.reason == BackupReason::Frozen).collect();
    assert_eq!(frozen.len(), 1, "a crash made a second backup");
    assert_eq!(frozen[0].status.as_ref().unwrap().attempts, 0, "the proof in the bucket was not believed");
    account.owner_erases_without_cold_backup().await;
    shard.administrator_applies_plan(json!({"eraseDelay": "1s"})).await;
    drop(last);
}

#[tokio::test]
async fn when_the_leader_is_killed_the_other_replica_keeps_the_deadline() {
    // Given a tenant in its trial, and two replicas of the operator of which one leads.
    let shard = Shard::new("leaders", Servers::First).await;
    shard.administrator_applies_plan(json!({"trial": "25s"})).await;
    let account = shard.customer_signs_up("leaders").await;
    let first = shard.start_operator("first", &[]);
    eventually("a leader", || async { first.log().contains("\"leading\"").then_some(()) }).await;
    let second = shard.start_operator("second", &[]);
    let tenant = account.receives_credentials_in(Stage::Trial).await;
    assert!(!second.log().contains("\"leading\""), "two lead");

    // When the leader is killed, and the trial ends.
    first.kill();

    // Then the other replica leads, and locks the tenant out.
    account.reaches(Stage::Blocked).await;
    assert!(tenant.logs_in().await.is_err());
    assert!(second.log().contains("\"leading\""));
}

#[tokio::test]
async fn a_clock_that_runs_ahead_of_the_database_moves_nothing_and_says_so() {
    // Given a tenant in its trial.
    let shard = Shard::new("clocks", Servers::First).await;
    shard.administrator_applies_plan(json!({"trial": "1h"})).await;
    let account = shard.customer_signs_up("clocks").await;
    let honest = shard.start_operator("only", &[]);
    let tenant = account.receives_credentials_in(Stage::Trial).await;

    // When the operator starts again with a clock that is two days ahead.
    honest.kill();
    let faketime = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";
    let ahead = shard.start_operator("only", &[("LD_PRELOAD", faketime), ("FAKETIME", "+2d"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")]);

    // Then the account says so and stays in its trial, and the tenant logs in.
    let overdue =
        account.wait_until("Overdue", |a| find_condition(a, "Overdue").is_some_and(|c| c.message.contains("the clock shows"))).await;
    assert_eq!(overdue.status.unwrap().stage, Some(Stage::Trial));
    tenant.logs_in().await.unwrap();

    // When billing reports a payment, then the account is opened, and that time is not recorded as the latest one.
    account.billing_reports_active().await;
    account.reaches(Stage::Active).await;
    ahead.kill();
    let mut ledger = superuser_logs_in_at(&shard.postgres.as_ref().unwrap().host, "helpdesk_operator").await.unwrap();
    let mark: i64 = sqlx::query_scalar("SELECT high_water FROM installation").fetch_one(&mut ledger).await.unwrap();
    assert!(mark <= clock::now().as_second() + 30, "a time that was doubted is the latest one ever recorded");

    // When such a time is recorded all the same, and the owner cancels.
    let _honest = shard.start_operator("only", &[]);
    sqlx::query("UPDATE installation SET high_water = high_water + 3600").execute(&mut ledger).await.unwrap();
    account.owner_cancels().await;

    // Then the account says what a person can do.
    let told = |a: &HelpDeskAccount| {
        a.status.as_ref().is_some_and(|s| s.conditions.iter().any(|c| c.message.contains("helpdesk-operator.io/reset-clock")))
    };
    account.wait_until("the remedy is told", told).await;

    // When the administrator does that, then the account is Terminated.
    let now = json!({"metadata": {"annotations": {"helpdesk-operator.io/reset-clock": clock::now().to_string()}}});
    let servers: Api<DatabaseServer> = Api::all(shard.cluster.client.clone());
    servers.patch(&shard.name, &PatchParams::default(), &Patch::Merge(now)).await.unwrap();
    account.reaches(Stage::Terminated).await;
}

#[tokio::test]
async fn a_mended_secret_is_noticed_within_seconds_whatever_else_happened_meanwhile() {
    // Given an account whose server's admin Secret holds a wrong password.
    let shard = Shard::new("mended", Servers::First).await;
    shard.administrator_applies_plan(json!({"trial": "1h"})).await;
    let secrets: Api<Secret> = Api::namespaced(shard.cluster.client.clone(), OPERATOR);
    let name = format!("{}-admin", shard.name);
    let password = shard.cluster.secret(OPERATOR, &name).await.unwrap()["password"].clone();
    let administrator_sets_password = async |password: &str| {
        let patch = json!({"stringData": {"password": password}});
        secrets.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    };
    administrator_sets_password("mistyped").await;
    let _operator = shard.start_operator("only", &[]);
    let account = shard.customer_signs_up("mended").await;
    let shows_wrong_password =
        |a: &HelpDeskAccount| find_condition(a, "Ready").is_some_and(|c| c.message.contains("check username and password"));
    account.wait_until("the wrong password is told", shows_wrong_password).await;

    // When unrelated changes trigger a reconcile of the account again and again, and an administrator then writes the
    // right password.
    for i in 0..16 {
        account.administrator_annotates("example.com/unrelated", &i.to_string()).await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    let begun = std::time::Instant::now();
    administrator_sets_password(&password).await;

    // Then the tenant gets its database within seconds.
    account.receives_credentials_in(Stage::Trial).await;
    // Without the change of the Secret, the operator would try again only after a longer time.
    assert!(begun.elapsed() < std::time::Duration::from_secs(12), "noticed after {:?}", begun.elapsed());

    // When an administrator makes another DatabaseServer of the same server, then it is refused and names the first one.
    let host = shard.postgres.as_ref().unwrap().host.clone();
    shard.administrator_applies_server("mended-twin", "mended-admin", &host).await;
    let servers: Api<DatabaseServer> = Api::all(shard.cluster.client.clone());
    let refused = eventually("the twin is refused", async || {
        let status = servers.get("mended-twin").await.unwrap().status?;
        status.conditions.into_iter().find(|c| c.type_ == "Ready" && c.status == "False")
    })
    .await;
    assert!(refused.reason == "ServerTaken" && refused.message.contains("DatabaseServer mended already"), "{}", refused.message);

    // When the first one is gone, then the other one is the server.
    servers
        .patch(
            "mended",
            &PatchParams::default(),
            &Patch::Merge(json!({"metadata": {"annotations": {"helpdesk-operator.io/confirm-delete": "mended"}}})),
        )
        .await
        .unwrap();
    servers.delete("mended", &Default::default()).await.unwrap();
    eventually("the twin is ready", async || {
        let status = servers.get("mended-twin").await.unwrap().status?;
        status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_server_and_a_bucket_that_stop_for_a_while_delay_and_lose_nothing() {
    // Given an account in its trial.
    let _stopping = STOPPING.lock().await;
    let shard = Shard::new("outages", Servers::Second).await;
    shard.administrator_applies_plan(json!({"trial": "15s", "blocked": "15s", "terminated": "15s", "coldBackup": "60s"})).await;
    let account = shard.customer_signs_up("outages").await;
    let operator = shard.start_operator("only", &[]);
    let trial = account.reaches(Stage::Trial).await;
    let cluster = &shard.cluster;

    // When the database server is away at the end of the trial.
    let postgres = shard.postgres.clone().unwrap();
    postgres.stops(cluster).await;
    wait_until_after(trial.status.as_ref().unwrap().next_transition_time.as_ref().unwrap()).await;

    // Then the account says that it is overdue.
    account.wait_until("Overdue", |a| find_condition(a, "Overdue").is_some()).await;

    // When the server runs again.
    postgres.starts_again(cluster).await;

    // Then the account is Blocked.
    account.reaches(Stage::Blocked).await;

    // When the store is away while the Frozen backup is due, until the end of Terminated.
    administrator_scales(cluster, "storage", "s3-eu-2", 0).await;
    let terminated = account.reaches(Stage::Terminated).await;
    wait_until_after(terminated.status.as_ref().unwrap().next_transition_time.as_ref().unwrap()).await;

    // Then the account waits, and keeps its database.
    let waiting = account
        .wait_until("Overdue", |a| find_condition(a, "Overdue").is_some_and(|c| c.reason == "AwaitingBackup" || c.reason == "Unknown"))
        .await;
    assert_eq!(waiting.status.unwrap().stage, Some(Stage::Terminated), "dropped without a backup");

    // When the store runs again.
    administrator_scales(cluster, "storage", "s3-eu-2", 1).await;

    // Then the account is Deleted.
    let deleted = account.reaches(Stage::Deleted).await;

    // When the store is away at the time at which the backup expires, and then runs again.
    administrator_scales(cluster, "storage", "s3-eu-2", 0).await;
    wait_until_after(deleted.status.as_ref().unwrap().data_gone_by.as_ref().unwrap()).await;
    administrator_scales(cluster, "storage", "s3-eu-2", 1).await;

    // Then the account expires, and every backup is erased.
    account.reaches(Stage::Expired).await;
    assert!(account.backups().await.iter().all(|b| b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Erased)));
    operator.kill();
}
