//! `kubectl helpdesk`: a plugin of kubectl for people who look after accounts.

use std::process::ExitCode;

use clap::Parser;
use helpdesk_operator::cli::{self, Cli};

fn main() -> ExitCode {
    cli::run(Cli::parse())
}
