//! Uploads objects while they are produced, and downloads them while they are consumed.

use std::sync::Arc;

use super::{
    Error,
    config::Mover,
    postgres::Tool,
    progress::Progress,
    repath::Repath,
    stream::{self, Until},
};
use crate::error_chain::chain;
use crate::{
    backup::manifest::{Manifest, Object, Plain},
    store::{self, Stored},
};

/// An uploaded object: the store's answer, size and checksum before compression, and checksum of the stored bytes.
pub(super) struct Encrypted {
    pub stored: Stored,
    pub plain: Plain,
    pub sha256: String,
}

/// Compresses and encrypts `input` into an object. The object becomes visible only if `ended` succeeds, which says that
/// `input` was complete.
pub(super) async fn upload(
    mover: &Mover,
    name: &str,
    input: impl std::io::Read + Send + 'static,
    progress: &Arc<Progress>,
    ended: impl Future<Output = Result<(), Error>>,
) -> Result<Encrypted, Error> {
    let mut upload = mover.store.bucket.upload(&mover.key(name)).await?;
    let (sender, mut chunks) = stream::channel();
    let (recipient, counted) = (mover.identity.to_public(), Arc::clone(progress));
    let sealing = tokio::task::spawn_blocking(move || stream::encrypt(input, &recipient, sender, &counted));
    let mut sum = stream::Summed::default();
    let sent = async {
        let mut sent = Ok(());
        while let Some(chunk) = chunks.recv().await {
            sum.add(&chunk);
            sent = upload.write(&chunk).await;
            if sent.is_err() {
                break;
            }
        }
        drop(chunks);
        sent
    };
    let (sent, ended) = tokio::join!(sent, ended);
    let sealed = sealing.await.map_err(|e| Error::Stream(std::io::Error::other(e)))?;
    match sent.map_err(Error::Store).and(ended).and(sealed) {
        Ok(plain) => Ok(Encrypted { stored: upload.complete().await?, plain, sha256: sum.finish().sha256 }),
        Err(error) => {
            if let Err(abort_error) = upload.abort().await {
                tracing::warn!(error = chain(&abort_error), "failed to abort the upload; the next attempt will");
            }
            Err(error)
        }
    }
}

/// The manifest's entry for an object that was written.
pub(super) fn object(name: String, sha256: String, stored: Stored) -> Object {
    Object { name, size: stored.size, sha256, etag: stored.etag, crc64nvme: stored.crc64nvme, version_id: stored.version_id }
}

/// Downloads the dump, decrypts and decompresses it, and feeds it to a tool; with another search path if one is given.
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
    // Returns the error of the download first: damaged bytes make every tool fail.
    let plain = read?;
    if until == Until::End && plain != manifest.plain {
        return Err(Error::Unequal("what it decrypts to is not what was dumped".into()));
    }
    ended?;
    Ok(plain)
}

/// Downloads an object, decrypts and decompresses it, and writes it to `consumer`. Checks the checksum of the stored
/// bytes.
pub(super) async fn download(
    mover: &Mover,
    object: &Object,
    consumer: impl std::io::Write + Send + 'static,
    progress: &Arc<Progress>,
    until: Until,
) -> Result<Plain, Error> {
    let (sender, chunks) = stream::channel();
    let (identity, counted) = (mover.identity.clone(), Arc::clone(progress));
    let opening = tokio::task::spawn_blocking(move || stream::decrypt(chunks, &identity, consumer, &counted, until));
    let arrived = async {
        let mut sum = stream::Summed::default();
        let mut download = mover.store.bucket.get(&mover.key(&object.name)).await?;
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
