//! `report`: what somebody who helps needs to see, without secrets and without what leads to a person.
//!
//! 1. [`collect`] reads. It asks for no Secret.
//! 2. [`redact`] removes, by the [`rules`]. Pure.
//! 3. [`bundle`] makes files of what is left, and writes them.

mod bundle;
mod collect;
mod redact;
mod rules;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::Args;
use k8s_openapi::jiff::tz::TimeZone;

use super::{
    connection::Connection,
    error::{Ended, Error},
    output::write,
};
use crate::clock::Moment;

/// The arguments of `report`.
#[derive(Args, Debug)]
pub(super) struct ReportArgs {
    /// Where it is written: an archive if the name ends in .tar.gz or .tgz, otherwise a folder. Neither may exist.
    #[arg(short, long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// How many lines of each log.
    #[arg(long, value_name = "NUMBER", default_value_t = 5000, value_parser = clap::value_parser!(i64).range(1..))]
    log_lines: i64,
}

/// Runs `report`.
pub(super) async fn run(connection: &Connection, args: ReportArgs, now: Moment) -> Result<Ended, Error> {
    let stamp = now.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ").to_string();
    let path = args.file.unwrap_or_else(|| PathBuf::from(format!("helpdesk-report-{stamp}.tar.gz")));
    let name = path.display().to_string();
    if path.exists() {
        return Err(Error::Usage(format!("{name} is there already; name another one by --file")));
    }
    let collected = collect::collect(connection, args.log_lines, now).await;
    let files = bundle::files(&collected);
    let is_archive = name.ends_with(".tar.gz") || name.ends_with(".tgz");
    let written = if is_archive { bundle::write_archive(&path, &files, now.as_second()) } else { bundle::write_folder(&path, &files) };
    written.map_err(|source| Error::Write { path: name.clone(), source })?;
    write(format!("{name}: {} files. Look through it before you hand it on.\n", files.len()).as_bytes())?;
    Ok(Ended::Fine)
}
