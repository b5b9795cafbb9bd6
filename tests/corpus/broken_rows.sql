-- Rows that break constraints of their own: every row comes back, and the constraint is named.
CREATE TABLE parents (id int PRIMARY KEY);
CREATE TABLE children (id int PRIMARY KEY, parent int REFERENCES parents ON DELETE CASCADE);
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER keep BEFORE DELETE ON children FOR EACH ROW EXECUTE FUNCTION keep();
INSERT INTO parents VALUES (1), (2);
INSERT INTO children VALUES (1, 1), (2, 2);
DELETE FROM parents WHERE id = 1;
-- The rule has changed since.
CREATE FUNCTION good(n int) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT n > 0 $$;
CREATE TABLE checked (n int CONSTRAINT is_good CHECK (good(n)));
COMMENT ON CONSTRAINT is_good ON checked IS 'since 2026';
INSERT INTO checked VALUES (1), (2);
CREATE OR REPLACE FUNCTION good(n int) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT n > 1 $$;
-- Two keys are one since a function changed.
CREATE FUNCTION key_of(t text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT t $$;
CREATE TABLE doubled (t text);
CREATE UNIQUE INDEX doubled_key ON doubled (key_of(t));
COMMENT ON INDEX doubled_key IS 'one of each';
INSERT INTO doubled VALUES ('a'), ('A');
CREATE OR REPLACE FUNCTION key_of(t text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT lower(t) $$;
-- An index whose function fails for some rows by now.
CREATE FUNCTION inverse(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN n; END $$;
CREATE TABLE inverted (n int);
CREATE INDEX inverted_n ON inverted (inverse(n));
INSERT INTO inverted VALUES (0), (1);
CREATE OR REPLACE FUNCTION inverse(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN 1 / n; END $$;
CREATE FUNCTION level_ok(t text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT true $$;
CREATE DOMAIN level AS text CONSTRAINT ok CHECK (level_ok(VALUE));
CREATE TABLE levels (l level);
INSERT INTO levels VALUES ('low'), ('odd');
CREATE OR REPLACE FUNCTION level_ok(t text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$ SELECT t <> 'odd' $$;
-- A value that is computed otherwise by now.
CREATE FUNCTION tax(n int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT n * 19 $$;
CREATE TABLE bills (n int, taxed int GENERATED ALWAYS AS (tax(n)) STORED);
INSERT INTO bills VALUES (1), (2);
CREATE OR REPLACE FUNCTION tax(n int) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT n * 16 $$;
