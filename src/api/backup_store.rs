//! `BackupStore`: one bucket.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// One S3 bucket for cold backups. Its location cannot change while it has backups.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "helpdesk-operator.io",
    version = "v1alpha1",
    kind = "BackupStore",
    shortname = "hbs",
    category = "helpdesk",
    status = "BackupStoreStatus",
    derive = "PartialEq",
    selectable = ".spec.region",
    printcolumn(json_path = ".spec.region", name = "Region", type_ = "string"),
    printcolumn(json_path = ".spec.endpoint", name = "Endpoint", type_ = "string"),
    printcolumn(json_path = ".spec.bucket", name = "Bucket", type_ = "string"),
    printcolumn(json_path = ".status.backups", name = "Backups", type_ = "integer"),
    printcolumn(json_path = ".status.keys", name = "Keys", type_ = "integer"),
    printcolumn(json_path = ".status.versioning", name = "Versioning", type_ = "string"),
    printcolumn(json_path = ".status.conditions[?(@.type==\"Ready\")].status", name = "Ready", type_ = "string"),
    printcolumn(json_path = ".status.conditions[?(@.type==\"Ready\")].reason", name = "Reason", type_ = "string"),
    validation = Rule::new("self.metadata.name.size() <= 40").message("the name of a store has at most 40 characters"),
    validation = Rule::new("!has(oldSelf.status) || ((!has(oldSelf.status.backups) || oldSelf.status.backups == 0) && (!has(oldSelf.status.keys) || oldSelf.status.keys == 0)) || (self.spec.endpoint == oldSelf.spec.endpoint && self.spec.bucket == oldSelf.spec.bucket && self.spec.prefix == oldSelf.spec.prefix && self.spec.region == oldSelf.spec.region)").message("region, endpoint, bucket and prefix cannot change while the store holds backups or keys of backups"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupStoreSpec {
    /// The region of the accounts whose backups it may have. Requests are signed for this region too, unless
    /// `signingRegion` is set.
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub region: String,
    /// The region for which requests are signed (Signature Version 4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub signing_region: Option<String>,
    /// The URL of the S3 endpoint.
    #[schemars(length(max = 300))]
    #[x_kube(validation = Rule::new("self.matches('^https://[A-Za-z0-9.:\\\\[\\\\]-]+(:[0-9]{1,5})?/?$')").message("endpoint is an https address without a path, such as https://s3.eu-1.example"))]
    pub endpoint: String,
    /// The bucket.
    #[schemars(length(min = 3, max = 63), regex(pattern = r"^[a-z0-9][a-z0-9.-]*[a-z0-9]$"))]
    pub bucket: String,
    /// The folder of this installation in the bucket.
    #[serde(default)]
    #[schemars(length(max = 200))]
    #[x_kube(validation = Rule::new("self == '' || self.matches('^([A-Za-z0-9_-]+/)+$')").message("prefix is one or more names of letters, digits, _ and -, each followed by a slash, such as eu-1/"))]
    pub prefix: String,
    /// A Secret in the operator's namespace with the keys `accessKeyID` and `secretAccessKey`. These credentials read
    /// and write.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub credentials_secret: String,
    /// A Secret with the same keys, whose credentials erase versions. Without it, those of `credentialsSecret` erase
    /// too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub erase_credentials_secret: Option<String>,
    /// A Secret in the operator's namespace with the key `ca.crt`. Without it, the system's certificate authorities are
    /// trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub ca_secret: Option<String>,
    /// The AWS account that must own the bucket. If set, every request has it as `x-amz-expected-bucket-owner`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z0-9._-]+$"))]
    pub expected_bucket_owner: Option<String>,
    /// If true, the bucket need not keep versions. What is lost: whoever has the credentials of `credentialsSecret`, such as a
    /// mover that was taken over, can then destroy every backup in the bucket by overwriting it.
    #[serde(default)]
    pub allow_overwrites: bool,
    /// Whether the bucket may lock objects against deletion by default. Use `Off` unless the lock is shorter than the
    /// life of every backup: objects under a lock in COMPLIANCE mode cannot be erased on request.
    #[serde(default)]
    pub object_lock: ObjectLock,
    /// Where a second copy of every backup's key is kept, so that no backup is lost with the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_escrow: Option<KeyEscrow>,
}

/// Whether the bucket locks objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "TypedObjectLock")]
pub enum ObjectLock {
    /// The operator rejects a bucket with a default retention.
    #[default]
    Off,
    /// The bucket may lock objects by default in GOVERNANCE mode.
    Governance,
}

/// The values that the API server may receive: kubectl reads YAML 1.1, which takes a bare `Off` for the boolean false.
#[derive(Deserialize)]
#[serde(untagged)]
enum TypedObjectLock {
    Word(ObjectLockWord),
    Boolean(False),
}

#[derive(Deserialize)]
enum ObjectLockWord {
    Off,
    Governance,
}

#[derive(Deserialize)]
#[serde(try_from = "bool")]
struct False;

impl TryFrom<bool> for False {
    type Error = &'static str;

    fn try_from(on: bool) -> Result<Self, Self::Error> {
        if on { Err("objectLock is \"Off\" or Governance") } else { Ok(Self) }
    }
}

impl From<TypedObjectLock> for ObjectLock {
    fn from(typed: TypedObjectLock) -> Self {
        match typed {
            TypedObjectLock::Word(ObjectLockWord::Off) | TypedObjectLock::Boolean(False) => Self::Off,
            TypedObjectLock::Word(ObjectLockWord::Governance) => Self::Governance,
        }
    }
}

impl JsonSchema for ObjectLock {
    fn schema_name() -> Cow<'static, str> {
        "ObjectLock".into()
    }

    fn inline_schema() -> bool {
        true
    }

    /// A schema without a type, because a structural schema cannot otherwise allow both a string and a boolean.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "enum": ["Off", "Governance", false], "x-kubernetes-preserve-unknown-fields": true })
    }
}

/// Where a second copy of every key is kept.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyEscrow {
    /// Another `BackupStore`, with other credentials.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub store: String,
    /// The public key (age, X25519) of the recovery identity. Keep the identity itself offline.
    #[schemars(length(max = 100))]
    #[x_kube(validation = Rule::new("self.matches('^age1[02-9ac-hj-np-z]{58}$')").message("recoveryRecipient is the public key that age-keygen prints, such as age1…; never the secret one"))]
    pub recovery_recipient: String,
}

/// The observed state of the store.
#[derive(KubeSchema, Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupStoreStatus {
    /// The `metadata.generation` that the rest of the status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The number of backups in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backups: Option<i32>,
    /// The number of backups whose second key is in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<i32>,
    /// The stores that name this one in `keyEscrow`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub escrow_of: Vec<String>,
    /// The bucket's versioning: `Enabled`, `Suspended` or `Off`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub versioning: Option<String>,
    /// The identity in the bucket's marker object. Another bucket at the same address has another identity, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Prefixes below this store's prefix that belong to no backup. The operator lists them and never erases them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orphans: Vec<String>,
    /// Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_off_that_kubectl_made_false_is_off() {
        let read = |json| serde_json::from_str::<ObjectLock>(json).ok();
        assert_eq!(read("false"), Some(ObjectLock::Off));
        assert_eq!(read("\"Off\""), Some(ObjectLock::Off));
        assert_eq!(read("\"Governance\""), Some(ObjectLock::Governance));
        assert_eq!(read("true"), None);
        assert_eq!(serde_json::to_string(&ObjectLock::Off).unwrap(), "\"Off\"");
    }
}
