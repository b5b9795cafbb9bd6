-- Functions whose bodies rely on their owner's search path, called while a restore loads rows or makes indexes.
CREATE FUNCTION norm(t text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT lower(t) $$;
CREATE FUNCTION norm2(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RETURN norm(t) || 'x'; END $$;
CREATE TABLE k (t text, CHECK (norm2(t) <> ''));
INSERT INTO k SELECT 'K' || n FROM generate_series(1, 20) n;
CREATE TABLE g (t text, n text GENERATED ALWAYS AS (norm2(t)) STORED);
INSERT INTO g (t) SELECT 'G' || n FROM generate_series(1, 20) n;
CREATE TABLE i (t text);
CREATE INDEX i_norm ON i ((norm2(t)));
INSERT INTO i SELECT 'I' || n FROM generate_series(1, 20) n;
CREATE DOMAIN d AS text CHECK (norm2(VALUE) <> 'x');
CREATE TABLE uses_d (d d);
INSERT INTO uses_d SELECT 'D' || n FROM generate_series(1, 20) n;
CREATE TABLE fires (t text);
CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.t := norm2(NEW.t); RETURN NEW; END $$;
CREATE TRIGGER fire BEFORE INSERT ON fires FOR EACH ROW EXECUTE FUNCTION fire();
ALTER TABLE fires ENABLE ALWAYS TRIGGER fire;
INSERT INTO fires SELECT 'F' || n FROM generate_series(1, 20) n;
-- A check that reads a table which is loaded later.
CREATE TABLE a_children (parent int);
CREATE TABLE z_parents (id int PRIMARY KEY);
CREATE FUNCTION has_parent(p int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN EXISTS (SELECT FROM z_parents WHERE id = p); END $$;
INSERT INTO z_parents SELECT generate_series(1, 10);
ALTER TABLE a_children ADD CHECK (has_parent(parent));
INSERT INTO a_children SELECT generate_series(1, 10);
-- Checks that heirs share.
CREATE TABLE p (t text, CONSTRAINT both_have CHECK (norm2(t) <> ''));
CREATE TABLE p_heir (u text) INHERITS (p);
CREATE TABLE p_grown (t text, CONSTRAINT both_have CHECK (norm2(t) <> ''), CONSTRAINT own_one CHECK (norm2(t) <> 'y'));
ALTER TABLE p_grown INHERIT p;
INSERT INTO p VALUES ('a'); INSERT INTO p_heir VALUES ('b', 'c'); INSERT INTO p_grown VALUES ('d');
CREATE TABLE q (t text, CHECK (norm2(t) <> 'q')) PARTITION BY HASH (t);
CREATE TABLE q_0 PARTITION OF q FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE q_1 PARTITION OF q FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO q SELECT 'Q' || n FROM generate_series(1, 20) n;
-- Old rows were there first.
ALTER TABLE k ADD CONSTRAINT later CHECK (norm2(t) <> 'kx') NOT VALID;
CREATE FUNCTION own_path(t text) RETURNS text LANGUAGE plpgsql IMMUTABLE SET search_path = app AS $$ BEGIN RETURN norm(t); END $$;
CREATE PROCEDURE does(t text) LANGUAGE plpgsql AS $$ BEGIN PERFORM norm2(t); END $$;
