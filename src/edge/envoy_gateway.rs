//! The driver for Envoy Gateway 1.9. Its policies and filters do what the Gateway API has no fields for.

use serde_json::{Value, json};

use super::{
    objects::Kind,
    platform_policy,
    policy::{ApiLimits, Capabilities, Policy},
    site::{self, Answer, DirectResponse, HSTS, LOGIN_PATHS, NO_API, Sections, Site, WEB, Wanted, wanted},
};
use crate::api::{HelpDeskClassSpec, Oidc, TlsVersion};

/// The driver can enforce all policies.
pub const CAPABILITIES: Capabilities =
    Capabilities { driver: "EnvoyGateway", address_lists: true, tls_versions: true, second_factor: true, client_certificates: true };

/// The `SecurityPolicy` objects that guard agents' paths. While one of them is missing or not accepted, those paths
/// stay closed.
pub const GUARDS: [&str; 3] = [WEB, "web-open", AGENTS];

/// The `SecurityPolicy` that says which agents are let in.
pub const AGENTS: &str = "web-agents";

/// The Secret in the tenant's namespace with the client secret of the OpenID provider.
pub const OIDC_SECRET: &str = "web-oidc";

/// The Secret in the tenant's namespace with the certificate authorities of agents' client certificates (`ca.crt`), and what
/// they revoked (`ca.crl`).
pub const CLIENT_CA_SECRET: &str = "web-client-ca";

/// The cookie in which Envoy keeps an agent's ID token.
const ID_COOKIE: &str = "helpdesk-agent-id";

/// The objects of a site.
pub fn objects(site: &Site<'_>) -> Vec<Wanted> {
    let mut all = filters(site);
    if !site.own.is_empty() {
        all.push(wanted(site, Kind::ClientTrafficPolicy, WEB, client_traffic(site)));
    }
    let guarded = matches!(&site.answer, Answer::App { class, policy, .. } if needs_guards(class, policy));
    let platform = site.gateway.security.as_ref();
    if !guarded {
        all.push(wanted(site, Kind::SecurityPolicy, WEB, platform_policy::kept(platform, allow_all())));
    }
    if let Answer::App { class, policy, .. } = &site.answer {
        let sections = site::sections(site, class, policy);
        if guarded {
            all.extend(guards(site, policy, &sections));
        }
        let limited = if sections.api.is_empty() { vec![NO_API.to_owned()] } else { sections.api };
        all.push(wanted(site, Kind::BackendTrafficPolicy, "web-api", api_limits(&policy.api, &limited)));
    }
    all.extend(site::objects(site, answer));
    all
}

fn answer(site: &Site<'_>, fixed: DirectResponse) -> Value {
    let filter = json!({"group": "gateway.envoyproxy.io", "kind": "HTTPRouteFilter", "name": filter_name(site, fixed)});
    json!({"filters": [{"type": "ExtensionRef", "extensionRef": filter}]})
}

fn filter_name(site: &Site<'_>, fixed: DirectResponse) -> String {
    match (fixed, &site.answer) {
        (DirectResponse::Malformed, _) => "malformed".into(),
        (DirectResponse::Preparing, _) => "preparing".into(),
        (DirectResponse::Unauthorized, _) => "unauthorized".into(),
        (DirectResponse::Suspended(number), Answer::Suspended(pages)) => {
            pages.get(number).map_or_else(|| "suspended".into(), |page| format!("suspended-{}", page.language))
        }
        (DirectResponse::Suspended(_), Answer::App { .. }) => "suspended".into(),
    }
}

fn filters(site: &Site<'_>) -> Vec<Wanted> {
    let filter = |fixed, status: u16, content: &str, body: &str, more: &[(&str, &str)]| {
        let headers: Vec<_> =
            [HSTS, ("Cache-Control", "no-store")].iter().chain(more).map(|(n, v)| json!({"name": n, "value": v})).collect();
        // Envoy reads the body as a format string, so a percent sign is doubled.
        let body = json!({"type": "Inline", "inline": body.replace('%', "%%")});
        let spec = json!({"directResponse": {"statusCode": status, "contentType": content, "body": body, "header": {"set": headers}}});
        wanted(site, Kind::HttpRouteFilter, &filter_name(site, fixed), spec)
    };
    let plain = |fixed, status, text, more: &[(&str, &str)]| filter(fixed, status, "text/plain; charset=utf-8", text, more);
    let mut all = vec![];
    match &site.answer {
        Answer::App { class, policy, .. } => {
            if policy.guards_agents() {
                all.push(plain(DirectResponse::Malformed, 400, "This address is written in a way that is not accepted here.\n", &[]));
                all.push(plain(DirectResponse::Preparing, 503, "This help desk is being set up.\n", &[("Retry-After", "5")]));
            }
            let challenge = class.capabilities.api_challenges.join(", ");
            let text = "Credentials are needed here.\n";
            all.push(plain(DirectResponse::Unauthorized, 401, text, &[("WWW-Authenticate", challenge.as_str())]));
        }
        Answer::Suspended(pages) => {
            let more = [("Retry-After", "3600"), ("Vary", "Accept-Language"), ("X-Robots-Tag", "noindex")];
            all.extend(
                pages
                    .iter()
                    .enumerate()
                    .map(|(number, page)| filter(DirectResponse::Suspended(number), 503, "text/html; charset=utf-8", &page.body, &more)),
            );
        }
    }
    all
}

fn targets(sections: &[String]) -> Vec<Value> {
    sections
        .iter()
        .map(|section| json!({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": WEB, "sectionName": section}))
        .collect()
}

/// The limits of API paths. What the platform says for the whole Gateway is kept beside them.
fn api_limits(limits: &ApiLimits, sections: &[String]) -> Value {
    let rule = |requests: i32, header: Value| json!({"clientSelectors": [{"headers": [header]}], "limit": {"requests": requests, "unit": "Minute"}});
    // A rule without a selector would count only what no other rule does. These paths are reached with this header alone.
    let of_all = rule(limits.requests_per_minute, json!({"name": "Authorization", "type": "RegularExpression", "value": ".+"}));
    let of_credential = rule(limits.requests_per_minute_per_credential, json!({"name": "Authorization", "type": "Distinct"}));
    // A `responseOverride` would be a filter of the shared listener for each tenant, and each new one would end all streams.
    json!({
        "targetRefs": targets(sections),
        "mergeType": "StrategicMerge",
        "rateLimit": {"type": "Local", "local": {"rules": [of_all, of_credential]}},
        "requestBuffer": {"limit": limits.max_body},
    })
}

/// A policy that allows everything. Envoy gives a connection its filters when the connection is opened. Without any
/// policy at the listener, older connections would have no authorization filter when a tenant gets an address list, and
/// would bypass the list until they are drained.
fn allow_all() -> Value {
    let route = json!([{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": WEB}]);
    json!({"targetRefs": route, "authorization": {"defaultAction": "Allow"}})
}

/// Three policies: one denies the whole route, one allows the open rules, one allows agents' rules to agents. If any
/// one of them is lost, paths close and none opens.
fn guards(site: &Site<'_>, policy: &Policy, sections: &Sections) -> [Wanted; 3] {
    let open: Vec<_> = sections.open.iter().chain(&sections.api).cloned().collect();
    let route = json!([{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": WEB}]);
    let mut agents =
        json!({"targetRefs": targets(&sections.agents), "authorization": {"defaultAction": "Deny", "rules": allowed(site, policy)}});
    if let Some(oidc) = &policy.oidc {
        agents["oidc"] = login(oidc);
        agents["jwt"] = json!({"providers": [{"name": "agents", "issuer": oidc.issuer, "audiences": [oidc.client_id],
            "remoteJWKS": {"uri": oidc.jwks_uri}, "extractFrom": {"cookies": [ID_COOKIE]}}]});
    }
    let specs = [
        json!({"targetRefs": route, "authorization": {"defaultAction": "Deny"}}),
        json!({"targetRefs": targets(&open), "authorization": {"defaultAction": "Allow"}}),
        agents,
    ];
    let mut names = GUARDS.iter();
    let platform = site.gateway.security.as_ref();
    specs.map(|spec| wanted(site, Kind::SecurityPolicy, names.next().copied().unwrap_or_default(), platform_policy::kept(platform, spec)))
}

/// The authorization rule for agents. All conditions must hold at once: address, second factor, client certificate.
fn allowed(site: &Site<'_>, policy: &Policy) -> Vec<Value> {
    let mut principal = json!({});
    match &policy.agents_from {
        Some(ranges) if ranges.is_empty() => return vec![],
        Some(ranges) => principal["clientCIDRs"] = json!(ranges),
        None => {}
    }
    if let Some(oidc) = &policy.oidc {
        principal["jwt"] = json!({"provider": "agents", "claims": claims(site, oidc)});
    }
    let mut rule = json!({"name": "agents", "action": "Allow"});
    if principal != json!({}) {
        rule["principal"] = principal;
    }
    if policy.client_ca.is_some() {
        rule["cel"] = json!("connection.mtls");
    }
    vec![rule]
}

/// The claims that an ID token must have, all of them.
fn claims(site: &Site<'_>, oidc: &Oidc) -> Vec<Value> {
    let contains = |name: &str, value: &str| json!({"name": name, "valueType": "StringArray", "values": [value]});
    let amr = oidc.amr().map(|amr| contains("amr", amr));
    let acr = (!oidc.acr_values.is_empty()).then(|| json!({"name": "acr", "valueType": "String", "values": oidc.acr_values}));
    let account = oidc.account_claim.as_ref().map(|claim| contains(claim, site.account));
    amr.into_iter().chain(acr).chain(account).collect()
}

/// The login. No token is refreshed: what it says of the second factor would be as old as the first login.
fn login(oidc: &Oidc) -> Value {
    let mut provider = json!({"issuer": oidc.issuer});
    if let Some(endpoint) = &oidc.authorization_endpoint {
        let mark = if endpoint.contains('?') { '&' } else { '?' };
        provider["authorizationEndpoint"] = match &oidc.acr_values[..] {
            [] => json!(endpoint),
            values => json!(format!("{endpoint}{mark}acr_values={}", escaped(&values.join(" ")))),
        };
    }
    if let Some(endpoint) = &oidc.token_endpoint {
        provider["tokenEndpoint"] = json!(endpoint);
    }
    json!({"provider": provider, "clientID": oidc.client_id, "clientSecret": {"group": "", "kind": "Secret", "name": OIDC_SECRET},
        "cookieNames": {"idToken": ID_COOKIE}, "logoutPath": LOGIN_PATHS[1], "refreshToken": false})
}

/// A value in a query, as RFC 3986 has it.
fn escaped(value: &str) -> String {
    value
        .bytes()
        .map(|b| if b.is_ascii_alphanumeric() || b"-._~".contains(&b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

/// The tenant's `ClientTrafficPolicy`. It replaces the Gateway's, so it repeats that one's spec. Otherwise Envoy would
/// take a proxy's address for the client's, and address lists would check the wrong addresses.
fn client_traffic(site: &Site<'_>) -> Value {
    let mut spec = site.gateway.client_traffic.clone().filter(Value::is_object).unwrap_or_else(|| json!({}));
    for target in ["targetRef", "targetSelectors"] {
        spec.as_object_mut().map(|s| s.remove(target));
    }
    spec["targetRefs"] = json!([{"group": "gateway.networking.k8s.io", "kind": "ListenerSet", "name": WEB}]);
    let lowest = if site.min_tls == TlsVersion::V13 { "1.3" } else { "1.2" };
    let is_lower = spec["tls"]["minVersion"].as_str().is_none_or(|version| version < lowest);
    if is_lower {
        spec["tls"]["minVersion"] = json!(lowest);
    }
    if spec["tls"]["alpnProtocols"].is_null() {
        spec["tls"]["alpnProtocols"] = json!(["h2", "http/1.1"]);
    }
    if let Answer::App { policy: Policy { client_ca: Some(authority), .. }, .. } = &site.answer {
        let secret = json!([{"group": "", "kind": "Secret", "name": CLIENT_CA_SECRET}]);
        spec["tls"]["clientValidation"] = json!({"mode": "VerifyIfGiven", "caCertificateRefs": secret});
        if authority.revoked.is_some() {
            spec["tls"]["clientValidation"]["crl"] = json!({"refs": secret});
        }
        // A certificate is looked at when a connection begins, so one that was revoked since is met after this time.
        let limit = &mut spec["connection"]["connectionLimit"]["maxConnectionDuration"];
        if limit.is_null() {
            *limit = json!("5m");
        }
    }
    spec
}

/// Whether [`GUARDS`] are needed: the policy restricts agents, and the class has agents' paths.
pub fn needs_guards(class: &HelpDeskClassSpec, policy: &Policy) -> bool {
    policy.guards_agents() && class.routes.iter().any(|r| r.audience == crate::api::Audience::Agent)
}
