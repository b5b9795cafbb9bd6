//! The ledger on a real server.

use helpdesk_operator::{
    api::database_server::Brake,
    brake::Allowance,
    clock::{self, Moment},
    database::LoginSlot,
    ledger::{BackupEntry, Claim, DatabaseEntry, Entry, Error, LoginEntry, NamespaceEntry},
    lifecycle::{Reason, Record, Stage},
};

use super::desk::{Desk, fresh_uid};

/// Held by tests that count steps of a time to come: each would count the other's.
static COUNTING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Forgets the steps of a time to come, also of a run that failed.
async fn forget_steps(desk: &Desk, since: Moment) {
    let query = sqlx::query("DELETE FROM transitions WHERE decided_at >= $1").bind(since.as_second());
    query.execute(&mut desk.superuser_in("helpdesk_operator").await).await.unwrap();
}

fn entry() -> Entry {
    let uid = fresh_uid();
    let mut entry = Entry::new(&uid, "acme", Record::created(clock::now()));
    entry.account_id = Some(fresh_uid());
    entry.shard = Some(format!("shard-{}", &uid[..8]));
    entry
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_ledger_is_claimed_once() {
    let desk = Desk::open().await;
    let first = desk.ledger.claim("an-installation").await.unwrap();
    assert_eq!(first, Claim::Ours);
    assert_eq!(desk.ledger.claim("an-installation").await.unwrap(), Claim::Ours);
    assert_eq!(desk.ledger.claim("another").await.unwrap(), Claim::Foreign("an-installation".into()));
    assert_eq!(desk.ledger.claimed_by().await.unwrap().as_deref(), Some("an-installation"));

    let now = clock::now();
    assert!(desk.ledger.raise_high_water(now).await.unwrap() >= now);
    let earlier = Moment::from_second(1_000_000).unwrap();
    assert!(desk.ledger.raise_high_water(earlier).await.unwrap() >= now);
    assert!(desk.ledger.high_water().await.unwrap() >= Some(now));
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn what_is_written_reads_back_and_an_old_revision_writes_nothing() {
    let desk = Desk::open().await;
    let fresh = entry();
    assert_eq!(desk.ledger.load(&fresh.uid).await.unwrap(), None);
    let first = desk.ledger.insert(&fresh).await.unwrap();
    assert_eq!((first.revision, &first.record), (1, &fresh.record));
    assert!(matches!(desk.ledger.insert(&fresh).await, Err(Error::Exists { .. })));

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
    });
    next.access_epoch = 3;
    next.object_uid = fresh_uid();
    next.tombstone = Some(serde_json::json!({"a": ["quote \" and \\"]}));
    let second = desk.ledger.update(&next, 1).await.unwrap();
    assert_eq!(second, Entry { revision: 2, updated_at: second.updated_at, ..next.clone() });
    assert_eq!(desk.ledger.load(&fresh.uid).await.unwrap(), Some(second.clone()));
    assert_eq!(desk.ledger.load_by_object(&next.object_uid).await.unwrap(), Some(second.clone()));
    assert_eq!(desk.ledger.load_by_account_id(fresh.account_id.as_deref().unwrap()).await.unwrap(), std::slice::from_ref(&second));
    assert_eq!(desk.ledger.load_all(fresh.shard.as_deref()).await.unwrap(), std::slice::from_ref(&second));

    let roll = desk.ledger.roll().await.unwrap();
    let line = roll.iter().find(|line| line.uid == fresh.uid).unwrap();
    assert_eq!((&line.object_uid, &line.account_id, line.has_data), (&next.object_uid, &fresh.account_id, true));

    let stale = desk.ledger.update(&next, 1).await;
    assert!(matches!(stale, Err(Error::Conflict { expected: 1, .. })), "{stale:?}");
    assert_eq!(desk.ledger.load(&fresh.uid).await.unwrap(), Some(second));
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn of_many_who_write_the_same_revision_one_wins() {
    let desk = Desk::open().await;
    let first = desk.ledger.insert(&entry()).await.unwrap();
    let tries = (0..8).map(|epoch| {
        let (ledger, mut next) = (desk.ledger.clone(), first.clone());
        next.access_epoch = epoch;
        tokio::spawn(async move { ledger.update(&next, 1).await.is_ok() })
    });
    let won = futures::future::join_all(tries).await.into_iter().filter(|won| *won.as_ref().unwrap()).count();
    assert_eq!(won, 1);
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn the_brake_counts_decisions_to_destroy_and_nothing_else() {
    let _alone = COUNTING.lock().await;
    let desk = Desk::open().await;
    // A time of its own, so that other tests do not count.
    let then = clock::now() + helpdesk_operator::api::Window::days(36_500).duration();
    forget_steps(&desk, then).await;
    let mut entry = desk.ledger.insert(&entry()).await.unwrap();
    let mut tenants = desk.ledger.tenants().await.unwrap();
    assert!(tenants >= 1);
    for (stage, counted) in [(Stage::Blocked, 0), (Stage::Terminated, 0), (Stage::Deleted, 1), (Stage::Expired, 2)] {
        entry.record.stage = stage;
        entry.record.reason = Reason::WindowEnded;
        entry.record.decided_at = then;
        entry = desk.ledger.update(&entry, entry.revision).await.unwrap();
        // Enforcing it is no further step.
        entry.record.enforced_at = Some(then);
        entry = desk.ledger.update(&entry, entry.revision).await.unwrap();
        assert_eq!(desk.ledger.destructive_steps_since(then).await.unwrap(), counted, "{stage:?}");
    }
    tenants -= 1;
    assert!(desk.ledger.tenants().await.unwrap() >= tenants);
    assert!(!desk.ledger.uids().await.unwrap().contains(&entry.uid));
    forget_steps(&desk, then).await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn of_accounts_that_are_due_at_once_no_more_pass_than_the_brake_allows_whichever_operator_decides() {
    let _alone = COUNTING.lock().await;
    // Two operators, each with connections of its own; a time of its own, so that other tests do not count.
    let desks = [Desk::open().await, Desk::open().await];
    let then = clock::now() + helpdesk_operator::api::Window::days(40_000).duration();
    forget_steps(&desks[0], then).await;
    let allowance = Allowance::at(&Brake { percent: 0, at_least: 5, ..Brake::default() }, Some(then), then);
    let mut due = Vec::new();
    for _ in 0..24 {
        due.push(desks[0].ledger.insert(&entry()).await.unwrap());
    }
    let tries = due.iter().enumerate().map(|(number, entry)| {
        let (ledger, mut next) = (desks[number % 2].ledger.clone(), entry.clone());
        next.record.stage = Stage::Deleted;
        next.record.decided_at = then;
        tokio::spawn(async move { ledger.update_within(&next, 1, &allowance).await.unwrap() })
    });
    let passed: Vec<_> = futures::future::join_all(tries).await.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(passed.len(), 5, "of 24 who were due at once");
    assert!(passed.iter().all(|entry| (entry.revision, entry.record.stage) == (2, Stage::Deleted)));
    let waiting: Vec<_> = due.iter().filter(|entry| passed.iter().all(|p| p.uid != entry.uid)).collect();
    for entry in &waiting {
        assert_eq!(desks[1].ledger.load(&entry.uid).await.unwrap().as_ref(), Some(*entry), "refused and written all the same");
    }
    // A release forgets them, and an old revision is told from a brake that holds.
    let later = then + helpdesk_operator::api::Window::days(1).duration();
    let released = Allowance::at(&Brake { percent: 0, at_least: 5, ..Brake::default() }, Some(later), later);
    let next = Entry { record: Record { stage: Stage::Deleted, decided_at: then, ..waiting[0].record.clone() }, ..waiting[0].clone() };
    assert!(desks[0].ledger.update_within(&next, 1, &released).await.unwrap().is_some());
    assert!(matches!(desks[0].ledger.update_within(&next, 1, &released).await, Err(Error::Conflict { expected: 1, .. })));
    forget_steps(&desks[0], then).await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn backups_are_remembered_with_their_deadlines() {
    let desk = Desk::open().await;
    let uid = fresh_uid();
    let mut backup = BackupEntry {
        name: format!("acme-{}", &uid[..8]),
        uid: uid.clone(),
        account: "acme".into(),
        store: "eu-cold".into(),
        prefix: "eu-1/x/".into(),
        key_id: None,
        expires_at: clock::now(),
        phase: "Running".into(),
        manifest_sha256: None,
    };
    desk.ledger.put_backup(&backup).await.unwrap();
    backup.phase = "Verified".into();
    backup.key_id = Some("key".into());
    desk.ledger.put_backup(&backup).await.unwrap();
    assert_eq!(desk.ledger.backup(&backup.name).await.unwrap().as_ref(), Some(&backup));
    assert_eq!(desk.ledger.backups_of(&uid).await.unwrap(), [backup.clone()]);
    assert!(desk.ledger.live_backups().await.unwrap().contains(&backup));
    let stolen = BackupEntry { uid: fresh_uid(), ..backup.clone() };
    assert!(matches!(desk.ledger.put_backup(&stolen).await, Err(Error::Exists { .. })));
    backup.phase = "Erased".into();
    desk.ledger.put_backup(&backup).await.unwrap();
    assert!(!desk.ledger.live_backups().await.unwrap().contains(&backup));
}
