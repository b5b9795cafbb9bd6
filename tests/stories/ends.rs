//! Ends that come on time, whoever or whatever is in the way.

use std::time::Duration;

use helpdesk_operator::{
    api::{BackupPhase, BackupReason, ColdBackup, DatabaseServer, HelpDeskAccount, HelpDeskClass, HelpDeskPlan},
    lifecycle::Stage,
};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    cluster::{Account, Cluster, OPERATOR, eventually, find_condition, has_condition, wait_until_deleted},
    operator::{STOPPING, Servers, Shard, administrator_scales, wait_until_after},
    tenant::{databases_and_roles_left, superuser_logs_in},
    web,
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
    cluster.administrator_applies_plan("seal", json!({"trial": "5s"})).await;
    let account = cluster.customer_signs_up("seal", "seal").await;
    let tenant = account.receives_credentials_in(Stage::Trial).await;
    tenant.creates_tickets(20).await;
    account.reaches(Stage::Blocked).await;
    let first = account.wait_for_backup("its Frozen backup is proven", is_proven).await.name_any();

    let session = superuser_logs_in(&tenant.database).await;
    // Nothing announces that somebody got in; an annotation makes the operator look.
    account.administrator_annotates("stories/look", "1").await;
    account.wait_until("a broken seal", |a| find_condition(a, "BlockEnforced").is_some_and(|c| c.reason == "SealBroken")).await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(frozen(&account).await, std::slice::from_ref(&first), "a backup of a database that somebody is in");
    sqlx::Connection::close(session).await.unwrap();

    let second = account.wait_for_backup("another Frozen backup is proven", |b| is_proven(b) && b.name_any() != first).await.name_any();
    account.wait_until("a seal that holds", |a| find_condition(a, "BlockEnforced").is_some_and(|c| c.status == "True")).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let mut all = frozen(&account).await;
    all.sort();
    assert_eq!(all, [first, second], "one session made more than one backup");
}

/// An account under a plan, with a slug that is not its own name from the first moment on.
async fn account_with_slug(cluster: &Cluster, name: &str, plan: &str, slug: &str) -> Account {
    let account = Account { cluster: cluster.clone(), name: name.into(), plan: plan.into(), region: "eu-1".into() };
    account.administrator_applies(json!({"domain": {"slug": slug}})).await;
    account
}

/// A placement at a Gateway of this name.
fn placement(gateway: &str) -> Value {
    json!([{"region": "eu-1", "store": "eu-cold", "domainBase": "helpdesk.example", "gateway": {"name": gateway, "namespace": "edge"}}])
}

fn is_refused(account: &HelpDeskAccount) -> bool {
    find_condition(account, "Stalled").is_some_and(|c| c.reason == "NameTaken" && c.message.contains("spec.domain.slug: "))
}

#[tokio::test]
async fn a_name_that_is_anothers_holds_up_no_end_and_is_told_with_its_field() {
    let cluster = Cluster::connect().await;
    let first = cluster.customer_signs_up("ends-first", "seconds").await;
    first.receives_credentials_in(Stage::Trial).await;
    let claim = cluster.claims().get("ends-first.helpdesk.example").await.unwrap();
    assert_eq!(claim.spec.account, "ends-first", "a plan without a Gateway keeps the name too");

    let windows = json!({"trial": "12s", "blocked": "12s", "terminated": "1h"});
    cluster.administrator_applies_plan_with("ends-names", windows, json!({"placements": placement("edge")})).await;
    let second = account_with_slug(&cluster, "ends-second", "ends-names", "ends-first").await;
    let told = second.wait_until("the refused name", is_refused).await;
    assert_eq!(told.status.unwrap().url, None, "the other tenant's address");
    let blocked = second.reaches(Stage::Blocked).await;
    let status = blocked.status.as_ref().unwrap();
    assert_eq!((status.next_stage, &status.url), (Some(Stage::Terminated), &None));
    second.wait_for_backup("its Frozen backup is proven", is_proven).await;
    let blocked = second.wait_until("the refused name, closed", |a| is_refused(a) && has_condition(a, "Ready", "True")).await;
    assert!(find_condition(&blocked, "Reconciling").is_none(), "{:?}", find_condition(&blocked, "Reconciling"));
    second.reaches(Stage::Terminated).await;
    second.administrator_annotates("helpdesk-operator.io/confirm-delete", "ends-second").await;
    cluster.accounts().delete("ends-second", &DeleteParams::default()).await.unwrap();
    wait_until_deleted(cluster.accounts(), "ends-second").await;

    // Without a Gateway it is the same, and another slug ends it at once.
    let third = account_with_slug(&cluster, "ends-third", "seconds", "ends-first").await;
    let told = third.wait_until("the refused name", is_refused).await;
    assert_eq!(told.status.unwrap().url, None);
    third.administrator_applies(json!({})).await;
    let settled =
        tokio::time::timeout(Duration::from_secs(20), third.wait_until("another name", |a| find_condition(a, "Stalled").is_none()));
    settled.await.expect("another slug did not free the account at once");
    cluster.claims().get("ends-third.helpdesk.example").await.unwrap();
    third.administrator_annotates("helpdesk-operator.io/confirm-delete", "ends-third").await;
    cluster.accounts().delete("ends-third", &DeleteParams::default()).await.unwrap();
    wait_until_deleted(cluster.accounts(), "ends-third").await;
    let kept = cluster.claims().get("ends-third.helpdesk.example").await.unwrap();
    assert!(kept.spec.reserved_until.is_some(), "the name of an account that is gone is kept for ever");
}

#[tokio::test]
async fn a_gateway_a_class_and_a_plan_that_are_gone_hold_up_no_end() {
    let cluster = Cluster::connect().await;
    web::class(&cluster).await;
    let classes: Api<HelpDeskClass> = Api::all(cluster.client.clone());
    let own = json!({"kind": "HelpDeskClass", "metadata": {"name": "ends-gone"}, "spec": classes.get("echo").await.unwrap().spec});
    cluster.administrator_applies(own).await;
    let windows = json!({"paymentGrace": "3s", "blocked": "10s", "terminated": "10s", "coldBackup": "40s", "nameQuarantine": "3s"});
    let plan = |gateway: &str| json!({"placements": placement(gateway), "class": "ends-gone"});
    cluster.administrator_applies_plan_with("ends-gone", windows.clone(), plan("edge")).await;
    let account = cluster.customer_signs_up("ends-gone", "ends-gone").await;
    web::run_app(&account).await;
    let tenant = account.receives_credentials_in(Stage::Trial).await;
    tenant.creates_tickets(20).await;
    web::published(&account).await;
    let url = "https://ends-gone.helpdesk.example/";
    assert_eq!(web::get(url, &[]).status, 200);
    account.billing_reports_active().await;
    account.reaches(Stage::Active).await;

    classes.delete("ends-gone", &DeleteParams::default()).await.unwrap();
    cluster.administrator_applies_plan_with("ends-gone", windows, plan("no-such")).await;
    account.wait_until("an unusable Gateway", |a| find_condition(a, "EdgeReady").is_some_and(|c| c.reason == "GatewayUnusable")).await;
    account.billing_reports_past_due().await;
    let plans: Api<HelpDeskPlan> = Api::all(cluster.client.clone());
    plans.delete("ends-gone", &DeleteParams::default()).await.unwrap();

    let blocked = account.reaches(Stage::Blocked).await.status.unwrap();
    assert!(tenant.logs_in().await.is_err());
    eventually("the address is gone", || async { (web::get(url, &[]).status == 404).then_some(()) }).await;
    assert!(blocked.data_gone_by.is_some(), "no window was pinned");
    account
        .wait_until("what is missing is told", |a| {
            find_condition(a, "Stalled").is_some_and(|c| c.message.contains("HelpDeskPlan ends-gone"))
        })
        .await;
    account.reaches(Stage::Deleted).await;
    assert_eq!(databases_and_roles_left(&tenant.database).await, 0);
    let expired = account.reaches(Stage::Expired).await.status.unwrap();
    assert!(expired.certificate.is_some());
}

/// What the condition AccountsLost of a server says.
async fn told_of_lost(shard: &Shard) -> Option<(String, String)> {
    let servers: Api<DatabaseServer> = Api::all(shard.cluster.client.clone());
    let conditions = servers.get(&shard.name).await.unwrap().status?.conditions;
    conditions.into_iter().find(|c| c.type_ == "AccountsLost").map(|c| (c.status, c.message))
}

fn is_stalled(account: &HelpDeskAccount, reason: &str, text: &str) -> bool {
    find_condition(account, "Stalled").is_some_and(|c| c.reason == reason && c.message.contains(text))
}

const ID: &str = "7d1f0b52-52f5-4b1e-9a57-0c6f3f5b7a11";
const GONE_ID: &str = "7d1f0b52-52f5-4b1e-9a57-0c6f3f5b7a12";

#[tokio::test]
async fn an_account_whose_object_was_lost_is_shut_on_time_kept_and_adopted() {
    let shard = Shard::new("lost", Servers::First).await;
    shard.administrator_applies_plan(json!({"trial": "45s", "eraseDelay": "1s"})).await;
    let operator = shard.start_operator("only", &[]);
    let named =
        |name: &str| Account { cluster: shard.cluster.clone(), name: name.into(), plan: shard.name.clone(), region: shard.name.clone() };
    let (with_id, without_id, gone_with_id) = (named("lost-id"), named("lost-none"), named("lost-gone"));
    with_id.administrator_applies(json!({"accountID": ID})).await;
    without_id.administrator_applies(json!({})).await;
    gone_with_id.administrator_applies(json!({"accountID": GONE_ID, "closure": {"mode": "Erase", "coldBackup": false}})).await;
    let (first, second) = (with_id.receives_credentials_in(Stage::Trial).await, without_id.receives_credentials_in(Stage::Trial).await);
    first.creates_tickets(20).await;
    let (before, uid) = (first.checksum().await, without_id.get().await.metadata.uid.unwrap());
    let ends = without_id.get().await.status.unwrap().next_transition_time.unwrap();
    gone_with_id.reaches(Stage::Expired).await;

    operator.kill();
    for lost in ["lost-id", "lost-none"] {
        shard.cluster.account_object_is_lost(lost).await;
    }
    let _operator = shard.start_operator("again", &[]);
    first.logs_in().await.expect("shut before its time");
    let told = eventually("the server names them", || async {
        told_of_lost(&shard).await.filter(|(status, text)| status == "True" && text.contains("lost-id") && text.contains("lost-none"))
    })
    .await;
    assert!(told.1.contains("adopt"), "{}", told.1);
    wait_until_after(&ends).await;
    eventually("both are shut", || async { (first.logs_in().await.is_err() && second.logs_in().await.is_err()).then_some(()) }).await;
    for tenant in [&first, &second] {
        assert!(databases_and_roles_left(&tenant.database).await > 0, "an account without an object was dropped");
    }

    // As after the loss of the whole cluster, not even its password and its namespace are there.
    let names = |prefix: &str| first.database.replacen("t_", prefix, 1);
    let secrets: Api<Secret> = Api::namespaced(shard.cluster.client.clone(), OPERATOR);
    secrets.delete(&names("login-"), &DeleteParams::default()).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(shard.cluster.client.clone());
    namespaces.delete(&names("hd-"), &DeleteParams::default()).await.unwrap();
    wait_until_deleted(namespaces, &names("hd-")).await;

    // Its accountID brings one back by itself, with what came due meanwhile.
    with_id.administrator_applies(json!({"accountID": ID})).await;
    let adopted = with_id.reaches(Stage::Blocked).await.status.unwrap();
    assert_eq!(adopted.database.unwrap().name, first.database);
    with_id.billing_reports_active().await;
    let back = with_id.receives_credentials_in(Stage::Active).await;
    assert!(first.logs_in().await.is_err(), "a password that was lost still opens");
    assert_eq!((back.database.clone(), back.checksum().await), (first.database.clone(), before));

    // The other one waits for a person.
    without_id.administrator_applies(json!({})).await;
    without_id.wait_until("a person is asked", |a| is_stalled(a, "NeedsAdoption", &uid)).await;
    without_id.administrator_annotates("helpdesk-operator.io/adopt", "00000000-0000-4000-8000-000000000000").await;
    without_id.wait_until("an unknown uid is told", |a| is_stalled(a, "NotAdopted", "no ledger of the region")).await;
    without_id.administrator_annotates("helpdesk-operator.io/adopt", &uid).await;
    let adopted = without_id.reaches(Stage::Blocked).await.status.unwrap();
    assert_eq!(adopted.database.unwrap().name, second.database);
    eventually("nobody is lost", || async {
        told_of_lost(&shard).await.filter(|(_, text)| !text.contains("lost-id") && !text.contains("lost-none"))
    })
    .await;

    // A tombstone is told plainly.
    shard.cluster.accounts().delete("lost-gone", &DeleteParams::default()).await.unwrap();
    wait_until_deleted(shard.cluster.accounts(), "lost-gone").await;
    gone_with_id.administrator_applies(json!({"accountID": GONE_ID})).await;
    gone_with_id.wait_until("the tombstone is told", |a| is_stalled(a, "NotAdopted", "has expired at")).await;
}

#[tokio::test]
async fn many_objects_that_are_lost_at_once_shut_nobody_until_a_person_agrees() {
    // No other operator may look after this server's ledger: it would not know of this brake.
    let _alone = STOPPING.lock().await;
    let shard = Shard::new("lost-many", Servers::Second).await;
    shard.administrator_applies_plan(json!({"trial": "40s"})).await;
    let change = async |server: Value| {
        let servers: Api<DatabaseServer> = Api::all(shard.cluster.client.clone());
        servers.patch(&shard.name, &PatchParams::default(), &Patch::Merge(server)).await.unwrap();
    };
    change(json!({"spec": {"brake": {"percent": 1, "atLeast": 1, "window": "1h"}}})).await;
    let operator = shard.start_operator("only", &[]);
    let mut tenants = Vec::new();
    let mut accounts = Vec::new();
    for number in 0..3 {
        accounts.push(shard.customer_signs_up(&format!("lost-many-{number}")).await);
    }
    for account in &accounts {
        tenants.push(account.receives_credentials_in(Stage::Trial).await);
    }
    let ends = accounts[2].get().await.status.unwrap().next_transition_time.unwrap();
    operator.kill();
    for account in &accounts {
        shard.cluster.account_object_is_lost(&account.name).await;
    }
    let _operator = shard.start_operator("again", &[]);
    let many = async || told_of_lost(&shard).await.filter(|(_, text)| text.contains("3 accounts without an object are open"));
    eventually("too many are lost", many).await;
    wait_until_after(&ends).await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert!(many().await.is_some());
    for tenant in &tenants {
        tenant.logs_in().await.expect("many were shut at once");
    }
    change(json!({"metadata": {"annotations": {"helpdesk-operator.io/release-brake": helpdesk_operator::clock::now().to_string()}}})).await;
    for tenant in &tenants {
        eventually("it is shut", || async { tenant.logs_in().await.is_err().then_some(()) }).await;
    }
}

#[tokio::test]
async fn a_server_that_stops_keeps_nobody_from_signing_up_at_another_one_unless_it_may_hold_the_account() {
    let _stopping = STOPPING.lock().await;
    let shard = Shard::new("away", Servers::First).await;
    shard.administrator_adds_server("away-2", "pg-eu-2").await;
    shard.administrator_applies_plan(json!({})).await;
    let operator = shard.start_operator("only", &[]);
    let named =
        |name: &str| Account { cluster: shard.cluster.clone(), name: name.into(), plan: shard.name.clone(), region: shard.name.clone() };
    let servers: Api<DatabaseServer> = Api::all(shard.cluster.client.clone());
    let ready = async |name: &str, wanted: &str| {
        let status = servers.get(name).await.unwrap().status?;
        status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == wanted).then_some(())
    };
    eventually("both servers are ready", || async { ready("away", "True").await.and(ready("away-2", "True").await) }).await;
    // What is younger than the operator's lead, with room for clocks that differ, was written by nobody else.
    tokio::time::sleep(Duration::from_secs(35)).await;

    administrator_scales(&shard.cluster, "databases", "pg-eu-2", 0).await;
    eventually("the server is seen to be away", || async { ready("away-2", "False").await }).await;
    let (plain, with_id) = (named("away-plain"), named("away-id"));
    plain.administrator_applies(json!({})).await;
    with_id.administrator_applies(json!({"accountID": "7d1f0b52-52f5-4b1e-9a57-0c6f3f5b7a21"})).await;
    for account in [&plain, &with_id] {
        account.receives_credentials_in(Stage::Trial).await.logs_in().await.unwrap();
        assert_eq!(account.get().await.status.unwrap().database.unwrap().server, "away");
    }

    // Another operator has not read the roll of the server that is away: an accountID may be known there.
    operator.kill();
    let _operator = shard.start_operator("again", &[]);
    let unsure = named("away-unsure");
    unsure.administrator_applies(json!({"accountID": "7d1f0b52-52f5-4b1e-9a57-0c6f3f5b7a22"})).await;
    unsure
        .wait_until("it waits", |a| find_condition(a, "Ready").is_some_and(|c| c.reason == "ServerAway" && c.message.contains("away-2")))
        .await;
    administrator_scales(&shard.cluster, "databases", "pg-eu-2", 1).await;
    unsure.receives_credentials_in(Stage::Trial).await;
}
