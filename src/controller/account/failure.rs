//! Reports a reconcile that failed: which conditions are unknown now, and which deadline has passed.

use kube::{ResourceExt, runtime::events::EventType};

use super::{
    context::AccountContext,
    decide::{self, inputs},
    error::Error,
    history,
    observe::Observation,
    report::{changed, publish, write},
    waiting_for,
};
use crate::{
    api::{
        Condition, HelpDeskAccount, HelpDeskAccountStatus, Time, Window,
        account::LastError,
        conditions::{self, Finding, Type},
        stage::Transition,
    },
    clock::Moment,
    lifecycle::{self, Blocker, Inputs, Next, Reason, Record, Stage},
};

/// Writes into the conditions why the reconcile failed, and which stage is due all the same. Conditions that could not
/// be read become `Unknown`; all others stay as they were. A first failure that may pass is not written: the next try is a
/// second later, and an account that waits for nothing does not become unready by one lost connection.
pub(super) async fn report(ctx: &AccountContext, account: &HelpDeskAccount, error: &Error) {
    let before = account.status.clone().unwrap_or_default();
    let now = (ctx.now)();
    let uid = account.uid().unwrap_or_default();
    let unknown = Observation::unknown(ctx, account, &error.with_causes());
    let remembered = ctx.last_records.get(&uid);
    let assumed = remembered.clone().or_else(|| record_of(&before)).unwrap_or_else(|| Record::created(now));
    let windows = decide::windows(&unknown, &assumed);
    let presumed = presume(remembered, &before, &inputs(account, &unknown, &assumed, &windows), now);
    let late = presumed.late(now);
    let upcoming = presumed.upcoming(&before);
    ctx.delays.put(&uid, late.map(|late| late.1));
    if let Some(record) = presumed.record {
        ctx.last_records.put(&uid, record);
    }
    if !ctx.backoff.is_failing(&uid) && late.is_none() && may_be_over_soon(&before, error) {
        return;
    }
    let conditions = conditions_of_failure(&before, error, late, account.metadata.generation, now);
    let since = before.last_error.as_ref().map_or(Time(now), |last| last.since.clone());
    let retry_within = Window::seconds(i64::try_from(ctx.backoff.next_wait(&uid).as_secs()).unwrap_or(i64::MAX));
    let mut status = HelpDeskAccountStatus {
        billing: None,
        conditions,
        last_error: Some(LastError { reason: error.reason().to_owned(), message: error.with_causes(), since, retry_within }),
        next_stage: presumed.next.map(|next| next.stage),
        next_transition_time: presumed.next.map(|next| Time(next.at)),
        upcoming,
        ..before.clone()
    };
    status.waiting_for = waiting_for::objects(ctx, account, &status);
    status.runbook = waiting_for::runbook(&ctx.settings.runbooks, &status);
    if let Err(error) = write(ctx, account, &before, &status).await {
        let text = error.with_causes();
        if ctx.outages.is_first("reports of failures", &text) {
            tracing::warn!(error = text, "failed to report a failure");
        }
        return;
    }
    for condition in changed(&before.conditions, &status.conditions) {
        if matches!(condition.type_.as_str(), "Stalled" | "Overdue") && condition.status == "True" {
            publish(ctx, account, EventType::Warning, &condition.reason, &condition.message, "Look").await;
        }
    }
}

/// Whether the next try may find an account as ready as it is shown.
fn may_be_over_soon(before: &HelpDeskAccountStatus, error: &Error) -> bool {
    error.may_pass_soon() && before.last_error.is_none() && conditions::holds(&before.conditions, Type::Ready)
}

fn conditions_of_failure(
    before: &HelpDeskAccountStatus,
    error: &Error,
    late: Option<(Next, &'static str)>,
    generation: Option<i64>,
    now: Moment,
) -> Vec<Condition> {
    let message = error.with_causes();
    let mut findings = vec![Finding::unknown(Type::Ready, error.reason(), message.clone())];
    if error.needs_a_person() {
        findings =
            vec![Finding::no(Type::Ready, error.reason(), message.clone()), Finding::yes(Type::Stalled, error.reason(), message.clone())];
    }
    if error.is_of_server() {
        let was_shown = |kind: &Type| before.conditions.iter().any(|c| c.type_ == kind.name());
        for kind in [Type::DatabaseReady, Type::BlockEnforced].into_iter().filter(was_shown) {
            findings.push(Finding::unknown(kind, error.reason(), message.clone()));
        }
    }
    if let Some((due, why)) = late {
        let message = format!("{} was due at {} and waits: {message}", due.stage.name(), due.at);
        findings.push(Finding::yes(Type::Overdue, why, message));
    }
    let mut conditions = conditions::merge(&before.conditions, &findings, generation, now);
    let written: Vec<_> = conditions.iter().map(|c| c.type_.clone()).collect();
    let stays = |c: &&Condition| !written.contains(&c.type_) && !matches!(c.type_.as_str(), "Stalled" | "Overdue" | "Reconciling");
    conditions.extend(before.conditions.iter().filter(stays).cloned());
    conditions
}

/// What is assumed of an account whose ledger cannot be read. Only for the report and the metrics.
struct Presumed {
    record: Option<Record>,
    next: Option<Next>,
    is_held: bool,
}

impl Presumed {
    /// The stages that follow. What was shown stays, unless another stage comes next.
    fn upcoming(&self, shown: &HelpDeskAccountStatus) -> Vec<Transition> {
        let next = self.next.as_ref().map(history::shown);
        let is_same = |first: &Transition| next.as_ref().is_some_and(|next| next.stage == first.stage && next.at == first.at);
        if shown.upcoming.first().is_some_and(is_same) { shown.upcoming.clone() } else { next.into_iter().collect() }
    }

    /// The next stage, if it is due already, and what delays it: unknown is whether it was enforced, unless a hold delays a
    /// destructive stage.
    fn late(&self, now: Moment) -> Option<(Next, &'static str)> {
        let next = self.next.filter(|next| next.at <= now)?;
        let why = if next.stage.destroys() && self.is_held {
            Blocker::Hold { until: None }.name()
        } else {
            Blocker::Unknown(String::new()).name()
        };
        Some((next, why))
    }
}

/// Writes the inputs of billing, owner and plan into the record that the ledger had last, or that the status shows. The
/// result only tells people what is due; it decides nothing.
fn presume(remembered: Option<Record>, shown: &HelpDeskAccountStatus, inputs: &Inputs<'_>, now: Moment) -> Presumed {
    let as_shown = shown.next_stage.zip(shown.next_transition_time.as_ref());
    let as_shown = as_shown.map(|(stage, at)| Next { stage, at: at.0, reason: shown.reason.unwrap_or(Reason::Created) });
    let is_from_status = remembered.is_none();
    let Some(record) = remembered.or_else(|| record_of(shown)) else {
        return Presumed { record: None, next: as_shown, is_held: inputs.held };
    };
    let (record, _) = lifecycle::update_record(&record, inputs, now);
    // A record from the status is incomplete. So if billing and owner wrote nothing new, the next stage that the status
    // shows is used, and not one that is computed from it.
    let is_old =
        inputs.billing.map(|b| b.sequence) == shown.observed_billing_sequence && inputs.closure.is_none() && !inputs.confirmed_deletion;
    let next = if is_from_status && is_old { as_shown } else { decide::comes_next(&record, lifecycle::due(&record)) };
    let is_held = record.held_since.is_some() || record.notice_until.is_some_and(|until| until > now);
    Presumed { next, is_held, record: (!is_from_status).then_some(record) }
}

/// A record from the fields that the status shows.
fn record_of(shown: &HelpDeskAccountStatus) -> Option<Record> {
    let (stage, since) = (shown.stage?, shown.stage_since.as_ref()?.0);
    let ends = shown.next_transition_time.as_ref().map(|at| at.0).filter(|_| stage != Stage::Active);
    Some(Record {
        stage,
        reason: shown.reason.unwrap_or(Reason::Created),
        enforced_at: Some(since),
        leaves_at: ends,
        trial_ends_at: ends.filter(|_| stage == Stage::Trial),
        data_gone_by: shown.data_gone_by.as_ref().map(|at| at.0),
        ..Record::created(since)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{Billing, BillingState, ClockPolicy, Lifecycle},
        clock::Trust,
        lifecycle::Known,
    };
    use k8s_openapi::jiff::SignedDuration;

    fn at(text: &str) -> Moment {
        text.parse().unwrap()
    }

    fn said<'a>(billing: Option<&'a Billing>, windows: &'static Lifecycle) -> Inputs<'a> {
        Inputs {
            billing,
            closure: None,
            confirmed_deletion: false,
            held: false,
            windows: Known::Known(windows),
            clock_policy: ClockPolicy::Keep,
            created_at: at("2026-01-01T00:00:00Z"),
            clock: Trust::Trusted,
        }
    }

    fn windows() -> &'static Lifecycle {
        Box::leak(Box::new(Lifecycle::default()))
    }

    fn billing(state: BillingState, since: &str, sequence: i64) -> Billing {
        let failed = matches!(state, BillingState::PastDue).then(|| Time(at(since)));
        serde_json::from_value(serde_json::json!({"state": state, "since": since, "delinquentSince": failed, "sequence": sequence}))
            .unwrap()
    }

    /// What is shown of an account that pays.
    fn active() -> HelpDeskAccountStatus {
        HelpDeskAccountStatus {
            stage: Some(Stage::Active),
            stage_since: Some(Time(at("2026-02-01T00:00:00Z"))),
            observed_billing_sequence: Some(1),
            conditions: vec![Condition {
                type_: "DatabaseReady".into(),
                status: "True".into(),
                reason: "Open".into(),
                message: "database t_a on server pg is open to its tenant".into(),
                observed_generation: Some(1),
                last_transition_time: Time(at("2026-02-01T00:00:00Z")),
            }],
            ..HelpDeskAccountStatus::default()
        }
    }

    #[test]
    fn a_payment_that_failed_while_the_server_is_away_is_due_when_its_grace_ends() {
        let windows = windows();
        let failed = billing(BillingState::PastDue, "2026-03-01T00:00:00Z", 2);
        let ends = at("2026-03-01T00:00:00Z") + windows.payment_grace.duration();
        let mut remembered = Record::created(at("2026-01-01T00:00:00Z"));
        remembered.stage = Stage::Active;
        remembered.enforced_at = Some(at("2026-02-01T00:00:00Z"));
        remembered.billing = Some(billing(BillingState::Active, "2026-02-01T00:00:00Z", 1));
        // After a restart there is only what the status shows.
        for known in [Some(remembered), None] {
            let presumed = presume(known, &active(), &said(Some(&failed), windows), at("2026-03-02T00:00:00Z"));
            let next = presumed.next.expect("nothing is due");
            assert_eq!((next.stage, next.at), (Stage::Blocked, ends));
            assert_eq!(presumed.late(ends - SignedDuration::from_secs(1)), None);
            assert_eq!(presumed.late(ends).map(|late| late.1), Some("Unknown"), "what is due and unknown is overdue");
        }
    }

    #[test]
    fn what_was_due_next_stays_shown_while_nobody_can_be_asked() {
        let paid = billing(BillingState::Active, "2026-02-01T00:00:00Z", 1);
        let shown = HelpDeskAccountStatus {
            stage: Some(Stage::Blocked),
            next_stage: Some(Stage::Terminated),
            next_transition_time: Some(Time(at("2026-04-01T00:00:00Z"))),
            ..active()
        };
        let failed = billing(BillingState::PastDue, "2026-01-20T00:00:00Z", 1);
        let presumed = presume(None, &shown, &said(Some(&failed), windows()), at("2026-05-01T00:00:00Z"));
        assert_eq!(presumed.next.map(|n| (n.stage, n.at)), Some((Stage::Terminated, at("2026-04-01T00:00:00Z"))));
        let presumed = presume(None, &active(), &said(Some(&paid), windows()), at("2026-05-01T00:00:00Z"));
        assert_eq!(presumed.next, None, "who pays is due for nothing");

        let mut terminated = Record::created(at("2026-01-01T00:00:00Z"));
        terminated.stage = Stage::Terminated;
        terminated.enforced_at = Some(at("2026-03-01T00:00:00Z"));
        terminated.leaves_at = Some(at("2026-04-01T00:00:00Z"));
        let now = at("2026-05-01T00:00:00Z");
        assert_eq!(presume(Some(terminated.clone()), &shown, &said(None, windows()), now).late(now).map(|late| late.1), Some("Unknown"));
        let held = Inputs { held: true, ..said(None, windows()) };
        assert_eq!(presume(Some(terminated), &shown, &held, now).late(now).map(|late| late.1), Some("Held"));
    }

    #[test]
    fn a_database_that_cannot_be_asked_is_not_called_open_and_what_is_due_is_overdue() {
        let error = Error::Database(crate::database::Error::Unreachable { address: "pg:5432".into(), reason: "silence".into() });
        let due = Next { stage: Stage::Blocked, at: at("2026-03-08T00:00:00Z"), reason: Reason::PaymentFailed };
        let told = conditions_of_failure(&active(), &error, Some((due, "Unknown")), Some(1), at("2026-03-09T00:00:00Z"));
        let status = |kind: &str| told.iter().find(|c| c.type_ == kind).map(|c| c.status.as_str());
        assert_eq!((status("DatabaseReady"), status("Ready"), status("Overdue")), (Some("Unknown"), Some("Unknown"), Some("True")));
        assert_eq!(status("BlockEnforced"), None, "an open account was never blocked");
        // What another part of the cluster does not tell says nothing of the database.
        let error = Error::Placement("spec.plan: there is no HelpDeskPlan".into());
        let told = conditions_of_failure(&active(), &error, None, Some(1), at("2026-03-09T00:00:00Z"));
        assert!(conditions::holds(&told, Type::DatabaseReady));
    }

    #[test]
    fn a_ready_account_is_tried_again_before_a_lost_connection_is_told() {
        let lost = Error::Database(crate::database::Error::Unreachable { address: "pg:5432".into(), reason: "silence".into() });
        let ready = HelpDeskAccountStatus {
            conditions: conditions::merge(
                &[],
                &[Finding::yes(Type::Ready, "AsWanted", "it is as wanted")],
                Some(1),
                at("2026-03-01T00:00:00Z"),
            ),
            ..active()
        };
        assert!(may_be_over_soon(&ready, &lost));
        assert!(!may_be_over_soon(&HelpDeskAccountStatus { conditions: vec![], ..active() }, &lost), "it was not ready before");
        assert!(!may_be_over_soon(&ready, &Error::Placement("spec.plan: there is no HelpDeskPlan".into())), "no try ends it");
    }
}
