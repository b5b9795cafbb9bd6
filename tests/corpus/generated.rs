//! Random databases with objects of every kind, and the mutations of a copy that the comparison must find.

use std::fmt::Write as _;

use proptest::prelude::*;

/// One thing of a database: a kind of [`KINDS`], and numbers that shape it.
#[derive(Clone, Debug)]
pub struct Thing {
    pub kind: usize,
    pub numbers: [u32; 6],
    pub condition: Condition,
}

/// A condition over the columns `n int`, `s varchar(10)`, `c char(3)`, `at date` and `tags varchar(9)[]`.
#[derive(Clone, Debug)]
pub enum Condition {
    InStrings(u8),
    InChars(u8),
    InNumbers(i8, i8),
    Between(i8, u8),
    NotBetween(i8, u8),
    Compare(u8, i8),
    Like(u8),
    Null(bool),
    Case(Box<Condition>, Box<Condition>),
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Not(Box<Condition>),
    Tags(u8),
    Date(u16),
    Distinct(i8),
}

impl Condition {
    /// As SQL, with every column after `prefix`.
    pub fn sql(&self, prefix: &str) -> String {
        let p = prefix;
        let join = |all: &[Self], word: &str| {
            let parts: Vec<_> = all.iter().map(|one| one.sql(p)).collect();
            format!("({})", parts.join(word))
        };
        match self {
            Self::InStrings(n) => format!("{p}s IN ({})", list(*n, |i| format!("'w{i}'"))),
            Self::InChars(n) => format!("{p}c NOT IN ({})", list(*n, |i| format!("'z{i}'"))),
            Self::InNumbers(a, b) => format!("{p}n NOT IN ({a}, {b}, - 7)"),
            Self::Between(a, b) => format!("{p}n BETWEEN {a} AND {}", i32::from(*a) + i32::from(*b)),
            Self::NotBetween(a, b) => format!("({p}n NOT BETWEEN {a} AND {})", i32::from(*a) + i32::from(*b)),
            Self::Compare(op, n) => format!("{p}n * 2 - 1 {} {n}", ["<", "<=", "<>", ">=", ">", "="][usize::from(*op) % 6]),
            Self::Like(n) => format!("lower({p}s) || {p}c NOT LIKE '%{n}\\_%'"),
            Self::Null(yes) => format!("{p}s IS {}NULL", if *yes { "" } else { "NOT " }),
            Self::Case(a, b) => format!("CASE WHEN {} THEN {} ELSE true END", a.sql(p), b.sql(p)),
            Self::And(all) => join(all, " AND "),
            Self::Or(all) => join(all, " OR "),
            Self::Not(one) => format!("NOT ({})", one.sql(p)),
            Self::Tags(n) => format!("{p}tags && ARRAY[{}]::varchar(9)[]", list(*n, |i| format!("'t{i}'"))),
            Self::Date(days) => format!("{p}at > '2026-01-01'::date - {days} AND {p}at < '2030-01-01'"),
            Self::Distinct(n) => format!("{p}n IS DISTINCT FROM {n}::smallint"),
        }
    }
}

fn list(n: u8, one: impl Fn(u8) -> String) -> String {
    (0..=n % 4).map(one).collect::<Vec<_>>().join(", ")
}

fn condition() -> impl Strategy<Value = Condition> {
    let leaf = prop_oneof![
        4 => any::<u8>().prop_map(Condition::InStrings),
        2 => any::<u8>().prop_map(Condition::InChars),
        2 => (any::<i8>(), any::<i8>()).prop_map(|(a, b)| Condition::InNumbers(a, b)),
        3 => (any::<i8>(), any::<u8>()).prop_map(|(a, b)| Condition::Between(a, b)),
        1 => (any::<i8>(), any::<u8>()).prop_map(|(a, b)| Condition::NotBetween(a, b)),
        2 => (any::<u8>(), any::<i8>()).prop_map(|(a, b)| Condition::Compare(a, b)),
        1 => (0_u8..10).prop_map(Condition::Like),
        1 => any::<bool>().prop_map(Condition::Null),
        2 => any::<u8>().prop_map(Condition::Tags),
        1 => any::<u16>().prop_map(Condition::Date),
        1 => any::<i8>().prop_map(Condition::Distinct),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            3 => prop::collection::vec(inner.clone(), 2..4).prop_map(Condition::And),
            3 => prop::collection::vec(inner.clone(), 2..4).prop_map(Condition::Or),
            2 => inner.clone().prop_map(|one| Condition::Not(Box::new(one))),
            1 => (inner.clone(), inner).prop_map(|(a, b)| Condition::Case(Box::new(a), Box::new(b))),
        ]
    })
}

/// The kinds of things, the weight of each, and how it is made: `{t}` is a table of its own with the columns of
/// [`Condition`] and some rows, `{x}` the condition, `{new}` and `{old}` the condition over a trigger's rows, `{1}` to
/// `{3}` are numbers.
const KINDS: [(&str, u32, &str); 40] = [
    ("check", 6, "ALTER TABLE {t} ADD CONSTRAINT {t}_c CHECK ({x} OR true)"),
    ("check not valid", 2, "ALTER TABLE {t} ADD CONSTRAINT {t}_c CHECK ({x}) NOT VALID"),
    ("partial index", 5, "CREATE INDEX {t}_i ON {t} (n, s) WHERE {x}"),
    ("index over an expression", 4, "CREATE INDEX {t}_i ON {t} ((CASE WHEN {x} THEN n ELSE {1} END), (s || 'x') text_pattern_ops DESC)"),
    ("unique index", 2, "CREATE UNIQUE INDEX {t}_i ON {t} (id, (coalesce(s, 'none'))) WHERE {x}"),
    ("view", 5, "CREATE VIEW {t}_v AS SELECT id, s, ({x}) AS yes FROM {t} WHERE {x} ORDER BY id"),
    (
        "view with a join",
        3,
        "CREATE VIEW {t}_v AS SELECT a.id, b.s FROM {t} a LEFT JOIN {t} b ON b.id = a.id + 1 WHERE a.id IN (SELECT id FROM {t} WHERE {x})",
    ),
    (
        "materialized view",
        3,
        "CREATE MATERIALIZED VIEW {t}_m AS SELECT s, count(*) AS n, max(c) AS c FROM {t} WHERE {x} GROUP BY s; CREATE INDEX {t}_mi ON {t}_m ((s || c)) WHERE s IN ('w1', 'w2')",
    ),
    ("stale view", 2, "CREATE MATERIALIZED VIEW {t}_m AS SELECT count(*) AS n FROM {t}; INSERT INTO {t} (n) VALUES ({1})"),
    (
        "failing view",
        3,
        "CREATE TABLE {t}_r (n int); INSERT INTO {t}_r VALUES (1); CREATE MATERIALIZED VIEW {t}_m AS SELECT 100 / count(*) AS p FROM {t}_r; DELETE FROM {t}_r",
    ),
    (
        "default",
        3,
        "ALTER TABLE {t} ALTER s SET DEFAULT (CASE WHEN 'w1'::varchar IN ('w1', 'w2') THEN 'w{1}' ELSE 'x' END), ALTER n SET DEFAULT ({1} + - 3), ALTER tags SET DEFAULT ARRAY['a', 'b']::varchar(9)[]",
    ),
    ("generated column", 4, "ALTER TABLE {t} ADD g text GENERATED ALWAYS AS (CASE WHEN {x} THEN s ELSE c END) STORED"),
    (
        "policy",
        3,
        "CREATE POLICY p ON {t} USING ({x}) WITH CHECK ({x} OR n IN (SELECT m.n FROM {t} m WHERE m.s IN ('w1', 'w2'))); ALTER TABLE {t} ENABLE ROW LEVEL SECURITY",
    ),
    ("forced row security", 4, "CREATE POLICY p ON {t} USING ({x}); ALTER TABLE {t} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY"),
    (
        "exclusion",
        3,
        "CREATE TABLE {t}_e (n int, s varchar(10), c char(3), at date, tags varchar(9)[], r int4range, EXCLUDE USING gist (r WITH &&) WHERE ({x})); INSERT INTO {t}_e (r) VALUES ('[1,2)'), ('[{1},9999)'::int4range)",
    ),
    ("rule", 3, "CREATE RULE r AS ON UPDATE TO {t} WHERE {old} DO ALSO DELETE FROM {t} WHERE {x} AND id = -1"),
    (
        "trigger",
        3,
        "CREATE TRIGGER g BEFORE UPDATE OF s, n ON {t} FOR EACH ROW WHEN ({new} AND OLD.n IS DISTINCT FROM NEW.n) EXECUTE FUNCTION keep_row('a''b', '{1}')",
    ),
    (
        "disabled trigger",
        2,
        "CREATE CONSTRAINT TRIGGER g AFTER INSERT ON {t} DEFERRABLE FOR EACH ROW WHEN ({new}) EXECUTE FUNCTION keep_row(); ALTER TABLE {t} DISABLE TRIGGER g",
    ),
    (
        "domain",
        4,
        "CREATE DOMAIN {t}_d AS varchar(8) DEFAULT ('low'::varchar) CHECK (VALUE IN ('low', 'v{1}') OR (VALUE <> 'a' AND NOT (VALUE = 'b' OR VALUE BETWEEN 'c' AND 'd'))); CREATE TABLE {t}_u (d {t}_d, e {t}_d[]); INSERT INTO {t}_u VALUES ('low', ARRAY['low', 'v{1}']::{t}_d[])",
    ),
    (
        "function with a body that is parsed",
        3,
        "CREATE FUNCTION {t}_f(a int DEFAULT ({1} + 1), b varchar[] DEFAULT ARRAY['x', 'y']::varchar[]) RETURNS SETOF {t} LANGUAGE sql BEGIN ATOMIC SELECT * FROM {t} WHERE {x} AND n > a; END",
    ),
    ("statistics", 2, "CREATE STATISTICS {t}_st (mcv) ON ({x}), (n % {1}) FROM {t}"),
    (
        "check by the owner's path",
        5,
        "CREATE FUNCTION {t}_one(v varchar) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT coalesce(lower(v), 'none') $$; CREATE FUNCTION {t}_two(v varchar) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN {t}_one(v) || '{1}'; END $$; ALTER TABLE {t} ADD CONSTRAINT {t}_k CHECK ({t}_two(s) <> '')",
    ),
    (
        "index by the owner's path",
        4,
        "CREATE FUNCTION {t}_one(v varchar) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT coalesce(lower(v), 'none') $$; CREATE FUNCTION {t}_two(v varchar) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN {t}_one(v) || '{1}'; END $$; CREATE TABLE {t}_w (s varchar); CREATE INDEX {t}_wi ON {t}_w ({t}_two(s)); INSERT INTO {t}_w SELECT s FROM {t}",
    ),
    (
        "column by the owner's path",
        3,
        "CREATE FUNCTION {t}_one(v varchar) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT coalesce(lower(v), 'none') $$; CREATE FUNCTION {t}_two(v varchar) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN {t}_one(v) || '{1}'; END $$; ALTER TABLE {t} ADD g text GENERATED ALWAYS AS ({t}_two(s)) STORED",
    ),
    (
        "check of another table",
        4,
        "CREATE TABLE {t}_z (id int); INSERT INTO {t}_z SELECT id FROM {t}; CREATE FUNCTION {t}_has(i int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN i IN (SELECT id FROM {t}_z); END $$; CREATE TABLE {t}_a (id int CHECK ({t}_has(id))); INSERT INTO {t}_a SELECT id FROM {t}_z",
    ),
    (
        "orphans",
        4,
        "CREATE TABLE {t}_p (id int PRIMARY KEY); CREATE TABLE {t}_o (p int REFERENCES {t}_p ON DELETE CASCADE); INSERT INTO {t}_p VALUES (1), (2); INSERT INTO {t}_o VALUES (1), (2); CREATE FUNCTION {t}_no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$; CREATE TRIGGER no BEFORE DELETE ON {t}_o FOR EACH ROW EXECUTE FUNCTION {t}_no(); DELETE FROM {t}_p WHERE id = 1",
    ),
    (
        "rows that fail a check",
        4,
        "CREATE FUNCTION {t}_ok(i int) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT i > 0 $$; CREATE TABLE {t}_b (i int CHECK ({t}_ok(i))); INSERT INTO {t}_b VALUES (1), ({1}); CREATE OR REPLACE FUNCTION {t}_ok(i int) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT i > 1 $$",
    ),
    (
        "a key twice",
        4,
        "CREATE FUNCTION {t}_key(v text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT v $$; CREATE TABLE {t}_q (v text); CREATE UNIQUE INDEX {t}_qi ON {t}_q ({t}_key(v)); INSERT INTO {t}_q VALUES ('a'), ('A'); CREATE OR REPLACE FUNCTION {t}_key(v text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT lower(v) $$",
    ),
    (
        "range partitions",
        3,
        "CREATE TABLE {t}_y (LIKE {t}, CHECK ({x} OR true)) PARTITION BY RANGE (at); CREATE TABLE {t}_y1 PARTITION OF {t}_y FOR VALUES FROM (MINVALUE) TO ('2026-03-01'); CREATE TABLE {t}_y2 PARTITION OF {t}_y DEFAULT; CREATE INDEX ON {t}_y (lower(s)) WHERE {x}; INSERT INTO {t}_y (id, n, s, c, at, tags) SELECT id, n, s, c, at, tags FROM {t}",
    ),
    (
        "partitions by an expression",
        3,
        "CREATE TABLE {t}_y (n int, s varchar(10), c char(3), at date, tags varchar(9)[]) PARTITION BY LIST ((CASE WHEN s IN ('w1', 'w2') THEN {1} ELSE -1 END)); CREATE TABLE {t}_y1 PARTITION OF {t}_y FOR VALUES IN ({1}); CREATE TABLE {t}_y2 PARTITION OF {t}_y DEFAULT; INSERT INTO {t}_y SELECT n, s, c, at, tags FROM {t}",
    ),
    (
        "hash partitions",
        2,
        "CREATE TABLE {t}_y (k int PRIMARY KEY, v text) PARTITION BY HASH (k); CREATE TABLE {t}_y0 PARTITION OF {t}_y FOR VALUES WITH (MODULUS 2, REMAINDER 0); CREATE TABLE {t}_y1 PARTITION OF {t}_y FOR VALUES WITH (MODULUS 2, REMAINDER 1); INSERT INTO {t}_y SELECT id, s FROM {t}",
    ),
    (
        "heirs",
        3,
        "CREATE TABLE {t}_h (extra int DEFAULT {1}, CHECK (extra > 0)) INHERITS ({t}); INSERT INTO {t}_h (n, s) VALUES ({1}, 'w1'); ALTER TABLE {t} ADD CONSTRAINT {t}_hc CHECK ({x} OR true)",
    ),
    (
        "types",
        3,
        "CREATE TYPE {t}_mood AS ENUM ('m{1}', 'it''s', 'z'); CREATE TYPE {t}_pair AS (a {t}_mood, b numeric(9, 3)); CREATE TYPE {t}_span AS RANGE (subtype = numeric); CREATE TABLE {t}_ty (m {t}_mood DEFAULT 'z', p {t}_pair, r {t}_span, j jsonb, f float8); INSERT INTO {t}_ty SELECT 'it''s', ROW('z', id / 3.0)::{t}_pair, numrange(0, id)::text::{t}_span, jsonb_build_object('a', id, 'b', NULL), id / 7.0 FROM {t}",
    ),
    (
        "large objects",
        2,
        "CREATE TABLE {t}_l (o oid); INSERT INTO {t}_l SELECT lo_from_bytea(0, convert_to(repeat(coalesce(s, 'n'), id * {1} % 500), 'UTF8')) FROM {t}",
    ),
    (
        "comments",
        2,
        "COMMENT ON TABLE {t} IS E'it''s \\\\ {1}\\n'; COMMENT ON COLUMN {t}.n IS 'n'; CREATE INDEX {t}_ci ON {t} (n); COMMENT ON INDEX {t}_ci IS 'i'",
    ),
    (
        "sequences",
        2,
        "CREATE SEQUENCE {t}_s AS int START {1} INCREMENT {2} CACHE 3 CYCLE; SELECT nextval('{t}_s'); ALTER TABLE {t} ADD i bigint GENERATED ALWAYS AS IDENTITY (START {1})",
    ),
    (
        "operators",
        2,
        "CREATE FUNCTION {t}_plus(int, varchar) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT $1 > length($2) $$; DROP OPERATOR IF EXISTS @#@ (int, varchar) CASCADE; CREATE OPERATOR @#@ (LEFTARG = int, RIGHTARG = varchar, FUNCTION = {t}_plus); CREATE VIEW {t}_v AS SELECT id FROM {t} WHERE n @#@ s AND ({x})",
    ),
    (
        "odd names",
        2,
        "CREATE TABLE \"{t} ; \"\" --\" (\"a b\" int CHECK (\"a b\" IN (1, 2) OR \"a b\" BETWEEN {1} AND 9999), \"ü\" text); INSERT INTO \"{t} ; \"\" --\" VALUES ({1}, 'x'), (NULL, E'\\\\.')",
    ),
    (
        "options",
        2,
        "ALTER TABLE {t} SET (fillfactor = 8{2}), ALTER s SET STORAGE EXTERNAL, ALTER c SET STATISTICS {1}; ALTER TABLE {t} REPLICA IDENTITY FULL; CREATE UNLOGGED TABLE {t}_un AS SELECT * FROM {t}",
    ),
    (
        "foreign keys",
        3,
        "ALTER TABLE {t} ADD parent int REFERENCES {t} (id) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED; UPDATE {t} SET parent = id WHERE id < 5; CREATE TABLE {t}_fk (a int, b varchar(10), FOREIGN KEY (a) REFERENCES {t} (id) MATCH FULL ON UPDATE CASCADE); INSERT INTO {t}_fk SELECT id, s FROM {t}",
    ),
];

fn thing() -> impl Strategy<Value = Thing> {
    let kinds: Vec<(u32, Just<usize>)> = KINDS.iter().enumerate().map(|(at, (_, weight, _))| (*weight, Just(at))).collect();
    (prop::strategy::Union::new_weighted(kinds), any::<[u32; 6]>(), condition()).prop_map(|(kind, numbers, condition)| Thing {
        kind,
        numbers,
        condition,
    })
}

/// Some things of one database.
pub fn database() -> impl Strategy<Value = Vec<Thing>> {
    prop::collection::vec(thing(), 2..8)
}

/// What a thing is called.
pub fn name(thing: &Thing) -> &'static str {
    KINDS[thing.kind].0
}

/// The names of all kinds.
pub fn names() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|kind| kind.0)
}

/// The database as SQL.
pub fn sql(things: &[Thing]) -> String {
    let mut script = String::from("CREATE FUNCTION keep_row() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;\n");
    for (at, thing) in things.iter().enumerate() {
        let table = format!("t{at}");
        let [rows, a, b, c, ..] = thing.numbers;
        let _ = writeln!(
            script,
            "CREATE TABLE {table} (id serial PRIMARY KEY, n int, s varchar(10), c char(3), at date, tags varchar(9)[]);\n\
             INSERT INTO {table} (n, s, c, at, tags) SELECT (g * {a}::int8 % 251)::int - 120, CASE WHEN g % 5 > 0 THEN 'w' || g % 7 END, 'z' || g % 3, \
             '2026-01-01'::date + g, CASE WHEN g % 3 > 0 THEN ARRAY['t' || g % 4, NULL] END FROM generate_series(1, {}) g;",
            rows % 60 + 1
        );
        let text = KINDS[thing.kind]
            .2
            .replace("{x}", &thing.condition.sql(""))
            .replace("{new}", &thing.condition.sql("NEW."))
            .replace("{old}", &thing.condition.sql("OLD."))
            .replace("{t}", &table)
            .replace("{1}", &(a % 900 + 10).to_string())
            .replace("{2}", &(b % 9 + 1).to_string())
            .replace("{3}", &(c % 90 + 10).to_string());
        let _ = writeln!(script, "{text};");
    }
    script
}

/// Changes of a copy, each of which has to be found: what is changed, and a query that gives the statement. Without a
/// row there is nothing in the copy that could be changed so.
pub const MUTATIONS: [(&str, &str); 32] = [
    (
        "a row is gone",
        "SELECT format('SET session_replication_role = replica; DELETE FROM ONLY app.%I WHERE ctid = (SELECT min(ctid) FROM ONLY app.%I)', relname, relname) FROM pg_class WHERE relname ~ '^t[0-9]+$' AND relkind = 'r'",
    ),
    (
        "a row is changed",
        "SELECT format('SET session_replication_role = replica; UPDATE ONLY app.%I SET n = n + 1', relname) FROM pg_class WHERE relname ~ '^t[0-9]+$' AND relkind = 'r'",
    ),
    (
        "a space is added to a text",
        "SELECT format('SET session_replication_role = replica; UPDATE ONLY app.%I SET s = s || '' '' WHERE s = ''w1''', relname) FROM pg_class WHERE relname ~ '^t[0-9]+$' AND relkind = 'r'",
    ),
    (
        "a constraint is gone",
        "SELECT format('ALTER TABLE %s DROP CONSTRAINT %I CASCADE', conrelid::regclass, conname) FROM pg_constraint WHERE contype IN ('c', 'f', 'u', 'x') AND conrelid <> 0 AND coninhcount = 0 AND conparentid = 0 AND connamespace = 'app'::regnamespace",
    ),
    (
        "one more value in a constraint",
        "SELECT format('ALTER TABLE %1$s DROP CONSTRAINT %2$I; ALTER TABLE %1$s ADD CONSTRAINT %2$I %3$s NOT VALID; ALTER TABLE %1$s VALIDATE CONSTRAINT %2$I', conrelid::regclass, conname, replace(replace(pg_get_constraintdef(oid), '(''w0''::character varying)::text', '(''w0''::character varying)::text, (''w9''::character varying)::text'), ' NOT VALID', '')) FROM pg_constraint WHERE contype = 'c' AND conrelid <> 0 AND coninhcount = 0 AND pg_get_constraintdef(oid) LIKE '%ARRAY[(''w0''::character varying)::text%' AND convalidated",
    ),
    (
        "a constraint is NOT VALID",
        "SELECT format('ALTER TABLE %1$s DROP CONSTRAINT %2$I; ALTER TABLE %1$s ADD CONSTRAINT %2$I %3$s NOT VALID', conrelid::regclass, conname, pg_get_constraintdef(oid)) FROM pg_constraint WHERE contype = 'c' AND conrelid <> 0 AND coninhcount = 0 AND convalidated AND connamespace = 'app'::regnamespace",
    ),
    (
        "a constraint turns into its contrary",
        "SELECT format('ALTER TABLE %1$s DROP CONSTRAINT %2$I; ALTER TABLE %1$s ADD CONSTRAINT %2$I CHECK (NOT (%3$s)) NOT VALID', conrelid::regclass, conname, pg_get_expr(conbin, conrelid)) FROM pg_constraint WHERE contype = 'c' AND conrelid <> 0 AND coninhcount = 0 AND NOT convalidated AND connamespace = 'app'::regnamespace",
    ),
    (
        "a domain lost its constraint",
        "SELECT format('ALTER DOMAIN %s DROP CONSTRAINT %I', contypid::regtype, conname) FROM pg_constraint WHERE contype = 'c' AND contypid <> 0 AND connamespace = 'app'::regnamespace",
    ),
    (
        "a domain has another default",
        "SELECT format('ALTER DOMAIN %s SET DEFAULT ''high''', oid::regtype) FROM pg_type WHERE typtype = 'd' AND typnamespace = 'app'::regnamespace",
    ),
    (
        "a trigger is disabled",
        "SELECT format('ALTER TABLE %s DISABLE TRIGGER %I', tgrelid::regclass, tgname) FROM pg_trigger WHERE NOT tgisinternal AND tgenabled = 'O' AND tgparentid = 0",
    ),
    (
        "a trigger is gone",
        "SELECT format('DROP TRIGGER %I ON %s', tgname, tgrelid::regclass) FROM pg_trigger WHERE NOT tgisinternal AND tgparentid = 0",
    ),
    (
        "an index is gone",
        "SELECT format('DROP INDEX %s', indexrelid::regclass) FROM pg_index i JOIN pg_class c ON c.oid = indexrelid WHERE c.relnamespace = 'app'::regnamespace AND NOT c.relispartition AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = c.oid)",
    ),
    (
        "an index is invalid",
        "SELECT format('UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s', indexrelid::oid) FROM pg_index i JOIN pg_class c ON c.oid = indexrelid WHERE c.relnamespace = 'app'::regnamespace AND c.relkind = 'i'",
    ),
    (
        "an index has another predicate",
        "SELECT format('DROP INDEX %s; %s', indexrelid::regclass, replace(pg_get_indexdef(indexrelid), ' WHERE ', ' WHERE NOT ')) FROM pg_index i JOIN pg_class c ON c.oid = indexrelid WHERE indpred IS NOT NULL AND c.relnamespace = 'app'::regnamespace AND NOT c.relispartition AND c.relkind = 'i'",
    ),
    (
        "an index is unique",
        "SELECT format('UPDATE pg_index SET indnullsnotdistinct = NOT indnullsnotdistinct WHERE indexrelid = %s', indexrelid::oid) FROM pg_index i JOIN pg_class c ON c.oid = indexrelid WHERE c.relnamespace = 'app'::regnamespace AND c.relkind = 'i'",
    ),
    (
        "a view selects more",
        "SELECT format('CREATE OR REPLACE VIEW %s AS %s', oid::regclass, replace(rtrim(pg_get_viewdef(oid), ';'), 'WHERE ', 'WHERE true OR ')) FROM pg_class WHERE relkind = 'v' AND relnamespace = 'app'::regnamespace AND pg_get_viewdef(oid) LIKE '%WHERE %'",
    ),
    (
        "a view is gone",
        "SELECT format('DROP %s %s', CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'MATERIALIZED VIEW' END, oid::regclass) FROM pg_class WHERE relkind IN ('v', 'm') AND relnamespace = 'app'::regnamespace",
    ),
    ("a policy lets everybody", "SELECT format('ALTER POLICY %I ON %s USING (true)', polname, polrelid::regclass) FROM pg_policy"),
    ("a policy is gone", "SELECT format('DROP POLICY %I ON %s', polname, polrelid::regclass) FROM pg_policy"),
    (
        "row security is off",
        "SELECT format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY', oid::regclass) FROM pg_class WHERE relrowsecurity AND relnamespace = 'app'::regnamespace",
    ),
    (
        "row security is not forced",
        "SELECT format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', oid::regclass) FROM pg_class WHERE relforcerowsecurity AND relnamespace = 'app'::regnamespace",
    ),
    (
        "a rule is gone",
        "SELECT format('DROP RULE %I ON %s', rulename, ev_class::regclass) FROM pg_rewrite r JOIN pg_class c ON c.oid = ev_class WHERE rulename <> '_RETURN' AND relnamespace = 'app'::regnamespace",
    ),
    (
        "a default is another",
        "SELECT format('ALTER TABLE ONLY %s ALTER n SET DEFAULT 4711', oid::regclass) FROM pg_class WHERE relname ~ '^t[0-9]+$' AND relkind = 'r'",
    ),
    (
        "a column is longer",
        "SELECT format('UPDATE pg_attribute SET atttypmod = atttypmod + 1 WHERE attrelid = %s AND attname = ''s''', oid) FROM pg_class WHERE relname ~ '^t[0-9]+$' AND relkind = 'r'",
    ),
    (
        "a column may be null",
        "SELECT format('UPDATE pg_attribute SET attnotnull = false WHERE attrelid = %s AND attname = ''id''', oid) FROM pg_class WHERE relname ~ '^t[0-9]+$' AND relkind = 'r'",
    ),
    (
        "a function has another body",
        "SELECT replace(pg_get_functiondef(oid), 'RETURN NEW', 'RETURN OLD') FROM pg_proc WHERE proname = 'keep_row'",
    ),
    (
        "a sequence stands elsewhere",
        "SELECT format('SELECT setval(%L, 7777)', oid::regclass) FROM pg_class WHERE relkind = 'S' AND relname ~ '^t[0-9]+_id_seq$'",
    ),
    (
        "a sequence counts otherwise",
        "SELECT format('ALTER SEQUENCE %s INCREMENT 13', oid::regclass) FROM pg_class WHERE relkind = 'S' AND relname ~ '^t[0-9]+_id_seq$'",
    ),
    (
        "a large object is changed",
        "SELECT format('SELECT lo_put(%s, 0, ''\\x21'')', oid) FROM pg_largeobject_metadata m WHERE lo_get(oid) <> ''",
    ),
    (
        "a comment is gone",
        "SELECT format('COMMENT ON TABLE %s IS NULL', objoid::regclass) FROM pg_description WHERE classoid = 'pg_class'::regclass AND objsubid = 0 AND objoid >= 16384 AND EXISTS (SELECT FROM pg_class WHERE oid = objoid AND relkind = 'r')",
    ),
    (
        "a function depends on an extension",
        "SELECT format('ALTER FUNCTION %s DEPENDS ON EXTENSION plpgsql', oid::regprocedure) FROM pg_proc WHERE proname = 'keep_row'",
    ),
    (
        "an enum has one more label",
        "SELECT format('ALTER TYPE %s ADD VALUE ''more''', oid::regtype) FROM pg_type WHERE typtype = 'e' AND typnamespace = 'app'::regnamespace",
    ),
];
