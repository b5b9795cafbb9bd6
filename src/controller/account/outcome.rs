//! Stores that a stage is enforced, once all its effects were observed. Says when to reconcile next.

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
    clock::{Moment, Trust},
    lifecycle::{self, Blocker, Next, RejectedBilling, Stage, Step},
};

/// How often an account is reconciled while a step is overdue.
const OVERDUE_INTERVAL: SignedDuration = SignedDuration::from_secs(30);

/// An account after this reconcile.
pub(super) struct Outcome {
    /// The account's server, with the stored entry.
    pub placement: Placement,
    /// The next stage, if nothing changes.
    pub next: Option<Next>,
    /// What delays a step that is due.
    pub blockers: Vec<Blocker>,
    /// Since when a step is overdue.
    pub overdue_since: Option<Moment>,
    /// When to reconcile again.
    pub requeue_at: Option<Moment>,
    /// What the stage still waits for, as text for people.
    pub waiting_on: Vec<String>,
    /// Why billing's state was rejected, and is unknown.
    pub refused: Option<RejectedBilling>,
    /// Conditions for the report.
    pub findings: Vec<crate::api::conditions::Finding>,
    /// The tenant's host names.
    pub domains: Vec<crate::api::account::DomainStatus>,
}

impl Outcome {
    /// Has the account looked at again at this time at the latest.
    pub fn wake_at(&mut self, at: Moment) {
        self.requeue_at = Some(self.requeue_at.map_or(at, |before| before.min(at)));
    }

    /// Whether the account's database is dropped, so that its object may be deleted.
    pub fn is_over(&self) -> bool {
        let record = &self.placement.entry.record;
        record.stage >= Stage::Deleted && record.enforced_at.is_some()
    }
}

/// Removes from the ledger what leads to the owner of an account whose object goes before it has expired.
pub(super) async fn forget_owner(placement: Placement) -> Result<(), Error> {
    let mut entry = placement.entry;
    entry.owner_hash = None;
    entry.record.forget_subscription();
    placement.server.ledger.update(&entry, entry.revision).await?;
    Ok(())
}

/// Stores that the stage is enforced if all its effects were observed, and decides what comes next.
pub(super) async fn record(
    ctx: &AccountContext,
    account: &HelpDeskAccount,
    observed: &Observation,
    realized: Realized,
    now: Moment,
) -> Result<Outcome, Error> {
    let Realized { decided, waiting_on, complete, restored, findings, domains, requeue_at } = realized;
    let Decided { mut placement, decision, refused, brake } = decided;
    let mut entered = false;
    if restored {
        let record = lifecycle::enter(&placement.entry.record, Stage::Active, lifecycle::Reason::Paid, now);
        store(ctx, &mut placement, record, &observed.clock, now).await?;
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
        store(ctx, &mut placement, record, &observed.clock, now).await?;
        crate::crash::point("enforced-recorded", placement.entry.record.stage.name());
    }
    let again = lifecycle::decide(&placement.entry.record, &facts(account, &placement, observed, refused.as_ref(), brake), now);
    let moves_on = !matches!(again.step, Step::Stay | Step::Enforce | Step::Restore) || restored;
    let soon = (moves_on || entered).then_some(now);
    // A doubtful clock pins no closure.
    let closure_waits = account.spec.closure.is_some() && placement.entry.record.closure.is_none() && observed.clock != Trust::Trusted;
    // A blocker may end without triggering a reconcile, as when the brake's window has passed.
    let retry = (closure_waits || !again.blockers.is_empty()).then(|| now + OVERDUE_INTERVAL);
    // A billing state that lies in the future counts once its time has come.
    let billing_counts = refused.as_ref().and_then(RejectedBilling::passes_at).filter(|at| *at > now);
    let requeue_at = [again.requeue_at, requeue_at, soon, retry, billing_counts].into_iter().flatten().min();
    let blockers = if again.step == Step::Stay { again.blockers } else { decision.blockers };
    let next = comes_next(&placement.entry.record, again.next);
    Ok(Outcome { placement, next, blockers, overdue_since: again.overdue_since, requeue_at, waiting_on, refused, findings, domains })
}
