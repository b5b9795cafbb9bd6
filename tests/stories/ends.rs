//! Ends that come on time, whoever or whatever is in the way.

use std::time::Duration;

use helpdesk_operator::{
    api::{BackupPhase, BackupReason, ColdBackup, HelpDeskAccount, HelpDeskClass, HelpDeskPlan},
    lifecycle::Stage,
};
use kube::{Api, ResourceExt, api::DeleteParams};
use serde_json::{Value, json};

use super::{
    cluster::{Account, Cluster, condition, eventually, find, gone},
    tenant::{left_on_server, superuser},
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
    cluster.plan("seal", json!({"trial": "5s"})).await;
    let account = cluster.account("seal", "seal").await;
    let tenant = account.open(Stage::Trial).await;
    tenant.fill(20).await;
    account.stage(Stage::Blocked).await;
    let first = account.backup("its Frozen backup is proven", is_proven).await.name_any();

    let session = superuser(&tenant.database).await;
    // Nothing announces that somebody got in; an annotation makes the operator look.
    account.annotate("stories/look", "1").await;
    account.until("a broken seal", |a| find(a, "BlockEnforced").is_some_and(|c| c.reason == "SealBroken")).await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(frozen(&account).await, std::slice::from_ref(&first), "a backup of a database that somebody is in");
    sqlx::Connection::close(session).await.unwrap();

    let second = account.backup("another Frozen backup is proven", |b| is_proven(b) && b.name_any() != first).await.name_any();
    account.until("a seal that holds", |a| find(a, "BlockEnforced").is_some_and(|c| c.status == "True")).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let mut all = frozen(&account).await;
    all.sort();
    assert_eq!(all, [first, second], "one session made more than one backup");
}

/// An account under a plan, with a slug that is not its own name from the first moment on.
async fn account_with_slug(cluster: &Cluster, name: &str, plan: &str, slug: &str) -> Account {
    let account = Account { cluster: cluster.clone(), name: name.into(), plan: plan.into(), region: "eu-1".into() };
    account.apply(json!({"domain": {"slug": slug}})).await;
    account
}

/// A placement at a Gateway of this name.
fn placement(gateway: &str) -> Value {
    json!([{"region": "eu-1", "store": "eu-cold", "domainBase": "helpdesk.example", "gateway": {"name": gateway, "namespace": "edge"}}])
}

fn is_refused(account: &HelpDeskAccount) -> bool {
    find(account, "Stalled").is_some_and(|c| c.reason == "NameTaken" && c.message.contains("spec.domain.slug: "))
}

#[tokio::test]
async fn a_name_that_is_anothers_holds_up_no_end_and_is_told_with_its_field() {
    let cluster = Cluster::connect().await;
    let first = cluster.account("ends-first", "seconds").await;
    first.open(Stage::Trial).await;
    let claim = cluster.claims().get("ends-first.helpdesk.example").await.unwrap();
    assert_eq!(claim.spec.account, "ends-first", "a plan without a Gateway keeps the name too");

    let windows = json!({"trial": "12s", "blocked": "12s", "terminated": "1h"});
    cluster.plan_with("ends-names", windows, json!({"placements": placement("edge")})).await;
    let second = account_with_slug(&cluster, "ends-second", "ends-names", "ends-first").await;
    let told = second.until("the refused name", is_refused).await;
    assert_eq!(told.status.unwrap().url, None, "the other tenant's address");
    let blocked = second.stage(Stage::Blocked).await;
    let status = blocked.status.as_ref().unwrap();
    assert_eq!((status.next_stage, &status.url), (Some(Stage::Terminated), &None));
    second.backup("its Frozen backup is proven", is_proven).await;
    let blocked = second.until("the refused name, closed", |a| is_refused(a) && condition(a, "Ready", "True")).await;
    assert!(find(&blocked, "Reconciling").is_none(), "{:?}", find(&blocked, "Reconciling"));
    second.stage(Stage::Terminated).await;
    second.annotate("helpdesk-operator.io/confirm-delete", "ends-second").await;
    cluster.accounts().delete("ends-second", &DeleteParams::default()).await.unwrap();
    gone(cluster.accounts(), "ends-second").await;

    // Without a Gateway it is the same, and another slug ends it at once.
    let third = account_with_slug(&cluster, "ends-third", "seconds", "ends-first").await;
    let told = third.until("the refused name", is_refused).await;
    assert_eq!(told.status.unwrap().url, None);
    third.apply(json!({})).await;
    let settled = tokio::time::timeout(Duration::from_secs(20), third.until("another name", |a| find(a, "Stalled").is_none()));
    settled.await.expect("another slug did not free the account at once");
    cluster.claims().get("ends-third.helpdesk.example").await.unwrap();
    third.annotate("helpdesk-operator.io/confirm-delete", "ends-third").await;
    cluster.accounts().delete("ends-third", &DeleteParams::default()).await.unwrap();
    gone(cluster.accounts(), "ends-third").await;
    let kept = cluster.claims().get("ends-third.helpdesk.example").await.unwrap();
    assert!(kept.spec.reserved_until.is_some(), "the name of an account that is gone is kept for ever");
}

#[tokio::test]
async fn a_gateway_a_class_and_a_plan_that_are_gone_hold_up_no_end() {
    let cluster = Cluster::connect().await;
    web::class(&cluster).await;
    let classes: Api<HelpDeskClass> = Api::all(cluster.client.clone());
    let own = json!({"kind": "HelpDeskClass", "metadata": {"name": "ends-gone"}, "spec": classes.get("echo").await.unwrap().spec});
    cluster.apply(own).await;
    let windows = json!({"paymentGrace": "3s", "blocked": "10s", "terminated": "10s", "coldBackup": "40s", "nameQuarantine": "3s"});
    let plan = |gateway: &str| json!({"placements": placement(gateway), "class": "ends-gone"});
    cluster.plan_with("ends-gone", windows.clone(), plan("edge")).await;
    let account = cluster.account("ends-gone", "ends-gone").await;
    web::run_app(&account).await;
    let tenant = account.open(Stage::Trial).await;
    tenant.fill(20).await;
    web::published(&account).await;
    let url = "https://ends-gone.helpdesk.example/";
    assert_eq!(web::get(url, &[]).status, 200);
    account.bill("Active").await;
    account.stage(Stage::Active).await;

    classes.delete("ends-gone", &DeleteParams::default()).await.unwrap();
    cluster.plan_with("ends-gone", windows, plan("no-such")).await;
    account.until("an unusable Gateway", |a| find(a, "EdgeReady").is_some_and(|c| c.reason == "GatewayUnusable")).await;
    account.bill("PastDue").await;
    let plans: Api<HelpDeskPlan> = Api::all(cluster.client.clone());
    plans.delete("ends-gone", &DeleteParams::default()).await.unwrap();

    let blocked = account.stage(Stage::Blocked).await.status.unwrap();
    assert!(tenant.connect().await.is_err());
    eventually("the address is gone", || async { (web::get(url, &[]).status == 404).then_some(()) }).await;
    assert!(blocked.data_gone_by.is_some(), "no window was pinned");
    account.until("what is missing is told", |a| find(a, "Stalled").is_some_and(|c| c.message.contains("HelpDeskPlan ends-gone"))).await;
    account.stage(Stage::Deleted).await;
    assert_eq!(left_on_server(&tenant.database).await, 0);
    let expired = account.stage(Stage::Expired).await.status.unwrap();
    assert!(expired.certificate.is_some());
}
