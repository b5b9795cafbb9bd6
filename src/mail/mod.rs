//! The mail intake, beside a mail server (Postfix) in the same pod: it says which addresses exist and whether they take
//! mail now, and hands each message to its tenant's app.
//!
//! Before it does, it asks the spam filter (rspamd) how this tenant would take the message. What the filter learns it learns
//! for one tenant, from that tenant's app.
//!
//! The mail server asks by `socketmap` before it takes a message, and delivers by LMTP, one recipient at a time. Both listen
//! on the loopback address only. The intake reads accounts, plans, classes with their revisions, and claims of host names, and of each tenant the
//! one Secret that is for it. It writes nothing to the cluster.
//!
//! Apps send mail by the same mail server: it asks the intake whether their password is right (`sasl`) and which addresses
//! are theirs, and the intake says what of their queue is held or deleted (`queue`). What they send it signs with their
//! tenant's key, or refuses (`outgoing`); `sender` is that decision, pure.
//!
//! [`recipient`] is the decision, pure: what is not known is refused for now, never for good.

mod address;
mod app_request;
mod deliver;
mod directory;
mod envelope;
mod filter;
mod learn_api;
mod learned;
mod lmtp;
mod outgoing;
mod queue;
pub mod recipient;
mod redis;
mod sasl;
mod sender;
mod serve;
mod socketmap;
mod tokens;

pub use serve::{Args, run};
