//! The program in the movers' Jobs: `helpdesk-operator mover backup|verify|restore`.
//!
//! A mover has no access to the cluster. It gets a folder of files: its configuration, a login for one database, the
//! keys of one backup, and credentials that read and write the bucket. It writes a signed report into the bucket; the
//! termination message has only the report's checksum.
//!
//! **Backup**. A mover may be killed in any step; the next run then comes to the same result:
//!
//! 1. Check the bucket's identity. If there is a manifest, go to step 5.
//! 2. Abort the open uploads of earlier attempts.
//! 3. Stream `pg_dump` through compression and encryption into the bucket, and take the fingerprint of the same
//!    snapshot. The object becomes visible only if `pg_dump` succeeded.
//! 4. Write the manifest, once.
//! 5. Download, decrypt and decompress the dump, and restore or decode it. Compare checksums and contents, and write
//!    the verification, once.

mod apart;
mod backup;
mod carried;
pub mod catalog;
mod clear;
mod clients;
mod compare;
pub mod config;
mod contents;
pub mod definition;
mod error;
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
pub use config::{Args, Task};
pub use error::{Error, TEMPORARY};

use crate::backup::manifest;
use crate::digest;
use crate::error_chain::chain;

/// Runs a mover to its end.
///
/// # Errors
/// Why the mover stopped. The process must then exit with status 1, or [`TEMPORARY`]; the Job tries again.
pub async fn run(args: Args) -> Result<(), Error> {
    // Keeps the caller's subscriber if there is one.
    let _ = tracing_subscriber::fmt().json().with_writer(std::io::stderr).try_init();
    let mover = config::Mover::read(&args)?;
    tracing::info!(task = args.task.name(), backup = mover.plan.backup, folder = mover.plan.folder, "mover started");
    // Boxed, because these futures are too large for the stack.
    let report = match args.task {
        Task::Backup => Box::pin(backup::run(&mover)).await,
        Task::Verify => Box::pin(verify::run(&mover)).await,
        Task::Restore => Box::pin(restore::run(&mover)).await,
    };
    match report {
        Ok(report) => {
            let checksum = digest::sha256(&report);
            tracing::info!(report = checksum, "mover finished");
            // Only a convenience: the operator reads the report in the bucket.
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

/// Compares the target database with the backup once more, without restoring. Creates and drops a schema there, so the
/// role needs the `CREATE` privilege on the database.
///
/// # Errors
/// [`Error::Differs`] or [`Error::OtherContents`] if the database differs from the backup; or reading failed.
pub async fn compare_again(args: &Args) -> Result<manifest::Restored, Error> {
    let mover = config::Mover::read(args)?;
    let (facts, sha256) = reports::read_manifest(&mover).await?;
    let login = mover.target.as_ref().ok_or(Error::Plan { file: config::TARGET, why: "it is missing".into() })?;
    Box::pin(fill::compare_again(&mover, (&facts, &sha256), login)).await
}
