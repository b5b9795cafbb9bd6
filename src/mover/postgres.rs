//! The mover's sessions in PostgreSQL, and the tools `pg_dump` and `pg_restore`.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _,
    postgres::{PgConnectOptions, PgSslMode},
};

use super::{Clients, Error};
use crate::{api::database_server::TlsMode, backup::manifest::Source, clock::Moment, database::MoverLogin};

/// The settings of every session of a mover. Names resolve to nothing that the tenant created, rows are printed in the
/// same way in every session, and no statement times out half-way.
const SETTINGS: [(&str, &str); 17] = [
    ("search_path", "pg_catalog"),
    ("row_security", "off"),
    ("TimeZone", "UTC"),
    ("DateStyle", "ISO, YMD"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    ("lc_monetary", "C"),
    ("lc_numeric", "C"),
    ("lc_time", "C"),
    ("standard_conforming_strings", "on"),
    ("quote_all_identifiers", "off"),
    ("statement_timeout", "0"),
    ("lock_timeout", "60000"),
    ("idle_in_transaction_session_timeout", "0"),
    ("max_parallel_workers_per_gather", "0"),
    ("synchronize_seqscans", "off"),
];

/// Opens a session with [`SETTINGS`].
pub(super) async fn connect(login: &MoverLogin) -> Result<PgConnection, Error> {
    let mode = match login.tls {
        TlsMode::VerifyFull => PgSslMode::VerifyFull,
        TlsMode::VerifyCa => PgSslMode::VerifyCa,
    };
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(&login.host)
        .port(login.port)
        .database(&login.database)
        .username(&login.username)
        .password(login.password.expose())
        .application_name("helpdesk-operator mover")
        .ssl_mode(mode)
        .statement_cache_capacity(0)
        // Statements that read a whole table are always slow, and the log must not have names that the tenant chose.
        .disable_statement_logging();
    if let Some(pem) = &login.ca_pem {
        options = options.ssl_root_cert_from_pem(pem.clone().into_bytes());
    }
    let mut connection = PgConnection::connect_with(&options).await.map_err(|source| Error::Database { step: "connect", source })?;
    for (name, value) in SETTINGS {
        sqlx::query("SELECT pg_catalog.set_config($1, $2, false)")
            .bind(name)
            .bind(value)
            .execute(&mut connection)
            .await
            .map_err(|source| Error::Database { step: "pin the session's settings", source })?;
    }
    Ok(connection)
}

/// Returns a function that makes an [`Error::Database`] for this step.
pub(super) fn failed(step: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| Error::Database { step, source }
}

/// A snapshot that other sessions can import while this session's transaction is open.
pub(super) struct Snapshot {
    /// Its name.
    pub name: String,
    /// The database that it is of.
    pub source: Source,
    /// The server's major version.
    pub major: u32,
    /// The server's time when it was taken.
    pub at: Moment,
}

/// Begins a transaction that uses one snapshot for all its statements, and exports the snapshot.
pub(super) async fn snapshot(connection: &mut PgConnection) -> Result<Snapshot, Error> {
    let failed = |source| Error::Database { step: "take a snapshot", source };
    sqlx::query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").execute(&mut *connection).await.map_err(failed)?;
    let name: String = sqlx::query_scalar("SELECT pg_catalog.pg_export_snapshot()").fetch_one(&mut *connection).await.map_err(failed)?;
    let (source, major, at) = who(connection).await?;
    Ok(Snapshot { name, source, major, at })
}

/// Begins a transaction that looks at a snapshot which another session took.
pub(super) async fn look_at(connection: &mut PgConnection, snapshot: &str) -> Result<(), Error> {
    let step = "look at the snapshot";
    execute(connection, step, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    // The server's own name for it: digits and hyphens.
    let name: String = snapshot.chars().filter(|c| c.is_ascii_hexdigit() || *c == '-').collect();
    execute(connection, step, &format!("SET TRANSACTION SNAPSHOT '{name}'")).await
}

/// Sends statements without parameters.
pub(super) async fn execute(connection: &mut PgConnection, step: &'static str, sql: &str) -> Result<(), Error> {
    sqlx::raw_sql(composed(sql.to_owned())).execute(connection).await.map(drop).map_err(|source| Error::Database { step, source })
}

/// Reads the session's database, the server's major version and the server's time.
pub(super) async fn who(connection: &mut PgConnection) -> Result<(Source, u32, Moment), Error> {
    let failed = |source| Error::Database { step: "ask which database this is", source };
    let row = sqlx::query(
        "SELECT (SELECT oid::int8 FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) AS oid, \
         (SELECT system_identifier::text FROM pg_catalog.pg_control_system()) AS system_identifier, \
         pg_catalog.current_setting('server_version') AS version, \
         pg_catalog.current_setting('server_version_num')::int4 / 10000 AS major, \
         pg_catalog.floor(pg_catalog.date_part('epoch', pg_catalog.now()))::int8 AS now",
    )
    .fetch_one(connection)
    .await
    .map_err(failed)?;
    let get = || -> Result<(i64, String, String, i32, i64), sqlx::Error> {
        Ok((row.try_get("oid")?, row.try_get("system_identifier")?, row.try_get("version")?, row.try_get("major")?, row.try_get("now")?))
    };
    let (oid, system_identifier, version, major, now) = get().map_err(failed)?;
    let server_version = version.split_whitespace().next().unwrap_or_default().to_owned();
    let source = Source { database_oid: u32::try_from(oid).unwrap_or(0), system_identifier, server_version };
    Ok((source, u32::try_from(major).unwrap_or(0), Moment::from_second(now).unwrap_or(Moment::UNIX_EPOCH)))
}

/// Quotes an identifier.
pub(super) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Marks a statement as safe that was composed from quoted identifiers.
pub(super) fn composed(text: String) -> AssertSqlSafe<String> {
    AssertSqlSafe(text)
}

/// The folder with the tools for a server: those of its major version, or else of the next newer one.
pub(super) fn tools(folder: &Path, major: u32) -> Result<PathBuf, Error> {
    let client = Clients::in_folder(folder).for_server(major).ok_or(Error::NoTools(major))?;
    Ok(folder.join(client.to_string()).join("bin"))
}

/// Writes the login into a libpq service file, so that arguments and environment have no secret.
fn service_file(run: &Path, login: &MoverLogin) -> std::io::Result<PathBuf> {
    use std::io::Write as _;
    let path = run.join("pg_service.conf");
    let open = |path: &Path| std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    let root = match &login.ca_pem {
        Some(pem) => {
            let root = run.join("root.crt");
            open(&root)?.write_all(pem.as_bytes())?;
            root.display().to_string()
        }
        None => "system".to_owned(),
    };
    let mode = login.tls.name();
    let MoverLogin { host, port, database, username, password, .. } = login;
    let text = format!(
        "[mover]\nhost={host}\nport={port}\ndbname={database}\nuser={username}\npassword={}\nsslmode={mode}\nsslrootcert={root}\n\
         require_auth=scram-sha-256\nconnect_timeout=30\nkeepalives_idle=60\n",
        password.expose()
    );
    open(&path)?.write_all(text.as_bytes())?;
    Ok(path)
}

/// A tool that is running.
pub(super) struct Tool {
    name: &'static str,
    /// Its ends of the pipes.
    pub child: Ends,
    process: Arc<Mutex<Child>>,
    said: std::thread::JoinHandle<Said>,
}

/// The mover's ends of a tool's pipes.
pub(super) struct Ends {
    /// Its input.
    pub stdin: Option<ChildStdin>,
    /// Its output.
    pub stdout: Option<ChildStdout>,
}

/// Which pipes a tool has.
pub(super) enum Pipe {
    /// The mover reads its output.
    Out,
    /// The mover writes its input.
    In,
    /// The mover writes its input and reads its output.
    Both,
}

/// Starts `pg_restore` into a database of a server of that major version, with the login's folder as in [`start`].
///
/// The tool first sets settings of its own version, and an older server rejects those that it does not know. So for
/// such a server this removes `--exit-on-error` from the arguments, ignores exactly these errors, and kills the tool at
/// the first other one. Without `--exit-on-error` among the arguments, the tool continues after every error, and fails.
pub(super) fn start_restore(bin: &Path, arguments: &[&str], login: (&MoverLogin, &Path), server: u32) -> Result<Tool, Error> {
    let unknown = unknown_settings(server);
    let kept: Vec<_> = arguments.iter().copied().filter(|argument| unknown.is_empty() || *argument != EXIT_ON_ERROR).collect();
    let strict = kept.len() < arguments.len();
    launch(bin, "pg_restore", &kept, Some(login), &Pipe::In, Tolerance { unknown, strict })
}

/// Ends `pg_restore` at its first error.
pub(super) const EXIT_ON_ERROR: &str = "--exit-on-error";

/// Which errors of a tool are ignored.
#[derive(Clone, Copy, Default)]
struct Tolerance {
    /// Settings that the server does not know.
    unknown: &'static [&'static str],
    /// Whether the tool is killed at the first other error. By itself it continues after errors.
    strict: bool,
}

/// The settings that `pg_restore` sets first and that a server of that major version does not know.
const fn unknown_settings(server: u32) -> &'static [&'static str] {
    if server < 17 { &["transaction_timeout"] } else { &[] }
}

/// Starts a tool with an environment of its own.
pub(super) fn start(
    bin: &Path,
    name: &'static str,
    arguments: &[&str],
    login: Option<(&MoverLogin, &Path)>,
    pipe: &Pipe,
) -> Result<Tool, Error> {
    launch(bin, name, arguments, login, pipe, Tolerance::default())
}

fn launch(
    bin: &Path,
    name: &'static str,
    arguments: &[&str],
    login: Option<(&MoverLogin, &Path)>,
    pipe: &Pipe,
    tolerance: Tolerance,
) -> Result<Tool, Error> {
    let failed = |source| Error::Spawn { tool: bin.join(name).display().to_string(), source };
    let mut command = Command::new(bin.join(name));
    command
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C")
        .env("HOME", "/nonexistent")
        .env("PGPASSFILE", "/dev/null")
        .stderr(Stdio::piped());
    if let Some((login, run)) = login {
        command.env("PGSERVICEFILE", service_file(run, login).map_err(failed)?).env("PGSERVICE", "mover");
        // These override the role's own settings.
        command.env("PGOPTIONS", "-c statement_timeout=0 -c idle_in_transaction_session_timeout=0 -c lock_timeout=60s");
    }
    match pipe {
        Pipe::Out => command.stdin(Stdio::null()).stdout(Stdio::piped()),
        Pipe::In => command.stdin(Stdio::piped()).stdout(Stdio::null()),
        Pipe::Both => command.stdin(Stdio::piped()).stdout(Stdio::piped()),
    };
    let mut child = command.spawn().map_err(failed)?;
    let complaints = child.stderr.take();
    let ends = Ends { stdin: child.stdin.take(), stdout: child.stdout.take() };
    let process = Arc::new(Mutex::new(child));
    let listened = Arc::clone(&process);
    let said = std::thread::spawn(move || {
        let end = || drop(locked(&listened).kill());
        complaints.map(|stream| listen(name, stream, tolerance, end)).unwrap_or_default()
    });
    Ok(Tool { name, child: ends, process, said })
}

fn locked(process: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    process.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A summary of a tool's standard error.
#[derive(Debug, Default)]
struct Said {
    /// The first error, with the entry that it is about; or the first message, if there is no error.
    first: String,
    /// Whether `first` is an error.
    is_error: bool,
    /// How many settings the server rejected because it does not know them.
    unknown: usize,
    /// How many errors the tool reports that it ignored.
    passed_over: usize,
    /// Whether the tool was killed at an error.
    ended: bool,
}

impl Said {
    /// Whether the only errors are those of settings that the server does not know.
    const fn is_harmless(&self) -> bool {
        !self.ended && self.unknown > 0 && self.passed_over == self.unknown
    }
}

/// Logs a tool's standard error, without the details that quote rows, and keeps the first error, because later ones are
/// often only its consequence. The first errors may be those of unknown settings, each once and in this order; they are
/// ignored.
fn listen(tool: &'static str, stream: impl Read, tolerance: Tolerance, end: impl Fn()) -> Said {
    let mut heard = Said::default();
    let mut about = None;
    let mut lines = 0_u32;
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        let Some(said) = line.strip_prefix(tool).and_then(|rest| rest.strip_prefix(": ")) else { continue };
        let said: String = said.chars().take(300).collect();
        let is_error = said.starts_with("error");
        if is_error && !heard.ended && tolerance.unknown.get(heard.unknown).is_some_and(|setting| said.contains(setting)) {
            heard.unknown += 1;
            tracing::debug!(tool, said, "the server is older than the tool");
            continue;
        }
        if let Some(count) = said.strip_prefix("warning: errors ignored on restore: ") {
            heard.passed_over = count.parse().unwrap_or(usize::MAX);
            continue;
        }
        lines += 1;
        if lines <= 50 {
            tracing::warn!(tool, said, "the tool says");
        }
        // `from TOC entry 3370; 2606 16400 FK CONSTRAINT children children_parent_fkey owner`
        if let Some((_, entry)) = said.strip_prefix("from TOC entry ").and_then(|entry| entry.split_once("; ")) {
            about = entry.splitn(3, ' ').nth(2).map(str::to_owned);
        }
        if is_error && !heard.is_error {
            heard.first = about.take().map_or_else(|| said.clone(), |about| format!("{said} ({about})"));
            heard.is_error = true;
        } else if let Some(server) = said.strip_prefix("detail: Error message from server: ").filter(|_| heard.is_error && !heard.ended) {
            heard.first = format!("{}: {server}", heard.first);
        } else if let Some(command) = said.strip_prefix("detail: Command was: ").filter(|_| heard.is_error && !heard.ended) {
            heard.first = format!("{} ({command})", heard.first);
        } else if heard.first.is_empty() {
            heard.first = said;
        }
        if is_error && tolerance.strict && !heard.ended {
            heard.ended = true;
            end();
        }
    }
    heard
}

impl Tool {
    /// Waits until the tool ends. Blocks.
    pub(super) fn wait(self) -> Result<(), Error> {
        // The listening thread may kill the process. So it must end before `wait` lets the system reuse the process id.
        let said = self.said.join().unwrap_or_default();
        let status = locked(&self.process).wait().map_err(|source| Error::Spawn { tool: self.name.to_owned(), source })?;
        if status.success() || status.code() == Some(1) && said.is_harmless() {
            return Ok(());
        }
        let status = if said.ended { "ended at its first error".to_owned() } else { status.to_string() };
        Err(Error::Tool { tool: self.name, status, said: said.first })
    }

    /// Kills the tool. Blocks until it has ended.
    pub(super) fn kill(self) {
        let mut process = locked(&self.process);
        let _ = process.kill();
        let _ = process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_kept_without_the_rows_they_quote() {
        let stream = b"pg_restore: while PROCESSING TOC:\npg_restore: error: COPY failed for table \"users\": ERROR:  duplicate key\nDETAIL:  Key (email)=(ana@acme.example) already exists.\nCONTEXT:  COPY users, line 1: \"ana\"\n";
        let said = listen("pg_restore", &stream[..], Tolerance::default(), || panic!("it ends by itself"));
        assert!(said.first.starts_with("error: COPY failed"), "{said:?}");
        assert!(!said.first.contains("ana@"), "{said:?}");
    }

    #[test]
    fn a_connection_that_was_ended_is_told_from_what_is_in_the_data() {
        let passing = |detail: &str| {
            let stream = format!(
                "pg_dump: error: Dumping the contents of table \"t\" failed: PQgetResult() failed.\npg_dump: detail: Error message from server: {detail}\n"
            );
            crate::mover::error::is_temporary(&listen("pg_dump", stream.as_bytes(), Tolerance::default(), || ()).first)
        };
        assert!(passing("FATAL:  terminating connection due to administrator command"));
        assert!(passing("server closed the connection unexpectedly"));
        assert!(!passing("ERROR:  invalid memory alloc request size 1258291203"));
    }

    const REFUSED: &str = "pg_restore: error: could not execute query: ERROR:  unrecognized configuration parameter \"transaction_timeout\"\n\
                           Command was: SET transaction_timeout = 0;\n";
    const OTHER: &str =
        "pg_restore: error: could not execute query: ERROR:  relation \"t\" already exists\nCommand was: CREATE TABLE app.t (\n);\n";

    fn heard(stream: &str) -> (Said, bool) {
        let ended = std::cell::Cell::new(false);
        let said = listen("pg_restore", stream.as_bytes(), Tolerance { unknown: unknown_settings(16), strict: true }, || ended.set(true));
        (said, ended.get())
    }

    #[test]
    fn what_an_older_server_does_not_know_is_passed_over_and_nothing_else_is() {
        let ignored = |count: usize| format!("pg_restore: warning: errors ignored on restore: {count}\n");
        let (said, ended) = heard(&format!("{REFUSED}{}", ignored(1)));
        assert!(said.is_harmless() && !ended, "{said:?}");
        for stream in [
            format!("{REFUSED}{OTHER}{}", ignored(2)),
            format!("{OTHER}{}", ignored(1)),
            format!("{REFUSED}{REFUSED}{}", ignored(2)),
            format!("{OTHER}{REFUSED}"),
        ] {
            let (said, ended) = heard(&stream);
            assert!(ended && !said.is_harmless(), "{stream}: {said:?}");
            assert!(stream.starts_with(REFUSED) || said.first.contains("relation"), "{said:?}");
        }
        for stream in [String::new(), REFUSED.to_owned(), format!("{REFUSED}{}", ignored(2)), ignored(1)] {
            let (said, ended) = heard(&stream);
            assert!(!said.is_harmless() && !ended, "{stream}: {said:?}");
        }
        assert!(unknown_settings(17).is_empty() && unknown_settings(18).is_empty());
    }

    #[test]
    fn identifiers_are_quoted() {
        assert_eq!(ident("a\"; DROP TABLE x; --"), "\"a\"\"; DROP TABLE x; --\"");
    }
}
