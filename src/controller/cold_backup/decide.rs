//! Decides what is done with a backup next. Pure.
//!
//! ```text
//! Pending ──► Running ──► Verified ──┐
//!    ▲           │                   │ deadline, or a confirmed deletion
//!    │           ▼                   ▼
//!    └──────── Failed ──────────► Erasing ──► Erased
//! ```
//!
//! An erasure is delayed, by rank, by a hold, by a clock that is doubtful, because no newer backup of the account is proven,
//! by a fact that is unknown, or by a restore that began before the deadline.

use crate::{
    api::{BackupPhase, BackupReason},
    backup::retention,
    clock::{Moment, Trust},
    lifecycle::{Known, RESTORE_EXTENSION},
};

/// The facts that the decision is made from.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The phase in status.
    pub phase: BackupPhase,
    /// Why the backup is taken.
    pub reason: BackupReason,
    /// When the backup must be erased.
    pub deadline: Moment,
    /// Whether the object is being deleted.
    pub deletion: Deletion,
    /// The reason of the backup's own hold, or of its account's.
    pub held: Option<String>,
    /// Since when a restore of the backup is decided or runs.
    pub restoring_since: Known<Option<Moment>>,
    /// Until when it is kept as the newest proven backup of its account; `None`: it is not.
    pub newest_until: Option<Moment>,
    /// Whether the clock can be trusted for an erasure.
    pub clock: Trust,
    /// Whether no account object of this name exists any more.
    pub account_gone: bool,
    /// When the last attempt failed, and the number of attempts.
    pub failed: Option<(Moment, i32)>,
}

/// Whether the object is being deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It is not being deleted.
    No,
    /// It is being deleted, with the confirmation that its data is to be erased too.
    Confirmed,
    /// It is being deleted without a confirmation: the CRD was deleted, or the admission policy was bypassed.
    Unconfirmed,
}

/// What is done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Remove the finalizer, and touch no data.
    RemoveFinalizer,
    /// Delete the object: its backup is erased, and the object is not needed as evidence.
    DeleteObject,
    /// Start a mover as soon as a slot is free.
    StartMover,
    /// Check the progress of the mover.
    WatchMover,
    /// Erase the backup.
    Erase,
    /// Do nothing before this moment.
    Wait(Moment),
    /// The erasure is due and delayed; check again at this moment.
    Retain(RetainedBy, Moment),
}

/// What delays an erasure that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RetainedBy {
    /// A hold.
    Hold(String),
    /// A fact that could not be read.
    Unknown(String),
    /// It is the newest proven backup of its account; kept until this moment.
    Newest(Moment),
    /// A restore that began before the deadline.
    Restore,
}

/// Decides. `retry_at` is when an unknown fact is read again.
pub fn decide(facts: &Facts, now: Moment, retry_at: Moment) -> Step {
    if facts.deletion == Deletion::Unconfirmed || (facts.deletion == Deletion::Confirmed && facts.phase == BackupPhase::Erased) {
        return Step::RemoveFinalizer;
    }
    if facts.phase == BackupPhase::Erased {
        let evidence = facts.reason.is_evidence() && !facts.account_gone;
        return if evidence { Step::Wait(retry_at) } else { Step::DeleteObject };
    }
    let confirmed = facts.deletion == Deletion::Confirmed;
    if confirmed || facts.deadline <= now || facts.phase == BackupPhase::Erasing {
        return erase_or_retain(facts, confirmed, now, retry_at);
    }
    match facts.phase {
        BackupPhase::Pending => Step::StartMover,
        BackupPhase::Running => Step::WatchMover,
        BackupPhase::Failed => match facts.failed {
            Some((at, attempts)) if at + retention::pause(attempts) > now => {
                Step::Wait((at + retention::pause(attempts)).min(facts.deadline))
            }
            _ => Step::StartMover,
        },
        BackupPhase::Verified | BackupPhase::Erasing | BackupPhase::Erased => Step::Wait(facts.deadline),
    }
}

fn erase_or_retain(facts: &Facts, confirmed: bool, now: Moment, retry_at: Moment) -> Step {
    if let Some(reason) = &facts.held {
        return Step::Retain(RetainedBy::Hold(reason.clone()), retry_at);
    }
    // A person confirmed the deletion, so it does not depend on the clock.
    if let (Trust::Doubtful(why), false) = (&facts.clock, confirmed) {
        return Step::Retain(RetainedBy::Unknown(why.clone()), retry_at);
    }
    if let Some(until) = facts.newest_until.filter(|_| !confirmed && facts.phase == BackupPhase::Verified) {
        return Step::Retain(RetainedBy::Newest(until), until);
    }
    // After this moment a restore delays nothing any more, so that a server that is lost for ever keeps no backup.
    let latest = facts.deadline + RESTORE_EXTENSION;
    match &facts.restoring_since {
        Known::Known(since) => match retention::kept_by_restore(facts.deadline, *since, now) {
            Some(until) => Step::Retain(RetainedBy::Restore, until.min(retry_at)),
            None => Step::Erase,
        },
        Known::Unknown(why) if now < latest => Step::Retain(RetainedBy::Unknown(why.clone()), retry_at.min(latest)),
        Known::Unknown(_) => Step::Erase,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::SignedDuration;
    use proptest::prelude::*;

    fn at(text: &str) -> Moment {
        text.parse().unwrap()
    }

    const DEADLINE: &str = "2026-12-23T10:00:00Z";

    fn facts(phase: BackupPhase) -> Facts {
        Facts {
            phase,
            reason: BackupReason::Frozen,
            deadline: at(DEADLINE),
            deletion: Deletion::No,
            held: None,
            restoring_since: Known::Known(None),
            newest_until: None,
            clock: Trust::Trusted,
            account_gone: false,
            failed: None,
        }
    }

    fn step(facts: &Facts, now: &str) -> Step {
        decide(facts, at(now), at(now) + SignedDuration::from_secs(60))
    }

    #[test]
    fn a_backup_goes_at_its_deadline_to_the_second() {
        assert_eq!(step(&facts(BackupPhase::Verified), "2026-12-23T09:59:59Z"), Step::Wait(at(DEADLINE)));
        assert_eq!(step(&facts(BackupPhase::Verified), DEADLINE), Step::Erase);
        for phase in [BackupPhase::Pending, BackupPhase::Running, BackupPhase::Failed] {
            assert_eq!(step(&facts(phase), DEADLINE), Step::Erase, "{phase:?}");
        }
    }

    #[test]
    fn a_hold_keeps_it_even_when_its_end_was_begun() {
        let held = Facts { held: Some("legal".into()), deletion: Deletion::Confirmed, ..facts(BackupPhase::Erasing) };
        assert!(matches!(step(&held, "2027-12-23T10:00:00Z"), Step::Retain(RetainedBy::Hold(_), _)));
    }

    #[test]
    fn a_doubtful_clock_ends_nothing_but_what_a_person_confirmed() {
        let doubtful = Facts { clock: Trust::Doubtful("x".into()), ..facts(BackupPhase::Verified) };
        assert!(matches!(step(&doubtful, DEADLINE), Step::Retain(RetainedBy::Unknown(_), _)));
        assert_eq!(step(&Facts { deletion: Deletion::Confirmed, ..doubtful }, "2026-12-01T00:00:00Z"), Step::Erase);
    }

    #[test]
    fn a_restore_keeps_it_for_a_day_and_an_unreadable_ledger_no_longer() {
        let restoring = Facts { restoring_since: Known::Known(Some(at("2026-12-23T09:00:00Z"))), ..facts(BackupPhase::Verified) };
        assert!(matches!(step(&restoring, "2026-12-24T09:59:59Z"), Step::Retain(RetainedBy::Restore, _)));
        assert_eq!(step(&restoring, "2026-12-24T10:00:00Z"), Step::Erase);
        let unknown = Facts { restoring_since: Known::Unknown("x".into()), ..facts(BackupPhase::Verified) };
        assert!(matches!(step(&unknown, DEADLINE), Step::Retain(RetainedBy::Unknown(_), _)));
        assert_eq!(step(&unknown, "2026-12-24T10:00:00Z"), Step::Erase);
    }

    #[test]
    fn the_newest_proven_one_is_kept_unless_its_erasure_was_confirmed_or_begun() {
        let until = at("2026-12-30T10:00:00Z");
        let newest = Facts { newest_until: Some(until), ..facts(BackupPhase::Verified) };
        assert_eq!(step(&newest, DEADLINE), Step::Retain(RetainedBy::Newest(until), until));
        assert_eq!(step(&Facts { deletion: Deletion::Confirmed, ..newest.clone() }, DEADLINE), Step::Erase);
        assert_eq!(step(&Facts { phase: BackupPhase::Erasing, ..newest.clone() }, DEADLINE), Step::Erase);
        assert_eq!(step(&Facts { phase: BackupPhase::Failed, ..newest }, DEADLINE), Step::Erase);
    }

    #[test]
    fn an_unconfirmed_deletion_touches_no_data() {
        for phase in [BackupPhase::Pending, BackupPhase::Verified, BackupPhase::Erasing, BackupPhase::Erased] {
            let deleted = Facts { deletion: Deletion::Unconfirmed, ..facts(phase) };
            assert_eq!(step(&deleted, "2027-12-23T10:00:00Z"), Step::RemoveFinalizer, "{phase:?}");
        }
    }

    #[test]
    fn what_is_erased_is_forgotten_unless_it_is_evidence() {
        let erased = facts(BackupPhase::Erased);
        assert!(matches!(step(&erased, DEADLINE), Step::Wait(_)));
        assert_eq!(step(&Facts { account_gone: true, ..erased.clone() }, DEADLINE), Step::DeleteObject);
        assert_eq!(step(&Facts { reason: BackupReason::Scheduled, ..erased }, DEADLINE), Step::DeleteObject);
    }

    #[test]
    fn a_failed_one_is_tried_again_after_a_pause() {
        let failed = Facts { failed: Some((at("2026-12-01T00:00:00Z"), 1)), ..facts(BackupPhase::Failed) };
        assert_eq!(step(&failed, "2026-12-01T00:00:10Z"), Step::Wait(at("2026-12-01T00:00:30Z")));
        assert_eq!(step(&failed, "2026-12-01T00:00:30Z"), Step::StartMover);
    }

    proptest! {
        #[test]
        fn nothing_is_erased_before_its_deadline_or_under_a_hold(
            phase in prop::sample::select(vec![BackupPhase::Pending, BackupPhase::Running, BackupPhase::Verified, BackupPhase::Failed]),
            early in 1_i64..10_000_000, held: bool, deleted: bool,
        ) {
            let facts = Facts {
                held: held.then(|| "x".into()),
                deletion: if deleted { Deletion::Unconfirmed } else { Deletion::No },
                ..facts(phase)
            };
            let now = at(DEADLINE) - SignedDuration::from_secs(early);
            prop_assert_ne!(decide(&facts, now, now), Step::Erase);
            if held {
                let late = at(DEADLINE) + SignedDuration::from_secs(early);
                prop_assert_ne!(decide(&facts, late, late), Step::Erase);
            }
        }
    }
}
