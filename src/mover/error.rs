//! Why a mover stops, and whether the cause is in the database or is temporary.

use crate::{backup::manifest, store};

/// Why a mover stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the mover's folder is missing or invalid.
    #[error("failed to read {file} of the plan: {why}")]
    Plan {
        /// The file.
        file: &'static str,
        /// What is wrong. It must never contain the file's contents, which may be secret.
        why: String,
    },
    /// A statement or a connection to the database failed.
    #[error("failed to {step}")]
    Database {
        /// What the mover was doing.
        step: &'static str,
        /// The driver's error.
        #[source]
        source: sqlx::Error,
    },
    /// The rows of a table could not be copied.
    #[error("failed to read the rows of {name}")]
    Table {
        /// The table.
        name: String,
        /// The driver's error.
        #[source]
        source: sqlx::Error,
    },
    /// A row is too long for `COPY`, even in binary.
    #[error("failed to dump a row of {name}: it has {bytes} bytes in {columns}, and no copy of more than 1 GiB can be made; shorten it")]
    TooLong {
        /// The table.
        name: String,
        /// Its long columns.
        columns: String,
        /// The size of the row in bytes.
        bytes: i64,
    },
    /// The login leads to another database than the expected one, or the database to fill is not empty.
    #[error("failed to recognise the database: {0}")]
    OtherDatabase(String),
    /// A PostgreSQL tool could not be run.
    #[error("failed to run {tool}")]
    Spawn {
        /// The tool.
        tool: String,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// No PostgreSQL tool in the image is new enough for the server.
    #[error("failed to find PostgreSQL tools of version {0} or later in the image")]
    NoTools(u32),
    /// A PostgreSQL tool failed.
    #[error("failed to finish {tool}: {status}{}{said}", if said.is_empty() { "" } else { "; " })]
    Tool {
        /// The tool.
        tool: &'static str,
        /// Its exit status.
        status: String,
        /// Its first error.
        said: String,
    },
    /// A request to the store failed.
    #[error("failed to use the store: {0}")]
    Store(#[from] store::Error),
    /// The stream between the database and the store broke.
    #[error("failed to stream the dump")]
    Stream(#[source] std::io::Error),
    /// An object is not what was stored.
    #[error("failed to prove the backup: {0}")]
    Unequal(String),
    /// The copy's fingerprint is not the source's.
    #[error("failed to prove the backup: {0}")]
    OtherContents(String),
    /// A definition, the rows of a table or a sequence differ between source and copy.
    #[error("failed to prove the backup: {what}: {source_has} in the source, {copy_has} in the copy")]
    Differs {
        /// What differs.
        what: String,
        /// Its state in the source.
        source_has: String,
        /// Its state in the copy.
        copy_has: String,
    },
    /// A definition could not be created in the copy, and the rows are not the reason.
    #[error("failed to make {what} in the copy: {why}{}{first}", if first.is_empty() { "" } else { "; the plain way failed with: " })]
    NotMade {
        /// The definition.
        what: String,
        /// The server's error.
        why: String,
        /// Why the plain way of restoring failed.
        first: String,
    },
    /// The signature of a report is not valid, or the report cannot be parsed.
    #[error(transparent)]
    Report(#[from] manifest::Error),
    /// The backup's key cannot be used.
    #[error("failed to use the backup's key: {0}")]
    Key(&'static str),
    /// The manifest, or the contents that it names, does not exist.
    #[error("failed to find the manifest of the backup")]
    NoManifest,
}

/// The exit status of a mover whose failure has nothing to do with the backup: a database, a bucket or a machine had a
/// temporary problem. It is `EX_TEMPFAIL` of sysexits.h.
pub const TEMPORARY: u8 = 75;

/// Messages of tools and servers about connections, space and locks. These problems are temporary.
const PASSING: [&str; 7] = [
    "connection to server",
    "server closed the connection",
    "terminating connection",
    "the database system is",
    "no space left on device",
    "too many clients",
    "lock timeout",
];

impl Error {
    /// Whether the cause is in the database's contents, so that every further attempt would fail too. Everything that
    /// is not listed here counts as temporary.
    pub fn is_the_backups_own(&self) -> bool {
        match self {
            Self::OtherContents(_) | Self::Differs { .. } | Self::TooLong { .. } => true,
            Self::NotMade { why, first, .. } => !is_temporary(why) && !is_temporary(first),
            // A signal comes from outside of the tool, so it says nothing about the backup.
            Self::Tool { status, said, .. } => !status.starts_with("signal") && !is_temporary(said),
            Self::Database { source: sqlx::Error::Database(said), .. } | Self::Table { source: sqlx::Error::Database(said), .. } => {
                // SQLSTATE of connections, authorization, disk space, too many connections, locks and shutdown.
                let passing_code = said.code().is_some_and(|code| {
                    ["08", "28", "57"].iter().any(|class| code.starts_with(class)) || ["53100", "53300", "55P03"].contains(&&*code)
                });
                !passing_code && !is_temporary(said.message())
            }
            _ => false,
        }
    }
}

pub(super) fn is_temporary(said: &str) -> bool {
    let said = said.to_ascii_lowercase();
    PASSING.iter().any(|passing| said.contains(passing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_will_be_there_the_next_time_is_the_backups_own() {
        let tool = |status: &str, said: &str| Error::Tool { tool: "pg_dump", status: status.into(), said: said.into() };
        for own in [
            Error::OtherContents("7 rows and not 8".into()),
            Error::NotMade { what: "constraint c".into(), why: "ERROR:  division by zero".into(), first: String::new() },
            tool("exit status: 1", "error: query returned 0 rows instead of one: SELECT proretset"),
            tool("exit status: 1", "error: could not execute query: ERROR:  cache lookup failed for type 999"),
        ] {
            assert!(own.is_the_backups_own(), "{own}");
        }
        for passing in [
            tool("exit status: 1", "error: connection to server at \"pg\", port 5432 failed: Connection refused"),
            tool("exit status: 1", "error: error returned by PQputCopyData: server closed the connection unexpectedly"),
            tool("exit status: 1", "error: COPY failed: ERROR:  could not extend file: No space left on device"),
            tool("signal: 9 (SIGKILL)", ""),
            Error::Database { step: "connect", source: sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()) },
            Error::NoTools(19),
            // A bucket that returns other bytes than were stored says nothing about the database.
            Error::Unequal("its bytes are damaged: decryption error".into()),
            Error::NotMade { what: "index i".into(), why: "could not extend file: No space left on device".into(), first: String::new() },
            Error::Stream(std::io::ErrorKind::BrokenPipe.into()),
            Error::Store(store::Error::Missing("x".into())),
        ] {
            assert!(!passing.is_the_backups_own(), "{passing}");
        }
    }
}
