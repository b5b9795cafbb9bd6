//! Databases of every kind, each the whole way by an account of its own: deleted, paid for, and what they were.

use helpdesk_operator::{
    api::{BackupReason, plan::Schemas},
    lifecycle::Stage,
};
use serde_json::json;

use super::{
    cases::{self, Case},
    cluster::Cluster,
};

/// Drops and restores one database. Returns what went wrong.
async fn database_is_dropped_and_restored(cluster: &Cluster, case: &Case) -> Option<String> {
    // Given a tenant who has paid, with the database of the case.
    let name = format!("corpus-{}", case.name);
    let extensions: Vec<_> = case.extensions.iter().map(|name| json!({"name": name})).collect();
    let schemas = if case.schemas == Schemas::Own { "Own" } else { "Fixed" };
    let database = json!({"connectionLimit": 10, "extensions": extensions, "schemas": schemas});
    let windows = json!({"paymentGrace": "1s", "blocked": "20s", "terminated": "2s"});
    cluster.administrator_applies_plan_with(&name, windows, json!({"database": database})).await;
    let account = cluster.customer_signs_up(&name, &name).await;
    account.receives_credentials_in(Stage::Trial).await;
    account.billing_reports_active().await;
    let tenant = account.receives_credentials_in(Stage::Active).await;
    let mut session = tenant.logs_in().await.unwrap();
    if let Err(error) = sqlx::raw_sql(sqlx::AssertSqlSafe(case.sql.clone())).execute(&mut session).await {
        return Some(format!("{name}: its SQL: {error}"));
    }
    let before = cases::seen_by_tenant(&mut session).await;
    drop(session);

    // When the tenant stops paying until its database is dropped, and then pays.
    account.billing_reports_past_due().await;
    account.reaches(Stage::Blocked).await;
    let frozen = account
        .wait_for_backup("its Frozen backup", |b| {
            b.spec.reason == BackupReason::Frozen && b.status.as_ref().is_some_and(|s| s.verified_at.is_some())
        })
        .await
        .status
        .unwrap();
    account.reaches(Stage::Deleted).await;
    account.billing_reports_active().await;
    let tenant = account.receives_credentials_in(Stage::Active).await;

    // Then the database was restored the expected way, and the tenant sees what it saw before.
    let after = cases::seen_by_tenant(&mut tenant.logs_in().await.unwrap()).await;
    if frozen.restored_by != Some(case.way) || frozen.left_out.len() != case.left_out.len() {
        return Some(format!("{name}: restored by {:?} without {:?}", frozen.restored_by, frozen.left_out));
    }
    cases::difference(case, &before, &after).map(|difference| format!("{name}: {difference}"))
}

#[tokio::test]
async fn every_kind_of_database_is_deleted_and_comes_back() {
    // Given every database of the corpus that the server's version knows.
    let cluster = Cluster::connect().await;
    let cases: Vec<_> = cases::all().into_iter().filter(|case| case.since <= 17).collect();

    // When each is dropped and restored, by an account of its own.
    let outcomes = futures::future::join_all(cases.iter().map(|case| database_is_dropped_and_restored(&cluster, case))).await;

    // Then each is what it was.
    let wrong: Vec<_> = outcomes.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
