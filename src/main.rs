//! The command line: `run` the operator, be a `mover` in a Job, serve the `mail` intake, send the
//! `request` of a hook, print the `crds`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use helpdesk_operator::{api, app, mail, mover, run};

#[derive(Parser)]
#[command(version, about = "Runs the tenants of a help desk, from the first day of a trial to proof that nothing is left")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator.
    Run(Box<run::Args>),
    /// Move data between a database and a bucket; what Jobs run.
    Mover(mover::Args),
    /// Answer the mail server of the mail intake, and deliver to tenants' apps; what the intake's pod runs.
    Mail(mail::Args),
    /// Send one request to a component of an app; what Jobs of HTTP hooks run.
    Request(app::request::Args),
    /// Print the definitions of the resources.
    Crds,
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("failed to start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match command {
        Command::Run(args) => runtime.block_on(run::run(*args)),
        Command::Mover(args) => match runtime.block_on(mover::run(args)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                if error.is_the_backups_own() { ExitCode::FAILURE } else { ExitCode::from(mover::TEMPORARY) }
            }
        },
        Command::Request(args) => runtime.block_on(app::request::run(args)),
        Command::Mail(args) => runtime.block_on(mail::run(args)),
        Command::Crds => print_definitions(),
    }
}

fn print_definitions() -> ExitCode {
    for (_, definition) in api::definitions() {
        match api::yaml(&definition) {
            Ok(text) => print!("---\n{text}"),
            Err(error) => {
                eprintln!("failed to print a definition: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
