//! The timelines of cancellations, erasures and holds, of facts that are unknown, and of clocks that jump.

use super::*;

#[test]
fn the_owner_cancels_and_is_terminated_now() {
    let mut story = Story::new();
    story.bill(BillingState::Active).pass(5).close(ClosureMode::Cancel, None).pass(100);
    assert_eq!(
        story.told(),
        "2026-01-01 00:00 Active (Paid)\n\
         2026-01-06 00:00 Terminated (OwnerCancelled)\n\
         2026-02-05 00:00 Deleted (WindowEnded)\n\
         2026-03-07 00:00 Expired (BackupExpired)"
    );
}

#[test]
fn a_cancellation_beats_billing_until_it_is_withdrawn_and_billing_speaks_anew() {
    let mut story = Story::new();
    story.bill(BillingState::Active).close(ClosureMode::Cancel, None).pass(1).bill(BillingState::Active);
    assert_eq!(story.record.stage, Stage::Terminated);
    story.closure = None;
    story.pass(1);
    assert_eq!(story.record.stage, Stage::Terminated);
    story.bill(BillingState::Active);
    assert_eq!(story.record.stage, Stage::Active);
}

#[test]
fn an_erasure_blocks_now_and_deletes_after_its_delay() {
    let mut story = Story::new();
    story.bill(BillingState::Active).pass(5).close(ClosureMode::Erase, None).pass(40);
    assert_eq!(
        story.told(),
        "2026-01-01 00:00 Active (Paid)\n\
         2026-01-06 00:00 Blocked (OwnerErased)\n\
         2026-01-07 00:00 Deleted (OwnerErased)\n\
         2026-02-06 00:00 Expired (BackupExpired)"
    );
}

#[test]
fn an_erasure_without_a_cold_backup_leaves_nothing_after_its_delay() {
    for wait in [0, 20, 80] {
        let mut story = Story::new();
        story.pass(wait).close(ClosureMode::Erase, Some(false));
        let delete_at = story.now + days(1);
        story.pass(2);
        assert_eq!(story.record.stage, Stage::Expired, "after {wait} days");
        assert_eq!(story.entered.iter().find(|(_, _, to)| *to == Stage::Deleted).map(|(when, ..)| *when), Some(delete_at));
    }
}

#[test]
fn an_erasure_at_deleted_destroys_the_cold_backup_after_its_delay() {
    let mut story = Story::new();
    story.pass(106).close(ClosureMode::Erase, Some(false)).pass(2);
    assert_eq!(story.record.stage, Stage::Expired);
    assert!(story.told().ends_with("2026-04-18 00:00 Expired (OwnerErased)"), "{}", story.told());
}

#[test]
fn an_erased_account_never_reopens() {
    let mut story = Story::new();
    story.close(ClosureMode::Erase, None).bill(BillingState::Active).pass(10).bill(BillingState::Active);
    assert_eq!((story.record.stage, story.restores), (Stage::Deleted, 0));
}

#[test]
fn an_erasure_that_is_withdrawn_in_its_delay_leaves_the_account_blocked_with_its_full_window() {
    let mut story = Story::new();
    story.bill(BillingState::Active).close(ClosureMode::Erase, None);
    story.now += SignedDuration::from_hours(12);
    story.closure = None;
    story.pass(30);
    assert_eq!(story.record.stage, Stage::Blocked);
    story.bill(BillingState::Active);
    assert_eq!(story.record.stage, Stage::Active);
}

#[test]
fn an_erasure_of_a_blocked_account_shortens_the_promise_and_freezes_a_backup_with_that_deadline() {
    let mut story = Story::new();
    story.pass(20);
    let before = story.record.frozen.unwrap();
    story.close(ClosureMode::Erase, None);
    let pin = story.record.frozen.unwrap();
    assert_eq!(pin.expires_at, story.now + days(31));
    assert_ne!(pin.due, before.due);
}

#[test]
fn a_hold_stops_every_destruction_and_no_block() {
    let mut story = Story::new();
    story.held = true;
    story.pass(400);
    assert_eq!(story.told(), "2026-01-15 00:00 Blocked (TrialEnded)\n2026-03-16 00:00 Terminated (WindowEnded)");
    let verdict = story.verdict();
    assert_eq!(verdict.blockers, vec![Blocker::Hold { until: None }]);
    assert_eq!(verdict.overdue_since, Some(at("2026-04-15")));
}

#[test]
fn after_a_hold_there_is_a_day_of_notice_and_a_fresh_cold_backup_that_lives_its_full_window() {
    for policy in [ClockPolicy::Keep, ClockPolicy::Recompute] {
        let mut story = Story::new();
        story.policy = policy;
        story.held = true;
        story.pass(400);
        story.held = false;
        story.settle();
        let released = story.now;
        story.pass(400);
        let deleted = story.entered.iter().find(|(_, _, to)| *to == Stage::Deleted).unwrap().0;
        let expired = story.entered.iter().find(|(_, _, to)| *to == Stage::Expired).unwrap().0;
        assert_eq!(deleted, released + days(1), "{policy:?}");
        assert_eq!(expired, deleted + days(30), "{policy:?}");
    }
}

#[test]
fn a_hold_at_deleted_keeps_the_backup() {
    let mut story = Story::new();
    story.pass(110);
    story.held = true;
    story.pass(300);
    assert_eq!(story.record.stage, Stage::Deleted);
}

#[test]
fn an_edited_plan_moves_no_running_clock_unless_it_says_so() {
    for (policy, ends) in [(ClockPolicy::Keep, at("2026-01-15")), (ClockPolicy::Recompute, at("2026-01-31"))] {
        let mut story = Story::new();
        story.pass(5);
        story.windows.trial = Window::days(30);
        story.policy = policy;
        story.pass(40);
        assert_eq!(story.entered[0].0, ends);
    }
}

#[test]
fn under_recompute_every_edit_moves_the_promise_and_asks_for_one_backup_that_is_named_by_its_own_time() {
    let mut story = Story::new();
    story.policy = ClockPolicy::Recompute;
    story.pass(80);
    assert_eq!(story.record.stage, Stage::Terminated);
    for cold in [40, 20] {
        story.windows.cold_backup = Window::days(cold);
        story.pass(1);
        let gone_by = story.record.leaves_at.unwrap() + days(cold);
        let pin = story.record.frozen.unwrap();
        assert_eq!((story.record.data_gone_by, pin.expires_at), (Some(gone_by), gone_by));
        assert!(pin.due <= story.now, "a backup with a name from the future: {}", pin.due);
    }
}

#[test]
fn a_paused_account_stays_where_it_is_and_says_what_is_overdue() {
    let mut story = Story::new();
    story.facts.paused = true;
    story.pass(200);
    assert_eq!(story.record.stage, Stage::Trial);
    assert_eq!(story.verdict().blockers, vec![Blocker::Paused]);
    story.facts.paused = false;
    story.pass(0);
    assert_eq!((story.record.stage, story.record.enforced_at), (Stage::Blocked, Some(at("2026-07-20"))));
}

#[test]
fn an_operator_that_was_away_for_a_hundred_days_lengthens_windows_and_never_runs_through_them() {
    let mut story = Story::new();
    story.pass(20);
    story.now += days(100);
    story.settle();
    assert_eq!(story.record.stage, Stage::Terminated);
    story.pass(200);
    assert_eq!(
        story.told(),
        "2026-01-15 00:00 Blocked (TrialEnded)\n\
         2026-05-01 00:00 Terminated (WindowEnded)\n\
         2026-05-31 00:00 Deleted (WindowEnded)\n\
         2026-06-30 00:00 Expired (BackupExpired)"
    );
}

#[test]
fn no_unknown_fact_at_any_stage_permits_destruction() {
    for wait in [0, 5, 20, 80] {
        for fact in 0..6 {
            let mut story = Story::new();
            story.pass(wait);
            with_unknown(fact, &mut story);
            story.pass(500);
            assert!(story.record.stage < Stage::Deleted, "fact {fact} unknown after {wait} days: {}", story.told());
            assert!(!story.verdict().blockers.is_empty());
        }
    }
}

#[test]
fn an_unknown_plan_clock_billing_or_brake_keeps_the_cold_backup() {
    for fact in [0, 1, 2, 5] {
        let mut story = Story::new();
        story.pass(110);
        with_unknown(fact, &mut story);
        story.pass(500);
        assert_eq!(story.record.stage, Stage::Deleted, "fact {fact}");
    }
}

#[test]
fn a_backup_that_failed_keeps_the_database() {
    let mut story = Story::new();
    story.facts.frozen = Known::Known(Frozen::Failed("no space left in the bucket".into()));
    story.pass(500);
    assert_eq!(story.record.stage, Stage::Terminated);
    assert_eq!(story.verdict().blockers, vec![Blocker::Backup("no space left in the bucket".into())]);
}

#[test]
fn a_cold_backup_that_ran_out_while_something_waited_is_taken_anew() {
    let mut story = Story::new();
    story.facts.brake = Known::Known(false);
    story.pass(300);
    assert_eq!(story.verdict().blockers, vec![Blocker::Brake]);
    story.facts.brake = Known::Known(true);
    story.pass(0);
    assert_eq!(story.record.stage, Stage::Deleted);
    assert_eq!(story.record.leaves_at, Some(story.now + days(30)));
}

#[test]
fn a_clock_that_goes_back_pins_nothing_and_destroys_nothing() {
    let mut story = Story::new();
    story.pass(80);
    story.facts.clock = Trust::Doubtful("the clock shows 2020".into());
    story.now = at("2020-01-01");
    let before = story.record.clone();
    story.settle();
    assert_eq!(story.record, before);
}

#[test]
fn a_clock_that_leaps_ahead_moves_one_stage_at_most_even_when_it_is_believed() {
    let mut story = Story::new();
    story.pass(20);
    story.now += days(3650);
    story.settle();
    assert_eq!(story.record.stage, Stage::Terminated);
}

#[test]
fn deadlines_are_kept_to_the_second() {
    let mut story = Story::new();
    story.run_until(at("2026-01-14T23:59:59Z"));
    assert_eq!(story.record.stage, Stage::Trial);
    story.run_until(at("2026-01-15T00:00:00Z"));
    assert_eq!(story.record.stage, Stage::Blocked);
}

#[test]
fn a_confirmed_deletion_of_the_object_takes_the_safe_path_at_every_stage() {
    for wait in [0, 20, 80] {
        let mut story = Story::new();
        story.pass(wait);
        story.deleting = true;
        story.pass(0);
        let pin = story.frozen_taken.unwrap();
        assert_eq!((story.record.stage, story.record.reason), (Stage::Deleted, Reason::ObjectDeleted), "after {wait} days");
        assert_eq!((pin.expires_at, story.record.leaves_at), (story.now + days(30), Some(story.now + days(30))));
    }
}

#[test]
fn a_confirmed_deletion_does_not_cut_the_delay_of_an_erasure_that_keeps_nothing() {
    let mut story = Story::new();
    story.close(ClosureMode::Erase, Some(false));
    story.deleting = true;
    story.run_until(story.now + SignedDuration::from_hours(23));
    assert_eq!(story.record.stage, Stage::Blocked);
    story.run_until(story.now + SignedDuration::from_hours(1));
    assert_eq!(story.record.stage, Stage::Expired);
}

#[test]
fn what_the_record_pinned_says_when_the_logins_of_a_lost_account_are_shut() {
    let mut story = Story::new();
    assert_eq!(shuts_at(&story.record), Some(at("2026-01-15")));
    story.bill(BillingState::Active);
    assert_eq!(shuts_at(&story.record), None, "somebody who pays is never shut by that");
    story.pass(3);
    story.bill(BillingState::PastDue);
    assert_eq!(shuts_at(&story.record), Some(at("2026-01-11")));
    story.bill(BillingState::Active).bill(BillingState::Canceled);
    assert_eq!(shuts_at(&story.record), Some(at("2026-01-14")));
    story.record = enter(&story.record, Stage::Blocked, Reason::SubscriptionCanceled, at("2026-01-14"));
    assert_eq!(shuts_at(&story.record), Some(at("2026-01-14")), "decided and not enforced");
    story.record.enforced_at = Some(at("2026-01-14"));
    assert_eq!(shuts_at(&story.record), None);
}
