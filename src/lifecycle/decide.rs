//! **The decision**: the step that an account takes now, and what delays it.

use k8s_openapi::jiff::SignedDuration;

use super::{
    Reason, Stage,
    deadlines::slip,
    due::due,
    facts::{Blocker, Decision, Facts, Frozen, Next, Step},
    record::{FrozenPin, Known, Record, Unprovable},
};
use crate::{
    api::Lifecycle,
    clock::{Moment, Trust},
};

/// How long after the backup's deadline a restore that was begun in time may delay the destruction of its backup.
pub const RESTORE_EXTENSION: SignedDuration = SignedDuration::from_hours(24);

/// Decides the next step of an account from its record, the facts and the time. See [`super`].
pub fn decide(record: &Record, facts: &Facts, now: Moment) -> Decision {
    if record.enforced_at.is_none() {
        return enforcing(record, facts, now);
    }
    let next = due(record);
    let Some(next) = next else {
        return Decision {
            step: Step::Stay,
            next: None,
            blockers: vec![],
            overdue_since: None,
            requeue_at: record.notice_until.filter(|at| *at > now),
        };
    };
    if next.at > now {
        return Decision { step: Step::Stay, next: Some(next), blockers: vec![], overdue_since: None, requeue_at: Some(next.at) };
    }
    let (step, blockers) = step_to(record, facts, next, now);
    let (step, overdue_since) = if blockers.is_empty() { (step, None) } else { (Step::Stay, Some(next.at)) };
    let requeue_at = blockers.iter().filter_map(Blocker::ends).max();
    let next = match blockers[..] {
        // The wait for an unprovable backup has a known end: the database is dropped then.
        [Blocker::Unprovable { until, .. }] => Next { at: until, reason: Reason::PromiseElapsed, ..next },
        _ => next,
    };
    Decision { step, next: Some(next), blockers, overdue_since, requeue_at }
}

/// Decides for a stage whose effects are under way: carries on, or reverses it if its cause is gone. A stage that
/// destroys must pass hold and facts again before it carries on.
pub(super) fn enforcing(record: &Record, facts: &Facts, now: Moment) -> Decision {
    if let Some((step, next)) = turns_round(record, facts, now) {
        let (step, blockers, overdue_since) =
            if facts.paused { (Step::Stay, vec![Blocker::Paused], Some(next.at)) } else { (step, vec![], None) };
        return Decision { step, next: Some(next), blockers, overdue_since, requeue_at: None };
    }
    let mut blockers = Vec::new();
    if record.stage.destroys() {
        blockers.extend(holds(record, now));
        blockers.extend(unknowns(facts, record.closure.is_some()));
    }
    if facts.paused {
        blockers.push(Blocker::Paused);
    }
    let step = if blockers.is_empty() { Step::Enforce } else { Step::Stay };
    let overdue_since = (!blockers.is_empty()).then_some(record.decided_at);
    let requeue_at = record.notice_until.filter(|at| *at > now);
    Decision { step, next: due(record), blockers, overdue_since, requeue_at }
}

/// The step that reverses a closing stage which is being entered; `None`: it is entered.
///
/// - A payment opens the account, unless its owner closed it.
/// - A withdrawn cancellation leads back to the stage before.
/// - A database that is to be dropped is kept when it is held, when its erasure was withdrawn, or when its backup expired.
///
/// Once `dropped_under` is recorded, the server may still execute a DROP that was sent. From then on only an expired
/// backup leads back, into a stage that is as closed.
pub(super) fn turns_round(record: &Record, facts: &Facts, now: Moment) -> Option<(Step, Next)> {
    let (may_open, may_go_back) = match record.stage {
        Stage::Blocked | Stage::Terminated => (true, true),
        Stage::Deleted => {
            let is_there = facts.dropped == Known::Known(false);
            (is_there && record.dropped_under.is_none(), is_there)
        }
        Stage::Trial | Stage::Active | Stage::Expired => (false, false),
    };
    if may_open && record.is_paid() {
        let paid_since = record.standing.as_ref().and_then(|standing| standing.paid_since);
        let at = paid_since.map_or(record.decided_at, |paid| paid.max(record.decided_at));
        let next = Next { stage: Stage::Active, at, reason: Reason::Paid };
        return Some((Step::Enter(Stage::Active, Reason::Paid), next));
    }
    let before = record.before.as_ref().filter(|_| may_go_back)?;
    let back = match record.stage {
        Stage::Deleted if has_run_out(record, facts, now) => true,
        Stage::Deleted if record.dropped_under.is_some() => false,
        // The erasure had shortened the windows; `go_back` pins them again and needs the plan's.
        Stage::Deleted if record.withdrawn => matches!(facts.windows, Known::Known(_)),
        Stage::Deleted => record.held_since.is_some(),
        _ => record.withdrawn,
    };
    back.then_some((Step::GoBack, Next { stage: before.stage, at: record.decided_at, reason: before.reason }))
}

/// Whether the backup under which a database was to be dropped expired or was erased before the drop. The account then
/// goes back to the stage before, which decides to take another one.
pub(super) fn has_run_out(record: &Record, facts: &Facts, now: Moment) -> bool {
    let needed = !record.reason.is_unproven() && !record.waives_backup();
    let expired = facts.clock == Trust::Trusted && record.frozen.is_none_or(|pin| pin.expires_at <= now);
    needed && (expired || facts.frozen == Known::Known(Frozen::Erased))
}

/// The step that leads to the stage that is due, and its blockers.
pub(super) fn step_to(record: &Record, facts: &Facts, next: Next, now: Moment) -> (Step, Vec<Blocker>) {
    let mut blockers = Vec::new();
    let by_owner = record.closure.is_some();
    let enter = Step::Enter(next.stage, next.reason);
    match next.stage {
        Stage::Active => {
            if facts.paused {
                blockers.push(Blocker::Paused);
            }
            if record.stage != Stage::Deleted {
                return (enter, blockers);
            }
            match restore_is_possible(record, facts, now) {
                Ok(()) => return (Step::Restore, blockers),
                Err(Some(blocker)) => blockers.push(blocker),
                Err(None) => {
                    let end = Next { stage: Stage::Expired, at: record.leaves_at.unwrap_or(now), reason: Reason::BackupExpired };
                    return step_to(record, facts, end, now);
                }
            }
            blockers.sort();
            (Step::Restore, blockers)
        }
        Stage::Trial => (Step::Stay, blockers),
        Stage::Blocked | Stage::Terminated => {
            blockers.extend(unknowns(facts, by_owner));
            if facts.paused {
                blockers.push(Blocker::Paused);
            }
            (enter, blockers)
        }
        Stage::Deleted | Stage::Expired => {
            blockers.extend(holds(record, now));
            blockers.extend(unknowns(facts, by_owner));
            match &facts.brake {
                Known::Known(true) => {}
                Known::Known(false) => blockers.push(Blocker::Brake),
                Known::Unknown(why) => blockers.push(Blocker::Unknown(why.clone())),
            }
            if facts.paused {
                blockers.push(Blocker::Paused);
            }
            if next.stage == Stage::Deleted && blockers.is_empty() {
                return drop_or_wait(record, facts, enter, next.at, now);
            }
            (enter, blockers)
        }
    }
}

/// The last check before a database is dropped. It must be sealed, and one of three must hold: a proven backup lives
/// long enough, the owner waived the backup, or the wait for a backup that cannot be proven is over.
pub(super) fn drop_or_wait(record: &Record, facts: &Facts, enter: Step, due: Moment, now: Moment) -> (Step, Vec<Blocker>) {
    let mut blockers = Vec::new();
    match &facts.sealed {
        Known::Known(true) => {}
        Known::Known(false) => blockers.push(Blocker::Sessions),
        Known::Unknown(why) => blockers.push(Blocker::Unknown(why.clone())),
    }
    if record.waives_backup() {
        return (enter, blockers);
    }
    if let Some(unprovable) = without_proof(record, facts) {
        return drop_unproven(record, facts, unprovable, blockers, now);
    }
    let Some(pin) = record.frozen.filter(|pin| pin.expires_at > now) else { return (Step::Refreeze, blockers) };
    match &facts.frozen {
        Known::Known(Frozen::Verified) if lives_long_enough(pin, &facts.windows, due, now) => {}
        Known::Known(Frozen::Verified | Frozen::Erased) => return (Step::Refreeze, blockers),
        Known::Known(Frozen::Missing | Frozen::Running) => {
            blockers.push(Blocker::Backup("the cold backup is still being taken and proven".into()));
        }
        Known::Known(Frozen::Failed(why) | Frozen::Unprovable { why, .. }) => blockers.push(Blocker::Backup(why.clone())),
        Known::Unknown(why) => blockers.push(Blocker::Unknown(why.clone())),
    }
    (enter, blockers)
}

/// The finding that the Frozen backup which is required now cannot be proven; `None` if it was proven after all.
pub(super) fn without_proof<'r>(record: &'r Record, facts: &Facts) -> Option<&'r Unprovable> {
    let unprovable = record.unprovable.as_ref()?;
    let same = record.frozen.is_some_and(|pin| pin.due == unprovable.due);
    (same && facts.frozen != Known::Known(Frozen::Verified)).then_some(unprovable)
}

/// Keeps a database without a proven backup, without logins, until `data_gone_by`. Then it is dropped: keeping it longer
/// would break the promise to the owner that no data is left. Two people may agree to drop it sooner.
pub(super) fn drop_unproven(
    record: &Record,
    facts: &Facts,
    unprovable: &Unprovable,
    mut blockers: Vec<Blocker>,
    now: Moment,
) -> (Step, Vec<Blocker>) {
    let elapsed = record.data_gone_by.filter(|until| *until <= now);
    let reason = match (elapsed, &unprovable.agreed) {
        (Some(_), _) => Reason::PromiseElapsed,
        (None, Some(_)) => Reason::DropAgreed,
        (None, None) => {
            let until = record.data_gone_by.unwrap_or(Moment::MAX);
            blockers.push(Blocker::Unprovable { until, why: unprovable.why.clone() });
            return (Step::Stay, blockers);
        }
    };
    if facts.backup_held {
        blockers.push(Blocker::Hold { until: None });
    }
    match &facts.frozen {
        Known::Known(Frozen::Running) => blockers.push(Blocker::Backup("the last attempt at the cold backup has not ended".into())),
        Known::Known(_) => {}
        Known::Unknown(why) => blockers.push(Blocker::Unknown(why.clone())),
    }
    (Step::Enter(Stage::Deleted, reason), blockers)
}

/// Whether the Frozen backup outlives the database by the plan's `coldBackup` window, less [`slip`]. A backup that was
/// taken after the drop was due had its full window when it was begun; half of the window is enough for it, because
/// taking and proving it takes time.
pub(super) fn lives_long_enough(pin: FrozenPin, windows: &Known<Lifecycle>, due: Moment, now: Moment) -> bool {
    let Known::Known(windows) = windows else { return false };
    let left = pin.expires_at.duration_since(now);
    let window = windows.cold_backup.duration();
    left >= window - slip(windows) || (pin.due >= due && left >= window / 2)
}

/// Whether the cold backup can be restored. `Err(None)`: there is no backup to restore any more.
pub(super) fn restore_is_possible(record: &Record, facts: &Facts, now: Moment) -> Result<(), Option<Blocker>> {
    let ends = record.leaves_at.unwrap_or(now);
    let over = match record.restoring_since {
        Some(_) => now >= ends + RESTORE_EXTENSION,
        None => now >= ends,
    };
    match &facts.frozen {
        _ if over => Err(None),
        Known::Known(Frozen::Verified) => Ok(()),
        Known::Known(Frozen::Erased | Frozen::Missing) => Err(None),
        Known::Known(Frozen::Running) => Err(Some(Blocker::Backup("the cold backup is not proven".into()))),
        Known::Known(Frozen::Failed(why) | Frozen::Unprovable { why, .. }) => Err(Some(Blocker::Backup(why.clone()))),
        Known::Unknown(why) => Err(Some(Blocker::Unknown(why.clone()))),
    }
}

pub(super) fn holds(record: &Record, now: Moment) -> Option<Blocker> {
    if record.held_since.is_some() {
        return Some(Blocker::Hold { until: None });
    }
    record.notice_until.filter(|until| *until > now).map(|until| Blocker::Hold { until: Some(until) })
}

/// The unknown facts that block every closing and destroying step. A closure by the owner does not need billing.
pub(super) fn unknowns(facts: &Facts, by_owner: bool) -> Vec<Blocker> {
    let mut unknown = Vec::new();
    if let Known::Unknown(why) = &facts.windows {
        unknown.push(Blocker::Unknown(why.clone()));
    }
    if let Trust::Doubtful(why) = &facts.clock {
        unknown.push(Blocker::Unknown(why.clone()));
    }
    if !by_owner && let Known::Unknown(why) = &facts.billing {
        unknown.push(Blocker::Unknown(why.clone()));
    }
    unknown
}
