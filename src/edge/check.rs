//! Checks from outside whether each of a tenant's host names answers as it should.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    certificate::Leaf,
    gateway::Driver,
    policy::{self, Policy},
    probe::{self, Offer, ProbeError, Target},
    site::{Answer, Site},
};
use crate::{
    api::{Audience, TlsVersion, help_desk_class::Route},
    prober::{self, Mismatch},
};

/// How long one check may take in all. A host that answers, but slowly, must not occupy a worker for long.
const LONGEST: Duration = Duration::from_secs(20);

/// The state that a check expects from outside. It has all inputs of the check, so that a worker can run it later.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The namespace and name of the Gateway, separated by a slash.
    pub gateway: String,
    /// The driver that writes its objects.
    pub driver: Driver,
    /// Where the check connects to.
    pub target: Target,
    /// The port for HTTPS.
    pub port: u16,
    /// The port for plain HTTP, if there is one.
    pub plain_port: Option<u16>,
    /// The host names to check.
    pub hosts: Vec<String>,
    /// The certificates of host names that have their own.
    pub leaves: BTreeMap<String, Leaf>,
    /// The lowest TLS version that the gateway may accept.
    pub min_tls: TlsVersion,
    /// What must answer requests.
    pub answer: Expected,
}

/// What must answer requests.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// The app, for clients that the policy lets in.
    App {
        /// The class's routes, each with its audience.
        routes: Vec<Route>,
        /// The policy to check; `None`: the paths are not checked.
        policy: Option<Box<Policy>>,
    },
    /// The response that the account is suspended.
    Suspended,
}

impl prober::View for View {
    fn group(&self) -> &str {
        &self.gateway
    }
}

impl View {
    /// The expected state of a site. A suspended site has no policy to check.
    pub fn of(site: &Site<'_>, leaves: &BTreeMap<String, Leaf>, policy: Option<&Policy>) -> Self {
        let gateway = site.gateway;
        Self {
            gateway: format!("{}/{}", gateway.namespace, gateway.name),
            driver: gateway.driver,
            target: Target { addresses: gateway.addresses.clone(), proxy_protocol: gateway.reads_proxy_protocol() },
            port: gateway.shared.port,
            plain_port: gateway.http.as_ref().map(|http| http.port),
            hosts: site.shared.iter().chain(site.own.iter().map(|own| &own.host)).cloned().collect(),
            leaves: leaves.clone(),
            min_tls: site.min_tls,
            answer: match &site.answer {
                Answer::Suspended(_) => Expected::Suspended,
                Answer::App { class, .. } => Expected::App { routes: class.routes.clone(), policy: policy.cloned().map(Box::new) },
            },
        }
    }

    async fn ask(&self, host: &str, path: &str, offer: Offer) -> Result<probe::Answer, ProbeError> {
        probe::https(&self.target, self.port, host, path, offer).await
    }
}

/// Checks every host name; returns the first mismatch.
pub async fn check(view: Arc<View>) -> Option<Mismatch> {
    let too_long = || {
        let why = format!("{} took longer than {} s to answer all that was asked", view.hosts.join(", "), LONGEST.as_secs());
        Some(Mismatch { reason: "Unreachable", why })
    };
    tokio::time::timeout(LONGEST, check_hosts(&view)).await.unwrap_or_else(|_| too_long())
}

async fn check_hosts(view: &View) -> Option<Mismatch> {
    let wrong = |host: &str, why: String| Some(Mismatch { reason: "AnswersWrong", why: format!("{host} {why}") });
    for host in &view.hosts {
        let answer = match view.ask(host, "/", Offer::All).await {
            Ok(answer) => answer,
            Err(error @ ProbeError::Unreachable(_)) => return Some(Mismatch { reason: "Unreachable", why: format!("{host} {error}") }),
            Err(error) => return wrong(host, error.to_string()),
        };
        let Some(leaf) = &answer.leaf else { return wrong(host, "showed no certificate".into()) };
        let is_other = view.leaves.get(host).is_some_and(|expected| expected.der != leaf.der);
        if is_other || !leaf.covers(host) {
            return wrong(host, format!("showed another certificate, for {}", leaf.names.join(", ")));
        }
        if view.min_tls > TlsVersion::V12 && !matches!(view.ask(host, "/", Offer::Old).await, Err(ProbeError::Handshake(_))) {
            return wrong(host, "takes a TLS version that is too old".into());
        }
        match &view.answer {
            Expected::Suspended => {
                let suspended = |status: u16| if view.driver == Driver::GatewayApi { status >= 500 } else { status == 503 };
                let deep = view.ask(host, "/any/where", Offer::All).await.map(|a| a.status).unwrap_or_default();
                if !suspended(answer.status) || !suspended(deep) {
                    return wrong(host, format!("answers {} and not that the account is suspended", answer.status));
                }
            }
            Expected::App { routes, policy: Some(policy) } => {
                if let Some(why) = check_paths(view, host, routes, policy).await {
                    return wrong(host, why);
                }
            }
            Expected::App { policy: None, .. } => {}
        }
        if let Some(port) = view.plain_port
            && let Ok(plain) = probe::http(&view.target, port, host, "/").await
        {
            let suspended = view.answer == Expected::Suspended;
            let redirects = plain.location.as_ref().is_some_and(|to| to.starts_with("https://"));
            if (suspended && plain.status < 500) || (!suspended && !redirects) {
                return wrong(host, format!("answers {} on plain HTTP", plain.status));
            }
        }
    }
    None
}

/// Why a path of a host name does not answer as its audience and the policy require.
async fn check_paths(view: &View, host: &str, routes: &[Route], policy: &Policy) -> Option<String> {
    for route in routes {
        let path = &route.path;
        let answer = match view.ask(host, path, Offer::All).await {
            Ok(answer) => answer,
            Err(error) => return Some(error.to_string()),
        };
        match route.audience {
            Audience::Api if view.driver == Driver::EnvoyGateway && answer.status != 401 => {
                return Some(format!("answers {} at {path} to a request without credentials", answer.status));
            }
            Audience::Agent if policy.guards_agents() => {
                let is_allowed =
                    policy::lets_in(policy.agents_from.as_deref(), answer.from) && policy.oidc.is_none() && policy.client_ca.is_none();
                let is_refused = matches!(answer.status, 302 | 401 | 403);
                if !is_allowed && !is_refused {
                    return Some(format!("lets {} in to agents' path {path} ({})", answer.from, answer.status));
                }
            }
            Audience::Public | Audience::Agent if answer.status >= 500 => return Some(format!("answers {} at {path}", answer.status)),
            Audience::Public | Audience::Agent | Audience::Api => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn a_host_that_accepts_connections_and_never_answers_is_unreachable() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let silent = tokio::spawn(async move {
            let mut held = vec![];
            while let Ok(connection) = listener.accept().await {
                held.push(connection);
            }
        });
        let view = View {
            gateway: "edge/edge".into(),
            driver: Driver::GatewayApi,
            target: Target { addresses: vec!["127.0.0.1".into()], proxy_protocol: false },
            port,
            plain_port: None,
            hosts: vec!["silent.example".into()],
            leaves: BTreeMap::new(),
            min_tls: TlsVersion::default(),
            answer: Expected::Suspended,
        };
        let begun = Instant::now();
        let seen = check(Arc::new(view)).await.expect("it answered");
        assert_eq!(seen.reason, "Unreachable", "{}", seen.why);
        assert!(begun.elapsed() < Duration::from_secs(10));
        silent.abort();
    }
}
