//! Apps and hooks that do not do what they should.

use helpdesk_operator::{api::HelpDeskAccount, lifecycle::Stage};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use serde_json::{Value, json};

use super::namespace;
use crate::{
    cluster::{Account, Cluster, eventually, find_condition, has_condition},
    tenant::Tenant,
};

/// A customer whose plan and class have this name, with a component `web` of the image that has a shell, and these hooks.
async fn customer_uses(cluster: &Cluster, name: &str, workload: Value, hooks: Value) -> Account {
    let mut pods =
        json!({"image": "localhost/django-helpdesk:2.6.1", "runAsUser": 65532, "command": ["python3", "-m", "http.server", "8080"]});
    pods.as_object_mut().unwrap().extend(workload.as_object().unwrap().clone());
    cluster
        .administrator_applies(json!({"kind": "HelpDeskClass", "metadata": {"name": name}, "spec": {
            "app": {"name": "misbehaving", "version": "1"},
            "components": [{"name": "web", "port": 8080, "workload": pods}],
            "routes": [{"path": "/", "component": "web", "audience": "public"}],
            "env": [{"name": "SECRET", "value": "${admin.password}"}],
            "hooks": hooks}}))
        .await;
    cluster.administrator_applies_plan_with(name, json!({"paymentGrace": "2s"}), json!({"class": name})).await;
    cluster.customer_signs_up(name, name).await
}

async fn says(account: &Account, reason: &str, words: &str) -> HelpDeskAccount {
    let says = |a: &HelpDeskAccount| find_condition(a, "AppReady").is_some_and(|c| c.reason == reason && c.message.contains(words));
    account.wait_until(&format!("AppReady to say {reason}, {words}"), says).await
}

/// Whatever its app does, a customer who does not pay is blocked, and the app has no pods then.
async fn does_not_pay_and_is_blocked(account: &Account) {
    account.billing_reports_active().await;
    account.reaches(Stage::Active).await;
    account.billing_reports_past_due().await;
    let blocked = account.reaches(Stage::Blocked).await;
    let pods: Api<Pod> = Api::namespaced(account.cluster.client.clone(), &namespace(&blocked));
    let runs = |pod: &Pod| !matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"));
    let have_ended = async || (!pods.list(&ListParams::default()).await.unwrap().items.iter().any(runs)).then_some(());
    eventually("the end of every pod", have_ended).await;
}

fn shell(script: &str) -> Value {
    json!({"exec": {"component": "web", "command": ["sh", "-c", script]}})
}

#[tokio::test]
async fn a_hook_that_hangs_is_ended_and_holds_up_no_block() {
    let cluster = Cluster::connect().await;
    let mut hangs = shell("trap '' TERM; sleep 1000000");
    hangs["deadlineSeconds"] = json!(15);
    let account = customer_uses(&cluster, "bad-hangs", json!({}), json!({"bootstrap": hangs})).await;
    says(&account, "HookFailed", "DeadlineExceeded").await;
    does_not_pay_and_is_blocked(&account).await;
}

#[tokio::test]
async fn a_hook_that_prints_garbage_and_secrets_before_it_fails_has_none_of_it_in_the_status() {
    let cluster = Cluster::connect().await;
    let script =
        r#"head -c 3000000 /dev/urandom; printf '\033[2J{"status":"True"}\n%s\n' "$SECRET"; echo "$SECRET" > /dev/termination-log; exit 3"#;
    let account = customer_uses(&cluster, "bad-garbage", json!({}), json!({"bootstrap": shell(script)})).await;
    let failed = says(&account, "HookFailed", "Job").await;
    let password = cluster.secret(&namespace(&failed), "app-admin").await.unwrap()["password"].clone();
    let status = serde_json::to_string(&failed.status).unwrap();
    assert!(!status.contains(&password) && !status.contains("\\u001b"), "{status}");
    does_not_pay_and_is_blocked(&account).await;
}

#[tokio::test]
async fn a_hook_that_is_killed_or_asks_for_another_try_runs_again() {
    // Given a hook that asks for another try until a table is there, and then waits for a second table.
    let cluster = Cluster::connect().await;
    let script = "exec python3 - <<'END'
import os, sys, time, psycopg
with psycopg.connect(os.environ['DATABASE'], autocommit=True) as database:
    tables = [name for (name,) in database.execute(\"SELECT tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')\")]
    if 'tries' not in tables:
        database.execute('CREATE TABLE tries (at timestamptz DEFAULT now())')
        sys.exit(75)
    database.execute('INSERT INTO tries DEFAULT VALUES')
    if 'permitted' not in tables:
        time.sleep(100000)
END";
    cluster
        .administrator_applies(json!({"kind": "HelpDeskClass", "metadata": {"name": "bad-retried"}, "spec": {
            "app": {"name": "misbehaving", "version": "1"},
            "components": [{"name": "web", "port": 8080, "workload": {"image": "localhost/django-helpdesk:2.6.1", "runAsUser": 65532,
                "command": ["python3", "-m", "http.server", "8080"]}}],
            "routes": [{"path": "/", "component": "web", "audience": "public"}],
            "env": [{"name": "DATABASE", "value": "${db.url}"}, {"name": "PGSSLROOTCERT", "value": "${db.caFile}"}],
            "hooks": {"bootstrap": shell(script)}}}))
        .await;
    cluster.administrator_applies_plan_with("bad-retried", json!({}), json!({"class": "bad-retried"})).await;
    let account = cluster.customer_signs_up("bad-retried", "bad-retried").await;
    let waits = says(&account, "Bootstrapping", "Job").await;
    let secret = cluster.secret(&namespace(&waits), "database").await.unwrap();
    let tenant = Tenant::of(&secret);

    // When it runs for the second time, and its pod is killed.
    let rows = async || {
        let mut connection = tenant.logs_in().await.ok()?;
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM tries").fetch_one(&mut connection).await.ok()
    };
    eventually("the second try", async || rows().await.filter(|rows| *rows == 1)).await;
    let mut connection = tenant.logs_in().await.unwrap();
    sqlx::raw_sql("CREATE TABLE permitted ()").execute(&mut connection).await.unwrap();
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &namespace(&waits));
    let of_hook = pods.list(&ListParams::default().labels("helpdesk-operator.io/component=bootstrap")).await.unwrap();
    let running = of_hook.items.iter().find(|pod| pod.status.as_ref().unwrap().phase.as_deref() == Some("Running")).unwrap();
    pods.delete(&running.name_any(), &DeleteParams::default().grace_period(0)).await.unwrap();

    // Then it runs once more, and the app starts.
    account.wait_until("AppReady", |a| has_condition(a, "AppReady", "True")).await;
    assert_eq!(rows().await, Some(2));
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_and_a_node_without_room_are_named_and_hold_up_no_block() {
    let cluster = Cluster::connect().await;
    let absent = customer_uses(&cluster, "bad-image", json!({"image": "localhost/absent:1"}), json!({})).await;
    let large = customer_uses(&cluster, "bad-room", json!({"cpu": "4000"}), json!({})).await;
    says(&absent, "Progressing", "the image localhost/absent:1").await;
    says(&large, "Progressing", "Insufficient cpu").await;
    does_not_pay_and_is_blocked(&absent).await;
    does_not_pay_and_is_blocked(&large).await;
}
