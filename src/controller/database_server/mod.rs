//! The controller of `DatabaseServer`: whether the server can be used, and which databases, roles and accounts on it are
//! orphaned.

mod lost_accounts;
mod reconcile;

pub use reconcile::run;
