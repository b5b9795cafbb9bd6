//! What the status tells of the past and of what is to come.

use kube::ResourceExt;

use super::{context::AccountContext, decide::windows, observe::Observation, outcome::Outcome};
use crate::{
    api::{
        ClockPolicy, HelpDeskAccount, Time,
        stage::{SHOWN_TRANSITIONS, Transition},
    },
    clock::Moment,
    error_chain::chain,
    lifecycle::{Known, Next, Record, forecast},
};

/// The stages that the account entered. The ledger is only asked if the last one that the status shows is not the record's
/// own. If it cannot be asked, the status goes on showing what it showed.
pub(super) async fn past(ctx: &AccountContext, account: &HelpDeskAccount, outcome: &Outcome) -> Vec<Transition> {
    let shown = account.status.as_ref().map(|status| status.history.clone()).unwrap_or_default();
    let (entry, ledger) = (&outcome.placement.entry, &outcome.placement.server.ledger);
    if is_complete(&shown, &entry.record) {
        return shown;
    }
    let asked = ctx.telemetry.measure("ledger", "history", ledger.last_transitions(&entry.uid, SHOWN_TRANSITIONS)).await;
    asked.unwrap_or_else(|error| {
        tracing::warn!(account = account.name_any(), error = chain(&error), "the status shows the history that it showed before");
        shown
    })
}

/// Whether a history ends with the stage that was decided last.
fn is_complete(shown: &[Transition], record: &Record) -> bool {
    let newest = Transition { stage: record.stage, at: Time(record.decided_at), reason: record.reason };
    shown.last() == Some(&newest)
}

/// The stages that follow. The first one is the one that the status shows as the next.
pub(super) fn upcoming(observed: &Observation, outcome: &Outcome, now: Moment) -> Vec<Transition> {
    let record = &outcome.placement.entry.record;
    let clock_policy = match &observed.plan {
        Known::Known(plan) => plan.spec.clock_policy,
        Known::Unknown(_) => ClockPolicy::Keep,
    };
    let told = forecast(record, &windows(observed, record), clock_policy, now);
    // Something may delay or forbid the first step that the forecast does not know of.
    let told = if told.first() == outcome.next.as_ref() { told } else { outcome.next.into_iter().collect() };
    told.iter().take(SHOWN_TRANSITIONS).map(shown).collect()
}

/// A stage that follows, as the status shows it.
pub(super) fn shown(next: &Next) -> Transition {
    Transition { stage: next.stage, at: Time(next.at), reason: next.reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::{Reason, Stage, enter};

    #[test]
    fn the_ledger_is_asked_when_a_stage_was_decided_that_is_not_shown() {
        let at = |text: &str| -> Moment { text.parse().unwrap() };
        let created = Record::created(at("2026-01-01T00:00:00Z"));
        let first = Transition { stage: Stage::Trial, at: Time(created.decided_at), reason: Reason::Created };
        assert!(!is_complete(&[], &created));
        assert!(is_complete(std::slice::from_ref(&first), &created));
        let blocked = enter(&created, Stage::Blocked, Reason::TrialEnded, at("2026-01-15T00:00:00Z"));
        assert!(!is_complete(std::slice::from_ref(&first), &blocked));
        // The same stage again, as after a payment that did not last.
        let again = enter(&blocked, Stage::Blocked, Reason::TrialEnded, at("2026-03-15T00:00:00Z"));
        let shown = [first, Transition { stage: Stage::Blocked, at: Time(blocked.decided_at), reason: Reason::TrialEnded }];
        assert!(is_complete(&shown, &blocked) && !is_complete(&shown, &again));
    }
}
