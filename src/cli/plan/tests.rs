//! The forecast of an edited plan is what the operator would do.

use proptest::prelude::*;
use serde_json::json;

use super::{at, date, edited};
use crate::{
    api::{ClockPolicy, HelpDeskAccount, HelpDeskPlanSpec, Hold, Lifecycle, Time, Window, account::EnteringStage, stage::Transition},
    cli::assumed,
    clock::{Moment, Trust},
    lifecycle::{
        Known, Next, Stage, forecast,
        tests::{
            Story,
            invariants::{event, happen},
        },
    },
};

fn plan(lifecycle: Lifecycle, clock_policy: ClockPolicy) -> HelpDeskPlanSpec {
    let spec = json!({"placements": [{"region": "eu-1", "store": "cold", "domainBase": "helpdesk.example"}]});
    HelpDeskPlanSpec { lifecycle, clock_policy, ..serde_json::from_value(spec).unwrap() }
}

fn shown(next: &Next) -> Transition {
    Transition { stage: next.stage, at: Time(next.at), reason: next.reason }
}

/// The account as its status shows a story that has come to rest.
fn account(story: &Story) -> HelpDeskAccount {
    let record = &story.record;
    let verdict = story.verdict();
    let told = forecast(record, &Known::Known(story.windows), story.policy, story.now);
    let upcoming: Vec<Transition> =
        if told.first() == verdict.next.as_ref() { told.iter().map(shown).collect() } else { verdict.next.iter().map(shown).collect() };
    let condition = |kind: &str, reason: &str| json!({"type": kind, "status": "True", "reason": reason, "message": "it is delayed", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let mut conditions = vec![];
    conditions.extend(verdict.overdue_since.map(|_| condition("Overdue", "Unknown")));
    let is_doubted = record.standing.as_ref().is_some_and(|standing| standing.doubted.is_some());
    conditions.extend(is_doubted.then(|| condition("Stalled", "BillingDoubted")));
    let in_notice = record.notice_until.is_some_and(|until| until > story.now) && !story.held;
    conditions.extend(in_notice.then(|| condition("Held", "Notice")));
    if record.unprovable.is_some() {
        conditions.push(condition("Unprovable", "BackupUnprovable"));
        conditions.extend((!is_doubted).then(|| condition("Stalled", "BackupUnprovable")));
    }
    let mut account: HelpDeskAccount =
        serde_json::from_value(json!({"apiVersion": "helpdesk-operator.io/v1alpha1", "kind": "HelpDeskAccount",
        "metadata": {"name": "acme"},
        "spec": {"owner": {"email": "ana@acme.example"}, "plan": "standard", "region": "eu-1", "domain": {"slug": "acme"}},
        "status": {"stage": record.stage, "reason": record.reason, "conditions": conditions}}))
        .unwrap();
    account.spec.closure = story.closure.clone();
    account.spec.hold = story.held.then(|| Hold { reason: "case 7".into(), by: None });
    let status = account.status.as_mut().unwrap();
    status.upcoming = upcoming;
    status.stage_since = record.enforced_at.map(Time);
    let entering = EnteringStage { stage: record.stage, reason: record.reason, since: Time(record.decided_at) };
    status.entering = record.enforced_at.is_none().then_some(entering);
    status.data_gone_by = record.data_gone_by.filter(|at| *at > story.now).map(Time);
    status.billing = story.billing.clone();
    status.observed_billing_sequence = record.billing.as_ref().map(|word| word.sequence);
    status.delinquent_since = record.standing.as_ref().and_then(|standing| standing.failing_since).map(Time);
    account
}

fn windows() -> impl Strategy<Value = Lifecycle> {
    let days = || 1_i64..120;
    (days(), days(), days(), days(), days()).prop_map(|(trial, grace, blocked, terminated, cold)| Lifecycle {
        trial: Window::days(trial),
        payment_grace: Window::days(grace),
        blocked: Window::days(blocked),
        terminated: Window::days(terminated),
        cold_backup: Window::days(cold),
        ..Lifecycle::default()
    })
}

type Dates = Vec<(Stage, Moment)>;

/// What is told of an edited plan, and what the operator would do under it.
fn told_and_done(story: &Story, new: Lifecycle, policy: ClockPolicy) -> Option<(Dates, Dates)> {
    let account = account(story);
    let change = edited::change(&[account], &plan(story.windows, story.policy), &plan(new, policy), story.now);
    let told = change.accounts[0].edited.clone()?;
    let done = forecast(&story.record, &Known::Known(new), policy, story.now);
    let pairs = |all: Vec<Transition>| -> Dates { all.into_iter().map(|next| (next.stage, next.at.0)).collect() };
    Some((pairs(told), pairs(done.iter().map(shown).collect())))
}

fn policy(recompute: bool) -> ClockPolicy {
    if recompute { ClockPolicy::Recompute } else { ClockPolicy::Keep }
}

#[test]
fn what_an_edited_plan_is_said_to_change_is_what_the_operator_would_do() {
    let told = std::cell::Cell::new(0);
    let mut runner =
        proptest::test_runner::TestRunner::new(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() });
    let lives = (prop::collection::vec(event(), 0..30), prop::option::of(windows()), windows(), any::<bool>(), any::<bool>());
    let outcome = runner.run(&lives, |(events, edited_before, new, before, after)| {
        let mut story = Story::new();
        story.policy = policy(before);
        happen(&mut story, events);
        story.windows = edited_before.unwrap_or(story.windows);
        story.facts.windows = Known::Known(story.windows);
        // A doubtful clock is a reason of Stalled, and then nothing is told.
        story.facts.clock = Trust::Trusted;
        story.settle();
        if let Some((said, done)) = told_and_done(&story, new, policy(after)) {
            told.set(told.get() + 1);
            prop_assert_eq!(said, done);
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    assert!(told.get() > 1500, "of only {} of 3000 lives anything was told", told.get());
}

#[test]
fn under_keep_the_next_date_stays_and_under_recompute_it_moves() {
    let mut story = Story::new();
    story.run_until("2026-01-20T00:00:00Z".parse().unwrap());
    assert_eq!(story.record.stage, Stage::Blocked);
    let new = Lifecycle { blocked: Window::days(10), terminated: Window::days(5), ..Lifecycle::default() };
    let day = |text: &str| -> Moment { format!("{text}T00:00:00Z").parse().unwrap() };
    let (keep, _) = told_and_done(&story, new, ClockPolicy::Keep).unwrap();
    assert_eq!(keep[..2], [(Stage::Terminated, day("2026-03-16")), (Stage::Deleted, day("2026-03-21"))]);
    let (recompute, _) = told_and_done(&story, new, ClockPolicy::Recompute).unwrap();
    assert_eq!(recompute[..2], [(Stage::Terminated, day("2026-01-25")), (Stage::Deleted, day("2026-01-30"))]);
}

#[test]
fn a_stage_that_an_edit_makes_due_at_once_is_told_as_that() {
    let mut story = Story::new();
    story.run_until("2026-02-20T00:00:00Z".parse().unwrap());
    let new = Lifecycle { blocked: Window::days(10), ..Lifecycle::default() };
    let change = edited::change(&[account(&story)], &plan(story.windows, story.policy), &plan(new, ClockPolicy::Recompute), story.now);
    assert!(change.accounts[0].at_once && change.accounts[0].changes);
    let text = edited::text(&change, "standard", false, story.now);
    assert!(text.contains("ENTERED AT ONCE by 1: acme") && text.contains("at once") && text.contains("Nothing was written"), "{text}");
}

#[test]
fn what_does_not_follow_from_the_status_is_said_to_be_unknown() {
    let mut story = Story::new();
    story.run_until("2026-01-20T00:00:00Z".parse().unwrap());
    let mut account = account(&story);
    account.status.as_mut().unwrap().upcoming[1].at = Time("2026-04-01T00:00:00Z".parse().unwrap());
    let why = assumed::record(&account, &plan(story.windows, story.policy), story.now).unwrap_err();
    assert!(why.contains("do not follow"), "{why}");
}

#[test]
fn a_date_is_answered_with_the_stage_of_that_day() {
    let mut story = Story::new();
    story.run_until("2026-01-20T00:00:00Z".parse().unwrap());
    let then = |account: &HelpDeskAccount, text: &str| {
        let told = serde_json::to_value(at::stages(std::slice::from_ref(account), text.parse().unwrap())).unwrap();
        (told[0]["then"].clone(), told[0]["note"].clone())
    };
    let free = account(&story);
    for (day, stage) in [("2026-02-01", "Blocked"), ("2026-03-16", "Terminated"), ("2026-04-20", "Deleted"), ("2027-01-01", "Expired")] {
        assert_eq!(then(&free, &format!("{day}T00:00:00Z")).0, stage, "{day}");
    }
    story.held = true;
    story.settle();
    let (stage, note) = then(&account(&story), "2027-01-01T00:00:00Z");
    assert_eq!((stage, note.as_str().unwrap()), (json!("Terminated"), "a hold delays Deleted, which is due at 2026-04-15T00:00:00Z"));
}

#[test]
fn dates_are_read_as_people_write_them() {
    let now: Moment = "2026-01-20T12:00:00Z".parse().unwrap();
    let read = |text: &str| date(text, now).map(|at| at.to_string()).map_err(|error| error.exit_code());
    assert_eq!(read("2027-03-01"), Ok("2027-03-01T00:00:00Z".into()));
    assert_eq!(read("2027-03-01T08:00:00+01:00"), Ok("2027-03-01T07:00:00Z".into()));
    assert_eq!(read("30d"), Ok("2026-02-19T12:00:00Z".into()));
    assert_eq!((read("soon"), read("2026-01-19")), (Err(2), Err(2)));
}
