//! What must not be possible.

use helpdesk_operator::{
    api::{BackupPhase, Condition, HelpDeskAccount, HelpDeskPlan},
    lifecycle::Stage,
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::cluster::{Account, Cluster, eventually, find_condition, has_condition};

#[tokio::test]
async fn a_tenant_reaches_nothing_of_its_neighbour() {
    // Given two tenants on one server.
    let cluster = Cluster::connect().await;
    let (acme, beta) =
        (cluster.customer_signs_up("neighbour-a", "seconds").await, cluster.customer_signs_up("neighbour-b", "seconds").await);
    let (acme, beta) = (acme.receives_credentials_in(Stage::Trial).await, beta.receives_credentials_in(Stage::Trial).await);
    beta.creates_tickets(5).await;

    // When one of them tries to enter any other database, then it is refused.
    for database in [beta.database.as_str(), "postgres", "template1", "helpdesk_operator"] {
        assert!(acme.logs_in_to(database).await.is_err(), "acme got into {database}");
    }

    // When it tries to become the other, to change it or to read the server's files, then it is refused.
    let mut connection = acme.logs_in().await.unwrap();
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
    // Given an account whose windows last seconds.
    let cluster = Cluster::connect().await;
    cluster.administrator_applies_plan("held", json!({"trial": "3s", "blocked": "15s", "terminated": "2s", "coldBackup": "60s"})).await;
    let account = cluster.customer_signs_up("held", "held").await;
    let tenant = account.receives_credentials_in(Stage::Trial).await;

    // When somebody places a hold, and the time to drop the database has come.
    account.administrator_applies(json!({"hold": {"reason": "case 7", "by": "legal@example.com"}})).await;
    let overdue = account.wait_until("Overdue", |a| has_condition(a, "Overdue", "True")).await;

    // Then the account says that it is held, and its database and its backups are kept.
    assert_eq!(overdue.status.as_ref().unwrap().stage, Some(Stage::Terminated));
    assert_eq!(find_condition(&overdue, "Overdue").unwrap().reason, "Held");
    assert!(account.backups().await.iter().all(|b| b.spec.hold.is_some()));
    assert!(super::tenant::databases_and_roles_left(&tenant.database).await > 0);

    // When the hold is lifted.
    account.administrator_applies(json!({})).await;

    // Then the account ends, and nothing is left on the server.
    account.reaches(Stage::Expired).await;
    assert_eq!(super::tenant::databases_and_roles_left(&tenant.database).await, 0);
}

#[tokio::test]
async fn a_bucket_in_which_overwritten_backups_are_lost_is_refused_until_somebody_accepts_that() {
    // Given a bucket that keeps no versions.
    let cluster = Cluster::connect().await;
    let applies = async |fields: serde_json::Value| {
        let mut spec = json!({"region": "eu-1", "endpoint": "https://s3-eu-1.storage.svc", "bucket": "helpdesk-plain", "prefix": "stories/",
            "credentialsSecret": "s3-eu-1", "eraseCredentialsSecret": "s3-eu-1-erase", "caSecret": "s3-ca"});
        spec.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        cluster.administrator_applies(json!({"kind": "BackupStore", "metadata": {"name": "eu-plain"}, "spec": spec})).await;
    };
    let stores: kube::Api<helpdesk_operator::api::BackupStore> = kube::Api::all(cluster.client.clone());
    let becomes = async |status: &str, reason: &str| {
        super::cluster::eventually(&format!("a store that is {reason}"), || async {
            let conditions = stores.get("eu-plain").await.unwrap().status?.conditions;
            conditions.iter().any(|c| c.type_ == "Ready" && c.status == status && c.reason == reason).then_some(())
        })
        .await;
    };

    // When it becomes a store, then that is not ready.
    applies(json!({})).await;
    becomes("False", "NotVersioned").await;

    // When somebody accepts what may be lost, then it is.
    applies(json!({"allowOverwrites": true})).await;
    becomes("True", "Connected").await;
}

#[tokio::test]
async fn a_paused_account_is_looked_at_and_left_alone() {
    // Given a tenant in its trial.
    let cluster = Cluster::connect().await;
    cluster.administrator_applies_plan("paused", json!({"trial": "4s"})).await;
    let account = cluster.customer_signs_up("paused", "paused").await;
    let tenant = account.receives_credentials_in(Stage::Trial).await;

    // When an administrator pauses the account, and the trial ends.
    account.administrator_applies(json!({"paused": true})).await;

    // Then the account says that it is paused, and the tenant still logs in.
    account.wait_until("Overdue", |a| find_condition(a, "Overdue").is_some_and(|c| c.reason == "Paused")).await;
    tenant.logs_in().await.unwrap();

    // When the pause is over.
    account.administrator_applies(json!({})).await;

    // Then the account is Blocked.
    account.reaches(Stage::Blocked).await;
}

#[tokio::test]
async fn a_status_that_was_wiped_is_rebuilt_from_the_ledger() {
    // Given an account that is Blocked after a failed payment, with a proven backup.
    let cluster = Cluster::connect().await;
    let account = cluster.customer_signs_up("wiped", "seconds").await;
    account.receives_credentials_in(Stage::Trial).await;
    account.billing_reports_active().await;
    account.receives_credentials_in(Stage::Active).await;
    account.billing_reports_past_due().await;
    let before = account.reaches(Stage::Blocked).await.status.unwrap();
    account.wait_for_backup("a Frozen backup is proven", |b| b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Verified)).await;

    // When its status is lost. Admission lets only the operator write a status, so the story impersonates it.
    cluster.status_is_wiped(&account.name).await;

    // Then the operator writes the same stage, deadlines and billing again, from its ledger.
    let after = account
        .wait_until("a rebuilt status", |a| a.status.as_ref().is_some_and(|s| s.stage == Some(Stage::Blocked) && s.billing.is_some()))
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
    // Given a tenant with 20 tickets.
    let cluster = Cluster::connect().await;
    // Its owner is in a Secret that is another account's, as far as it says.
    cluster.administrator_applies_plan("deletion", json!({"eraseDelay": "1s"})).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let accounts = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "accounts"}});
    namespaces.patch("accounts", &PatchParams::apply("stories"), &Patch::Apply(accounts)).await.unwrap();
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), "accounts");
    let administrator_marks_secret = async |of: &str| {
        let secret = json!({"apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "deletion-owner", "annotations": {"helpdesk-operator.io/for-account": of}},
            "stringData": {"name": "Ana", "email": "ana@deletion.example"}});
        secrets.patch("deletion-owner", &PatchParams::apply("stories").force(), &Patch::Apply(secret)).await.unwrap();
    };
    administrator_marks_secret("another").await;
    let account = Account { cluster: cluster.clone(), name: "deletion".into(), plan: "deletion".into(), region: "eu-1".into() };
    account.administrator_applies(json!({"owner": {"secretRef": {"namespace": "accounts", "name": "deletion-owner"}}})).await;

    // Then the account waits, and does not tell whether there is such a Secret.
    let not_read = |a: &HelpDeskAccount| {
        find_condition(a, "Ready").is_some_and(|c| c.reason == "OwnerUnknown" && c.message.contains("does not exist or is not marked"))
    };
    account.wait_until("the owner is not read", not_read).await;

    // When the Secret is marked for the account.
    administrator_marks_secret("deletion").await;
    let tenant = account.receives_credentials_in(Stage::Trial).await;
    tenant.creates_tickets(20).await;

    // When an administrator deletes the account without a confirmation.
    let refusal = cluster.accounts().delete("deletion", &Default::default()).await.unwrap_err().to_string();

    // Then the deletion is refused, and the tenant logs in.
    assert!(refusal.contains("confirm-delete"), "{refusal}");
    tenant.logs_in().await.unwrap();

    // When the administrator confirms the deletion and deletes the account.
    account.administrator_annotates("helpdesk-operator.io/confirm-delete", "deletion").await;
    cluster.accounts().delete("deletion", &Default::default()).await.unwrap();

    // Then the account and its database are gone, and one proven backup is kept.
    super::cluster::wait_until_deleted(cluster.accounts(), "deletion").await;
    assert_eq!(super::tenant::databases_and_roles_left(&tenant.database).await, 0);
    let left = account.backups().await;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].status.as_ref().unwrap().phase, BackupPhase::Verified);

    // Then neither the Secret nor the ledger says who the owner was, and the host name is reserved for a while.
    let secret = cluster.secret("accounts", "deletion-owner").await.unwrap();
    assert!(!secret.contains_key("name") && !secret.contains_key("email"), "the owner's Secret was not scrubbed");
    let mut ledger = super::tenant::superuser_logs_in("helpdesk_operator").await;
    let hash: Option<String> =
        sqlx::query_scalar("SELECT owner_hash FROM accounts WHERE account = 'deletion'").fetch_one(&mut ledger).await.unwrap();
    assert_eq!(hash, None);
    assert!(cluster.claims().get("deletion.helpdesk.example").await.unwrap().spec.reserved_until.is_some());

    // When an account that is Deleted already is deleted, then its object goes too.
    let late = cluster.customer_signs_up("deletion-late", "deletion").await;
    late.receives_credentials_in(Stage::Trial).await;
    late.administrator_applies(json!({"closure": {"mode": "Erase"}})).await;
    late.reaches(Stage::Deleted).await;
    late.administrator_annotates("helpdesk-operator.io/confirm-delete", "deletion-late").await;
    cluster.accounts().delete("deletion-late", &Default::default()).await.unwrap();
    super::cluster::wait_until_deleted(cluster.accounts(), "deletion-late").await;
}

#[tokio::test]
async fn a_namespace_that_hangs_keeps_the_account_from_being_terminated_and_is_told() {
    // Given a tenant whose namespace holds something that cannot be deleted.
    let cluster = Cluster::connect().await;
    let account = cluster.customer_signs_up("hangs", "seconds").await;
    let tenant = account.receives_credentials_in(Stage::Trial).await;
    let namespace = tenant.database.replacen("t_", "hd-", 1);
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), &namespace);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "stays", "finalizers": ["example.org/stays"]}});
    maps.patch("stays", &PatchParams::apply("stories"), &Patch::Apply(map)).await.unwrap();

    // When the owner cancels, then the tenant is locked out, and the account says what is left.
    account.owner_cancels().await;
    let waits = |a: &HelpDeskAccount| {
        find_condition(a, "Reconciling").is_some_and(|c| c.message.contains(&namespace) && c.message.contains("example.org/stays"))
    };
    let waiting = account.wait_until("the namespace is told", waits).await;
    assert_eq!(waiting.status.unwrap().stage, Some(Stage::Trial));
    assert!(tenant.logs_in().await.is_err());

    // When it can be deleted, then the account is Terminated, and nothing of the namespace is left.
    let free = json!({"metadata": {"finalizers": null}});
    maps.patch("stays", &PatchParams::default(), &Patch::Merge(free)).await.unwrap();
    account.reaches(Stage::Terminated).await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    assert!(namespaces.get_opt(&namespace).await.unwrap().is_none());
}

#[tokio::test]
async fn what_a_plan_names_and_nobody_has_is_told_by_plan_account_and_backup() {
    // Given a plan that names a store that nobody has, and an account of this plan with a backup that was asked for.
    let cluster = Cluster::connect().await;
    let placements = json!([{"region": "eu-1", "store": "guards-later", "domainBase": "helpdesk.example"}]);
    cluster.administrator_applies_plan_with("guards-store", json!({}), json!({"placements": placements})).await;
    let account = cluster.customer_signs_up("guards-store", "guards-store").await;
    account.receives_credentials_in(Stage::Trial).await;
    cluster
        .administrator_applies(json!({"kind": "ColdBackup", "metadata": {"name": "guards-store-now"}, "spec": {
            "account": "guards-store", "accountUID": account.get().await.metadata.uid, "store": "guards-later", "reason": "Manual",
            "expiresAt": helpdesk_operator::clock::now() + k8s_openapi::jiff::SignedDuration::from_hours(1)}}))
        .await;

    // Then plan, account and backup name the store.
    let plans: Api<HelpDeskPlan> = Api::all(cluster.client.clone());
    let plan_is = async |status: &str, reason: &str| {
        let conditions = plans.get("guards-store").await.unwrap().status.unwrap_or_default().conditions;
        conditions.into_iter().find(|c: &Condition| c.type_ == "Ready" && c.status == status && c.reason == reason).map(|c| c.message)
    };
    let told = eventually("the plan names the store", || plan_is("False", "NoStore")).await;
    assert!(told.contains("BackupStore guards-later"), "{told}");
    let told = account.wait_until("no store", |a| find_condition(a, "BackupsCurrent").is_some_and(|c| c.reason == "NoStore")).await;
    assert!(has_condition(&told, "BackupsCurrent", "False"));
    let backup = async || cluster.backups().get("guards-store-now").await.unwrap().status;
    let told = "guards-later: there is no such BackupStore";
    eventually("the backup names the store", async || {
        backup().await?.conditions.into_iter().find(|c| c.type_ == "Ready" && c.message.contains(told)).map(drop)
    })
    .await;

    // When an administrator creates the store, then all three notice at once.
    cluster
        .administrator_applies(json!({"kind": "BackupStore", "metadata": {"name": "guards-later"}, "spec": {
            "region": "eu-1", "endpoint": "https://s3-eu-1.storage.svc", "bucket": "helpdesk-cold", "prefix": "guards-later/",
            "credentialsSecret": "s3-eu-1", "caSecret": "s3-ca", "expectedBucketOwner": "100000000001"}}))
        .await;
    eventually("the plan is ready", || plan_is("True", "Resolved")).await;
    account.wait_until("a store", |a| has_condition(a, "BackupsCurrent", "True")).await;
    eventually("its mover runs", async || (backup().await?.phase != BackupPhase::Pending).then_some(())).await;
}
