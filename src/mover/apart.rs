//! Dumps and restores tables with a row that `COPY` cannot write as text, apart from the dump.
//!
//! `COPY` writes a row as one text of at most 1 GiB, and `bytea` takes two characters for each byte: one value of 600
//! MB makes `pg_dump` fail. In binary, `COPY` can write a row of nearly 1 GiB. Such tables are found before the dump by
//! the sizes of their values, which the server knows without reading the values; or by the error of a failed `pg_dump`.
//! Their rows are copied in binary, in the same snapshot, each table into its own object. The dump excludes only rows.

use futures::StreamExt as _;
use sqlx::{PgConnection, Row as _};

use super::{
    Error,
    config::Mover,
    definition::own,
    postgres::{composed, failed, ident},
    progress::Progress,
    stream::{self, Until},
    transfer::{Encrypted, download, object, upload},
};
use crate::backup::manifest::{Apart, Manifest};

/// The longest text of a row that `pg_dump` dumps, in bytes. Half of what can be written, because a row is held twice.
const LONGEST_TEXT: i64 = 512 << 20;
/// The longest row that can be written in binary, in bytes (`MaxAllocSize` of the server).
const LONGEST_ROW: i64 = (1 << 30) - 1;
/// A table with a smaller TOAST table has no such row: values are compressed by a factor of a few hundred at most.
const LEAST_ON_DISK: i64 = 1 << 20;

/// Tables that may have such rows; with SQL expressions for the size of a row as text and in binary, and with the
/// columns that may hold long values.
const SUSPECTS: &str = concat!(
    "SELECT format('%I.%I', n.nspname, c.relname) AS name, ",
    "string_agg(format('coalesce(octet_length(%I), 0)::int8 * %s', a.attname, CASE a.atttypid WHEN 'bytea'::regtype THEN 2 ELSE 1 END), ' + ') AS text, ",
    "string_agg(format('coalesce(octet_length(%I), 0)::int8', a.attname), ' + ') AS bytes, ",
    "string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) AS columns ",
    "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid ",
    "WHERE c.relkind = 'r' AND c.relpersistence IN ('p', 'u') AND c.reltoastrelid <> 0 AND pg_relation_size(c.reltoastrelid) >= $1 ",
    "AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated <> 'v' ",
    "AND a.atttypid IN ('bytea'::regtype, 'text'::regtype, 'varchar'::regtype) AND ",
    own!("pg_class", "c.oid", "c.relnamespace"),
    " GROUP BY 1 ORDER BY 1"
);

/// The columns to copy.
const COLUMNS: &str = "SELECT coalesce(string_agg(quote_ident(attname), ', ' ORDER BY attnum), '') FROM pg_attribute \
    WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''";

/// Finds the tables that have a row which `pg_dump` cannot write.
///
/// # Errors
/// [`Error::TooLong`] for a row that is too long even in binary.
pub(super) async fn find(session: &mut PgConnection) -> Result<Vec<String>, Error> {
    let step = "look for rows that are too long";
    let suspects = sqlx::query(SUSPECTS).bind(LEAST_ON_DISK).fetch_all(&mut *session).await.map_err(failed(step))?;
    let mut found = Vec::new();
    for row in suspects {
        let get = |column| row.try_get::<String, _>(column).map_err(failed(step));
        let (name, text, bytes, columns) = (get("name")?, get("text")?, get("bytes")?, get("columns")?);
        let query = composed(format!("SELECT coalesce(max({text}), 0), coalesce(max({bytes}), 0) FROM ONLY {name}"));
        let (longest, largest): (i64, i64) = sqlx::query_as(query).fetch_one(&mut *session).await.map_err(failed(step))?;
        if largest > LONGEST_ROW {
            return Err(Error::TooLong { name, columns, bytes: largest });
        }
        if longest > LONGEST_TEXT {
            tracing::warn!(table = name, longest, "a row is too long for COPY's text: the table is dumped apart, in binary");
            found.push(name);
        }
    }
    Ok(found)
}

/// The table with the row that was too long for `pg_dump`, found in its error.
pub(super) async fn blamed(session: &mut PgConnection, said: &str) -> Result<Option<String>, Error> {
    if !said.contains("invalid memory alloc request size") && !said.contains("out of memory") && !said.contains("string buffer") {
        return Ok(None);
    }
    let query = concat!(
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND ",
        own!("pg_class", "c.oid", "c.relnamespace")
    );
    let tables: Vec<String> = sqlx::query_scalar(query).fetch_all(session).await.map_err(failed("find the table that pg_dump names"))?;
    Ok(tables.into_iter().find(|table| said.contains(&format!("COPY {table} ("))))
}

/// The option that leaves a table's rows out of a dump. Quoted, a pattern means itself.
pub(super) fn exclude(table: &str) -> String {
    let (schema, name) = split(table);
    format!("--exclude-table-data={}.{}", ident(&schema), ident(&name))
}

/// Both parts of a name that `format('%I.%I')` wrote.
fn split(table: &str) -> (String, String) {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    let mut letters = table.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                parts.last_mut().map(|part| part.push('"')).unwrap_or_default();
            }
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            _ => parts.last_mut().map(|part| part.push(letter)).unwrap_or_default(),
        }
    }
    let name = parts.pop().unwrap_or_default();
    (parts.pop().unwrap_or_default(), name)
}

/// Copies a table's rows into an object. The session must use the snapshot of the dump.
pub(super) async fn dump(
    mover: &Mover,
    session: &mut PgConnection,
    table: &str,
    progress: &std::sync::Arc<Progress>,
) -> Result<Apart, Error> {
    let table_failed = |source| Error::Table { name: table.to_owned(), source };
    let columns: String = sqlx::query_scalar(COLUMNS).bind(table).fetch_one(&mut *session).await.map_err(table_failed)?;
    let name = mover.free_name("rows.zst.age").await?;
    let mut rows = session.copy_out_raw(&format!("COPY {table} ({columns}) TO STDOUT (FORMAT binary)")).await.map_err(table_failed)?;
    let (sender, chunks) = stream::channel();
    let read = async {
        while let Some(some) = rows.next().await {
            if sender.send(some.map_err(table_failed)?).await.is_err() {
                break;
            }
        }
        drop(sender);
        Ok(())
    };
    let sealed = upload(mover, &name, stream::reader(chunks), progress, read);
    let Encrypted { stored, plain, sha256 } = progress.during("copy a table apart", sealed).await?;
    Ok(Apart { table: table.to_owned(), columns, object: object(name, sha256, stored), plain })
}

/// Restores the rows of all these tables.
pub(super) async fn restore(
    mover: &Mover,
    manifest: &Manifest,
    session: &mut PgConnection,
    progress: &std::sync::Arc<Progress>,
) -> Result<(), Error> {
    for Apart { table, columns, object, plain } in &manifest.apart {
        let table_failed = |source| Error::Table { name: table.clone(), source };
        let mut rows = session.copy_in_raw(&format!("COPY {table} ({columns}) FROM STDIN (FORMAT binary)")).await.map_err(table_failed)?;
        let (writer, mut chunks) = stream::writer(progress);
        let fed = download(mover, object, writer, progress, Until::End);
        let sent = async {
            while let Some(chunk) = chunks.recv().await {
                rows.send(chunk).await.map_err(table_failed)?;
            }
            Ok::<_, Error>(rows)
        };
        let (arrived, rows) = tokio::join!(fed, sent);
        let rows = rows?;
        if arrived? != *plain {
            rows.abort("what was read back is not what was dumped").await.ok();
            return Err(Error::Unequal(format!("the rows of {table} decrypt to something else than was dumped")));
        }
        rows.finish().await.map_err(table_failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_as_the_server_quotes_it_is_a_pattern_that_means_itself() {
        assert_eq!(exclude("app.files"), "--exclude-table-data=\"app\".\"files\"");
        assert_eq!(exclude("app.\"a.b\"\"c\""), "--exclude-table-data=\"app\".\"a.b\"\"c\"");
    }
}
