//! The databases of the corpus, for all tests that back up, restore or compare them.

use helpdesk_operator::{
    api::plan::{Extension, Schemas},
    backup::manifest::{Remains, Way},
    database::TenantLimits,
};
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};

/// A database of the corpus: what it needs, how it is restored, and which of its objects cannot be created again.
#[derive(Clone)]
pub struct Case {
    pub name: &'static str,
    pub sql: String,
    pub extensions: &'static [&'static str],
    pub schemas: Schemas,
    pub way: Way,
    /// The way on one major version whose server cannot restore it the other way.
    pub way_on: Option<(u32, Way)>,
    pub left_out: &'static [(&'static str, Remains)],
    /// The first major version of PostgreSQL that knows its SQL.
    pub since: u32,
}

impl Case {
    /// A database that is restored the plain way, with nothing left out.
    pub fn new(name: &'static str, sql: &str) -> Self {
        Self {
            name,
            sql: sql.to_owned(),
            extensions: &[],
            schemas: Schemas::Fixed,
            way: Way::Plain,
            way_on: None,
            left_out: &[],
            since: 16,
        }
    }

    /// How it is restored on a server of this major version.
    pub fn way(&self, major: u32) -> Way {
        self.way_on.filter(|on| on.0 == major).map_or(self.way, |on| on.1)
    }

    /// The limits under the plan of such a tenant.
    pub fn limits(&self) -> TenantLimits {
        let extensions = self.extensions.iter().map(|name| Extension { name: (*name).to_owned(), version: None }).collect();
        TenantLimits { connection_limit: 20, extensions, schemas: self.schemas }
    }
}

macro_rules! case {
    ($name:literal, $file:literal $(, $field:ident: $value:expr)*) => {
        Case { $($field: $value,)* ..Case::new($name, include_str!($file)) }
    };
}

/// Every case. Those with the schemas of real applications are there if `HELPDESK_TEST_SCHEMAS` names their folder.
pub fn all() -> Vec<Case> {
    let mut cases = vec![
        case!("printed", "printed_otherwise.sql"),
        case!("paths", "owners_search_path.sql", way: Way::Sections),
        case!("security", "row_security.sql"),
        case!("types", "types.sql"),
        case!("tables", "tables.sql"),
        case!("views", "views.sql", left_out: &[
            ("materialized view app.share", Remains::Empty),
            ("rows of materialized view app.stale", Remains::Recomputed),
        ]),
        case!("broken", "broken_rows.sql", way: Way::Sections, left_out: &[
            ("constraint app.checked is_good", Remains::NotValid),
            ("constraint of domain app.level ok", Remains::NotValid),
            ("constraint app.children children_parent_fkey", Remains::NotValid),
            ("index app.doubled_key", Remains::Missing),
            ("index app.inverted_n", Remains::Missing),
            ("generated columns of app.bills", Remains::Recomputed),
        ]),
        case!("search", "text_search.sql"),
        case!("names", "names_and_comments.sql"),
        case!("large", "large_objects.sql"),
        // The server does not validate the check of a domain that is inside a composite type of some column.
        case!("extensions", "extensions.sql", way: Way::Sections, extensions: &["pg_trgm", "citext", "hstore", "btree_gist", "pgcrypto"],
            left_out: &[("constraint of domain app.address address_check", Remains::NotValid)]),
        case!("unseen", "printed_without_schema.sql", way: Way::SectionsWithPath, extensions: &["citext", "hstore"]),
        case!("other", "another_operator.sql", way: Way::SectionsWithPath, extensions: &["citext"]),
        case!("own", "own_schemas.sql", schemas: Schemas::Own),
        case!("kinds", "kinds.sql"),
        case!("since17", "since_17.sql", since: 17),
        case!("excluded", "partitioned_exclusion.sql", way_on: Some((18, Way::Sections)), since: 17),
        case!("since18", "since_18.sql", since: 18),
    ];
    let Ok(folder) = std::env::var("HELPDESK_TEST_SCHEMAS") else {
        println!("skipped: the schemas of real applications, because HELPDESK_TEST_SCHEMAS does not name their folder");
        return cases;
    };
    for (name, rows) in [
        ("request-tracker", include_str!("rows/request-tracker.sql")),
        ("roundcube", include_str!("rows/roundcube.sql")),
        ("zabbix", include_str!("rows/zabbix.sql")),
        ("davical", include_str!("rows/davical.sql")),
    ] {
        let path = format!("{folder}/{name}.sql");
        let schema = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        cases.push(Case::new(name, &format!("{schema}\n{rows}")));
    }
    cases
}

/// What a tenant sees of its own rows, in its own words: nothing of the comparison that is tested is used for it. Rows
/// that are too large to be put into one text are left to that comparison.
pub async fn seen_by_tenant(session: &mut PgConnection) -> Vec<(String, i64, String)> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind = 'r' AND NOT c.relforcerowsecurity AND pg_catalog.pg_has_role(c.relowner, 'USAGE') \
         AND n.nspname !~ '^pg_|^information_schema$|^ext$' \
         AND coalesce(pg_catalog.pg_relation_size(NULLIF(c.reltoastrelid, 0)), 0) < 2097152 ORDER BY 1",
    )
    .fetch_all(&mut *session)
    .await
    .unwrap();
    let mut seen = Vec::new();
    let path: String = sqlx::query_scalar("SELECT pg_catalog.current_setting('search_path')").fetch_one(&mut *session).await.unwrap();
    session.execute("SET search_path = pg_catalog").await.unwrap();
    for table in tables {
        let query = format!(
            "SELECT count(*), coalesce(md5(string_agg(r, E'\\n' ORDER BY r)), '') FROM (SELECT md5(to_jsonb(whole_row)::text) COLLATE \"C\" AS r FROM ONLY {table} whole_row) s"
        );
        let (count, sum): (i64, String) = sqlx::query_as(AssertSqlSafe(query)).fetch_one(&mut *session).await.unwrap();
        seen.push((table, count, sum));
    }
    session.execute(AssertSqlSafe(format!("SET search_path = {path}"))).await.unwrap();
    seen
}

/// The first difference between what a tenant saw before and what it sees now. Values that are computed anew are none.
pub fn difference(case: &Case, before: &[(String, i64, String)], after: &[(String, i64, String)]) -> Option<String> {
    let computed_anew = |name: &str| case.left_out.iter().any(|l| l.0 == format!("generated columns of {name}"));
    if before.len() != after.len() {
        return Some(format!("what its tenant sees: {} tables before, {} after", before.len(), after.len()));
    }
    let changed = before.iter().zip(after).find(|(a, b)| if computed_anew(&a.0) { (&a.0, a.1) != (&b.0, b.1) } else { a != b });
    changed.map(|(a, b)| format!("what its tenant sees: {a:?} before, {b:?} after"))
}
