//! Pins deadlines: the ends of windows and of grace periods, and when the Frozen backup expires.

use k8s_openapi::jiff::SignedDuration;

use super::{
    Stage,
    record::{FrozenPin, Grace, Record},
};
use crate::{
    api::{Lifecycle, Window},
    clock::Moment,
};

pub(super) fn pin_stage(next: &mut Record, windows: &Lifecycle, enforced_at: Moment) {
    let erasure = next.erasure().cloned();
    match next.stage {
        Stage::Trial => {
            let ends = *next.trial_ends_at.get_or_insert(enforced_at + windows.trial.duration());
            next.leaves_at = Some(ends);
        }
        Stage::Blocked => {
            let leaves_at = erasure.as_ref().map_or(enforced_at + windows.blocked.duration(), |e| e.delete_at.max(enforced_at));
            next.leaves_at = Some(leaves_at);
            next.data_gone_by = Some(match &erasure {
                None => leaves_at + windows.terminated.duration() + windows.cold_backup.duration(),
                Some(e) if e.keeps_backup => leaves_at + windows.cold_backup.duration(),
                Some(_) => leaves_at,
            });
        }
        Stage::Terminated => {
            let leaves_at = enforced_at + windows.terminated.duration();
            next.leaves_at = Some(leaves_at);
            let honest = leaves_at + windows.cold_backup.duration();
            next.data_gone_by = match next.data_gone_by {
                Some(promised) if promised <= honest && honest - slip(windows) <= promised => Some(promised),
                Some(promised) if promised < honest => {
                    next.promised.get_or_insert(promised);
                    Some(honest)
                }
                _ => Some(honest),
            };
        }
        Stage::Active | Stage::Deleted | Stage::Expired => {}
    }
}

pub(super) fn pin_grace(next: &mut Record, windows: &Lifecycle, recompute: bool) {
    next.grace = match (next.standing.as_ref().and_then(|standing| standing.failing_since), next.grace) {
        (None, _) => None,
        (Some(since), Some(grace)) if grace.since == since && !recompute => Some(grace),
        (Some(since), _) => Some(Grace { since, ends_at: since + windows.payment_grace.duration() }),
    };
}

pub(super) fn recompute_windows(next: &mut Record, windows: &Lifecycle, now: Moment) {
    let Some(enforced_at) = next.enforced_at else { return };
    if next.erasure().is_some() {
        return;
    }
    match next.stage {
        Stage::Trial => {
            next.trial_ends_at = Some(enforced_at + windows.trial.duration());
            next.leaves_at = next.trial_ends_at;
        }
        Stage::Blocked => {
            next.leaves_at = Some(enforced_at + windows.blocked.duration());
            next.data_gone_by = next.leaves_at.map(|at| at + windows.terminated.duration() + windows.cold_backup.duration());
        }
        Stage::Terminated => {
            let leaves_at = enforced_at + windows.terminated.duration();
            next.leaves_at = Some(leaves_at);
            // A Frozen backup that is taken after the window, because something delayed the drop, has a full window from then
            // on. Shortening that would ask for another backup, again and again.
            if next.frozen.is_none_or(|pin| pin.due < leaves_at) {
                next.data_gone_by = Some(leaves_at + windows.cold_backup.duration());
            }
        }
        Stage::Active | Stage::Deleted | Stage::Expired => return,
    }
    if let (Some(pin), Some(gone_by)) = (next.frozen, next.data_gone_by)
        && pin.expires_at != gone_by
    {
        next.frozen = frozen_pin(next, now);
    }
}

/// The Frozen backup that expires at `data_gone_by`: the present one if it does, or a new one that is named from `due`.
pub(super) fn frozen_pin(record: &Record, due: Moment) -> Option<FrozenPin> {
    let expires_at = record.data_gone_by?;
    match record.frozen {
        Some(pin) if pin.expires_at == expires_at => Some(pin),
        // Two pins of one account must never share a name.
        Some(pin) => Some(FrozenPin { due: due.max(pin.due + SignedDuration::from_secs(1)), expires_at }),
        None => Some(FrozenPin { due, expires_at }),
    }
}

/// How much shorter than its window a Frozen backup may outlive the database before another one is taken: a tenth.
pub(super) fn slip(windows: &Lifecycle) -> SignedDuration {
    Window::seconds(windows.cold_backup.as_seconds() / 10).duration()
}
