//! The mail intake, beside a mail server (Postfix) in the same pod: it says which addresses exist and whether they take
//! mail now, and hands each message to its tenant's app.
//!
//! The mail server asks by `socketmap` before it takes a message, and delivers by LMTP, one recipient at a time. Both listen
//! on the loopback address only. The intake reads accounts, plans, classes and claims of host names, and writes nothing to
//! the cluster.
//!
//! [`recipient`] is the decision, pure: what is not known is refused for now, never for good.

mod address;
mod app_request;
mod deliver;
mod directory;
mod envelope;
mod http_post;
mod lmtp;
pub mod recipient;
mod serve;
mod socketmap;

pub use serve::{Args, run};
