-- Read again under an empty search path this means another operator, and is printed as before.
CREATE TABLE addresses (email citext, old citext, CHECK (email IS DISTINCT FROM old));
INSERT INTO addresses VALUES ('Ana@acme.example', 'bo@acme.example');
