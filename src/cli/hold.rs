//! `hold` and `release`: a legal hold on an account.

use clap::Args;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{
    confirm::confirm,
    connection::Connection,
    error::{Ended, Error},
    find,
    output::{when, write},
};
use crate::{
    api::{HelpDeskAccount, Hold},
    clock::Moment,
    cluster::During,
};

/// The arguments of `hold`.
#[derive(Args, Debug)]
pub(super) struct HoldArgs {
    /// The account.
    name: String,
    /// Why, such as the number of the case.
    #[arg(long)]
    reason: String,
    /// Who ordered it.
    #[arg(long, value_name = "WHO")]
    by: String,
}

/// The arguments of `release`.
#[derive(Args, Debug)]
pub(super) struct ReleaseArgs {
    /// The account.
    name: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// Runs `hold`.
pub(super) async fn hold(connection: &Connection, args: HoldArgs) -> Result<Ended, Error> {
    let account = find::account(connection, &args.name).await?;
    let wanted = Hold { reason: args.reason, by: Some(args.by) };
    if let Some(hold) = account.spec.hold.as_ref().filter(|hold| **hold != wanted) {
        let text = format!("A hold is set already, and nothing was changed: {}\n", described(hold));
        write(text.as_bytes())?;
        return Ok(Ended::NotSo);
    }
    patch(connection, &account, json!(wanted), "set the hold").await?;
    let text = format!(
        "Held: {}.\nNothing of {} is destroyed while the hold is set. Blocking goes on. `kubectl helpdesk release {}` ends it.\n",
        described(&wanted),
        args.name,
        args.name
    );
    write(text.as_bytes())?;
    Ok(Ended::Fine)
}

/// Runs `release`.
pub(super) async fn release(connection: &Connection, args: ReleaseArgs, now: Moment) -> Result<Ended, Error> {
    let account = find::account(connection, &args.name).await?;
    let Some(hold) = &account.spec.hold else {
        write(format!("No hold is set on {}.\n", args.name).as_bytes())?;
        return Ok(Ended::NotSo);
    };
    let plan = find::plan(connection, &account).await?;
    let text =
        format!("The hold is released: {}.\n{}", described(hold), follows(&account, now + plan.spec.lifecycle.hold_notice.duration(), now));
    write(text.as_bytes())?;
    confirm(&args.name, args.yes)?;
    patch(connection, &account, serde_json::Value::Null, "release the hold").await?;
    write(b"Released.\n")?;
    Ok(Ended::Fine)
}

async fn patch(connection: &Connection, account: &HelpDeskAccount, hold: serde_json::Value, action: &'static str) -> Result<(), Error> {
    let api: Api<HelpDeskAccount> = Api::all(connection.client.clone());
    let patch = json!({"metadata": {"uid": account.uid()}, "spec": {"hold": hold}});
    api.patch(&account.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.during(action)?;
    Ok(())
}

fn described(hold: &Hold) -> String {
    let by = hold.by.as_ref().map(|by| format!(", by {by}")).unwrap_or_default();
    format!("{}{by}", hold.reason)
}

/// What is destroyed once the notice is over.
fn follows(account: &HelpDeskAccount, notice: Moment, now: Moment) -> String {
    let upcoming = account.status.as_ref().map(|status| status.upcoming.as_slice()).unwrap_or_default();
    match upcoming.iter().find(|next| next.stage.destroys()) {
        Some(next) if next.at.0 <= notice => {
            format!("{} is due: it is entered when the notice has passed, at {}.\n", next.stage.name(), when(notice, now))
        }
        Some(next) => format!("{} follows at {}.\n", next.stage.name(), when(next.at.0, now)),
        None => format!("Nothing that destroys is due. Nothing is destroyed before {}.\n", when(notice, now)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_a_release_a_person_reads_what_goes_and_when() {
        let account = |upcoming: serde_json::Value| -> HelpDeskAccount {
            serde_json::from_value(
                json!({"apiVersion": "helpdesk-operator.io/v1alpha1", "kind": "HelpDeskAccount", "metadata": {"name": "acme"},
                "spec": {"owner": {"email": "ana@acme.example"}, "plan": "standard", "region": "eu-1", "domain": {"slug": "acme"}},
                "status": {"stage": "Terminated", "upcoming": upcoming}}),
            )
            .unwrap()
        };
        let (now, notice): (Moment, Moment) = ("2026-03-01T00:00:00Z".parse().unwrap(), "2026-03-02T00:00:00Z".parse().unwrap());
        let next = |at: &str| json!([{"stage": "Deleted", "at": at, "reason": "WindowEnded"}]);
        assert_eq!(
            follows(&account(next("2026-02-01T00:00:00Z")), notice, now),
            "Deleted is due: it is entered when the notice has passed, at 2026-03-02T00:00:00Z (in 1d).\n"
        );
        assert_eq!(follows(&account(next("2026-05-01T00:00:00Z")), notice, now), "Deleted follows at 2026-05-01T00:00:00Z (in 61d).\n");
        assert!(follows(&account(json!([])), notice, now).starts_with("Nothing that destroys is due."));
    }
}
