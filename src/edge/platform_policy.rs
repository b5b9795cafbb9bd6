//! The platform's own policies for a Gateway: which one Envoy Gateway applies, and how a tenant's policy keeps it. Pure.
//!
//! A policy of a route replaces the one of its Gateway, whatever that one said. With `mergeType` the two are merged, but a
//! list of rules is replaced as a whole, so that the tenant's has to begin with the platform's.

use std::sync::Arc;

use kube::{ResourceExt, core::DynamicObject};
use serde_json::{Value, json};

/// The policy that Envoy Gateway applies to a listener: one for this listener before one for the whole Gateway, and of
/// several the oldest.
pub fn of_listener(policies: Vec<Arc<DynamicObject>>, gateway: &DynamicObject, listener: &str) -> Option<Arc<DynamicObject>> {
    let rank = |policy: &Arc<DynamicObject>| targets(&policy.data["spec"], gateway, listener);
    let age = |policy: &Arc<DynamicObject>| (policy.metadata.creation_timestamp.as_ref().map(|at| at.0), policy.name_any());
    let fitting = policies.into_iter().filter_map(|policy| Some((rank(&policy)?, age(&policy), policy)));
    fitting.min_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1))).map(|(_, _, policy)| policy)
}

/// How closely a policy targets a listener.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Closeness {
    Listener,
    Gateway,
}

fn targets(spec: &Value, gateway: &DynamicObject, listener: &str) -> Option<Closeness> {
    let name = gateway.name_any();
    let of_reference = |target: &Value| {
        if target["kind"] != "Gateway" || target["name"] != name.as_str() {
            return None;
        }
        match target["sectionName"].as_str() {
            None => Some(Closeness::Gateway),
            Some(section) => (section == listener).then_some(Closeness::Listener),
        }
    };
    let references = spec["targetRefs"].as_array().into_iter().flatten().chain([&spec["targetRef"]]).filter_map(of_reference);
    let selected = spec["targetSelectors"].as_array().into_iter().flatten().any(|selector| selects(selector, gateway));
    references.chain(selected.then_some(Closeness::Gateway)).min()
}

/// Whether a selector of targets has this Gateway.
fn selects(selector: &Value, gateway: &DynamicObject) -> bool {
    let labels = gateway.labels();
    let has = |key: &str, value: &Value| labels.get(key).map(String::as_str) == value.as_str();
    let expression = |one: &Value| {
        let found = one["key"].as_str().and_then(|key| labels.get(key));
        let listed = || one["values"].as_array().into_iter().flatten().any(|value| value.as_str() == found.map(String::as_str));
        match one["operator"].as_str() {
            Some("In") => found.is_some() && listed(),
            Some("NotIn") => found.is_none() || !listed(),
            Some("Exists") => found.is_some(),
            Some("DoesNotExist") => found.is_none(),
            _ => false,
        }
    };
    selector["kind"] == "Gateway"
        && selector["matchLabels"].as_object().into_iter().flatten().all(|(key, value)| has(key, value))
        && selector["matchExpressions"].as_array().into_iter().flatten().all(expression)
}

/// A tenant's policy that keeps the platform's: `spec` allows or denies, and what the platform denies stays denied.
pub fn kept(platform: Option<&Value>, mut spec: Value) -> Value {
    let Some(platform) = platform else { return spec };
    spec["mergeType"] = json!("StrategicMerge");
    let theirs = &platform["authorization"];
    if spec["authorization"]["defaultAction"] == "Allow" {
        if theirs.is_object() {
            spec["authorization"] = theirs.clone();
        }
    } else if let Some(rules) = spec["authorization"]["rules"].as_array().filter(|rules| !rules.is_empty()) {
        let both: Vec<Value> = theirs["rules"].as_array().into_iter().flatten().chain(rules).cloned().collect();
        spec["authorization"]["rules"] = json!(both);
    }
    spec
}

/// Why a tenant's policy for agents cannot keep the platform's, if so; `asks_login`: it asks for a login itself.
pub fn conflict(platform: &Value, asks_login: bool) -> Option<String> {
    let theirs = &platform["authorization"];
    let allows = |rule: &Value| rule["action"] != "Deny";
    // Without a default action it denies.
    let by_list = theirs["defaultAction"] != "Allow" || theirs["rules"].as_array().into_iter().flatten().any(allows);
    if theirs.is_object() && by_list {
        return Some(
            "it lets in by rules, and whoever it lets in would get past agentAllow; let it deny by rules, and allow the rest".into(),
        );
    }
    let logins: Vec<&str> = ["oidc", "jwt"].into_iter().filter(|section| asks_login && !platform[section].is_null()).collect();
    (!logins.is_empty()).then(|| format!("its {} would be replaced by that of requireTotp", logins.join(" and ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::objects::Kind;

    fn gateway() -> DynamicObject {
        let mut gateway = DynamicObject::new("edge", &Kind::Gateway.resource());
        gateway.metadata.labels = Some([("tier".to_owned(), "public".to_owned())].into());
        gateway
    }

    fn policy(name: &str, created: &str, spec: Value) -> Arc<DynamicObject> {
        let mut policy = DynamicObject::new(name, &Kind::SecurityPolicy.resource()).data(json!({"spec": spec}));
        policy.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(created.parse().unwrap()));
        Arc::new(policy)
    }

    fn chosen(policies: &[Arc<DynamicObject>]) -> Option<String> {
        of_listener(policies.to_vec(), &gateway(), "wildcard").map(|policy| policy.name_any())
    }

    #[test]
    fn the_policy_of_the_listener_comes_before_the_gateways_and_the_oldest_before_others() {
        let whole = json!({"targetRefs": [{"kind": "Gateway", "name": "edge"}]});
        let of = |section: &str| json!({"targetRef": {"kind": "Gateway", "name": "edge", "sectionName": section}});
        let old = policy("old", "2026-01-01T00:00:00Z", whole.clone());
        let new = policy("new", "2026-02-01T00:00:00Z", whole);
        let listeners = policy("listeners", "2026-03-01T00:00:00Z", of("wildcard"));
        let other = policy("other", "2025-01-01T00:00:00Z", of("other"));
        assert_eq!(chosen(&[new.clone(), old.clone(), listeners, other.clone()]).as_deref(), Some("listeners"));
        assert_eq!(chosen(&[new, old, other.clone()]).as_deref(), Some("old"));
        assert_eq!(chosen(&[other]), None);
    }

    #[test]
    fn a_policy_that_selects_by_labels_is_found() {
        let by = |selector: Value| [policy("by-label", "2026-01-01T00:00:00Z", json!({"targetSelectors": [selector]}))];
        assert!(chosen(&by(json!({"kind": "Gateway", "matchLabels": {"tier": "public"}}))).is_some());
        assert!(
            chosen(&by(json!({"kind": "Gateway", "matchExpressions": [{"key": "tier", "operator": "In", "values": ["public"]}]})))
                .is_some()
        );
        assert!(chosen(&by(json!({"kind": "Gateway", "matchLabels": {"tier": "inner"}}))).is_none());
        assert!(chosen(&by(json!({"kind": "HTTPRoute", "matchLabels": {"tier": "public"}}))).is_none());
    }

    #[test]
    fn what_the_platform_denies_stays_denied() {
        let deny = json!({"name": "bad", "action": "Deny", "principal": {"clientCIDRs": ["192.0.2.0/24"]}});
        let platform =
            json!({"authorization": {"defaultAction": "Allow", "rules": [deny]}, "cors": {"allowOrigins": ["https://a.example"]}});
        let open = kept(Some(&platform), json!({"authorization": {"defaultAction": "Allow"}}));
        assert_eq!((&open["authorization"], &open["mergeType"]), (&platform["authorization"], &json!("StrategicMerge")));
        let ours = json!({"name": "agents", "action": "Allow"});
        let agents = kept(Some(&platform), json!({"authorization": {"defaultAction": "Deny", "rules": [ours]}}));
        assert_eq!(agents["authorization"], json!({"defaultAction": "Deny", "rules": [deny, ours]}));
        let shut = json!({"authorization": {"defaultAction": "Deny"}});
        assert_eq!(kept(Some(&platform), shut.clone())["authorization"], shut["authorization"]);
        assert_eq!(kept(None, shut.clone()), shut);
        assert_eq!(conflict(&platform, true), None);
    }

    #[test]
    fn a_policy_of_the_platform_that_cannot_be_kept_is_told() {
        let list = json!({"authorization": {"defaultAction": "Deny", "rules": [{"action": "Allow"}]}});
        assert!(conflict(&list, false).unwrap().contains("agentAllow"));
        assert!(conflict(&json!({"jwt": {}}), true).unwrap().contains("requireTotp"));
        assert_eq!(conflict(&json!({"jwt": {}}), false), None);
    }
}
