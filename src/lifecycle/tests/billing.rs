//! What of billing's words counts, told as timelines and held by random words.

use super::*;

/// A word of billing, with the next sequence.
fn word(story: &Story, state: BillingState, since: Moment) -> Billing {
    let sequence = story.billing.as_ref().map_or(1, |b| b.sequence + 1);
    Billing { state, since: Time(since), delinquent_since: None, period_end: None, subscription: None, sequence, epoch: 0 }
}

fn say(story: &mut Story, billing: Billing) {
    story.billing = Some(billing);
    story.settle();
}

#[test]
fn every_retry_of_a_failed_charge_with_another_start_blocks_on_the_day_of_the_first() {
    let mut story = Story::new();
    story.bill(BillingState::Active).pass(30);
    for _ in 0..20 {
        let failed = Billing { delinquent_since: Some(Time(story.now)), ..word(&story, BillingState::PastDue, story.now) };
        say(&mut story, failed);
        story.pass(1);
    }
    assert_eq!(story.told(), "2026-01-01 00:00 Active (Paid)\n2026-02-07 00:00 Blocked (PaymentFailed)");
}

#[test]
fn the_late_end_of_a_subscription_that_was_replaced_does_not_shut_who_pays() {
    let mut story = Story::new();
    story.pass(5).bill(BillingState::Active).pass(5);
    let late = Billing { period_end: Some(Time(at("2026-01-04"))), ..word(&story, BillingState::Canceled, at("2026-01-03")) };
    say(&mut story, late);
    assert_eq!(story.record.stage, Stage::Active);
}

#[test]
fn a_payment_while_the_block_is_being_entered_turns_it_round() {
    let mut story = Story::new();
    story.bill(BillingState::Active).bill(BillingState::PastDue).pass(6);
    story.stuck = true;
    story.pass(2);
    assert_eq!((story.record.stage, story.record.enforced_at), (Stage::Blocked, None));
    story.bill(BillingState::Active);
    assert_eq!((story.record.stage, story.record.enforced_at), (Stage::Active, None));
}

#[test]
fn a_failure_in_the_story_of_a_cancellation_still_blocks_at_the_end_of_its_grace() {
    let mut story = Story::new();
    story.bill(BillingState::Active).pass(30).bill(BillingState::PastDue).pass(3);
    let ends_later = Billing { period_end: Some(Time(story.now + days(20))), ..word(&story, BillingState::Canceled, story.now) };
    say(&mut story, ends_later);
    story.pass(30);
    assert_eq!(story.told(), "2026-01-01 00:00 Active (Paid)\n2026-02-07 00:00 Blocked (PaymentFailed)");
}

#[test]
fn a_first_payment_under_way_does_not_end_the_grace_of_the_failures_before_it() {
    let mut story = Story::new();
    story.bill(BillingState::Active).pass(30).bill(BillingState::PastDue).pass(3).bill(BillingState::Incomplete).pass(30);
    assert_eq!(story.told(), "2026-01-01 00:00 Active (Paid)\n2026-02-07 00:00 Blocked (PaymentFailed)");
}

#[test]
fn a_start_that_was_mistyped_is_corrected_by_a_new_epoch_and_not_by_another_word() {
    let mut story = Story::new();
    story.bill(BillingState::Active).pass(30);
    let mistyped = Billing { delinquent_since: Some(Time(at("2026-01-20"))), ..word(&story, BillingState::PastDue, at("2026-01-31")) };
    say(&mut story, mistyped);
    assert_eq!((story.record.stage, story.record.enforced_at), (Stage::Blocked, Some(at("2026-01-31"))), "11 days without payment");
    let mut story = Story::new();
    story.bill(BillingState::Active).pass(30);
    let mistyped = Billing { delinquent_since: Some(Time(at("2026-01-29"))), ..word(&story, BillingState::PastDue, at("2026-01-31")) };
    say(&mut story, mistyped);
    let again = Billing { delinquent_since: Some(Time(at("2026-01-31"))), ..word(&story, BillingState::PastDue, at("2026-01-31")) };
    say(&mut story, again.clone());
    assert_eq!(story.record.grace.unwrap().ends_at, at("2026-02-05"), "the start that was pinned stays");
    assert_eq!(story.record.told.as_ref().map(|told| told.why.reason()), Some("StartMoved"));
    say(&mut story, Billing { epoch: 1, sequence: 0, ..again });
    assert_eq!(story.record.grace.unwrap().ends_at, at("2026-02-07"));
}

#[test]
fn an_earlier_start_that_is_told_later_shortens_no_grace() {
    let mut story = Story::new();
    story.bill(BillingState::Active).pass(30).bill(BillingState::PastDue).pass(3);
    let earlier = Billing { delinquent_since: Some(Time(at("2026-01-20"))), ..word(&story, BillingState::Unpaid, story.now) };
    say(&mut story, earlier);
    story.pass(30);
    assert_eq!(story.told(), "2026-01-01 00:00 Active (Paid)\n2026-02-07 00:00 Blocked (PaymentFailed)");
}

/// An account that is paid for since the sixth, with a word from before that.
fn with_a_late_end() -> Story {
    let mut story = Story::new();
    story.pass(5).bill(BillingState::Active).pass(5);
    let late = Billing { period_end: Some(Time(at("2026-01-04"))), ..word(&story, BillingState::Canceled, at("2026-01-03")) };
    say(&mut story, late);
    story
}

#[test]
fn a_late_end_waits_for_the_grace_and_counts_then_however_often_it_is_repeated() {
    let mut story = with_a_late_end();
    let next = story.verdict().next.unwrap();
    assert_eq!((next.stage, next.at, next.reason), (Stage::Blocked, at("2026-01-18"), Reason::SubscriptionCanceled));
    assert_eq!(story.record.told.as_ref().map(|told| told.why.reason()), Some("BeforePayment"));
    for _ in 0..20 {
        let again = Billing { period_end: Some(Time(at("2026-01-04"))), ..word(&story, BillingState::Canceled, at("2026-01-03")) };
        story.pass(1);
        say(&mut story, again);
    }
    assert_eq!(story.told(), "2026-01-06 00:00 Active (Paid)\n2026-01-18 00:00 Blocked (SubscriptionCanceled)");
}

#[test]
fn the_next_word_of_billing_settles_a_late_end_either_way() {
    let mut story = with_a_late_end();
    story.pass(2).bill(BillingState::Active).pass(300);
    assert_eq!(story.told(), "2026-01-06 00:00 Active (Paid)");
    let mut story = with_a_late_end();
    let confirmed = word(&story, BillingState::Canceled, story.now);
    say(&mut story, confirmed);
    assert_eq!(story.told(), "2026-01-06 00:00 Active (Paid)\n2026-01-11 00:00 Blocked (SubscriptionCanceled)");
}

#[test]
fn a_late_failure_of_a_subscription_that_was_replaced_has_a_grace_of_its_own() {
    let mut story = Story::new();
    story.pass(5).bill(BillingState::Active).pass(60);
    let late = Billing { delinquent_since: Some(Time(at("2026-01-02"))), ..word(&story, BillingState::PastDue, at("2026-01-03")) };
    say(&mut story, late);
    story.pass(6);
    assert_eq!(story.record.stage, Stage::Active);
    story.pass(30);
    assert_eq!(story.told(), "2026-01-06 00:00 Active (Paid)\n2026-03-14 00:00 Blocked (PaymentFailed)");
}

#[test]
fn nothing_late_counts_while_the_plan_or_the_clock_is_unknown() {
    for fact in [0, 1] {
        let mut story = with_a_late_end();
        with_unknown(fact, &mut story);
        story.pass(300);
        assert_eq!(story.record.stage, Stage::Active);
    }
}

#[test]
fn what_the_ledger_remembers_from_before_is_understood() {
    let mut story = Story::new();
    story.bill(BillingState::Active).pass(30).bill(BillingState::PastDue).pass(3);
    let (billing, grace) = (story.record.billing.clone(), story.record.grace);
    story.record = Record { standing: None, ..story.record.clone() };
    let read: Record = serde_json::from_str(&serde_json::to_string(&story.record).unwrap()).unwrap();
    story.record = read.up_to_date();
    assert_eq!(shuts_at(&story.record), grace.map(|grace| grace.ends_at));
    let repeated = Billing { delinquent_since: Some(Time(story.now)), ..word(&story, BillingState::PastDue, story.now) };
    assert!(billing.is_some() && grace.is_some());
    say(&mut story, repeated);
    assert_eq!(story.record.grace, grace);
}

/// An account of which nobody pays, with something that holds up the stage that is due then.
fn held_up(due: &str) -> Story {
    let mut story = Story::new();
    hold_up(&mut story, due);
    story
}

fn hold_up(story: &mut Story, due: &str) {
    story.run_until(at(due) - SignedDuration::from_secs(1));
    story.stuck = true;
    story.run_until(at(due) + days(3));
    assert_eq!(story.record.enforced_at, None, "nothing holds it up");
}

const CLOSING: [(&str, Stage); 3] = [("2026-01-15", Stage::Blocked), ("2026-03-16", Stage::Terminated), ("2026-04-15", Stage::Deleted)];

#[test]
fn a_payment_turns_every_closing_stage_round_while_it_is_being_entered() {
    for (due, stage) in CLOSING {
        let mut story = held_up(due);
        assert_eq!(story.record.stage, stage);
        story.bill(BillingState::Active);
        assert_eq!(story.record.stage, Stage::Active, "from {}", stage.name());
        story.stuck = false;
        story.pass(300);
        let record = &story.record;
        assert_eq!((record.stage, story.restores), (Stage::Active, 0), "from {}", stage.name());
        assert_eq!((record.leaves_at, record.data_gone_by, record.frozen, record.sealed_since), (None, None, None, None));
        assert_eq!((&record.before, record.resumes, &record.dropped_under), (&None, None, &None));
        // The next failure is one like any other.
        story.bill(BillingState::PastDue).pass(7);
        assert_eq!((story.record.stage, story.record.leaves_at), (Stage::Blocked, Some(story.now + days(60))));
    }
}

#[test]
fn a_paused_account_is_turned_round_once_it_is_not_paused_any_more() {
    let mut story = held_up("2026-01-15");
    story.facts.paused = true;
    story.bill(BillingState::Active);
    assert_eq!((story.record.stage, story.verdict().blockers), (Stage::Blocked, vec![Blocker::Paused]));
    story.facts.paused = false;
    story.settle();
    assert_eq!(story.record.stage, Stage::Active);
}

#[test]
fn no_payment_turns_round_what_the_owner_has_closed() {
    for mode in [ClosureMode::Cancel, ClosureMode::Erase] {
        let mut story = Story::new();
        story.bill(BillingState::Active).pass(5);
        story.stuck = true;
        story.close(mode, None).pass(2).bill(BillingState::Active).pass(2);
        assert_ne!(story.record.stage, Stage::Active, "{mode:?}");
        assert_eq!(story.record.enforced_at, None);
    }
}

#[test]
fn a_cancellation_that_is_withdrawn_before_it_is_enforced_leaves_the_account_as_it_was() {
    let mut story = Story::new();
    story.pass(5);
    story.stuck = true;
    story.close(ClosureMode::Cancel, None).pass(2);
    assert_eq!((story.record.stage, story.record.enforced_at), (Stage::Terminated, None));
    story.closure = None;
    story.settle();
    story.stuck = false;
    story.settle();
    story.pass(20);
    assert_eq!(
        story.told(),
        "2026-01-06 00:00 Terminated (OwnerCancelled)\n2026-01-08 00:00 back to Trial\n2026-01-15 00:00 Blocked (TrialEnded)"
    );
    let mut story = Story::new();
    story.bill(BillingState::Active).pass(5);
    story.stuck = true;
    story.close(ClosureMode::Cancel, None).pass(2);
    story.closure = None;
    story.settle();
    story.stuck = false;
    story.pass(300);
    assert_eq!(story.record.stage, Stage::Active, "billing need not speak anew");
}

#[test]
fn a_blocked_account_whose_cancellation_is_withdrawn_in_time_keeps_the_window_that_it_had() {
    let mut story = Story::new();
    story.pass(20);
    let blocked = story.record.clone();
    story.stuck = true;
    story.close(ClosureMode::Cancel, None).pass(2);
    assert_eq!(story.record.stage, Stage::Terminated);
    story.closure = None;
    story.settle();
    story.stuck = false;
    story.settle();
    let pins = |record: &Record| (record.stage, record.enforced_at, record.leaves_at, record.data_gone_by, record.frozen);
    assert_eq!(pins(&story.record), pins(&blocked));
    story.pass(300);
    assert!(story.told().contains("2026-03-16 00:00 Terminated (WindowEnded)"), "{}", story.told());
}

#[test]
fn an_erasure_that_is_withdrawn_before_the_drop_keeps_the_database_shut_with_its_full_window() {
    let mut story = Story::new();
    story.bill(BillingState::Active).pass(5).close(ClosureMode::Erase, Some(false));
    story.run_until(at("2026-01-06T23:59:59Z"));
    story.stuck = true;
    story.pass(1);
    assert_eq!((story.record.stage, story.record.enforced_at), (Stage::Deleted, None));
    story.closure = None;
    story.settle();
    story.stuck = false;
    story.settle();
    assert_eq!((story.record.stage, story.record.leaves_at), (Stage::Blocked, Some(at("2026-03-07"))));
    assert!(story.record.frozen.is_some());
    story.pass(5).bill(BillingState::Active);
    assert_eq!((story.record.stage, story.restores), (Stage::Active, 0));
}

#[test]
fn a_hold_before_the_drop_keeps_the_database_and_another_backup_is_taken_before_it_goes() {
    let mut story = held_up("2026-04-15");
    let before = story.record.before.clone().unwrap();
    story.held = true;
    story.settle();
    story.stuck = false;
    story.pass(300);
    assert_eq!((story.record.stage, story.record.enforced_at), (Stage::Terminated, Some(before.enforced_at)));
    assert_eq!(story.verdict().blockers, vec![Blocker::Hold { until: None }]);
    story.held = false;
    story.settle();
    let released = story.now;
    story.pass(300);
    let went = story.entered.iter().rfind(|(_, _, to)| *to == Stage::Deleted).unwrap().0;
    assert_eq!((story.record.stage, went), (Stage::Expired, released + days(1)));
}

#[test]
fn a_drop_that_is_held_up_until_its_backup_runs_out_gets_another_backup_first() {
    let mut story = held_up("2026-04-15");
    story.record.dropped_under = Some(DroppedUnder::by(crate::api::account::DropGround::VerifiedBackup));
    story.pass(60);
    assert_eq!((story.record.stage, story.record.enforced_at), (Stage::Terminated, None));
    story.stuck = false;
    story.settle();
    story.pass(100);
    assert_eq!(story.record.stage, Stage::Expired);
    let gone = |stage| story.entered.iter().rfind(|(_, _, to)| *to == stage).unwrap().0;
    assert_eq!(gone(Stage::Expired), gone(Stage::Deleted) + days(30));
}

#[test]
fn nothing_is_turned_round_once_the_database_is_gone_or_may_be() {
    let mut story = held_up("2026-04-15");
    story.billing = Some(word(&story, BillingState::Active, story.now));
    story.held = true;
    let begun = Some(DroppedUnder::by(crate::api::account::DropGround::VerifiedBackup));
    for (dropped, dropped_under) in [(Known::Known(true), None), (Known::Unknown("no answer".into()), None), (Known::Known(false), begun)] {
        let mut story = story.clone();
        story.facts.dropped = dropped;
        story.record.dropped_under = dropped_under;
        story.settle();
        assert_eq!(story.record.stage, Stage::Deleted, "{:?} {:?}", story.facts.dropped, story.record.dropped_under);
    }
    story.settle();
    assert_eq!(story.record.stage, Stage::Active);
}

#[test]
fn billings_name_of_the_subscription_is_forgotten_with_the_account_and_its_word_still_known() {
    let mut story = Story::new();
    let named = Billing { subscription: Some("sub_1".into()), ..word(&story, BillingState::Active, story.now) };
    say(&mut story, named);
    let ended = Billing { subscription: Some("sub_1".into()), ..word(&story, BillingState::Canceled, story.now) };
    say(&mut story, ended);
    story.pass(300);
    assert_eq!(story.record.stage, Stage::Expired);
    story.record.forget_subscription();
    story.settle();
    assert!(!serde_json::to_string(&story.record).unwrap().contains("sub_1"));
    assert_eq!((story.record.told.as_ref(), story.refused.len()), (None, 0));
}

/// A word about a run of failures that no payment ends: its state, how long after the one before it comes, and how many
/// hours before that it, and the first failure, are said to be.
fn of_the_run() -> impl Strategy<Value = (BillingState, i64, i64, Option<i64>)> {
    let state = prop::sample::select(vec![BillingState::PastDue, BillingState::Unpaid, BillingState::Incomplete]);
    (state, 0_i64..40, 0_i64..200, prop::option::of(0_i64..200))
}

fn hours(n: i64) -> SignedDuration {
    SignedDuration::from_hours(n)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_repeated_the_block_comes_at_the_first_failure_and_the_grace(
        first in prop::option::of(0_i64..160),
        repeats in prop::collection::vec(of_the_run(), 0..25),
    ) {
        let mut story = Story::new();
        story.bill(BillingState::Active).pass(40);
        let start = story.now - hours(first.unwrap_or(0));
        let failed = Billing { delinquent_since: first.map(|_| Time(start)), ..word(&story, BillingState::PastDue, story.now) };
        say(&mut story, failed);
        for (state, after, since, delinquent) in repeats {
            story.run_until(story.now + hours(after));
            let again = Billing {
                delinquent_since: delinquent.map(|ago| Time(story.now - hours(ago))),
                ..word(&story, state, story.now - hours(since))
            };
            say(&mut story, again);
        }
        story.pass(30);
        let blocked = story.entered.iter().find(|(_, _, to)| *to == Stage::Blocked).unwrap();
        prop_assert_eq!(blocked.0, start + days(7));
    }

    #[test]
    fn whatever_is_told_of_before_the_payment_shuts_nobody_before_the_grace_and_everybody_after_it(
        words in prop::collection::vec((0_usize..6, 0_i64..48, 1_i64..400, prop::option::of(1_i64..400)), 1..25),
    ) {
        let states = [BillingState::Canceled, BillingState::Paused, BillingState::IncompleteExpired, BillingState::PastDue, BillingState::Unpaid, BillingState::Incomplete];
        let mut story = Story::new();
        story.pass(13).bill(BillingState::Active).pass(100);
        let mut first = None;
        let paid = at("2026-01-14");
        for (state, after, before, end) in words {
            story.run_until(story.now + hours(after));
            let late = Billing {
                period_end: end.map(|ago| Time((paid - hours(ago)).max(at("2026-01-01")))),
                ..word(&story, states[state], (paid - hours(before)).max(at("2026-01-01")))
            };
            if late.state != BillingState::Incomplete {
                first.get_or_insert(story.now);
            }
            say(&mut story, late);
        }
        story.pass(30);
        let blocked = story.entered.iter().find(|(_, _, to)| *to == Stage::Blocked).map(|(when, ..)| *when);
        prop_assert_eq!(blocked, first.map(|heard| heard + days(7)));
    }
}
