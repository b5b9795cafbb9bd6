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
    api::{SHARD_LABEL, Window, account::OtherCopy, conditions::Finding},
    backup::{
        index::BackupIndex,
        keys::{KEY_OF, KeyRing},
    },
    clock::Moment,
    database::Servers,
    error_chain::chain,
    installation::Installation,
    mover::{Clients, job::MoverPod},
    notices::Endpoint,
    outages::Outages,
    readiness::Readiness,
    store::Stores,
    telemetry::Telemetry,
};

/// The settings that this process was started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The operator's own namespace, with its credentials, keys, movers and Lease.
    pub namespace: String,
    /// Only objects with this value of the shard label are reconciled; `None`: only objects without the label.
    pub shard: Option<String>,
    /// The image that movers run, which is this program's own.
    pub image: String,
    /// What is said about the pods of movers.
    pub mover_pod: MoverPod,
    /// The PostgreSQL clients in that image.
    pub clients: Clients,
    /// The namespace and name of the Lease that billing renews while it works; `None`: it renews none.
    pub billing_lease: Option<(String, String)>,
    /// The namespace of the mail intake and the name of its Service; `None`: there is none.
    pub mail: Option<(String, String)>,
    /// The name of the mail server in DNS, if it was told.
    pub mail_hostname: Option<String>,
    /// The namespaces in which Secrets with owners are read.
    pub owner_namespaces: Vec<String>,
    /// How long copies that the operator cannot see are kept, as the certificate of deletion says it.
    pub copies_kept: Vec<(OtherCopy, Window)>,
    /// Where notices of stages go; `None`: nowhere.
    pub notices: Option<Endpoint>,
    /// What stands before `docs/operations.md` in links to it: a URL that ends with a slash, or nothing.
    pub runbooks: String,
    /// How many accounts of one server are reconciled at once.
    pub concurrency: u16,
    /// DNS servers that are asked for the TXT records of host names; if empty, those of the machine.
    pub resolvers: Vec<SocketAddr>,
    /// How often the TXT record of a host name is checked again.
    pub prove_again: SignedDuration,
    /// When a backup that keeps failing counts as unprovable.
    pub patience: Patience,
}

/// When a backup counts as unprovable: its attempts keep failing because of the backup itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The minimum number of failed attempts: fewer may have had the same temporary cause.
    pub attempts: i32,
    /// The minimum time since the first failed attempt. Until then a temporary cause has passed, and a person who was
    /// alerted has had time to act.
    pub time: SignedDuration,
}

impl Patience {
    /// The default; only tests change it.
    pub const DEFAULT: Self = Self { attempts: 6, time: SignedDuration::from_hours(4) };

    /// The time between two attempts of an unprovable backup.
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

/// The context that all controllers share.
pub struct Context {
    /// The client of the API server.
    pub client: Client,
    /// The settings of this process.
    pub settings: Settings,
    /// The installation's id, and its signing key.
    pub installation: Installation,
    /// Connections to the database servers.
    pub servers: Servers,
    /// Connections to the buckets.
    pub stores: Stores,
    /// All ColdBackups, as the watch of the account controller fills it.
    pub backups: Arc<BackupIndex>,
    /// Metrics.
    pub telemetry: Telemetry,
    /// What keeps this process from working; watches begin here.
    pub readiness: Readiness,
    /// Failures with one cause.
    pub outages: Arc<Outages>,
    /// Publishes events; there is one in the process, because it aggregates repeated events.
    pub recorder: Recorder,
    /// Reads the clock. Controllers read the time only here.
    pub now: fn() -> Moment,
}

impl Context {
    /// Watches the Secrets of the operator's namespace, so that a changed Secret triggers the objects that wait for it.
    /// Keys of backups are left out, because there are very many.
    pub fn secrets(&self) -> impl Stream<Item = Result<PartialObjectMeta<Secret>, watcher::Error>> + Send + use<> {
        let api = Api::<PartialObjectMeta<Secret>>::namespaced(self.client.clone(), &self.settings.namespace);
        let config = watcher::Config::default().labels(&format!("!{KEY_OF}"));
        self.readiness.watch(api, config).touched_objects()
    }

    /// The keys of backups, in the operator's namespace.
    pub fn key_ring(&self) -> KeyRing {
        KeyRing::new(self.client.clone(), &self.settings.namespace)
    }

    /// Publishes an event about an object. A failure is only logged.
    pub async fn publish(&self, about: &ObjectReference, kind: EventType, reason: &str, note: &str, action: &str) {
        let event = Event {
            type_: kind,
            reason: reason.to_owned(),
            note: Some(note.chars().take(LONGEST_NOTE).collect()),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, about).await {
            let error = chain(&error);
            if self.outages.is_first("events", &error) {
                tracing::warn!(object = about.name, error, reason, "failed to publish an event");
            }
        }
    }

    /// Logs and publishes that an object became ready, or why it is not.
    pub async fn publish_readiness(&self, about: &ObjectReference, ready: &Finding) {
        tracing::info!(object = about.name, reason = ready.reason, ready = ready.holds, "{}", ready.message);
        let kind = if ready.holds == Some(true) { EventType::Normal } else { EventType::Warning };
        self.publish(about, kind, &ready.reason, &ready.message, "Connect").await;
    }
}

/// The longest note of an event, in characters; a little below the API server's limit.
pub const LONGEST_NOTE: usize = 1000;

/// The shared context, as controllers hold it.
pub type Shared = Arc<Context>;
