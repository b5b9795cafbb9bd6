//! Streams that are open while a tenant's policy or stage changes: event streams over HTTP/1.1 and HTTP/2, and WebSockets.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use helpdesk_operator::{
    clock::{self, Moment},
    lifecycle::Stage,
};
use k8s_openapi::{api::core::v1::Pod, jiff::SignedDuration};
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::{Value, json};

use super::{
    cluster::{Account, Cluster, eventually, find_condition, setting},
    web::{administrator_applies_plan, client_addresses, is_published, visitor_tries_to_get},
};

/// A stream that a client reads for as long as it lasts.
struct Stream {
    child: Mutex<Child>,
    what: String,
    received: PathBuf,
}

/// The protocols, with curl's arguments.
const PROTOCOLS: [(&str, &[&str]); 3] = [
    ("an event stream over HTTP/1.1", &["--http1.1"]),
    ("an event stream over HTTP/2", &["--http2"]),
    (
        "a WebSocket",
        &[
            "--http1.1",
            "--header",
            "Connection: Upgrade",
            "--header",
            "Upgrade: websocket",
            "--header",
            "Sec-WebSocket-Version: 13",
            "--header",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        ],
    ),
];

impl Stream {
    /// Opens a stream from this address to a path of agents', and waits for its first bytes.
    async fn open(host: &str, protocol: (&str, &[&str]), from: &str) -> Self {
        static OPENED: AtomicU32 = AtomicU32::new(0);
        let name = format!("stream-{}-{}", std::process::id(), OPENED.fetch_add(1, Ordering::Relaxed));
        let received = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        let child = Command::new("curl")
            .args(["--silent", "--no-buffer", "--interface", from, "--cacert", &setting("HELPDESK_TEST_CA")])
            .args(["--connect-to", &format!("::{}:", setting("HELPDESK_TEST_EDGE_ADDRESS"))])
            .args(protocol.1)
            .arg(format!("https://{host}/queue/stream"))
            .stdout(fs::File::create(&received).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stream = Self { child: Mutex::new(child), what: format!("{} of {host} from {from}", protocol.0), received };
        eventually(&format!("the first bytes of {}", stream.what), async || (stream.bytes() > 0).then_some(())).await;
        stream
    }

    fn bytes(&self) -> u64 {
        fs::metadata(&self.received).unwrap().len()
    }

    fn has_ended(&self) -> bool {
        self.child.lock().unwrap().try_wait().unwrap().is_some()
    }

    /// Waits until the stream ends. Returns how long after `since` its last byte came.
    async fn ends(self, since: Moment) -> SignedDuration {
        eventually(&format!("the end of {}", self.what.clone()), async || self.has_ended().then_some(())).await;
        let last: Moment = fs::metadata(&self.received).unwrap().modified().unwrap().try_into().unwrap();
        last.duration_since(since)
    }

    /// Waits for more bytes.
    async fn goes_on(&self) {
        let before = self.bytes();
        assert!(!self.has_ended(), "{} was cut", self.what);
        let what = format!("more bytes of {}", self.what);
        eventually(&what, async || (self.bytes() > before || self.has_ended()).then_some(())).await;
        assert!(!self.has_ended(), "{} was cut", self.what);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        let _ = child.kill();
        let _ = child.wait();
        let _ = fs::remove_file(&self.received);
    }
}

/// What a client at this address is answered.
fn status_from(url: &str, address: &str) -> Option<u16> {
    visitor_tries_to_get(url, &["--interface", address]).ok().map(|answer| answer.status)
}

/// A tenant whose app the operator runs.
async fn tenant(cluster: &Cluster, name: &str, security: Value) -> Account {
    let account = cluster.customer_signs_up(name, "streams").await;
    account.administrator_applies(json!({"security": security})).await;
    is_published(&account).await;
    let url = format!("https://{name}.helpdesk.example/queue");
    let [first, _] = client_addresses();
    eventually("the app answers", async || (status_from(&url, &first) == Some(200)).then_some(())).await;
    account
}

async fn administrator_applies_streams(cluster: &Cluster) {
    let echo = setting("HELPDESK_TEST_ECHO_IMAGE");
    cluster
        .administrator_applies(json!({"kind": "HelpDeskClass", "metadata": {"name": "streams"}, "spec": {
            "app": {"name": "echo", "version": "1"},
            "components": [{"name": "web", "port": 8080, "workload": {"image": echo, "runAsUser": 65532, "cpu": "1m", "memory": "32Mi"}}],
            "routes": [{"path": "/", "component": "web", "audience": "agent"}, {"path": "/help", "component": "web", "audience": "public"}]}}))
        .await;
    administrator_applies_plan(cluster, "streams", json!({"class": "streams"})).await;
}

async fn pods(account: &Account) -> Vec<String> {
    let namespace = account.get().await.status.unwrap().namespace.unwrap().name;
    let pods: Api<Pod> = Api::namespaced(account.cluster.client.clone(), &namespace);
    let found = pods.list(&ListParams::default().labels("helpdesk-operator.io/component=web")).await.unwrap();
    found.items.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).map(ResourceExt::name_any).collect()
}

#[tokio::test]
async fn a_narrower_list_and_a_block_end_the_open_streams_of_that_tenant_and_of_no_other() {
    // Given two tenants, and streams of each from two addresses.
    let cluster = Cluster::connect().await;
    administrator_applies_streams(&cluster).await;
    let [first, second] = client_addresses();
    let both = json!({"agentAllow": [format!("{first}/32"), format!("{second}/32")]});
    let account = tenant(&cluster, "streams-cut", both.clone()).await;
    let neighbour = tenant(&cluster, "streams-kept", json!({})).await;
    let host = "streams-cut.helpdesk.example";
    let mut kept = Vec::new();
    let mut refused = Vec::new();
    for protocol in PROTOCOLS {
        kept.push(Stream::open("streams-kept.helpdesk.example", protocol, &second).await);
        refused.push(Stream::open(host, protocol, &second).await);
    }

    // When the list becomes narrower, then every stream from the address that is refused now ends.
    let began = clock::precise_now();
    account.administrator_applies(json!({"security": {"agentAllow": [format!("{first}/32")]}})).await;
    for stream in refused {
        let what = stream.what.clone();
        println!("{what}: its last byte came {:?} after the list was narrowed", stream.ends(began).await);
    }
    let url = format!("https://{host}/queue");
    assert_eq!(status_from(&url, &second), Some(403));

    // And the tenant's app answers the other address again, and what is wider ends nothing.
    eventually("the app answers", async || (status_from(&url, &first) == Some(200)).then_some(())).await;
    let mut streams = Vec::new();
    for protocol in PROTOCOLS {
        streams.push(Stream::open(host, protocol, &first).await);
    }
    let before = pods(&account).await;
    account.administrator_applies(json!({"security": both})).await;
    eventually("the second address is let in", async || (status_from(&url, &second) == Some(200)).then_some(())).await;
    is_published(&account).await;
    for stream in &streams {
        stream.goes_on().await;
    }
    assert_eq!(pods(&account).await, before, "a wider list ended pods");

    // When the account is blocked, then every stream of it ends.
    account.billing_reports_active().await;
    account.reaches(Stage::Active).await;
    let began = clock::precise_now();
    account.billing_reports_canceled().await;
    for stream in streams {
        let what = stream.what.clone();
        println!("{what}: its last byte came {:?} after the subscription ended", stream.ends(began).await);
    }
    account.reaches(Stage::Blocked).await;

    // And its page is shown, to whom the list refused too.
    account.wait_until("its page", |a| find_condition(a, "EdgeReady").is_some_and(|c| c.reason == "Suspended")).await;
    assert_eq!(status_from(&url, &second), Some(503));

    // And the neighbour's streams go on.
    for stream in &kept {
        stream.goes_on().await;
    }
    drop(neighbour);
}

#[tokio::test]
async fn a_neighbours_streams_stay_open_while_tenants_come_are_edited_and_are_blocked() {
    // Given a tenant with streams.
    let cluster = Cluster::connect().await;
    administrator_applies_streams(&cluster).await;
    let [first, second] = client_addresses();
    let _neighbour = tenant(&cluster, "streams-calm", json!({})).await;
    let mut kept = Vec::new();
    for protocol in PROTOCOLS {
        kept.push(Stream::open("streams-calm.helpdesk.example", protocol, &second).await);
    }

    // When other tenants sign up, get and lose lists and listeners of their own, and are blocked and opened again.
    let others = [tenant(&cluster, "streams-busy-1", json!({})).await, tenant(&cluster, "streams-busy-2", json!({})).await];
    let edits = [
        json!({"agentAllow": [format!("{first}/32")]}),
        json!({"agentAllow": [format!("{first}/32"), "192.0.2.0/24"]}),
        json!({"minTls": "1.3"}),
        json!({"minTls": "1.3", "agentAllow": [format!("{first}/32")]}),
        json!({}),
    ];
    let minutes = std::env::var("HELPDESK_TEST_CHURN_MINUTES").ok().and_then(|minutes| minutes.parse().ok()).unwrap_or(0);
    let (began, lasts) = (Instant::now(), Duration::from_secs(60 * minutes));
    let mut changes = 0;
    while changes < 2 * edits.len() || began.elapsed() < lasts {
        let account = &others[changes % 2];
        account.administrator_applies(json!({"security": edits[changes / 2 % edits.len()]})).await;
        changes += 1;
        if lasts.is_zero() {
            is_published(account).await;
        } else {
            tokio::time::sleep(Duration::from_millis(1200)).await;
        }
        for stream in &kept {
            stream.goes_on().await;
        }
    }
    for account in &others {
        account.billing_reports_active().await;
        account.reaches(Stage::Active).await;
        account.billing_reports_canceled().await;
        account.reaches(Stage::Blocked).await;
    }

    // Then each of its streams is still open.
    for stream in &kept {
        stream.goes_on().await;
    }
    println!("{} streams lived through {changes} changes in {:?}", kept.len(), began.elapsed());
}
