//! Stories on a real cluster: a real API server, PostgreSQL and S3, and the operator installed by its chart.
//!
//! Each story has accounts of its own, so that all run side by side. `make test` brings the cluster up and sets what
//! [`cluster::Cluster::connect`] reads; without it every story fails and says so.

#![allow(clippy::unwrap_used, reason = "a story that meets something else than it tells of has to fail")]

mod acme;
mod agents_login;
mod app;
mod authority;
mod billing;
mod brake;
#[allow(dead_code, reason = "another test has more need of it")]
#[path = "../corpus/cases.rs"]
mod cases;
mod certificates;
mod client_address;
mod cluster;
mod corpus;
mod dns_records;
mod edge_limits;
mod ends;
mod extensions;
mod faults;
mod guards;
mod helpdesk;
mod hostile;
mod life;
mod mail;
mod mistakes;
mod night;
mod notices;
mod operator;
mod platform_policies;
mod postgres;
mod prometheus;
mod readiness;
mod silence;
mod streams;
mod tenant;
mod tricks;
mod unprovable;
mod versions;
mod web;
