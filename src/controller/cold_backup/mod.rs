//! The controller of `ColdBackup`: takes a backup, proves it, keeps it, and erases it on time.
//!
//! 1. [`placement`] finds the server and the ledger entry of the account.
//! 2. [`observe`] reads what the decision needs. A fact that cannot be read is `Unknown`.
//! 3. [`decide`] decides what is done next. Pure.
//! 4. [`reconcile`] carries it out, with [`take`] and [`erase`], and writes the status if it differs.

mod context;
pub mod decide;
mod erase;
mod error;
pub mod failure;
mod mover_slots;
mod observe;
mod orphaned_movers;
mod placement;
mod reconcile;
mod take;
mod work;

pub use reconcile::run;
