//! `DomainClaim`: one host name and the account that it belongs to.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One host name and the account that it belongs to. The object's name is the host name, so the API server guarantees
/// that a host name is claimed only once in a cluster. Only the operator writes it. The object outlives its account for
/// as long as the name is reserved.
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
    /// The account's uid. Another account of the same name has another uid.
    #[serde(rename = "accountUID")]
    #[schemars(length(min = 36, max = 36))]
    pub account_uid: String,
    /// How the account uses the host name.
    #[serde(rename = "use")]
    pub used_as: DomainUse,
    /// For `Custom`: when the account first proved by a TXT record that it owns the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_at: Option<Time>,
    /// Since when the TXT record has been missing. The name is still served for three days, unless another account
    /// proves it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_since: Option<Time>,
    /// Another account that has proved the name while this one's record is missing. This account withdraws its route and its
    /// certificate, and then gives the claim up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contender: Option<Contender>,
    /// Set when the account is gone: no other account gets the name before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved_until: Option<Time>,
}

/// An account that takes a host name over.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Contender {
    /// The account.
    #[schemars(length(min = 1, max = 40))]
    pub account: String,
    /// Its uid.
    #[serde(rename = "accountUID")]
    #[schemars(length(min = 36, max = 36))]
    pub account_uid: String,
    /// When it proved the name.
    pub since: Time,
}

/// How an account uses a host name.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DomainUse {
    /// The slug below the plan's base domain.
    Slug,
    /// A former slug, which redirects to the present host name.
    FormerSlug,
    /// A name in the tenant's own domain.
    Custom,
}
