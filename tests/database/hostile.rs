//! Tenants that use all of SQL against the end of their own database and against their neighbours.
//!
//! A tenant holds its locks in a transaction that it never ends. The tests call each step of the operator once: a step
//! that needs a second try fails the test, however long the first one took.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use helpdesk_operator::database::{LoginSlot, Probe, RotationStep, Tenant};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use super::test_server::{TestServer, TestTenant, limits, mover_logs_in, new_login_secret, sqlstate};

/// Statements that lock what some statement of the operator needs: in the tenant's database, on its roles, and in the
/// catalogs that all databases share. `{t}` is the tenant's name.
const OWN_LOCKS: [&str; 14] = [
    "SET ROLE NONE; ALTER ROLE {t}_a PASSWORD 'x'",
    "ALTER ROLE CURRENT_USER PASSWORD 'x'",
    "SET ROLE NONE; ALTER ROLE {t}_a SET work_mem = '4MB'",
    "SET ROLE NONE; ALTER ROLE {t}_a IN DATABASE {t} SET work_mem = '4MB'",
    "ALTER ROLE CURRENT_USER IN DATABASE {t} SET work_mem = '4MB'",
    "GRANT CONNECT ON DATABASE {t} TO {t}_own",
    "GRANT USAGE ON SCHEMA app TO {t}_a, {t}_own",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {t}_a",
    "LOCK TABLE app.kept IN ACCESS EXCLUSIVE MODE",
    "ALTER TABLE app.kept ADD COLUMN more int",
    "SELECT lo_put(4711, 0, 'x'); GRANT SELECT ON LARGE OBJECT 4711 TO {t}_a",
    "LOCK TABLE pg_database, pg_auth_members, pg_db_role_setting, pg_shdepend, pg_shdescription IN ACCESS SHARE MODE",
    "LOCK TABLE pg_class, pg_namespace, pg_proc, pg_type, pg_depend, pg_extension, pg_largeobject_metadata IN ACCESS SHARE MODE",
    "SELECT pg_advisory_lock(generate_series(0, 63)); SELECT pg_advisory_xact_lock(1751412592)",
];

/// Statements of one tenant that lock or name the roles `{roles}` of another, `{v}`.
const OTHERS_LOCKS: [&str; 5] = [
    "ALTER ROLE CURRENT_USER IN DATABASE {v} SET work_mem = '4MB'",
    "SET ROLE NONE; ALTER ROLE CURRENT_USER IN DATABASE {v} SET work_mem = '4MB'",
    "GRANT USAGE ON SCHEMA app TO {roles}",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {roles}",
    "CREATE POLICY for_them ON app.kept TO {roles}; GRANT SELECT (id) ON app.kept TO {roles}",
];

async fn tenant_creates_kept_table(acme: &TestTenant<'_>) {
    let mut session = acme.logs_in().await.unwrap();
    session.execute("CREATE TABLE kept (id int); INSERT INTO kept VALUES (7); SELECT lo_from_bytea(4711, 'large')").await.unwrap();
    session.close().await.unwrap();
}

/// The tenant runs the SQL in a transaction and never ends it. Returns the session.
async fn tenant_holds(acme: &TestTenant<'_>, sql: &str) -> PgConnection {
    let mut session = acme.logs_in().await.unwrap();
    session
        .execute(AssertSqlSafe(format!("BEGIN; {}", sql.replace("{t}", &acme.tenant.name))))
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"));
    session
}

async fn run_concurrently(lives: impl IntoIterator<Item = impl Future<Output = ()>>) {
    futures::stream::iter(lives).buffer_unordered(7).collect::<Vec<()>>().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn no_lock_of_a_tenant_delays_its_block() {
    let server = &TestServer::connect().await;
    run_concurrently(OWN_LOCKS.map(|lock| {
        Box::pin(async move {
            // Given a tenant who holds a lock in a transaction that it never ends.
            let acme = server.create_tenant().await;
            tenant_creates_kept_table(&acme).await;
            let mut held = tenant_holds(&acme, lock).await;

            // When the operator suspends the tenant.
            let left = server.driver.suspend(&acme.tenant).await.unwrap_or_else(|e| panic!("{lock}: {e}"));

            // Then its sessions are ended at the first try, and it cannot log in.
            assert_eq!(left.sessions_left, 0, "{lock}: {left:?}");
            assert!(held.execute("SELECT 1").await.is_err(), "{lock}: its session outlived the block");
            let refused = acme.logs_in().await.unwrap_err();
            assert!(["28000", "42501", "28P01"].contains(&sqlstate(&refused).as_str()), "{lock}: {refused}");
            let seen = server.driver.observe(&acme.tenant).await.unwrap();
            assert!(!seen.can_login && seen.sessions == 0, "{lock}: {seen:?}");

            // When the operator resumes the tenant.
            server.driver.resume(&acme.tenant).await.unwrap_or_else(|e| panic!("{lock}: {e}"));
            server.driver.set_password(&acme.tenant, &acme.secret).await.unwrap();

            // Then the tenant logs in.
            assert_eq!(server.driver.probe(&acme.tenant, LoginSlot::A, &acme.password).await.unwrap(), Probe::LetIn, "{lock}");
            acme.drop_database().await;
        })
    }))
    .await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_commit_at_any_moment_does_not_break_a_block() {
    let server = Arc::new(TestServer::connect().await);
    for round in 0..12_u64 {
        // Given a tenant who changes its own role again and again, with commits at another moment in each round.
        let acme = server.create_tenant().await;
        let name = acme.tenant.name.clone();
        let mut session = acme.logs_in().await.unwrap();
        let restless = tokio::spawn(async move {
            let sql = format!("BEGIN; SET LOCAL ROLE NONE; ALTER ROLE {name}_a PASSWORD 'x'; SELECT pg_sleep(0.0{round}); COMMIT");
            while session.execute(AssertSqlSafe(sql.clone())).await.is_ok() {}
        });
        tokio::time::sleep(Duration::from_millis(20 + round)).await;

        // When the operator suspends the tenant.
        let left = server.driver.suspend(&acme.tenant).await.unwrap();

        // Then no session is left, and it cannot log in.
        assert_eq!(left.sessions_left, 0, "{left:?}");
        assert!(!server.driver.observe(&acme.tenant).await.unwrap().can_login);
        restless.await.unwrap();
        acme.drop_database().await;
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn no_lock_of_a_tenant_delays_a_change_of_its_login_or_its_backup() {
    let server = &TestServer::connect().await;
    run_concurrently(OWN_LOCKS.map(|lock| {
        Box::pin(async move {
            // Given a tenant who holds a lock in a transaction that it never ends.
            let acme = server.create_tenant().await;
            tenant_creates_kept_table(&acme).await;
            let (password, secret) = new_login_secret(LoginSlot::B);
            let step = |step: &'static str| move |e: helpdesk_operator::database::Error| -> () { panic!("{lock}: {step}: {e}") };
            let _held = tenant_holds(&acme, lock).await;

            // When the operator creates and revokes a login for a dump, sets a password and begins a rotation, then
            // each succeeds at the first try.
            server.driver.dump_login(&acme.tenant).await.map(drop).unwrap_or_else(step("the login for a dump"));
            let _held = acme.logs_in().await.map(drop);
            server.driver.revoke_dump_login(&acme.tenant).await.unwrap_or_else(step("its removal"));
            server.driver.set_password(&acme.tenant, &acme.secret).await.unwrap_or_else(step("a password"));
            server.driver.begin_rotation(&acme.tenant, &limits(), &secret).await.unwrap_or_else(step("another login"));

            // When the old sessions end, and the tenant locks a table with the new login. The operator waits for
            // sessions of the old login, so a superuser ends them here.
            let mut root = server.superuser_logs_in().await;
            let end = format!("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{}_a'", acme.tenant.name);
            root.execute(AssertSqlSafe(end)).await.unwrap();
            let mut session = server.log_in(&acme.tenant.login(LoginSlot::B), password.expose(), &acme.tenant.name).await.unwrap();
            session.execute("BEGIN; LOCK TABLE kept IN ACCESS EXCLUSIVE MODE").await.unwrap();

            // Then the rotation finishes at the first try.
            let done = server.driver.finish_rotation(&acme.tenant, LoginSlot::A).await.unwrap_or_else(|e| panic!("{lock}: {e}"));
            assert_eq!(done, RotationStep::Done, "{lock}");
            acme.drop_database().await;
        })
    }))
    .await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn nothing_that_a_neighbour_holds_or_names_delays_a_tenants_life() {
    // Given a neighbour who names every role of the victim, in transactions that are committed and in ones that stay
    // open.
    let server = TestServer::connect().await;
    let neighbour = server.create_tenant().await;
    tenant_creates_kept_table(&neighbour).await;
    let victim = server.create_tenant().await;
    tenant_creates_kept_table(&victim).await;
    let roles = async |tenant: &Tenant| -> String {
        let names: Vec<String> = sqlx::query_scalar("SELECT rolname::text FROM pg_roles WHERE rolname LIKE $1 || '\\_%'")
            .bind(&tenant.name)
            .fetch_all(&mut server.superuser_logs_in().await)
            .await
            .unwrap();
        names.join(", ")
    };
    let mut held = Vec::new();
    let mut neighbour_names_and_locks_the_victim = async || {
        held.clear();
        let (roles, mut busy) = (roles(&victim.tenant).await, Vec::new());
        for lock in OTHERS_LOCKS {
            let sql = lock.replace("{v}", &victim.tenant.name).replace("{roles}", &roles);
            let mut session = neighbour.logs_in().await.unwrap();
            session.execute("DROP POLICY IF EXISTS for_them ON app.kept").await.ok();
            session.execute(AssertSqlSafe(sql.clone())).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        }
        for lock in OTHERS_LOCKS {
            let sql = lock.replace("{v}", &victim.tenant.name).replace("{roles}", &roles).replace("for_them", "for_us");
            let mut session = neighbour.logs_in().await.unwrap();
            // These statements may wait for each other. Each either times out or holds its lock.
            session.execute("SET lock_timeout = '50ms'; BEGIN").await.unwrap();
            if session.execute(AssertSqlSafe(sql)).await.is_ok() {
                busy.push(session);
            }
        }
        assert!(busy.len() >= 2, "nothing is held");
        held = busy;
    };

    // When the neighbour does so before each step of a dump and of a scratch database, then each step succeeds.
    let login = server.driver.dump_login(&victim.tenant).await.unwrap();
    neighbour_names_and_locks_the_victim().await;
    let again = server.driver.dump_login(&victim.tenant).await.unwrap();
    assert_eq!(login.username, again.username);
    mover_logs_in(&again).await.unwrap().close().await.unwrap();
    server.driver.revoke_dump_login(&victim.tenant).await.unwrap();
    server.driver.scratch(&victim.tenant, "one").await.unwrap();
    neighbour_names_and_locks_the_victim().await;
    server.driver.drop_scratch(&victim.tenant, "one").await.unwrap();

    // When the neighbour does so before each step of a rotation, a block and a drop, then each step succeeds, and no
    // role is left.
    let (password, secret) = new_login_secret(LoginSlot::B);
    server.driver.begin_rotation(&victim.tenant, &limits(), &secret).await.unwrap();
    neighbour_names_and_locks_the_victim().await;
    assert_eq!(server.driver.finish_rotation(&victim.tenant, LoginSlot::A).await.unwrap(), RotationStep::Done);
    neighbour_names_and_locks_the_victim().await;
    assert_eq!(server.driver.suspend(&victim.tenant).await.unwrap().sessions_left, 0);
    neighbour_names_and_locks_the_victim().await;
    server.driver.resume(&victim.tenant).await.unwrap();
    assert_eq!(server.driver.probe(&victim.tenant, LoginSlot::B, &password).await.unwrap(), Probe::LetIn);
    neighbour_names_and_locks_the_victim().await;
    server.drop_tenant(&victim.tenant, &victim.facts).await;
    assert_eq!(roles(&victim.tenant).await, "", "every role is gone");

    // When the neighbour does so before each step of a restore, then each step succeeds.
    let (facts, restoring) = server.driver.prepare_restore(&victim.tenant, &limits(), &secret, &[]).await.unwrap();
    mover_logs_in(&restoring).await.unwrap().execute("CREATE SCHEMA app; CREATE TABLE app.kept (id int)").await.unwrap();
    neighbour_names_and_locks_the_victim().await;
    server.driver.finish_restore(&victim.tenant, &limits(), &[]).await.unwrap();
    neighbour_names_and_locks_the_victim().await;
    server.drop_tenant(&victim.tenant, &facts).await;
    neighbour.drop_database().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_role_that_is_named_again_and_again_stays_as_a_shell_and_is_removed_later() {
    // Given a neighbour who names the victim's roles in a database that lets nobody in, so that the grants cannot be
    // revoked.
    let server = TestServer::connect().await;
    let (neighbour, victim) = (server.create_tenant().await, server.create_tenant().await);
    let uid = victim.tenant.uid.clone();
    let mut session = neighbour.logs_in().await.unwrap();
    session.execute(AssertSqlSafe(format!("GRANT USAGE ON SCHEMA app TO {0}_own, {0}_a", victim.tenant.name))).await.unwrap();
    session.close().await.unwrap();
    let mut root = server.superuser_logs_in().await;
    root.execute(AssertSqlSafe(format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", neighbour.tenant.name))).await.unwrap();

    // When the operator drops the victim.
    server.drop_tenant(&victim.tenant, &victim.facts).await;

    // Then its roles stay as shells: without a login, and members of nothing. The operator names them as left.
    let shells: Vec<(String, bool, i64)> = sqlx::query_as(
        "SELECT rolname::text, rolcanlogin, (SELECT count(*) FROM pg_auth_members m WHERE m.member = r.oid) FROM pg_roles r \
         WHERE rolname LIKE $1 || '\\_%' ORDER BY 1",
    )
    .bind(&victim.tenant.name)
    .fetch_all(&mut root)
    .await
    .unwrap();
    let name = |suffix: &str| format!("{}_{suffix}", victim.tenant.name);
    assert_eq!(shells, [(name("a"), false, 0), (name("own"), false, 0)]);
    let seen = server.driver.observe(&victim.tenant).await.unwrap();
    assert!(seen.database.is_none() && !seen.foreign && !seen.can_login, "{seen:?}");
    let gone = std::collections::BTreeSet::from([uid]);
    assert_eq!(server.driver.remove_shells(&gone).await.unwrap(), [name("a"), name("own")]);

    // When the operator restores the victim, whose roles still bear its marker.
    let (password, secret) = new_login_secret(LoginSlot::A);
    let (facts, restoring) = server.driver.prepare_restore(&victim.tenant, &limits(), &secret, &[]).await.unwrap();
    mover_logs_in(&restoring).await.unwrap().execute("CREATE SCHEMA app").await.unwrap();

    // Then no shell is removed meanwhile, and the victim logs in afterwards.
    assert!(server.driver.remove_shells(&gone).await.unwrap().is_empty(), "a restore runs");
    server.driver.finish_restore(&victim.tenant, &limits(), &[]).await.unwrap();
    server.driver.resume(&victim.tenant).await.unwrap();
    assert_eq!(server.driver.probe(&victim.tenant, LoginSlot::A, &password).await.unwrap(), Probe::LetIn);

    // When the operator drops it again, and the neighbour's database lets the operator in.
    server.drop_tenant(&victim.tenant, &facts).await;

    root.execute(AssertSqlSafe(format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", neighbour.tenant.name))).await.unwrap();

    // Then no role is left.
    assert!(server.driver.remove_shells(&gone).await.unwrap().is_empty());
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_roles WHERE rolname LIKE $1 || '\\_%'")
        .bind(&victim.tenant.name)
        .fetch_one(&mut root)
        .await
        .unwrap();
    assert_eq!(left, 0);
    neighbour.drop_database().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn what_a_mover_may_read_is_its_tenants_and_what_it_cannot_read_is_named() {
    // Given two tenants, and a mover with the login for a dump of one.
    let server = TestServer::connect().await;
    let (acme, other) = (server.create_tenant().await, server.create_tenant().await);
    tenant_creates_kept_table(&acme).await;
    tenant_creates_kept_table(&other).await;
    let login = server.driver.dump_login(&acme.tenant).await.unwrap();
    let mut mover = mover_logs_in(&login).await.unwrap();

    // When the mover reads secrets of the server, or enters the other tenant's database, then it is refused.
    for secret in ["SELECT rolpassword FROM pg_authid", "SELECT * FROM pg_largeobject", "SELECT pg_read_file('/etc/passwd')"] {
        let refused = mover.execute(secret).await.unwrap_err();
        assert_eq!(sqlstate(&refused), "42501", "{secret}: {refused}");
    }
    assert!(server.log_in(&login.username, login.password.expose(), &other.tenant.name).await.is_err());

    // Given a table in the tenant's schema that belongs to a superuser.
    let mut root = server.superuser_logs_in_to(&acme.tenant.name).await;
    root.execute("CREATE TABLE app.mended (id int)").await.unwrap();

    // When the operator asks for a login for a dump.
    let told = server.driver.dump_login(&acme.tenant).await.unwrap_err().to_string();

    // Then the error names the table and the SQL that helps.
    assert!(told.contains("app.mended belongs to postgres") && told.contains("ALTER TABLE"), "{told}");

    // When a superuser runs that SQL.
    root.execute(AssertSqlSafe(format!("ALTER TABLE app.mended OWNER TO {}_own", acme.tenant.name))).await.unwrap();
    root.close().await.unwrap();

    // Then a mover reads the table.
    let login = server.driver.dump_login(&acme.tenant).await.unwrap();
    mover_logs_in(&login).await.unwrap().execute("TABLE app.mended").await.unwrap();
    acme.drop_database().await;
    other.drop_database().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_size_that_cannot_be_measured_delays_no_look() {
    // Given a suspended tenant, and an operator that may not connect to its database, although it owns it.
    let server = TestServer::connect().await;
    let acme = server.create_tenant().await;
    assert!(server.driver.size(&acme.tenant).await.unwrap() > 0);
    server.driver.suspend(&acme.tenant).await.unwrap();
    let mut root = server.superuser_logs_in().await;
    let (database, admin) = (&acme.tenant.name, &server.admin);
    root.execute(AssertSqlSafe(format!("REVOKE ALL ON DATABASE {database} FROM {admin}"))).await.unwrap();

    // When the operator measures the size, then the server refuses it.
    server.driver.size(&acme.tenant).await.unwrap_err();

    // Then the operator still observes the database.
    assert_eq!(server.driver.observe(&acme.tenant).await.unwrap().database, Some(acme.facts.clone()));
    root.execute(AssertSqlSafe(format!("GRANT ALL ON DATABASE {database} TO {admin}"))).await.unwrap();
    acme.drop_database().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_leftover_that_another_admin_role_made_keeps_no_other_from_being_removed() {
    // Given two leftover roles, one of which another admin role created.
    let server = TestServer::connect().await;
    let acme = server.create_tenant().await;
    server.driver.dump_login(&acme.tenant).await.unwrap();
    let other = Tenant::of(&super::test_server::new_uid()).unwrap();
    let mut root = server.superuser_logs_in().await;
    root.execute(AssertSqlSafe(format!("CREATE ROLE {0}_dump; COMMENT ON ROLE {0}_dump IS '{1}'", other.name, other.uid))).await.unwrap();

    // When the operator drops the leftovers.
    let ours = [acme.tenant.uid.clone(), other.uid.clone()];
    let busy = server.marked_uids().await.into_iter().filter(|uid| !ours.contains(uid)).collect();
    let gone = server.driver.drop_own_leftovers(&busy).await.unwrap();

    // Then it drops its own, and names the other one as left.
    assert_eq!(gone, [format!("{}_dump", acme.tenant.name)]);
    let left = server.driver.remove_shells(&std::collections::BTreeSet::from([other.uid.clone()])).await.unwrap();
    assert_eq!(left, [format!("{}_dump", other.name)]);
    root.execute(AssertSqlSafe(format!("DROP ROLE {}_dump", other.name))).await.unwrap();
    acme.drop_database().await;
}

/// Takes every connection that the server gives, so it is run by itself.
#[tokio::test]
#[ignore = "needs a PostgreSQL of its own, with reserved_connections: make test"]
async fn by_itself_tenants_who_take_every_connection_are_shut_all_the_same() {
    // Given a tenant who takes every connection that the server gives, and a quiet one.
    let server = TestServer::connect().await;
    let mut everything = limits();
    everything.connection_limit = 2_000;
    let (greedy, quiet) = (server.create_tenant_with(&everything).await, server.create_tenant().await);
    let told = server.driver.identify().await.unwrap().connections;
    assert!(told.kept >= helpdesk_operator::database::Connections::NEEDED, "{told:?}");
    assert_eq!(told.scarcity().map(|(reason, _)| reason), Some("MorePromised"));
    let mut taken = Vec::new();
    let refused = loop {
        match greedy.logs_in().await {
            Ok(session) => taken.push(session),
            Err(error) => break error,
        }
    };
    assert_eq!(sqlstate(&refused), "53300", "{refused}");

    // When an operator starts now and suspends both.
    let fresh = server.operator_connects_as(&server.admin, super::test_server::ADMIN_PASSWORD).await;
    assert_eq!(fresh.suspend(&quiet.tenant).await.unwrap().sessions_left, 0);
    assert_eq!(fresh.suspend(&greedy.tenant).await.unwrap().sessions_left, 0);

    // Then both are locked out.
    assert!(!fresh.observe(&greedy.tenant).await.unwrap().can_login);
    println!("{} connections were taken", taken.len());
    greedy.drop_database().await;
    quiet.drop_database().await;
}
