CREATE TYPE mood AS ENUM ('calm', 'it''s fine', 'angry');
ALTER TYPE mood ADD VALUE 'furious' AFTER 'calm';
CREATE TYPE pair AS (a int, b text COLLATE "C");
CREATE TYPE span AS RANGE (subtype = timestamptz, multirange_type_name = spans);
CREATE DOMAIN mail AS text COLLATE "C" NOT NULL DEFAULT 'a@b' CONSTRAINT has_at CHECK (VALUE LIKE '%@%');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN pairs AS pair[] CHECK (cardinality(VALUE) < 5);
CREATE TABLE all_types (
  id int GENERATED ALWAYS AS IDENTITY, m mood, p pair, s span, ss spans, e mail, pos positive, ps pairs, ms mood[], n numeric(30, 10), n2 numeric,
  f4 float4, f8 float8, b bytea, j json, jb jsonb, x xml, u uuid, i inet, c cidr, mac macaddr, mac8 macaddr8, bits bit(5), vb bit varying(9), iv interval,
  d date, t time, tz timetz, ts timestamp, tstz timestamptz, pt point, ln line, ls lseg, bx box, pa path, pg polygon, ci circle, tv tsvector, tq tsquery,
  mo money, nm name, ch "char", o oid, rc regclass, r4 int4range, rm nummultirange, arr int[][], jp jsonpath, lsn pg_lsn, snap pg_snapshot);
INSERT INTO all_types (m, p, s, ss, e, pos, ps, ms, n, n2, f4, f8, b, j, jb, x, u, i, c, mac, mac8, bits, vb, iv, d, t, tz, ts, tstz, pt, ln, ls, bx, pa, pg, ci, tv, tq, mo, nm, ch, o, rc, r4, rm, arr, jp, lsn, snap)
  VALUES ('it''s fine', ROW(1, E'x\ny\t\\'), '[2026-01-01,2026-02-01)', '{[2026-01-01,2026-02-01)}', 'c@d', 1, ARRAY[ROW(1, 'a')::pair], ARRAY['calm', NULL]::mood[], 1.5, 'NaN', 'Infinity', 1.0 / 3, '\x00ff5c', '{"a": 1,  "a": 2}', '{"b": [1.10, null]}',
  '<a b="c">d</a>', '6c0f0000-0000-4000-8000-000000000000', '10.0.0.1/8', '2001:db8::/48', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', B'10101', B'101', '1 mon 2 days -3 s', 'infinity', '24:00', '12:00+05:30', '0044-03-15 BC', '2026-11-25 12:00:00.123456+01',
  '(1,2)', '{1,2,3}', '[(1,2),(3,4)]', '(3,4),(1,2)', '[(1,2),(3,4)]', '((1,2),(3,4))', '<(1,2),3>', 'a:1A b', 'a & !b', 12.34, 'n', 'c', 1, 'all_types', 'empty', '{[1.5,2),[3,4]}', '{{1,2},{3,NULL}}', '$.a[*]', '16/B374D848', '10:20:10,14');
INSERT INTO all_types (e) VALUES ('null@all');
CREATE FUNCTION pair_eq(pair, pair) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT ($1).a = ($2).a $$;
CREATE OPERATOR === (LEFTARG = pair, RIGHTARG = pair, FUNCTION = pair_eq, COMMUTATOR = ===, HASHES);
CREATE FUNCTION mood_from(int) RETURNS mood LANGUAGE sql IMMUTABLE AS $$ SELECT (enum_range(NULL::app.mood))[$1] $$;
CREATE CAST (int AS mood) WITH FUNCTION mood_from(int) AS ASSIGNMENT;
CREATE AGGREGATE longest(text) (SFUNC = textcat, STYPE = text, INITCOND = '');
CREATE FUNCTION ord(internal_state text, v text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT coalesce(internal_state, '') || v $$;
CREATE AGGREGATE glue(v text) (SFUNC = ord, STYPE = text, COMBINEFUNC = textcat, PARALLEL = SAFE);
CREATE COLLATION german (PROVIDER = icu, LOCALE = 'de-u-co-phonebk');
CREATE COLLATION loose (PROVIDER = icu, LOCALE = 'und-u-ks-level2', DETERMINISTIC = false);
CREATE TABLE names (g text COLLATE german, l text COLLATE loose UNIQUE);
INSERT INTO names VALUES ('ä', 'A'), ('b', 'B');
CREATE CONVERSION mine FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE TABLE of_pair OF pair (PRIMARY KEY (a));
INSERT INTO of_pair VALUES (1, 'x');
CREATE TABLE packed (a text COMPRESSION pglz, b text STORAGE EXTERNAL, c text) WITH (fillfactor = 70, autovacuum_enabled = off, toast.autovacuum_enabled = off);
ALTER TABLE packed ALTER c SET STATISTICS 500, ALTER c SET (n_distinct = 5);
INSERT INTO packed SELECT repeat('a', 9000), repeat('b', 9000), md5(n::text) FROM generate_series(1, 5) n;
