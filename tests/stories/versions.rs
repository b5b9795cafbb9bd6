//! Servers of other major versions of PostgreSQL, and what an image can serve.

use helpdesk_operator::{api::DatabaseServer, lifecycle::Stage};
use kube::Api;
use serde_json::json;

use super::{
    cluster::{eventually, find_condition},
    operator::{Servers, Shard},
};

/// An account of the shard is filled, deleted, paid for, and is what it was.
async fn an_account_goes_and_comes_back(shard: &Shard, name: &str) {
    shard.administrator_applies_plan(json!({"trial": "5s", "blocked": "25s", "terminated": "2s"})).await;
    let account = shard.customer_signs_up(name).await;
    let tenant = account.receives_credentials_in(Stage::Trial).await;
    tenant.creates_tickets(200).await;
    let before = tenant.checksum().await;
    account.reaches(Stage::Deleted).await;
    account.billing_reports_active().await;
    let tenant = account.receives_credentials_in(Stage::Active).await;
    assert_eq!(tenant.checksum().await, before);
}

/// The reason and the message of the server's condition Ready, once the operator looked.
async fn ready(shard: &Shard, status: &str) -> (String, String) {
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
    let shard = Shard::new("v16", Servers::Major(16)).await;
    let _operator = shard.start_operator("one", &[]);
    let (_, message) = ready(&shard, "True").await;
    assert!(message.contains("PostgreSQL 16.") && message.contains("16, 17 with client 17"), "{message}");
    an_account_goes_and_comes_back(&shard, "v16").await;
}

#[tokio::test]
async fn postgresql_18_is_refused_by_an_image_without_its_client_and_used_by_one_that_has_it() {
    let mut shard = Shard::new("v18", Servers::Major(18)).await;
    shard.administrator_applies_plan(json!({})).await;
    let without = shard.start_operator("without", &[]);
    let (reason, message) = ready(&shard, "False").await;
    assert_eq!(reason, "NoClient");
    assert!(message.contains("PostgreSQL 18 is not among the majors that this image serves (16, 17 with client 17)"), "{message}");
    let early = shard.customer_signs_up("v18-early").await;
    early
        .wait_until("no home", |a| find_condition(a, "Ready").is_some_and(|c| c.message.contains("v18: PostgreSQL 18 is not among")))
        .await;
    drop(without);

    let image = shard.image.clone();
    shard.image = format!("{image}-18");
    let with = shard.start_operator("with", &[("HELPDESK_OPERATOR_CLIENT_MAJORS", "17,18")]);
    ready(&shard, "True").await;
    early.receives_credentials_in(Stage::Trial).await;
    early.billing_reports_active().await;
    let tenant = early.receives_credentials_in(Stage::Active).await;
    an_account_goes_and_comes_back(&shard, "v18").await;
    drop(with);

    // Who lives on a server that the image serves no more is shut out on time, and the backup waits.
    shard.image = image;
    let _again = shard.start_operator("again", &[]);
    ready(&shard, "False").await;
    early.owner_cancels().await;
    eventually("the tenant is shut out", || async { tenant.logs_in().await.err() }).await;
    early
        .wait_for_backup("its backup waits for a client", |b| {
            b.status.as_ref().is_some_and(|s| s.conditions.iter().any(|c| c.type_ == "Ready" && c.reason == "NoClient"))
        })
        .await;
}
