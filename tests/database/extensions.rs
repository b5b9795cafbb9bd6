//! Extensions and schemas in databases of tenants.

use std::collections::BTreeSet;

use helpdesk_operator::{
    api::plan::{Extension, Schemas},
    database::{Error, Lacking, LoginSlot, RotationStep, Tenant, TenantLimits},
};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::test_server::{TestServer, limits, mover_logs_in, new_login_secret, new_uid, sqlstate};

fn limits_with(names: &[&str]) -> TenantLimits {
    let extensions = names.iter().map(|name| Extension { name: (*name).to_owned(), version: None }).collect();
    TenantLimits { extensions, ..limits() }
}

async fn installed_extensions(session: &mut PgConnection) -> Vec<String> {
    let sql = "SELECT extname || ' in ' || extnamespace::regnamespace FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1";
    sqlx::query_scalar(sql).fetch_all(session).await.unwrap()
}

async fn tenant_is_refused(session: &mut PgConnection, sql: &str) {
    let error = session.execute(AssertSqlSafe(sql.to_owned())).await.expect_err(sql);
    assert!(["42501", "42883", "3F000"].contains(&sqlstate(&error).as_str()), "{sql}: {error}");
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_tenant_uses_extensions_and_cannot_change_them() {
    // Given a tenant whose plan has four extensions.
    let server = TestServer::connect().await;
    let acme = server.create_tenant_with(&limits_with(&["pg_trgm", "citext", "hstore", "btree_gist"])).await;

    // When the tenant uses them, then it can.
    let mut session = acme.logs_in().await.unwrap();
    session
        .execute(
            "CREATE TABLE t (name citext UNIQUE, extra hstore, during tsrange, EXCLUDE USING gist ((name::text) WITH =, during WITH &&)); \
             CREATE INDEX ON t USING gin ((name::text) gin_trgm_ops); INSERT INTO t VALUES ('Ana', 'a=>1', 'empty')",
        )
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    let found: i64 =
        sqlx::query_scalar("SELECT count(*) FROM t WHERE name = 'ANA' AND extra -> 'a' = '1'").fetch_one(&mut session).await.unwrap();
    assert_eq!(found, 1);

    // When the tenant changes them or their schema, or creates others, by any of its roles, then it is refused.
    for sql in [
        "CREATE TABLE ext.mine (id int)",
        "CREATE FUNCTION ext.similarity(text, text) RETURNS real LANGUAGE sql AS 'SELECT 1'",
        "CREATE OPERATOR ext.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq)",
        "DROP EXTENSION citext CASCADE",
        "ALTER EXTENSION citext SET SCHEMA app",
        "ALTER EXTENSION citext UPDATE",
        "ALTER EXTENSION citext DROP FUNCTION ext.citext_eq(ext.citext, ext.citext)",
        "DROP SCHEMA ext CASCADE",
        "ALTER SCHEMA ext RENAME TO mine",
        "CREATE EXTENSION ltree",
        "CREATE SCHEMA mine",
        "DROP FUNCTION ext.similarity(text, text)",
    ] {
        tenant_is_refused(&mut session, sql).await;
        session.execute("SET ROLE NONE").await.unwrap();
        tenant_is_refused(&mut session, sql).await;
        session.execute(AssertSqlSafe(format!("SET ROLE {}_own", acme.tenant.name))).await.unwrap();
    }

    // When the tenant grants rights on their schema, then the grant is a warning and has no effect.
    session.execute("GRANT CREATE ON SCHEMA ext TO PUBLIC").await.ok();
    tenant_is_refused(&mut session, "CREATE TABLE ext.mine (id int)").await;
    session.close().await.unwrap();
    acme.drop_database().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_plan_that_gains_an_extension_gives_it_to_running_tenants_and_one_that_loses_it_drops_nothing() {
    // Given a tenant without extensions, who has created functions where the script of an extension could find them.
    let server = TestServer::connect().await;
    let acme = server.create_tenant().await;
    // The database is as it was before the operator knew of extensions.
    let mut root = server.superuser_logs_in_to(&acme.tenant.name).await;
    root.execute(AssertSqlSafe(format!(
        "DROP SCHEMA IF EXISTS ext; ALTER ROLE {0}_a IN DATABASE {0} SET search_path = app",
        acme.tenant.name
    )))
    .await
    .unwrap();
    root.close().await.unwrap();
    let mut session = acme.logs_in().await.unwrap();
    session
        .execute(
            "CREATE FUNCTION app.lower(citext_less name) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'planted'; END $$; \
             CREATE FUNCTION pg_temp.texteq(a varchar, b varchar) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'planted'; END $$",
        )
        .await
        .unwrap();

    // When its plan gains two extensions.
    let all = limits_with(&["hstore", "citext"]);
    for _ in 0..2 {
        assert_eq!(server.driver.ensure(&acme.tenant, &all, &acme.secret).await.unwrap().lacking, []);
    }

    // Then the tenant uses them.
    let mut fresh = acme.logs_in().await.unwrap();
    assert_eq!(installed_extensions(&mut fresh).await, ["citext in ext", "hstore in ext"]);
    let path: String = sqlx::query_scalar("SHOW search_path").fetch_one(&mut fresh).await.unwrap();
    assert_eq!(path, "app, ext");
    fresh.execute("SELECT 'a=>1'::hstore, 'A'::citext = 'a'").await.unwrap();

    // When the plan loses them.
    server.driver.ensure(&acme.tenant, &limits(), &acme.secret).await.unwrap();

    // Then both are kept.
    assert_eq!(installed_extensions(&mut fresh).await.len(), 2);

    // When the tenant sets a search_path of its own, and the operator ensures the tenant again.
    fresh
        .execute(AssertSqlSafe(format!("SET ROLE NONE; ALTER ROLE {0}_a IN DATABASE {0} SET search_path = ext, app", acme.tenant.name)))
        .await
        .unwrap();
    server.driver.ensure(&acme.tenant, &all, &acme.secret).await.unwrap();

    // Then the tenant's search_path is kept.
    let mut fresh = acme.logs_in().await.unwrap();
    let path: String = sqlx::query_scalar("SHOW search_path").fetch_one(&mut fresh).await.unwrap();
    assert_eq!(path, "ext, app");
    acme.drop_database().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn what_the_server_does_not_give_is_named_and_keeps_nothing_else_from_being_made() {
    // Given a plan that asks for one extension that the server gives, and three that it does not.
    let server = TestServer::connect().await;
    let tenant = Tenant::of(&new_uid()).unwrap();
    let (password, secret) = new_login_secret(LoginSlot::A);
    let mut wanted = limits_with(&["pg_trgm", "no_such_thing", "dblink"]);
    wanted.extensions.push(Extension { name: "hstore".into(), version: Some("99".into()) });

    // When the operator ensures the tenant.
    let ensured = server.driver.ensure(&tenant, &wanted, &secret).await.unwrap();

    // Then it names the three with the reason, and the tenant uses the other one.
    let why = |name: &str| ensured.lacking.iter().find(|l: &&Lacking| l.name == name).map(|l| l.why.clone()).unwrap_or_default();
    assert_eq!(ensured.lacking.len(), 3, "{:?}", ensured.lacking);
    assert!(why("no_such_thing").contains("package"), "{ensured:?}");
    assert!(why("dblink").contains("CREATE EXTENSION \"dblink\" SCHEMA ext"), "{ensured:?}");
    assert!(why("hstore").contains("99"), "{ensured:?}");
    let mut session = server.log_in(&tenant.login(LoginSlot::A), password.expose(), &tenant.name).await.unwrap();
    session.execute("SELECT similarity('a', 'b')").await.unwrap();
    session.close().await.unwrap();

    // When the operator asks the server what it offers, then it gets the same answer.
    let names: Vec<String> = wanted.extensions.iter().map(|e| e.name.clone()).collect();
    let offers = server.driver.offers(&names).await.unwrap();
    assert!(offers.iter().any(|o| o.name == "pg_trgm" && o.makeable) && offers.iter().any(|o| o.name == "dblink" && !o.makeable));
    assert!(offers.iter().any(|o| o.name == "no_such_thing" && o.version.is_none()), "{offers:?}");

    // When a superuser creates one of the missing extensions in that database.
    server.superuser_logs_in_to(&tenant.name).await.execute("CREATE EXTENSION dblink SCHEMA ext").await.unwrap();
    let ensured = server.driver.ensure(&tenant, &limits_with(&["pg_trgm", "dblink"]), &secret).await.unwrap();

    // Then nothing is missing there, and a copy says what it lacks.
    assert_eq!(ensured.lacking, []);
    let scratch = server.driver.scratch(&tenant, "verify").await;
    assert!(matches!(&scratch, Err(Error::ExtensionsMissing { lacking, .. }) if lacking.len() == 1), "{scratch:?}");

    // When a superuser creates a template that has the extension.
    let mut root = server.superuser_logs_in().await;
    root.execute("CREATE DATABASE helpdesk_template TEMPLATE template0 ENCODING 'UTF8'").await.unwrap();
    let mut inside = server.superuser_logs_in_to("helpdesk_template").await;
    inside.execute(AssertSqlSafe(format!("CREATE SCHEMA ext AUTHORIZATION {}", server.admin))).await.unwrap();
    inside.execute("CREATE EXTENSION dblink SCHEMA ext").await.unwrap();
    inside.close().await.unwrap();
    root.execute("ALTER DATABASE helpdesk_template IS_TEMPLATE true").await.unwrap();
    root.execute("ALTER DATABASE helpdesk_template ALLOW_CONNECTIONS false").await.unwrap();

    // Then a copy has it too.
    let login = server.driver.scratch(&tenant, "verify").await.unwrap();
    let mut session = mover_logs_in(&login).await.unwrap();
    assert_eq!(installed_extensions(&mut session).await, ["dblink in ext", "pg_trgm in ext"]);
    session.close().await.unwrap();
    root.execute("ALTER DATABASE helpdesk_template IS_TEMPLATE false").await.unwrap();
    root.execute("DROP DATABASE helpdesk_template").await.unwrap();
    server.driver.drop_scratch(&tenant, "verify").await.unwrap();
    server.drop_tenant(&tenant, &ensured.facts).await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn copies_have_the_extensions_that_were_made_for_the_tenant_in_their_versions() {
    // Given a tenant with an old version of an extension, as after an upgrade of the server, and with one that a
    // superuser made.
    let server = TestServer::connect().await;
    let acme = server.create_tenant_with(&limits_with(&["pg_trgm", "citext"])).await;
    let mut root = server.superuser_logs_in_to(&acme.tenant.name).await;
    root.execute("DROP EXTENSION pg_trgm; CREATE EXTENSION pg_trgm SCHEMA ext VERSION '1.5'; CREATE EXTENSION ltree SCHEMA app")
        .await
        .unwrap();
    root.close().await.unwrap();

    // When the operator creates a scratch database.
    let login = server.driver.scratch(&acme.tenant, "verify").await.unwrap();

    // Then it has the operator's extensions in the same versions, and lets the mover create the other one.
    let mut session = mover_logs_in(&login).await.unwrap();
    assert_eq!(installed_extensions(&mut session).await, ["citext in ext", "pg_trgm in ext"]);
    let version: String =
        sqlx::query_scalar("SELECT extversion FROM pg_extension WHERE extname = 'pg_trgm'").fetch_one(&mut session).await.unwrap();
    assert_eq!(version, "1.5");
    session
        .execute("CREATE SCHEMA app; CREATE EXTENSION IF NOT EXISTS ltree SCHEMA app; CREATE TABLE app.t (a ext.citext, b app.ltree)")
        .await
        .unwrap();
    tenant_is_refused(&mut session, "CREATE TABLE ext.t (a int)").await;
    session.close().await.unwrap();
    server.driver.drop_scratch(&acme.tenant, "verify").await.unwrap();

    // When the operator prepares a restore of a database that had an extension of a version that is unknown here.
    server.drop_tenant(&acme.tenant, &acme.facts).await;
    let had = [
        Extension { name: "pg_trgm".into(), version: Some("1.5".into()) },
        Extension { name: "hstore".into(), version: Some("0.1".into()) },
    ];
    let (facts, login) = server.driver.prepare_restore(&acme.tenant, &limits(), &acme.secret, &had).await.unwrap();

    // Then the extensions are there, and the restored tenant uses them.
    let mut session = mover_logs_in(&login).await.unwrap();
    assert_eq!(installed_extensions(&mut session).await, ["hstore in ext", "pg_trgm in ext"]);
    session.execute("CREATE SCHEMA app; CREATE TABLE app.t (h ext.hstore)").await.unwrap();
    session.close().await.unwrap();
    server.driver.finish_restore(&acme.tenant, &limits(), &[]).await.unwrap();
    server.driver.resume(&acme.tenant).await.unwrap();
    let mut session = acme.logs_in().await.unwrap();
    session.execute("SELECT h -> 'a' FROM t").await.unwrap();
    tenant_is_refused(&mut session, "CREATE SCHEMA mine").await;
    session.close().await.unwrap();
    server.drop_tenant(&acme.tenant, &facts).await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_tenant_with_schemas_of_its_own_stays_within_its_walls() {
    // Given a tenant who may create schemas, and who has created some with extensions and a publication.
    let server = TestServer::connect().await;
    let own = TenantLimits { schemas: Schemas::Own, ..limits() };
    let acme = server.create_tenant_with(&own).await;
    assert!(server.driver.observe(&acme.tenant).await.unwrap().makes_schemas);
    let mut session = acme.logs_in().await.unwrap();
    session
        .execute(
            "CREATE SCHEMA crm; CREATE TABLE crm.t (id int); CREATE SCHEMA traps; CREATE EXTENSION cube SCHEMA traps; \
             CREATE EXTENSION citext SCHEMA crm; CREATE PUBLICATION all_of_it FOR TABLE crm.t; CREATE SCHEMA helper; ALTER SCHEMA app RENAME TO old; \
             ALTER SCHEMA old RENAME TO app",
        )
        .await
        .unwrap();

    // When the tenant goes beyond that, then it is refused.
    for sql in [
        "CREATE TABLE ext.mine (id int)",
        "CREATE TABLE public.mine (id int)",
        "DROP SCHEMA ext",
        "CREATE EXTENSION dblink SCHEMA crm",
        "CREATE EXTENSION file_fdw SCHEMA crm",
        "CREATE PUBLICATION everything FOR ALL TABLES",
        "CREATE SUBSCRIPTION s CONNECTION 'host=127.0.0.1' PUBLICATION p",
        "CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()",
        "CREATE DATABASE mine",
        "CREATE LANGUAGE c2 HANDLER plpgsql_call_handler",
    ] {
        let done = session.execute(AssertSqlSafe(sql)).await;
        assert!(done.is_err(), "{sql} was let through");
    }
    session.close().await.unwrap();

    // When its plan gains extensions, one of which needs an extension that the tenant made itself.
    let both = TenantLimits { extensions: limits_with(&["earthdistance", "citext", "pg_trgm"]).extensions, ..own.clone() };
    let ensured = server.driver.ensure(&acme.tenant, &both, &acme.secret).await.unwrap();

    // Then the operator leaves the tenant's extensions alone, and creates nothing on top of them.
    assert_eq!(ensured.lacking.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["earthdistance"], "{ensured:?}");
    assert!(ensured.lacking[0].why.contains("cube"), "{ensured:?}");
    let mut session = acme.logs_in().await.unwrap();
    assert_eq!(installed_extensions(&mut session).await, ["citext in crm", "cube in traps", "pg_trgm in ext"]);
    session.close().await.unwrap();

    // When the operator creates a scratch database.
    let login = server.driver.scratch(&acme.tenant, "verify").await.unwrap();

    // Then it has the operator's extension, and the mover creates what the tenant had.
    let mut scratch = mover_logs_in(&login).await.unwrap();
    assert_eq!(installed_extensions(&mut scratch).await, ["pg_trgm in ext"]);
    scratch
        .execute("CREATE SCHEMA crm; CREATE EXTENSION citext SCHEMA crm; CREATE TABLE crm.t (); CREATE PUBLICATION p FOR TABLE crm.t")
        .await
        .unwrap();
    scratch.close().await.unwrap();
    server.driver.drop_scratch(&acme.tenant, "verify").await.unwrap();

    // When the plan gives fixed schemas again, and the login is rotated.
    let mut session = acme.logs_in().await.unwrap();
    session
        .execute("SET ROLE NONE; CREATE SCHEMA mine; CREATE TABLE mine.t (); CREATE EXTENSION ltree SCHEMA mine; CREATE PUBLICATION mine FOR TABLE mine.t")
        .await
        .unwrap();
    session.close().await.unwrap();
    server.driver.ensure(&acme.tenant, &limits(), &acme.secret).await.unwrap();
    assert!(!server.driver.observe(&acme.tenant).await.unwrap().makes_schemas);
    let (password, next) = new_login_secret(LoginSlot::B);
    server.driver.begin_rotation(&acme.tenant, &limits(), &next).await.unwrap();
    while let RotationStep::Waiting(_) = server.driver.finish_rotation(&acme.tenant, LoginSlot::A).await.unwrap() {}
    assert!(!server.driver.observe(&acme.tenant).await.unwrap().makes_schemas);

    // Then the tenant keeps what it has, also what belonged to the old login, and creates no schema.
    let mut session = server.log_in(&acme.tenant.login(LoginSlot::B), password.expose(), &acme.tenant.name).await.unwrap();
    session.execute("DROP EXTENSION ltree; DROP PUBLICATION mine; DROP TABLE mine.t; DROP SCHEMA mine").await.unwrap();
    tenant_is_refused(&mut session, "CREATE SCHEMA more").await;
    session.execute("INSERT INTO crm.t VALUES (1)").await.unwrap();

    // When the operator suspends and drops the tenant, and restores it with schemas of its own.
    assert_eq!(server.driver.suspend(&acme.tenant).await.unwrap().sessions_left, 0);
    assert!(session.execute("SELECT 1").await.is_err());
    server.drop_tenant(&acme.tenant, &acme.facts).await;

    let (facts, login) = server.driver.prepare_restore(&acme.tenant, &own, &acme.secret, &[]).await.unwrap();
    let mut session = mover_logs_in(&login).await.unwrap();
    session
        .execute("CREATE SCHEMA crm; CREATE EXTENSION citext SCHEMA crm; CREATE TABLE crm.t (id int); CREATE PUBLICATION p FOR TABLE crm.t; CREATE SCHEMA app")
        .await
        .unwrap();
    session.close().await.unwrap();
    server.driver.finish_restore(&acme.tenant, &own, &[]).await.unwrap();

    // Then the restored tenant creates schemas, and owns what was restored.
    assert!(server.driver.observe(&acme.tenant).await.unwrap().makes_schemas);
    server.driver.resume(&acme.tenant).await.unwrap();
    let mut session = acme.logs_in().await.unwrap();
    session.execute("CREATE SCHEMA more; DROP EXTENSION citext; DROP PUBLICATION p; DROP TABLE crm.t").await.unwrap();
    session.close().await.unwrap();

    // When the operator drops the tenant.
    server.drop_tenant(&acme.tenant, &facts).await;

    // Then nothing is left on the server.
    let orphans = server.driver.orphans(&BTreeSet::new()).await.unwrap();
    assert!(orphans.iter().all(|name| !name.starts_with(&acme.tenant.name)), "{orphans:?}");
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn nothing_is_made_in_a_schema_of_the_operators_name_that_is_somebody_elses() {
    // Given a tenant whose extension schema was given to somebody else.
    let server = TestServer::connect().await;
    let acme = server.create_tenant_with(&limits_with(&["hstore"])).await;
    let mut root = server.superuser_logs_in_to(&acme.tenant.name).await;
    for sql in [
        format!("ALTER SCHEMA ext OWNER TO {}_own", acme.tenant.name),
        "ALTER SCHEMA ext OWNER TO postgres; GRANT CREATE ON SCHEMA ext TO PUBLIC".into(),
    ] {
        root.execute(AssertSqlSafe(sql)).await.unwrap();

        // When the operator ensures another extension.
        let ensured = server.driver.ensure(&acme.tenant, &limits_with(&["citext"]), &acme.secret).await.unwrap();

        // Then nothing is created there, and the operator says why.
        assert!(ensured.lacking.len() == 1 && ensured.lacking[0].why.contains("not the operator's own"), "{ensured:?}");
    }
    root.close().await.unwrap();
    acme.drop_database().await;
}
