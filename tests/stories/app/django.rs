//! Another help desk: django-helpdesk, with a secret of its own and attachments in its database.

use helpdesk_operator::lifecycle::Stage;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use serde_json::{Value, json};

use super::namespace;
use crate::{
    cluster::{Account, Cluster, eventually, has_condition},
    web::{Response, is_published, visitor_gets},
};

/// What is attached to a ticket.
const ATTACHED: &str = "A photo of the printer would be here.\n";
const HOST: &str = "https://app-django.helpdesk.example";

async fn administrator_applies_plan(cluster: &Cluster) {
    let gateway = json!({"name": "edge", "namespace": "edge"});
    let fields = json!({"class": "django-helpdesk",
        "placements": [{"region": "eu-1", "store": "eu-cold", "domainBase": "helpdesk.example", "gateway": gateway}]});
    cluster.administrator_applies_plan_with("app-django", json!({"paymentGrace": "2s"}), fields).await;
}

/// Asks the app as its administrator, with the password that the owner was given.
async fn app_administrator_requests(account: &Account, path: &str, more: &[&str]) -> Response {
    let password = account.cluster.secret(&namespace(&account.get().await), "app-admin").await.unwrap()["password"].clone();
    let user = format!("admin:{password}");
    let arguments: Vec<_> = ["--user", &user].into_iter().chain(more.iter().copied()).collect();
    visitor_gets(&format!("{HOST}{path}"), &arguments)
}

fn json_of(response: &Response) -> Value {
    serde_json::from_str(&response.body).unwrap_or_else(|_| panic!("no JSON: {response:?}"))
}

#[tokio::test]
async fn a_django_helpdesk_answers_while_its_tenant_pays_and_has_its_tickets_and_attachments_after_a_block() {
    // Given a tenant whose class is django-helpdesk.
    let cluster = Cluster::connect().await;
    cluster.administrator_applies(serde_yaml_ng::from_str(include_str!("../../../examples/django-helpdesk.yaml")).unwrap()).await;
    administrator_applies_plan(&cluster).await;
    let account = cluster.customer_signs_up("app-django", "app-django").await;

    // When its pods run and its address answers.
    account.wait_until("AppReady", |a| has_condition(a, "AppReady", "True")).await;
    is_published(&account).await;

    // Then its login page and its form for customers are django-helpdesk's, with its own style.
    let login = visitor_gets(&format!("{HOST}/login/"), &[]);
    assert!(login.status == 200 && login.body.contains("csrfmiddlewaretoken"), "{login:?}");
    let form = visitor_gets(&format!("{HOST}/tickets/submit/"), &[]);
    assert!(form.status == 200 && form.body.contains("Support"), "{form:?}");
    assert_eq!(visitor_gets(&format!("{HOST}/static/helpdesk/css/helpdesk-extend.css"), &[]).status, 200);

    // Then programs are refused without credentials, and its administrator opens a ticket with an attachment.
    assert_eq!(visitor_gets(&format!("{HOST}/api/tickets/"), &[]).status, 401);
    assert_eq!(visitor_gets(&format!("{HOST}/api/tickets/"), &["--user", "admin:wrong"]).status, 401);
    let file = std::env::temp_dir().join(format!("attached-{}.txt", std::process::id()));
    std::fs::write(&file, ATTACHED).unwrap();
    let attached = format!("attachment=@{}", file.display());
    let fields =
        ["queue=1", "title=The printer is on fire", "description=since Tuesday", "submitter_email=bo@customer.example", "priority=3"];
    let fields = fields.iter().flat_map(|field| ["--form-string", field]);
    let arguments: Vec<_> = fields.chain(["--form", attached.as_str()]).collect();
    let made = app_administrator_requests(&account, "/api/tickets/", &arguments).await;
    assert_eq!(made.status, 201, "{made:?}");
    let ticket = format!("/api/tickets/{}/", json_of(&made)["id"]);

    // When the owner asks for another password of the administrator, then the new one counts, and the old one does not.
    let old = account.cluster.secret(&namespace(&account.get().await), "app-admin").await.unwrap()["password"].clone();
    account.administrator_annotates("helpdesk-operator.io/rotate-app-password", "1").await;
    let changes = async || {
        let secret = account.cluster.secret(&namespace(&account.get().await), "app-admin").await.unwrap();
        let is_accepted = secret["password"] != old && app_administrator_requests(&account, &ticket, &[]).await.status == 200;
        is_accepted.then_some(())
    };
    eventually("the new password to be accepted", changes).await;
    let with_old = format!("admin:{old}");
    assert_eq!(visitor_gets(&format!("{HOST}{ticket}"), &["--user", &with_old]).status, 401);

    // When its payment fails.
    account.billing_reports_active().await;
    account.reaches(Stage::Active).await;
    account.billing_reports_past_due().await;
    let blocked = account.reaches(Stage::Blocked).await;

    // Then the page of a paused help desk answers everybody, and the app has no pods.
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &namespace(&blocked));
    let serving = ListParams::default().labels("helpdesk-operator.io/component=web");
    eventually("the end of the app's pods", async || pods.list(&serving).await.unwrap().items.is_empty().then_some(())).await;
    assert_eq!(visitor_gets(&format!("{HOST}/login/"), &[]).status, 503);
    assert_eq!(app_administrator_requests(&account, &ticket, &[]).await.status, 503);

    // When billing reports a payment, then the ticket from before is there, with its attachment.
    account.billing_reports_active().await;
    account.reaches(Stage::Active).await;
    account.wait_until("AppReady", |a| has_condition(a, "AppReady", "True")).await;
    is_published(&account).await;
    let found = app_administrator_requests(&account, &ticket, &[]).await;
    assert_eq!((found.status, json_of(&found)["title"].as_str()), (200, Some("The printer is on fire")), "{found:?}");
    let attachment = json_of(&found)["followup_set"][0]["followupattachment_set"][0]["file"].as_str().unwrap().to_owned();
    let content = visitor_gets(&attachment, &[]);
    assert_eq!((content.status, content.body.as_str()), (200, ATTACHED), "{attachment}");
}
