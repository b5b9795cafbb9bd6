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

async fn query_text(session: &mut PgConnection, sql: &'static str) -> String {
    sqlx::query_scalar(sql).fetch_one(session).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

async fn tenant_is_refused(session: &mut PgConnection, attempts: &[&str]) {
    for attempt in attempts {
        let done = session.execute(AssertSqlSafe((*attempt).to_owned())).await;
        assert!(done.is_err(), "the tenant could {attempt}");
    }
}

#[tokio::test]
async fn an_app_uses_the_extensions_of_plan_and_class_and_comes_back_with_them_and_its_settings() {
    // Given a tenant who pays, and who uses the extensions of its class and of its plan.
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

    // When the tenant tries to change the extensions or their schema, or to create others, then it is refused.
    let hostile = [
        "CREATE TABLE ext.mine (id int)",
        "CREATE FUNCTION ext.similarity(text, text) RETURNS real LANGUAGE sql AS 'SELECT 1'",
        "DROP EXTENSION citext CASCADE",
        "ALTER EXTENSION citext SET SCHEMA app",
        "DROP SCHEMA ext CASCADE",
        "ALTER SCHEMA ext OWNER TO CURRENT_USER",
    ];
    tenant_is_refused(&mut session, &hostile).await;
    tenant_is_refused(&mut session, &["CREATE SCHEMA crm", "CREATE EXTENSION ltree"]).await;

    // When the tenant creates functions where the script of an extension would find them if it ran in the tenant's
    // schema.
    session
        .execute(
            "CREATE FUNCTION app.gbt_decompress(internal) RETURNS internal LANGUAGE internal STRICT AS 'gtsvector_decompress'; \
             CREATE FUNCTION app.int4eq(a int2, b int2) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'planted'; END $$",
        )
        .await
        .ok();

    // When the plan gains an extension and schemas of the tenant's own.
    let more = json!([{"name": "pg_trgm", "version": "1.3"}, {"name": "btree_gist"}]);
    cluster.administrator_applies_plan_with("extended", windows(), plan(json!({"extensions": more, "schemas": "Own"}))).await;

    // Then the tenant uses both, and still cannot change the extensions of the operator.
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
    tenant_is_refused(&mut session, &hostile).await;
    session.close().await.unwrap();

    // When the plan loses an extension, and the account is dropped after a failed payment and then paid for.
    cluster.administrator_applies_plan_with("extended", windows(), plan(json!({"schemas": "Own"}))).await;
    account.billing_reports_past_due().await;
    account.reaches(Stage::Blocked).await;
    account.wait_for_backup("a Frozen backup is proven", |b| b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Verified)).await;
    account.reaches(Stage::Deleted).await;
    account.billing_reports_active().await;

    // Then the tenant gets back its extensions, its data and its settings.
    let tenant = account.receives_credentials_in(Stage::Active).await;
    let mut session = tenant.logs_in().await.unwrap();
    let sql = "SELECT string_agg(extname || ' in ' || extnamespace::regnamespace, ', ' ORDER BY extname) FROM pg_extension WHERE extname <> 'plpgsql'";
    assert_eq!(query_text(&mut session, sql).await, "btree_gist in ext, citext in ext, hstore in ext, ltree in crm, pg_trgm in ext");
    assert_eq!(query_text(&mut session, "SELECT extra -> 'n' FROM articles WHERE author = 'AUTHOR77' AND title % 'Ticket 77'").await, "77");
    assert_eq!(query_text(&mut session, "SELECT path::text FROM crm.tree").await, "a.b");
    assert_eq!(query_text(&mut session, "SHOW default_text_search_config").await, "pg_catalog.german");
    assert_eq!(query_text(&mut session, "SHOW search_path").await, "app, ext");
    tenant_is_refused(&mut session, &hostile).await;
    session.execute("CREATE SCHEMA more").await.unwrap();
}

#[tokio::test]
async fn an_extension_that_the_server_lacks_is_named_and_stops_nobody_who_runs() {
    // Given a tenant in its trial.
    let cluster = Cluster::connect().await;
    cluster.administrator_applies_plan("lacking", windows()).await;
    let account = cluster.customer_signs_up("lacking", "lacking").await;
    let tenant = account.receives_credentials_in(Stage::Trial).await;

    // When the plan asks for three extensions, of which the server has one for a tenant.
    let wanted = json!({"database": {"extensions": [{"name": "no_such_thing"}, {"name": "dblink"}, {"name": "fuzzystrmatch"}]}});
    cluster.administrator_applies_plan_with("lacking", windows(), wanted).await;

    // Then the account names the other two and is still Ready.
    let missing = account.wait_until("ExtensionsMissing", |a| has_condition(a, "ExtensionsMissing", "True")).await;
    let message = &find_condition(&missing, "ExtensionsMissing").unwrap().message;
    assert!(message.contains("no_such_thing") && message.contains("CREATE EXTENSION \"dblink\" SCHEMA ext"), "{message}");
    assert!(!message.contains("fuzzystrmatch"), "{message}");
    assert!(has_condition(&missing, "Ready", "True"), "{missing:?}");

    // Then the tenant uses the one that there is, and can get another password.
    let mut session = tenant.logs_in().await.unwrap();
    session.execute("SELECT levenshtein('a', 'b')").await.unwrap();
    session.close().await.unwrap();
    account.administrator_annotates("helpdesk-operator.io/rotate-password", "1").await;
    let namespace = missing.status.unwrap().namespace.unwrap().name;
    eventually("another password", || async { cluster.secret(&namespace, "database").await.filter(|s| s["password"] != tenant.password) })
        .await;

    // Then the server says what is missing.
    let servers: Api<DatabaseServer> = Api::all(cluster.client.clone());
    eventually("the server's condition", || async {
        let conditions = servers.get("pg-eu-1").await.unwrap().status.unwrap_or_default().conditions;
        let found = conditions.into_iter().find(|c| c.type_ == "ExtensionsMissing" && c.status == "True")?;
        (found.message.contains("no_such_thing") && found.message.contains("package")).then_some(())
    })
    .await;

    // When another customer signs up, then the account waits, because its app could not start.
    let late = cluster.customer_signs_up("lacking-new", "lacking").await;
    late.wait_until("waiting", |a| find_condition(a, "Reconciling").is_some_and(|c| c.message.contains("no_such_thing"))).await;

    // When the plan asks for nothing any more.
    cluster.administrator_applies_plan("lacking", windows()).await;

    // Then the new tenant gets its database, and nothing is missing.
    late.receives_credentials_in(Stage::Trial).await;
    account.wait_until("nothing missing", |a| find_condition(a, "ExtensionsMissing").is_none()).await;
}
