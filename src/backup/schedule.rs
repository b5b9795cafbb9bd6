//! When a scheduled backup is due. Pure; all times are UTC, so no hour is missing and none comes twice.
//!
//! The tenants of a plan are spread: a tenant's moment is the schedule's moment plus a share of the time up to the
//! next one, which follows from the account's uid. Backups are named from that moment, so that a crash cannot make two.

use k8s_openapi::jiff::{SignedDuration, civil, tz::TimeZone};

use crate::clock::Moment;

/// A schedule in the five fields of cron: minute, hour, day of the month, month, day of the week (0 and 7 are Sunday).
///
/// As in cron, a day that matches either of the two day fields counts when both are restricted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    either_day: bool,
}

/// Why a text is no schedule.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ParseSchedule {
    /// Not five fields.
    #[error("failed to read the schedule {0:?}: it needs the five fields of cron, such as '0 2 * * *'")]
    Fields(String),
    /// A field does not parse or lies out of range.
    #[error("failed to read {text:?} as the {field} of a schedule")]
    Field {
        /// Which field.
        field: &'static str,
        /// What it says.
        text: String,
    },
    /// A date that never comes, such as the 30th of February.
    #[error("failed to find any time at which the schedule {0:?} is due")]
    Never(String),
}

/// The tenant's due moment since `since`, if there is one, and its next moment after `now`.
///
/// `since` is the due moment of the newest backup, or when the account was created. Of several moments that passed
/// unused only the latest is due: what was missed is not made up for.
///
/// # Errors
/// A schedule that does not parse or never comes.
pub fn due(cron: &str, account_uid: &str, since: Moment, now: Moment) -> Result<(Option<Moment>, Moment), ParseSchedule> {
    let schedule: Cron = cron.parse()?;
    let never = || ParseSchedule::Never(cron.to_owned());
    // The tenant's share may lie after the schedule's next moment only by less than one interval: two steps back suffice.
    let mut tick = schedule.before(now).or_else(|| schedule.after(now)).ok_or_else(never)?;
    if let Some(earlier) = schedule.before(tick) {
        tick = earlier;
    }
    let mut latest = None;
    loop {
        let following = schedule.after(tick).ok_or_else(never)?;
        let moment = tick + share(account_uid, following.duration_since(tick));
        if moment > now {
            return Ok((latest.filter(|at| *at > since), moment));
        }
        latest = Some(moment);
        tick = following;
    }
}

/// How long after its due moment a backup may be proven, if the next one is not due before.
const TIME_TO_PROVE: SignedDuration = SignedDuration::from_hours(6);

/// The due moment since `since` of which a proven backup must exist at `now`: the latest one that is an interval ago, or six
/// hours if the interval is longer. `None`: none has to exist yet.
///
/// # Errors
/// A schedule that does not parse or never comes.
pub fn expected(cron: &str, account_uid: &str, since: Moment, now: Moment) -> Result<Option<Moment>, ParseSchedule> {
    let (Some(latest), next) = due(cron, account_uid, since, now)? else { return Ok(None) };
    let allowed = next.duration_since(latest).min(TIME_TO_PROVE);
    Ok(due(cron, account_uid, since, now - allowed)?.0)
}

/// The tenant's share of an interval: the same for ever, and even over all tenants.
fn share(account_uid: &str, interval: SignedDuration) -> SignedDuration {
    let digest = ring::digest::digest(&ring::digest::SHA256, account_uid.as_bytes());
    let number = digest.as_ref().iter().take(8).fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    let seconds = u64::try_from(interval.as_secs()).unwrap_or(1).max(1);
    SignedDuration::from_secs(i64::try_from(number % seconds).unwrap_or(0))
}

/// Leap years let a date be absent for eight years.
const HORIZON_DAYS: i32 = 366 * 9;

impl Cron {
    /// The first moment after `moment`.
    pub fn after(&self, moment: Moment) -> Option<Moment> {
        let from = moment.to_zoned(TimeZone::UTC).datetime();
        let mut day = from.date();
        for _ in 0..HORIZON_DAYS {
            if self.has_day(day) {
                for (hour, minute) in self.times() {
                    let at = day.at(hour, minute, 0, 0);
                    if at > from {
                        return at.to_zoned(TimeZone::UTC).ok().map(|z| z.timestamp());
                    }
                }
            }
            day = day.tomorrow().ok()?;
        }
        None
    }

    /// The last moment at or before `moment`, but strictly before it when `moment` itself is one.
    fn before(&self, moment: Moment) -> Option<Moment> {
        let from = moment.to_zoned(TimeZone::UTC).datetime();
        let mut day = from.date();
        for _ in 0..HORIZON_DAYS {
            if self.has_day(day)
                && let Some((hour, minute)) = self.times().rfind(|(h, m)| day.at(*h, *m, 0, 0) < from)
            {
                return day.at(hour, minute, 0, 0).to_zoned(TimeZone::UTC).ok().map(|z| z.timestamp());
            }
            day = day.yesterday().ok()?;
        }
        None
    }

    fn times(&self) -> impl DoubleEndedIterator<Item = (i8, i8)> + '_ {
        (0..24_i8).filter(|h| has(self.hours, *h)).flat_map(|h| (0..60_i8).filter(|m| has(self.minutes, *m)).map(move |m| (h, m)))
    }

    fn has_day(&self, day: civil::Date) -> bool {
        let in_month = has(self.days, day.day());
        let in_week = has(self.weekdays, day.weekday().to_sunday_zero_offset());
        has(self.months, day.month()) && if self.either_day { in_month || in_week } else { in_month && in_week }
    }
}

fn has(set: u64, number: i8) -> bool {
    (0..64).contains(&number) && set & (1 << number) != 0
}

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

impl std::str::FromStr for Cron {
    type Err = ParseSchedule;

    fn from_str(text: &str) -> Result<Self, ParseSchedule> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let &[minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return Err(ParseSchedule::Fields(text.chars().take(100).collect()));
        };
        let week = field("day of the week", weekdays, 0, 7, &WEEKDAYS, 0)?;
        Ok(Self {
            minutes: field("minute", minutes, 0, 59, &[], 0)?,
            hours: field("hour", hours, 0, 23, &[], 0)?,
            days: field("day of the month", days, 1, 31, &[], 0)?,
            months: field("month", months, 1, 12, &MONTHS, 1)?,
            // Sunday has two numbers.
            weekdays: (week | (week >> 7)) & 0x7f,
            either_day: !days.starts_with('*') && !weekdays.starts_with('*'),
        })
    }
}

/// Reads one field: numbers, names, ranges, steps and lists of those.
fn field(name: &'static str, text: &str, low: u8, high: u8, names: &[&str], first: u8) -> Result<u64, ParseSchedule> {
    let refuse = || ParseSchedule::Field { field: name, text: text.chars().take(100).collect() };
    let number = |word: &str| -> Option<u8> {
        let named = names.iter().position(|n| n.eq_ignore_ascii_case(word)).and_then(|at| u8::try_from(at).ok()).map(|at| at + first);
        named.or_else(|| word.parse().ok()).filter(|n| (low..=high).contains(n))
    };
    let mut set = 0_u64;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, step.parse::<u8>().ok().filter(|s| *s > 0).ok_or_else(refuse)?),
            None => (part, 1),
        };
        let (from, to) = match range.split_once('-') {
            _ if range == "*" => (low, high),
            Some((from, to)) => (number(from).ok_or_else(refuse)?, number(to).ok_or_else(refuse)?),
            None => {
                let from = number(range).ok_or_else(refuse)?;
                (from, if part.contains('/') { high } else { from })
            }
        };
        if from > to {
            return Err(refuse());
        }
        set |= (from..=to).step_by(usize::from(step)).fold(0, |bits, n| bits | 1 << n);
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UID: &str = "8f3a0000-0000-4000-8000-000000000000";

    fn at(text: &str) -> Moment {
        text.parse().unwrap()
    }

    fn next(cron: &str, from: &str) -> String {
        cron.parse::<Cron>().unwrap().after(at(from)).unwrap().to_string()
    }

    #[test]
    fn the_five_fields_mean_what_cron_means() {
        assert_eq!(next("0 2 * * *", "2026-11-23T02:00:00Z"), "2026-11-24T02:00:00Z");
        assert_eq!(next("*/15 * * * *", "2026-11-23T10:46:00Z"), "2026-11-23T11:00:00Z");
        assert_eq!(next("0 0 29 FEB *", "2026-11-23T10:46:00Z"), "2028-02-29T00:00:00Z");
        assert_eq!(next("30 3 * * SUN", "2026-11-23T10:46:00Z"), "2026-11-29T03:30:00Z");
        assert_eq!(next("30 3 * * 7", "2026-11-23T10:46:00Z"), "2026-11-29T03:30:00Z");
        assert_eq!(next("30 3 * * 1-5", "2026-11-27T10:46:00Z"), "2026-11-30T03:30:00Z");
    }

    #[test]
    fn a_day_counts_by_either_field_when_both_are_restricted() {
        assert_eq!(next("0 0 1 * MON", "2026-11-24T00:00:00Z"), "2026-11-30T00:00:00Z");
        assert_eq!(next("0 0 1 * MON", "2026-11-30T00:00:00Z"), "2026-12-01T00:00:00Z");
    }

    #[test]
    fn nonsense_and_dates_that_never_come_are_refused() {
        for cron in ["", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "5-1 * * * *", "*/0 * * * *", "a * * * *"] {
            assert!(cron.parse::<Cron>().is_err(), "{cron:?} was accepted");
        }
        let never = due("0 0 30 2 *", UID, at("2026-11-23T10:00:00Z"), at("2026-11-23T10:00:00Z"));
        assert_eq!(never, Err(ParseSchedule::Never("0 0 30 2 *".into())));
    }

    #[test]
    fn what_was_missed_is_not_made_up_for() {
        let (due_at, next) = due("0 2 * * *", UID, at("2026-11-01T00:00:00Z"), at("2026-11-23T10:00:00Z")).unwrap();
        let due_at = due_at.unwrap();
        assert!(due_at > at("2026-11-22T02:00:00Z"));
        assert_eq!(next.duration_since(due_at), SignedDuration::from_hours(24));
    }

    #[test]
    fn a_backup_must_be_proven_an_interval_after_it_was_due_and_six_hours_at_most() {
        let since = at("2026-11-20T00:00:00Z");
        let (first, second) = due("0 2 * * *", UID, since, at("2026-11-23T10:00:00Z")).unwrap();
        let first = first.unwrap();
        let hours = SignedDuration::from_hours;
        let expected = |since, now| expected("0 2 * * *", UID, since, now).unwrap();
        assert_eq!(expected(first - hours(1), first + hours(6) - SignedDuration::from_secs(1)), None, "it is being taken");
        assert_eq!(expected(first - hours(1), first + hours(6)), Some(first));
        assert_eq!(expected(since, second + hours(5)), Some(first), "while the next one is being taken, the one before counts");
        assert_eq!(expected(first, first + hours(20)), None, "none was due since the account was opened");
        let often = super::expected("*/5 * * * *", UID, since, first + SignedDuration::from_mins(20)).unwrap().unwrap();
        assert!((5..=10).contains(&(first + SignedDuration::from_mins(20)).duration_since(often).as_mins()));
    }

    #[test]
    fn tenants_are_spread_over_the_interval() {
        let mut hours = [0_u32; 24];
        for tenant in 0..2400 {
            let (_, next) = due("0 2 * * *", &format!("tenant-{tenant}"), at("2026-11-23T00:00:00Z"), at("2026-11-23T02:00:00Z")).unwrap();
            hours[usize::try_from(next.duration_since(at("2026-11-23T02:00:00Z")).as_hours().rem_euclid(24)).unwrap()] += 1;
        }
        assert!(hours.iter().all(|n| (60..150).contains(n)), "{hours:?}");
    }

    proptest! {
        #[test]
        fn a_crash_after_a_backup_never_makes_a_second_one(
            start in 1_700_000_000_i64..1_900_000_000,
            later in 0_i64..90_000,
            cron in prop::sample::select(vec!["0 2 * * *", "*/10 * * * *", "7 */6 * * *", "0 3 * * 0", "15 4 1,15 * *"]),
        ) {
            let now = Moment::from_second(start).unwrap();
            let (_, next) = due(cron, UID, now, now).unwrap();
            prop_assert!(next > now);
            let (due_then, after) = due(cron, UID, now, next).unwrap();
            prop_assert_eq!(due_then, Some(next));
            let again = Moment::from_second(next.as_second() + later).unwrap().min(after - SignedDuration::from_secs(1));
            prop_assert_eq!(due(cron, UID, next, again).unwrap(), (None, after));
        }
    }
}
