//! Once every effect of a stage was seen, stores that it is enforced; says when to reconcile next.

use k8s_openapi::jiff::SignedDuration;

use super::{
    context::AccountContext,
    decide::{Decided, comes_next, facts, store, windows},
    error::Error,
    observe::Observation,
    realize::Realized,
};
use crate::controller::placement::Placement;
use crate::{
    api::HelpDeskAccount,
    clock::Moment,
    lifecycle::{self, Blocker, Next, RejectedBilling, Stage, Step},
};

/// How often an account is looked at while a step is overdue.
const OVERDUE_PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// An account after this reconcile.
pub(super) struct Outcome {
    /// Where it lives, with the stored entry.
    pub placement: Placement,
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
    pub refused: Option<RejectedBilling>,
    /// What was done, for the report.
    pub findings: Vec<crate::api::conditions::Finding>,
    /// The tenant's host names.
    pub domains: Vec<crate::api::account::DomainStatus>,
}

impl Outcome {
    /// Whether nothing of the account's active data is left to look after, so that its object may go.
    pub fn is_over(&self) -> bool {
        let record = &self.placement.entry.record;
        record.stage >= Stage::Deleted && record.enforced_at.is_some()
    }
}

/// Closes the stage if all its effects were seen, and decides what comes next.
pub(super) async fn record(
    ctx: &AccountContext,
    account: &HelpDeskAccount,
    observed: &Observation,
    realized: Realized,
    now: Moment,
) -> Result<Outcome, Error> {
    let Realized { decided, waiting_on, complete, restored, findings, domains, wake_at } = realized;
    let Decided { mut placement, decision, refused, brake } = decided;
    let mut entered = false;
    if restored {
        let record = lifecycle::enter(&placement.entry.record, Stage::Active, lifecycle::Reason::Paid, now);
        store(ctx, &mut placement, record, now).await?;
        crate::crash::point("restore-recorded", "Active");
    } else if complete && placement.entry.record.enforced_at.is_none() {
        let record = lifecycle::enforced(&placement.entry.record, &windows(observed, &placement.entry.record), &observed.clock, now);
        if record.enforced_at.is_some() {
            let due = decision.next.filter(|n| n.stage == record.stage).map_or(placement.entry.record.decided_at, |n| n.at);
            ctx.telemetry
                .lateness
                .get_or_create(&crate::telemetry::StageLabel { stage: record.stage.name() })
                .observe(now.duration_since(due).as_secs_f64());
            entered = true;
        }
        store(ctx, &mut placement, record, now).await?;
        crate::crash::point("enforced-recorded", placement.entry.record.stage.name());
    }
    let again = lifecycle::decide(&placement.entry.record, &facts(account, &placement, observed, refused.as_ref(), brake), now);
    let moves_on = !matches!(again.step, Step::Stay | Step::Enforce | Step::Restore) || restored;
    let soon = (moves_on || entered).then_some(now);
    // What delays a step may end without anybody announcing it, as the brake's window does.
    let look_again = (!again.blockers.is_empty()).then(|| now + OVERDUE_PATIENCE);
    // A time ahead is believed once it has come.
    let believed = refused.as_ref().and_then(RejectedBilling::passes_at).filter(|at| *at > now);
    let wake_at = [again.wake_at, wake_at, soon, look_again, believed].into_iter().flatten().min();
    let blockers = if again.step == Step::Stay { again.blockers } else { decision.blockers };
    let next = comes_next(&placement.entry.record, again.next);
    Ok(Outcome { placement, next, blockers, overdue_since: again.overdue_since, wake_at, waiting_on, refused, findings, domains })
}
