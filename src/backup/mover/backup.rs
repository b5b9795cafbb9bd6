//! Taking a backup.

use std::sync::Arc;

use sqlx::PgConnection;

use super::{
    Error,
    catalog::Kind,
    contents,
    fingerprint::{self, Origin, Position},
    plan::Mover,
    postgres::{self, Pipe, Snapshot},
    progress::Progress,
    prove, stream,
};
use crate::{
    backup::{
        keys,
        manifest::{self, DUMP, MANIFEST, Manifest, Object, Plain, SECRETS},
    },
    clock,
    database::MoverLogin,
    store::{self, Stored},
};

/// Takes the backup, or finds it taken, and proves it. Returns the verification as it is stored.
pub(super) async fn run(mover: &Mover) -> Result<Vec<u8>, Error> {
    mover.store.prove().await?;
    if mover.store.store.head(&mover.key(MANIFEST)).await?.is_some() {
        tracing::info!("a manifest is there already: going on with its proof");
    } else {
        take(mover).await?;
    }
    prove::run(mover).await
}

async fn take(mover: &Mover) -> Result<(), Error> {
    let (plan, bucket) = (&mover.plan, &mover.store.store);
    let login = mover.source.as_ref().ok_or(Error::Plan { file: super::plan::SOURCE, why: "it is missing".into() })?;
    let aborted = bucket.abort_uploads(&plan.folder).await?;
    if aborted > 0 {
        tracing::info!(aborted, "aborted the uploads of dead attempts");
    }
    let mut session = postgres::connect(login).await?;
    let snapshot = postgres::snapshot(&mut session).await?;
    recognise(mover, &snapshot)?;
    let tools = postgres::tools(&mover.postgresql, snapshot.major)?;

    let name = mover.free_name(DUMP).await?;
    let begun = std::time::Instant::now();
    let progress = Arc::new(Progress::default());
    let before = sequences_now(login).await?;
    let dump = progress.during("dump", dump(mover, login, &tools, &snapshot, &name, &progress));
    let read = fingerprint::take(&mut session, Origin::Snapshot(login, &snapshot.name));
    let ((stored, plain, sha256), mut contents) = both(dump, read).await?;
    contents.sequences = sequences_now(login).await?;
    let mut fingerprint = contents.fingerprint();
    if before != contents.sequences {
        // Sequences belong to no snapshot: whether the dump holds the old or the new state cannot be told.
        fingerprint.sequence_state = None;
    }
    let extensions = contents.definitions.iter().filter(|d| d.kind == Kind::Extension).map(|d| d.name.clone()).collect();
    let completed_at = clock::now();
    tracing::info!(seconds = begun.elapsed().as_secs_f64(), plain = plain.size, stored = stored.size, rows = fingerprint.rows, "dumped");

    let recipient = mover.identity.to_public();
    let sealed = keys::encrypt(&recipient, b"{}\n").map_err(|_| Error::Key("it encrypts nothing"))?;
    let secrets = write_secrets(mover, sealed).await?;
    let facts = Manifest {
        backup: plan.backup.clone(),
        account: plan.account.clone(),
        account_uid: plan.account_uid.clone(),
        store: plan.store.name.clone(),
        store_identity: plan.store_identity.clone(),
        key_id: recipient.to_string(),
        source: snapshot.source,
        snapshot_at: snapshot.at,
        completed_at,
        dump: object(name, sha256, stored),
        secrets,
        contents: Some(contents::write(mover, &contents).await?),
        plain,
        fingerprint,
        extensions,
        settings: Vec::new(),
    };
    bucket.write_once(&mover.key(MANIFEST), manifest::seal(facts, &mover.signing)?).await?;
    Ok(())
}

/// Runs two works at once; the first failure ends both.
async fn both<A, B>(a: impl Future<Output = Result<A, Error>>, b: impl Future<Output = Result<B, Error>>) -> Result<(A, B), Error> {
    tokio::try_join!(a, b)
}

async fn sequences_now(login: &MoverLogin) -> Result<Vec<Position>, Error> {
    let mut session: PgConnection = postgres::connect(login).await?;
    fingerprint::sequences(&mut session).await
}

/// Whether the login leads to the very database that is to be backed up.
fn recognise(mover: &Mover, snapshot: &Snapshot) -> Result<(), Error> {
    let (plan, found) = (&mover.plan, &snapshot.source);
    if found.database_oid == plan.database_oid && found.system_identifier == plan.system_identifier {
        return Ok(());
    }
    Err(Error::OtherDatabase(format!(
        "expected oid {} on server {}, found oid {} on server {}",
        plan.database_oid, plan.system_identifier, found.database_oid, found.system_identifier
    )))
}

/// Streams the dump into the bucket. It becomes visible only when `pg_dump` said that it is whole.
async fn dump(
    mover: &Mover,
    login: &MoverLogin,
    tools: &std::path::Path,
    snapshot: &Snapshot,
    name: &str,
    progress: &Arc<Progress>,
) -> Result<(Stored, Plain, String), Error> {
    let option = format!("--snapshot={}", snapshot.name);
    let arguments = ["--format=custom", "--compress=0", "--no-password", "--lock-wait-timeout=60s", option.as_str()];
    let mut tool = postgres::start(tools, "pg_dump", &arguments, Some((login, &mover.run)), &Pipe::Out)?;
    let Some(output) = tool.child.stdout.take() else {
        tool.kill();
        return Err(Error::Stream(std::io::Error::other("pg_dump has no output")));
    };
    let key = mover.key(name);
    let mut upload = match mover.store.store.upload(&key).await {
        Ok(upload) => upload,
        Err(error) => {
            tool.kill();
            return Err(error.into());
        }
    };
    let (sender, mut chunks) = stream::channel();
    let (recipient, counted) = (mover.identity.to_public(), Arc::clone(progress));
    let sealing = tokio::task::spawn_blocking(move || stream::seal(output, &recipient, sender, &counted));
    let mut sum = stream::Summed::default();
    let mut sent = Ok(());
    while let Some(chunk) = chunks.recv().await {
        sum.add(&chunk);
        sent = upload.write(&chunk).await;
        if sent.is_err() {
            break;
        }
    }
    drop(chunks);
    let whole = match sent {
        Err(error) => {
            tool.kill();
            Err(Error::Store(error))
        }
        Ok(()) => {
            let sealed = sealing.await.map_err(|e| Error::Stream(std::io::Error::other(e)))?;
            // The end of a stream says nothing: only the tool's status says that it was the whole dump.
            match tokio::task::spawn_blocking(move || tool.wait()).await.map_err(|e| Error::Stream(std::io::Error::other(e)))? {
                Ok(()) => sealed,
                Err(error) => Err(error),
            }
        }
    };
    match whole {
        Ok(plain) => Ok((upload.complete().await?, plain, sum.finish().sha256)),
        Err(error) => {
            if let Err(left) = upload.abort().await {
                tracing::warn!(error = store::chain(&left), "failed to abort the upload; the next attempt will");
            }
            Err(error)
        }
    }
}

/// Writes the small object. One that lies there already was written by a dead attempt for the same key: it counts if
/// it opens.
async fn write_secrets(mover: &Mover, sealed: Vec<u8>) -> Result<Object, Error> {
    let (key, bucket) = (mover.key(SECRETS), &mover.store.store);
    let sha256 = manifest::sha256(&sealed);
    match bucket.write_once(&key, sealed).await {
        Ok(stored) => Ok(object(SECRETS.to_owned(), sha256, stored)),
        Err(store::Error::Altered { .. }) => {
            let there = bucket.read(&key, manifest::LARGEST_REPORT).await?;
            age::decrypt(&mover.identity, &there).map_err(|_| Error::Unequal(format!("{SECRETS} is not encrypted to its key")))?;
            let head = bucket.head(&key).await?.ok_or_else(|| store::Error::Missing(key.clone()))?;
            let stored = Stored { size: head.size, etag: head.etag, crc64nvme: head.crc64nvme };
            Ok(object(SECRETS.to_owned(), manifest::sha256(&there), stored))
        }
        Err(error) => Err(error.into()),
    }
}

fn object(name: String, sha256: String, stored: Stored) -> Object {
    Object { name, size: stored.size, sha256, etag: stored.etag, crc64nvme: stored.crc64nvme }
}

/// What [`prove`] and [`super::restore`] begin with: the manifest, believed.
pub(super) async fn believed(mover: &Mover) -> Result<(Manifest, String), Error> {
    let bytes = match mover.store.store.read(&mover.key(MANIFEST), manifest::LARGEST_REPORT).await {
        Ok(bytes) => bytes,
        Err(store::Error::Missing(_)) => return Err(Error::NoManifest),
        Err(error) => return Err(error.into()),
    };
    let facts: Manifest = manifest::open(&bytes, &mover.verifying)?;
    let plan = &mover.plan;
    if facts.account_uid != plan.account_uid || facts.backup != plan.backup || facts.store_identity != plan.store_identity {
        return Err(Error::Unequal(format!("its manifest speaks of {} of account {}", facts.backup, facts.account_uid)));
    }
    if facts.key_id != mover.identity.to_public().to_string() {
        return Err(Error::Key("the manifest names another one"));
    }
    Ok((facts, manifest::sha256(&bytes)))
}
