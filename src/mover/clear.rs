//! Empties the database that a restore fills, before each try.
//!
//! A marker schema says that the contents of the database came from a restore. It is created while the database is
//! empty and dropped when the restore is complete. The mover never removes anything from a database without that
//! marker.

use sqlx::PgConnection;

use super::{
    Error,
    definition::own,
    postgres::{self, composed, ident},
};

/// The marker schema of a database that is being restored into.
pub(super) const MARK: &str = "helpdesk_restore";

/// Counts relations, routines, types, schemas and large objects, except the marker and members of extensions.
const COUNT: &str = concat!(
    "SELECT (SELECT count(*) FROM pg_class c WHERE ",
    own!("pg_class", "c.oid", "c.relnamespace"),
    ") + (SELECT count(*) FROM pg_proc p WHERE ",
    own!("pg_proc", "p.oid", "p.pronamespace"),
    // Array types are not counted: before version 17 they are no members of their element type's extension.
    ") + (SELECT count(*) FROM pg_type t WHERE t.typcategory <> 'A' AND ",
    own!("pg_type", "t.oid", "t.typnamespace"),
    ") + (SELECT count(*) FROM pg_namespace n WHERE n.nspname NOT IN ('public', $1, $2) AND ",
    own!("pg_namespace", "n.oid", "n.oid"),
    ") + (SELECT count(*) FROM pg_largeobject_metadata)"
);

/// One statement for each relation: one for a whole schema would need more locks than a server has room for.
const RELATIONS: &str = concat!(
    "SELECT format('DROP %s IF EXISTS %I.%I CASCADE', CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' ",
    "WHEN 'f' THEN 'FOREIGN TABLE' WHEN 'S' THEN 'SEQUENCE' WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END, n.nspname, c.relname) ",
    "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c') ",
    "AND pg_has_role(c.relowner, 'USAGE') AND ",
    own!("pg_class", "c.oid", "c.relnamespace"),
    " ORDER BY c.relkind IN ('S', 'c'), c.relispartition DESC, c.relkind <> 'm', c.relkind <> 'v', c.oid DESC"
);

const SCHEMAS: &str = concat!(
    "SELECT format('DROP SCHEMA IF EXISTS %I CASCADE', n.nspname) FROM pg_namespace n WHERE n.nspname NOT IN ('public', $1, $2) ",
    "AND pg_has_role(n.nspowner, 'USAGE') AND ",
    own!("pg_namespace", "n.oid", "n.oid")
);

/// Routines and types that remain after the schemas are dropped, such as those in `public`.
const STRAYS: &str = concat!(
    "SELECT format('DROP ROUTINE IF EXISTS %s CASCADE', p.oid::regprocedure) FROM pg_proc p WHERE pg_has_role(p.proowner, 'USAGE') AND ",
    own!("pg_proc", "p.oid", "p.pronamespace"),
    " UNION ALL SELECT format('DROP TYPE IF EXISTS %s CASCADE', t.oid::regtype) FROM pg_type t WHERE pg_has_role(t.typowner, 'USAGE') ",
    "AND t.typtype IN ('e', 'd', 'r', 'b') AND t.typcategory <> 'A' AND ",
    own!("pg_type", "t.oid", "t.typnamespace")
);

/// Deletes the rows that a restore wrote into configuration tables of extensions.
const OF_EXTENSIONS: &str = "SELECT format('DELETE FROM %s %s', k.id::regclass, e.extcondition[k.at]) \
    FROM pg_extension e, unnest(e.extconfig) WITH ORDINALITY k(id, at) JOIN pg_class c ON c.oid = k.id \
    WHERE c.relkind IN ('r', 'p') AND has_table_privilege(k.id, 'DELETE')";

/// Removes at most 1000 large objects in one transaction.
const LARGE_OBJECTS: &str = "SELECT count(lo_unlink(o.oid)) FROM (SELECT oid FROM pg_largeobject_metadata \
    WHERE pg_has_role(lomowner, 'USAGE') LIMIT 1000) AS o";

/// Empties the database if it has the marker, and marks it if it is empty.
///
/// # Errors
/// [`Error::OtherDatabase`] if the database has contents that no restore left there; [`Error::Database`].
pub(super) async fn begin(session: &mut PgConnection, database: &str) -> Result<(), Error> {
    if is_marked(session).await? {
        empty(session).await?;
    } else if count(session).await? == 0 {
        return mark(session).await;
    }
    match count(session).await? {
        0 => Ok(()),
        remaining => Err(Error::OtherDatabase(format!("{database} is not empty: it has {remaining} things that no restore left there"))),
    }
}

/// Creates the marker.
pub(super) async fn mark(session: &mut PgConnection) -> Result<(), Error> {
    postgres::execute(session, "mark the database", &format!("CREATE SCHEMA {}", ident(MARK))).await
}

/// Drops the marker, because the database is complete now.
pub(super) async fn end(session: &mut PgConnection) -> Result<(), Error> {
    postgres::execute(session, "take the mark of the restore away", &format!("DROP SCHEMA IF EXISTS {}", ident(MARK))).await
}

async fn is_marked(session: &mut PgConnection) -> Result<bool, Error> {
    let failed = |source| Error::Database { step: "look for the mark of a restore", source };
    let query = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1 AND pg_has_role(nspowner, 'USAGE'))");
    query.bind(MARK).fetch_one(session).await.map_err(failed)
}

async fn count(session: &mut PgConnection) -> Result<i64, Error> {
    let failed = |source| Error::Database { step: "see whether the database is empty", source };
    sqlx::query_scalar(COUNT).bind(MARK).bind(super::definition::EXTENSIONS).fetch_one(session).await.map_err(failed)
}

/// Removes what an earlier try left.
async fn empty(session: &mut PgConnection) -> Result<(), Error> {
    let failed = |source| Error::Database { step: "remove what an earlier try left", source };
    for query in [RELATIONS, SCHEMAS, STRAYS, OF_EXTENSIONS] {
        // Each is listed when those before it are gone, and given the same two names whether it needs them or not.
        let listed = format!("SELECT * FROM ({query}) AS listed(statement) WHERE $1::text <> $2::text");
        let query = sqlx::query_scalar::<_, String>(composed(listed)).bind(MARK).bind(super::definition::EXTENSIONS);
        for drop in query.fetch_all(&mut *session).await.map_err(failed)? {
            sqlx::raw_sql(composed(drop)).execute(&mut *session).await.map_err(failed)?;
        }
    }
    loop {
        let removed: i64 = sqlx::query_scalar(LARGE_OBJECTS).fetch_one(&mut *session).await.map_err(failed)?;
        if removed == 0 {
            return Ok(());
        }
    }
}
