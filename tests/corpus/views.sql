CREATE TABLE base (id int PRIMARY KEY, kind text, n int);
INSERT INTO base SELECT n, CASE n % 3 WHEN 0 THEN 'a' WHEN 1 THEN 'b' END, n * n FROM generate_series(1, 40) n;
CREATE VIEW simple WITH (security_barrier, check_option = local) AS SELECT id, kind AS k FROM base WHERE n > 3;
ALTER VIEW simple ALTER COLUMN k SET DEFAULT 'zz';
CREATE VIEW invoker WITH (security_invoker = on) AS TABLE base;
CREATE RECURSIVE VIEW counting (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM counting WHERE n < 10;
CREATE VIEW complex AS SELECT DISTINCT ON (b.kind) b.kind, sum(b.n) FILTER (WHERE b.n > 1) OVER (PARTITION BY b.kind ORDER BY b.id ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS s,
  (SELECT max(x.n) FROM base x WHERE x.kind = b.kind) AS m, CASE WHEN b.kind IN ('a', 'b') THEN ARRAY[1, 2] ELSE '{}' END AS c, b.*::base AS whole
  FROM base b LEFT JOIN LATERAL (SELECT * FROM simple s WHERE s.id = b.id) s ON true JOIN (VALUES (1, 'x'), (2, 'y')) v (a, bb) ON v.a <> b.id, generate_series(1, 2) WITH ORDINALITY g (x, o)
  WHERE (b.id BETWEEN 1 AND 30 OR b.kind NOT IN ('q', 'r')) AND NOT EXISTS (SELECT FROM base z WHERE z.id = -1) ORDER BY b.kind, b.id DESC NULLS LAST;
CREATE VIEW grouped AS SELECT b.id, b.kind, count(*) FROM base b JOIN base c USING (id) GROUP BY b.id;
CREATE VIEW sets AS SELECT kind, n FROM base GROUP BY GROUPING SETS ((kind), (n), ()) HAVING count(*) > 0;
CREATE MATERIALIZED VIEW totals AS SELECT kind, sum(n) AS s FROM base GROUP BY kind;
CREATE UNIQUE INDEX totals_kind ON totals (kind);
CREATE MATERIALIZED VIEW of_totals AS SELECT max(s) AS top FROM totals;
CREATE MATERIALIZED VIEW a_first AS SELECT * FROM of_totals WITH DATA;
CREATE MATERIALIZED VIEW unfilled AS SELECT 1 / n AS x FROM base WITH NO DATA;
-- Older than what it is computed from.
CREATE MATERIALIZED VIEW stale AS SELECT count(*) AS n FROM base;
INSERT INTO base VALUES (1000, 'late', 1);
REFRESH MATERIALIZED VIEW totals;
-- Its query fails by now.
CREATE TABLE rates (n int);
INSERT INTO rates VALUES (1);
CREATE MATERIALIZED VIEW share AS SELECT 100 / count(*) AS pct FROM rates;
DELETE FROM rates;
CREATE RULE to_base AS ON INSERT TO simple DO INSTEAD INSERT INTO base (id, kind) VALUES (NEW.id, NEW.k) RETURNING id, kind;
CREATE RULE never AS ON DELETE TO base DO INSTEAD NOTHING;
ALTER TABLE base DISABLE RULE never;
CREATE FUNCTION instead() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER instead INSTEAD OF UPDATE ON invoker FOR EACH ROW EXECUTE FUNCTION instead();
-- A function and a view that need each other.
CREATE FUNCTION of_view() RETURNS int LANGUAGE sql AS $$ SELECT 1 $$;
CREATE VIEW with_function AS SELECT of_view() AS f;
CREATE OR REPLACE FUNCTION of_view() RETURNS int LANGUAGE sql AS $$ SELECT f FROM app.with_function WHERE false $$;
CREATE FUNCTION row_of(r grouped) RETURNS text LANGUAGE sql AS $$ SELECT r.kind $$;
