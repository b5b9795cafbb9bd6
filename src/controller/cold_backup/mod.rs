//! The controller of `ColdBackup`: taken, proven, kept, destroyed on time.
//!
//! 1. [`placement`] finds the server and the ledger entry of the account.
//! 2. [`observe`] reads what the decision needs; what cannot be read is unknown.
//! 3. [`decide`] says what is to be done now. Pure.
//! 4. [`reconcile`] carries it out, with [`take`] and [`erase`], and writes the status where it differs.

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
