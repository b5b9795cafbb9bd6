//! What tenants' apps send is signed in their own name, as mail servers elsewhere see it.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use helpdesk_operator::lifecycle::Stage;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, api::ListParams};
use serde_json::{Value, json};

use super::Smtp;
use crate::cluster::{Account, Cluster, has_condition, setting};

/// A mail server elsewhere, on an address of this machine.
struct Elsewhere {
    address: String,
    messages: Receiver<Vec<u8>>,
}

impl Elsewhere {
    fn listens() -> Self {
        let address = setting("HELPDESK_TEST_EDGE_CLIENTS").split(',').next().unwrap().to_owned();
        let listener = TcpListener::bind((address.as_str(), 25)).unwrap();
        let (sender, messages) = channel();
        std::thread::spawn(move || listener.incoming().for_each(|stream| receive(stream.unwrap(), &sender)));
        Self { address, messages }
    }

    fn receives(&self) -> String {
        String::from_utf8(self.messages.recv_timeout(Duration::from_secs(120)).expect("no message arrives")).unwrap()
    }
}

/// Takes the messages of one connection.
fn receive(mut stream: TcpStream, messages: &Sender<Vec<u8>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    let mut says = |line: &str| stream.write_all(format!("{line}\r\n").as_bytes()).unwrap();
    let mut next = || {
        let mut line = vec![];
        lines.read_until(b'\n', &mut line).unwrap();
        line
    };
    says("220 elsewhere.example");
    loop {
        match next().get(..4).map(<[u8]>::to_ascii_uppercase).as_deref() {
            Some(b"DATA") => {
                says("354 go on");
                let mut message = vec![];
                loop {
                    match next().as_slice() {
                        b".\r\n" => break,
                        line => message.extend_from_slice(line.strip_prefix(b".").unwrap_or(line)),
                    }
                }
                messages.send(message).unwrap();
                says("250 thanks");
            }
            Some(b"QUIT") | None => break,
            Some(_) => says("250 well"),
        }
    }
}

/// Whether a verifier accepts the signature of a message, if DNS has these records (dkimpy).
fn verifier_accepts(message: &str, records: &[(String, String)]) -> bool {
    let texts: serde_json::Map<_, _> = records.iter().map(|(name, value)| (format!("{name}."), value.as_str().into())).collect();
    let program = "import dkim, json, sys\n\
        texts = json.loads(sys.argv[1])\n\
        print(dkim.verify(sys.stdin.buffer.read(), dnsfunc=lambda name, timeout=5: texts.get(name.decode(), '').encode() or None))";
    let mut child = Command::new(setting("HELPDESK_TEST_PYTHON"))
        .args(["-c", program, &Value::Object(texts).to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(message.as_bytes()).unwrap();
    match String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim() {
        "True" => true,
        "False" => false,
        other => panic!("the verifier says {other:?}"),
    }
}

/// The TXT records in an account's status, as DNS would answer: the strings of a value are one text.
async fn txt_records(account: &Account) -> Vec<(String, String)> {
    let has_key = |mail: &helpdesk_operator::api::mail_status::MailStatus| mail.records.iter().any(|r| r.name.contains("._domainkey."));
    let with_key =
        account.wait_until("the key in the DNS records", |a| a.status.as_ref().unwrap().mail.as_ref().is_some_and(has_key)).await;
    let records = with_key.status.unwrap().mail.unwrap().records;
    let one_text = |value: &str| match value.strip_prefix('"') {
        Some(strings) => strings.trim_end_matches('"').replace("\" \"", ""),
        None => value.to_owned(),
    };
    records.iter().filter(|r| r.kind == "TXT").map(|r| (r.name.clone(), one_text(&r.value))).collect()
}

/// The Secret of a tenant's mail.
async fn mail_secrets(account: &Account) -> std::collections::BTreeMap<String, String> {
    account.wait_until("AppReady", |a| has_condition(a, "AppReady", "True")).await;
    let namespace = account.get().await.status.unwrap().namespace.unwrap().name;
    account.cluster.secret(&namespace, "app-mail").await.unwrap()
}

/// A tenant's app sends a message with these lines of the header From. Returns the last answer of the mail server.
async fn app_sends(account: &Account, password: &str, to: &str, from: &str) -> String {
    let name = &account.name;
    let mut smtp = Smtp::connect_to(&account.cluster, "helpdesk-operator-mail", 587).await;
    let login = smtp.says(&format!("AUTH PLAIN {}", BASE64_STANDARD.encode(format!("\0{name}\0{password}"))));
    if !login.starts_with("235 ") {
        return login;
    }
    assert!(smtp.says(&format!("MAIL FROM:<support@{name}.helpdesk.example>")).starts_with("250 "));
    assert!(smtp.says(&format!("RCPT TO:<carla@[{to}]>")).starts_with("250 "));
    assert!(smtp.says("DATA").starts_with("354 "));
    let rest = "To: Carla <carla@customer.example>\r\nSubject: Your lamp\r\nDate: Thu, 26 Nov 2026 10:00:00 +0000\r\n\
        Message-ID: <1@dkim.example>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
        Content-Transfer-Encoding: 8bit\r\n\r\nIt shines  again, für Sie.\r\n..with two dots\r\n\r\n.";
    smtp.says(&format!("{from}{rest}"))
}

/// Everything that all Secrets of the cluster hold.
async fn values_of_all_secrets(cluster: &Cluster) -> Vec<String> {
    let secrets = Api::<Secret>::all(cluster.client.clone()).list(&ListParams::default()).await.unwrap();
    let values = secrets.items.into_iter().filter_map(|secret| secret.data).flatten();
    values.map(|(_, value)| String::from_utf8_lossy(&value.0).into_owned()).collect()
}

async fn administrator_applies_plan(cluster: &Cluster, name: &str, cold_backup: &str) {
    let windows = json!({"paymentGrace": "2s", "blocked": "5s", "terminated": "2s", "coldBackup": cold_backup});
    let placement = json!({"region": "eu-1", "store": "eu-cold", "domainBase": "helpdesk.example",
        "gateway": {"name": "edge", "namespace": "edge"}});
    cluster.administrator_applies_plan_with(name, windows, json!({"class": "dkim", "placements": [placement]})).await;
}

#[tokio::test]
async fn what_an_app_sends_is_signed_with_its_tenants_key_in_the_name_of_its_own_tenant_and_of_no_other() {
    // Given two tenants whose class takes mail, and a mail server elsewhere.
    let cluster = Cluster::connect().await;
    cluster
        .administrator_applies(json!({"kind": "HelpDeskClass", "metadata": {"name": "dkim"}, "spec": {
            "app": {"name": "echo", "version": "1"},
            "components": [{"name": "web", "port": 8080, "workload": {"image": setting("HELPDESK_TEST_ECHO_IMAGE"), "runAsUser": 65532, "cpu": "10m"}}],
            "routes": [{"path": "/", "component": "web", "audience": "public"}],
            "mail": {"intake": {"component": "web", "path": "/in", "mailboxes": [{"name": "support"}]}}}}))
        .await;
    administrator_applies_plan(&cluster, "dkim", "1h").await;
    administrator_applies_plan(&cluster, "dkim-short", "20s").await;
    let acme = cluster.customer_signs_up("dkim-acme", "dkim").await;
    let beta = cluster.customer_signs_up("dkim-beta", "dkim-short").await;
    let (secrets, neighbour) = (mail_secrets(&acme).await, mail_secrets(&beta).await);
    let (password, key) = (&secrets["mail.password"], &secrets["mail.dkimKey"]);
    let elsewhere = Elsewhere::listens();
    let own = "From: Support <support@dkim-acme.helpdesk.example>\r\n";

    // When the app of the one sends a message, then a verifier accepts its signature with the record in the status.
    let answer = app_sends(&acme, password, &elsewhere.address, own).await;
    assert!(answer.starts_with("250 "), "{answer}");
    let message = elsewhere.receives();
    assert!(message.contains("d=dkim-acme.helpdesk.example;") && message.contains("again, für Sie."), "{message}");
    let (records, records_of_neighbour) = (txt_records(&acme).await, txt_records(&beta).await);
    assert!(verifier_accepts(&message, &records), "{message}\n{records:?}");
    assert!(
        records.contains(&("_dmarc.dkim-acme.helpdesk.example".into(), "v=DMARC1; p=quarantine; adkim=s; aspf=s".into())),
        "{records:?}"
    );

    // When somebody changes it or adds a sender to it, or DNS has another key, then the verifier accepts nothing.
    for forged in
        [message.replace("shines", "burns"), message.replace("Your lamp", "Your money"), format!("From: ceo@bank.example\r\n{message}")]
    {
        assert_ne!(forged, message);
        assert!(!verifier_accepts(&forged, &records), "{forged}");
    }
    let under_its_name =
        |(_, value): &(String, String)| (records.iter().find(|r| r.0.contains("._domainkey.")).unwrap().0.clone(), value.clone());
    let swapped: Vec<_> = records_of_neighbour.iter().filter(|r| r.0.contains("._domainkey.")).map(under_its_name).collect();
    assert!(!swapped.is_empty() && !verifier_accepts(&message, &swapped));

    // When it speaks in the name of the other, of several or of nobody, then it is told why, and nothing leaves.
    for (from, why) in [
        ("From: Support <support@dkim-beta.helpdesk.example>\r\n", "dkim-beta.helpdesk.example is no host name of it"),
        ("From: ceo@bank.example\r\n", "bank.example is no host name of it"),
        (&format!("{own}From: support@dkim-beta.helpdesk.example\r\n"), "more than one header From"),
        ("From: support@dkim-acme.helpdesk.example, support@dkim-beta.helpdesk.example\r\n", "has to be one address"),
        ("", "no header From"),
    ] {
        let answer = app_sends(&acme, password, &elsewhere.address, from).await;
        assert!(answer.starts_with("554 5.7.1 ") && answer.contains(why), "{from}: {answer}");
    }
    let answer = app_sends(&beta, &neighbour["mail.password"], &elsewhere.address, "From: support@dkim-beta.helpdesk.example\r\n").await;
    assert!(answer.starts_with("250 "), "{answer}");
    let next = elsewhere.receives();
    assert!(next.contains("d=dkim-beta.helpdesk.example;") && verifier_accepts(&next, &records_of_neighbour), "{next}");

    // When the tenant is closed and its database dropped, then nothing of it is signed.
    acme.billing_reports_active().await;
    acme.reaches(Stage::Active).await;
    acme.billing_reports_past_due().await;
    acme.reaches(Stage::Blocked).await;
    let answer = app_sends(&acme, password, &elsewhere.address, own).await;
    assert!(answer.starts_with("535 "), "{answer}");
    acme.reaches(Stage::Deleted).await;

    // When it pays and comes back, then its key is the one that is published.
    acme.billing_reports_active().await;
    acme.reaches(Stage::Active).await;
    let again = mail_secrets(&acme).await;
    assert!(&again["mail.dkimKey"] == key, "it has another key");
    assert_eq!(txt_records(&acme).await, records);
    let answer = app_sends(&acme, &again["mail.password"], &elsewhere.address, own).await;
    assert!(answer.starts_with("250 "), "{answer}");
    let message = elsewhere.receives();
    assert!(verifier_accepts(&message, &records), "{message}");

    // When the last backup of the other has run out, then its key is nowhere.
    assert!(values_of_all_secrets(&cluster).await.contains(&neighbour["mail.dkimKey"]));
    beta.owner_cancels().await;
    beta.reaches(Stage::Expired).await;
    let is_left = values_of_all_secrets(&cluster).await.iter().any(|value| value.contains(&neighbour["mail.dkimKey"]));
    assert!(!is_left, "a key outlived its tenant");
}
