//! Mail for tenants, as senders meet it: SMTP to the real mail server, tickets in the real app.

mod dkim;

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use helpdesk_operator::{api::HelpDeskAccount, lifecycle::Stage};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use serde_json::{Value, json};

use super::{
    app::{administrator_applies_plan, administrator_applies_request_tracker, app_administrator_requests},
    cluster::{Account, Cluster, OPERATOR, eventually, find_condition, has_condition, setting},
    web::is_published,
};

/// A connection of a sender to the mail server.
struct Smtp(BufReader<TcpStream>);

impl Smtp {
    async fn connect(cluster: &Cluster) -> Self {
        Self::connect_to(cluster, "helpdesk-operator-mail-in", 25).await
    }

    async fn connect_to(cluster: &Cluster, service: &str, port: u16) -> Self {
        let services: Api<Service> = Api::namespaced(cluster.client.clone(), OPERATOR);
        let service = services.get(service).await.unwrap();
        let stream = TcpStream::connect((service.spec.unwrap().cluster_ip.unwrap(), port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut smtp = Self(BufReader::new(stream));
        assert!(smtp.reply().starts_with("220 "));
        smtp.says("EHLO customer.example");
        smtp
    }

    fn reply(&mut self) -> String {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            if line.as_bytes().get(3) != Some(&b'-') {
                return line.trim_end().to_owned();
            }
        }
    }

    fn says(&mut self, line: &str) -> String {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).unwrap();
        self.reply()
    }
}

/// A message of a customer.
struct Letter<'a> {
    to: &'a str,
    subject: &'a str,
    text: &'a str,
}

/// A customer sends a message. Returns the mail server's answer to the recipient, or to the message if the recipient was
/// accepted.
async fn customer_sends(cluster: &Cluster, letter: &Letter<'_>) -> String {
    let mut smtp = Smtp::connect(cluster).await;
    smtp.says("MAIL FROM:<carla@customer.example>");
    let recipient = smtp.says(&format!("RCPT TO:<{}>", letter.to));
    if !recipient.starts_with('2') {
        return recipient;
    }
    assert!(smtp.says("DATA").starts_with("354 "));
    let Letter { to, subject, text } = letter;
    smtp.says(&format!(
        "From: Carla <carla@customer.example>\r\nTo: <{to}>\r\nSubject: {subject}\r\nMessage-ID: <{:x}@customer.example>\r\n\
         Date: Thu, 26 Nov 2026 10:00:00 +0000\r\n\r\n{text}\r\n.",
        subject.bytes().chain(text.bytes()).fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
    ))
}

/// The answer to a recipient, without a message.
async fn answer_to_recipient(cluster: &Cluster, to: &str) -> String {
    let mut smtp = Smtp::connect(cluster).await;
    smtp.says("MAIL FROM:<carla@customer.example>");
    smtp.says(&format!("RCPT TO:<{to}>"))
}

/// The administrator of the app changes a ticket.
async fn agent_changes_ticket(account: &Account, ticket: &Value, change: &str) {
    let path = format!("ticket/{}", ticket["id"].as_str().unwrap());
    let (status, answer) = app_administrator_requests(account, &path, &["--request", "PUT", "--data", change]).await;
    assert_eq!(status, 200, "{answer}");
}

/// An app's request to the intake: the status code and the body of the answer.
async fn app_requests(cluster: &Cluster, method: &str, path: &str, token: &str) -> (String, String) {
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), OPERATOR);
    let address = services.get("helpdesk-operator-mail").await.unwrap().spec.unwrap().cluster_ip.unwrap();
    let output = std::process::Command::new("curl")
        .args(["--silent", "--max-time", "10", "--write-out", "\n%{http_code}", "--request", method])
        .args(["--header", &format!("Authorization: Bearer {token}"), "--data", "Subject: x"])
        .arg(format!("http://{address}:8025/{path}"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.to_owned(), body.to_owned())
}

/// A text as part of a URL.
fn escaped(text: &str) -> String {
    text.bytes().map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Waits for a ticket with this subject, and returns it.
async fn agent_finds_ticket(account: &Account, subject: &str) -> Value {
    let query = format!("tickets?query=Subject%3D%27{}%27&fields=Subject,Queue,Status&fields%5BQueue%5D=Name", escaped(subject));
    eventually("a ticket with the subject of the message", async || {
        let (status, found) = app_administrator_requests(account, &query, &[]).await;
        (status == 200).then(|| found["items"].get(0).cloned()).flatten()
    })
    .await
}

async fn app_runs(account: &Account) {
    account.wait_until("AppReady", |a| has_condition(a, "AppReady", "True")).await;
    is_published(account).await;
}

#[tokio::test]
async fn a_message_becomes_a_ticket_while_its_tenant_pays_waits_while_blocked_and_is_refused_after() {
    // Given a tenant with Request Tracker.
    let cluster = Cluster::connect().await;
    administrator_applies_request_tracker(&cluster).await;
    administrator_applies_plan(&cluster, "mail-life").await;
    let account = cluster.customer_signs_up("mail-life", "mail-life").await;
    app_runs(&account).await;

    let mail = account.get().await.status.unwrap().mail.unwrap();
    assert_eq!(mail.addresses, ["support@mail-life.helpdesk.example", "comment@mail-life.helpdesk.example"]);
    assert_eq!((mail.records[0].kind.as_str(), mail.records[0].value.as_str()), ("MX", "10 mail.helpdesk.example."));

    // When a customer writes to it, then a ticket has the message.
    let letter = Letter { to: "Support+7@Mail-Life.helpdesk.example", subject: "My lamp is broken", text: "It fell down.\r\n..and hissed" };
    let answer = customer_sends(&cluster, &letter).await;
    assert!(answer.starts_with("250 "), "{answer}");
    let ticket = agent_finds_ticket(&account, "My lamp is broken").await;
    assert_eq!(ticket["Queue"]["Name"], "General", "{ticket}");
    let (_, attachments) =
        app_administrator_requests(&account, &format!("ticket/{}/attachments?fields=Content", ticket["id"].as_str().unwrap()), &[]).await;
    assert!(attachments.to_string().contains(r"It fell down.\r\n.and hissed"), "the text of the message: {attachments}");
    // The app answers under the tenant's own name, so that a reply finds the ticket.
    assert!(attachments.to_string().contains("[mail-life #1]"), "{attachments}");

    // When it writes to an address that does not exist, or asks for somebody else's mail to be carried, then it is refused.
    let nobody = answer_to_recipient(&cluster, "nobody@mail-life.helpdesk.example").await;
    assert!(nobody.starts_with("550 5.1.1 "), "{nobody}");
    let relay = answer_to_recipient(&cluster, "somebody@elsewhere.example").await;
    assert!(relay.starts_with("554 5.7.1 "), "{relay}");

    // When the tenant's payment fails, then its mail is put off, and the sender's server tries again.
    account.billing_reports_active().await;
    account.reaches(Stage::Active).await;
    account.billing_reports_past_due().await;
    account.reaches(Stage::Blocked).await;
    let until = |code: &'static str| {
        let cluster = cluster.clone();
        async move {
            eventually("the answer to a recipient", async || {
                let answer = answer_to_recipient(&cluster, "support@mail-life.helpdesk.example").await;
                answer.starts_with(code).then_some(answer)
            })
            .await
        }
    };
    assert!(until("450 ").await.contains("4.2.1"));

    // When it pays again, then the next message arrives beside the first.
    account.billing_reports_active().await;
    account.reaches(Stage::Active).await;
    until("250 ").await;
    app_runs(&account).await;
    customer_sends(&cluster, &Letter { subject: "My lamp shines again", ..letter }).await;
    agent_finds_ticket(&account, "My lamp shines again").await;
    agent_finds_ticket(&account, "My lamp is broken").await;

    // When its owner cancels, then its mail is refused for good.
    account.administrator_applies(json!({"closure": {"mode": "Cancel"}})).await;
    account.reaches(Stage::Terminated).await;
    assert!(until("550 ").await.contains("5.2.1"));
    account.wait_until("no address in the status", |a| a.status.as_ref().unwrap().mail.is_none()).await;
}

const CHAIRS: &str = "Dear friend, our new catalogue of office chairs and golden paperclips waits for the order of your \
    company today, cheap delivery is included and the first hundred customers receive a present";
const KITCHEN: &str = "Hello, the coffee machine in the kitchen on the second floor leaks water again, could somebody \
    please repair it before the meeting on Monday morning, the carpet is already wet";
/// The Generic Test for Unsolicited Bulk Email, which every filter takes for spam.
const GTUBE: &str = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X";

/// The queue in which a message arrives.
async fn queue_of_message(account: &Account, subject: &str, text: &str) -> String {
    let to = format!("support@{}.helpdesk.example", account.name);
    let answer = customer_sends(&account.cluster, &Letter { to: &to, subject, text }).await;
    assert!(answer.starts_with("250 "), "{answer}");
    agent_finds_ticket(account, subject).await["Queue"]["Name"].as_str().unwrap().to_owned()
}

/// Three messages arrive, and the agents decide about each.
async fn agents_decide(account: &Account, about: &str, text: &str, change: &str) {
    for number in 1..=3 {
        let subject = format!("{about} number {number}");
        queue_of_message(account, &subject, &format!("{text}, says visitor {number}")).await;
        agent_changes_ticket(account, &agent_finds_ticket(account, &subject).await, change).await;
    }
}

#[tokio::test]
async fn a_filter_learns_from_each_tenants_agents_for_that_tenant_alone_and_forgets_with_its_database() {
    // Given two tenants with Request Tracker.
    let cluster = Cluster::connect().await;
    administrator_applies_request_tracker(&cluster).await;
    let gateway = json!({"name": "edge", "namespace": "edge"});
    cluster
        .administrator_applies(json!({"kind": "HelpDeskPlan", "metadata": {"name": "mail-spam"}, "spec": {
            "class": "request-tracker",
            "lifecycle": {"trial": "1h", "paymentGrace": "2s", "blocked": "2s", "terminated": "2s", "coldBackup": "1h"},
            "backups": {"schedule": "0 0 1 1 *", "keep": "1h", "verify": "Restore"},
            "placements": [{"region": "eu-1", "store": "eu-cold", "domainBase": "helpdesk.example", "gateway": gateway}]}}))
        .await;
    let acme = cluster.customer_signs_up("mail-acme", "mail-spam").await;
    let beta = cluster.customer_signs_up("mail-beta", "mail-spam").await;
    app_runs(&acme).await;
    app_runs(&beta).await;

    // When spam arrives that everybody knows, then it is kept apart, and becomes no part of the ticket that it names.
    assert_eq!(queue_of_message(&acme, "The lamp", "It is dark here.").await, "General");
    let answer =
        customer_sends(&cluster, &Letter { to: "support@mail-acme.helpdesk.example", subject: "Buy this [mail-acme #1]", text: GTUBE })
            .await;
    assert!(answer.starts_with("250 "), "{answer}");
    assert_eq!(agent_finds_ticket(&acme, "Buy this (mail-acme  1)").await["Queue"]["Name"], "Spam");

    // When the agents of the one call spam what those of the other call welcome.
    agents_decide(&acme, "Chairs", CHAIRS, r#"{"Queue": "Spam"}"#).await;
    agents_decide(&acme, "Kitchen", KITCHEN, r#"{"Status": "resolved"}"#).await;
    agents_decide(&beta, "Chairs", CHAIRS, r#"{"Status": "resolved"}"#).await;
    agents_decide(&beta, "Kitchen", KITCHEN, r#"{"Queue": "Spam"}"#).await;

    // Then the same message is judged by each tenant's own agents.
    assert_eq!(queue_of_message(&acme, "More chairs", CHAIRS).await, "Spam");
    assert_eq!(queue_of_message(&beta, "More chairs", CHAIRS).await, "General");
    assert_eq!(queue_of_message(&acme, "More kitchen", KITCHEN).await, "General");
    assert_eq!(queue_of_message(&beta, "More kitchen", KITCHEN).await, "Spam");

    // When the app of the one tries to teach the filter of the other, then it is refused.
    let account = acme.get().await;
    let namespace = account.status.as_ref().unwrap().namespace.as_ref().unwrap().name.clone();
    let token = cluster.secret(&namespace, "app-mail").await.unwrap()["mail.inboundToken"].clone();
    for (method, path) in [("POST", "spam"), ("POST", "ham"), ("DELETE", "learned")] {
        assert_eq!(app_requests(&cluster, method, &format!("accounts/mail-beta/{path}"), &token).await.0, "401", "{method} {path}");
        assert_eq!(app_requests(&cluster, method, &format!("accounts/mail-acme/{path}"), "").await.0, "401", "{method} {path}");
    }
    assert_eq!(app_requests(&cluster, "POST", "accounts/mail-acme/ham", &token).await.0, "200");

    // When it stops paying and its database is dropped, then the filter forgets what it learned for it and nothing else.
    let remembers = async |account: &Account| {
        let uid = account.get().await.metadata.uid.unwrap();
        app_requests(&cluster, "GET", &format!("learned/{uid}"), "").await.1
    };
    assert_eq!((remembers(&acme).await.as_str(), remembers(&beta).await.as_str()), ("true", "true"));
    acme.billing_reports_active().await;
    acme.reaches(Stage::Active).await;
    acme.billing_reports_past_due().await;
    acme.reaches(Stage::Deleted).await;
    eventually("the filter to forget", async || (remembers(&acme).await == "false").then_some(())).await;
    assert_eq!(remembers(&beta).await, "true");

    // When it pays and comes back from its backup, then the filter has learned anew from the tickets.
    acme.billing_reports_active().await;
    acme.reaches(Stage::Active).await;
    app_runs(&acme).await;
    eventually("the filter to have learned", async || (remembers(&acme).await == "true").then_some(())).await;
    let taught = |a: &HelpDeskAccount| find_condition(a, "AppReady").is_some_and(|c| c.status == "True" && !c.message.contains("filter"));
    acme.wait_until("the hook that teaches to be done", taught).await;
    assert_eq!(queue_of_message(&acme, "Again chairs", CHAIRS).await, "Spam");
    assert_eq!(queue_of_message(&acme, "Again kitchen", KITCHEN).await, "General");
}

/// A line of the mail server's queue.
async fn administrator_finds_in_queue(sender: &str) -> Vec<Value> {
    let output = std::process::Command::new(format!("{}/kubectl", setting("HELPDESK_TEST_BIN")))
        .args(["--kubeconfig", &setting("HELPDESK_TEST_KUBECONFIG"), "--namespace", OPERATOR])
        .args(["exec", "helpdesk-operator-mail-0", "--container", "mta", "--", "postqueue", "-j"])
        .output()
        .unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    let all = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|waiting| waiting["sender"] == sender).collect()
}

/// What the mail server answers to a login, and then to a message from this sender.
async fn app_submits(cluster: &Cluster, user: &str, password: &str, sender: &str) -> (String, String) {
    let mut smtp = Smtp::connect_to(cluster, "helpdesk-operator-mail", 587).await;
    let proof = BASE64_STANDARD.encode(format!("\0{user}\0{password}"));
    let login = smtp.says(&format!("AUTH PLAIN {proof}"));
    smtp.says(&format!("MAIL FROM:<{sender}>"));
    (login, smtp.says("RCPT TO:<carla@customer.example>"))
}

#[tokio::test]
async fn an_app_sends_mail_under_its_own_addresses_and_its_queue_stops_and_goes_with_its_tenant() {
    // Given a tenant with Request Tracker.
    let cluster = Cluster::connect().await;
    administrator_applies_request_tracker(&cluster).await;
    administrator_applies_plan(&cluster, "mail-out").await;
    let account = cluster.customer_signs_up("mail-out", "mail-out").await;
    app_runs(&account).await;
    let (address, host) = ("support@mail-out.helpdesk.example", "mail-out.helpdesk.example");

    // When a customer writes, then the app answers under its own address. The cluster has no way out, so the answer waits.
    queue_of_message(&account, "Where is my order", "It was to arrive on Tuesday.").await;
    let is_waiting = async || administrator_finds_in_queue(address).await.into_iter().next();
    let answer = eventually("the answer in the queue", is_waiting).await;
    assert_eq!(answer["recipients"][0]["address"], "carla@customer.example", "{answer}");

    // When spam comes, then nobody gets an answer.
    assert_eq!(queue_of_message(&account, "Buy this", GTUBE).await, "Spam");
    assert_eq!(administrator_finds_in_queue(address).await.len(), 1);

    // When somebody sends without the tenant's password, or under an address of another, then it is refused.
    let namespace = account.get().await.status.unwrap().namespace.unwrap().name;
    let password = cluster.secret(&namespace, "app-mail").await.unwrap()["mail.password"].clone();
    let (login, sent) = app_submits(&cluster, "mail-out", &password, &format!("sales@{host}")).await;
    assert!(login.starts_with("235 ") && sent.starts_with("250 "), "{login}, {sent}");
    for other in ["support@mail-acme.helpdesk.example", "ceo@bank.example", ""] {
        let (login, sent) = app_submits(&cluster, "mail-out", &password, other).await;
        assert!(login.starts_with("235 ") && sent.starts_with("553 5.7.1 "), "{other}: {login}, {sent}");
    }
    for (user, password) in [("mail-out", "guessed"), ("mail-acme", password.as_str()), ("mail-out", "")] {
        let (login, sent) = app_submits(&cluster, user, password, address).await;
        assert!(login.starts_with("535 ") && sent.starts_with("554 5.7.1 "), "{user}: {login}, {sent}");
    }

    // When the tenant is blocked, then its queue is held and it cannot log in.
    account.billing_reports_active().await;
    account.reaches(Stage::Active).await;
    account.billing_reports_past_due().await;
    account.reaches(Stage::Blocked).await;
    let is_held = async |held: bool| {
        let waiting = administrator_finds_in_queue(address).await;
        (!waiting.is_empty() && waiting.iter().all(|w| (w["queue_name"] == "hold") == held)).then_some(())
    };
    eventually("the queue to be held", async || is_held(true).await).await;
    let (login, _) = app_submits(&cluster, "mail-out", &password, address).await;
    assert!(login.starts_with("535 "), "{login}");

    // When it pays, then its queue goes on.
    account.billing_reports_active().await;
    account.reaches(Stage::Active).await;
    eventually("the queue to go on", async || is_held(false).await).await;

    // When its owner cancels, then its queue is deleted.
    account.administrator_applies(json!({"closure": {"mode": "Cancel"}})).await;
    account.reaches(Stage::Terminated).await;
    let is_gone = async || administrator_finds_in_queue(address).await.is_empty().then_some(());
    eventually("an empty queue", is_gone).await;
}
