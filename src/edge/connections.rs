//! Connections that a stricter policy has to end. A gateway asks a policy when a request begins; a WebSocket or an event
//! stream that is open by then goes on, so the app's pods behind it are ended. Pure.

use ipnet::IpNet;
use serde_json::Value;

use super::{envoy_gateway::AGENTS, objects::Kind, site::WEB, site::Wanted};
use crate::clock::Moment;

/// Notes on the policy of agents' paths, where it gets stricter, that older connections are to be ended. What was noted
/// before and is not done yet stays. `published` finds what the cluster has.
///
/// Returns the time before which such a connection may have been opened.
pub fn to_end(wanted: &mut [Wanted], published: impl Fn(Kind, &str) -> Option<Published>, now: Moment) -> Option<Moment> {
    let policy = wanted.iter_mut().find(|one| one.kind == Kind::SecurityPolicy && one.name == AGENTS)?;
    let before = published(Kind::SecurityPolicy, AGENTS);
    let leads_to_app = || published(Kind::HttpRoute, WEB).is_some_and(|route| leads_agents_to_app(&route.spec));
    policy.end_connections_before = if is_stricter(before.as_ref().map(|found| &found.spec), &policy.spec) && leads_to_app() {
        Some(now)
    } else {
        before.and_then(|found| found.end_connections_before)
    };
    policy.end_connections_before
}

/// The state of an object in the cluster.
pub struct Published {
    /// Its spec.
    pub spec: Value,
    /// What is noted on it.
    pub end_connections_before: Option<Moment>,
}

fn leads_agents_to_app(route: &Value) -> bool {
    let is_agents = |rule: &&Value| rule["name"].as_str().is_some_and(|name| name.starts_with("agents-"));
    route["rules"].as_array().into_iter().flatten().filter(is_agents).any(|rule| !rule["backendRefs"].is_null())
}

/// Whether a policy refuses an agent whom the one before let in; `None`: there was none, and it let everybody in.
fn is_stricter(before: Option<&Value>, after: &Value) -> bool {
    let (before, after) = (before.map_or_else(Admission::everybody, Admission::of), Admission::of(after));
    let narrower = match (&before.from, &after.from) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(before), Some(after)) => before.iter().any(|range| !after.iter().any(|wider| wider.contains(range))),
    };
    let another_login = !after.login[0].is_null() && before.login != after.login;
    narrower || another_login || (after.certificate && !before.certificate)
}

/// Whom a policy of agents' paths lets in.
struct Admission {
    /// From these addresses; `None`: from everywhere.
    from: Option<Vec<IpNet>>,
    /// After this login, with these claims.
    login: [Value; 2],
    /// With a client certificate.
    certificate: bool,
}

impl Admission {
    const fn everybody() -> Self {
        Self { from: None, login: [Value::Null, Value::Null], certificate: false }
    }

    fn of(spec: &Value) -> Self {
        // Rules of the platform come before.
        let rules = spec["authorization"]["rules"].as_array();
        let rule = rules.and_then(|rules| rules.iter().find(|rule| rule["action"] == "Allow")).unwrap_or(&Value::Null);
        let ranges = |list: &Vec<Value>| list.iter().filter_map(|range| range.as_str()?.parse().ok()).collect();
        Self {
            from: if rule.is_null() { Some(vec![]) } else { rule["principal"]["clientCIDRs"].as_array().map(ranges) },
            login: [spec["jwt"].clone(), rule["principal"]["jwt"].clone()],
            certificate: !rule["cel"].is_null(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(rule: Value) -> Value {
        json!({"authorization": {"defaultAction": "Deny", "rules": [rule]}})
    }

    fn from(ranges: &[&str]) -> Value {
        policy(json!({"action": "Allow", "principal": {"clientCIDRs": ranges}}))
    }

    #[test]
    fn a_policy_is_stricter_if_it_refuses_somebody_whom_the_one_before_let_in() {
        assert!(is_stricter(None, &from(&["10.0.0.0/8"])));
        assert!(is_stricter(Some(&from(&["10.0.0.0/8"])), &from(&["10.1.0.0/16"])));
        assert!(is_stricter(Some(&from(&["10.0.0.0/8", "192.0.2.0/24"])), &from(&["10.0.0.0/8"])));
        assert!(is_stricter(Some(&from(&["10.0.0.0/8"])), &json!({"authorization": {"defaultAction": "Deny", "rules": []}})));
        assert!(is_stricter(
            Some(&from(&["10.0.0.0/8"])),
            &policy(json!({"action": "Allow", "principal": {"clientCIDRs": ["10.0.0.0/8"]}, "cel": "connection.mtls"}))
        ));
        let mut login = from(&["10.0.0.0/8"]);
        login["jwt"] = json!({"providers": [{"name": "agents"}]});
        assert!(is_stricter(Some(&from(&["10.0.0.0/8"])), &login));
    }

    #[test]
    fn a_wider_policy_ends_nothing() {
        assert!(!is_stricter(Some(&from(&["10.1.0.0/16"])), &from(&["10.0.0.0/8"])));
        assert!(!is_stricter(Some(&from(&["10.1.0.0/16"])), &from(&["10.1.0.0/16"])));
        assert!(!is_stricter(Some(&from(&["10.1.0.0/16"])), &policy(json!({"name": "agents", "action": "Allow"}))));
    }

    #[test]
    fn a_stricter_policy_is_noted_until_it_is_done_and_only_where_agents_were_led_to_the_app() {
        let now: Moment = "2026-11-27T10:00:00Z".parse().unwrap();
        let later: Moment = "2026-11-27T10:00:09Z".parse().unwrap();
        let wanted = |spec: Value| Wanted::new(Kind::SecurityPolicy, "t", AGENTS, spec);
        let route = |rule: Value| Published { spec: json!({"rules": [rule]}), end_connections_before: None };
        let to_app = || route(json!({"name": "agents-web", "backendRefs": [{"name": "web"}]}));
        let at = |spec: Value, noted: Option<Moment>, route: &dyn Fn() -> Published, now: Moment| {
            let mut all = [wanted(from(&["10.1.0.0/16"]))];
            let published = |kind: Kind, _: &str| match kind {
                Kind::HttpRoute => Some(route()),
                _ => Some(Published { spec: spec.clone(), end_connections_before: noted }),
            };
            let told = to_end(&mut all, published, now);
            assert_eq!(all[0].end_connections_before, told);
            told
        };
        assert_eq!(at(from(&["10.0.0.0/8"]), None, &to_app, now), Some(now));
        assert_eq!(at(from(&["10.1.0.0/16"]), Some(now), &to_app, later), Some(now), "it is not done yet");
        assert_eq!(at(from(&["10.1.0.0/16"]), None, &to_app, later), None);
        let preparing = || route(json!({"name": "agents-web", "filters": [{"type": "ExtensionRef"}]}));
        assert_eq!(at(from(&["10.0.0.0/8"]), None, &preparing, now), None, "nobody could get to the app");
    }
}
