//! The one place where the wall clock is read.
//!
//! All other code takes `now` as an argument, so a test can run a year of a tenant's life in a dozen calls. Times are
//! whole seconds, because Kubernetes stores whole seconds. A deadline of `10:00:00Z` is due at exactly that time.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// A moment in whole seconds.
pub type Moment = Timestamp;

/// How far apart two clocks may be before this machine's clock is no longer trusted.
pub const TOLERANCE: SignedDuration = SignedDuration::from_secs(30);

/// The present, cut to whole seconds.
#[allow(clippy::disallowed_methods)]
pub fn now() -> Moment {
    whole_seconds(Timestamp::now())
}

/// The present with its fraction, for measuring and for waiting until exactly a deadline. A decision must never use it.
#[allow(clippy::disallowed_methods)]
pub fn precise_now() -> Timestamp {
    Timestamp::now()
}

/// Cuts the fraction of a second.
pub fn whole_seconds(moment: Timestamp) -> Moment {
    Timestamp::from_second(moment.as_second()).unwrap_or(moment)
}

/// Whether this machine's clock may be used to pin a deadline or to destroy anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It agrees with every other clock that was asked, and is not before the highest recorded time.
    Trusted,
    /// It does not; the text names the two times that differ.
    Doubtful(String),
}

/// Compares the clock with another machine's and with the highest time this installation ever recorded.
///
/// A clock that is ahead of the others would reach deadlines too early; a clock that went back cannot be right either.
/// Beyond [`TOLERANCE`], neither is trusted.
pub fn compare(now: Moment, high_water: Option<Moment>, others: &[(&str, Moment)]) -> Trust {
    if let Some(mark) = high_water
        && now + TOLERANCE < mark
    {
        return Trust::Doubtful(format!(
            "the clock shows {now}, before the latest time ever recorded, {mark}; if the clock is right, annotate the DatabaseServer with helpdesk-operator.io/reset-clock and the present time"
        ));
    }
    for (whose, theirs) in others {
        if now.duration_since(*theirs).abs() > TOLERANCE {
            return Trust::Doubtful(format!("the clock shows {now}, the clock of {whose} shows {theirs}"));
        }
    }
    Trust::Trusted
}

/// How old the time may be that a person wrote to correct the highest recorded time.
const WRITTEN: SignedDuration = SignedDuration::from_mins(10);

/// Whether the highest recorded time `mark` is to be set to `now`: it lies in the future, a person wrote the present time a
/// moment ago, and the clock of the database server agrees.
pub fn is_to_be_reset(mark: Moment, written: Option<Moment>, now: Moment, server: Moment) -> bool {
    let agrees = |other: Moment, within| now.duration_since(other).abs() <= within;
    mark > now + TOLERANCE && agrees(server, TOLERANCE) && written.is_some_and(|at| agrees(at, WRITTEN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Moment {
        text.parse().unwrap()
    }

    #[test]
    fn clocks_that_agree_within_the_tolerance_are_trusted() {
        let now = at("2026-11-23T10:00:00Z");
        assert_eq!(compare(now, Some(at("2026-11-23T10:00:20Z")), &[("pg", at("2026-11-23T09:59:40Z"))]), Trust::Trusted);
    }

    #[test]
    fn a_clock_before_the_highest_time_ever_recorded_is_doubtful() {
        assert!(matches!(compare(at("2026-11-23T10:00:00Z"), Some(at("2026-11-23T11:00:00Z")), &[]), Trust::Doubtful(_)));
    }

    #[test]
    fn a_mark_in_the_future_is_reset_by_a_person_and_two_clocks_that_agree() {
        let (now, mark) = (at("2026-11-23T10:00:00Z"), at("2026-11-25T10:00:00Z"));
        assert!(is_to_be_reset(mark, Some(at("2026-11-23T09:58:00Z")), now, now));
        assert!(!is_to_be_reset(mark, None, now, now), "nobody asked for it");
        assert!(!is_to_be_reset(mark, Some(at("2026-11-22T10:00:00Z")), now, now), "an annotation of another day");
        assert!(!is_to_be_reset(mark, Some(now), now, mark), "the server's clock shows another time");
        assert!(!is_to_be_reset(now, Some(now), now, now), "the mark is right");
    }

    #[test]
    fn a_clock_ahead_of_the_database_is_doubtful() {
        let Trust::Doubtful(why) = compare(at("2027-11-23T10:00:00Z"), None, &[("server pg-eu-1", at("2026-11-23T10:00:00Z"))]) else {
            panic!("trusted")
        };
        assert!(why.contains("pg-eu-1"), "{why}");
    }
}
