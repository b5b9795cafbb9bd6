//! The kinds of objects that an edge is made of, and what the cluster says of them, without asking it again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
    time::{Duration, Instant},
};

use futures::{FutureExt, Stream, StreamExt, future, stream};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt,
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef, Store},
        wait::{await_condition, conditions::is_crd_established},
        watcher,
    },
};

use crate::api::ACCOUNT_LABEL;

/// The kinds of objects that an edge is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Gateway API: the implementation.
    GatewayClass,
    /// Gateway API: where requests come in.
    Gateway,
    /// Gateway API: which request goes where.
    HttpRoute,
    /// Gateway API: listeners of a tenant's own.
    ListenerSet,
    /// Gateway API: leave to use what is in another namespace.
    ReferenceGrant,
    /// Envoy Gateway: who may.
    SecurityPolicy,
    /// Envoy Gateway: TLS versions, and whom to believe about a client's address.
    ClientTrafficPolicy,
    /// Envoy Gateway: how much.
    BackendTrafficPolicy,
    /// Envoy Gateway: fixed answers.
    HttpRouteFilter,
    /// cert-manager: a certificate that is wanted.
    Certificate,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::GatewayClass,
        Self::Gateway,
        Self::HttpRoute,
        Self::ListenerSet,
        Self::ReferenceGrant,
        Self::SecurityPolicy,
        Self::ClientTrafficPolicy,
        Self::BackendTrafficPolicy,
        Self::HttpRouteFilter,
        Self::Certificate,
    ];

    /// Those that are made for a tenant.
    pub const MADE: [Self; 8] = [
        Self::HttpRoute,
        Self::ListenerSet,
        Self::ReferenceGrant,
        Self::SecurityPolicy,
        Self::ClientTrafficPolicy,
        Self::BackendTrafficPolicy,
        Self::HttpRouteFilter,
        Self::Certificate,
    ];

    /// Group, version, kind and plural.
    pub fn resource(self) -> ApiResource {
        let (group, version, kind, plural) = match self {
            Self::GatewayClass => ("gateway.networking.k8s.io", "v1", "GatewayClass", "gatewayclasses"),
            Self::Gateway => ("gateway.networking.k8s.io", "v1", "Gateway", "gateways"),
            Self::HttpRoute => ("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
            Self::ListenerSet => ("gateway.networking.k8s.io", "v1", "ListenerSet", "listenersets"),
            Self::ReferenceGrant => ("gateway.networking.k8s.io", "v1", "ReferenceGrant", "referencegrants"),
            Self::SecurityPolicy => ("gateway.envoyproxy.io", "v1alpha1", "SecurityPolicy", "securitypolicies"),
            Self::ClientTrafficPolicy => ("gateway.envoyproxy.io", "v1alpha1", "ClientTrafficPolicy", "clienttrafficpolicies"),
            Self::BackendTrafficPolicy => ("gateway.envoyproxy.io", "v1alpha1", "BackendTrafficPolicy", "backendtrafficpolicies"),
            Self::HttpRouteFilter => ("gateway.envoyproxy.io", "v1alpha1", "HTTPRouteFilter", "httproutefilters"),
            Self::Certificate => ("cert-manager.io", "v1", "Certificate", "certificates"),
        };
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    }

    /// The name of its definition.
    pub fn definition(self) -> String {
        let resource = self.resource();
        format!("{}.{}", resource.plural, resource.group)
    }

    /// Whether only objects that carry an account's label are looked at; the others are the platform's.
    fn is_made(self) -> bool {
        !matches!(self, Self::GatewayClass | Self::Gateway | Self::ClientTrafficPolicy)
    }
}

/// What the cluster says of the edge.
///
/// What was written here is known at once, although the cluster tells of it a little later: otherwise a policy that was
/// just deleted would still count as being in force.
pub struct Objects {
    stores: BTreeMap<Kind, Store<DynamicObject>>,
    started: Instant,
    own: Mutex<OwnObjects>,
}

/// What was done, by kind, namespace and name.
type OwnObjects = HashMap<(Kind, Option<String>, String), Own>;

/// What was done to an object last.
struct Own {
    uid: Option<String>,
    /// The generation that was written; `None`: it was deleted.
    generation: Option<i64>,
}

/// How long after the start the first lists may take before what is not there counts as not installed.
const FIRST_LISTS: Duration = Duration::from_secs(10);

/// Objects of one kind as they come and go.
pub type Events = stream::BoxStream<'static, Result<DynamicObject, watcher::Error>>;

/// Looks at every kind, from when its definition is installed on.
pub fn watch(client: &Client) -> (Objects, Vec<(Kind, Events)>) {
    let mut stores = BTreeMap::new();
    let mut all = vec![];
    for kind in Kind::ALL {
        let resource = kind.resource();
        let writer = reflector::store::Writer::new(resource.clone());
        stores.insert(kind, writer.as_reader());
        let config = watcher::Config::default().streaming_lists();
        let config = if kind.is_made() { config.labels(ACCOUNT_LABEL) } else { config };
        let objects = watcher(Api::all_with(client.clone(), &resource), config)
            .default_backoff()
            .modify(|object: &mut DynamicObject| object.managed_fields_mut().clear())
            .reflect(writer)
            .touched_objects();
        all.push((kind, once_installed(client.clone(), kind, objects).boxed()));
    }
    (Objects { stores, started: Instant::now(), own: Mutex::default() }, all)
}

/// A definition that is not installed is waited for, rather than asked for again and again.
fn once_installed<S>(client: Client, kind: Kind, objects: S) -> impl Stream<Item = S::Item>
where
    S: Stream + Send,
{
    let installed = async move {
        let definitions: Api<CustomResourceDefinition> = Api::all(client);
        while let Err(error) = await_condition(definitions.clone(), &kind.definition(), is_crd_established()).await {
            tracing::warn!(definition = kind.definition(), %error, "failed to look for a definition of the edge");
            tokio::time::sleep(FIRST_LISTS).await;
        }
    };
    stream::once(installed).map(|()| None).chain(objects.map(Some)).filter_map(future::ready)
}

impl Objects {
    /// Whether the kind is installed and was read; soon after the start that is waited for.
    pub async fn has(&self, kind: Kind) -> bool {
        let Some(store) = self.stores.get(&kind) else { return false };
        if store.wait_until_ready().now_or_never().is_some() {
            return true;
        }
        let left = FIRST_LISTS.saturating_sub(self.started.elapsed());
        tokio::time::timeout(left, store.wait_until_ready()).await.is_ok()
    }

    /// One object.
    pub fn get(&self, kind: Kind, namespace: Option<&str>, name: &str) -> Option<std::sync::Arc<DynamicObject>> {
        let mut key = ObjectRef::new_with(name, kind.resource());
        key.namespace = namespace.map(str::to_owned);
        self.stores.get(&kind)?.get(&key).filter(|found| !self.was_deleted(kind, found))
    }

    /// Remembers that an object was written.
    pub fn wrote(&self, kind: Kind, object: &DynamicObject) {
        self.remember(kind, object, object.metadata.generation.or(Some(0)));
    }

    /// Remembers that an object was deleted.
    pub fn deleted(&self, kind: Kind, object: &DynamicObject) {
        self.remember(kind, object, None);
    }

    /// Whether the cluster has told of what was written here.
    pub fn is_current(&self, kind: Kind, found: &DynamicObject) -> bool {
        self.ask_own(kind, found, |own| own.uid != found.uid() || own.generation.is_some_and(|g| found.metadata.generation >= Some(g)))
    }

    fn was_deleted(&self, kind: Kind, found: &DynamicObject) -> bool {
        !self.ask_own(kind, found, |own| own.uid != found.uid() || own.generation.is_some())
    }

    fn ask_own(&self, kind: Kind, found: &DynamicObject, answer: impl Fn(&Own) -> bool) -> bool {
        self.lock().get(&(kind, found.namespace(), found.name_any())).is_none_or(answer)
    }

    fn remember(&self, kind: Kind, object: &DynamicObject, generation: Option<i64>) {
        let own = Own { uid: object.uid(), generation };
        self.lock().insert((kind, object.namespace(), object.name_any()), own);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, OwnObjects> {
        self.own.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Forgets what was done in a namespace that is gone.
    pub fn forget(&self, namespace: &str) {
        self.lock().retain(|(_, there, _), _| there.as_deref() != Some(namespace));
    }

    /// All objects that fit.
    pub fn find(&self, kind: Kind, fits: impl Fn(&DynamicObject) -> bool) -> Vec<std::sync::Arc<DynamicObject>> {
        self.stores
            .get(&kind)
            .map(|store| store.state().into_iter().filter(|o| fits(o) && !self.was_deleted(kind, o)).collect())
            .unwrap_or_default()
    }
}

/// Whether a part of a status has a condition with this value, about the present generation if it says.
pub fn condition<'a>(conditions: &'a serde_json::Value, kind: &str) -> Option<&'a serde_json::Value> {
    conditions.as_array()?.iter().find(|c| c["type"] == kind)
}
