CREATE TABLE files (id int, content oid, small bytea, none bytea);
INSERT INTO files SELECT n, lo_from_bytea(0, convert_to(repeat('x' || n, n * 10), 'UTF8')), '\x00' FROM generate_series(1, 40) n;
-- Longer than one piece, with a hole.
DO $$ DECLARE o oid := lo_create(0); BEGIN
  PERFORM lo_put(o, 0, convert_to('begins', 'UTF8')); PERFORM lo_put(o, 20000000, convert_to('ends', 'UTF8')); INSERT INTO files VALUES (99, o);
  EXECUTE format('COMMENT ON LARGE OBJECT %s IS %L', o, 'with a hole');
END $$;
SELECT lo_create(0);
