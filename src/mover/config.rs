//! The arguments and files that a mover is given.

use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr as _,
};

use age::x25519;
use kube::ResourceExt;
use ring::signature::Ed25519KeyPair;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Error;
use crate::{
    api::{ColdBackup, VerifyMode, database_server::TlsMode},
    backup::{folder_of, keys::Keys},
    clock::Moment,
    database::MoverLogin,
    digest::{hex, unhex},
    store::{ConnectedStore, Copies, Credentials, Location, Store, s3::S3},
};

/// The arguments of `helpdesk-operator mover`. None of them is a secret; secrets are files in the plan's folder.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub task: Task,
    /// The folder with the plan and the secrets.
    #[arg(long, global = true, default_value = "/etc/mover")]
    pub plan: PathBuf,
    /// A folder in memory, for what the PostgreSQL tools have to read from files.
    #[arg(long, global = true, default_value = "/run/mover")]
    pub run: PathBuf,
    /// The folder with the PostgreSQL tools, one folder a major version.
    #[arg(long, global = true, default_value = "/usr/lib/postgresql")]
    pub postgresql: PathBuf,
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

impl Task {
    /// The subcommand's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Verify => "verify",
            Self::Restore => "restore",
        }
    }
}

/// The file with the [`MoverConfig`].
pub const PLAN: &str = "plan.json";
/// The file with the access key ID for the store.
pub const ACCESS_KEY_ID: &str = "s3-access-key-id";
/// The file with the secret access key for the store.
pub const SECRET_ACCESS_KEY: &str = "s3-secret-access-key";
/// The file with the certificate authorities that are trusted for the store; without it, the system's.
pub const STORE_CA: &str = "s3-ca.crt";
/// The backup's age identity.
pub const IDENTITY: &str = "identity";
/// The private key that signs the report.
pub const SIGNING: &str = "signing.pk8";
/// The login for the database that is dumped.
pub const SOURCE: &str = "source.json";
/// The login for the scratch database of a verification, or the new database of a restore.
pub const TARGET: &str = "target.json";

/// How many numbered names [`Mover::free_name`] tries.
const OBJECTS: u32 = 50;

/// The configuration of a mover, without secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MoverConfig {
    /// The `ColdBackup`.
    pub backup: String,
    /// The account.
    pub account: String,
    /// The account's uid.
    pub account_uid: String,
    /// The backup's folder below the store's prefix, with a slash at its end.
    pub folder: String,
    /// The location of the store.
    pub store: Location,
    /// The identity that the bucket's marker must have.
    pub store_identity: String,
    /// How the backup is verified.
    pub verify: VerifyMode,
    /// The oid of the database to which the login must lead: the source of a backup, the target of a restore.
    pub database_oid: u32,
    /// The system identifier of that database's server.
    pub system_identifier: String,
    /// The public key for the manifest's signature, in hexadecimal digits. A restore signs its report with another key.
    pub verifying_key: String,
    /// For a restore: since when the account wants it. It is part of the report's name.
    pub restore_since: Option<Moment>,
}

impl MoverConfig {
    /// The configuration for `backup` in `store`, and the database that the mover reads or fills.
    pub fn new(backup: &ColdBackup, store: &ConnectedStore, keys: &Keys, database_oid: u32, system_identifier: String) -> Self {
        Self {
            backup: backup.name_any(),
            account: backup.spec.account.clone(),
            account_uid: backup.spec.account_uid.clone(),
            folder: folder_of(backup),
            store: store.location.clone(),
            store_identity: store.identity.clone().unwrap_or_default(),
            verify: backup.spec.verify,
            database_oid,
            system_identifier,
            verifying_key: hex(&keys.verifying),
            restore_since: None,
        }
    }
}

/// A login as a file for a mover.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoginFile {
    host: String,
    port: u16,
    database: String,
    username: String,
    password: Zeroizing<String>,
    tls: TlsMode,
    ca_pem: Option<String>,
}

impl From<&MoverLogin> for LoginFile {
    fn from(login: &MoverLogin) -> Self {
        let MoverLogin { host, port, database, username, password, ca_pem, tls } = login;
        Self {
            host: host.clone(),
            port: *port,
            database: database.clone(),
            username: username.clone(),
            password: Zeroizing::new(password.expose().to_owned()),
            tls: *tls,
            ca_pem: ca_pem.clone(),
        }
    }
}

impl From<LoginFile> for MoverLogin {
    fn from(file: LoginFile) -> Self {
        let LoginFile { host, port, database, username, password, tls, ca_pem } = file;
        Self { host, port, database, username, password: crate::database::Password::from_text(password.to_string()), ca_pem, tls }
    }
}

/// A mover that has read its files.
pub struct Mover {
    /// The configuration.
    pub plan: MoverConfig,
    /// The bucket.
    pub store: ConnectedStore,
    /// The age identity that decrypts the backup.
    pub identity: x25519::Identity,
    /// The key that signs the report.
    pub signing: Ed25519KeyPair,
    /// The public key for the manifest's signature.
    pub verifying: Vec<u8>,
    /// The login for the database that is dumped.
    pub source: Option<MoverLogin>,
    /// The login for the database that is filled.
    pub target: Option<MoverLogin>,
    /// The folder in memory.
    pub run: PathBuf,
    /// The folder with the PostgreSQL tools.
    pub postgresql: PathBuf,
}

impl Mover {
    /// Reads the files.
    ///
    /// # Errors
    /// [`Error::Plan`]. The error must never show a file's contents, which may be secret.
    pub fn read(args: &Args) -> Result<Self, Error> {
        let folder = args.plan.as_path();
        let plan: MoverConfig = parse(PLAN, &bytes(folder, PLAN)?)?;
        let credentials = Credentials {
            access_key_id: text(folder, ACCESS_KEY_ID)?,
            secret_access_key: Zeroizing::new(text(folder, SECRET_ACCESS_KEY)?),
        };
        let ca_pem = optional(folder, STORE_CA)?.map(|pem| String::from_utf8_lossy(&pem).into_owned());
        let s3 = S3::new(plan.store.clone(), &credentials, &credentials, ca_pem.as_deref())?;
        let store = ConnectedStore {
            location: plan.store.clone(),
            region: String::new(),
            bucket: Store::S3(s3),
            credentials,
            ca_pem,
            key_escrow: None,
            copies: Copies::default(),
            identity: Some(plan.store_identity.clone()),
            silence: None,
        };
        let identity = Zeroizing::new(text(folder, IDENTITY)?);
        let identity = x25519::Identity::from_str(&identity).map_err(|why| Error::Plan { file: IDENTITY, why: why.to_owned() })?;
        let signing = Zeroizing::new(bytes(folder, SIGNING)?);
        let signing = Ed25519KeyPair::from_pkcs8(&signing).map_err(|e| Error::Plan { file: SIGNING, why: e.to_string() })?;
        let verifying = unhex(&plan.verifying_key)
            .filter(|key| key.len() == 32)
            .ok_or(Error::Plan { file: PLAN, why: "verifyingKey is no key".into() })?;
        let (source, target) = (login(folder, SOURCE)?, login(folder, TARGET)?);
        Ok(Self { plan, store, identity, signing, verifying, source, target, run: args.run.clone(), postgresql: args.postgresql.clone() })
    }

    /// Returns the name, or the first numbered variant that is free. An earlier attempt that stopped before its
    /// manifest may have left an object of that name.
    ///
    /// # Errors
    /// A request to the store failed.
    pub async fn free_name(&self, name: &str) -> Result<String, Error> {
        let (stem, rest) = name.split_once('.').unwrap_or((name, ""));
        let mut free = name.to_owned();
        for number in 2..OBJECTS {
            if self.store.bucket.head(&self.key(&free)).await?.is_none() {
                break;
            }
            free = format!("{stem}-{number}.{rest}");
        }
        Ok(free)
    }

    /// The key of one of the backup's objects.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.plan.folder)
    }
}

fn optional(folder: &Path, file: &'static str) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(folder.join(file)) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::Plan { file, why: error.to_string() }),
    }
}

fn bytes(folder: &Path, file: &'static str) -> Result<Vec<u8>, Error> {
    optional(folder, file)?.ok_or(Error::Plan { file, why: "it is missing".into() })
}

fn text(folder: &Path, file: &'static str) -> Result<String, Error> {
    String::from_utf8(bytes(folder, file)?).map_err(|_| Error::Plan { file, why: "it is no text".into() })
}

fn login(folder: &Path, file: &'static str) -> Result<Option<MoverLogin>, Error> {
    optional(folder, file)?.map(|bytes| parse::<LoginFile>(file, &bytes).map(Into::into)).transpose()
}

/// Parses a file. The error names the position, and not the contents, which may be secret.
fn parse<T: serde::de::DeserializeOwned>(file: &'static str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|e| Error::Plan { file, why: format!("line {}, column {}", e.line(), e.column()) })
}
