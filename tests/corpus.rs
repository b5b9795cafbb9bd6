//! Databases of every kind that tenants have, each through backup, proof, drop, restore and comparison: with the
//! operator's own roles for dumps, scratch databases and restores, on a real PostgreSQL and a real S3.
//!
//! `tests/corpus/*.sql` is run as the tenant. The environment is that of `tests/backup.rs` and `tests/database.rs`.

#![allow(clippy::unwrap_used, dead_code, reason = "a test")]

#[path = "database/desk.rs"]
mod desk;
#[path = "backup/rig.rs"]
mod rig;

use helpdesk_operator::{
    api::VerifyMode,
    backup::{
        manifest::{self, Remains, VERIFICATION, Verification, Way},
        mover::{self, Task},
    },
    database::Letter,
    store::Connected,
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};

/// A file of the corpus, what its restore needs, and what its rows do not let be made again.
struct Case {
    name: &'static str,
    sql: &'static str,
    way: Way,
    left_out: &'static [(&'static str, Remains)],
}

const fn plain(name: &'static str, sql: &'static str) -> Case {
    Case { name, sql, way: Way::Plain, left_out: &[] }
}

const CORPUS: [Case; 10] = [
    plain("printed", include_str!("corpus/printed_otherwise.sql")),
    Case { name: "paths", sql: include_str!("corpus/owners_search_path.sql"), way: Way::Sections, left_out: &[] },
    plain("security", include_str!("corpus/row_security.sql")),
    plain("types", include_str!("corpus/types.sql")),
    plain("tables", include_str!("corpus/tables.sql")),
    Case {
        name: "views",
        sql: include_str!("corpus/views.sql"),
        way: Way::Plain,
        left_out: &[("materialized view app.share", Remains::Empty), ("rows of materialized view app.stale", Remains::Recomputed)],
    },
    Case {
        name: "broken",
        sql: include_str!("corpus/broken_rows.sql"),
        way: Way::Sections,
        left_out: &[
            ("constraint app.checked is_good", Remains::NotValid),
            ("constraint of domain app.level ok", Remains::NotValid),
            ("constraint app.children children_parent_fkey", Remains::NotValid),
            ("index app.doubled_key", Remains::Missing),
            ("index app.inverted_n", Remains::Missing),
            ("generated columns of app.bills", Remains::Recomputed),
        ],
    },
    plain("search", include_str!("corpus/text_search.sql")),
    plain("names", include_str!("corpus/names_and_comments.sql")),
    plain("large", include_str!("corpus/large_objects.sql")),
];

/// What a tenant sees of its own rows, in its own words: nothing of the comparison that is tested is used for it.
async fn seen_by_tenant(session: &mut PgConnection) -> Vec<(String, i64, String)> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind = 'r' AND NOT c.relforcerowsecurity AND n.nspname = 'app' ORDER BY 1",
    )
    .fetch_all(&mut *session)
    .await
    .unwrap();
    let mut seen = Vec::new();
    session.execute("SET search_path = pg_catalog").await.unwrap();
    for table in tables {
        let query = format!(
            "SELECT count(*), coalesce(md5(string_agg(r, E'\\n' ORDER BY r)), '') FROM (SELECT to_jsonb(whole_row)::text COLLATE \"C\" AS r FROM ONLY {table} whole_row) s"
        );
        let (count, sum): (i64, String) = sqlx::query_as(AssertSqlSafe(query)).fetch_one(&mut *session).await.unwrap();
        seen.push((table, count, sum));
    }
    session.execute("SET search_path = app").await.unwrap();
    seen
}

async fn lives_on(desk: &desk::Desk, store: Connected, case: &Case) -> Result<(), String> {
    let tenant = desk.tenant().await;
    let mut session = tenant.session().await.unwrap();
    sqlx::raw_sql(case.sql).execute(&mut session).await.map_err(|e| format!("its SQL: {e}"))?;
    let before = seen_by_tenant(&mut session).await;
    session.close().await.unwrap();

    let source = desk.server.dump_login(&tenant.tenant).await.unwrap();
    let scratch = desk.server.scratch(&tenant.tenant, case.name).await.unwrap();
    let identity = (tenant.facts.oid, tenant.facts.system_identifier.clone());
    let backup = rig::Desk::of(case.name, store, source, identity, scratch, VerifyMode::Restore);
    let told = |step: &str, error: &mover::Error| format!("{step}: {}", helpdesk_operator::store::chain(error));
    backup.run(Task::Backup).await.map_err(|e| told("its backup", &e))?;
    let proof: Verification = manifest::open(&backup.bytes(VERIFICATION).await, &backup.keys.verifying).unwrap();
    let restored = proof.restored.unwrap();
    let mut found: Vec<_> = restored.left_out.iter().map(|l| (l.what.as_str(), l.remains)).collect();
    let mut expected = case.left_out.to_vec();
    found.sort_by_key(|l| l.0);
    expected.sort_by_key(|l| l.0);
    if found != expected || restored.way != case.way {
        return Err(format!("its proof: {restored:?}"));
    }
    desk.server.revoke_dump_login(&tenant.tenant).await.unwrap();
    desk.server.drop_scratch(&tenant.tenant, case.name).await.unwrap();

    desk.remove(&tenant.tenant, &tenant.facts).await;
    let (password, secret) = desk::fresh_secret(Letter::A);
    let (facts, target) = desk.server.prepare_restore(&tenant.tenant, &desk::terms(), &secret).await.unwrap();
    backup.restore_to(&target, facts.oid, 0).await.map_err(|e| told("its restore", &e))?;
    desk.server.finish_restore(&tenant.tenant).await.unwrap();
    desk.server.resume(&tenant.tenant).await.unwrap();
    let mut session = desk.session(&tenant.tenant.login(Letter::A), password.expose(), &tenant.tenant.name).await.unwrap();
    let after = seen_by_tenant(&mut session).await;
    let computed_anew = |name: &str| case.left_out.iter().any(|l| l.0 == format!("generated columns of {name}"));
    for (a, b) in before.iter().zip(&after) {
        if a != b && !computed_anew(&a.0) {
            return Err(format!("what its tenant sees: {a:?} before, {b:?} after"));
        }
    }
    if before.len() != after.len() {
        return Err(format!("what its tenant sees: {} tables before, {} after", before.len(), after.len()));
    }
    session.close().await.unwrap();
    desk.remove(&tenant.tenant, &facts).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a store and PostgreSQL: make test"]
async fn every_kind_of_database_is_proven_and_comes_back() {
    let desk = desk::Desk::open().await;
    let bucket = rig::bucket("corpus", true).await;
    rig::connected(&bucket, "eu-1/").await;
    let store = || rig::connect(&bucket, "eu-1/", Some("the-bucket"), None);
    let only = std::env::var("HELPDESK_TEST_CORPUS").ok();
    let chosen = CORPUS.iter().filter(|case| only.as_ref().is_none_or(|name| case.name == name));
    let lives = chosen.map(|case| async { (case.name, lives_on(&desk, store(), case).await) });
    let failed: Vec<_> = futures::future::join_all(lives)
        .await
        .into_iter()
        .filter_map(|(name, end)| end.err().map(|why| format!("{name}: {why}")))
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
