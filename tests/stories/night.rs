//! A night in which one thing after another fails. After each, what Prometheus recorded makes the right alert fire, and the
//! commands of its runbook entry work.

use std::process::Command;

use helpdesk_operator::{
    api::{BackupStore, HelpDeskPlan, SHARD_LABEL},
    lifecycle::Stage,
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

use super::{
    cluster::{Account, eventually, setting},
    operator::{STOPPING, Servers, Shard, administrator_scales, wait_until_after},
    prometheus::{Prometheus, Second, expression_of, queries_of_dashboards, write_test},
    readiness::{grants, without},
};

const NIGHT: &str = "night";

/// How long is recorded before something fails, and after it shows, in seconds.
const MARGIN: Second = 10;

/// Waits until `kubectl helpdesk why` follows the account to this cause.
async fn is_explained(account: &Account, cause: &str) {
    eventually(&format!("why: {cause}"), || async {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-helpdesk"));
        command.args(["why", &account.name]).env("KUBECONFIG", setting("HELPDESK_TEST_KUBECONFIG"));
        let said = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        String::from_utf8_lossy(&said.stdout).contains(cause).then_some(())
    })
    .await;
}

/// Records what fails between `begin` and now, as a test for the alert, and runs the commands of its runbook entry.
async fn fires(prometheus: &Prometheus, outage: &str, begin: Second, alert: &str) {
    prometheus.waits_for(&expression_of(alert), true).await;
    let shown = prometheus.now().await;
    until(prometheus, shown + MARGIN).await;
    write_test(outage, &prometheus.recorded(begin - MARGIN, shown + MARGIN).await, Some(alert));
    runbook_works(alert);
}

async fn until(prometheus: &Prometheus, second: Second) {
    eventually("the next scrapes", || async { (prometheus.now().await >= second).then_some(()) }).await;
}

/// Runs every command of an alert's entry in the documents.
fn runbook_works(alert: &str) {
    let documents = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    let (_, entry) = documents.split_once(&format!("\n### {alert}\n")).unwrap_or_else(|| panic!("no entry for {alert}"));
    let entry = entry.split("\n### ").next().and_then(|entry| entry.split("\n## ").next()).unwrap();
    let blocks: Vec<&str> = entry.split("\n```\n").skip(1).step_by(2).collect();
    assert!(!blocks.is_empty(), "{alert} has no command");
    for command in blocks.iter().flat_map(|block| block.lines()) {
        let done = Command::new("bash")
            .args(["-euo", "pipefail", "-c", command])
            .env("KUBECONFIG", setting("HELPDESK_TEST_KUBECONFIG"))
            .env("PATH", format!("{}:{}", setting("HELPDESK_TEST_TOOLS"), setting("PATH")))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        // grep finds nothing where nothing is logged, and can-i says no by its exit code.
        let may_be_empty = command.contains("| grep") || command.contains("auth can-i");
        assert!(done.status.success() || (may_be_empty && done.status.code() == Some(1)), "{command}: {said}");
    }
}

#[tokio::test]
async fn in_a_night_of_failures_each_makes_its_alert_fire_and_its_runbook_entry_works() {
    // Given a shard with a store of its own to lose, an account in its trial, and two replicas that Prometheus scrapes.
    let _stopping = STOPPING.lock().await;
    let shard = Shard::new(NIGHT, Servers::Second).await;
    let cluster = &shard.cluster;
    shard.administrator_applies_plan(json!({"trial": "150s"})).await;
    cluster
        .administrator_applies(json!({"kind": "HelpDeskClass", "metadata": {"name": NIGHT, "labels": {SHARD_LABEL: NIGHT}}, "spec": {
            "app": {"name": "none", "version": "1"}, "components": [{"name": "web", "port": 8080}],
            "routes": [{"path": "/", "component": "web", "audience": "agent"}]}}))
        .await;
    grants(cluster, NIGHT, |rule| vec![rule]).await;
    let account = shard.customer_signs_up(NIGHT).await;
    let leader = shard.start_operator_as(NIGHT, "leader", &[]);
    account.receives_credentials_in(Stage::Trial).await;
    let ends = account.get().await.status.unwrap().next_transition_time.unwrap();
    let standby = shard.start_operator_as(NIGHT, "standby", &[]);
    let prometheus = Prometheus::start(NIGHT).await;
    prometheus.scrapes(&[("leader", &leader), ("standby", &standby)]).await;
    prometheus.waits_for("helpdesk_operator_leader == 1", true).await;
    for ready in ["helpdesk_operator_backup_store_ready == 0", "helpdesk_operator_database_server_ready == 0"] {
        prometheus.waits_for(ready, false).await;
    }

    // When nothing fails, then nothing fires.
    let begin = prometheus.now().await;
    until(&prometheus, begin + MARGIN).await;
    write_test("calm", &prometheus.recorded(begin, begin + MARGIN).await, None);

    // And every query of the dashboards has something to show, but for the certificates of names that nobody has here.
    for (panel, query) in queries_of_dashboards() {
        let found = prometheus.query(&query).await;
        assert!(!found.is_empty() || query.contains("certificate_expiry"), "{panel}: {query} shows nothing");
    }

    // When the leader is killed, then the other replica takes over, and nobody is woken.
    let begin = prometheus.now().await;
    leader.kill();
    prometheus.waits_for("helpdesk_operator_leader{instance=\"standby\"} == 1", true).await;
    prometheus.waits_for("helpdesk_operator_plan_ready{instance=\"standby\"} == 1", true).await;
    let taken = prometheus.now().await;
    prometheus.scrapes(&[("standby", &standby)]).await;
    until(&prometheus, taken + MARGIN).await;
    write_test("takeover", &prometheus.recorded(begin - MARGIN, taken + MARGIN).await, None);

    // When the bucket is away.
    let begin = prometheus.now().await;
    administrator_scales(cluster, "storage", "s3-eu-2", 0).await;
    fires(&prometheus, "bucket-away", begin, "HelpDeskBackupStoreNotReady").await;
    is_explained(&account, &format!("BackupStore {NIGHT}-cold")).await;
    administrator_scales(cluster, "storage", "s3-eu-2", 1).await;
    prometheus.waits_for("helpdesk_operator_backup_store_ready == 0", false).await;

    // When the database server is away at the end of the trial.
    let begin = prometheus.now().await;
    let postgres = shard.postgres.clone().unwrap();
    postgres.stops(cluster).await;
    fires(&prometheus, "server-away", begin, "HelpDeskDatabaseServerNotReady").await;
    wait_until_after(&ends).await;
    fires(&prometheus, "server-away-at-a-deadline", begin, "HelpDeskAccountsOverdue").await;
    is_explained(&account, &format!("DatabaseServer {NIGHT}")).await;
    postgres.starts_again(cluster).await;
    account.reaches(Stage::Blocked).await;
    prometheus.waits_for("helpdesk_operator_database_server_ready == 0", false).await;

    // When the operator may not write statuses any more.
    let begin = prometheus.now().await;
    grants(cluster, NIGHT, |rule| without(rule, "helpdeskaccounts/status", &["patch", "update"])).await;
    fires(&prometheus, "permission-away", begin, "HelpDeskOperatorNotReady").await;
    grants(cluster, NIGHT, |rule| vec![rule]).await;
    prometheus.waits_for("helpdesk_operator_obstacles > 0", false).await;

    // When GitOps prunes a plan that is in use, with the confirmation that the refusal names.
    let begin = prometheus.now().await;
    let plans: Api<HelpDeskPlan> = Api::all(cluster.client.clone());
    let confirmed = |name: &str| Patch::Merge(json!({"metadata": {"annotations": {"helpdesk-operator.io/confirm-delete": name}}}));
    plans.patch(NIGHT, &PatchParams::default(), &confirmed(NIGHT)).await.unwrap();
    plans.delete(NIGHT, &DeleteParams::default()).await.unwrap();
    fires(&prometheus, "plan-pruned", begin, "HelpDeskPlanNotReady").await;
    is_explained(&account, &format!("HelpDeskPlan {NIGHT}")).await;

    // When the store that keeps the keys is deleted.
    let begin = prometheus.now().await;
    let stores: Api<BackupStore> = Api::all(cluster.client.clone());
    let escrow = format!("{NIGHT}-escrow");
    stores.patch(&escrow, &PatchParams::default(), &confirmed(&escrow)).await.unwrap();
    stores.delete(&escrow, &DeleteParams::default()).await.unwrap();
    fires(&prometheus, "escrow-deleted", begin, "HelpDeskEscrowNotReady").await;
    is_explained(&account, &format!("{NIGHT}-escrow")).await;

    // When no replica is left.
    let begin = prometheus.now().await;
    standby.kill();
    fires(&prometheus, "nobody-works", begin, "HelpDeskOperatorDown").await;
}

/// Every command of every entry works, whether its alert was seen in this night or not.
#[tokio::test]
async fn the_commands_of_every_runbook_entry_work() {
    super::cluster::Cluster::connect().await;
    let alerts = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/charts/helpdesk-operator/files/alerts.yaml")).unwrap();
    for alert in alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        runbook_works(alert);
    }
}
