//! Checks from outside whether each of a tenant's host names answers as it should.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    certificate::Leaf,
    gateway::Driver,
    policy::{self, Policy},
    probe::{self, Offer, ProbeError},
    site::{Answer, Site},
};
use crate::api::{Audience, help_desk_class::Route, plan::TlsVersion};

/// How long a look may take in all. A host that answers slowly, but answers, must not hold a worker for long.
const LONGEST: Duration = Duration::from_secs(20);

/// What was seen to be wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// One word for programs.
    pub reason: &'static str,
    /// A sentence for people.
    pub why: String,
}

/// What is to be seen from outside: everything that a look needs to know, so that it can be taken elsewhere and later.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// The Gateway, for telling one from another.
    pub gateway: String,
    /// How it is spoken to.
    pub driver: Driver,
    /// Where it is reached.
    pub addresses: Vec<String>,
    /// The port for HTTPS.
    pub port: u16,
    /// The port for plain HTTP, if there is one.
    pub plain_port: Option<u16>,
    /// The names that are asked for.
    pub hosts: Vec<String>,
    /// The certificates that names have of their own.
    pub leaves: BTreeMap<String, Leaf>,
    /// The lowest TLS version that may be taken.
    pub min_tls: TlsVersion,
    /// What requests should get.
    pub answer: Expected,
}

/// What requests should get.
#[derive(Clone, Debug, PartialEq)]
pub enum Expected {
    /// The app, for those whom the policy lets in.
    App {
        /// Which path is for whom.
        routes: Vec<Route>,
        /// Who may.
        policy: Option<Box<Policy>>,
    },
    /// That the account is suspended.
    Suspended,
}

impl View {
    /// What a site should look like. The policy of a closed one does not count.
    pub fn of(site: &Site<'_>, leaves: &BTreeMap<String, Leaf>, policy: Option<&Policy>) -> Self {
        let gateway = site.gateway;
        Self {
            gateway: format!("{}/{}", gateway.namespace, gateway.name),
            driver: gateway.driver,
            addresses: gateway.addresses.clone(),
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
        probe::https(&self.addresses, self.port, host, path, offer).await
    }
}

/// Asks every address; says what is wrong with the first that does not answer as it should.
pub async fn check(view: Arc<View>) -> Option<Mismatch> {
    let too_long = || {
        let why = format!("{} took longer than {} s to answer all that was asked", view.hosts.join(", "), LONGEST.as_secs());
        Some(Mismatch { reason: "Unreachable", why })
    };
    tokio::time::timeout(LONGEST, look_at(&view)).await.unwrap_or_else(|_| too_long())
}

async fn look_at(view: &View) -> Option<Mismatch> {
    let wrong = |host: &str, why: String| Some(Mismatch { reason: "AnswersWrong", why: format!("{host} {why}") });
    for host in &view.hosts {
        let answer = match view.ask(host, "/", Offer::All).await {
            Ok(answer) => answer,
            Err(trouble @ ProbeError::Unreachable(_)) => return Some(Mismatch { reason: "Unreachable", why: format!("{host} {trouble}") }),
            Err(trouble) => return wrong(host, trouble.to_string()),
        };
        let Some(leaf) = &answer.leaf else { return wrong(host, "showed no certificate".into()) };
        let other = view.leaves.get(host).is_some_and(|expected| expected.der != leaf.der);
        if other || !leaf.covers(host) {
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
                if let Some(why) = open_answers(view, host, routes, policy).await {
                    return wrong(host, why);
                }
            }
            Expected::App { policy: None, .. } => {}
        }
        if let Some(port) = view.plain_port
            && let Ok(plain) = probe::http(&view.addresses, port, host, "/").await
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

/// Whether an open address keeps agents' and programs' paths as the policy says.
async fn open_answers(view: &View, host: &str, routes: &[Route], policy: &Policy) -> Option<String> {
    for route in routes {
        let path = &route.path;
        let answer = match view.ask(host, path, Offer::All).await {
            Ok(answer) => answer,
            Err(trouble) => return Some(trouble.to_string()),
        };
        match route.audience {
            Audience::Api if view.driver == Driver::EnvoyGateway && answer.status != 401 => {
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
