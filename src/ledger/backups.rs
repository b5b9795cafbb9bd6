//! The entries of backups: their deadlines outlive their objects.

use serde::{Deserialize, Serialize};
use sqlx::{Row, postgres::PgRow};

use super::{Error, Ledger, moment, within};
use crate::clock::Moment;

/// What the ledger knows of one backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupEntry {
    /// The `ColdBackup`.
    pub name: String,
    /// The uid of the account whose data it holds.
    pub uid: String,
    /// The account's name.
    pub account: String,
    /// The `BackupStore`.
    pub store: String,
    /// The `BackupStore` that keeps the second copy of its key.
    pub key_escrow: Option<String>,
    /// Where in the store it is.
    pub prefix: String,
    /// Which key opens it.
    pub key_id: Option<String>,
    /// When it is destroyed.
    pub expires_at: Moment,
    /// The phase in its status.
    pub phase: String,
    /// SHA-256 of its manifest, in hexadecimal digits.
    pub manifest_sha256: Option<String>,
}

impl Ledger {
    /// Adds or replaces the entry of a backup. A deadline that is recorded already moves with it: holds and restores
    /// lengthen it. An escrow that is recorded already stays if the entry names none.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Exists`] when a backup of that name belongs to another account.
    pub async fn put_backup(&self, backup: &BackupEntry) -> Result<(), Error> {
        let BackupEntry { name, uid, account, store, key_escrow, prefix, key_id, expires_at, phase, manifest_sha256 } = backup;
        let query = sqlx::query(
            "INSERT INTO backups (name, uid, account, store, prefix, key_id, expires_at, phase, manifest_sha256, key_escrow) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
             ON CONFLICT (name) DO UPDATE SET account = excluded.account, store = excluded.store, prefix = excluded.prefix, \
             key_id = excluded.key_id, expires_at = excluded.expires_at, phase = excluded.phase, \
             manifest_sha256 = excluded.manifest_sha256, \
             key_escrow = coalesce(excluded.key_escrow, backups.key_escrow), updated_at = now() WHERE backups.uid = excluded.uid",
        )
        .bind(name)
        .bind(uid)
        .bind(account)
        .bind(store)
        .bind(prefix)
        .bind(key_id)
        .bind(expires_at.as_second())
        .bind(phase)
        .bind(manifest_sha256)
        .bind(key_escrow);
        match within("record a backup", query.execute(&self.pool)).await?.rows_affected() {
            0 => Err(Error::Exists { uid: name.clone() }),
            _ => Ok(()),
        }
    }

    /// The entry of a backup.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn backup(&self, name: &str) -> Result<Option<BackupEntry>, Error> {
        let query = sqlx::query("SELECT * FROM backups WHERE name = $1").bind(name);
        within("read a backup's entry", query.fetch_optional(&self.pool)).await?.map(|row| read(&row)).transpose()
    }

    /// Every backup of an account, by its deadline.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn backups_of(&self, uid: &str) -> Result<Vec<BackupEntry>, Error> {
        let query = sqlx::query("SELECT * FROM backups WHERE uid = $1 ORDER BY expires_at, name").bind(uid);
        within("read the entries of an account's backups", query.fetch_all(&self.pool)).await?.iter().map(read).collect()
    }

    /// Every backup that is not erased, by its deadline.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn live_backups(&self) -> Result<Vec<BackupEntry>, Error> {
        let query = sqlx::query("SELECT * FROM backups WHERE phase <> 'Erased' ORDER BY expires_at, name");
        within("read the entries of backups", query.fetch_all(&self.pool)).await?.iter().map(read).collect()
    }
}

fn read(row: &PgRow) -> Result<BackupEntry, Error> {
    let columns = || -> Result<(BackupEntry, i64), sqlx::Error> {
        let entry = BackupEntry {
            name: row.try_get("name")?,
            uid: row.try_get("uid")?,
            account: row.try_get("account")?,
            store: row.try_get("store")?,
            key_escrow: row.try_get("key_escrow")?,
            prefix: row.try_get("prefix")?,
            key_id: row.try_get("key_id")?,
            expires_at: Moment::UNIX_EPOCH,
            phase: row.try_get("phase")?,
            manifest_sha256: row.try_get("manifest_sha256")?,
        };
        Ok((entry, row.try_get("expires_at")?))
    };
    let (entry, seconds) = columns().map_err(|error| Error::Query { step: "read a backup's entry", source: error.into() })?;
    Ok(BackupEntry { expires_at: moment(&entry.uid, "expires_at", seconds)?, ..entry })
}
