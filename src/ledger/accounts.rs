//! The entries of accounts: read, and written at the revision that was read.

use serde::{Deserialize, Serialize};
use sqlx::{FromRow, Row, postgres::PgRow};

use super::{Error, Ledger, count_steps, count_tenants, moment, within};
use crate::{api::account::Certificate, brake::Allowance, clock::Moment, lifecycle::Record};

/// What the ledger knows of one account.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The uid of the account that the data was made for: the marker on its database and roles. Never changes.
    pub uid: String,
    /// The uid of the object that speaks for the account now: another one after an adoption.
    pub object_uid: String,
    /// The account's name.
    pub account: String,
    /// `spec.accountID`.
    pub account_id: Option<String>,
    /// The shard whose operator looks after it.
    pub shard: Option<String>,
    /// Counts the writes of this entry; given by the ledger.
    pub revision: i64,
    /// What the lifecycle remembers.
    pub record: Record,
    /// The tenant's database, from the moment it is decided to make it.
    pub database: Option<DatabaseEntry>,
    /// The tenant's namespace.
    pub namespace: Option<NamespaceEntry>,
    /// Counts how often access was taken or given back: what was started under an older one must not open anything.
    pub access_epoch: i64,
    /// The login in use.
    pub login: Option<LoginEntry>,
    /// The owner, as a keyed hash.
    pub owner_hash: Option<String>,
    /// The proof that nothing is left.
    pub certificate: Option<Certificate>,
    /// What stays of an account that has expired, as its writer chose it.
    pub tombstone: Option<serde_json::Value>,
    /// When the entry was written last, by the server's clock; given by the ledger.
    pub updated_at: Moment,
}

/// Which of a tenant's two logins: one is in use, the other takes over in a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LoginSlot {
    /// `t_…_a`.
    #[default]
    A,
    /// `t_…_b`.
    B,
}

impl LoginSlot {
    /// `a` or `b`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// Reads what [`Self::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::A, Self::B].into_iter().find(|slot| slot.name() == name)
    }

    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Which database is the tenant's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseEntry {
    /// Its name.
    pub name: String,
    /// Its own id, once it was made.
    pub oid: Option<u32>,
    /// The identity of the server that it is on.
    pub system_identifier: String,
}

/// Which namespace is the tenant's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceEntry {
    /// Its name.
    pub name: String,
    /// Its uid, once it was made.
    pub uid: Option<String>,
}

/// The login in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoginEntry {
    /// Which of the two.
    #[serde(rename = "letter")]
    pub slot: LoginSlot,
    /// When its password was set.
    pub password_set_at: Moment,
    /// The newest request for another password that was seen.
    #[serde(default)]
    pub rotation_token: Option<String>,
    /// Whether the other login still exists and waits for its last sessions to end.
    #[serde(default)]
    pub retiring: bool,
    /// The terms under which database and login were made last, as one word; `None`: not wholly made yet.
    #[serde(default)]
    pub terms: Option<String>,
    /// Whether the server has to learn another password, because the operator's copy of the one in use was lost.
    #[serde(default)]
    pub password_lost: bool,
    /// A keyed hash of the password that the server has; `None`: not known, as of an entry of an older version.
    #[serde(default)]
    pub password_hash: Option<String>,
}

/// One account of the ledger in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnRoll {
    /// The uid of the account that the data was made for.
    pub uid: String,
    /// The uid of the object that speaks for the account.
    pub object_uid: String,
    /// The account's name.
    pub account: String,
    /// `spec.accountID`.
    pub account_id: Option<String>,
    /// Whether it has, or may have, a database here.
    pub has_data: bool,
}

impl Entry {
    /// The entry of an account that was just created.
    pub fn new(uid: &str, account: &str, record: Record) -> Self {
        Self {
            uid: uid.to_owned(),
            object_uid: uid.to_owned(),
            account: account.to_owned(),
            account_id: None,
            shard: None,
            revision: 0,
            updated_at: record.decided_at,
            record,
            database: None,
            namespace: None,
            access_epoch: 0,
            login: None,
            owner_hash: None,
            certificate: None,
            tombstone: None,
        }
    }
}

/// The columns of an entry, in an order that every statement shares.
macro_rules! columns {
    () => {
        "uid, object_uid, account, account_id, shard, revision, record::text AS record, database_name, database_oid, \
         system_identifier, namespace_name, namespace_uid, access_epoch, login::text AS login, owner_hash, \
         certificate::text AS certificate, tombstone::text AS tombstone, extract(epoch FROM updated_at)::bigint AS updated_at"
    };
}

impl Ledger {
    /// The entry of the account that the data was made for.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn load(&self, uid: &str) -> Result<Option<Entry>, Error> {
        let query = sqlx::query(concat!("SELECT ", columns!(), " FROM accounts WHERE uid = $1")).bind(uid);
        within("read an entry of the ledger", query.fetch_optional(&self.pool)).await?.map(|row| read(&row)).transpose()
    }

    /// The entry for which this object speaks now.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn load_by_object(&self, object_uid: &str) -> Result<Option<Entry>, Error> {
        let query = sqlx::query(concat!("SELECT ", columns!(), " FROM accounts WHERE object_uid = $1")).bind(object_uid);
        within("read an entry of the ledger", query.fetch_optional(&self.pool)).await?.map(|row| read(&row)).transpose()
    }

    /// The entries with this `spec.accountID`, the newest first; more than one is for a person to sort out.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn load_by_account_id(&self, account_id: &str) -> Result<Vec<Entry>, Error> {
        let query =
            sqlx::query(concat!("SELECT ", columns!(), " FROM accounts WHERE account_id = $1 ORDER BY updated_at DESC")).bind(account_id);
        within("read entries of the ledger", query.fetch_all(&self.pool)).await?.iter().map(read).collect()
    }

    /// The entries of accounts of this name, the newest first: a name may be used again after its quarantine.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn load_by_name(&self, account: &str) -> Result<Vec<Entry>, Error> {
        let query = sqlx::query(concat!("SELECT ", columns!(), " FROM accounts WHERE account = $1 ORDER BY updated_at DESC")).bind(account);
        within("read entries of the ledger", query.fetch_all(&self.pool)).await?.iter().map(read).collect()
    }

    /// Every entry of a shard; `None`: of no shard.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn load_all(&self, shard: Option<&str>) -> Result<Vec<Entry>, Error> {
        let query =
            sqlx::query(concat!("SELECT ", columns!(), " FROM accounts WHERE shard IS NOT DISTINCT FROM $1 ORDER BY uid")).bind(shard);
        within("read the ledger", query.fetch_all(&self.pool)).await?.iter().map(read).collect()
    }

    /// Of every account the uid that its data was made for, and the uid of the object that speaks for it now.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn speakers(&self) -> Result<Vec<(String, String)>, Error> {
        let query = sqlx::query_as("SELECT uid, object_uid FROM accounts ORDER BY uid");
        within("read the ledger", query.fetch_all(&self.pool)).await
    }

    /// Every account in short, of every shard.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn roll(&self) -> Result<Vec<OnRoll>, Error> {
        let query = sqlx::query_as(
            "SELECT uid, object_uid, account, account_id, stage NOT IN ('Deleted', 'Expired') FROM accounts ORDER BY account, uid",
        );
        let rows: Vec<(String, String, String, Option<String>, bool)> =
            within("read the ledger's roll", query.fetch_all(&self.pool)).await?;
        let line = |(uid, object_uid, account, account_id, has_data)| OnRoll { uid, object_uid, account, account_id, has_data };
        Ok(rows.into_iter().map(line).collect())
    }

    /// The uid of every account that has, or may have, data here.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn uids(&self) -> Result<Vec<String>, Error> {
        let query = sqlx::query_scalar("SELECT uid FROM accounts WHERE stage NOT IN ('Deleted', 'Expired') ORDER BY uid");
        within("read the ledger", query.fetch_all(&self.pool)).await
    }

    /// The uid of every account whose database is no more.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn gone(&self) -> Result<Vec<String>, Error> {
        let query = sqlx::query_scalar("SELECT uid FROM accounts WHERE stage IN ('Deleted', 'Expired') ORDER BY uid");
        within("read the ledger", query.fetch_all(&self.pool)).await
    }

    /// Adds an entry and returns it with its first revision.
    ///
    /// # Errors
    /// [`Error::Exists`], or that the ledger cannot be written.
    pub async fn insert(&self, entry: &Entry) -> Result<Entry, Error> {
        let query = sqlx::query(concat!(
            "WITH added AS (INSERT INTO accounts (uid, object_uid, account, account_id, shard, stage, enforced_at, leaves_at, \
             data_gone_by, record, database_name, database_oid, system_identifier, namespace_name, namespace_uid, access_epoch, \
             login, owner_hash, certificate, tombstone, revision) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text::jsonb, $11, $12, $13, $14, $15, $16, $17::text::jsonb, $18, \
             $19::text::jsonb, $20::text::jsonb, 1) ON CONFLICT DO NOTHING RETURNING *), \
             logged AS (INSERT INTO transitions (uid, revision, stage, reason, decided_at) \
             SELECT uid, revision, stage, $21, $22 FROM added) \
             SELECT ",
            columns!(),
            " FROM added"
        ));
        let written = within("add an entry to the ledger", bind(query, entry)?.fetch_optional(&self.pool)).await?;
        written.map_or_else(|| Err(Error::Exists { uid: entry.uid.clone() }), |row| read(&row))
    }

    /// Replaces the entry if it still has the `expected` revision, and returns it with the next one. A stage that
    /// was entered is counted by the brake in the same transaction.
    ///
    /// # Errors
    /// [`Error::Conflict`], or that the ledger cannot be written.
    pub async fn update(&self, entry: &Entry, expected: i64) -> Result<Entry, Error> {
        let query = update(entry, expected)?;
        let written = within("write an entry of the ledger", query.fetch_optional(&self.pool)).await?;
        written.map_or_else(|| Err(Error::Conflict { uid: entry.uid.clone(), expected }), |row| read(&row))
    }

    /// The same for an entry that decides to destroy something, if the brake lets one more such decision through:
    /// counting and storing are one transaction, and one at a time on this server. `None`: the brake holds, and
    /// nothing was written.
    ///
    /// # Errors
    /// [`Error::Conflict`], or that the ledger cannot be written.
    pub async fn update_within(&self, entry: &Entry, expected: i64, allowance: &Allowance) -> Result<Option<Entry>, Error> {
        let query = update(entry, expected)?;
        let work = async {
            let mut transaction = self.pool.begin().await?;
            sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(BRAKE_LOCK).execute(&mut *transaction).await?;
            // Each statement sees what was committed before it began, so these count whoever had the lock before.
            let steps = count_steps(&mut *transaction, allowance.since()).await?;
            let tenants = count_tenants(&mut *transaction).await?;
            if !allowance.lets_through(tenants, steps) {
                return Ok(None);
            }
            let written = query.fetch_optional(&mut *transaction).await?;
            transaction.commit().await?;
            Ok(Some(written))
        };
        match within("store a decision to destroy", work).await? {
            None => Ok(None),
            Some(None) => Err(Error::Conflict { uid: entry.uid.clone(), expected }),
            Some(Some(row)) => read(&row).map(Some),
        }
    }
}

/// Names the advisory lock under which decisions to destroy are counted and stored.
const BRAKE_LOCK: i64 = 0x6864_6272_616B;

/// The statement that replaces an entry of this revision.
fn update(entry: &Entry, expected: i64) -> Result<Query, Error> {
    let query = sqlx::query(concat!(
        "WITH before AS (SELECT uid, stage, record->>'decided_at' AS decided FROM accounts \
         WHERE uid = $1 AND revision = $23 FOR UPDATE), \
         written AS (UPDATE accounts SET object_uid = $2, account = $3, account_id = $4, shard = $5, stage = $6, \
         enforced_at = $7, leaves_at = $8, data_gone_by = $9, record = $10::text::jsonb, database_name = $11, database_oid = $12, \
         system_identifier = $13, namespace_name = $14, namespace_uid = $15, access_epoch = $16, login = $17::text::jsonb, \
         owner_hash = $18, certificate = $19::text::jsonb, tombstone = $20::text::jsonb, revision = accounts.revision + 1, \
         updated_at = now() FROM before WHERE accounts.uid = before.uid RETURNING accounts.*), \
         logged AS (INSERT INTO transitions (uid, revision, stage, reason, decided_at) \
         SELECT written.uid, written.revision, written.stage, $21, $22 FROM written JOIN before USING (uid) \
         WHERE written.stage <> before.stage OR written.record->>'decided_at' <> before.decided) \
         SELECT ",
        columns!(),
        " FROM written"
    ));
    Ok(bind(query, entry)?.bind(expected))
}

type Query = sqlx::query::Query<'static, sqlx::Postgres, sqlx::postgres::PgArguments>;

/// Binds $1 to $22.
fn bind(query: Query, entry: &Entry) -> Result<Query, Error> {
    let Entry {
        uid,
        object_uid,
        account,
        account_id,
        shard,
        revision: _,
        record,
        database,
        namespace,
        access_epoch,
        login,
        owner_hash,
        certificate,
        tombstone,
        updated_at: _,
    } = entry;
    Ok(query
        .bind(uid.clone())
        .bind(object_uid.clone())
        .bind(account.clone())
        .bind(account_id.clone())
        .bind(shard.clone())
        .bind(record.stage.name())
        .bind(record.enforced_at.map(Moment::as_second))
        .bind(record.leaves_at.map(Moment::as_second))
        .bind(record.data_gone_by.map(Moment::as_second))
        .bind(write(uid, "record", record)?)
        .bind(database.as_ref().map(|d| d.name.clone()))
        .bind(database.as_ref().and_then(|d| d.oid).map(i64::from))
        .bind(database.as_ref().map(|d| d.system_identifier.clone()))
        .bind(namespace.as_ref().map(|n| n.name.clone()))
        .bind(namespace.as_ref().and_then(|n| n.uid.clone()))
        .bind(*access_epoch)
        .bind(login.as_ref().map(|l| write(uid, "login", l)).transpose()?)
        .bind(owner_hash.clone())
        .bind(certificate.as_ref().map(|c| write(uid, "certificate", c)).transpose()?)
        .bind(tombstone.as_ref().map(|t| write(uid, "tombstone", t)).transpose()?)
        .bind(record.reason.name())
        .bind(record.decided_at.as_second()))
}

fn write<T: Serialize>(uid: &str, column: &'static str, value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Damaged { uid: uid.to_owned(), column, problem: error.to_string() })
}

fn read(row: &PgRow) -> Result<Entry, Error> {
    let columns = Columns::from_row(row).map_err(|error| Error::Query { step: "read an entry of the ledger", source: error.into() })?;
    columns.try_into()
}

struct Columns {
    uid: String,
    object_uid: String,
    account: String,
    account_id: Option<String>,
    shard: Option<String>,
    revision: i64,
    record: String,
    database_name: Option<String>,
    database_oid: Option<i64>,
    system_identifier: Option<String>,
    namespace_name: Option<String>,
    namespace_uid: Option<String>,
    access_epoch: i64,
    login: Option<String>,
    owner_hash: Option<String>,
    certificate: Option<String>,
    tombstone: Option<String>,
    updated_at: i64,
}

impl<'r> FromRow<'r, PgRow> for Columns {
    fn from_row(row: &'r PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            uid: row.try_get("uid")?,
            object_uid: row.try_get("object_uid")?,
            account: row.try_get("account")?,
            account_id: row.try_get("account_id")?,
            shard: row.try_get("shard")?,
            revision: row.try_get("revision")?,
            record: row.try_get("record")?,
            database_name: row.try_get("database_name")?,
            database_oid: row.try_get("database_oid")?,
            system_identifier: row.try_get("system_identifier")?,
            namespace_name: row.try_get("namespace_name")?,
            namespace_uid: row.try_get("namespace_uid")?,
            access_epoch: row.try_get("access_epoch")?,
            login: row.try_get("login")?,
            owner_hash: row.try_get("owner_hash")?,
            certificate: row.try_get("certificate")?,
            tombstone: row.try_get("tombstone")?,
            updated_at: row.try_get("updated_at")?,
        })
    }
}

impl TryFrom<Columns> for Entry {
    type Error = Error;

    fn try_from(columns: Columns) -> Result<Self, Error> {
        let uid = columns.uid;
        let damaged = |column, problem: String| Error::Damaged { uid: uid.clone(), column, problem };
        let record =
            serde_json::from_str::<Record>(&columns.record).map(Record::up_to_date).map_err(|e| damaged("record", e.to_string()))?;
        let login = columns.login.map(|text| serde_json::from_str(&text)).transpose().map_err(|e| damaged("login", e.to_string()))?;
        let certificate =
            columns.certificate.map(|text| serde_json::from_str(&text)).transpose().map_err(|e| damaged("certificate", e.to_string()))?;
        let tombstone =
            columns.tombstone.map(|text| serde_json::from_str(&text)).transpose().map_err(|e| damaged("tombstone", e.to_string()))?;
        let oid = columns.database_oid.map(u32::try_from).transpose().map_err(|_| damaged("database_oid", "out of range".into()))?;
        let database = match (columns.database_name, columns.system_identifier) {
            (Some(name), Some(system_identifier)) => Some(DatabaseEntry { name, oid, system_identifier }),
            (None, None) => None,
            _ => return Err(damaged("database_name", "name and system identifier belong together".into())),
        };
        Ok(Self {
            updated_at: moment(&uid, "updated_at", columns.updated_at)?,
            object_uid: columns.object_uid,
            account: columns.account,
            account_id: columns.account_id,
            shard: columns.shard,
            revision: columns.revision,
            record,
            database,
            namespace: columns.namespace_name.map(|name| NamespaceEntry { name, uid: columns.namespace_uid }),
            access_epoch: columns.access_epoch,
            login,
            owner_hash: columns.owner_hash,
            certificate,
            tombstone,
            uid,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_stored_under_the_names_that_it_always_had() {
        let stored = r#"{"letter":"b","passwordSetAt":"2026-11-23T10:00:00Z","rotationToken":null,"retiring":false,"terms":null,"passwordLost":false,"passwordHash":null}"#;
        let read: LoginEntry = serde_json::from_str(stored).unwrap();
        assert_eq!((read.slot, serde_json::to_string(&read).unwrap().as_str()), (LoginSlot::B, stored));
    }
}
