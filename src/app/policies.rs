//! What bounds a tenant's app from outside of its pods: NetworkPolicies, ResourceQuota, PodDisruptionBudgets. Pure.

use serde_json::{Value, json};

use super::{
    mail::{LEARN_PORT, SUBMISSION_POD_PORT},
    object::{App, Kind, Object},
    pods::COMPONENT,
};
use crate::api::{help_desk_class::Component, plan::PlanApp};

/// The objects that have to be there before a pod runs.
pub(super) fn before_pods(app: &App<'_>) -> Vec<Object> {
    vec![default_deny(), network_policy(app), resource_quota(app.limits)]
}

/// No pod in the namespace is reached or reaches anything, unless another policy allows it.
fn default_deny() -> Object {
    Object {
        kind: Kind::NetworkPolicy,
        name: "default-deny".into(),
        body: json!({"spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}}),
    }
}

/// The labels of the mail intake's pods.
pub(super) fn mail_pods(namespace: &str) -> Value {
    json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "helpdesk-operator", "app.kubernetes.io/component": "mail"}},
    })
}

/// The gateway reaches the components that have routes, the mail intake the component that takes mail, the operator the one
/// that it asks whether the app is ready, the pods of one app reach each other, and they reach their database server, the
/// cluster's DNS and the mail intake. Nothing else. A policy knows no host names: a database server that has one, and is no Service of the
/// cluster, is allowed by its port alone.
fn network_policy(app: &App<'_>) -> Object {
    let is_published = |c: &&Component| app.class.routes.iter().any(|route| route.component == c.name);
    let published = app.class.components.iter().filter(is_published).filter_map(|c| c.port);
    let ports: Vec<_> = published.map(|port| json!({"protocol": "TCP", "port": port})).collect();
    let asked = app.class.readiness.as_ref().and_then(|shown| app.class.components.iter().find(|c| c.name == shown.component)?.port);
    let pods = json!({"matchExpressions": [{"key": COMPONENT, "operator": "Exists"}]});
    let from_gateway = app.gateway.map(|(name, namespace)| {
        json!({"ports": ports, "from": [{
            "namespaceSelector": {},
            "podSelector": {"matchLabels": {
                "gateway.envoyproxy.io/owning-gateway-name": name,
                "gateway.envoyproxy.io/owning-gateway-namespace": namespace,
            }},
        }]})
    });
    let from_operator = asked.map(|port| {
        json!({"ports": [{"protocol": "TCP", "port": port}], "from": [{
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": app.operator_namespace}},
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "helpdesk-operator", "app.kubernetes.io/component": "operator"}},
        }]})
    });
    let component = app.class.mail.as_ref().map(|mail| mail.intake.component.as_str());
    let mail_port = app.class.components.iter().find(|c| Some(c.name.as_str()) == component).and_then(|c| c.port);
    let from_mail = mail_port
        .zip(app.mail)
        .map(|(port, mail)| json!({"ports": [{"protocol": "TCP", "port": port}], "from": [mail_pods(mail.namespace)]}));
    let to_mail = app.mail.filter(|_| app.class.mail.is_some());
    let mail_ports = [LEARN_PORT, SUBMISSION_POD_PORT].map(|port| json!({"protocol": "TCP", "port": port}));
    let to_mail = to_mail.map(|mail| json!({"ports": mail_ports, "to": [mail_pods(mail.namespace)]}));
    let (host, port) = app.database;
    let mut to_database = json!({"ports": [{"protocol": "TCP", "port": port}]});
    if let Ok(address) = host.parse::<std::net::IpAddr>() {
        let length = if address.is_ipv4() { 32 } else { 128 };
        to_database["to"] = json!([{"ipBlock": {"cidr": format!("{address}/{length}")}}]);
    } else if let Some((_, namespace)) = host.trim_end_matches(".cluster.local").strip_suffix(".svc").and_then(|h| h.rsplit_once('.')) {
        to_database["to"] = json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}]);
    }
    let dns = json!({"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]});
    let egress: Vec<_> = [to_database, dns, json!({"to": [{"podSelector": pods}]})].into_iter().chain(to_mail).collect();
    Object {
        kind: Kind::NetworkPolicy,
        name: "app".into(),
        body: json!({"spec": {
            "podSelector": pods,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": from_gateway.into_iter().chain(from_operator).chain(from_mail).chain([json!({"from": [{"podSelector": pods}]})]).collect::<Vec<_>>(),
            "egress": egress,
        }}),
    }
}

/// No storage that no backup has, no address of its own on a node or a load balancer, and the limits of the plan.
fn resource_quota(limits: &PlanApp) -> Object {
    let mut hard = json!({"persistentvolumeclaims": "0", "services.nodeports": "0", "services.loadbalancers": "0"});
    let limited = [
        ("requests.cpu", limits.max_cpu.clone()),
        ("limits.memory", limits.max_memory.clone()),
        ("pods", limits.max_pods.map(|pods| pods.to_string())),
    ];
    for (resource, limit) in limited {
        if let Some(limit) = limit {
            hard[resource] = Value::String(limit);
        }
    }
    Object { kind: Kind::ResourceQuota, name: "app".into(), body: json!({"spec": {"hard": hard}}) }
}

/// Where a component has several pods, nodes are drained one pod at a time.
pub(super) fn disruption_budget(component: &Component) -> Option<Object> {
    component.workload.as_ref().filter(|workload| workload.replicas > 1)?;
    Some(Object {
        kind: Kind::PodDisruptionBudget,
        name: component.name.clone(),
        body: json!({"spec": {"maxUnavailable": 1, "selector": {"matchLabels": {COMPONENT: component.name}}}}),
    })
}
