//! What an edited plan would change for its accounts. Pure.

use kube::ResourceExt;
use serde::Serialize;

use crate::{
    api::{ClockPolicy, HelpDeskAccount, HelpDeskPlanSpec, Time, stage::Transition},
    cli::{
        assumed,
        output::{table, when, wrapped},
    },
    clock::Moment,
    lifecycle::{self, Known},
};

/// What an edited plan would change.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Change {
    /// Whether deadlines that are set follow the edit.
    pub(super) clock_policy: ClockPolicy,
    /// Every account of the plan, by name.
    pub(super) accounts: Vec<AccountChange>,
}

/// What it would change for one account.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AccountChange {
    pub(super) account: String,
    /// The stages that follow under the present plan.
    pub(super) present: Vec<Transition>,
    /// Those under the edited one; `None`: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) edited: Option<Vec<Transition>>,
    /// Why they are not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) unknown: Option<String>,
    pub(super) changes: bool,
    /// Whether the next stage would be entered at once.
    pub(super) at_once: bool,
}

/// What an edited plan would change for these accounts.
pub(super) fn change(accounts: &[HelpDeskAccount], present: &HelpDeskPlanSpec, new: &HelpDeskPlanSpec, now: Moment) -> Change {
    let mut all: Vec<AccountChange> = accounts.iter().map(|account| of_account(account, present, new, now)).collect();
    all.sort_by(|a, b| a.account.cmp(&b.account));
    Change { clock_policy: new.clock_policy, accounts: all }
}

fn of_account(account: &HelpDeskAccount, present: &HelpDeskPlanSpec, new: &HelpDeskPlanSpec, now: Moment) -> AccountChange {
    let shown = account.status.as_ref().map(|status| status.upcoming.clone()).unwrap_or_default();
    let told = |edited: Option<Vec<Transition>>, unknown, at_once| AccountChange {
        account: account.name_any(),
        changes: edited.as_ref().is_some_and(|edited| *edited != shown),
        present: shown.clone(),
        edited,
        unknown,
        at_once,
    };
    match assumed::record(account, present, now) {
        Ok(record) => {
            let follows = lifecycle::forecast(&record, &Known::Known(new.lifecycle), new.clock_policy, now);
            let at_once = follows.first().is_some_and(|next| next.at <= now);
            let edited = follows.iter().map(|next| Transition { stage: next.stage, at: Time(next.at), reason: next.reason });
            told(Some(edited.collect()), None, at_once)
        }
        Err(why) => told(None, Some(why), false),
    }
}

/// The change as text: the accounts for which a date changes, and in wide text all of them.
pub(super) fn text(change: &Change, plan: &str, wide: bool, now: Moment) -> String {
    let changed = change.accounts.iter().filter(|one| one.changes).count();
    let at_once: Vec<&str> = change.accounts.iter().filter(|one| one.at_once).map(|one| one.account.as_str()).collect();
    let unknown = change.accounts.iter().filter(|one| one.unknown.is_some()).count();
    let policy = match change.clock_policy {
        ClockPolicy::Keep => "deadlines that are set stay (clockPolicy Keep)",
        ClockPolicy::Recompute => "deadlines that are set are computed anew (clockPolicy Recompute)",
    };
    let mut text = format!(
        "Plan {plan}, {policy}: dates change for {changed} of {} accounts; of {unknown} it cannot be told.\nNothing was written.\n",
        change.accounts.len()
    );
    if !at_once.is_empty() {
        text.push_str(&wrapped(&format!("ENTERED AT ONCE by {}: {}", at_once.len(), at_once.join(", ")), 0));
    }
    for one in change.accounts.iter().filter(|one| wide || one.changes || one.unknown.is_some()) {
        text.push_str(&format!("\n{}\n", one.account));
        if let Some(why) = &one.unknown {
            text.push_str(&wrapped(&format!("not known: {why}"), 2));
            continue;
        }
        text.push_str(&table(&rows(one, now)));
    }
    text
}

/// One row a stage, with the date under the present and under the edited plan.
fn rows(one: &AccountChange, now: Moment) -> Vec<Vec<String>> {
    let edited = one.edited.as_deref().unwrap_or_default();
    if one.present.is_empty() && edited.is_empty() {
        return vec![vec!["  nothing is due".to_owned()]];
    }
    let mut stages: Vec<&Transition> = one.present.iter().collect();
    stages.extend(edited.iter().filter(|next| !one.present.iter().any(|shown| shown.stage == next.stage)));
    let date = |all: &[Transition], of: &Transition| all.iter().find(|next| next.stage == of.stage).map(|next| next.at.0);
    let row = |stage: &&Transition| {
        let (before, after) = (date(&one.present, stage), date(edited, stage));
        let told = |at: Option<Moment>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
        let then = match after {
            Some(at) if at <= now => "at once".to_owned(),
            Some(at) if Some(at) == before => "the same".to_owned(),
            Some(at) => when(at, now),
            // A stage that is entered at once is where the forecast ends.
            None => "later than that".to_owned(),
        };
        vec![format!("  {}", stage.stage.name()), told(before), "→".to_owned(), then]
    };
    stages.iter().map(row).collect()
}
