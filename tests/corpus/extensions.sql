-- Extensions that the plan lists: they stand in a schema of the operator's, and the tenant uses them.
CREATE TABLE people (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), email citext UNIQUE NOT NULL CHECK (email LIKE '%@%' AND email NOT IN ('a@b', 'c@d')),
  secret text DEFAULT crypt('first', gen_salt('bf', 4)), extra hstore DEFAULT 'lang=>de', more hstore[], names citext[], plain text GENERATED ALWAYS AS (extra -> 'lang') STORED);
INSERT INTO people (email, extra, more, names) SELECT 'Ana' || n || '@Example.com', hstore(ARRAY['lang', 'quo"te'], ARRAY['d' || n % 3, NULL]), ARRAY['a=>"b c"'::hstore, NULL], ARRAY['X', 'y']::citext[] FROM generate_series(1, 60) n;
CREATE TABLE mails (sender citext REFERENCES people (email), subject text, sealed bytea DEFAULT pgp_sym_encrypt('x', 'y'), digest bytea);
INSERT INTO mails (sender, subject, digest) SELECT 'ANA' || n || '@example.COM', 'Ticket ' || n || ' of the printer', digest(n::text, 'sha256') FROM generate_series(1, 60) n;
CREATE INDEX subjects ON mails USING gin (subject gin_trgm_ops);
CREATE INDEX near ON mails USING gist (subject gist_trgm_ops (siglen = 32)) WHERE similarity(subject, 'printer') > 0.01;
CREATE INDEX extras ON people USING gin (extra);
CREATE INDEX hashed_mail ON people USING hash (email);
CREATE TABLE rooms (room int, owner citext, during tstzrange, EXCLUDE USING gist (room WITH =, during WITH &&) WHERE (owner <> 'nobody'));
INSERT INTO rooms VALUES (1, 'Ana', '[2026-01-01, 2026-01-02)'), (1, 'NOBODY', '[2026-01-01, 2026-01-02)'), (2, 'bo', '[2026-01-01, 2026-01-02)');
CREATE TABLE by_mail (mail citext, n int) PARTITION BY LIST (mail);
CREATE TABLE by_mail_a PARTITION OF by_mail FOR VALUES IN ('a@b', 'C@D');
CREATE TABLE by_mail_x PARTITION OF by_mail DEFAULT;
INSERT INTO by_mail VALUES ('a@b', 1), ('c@d', 2), ('E@f', 3);
CREATE DOMAIN address AS citext CHECK (VALUE ~ '^[^@]+@[^@]+$');
CREATE TYPE contact AS (mail address, extra hstore);
CREATE TABLE contacts (c contact);
INSERT INTO contacts VALUES (ROW('A@b', 'k=>v'));
-- Bodies that name what the extensions made without its schema.
CREATE FUNCTION close_to(a text, b text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN similarity(a, b) > 0.01 AND a % b IS NOT NULL; END $$;
CREATE TABLE guarded (t text CHECK (close_to(t, 'printer')));
CREATE INDEX guarded_close ON guarded (close_to(t, 'x'));
INSERT INTO guarded SELECT 'printer ' || n FROM generate_series(1, 20) n;
CREATE FUNCTION same_mail(a citext, b citext DEFAULT 'ana@example.com') RETURNS boolean LANGUAGE sql IMMUTABLE RETURN a = b;
CREATE FUNCTION note_change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.extra := NEW.extra || hstore('by', 'x'); RETURN NEW; END $$;
CREATE TRIGGER note BEFORE UPDATE ON people FOR EACH ROW WHEN (OLD.extra <> NEW.extra AND OLD.email = 'ana1@example.com') EXECUTE FUNCTION note_change();
CREATE VIEW likely AS SELECT p.email, m.subject <-> 'printer' AS far, p.extra ? 'lang' AS known FROM people p JOIN mails m ON m.sender = p.email WHERE m.subject % 'printer' OR p.email IN ('A@b', 'c@D') ORDER BY p.email;
CREATE MATERIALIZED VIEW langs AS SELECT extra -> 'lang' AS lang, count(*) AS n FROM people GROUP BY 1;
ALTER TABLE people ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_mail ON people USING (email = current_setting('app.mail', true)::citext OR extra ? 'public');
