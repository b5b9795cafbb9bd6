//! Billing that repeats itself, comes late, or comes while something is under way.

use std::process::Command;

use axum::http::Request;
use helpdesk_operator::{
    api::{BackupReason, ColdBackup, HelpDeskAccount},
    clock::{self, Moment},
    lifecycle::{Reason, Stage},
};
use k8s_openapi::{api::core::v1::Pod, jiff::SignedDuration};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{
    cluster::{Account, Cluster, OPERATOR, eventually, find_condition, has_condition, setting},
    operator::{Servers, Shard},
    tenant::{Tenant, databases_and_roles_left, superuser_logs_in},
};

/// A time as billing writes it.
fn timestamp(at: Moment) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn seconds(n: i64) -> SignedDuration {
    SignedDuration::from_secs(n)
}

/// A customer signs up and pays.
async fn customer_who_pays(cluster: &Cluster, name: &str, plan: &str) -> (Account, Tenant) {
    let account = cluster.customer_signs_up(name, plan).await;
    account.receives_credentials_in(Stage::Trial).await;
    account.billing_reports_active().await;
    let tenant = account.receives_credentials_in(Stage::Active).await;
    (account, tenant)
}

/// How many messages of billing the operator refused for this reason: the sum of the metric over its replicas.
async fn refused_billing_messages(cluster: &Cluster, reason: &str) -> f64 {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), OPERATOR);
    let line = format!("helpdesk_operator_billing_refused_total{{reason=\"{reason}\"}} ");
    let mut sum = 0.0;
    for pod in pods.list(&Default::default()).await.unwrap().items.iter().filter(|p| p.name_any().starts_with("helpdesk-operator-")) {
        let path = format!("/api/v1/namespaces/{OPERATOR}/pods/{}:8080/proxy/metrics", pod.name_any());
        let text = cluster.client.request_text(Request::get(path).body(vec![]).unwrap()).await.unwrap_or_default();
        sum += text.lines().filter_map(|l| l.strip_prefix(&line)?.parse::<f64>().ok()).sum::<f64>();
    }
    sum
}

fn waits_for_sessions(account: &HelpDeskAccount) -> bool {
    find_condition(account, "Reconciling").is_some_and(|c| c.message.contains("entering Blocked") && c.message.contains("do not end"))
}

#[tokio::test]
async fn a_payment_lets_the_tenant_in_again_although_a_session_still_holds_up_the_block() {
    // Given a tenant who pays, and a superuser's session in its database.
    let cluster = Cluster::connect().await;
    let (account, tenant) = customer_who_pays(&cluster, "turned-round", "seconds").await;
    tenant.creates_tickets(20).await;
    let before = tenant.checksum().await;
    let session = superuser_logs_in(&tenant.database).await;

    // When a payment fails.
    account.billing_reports_past_due().await;

    // Then the block waits for the session, and the tenant is locked out already.
    account.wait_until("a block that is held up", waits_for_sessions).await;
    assert!(tenant.logs_in().await.is_err(), "the tenant gets in while the block is held up");

    // When billing reports a payment meanwhile.
    account.billing_reports_active().await;

    // Then the tenant logs in again, finds its data as it was, and no Frozen backup was taken.
    eventually("the tenant gets in again", || async { tenant.logs_in().await.ok() }).await;
    let open = account.wait_until("Ready", |a| has_condition(a, "Ready", "True")).await.status.unwrap();
    assert_eq!((open.stage, open.reason), (Some(Stage::Active), Some(Reason::Paid)));
    assert_eq!(tenant.checksum().await, before);
    assert!(account.backups().await.is_empty(), "a Frozen backup of a stage that was not entered");

    // When the session ends, and the next payment fails.
    sqlx::Connection::close(session).await.unwrap();
    account.billing_reports_past_due().await;

    // Then the account is Blocked, as after any failed payment.
    account.reaches(Stage::Blocked).await;
    assert!(tenant.logs_in().await.is_err());
}

#[tokio::test]
async fn a_cancellation_that_is_withdrawn_while_it_is_held_up_leaves_the_account_open() {
    // Given a tenant who pays, and a superuser's session in its database.
    let cluster = Cluster::connect().await;
    let (account, tenant) = customer_who_pays(&cluster, "withdrawn", "seconds").await;
    let session = superuser_logs_in(&tenant.database).await;

    // When the owner cancels, and withdraws that while the session holds up the end.
    account.owner_cancels().await;
    account
        .wait_until("an end that is held up", |a| find_condition(a, "Reconciling").is_some_and(|c| c.message.contains("do not end")))
        .await;
    account.administrator_applies(json!({})).await;

    // Then the tenant logs in again, and the account is Active.
    eventually("the tenant gets in again", || async { tenant.logs_in().await.ok() }).await;
    account.receives_credentials_in(Stage::Active).await;
    sqlx::Connection::close(session).await.unwrap();
}

#[tokio::test]
async fn retries_of_a_failed_charge_do_not_move_the_block() {
    // Given a tenant who pays, under a plan with a payment grace of ten seconds.
    let cluster = Cluster::connect().await;
    cluster.administrator_applies_plan("retries", json!({"paymentGrace": "10s"})).await;
    let (account, tenant) = customer_who_pays(&cluster, "retries", "retries").await;

    // When the payment fails, and billing reports each retry as a new failure.
    let first = clock::now();
    for sequence in 2_i64.. {
        let now = timestamp(clock::now());
        account.billing_writes(json!({"state": "PastDue", "since": now, "delinquentSince": now, "sequence": sequence})).await;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        if tenant.logs_in().await.is_err() || clock::now() > first + seconds(60) {
            break;
        }
    }

    // Then the account is Blocked when the grace of the first failure has passed, and an event says why.
    let blocked = account.reaches(Stage::Blocked).await.status.unwrap();
    assert_eq!(blocked.reason, Some(Reason::PaymentFailed));
    let since = blocked.stage_since.unwrap().0;
    assert!(since >= first + seconds(10) && since <= first + seconds(40), "blocked at {since}, the first failure was at {first}");
    assert!(account.wait_for_event("StartMoved").await.contains("verb reset-billing"));
}

#[tokio::test]
async fn the_example_of_billing_blocks_and_reopens_as_it_is_printed() {
    // Given an account, and examples/billing-patch.sh, which runs with the rights of billing.
    let cluster = Cluster::connect().await;
    cluster.administrator_applies_plan("example", json!({"paymentGrace": "10s"})).await;
    let account = cluster.customer_signs_up("billing-example", "example").await;
    let billing_runs_the_example = |arguments: &str| {
        let kubectl = format!("{}/kubectl --as=system:serviceaccount:{OPERATOR}:billing", setting("HELPDESK_TEST_BIN"));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/billing-patch.sh");
        let mut command = Command::new(script);
        let done = command
            .args(["billing-example"].into_iter().chain(arguments.split(' ')))
            .env("KUBECTL", kubectl)
            .env("KUBECONFIG", setting("HELPDESK_TEST_KUBECONFIG"))
            .output()
            .unwrap();
        assert!(done.status.success(), "{arguments}: {}", String::from_utf8_lossy(&done.stderr));
    };
    account.receives_credentials_in(Stage::Trial).await;

    // When billing reports a payment, and then a failed payment with many retries.
    billing_runs_the_example("Active 41");
    let tenant = account.receives_credentials_in(Stage::Active).await;
    let first = clock::now();
    for sequence in 42_i64..90 {
        billing_runs_the_example(&format!("PastDue {sequence}"));
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        if tenant.logs_in().await.is_err() {
            break;
        }
    }

    // Then the account is Blocked when the grace of the first failure has passed.
    let blocked = account.reaches(Stage::Blocked).await.status.unwrap();
    assert!(blocked.stage_since.unwrap().0 <= first + seconds(40), "retries kept the account open");

    // When billing reports a payment, then the tenant logs in.
    billing_runs_the_example("Active 100");
    account.receives_credentials_in(Stage::Active).await.logs_in().await.unwrap();

    // When billing reports a cancellation whose paid period ends in three seconds.
    let now = clock::now();
    billing_runs_the_example(&format!("Canceled 101 {} {}", timestamp(now), timestamp(now + seconds(3))));

    // Then the account is Blocked, and not before the period has ended.
    let ended = account.reaches(Stage::Blocked).await.status.unwrap();
    assert_eq!(ended.reason, Some(Reason::SubscriptionCanceled));
    assert!(ended.stage_since.unwrap().0 >= now + seconds(3));
}

#[tokio::test]
async fn the_late_end_of_a_subscription_that_was_replaced_waits_and_billings_next_word_settles_it() {
    // Given two tenants who pay.
    let cluster = Cluster::connect().await;
    cluster.administrator_applies_plan("late-end", json!({"paymentGrace": "12s"})).await;
    let settled = customer_who_pays(&cluster, "late-end-settled", "late-end").await;
    let silent = customer_who_pays(&cluster, "late-end-silent", "late-end").await;

    // When billing reports a cancellation that is older than the payment.
    for (account, tenant) in [&settled, &silent] {
        let since = timestamp(account.get().await.creation_timestamp().unwrap().0 - seconds(600));
        account.billing_writes(json!({"state": "Canceled", "since": since, "periodEnd": since, "sequence": 2})).await;

        // Then the account says that it doubts this, and its tenant still logs in.
        let doubted = account.wait_until("Stalled", |a| find_condition(a, "Stalled").is_some_and(|c| c.reason == "BillingDoubted")).await;
        let stalled = find_condition(&doubted, "Stalled").unwrap();
        assert!(stalled.message.contains("unless billing settles it before"), "{}", stalled.message);
        assert_eq!(doubted.status.unwrap().next_stage, Some(Stage::Blocked));
        assert!(account.wait_for_event("BeforePayment").await.contains("says Canceled since"));
        assert!(refused_billing_messages(&cluster, "BeforePayment").await >= 1.0);
        tenant.logs_in().await.expect("the late end shut a tenant who pays");
    }

    // When billing confirms the payment of one, and says nothing more of the other.
    settled.0.billing_writes(json!({"state": "Active", "since": timestamp(clock::now()), "sequence": 3})).await;

    // Then the silent one is Blocked when the grace has passed, and the confirmed one stays Active.
    let blocked = silent.0.reaches(Stage::Blocked).await;
    assert_eq!(blocked.status.unwrap().reason, Some(Reason::SubscriptionCanceled));
    let account = settled.0.wait_until("no doubt", |a| find_condition(a, "Stalled").is_none()).await.status.unwrap();
    assert_eq!((account.stage, account.next_stage), (Some(Stage::Active), None));
    settled.1.logs_in().await.unwrap();
}

#[tokio::test]
async fn a_word_of_another_subscription_changes_nothing_and_says_so() {
    // Given a tenant who pays for the subscription sub_new.
    let cluster = Cluster::connect().await;
    let (account, tenant) = customer_who_pays(&cluster, "two-subscriptions", "seconds").await;
    account.billing_writes(json!({"state": "Active", "since": timestamp(clock::now()), "subscription": "sub_new", "sequence": 2})).await;
    account.wait_until("it was seen", |a| a.status.as_ref().is_some_and(|s| s.observed_billing_sequence == Some(2))).await;

    // When billing reports the end of another subscription.
    account.billing_writes(json!({"state": "Canceled", "since": timestamp(clock::now()), "subscription": "sub_old", "sequence": 3})).await;

    // Then an event and a metric tell it, and the account stays Active.
    let message = account.wait_for_event("OtherSubscription").await;
    assert!(refused_billing_messages(&cluster, "OtherSubscription").await >= 1.0);
    assert!(message.contains("Canceled of the subscription sub_old; the one that is paid for is sub_new"), "{message}");
    let after = account.get().await;
    assert!(find_condition(&after, "Stalled").is_none());
    assert_eq!(after.status.unwrap().stage, Some(Stage::Active));
    tenant.logs_in().await.unwrap();
}

#[tokio::test]
async fn a_payment_that_is_dated_ahead_counts_once_its_time_has_come() {
    // Given an account in its trial.
    let cluster = Cluster::connect().await;
    let account = cluster.customer_signs_up("dated-ahead", "seconds").await;
    account.receives_credentials_in(Stage::Trial).await;

    // When billing reports a payment whose time is 45 seconds ahead.
    let ahead = clock::now() + seconds(45);
    account.billing_writes(json!({"state": "Active", "since": timestamp(ahead), "sequence": 1})).await;

    // Then the account says that it does not count yet.
    account.wait_until("Stalled", |a| find_condition(a, "Stalled").is_some_and(|c| c.reason == "BillingRefused")).await;
    assert!(account.wait_for_event("InTheFuture").await.contains("or wait until this one has"));

    // When that time comes.
    let paid = account.reaches(Stage::Active).await;

    // Then the payment counts within 15 seconds.
    assert!(clock::now() < ahead + seconds(15), "nobody looked when its time came");
    assert!(find_condition(&paid, "Stalled").is_none());
}

#[tokio::test]
async fn a_payment_or_a_hold_between_the_decision_and_the_drop_keeps_the_database() {
    // Given an account whose drop is decided, and an operator that crashed before the drop.
    let shard = Shard::new("turns", Servers::First).await;
    shard.administrator_applies_plan(json!({"trial": "2s", "blocked": "2s", "terminated": "2s", "coldBackup": "2m"})).await;
    let is_frozen = |b: &&ColdBackup| b.spec.reason == BackupReason::Frozen;

    let account = shard.customer_signs_up("turns-paid").await;
    shard.start_operator("only", &[("HELPDESK_OPERATOR_CRASH_AT", "intent-recorded:Deleted")]).crashes().await;

    // When billing reports a payment, and the operator starts again.
    let before = account.get().await.status.unwrap().database.unwrap();
    account.billing_reports_active().await;
    let operator = shard.start_operator("only", &[]);

    // Then the tenant logs in to the database that it had.
    account.receives_credentials_in(Stage::Active).await.logs_in().await.unwrap();
    assert_eq!(account.get().await.status.unwrap().database.unwrap().oid, before.oid, "another database than the one that was paid for");
    operator.kill();

    // Given a second account like the first.
    let account = shard.customer_signs_up("turns-held").await;
    shard.start_operator("only", &[("HELPDESK_OPERATOR_CRASH_AT", "intent-recorded:Deleted")]).crashes().await;
    let name = account.get().await.status.unwrap().database.unwrap().name;

    let frozen = async || account.backups().await.iter().filter(is_frozen).count();
    let before = frozen().await;

    // When somebody places a hold, and the operator starts again.
    account.administrator_applies(json!({"hold": {"reason": "case 8"}})).await;
    let _operator = shard.start_operator("only", &[]);

    // Then the drop waits: the account is still Terminated, and another Frozen backup is taken.
    let held = account.wait_until("a drop that waits", |a| find_condition(a, "Overdue").is_some_and(|c| c.reason == "Held")).await;
    assert_eq!(held.status.unwrap().stage, Some(Stage::Terminated));
    eventually("another Frozen backup", async || (frozen().await > before).then_some(())).await;
    assert!(databases_and_roles_left(&name).await > 0, "dropped under a hold");

    // When the hold is lifted.
    account.administrator_applies(json!({})).await;

    // Then the database is dropped.
    account.reaches(Stage::Deleted).await;
    assert_eq!(databases_and_roles_left(&name).await, 0);
}
