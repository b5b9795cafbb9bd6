//! Whether the issuer of certificates that a plan names exists.

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
    let is_missing = objects.get(Kind::ClusterIssuer, None, &issuer.name).is_none();
    is_missing.then(|| format!("ClusterIssuer {} does not exist; create it, or correct the plan's placement", issuer.name))
}
