//! A tenant's site as objects of the Gateway API: routes, listeners, redirects. Pure; both drivers use it.

use serde_json::{Value, json};

use super::{
    gateway::{Driver, Gateway},
    objects::Kind,
    page::Page,
    policy::Policy,
};
use crate::{
    api::{Audience, HelpDeskClassSpec, TlsVersion},
    clock::Moment,
};

/// The name of a tenant's main objects.
pub const WEB: &str = "web";

/// A tenant's host names, and what requests to them are answered.
pub struct Site<'a> {
    /// The account's name.
    pub account: &'a str,
    /// Its uid.
    pub uid: &'a str,
    /// The tenant's namespace.
    pub namespace: &'a str,
    /// The Gateway.
    pub gateway: &'a Gateway,
    /// The host name to which former names redirect.
    pub primary: &'a str,
    /// Host names on the listener that all tenants share.
    pub shared: Vec<String>,
    /// Host names with a listener of their own.
    pub own: Vec<OwnListener>,
    /// Host names of former slugs.
    pub former: Vec<String>,
    /// The lowest TLS version of the tenant's own listeners.
    pub min_tls: TlsVersion,
    /// What answers requests.
    pub answer: Answer<'a>,
}

/// A host name with a listener of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnListener {
    /// The host name.
    pub host: String,
    /// Namespace and name of the Secret with its certificate; no namespace: the tenant's.
    pub certificate: (Option<String>, String),
}

/// What answers requests.
pub enum Answer<'a> {
    /// The app.
    App {
        /// The class, whose routes say which component answers which path.
        class: &'a HelpDeskClassSpec,
        /// The security policy.
        policy: &'a Policy,
        /// Whether agents' paths lead to the app. They must not before the gateway has accepted the policy that guards
        /// them.
        agents_open: bool,
    },
    /// The page that says that the account is suspended, one for each language; the first is the default.
    Suspended(&'a [Page]),
}

/// The desired state of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its spec.
    pub spec: Value,
    /// Connections that were opened before this time may be of clients whom the object refuses, and are still to be ended.
    pub end_connections_before: Option<Moment>,
}

impl Wanted {
    /// An object with this spec.
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>, spec: Value) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into(), spec, end_connections_before: None }
    }
}

/// A response that the gateway sends itself, without a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectResponse {
    /// For a path that the app may read otherwise than the gateway.
    Malformed,
    /// For agents' paths whose policy is not in force yet.
    Preparing,
    /// For a request to an API path without credentials.
    Unauthorized,
    /// For a suspended account; the index of the page.
    Suspended(usize),
}

/// Builds a driver's rule for a direct response, without the rule's name and matches.
pub type ResponseBuilder = fn(&Site<'_>, DirectResponse) -> Value;

/// HTTP Strict Transport Security (RFC 6797), for a year. Without `includeSubDomains`, because the operator does not
/// know a tenant's other names.
pub const HSTS: (&str, &str) = ("Strict-Transport-Security", "max-age=31536000");

/// The rule of a path that nobody uses, for the limits of a class without API paths. Every tenant has limits, because Envoy
/// has one list of filters for the listener that all share: the first tenant that needs another filter would change that
/// list, and with it end everybody's streams.
pub const NO_API: &str = "no-api";

/// Where the gateway takes a login back from the OpenID provider, and where it ends one. They belong to agents' paths, whatever
/// the class has there.
pub const LOGIN_PATHS: [&str; 2] = ["/oauth2/callback", "/oauth2/logout"];

/// Paths that a lenient app may read otherwise than the gateway: with matrix parameters, backslashes, or dots and
/// slashes that are still escaped after the gateway has normalized the path.
const AMBIGUOUS: &str = r".*(;|\\|%2[eEfF]|%5[cC]|%25(2[eEfF]|5[cC]|3[bB])|%3[bB]|%00).*";

/// The names of rules, by audience.
pub struct Sections {
    /// Rules of agents' paths.
    pub agents: Vec<String>,
    /// Rules of API paths that lead to the app.
    pub api: Vec<String>,
    /// All other rules.
    pub open: Vec<String>,
}

/// The routes and listeners of a site.
pub fn objects(site: &Site<'_>, respond: ResponseBuilder) -> Vec<Wanted> {
    let mut all = vec![];
    if !site.own.is_empty() {
        all.push(wanted(site, Kind::ListenerSet, WEB, listener_set(site)));
        all.extend(site.own.iter().filter_map(|own| grant(site, own)));
    }
    let suspended = matches!(site.answer, Answer::Suspended(_));
    let served: Vec<&str> = site.shared.iter().map(String::as_str).chain(site.own.iter().map(|o| o.host.as_str())).collect();
    let listeners = listeners(site);
    let http = site.gateway.http.as_ref().map(|l| of_gateway(site, &l.name));
    let rules = match &site.answer {
        Answer::App { class, policy, agents_open } => app_rules(site, class, policy, *agents_open, respond).0,
        Answer::Suspended(pages) => suspended_rules(site, pages, respond),
    };
    // Plain HTTP answers with the page if the account is suspended, and otherwise redirects to HTTPS.
    let web_on: Vec<_> = listeners.iter().cloned().chain(http.clone().filter(|_| suspended)).collect();
    all.push(wanted(site, Kind::HttpRoute, WEB, json!({"parentRefs": web_on, "hostnames": served, "rules": rules})));
    if let Some(http) = http.clone().filter(|_| !suspended) {
        let rule = json!({"name": "to-https", "filters": [{"type": "RequestRedirect", "requestRedirect": {"scheme": "https", "statusCode": 301}}]});
        all.push(wanted(site, Kind::HttpRoute, "web-http", json!({"parentRefs": [http], "hostnames": served, "rules": [rule]})));
    }
    if !site.former.is_empty() {
        let on: Vec<_> = [of_gateway(site, &site.gateway.shared.name)].into_iter().chain(http).collect();
        let rules = match &site.answer {
            Answer::Suspended(pages) => suspended_rules(site, pages, respond),
            Answer::App { .. } => vec![json!({"name": "moved", "filters": [{"type": "RequestRedirect",
                "requestRedirect": {"scheme": "https", "hostname": site.primary, "statusCode": 301}}]})],
        };
        all.push(wanted(site, Kind::HttpRoute, "web-former", json!({"parentRefs": on, "hostnames": site.former, "rules": rules})));
    }
    all
}

/// The names of the rules that [`objects`] makes for an app.
pub fn sections(site: &Site<'_>, class: &HelpDeskClassSpec, policy: &Policy) -> Sections {
    app_rules(site, class, policy, true, |_, _| json!({})).1
}

/// The desired state of an object in the tenant's namespace.
pub fn wanted(site: &Site<'_>, kind: Kind, name: &str, spec: Value) -> Wanted {
    Wanted::new(kind, site.namespace, name, spec)
}

/// A reference to a listener of the Gateway.
fn of_gateway(site: &Site<'_>, listener: &str) -> Value {
    json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": site.gateway.namespace, "name": site.gateway.name,
        "sectionName": listener})
}

fn listeners(site: &Site<'_>) -> Vec<Value> {
    let shared = (!site.shared.is_empty()).then(|| of_gateway(site, &site.gateway.shared.name));
    let own = (!site.own.is_empty()).then(|| json!({"group": "gateway.networking.k8s.io", "kind": "ListenerSet", "name": WEB}));
    shared.into_iter().chain(own).collect()
}

fn listener_set(site: &Site<'_>) -> Value {
    let listeners: Vec<_> = site
        .own
        .iter()
        .map(|own| {
            let mut certificate = json!({"group": "", "kind": "Secret", "name": own.certificate.1});
            if let Some(namespace) = &own.certificate.0 {
                certificate["namespace"] = json!(namespace);
            }
            json!({"name": own.host, "hostname": own.host, "port": site.gateway.shared.port, "protocol": "HTTPS",
                "tls": {"mode": "Terminate", "certificateRefs": [certificate]}, "allowedRoutes": {"namespaces": {"from": "Same"}}})
        })
        .collect();
    json!({
        "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": site.gateway.namespace, "name": site.gateway.name},
        "listeners": listeners,
    })
}

/// The `ReferenceGrant` that lets the tenant's `ListenerSet` use a certificate of another namespace.
fn grant(site: &Site<'_>, own: &OwnListener) -> Option<Wanted> {
    let namespace = own.certificate.0.clone()?;
    let spec = json!({
        "from": [{"group": "gateway.networking.k8s.io", "kind": "ListenerSet", "namespace": site.namespace}],
        "to": [{"group": "", "kind": "Secret", "name": own.certificate.1}],
    });
    Some(Wanted::new(Kind::ReferenceGrant, namespace, site.namespace, spec))
}

fn named(name: &str, mut rule: Value) -> Value {
    rule["name"] = json!(name);
    rule
}

fn prefixes<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<Value> {
    paths.map(|path| json!({"path": {"type": "PathPrefix", "value": path}})).collect()
}

fn app_rules(
    site: &Site<'_>,
    class: &HelpDeskClassSpec,
    policy: &Policy,
    agents_open: bool,
    respond: ResponseBuilder,
) -> (Vec<Value>, Sections) {
    let mut sections = Sections { agents: vec![], api: vec![], open: vec![] };
    let mut rules = vec![];
    if policy.guards_agents() {
        let mut rule = named("malformed", respond(site, DirectResponse::Malformed));
        rule["matches"] = json!([{"path": {"type": "RegularExpression", "value": AMBIGUOUS}}]);
        rules.push(rule);
        sections.open.push("malformed".to_owned());
    }
    for component in &class.components {
        let Some(port) = component.port else { continue };
        for audience in [Audience::Public, Audience::Api, Audience::Agent] {
            let mine = || class.routes.iter().filter(|r| r.audience == audience && r.component == component.name).map(|r| r.path.as_str());
            if mine().next().is_none() {
                continue;
            }
            let mut to_app = json!({
                "backendRefs": [{"group": "", "kind": "Service", "name": component.name, "port": port, "weight": 1}],
                "filters": [{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": HSTS.0, "value": HSTS.1}]}}],
            });
            // An event stream or a large file may take as long as it does: Envoy's own limit is 15 s for a whole response. What
            // is idle for five minutes is still ended. Other gateways need not know the field, and have no such limit.
            if site.gateway.driver == Driver::EnvoyGateway {
                to_app["timeouts"] = json!({"request": "0s"});
            }
            let mut matches = prefixes(mine());
            if audience == Audience::Agent && policy.oidc.is_some() && sections.agents.is_empty() {
                matches.extend(LOGIN_PATHS.map(|path| json!({"path": {"type": "Exact", "value": path}})));
            }
            let (word, section, rule) = match audience {
                Audience::Public => ("public", &mut sections.open, to_app),
                Audience::Agent if agents_open => ("agents", &mut sections.agents, to_app),
                Audience::Agent => ("agents", &mut sections.agents, respond(site, DirectResponse::Preparing)),
                Audience::Api => {
                    for one in &mut matches {
                        one["headers"] = json!([{"name": "Authorization", "type": "RegularExpression", "value": ".+"}]);
                    }
                    ("api", &mut sections.api, to_app)
                }
            };
            let name = format!("{word}-{}", component.name);
            let mut rule = named(&name, rule);
            rule["matches"] = json!(matches);
            section.push(name);
            rules.push(rule);
        }
    }
    let api = || class.routes.iter().filter(|r| r.audience == Audience::Api).map(|r| r.path.as_str());
    if api().next().is_some() {
        let mut rule = named("api-anonymous", respond(site, DirectResponse::Unauthorized));
        rule["matches"] = json!(prefixes(api()));
        rules.push(rule);
        sections.open.push("api-anonymous".to_owned());
    } else if site.gateway.driver == Driver::EnvoyGateway {
        let mut rule = named(NO_API, respond(site, DirectResponse::Unauthorized));
        rule["matches"] = json!([{"path": {"type": "Exact", "value": "/.well-known/helpdesk-operator"}}]);
        rules.push(rule);
        sections.open.push(NO_API.to_owned());
    }
    (rules, sections)
}

/// One rule for each language, chosen by the first language in `Accept-Language`. The last rule has the default page
/// and matches every request.
fn suspended_rules(site: &Site<'_>, pages: &[Page], respond: ResponseBuilder) -> Vec<Value> {
    let default = pages.first().map(|_| named("suspended", respond(site, DirectResponse::Suspended(0))));
    let others = pages.iter().enumerate().skip(1).map(|(number, page)| {
        let mut rule = named(&format!("suspended-{}", page.language), respond(site, DirectResponse::Suspended(number)));
        let language = format!("(?i)\\s*{}([-_,; ].*)?", page.language);
        rule["matches"] = json!([{"path": {"type": "PathPrefix", "value": "/"},
            "headers": [{"name": "Accept-Language", "type": "RegularExpression", "value": language}]}]);
        rule
    });
    others.chain(default).collect()
}
