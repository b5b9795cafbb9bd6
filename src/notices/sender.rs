//! Delivers notices, one after the other, and tries again what the endpoint did not take.
//!
//! An endpoint that does not answer, or answers 5xx, makes all notices wait: the next one is tried after a pause that grows to
//! five minutes. One that refuses a single notice (4xx) makes that one wait.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use http_body_util::Full;
use hyper::{Method, Request, Uri, body::Bytes, header};
use hyper_util::{client::legacy::Client as HttpClient, rt::TokioExecutor};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until, timeout},
};

use super::event;
use crate::{clock::Moment, error_chain::chain, telemetry::Telemetry};

/// How long the endpoint may take for one notice.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Where notices go.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The URL, which begins with https://.
    pub url: Uri,
    /// The Secret in the operator's namespace with the key `secret`, and `ca.crt` where the endpoint's certificate is not from an
    /// authority that the system knows.
    pub secret: String,
}

/// What became of a notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The endpoint took it.
    Delivered,
    /// It waits for its turn.
    Pending,
    /// The endpoint did not take it, for this reason; it is tried again.
    Failing(String),
}

/// Delivers notices.
pub struct Sender {
    endpoint: Endpoint,
    client: Client,
    namespace: String,
    now: fn() -> Moment,
    notices: Mutex<Notices>,
    /// Wakes the worker.
    added: Notify,
    /// The accounts of which a notice was delivered, or failed for the first time.
    changed: UnboundedSender<String>,
    delivered: Counter,
    failures: Counter,
    failing: Gauge,
}

/// The notices of each account, by their ids.
type Notices = HashMap<String, HashMap<String, Entry>>;

struct Entry {
    body: Arc<str>,
    attempts: u32,
    next_try: Instant,
    state: Delivery,
}

/// Why a notice was not taken.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("failed to read the Secret {secret} of the endpoint")]
    Secret {
        secret: String,
        #[source]
        source: Box<kube::Error>,
    },
    #[error("failed to find {key} in the Secret {secret} of the endpoint")]
    NoKey { secret: String, key: &'static str },
    #[error("failed to use the certificates of the endpoint's authority")]
    Certificates(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("failed to write the request")]
    Request(#[from] http::Error),
    #[error("failed to reach the endpoint")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("failed to get an answer of the endpoint within {} s", PATIENCE.as_secs())]
    Silent,
    #[error("failed to deliver: the endpoint answered {0}")]
    Refused(u16),
}

impl Error {
    /// Whether only this notice was refused.
    const fn is_of_the_notice(&self) -> bool {
        // 408 and 429 say that the endpoint is busy; 401, 403 and 404 that it is not set up.
        matches!(self, Self::Refused(status) if matches!(status, 400 | 409 | 410 | 413 | 415 | 422))
    }
}

impl Sender {
    /// A sender, and the names of accounts to look at again.
    pub fn new(
        endpoint: Endpoint,
        client: Client,
        namespace: &str,
        now: fn() -> Moment,
        telemetry: &Telemetry,
    ) -> (Arc<Self>, UnboundedReceiver<String>) {
        let (changed, receiver) = unbounded();
        let sender = Self {
            endpoint,
            client,
            namespace: namespace.to_owned(),
            now,
            notices: Mutex::default(),
            added: Notify::new(),
            changed,
            delivered: Counter::default(),
            failures: Counter::default(),
            failing: Gauge::default(),
        };
        telemetry.register("notices_delivered", "Notices that the endpoint took", sender.delivered.clone());
        telemetry.register("notice_failures", "Attempts to deliver a notice that failed", sender.failures.clone());
        telemetry.register("notices_failing", "Notices that were tried and not delivered", sender.failing.clone());
        (Arc::new(sender), receiver)
    }

    /// What became of the notice with this id; one that is not known is delivered by and by.
    pub fn deliver(&self, account: &str, id: &str, body: impl FnOnce() -> String) -> Delivery {
        let mut notices = self.lock();
        let of_account = notices.entry(account.to_owned()).or_default();
        if let Some(entry) = of_account.get(id) {
            return entry.state.clone();
        }
        let entry = Entry { body: body().into(), attempts: 0, next_try: Instant::now(), state: Delivery::Pending };
        of_account.insert(id.to_owned(), entry);
        self.added.notify_one();
        Delivery::Pending
    }

    /// Forgets the account's notices but for these: they were recorded, or are no news any more.
    pub fn keep(&self, account: &str, ids: &[String]) {
        let mut notices = self.lock();
        let Some(of_account) = notices.get_mut(account) else { return };
        of_account.retain(|id, _| ids.contains(id));
        if of_account.is_empty() {
            notices.remove(account);
        }
        self.count(&notices);
    }

    /// Delivers until the process ends.
    pub async fn run(&self) {
        let mut failures_in_a_row = 0_u32;
        loop {
            let Some((id, account, body, due)) = self.next() else {
                self.added.notified().await;
                continue;
            };
            tokio::select! {
                () = sleep_until(due) => {}
                // Another one may be due sooner.
                () = self.added.notified() => continue,
            }
            let result = self.send(&id, &body).await;
            let of_all = result.as_ref().err().is_some_and(|error| !error.is_of_the_notice());
            failures_in_a_row = if of_all { failures_in_a_row.saturating_add(1) } else { 0 };
            if self.note(&account, &id, result) {
                // An error says that the process is stopping.
                let _ = self.changed.unbounded_send(account);
            }
            if of_all {
                tokio::time::sleep(pause(failures_in_a_row)).await;
            }
        }
    }

    /// The notice whose turn is next, and when.
    fn next(&self) -> Option<(String, String, Arc<str>, Instant)> {
        let notices = self.lock();
        let all = notices.iter().flat_map(|(account, notices)| notices.iter().map(move |(id, entry)| (account, id, entry)));
        let waiting = all.filter(|(_, _, entry)| entry.state != Delivery::Delivered);
        let (account, id, entry) = waiting.min_by_key(|(_, _, entry)| entry.next_try)?;
        Some((id.clone(), account.clone(), Arc::clone(&entry.body), entry.next_try))
    }

    /// Notes how an attempt ended. Returns whether the account is to be looked at again.
    fn note(&self, account: &str, id: &str, result: Result<(), Error>) -> bool {
        let mut notices = self.lock();
        let Some(entry) = notices.get_mut(account).and_then(|notices| notices.get_mut(id)) else { return false };
        let changed = match result {
            Ok(()) => {
                self.delivered.inc();
                entry.state = Delivery::Delivered;
                true
            }
            Err(error) => {
                self.failures.inc();
                let why = chain(&error);
                entry.attempts += 1;
                entry.next_try = Instant::now() + pause(entry.attempts);
                if entry.attempts == 1 {
                    tracing::warn!(account, notice = id, error = why, "a notice was not delivered; it is tried again");
                }
                let is_news = !matches!(entry.state, Delivery::Failing(_));
                entry.state = Delivery::Failing(why);
                is_news
            }
        };
        self.count(&notices);
        changed
    }

    fn count(&self, notices: &Notices) {
        let failing = notices.values().flat_map(HashMap::values).filter(|entry| matches!(entry.state, Delivery::Failing(_))).count();
        self.failing.set(i64::try_from(failing).unwrap_or(i64::MAX));
    }

    async fn send(&self, id: &str, body: &str) -> Result<(), Error> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let name = &self.endpoint.secret;
        let secret = secrets.get(name).await.map_err(|source| Error::Secret { secret: name.clone(), source: source.into() })?;
        let value =
            |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).and_then(|value| String::from_utf8(value.0.clone()).ok());
        let key = event::key(&value("secret").ok_or_else(|| Error::NoKey { secret: name.clone(), key: "secret" })?);
        let now = (self.now)();
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.endpoint.url.clone())
            .header(header::CONTENT_TYPE, event::CONTENT_TYPE)
            .header(header::USER_AGENT, concat!("helpdesk-operator/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id)
            .header("webhook-timestamp", now.as_second())
            .header("webhook-signature", event::signature(&key, id, now, body))
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?;
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls(value("ca.crt").as_deref()).map_err(Error::Certificates)?)
            .https_only()
            .enable_http1()
            .build();
        let client = HttpClient::builder(TokioExecutor::new()).build(connector);
        let answer = timeout(PATIENCE, client.request(request)).await.map_err(|_| Error::Silent)?;
        let status = answer.map_err(|error| Error::Unreachable(error.into()))?.status();
        if status.is_success() { Ok(()) } else { Err(Error::Refused(status.as_u16())) }
    }

    fn lock(&self) -> MutexGuard<'_, Notices> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE)
}

/// TLS with these authorities, or with those of the system.
fn tls(authorities: Option<&str>) -> Result<ClientConfig, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(text) => {
            for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
                roots.add(certificate?)?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_is_away_makes_all_wait_and_a_notice_that_is_refused_only_itself() {
        assert!(!Error::Silent.is_of_the_notice());
        assert!(!Error::Refused(503).is_of_the_notice());
        assert!(!Error::Refused(401).is_of_the_notice(), "a wrong secret is everybody's");
        assert!(Error::Refused(422).is_of_the_notice());
        assert_eq!(pause(1), Duration::from_secs(1));
        assert_eq!(pause(40), LONGEST_PAUSE);
    }
}
