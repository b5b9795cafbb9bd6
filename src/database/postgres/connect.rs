//! Connects to a server, makes the ledger database, checks the rights of the admin role.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool, Row,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};
use tokio::sync::Semaphore;

use super::{
    driver::{ASK, Address, CHANGE, Driver, send},
    names::quote_ident,
};
use crate::{
    api::database_server::TlsMode,
    database::{Connections, Error, Password, ServerInfo},
    ledger,
};

/// The role that the operator logs in as. It need not be a superuser.
#[derive(Clone, Debug)]
pub struct Admin {
    /// Its name.
    pub username: String,
    /// Its password.
    pub password: Password,
}

/// How long reaching the server and getting a free connection may take.
const REACH: Duration = Duration::from_secs(5);

/// The names in the operator's own sessions mean what `pg_catalog` says they mean.
const PINNED: &str = "pg_catalog,pg_temp";

impl Driver {
    /// Reaches the server, makes the operator's private database on it if there is none, and returns the driver and
    /// a pool for the ledger. Changes nothing else.
    ///
    /// # Errors
    /// Whatever keeps the server from being used; see [`Error`].
    pub async fn connect(address: Address, admin: &Admin) -> Result<(Self, PgPool), Error> {
        let options = options(&address, &admin.username, &admin.password).database(ledger::DATABASE);
        make_private_database(&address, &options).await?;

        let pinned = |seconds: u64| limits(options.clone(), PINNED, seconds);
        // Together with what `Connections::KEPT` says.
        let pool = |size: u32, options: PgConnectOptions| {
            PgPoolOptions::new()
                .max_connections(size)
                .acquire_timeout(REACH)
                .idle_timeout(Duration::from_secs(120))
                .max_lifetime(Duration::from_secs(1800))
                .connect_lazy_with(options)
        };
        let ledger = pool(8, limits(options.clone(), "public,pg_temp", 10));
        let driver = Self {
            pool: pool(12, pinned(30)),
            drops: pool(3, pinned(170)),
            watch: pool(1, pinned(5)),
            options: inside(pinned(30)),
            create_permits: Semaphore::new(4),
            drop_permits: Semaphore::new(3),
            session_permits: Semaphore::new(8),
            address,
        };
        Ok((driver, ledger))
    }

    /// See [`crate::database::Server::identify`].
    pub(in crate::database) async fn identify(&self) -> Result<ServerInfo, Error> {
        let row = self.within(ASK, "ask the server who it is", sqlx::query(IDENTIFY).bind(ledger::DATABASE).fetch_one(&self.pool)).await?;
        let mut rights = Rights::read(&row).map_err(|error| explain(&self.address, "ask the server who it is", error))?;
        let identity = identity(&row).map_err(|error| explain(&self.address, "ask the server who it is", error))?;
        if identity.major < 16 {
            return Err(Error::VersionTooOld(identity.version));
        }
        if !rights.tls {
            return Err(Error::NoTls);
        }
        if rights.read_only {
            return Err(Error::ReadOnly);
        }
        if rights.prepared > 0 {
            return Err(Error::PreparedTransactions(rights.prepared));
        }
        // The client cannot refuse a server that asks for the password itself, but it can tell that it was asked.
        let query = sqlx::query_scalar::<_, String>("SELECT coalesce(split_part(system_user, ':', 1), 'trust')");
        let method = self.within(ASK, "ask the server how it let the operator in", query.fetch_one(&self.pool)).await?;
        if !matches!(method.as_str(), "scram-sha-256" | "cert") {
            return Err(Error::WeakAuthentication(method));
        }
        if !rights.public.is_empty() {
            // Without the right to do it this is a warning and no error, so the second look decides.
            self.change("shut the maintenance databases to PUBLIC", rights.revoke()).await.ok();
            let row =
                self.within(ASK, "ask the server who it is", sqlx::query(IDENTIFY).bind(ledger::DATABASE).fetch_one(&self.pool)).await?;
            rights = Rights::read(&row).map_err(|error| explain(&self.address, "ask the server who it is", error))?;
        }
        match rights.missing() {
            None => Ok(identity),
            Some(sql) => Err(Error::MissingPrivileges { sql }),
        }
    }
}

/// Who logs in, and how the connection is protected. No session is ever unprotected, and no statement is logged:
/// some carry verifiers.
pub(super) fn options(address: &Address, username: &str, password: &Password) -> PgConnectOptions {
    let options = PgConnectOptions::new_without_pgpass()
        .host(&address.host)
        .port(address.port)
        .username(username)
        .password(password.expose())
        .application_name("helpdesk-operator")
        .ssl_mode(match address.tls {
            TlsMode::VerifyFull => PgSslMode::VerifyFull,
            TlsMode::VerifyCa => PgSslMode::VerifyCa,
        })
        .disable_statement_logging();
    match &address.ca_pem {
        Some(pem) => options.ssl_root_cert_from_pem(pem.clone().into_bytes()),
        None => options,
    }
}

fn limits(options: PgConnectOptions, search_path: &str, seconds: u64) -> PgConnectOptions {
    options.options([
        ("search_path", search_path.to_owned()),
        ("statement_timeout", format!("{seconds}s")),
        ("lock_timeout", "10s".to_owned()),
        ("idle_in_transaction_session_timeout", "60s".to_owned()),
        ("tcp_keepalives_idle", "15".to_owned()),
        ("tcp_keepalives_interval", "5".to_owned()),
        ("tcp_keepalives_count", "3".to_owned()),
    ])
}

/// What else is pinned in a tenant's database, where somebody may have set something for every session. That the whole
/// server takes no writes is seen in the operator's own database.
fn inside(options: PgConnectOptions) -> PgConnectOptions {
    options.options([
        ("role", "none"),
        ("default_transaction_read_only", "off"),
        ("default_transaction_deferrable", "off"),
        ("default_transaction_isolation", "read committed"),
        ("standard_conforming_strings", "on"),
        ("check_function_bodies", "on"),
        ("default_tablespace", ""),
    ])
}

async fn reach(address: &Address, options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    tokio::time::timeout(REACH, PgConnection::connect_with(options)).await.unwrap_or_else(|_| {
        let silence = format!("{address} did not answer within {} s", REACH.as_secs());
        Err(sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, silence)))
    })
}

/// Makes the database of the ledger unless it is there. Safe against another operator that does the same.
async fn make_private_database(address: &Address, options: &PgConnectOptions) -> Result<(), Error> {
    let step = "make the database of the ledger";
    let code = match reach(address, options).await {
        Ok(session) => {
            session.close().await.ok();
            return Ok(());
        }
        Err(error) => match code(&error).as_deref() {
            Some(found @ (NO_SUCH_DATABASE | NOT_ACCEPTING)) => found.to_owned(),
            Some(DENIED) => return Err(lacks_connect(ledger::DATABASE, options)),
            _ => return Err(explain(address, "reach the server", error)),
        },
    };
    let maintenance = limits(options.clone(), PINNED, 30).database("postgres");
    let mut session = reach(address, &maintenance).await.map_err(|error| match self::code(&error).as_deref() {
        Some(DENIED) => lacks_connect("postgres", options),
        _ => explain(address, "reach the server", error),
    })?;
    let name = quote_ident(ledger::DATABASE);
    let work = async {
        if code == NO_SUCH_DATABASE {
            let made = send(&mut session, format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8' ALLOW_CONNECTIONS false"));
            match made.await {
                // Somebody else made it a moment ago.
                Err(error) if matches!(self::code(&error).as_deref(), Some(DUPLICATE_DATABASE | DUPLICATE_KEY)) => {}
                made => made?,
            }
        }
        // Two that change one database at once would break each other off.
        let shut = format!(
            "SELECT pg_advisory_xact_lock({MAKING_LEDGER}); REVOKE ALL ON DATABASE {name} FROM PUBLIC; ALTER DATABASE {name} ALLOW_CONNECTIONS true"
        );
        send(&mut session, shut).await
    };
    let result = tokio::time::timeout(CHANGE, work).await;
    session.close().await.ok();
    match result {
        Ok(Err(error)) if self::code(&error).as_deref() == Some(DENIED) => {
            Err(Error::MissingPrivileges { sql: format!("ALTER ROLE {} CREATEDB", quote_ident(options.get_username())) })
        }
        Ok(result) => result.map_err(|error| explain(address, step, error)),
        Err(_) => Err(Error::TooSlow { step, seconds: CHANGE.as_secs() }),
    }
}

fn lacks_connect(database: &str, options: &PgConnectOptions) -> Error {
    let sql = format!("GRANT CONNECT ON DATABASE {} TO {};", quote_ident(database), quote_ident(options.get_username()));
    Error::MissingPrivileges { sql }
}

/// Names the advisory lock under which the database of the ledger is opened.
const MAKING_LEDGER: i64 = 0x6864_6f70;

const NO_SUCH_DATABASE: &str = "3D000";
const NOT_ACCEPTING: &str = "55000";
const DENIED: &str = "42501";
const DUPLICATE_DATABASE: &str = "42P04";
const DUPLICATE_KEY: &str = "23505";

/// The server's code of an error (SQLSTATE), if the server answered.
pub(super) fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|e| e.code()).map(std::borrow::Cow::into_owned)
}

/// Says what an error means for whoever looks after the server.
pub(super) fn explain(address: &Address, step: &'static str, error: sqlx::Error) -> Error {
    let unreachable = |reason: String| Error::Unreachable { address: address.to_string(), reason };
    match (code(&error).as_deref(), &error) {
        (Some("28P01" | "28000"), _) => {
            Error::AuthenticationFailed { address: address.to_string(), user: "the admin role".into(), reason: error.to_string() }
        }
        (Some("25006"), _) => Error::ReadOnly,
        (Some("53100"), _) => Error::DiskFull,
        (Some("57P01" | "57P02" | "57P03" | "53300"), _) => unreachable(error.to_string()),
        (_, sqlx::Error::PoolTimedOut) => unreachable(format!("no connection within {} s", REACH.as_secs())),
        (_, sqlx::Error::PoolClosed) => unreachable("its connections were just replaced".into()),
        (_, sqlx::Error::Io(_) | sqlx::Error::Tls(_)) => unreachable(error.to_string()),
        _ => Error::Query { step, source: error.into() },
    }
}

const IDENTIFY: &str = "SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS number, \
    (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier, \
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now, \
    CASE WHEN NOT pg_is_in_recovery() THEN ('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::int END AS timeline, \
    pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on' AS read_only, \
    current_setting('ssl') = 'on' AS tls, r.rolname::text AS me, \
    r.rolsuper OR r.rolcreatedb AS createdb, r.rolsuper OR r.rolcreaterole AS createrole, r.rolsuper OR r.rolbypassrls AS bypassrls, \
    r.rolsuper OR pg_has_role(r.oid, 'pg_signal_backend', 'USAGE') AS signals, \
    current_setting('max_prepared_transactions')::int AS prepared, \
    current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint \
        - current_setting('reserved_connections')::bigint AS offered, \
    CASE WHEN r.rolsuper OR pg_has_role(r.oid, 'pg_use_reserved_connections', 'USAGE') THEN current_setting('reserved_connections')::bigint \
        ELSE 0 END AS kept, \
    (SELECT coalesce(sum(CASE WHEN l.rolconnlimit < 0 THEN current_setting('max_connections')::bigint ELSE l.rolconnlimit END), 0)::bigint \
        FROM pg_roles l WHERE l.rolcanlogin AND l.rolname ~ '^t_[0-9a-f]{16}_[ab]$') AS promised, \
    (SELECT o.rolname::text FROM pg_database d JOIN pg_roles o ON o.oid = d.datdba WHERE d.datname = $1 \
        AND NOT pg_has_role(r.oid, o.oid, 'USAGE')) AS owner, \
    ARRAY(SELECT DISTINCT d.datname::text FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) x \
        WHERE d.datname IN ('postgres', 'template1') AND x.grantee = 0 AND x.privilege_type = 'CONNECT' ORDER BY 1) AS public \
    FROM pg_roles r WHERE r.rolname = current_user";

fn identity(row: &sqlx::postgres::PgRow) -> Result<ServerInfo, sqlx::Error> {
    let number: i32 = row.try_get("number")?;
    let now = Timestamp::from_microsecond(row.try_get("now")?).map_err(|e| sqlx::Error::Decode(e.into()))?;
    Ok(ServerInfo {
        version: row.try_get("version")?,
        major: u32::try_from(number / 10_000).unwrap_or_default(),
        system_identifier: row.try_get("system_identifier")?,
        timeline: row.try_get("timeline")?,
        now,
        connections: Connections { promised: row.try_get("promised")?, offered: row.try_get("offered")?, kept: row.try_get("kept")? },
    })
}

/// What the admin role may do.
#[allow(clippy::struct_excessive_bools)]
struct Rights {
    me: String,
    read_only: bool,
    tls: bool,
    /// How many transactions can be prepared at once.
    prepared: i32,
    createdb: bool,
    createrole: bool,
    bypassrls: bool,
    signals: bool,
    /// Who owns what an earlier admin role made, if this one may not act as it.
    owner: Option<String>,
    /// Maintenance databases that everybody may connect to.
    public: Vec<String>,
}

impl Rights {
    fn read(row: &sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            me: row.try_get("me")?,
            read_only: row.try_get("read_only")?,
            tls: row.try_get("tls")?,
            prepared: row.try_get("prepared")?,
            createdb: row.try_get("createdb")?,
            createrole: row.try_get("createrole")?,
            bypassrls: row.try_get("bypassrls")?,
            signals: row.try_get("signals")?,
            owner: row.try_get("owner")?,
            public: row.try_get("public")?,
        })
    }

    fn revoke(&self) -> String {
        let names: Vec<String> = self.public.iter().map(|name| quote_ident(name)).collect();
        format!("REVOKE CONNECT ON DATABASE {} FROM PUBLIC", names.join(", "))
    }

    /// The SQL by which a superuser gives what is missing.
    fn missing(&self) -> Option<String> {
        let me = quote_ident(&self.me);
        let mut sql = Vec::new();
        let attributes: Vec<&str> = [(self.createdb, "CREATEDB"), (self.createrole, "CREATEROLE"), (self.bypassrls, "BYPASSRLS")]
            .into_iter()
            .filter_map(|(has, name)| (!has).then_some(name))
            .collect();
        if !attributes.is_empty() {
            sql.push(format!("ALTER ROLE {me} {};", attributes.join(" ")));
        }
        if !self.signals {
            sql.push(format!("GRANT pg_signal_backend TO {me};"));
        }
        if let Some(owner) = &self.owner {
            sql.push(format!("GRANT {} TO {me} WITH INHERIT TRUE, SET TRUE;", quote_ident(owner)));
        }
        if !self.public.is_empty() {
            sql.push(format!("{};", self.revoke()));
        }
        (!sql.is_empty()).then(|| sql.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_as_the_sql_that_gives_it() {
        let rights = Rights {
            me: "ops".into(),
            read_only: false,
            tls: true,
            prepared: 0,
            createdb: true,
            createrole: false,
            bypassrls: false,
            signals: true,
            owner: Some("earlier".into()),
            public: vec!["postgres".into(), "template1".into()],
        };
        assert_eq!(
            rights.missing().as_deref(),
            Some(
                "ALTER ROLE \"ops\" CREATEROLE BYPASSRLS; GRANT \"earlier\" TO \"ops\" WITH INHERIT TRUE, SET TRUE; REVOKE CONNECT ON DATABASE \"postgres\", \"template1\" FROM PUBLIC;"
            )
        );
    }
}
