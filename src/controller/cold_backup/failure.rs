//! Why an attempt at a backup failed, by the pods of its Job, and what follows from that. Pure.
//!
//! A failed attempt counts against the backup only if its mover reached database and bucket, and exited because of what it
//! found there. The cause of any other failure is unknown: the backup is tried again, and the attempt is not counted.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};

use crate::{
    api::{ColdBackupStatus, Failing, Time},
    clock::Moment,
    context::Patience,
};

/// The kubelet's reason for a container that exceeded its memory limit.
const OUT_OF_MEMORY: &str = "OOMKilled";
/// The exit codes of a mover that failed because of its backup: 1 is its own, 101 that of a panic.
const BACKUP_FAILED: [i32; 2] = [1, 101];
/// The longest message of a failure that is stored.
const LONGEST: usize = 700;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// A mover exceeded its memory limit.
    OutOfMemory,
    /// The last mover failed because of the backup itself.
    OverTheBackup,
    /// It ended in another way, or the cause is not known.
    Unknown,
}

/// How an attempt ended, by the pods of its Job.
pub(super) fn ending(pods: &[Pod]) -> Ending {
    if pods.iter().filter_map(terminated).any(|end| end.reason.as_deref() == Some(OUT_OF_MEMORY)) {
        return Ending::OutOfMemory;
    }
    let last = pods.iter().max_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|at| at.0));
    match last.and_then(terminated) {
        Some(end) if BACKUP_FAILED.contains(&end.exit_code) => Ending::OverTheBackup,
        _ => Ending::Unknown,
    }
}

fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()?.state.as_ref()?.terminated.as_ref()
}

/// Writes the consequences of a failed attempt into the status, and returns why it failed.
pub(super) fn record_failure(status: &mut ColdBackupStatus, ending: Ending, why: String, patience: &Patience, now: Moment) -> String {
    match ending {
        Ending::OutOfMemory => {
            let had = status.mover_memory.unwrap_or_default();
            let Some(more) = had.next() else {
                let why = format!("the mover ran out of memory at {}, the most that one gets; {why}", had.limit());
                count(status, "OutOfMemory", &why, patience, now);
                return why;
            };
            status.mover_memory = Some(more);
            format!("the mover ran out of memory at {}; the next attempt gets {}; {why}", had.limit(), more.limit())
        }
        Ending::OverTheBackup => {
            count(status, "MoverFailed", &why, patience, now);
            why
        }
        Ending::Unknown => why,
    }
}

fn count(status: &mut ColdBackupStatus, reason: &str, why: &str, patience: &Patience, now: Moment) {
    let failing = status.failing.get_or_insert_with(|| Failing {
        since: Time(now),
        attempts: 0,
        reason: reason.to_owned(),
        message: why.chars().take(LONGEST).collect(),
        unprovable_since: None,
    });
    failing.attempts = failing.attempts.saturating_add(1);
    if failing.attempts >= patience.attempts && now >= failing.since.0 + patience.time {
        failing.unprovable_since.get_or_insert(Time(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::MoverMemory;
    use k8s_openapi::jiff::SignedDuration;

    fn at(text: &str) -> Moment {
        text.parse().unwrap()
    }

    const BEGUN: &str = "2026-12-01T00:00:00Z";

    fn pod(made: &str, exit_code: i32, reason: &str) -> Pod {
        serde_json::from_value(serde_json::json!({"metadata": {"creationTimestamp": made}, "status": {"containerStatuses": [{
            "name": "mover", "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": exit_code, "reason": reason}},
        }]}}))
        .unwrap()
    }

    fn attempt(first: (i32, &str), second: (i32, &str)) -> [Pod; 2] {
        [pod("2026-12-01T00:00:30Z", second.0, second.1), pod(BEGUN, first.0, first.1)]
    }

    fn fail(status: &mut ColdBackupStatus, ending: Ending, why: &str, now: Moment) -> String {
        record_failure(status, ending, why.into(), &Patience::DEFAULT, now)
    }

    fn unprovable(status: &ColdBackupStatus) -> bool {
        status.failing.as_ref().is_some_and(|f| f.unprovable_since.is_some())
    }

    #[test]
    fn a_mover_that_ran_out_of_memory_is_told_from_one_that_failed() {
        assert_eq!(ending(&attempt((1, "Error"), (137, "OOMKilled"))), Ending::OutOfMemory);
        assert_eq!(ending(&attempt((1, "OOMKilled"), (1, "Error"))), Ending::OutOfMemory, "a tool was killed, and its mover went on");
        assert_eq!(ending(&attempt((137, "Error"), (1, "Error"))), Ending::OverTheBackup);
        assert_eq!(ending(&attempt((1, "Error"), (101, "Error"))), Ending::OverTheBackup);
    }

    #[test]
    fn what_says_nothing_of_the_backup_is_unknown() {
        for status in [75, 137, 143, 128, 0] {
            assert_eq!(ending(&attempt((1, "Error"), (status, "Error"))), Ending::Unknown, "{status}");
        }
        assert_eq!(ending(&[]), Ending::Unknown, "nobody saw how it ended");
        assert_eq!(ending(&[Pod::default()]), Ending::Unknown);
    }

    #[test]
    fn the_next_attempt_gets_more_memory_until_there_is_no_more_and_says_so() {
        let mut status = ColdBackupStatus::default();
        let said: Vec<_> = (0..2).map(|_| fail(&mut status, Ending::OutOfMemory, "x", at(BEGUN))).collect();
        assert_eq!(
            said,
            [
                "the mover ran out of memory at 256Mi; the next attempt gets 1Gi; x",
                "the mover ran out of memory at 1Gi; the next attempt gets 4Gi; x",
            ]
        );
        assert_eq!((status.mover_memory, &status.failing), (Some(MoverMemory::Large), &None), "counted before the largest was tried");
        assert_eq!(fail(&mut status, Ending::OutOfMemory, "x", at(BEGUN)), "the mover ran out of memory at 4Gi, the most that one gets; x");
        let failing = status.failing.unwrap();
        assert_eq!((failing.attempts, failing.reason.as_str()), (1, "OutOfMemory"));
    }

    #[test]
    fn another_failure_leaves_the_memory_as_it_is() {
        let mut status = ColdBackupStatus { mover_memory: Some(MoverMemory::Medium), ..ColdBackupStatus::default() };
        assert_eq!(fail(&mut status, Ending::OverTheBackup, "x", at(BEGUN)), "x");
        assert_eq!(status.mover_memory, Some(MoverMemory::Medium));
    }

    #[test]
    fn it_takes_six_attempts_and_four_hours_and_the_first_cause_is_kept() {
        let mut status = ColdBackupStatus::default();
        for minutes in [0, 5, 10, 20, 40, 80, 160, 239] {
            fail(&mut status, Ending::OverTheBackup, &format!("after {minutes}"), at(BEGUN) + SignedDuration::from_mins(minutes));
        }
        assert!(!unprovable(&status), "before four hours had passed");
        fail(&mut status, Ending::OverTheBackup, "later", at("2026-12-01T04:00:00Z"));
        fail(&mut status, Ending::OverTheBackup, "still later", at("2026-12-01T05:00:00Z"));
        let failing = status.failing.unwrap();
        assert_eq!((failing.since.0, failing.attempts, failing.message.as_str()), (at(BEGUN), 10, "after 0"));
        assert_eq!(failing.unprovable_since, Some(Time(at("2026-12-01T04:00:00Z"))));

        let mut status = ColdBackupStatus::default();
        for hours in 0..5 {
            fail(&mut status, Ending::OverTheBackup, "x", at(BEGUN) + SignedDuration::from_hours(hours * 24));
        }
        assert!(!unprovable(&status), "after five attempts");
    }

    #[test]
    fn what_is_unknown_is_never_counted() {
        let mut status = ColdBackupStatus::default();
        for hours in 0..1000 {
            fail(&mut status, Ending::Unknown, "the bucket is away", at(BEGUN) + SignedDuration::from_hours(hours));
        }
        assert_eq!(status.failing, None);
    }
}
