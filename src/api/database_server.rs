//! `DatabaseServer`: one shard of tenant databases.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One server that holds databases of tenants. Its address cannot change while it holds tenants, because every
/// decision about their data rests on its identity.
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
    validation = Rule::new("self.metadata.name.size() <= 40").message("the name of a server has at most 40 characters"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.tenants) || oldSelf.status.tenants == 0 || (self.spec.host == oldSelf.spec.host && self.spec.port == oldSelf.spec.port && self.spec.engine == oldSelf.spec.engine && self.spec.region == oldSelf.spec.region)").message("engine, region, host and port cannot change while the server holds tenants"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DatabaseServerSpec {
    /// The engine.
    pub engine: Engine,
    /// The region whose tenants it may hold.
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub region: String,
    /// Host name or address.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?$"))]
    pub host: String,
    /// Port.
    #[serde(default = "default_port")]
    #[schemars(with = "i32", range(min = 1, max = 65535))]
    pub port: u16,
    /// A Secret in the operator's namespace with the keys `username`, `password` and `host`; `host` must equal this
    /// server's, so that credentials never reach a server that they are not for.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub admin_secret: String,
    /// How the connection is protected.
    #[serde(default)]
    pub tls: Tls,
    /// How many tenants it may hold.
    #[serde(default = "default_capacity")]
    #[schemars(range(min = 0, max = 100000))]
    pub capacity: i32,
    /// Takes no new tenants.
    #[serde(default)]
    pub draining: bool,
    /// How many dumps and restores may run at once.
    #[serde(default = "default_movers")]
    #[schemars(range(min = 1, max = 64))]
    pub movers: i32,
    /// When destruction stops by itself and waits for a person.
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

/// How a connection to the server is protected; there is no unprotected one.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tls {
    /// What is checked of the server's certificate.
    pub mode: TlsMode,
    /// A Secret in the operator's namespace with the key `ca.crt`; without it the system's roots are used.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub ca_secret: Option<String>,
}

/// What is checked of the server's certificate, in PostgreSQL's words.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// Its chain and its name.
    #[default]
    VerifyFull,
    /// Its chain only.
    VerifyCa,
}

/// The brake: more destructive steps than this within the window wait for a person.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Brake {
    /// Share of the server's tenants, in percent.
    #[schemars(range(min = 1, max = 100))]
    pub percent: i32,
    /// So many are always let through.
    #[schemars(range(min = 1, max = 100000))]
    pub at_least: i32,
    /// The window over which steps are counted.
    pub window: super::Window,
}

impl Default for Brake {
    fn default() -> Self {
        Self { percent: 10, at_least: 5, window: super::Window::hours(1) }
    }
}

/// What the operator saw of the server.
#[derive(KubeSchema, Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseServerStatus {
    /// The generation that the rest is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The server's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The cluster's own identifier, as `pg_control_system()` tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_identifier: Option<String>,
    /// How many accounts have a database here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenants: Option<i32>,
    /// Databases and roles that look like a tenant's and belong to no account; named, never dropped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orphans: Vec<String>,
    /// Since when the brake holds, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub braked_since: Option<Time>,
    /// Ready, Braked, ExtensionsMissing, AccountsLost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}
