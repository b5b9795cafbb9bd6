//! Mail for tenants, as senders meet it: SMTP to the real mail server, tickets in the real app.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    time::Duration,
};

use helpdesk_operator::lifecycle::Stage;
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use serde_json::{Value, json};

use super::{
    app::{administrator_applies_plan, administrator_applies_request_tracker, app_administrator_requests},
    cluster::{Account, Cluster, OPERATOR, eventually, has_condition},
    web::is_published,
};

/// A connection of a sender to the mail server.
struct Smtp(BufReader<TcpStream>);

impl Smtp {
    async fn connect(cluster: &Cluster) -> Self {
        let services: Api<Service> = Api::namespaced(cluster.client.clone(), OPERATOR);
        let service = services.get("helpdesk-operator-mail").await.unwrap();
        let stream = TcpStream::connect((service.spec.unwrap().cluster_ip.unwrap(), 25)).unwrap();
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

/// Waits for a ticket with this subject, and returns it.
async fn agent_finds_ticket(account: &Account, subject: &str) -> Value {
    let query = format!("tickets?query=Subject%3D%27{}%27&fields=Subject,Queue,Status&fields%5BQueue%5D=Name", subject.replace(' ', "%20"));
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
}
