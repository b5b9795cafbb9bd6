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
    cluster::{Cluster, has_condition},
    tenant::{Tenant, databases_and_roles_left, superuser_logs_in},
};

/// Statements of one tenant that name or lock the roles `{roles}` of another, `{v}`.
const STATEMENTS_AGAINST_A_NEIGHBOUR: [&str; 5] = [
    "ALTER ROLE CURRENT_USER IN DATABASE {v} SET work_mem = '4MB'",
    "SET ROLE NONE; ALTER ROLE CURRENT_USER IN DATABASE {v} SET work_mem = '4MB'",
    "GRANT USAGE ON SCHEMA app TO {roles}",
    "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {roles}",
    "GRANT SELECT (id) ON bait TO {roles}",
];

/// The neighbour runs every statement again and again, and keeps the sessions that hold a lock.
fn attacker_locks_and_names_the_victim(neighbour: Tenant, victim: String) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut held: Vec<PgConnection> = Vec::new();
        for round in 0.. {
            for (number, sql) in STATEMENTS_AGAINST_A_NEIGHBOUR.iter().enumerate() {
                let Ok(mut session) = neighbour.logs_in().await else { continue };
                let names = "SELECT string_agg(quote_ident(rolname), ', ') FROM pg_roles WHERE rolname LIKE $1 || '\\_%'";
                let Ok(Some(roles)) = sqlx::query_scalar::<_, Option<String>>(names).bind(&victim).fetch_one(&mut session).await else {
                    continue;
                };
                let sql = sql.replace("{v}", &victim).replace("{roles}", &roles);
                // Every other statement is committed; the others stay in an open transaction.
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
    // Given a tenant with 50 tickets, and a neighbour who locks and names its roles again and again.
    let cluster = Cluster::connect().await;
    cluster.administrator_applies_plan("hostile", json!({"trial": "12s", "blocked": "25s", "terminated": "5s", "coldBackup": "20s"})).await;
    cluster.administrator_applies_plan("hostile-neighbour", json!({})).await;
    let neighbour = cluster.customer_signs_up("hostile-neighbour", "hostile-neighbour").await;
    let attacker = neighbour.receives_credentials_in(Stage::Trial).await;
    attacker.logs_in().await.unwrap().execute("CREATE TABLE bait (id int)").await.unwrap();
    let account = cluster.customer_signs_up("hostile", "hostile").await;
    let tenant = account.receives_credentials_in(Stage::Trial).await;
    tenant.creates_tickets(50).await;
    let task = attacker_locks_and_names_the_victim(attacker.clone(), tenant.database.clone());

    // Given sessions of the tenant that hold locks on its own role, its database and a table, and never give them back.
    let mut held = Vec::new();
    for sql in ["SET ROLE NONE; ALTER ROLE CURRENT_USER PASSWORD 'x'", "GRANT CONNECT ON DATABASE {t} TO {t}_own", "LOCK TABLE tickets"] {
        let mut session = tenant.logs_in().await.unwrap();
        session.execute(AssertSqlSafe(format!("BEGIN; {}", sql.replace("{t}", &tenant.database)))).await.unwrap();
        held.push(session);
    }

    // When the trial ends.
    let blocked = account.reaches(Stage::Blocked).await;

    // Then the tenant is Blocked in time: its sessions are ended, and it cannot log in.
    assert_eq!(blocked.status.as_ref().unwrap().reason, Some(Reason::TrialEnded));
    assert!(has_condition(&blocked, "BlockEnforced", "True"));
    for session in &mut held {
        assert!(session.execute("SELECT 1").await.is_err(), "a session of a blocked tenant reads on");
    }
    assert!(tenant.logs_in().await.is_err(), "a blocked tenant logged in");

    // Then its backup is proven in spite of the locks.
    account
        .wait_for_backup("a Frozen backup is proven", |b| {
            b.spec.reason == BackupReason::Frozen && b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Verified)
        })
        .await;

    // When Blocked and Terminated end.
    account.reaches(Stage::Terminated).await;
    account.reaches(Stage::Deleted).await;

    // Then neither a database nor a login of the tenant is left.
    let mut root = superuser_logs_in("postgres").await;
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

    // When the cold backup expires.
    let expired = account.reaches(Stage::Expired).await;

    // Then the certificate tells how many roles could not be removed.
    let roles_left = expired.status.unwrap().certificate.unwrap().roles_left.unwrap_or_default();
    assert!(databases_and_roles_left(&tenant.database).await <= roles_left, "more roles are left than the certificate tells");

    // Then the neighbour, who attacked all the time, still has its own account and its login.
    assert!(!task.is_finished(), "the neighbour gave up");
    task.abort();
    // The neighbour went on all the while: it was cut off, and not shut.
    attacker.logs_in().await.unwrap().close().await.unwrap();
    assert_eq!(neighbour.get().await.status.unwrap().stage, Some(Stage::Trial));
}
