//! Certificates of a tenant's own host names, as people hand them in.

use std::process::{Command, Stdio};

use helpdesk_operator::{api::HelpDeskAccount, lifecycle::Stage};
use k8s_openapi::{
    api::core::v1::Secret,
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{
    authority::Authority,
    cluster::{Account, eventually, find_condition, setting},
    dns_records::records,
    operator::{Servers, Shard},
    web::{
        Dns, administrator_applies_class, administrator_applies_plan_in, challenge, domain_message, is_published, tenant_runs_app,
        visitor_gets, visitor_tries_to_get,
    },
};

const ZONE: &str = "web-certs.example";
const HOST: &str = "help.web-certs.example";

/// Hands a chain and a key in, and has the account looked at.
async fn tenant_hands_in(account: &Account, chain: &str, key: &str, look: usize) {
    let secrets: Api<Secret> = Api::namespaced(account.cluster.client.clone(), "default");
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "web-certs", "annotations": {"helpdesk-operator.io/for-account": "web-certs"}},
        "stringData": {"tls.crt": chain, "tls.key": key}});
    secrets.patch("web-certs", &PatchParams::apply("stories").force(), &Patch::Apply(secret)).await.unwrap();
    account.administrator_annotates("example.com/look", &look.to_string()).await;
}

/// A line of the certificate that a visitor of a host name is shown, as openssl writes it; `None`: the name is not served.
pub fn certificate_shown_at(host: &str, field: &str) -> Option<String> {
    let got = visitor_tries_to_get(&format!("https://{host}/help"), &["--insecure", "--write-out", "%{certs}"]).ok()?;
    let line = got.body.lines().find_map(|line| line.strip_prefix(field)).map(str::to_owned);
    (got.status == 200).then(|| line.unwrap_or_default())
}

fn visitor_is_served() -> Option<String> {
    certificate_shown_at(HOST, "Expire date:")
}

fn says(part: &'static str) -> impl Fn(&HelpDeskAccount) -> bool {
    move |account| domain_message(account, HOST).is_some_and(|message| message.contains(part))
}

fn late(reason: &'static str) -> impl Fn(&HelpDeskAccount) -> bool {
    move |account| find_condition(account, "CertificateExpires").is_some_and(|c| c.reason == reason && c.message.contains(HOST))
}

#[tokio::test]
async fn a_certificate_that_does_not_fit_is_told_and_one_that_does_is_renewed_without_a_gap() {
    // Given an account that has proved a custom name, and an authority.
    let mut dns = Dns::start(ZONE);
    let shard = Shard::new("web-certs", Servers::First).await;
    administrator_applies_class(&shard.cluster).await;
    administrator_applies_plan_in(&shard.cluster, "web-certs", "web-certs", "web-certs-cold", json!({})).await;
    let _operator = shard.start_operator("only", &[("HELPDESK_OPERATOR_RESOLVER", &dns.address)]);
    let authority = Authority::new("web-certs");
    let now = helpdesk_operator::clock::now();
    let at = |moment: Timestamp| moment.strftime("%Y%m%d%H%M%SZ").to_string();
    let day = SignedDuration::from_hours(24);
    // A certificate of a year's life that has so much left.
    let issue = |host: &str, left: SignedDuration| {
        authority.issues(host, &at(now + left - day * 365), &at(now + left));
        (authority.read(&format!("{host}.crt")), authority.read(&format!("{host}.key")))
    };
    let root = authority.read("ca.crt");
    let (fitting, key) = issue(HOST, day * 90);
    let (elsewhere, key_of_elsewhere) = issue("other.web-certs.example", day * 90);
    let account = shard.customer_signs_up("web-certs").await;
    tenant_hands_in(&account, &fitting, &key_of_elsewhere, 0).await;
    let domain = json!({"slug": "web-certs", "custom": [HOST], "certificateSecret": {"namespace": "default", "name": "web-certs"}});
    account.administrator_applies(json!({"domain": domain})).await;
    tenant_runs_app(&account).await;
    let asked = account.wait_until("a challenge", |a| challenge(a, HOST).is_some()).await;
    dns.owner_publishes(ZONE, &[challenge(&asked, HOST).unwrap()]);
    account.administrator_annotates("example.com/look", "now").await;

    // Then a key that does not fit, another name's certificate, and a chain of strangers are told and not served.
    account.wait_until("the key is told", says("tls.key is not the key of the certificate")).await;
    tenant_hands_in(&account, &elsewhere, &key_of_elsewhere, 1).await;
    account.wait_until("the name is told", says("the certificate is not for help.web-certs.example")).await;
    tenant_hands_in(&account, &format!("{fitting}{elsewhere}"), &key, 2).await;
    account.wait_until("the chain is told", says("tls.crt is no chain")).await;
    assert_eq!(visitor_is_served(), None);

    // When the certificate of the issuer is missing, then the name is served, and the status says what clients need.
    tenant_hands_in(&account, &fitting, &key, 3).await;
    account.wait_until("the missing issuer is told", says("comes without its issuer's (CN=agents)")).await;
    eventually("the name is served", async || visitor_is_served()).await;
    tenant_hands_in(&account, &format!("{fitting}{root}"), &key, 4).await;
    account.wait_until("nothing is left to tell", |a| domain_message(a, HOST).is_none()).await;
    is_published(&account).await;

    // When it is not renewed, then the account says so at each step, and there is an event each time.
    for (look, (reason, left)) in [("RenewalDue", day * 20), ("RenewalOverdue", day * 6), ("LastDay", day / 2)].into_iter().enumerate() {
        let (certificate, key) = issue(HOST, left);
        tenant_hands_in(&account, &format!("{certificate}{root}"), &key, 5 + look).await;
        account.wait_until(reason, late(reason)).await;
        assert!(account.wait_for_event(reason).await.contains("runs out at"));
    }
    is_published(&account).await;

    // When it is renewed at last, then every request meanwhile is answered, by the old one or the new one.
    let before = eventually("the last one is shown", async || visitor_is_served()).await;
    let (certificate, key) = issue(HOST, day * 90);
    tenant_hands_in(&account, &format!("{certificate}{root}"), &key, 9).await;
    let mut requests = 0;
    loop {
        requests += 1;
        let shown = visitor_is_served().unwrap_or_else(|| panic!("request {requests} was not answered"));
        if shown != before {
            break;
        }
    }
    account.wait_until("nothing is late any more", |a| find_condition(a, "CertificateExpires").is_none()).await;

    // Then both names have DNS records that lead to the Gateway.
    let gateway = setting("HELPDESK_TEST_EDGE_ADDRESS");
    let cluster = &shard.cluster;
    for host in [HOST, "web-certs.helpdesk.example"] {
        assert!(records(cluster, host).await.contains(&gateway), "{host}: {:?}", records(cluster, host).await);
    }

    // When the account is over, and the customer's own record still leads here, then neither name has a record of the
    // platform's, the custom one is answered under no certificate at all, the slug with 404, and both stay the account's.
    account.owner_cancels().await;
    account.reaches(Stage::Terminated).await;
    for host in [HOST, "web-certs.helpdesk.example"] {
        eventually("the record is gone", async || records(cluster, host).await.is_empty().then_some(())).await;
        assert_eq!(cluster.claims().get(host).await.unwrap().spec.account, "web-certs");
    }
    eventually("no certificate is shown", async || shown_certificate(HOST).is_none().then_some(())).await;
    eventually("404", async || (visitor_gets("https://web-certs.helpdesk.example/help", &[]).status == 404).then_some(())).await;
}

/// The subject of the certificate that is shown for a name; `None`: the connection ends before there is one.
pub fn shown_certificate(host: &str) -> Option<String> {
    let gateway = format!("{}:443", setting("HELPDESK_TEST_EDGE_ADDRESS"));
    let output =
        Command::new("openssl").args(["s_client", "-connect", &gateway, "-servername", host]).stdin(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).lines().find_map(|line| line.strip_prefix("subject=")).map(str::to_owned)
}
