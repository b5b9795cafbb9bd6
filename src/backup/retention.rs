//! When a backup must be erased. Pure.

use k8s_openapi::jiff::SignedDuration;

use crate::{
    api::{BackupReason, ColdBackupSpec},
    clock::Moment,
    lifecycle::RESTORE_EXTENSION,
};

/// The backup's deadline: what its spec says, and for one that a person made never later than the account's end.
pub fn deadline(spec: &ColdBackupSpec, data_gone_by: Option<Moment>) -> Moment {
    match (spec.reason, data_gone_by) {
        (BackupReason::Manual, Some(end)) => spec.expires_at.0.min(end),
        _ => spec.expires_at.0,
    }
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
    use crate::api::{Time, VerifyMode};

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
