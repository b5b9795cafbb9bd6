//! The driver for any implementation of the Gateway API. It has no words for addresses of clients, for TLS versions and
//! for answers of the gateway's own: a rule without a backend answers 500 (`HTTPRouteRule.backendRefs`).

use serde_json::{Value, json};

use super::{
    policy::Capabilities,
    site::{self, DirectResponse, Site, Wanted},
};

/// What it can keep.
pub const CAPABILITIES: Capabilities =
    Capabilities { driver: "GatewayAPI", address_lists: false, tls_versions: false, second_factor: false, client_certificates: false };

/// The objects of a site.
pub fn objects(site: &Site<'_>) -> Vec<Wanted> {
    site::objects(site, refuse)
}

fn refuse(_: &Site<'_>, _: DirectResponse) -> Value {
    json!({})
}
