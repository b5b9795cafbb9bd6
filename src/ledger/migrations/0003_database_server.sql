-- The name of the DatabaseServer that this server is.
ALTER TABLE installation ADD COLUMN database_server text;
