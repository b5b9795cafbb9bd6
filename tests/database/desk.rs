//! A server for the tests, an operator's role on it, and tenants.

use std::str::FromStr;

use helpdesk_operator::{
    api::{ClosureMode, database_server::TlsMode, plan::Schemas},
    backup::proof::{DropAuthority, OwnerWaiver},
    clock::{self, Trust},
    database::{
        DatabaseId, Error, LoginSecret, LoginSlot, MoverLogin, Password, Server, ServerInfo, Tenant, TenantLimits,
        postgres::{Address, Admin, Driver},
    },
    ledger::Ledger,
    lifecycle::{ClosureRecord, Record},
};
use ring::rand::{SecureRandom, SystemRandom};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, postgres::PgConnectOptions};

pub const ADMIN_PASSWORD: &str = "only-for-tests";

/// Everything that a test needs.
pub struct Desk {
    pub server: Server,
    pub ledger: Ledger,
    pub identity: ServerInfo,
    pub admin: String,
    address: Address,
    root: PgConnectOptions,
}

fn root() -> PgConnectOptions {
    let url = std::env::var("HELPDESK_TEST_PG_URL").expect("set HELPDESK_TEST_PG_URL to a superuser's URL: make test");
    PgConnectOptions::from_str(&url).expect("HELPDESK_TEST_PG_URL is no URL of a PostgreSQL")
}

/// The authority in the URL, which `sslrootcert` names.
fn authority() -> Option<String> {
    let url = std::env::var("HELPDESK_TEST_PG_URL").ok()?;
    let path = url.split(['?', '&']).find_map(|part| part.strip_prefix("sslrootcert="))?;
    Some(std::fs::read_to_string(path).expect("sslrootcert cannot be read"))
}

impl Desk {
    pub async fn open() -> Self {
        let root = root();
        let admin = "helpdesk_test_operator".to_owned();
        let mut session = PgConnection::connect_with(&root).await.expect("the server cannot be reached");
        session
            .execute(AssertSqlSafe(format!(
                "SELECT pg_advisory_xact_lock(4711); \
                 DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{admin}') THEN \
                 CREATE ROLE {admin} LOGIN CREATEDB CREATEROLE BYPASSRLS PASSWORD '{ADMIN_PASSWORD}'; \
                 GRANT pg_signal_backend, pg_use_reserved_connections TO {admin}; \
                 GRANT CONNECT ON DATABASE postgres TO {admin}; END IF; END $$; \
                 REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC"
            )))
            .await
            .expect("the operator's role cannot be made");
        session.close().await.ok();
        let address = Address { host: root.get_host().to_owned(), port: root.get_port(), tls: TlsMode::VerifyFull, ca_pem: authority() };
        let login = Admin { username: admin.clone(), password: Password::from_text(ADMIN_PASSWORD.into()) };
        let (driver, pool) = Driver::connect(address.clone(), &login).await.unwrap();
        let server = Server::Postgres(driver);
        let identity = server.identify().await.unwrap();
        let ledger = Ledger::new(pool);
        ledger.migrate().await.unwrap();
        Self { server, ledger, identity, admin, address, root }
    }

    pub async fn connect_as(&self, username: &str, password: &str) -> Server {
        let login = Admin { username: username.into(), password: Password::from_text(password.into()) };
        Server::Postgres(Driver::connect(self.address.clone(), &login).await.unwrap().0)
    }

    pub async fn try_connect(&self, port: u16) -> Result<(), Error> {
        let login = Admin { username: self.admin.clone(), password: Password::from_text(ADMIN_PASSWORD.into()) };
        Driver::connect(Address { port, ..self.address.clone() }, &login).await.map(drop)
    }

    pub async fn try_connect_with(&self, password: &str) -> Result<(), Error> {
        let login = Admin { username: self.admin.clone(), password: Password::from_text(password.into()) };
        Driver::connect(self.address.clone(), &login).await.map(drop)
    }

    pub async fn superuser(&self) -> PgConnection {
        PgConnection::connect_with(&self.root).await.unwrap()
    }

    pub async fn superuser_in(&self, database: &str) -> PgConnection {
        PgConnection::connect_with(&self.root.clone().database(database)).await.unwrap()
    }

    pub async fn session(&self, user: &str, password: &str, database: &str) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect_with(&self.root.clone().username(user).password(password).database(database)).await
    }

    /// A tenant with its database.
    pub async fn tenant(&self) -> Made<'_> {
        self.tenant_on(&terms()).await
    }

    /// A tenant with its database, made under these terms.
    pub async fn tenant_on(&self, terms: &TenantLimits) -> Made<'_> {
        let tenant = Tenant::of(&fresh_uid()).unwrap();
        let (password, secret) = fresh_secret(LoginSlot::A);
        let ensured = self.server.ensure(&tenant, terms, &secret).await.unwrap();
        assert_eq!(ensured.lacking, []);
        let facts = ensured.facts;
        Made { desk: self, tenant, password, secret, facts }
    }

    /// Ensures until a statement that outlived its client is done.
    pub async fn settled_ensure(&self, tenant: &Tenant, secret: &LoginSecret) -> DatabaseId {
        for _ in 0..50 {
            match self.server.ensure(tenant, &terms(), secret).await {
                Ok(ensured) => return ensured.facts,
                Err(Error::Query { .. }) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("it never settled")
    }

    pub fn waiver(&self, tenant: &Tenant) -> DropAuthority {
        let now = clock::now();
        let mut record = Record::created(now);
        record.closure =
            Some(ClosureRecord { mode: ClosureMode::Erase, keeps_backup: false, seen_at: now, delete_at: now, by_deletion: false });
        DropAuthority::Waived(OwnerWaiver::of(&record, &tenant.uid, 1, &Trust::Trusted, now).unwrap())
    }

    pub async fn remove(&self, tenant: &Tenant, facts: &DatabaseId) {
        self.server.drop(tenant, facts, &self.waiver(tenant)).await.unwrap();
    }

    /// Every marker on the server.
    pub async fn all_uids(&self) -> Vec<String> {
        sqlx::query_scalar(
            "SELECT DISTINCT uid FROM (SELECT shobj_description(oid, 'pg_database') FROM pg_database \
             UNION SELECT shobj_description(oid, 'pg_authid') FROM pg_roles) AS marks (uid) WHERE uid IS NOT NULL",
        )
        .fetch_all(&mut self.superuser().await)
        .await
        .unwrap()
    }
}

/// A tenant with its database.
pub struct Made<'a> {
    desk: &'a Desk,
    pub tenant: Tenant,
    pub password: Password,
    pub secret: LoginSecret,
    pub facts: DatabaseId,
}

impl Made<'_> {
    pub async fn session(&self) -> Result<PgConnection, sqlx::Error> {
        self.session_in(&self.tenant.name).await
    }

    pub async fn session_in(&self, database: &str) -> Result<PgConnection, sqlx::Error> {
        self.desk.session(&self.tenant.login(LoginSlot::A), self.password.expose(), database).await
    }

    pub async fn gone(self) {
        self.desk.remove(&self.tenant, &self.facts).await;
    }
}

pub fn terms() -> TenantLimits {
    TenantLimits { connection_limit: 20, extensions: vec![], schemas: Schemas::Fixed }
}

pub fn fresh_uid() -> String {
    let mut bytes = [0_u8; 16];
    SystemRandom::new().fill(&mut bytes).unwrap();
    let digits = helpdesk_operator::digest::hex(&bytes);
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

pub fn fresh_secret(slot: LoginSlot) -> (Password, LoginSecret) {
    let password = Password::generate().unwrap();
    let verifier = password.verifier().unwrap();
    (password, LoginSecret { slot, verifier })
}

pub fn code(error: &sqlx::Error) -> String {
    error.as_database_error().and_then(|e| e.code()).map(|c| c.into_owned()).unwrap_or_default()
}

pub async fn as_mover(login: &MoverLogin) -> Result<PgConnection, sqlx::Error> {
    let mut options = root().username(&login.username).password(login.password.expose()).database(&login.database).port(login.port);
    if let Some(pem) = &login.ca_pem {
        options = options.ssl_root_cert_from_pem(pem.clone().into_bytes());
    }
    PgConnection::connect_with(&options).await
}

/// Runs the real pg_dump, if `HELPDESK_TEST_PG_DUMP` names one that is not older than the server.
pub fn pg_dump_works(login: &MoverLogin) {
    let Ok(program) = std::env::var("HELPDESK_TEST_PG_DUMP") else { return };
    let output = std::process::Command::new(program)
        .args(["--format=plain", "--host", &login.host, "--port", &login.port.to_string()])
        .args(["--username", &login.username, "--dbname", &login.database])
        .env("PGPASSWORD", login.password.expose())
        .env("PGSSLMODE", "require")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let dump = String::from_utf8_lossy(&output.stdout);
    assert!(dump.contains("it's") && dump.contains("42") && dump.contains("odd \"\" name"), "{dump}");
}
