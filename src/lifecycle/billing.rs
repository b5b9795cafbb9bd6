//! What billing says of an account, and what of it counts.
//!
//! A word of billing is what it writes into `.status.billing`. Words are repeated, come late, and carry fields that a
//! merge patch left standing from an older one. [`check`] refuses a word that is out of order or of an impossible time;
//! [`judge_billing`] says what an account stands at after one that is not. Both are pure.
//!
//! - **Only a payment ends a run of failures.** Every retry of a failed charge is another word; none of them moves the
//!   start of the run, and so none of them moves the block.
//! - **An end is of what it ends.** A word from before the last payment that counted is most likely the late end of a
//!   subscription that was replaced. It waits for the plan's grace, and billing's next word settles it. A word that
//!   names another subscription than the one that is paid for changes nothing.
//! - **What a payment left standing is not said again.** A `delinquentSince` or `periodEnd` that the payment's own word
//!   still carried from before counts for nothing later.
//! - **A new epoch is a person's word.** Nothing of the epoch before is held against it.

use std::fmt;

use k8s_openapi::jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::{
    api::{Billing, BillingState},
    clock::{self, Moment},
};

/// The order in which billing's words count: the epoch, then the sequence.
pub type BillingMark = (i64, i64);

/// The mark of a word.
pub const fn mark(word: &Billing) -> BillingMark {
    (word.epoch, word.sequence)
}

/// What an account stands at, by all of billing's words so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The state that counts; never Incomplete, which changes nothing.
    pub state: BillingState,
    /// When it began.
    pub since: Moment,
    /// The mark of the word that said so.
    pub mark: BillingMark,
    /// Of an end: when it takes effect.
    pub ends_at: Option<Moment>,
    /// When the last payment that counted began.
    pub paid_since: Option<Moment>,
    /// The subscription that this payment was for, where billing names them.
    pub subscription: Option<String>,
    /// The first failure of the run of failures that no payment has ended yet.
    pub failing_since: Option<Moment>,
    /// The `periodEnd` that the payment's word carried although it had passed by then.
    pub stale_period_end: Option<Moment>,
    /// The `delinquentSince` that the payment's word carried.
    pub stale_delinquent_since: Option<Moment>,
    /// A word that does not count yet.
    pub doubted: Option<Doubted>,
}

/// A word from before the last payment that counted. It counts once its time has come, if billing says nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubted {
    /// Its state.
    pub state: BillingState,
    /// When that began, as it says.
    pub since: Moment,
    /// Its mark.
    pub mark: BillingMark,
    /// Of an end: when it would have taken effect.
    pub ends_at: Option<Moment>,
    /// When the first such word was heard.
    pub heard_at: Moment,
    /// When it counts; pinned once the plan's grace is known.
    pub counts_at: Option<Moment>,
}

/// Why a word of billing, or a part of it, does not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RejectedBilling {
    /// It is older than one that was heard before: a restored backup of the cluster, or a replay.
    OlderBilling {
        /// What was offered.
        offered: BillingMark,
        /// What was heard before.
        accepted: BillingMark,
    },
    /// A time in it lies in the future.
    FutureBilling(Moment),
    /// A time in it lies before the account.
    AncientBilling(Moment),
    /// It is about another subscription than the one that is paid for.
    OtherSubscription {
        /// What it says.
        state: BillingState,
        /// Of which subscription.
        offered: String,
        /// The one that is paid for.
        paid: String,
    },
    /// It lies before the payment that counts: it waits.
    BeforePayment {
        /// What it says.
        state: BillingState,
        /// When that began.
        since: Moment,
        /// When the payment began.
        paid_since: Moment,
    },
    /// It names another start of the run of failures.
    MovedStart {
        /// The start that it names.
        offered: Moment,
        /// The start that stays.
        kept: Moment,
    },
}

impl RejectedBilling {
    /// Every reason.
    pub const REASONS: [&str; 6] = ["OlderSequence", "InTheFuture", "BeforeAccount", "OtherSubscription", "BeforePayment", "StartMoved"];

    /// One word for it, in events and metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::OlderBilling { .. } => "OlderSequence",
            Self::FutureBilling(_) => "InTheFuture",
            Self::AncientBilling(_) => "BeforeAccount",
            Self::OtherSubscription { .. } => "OtherSubscription",
            Self::BeforePayment { .. } => "BeforePayment",
            Self::MovedStart { .. } => "StartMoved",
        }
    }

    /// Whether billing's present state is unknown because of it, until it writes another word.
    pub const fn leaves_unknown(&self) -> bool {
        matches!(self, Self::OlderBilling { .. } | Self::FutureBilling(_) | Self::AncientBilling(_))
    }

    /// When the very same word will be believed, where that is so.
    pub fn passes_at(&self) -> Option<Moment> {
        match self {
            Self::FutureBilling(at) => Some(*at - clock::TOLERANCE),
            _ => None,
        }
    }
}

impl fmt::Display for RejectedBilling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OlderBilling { offered, accepted } => write!(
                f,
                "status.billing has epoch {} and sequence {} although epoch {} and sequence {} were counted before; write the newest state with a higher sequence",
                offered.0, offered.1, accepted.0, accepted.1
            ),
            Self::FutureBilling(at) => {
                write!(f, "status.billing speaks of {at}, which lies in the future; write a time that has come, or wait until this one has")
            }
            Self::AncientBilling(at) => {
                write!(f, "status.billing speaks of {at}, which lies before the account was created; write a later time")
            }
            Self::OtherSubscription { state, offered, paid } => {
                write!(
                    f,
                    "status.billing says {state:?} of the subscription {offered}; the one that is paid for is {paid}, so this changes nothing"
                )
            }
            Self::BeforePayment { state, since, paid_since } => write!(
                f,
                "status.billing says {state:?} since {since}, which lies before the payment that counts, of {paid_since}: it looks like the late end of a subscription that was replaced"
            ),
            Self::MovedStart { offered, kept } => write!(
                f,
                "status.billing.delinquentSince is {offered}; this run of failures began at {kept}, and that stays until a payment. A start that was mistyped is corrected in a new epoch, by a person with the verb reset-billing"
            ),
        }
    }
}

/// A word that did not count, or not wholly, so that it is told once and not in every look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The word's mark.
    pub mark: BillingMark,
    /// Why it did not count.
    pub why: RejectedBilling,
}

/// Refuses a word that is older than one that was heard, or that speaks of an impossible time.
///
/// # Errors
/// Why it is refused.
pub fn check(heard: Option<&Billing>, word: &Billing, created_at: Moment, now: Moment) -> Result<(), RejectedBilling> {
    if let Some(heard) = heard
        && mark(word) <= mark(heard)
    {
        return Err(RejectedBilling::OlderBilling { offered: mark(word), accepted: mark(heard) });
    }
    let latest = now + clock::TOLERANCE;
    let earliest = created_at - SignedDuration::from_hours(1);
    for time in [Some(&word.since), word.delinquent_since.as_ref()].into_iter().flatten() {
        if time.0 > latest {
            return Err(RejectedBilling::FutureBilling(time.0));
        }
        if time.0 < earliest {
            return Err(RejectedBilling::AncientBilling(time.0));
        }
    }
    match &word.period_end {
        Some(end) if end.0 < earliest => Err(RejectedBilling::AncientBilling(end.0)),
        _ => Ok(()),
    }
}

/// What an account stands at after a word that [`check`] let through, and what of the word does not count.
pub fn judge_billing(before: Option<&Standing>, word: &Billing, now: Moment) -> (Option<Standing>, Option<RejectedBilling>) {
    if word.state == BillingState::Incomplete {
        return (before.cloned(), None);
    }
    // What was heard in an epoch before is not held against a person's new count.
    let counted = before.filter(|b| b.mark.0 == word.epoch);
    if word.state == BillingState::Active {
        return (Some(paid(counted, word, now)), None);
    }
    if let Some(refused) = counted.and_then(|standing| of_another(standing, word)) {
        return (before.cloned(), Some(refused));
    }
    if let Some(standing) = counted.filter(|standing| !standing.is_over(now))
        && let Some(paid_since) = standing.paid_since.filter(|paid| standing.lies_before(word, *paid))
    {
        let refused = RejectedBilling::BeforePayment { state: word.state, since: word.since.0, paid_since };
        return (Some(standing.doubting(word, now)), Some(refused));
    }
    let (standing, refused) = turned(before, counted, word);
    (Some(standing), refused)
}

/// A payment ends every run of failures and every doubt.
fn paid(counted: Option<&Standing>, word: &Billing, now: Moment) -> Standing {
    // A payment that is told late does not make an earlier one unsaid.
    let since = counted.and_then(|standing| standing.paid_since).map_or(word.since.0, |before| before.max(word.since.0));
    let paid_since = since.min(now);
    Standing {
        state: BillingState::Active,
        since: word.since.0,
        mark: mark(word),
        ends_at: None,
        paid_since: Some(paid_since),
        subscription: word.subscription.clone(),
        failing_since: None,
        stale_period_end: word.period_end.as_ref().map(|end| end.0).filter(|end| *end < paid_since),
        stale_delinquent_since: word.delinquent_since.as_ref().map(|since| since.0),
        doubted: None,
    }
}

fn of_another(standing: &Standing, word: &Billing) -> Option<RejectedBilling> {
    let (paid, offered) = (standing.subscription.clone()?, word.subscription.clone()?);
    (paid != offered).then_some(RejectedBilling::OtherSubscription { state: word.state, offered, paid })
}

/// A word that is believed: another state, or the same once more.
fn turned(before: Option<&Standing>, counted: Option<&Standing>, word: &Billing) -> (Standing, Option<RejectedBilling>) {
    let mut next = Standing {
        state: word.state,
        since: word.since.0,
        mark: mark(word),
        ends_at: None,
        paid_since: counted.and_then(|standing| standing.paid_since),
        subscription: counted.and_then(|standing| standing.subscription.clone()),
        failing_since: counted.and_then(|standing| standing.failing_since),
        // A merge patch knows nothing of epochs.
        stale_period_end: before.and_then(|standing| standing.stale_period_end),
        stale_delinquent_since: before.and_then(|standing| standing.stale_delinquent_since),
        doubted: None,
    };
    next.ends_at = next.end_of(word);
    if !word.state.is_failing() {
        return (next, None);
    }
    let said = word.delinquent_since.as_ref().map(|since| since.0).filter(|since| Some(*since) != next.stale_delinquent_since);
    let kept = *next.failing_since.get_or_insert_with(|| {
        // A run of failures begins after the payment before it.
        said.filter(|said| next.paid_since.is_none_or(|paid| *said >= paid)).unwrap_or(word.since.0)
    });
    (next, said.filter(|said| *said != kept).map(|offered| RejectedBilling::MovedStart { offered, kept }))
}

impl Standing {
    /// Whether it is an end that has taken effect.
    fn is_over(&self, now: Moment) -> bool {
        self.ends_at.is_some_and(|at| at <= now)
    }

    /// The `periodEnd` that a word says, unless it only carries it along.
    fn period_end(&self, word: &Billing) -> Option<Moment> {
        let end = word.period_end.as_ref().filter(|_| word.state == BillingState::Canceled)?.0;
        (Some(end) != self.stale_period_end).then_some(end)
    }

    /// When the end that a word tells takes effect.
    fn end_of(&self, word: &Billing) -> Option<Moment> {
        let since = word.since.0;
        match word.state {
            BillingState::Canceled => Some(self.period_end(word).map_or(since, |end| end.max(since))),
            BillingState::Paused | BillingState::IncompleteExpired => Some(since),
            _ => None,
        }
    }

    /// Whether a word is about a time before the payment.
    fn lies_before(&self, word: &Billing, paid: Moment) -> bool {
        word.since.0 < paid || self.period_end(word).is_some_and(|end| end < paid)
    }

    /// As it is, with a word that waits. Saying it again does not make the wait begin again.
    fn doubting(&self, word: &Billing, now: Moment) -> Self {
        let first = self.doubted.as_ref();
        let doubted = Doubted {
            state: word.state,
            since: word.since.0,
            mark: mark(word),
            ends_at: self.end_of(word),
            heard_at: first.map_or(now, |doubted| doubted.heard_at),
            counts_at: first.and_then(|doubted| doubted.counts_at),
        };
        Self { doubted: Some(doubted), ..self.clone() }
    }

    /// Pins when the word that waits counts, and lets it count once that has come.
    pub fn settle(&mut self, grace: SignedDuration, recompute: bool, now: Moment) {
        let Some(doubted) = &mut self.doubted else { return };
        let counts_at = doubted.heard_at + grace;
        let counts_at = if recompute { *doubted.counts_at.insert(counts_at) } else { *doubted.counts_at.get_or_insert(counts_at) };
        if counts_at > now {
            return;
        }
        let doubted = doubted.clone();
        self.state = doubted.state;
        self.since = doubted.since;
        self.mark = doubted.mark;
        self.ends_at = doubted.ends_at.map(|at| at.max(counts_at));
        if doubted.state.is_failing() {
            self.failing_since.get_or_insert(doubted.heard_at);
        }
        self.doubted = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Time;

    fn at(text: &str) -> Moment {
        format!("2026-{text}T00:00:00Z").parse().unwrap()
    }

    fn word(state: BillingState, since: &str, sequence: i64) -> Billing {
        Billing { state, since: Time(at(since)), delinquent_since: None, period_end: None, subscription: None, sequence, epoch: 0 }
    }

    /// Hears words one after the other, long after all of them.
    fn heard(words: &[Billing]) -> (Standing, Vec<&'static str>) {
        let (mut standing, mut refused) = (None, Vec::new());
        for word in words {
            let (next, why) = judge_billing(standing.as_ref(), word, at("12-01"));
            standing = next;
            refused.extend(why.map(|why| why.reason()));
        }
        (standing.unwrap(), refused)
    }

    #[test]
    fn what_a_merge_patch_left_standing_from_before_a_payment_is_not_said_again() {
        let stale = |state, since, sequence| Billing {
            delinquent_since: Some(Time(at("02-01"))),
            period_end: Some(Time(at("02-20"))),
            ..word(state, since, sequence)
        };
        let paid = [stale(BillingState::Unpaid, "02-01", 1), stale(BillingState::Active, "03-01", 2)];
        let (failing, refused) = heard(&[&paid[..], &[stale(BillingState::PastDue, "05-01", 3)]].concat());
        assert_eq!((failing.failing_since, refused.len()), (Some(at("05-01")), 0), "the start of a run that was paid");
        let (ended, refused) = heard(&[&paid[..], &[stale(BillingState::Canceled, "05-01", 3)]].concat());
        assert_eq!((ended.ends_at, refused.len()), (Some(at("05-01")), 0), "the end of a period before the payment");
        let (twice, refused) =
            heard(&[&paid[..], &[stale(BillingState::Canceled, "05-01", 3), stale(BillingState::Canceled, "05-01", 4)]].concat());
        assert_eq!((twice.ends_at, refused.len()), (Some(at("05-01")), 0));
    }

    #[test]
    fn a_period_that_the_payment_itself_named_counts_when_the_subscription_ends() {
        let until = |state, since, sequence| Billing { period_end: Some(Time(at("12-24"))), ..word(state, since, sequence) };
        let (standing, refused) = heard(&[until(BillingState::Active, "03-01", 1), until(BillingState::Canceled, "05-01", 2)]);
        assert_eq!((standing.ends_at, refused.len()), (Some(at("12-24")), 0));
    }

    #[test]
    fn an_end_with_a_period_from_before_the_payment_is_doubted_although_it_is_dated_today() {
        let late = Billing { period_end: Some(Time(at("02-20"))), ..word(BillingState::Canceled, "11-30", 2) };
        let (standing, refused) = heard(&[word(BillingState::Active, "03-01", 1), late]);
        assert_eq!((standing.state, refused), (BillingState::Active, vec!["BeforePayment"]));
    }

    #[test]
    fn a_word_of_another_subscription_than_the_paid_one_changes_nothing_and_its_payment_does() {
        let of = |name: &str, word: Billing| Billing { subscription: Some(name.into()), ..word };
        let replaced = [of("old", word(BillingState::Active, "01-10", 1)), of("new", word(BillingState::Active, "03-01", 2))];
        for state in
            [BillingState::Canceled, BillingState::PastDue, BillingState::Paused, BillingState::IncompleteExpired, BillingState::Trialing]
        {
            for since in ["02-28", "03-02"] {
                let (standing, refused) = heard(&[&replaced[..], &[of("old", word(state, since, 3))]].concat());
                assert_eq!(
                    (standing.state, standing.doubted, refused),
                    (BillingState::Active, None, vec!["OtherSubscription"]),
                    "{state:?} {since}"
                );
            }
        }
        let (standing, refused) = heard(&[&replaced[..], &[of("new", word(BillingState::Canceled, "03-02", 3))]].concat());
        assert_eq!((standing.state, refused.len()), (BillingState::Canceled, 0));
        let (standing, _) = heard(&[&replaced[..], &[of("next", word(BillingState::Active, "05-01", 3))]].concat());
        assert_eq!(standing.subscription.as_deref(), Some("next"));
    }

    #[test]
    fn a_mistyped_start_is_kept_until_a_new_epoch_corrects_it() {
        let start = |day: &str, sequence, epoch| Billing {
            delinquent_since: Some(Time(at(day))),
            epoch,
            ..word(BillingState::PastDue, "11-16", sequence)
        };
        let (standing, refused) = heard(&[start("11-26", 1, 0), start("11-16", 2, 0)]);
        assert_eq!((standing.failing_since, refused), (Some(at("11-26")), vec!["StartMoved"]));
        let (standing, refused) = heard(&[start("11-26", 1, 0), start("11-16", 1, 1)]);
        assert_eq!((standing.failing_since, refused.len()), (Some(at("11-16")), 0));
    }

    #[test]
    fn a_first_payment_under_way_keeps_the_end_that_was_told() {
        let ended = Billing { period_end: Some(Time(at("12-24"))), ..word(BillingState::Canceled, "11-20", 2) };
        let (standing, _) = heard(&[word(BillingState::Active, "03-01", 1), ended, word(BillingState::Incomplete, "11-25", 3)]);
        assert_eq!((standing.state, standing.ends_at), (BillingState::Canceled, Some(at("12-24"))));
    }

    #[test]
    fn a_time_ahead_is_believed_once_it_is_within_the_tolerance() {
        let (now, ahead) = (at("03-01"), word(BillingState::Active, "03-02", 1));
        let refused = check(None, &ahead, at("01-01"), now).unwrap_err();
        let then = refused.passes_at().unwrap();
        assert!(then > now && check(None, &ahead, at("01-01"), then).is_ok());
        assert!(check(None, &ahead, at("01-01"), then - SignedDuration::from_secs(1)).is_err());
    }
}
