//! Databases of every kind that tenants have. Each is backed up, proven, dropped, restored and compared: with the
//! operator's own roles for dumps, scratch databases and restores, on a real PostgreSQL and a real S3.
//!
//! `tests/corpus/*.sql` is run as the tenant, and so are the schemas of real applications with the rows in
//! `tests/corpus/rows`, if `HELPDESK_TEST_SCHEMAS` names their folder (`tests/run` has them fetched). The environment is that of `tests/backup.rs` and `tests/database.rs`.

#![allow(clippy::unwrap_used, dead_code, reason = "a test")]

#[path = "corpus/cases.rs"]
mod cases;
#[path = "corpus/generated.rs"]
mod generated;
#[path = "backup/test_backup.rs"]
mod test_backup;
#[path = "database/test_server.rs"]
mod test_server;

use std::collections::BTreeMap;

use cases::{Case, seen_by_tenant};
use futures::StreamExt as _;
use helpdesk_operator::{
    api::VerifyMode,
    backup::manifest::{self, Remains, Restored, VERIFICATION, Verification, Way},
    database::{LoginSlot, MoverLogin, TenantLimits},
    mover::{self, Task},
    store::ConnectedStore,
};
use proptest::{
    strategy::{Strategy as _, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _};

/// A tenant whose database was backed up and proven. The scratch database of the proof still exists.
struct Proven<'d> {
    tenant: test_server::TestTenant<'d>,
    backup: test_backup::TestBackup,
    scratch: MoverLogin,
    restored: Restored,
    /// What the tenant saw before the backup.
    seen: Vec<(String, i64, String)>,
}

fn failure(step: &str, error: &mover::Error) -> String {
    format!("{step}: {}", helpdesk_operator::error_chain::chain(error))
}

async fn back_up_and_prove<'d>(
    server: &'d test_server::TestServer,
    store: ConnectedStore,
    name: &str,
    sql: &str,
    limits: &TenantLimits,
) -> Result<Proven<'d>, String> {
    let tenant = server.create_tenant_with(limits).await;
    let mut session = tenant.logs_in().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut session).await.map_err(|e| format!("its SQL: {e}"))?;
    let seen = seen_by_tenant(&mut session).await;
    session.close().await.unwrap();

    let source = server.driver.dump_login(&tenant.tenant).await.unwrap();
    let scratch = server.driver.scratch(&tenant.tenant, "verify").await.unwrap();
    let identity = (tenant.facts.oid, tenant.facts.system_identifier.clone());
    let backup = test_backup::TestBackup::of(name, store, source, identity, scratch.clone(), VerifyMode::Restore);
    let taken = backup.mover_runs(Task::Backup).await;
    server.driver.revoke_dump_login(&tenant.tenant).await.unwrap();
    if let Err(error) = taken {
        server.driver.drop_scratch(&tenant.tenant, "verify").await.unwrap();
        tenant.drop_database().await;
        return Err(failure("its backup", &error));
    }
    let proof: Verification = manifest::verify(&backup.bytes(VERIFICATION).await, &backup.keys.verifying).unwrap();
    Ok(Proven { tenant, backup, scratch, restored: proof.restored.unwrap(), seen })
}

async fn is_dropped_and_restored(server: &test_server::TestServer, store: ConnectedStore, case: &Case) -> Result<(), String> {
    // Given a database of the case, backed up and proven.
    let limits = case.limits();
    let Proven { tenant, backup, restored, seen: before, .. } = back_up_and_prove(server, store, case.name, &case.sql, &limits).await?;

    // Then the proof says the expected way, and names exactly what is left out.
    let mut found: Vec<_> = restored.left_out.iter().map(|l| (l.what.as_str(), l.remains)).collect();
    let mut expected = case.left_out.to_vec();
    found.sort_by_key(|l| l.0);
    expected.sort_by_key(|l| l.0);
    if found != expected || restored.way != case.way(server.identity.major) {
        return Err(format!("its proof: {restored:?}"));
    }
    server.driver.drop_scratch(&tenant.tenant, "verify").await.unwrap();

    // When the database is dropped and restored.
    server.drop_tenant(&tenant.tenant, &tenant.facts).await;
    let (password, secret) = test_server::new_login_secret(LoginSlot::A);
    let (facts, target) =
        server.driver.prepare_restore(&tenant.tenant, &limits, &secret, &backup.manifest().await.extensions).await.unwrap();
    backup.mover_restores_to(&target, facts.oid, 0).await.map_err(|e| failure("its restore", &e))?;
    server.driver.finish_restore(&tenant.tenant, &limits, &[]).await.unwrap();
    server.driver.resume(&tenant.tenant).await.unwrap();

    // Then the tenant sees what it saw before.
    let mut session = server.log_in(&tenant.tenant.login(LoginSlot::A), password.expose(), &tenant.tenant.name).await.unwrap();
    let after = seen_by_tenant(&mut session).await;
    if let Some(difference) = cases::difference(case, &before, &after) {
        return Err(difference);
    }
    session.close().await.unwrap();
    server.drop_tenant(&tenant.tenant, &facts).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a store and PostgreSQL: make test"]
async fn every_kind_of_database_is_proven_and_comes_back() {
    // Given every database of the corpus that the server's version knows.
    let server = test_server::TestServer::connect().await;
    let bucket = test_backup::create_bucket("corpus", true).await;
    test_backup::store_in_use(&bucket, "eu-1/").await;
    let store = || test_backup::connect_store(&bucket, "eu-1/", Some("the-bucket"), None);
    let only = std::env::var("HELPDESK_TEST_CORPUS").ok();
    let major = server.identity.major;
    let chosen: Vec<_> = cases::all().into_iter().filter(|c| c.since <= major && only.as_ref().is_none_or(|name| c.name == name)).collect();

    // When each is backed up, proven, dropped and restored.
    let outcomes = chosen.iter().map(|case| Box::pin(async { (case.name, is_dropped_and_restored(&server, store(), case).await) }));
    let failed: Vec<_> = futures::future::join_all(outcomes)
        .await
        .into_iter()
        .filter_map(|(name, end)| end.err().map(|why| format!("{name}: {why}")))
        .collect();

    // Then none of them fails.
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// A person restores a backup without the cluster, as the README says.
async fn person_restores_by_hand(server: &test_server::TestServer, store: ConnectedStore, case: &Case) -> Result<(), String> {
    // Given a proven backup of the case, and its key.
    let proven = back_up_and_prove(server, store, case.name, &case.sql, &case.limits()).await?;
    let identity: age::x25519::Identity = proven.backup.keys.identity.parse().unwrap();
    let manifest = proven.backup.manifest().await;

    // When a person decrypts and restores it by the commands of the README.
    let packed = age::decrypt(&identity, &proven.backup.bytes(&manifest.dump.name).await).unwrap();
    let folder = std::env::temp_dir().join(format!("by-hand-{}", proven.tenant.tenant.name));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("dump"), zstd::decode_all(packed.as_slice()).unwrap()).unwrap();
    let target = test_backup::Database::empty(&format!("hand_{}", case.name)).await;
    let (readme, root) = (include_str!("../README.md"), env!("CARGO_MANIFEST_DIR"));
    let script = |from: &str, until: &str| {
        let start = readme.find(from).unwrap();
        readme[start..start + readme[start..].find(until).unwrap()].replace("acme", &target.login.database)
    };
    let mut commands = script("pg_restore --list dump", "```");
    commands += &match proven.restored.way {
        Way::Plain => script("$restore --exit-on-error dump", "```"),
        // What the rows forbid fails in its last section, and the rest goes on.
        Way::SectionsWithPath => panic!("no case of this test needs the tenant's path in the session"),
        Way::Sections => script("$restore --exit-on-error --section=pre-data", "```")
            .replace("$restore --section=post-data dump ", "$restore --section=post-data dump || [ -n \"$broken\" ] "),
    };
    let tools = std::path::Path::new(&std::env::var("HELPDESK_TEST_POSTGRESQL").unwrap()).join("17/bin");
    let done = std::process::Command::new("bash")
        .args(["-eu", "-o", "pipefail", "-c", &commands.replace("examples/", &format!("{root}/examples/"))])
        .current_dir(&folder)
        .env("PATH", format!("{}:{}", tools.display(), std::env::var("PATH").unwrap()))
        .env("broken", if case.left_out.iter().any(|l| l.1 == Remains::Missing) { "yes" } else { "" })
        .env("PGHOST", &target.login.host)
        .env("PGPORT", target.login.port.to_string())
        .env("PGUSER", &target.login.username)
        .env("PGPASSWORD", target.login.password.expose())
        .env("PGSSLMODE", "require")
        .output()
        .unwrap();
    if !done.status.success() {
        return Err(format!("{commands}\n{}", String::from_utf8_lossy(&done.stderr)));
    }

    // Then the restored database equals the manifest.
    let mut compared = mover::compare_again(&proven.backup.arguments(&target.login)).await.map(drop);
    // A foreign key that old rows do not meet is left out by `pg_restore`, and NOT VALID in a restore by the operator.
    if matches!(&compared, Err(mover::Error::Differs { copy_has, .. }) if copy_has == "missing" && case.left_out.iter().any(|l| l.1 == Remains::Missing))
    {
        compared = Ok(());
    }
    std::fs::remove_dir_all(&folder).unwrap();
    server.driver.drop_scratch(&proven.tenant.tenant, "verify").await.unwrap();
    proven.tenant.drop_database().await;
    compared.map_err(|e| failure("its comparison", &e))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a store and PostgreSQL: make test"]
async fn a_person_restores_by_hand_as_the_readme_says() {
    // Given a server with PostgreSQL 17, which the README's commands are for.
    let server = test_server::TestServer::connect().await;
    if server.identity.major != 17 {
        return;
    }
    let bucket = test_backup::create_bucket("byhand", false).await;
    test_backup::store_in_use(&bucket, "eu-1/").await;

    // When a person restores each kind of backup by hand, then the result equals the manifest.
    for case in cases::all().iter().filter(|case| ["printed", "paths", "views", "broken"].contains(&case.name)) {
        let store = test_backup::connect_store(&bucket, "eu-1/", Some("the-bucket"), None);
        person_restores_by_hand(&server, store, case).await.unwrap_or_else(|why| panic!("{}: {why}", case.name));
    }
}

/// The number of random databases, unless `HELPDESK_TEST_RANDOM` says another one.
const RANDOM: u64 = 300;
const STACK: usize = 64 << 20;
/// The number of databases at once: on two processors, because most of the time is spent by the server.
const AT_ONCE: usize = 4;

/// The random database of a number: the same number makes the same one.
fn tree(number: u64) -> impl proptest::strategy::ValueTree<Value = Vec<generated::Thing>> {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&number.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    generated::database().new_tree(&mut runner).unwrap()
}

/// Proves a random database and changes copies of it. Returns which mutations were found.
async fn prove_and_mutate(
    server: &test_server::TestServer,
    store: ConnectedStore,
    number: u64,
    sql: &str,
) -> Result<Vec<&'static str>, String> {
    // Given a proven random database.
    let proven = back_up_and_prove(server, store, &format!("random{number}"), sql, &test_server::limits()).await?;

    // When a copy of it is changed in two ways, then each change is found.
    let mut found = Vec::new();
    let count = generated::MUTATIONS.len() as u64;
    for turn in 0..2 {
        let (what, query) = generated::MUTATIONS[usize::try_from((number * 2 + turn) % count).unwrap()];
        if mutation_is_found(server, &proven, number, query).await.map_err(|why| format!("{what}: {why}"))? {
            found.push(what);
        }
    }
    server.driver.drop_scratch(&proven.tenant.tenant, "verify").await.unwrap();
    proven.tenant.drop_database().await;
    Ok(found)
}

/// Changes a copy of the scratch database. Returns whether there was something to change. If there was, the comparison
/// found it.
async fn mutation_is_found(
    server: &test_server::TestServer,
    proven: &Proven<'_>,
    number: u64,
    query: &'static str,
) -> Result<bool, String> {
    let mut admin = server.superuser_logs_in().await;
    let (from, name) = (&proven.scratch.database, format!("{}_m", proven.scratch.database));
    let make = [format!("CREATE DATABASE {name} TEMPLATE {from}"), format!("ALTER DATABASE {name} OWNER TO {}", proven.scratch.username)];
    for statement in make {
        admin.execute(AssertSqlSafe(statement)).await.unwrap();
    }
    let mut session = server.superuser_logs_in_to(&name).await;
    session.execute("SET search_path = pg_catalog; SET allow_system_table_mods = on").await.unwrap();
    let statements: Vec<String> = sqlx::query_scalar(query).fetch_all(&mut session).await.map_err(|e| format!("its query: {e}"))?;
    let end = match statements.get(usize::try_from(number).unwrap() % statements.len().max(1)) {
        None => Ok(false),
        Some(statement) => match sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut session).await {
            // Other objects depend on it, so the server refuses this change.
            Err(_) => Ok(false),
            Ok(done) if (statement.contains("UPDATE ONLY") || statement.contains("DELETE FROM ONLY")) && done.rows_affected() == 0 => {
                Ok(false)
            }
            Ok(_) => {
                let target = MoverLogin { database: name.clone(), ..proven.scratch.clone() };
                match mover::compare_again(&proven.backup.arguments(&target)).await {
                    Err(mover::Error::Differs { .. } | mover::Error::OtherContents(_)) => Ok(true),
                    Err(error) => Err(failure(&format!("{statement} was not compared"), &error)),
                    Ok(_) => Err(format!("{statement} was not found")),
                }
            }
        },
    };
    session.close().await.unwrap();
    admin.execute(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"))).await.unwrap();
    end
}

#[test]
#[ignore = "needs a store and PostgreSQL: make test"]
fn random_databases_are_proven_and_no_mutation_of_a_copy_is_missed() {
    // A strategy of nested conditions and the futures of a development build take more stack than a test has.
    let run = || {
        let runtime = tokio::runtime::Builder::new_multi_thread().thread_stack_size(STACK).enable_all().build().unwrap();
        runtime.block_on(random_databases());
    };
    std::thread::Builder::new().stack_size(STACK).spawn(run).unwrap().join().unwrap();
}

async fn random_databases() {
    // Given random databases. The same number makes the same database.
    let server = test_server::TestServer::connect().await;
    let bucket = test_backup::create_bucket("random", false).await;
    test_backup::store_in_use(&bucket, "eu-1/").await;
    let store = || test_backup::connect_store(&bucket, "eu-1/", Some("the-bucket"), None);
    let many = std::env::var("HELPDESK_TEST_RANDOM").map_or(RANDOM, |many| many.parse().unwrap());
    let first = std::env::var("HELPDESK_TEST_RANDOM_FROM").map_or(0, |first| first.parse().unwrap());
    let cases = (first..first + many).map(|number| (number, tree(number).current()));
    let mut things = BTreeMap::new();

    // When each is proven, and copies of it are changed.
    let outcomes: Vec<_> = futures::stream::iter(cases)
        .map(|(number, case)| {
            for thing in &case {
                *things.entry(generated::name(thing)).or_insert(0) += 1;
            }
            let (server, store) = (&server, store());
            async move { (number, prove_and_mutate(server, store, number, &generated::sql(&case)).await) }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;

    // Then none fails, and every kind of thing and of change was tried.
    let mut mutations = BTreeMap::new();
    let mut failed = Vec::new();
    for (number, end) in outcomes {
        match end {
            Ok(found) => found.into_iter().for_each(|what| *mutations.entry(what).or_insert(0) += 1),
            Err(why) => failed.push((number, why)),
        }
    }
    println!("things: {things:?}\nmutations that were found: {mutations:?}");
    if let Some((number, why)) = failed.first() {
        let all: Vec<_> = failed.iter().map(|(number, why)| format!("{number}: {why}")).collect();
        let smallest = smallest(&server, store, *number).await;
        panic!(
            "{} of {many} random databases failed:\n{}\nthe smallest form of {number} ({why}) is\n{smallest}",
            failed.len(),
            all.join("\n")
        );
    }
    if many >= RANDOM {
        assert_eq!(things.len(), generated::names().count(), "not every kind of thing was tried");
        let missing: Vec<_> = generated::MUTATIONS.iter().map(|m| m.0).filter(|what| !mutations.contains_key(what)).collect();
        assert!(missing.is_empty(), "mutations that were never tried: {missing:?}");
    }
}

/// The smallest database that still fails.
async fn smallest(server: &test_server::TestServer, store: impl Fn() -> ConnectedStore, number: u64) -> String {
    let mut tree = tree(number);
    let mut sql = generated::sql(&tree.current());
    for _ in 0..40 {
        if !tree.simplify() {
            break;
        }
        let smaller = generated::sql(&tree.current());
        if prove_and_mutate(server, store(), number, &smaller).await.is_err() {
            sql = smaller;
        } else if !tree.complicate() {
            break;
        }
    }
    sql
}

/// Backs up, proves, drops and restores the database that the SQL creates.
async fn large_database_comes_back(name: &'static str, sql: &'static str, way: Way) {
    let server = test_server::TestServer::connect().await;
    let bucket = test_backup::create_bucket(name, false).await;
    let store = test_backup::store_in_use(&bucket, "eu-1/").await;
    is_dropped_and_restored(&server, store, &Case { way, ..Case::new(name, sql) }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a store and PostgreSQL: make test"]
async fn five_thousand_tables_are_proven_and_come_back() {
    // Each try locks no more than a server with its settings as they are has room for.
    let sql = "DO $$ BEGIN FOR n IN 1..5000 LOOP EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, s varchar(9) CHECK (s IN (''a'', ''b'')))', n); \
        EXECUTE format('INSERT INTO t%s VALUES (%s, ''a'')', n, n); IF n % 500 = 0 THEN COMMIT; END IF; END LOOP; END $$";
    large_database_comes_back("tables5000", sql, Way::Plain).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a store and PostgreSQL: make test"]
async fn a_hundred_thousand_large_objects_are_compared_by_their_contents() {
    // Given a proven database with 100,000 large objects.
    let server = test_server::TestServer::connect().await;
    let bucket = test_backup::create_bucket("objects", false).await;
    let store = test_backup::store_in_use(&bucket, "eu-1/").await;
    let sql = "DO $$ BEGIN FOR n IN 1..100000 LOOP PERFORM lo_from_bytea(0, convert_to('object ' || n, 'UTF8')); IF n % 1000 = 0 THEN COMMIT; END IF; END LOOP; END $$";
    let proven = back_up_and_prove(&server, store, "objects", sql, &test_server::limits()).await.unwrap();

    // When one byte of one object changes, and neither the number nor the sizes, then the comparison finds it.
    let change = "SELECT format('SELECT lo_put(%s, 0, ''O'')', max(oid)) FROM pg_largeobject_metadata";
    assert!(mutation_is_found(&server, &proven, 0, change).await.unwrap());
    server.driver.drop_scratch(&proven.tenant.tenant, "verify").await.unwrap();
    proven.tenant.drop_database().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a store and PostgreSQL: make test"]
async fn a_value_that_copy_cannot_write_as_text_comes_back() {
    // 600 MB that take seven on the disk; as text they would be 1.2 GB. The second table is found by what pg_dump says.
    let sql =
        "CREATE TABLE files (id int PRIMARY KEY, name text, content bytea, size bigint GENERATED ALWAYS AS (octet_length(content)) STORED);
        INSERT INTO files VALUES (1, 'small', '\\x00'), (2, 'large', convert_to(repeat('x', 600000000), 'UTF8'));
        CREATE TABLE notes (file int REFERENCES files, note text); INSERT INTO notes VALUES (2, 'refers to it')";
    large_database_comes_back("wide", sql, Way::Sections).await;
}

/// Run where `HELPDESK_TEST_LARGE` is set.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a store and PostgreSQL, and minutes: make bench"]
async fn a_table_of_two_gibibytes_is_proven_and_comes_back() {
    let sql = "CREATE TABLE tickets (id int8 PRIMARY KEY, made timestamptz, body text); INSERT INTO tickets SELECT n, now() - n * interval '1 s', \
        (SELECT string_agg(md5((n * 16 + part)::text) || ' the printer of office ' || part || ' is on fire again, please help ', '') \
        FROM generate_series(1, 10) AS part) FROM generate_series(1, 2400000) AS n";
    large_database_comes_back("gibibytes", sql, Way::Plain).await;
}

/// A tenant that wants never to be dropped could hold such a lock.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a store and PostgreSQL: make test"]
async fn a_table_that_its_tenant_never_gives_back_is_backed_up_at_the_first_try() {
    // Given a tenant who locks a table and never ends the transaction.
    let server = test_server::TestServer::connect().await;
    let bucket = test_backup::create_bucket("held", true).await;
    test_backup::store_in_use(&bucket, "eu-1/").await;
    let tenant = server.create_tenant().await;
    let mut session = tenant.logs_in().await.unwrap();
    session.execute("CREATE TABLE kept (id int); INSERT INTO kept VALUES (7)").await.unwrap();
    session.execute("BEGIN; LOCK TABLE kept IN ACCESS EXCLUSIVE MODE").await.unwrap();

    // When a mover takes a backup.
    let source = server.driver.dump_login(&tenant.tenant).await.unwrap();
    let scratch = server.driver.scratch(&tenant.tenant, "verify").await.unwrap();
    let identity = (tenant.facts.oid, tenant.facts.system_identifier.clone());
    let store = test_backup::connect_store(&bucket, "eu-1/", Some("the-bucket"), None);
    let backup = test_backup::TestBackup::of("held", store, source, identity, scratch, VerifyMode::Restore);
    backup.mover_runs(Task::Backup).await.unwrap();

    // Then the tenant's session was ended, and the table is in the backup.
    assert!(session.execute("SELECT 1").await.is_err(), "whoever held the table is still there");
    assert_eq!(backup.manifest().await.fingerprint.rows, 1);
    server.driver.revoke_dump_login(&tenant.tenant).await.unwrap();
    server.driver.drop_scratch(&tenant.tenant, "verify").await.unwrap();
    tenant.drop_database().await;
}
