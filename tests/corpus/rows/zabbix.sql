-- Rows for the schema of Zabbix, whose own images are there already: hosts, their problems, and who looks after them.
INSERT INTO role (roleid, name, type) VALUES (1, 'User role', 1), (2, 'Admin role', 2);
INSERT INTO users (userid, username, name, passwd, roleid) SELECT n, 'op' || n, 'Operator ' || n, '$2y$10$' || md5(n::text), 1 + n % 2 FROM generate_series(1, 10) n;
INSERT INTO hstgrp (groupid, name, uuid) VALUES (1, 'Linux servers', md5('1')), (2, 'Drucker', md5('2'));
-- Triggers write names in capitals and a log of changes.
INSERT INTO hosts (hostid, host, name, description) SELECT 10000 + n, 'host' || n, 'Größe ' || n, repeat('d', n) FROM generate_series(1, 60) n;
INSERT INTO items (itemid, hostid, name, key_, value_type) SELECT 20000 + n, 10001 + n % 60, 'CPU load ' || n, 'system.cpu.load[,avg' || n || ']', n % 4 FROM generate_series(1, 300) n;
INSERT INTO history (itemid, clock, value, ns) SELECT 20001 + n % 300, 1760000000 + n, n / 7.0, n FROM generate_series(1, 3000) n;
INSERT INTO history_text (itemid, clock, value, ns) SELECT 20001 + n % 300, 1760000000 + n, E'line\n\\N\t' || n, n FROM generate_series(1, 300) n;
INSERT INTO triggers (triggerid, expression, description) SELECT n, '{' || n || '}>5', 'Load is high on {HOST.NAME} ' || n FROM generate_series(1, 100) n;
INSERT INTO events (eventid, objectid, clock, value, name, severity) SELECT n, 1 + n % 100, 1760000000 + n, n % 2, 'Load is high on host' || n, n % 6 FROM generate_series(1, 1000) n;
INSERT INTO problem (eventid, objectid, clock, name, severity) SELECT n, 1 + n % 100, 1760000000 + n, 'Load is high on host' || n, n % 6 FROM generate_series(1, 1000, 2) n;
INSERT INTO acknowledges (acknowledgeid, userid, eventid, clock, message) SELECT n, 1 + n % 10, n, 1760000001 + n, 'Ich schaue nach: ' || n FROM generate_series(1, 200) n;
UPDATE hosts SET name = 'renamed ' || hostid WHERE hostid % 5 = 0;
DELETE FROM items WHERE itemid % 11 = 0;
