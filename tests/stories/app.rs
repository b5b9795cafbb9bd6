//! A real help desk for a tenant: Request Tracker, in pods that the operator runs, on the tenant's own database.

mod django;
mod misbehaving;
mod neighbours;
mod requirements;
mod secrets;
mod upgrade;

use helpdesk_operator::{
    api::{HelpDeskAccount, HelpDeskClass},
    lifecycle::Stage,
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Pod, ResourceQuota},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    cluster::{Account, Cluster, eventually, has_condition},
    web::{is_published, visitor_gets, visitor_tries_to_get},
};

/// The class of examples/request-tracker.yaml.
pub async fn administrator_applies_request_tracker(cluster: &Cluster) {
    cluster.administrator_applies(serde_yaml_ng::from_str(include_str!("../../examples/request-tracker.yaml")).unwrap()).await;
}

pub async fn administrator_applies_plan(cluster: &Cluster, name: &str) {
    let gateway = json!({"name": "edge", "namespace": "edge"});
    cluster
        .administrator_applies(json!({"kind": "HelpDeskPlan", "metadata": {"name": name}, "spec": {
            "class": "request-tracker",
            "lifecycle": {"trial": "1h", "paymentGrace": "2s", "blocked": "1h", "terminated": "1h", "coldBackup": "1h"},
            "backups": {"schedule": "0 0 1 1 *", "keep": "1h", "verify": "Restore"},
            "placements": [{"region": "eu-1", "store": "eu-cold", "domainBase": "helpdesk.example", "gateway": gateway}]}}))
        .await;
}

fn namespace(account: &HelpDeskAccount) -> String {
    account.status.as_ref().unwrap().namespace.as_ref().unwrap().name.clone()
}

/// Asks the app's interface for programs, logged in as its administrator with the password that the owner was given.
pub async fn app_administrator_requests(account: &Account, path: &str, more: &[&str]) -> (u16, Value) {
    let namespace = namespace(&account.get().await);
    let password = account.cluster.secret(&namespace, "app-admin").await.unwrap()["password"].clone();
    let name = account.get().await.name_any();
    let mut arguments = vec!["--user".to_owned(), format!("root:{password}"), "--header".into(), "Content-Type: application/json".into()];
    arguments.extend(more.iter().map(ToString::to_string));
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let got = visitor_gets(&format!("https://{name}.helpdesk.example/REST/2.0/{path}"), &arguments);
    (got.status, serde_json::from_str(&got.body).unwrap_or_default())
}

/// The administrator logs in on the page of the app. Returns the cookie of the session.
async fn agent_logs_in(account: &Account) -> String {
    let found = account.get().await;
    let password = account.cluster.secret(&namespace(&found), "app-admin").await.unwrap()["password"].clone();
    let form = format!("pass={password}");
    let arguments = ["--data-urlencode", "user=root", "--data-urlencode", &form];
    let page = visitor_gets(&format!("https://{}.helpdesk.example/NoAuth/Login.html", found.name_any()), &arguments);
    let cookie = page.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("no session began");
    // Names of cookies are told apart by case, and the head was put into lower case.
    cookie.split(';').next().unwrap().replace("rt_sid", "RT_SID")
}

#[tokio::test]
async fn a_request_tracker_answers_while_its_tenant_pays_and_refuses_everybody_while_not() {
    // Given a tenant whose class is Request Tracker.
    let cluster = Cluster::connect().await;
    administrator_applies_request_tracker(&cluster).await;
    administrator_applies_plan(&cluster, "app-life").await;
    let account = cluster.customer_signs_up("app-life", "app-life").await;

    // When its pods run and its address answers.
    account.wait_until("AppReady", |a| has_condition(a, "AppReady", "True")).await;
    is_published(&account).await;

    // Then its login page is Request Tracker's, and its administrator opens a ticket.
    let login = visitor_gets("https://app-life.helpdesk.example/NoAuth/Login.html", &[]);
    assert_eq!((login.status, login.body.contains("<title>Login</title>")), (200, true), "{login:?}");
    let ticket = r#"{"Queue": "General", "Subject": "The printer is on fire", "Content": "since Tuesday"}"#;
    let (status, made) = app_administrator_requests(&account, "ticket", &["--data", ticket]).await;
    assert_eq!(status, 201, "{made}");
    let id = made["id"].as_str().unwrap().to_owned();

    // Given an agent whose browser is logged in.
    let ticket_page = format!("https://app-life.helpdesk.example/Ticket/Display.html?id={id}");
    let session = agent_logs_in(&account).await;
    let as_agent = ["--cookie", &session];
    assert!(visitor_gets(&ticket_page, &as_agent).body.contains("The printer is on fire"));

    // When its payment fails.
    account.billing_reports_active().await;
    account.reaches(Stage::Active).await;
    account.billing_reports_past_due().await;
    let blocked = account.reaches(Stage::Blocked).await;

    // Then the page of a paused help desk answers everybody, and the app has no pods.
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &namespace(&blocked));
    let serving = ListParams::default().labels("helpdesk-operator.io/component=web");
    eventually("the end of the app's pods", async || pods.list(&serving).await.unwrap().items.is_empty().then_some(())).await;
    account.wait_until("AppReady to say that it is stopped", |a| has_condition(a, "AppReady", "False")).await;
    assert_eq!(visitor_gets("https://app-life.helpdesk.example/NoAuth/Login.html", &[]).status, 503);
    assert_eq!(app_administrator_requests(&account, &format!("ticket/{id}"), &[]).await.0, 503);

    // When billing reports a payment, then the ticket from before is there.
    account.billing_reports_active().await;
    account.reaches(Stage::Active).await;
    account.wait_until("AppReady", |a| has_condition(a, "AppReady", "True")).await;
    is_published(&account).await;
    let (status, found) = app_administrator_requests(&account, &format!("ticket/{id}"), &[]).await;
    assert_eq!((status, found["Subject"].as_str()), (200, Some("The printer is on fire")), "{found}");

    // Then the session from before is over.
    let page = visitor_gets(&ticket_page, &as_agent);
    assert!(page.status == 302 && page.head.contains("/noauth/login.html"), "{page:?}");

    // When the owner asks for another password of the administrator, then the sessions of the old one are over, and the new
    // one counts.
    let session = agent_logs_in(&account).await;
    let as_agent = ["--cookie", &session];
    assert!(visitor_gets(&ticket_page, &as_agent).body.contains("The printer is on fire"));
    account.administrator_annotates("helpdesk-operator.io/rotate-app-password", "1").await;
    // A request that was open when the pod ended is cut.
    let ended = async || visitor_tries_to_get(&ticket_page, &as_agent).ok().filter(|answer| answer.status == 302).map(drop);
    eventually("the end of the session", ended).await;
    account.wait_until("AppReady", |a| has_condition(a, "AppReady", "True")).await;
    let (status, found) = app_administrator_requests(&account, "user/root", &[]).await;
    assert_eq!((status, found["EmailAddress"].as_str()), (200, Some("ana@app-life.example")), "{found}");

    // When somebody deletes a Deployment of the app or changes it, then it is put back, and what was added stays.
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &namespace(&blocked));
    let edit = json!({"metadata": {"annotations": {"tenant.example/note": "ours"}}, "spec": {"replicas": 3}});
    deployments.patch("web", &PatchParams::default(), &Patch::Merge(edit)).await.unwrap();
    let as_wanted = async || {
        let found = deployments.get("web").await.unwrap();
        (found.spec.as_ref().unwrap().replicas == Some(1)).then_some(found)
    };
    let restored = eventually("the replicas of the class", as_wanted).await;
    assert_eq!(restored.annotations().get("tenant.example/note").map(String::as_str), Some("ours"));
    deployments.delete("web", &DeleteParams::default()).await.unwrap();
    let uid = restored.uid();
    let is_new = async || deployments.get_opt("web").await.unwrap().filter(|found| found.uid() != uid).map(drop);
    eventually("another Deployment", is_new).await;
}

#[tokio::test]
async fn a_class_that_asks_for_an_unlisted_secret_says_which_and_where_and_its_database_works() {
    // Given a class that asks for a secret that it does not list, which the schema cannot see.
    let cluster = Cluster::connect().await;
    cluster
        .administrator_applies(json!({"kind": "HelpDeskClass", "metadata": {"name": "app-mistyped"}, "spec": {
            "app": {"name": "echo", "version": "1"},
            "components": [{"name": "web", "port": 8080, "workload": {"image": "localhost/echo:1", "runAsUser": 65532, "cpu": "10m"}}],
            "routes": [{"path": "/", "component": "web", "audience": "public"}],
            "env": [{"name": "KEY", "value": "${secrets.sesion}"}]}}))
        .await;
    cluster
        .administrator_applies(json!({"kind": "HelpDeskPlan", "metadata": {"name": "app-mistyped"}, "spec": {
            "class": "app-mistyped",
            "backups": {"schedule": "0 0 1 1 *", "keep": "1h", "verify": "Restore"},
            "placements": [{"region": "eu-1", "store": "eu-cold", "domainBase": "helpdesk.example"}]}}))
        .await;

    // When an account gets it, then the condition names the field and the variable, and the tenant's login works.
    let account = cluster.customer_signs_up("app-mistyped", "app-mistyped").await;
    let says = |a: &HelpDeskAccount| {
        let found = super::cluster::find_condition(a, "AppReady");
        found.is_some_and(|c| c.reason == "ClassInvalid" && c.message.contains("env KEY") && c.message.contains("${secrets.sesion}"))
    };
    account.wait_until("AppReady to name the variable", says).await;
    let open = account.wait_until("DatabaseReady", |a| has_condition(a, "DatabaseReady", "True")).await;
    assert!(cluster.secret(&namespace(&open), "database").await.is_some(), "no credentials");
}

#[tokio::test]
async fn an_app_that_does_not_show_its_tenants_value_is_not_ready_and_says_so() {
    // Given a class whose app shows nothing that was written into the tenant's database.
    let cluster = Cluster::connect().await;
    cluster
        .administrator_applies(json!({"kind": "HelpDeskClass", "metadata": {"name": "app-elsewhere"}, "spec": {
            "app": {"name": "echo", "version": "1"},
            "components": [{"name": "web", "port": 8080, "workload": {"image": "localhost/echo:1", "runAsUser": 65532, "cpu": "10m", "replicas": 2}}],
            "routes": [{"path": "/", "component": "web", "audience": "public"}],
            "readiness": {"component": "web", "path": "/"}}}))
        .await;
    cluster
        .administrator_applies(json!({"kind": "HelpDeskPlan", "metadata": {"name": "app-elsewhere"}, "spec": {
            "class": "app-elsewhere",
            "app": {"maxPods": 4, "maxMemory": "3Gi"},
            "backups": {"schedule": "0 0 1 1 *", "keep": "1h", "verify": "Restore"},
            "placements": [{"region": "eu-1", "store": "eu-cold", "domainBase": "helpdesk.example"}]}}))
        .await;

    // When an account gets it, then neither the app nor the account is ready, and both say why.
    let account = cluster.customer_signs_up("app-elsewhere", "app-elsewhere").await;
    for kind in ["AppReady", "Ready"] {
        let says = |a: &HelpDeskAccount| {
            let found = super::cluster::find_condition(a, kind);
            found.is_some_and(|c| c.status == "False" && c.reason == "ValueNotShown" && c.message.contains("another database"))
        };
        account.wait_until(&format!("{kind} to say that the value is missing"), says).await;
    }

    // Then its namespace allows no volume and no more than the plan does, and its two pods are not taken away at once.
    let namespace = namespace(&account.get().await);
    let quotas: Api<ResourceQuota> = Api::namespaced(cluster.client.clone(), &namespace);
    let hard = quotas.get("app").await.unwrap().spec.unwrap().hard.unwrap();
    let hard = |resource: &str| hard[resource].0.clone();
    assert_eq!((hard("persistentvolumeclaims"), hard("pods"), hard("limits.memory")), ("0".into(), "4".into(), "3Gi".into()));
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(cluster.client.clone(), &namespace);
    assert!(budgets.get("web").await.unwrap().spec.unwrap().max_unavailable.is_some());

    // When somebody takes the namespace out of the Pod Security Standard, then it is put back.
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let label = "pod-security.kubernetes.io/enforce";
    let edit = json!({"metadata": {"labels": {label: "privileged"}}});
    namespaces.patch(&namespace, &PatchParams::default(), &Patch::Merge(edit)).await.unwrap();
    let is_back = async || (namespaces.get(&namespace).await.unwrap().labels()[label] == "restricted").then_some(());
    eventually("the label to be put back", is_back).await;
}

#[tokio::test]
async fn an_app_loses_what_its_class_loses_and_ends_with_a_block_although_its_class_is_gone() {
    // Given a tenant whose app has a component for pages and one that works in the background.
    let cluster = Cluster::connect().await;
    let class = |components: Value| {
        json!({"kind": "HelpDeskClass", "metadata": {"name": "app-changing"}, "spec": {
            "app": {"name": "echo", "version": "1"},
            "components": components,
            "routes": [{"path": "/", "component": "web", "audience": "public"}]}})
    };
    let workload = json!({"image": "localhost/echo:1", "runAsUser": 65532, "cpu": "10m"});
    let web = json!({"name": "web", "port": 8080, "workload": workload});
    cluster.administrator_applies(class(json!([web, {"name": "worker", "workload": workload}]))).await;
    cluster
        .administrator_applies(json!({"kind": "HelpDeskPlan", "metadata": {"name": "app-changing"}, "spec": {
            "class": "app-changing",
            "lifecycle": {"trial": "1h", "paymentGrace": "2s", "blocked": "1h", "terminated": "1h", "coldBackup": "1h"},
            "backups": {"schedule": "0 0 1 1 *", "keep": "1h", "verify": "Restore"},
            "placements": [{"region": "eu-1", "store": "eu-cold", "domainBase": "helpdesk.example"}]}}))
        .await;
    let account = cluster.customer_signs_up("app-changing", "app-changing").await;
    let running = account.wait_until("AppReady", |a| has_condition(a, "AppReady", "True")).await;
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &namespace(&running));

    // When the class loses the second component, then its Deployment goes, and the other stays.
    cluster.administrator_applies(class(json!([web]))).await;
    let is_gone = async || deployments.get_opt("worker").await.unwrap().is_none().then_some(());
    eventually("the end of the component", is_gone).await;
    assert!(deployments.get_opt("web").await.unwrap().is_some());

    // When the class is lost, then the app of a tenant who pays goes on.
    cluster.is_lost_although_in_use::<HelpDeskClass>("app-changing").await;
    account.billing_reports_active().await;
    account.reaches(Stage::Active).await;
    assert!(has_condition(&account.get().await, "AppReady", "True"));
    assert_eq!(deployments.get("web").await.unwrap().spec.unwrap().replicas, Some(1));

    // When its payment fails, then the app ends all the same.
    account.billing_reports_past_due().await;
    account.reaches(Stage::Blocked).await;
    let has_ended = async || (deployments.get("web").await.unwrap().spec.unwrap().replicas == Some(0)).then_some(());
    eventually("the end of the app", has_ended).await;
}

#[tokio::test]
async fn a_hook_asks_a_component_of_its_own_app_and_says_when_the_answer_is_another_than_expected() {
    // Given a class whose bootstrap is a request with a secret, to a component that is started before.
    let cluster = Cluster::connect().await;
    let class = |bootstrap: Value| {
        json!({"kind": "HelpDeskClass", "metadata": {"name": "app-asking"}, "spec": {
            "app": {"name": "echo", "version": "1"},
            "components": [{"name": "web", "port": 8080, "workload": {"image": "localhost/echo:1", "runAsUser": 65532, "cpu": "10m", "beforeBootstrap": true}}],
            "routes": [{"path": "/", "component": "web", "audience": "public"}],
            "env": [{"name": "TOKEN", "value": "${secrets.setup}"}],
            "secrets": [{"name": "setup", "format": "alnum", "length": 40}],
            "files": [{"path": "/etc/setup.json", "content": "{\"tenant\": \"${tenant.name}\"}"}],
            "hooks": {"bootstrap": {"http": bootstrap}},
            "upgrade": {"minReadySeconds": 0}}})
    };
    let request = |status: u16| {
        json!({"component": "web", "path": "/setup", "bodyFile": "/etc/setup.json", "expectedStatus": [status],
            "headers": [{"name": "X-Setup-Token", "valueFromEnv": "TOKEN"}]})
    };

    // When a class asks a component that it does not have, or for a file that it does not have, then it is refused.
    for (field, value) in [("component", "elsewhere.example"), ("bodyFile", "/etc/passwd")] {
        let mut wrong = request(200);
        wrong[field] = json!(value);
        let refused = cluster.administrator_tries_to_apply(class(wrong)).await.unwrap_err().to_string();
        assert!(refused.contains("hooks: "), "{refused}");
    }

    // When the component answers as expected, then the app is started.
    cluster.administrator_applies(class(request(200))).await;
    cluster.administrator_applies_plan_with("app-asking", json!({}), json!({"class": "app-asking"})).await;
    let account = cluster.customer_signs_up("app-asking", "app-asking").await;
    let running = account.wait_until("AppReady", |a| has_condition(a, "AppReady", "True")).await;

    // When another answer is expected, then the account says that the hook failed, and its log shows the status and no secret.
    cluster.administrator_applies(class(request(204))).await;
    let is_failed = |a: &HelpDeskAccount| super::cluster::find_condition(a, "AppReady").is_some_and(|c| c.reason == "HookFailed");
    account.wait_until("a failed hook", is_failed).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &namespace(&running));
    let of_hook = pods.list(&ListParams::default().labels("helpdesk-operator.io/component=bootstrap")).await.unwrap();
    let token = cluster.secret(&namespace(&running), "app-env").await.unwrap()["TOKEN"].clone();
    let mut answers = 0;
    for pod in &of_hook.items {
        let log = pods.logs(&pod.name_any(), &kube::api::LogParams::default()).await.unwrap();
        let text = format!("{log}{}", serde_json::to_string(pod).unwrap());
        assert!(!text.contains(&token), "{text}");
        answers += usize::from(log.trim() == "POST /setup answered 200");
    }
    // One before the class was changed, and one after it.
    assert_eq!(answers, 2);
}
