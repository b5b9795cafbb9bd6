//! Which accounts of a class are upgraded next. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::SignedDuration;

use crate::{
    api::{
        Time,
        conditions::{Finding, Type},
        help_desk_class::{HelpDeskClassStatus, MOST_AT_ONCE, Upgrade, UpgradingAccount},
    },
    clock::Moment,
};

/// The reasons of `AppReady` that do not pass by themselves.
const PERMANENT: [&str; 5] = ["HookFailed", "ClassInvalid", "SecretLost", "ObjectRefused", "RevisionLost"];
/// How many names of failed accounts the status has.
const MOST_NAMES: usize = 20;

/// What is known of an account that has a revision of the class.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct AccountFacts {
    pub name: String,
    /// The revision that it has.
    pub revision: String,
    /// Whether its app is to run, and the operator may change it.
    pub takes_part: bool,
    pub created_at: Moment,
    pub app: AppState,
}

/// Whether an app is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AppState {
    /// The operator runs none.
    None,
    /// Since then.
    Ready(Moment),
    /// Since then, for this reason.
    NotReady(Moment, String),
}

impl AppState {
    fn is_ready(&self) -> bool {
        !matches!(self, Self::NotReady(..))
    }
}

/// What follows for the class.
pub(super) struct Rollout {
    pub upgrading: Vec<UpgradingAccount>,
    pub started_at: Option<Time>,
    pub failed: BTreeSet<String>,
    pub accounts: usize,
    pub updated: usize,
    pub findings: Vec<Finding>,
    /// When time alone changes what follows.
    pub wake_at: Option<Moment>,
}

/// What became of an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// It goes on, and time alone may change that at this moment.
    GoesOn(Moment),
    /// It has taken too long, or does not get further by itself.
    Late,
}

/// Takes the rollout of `target` one step further.
pub(super) fn step(upgrade: &Upgrade, target: &str, before: &HelpDeskClassStatus, accounts: &[AccountFacts], now: Moment) -> Rollout {
    let goes_on = before.revision.as_deref() == Some(target);
    let started_at = before.rollout_started_at.clone().filter(|_| goes_on);
    let by_name: BTreeMap<&str, &AccountFacts> = accounts.iter().map(|account| (account.name.as_str(), account)).collect();
    let mut wake_at = None;
    let mut wake = |at: Moment| wake_at = Some(wake_at.map_or(at, |before: Moment| before.min(at)));

    let (mut upgrading, mut failed, mut busy) = (vec![], BTreeSet::new(), 0);
    for entry in before.upgrading.iter().filter(|_| goes_on) {
        let Some(account) = by_name.get(entry.account.as_str()) else { continue };
        if !account.takes_part {
            // That a tenant is blocked repairs nothing.
            if before.failed.contains(&account.name) {
                failed.insert(account.name.clone());
                upgrading.push(entry.clone());
            }
            continue;
        }
        match outcome(upgrade, target, entry, account, now) {
            Outcome::Done => continue,
            Outcome::GoesOn(until) => {
                wake(until);
                busy += 1;
            }
            Outcome::Late if entry.was_ready => {
                failed.insert(account.name.clone());
            }
            Outcome::Late => {}
        }
        upgrading.push(entry.clone());
    }
    let is_upgrading = |upgrading: &[UpgradingAccount], name: &str| upgrading.iter().any(|entry| entry.account == name);
    // Apps that were upgraded and got worse later.
    for account in accounts.iter().filter(|a| a.takes_part && a.revision == target && !is_upgrading(&upgrading, &a.name)) {
        let (Some(started), AppState::NotReady(since, _)) = (&started_at, &account.app) else { continue };
        if *since < started.0 || account.created_at >= started.0 {
            continue;
        }
        let counts_at = *since + SignedDuration::from_secs(upgrade.min_ready_seconds.into());
        if counts_at <= now {
            failed.insert(account.name.clone());
        } else {
            wake(counts_at);
        }
    }

    let total = accounts.len();
    let mut waiting: Vec<_> =
        accounts.iter().filter(|a| a.takes_part && a.revision != target && !is_upgrading(&upgrading, &a.name)).collect();
    // An app that is not ready has the least to lose.
    waiting.sort_by_key(|account| (account.app.is_ready(), &account.name));
    let is_stopped = failed.len() > usize::try_from(upgrade.max_failures).unwrap_or_default();
    if !is_stopped && !upgrade.paused {
        let slots = upgrade.at_once(total).saturating_sub(busy).min((2 * MOST_AT_ONCE).saturating_sub(upgrading.len()));
        for account in waiting.iter().take(slots) {
            upgrading.push(UpgradingAccount { account: account.name.clone(), since: Time(now), was_ready: account.app.is_ready() });
            wake(now + SignedDuration::from_secs(upgrade.progress_deadline_seconds.into()));
        }
    }
    let updated = accounts.iter().filter(|account| account.revision == target).count();
    let started_at = started_at.or_else(|| (!upgrading.is_empty()).then_some(Time(now)));
    let is_over = waiting.is_empty() && upgrading.is_empty();
    let findings = findings(upgrade, &failed, is_stopped, is_over, (updated, total, upgrading.len()));
    Rollout { upgrading, started_at, failed, accounts: total, updated, findings, wake_at }
}

fn outcome(upgrade: &Upgrade, target: &str, entry: &UpgradingAccount, account: &AccountFacts, now: Moment) -> Outcome {
    let deadline = entry.since.0 + SignedDuration::from_secs(upgrade.progress_deadline_seconds.into());
    let has_target = account.revision == target;
    match &account.app {
        AppState::None if has_target => return Outcome::Done,
        AppState::Ready(since) if has_target => {
            let settled = (*since).max(entry.since.0) + SignedDuration::from_secs(upgrade.min_ready_seconds.into());
            return if settled <= now { Outcome::Done } else { Outcome::GoesOn(settled) };
        }
        AppState::NotReady(since, reason) if has_target && *since >= entry.since.0 && PERMANENT.contains(&reason.as_str()) => {
            return Outcome::Late;
        }
        _ => {}
    }
    if deadline <= now { Outcome::Late } else { Outcome::GoesOn(deadline) }
}

fn findings(
    upgrade: &Upgrade,
    failed: &BTreeSet<String>,
    is_stopped: bool,
    is_over: bool,
    (updated, total, upgrading): (usize, usize, usize),
) -> Vec<Finding> {
    let far = format!("{updated} of {total} accounts have the class as it is now");
    let names = || failed.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    let mut findings = vec![match (is_over, is_stopped, upgrade.paused) {
        (true, ..) if updated == total => Finding::yes(Type::Ready, "UpToDate", far.clone()),
        (true, ..) => {
            Finding::yes(Type::Ready, "UpToDate", format!("{far}; the others are closed or paused, and get it once they are not"))
        }
        (_, true, _) => Finding::no(Type::Ready, "TooManyFailures", format!("{far}; the upgrade has stopped")),
        (_, _, true) => {
            Finding::no(Type::Ready, "Paused", format!("{far}; no further account is upgraded while spec.upgrade.paused is set"))
        }
        (..) => Finding::no(Type::Ready, "Upgrading", format!("{far}, and {upgrading} are being upgraded")),
    }];
    if is_stopped {
        let message = format!(
            "the upgrade failed for {} ({}), more than spec.upgrade.maxFailures {}: no further account is upgraded. Their conditions AppReady say why; correct the class, or bring it back to what it was",
            failed.len(),
            names(),
            upgrade.max_failures
        );
        findings.push(Finding::yes(Type::Stalled, "TooManyFailures", message));
    } else if !is_over && (upgrading > 0 || !upgrade.paused) {
        findings.push(Finding::yes(Type::Reconciling, "Upgrading", format!("{far}, and {upgrading} are being upgraded")));
    }
    findings
}

/// The names of failed accounts that the status has.
pub(super) fn first_names(failed: &BTreeSet<String>) -> Vec<String> {
    failed.iter().take(MOST_NAMES).cloned().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: &str = "echo-1";
    const NEW: &str = "echo-2";

    fn at(seconds: i64) -> Moment {
        Moment::UNIX_EPOCH + SignedDuration::from_secs(1_000_000 + seconds)
    }

    fn account(name: &str, revision: &str, app: AppState) -> AccountFacts {
        AccountFacts { name: name.into(), revision: revision.into(), takes_part: true, created_at: Moment::UNIX_EPOCH, app }
    }

    fn ready(name: &str, revision: &str) -> AccountFacts {
        account(name, revision, AppState::Ready(at(0)))
    }

    /// What the status says after that step.
    fn status(rollout: &Rollout) -> HelpDeskClassStatus {
        HelpDeskClassStatus {
            revision: Some(NEW.into()),
            upgrading: rollout.upgrading.clone(),
            rollout_started_at: rollout.started_at.clone(),
            failed: first_names(&rollout.failed),
            ..HelpDeskClassStatus::default()
        }
    }

    fn names(rollout: &Rollout) -> Vec<&str> {
        rollout.upgrading.iter().map(|entry| entry.account.as_str()).collect()
    }

    fn reason(rollout: &Rollout, kind: Type) -> Option<&str> {
        rollout.findings.iter().find(|finding| finding.kind == kind).map(|finding| finding.reason.as_str())
    }

    fn two_at_once() -> Upgrade {
        Upgrade { max_concurrent: k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(2), ..Upgrade::default() }
    }

    #[test]
    fn the_next_account_takes_its_turn_when_one_has_been_ready_for_a_while() {
        let before = HelpDeskClassStatus::default();
        let mut accounts = vec![ready("a", OLD), ready("b", OLD), ready("c", OLD)];
        let first = step(&two_at_once(), NEW, &before, &accounts, at(10));
        assert_eq!((names(&first), reason(&first, Type::Ready)), (vec!["a", "b"], Some("Upgrading")));

        // One has the new revision, and its app starts.
        accounts[0] = account("a", NEW, AppState::NotReady(at(11), "Progressing".into()));
        let second = step(&two_at_once(), NEW, &status(&first), &accounts, at(12));
        assert_eq!(names(&second), ["a", "b"]);

        // It is ready, for 29 seconds, and then for 30.
        accounts[0] = account("a", NEW, AppState::Ready(at(20)));
        let third = step(&two_at_once(), NEW, &status(&second), &accounts, at(49));
        assert_eq!((names(&third), third.wake_at), (vec!["a", "b"], Some(at(50))));
        let fourth = step(&two_at_once(), NEW, &status(&third), &accounts, at(50));
        assert_eq!((names(&fourth), fourth.updated), (vec!["b", "c"], 1));
    }

    #[test]
    fn an_app_that_is_ready_still_from_before_has_to_be_ready_for_a_while_too() {
        let accounts = [ready("a", NEW)];
        let entry = UpgradingAccount { account: "a".into(), since: Time(at(100)), was_ready: true };
        let before = HelpDeskClassStatus { revision: Some(NEW.into()), upgrading: vec![entry], ..HelpDeskClassStatus::default() };
        assert_eq!(step(&Upgrade::default(), NEW, &before, &accounts, at(129)).wake_at, Some(at(130)));
        assert!(step(&Upgrade::default(), NEW, &before, &accounts, at(130)).upgrading.is_empty());
    }

    #[test]
    fn a_failure_stops_the_rollout_until_it_is_repaired() {
        let mut accounts = vec![ready("a", OLD), ready("b", OLD), ready("c", OLD), ready("d", OLD)];
        let first = step(&two_at_once(), NEW, &HelpDeskClassStatus::default(), &accounts, at(10));
        accounts[0] = account("a", NEW, AppState::NotReady(at(12), "HookFailed".into()));
        accounts[1] = account("b", NEW, AppState::Ready(at(12)));
        let stopped = step(&two_at_once(), NEW, &status(&first), &accounts, at(60));
        assert_eq!((names(&stopped), reason(&stopped, Type::Stalled)), (vec!["a"], Some("TooManyFailures")));
        assert_eq!(stopped.failed.iter().collect::<Vec<_>>(), ["a"]);

        // The tenant whose upgrade failed is blocked: nobody else gets what failed.
        accounts[0].takes_part = false;
        assert_eq!(names(&step(&two_at_once(), NEW, &status(&stopped), &accounts, at(61))), ["a"]);
        accounts[0].takes_part = true;

        let tolerant = Upgrade { max_failures: 1, ..two_at_once() };
        assert_eq!(names(&step(&tolerant, NEW, &status(&first), &accounts, at(60))), ["a", "c", "d"]);

        accounts[0] = account("a", NEW, AppState::Ready(at(70)));
        let on = step(&two_at_once(), NEW, &status(&stopped), &accounts, at(100));
        assert_eq!((names(&on), reason(&on, Type::Stalled)), (vec!["c", "d"], None));

        // The class is changed instead: the failed account is the first to get the change, and cannot fail again.
        accounts[0] = account("a", NEW, AppState::NotReady(at(12), "HookFailed".into()));
        let other = step(&Upgrade::default(), "echo-3", &status(&stopped), &accounts, at(100));
        assert_eq!((names(&other), other.upgrading[0].was_ready), (vec!["a"], false));
    }

    #[test]
    fn an_upgrade_that_takes_too_long_has_failed() {
        let accounts = [ready("a", OLD), ready("b", OLD)];
        let first = step(&Upgrade::default(), NEW, &HelpDeskClassStatus::default(), &accounts, at(10));
        assert_eq!((names(&first), first.wake_at), (vec!["a"], Some(at(1810))));
        assert!(step(&Upgrade::default(), NEW, &status(&first), &accounts, at(1809)).failed.is_empty());
        assert_eq!(step(&Upgrade::default(), NEW, &status(&first), &accounts, at(1810)).failed.len(), 1);
    }

    #[test]
    fn an_app_that_gets_worse_after_its_upgrade_stops_the_rollout_and_one_that_only_blinks_does_not() {
        let started =
            HelpDeskClassStatus { revision: Some(NEW.into()), rollout_started_at: Some(Time(at(0))), ..HelpDeskClassStatus::default() };
        let accounts = [account("a", NEW, AppState::NotReady(at(100), "Progressing".into())), ready("b", OLD)];
        let blinks = step(&Upgrade::default(), NEW, &started, &accounts, at(129));
        assert_eq!((blinks.failed.len(), names(&blinks)), (0, vec!["b"]));
        let worse = step(&Upgrade::default(), NEW, &started, &accounts, at(130));
        assert_eq!((worse.failed.len(), names(&worse)), (1, vec![]));
        // One that was never ready before the rollout, or is younger, says nothing about it.
        let mut young = accounts.clone();
        young[0].created_at = at(50);
        assert_eq!(names(&step(&Upgrade::default(), NEW, &started, &young, at(130))), ["b"]);
    }

    #[test]
    fn a_paused_rollout_finishes_what_it_began_and_begins_nothing() {
        let accounts = [ready("a", OLD), ready("b", OLD), ready("c", OLD)];
        let first = step(&Upgrade::default(), NEW, &HelpDeskClassStatus::default(), &accounts, at(10));
        let paused = Upgrade { paused: true, ..Upgrade::default() };
        let held = step(&paused, NEW, &status(&first), &accounts, at(20));
        assert_eq!((names(&held), reason(&held, Type::Ready)), (vec!["a"], Some("Paused")));
        assert_eq!(names(&step(&paused, NEW, &HelpDeskClassStatus::default(), &accounts, at(20))), [] as [&str; 0]);
    }

    #[test]
    fn a_closed_account_waits_and_holds_up_nobody() {
        let mut closed = account("a", OLD, AppState::NotReady(at(0), "Stopped".into()));
        closed.takes_part = false;
        let done = step(&Upgrade::default(), NEW, &HelpDeskClassStatus::default(), &[closed, ready("b", NEW)], at(10));
        assert_eq!((names(&done), reason(&done, Type::Ready), done.updated, done.accounts), (vec![], Some("UpToDate"), 1, 2));
    }

    fn any_app() -> impl Strategy<Value = AppState> {
        prop_oneof![
            (0_i64..200).prop_map(|s| AppState::Ready(at(s))),
            (0_i64..200, prop::sample::select(vec!["Progressing", "HookFailed"])).prop_map(|(s, r)| AppState::NotReady(at(s), r.into())),
            Just(AppState::None),
        ]
    }

    proptest! {
        #[test]
        fn never_more_accounts_than_allowed_begin_and_none_after_too_many_failures(
            apps in prop::collection::vec((any_app(), any::<bool>(), any::<bool>()), 1..40),
            max_failures in 0_i32..3, seconds in 0_i64..400,
        ) {
            let accounts: Vec<_> = apps.into_iter().enumerate().map(|(number, (app, is_new, takes_part))| AccountFacts {
                takes_part,
                ..account(&format!("a{number:02}"), if is_new { NEW } else { OLD }, app)
            }).collect();
            let upgrade = Upgrade { max_failures, ..two_at_once() };
            let mut before = HelpDeskClassStatus { revision: Some(NEW.into()), rollout_started_at: Some(Time(at(0))), ..HelpDeskClassStatus::default() };
            for round in 0..4 {
                let next = step(&upgrade, NEW, &before, &accounts, at(seconds + round));
                let begun = next.upgrading.iter().filter(|e| !before.upgrading.contains(e)).count();
                prop_assert!(begun <= 2);
                prop_assert!(next.failed.len() <= usize::try_from(max_failures).unwrap() || begun == 0);
                before = status(&next);
            }
        }
    }
}
