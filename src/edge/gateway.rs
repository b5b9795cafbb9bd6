//! Reads a Gateway: its listeners, its addresses, its `ClientTrafficPolicy`, and which driver writes its objects.

use std::sync::Arc;

use kube::core::DynamicObject;
use serde_json::Value;

use super::{
    objects::{Kind, Objects, condition},
    platform_policy,
};
use crate::api::{
    TlsVersion,
    plan::{GatewayDriver, GatewayRef},
};

/// The `controllerName` of a `GatewayClass` of Envoy Gateway.
const ENVOY_GATEWAY: &str = "gateway.envoyproxy.io/gatewayclass-controller";

/// Which kinds of objects enforce the policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Envoy Gateway, 1.9 or later.
    EnvoyGateway,
    /// The Gateway API alone.
    GatewayApi,
}

/// The parts of a Gateway that tenants use.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The driver that writes its objects.
    pub driver: Driver,
    /// The addresses in its status.
    pub addresses: Vec<String>,
    /// The listener for every slug, with the base domain's wildcard certificate.
    pub shared: Listener,
    /// The namespace and name of the Secret with that certificate.
    pub shared_certificate: Option<(String, String)>,
    /// The listener for plain HTTP, if there is one.
    pub http: Option<Listener>,
    /// Whether the Gateway accepts `ListenerSet`s (`allowedListeners`).
    pub takes_listener_sets: bool,
    /// The spec of the Gateway's `ClientTrafficPolicy`. A tenant's own must repeat it, because it replaces this one.
    pub client_traffic: Option<Value>,
    /// The platform's own `SecurityPolicy` for the Gateway or its shared listener. A tenant's own replaces it, so it has to
    /// keep it.
    pub security: Option<Value>,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name in the Gateway.
    pub name: String,
    /// Its port.
    pub port: u16,
}

/// Reads a Gateway; the error says why it cannot be used.
pub fn observe(objects: &Objects, wanted: &GatewayRef, base: &str) -> Result<Gateway, String> {
    let (gateway, driver) = find(objects, wanted)?;
    for kind in [Kind::HttpRoute, Kind::ListenerSet, Kind::ReferenceGrant] {
        installed(objects, kind)?;
    }
    let mut found = read(&gateway.data, wanted, base, driver).map_err(|why| format!("{}: {why}", at(wanted)))?;
    if driver == Driver::EnvoyGateway {
        for kind in [Kind::SecurityPolicy, Kind::ClientTrafficPolicy, Kind::BackendTrafficPolicy, Kind::HttpRouteFilter] {
            installed(objects, kind)?;
        }
        let attached = |kind| {
            let of_namespace = objects.find(kind, |policy| policy.metadata.namespace.as_deref() == Some(&wanted.namespace));
            platform_policy::of_listener(of_namespace, &gateway, &found.shared.name).map(|policy| policy.data["spec"].clone())
        };
        (found.client_traffic, found.security) = (attached(Kind::ClientTrafficPolicy), attached(Kind::PlatformSecurityPolicy));
    }
    Ok(found)
}

/// Why no tenant can be published at a Gateway, if so. Looks at the Gateway and its class only.
pub fn refusal(objects: &Objects, wanted: &GatewayRef, base: &str) -> Option<String> {
    match find(objects, wanted) {
        Ok((gateway, driver)) => read(&gateway.data, wanted, base, driver).err().map(|why| format!("{}: {why}", at(wanted))),
        Err(why) => Some(why),
    }
}

/// Why no tenant of a base domain can be published at a Gateway that exists, by the Gateway alone.
pub fn refusal_of(gateway: &Value, wanted: &GatewayRef, base: &str) -> Option<String> {
    read(gateway, wanted, base, Driver::GatewayApi).err()
}

fn at(gateway: &GatewayRef) -> String {
    format!("Gateway {}/{}", gateway.namespace, gateway.name)
}

/// The Gateway, and the driver that writes its objects.
fn find(objects: &Objects, wanted: &GatewayRef) -> Result<(Arc<DynamicObject>, Driver), String> {
    for kind in [Kind::GatewayClass, Kind::Gateway] {
        installed(objects, kind)?;
    }
    let at = at(wanted);
    let gateway = objects
        .get(Kind::Gateway, Some(&wanted.namespace), &wanted.name)
        .ok_or_else(|| format!("{at} does not exist; create it, or correct the plan's placement"))?;
    let class = gateway.data["spec"]["gatewayClassName"].as_str().unwrap_or_default();
    let controller = objects
        .get(Kind::GatewayClass, None, class)
        .and_then(|c| c.data["spec"]["controllerName"].as_str().map(str::to_owned))
        .ok_or_else(|| format!("{at}: its GatewayClass {class} does not exist"))?;
    let driver = match wanted.driver {
        GatewayDriver::EnvoyGateway => Driver::EnvoyGateway,
        GatewayDriver::GatewayAPI => Driver::GatewayApi,
        GatewayDriver::Auto if controller == ENVOY_GATEWAY => Driver::EnvoyGateway,
        GatewayDriver::Auto => Driver::GatewayApi,
    };
    Ok((gateway, driver))
}

fn installed(objects: &Objects, kind: Kind) -> Result<(), String> {
    if objects.has(kind) {
        return Ok(());
    }
    Err(format!("the definition {} is not installed; install the Gateway API 1.6 and a gateway for it", kind.definition()))
}

fn read(object: &Value, wanted: &GatewayRef, base: &str, driver: Driver) -> Result<Gateway, String> {
    let programmed = condition(&object["status"]["conditions"], "Programmed");
    match programmed.map(|c| (&c["status"], c["message"].as_str().unwrap_or_default())) {
        Some((status, _)) if status == "True" => {}
        Some((_, message)) => return Err(format!("it is not programmed: {message}")),
        None => return Err("no controller has looked at it; is the gateway running?".into()),
    }
    let listeners = object["spec"]["listeners"].as_array().cloned().unwrap_or_default();
    let wildcard = format!("*.{base}");
    let listens = |protocol: &str, host: &dyn Fn(Option<&str>) -> bool| {
        listeners.iter().find(|l| l["protocol"] == protocol && host(l["hostname"].as_str()))
    };
    let shared = listens("HTTPS", &|h| h == Some(&wildcard))
        .or_else(|| listens("HTTPS", &|h| h.is_none()))
        .ok_or_else(|| format!("it has no HTTPS listener for {wildcard}; add one with that domain's certificate"))?;
    let http = listens("HTTP", &|h| h.is_none_or(|h| h == wildcard));
    let named = |listener: &Value| Listener {
        name: listener["name"].as_str().unwrap_or_default().to_owned(),
        port: listener["port"].as_u64().and_then(|p| u16::try_from(p).ok()).unwrap_or_default(),
    };
    let certificate = &shared["tls"]["certificateRefs"][0];
    let addresses = object["status"]["addresses"].as_array().into_iter().flatten().filter_map(|a| a["value"].as_str());
    let from = object["spec"]["allowedListeners"]["namespaces"]["from"].as_str();
    Ok(Gateway {
        name: wanted.name.clone(),
        namespace: wanted.namespace.clone(),
        driver,
        addresses: addresses.map(str::to_owned).collect(),
        shared: named(shared),
        shared_certificate: certificate["name"]
            .as_str()
            .map(|name| (certificate["namespace"].as_str().unwrap_or(&wanted.namespace).to_owned(), name.to_owned())),
        http: http.map(named),
        takes_listener_sets: from.is_some_and(|from| from != "None"),
        client_traffic: None,
        security: None,
    })
}

impl Gateway {
    /// Why the Gateway has no listener of one tenant's own, if so.
    pub fn refuses_listeners(&self) -> Option<String> {
        let at = format!("Gateway {}/{}", self.namespace, self.name);
        (!self.takes_listener_sets).then(|| format!("{at} takes no listeners of tenants; set spec.allowedListeners"))
    }

    /// Why a slug has no listener of its own there, which needs the certificate of the shared one, if so.
    pub fn refuses_listener_of_slug(&self) -> Option<String> {
        let named = || format!("the listener {} of Gateway {}/{} names no certificate", self.shared.name, self.namespace, self.name);
        self.refuses_listeners().or_else(|| self.shared_certificate.is_none().then(named))
    }

    /// Whether the shared listener reads a header of the PROXY protocol before everything else.
    pub fn reads_proxy_protocol(&self) -> bool {
        self.client_traffic.as_ref().is_some_and(|spec| spec["proxyProtocol"].is_object() || spec["enableProxyProtocol"] == true)
    }

    /// The lowest TLS version of the listener that all tenants share.
    pub fn shared_min_tls(&self) -> TlsVersion {
        let version = self.client_traffic.as_ref().and_then(|spec| spec["tls"]["minVersion"].as_str());
        if version == Some("1.3") { TlsVersion::V13 } else { TlsVersion::V12 }
    }

    /// Why the Gateway's settings would let a client bypass an address list: the Gateway hands on escaped or doubled
    /// slashes, so the app may read another path than the one that the Gateway checked.
    pub fn loose_paths(&self) -> Option<String> {
        let path = &self.client_traffic.as_ref()?["path"];
        let keeps = path["escapedSlashesAction"].as_str().is_some_and(|action| action == "KeepUnchanged");
        (keeps || path["disableMergeSlashes"] == true).then(|| {
            format!(
                "the ClientTrafficPolicy of Gateway {}/{} hands escaped or doubled slashes on as they are, which leads around lists of paths; remove spec.path from it",
                self.namespace, self.name
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reference() -> GatewayRef {
        GatewayRef { name: "edge".into(), namespace: "edge".into(), driver: GatewayDriver::Auto }
    }

    fn object() -> Value {
        json!({
            "spec": {
                "allowedListeners": {"namespaces": {"from": "Selector"}},
                "listeners": [
                    {"name": "http", "protocol": "HTTP", "port": 80},
                    {"name": "other", "protocol": "HTTPS", "port": 443, "hostname": "*.other.example"},
                    {"name": "wildcard", "protocol": "HTTPS", "port": 443, "hostname": "*.helpdesk.example",
                     "tls": {"certificateRefs": [{"name": "wildcard"}]}}]},
            "status": {"addresses": [{"value": "192.0.2.1"}], "conditions": [{"type": "Programmed", "status": "True"}]}
        })
    }

    #[test]
    fn the_listener_of_the_base_domain_is_the_shared_one() {
        let gateway = read(&object(), &reference(), "helpdesk.example", Driver::EnvoyGateway).unwrap();
        assert_eq!(gateway.shared, Listener { name: "wildcard".into(), port: 443 });
        assert_eq!(gateway.http, Some(Listener { name: "http".into(), port: 80 }));
        assert_eq!(gateway.shared_certificate, Some(("edge".into(), "wildcard".into())));
        assert!(gateway.takes_listener_sets);
    }

    #[test]
    fn a_gateway_without_a_listener_for_the_base_domain_says_so() {
        let why = read(&object(), &reference(), "third.example", Driver::EnvoyGateway).unwrap_err();
        assert!(why.contains("*.third.example"), "{why}");
    }

    #[test]
    fn a_gateway_that_nobody_looked_at_cannot_be_used() {
        let mut object = object();
        object["status"] = json!({});
        let why = read(&object, &reference(), "helpdesk.example", Driver::EnvoyGateway).unwrap_err();
        assert!(why.contains("is the gateway running?"), "{why}");
    }

    #[test]
    fn a_gateway_without_listeners_of_tenants_says_so_and_what_the_shared_one_accepts() {
        let mut closed = object();
        closed["spec"]["allowedListeners"] = json!({"namespaces": {"from": "None"}});
        let observed = |object: &Value, client_traffic| Gateway {
            client_traffic,
            ..read(object, &reference(), "helpdesk.example", Driver::EnvoyGateway).unwrap()
        };
        assert!(observed(&closed, None).refuses_listeners().unwrap().contains("set spec.allowedListeners"));
        assert_eq!(observed(&object(), None).refuses_listener_of_slug(), None);
        let strict = Some(json!({"tls": {"minVersion": "1.3"}}));
        assert_eq!(observed(&closed, strict).shared_min_tls(), TlsVersion::V13);
        assert_eq!(observed(&closed, None).shared_min_tls(), TlsVersion::V12);
    }

    #[test]
    fn a_gateway_that_keeps_escaped_slashes_is_told_apart() {
        let traffic = |path: Value| Some(json!({"path": path}));
        let read = || read(&object(), &reference(), "helpdesk.example", Driver::EnvoyGateway).unwrap();
        let loose = |client_traffic| Gateway { client_traffic, ..read() }.loose_paths().is_some();
        assert!(loose(traffic(json!({"escapedSlashesAction": "KeepUnchanged"}))));
        assert!(loose(traffic(json!({"disableMergeSlashes": true}))));
        assert!(!loose(traffic(json!({"escapedSlashesAction": "RejectRequest"}))));
        assert!(!loose(None));
    }
}
