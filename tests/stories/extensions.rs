//! What an app needs of its database: extensions, schemas, settings.

use helpdesk_operator::{
    api::{BackupPhase, DatabaseServer},
    lifecycle::Stage,
};
use kube::Api;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::cluster::{Cluster, eventually, find_condition, has_condition};

fn windows() -> Value {
    json!({"paymentGrace": "1s", "blocked": "15s", "terminated": "2s"})
}

async fn one(session: &mut PgConnection, sql: &'static str) -> String {
    sqlx::query_scalar(sql).fetch_one(session).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

async fn refused(session: &mut PgConnection, attempts: &[&str]) {
    for attempt in attempts {
        let done = session.execute(AssertSqlSafe((*attempt).to_owned())).await;
        assert!(done.is_err(), "the tenant could {attempt}");
    }
}

#[tokio::test]
async fn an_app_uses_the_extensions_of_plan_and_class_and_comes_back_with_them_and_its_settings() {
    let cluster = Cluster::connect().await;
    cluster
        .administrator_applies(json!({"kind": "HelpDeskClass", "metadata": {"name": "extended"}, "spec": {
            "app": {"name": "desk", "version": "1"}, "components": [{"name": "web", "port": 8080}],
            "routes": [{"path": "/", "component": "web", "audience": "agent"}],
            "database": {"extensions": [{"name": "hstore"}, {"name": "citext", "version": "1.6"}]}}}))
        .await;
    let plan = |database: Value| json!({"class": "extended", "database": database});
    let lists = json!([{"name": "pg_trgm", "version": "1.3"}]);
    cluster.administrator_applies_plan_with("extended", windows(), plan(json!({"extensions": lists}))).await;
    let account = cluster.customer_signs_up("extended", "extended").await;
    account.receives_credentials_in(Stage::Trial).await;
    account.billing_reports_active().await;
    let tenant = account.receives_credentials_in(Stage::Active).await;
    let mut session = tenant.logs_in().await.unwrap();
    session
        .execute(
            "CREATE TABLE articles (id serial PRIMARY KEY, title text, author citext UNIQUE, extra hstore); \
             CREATE INDEX titles ON articles USING gin (title gin_trgm_ops); \
             INSERT INTO articles (title, author, extra) SELECT 'Ticket ' || n, 'Author' || n, hstore('n', n::text) FROM generate_series(1, 500) n",
        )
        .await
        .unwrap();
    let hostile = [
        "CREATE TABLE ext.mine (id int)",
        "CREATE FUNCTION ext.similarity(text, text) RETURNS real LANGUAGE sql AS 'SELECT 1'",
        "DROP EXTENSION citext CASCADE",
        "ALTER EXTENSION citext SET SCHEMA app",
        "DROP SCHEMA ext CASCADE",
        "ALTER SCHEMA ext OWNER TO CURRENT_USER",
    ];
    refused(&mut session, &hostile).await;
    refused(&mut session, &["CREATE SCHEMA crm", "CREATE EXTENSION ltree"]).await;
    // Planted where the script of an extension would look if it were made in the tenant's own schema.
    session
        .execute(
            "CREATE FUNCTION app.gbt_decompress(internal) RETURNS internal LANGUAGE internal STRICT AS 'gtsvector_decompress'; \
             CREATE FUNCTION app.int4eq(a int2, b int2) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'planted'; END $$",
        )
        .await
        .ok();

    // The plan gains an extension and schemas of the tenant's own, and this tenant gets both.
    let more = json!([{"name": "pg_trgm", "version": "1.3"}, {"name": "btree_gist"}]);
    cluster.administrator_applies_plan_with("extended", windows(), plan(json!({"extensions": more, "schemas": "Own"}))).await;
    eventually("schemas of the tenant's own", || async {
        let mut session = tenant.logs_in().await.ok()?;
        session.execute("CREATE SCHEMA IF NOT EXISTS crm").await.ok()
    })
    .await;
    session
        .execute(AssertSqlSafe(format!(
            "CREATE TABLE crm.rooms (room int, during tsrange, EXCLUDE USING gist (room WITH =, during WITH &&)); \
             INSERT INTO crm.rooms VALUES (1, '[2026-01-01, 2026-01-02)'); CREATE EXTENSION ltree SCHEMA crm; \
             CREATE TABLE crm.tree (path crm.ltree); INSERT INTO crm.tree VALUES ('a.b'); CREATE PUBLICATION rooms FOR TABLE crm.rooms; \
             SET ROLE NONE; ALTER ROLE {0} IN DATABASE {1} SET default_text_search_config = 'german'; RESET ROLE; SET ROLE {1}_own",
            tenant.username, tenant.database
        )))
        .await
        .unwrap();
    refused(&mut session, &hostile).await;
    session.close().await.unwrap();
    // It loses one: nothing is dropped.
    cluster.administrator_applies_plan_with("extended", windows(), plan(json!({"schemas": "Own"}))).await;

    account.billing_reports_past_due().await;
    account.reaches(Stage::Blocked).await;
    account.wait_for_backup("a Frozen backup is proven", |b| b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Verified)).await;
    account.reaches(Stage::Deleted).await;
    account.billing_reports_active().await;
    let tenant = account.receives_credentials_in(Stage::Active).await;
    let mut session = tenant.logs_in().await.unwrap();
    let sql = "SELECT string_agg(extname || ' in ' || extnamespace::regnamespace, ', ' ORDER BY extname) FROM pg_extension WHERE extname <> 'plpgsql'";
    assert_eq!(one(&mut session, sql).await, "btree_gist in ext, citext in ext, hstore in ext, ltree in crm, pg_trgm in ext");
    assert_eq!(one(&mut session, "SELECT extra -> 'n' FROM articles WHERE author = 'AUTHOR77' AND title % 'Ticket 77'").await, "77");
    assert_eq!(one(&mut session, "SELECT path::text FROM crm.tree").await, "a.b");
    assert_eq!(one(&mut session, "SHOW default_text_search_config").await, "pg_catalog.german");
    assert_eq!(one(&mut session, "SHOW search_path").await, "app, ext");
    refused(&mut session, &hostile).await;
    session.execute("CREATE SCHEMA more").await.unwrap();
}

#[tokio::test]
async fn an_extension_that_the_server_lacks_is_named_and_stops_nobody_who_runs() {
    let cluster = Cluster::connect().await;
    cluster.administrator_applies_plan("lacking", windows()).await;
    let account = cluster.customer_signs_up("lacking", "lacking").await;
    let tenant = account.receives_credentials_in(Stage::Trial).await;
    let wanted = json!({"database": {"extensions": [{"name": "no_such_thing"}, {"name": "dblink"}, {"name": "fuzzystrmatch"}]}});
    cluster.administrator_applies_plan_with("lacking", windows(), wanted).await;
    let told = account.wait_until("ExtensionsMissing", |a| has_condition(a, "ExtensionsMissing", "True")).await;
    let message = &find_condition(&told, "ExtensionsMissing").unwrap().message;
    assert!(message.contains("no_such_thing") && message.contains("CREATE EXTENSION \"dblink\" SCHEMA ext"), "{message}");
    assert!(!message.contains("fuzzystrmatch"), "{message}");
    assert!(has_condition(&told, "Ready", "True"), "{told:?}");
    let mut session = tenant.logs_in().await.unwrap();
    session.execute("SELECT levenshtein('a', 'b')").await.unwrap();
    session.close().await.unwrap();
    account.administrator_annotates("helpdesk-operator.io/rotate-password", "1").await;
    let namespace = told.status.unwrap().namespace.unwrap().name;
    eventually("another password", || async { cluster.secret(&namespace, "database").await.filter(|s| s["password"] != tenant.password) })
        .await;

    let servers: Api<DatabaseServer> = Api::all(cluster.client.clone());
    eventually("the server's condition", || async {
        let conditions = servers.get("pg-eu-1").await.unwrap().status.unwrap_or_default().conditions;
        let found = conditions.into_iter().find(|c| c.type_ == "ExtensionsMissing" && c.status == "True")?;
        (found.message.contains("no_such_thing") && found.message.contains("package")).then_some(())
    })
    .await;

    // A new tenant waits: its app could not begin.
    let late = cluster.customer_signs_up("lacking-new", "lacking").await;
    late.wait_until("waiting", |a| find_condition(a, "Reconciling").is_some_and(|c| c.message.contains("no_such_thing"))).await;
    cluster.administrator_applies_plan("lacking", windows()).await;
    late.receives_credentials_in(Stage::Trial).await;
    account.wait_until("nothing missing", |a| find_condition(a, "ExtensionsMissing").is_none()).await;
}
