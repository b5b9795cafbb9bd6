//! Classes that are changed while tenants use them.

use helpdesk_operator::{
    api::{BackupPhase, BackupReason, HelpDeskAccount, HelpDeskClass, help_desk_class::HelpDeskClassStatus},
    lifecycle::Stage,
};
use k8s_openapi::api::{
    apps::v1::{ControllerRevision, Deployment},
    batch::v1::Job,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};
use sqlx::Connection;

use super::namespace;
use crate::{
    cluster::{Account, Cluster, eventually, find_condition, has_condition},
    tenant::Tenant,
};

const MAKES_TABLE: &str = "CREATE TABLE IF NOT EXISTS settings (name text PRIMARY KEY)";

/// A class whose schema is a table, as its version `version` is. One account is upgraded at a time.
async fn administrator_applies_class(cluster: &Cluster, name: &str, version: &str, migrate: Option<&str>, upgrade: Value) {
    let mut hooks = json!({"bootstrap": {"sql": {"statements": MAKES_TABLE}}});
    if let Some(statements) = migrate {
        hooks["migrate"] = json!({"sql": {"statements": statements}});
    }
    let mut all = json!({"maxConcurrent": 1, "minReadySeconds": 1});
    all.as_object_mut().unwrap().extend(upgrade.as_object().unwrap().clone());
    cluster
        .administrator_applies(json!({"kind": "HelpDeskClass", "metadata": {"name": name}, "spec": {
            "app": {"name": "echo", "version": version},
            "components": [{"name": "web", "port": 8080, "workload": {"image": "localhost/echo:1", "runAsUser": 65532, "cpu": "10m"}}],
            "routes": [{"path": "/", "component": "web", "audience": "public"}],
            "env": [{"name": "VERSION", "value": version}],
            "hooks": hooks,
            "upgrade": all}}))
        .await;
}

async fn customer_uses(cluster: &Cluster, name: &str, plan: &str) -> Account {
    let account = cluster.customer_signs_up(name, plan).await;
    account.wait_until("its app and its revision", |a| has_condition(a, "AppReady", "True") && revision(a).is_some()).await;
    account
}

fn revision(account: &HelpDeskAccount) -> Option<&str> {
    Some(account.status.as_ref()?.app.as_ref()?.revision.as_str())
}

async fn status(cluster: &Cluster, class: &str) -> HelpDeskClassStatus {
    let classes: Api<HelpDeskClass> = Api::all(cluster.client.clone());
    classes.get(class).await.unwrap().status.unwrap_or_default()
}

/// Waits until the class is as it says, and returns how many accounts were upgraded at once, at most.
async fn class_becomes(cluster: &Cluster, class: &str, what: &str, is_so: impl Fn(&HelpDeskClassStatus) -> bool) -> usize {
    let most = std::sync::atomic::AtomicUsize::new(0);
    let look = async || {
        let status = status(cluster, class).await;
        most.fetch_max(status.upgrading.len(), std::sync::atomic::Ordering::Relaxed);
        is_so(&status).then_some(())
    };
    eventually(what, look).await;
    most.into_inner()
}

fn has_reason(status: &HelpDeskClassStatus, kind: &str, reason: &str) -> bool {
    status.conditions.iter().any(|condition| condition.type_ == kind && condition.reason == reason)
}

/// The columns of the app's table in the tenant's database.
async fn columns(cluster: &Cluster, account: &Account) -> Vec<String> {
    let secret = cluster.secret(&namespace(&account.get().await), "database").await.unwrap();
    let mut connection = Tenant::of(&secret).logs_in().await.unwrap();
    let query = "SELECT column_name::text FROM information_schema.columns WHERE table_name = 'settings' ORDER BY 1";
    let columns = sqlx::query_scalar(query).fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    columns
}

#[tokio::test]
async fn a_changed_class_reaches_one_tenant_after_the_other_and_no_schema_changes_without_a_proven_backup() {
    // Given two tenants with one class.
    let cluster = Cluster::connect().await;
    administrator_applies_class(&cluster, "waves", "1", None, json!({})).await;
    cluster.administrator_applies_plan_with("waves", json!({"paymentGrace": "2s"}), json!({"class": "waves"})).await;
    let (one, two) = (customer_uses(&cluster, "waves-one", "waves").await, customer_uses(&cluster, "waves-two", "waves").await);
    let first = revision(&one.get().await).unwrap().to_owned();
    assert_eq!(revision(&two.get().await), Some(first.as_str()));

    // When its upgrade is paused and the class is changed, then nobody gets the change, but for a new customer.
    let adds = "ALTER TABLE settings ADD COLUMN IF NOT EXISTS value text";
    administrator_applies_class(&cluster, "waves", "2", Some(adds), json!({"paused": true})).await;
    class_becomes(&cluster, "waves", "the class to be paused", |s| has_reason(s, "Ready", "Paused") && s.revision.as_ref() != Some(&first))
        .await;
    let three = customer_uses(&cluster, "waves-three", "waves").await;
    assert_ne!(revision(&three.get().await), Some(first.as_str()));
    assert_eq!((revision(&one.get().await), columns(&cluster, &one).await), (Some(first.as_str()), vec!["name".to_owned()]));
    assert!(one.backups().await.is_empty());

    // When it goes on, then one tenant after the other gets it.
    administrator_applies_class(&cluster, "waves", "2", Some(adds), json!({})).await;
    let most = class_becomes(&cluster, "waves", "the end of the upgrade", |s| has_reason(s, "Ready", "UpToDate")).await;
    assert_eq!(most, 1);
    let done = status(&cluster, "waves").await;
    assert_eq!((done.accounts, done.updated_accounts, done.failed), (3, 3, vec![]));

    // Then each has the new schema, and its backup was proven before that was made.
    for account in [&one, &two] {
        assert_eq!(columns(&cluster, account).await, ["name", "value"]);
        let backups = account.backups().await;
        let before = backups.iter().find(|backup| backup.spec.reason == BackupReason::Upgrade).expect("no backup was taken");
        let proven = before.status.as_ref().unwrap();
        assert_eq!(proven.phase, BackupPhase::Verified);
        let jobs: Api<Job> = Api::namespaced(cluster.client.clone(), &namespace(&account.get().await));
        let jobs = jobs.list(&ListParams::default()).await.unwrap();
        let migration = jobs.items.iter().find(|job| job.name_any().starts_with("app-migrate-")).expect("no hook ran");
        assert!(proven.verified_at.as_ref().unwrap().0 <= migration.creation_timestamp().unwrap().0);
        let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &namespace(&account.get().await));
        assert_eq!(deployments.get("web").await.unwrap().status.unwrap().ready_replicas, Some(1));
    }
    // Then the customer who came with the new class needed neither.
    assert!(three.backups().await.is_empty());

    // When somebody deletes a revision, then that is refused.
    let revisions: Api<ControllerRevision> = Api::namespaced(cluster.client.clone(), "helpdesk-operator");
    let refused = revisions.delete(&first, &DeleteParams::default()).await.unwrap_err().to_string();
    assert!(refused.contains("the operator's"), "{refused}");
}

#[tokio::test]
async fn a_hook_that_fails_stops_the_upgrade_and_a_corrected_class_goes_first_to_whom_it_failed() {
    // Given two tenants with one class.
    let cluster = Cluster::connect().await;
    administrator_applies_class(&cluster, "stops", "1", None, json!({})).await;
    cluster.administrator_applies_plan_with("stops", json!({"paymentGrace": "2s"}), json!({"class": "stops"})).await;
    let (one, two) = (customer_uses(&cluster, "stops-one", "stops").await, customer_uses(&cluster, "stops-two", "stops").await);
    let first = revision(&one.get().await).unwrap().to_owned();

    // When the class gets a hook that fails.
    administrator_applies_class(&cluster, "stops", "2", Some("SELECT 1/0"), json!({})).await;
    class_becomes(&cluster, "stops", "the upgrade to stop", |s| has_reason(s, "Stalled", "TooManyFailures")).await;

    // Then the tenant whose turn it was says why, and the other works as before.
    assert_eq!(status(&cluster, "stops").await.failed, ["stops-one"]);
    assert_eq!(find_condition(&one.get().await, "AppReady").unwrap().reason, "HookFailed");
    let other = two.get().await;
    assert_eq!((revision(&other), has_condition(&other, "AppReady", "True")), (Some(first.as_str()), true));
    assert!(two.backups().await.is_empty());

    // When the failed tenant does not pay, then it is blocked all the same, and the upgrade goes on for nobody.
    one.billing_reports_active().await;
    one.reaches(Stage::Active).await;
    one.billing_reports_past_due().await;
    one.reaches(Stage::Blocked).await;
    assert!(has_reason(&status(&cluster, "stops").await, "Stalled", "TooManyFailures"));
    assert_eq!(revision(&two.get().await), Some(first.as_str()));

    // When the class is corrected, then the other tenant gets it, and the one that was blocked once it has paid.
    administrator_applies_class(&cluster, "stops", "3", Some("ALTER TABLE settings ADD COLUMN IF NOT EXISTS value text"), json!({})).await;
    class_becomes(&cluster, "stops", "the other's upgrade", |s| has_reason(s, "Ready", "UpToDate") && s.updated_accounts == 1).await;
    assert_eq!(columns(&cluster, &two).await, ["name", "value"]);
    one.billing_reports_active().await;
    one.reaches(Stage::Active).await;
    class_becomes(&cluster, "stops", "its upgrade", |s| has_reason(s, "Ready", "UpToDate") && s.updated_accounts == 2).await;
    one.wait_until("AppReady", |a| has_condition(a, "AppReady", "True")).await;
    assert_eq!(columns(&cluster, &one).await, ["name", "value"]);
}
