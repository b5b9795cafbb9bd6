//! `status`: one account on one screen.

use clap::Args;
use kube::ResourceExt;
use serde::Serialize;

use super::{
    connection::Connection,
    error::{Ended, Error},
    find,
    matters::matters,
    output::{OutputArgs, table, when, wrapped},
};
use crate::{
    api::{
        Condition, HelpDeskAccount, Time,
        account::{DomainStatus, LastBackup, LastError},
        conditions::{self, Type},
        stage::{Reason, Stage},
    },
    clock::Moment,
};

/// The arguments of `status`.
#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    /// The account.
    name: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `status`.
pub(super) async fn run(connection: &Connection, args: StatusArgs, now: Moment) -> Result<Ended, Error> {
    let account = find::account(connection, &args.name).await?;
    let summary = summarize(&account);
    args.output.print(&summary, || text(&summary, args.output.is_wide(), now))?;
    Ok(if summary.needs_a_person { Ended::NotSo } else { Ended::Fine })
}

/// An account in short.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    name: String,
    plan: String,
    region: String,
    /// The stage that is enforced; `None`: none yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<Stage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    /// The stage that is being entered.
    #[serde(skip_serializing_if = "Option::is_none")]
    entering: Option<Entering>,
    /// The stage that comes next.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<Upcoming>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_gone_by: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    billing: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_backup: Option<LastBackup>,
    /// Why the last look of the operator failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<LastError>,
    /// Whether the status describes the present spec.
    is_current: bool,
    needs_a_person: bool,
    /// What is wrong, or waited for.
    matters: Vec<Condition>,
    /// The other conditions.
    in_order: Vec<Condition>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    domains: Vec<DomainStatus>,
}

/// A stage that is being entered.
#[derive(Debug, PartialEq, Serialize)]
struct Entering {
    stage: Stage,
    since: Time,
    message: String,
}

/// A stage that comes.
#[derive(Debug, PartialEq, Serialize)]
struct Upcoming {
    stage: Stage,
    at: Time,
}

fn summarize(account: &HelpDeskAccount) -> Summary {
    let status = account.status.clone().unwrap_or_default();
    let next = status.next_stage.zip(status.next_transition_time.clone()).map(|(stage, at)| Upcoming { stage, at });
    let reconciling = conditions::find(&status.conditions, Type::Reconciling);
    let entering = status.entering.as_ref().map(|entering| Entering {
        stage: entering.stage,
        since: entering.since.clone(),
        message: reconciling.map(|condition| condition.message.clone()).unwrap_or_default(),
    });
    let (matters, in_order) = status.conditions.iter().cloned().partition(|condition| matters(condition, status.stage));
    Summary {
        name: account.name_any(),
        plan: account.spec.plan.clone(),
        region: account.spec.region.clone(),
        stage: status.stage,
        since: status.stage_since,
        reason: status.reason,
        entering,
        // While a stage is being entered it is the next one, too.
        next: next.filter(|_| status.entering.is_none()),
        last_error: status.last_error,
        data_gone_by: status.data_gone_by,
        url: status.url,
        billing: status.billing.map(|billing| format!("{:?} since {}", billing.state, billing.since.0)),
        database: status.database.map(|database| format!("{} on {}", database.name, database.server)),
        namespace: status.namespace.map(|namespace| namespace.name),
        last_backup: status.last_backup,
        is_current: status.observed_generation == account.metadata.generation,
        needs_a_person: conditions::holds(&status.conditions, Type::Stalled) || is_late(&status.conditions),
        matters,
        in_order,
        domains: status.domains,
    }
}

/// Whether a deadline has passed and something other than a hold delays it.
fn is_late(all: &[Condition]) -> bool {
    conditions::find(all, Type::Overdue).is_some_and(|overdue| !matches!(overdue.reason.as_str(), "Held" | "Notice"))
}

fn text(summary: &Summary, wide: bool, now: Moment) -> String {
    let mut rows: Vec<Vec<String>> = vec![];
    let mut row = |name: &str, value: Option<String>| rows.extend(value.map(|value| vec![name.to_owned(), value]));
    row("Account", Some(format!("{} (plan {}, region {})", summary.name, summary.plan, summary.region)));
    let stage = summary.stage.map_or("none yet", Stage::name);
    let reason = summary.reason.map(|reason| format!(" ({})", reason.name())).unwrap_or_default();
    let since = summary.since.as_ref().map(|at| format!(", since {}", when(at.0, now))).unwrap_or_default();
    row("Stage", Some(format!("{stage}{reason}{since}")));
    row("Entering", summary.entering.as_ref().map(|entering| format!("{}, since {}", entering.stage.name(), when(entering.since.0, now))));
    row("Next", summary.next.as_ref().map(|next| format!("{}, at {}", next.stage.name(), when(next.at.0, now))));
    row("Data gone by", summary.data_gone_by.as_ref().map(|at| when(at.0, now)));
    row("Billing", summary.billing.clone());
    row("URL", summary.url.clone());
    let backup = summary.last_backup.as_ref();
    row("Last backup", backup.map(|b| format!("{} ({:?}), of {}", b.name, b.reason, when(b.completed_at.0, now))));
    if wide {
        row("Database", summary.database.clone());
        row("Namespace", summary.namespace.clone());
        row("Backup size", backup.map(|b| format!("{} bytes, proven at {}", b.bytes, b.verified_at.0)));
        for domain in &summary.domains {
            let message = domain.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
            row("Host name", Some(format!("{} ({:?}, {:?}){message}", domain.host, domain.used_as, domain.state)));
        }
    }
    let mut text = table(&rows);
    if let Some(error) = &summary.last_error {
        let since = when(error.since.0, now);
        text.push_str(&format!(
            "\nThe operator fails to look at it ({}), since {since}, and tries again within {}:\n",
            error.reason, error.retry_within
        ));
        text.push_str(&wrapped(&error.message, 4));
    }
    if !summary.is_current {
        text.push_str("\nThe operator has not looked at the present spec yet: what follows may be of an earlier one.\n");
    }
    if summary.matters.is_empty() {
        text.push_str("\nNothing is wrong, and nothing is waited for.\n");
    }
    for condition in &summary.matters {
        text.push('\n');
        text.push_str(&told(condition, now));
    }
    if !summary.matters.is_empty() {
        text.push_str(&format!("\n`kubectl helpdesk why {}` follows this to its first cause.\n", summary.name));
    }
    if wide {
        for condition in &summary.in_order {
            text.push('\n');
            text.push_str(&told(condition, now));
        }
    }
    text
}

fn told(condition: &Condition, now: Moment) -> String {
    let since = when(condition.last_transition_time.0, now);
    let head = format!("{}={} ({}), since {since}", condition.type_, condition.status, condition.reason);
    format!("{head}\n{}", wrapped(&condition.message, 4))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn account(status: serde_json::Value) -> HelpDeskAccount {
        serde_json::from_value(json!({"apiVersion": "helpdesk-operator.io/v1alpha1", "kind": "HelpDeskAccount",
            "metadata": {"name": "acme", "generation": 2},
            "spec": {"owner": {"email": "ana@acme.example"}, "plan": "standard", "region": "eu-1", "domain": {"slug": "acme"}},
            "status": status}))
        .unwrap()
    }

    fn condition(kind: &str, status: &str, reason: &str) -> serde_json::Value {
        json!({"type": kind, "status": status, "reason": reason, "message": "a message", "lastTransitionTime": "2026-11-23T09:00:00Z"})
    }

    fn now() -> Moment {
        "2026-11-23T10:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_closed_account_that_is_properly_shut_has_nothing_wrong() {
        let summary = summarize(&account(json!({"stage": "Blocked", "stageSince": "2026-11-20T10:00:00Z", "reason": "PaymentFailed",
            "observedGeneration": 2, "nextStage": "Terminated", "nextTransitionTime": "2027-01-19T10:00:00Z",
            "conditions": [condition("Ready", "True", "Closed"), condition("DatabaseReady", "False", "Shut"),
                condition("AppReady", "False", "Stopped"), condition("BlockEnforced", "True", "Refused")]})));
        assert!(!summary.needs_a_person && summary.matters.is_empty(), "{:?}", summary.matters);
        let text = text(&summary, false, now());
        assert!(text.contains("Stage     Blocked (PaymentFailed), since 2026-11-20T10:00:00Z (3d ago)"), "{text}");
        assert!(text.contains("Next      Terminated, at 2027-01-19T10:00:00Z (in 57d)"), "{text}");
        assert!(text.contains("Nothing is wrong"), "{text}");
    }

    #[test]
    fn a_stage_that_is_being_entered_is_told_with_what_is_waited_for() {
        let summary = summarize(&account(json!({"stage": "Active", "stageSince": "2026-11-20T10:00:00Z", "observedGeneration": 2,
            "nextStage": "Blocked", "nextTransitionTime": "2026-11-23T09:58:00Z",
            "entering": {"stage": "Blocked", "reason": "PaymentFailed", "since": "2026-11-23T09:58:00Z"},
            "conditions": [condition("Reconciling", "True", "Progressing")]})));
        assert_eq!(summary.next, None);
        let entering = summary.entering.as_ref().unwrap();
        assert_eq!((entering.stage, entering.message.as_str()), (Stage::Blocked, "a message"));
        let text = text(&summary, false, now());
        assert!(text.contains("Entering   Blocked, since 2026-11-23T09:58:00Z (2m ago)") && text.contains("    a message"), "{text}");
    }

    #[test]
    fn a_person_is_needed_by_what_is_stalled_or_late_and_not_by_what_is_held() {
        let needs = |conditions| summarize(&account(json!({"stage": "Blocked", "conditions": [conditions]}))).needs_a_person;
        assert!(needs(condition("Stalled", "True", "NameTaken")));
        assert!(needs(condition("Overdue", "True", "Brake")));
        assert!(!needs(condition("Overdue", "True", "Held")));
        assert!(!needs(condition("Ready", "False", "Progressing")));
    }

    #[test]
    fn a_status_of_an_earlier_spec_is_told() {
        let summary = summarize(&account(json!({"stage": "Active", "observedGeneration": 1})));
        assert!(text(&summary, false, now()).contains("has not looked at the present spec"));
    }
}
