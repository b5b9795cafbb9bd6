-- Forms of objects that no other file has.
CREATE TYPE point3 AS (x int, y int, z int);
COMMENT ON TYPE point3 IS 'type'; COMMENT ON COLUMN point3.x IS 'attribute';
CREATE DOMAIN small AS int CONSTRAINT is_small CHECK (VALUE < 10);
COMMENT ON DOMAIN small IS 'domain'; COMMENT ON CONSTRAINT is_small ON DOMAIN small IS 'domain constraint';
CREATE TABLE smalls (s small, p point3);
INSERT INTO smalls VALUES (1, ROW(1, 2, 3)), (NULL, ROW(NULL, NULL, NULL));
COMMENT ON COLUMN smalls.s IS 'column';
CREATE CAST (point3 AS text) WITH INOUT AS ASSIGNMENT;
COMMENT ON CAST (point3 AS text) IS 'cast';
CREATE FUNCTION diff(a float8, b float8) RETURNS float8 LANGUAGE sql IMMUTABLE AS 'SELECT a - b';
CREATE TYPE floats AS RANGE (subtype = float8, subtype_diff = diff, subtype_opclass = float8_ops, multirange_type_name = floats_many);
CREATE TYPE words AS RANGE (subtype = text, collation = "C");
CREATE TABLE ranges (f floats, w words, m floats_many);
INSERT INTO ranges VALUES ('[1.5,2]', '[a,b)', NULL);
-- Functions of every form.
CREATE FUNCTION outs(IN a int, OUT b int, INOUT c text DEFAULT 'x', VARIADIC d int[] DEFAULT '{}') LANGUAGE sql STABLE STRICT SECURITY DEFINER COST 7 PARALLEL RESTRICTED SET work_mem = '4MB' SET "TimeZone" = 'UTC' AS 'SELECT a, c';
CREATE FUNCTION tabled(n int) RETURNS TABLE (a int, "b c" text) LANGUAGE sql ROWS 3 AS $$ SELECT n, 'x' $$;
CREATE FUNCTION any_of(a anyelement, b anyarray) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT a = ANY (b)';
CREATE FUNCTION ranged(a anycompatible, r anycompatiblerange) RETURNS anycompatible LANGUAGE sql CALLED ON NULL INPUT AS 'SELECT a';
CREATE PROCEDURE moves(INOUT a int, b text DEFAULT NULL) LANGUAGE plpgsql AS $$ BEGIN a := a + 1; COMMIT; END $$;
COMMENT ON PROCEDURE moves IS 'procedure';
CREATE PROCEDURE atomic_one() LANGUAGE sql BEGIN ATOMIC INSERT INTO smalls VALUES (2, NULL); DELETE FROM smalls WHERE s IN (3, 4) RETURNING s; END;
CREATE FUNCTION merged() RETURNS void LANGUAGE sql BEGIN ATOMIC MERGE INTO smalls t USING (VALUES (1)) v (s) ON t.s = v.s WHEN MATCHED AND t.s > 5 THEN DELETE WHEN NOT MATCHED THEN INSERT (s) VALUES (v.s); END;
ALTER FUNCTION tabled(int) DEPENDS ON EXTENSION plpgsql;
CREATE FUNCTION keep_one(state float8[], v float8) RETURNS float8[] LANGUAGE sql IMMUTABLE AS 'SELECT state || v';
CREATE FUNCTION middle_of(state float8[], f float8) RETURNS float8 LANGUAGE sql IMMUTABLE AS 'SELECT state[1] * f';
CREATE AGGREGATE middle(float8 ORDER BY float8) (SFUNC = keep_one, STYPE = float8[], FINALFUNC = middle_of, FINALFUNC_MODIFY = READ_ONLY, INITCOND = '{}');
CREATE AGGREGATE would_be(float8 ORDER BY float8) (SFUNC = keep_one, STYPE = float8[], HYPOTHETICAL);
CREATE AGGREGATE moving(float8) (SFUNC = float8pl, STYPE = float8, MSFUNC = float8pl, MINVFUNC = float8mi, MSTYPE = float8, MINITCOND = '0', INITCOND = '0', SSPACE = 16);
CREATE AGGREGATE most(float8) (SFUNC = float8larger, STYPE = float8, SORTOP = >);
CREATE AGGREGATE everything(*) (SFUNC = int8inc, STYPE = int8, INITCOND = '0');
COMMENT ON AGGREGATE most(float8) IS 'aggregate';
-- Operators, one of which names others that were never made.
CREATE FUNCTION near(point3, point3) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT ($1).x = ($2).x';
CREATE OPERATOR ~~~ (LEFTARG = point3, RIGHTARG = point3, FUNCTION = near, COMMUTATOR = ~~~@, NEGATOR = !~~~, RESTRICT = eqsel, JOIN = eqjoinsel);
CREATE FUNCTION size(point3) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT ($1).x';
CREATE OPERATOR @@@ (RIGHTARG = point3, FUNCTION = size);
COMMENT ON OPERATOR @@@ (NONE, point3) IS 'operator';
CREATE COLLATION posix (PROVIDER = libc, LOCALE = 'C');
CREATE COLLATION ruled (PROVIDER = icu, LOCALE = 'und', RULES = '&b < a');
CREATE COLLATION copied FROM "C";
COMMENT ON COLLATION posix IS 'collation';
CREATE CONVERSION other FOR 'UTF8' TO 'LATIN1' FROM utf8_to_iso8859_1;
COMMENT ON CONVERSION other IS 'conversion';
CREATE TEXT SEARCH DICTIONARY dict (TEMPLATE = simple);
COMMENT ON TEXT SEARCH DICTIONARY dict IS 'dictionary';
-- Indexes of every method, with parameters.
CREATE TABLE docs (id int, j jsonb, v tsvector, p point, i inet, at timestamptz, t text COLLATE posix);
INSERT INTO docs SELECT n, jsonb_build_object('n', n), to_tsvector('simple', 'word' || n), point(n, n), '10.0.0.1'::inet + n, '2026-01-01'::timestamptz + n * interval '1 h', 't' || n FROM generate_series(1, 100) n;
CREATE INDEX ON docs USING gin (j jsonb_path_ops);
CREATE INDEX docs_v ON docs USING gist (v tsvector_ops (siglen = 100));
CREATE INDEX docs_p ON docs USING spgist (p kd_point_ops);
CREATE INDEX docs_i ON docs USING spgist (i);
CREATE INDEX docs_at ON docs USING brin (at timestamptz_minmax_multi_ops (values_per_range = 16), id int4_bloom_ops (n_distinct_per_range = 50)) WITH (autosummarize = on);
CREATE INDEX docs_t ON docs (t COLLATE "C" DESC, (j ->> 'n') text_pattern_ops NULLS FIRST) INCLUDE (id) WITH (deduplicate_items = off);
CREATE UNIQUE INDEX docs_id ON docs (id) NULLS NOT DISTINCT;
ALTER TABLE docs ALTER id SET NOT NULL;
ALTER TABLE docs REPLICA IDENTITY USING INDEX docs_id;
ALTER INDEX docs_t ALTER COLUMN 2 SET STATISTICS 300;
ALTER TABLE docs CLUSTER ON docs_t;
CREATE STATISTICS docs_all ON id, at, (j ->> 'n') FROM docs;
COMMENT ON STATISTICS docs_all IS 'statistics';
-- Keys between partitioned tables, and what one of the parts has for itself.
CREATE TABLE orders (day date, id int, CONSTRAINT orders_key PRIMARY KEY (day, id)) PARTITION BY RANGE (day, id);
CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM (MINVALUE, MINVALUE) TO ('2026-01-01', 5);
CREATE TABLE orders_2 PARTITION OF orders (CONSTRAINT positive CHECK (id > 0)) FOR VALUES FROM ('2026-01-01', 5) TO (MAXVALUE, MAXVALUE);
CREATE TABLE lines (day date, id int, n int, a int, b int, FOREIGN KEY (day, id) REFERENCES orders ON DELETE CASCADE) PARTITION BY HASH (n);
CREATE TABLE lines_0 PARTITION OF lines FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE lines_1 PARTITION OF lines FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO orders SELECT '2025-12-31'::date + n / 10, n FROM generate_series(1, 40) n;
INSERT INTO lines SELECT day, id, id, id, id FROM orders;
CREATE TABLE pairs (a int, b int, PRIMARY KEY (a, b));
CREATE TABLE half (a int, b int, FOREIGN KEY (a, b) REFERENCES pairs ON DELETE SET NULL (b) ON UPDATE SET DEFAULT);
CREATE INDEX own_name ON ONLY lines (a);
CREATE INDEX of_part ON lines_0 (a);
ALTER INDEX own_name ATTACH PARTITION of_part;
CREATE INDEX of_other ON lines_1 (a);
ALTER INDEX own_name ATTACH PARTITION of_other;
COMMENT ON INDEX of_part IS 'part';
CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER upd AFTER UPDATE OF a, b ON lines FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION noted('x', 'y');
CREATE TRIGGER trunc BEFORE TRUNCATE ON docs EXECUTE FUNCTION noted();
CREATE TRIGGER replica AFTER INSERT ON docs REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION noted();
ALTER TABLE docs ENABLE REPLICA TRIGGER replica;
ALTER TRIGGER trunc ON docs DEPENDS ON EXTENSION plpgsql;
CREATE RULE loud AS ON UPDATE TO pairs DO ALSO NOTIFY pairs;
ALTER TABLE pairs ENABLE ALWAYS RULE loud;
CREATE UNLOGGED TABLE counted (id int GENERATED ALWAYS AS IDENTITY (MINVALUE -5 START -5 INCREMENT 3 MAXVALUE 900));
INSERT INTO counted DEFAULT VALUES;
CREATE SEQUENCE down INCREMENT -1 MAXVALUE 10 START 3 AS int;
SELECT nextval('down');
CREATE TABLE heaped (a int) USING heap WITH (autovacuum_vacuum_scale_factor = 0.01, parallel_workers = 2);
CREATE TABLE many_parents () INHERITS (heaped, smalls);
INSERT INTO many_parents VALUES (1, 2, NULL);
-- Queries whose printed form is the server's own.
CREATE VIEW special AS WITH RECURSIVE tree (id, up) AS (SELECT 1, 0 UNION ALL SELECT id + 1, id FROM tree WHERE id < 5) SEARCH DEPTH FIRST BY id SET ord CYCLE id SET again USING path, once AS MATERIALIZED (SELECT 1 AS one)
  SELECT extract(year FROM d.at) AS y, d.at AT TIME ZONE 'UTC' AS utc, overlay('abc' PLACING 'x' FROM 2) AS o, substring('abc' FROM 'b') AS s, trim(BOTH 'x' FROM d.t) AS t, position('a' IN d.t) AS p, (d.at, d.at) OVERLAPS (d.at, interval '1 h') AS ov,
  d.t SIMILAR TO 'a%' AS sim, d.j IS JSON OBJECT AS isj, JSON_OBJECT('a': 1 ABSENT ON NULL) AS jo, JSON_ARRAYAGG(d.id NULL ON NULL) OVER w AS ja, xmlelement(name a, xmlattributes(d.id AS b), d.t) AS x, ROW(1, NULL) IS NULL AS n, GREATEST(1, d.id) AS g, NULLIF(d.id, 3) AS nn,
  rank() OVER w AS r, count(*) OVER (ORDER BY d.id GROUPS BETWEEN 1 PRECEDING AND 1 FOLLOWING EXCLUDE TIES) AS c, (ARRAY[1, 2, 3])[2:3] AS sl, d.t COLLATE "C" < 'x' AS lt, tree.again, once.one, NOT d.id BETWEEN SYMMETRIC 5 AND 1 AS bs, CAST(d.id AS numeric(10, 2)) AS nu
  FROM docs d TABLESAMPLE SYSTEM (100) REPEATABLE (7), tree, once, ROWS FROM (generate_series(1, 2), unnest(ARRAY['a'])) WITH ORDINALITY AS rf (a, b, o), XMLTABLE('/r' PASSING ('<r><c>1</c></r>'::xml) COLUMNS c int PATH 'c' DEFAULT 0, o FOR ORDINALITY) xt
  WHERE d.id = ANY (SELECT 1) AND (d.id, d.t) > (0, 'a') AND d.id IN (SELECT a FROM pairs UNION ALL SELECT b FROM pairs EXCEPT SELECT 9) WINDOW w AS (PARTITION BY d.id % 2 ORDER BY d.id) ORDER BY d.id FETCH FIRST 3 ROWS WITH TIES;
COMMENT ON COLUMN special.y IS 'column of a view';
CREATE VIEW locked AS SELECT a FROM pairs ORDER BY a LIMIT 3 FOR UPDATE SKIP LOCKED;
CREATE MATERIALIZED VIEW cubed WITH (fillfactor = 50) AS SELECT a, b, grouping(a, b) AS g, count(DISTINCT n) AS c, string_agg(day::text, ',' ORDER BY day DESC) AS d, percentile_cont(0.5) WITHIN GROUP (ORDER BY n) AS p FROM lines GROUP BY DISTINCT CUBE (a, b), ROLLUP (a);
COMMENT ON MATERIALIZED VIEW cubed IS 'materialized view'; COMMENT ON COLUMN cubed.a IS 'of it';
ALTER MATERIALIZED VIEW cubed ALTER a SET STATISTICS 50;
ALTER MATERIALIZED VIEW cubed DEPENDS ON EXTENSION plpgsql;
-- Rights are the operator's to give: they are not brought back.
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC;
GRANT SELECT (id) ON docs TO PUBLIC;
