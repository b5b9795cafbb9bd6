//! Notices: before a stage that hurts, and after it was entered, an event goes to an HTTPS endpoint, so that the company can
//! write to the owner in time.
//!
//! [`due`] says which are to be sent, pure. [`event`] writes one as a CloudEvent (version 1.0, structured mode) and signs it as
//! Standard Webhooks do. [`sender`] delivers them, by itself: no reconcile waits for the endpoint. What was delivered is recorded
//! in the account's ledger entry, so a notice is sent again only where the process ended between the delivery and that record;
//! it has the same id then.

pub mod due;
pub mod event;
pub mod sender;

pub use due::{Kind, Notice};
pub use sender::{Delivery, Endpoint, Sender};
