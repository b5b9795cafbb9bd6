//! Buckets, databases and movers for tests.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Instant,
};

use aws_sdk_s3::{
    Client,
    types::{BucketVersioningStatus, VersioningConfiguration},
};
use helpdesk_operator::{
    api::{BackupReason, VerifyMode, database_server::TlsMode},
    backup::{
        self,
        keys::Keys,
        manifest::{self, MANIFEST, Manifest},
    },
    clock,
    database::{MoverLogin, Password},
    mover::{self, Args, Task, config::MoverConfig, job::MoverFiles},
    store::{ConnectedStore, Credentials, Location, MARKER, Marker, Store, s3::S3},
};
use ring::signature::{Ed25519KeyPair, KeyPair};
use sqlx::{
    AssertSqlSafe, Connection, Executor, PgConnection,
    postgres::{PgConnectOptions, PgSslMode},
};

fn var(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; see the top of tests/backup.rs"))
}

fn pem(name: &str) -> String {
    std::fs::read_to_string(var(name)).unwrap()
}

/// An S3 client without the operator's rules, for everything that an attacker or an administrator might do.
pub fn raw_s3_client() -> Client {
    use aws_smithy_http_client::{
        Builder,
        tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
    };
    let trust = TrustStore::empty().with_pem_certificate(pem("HELPDESK_TEST_S3_CA").into_bytes());
    let tls = TlsContext::builder().with_trust_store(trust).build().unwrap();
    let keys = aws_sdk_s3::config::Credentials::new(
        var("HELPDESK_TEST_S3_ACCESS_KEY_ID"),
        var("HELPDESK_TEST_S3_SECRET_ACCESS_KEY"),
        None,
        None,
        "test",
    );
    let config = aws_sdk_s3::Config::builder()
        .behavior_version(aws_sdk_s3::config::BehaviorVersion::v2026_01_12())
        .http_client(Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(tls).build_https())
        .endpoint_url(var("HELPDESK_TEST_S3_ENDPOINT"))
        .region(aws_sdk_s3::config::Region::new("eu-1"))
        .credentials_provider(keys)
        .force_path_style(true)
        .build();
    Client::from_conf(config)
}

fn unique(label: &str) -> String {
    format!("t-{label}-{}-{}", std::process::id(), clock::precise_now().as_millisecond() % 1_000_000)
}

/// A new bucket.
pub async fn create_bucket(label: &str, versions: bool) -> String {
    let (s3, name) = (raw_s3_client(), unique(label));
    s3.create_bucket().bucket(&name).send().await.unwrap();
    let status = if versions { BucketVersioningStatus::Enabled } else { BucketVersioningStatus::Suspended };
    let configuration = VersioningConfiguration::builder().status(status).build();
    s3.put_bucket_versioning().bucket(&name).versioning_configuration(configuration).send().await.unwrap();
    name
}

/// A new bucket with Object Lock.
pub async fn create_locking_bucket(label: &str) -> String {
    let name = unique(label);
    raw_s3_client().create_bucket().bucket(&name).object_lock_enabled_for_bucket(true).send().await.unwrap();
    name
}

/// A store whose bucket gets no marker.
pub fn connect_store(bucket: &str, prefix: &str, identity: Option<&str>, keys: Option<(&str, &str)>) -> ConnectedStore {
    let (id, secret) = keys
        .map_or_else(|| (var("HELPDESK_TEST_S3_ACCESS_KEY_ID"), var("HELPDESK_TEST_S3_SECRET_ACCESS_KEY")), |(a, b)| (a.into(), b.into()));
    make(&var("HELPDESK_TEST_S3_ENDPOINT"), bucket, prefix, identity, id, secret)
}

/// A store at an address where nobody answers.
pub fn connect_store_at(endpoint: &str, bucket: &str) -> ConnectedStore {
    make(endpoint, bucket, "", Some("x"), "a".into(), "b".into())
}

fn make(endpoint: &str, bucket: &str, prefix: &str, identity: Option<&str>, id: String, secret: String) -> ConnectedStore {
    let location = Location {
        name: "eu-cold".into(),
        endpoint: endpoint.into(),
        signing_region: "eu-1".into(),
        bucket: bucket.into(),
        prefix: prefix.into(),
        expected_bucket_owner: None,
    };
    let credentials = Credentials { access_key_id: id, secret_access_key: secret.into() };
    let ca_pem = Some(pem("HELPDESK_TEST_S3_CA"));
    let s3 = S3::new(location.clone(), &credentials, &credentials, ca_pem.as_deref()).unwrap();
    ConnectedStore {
        location,
        region: "eu-1".into(),
        bucket: Store::S3(s3),
        credentials,
        ca_pem,
        key_escrow: None,
        copies: helpdesk_operator::store::Copies::default(),
        identity: identity.map(str::to_owned),
        silence: None,
    }
}

/// A store in use: its bucket holds the marker.
pub async fn store_in_use(bucket: &str, prefix: &str) -> ConnectedStore {
    let store = connect_store(bucket, prefix, Some("the-bucket"), None);
    let marker = Marker { installation: "i".into(), store: "eu-cold".into(), identity: "the-bucket".into(), created_at: clock::now() };
    store.bucket.write_once(MARKER, serde_json::to_vec(&marker).unwrap()).await.unwrap();
    store
}

/// A database of its own.
pub struct Database {
    name: String,
    pub login: MoverLogin,
    oid: u32,
    system_identifier: String,
}

fn login(database: &str) -> MoverLogin {
    MoverLogin {
        host: var("HELPDESK_TEST_PG_HOST"),
        port: var("HELPDESK_TEST_PG_PORT").parse().unwrap(),
        database: database.into(),
        username: var("HELPDESK_TEST_PG_USER"),
        password: Password::from_text(var("HELPDESK_TEST_PG_PASSWORD")),
        ca_pem: Some(pem("HELPDESK_TEST_PG_CA")),
        tls: TlsMode::VerifyFull,
    }
}

async fn session(database: &str) -> PgConnection {
    let options = PgConnectOptions::new_without_pgpass()
        .host(&var("HELPDESK_TEST_PG_HOST"))
        .port(var("HELPDESK_TEST_PG_PORT").parse().unwrap())
        .username(&var("HELPDESK_TEST_PG_USER"))
        .password(&var("HELPDESK_TEST_PG_PASSWORD"))
        .database(database)
        .ssl_mode(PgSslMode::VerifyFull)
        .ssl_root_cert_from_pem(pem("HELPDESK_TEST_PG_CA").into_bytes());
    PgConnection::connect_with(&options).await.unwrap()
}

const EVERYTHING: &str = include_str!("everything.sql");

impl Database {
    pub async fn empty(label: &str) -> Self {
        let name = unique(label).replace('-', "_");
        let mut admin = session("postgres").await;
        admin.execute(AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE template0"))).await.unwrap();
        let mut own = session(&name).await;
        let (oid, system_identifier): (i64, String) = sqlx::query_as(
            "SELECT (SELECT oid::int8 FROM pg_database WHERE datname = current_database()), system_identifier::text FROM pg_control_system()",
        )
        .fetch_one(&mut own)
        .await
        .unwrap();
        Self { login: login(&name), name, oid: u32::try_from(oid).unwrap(), system_identifier }
    }

    pub async fn with_a_bit_of_everything(label: &str) -> Self {
        let database = Self::empty(label).await;
        session(&database.name).await.execute(EVERYTHING).await.unwrap();
        database
    }

    /// About so many bytes of rows that compress about as well as tickets do.
    pub async fn of_bytes(label: &str, bytes: u64) -> Self {
        let database = Self::empty(label).await;
        let fill = format!(
            "CREATE TABLE tickets (id int8 PRIMARY KEY, made timestamptz, body text); INSERT INTO tickets SELECT n, now() - n * interval '1 s', \
             (SELECT string_agg(md5((n * 16 + part)::text) || ' the printer of office ' || part || ' is on fire again, please help ', '') \
             FROM generate_series(1, 10) AS part) FROM generate_series(1, {}) AS n",
            bytes / 880
        );
        session(&database.name).await.execute(AssertSqlSafe(fill)).await.unwrap();
        database
    }

    pub async fn number(&self, query: &'static str) -> i64 {
        sqlx::query_scalar(query).fetch_one(&mut session(&self.name).await).await.unwrap()
    }

    pub fn tenant_keeps_writing(&self) -> tokio::task::JoinHandle<()> {
        let name = self.name.clone();
        tokio::spawn(async move {
            let mut session = session(&name).await;
            loop {
                session
                    .execute("INSERT INTO app.tickets (customer, subject) SELECT 1, 'while it is dumped'; SELECT pg_sleep(0.002)")
                    .await
                    .unwrap();
            }
        })
    }

    pub async fn superuser_ends_sessions_of(&self, program: &str) -> i64 {
        sqlx::query_scalar(
            "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1 AND application_name = $2",
        )
        .bind(&self.name)
        .bind(program)
        .fetch_one(&mut session("postgres").await)
        .await
        .unwrap()
    }

    /// How long the tools alone take: `pg_dump | zstd > /dev/null`.
    pub fn pipe_seconds(&self) -> f64 {
        let begun = Instant::now();
        let tools = PathBuf::from(var("HELPDESK_TEST_POSTGRESQL"));
        let version = std::fs::read_dir(&tools).unwrap().flatten().map(|e| e.file_name().into_string().unwrap()).max().unwrap();
        let mut dump = Command::new(tools.join(version).join("bin/pg_dump"))
            .args(["-Fc", "-Z0"])
            .env("PGHOST", &self.login.host)
            .env("PGPORT", self.login.port.to_string())
            .env("PGDATABASE", &self.name)
            .env("PGUSER", &self.login.username)
            .env("PGPASSWORD", self.login.password.expose())
            .env("PGSSLMODE", "verify-full")
            .env("PGSSLROOTCERT", var("HELPDESK_TEST_PG_CA"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let status =
            Command::new("zstd").args(["-3", "-q", "-c"]).stdin(dump.stdout.take().unwrap()).stdout(Stdio::null()).status().unwrap();
        assert!(status.success() && dump.wait().unwrap().success());
        begun.elapsed().as_secs_f64()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let name = self.name.clone();
        let _ = std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                session("postgres").await.execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await.unwrap();
            });
        })
        .join();
    }
}

/// One backup of one database, with everything that its movers need.
pub struct TestBackup {
    pub store: ConnectedStore,
    pub keys: Keys,
    pub plan: MoverConfig,
    signing: Vec<u8>,
    folder: PathBuf,
    source: MoverLogin,
    scratch: MoverLogin,
    _scratch: Option<Database>,
}

impl TestBackup {
    pub async fn new(label: &str, database: &Database, verify: VerifyMode) -> Self {
        let scratch = Database::empty(&format!("{label}_scratch")).await;
        let store = store_in_use(&create_bucket(label, true).await, "eu-1/").await;
        let identity = (database.oid, database.system_identifier.clone());
        let backup = Self::of(label, store, database.login.clone(), identity, scratch.login.clone(), verify);
        Self { _scratch: Some(scratch), ..backup }
    }

    /// One backup of the database behind `source`, proven in the one behind `scratch`.
    pub fn of(
        label: &str,
        store: ConnectedStore,
        source: MoverLogin,
        (database_oid, system_identifier): (u32, String),
        scratch: MoverLogin,
        verify: VerifyMode,
    ) -> Self {
        let identity = age::x25519::Identity::generate();
        let signing = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap().as_ref().to_vec();
        let verifying = Ed25519KeyPair::from_pkcs8(&signing).unwrap().public_key().as_ref().to_vec();
        let secret = {
            use age::secrecy::ExposeSecret;
            identity.to_string().expose_secret().to_owned()
        };
        let keys = Keys {
            identity: secret.into(),
            recipient: identity.to_public().to_string(),
            verifying: verifying.clone(),
            escrow: None,
            app_secrets: helpdesk_operator::app::secrets::AppSecrets::default(),
        };
        let due = clock::now();
        let uid = "8f3a0000-0000-4000-8000-000000000000";
        let folder = std::env::temp_dir().join(unique(label));
        let backup = backup::build("acme", uid, "eu-cold", due, BackupReason::Frozen, verify, due);
        let name = backup.metadata.name.clone().unwrap();
        let plan = MoverConfig {
            folder: format!("{uid}/{label}-{name}/"),
            backup: name,
            account: "acme".into(),
            account_uid: uid.into(),
            store: store.location.clone(),
            store_identity: "the-bucket".into(),
            verify,
            database_oid,
            system_identifier,
            verifying_key: helpdesk_operator::digest::hex(&verifying),
            restore_since: None,
        };
        Self { store, keys, plan, signing, folder, source, scratch, _scratch: None }
    }

    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.plan.folder)
    }

    pub async fn bytes(&self, name: &str) -> Vec<u8> {
        self.store.bucket.read(&self.key(name), 1 << 30).await.unwrap()
    }

    pub async fn manifest(&self) -> Manifest {
        manifest::verify(&self.bytes(MANIFEST).await, &self.keys.verifying).unwrap()
    }

    fn full(&self, name: &str) -> String {
        format!("{}{}", self.plan.store.prefix, self.key(name))
    }

    pub async fn attacker_replaces(&self, name: &str, bytes: Vec<u8>) {
        raw_s3_client().put_object().bucket(&self.plan.store.bucket).key(self.full(name)).body(bytes.into()).send().await.unwrap();
    }

    pub async fn attacker_removes(&self, name: &str) {
        raw_s3_client().delete_object().bucket(&self.plan.store.bucket).key(self.full(name)).send().await.unwrap();
    }

    fn write(&self, label: &str, plan: &MoverConfig, target: &MoverLogin, task: Task) -> Args {
        let files = MoverFiles {
            plan,
            store: &self.store,
            keys: &self.keys,
            signing: &self.signing,
            source: Some(&self.source),
            target: Some(target),
        };
        let files: BTreeMap<_, _> = files.render().unwrap();
        let (folder, run) = (self.folder.join(label), self.folder.join("run"));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::create_dir_all(&run).unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.join(name), bytes.0).unwrap();
        }
        Args { task, plan: folder, run, postgresql: var("HELPDESK_TEST_POSTGRESQL").into(), termination_log: self.folder.join("log") }
    }

    /// The arguments with which a mover compares that database.
    pub fn arguments(&self, target: &MoverLogin) -> Args {
        self.write(&target.database, &self.plan, target, Task::Verify)
    }

    pub async fn mover_runs(&self, task: Task) -> Result<(), mover::Error> {
        mover::run(self.write("plan", &self.plan, &self.scratch, task)).await
    }

    pub async fn mover_restores_into(&self, target: &Database) -> Result<(), mover::Error> {
        self.mover_restores_since(target, 0).await
    }

    pub async fn mover_restores_since(&self, target: &Database, later: i64) -> Result<(), mover::Error> {
        self.mover_restores_to(&target.login, target.oid, later).await
    }

    pub async fn mover_restores_to(&self, target: &MoverLogin, oid: u32, later: i64) -> Result<(), mover::Error> {
        let mut plan = self.plan.clone();
        plan.database_oid = oid;
        plan.restore_since = Some(clock::whole_seconds(clock::now() + k8s_openapi::jiff::SignedDuration::from_secs(later)));
        mover::run(self.write("restore", &plan, target, Task::Restore)).await
    }

    /// A mover in a process of its own, as in a Job.
    pub fn mover_starts(&self, task: Task) -> Child {
        let args = self.write("plan", &self.plan, &self.scratch, task);
        Command::new(env!("CARGO_BIN_EXE_helpdesk-operator"))
            .args(["mover", task.name(), "--plan"])
            .arg(&args.plan)
            .arg("--run")
            .arg(&args.run)
            .arg("--postgresql")
            .arg(&args.postgresql)
            .arg("--termination-log")
            .arg(&args.termination_log)
            .env("MALLOC_ARENA_MAX", "2")
            .spawn()
            .unwrap()
    }
}

/// Processor time of a process and of the tools that it waited for, in seconds.
pub fn processor_seconds(process: u32) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let ticks: f64 = stat.rsplit(')').next()?.split_whitespace().skip(11).take(4).filter_map(|n| n.parse::<f64>().ok()).sum();
    Some(ticks / 100.0)
}

/// The most memory that a process ever had, in KiB.
pub fn peak_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("0");
    line.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}
