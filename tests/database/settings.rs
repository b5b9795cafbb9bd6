//! Settings of a tenant's logins and of its database.

use helpdesk_operator::database::{LoginSlot, RotationStep, postgres::SETTINGS_OF_TENANT, settings};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::test_server::{TestServer, limits, mover_logs_in, new_login_secret};

async fn current_setting(session: &mut PgConnection, name: &str) -> String {
    sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(session).await.unwrap()
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn what_a_tenant_set_for_its_login_is_set_for_the_next_one() {
    // Given a tenant who has set parameters for its login.
    let server = TestServer::connect().await;
    let acme = server.create_tenant().await;
    let name = &acme.tenant.name;
    let mut session = acme.logs_in().await.unwrap();
    session
        .execute(AssertSqlSafe(format!(
            "CREATE TEXT SEARCH CONFIGURATION app.\"it's $do$; odd\" (COPY = pg_catalog.german); SET ROLE NONE; \
             ALTER ROLE {name}_a IN DATABASE {name} SET default_text_search_config = 'app.\"it''s $do$; odd\"'; \
             ALTER ROLE {name}_a SET TimeZone = 'Europe/Berlin'; ALTER ROLE {name}_a SET work_mem = '3MB'; \
             ALTER ROLE {name}_a IN DATABASE {name} SET work_mem = '5MB'; ALTER ROLE {name}_a IN DATABASE {name} SET DateStyle = German, DMY; \
             ALTER ROLE {name}_a IN DATABASE {name} SET search_path = pg_catalog; ALTER ROLE {name}_a SET application_name = 'x'"
        )))
        .await
        .unwrap();
    session.close().await.unwrap();

    // When the operator begins a rotation, twice.
    let (password, next) = new_login_secret(LoginSlot::B);
    for _ in 0..2 {
        server.driver.begin_rotation(&acme.tenant, &limits(), &next).await.unwrap();
    }

    // Then the new login has the tenant's settings, but for those that the operator sets itself.
    let mut session = server.log_in(&acme.tenant.login(LoginSlot::B), password.expose(), name).await.unwrap();
    assert_eq!(current_setting(&mut session, "default_text_search_config").await, "app.\"it's $do$; odd\"");
    assert_eq!(current_setting(&mut session, "work_mem").await, "5MB");
    // The client of this test sets a time zone and a date style of its own, so these are read from the catalog.
    let kept: Vec<String> = sqlx::query_scalar(
        "SELECT line FROM pg_db_role_setting, unnest(setconfig) line WHERE setrole = to_regrole($1) AND line ~ 'TimeZone|DateStyle' ORDER BY 1",
    )
    .bind(acme.tenant.login(LoginSlot::B))
    .fetch_all(&mut session)
    .await
    .unwrap();
    assert_eq!(kept, ["DateStyle=german, dmy", "TimeZone=Europe/Berlin"]);
    assert_eq!(current_setting(&mut session, "search_path").await, "app, ext");
    assert_eq!(current_setting(&mut session, "role").await, format!("{name}_own"));
    session.close().await.unwrap();
    while let RotationStep::Waiting(_) = server.driver.finish_rotation(&acme.tenant, LoginSlot::A).await.unwrap() {}
    acme.drop_database().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn settings_come_back_with_the_data_and_one_that_cannot_be_set_keeps_nobody_out() {
    // Given a tenant with settings of its database and of its login.
    let server = TestServer::connect().await;
    let acme = server.create_tenant().await;
    let name = &acme.tenant.name;
    let mut root = server.superuser_logs_in().await;
    root.execute(AssertSqlSafe(format!(
        "ALTER DATABASE {name} SET default_text_search_config = 'german'; ALTER DATABASE {name} SET statement_timeout = '7s'; \
         ALTER DATABASE {name} SET search_path = public; ALTER DATABASE {name} SET row_security = off; \
         ALTER ROLE {name}_a IN DATABASE {name} SET statement_timeout = '9s'"
    )))
    .await
    .unwrap();

    // When a mover reads the settings, and the database is dropped.
    let login = server.driver.dump_login(&acme.tenant).await.unwrap();
    let mut dump = mover_logs_in(&login).await.unwrap();
    let lines: Vec<String> = sqlx::query_scalar(SETTINGS_OF_TENANT).fetch_all(&mut dump).await.unwrap();
    dump.close().await.unwrap();
    let mut found = settings::carried(lines.iter().map(String::as_str));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(found, [pair("default_text_search_config", "german"), pair("statement_timeout", "9s")]);
    server.driver.revoke_dump_login(&acme.tenant).await.unwrap();
    server.drop_tenant(&acme.tenant, &acme.facts).await;

    // When the database is restored with these settings, and with some that cannot be set.
    found.extend([pair("lc_time", "xx_XX.nothing"), pair("search_path", "public"), pair("role", "postgres"), pair("work_mem", "a lot")]);
    let (facts, _) = server.driver.prepare_restore(&acme.tenant, &limits(), &acme.secret, &[]).await.unwrap();
    server.driver.finish_restore(&acme.tenant, &limits(), &found).await.unwrap();
    server.driver.resume(&acme.tenant).await.unwrap();

    // Then the tenant has its settings, without those that cannot be set.
    let mut session = acme.logs_in().await.unwrap();
    assert_eq!(current_setting(&mut session, "default_text_search_config").await, "pg_catalog.german");
    assert_eq!(current_setting(&mut session, "statement_timeout").await, "9s");
    assert_eq!(current_setting(&mut session, "search_path").await, "app, ext");
    assert_eq!(current_setting(&mut session, "role").await, format!("{name}_own"));
    session.close().await.unwrap();
    server.drop_tenant(&acme.tenant, &facts).await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn what_is_set_for_a_database_does_not_reach_the_operators_sessions() {
    // Given a database with settings that would disturb every session.
    let server = TestServer::connect().await;
    let acme = server.create_tenant().await;
    let name = &acme.tenant.name;
    let mut session = acme.logs_in().await.unwrap();
    session.execute("SELECT lo_from_bytea(4711, 'x'); REVOKE ALL ON LARGE OBJECT 4711 FROM CURRENT_USER").await.unwrap();
    session.close().await.unwrap();
    let mut root = server.superuser_logs_in().await;
    for setting in [
        "default_transaction_read_only = on".to_owned(),
        format!("role = '{name}_own'"),
        "search_path = app".to_owned(),
        "default_transaction_isolation = 'serializable'".to_owned(),
        "standard_conforming_strings = off".to_owned(),
        "default_tablespace = 'pg_global'".to_owned(),
        "statement_timeout = '1ms'".to_owned(),
    ] {
        root.execute(AssertSqlSafe(format!("ALTER DATABASE {name} SET {setting}"))).await.ok();
    }

    // When the operator ensures the tenant with an extension, and a mover logs in.
    let wanted = helpdesk_operator::api::plan::Extension { name: "hstore".into(), version: None };
    let limits = helpdesk_operator::database::TenantLimits { extensions: vec![wanted], ..limits() };
    assert_eq!(server.driver.ensure(&acme.tenant, &limits, &acme.secret).await.unwrap().lacking, []);
    let login = server.driver.dump_login(&acme.tenant).await.unwrap();
    let mut dump = mover_logs_in(&login).await.unwrap();
    dump.execute("SET statement_timeout = 0").await.unwrap();

    // Then both work as without these settings.
    assert_eq!(current_setting(&mut dump, "role").await, "none");
    let large: Vec<u8> = sqlx::query_scalar("SELECT lo_get(4711)").fetch_one(&mut dump).await.unwrap();
    assert_eq!(large, b"x");
    dump.close().await.unwrap();
    acme.drop_database().await;
}
