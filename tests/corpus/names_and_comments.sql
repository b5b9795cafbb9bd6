CREATE TABLE "Odd ""name""; --" ("a b" int, "ü" text COLLATE "C", "select" int, "$1" int, "a.b" int, "x
y" int, CONSTRAINT "c ""x"" CHECK" CHECK ("a b" > 0 AND "x
y" IN (1, 2)));
INSERT INTO "Odd ""name""; --" VALUES (1, 'x', 2, 3, 4, 1), (NULL, NULL, NULL, NULL, NULL, NULL);
CREATE INDEX "Ix ; (" ON "Odd ""name""; --" (("a b" + "select")) WHERE "a.b" IN (1, 4);
CREATE VIEW "V ; view" AS SELECT "a b" AS "A", "ü" FROM "Odd ""name""; --" WHERE "select" IN (1, 2);
CREATE SEQUENCE "Seq's";
CREATE TYPE "Mood ;" AS ENUM ('a''b', '"', '\');
CREATE FUNCTION "F ; --"("p q" int DEFAULT 1) RETURNS int LANGUAGE sql AS $_$ SELECT $1 -- $$ ' " \
$_$;
CREATE FUNCTION tr() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER "T ; t" BEFORE INSERT ON "Odd ""name""; --" FOR EACH ROW WHEN (NEW."a b" IN (1, 2)) EXECUTE FUNCTION tr('a''b', '\');
CREATE POLICY "P ; p" ON "Odd ""name""; --" USING ("a b" IN (1, 2));
CREATE RULE "R ; r" AS ON DELETE TO "Odd ""name""; --" WHERE OLD."a b" IN (1, 2) DO INSTEAD NOTHING;
COMMENT ON TABLE "Odd ""name""; --" IS E'it''s\n-- "odd" \\';
COMMENT ON COLUMN "Odd ""name""; --"."a b" IS 'col';
COMMENT ON CONSTRAINT "c ""x"" CHECK" ON "Odd ""name""; --" IS 'con';
COMMENT ON INDEX "Ix ; (" IS 'ix';
COMMENT ON VIEW "V ; view" IS 'v';
COMMENT ON TRIGGER "T ; t" ON "Odd ""name""; --" IS 't';
COMMENT ON POLICY "P ; p" ON "Odd ""name""; --" IS 'p';
COMMENT ON RULE "R ; r" ON "Odd ""name""; --" IS 'r';
COMMENT ON FUNCTION "F ; --"(int) IS 'f';
COMMENT ON TYPE "Mood ;" IS 'm';
COMMENT ON SEQUENCE "Seq's" IS 's';
COMMENT ON SCHEMA app IS 'mine';
CREATE TABLE _under (a int); CREATE TABLE "UPPER" (a int); CREATE TABLE "таблица" ("колонка" text);
INSERT INTO "таблица" VALUES ('значение');
CREATE TABLE "user" ("order" int, "end" int CHECK ("end" IN (1, 2)));
-- What a hostile tenant would plant: none of it may be called by whoever looks.
CREATE TABLE planted (a int, t text);
INSERT INTO planted VALUES (1, 'x');
CREATE FUNCTION boom(r planted) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'planted'; END $$;
CREATE CAST (planted AS text) WITH FUNCTION boom(planted) AS IMPLICIT;
CREATE FUNCTION hash_record_extended(record, int8) RETURNS int8 LANGUAGE plpgsql AS 'BEGIN RETURN 1/0; END';
CREATE FUNCTION count() RETURNS int8 LANGUAGE sql AS 'SELECT 1/0::int8';
CREATE FUNCTION eq(int, int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'planted'; END $$;
CREATE OPERATOR = (LEFTARG = int, RIGHTARG = int, FUNCTION = eq);
