//! A tenant's addresses, as its agents and customers meet them: through the real gateway, from several addresses.

use std::{
    io::{Read, Write},
    process::{Child, Command, Stdio},
};

use helpdesk_operator::{api::HelpDeskAccount, lifecycle::Stage};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service, discovery::v1::EndpointSlice};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

use super::{
    cluster::{Account, Cluster, eventually, find_condition, has_condition, setting},
    operator::{Servers, Shard},
};

/// The addresses of two different clients.
pub fn client_addresses() -> [String; 2] {
    let network = setting("HELPDESK_TEST_EDGE_ADDRESS").rsplit_once('.').unwrap().0.to_owned();
    [format!("{network}.254"), format!("{network}.253")]
}

/// The answer of the gateway.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// A visitor requests this URL from the gateway, by curl with these arguments added.
pub fn visitor_gets(url: &str, more: &[&str]) -> Response {
    visitor_tries_to_get(url, more).unwrap_or_else(|why| panic!("{url}: {why}"))
}

pub fn visitor_tries_to_get(url: &str, more: &[&str]) -> Result<Response, String> {
    let gateway = setting("HELPDESK_TEST_EDGE_ADDRESS");
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--include", "--max-time", "10", "--cacert", &setting("HELPDESK_TEST_CA")])
        .args(["--connect-to", &format!("::{gateway}:"), "--path-as-is"])
        .args(more)
        .arg(url)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    Ok(Response { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
}

/// The class of an app that shows what reached it.
pub async fn administrator_applies_class(cluster: &Cluster) {
    cluster
        .administrator_applies(json!({"kind": "HelpDeskClass", "metadata": {"name": "echo"}, "spec": {
            "app": {"name": "echo", "version": "1"}, "components": [{"name": "web", "port": 8080}],
            "routes": [
                {"path": "/", "component": "web", "audience": "agent"},
                {"path": "/help", "component": "web", "audience": "public"},
                {"path": "/api", "component": "web", "audience": "api"}],
            "capabilities": {"apiChallenges": ["Bearer", "Basic realm=\"help desk\""]}}}))
        .await;
}

/// Runs the app in the account's namespace, as a class with a deployment would.
pub async fn tenant_runs_app(account: &Account) {
    let found = account.wait_until("its namespace", |a| a.status.as_ref().is_some_and(|s| s.namespace.is_some())).await;
    let namespace = found.status.unwrap().namespace.unwrap().name;
    let client: Client = account.cluster.client.clone();
    let labels = json!({"app": "web"});
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "echo", "image": setting("HELPDESK_TEST_ECHO_IMAGE"), "imagePullPolicy": "Never",
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}}]}}}});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": labels, "ports": [{"port": 8080}]}});
    let params = PatchParams::apply("stories").force();
    Api::<Deployment>::namespaced(client.clone(), &namespace).patch("web", &params, &Patch::Apply(deployment)).await.unwrap();
    Api::<Service>::namespaced(client, &namespace).patch("web", &params, &Patch::Apply(service)).await.unwrap();
}

pub async fn administrator_applies_plan(cluster: &Cluster, name: &str, change: Value) {
    administrator_applies_plan_in(cluster, name, "eu-1", "eu-cold", change).await;
}

pub async fn administrator_applies_plan_in(cluster: &Cluster, name: &str, region: &str, store: &str, change: Value) {
    let mut spec = json!({
        "class": "echo",
        "lifecycle": {"trial": "1h", "paymentGrace": "3s", "blocked": "1h", "terminated": "1h", "coldBackup": "1h", "eraseDelay": "1h",
            "nameQuarantine": "1h", "holdNotice": "3s"},
        "backups": {"schedule": "0 0 1 1 *", "keep": "1h", "verify": "Restore"},
        "placements": [{"region": region, "store": store, "domainBase": "helpdesk.example", "gateway": {"name": "edge", "namespace": "edge"}}]});
    for (key, value) in change.as_object().unwrap() {
        spec[key] = value.clone();
    }
    cluster.administrator_applies(json!({"kind": "HelpDeskPlan", "metadata": {"name": name}, "spec": spec})).await;
}

/// Waits until the operator has published the account as its spec says.
pub async fn is_published(account: &Account) {
    let looked = |a: &HelpDeskAccount| a.status.as_ref().and_then(|s| s.observed_generation) == a.metadata.generation;
    account.wait_until("EdgeReady", |a| looked(a) && has_condition(a, "EdgeReady", "True")).await;
}

#[tokio::test]
async fn an_address_lives_under_its_policy_says_that_it_is_suspended_and_goes() {
    // Given an account whose app is published at a hostname.
    let cluster = Cluster::connect().await;
    administrator_applies_class(&cluster).await;
    administrator_applies_plan(
        &cluster,
        "web-life",
        json!({"lifecycle": {"trial": "1h", "paymentGrace": "3s", "blocked": "40s", "terminated": "1h", "coldBackup": "1h"}}),
    )
    .await;
    let account = cluster.customer_signs_up("web-life", "web-life").await;
    tenant_runs_app(&account).await;
    account.receives_credentials_in(Stage::Trial).await;
    is_published(&account).await;
    assert_eq!(account.get().await.status.unwrap().url.as_deref(), Some("https://web-life.helpdesk.example"));
    let at = |path: &str| format!("https://web-life.helpdesk.example{path}");

    // When a visitor comes by HTTPS, by HTTP, or to the API with and without a token.
    let agents = visitor_gets(&at("/queue"), &[]);

    // Then HTTPS is served, HTTP is redirected, and the API asks for a token.
    assert_eq!((agents.status, agents.head.contains("strict-transport-security: max-age=31536000")), (200, true), "{agents:?}");
    let plain = visitor_gets("http://web-life.helpdesk.example/queue", &[]);
    assert_eq!((plain.status, plain.head.contains("location: https://web-life.helpdesk.example")), (301, true), "{plain:?}");
    let anonymous = visitor_gets(&at("/api/tickets"), &[]);
    assert_eq!(
        (anonymous.status, anonymous.head.contains("www-authenticate: bearer, basic realm=\"help desk\"")),
        (401, true),
        "{anonymous:?}"
    );
    assert_eq!(visitor_gets(&at("/api/tickets"), &["--header", "Authorization: Bearer token"]).status, 200);

    // When a payment fails and the account is Blocked.
    account.billing_reports_active().await;
    account.receives_credentials_in(Stage::Active).await;
    account.billing_reports_past_due().await;
    let blocked = account.reaches(Stage::Blocked).await;

    // Then every path shows the page of a paused help desk, in the visitor's language, without the tenant's name.
    assert!(has_condition(&blocked, "EdgeReady", "True"), "{:?}", find_condition(&blocked, "EdgeReady"));
    for path in ["/", "/help", "/api/tickets", "/no/such"] {
        let page = visitor_gets(&at(path), &["--header", "Accept-Language: de-AT,de;q=0.9"]);
        assert_eq!(page.status, 503);
        assert!(page.body.contains("Dieser Helpdesk pausiert") && page.head.contains("cache-control: no-store"), "{page:?}");
        assert!(!page.body.contains("web-life"), "the page tells who the tenant is");
    }
    assert!(visitor_gets(&at("/"), &[]).body.contains("This help desk is paused"));
    assert_eq!(visitor_gets("http://web-life.helpdesk.example/", &[]).status, 503);

    // When Blocked ends.
    account.reaches(Stage::Terminated).await;

    // Then the address is gone, and the hostname is kept for the account.
    eventually("the shared listener's 404", || async { (visitor_gets(&at("/"), &[]).status == 404).then_some(()) }).await;
    let kept = cluster.claims().get("web-life.helpdesk.example").await.unwrap();
    assert_eq!(kept.spec.account, "web-life");
}

/// Ways to write an agent's path. From an address that is not listed, none of them may reach the app other than as a
/// public path.
const BYPASS_PATHS: [&str; 22] = [
    "/",
    "/queue",
    "//queue",
    "/./queue",
    "/help/../queue",
    "/help/..%2fqueue",
    "/help/%2e%2e/queue",
    "/help/..;/queue",
    "/help;x/../queue",
    "/HELP/../queue",
    "/Help",
    "/help%2f..%2fqueue",
    "/help/%252e%252e/queue",
    "/help/..%5cqueue",
    "/help\\..\\queue",
    "/%68elp/../queue",
    "/help//..//queue",
    "/help/.%2e/queue",
    "/helpqueue",
    "/help%00/queue",
    "/queue?/help",
    "/api/../queue",
];

/// Takes connections and never answers, on every address of this machine.
struct SilentApp {
    port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl SilentApp {
    async fn listen() -> Self {
        let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let mut held = vec![];
            while let Ok(connection) = listener.accept().await {
                held.push(connection);
            }
        });
        Self { port, task }
    }

    /// Registers this listener as the app in the account's namespace.
    async fn serves_as_app_of(&self, account: &Account) {
        let found = account.wait_until("its namespace", |a| a.status.as_ref().is_some_and(|s| s.namespace.is_some())).await;
        let namespace = found.status.unwrap().namespace.unwrap().name;
        let client: Client = account.cluster.client.clone();
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 8080}]}});
        let [address, _] = client_addresses();
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "web-silent", "labels": {"kubernetes.io/service-name": "web"}},
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}], "ports": [{"port": self.port}]});
        let params = PatchParams::apply("stories").force();
        Api::<Service>::namespaced(client.clone(), &namespace).patch("web", &params, &Patch::Apply(service)).await.unwrap();
        Api::<EndpointSlice>::namespaced(client, &namespace).patch("web-silent", &params, &Patch::Apply(slice)).await.unwrap();
    }
}

impl Drop for SilentApp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test]
async fn apps_that_never_answer_keep_no_other_account_waiting() {
    // Given eight accounts whose apps never answer, and an operator that does two reconciles at once.
    let shard = Shard::new("web-hangs", Servers::First).await;
    administrator_applies_class(&shard.cluster).await;
    administrator_applies_plan_in(&shard.cluster, "web-hangs", "web-hangs", "web-hangs-cold", json!({})).await;
    let _operator = shard.start_operator("only", &[("HELPDESK_OPERATOR_CONCURRENCY", "2")]);
    let silent = SilentApp::listen().await;
    let mut hanging = vec![];
    for i in 0..8 {
        let account = shard.customer_signs_up(&format!("web-hangs-{i}")).await;
        silent.serves_as_app_of(&account).await;
        hanging.push(account);
    }
    for account in &hanging {
        account.wait_until("seen to hang", |a| find_condition(a, "EdgeReady").is_some_and(|c| c.reason == "Unreachable")).await;
    }

    // When another customer signs up, then the account gets its database within seconds.
    let soon = std::time::Duration::from_secs(20);
    let begun = std::time::Instant::now();
    let newcomer = shard.customer_signs_up("web-hangs-new").await;
    newcomer.reaches(Stage::Trial).await;
    assert!(begun.elapsed() < soon, "a sign-up waited {:?} for apps that hang", begun.elapsed());

    // When a payment of that customer fails.
    newcomer.billing_reports_active().await;
    newcomer.reaches(Stage::Active).await;
    let begun = std::time::Instant::now();
    newcomer.billing_reports_past_due().await;

    // Then the account is Blocked within seconds, and its hostname shows the page.
    let blocked = newcomer.reaches(Stage::Blocked).await;
    assert!(begun.elapsed() < soon, "a block waited {:?} for apps that hang", begun.elapsed());
    assert!(has_condition(&blocked, "EdgeReady", "True"), "{:?}", find_condition(&blocked, "EdgeReady"));
    assert_eq!(visitor_gets("https://web-hangs-new.helpdesk.example/", &[]).status, 503);

    // When a payment of an account fails whose app never answers.
    hanging[0].billing_reports_past_due().await;

    // Then it is Blocked like any other, because the page does not come from its app.
    let blocked = hanging[0].reaches(Stage::Blocked).await;
    assert!(has_condition(&blocked, "EdgeReady", "True"), "{:?}", find_condition(&blocked, "EdgeReady"));
}

#[tokio::test]
async fn agents_come_from_listed_addresses_only_however_they_write_their_path() {
    // Given an account that lets its agents in from one listed address only, and a published app.
    let cluster = Cluster::connect().await;
    administrator_applies_class(&cluster).await;
    administrator_applies_plan(&cluster, "web-lists", json!({})).await;
    let account = cluster.customer_signs_up("web-lists", "web-lists").await;
    let [listed, other] = client_addresses();
    account.administrator_applies(json!({"security": {"agentAllow": [format!("{listed}/32"), "2001:db8::/48"]}})).await;
    tenant_runs_app(&account).await;
    is_published(&account).await;
    let at = |path: &str| format!("https://web-lists.helpdesk.example{path}");
    let from = |client: &str, path: &str, more: &[&str]| {
        let mut all = vec!["--interface", client];
        all.extend(more);
        visitor_gets(&at(path), &all)
    };

    // Then an agent at the listed address is let in. The operator itself is not on the list, so it cannot see when that
    // begins.
    eventually("the listed client is let in", || async { (from(&listed, "/queue", &[]).status == 200).then_some(()) }).await;
    assert_eq!(from(&other, "/help/articles", &[]).status, 200);

    // When an attacker at another address writes an agent's path in every way, then it is refused or served as a
    // public path.
    for version in ["--http1.0", "--http1.1", "--http2"] {
        for path in BYPASS_PATHS {
            let got = from(&other, path, &[version]);
            // The gateway forwards the path as it has normalised it, so the app reads the same public path.
            let handed_on = got.body.split("\"uri\":\"").nth(1).and_then(|rest| rest.split('"').next());
            let as_public =
                handed_on.is_some_and(|uri| uri.starts_with("/help/") && !uri.contains("..") && !uri.contains(['%', ';', '\\']));
            let refused = matches!(got.status, 301 | 307 | 308 | 400 | 403 | 404 | 426);
            assert!(refused || as_public, "{version} {path}: {got:?}");
        }
    }

    // When the attacker forges the headers that carry an address, then it is refused.
    for forged in ["X-Forwarded-For", "X-Real-IP", "Forwarded", "X-Envoy-External-Address", "True-Client-IP", "X-Original-URL"] {
        let header = format!("{forged}: {listed}");
        assert_eq!(from(&other, "/queue", &["--header", &header]).status, 403, "{forged}");
    }

    // When the attacker uses the connection of another hostname, or an absolute request target, then it is refused.
    let host = "Host: web-lists.helpdesk.example";
    let elsewhere = visitor_tries_to_get("https://other.helpdesk.example/queue", &["--interface", &other, "--header", host]);
    assert_ne!(elsewhere.unwrap().status, 200, "another name's connection leads to agents' paths");
    let absolute = ["--interface", other.as_str(), "--http1.1", "--request-target", "https://web-lists.helpdesk.example/queue"];
    assert_eq!(visitor_gets(&at("/"), &absolute).status, 403);

    // When an administrator lists the other address instead.
    account.administrator_applies(json!({"security": {"agentAllow": [format!("{other}/32")]}})).await;

    // Then the other address is let in, and the first one is refused.
    eventually("the other client is let in", || async { (from(&other, "/queue", &[]).status == 200).then_some(()) }).await;
    assert_eq!(from(&listed, "/queue", &[]).status, 403);

    // When somebody deletes a policy, then the operator writes it again, and nothing is open meanwhile.
    let namespace = account.get().await.status.unwrap().namespace.unwrap().name;
    let policies = policies(&namespace).await;
    for name in ["web", "web-open", "web-agents"] {
        let before = policies.get(name).await.unwrap().metadata.uid;
        policies.delete(name, &Default::default()).await.unwrap();
        eventually(&format!("SecurityPolicy {name} is put back"), || async {
            assert_eq!(from(&listed, "/queue", &[]).status, 403, "open while {name} was missing");
            policies.get_opt(name).await.unwrap().filter(|p| p.metadata.uid != before).map(drop)
        })
        .await;
    }
    is_published(&account).await;

    // When somebody edits a policy.
    let opened = json!({"spec": {"authorization": {"defaultAction": "Allow"}}});
    policies.patch("web-agents", &PatchParams::default(), &Patch::Merge(opened)).await.unwrap();

    // Then the operator undoes the edit.
    eventually("the edit is undone", || async {
        let found = policies.get("web-agents").await.unwrap();
        (found.data["spec"]["authorization"]["defaultAction"] == "Deny").then_some(())
    })
    .await;
}

/// The SecurityPolicies of a namespace, with the operator's own rights: admission lets nobody else change them.
async fn policies(namespace: &str) -> Api<DynamicObject> {
    Api::namespaced_with(Cluster::as_operator().await, namespace, &helpdesk_operator::edge::objects::Kind::SecurityPolicy.resource())
}

/// A connection that is kept open, with one request after the other on it.
struct OpenConnection {
    child: Child,
    host: &'static str,
}

impl OpenConnection {
    fn open(host: &'static str) -> Self {
        let gateway = setting("HELPDESK_TEST_EDGE_ADDRESS");
        let child = Command::new("openssl")
            .args(["s_client", "-quiet", "-no_ign_eof", "-connect", &format!("{gateway}:443"), "-servername", host])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, host }
    }

    /// An agent requests a path. Returns the status, or `None` if the connection was closed.
    fn agent_gets(&mut self, path: &str) -> Option<u16> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        self.child.stdin.as_mut().unwrap().write_all(request.as_bytes()).ok()?;
        let (mut text, mut byte) = (String::new(), [0]);
        let out = self.child.stdout.as_mut().unwrap();
        while !text.ends_with("\r\n\r\n") {
            if out.read(&mut byte).ok()? == 0 {
                return None;
            }
            text.push(byte[0].into());
        }
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        out.read_exact(&mut vec![0; length.parse().unwrap()]).ok()?;
        Some(text.split_whitespace().nth(1).unwrap().parse().unwrap())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_connection_from_before_the_list_leads_not_around_it() {
    // Given an agent with an open connection to a published app.
    let cluster = Cluster::connect().await;
    administrator_applies_class(&cluster).await;
    administrator_applies_plan(&cluster, "web-kept", json!({})).await;
    let account = cluster.customer_signs_up("web-kept", "web-kept").await;
    tenant_runs_app(&account).await;
    is_published(&account).await;
    let host = "web-kept.helpdesk.example";
    let mut kept = OpenConnection::open(host);
    assert_eq!(kept.agent_gets("/queue"), Some(200));

    // When an administrator lists another address, and new connections are refused.
    account.administrator_applies(json!({"security": {"agentAllow": ["192.0.2.0/24"]}})).await;
    let url = format!("https://{host}/queue");
    eventually("a new connection is refused", || async { (visitor_gets(&url, &[]).status == 403).then_some(()) }).await;

    // Then the open connection is refused or closed, and never serves an agent's path again.
    let mut refused = false;
    while !refused {
        let answer = kept.agent_gets("/queue");
        assert_ne!(answer, Some(200), "the old connection leads around the list");
        refused = matches!(answer, None | Some(403));
    }
}

#[tokio::test]
async fn tls_1_3_is_kept_for_one_tenant_and_its_name_answers_on_no_other_connection() {
    // Given an account that asks for TLS 1.3, and a published app.
    let cluster = Cluster::connect().await;
    administrator_applies_class(&cluster).await;
    administrator_applies_plan(&cluster, "web-tls", json!({})).await;
    let account = cluster.customer_signs_up("web-tls", "web-tls").await;
    account.administrator_applies(json!({"security": {"minTls": "1.3"}})).await;
    tenant_runs_app(&account).await;
    is_published(&account).await;

    // When a visitor uses TLS 1.3, then it is served.
    let url = "https://web-tls.helpdesk.example/";
    assert_eq!(visitor_gets(url, &[]).status, 200);

    // When a visitor uses TLS 1.2, also by the connection of another hostname, then it is not served.
    assert!(visitor_tries_to_get(url, &["--tls-max", "1.2"]).is_err(), "TLS 1.2 was taken");
    let on_another = visitor_gets("https://other.helpdesk.example/", &["--tls-max", "1.2", "--header", "Host: web-tls.helpdesk.example"]);
    assert_eq!(on_another.status, 404, "{on_another:?}");
}

#[tokio::test]
async fn what_a_gateway_cannot_keep_is_not_published() {
    // Given a Gateway whose driver cannot restrict addresses, and an account that lists its agents' addresses.
    let cluster = Cluster::connect().await;
    administrator_applies_class(&cluster).await;
    let plain = json!([{"region": "eu-1", "store": "eu-cold", "domainBase": "helpdesk.example",
        "gateway": {"name": "edge", "namespace": "edge", "driver": "GatewayAPI"}}]);
    administrator_applies_plan(&cluster, "web-plain", json!({"placements": plain})).await;
    let account = cluster.customer_signs_up("web-plain", "web-plain").await;
    account.administrator_applies(json!({"security": {"agentAllow": ["192.0.2.0/24"]}})).await;
    tenant_runs_app(&account).await;

    // Then the app is not published, and the account names the setting.
    let told = account.wait_until("withheld", |a| find_condition(a, "EdgeReady").is_some_and(|c| c.reason == "PolicyUnkeepable")).await;
    assert!(find_condition(&told, "EdgeReady").unwrap().message.contains("agentAllow"));
    assert!(has_condition(&told, "Ready", "False"));
    let url = "https://web-plain.helpdesk.example/help";
    eventually("nothing is published", || async { (visitor_gets(url, &[]).status == 404).then_some(()) }).await;

    // When an administrator removes that setting.
    account.administrator_applies(json!({"security": {}})).await;

    // Then the app is published.
    is_published(&account).await;
    assert_eq!(visitor_gets(url, &[]).status, 200);

    // When an administrator asks for a second factor, which the driver cannot keep either.
    account.administrator_applies(json!({"security": {"requireTotp": true}})).await;

    // Then the address is withdrawn, and the account names the setting.
    let told = account.wait_until("withheld", |a| find_condition(a, "EdgeReady").is_some_and(|c| c.message.contains("requireTotp"))).await;
    assert!(has_condition(&told, "Ready", "False"));
    eventually("the address is taken back", || async { (visitor_gets(url, &[]).status == 404).then_some(()) }).await;
}

#[tokio::test]
async fn a_name_goes_to_the_first_and_a_former_one_redirects() {
    // Given an account whose app is published at a hostname.
    let cluster = Cluster::connect().await;
    administrator_applies_class(&cluster).await;
    administrator_applies_plan(&cluster, "web-names", json!({})).await;
    let first = cluster.customer_signs_up("web-names", "web-names").await;
    tenant_runs_app(&first).await;
    is_published(&first).await;

    // When a second customer asks for the same hostname.
    let second = cluster.customer_signs_up("web-names-2", "web-names").await;
    second.administrator_applies(json!({"domain": {"slug": "web-names"}})).await;

    // Then the second account is refused, and is not told whose the hostname is.
    let told = second.wait_until("the loser is told", |a| find_condition(a, "EdgeReady").is_some_and(|c| c.reason == "NameTaken")).await;
    assert!(!find_condition(&told, "EdgeReady").unwrap().message.contains("web-names-2 "), "whose it is, is nobody else's business");

    // When the first customer chooses another hostname.
    first.administrator_applies(json!({"domain": {"slug": "web-names-new"}})).await;

    // Then the former hostname redirects to the new one, and the second customer still does not get it.
    eventually("the former name redirects", || async {
        let got = visitor_gets("https://web-names.helpdesk.example/a?b=c", &[]);
        (got.status == 301 && got.head.contains("location: https://web-names-new.helpdesk.example")).then_some(())
    })
    .await;
    second.administrator_applies(json!({"domain": {"slug": "web-names"}, "displayName": "Second"})).await;
    let told =
        second.wait_until("still the first one's", |a| find_condition(a, "EdgeReady").is_some_and(|c| c.reason == "NameTaken")).await;
    assert!(has_condition(&told, "EdgeReady", "False"));

    // When somebody makes a route for that hostname in another namespace.
    let route = |namespace: &str| {
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "stolen", "namespace": namespace}, "spec": {
            "parentRefs": [{"name": "edge", "namespace": "edge"}], "hostnames": ["web-names-new.helpdesk.example"],
            "rules": [{"matches": [{"path": {"type": "Exact", "value": "/stolen"}}],
                "filters": [{"type": "RequestRedirect", "requestRedirect": {"hostname": "evil.example"}}]}]}})
    };
    let routes = |namespace: &str| -> Api<DynamicObject> {
        Api::namespaced_with(cluster.client.clone(), namespace, &helpdesk_operator::edge::objects::Kind::HttpRoute.resource())
    };
    let params = PatchParams::apply("stories").force();
    routes("default").patch("stolen", &params, &Patch::Apply(route("default"))).await.unwrap();

    // Then the gateway does not serve it.
    eventually("the foreign route is refused by the gateway", || async {
        let found = routes("default").get("stolen").await.unwrap();
        let accepted = &found.data["status"]["parents"][0]["conditions"][0];
        (accepted["type"] == "Accepted" && accepted["status"] == "False").then_some(())
    })
    .await;
    assert_eq!(visitor_gets("https://web-names-new.helpdesk.example/stolen", &[]).status, 200, "a foreign route is served");

    // When somebody makes one in the tenant's namespace, then admission refuses it.
    let namespace = first.get().await.status.unwrap().namespace.unwrap().name;
    let refused = routes(&namespace).patch("stolen", &params, &Patch::Apply(route(&namespace))).await.unwrap_err().to_string();
    assert!(refused.contains("are the operator's"), "{refused}");

    // When the second customer asks for a hostname of the platform as a custom one.
    second.administrator_applies(json!({"domain": {"slug": "web-names-2", "custom": ["web-names.helpdesk.example"]}})).await;

    // Then it is refused.
    second
        .wait_until("the platform's name is refused", |a| {
            let domains = a.status.as_ref().map(|s| s.domains.clone()).unwrap_or_default();
            domains.iter().any(|d| d.message.as_ref().is_some_and(|m| m.contains("the platform's own domain")))
        })
        .await;
}

/// CoreDNS with one zone, on this machine.
pub struct Dns {
    child: Child,
    zone: std::path::PathBuf,
    serial: u32,
    pub address: String,
}

impl Dns {
    pub fn start(zone_name: &str) -> Self {
        let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("dns-{zone_name}"));
        std::fs::create_dir_all(&folder).unwrap();
        let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let zone = folder.join("zone");
        let corefile = folder.join("Corefile");
        let text = format!("{zone_name}:{port} {{\n  bind 127.0.0.1\n  file {} {{\n    reload 200ms\n  }}\n}}\n", zone.display());
        std::fs::write(&corefile, text).unwrap();
        let mut dns = Self { child: Command::new("true").spawn().unwrap(), zone, serial: 0, address: format!("127.0.0.1:{port}") };
        dns.owner_publishes(zone_name, &[]);
        let _ = dns.child.wait();
        dns.child = Command::new(setting("HELPDESK_TEST_COREDNS")).arg("-conf").arg(corefile).stdout(Stdio::null()).spawn().unwrap();
        dns
    }

    pub fn owner_publishes(&mut self, zone_name: &str, records: &[(String, String)]) {
        let records: Vec<_> = records.iter().map(|(name, value)| format!("{name}. 1 IN TXT \"{value}\"")).collect();
        self.zone_has(zone_name, &records);
    }

    pub fn zone_has(&mut self, zone_name: &str, records: &[String]) {
        self.serial += 1;
        let mut text = format!(
            "$ORIGIN {zone_name}.\n@ 1 IN SOA ns.{zone_name}. admin.{zone_name}. {} 60 60 60 1\n@ 1 IN NS ns\nns 1 IN A 127.0.0.1\n",
            self.serial
        );
        text.push_str(&records.join("\n"));
        std::fs::write(&self.zone, text + "\n").unwrap();
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_custom_name_is_served_once_its_owner_has_proved_it_and_goes_to_whoever_can() {
    // Given a DNS zone, a certificate for a custom hostname, and an operator that asks this zone.
    let mut dns = Dns::start("web-custom.example");
    let shard = Shard::new("web-custom", Servers::First).await;
    administrator_applies_class(&shard.cluster).await;
    administrator_applies_plan_in(&shard.cluster, "web-custom", "web-custom", "web-custom-cold", json!({})).await;
    let _operator = shard.start_operator("only", &[("HELPDESK_OPERATOR_RESOLVER", &dns.address), ("HELPDESK_OPERATOR_PROVE_AGAIN", "8")]);
    let host = "help.web-custom.example";
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(shard.cluster.client.clone(), "default");
    let (certificate, key) = self_signed(host);
    for account in ["web-custom", "web-rival"] {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": account, "annotations": {"helpdesk-operator.io/for-account": account}},
            "stringData": {"tls.crt": certificate, "tls.key": key}});
        secrets.patch(account, &PatchParams::apply("stories").force(), &Patch::Apply(secret)).await.unwrap();
    }
    let domain =
        |name: &str| json!({"domain": {"slug": name, "custom": [host], "certificateSecret": {"namespace": "default", "name": name}}});

    // When a customer asks for the custom hostname.
    let account = shard.customer_signs_up("web-custom").await;
    account.administrator_applies(domain("web-custom")).await;
    tenant_runs_app(&account).await;

    // Then the account shows a challenge, and the hostname is not served.
    let asked = account.wait_until("a challenge", |a| challenge(a, host).is_some()).await;
    assert!(visitor_tries_to_get(&format!("https://{host}/help"), &["--insecure"]).is_err(), "a name was served without a proof");

    // When everything below the name is an alias, and the record stands at its target, then the hostname is not served.
    let (_, value) = challenge(&asked, host).unwrap();
    dns.zone_has("web-custom.example", &[format!("*.{host}. 1 IN CNAME elsewhere"), format!("elsewhere 1 IN TXT \"{value}\"")]);
    account.administrator_annotates("example.com/look", "once").await;
    account.wait_until("an alias is no proof", |a| domain_message(a, host).is_some_and(|m| m.contains("is an alias"))).await;
    assert!(visitor_tries_to_get(&format!("https://{host}/help"), &["--insecure"]).is_err(), "an alias proved a name");

    // When the owner of the zone publishes a wrong value, and then the right one.
    let (record, _) = challenge(&asked, host).unwrap();
    dns.owner_publishes("web-custom.example", &[(record, "helpdesk-operator=somebody-else".into())]);
    let first_proof = challenge(&asked, host).unwrap();
    dns.owner_publishes("web-custom.example", std::slice::from_ref(&first_proof));
    account.administrator_annotates("example.com/look", "again").await;

    // Then the custom hostname is served.
    eventually("the custom name is served", || async {
        visitor_tries_to_get(&format!("https://{host}/help"), &["--insecure"]).ok().filter(|got| got.status == 200).map(drop)
    })
    .await;
    is_published(&account).await;

    // When another account asks for the hostname, then it is refused, and told the record that would prove it.
    let rival = shard.customer_signs_up("web-rival").await;
    rival.administrator_applies(domain("web-rival")).await;
    tenant_runs_app(&rival).await;
    let told = rival.wait_until("the rival is told", |a| challenge(a, host).is_some()).await;
    assert!(domain_message(&told, host).unwrap().contains("another account's"));

    // When the owner of the zone publishes that record beside the first, then the hostname stays where it is.
    let rivals_proof = challenge(&told, host).unwrap();
    dns.owner_publishes("web-custom.example", &[first_proof, rivals_proof.clone()]);
    rival.administrator_annotates("example.com/look", "again").await;
    rival.wait_until("both are proved", |a| domain_message(a, host).is_some_and(|m| m.contains("remove it to take the name over"))).await;
    let claims = shard.cluster.claims();
    assert_eq!(claims.get(host).await.unwrap().spec.account, "web-custom");

    // When the owner of the zone removes the first record, then the hostname is the other account's, and the first is told.
    dns.owner_publishes("web-custom.example", &[rivals_proof]);
    eventually("the name changes hands", || async {
        claims.get_opt(host).await.unwrap().filter(|claim| claim.spec.account == "web-rival").map(drop)
    })
    .await;
    let note = account.wait_for_event("NameLost").await;
    assert!(note.contains(host) && !note.contains("web-rival"), "{note}");
    let refused = |a: &HelpDeskAccount| find_condition(a, "Stalled").is_some_and(|c| c.reason == "NameTaken" && c.message.contains(host));
    account.wait_until("the first account says that it lost the name", refused).await;

    // Then it is served for the other account, and for the first one no more.
    let namespace = account.get().await.status.unwrap().namespace.unwrap().name;
    let listeners = helpdesk_operator::edge::objects::Kind::ListenerSet.resource();
    let listeners: Api<DynamicObject> = Api::namespaced_with(shard.cluster.client.clone(), &namespace, &listeners);
    assert!(listeners.list(&Default::default()).await.unwrap().items.is_empty(), "the first account still listens");
    is_published(&rival).await;
    eventually("the rival's app answers", || async {
        visitor_tries_to_get(&format!("https://{host}/help"), &["--insecure"]).ok().filter(|got| got.status == 200).map(drop)
    })
    .await;

    // When the owner of the zone removes every proof, then the loss is noticed, and the hostname is served no more.
    dns.owner_publishes("web-custom.example", &[]);
    eventually("the loss is noticed", || async { claims.get(host).await.ok().filter(|c| c.spec.lost_since.is_some()).map(drop) }).await;
    eventually("the name is served no more", || async {
        visitor_tries_to_get(&format!("https://{host}/help"), &["--insecure"]).is_err().then_some(())
    })
    .await;
}

pub fn challenge(account: &HelpDeskAccount, host: &str) -> Option<(String, String)> {
    let domains = &account.status.as_ref()?.domains;
    domains.iter().find(|d| d.host == host)?.challenge.clone().map(|c| (c.record, c.value))
}

pub fn domain_message(account: &HelpDeskAccount, host: &str) -> Option<String> {
    account.status.as_ref()?.domains.iter().find(|d| d.host == host)?.message.clone()
}

fn self_signed(host: &str) -> (String, String) {
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (certificate, key) = (folder.join(format!("{host}.crt")), folder.join(format!("{host}.key")));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "90"])
        .args(["-subj", &format!("/CN={host}"), "-addext", &format!("subjectAltName=DNS:{host}")])
        .args(["-out", certificate.to_str().unwrap(), "-keyout", key.to_str().unwrap()])
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(made.success());
    (std::fs::read_to_string(certificate).unwrap(), std::fs::read_to_string(key).unwrap())
}
