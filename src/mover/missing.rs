//! Creates, one by one, the keys, indexes and policies that `pg_restore` failed to create, and reports those that the
//! rows violate.

use sqlx::PgConnection;

use super::{
    Error, catalog,
    compare::shorten,
    definition::{Definition, Kind, own},
    fingerprint::Contents,
    postgres::{self, composed, failed},
};
use crate::backup::manifest::{LeftOut, Remains};
use crate::error_chain::chain;

/// Why the server refused a statement.
pub(super) struct Refusal {
    code: String,
    pub(super) message: String,
}

impl Refusal {
    /// Whether the rows, or an expression over them, are the reason, so that another try would not help. These are the
    /// SQLSTATE classes of data and integrity errors and of errors in functions, and references to a key that was left
    /// out before.
    fn is_of_the_rows(&self) -> bool {
        ["21", "22", "23", "2F", "38", "39", "P0"].iter().any(|class| self.code.starts_with(class))
            || ["42830", "42704", "42P01", "42883"].contains(&self.code.as_str())
            // Program limit exceeded: an index row is too large for its kind of index.
            || self.code == "54000"
    }
}

/// The statement, with the tenant's search path set for it if one is given. The server takes them as one transaction,
/// so after an error the search path is as before.
pub(super) fn under(path: Option<&str>, statement: &str) -> String {
    path.map_or_else(|| statement.to_owned(), |path| format!("SET search_path = {path}; {statement}; SET search_path = pg_catalog"))
}

/// Sends a statement that the server may reject.
pub(super) async fn attempt(session: &mut PgConnection, sql: &str) -> Result<Result<(), Refusal>, Error> {
    match sqlx::raw_sql(composed(sql.to_owned())).execute(session).await {
        Ok(_) => Ok(Ok(())),
        Err(sqlx::Error::Database(why)) => {
            Ok(Err(Refusal { code: why.code().unwrap_or_default().into_owned(), message: why.message().to_owned() }))
        }
        Err(source) => Err(Error::Database { step: "make what is missing", source }),
    }
}

/// Exclusion constraints of partitioned tables whose index is not valid, the topmost tables first. Such an index is not
/// valid until the index of every partition is attached to it. With their tables, and the index's name as in
/// [`Kind::Index`].
const NOT_JOINED: &str = concat!(
    "SELECT k.oid::bigint, k.conrelid::regclass::text, format('%I', k.conname), k.conindid::regclass::text ",
    "FROM pg_constraint k JOIN pg_index i ON i.indexrelid = k.conindid JOIN pg_class c ON c.oid = k.conrelid ",
    "WHERE k.contype = 'x' AND c.relkind = 'p' AND k.conparentid = 0 AND NOT i.indisvalid AND ",
    own!("pg_class", "k.conrelid", "k.connamespace"),
    " ORDER BY (SELECT count(*) FROM pg_partition_ancestors(c.oid)), 2, 3"
);

/// The constraints of the table's partitions that have the same definition and are not attached.
const PARTS: &str = "SELECT DISTINCT ON (p.conrelid) p.conrelid::regclass::text, format('%I', p.conname) \
    FROM pg_constraint k, pg_partition_tree(k.conrelid) t, pg_constraint p \
    WHERE k.oid::bigint = $1 AND t.level > 0 AND p.conrelid = t.relid AND p.contype = 'x' AND p.conparentid = 0 \
    AND pg_get_constraintdef(p.oid) = pg_get_constraintdef(k.oid) ORDER BY p.conrelid, p.conname";

/// The partitions whose index is attached to the index $1, with the name of their index.
const JOINED: &str = "SELECT i.indrelid::regclass::text, format('%I', c.relname) FROM pg_partition_tree($1::regclass) t \
    JOIN pg_index i ON i.indexrelid = t.relid JOIN pg_class c ON c.oid = t.relid WHERE t.level > 0";

/// Recreates exclusion constraints of partitioned tables where the server did not attach a partition's index to its
/// parent's: 18.4 reports that the definitions do not match. A constraint that is created on the parent is created on
/// every partition too, but under a new name, so this renames it.
pub(super) async fn join_exclusions(session: &mut PgConnection, source: &Contents, path: Option<&str>) -> Result<(), Error> {
    let step = "join the parts of exclusion constraints";
    let find = |kind: Kind, name: &str| source.definitions.iter().find(|d| d.kind == kind && d.name == name);
    let copy = catalog::read_only(session, Kind::Index).await?;
    let apart: Vec<(i64, String, String, String)> = sqlx::query_as(NOT_JOINED).fetch_all(&mut *session).await.map_err(failed(step))?;
    for (oid, table, name, index) in apart {
        // In the source the constraint may have partitions that were never attached.
        let is_as_in_source =
            copy.iter().find(|d| d.name == index).map(|d| &d.attributes) == find(Kind::Index, &index).map(|d| &d.attributes);
        let make = find(Kind::Constraint, &format!("{table} {name}")).and_then(|d| d.make.as_ref());
        let (false, Some(make)) = (is_as_in_source, make) else { continue };
        let parts: Vec<(String, String)> = sqlx::query_as(PARTS).bind(oid).fetch_all(&mut *session).await.map_err(failed(step))?;
        if parts.is_empty() {
            // The constraint was dropped with its parent's.
            continue;
        }
        for (table, name) in std::iter::once((&table, &name)).chain(parts.iter().map(|(table, name)| (table, name))) {
            postgres::execute(session, step, &format!("ALTER TABLE {table} DROP CONSTRAINT {name}")).await?;
        }
        postgres::execute(session, step, &under(path, make)).await?;
        let joined: Vec<(String, String)> = sqlx::query_as(JOINED).bind(index).fetch_all(&mut *session).await.map_err(failed(step))?;
        for (table, new) in joined {
            if let Some((_, name)) = parts.iter().find(|(part, name)| *part == table && *name != new) {
                postgres::execute(session, step, &format!("ALTER TABLE {table} RENAME CONSTRAINT {new} TO {name}")).await?;
            }
        }
    }
    Ok(())
}

/// Creates the keys, indexes, foreign keys and policies that are missing. Returns those that the rows violate.
pub(super) async fn make_missing(
    session: &mut PgConnection,
    source: &Contents,
    path: Option<&str>,
    cause: Option<&Error>,
) -> Result<Vec<LeftOut>, Error> {
    let mut left_out: Vec<LeftOut> = Vec::new();
    let foreign = |d: &Definition| d.make.as_ref().is_some_and(|make| make.contains(" FOREIGN KEY "));
    let rounds: [(Kind, bool); 4] = [(Kind::Constraint, false), (Kind::Index, false), (Kind::Constraint, true), (Kind::Policy, false)];
    for (kind, of_foreign_keys) in rounds {
        let copy = catalog::read_only(session, kind).await?;
        let exists = |d: &Definition| copy.binary_search_by(|c| c.name.as_bytes().cmp(d.name.as_bytes())).is_ok();
        let missing = source.definitions.iter().filter(|d| d.kind == kind && foreign(d) == of_foreign_keys && !exists(d));
        for one in missing {
            if kind == Kind::Index && is_of_constraint(one, &left_out) {
                continue;
            }
            let Some(make) = &one.make else { continue };
            let Err(why) = attempt(session, &under(path, make)).await? else { continue };
            let why_text = shorten(&why.message);
            if !why.is_of_the_rows() {
                tracing::warn!(what = one.title(), code = why.code, why = why_text, "could not be made again");
                return Err(Error::NotMade { what: one.title(), why: why_text, first: cause.map(|e| chain(e)).unwrap_or_default() });
            }
            let not_valid = format!("{make} NOT VALID");
            let remains = match of_foreign_keys && attempt(session, &under(path, &not_valid)).await?.is_ok() {
                true => Remains::NotValid,
                false => Remains::Missing,
            };
            tracing::warn!(what = one.title(), code = why.code, why = why_text, ?remains, "the rows do not let it be made again");
            left_out.push(LeftOut { what: one.title(), remains, why: why_text });
        }
    }
    Ok(left_out)
}

/// Whether an index belongs to a key that was left out: both have the same name.
fn is_of_constraint(index: &Definition, left_out: &[LeftOut]) -> bool {
    let name = index.name.rsplit('.').next().unwrap_or_default();
    left_out.iter().any(|l| l.what == format!("{} {} {name}", Kind::Constraint.words(), index.on))
}
