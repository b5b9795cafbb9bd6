//! The PostgreSQL driver against a real server.
//!
//! `HELPDESK_TEST_PG_URL` names a server that no operator uses, as its superuser, such as
//! `postgres://postgres:…@localhost:5432/postgres?sslmode=verify-full&sslrootcert=/path/ca.crt`. The tests make a role
//! for the operator there that is no superuser, and tenants with random names, and drop the tenants again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "database/desk.rs"]
mod desk;
#[path = "database/extensions.rs"]
mod extensions;
#[path = "database/hostile.rs"]
mod hostile;
#[path = "database/ledger.rs"]
mod ledger;
#[path = "database/settings.rs"]
mod settings;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use desk::{Desk, as_mover, code, fresh_secret, fresh_uid, terms};
use helpdesk_operator::database::{DatabaseId, Error, LoginSlot, Password, Probe, RotationStep, Tenant};
use sqlx::{AssertSqlSafe, Connection, Executor};

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_role_that_lacks_rights_is_told_the_sql_that_gives_them() {
    let desk = Desk::open().await;
    let name = format!("poor_{}", &fresh_uid()[..8]);
    let password = Password::generate().unwrap();
    let mut root = desk.superuser().await;
    root.execute(AssertSqlSafe(format!("CREATE ROLE {name} LOGIN CREATEDB PASSWORD '{}'", password.expose()))).await.unwrap();
    root.execute(AssertSqlSafe(format!("GRANT CONNECT ON DATABASE helpdesk_operator TO {name}"))).await.unwrap();
    let server = desk.connect_as(&name, password.expose()).await;
    let Err(Error::MissingPrivileges { sql }) = server.identify().await else { panic!("it has rights") };
    assert!(sql.contains("CREATEROLE BYPASSRLS") && !sql.contains("CREATEDB"), "{sql}");
    // It is another role than the one that made the ledger.
    assert!(sql.contains(&format!("GRANT \"{}\" TO \"{name}\"", desk.admin)), "{sql}");
    root.execute(AssertSqlSafe(sql)).await.unwrap();
    let identity = server.identify().await.unwrap();
    assert!(identity.major >= 16, "{identity:?}");
    root.execute(AssertSqlSafe(format!(
        "REVOKE ALL ON DATABASE helpdesk_operator FROM {name}; REVOKE pg_signal_backend, {} FROM {name}; DROP ROLE {name}",
        desk.admin
    )))
    .await
    .unwrap();
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_tenant_reaches_its_own_database_and_no_other() {
    let desk = Desk::open().await;
    let (one, two) = (desk.tenant().await, desk.tenant().await);
    let mut session = one.session().await.unwrap();
    session.execute("CREATE TABLE tickets (id int); INSERT INTO tickets VALUES (1)").await.unwrap();
    let owner: String = sqlx::query_scalar("SELECT tableowner::text FROM pg_tables WHERE schemaname = 'app' AND tablename = 'tickets'")
        .fetch_one(&mut session)
        .await
        .unwrap();
    assert_eq!(owner, format!("{}_own", one.tenant.name));

    for database in [two.tenant.name.as_str(), "postgres", "template1", "helpdesk_operator"] {
        let refused = one.session_in(database).await.unwrap_err();
        assert_eq!(code(&refused), "42501", "{database}: {refused}");
    }
    for sql in [
        format!("ALTER DATABASE {} CONNECTION LIMIT -1", one.tenant.name),
        format!("ALTER ROLE {}_a CONNECTION LIMIT -1", one.tenant.name),
        format!("SET ROLE {}_own", two.tenant.name),
        format!("GRANT {0}_own TO {1}_a", two.tenant.name, one.tenant.name),
        format!("GRANT CONNECT ON DATABASE {} TO PUBLIC", one.tenant.name),
        "CREATE ROLE helper".to_owned(),
        "CREATE DATABASE mine".to_owned(),
        "CREATE SCHEMA mine".to_owned(),
        format!("COMMENT ON DATABASE {} IS 'mine'", one.tenant.name),
        "SELECT pg_read_file('/etc/passwd')".to_owned(),
    ] {
        // A grant without the right to give is a warning, not an error; what counts is checked below.
        let done = session.execute(AssertSqlSafe(sql.clone())).await;
        assert!(done.is_err() || sql.starts_with("GRANT CONNECT"), "{sql} was let through");
    }
    assert!(two.session_in(&one.tenant.name).await.is_err());
    drop(session);
    one.gone().await;
    two.gone().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn ensure_cut_off_anywhere_comes_to_the_same_end() {
    let desk = Desk::open().await;
    let tenant = Tenant::of(&fresh_uid()).unwrap();
    let (password, secret) = fresh_secret(LoginSlot::A);
    let begun = std::time::Instant::now();
    let facts = desk.server.ensure(&tenant, &terms(), &secret).await.unwrap().facts;
    let whole = begun.elapsed();
    desk.remove(&tenant, &facts).await;
    assert!(password.expose().len() == 40);

    let cuts = 40_u32;
    for cut in 0..=cuts {
        let tenant = Tenant::of(&fresh_uid()).unwrap();
        let (password, secret) = fresh_secret(LoginSlot::A);
        // As after a crash, the server finishes the statement it was given and gets no other.
        let cut_off = tokio::time::timeout(whole * cut / cuts, desk.server.ensure(&tenant, &terms(), &secret)).await;
        let facts = desk.settled_ensure(&tenant, &secret).await;
        assert_eq!(desk.server.probe(&tenant, LoginSlot::A, &password).await.unwrap(), Probe::LetIn, "cut {cut} ({cut_off:?})");
        let mut session = desk.session(&tenant.login(LoginSlot::A), password.expose(), &tenant.name).await.unwrap();
        session.execute("CREATE TABLE works (id int)").await.unwrap();
        session.close().await.unwrap();
        assert_eq!(desk.server.observe(&tenant).await.unwrap().database, Some(facts.clone()));
        desk.remove(&tenant, &facts).await;
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_crash_between_making_and_marking_a_database_is_told_from_a_foreign_one() {
    let desk = Desk::open().await;
    let made = desk.tenant().await;
    let name = &made.tenant.name;
    let mut root = desk.superuser().await;
    // What CREATE DATABASE leaves behind if nothing follows it.
    for sql in [
        format!("DROP DATABASE {name} WITH (FORCE)"),
        format!("CREATE DATABASE {name} OWNER {} TEMPLATE template0 ALLOW_CONNECTIONS false", desk.admin),
    ] {
        root.execute(AssertSqlSafe(sql)).await.unwrap();
    }
    let seen = desk.server.observe(&made.tenant).await.unwrap();
    assert!(!seen.foreign && seen.database.is_none(), "{seen:?}");
    let facts = desk.server.ensure(&made.tenant, &terms(), &made.secret).await.unwrap().facts;
    assert_ne!(facts.oid, made.facts.oid);
    assert_eq!(desk.server.probe(&made.tenant, LoginSlot::A, &made.password).await.unwrap(), Probe::LetIn);
    desk.remove(&made.tenant, &facts).await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_suspended_tenant_is_out_and_a_resumed_one_is_in() {
    let desk = Desk::open().await;
    let made = desk.tenant().await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(made.session().await.unwrap());
    }
    assert_eq!(desk.server.observe(&made.tenant).await.unwrap().sessions, 3);
    assert_eq!(desk.server.suspend(&made.tenant).await.unwrap().sessions_left, 0);
    for session in &mut open {
        assert!(session.execute("SELECT 1").await.is_err(), "a session outlived the suspension");
    }
    assert_eq!(desk.server.probe(&made.tenant, LoginSlot::A, &made.password).await.unwrap(), Probe::Refused);
    assert!(desk.server.probe_refused(&made.tenant, LoginSlot::A, &made.password).await.unwrap());
    let seen = desk.server.observe(&made.tenant).await.unwrap();
    assert!(!seen.can_login && seen.sessions == 0, "{seen:?}");
    // What is shut stays shut, whoever makes sure of the database.
    desk.server.ensure(&made.tenant, &terms(), &made.secret).await.unwrap();
    assert_eq!(desk.server.probe(&made.tenant, LoginSlot::A, &made.password).await.unwrap(), Probe::Refused);
    desk.server.resume(&made.tenant).await.unwrap();
    assert_eq!(desk.server.probe(&made.tenant, LoginSlot::A, &made.password).await.unwrap(), Probe::LetIn);
    made.gone().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn nobody_slips_in_while_the_door_is_shut() {
    let desk = Arc::new(Desk::open().await);
    let made = desk.tenant().await;
    let stop = Arc::new(AtomicBool::new(false));
    let intruders: Vec<_> = (0..4)
        .map(|_| {
            let (desk, stop) = (desk.clone(), stop.clone());
            let (user, password, database) = (made.tenant.login(LoginSlot::A), made.password.clone(), made.tenant.name.clone());
            tokio::spawn(async move {
                let mut held = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(session) = desk.session(&user, password.expose(), &database).await {
                        held.push(session);
                    }
                }
                let mut alive = 0;
                for session in &mut held {
                    alive += usize::from(session.execute("SELECT 1").await.is_ok());
                }
                alive
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let left = desk.server.suspend(&made.tenant).await.unwrap();
    assert_eq!(left.sessions_left, 0, "{left:?}");
    assert_eq!(desk.server.observe(&made.tenant).await.unwrap().sessions, 0);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(desk.server.observe(&made.tenant).await.unwrap().sessions, 0);
    stop.store(true, Ordering::Relaxed);
    for intruder in intruders {
        assert_eq!(intruder.await.unwrap(), 0);
    }
    made.gone().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_session_that_only_a_superuser_can_end_is_counted_and_named() {
    let desk = Desk::open().await;
    let made = desk.tenant().await;
    let mut root = desk.superuser_in(&made.tenant.name).await;
    let left = desk.server.suspend(&made.tenant).await.unwrap();
    assert_eq!((left.sessions_left, left.holders.as_slice()), (1, ["postgres".to_owned()].as_slice()));
    root.execute("SELECT 1").await.unwrap();
    root.close().await.unwrap();
    assert_eq!(desk.server.suspend(&made.tenant).await.unwrap().sessions_left, 0);
    made.gone().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_database_of_somebody_else_is_never_touched() {
    let desk = Desk::open().await;
    let tenant = Tenant::of(&fresh_uid()).unwrap();
    let (password, secret) = fresh_secret(LoginSlot::A);
    let mut root = desk.superuser().await;
    for (owner, comment) in [("postgres", None), (desk.admin.as_str(), None), (desk.admin.as_str(), Some(fresh_uid()))] {
        root.execute(AssertSqlSafe(format!("CREATE DATABASE {} OWNER {owner}", tenant.name))).await.unwrap();
        if let Some(uid) = &comment {
            root.execute(AssertSqlSafe(format!("COMMENT ON DATABASE {} IS '{uid}'", tenant.name))).await.unwrap();
        }
        let oid: i64 = sqlx::query_scalar("SELECT oid::bigint FROM pg_database WHERE datname = $1")
            .bind(&tenant.name)
            .fetch_one(&mut root)
            .await
            .unwrap();
        let facts = DatabaseId { oid: u32::try_from(oid).unwrap(), system_identifier: desk.identity.system_identifier.clone() };
        assert!(desk.server.observe(&tenant).await.unwrap().foreign);
        let foreign = |result: Result<(), Error>| assert!(matches!(result, Err(Error::Foreign { .. })), "{result:?}");
        foreign(desk.server.ensure(&tenant, &terms(), &secret).await.map(drop));
        foreign(desk.server.suspend(&tenant).await.map(drop));
        foreign(desk.server.resume(&tenant).await);
        foreign(desk.server.set_password(&tenant, &secret).await);
        foreign(desk.server.begin_rotation(&tenant, &terms(), &secret).await);
        foreign(desk.server.finish_rotation(&tenant, LoginSlot::A).await.map(drop));
        foreign(desk.server.dump_login(&tenant).await.map(drop));
        foreign(desk.server.prepare_restore(&tenant, &terms(), &secret, &[]).await.map(drop));
        foreign(desk.server.finish_restore(&tenant, &terms(), &[]).await.map(drop));
        foreign(desk.server.drop(&tenant, &facts, &desk.waiver(&tenant)).await);
        let still: i64 = sqlx::query_scalar("SELECT oid::bigint FROM pg_database WHERE datname = $1")
            .bind(&tenant.name)
            .fetch_one(&mut root)
            .await
            .unwrap();
        assert_eq!(still, oid);
        root.execute(AssertSqlSafe(format!("DROP DATABASE {}", tenant.name))).await.unwrap();
    }
    // A role of the tenant's name is foreign as well.
    root.execute(AssertSqlSafe(format!("CREATE ROLE {}_a LOGIN", tenant.name))).await.unwrap();
    assert!(matches!(desk.server.ensure(&tenant, &terms(), &secret).await, Err(Error::Foreign { .. })));
    assert!(desk.server.observe(&tenant).await.unwrap().foreign);
    root.execute(AssertSqlSafe(format!("DROP ROLE {}_a", tenant.name))).await.unwrap();
    drop(password);
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn only_the_very_database_that_the_authority_covers_is_dropped() {
    let desk = Desk::open().await;
    let (made, other) = (desk.tenant().await, desk.tenant().await);
    let wrong_oid = DatabaseId { oid: other.facts.oid, ..made.facts.clone() };
    let wrong_server = DatabaseId { system_identifier: "1".into(), ..made.facts.clone() };
    for facts in [wrong_oid, wrong_server] {
        let refused = desk.server.drop(&made.tenant, &facts, &desk.waiver(&made.tenant)).await;
        assert!(matches!(refused, Err(Error::NotAuthorized(_))), "{refused:?}");
    }
    let refused = desk.server.drop(&made.tenant, &made.facts, &desk.waiver(&other.tenant)).await;
    assert!(matches!(refused, Err(Error::NotAuthorized(_))), "{refused:?}");
    assert_eq!(desk.server.observe(&made.tenant).await.unwrap().database, Some(made.facts.clone()));

    let mut session = made.session().await.unwrap();
    let (tenant, facts) = (made.tenant.clone(), made.facts.clone());
    desk.server.drop(&tenant, &facts, &desk.waiver(&tenant)).await.unwrap();
    assert!(session.execute("SELECT 1").await.is_err());
    desk.server.drop(&tenant, &facts, &desk.waiver(&tenant)).await.unwrap();
    let seen = desk.server.observe(&tenant).await.unwrap();
    assert!(seen.database.is_none() && !seen.foreign, "{seen:?}");
    assert!(desk.server.orphans(&BTreeSet::new()).await.unwrap().iter().all(|name| !name.starts_with(&tenant.name)));
    other.gone().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_rotation_fails_no_login() {
    let desk = Arc::new(Desk::open().await);
    let made = desk.tenant().await;
    let mut held = made.session().await.unwrap();
    held.execute("CREATE TABLE kept (id int); SET ROLE NONE; CREATE TABLE app.hidden (id int); INSERT INTO app.hidden VALUES (7)")
        .await
        .unwrap();

    let (password, secret) = fresh_secret(LoginSlot::B);
    let current = Arc::new(std::sync::Mutex::new((LoginSlot::A, made.password.clone())));
    let (stop, logins) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let app = tokio::spawn({
        let (desk, stop, current, logins, tenant) = (desk.clone(), stop.clone(), current.clone(), logins.clone(), made.tenant.clone());
        async move {
            while !stop.load(Ordering::Relaxed) {
                let (slot, password) = current.lock().unwrap().clone();
                let session = desk.session(&tenant.login(slot), password.expose(), &tenant.name).await.expect("a login failed");
                session.close().await.unwrap();
                logins.fetch_add(usize::from(slot == LoginSlot::B), Ordering::Relaxed);
            }
        }
    });
    desk.server.begin_rotation(&made.tenant, &terms(), &secret).await.unwrap();
    desk.server.begin_rotation(&made.tenant, &terms(), &secret).await.unwrap();
    *current.lock().unwrap() = (LoginSlot::B, password.clone());
    let RotationStep::Waiting(sessions) = desk.server.finish_rotation(&made.tenant, LoginSlot::A).await.unwrap() else {
        panic!("the old login was dropped under a session")
    };
    assert!(sessions >= 1);
    held.close().await.unwrap();
    // The app is rolled once every instance has logged in anew; here it is one that logs in again and again.
    while logins.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(!app.is_finished());
    }
    let mut tries = 0;
    while desk.server.finish_rotation(&made.tenant, LoginSlot::A).await.unwrap() != RotationStep::Done {
        tokio::time::sleep(Duration::from_millis(50)).await;
        tries += 1;
        assert!(tries < 100);
    }
    assert_eq!(desk.server.finish_rotation(&made.tenant, LoginSlot::A).await.unwrap(), RotationStep::Done);
    stop.store(true, Ordering::Relaxed);
    app.await.unwrap();

    let mut session = desk.session(&made.tenant.login(LoginSlot::B), password.expose(), &made.tenant.name).await.unwrap();
    let hidden: i32 = sqlx::query_scalar("SELECT id FROM hidden").fetch_one(&mut session).await.unwrap();
    assert_eq!(hidden, 7);
    assert_eq!(desk.server.probe(&made.tenant, LoginSlot::A, &made.password).await.unwrap(), Probe::Refused);
    session.close().await.unwrap();
    made.gone().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_password_that_the_tenant_changed_is_told_from_a_shut_door() {
    let desk = Desk::open().await;
    let made = desk.tenant().await;
    made.session()
        .await
        .unwrap()
        .execute(AssertSqlSafe(format!("SET ROLE NONE; ALTER ROLE {}_a PASSWORD 'mine'", made.tenant.name)))
        .await
        .unwrap();
    assert_eq!(desk.server.probe(&made.tenant, LoginSlot::A, &made.password).await.unwrap(), Probe::WrongPassword);
    desk.server.set_password(&made.tenant, &made.secret).await.unwrap();
    assert_eq!(desk.server.probe(&made.tenant, LoginSlot::A, &made.password).await.unwrap(), Probe::LetIn);
    made.gone().await;
}

/// What a tenant can do to keep its database from being dumped, and so from ever being dropped.
const HOSTILE: &str = "CREATE TABLE tickets (id int PRIMARY KEY, body text); INSERT INTO tickets VALUES (1, 'it''s'); \
    CREATE TABLE \"odd \"\" name\" (\"weird \"\" column\" text); INSERT INTO \"odd \"\" name\" VALUES ('x'); \
    ALTER TABLE tickets ENABLE ROW LEVEL SECURITY; ALTER TABLE tickets FORCE ROW LEVEL SECURITY; \
    CREATE POLICY none ON tickets USING (false); \
    REVOKE ALL ON tickets FROM CURRENT_USER; REVOKE ALL ON SCHEMA app FROM CURRENT_USER; \
    SET ROLE NONE; GRANT ALL ON SCHEMA app TO CURRENT_USER; \
    CREATE TABLE app.secret (id int); INSERT INTO app.secret VALUES (42); REVOKE ALL ON app.secret FROM CURRENT_USER; \
    SELECT lo_from_bytea(4711, 'large'); REVOKE ALL ON LARGE OBJECT 4711 FROM CURRENT_USER; \
    CREATE FUNCTION app.length(text) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint';";

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_hostile_tenant_is_dumped_all_the_same() {
    let desk = Desk::open().await;
    let made = desk.tenant().await;
    let mut session = made.session().await.unwrap();
    // The owner role gives the login what a hostile tenant would use.
    session.execute(AssertSqlSafe(format!("GRANT ALL ON SCHEMA app TO {}_a", made.tenant.name))).await.unwrap();
    session.execute(HOSTILE).await.unwrap();
    session.close().await.unwrap();
    desk.server.suspend(&made.tenant).await.unwrap();

    let login = desk.server.dump_login(&made.tenant).await.unwrap();
    let mut dump = as_mover(&login).await.unwrap();
    dump.execute("SET row_security = off").await.unwrap();
    let body: String = sqlx::query_scalar("SELECT body FROM app.tickets").fetch_one(&mut dump).await.unwrap();
    assert_eq!(body, "it's");
    let secret: i32 = sqlx::query_scalar("SELECT id FROM app.secret").fetch_one(&mut dump).await.unwrap();
    assert_eq!(secret, 42);
    let odd: String = sqlx::query_scalar("SELECT * FROM app.\"odd \"\" name\"").fetch_one(&mut dump).await.unwrap();
    assert_eq!(odd, "x");
    let large: Vec<u8> = sqlx::query_scalar("SELECT lo_get(4711)").fetch_one(&mut dump).await.unwrap();
    assert_eq!(large, b"large");
    assert!(dump.execute("CREATE TABLE app.mine (id int)").await.is_err());
    assert!(dump.execute("SET default_transaction_read_only = off; DELETE FROM app.secret").await.is_err());
    dump.close().await.unwrap();
    for database in ["postgres", "helpdesk_operator"] {
        assert!(desk.session(&login.username, login.password.expose(), database).await.is_err());
    }
    desk::pg_dump_works(&login);

    let renewed = desk.server.dump_login(&made.tenant).await.unwrap();
    assert!(as_mover(&login).await.is_err(), "the password before is still good");
    let mut dump = as_mover(&renewed).await.unwrap();
    desk.server.revoke_dump_login(&made.tenant).await.unwrap();
    desk.server.revoke_dump_login(&made.tenant).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(dump.execute("SELECT 1").await.is_err(), "a dump outlived its login");
    assert!(as_mover(&renewed).await.is_err());
    made.gone().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_scratch_database_is_empty_and_its_login_owns_nothing_else() {
    let desk = Desk::open().await;
    let made = desk.tenant().await;
    let login = desk.server.scratch(&made.tenant, "acme-20261123t100003z").await.unwrap();
    let mut session = as_mover(&login).await.unwrap();
    session.execute("CREATE SCHEMA app; CREATE TABLE app.tickets (id int)").await.unwrap();
    assert!(desk.session(&login.username, login.password.expose(), &made.tenant.name).await.is_err());
    assert!(desk.session(&made.tenant.login(LoginSlot::A), made.password.expose(), &login.database).await.is_err());
    let again = desk.server.scratch(&made.tenant, "acme-20261123t100003z").await.unwrap();
    assert_eq!(again.database, login.database);
    let mut session = as_mover(&again).await.unwrap();
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'app'").fetch_one(&mut session).await.unwrap();
    assert_eq!(tables, 0);

    desk.server.dump_login(&made.tenant).await.unwrap();
    // Other tests have tenants of their own on the same server: to them this one is the only idle one.
    let everybody_else: BTreeSet<String> = desk.all_uids().await.into_iter().filter(|uid| *uid != made.tenant.uid).collect();
    let mut busy = everybody_else.clone();
    busy.insert(made.tenant.uid.clone());
    assert!(desk.server.drop_own_leftovers(&busy).await.unwrap().iter().all(|name| !name.starts_with(&made.tenant.name)));
    let gone = desk.server.drop_own_leftovers(&everybody_else).await.unwrap();
    assert!(gone.contains(&login.database) && gone.contains(&format!("{}_dump", made.tenant.name)), "{gone:?}");
    desk.server.drop_scratch(&made.tenant, "acme-20261123t100003z").await.unwrap();

    let orphans = desk.server.orphans(&everybody_else).await.unwrap();
    assert!(orphans.contains(&made.tenant.name) && !orphans.contains(&login.database), "{orphans:?}");
    made.gone().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_restore_is_entered_only_when_it_is_whole_and_is_the_owners() {
    let desk = Desk::open().await;
    let made = desk.tenant().await;
    let in_use = desk.server.prepare_restore(&made.tenant, &terms(), &made.secret, &[]).await;
    assert!(matches!(in_use, Err(Error::AlreadyExists(_))), "{in_use:?}");
    desk.server.suspend(&made.tenant).await.unwrap();
    let in_use = desk.server.prepare_restore(&made.tenant, &terms(), &made.secret, &[]).await;
    assert!(matches!(in_use, Err(Error::AlreadyExists(_))), "{in_use:?}");
    desk.remove(&made.tenant, &made.facts).await;

    let (_, first) = desk.server.prepare_restore(&made.tenant, &terms(), &made.secret, &[]).await.unwrap();
    as_mover(&first).await.unwrap().execute("CREATE SCHEMA app; CREATE TABLE app.half (id int)").await.unwrap();
    let (facts, login) = desk.server.prepare_restore(&made.tenant, &terms(), &made.secret, &[]).await.unwrap();
    assert!(matches!(desk.server.ensure(&made.tenant, &terms(), &made.secret).await, Err(Error::Restoring(_))));
    assert!(matches!(desk.server.resume(&made.tenant).await, Err(Error::Restoring(_))));
    assert_eq!(desk.server.probe(&made.tenant, LoginSlot::A, &made.password).await.unwrap(), Probe::Refused);
    let mut session = as_mover(&login).await.unwrap();
    session
        .execute("CREATE SCHEMA app; CREATE TABLE app.whole (id int); RESET ROLE; SELECT lo_from_bytea(1, 'x'); SET ROLE NONE")
        .await
        .unwrap();
    session.execute(AssertSqlSafe(format!("SET ROLE {}_own; INSERT INTO app.whole VALUES (1)", made.tenant.name))).await.unwrap();
    session.close().await.unwrap();

    assert_eq!(desk.server.finish_restore(&made.tenant, &terms(), &[]).await.unwrap(), facts);
    assert_eq!(desk.server.finish_restore(&made.tenant, &terms(), &[]).await.unwrap(), facts);
    assert!(as_mover(&login).await.is_err());
    assert_eq!(desk.server.probe(&made.tenant, LoginSlot::A, &made.password).await.unwrap(), Probe::Refused);
    desk.server.resume(&made.tenant).await.unwrap();
    let mut session = made.session().await.unwrap();
    let owners: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT pg_get_userbyid(owner)::text FROM (SELECT relowner AS owner FROM pg_class c JOIN pg_namespace n \
         ON n.oid = relnamespace AND nspname = 'app' UNION SELECT nspowner FROM pg_namespace WHERE nspname = 'app' \
         UNION SELECT lomowner FROM pg_largeobject_metadata) AS everything",
    )
    .fetch_all(&mut session)
    .await
    .unwrap();
    assert_eq!(owners, [format!("{}_own", made.tenant.name)]);
    assert!(session.execute("CREATE SCHEMA more").await.is_err());
    session.execute("CREATE TABLE later (id int)").await.unwrap();
    session.close().await.unwrap();
    let in_use = desk.server.prepare_restore(&made.tenant, &terms(), &made.secret, &[]).await;
    assert!(matches!(in_use, Err(Error::AlreadyExists(_))), "{in_use:?}");
    desk.remove(&made.tenant, &facts).await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn what_cannot_be_reached_is_said_quickly() {
    let desk = Desk::open().await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let begun = std::time::Instant::now();
    let refused = desk.try_connect(silent.local_addr().unwrap().port()).await.unwrap_err();
    assert!(matches!(refused, Error::Unreachable { .. }), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(11), "{:?}", begun.elapsed());
    let wrong = desk.try_connect_with("wrong").await.unwrap_err();
    assert!(matches!(wrong, Error::AuthenticationFailed { .. }), "{wrong:?}");
    assert!(!wrong.to_string().contains("wrong\""), "{wrong}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_hundred_tenants_are_made_and_dropped_four_at_once() {
    use futures::{StreamExt, stream};
    let desk = Arc::new(Desk::open().await);
    let tenants: Vec<_> = (0..100).map(|_| (Tenant::of(&fresh_uid()).unwrap(), fresh_secret(LoginSlot::A).1)).collect();
    let begun = std::time::Instant::now();
    let facts: Vec<_> = stream::iter(&tenants)
        .map(|(tenant, secret)| {
            let desk = desk.clone();
            async move { desk.server.ensure(tenant, &terms(), secret).await.unwrap().facts }
        })
        .buffered(4)
        .collect()
        .await;
    let made = begun.elapsed();
    let begun = std::time::Instant::now();
    stream::iter(tenants.iter().zip(&facts))
        .for_each_concurrent(4, |((tenant, _), facts)| {
            let desk = desk.clone();
            async move { desk.remove(tenant, facts).await }
        })
        .await;
    println!("100 tenants, 4 at once: made in {made:.1?}, dropped in {:.1?}", begun.elapsed());
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn the_server_keeps_the_verifier_that_was_computed_here_and_never_sees_the_password() {
    let desk = Desk::open().await;
    let made = desk.tenant().await;
    let mut root = desk.superuser().await;
    let stored: String = sqlx::query_scalar("SELECT rolpassword FROM pg_authid WHERE rolname = $1")
        .bind(made.tenant.login(LoginSlot::A))
        .fetch_one(&mut root)
        .await
        .unwrap();
    assert!(stored.starts_with("SCRAM-SHA-256$4096:"), "the server made a verifier of its own");
    made.gone().await;
}
