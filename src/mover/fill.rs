//! Fills an empty database from a dump, in the same way for a verification and for a restore.
//!
//! The plain way is one `pg_restore`. It fails for some databases that are valid:
//!
//! - A function that relies on its owner's search path is called while rows are loaded (by a check, a domain, a
//!   generated column) or afterwards (by an index), but `pg_restore` empties the path. From version 17 on the server
//!   itself empties it while it creates an index, so that another path of the session would not help.
//! - A check reads another table, which is loaded later.
//! - Rows violate a constraint of their table: a parent row is gone, an old row violates a check, a key is there twice.
//!
//! If the plain way fails, the database is emptied and filled in sections:
//!
//! 1. `--section=pre-data`, from the head of the dump;
//! 2. every function of the tenant without a search path gets the tenant's, and every check is dropped;
//! 3. `--section=data`, and then the rows that were dumped apart;
//! 4. the checks are created as the source printed them, NOT VALID, and then validated;
//! 5. `--section=post-data`;
//! 6. exclusion constraints of partitioned tables are recreated where the server did not attach a partition's index;
//!    keys, foreign keys and indexes that failed are created once more, one by one;
//! 7. the search path of the functions is reset.
//!
//! If that fails too, it is repeated with the tenant's search path in `pg_restore`'s own session ([`super::repath`]):
//! the server prints some expressions over types of extensions without the schema that they need.
//!
//! A definition is left out or stays NOT VALID only if the rows violate it, and it is reported; any other difference is
//! an error.

use std::{io::Read as _, path::PathBuf, sync::Arc, time::Instant};

use sqlx::PgConnection;

use super::{
    Error, apart, catalog, clear,
    compare::{self, shorten},
    config::Mover,
    contents,
    definition::{Definition, Kind, own},
    fingerprint::{self, Contents, Origin},
    missing::{attempt, join_exclusions, make_missing, under},
    postgres::{self, EXIT_ON_ERROR, Pipe, failed},
    progress::Progress,
    reports,
    stream::Until,
    transfer::feed,
    views,
};
use crate::error_chain::chain;
use crate::{
    backup::manifest::{Fingerprint, LeftOut, Manifest, Remains, Restored, Way},
    database::MoverLogin,
};

/// The arguments of every `pg_restore`. It restores no owners and no privileges: the restoring role owns everything,
/// and the operator grants privileges when it creates the database. It leaves out what needs a superuser.
const RESTORE: [&str; 7] = [
    "--no-owner",
    "--no-privileges",
    "--no-publications",
    "--no-subscriptions",
    "--no-tablespaces",
    "--no-password",
    "--dbname=service=mover",
];

/// The result of filling a database.
pub(super) struct Filled {
    /// The fingerprint of its contents.
    pub fingerprint: Fingerprint,
    /// The way that worked, and what is left out.
    pub restored: Restored,
}

/// The inputs of filling one database.
struct Filling<'f> {
    mover: &'f Mover,
    manifest: &'f Manifest,
    login: &'f MoverLogin,
    tools: PathBuf,
    /// The server's major version.
    server: u32,
    /// The file with the dump's entries to restore (`--use-list`).
    list: PathBuf,
    source: Option<Contents>,
    progress: &'f Arc<Progress>,
}

/// Restores into an empty database and compares it with its source. `known` is the way that worked before.
///
/// # Errors
/// [`Error::OtherDatabase`] if the database is not empty; [`Error::Differs`]; or no way works.
pub(super) async fn fill(
    mover: &Mover,
    manifest: &Manifest,
    login: &MoverLogin,
    known: Option<Way>,
    progress: &Arc<Progress>,
) -> Result<Filled, Error> {
    let mut session = postgres::connect(login).await?;
    let (_, major, _) = postgres::who(&mut session).await?;
    clear::begin(&mut session, &login.database).await?;
    let source = contents::read(mover, manifest).await?;
    let tools = postgres::tools(&mover.postgresql, major)?;
    let list = std::env::temp_dir().join(format!("{}.list", login.database));
    let filling = Filling { mover, manifest, login, tools, server: major, list, source, progress };
    filling.choose_entries(&mut session).await?;
    let filled = Box::pin(filling.run(&mut session, known)).await;
    let _ = std::fs::remove_file(&filling.list);
    let filled = filled?;
    clear::end(&mut session).await?;
    Ok(filled)
}

/// Compares a database with its source, except for what the verification says is left out.
pub(super) async fn compare_again(mover: &Mover, (manifest, sha256): (&Manifest, &str), login: &MoverLogin) -> Result<Restored, Error> {
    let restored = reports::read_verification(mover, sha256).await?.and_then(|(proof, _)| proof.restored).unwrap_or_default();
    let Some(source) = contents::read(mover, manifest).await? else { return Err(Error::NoManifest) };
    let mut session = postgres::connect(login).await?;
    clear::mark(&mut session).await?;
    let compared = async {
        let copy = read_copy(&mut session).await?;
        let stood_still = manifest.fingerprint.sequence_state.is_some();
        compare::compare(&mut session, &source, &copy, stood_still, &restored.left_out).await
    };
    let compared = compared.await;
    clear::end(&mut session).await?;
    Ok(Restored::new(restored.way, compared?))
}

async fn read_copy(session: &mut PgConnection) -> Result<Contents, Error> {
    let mut copy = fingerprint::take(session, Origin::Copy).await?;
    copy.definitions.retain(|d| d.kind != Kind::Schema || d.name != clear::MARK);
    Ok(copy)
}

impl Filling<'_> {
    /// Tries one way after the other until the copy equals its source.
    async fn run(&self, session: &mut PgConnection, known: Option<Way>) -> Result<Filled, Error> {
        // Rows that were dumped apart must be restored before keys and checks are created, so the plain way is skipped.
        let first = if self.manifest.apart.is_empty() { known.unwrap_or_default() } else { known.unwrap_or_default().max(Way::Sections) };
        let mut ways = [Way::Plain, Way::Sections, Way::SectionsWithPath].into_iter().filter(|way| *way >= first).peekable();
        let mut cause = None;
        while let Some(way) = ways.next() {
            let error = match Box::pin(self.go(session, way, cause.as_ref())).await {
                Ok(filled) => return Ok(filled),
                Err(error) => error,
            };
            let may_help = match &error {
                Error::Tool { .. } | Error::NotMade { .. } => error.is_the_backups_own(),
                // `pg_restore` could not create something, or an expression was read with another operator.
                Error::Differs { .. } => true,
                _ => false,
            };
            if !may_help || self.source.is_none() || ways.peek().is_none() {
                return Err(error);
            }
            tracing::warn!(?way, cause = chain(&error), "this way of restoring fails; going the next one");
            clear::begin(session, &self.login.database).await?;
            cause.get_or_insert(error);
        }
        Err(Error::NoManifest)
    }

    /// Fills the database in one way and compares it.
    async fn go(&self, session: &mut PgConnection, way: Way, cause: Option<&Error>) -> Result<Filled, Error> {
        let path = self.source.as_ref().filter(|_| way == Way::SectionsWithPath).map(Contents::search_path);
        let (mut left_out, mut given) = match way {
            Way::Plain => {
                self.restore(&[EXIT_ON_ERROR], "restore", (Until::End, None)).await?;
                (Vec::new(), Vec::new())
            }
            Way::Sections | Way::SectionsWithPath => self.sections(session, path.as_deref(), cause).await?,
        };
        if let Some(source) = &self.source {
            let begun = Instant::now();
            let mut empty = views::fill(session, source, begun).await?;
            if !empty.is_empty() && given.is_empty() {
                // A function in the view's query may rely on the tenant's search path.
                given = give_paths(session, source).await?;
                empty = views::fill(session, source, begun).await?;
            }
            left_out.append(&mut empty);
        }
        take_paths(session, &given).await?;
        let copy = read_copy(session).await?;
        let fingerprint = copy.fingerprint();
        if let Some(source) = &self.source {
            let stood_still = self.manifest.fingerprint.sequence_state.is_some();
            left_out.append(&mut compare::compare(session, source, &copy, stood_still, &left_out.clone()).await?);
        }
        let expected = &self.manifest.fingerprint;
        let differs = match &self.source {
            Some(_) => expected.differs(&fingerprint),
            // The checksums of an older backup were computed differently, but its numbers can be compared.
            None => expected.differs_in_numbers(&fingerprint),
        };
        match differs {
            None => Ok(Filled { fingerprint, restored: Restored::new(way, left_out) }),
            Some(why) => Err(Error::OtherContents(why)),
        }
    }

    /// Lists the dump's entries and writes those to restore into the file [`Self::list`].
    ///
    /// Materialized views are filled afterwards, within a time limit. The operator has created the extensions and their
    /// schema. Rows in an extension's configuration tables are restored if this role may write them. If it may not, no
    /// tenant could have written any, and the comparison finds a difference.
    async fn choose_entries(&self, session: &mut PgConnection) -> Result<(), Error> {
        let closed: Vec<String> = sqlx::query_scalar(CLOSED).fetch_all(session).await.map_err(failed("look for tables of extensions"))?;
        let mut tool = postgres::start(&self.tools, "pg_restore", &["--list"], None, &Pipe::Both)?;
        let output = tool.child.stdout.take();
        let listed = tokio::task::spawn_blocking(move || {
            let mut text = Vec::new();
            output.map_or(Ok(0), |mut output| output.read_to_end(&mut text)).map(|_| text)
        });
        feed(self.mover, self.manifest, tool, self.progress, (Until::Satisfied, None)).await?;
        let text = listed.await.map_err(|e| Error::Stream(std::io::Error::other(e)))?.map_err(Error::Stream)?;
        let text = String::from_utf8_lossy(&text);
        let kept: String = text.lines().filter(|line| is_restored(line, &closed)).flat_map(|line| [line, "\n"]).collect();
        std::fs::write(&self.list, kept).map_err(Error::Stream)
    }

    async fn restore(&self, more: &[&str], step: &'static str, how: (Until, Option<&str>)) -> Result<(), Error> {
        let list = format!("--use-list={}", self.list.display());
        let arguments: Vec<&str> = RESTORE.iter().copied().chain([list.as_str()]).chain(more.iter().copied()).collect();
        let tool = postgres::start_restore(&self.tools, &arguments, (self.login, &self.mover.run), self.server)?;
        self.progress.during(step, feed(self.mover, self.manifest, tool, self.progress, how)).await.map(drop)
    }

    /// Fills the database in sections. Returns the definitions that were left out, and the functions that got a search
    /// path.
    async fn sections(
        &self,
        session: &mut PgConnection,
        path: Option<&str>,
        cause: Option<&Error>,
    ) -> Result<(Vec<LeftOut>, Vec<String>), Error> {
        let Some(source) = &self.source else { return Err(Error::NoManifest) };
        self.restore(&[EXIT_ON_ERROR, "--section=pre-data"], "restore definitions", (Until::Satisfied, path)).await?;
        let given = give_paths(session, source).await?;
        let checks = take_checks(session).await?;
        self.restore(&[EXIT_ON_ERROR, "--section=data"], "restore rows", (Until::End, path)).await?;
        apart::restore(self.mover, self.manifest, session, self.progress).await?;
        let mut left_out = put_checks_back(session, source, path, &checks).await?;
        // Definitions that fail here are created one by one below.
        if let Err(error) = self.restore(&["--section=post-data"], "restore indexes and constraints", (Until::Satisfied, path)).await {
            let Error::Tool { .. } = &error else { return Err(error) };
            tracing::warn!(error = chain(&error), "not everything could be made after the rows");
        }
        join_exclusions(session, source, path).await?;
        left_out.append(&mut make_missing(session, source, path, cause).await?);
        Ok((left_out, given))
    }
}

/// Configuration tables and sequences of extensions that this role may not write, as a dump's list names their entries.
/// A superuser owns them, even those of a trusted extension.
const CLOSED: &str = "SELECT format('%s %s %s ', CASE c.relkind WHEN 'S' THEN 'SEQUENCE SET' ELSE 'TABLE DATA' END, n.nspname, c.relname) \
    FROM pg_extension e, unnest(e.extconfig) AS k(id) JOIN pg_class c ON c.oid = k.id JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE NOT has_table_privilege(c.oid, CASE c.relkind WHEN 'S' THEN 'UPDATE' ELSE 'INSERT' END)";

/// Whether an entry of a dump's list is restored. A line looks like `3370; 2606 16400 FK CONSTRAINT app child name
/// owner`. `closed` are the beginnings of entries whose tables this role may not write.
fn is_restored(line: &str, closed: &[String]) -> bool {
    let what = line.split_once("; ").map_or("", |(_, rest)| rest).splitn(3, ' ').nth(2).unwrap_or_default();
    let ours = format!("- {} ", super::definition::EXTENSIONS);
    !(what.starts_with("MATERIALIZED VIEW DATA ")
        || what.starts_with("COMMENT - EXTENSION ")
        || what.strip_prefix("SCHEMA ").is_some_and(|rest| rest.starts_with(&ours))
        || what.starts_with(&format!("COMMENT - SCHEMA {} ", super::definition::EXTENSIONS))
        || closed.iter().any(|entry| what.starts_with(entry.as_str())))
}

const PATHLESS: &str = concat!(
    "SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang WHERE p.prokind IN ('f', 'p') ",
    "AND l.lanname NOT IN ('internal', 'c') AND NOT EXISTS (SELECT FROM unnest(p.proconfig) s WHERE s LIKE 'search\\_path=%') ",
    "AND pg_has_role(p.proowner, 'USAGE') AND ",
    own!("pg_proc", "p.oid", "p.pronamespace")
);

/// Sets the tenant's search path on every function without its own. Returns these functions.
async fn give_paths(session: &mut PgConnection, source: &Contents) -> Result<Vec<String>, Error> {
    let step = "give functions the tenant's search path";
    let functions: Vec<String> = sqlx::query_scalar(PATHLESS).fetch_all(&mut *session).await.map_err(failed(step))?;
    let path = source.search_path();
    for function in &functions {
        postgres::execute(session, step, &format!("ALTER ROUTINE {function} SET search_path = {path}")).await?;
    }
    Ok(functions)
}

async fn take_paths(session: &mut PgConnection, functions: &[String]) -> Result<(), Error> {
    for function in functions {
        postgres::execute(session, "make functions as they were", &format!("ALTER ROUTINE {function} RESET search_path")).await?;
    }
    Ok(())
}

/// Checks of tables and domains that are not inherited. Dropping a parent's check drops its children's too.
const CHECKS: &str = concat!(
    "SELECT CASE WHEN k.contypid = 0 THEN format('ALTER TABLE %s DROP CONSTRAINT %I', k.conrelid::regclass, k.conname) ",
    "ELSE format('ALTER DOMAIN %s DROP CONSTRAINT %I', k.contypid::regtype, k.conname) END, k.contypid <> 0, ",
    "CASE WHEN k.contypid = 0 THEN format('%s %I', k.conrelid::regclass, k.conname) ELSE format('%s %I', k.contypid::regtype, k.conname) END ",
    "FROM pg_constraint k WHERE k.contype = 'c' AND k.coninhcount = 0 AND ",
    own!("pg_constraint", "k.oid", "k.connamespace"),
    " ORDER BY 3"
);

/// Drops every check. Returns them in the order in which they must be created again: parents before their children.
async fn take_checks(session: &mut PgConnection) -> Result<Vec<(Kind, String)>, Error> {
    let step = "take checks away";
    let mut dropped = Vec::new();
    loop {
        let found: Vec<(String, bool, String)> = sqlx::query_as(CHECKS).fetch_all(&mut *session).await.map_err(failed(step))?;
        if found.is_empty() {
            return Ok(dropped);
        }
        for (drop, domain, name) in found {
            postgres::execute(session, step, &drop).await?;
            dropped.push((if domain { Kind::DomainCheck } else { Kind::Check }, name));
        }
    }
}

/// Creates the checks as the source printed them, and validates those that were valid. Returns those that stay NOT
/// VALID because rows violate them.
async fn put_checks_back(
    session: &mut PgConnection,
    source: &Contents,
    path: Option<&str>,
    checks: &[(Kind, String)],
) -> Result<Vec<LeftOut>, Error> {
    let find = |kind: Kind, name: &str| source.definitions.iter().find(|d| d.kind == kind && d.name == name);
    for (kind, name) in checks {
        let Some(make) = find(*kind, name).and_then(|d| d.make.as_ref()) else { continue };
        let not_valid = if make.ends_with(" NOT VALID") || make.ends_with(" NOT ENFORCED") { "" } else { " NOT VALID" };
        postgres::execute(session, "put a check back", &under(path, &format!("{make}{not_valid}"))).await?;
    }
    let mut left_out = Vec::new();
    for kind in [Kind::Check, Kind::DomainCheck] {
        for copy in catalog::read_only(session, kind).await? {
            let was_valid = |d: &Definition| d.attributes.starts_with('t');
            let Some(one) = find(kind, &copy.name).filter(|d| was_valid(d)) else { continue };
            // The validation of a parent's check may have validated this one already; repeating it does no harm.
            let (on, constraint) = (&one.on, one.name.strip_prefix(&one.on).unwrap_or_default());
            let what = if kind == Kind::Check { "TABLE" } else { "DOMAIN" };
            if let Err(why) = attempt(session, &format!("ALTER {what} {on} VALIDATE CONSTRAINT{constraint}")).await? {
                left_out.push(LeftOut { what: one.title(), remains: Remains::NotValid, why: shorten(&why.message) });
            }
        }
    }
    Ok(left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_makes_itself_is_not_restored() {
        assert!(is_restored("3; 3079 16385 EXTENSION - pg_trgm ", &[]), "it is there, and says so");
        assert!(!is_restored("3456; 0 0 COMMENT - EXTENSION pg_trgm ", &[]));
        assert!(!is_restored("7; 2615 16400 SCHEMA - ext postgres", &[]));
        assert!(is_restored("6; 2615 16400 SCHEMA - app t_own", &[]));
        assert!(!is_restored("3500; 0 16500 MATERIALIZED VIEW DATA app counts t_own", &[]));
        assert!(is_restored("218; 1259 16500 MATERIALIZED VIEW app counts t_own", &[]));
        assert!(is_restored("3370; 2606 16400 FK CONSTRAINT app child child_parent_fkey t_own", &[]));
    }

    #[test]
    fn rows_of_extensions_are_restored_where_they_may_be_written() {
        let closed = ["TABLE DATA ext spatial_ref_sys ".to_owned()];
        assert!(!is_restored("3490; 0 16421 TABLE DATA ext spatial_ref_sys postgres", &closed));
        assert!(is_restored("3490; 0 16421 TABLE DATA ext spatial_ref_sys postgres", &[]));
        assert!(is_restored("3491; 0 16500 TABLE DATA app spatial_ref_sys t_own", &closed));
    }
}
