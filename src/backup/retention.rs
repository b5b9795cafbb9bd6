//! When a backup must be erased. Pure.

use k8s_openapi::jiff::SignedDuration;

use crate::{
    api::{BackupPhase, BackupReason, ColdBackup, ColdBackupSpec, HelpDeskAccount},
    clock::Moment,
    lifecycle::{RESTORE_EXTENSION, Record, Stage},
};

/// The backup's deadline: what its spec says, and for one that a person made never later than the account's end.
pub fn deadline(spec: &ColdBackupSpec, data_gone_by: Option<Moment>) -> Moment {
    match (spec.reason, data_gone_by) {
        (BackupReason::Manual, Some(end)) => spec.expires_at.0.min(end),
        _ => spec.expires_at.0,
    }
}

/// How long the newest proven backup is kept beyond its deadline before that is decided once more.
const RETENTION: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What of an account keeps its newest proven backup beyond the deadline: until when, if that is known, it may be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The account is gone, or its owner closed it, or its data has to be gone by now.
    None,
    /// The account uses its data, or may be opened again.
    Until(Option<Moment>),
}

impl Claim {
    /// By the account's record.
    pub fn of(record: &Record, now: Moment) -> Self {
        Self::by(record.stage, record.closure.is_some(), record.data_gone_by, now)
    }

    /// By what the account's object shows, while the ledger cannot be read: the backup of a server that was lost may be all
    /// that is left.
    pub fn shown(account: &HelpDeskAccount, now: Moment) -> Self {
        let status = account.status.as_ref();
        let Some(stage) = status.and_then(|status| status.stage) else { return Self::None };
        let closes = account.spec.closure.is_some() || account.metadata.deletion_timestamp.is_some();
        Self::by(stage, closes, status.and_then(|status| status.data_gone_by.as_ref()).map(|at| at.0), now)
    }

    fn by(stage: Stage, is_closed: bool, data_gone_by: Option<Moment>, now: Moment) -> Self {
        let may_last = data_gone_by.map_or(stage.is_open(), |end| end > now);
        if stage.has_database() && !is_closed && may_last { Self::Until(data_gone_by) } else { Self::None }
    }
}

/// Until when the backup is kept as the newest proven one of its account, `None` if it is not: the account has no claim, or
/// one of `others` is newer and proven. A backup that a person asked for ends when that person said.
pub fn kept_as_newest<'b>(
    backup: &ColdBackup,
    others: impl IntoIterator<Item = &'b ColdBackup>,
    claim: Claim,
    recorded: Option<Moment>,
    now: Moment,
) -> Option<Moment> {
    let Claim::Until(end) = claim else { return None };
    let own = taken_at(backup).filter(|_| backup.spec.reason != BackupReason::Manual)?;
    let supersedes = |other: &ColdBackup| {
        other.spec.reason != BackupReason::Manual
            && other.metadata.deletion_timestamp.is_none()
            && taken_at(other).is_some_and(|at| (at, &other.metadata.name) > (own, &backup.metadata.name))
    };
    if others.into_iter().any(supersedes) {
        return None;
    }
    let until = recorded.filter(|until| *until > now).unwrap_or(now + RETENTION);
    Some(end.map_or(until, |end| until.min(end)))
}

/// When a proven backup was taken.
fn taken_at(backup: &ColdBackup) -> Option<Moment> {
    let status = backup.status.as_ref().filter(|status| status.phase == BackupPhase::Verified)?;
    Some(status.completed_at.as_ref()?.0)
}

/// Until when a restore keeps the backup, a day at most; `None` when it does not: it was begun too late, or took too long.
pub fn kept_by_restore(deadline: Moment, restoring_since: Option<Moment>, now: Moment) -> Option<Moment> {
    let until = deadline + RESTORE_EXTENSION;
    restoring_since.filter(|since| *since < deadline && now < until).map(|_| until)
}

/// How long to wait after the given number of failed attempts: from half a minute to half an hour.
pub fn pause(attempts: i32) -> SignedDuration {
    let doublings = u32::try_from(attempts.clamp(1, 7)).unwrap_or(1) - 1;
    SignedDuration::from_secs((30_i64 << doublings).min(1800))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{ColdBackupStatus, Time, VerifyMode},
        lifecycle::{ClosureRecord, Reason},
    };

    fn at(text: &str) -> Moment {
        text.parse().unwrap()
    }

    fn spec(reason: BackupReason) -> ColdBackupSpec {
        ColdBackupSpec {
            account: "acme".into(),
            account_uid: String::new(),
            store: "s".into(),
            expires_at: Time(at("2026-12-23T10:00:00Z")),
            reason,
            verify: VerifyMode::Read,
            hold: None,
        }
    }

    #[test]
    fn a_backup_that_a_person_made_ends_with_the_account() {
        let end = Some(at("2026-12-01T00:00:00Z"));
        assert_eq!(deadline(&spec(BackupReason::Manual), end), at("2026-12-01T00:00:00Z"));
        assert_eq!(deadline(&spec(BackupReason::Manual), None), at("2026-12-23T10:00:00Z"));
        assert_eq!(deadline(&spec(BackupReason::Frozen), end), at("2026-12-23T10:00:00Z"));
    }

    fn proven(name: &str, reason: BackupReason, at: &str) -> ColdBackup {
        let mut backup = ColdBackup::new(name, spec(reason));
        let completed_at = Some(Time(self::at(at)));
        backup.status = Some(ColdBackupStatus { phase: BackupPhase::Verified, completed_at, ..ColdBackupStatus::default() });
        backup
    }

    const NOW: &str = "2026-12-23T10:00:00Z";
    const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

    #[test]
    fn the_newest_proven_backup_is_kept_until_another_is_proven() {
        let own = proven("a", BackupReason::Scheduled, "2026-12-20T00:00:00Z");
        let kept = |others: &[ColdBackup]| kept_as_newest(&own, others, Claim::Until(None), None, at(NOW));
        let newer = proven("b", BackupReason::Scheduled, "2026-12-21T00:00:00Z");
        let unproven = ColdBackup { status: None, ..newer.clone() };
        let older = proven("c", BackupReason::Scheduled, "2026-12-19T00:00:00Z");
        let manual = proven("d", BackupReason::Manual, "2026-12-22T00:00:00Z");
        assert_eq!(kept(&[own.clone(), unproven, older, manual.clone()]), Some(at(NOW) + WEEK));
        assert_eq!(kept(&[own.clone(), newer]), None);
        assert_eq!(kept_as_newest(&manual, [], Claim::Until(None), None, at(NOW)), None, "a person said when it ends");
    }

    #[test]
    fn what_was_recorded_holds_until_it_has_passed_and_never_beyond_the_end_of_the_data() {
        let own = proven("a", BackupReason::Scheduled, "2026-12-20T00:00:00Z");
        let kept = |recorded, end| kept_as_newest(&own, [], Claim::Until(end), recorded, at(NOW));
        let later = at(NOW) + SignedDuration::from_hours(1);
        assert_eq!(kept(Some(later), None), Some(later));
        assert_eq!(kept(Some(at(NOW)), None), Some(at(NOW) + WEEK));
        assert_eq!(kept(None, Some(later)), Some(later));
    }

    #[test]
    fn a_closed_or_deleted_account_keeps_no_backup_beyond_its_deadline() {
        let open = Record::created(at("2026-01-01T00:00:00Z"));
        assert_eq!(Claim::of(&open, at(NOW)), Claim::Until(None));
        let closure = ClosureRecord {
            mode: crate::api::ClosureMode::Cancel,
            keeps_backup: true,
            seen_at: at(NOW),
            delete_at: at(NOW),
            by_deletion: false,
        };
        let closed = Record { closure: Some(closure), ..open.clone() };
        assert_eq!(Claim::of(&closed, at(NOW)), Claim::None);
        let end =
            |stage, end: &str| Claim::of(&Record { stage, reason: Reason::Created, data_gone_by: Some(at(end)), ..open.clone() }, at(NOW));
        assert_eq!(
            end(Stage::Blocked, "2026-12-24T00:00:00Z"),
            Claim::Until(Some(at("2026-12-24T00:00:00Z"))),
            "the Frozen one is awaited"
        );
        assert_eq!(end(Stage::Blocked, NOW), Claim::None);
        assert_eq!(end(Stage::Trial, NOW), Claim::None);
        assert_eq!(end(Stage::Deleted, "2026-12-24T00:00:00Z"), Claim::None);
    }

    #[test]
    fn a_restore_extends_the_deadline_by_a_day_if_it_began_in_time() {
        let deadline = at("2026-12-23T10:00:00Z");
        let begun = Some(at("2026-12-23T09:59:59Z"));
        assert_eq!(kept_by_restore(deadline, begun, at("2026-12-24T09:59:59Z")), Some(at("2026-12-24T10:00:00Z")));
        assert_eq!(kept_by_restore(deadline, begun, at("2026-12-24T10:00:00Z")), None);
        assert_eq!(kept_by_restore(deadline, Some(deadline), deadline), None);
    }

    #[test]
    fn pauses_grow_up_to_half_an_hour() {
        assert_eq!(pause(0), SignedDuration::from_secs(30));
        assert_eq!(pause(3), SignedDuration::from_secs(120));
        assert_eq!(pause(50), SignedDuration::from_secs(1800));
    }
}
