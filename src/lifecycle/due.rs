//! Computes which stage follows, when and why, if nothing delays it.

use super::{Reason, Stage, facts::Next, record::Record};
use crate::{
    api::{BillingState, ClosureMode},
    clock::Moment,
};

/// The stage that follows, when and why, if nothing delays it.
pub fn due(record: &Record) -> Option<Next> {
    let since = record.enforced_at.unwrap_or(record.decided_at);
    let to = |stage, at, reason| Some(Next { stage, at, reason });
    match record.stage {
        Stage::Trial | Stage::Active => {
            if let Some(closure) = &record.closure {
                return match closure.mode {
                    ClosureMode::Cancel => to(Stage::Terminated, closure.seen_at, closure.reason()),
                    ClosureMode::Erase => to(Stage::Blocked, closure.seen_at, closure.reason()),
                };
            }
            due_by_billing(record, since)
        }
        Stage::Blocked => {
            if let Some(closure) = &record.closure {
                return match closure.mode {
                    ClosureMode::Cancel => to(Stage::Terminated, closure.seen_at.max(since), closure.reason()),
                    ClosureMode::Erase => to(Stage::Deleted, closure.delete_at, closure.reason()),
                };
            }
            if record.is_paid() {
                return to(Stage::Active, since, Reason::Paid);
            }
            to(Stage::Terminated, record.leaves_at?, Reason::WindowEnded)
        }
        Stage::Terminated => {
            if let Some(erasure) = record.erasure() {
                return to(Stage::Deleted, record.leaves_at.map_or(erasure.delete_at, |at| at.min(erasure.delete_at)), erasure.reason());
            }
            if record.is_paid() {
                return to(Stage::Active, since, Reason::Paid);
            }
            to(Stage::Deleted, record.leaves_at?, Reason::WindowEnded)
        }
        Stage::Deleted => {
            let ends = record.leaves_at?;
            if record.reason.is_unproven() {
                // There is no proven backup, so no restore is possible.
                return to(Stage::Expired, ends, record.reason);
            }
            if record.waives_backup() {
                return to(Stage::Expired, ends, Reason::OwnerErased);
            }
            if record.is_paid() && restorable(record, ends) {
                return to(Stage::Active, since, Reason::Paid);
            }
            to(Stage::Expired, ends, Reason::BackupExpired)
        }
        Stage::Expired => None,
    }
}

/// When the tenant's logins are to be shut, by the record alone: at the end of an open stage, or when a closing stage
/// was decided that is not enforced yet. `None`: no deadline is pinned, or they are shut.
pub fn shuts_at(record: &Record) -> Option<Moment> {
    match record.stage {
        Stage::Trial | Stage::Active => due(record).filter(|next| !next.stage.is_open()).map(|next| next.at),
        Stage::Blocked | Stage::Terminated => record.enforced_at.is_none().then_some(record.decided_at),
        Stage::Deleted | Stage::Expired => None,
    }
}

/// Whether a restore may start or go on: it must have begun before the backup's deadline.
pub(super) fn restorable(record: &Record, ends: Moment) -> bool {
    record.restoring_since.is_none_or(|begun| begun < ends)
}

/// The earliest stage that follows from billing. A payment that counts takes precedence over everything else.
pub(super) fn due_by_billing(record: &Record, since: Moment) -> Option<Next> {
    let trial_end = || record.trial_ends_at.map(|at| Next { stage: Stage::Blocked, at, reason: Reason::TrialEnded });
    let Some(standing) = &record.standing else {
        return trial_end().filter(|_| record.stage == Stage::Trial);
    };
    let said = match standing.state {
        BillingState::Active if record.stage == Stage::Active => None,
        // After a withdrawn closure the account stays in its stage until billing writes a newer payment.
        BillingState::Active if !record.is_paid() => trial_end(),
        BillingState::Active => return Some(Next { stage: Stage::Active, at: since, reason: Reason::Paid }),
        state => blocks_at(record, state, standing.ends_at),
    };
    // A failed payment blocks at the end of its grace, whatever other state billing wrote after it, unless a payment did.
    let unpaid = blocks_at(record, BillingState::Unpaid, None);
    let doubted = standing.doubted.as_ref().and_then(|doubted| {
        let counts_at = doubted.counts_at?;
        let then = blocks_at(record, doubted.state, doubted.ends_at);
        let then = then.unwrap_or(Next { stage: Stage::Blocked, at: counts_at, reason: Reason::PaymentFailed });
        Some(Next { at: then.at.max(counts_at), ..then })
    });
    [said, unpaid, doubted].into_iter().flatten().min_by_key(|next| next.at)
}

/// When and why a billing state that is not a payment blocks the account.
pub(super) fn blocks_at(record: &Record, state: BillingState, ends_at: Option<Moment>) -> Option<Next> {
    let failing_since = record.standing.as_ref().and_then(|standing| standing.failing_since);
    // A grace that was pinned for an earlier run of failures does not apply.
    let grace = record.grace.filter(|grace| Some(grace.since) == failing_since);
    let (at, reason) = match state {
        BillingState::PastDue | BillingState::Unpaid => (grace.map(|grace| grace.ends_at), Reason::PaymentFailed),
        BillingState::Canceled => (ends_at, Reason::SubscriptionCanceled),
        BillingState::Paused | BillingState::IncompleteExpired => (ends_at, Reason::SubscriptionLapsed),
        BillingState::Trialing => (record.trial_ends_at, Reason::TrialEnded),
        BillingState::Active | BillingState::Incomplete => return None,
    };
    Some(Next { stage: Stage::Blocked, at: at?, reason })
}
