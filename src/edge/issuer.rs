//! Whether the issuer of certificates that a plan names can issue them.

use serde_json::Value;

use super::objects::{Kind, Objects};
use crate::api::plan::IssuerRef;

/// Why nobody issues certificates for this reference, if that can be told: only of a `ClusterIssuer` of cert-manager.
pub fn refusal(objects: &Objects, issuer: &IssuerRef) -> Option<String> {
    let resource = Kind::ClusterIssuer.resource();
    if issuer.kind != resource.kind || issuer.group != resource.group {
        return None;
    }
    if !objects.has(Kind::ClusterIssuer) {
        return Some(format!("the definition {} is not installed; install cert-manager", Kind::ClusterIssuer.definition()));
    }
    match objects.get(Kind::ClusterIssuer, None, &issuer.name) {
        None => Some(format!("ClusterIssuer {} does not exist; create it, or correct the plan's placement", issuer.name)),
        Some(found) => answers_by_dns_only(&found.data["spec"]).then(|| {
            format!(
                "ClusterIssuer {} answers challenges by DNS only (dns01), and the zone of a custom name is not the platform's; give it a solver http01.gatewayHTTPRoute",
                issuer.name
            )
        }),
    }
}

/// Whether an issuer asks an ACME server and could only answer it in the zone of the name.
fn answers_by_dns_only(spec: &Value) -> bool {
    let solvers = spec["acme"]["solvers"].as_array();
    solvers.is_some_and(|solvers| !solvers.is_empty() && solvers.iter().all(|solver| solver["http01"].is_null()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_issuer_without_a_solver_for_http_cannot_answer_for_a_customers_zone() {
        let (http, dns) = (json!({"http01": {"gatewayHTTPRoute": {}}}), json!({"dns01": {"route53": {}}}));
        assert!(answers_by_dns_only(&json!({"acme": {"solvers": [dns]}})));
        assert!(!answers_by_dns_only(&json!({"acme": {"solvers": [dns, http]}})));
        assert!(!answers_by_dns_only(&json!({"ca": {"secretName": "own"}})), "an authority of one's own asks nobody");
    }
}
