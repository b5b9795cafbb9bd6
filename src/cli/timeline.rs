//! `timeline`: what an account went through, and what comes when.

use clap::Args;
use kube::{Api, ResourceExt, api::ListParams};
use serde::Serialize;

use super::{
    connection::Connection,
    error::{Ended, Error},
    find,
    output::{OutputArgs, table, when, wrapped},
    seen::{Seen, list},
};
use crate::{
    api::{
        ACCOUNT_LABEL, ColdBackup, HelpDeskAccount, Time,
        conditions::{self, Type},
        stage::Transition,
    },
    clock::Moment,
};

/// The arguments of `timeline`.
#[derive(Args, Debug)]
pub(super) struct TimelineArgs {
    /// The account.
    name: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `timeline`.
pub(super) async fn run(connection: &Connection, args: TimelineArgs, now: Moment) -> Result<Ended, Error> {
    let account = find::account(connection, &args.name).await?;
    let backups: Api<ColdBackup> = Api::all(connection.client.clone());
    let params = ListParams::default().labels(&format!("{ACCOUNT_LABEL}={}", account.name_any()));
    let backups = list(&backups, &params, "the account's ColdBackups").await;
    let timeline = timeline(&account, &backups, now);
    args.output.print(&timeline, || text(&timeline, args.output.is_wide(), now))?;
    Ok(Ended::Fine)
}

/// What an account went through, and what comes.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Timeline {
    account: String,
    /// The stages that were entered, the newest last.
    past: Vec<Transition>,
    /// Since when the present stage is enforced.
    #[serde(skip_serializing_if = "Option::is_none")]
    enforced_since: Option<Time>,
    /// The stages that follow.
    future: Vec<Transition>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_gone_by: Option<Time>,
    /// What is to be known about these dates.
    notes: Vec<String>,
    /// The backups.
    backups: Vec<Backup>,
}

/// One backup.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Backup {
    name: String,
    reason: crate::api::BackupReason,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified_at: Option<Time>,
    expires_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    erased_at: Option<Time>,
}

fn timeline(account: &HelpDeskAccount, backups: &Seen<Vec<ColdBackup>>, now: Moment) -> Timeline {
    let status = account.status.clone().unwrap_or_default();
    let mut notes = Vec::new();
    let mut note = |text: Option<String>| notes.extend(text);
    let is_destroyed_later = status.upcoming.iter().any(|next| next.stage.destroys());
    note(account.spec.hold.as_ref().filter(|_| is_destroyed_later).map(|hold| {
        format!("A hold is set ({}): Deleted and Expired wait until it is released, and then for the plan's holdNotice.", hold.reason)
    }));
    note(account.spec.paused.then(|| "The account is paused: no stage is entered until spec.paused is false.".to_owned()));
    note(conditions::find(&status.conditions, Type::Overdue).map(|overdue| format!("{}.", overdue.message)));
    note(
        (status.history.is_empty() && status.stage.is_some())
            .then(|| "The status has no history: an operator of this version has not looked at the account since.".to_owned()),
    );
    let ends = status.upcoming.last().is_some_and(|last| last.stage == crate::api::stage::Stage::Expired);
    let is_over = status.stage == Some(crate::api::stage::Stage::Expired);
    note((!ends && !is_over && !status.upcoming.is_empty()).then(|| "What comes after that is not known.".to_owned()));
    note(
        (status.upcoming.is_empty() && status.stage.is_some_and(|stage| stage.is_open()))
            .then(|| "Nothing is due: what billing or the owner say next decides.".to_owned()),
    );
    note(backups.unseen().map(|why| format!("Not looked at: {why}.")));
    let mut backups: Vec<Backup> = backups.all().iter().filter(|backup| backup.spec.account == account.name_any()).map(backup).collect();
    backups.sort_by_key(|backup| backup.expires_at.0);
    Timeline {
        account: account.name_any(),
        past: status.history,
        enforced_since: status.stage_since,
        future: status.upcoming,
        data_gone_by: status.data_gone_by.filter(|at| at.0 > now),
        notes,
        backups,
    }
}

fn backup(backup: &ColdBackup) -> Backup {
    let status = backup.status.clone().unwrap_or_default();
    Backup {
        name: backup.name_any(),
        reason: backup.spec.reason,
        verified_at: status.verified_at,
        expires_at: status
            .retained_until
            .filter(|until| until.0 > backup.spec.expires_at.0)
            .unwrap_or_else(|| backup.spec.expires_at.clone()),
        erased_at: status.erased_at,
    }
}

fn text(timeline: &Timeline, wide: bool, now: Moment) -> String {
    let row = |mark: &str, transition: &Transition| {
        vec![mark.to_owned(), when(transition.at.0, now), transition.stage.name().to_owned(), transition.reason.name().to_owned()]
    };
    let mut rows: Vec<Vec<String>> = timeline.past.iter().map(|transition| row(" ", transition)).collect();
    let enforced = timeline
        .enforced_since
        .as_ref()
        .map_or_else(|| "the stage is not enforced yet".to_owned(), |since| format!("the stage is enforced since {}", since.0));
    rows.push(vec!["→".into(), now.to_string(), "now".into(), enforced]);
    rows.extend(timeline.future.iter().map(|transition| row(" ", transition)));
    if let Some(at) = &timeline.data_gone_by {
        rows.push(vec![" ".into(), when(at.0, now), "nothing is left".into(), "dataGoneBy".into()]);
    }
    let mut text = format!("{}\n{}", timeline.account, table(&rows));
    for note in &timeline.notes {
        text.push('\n');
        text.push_str(&wrapped(note, 0));
    }
    if wide && !timeline.backups.is_empty() {
        let head = ["BACKUP", "REASON", "PROVEN", "ERASED"].map(str::to_owned).to_vec();
        let line = |backup: &Backup| {
            let proven = backup.verified_at.as_ref().map_or_else(|| "not yet".to_owned(), |at| at.0.to_string());
            let erased = backup.erased_at.as_ref().map_or_else(|| when(backup.expires_at.0, now), |at| when(at.0, now));
            vec![backup.name.clone(), format!("{:?}", backup.reason), proven, erased]
        };
        let rows: Vec<_> = std::iter::once(head).chain(timeline.backups.iter().map(line)).collect();
        text.push('\n');
        text.push_str(&table(&rows));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn account(spec: serde_json::Value, status: serde_json::Value) -> HelpDeskAccount {
        let mut object = json!({"apiVersion": "helpdesk-operator.io/v1alpha1", "kind": "HelpDeskAccount", "metadata": {"name": "acme"},
            "spec": {"owner": {"email": "ana@acme.example"}, "plan": "standard", "region": "eu-1", "domain": {"slug": "acme"}},
            "status": status});
        for (key, value) in spec.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        serde_json::from_value(object).unwrap()
    }

    fn blocked() -> serde_json::Value {
        json!({"stage": "Blocked", "stageSince": "2026-01-15T00:00:07Z",
            "history": [{"stage": "Trial", "at": "2026-01-01T00:00:00Z", "reason": "Created"},
                {"stage": "Blocked", "at": "2026-01-15T00:00:00Z", "reason": "TrialEnded"}],
            "upcoming": [{"stage": "Terminated", "at": "2026-03-16T00:00:07Z", "reason": "WindowEnded"},
                {"stage": "Deleted", "at": "2026-04-15T00:00:07Z", "reason": "WindowEnded"},
                {"stage": "Expired", "at": "2026-05-15T00:00:07Z", "reason": "BackupExpired"}],
            "dataGoneBy": "2026-05-15T00:00:07Z"})
    }

    fn now() -> Moment {
        "2026-01-16T00:00:07Z".parse().unwrap()
    }

    #[test]
    fn the_past_the_present_and_the_future_are_one_list() {
        let told = text(&timeline(&account(json!({}), blocked()), &Seen::There(vec![]), now()), false, now());
        let expected = "\
acme
    2026-01-01T00:00:00Z (15d ago)   Trial             Created
    2026-01-15T00:00:00Z (1d ago)    Blocked           TrialEnded
→   2026-01-16T00:00:07Z             now               the stage is enforced since 2026-01-15T00:00:07Z
    2026-03-16T00:00:07Z (in 59d)    Terminated        WindowEnded
    2026-04-15T00:00:07Z (in 89d)    Deleted           WindowEnded
    2026-05-15T00:00:07Z (in 119d)   Expired           BackupExpired
    2026-05-15T00:00:07Z (in 119d)   nothing is left   dataGoneBy
";
        assert_eq!(told, expected);
    }

    #[test]
    fn what_a_hold_delays_is_told() {
        let held = account(json!({"hold": {"reason": "case 7"}}), blocked());
        let told = text(&timeline(&held, &Seen::There(vec![]), now()), false, now());
        assert!(told.contains("A hold is set (case 7): Deleted and Expired wait"), "{told}");
    }

    #[test]
    fn who_pays_has_nothing_due() {
        let paid = account(
            json!({}),
            json!({"stage": "Active", "history": [{"stage": "Active", "at": "2026-01-02T00:00:00Z", "reason": "Paid"}]}),
        );
        let told = text(&timeline(&paid, &Seen::There(vec![]), now()), false, now());
        assert!(told.contains("Nothing is due"), "{told}");
    }

    #[test]
    fn backups_are_listed_with_the_day_on_which_they_are_erased() {
        let backup: ColdBackup = serde_json::from_value(json!({"apiVersion": "helpdesk-operator.io/v1alpha1", "kind": "ColdBackup",
            "metadata": {"name": "acme-1"}, "spec": {"account": "acme", "accountUID": "u", "store": "cold", "reason": "Frozen",
                "expiresAt": "2026-05-15T00:00:07Z"}, "status": {"phase": "Verified", "verifiedAt": "2026-01-15T01:00:00Z"}}))
        .unwrap();
        let told = text(&timeline(&account(json!({}), blocked()), &Seen::There(vec![backup]), now()), true, now());
        assert!(told.contains("acme-1   Frozen   2026-01-15T01:00:00Z   2026-05-15T00:00:07Z (in 119d)"), "{told}");
    }
}
