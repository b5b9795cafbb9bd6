//! Servers of other major versions of PostgreSQL, and what an image can serve.

use helpdesk_operator::{api::DatabaseServer, lifecycle::Stage};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{
    cluster::{Cluster, eventually, find_condition},
    operator::{Servers, Shard},
    tenant::{databases_and_roles_left, superuser_logs_in_at},
};

/// A customer's database is dropped after the trial, restored after a payment, and is what it was.
async fn account_is_dropped_and_restored(shard: &Shard, name: &str) {
    // Given a tenant with 200 tickets.
    shard.administrator_applies_plan(json!({"trial": "5s", "blocked": "25s", "terminated": "2s"})).await;
    let account = shard.customer_signs_up(name).await;
    let tenant = account.receives_credentials_in(Stage::Trial).await;
    tenant.creates_tickets(200).await;
    let before = tenant.checksum().await;

    // When the trial ends and the database is dropped, and then billing reports a payment.
    account.reaches(Stage::Deleted).await;
    account.billing_reports_active().await;
    let tenant = account.receives_credentials_in(Stage::Active).await;

    // Then the tenant finds its data as it was.
    assert_eq!(tenant.checksum().await, before);
}

/// Waits until the server's condition Ready has this status. Returns its reason and its message.
async fn wait_for_server_ready(shard: &Shard, status: &str) -> (String, String) {
    let servers: Api<DatabaseServer> = Api::all(shard.cluster.client.clone());
    eventually(&format!("Ready={status} of {}", shard.name), || async {
        let server = servers.get(&shard.name).await.unwrap();
        let found = server.status?.conditions.into_iter().find(|c| c.type_ == "Ready" && c.status == status)?;
        Some((found.reason, found.message))
    })
    .await
}

#[tokio::test]
async fn an_account_on_postgresql_16_is_deleted_and_comes_back_as_it_was() {
    // Given a server with PostgreSQL 16, and an operator.
    let shard = Shard::new("v16", Servers::Major(16)).await;
    let _operator = shard.start_operator("one", &[]);

    // Then the server is Ready, and says which majors the image serves.
    let (_, message) = wait_for_server_ready(&shard, "True").await;
    assert!(message.contains("PostgreSQL 16.") && message.contains("16, 17 with client 17"), "{message}");

    // When an account on it is dropped and paid for, then it comes back as it was.
    account_is_dropped_and_restored(&shard, "v16").await;
}

#[tokio::test]
async fn postgresql_18_is_refused_by_an_image_without_its_client_and_used_by_one_that_has_it() {
    // Given a server with PostgreSQL 18, and an operator whose image has no client for it.
    let mut shard = Shard::new("v18", Servers::Major(18)).await;
    shard.administrator_applies_plan(json!({})).await;
    let without = shard.start_operator("without", &[]);

    // Then the server is not Ready and says why, and an account is not placed on it.
    let (reason, message) = wait_for_server_ready(&shard, "False").await;
    assert_eq!(reason, "NoClient");
    assert!(message.contains("PostgreSQL 18 is not among the majors that this image serves (16, 17 with client 17)"), "{message}");
    let early = shard.customer_signs_up("v18-early").await;
    early
        .wait_until("no home", |a| find_condition(a, "Ready").is_some_and(|c| c.message.contains("v18: PostgreSQL 18 is not among")))
        .await;

    // When an operator starts whose image has the client.
    drop(without);
    let image = shard.image.clone();
    shard.image = format!("{image}-18");
    let with = shard.start_operator("with", &[("HELPDESK_OPERATOR_CLIENT_MAJORS", "17,18")]);

    // Then the server is Ready, and accounts on it work, are dropped and restored.
    wait_for_server_ready(&shard, "True").await;
    early.receives_credentials_in(Stage::Trial).await;
    early.billing_reports_active().await;
    let tenant = early.receives_credentials_in(Stage::Active).await;
    account_is_dropped_and_restored(&shard, "v18").await;
    drop(with);

    // When the first image comes back, and the owner of an account on that server cancels.
    shard.image = image;
    let _again = shard.start_operator("again", &[]);
    wait_for_server_ready(&shard, "False").await;
    early.owner_cancels().await;

    // Then the tenant is locked out on time, and the backup waits for a client.
    eventually("the tenant is shut out", || async { tenant.logs_in().await.err() }).await;
    early
        .wait_for_backup("its backup waits for a client", |b| {
            b.status.as_ref().is_some_and(|s| s.conditions.iter().any(|c| c.type_ == "Ready" && c.reason == "NoClient"))
        })
        .await;
}

#[tokio::test]
async fn a_server_under_another_identity_is_used_again_once_a_person_has_accepted_it() {
    // Given a tenant on a server.
    let shard = Shard::new("upgraded", Servers::First).await;
    shard.administrator_applies_plan(json!({"eraseDelay": "1s"})).await;
    let account = shard.customer_signs_up("upgraded").await;
    let operator = shard.start_operator("only", &[]);
    let tenant = account.receives_credentials_in(Stage::Trial).await;
    let servers: Api<DatabaseServer> = Api::all(shard.cluster.client.clone());
    let identity = servers.get("upgraded").await.unwrap().status.unwrap().system_identifier.unwrap();
    operator.kill();

    // When another identity is recorded in the status and in the ledger, as before pg_upgrade.
    let as_operator: Api<DatabaseServer> = Api::all(Cluster::as_operator().await);
    let former = json!({"status": {"systemIdentifier": "1"}});
    as_operator.patch_status("upgraded", &PatchParams::default(), &Patch::Merge(former)).await.unwrap();
    let host = shard.postgres.as_ref().unwrap().host.clone();
    let mut ledger = superuser_logs_in_at(&host, "helpdesk_operator").await.unwrap();
    sqlx::query("UPDATE accounts SET system_identifier = '1'").execute(&mut ledger).await.unwrap();

    // Then the server is refused, and says what a person can do. The tenant works on.
    let _operator = shard.start_operator("again", &[]);
    let (reason, message) = wait_for_server_ready(&shard, "False").await;
    assert_eq!(reason, "IdentityChanged");
    assert!(message.contains(&format!("helpdesk-operator.io/accept-identity={identity}")), "{message}");
    tenant.logs_in().await.unwrap();

    // When a person accepts the identity, then the server is Ready, and its databases can be dropped.
    let accepted = json!({"metadata": {"annotations": {"helpdesk-operator.io/accept-identity": identity}}});
    servers.patch("upgraded", &PatchParams::default(), &Patch::Merge(accepted)).await.unwrap();
    wait_for_server_ready(&shard, "True").await;
    account.owner_erases_without_cold_backup().await;
    account.reaches(Stage::Expired).await;
    assert_eq!(databases_and_roles_left(&tenant.database).await, 0);
}
