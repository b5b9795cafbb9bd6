//! Whether a tenant's addresses answer as they should, seen from outside.

use std::collections::BTreeMap;

use super::{
    certificate::Leaf,
    gateway::Driver,
    policy::{self, Policy},
    probe::{self, Offer, Trouble},
    site::{Answer, Site},
};
use crate::api::{Audience, account::TlsVersion, help_desk_class::Route};

/// What was seen to be wrong.
#[derive(Debug)]
pub struct Wrong {
    /// One word for programs.
    pub reason: &'static str,
    /// A sentence for people.
    pub why: String,
}

/// Asks every address; says what is wrong with the first that does not answer as it should.
pub async fn look(site: &Site<'_>, leaves: &BTreeMap<String, Leaf>, policy: Option<&Policy>) -> Option<Wrong> {
    let gateway = site.gateway;
    let wrong = |host: &str, why: String| Some(Wrong { reason: "AnswersWrong", why: format!("{host} {why}") });
    let hosts = || site.shared.iter().chain(site.own.iter().map(|o| &o.host));
    for host in hosts() {
        let ask = |path: &'static str, offer| probe::https(&gateway.addresses, gateway.shared.port, host, path, offer);
        let answer = match ask("/", Offer::All).await {
            Ok(answer) => answer,
            Err(trouble @ Trouble::Unreachable(_)) => return Some(Wrong { reason: "Unreachable", why: format!("{host} {trouble}") }),
            Err(trouble) => return wrong(host, trouble.to_string()),
        };
        let Some(leaf) = &answer.leaf else { return wrong(host, "showed no certificate".into()) };
        let other = leaves.get(host).is_some_and(|expected| expected.der != leaf.der);
        if other || !leaf.covers(host) {
            return wrong(host, format!("showed another certificate, for {}", leaf.names.join(", ")));
        }
        if site.min_tls > TlsVersion::V12 && !matches!(ask("/", Offer::Old).await, Err(Trouble::Handshake(_))) {
            return wrong(host, "takes a TLS version that is too old".into());
        }
        match (&site.answer, policy) {
            (Answer::Suspended(_), _) => {
                let suspended = |status: u16| if gateway.driver == Driver::GatewayApi { status >= 500 } else { status == 503 };
                let deep = ask("/any/where", Offer::All).await.map(|a| a.status).unwrap_or_default();
                if !suspended(answer.status) || !suspended(deep) {
                    return wrong(host, format!("answers {} and not that the account is suspended", answer.status));
                }
            }
            (Answer::App { class, .. }, Some(policy)) => {
                if let Some(why) = open_answers(site, host, &class.routes, policy).await {
                    return wrong(host, why);
                }
            }
            (Answer::App { .. }, None) => {}
        }
        if let Some(http) = &gateway.http
            && let Ok(plain) = probe::http(&gateway.addresses, http.port, host, "/").await
        {
            let suspended = matches!(site.answer, Answer::Suspended(_));
            let redirects = plain.location.as_ref().is_some_and(|to| to.starts_with("https://"));
            if (suspended && plain.status < 500) || (!suspended && !redirects) {
                return wrong(host, format!("answers {} on plain HTTP", plain.status));
            }
        }
    }
    None
}

/// Whether an open address keeps agents' and programs' paths as the policy says.
async fn open_answers(site: &Site<'_>, host: &str, routes: &[Route], policy: &Policy) -> Option<String> {
    let gateway = site.gateway;
    for route in routes {
        let path = &route.path;
        let answer = match probe::https(&gateway.addresses, gateway.shared.port, host, path, Offer::All).await {
            Ok(answer) => answer,
            Err(trouble) => return Some(trouble.to_string()),
        };
        match route.audience {
            Audience::Api if gateway.driver == Driver::EnvoyGateway && answer.status != 401 => {
                return Some(format!("answers {} at {path} to a request without credentials", answer.status));
            }
            Audience::Agent if policy.guards_agents() => {
                let may =
                    policy::lets_in(policy.agents_from.as_deref(), answer.from) && policy.oidc.is_none() && policy.client_ca.is_none();
                let refused = matches!(answer.status, 302 | 401 | 403);
                if !may && !refused {
                    return Some(format!("lets {} in to agents' path {path} ({})", answer.from, answer.status));
                }
            }
            Audience::Public | Audience::Agent if answer.status >= 500 => return Some(format!("answers {} at {path}", answer.status)),
            Audience::Public | Audience::Agent | Audience::Api => {}
        }
    }
    None
}
