//! Two tenants with hundreds of tickets each, made through the app's own interface: what one holds opens nothing of the
//! other's, and everything of one is there again after its return from a cold backup.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use helpdesk_operator::lifecycle::Stage;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{administrator_applies_request_tracker, agent_logs_in, namespace};
use crate::{
    cluster::{Account, Cluster, has_condition},
    tenant::Tenant,
    web::{Response, is_published, visitor_gets},
};

const TICKETS: usize = 150;
const CUSTOMERS: usize = 40;
const AGENTS: usize = 12;

/// A tenant's help desk, with the password of its administrator.
#[derive(Clone)]
struct Desk {
    host: String,
    password: String,
}

impl Desk {
    async fn of(account: &Account) -> Self {
        let found = account.get().await;
        let password = account.cluster.secret(&namespace(&found), "app-admin").await.unwrap()["password"].clone();
        Self { host: format!("{}.helpdesk.example", found.name_any()), password }
    }

    fn asks(&self, path: &str, credentials: &[&str]) -> Response {
        visitor_gets(&format!("https://{}{path}", self.host), credentials)
    }

    fn rest(&self, path: &str, more: &[&str]) -> Value {
        let user = format!("root:{}", self.password);
        let mut arguments = vec!["--user", &user, "--header", "Content-Type: application/json"];
        arguments.extend(more);
        let got = self.asks(&format!("/REST/2.0/{path}"), &arguments);
        assert!((200..300).contains(&got.status), "{path}: {got:?}");
        serde_json::from_str(&got.body).unwrap()
    }

    fn counts(&self, what: &str) -> u64 {
        self.rest(&format!("{what}?query=id%3E0&per_page=1"), &[])["total"].as_u64().unwrap()
    }

    /// What is attached to the ticket of this number among those of this desk.
    fn attachment(&self, number: usize) -> String {
        format!("{} {number} {}", self.host, "0123456789abcdef".repeat(200))
    }

    /// Agents and tickets of many customers, each with an attachment.
    fn is_used(&self) {
        for agent in 0..AGENTS {
            let user = json!({"Name": format!("agent{agent}"), "EmailAddress": format!("agent{agent}@{}", self.host), "Privileged": 1});
            self.rest("user", &["--data", &user.to_string()]);
        }
        std::thread::scope(|scope| {
            for first in 0..2 {
                scope.spawn(move || {
                    for number in (first..TICKETS).step_by(2) {
                        let ticket = json!({"Queue": "General", "Subject": format!("Printer {number}"), "Content": "on fire",
                            "Requestor": format!("customer{}@shop.example", number % CUSTOMERS),
                            "Attachments": [{"FileName": "photo.txt", "FileType": "text/plain",
                                "FileContent": BASE64_STANDARD.encode(self.attachment(number))}]});
                        self.rest("ticket", &["--data", &ticket.to_string()]);
                    }
                });
            }
        });
    }

    /// The attachments of every tenth ticket, as the app has them.
    fn shows_attachments(&self) -> bool {
        (0..TICKETS).step_by(10).all(|number| {
            let found = self.rest(&format!("tickets?query=Subject%3D%22Printer%20{number}%22&per_page=1"), &[]);
            let id = found["items"][0]["id"].as_str().unwrap().to_owned();
            let attachments = self.rest(&format!("ticket/{id}/attachments?per_page=20&fields=Filename"), &[]);
            let photo = attachments["items"].as_array().unwrap().iter().find(|item| item["Filename"] == "photo.txt").unwrap()["id"].clone();
            let content = self.rest(&format!("attachment/{}", photo.as_str().unwrap()), &[])["Content"].as_str().unwrap().replace('\n', "");
            BASE64_STANDARD.decode(content).unwrap() == self.attachment(number).into_bytes()
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_full_desks_open_nothing_to_each_other_and_one_has_everything_again_after_its_return_from_deleted() {
    // Given two tenants of one class, on one server, whose desks are used.
    let cluster = Cluster::connect().await;
    administrator_applies_request_tracker(&cluster).await;
    let windows = json!({"paymentGrace": "2s", "blocked": "30s", "terminated": "2s"});
    let gateway = json!({"name": "edge", "namespace": "edge"});
    let fields = json!({"class": "request-tracker",
        "placements": [{"region": "eu-1", "store": "eu-cold", "domainBase": "helpdesk.example", "gateway": gateway}]});
    cluster.administrator_applies_plan_with("app-full", windows, fields).await;
    let (acme, beta) =
        (cluster.customer_signs_up("app-full-acme", "app-full").await, cluster.customer_signs_up("app-full-beta", "app-full").await);
    for account in [&acme, &beta] {
        account.wait_until("AppReady", |a| has_condition(a, "AppReady", "True")).await;
        is_published(account).await;
    }
    let (desk, other) = (Desk::of(&acme).await, Desk::of(&beta).await);
    tokio::task::block_in_place(|| {
        desk.is_used();
        other.is_used();
    });
    let full = (desk.counts("tickets"), desk.rest("users?query=id%3E0&per_page=1", &[])["total"].clone());
    assert_eq!(full.0, TICKETS as u64);

    // When whoever has everything of acme's tries it on beta, then nothing opens.
    let session = agent_logs_in(&acme).await;
    let home = "/Ticket/Display.html?id=1";
    assert_eq!(desk.asks(home, &["--cookie", &session]).status, 200);
    let stolen = other.asks(home, &["--cookie", &session]);
    assert!(stolen.status == 302 && stolen.head.contains("/noauth/login.html"), "{stolen:?}");
    let user = format!("root:{}", desk.password);
    assert_eq!(other.asks("/REST/2.0/tickets?query=id%3E0", &["--user", &user]).status, 401);
    let form = format!("pass={}", desk.password);
    let login = other.asks("/NoAuth/Login.html", &["--data-urlencode", "user=root", "--data-urlencode", &form]);
    assert!(login.status == 200 && login.body.contains("incorrect"), "{}", login.status);
    let environment = cluster.secret(&namespace(&acme.get().await), "app-env").await.unwrap();
    for secret in [&environment["MAIL_TOKEN"], &environment["PGPASSWORD"], &environment["MAIL_PASSWORD"]] {
        let bearer = format!("Authorization: Bearer {secret}");
        assert_eq!(other.asks("/REST/2.0/tickets?query=id%3E0", &["--header", &bearer]).status, 401);
    }
    let secret = |account: &Account| {
        let account = account.clone();
        async move { Tenant::of(&account.cluster.secret(&namespace(&account.get().await), "database").await.unwrap()) }
    };
    let (tenant, neighbour) = (secret(&acme).await, secret(&beta).await);
    assert!(tenant.logs_in_to(&neighbour.database).await.is_err());

    // When acme does not pay until its database is deleted, and then pays.
    acme.billing_reports_active().await;
    acme.reaches(Stage::Active).await;
    acme.billing_reports_past_due().await;
    acme.reaches(Stage::Deleted).await;
    assert!(tenant.logs_in().await.is_err());
    assert_eq!(other.counts("tickets"), TICKETS as u64);
    acme.billing_reports_active().await;
    acme.reaches(Stage::Active).await;
    acme.wait_until("AppReady", |a| has_condition(a, "AppReady", "True")).await;
    is_published(&acme).await;

    // Then its tickets, people and attachments are there again, under the same password, and the old session is over.
    assert_eq!((desk.counts("tickets"), desk.rest("users?query=id%3E0&per_page=1", &[])["total"].clone()), full);
    assert!(tokio::task::block_in_place(|| desk.shows_attachments() && other.shows_attachments()));
    assert_eq!(desk.asks(home, &["--cookie", &session]).status, 302);
}
