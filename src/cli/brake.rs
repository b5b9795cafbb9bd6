//! `brake`: whether the brake of a server holds, what waits for it, and its release.

use clap::{Args, Subcommand};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde::Serialize;
use serde_json::json;

use super::{
    confirm::confirm,
    connection::Connection,
    error::{Ended, Error},
    find,
    output::{OutputArgs, table, when, wrapped, write},
};
use crate::{
    api::{
        DatabaseServer, HelpDeskAccount, RELEASE_BRAKE, Time,
        conditions::{self, Type},
        database_server::Brake,
        stage::{Reason, Stage},
    },
    brake,
    clock::Moment,
    cluster::During,
};

/// The arguments of `brake`.
#[derive(Args, Debug)]
pub(super) struct BrakeArgs {
    #[command(subcommand)]
    command: BrakeCommand,
}

#[derive(Subcommand, Debug)]
enum BrakeCommand {
    /// Show whether it holds, and which accounts wait for it. Exits with 3 if it holds.
    Status(StatusArgs),
    /// Release it: what waits for it is destroyed.
    Release(ReleaseArgs),
}

#[derive(Args, Debug)]
struct StatusArgs {
    /// The DatabaseServer.
    server: String,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Args, Debug)]
struct ReleaseArgs {
    /// The DatabaseServer.
    server: String,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

/// Runs `brake`.
pub(super) async fn run(connection: &Connection, args: BrakeArgs, now: Moment) -> Result<Ended, Error> {
    let name = match &args.command {
        BrakeCommand::Status(args) => &args.server,
        BrakeCommand::Release(args) => &args.server,
    };
    let server = find::server(connection, name).await?;
    let accounts: Api<HelpDeskAccount> = Api::all(connection.client.clone());
    let accounts = accounts.list(&ListParams::default()).await.during("list the accounts")?.items;
    let state = state(&server, &accounts);
    match args.command {
        BrakeCommand::Status(args) => {
            args.output.print(&state, || text(&state, now))?;
            Ok(if state.holds { Ended::NotSo } else { Ended::Fine })
        }
        BrakeCommand::Release(args) => {
            if !state.holds {
                write(format!("The brake of {} does not hold; nothing was done.\n", args.server).as_bytes())?;
                return Ok(Ended::NotSo);
            }
            write(
                format!("{}\nAfter the release these accounts lose their data, as far as they are due.\n", text(&state, now)).as_bytes(),
            )?;
            confirm(&args.server, args.yes)?;
            let api: Api<DatabaseServer> = Api::all(connection.client.clone());
            let patch = json!({"metadata": {"uid": server.uid(), "annotations": {RELEASE_BRAKE: now.to_string()}}});
            api.patch(&args.server, &PatchParams::default(), &Patch::Merge(patch)).await.during("release the brake")?;
            write(format!("Released: steps before {now}, by the clock of this machine, are not counted any more.\n").as_bytes())?;
            Ok(Ended::Fine)
        }
    }
}

/// The brake of a server.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct State {
    server: String,
    holds: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Time>,
    /// What the server's condition says.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    brake: Brake,
    /// How many destructive steps it lets through in its window.
    limit: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    released_at: Option<String>,
    /// The accounts that wait for it.
    waiting: Vec<Waiting>,
}

/// An account that waits for the brake.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Waiting {
    account: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Stage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    due: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    billing: Option<String>,
}

fn state(server: &DatabaseServer, accounts: &[HelpDeskAccount]) -> State {
    let status = server.status.clone().unwrap_or_default();
    let braked = conditions::find(&status.conditions, Type::Braked);
    let name = server.name_any();
    let waits = |account: &&HelpDeskAccount| {
        let status = account.status.as_ref();
        let is_here = status.and_then(|status| status.database.as_ref()).is_some_and(|database| database.server == name);
        let overdue = status.and_then(|status| conditions::find(&status.conditions, Type::Overdue));
        is_here && overdue.is_some_and(|overdue| overdue.reason == "Brake")
    };
    let mut waiting: Vec<Waiting> = accounts.iter().filter(waits).map(waiting).collect();
    waiting.sort_by(|a, b| a.account.cmp(&b.account));
    State {
        holds: braked.is_some(),
        since: status.braked_since,
        message: braked.map(|braked| braked.message.clone()),
        brake: server.spec.brake,
        limit: brake::limit(&server.spec.brake, status.tenants.unwrap_or(0).into()),
        released_at: server.annotations().get(RELEASE_BRAKE).cloned(),
        server: name,
        waiting,
    }
}

fn waiting(account: &HelpDeskAccount) -> Waiting {
    let status = account.status.clone().unwrap_or_default();
    Waiting {
        account: account.name_any(),
        next: status.next_stage,
        due: status.next_transition_time,
        reason: status.upcoming.first().map(|next| next.reason),
        billing: status.billing.map(|billing| format!("{:?} since {}", billing.state, billing.since.0)),
    }
}

fn text(state: &State, now: Moment) -> String {
    let since = state.since.as_ref().map(|at| format!(" since {}", when(at.0, now))).unwrap_or_default();
    let holds = if state.holds { format!("holds{since}") } else { "does not hold".to_owned() };
    let mut text =
        format!("The brake of {} {holds}. It lets {} destructive steps through in {}.\n", state.server, state.limit, state.brake.window);
    if let Some(message) = &state.message {
        text.push_str(&wrapped(message, 2));
    }
    if let Some(released) = &state.released_at {
        text.push_str(&format!("It was released last at {released}.\n"));
    }
    if state.waiting.is_empty() {
        text.push_str("No account waits for it.\n");
        return text;
    }
    let head = ["ACCOUNT", "NEXT", "DUE", "BECAUSE", "BILLING"].map(str::to_owned).to_vec();
    let row = |one: &Waiting| {
        vec![
            one.account.clone(),
            one.next.map_or("-", Stage::name).to_owned(),
            one.due.as_ref().map(|at| when(at.0, now)).unwrap_or_default(),
            one.reason.map_or("-", Reason::name).to_owned(),
            one.billing.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = std::iter::once(head).chain(state.waiting.iter().map(row)).collect();
    text.push_str(&format!("\n{}", table(&rows)));
    text.push_str("\nLook first (docs/operations.md#the-brake-holds). If these are right to go: kubectl helpdesk brake release ");
    text.push_str(&format!("{}\n", state.server));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(conditions: serde_json::Value) -> DatabaseServer {
        serde_json::from_value(json!({"apiVersion": "helpdesk-operator.io/v1alpha1", "kind": "DatabaseServer", "metadata": {"name": "pg"},
            "spec": {"engine": "postgresql", "region": "eu-1", "host": "pg", "adminSecret": "pg-admin"},
            "status": {"tenants": 100, "conditions": conditions}}))
        .unwrap()
    }

    fn account(name: &str, server: &str, overdue: &str) -> HelpDeskAccount {
        serde_json::from_value(json!({"apiVersion": "helpdesk-operator.io/v1alpha1", "kind": "HelpDeskAccount", "metadata": {"name": name},
            "spec": {"owner": {"email": "ana@acme.example"}, "plan": "standard", "region": "eu-1", "domain": {"slug": name}},
            "status": {"stage": "Terminated", "nextStage": "Deleted", "nextTransitionTime": "2026-11-23T09:00:00Z",
                "database": {"server": server, "name": "t_1"},
                "conditions": [{"type": "Overdue", "status": "True", "reason": overdue, "message": "it waits",
                    "lastTransitionTime": "2026-11-23T09:00:00Z"}]}}))
        .unwrap()
    }

    #[test]
    fn who_waits_for_the_brake_of_this_server_is_told_and_nobody_else() {
        let braked = json!([{"type": "Braked", "status": "True", "reason": "TooManyDeletions", "message": "10 of 10",
            "lastTransitionTime": "2026-11-23T09:00:00Z"}]);
        let accounts =
            [account("b", "pg", "Brake"), account("a", "pg", "Brake"), account("c", "pg", "Held"), account("d", "other", "Brake")];
        let state = state(&server(braked), &accounts);
        assert!(state.holds && state.limit == 10);
        assert_eq!(state.waiting.iter().map(|one| one.account.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let text = text(&state, "2026-11-23T10:00:00Z".parse().unwrap());
        assert!(text.contains("a         Deleted   2026-11-23T09:00:00Z (1h ago)") && text.contains("brake release pg"), "{text}");
    }

    #[test]
    fn a_brake_that_lets_through_is_fine() {
        let state = state(&server(json!([])), &[]);
        assert!(!state.holds);
        assert!(text(&state, "2026-11-23T10:00:00Z".parse().unwrap()).contains("does not hold"));
    }
}
