-- Text that PostgreSQL prints differently after a restore.
CREATE TABLE tickets (
  id int PRIMARY KEY,
  status varchar(10) DEFAULT ('new'::varchar) CHECK (status IN ('new', 'open', 'stalled')),
  priority int CHECK (priority BETWEEN 1 AND 5 AND (priority <> 3 OR (status <> 'new' AND NOT (id = 7 OR id = 8)))),
  kind char(3) CHECK (kind IN ('bug', 'inc')),
  tags varchar(20)[] DEFAULT ARRAY['a', 'b']::varchar(20)[] CHECK (tags <@ ARRAY['a', 'b', 'c']::varchar(20)[]),
  rank text GENERATED ALWAYS AS (CASE WHEN status IN ('new', 'open') THEN 'high' ELSE 'low' END) STORED,
  at timestamptz CHECK (at > '2020-01-01' AND at < '2100-01-01')
);
INSERT INTO tickets (id, status, priority, kind, at) SELECT n, 'open', 1 + n % 5, 'bug', '2026-01-01'::timestamptz + n * interval '1 h'
  FROM generate_series(10, 200) n WHERE 1 + n % 5 <> 3 OR n % 2 = 0;
CREATE INDEX tickets_open ON tickets (priority) WHERE status IN ('new', 'open');
CREATE INDEX tickets_case ON tickets ((CASE WHEN status IN ('new', 'open') THEN id ELSE - id END), lower(status)) WHERE priority BETWEEN 1 AND 3;
CREATE VIEW open_tickets AS SELECT * FROM tickets WHERE status IN ('new', 'open') AND (priority BETWEEN 1 AND 3 OR kind IN ('bug', 'inc'));
CREATE MATERIALIZED VIEW by_status AS SELECT status, count(*) AS n FROM tickets WHERE status IN ('new', 'open') GROUP BY status;
CREATE UNIQUE INDEX by_status_one ON by_status ((status || 'x')) WHERE status IN ('new', 'open');
CREATE DOMAIN level AS varchar(8) DEFAULT ('low'::varchar) CHECK (VALUE IN ('low', 'high')) CHECK (length(VALUE) BETWEEN 1 AND 8 AND (VALUE <> 'x' OR VALUE <> 'y'));
CREATE TABLE uses_level (l level, m level NOT NULL DEFAULT 'high');
INSERT INTO uses_level VALUES ('low'), ('high');
CREATE TABLE booked (room varchar(5), during int4range, state varchar(5),
  EXCLUDE USING gist (during WITH &&) WHERE (state IN ('on', 'hold') AND (room <> 'a' OR room <> 'b')));
INSERT INTO booked VALUES ('a', '[1,2)', 'on'), ('b', '[5,9)', 'hold'), ('c', '[1,9)', 'off');
ALTER TABLE tickets ENABLE ROW LEVEL SECURITY;
CREATE POLICY seen ON tickets USING (status IN ('new', 'open') AND (priority BETWEEN 1 AND 3 OR EXISTS (SELECT 1 FROM booked b WHERE b.room = tickets.kind AND b.state IN ('on', 'off'))))
  WITH CHECK (kind IN ('bug', 'inc') OR (priority = 1 AND (id = 1 OR id = 2)));
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER on_open BEFORE UPDATE ON tickets FOR EACH ROW WHEN (OLD.status IN ('new', 'open') AND (NEW.priority BETWEEN 1 AND 3 OR NEW.kind IN ('bug', 'inc'))) EXECUTE FUNCTION note();
CREATE CONSTRAINT TRIGGER on_close AFTER UPDATE ON tickets DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.status IN ('new', 'open')) EXECUTE FUNCTION note();
CREATE RULE quiet AS ON DELETE TO booked WHERE OLD.state IN ('on', 'hold') AND (OLD.room <> 'a' OR OLD.room <> 'b') DO INSTEAD NOTHING;
CREATE RULE twice AS ON UPDATE TO booked WHERE NEW.state IN ('on') DO ALSO UPDATE uses_level SET l = 'low' WHERE l IN ('low', 'high');
CREATE STATISTICS st ON (status IN ('new', 'open')), (priority BETWEEN 1 AND 3) FROM tickets;
CREATE FUNCTION is_open(s varchar DEFAULT ('new'::varchar)) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN s IN ('new', 'open') AND (s <> 'x' OR s <> 'y');
CREATE FUNCTION several(a int, b varchar[] DEFAULT ARRAY['x', 'y']::varchar[]) RETURNS SETOF tickets LANGUAGE sql
  BEGIN ATOMIC SELECT * FROM tickets WHERE status IN ('new', 'open') AND priority BETWEEN a AND 5; END;
CREATE TABLE parts (k varchar(4), v int) PARTITION BY LIST ((CASE WHEN k IN ('a', 'b') THEN 1 ELSE 2 END));
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2);
INSERT INTO parts SELECT chr(97 + n % 5), n FROM generate_series(1, 50) n;
CREATE TABLE whole (a int, b text, CHECK (whole IS NOT NULL AND (a IN (1, 2) OR b IN ('x', 'y'))));
INSERT INTO whole VALUES (1, 'z');
