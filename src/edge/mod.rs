//! The interface of a gateway: publish a tenant's routes under its policy, answer that the account is suspended, remove
//! them, and check from outside that it is so.
//!
//! A driver is a file with capabilities and a pure function from a [`site::Site`] to objects; `Driver` lists them.

pub mod apply;
pub mod certificate;
pub mod check;
pub mod claim_rules;
pub mod claims;
pub mod dns_challenge;
pub mod envoy_gateway;
mod error;
pub mod gateway;
pub mod gateway_api;
pub mod objects;
pub mod page;
pub mod policy;
pub mod probe;
pub mod prober;
pub mod site;

pub use error::Error;
use gateway::Driver;
use policy::Capabilities;
use site::{Site, Wanted};

/// The objects of a site, in the words of its gateway's driver, in the order in which they are to be made.
pub fn wanted(site: &Site<'_>) -> Vec<Wanted> {
    match site.gateway.driver {
        Driver::EnvoyGateway => envoy_gateway::objects(site),
        Driver::GatewayApi => gateway_api::objects(site),
    }
}

impl Driver {
    /// What it can keep.
    pub const fn can(self) -> Capabilities {
        match self {
            Self::EnvoyGateway => envoy_gateway::CAPABILITIES,
            Self::GatewayApi => gateway_api::CAPABILITIES,
        }
    }
}
