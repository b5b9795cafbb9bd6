//! Backups that cannot be proven: what nobody foresaw, played by a superuser who damages a tenant's catalog.

use helpdesk_operator::{
    api::{BackupPhase, BackupReason, Condition, HelpDeskAccount, MoverMemory, Time, account::DropGround},
    clock,
    lifecycle::{Reason, Stage},
};
use k8s_openapi::{
    api::{events::v1::Event, rbac::v1::ClusterRoleBinding},
    jiff::SignedDuration,
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;

use super::{
    cluster::{Account, Cluster, eventually, find_condition, has_condition, setting},
    operator::{Servers, Shard},
    tenant::{Tenant, databases_and_roles_left, superuser_logs_in},
};

/// A language that does not exist.
const NO_LANGUAGE: &str = "999999";

/// Two attempts and twenty seconds instead of six and four hours.
const SHORT_LIMITS: &[(&str, &str)] = &[("HELPDESK_OPERATOR_UNPROVABLE_ATTEMPTS", "2"), ("HELPDESK_OPERATOR_UNPROVABLE_SECONDS", "20")];

#[tokio::test]
async fn an_account_whose_backup_cannot_be_proven_goes_at_its_promise_and_not_before_and_not_under_a_hold() {
    // Given four accounts with a database that no tool can read. What happens to each is told in a function of its own.
    let shard = Shard::new("unprovable", Servers::First).await;
    shard.administrator_applies_plan(json!({"paymentGrace": "1s", "blocked": "30s", "terminated": "10s", "coldBackup": "120s"})).await;
    let _operator = shard.start_operator("only", SHORT_LIMITS);
    tokio::join!(
        promise_elapses(&shard),
        legal_places_a_hold(&shard),
        two_people_agree_to_drop(&shard),
        superuser_repairs_the_catalog(&shard)
    );
}

/// An account that is blocked with a database that no tool can read, and its tenant.
async fn blocked_with_damaged_catalog(shard: &Shard, name: &str) -> (Account, Tenant) {
    let account = shard.customer_signs_up(name).await;
    account.receives_credentials_in(Stage::Trial).await;
    account.billing_reports_active().await;
    let tenant = account.receives_credentials_in(Stage::Active).await;
    tenant.creates_tickets(20).await;
    let mut session = tenant.logs_in().await.unwrap();
    sqlx::raw_sql("CREATE FUNCTION broken() RETURNS int LANGUAGE sql AS 'SELECT 1'").execute(&mut session).await.unwrap();
    superuser_sets_language(&tenant, NO_LANGUAGE).await;
    account.billing_reports_past_due().await;
    account.reaches(Stage::Blocked).await;
    (account, tenant)
}

/// A superuser changes the language of the tenant's function in the catalog.
async fn superuser_sets_language(tenant: &Tenant, language: &str) {
    let sql = format!("UPDATE pg_catalog.pg_proc SET prolang = {language} WHERE proname = 'broken'");
    let done = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut superuser_logs_in(&tenant.database).await).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
}

async fn becomes_unprovable(account: &Account) -> HelpDeskAccount {
    account.wait_until("Unprovable", |a| has_condition(a, "Unprovable", "True")).await
}

fn promised_time(account: &HelpDeskAccount) -> Time {
    account.status.as_ref().unwrap().data_gone_by.clone().unwrap()
}

fn true_condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|c| c.type_ == kind && c.status == "True")
}

async fn promise_elapses(shard: &Shard) {
    // Given a Blocked account with a damaged catalog.
    let (account, tenant) = blocked_with_damaged_catalog(shard, "unprovable").await;

    // When no attempt at a backup succeeds.
    let named = becomes_unprovable(&account).await;

    // Then the account, its backup and one event say that the backup is unprovable.
    let promised = promised_time(&named);
    let told = find_condition(&named, "Unprovable").unwrap().message.clone();
    assert!(told.contains(&format!("until dataGoneBy {} and is dropped then without a proven backup", promised.0)), "{told}");
    assert!(has_condition(&named, "Stalled", "True"));

    let frozen = account.wait_for_backup("its Frozen backup", |b| b.spec.reason == BackupReason::Frozen).await;
    let status = frozen.status.clone().unwrap();
    let why = true_condition(&status.conditions, "Unprovable").expect("the backup does not say that it is unprovable");
    assert_eq!(why.reason, "MoverFailed");
    let failing = status.failing.unwrap();
    assert!(failing.attempts >= 2 && !failing.message.is_empty(), "{failing:?}");
    let events: Api<Event> = Api::namespaced(shard.cluster.client.clone(), "default");
    let about = |e: &&Event| e.regarding.as_ref().and_then(|r| r.name.clone()) == Some(frozen.name_any());
    // It is published after the status is written.
    let told = eventually("an event", || async {
        let told = events.list(&Default::default()).await.unwrap().items;
        Some(told.iter().filter(about).filter(|e| e.reason.as_deref() == Some("Unprovable")).count()).filter(|count| *count > 0)
    })
    .await;
    assert_eq!(told, 1);

    // When Terminated ends before the promised time.
    let overdue = account.wait_until("Overdue", |a| find_condition(a, "Overdue").is_some_and(|c| c.reason == "Unprovable")).await;

    // Then the database is kept until the promised time, and the tenant stays locked out.
    assert_eq!(overdue.status.unwrap().stage, Some(Stage::Terminated));
    while clock::precise_now() < promised.0 - SignedDuration::from_secs(2) {
        assert!(databases_and_roles_left(&tenant.database).await > 0, "dropped before {}", promised.0);
        assert!(tenant.logs_in().await.is_err(), "an unprovable account let its tenant in");
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }

    // When the promised time has come.
    let expired = account.reaches(Stage::Expired).await.status.unwrap();

    // Then the database is dropped, and the certificate tells why there was no proven backup.
    assert_eq!(databases_and_roles_left(&tenant.database).await, 0, "something of the database is left");
    assert_eq!(expired.reason, Some(Reason::PromiseElapsed));
    let certificate = expired.certificate.unwrap();
    assert!(certificate.issued_at >= promised);
    assert_eq!(certificate.promised_by, Some(promised));
    assert!(certificate.delayed_by.contains(&"Unprovable".to_owned()), "{:?}", certificate.delayed_by);
    let authority = certificate.authority.unwrap();
    assert_eq!((authority.ground, authority.backup), (DropGround::PromiseElapsed, Some(frozen.name_any())));
    assert!(authority.because.unwrap().starts_with("MoverFailed; taken for unprovable since "));
    let left = account.backups().await;
    assert!(left.iter().all(|b| b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Erased && s.failing.is_none())), "{left:?}");
}

async fn legal_places_a_hold(shard: &Shard) {
    // Given a Blocked account with a damaged catalog.
    let (account, tenant) = blocked_with_damaged_catalog(shard, "unprovable-held").await;
    let promised = promised_time(&becomes_unprovable(&account).await);

    // When somebody places a hold, and the promised time passes.
    account.administrator_applies(json!({"hold": {"reason": "case 13", "by": "legal@example.com"}})).await;
    let held = account.wait_until("a promise that is not kept", |a| a.status.as_ref().is_some_and(|s| s.data_gone_by.is_none())).await;

    // Then the account says that it is held, and its database is kept.
    assert!(clock::precise_now() >= promised.0);
    let overdue = find_condition(&held, "Overdue").unwrap();
    assert_eq!((held.status.as_ref().unwrap().stage, overdue.reason.as_str()), (Some(Stage::Terminated), "Held"));
    assert!(overdue.message.contains("nothing was to be left by"), "{}", overdue.message);
    assert!(databases_and_roles_left(&tenant.database).await > 0, "dropped under a hold");

    // When the hold is lifted.
    account.administrator_applies(json!({})).await;

    // Then the database is dropped, and the certificate names the hold.
    let expired = account.reaches(Stage::Expired).await.status.unwrap();
    assert_eq!(databases_and_roles_left(&tenant.database).await, 0);
    let certificate = expired.certificate.unwrap();
    assert_eq!(certificate.authority.unwrap().ground, DropGround::PromiseElapsed);
    assert!(certificate.delayed_by.contains(&"Held".to_owned()), "{:?}", certificate.delayed_by);
}

async fn two_people_agree_to_drop(shard: &Shard) {
    // Given a Blocked account with a damaged catalog, and two people who may agree to a drop without a proven backup.
    let (account, tenant) = blocked_with_damaged_catalog(shard, "unprovable-agreed").await;
    let promised = promised_time(&becomes_unprovable(&account).await);
    let (ana, bob) =
        (person_who_may_drop_unproven(&shard.cluster, "story-ana").await, person_who_may_drop_unproven(&shard.cluster, "story-bob").await);
    let person_annotates = async |who: &Client, key: &str, name: &str| {
        let patch = json!({"metadata": {"annotations": {format!("helpdesk-operator.io/drop-unproven-{key}-by"): name}}});
        let accounts: Api<HelpDeskAccount> = Api::all(who.clone());
        accounts.patch(&account.name, &PatchParams::default(), &Patch::Merge(patch)).await
    };
    eventually("the roles of two people", || async { person_annotates(&ana, "requested", "story-ana").await.ok() }).await;

    // When one person requests and approves it alone, or in the other's name, then this is refused, and nothing is
    // dropped.
    let alone = person_annotates(&ana, "approved", "story-ana").await.unwrap_err().to_string();
    assert!(alone.contains("two different people decide this"), "{alone}");
    let forged = person_annotates(&ana, "approved", "story-bob").await.unwrap_err().to_string();
    assert!(forged.contains("writes their own name"), "{forged}");
    account.wait_until("Overdue", |a| find_condition(a, "Overdue").is_some_and(|c| c.reason == "Unprovable")).await;
    assert!(databases_and_roles_left(&tenant.database).await > 0, "dropped at one person's wish");

    // When the other person approves it.
    eventually("the roles of the other", || async { person_annotates(&bob, "approved", "story-bob").await.ok() }).await;

    // Then the database is dropped before the promised time, and the certificate names both people.
    let expired = account.reaches(Stage::Expired).await.status.unwrap();
    assert!(clock::precise_now() < promised.0, "this took as long as the promise: nothing was cut short");
    assert_eq!((expired.reason, databases_and_roles_left(&tenant.database).await), (Some(Reason::DropAgreed), 0));
    let certificate = expired.certificate.unwrap();
    assert_eq!(certificate.destroyed["backups"], 1, "what the attempts left was not counted");
    let authority = certificate.authority.unwrap();
    assert_eq!(authority.ground, DropGround::TwoPeople);
    assert_eq!((authority.requested_by.as_deref(), authority.approved_by.as_deref()), (Some("story-ana"), Some("story-bob")));
}

async fn superuser_repairs_the_catalog(shard: &Shard) {
    // Given a Blocked account with a damaged catalog, whose backup is unprovable.
    let (account, tenant) = blocked_with_damaged_catalog(shard, "unprovable-mended").await;
    becomes_unprovable(&account).await;

    // When a superuser repairs the catalog.
    let sql = "SELECT oid::text FROM pg_catalog.pg_language WHERE lanname = 'sql'";
    let language: String = sqlx::query_scalar(sql).fetch_one(&mut superuser_logs_in(&tenant.database).await).await.unwrap();
    superuser_sets_language(&tenant, &language).await;

    // Then the backup is proven, and the account says nothing of it any more.
    let proven = account
        .wait_for_backup("it is proven after all", |b| {
            b.spec.reason == BackupReason::Frozen && b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Verified)
        })
        .await;
    let status = proven.status.unwrap();
    assert!(true_condition(&status.conditions, "Unprovable").is_none() && status.failing.is_none());
    account
        .wait_until("not Unprovable any more", |a| find_condition(a, "Unprovable").is_none() && find_condition(a, "Stalled").is_none())
        .await;

    // When billing reports a payment.
    account.billing_reports_active().await;

    // Then the tenant gets its data back.
    assert_eq!(account.receives_credentials_in(Stage::Active).await.checksum().await.len(), 7);
}

#[tokio::test]
async fn a_mover_that_runs_out_of_memory_gets_more_and_its_backup_is_proven() {
    // Given a tenant with one row of more than a hundred megabytes.
    let cluster = Cluster::connect().await;
    let account = cluster.customer_signs_up("long-row", "seconds").await;
    let tenant = account.receives_credentials_in(Stage::Trial).await;
    let mut session = tenant.logs_in().await.unwrap();
    // A few hundred kilobytes on disk; every tool that copies the row holds it in memory more than once.
    let sql = "CREATE TABLE long (body text); INSERT INTO long SELECT repeat('the printer is on fire ', 6000000)";
    sqlx::raw_sql(sql).execute(&mut session).await.unwrap();
    sqlx::Connection::close(session).await.unwrap();

    // When the owner cancels, and the mover runs out of memory.
    account.owner_cancels().await;

    // Then the mover gets more memory, which counts as no failed attempt, and the backup is proven.
    let larger = account.wait_for_backup("a mover with more memory", |b| b.status.as_ref().is_some_and(|s| s.mover_memory.is_some())).await;
    assert_eq!(larger.status.unwrap().failing, None, "what ran out of memory was counted");
    let proven = account.wait_for_backup("it is proven", |b| b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Verified)).await;
    assert!(proven.status.unwrap().mover_memory > Some(MoverMemory::Small));
}

/// A person who may do everyday work and ask for, or approve, a drop without a proven backup.
async fn person_who_may_drop_unproven(cluster: &Cluster, name: &str) -> Client {
    let bindings: Api<ClusterRoleBinding> = Api::all(cluster.client.clone());
    for role in ["helpdesk-edit", "helpdesk-drop-unproven"] {
        let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": format!("{name}-{role}")},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}]});
        let named = binding["metadata"]["name"].as_str().unwrap();
        bindings.patch(named, &PatchParams::apply("stories").force(), &Patch::Apply(&binding)).await.unwrap();
    }
    let kubeconfig = Kubeconfig::read_from(setting("HELPDESK_TEST_KUBECONFIG")).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.auth_info.impersonate = Some(name.to_owned());
    Client::try_from(config).unwrap()
}
