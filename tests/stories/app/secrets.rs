//! The secrets of an app: made once, kept with the backups, destroyed with them.

use age::secrecy::ExposeSecret;
use helpdesk_operator::{
    api::{BackupPhase, BackupReason, HelpDeskAccount},
    lifecycle::Stage,
};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::{Value, json};

use super::namespace;
use crate::cluster::{Account, Cluster, OPERATOR, eventually, find_condition, has_condition, setting};

/// The class of an app that signs its sessions with a secret of its own.
async fn administrator_applies_class(cluster: &Cluster) {
    cluster
        .administrator_applies(json!({"kind": "HelpDeskClass", "metadata": {"name": "app-secrets"}, "spec": {
            "app": {"name": "echo", "version": "1"},
            "components": [{"name": "web", "port": 8080, "workload": {"image": setting("HELPDESK_TEST_ECHO_IMAGE"), "runAsUser": 65532, "cpu": "10m"}}],
            "routes": [{"path": "/", "component": "web", "audience": "public"}],
            "secrets": [{"name": "session", "format": "hex", "length": 64}],
            "env": [{"name": "SESSION_KEY", "value": "${secrets.session}"}]}}))
        .await;
}

async fn administrator_applies_plan(cluster: &Cluster, name: &str, windows: Value, store: &str) {
    let fields = json!({"class": "app-secrets", "placements": [{"region": "eu-1", "store": store, "domainBase": "helpdesk.example"}]});
    cluster.administrator_applies_plan_with(name, windows, fields).await;
}

/// What the app is given: the key of its sessions, and the first password of its administrator.
async fn app_is_given(account: &Account) -> (String, String) {
    account.wait_until("AppReady", |a| has_condition(a, "AppReady", "True")).await;
    let namespace = namespace(&account.get().await);
    let key = account.cluster.secret(&namespace, "app-env").await.unwrap()["SESSION_KEY"].clone();
    (key, account.cluster.secret(&namespace, "app-admin").await.unwrap()["password"].clone())
}

/// The operator's own Secret of the account's tenant.
async fn tenant_secret(account: &Account) -> String {
    namespace(&account.get().await).replacen("hd-", "login-", 1)
}

#[tokio::test]
async fn the_secrets_of_an_app_are_the_same_after_a_return_from_deleted_and_go_with_the_last_backup() {
    // Given a store of which a person holds the recovery key, and an account whose app has a secret.
    let cluster = Cluster::connect().await;
    let recovery = age::x25519::Identity::generate();
    cluster
        .administrator_applies(json!({"kind": "BackupStore", "metadata": {"name": "app-cold"}, "spec": {
            "region": "eu-1", "endpoint": "https://s3-eu-1.storage.svc", "bucket": "helpdesk-cold", "prefix": "app/",
            "credentialsSecret": "s3-eu-1", "eraseCredentialsSecret": "s3-eu-1-erase", "caSecret": "s3-ca",
            "expectedBucketOwner": "100000000001",
            "keyEscrow": {"store": "eu-escrow", "recoveryRecipient": recovery.to_public().to_string()}}}))
        .await;
    administrator_applies_class(&cluster).await;
    let windows = json!({"paymentGrace": "2s", "blocked": "15s", "terminated": "2s", "eraseDelay": "3s"});
    administrator_applies_plan(&cluster, "app-secrets", windows, "app-cold").await;
    let account = cluster.customer_signs_up("app-secrets", "app-secrets").await;
    account.billing_reports_active().await;
    let given = app_is_given(&account).await;
    assert!(given.0.len() == 64 && given.0.bytes().all(|b| b.is_ascii_hexdigit()), "{given:?}");
    let own = tenant_secret(&account).await;

    // When the account is blocked, and a person writes one more secret after the keys of its cold backup were made.
    account.billing_reports_past_due().await;
    let frozen = account.wait_for_backup("a Frozen backup", |b| b.spec.reason == BackupReason::Frozen).await.name_any();
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), OPERATOR);
    eventually("its key", async || secrets.get_opt(&format!("backup-key-{frozen}")).await.unwrap().map(drop)).await;
    let late = json!({"stringData": {"secrets.late": "came-late"}});
    secrets.patch(&own, &Default::default(), &kube::api::Patch::Merge(late)).await.unwrap();

    // When the account is Deleted.
    account.reaches(Stage::Deleted).await;

    // Then its secrets lie with the key of its cold backup and nowhere else, but the one that the backup lacks stays.
    let left = cluster.secret(OPERATOR, &own).await.unwrap();
    assert_eq!(left, [("secrets.late".to_owned(), "came-late".to_owned())].into());
    let frozen = account
        .wait_for_backup("its Frozen backup", |b| {
            b.spec.reason == BackupReason::Frozen && b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Verified)
        })
        .await;
    let key = secrets.get(&format!("backup-key-{}", frozen.name_any())).await.unwrap().data.unwrap();
    assert_eq!((&key["app.secrets.session"].0[..], &key["app.admin"].0[..]), (given.0.as_bytes(), given.1.as_bytes()));

    // Then whoever has the recovery key reads them from the escrow, in a file that opens the backup.
    let file = String::from_utf8(age::decrypt(&recovery, &key["escrow.age"].0).unwrap()).unwrap();
    assert!(file.contains(&format!("\n# app secret secrets.session={}", given.0)), "{file}");
    let identity: age::x25519::Identity = file.lines().next().unwrap().parse().unwrap();
    assert_eq!(identity.to_string().expose_secret().as_bytes(), &key["identity"].0[..]);

    // When billing reports a payment, then the app is given what it was given before.
    account.billing_reports_active().await;
    account.reaches(Stage::Active).await;
    assert_eq!(app_is_given(&account).await, given);

    // When the operator's Secret is deleted by hand, then the secrets come from the backup.
    cluster.administrator_deletes_secret(&own).await;
    let again = eventually("the secrets are stored again", async || {
        cluster.secret(OPERATOR, &own).await.filter(|s| s.contains_key("secrets.session"))
    })
    .await;
    assert_eq!((again["secrets.session"].clone(), again["admin"].clone()), given);

    // When the owner has everything erased, then no Secret of the account is left.
    account.owner_erases_without_cold_backup().await;
    account.reaches(Stage::Expired).await;
    let of_account = ListParams::default().labels("helpdesk-operator.io/account=app-secrets");
    let left = Api::<Secret>::all(cluster.client.clone()).list_metadata(&of_account).await.unwrap();
    assert_eq!(left.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), Vec::<String>::new());
}

#[tokio::test]
async fn a_secret_of_an_app_that_is_lost_is_asked_for_and_no_other_is_made() {
    // Given an account whose app has a secret, and no backup.
    let cluster = Cluster::connect().await;
    administrator_applies_class(&cluster).await;
    administrator_applies_plan(&cluster, "app-lost", json!({}), "eu-cold").await;
    let account = cluster.customer_signs_up("app-lost", "app-lost").await;
    let given = app_is_given(&account).await;
    let own = tenant_secret(&account).await;

    // When the operator's Secret is deleted by hand.
    cluster.administrator_deletes_secret(&own).await;

    // Then the app goes on with what it has, and the condition says what is lost and where it belongs.
    let asks = |a: &HelpDeskAccount| {
        find_condition(a, "AppReady").is_some_and(|c| {
            c.reason == "SecretLost"
                && c.message.contains("admin, secrets.session")
                && c.message.contains(&own)
                && !c.message.contains(&given.0)
        })
    };
    account.wait_until("AppReady to ask for the secret", asks).await;
    let namespace = namespace(&account.get().await);
    assert_eq!(cluster.secret(&namespace, "app-env").await.unwrap()["SESSION_KEY"], given.0);

    // When an administrator puts it back, then the app is ready again, with the same secrets.
    let secrets: Api<Secret> = Api::namespaced(cluster.client.clone(), OPERATOR);
    let patch = json!({"stringData": {"secrets.session": given.0, "admin": given.1}});
    secrets.patch(&own, &Default::default(), &kube::api::Patch::Merge(patch)).await.unwrap();
    assert_eq!(app_is_given(&account).await, given);
}
