//! The certificate of deletion, and the authority under which a database was dropped.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The authority under which a database was dropped.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DroppedUnder {
    /// Why the drop was allowed.
    pub ground: DropGround,
    /// The `ColdBackup` that was verified, or that could not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// When the snapshot of the verified backup was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_at: Option<Time>,
    /// Definitions that a restore of the verified backup leaves out or changes, although it restores every row.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// Why no backup could be verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// The person who asked to drop the database without a verified backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
    /// The person who approved that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
}

impl DroppedUnder {
    /// Creates one with this ground and no other field.
    pub const fn by(ground: DropGround) -> Self {
        Self { ground, backup: None, snapshot_at: None, left_out: Vec::new(), because: None, requested_by: None, approved_by: None }
    }
}

/// Why the drop of a database is allowed.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DropGround {
    /// A backup was verified, and the operator checked just before the drop that it is complete.
    VerifiedBackup,
    /// The owner asked for erasure without a backup.
    OwnerWaiver,
    /// No backup could be verified, and the promised `dataGoneBy` had come.
    PromiseElapsed,
    /// No backup could be verified, and two people agreed not to wait until `dataGoneBy`.
    TwoPeople,
}

/// Copies of an account's data that lie outside of the operator's reach.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OtherCopies {
    /// Which copies.
    pub kind: OtherCopy,
    /// When the last of them is gone, by what the installation was told; absent if it was told nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_by: Option<Time>,
}

/// Where copies may be that the operator neither makes nor sees.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OtherCopy {
    /// Physical backups and disk snapshots of the database server.
    ServerBackups,
    /// Standbys that do not follow any more, and archived WAL.
    ServerReplicas,
    /// Copies of the bucket by the store's own replication. Without their destroyed keys they cannot be read.
    BucketReplicas,
    /// Snapshots of etcd, with the account's spec and the tenant's Secrets.
    EtcdSnapshots,
}

impl OtherCopy {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::ServerBackups, Self::ServerReplicas, Self::BucketReplicas, Self::EtcdSnapshots];
}

/// The signed certificate that nothing of the account is left.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// When the operator saw that the last part was gone.
    pub issued_at: Time,
    /// The numbers of destroyed objects that the operator saw to be gone, by kind.
    pub destroyed: BTreeMap<String, i64>,
    /// The number of empty roles that stay on the database server, because others named them in databases of their own.
    /// Nobody can log in as such a role; the operator drops it as soon as the server allows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles_left: Option<i64>,
    /// The authority under which the database was dropped; absent if there was no database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<DroppedUnder>,
    /// The first promised time by which nothing was to be left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promised_by: Option<Time>,
    /// Copies that the operator cannot see.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_counted: Vec<OtherCopies>,
    /// What delayed the end, as the condition Overdue said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delayed_by: Vec<String>,
    /// SHA-256 over the certificate's facts, as hexadecimal digits.
    pub sha256: String,
    /// The signature of the installation's key over the same facts, in base64 (Ed25519).
    pub signature: String,
    /// What is true of the copies in `notCounted`.
    pub note: String,
}
