//! The record of an account as its status shows it, for telling people what would come of an edit. Pure.

use k8s_openapi::jiff::SignedDuration;

use crate::{
    api::{
        BillingState, ClosureMode, HelpDeskAccount, HelpDeskAccountStatus, HelpDeskPlanSpec,
        conditions::{self, Type},
        deletion_is_confirmed,
        stage::{Reason, Stage, Transition},
    },
    clock::Moment,
    lifecycle::{self, ClosureRecord, FrozenPin, Grace, Known, Record, Unprovable, billing},
};

/// The record of an account as its status shows it. It is only returned if the stages that follow from it under the present
/// plan are those that the status shows.
///
/// # Errors
/// Why it does not follow from the status.
pub(super) fn record(account: &HelpDeskAccount, plan: &HelpDeskPlanSpec, now: Moment) -> Result<Record, String> {
    let status = account.status.clone().unwrap_or_default();
    let (Some(stage), Some(since)) = (status.stage, status.stage_since.as_ref()) else {
        return Err("no stage is enforced yet".into());
    };
    if let Some(entering) = &status.entering {
        return Err(format!("{} is being entered", entering.stage.name()));
    }
    if let Some(overdue) = conditions::find(&status.conditions, Type::Overdue) {
        return Err(overdue.message.clone());
    }
    // Such as a word of billing that is doubted: the status does not show when it counts.
    if let Some(stalled) = conditions::find(&status.conditions, Type::Stalled).filter(|stalled| stalled.reason != "BackupUnprovable") {
        return Err(stalled.message.clone());
    }
    if let Some(notice) = conditions::find(&status.conditions, Type::Held).filter(|held| held.reason == "Notice") {
        return Err(notice.message.clone());
    }
    if status.billing.as_ref().map(|word| word.sequence) != status.observed_billing_sequence {
        return Err("the operator has not counted what billing wrote last, or refused it".into());
    }
    match status.billing.as_ref().map(|word| word.state) {
        Some(BillingState::Trialing) if stage != Stage::Trial => {
            return Err("billing says Trialing of an account whose trial is over, and the end of that trial is not shown".into());
        }
        Some(BillingState::Incomplete) if status.delinquent_since.is_some() => {
            return Err("billing says Incomplete, and what it said before that is not shown".into());
        }
        _ => {}
    }
    let record = assume(account, &status, stage, since.0, plan);
    let follows = lifecycle::forecast(&record, &Known::Known(plan.lifecycle), plan.clock_policy, now);
    let is_shown =
        |(next, shown): (&lifecycle::Next, &Transition)| (next.stage, next.at, next.reason) == (shown.stage, shown.at.0, shown.reason);
    let same = follows.len() == status.upcoming.len() && follows.iter().zip(&status.upcoming).all(is_shown);
    if same {
        Ok(record)
    } else {
        Err("its dates do not follow from what its status shows, as after a hold or a late word of billing".into())
    }
}

fn assume(account: &HelpDeskAccount, status: &HelpDeskAccountStatus, stage: Stage, since: Moment, plan: &HelpDeskPlanSpec) -> Record {
    let next = status.upcoming.first();
    let due = |reasons: &[Reason]| next.filter(|next| reasons.contains(&next.reason)).map(|next| next.at.0);
    let leaves_at = next.map(|next| next.at.0);
    let mut record = Record {
        stage,
        reason: status.reason.unwrap_or(Reason::Created),
        enforced_at: Some(since),
        leaves_at: leaves_at.filter(|_| stage != Stage::Active),
        data_gone_by: status.data_gone_by.as_ref().map(|at| at.0),
        billing: status.billing.clone(),
        held_since: account.spec.hold.as_ref().map(|_| since),
        ..Record::created(since)
    };
    if stage == Stage::Trial {
        record.trial_ends_at = due(&[Reason::TrialEnded]).or(Some(since + plan.lifecycle.trial.duration()));
        record.leaves_at = record.trial_ends_at;
    }
    record.frozen = frozen(status, stage, since);
    record.closure = closure(account, since, leaves_at.unwrap_or(since));
    if let Some(word) = &status.billing {
        record.standing = billing::judge_billing(None, word, Moment::MAX).0;
        // Who has paid and is not open waits for a payment after a closure that was withdrawn.
        record.paid_above = (word.state == BillingState::Active && stage != Stage::Active).then(|| billing::mark(word));
    }
    let failing_since = status.delinquent_since.as_ref().map(|at| at.0);
    if let Some(standing) = &mut record.standing {
        standing.failing_since = failing_since;
    }
    record.grace = failing_since.map(|since| {
        let ends_at = due(&[Reason::PaymentFailed]).unwrap_or(since + plan.lifecycle.payment_grace.duration());
        Grace { since, ends_at }
    });
    if let Some(pin) = record.frozen.filter(|_| conditions::holds(&status.conditions, Type::Unprovable)) {
        record.unprovable = Some(Unprovable { due: pin.due, since, reason: String::new(), why: String::new(), agreed: None });
    }
    record
}

/// The Frozen backup. Its name does not matter here; it was taken before the stage's window ended.
fn frozen(status: &HelpDeskAccountStatus, stage: Stage, since: Moment) -> Option<FrozenPin> {
    let end = status.upcoming.iter().find(|next| next.stage == Stage::Expired).map(|next| next.at.0);
    let expires_at = match stage {
        Stage::Blocked | Stage::Terminated => status.data_gone_by.as_ref().map(|at| at.0),
        Stage::Deleted => end,
        Stage::Trial | Stage::Active | Stage::Expired => None,
    };
    expires_at.map(|expires_at| FrozenPin { due: since - SignedDuration::from_secs(1), expires_at })
}

fn closure(account: &HelpDeskAccount, since: Moment, delete_at: Moment) -> Option<ClosureRecord> {
    let wish = account.spec.closure.as_ref().map(|closure| (closure.mode, closure.keeps_backup()));
    let by_deletion = deletion_is_confirmed(account);
    let wish = if by_deletion { Some((ClosureMode::Erase, wish.is_none_or(|(_, keeps)| keeps))) } else { wish };
    let closure = |(mode, keeps_backup)| ClosureRecord { mode, keeps_backup, seen_at: since, delete_at, by_deletion };
    wish.map(closure)
}
