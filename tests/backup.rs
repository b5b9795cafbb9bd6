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
#[path = "backup/rig.rs"]
mod rig;

use std::time::{Duration, Instant};

use helpdesk_operator::{
    api::VerifyMode,
    backup::manifest::{self, MANIFEST, VERIFICATION, Verification},
    mover::{Error as MoverError, Task},
    store::{Error, Versioning},
};
use rig::{Database, Desk, bucket, connected, raw};

#[tokio::test]
#[ignore = "needs a store: make test"]
async fn a_stream_comes_back_as_it_went_and_is_written_once() {
    let store = connected(&bucket("stream", true).await, "eu-1/").await;
    let bytes: Vec<u8> = (0..40_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut upload = store.bucket.upload("uid/one/dump").await.unwrap();
    for chunk in bytes.chunks(1_000_003) {
        upload.write(chunk).await.unwrap();
    }
    let stored = upload.complete().await.unwrap();
    assert_eq!(stored.size, bytes.len() as u64);
    assert!(stored.crc64nvme.is_some(), "the store keeps the checksum of the whole object");
    let head = store.bucket.head("uid/one/dump").await.unwrap().unwrap();
    assert_eq!((head.size, &head.etag, &head.crc64nvme), (stored.size, &stored.etag, &stored.crc64nvme));

    let mut download = store.bucket.get("uid/one/dump").await.unwrap();
    let mut back = Vec::new();
    while let Some(chunk) = download.next().await.unwrap() {
        back.extend_from_slice(&chunk);
    }
    assert!(back == bytes);

    let mut second = store.bucket.upload("uid/one/dump").await.unwrap();
    second.write(b"other").await.unwrap();
    assert!(matches!(second.complete().await, Err(Error::Altered { .. })));

    store.bucket.write_once("uid/one/small", b"a".to_vec()).await.unwrap();
    store.bucket.write_once("uid/one/small", b"a".to_vec()).await.unwrap();
    assert!(matches!(store.bucket.write_once("uid/one/small", b"b".to_vec()).await, Err(Error::Altered { .. })));
}

#[tokio::test]
#[ignore = "needs a store: make test"]
async fn an_aborted_upload_leaves_nothing() {
    let store = connected(&bucket("abort", true).await, "").await;
    let mut upload = store.bucket.upload("uid/one/dump").await.unwrap();
    upload.write(&vec![1; 20 << 20]).await.unwrap();
    upload.abort().await.unwrap();
    assert!(store.bucket.contents("uid/one/").await.unwrap().is_empty());
}

#[tokio::test]
#[ignore = "needs a store: make test"]
async fn an_erasure_takes_versions_markers_and_open_uploads_and_nothing_else() {
    let name = bucket("erase", true).await;
    let store = connected(&name, "eu-1/").await;
    assert_eq!(store.bucket.versioning().await.unwrap(), Versioning::Enabled);
    let s3 = raw();
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
    let erased = store.bucket.erase_prefix("uid/one/").await.unwrap();
    assert_eq!((erased.versions, erased.markers, erased.uploads), (1103, 1, 1));
    assert!(store.bucket.contents("uid/one/").await.unwrap().is_empty());
    assert_eq!(store.bucket.erase_prefix("uid/one/").await.unwrap().versions, 0, "a second erasure finds nothing");
    let left = s3.list_objects_v2().bucket(&name).send().await.unwrap();
    assert_eq!(left.contents().len(), 5, "neighbours and the marker stay");
    assert!(store.bucket.erase_prefix("").await.is_err(), "nobody erases the whole store");
}

#[tokio::test]
#[ignore = "needs a store: make test"]
async fn a_locked_object_says_until_when() {
    use aws_sdk_s3::types::{ObjectLockMode, ObjectLockRetention, ObjectLockRetentionMode};
    let name = rig::locked_bucket("locked").await;
    let store = connected(&name, "").await;
    let s3 = raw();
    let until = aws_sdk_s3::primitives::DateTime::from_secs(helpdesk_operator::clock::now().as_second() + 3600);
    let put = s3.put_object().bucket(&name).key("uid/one/a").body(vec![0].into());
    put.object_lock_mode(ObjectLockMode::Governance).object_lock_retain_until_date(until).send().await.unwrap();
    match store.bucket.erase_prefix("uid/one/").await {
        Err(Error::Locked { key, until: Some(at) }) => assert_eq!((key.as_str(), at.as_second()), ("uid/one/a", until.secs())),
        other => panic!("{other:?}"),
    }
    // Let the bucket be removed.
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
    let name = bucket("place", false).await;
    let mut store = connected(&name, "").await;
    assert!(store.check_identity().await.is_ok());
    store.identity = Some("another".into());
    assert!(matches!(store.check_identity().await, Err(Error::ForeignBucket(_))));
    store.identity = None;
    assert!(matches!(store.check_identity().await, Err(Error::Unclaimed)));
    let empty = rig::connect(&bucket("empty", false).await, "", Some("lost"), None);
    assert!(matches!(empty.check_identity().await, Err(Error::ForeignBucket(_))), "an empty bucket where a marker used to be");
    let none = rig::connect("no-such-bucket", "", Some("x"), None);
    assert!(matches!(none.check_identity().await, Err(Error::NoSuchBucket(_))));
    let stranger = rig::connect(&name, "", Some("x"), Some(("root", "wrong")));
    assert!(matches!(stranger.check_identity().await, Err(Error::AccessDenied { .. })));
    let gone = rig::connect_at("https://127.0.0.1:1", &name);
    assert!(matches!(gone.check_identity().await, Err(Error::Unreachable { .. })));
    assert!(store.bucket.clock().is_some_and(|seen| seen.ours.duration_since(seen.theirs).abs().as_secs() < 5));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a store and PostgreSQL: make test"]
async fn a_backup_is_taken_and_proven_by_a_restore_and_restored_again() {
    let database = Database::with_a_bit_of_everything("everything").await;
    let desk = Desk::new("everything", &database, VerifyMode::Restore).await;
    desk.run(Task::Backup).await.unwrap();
    let manifest = desk.manifest().await;
    assert!(manifest.fingerprint.rows >= 5000);
    assert!(manifest.fingerprint.sequence_state.is_some());
    let proof: Verification =
        manifest::verify(&desk.store.bucket.read(&desk.key(VERIFICATION), 65_536).await.unwrap(), &desk.keys.verifying).unwrap();
    assert_eq!(proof.fingerprint.as_ref().and_then(|f| manifest.fingerprint.differs(f)), None);
    assert_eq!(
        proof.manifest_sha256,
        helpdesk_operator::digest::sha256(&desk.store.bucket.read(&desk.key(MANIFEST), 65_536).await.unwrap())
    );

    let again = Instant::now();
    desk.run(Task::Backup).await.unwrap();
    assert!(again.elapsed() < Duration::from_secs(5), "what is proven is not done again");

    let target = Database::empty("everything_target").await;
    desk.restore_into(&target).await.unwrap();
    assert_eq!(target.number("SELECT count(*) FROM app.customers").await, 5000);
    assert_eq!(target.number("SELECT nextval('app.tickets_id_seq')").await, 4321 + 1);

    let full = Database::with_a_bit_of_everything("everything_full").await;
    assert!(matches!(desk.restore_since(&full, 1).await, Err(MoverError::OtherDatabase(_))), "nothing is restored over data");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a store and PostgreSQL: make test"]
async fn a_live_database_is_backed_up_while_it_is_written_to() {
    let database = Database::with_a_bit_of_everything("live").await;
    let desk = Desk::new("live", &database, VerifyMode::Restore).await;
    let writer = database.keep_writing();
    desk.run(Task::Backup).await.unwrap();
    writer.abort();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a store and PostgreSQL: make test"]
async fn another_database_behind_the_login_is_not_backed_up() {
    let database = Database::empty("other").await;
    let mut desk = Desk::new("other", &database, VerifyMode::Read).await;
    desk.plan.database_oid += 1;
    assert!(matches!(desk.run(Task::Backup).await, Err(MoverError::OtherDatabase(_))));
    assert!(desk.store.bucket.head(&desk.key(MANIFEST)).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a store and PostgreSQL: make test"]
async fn a_damaged_object_is_never_proven() {
    let database = Database::with_a_bit_of_everything("damaged").await;
    let desk = Desk::new("damaged", &database, VerifyMode::Read).await;
    desk.run(Task::Backup).await.unwrap();
    let dump = desk.manifest().await.dump.name;
    let good = desk.bytes(&dump).await;
    let manifest_bytes = desk.bytes(MANIFEST).await;

    let mut truncated = good.clone();
    truncated.truncate(good.len() - 10);
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    // As an attacker would: another dump, well encrypted to the right key.
    let recipient: age::x25519::Recipient = desk.keys.recipient.parse().unwrap();
    let altered = age::encrypt(&recipient, b"not the dump").unwrap();
    for (what, bytes) in [("truncated", truncated), ("flipped", flipped), ("altered", altered)] {
        desk.replace(&dump, bytes).await;
        desk.remove(VERIFICATION).await;
        let answer = desk.run(Task::Verify).await;
        assert!(matches!(answer, Err(MoverError::Unequal(_))), "{what}: {answer:?}");
        assert!(desk.store.bucket.head(&desk.key(VERIFICATION)).await.unwrap().is_none(), "{what} was called proven");
    }
    desk.remove(&dump).await;
    assert!(matches!(desk.run(Task::Verify).await, Err(MoverError::Store(Error::Missing(_)))), "deleted by hand");
    desk.replace(&dump, good).await;

    let forged = String::from_utf8(manifest_bytes.clone()).unwrap().replacen("\"size\": ", "\"size\": 1", 1);
    desk.replace(MANIFEST, forged.into_bytes()).await;
    assert!(matches!(desk.run(Task::Verify).await, Err(MoverError::Report(_))), "a forged manifest");
    desk.replace(MANIFEST, manifest_bytes).await;
    desk.run(Task::Verify).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a store and PostgreSQL: make test"]
async fn a_mover_killed_in_mid_upload_leaves_no_object_and_a_retry_completes() {
    let database = Database::of_bytes("killed", 200 << 20).await;
    let desk = Desk::new("killed", &database, VerifyMode::Read).await;
    let mut killed = desk.spawn(Task::Backup);
    let deadline = Instant::now() + Duration::from_secs(60);
    while desk.store.bucket.contents(&desk.plan.folder).await.unwrap().uploads == 0 {
        assert!(Instant::now() < deadline, "no upload began");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    killed.kill().unwrap();
    killed.wait().unwrap();
    let left = desk.store.bucket.contents(&desk.plan.folder).await.unwrap();
    assert_eq!((left.objects, left.uploads), (0, 1), "an unfinished dump is no object");
    desk.run(Task::Backup).await.unwrap();
    let after = desk.store.bucket.contents(&desk.plan.folder).await.unwrap();
    assert_eq!((after.objects, after.uploads), (5, 0));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a store and PostgreSQL: make test"]
async fn a_dump_that_fails_leaves_no_object() {
    let database = Database::of_bytes("failing", 60 << 20).await;
    let desk = Desk::new("failing", &database, VerifyMode::Read).await;
    let backup = desk.run(Task::Backup);
    let cut = async {
        while desk.store.bucket.contents(&desk.plan.folder).await.unwrap().uploads == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        database.end_sessions_of("pg_dump").await
    };
    let (answer, ended) = tokio::join!(backup, cut);
    if ended > 0 {
        assert!(matches!(answer, Err(MoverError::Tool { .. })), "{answer:?}");
        let left = desk.store.bucket.contents(&desk.plan.folder).await.unwrap();
        assert_eq!((left.objects, left.uploads), (0, 0));
    }
}

/// Memory stays flat and the pipeline is not slower than the tools alone. Prints what it measured.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a store and PostgreSQL: make bench"]
async fn a_dump_of_a_gibibyte_takes_flat_memory() {
    let bytes = 1 << 30;
    let database = Database::of_bytes("large", bytes).await;
    let tools = database.pipe_seconds();
    let desk = Desk::new("large", &database, VerifyMode::Read).await;
    let begun = Instant::now();
    let mut mover = desk.spawn(Task::Backup);
    let (mut peak, mut processor) = (0, 0.0);
    while mover.try_wait().unwrap().is_none() {
        peak = peak.max(rig::peak_kib(mover.id()));
        processor = rig::processor_seconds(mover.id()).unwrap_or(processor);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    assert!(mover.wait().unwrap().success());
    let manifest = desk.manifest().await;
    let dumped = manifest.completed_at.duration_since(manifest.snapshot_at).as_secs_f64();
    println!(
        "plain {} MiB, stored {} MiB; pg_dump | zstd > /dev/null {tools:.1} s; dump with upload and fingerprint about {dumped:.0} s, with proof {seconds:.1} s; processor {processor:.1} s; peak {} MiB",
        manifest.plain.size >> 20,
        manifest.dump.size >> 20,
        peak >> 10
    );
    assert!(peak < 128 << 10, "{peak} KiB");
}
