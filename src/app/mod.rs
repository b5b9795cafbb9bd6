//! The app of a tenant: which objects its class asks for, with which values, and their application. No file here but
//! [`apply`] talks to the cluster.
//!
//! A class says nothing of one app: it has components with pods, environment, files and hooks. What it may choose of a pod
//! is listed in [`crate::api::help_desk_class::Workload`]; everything else is fixed in [`workloads`].

pub mod apply;
mod error;
pub mod mail;
pub mod secrets;
pub mod values;
pub mod workloads;

pub use error::Error;
