//! The timelines of trials, payments and restores.

use super::*;

#[test]
fn a_trial_that_nobody_pays_for_runs_through_every_stage_to_the_day() {
    let mut story = Story::new();
    story.pass(400);
    assert_eq!(
        story.told(),
        "2026-01-15 00:00 Blocked (TrialEnded)\n\
         2026-03-16 00:00 Terminated (WindowEnded)\n\
         2026-04-15 00:00 Deleted (WindowEnded)\n\
         2026-05-15 00:00 Expired (BackupExpired)"
    );
}

#[test]
fn a_failed_payment_has_seven_days_from_the_first_failure() {
    let mut story = Story::new();
    story.pass(3).bill(BillingState::Active).pass(30).bill(BillingState::PastDue).pass(3).bill(BillingState::Unpaid).pass(10);
    assert_eq!(story.told(), "2026-01-04 00:00 Active (Paid)\n2026-02-10 00:00 Blocked (PaymentFailed)");
    assert_eq!(story.record.data_gone_by, Some(at("2026-06-10")));
}

#[test]
fn a_payment_within_the_grace_changes_nothing_else() {
    let mut story = Story::new();
    story.bill(BillingState::Active).pass(30).bill(BillingState::PastDue).pass(6).bill(BillingState::Active).pass(90);
    assert_eq!(story.told(), "2026-01-01 00:00 Active (Paid)");
}

#[test]
fn a_new_run_of_failures_has_a_grace_of_its_own() {
    let mut story = Story::new();
    story
        .bill(BillingState::Active)
        .bill(BillingState::PastDue)
        .pass(6)
        .bill(BillingState::Active)
        .pass(1)
        .bill(BillingState::PastDue)
        .pass(6);
    assert_eq!(story.record.stage, Stage::Active);
    story.pass(1);
    assert_eq!(story.record.stage, Stage::Blocked);
}

#[test]
fn a_cancelled_subscription_is_blocked_at_the_end_of_its_period() {
    let mut story = Story::new();
    story.bill(BillingState::Active).bill(BillingState::Canceled).pass(11);
    assert_eq!(story.told(), "2026-01-01 00:00 Active (Paid)\n2026-01-11 00:00 Blocked (SubscriptionCanceled)");
}

#[test]
fn paused_and_incomplete_expired_are_a_trial_that_ran_out() {
    for state in [BillingState::Paused, BillingState::IncompleteExpired] {
        let mut story = Story::new();
        story.pass(2).bill(state);
        assert_eq!(story.told(), "2026-01-03 00:00 Blocked (SubscriptionLapsed)");
    }
}

#[test]
fn trialing_and_incomplete_leave_the_one_trial_as_it_is() {
    for state in [BillingState::Trialing, BillingState::Incomplete] {
        let mut story = Story::new();
        story.pass(2).bill(state).pass(20);
        assert_eq!(story.told(), "2026-01-15 00:00 Blocked (TrialEnded)");
    }
}

#[test]
fn incomplete_changes_nothing_for_an_active_account() {
    let mut story = Story::new();
    story.bill(BillingState::Active).bill(BillingState::Incomplete).pass(300);
    assert_eq!(story.record.stage, Stage::Active);
}

#[test]
fn payment_reopens_at_blocked_and_at_terminated() {
    for (wait, stage) in [(20, Stage::Blocked), (80, Stage::Terminated)] {
        let mut story = Story::new();
        story.pass(wait);
        assert_eq!(story.record.stage, stage);
        story.bill(BillingState::Active);
        assert_eq!((story.record.stage, story.record.data_gone_by, story.restores), (Stage::Active, None, 0));
    }
}

#[test]
fn payment_at_deleted_restores_the_cold_backup_first() {
    let mut story = Story::new();
    story.pass(110).bill(BillingState::Active);
    assert_eq!((story.record.stage, story.restores), (Stage::Active, 1));
}

#[test]
fn payment_after_expired_brings_nothing_back() {
    let mut story = Story::new();
    story.pass(140).bill(BillingState::Active).pass(10);
    assert_eq!((story.record.stage, story.restores), (Stage::Expired, 0));
}

#[test]
fn billing_counted_twice_or_out_of_order_changes_nothing() {
    let mut story = Story::new();
    story.bill(BillingState::Active).bill(BillingState::PastDue);
    let before = story.record.clone();
    let late = Billing { state: BillingState::Active, sequence: 1, ..story.billing.clone().unwrap() };
    story.billing = Some(late);
    story.settle();
    assert_eq!(Record { told: None, ..story.record.clone() }, before);
    assert!(matches!(story.refused.last(), Some(RejectedBilling::OlderBilling { .. })));
    assert_eq!(story.record.told.as_ref().map(|told| told.why.reason()), Some("OlderSequence"));
}

#[test]
fn billing_from_the_future_or_from_before_the_account_is_refused() {
    for since in [at("2027-01-01"), at("2020-01-01")] {
        let mut story = Story::new();
        story.billing = Some(Billing {
            state: BillingState::Paused,
            since: Time(since),
            delinquent_since: None,
            period_end: None,
            subscription: None,
            sequence: 1,
            epoch: 0,
        });
        story.settle();
        assert_eq!((story.record.stage, story.record.billing.is_none()), (Stage::Trial, true));
        assert!(!story.refused.is_empty());
    }
}

#[test]
fn a_raised_epoch_starts_the_sequence_anew() {
    let mut story = Story::new();
    story.bill(BillingState::Active).bill(BillingState::PastDue);
    story.billing = Some(Billing {
        state: BillingState::Active,
        since: Time(story.now),
        delinquent_since: None,
        period_end: None,
        subscription: None,
        sequence: 0,
        epoch: 1,
    });
    story.pass(20);
    assert_eq!(story.record.stage, Stage::Active);
}
