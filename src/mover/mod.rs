//! What runs inside Jobs: `helpdesk-operator mover backup|verify|restore`.
//!
//! A mover knows nothing of the cluster. It is given a folder of files: a plan, which is no secret, a login for one
//! database, the keys of one backup, and credentials that read and write the bucket. What it has to say it signs and
//! writes into the bucket; the termination message carries only the checksum of that.
//!
//! **Backup**, every step of which may be killed and comes to the same end when it runs again:
//!
//! 1. The bucket proves who it is. Is there a manifest already, go to step 5.
//! 2. Open uploads of dead attempts are aborted.
//! 3. `pg_dump` streams through compression and encryption into the bucket while the same snapshot is fingerprinted.
//!    Only when `pg_dump` ended well does the object become visible.
//! 4. The manifest is written, once.
//! 5. The dump is downloaded again, decrypted, decompressed, and restored or decoded; checksums and contents are
//!    compared, and the verification is written, once.

mod apart;
mod backup;
mod carried;
pub mod catalog;
mod clear;
mod clients;
mod compare;
pub mod config;
mod contents;
mod fill;
pub mod fingerprint;
pub mod job;
mod locks;
mod missing;
mod postgres;
mod progress;
mod repath;
mod reports;
mod restore;
mod stream;
mod transfer;
mod verify;
mod views;

pub use clients::Clients;

use std::path::PathBuf;

use crate::digest;
use crate::error_chain::chain;
use crate::{backup::manifest, store};

/// The arguments of `helpdesk-operator mover`. None of them is a secret; secrets are files in the plan's folder.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub task: Task,
    /// The folder with the plan and the secrets.
    #[arg(long, global = true, default_value = "/etc/mover")]
    pub plan: PathBuf,
    /// A folder in memory, for what the PostgreSQL tools have to read from files.
    #[arg(long, global = true, default_value = "/run/mover")]
    pub run: PathBuf,
    /// The folder with the PostgreSQL tools, one folder a major version.
    #[arg(long, global = true, default_value = "/usr/lib/postgresql")]
    pub postgresql: PathBuf,
    /// Where the checksum of the report is left for the kubelet.
    #[arg(long, global = true, default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
}

/// What a mover does.
#[derive(clap::Subcommand, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Dump, upload, read back and prove; carries on where a killed one stopped.
    Backup,
    /// Prove a backup that is complete already.
    Verify,
    /// Restore into an empty database and compare.
    Restore,
}

impl Task {
    /// The word on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Verify => "verify",
            Self::Restore => "restore",
        }
    }
}

/// Why a mover stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The plan or a secret is missing or damaged.
    #[error("failed to read {file} of the plan: {why}")]
    Plan {
        /// The file.
        file: &'static str,
        /// What is wrong; never the file's contents.
        why: String,
    },
    /// The database.
    #[error("failed to {step}")]
    Database {
        /// What was asked.
        step: &'static str,
        /// What the driver said.
        #[source]
        source: sqlx::Error,
    },
    /// A table could not be read.
    #[error("failed to read the rows of {name}")]
    Table {
        /// The table.
        name: String,
        /// What the driver said.
        #[source]
        source: sqlx::Error,
    },
    /// A row that nothing can write.
    #[error("failed to dump a row of {name}: it has {bytes} bytes in {columns}, and no copy of more than 1 GiB can be made; shorten it")]
    TooLong {
        /// The table.
        name: String,
        /// Its long columns.
        columns: String,
        /// The row's bytes.
        bytes: i64,
    },
    /// The login leads to another database than the one that is to be backed up or filled.
    #[error("failed to recognise the database: {0}")]
    OtherDatabase(String),
    /// A PostgreSQL tool could not be run.
    #[error("failed to run {tool}")]
    Spawn {
        /// The tool.
        tool: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// No tool is new enough for the server.
    #[error("failed to find PostgreSQL tools of version {0} or later in the image")]
    NoTools(u32),
    /// A PostgreSQL tool failed.
    #[error("failed to finish {tool}: {status}{}{said}", if said.is_empty() { "" } else { "; " })]
    Tool {
        /// The tool.
        tool: &'static str,
        /// How it ended.
        status: String,
        /// Its last complaint.
        said: String,
    },
    /// The store.
    #[error("failed to use the store: {0}")]
    Store(#[from] store::Error),
    /// The stream between them.
    #[error("failed to stream the dump")]
    Stream(#[source] std::io::Error),
    /// What was read back is not what was stored.
    #[error("failed to prove the backup: {0}")]
    Unequal(String),
    /// What was restored has other contents than what was dumped.
    #[error("failed to prove the backup: {0}")]
    OtherContents(String),
    /// What was restored is not what was dumped.
    #[error("failed to prove the backup: {what}: {source_has} in the source, {copy_has} in the copy")]
    Differs {
        /// What differs.
        what: String,
        /// How it is in the source.
        source_has: String,
        /// How it is in the copy.
        copy_has: String,
    },
    /// Something could not be made in the copy, and not because of the rows.
    #[error("failed to make {what} in the copy: {why}{}{first}", if first.is_empty() { "" } else { "; the plain way failed with: " })]
    NotMade {
        /// What.
        what: String,
        /// What the server said.
        why: String,
        /// Why the plain way of restoring failed.
        first: String,
    },
    /// A report that is not this backup's.
    #[error(transparent)]
    Report(#[from] manifest::Error),
    /// The key.
    #[error("failed to use the backup's key: {0}")]
    Key(&'static str),
    /// The manifest that a restore or a verification needs is not there.
    #[error("failed to find the manifest of the backup")]
    NoManifest,
}

/// The status of a mover that met something that says nothing of the backup: a database, a bucket or a machine that was
/// not as it should be. It is `EX_TEMPFAIL` of sysexits.h.
pub const TEMPORARY: u8 = 75;

/// What tools and servers say of connections, space and locks, which pass.
const PASSING: [&str; 7] = [
    "connection to server",
    "server closed the connection",
    "terminating connection",
    "the database system is",
    "no space left on device",
    "too many clients",
    "lock timeout",
];

impl Error {
    /// Whether what stopped the mover is the backup's own: it will be there the next time too. Everything else may pass,
    /// and what is not listed here counts as that.
    pub fn is_the_backups_own(&self) -> bool {
        match self {
            Self::OtherContents(_) | Self::Differs { .. } | Self::TooLong { .. } => true,
            Self::NotMade { why, first, .. } => !passes(why) && !passes(first),
            // A tool that was killed was killed by somebody.
            Self::Tool { status, said, .. } => !status.starts_with("signal") && !passes(said),
            Self::Database { source: sqlx::Error::Database(said), .. } | Self::Table { source: sqlx::Error::Database(said), .. } => {
                // Connections, missing rights to log in, space, locks, a server that shuts down.
                let passing_code = said.code().is_some_and(|code| {
                    ["08", "28", "57"].iter().any(|class| code.starts_with(class)) || ["53100", "53300", "55P03"].contains(&&*code)
                });
                !passing_code && !passes(said.message())
            }
            _ => false,
        }
    }
}

fn passes(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    PASSING.iter().any(|passing| said.contains(passing))
}

/// Runs a mover to its end.
///
/// # Errors
/// Whatever stopped it; the process should then end with status 1, or [`TEMPORARY`], and the Job tries again.
pub async fn run(args: Args) -> Result<(), Error> {
    // The caller's own subscriber counts, where there is one.
    let _ = tracing_subscriber::fmt().json().with_writer(std::io::stderr).try_init();
    let mover = config::Mover::read(&args)?;
    tracing::info!(task = args.task.name(), backup = mover.plan.backup, folder = mover.plan.folder, "mover started");
    // Each is a large future, and belongs on no stack.
    let report = match args.task {
        Task::Backup => Box::pin(backup::run(&mover)).await,
        Task::Verify => Box::pin(verify::run(&mover)).await,
        Task::Restore => Box::pin(restore::run(&mover)).await,
    };
    match report {
        Ok(report) => {
            let checksum = digest::sha256(&report);
            tracing::info!(report = checksum, "mover finished");
            // Only a convenience: the report in the bucket is what counts.
            if let Err(error) = std::fs::write(&args.termination_log, &checksum) {
                tracing::debug!(%error, "failed to leave the checksum for the kubelet");
            }
            Ok(())
        }
        Err(error) => {
            tracing::error!(error = chain(&error), "mover failed");
            Err(error)
        }
    }
}

/// Compares what is in the target database with the backup once more, without restoring: for whoever doubts a copy.
/// Makes and removes a schema of its own there; its role needs the right to make one.
///
/// # Errors
/// [`Error::Differs`] or [`Error::OtherContents`] if it is not what was backed up; whatever could not be read.
pub async fn compare_again(args: &Args) -> Result<manifest::Restored, Error> {
    let mover = config::Mover::read(args)?;
    let (facts, sha256) = reports::believed(&mover).await?;
    let login = mover.target.as_ref().ok_or(Error::Plan { file: config::TARGET, why: "it is missing".into() })?;
    Box::pin(fill::compare_again(&mover, (&facts, &sha256), login)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_will_be_there_the_next_time_is_the_backups_own() {
        let tool = |status: &str, said: &str| Error::Tool { tool: "pg_dump", status: status.into(), said: said.into() };
        for own in [
            Error::OtherContents("7 rows and not 8".into()),
            Error::NotMade { what: "constraint c".into(), why: "ERROR:  division by zero".into(), first: String::new() },
            tool("exit status: 1", "error: query returned 0 rows instead of one: SELECT proretset"),
            tool("exit status: 1", "error: could not execute query: ERROR:  cache lookup failed for type 999"),
        ] {
            assert!(own.is_the_backups_own(), "{own}");
        }
        for passing in [
            tool("exit status: 1", "error: connection to server at \"pg\", port 5432 failed: Connection refused"),
            tool("exit status: 1", "error: error returned by PQputCopyData: server closed the connection unexpectedly"),
            tool("exit status: 1", "error: COPY failed: ERROR:  could not extend file: No space left on device"),
            tool("signal: 9 (SIGKILL)", ""),
            Error::Database { step: "connect", source: sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()) },
            Error::NoTools(19),
            // A bucket that gives back something else than was stored says nothing of the database.
            Error::Unequal("its bytes are damaged: decryption error".into()),
            Error::NotMade { what: "index i".into(), why: "could not extend file: No space left on device".into(), first: String::new() },
            Error::Stream(std::io::ErrorKind::BrokenPipe.into()),
            Error::Store(store::Error::Missing("x".into())),
        ] {
            assert!(!passing.is_the_backups_own(), "{passing}");
        }
    }
}
