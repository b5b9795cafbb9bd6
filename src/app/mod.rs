//! The app of a tenant: which objects its class asks for, with which values, and their application. Only [`apply`] talks
//! to the cluster, and only [`check`] to the app.
//!
//! A class says nothing of one app: it has components with pods, environment, files and hooks. What it may choose of a pod
//! is listed in [`crate::api::help_desk_class::Workload`]; everything else is fixed in `pods`.

pub mod apply;
pub mod check;
pub mod dkim;
mod error;
pub mod hooks;
pub mod mail;
pub mod object;
mod pods;
mod policies;
pub mod request;
pub mod requirements;
pub mod revision;
pub mod secrets;
pub mod values;
pub mod workloads;

pub use error::Error;
