//! `ColdBackup`: one backup with its own deadline.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Hold, VerifyMode};

/// One backup of one account's database, with a deadline and a finalizer of its own: it outlives the database and,
/// if need be, the account, and is destroyed on time. A person may create one to have a backup now.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "helpdesk-operator.io",
    version = "v1alpha1",
    kind = "ColdBackup",
    shortname = "hcb",
    category = "helpdesk",
    status = "ColdBackupStatus",
    derive = "PartialEq",
    selectable = ".spec.account",
    selectable = ".spec.store",
    selectable = ".status.phase",
    printcolumn(json_path = ".spec.account", name = "Account", type_ = "string"),
    printcolumn(json_path = ".spec.reason", name = "Reason", type_ = "string"),
    printcolumn(json_path = ".status.phase", name = "Phase", type_ = "string"),
    printcolumn(json_path = ".status.bytes", name = "Bytes", type_ = "integer"),
    printcolumn(json_path = ".status.verifiedAt", name = "Verified", type_ = "date"),
    printcolumn(json_path = ".spec.expiresAt", name = "Expires", type_ = "string"),
    printcolumn(json_path = ".spec.store", name = "Store", type_ = "string", priority = 1),
    validation = Rule::new("self.metadata.name.size() <= 63").message("the name of a backup has at most 63 characters"),
    validation = Rule::new("self.spec.account == oldSelf.spec.account && self.spec.accountUID == oldSelf.spec.accountUID && self.spec.store == oldSelf.spec.store && self.spec.expiresAt == oldSelf.spec.expiresAt && self.spec.reason == oldSelf.spec.reason && self.spec.verify == oldSelf.spec.verify").message("a ColdBackup is immutable but for hold: create another one instead"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ColdBackupSpec {
    /// The account whose database is backed up.
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub account: String,
    /// The account's uid: another account of the same name has another.
    #[serde(rename = "accountUID")]
    #[schemars(length(min = 36, max = 36), regex(pattern = r"^[0-9a-f-]{36}$"))]
    pub account_uid: String,
    /// The `BackupStore`.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub store: String,
    /// When it is destroyed: every version, every key.
    pub expires_at: Time,
    /// Why it is taken.
    pub reason: BackupReason,
    /// How it is proven.
    #[serde(default)]
    pub verify: VerifyMode,
    /// While it is set the backup is not destroyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
}

/// Why a backup is taken.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackupReason {
    /// By the plan's schedule.
    Scheduled,
    /// Once nobody is in any more; the one that outlives the database.
    Frozen,
    /// By a person.
    Manual,
}

/// Where a backup is in its own life.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum BackupPhase {
    /// Waiting for its turn.
    #[default]
    Pending,
    /// Being taken and proven.
    Running,
    /// Downloaded again, decrypted, and restored or decoded; equal to its source.
    Verified,
    /// Could not be taken or proven; tried again while its reason holds.
    Failed,
    /// Being destroyed.
    Erasing,
    /// Every version, marker and open upload is gone, and so are its keys.
    Erased,
}

/// How much memory a mover may use: more after one ran out of it.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum MoverMemory {
    /// Enough for nearly every database: what the tools need grows with the number of tables and with the longest row,
    /// not with the size of the database.
    #[default]
    #[serde(rename = "256Mi")]
    Small,
    /// For many thousand tables, or rows of more than fifty megabytes.
    #[serde(rename = "1Gi")]
    Medium,
    /// For the longest rows that PostgreSQL has.
    #[serde(rename = "4Gi")]
    Large,
}

impl MoverMemory {
    /// The limit, as Kubernetes writes it.
    pub const fn limit(self) -> &'static str {
        match self {
            Self::Small => "256Mi",
            Self::Medium => "1Gi",
            Self::Large => "4Gi",
        }
    }

    /// What is set aside for it, as Kubernetes writes it: a quarter of the limit, and what every mover needs at least.
    pub const fn request(self) -> &'static str {
        match self {
            Self::Small => "128Mi",
            Self::Medium => "256Mi",
            Self::Large => "1Gi",
        }
    }

    /// What the next mover gets after one ran out of this much; `None` after the largest.
    pub const fn next(self) -> Option<Self> {
        match self {
            Self::Small => Some(Self::Medium),
            Self::Medium => Some(Self::Large),
            Self::Large => None,
        }
    }
}

/// A run of attempts that failed for a reason of the backup's own. A database or a bucket that could not be reached is
/// none, and is not counted.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failing {
    /// When the first of them failed.
    pub since: Time,
    /// How many there were.
    pub attempts: i32,
    /// One word for the first failure.
    pub reason: String,
    /// What the first failure was.
    pub message: String,
    /// Since when it is taken for unprovable; it is tried again all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unprovable_since: Option<Time>,
}

/// How a dump is restored. The README says how a person does the same by hand.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Way {
    /// By one `pg_restore`.
    #[default]
    Plain,
    /// In sections: definitions; then, with the tenant's own search path in its functions and without checks, the rows;
    /// then checks, indexes and the rest. For databases whose functions rely on their owner's search path, whose checks
    /// read other tables, or whose rows break their own constraints.
    Sections,
    /// In sections, and with the tenant's search path in the restoring session too: for definitions that the server
    /// prints without the schema that they need, such as `IS DISTINCT FROM` over a type of an extension.
    SectionsWithPath,
}

/// What is true of the backup.
#[derive(KubeSchema, Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ColdBackupStatus {
    /// The generation that the rest is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where in its life it is.
    #[serde(default)]
    pub phase: BackupPhase,
    /// Its folder in the bucket, with the store's prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// SHA-256 of its manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_sha256: Option<String>,
    /// Size of its objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// When the dump began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When its last byte was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// When it was proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<Time>,
    /// When nothing of it was seen to be left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased_at: Option<Time>,
    /// When its key was destroyed, in the cluster and in escrow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shredded_at: Option<Time>,
    /// How it was restored when it was proven: by one `pg_restore`, or in sections. A restore by hand goes the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_by: Option<Way>,
    /// What its rows do not let be made again as it was, although every row is there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// The public key that its objects are encrypted to.
    #[serde(default, rename = "keyID", skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// How often a mover was started for it.
    #[serde(default)]
    pub attempts: i32,
    /// How much memory its next mover may use. It is raised when one ran out of memory, and counts for restores too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mover_memory: Option<MoverMemory>,
    /// The attempts that came to nothing for a reason of the backup's own, since one last succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<Failing>,
    /// Ready, Stalled, Held, Unprovable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
