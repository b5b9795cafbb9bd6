//! The ledger on a real server.

use helpdesk_operator::{
    api::database_server::Brake,
    brake::Allowance,
    clock::{self, Moment},
    database::LoginSlot,
    ledger::{BackupEntry, Claim, DatabaseEntry, Entry, Error, LoginEntry, NamespaceEntry},
    lifecycle::{Reason, Record, Stage},
};

use super::test_server::{TestServer, new_uid};

/// A test that counts steps at a time in the future holds this lock, because each would count the other's.
static COUNTING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A superuser deletes the steps from this time on, also those of an earlier run that failed.
async fn superuser_deletes_steps(server: &TestServer, since: Moment) {
    let query = sqlx::query("DELETE FROM transitions WHERE decided_at >= $1").bind(since.as_second());
    query.execute(&mut server.superuser_logs_in_to("helpdesk_operator").await).await.unwrap();
}

fn new_entry() -> Entry {
    let uid = new_uid();
    let mut entry = Entry::new(&uid, "acme", Record::created(clock::now()));
    entry.account_id = Some(new_uid());
    entry.shard = Some(format!("shard-{}", &uid[..8]));
    entry
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_ledger_is_claimed_once() {
    // When an installation claims the ledger twice, then it is this installation's.
    let server = TestServer::connect().await;
    let first = server.ledger.claim("an-installation").await.unwrap();
    assert_eq!(first, Claim::Ours);
    assert_eq!(server.ledger.claim("an-installation").await.unwrap(), Claim::Ours);

    // When another installation claims it, then the ledger says whose it is.
    assert_eq!(server.ledger.claim("another").await.unwrap(), Claim::Foreign("an-installation".into()));
    assert_eq!(server.ledger.claimed_by().await.unwrap().as_deref(), Some("an-installation"));

    // When the operator writes a later and an earlier time, then the ledger keeps the latest.
    let now = clock::now();
    assert!(server.ledger.raise_high_water(now).await.unwrap() >= now);
    let earlier = Moment::from_second(1_000_000).unwrap();
    assert!(server.ledger.raise_high_water(earlier).await.unwrap() >= now);
    assert!(server.ledger.high_water().await.unwrap() >= Some(now));
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn what_is_written_reads_back_and_an_old_revision_writes_nothing() {
    // Given a new entry.
    let server = TestServer::connect().await;
    let fresh = new_entry();
    assert_eq!(server.ledger.load(&fresh.uid).await.unwrap(), None);
    let first = server.ledger.insert(&fresh).await.unwrap();
    assert_eq!((first.revision, &first.record), (1, &fresh.record));
    assert!(matches!(server.ledger.insert(&fresh).await, Err(Error::Exists { .. })));

    // When the operator writes every field of it.
    let mut next = first.clone();
    next.database = Some(DatabaseEntry { name: "t_1".into(), oid: Some(u32::MAX), system_identifier: "7".into() });
    next.namespace = Some(NamespaceEntry { name: "hd-1".into(), uid: None });
    next.login = Some(LoginEntry {
        slot: LoginSlot::B,
        password_set_at: clock::now(),
        rotation_token: Some("it's".into()),
        retiring: true,
        terms: Some("20;Fixed;".into()),
        password_lost: true,
        password_hash: Some("hash".into()),
    });
    next.access_epoch = 3;
    next.object_uid = new_uid();
    next.tombstone = Some(serde_json::json!({"a": ["quote \" and \\"]}));
    let second = server.ledger.update(&next, 1).await.unwrap();

    // Then it reads back equal, by every key, and is in the roll.
    assert_eq!(second, Entry { revision: 2, updated_at: second.updated_at, ..next.clone() });
    assert_eq!(server.ledger.load(&fresh.uid).await.unwrap(), Some(second.clone()));
    assert_eq!(server.ledger.load_by_object(&next.object_uid).await.unwrap(), Some(second.clone()));
    assert_eq!(server.ledger.load_by_account_id(fresh.account_id.as_deref().unwrap()).await.unwrap(), std::slice::from_ref(&second));
    assert_eq!(server.ledger.load_all(fresh.shard.as_deref()).await.unwrap(), std::slice::from_ref(&second));

    let roll = server.ledger.roll().await.unwrap();
    let line = roll.iter().find(|line| line.uid == fresh.uid).unwrap();
    assert_eq!((&line.object_uid, &line.account_id, line.has_data), (&next.object_uid, &fresh.account_id, true));

    // When the operator writes the first revision again, then it is refused, and the entry is unchanged.
    let stale = server.ledger.update(&next, 1).await;
    assert!(matches!(stale, Err(Error::Conflict { expected: 1, .. })), "{stale:?}");
    assert_eq!(server.ledger.load(&fresh.uid).await.unwrap(), Some(second));
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn the_history_of_an_account_is_every_stage_that_was_decided_and_the_newest_is_the_last() {
    // Given an entry that enters stages, and is written in between.
    let server = TestServer::connect().await;
    let mut entry = server.ledger.insert(&new_entry()).await.unwrap();
    let mut expected = vec![(Stage::Trial, Reason::Created)];
    for (stage, reason) in [(Stage::Blocked, Reason::TrialEnded), (Stage::Active, Reason::Paid), (Stage::Blocked, Reason::PaymentFailed)] {
        entry.record = helpdesk_operator::lifecycle::enter(&entry.record, stage, reason, clock::now());
        entry = server.ledger.update(&entry, entry.revision).await.unwrap();
        entry.access_epoch += 1;
        entry = server.ledger.update(&entry, entry.revision).await.unwrap();
        expected.push((stage, reason));
    }

    // Then all of them are told, or only the last ones.
    let told = async |most| -> Vec<(Stage, Reason)> {
        server.ledger.last_transitions(&entry.uid, most).await.unwrap().iter().map(|t| (t.stage, t.reason)).collect()
    };
    assert_eq!(told(16).await, expected);
    assert_eq!(told(2).await, expected[2..]);
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn of_many_who_write_the_same_revision_one_wins() {
    // Given an entry.
    let server = TestServer::connect().await;
    let first = server.ledger.insert(&new_entry()).await.unwrap();

    // When eight tasks update the same revision.
    let tries = (0..8).map(|epoch| {
        let (ledger, mut next) = (server.ledger.clone(), first.clone());
        next.access_epoch = epoch;
        tokio::spawn(async move { ledger.update(&next, 1).await.is_ok() })
    });
    let won = futures::future::join_all(tries).await.into_iter().filter(|won| *won.as_ref().unwrap()).count();

    // Then one of them succeeds.
    assert_eq!(won, 1);
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn the_brake_counts_decisions_to_destroy_and_nothing_else() {
    // Given an entry, and a time far ahead that no other test uses.
    let _alone = COUNTING.lock().await;
    let server = TestServer::connect().await;
    let then = clock::now() + helpdesk_operator::api::Window::days(36_500).duration();
    superuser_deletes_steps(&server, then).await;
    let mut entry = server.ledger.insert(&new_entry()).await.unwrap();
    let mut tenants = server.ledger.tenants().await.unwrap();
    assert!(tenants >= 1);

    // When the operator decides and enforces each stage, then only Deleted and Expired count, once each.
    for (stage, counted) in [(Stage::Blocked, 0), (Stage::Terminated, 0), (Stage::Deleted, 1), (Stage::Expired, 2)] {
        entry.record.stage = stage;
        entry.record.reason = Reason::WindowEnded;
        entry.record.decided_at = then;
        entry = server.ledger.update(&entry, entry.revision).await.unwrap();
        // That the stage is enforced is no further step.
        entry.record.enforced_at = Some(then);
        entry = server.ledger.update(&entry, entry.revision).await.unwrap();
        assert_eq!(server.ledger.destructive_steps_since(then).await.unwrap(), counted, "{stage:?}");
    }

    // Then the expired account counts as no tenant.
    tenants -= 1;
    assert!(server.ledger.tenants().await.unwrap() >= tenants);
    assert!(!server.ledger.uids().await.unwrap().contains(&entry.uid));
    superuser_deletes_steps(&server, then).await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn of_accounts_that_are_due_at_once_no_more_pass_than_the_brake_allows_whichever_operator_decides() {
    // Given two operators, 24 accounts that are due at once, and a brake that allows five steps. The time is one that
    // no other test uses.
    let _alone = COUNTING.lock().await;
    let servers = [TestServer::connect().await, TestServer::connect().await];
    let then = clock::now() + helpdesk_operator::api::Window::days(40_000).duration();
    superuser_deletes_steps(&servers[0], then).await;
    let allowance = Allowance::at(&Brake { percent: 0, at_least: 5, ..Brake::default() }, Some(then), then);
    let mut due = Vec::new();
    for _ in 0..24 {
        due.push(servers[0].ledger.insert(&new_entry()).await.unwrap());
    }

    // When both operators decide all of them concurrently.
    let tries = due.iter().enumerate().map(|(number, entry)| {
        let (ledger, mut next) = (servers[number % 2].ledger.clone(), entry.clone());
        next.record.stage = Stage::Deleted;
        next.record.decided_at = then;
        tokio::spawn(async move { ledger.update_within(&next, 1, &allowance).await.unwrap() })
    });
    let passed: Vec<_> = futures::future::join_all(tries).await.into_iter().filter_map(Result::unwrap).collect();

    // Then five pass, and the others are unchanged.
    assert_eq!(passed.len(), 5, "of 24 who were due at once");
    assert!(passed.iter().all(|entry| (entry.revision, entry.record.stage) == (2, Stage::Deleted)));
    let waiting: Vec<_> = due.iter().filter(|entry| passed.iter().all(|p| p.uid != entry.uid)).collect();
    for entry in &waiting {
        assert_eq!(servers[1].ledger.load(&entry.uid).await.unwrap().as_ref(), Some(*entry), "refused and written all the same");
    }

    // When an administrator releases the brake.
    let later = then + helpdesk_operator::api::Window::days(1).duration();
    let released = Allowance::at(&Brake { percent: 0, at_least: 5, ..Brake::default() }, Some(later), later);
    let next = Entry { record: Record { stage: Stage::Deleted, decided_at: then, ..waiting[0].record.clone() }, ..waiting[0].clone() };

    // Then another one passes, and an old revision is refused as a conflict, not by the brake.
    assert!(servers[0].ledger.update_within(&next, 1, &released).await.unwrap().is_some());
    assert!(matches!(servers[0].ledger.update_within(&next, 1, &released).await, Err(Error::Conflict { expected: 1, .. })));
    superuser_deletes_steps(&servers[0], then).await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn backups_are_remembered_with_their_deadlines() {
    // Given a backup.
    let server = TestServer::connect().await;
    let uid = new_uid();
    let mut backup = BackupEntry {
        name: format!("acme-{}", &uid[..8]),
        uid: uid.clone(),
        account: "acme".into(),
        store: "eu-cold".into(),
        key_escrow: Some("eu-escrow".into()),
        prefix: "eu-1/x/".into(),
        key_id: None,
        expires_at: clock::now(),
        phase: "Running".into(),
        manifest_sha256: None,
    };

    // When the operator writes it twice, with other facts the second time.
    server.ledger.put_backup(&backup).await.unwrap();
    backup.phase = "Verified".into();
    backup.key_id = Some("key".into());
    // An object whose status was lost names no escrow.
    server.ledger.put_backup(&BackupEntry { key_escrow: None, ..backup.clone() }).await.unwrap();

    // Then it reads back as written last, with the escrow that was recorded, and is alive.
    assert_eq!(server.ledger.backup(&backup.name).await.unwrap().as_ref(), Some(&backup));
    assert_eq!(server.ledger.backups_of(&uid).await.unwrap(), [backup.clone()]);
    assert!(server.ledger.live_backups().await.unwrap().contains(&backup));

    // When another backup comes under the same name, then it is refused.
    let stolen = BackupEntry { uid: new_uid(), ..backup.clone() };
    assert!(matches!(server.ledger.put_backup(&stolen).await, Err(Error::Exists { .. })));

    // When the backup is erased.
    backup.phase = "Erased".into();
    server.ledger.put_backup(&backup).await.unwrap();

    // Then it is no longer alive.
    assert!(!server.ledger.live_backups().await.unwrap().contains(&backup));
}
