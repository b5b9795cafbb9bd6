//! Proving a backup: everything is read back from the bucket, and nothing is believed that was not.

use std::sync::Arc;

use super::{
    Error, backup, fill,
    plan::Mover,
    postgres::{self, Pipe, Tool},
    progress::Progress,
    repath::Repath,
    stream,
};
use crate::{
    api::VerifyMode,
    backup::manifest::{self, Manifest, Object, Plain, VERIFICATION, Verification},
    clock, store,
};

/// Proves the backup, or finds it proven. Returns the verification as it is stored.
pub(super) async fn run(mover: &Mover) -> Result<Vec<u8>, Error> {
    mover.store.prove().await?;
    let (manifest, manifest_sha256) = backup::believed(mover).await?;
    let bucket = &mover.store.store;
    if let Some((_, bytes)) = known(mover, &manifest_sha256).await? {
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
            let login = mover.target.as_ref().ok_or(Error::Plan { file: super::plan::TARGET, why: "it is missing".into() })?;
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
    let bytes = manifest::seal(facts, &mover.signing)?;
    bucket.write_once(&mover.key(VERIFICATION), bytes.clone()).await?;
    Ok(bytes)
}

/// The proof that lies in the bucket, and as it is stored.
pub(super) async fn known(mover: &Mover, manifest_sha256: &str) -> Result<Option<(Verification, Vec<u8>)>, Error> {
    let bytes = match mover.store.store.read(&mover.key(VERIFICATION), manifest::LARGEST_REPORT).await {
        Ok(bytes) => bytes,
        Err(store::Error::Missing(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let proof: Verification = manifest::open(&bytes, &mover.verifying)?;
    if proof.manifest_sha256 != manifest_sha256 {
        return Err(Error::Unequal("its verification is of another manifest".into()));
    }
    Ok(Some((proof, bytes)))
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

/// How much of a dump a tool is fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// All of it, whether the tool reads on or not: both checksums are compared.
    End,
    /// As much as the tool reads: for one that needs only the definitions at the head.
    Satisfied,
}

/// Downloads the dump, decrypts and decompresses it, and feeds it to a tool, with another search path if one is given.
pub(super) async fn feed(
    mover: &Mover,
    manifest: &Manifest,
    mut tool: Tool,
    progress: &Arc<Progress>,
    (until, path): (Until, Option<&str>),
) -> Result<Plain, Error> {
    let Some(input) = tool.child.stdin.take() else {
        tool.kill();
        return Err(Error::Stream(std::io::Error::other("pg_restore has no input")));
    };
    let input: Box<dyn std::io::Write + Send> = match path {
        Some(path) => Box::new(Repath::new(input, path)),
        None => Box::new(input),
    };
    let read = Box::pin(download(mover, &manifest.dump, input, progress, until)).await;
    let ended = tokio::task::spawn_blocking(move || tool.wait()).await.map_err(|e| Error::Stream(std::io::Error::other(e)))?;
    // The bytes come first: damaged ones make every tool complain, and it is not the tool's fault.
    let plain = read?;
    if until == Until::End && plain != manifest.plain {
        return Err(Error::Unequal("what it decrypts to is not what was dumped".into()));
    }
    ended?;
    Ok(plain)
}

/// Downloads an object, decrypts and decompresses it, and hands it to `consumer`. Compares the checksum of what is
/// stored.
pub(super) async fn download(
    mover: &Mover,
    object: &Object,
    consumer: impl std::io::Write + Send + 'static,
    progress: &Arc<Progress>,
    until: Until,
) -> Result<Plain, Error> {
    let (sender, chunks) = stream::channel();
    let (identity, counted) = (mover.identity.clone(), Arc::clone(progress));
    let opening = tokio::task::spawn_blocking(move || stream::unseal(chunks, &identity, consumer, &counted, until));
    let arrived = async {
        let mut sum = stream::Summed::default();
        let mut download = mover.store.store.get(&mover.key(&object.name)).await?;
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
    let arrived = arrived?;
    let plain = opened?;
    if until == Until::End && (arrived.size != object.size || arrived.sha256 != object.sha256) {
        return Err(Error::Unequal(format!("{} is not what was stored", object.name)));
    }
    Ok(plain)
}
