//! The same work without an operator: a loop of statements, of patches, of pipes.

use std::{
    process::{Command, Output},
    time::Instant,
};

use futures::{StreamExt, stream};
use helpdesk_operator::database::Password;
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, PgPool, Row,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};

use super::{
    cluster::{Cluster, OPERATOR, setting},
    report::seconds,
    tenant::Tenant,
};

/// Does all of it, so many at once.
pub async fn side_by_side<T, F: Future<Output = T>>(at_once: usize, work: impl IntoIterator<Item = F>) -> Vec<T> {
    stream::iter(work).buffer_unordered(at_once).collect().await
}

/// Runs a command inside a pod.
pub fn in_pod(namespace: &str, pod: &str, command: &[&str], input: Option<&str>) -> Output {
    use std::io::Write;
    let mut child = Command::new(format!("{}/kubectl", setting("HELPDESK_TEST_BIN")))
        .args(["--kubeconfig", &setting("HELPDESK_TEST_KUBECONFIG"), "exec", "-i", "-n", namespace, pod, "--"])
        .args(command)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.unwrap_or_default().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?} in {namespace}/{pod}: {}", output.status);
    output
}

/// A password, and what the server keeps of it: computing that is no part of what is measured.
pub async fn password() -> (String, String) {
    let password = Password::generate().unwrap().expose().to_owned();
    let mut superuser = super::tenant::superuser_logs_in("postgres").await;
    let make = format!("DROP ROLE IF EXISTS bench; CREATE ROLE bench PASSWORD '{password}'");
    sqlx::raw_sql(AssertSqlSafe(make)).execute(&mut superuser).await.unwrap();
    let verifier = sqlx::query_scalar("SELECT rolpassword FROM pg_authid WHERE rolname = 'bench'");
    let verifier = verifier.fetch_one(&mut superuser).await.unwrap();
    sqlx::query("DROP ROLE bench").execute(&mut superuser).await.unwrap();
    (password, verifier)
}

/// Makes tenants by the operator's statements with psql, four at once, beside the server; returns the seconds it took.
pub async fn tenants(prefix: &str, count: usize, verifier: &str) -> f64 {
    let (prefix, verifier) = (prefix.to_owned(), verifier.to_owned());
    let run = move || {
        let count = count.to_string();
        let output = in_pod("databases", "pg-eu-1-0", &["bash", "-s", &prefix, &count, &verifier], Some(include_str!("tenants.sh")));
        String::from_utf8(output.stdout).unwrap().trim().parse::<f64>().unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// Connections of the operator's own role.
pub async fn admin_pool(cluster: &Cluster, size: usize) -> PgPool {
    let admin = cluster.secret(OPERATOR, "pg-eu-1-admin").await.unwrap();
    let size = u32::try_from(size).unwrap();
    let options = PgConnectOptions::new()
        .host(&setting("HELPDESK_TEST_PG_EU_1_HOST"))
        .ssl_mode(PgSslMode::VerifyFull)
        .ssl_root_cert(setting("HELPDESK_TEST_CA"));
    let options = options.username(&admin["username"]).password(&admin["password"]).database("postgres");
    let pool = PgPoolOptions::new().min_connections(size).max_connections(size).connect_with(options).await.unwrap();
    side_by_side(size as usize, (0..size).map(|_| async { pool.acquire().await.unwrap().ping().await.unwrap() })).await;
    pool
}

/// Opens a session in each of the tenants that [`tenants`] made.
pub async fn sessions(prefix: &str, count: usize, password: &str) -> Vec<PgConnection> {
    let enter = |number: usize| async move {
        let database = format!("{prefix}_{number}");
        let tenant = Tenant {
            username: format!("{database}_a"),
            password: password.to_owned(),
            database,
            host: setting("HELPDESK_TEST_PG_EU_1_HOST"),
        };
        tenant.logs_in().await.unwrap()
    };
    side_by_side(8, (1..=count).map(enter)).await
}

/// Shuts tenants by the operator's statements, so many at once; returns the seconds it took.
pub async fn shut(pool: &PgPool, at_once: usize, prefix: &str, count: usize) -> f64 {
    let begun = Instant::now();
    side_by_side(at_once, (1..=count).map(|number| shut_one(pool, format!("{prefix}_{number}")))).await;
    seconds(begun.elapsed())
}

async fn shut_one(pool: &PgPool, name: String) {
    let row = sqlx::query(
        "SELECT d.oid::bigint AS oid, shobj_description(d.oid, 'pg_database') AS marker, r.rolcanlogin \
         FROM pg_database d JOIN pg_roles r ON r.rolname = d.datname || '_a' WHERE d.datname = $1",
    )
    .bind(&name)
    .fetch_one(pool)
    .await
    .unwrap();
    let oid: i64 = row.get("oid");
    let send = async |sql: String| sqlx::raw_sql(AssertSqlSafe(sql)).execute(pool).await.unwrap();
    send(format!("REVOKE {name}_own FROM {name}_a")).await;
    loop {
        sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datid::bigint = $1 AND pid <> pg_backend_pid()")
            .bind(oid)
            .execute(pool)
            .await
            .unwrap();
        let left: i64 =
            sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE datid::bigint = $1").bind(oid).fetch_one(pool).await.unwrap();
        if left == 0 {
            break;
        }
    }
    send(format!("ALTER ROLE {name}_a NOLOGIN; REVOKE CONNECT, TEMPORARY ON DATABASE {name} FROM {name}_own;")).await;
}
