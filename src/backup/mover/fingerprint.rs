//! The fingerprint of a database's contents: two databases with the same one hold the same.
//!
//! It does not depend on the order of rows, on dropped columns, or on who owns what, because a restore keeps none of
//! those. It reads through built-in functions alone: a cast, an operator or a function that the tenant made is never
//! called, so nothing runs with the rights of the role that may read everything.
//!
//! Materialized views are compared by definition and not by rows: a dump does not contain their rows, and a restore
//! computes them anew.

use futures::TryStreamExt as _;
use ring::digest::{Context, SHA256};
use sqlx::{PgConnection, Row as _};

use super::{
    Error,
    postgres::{composed, ident},
};
use crate::backup::manifest::Fingerprint;

/// What belongs to the tenant: neither the system nor an extension made it.
macro_rules! own {
    ($class:literal, $oid:literal, $namespace:literal) => {
        concat!(
            $namespace,
            " NOT IN (SELECT oid FROM pg_namespace WHERE nspname = 'information_schema' OR nspname LIKE 'pg\\_%') ",
            "AND NOT EXISTS (SELECT 1 FROM pg_depend e WHERE e.deptype = 'e' AND e.classid = '",
            $class,
            "'::regclass AND e.objid = ",
            $oid,
            ")"
        )
    };
}

/// Types that are hashed as they are, three times as fast as by their text: equal values of these look equal. All
/// others are hashed by their text: a number's scale, an enum's label and the order of keys count there.
const HASHED: [&str; 11] = ["bool", "int2", "int4", "int8", "text", "varchar", "bytea", "uuid", "date", "timestamp", "timestamptz"];

/// Tables that hold rows of their own, with their columns in the order of their names: those that are hashed as they
/// are, and those that are hashed by their text.
const TABLES: &str = concat!(
    "SELECT n.nspname::text AS schema, c.relname::text AS name, columns.hashed, columns.printed ",
    "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, LATERAL (SELECT ",
    "string_agg('t.' || quote_ident(a.attname) || CASE WHEN a.attcollation <> 0 THEN ' COLLATE \"C\"' ELSE '' END, ', ' ",
    "ORDER BY a.attname COLLATE \"C\") FILTER (WHERE y.oid IS NOT NULL) AS hashed, ",
    "string_agg('t.' || quote_ident(a.attname), ', ' ORDER BY a.attname COLLATE \"C\") FILTER (WHERE y.oid IS NULL) AS printed ",
    "FROM pg_attribute a LEFT JOIN pg_type y ON y.oid = a.atttypid AND y.typnamespace = 'pg_catalog'::regnamespace ",
    "AND y.typname = ANY ($1) WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns ",
    "WHERE c.relkind = 'r' AND c.relpersistence IN ('p', 'u') AND ",
    own!("pg_class", "c.oid", "c.relnamespace"),
    " ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\""
);

const SEQUENCES: &str = concat!(
    "SELECT n.nspname::text AS schema, c.relname::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace ",
    "WHERE c.relkind = 'S' AND c.relpersistence IN ('p', 'u') AND ",
    own!("pg_class", "c.oid", "c.relnamespace"),
    " ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\""
);

/// The definitions, each kind of thing one query of lines.
const DEFINITIONS: [&str; 11] = [
    concat!(
        "SELECT format('schema %I', n.nspname) AS line FROM pg_namespace n WHERE n.nspname <> 'public' AND ",
        own!("pg_namespace", "n.oid", "n.oid")
    ),
    "SELECT format('extension %I %s', extname, extversion) AS line FROM pg_extension",
    concat!(
        "SELECT format('relation %I.%I %s %s %s %s %s %s %s %s', n.nspname, c.relname, c.relkind, c.relpersistence, ",
        "c.reloptions::text, c.relrowsecurity, c.relforcerowsecurity, pg_get_partkeydef(c.oid), ",
        "pg_get_expr(c.relpartbound, c.oid), (SELECT string_agg(i.inhparent::regclass::text, ',' ORDER BY i.inhseqno) ",
        "FROM pg_inherits i WHERE i.inhrelid = c.oid)) AS line FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace ",
        "WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND c.relpersistence <> 't' AND ",
        own!("pg_class", "c.oid", "c.relnamespace")
    ),
    concat!(
        "SELECT format('column %I.%I.%I %s %s %s %s %s %s', n.nspname, c.relname, a.attname, format_type(a.atttypid, a.atttypmod), ",
        "a.attnotnull, pg_get_expr(d.adbin, d.adrelid), a.attidentity, a.attgenerated, NULLIF(a.attcollation, 0)::regcollation) AS line ",
        "FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace ",
        "LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum ",
        "WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND c.relpersistence <> 't' AND ",
        own!("pg_class", "c.oid", "c.relnamespace")
    ),
    // A column that must not be null has a constraint of its own from version 18 on; the columns say it already.
    concat!(
        "SELECT format('constraint %s %I %s', CASE WHEN k.conrelid <> 0 THEN k.conrelid::regclass::text ELSE k.contypid::regtype::text END, ",
        "k.conname, pg_get_constraintdef(k.oid)) AS line FROM pg_constraint k WHERE k.contype <> 'n' AND ",
        own!("pg_constraint", "k.oid", "k.connamespace")
    ),
    concat!(
        "SELECT format('index %s %s %s', pg_get_indexdef(i.indexrelid), i.indisclustered, i.indisreplident) AS line FROM pg_index i ",
        "JOIN pg_class c ON c.oid = i.indexrelid WHERE c.relpersistence <> 't' AND ",
        own!("pg_class", "i.indrelid", "c.relnamespace")
    ),
    concat!(
        "SELECT format('view %s %s', c.oid::regclass, pg_get_viewdef(c.oid)) AS line FROM pg_class c ",
        "WHERE c.relkind IN ('v', 'm') AND c.relpersistence <> 't' AND ",
        own!("pg_class", "c.oid", "c.relnamespace")
    ),
    concat!(
        "SELECT format('function %s %s', p.oid::regprocedure, CASE WHEN p.prokind = 'a' THEN p.prosrc ELSE pg_get_functiondef(p.oid) END) ",
        "AS line FROM pg_proc p WHERE ",
        own!("pg_proc", "p.oid", "p.pronamespace")
    ),
    concat!(
        "SELECT format('trigger %s %s %s', g.tgrelid::regclass, pg_get_triggerdef(g.oid), g.tgenabled) AS line FROM pg_trigger g ",
        "JOIN pg_class c ON c.oid = g.tgrelid WHERE NOT g.tgisinternal AND c.relpersistence <> 't' AND ",
        own!("pg_class", "c.oid", "c.relnamespace")
    ),
    concat!(
        "SELECT format('policy %s %I %s %s %s %s', p.polrelid::regclass, p.polname, p.polcmd, p.polpermissive, ",
        "pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid)) AS line FROM pg_policy p ",
        "JOIN pg_class c ON c.oid = p.polrelid WHERE ",
        own!("pg_class", "c.oid", "c.relnamespace")
    ),
    concat!(
        "SELECT format('type %s %s %s %s', t.oid::regtype, t.typtype, format_type(NULLIF(t.typbasetype, 0), t.typtypmod), ",
        "(SELECT string_agg(quote_literal(e.enumlabel), ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid)) AS line ",
        "FROM pg_type t WHERE t.typtype IN ('e', 'd', 'r') AND ",
        own!("pg_type", "t.oid", "t.typnamespace")
    ),
];

const LARGE_OBJECTS: &str = "SELECT count(*)::int8 FROM pg_largeobject_metadata";

fn failed(step: &'static str) -> impl Fn(sqlx::Error) -> Error {
    move |source| Error::Database { step, source }
}

/// A SHA-256 over lines.
struct Lines(Context);

impl Lines {
    fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// The length comes first, so that no two lists of lines look alike.
    fn add(&mut self, line: &str) {
        self.0.update(&(line.len() as u64).to_be_bytes());
        self.0.update(line.as_bytes());
    }

    fn finish(self) -> String {
        crate::hex(self.0.finish().as_ref())
    }
}

/// Where every sequence stands now: their number and a checksum.
pub(super) async fn sequences(connection: &mut PgConnection) -> Result<(u64, String), Error> {
    let step = "read the sequences";
    let names = sqlx::query(SEQUENCES).fetch_all(&mut *connection).await.map_err(failed(step))?;
    let mut lines = Lines::new();
    for row in &names {
        let (schema, name): (String, String) = (row.try_get("schema").map_err(failed(step))?, row.try_get("name").map_err(failed(step))?);
        let query = format!("SELECT last_value, is_called FROM {}.{}", ident(&schema), ident(&name));
        let state: (i64, bool) = sqlx::query_as(composed(query)).fetch_one(&mut *connection).await.map_err(failed(step))?;
        lines.add(&schema);
        lines.add(&name);
        lines.add(&format!("{} {}", state.0, state.1));
    }
    Ok((names.len() as u64, lines.finish()))
}

/// The fingerprint of what the session's transaction sees.
pub(super) async fn take(connection: &mut PgConnection) -> Result<Fingerprint, Error> {
    let definitions = definitions(connection).await?;
    let (sequences, sequence_state) = sequences(connection).await?;
    let step = "read the tables";
    let tables = sqlx::query(TABLES).bind(HASHED.as_slice()).fetch_all(&mut *connection).await.map_err(failed(step))?;
    let (mut lines, mut rows) = (Lines::new(), 0);
    for table in &tables {
        let get = |column| table.try_get::<Option<String>, _>(column).map_err(failed(step));
        let (schema, name) = (get("schema")?.unwrap_or_default(), get("name")?.unwrap_or_default());
        let printed = get("printed")?.map(|columns| format!("textin(record_out(ROW({columns}))) COLLATE \"C\""));
        let row = [get("hashed")?, printed].into_iter().flatten().collect::<Vec<_>>().join(", ");
        let query = format!(
            "SELECT count(*)::int8, coalesce(sum(h), 0)::text, coalesce(bit_xor(h), 0)::int8 FROM (SELECT \
             hash_record_extended(ROW({row}), 0) AS h FROM ONLY {}.{} AS t) AS hashed",
            ident(&schema),
            ident(&name)
        );
        let (count, sum, xor): (i64, String, i64) =
            sqlx::query_as(composed(query)).fetch_one(&mut *connection).await.map_err(failed(step))?;
        lines.add(&schema);
        lines.add(&name);
        lines.add(&format!("{count} {sum} {xor}"));
        tracing::debug!(schema, name, count, sum, xor, "table fingerprinted");
        rows += u64::try_from(count).unwrap_or(0);
    }
    let large: i64 = sqlx::query_scalar(LARGE_OBJECTS).fetch_one(&mut *connection).await.map_err(failed("count large objects"))?;
    lines.add(&format!("large objects {large}"));
    Ok(Fingerprint {
        relations: tables.len() as u64,
        rows,
        sequences,
        contents: lines.finish(),
        definitions,
        sequence_state: Some(sequence_state),
    })
}

async fn definitions(connection: &mut PgConnection) -> Result<String, Error> {
    let step = "read the definitions";
    let mut lines = Lines::new();
    for query in DEFINITIONS {
        let sorted = format!("SELECT line FROM ({query}) AS lines ORDER BY line COLLATE \"C\"");
        let mut rows = sqlx::query(composed(sorted)).fetch(&mut *connection);
        while let Some(row) = rows.try_next().await.map_err(failed(step))? {
            let line: String = row.try_get("line").map_err(failed(step))?;
            tracing::trace!(line, "definition");
            lines.add(&line);
        }
    }
    Ok(lines.finish())
}
