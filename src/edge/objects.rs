//! The kinds of objects of the edge, and caches of these objects, so that reading them sends no request.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{FutureExt, StreamExt, future, stream::BoxStream};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt,
    core::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef, Store},
        wait::{Condition, await_condition, conditions::is_crd_established},
        watcher,
    },
};

use tokio::{sync::Notify, time::Instant};

use crate::{
    api::{ACCOUNT_LABEL, ACCOUNT_UID},
    error_chain::chain,
    readiness::Readiness,
};

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
    /// The same of the platform: what is no account's, such as a Gateway's.
    PlatformSecurityPolicy,
    /// Envoy Gateway: TLS versions, and which proxies are trusted to name a client's address.
    ClientTrafficPolicy,
    /// Envoy Gateway: rate limits.
    BackendTrafficPolicy,
    /// Envoy Gateway: direct responses.
    HttpRouteFilter,
    /// cert-manager: a certificate to be issued.
    Certificate,
    /// cert-manager: who issues certificates in every namespace.
    ClusterIssuer,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 12] = [
        Self::GatewayClass,
        Self::Gateway,
        Self::HttpRoute,
        Self::ListenerSet,
        Self::ReferenceGrant,
        Self::SecurityPolicy,
        Self::PlatformSecurityPolicy,
        Self::ClientTrafficPolicy,
        Self::BackendTrafficPolicy,
        Self::HttpRouteFilter,
        Self::Certificate,
        Self::ClusterIssuer,
    ];

    /// The kinds that plans name.
    pub const NAMED: [Self; 3] = [Self::GatewayClass, Self::Gateway, Self::ClusterIssuer];

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
            Self::SecurityPolicy | Self::PlatformSecurityPolicy => {
                ("gateway.envoyproxy.io", "v1alpha1", "SecurityPolicy", "securitypolicies")
            }
            Self::ClientTrafficPolicy => ("gateway.envoyproxy.io", "v1alpha1", "ClientTrafficPolicy", "clienttrafficpolicies"),
            Self::BackendTrafficPolicy => ("gateway.envoyproxy.io", "v1alpha1", "BackendTrafficPolicy", "backendtrafficpolicies"),
            Self::HttpRouteFilter => ("gateway.envoyproxy.io", "v1alpha1", "HTTPRouteFilter", "httproutefilters"),
            Self::Certificate => ("cert-manager.io", "v1", "Certificate", "certificates"),
            Self::ClusterIssuer => ("cert-manager.io", "v1", "ClusterIssuer", "clusterissuers"),
        };
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    }

    /// The name of its CRD.
    pub fn definition(self) -> String {
        let resource = self.resource();
        format!("{}.{}", resource.plural, resource.group)
    }

    /// What the cache holds of the kind.
    fn selected(self) -> watcher::Config {
        let all = watcher::Config::default();
        match self {
            Self::GatewayClass | Self::Gateway | Self::ClientTrafficPolicy | Self::ClusterIssuer => all,
            Self::PlatformSecurityPolicy => all.labels(&format!("!{ACCOUNT_LABEL}")),
            _ => all.labels(ACCOUNT_LABEL),
        }
    }
}

/// Caches of the edge's objects, filled by watches.
///
/// The caches lag behind the operator's own writes, so these are remembered here. Otherwise a policy that was just
/// deleted would still count as being in force.
pub struct Objects {
    stores: BTreeMap<Kind, Store<DynamicObject>>,
    /// Notified once it is known that the kind is not installed.
    absent: BTreeMap<Kind, Arc<Notify>>,
    own: Mutex<OwnObjects>,
    owned: Arc<Owned>,
}

/// Where the objects of each owner are, by the uid on them: whoever looks for one tenant's objects looks at no other's. An
/// object that is gone may still be named.
#[derive(Default)]
struct Owned(Mutex<HashMap<String, BTreeSet<Key>>>);

/// Kind, namespace and name of an object.
type Key = (Kind, Option<String>, String);

impl Owned {
    fn saw(&self, kind: Kind, object: &DynamicObject) {
        if let Some(uid) = object.annotations().get(ACCOUNT_UID) {
            self.lock().entry(uid.clone()).or_default().insert((kind, object.namespace(), object.name_any()));
        }
    }

    fn keys(&self, uid: &str) -> BTreeSet<Key> {
        self.lock().get(uid).cloned().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, BTreeSet<Key>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The operator's last writes, by kind, namespace and name.
type OwnObjects = HashMap<Key, Own>;

/// The operator's last write of an object.
struct Own {
    uid: Option<String>,
    /// The generation that the write made; `None`: the object was deleted.
    generation: Option<i64>,
    at: Instant,
}

/// How long a gateway takes to look at an object that was written.
const LOOKED_AT_WITHIN: Duration = Duration::from_secs(10);

/// How soon a definition that could not be read is read again.
const READ_AGAIN: Duration = Duration::from_secs(5);

/// The events of a watch of one kind.
pub type Events = BoxStream<'static, Result<DynamicObject, watcher::Error>>;

/// Watches these kinds. The watch of a kind begins when its CRD is installed.
pub fn watch(client: &Client, readiness: &Readiness, kinds: &[Kind]) -> (Objects, Vec<(Kind, Events)>) {
    let (mut stores, mut absent) = (BTreeMap::new(), BTreeMap::new());
    let mut all = vec![];
    let owned = Arc::new(Owned::default());
    for &kind in kinds {
        let resource = kind.resource();
        let writer = reflector::store::Writer::new(resource.clone());
        stores.insert(kind, writer.as_reader());
        let owners = Arc::clone(&owned);
        let objects = readiness
            .watch(Api::all_with(client.clone(), &resource), kind.selected())
            .modify(move |object: &mut DynamicObject| {
                object.managed_fields_mut().clear();
                owners.saw(kind, object);
            })
            .reflect(writer)
            .touched_objects();
        let is_absent = Arc::new(Notify::new());
        absent.insert(kind, Arc::clone(&is_absent));
        // Begins only once the CRD is installed, so that no watch fails again and again.
        let installed = until_installed(Api::all(client.clone()), kind, is_absent);
        all.push((kind, installed.map(|()| objects).flatten_stream().boxed()));
    }
    (Objects { stores, absent, own: Mutex::default(), owned }, all)
}

/// Waits until the kind is installed. Notifies `absent` once it is known that it is not.
async fn until_installed(definitions: Api<CustomResourceDefinition>, kind: Kind, absent: Arc<Notify>) {
    let name = kind.definition();
    loop {
        let error = match definitions.get_opt(&name).await {
            Ok(found) if is_crd_established().matches_object(found.as_ref()) => return,
            Ok(_) => {
                absent.notify_one();
                match await_condition(definitions.clone(), &name, is_crd_established()).await {
                    Ok(_) => return,
                    Err(error) => chain(&error),
                }
            }
            Err(error) => chain(&error),
        };
        tracing::warn!(definition = name, error, "failed to look for a definition of the edge");
        tokio::time::sleep(READ_AGAIN).await;
    }
}

impl Objects {
    /// Resolves once each kind has its first list, or is known not to be installed.
    pub fn filled(&self) -> impl Future<Output = ()> + Send + use<> {
        let all: Vec<_> = self.stores.iter().map(|(kind, store)| (store.clone(), Arc::clone(&self.absent[kind]))).collect();
        future::join_all(all.into_iter().map(|(store, absent)| async move {
            tokio::select! {
                _ = store.wait_until_ready() => {}
                () = absent.notified() => {}
            }
        }))
        .map(drop)
    }

    /// Whether the kind is installed and its first list was read.
    pub fn has(&self, kind: Kind) -> bool {
        self.stores.get(&kind).is_some_and(|store| store.wait_until_ready().now_or_never().is_some())
    }

    /// Returns one object from the cache.
    pub fn get(&self, kind: Kind, namespace: Option<&str>, name: &str) -> Option<Arc<DynamicObject>> {
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

    /// Whether this process wrote the object a moment ago, so that the gateway may not have looked at it yet.
    pub fn was_just_written(&self, kind: Kind, namespace: &str, name: &str) -> bool {
        let key = (kind, Some(namespace.to_owned()), name.to_owned());
        self.lock().get(&key).is_some_and(|own| own.at.elapsed() < LOOKED_AT_WITHIN)
    }

    fn was_deleted(&self, kind: Kind, found: &DynamicObject) -> bool {
        !self.check_own(kind, found, |own| own.uid != found.uid() || own.generation.is_some())
    }

    fn check_own(&self, kind: Kind, found: &DynamicObject, check: impl Fn(&Own) -> bool) -> bool {
        self.lock().get(&(kind, found.namespace(), found.name_any())).is_none_or(check)
    }

    fn remember(&self, kind: Kind, object: &DynamicObject, generation: Option<i64>) {
        let own = Own { uid: object.uid(), generation, at: Instant::now() };
        self.lock().insert((kind, object.namespace(), object.name_any()), own);
    }

    fn lock(&self) -> MutexGuard<'_, OwnObjects> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets an owner whose namespace is gone, and the operator's writes there.
    pub fn forget(&self, uid: &str, namespace: &str) {
        self.owned.lock().remove(uid);
        self.lock().retain(|(_, written_in, _), _| written_in.as_deref() != Some(namespace));
    }

    /// Returns all cached objects with this owner's uid, in the order of [`Kind::MADE`]: routes come first.
    pub fn of_owner(&self, uid: &str) -> Vec<(Kind, Arc<DynamicObject>)> {
        let keys = self.owned.keys(uid);
        let found = |(kind, namespace, name): &Key| self.get(*kind, namespace.as_deref(), name).map(|object| (*kind, object));
        let is_owned = |object: &DynamicObject| object.annotations().get(ACCOUNT_UID).is_some_and(|on_it| on_it == uid);
        let made = Kind::MADE.iter().flat_map(|made| keys.iter().filter(move |(kind, ..)| kind == made));
        made.filter_map(found).filter(|(_, object)| is_owned(object)).collect()
    }

    /// Returns all cached objects for which `fits` is true.
    pub fn find(&self, kind: Kind, fits: impl Fn(&DynamicObject) -> bool) -> Vec<std::sync::Arc<DynamicObject>> {
        self.stores
            .get(&kind)
            .map(|store| store.state().into_iter().filter(|o| fits(o) && !self.was_deleted(kind, o)).collect())
            .unwrap_or_default()
    }
}

/// Hash of the fields of an object whose change concerns tenants: metadata and status. Of a Gateway's status
/// only conditions and addresses count, because `attachedRoutes` changes with every tenant.
pub fn state(kind: Kind, object: &DynamicObject) -> u64 {
    let mut hasher = DefaultHasher::new();
    object.metadata.uid.hash(&mut hasher);
    object.metadata.generation.hash(&mut hasher);
    object.metadata.deletion_timestamp.is_some().hash(&mut hasher);
    object.metadata.labels.hash(&mut hasher);
    object.metadata.annotations.hash(&mut hasher);
    let status = &object.data["status"];
    match kind {
        // What else is in an issuer's status concerns no tenant.
        Kind::ClusterIssuer => {}
        Kind::Gateway | Kind::GatewayClass => {
            for part in [&status["conditions"], &status["addresses"]] {
                part.to_string().hash(&mut hasher);
            }
        }
        _ => status.to_string().hash(&mut hasher),
    }
    hasher.finish()
}

/// Finds the condition of the type `kind` in a list of conditions.
pub fn condition<'a>(conditions: &'a serde_json::Value, kind: &str) -> Option<&'a serde_json::Value> {
    conditions.as_array()?.iter().find(|c| c["type"] == kind)
}
