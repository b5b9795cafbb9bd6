-- Rows for the schema of DAViCal: calendars of people, written through its own triggers and functions.
INSERT INTO usr (username, password, fullname, email, joined) SELECT 'user' || n, '*x*y' || md5(n::text), 'User ' || n || ' Ünal', 'u' || n || '@example.com', '2026-01-01' FROM generate_series(1, 20) n;
INSERT INTO principal (type_id, user_no, displayname, default_privileges) SELECT 1, user_no, fullname, privilege_to_bits(ARRAY['DAV::read', 'caldav:read-free-busy']) FROM usr WHERE user_no > 1;
INSERT INTO timezones (tzid, olson_name, active, last_modified, etag, vtimezone) VALUES ('Europe/Berlin', 'Europe/Berlin', true, '2026-01-01', 'e', E'BEGIN:VTIMEZONE\r\nEND:VTIMEZONE\r\n');
INSERT INTO collection (user_no, parent_container, dav_name, dav_etag, dav_displayname, is_calendar, created, modified, timezone)
  SELECT user_no, '/' || username || '/', '/' || username || '/calendar/', md5(username), fullname, true, '2026-01-01', '2026-01-01', 'Europe/Berlin' FROM usr WHERE user_no > 1;
INSERT INTO caldav_data (user_no, dav_name, dav_etag, created, modified, caldav_data, caldav_type, logged_user, collection_id)
  SELECT c.user_no, c.dav_name || n || '.ics', md5(c.dav_name || n), '2026-01-01', '2026-01-02', E'BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nSUMMARY:Jour fixe\\, ' || n || E'\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n', 'VEVENT', c.user_no, c.collection_id
  FROM collection c, generate_series(1, 15) n;
INSERT INTO calendar_item (user_no, dav_name, dav_etag, uid, dtstamp, dtstart, dtend, summary, rrule, tz_id, dav_id, collection_id, percent_complete)
  SELECT user_no, dav_name, dav_etag, dav_etag || '@x', '2026-01-01', '2026-03-29 01:30+01', '2026-03-29 03:30+02', 'Jour fixe', 'FREQ=WEEKLY;COUNT=10', 'Europe/Berlin', dav_id, collection_id, 33.33 FROM caldav_data;
INSERT INTO calendar_attendee (dav_id, partstat, cn, attendee) SELECT dav_id, 'ACCEPTED', 'Ana', 'mailto:ana@example.com' FROM caldav_data;
INSERT INTO calendar_alarm (dav_id, count, action, trigger, next_trigger) SELECT dav_id, 1, 'DISPLAY', '-PT15M', '2026-03-29 01:15+01' FROM caldav_data;
INSERT INTO property (dav_name, property_name, property_value, changed_by) SELECT dav_name, 'http://apple.com/ns/ical/:calendar-color', '#ff00ff', user_no FROM collection;
INSERT INTO grants (by_principal, to_principal, privileges) SELECT p.principal_id, q.principal_id, privilege_to_bits('DAV::all') FROM principal p JOIN principal q ON q.principal_id = p.principal_id + 1;
SELECT write_sync_change(collection_id, 200, dav_name || '1.ics') FROM collection;
DELETE FROM usr WHERE user_no % 10 = 0;
