//! Collects the facts, decides, and stores the decision in the ledger before any effect.

use kube::{Resource, ResourceExt, runtime::events::EventType};

use super::{context::AccountContext, error::Error, observe::Observation};
use crate::controller::placement::Placement;
use crate::{
    api::{ClockPolicy, DROP_UNPROVEN_APPROVED_BY, DROP_UNPROVEN_REQUESTED_BY, HelpDeskAccount},
    clock::{Moment, Trust},
    ledger::Entry,
    lifecycle::{self, Decision, Facts, Inputs, Known, Next, PlanSeen, Record, RejectedBilling, Stage, Step},
    telemetry::RefusedLabel,
};

/// A decision that is stored.
pub(super) struct Decided {
    /// The account's server, with the stored entry.
    pub placement: Placement,
    /// The decision. If its step enters a stage, the stored entry is in that stage already.
    pub decision: Decision,
    /// Why billing's state was rejected, and is unknown.
    pub refused: Option<RejectedBilling>,
    /// Whether the brake allowed one more destructive step when the decision was stored.
    pub brake: Known<bool>,
}

/// Writes the inputs into the record, decides, and stores the decision.
pub(super) async fn decide(
    ctx: &AccountContext,
    account: &HelpDeskAccount,
    mut placement: Placement,
    observed: &Observation,
    now: Moment,
) -> Result<Decided, Error> {
    let known = Record { plan: plan_seen(account, observed, &placement.entry.record), ..placement.entry.record.clone() };
    let windows = windows(observed, &known);
    let (record, refused) = lifecycle::update_record(&known, &inputs(account, observed, &known, &windows), now);
    let news = record.told.clone().filter(|told| known.told.as_ref() != Some(told)).map(|told| told.why);
    let record = check_seal(record, observed, now);
    let frozen = observed.frozen(&Entry { record: record.clone(), ..placement.entry.clone() });
    let record = lifecycle::check_proof(&record, &frozen, agreed(account), now);
    store(ctx, &mut placement, record, &observed.clock, now).await?;
    if let Some(why) = news {
        tell_billing(ctx, account, &why).await;
    }

    let mut facts = facts(account, &placement, observed, refused.as_ref(), observed.brake.clone());
    let mut decision = lifecycle::decide(&placement.entry.record, &facts, now);
    let noted = lifecycle::note_delay(&placement.entry.record, &decision);
    let intent = match (decision.step.clone(), &facts.windows) {
        (Step::Enter(stage, reason), _) => {
            tracing::info!(to = stage.name(), reason = reason.name(), "entering a stage");
            Some(lifecycle::enter(&noted, stage, reason, now))
        }
        (Step::GoBack, windows) => {
            tracing::info!("the stage before is taken up again");
            Some(lifecycle::go_back(&noted, windows, now))
        }
        (Step::Refreeze, Known::Known(windows)) => Some(lifecycle::refreeze(&noted, windows, now)),
        (Step::Restore, _) if noted.restoring_since.is_none() => Some(Record { restoring_since: Some(now), ..noted.clone() }),
        _ => None,
    };
    let destroys = matches!(decision.step, Step::Enter(stage, _) if stage.destroys());
    let stored = match intent {
        Some(intent) if destroys => store_within(ctx, &mut placement, intent, observed.allowance.as_ref(), now).await?,
        Some(intent) => {
            store(ctx, &mut placement, intent, &observed.clock, now).await?;
            true
        }
        None => {
            store(ctx, &mut placement, noted, &observed.clock, now).await?;
            false
        }
    };
    if stored {
        crate::crash::point("intent-recorded", placement.entry.record.stage.name());
    } else if destroys {
        // The ledger refused: other accounts were stored first and used up the brake. This account waits for the brake too.
        facts.brake = Known::Known(false);
        decision = lifecycle::decide(&placement.entry.record, &facts, now);
        let noted = lifecycle::note_delay(&placement.entry.record, &decision);
        store(ctx, &mut placement, noted, &observed.clock, now).await?;
    }
    Ok(Decided { placement, decision, refused, brake: facts.brake })
}

/// Stores the record, if it changed, and the highest time. A time that is doubted is never stored as that: for as long as
/// the clock runs ahead, every account of the server would wait.
pub(super) async fn store(
    ctx: &AccountContext,
    placement: &mut Placement,
    record: Record,
    clock: &Trust,
    now: Moment,
) -> Result<(), Error> {
    if record == placement.entry.record {
        return Ok(());
    }
    let changed = crate::ledger::Entry { record, ..placement.entry.clone() };
    placement.entry = ctx.telemetry.measure("ledger", "update", placement.server.ledger.update(&changed, changed.revision)).await?;
    if *clock == Trust::Trusted {
        placement.server.ledger.raise_high_water(now).await?;
    }
    Ok(())
}

/// Stores a destructive decision, if the brake allows it. `false`: the brake holds, and nothing was stored.
async fn store_within(
    ctx: &AccountContext,
    placement: &mut Placement,
    record: Record,
    allowance: Option<&crate::brake::Allowance>,
    now: Moment,
) -> Result<bool, Error> {
    let Some(allowance) = allowance else { return Ok(false) };
    let changed = crate::ledger::Entry { record, ..placement.entry.clone() };
    let work = placement.server.ledger.update_within(&changed, changed.revision, allowance);
    let Some(stored) = ctx.telemetry.measure("ledger", "update_within", work).await? else { return Ok(false) };
    placement.entry = stored;
    placement.server.ledger.raise_high_water(now).await?;
    Ok(true)
}

/// Publishes an event and counts a metric for a billing state that is rejected, or counts only in part. Called once for
/// each such state.
async fn tell_billing(ctx: &AccountContext, account: &HelpDeskAccount, why: &RejectedBilling) {
    ctx.telemetry.billing_refused.get_or_create(&RefusedLabel { reason: why.reason() }).inc();
    ctx.publish(&account.object_ref(&()), EventType::Warning, why.reason(), &why.to_string(), "Look").await;
}

/// Records when the seal of a closed account is broken: a tenant got into the database after the Frozen backup was taken,
/// so the backup may be older than the data.
fn check_seal(record: Record, observed: &Observation, now: Moment) -> Record {
    // If the database could not be read, the seal is neither broken nor restored.
    let Ok(database) = &observed.database else { return record };
    let next = lifecycle::check_seal(&record, database.can_login || database.sessions > 0, &observed.clock, now);
    match (record.seal_broken_since, next.seal_broken_since) {
        (None, Some(_)) => tracing::warn!("somebody got into the database of a closed account; once nobody is in, it is frozen anew"),
        (Some(_), None) => tracing::info!("nobody is in the database of a closed account any more; the Frozen backup is taken anew"),
        _ => {}
    }
    next
}

/// Who asked and who approved that the database is dropped although no backup of it can be proven. The admission policy
/// ensures that each of them is allowed to, and wrote their own name.
fn agreed(account: &HelpDeskAccount) -> Option<(&str, &str)> {
    let named = |key: &str| account.annotations().get(key).map(String::as_str);
    Some((named(DROP_UNPROVEN_REQUESTED_BY)?, named(DROP_UNPROVEN_APPROVED_BY)?))
}

/// The next stage, as the status shows it. A stage that is not enforced yet is still the next one.
pub(super) fn comes_next(record: &Record, then: Option<Next>) -> Option<Next> {
    match (record.enforced_at, record.stage) {
        (None, stage) if stage != Stage::Trial => Some(Next { stage, at: record.decided_at, reason: record.reason }),
        _ => then,
    }
}

/// The plan's windows. If the plan cannot be read, the windows that it had when it was read last.
pub(super) fn windows(observed: &Observation, record: &Record) -> Known<crate::api::Lifecycle> {
    match (&observed.plan, &record.plan) {
        (Known::Known(plan), _) => Known::Known(plan.spec.lifecycle),
        (Known::Unknown(_), Some(observed)) => Known::Known(observed.windows),
        (Known::Unknown(why), None) => Known::Unknown(why.clone()),
    }
}

/// What the plan says, or said when it was read last. If the plan has no placement in the region any more, the store of
/// its former placement is kept.
fn plan_seen(account: &HelpDeskAccount, observed: &Observation, record: &Record) -> Option<PlanSeen> {
    let Known::Known(plan) = &observed.plan else { return record.plan.clone() };
    let placement = super::placement::placement(plan, account).ok();
    let store = placement.map(|p| p.store.clone()).or_else(|| record.plan.as_ref()?.store.clone());
    Some(PlanSeen {
        name: plan.name_any(),
        class: plan.spec.class.clone(),
        placement: placement.cloned(),
        windows: plan.spec.lifecycle,
        store,
        verify: plan.spec.backups.verify,
    })
}

/// When the account was created. An object that took the account over may be younger than billing's state, so the
/// earliest known time counts.
fn created_at(object: Moment, record: &Record) -> Moment {
    let accepted = record.billing.as_ref().map(|billing| billing.since.0);
    [Some(object), record.created_at, accepted].into_iter().flatten().min().unwrap_or(object)
}

pub(super) fn inputs<'a>(
    account: &'a HelpDeskAccount,
    observed: &'a Observation,
    record: &Record,
    windows: &'a Known<crate::api::Lifecycle>,
) -> Inputs<'a> {
    Inputs {
        billing: account.status.as_ref().and_then(|s| s.billing.as_ref()),
        closure: account.spec.closure.as_ref(),
        confirmed_deletion: observed.confirmed_deletion,
        held: account.spec.hold.is_some(),
        windows: match windows {
            Known::Known(windows) => Known::Known(windows),
            Known::Unknown(why) => Known::Unknown(why.clone()),
        },
        clock_policy: match &observed.plan {
            Known::Known(plan) => plan.spec.clock_policy,
            Known::Unknown(_) => ClockPolicy::Keep,
        },
        created_at: created_at(account.creation_timestamp().map_or(Moment::UNIX_EPOCH, |t| t.0), record),
        clock: observed.clock.clone(),
    }
}

pub(super) fn facts(
    account: &HelpDeskAccount,
    placement: &Placement,
    observed: &Observation,
    refused: Option<&RejectedBilling>,
    brake: Known<bool>,
) -> Facts {
    let billing = match refused {
        None => observed.heartbeat.clone(),
        Some(refused) => Known::Unknown(format!("{refused}; nothing is closed or destroyed until then")),
    };
    let dropped = match &observed.database {
        Ok(observed) => {
            let made = placement.entry.database.as_ref().and_then(|made| made.oid);
            Known::Known(made.is_none() || observed.database.as_ref().map(|found| found.oid) != made)
        }
        Err(error) => Known::Unknown(error.to_string()),
    };
    Facts {
        windows: windows(observed, &placement.entry.record),
        clock: observed.clock.clone(),
        billing,
        frozen: observed.frozen(&placement.entry),
        backup_held: observed.frozen_backup(&placement.entry).is_some_and(|b| b.spec.hold.is_some()),
        dropped,
        sealed: observed.sealed(&placement.entry.record),
        brake,
        paused: account.spec.paused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::Reason;

    #[test]
    fn while_a_stage_is_being_entered_it_is_what_comes_next() {
        let at = |text: &str| text.parse().unwrap();
        let mut record = Record::created(at("2026-11-23T10:00:00Z"));
        let later = Next { stage: Stage::Terminated, at: at("2027-01-22T10:00:00Z"), reason: Reason::WindowEnded };
        assert_eq!(comes_next(&record, Some(later)), Some(later), "nothing comes before the first stage");
        record = lifecycle::enter(&record, Stage::Blocked, Reason::TrialEnded, at("2026-11-23T11:00:00Z"));
        let entered = Next { stage: Stage::Blocked, at: at("2026-11-23T11:00:00Z"), reason: Reason::TrialEnded };
        assert_eq!(comes_next(&record, Some(later)), Some(entered));
        record.enforced_at = Some(at("2026-11-23T11:00:01Z"));
        assert_eq!(comes_next(&record, Some(later)), Some(later));
    }

    #[test]
    fn billing_from_before_the_object_that_adopted_an_account_is_not_before_the_account() {
        let at = |text: &str| -> Moment { text.parse().unwrap() };
        let (first, adopted) = (at("2026-01-01T00:00:00Z"), at("2026-11-23T10:00:00Z"));
        assert_eq!(created_at(adopted, &Record::created(first)), first);
        let from_before = Record { created_at: None, ..Record::created(first) };
        assert_eq!(created_at(adopted, &from_before), adopted);
        let mut billed = from_before;
        billed.billing =
            serde_json::from_value(serde_json::json!({"state": "Active", "since": "2026-03-01T00:00:00Z", "sequence": 1})).unwrap();
        assert_eq!(created_at(adopted, &billed), at("2026-03-01T00:00:00Z"));
    }
}
