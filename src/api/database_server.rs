//! `DatabaseServer`: one server of tenant databases.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One server with databases of tenants. Its address can change while it has tenants only by the verb `fail-over`, because
/// every decision about their data depends on the server's identity.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "helpdesk-operator.io",
    version = "v1alpha1",
    kind = "DatabaseServer",
    shortname = "hds",
    category = "helpdesk",
    status = "DatabaseServerStatus",
    derive = "PartialEq",
    selectable = ".spec.region",
    printcolumn(json_path = ".spec.engine", name = "Engine", type_ = "string"),
    printcolumn(json_path = ".status.version", name = "Version", type_ = "string"),
    printcolumn(json_path = ".spec.region", name = "Region", type_ = "string"),
    printcolumn(json_path = ".status.tenants", name = "Tenants", type_ = "integer"),
    printcolumn(json_path = ".spec.capacity", name = "Capacity", type_ = "integer"),
    printcolumn(json_path = ".status.conditions[?(@.type==\"Ready\")].status", name = "Ready", type_ = "string"),
    printcolumn(json_path = ".status.conditions[?(@.type==\"Braked\")].status", name = "Braked", type_ = "string"),
    printcolumn(json_path = ".status.conditions[?(@.type==\"Ready\")].reason", name = "Reason", type_ = "string"),
    validation = Rule::new("self.metadata.name.size() <= 40").message("the name of a server has at most 40 characters"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.tenants) || oldSelf.status.tenants == 0 || (self.spec.engine == oldSelf.spec.engine && self.spec.region == oldSelf.spec.region)").message("engine and region cannot change while the server holds tenants"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DatabaseServerSpec {
    /// The database engine.
    pub engine: Engine,
    /// The region of the server's tenants.
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub region: String,
    /// The server's host name or IP address.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?$"))]
    pub host: String,
    /// The server's port.
    #[serde(default = "default_port")]
    #[schemars(with = "i32", range(min = 1, max = 65535))]
    pub port: u16,
    /// A Secret in the operator's namespace with the keys `username`, `password` and `host`. `host` must equal this
    /// server's `host`, so that the operator never sends the credentials to another server.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub admin_secret: String,
    /// How the connection is protected.
    #[serde(default)]
    pub tls: Tls,
    /// The highest number of tenants.
    #[serde(default = "default_capacity")]
    #[schemars(range(min = 0, max = 100000))]
    pub capacity: i32,
    /// If true, the server gets no new tenants.
    #[serde(default)]
    pub draining: bool,
    /// How many dumps and restores may run at once.
    #[serde(default = "default_movers")]
    #[schemars(range(min = 1, max = 64))]
    pub movers: i32,
    /// When the operator stops destroying on this server and waits for a person.
    #[serde(default)]
    pub brake: Brake,
}

fn default_port() -> u16 {
    5432
}

fn default_capacity() -> i32 {
    300
}

fn default_movers() -> i32 {
    2
}

/// Database engines that have a driver.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// PostgreSQL 16 or later.
    #[default]
    Postgresql,
}

/// How a connection to the server is protected. Unprotected connections are not possible.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tls {
    /// How the server's certificate is checked.
    pub mode: TlsMode,
    /// A Secret in the operator's namespace with the key `ca.crt`. Without it, the system's certificate authorities are
    /// trusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub ca_secret: Option<String>,
}

/// How the server's certificate is checked, as PostgreSQL's `sslmode` names it.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// The certificate's chain and its name.
    #[default]
    VerifyFull,
    /// The certificate's chain only.
    VerifyCa,
}

impl TlsMode {
    /// The value of `sslmode`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VerifyFull => "verify-full",
            Self::VerifyCa => "verify-ca",
        }
    }
}

/// The brake. If more destructive steps than this are due within the window, the operator waits for a person.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Brake {
    /// The allowed number of steps, as a percentage of the server's tenants.
    #[schemars(range(min = 1, max = 100))]
    pub percent: i32,
    /// The number of steps that are always allowed.
    #[schemars(range(min = 1, max = 100000))]
    pub at_least: i32,
    /// The window in which steps are counted.
    pub window: super::Window,
}

impl Default for Brake {
    fn default() -> Self {
        Self { percent: 10, at_least: 5, window: super::Window::hours(1) }
    }
}

/// The observed state of the server.
#[derive(KubeSchema, Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseServerStatus {
    /// The `metadata.generation` that the rest of the status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The server's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The system identifier of the PostgreSQL cluster, from `pg_control_system()`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// The newest timeline of the server that was seen. A former primary, which is on an older one, is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<i32>,
    /// How many accounts have a database here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<i32>,
    /// Databases and roles that look like a tenant's but belong to no account. The operator lists them and never drops
    /// them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orphans: Vec<String>,
    /// Extensions that plans of the region, or their classes, list and the server does not offer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_extensions: Vec<String>,
    /// Since when the brake has been tripped, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub braked_since: Option<Time>,
    /// Ready, Braked, ExtensionsMissing, AccountsLost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
