//! The controller of `HelpDeskClass`: keeps each revision of a class, and upgrades the accounts in waves.
//!
//! It changes no account. Its status names the accounts whose turn it is, and the account's controller does the rest.

mod reconcile;
mod rollout;

pub use reconcile::run;
