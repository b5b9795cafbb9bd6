//! The task `backup`: dump, upload, sign the manifest, verify.

use std::sync::Arc;

use sqlx::PgConnection;

use super::{
    Error, apart, carried,
    config::Mover,
    contents,
    fingerprint::{self, Origin, Position},
    locks,
    postgres::{self, Pipe, Snapshot},
    progress::Progress,
    transfer::{Encrypted, object, upload},
    verify,
};
use crate::digest;
use crate::{
    backup::{
        keys,
        manifest::{self, DUMP, MANIFEST, Manifest, Object, SECRETS},
    },
    clock,
    database::MoverLogin,
    store::{self, Stored},
};

/// Takes the backup unless the bucket has its manifest, and verifies it. Returns the bytes of the verification.
pub(super) async fn run(mover: &Mover) -> Result<Vec<u8>, Error> {
    mover.store.check_identity().await?;
    if mover.store.bucket.head(&mover.key(MANIFEST)).await?.is_some() {
        tracing::info!("a manifest is there already: going on with its proof");
    } else {
        take(mover).await?;
    }
    Box::pin(verify::run(mover)).await
}

async fn take(mover: &Mover) -> Result<(), Error> {
    let (plan, bucket) = (&mover.plan, &mover.store.bucket);
    let login = mover.source.as_ref().ok_or(Error::Plan { file: super::config::SOURCE, why: "it is missing".into() })?;
    let aborted = bucket.abort_uploads(&plan.folder).await?;
    if aborted > 0 {
        tracing::info!(aborted, "aborted the uploads of dead attempts");
    }
    let mut watcher = postgres::connect(login).await?;
    let mut apart = locks::past(&mut watcher, Box::pin(async { apart::find(&mut postgres::connect(login).await?).await })).await?;
    loop {
        let Err(error) = locks::past(&mut watcher, Box::pin(take_once(mover, login, &apart))).await else { return Ok(()) };
        let blamed = match &error {
            Error::Tool { said, .. } => apart::blamed(&mut watcher, said).await?,
            _ => None,
        };
        let Some(table) = blamed.filter(|table| !apart.contains(table)) else { return Err(error) };
        tracing::warn!(table, "pg_dump cannot write a row of a table: it is dumped apart, in binary");
        apart.push(table);
    }
}

/// Takes the backup, with the rows of the tables `apart` apart from the dump.
async fn take_once(mover: &Mover, login: &MoverLogin, apart: &[String]) -> Result<(), Error> {
    let plan = &mover.plan;
    let mut session = postgres::connect(login).await?;
    let snapshot = postgres::snapshot(&mut session).await?;
    recognise(mover, &snapshot)?;
    let tools = postgres::tools(&mover.postgresql, snapshot.major)?;

    let name = mover.free_name(DUMP).await?;
    let begun = std::time::Instant::now();
    let progress = Arc::new(Progress::default());
    let before = sequences_now(login).await?;
    let dump = progress.during("dump", dump(mover, login, &tools, &snapshot, (&name, apart), &progress));
    let read = fingerprint::take(&mut session, Origin::Snapshot(login, &snapshot.name));
    let (Encrypted { stored, plain, sha256 }, mut contents) = both(dump, read).await?;
    let mut rows = Vec::new();
    for table in apart {
        rows.push(apart::dump(mover, &mut session, table, &progress).await?);
    }
    contents.sequences = sequences_now(login).await?;
    let mut fingerprint = contents.fingerprint();
    if before != contents.sequences {
        // A snapshot does not cover sequences, so the dump may have the old or the new state.
        fingerprint.sequence_state = None;
    }
    let (extensions, settings) = (carried::extensions(&mut session).await?, carried::settings(&mut session).await?);
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
        apart: rows,
        fingerprint,
        extensions,
        settings,
    };
    mover.store.bucket.write_once(&mover.key(MANIFEST), manifest::sign(facts, &mover.signing)?).await?;
    Ok(())
}

/// Runs two futures at once; the first error cancels the other one.
async fn both<A, B>(a: impl Future<Output = Result<A, Error>>, b: impl Future<Output = Result<B, Error>>) -> Result<(A, B), Error> {
    tokio::try_join!(a, b)
}

async fn sequences_now(login: &MoverLogin) -> Result<Vec<Position>, Error> {
    let mut session: PgConnection = postgres::connect(login).await?;
    fingerprint::sequences(&mut session).await
}

/// Checks that the login leads to the expected database, by oid and system identifier.
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

/// Streams the dump into the bucket. The object becomes visible only if `pg_dump` succeeded.
async fn dump(
    mover: &Mover,
    login: &MoverLogin,
    tools: &std::path::Path,
    snapshot: &Snapshot,
    (name, apart): (&str, &[String]),
    progress: &Arc<Progress>,
) -> Result<Encrypted, Error> {
    let option = format!("--snapshot={}", snapshot.name);
    let excluded: Vec<_> = apart.iter().map(|table| apart::exclude(table)).collect();
    let mut arguments = vec!["--format=custom", "--compress=0", "--no-password", "--lock-wait-timeout=60s", option.as_str()];
    arguments.extend(excluded.iter().map(String::as_str));
    let mut tool = postgres::start(tools, "pg_dump", &arguments, Some((login, &mover.run)), &Pipe::Out)?;
    let Some(output) = tool.child.stdout.take() else {
        tool.kill();
        return Err(Error::Stream(std::io::Error::other("pg_dump has no output")));
    };
    // The end of the output does not prove that the dump is complete; only the exit status does. If the upload fails,
    // nobody reads the output any more, and `pg_dump` ends by itself.
    let ended = async { tokio::task::spawn_blocking(move || tool.wait()).await.map_err(|e| Error::Stream(std::io::Error::other(e)))? };
    upload(mover, name, output, progress, ended).await
}

/// Writes the secrets object. An earlier attempt may have written one for the same key: that one is used if the key
/// decrypts it.
async fn write_secrets(mover: &Mover, sealed: Vec<u8>) -> Result<Object, Error> {
    let (key, bucket) = (mover.key(SECRETS), &mover.store.bucket);
    let sha256 = digest::sha256(&sealed);
    match bucket.write_once(&key, sealed).await {
        Ok(stored) => Ok(object(SECRETS.to_owned(), sha256, stored)),
        Err(store::Error::Altered { .. }) => {
            let existing = bucket.read(&key, manifest::LARGEST_REPORT).await?;
            age::decrypt(&mover.identity, &existing).map_err(|_| Error::Unequal(format!("{SECRETS} is not encrypted to its key")))?;
            let head = bucket.head(&key).await?.ok_or_else(|| store::Error::Missing(key.clone()))?;
            let stored = Stored::from(head);
            Ok(object(SECRETS.to_owned(), digest::sha256(&existing), stored))
        }
        Err(error) => Err(error.into()),
    }
}
