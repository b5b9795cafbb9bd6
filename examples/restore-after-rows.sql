-- A restore by hand in sections, between --section=data and --section=post-data: puts the checks back. One that the rows
-- do not meet stays NOT VALID, and a warning says so.
\set ON_ERROR_STOP on
DO $$
DECLARE one record;
BEGIN
  FOR one IN SELECT make FROM helpdesk_restore.checks ORDER BY id LOOP
    EXECUTE one.make;
  END LOOP;
  FOR one IN SELECT validate FROM helpdesk_restore.checks WHERE validate IS NOT NULL ORDER BY id LOOP
    BEGIN
      EXECUTE one.validate;
    EXCEPTION WHEN OTHERS THEN
      RAISE WARNING '%: %', one.validate, SQLERRM;
    END;
  END LOOP;
END $$;
