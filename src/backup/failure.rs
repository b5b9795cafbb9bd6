//! How an attempt at a backup ended, by what its pods say, and what follows from that. Pure.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};

use crate::api::ColdBackupStatus;

/// What the kubelet calls the end of a container that used more memory than it may.
const OUT_OF_MEMORY: &str = "OOMKilled";

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// A mover used more memory than it may.
    OutOfMemory,
    /// In another way.
    Other,
}

/// How an attempt ended, by the pods of its Job: the second of them meets what the first left behind.
pub(super) fn ending(pods: &[Pod]) -> Ending {
    if pods.iter().filter_map(terminated).any(|end| end.reason.as_deref() == Some(OUT_OF_MEMORY)) {
        return Ending::OutOfMemory;
    }
    Ending::Other
}

fn terminated(pod: &Pod) -> Option<&ContainerStateTerminated> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()?.state.as_ref()?.terminated.as_ref()
}

/// Writes down what follows from a failed attempt, and tells why it failed.
pub(super) fn reckon(status: &mut ColdBackupStatus, ending: Ending, why: String) -> String {
    match ending {
        Ending::OutOfMemory => {
            let had = status.mover_memory.unwrap_or_default();
            match had.next() {
                Some(more) => {
                    status.mover_memory = Some(more);
                    format!("the mover ran out of memory at {}; the next attempt gets {}; {why}", had.limit(), more.limit())
                }
                None => format!("the mover ran out of memory at {}, the most that one gets; {why}", had.limit()),
            }
        }
        Ending::Other => why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::MoverMemory;

    fn pod(exit_code: i32, reason: &str) -> Pod {
        serde_json::from_value(serde_json::json!({"status": {"containerStatuses": [{
            "name": "mover", "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": exit_code, "reason": reason}},
        }]}}))
        .unwrap()
    }

    #[test]
    fn a_mover_that_ran_out_of_memory_is_told_from_one_that_failed() {
        assert_eq!(ending(&[pod(1, "Error"), pod(137, "OOMKilled")]), Ending::OutOfMemory);
        assert_eq!(ending(&[pod(1, "OOMKilled"), pod(1, "Error")]), Ending::OutOfMemory, "a tool was killed, and its mover went on");
        assert_eq!(ending(&[pod(1, "Error"), pod(137, "Error")]), Ending::Other);
        assert_eq!(ending(&[]), Ending::Other);
    }

    #[test]
    fn the_next_attempt_gets_more_memory_until_there_is_no_more_and_says_so() {
        let mut status = ColdBackupStatus::default();
        let said: Vec<_> = (0..3).map(|_| reckon(&mut status, Ending::OutOfMemory, "x".into())).collect();
        assert_eq!(
            said,
            [
                "the mover ran out of memory at 256Mi; the next attempt gets 1Gi; x",
                "the mover ran out of memory at 1Gi; the next attempt gets 4Gi; x",
                "the mover ran out of memory at 4Gi, the most that one gets; x",
            ]
        );
        assert_eq!(status.mover_memory, Some(MoverMemory::Large));
    }

    #[test]
    fn another_failure_leaves_the_memory_as_it_is() {
        let mut status = ColdBackupStatus { mover_memory: Some(MoverMemory::Medium), ..ColdBackupStatus::default() };
        assert_eq!(reckon(&mut status, Ending::Other, "x".into()), "x");
        assert_eq!(status.mover_memory, Some(MoverMemory::Medium));
    }
}
