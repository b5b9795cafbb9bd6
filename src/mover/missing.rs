//! Makes one by one what `pg_restore` did not make after the rows, and names what the rows forbid.

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
    /// Whether the rows, or an expression over them, are the reason, and trying again later would not help: classes of
    /// SQLSTATE of data, integrity, and what functions raise, and references to a key that was left out before.
    fn is_of_the_rows(&self) -> bool {
        ["21", "22", "23", "2F", "38", "39", "P0"].iter().any(|class| self.code.starts_with(class))
            || ["42830", "42704", "42P01", "42883"].contains(&self.code.as_str())
            // An index row that is too large for its kind of index.
            || self.code == "54000"
    }
}

/// A statement under the tenant's search path, where it is needed. If it is refused, the path is as before.
pub(super) fn under(path: Option<&str>, statement: &str) -> String {
    path.map_or_else(|| statement.to_owned(), |path| format!("SET search_path = {path}; {statement}; SET search_path = pg_catalog"))
}

/// Sends a statement that the server may refuse.
pub(super) async fn attempt(session: &mut PgConnection, sql: &str) -> Result<Result<(), Refusal>, Error> {
    match sqlx::raw_sql(composed(sql.to_owned())).execute(session).await {
        Ok(_) => Ok(Ok(())),
        Err(sqlx::Error::Database(why)) => {
            Ok(Err(Refusal { code: why.code().unwrap_or_default().into_owned(), message: why.message().to_owned() }))
        }
        Err(source) => Err(Error::Database { step: "make what is missing", source }),
    }
}

/// Exclusion constraints of partitioned tables whose index is not valid, which is until every part is attached to it:
/// topmost first. With their tables, and the index's name as in [`Kind::Index`].
const NOT_JOINED: &str = concat!(
    "SELECT k.oid::bigint, k.conrelid::regclass::text, format('%I', k.conname), k.conindid::regclass::text ",
    "FROM pg_constraint k JOIN pg_index i ON i.indexrelid = k.conindid JOIN pg_class c ON c.oid = k.conrelid ",
    "WHERE k.contype = 'x' AND c.relkind = 'p' AND k.conparentid = 0 AND NOT i.indisvalid AND ",
    own!("pg_class", "k.conrelid", "k.connamespace"),
    " ORDER BY (SELECT count(*) FROM pg_partition_ancestors(c.oid)), 2, 3"
);

/// The same constraint of the parts of its table, where it is by itself.
const PARTS: &str = "SELECT DISTINCT ON (p.conrelid) p.conrelid::regclass::text, format('%I', p.conname) \
    FROM pg_constraint k, pg_partition_tree(k.conrelid) t, pg_constraint p \
    WHERE k.oid::bigint = $1 AND t.level > 0 AND p.conrelid = t.relid AND p.contype = 'x' AND p.conparentid = 0 \
    AND pg_get_constraintdef(p.oid) = pg_get_constraintdef(k.oid) ORDER BY p.conrelid, p.conname";

/// The tables that have an index by its being a part of one, with its name there.
const JOINED: &str = "SELECT i.indrelid::regclass::text, format('%I', c.relname) FROM pg_partition_tree($1::regclass) t \
    JOIN pg_index i ON i.indexrelid = t.relid JOIN pg_class c ON c.oid = t.relid WHERE t.level > 0";

/// Makes exclusion constraints of partitioned tables again where the server did not attach a part's index to its
/// parent's: 18.4 says that the definitions do not match. Made on the parent, they are on every part, under new names.
pub(super) async fn join_exclusions(session: &mut PgConnection, source: &Contents, path: Option<&str>) -> Result<(), Error> {
    let step = "join the parts of exclusion constraints";
    let find = |kind: Kind, name: &str| source.definitions.iter().find(|d| d.kind == kind && d.name == name);
    let copy = catalog::read_only(session, Kind::Index).await?;
    let apart: Vec<(i64, String, String, String)> = sqlx::query_as(NOT_JOINED).fetch_all(&mut *session).await.map_err(failed(step))?;
    for (oid, table, name, index) in apart {
        // In the source it may have parts that were never attached.
        let as_it_was = copy.iter().find(|d| d.name == index).map(|d| &d.attributes) == find(Kind::Index, &index).map(|d| &d.attributes);
        let make = find(Kind::Constraint, &format!("{table} {name}")).and_then(|d| d.make.as_ref());
        let (false, Some(make)) = (as_it_was, make) else { continue };
        let parts: Vec<(String, String)> = sqlx::query_as(PARTS).bind(oid).fetch_all(&mut *session).await.map_err(failed(step))?;
        if parts.is_empty() {
            // It went with the one above it.
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

/// Makes keys, indexes, foreign keys and policies that are missing after the rows. Returns those that the rows forbid.
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
        let there = |d: &Definition| copy.binary_search_by(|c| c.name.as_bytes().cmp(d.name.as_bytes())).is_ok();
        let missing = source.definitions.iter().filter(|d| d.kind == kind && foreign(d) == of_foreign_keys && !there(d));
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

/// Whether an index belongs to a key that was left out: they have one name.
fn is_of_constraint(index: &Definition, left_out: &[LeftOut]) -> bool {
    let name = index.name.rsplit('.').next().unwrap_or_default();
    left_out.iter().any(|l| l.what == format!("{} {} {name}", Kind::Constraint.words(), index.on))
}
