-- Exclusion constraints on partitioned tables, which PostgreSQL 17 brought. Version 18.4 attaches none of their indexes.
CREATE TABLE rented (room int4range, during tstzrange, note text, CONSTRAINT once EXCLUDE USING gist (room WITH =, during WITH &&)) PARTITION BY RANGE (room);
CREATE TABLE rented_low PARTITION OF rented FOR VALUES FROM (MINVALUE) TO ('[100,200)');
CREATE TABLE rented_high PARTITION OF rented DEFAULT PARTITION BY RANGE (room);
CREATE TABLE rented_highest PARTITION OF rented_high DEFAULT;
ALTER TABLE rented_low RENAME CONSTRAINT rented_low_room_during_excl TO "low once";
INSERT INTO rented VALUES ('[1,2)', '[2026-01-01,2026-02-01)', 'a'), ('[1,2)', '[2026-02-01,2026-03-01)', 'b'), ('[500,501)', '[2026-02-01,2026-03-01)', 'c');
CREATE TABLE apart (room int4range, during tstzrange) PARTITION BY RANGE (room);
CREATE TABLE apart_1 PARTITION OF apart DEFAULT;
ALTER TABLE ONLY apart ADD CONSTRAINT not_attached EXCLUDE USING gist (room WITH =, during WITH &&);
