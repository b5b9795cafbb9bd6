//! The controller of `HelpDeskAccount`: the path of an account through the code.
//!
//! 1. [`placement`] finds the account's server and its entry in that server's ledger, or places a new account.
//! 2. [`observe`] reads everything else that the decision needs; what cannot be read is unknown.
//! 3. [`crate::lifecycle`] absorbs what was seen into the record and decides. Pure.
//! 4. [`decide`] stores the decision in the ledger, before any effect.
//! 5. [`desired`] says what the stage wants of database, namespace, addresses and backups. Pure.
//! 6. [`realize`] makes it so, with [`database`], [`routes`], [`backups`], [`restore`] and [`deletion_certificate`]; every effect is idempotent and guarded by
//!    an ownership marker.
//! 7. [`outcome`] stores that the stage is enforced, once nothing is waited for.
//! 8. [`report`] writes the status where it differs, and events where something turned.
//!
//! **Invariant:** one reconcile moves an account by one stage at most.
//!
//! **Invariant:** the status is never read to decide anything but which server to ask; the ledger is the truth.

mod backups;
mod context;
mod credentials;
mod database;
mod decide;
mod deletion_certificate;
pub mod desired;
mod error;
mod failure;
mod finalizer;
mod hostnames;
mod namespace;
mod observe;
mod outcome;
mod placement;
mod placement_rules;
mod realize;
mod reconcile;
mod report;
mod restore;
mod restore_job;
mod routes;
mod watches;
mod work;

pub use error::Error;
pub use finalizer::FINALIZER;
pub use watches::run;
