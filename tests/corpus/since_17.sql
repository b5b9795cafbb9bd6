-- What PostgreSQL 17 brought.
CREATE COLLATION plain (PROVIDER = builtin, LOCALE = 'C.UTF-8');
CREATE TABLE parted (id int GENERATED ALWAYS AS IDENTITY, k int4range, t text COLLATE plain) PARTITION BY RANGE (k);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (MINVALUE) TO ('[100,200)');
CREATE TABLE parted_2 PARTITION OF parted DEFAULT;
INSERT INTO parted (k, t) SELECT int4range(n * 10, n * 10 + 5), 'ä' || n FROM generate_series(1, 20) n;
CREATE TABLE computed (a int, b int GENERATED ALWAYS AS (a * 2) STORED);
INSERT INTO computed VALUES (1), (2);
ALTER TABLE computed ALTER b SET EXPRESSION AS (a * 3 + CASE WHEN a IN (1, 2) THEN 1 ELSE 0 END);
CREATE VIEW from_json AS SELECT jt.*, JSON_VALUE('{"a": 1}', '$.a' RETURNING int DEFAULT 3 ON EMPTY) AS v, JSON_QUERY('{"a": [1]}', '$.a' WITH WRAPPER) AS q, JSON_EXISTS('{"a": 1}', '$.b') AS e
  FROM JSON_TABLE('{"f": [{"n": 1, "l": [1, 2]}]}', '$.f[*]' COLUMNS (o FOR ORDINALITY, n int PATH '$.n' DEFAULT 0 ON ERROR, has boolean EXISTS PATH '$.x', NESTED PATH '$.l[*]' COLUMNS (i int PATH '$'))) AS jt;
CREATE MATERIALIZED VIEW kept AS SELECT * FROM from_json;
CREATE FUNCTION merges() RETURNS SETOF text LANGUAGE sql BEGIN ATOMIC
  MERGE INTO computed c USING (VALUES (1), (9)) v (a) ON c.a = v.a WHEN MATCHED THEN UPDATE SET a = c.a + 1 WHEN NOT MATCHED BY SOURCE AND c.a IN (3, 4) THEN DELETE WHEN NOT MATCHED THEN INSERT (a) VALUES (v.a) RETURNING merge_action(); END;
CREATE VIEW local_time AS SELECT timestamptz '2026-01-01 00:00+00' AT LOCAL AS l;
