//! Notices before and after a stage, at an HTTPS endpoint that is away for a while.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
};

use base64::{Engine, prelude::BASE64_STANDARD};
use helpdesk_operator::lifecycle::Stage;
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use ring::hmac;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::{
    cluster::{OPERATOR, eventually, find_condition},
    operator::{Servers, Shard},
};

/// A notice as the endpoint got it.
#[derive(Clone)]
struct Taken {
    headers: HashMap<String, String>,
    body: String,
    status: u16,
}

impl Taken {
    fn event(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// What it says, such as `upcoming Blocked`.
    fn says(&self) -> String {
        let event = self.event();
        let kind = event["type"].as_str().unwrap().split('.').nth_back(1).unwrap().to_owned();
        format!("{kind} {}", event["data"]["stage"].as_str().unwrap())
    }
}

/// An HTTPS endpoint with a certificate of its own.
struct Endpoint {
    port: u16,
    certificate: String,
    answers: Arc<AtomicU16>,
    taken: Arc<Mutex<Vec<Taken>>>,
}

impl Endpoint {
    async fn start() -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("notices-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", "/CN=endpoint"])
            .args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-out", certificate.to_str().unwrap(), "-keyout", key.to_str().unwrap()])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let certificate = std::fs::read_to_string(certificate).unwrap();
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_file(key).unwrap();
        let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let config = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (answers, taken) = (Arc::new(AtomicU16::new(503)), Arc::new(Mutex::new(Vec::new())));
        let (status, all) = (Arc::clone(&answers), Arc::clone(&taken));
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (acceptor, status, all) = (acceptor.clone(), Arc::clone(&status), Arc::clone(&all));
                tokio::spawn(async move {
                    let Ok(mut connection) = acceptor.accept(connection).await else { return };
                    let mut request = Vec::new();
                    let (headers, body) = loop {
                        let mut part = [0; 4096];
                        let Ok(read @ 1..) = connection.read(&mut part).await else { return };
                        request.extend_from_slice(&part[..read]);
                        if let Some(complete) = parsed(&String::from_utf8_lossy(&request)) {
                            break complete;
                        }
                    };
                    let status = status.load(Ordering::SeqCst);
                    all.lock().unwrap().push(Taken { headers, body, status });
                    let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                    let _ = connection.write_all(answer.as_bytes()).await;
                    let _ = connection.shutdown().await;
                });
            }
        });
        Self { port, certificate, answers, taken }
    }

    /// What it accepted so far.
    fn accepted(&self) -> Vec<Taken> {
        self.taken.lock().unwrap().iter().filter(|taken| taken.status == 200).cloned().collect()
    }

    async fn accepts(&self, what: &str) -> Taken {
        eventually(&format!("the notice {what}"), || async { self.accepted().into_iter().find(|taken| taken.says() == what) }).await
    }
}

/// Headers and body of a request, once it is complete.
fn parsed(request: &str) -> Option<(HashMap<String, String>, String)> {
    let (head, body) = request.split_once("\r\n\r\n")?;
    let headers: HashMap<_, _> =
        head.lines().skip(1).filter_map(|line| line.split_once(": ")).map(|(n, v)| (n.to_lowercase(), v.to_owned())).collect();
    let length: usize = headers.get("content-length")?.parse().unwrap();
    (body.len() >= length).then(|| (headers, body.to_owned()))
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[tokio::test]
async fn an_owner_can_be_told_in_time_and_an_endpoint_that_is_away_delays_nothing() {
    // Given an endpoint that is away, and a plan whose stages are announced seconds before.
    let endpoint = Endpoint::start().await;
    let shard = Shard::new("notices", Servers::First).await;
    shard.administrator_applies_plan(json!({"trial": "20s", "blocked": "1h"})).await;
    let plans: Api<helpdesk_operator::api::HelpDeskPlan> = Api::all(shard.cluster.client.clone());
    let announced = json!({"spec": {"notices": {"beforeBlocked": ["15s"], "beforeTerminated": ["59m", "1m"]}}});
    plans.patch(&shard.name, &PatchParams::default(), &Patch::Merge(announced)).await.unwrap();
    let secrets: Api<Secret> = Api::namespaced(shard.cluster.client.clone(), OPERATOR);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "notices-endpoint"},
        "stringData": {"secret": SECRET, "ca.crt": endpoint.certificate}});
    secrets.patch("notices-endpoint", &PatchParams::apply("stories").force(), &Patch::Apply(secret)).await.unwrap();
    let url = format!("https://127.0.0.1:{}/hooks/helpdesk", endpoint.port);
    let settings = [("HELPDESK_OPERATOR_NOTICES_URL", url.as_str()), ("HELPDESK_OPERATOR_NOTICES_SECRET", "notices-endpoint")];
    let account = shard.customer_signs_up("notices").await;
    let operator = shard.start_operator("first", &settings);

    // When the block is announced, then the account and the metrics say that the notice was not delivered, and why.
    let told = account.wait_until("NoticesDelivered", |a| find_condition(a, "NoticesDelivered").is_some()).await;
    let condition = find_condition(&told, "NoticesDelivered").unwrap();
    assert_eq!((&*condition.status, &*condition.reason), ("False", "NotDelivered"));
    assert!(condition.message.contains("Blocked") && condition.message.contains("503"), "{}", condition.message);
    eventually("a metric", || async {
        operator.answers("metrics", "/metrics").await?.contains("helpdesk_operator_notices_failing 1").then_some(())
    })
    .await;

    // Then the account is blocked on time all the same.
    let blocked = account.reaches(Stage::Blocked).await.status.unwrap();
    let late = blocked.stage_since.as_ref().unwrap().0.duration_since(told.status.unwrap().next_transition_time.unwrap().0);
    assert!(late.as_secs() < 15, "the block came {late:?} late");

    // When the endpoint is back, then it gets what is still news: that the account is blocked, and that the end follows.
    endpoint.answers.store(200, Ordering::SeqCst);
    let entered = endpoint.accepts("entered Blocked").await;
    let upcoming = endpoint.accepts("upcoming Terminated").await;
    account.wait_until("no failing notice", |a| find_condition(a, "NoticesDelivered").is_none()).await;
    assert!(endpoint.accepted().iter().all(|taken| taken.says() != "upcoming Blocked"), "what has happened is not announced");

    // Then each is signed, names nobody, and had the same id at every try.
    for taken in [&entered, &upcoming] {
        let header = |name: &str| taken.headers[name].as_str();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64_STANDARD.decode(SECRET.trim_start_matches("whsec_")).unwrap());
        let signed = format!("{}.{}.{}", header("webhook-id"), header("webhook-timestamp"), taken.body);
        let signature = BASE64_STANDARD.decode(header("webhook-signature").strip_prefix("v1,").unwrap()).unwrap();
        hmac::verify(&key, signed.as_bytes(), &signature).unwrap();
        assert_eq!(header("content-type"), "application/cloudevents+json; charset=utf-8");
        let event = taken.event();
        assert_eq!((&event["specversion"], &event["subject"]), (&json!("1.0"), &json!("notices")));
        assert_eq!(event["id"], header("webhook-id"));
        assert!(!taken.body.contains('@'), "it names the owner: {}", taken.body);
    }
    assert_eq!(upcoming.event()["data"]["at"], json!(blocked.next_transition_time.unwrap()));
    assert_eq!(upcoming.event()["data"]["before"], "59m");

    // When the operator is killed and another one starts, then nothing is sent a second time.
    let ids = |taken: &[Taken]| taken.iter().map(|t| t.headers["webhook-id"].clone()).collect::<Vec<_>>();
    let before = ids(&endpoint.accepted());
    assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), before.len(), "something was sent twice");
    operator.kill();
    let _operator = shard.start_operator("second", &settings);
    account.billing_reports_active().await;
    account.reaches(Stage::Active).await;
    assert_eq!(ids(&endpoint.accepted()), before);
}
