-- A restore by hand in sections, between --section=pre-data and --section=data: gives every function of the tenant that
-- names no search path the tenant's own, and takes every check away, which restore-after-rows.sql puts back.
-- Run it with psql as whoever restores, in the database that is restored into.
\set ON_ERROR_STOP on
CREATE SCHEMA helpdesk_restore;
CREATE TABLE helpdesk_restore.paths (statement text);
CREATE TABLE helpdesk_restore.checks (id serial, make text, validate text);

DO $$
DECLARE
  path text := (SELECT string_agg(quote_ident(nspname), ', ' ORDER BY nspname <> 'app', nspname = 'ext', nspname) FROM pg_namespace
                WHERE nspname NOT LIKE 'pg\_%' AND nspname NOT IN ('information_schema', 'helpdesk_restore'));
  one record;
BEGIN
  FOR one IN
    SELECT p.oid::regprocedure AS routine FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
    WHERE p.prokind IN ('f', 'p') AND l.lanname NOT IN ('internal', 'c') AND p.oid >= 16384
      AND NOT EXISTS (SELECT FROM unnest(p.proconfig) s WHERE s LIKE 'search\_path=%')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.deptype = 'e' AND d.classid = 'pg_proc'::regclass AND d.objid = p.oid)
  LOOP
    EXECUTE format('ALTER ROUTINE %s SET search_path = %s', one.routine, path);
    INSERT INTO helpdesk_restore.paths VALUES (format('ALTER ROUTINE %s RESET search_path', one.routine));
  END LOOP;
  -- Parents before their heirs, whose share of a constraint goes with the parent's.
  LOOP
    SELECT INTO one CASE WHEN k.contypid = 0 THEN 'TABLE ' || k.conrelid::regclass ELSE 'DOMAIN ' || k.contypid::regtype END AS what,
      quote_ident(k.conname) AS name, pg_get_constraintdef(k.oid) AS text, k.convalidated
    FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
    WHERE k.contype = 'c' AND k.coninhcount = 0 AND n.nspname NOT LIKE 'pg\_%' AND n.nspname <> 'information_schema'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.deptype = 'e' AND d.objid IN (k.conrelid, k.contypid)) ORDER BY k.oid LIMIT 1;
    EXIT WHEN NOT FOUND;
    INSERT INTO helpdesk_restore.checks (make, validate) VALUES (
      format('ALTER %s ADD CONSTRAINT %s %s', one.what, one.name, one.text || CASE WHEN one.text LIKE '% NOT VALID' THEN '' ELSE ' NOT VALID' END),
      CASE WHEN one.convalidated THEN format('ALTER %s VALIDATE CONSTRAINT %s', one.what, one.name) END);
    EXECUTE format('ALTER %s DROP CONSTRAINT %s', one.what, one.name);
  END LOOP;
END $$;
