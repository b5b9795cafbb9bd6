//! `plan`: what comes of every account, at a date or under an edited plan. Nothing is written.
//!
//! The dates are those of `status.upcoming`, or are made by the same [forecast](crate::lifecycle::forecast()) from what the
//! status shows. What does not follow from the status is said to be unknown, and not guessed.

mod at;
mod edited;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::Args;
use k8s_openapi::jiff::civil::Date;
use k8s_openapi::jiff::tz::TimeZone;
use kube::{Api, ResourceExt, api::ListParams};

use super::{
    connection::Connection,
    error::{Ended, Error},
    output::OutputArgs,
};
use crate::{
    api::{HelpDeskAccount, HelpDeskPlan, Window},
    clock::Moment,
    cluster::During,
};

/// The arguments of `plan`.
#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("question").required(true).multiple(false).args(["at", "file"]))]
pub(super) struct PlanArgs {
    /// The date: 2027-03-01, 2027-03-01T12:00:00Z, or a span of time from now such as 30d. Which stage each account would be
    /// in then, if billing and owners say nothing more.
    #[arg(long, value_name = "DATE")]
    at: Option<String>,
    /// A file with an edited HelpDeskPlan. Which dates it would change for the accounts of that plan.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// With --at: only the accounts of this plan.
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    plan: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `plan`.
pub(super) async fn run(connection: &Connection, args: PlanArgs, now: Moment) -> Result<Ended, Error> {
    let accounts: Api<HelpDeskAccount> = Api::all(connection.client.clone());
    let of_plan = |name: &str| ListParams::default().fields(&format!("spec.plan={name}"));
    if let Some(path) = args.file {
        let new = read(&path)?;
        let plans: Api<HelpDeskPlan> = Api::all(connection.client.clone());
        let present = plans.get_opt(&new.name_any()).await.during("read the plan")?;
        let present = present.ok_or_else(|| Error::NotFound { kind: "helpdeskplan", name: new.name_any() })?;
        let accounts = accounts.list(&of_plan(&new.name_any())).await.during("list the accounts of the plan")?.items;
        let change = edited::change(&accounts, &present.spec, &new.spec, now);
        args.output.print(&change, || edited::text(&change, &new.name_any(), args.output.is_wide(), now))?;
        return Ok(Ended::Fine);
    }
    let date = date(&args.at.unwrap_or_default(), now)?;
    let params = args.plan.as_deref().map_or_else(ListParams::default, of_plan);
    let accounts = accounts.list(&params).await.during("list the accounts")?.items;
    let told = at::stages(&accounts, date);
    args.output.print(&told, || at::text(&told, date, now))?;
    Ok(Ended::Fine)
}

/// Reads a plan from a file; `-` is the standard input.
fn read(path: &std::path::Path) -> Result<HelpDeskPlan, Error> {
    let name = path.display().to_string();
    let text = if name == "-" { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
    let text = text.map_err(|source| Error::File { path: name.clone(), source })?;
    serde_yaml_ng::from_str(&text).map_err(|error| Error::Usage(format!("{name} is no HelpDeskPlan: {error}")))
}

/// A date in the future, as people write it.
fn date(text: &str, now: Moment) -> Result<Moment, Error> {
    let wrong =
        || Error::Usage(format!("{text:?} is no date: write 2027-03-01, 2027-03-01T12:00:00Z, or a span of time from now such as 30d"));
    let midnight = |date: Date| date.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    let date = (text.parse::<Moment>().ok())
        .or_else(|| text.parse::<Window>().ok().map(|window| now + window.duration()))
        .or_else(|| text.parse::<Date>().ok().and_then(midnight))
        .ok_or_else(wrong)?;
    if date < now {
        return Err(Error::Usage(format!("{date} has passed; `kubectl helpdesk timeline NAME` shows what was")));
    }
    Ok(date)
}
