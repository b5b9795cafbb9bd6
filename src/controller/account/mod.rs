//! The controller of `HelpDeskAccount`: the path of an account through the code.
//!
//! 1. [`placement`] finds the account's server and its entry in that server's ledger, or places a new account.
//! 2. [`observe`] reads everything else that the decision needs. A fact that cannot be read is `Unknown`.
//! 3. [`crate::lifecycle`] writes the inputs into the record and decides. Pure.
//! 4. [`decide`] stores the decision in the ledger, before any effect.
//! 5. [`desired`] has the desired state of database, namespace, routes and backups in each stage. Pure.
//! 6. [`realize`] carries it out, with [`mod@class`], [`database`], [`routes`], [`backups`], [`restore`] and [`deletion_certificate`].
//!    Every effect is idempotent and checks an ownership marker.
//! 7. [`outcome`] stores that the stage is enforced, once nothing is waited for.
//! 8. [`report`] writes the status if it differs, and publishes events for what changed.
//!
//! **Invariant:** one reconcile moves an account by one stage at most.
//!
//! **Invariant:** the status is only read to know which server to ask, never to decide: it may be wiped or old, and the
//! ledger is the truth.

mod accepted_plan;
mod app;
mod app_secrets;
mod backups;
mod class;
mod connections;
mod context;
mod credentials;
mod database;
mod decide;
mod deletion_certificate;
pub mod desired;
mod error;
mod failure;
mod finalizer;
mod history;
mod hostnames;
mod mail_filter;
mod namespace;
mod notices;
mod observe;
mod outcome;
mod owner;
mod placement;
mod placement_rules;
mod realize;
mod reconcile;
mod report;
mod restore;
mod restore_job;
mod routes;
mod waiting_for;
mod watches;
mod work;

pub use error::Error;
pub use finalizer::FINALIZER;
pub use watches::run;
