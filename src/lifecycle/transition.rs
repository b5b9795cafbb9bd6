//! Makes the record before a stage's effects, after them, and after what was seen meanwhile.

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

/// The record of a decided stage. To be stored before its first effect.
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
        // What the attempts left goes with the database, and the promise stands as it was made.
        Stage::Deleted if reason.is_unproven() => {
            next.leaves_at = Some(now);
            next.frozen = None;
        }
        Stage::Deleted => {
            // The promise stands as it was made; see `slip`.
            next.leaves_at = if next.waives_backup() { Some(now) } else { next.frozen.map(|pin| pin.expires_at) };
            next.data_gone_by = next.leaves_at;
            next.unprovable = None;
        }
        Stage::Expired => next.leaves_at = None,
        Stage::Trial | Stage::Blocked | Stage::Terminated => {}
    }
    next
}

/// The record after [`Step::GoBack`]: the stage before is taken up again, with what was pinned for it. To be stored
/// before its first effect.
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
        // Nobody watched the seal meanwhile.
        next.sealed_since = Some(now);
        next.frozen = next.frozen.map(|pin| FrozenPin { due: now.max(pin.due + SignedDuration::from_secs(1)), ..pin });
    }
    next
}

/// The record of a stage whose effects were all seen: its window starts now. Waits, by leaving the record as it is,
/// where a window cannot be pinned because the plan or the clock cannot be believed.
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

/// The record after it was looked at whether somebody is in, or could get in, although the account is closed. What was
/// frozen before is then older than the data: once nobody is in any more, the seal is set anew and another Frozen backup
/// is due, with the same deadline. While somebody is in, none is: it would be out of date before it was taken.
pub fn check_seal(record: &Record, somebody_is_in: bool, now: Moment) -> Record {
    let mut next = record.clone();
    if record.sealed_since.is_none() || !matches!(record.stage, Stage::Blocked | Stage::Terminated) {
        return next;
    }
    match (somebody_is_in, record.seal_broken_since) {
        (true, None) => next.seal_broken_since = Some(now),
        (false, Some(_)) => {
            next.seal_broken_since = None;
            next.sealed_since = Some(now);
            // Two pins of one account must never share a name.
            next.frozen = record.frozen.map(|pin| FrozenPin { due: now.max(pin.due + SignedDuration::from_secs(1)), ..pin });
        }
        (true, Some(_)) | (false, None) => {}
    }
    next
}

/// The record after it was looked at whether its Frozen backup can be proven. `agreed` are the two who wrote that they
/// do not want to wait: who asked, and who approved.
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
        // Its object may be gone, or be tried again: it stays known until one attempt succeeds.
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

/// The record after something was seen to delay a step that destroys: the certificate tells it.
pub fn note_delay(record: &Record, verdict: &Decision) -> Record {
    let mut next = record.clone();
    let destroys = record.stage.destroys() || verdict.next.is_some_and(|n| n.stage.destroys());
    if destroys && verdict.overdue_since.is_some() {
        for name in verdict.blockers.iter().map(Blocker::name) {
            if !next.delayed_by.iter().any(|n| n == name) {
                next.delayed_by.push(name.to_owned());
            }
        }
    }
    next
}

/// The record after [`Step::Refreeze`]: a Frozen backup that will live for the plan's window from now on.
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
