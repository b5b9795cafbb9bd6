//! The whole life of an account, and its turns.

use helpdesk_operator::{
    api::{BackupPhase, BackupReason, account::DropGround},
    lifecycle::{Reason, Stage},
};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{
    cluster::{Cluster, OPERATOR, condition, eventually, gone},
    tenant::left_on_server,
};

#[tokio::test]
async fn an_account_lives_through_every_stage_and_nothing_is_left_of_it() {
    let cluster = Cluster::connect().await;
    cluster.plan("whole-life", json!({"trial": "5s", "blocked": "20s", "terminated": "6s", "coldBackup": "20s"})).await;
    let account = cluster.account("whole-life", "whole-life").await;
    let tenant = account.open(Stage::Trial).await;
    assert_eq!(account.get().await.status.unwrap().url, None, "a plan without a Gateway publishes nothing");
    tenant.fill(200).await;

    let blocked = account.stage(Stage::Blocked).await;
    assert_eq!(blocked.status.as_ref().unwrap().reason, Some(Reason::TrialEnded));
    assert!(tenant.connect().await.is_err(), "a blocked tenant logged in");
    assert!(condition(&blocked, "BlockEnforced", "True"));
    let promised = blocked.status.unwrap().data_gone_by.unwrap();
    let frozen = account
        .backup("a Frozen backup is proven", |b| {
            b.spec.reason == BackupReason::Frozen && b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Verified)
        })
        .await;
    assert_eq!(frozen.spec.expires_at, promised);

    let terminated = account.stage(Stage::Terminated).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let namespace = super::tenant::Tenant::clone(&tenant).database.replacen("t_", "hd-", 1);
    gone(namespaces, &namespace).await;
    assert_eq!(terminated.status.unwrap().url, None);
    assert!(left_on_server(&tenant.database).await > 0, "data went before its time");

    account.stage(Stage::Deleted).await;
    assert_eq!(left_on_server(&tenant.database).await, 0, "something of the database is left");

    let expired = account.stage(Stage::Expired).await;
    let status = expired.status.unwrap();
    assert!(status.stage_since.unwrap() >= promised, "the backup went before its time");
    let certificate = status.certificate.unwrap();
    let authority = certificate.authority.clone().unwrap();
    assert_eq!((authority.ground, authority.backup), (DropGround::VerifiedBackup, Some(frozen.name_any())));
    // The facts as anybody puts them together who checks the certificate.
    let mut facts = json!(certificate);
    for unsigned in ["sha256", "signature", "note"] {
        facts.as_object_mut().unwrap().remove(unsigned);
    }
    let installation = Api::<Secret>::namespaced(cluster.client.clone(), OPERATOR).get("installation").await.unwrap();
    facts["installation"] = json!(String::from_utf8(installation.data.unwrap()["id"].0.clone()).unwrap());
    facts["accountUID"] = json!(expired.metadata.uid);
    assert_eq!(helpdesk_operator::digest::sha256(facts.to_string().as_bytes()), certificate.sha256, "{facts}");
    assert_eq!(expired.spec.owner.email.as_deref(), Some("erased@erased.invalid"));
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), OPERATOR);
    let keys = secrets.list_metadata(&Default::default()).await.unwrap();
    assert!(!keys.items.iter().any(|s| s.name_any().contains("whole-life")), "a key is left");
}

#[tokio::test]
async fn a_failed_payment_blocks_after_its_grace_and_a_payment_reopens_with_the_data_as_it_was() {
    let cluster = Cluster::connect().await;
    let account = cluster.account("payment", "seconds").await;
    account.open(Stage::Trial).await;
    account.bill("Active").await;
    let tenant = account.open(Stage::Active).await;
    tenant.fill(50).await;
    let before = tenant.checksum().await;
    let open_session = tenant.connect().await.unwrap();

    account.bill("PastDue").await;
    let blocked = account.stage(Stage::Blocked).await;
    assert_eq!(blocked.status.unwrap().reason, Some(Reason::PaymentFailed));
    assert!(tenant.connect().await.is_err());
    let mut session = open_session;
    assert!(sqlx::query("SELECT 1").execute(&mut session).await.is_err(), "a session from before the block still works");

    account.bill("Active").await;
    let tenant = account.open(Stage::Active).await;
    assert_eq!(tenant.checksum().await, before);
}

#[tokio::test]
async fn a_payment_at_deleted_restores_the_cold_backup_equal_in_every_table_sequence_and_view() {
    let cluster = Cluster::connect().await;
    cluster.plan("comeback", json!({"trial": "4s", "blocked": "15s", "terminated": "2s"})).await;
    let account = cluster.account("comeback", "comeback").await;
    let tenant = account.open(Stage::Trial).await;
    tenant.fill(500).await;
    let before = tenant.checksum().await;
    assert_eq!(before.len(), 7, "{before:?}");

    let deleted = account.stage(Stage::Deleted).await;
    assert_eq!(left_on_server(&tenant.database).await, 0);
    account.bill("Active").await;
    let tenant = account.open(Stage::Active).await;
    assert_eq!(tenant.checksum().await, before);
    let oid = |a: &helpdesk_operator::api::HelpDeskAccount| a.status.as_ref().unwrap().database.as_ref().unwrap().oid;
    assert_ne!(oid(&account.get().await), oid(&deleted));
    let mut connection = tenant.connect().await.unwrap();
    sqlx::raw_sql("INSERT INTO customers (email) VALUES ('new@example.com'); CREATE TABLE later (id int)")
        .execute(&mut connection)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_erasure_without_a_cold_backup_leaves_nothing_after_its_delay() {
    let cluster = Cluster::connect().await;
    cluster.plan("erase", json!({"eraseDelay": "4s"})).await;
    let account = cluster.account("erase", "erase").await;
    let tenant = account.open(Stage::Trial).await;
    tenant.fill(10).await;
    account.apply(json!({"closure": {"mode": "Erase", "coldBackup": false, "requestedBy": "ana@erase.example"}})).await;
    account.stage(Stage::Blocked).await;
    assert!(tenant.connect().await.is_err());
    let expired = account.stage(Stage::Expired).await;
    assert_eq!(left_on_server(&tenant.database).await, 0);
    assert_eq!(account.backups().await.len(), 0);
    let left = serde_json::to_string(&expired).unwrap();
    assert!(!left.contains("ana@erase.example"), "the owner's address is left: {left}");
}

#[tokio::test]
async fn the_owner_cancels_and_the_account_is_terminated_with_a_frozen_backup() {
    let cluster = Cluster::connect().await;
    let account = cluster.account("cancel", "seconds").await;
    let tenant = account.open(Stage::Trial).await;
    tenant.fill(10).await;
    account.apply(json!({"closure": {"mode": "Cancel"}})).await;
    let terminated = account.stage(Stage::Terminated).await;
    assert_eq!(terminated.status.unwrap().reason, Some(Reason::OwnerCancelled));
    account.backup("a Frozen backup is proven", |b| b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Verified)).await;
    account.bill("Active").await;
    account.until("billing is seen", |a| a.status.as_ref().is_some_and(|s| s.observed_billing_sequence == Some(1))).await;
    assert_eq!(account.get().await.status.unwrap().stage, Some(Stage::Terminated), "a payment beat the owner's wish");
    account.apply(json!({})).await;
    account.until("the withdrawal is seen", |a| a.status.as_ref().is_some_and(|s| s.observed_generation == a.metadata.generation)).await;
    account.bill("Active").await;
    account.open(Stage::Active).await;
}

#[tokio::test]
async fn a_secret_that_is_deleted_or_edited_is_put_back_and_is_gone_from_terminated_on() {
    let cluster = Cluster::connect().await;
    let account = cluster.account("secret", "seconds").await;
    let tenant = account.open(Stage::Trial).await;
    let namespace = account.get().await.status.unwrap().namespace.unwrap().name;
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), &namespace);
    secrets.delete("database", &Default::default()).await.unwrap();
    eventually("the Secret is put back", || async {
        cluster.secret(&namespace, "database").await.filter(|s| s["password"] == tenant.password)
    })
    .await;
    secrets.patch("database", &Default::default(), &kube::api::Patch::Merge(json!({"stringData": {"password": "wrong"}}))).await.unwrap();
    eventually("the password is put back", || async {
        cluster.secret(&namespace, "database").await.filter(|s| s["password"] == tenant.password)
    })
    .await;
    tenant.connect().await.unwrap();
    account.apply(json!({"closure": {"mode": "Cancel"}})).await;
    account.stage(Stage::Terminated).await;
    assert!(cluster.secret(&namespace, "database").await.is_none());
}

#[tokio::test]
async fn a_password_is_renewed_on_request_without_a_failed_login_in_between() {
    let cluster = Cluster::connect().await;
    let account = cluster.account("rotate", "seconds").await;
    let old = account.open(Stage::Trial).await;
    let mut session = old.connect().await.unwrap();
    let namespace = account.get().await.status.unwrap().namespace.unwrap().name;
    account.annotate("helpdesk-operator.io/rotate-password", "1").await;
    let new = eventually("another password", || async {
        let now = super::tenant::Tenant::of(&cluster.secret(&namespace, "database").await?);
        // Whatever the Secret says at any moment works at that moment.
        now.connect().await.unwrap();
        (now.password != old.password).then_some(now)
    })
    .await;
    old.connect().await.expect("the old login must work while it has sessions");
    sqlx::query("SELECT 1").execute(&mut session).await.unwrap();
    sqlx::Connection::close(session).await.unwrap();
    eventually("the old login ends", || async { old.connect().await.err() }).await;
    new.connect().await.unwrap();
}
