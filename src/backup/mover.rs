//! What runs inside Jobs: `helpdesk-operator mover backup|restore`.

use std::path::PathBuf;

use zeroize::Zeroizing;

/// The arguments of `helpdesk-operator mover`. None of them is a secret; secrets are files in `plan`'s folder.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub task: Task,
    /// The folder with the plan and the secrets.
    #[arg(long, global = true, default_value = "/etc/mover")]
    pub plan: PathBuf,
    /// Where the checksum of the report is left for the kubelet.
    #[arg(long, global = true, default_value = "/dev/termination-log")]
    pub termination_log: PathBuf,
}

/// What a mover does.
#[derive(clap::Subcommand, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Dump, upload, read back and prove; carries on where a killed one stopped.
    Backup,
    /// Prove a backup that is complete already.
    Verify,
    /// Restore into an empty database and compare.
    Restore,
}

/// How a mover gets into one database.
#[derive(Clone)]
pub struct Login {
    /// Host name or address, as in the server's certificate.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The database.
    pub database: String,
    /// The role.
    pub username: String,
    /// Its password.
    pub password: Zeroizing<String>,
    /// Whether the server's name is checked besides its chain.
    pub verify_name: bool,
    /// The certificates that it is checked against; `None`: the system's.
    pub ca_pem: Option<String>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({}@{}:{}/{})", self.username, self.host, self.port, self.database)
    }
}

/// Why a mover stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not there yet.
    #[error("failed to run: {0}")]
    Plan(String),
}

/// Runs a mover to its end.
///
/// # Errors
/// Whatever stopped it; the process then ends with status 1 and the Job tries again.
pub async fn run(_args: Args) -> Result<(), Error> {
    Err(Error::Plan("the mover is not built yet".into()))
}
