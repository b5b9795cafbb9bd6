//! Settings of a tenant's logins and of its database.

use helpdesk_operator::database::{LoginSlot, RotationStep, postgres::SETTINGS_OF_TENANT, settings};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::desk::{Desk, as_mover, fresh_secret, terms};

async fn shown(session: &mut PgConnection, name: &str) -> String {
    sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(session).await.unwrap()
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn what_a_tenant_set_for_its_login_is_set_for_the_next_one() {
    let desk = Desk::open().await;
    let made = desk.tenant().await;
    let name = &made.tenant.name;
    let mut session = made.session().await.unwrap();
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
    let (password, next) = fresh_secret(LoginSlot::B);
    for _ in 0..2 {
        desk.server.begin_rotation(&made.tenant, &terms(), &next).await.unwrap();
    }
    let mut session = desk.session(&made.tenant.login(LoginSlot::B), password.expose(), name).await.unwrap();
    assert_eq!(shown(&mut session, "default_text_search_config").await, "app.\"it's $do$; odd\"");
    assert_eq!(shown(&mut session, "work_mem").await, "5MB");
    // This client asks for a time zone and a style of dates of its own.
    let kept: Vec<String> = sqlx::query_scalar(
        "SELECT line FROM pg_db_role_setting, unnest(setconfig) line WHERE setrole = to_regrole($1) AND line ~ 'TimeZone|DateStyle' ORDER BY 1",
    )
    .bind(made.tenant.login(LoginSlot::B))
    .fetch_all(&mut session)
    .await
    .unwrap();
    assert_eq!(kept, ["DateStyle=german, dmy", "TimeZone=Europe/Berlin"]);
    assert_eq!(shown(&mut session, "search_path").await, "app, ext");
    assert_eq!(shown(&mut session, "role").await, format!("{name}_own"));
    session.close().await.unwrap();
    while let RotationStep::Waiting(_) = desk.server.finish_rotation(&made.tenant, LoginSlot::A).await.unwrap() {}
    made.gone().await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn settings_come_back_with_the_data_and_one_that_cannot_be_set_keeps_nobody_out() {
    let desk = Desk::open().await;
    let made = desk.tenant().await;
    let name = &made.tenant.name;
    let mut root = desk.superuser().await;
    root.execute(AssertSqlSafe(format!(
        "ALTER DATABASE {name} SET default_text_search_config = 'german'; ALTER DATABASE {name} SET statement_timeout = '7s'; \
         ALTER DATABASE {name} SET search_path = public; ALTER DATABASE {name} SET row_security = off; \
         ALTER ROLE {name}_a IN DATABASE {name} SET statement_timeout = '9s'"
    )))
    .await
    .unwrap();
    let login = desk.server.dump_login(&made.tenant).await.unwrap();
    let mut dump = as_mover(&login).await.unwrap();
    let lines: Vec<String> = sqlx::query_scalar(SETTINGS_OF_TENANT).fetch_all(&mut dump).await.unwrap();
    dump.close().await.unwrap();
    let mut found = settings::carried(lines.iter().map(String::as_str));
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(found, [pair("default_text_search_config", "german"), pair("statement_timeout", "9s")]);
    desk.server.revoke_dump_login(&made.tenant).await.unwrap();
    desk.remove(&made.tenant, &made.facts).await;

    found.extend([pair("lc_time", "xx_XX.nothing"), pair("search_path", "public"), pair("role", "postgres"), pair("work_mem", "a lot")]);
    let (facts, _) = desk.server.prepare_restore(&made.tenant, &terms(), &made.secret, &[]).await.unwrap();
    desk.server.finish_restore(&made.tenant, &terms(), &found).await.unwrap();
    desk.server.resume(&made.tenant).await.unwrap();
    let mut session = made.session().await.unwrap();
    assert_eq!(shown(&mut session, "default_text_search_config").await, "pg_catalog.german");
    assert_eq!(shown(&mut session, "statement_timeout").await, "9s");
    assert_eq!(shown(&mut session, "search_path").await, "app, ext");
    assert_eq!(shown(&mut session, "role").await, format!("{name}_own"));
    session.close().await.unwrap();
    desk.remove(&made.tenant, &facts).await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: make test"]
async fn what_is_set_for_a_database_does_not_reach_the_operators_sessions() {
    let desk = Desk::open().await;
    let made = desk.tenant().await;
    let name = &made.tenant.name;
    let mut session = made.session().await.unwrap();
    session.execute("SELECT lo_from_bytea(4711, 'x'); REVOKE ALL ON LARGE OBJECT 4711 FROM CURRENT_USER").await.unwrap();
    session.close().await.unwrap();
    let mut root = desk.superuser().await;
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
    let wanted = helpdesk_operator::api::plan::Extension { name: "hstore".into(), version: None };
    let terms = helpdesk_operator::database::TenantLimits { extensions: vec![wanted], ..terms() };
    assert_eq!(desk.server.ensure(&made.tenant, &terms, &made.secret).await.unwrap().lacking, []);
    let login = desk.server.dump_login(&made.tenant).await.unwrap();
    let mut dump = as_mover(&login).await.unwrap();
    dump.execute("SET statement_timeout = 0").await.unwrap();
    assert_eq!(shown(&mut dump, "role").await, "none");
    let large: Vec<u8> = sqlx::query_scalar("SELECT lo_get(4711)").fetch_one(&mut dump).await.unwrap();
    assert_eq!(large, b"x");
    dump.close().await.unwrap();
    made.gone().await;
}
