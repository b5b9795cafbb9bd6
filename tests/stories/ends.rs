//! Ends that come on time, whoever or whatever is in the way.

use std::time::Duration;

use helpdesk_operator::{
    api::{BackupPhase, BackupReason, ColdBackup, DatabaseServer, HelpDeskAccount, HelpDeskClass, HelpDeskPlan},
    lifecycle::Stage,
};
use k8s_openapi::api::{admissionregistration::v1::ValidatingAdmissionPolicyBinding, core::v1::Namespace};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    cluster::{Account, Cluster, eventually, find_condition, has_condition, wait_until_deleted},
    operator::{Servers, Shard, wait_until_after},
    tenant::{databases_and_roles_left, superuser_logs_in},
    web,
};

fn is_proven(backup: &ColdBackup) -> bool {
    backup.spec.reason == BackupReason::Frozen && backup.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Verified)
}

async fn frozen_backups(account: &Account) -> Vec<String> {
    account.backups().await.iter().filter(|b| b.spec.reason == BackupReason::Frozen).map(ResourceExt::name_any).collect()
}

#[tokio::test]
async fn a_superusers_session_in_a_closed_database_makes_one_more_backup_and_that_once_it_has_ended() {
    // Given a Blocked account with a proven Frozen backup.
    let cluster = Cluster::connect().await;
    cluster.administrator_applies_plan("seal", json!({"trial": "5s"})).await;
    let account = cluster.customer_signs_up("seal", "seal").await;
    let tenant = account.receives_credentials_in(Stage::Trial).await;
    tenant.creates_tickets(20).await;
    account.reaches(Stage::Blocked).await;
    let first = account.wait_for_backup("its Frozen backup is proven", is_proven).await.name_any();

    // When a superuser enters its database. No watch announces that; an annotation starts a reconcile.
    let session = superuser_logs_in(&tenant.database).await;
    account.administrator_annotates("stories/look", "1").await;

    // Then the account says that its seal is broken, and no backup is taken while the session lasts.
    account.wait_until("a broken seal", |a| find_condition(a, "BlockEnforced").is_some_and(|c| c.reason == "SealBroken")).await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(frozen_backups(&account).await, std::slice::from_ref(&first), "a backup of a database that somebody is in");

    // When the session ends.
    sqlx::Connection::close(session).await.unwrap();

    // Then exactly one more backup is taken and proven.
    let second = account.wait_for_backup("another Frozen backup is proven", |b| is_proven(b) && b.name_any() != first).await.name_any();
    account.wait_until("a seal that holds", |a| find_condition(a, "BlockEnforced").is_some_and(|c| c.status == "True")).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let mut all = frozen_backups(&account).await;
    all.sort();
    assert_eq!(all, [first, second], "one session made more than one backup");
}

/// A customer signs up with a slug that is not the name of the account.
async fn customer_signs_up_with_slug(cluster: &Cluster, name: &str, plan: &str, slug: &str) -> Account {
    let account = Account { cluster: cluster.clone(), name: name.into(), plan: plan.into(), region: "eu-1".into() };
    account.administrator_applies(json!({"domain": {"slug": slug}})).await;
    account
}

/// A placement at a Gateway of this name.
fn placement(gateway: &str) -> Value {
    json!([{"region": "eu-1", "store": "eu-cold", "domainBase": "helpdesk.example", "gateway": {"name": gateway, "namespace": "edge"}}])
}

fn has_refused_slug(account: &HelpDeskAccount) -> bool {
    find_condition(account, "Stalled").is_some_and(|c| c.reason == "NameTaken" && c.message.contains("spec.domain.slug: "))
}

#[tokio::test]
async fn a_name_that_is_anothers_holds_up_no_end_and_is_told_with_its_field() {
    // Given an account that has a hostname.
    let cluster = Cluster::connect().await;
    let first = cluster.customer_signs_up("ends-first", "seconds").await;
    first.receives_credentials_in(Stage::Trial).await;
    let claim = cluster.claims().get("ends-first.helpdesk.example").await.unwrap();
    assert_eq!(claim.spec.account, "ends-first", "a plan without a Gateway keeps the name too");

    // When a second customer asks for the same hostname.
    // Its backup is proven while it is Blocked, also where much else goes on.
    let windows = json!({"trial": "12s", "blocked": "40s", "terminated": "1h"});
    cluster.administrator_applies_plan_with("ends-names", windows, json!({"placements": placement("edge")})).await;
    let second = customer_signs_up_with_slug(&cluster, "ends-second", "ends-names", "ends-first").await;
    let told = second.wait_until("the refused name", has_refused_slug).await;

    // Then the second account says which field is refused, and shows no address.
    assert_eq!(told.status.unwrap().url, None, "the other tenant's address");

    // When its trial ends.
    let blocked = second.reaches(Stage::Blocked).await;

    // Then it goes through Blocked and Terminated on time, with a proven backup, and can be deleted.
    let status = blocked.status.as_ref().unwrap();
    assert_eq!((status.next_stage, &status.url), (Some(Stage::Terminated), &None));
    second.wait_for_backup("its Frozen backup is proven", is_proven).await;
    let blocked = second.wait_until("the refused name, closed", |a| has_refused_slug(a) && has_condition(a, "Ready", "True")).await;
    assert!(find_condition(&blocked, "Reconciling").is_none(), "{:?}", find_condition(&blocked, "Reconciling"));
    second.reaches(Stage::Terminated).await;
    second.administrator_annotates("helpdesk-operator.io/confirm-delete", "ends-second").await;
    cluster.accounts().delete("ends-second", &DeleteParams::default()).await.unwrap();
    wait_until_deleted(cluster.accounts(), "ends-second").await;

    // When a third customer asks for the same hostname, under a plan without a Gateway.
    let third = customer_signs_up_with_slug(&cluster, "ends-third", "seconds", "ends-first").await;

    // Then the third account says so too.
    let told = third.wait_until("the refused name", has_refused_slug).await;
    assert_eq!(told.status.unwrap().url, None);

    // When the third customer chooses another slug.
    third.administrator_applies(json!({})).await;

    // Then the account gets that hostname at once.
    let settled =
        tokio::time::timeout(Duration::from_secs(20), third.wait_until("another name", |a| find_condition(a, "Stalled").is_none()));
    settled.await.expect("another slug did not free the account at once");
    cluster.claims().get("ends-third.helpdesk.example").await.unwrap();

    // When the third account is deleted.
    third.administrator_annotates("helpdesk-operator.io/confirm-delete", "ends-third").await;
    cluster.accounts().delete("ends-third", &DeleteParams::default()).await.unwrap();
    wait_until_deleted(cluster.accounts(), "ends-third").await;

    // Then its hostname is reserved only for a while.
    let kept = cluster.claims().get("ends-third.helpdesk.example").await.unwrap();
    assert!(kept.spec.reserved_until.is_some(), "the name of an account that is gone is kept for ever");
}

#[tokio::test]
async fn a_gateway_a_class_and_a_plan_that_are_gone_hold_up_no_end() {
    // Given a tenant who pays, and whose app is published at a Gateway.
    let cluster = Cluster::connect().await;
    web::administrator_applies_class(&cluster).await;
    let classes: Api<HelpDeskClass> = Api::all(cluster.client.clone());
    let own = json!({"kind": "HelpDeskClass", "metadata": {"name": "ends-gone"}, "spec": classes.get("echo").await.unwrap().spec});
    cluster.administrator_applies(own).await;
    let windows = json!({"paymentGrace": "3s", "blocked": "10s", "terminated": "10s", "coldBackup": "40s", "nameQuarantine": "3s"});
    let plan = |gateway: &str| json!({"placements": placement(gateway), "class": "ends-gone"});
    cluster.administrator_applies_plan_with("ends-gone", windows.clone(), plan("edge")).await;
    let account = cluster.customer_signs_up("ends-gone", "ends-gone").await;
    web::tenant_runs_app(&account).await;
    let tenant = account.receives_credentials_in(Stage::Trial).await;
    tenant.creates_tickets(20).await;
    web::is_published(&account).await;
    let url = "https://ends-gone.helpdesk.example/";
    assert_eq!(web::visitor_gets(url, &[]).status, 200);
    account.billing_reports_active().await;
    account.reaches(Stage::Active).await;

    // When an administrator deletes the class or the plan, or empties the plan's Gateway, then that is refused, with the name
    // of who uses it.
    let plans: Api<HelpDeskPlan> = Api::all(cluster.client.clone());
    let are_in_use = async || {
        let plan = plans.get("ends-gone").await.unwrap().status?;
        let class = classes.get("ends-gone").await.unwrap().status?;
        (plan.in_use_by?.accounts == 1 && plan.regions_in_use == ["eu-1"] && class.in_use_by?.accounts == 1).then_some(())
    };
    eventually("plan and class are in use", are_in_use).await;
    let refused = classes.delete("ends-gone", &DeleteParams::default()).await.unwrap_err().to_string();
    assert!(refused.contains("HelpDeskClass ends-gone is used by 1 account (ends-gone)"), "{refused}");
    let refused = plans.delete("ends-gone", &DeleteParams::default()).await.unwrap_err().to_string();
    assert!(refused.contains("HelpDeskPlan ends-gone is used by 1 account (ends-gone)"), "{refused}");
    let whole = plan("edge");
    let mut emptied = json!({"class": null, "placements": whole["placements"]});
    emptied["placements"][0].as_object_mut().unwrap().remove("gateway");
    let edit = async |spec: &Value| plans.patch("ends-gone", &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await;
    let refused = edit(&emptied).await.unwrap_err().to_string();
    assert!(refused.contains("spec.class cannot be emptied") || refused.contains("cannot lose its gateway"), "{refused}");

    // When both are emptied around the policy, then the account stays published, and EdgeReady says by what.
    administrator_enforces(&cluster, "helpdesk-in-use", false).await;
    eventually("the edit is let through", async || edit(&emptied).await.ok().map(drop)).await;
    account
        .wait_until("what is kept is told", |a| {
            find_condition(a, "EdgeReady").is_some_and(|c| c.message.contains("names no class") && c.message.contains("names no Gateway"))
        })
        .await;
    assert_eq!(web::visitor_gets(url, &[]).status, 200);
    edit(&whole).await.unwrap();
    eventually("plan and class are in use again", are_in_use).await;

    // When the class is deleted around the policy, then its finalizer keeps it, and when it is gone all the same, the address
    // stays.
    classes.delete("ends-gone", &DeleteParams::default()).await.unwrap();
    eventually("the class says who keeps it", async || {
        let conditions = classes.get("ends-gone").await.unwrap().status.unwrap_or_default().conditions;
        conditions.into_iter().find(|c| c.reason == "InUse" && c.message.contains("ends-gone")).map(drop)
    })
    .await;
    administrator_enforces(&cluster, "helpdesk-in-use", true).await;
    cluster.is_lost_although_in_use::<HelpDeskClass>("ends-gone").await;
    account
        .wait_until("no class", |a| {
            find_condition(a, "EdgeReady").is_some_and(|c| c.reason == "NoClass" && c.message.contains("stays as it is"))
        })
        .await;
    assert_eq!(web::visitor_gets(url, &[]).status, 200);

    // When an administrator names a Gateway that does not exist, the plan is lost, and a payment fails.
    cluster.administrator_applies_plan_with("ends-gone", windows, plan("no-such")).await;
    account.wait_until("an unusable Gateway", |a| find_condition(a, "EdgeReady").is_some_and(|c| c.reason == "GatewayUnusable")).await;
    account.billing_reports_past_due().await;
    cluster.is_lost_although_in_use::<HelpDeskPlan>("ends-gone").await;

    // Then the account is Blocked on time: the tenant and its address are shut, and the account says what is missing.
    let blocked = account.reaches(Stage::Blocked).await.status.unwrap();
    assert!(tenant.logs_in().await.is_err());
    eventually("the address is gone", || async { (web::visitor_gets(url, &[]).status == 404).then_some(()) }).await;
    assert!(blocked.data_gone_by.is_some(), "no window was pinned");
    account
        .wait_until("what is missing is told", |a| {
            find_condition(a, "Stalled").is_some_and(|c| c.message.contains("HelpDeskPlan ends-gone"))
        })
        .await;

    // Then it is Deleted and Expired on time, with a certificate.
    account.reaches(Stage::Deleted).await;
    assert_eq!(databases_and_roles_left(&tenant.database).await, 0);
    let expired = account.reaches(Stage::Expired).await.status.unwrap();
    assert!(expired.certificate.is_some());
}

/// An administrator has a policy of the chart enforced, or not.
async fn administrator_enforces(cluster: &Cluster, policy: &str, on: bool) {
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(cluster.client.clone());
    let patch = json!({"spec": {"validationActions": [if on { "Deny" } else { "Audit" }]}});
    bindings.patch(policy, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

/// Status and message of the condition AccountsLost of the shard's server.
async fn accounts_lost(shard: &Shard) -> Option<(String, String)> {
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
    // Given two accounts in their trial, one with an accountID and one without, and a third that has expired.
    let shard = Shard::new("lost", Servers::First).await;
    shard.administrator_applies_plan(json!({"trial": "45s", "eraseDelay": "1s"})).await;
    let operator = shard.start_operator("only", &[]);
    let account =
        |name: &str| Account { cluster: shard.cluster.clone(), name: name.into(), plan: shard.name.clone(), region: shard.name.clone() };
    let (with_id, without_id, gone_with_id) = (account("lost-id"), account("lost-none"), account("lost-gone"));
    with_id.administrator_applies(json!({"accountID": ID})).await;
    without_id.administrator_applies(json!({})).await;
    gone_with_id.administrator_applies(json!({"accountID": GONE_ID, "closure": {"mode": "Erase", "coldBackup": false}})).await;
    let (first, second) = (with_id.receives_credentials_in(Stage::Trial).await, without_id.receives_credentials_in(Stage::Trial).await);
    first.creates_tickets(20).await;
    let (before, uid) = (first.checksum().await, without_id.get().await.metadata.uid.unwrap());
    let ends = without_id.get().await.status.unwrap().next_transition_time.unwrap();
    gone_with_id.reaches(Stage::Expired).await;

    // When the objects of the first two are lost, and the operator starts again.
    operator.kill();
    for lost in ["lost-id", "lost-none"] {
        shard.cluster.account_object_is_lost(lost).await;
    }
    let _operator = shard.start_operator("again", &[]);

    // Then both tenants still log in, and the server names both accounts.
    first.logs_in().await.expect("shut before its time");
    let told = eventually("the server names them", || async {
        accounts_lost(&shard).await.filter(|(status, text)| status == "True" && text.contains("lost-id") && text.contains("lost-none"))
    })
    .await;
    assert!(told.1.contains("adopt"), "{}", told.1);

    // When their trial ends.
    wait_until_after(&ends).await;

    // Then both are locked out, and their databases are kept.
    eventually("both are shut", || async { (first.logs_in().await.is_err() && second.logs_in().await.is_err()).then_some(()) }).await;
    for tenant in [&first, &second] {
        assert!(databases_and_roles_left(&tenant.database).await > 0, "an account without an object was dropped");
    }

    // When the first one's password and namespace are lost too, as after the loss of the whole cluster.
    let names = |prefix: &str| first.database.replacen("t_", prefix, 1);
    shard.cluster.administrator_deletes_secret(&names("login-")).await;
    let namespaces: Api<Namespace> = Api::all(shard.cluster.client.clone());
    namespaces.delete(&names("hd-"), &DeleteParams::default()).await.unwrap();
    wait_until_deleted(namespaces, &names("hd-")).await;

    // When the account is applied again with its accountID.
    with_id.administrator_applies(json!({"accountID": ID})).await;

    // Then it gets its database back, in the stage that came due meanwhile.
    let adopted = with_id.reaches(Stage::Blocked).await.status.unwrap();
    assert_eq!(adopted.database.unwrap().name, first.database);

    // When billing reports a payment.
    with_id.billing_reports_active().await;

    // Then the tenant gets a new password and finds its data as it was. The old password is refused.
    let back = with_id.receives_credentials_in(Stage::Active).await;
    assert!(first.logs_in().await.is_err(), "a password that was lost still opens");
    assert_eq!((back.database.clone(), back.checksum().await), (first.database.clone(), before));

    // When the account without an accountID is applied again.
    without_id.administrator_applies(json!({})).await;

    // Then it waits for a person, and names the uid.
    without_id.wait_until("a person is asked", |a| is_stalled(a, "NeedsAdoption", &uid)).await;

    // When an administrator adopts a uid that no ledger has.
    without_id.administrator_annotates("helpdesk-operator.io/adopt", "00000000-0000-4000-8000-000000000000").await;

    // Then the account says so.
    without_id.wait_until("an unknown uid is told", |a| is_stalled(a, "NotAdopted", "no ledger of the region")).await;

    // When an administrator adopts the right uid.
    without_id.administrator_annotates("helpdesk-operator.io/adopt", &uid).await;

    // Then the account gets its database back, and the server names no lost account any more.
    let adopted = without_id.reaches(Stage::Blocked).await.status.unwrap();
    assert_eq!(adopted.database.unwrap().name, second.database);
    eventually("nobody is lost", || async {
        accounts_lost(&shard).await.filter(|(_, text)| !text.contains("lost-id") && !text.contains("lost-none"))
    })
    .await;

    // When the account that has expired is deleted and applied again.
    shard.cluster.accounts().delete("lost-gone", &DeleteParams::default()).await.unwrap();
    wait_until_deleted(shard.cluster.accounts(), "lost-gone").await;
    gone_with_id.administrator_applies(json!({"accountID": GONE_ID})).await;

    // Then it says that the account has expired.
    gone_with_id.wait_until("the tombstone is told", |a| is_stalled(a, "NotAdopted", "has expired at")).await;
}

#[tokio::test]
async fn many_objects_that_are_lost_at_once_shut_nobody_until_a_person_agrees() {
    // Given three accounts on a server whose brake allows one step an hour.
    let shard = Shard::new("lost-many", Servers::First).await;
    shard.administrator_applies_plan(json!({"trial": "40s"})).await;
    let administrator_patches_server = async |server: Value| {
        let servers: Api<DatabaseServer> = Api::all(shard.cluster.client.clone());
        servers.patch(&shard.name, &PatchParams::default(), &Patch::Merge(server)).await.unwrap();
    };
    administrator_patches_server(json!({"spec": {"brake": {"percent": 1, "atLeast": 1, "window": "1h"}}})).await;
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

    // When all three objects are lost, the operator starts again, and the trials end.
    operator.kill();
    for account in &accounts {
        shard.cluster.account_object_is_lost(&account.name).await;
    }
    let _operator = shard.start_operator("again", &[]);
    let too_many_lost = async || accounts_lost(&shard).await.filter(|(_, text)| text.contains("3 accounts without an object are open"));
    eventually("too many are lost", too_many_lost).await;
    wait_until_after(&ends).await;
    tokio::time::sleep(Duration::from_secs(40)).await;

    // Then every tenant still logs in.
    assert!(too_many_lost().await.is_some());
    for tenant in &tenants {
        tenant.logs_in().await.expect("many were shut at once");
    }

    // When an administrator releases the brake.
    administrator_patches_server(
        json!({"metadata": {"annotations": {"helpdesk-operator.io/release-brake": helpdesk_operator::clock::now().to_string()}}}),
    )
    .await;

    // Then every tenant is locked out.
    for tenant in &tenants {
        eventually("it is shut", || async { tenant.logs_in().await.is_err().then_some(()) }).await;
    }
}

#[tokio::test]
async fn a_server_that_stops_keeps_nobody_from_signing_up_at_another_one_unless_it_may_hold_the_account() {
    // Given two servers of one region, and an operator that has read the ledgers of both.
    let shard = Shard::new("away", Servers::First).await;
    let second = shard.administrator_adds_server("away-2").await;
    shard.administrator_applies_plan(json!({})).await;
    let operator = shard.start_operator("only", &[]);
    let account =
        |name: &str| Account { cluster: shard.cluster.clone(), name: name.into(), plan: shard.name.clone(), region: shard.name.clone() };
    let servers: Api<DatabaseServer> = Api::all(shard.cluster.client.clone());
    let ready = async |name: &str, wanted: &str| {
        let status = servers.get(name).await.unwrap().status?;
        status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == wanted).then_some(())
    };
    eventually("both servers are ready", || async { ready("away", "True").await.and(ready("away-2", "True").await) }).await;
    // No other operator can have placed an account that is created after this operator began to lead. The sleep leaves room
    // for clocks that differ.
    tokio::time::sleep(Duration::from_secs(35)).await;

    // When one server stops, and two customers sign up, one of them with an accountID.
    second.stops(&shard.cluster).await;
    eventually("the server is seen to be away", || async { ready("away-2", "False").await }).await;
    let (plain, with_id) = (account("away-plain"), account("away-id"));
    plain.administrator_applies(json!({})).await;
    with_id.administrator_applies(json!({"accountID": "7d1f0b52-52f5-4b1e-9a57-0c6f3f5b7a21"})).await;

    // Then both get a database on the other server.
    for customer in [&plain, &with_id] {
        customer.receives_credentials_in(Stage::Trial).await.logs_in().await.unwrap();
        assert_eq!(customer.get().await.status.unwrap().database.unwrap().server, "away");
    }

    // When another operator starts, which cannot read the ledger of the stopped server, and a customer with an
    // accountID signs up.
    operator.kill();
    let _operator = shard.start_operator("again", &[]);
    let unsure = account("away-unsure");
    unsure.administrator_applies(json!({"accountID": "7d1f0b52-52f5-4b1e-9a57-0c6f3f5b7a22"})).await;

    // Then the account waits, because the stopped server may hold it.
    unsure
        .wait_until("it waits", |a| find_condition(a, "Ready").is_some_and(|c| c.reason == "ServerAway" && c.message.contains("away-2")))
        .await;

    // When the server runs again.
    second.starts_again(&shard.cluster).await;

    // Then the customer gets a database.
    unsure.receives_credentials_in(Stage::Trial).await;
}
