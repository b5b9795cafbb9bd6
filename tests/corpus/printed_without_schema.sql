-- What the server prints without the schema of the operator that it uses, which is an extension's.
CREATE TABLE people (id int PRIMARY KEY, email citext, old citext, extra hstore, CHECK (email IS DISTINCT FROM old OR email IN ('a', 'b')),
  shown text DEFAULT NULLIF('x'::citext, 'X'::citext)::text,
  kind text GENERATED ALWAYS AS (CASE email WHEN 'ana@acme.example'::citext THEN 'owner' ELSE 'other' END) STORED);
INSERT INTO people (id, email, old, extra) SELECT n, 'p' || n || '@Acme.example', NULL, hstore('n', n::text) FROM generate_series(1, 20) n;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TRIGGER on_extra BEFORE UPDATE ON people FOR EACH ROW WHEN (OLD.extra IS DISTINCT FROM NEW.extra) EXECUTE FUNCTION note();
CREATE TRIGGER on_email AFTER UPDATE ON people FOR EACH ROW WHEN (OLD.email IS DISTINCT FROM NEW.email AND NEW.kind::varchar IN ('owner', 'other')) EXECUTE FUNCTION note();
CREATE VIEW changed AS SELECT id, NULLIF(email, old) AS email, CASE email WHEN old THEN 1 ELSE 2 END AS how FROM people WHERE email IS DISTINCT FROM old;
CREATE MATERIALIZED VIEW kinds AS SELECT NULLIF(email, 'x'::citext) AS email, count(*) AS n FROM people GROUP BY 1;
CREATE INDEX people_changed ON people (id) WHERE email IS DISTINCT FROM old;
CREATE INDEX people_shown ON people ((NULLIF(email, old)));
CREATE POLICY own ON people USING (email IS DISTINCT FROM old);
CREATE RULE quiet AS ON DELETE TO people WHERE OLD.email IS DISTINCT FROM OLD.old DO INSTEAD NOTHING;
CREATE FUNCTION differs(a citext, b citext DEFAULT NULLIF('x'::citext, 'X'::citext)) RETURNS boolean LANGUAGE sql IMMUTABLE RETURN a IS DISTINCT FROM b;
