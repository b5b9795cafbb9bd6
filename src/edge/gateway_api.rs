//! The driver for any implementation of the Gateway API. The API has no fields for lists of client addresses, for TLS
//! versions and for direct responses: a rule without a backend answers 500 (`HTTPRouteRule.backendRefs`).

use serde_json::{Value, json};

use super::{
    policy::Capabilities,
    site::{self, DirectResponse, Site, Wanted},
};

/// The driver can enforce none of the policies.
pub const CAPABILITIES: Capabilities =
    Capabilities { driver: "GatewayAPI", address_lists: false, tls_versions: false, second_factor: false, client_certificates: false };

/// The objects of a site.
pub fn objects(site: &Site<'_>) -> Vec<Wanted> {
    site::objects(site, refuse)
}

fn refuse(_: &Site<'_>, _: DirectResponse) -> Value {
    json!({})
}
