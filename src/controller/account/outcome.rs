//! The end of a stage's effects: once all of them were seen, the stage is enforced, and what follows is decided.

use k8s_openapi::jiff::SignedDuration;

use super::{
    context::Desk,
    decide::{Decided, comes_next, facts, store, windows},
    error::Error,
    observe::Observation,
    placement::Home,
    realize::Realized,
};
use crate::{
    api::HelpDeskAccount,
    clock::Moment,
    lifecycle::{self, Blocker, Next, Refused, Stage, Step},
};

/// How often an account is looked at while a step is overdue.
const OVERDUE_PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// An account after this reconcile.
pub(super) struct Settled {
    /// Where it lives, with the stored entry.
    pub home: Home,
    /// What comes next if nothing changes.
    pub next: Option<Next>,
    /// What delays what is due.
    pub blockers: Vec<Blocker>,
    /// Since when something is overdue.
    pub overdue_since: Option<Moment>,
    /// When to look again.
    pub wake_at: Option<Moment>,
    /// What is not there yet, for people.
    pub waiting_on: Vec<String>,
    /// Why billing's state is unknown.
    pub refused: Option<Refused>,
    /// What was done, for the report.
    pub findings: Vec<crate::api::conditions::Finding>,
    /// The tenant's host names.
    pub domains: Vec<crate::api::account::DomainStatus>,
}

impl Settled {
    /// Whether nothing of the account's active data is left to look after, so that its object may go.
    pub fn is_over(&self) -> bool {
        let record = &self.home.entry.record;
        record.stage >= Stage::Deleted && record.enforced_at.is_some()
    }
}

/// Closes the stage if all its effects were seen, and decides what comes next.
pub(super) async fn settle(
    desk: &Desk,
    account: &HelpDeskAccount,
    seen: &Observation,
    realized: Realized,
    now: Moment,
) -> Result<Settled, Error> {
    let Realized { decided, waiting_on, complete, restored, findings, domains, wake_at } = realized;
    let Decided { mut home, verdict, refused, brake } = decided;
    let mut entered = false;
    if restored {
        let record = lifecycle::enter(&home.entry.record, Stage::Active, lifecycle::Reason::Paid, now);
        store(desk, &mut home, record, now).await?;
        crate::crash::point("restore-recorded", "Active");
    } else if complete && home.entry.record.enforced_at.is_none() {
        let record = lifecycle::enforced(&home.entry.record, &windows(seen, &home.entry.record), &seen.clock, now);
        if record.enforced_at.is_some() {
            let due = verdict.next.filter(|n| n.stage == record.stage).map_or(home.entry.record.decided_at, |n| n.at);
            desk.telemetry
                .lateness
                .get_or_create(&crate::telemetry::StageLabel { stage: record.stage.name() })
                .observe(now.duration_since(due).as_secs_f64());
            entered = true;
        }
        store(desk, &mut home, record, now).await?;
        crate::crash::point("enforced-recorded", home.entry.record.stage.name());
    }
    let again = lifecycle::decide(&home.entry.record, &facts(account, &home, seen, refused.as_ref(), brake), now);
    let moves_on = !matches!(again.step, Step::Stay | Step::Enforce | Step::Restore) || restored;
    let soon = (moves_on || entered).then_some(now);
    // What delays a step may end without anybody announcing it, as the brake's window does.
    let look_again = (!again.blockers.is_empty()).then(|| now + OVERDUE_PATIENCE);
    // A time ahead is believed once it has come.
    let believed = refused.as_ref().and_then(Refused::passes_at).filter(|at| *at > now);
    let wake_at = [again.wake_at, wake_at, soon, look_again, believed].into_iter().flatten().min();
    let blockers = if again.step == Step::Stay { again.blockers } else { verdict.blockers };
    let next = comes_next(&home.entry.record, again.next);
    Ok(Settled { home, next, blockers, overdue_since: again.overdue_since, wake_at, waiting_on, refused, findings, domains })
}
