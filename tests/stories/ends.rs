//! Ends that come on time, whoever or whatever is in the way.

use std::time::Duration;

use helpdesk_operator::{
    api::{BackupPhase, BackupReason, ColdBackup},
    lifecycle::Stage,
};
use kube::ResourceExt;
use serde_json::json;

use super::{
    cluster::{Account, Cluster, find},
    tenant::superuser,
};

fn is_proven(backup: &ColdBackup) -> bool {
    backup.spec.reason == BackupReason::Frozen && backup.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Verified)
}

async fn frozen(account: &Account) -> Vec<String> {
    account.backups().await.iter().filter(|b| b.spec.reason == BackupReason::Frozen).map(ResourceExt::name_any).collect()
}

#[tokio::test]
async fn a_superusers_session_in_a_closed_database_makes_one_more_backup_and_that_once_it_has_ended() {
    let cluster = Cluster::connect().await;
    cluster.plan("seal", json!({"trial": "5s"})).await;
    let account = cluster.account("seal", "seal").await;
    let tenant = account.open(Stage::Trial).await;
    tenant.fill(20).await;
    account.stage(Stage::Blocked).await;
    let first = account.backup("its Frozen backup is proven", is_proven).await.name_any();

    let session = superuser(&tenant.database).await;
    // Nothing announces that somebody got in; an annotation makes the operator look.
    account.annotate("stories/look", "1").await;
    account.until("a broken seal", |a| find(a, "BlockEnforced").is_some_and(|c| c.reason == "SealBroken")).await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(frozen(&account).await, std::slice::from_ref(&first), "a backup of a database that somebody is in");
    sqlx::Connection::close(session).await.unwrap();

    let second = account.backup("another Frozen backup is proven", |b| is_proven(b) && b.name_any() != first).await.name_any();
    account.until("a seal that holds", |a| find(a, "BlockEnforced").is_some_and(|c| c.status == "True")).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let mut all = frozen(&account).await;
    all.sort();
    assert_eq!(all, [first, second], "one session made more than one backup");
}
