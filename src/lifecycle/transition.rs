//! Makes the next record: before a stage's effects, after them, and after observations in between.

use k8s_openapi::jiff::SignedDuration;

use super::{
    Reason, Stage,
    deadlines::{frozen_pin, pin_stage},
    facts::{Blocker, Decision, Frozen},
    record::{Agreed, Before, FrozenPin, Known, Record, Unprovable},
};
use crate::{
    api::Lifecycle,
    clock::{Moment, Trust},
};

/// The record after a stage was decided. The caller must store it before the stage's first effect.
pub fn enter(record: &Record, stage: Stage, reason: Reason, now: Moment) -> Record {
    let mut next = record.clone();
    if let Some(enforced_at) = record.enforced_at {
        next.before = Some(Before {
            stage: record.stage,
            reason: record.reason,
            enforced_at,
            leaves_at: record.leaves_at,
            data_gone_by: record.data_gone_by,
            frozen: record.frozen,
            unprovable: record.unprovable.clone(),
        });
    }
    next.stage = stage;
    next.reason = reason;
    next.decided_at = now;
    next.enforced_at = None;
    next.resumes = None;
    next.withdrawn = false;
    next.restoring_since = None;
    next.restored = None;
    if stage == Stage::Deleted {
        next.restored_without.clear();
    }
    match stage {
        Stage::Active => {
            next.leaves_at = None;
            next.data_gone_by = None;
            next.frozen = None;
            next.sealed_since = None;
            next.seal_broken_since = None;
            next.unprovable = None;
            next.promised = None;
            next.delayed_by.clear();
            next.dropped_under = None;
        }
        // What the failed attempts left in the bucket is erased after the drop. `data_gone_by` stays as it was promised.
        Stage::Deleted if reason.is_unproven() => {
            next.leaves_at = Some(now);
            next.frozen = None;
        }
        Stage::Deleted => {
            // The backup's own deadline is the end now; it may differ from the promise by `slip`.
            next.leaves_at = if next.waives_backup() { Some(now) } else { next.frozen.map(|pin| pin.expires_at) };
            next.data_gone_by = next.leaves_at;
            next.unprovable = None;
        }
        Stage::Expired => next.leaves_at = None,
        Stage::Trial | Stage::Blocked | Stage::Terminated => {}
    }
    next
}

/// The record after [`Step::GoBack`]: the account returns to the stage before, with the deadlines that were pinned for
/// it. The caller must store it before its first effect.
pub fn go_back(record: &Record, windows: &Known<Lifecycle>, now: Moment) -> Record {
    let Some(before) = &record.before else { return record.clone() };
    let mut next = Record {
        stage: before.stage,
        reason: before.reason,
        decided_at: now,
        enforced_at: None,
        leaves_at: before.leaves_at,
        data_gone_by: before.data_gone_by,
        frozen: before.frozen,
        unprovable: before.unprovable.clone(),
        before: None,
        resumes: Some(before.enforced_at),
        withdrawn: false,
        dropped_under: None,
        ..record.clone()
    };
    if let (Stage::Deleted, true, Known::Known(windows)) = (record.stage, record.withdrawn, windows) {
        pin_stage(&mut next, windows, before.enforced_at);
        next.promised = None;
        next.frozen = frozen_pin(&next, now);
    }
    if record.stage == Stage::Deleted && !record.reason.is_unproven() && next.sealed_since.is_some() {
        // The seal was not checked during Deleted, so it is set anew and another backup is due.
        next.sealed_since = Some(now);
        next.frozen = next.frozen.map(|pin| FrozenPin { due: now.max(pin.due + SignedDuration::from_secs(1)), ..pin });
    }
    next
}

/// The record of a stage whose effects were all observed: its window starts now. If a window has to be pinned and the
/// plan is unknown or the clock is not trusted, the record stays as it is and a later reconcile tries again.
pub fn enforced(record: &Record, windows: &Known<Lifecycle>, clock: &Trust, now: Moment) -> Record {
    let mut next = record.clone();
    if let Some(since) = record.resumes {
        next.resumes = None;
        next.enforced_at = Some(since);
        return next;
    }
    let pins = matches!(record.stage, Stage::Trial | Stage::Blocked | Stage::Terminated);
    match (windows, clock) {
        (Known::Known(windows), Trust::Trusted) => {
            next.enforced_at = Some(now);
            next.before = None;
            if pins {
                if record.stage != Stage::Trial {
                    next.sealed_since.get_or_insert(now);
                }
                pin_stage(&mut next, windows, now);
                if record.stage != Stage::Trial && !next.waives_backup() {
                    next.frozen = frozen_pin(&next, now);
                }
            }
        }
        _ if pins => {}
        _ => {
            next.enforced_at = Some(now);
            next.before = None;
        }
    }
    next
}

/// The record after it was observed whether somebody has a session, or could open one, although the account is closed.
/// The Frozen backup may then be older than the data. Once no session is possible any more, the seal is set anew and
/// another Frozen backup is due, with the same deadline. It is not taken earlier, because it would be out of date at once.
/// A doubtful clock sets no seal, because every later backup could look older than it.
pub fn check_seal(record: &Record, somebody_is_in: bool, clock: &Trust, now: Moment) -> Record {
    let mut next = record.clone();
    if record.sealed_since.is_none() || !matches!(record.stage, Stage::Blocked | Stage::Terminated) {
        return next;
    }
    match (somebody_is_in, record.seal_broken_since) {
        (true, None) => next.seal_broken_since = Some(now),
        (false, Some(_)) if *clock == Trust::Trusted => {
            next.seal_broken_since = None;
            next.sealed_since = Some(now);
            // Two pins of one account must never share a name.
            next.frozen = record.frozen.map(|pin| FrozenPin { due: now.max(pin.due + SignedDuration::from_secs(1)), ..pin });
        }
        (true, Some(_)) | (false, _) => {}
    }
    next
}

/// The record after the Frozen backup was found to be no backup of the database since its seal, although Deleted was decided
/// with it. The account goes back, and another one is taken.
pub fn discard_frozen(record: &Record) -> Record {
    Record { frozen: None, ..record.clone() }
}

/// The record after it was observed whether its Frozen backup can be proven. `agreed` names the person who asked not to
/// wait for a proof and the person who approved.
pub fn check_proof(record: &Record, frozen: &Known<Frozen>, agreed: Option<(&str, &str)>, now: Moment) -> Record {
    let mut next = record.clone();
    if record.stage.destroys() {
        return next;
    }
    let due = record.frozen.map(|pin| pin.due);
    let known = record.unprovable.clone().filter(|u| Some(u.due) == due);
    next.unprovable = match (frozen, due) {
        (Known::Known(Frozen::Verified), _) | (_, None) => None,
        (Known::Known(Frozen::Unprovable { since, reason, why }), Some(due)) if known.is_none() => {
            Some(Unprovable { due, since: *since, reason: reason.clone(), why: why.clone(), agreed: None })
        }
        // The finding stays until an attempt succeeds, even if the ColdBackup is deleted or tried again.
        _ => known,
    };
    if let Some(unprovable) = &mut next.unprovable {
        unprovable.agreed = agreed.filter(|(requested, approved)| ![*requested, *approved].contains(&"") && requested != approved).map(
            |(requested_by, approved_by)| match &unprovable.agreed {
                Some(before) if before.requested_by == requested_by && before.approved_by == approved_by => before.clone(),
                _ => Agreed { requested_by: requested_by.to_owned(), approved_by: approved_by.to_owned(), seen_at: now },
            },
        );
    }
    next
}

/// The record with the blockers that delay a step that destroys. The deletion certificate lists them.
pub fn note_delay(record: &Record, decision: &Decision) -> Record {
    let mut next = record.clone();
    let destroys = record.stage.destroys() || decision.next.is_some_and(|n| n.stage.destroys());
    if destroys && decision.overdue_since.is_some() {
        for name in decision.blockers.iter().map(Blocker::name) {
            if !next.delayed_by.iter().any(|n| n == name) {
                next.delayed_by.push(name.to_owned());
            }
        }
    }
    next
}

/// The record after [`Step::Refreeze`]: another Frozen backup is due, which expires one `coldBackup` window from now.
pub fn refreeze(record: &Record, windows: &Lifecycle, now: Moment) -> Record {
    let mut next = record.clone();
    if let Some(promised) = record.data_gone_by {
        next.promised.get_or_insert(promised);
    }
    next.data_gone_by = Some(now + windows.cold_backup.duration());
    next.frozen =
        frozen_pin(&Record { frozen: next.frozen.map(|pin| FrozenPin { expires_at: Moment::UNIX_EPOCH, ..pin }), ..next.clone() }, now);
    next
}
