//! `HelpDeskPlan`: commercial terms.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Engine, Window, notices::Notices, plan_rules::schedule, plan_security::PlanSecurity, plan_status::HelpDeskPlanStatus};

/// Commercial terms: how long each stage lasts, how often data is backed up and how long backups are kept, the limits
/// of a tenant's database, and where tenants of each region are placed.
// Columns of the same type are no duplicates.
#[allow(clippy::duplicated_attributes)]
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "helpdesk-operator.io",
    version = "v1alpha1",
    kind = "HelpDeskPlan",
    shortname = "hdp",
    category = "helpdesk",
    status = "HelpDeskPlanStatus",
    derive = "PartialEq",
    printcolumn(json_path = ".spec.lifecycle.trial", name = "Trial", type_ = "string"),
    printcolumn(json_path = ".spec.lifecycle.blocked", name = "Blocked", type_ = "string"),
    printcolumn(json_path = ".spec.lifecycle.terminated", name = "Terminated", type_ = "string"),
    printcolumn(json_path = ".spec.lifecycle.coldBackup", name = "Cold-Backup", type_ = "string"),
    printcolumn(json_path = ".spec.backups.schedule", name = "Backups", type_ = "string"),
    printcolumn(json_path = ".status.inUseBy.accounts", name = "Accounts", type_ = "integer"),
    printcolumn(json_path = ".status.conditions[?(@.type==\"Ready\")].status", name = "Ready", type_ = "string"),
    printcolumn(json_path = ".status.conditions[?(@.type==\"Ready\")].reason", name = "Reason", type_ = "string")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HelpDeskPlanSpec {
    /// The `HelpDeskClass` of the app that tenants of this plan get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub class: Option<String>,
    /// Whether an edit of the windows moves deadlines that are already set.
    #[serde(default)]
    pub clock_policy: ClockPolicy,
    /// How long each stage lasts.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// How data is backed up.
    #[serde(default)]
    pub backups: Backups,
    /// The limits and contents of a tenant's database.
    #[serde(default)]
    pub database: PlanDatabase,
    /// The limits of a tenant's app, where the class has workloads.
    #[serde(default, skip_serializing_if = "PlanApp::is_empty")]
    pub app: PlanApp,
    /// Where tenants are placed, one entry for each region.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.all(p, self.exists_one(q, q.region == p.region))").message("placements has one entry a region; this region is listed twice"))]
    pub placements: Vec<PlanPlacement>,
    /// Security settings of every tenant of this plan. An account can make them stricter, never looser.
    #[serde(default)]
    pub security: PlanSecurity,
    /// The page at a blocked tenant's host names.
    #[serde(default)]
    pub suspended_page: SuspendedPage,
    /// When notices of stages go to the endpoint that the operator was given (the chart's `notices`).
    #[serde(default)]
    pub notices: Notices,
}

/// Whether deadlines that are already set follow an edited plan.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ClockPolicy {
    /// A deadline that was set stays, because a customer may have been told.
    #[default]
    Keep,
    /// Deadlines are computed again, from when their stage began.
    Recompute,
}

/// The windows of the stages. Each starts when its stage is enforced, not when the stage was due.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Lifecycle {
    /// From creation until an unpaid account is blocked.
    pub trial: Window,
    /// From the first failed payment until the account is blocked.
    pub payment_grace: Window,
    /// From blocked to terminated.
    pub blocked: Window,
    /// From terminated to deleted.
    pub terminated: Window,
    /// How long the cold backup is kept after the database is dropped.
    pub cold_backup: Window,
    /// From the owner's request for erasure to the deletion.
    pub erase_delay: Window,
    /// How long the host names stay reserved after the account has expired.
    pub name_quarantine: Window,
    /// From the release of a hold until the operator may destroy something again.
    pub hold_notice: Window,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self {
            trial: Window::days(14),
            payment_grace: Window::days(7),
            blocked: Window::days(60),
            terminated: Window::days(30),
            cold_backup: Window::days(30),
            erase_delay: Window::hours(24),
            name_quarantine: Window::days(90),
            hold_notice: Window::hours(24),
        }
    }
}

/// How often data is backed up, how long backups are kept and how they are verified.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backups {
    /// The schedule in the five fields of cron, in UTC. The backups of the plan's tenants are spread over the time
    /// until the next run.
    #[serde(default = "nightly")]
    #[schemars(length(min = 9, max = 100))]
    #[x_kube(validation = Rule::new(schedule::rule()).message(schedule::MESSAGE))]
    #[x_kube(validation = Rule::new(schedule::RANGES).message(schedule::RANGES_MESSAGE))]
    pub schedule: String,
    /// How long a scheduled backup is kept.
    #[serde(default = "a_week")]
    pub keep: Window,
    /// How a backup is verified.
    #[serde(default)]
    pub verify: VerifyMode,
}

fn nightly() -> String {
    "0 2 * * *".into()
}

fn a_week() -> Window {
    Window::days(7)
}

impl Default for Backups {
    fn default() -> Self {
        Self { schedule: nightly(), keep: a_week(), verify: VerifyMode::Restore }
    }
}

/// How a backup is verified after it was downloaded again.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum VerifyMode {
    /// The backup is restored into a scratch database, whose contents must equal the source's.
    #[default]
    Restore,
    /// Every byte is decrypted, decompressed and read by pg_restore, without a database.
    Read,
}

/// The limits and contents of a tenant's database.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PlanDatabase {
    /// The database engine.
    pub engine: Engine,
    /// The tenant's highest number of concurrent connections, enforced by the server.
    #[schemars(range(min = 1, max = 1000))]
    pub connection_limit: i32,
    /// The size of the database above which the account gets the condition QuotaExceeded. PostgreSQL has no quota, so
    /// the server still accepts writes.
    #[schemars(length(max = 16), extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^[1-9][0-9]{0,9}(Ki|Mi|Gi|Ti)?$')",
        "message": "maxBytes is a whole number of bytes, or of Ki, Mi, Gi or Ti, such as 5Gi",
    }]))]
    pub max_bytes: String,
    /// The interval at which the tenant's password is replaced.
    pub rotate_password: Window,
    /// Extensions of every tenant's database, besides those that the class lists. The operator creates them in the
    /// schema `ext`, which is last in a tenant's search path and in which no tenant may create anything. An extension
    /// that is added here is created in existing databases too; one that is removed here stays installed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub extensions: Vec<Extension>,
    /// Who creates schemas.
    pub schemas: Schemas,
}

impl Default for PlanDatabase {
    fn default() -> Self {
        Self {
            engine: Engine::Postgresql,
            connection_limit: 20,
            max_bytes: "5Gi".into(),
            rotate_password: Window::days(90),
            extensions: vec![],
            schemas: Schemas::Fixed,
        }
    }
}

/// The limits of a tenant's app, as a ResourceQuota of its namespace. A rolling update needs room for one more pod of each
/// component.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PlanApp {
    /// The processor time that all pods reserve together, such as `2` or `1500m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]+(\.[0-9]+)?m?$"))]
    pub max_cpu: Option<String>,
    /// The memory of all pods together, such as `4Gi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]+(Ki|Mi|Gi)$"))]
    pub max_memory: Option<String>,
    /// How many pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 200))]
    pub max_pods: Option<i32>,
}

impl PlanApp {
    /// Whether there are no limits.
    pub const fn is_empty(&self) -> bool {
        self.max_cpu.is_none() && self.max_memory.is_none() && self.max_pods.is_none()
    }
}

/// An extension of PostgreSQL.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Extension {
    /// Its name, as in `pg_available_extensions`.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z_][a-z0-9_-]{0,62}$"))]
    pub name: String,
    /// The lowest sufficient version; if absent, any. The operator updates an older version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[0-9]{1,9}([.][0-9]{1,9}){0,3}$"))]
    pub version: Option<String>,
}

/// Who creates schemas in a tenant's database.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Schemas {
    /// Nobody: the tenant has only the schema `app`.
    #[default]
    Fixed,
    /// The tenant, which gets CREATE on its database. That privilege also lets the tenant create publications of its
    /// own tables, and every extension that the server marks as trusted, in schemas of its own. The server runs such an
    /// extension's script as a superuser, so install only packages that you trust, and keep the server's minor version
    /// up to date. What the tenant created stays if the plan goes back to Fixed.
    Own,
}

impl PlanDatabase {
    /// `max_bytes` as a number. The schema rejects values that cannot be parsed.
    pub fn max_bytes(&self) -> Option<i64> {
        let digits = self.max_bytes.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor: i64 = match &self.max_bytes[digits.len()..] {
            "" => 1,
            "Ki" => 1 << 10,
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            "Ti" => 1 << 40,
            _ => return None,
        };
        digits.parse::<i64>().ok()?.checked_mul(factor)
    }
}

/// Where tenants of one region are placed.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanPlacement {
    /// The region.
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub region: String,
    /// The `BackupStore` for cold backups; it must be in the same region.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub store: String,
    /// The base domain: a tenant's host name is its slug below this domain.
    #[schemars(length(min = 3, max = 200))]
    #[x_kube(validation = Rule::new("self.matches('^([a-z0-9]([a-z0-9-]*[a-z0-9])?[.])+[a-z]([a-z0-9-]*[a-z0-9])?$')").message("domainBase is a domain in lower case without wildcard or final dot, such as helpdesk.example"))]
    pub domain_base: String,
    /// The Gateway that publishes the tenants' host names. Without one, nothing is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayRef>,
    /// The cert-manager issuer for certificates of custom host names. Without one, an account names a Secret with a
    /// certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_issuer: Option<IssuerRef>,
}

/// An issuer of cert-manager.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssuerRef {
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// Its kind. An `Issuer` would have to exist in every tenant's namespace.
    #[serde(default = "cluster_issuer")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Z][A-Za-z0-9]*$"))]
    pub kind: String,
    /// Its API group.
    #[serde(default = "cert_manager")]
    #[schemars(length(min = 1, max = 100), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub group: String,
}

fn cluster_issuer() -> String {
    "ClusterIssuer".into()
}

fn cert_manager() -> String {
    "cert-manager.io".into()
}

/// A Gateway.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayRef {
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// Its namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: String,
    /// Which API the operator uses for security policies.
    #[serde(default)]
    pub driver: GatewayDriver,
}

/// Which API the operator uses for the security policies of a Gateway.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum GatewayDriver {
    /// Decided by the controller in the Gateway's class: Envoy Gateway's own API for Envoy Gateway, the Gateway API for
    /// every other.
    #[default]
    Auto,
    /// The API of Envoy Gateway, 1.9 or later.
    EnvoyGateway,
    /// The Gateway API only. It has no fields for address lists, second factors and TLS versions: the operator does not
    /// publish accounts that require them.
    GatewayAPI,
}

/// The page with which a blocked tenant's host names answer.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SuspendedPage {
    /// A text that replaces the sentences for customers and owners, in all languages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 400))]
    #[x_kube(validation = Rule::new(r"!self.matches('[\\x00-\\x1f\\x7f-\\x9f\\x{202a}-\\x{202e}\\x{2066}-\\x{2069}]')").message("text must not contain control characters or characters that turn the direction of text"))]
    pub text: Option<String>,
    /// The URL where an owner can pay.
    #[serde(default, rename = "billingURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^https://[A-Za-z0-9._~:/?#@!$&()*+,;=-]+$')").message("billingURL is an https:// address"))]
    pub billing_url: Option<String>,
}
