-- Rows for the schema of Roundcube: people who read their mail.
INSERT INTO users (username, mail_host, created, last_login, language, preferences)
  SELECT 'user' || n, 'mail.example', '2025-05-05 12:00+02', CASE WHEN n % 3 > 0 THEN '2026-11-11 11:11:11.111111+01'::timestamptz END, 'de_DE', 'a:1:{s:8:"timezone";s:' || n || ':"Europe/Berlin";}' FROM generate_series(1, 40) n;
INSERT INTO identities (user_id, name, email, "reply-to", signature, html_signature) SELECT n, 'User ' || n, 'user' || n || '@mail.example', NULL, E'-- \nÜber ' || n, n % 2 FROM generate_series(1, 40) n;
INSERT INTO contacts (user_id, name, email, vcard, words) SELECT 1 + n % 40, 'Contact ' || n, 'c' || n || '@example.com', E'BEGIN:VCARD\r\nVERSION:3.0\r\nFN:Contact ' || n || E'\r\nEND:VCARD', ' contact ' || n FROM generate_series(1, 400) n;
INSERT INTO contactgroups (user_id, name) SELECT n, 'Group ' || n FROM generate_series(1, 10) n;
INSERT INTO contactgroupmembers SELECT 1 + n % 10, n FROM generate_series(1, 200) n;
INSERT INTO "session" VALUES ('s1', '2026-11-25', '2001:db8::1', encode('\x0001ff', 'base64'));
INSERT INTO cache_messages SELECT 1 + n % 40, 'INBOX', n, '2026-12-01', encode(convert_to(repeat('O:8:"stdClass"', n % 50), 'UTF8'), 'base64'), n % 4 FROM generate_series(1, 500) n;
INSERT INTO dictionary VALUES (NULL, 'de', 'Müller'), (1, 'en', 'x');
INSERT INTO searches (user_id, type, name, data) VALUES (1, 0, 'unread', '{}');
INSERT INTO filestore (user_id, context, filename, mtime, data) VALUES (1, 'enigma', 'pubring.gpg', 1, encode('\xdeadbeef', 'base64'));
DELETE FROM users WHERE user_id % 10 = 0;
