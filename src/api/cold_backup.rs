//! `ColdBackup`: one backup with its own deadline.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Hold, VerifyMode};

/// One backup of one account's database. It has its own deadline and finalizer: it may outlive the database and the
/// account, and the operator erases it at its deadline. A person may create one to take a backup now.
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
    printcolumn(json_path = ".status.conditions[?(@.type==\"Ready\")].status", name = "Ready", type_ = "string"),
    printcolumn(json_path = ".status.conditions[?(@.type==\"Ready\")].reason", name = "Why", type_ = "string", priority = 1),
    printcolumn(json_path = ".spec.store", name = "Store", type_ = "string", priority = 1),
    validation = Rule::new("self.metadata.name.size() <= 63").message("the name of a backup has at most 63 characters"),
    validation = Rule::new("self.spec.account == oldSelf.spec.account && self.spec.accountUID == oldSelf.spec.accountUID && self.spec.store == oldSelf.spec.store && self.spec.expiresAt == oldSelf.spec.expiresAt && self.spec.reason == oldSelf.spec.reason && self.spec.verify == oldSelf.spec.verify").message("a ColdBackup is immutable but for hold: create another one instead"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ColdBackupSpec {
    /// The account whose database is backed up.
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub account: String,
    /// The account's uid. Another account of the same name has another uid.
    #[serde(rename = "accountUID")]
    #[schemars(length(min = 36, max = 36), regex(pattern = r"^[0-9a-f-]{36}$"))]
    pub account_uid: String,
    /// The `BackupStore` that the backup is written to.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub store: String,
    /// When the operator erases every version of the backup's objects and every copy of its key.
    pub expires_at: Time,
    /// Why the backup is taken.
    pub reason: BackupReason,
    /// How the backup is verified.
    #[serde(default)]
    pub verify: VerifyMode,
    /// A legal hold. While it is set, the operator never erases the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
}

/// Why a backup is taken.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackupReason {
    /// The plan's schedule is due.
    Scheduled,
    /// The account was closed and nobody can log in any more. This backup is kept after the database is dropped.
    Frozen,
    /// The account is upgraded, and the hook `migrate` of its class is to run.
    Upgrade,
    /// A person created it.
    Manual,
}

impl BackupReason {
    /// Whether its object says, for as long as the account exists, that the backup was erased.
    pub const fn is_evidence(self) -> bool {
        matches!(self, Self::Frozen | Self::Manual)
    }
}

/// The phase of a backup.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum BackupPhase {
    /// The backup waits until a mover may start.
    #[default]
    Pending,
    /// A mover takes and verifies the backup.
    Running,
    /// The backup was downloaded, decrypted, and restored or decoded, and equals its source.
    Verified,
    /// The backup could not be taken or verified. The operator tries again while the backup is needed.
    Failed,
    /// The operator erases the backup.
    Erasing,
    /// Every version, delete marker and open upload is gone, and so are the keys.
    Erased,
}

impl BackupPhase {
    /// All phases.
    pub const ALL: [Self; 6] = [Self::Pending, Self::Running, Self::Verified, Self::Failed, Self::Erasing, Self::Erased];

    /// The name in status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Verified => "Verified",
            Self::Failed => "Failed",
            Self::Erasing => "Erasing",
            Self::Erased => "Erased",
        }
    }
}

/// The memory limit of a mover. It is raised after a mover ran out of memory.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum MoverMemory {
    /// Enough for nearly every database. The memory that the tools need grows with the number of tables and with the
    /// longest row, not with the size of the database.
    #[default]
    #[serde(rename = "256Mi")]
    Small,
    /// For many thousand tables, or rows of more than fifty megabytes.
    #[serde(rename = "1Gi")]
    Medium,
    /// For the longest rows that PostgreSQL can store.
    #[serde(rename = "4Gi")]
    Large,
}

impl MoverMemory {
    /// The limit as a Kubernetes quantity.
    pub const fn limit(self) -> &'static str {
        match self {
            Self::Small => "256Mi",
            Self::Medium => "1Gi",
            Self::Large => "4Gi",
        }
    }

    /// The request as a Kubernetes quantity: a quarter of the limit, but at least what every mover needs.
    pub const fn request(self) -> &'static str {
        match self {
            Self::Small => "128Mi",
            Self::Medium => "256Mi",
            Self::Large => "1Gi",
        }
    }

    /// The next larger value, for the mover after one that ran out of memory; `None` after the largest.
    pub const fn next(self) -> Option<Self> {
        match self {
            Self::Small => Some(Self::Medium),
            Self::Medium => Some(Self::Large),
            Self::Large => None,
        }
    }
}

/// A run of attempts that failed because of the database's contents. Attempts that failed because a database or a
/// bucket could not be reached are not counted.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failing {
    /// When the first of these attempts failed.
    pub since: Time,
    /// The number of these attempts.
    pub attempts: i32,
    /// One word for the first failure.
    pub reason: String,
    /// The error of the first failure.
    pub message: String,
    /// Since when the operator considers the backup unprovable. It still tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unprovable_since: Option<Time>,
}

/// How a dump is restored. The README says how to do the same by hand.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum Way {
    /// With one `pg_restore`.
    #[default]
    Plain,
    /// In sections: first the definitions; then the rows, with the tenant's search path in its functions and without
    /// checks; then checks, indexes and the rest. For databases whose functions rely on their owner's search path,
    /// whose checks read other tables, or whose rows violate their constraints.
    Sections,
    /// In sections, and with the tenant's search path in the restoring session too. For definitions that the server
    /// prints without a schema that they need, such as `IS DISTINCT FROM` over a type of an extension.
    SectionsWithPath,
}

/// The observed state of the backup.
#[derive(KubeSchema, Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ColdBackupStatus {
    /// The `metadata.generation` that the rest of the status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The phase of the backup.
    #[serde(default)]
    pub phase: BackupPhase,
    /// The backup's folder in the bucket, with the store's prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The SHA-256 of the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_sha256: Option<String>,
    /// The size of the backup's objects in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
    /// When the dump began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When the last byte was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<Time>,
    /// When the backup was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<Time>,
    /// Until when the backup is kept beyond its deadline, because it is the newest proven one of its account. It is erased
    /// as soon as another is proven, and the time is moved on while none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retained_until: Option<Time>,
    /// When the operator saw that nothing of the backup was left in the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased_at: Option<Time>,
    /// When the backup's key was destroyed, in the cluster and in the escrow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shredded_at: Option<Time>,
    /// How the backup was restored when it was verified. A restore by hand must use the same way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_by: Option<Way>,
    /// Definitions that a restore leaves out or changes because the rows violate them. Every row is restored.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// The public key (age) to which the objects are encrypted.
    #[serde(default, rename = "keyID", skip_serializing_if = "Option::is_none")]
    pub key_id: Option<String>,
    /// The `BackupStore` that keeps the second copy of the key. It stays when the backup's store names another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_escrow: Option<String>,
    /// How often a mover was started for the backup.
    #[serde(default)]
    pub attempts: i32,
    /// The memory limit of the next mover. It is raised after a mover ran out of memory, and applies to restores too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mover_memory: Option<MoverMemory>,
    /// The attempts since the last success that failed because of the database's contents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing: Option<Failing>,
    /// Ready, Stalled, Held, Overdue, Unprovable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
