//! `close`: the owner's wish to end an account, and its withdrawal.

use clap::Args;
use k8s_openapi::jiff::SignedDuration;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{
    assumed,
    confirm::confirm,
    connection::Connection,
    error::{Ended, Error},
    find,
    output::{table, when, write},
};
use crate::{
    api::{Closure, ClosureMode, HelpDeskAccount, HelpDeskPlanSpec},
    clock::{Moment, Trust},
    cluster::During,
    lifecycle::{self, Inputs, Known, Next},
};

/// The arguments of `close`.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("wish").required(true).multiple(false).args(["cancel", "erase", "withdraw"]))]
pub(super) struct CloseArgs {
    /// The account.
    name: String,
    /// The owner cancels: terminated now, deleted after the plan's window.
    #[arg(long)]
    cancel: bool,
    /// The owner wants to be erased: blocked now, deleted after the plan's eraseDelay; it never opens again.
    #[arg(long)]
    erase: bool,
    /// Withdraw the closure.
    #[arg(long)]
    withdraw: bool,
    /// With --erase: keep no cold backup either.
    #[arg(long, requires = "erase")]
    no_cold_backup: bool,
    /// Who asked for it; kept as evidence until the account has expired.
    #[arg(long, value_name = "WHO")]
    requested_by: Option<String>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// Runs `close`.
pub(super) async fn run(connection: &Connection, args: CloseArgs, now: Moment) -> Result<Ended, Error> {
    let account = find::account(connection, &args.name).await?;
    let plan = find::plan(connection, &account).await?;
    let closure = wish(&args);
    if closure.is_none() && account.spec.closure.is_none() {
        write(format!("{} is not closed: there is nothing to withdraw.\n", args.name).as_bytes())?;
        return Ok(Ended::NotSo);
    }
    let told = told(&account, &plan.spec, closure.as_ref(), now);
    write(told.as_bytes())?;
    confirm(&args.name, args.yes)?;
    let api: Api<HelpDeskAccount> = Api::all(connection.client.clone());
    let patch = json!({"metadata": {"uid": account.uid()}, "spec": {"closure": patch_of(closure.as_ref())}});
    api.patch(&args.name, &PatchParams::default(), &Patch::Merge(patch)).await.during("write the closure")?;
    write(format!("Written. `kubectl helpdesk status {}` shows how far it is.\n", args.name).as_bytes())?;
    Ok(Ended::Fine)
}

fn wish(args: &CloseArgs) -> Option<Closure> {
    let mode = match (args.cancel, args.erase) {
        (true, _) => ClosureMode::Cancel,
        (_, true) => ClosureMode::Erase,
        _ => return None,
    };
    Some(Closure { mode, requested_by: args.requested_by.clone(), cold_backup: args.no_cold_backup.then_some(false) })
}

/// The closure as a merge patch: what an earlier one had and this one has not is removed.
fn patch_of(closure: Option<&Closure>) -> serde_json::Value {
    closure.map_or(
        serde_json::Value::Null,
        |closure| json!({"mode": closure.mode, "requestedBy": closure.requested_by, "coldBackup": closure.cold_backup}),
    )
}

/// What will happen when.
fn told(account: &HelpDeskAccount, plan: &HelpDeskPlanSpec, closure: Option<&Closure>, now: Moment) -> String {
    let name = account.name_any();
    let stage = account.status.as_ref().and_then(|status| status.stage).map_or("in no stage yet", |stage| stage.name());
    let mut text = format!("{name} is {stage}. {}\n", sentence(closure));
    match follows(account, plan, closure, now) {
        Ok(next) if next.is_empty() => text.push_str("After that nothing is due.\n"),
        Ok(next) => {
            let row = |next: &Next| {
                let date = if next.at <= now { "at once".to_owned() } else { when(next.at, now) };
                vec![format!("  {}", next.stage.name()), date]
            };
            text.push_str(&table(&next.iter().map(row).collect::<Vec<_>>()));
        }
        Err(why) => text.push_str(&format!("When what follows cannot be told: {why}\n")),
    }
    if account.spec.hold.is_some() {
        text.push_str("A hold is set: Deleted and Expired wait until it is released, and then for the plan's holdNotice.\n");
    }
    text
}

fn sentence(closure: Option<&Closure>) -> &'static str {
    match closure.map(|closure| (closure.mode, closure.keeps_backup())) {
        Some((ClosureMode::Cancel, _)) => {
            "Its owner cancels: it is closed to everybody, and its namespace goes. A payment opens it again until Deleted."
        }
        Some((ClosureMode::Erase, true)) => {
            "Its owner is erased: it is closed to everybody, and never opens again. The cold backup is kept for its window."
        }
        Some((ClosureMode::Erase, false)) => {
            "Its owner is erased: it is closed to everybody, and never opens again. NO COLD BACKUP IS KEPT."
        }
        None => "The closure is withdrawn: the account stays closed until billing writes a payment, unless its stage is not enforced yet.",
    }
}

/// The stages that follow with this closure, by the operator's own rules.
fn follows(account: &HelpDeskAccount, plan: &HelpDeskPlanSpec, closure: Option<&Closure>, now: Moment) -> Result<Vec<Next>, String> {
    let record = assumed::record(account, plan, now)?;
    let inputs = Inputs {
        billing: None,
        closure,
        confirmed_deletion: false,
        held: account.spec.hold.is_some(),
        windows: Known::Known(&plan.lifecycle),
        clock_policy: plan.clock_policy,
        created_at: now,
        clock: Trust::Trusted,
    };
    let (record, _) = lifecycle::update_record(&record, &inputs, now);
    // A moment before, so that what is due now is a step of the forecast and does not end it.
    let before = now - SignedDuration::from_secs(1);
    Ok(lifecycle::forecast(&record, &Known::Known(plan.lifecycle), plan.clock_policy, before))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::stage::Stage;

    fn account() -> HelpDeskAccount {
        serde_json::from_value(
            json!({"apiVersion": "helpdesk-operator.io/v1alpha1", "kind": "HelpDeskAccount", "metadata": {"name": "acme"},
            "spec": {"owner": {"email": "ana@acme.example"}, "plan": "standard", "region": "eu-1", "domain": {"slug": "acme"}},
            "status": {"stage": "Active", "stageSince": "2026-01-02T00:00:00Z", "reason": "Paid", "observedBillingSequence": 1,
                "billing": {"state": "Active", "since": "2026-01-02T00:00:00Z", "sequence": 1}}}),
        )
        .unwrap()
    }

    fn plan() -> HelpDeskPlanSpec {
        serde_json::from_value(json!({"placements": [{"region": "eu-1", "store": "cold", "domainBase": "helpdesk.example"}]})).unwrap()
    }

    fn closed(mode: ClosureMode, cold_backup: Option<bool>) -> Vec<(Stage, String)> {
        let now: Moment = "2026-03-01T00:00:00Z".parse().unwrap();
        let closure = Closure { mode, requested_by: None, cold_backup };
        let next = follows(&account(), &plan(), Some(&closure), now).unwrap();
        next.iter().map(|next| (next.stage, next.at.strftime("%m-%d").to_string())).collect()
    }

    fn dates(all: &[(Stage, &str)]) -> Vec<(Stage, String)> {
        all.iter().map(|(stage, day)| (*stage, (*day).to_owned())).collect()
    }

    #[test]
    fn a_cancellation_and_an_erasure_are_told_with_every_date() {
        assert_eq!(
            closed(ClosureMode::Cancel, None),
            dates(&[(Stage::Terminated, "03-01"), (Stage::Deleted, "03-31"), (Stage::Expired, "04-30")])
        );
        assert_eq!(
            closed(ClosureMode::Erase, None),
            dates(&[(Stage::Blocked, "03-01"), (Stage::Deleted, "03-02"), (Stage::Expired, "04-01")])
        );
        assert_eq!(
            closed(ClosureMode::Erase, Some(false)),
            dates(&[(Stage::Blocked, "03-01"), (Stage::Deleted, "03-02"), (Stage::Expired, "03-02")])
        );
    }

    #[test]
    fn what_follows_at_once_and_what_a_hold_delays_is_said_before_anybody_confirms() {
        let now: Moment = "2026-03-01T00:00:00Z".parse().unwrap();
        let mut held = account();
        held.spec.hold = Some(crate::api::Hold { reason: "case 7".into(), by: None });
        let closure = Closure { mode: ClosureMode::Erase, requested_by: None, cold_backup: Some(false) };
        let text = told(&held, &plan(), Some(&closure), now);
        assert!(text.contains("NO COLD BACKUP IS KEPT") && text.contains("Blocked   at once") && text.contains("A hold is set"), "{text}");
        assert!(told(&account(), &plan(), None, now).contains("After that nothing is due"));
    }

    #[test]
    fn a_field_that_an_earlier_closure_had_is_removed() {
        let closure = Closure { mode: ClosureMode::Cancel, requested_by: None, cold_backup: None };
        assert_eq!(patch_of(Some(&closure)), json!({"mode": "Cancel", "requestedBy": null, "coldBackup": null}));
        assert_eq!(patch_of(None), json!(null));
    }
}
