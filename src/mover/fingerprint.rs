//! The fingerprint of a database: definitions, a checksum of every table, positions of sequences.
//!
//! The fingerprint does not depend on the order of rows, on dropped columns or on owners, because a restore keeps none
//! of those. Rows are read with built-in functions only. The mover never calls a cast, an operator or a function that
//! the tenant created, because it would run with the rights of the role that may read everything. Row security hides no
//! row: the login of a dump bypasses it, and in a copy it is disabled while a table is read.
//!
//! The fingerprint covers every row of every table, the contents of every large object, and the position of every
//! sequence. Data that can be computed again is kept separately: the rows of materialized views, and the values of
//! generated columns.

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, Row as _};

use super::{
    Error, catalog,
    definition::{Definition, Kind, own},
    postgres::{self, composed, failed, ident},
};
use crate::{backup::manifest::Fingerprint, database::MoverLogin};

/// Everything that is compared between a source and its copy. The manifest is not encrypted and has only checksums of
/// it, because it has names that the tenant chose. The whole is stored encrypted beside the dump.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Contents {
    /// Every definition, in the order of kinds and names.
    pub definitions: Vec<Definition>,
    /// The rows of every table that holds rows of its own.
    pub tables: Vec<Rows>,
    /// The rows of every materialized view that is populated.
    pub views: Vec<Rows>,
    /// The position of every sequence.
    pub sequences: Vec<Position>,
    /// The number of large objects, and a checksum of their contents.
    pub large_objects: Sum,
}

/// The rows of one relation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    /// The relation, as it is written in SQL.
    #[serde(rename = "n")]
    pub name: String,
    /// Its rows without the values of generated columns.
    #[serde(rename = "r")]
    pub rows: Sum,
    /// Its rows with the values of generated columns, if there are such columns.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<Sum>,
}

/// A number of rows or objects, and a checksum that does not depend on their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sum {
    /// The number.
    #[serde(rename = "c")]
    pub count: i64,
    /// The sum of their hashes.
    #[serde(rename = "s")]
    pub sum: String,
    /// The XOR of their hashes.
    #[serde(rename = "x")]
    pub xor: i64,
}

/// The position of a sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Position {
    /// The sequence, as it is written in SQL.
    #[serde(rename = "n")]
    pub name: String,
    /// Its `last_value`.
    #[serde(rename = "v")]
    pub last: i64,
    /// Whether that value was returned (`is_called`).
    #[serde(rename = "c")]
    pub called: bool,
}

/// Types whose values are hashed directly, three times as fast as their text, because equal values of them print the
/// same. Other types are hashed by their text, so that a number's scale, an enum's label and the order of keys count.
const HASHED: [&str; 11] = ["bool", "int2", "int4", "int8", "text", "varchar", "bytea", "uuid", "date", "timestamp", "timestamptz"];

/// Relations with rows, with their columns in the order of their names: the columns that are hashed directly, and those
/// that are hashed by their text; and the same for generated columns. Of an extension's configuration tables, only rows
/// that meet its condition count. Virtual columns are left out: they store nothing, and reading one would compute it.
const RELATIONS: &str = concat!(
    "SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relkind = 'm' AS view, c.relforcerowsecurity AS forced, x.condition, ",
    "columns.hashed, columns.printed, columns.hashed_generated, columns.printed_generated ",
    "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN (SELECT k.id, e.extcondition[k.at] AS condition ",
    "FROM pg_extension e, unnest(e.extconfig) WITH ORDINALITY k(id, at)) AS x ON x.id = c.oid, LATERAL (SELECT ",
    "string_agg(a.plain, ', ' ORDER BY a.attname COLLATE \"C\") FILTER (WHERE a.hashed AND a.attgenerated = '') AS hashed, ",
    "string_agg(a.name, ', ' ORDER BY a.attname COLLATE \"C\") FILTER (WHERE NOT a.hashed AND a.attgenerated = '') AS printed, ",
    "string_agg(a.plain, ', ' ORDER BY a.attname COLLATE \"C\") FILTER (WHERE a.hashed AND a.attgenerated = 's') AS hashed_generated, ",
    "string_agg(a.name, ', ' ORDER BY a.attname COLLATE \"C\") FILTER (WHERE NOT a.hashed AND a.attgenerated = 's') AS printed_generated ",
    "FROM (SELECT a.attname, a.attgenerated, y.oid IS NOT NULL AS hashed, 't.' || quote_ident(a.attname) AS name, ",
    "'t.' || quote_ident(a.attname) || CASE WHEN a.attcollation <> 0 THEN ' COLLATE \"C\"' ELSE '' END AS plain ",
    "FROM pg_attribute a LEFT JOIN pg_type y ON y.oid = a.atttypid AND y.typnamespace = 'pg_catalog'::regnamespace ",
    "AND y.typname = ANY ($1) WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS a) AS columns ",
    "WHERE (c.relkind = 'r' AND c.relpersistence IN ('p', 'u') OR c.relkind = 'm' AND c.relispopulated) AND (x.id IS NOT NULL OR ",
    own!("pg_class", "c.oid", "c.relnamespace"),
    ") ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\""
);

const SEQUENCES: &str = concat!(
    "SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace ",
    "WHERE c.relkind = 'S' AND c.relpersistence IN ('p', 'u') AND ",
    own!("pg_class", "c.oid", "c.relnamespace"),
    " ORDER BY n.nspname COLLATE \"C\", c.relname COLLATE \"C\""
);

/// How much of a large object is read at once, in bytes; both queries have this number.
const PIECE: i64 = 16_777_216;

/// The first piece of every large object.
const LARGE_OBJECTS: &str = "SELECT count(*)::int8, coalesce(sum(h), 0)::text, coalesce(bit_xor(h), 0)::int8, \
    coalesce(array_agg(id) FILTER (WHERE size = 16777216), '{}') FROM (SELECT o.id, octet_length(o.piece) AS size, \
    hash_record_extended(ROW(o.id, o.piece), 0) AS h \
    FROM (SELECT oid::int8 AS id, lo_get(oid, 0, 16777216) AS piece FROM pg_largeobject_metadata) AS o) AS hashed";

/// A later piece of one large object.
const LATER_PIECE: &str = "SELECT octet_length(o.piece)::int8, hash_record_extended(ROW(o.piece), 0) \
    FROM (SELECT lo_get($1::int8::oid, $2::int8, 16777216) AS piece) AS o";

/// How many tables are read in one transaction. Each table and its indexes stay locked until the end of the
/// transaction, and a server has room for a few thousand locks.
const TABLES_AT_ONCE: usize = 100;

/// The database that is read.
#[derive(Clone, Copy)]
pub(super) enum Origin<'a> {
    /// A source that is in use: every session imports this snapshot.
    Snapshot(&'a MoverLogin, &'a str),
    /// A copy that the session's role owns and that has no other sessions.
    Copy,
}

/// A SHA-256 over lines.
struct Lines(Context);

impl Lines {
    fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    /// Adds the length before the line, so that different lists of lines have different checksums.
    fn add(&mut self, line: &str) {
        self.0.update(&(line.len() as u64).to_be_bytes());
        self.0.update(line.as_bytes());
    }

    fn sum(&mut self, name: &str, sum: &Sum) {
        self.add(name);
        self.add(&format!("{} {} {}", sum.count, sum.sum, sum.xor));
    }

    fn finish(self) -> String {
        crate::digest::hex(self.0.finish().as_ref())
    }
}

impl Contents {
    /// The tenant's search path as SQL: `app`, the tenant's other schemas, and the schema of the extensions.
    pub(super) fn search_path(&self) -> String {
        let mut schemas: Vec<&str> = self.definitions.iter().filter(|d| d.kind == Kind::Schema).map(|d| d.name.as_str()).collect();
        schemas.sort_by_key(|name| (*name != "app", *name));
        schemas.push("public");
        let extensions = ident(super::definition::EXTENSIONS);
        schemas.push(&extensions);
        schemas.join(", ")
    }

    /// The numbers and checksums for the manifest.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        let mut rows = Lines::new();
        for table in &self.tables {
            rows.sum(&table.name, &table.rows);
        }
        rows.sum("large objects", &self.large_objects);
        let mut definitions = Lines::new();
        for found in &self.definitions {
            definitions.add(&found.title());
            definitions.add(&found.attributes);
            definitions.add(found.text.as_deref().unwrap_or_default());
        }
        let mut positions = Lines::new();
        for found in &self.sequences {
            positions.add(&found.name);
            positions.add(&format!("{} {}", found.last, found.called));
        }
        Fingerprint {
            relations: self.tables.len() as u64,
            rows: self.tables.iter().map(|t| u64::try_from(t.rows.count).unwrap_or(0)).sum(),
            sequences: self.sequences.len() as u64,
            large_objects: u64::try_from(self.large_objects.count).unwrap_or(0),
            contents: rows.finish(),
            definitions: definitions.finish(),
            sequence_state: Some(positions.finish()),
        }
    }
}

/// Reads the present position of every sequence. A snapshot does not cover sequences.
pub(super) async fn sequences(connection: &mut PgConnection) -> Result<Vec<Position>, Error> {
    let failed = failed("read the sequences");
    let names: Vec<String> = sqlx::query_scalar(SEQUENCES).fetch_all(&mut *connection).await.map_err(&failed)?;
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        let query = composed(format!("SELECT last_value, is_called FROM {name}"));
        let (last, called) = sqlx::query_as(query).fetch_one(&mut *connection).await.map_err(&failed)?;
        found.push(Position { name, last, called });
    }
    Ok(found)
}

/// Reads everything. With [`Origin::Snapshot`], `connection` must use the snapshot already, and sequences are left out.
///
/// # Errors
/// [`Error::Database`].
pub(super) async fn take(connection: &mut PgConnection, origin: Origin<'_>) -> Result<Contents, Error> {
    let definitions = catalog::read(connection).await?;
    let relations = relations(connection).await?;
    let (mut tables, mut views) = (Vec::new(), Vec::new());
    let mut keep = |relation: &Relation, rows| if relation.view { views.push(rows) } else { tables.push(rows) };
    let sequences = match origin {
        Origin::Snapshot(login, name) => {
            let mut session = postgres::connect(login).await?;
            for some in relations.chunks(TABLES_AT_ONCE) {
                postgres::look_at(&mut session, name).await?;
                for relation in some {
                    let rows = relation.read(&mut session).await?;
                    keep(relation, rows);
                }
                postgres::execute(&mut session, "end the look at the snapshot", "COMMIT").await?;
            }
            Vec::new()
        }
        Origin::Copy => {
            for relation in &relations {
                let rows = relation.read_above_row_security(connection).await?;
                keep(relation, rows);
            }
            super::fingerprint::sequences(connection).await?
        }
    };
    let large_objects = large_objects(connection).await?;
    Ok(Contents { definitions, tables, views, sequences, large_objects })
}

/// A relation with rows.
struct Relation {
    name: String,
    view: bool,
    forced: bool,
    condition: String,
    row: String,
    generated: Option<String>,
}

async fn relations(connection: &mut PgConnection) -> Result<Vec<Relation>, Error> {
    let failed = failed("list the tables");
    let found = sqlx::query(RELATIONS).bind(HASHED.as_slice()).fetch_all(connection).await.map_err(&failed)?;
    let relation = |row: &sqlx::postgres::PgRow| -> Result<Relation, sqlx::Error> {
        let get = |column| row.try_get::<Option<String>, _>(column);
        let printed = |columns: Option<String>| columns.map(|columns| format!("textin(record_out(ROW({columns}))) COLLATE \"C\""));
        let columns: Vec<_> = [get("hashed")?, printed(get("printed")?)].into_iter().flatten().collect();
        let more: Vec<_> = [get("hashed_generated")?, printed(get("printed_generated")?)].into_iter().flatten().collect();
        Ok(Relation {
            name: row.try_get("name")?,
            view: row.try_get("view")?,
            forced: row.try_get("forced")?,
            condition: get("condition")?.unwrap_or_default(),
            generated: (!more.is_empty()).then(|| [columns.as_slice(), more.as_slice()].concat().join(", ")),
            row: columns.join(", "),
        })
    };
    found.iter().map(relation).collect::<Result<_, _>>().map_err(&failed)
}

impl Relation {
    async fn read(&self, connection: &mut PgConnection) -> Result<Rows, Error> {
        let Self { name, row, condition, .. } = self;
        let whole = self.generated.as_ref().map_or_else(|| "0::int8".to_owned(), |all| format!("hash_record_extended(ROW({all}), 0)"));
        let query = format!(
            "SELECT count(*)::int8, coalesce(sum(h), 0)::text, coalesce(bit_xor(h), 0)::int8, coalesce(sum(g), 0)::text, \
             coalesce(bit_xor(g), 0)::int8 FROM (SELECT hash_record_extended(ROW({row}), 0) AS h, {whole} AS g \
             FROM ONLY {name} AS t {condition}) AS hashed"
        );
        let (count, sum, xor, all, all_xor): (i64, String, i64, String, i64) =
            sqlx::query_as(composed(query)).fetch_one(connection).await.map_err(|source| Error::Table { name: name.clone(), source })?;
        tracing::debug!(name, count, sum, xor, "read a table");
        let generated = self.generated.is_some().then_some(Sum { count, sum: all, xor: all_xor });
        Ok(Rows { name: name.clone(), rows: Sum { count, sum, xor }, generated })
    }

    /// Reads every row of a table that the session's role owns. `FORCE ROW LEVEL SECURITY` applies policies to the
    /// owner too, so it is disabled in a transaction that is rolled back. No policy is evaluated.
    async fn read_above_row_security(&self, connection: &mut PgConnection) -> Result<Rows, Error> {
        if !self.forced {
            return self.read(connection).await;
        }
        let step = "lift row security for a look";
        postgres::execute(connection, step, &format!("BEGIN; ALTER TABLE ONLY {} NO FORCE ROW LEVEL SECURITY", self.name)).await?;
        let rows = self.read(connection).await;
        postgres::execute(connection, step, "ROLLBACK").await?;
        rows
    }
}

async fn large_objects(connection: &mut PgConnection) -> Result<Sum, Error> {
    let failed = failed("read the large objects");
    let (count, sum, xor, longer): (i64, String, i64, Vec<i64>) =
        sqlx::query_as(LARGE_OBJECTS).fetch_one(&mut *connection).await.map_err(&failed)?;
    // Later pieces are added with their positions, so that truncated or swapped pieces change the checksum.
    let (mut rest, mut lines) = (xor, Lines::new());
    for id in longer {
        let mut at = PIECE;
        loop {
            let (size, hash): (i64, i64) =
                sqlx::query_as(LATER_PIECE).bind(id).bind(at).fetch_one(&mut *connection).await.map_err(&failed)?;
            if size == 0 {
                break;
            }
            lines.add(&format!("{id} {at} {hash}"));
            rest ^= hash;
            at += size;
        }
    }
    let later = lines.finish();
    Ok(Sum { count, sum: format!("{sum} {later}"), xor: rest })
}
