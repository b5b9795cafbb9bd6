//! Tenants that use all of SQL against their own end and against their neighbours' lives.
//!
//! What a tenant holds is held in a transaction that it never ends. Each step of the operator is asked for once: one
//! that needed a second try is a failure, however long the first one took.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use helpdesk_operator::database::{LoginSlot, Probe, RotationStep, Tenant};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

use super::desk::{Desk, Made, as_mover, code, fresh_secret, terms};

/// Everything that a tenant can lock and that some statement of the operator needs: in its own database, on its own
/// roles, and in the catalogs that all databases share. `{t}` is the tenant's name.
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

/// Whatever one tenant can lock of another, and what it can write down about it. `{v}` is the other's name.
const OTHERS_LOCKS: [&str; 5] = [
    "ALTER ROLE CURRENT_USER IN DATABASE {v} SET work_mem = '4MB'",
    "SET ROLE NONE; ALTER ROLE CURRENT_USER IN DATABASE {v} SET work_mem = '4MB'",
    "GRANT USAGE ON SCHEMA app TO {roles}",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {roles}",
    "CREATE POLICY for_them ON app.kept TO {roles}; GRANT SELECT (id) ON app.kept TO {roles}",
];

async fn furnish(made: &Made<'_>) {
    let mut session = made.session().await.unwrap();
    session.execute("CREATE TABLE kept (id int); INSERT INTO kept VALUES (7); SELECT lo_from_bytea(4711, 'large')").await.unwrap();
    session.close().await.unwrap();
}

/// A session of the tenant that keeps what it got.
async fn holding(made: &Made<'_>, sql: &str) -> PgConnection {
    let mut session = made.session().await.unwrap();
    session
        .execute(AssertSqlSafe(format!("BEGIN; {}", sql.replace("{t}", &made.tenant.name))))
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e}"));
    session
}

async fn side_by_side(lives: impl IntoIterator<Item = impl Future<Output = ()>>) {
    futures::stream::iter(lives).buffer_unordered(7).collect::<Vec<()>>().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn no_lock_of_a_tenant_delays_its_block() {
    let desk = &Desk::open().await;
    side_by_side(OWN_LOCKS.map(|lock| {
        Box::pin(async move {
            let made = desk.tenant().await;
            furnish(&made).await;
            let mut held = holding(&made, lock).await;
            let left = desk.server.suspend(&made.tenant).await.unwrap_or_else(|e| panic!("{lock}: {e}"));
            assert_eq!(left.sessions_left, 0, "{lock}: {left:?}");
            assert!(held.execute("SELECT 1").await.is_err(), "{lock}: its session outlived the block");
            let refused = made.session().await.unwrap_err();
            assert!(["28000", "42501", "28P01"].contains(&code(&refused).as_str()), "{lock}: {refused}");
            let seen = desk.server.observe(&made.tenant).await.unwrap();
            assert!(!seen.can_login && seen.sessions == 0, "{lock}: {seen:?}");
            desk.server.resume(&made.tenant).await.unwrap_or_else(|e| panic!("{lock}: {e}"));
            desk.server.set_password(&made.tenant, &made.secret).await.unwrap();
            assert_eq!(desk.server.probe(&made.tenant, LoginSlot::A, &made.password).await.unwrap(), Probe::LetIn, "{lock}");
            made.gone().await;
        })
    }))
    .await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_commit_at_any_moment_does_not_break_a_block() {
    let desk = Arc::new(Desk::open().await);
    for round in 0..12_u64 {
        let made = desk.tenant().await;
        let name = made.tenant.name.clone();
        let mut session = made.session().await.unwrap();
        let restless = tokio::spawn(async move {
            let sql = format!("BEGIN; SET LOCAL ROLE NONE; ALTER ROLE {name}_a PASSWORD 'x'; SELECT pg_sleep(0.0{round}); COMMIT");
            while session.execute(AssertSqlSafe(sql.clone())).await.is_ok() {}
        });
        tokio::time::sleep(Duration::from_millis(20 + round)).await;
        let left = desk.server.suspend(&made.tenant).await.unwrap();
        assert_eq!(left.sessions_left, 0, "{left:?}");
        assert!(!desk.server.observe(&made.tenant).await.unwrap().can_login);
        restless.await.unwrap();
        made.gone().await;
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn no_lock_of_a_tenant_delays_a_change_of_its_login_or_its_backup() {
    let desk = &Desk::open().await;
    side_by_side(OWN_LOCKS.map(|lock| {
        Box::pin(async move {
            let made = desk.tenant().await;
            furnish(&made).await;
            let (password, secret) = fresh_secret(LoginSlot::B);
            let step = |step: &'static str| move |e: helpdesk_operator::database::Error| -> () { panic!("{lock}: {step}: {e}") };
            let _held = holding(&made, lock).await;
            desk.server.dump_login(&made.tenant).await.map(drop).unwrap_or_else(step("the login for a dump"));
            let _held = made.session().await.map(drop);
            desk.server.revoke_dump_login(&made.tenant).await.unwrap_or_else(step("its removal"));
            desk.server.set_password(&made.tenant, &made.secret).await.unwrap_or_else(step("a password"));
            desk.server.begin_rotation(&made.tenant, &terms(), &secret).await.unwrap_or_else(step("another login"));
            // Its own sessions are waited for; here they are ended by somebody else.
            let mut root = desk.superuser().await;
            let end = format!("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{}_a'", made.tenant.name);
            root.execute(AssertSqlSafe(end)).await.unwrap();
            let mut session = desk.session(&made.tenant.login(LoginSlot::B), password.expose(), &made.tenant.name).await.unwrap();
            session.execute("BEGIN; LOCK TABLE kept IN ACCESS EXCLUSIVE MODE").await.unwrap();
            let done = desk.server.finish_rotation(&made.tenant, LoginSlot::A).await.unwrap_or_else(|e| panic!("{lock}: {e}"));
            assert_eq!(done, RotationStep::Done, "{lock}");
            made.gone().await;
        })
    }))
    .await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn nothing_that_a_neighbour_holds_or_names_delays_a_tenants_life() {
    let desk = Desk::open().await;
    let neighbour = desk.tenant().await;
    furnish(&neighbour).await;
    let victim = desk.tenant().await;
    furnish(&victim).await;
    // Every role of the victim that there is now, named in transactions that are open and in ones that are over.
    let roles = async |tenant: &Tenant| -> String {
        let names: Vec<String> = sqlx::query_scalar("SELECT rolname::text FROM pg_roles WHERE rolname LIKE $1 || '\\_%'")
            .bind(&tenant.name)
            .fetch_all(&mut desk.superuser().await)
            .await
            .unwrap();
        names.join(", ")
    };
    let mut held = Vec::new();
    let mut surround = async || {
        held.clear();
        let (roles, mut busy) = (roles(&victim.tenant).await, Vec::new());
        for lock in OTHERS_LOCKS {
            let sql = lock.replace("{v}", &victim.tenant.name).replace("{roles}", &roles);
            let mut session = neighbour.session().await.unwrap();
            session.execute("DROP POLICY IF EXISTS for_them ON app.kept").await.ok();
            session.execute(AssertSqlSafe(sql.clone())).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        }
        for lock in OTHERS_LOCKS {
            let sql = lock.replace("{v}", &victim.tenant.name).replace("{roles}", &roles).replace("for_them", "for_us");
            let mut session = neighbour.session().await.unwrap();
            // They may wait for each other: what is asked for is asked for in vain, or held.
            session.execute("SET lock_timeout = '50ms'; BEGIN").await.unwrap();
            if session.execute(AssertSqlSafe(sql)).await.is_ok() {
                busy.push(session);
            }
        }
        assert!(busy.len() >= 2, "nothing is held");
        held = busy;
    };

    let login = desk.server.dump_login(&victim.tenant).await.unwrap();
    surround().await;
    let again = desk.server.dump_login(&victim.tenant).await.unwrap();
    assert_eq!(login.username, again.username);
    as_mover(&again).await.unwrap().close().await.unwrap();
    desk.server.revoke_dump_login(&victim.tenant).await.unwrap();
    desk.server.scratch(&victim.tenant, "one").await.unwrap();
    surround().await;
    desk.server.drop_scratch(&victim.tenant, "one").await.unwrap();

    let (password, secret) = fresh_secret(LoginSlot::B);
    desk.server.begin_rotation(&victim.tenant, &terms(), &secret).await.unwrap();
    surround().await;
    assert_eq!(desk.server.finish_rotation(&victim.tenant, LoginSlot::A).await.unwrap(), RotationStep::Done);
    surround().await;
    assert_eq!(desk.server.suspend(&victim.tenant).await.unwrap().sessions_left, 0);
    surround().await;
    desk.server.resume(&victim.tenant).await.unwrap();
    assert_eq!(desk.server.probe(&victim.tenant, LoginSlot::B, &password).await.unwrap(), Probe::LetIn);
    surround().await;
    desk.remove(&victim.tenant, &victim.facts).await;
    assert_eq!(roles(&victim.tenant).await, "", "every role is gone");

    let (facts, restoring) = desk.server.prepare_restore(&victim.tenant, &terms(), &secret, &[]).await.unwrap();
    as_mover(&restoring).await.unwrap().execute("CREATE SCHEMA app; CREATE TABLE app.kept (id int)").await.unwrap();
    surround().await;
    desk.server.finish_restore(&victim.tenant, &terms(), &[]).await.unwrap();
    surround().await;
    desk.remove(&victim.tenant, &facts).await;
    neighbour.gone().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_role_that_is_named_again_and_again_stays_as_a_shell_and_is_removed_later() {
    let desk = Desk::open().await;
    let (neighbour, victim) = (desk.tenant().await, desk.tenant().await);
    let uid = victim.tenant.uid.clone();
    // Whoever names it in a database that lets nobody in cannot be undone for now.
    let mut session = neighbour.session().await.unwrap();
    session.execute(AssertSqlSafe(format!("GRANT USAGE ON SCHEMA app TO {0}_own, {0}_a", victim.tenant.name))).await.unwrap();
    session.close().await.unwrap();
    let mut root = desk.superuser().await;
    root.execute(AssertSqlSafe(format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", neighbour.tenant.name))).await.unwrap();

    desk.remove(&victim.tenant, &victim.facts).await;
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
    let seen = desk.server.observe(&victim.tenant).await.unwrap();
    assert!(seen.database.is_none() && !seen.foreign && !seen.can_login, "{seen:?}");
    let gone = std::collections::BTreeSet::from([uid]);
    assert_eq!(desk.server.remove_shells(&gone).await.unwrap(), [name("a"), name("own")]);

    // It can even come back, as its roles are still marked.
    let (password, secret) = fresh_secret(LoginSlot::A);
    let (facts, restoring) = desk.server.prepare_restore(&victim.tenant, &terms(), &secret, &[]).await.unwrap();
    as_mover(&restoring).await.unwrap().execute("CREATE SCHEMA app").await.unwrap();
    assert!(desk.server.remove_shells(&gone).await.unwrap().is_empty(), "a restore runs");
    desk.server.finish_restore(&victim.tenant, &terms(), &[]).await.unwrap();
    desk.server.resume(&victim.tenant).await.unwrap();
    assert_eq!(desk.server.probe(&victim.tenant, LoginSlot::A, &password).await.unwrap(), Probe::LetIn);
    desk.remove(&victim.tenant, &facts).await;

    root.execute(AssertSqlSafe(format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", neighbour.tenant.name))).await.unwrap();
    assert!(desk.server.remove_shells(&gone).await.unwrap().is_empty());
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_roles WHERE rolname LIKE $1 || '\\_%'")
        .bind(&victim.tenant.name)
        .fetch_one(&mut root)
        .await
        .unwrap();
    assert_eq!(left, 0);
    neighbour.gone().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn what_a_mover_may_read_is_its_tenants_and_what_it_cannot_read_is_named() {
    let desk = Desk::open().await;
    let (made, other) = (desk.tenant().await, desk.tenant().await);
    furnish(&made).await;
    furnish(&other).await;
    let login = desk.server.dump_login(&made.tenant).await.unwrap();
    let mut mover = as_mover(&login).await.unwrap();
    for secret in ["SELECT rolpassword FROM pg_authid", "SELECT * FROM pg_largeobject", "SELECT pg_read_file('/etc/passwd')"] {
        let refused = mover.execute(secret).await.unwrap_err();
        assert_eq!(code(&refused), "42501", "{secret}: {refused}");
    }
    assert!(desk.session(&login.username, login.password.expose(), &other.tenant.name).await.is_err());
    // Somebody mended something by hand, and forgot whose it should be.
    let mut root = desk.superuser_in(&made.tenant.name).await;
    root.execute("CREATE TABLE app.mended (id int)").await.unwrap();
    let told = desk.server.dump_login(&made.tenant).await.unwrap_err().to_string();
    assert!(told.contains("app.mended belongs to postgres") && told.contains("ALTER TABLE"), "{told}");
    root.execute(AssertSqlSafe(format!("ALTER TABLE app.mended OWNER TO {}_own", made.tenant.name))).await.unwrap();
    root.close().await.unwrap();
    let login = desk.server.dump_login(&made.tenant).await.unwrap();
    as_mover(&login).await.unwrap().execute("TABLE app.mended").await.unwrap();
    made.gone().await;
    other.gone().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_size_that_cannot_be_measured_delays_no_look() {
    let desk = Desk::open().await;
    let made = desk.tenant().await;
    assert!(desk.server.size(&made.tenant).await.unwrap() > 0);
    desk.server.suspend(&made.tenant).await.unwrap();
    // The server refuses the size to whoever may not connect, although it owns the database.
    let mut root = desk.superuser().await;
    let (database, admin) = (&made.tenant.name, &desk.admin);
    root.execute(AssertSqlSafe(format!("REVOKE ALL ON DATABASE {database} FROM {admin}"))).await.unwrap();
    desk.server.size(&made.tenant).await.unwrap_err();
    assert_eq!(desk.server.observe(&made.tenant).await.unwrap().database, Some(made.facts.clone()));
    root.execute(AssertSqlSafe(format!("GRANT ALL ON DATABASE {database} TO {admin}"))).await.unwrap();
    made.gone().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_leftover_that_another_admin_role_made_keeps_no_other_from_being_removed() {
    let desk = Desk::open().await;
    let made = desk.tenant().await;
    desk.server.dump_login(&made.tenant).await.unwrap();
    let other = Tenant::of(&super::desk::fresh_uid()).unwrap();
    let mut root = desk.superuser().await;
    root.execute(AssertSqlSafe(format!("CREATE ROLE {0}_dump; COMMENT ON ROLE {0}_dump IS '{1}'", other.name, other.uid))).await.unwrap();
    let ours = [made.tenant.uid.clone(), other.uid.clone()];
    let busy = desk.all_uids().await.into_iter().filter(|uid| !ours.contains(uid)).collect();
    let gone = desk.server.drop_own_leftovers(&busy).await.unwrap();
    assert_eq!(gone, [format!("{}_dump", made.tenant.name)]);
    let left = desk.server.remove_shells(&std::collections::BTreeSet::from([other.uid.clone()])).await.unwrap();
    assert_eq!(left, [format!("{}_dump", other.name)]);
    root.execute(AssertSqlSafe(format!("DROP ROLE {}_dump", other.name))).await.unwrap();
    made.gone().await;
}

/// Takes every connection that the server gives, so it is run by itself.
#[tokio::test]
#[ignore = "needs a PostgreSQL of its own, with reserved_connections: make test"]
async fn by_itself_tenants_who_take_every_connection_are_shut_all_the_same() {
    let desk = Desk::open().await;
    let mut everything = terms();
    everything.connection_limit = 2_000;
    let (greedy, quiet) = (desk.tenant_on(&everything).await, desk.tenant().await);
    let told = desk.server.identify().await.unwrap().connections;
    assert!(told.kept >= helpdesk_operator::database::Connections::NEEDED, "{told:?}");
    assert_eq!(told.scarcity().map(|(reason, _)| reason), Some("MorePromised"));
    let mut taken = Vec::new();
    let refused = loop {
        match greedy.session().await {
            Ok(session) => taken.push(session),
            Err(error) => break error,
        }
    };
    assert_eq!(code(&refused), "53300", "{refused}");
    // An operator that begins now gets in, and does what is due.
    let fresh = desk.connect_as(&desk.admin, super::desk::ADMIN_PASSWORD).await;
    assert_eq!(fresh.suspend(&quiet.tenant).await.unwrap().sessions_left, 0);
    assert_eq!(fresh.suspend(&greedy.tenant).await.unwrap().sessions_left, 0);
    assert!(!fresh.observe(&greedy.tenant).await.unwrap().can_login);
    println!("{} connections were taken", taken.len());
    greedy.gone().await;
    quiet.gone().await;
}
