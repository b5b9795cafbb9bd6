//! The interface of a gateway: publish a tenant's routes under its policy, answer that the account is suspended, delete
//! the routes, and check the result from outside.
//!
//! A driver is a file with capabilities and a pure function from a [`site::Site`] to objects; `Driver` lists them all.

pub mod apply;
pub mod certificate;
pub mod check;
pub mod claim_rules;
pub mod claims;
pub mod connections;
pub mod dns_challenge;
pub mod envoy_gateway;
mod error;
pub mod gateway;
pub mod gateway_api;
pub mod issuer;
pub mod objects;
pub mod page;
pub mod platform_policy;
pub mod policy;
pub mod probe;
pub mod revocation;
pub mod site;

pub use error::Error;
use gateway::Driver;
use policy::Capabilities;
use site::{Site, Wanted};

/// The objects of a site for its gateway's driver, in the order in which they must be applied.
pub fn wanted(site: &Site<'_>) -> Vec<Wanted> {
    match site.gateway.driver {
        Driver::EnvoyGateway => envoy_gateway::objects(site),
        Driver::GatewayApi => gateway_api::objects(site),
    }
}

impl Driver {
    /// The policies that the driver can enforce.
    pub const fn can(self) -> Capabilities {
        match self {
            Self::EnvoyGateway => envoy_gateway::CAPABILITIES,
            Self::GatewayApi => gateway_api::CAPABILITIES,
        }
    }
}
