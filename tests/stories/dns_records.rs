//! The DNS records that external-dns makes of a tenant's routes, by the rules that it publishes for its source
//! `gateway-httproute` with `--gateway-listener-sets`
//! (<https://kubernetes-sigs.github.io/external-dns/latest/docs/sources/gateway-api/>): each host name of a route that a
//! listener has, with the addresses of the Gateway behind that listener, once the route was accepted there.

use helpdesk_operator::edge::objects::Kind;
use kube::{Api, ResourceExt, api::DynamicObject};
use serde_json::Value;

use super::cluster::Cluster;

async fn all(cluster: &Cluster, kind: Kind) -> Vec<DynamicObject> {
    Api::all_with(cluster.client.clone(), &kind.resource()).list(&Default::default()).await.unwrap().items
}

fn holds(conditions: &Value, kind: &str) -> bool {
    conditions.as_array().is_some_and(|all| all.iter().any(|c| c["type"] == kind && c["status"] == "True"))
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn covers(listener: &Value, host: &str) -> bool {
    match listener["hostname"].as_str() {
        None => true,
        Some(name) => name == host || name.strip_prefix('*').is_some_and(|parent| host.ends_with(parent)),
    }
}

/// The addresses to which a host name would lead; none: it would have no record.
pub async fn records(cluster: &Cluster, host: &str) -> Vec<String> {
    let (gateways, sets) = (all(cluster, Kind::Gateway).await, all(cluster, Kind::ListenerSet).await);
    let find = |of: &[DynamicObject], namespace: &str, name: &Value| {
        of.iter().find(|o| o.namespace().as_deref() == Some(namespace) && name == &o.name_any()).cloned()
    };
    let mut found = vec![];
    for route in all(cluster, Kind::HttpRoute).await {
        if !array(&route.data["spec"]["hostnames"]).iter().any(|name| name == host) {
            continue;
        }
        let own = route.namespace().unwrap();
        for parent in array(&route.data["status"]["parents"]).iter().filter(|parent| holds(&parent["conditions"], "Accepted")) {
            let reference = &parent["parentRef"];
            let namespace = reference["namespace"].as_str().unwrap_or(&own);
            let (listeners, gateway) = if reference["kind"] == "ListenerSet" {
                let Some(set) =
                    find(&sets, namespace, &reference["name"]).filter(|set| holds(&set.data["status"]["conditions"], "Accepted"))
                else {
                    continue;
                };
                let of = &set.data["spec"]["parentRef"];
                let gateway = find(&gateways, of["namespace"].as_str().unwrap_or(namespace), &of["name"]);
                (set.data["spec"]["listeners"].clone(), gateway)
            } else {
                let gateway = find(&gateways, namespace, &reference["name"]);
                (gateway.as_ref().map_or(Value::Null, |gateway| gateway.data["spec"]["listeners"].clone()), gateway)
            };
            let section = &reference["sectionName"];
            let is_meant = |listener: &&Value| (section.is_null() || listener["name"] == *section) && covers(listener, host);
            if let Some(gateway) = gateway.filter(|_| array(&listeners).iter().any(|listener| is_meant(&listener))) {
                found.extend(array(&gateway.data["status"]["addresses"]).iter().filter_map(|a| a["value"].as_str().map(str::to_owned)));
            }
        }
    }
    found.sort();
    found.dedup();
    found
}
