//! The security policy of a tenant's routes, from plan, account and class. Pure.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use crate::api::{Audience, HelpDeskClassSpec, Oidc, PlanSecurity, SecondFactor, TlsVersion, account::Security};

/// The security policy of a tenant's routes.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The lowest TLS version that is accepted.
    pub min_tls: TlsVersion,
    /// The client addresses of agents; `None`: any address; an empty list: no address.
    pub agents_from: Option<Vec<IpNet>>,
    /// The OpenID provider that asks agents for a second factor at the gateway.
    pub oidc: Option<Oidc>,
    /// The authority of the client certificates that agents must show.
    pub client_ca: Option<ClientAuthority>,
    /// The limits of API paths.
    pub api: ApiLimits,
}

/// The authority of agents' client certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuthority {
    /// Its certificates, as PEM.
    pub certificates: String,
    /// Its lists of revoked certificates, as PEM.
    pub revoked: Option<String>,
}

/// What the gateway takes at most on a tenant's API paths.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiLimits {
    /// Requests per minute of all clients together.
    pub requests_per_minute: i32,
    /// Requests per minute with one credential.
    pub requests_per_minute_per_credential: i32,
    /// The size of a body, as a quantity of Kubernetes.
    pub max_body: String,
}

impl Policy {
    /// Whether the policy restricts agents' paths.
    pub fn guards_agents(&self) -> bool {
        self.agents_from.is_some() || self.oidc.is_some() || self.client_ca.is_some()
    }
}

/// A policy, and messages about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The policy.
    pub policy: Policy,
    /// Settings that the operator read otherwise than they are written, for people.
    pub notes: Vec<String>,
    /// Requirements that nothing can enforce. While there is one, the operator must not publish the account's routes.
    pub unkeepable: Vec<String>,
}

/// Which policies the driver of a gateway can enforce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The driver's name, for people.
    pub driver: &'static str,
    /// Letting in agents from listed addresses only.
    pub address_lists: bool,
    /// A lowest TLS version for one host name, above the Gateway's.
    pub tls_versions: bool,
    /// A second factor for agents by OpenID Connect.
    pub second_factor: bool,
    /// Client certificates for agents.
    pub client_certificates: bool,
}

/// The account's policy. The account's settings can make the plan's stricter, never looser.
pub fn of(plan: &PlanSecurity, account: Option<&Security>, class: &HelpDeskClassSpec, can: &Capabilities) -> Outcome {
    let (mut notes, mut unkeepable) = (vec![], vec![]);
    let min_tls = account.and_then(|a| a.min_tls).unwrap_or_default().max(plan.min_tls);
    let floor = merged("the plan's agentAllow", &plan.agent_allow, &mut notes);
    let asked = account.and_then(|a| merged("agentAllow", &a.agent_allow, &mut notes));
    let agents_from = match (floor, asked) {
        (Some(floor), Some(asked)) => Some(both(&floor, &asked)),
        (floor, asked) => floor.or(asked),
    };
    let second_factor = plan.needs_second_factor(account.and_then(|a| a.require_totp));
    let at_the_gateway = second_factor && class.capabilities.totp != SecondFactor::App;
    if at_the_gateway && plan.oidc.is_none() {
        unkeepable.push(format!(
            "requireTotp: the app {} asks for no second factor and the plan names no provider that does; set spec.security.oidc in the plan",
            class.app.name
        ));
    }
    if at_the_gateway && plan.oidc.as_ref().is_some_and(|oidc| oidc.account_claim.is_none()) {
        notes.push("requireTotp: agents of other accounts with this provider pass the gateway, too; set spec.security.oidc.accountClaim in the plan".into());
    }
    let policy = Policy {
        min_tls,
        agents_from,
        oidc: plan.oidc.clone().filter(|_| at_the_gateway),
        client_ca: account.and_then(|a| {
            a.agent_client_ca.clone().map(|certificates| ClientAuthority { certificates, revoked: a.agent_client_crl.clone() })
        }),
        api: ApiLimits {
            requests_per_minute: plan.api_requests_per_minute,
            requests_per_minute_per_credential: plan.api_requests_per_minute_per_credential,
            max_body: plan.api_max_body.clone(),
        },
    };
    let agents = class.routes.iter().any(|r| r.audience == Audience::Agent);
    let wants = [
        (policy.agents_from.is_some() && agents && !can.address_lists, "agentAllow: a list of addresses"),
        (policy.min_tls > TlsVersion::V12 && !can.tls_versions, "minTls: a TLS version for one tenant"),
        (policy.oidc.is_some() && agents && !can.second_factor, "requireTotp: a second factor"),
        (policy.client_ca.is_some() && agents && !can.client_certificates, "agentClientCA: client certificates"),
    ];
    unkeepable.extend(wants.iter().filter(|w| w.0).map(|w| format!("{} cannot be kept by the driver {} of this Gateway", w.1, can.driver)));
    Outcome { policy, notes, unkeepable }
}

/// Parses the ranges, clears their host bits, and merges those that overlap or adjoin. `None` if the list is empty.
fn merged(field: &str, ranges: &[String], notes: &mut Vec<String>) -> Option<Vec<IpNet>> {
    if ranges.is_empty() {
        return None;
    }
    let mut read: Vec<IpNet> = vec![];
    for text in ranges {
        // The schema rejects an invalid range. One that still gets here lets nobody in.
        let Ok(range) = text.parse::<IpNet>() else {
            notes.push(format!("{field}: {text} is not understood and lets nobody in"));
            continue;
        };
        let plain = unmapped(range.trunc());
        if plain.to_string() != *text {
            notes.push(format!("{field}: {text} is read as {plain}"));
        }
        read.push(plain);
    }
    let kept = IpNet::aggregate(&read);
    for range in &read {
        if let Some(wider) = kept.iter().find(|k| k.contains(range) && *k != range) {
            notes.push(format!("{field}: {range} is part of {wider}"));
        }
    }
    Some(kept)
}

/// Turns a range of IPv4-mapped IPv6 addresses into IPv4, because the gateway sees such clients with IPv4 addresses.
fn unmapped(range: IpNet) -> IpNet {
    match range {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => Ipv4Net::new(v4, v6.prefix_len() - 96).map_or(range, IpNet::V4),
            None => range,
        },
        _ => range,
    }
}

/// The intersection of two lists.
fn both(one: &[IpNet], other: &[IpNet]) -> Vec<IpNet> {
    let mut common: Vec<IpNet> = vec![];
    for a in one {
        common.extend(other.iter().filter_map(|b| match (a.contains(b), b.contains(a)) {
            (true, _) => Some(*b),
            (_, true) => Some(*a),
            _ => None,
        }));
    }
    IpNet::aggregate(&common)
}

/// Whether the address list lets this client in to agents' paths.
pub fn lets_in(agents_from: Option<&[IpNet]>, client: IpAddr) -> bool {
    agents_from.is_none_or(|ranges| ranges.iter().any(|r| r.contains(&client)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENVOY: Capabilities =
        Capabilities { driver: "EnvoyGateway", address_lists: true, tls_versions: true, second_factor: true, client_certificates: true };
    const PLAIN: Capabilities =
        Capabilities { driver: "GatewayAPI", address_lists: false, tls_versions: false, second_factor: false, client_certificates: false };

    fn class() -> HelpDeskClassSpec {
        serde_json::from_value(serde_json::json!({
            "app": {"name": "desk", "version": "1"}, "components": [{"name": "web", "port": 80}],
            "routes": [{"path": "/", "component": "web", "audience": "agent"}, {"path": "/help", "component": "web", "audience": "public"}]
        }))
        .unwrap()
    }

    fn policy(plan: &[&str], account: &[&str]) -> Outcome {
        let list = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect();
        let plan = PlanSecurity { agent_allow: list(plan), ..PlanSecurity::default() };
        of(&plan, Some(&Security { agent_allow: list(account), ..Security::default() }), &class(), &ENVOY)
    }

    fn ranges(outcome: &Outcome) -> Option<Vec<String>> {
        outcome.policy.agents_from.as_ref().map(|r| r.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn without_any_list_agents_come_from_anywhere() {
        assert_eq!(ranges(&policy(&[], &[])), None);
    }

    #[test]
    fn an_account_narrows_its_plan() {
        assert_eq!(ranges(&policy(&["10.0.0.0/8"], &["10.1.0.0/16"])), Some(vec!["10.1.0.0/16".into()]));
        assert_eq!(ranges(&policy(&["10.0.0.0/8"], &[])), Some(vec!["10.0.0.0/8".into()]));
        assert_eq!(ranges(&policy(&[], &["10.1.0.0/16"])), Some(vec!["10.1.0.0/16".into()]));
    }

    #[test]
    fn lists_without_anything_in_common_let_nobody_in() {
        let outcome = policy(&["10.0.0.0/8"], &["192.0.2.0/24"]);
        assert_eq!(ranges(&outcome), Some(vec![]));
        assert!(!lets_in(outcome.policy.agents_from.as_deref(), "10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_plan_that_was_tightened_later_cuts_what_an_account_wrote_before() {
        assert_eq!(ranges(&policy(&["10.1.0.0/16"], &["10.0.0.0/8", "2001:db8::/32"])), Some(vec!["10.1.0.0/16".into()]));
    }

    #[test]
    fn ranges_with_host_bits_and_ranges_inside_others_are_explained() {
        let outcome = policy(&[], &["198.51.100.7/24", "198.51.100.128/25", "2001:DB8::/48", "::ffff:192.0.2.0/120"]);
        assert_eq!(ranges(&outcome), Some(vec!["192.0.2.0/24".into(), "198.51.100.0/24".into(), "2001:db8::/48".into()]));
        let notes = outcome.notes.join("; ");
        for part in
            ["198.51.100.7/24 is read as 198.51.100.0/24", "198.51.100.128/25 is part of 198.51.100.0/24", "is read as 192.0.2.0/24"]
        {
            assert!(notes.contains(part), "{notes}");
        }
    }

    #[test]
    fn a_range_that_is_not_understood_opens_nothing() {
        assert_eq!(ranges(&policy(&[], &["nonsense"])), Some(vec![]));
    }

    #[test]
    fn a_driver_says_what_it_cannot_keep() {
        let account = Security {
            agent_allow: vec!["10.0.0.0/8".into()],
            min_tls: Some(TlsVersion::V13),
            agent_client_ca: Some("pem".into()),
            ..Security::default()
        };
        let outcome = of(&PlanSecurity::default(), Some(&account), &class(), &PLAIN);
        assert_eq!(outcome.unkeepable.len(), 3, "{:?}", outcome.unkeepable);
        assert!(of(&PlanSecurity::default(), Some(&account), &class(), &ENVOY).unkeepable.is_empty());
    }

    #[test]
    fn a_second_factor_that_nobody_asks_for_is_unkeepable() {
        let account = Security { require_totp: Some(true), ..Security::default() };
        let outcome = of(&PlanSecurity::default(), Some(&account), &class(), &ENVOY);
        assert!(outcome.unkeepable[0].contains("requireTotp"), "{:?}", outcome.unkeepable);
        let mut own = class();
        own.capabilities.totp = SecondFactor::App;
        let outcome = of(&PlanSecurity::default(), Some(&account), &own, &ENVOY);
        assert!(outcome.unkeepable.is_empty() && outcome.policy.oidc.is_none());
    }
}
