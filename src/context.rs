//! The context that all controllers share: client, servers, stores, settings, telemetry.

use std::{net::SocketAddr, sync::Arc};

use futures::Stream;
use k8s_openapi::{
    api::core::v1::{ObjectReference, Secret},
    jiff::SignedDuration,
};
use kube::{
    Api, Client,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt,
        events::{Event, EventType, Recorder},
        watcher,
    },
};

use crate::{
    api::{SHARD_LABEL, conditions::Finding},
    backup::keys::{KEY_OF, KeyRing},
    clock::Moment,
    database::Servers,
    installation::Installation,
    mover::Clients,
    store::Stores,
    telemetry::Telemetry,
};

/// How this process was started.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The operator's own namespace: credentials, keys, movers and the lease live there.
    pub namespace: String,
    /// Only objects with this value of the shard label are looked after; `None`: only those without the label.
    pub shard: Option<String>,
    /// The image that movers run, which is this program's own.
    pub image: String,
    /// The PostgreSQL clients in that image.
    pub clients: Clients,
    /// The namespace and name of the Lease that billing renews while it works; `None`: billing promised none.
    pub billing_lease: Option<(String, String)>,
    /// How many accounts of one server are reconciled at once.
    pub concurrency: u16,
    /// DNS servers that are asked for proofs of host names; none: those that the machine is set up with.
    pub resolvers: Vec<SocketAddr>,
    /// After this time the proof of a host name is asked for again.
    pub prove_again: SignedDuration,
    /// When a backup that fails again and again is taken for unprovable.
    pub patience: Patience,
}

/// When a backup that fails again and again, for a reason of its own, is taken for unprovable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// After this many attempts at least: fewer may have met the same passing trouble.
    pub attempts: i32,
    /// And this long after the first of them at least: trouble that passes by itself has passed by then, and a person
    /// who is called has come.
    pub time: SignedDuration,
}

impl Patience {
    /// What holds unless a test says otherwise.
    pub const DEFAULT: Self = Self { attempts: 6, time: SignedDuration::from_hours(4) };

    /// How long one that is unprovable is left alone between two attempts.
    pub fn pause(&self) -> SignedDuration {
        self.time / 4
    }
}

impl Settings {
    /// Selects the objects of this operator's shard by their label.
    pub fn selector(&self) -> String {
        match &self.shard {
            Some(shard) => format!("{SHARD_LABEL}={shard}"),
            None => format!("!{SHARD_LABEL}"),
        }
    }
}

/// Shared by all controllers.
pub struct Context {
    /// The cluster.
    pub client: Client,
    /// How this process was started.
    pub settings: Settings,
    /// Who this installation is, and its signing key.
    pub installation: Installation,
    /// The database servers, connected.
    pub servers: Servers,
    /// The buckets, connected.
    pub stores: Stores,
    /// Metrics.
    pub telemetry: Telemetry,
    /// Events; one for the process, because it aggregates.
    pub recorder: Recorder,
    /// Reads the clock; the only way by which controllers learn the time.
    pub now: fn() -> Moment,
}

impl Context {
    /// The Secrets of the operator's namespace that people write, as they come, change and go: what waits for one is
    /// woken by it. Keys of backups, of which there are very many, are left out.
    pub fn secrets(&self) -> impl Stream<Item = Result<PartialObjectMeta<Secret>, watcher::Error>> + Send + use<> {
        let api = Api::<PartialObjectMeta<Secret>>::namespaced(self.client.clone(), &self.settings.namespace);
        let config = watcher::Config::default().streaming_lists().labels(&format!("!{KEY_OF}"));
        watcher(api, config).default_backoff().touched_objects()
    }

    /// The keys of backups, in the operator's namespace.
    pub fn key_ring(&self) -> KeyRing {
        KeyRing::new(self.client.clone(), &self.settings.namespace)
    }

    /// Publishes an event about an object. One that cannot be published is logged, and delays nothing.
    pub async fn publish(&self, about: &ObjectReference, kind: EventType, reason: &str, note: &str, action: &str) {
        let event = Event {
            type_: kind,
            reason: reason.to_owned(),
            note: Some(note.chars().take(LONGEST_NOTE).collect()),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, about).await {
            tracing::warn!(object = about.name, %error, reason, "failed to publish an event");
        }
    }

    /// Logs and publishes that something became usable, or why it did not.
    pub async fn publish_readiness(&self, about: &ObjectReference, ready: &Finding) {
        tracing::info!(object = about.name, reason = ready.reason, ready = ready.holds, "{}", ready.message);
        let kind = if ready.holds == Some(true) { EventType::Normal } else { EventType::Warning };
        self.publish(about, kind, &ready.reason, &ready.message, "Connect").await;
    }
}

/// A little less than the API server takes.
const LONGEST_NOTE: usize = 1000;

/// The context as controllers hold it.
pub type Shared = Arc<Context>;
