//! The controller of `HelpDeskPlan`: says in a plan's status what the plan names and nobody has.

mod reconcile;
mod references;

pub use reconcile::run;
