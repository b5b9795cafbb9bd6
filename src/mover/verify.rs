//! The task `verify`: read everything back from the bucket, restore it into a scratch database, compare, sign.

use std::sync::Arc;

use super::{
    Error,
    config::Mover,
    fill,
    postgres::{self, Pipe},
    progress::Progress,
    reports,
    stream::Until,
    transfer::{download, feed},
};
use crate::digest;
use crate::{
    api::VerifyMode,
    backup::manifest::{self, Manifest, VERIFICATION, Verification},
    clock,
};

/// Verifies the backup, unless the bucket already has a verification. Returns the bytes of the verification.
pub(super) async fn run(mover: &Mover) -> Result<Vec<u8>, Error> {
    mover.store.check_identity().await?;
    let (manifest, manifest_sha256) = reports::read_manifest(mover).await?;
    let bucket = &mover.store.bucket;
    if let Some((_, bytes)) = reports::read_verification(mover, &manifest_sha256).await? {
        tracing::info!("the backup is proven already");
        return Ok(bytes);
    }
    secrets(mover, &manifest).await?;
    let progress = Arc::new(Progress::default());
    let begun = std::time::Instant::now();
    let filled = match mover.plan.verify {
        VerifyMode::Read => {
            let tools = postgres::tools(&mover.postgresql, major(&manifest))?;
            let tool = postgres::start(&tools, "pg_restore", &["--file=/dev/null"], None, &Pipe::In)?;
            progress.during("read back", feed(mover, &manifest, tool, &progress, (Until::End, None))).await?;
            for rows in &manifest.apart {
                if download(mover, &rows.object, std::io::sink(), &progress, Until::End).await? != rows.plain {
                    return Err(Error::Unequal(format!("the rows of {} decrypt to something else than was dumped", rows.table)));
                }
            }
            None
        }
        VerifyMode::Restore => {
            let login = mover.target.as_ref().ok_or(Error::Plan { file: super::config::TARGET, why: "it is missing".into() })?;
            Some(Box::pin(fill::fill(mover, &manifest, login, None, &progress)).await?)
        }
    };
    let (fingerprint, restored) = filled.map(|filled| (filled.fingerprint, filled.restored)).unzip();
    let facts = Verification {
        manifest_sha256,
        mode: mover.plan.verify,
        plain: manifest.plain.clone(),
        fingerprint,
        restored,
        verified_at: clock::now(),
    };
    tracing::info!(seconds = begun.elapsed().as_secs_f64(), mode = ?mover.plan.verify, "proven");
    let bytes = manifest::sign(facts, &mover.signing)?;
    bucket.write_once(&mover.key(VERIFICATION), bytes.clone()).await?;
    Ok(bytes)
}

fn major(manifest: &Manifest) -> u32 {
    manifest.source.server_version.split('.').next().and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Reads the secrets object back, and checks its checksum and that the key decrypts it.
async fn secrets(mover: &Mover, manifest: &Manifest) -> Result<(), Error> {
    let object = &manifest.secrets;
    let bytes = mover.store.bucket.read(&mover.key(&object.name), object.size).await?;
    if digest::sha256(&bytes) != object.sha256 {
        return Err(Error::Unequal(format!("{} is not what was stored", object.name)));
    }
    age::decrypt(&mover.identity, &bytes).map_err(|_| Error::Unequal(format!("{} is not encrypted to its key", object.name)))?;
    Ok(())
}
