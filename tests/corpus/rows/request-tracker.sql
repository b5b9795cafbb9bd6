-- Rows for the schema of Request Tracker 5: what its web interface writes when a desk works.
INSERT INTO Principals (PrincipalType) SELECT CASE WHEN n <= 20 THEN 'User' ELSE 'Group' END FROM generate_series(1, 40) n;
INSERT INTO Users (id, Name, Password, EmailAddress, RealName, Signature, Lang, Timezone, Creator, Created, LastUpdated)
  SELECT n, 'agent' || n, '!bcrypt!12!' || md5(n::text), 'agent' || n || '@desk.example', 'Agent ' || chr(64 + n) || ' Müller', E'--\nAgent ' || n || E'\n\t+49 30 ' || n, 'de', 'Europe/Berlin', 1,
    '2025-01-01'::timestamp + n * interval '1 day', '2026-06-01'::timestamp + n * interval '1 hour 7 seconds' FROM generate_series(1, 20) n;
INSERT INTO Groups (id, Name, Domain, Instance, Creator, Created) SELECT n, CASE n % 3 WHEN 0 THEN 'AdminCc' WHEN 1 THEN 'Cc' ELSE 'Requestor' END, 'RT::Ticket-Role', n - 20, 1, '2026-01-01' FROM generate_series(21, 40) n;
INSERT INTO GroupMembers (GroupId, MemberId) SELECT n, 1 + n % 20 FROM generate_series(21, 40) n;
INSERT INTO CachedGroupMembers (GroupId, MemberId, Via, ImmediateParentId) SELECT n, 1 + n % 20, n, n FROM generate_series(21, 40) n;
INSERT INTO Queues (Name, Description, CorrespondAddress, Lifecycle) VALUES ('General', 'Everything', 'help@desk.example', 'default'), ('Zahlungen', 'Rechnungen & Mahnungen', 'pay@desk.example', 'default'), ('___Approvals', NULL, NULL, 'approvals');
INSERT INTO Tickets (EffectiveId, Queue, Type, Owner, Subject, Priority, Status, Told, Due, Creator, Created, LastUpdated)
  SELECT n, 1 + n % 3, 'ticket', 1 + n % 20, CASE WHEN n % 7 = 0 THEN NULL ELSE 'Printer ' || n || ' says "PC LOAD LETTER" \ why?' END, n % 100, (ARRAY['new', 'open', 'stalled', 'resolved'])[1 + n % 4],
    CASE WHEN n % 5 = 0 THEN '1970-01-01'::timestamp END, '2026-12-24'::timestamp - n * interval '1 hour', 1 + n % 20, '2026-01-01'::timestamp + n * interval '11 minutes', '2026-11-01' FROM generate_series(1, 400) n;
INSERT INTO Transactions (ObjectType, ObjectId, Type, Field, OldValue, NewValue, Data, Creator, Created)
  SELECT 'RT::Ticket', 1 + n % 400, (ARRAY['Create', 'Correspond', 'Status', 'Comment'])[1 + n % 4], CASE WHEN n % 4 = 2 THEN 'Status' END, CASE WHEN n % 4 = 2 THEN 'new' END, CASE WHEN n % 4 = 2 THEN 'open' END, NULL, 1 + n % 20,
    '2026-01-01'::timestamp + n * interval '97 seconds' FROM generate_series(1, 2000) n;
INSERT INTO Attachments (TransactionId, MessageId, Subject, Filename, ContentType, ContentEncoding, Content, Headers, Creator, Created)
  SELECT n, md5(n::text) || '@mail.example', 'Re: printer', CASE WHEN n % 10 = 0 THEN 'scan ' || n || '.png' END, CASE WHEN n % 10 = 0 THEN 'image/png' ELSE 'text/plain' END, CASE WHEN n % 10 = 0 THEN 'base64' ELSE 'none' END,
    CASE WHEN n % 10 = 0 THEN encode(convert_to(repeat(md5(n::text), 200), 'UTF8'), 'base64') ELSE E'Hello,\r\n\r\n> it\\n still says "Müll"\t\u20ac\r\n.\r\n\\.\r\n' || n END, E'From: a@b\nTo: c@d\n', 1 + n % 20, '2026-02-02' FROM generate_series(1, 2000) n;
INSERT INTO Links (Base, Target, Type, LocalBase, LocalTarget) SELECT 'fsck.com-rt://desk/ticket/' || n, 'fsck.com-rt://desk/ticket/' || n + 1, 'DependsOn', n, n + 1 FROM generate_series(1, 50) n;
INSERT INTO CustomFields (Name, Type, LookupType, Pattern) VALUES ('Asset', 'Freeform', 'RT::Queue-RT::Ticket', '(?#Digits)^[\d.]+$');
INSERT INTO ObjectCustomFieldValues (CustomField, ObjectType, ObjectId, Content, LargeContent) SELECT 1, 'RT::Ticket', n, 'A-' || n, CASE WHEN n % 9 = 0 THEN repeat('x', 3000) END FROM generate_series(1, 100) n;
INSERT INTO sessions (id, a_session, LastUpdated) VALUES (md5('a'), '\x00ff0a5c27'::bytea, '2026-11-25 10:00:00');
