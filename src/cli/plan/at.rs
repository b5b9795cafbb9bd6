//! Which stage each account would be in at a date. Pure.

use kube::ResourceExt;
use serde::Serialize;

use crate::{
    api::{
        HelpDeskAccount, Time,
        conditions::{self, Type},
        stage::Stage,
    },
    cli::output::{table, when},
    clock::Moment,
};

/// An account at a date.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StageAt {
    account: String,
    plan: String,
    /// The present stage; `None`: none yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    now: Option<Stage>,
    /// The stage at the date; `None`: not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    then: Option<Stage>,
    /// Since when it will be in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Time>,
    /// Why the stage is not known, or may be another.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// Every account at a date, by name.
pub(super) fn stages(accounts: &[HelpDeskAccount], date: Moment) -> Vec<StageAt> {
    let mut all: Vec<StageAt> = accounts.iter().map(|account| stage_at(account, date)).collect();
    all.sort_by(|a, b| a.account.cmp(&b.account));
    all
}

fn stage_at(account: &HelpDeskAccount, date: Moment) -> StageAt {
    let status = account.status.clone().unwrap_or_default();
    let (name, plan, now) = (account.name_any(), account.spec.plan.clone(), status.stage);
    let told = |then, since, note: Option<String>| StageAt { account: name.clone(), plan: plan.clone(), now, then, since, note };
    let Some(stage) = status.stage else {
        return told(None, None, Some("the operator has not looked at it yet".into()));
    };
    if let Some(overdue) = conditions::find(&status.conditions, Type::Overdue) {
        return told(None, None, Some(overdue.message.clone()));
    }
    if account.spec.paused {
        return told(Some(stage), status.stage_since, Some("paused: no stage is entered until spec.paused is false".into()));
    }
    let reached = status.upcoming.iter().filter(|next| next.at.0 <= date);
    // A hold keeps everything from being destroyed, for as long as it is set.
    let is_held = account.spec.hold.is_some();
    let last = reached.clone().rfind(|next| !(is_held && next.stage.destroys()));
    let held = reached.clone().find(|next| is_held && next.stage.destroys());
    let note = held.map(|next| format!("a hold delays {}, which is due at {}", next.stage.name(), next.at.0));
    match last {
        Some(next) => told(Some(next.stage), Some(next.at.clone()), note),
        None => told(Some(stage), status.stage_since, note),
    }
}

/// The accounts as text, and how many are in each stage.
pub(super) fn text(told: &[StageAt], date: Moment, now: Moment) -> String {
    let head = ["ACCOUNT", "PLAN", "NOW", "THEN", "SINCE", "NOTE"].map(str::to_owned).to_vec();
    let stage = |stage: Option<Stage>, none: &'static str| stage.map_or(none, Stage::name).to_owned();
    let row = |one: &StageAt| {
        let since = one.since.as_ref().map(|at| when(at.0, now)).unwrap_or_default();
        let note = one.note.clone().unwrap_or_default();
        vec![one.account.clone(), one.plan.clone(), stage(one.now, "-"), stage(one.then, "unknown"), since, note]
    };
    let rows: Vec<_> = std::iter::once(head).chain(told.iter().map(row)).collect();
    let count = |stage: Option<Stage>| told.iter().filter(|one| one.then == stage).count();
    let counts = Stage::ALL.into_iter().map(|stage| (stage.name(), count(Some(stage)))).chain([("unknown", count(None))]);
    let counts: Vec<String> = counts.filter(|(_, count)| *count > 0).map(|(name, count)| format!("{count} {name}")).collect();
    let sum = if counts.is_empty() { "no accounts".to_owned() } else { counts.join(", ") };
    format!("At {}, if billing and owners say nothing more: {sum}.\n\n{}", when(date, now), table(&rows))
}
