//! Why a mover stops, and whether the cause lies in the backup or will pass.

use crate::{backup::manifest, store};

/// Why a mover stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The plan or a secret is missing or damaged.
    #[error("failed to read {file} of the plan: {why}")]
    Plan {
        /// The file.
        file: &'static str,
        /// What is wrong; never the file's contents.
        why: String,
    },
    /// The database.
    #[error("failed to {step}")]
    Database {
        /// What was asked.
        step: &'static str,
        /// What the driver said.
        #[source]
        source: sqlx::Error,
    },
    /// A table could not be read.
    #[error("failed to read the rows of {name}")]
    Table {
        /// The table.
        name: String,
        /// What the driver said.
        #[source]
        source: sqlx::Error,
    },
    /// A row that nothing can write.
    #[error("failed to dump a row of {name}: it has {bytes} bytes in {columns}, and no copy of more than 1 GiB can be made; shorten it")]
    TooLong {
        /// The table.
        name: String,
        /// Its long columns.
        columns: String,
        /// The row's bytes.
        bytes: i64,
    },
    /// The login leads to another database than the one that is to be backed up or filled.
    #[error("failed to recognise the database: {0}")]
    OtherDatabase(String),
    /// A PostgreSQL tool could not be run.
    #[error("failed to run {tool}")]
    Spawn {
        /// The tool.
        tool: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// No tool is new enough for the server.
    #[error("failed to find PostgreSQL tools of version {0} or later in the image")]
    NoTools(u32),
    /// A PostgreSQL tool failed.
    #[error("failed to finish {tool}: {status}{}{said}", if said.is_empty() { "" } else { "; " })]
    Tool {
        /// The tool.
        tool: &'static str,
        /// How it ended.
        status: String,
        /// Its last complaint.
        said: String,
    },
    /// The store.
    #[error("failed to use the store: {0}")]
    Store(#[from] store::Error),
    /// The stream between them.
    #[error("failed to stream the dump")]
    Stream(#[source] std::io::Error),
    /// What was read back is not what was stored.
    #[error("failed to prove the backup: {0}")]
    Unequal(String),
    /// What was restored has other contents than what was dumped.
    #[error("failed to prove the backup: {0}")]
    OtherContents(String),
    /// What was restored is not what was dumped.
    #[error("failed to prove the backup: {what}: {source_has} in the source, {copy_has} in the copy")]
    Differs {
        /// What differs.
        what: String,
        /// How it is in the source.
        source_has: String,
        /// How it is in the copy.
        copy_has: String,
    },
    /// Something could not be made in the copy, and not because of the rows.
    #[error("failed to make {what} in the copy: {why}{}{first}", if first.is_empty() { "" } else { "; the plain way failed with: " })]
    NotMade {
        /// What.
        what: String,
        /// What the server said.
        why: String,
        /// Why the plain way of restoring failed.
        first: String,
    },
    /// A report that is not this backup's.
    #[error(transparent)]
    Report(#[from] manifest::Error),
    /// The key.
    #[error("failed to use the backup's key: {0}")]
    Key(&'static str),
    /// The manifest that a restore or a verification needs is not there.
    #[error("failed to find the manifest of the backup")]
    NoManifest,
}

/// The status of a mover that met something that says nothing of the backup: a database, a bucket or a machine that was
/// not as it should be. It is `EX_TEMPFAIL` of sysexits.h.
pub const TEMPORARY: u8 = 75;

/// What tools and servers say of connections, space and locks, which pass.
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
    /// Whether what stopped the mover is the backup's own: it will be there the next time too. Everything else may pass,
    /// and what is not listed here counts as that.
    pub fn is_the_backups_own(&self) -> bool {
        match self {
            Self::OtherContents(_) | Self::Differs { .. } | Self::TooLong { .. } => true,
            Self::NotMade { why, first, .. } => !passes(why) && !passes(first),
            // A tool that was killed was killed by somebody.
            Self::Tool { status, said, .. } => !status.starts_with("signal") && !passes(said),
            Self::Database { source: sqlx::Error::Database(said), .. } | Self::Table { source: sqlx::Error::Database(said), .. } => {
                // Connections, missing rights to log in, space, locks, a server that shuts down.
                let passing_code = said.code().is_some_and(|code| {
                    ["08", "28", "57"].iter().any(|class| code.starts_with(class)) || ["53100", "53300", "55P03"].contains(&&*code)
                });
                !passing_code && !passes(said.message())
            }
            _ => false,
        }
    }
}

pub(super) fn passes(said: &str) -> bool {
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
            // A bucket that gives back something else than was stored says nothing of the database.
            Error::Unequal("its bytes are damaged: decryption error".into()),
            Error::NotMade { what: "index i".into(), why: "could not extend file: No space left on device".into(), first: String::new() },
            Error::Stream(std::io::ErrorKind::BrokenPipe.into()),
            Error::Store(store::Error::Missing("x".into())),
        ] {
            assert!(!passing.is_the_backups_own(), "{passing}");
        }
    }
}
