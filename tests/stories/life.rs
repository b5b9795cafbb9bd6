//! The whole life of an account, and its turns.

use helpdesk_operator::{
    api::{BackupPhase, BackupReason, ColdBackup, account::DropGround},
    lifecycle::{Reason, Stage},
};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

use super::{
    cluster::{Cluster, OPERATOR, eventually, has_condition, wait_until_deleted},
    tenant::databases_and_roles_left,
};

#[tokio::test]
async fn an_account_lives_through_every_stage_and_nothing_is_left_of_it() {
    // Given a tenant in its trial, with 200 tickets.
    let cluster = Cluster::connect().await;
    cluster
        .administrator_applies_plan("whole-life", json!({"trial": "5s", "blocked": "20s", "terminated": "6s", "coldBackup": "20s"}))
        .await;
    let account = cluster.customer_signs_up("whole-life", "whole-life").await;
    let tenant = account.receives_credentials_in(Stage::Trial).await;
    assert_eq!(account.get().await.status.unwrap().url, None, "a plan without a Gateway publishes nothing");
    tenant.creates_tickets(200).await;

    // When the trial ends.
    let blocked = account.reaches(Stage::Blocked).await;

    // Then the tenant is locked out, and a proven backup waits until the promised moment.
    assert_eq!(blocked.status.as_ref().unwrap().reason, Some(Reason::TrialEnded));
    assert!(tenant.logs_in().await.is_err(), "a blocked tenant logged in");
    assert!(has_condition(&blocked, "BlockEnforced", "True"));
    let promised = blocked.status.unwrap().data_gone_by.unwrap();
    let frozen = account
        .wait_for_backup("a Frozen backup is proven", |b| {
            b.spec.reason == BackupReason::Frozen && b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Verified)
        })
        .await;
    assert_eq!(frozen.spec.expires_at, promised);

    // When Blocked ends.
    let terminated = account.reaches(Stage::Terminated).await;

    // Then the namespace and the address are gone, and the data is kept.
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let namespace = super::tenant::Tenant::clone(&tenant).database.replacen("t_", "hd-", 1);
    wait_until_deleted(namespaces, &namespace).await;
    assert_eq!(terminated.status.unwrap().url, None);
    assert!(databases_and_roles_left(&tenant.database).await > 0, "data went before its time");

    // When Terminated ends.
    account.reaches(Stage::Deleted).await;

    // Then the server has no database and no role of the tenant.
    assert_eq!(databases_and_roles_left(&tenant.database).await, 0, "something of the database is left");
    let is_proven = |b: &ColdBackup| b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Verified);
    let kept: Vec<_> = account.backups().await.into_iter().filter(is_proven).map(|b| b.name_any()).collect();

    // When the cold backup expires.
    let expired = account.reaches(Stage::Expired).await;

    // Then a certificate tells on what authority the data was dropped, and its hash is that of its facts.
    let status = expired.status.unwrap();
    assert!(status.stage_since.unwrap() >= promised, "the backup went before its time");
    let certificate = status.certificate.unwrap();
    let authority = certificate.authority.clone().unwrap();
    assert_eq!((authority.ground, authority.backup.as_slice()), (DropGround::VerifiedBackup, kept.as_slice()));
    // The facts as anybody puts them together who checks the certificate.
    let mut facts = json!(certificate);
    for unsigned in ["sha256", "signature", "note"] {
        facts.as_object_mut().unwrap().remove(unsigned);
    }
    let installation = Api::<Secret>::namespaced(cluster.client.clone(), OPERATOR).get("installation").await.unwrap();
    facts["installation"] = json!(String::from_utf8(installation.data.unwrap()["id"].0.clone()).unwrap());
    facts["accountUID"] = json!(expired.metadata.uid);
    assert_eq!(helpdesk_operator::digest::sha256(facts.to_string().as_bytes()), certificate.sha256, "{facts}");

    // Then neither the owner's address nor a key is left.
    assert_eq!(expired.spec.owner.email.as_deref(), Some("erased@erased.invalid"));
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), OPERATOR);
    let keys = secrets.list_metadata(&Default::default()).await.unwrap();
    assert!(!keys.items.iter().any(|s| s.name_any().contains("whole-life")), "a key is left");
}

#[tokio::test]
async fn a_failed_payment_blocks_after_its_grace_and_a_payment_reopens_with_the_data_as_it_was() {
    // Given a tenant who has paid, with 50 tickets and an open session.
    let cluster = Cluster::connect().await;
    let account = cluster.customer_signs_up("payment", "seconds").await;
    account.receives_credentials_in(Stage::Trial).await;
    account.billing_reports_active().await;
    let tenant = account.receives_credentials_in(Stage::Active).await;
    tenant.creates_tickets(50).await;
    let before = tenant.checksum().await;
    let open_session = tenant.logs_in().await.unwrap();

    // When a payment fails and its grace has passed.
    account.billing_reports_past_due().await;
    let blocked = account.reaches(Stage::Blocked).await;

    // Then the tenant is locked out, also of the session from before.
    assert_eq!(blocked.status.unwrap().reason, Some(Reason::PaymentFailed));
    assert!(tenant.logs_in().await.is_err());
    let mut session = open_session;
    assert!(sqlx::query("SELECT 1").execute(&mut session).await.is_err(), "a session from before the block still works");

    // When billing reports a payment.
    account.billing_reports_active().await;
    let tenant = account.receives_credentials_in(Stage::Active).await;

    // Then the tenant logs in and finds its data as it was.
    assert_eq!(tenant.checksum().await, before);
}

#[tokio::test]
async fn a_payment_at_deleted_restores_the_cold_backup_equal_in_every_table_sequence_and_view() {
    // Given an account in Deleted: its database was dropped, and its cold backup is kept.
    let cluster = Cluster::connect().await;
    cluster.administrator_applies_plan("comeback", json!({"trial": "4s", "blocked": "15s", "terminated": "2s"})).await;
    let account = cluster.customer_signs_up("comeback", "comeback").await;
    let tenant = account.receives_credentials_in(Stage::Trial).await;
    tenant.creates_tickets(500).await;
    let before = tenant.checksum().await;
    assert_eq!(before.len(), 7, "{before:?}");

    let deleted = account.reaches(Stage::Deleted).await;
    assert_eq!(databases_and_roles_left(&tenant.database).await, 0);

    // When billing reports a payment.
    account.billing_reports_active().await;
    let tenant = account.receives_credentials_in(Stage::Active).await;

    // Then the data comes back as it was, in a new database that can be written to.
    assert_eq!(tenant.checksum().await, before);
    let oid = |a: &helpdesk_operator::api::HelpDeskAccount| a.status.as_ref().unwrap().database.as_ref().unwrap().oid;
    assert_ne!(oid(&account.get().await), oid(&deleted));
    let mut connection = tenant.logs_in().await.unwrap();
    sqlx::raw_sql("INSERT INTO customers (email) VALUES ('new@example.com'); CREATE TABLE later (id int)")
        .execute(&mut connection)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_erasure_without_a_cold_backup_leaves_nothing_after_its_delay() {
    // Given a tenant with ten tickets.
    let cluster = Cluster::connect().await;
    cluster.administrator_applies_plan("erase", json!({"eraseDelay": "4s"})).await;
    let account = cluster.customer_signs_up("erase", "erase").await;
    let tenant = account.receives_credentials_in(Stage::Trial).await;
    tenant.creates_tickets(10).await;

    // When the owner wants everything erased, without a cold backup.
    account.administrator_applies(json!({"closure": {"mode": "Erase", "coldBackup": false, "requestedBy": "ana@erase.example"}})).await;
    account.reaches(Stage::Blocked).await;

    // Then the tenant is locked out at once.
    assert!(tenant.logs_in().await.is_err());

    // When the delay has passed.
    let expired = account.reaches(Stage::Expired).await;

    // Then no database, no backup and no address of the owner is left.
    assert_eq!(databases_and_roles_left(&tenant.database).await, 0);
    assert_eq!(account.backups().await.len(), 0);
    let left = serde_json::to_string(&expired).unwrap();
    assert!(!left.contains("ana@erase.example"), "the owner's address is left: {left}");
}

#[tokio::test]
async fn the_owner_cancels_and_the_account_is_terminated_with_a_frozen_backup() {
    // Given a tenant with ten tickets.
    let cluster = Cluster::connect().await;
    let account = cluster.customer_signs_up("cancel", "seconds").await;
    let tenant = account.receives_credentials_in(Stage::Trial).await;
    tenant.creates_tickets(10).await;

    // When the owner cancels.
    account.owner_cancels().await;

    // Then the account is Terminated, and its backup is proven.
    let terminated = account.reaches(Stage::Terminated).await;
    assert_eq!(terminated.status.unwrap().reason, Some(Reason::OwnerCancelled));
    account.wait_for_backup("a Frozen backup is proven", |b| b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Verified)).await;

    // When billing reports a payment nevertheless.
    account.billing_reports_active().await;

    // Then the owner's wish stands.
    account.wait_until("billing is seen", |a| a.status.as_ref().is_some_and(|s| s.observed_billing_sequence == Some(1))).await;
    assert_eq!(account.get().await.status.unwrap().stage, Some(Stage::Terminated), "a payment beat the owner's wish");

    // When the owner withdraws the wish, and billing reports a payment.
    account.administrator_applies(json!({})).await;
    account
        .wait_until("the withdrawal is seen", |a| a.status.as_ref().is_some_and(|s| s.observed_generation == a.metadata.generation))
        .await;
    account.billing_reports_active().await;

    // Then the account is Active again.
    account.receives_credentials_in(Stage::Active).await;
}

#[tokio::test]
async fn a_secret_that_is_deleted_or_edited_is_put_back_and_is_gone_from_terminated_on() {
    // Given a tenant with its credentials.
    let cluster = Cluster::connect().await;
    let account = cluster.customer_signs_up("secret", "seconds").await;
    let tenant = account.receives_credentials_in(Stage::Trial).await;
    let namespace = account.get().await.status.unwrap().namespace.unwrap().name;
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), &namespace);

    // When an administrator deletes the Secret.
    secrets.delete("database", &Default::default()).await.unwrap();

    // Then the operator writes it again, with the same password.
    eventually("the Secret is put back", || async {
        cluster.secret(&namespace, "database").await.filter(|s| s["password"] == tenant.password)
    })
    .await;

    // When an administrator changes the password in the Secret.
    secrets.patch("database", &Default::default(), &kube::api::Patch::Merge(json!({"stringData": {"password": "wrong"}}))).await.unwrap();

    // Then the operator writes the right one again, and it works.
    eventually("the password is put back", || async {
        cluster.secret(&namespace, "database").await.filter(|s| s["password"] == tenant.password)
    })
    .await;
    tenant.logs_in().await.unwrap();

    // When the owner cancels, and the account is Terminated.
    account.owner_cancels().await;
    account.reaches(Stage::Terminated).await;

    // Then the Secret is gone.
    assert!(cluster.secret(&namespace, "database").await.is_none());
}

#[tokio::test]
async fn a_password_is_renewed_on_request_without_a_failed_login_in_between() {
    // Given a tenant who is logged in.
    let cluster = Cluster::connect().await;
    let account = cluster.customer_signs_up("rotate", "seconds").await;
    let old = account.receives_credentials_in(Stage::Trial).await;
    let mut session = old.logs_in().await.unwrap();
    let namespace = account.get().await.status.unwrap().namespace.unwrap().name;

    // When an administrator asks for another password.
    account.administrator_annotates("helpdesk-operator.io/rotate-password", "1").await;

    // Then the Secret gets one. The password that it shows works at every moment of the change.
    let new = eventually("another password", || async {
        let now = super::tenant::Tenant::of(&cluster.secret(&namespace, "database").await?);
        // Whatever the Secret says at any moment works at that moment.
        now.logs_in().await.unwrap();
        (now.password != old.password).then_some(now)
    })
    .await;

    // Then the old login works while it has a session.
    old.logs_in().await.expect("the old login must work while it has sessions");
    sqlx::query("SELECT 1").execute(&mut session).await.unwrap();

    // When that session ends.
    sqlx::Connection::close(session).await.unwrap();

    // Then only the new login works.
    eventually("the old login ends", || async { old.logs_in().await.err() }).await;
    new.logs_in().await.unwrap();

    // When the operator's copy of the password is an older one, as after a restored etcd, and later when it is lost.
    let secrets: Api<Secret> = Api::namespaced(Cluster::as_operator().await, OPERATOR);
    let own = new.database.replacen("t_", "login-", 1);
    let mut before = new;
    for is_lost in [false, true] {
        if is_lost {
            secrets.delete(&own, &DeleteParams::default()).await.unwrap();
        } else {
            let older = json!({"stringData": {"b": old.password}});
            secrets.patch(&own, &PatchParams::default(), &Patch::Merge(older)).await.unwrap();
        }

        // Then the tenant gets another password that works, and the one of before opens nothing.
        let after = eventually("another password", || async {
            let now = super::tenant::Tenant::of(&cluster.secret(&namespace, "database").await?);
            (now.password != before.password && now.logs_in().await.is_ok()).then_some(now)
        })
        .await;
        assert_ne!(after.password, old.password);
        assert!(before.logs_in().await.is_err(), "a password that was lost still opens");
        before = after;
    }
}
