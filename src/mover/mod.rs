//! What runs in Jobs: `helpdesk-operator mover backup|verify|restore`.
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
