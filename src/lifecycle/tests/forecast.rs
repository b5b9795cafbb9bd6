//! The forecast is what happens.

use super::invariants::{event, happen};
use super::*;

/// What the account went through since `from`, as the forecast tells it.
fn went(story: &Story, from: usize) -> Vec<(Stage, Moment)> {
    story.entered[from..].iter().map(|(at, _, stage)| (*stage, *at)).collect()
}

fn told(story: &Story) -> Vec<(Stage, Moment)> {
    forecast(&story.record, &Known::Known(story.windows), story.policy, story.now).iter().map(|next| (next.stage, next.at)).collect()
}

/// Everything that may delay a step ends, and the story comes to rest.
fn undelayed(story: &mut Story) {
    story.facts = Facts { frozen: Known::Known(Frozen::Missing), ..Story::new().facts };
    story.facts.windows = Known::Known(story.windows);
    story.held = false;
    story.unprovable_since = None;
    story.stuck = false;
    story.taking = false;
    story.settle();
}

#[test]
fn a_trial_that_nobody_pays_for_is_told_down_to_its_end() {
    let story = Story::new();
    let days = |n| at("2026-01-01") + days(n);
    let expected = [(Stage::Blocked, days(14)), (Stage::Terminated, days(74)), (Stage::Deleted, days(104)), (Stage::Expired, days(134))];
    assert_eq!(told(&story), expected);
}

#[test]
fn who_pays_has_nothing_to_come() {
    let mut story = Story::new();
    story.bill(BillingState::Active);
    assert_eq!(told(&story), []);
}

#[test]
fn a_stage_that_is_being_entered_comes_first() {
    let mut story = Story::new();
    story.stuck = true;
    story.pass(15);
    assert_eq!(story.record.enforced_at, None);
    let forecast = told(&story);
    assert_eq!(forecast.first(), Some(&(Stage::Blocked, at("2026-01-15"))));
    assert_eq!(forecast.len(), 4);
}

#[test]
fn a_backup_that_cannot_be_proven_delays_the_deletion_to_the_promise() {
    let mut story = unprovable();
    story.pass(20);
    let next = forecast(&story.record, &Known::Known(story.windows), story.policy, story.now);
    let deleted = next.iter().find(|next| next.stage == Stage::Deleted).unwrap();
    assert_eq!((deleted.at, deleted.reason), (story.record.data_gone_by.unwrap(), Reason::PromiseElapsed));
}

#[test]
fn without_the_windows_of_the_plan_it_ends_where_they_are_needed() {
    let story = Story::new();
    let unknown = Known::Unknown("the plan is gone".to_owned());
    assert_eq!(forecast(&story.record, &unknown, story.policy, story.now), vec![]);
}

#[test]
fn a_hold_is_left_out_and_the_notice_after_it_is_not() {
    let mut story = Story::new();
    story.pass(100);
    let free = told(&story);
    story.held = true;
    story.settle();
    assert_eq!(told(&story), free);
    story.pass(10);
    assert_eq!(told(&story), free[..1], "a step that a hold delays ends the list");
    story.held = false;
    story.windows.hold_notice = Window::days(3);
    story.settle();
    assert_eq!(told(&story)[0], (Stage::Deleted, story.now + days(3)));
}

#[test]
fn a_notice_that_ends_while_the_data_waits_to_be_dropped_delays_the_drop_by_no_more() {
    // Given a cancelled account whose drop is stuck, and a hold that comes and goes while it is paused.
    let mut story = Story::new();
    story.close(ClosureMode::Cancel, None);
    story.stuck = true;
    story.pass(30);
    story.facts.paused = true;
    story.held = true;
    story.settle();
    undelayed(&mut story);
    assert!(story.record.notice_until.is_some_and(|until| until > story.now), "no notice runs");

    // Then it is dropped after the notice, within the promise, and not a month later.
    assert_eq!(told(&story), [(Stage::Deleted, at("2026-01-31")), (Stage::Expired, at("2026-03-02"))]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happened_before_what_is_told_comes(events in prop::collection::vec(event(), 0..40), recompute in any::<bool>()) {
        let mut story = Story::new();
        story.policy = if recompute { ClockPolicy::Recompute } else { ClockPolicy::Keep };
        happen(&mut story, events);
        undelayed(&mut story);
        let (forecast, from) = (told(&story), story.entered.len());
        let entering = story.record.enforced_at.is_none().then_some((story.record.stage, story.record.decided_at));
        story.run_until(story.now + days(4000));
        let went: Vec<_> = entering.into_iter().chain(went(&story, from)).collect();
        prop_assert_eq!(went, forecast);
    }

    #[test]
    fn it_does_not_depend_on_the_present(events in prop::collection::vec(event(), 0..40), wait in 0_i64..200) {
        let mut story = Story::new();
        happen(&mut story, events);
        undelayed(&mut story);
        let forecast = told(&story);
        let until = forecast.first().map_or(story.now + days(wait), |(_, at)| (story.now + days(wait)).min(*at - SignedDuration::from_secs(1)));
        story.run_until(until.max(story.now));
        prop_assert_eq!(told(&story), forecast);
    }
}
