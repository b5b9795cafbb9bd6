//! Updates the record from the account's spec and from billing: billing state, closure, hold.

use super::{
    Reason, Stage,
    billing::{self, RejectedBilling, Told},
    deadlines::{frozen_pin, pin_grace, pin_stage, recompute_windows},
    record::{ClosureRecord, Known, Record},
};
use crate::{
    api::{Billing, ClockPolicy, Closure, ClosureMode, Lifecycle},
    clock::{Moment, Trust},
};

/// The present values of the account's spec, of billing and of the plan.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// `.status.billing`.
    pub billing: Option<&'a Billing>,
    /// `.spec.closure`.
    pub closure: Option<&'a Closure>,
    /// Whether the object is being deleted with a confirmation.
    pub confirmed_deletion: bool,
    /// Whether `.spec.hold` is set.
    pub held: bool,
    /// The plan's windows.
    pub windows: Known<&'a Lifecycle>,
    /// The plan's clock policy.
    pub clock_policy: ClockPolicy,
    /// When the account was created: billing from before that is refused.
    pub created_at: Moment,
    /// Whether the clock may be used to pin deadlines.
    pub clock: Trust,
}

/// Updates billing, closure and hold of the record. Returns the rejection because of which billing's present state is
/// unknown, if there is one. The last rejection of any kind is in [`Record::told`].
pub fn update_record(record: &Record, seen: &Inputs<'_>, now: Moment) -> (Record, Option<RejectedBilling>) {
    let mut next = record.clone();
    let refused = update_billing(&mut next, seen, now);
    update_closure(&mut next, seen, now);
    update_hold(&mut next, seen, now);

    if let (Known::Known(windows), Trust::Trusted) = (&seen.windows, &seen.clock) {
        pass_time(&mut next, windows, seen.clock_policy, now);
    }
    (next, refused)
}

/// Updates what follows from the plan's windows and from the time alone.
pub(super) fn pass_time(next: &mut Record, windows: &Lifecycle, clock_policy: ClockPolicy, now: Moment) {
    let recompute = clock_policy == ClockPolicy::Recompute;
    if let Some(standing) = &mut next.standing {
        standing.settle(windows.payment_grace.duration(), recompute, now);
    }
    pin_grace(next, windows, recompute);
    if recompute {
        recompute_windows(next, windows, now);
    }
}

pub(super) fn update_billing(next: &mut Record, seen: &Inputs<'_>, now: Moment) -> Option<RejectedBilling> {
    let word = seen.billing.filter(|word| !next.has_heard(word))?;
    let checked = billing::check(next.billing.as_ref(), word, seen.created_at, now);
    let refused = match checked {
        Err(refused) => Some(refused),
        Ok(()) => {
            let (standing, refused) = billing::judge_billing(next.standing.as_ref(), word, now);
            next.standing = standing;
            next.billing = Some(word.clone());
            refused
        }
    };
    if let Some(why) = &refused {
        next.told = Some(Told { mark: billing::mark(word), why: why.clone() });
    }
    refused.filter(RejectedBilling::leaves_unknown)
}

pub(super) fn update_closure(next: &mut Record, seen: &Inputs<'_>, now: Moment) {
    let owners = seen.closure.map(|c| (c.mode, c.keeps_backup()));
    let wish = if seen.confirmed_deletion { Some((ClosureMode::Erase, owners.is_none_or(|(_, keeps)| keeps))) } else { owners };
    match (wish, &next.closure) {
        (Some((mode, keeps_backup)), before) => {
            let same = before
                .as_ref()
                .is_some_and(|b| b.mode == mode && b.keeps_backup == keeps_backup && b.by_deletion == seen.confirmed_deletion);
            // The erasure delay is pinned when the closure is first observed. That needs the plan's windows and a trusted
            // clock; without them the closure is recorded in a later reconcile.
            let (Known::Known(windows), Trust::Trusted) = (&seen.windows, &seen.clock) else { return };
            if !same {
                let seen_at = before.as_ref().filter(|b| b.mode == mode).map_or(now, |b| b.seen_at);
                let delete_at = match mode {
                    ClosureMode::Cancel => seen_at,
                    ClosureMode::Erase if seen.confirmed_deletion && keeps_backup => now,
                    ClosureMode::Erase => seen_at + windows.erase_delay.duration(),
                };
                next.closure = Some(ClosureRecord { mode, keeps_backup, seen_at, delete_at, by_deletion: seen.confirmed_deletion });
                next.withdrawn = false;
                pin_for_closure(next, windows);
            }
        }
        // The cancellation's stage was never enforced, so withdrawing it restores everything.
        (None, Some(closure)) if closure.mode == ClosureMode::Cancel && next.is_being_entered_for(Reason::OwnerCancelled) => {
            next.closure = None;
            next.withdrawn = true;
        }
        (None, Some(closure)) if next.stage < Stage::Deleted || (next.stage == Stage::Deleted && next.enforced_at.is_none()) => {
            // The closure was withdrawn: the account stays closed until billing writes a newer payment.
            next.withdrawn = next.stage == Stage::Deleted && closure.mode == ClosureMode::Erase;
            next.closure = None;
            next.paid_above = next.billing.as_ref().map(billing::mark).or(Some((0, -1)));
            if let (Known::Known(windows), Some(enforced_at)) = (&seen.windows, next.pinned_at()) {
                pin_stage(next, windows, enforced_at);
                next.promised = None;
                next.frozen = frozen_pin(next, enforced_at);
            }
        }
        _ => {}
    }
    if let (Some(floor), Some(standing)) = (next.paid_above, &next.standing)
        && standing.mark > floor
    {
        next.paid_above = None;
    }
}

/// Shortens the deadlines for an erasure: the data is deleted at the closure's `delete_at` at the latest.
pub(super) fn pin_for_closure(next: &mut Record, windows: &Lifecycle) {
    let Some(erasure) = next.erasure() else { return };
    let delete_at = erasure.delete_at;
    let gone_by = if erasure.keeps_backup { delete_at + windows.cold_backup.duration() } else { delete_at };
    match next.stage {
        Stage::Blocked | Stage::Terminated if next.pinned_at().is_some() => {
            next.leaves_at = Some(next.leaves_at.map_or(delete_at, |at| at.min(delete_at)));
            let gone_by = next.data_gone_by.map_or(gone_by, |at| at.min(gone_by));
            next.data_gone_by = Some(gone_by);
            next.frozen =
                if next.waives_backup() { None } else { frozen_pin(next, next.closure.as_ref().map_or(delete_at, |c| c.seen_at)) };
        }
        Stage::Deleted if next.waives_backup() => {
            let end = next.leaves_at.map_or(delete_at, |at| at.min(delete_at));
            next.leaves_at = Some(end);
            next.data_gone_by = Some(end);
        }
        _ => {}
    }
}

pub(super) fn update_hold(next: &mut Record, seen: &Inputs<'_>, now: Moment) {
    match (seen.held, next.held_since) {
        (true, None) => {
            next.held_since = Some(now);
            next.notice_until = None;
        }
        (false, Some(_)) => {
            // Without the plan's windows and a trusted clock the notice period cannot be computed, so the hold stays.
            if let (Known::Known(windows), Trust::Trusted) = (&seen.windows, &seen.clock) {
                next.held_since = None;
                next.notice_until = Some(now + windows.hold_notice.duration());
            }
        }
        _ => {}
    }
}
