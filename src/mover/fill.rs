//! Fills an empty database from a dump: the same for a verification and for a restore.
//!
//! The plain way is one `pg_restore`. Some databases cannot be restored by it although nothing is wrong with them:
//!
//! - A function that relies on its owner's search path is called while rows are loaded (a check, a domain, a generated
//!   column) or afterwards (an index), and `pg_restore` empties the path. From version 17 on the server itself does so
//!   while it makes an index, so that another path of the session would not help.
//! - A check reads another table, which is loaded later.
//! - Rows break a constraint of their own: a parent is gone, an old row does not meet a check, a key is there twice.
//!
//! Where the plain way fails, the second one is gone, from an empty database again:
//!
//! 1. `--section=pre-data`, from the head of the dump;
//! 2. every function of the tenant that names no search path is given the tenant's own, and every check is taken away;
//! 3. `--section=data`, and then what was dumped apart from it;
//! 4. the checks are made again as the source printed them, NOT VALID, and then validated;
//! 5. `--section=post-data`; keys, foreign keys and indexes that failed are tried once more, one by one;
//! 6. the parts of exclusion constraints of partitioned tables are joined, which some servers refuse to attach;
//! 7. the functions are as they were.
//!
//! Where that fails too, it is gone once more with the tenant's search path in `pg_restore`'s own session
//! ([`super::repath`]): some expressions over types of extensions are printed without the schema that they need.
//!
//! Only what the rows themselves do not let be made again is left out or stays NOT VALID, and it is named; any other
//! difference is an error.

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

/// Restoring keeps neither owners nor rights: everything belongs to the role that restores, and the rights are made
/// anew with the database. What needs a superuser is left out.
const RESTORE: [&str; 7] = [
    "--no-owner",
    "--no-privileges",
    "--no-publications",
    "--no-subscriptions",
    "--no-tablespaces",
    "--no-password",
    "--dbname=service=mover",
];

/// What a filled database holds.
pub(super) struct Filled {
    /// Its contents.
    pub fingerprint: Fingerprint,
    /// How it came to them.
    pub restored: Restored,
}

/// One filling of one database.
struct Filling<'f> {
    mover: &'f Mover,
    manifest: &'f Manifest,
    login: &'f MoverLogin,
    tools: PathBuf,
    /// The server's major version.
    server: u32,
    /// The file with the entries of the dump that are restored.
    list: PathBuf,
    source: Option<Contents>,
    progress: &'f Arc<Progress>,
}

/// Restores into an empty database and compares it with its source. `known` is the way that is known to work.
///
/// # Errors
/// [`Error::OtherDatabase`] if it is not empty; [`Error::Differs`]; why neither way works.
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

/// Compares a database with what it should hold, excusing what the proof excused.
pub(super) async fn compare_again(mover: &Mover, (manifest, sha256): (&Manifest, &str), login: &MoverLogin) -> Result<Restored, Error> {
    let restored = reports::known(mover, sha256).await?.and_then(|(proof, _)| proof.restored).unwrap_or_default();
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
    /// Goes one way after the other until one leads to a copy that is equal.
    async fn run(&self, session: &mut PgConnection, known: Option<Way>) -> Result<Filled, Error> {
        // Rows that were dumped apart are wanted before keys and checks are made.
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
                // What `pg_restore` could not make is missing then, or an operator was taken for another one.
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
                // Perhaps a function of theirs relies on the tenant's search path.
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
            // Its checksums were made otherwise; its numbers still count.
            None => expected.differs_in_numbers(&fingerprint),
        };
        match differs {
            None => Ok(Filled { fingerprint, restored: Restored::new(way, left_out) }),
            Some(why) => Err(Error::OtherContents(why)),
        }
    }

    /// Lists what is in the dump and writes down what of it is restored.
    ///
    /// Materialized views are filled afterwards, within a bound. Extensions were made by the operator, whose they are,
    /// and so is their schema. Rows that an extension keeps for its users are restored where this role may write them;
    /// where it may not, no tenant could have written any, and the comparison tells.
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

    /// The second way. Returns what could not be made again, and the functions that were given a search path.
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
        // What fails here is looked at one by one below.
        if let Err(error) = self.restore(&["--section=post-data"], "restore indexes and constraints", (Until::Satisfied, path)).await {
            let Error::Tool { .. } = &error else { return Err(error) };
            tracing::warn!(error = chain(&error), "not everything could be made after the rows");
        }
        join_exclusions(session, source, path).await?;
        left_out.append(&mut make_missing(session, source, path, cause).await?);
        Ok((left_out, given))
    }
}

/// Tables and sequences of extensions that this role may not write, as a dump's list names their contents. They are a
/// superuser's, whether a superuser or the script of a trusted extension made them.
const CLOSED: &str = "SELECT format('%s %s %s ', CASE c.relkind WHEN 'S' THEN 'SEQUENCE SET' ELSE 'TABLE DATA' END, n.nspname, c.relname) \
    FROM pg_extension e, unnest(e.extconfig) AS k(id) JOIN pg_class c ON c.oid = k.id JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE NOT has_table_privilege(c.oid, CASE c.relkind WHEN 'S' THEN 'UPDATE' ELSE 'INSERT' END)";

/// Whether an entry of a dump's list is restored. Lines look like `3370; 2606 16400 FK CONSTRAINT app child name owner`.
/// `closed` are the beginnings of those that this role may not write.
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

/// Gives every function without a search path of its own the tenant's. Returns them.
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

/// Checks of tables and domains that are nobody's heritage: with a parent's, its heirs' go too.
const CHECKS: &str = concat!(
    "SELECT CASE WHEN k.contypid = 0 THEN format('ALTER TABLE %s DROP CONSTRAINT %I', k.conrelid::regclass, k.conname) ",
    "ELSE format('ALTER DOMAIN %s DROP CONSTRAINT %I', k.contypid::regtype, k.conname) END, k.contypid <> 0, ",
    "CASE WHEN k.contypid = 0 THEN format('%s %I', k.conrelid::regclass, k.conname) ELSE format('%s %I', k.contypid::regtype, k.conname) END ",
    "FROM pg_constraint k WHERE k.contype = 'c' AND k.coninhcount = 0 AND ",
    own!("pg_constraint", "k.oid", "k.connamespace"),
    " ORDER BY 3"
);

/// Takes every check away. Returns them in the order in which they have to be put back: parents before their heirs.
async fn take_checks(session: &mut PgConnection) -> Result<Vec<(Kind, String)>, Error> {
    let step = "take checks away";
    let mut gone = Vec::new();
    loop {
        let found: Vec<(String, bool, String)> = sqlx::query_as(CHECKS).fetch_all(&mut *session).await.map_err(failed(step))?;
        if found.is_empty() {
            return Ok(gone);
        }
        for (drop, domain, name) in found {
            postgres::execute(session, step, &drop).await?;
            gone.push((if domain { Kind::DomainCheck } else { Kind::Check }, name));
        }
    }
}

/// Puts checks back as the source printed them, and validates those that were valid. Returns those that stay NOT VALID
/// because of the rows.
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
            // The validation of a parent may have validated it already.
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
