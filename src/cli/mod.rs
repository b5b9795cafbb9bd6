//! `kubectl helpdesk`: what people ask about accounts, and what they decide, in one command each.
//!
//! A command reads objects ([`seen`]), hands them to a pure function, and prints what that says ([`output`]). A command
//! needs no right that its question does not need: what may not be read is said, and the rest is answered.
//!
//! | exit code | means |
//! |---|---|
//! | 0 | everything is as it should be, or the command did what was asked |
//! | 1 | the command failed |
//! | 2 | the command was used wrongly |
//! | 3 | what was asked for is not so: a person has to act, or what was checked is wrong |

mod assumed;
mod backup;
mod brake;
mod close;
mod confirm;
mod connection;
mod error;
mod find;
mod hold;
mod matters;
mod orphans;
mod output;
mod plan;
mod report;
mod seen;
mod status;
mod timeline;
mod verify;
mod why;

use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::{clock, error_chain::chain};
use connection::{Connection, ConnectionArgs};
use error::Ended;
pub use error::Error;

/// The command line of `kubectl helpdesk`.
#[derive(Parser, Debug)]
#[command(
    name = "kubectl-helpdesk",
    bin_name = "kubectl helpdesk",
    version,
    about = "Answers questions about the accounts of a helpdesk-operator, and carries out what people decide about them",
    after_help = "Exit codes: 0 fine; 1 failed; 2 used wrongly; 3 what was asked for is not so."
)]
pub struct Cli {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Show the stage of an account, its deadlines and what is wrong, on one screen. Exits with 3 if a person has to act.
    Status(status::StatusArgs),
    /// Say why an account is not as it should be: from the account down to the first cause, and what to do about it.
    /// Exits with 3 if there is a cause that does not pass by itself.
    Why(why::WhyArgs),
    /// Show what an account went through and what comes when, if nothing changes.
    Timeline(timeline::TimelineArgs),
    /// Tell which stage each account would be in at a date, or what an edited plan would change for its accounts. Writes
    /// nothing.
    Plan(plan::PlanArgs),
    /// Take a backup of an account now.
    Backup(backup::BackupArgs),
    /// Set a legal hold: nothing of the account is destroyed while it is set.
    Hold(hold::HoldArgs),
    /// Release a legal hold. What is due is destroyed after the plan's notice.
    Release(hold::ReleaseArgs),
    /// Close an account for its owner, or withdraw that. Says first what will happen when.
    Close(close::CloseArgs),
    /// Look at the brake of a server, or release it.
    Brake(brake::BrakeArgs),
    /// List what is left over: databases, roles and folders that belong to nobody, accounts without an object, movers without
    /// a backup. Exits with 3 if there is anything.
    Orphans(orphans::OrphansArgs),
    /// Check from outside, at this moment, that the stage of an account is enforced: its credentials, addresses, namespace,
    /// pods, backups and keys. Exits with 3 if it is not.
    Verify(verify::VerifyArgs),
    /// Collect what somebody who helps needs to see, without secrets and without what leads to a person.
    Report(report::ReportArgs),
    /// Print the completions of a shell.
    Completion(CompletionArgs),
}

#[derive(Args, Debug)]
struct CompletionArgs {
    /// The shell.
    shell: Shell,
}

/// Runs a command, and prints its error.
pub fn run(cli: Cli) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("failed to start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(command(cli)) {
        Ok(Ended::Fine) => ExitCode::SUCCESS,
        Ok(Ended::NotSo) => ExitCode::from(3),
        Err(error) => {
            eprintln!("{}", chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

async fn command(cli: Cli) -> Result<Ended, Error> {
    if let Command::Completion(args) = cli.command {
        return print_completion(args.shell);
    }
    let connection = Connection::open(cli.connection).await?;
    let now = clock::now();
    match cli.command {
        Command::Status(args) => status::run(&connection, args, now).await,
        Command::Why(args) => why::run(&connection, args, now).await,
        Command::Timeline(args) => timeline::run(&connection, args, now).await,
        Command::Plan(args) => plan::run(&connection, args, now).await,
        Command::Backup(args) => backup::run(&connection, args, now).await,
        Command::Hold(args) => hold::hold(&connection, args).await,
        Command::Release(args) => hold::release(&connection, args, now).await,
        Command::Close(args) => close::run(&connection, args, now).await,
        Command::Brake(args) => brake::run(&connection, args, now).await,
        Command::Orphans(args) => orphans::run(&connection, args).await,
        Command::Verify(args) => verify::run(&connection, args, now).await,
        Command::Report(args) => report::run(&connection, args, now).await,
        Command::Completion(args) => print_completion(args.shell),
    }
}

fn print_completion(shell: Shell) -> Result<Ended, Error> {
    let mut script = Vec::new();
    // Shells complete the program by the name of its file, which kubectl calls for `kubectl helpdesk`.
    clap_complete::generate(shell, &mut Cli::command(), "kubectl-helpdesk", &mut script);
    output::write(&script)?;
    Ok(Ended::Fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_says_what_it_does() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{} has no description", command.get_name());
        }
    }

    #[test]
    fn wrong_use_is_told_apart_from_failure() {
        let wrong = Cli::try_parse_from(["kubectl-helpdesk", "status"]).unwrap_err();
        assert_eq!(wrong.exit_code(), 2);
    }
}
