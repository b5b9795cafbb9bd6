//! The lifecycle: the stages of a tenant and every rule by which one follows another.
//!
//! ```text
//!            paid                      first failure + 7 d, period end
//!  ┌───────┐ ────────► ┌────────┐ ───────────────────────────► ┌─────────┐
//!  │ Trial │           │ Active │ ◄─────────── paid ────────── │ Blocked │
//!  └───────┘           └────────┘ ◄──┐                         └─────────┘
//!      │ 14 d                │       │ paid                         │ 60 d
//!      └──────────► Blocked  │       │                              ▼
//!                            │  ┌────┴────────┐                ┌────────────┐
//!                            │  │ restored    │ ◄──── paid ─── │ Terminated │
//!                            │  └─────▲───────┘                └────────────┘
//!              owner cancels │        │ paid                        │ 30 d
//!                            ▼        │                             ▼
//!                       Terminated    └───────────────────── ┌─────────┐  30 d  ┌─────────┐
//!                                                            │ Deleted │ ─────► │ Expired │
//!                                                            └─────────┘        └─────────┘
//! ```
//!
//! While a closing stage is being entered, a payment and the withdrawal of what it was entered for turn it round; so does
//! a hold as long as nothing was dropped.
//!
//! Four pure steps, none of which reads a clock, does I/O or can fail:
//!
//! 1. [`update_record`] writes into the [`Record`] what the world says: billing, the owner's closure, a hold.
//! 2. [`decide`] says what is due: stay, carry on enforcing, enter another stage, go back to the one before, restore.
//! 3. [`enter`] makes the record of the intent, or [`go_back`], which is stored before any effect.
//! 4. [`enforced`] closes the stage once its effects were seen, and pins the deadlines that follow from it.
//!
//! **Invariant: unknown never permits destruction.** A fact that could not be read is [`Known::Unknown`], and every
//! path to [`Stage::Deleted`] and [`Stage::Expired`] asks for all of them.
//!
//! **Invariant: nothing waits for ever.** A database whose backup cannot be proven is kept, shut, until the time by
//! which nothing was to be left, and goes then ([`Reason::PromiseElapsed`]).
//!
//! **Invariant: one stage at a time.** A window starts when its stage was enforced, so an operator that was away for
//! a hundred days lengthens windows and never runs through them.

pub mod billing;
mod deadlines;
mod decide;
mod due;
mod facts;
mod inputs;
mod record;
#[cfg(test)]
mod tests;
mod transition;

pub use decide::{RESTORE_EXTENSION, decide};
pub use due::{due, shuts_at};
pub use facts::{Blocker, Decision, Facts, Frozen, Next, Step};
pub use inputs::{Inputs, update_record};
pub use record::{Agreed, Before, ClosureRecord, FrozenPin, Grace, Known, PlanSeen, Record, Unprovable};
pub use transition::{check_proof, check_seal, enforced, enter, go_back, note_delay, refreeze};

pub use crate::api::stage::{Reason, Stage};
pub use billing::{BillingMark, RejectedBilling};
