-- Who this ledger belongs to, and the highest time that was ever recorded.
CREATE TABLE installation (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    id text NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT now(),
    high_water bigint
);

-- One row an account, for ever: of an account that has expired the tombstone stays.
CREATE TABLE accounts (
    uid text PRIMARY KEY,
    object_uid text NOT NULL UNIQUE,
    account text NOT NULL,
    account_id text,
    shard text,
    revision bigint NOT NULL,
    stage text NOT NULL,
    enforced_at bigint,
    leaves_at bigint,
    data_gone_by bigint,
    record jsonb NOT NULL,
    database_name text,
    database_oid bigint,
    system_identifier text,
    namespace_name text,
    namespace_uid text,
    access_epoch bigint NOT NULL DEFAULT 0,
    login jsonb,
    owner_hash text,
    certificate jsonb,
    tombstone jsonb,
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX accounts_by_account_id ON accounts (account_id) WHERE account_id IS NOT NULL;
CREATE INDEX accounts_by_name ON accounts (account);

-- Every decision to enter a stage: what the brake counts, and the history of an account.
CREATE TABLE transitions (
    uid text NOT NULL REFERENCES accounts (uid),
    revision bigint NOT NULL,
    stage text NOT NULL,
    reason text NOT NULL,
    decided_at bigint NOT NULL,
    PRIMARY KEY (uid, revision)
);
CREATE INDEX transitions_by_time ON transitions (decided_at);

-- Backups, so that their deadlines outlive their objects.
CREATE TABLE backups (
    name text PRIMARY KEY,
    uid text NOT NULL,
    account text NOT NULL,
    store text NOT NULL,
    prefix text NOT NULL,
    key_id text,
    expires_at bigint NOT NULL,
    phase text NOT NULL,
    manifest_sha256 text,
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX backups_by_uid ON backups (uid);
CREATE INDEX backups_by_deadline ON backups (expires_at);
