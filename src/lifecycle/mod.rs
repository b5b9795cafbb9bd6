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
//! A closing stage that was decided and is not enforced yet can be reversed: by a payment, or by the owner who withdraws
//! a cancellation. Until a drop is authorized, a hold or a withdrawn erasure also reverses the entry into Deleted.
//!
//! Four pure steps, none of which reads a clock, does I/O or can fail:
//!
//! 1. [`update_record`] copies the inputs into the [`Record`]: `status.billing`, the owner's closure, a hold.
//! 2. [`decide`] says what is due: stay, carry on enforcing, enter another stage, go back to the one before, restore.
//! 3. [`enter`] or [`go_back`] makes the record of the intent. The caller stores it before any effect.
//! 4. [`enforced`] marks the stage as enforced once all its effects were observed, and pins the deadlines of its window.
//!
//! **Invariant: an unknown fact never permits destruction.** A fact that could not be read is [`Known::Unknown`], and
//! every path to [`Stage::Deleted`] and [`Stage::Expired`] requires all facts to be known.
//!
//! **Invariant: no database is kept for ever.** A database whose backup cannot be proven is kept, without logins, until
//! `data_gone_by`. Then it is dropped without a proven backup ([`Reason::PromiseElapsed`]).
//!
//! **Invariant: one stage at a time.** A window starts when its stage is enforced. An operator that was down for a
//! hundred days therefore lengthens windows and never skips one.

pub mod billing;
mod deadlines;
mod decide;
mod due;
mod facts;
mod forecast;
mod inputs;
mod record;
#[cfg(test)]
pub(crate) mod tests;
mod transition;

pub use decide::{RESTORE_EXTENSION, decide};
pub use due::{due, shuts_at};
pub use facts::{Blocker, Decision, Facts, Frozen, Next, Step};
pub use forecast::forecast;
pub use inputs::{Inputs, update_record};
pub use record::{AdminPassword, Agreed, Before, ClosureRecord, FrozenPin, Grace, Known, PinnedClass, PlanSeen, Record, Unprovable};
pub use transition::{check_proof, check_seal, discard_frozen, enforced, enter, go_back, note_delay, refreeze};

pub use crate::api::stage::{Reason, Stage};
pub use billing::{BillingMark, RejectedBilling};
