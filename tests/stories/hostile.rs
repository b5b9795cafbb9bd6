//! Tenants that use all of SQL against their own end and against their neighbours' lives, while the operator goes by its
//! deadlines. What each single lock does is tried in `tests/database/hostile.rs`.

use std::time::Duration;

use helpdesk_operator::{
    api::{BackupPhase, BackupReason},
    lifecycle::{Reason, Stage},
};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tokio::task::JoinHandle;

use super::{
    cluster::{Cluster, condition},
    tenant::{Tenant, left_on_server, superuser},
};

/// What a tenant writes down and holds of another, `{v}`, whose roles are `{roles}`.
const AGAINST: [&str; 5] = [
    "ALTER ROLE CURRENT_USER IN DATABASE {v} SET work_mem = '4MB'",
    "SET ROLE NONE; ALTER ROLE CURRENT_USER IN DATABASE {v} SET work_mem = '4MB'",
    "GRANT USAGE ON SCHEMA app TO {roles}",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {roles}",
    "GRANT SELECT (id) ON bait TO {roles}",
];

/// Does all of it again and again, and holds what it gets until it is ended.
fn harass(neighbour: Tenant, victim: String) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut held: Vec<PgConnection> = Vec::new();
        for round in 0.. {
            for (number, sql) in AGAINST.iter().enumerate() {
                let Ok(mut session) = neighbour.connect().await else { continue };
                let names = "SELECT string_agg(quote_ident(rolname), ', ') FROM pg_roles WHERE rolname LIKE $1 || '\\_%'";
                let Ok(Some(roles)) = sqlx::query_scalar::<_, Option<String>>(names).bind(&victim).fetch_one(&mut session).await else {
                    continue;
                };
                let sql = sql.replace("{v}", &victim).replace("{roles}", &roles);
                // Every other time it is written down, and in between it is held.
                let begin = if (round + number) % 2 == 0 { "BEGIN;" } else { "" };
                let sql = format!("SET lock_timeout = '100ms'; {begin} {sql}");
                if session.execute(AssertSqlSafe(sql)).await.is_ok() {
                    held.push(session);
                }
            }
            let excess = held.len().saturating_sub(6);
            held.drain(..excess);
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    })
}

#[tokio::test]
async fn a_tenant_with_all_of_sql_and_its_neighbour_delay_no_stage_of_its_end() {
    let cluster = Cluster::connect().await;
    cluster.plan("hostile", json!({"trial": "12s", "blocked": "25s", "terminated": "5s", "coldBackup": "20s"})).await;
    cluster.plan("hostile-neighbour", json!({})).await;
    let neighbour = cluster.account("hostile-neighbour", "hostile-neighbour").await;
    let attacker = neighbour.open(Stage::Trial).await;
    attacker.connect().await.unwrap().execute("CREATE TABLE bait (id int)").await.unwrap();
    let account = cluster.account("hostile", "hostile").await;
    let tenant = account.open(Stage::Trial).await;
    tenant.fill(50).await;
    let task = harass(attacker.clone(), tenant.database.clone());

    // Its own row in the catalog of roles, and what its owner role may write down, held for ever.
    let mut held = Vec::new();
    for sql in ["SET ROLE NONE; ALTER ROLE CURRENT_USER PASSWORD 'x'", "GRANT CONNECT ON DATABASE {t} TO {t}_own", "LOCK TABLE tickets"] {
        let mut session = tenant.connect().await.unwrap();
        session.execute(AssertSqlSafe(format!("BEGIN; {}", sql.replace("{t}", &tenant.database)))).await.unwrap();
        held.push(session);
    }
    let blocked = account.stage(Stage::Blocked).await;
    assert_eq!(blocked.status.as_ref().unwrap().reason, Some(Reason::TrialEnded));
    assert!(condition(&blocked, "BlockEnforced", "True"));
    for session in &mut held {
        assert!(session.execute("SELECT 1").await.is_err(), "a session of a blocked tenant reads on");
    }
    assert!(tenant.connect().await.is_err(), "a blocked tenant logged in");
    account
        .backup("a Frozen backup is proven", |b| {
            b.spec.reason == BackupReason::Frozen && b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Verified)
        })
        .await;
    account.stage(Stage::Terminated).await;
    account.stage(Stage::Deleted).await;
    let mut root = superuser("postgres").await;
    let open: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM pg_database WHERE datname LIKE $1 || '%') \
         + (SELECT count(*) FROM pg_roles WHERE rolname LIKE $1 || '%' AND rolcanlogin)",
    )
    .bind(&tenant.database)
    .fetch_one(&mut root)
    .await
    .unwrap();
    assert_eq!(open, 0, "a database or a login is left");
    root.close().await.unwrap();
    let expired = account.stage(Stage::Expired).await;
    let told = expired.status.unwrap().certificate.unwrap().roles_left.unwrap_or_default();
    assert!(left_on_server(&tenant.database).await <= told, "more roles are left than the certificate tells");
    assert!(!task.is_finished(), "the neighbour gave up");
    task.abort();
    // The neighbour went on all the while: it was cut off, and not shut.
    attacker.connect().await.unwrap().close().await.unwrap();
    assert_eq!(neighbour.get().await.status.unwrap().stage, Some(Stage::Trial));
}
