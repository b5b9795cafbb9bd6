//! `verify`: whether a stage is enforced, checked from outside and at this moment.
//!
//! The status says which stage the account is in; nothing else of it is believed. [`look`] tries the tenant's own
//! credentials, asks its host names, and looks for its namespace, pods, backups and keys; [`judge`] says whether that is
//! what the stage demands. What cannot be checked from here is said to be unchecked, and never passes for shut.

mod judge;
mod look;

use clap::Args;
use kube::ResourceExt;
use serde::Serialize;

use super::{
    connection::Connection,
    error::{Ended, Error},
    find,
    output::{OutputArgs, table},
};
use crate::{api::stage::Stage, clock::Moment};
use judge::{Check, Outcome, checks};

/// The arguments of `verify`.
#[derive(Args, Debug)]
pub(super) struct VerifyArgs {
    /// The account.
    name: String,
    /// The stage that it should be in; without it, the one that its status claims.
    #[arg(long, value_name = "STAGE", value_parser = stage)]
    stage: Option<Stage>,
    /// Exit with 3 also if something could not be checked.
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    output: OutputArgs,
}

fn stage(text: &str) -> Result<Stage, String> {
    let names = || Stage::ALL.map(Stage::name).join(", ");
    Stage::from_name(text).ok_or_else(|| format!("there is no such stage; there are {}", names()))
}

/// Runs `verify`.
pub(super) async fn run(connection: &Connection, args: VerifyArgs, now: Moment) -> Result<Ended, Error> {
    let account = find::account(connection, &args.name).await?;
    let claimed = account.status.as_ref().and_then(|status| status.stage);
    let unfit = || Error::Unfit { what: "verify a stage", why: "the account is in none yet; --stage names one".into() };
    let stage = args.stage.or(claimed).ok_or_else(unfit)?;
    eprintln!("looking at {} as its tenant and its customers would …", account.name_any());
    let seen = look::evidence(connection, &account, now).await?;
    let verified = Verified { account: args.name, stage, checks: checks(stage, &seen) };
    args.output.print(&verified, || text(&verified))?;
    Ok(verified.ended(args.strict))
}

/// What came of all checks.
#[derive(Debug, Serialize)]
struct Verified {
    account: String,
    stage: Stage,
    checks: Vec<Check>,
}

impl Verified {
    fn count(&self, outcome: Outcome) -> usize {
        self.checks.iter().filter(|check| check.outcome == outcome).count()
    }

    fn ended(&self, strict: bool) -> Ended {
        let is_so = self.count(Outcome::Fails) == 0 && !(strict && self.count(Outcome::NotChecked) > 0);
        if is_so { Ended::Fine } else { Ended::NotSo }
    }
}

fn text(verified: &Verified) -> String {
    let mark = |outcome| match outcome {
        Outcome::Holds => "ok",
        Outcome::Fails => "FAILS",
        Outcome::NotChecked => "not checked",
    };
    let row = |check: &Check| vec![mark(check.outcome).to_owned(), check.what.to_owned(), check.says.clone()];
    let verdict = match (verified.count(Outcome::Fails), verified.count(Outcome::NotChecked)) {
        (0, 0) => "is enforced".to_owned(),
        (0, open) => format!("is enforced in all that could be checked; {open} could not"),
        (failing, _) => format!("IS NOT ENFORCED: {failing} of {} checks fail", verified.checks.len()),
    };
    let rows: Vec<_> = verified.checks.iter().map(row).collect();
    format!("{}: {} {verdict}.\n\n{}", verified.account, verified.stage.name(), table(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(outcomes: &[Outcome]) -> Verified {
        let check = |outcome: &Outcome| Check { what: "the login", outcome: *outcome, says: "it was tried".into() };
        Verified { account: "acme".into(), stage: Stage::Blocked, checks: outcomes.iter().map(check).collect() }
    }

    #[test]
    fn what_could_not_be_checked_counts_only_where_that_is_asked_for() {
        let some = verified(&[Outcome::Holds, Outcome::NotChecked]);
        assert_eq!((some.ended(false), some.ended(true)), (Ended::Fine, Ended::NotSo));
        assert_eq!(verified(&[Outcome::Holds]).ended(true), Ended::Fine);
        assert_eq!(verified(&[Outcome::Fails]).ended(false), Ended::NotSo);
    }

    #[test]
    fn the_verdict_is_the_first_line() {
        let first = |outcomes| text(&verified(outcomes)).lines().next().unwrap().to_owned();
        assert_eq!(first(&[Outcome::Holds]), "acme: Blocked is enforced.");
        assert_eq!(first(&[Outcome::Holds, Outcome::Fails]), "acme: Blocked IS NOT ENFORCED: 1 of 2 checks fail.");
        assert!(first(&[Outcome::NotChecked]).contains("in all that could be checked; 1 could not"));
    }
}
