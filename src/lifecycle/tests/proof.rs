//! When a database may be dropped: broken seals, backups that cannot be proven, and the brake.

use super::*;

#[test]
fn a_backup_from_before_the_last_session_does_not_count() {
    let mut story = Story::new();
    story.pass(20);
    let before = story.record.frozen.unwrap();
    story.intrude(true);
    story.intrude(false);
    let after = story.record.frozen.unwrap();
    assert_eq!((after.due, after.expires_at, story.record.sealed_since), (story.now, before.expires_at, Some(story.now)));
}

/// What an account stands at that is paid for since then.
fn paid(since: Moment) -> Standing {
    let word = Billing {
        state: BillingState::Active,
        since: Time(since),
        delinquent_since: None,
        period_end: None,
        subscription: None,
        sequence: 99,
        epoch: 0,
    };
    billing::judge_billing(None, &word, since).0.unwrap()
}

#[test]
fn a_session_that_stays_open_in_a_closed_database_makes_no_backup_and_one_once_it_ended() {
    let mut story = Story::new();
    story.pass(20);
    let before = story.record.frozen.unwrap();
    for _ in 0..30 {
        story.intrude(true);
        assert_eq!(story.record.frozen, Some(before), "a backup of a database that somebody is in");
        assert!(!story.record.is_sealed());
        story.now += SignedDuration::from_secs(1);
    }
    let mut pins = vec![before];
    for _ in 0..30 {
        story.intrude(false);
        pins.extend(story.record.frozen.filter(|pin| !pins.contains(pin)));
        story.now += SignedDuration::from_secs(1);
    }
    assert_eq!(pins.len(), 2, "{pins:?}");
    assert!(story.record.is_sealed());
}

#[test]
fn a_database_that_somebody_is_in_is_not_dropped_by_the_backup_of_before() {
    let mut story = Story::new();
    story.pass(20);
    story.intrude(true);
    story.facts.sealed = Known::Known(story.record.is_sealed());
    story.pass(200);
    assert!(story.record.stage.has_database(), "dropped under a backup that is older than the data");
    story.intrude(false);
    story.facts.sealed = Known::Known(story.record.is_sealed());
    story.settle();
    story.pass(200);
    assert_eq!(story.record.stage, Stage::Expired);
}

#[test]
fn somebody_who_gets_in_while_the_next_stage_is_entered_breaks_the_seal_too() {
    let mut story = Story::new();
    story.pass(20);
    let before = story.record.frozen.unwrap();
    story.record = enter(&story.record, Stage::Terminated, Reason::WindowEnded, story.now);
    story.intrude(true);
    story.intrude(false);
    assert_ne!(story.record.frozen, Some(before));
}

#[test]
fn a_restore_that_was_begun_in_time_extends_the_deadline_by_a_day_at_most() {
    let mut story = Story::new();
    story.pass(110);
    story.bill(BillingState::Incomplete);
    let ends = story.record.leaves_at.unwrap();
    let mut record = Record { restoring_since: Some(ends - SignedDuration::from_secs(1)), ..story.record.clone() };
    record.standing = Some(paid(story.now));
    let facts = Facts { frozen: Known::Known(Frozen::Verified), ..story.facts.clone() };
    assert_eq!(decide(&record, &facts, ends + SignedDuration::from_hours(23)).step, Step::Restore);
    assert_eq!(decide(&record, &facts, ends + SignedDuration::from_hours(24)).step, Step::Enter(Stage::Expired, Reason::BackupExpired));
}

#[test]
fn a_copy_that_a_restore_made_may_be_dropped_once_it_is_not_wanted_any_more_and_never_before() {
    let may_drop = |record: &Record| UnwantedCopy::of(record, "u-1", 1, "7412").is_some();
    let mut story = Story::new();
    story.pass(110);
    assert_eq!(story.record.stage, Stage::Deleted);
    let unpaid = story.record.clone();
    let since = Some(story.now);
    let paid = Record { standing: Some(paid(story.now)), restoring_since: since, restored: since, ..unpaid.clone() };
    assert!(may_drop(&unpaid) && !may_drop(&paid), "a payment that was taken back leaves the copy behind");
    assert!(may_drop(&Record { restored: None, ..paid.clone() }), "half a copy stands in the way of the next restore");
    // The payment counts, but the restore took until after the end of the backup.
    assert!(may_drop(&enter(&paid, Stage::Expired, Reason::BackupExpired, story.now)));
    assert!(!may_drop(&Record { held_since: since, restored: since, ..unpaid.clone() }));
    // While Deleted is being entered, and in every stage before it, it is the tenant's own database.
    assert!(!may_drop(&Record { enforced_at: None, ..unpaid.clone() }));
    for stage in [Stage::Trial, Stage::Active, Stage::Blocked, Stage::Terminated] {
        assert!(!may_drop(&Record { stage, ..unpaid.clone() }), "{}", stage.name());
    }
}

#[test]
fn a_database_stays_while_its_backup_is_still_being_taken() {
    let mut story = Story::new();
    story.taking = true;
    story.pass(110);
    assert_eq!(story.record.stage, Stage::Terminated);
    let waits = "the cold backup is still being taken and proven".to_owned();
    assert_eq!(story.verdict().blockers, [Blocker::Backup(waits)]);
    story.taking = false;
    story.pass(1);
    assert_eq!(story.record.stage, Stage::Deleted);
}

#[test]
fn clocks_that_differ_by_less_than_the_tolerance_make_no_backup_older_than_the_seal() {
    let sealed = at("2026-03-01T10:00:00Z");
    let record = Record { sealed_since: Some(sealed), ..Record::created(sealed) };
    assert!(record.seals(sealed) && record.seals(sealed - SignedDuration::from_secs(25)));
    assert!(!record.seals(sealed - SignedDuration::from_secs(31)));
    assert!(!Record { sealed_since: None, ..record }.seals(sealed));
}

#[test]
fn a_backup_that_is_found_to_be_older_than_the_seal_leads_back_and_another_one_is_taken() {
    let mut story = Story::new();
    story.pass(90);
    let before = story.record.frozen.unwrap();
    story.record = discard_frozen(&enter(&story.record, Stage::Deleted, Reason::WindowEnded, story.now));
    story.settle();
    assert_eq!(story.record.stage, Stage::Terminated);
    let after = story.record.frozen.unwrap();
    assert!(after.due > before.due, "the same backup again");
    story.pass(200);
    assert_eq!(story.record.stage, Stage::Expired);
}

#[test]
fn a_doubtful_clock_sets_no_seal_and_ends_no_hold() {
    let mut story = Story::new();
    story.pass(20);
    let before = story.record.clone();
    story.intrude(true);
    story.facts.clock = Trust::Doubtful("an hour ahead".into());
    story.intrude(false);
    assert!(story.record.seal_broken_since.is_some() && story.record.frozen == before.frozen);
    story.held = true;
    story.settle();
    story.held = false;
    story.settle();
    assert!(story.record.held_since.is_some(), "the notice was counted by a clock that is doubted");
    story.facts.clock = Trust::Trusted;
    story.intrude(false);
    story.settle();
    assert!(story.record.is_sealed() && story.record.frozen != before.frozen);
    assert!(story.record.held_since.is_none() && story.record.notice_until > Some(story.now));
}

#[test]
fn an_account_whose_backup_cannot_be_proven_stays_shut_until_the_promise_has_elapsed_and_goes_then() {
    let mut story = unprovable();
    story.run_until(at("2026-05-14T23:59:59Z"));
    assert_eq!(story.told(), "2026-01-15 00:00 Blocked (TrialEnded)\n2026-03-16 00:00 Terminated (WindowEnded)");
    let verdict = story.verdict();
    assert_eq!(verdict.blockers, vec![Blocker::Unprovable { until: at("2026-05-15"), why: "7 rows and not 8".into() }]);
    assert_eq!((verdict.overdue_since, verdict.requeue_at), (Some(at("2026-04-15")), Some(at("2026-05-15"))));
    assert_eq!(verdict.next, Some(Next { stage: Stage::Deleted, at: at("2026-05-15"), reason: Reason::PromiseElapsed }));
    story.pass(300);
    assert_eq!(
        story.told(),
        "2026-01-15 00:00 Blocked (TrialEnded)\n\
         2026-03-16 00:00 Terminated (WindowEnded)\n\
         2026-05-15 00:00 Deleted (PromiseElapsed)\n\
         2026-05-15 00:00 Expired (PromiseElapsed)"
    );
    assert_eq!((story.record.frozen, story.record.data_gone_by), (None, Some(at("2026-05-15"))));
    assert_eq!(story.record.unprovable.as_ref().map(|u| u.why.as_str()), Some("7 rows and not 8"));
    assert_eq!(story.record.delayed_by, ["Unprovable"]);
}

#[test]
fn an_erasure_whose_backup_cannot_be_proven_ends_at_its_promise_too() {
    let mut story = unprovable();
    story.close(ClosureMode::Erase, None).pass(100);
    assert_eq!(
        story.told(),
        "2026-01-01 00:00 Blocked (OwnerErased)\n2026-02-01 00:00 Deleted (PromiseElapsed)\n2026-02-01 00:00 Expired (PromiseElapsed)"
    );
}

#[test]
fn an_unprovable_account_that_is_held_is_dropped_after_the_notice_and_not_before() {
    let mut story = unprovable();
    story.held = true;
    story.pass(400);
    assert_eq!((story.record.stage, story.verdict().blockers), (Stage::Terminated, vec![Blocker::Hold { until: None }]));
    story.held = false;
    story.settle();
    let released = story.now;
    story.pass(100);
    assert_eq!(story.entered.iter().find(|(_, _, to)| *to == Stage::Deleted).map(|(when, ..)| *when), Some(released + days(1)));
    assert_eq!(story.record.reason, Reason::PromiseElapsed);
}

#[test]
fn an_unprovable_account_waits_for_its_backups_own_hold_the_brake_and_a_pause() {
    type Change = fn(&mut Story);
    let cases: [(Change, Blocker); 4] = [
        (|s| s.facts.backup_held = true, Blocker::Hold { until: None }),
        (|s| s.facts.brake = Known::Known(false), Blocker::Brake),
        (|s| s.facts.paused = true, Blocker::Paused),
        (|s| s.facts.sealed = Known::Known(false), Blocker::Sessions),
    ];
    for (change, blocker) in cases {
        let mut story = unprovable();
        story.pass(100);
        change(&mut story);
        story.pass(500);
        assert_eq!((story.record.stage, story.verdict().blockers), (Stage::Terminated, vec![blocker]));
    }
}

#[test]
fn no_unknown_fact_permits_the_drop_of_an_unprovable_account() {
    for fact in 0..6 {
        let mut story = unprovable();
        story.pass(100);
        with_unknown(fact, &mut story);
        story.pass(500);
        assert_eq!(story.record.stage, Stage::Terminated, "fact {fact}: {}", story.told());
    }
}

#[test]
fn an_attempt_that_runs_at_the_deadline_is_waited_for() {
    let mut story = unprovable();
    story.pass(100);
    let facts = Facts { frozen: Known::Known(Frozen::Running), ..story.facts.clone() };
    assert!(matches!(decide(&story.record, &facts, at("2026-05-15")).blockers[..], [Blocker::Backup(_)]));
}

#[test]
fn a_backup_that_is_proven_after_all_goes_the_normal_way() {
    let mut story = unprovable();
    story.pass(115);
    story.unprovable_since = None;
    story.settle();
    assert_eq!(story.record.unprovable, None);
    story.pass(100);
    let deleted = story.entered.iter().find(|(_, _, to)| *to == Stage::Deleted).unwrap().0;
    assert_eq!(
        story.told().lines().skip(2).collect::<Vec<_>>(),
        ["2026-04-26 00:00 Deleted (WindowEnded)", "2026-05-26 00:00 Expired (BackupExpired)"]
    );
    assert_eq!(story.record.data_gone_by, Some(deleted + days(30)));
    assert_eq!(story.record.promised, Some(at("2026-05-15")), "the promise that was not kept is not forgotten");
}

#[test]
fn a_payment_reopens_an_unprovable_account_before_its_database_goes_and_brings_nothing_back_after() {
    let mut story = unprovable();
    story.pass(130).bill(BillingState::Active);
    assert_eq!((story.record.stage, &story.record.unprovable), (Stage::Active, &None));
    let mut story = unprovable();
    story.pass(140).bill(BillingState::Active);
    assert_eq!((story.record.stage, story.restores), (Stage::Expired, 0));
}

#[test]
fn a_payment_that_comes_while_the_decided_drop_is_delayed_saves_the_database() {
    let mut story = unprovable();
    story.pass(130);
    story.now = at("2026-05-15");
    story.record = enter(&story.record, Stage::Deleted, Reason::PromiseElapsed, story.now);
    story.stuck = true;
    story.pass(3);
    assert_eq!((story.record.stage, story.record.enforced_at), (Stage::Deleted, None));
    let dropped = Record { dropped_under: Some(DroppedUnder::by(crate::api::account::DropGround::PromiseElapsed)), ..story.record.clone() };
    story.bill(BillingState::Active);
    assert_eq!((story.record.stage, story.restores), (Stage::Active, 0));
    let paid = Record { standing: story.record.standing.clone(), ..dropped };
    assert_eq!(decide(&paid, &story.facts, story.now).step, Step::Enforce, "the drop may have begun");
}

#[test]
fn what_is_unprovable_is_one_backup_and_another_has_to_be_found_so_by_itself() {
    let mut story = unprovable();
    story.pass(100);
    assert!(story.record.unprovable.is_some());
    story.intrude(true);
    story.intrude(false);
    story.facts.frozen = Known::Known(Frozen::Failed("no space left in the bucket".into()));
    story.unprovable_since = None;
    story.settle();
    assert_eq!(story.record.unprovable, None);
}

#[test]
fn two_people_may_cut_the_wait_short_but_no_window_of_the_tenant() {
    let mut story = unprovable();
    story.pass(20);
    story.agreed = Some(("ana", "bob"));
    story.pass(200);
    assert_eq!(
        story.told().lines().skip(1).collect::<Vec<_>>(),
        ["2026-03-16 00:00 Terminated (WindowEnded)", "2026-04-15 00:00 Deleted (DropAgreed)", "2026-04-15 00:00 Expired (DropAgreed)"]
    );
    let agreed = story.record.unprovable.unwrap().agreed.unwrap();
    assert_eq!((agreed.requested_by.as_str(), agreed.approved_by.as_str()), ("ana", "bob"));
}

#[test]
fn one_person_or_nobody_cuts_nothing_short() {
    for names in [Some(("ana", "ana")), Some(("ana", "")), Some(("", "ana")), None] {
        let mut story = unprovable();
        story.pass(110);
        story.agreed = names;
        story.run_until(at("2026-05-14T23:59:59Z"));
        assert_eq!(story.record.stage, Stage::Terminated, "{names:?}");
    }
    let mut story = unprovable();
    story.pass(80);
    story.agreed = Some(("ana", "bob"));
    story.pass(10);
    story.agreed = Some(("ana", ""));
    story.run_until(at("2026-05-14T23:59:59Z"));
    assert_eq!(story.record.stage, Stage::Terminated, "an approval that was taken back counts no more");
}

#[test]
fn two_people_agree_in_vain_where_a_backup_is_proven() {
    let mut story = Story::new();
    story.agreed = Some(("ana", "bob"));
    story.pass(400);
    assert!(story.told().ends_with("2026-04-15 00:00 Deleted (WindowEnded)\n2026-05-15 00:00 Expired (BackupExpired)"), "{}", story.told());
}

#[test]
fn an_erasure_that_waited_for_the_brake_past_its_backup_gets_another_one_with_its_full_window() {
    let mut story = Story::new();
    story.close(ClosureMode::Erase, None);
    let first = story.record.frozen.unwrap();
    story.facts.brake = Known::Known(false);
    story.run_until(at("2026-02-20"));
    let verdict = story.verdict();
    assert_eq!((verdict.blockers, verdict.overdue_since), (vec![Blocker::Brake], Some(at("2026-01-02"))));
    assert_eq!((story.record.stage, &story.facts.frozen), (Stage::Blocked, &Known::Known(Frozen::Erased)));
    assert_eq!(story.record.data_gone_by, Some(at("2026-02-01")), "the ledger keeps what was promised");

    // Released: the database stays until another backup of it is proven, however long that takes.
    story.facts.brake = Known::Known(true);
    story.facts.frozen = Known::Known(Frozen::Failed("no space left in the bucket".into()));
    story.settle();
    let second = story.record.frozen.unwrap();
    assert!(second.due > first.due && second.expires_at == at("2026-03-22"), "{second:?}");
    assert_eq!((story.record.stage, story.record.data_gone_by), (Stage::Blocked, Some(at("2026-03-22"))));
    assert_eq!(
        (story.record.promised, story.record.delayed_by.as_slice()),
        (Some(at("2026-02-01")), &["Brake".to_owned(), "AwaitingBackup".to_owned()][..])
    );

    // Proven after a day, it is still the one: its window began when it was asked for.
    story.run_until(at("2026-02-21"));
    story.facts.frozen = Known::Known(Frozen::Missing);
    story.settle();
    story.run_until(at("2026-06-01"));
    assert_eq!(
        story.told(),
        "2026-01-01 00:00 Blocked (OwnerErased)\n2026-02-21 00:00 Deleted (OwnerErased)\n2026-03-22 00:00 Expired (BackupExpired)"
    );
    assert_eq!(story.record.promised, Some(at("2026-02-01")));
}

#[test]
fn a_brake_that_holds_once_more_after_its_release_skips_nothing() {
    let mut story = Story::new();
    story.close(ClosureMode::Erase, None);
    for until in ["2026-02-20", "2026-04-20"] {
        story.facts.brake = Known::Known(false);
        story.run_until(at(until));
        // Room for the step that asks for another backup, and none for the drop.
        story.facts.brake = Known::Known(true);
        story.reconcile();
        story.facts.brake = Known::Known(false);
        story.settle();
        assert_eq!((story.record.stage, story.record.frozen.unwrap().expires_at), (Stage::Blocked, story.now + days(30)));
    }
    story.facts.brake = Known::Known(true);
    story.settle();
    story.pass(100);
    assert!(story.told().ends_with("2026-04-20 00:00 Deleted (OwnerErased)\n2026-05-20 00:00 Expired (BackupExpired)"), "{}", story.told());
    assert_eq!((story.record.promised, story.record.delayed_by.as_slice()), (Some(at("2026-02-01")), &["Brake".to_owned()][..]));
}
