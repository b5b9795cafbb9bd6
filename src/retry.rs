//! Back-off: how long each object waits after a failure. Objects do not delay each other.
//!
//! Events also trigger reconciles of an object that waits. If such a reconcile fails before the wait is over, the failure
//! is not counted, and the object waits for the rest of the time.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// Failures in a row, by the object's uid.
#[derive(Default)]
pub struct Backoff {
    failures: Mutex<HashMap<String, Failures>>,
    /// When each object was looked at last, where its controller has a pace.
    looks: Mutex<HashMap<String, Instant>>,
}

#[derive(Clone, Copy)]
struct Failures {
    count: u32,
    /// When the wait is over.
    until: Instant,
}

impl Backoff {
    /// Counts a failure and returns how long to wait: 1 s, doubled each time, at most 5 min, plus or minus 20%. The jitter
    /// spreads the retries of many accounts whose server failed. A failure before the last wait was over is not counted.
    pub fn failed(&self, uid: &str) -> Duration {
        self.failed_at(uid, Instant::now())
    }

    fn failed_at(&self, uid: &str, now: Instant) -> Duration {
        let mut failures = self.lock();
        let before = failures.get(uid).copied();
        if let Some(before) = before.filter(|before| before.until > now) {
            return before.until.duration_since(now);
        }
        let count = before.map_or(0, |before| before.count).saturating_add(1);
        let wait = delay(uid, count);
        failures.insert(uid.to_owned(), Failures { count, until: now + wait });
        wait
    }

    /// How long the object is still to be left alone after its last look; `None`: it is looked at now, which is noted.
    pub fn pace(&self, uid: &str, pace: Duration) -> Option<Duration> {
        if pace.is_zero() { None } else { self.pace_at(uid, pace, Instant::now()) }
    }

    fn pace_at(&self, uid: &str, pace: Duration, now: Instant) -> Option<Duration> {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = looks.get(uid)
            && *last + pace > now
        {
            return Some(*last + pace - now);
        }
        looks.insert(uid.to_owned(), now);
        None
    }

    /// Forgets the failures.
    pub fn succeeded(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// In which time an object that has just failed is tried again at the latest, before [`Self::failed`] counts that failure.
    pub fn next_wait(&self, uid: &str) -> Duration {
        let before = self.lock().get(uid).copied();
        let counts = before.is_none_or(|before| before.until <= Instant::now());
        let count = before.map_or(0, |before| before.count) + u32::from(counts);
        longest(count)
    }

    /// Whether the object's last reconcile failed.
    pub fn is_failing(&self, uid: &str) -> bool {
        self.lock().contains_key(uid)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Failures>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The delay after so many failures, without the spread.
fn plain(count: u32) -> Duration {
    FIRST.saturating_mul(1 << count.saturating_sub(1).min(16)).min(LONGEST)
}

/// The longest delay after so many failures, in whole seconds.
fn longest(count: u32) -> Duration {
    Duration::from_secs(plain(count).mul_f64(1.2).as_secs() + 1)
}

fn delay(uid: &str, count: u32) -> Duration {
    plain(count).mul_f64(0.8 + 0.4 * jitter(&format!("{uid}/{count}")))
}

/// A number from 0 up to 1, derived from a hash of the text.
pub fn jitter(text: &str) -> f64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let bytes: [u8; 4] = [digest.as_ref()[0], digest.as_ref()[1], digest.as_ref()[2], digest.as_ref()[3]];
    f64::from(u32::from_be_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_all_the_time_is_looked_at_once_in_its_pace() {
        let (backoff, begin, pace) = (Backoff::default(), Instant::now(), Duration::from_secs(3));
        let looks = (0..100).filter(|tenth| backoff.pace_at("a", pace, begin + Duration::from_millis(100 * tenth)).is_none());
        assert_eq!(looks.collect::<Vec<_>>(), [0, 30, 60, 90]);
        assert_eq!(backoff.pace_at("a", pace, begin + Duration::from_secs(10)), Some(Duration::from_secs(2)));
        assert_eq!(backoff.pace_at("b", pace, begin + Duration::from_secs(10)), None);
    }

    /// Fails so often, each time when its wait is over, and returns the waits.
    fn fail(backoff: &Backoff, uid: &str, now: &mut Instant, times: u32) -> Vec<Duration> {
        let mut again = || {
            let wait = backoff.failed_at(uid, *now);
            *now += wait;
            wait
        };
        (0..times).map(|_| again()).collect()
    }

    #[test]
    fn waits_grow_and_stay_within_five_minutes_and_a_fifth() {
        let waits = fail(&Backoff::default(), "a", &mut Instant::now(), 40);
        assert!(waits[0] >= Duration::from_millis(800) && waits[0] < Duration::from_millis(1200));
        assert!(waits.iter().all(|w| *w <= LONGEST.mul_f64(1.2)));
        assert!(waits[39] >= LONGEST.mul_f64(0.8));
    }

    #[test]
    fn a_success_and_another_account_start_anew() {
        let (backoff, mut now) = (Backoff::default(), Instant::now());
        fail(&backoff, "a", &mut now, 10);
        assert!(backoff.failed_at("b", now) < Duration::from_secs(2));
        assert!(backoff.is_failing("a"));
        backoff.succeeded("a");
        assert!(!backoff.is_failing("a"));
        assert!(backoff.failed_at("a", now) < Duration::from_secs(2));
    }

    #[test]
    fn events_that_wake_a_failing_object_do_not_lengthen_its_wait() {
        let (backoff, mut now) = (Backoff::default(), Instant::now());
        fail(&backoff, "a", &mut now, 2);
        let wait = backoff.failed_at("a", now);
        assert!(wait < Duration::from_secs(5));
        let over = now + wait;
        for step in 1..=100 {
            let woken = now + wait.mul_f64(f64::from(step) / 101.0);
            assert_eq!(backoff.failed_at("a", woken), over - woken, "woken for the {step}th time");
        }
        assert!(backoff.failed_at("a", over) < Duration::from_secs(10), "a hundred events counted as failures");
    }
}
