-- The BackupStore that keeps the second copy of a backup's key: the store of the backup may name another one meanwhile.
ALTER TABLE backups ADD COLUMN key_escrow text;
