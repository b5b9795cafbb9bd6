//! Extensions and schemas in databases of tenants.

use std::collections::BTreeSet;

use helpdesk_operator::{
    api::plan::{Extension, Schemas},
    database::{Error, Lacking, LoginSlot, RotationStep, Tenant, TenantLimits},
};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::desk::{Desk, as_mover, code, fresh_secret, fresh_uid, terms};

fn with(names: &[&str]) -> TenantLimits {
    let extensions = names.iter().map(|name| Extension { name: (*name).to_owned(), version: None }).collect();
    TenantLimits { extensions, ..terms() }
}

async fn extensions(session: &mut PgConnection) -> Vec<String> {
    let sql = "SELECT extname || ' in ' || extnamespace::regnamespace FROM pg_extension WHERE extname <> 'plpgsql' ORDER BY 1";
    sqlx::query_scalar(sql).fetch_all(session).await.unwrap()
}

async fn refused(session: &mut PgConnection, sql: &str) {
    let error = session.execute(AssertSqlSafe(sql.to_owned())).await.expect_err(sql);
    assert!(["42501", "42883", "3F000"].contains(&code(&error).as_str()), "{sql}: {error}");
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_tenant_uses_extensions_and_cannot_change_them() {
    let desk = Desk::open().await;
    let made = desk.tenant_on(&with(&["pg_trgm", "citext", "hstore", "btree_gist"])).await;
    let mut session = made.session().await.unwrap();
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
        refused(&mut session, sql).await;
        session.execute("SET ROLE NONE").await.unwrap();
        refused(&mut session, sql).await;
        session.execute(AssertSqlSafe(format!("SET ROLE {}_own", made.tenant.name))).await.unwrap();
    }
    // What it grants has no effect, and is a warning.
    session.execute("GRANT CREATE ON SCHEMA ext TO PUBLIC").await.ok();
    refused(&mut session, "CREATE TABLE ext.mine (id int)").await;
    session.close().await.unwrap();
    made.gone().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_plan_that_gains_an_extension_gives_it_to_running_tenants_and_one_that_loses_it_drops_nothing() {
    let desk = Desk::open().await;
    let made = desk.tenant().await;
    // As it was before there were extensions.
    let mut root = desk.superuser_in(&made.tenant.name).await;
    root.execute(AssertSqlSafe(format!(
        "DROP SCHEMA IF EXISTS ext; ALTER ROLE {0}_a IN DATABASE {0} SET search_path = app",
        made.tenant.name
    )))
    .await
    .unwrap();
    root.close().await.unwrap();
    // Planted where an extension's script would look if it were made among what is the tenant's.
    let mut session = made.session().await.unwrap();
    session
        .execute(
            "CREATE FUNCTION app.lower(citext_less name) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'planted'; END $$; \
             CREATE FUNCTION pg_temp.texteq(a varchar, b varchar) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'planted'; END $$",
        )
        .await
        .unwrap();
    let all = with(&["hstore", "citext"]);
    for _ in 0..2 {
        assert_eq!(desk.server.ensure(&made.tenant, &all, &made.secret).await.unwrap().lacking, []);
    }
    let mut fresh = made.session().await.unwrap();
    assert_eq!(extensions(&mut fresh).await, ["citext in ext", "hstore in ext"]);
    let path: String = sqlx::query_scalar("SHOW search_path").fetch_one(&mut fresh).await.unwrap();
    assert_eq!(path, "app, ext");
    fresh.execute("SELECT 'a=>1'::hstore, 'A'::citext = 'a'").await.unwrap();

    desk.server.ensure(&made.tenant, &terms(), &made.secret).await.unwrap();
    assert_eq!(extensions(&mut fresh).await.len(), 2);
    // What the tenant set itself stays.
    fresh
        .execute(AssertSqlSafe(format!("SET ROLE NONE; ALTER ROLE {0}_a IN DATABASE {0} SET search_path = ext, app", made.tenant.name)))
        .await
        .unwrap();
    desk.server.ensure(&made.tenant, &all, &made.secret).await.unwrap();
    let mut fresh = made.session().await.unwrap();
    let path: String = sqlx::query_scalar("SHOW search_path").fetch_one(&mut fresh).await.unwrap();
    assert_eq!(path, "ext, app");
    made.gone().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn what_the_server_does_not_give_is_named_and_keeps_nothing_else_from_being_made() {
    let desk = Desk::open().await;
    let tenant = Tenant::of(&fresh_uid()).unwrap();
    let (password, secret) = fresh_secret(LoginSlot::A);
    let mut wanted = with(&["pg_trgm", "no_such_thing", "dblink"]);
    wanted.extensions.push(Extension { name: "hstore".into(), version: Some("99".into()) });
    let ensured = desk.server.ensure(&tenant, &wanted, &secret).await.unwrap();
    let why = |name: &str| ensured.lacking.iter().find(|l: &&Lacking| l.name == name).map(|l| l.why.clone()).unwrap_or_default();
    assert_eq!(ensured.lacking.len(), 3, "{:?}", ensured.lacking);
    assert!(why("no_such_thing").contains("package"), "{ensured:?}");
    assert!(why("dblink").contains("CREATE EXTENSION \"dblink\" SCHEMA ext"), "{ensured:?}");
    assert!(why("hstore").contains("99"), "{ensured:?}");
    let mut session = desk.session(&tenant.login(LoginSlot::A), password.expose(), &tenant.name).await.unwrap();
    session.execute("SELECT similarity('a', 'b')").await.unwrap();
    session.close().await.unwrap();

    let names: Vec<String> = wanted.extensions.iter().map(|e| e.name.clone()).collect();
    let offers = desk.server.offers(&names).await.unwrap();
    assert!(offers.iter().any(|o| o.name == "pg_trgm" && o.makeable) && offers.iter().any(|o| o.name == "dblink" && !o.makeable));
    assert!(offers.iter().any(|o| o.name == "no_such_thing" && o.version.is_none()), "{offers:?}");

    // A superuser makes it in that database: that is enough there, and every copy is told what it lacks.
    desk.superuser_in(&tenant.name).await.execute("CREATE EXTENSION dblink SCHEMA ext").await.unwrap();
    let ensured = desk.server.ensure(&tenant, &with(&["pg_trgm", "dblink"]), &secret).await.unwrap();
    assert_eq!(ensured.lacking, []);
    let scratch = desk.server.scratch(&tenant, "verify").await;
    assert!(matches!(&scratch, Err(Error::ExtensionsMissing { lacking, .. }) if lacking.len() == 1), "{scratch:?}");

    // With a template that a superuser made, copies have it.
    let mut root = desk.superuser().await;
    root.execute("CREATE DATABASE helpdesk_template TEMPLATE template0 ENCODING 'UTF8'").await.unwrap();
    let mut inside = desk.superuser_in("helpdesk_template").await;
    inside.execute(AssertSqlSafe(format!("CREATE SCHEMA ext AUTHORIZATION {}", desk.admin))).await.unwrap();
    inside.execute("CREATE EXTENSION dblink SCHEMA ext").await.unwrap();
    inside.close().await.unwrap();
    root.execute("ALTER DATABASE helpdesk_template IS_TEMPLATE true").await.unwrap();
    root.execute("ALTER DATABASE helpdesk_template ALLOW_CONNECTIONS false").await.unwrap();
    let login = desk.server.scratch(&tenant, "verify").await.unwrap();
    let mut session = as_mover(&login).await.unwrap();
    assert_eq!(extensions(&mut session).await, ["dblink in ext", "pg_trgm in ext"]);
    session.close().await.unwrap();
    root.execute("ALTER DATABASE helpdesk_template IS_TEMPLATE false").await.unwrap();
    root.execute("DROP DATABASE helpdesk_template").await.unwrap();
    desk.server.drop_scratch(&tenant, "verify").await.unwrap();
    desk.remove(&tenant, &ensured.facts).await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn copies_have_the_extensions_that_were_made_for_the_tenant_in_their_versions() {
    let desk = Desk::open().await;
    let made = desk.tenant_on(&with(&["pg_trgm", "citext"])).await;
    let mut root = desk.superuser_in(&made.tenant.name).await;
    // As after an upgrade of the server, and as somebody else would make one.
    root.execute("DROP EXTENSION pg_trgm; CREATE EXTENSION pg_trgm SCHEMA ext VERSION '1.5'; CREATE EXTENSION ltree SCHEMA app")
        .await
        .unwrap();
    root.close().await.unwrap();
    let login = desk.server.scratch(&made.tenant, "verify").await.unwrap();
    let mut session = as_mover(&login).await.unwrap();
    assert_eq!(extensions(&mut session).await, ["citext in ext", "pg_trgm in ext"]);
    let version: String =
        sqlx::query_scalar("SELECT extversion FROM pg_extension WHERE extname = 'pg_trgm'").fetch_one(&mut session).await.unwrap();
    assert_eq!(version, "1.5");
    session
        .execute("CREATE SCHEMA app; CREATE EXTENSION IF NOT EXISTS ltree SCHEMA app; CREATE TABLE app.t (a ext.citext, b app.ltree)")
        .await
        .unwrap();
    refused(&mut session, "CREATE TABLE ext.t (a int)").await;
    session.close().await.unwrap();
    desk.server.drop_scratch(&made.tenant, "verify").await.unwrap();

    desk.remove(&made.tenant, &made.facts).await;
    let had = [
        Extension { name: "pg_trgm".into(), version: Some("1.5".into()) },
        Extension { name: "hstore".into(), version: Some("0.1".into()) },
    ];
    let (facts, login) = desk.server.prepare_restore(&made.tenant, &terms(), &made.secret, &had).await.unwrap();
    let mut session = as_mover(&login).await.unwrap();
    assert_eq!(extensions(&mut session).await, ["hstore in ext", "pg_trgm in ext"]);
    session.execute("CREATE SCHEMA app; CREATE TABLE app.t (h ext.hstore)").await.unwrap();
    session.close().await.unwrap();
    desk.server.finish_restore(&made.tenant, &terms(), &[]).await.unwrap();
    desk.server.resume(&made.tenant).await.unwrap();
    let mut session = made.session().await.unwrap();
    session.execute("SELECT h -> 'a' FROM t").await.unwrap();
    refused(&mut session, "CREATE SCHEMA mine").await;
    session.close().await.unwrap();
    desk.remove(&made.tenant, &facts).await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn a_tenant_with_schemas_of_its_own_stays_within_its_walls() {
    let desk = Desk::open().await;
    let own = TenantLimits { schemas: Schemas::Own, ..terms() };
    let made = desk.tenant_on(&own).await;
    assert!(desk.server.observe(&made.tenant).await.unwrap().makes_schemas);
    let mut session = made.session().await.unwrap();
    session
        .execute(
            "CREATE SCHEMA crm; CREATE TABLE crm.t (id int); CREATE SCHEMA traps; CREATE EXTENSION cube SCHEMA traps; \
             CREATE EXTENSION citext SCHEMA crm; CREATE PUBLICATION all_of_it FOR TABLE crm.t; CREATE SCHEMA helper; ALTER SCHEMA app RENAME TO old; \
             ALTER SCHEMA old RENAME TO app",
        )
        .await
        .unwrap();
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

    // What the tenant made itself is left alone, and nothing is made on top of what it could have planted something in.
    let both = TenantLimits { extensions: with(&["earthdistance", "citext", "pg_trgm"]).extensions, ..own.clone() };
    let ensured = desk.server.ensure(&made.tenant, &both, &made.secret).await.unwrap();
    assert_eq!(ensured.lacking.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), ["earthdistance"], "{ensured:?}");
    assert!(ensured.lacking[0].why.contains("cube"), "{ensured:?}");
    let mut session = made.session().await.unwrap();
    assert_eq!(extensions(&mut session).await, ["citext in crm", "cube in traps", "pg_trgm in ext"]);
    session.close().await.unwrap();
    let login = desk.server.scratch(&made.tenant, "verify").await.unwrap();
    let mut scratch = as_mover(&login).await.unwrap();
    assert_eq!(extensions(&mut scratch).await, ["pg_trgm in ext"]);
    scratch
        .execute("CREATE SCHEMA crm; CREATE EXTENSION citext SCHEMA crm; CREATE TABLE crm.t (); CREATE PUBLICATION p FOR TABLE crm.t")
        .await
        .unwrap();
    scratch.close().await.unwrap();
    desk.server.drop_scratch(&made.tenant, "verify").await.unwrap();

    // Back to Fixed: what is there stays, also what is the login's and not its owner role's.
    let mut session = made.session().await.unwrap();
    session
        .execute("SET ROLE NONE; CREATE SCHEMA mine; CREATE TABLE mine.t (); CREATE EXTENSION ltree SCHEMA mine; CREATE PUBLICATION mine FOR TABLE mine.t")
        .await
        .unwrap();
    session.close().await.unwrap();
    desk.server.ensure(&made.tenant, &terms(), &made.secret).await.unwrap();
    assert!(!desk.server.observe(&made.tenant).await.unwrap().makes_schemas);
    let (password, next) = fresh_secret(LoginSlot::B);
    desk.server.begin_rotation(&made.tenant, &terms(), &next).await.unwrap();
    while let RotationStep::Waiting(_) = desk.server.finish_rotation(&made.tenant, LoginSlot::A).await.unwrap() {}
    assert!(!desk.server.observe(&made.tenant).await.unwrap().makes_schemas);
    let mut session = desk.session(&made.tenant.login(LoginSlot::B), password.expose(), &made.tenant.name).await.unwrap();
    session.execute("DROP EXTENSION ltree; DROP PUBLICATION mine; DROP TABLE mine.t; DROP SCHEMA mine").await.unwrap();
    refused(&mut session, "CREATE SCHEMA more").await;
    session.execute("INSERT INTO crm.t VALUES (1)").await.unwrap();
    assert_eq!(desk.server.suspend(&made.tenant).await.unwrap().sessions_left, 0);
    assert!(session.execute("SELECT 1").await.is_err());
    desk.remove(&made.tenant, &made.facts).await;

    let (facts, login) = desk.server.prepare_restore(&made.tenant, &own, &made.secret, &[]).await.unwrap();
    let mut session = as_mover(&login).await.unwrap();
    session
        .execute("CREATE SCHEMA crm; CREATE EXTENSION citext SCHEMA crm; CREATE TABLE crm.t (id int); CREATE PUBLICATION p FOR TABLE crm.t; CREATE SCHEMA app")
        .await
        .unwrap();
    session.close().await.unwrap();
    desk.server.finish_restore(&made.tenant, &own, &[]).await.unwrap();
    assert!(desk.server.observe(&made.tenant).await.unwrap().makes_schemas);
    desk.server.resume(&made.tenant).await.unwrap();
    let mut session = made.session().await.unwrap();
    session.execute("CREATE SCHEMA more; DROP EXTENSION citext; DROP PUBLICATION p; DROP TABLE crm.t").await.unwrap();
    session.close().await.unwrap();
    desk.remove(&made.tenant, &facts).await;
    let orphans = desk.server.orphans(&BTreeSet::new()).await.unwrap();
    assert!(orphans.iter().all(|name| !name.starts_with(&made.tenant.name)), "{orphans:?}");
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn nothing_is_made_in_a_schema_of_the_operators_name_that_is_somebody_elses() {
    let desk = Desk::open().await;
    let made = desk.tenant_on(&with(&["hstore"])).await;
    let mut root = desk.superuser_in(&made.tenant.name).await;
    for sql in [
        format!("ALTER SCHEMA ext OWNER TO {}_own", made.tenant.name),
        "ALTER SCHEMA ext OWNER TO postgres; GRANT CREATE ON SCHEMA ext TO PUBLIC".into(),
    ] {
        root.execute(AssertSqlSafe(sql)).await.unwrap();
        let ensured = desk.server.ensure(&made.tenant, &with(&["citext"]), &made.secret).await.unwrap();
        assert!(ensured.lacking.len() == 1 && ensured.lacking[0].why.contains("not the operator's own"), "{ensured:?}");
    }
    root.close().await.unwrap();
    made.gone().await;
}
