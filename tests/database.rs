//! The PostgreSQL driver against a real server.
//!
//! `HELPDESK_TEST_PG_URL` is the URL of a superuser of a server that no operator uses, such as
//! `postgres://postgres:…@localhost:5432/postgres?sslmode=verify-full&sslrootcert=/path/ca.crt`. The tests create a
//! role for the operator that is no superuser, and tenants with random names, and drop the tenants again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "database/extensions.rs"]
mod extensions;
#[path = "database/hostile.rs"]
mod hostile;
#[path = "database/ledger.rs"]
mod ledger;
#[path = "database/settings.rs"]
mod settings;
#[path = "database/test_server.rs"]
mod test_server;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use helpdesk_operator::database::{DatabaseId, Error, LoginSlot, Password, Probe, RotationStep, Tenant};
use sqlx::{AssertSqlSafe, Connection, Executor};
use test_server::{TestServer, limits, mover_logs_in, new_login_secret, new_uid, sqlstate};

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_role_that_lacks_rights_is_told_the_sql_that_gives_them() {
    // Given a role that lacks rights which the operator needs.
    let server = TestServer::connect().await;
    let name = format!("poor_{}", &new_uid()[..8]);
    let password = Password::generate().unwrap();
    let mut root = server.superuser_logs_in().await;
    root.execute(AssertSqlSafe(format!("CREATE ROLE {name} LOGIN CREATEDB PASSWORD '{}'", password.expose()))).await.unwrap();
    root.execute(AssertSqlSafe(format!("GRANT CONNECT ON DATABASE helpdesk_operator TO {name}"))).await.unwrap();
    let poor = server.operator_connects_as(&name, password.expose()).await;

    // When the operator connects as that role.
    let Err(Error::MissingPrivileges { sql }) = poor.identify().await else { panic!("it has rights") };

    // Then the error holds the SQL that grants exactly the missing rights.
    assert!(sql.contains("CREATEROLE BYPASSRLS") && !sql.contains("CREATEDB"), "{sql}");
    // The ledger was created by another role, so the role must be a member of that one too.
    assert!(sql.contains(&format!("GRANT \"{}\" TO \"{name}\"", server.admin)), "{sql}");

    // When a superuser runs that SQL.
    root.execute(AssertSqlSafe(sql)).await.unwrap();

    // Then the operator identifies the server.
    let identity = poor.identify().await.unwrap();
    assert!(identity.major >= 16, "{identity:?}");
    root.execute(AssertSqlSafe(format!(
        "REVOKE ALL ON DATABASE helpdesk_operator FROM {name}; REVOKE pg_signal_backend, {} FROM {name}; DROP ROLE {name}",
        server.admin
    )))
    .await
    .unwrap();
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_tenant_reaches_its_own_database_and_no_other() {
    // Given two tenants, one of them with a table.
    let server = TestServer::connect().await;
    let (one, two) = (server.create_tenant().await, server.create_tenant().await);
    let mut session = one.logs_in().await.unwrap();
    session.execute("CREATE TABLE tickets (id int); INSERT INTO tickets VALUES (1)").await.unwrap();
    let owner: String = sqlx::query_scalar("SELECT tableowner::text FROM pg_tables WHERE schemaname = 'app' AND tablename = 'tickets'")
        .fetch_one(&mut session)
        .await
        .unwrap();
    assert_eq!(owner, format!("{}_own", one.tenant.name));

    // When that tenant enters any other database, then it is refused.
    for database in [two.tenant.name.as_str(), "postgres", "template1", "helpdesk_operator"] {
        let refused = one.logs_in_to(database).await.unwrap_err();
        assert_eq!(sqlstate(&refused), "42501", "{database}: {refused}");
    }

    // When it changes its own limits, the other tenant or the server, then it is refused.
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
        // A GRANT without the right to grant is a warning, not an error. Its effect is checked below.
        let done = session.execute(AssertSqlSafe(sql.clone())).await;
        assert!(done.is_err() || sql.starts_with("GRANT CONNECT"), "{sql} was let through");
    }

    // When the other tenant enters its database, then it is refused.
    assert!(two.logs_in_to(&one.tenant.name).await.is_err());
    drop(session);
    one.drop_database().await;
    two.drop_database().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn ensure_cut_off_anywhere_comes_to_the_same_end() {
    // Given the time that it takes to ensure one tenant.
    let server = TestServer::connect().await;
    let tenant = Tenant::of(&new_uid()).unwrap();
    let (password, secret) = new_login_secret(LoginSlot::A);
    let begun = std::time::Instant::now();
    let facts = server.driver.ensure(&tenant, &limits(), &secret).await.unwrap().facts;
    let whole = begun.elapsed();
    server.drop_tenant(&tenant, &facts).await;
    assert!(password.expose().len() == 40);

    // When the operator is cut off at any moment of that time, and ensures the tenant again.
    let cuts = 40_u32;
    for cut in 0..=cuts {
        let tenant = Tenant::of(&new_uid()).unwrap();
        let (password, secret) = new_login_secret(LoginSlot::A);
        // The server finishes the statement that it was given, as after a crash.
        let cut_off = tokio::time::timeout(whole * cut / cuts, server.driver.ensure(&tenant, &limits(), &secret)).await;
        let facts = server.ensure_until_done(&tenant, &secret).await;

        // Then the tenant logs in and works, and the database is the one that was ensured.
        assert_eq!(server.driver.probe(&tenant, LoginSlot::A, &password).await.unwrap(), Probe::LetIn, "cut {cut} ({cut_off:?})");
        let mut session = server.log_in(&tenant.login(LoginSlot::A), password.expose(), &tenant.name).await.unwrap();
        session.execute("CREATE TABLE works (id int)").await.unwrap();
        session.close().await.unwrap();
        assert_eq!(server.driver.observe(&tenant).await.unwrap().database, Some(facts.clone()));
        server.drop_tenant(&tenant, &facts).await;
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_crash_between_making_and_marking_a_database_is_told_from_a_foreign_one() {
    // Given a database without a marker, as CREATE DATABASE leaves it if the operator crashes then.
    let server = TestServer::connect().await;
    let acme = server.create_tenant().await;
    let name = &acme.tenant.name;
    let mut root = server.superuser_logs_in().await;
    for sql in [
        format!("DROP DATABASE {name} WITH (FORCE)"),
        format!("CREATE DATABASE {name} OWNER {} TEMPLATE template0 ALLOW_CONNECTIONS false", server.admin),
    ] {
        root.execute(AssertSqlSafe(sql)).await.unwrap();
    }

    // Then the operator does not take it for a foreign one.
    let seen = server.driver.observe(&acme.tenant).await.unwrap();
    assert!(!seen.foreign && seen.database.is_none(), "{seen:?}");

    // When the operator ensures the tenant.
    let facts = server.driver.ensure(&acme.tenant, &limits(), &acme.secret).await.unwrap().facts;

    // Then the tenant logs in to the new database.
    assert_ne!(facts.oid, acme.facts.oid);
    assert_eq!(server.driver.probe(&acme.tenant, LoginSlot::A, &acme.password).await.unwrap(), Probe::LetIn);
    server.drop_tenant(&acme.tenant, &facts).await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_suspended_tenant_is_out_and_a_resumed_one_is_in() {
    // Given a tenant with three sessions.
    let server = TestServer::connect().await;
    let acme = server.create_tenant().await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(acme.logs_in().await.unwrap());
    }
    assert_eq!(server.driver.observe(&acme.tenant).await.unwrap().sessions, 3);

    // When the operator suspends the tenant.
    assert_eq!(server.driver.suspend(&acme.tenant).await.unwrap().sessions_left, 0);

    // Then every session is ended, and no login is possible.
    for session in &mut open {
        assert!(session.execute("SELECT 1").await.is_err(), "a session outlived the suspension");
    }
    assert_eq!(server.driver.probe(&acme.tenant, LoginSlot::A, &acme.password).await.unwrap(), Probe::Refused);
    assert!(server.driver.probe_refused(&acme.tenant, LoginSlot::A, &acme.password).await.unwrap());
    let seen = server.driver.observe(&acme.tenant).await.unwrap();
    assert!(!seen.can_login && seen.sessions == 0, "{seen:?}");

    // When the operator ensures the database of the suspended tenant.
    server.driver.ensure(&acme.tenant, &limits(), &acme.secret).await.unwrap();

    // Then it stays shut.
    assert_eq!(server.driver.probe(&acme.tenant, LoginSlot::A, &acme.password).await.unwrap(), Probe::Refused);

    // When the operator resumes the tenant.
    server.driver.resume(&acme.tenant).await.unwrap();

    // Then the tenant logs in.
    assert_eq!(server.driver.probe(&acme.tenant, LoginSlot::A, &acme.password).await.unwrap(), Probe::LetIn);
    acme.drop_database().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn nobody_slips_in_while_the_door_is_shut() {
    // Given four intruders who log in as the tenant again and again, and keep their sessions.
    let server = Arc::new(TestServer::connect().await);
    let acme = server.create_tenant().await;
    let stop = Arc::new(AtomicBool::new(false));
    let intruders: Vec<_> = (0..4)
        .map(|_| {
            let (server, stop) = (server.clone(), stop.clone());
            let (user, password, database) = (acme.tenant.login(LoginSlot::A), acme.password.clone(), acme.tenant.name.clone());
            tokio::spawn(async move {
                let mut held = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    if let Ok(session) = server.log_in(&user, password.expose(), &database).await {
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

    // When the operator suspends the tenant.
    let left = server.driver.suspend(&acme.tenant).await.unwrap();

    // Then no session is left, neither at once nor later.
    assert_eq!(left.sessions_left, 0, "{left:?}");
    assert_eq!(server.driver.observe(&acme.tenant).await.unwrap().sessions, 0);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.driver.observe(&acme.tenant).await.unwrap().sessions, 0);
    stop.store(true, Ordering::Relaxed);
    for intruder in intruders {
        assert_eq!(intruder.await.unwrap(), 0);
    }
    acme.drop_database().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_session_that_only_a_superuser_can_end_is_counted_and_named() {
    // Given a tenant, and a superuser's session in its database.
    let server = TestServer::connect().await;
    let acme = server.create_tenant().await;
    let mut root = server.superuser_logs_in_to(&acme.tenant.name).await;

    // When the operator suspends the tenant.
    let left = server.driver.suspend(&acme.tenant).await.unwrap();

    // Then that session is counted and named, and still works.
    assert_eq!((left.sessions_left, left.holders.as_slice()), (1, ["postgres".to_owned()].as_slice()));
    root.execute("SELECT 1").await.unwrap();

    // When the superuser logs out.
    root.close().await.unwrap();

    // Then no session is left.
    assert_eq!(server.driver.suspend(&acme.tenant).await.unwrap().sessions_left, 0);
    acme.drop_database().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_database_of_somebody_else_is_never_touched() {
    // Given a database of the tenant's name that a superuser made, or that bears no marker or another one.
    let server = TestServer::connect().await;
    let tenant = Tenant::of(&new_uid()).unwrap();
    let (password, secret) = new_login_secret(LoginSlot::A);
    let mut root = server.superuser_logs_in().await;
    for (owner, comment) in [("postgres", None), (server.admin.as_str(), None), (server.admin.as_str(), Some(new_uid()))] {
        root.execute(AssertSqlSafe(format!("CREATE DATABASE {} OWNER {owner}", tenant.name))).await.unwrap();
        if let Some(uid) = &comment {
            root.execute(AssertSqlSafe(format!("COMMENT ON DATABASE {} IS '{uid}'", tenant.name))).await.unwrap();
        }
        let oid: i64 = sqlx::query_scalar("SELECT oid::bigint FROM pg_database WHERE datname = $1")
            .bind(&tenant.name)
            .fetch_one(&mut root)
            .await
            .unwrap();
        let facts = DatabaseId { oid: u32::try_from(oid).unwrap(), system_identifier: server.identity.system_identifier.clone() };

        // When the operator does anything to it, then it is refused as foreign.
        assert!(server.driver.observe(&tenant).await.unwrap().foreign);
        let foreign = |result: Result<(), Error>| assert!(matches!(result, Err(Error::Foreign { .. })), "{result:?}");
        foreign(server.driver.ensure(&tenant, &limits(), &secret).await.map(drop));
        foreign(server.driver.suspend(&tenant).await.map(drop));
        foreign(server.driver.resume(&tenant).await);
        foreign(server.driver.set_password(&tenant, &secret).await);
        foreign(server.driver.begin_rotation(&tenant, &limits(), &secret).await);
        foreign(server.driver.finish_rotation(&tenant, LoginSlot::A).await.map(drop));
        foreign(server.driver.dump_login(&tenant).await.map(drop));
        foreign(server.driver.prepare_restore(&tenant, &limits(), &secret, &[]).await.map(drop));
        foreign(server.driver.finish_restore(&tenant, &limits(), &[]).await.map(drop));
        foreign(server.driver.drop(&tenant, &facts, &server.owner_waives_backup(&tenant)).await);

        // Then the database is still there.
        let still: i64 = sqlx::query_scalar("SELECT oid::bigint FROM pg_database WHERE datname = $1")
            .bind(&tenant.name)
            .fetch_one(&mut root)
            .await
            .unwrap();
        assert_eq!(still, oid);
        root.execute(AssertSqlSafe(format!("DROP DATABASE {}", tenant.name))).await.unwrap();
    }

    // Given a role of the tenant's name that a superuser made.
    root.execute(AssertSqlSafe(format!("CREATE ROLE {}_a LOGIN", tenant.name))).await.unwrap();

    // When the operator ensures the tenant, then it is refused as foreign.
    assert!(matches!(server.driver.ensure(&tenant, &limits(), &secret).await, Err(Error::Foreign { .. })));
    assert!(server.driver.observe(&tenant).await.unwrap().foreign);
    root.execute(AssertSqlSafe(format!("DROP ROLE {}_a", tenant.name))).await.unwrap();
    drop(password);
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn only_the_very_database_that_the_authority_covers_is_dropped() {
    // Given two tenants.
    let server = TestServer::connect().await;
    let (acme, other) = (server.create_tenant().await, server.create_tenant().await);

    // When the operator drops a database with another oid, on another server, or by the authority for another tenant,
    // then it is refused.
    let wrong_oid = DatabaseId { oid: other.facts.oid, ..acme.facts.clone() };
    let wrong_server = DatabaseId { system_identifier: "1".into(), ..acme.facts.clone() };
    for facts in [wrong_oid, wrong_server] {
        let refused = server.driver.drop(&acme.tenant, &facts, &server.owner_waives_backup(&acme.tenant)).await;
        assert!(matches!(refused, Err(Error::NotAuthorized(_))), "{refused:?}");
    }
    let refused = server.driver.drop(&acme.tenant, &acme.facts, &server.owner_waives_backup(&other.tenant)).await;
    assert!(matches!(refused, Err(Error::NotAuthorized(_))), "{refused:?}");
    assert_eq!(server.driver.observe(&acme.tenant).await.unwrap().database, Some(acme.facts.clone()));

    // When the operator drops the right database, twice, while the tenant is logged in.
    let mut session = acme.logs_in().await.unwrap();
    let (tenant, facts) = (acme.tenant.clone(), acme.facts.clone());
    server.driver.drop(&tenant, &facts, &server.owner_waives_backup(&tenant)).await.unwrap();
    assert!(session.execute("SELECT 1").await.is_err());
    server.driver.drop(&tenant, &facts, &server.owner_waives_backup(&tenant)).await.unwrap();

    // Then the session is ended, and neither a database nor a role of the tenant is left.
    let seen = server.driver.observe(&tenant).await.unwrap();
    assert!(seen.database.is_none() && !seen.foreign, "{seen:?}");
    assert!(server.driver.orphans(&BTreeSet::new()).await.unwrap().iter().all(|name| !name.starts_with(&tenant.name)));
    other.drop_database().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_rotation_fails_no_login() {
    // Given a tenant with an open session, and an app that logs in again and again with the current password.
    let server = Arc::new(TestServer::connect().await);
    let acme = server.create_tenant().await;
    let mut held = acme.logs_in().await.unwrap();
    held.execute("CREATE TABLE kept (id int); SET ROLE NONE; CREATE TABLE app.hidden (id int); INSERT INTO app.hidden VALUES (7)")
        .await
        .unwrap();

    let (password, secret) = new_login_secret(LoginSlot::B);
    let current = Arc::new(std::sync::Mutex::new((LoginSlot::A, acme.password.clone())));
    let (stop, logins) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let app = tokio::spawn({
        let (server, stop, current, logins, tenant) = (server.clone(), stop.clone(), current.clone(), logins.clone(), acme.tenant.clone());
        async move {
            while !stop.load(Ordering::Relaxed) {
                let (slot, password) = current.lock().unwrap().clone();
                let session = server.log_in(&tenant.login(slot), password.expose(), &tenant.name).await.expect("a login failed");
                session.close().await.unwrap();
                logins.fetch_add(usize::from(slot == LoginSlot::B), Ordering::Relaxed);
            }
        }
    });

    // When the operator begins a rotation, and the app gets the new password.
    server.driver.begin_rotation(&acme.tenant, &limits(), &secret).await.unwrap();
    server.driver.begin_rotation(&acme.tenant, &limits(), &secret).await.unwrap();
    *current.lock().unwrap() = (LoginSlot::B, password.clone());

    // Then the old login is kept while it has a session.
    let RotationStep::Waiting(sessions) = server.driver.finish_rotation(&acme.tenant, LoginSlot::A).await.unwrap() else {
        panic!("the old login was dropped under a session")
    };
    assert!(sessions >= 1);

    // When that session ends and the app has logged in with the new password.
    held.close().await.unwrap();
    // In a cluster the app is rolled until every instance has logged in again. Here one instance does so all the time.
    while logins.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(!app.is_finished());
    }

    // Then the old login is dropped, and no login of the app ever failed.
    let mut tries = 0;
    while server.driver.finish_rotation(&acme.tenant, LoginSlot::A).await.unwrap() != RotationStep::Done {
        tokio::time::sleep(Duration::from_millis(50)).await;
        tries += 1;
        assert!(tries < 100);
    }
    assert_eq!(server.driver.finish_rotation(&acme.tenant, LoginSlot::A).await.unwrap(), RotationStep::Done);
    stop.store(true, Ordering::Relaxed);
    app.await.unwrap();

    // Then the new login reads what the old one owned, and the old password is refused.
    let mut session = server.log_in(&acme.tenant.login(LoginSlot::B), password.expose(), &acme.tenant.name).await.unwrap();
    let hidden: i32 = sqlx::query_scalar("SELECT id FROM hidden").fetch_one(&mut session).await.unwrap();
    assert_eq!(hidden, 7);
    assert_eq!(server.driver.probe(&acme.tenant, LoginSlot::A, &acme.password).await.unwrap(), Probe::Refused);
    session.close().await.unwrap();
    acme.drop_database().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_password_that_the_tenant_changed_is_told_from_a_shut_door() {
    // Given a tenant who has changed its own password.
    let server = TestServer::connect().await;
    let acme = server.create_tenant().await;
    acme.logs_in()
        .await
        .unwrap()
        .execute(AssertSqlSafe(format!("SET ROLE NONE; ALTER ROLE {}_a PASSWORD 'mine'", acme.tenant.name)))
        .await
        .unwrap();

    // When the operator probes its password, then the password is wrong, and the login is not refused otherwise.
    assert_eq!(server.driver.probe(&acme.tenant, LoginSlot::A, &acme.password).await.unwrap(), Probe::WrongPassword);

    // When the operator sets the password again.
    server.driver.set_password(&acme.tenant, &acme.secret).await.unwrap();

    // Then the tenant logs in.
    assert_eq!(server.driver.probe(&acme.tenant, LoginSlot::A, &acme.password).await.unwrap(), Probe::LetIn);
    acme.drop_database().await;
}

/// Everything that a tenant can do to keep its database from being dumped, and so from ever being dropped.
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
    // Given a suspended tenant who did everything to keep its database from being dumped.
    let server = TestServer::connect().await;
    let acme = server.create_tenant().await;
    let mut session = acme.logs_in().await.unwrap();
    // The owner role grants the login what a hostile tenant would use.
    session.execute(AssertSqlSafe(format!("GRANT ALL ON SCHEMA app TO {}_a", acme.tenant.name))).await.unwrap();
    session.execute(HOSTILE).await.unwrap();
    session.close().await.unwrap();
    server.driver.suspend(&acme.tenant).await.unwrap();

    // When a mover logs in to dump the database.
    let login = server.driver.dump_login(&acme.tenant).await.unwrap();
    let mut dump = mover_logs_in(&login).await.unwrap();
    dump.execute("SET row_security = off").await.unwrap();

    // Then it reads everything.
    let body: String = sqlx::query_scalar("SELECT body FROM app.tickets").fetch_one(&mut dump).await.unwrap();
    assert_eq!(body, "it's");
    let secret: i32 = sqlx::query_scalar("SELECT id FROM app.secret").fetch_one(&mut dump).await.unwrap();
    assert_eq!(secret, 42);
    let odd: String = sqlx::query_scalar("SELECT * FROM app.\"odd \"\" name\"").fetch_one(&mut dump).await.unwrap();
    assert_eq!(odd, "x");
    let large: Vec<u8> = sqlx::query_scalar("SELECT lo_get(4711)").fetch_one(&mut dump).await.unwrap();
    assert_eq!(large, b"large");

    // Then it changes nothing and enters no other database.
    assert!(dump.execute("CREATE TABLE app.mine (id int)").await.is_err());
    assert!(dump.execute("SET default_transaction_read_only = off; DELETE FROM app.secret").await.is_err());
    dump.close().await.unwrap();
    for database in ["postgres", "helpdesk_operator"] {
        assert!(server.log_in(&login.username, login.password.expose(), database).await.is_err());
    }
    test_server::pg_dump_succeeds(&login);

    // When the operator asks for another login for a dump.
    let renewed = server.driver.dump_login(&acme.tenant).await.unwrap();

    // Then the password before is refused.
    assert!(mover_logs_in(&login).await.is_err(), "the password before is still good");

    // When the operator revokes the login, twice.
    let mut dump = mover_logs_in(&renewed).await.unwrap();
    server.driver.revoke_dump_login(&acme.tenant).await.unwrap();
    server.driver.revoke_dump_login(&acme.tenant).await.unwrap();

    // Then its session is ended, and the login is refused.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(dump.execute("SELECT 1").await.is_err(), "a dump outlived its login");
    assert!(mover_logs_in(&renewed).await.is_err());
    acme.drop_database().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_scratch_database_is_empty_and_its_login_owns_nothing_else() {
    // Given a tenant, and a scratch database with a table.
    let server = TestServer::connect().await;
    let acme = server.create_tenant().await;
    let login = server.driver.scratch(&acme.tenant, "acme-20261123t100003z").await.unwrap();
    let mut session = mover_logs_in(&login).await.unwrap();
    session.execute("CREATE SCHEMA app; CREATE TABLE app.tickets (id int)").await.unwrap();

    // When its login enters the tenant's database, or the tenant enters the scratch database, then it is refused.
    assert!(server.log_in(&login.username, login.password.expose(), &acme.tenant.name).await.is_err());
    assert!(server.log_in(&acme.tenant.login(LoginSlot::A), acme.password.expose(), &login.database).await.is_err());

    // When the operator asks for the scratch database again.
    let again = server.driver.scratch(&acme.tenant, "acme-20261123t100003z").await.unwrap();
    assert_eq!(again.database, login.database);

    // Then it is empty.
    let mut session = mover_logs_in(&again).await.unwrap();
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'app'").fetch_one(&mut session).await.unwrap();
    assert_eq!(tables, 0);

    // Given a login for a dump too.
    server.driver.dump_login(&acme.tenant).await.unwrap();

    // When the operator drops the leftovers of idle tenants. Other tests use this server, so their tenants count as
    // busy.
    let everybody_else: BTreeSet<String> = server.marked_uids().await.into_iter().filter(|uid| *uid != acme.tenant.uid).collect();
    let mut busy = everybody_else.clone();
    busy.insert(acme.tenant.uid.clone());

    // Then it drops nothing of a busy tenant, and both leftovers of an idle one.
    assert!(server.driver.drop_own_leftovers(&busy).await.unwrap().iter().all(|name| !name.starts_with(&acme.tenant.name)));
    let gone = server.driver.drop_own_leftovers(&everybody_else).await.unwrap();
    assert!(gone.contains(&login.database) && gone.contains(&format!("{}_dump", acme.tenant.name)), "{gone:?}");
    server.driver.drop_scratch(&acme.tenant, "acme-20261123t100003z").await.unwrap();

    // Then the tenant's database counts as an orphan, and the scratch database does not.
    let orphans = server.driver.orphans(&everybody_else).await.unwrap();
    assert!(orphans.contains(&acme.tenant.name) && !orphans.contains(&login.database), "{orphans:?}");
    acme.drop_database().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_restore_is_entered_only_when_it_is_whole_and_is_the_owners() {
    // Given a tenant with its database.
    let server = TestServer::connect().await;
    let acme = server.create_tenant().await;

    // When the operator prepares a restore over that database, also if it is suspended, then it is refused.
    let in_use = server.driver.prepare_restore(&acme.tenant, &limits(), &acme.secret, &[]).await;
    assert!(matches!(in_use, Err(Error::AlreadyExists(_))), "{in_use:?}");
    server.driver.suspend(&acme.tenant).await.unwrap();
    let in_use = server.driver.prepare_restore(&acme.tenant, &limits(), &acme.secret, &[]).await;
    assert!(matches!(in_use, Err(Error::AlreadyExists(_))), "{in_use:?}");

    // Given that the database was dropped, and that a first restore broke off.
    server.drop_tenant(&acme.tenant, &acme.facts).await;

    let (_, first) = server.driver.prepare_restore(&acme.tenant, &limits(), &acme.secret, &[]).await.unwrap();
    mover_logs_in(&first).await.unwrap().execute("CREATE SCHEMA app; CREATE TABLE app.half (id int)").await.unwrap();

    // When the operator prepares the restore again.
    let (facts, login) = server.driver.prepare_restore(&acme.tenant, &limits(), &acme.secret, &[]).await.unwrap();

    // Then nobody enters the database before the restore has finished.
    assert!(matches!(server.driver.ensure(&acme.tenant, &limits(), &acme.secret).await, Err(Error::Restoring(_))));
    assert!(matches!(server.driver.resume(&acme.tenant).await, Err(Error::Restoring(_))));
    assert_eq!(server.driver.probe(&acme.tenant, LoginSlot::A, &acme.password).await.unwrap(), Probe::Refused);

    // When a mover restores the data and the operator finishes the restore, twice.
    let mut session = mover_logs_in(&login).await.unwrap();
    session
        .execute("CREATE SCHEMA app; CREATE TABLE app.whole (id int); RESET ROLE; SELECT lo_from_bytea(1, 'x'); SET ROLE NONE")
        .await
        .unwrap();
    session.execute(AssertSqlSafe(format!("SET ROLE {}_own; INSERT INTO app.whole VALUES (1)", acme.tenant.name))).await.unwrap();
    session.close().await.unwrap();

    assert_eq!(server.driver.finish_restore(&acme.tenant, &limits(), &[]).await.unwrap(), facts);
    assert_eq!(server.driver.finish_restore(&acme.tenant, &limits(), &[]).await.unwrap(), facts);

    // Then the mover's login is refused, and the tenant stays locked out until it is resumed.
    assert!(mover_logs_in(&login).await.is_err());
    assert_eq!(server.driver.probe(&acme.tenant, LoginSlot::A, &acme.password).await.unwrap(), Probe::Refused);
    server.driver.resume(&acme.tenant).await.unwrap();

    // Then everything belongs to the tenant's owner role.
    let mut session = acme.logs_in().await.unwrap();
    let owners: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT pg_get_userbyid(owner)::text FROM (SELECT relowner AS owner FROM pg_class c JOIN pg_namespace n \
         ON n.oid = relnamespace AND nspname = 'app' UNION SELECT nspowner FROM pg_namespace WHERE nspname = 'app' \
         UNION SELECT lomowner FROM pg_largeobject_metadata) AS everything",
    )
    .fetch_all(&mut session)
    .await
    .unwrap();
    assert_eq!(owners, [format!("{}_own", acme.tenant.name)]);
    assert!(session.execute("CREATE SCHEMA more").await.is_err());
    session.execute("CREATE TABLE later (id int)").await.unwrap();
    session.close().await.unwrap();

    // When the operator prepares a restore over the restored database, then it is refused.
    let in_use = server.driver.prepare_restore(&acme.tenant, &limits(), &acme.secret, &[]).await;
    assert!(matches!(in_use, Err(Error::AlreadyExists(_))), "{in_use:?}");
    server.drop_tenant(&acme.tenant, &facts).await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn what_cannot_be_reached_is_said_quickly() {
    // Given a listener that never answers.
    let server = TestServer::connect().await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();

    // When the operator connects to it.
    let begun = std::time::Instant::now();
    let refused = server.operator_connects_to_port(silent.local_addr().unwrap().port()).await.unwrap_err();

    // Then it is told within eleven seconds that the server cannot be reached.
    assert!(matches!(refused, Error::Unreachable { .. }), "{refused:?}");
    assert!(begun.elapsed() < Duration::from_secs(11), "{:?}", begun.elapsed());

    // When the operator connects with a wrong password.
    let wrong = server.operator_connects_with_password("wrong").await.unwrap_err();

    // Then it is told so, without the password.
    assert!(matches!(wrong, Error::AuthenticationFailed { .. }), "{wrong:?}");
    assert!(!wrong.to_string().contains("wrong\""), "{wrong}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_hundred_tenants_are_made_and_dropped_four_at_once() {
    use futures::{StreamExt, stream};

    // Given a hundred tenants.
    let server = Arc::new(TestServer::connect().await);
    let tenants: Vec<_> = (0..100).map(|_| (Tenant::of(&new_uid()).unwrap(), new_login_secret(LoginSlot::A).1)).collect();

    // When the operator creates and drops their databases, four at once, then every call succeeds.
    let begun = std::time::Instant::now();
    let facts: Vec<_> = stream::iter(&tenants)
        .map(|(tenant, secret)| {
            let server = server.clone();
            async move { server.driver.ensure(tenant, &limits(), secret).await.unwrap().facts }
        })
        .buffered(4)
        .collect()
        .await;
    let made = begun.elapsed();
    let begun = std::time::Instant::now();
    stream::iter(tenants.iter().zip(&facts))
        .for_each_concurrent(4, |((tenant, _), facts)| {
            let server = server.clone();
            async move { server.drop_tenant(tenant, facts).await }
        })
        .await;
    println!("100 tenants, 4 at once: made in {made:.1?}, dropped in {:.1?}", begun.elapsed());
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn the_server_keeps_the_verifier_that_was_computed_here_and_never_sees_the_password() {
    // Given a tenant.
    let server = TestServer::connect().await;
    let acme = server.create_tenant().await;

    // When a superuser reads what the server stores of its password.
    let mut root = server.superuser_logs_in().await;
    let stored: String = sqlx::query_scalar("SELECT rolpassword FROM pg_authid WHERE rolname = $1")
        .bind(acme.tenant.login(LoginSlot::A))
        .fetch_one(&mut root)
        .await
        .unwrap();

    // Then it is the verifier that the operator computed.
    assert!(stored.starts_with("SCRAM-SHA-256$4096:"), "the server made a verifier of its own");
    acme.drop_database().await;
}
