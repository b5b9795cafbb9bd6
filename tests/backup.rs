//! Stores and movers against a real S3 server and a real PostgreSQL server.
//!
//! They need, in the environment:
//!
//! | variable | what |
//! |---|---|
//! | `HELPDESK_TEST_S3_ENDPOINT` | `https://…` of a versitygw with versions, whose credentials may make buckets |
//! | `HELPDESK_TEST_S3_ACCESS_KEY_ID`, `HELPDESK_TEST_S3_SECRET_ACCESS_KEY` | those credentials |
//! | `HELPDESK_TEST_S3_CA` | a file with the certificates of the endpoint |
//! | `HELPDESK_TEST_PG_HOST`, `HELPDESK_TEST_PG_PORT` | a PostgreSQL server with TLS and SCRAM |
//! | `HELPDESK_TEST_PG_USER`, `HELPDESK_TEST_PG_PASSWORD` | a superuser of it |
//! | `HELPDESK_TEST_PG_CA` | a file with the certificates of the server |
//! | `HELPDESK_TEST_POSTGRESQL` | the folder with PostgreSQL tools, one folder a major version |

#![allow(clippy::unwrap_used, reason = "a test")]

#[allow(dead_code, reason = "another test has more need of it")]
#[path = "backup/test_backup.rs"]
mod test_backup;

use std::time::{Duration, Instant};

use helpdesk_operator::{
    api::VerifyMode,
    backup::manifest::{self, MANIFEST, VERIFICATION, Verification},
    mover::{Error as MoverError, Task},
    store::{Error, Versioning},
};
use test_backup::{Database, TestBackup, create_bucket, raw_s3_client, store_in_use};

#[tokio::test]
#[ignore = "needs a store: make test"]
async fn a_stream_comes_back_as_it_went_and_is_written_once() {
    // Given a store, and 40 MiB of data.
    let store = store_in_use(&create_bucket("stream", true).await, "eu-1/").await;
    let bytes: Vec<u8> = (0..40_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();

    // When the mover uploads the data in parts.
    let mut upload = store.bucket.upload("uid/one/dump").await.unwrap();
    for chunk in bytes.chunks(1_000_003) {
        upload.write(chunk).await.unwrap();
    }
    let stored = upload.complete().await.unwrap();

    // Then size and checksum are right, and the download is equal.
    assert_eq!(stored.size, bytes.len() as u64);
    assert!(stored.crc64nvme.is_some(), "the store keeps the checksum of the whole object");
    let head = store.bucket.head("uid/one/dump").await.unwrap().unwrap();
    assert!(stored.version_id.is_some(), "the store says which version it is");
    assert_eq!(head.version_id, stored.version_id);
    assert_eq!((head.size, &head.etag, &head.crc64nvme), (stored.size, &stored.etag, &stored.crc64nvme));

    let mut download = store.bucket.get("uid/one/dump").await.unwrap();
    let mut back = Vec::new();
    while let Some(chunk) = download.next().await.unwrap() {
        back.extend_from_slice(&chunk);
    }
    assert!(back == bytes);

    // When a second upload or write under the same name has other contents, then it is refused.
    let mut second = store.bucket.upload("uid/one/dump").await.unwrap();
    second.write(b"other").await.unwrap();
    assert!(matches!(second.complete().await, Err(Error::Altered { .. })));

    // When the same contents are written again, then that succeeds. Other contents are refused.
    store.bucket.write_once("uid/one/small", b"a".to_vec()).await.unwrap();
    store.bucket.write_once("uid/one/small", b"a".to_vec()).await.unwrap();
    assert!(matches!(store.bucket.write_once("uid/one/small", b"b".to_vec()).await, Err(Error::Altered { .. })));
}

#[tokio::test]
#[ignore = "needs a store: make test"]
async fn an_aborted_upload_leaves_nothing() {
    // Given an upload that has begun.
    let store = store_in_use(&create_bucket("abort", true).await, "").await;
    let mut upload = store.bucket.upload("uid/one/dump").await.unwrap();
    upload.write(&vec![1; 20 << 20]).await.unwrap();

    // When the mover aborts it.
    upload.abort().await.unwrap();

    // Then neither an object nor an upload is left.
    assert!(store.bucket.contents("uid/one/").await.unwrap().is_empty());
}

#[tokio::test]
#[ignore = "needs a store: make test"]
async fn an_erasure_takes_versions_markers_and_open_uploads_and_nothing_else() {
    // Given a folder with versions, a delete marker and an open upload, and neighbours with similar names.
    let name = create_bucket("erase", true).await;
    let store = store_in_use(&name, "eu-1/").await;
    assert_eq!(store.bucket.versioning().await.unwrap(), Versioning::Enabled);
    let s3 = raw_s3_client();
    for text in ["1", "2", "3"] {
        s3.put_object().bucket(&name).key("eu-1/uid/one/a").body(text.as_bytes().to_vec().into()).send().await.unwrap();
    }
    s3.delete_object().bucket(&name).key("eu-1/uid/one/a").send().await.unwrap();
    for number in 0..1100 {
        let key = format!("eu-1/uid/one/many/{number}");
        s3.put_object().bucket(&name).key(key).body(vec![0].into()).send().await.unwrap();
    }
    s3.create_multipart_upload().bucket(&name).key("eu-1/uid/one/b").send().await.unwrap();
    for neighbour in ["eu-1/uid/one.a", "eu-1/uid/onerous/a", "eu-1/uid/two/a", "uid/one/a"] {
        s3.put_object().bucket(&name).key(neighbour).body(vec![0].into()).send().await.unwrap();
    }

    // When the operator erases the folder.
    let erased = store.bucket.erase_prefix("uid/one/").await.unwrap();

    // Then everything in it is counted and gone, and a second erasure finds nothing.
    assert_eq!((erased.versions, erased.markers, erased.uploads), (1103, 1, 1));
    assert!(store.bucket.contents("uid/one/").await.unwrap().is_empty());
    assert_eq!(store.bucket.erase_prefix("uid/one/").await.unwrap().versions, 0, "a second erasure finds nothing");

    // Then the neighbours and the store's marker are still there, and nobody can erase the whole store.
    let left = s3.list_objects_v2().bucket(&name).send().await.unwrap();
    assert_eq!(left.contents().len(), 5, "neighbours and the marker stay");
    assert!(store.bucket.erase_prefix("").await.is_err(), "nobody erases the whole store");
}

#[tokio::test]
#[ignore = "needs a store: make test"]
async fn a_locked_object_says_until_when() {
    use aws_sdk_s3::types::{ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode};

    // Given an object under Object Lock for an hour.
    let name = test_backup::create_locking_bucket("locked").await;
    let store = store_in_use(&name, "").await;
    let s3 = raw_s3_client();
    let until = aws_sdk_s3::primitives::DateTime::from_secs(helpdesk_operator::clock::now().as_second() + 3600);
    let put = s3.put_object().bucket(&name).key("uid/one/a").body(vec![0].into());
    put.object_lock_mode(ObjectLockMode::Governance).object_lock_retain_until_date(until).send().await.unwrap();

    // When the operator erases it, then the error says until when it is locked.
    match store.bucket.erase_prefix("uid/one/").await {
        Err(Error::Locked { key, until: Some(at) }) => assert_eq!((key.as_str(), at.as_second()), ("uid/one/a", until.secs())),
        other => panic!("{other:?}"),
    }

    // When the lock is shortened and has expired, then the object can be erased.
    let version = s3.head_object().bucket(&name).key("uid/one/a").send().await.unwrap().version_id.unwrap();
    let soon = aws_sdk_s3::primitives::DateTime::from_secs(helpdesk_operator::clock::now().as_second() + 2);
    let shorter = ObjectLockRetention::builder().mode(ObjectLockRetentionMode::Governance).retain_until_date(soon).build();
    let call = s3.put_object_retention().bucket(&name).key("uid/one/a").version_id(version).retention(shorter);
    if call.bypass_governance_retention(true).send().await.is_ok() {
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(store.bucket.erase_prefix("uid/one/").await.unwrap().versions, 1);
    }
}

#[tokio::test]
#[ignore = "needs a store: make test"]
async fn every_wrong_place_is_told_apart() {
    // Given a store with its marker.
    let name = create_bucket("place", false).await;
    let mut store = store_in_use(&name, "").await;

    // When the operator checks the store's identity, then it is right.
    assert!(store.check_identity().await.is_ok());

    // When the marker is another one, or the bucket, the credentials or the server are wrong, then each has an error of
    // its own.
    store.identity = Some("another".into());
    assert!(matches!(store.check_identity().await, Err(Error::ForeignBucket(_))));
    store.identity = None;
    assert!(matches!(store.check_identity().await, Err(Error::Unclaimed)));
    let empty = test_backup::connect_store(&create_bucket("empty", false).await, "", Some("lost"), None);
    assert!(matches!(empty.check_identity().await, Err(Error::ForeignBucket(_))), "an empty bucket where a marker used to be");
    let none = test_backup::connect_store("no-such-bucket", "", Some("x"), None);
    assert!(matches!(none.check_identity().await, Err(Error::NoSuchBucket(_))));
    let stranger = test_backup::connect_store(&name, "", Some("x"), Some(("root", "wrong")));
    assert!(matches!(stranger.check_identity().await, Err(Error::AccessDenied { .. })));
    let gone = test_backup::connect_store_at("https://127.0.0.1:1", &name);
    assert!(matches!(gone.check_identity().await, Err(Error::Unreachable { .. })));

    // Then the clock of the store was read too.
    assert!(store.bucket.clock().is_some_and(|seen| seen.ours.duration_since(seen.theirs).abs().as_secs() < 5));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a store and PostgreSQL: make test"]
async fn a_backup_is_taken_and_proven_by_a_restore_and_restored_again() {
    // Given a database with objects of every kind.
    let database = Database::with_a_bit_of_everything("everything").await;
    let backup = TestBackup::new("everything", &database, VerifyMode::Restore).await;

    // When a mover takes a backup.
    backup.mover_runs(Task::Backup).await.unwrap();

    // Then the manifest counts the rows, and the proof is about that manifest and finds no difference.
    let manifest = backup.manifest().await;
    assert!(manifest.fingerprint.rows >= 5000);
    assert!(manifest.fingerprint.sequence_state.is_some());
    let proof: Verification =
        manifest::verify(&backup.store.bucket.read(&backup.key(VERIFICATION), 65_536).await.unwrap(), &backup.keys.verifying).unwrap();
    assert_eq!(proof.fingerprint.as_ref().and_then(|f| manifest.fingerprint.differs(f)), None);
    assert_eq!(
        proof.manifest_sha256,
        helpdesk_operator::digest::sha256(&backup.store.bucket.read(&backup.key(MANIFEST), 65_536).await.unwrap())
    );

    // When a mover runs for the same backup again.
    let again = Instant::now();
    backup.mover_runs(Task::Backup).await.unwrap();

    // Then it does nothing, because the backup is proven.
    assert!(again.elapsed() < Duration::from_secs(5), "what is proven is not done again");

    // When a mover restores the backup into an empty database.
    let target = Database::empty("everything_target").await;
    backup.mover_restores_into(&target).await.unwrap();

    // Then the rows and the sequence are as they were.
    assert_eq!(target.number("SELECT count(*) FROM app.customers").await, 5000);
    assert_eq!(target.number("SELECT nextval('app.tickets_id_seq')").await, 4321 + 1);

    // When a mover restores into a database with data, then it is refused.
    let full = Database::with_a_bit_of_everything("everything_full").await;
    assert!(matches!(backup.mover_restores_since(&full, 1).await, Err(MoverError::OtherDatabase(_))), "nothing is restored over data");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a store and PostgreSQL: make test"]
async fn a_live_database_is_backed_up_while_it_is_written_to() {
    // Given a tenant who writes all the time.
    let database = Database::with_a_bit_of_everything("live").await;
    let backup = TestBackup::new("live", &database, VerifyMode::Restore).await;
    let writer = database.tenant_keeps_writing();

    // When a mover takes and proves a backup, then it succeeds.
    backup.mover_runs(Task::Backup).await.unwrap();
    writer.abort();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a store and PostgreSQL: make test"]
async fn another_database_behind_the_login_is_not_backed_up() {
    // Given a backup whose plan names another database than the login leads to.
    let database = Database::empty("other").await;
    let mut backup = TestBackup::new("other", &database, VerifyMode::Read).await;
    backup.plan.database_oid += 1;

    // When a mover runs, then it refuses, and no manifest is written.
    assert!(matches!(backup.mover_runs(Task::Backup).await, Err(MoverError::OtherDatabase(_))));
    assert!(backup.store.bucket.head(&backup.key(MANIFEST)).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a store and PostgreSQL: make test"]
async fn a_damaged_object_is_never_proven() {
    // Given a proven backup.
    let database = Database::with_a_bit_of_everything("damaged").await;
    let backup = TestBackup::new("damaged", &database, VerifyMode::Read).await;
    backup.mover_runs(Task::Backup).await.unwrap();
    let dump = backup.manifest().await.dump.name;
    let good = backup.bytes(&dump).await;
    let manifest_bytes = backup.bytes(MANIFEST).await;

    // When an attacker truncates, changes or replaces the dump, also by one that is encrypted to the right key.
    let mut truncated = good.clone();
    truncated.truncate(good.len() - 10);
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    let recipient: age::x25519::Recipient = backup.keys.recipient.parse().unwrap();
    let altered = age::encrypt(&recipient, b"not the dump").unwrap();
    for (what, bytes) in [("truncated", truncated), ("flipped", flipped), ("altered", altered)] {
        backup.attacker_replaces(&dump, bytes).await;
        backup.attacker_removes(VERIFICATION).await;

        // Then the backup is not proven again.
        let answer = backup.mover_runs(Task::Verify).await;
        assert!(matches!(answer, Err(MoverError::Unequal(_))), "{what}: {answer:?}");
        assert!(backup.store.bucket.head(&backup.key(VERIFICATION)).await.unwrap().is_none(), "{what} was called proven");
    }

    // When the dump is deleted, then the backup is not proven again.
    backup.attacker_removes(&dump).await;
    assert!(matches!(backup.mover_runs(Task::Verify).await, Err(MoverError::Store(Error::Missing(_)))), "deleted by hand");
    backup.attacker_replaces(&dump, good).await;

    // When an attacker forges the manifest, then the backup is not proven again.
    let forged = String::from_utf8(manifest_bytes.clone()).unwrap().replacen("\"size\": ", "\"size\": 1", 1);
    backup.attacker_replaces(MANIFEST, forged.into_bytes()).await;
    assert!(matches!(backup.mover_runs(Task::Verify).await, Err(MoverError::Report(_))), "a forged manifest");

    // When the dump and the manifest are the right ones again, then the backup is proven.
    backup.attacker_replaces(MANIFEST, manifest_bytes).await;
    backup.mover_runs(Task::Verify).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a store and PostgreSQL: make test"]
async fn a_mover_killed_in_mid_upload_leaves_no_object_and_a_retry_completes() {
    // Given a mover that uploads a dump.
    let database = Database::of_bytes("killed", 200 << 20).await;
    let backup = TestBackup::new("killed", &database, VerifyMode::Read).await;
    let mut killed = backup.mover_starts(Task::Backup);
    let deadline = Instant::now() + Duration::from_secs(60);
    while backup.store.bucket.contents(&backup.plan.folder).await.unwrap().uploads == 0 {
        assert!(Instant::now() < deadline, "no upload began");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;

    // When the mover is killed.
    killed.kill().unwrap();
    killed.wait().unwrap();

    // Then there is an open upload, and no object.
    let left = backup.store.bucket.contents(&backup.plan.folder).await.unwrap();
    assert_eq!((left.objects, left.uploads), (0, 1), "an unfinished dump is no object");

    // When another mover runs.
    backup.mover_runs(Task::Backup).await.unwrap();

    // Then the backup is complete, and no upload is open.
    let after = backup.store.bucket.contents(&backup.plan.folder).await.unwrap();
    assert_eq!((after.objects, after.uploads), (5, 0));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a store and PostgreSQL: make test"]
async fn a_dump_that_fails_leaves_no_object() {
    // Given a mover that uploads a dump.
    let database = Database::of_bytes("failing", 60 << 20).await;
    let backup = TestBackup::new("failing", &database, VerifyMode::Read).await;
    let run = backup.mover_runs(Task::Backup);

    // When a superuser ends the session of pg_dump.
    let cut = async {
        while backup.store.bucket.contents(&backup.plan.folder).await.unwrap().uploads == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        database.superuser_ends_sessions_of("pg_dump").await
    };
    let (answer, ended) = tokio::join!(run, cut);

    // Then the mover fails, and neither an object nor an upload is left.
    if ended > 0 {
        assert!(matches!(answer, Err(MoverError::Tool { .. })), "{answer:?}");
        let left = backup.store.bucket.contents(&backup.plan.folder).await.unwrap();
        assert_eq!((left.objects, left.uploads), (0, 0));
    }
}

/// Memory stays flat and the pipeline is not slower than the tools alone. Prints what it measured.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a store and PostgreSQL: make bench"]
async fn a_dump_of_a_gibibyte_takes_flat_memory() {
    // Given a database of a gibibyte, and the time that the tools alone take for it.
    let bytes = 1 << 30;
    let database = Database::of_bytes("large", bytes).await;
    let tools = database.pipe_seconds();
    let backup = TestBackup::new("large", &database, VerifyMode::Read).await;

    // When a mover takes a backup.
    let begun = Instant::now();
    let mut mover = backup.mover_starts(Task::Backup);
    let (mut peak, mut processor) = (0, 0.0);
    while mover.try_wait().unwrap().is_none() {
        peak = peak.max(test_backup::peak_kib(mover.id()));
        processor = test_backup::processor_seconds(mover.id()).unwrap_or(processor);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    assert!(mover.wait().unwrap().success());

    // Then it says how long that took, and never needed more than 128 MiB.
    let manifest = backup.manifest().await;
    let dumped = manifest.completed_at.duration_since(manifest.snapshot_at).as_secs_f64();
    println!(
        "plain {} MiB, stored {} MiB; pg_dump | zstd > /dev/null {tools:.1} s; dump with upload and fingerprint about {dumped:.0} s, with proof {seconds:.1} s; processor {processor:.1} s; peak {} MiB",
        manifest.plain.size >> 20,
        manifest.dump.size >> 20,
        peak >> 10
    );
    assert!(peak < 128 << 10, "{peak} KiB");
}
