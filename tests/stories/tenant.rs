//! What a tenant does in its database, and a superuser who may read everything.

use std::{collections::BTreeMap, sync::Mutex};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row,
    postgres::{PgConnectOptions, PgSslMode},
};

use super::cluster::setting;

/// A tenant, with the credentials from its Secret.
#[derive(Clone, Debug)]
pub struct Tenant {
    pub username: String,
    pub password: String,
    pub database: String,
    /// Its server's address, as this machine reaches it.
    pub host: String,
}

impl Tenant {
    /// Reads the keys of the Service Binding specification.
    pub fn of(secret: &BTreeMap<String, String>) -> Self {
        assert_eq!(secret["type"], "postgresql");
        // Names of the cluster mean nothing on this machine, and the servers of shards go by their addresses.
        let host = Some(secret["host"].clone()).filter(|host| host.parse::<std::net::IpAddr>().is_ok());
        Self {
            username: secret["username"].clone(),
            password: secret["password"].clone(),
            database: secret["database"].clone(),
            host: host.unwrap_or_else(|| setting("HELPDESK_TEST_PG_EU_1_HOST")),
        }
    }

    /// The tenant logs in to its own database.
    pub async fn logs_in(&self) -> Result<PgConnection, sqlx::Error> {
        self.logs_in_to(&self.database).await
    }

    /// The tenant tries to log in to another database.
    pub async fn logs_in_to(&self, database: &str) -> Result<PgConnection, sqlx::Error> {
        options().host(&self.host).username(&self.username).password(&self.password).database(database).connect().await
    }

    /// The tenant creates the tables of a help desk, with this many tickets.
    pub async fn creates_tickets(&self, tickets: i64) {
        let mut connection = self.logs_in().await.unwrap();
        let script = format!(
            "CREATE TABLE customers (id serial PRIMARY KEY, email text UNIQUE, joined timestamptz DEFAULT now());
             CREATE TABLE tickets (id bigserial PRIMARY KEY, customer int REFERENCES customers, subject text, body bytea, rate float8);
             INSERT INTO customers (email) SELECT 'c' || n || '@example.com' FROM generate_series(1, 50) n;
             INSERT INTO tickets (customer, subject, body, rate)
               SELECT n % 50 + 1, 'Ticket ' || n || E' \\u00e9\\n\\t', decode(md5(n::text), 'hex'), n / 3.0 FROM generate_series(1, {tickets}) n;
             CREATE VIEW open_tickets AS SELECT subject, email FROM tickets JOIN customers ON customers.id = customer;
             CREATE MATERIALIZED VIEW busiest AS SELECT customer, count(*) AS n FROM tickets GROUP BY customer;
             CREATE SEQUENCE invoice START 1000 INCREMENT 7;
             SELECT nextval('invoice');"
        );
        sqlx::raw_sql(AssertSqlSafe(script)).execute(&mut connection).await.unwrap();
    }

    /// A checksum over every table, view, materialized view and sequence that the tenant sees, contents included.
    pub async fn checksum(&self) -> BTreeMap<String, String> {
        let mut connection = self.logs_in().await.unwrap();
        let relations = sqlx::query(
            "SELECT c.relname::text AS name, c.relkind::text AS kind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'app' AND c.relkind IN ('r', 'v', 'm', 'S') ORDER BY 1",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap();
        let mut sums = BTreeMap::new();
        for relation in relations {
            let (name, kind): (String, String) = (relation.get("name"), relation.get("kind"));
            let columns = if kind == "S" { "last_value, is_called" } else { "*" };
            let sql = format!(
                "SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM (SELECT {columns} FROM app.\"{name}\") t"
            );
            let sum: String = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await.unwrap();
            sums.insert(format!("{kind} {name}"), sum);
        }
        connection.close().await.unwrap();
        sums
    }
}

fn options() -> PgConnectOptions {
    PgConnectOptions::new()
        .host(&setting("HELPDESK_TEST_PG_EU_1_HOST"))
        .port(5432)
        .ssl_mode(PgSslMode::VerifyFull)
        .ssl_root_cert(setting("HELPDESK_TEST_CA"))
}

/// The addresses of the servers that stories have started.
pub static STARTED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The addresses of all servers on which a tenant's database may be.
fn hosts() -> Vec<String> {
    let mut hosts = vec![setting("HELPDESK_TEST_PG_EU_1_HOST")];
    hosts.extend(STARTED.lock().unwrap().iter().cloned());
    hosts
}

/// The superuser logs in to a database of a server.
pub async fn superuser_logs_in_at(host: &str, database: &str) -> Result<PgConnection, sqlx::Error> {
    options().host(host).username("postgres").password(&setting("HELPDESK_TEST_PG_EU_1_PASSWORD")).database(database).connect().await
}

/// The superuser logs in to a database, on the first server that has it.
pub async fn superuser_logs_in(database: &str) -> PgConnection {
    for host in hosts() {
        if let Ok(session) = superuser_logs_in_at(&host, database).await {
            return session;
        }
    }
    panic!("no server has the database {database}");
}

/// How many databases and roles of this name, or beginning with it, the servers have.
pub async fn databases_and_roles_left(name: &str) -> i64 {
    let mut left = 0;
    for host in hosts() {
        let mut session = match superuser_logs_in_at(&host, "postgres").await {
            Ok(session) => session,
            // Another story has just stopped it.
            Err(_) if !hosts().contains(&host) => continue,
            Err(error) => panic!("{host}: {error}"),
        };
        left += sqlx::query_scalar::<_, i64>(
            "SELECT (SELECT count(*) FROM pg_database WHERE datname LIKE $1 || '%') + (SELECT count(*) FROM pg_roles WHERE rolname LIKE $1 || '%')",
        )
        .bind(name)
        .fetch_one(&mut session)
        .await
        .unwrap();
    }
    left
}
