-- A restore by hand, at the end: fills materialized views, those first that others read, and makes functions as they
-- were. A view that cannot be filled stays empty, and a warning says so.
\set ON_ERROR_STOP on
DO $$
DECLARE
  one record;
  left_before int := -1;
  left_now int;
BEGIN
  LOOP
    SELECT INTO left_now count(*) FROM pg_matviews WHERE NOT ispopulated;
    EXIT WHEN left_now = 0 OR left_now = left_before;
    left_before := left_now;
    FOR one IN SELECT format('%I.%I', schemaname, matviewname) AS name FROM pg_matviews WHERE NOT ispopulated LOOP
      BEGIN
        EXECUTE 'REFRESH MATERIALIZED VIEW ' || one.name;
      EXCEPTION WHEN OTHERS THEN
        RAISE WARNING '%: %', one.name, SQLERRM;
      END;
    END LOOP;
  END LOOP;
  IF to_regclass('helpdesk_restore.paths') IS NOT NULL THEN
    FOR one IN SELECT statement FROM helpdesk_restore.paths LOOP
      EXECUTE one.statement;
    END LOOP;
    DROP SCHEMA helpdesk_restore CASCADE;
  END IF;
END $$;
