//! Compares a copy with its source.
//!
//! Names, attributes, rows, large objects and sequences must be equal. The server may print an expression in another
//! way after a restore. If two texts differ, the copy's server decides: in a transaction that is rolled back, it parses
//! the *source's* text in the place of the copy's definition and prints it again. The result must equal the copy's text
//! to the letter. So a dropped constraint, one more value in a list, or a disabled trigger is found, and a regrouped
//! parenthesis is no difference.
//!
//! The comparison never runs the tenant's code: it adds constraints NOT VALID, creates views and never reads them, and
//! creates functions and never calls them.

use std::collections::BTreeMap;

use sqlx::PgConnection;

use super::{
    Error,
    clear::MARK,
    definition::{Definition, Kind},
    fingerprint::{Contents, Rows, Sum},
    postgres::{self, composed},
};
use crate::backup::manifest::{LeftOut, Remains};
use crate::error_chain::chain;

/// How many characters of a text an error shows.
const SHOWN: usize = 300;

/// Compares a copy with its source. `left_out` names definitions that could not be created although every row is there;
/// these count as no difference. Returns computed rows that differ, such as those of materialized views.
///
/// # Errors
/// [`Error::Differs`] with the first difference and its state in both; [`Error::Database`].
pub(super) async fn compare(
    session: &mut PgConnection,
    source: &Contents,
    copy: &Contents,
    sequences: bool,
    left_out: &[LeftOut],
) -> Result<Vec<LeftOut>, Error> {
    let mut notes = rows(source, copy)?;
    if sequences {
        let (a, b) = (by_name(&source.sequences, |s| &s.name), by_name(&copy.sequences, |s| &s.name));
        for (name, position) in &a {
            let show = |p: &super::fingerprint::Position| format!("at {}{}", p.last, if p.called { "" } else { ", never asked" });
            if b.get(name) != Some(position) {
                return Err(differs(format!("sequence {name}"), Some(show(position)), b.get(name).map(|p| show(p))));
            }
        }
    }
    definitions(session, source, copy, left_out).await?;
    notes.extend(views(source, copy));
    Ok(notes)
}

fn by_name<T>(all: &[T], name: impl Fn(&T) -> &String) -> BTreeMap<&str, &T> {
    all.iter().map(|one| (name(one).as_str(), one)).collect()
}

fn differs(what: String, source: Option<String>, copy: Option<String>) -> Error {
    let show = |text: Option<String>| text.map_or_else(|| "missing".to_owned(), |text| shorten(&text));
    Error::Differs { what, source_has: show(source), copy_has: show(copy) }
}

/// Shortens a text to one line of at most [`SHOWN`] characters.
pub(super) fn shorten(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= SHOWN { line } else { line.chars().take(SHOWN).chain("…".chars()).collect() }
}

fn rows(source: &Contents, copy: &Contents) -> Result<Vec<LeftOut>, Error> {
    let mut notes = Vec::new();
    let (a, b) = (by_name(&source.tables, |t| &t.name), by_name(&copy.tables, |t| &t.name));
    for (name, table) in &a {
        let there = b.get(name).copied();
        if there.map(|t| &t.rows) != Some(&table.rows) {
            return Err(differs(format!("rows of {name}"), Some(counted(table)), there.map(counted)));
        }
        if there.and_then(|t| t.generated.as_ref()) != table.generated.as_ref() {
            notes.push(LeftOut {
                what: format!("generated columns of {name}"),
                remains: Remains::Recomputed,
                why: "their expressions gave other values than the source has".into(),
            });
        }
    }
    if let Some((name, table)) = b.iter().find(|(name, _)| !a.contains_key(*name)) {
        return Err(differs(format!("table {name}"), None, Some(counted(table))));
    }
    if source.large_objects != copy.large_objects {
        let show = |sum: &Sum| format!("{} of them, checksum {:016x}", sum.count, sum.xor);
        return Err(differs("large objects".into(), Some(show(&source.large_objects)), Some(show(&copy.large_objects))));
    }
    Ok(notes)
}

fn counted(table: &Rows) -> String {
    format!("{} rows, checksum {:016x}", table.rows.count, table.rows.xor)
}

/// The materialized views whose rows differ: in the source, such a view had rows from an older refresh.
fn views(source: &Contents, copy: &Contents) -> Vec<LeftOut> {
    let b = by_name(&copy.views, |v| &v.name);
    let stale = |view: &&Rows| b.get(view.name.as_str()).is_some_and(|there| there.rows != view.rows);
    let note = |view: &Rows| LeftOut {
        what: format!("rows of materialized view {}", view.name),
        remains: Remains::Recomputed,
        why: format!("the source had {} from an older refresh", counted(view)),
    };
    source.views.iter().filter(stale).map(note).collect()
}

async fn definitions(session: &mut PgConnection, source: &Contents, copy: &Contents, left_out: &[LeftOut]) -> Result<(), Error> {
    let excused = Excused::new(source, left_out);
    let index = |all: &[Definition]| -> BTreeMap<(Kind, String), usize> {
        all.iter().enumerate().map(|(at, one)| ((one.kind, one.name.clone()), at)).collect()
    };
    let (a, b) = (index(&source.definitions), index(&copy.definitions));
    let path = source.search_path();
    for (key, at) in &a {
        let one = &source.definitions[*at];
        let Some(other) = b.get(key).map(|at| &copy.definitions[*at]) else {
            if excused.missing(one) {
                continue;
            }
            return Err(differs(one.title(), Some(shown(one)), None));
        };
        if one.attributes != other.attributes && !excused.not_valid(one, other) {
            return Err(differs(one.title(), Some(one.attributes.clone()), Some(other.attributes.clone())));
        }
        if one.text == other.text {
            continue;
        }
        let (Some(text), Some(printed)) = (&one.text, &other.text) else {
            return Err(differs(one.title(), Some(shown(one)), Some(shown(other))));
        };
        if !prints_as(session, &path, one, text, printed).await? {
            return Err(differs(one.title(), Some(text.clone()), Some(printed.clone())));
        }
    }
    // The plan may have added extensions since the backup.
    let more = b.iter().find(|(key, _)| !a.contains_key(*key) && key.0 != Kind::Extension);
    more.map_or(Ok(()), |(_, at)| {
        let other = &copy.definitions[*at];
        Err(differs(other.title(), None, Some(shown(other))))
    })
}

fn shown(one: &Definition) -> String {
    one.text
        .clone()
        .or_else(|| one.make.clone())
        .unwrap_or_else(|| if one.attributes.is_empty() { "there".into() } else { one.attributes.clone() })
}

/// The differences that are expected because of what was left out.
struct Excused<'l> {
    left_out: BTreeMap<&'l str, Remains>,
    /// Indexes of constraints that are missing, as `table index`.
    indexes: Vec<String>,
}

impl<'l> Excused<'l> {
    fn new(source: &Contents, left_out: &'l [LeftOut]) -> Self {
        let left_out: BTreeMap<_, _> = left_out.iter().map(|l| (l.what.as_str(), l.remains)).collect();
        let missing = |one: &&Definition| left_out.get(one.title().as_str()) == Some(&Remains::Missing);
        let indexes = source
            .definitions
            .iter()
            .filter(missing)
            .filter_map(|one| match one.kind {
                Kind::Constraint => {
                    let (schema, constraint) = (one.on.rsplit_once('.').map(|s| s.0), one.name.strip_prefix(&one.on)?.trim_start());
                    Some(schema.map_or_else(|| constraint.to_owned(), |schema| format!("{schema}.{constraint}")))
                }
                Kind::Index => Some(one.name.clone()),
                _ => None,
            })
            .collect();
        Self { left_out, indexes }
    }

    fn missing(&self, one: &Definition) -> bool {
        match one.kind {
            Kind::Index | Kind::IndexExpressions | Kind::IndexPredicate => self.indexes.contains(&one.name),
            Kind::Comment | Kind::Dependencies => {
                self.left_out.keys().any(|what| {
                    let name = what.rsplit(' ').next().unwrap_or_default();
                    one.name.contains("constraint") && !name.is_empty() && one.name.contains(&format!(" {name} on "))
                }) || self.indexes.iter().any(|index| one.name == format!("index {index}"))
            }
            _ => self.left_out.get(one.title().as_str()) == Some(&Remains::Missing),
        }
    }

    /// Whether the definitions differ only in being validated, which is the first of their attributes.
    fn not_valid(&self, one: &Definition, other: &Definition) -> bool {
        self.left_out.get(one.title().as_str()) == Some(&Remains::NotValid)
            && match (one.attributes.split_once(' '), other.attributes.split_once(' ')) {
                (Some((was, rest)), Some((is, same))) => was == "t" && is == "f" && rest == same,
                _ => one.attributes == "true" && other.attributes == "false",
            }
    }
}

/// Whether the server, given the source's text, prints the copy's. It tries `pg_catalog` as the search path and then
/// the tenant's, because some expressions are printed without the schema that they need.
async fn prints_as(session: &mut PgConnection, path: &str, one: &Definition, text: &str, printed: &str) -> Result<bool, Error> {
    let step = "let the server print a definition of the source";
    let mut refusal = None;
    for path in ["pg_catalog", path] {
        postgres::execute(session, step, &format!("BEGIN; SET LOCAL check_function_bodies = off; SET LOCAL search_path = {path}")).await?;
        let answer = print(session, one, text).await;
        postgres::execute(session, step, "ROLLBACK").await?;
        match answer {
            Ok(again) => {
                let same = match one.kind {
                    Kind::Check | Kind::Default | Kind::DomainDefault | Kind::Generated | Kind::IndexExpressions | Kind::IndexPredicate => {
                        again == format!("(ROW({printed}) IS NULL)")
                    }
                    _ => again == printed,
                };
                if same {
                    return Ok(true);
                }
            }
            Err(error) if error.as_database_error().is_some() => refusal = Some(error),
            Err(source) => return Err(Error::Database { step, source }),
        }
    }
    // If the server cannot parse the source's text, the definitions differ.
    if let Some(error) = refusal {
        tracing::warn!(what = one.title(), error = chain(&error), "the server does not read what the source printed");
    }
    Ok(false)
}

/// The name of objects that exist only within a transaction that is rolled back.
const PROBE: &str = "helpdesk_probe";

/// Lets the server parse the source's text in the place of the copy's definition, and print it. A scalar expression is
/// put into a check constraint of its relation.
async fn print(session: &mut PgConnection, one: &Definition, text: &str) -> Result<String, sqlx::Error> {
    let on = &one.on;
    match one.kind {
        Kind::Default | Kind::DomainDefault => {
            send(session, format!("CREATE TABLE {MARK}.{PROBE} ()")).await?;
            print_in_check(session, &format!("{MARK}.{PROBE}"), text).await
        }
        Kind::Check | Kind::Generated | Kind::IndexExpressions | Kind::IndexPredicate => {
            let view: bool = ask(session, "SELECT relkind = 'm' FROM pg_class WHERE oid = $1::regclass", on).await?;
            if !view {
                return print_in_check(session, on, text).await;
            }
            // A materialized view can have no constraint, but a table with its name and columns can.
            let name = on.rsplit_once('.').map_or(on.as_str(), |(_, name)| name);
            send(session, format!("CREATE TABLE {MARK}.{name} (LIKE {on})")).await?;
            print_in_check(session, &format!("{MARK}.{name}"), text).await
        }
        Kind::PartitionKey => {
            send(session, format!("CREATE TABLE {MARK}.{PROBE} (LIKE {on}) PARTITION BY {text}")).await?;
            ask(session, "SELECT pg_get_partkeydef($1::regclass)", &format!("{MARK}.{PROBE}")).await
        }
        Kind::DomainCheck => {
            send(session, format!("ALTER DOMAIN {on} ADD CONSTRAINT {PROBE} CHECK ({text}) NOT VALID")).await?;
            let query = "SELECT pg_get_expr(conbin, 0) FROM pg_constraint WHERE contypid = $1::regtype AND conname = 'helpdesk_probe'";
            ask(session, query, on).await
        }
        Kind::View => {
            send(session, format!("CREATE VIEW {on}.{PROBE} AS {text}")).await?;
            ask(session, "SELECT pg_get_viewdef($1::regclass)", &format!("{on}.{PROBE}")).await
        }
        Kind::Function => {
            send(session, text.to_owned()).await?;
            ask(session, "SELECT pg_get_functiondef($1::regprocedure)", &one.name).await
        }
        // The server simplifies these expressions before it stores them, but not those of a constraint.
        Kind::StatisticsExpressions => {
            let make = one.make.as_deref().unwrap_or_default();
            send(session, format!("DROP STATISTICS {}; {make}", one.name)).await?;
            let query = "SELECT pg_get_expr(stxexprs, stxrelid) FROM pg_statistic_ext x JOIN pg_namespace n ON n.oid = x.stxnamespace \
                 WHERE format('%I.%I', n.nspname, x.stxname) = $1";
            ask(session, query, &one.name).await
        }
        Kind::Trigger => {
            // Drops the copy's trigger first: a constraint trigger's name is also its constraint's, and must be unique.
            let drop = one.make.as_deref().unwrap_or_default();
            send(session, format!("{drop}; {text}")).await?;
            let query =
                "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = $1::regclass AND NOT tgisinternal ORDER BY oid DESC LIMIT 1";
            ask(session, query, on).await
        }
        Kind::Rule => {
            send(session, text.replacen("CREATE RULE", "CREATE OR REPLACE RULE", 1)).await?;
            let query = "SELECT pg_get_ruledef(oid) FROM pg_rewrite WHERE format('%s %I', ev_class::regclass, rulename) = $1";
            ask(session, query, &one.name).await
        }
        Kind::PolicyUsing => {
            send(session, format!("CREATE POLICY {PROBE} ON {on} USING ({text})")).await?;
            let query = "SELECT pg_get_expr(polqual, polrelid) FROM pg_policy WHERE polrelid = $1::regclass AND polname = 'helpdesk_probe'";
            ask(session, query, on).await
        }
        Kind::PolicyCheck => {
            send(session, format!("CREATE POLICY {PROBE} ON {on} WITH CHECK ({text})")).await?;
            let query =
                "SELECT pg_get_expr(polwithcheck, polrelid) FROM pg_policy WHERE polrelid = $1::regclass AND polname = 'helpdesk_probe'";
            ask(session, query, on).await
        }
        // The other kinds have no text.
        _ => Ok(text.to_owned()),
    }
}

async fn print_in_check(session: &mut PgConnection, relation: &str, text: &str) -> Result<String, sqlx::Error> {
    send(session, format!("ALTER TABLE {relation} ADD CONSTRAINT {PROBE} CHECK (ROW({text}) IS NULL) NOT VALID")).await?;
    let query = "SELECT pg_get_expr(conbin, conrelid) FROM pg_constraint WHERE conrelid = $1::regclass AND conname = 'helpdesk_probe'";
    ask(session, query, relation).await
}

async fn send(session: &mut PgConnection, sql: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(composed(sql)).execute(session).await.map(drop)
}

async fn ask<T>(session: &mut PgConnection, query: &'static str, about: &str) -> Result<T, sqlx::Error>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    // Names are printed with their schemas, as in both lists of definitions.
    send(session, "SET LOCAL search_path = pg_catalog".into()).await?;
    // Casts to text first, so that the name is resolved when the statement runs and not when it is parsed.
    sqlx::query_scalar(composed(query.replace("$1::", "$1::text::"))).bind(about).fetch_one(session).await
}
