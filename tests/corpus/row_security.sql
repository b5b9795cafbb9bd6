-- Row security that holds back even the owner, and policies that would do harm if they were evaluated.
CREATE TABLE secrets (id int, owner text);
INSERT INTO secrets SELECT n, 'o' || n % 3 FROM generate_series(1, 30) n;
CREATE FUNCTION harm(o text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a policy was evaluated for %', current_user; END $$;
CREATE POLICY mine ON secrets USING (harm(owner));
ALTER TABLE secrets ENABLE ROW LEVEL SECURITY;
ALTER TABLE secrets FORCE ROW LEVEL SECURITY;
CREATE TABLE shut (id int);
INSERT INTO shut VALUES (1);
ALTER TABLE shut ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE TABLE parted (id int, o text) PARTITION BY LIST (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
INSERT INTO parted VALUES (1, 'x');
ALTER TABLE parted ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE parted_1 ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY restrictive ON parted AS RESTRICTIVE FOR UPDATE TO CURRENT_ROLE USING (id = 1) WITH CHECK (o = current_user);
CREATE TABLE inner_t (id int);
CREATE POLICY sub ON inner_t FOR SELECT USING (id IN (SELECT p.id FROM parted p WHERE p.o IN ('x', 'y')));
CREATE MATERIALIZED VIEW seen AS SELECT count(*) AS n FROM shut;
