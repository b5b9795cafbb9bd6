//! The PostgreSQL server of the tests, the operator's role on it, and tenants.

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

/// A connection to the server as the operator: its driver, its ledger and its role.
pub struct TestServer {
    pub driver: Server,
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

/// The certificates in the file that `sslrootcert` of the URL names.
fn authority() -> Option<String> {
    let url = std::env::var("HELPDESK_TEST_PG_URL").ok()?;
    let path = url.split(['?', '&']).find_map(|part| part.strip_prefix("sslrootcert="))?;
    Some(std::fs::read_to_string(path).expect("sslrootcert cannot be read"))
}

impl TestServer {
    pub async fn connect() -> Self {
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
        let (postgres, pool) = Driver::connect(address.clone(), &login).await.unwrap();
        let driver = Server::Postgres(postgres);
        let identity = driver.identify().await.unwrap();
        let ledger = Ledger::new(pool);
        ledger.migrate().await.unwrap();
        Self { driver, ledger, identity, admin, address, root }
    }

    /// Another operator connects as this role.
    pub async fn operator_connects_as(&self, username: &str, password: &str) -> Server {
        let login = Admin { username: username.into(), password: Password::from_text(password.into()) };
        Server::Postgres(Driver::connect(self.address.clone(), &login).await.unwrap().0)
    }

    pub async fn operator_connects_to_port(&self, port: u16) -> Result<(), Error> {
        let login = Admin { username: self.admin.clone(), password: Password::from_text(ADMIN_PASSWORD.into()) };
        Driver::connect(Address { port, ..self.address.clone() }, &login).await.map(drop)
    }

    pub async fn operator_connects_with_password(&self, password: &str) -> Result<(), Error> {
        let login = Admin { username: self.admin.clone(), password: Password::from_text(password.into()) };
        Driver::connect(self.address.clone(), &login).await.map(drop)
    }

    pub async fn superuser_logs_in(&self) -> PgConnection {
        PgConnection::connect_with(&self.root).await.unwrap()
    }

    pub async fn superuser_logs_in_to(&self, database: &str) -> PgConnection {
        PgConnection::connect_with(&self.root.clone().database(database)).await.unwrap()
    }

    /// Somebody logs in to a database.
    pub async fn log_in(&self, user: &str, password: &str, database: &str) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect_with(&self.root.clone().username(user).password(password).database(database)).await
    }

    /// Creates a tenant with its database.
    pub async fn create_tenant(&self) -> TestTenant<'_> {
        self.create_tenant_with(&limits()).await
    }

    /// Creates a tenant with its database, under these limits.
    pub async fn create_tenant_with(&self, limits: &TenantLimits) -> TestTenant<'_> {
        let tenant = Tenant::of(&new_uid()).unwrap();
        let (password, secret) = new_login_secret(LoginSlot::A);
        let ensured = self.driver.ensure(&tenant, limits, &secret).await.unwrap();
        assert_eq!(ensured.lacking, []);
        let facts = ensured.facts;
        TestTenant { server: self, tenant, password, secret, facts }
    }

    /// The operator ensures a tenant again and again, until a statement that outlived its client has ended.
    pub async fn ensure_until_done(&self, tenant: &Tenant, secret: &LoginSecret) -> DatabaseId {
        for _ in 0..50 {
            match self.driver.ensure(tenant, &limits(), secret).await {
                Ok(ensured) => return ensured.facts,
                Err(Error::Query { .. }) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("it never settled")
    }

    /// The owner wants the tenant erased without a backup, which is the authority to drop it.
    pub fn owner_waives_backup(&self, tenant: &Tenant) -> DropAuthority {
        let now = clock::now();
        let mut record = Record::created(now);
        record.closure =
            Some(ClosureRecord { mode: ClosureMode::Erase, keeps_backup: false, seen_at: now, delete_at: now, by_deletion: false });
        DropAuthority::Waived(OwnerWaiver::of(&record, &tenant.uid, 1, &Trust::Trusted, now).unwrap())
    }

    pub async fn drop_tenant(&self, tenant: &Tenant, facts: &DatabaseId) {
        self.driver.drop(tenant, facts, &self.owner_waives_backup(tenant)).await.unwrap();
    }

    /// The uid in every marker on the server.
    pub async fn marked_uids(&self) -> Vec<String> {
        sqlx::query_scalar(
            "SELECT DISTINCT uid FROM (SELECT shobj_description(oid, 'pg_database') FROM pg_database \
             UNION SELECT shobj_description(oid, 'pg_authid') FROM pg_roles) AS marks (uid) WHERE uid IS NOT NULL",
        )
        .fetch_all(&mut self.superuser_logs_in().await)
        .await
        .unwrap()
    }
}

/// A tenant with its database.
pub struct TestTenant<'a> {
    server: &'a TestServer,
    pub tenant: Tenant,
    pub password: Password,
    pub secret: LoginSecret,
    pub facts: DatabaseId,
}

impl TestTenant<'_> {
    pub async fn logs_in(&self) -> Result<PgConnection, sqlx::Error> {
        self.logs_in_to(&self.tenant.name).await
    }

    pub async fn logs_in_to(&self, database: &str) -> Result<PgConnection, sqlx::Error> {
        self.server.log_in(&self.tenant.login(LoginSlot::A), self.password.expose(), database).await
    }

    pub async fn drop_database(self) {
        self.server.drop_tenant(&self.tenant, &self.facts).await;
    }
}

pub fn limits() -> TenantLimits {
    TenantLimits { connection_limit: 20, extensions: vec![], schemas: Schemas::Fixed }
}

pub fn new_uid() -> String {
    let mut bytes = [0_u8; 16];
    SystemRandom::new().fill(&mut bytes).unwrap();
    let digits = helpdesk_operator::digest::hex(&bytes);
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

pub fn new_login_secret(slot: LoginSlot) -> (Password, LoginSecret) {
    let password = Password::generate().unwrap();
    let verifier = password.verifier().unwrap();
    (password, LoginSecret { slot, verifier })
}

pub fn sqlstate(error: &sqlx::Error) -> String {
    error.as_database_error().and_then(|e| e.code()).map(|c| c.into_owned()).unwrap_or_default()
}

pub async fn mover_logs_in(login: &MoverLogin) -> Result<PgConnection, sqlx::Error> {
    let mut options = root().username(&login.username).password(login.password.expose()).database(&login.database).port(login.port);
    if let Some(pem) = &login.ca_pem {
        options = options.ssl_root_cert_from_pem(pem.clone().into_bytes());
    }
    PgConnection::connect_with(&options).await
}

/// Runs the real pg_dump, if `HELPDESK_TEST_PG_DUMP` names one that is not older than the server.
pub fn pg_dump_succeeds(login: &MoverLogin) {
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
