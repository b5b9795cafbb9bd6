//! How long to wait after a failure, for each object by itself: one that keeps failing waits longer and longer, and
//! never makes another one wait.

use std::{collections::HashMap, sync::Mutex, time::Duration};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// Failures in a row, by the object's uid.
#[derive(Default)]
pub struct Backoff {
    failures: Mutex<HashMap<String, u32>>,
}

impl Backoff {
    /// Counts a failure and says how long to wait: doubled each time, up to five minutes, give or take a fifth so that
    /// a thousand accounts of one server that came back do not return in one instant.
    pub fn failed(&self, uid: &str) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let count = failures.entry(uid.to_owned()).or_insert(0);
        *count = count.saturating_add(1);
        delay(uid, *count)
    }

    /// Forgets the failures.
    pub fn succeeded(&self, uid: &str) {
        self.failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(uid);
    }
}

fn delay(uid: &str, count: u32) -> Duration {
    let plain = FIRST.saturating_mul(1 << count.saturating_sub(1).min(16)).min(LONGEST);
    plain.mul_f64(0.8 + 0.4 * spread(&format!("{uid}/{count}")))
}

/// A number from 0 up to 1 that belongs to the text.
pub fn spread(text: &str) -> f64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let bytes: [u8; 4] = [digest.as_ref()[0], digest.as_ref()[1], digest.as_ref()[2], digest.as_ref()[3]];
    f64::from(u32::from_be_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_within_five_minutes_and_a_fifth() {
        let backoff = Backoff::default();
        let waits: Vec<_> = (0..40).map(|_| backoff.failed("a")).collect();
        assert!(waits[0] >= Duration::from_millis(800) && waits[0] < Duration::from_millis(1200));
        assert!(waits.iter().all(|w| *w <= LONGEST.mul_f64(1.2)));
        assert!(waits[39] >= LONGEST.mul_f64(0.8));
    }

    #[test]
    fn a_success_and_another_account_start_anew() {
        let backoff = Backoff::default();
        for _ in 0..10 {
            backoff.failed("a");
        }
        assert!(backoff.failed("b") < Duration::from_secs(2));
        backoff.succeeded("a");
        assert!(backoff.failed("a") < Duration::from_secs(2));
    }
}
