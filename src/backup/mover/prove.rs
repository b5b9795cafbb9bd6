//! Proving a backup: everything is read back from the bucket, and nothing is believed that was not.

use std::sync::Arc;

use super::{
    Error, backup, fingerprint,
    plan::Mover,
    postgres::{self, Pipe, Tool},
    progress::Progress,
    stream,
};
use crate::{
    api::VerifyMode,
    backup::manifest::{self, Fingerprint, Manifest, Plain, VERIFICATION, Verification},
    clock,
    database::MoverLogin,
    store,
};

/// Restoring keeps neither owners nor rights: everything belongs to the role that restores, and the rights are made
/// anew with the database. What needs a superuser is left out.
pub(super) const RESTORE: [&str; 7] =
    ["--exit-on-error", "--no-owner", "--no-privileges", "--no-publications", "--no-subscriptions", "--no-tablespaces", "--no-password"];

/// Proves the backup, or finds it proven. Returns the verification as it is stored.
pub(super) async fn run(mover: &Mover) -> Result<Vec<u8>, Error> {
    mover.store.prove().await?;
    let (manifest, manifest_sha256) = backup::believed(mover).await?;
    let bucket = &mover.store.store;
    match bucket.read(&mover.key(VERIFICATION), manifest::LARGEST_REPORT).await {
        Ok(bytes) => {
            let facts: Verification = manifest::open(&bytes, &mover.verifying)?;
            if facts.manifest_sha256 == manifest_sha256 {
                tracing::info!("the backup is proven already");
                return Ok(bytes);
            }
            return Err(Error::Unequal("its verification is of another manifest".into()));
        }
        Err(store::Error::Missing(_)) => {}
        Err(error) => return Err(error.into()),
    }
    secrets(mover, &manifest).await?;
    let progress = Arc::new(Progress::default());
    let begun = std::time::Instant::now();
    let fingerprint = match mover.plan.verify {
        VerifyMode::Read => {
            let tools = postgres::tools(&mover.postgresql, major(&manifest))?;
            let tool = postgres::start(&tools, "pg_restore", &["--file=/dev/null"], None, &Pipe::In)?;
            progress.during("read back", feed(mover, &manifest, tool, &progress)).await?;
            None
        }
        VerifyMode::Restore => {
            let login = mover.target.as_ref().ok_or(Error::Plan { file: super::plan::TARGET, why: "it is missing".into() })?;
            Some(fill(mover, &manifest, login, &progress).await?)
        }
    };
    let facts =
        Verification { manifest_sha256, mode: mover.plan.verify, plain: manifest.plain.clone(), fingerprint, verified_at: clock::now() };
    tracing::info!(seconds = begun.elapsed().as_secs_f64(), mode = ?mover.plan.verify, "proven");
    let bytes = manifest::seal(facts, &mover.signing)?;
    bucket.write_once(&mover.key(VERIFICATION), bytes.clone()).await?;
    Ok(bytes)
}

fn major(manifest: &Manifest) -> u32 {
    manifest.source.server_version.split('.').next().and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Reads the small object back.
async fn secrets(mover: &Mover, manifest: &Manifest) -> Result<(), Error> {
    let object = &manifest.secrets;
    let bytes = mover.store.store.read(&mover.key(&object.name), object.size).await?;
    if manifest::sha256(&bytes) != object.sha256 {
        return Err(Error::Unequal(format!("{} is not what was stored", object.name)));
    }
    age::decrypt(&mover.identity, &bytes).map_err(|_| Error::Unequal(format!("{} is not encrypted to its key", object.name)))?;
    Ok(())
}

/// Restores into an empty database and compares it with the manifest.
pub(super) async fn fill(mover: &Mover, manifest: &Manifest, login: &MoverLogin, progress: &Arc<Progress>) -> Result<Fingerprint, Error> {
    let mut session = postgres::connect(login).await?;
    let (_, major, _) = postgres::who(&mut session).await?;
    let before = fingerprint::take(&mut session).await?;
    if before.relations > 0 || before.sequences > 0 {
        return Err(Error::OtherDatabase(format!("{} is not empty: it has {} tables", login.database, before.relations)));
    }
    let tools = postgres::tools(&mover.postgresql, major)?;
    let mut arguments = RESTORE.to_vec();
    arguments.push("--dbname=service=mover");
    let tool = postgres::start_restore(&tools, &arguments, (login, &mover.run), major)?;
    progress.during("restore", feed(mover, manifest, tool, progress)).await?;
    let restored = fingerprint::take(&mut session).await?;
    backup::compare(manifest, &restored, major)?;
    Ok(restored)
}

/// Downloads the dump, decrypts and decompresses it, and feeds it to a tool. Compares both checksums.
async fn feed(mover: &Mover, manifest: &Manifest, mut tool: Tool, progress: &Arc<Progress>) -> Result<Plain, Error> {
    let Some(input) = tool.child.stdin.take() else {
        tool.kill();
        return Err(Error::Stream(std::io::Error::other("pg_restore has no input")));
    };
    let (sender, chunks) = stream::channel();
    let (identity, counted) = (mover.identity.clone(), Arc::clone(progress));
    let opening = tokio::task::spawn_blocking(move || stream::unseal(chunks, &identity, input, &counted));
    let arrived = async {
        let mut sum = stream::Summed::default();
        let mut download = mover.store.store.get(&mover.key(&manifest.dump.name)).await?;
        while let Some(chunk) = download.next().await? {
            sum.add(&chunk);
            progress.stored(chunk.len());
            if sender.send(chunk).await.is_err() {
                break;
            }
        }
        drop(sender);
        Ok::<_, store::Error>(sum.finish())
    };
    let arrived = arrived.await;
    let opened = opening.await.map_err(|e| Error::Stream(std::io::Error::other(e)))?;
    let ended = tokio::task::spawn_blocking(move || tool.wait()).await.map_err(|e| Error::Stream(std::io::Error::other(e)))?;
    // The bytes come first: damaged ones make every tool complain, and it is not the tool's fault.
    let arrived = arrived?;
    let plain = opened?;
    if arrived.size != manifest.dump.size || arrived.sha256 != manifest.dump.sha256 {
        return Err(Error::Unequal(format!("{} is not what was stored", manifest.dump.name)));
    }
    if plain != manifest.plain {
        return Err(Error::Unequal("what it decrypts to is not what was dumped".into()));
    }
    ended?;
    Ok(plain)
}
