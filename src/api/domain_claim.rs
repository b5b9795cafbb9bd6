//! `DomainClaim`: one host name and the account that it belongs to.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One host name and the account that it belongs to. The object's name is the host name, so that the API server
/// itself sees to it that a name is given once in a cluster. Written by the operator alone; it outlives the account
/// while the name is in quarantine.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "helpdesk-operator.io",
    version = "v1alpha1",
    kind = "DomainClaim",
    shortname = "hdn",
    category = "helpdesk",
    derive = "PartialEq",
    selectable = ".spec.account",
    printcolumn(json_path = ".spec.account", name = "Account", type_ = "string"),
    printcolumn(json_path = ".spec.use", name = "Use", type_ = "string"),
    printcolumn(json_path = ".spec.provenAt", name = "Proven", type_ = "date"),
    printcolumn(json_path = ".spec.lostSince", name = "Lost", type_ = "date"),
    printcolumn(json_path = ".spec.reservedUntil", name = "Reserved-Until", type_ = "string"),
    validation = Rule::new("self.spec.accountUID == oldSelf.spec.accountUID").message("a DomainClaim keeps its account: delete it to free the name"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DomainClaimSpec {
    /// The account.
    #[schemars(length(min = 1, max = 40))]
    pub account: String,
    /// The account's uid: another account of the same name has another.
    #[serde(rename = "accountUID")]
    #[schemars(length(min = 36, max = 36))]
    pub account_uid: String,
    /// What the name is to the account.
    #[serde(rename = "use")]
    pub used_as: DomainUse,
    /// When the account first proved by a TXT record that the name is its own; for `Custom`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_at: Option<Time>,
    /// Since when the record is missing. The name is still served for three days, unless somebody else proves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_since: Option<Time>,
    /// The account is gone; nobody else gets the name before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved_until: Option<Time>,
}

/// What a host name is to its account.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DomainUse {
    /// The slug under the plan's base domain.
    Slug,
    /// A slug of before, which redirects to the present one.
    FormerSlug,
    /// A name of the tenant's own.
    Custom,
}
