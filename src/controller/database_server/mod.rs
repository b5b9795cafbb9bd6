//! The controller of `DatabaseServer`: whether the server can be used, and what is on it that belongs to nobody.

mod lost_accounts;
mod reconcile;

pub use reconcile::run;
