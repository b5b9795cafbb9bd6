//! What must not be possible.

use helpdesk_operator::{api::BackupPhase, lifecycle::Stage};
use serde_json::json;

use super::cluster::{Cluster, condition, find};

#[tokio::test]
async fn a_tenant_reaches_nothing_of_its_neighbour() {
    let cluster = Cluster::connect().await;
    let (acme, beta) = (cluster.account("neighbour-a", "seconds").await, cluster.account("neighbour-b", "seconds").await);
    let (acme, beta) = (acme.open(Stage::Trial).await, beta.open(Stage::Trial).await);
    beta.fill(5).await;
    for database in [beta.database.as_str(), "postgres", "template1", "helpdesk_operator"] {
        assert!(acme.connect_to(database).await.is_err(), "acme got into {database}");
    }
    let mut connection = acme.connect().await.unwrap();
    for attempt in [
        format!("SET ROLE {}", beta.username),
        format!("SET ROLE {}_own", beta.database),
        format!("GRANT {}_own TO {}", beta.database, acme.username),
        format!("ALTER ROLE {} PASSWORD 'x'", beta.username),
        format!("DROP DATABASE {}", beta.database),
        format!("ALTER DATABASE {} CONNECTION LIMIT 1", acme.database),
        "CREATE ROLE mine".to_owned(),
        "SELECT pg_read_file('/etc/passwd')".to_owned(),
    ] {
        assert!(sqlx::raw_sql(sqlx::AssertSqlSafe(attempt.clone())).execute(&mut connection).await.is_err(), "acme could {attempt}");
    }
}

#[tokio::test]
async fn a_hold_keeps_everything_and_says_so() {
    let cluster = Cluster::connect().await;
    cluster.plan("held", json!({"trial": "3s", "blocked": "15s", "terminated": "2s", "coldBackup": "60s"})).await;
    let account = cluster.account("held", "held").await;
    let tenant = account.open(Stage::Trial).await;
    account.apply(json!({"hold": {"reason": "case 7", "by": "legal@example.com"}})).await;
    let overdue = account.until("Overdue", |a| condition(a, "Overdue", "True")).await;
    assert_eq!(overdue.status.as_ref().unwrap().stage, Some(Stage::Terminated));
    assert_eq!(find(&overdue, "Overdue").unwrap().reason, "Held");
    assert!(account.backups().await.iter().all(|b| b.spec.hold.is_some()));
    assert!(super::tenant::left_on_server(&tenant.database).await > 0);
    account.apply(json!({})).await;
    account.stage(Stage::Expired).await;
    assert_eq!(super::tenant::left_on_server(&tenant.database).await, 0);
}

#[tokio::test]
async fn a_paused_account_is_looked_at_and_left_alone() {
    let cluster = Cluster::connect().await;
    cluster.plan("paused", json!({"trial": "4s"})).await;
    let account = cluster.account("paused", "paused").await;
    let tenant = account.open(Stage::Trial).await;
    account.apply(json!({"paused": true})).await;
    account.until("Overdue", |a| find(a, "Overdue").is_some_and(|c| c.reason == "Paused")).await;
    tenant.connect().await.unwrap();
    account.apply(json!({})).await;
    account.stage(Stage::Blocked).await;
}

#[tokio::test]
async fn a_status_that_was_wiped_is_rebuilt_from_the_ledger() {
    let cluster = Cluster::connect().await;
    let account = cluster.account("wiped", "seconds").await;
    account.open(Stage::Trial).await;
    account.bill("Active").await;
    account.open(Stage::Active).await;
    account.bill("PastDue").await;
    let before = account.stage(Stage::Blocked).await.status.unwrap();
    account.backup("a Frozen backup is proven", |b| b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Verified)).await;
    // Admission lets nobody but the operator do this, so the story impersonates it to play a status that was lost.
    cluster.wipe_status(&account.name).await;
    let after = account
        .until("a rebuilt status", |a| a.status.as_ref().is_some_and(|s| s.stage == Some(Stage::Blocked) && s.billing.is_some()))
        .await;
    let after = after.status.unwrap();
    assert_eq!(
        (after.stage_since, after.data_gone_by, after.next_transition_time),
        (before.stage_since, before.data_gone_by, before.next_transition_time)
    );
    assert_eq!(after.billing, before.billing);
}

#[tokio::test]
async fn a_deletion_is_refused_until_it_is_confirmed_and_then_leaves_a_cold_backup_behind() {
    let cluster = Cluster::connect().await;
    let account = cluster.account("deletion", "seconds").await;
    let tenant = account.open(Stage::Trial).await;
    tenant.fill(20).await;
    let refusal = cluster.accounts().delete("deletion", &Default::default()).await.unwrap_err().to_string();
    assert!(refusal.contains("confirm-delete"), "{refusal}");
    tenant.connect().await.unwrap();
    account.annotate("helpdesk-operator.io/confirm-delete", "deletion").await;
    cluster.accounts().delete("deletion", &Default::default()).await.unwrap();
    super::cluster::gone(cluster.accounts(), "deletion").await;
    assert_eq!(super::tenant::left_on_server(&tenant.database).await, 0);
    let left = account.backups().await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].status.as_ref().unwrap().phase, BackupPhase::Verified);
}
