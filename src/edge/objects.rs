//! The kinds of objects of the edge, and caches of these objects, so that reading them sends no request.

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

/// The kinds of objects of the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Gateway API: which implementation serves a Gateway.
    GatewayClass,
    /// Gateway API: listeners that all tenants share.
    Gateway,
    /// Gateway API: which request goes to which backend.
    HttpRoute,
    /// Gateway API: a tenant's own listeners.
    ListenerSet,
    /// Gateway API: permission to reference an object in another namespace.
    ReferenceGrant,
    /// Envoy Gateway: authentication and authorization.
    SecurityPolicy,
    /// Envoy Gateway: TLS versions, and which proxies are trusted to name a client's address.
    ClientTrafficPolicy,
    /// Envoy Gateway: rate limits.
    BackendTrafficPolicy,
    /// Envoy Gateway: direct responses.
    HttpRouteFilter,
    /// cert-manager: a certificate to be issued.
    Certificate,
}

impl Kind {
    /// All kinds.
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

    /// The kinds that the operator applies for a tenant.
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

    /// The name of its CRD.
    pub fn definition(self) -> String {
        let resource = self.resource();
        format!("{}.{}", resource.plural, resource.group)
    }

    /// Whether the cache holds only objects with an account's label. Of other kinds it needs the platform's objects.
    fn is_made(self) -> bool {
        !matches!(self, Self::GatewayClass | Self::Gateway | Self::ClientTrafficPolicy)
    }
}

/// Caches of the edge's objects, filled by watches.
///
/// The caches lag behind the operator's own writes, so these are remembered here. Otherwise a policy that was just
/// deleted would still count as being in force.
pub struct Objects {
    stores: BTreeMap<Kind, Store<DynamicObject>>,
    started: Instant,
    own: Mutex<OwnObjects>,
}

/// The operator's last writes, by kind, namespace and name.
type OwnObjects = HashMap<(Kind, Option<String>, String), Own>;

/// The operator's last write of an object.
struct Own {
    uid: Option<String>,
    /// The generation that the write made; `None`: the object was deleted.
    generation: Option<i64>,
}

/// How long after the start a kind's first list may take before the kind counts as not installed.
const FIRST_LISTS: Duration = Duration::from_secs(10);

/// The events of a watch of one kind.
pub type Events = stream::BoxStream<'static, Result<DynamicObject, watcher::Error>>;

/// Watches every kind. The watch of a kind begins when its CRD is installed.
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

/// Begins the stream only once the CRD is installed, so that no watch fails again and again.
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
    /// Whether the kind is installed and its first list was read. Soon after the start this waits for the list.
    pub async fn has(&self, kind: Kind) -> bool {
        let Some(store) = self.stores.get(&kind) else { return false };
        if store.wait_until_ready().now_or_never().is_some() {
            return true;
        }
        let left = FIRST_LISTS.saturating_sub(self.started.elapsed());
        tokio::time::timeout(left, store.wait_until_ready()).await.is_ok()
    }

    /// Returns one object from the cache.
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

    /// Whether the cached object is as new as the operator's last write of it.
    pub fn is_current(&self, kind: Kind, found: &DynamicObject) -> bool {
        self.check_own(kind, found, |own| own.uid != found.uid() || own.generation.is_some_and(|g| found.metadata.generation >= Some(g)))
    }

    fn was_deleted(&self, kind: Kind, found: &DynamicObject) -> bool {
        !self.check_own(kind, found, |own| own.uid != found.uid() || own.generation.is_some())
    }

    fn check_own(&self, kind: Kind, found: &DynamicObject, check: impl Fn(&Own) -> bool) -> bool {
        self.lock().get(&(kind, found.namespace(), found.name_any())).is_none_or(check)
    }

    fn remember(&self, kind: Kind, object: &DynamicObject, generation: Option<i64>) {
        let own = Own { uid: object.uid(), generation };
        self.lock().insert((kind, object.namespace(), object.name_any()), own);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, OwnObjects> {
        self.own.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Forgets the operator's writes in a namespace that is gone.
    pub fn forget(&self, namespace: &str) {
        self.lock().retain(|(_, written_in, _), _| written_in.as_deref() != Some(namespace));
    }

    /// Returns all cached objects for which `fits` is true.
    pub fn find(&self, kind: Kind, fits: impl Fn(&DynamicObject) -> bool) -> Vec<std::sync::Arc<DynamicObject>> {
        self.stores
            .get(&kind)
            .map(|store| store.state().into_iter().filter(|o| fits(o) && !self.was_deleted(kind, o)).collect())
            .unwrap_or_default()
    }
}

/// Finds the condition of the type `kind` in a list of conditions.
pub fn condition<'a>(conditions: &'a serde_json::Value, kind: &str) -> Option<&'a serde_json::Value> {
    conditions.as_array()?.iter().find(|c| c["type"] == kind)
}
