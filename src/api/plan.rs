//! `HelpDeskPlan`: commercial terms.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Engine, Window};

/// Commercial terms: how long each stage lasts, how often data is backed up and for how long it is kept, what a
/// tenant may use, and where tenants of each region are placed.
// Columns of the same type are no duplicates.
#[allow(clippy::duplicated_attributes)]
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "helpdesk-operator.io",
    version = "v1alpha1",
    kind = "HelpDeskPlan",
    shortname = "hdp",
    category = "helpdesk",
    derive = "PartialEq",
    printcolumn(json_path = ".spec.lifecycle.trial", name = "Trial", type_ = "string"),
    printcolumn(json_path = ".spec.lifecycle.blocked", name = "Blocked", type_ = "string"),
    printcolumn(json_path = ".spec.lifecycle.terminated", name = "Terminated", type_ = "string"),
    printcolumn(json_path = ".spec.lifecycle.coldBackup", name = "Cold-Backup", type_ = "string"),
    printcolumn(json_path = ".spec.backups.schedule", name = "Backups", type_ = "string")
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HelpDeskPlanSpec {
    /// The `HelpDeskClass` of the app that tenants of this plan get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub class: Option<String>,
    /// Whether an edit of the windows moves clocks that already run.
    #[serde(default)]
    pub clock_policy: ClockPolicy,
    /// How long each stage lasts.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// How data is backed up.
    #[serde(default)]
    pub backups: Backups,
    /// What a tenant's database may use.
    #[serde(default)]
    pub database: PlanDatabase,
    /// Where tenants live, one entry a region.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.all(p, self.exists_one(q, q.region == p.region))").message("placements has one entry a region; this region is listed twice"))]
    pub placements: Vec<PlanPlacement>,
    /// The least that every tenant of this plan gets; an account may only tighten it.
    #[serde(default)]
    pub security: PlanSecurity,
    /// What people read at a blocked tenant's addresses.
    #[serde(default)]
    pub suspended_page: SuspendedPage,
}

/// Whether running clocks follow an edited plan.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ClockPolicy {
    /// A deadline that was told to a customer stays.
    #[default]
    Keep,
    /// Running clocks are computed anew from when their stage began.
    Recompute,
}

/// The windows of a tenant's life. Each starts when its stage is enforced, not when it was due.
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
    /// How long the cold backup outlives the database.
    pub cold_backup: Window,
    /// From the owner's wish for erasure to the deletion.
    pub erase_delay: Window,
    /// How long the domain stays reserved after the account has expired.
    pub name_quarantine: Window,
    /// From the release of a hold until something may be destroyed again.
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

/// How often data is backed up, how long it is kept and how it is proven.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backups {
    /// When, in the five fields of cron and in UTC; the tenants of a plan are spread over the time up to the next run.
    #[serde(default = "nightly")]
    #[schemars(length(min = 9, max = 100))]
    #[x_kube(validation = Rule::new(r"self.matches('^[0-9*,/-]+ [0-9*,/-]+ [0-9*,/-]+ [0-9A-Za-z*,/-]+ [0-9A-Za-z*,/-]+$')").message("schedule has the five fields of cron, such as '0 2 * * *' for 02:00 UTC every day"))]
    pub schedule: String,
    /// How long a scheduled backup is kept.
    #[serde(default = "a_week")]
    pub keep: Window,
    /// How a backup is proven.
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

/// How a backup is proven after it was downloaded again.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum VerifyMode {
    /// Restored into a scratch database whose contents must equal the source's.
    #[default]
    Restore,
    /// Every byte decrypted, decompressed and read by pg_restore, without a database.
    Read,
}

/// What a tenant's database may use.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PlanDatabase {
    /// The engine.
    pub engine: Engine,
    /// Connections at once; enforced by the server.
    #[schemars(range(min = 1, max = 1000))]
    pub connection_limit: i32,
    /// Size above which the account says so in a condition. PostgreSQL has no quota of its own, so writes are not
    /// refused.
    #[schemars(length(max = 16), extend("x-kubernetes-validations" = [{
        "rule": "self.matches('^[1-9][0-9]{0,9}(Ki|Mi|Gi|Ti)?$')",
        "message": "maxBytes is a whole number of bytes, or of Ki, Mi, Gi or Ti, such as 5Gi",
    }]))]
    pub max_bytes: String,
    /// How often the tenant's password is renewed.
    pub rotate_password: Window,
    /// Extensions that every tenant's database has, besides those that the class lists. The operator makes them in the
    /// schema `ext`, which is last in a tenant's search path and in which no tenant may create anything. One that is
    /// added here is made in running databases too; one that is removed here stays where it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub extensions: Vec<Extension>,
    /// Who makes schemas.
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

/// An extension of PostgreSQL.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Extension {
    /// Its name, as `pg_available_extensions` tells it.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z_][a-z0-9_-]{0,62}$"))]
    pub name: String,
    /// The lowest version that will do; left out: any. An older one is brought up to date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[0-9]{1,9}([.][0-9]{1,9}){0,3}$"))]
    pub version: Option<String>,
}

/// Who makes schemas in a tenant's database.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Schemas {
    /// Nobody: the schema `app` is all there is.
    #[default]
    Fixed,
    /// The tenant, which gets CREATE on its database. With it a tenant also makes publications of its own tables, and
    /// every extension that the server holds to be trusted, in schemas of its own: the server runs such an extension's
    /// script as a superuser, so install only packages that you trust, and keep its minor version up to date. What the
    /// tenant made stays when a plan goes back to Fixed.
    Own,
}

impl PlanDatabase {
    /// `max_bytes` as a number; the schema admits nothing that does not parse.
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

/// Where tenants of one region live.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanPlacement {
    /// The region.
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub region: String,
    /// The `BackupStore` of cold backups; it must be in the region.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub store: String,
    /// The domain under which slugs are made.
    #[schemars(length(min = 3, max = 200))]
    #[x_kube(validation = Rule::new("self.matches('^([a-z0-9]([a-z0-9-]*[a-z0-9])?[.])+[a-z]([a-z0-9-]*[a-z0-9])?$')").message("domainBase is a domain in lower case without wildcard or final dot, such as helpdesk.example"))]
    pub domain_base: String,
    /// The Gateway that publishes them; without one, tenants have no address on the web.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<GatewayRef>,
    /// Who certifies custom domains by cert-manager; without it, an account names a Secret with a certificate.
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
    /// Its kind; an `Issuer` would have to be in every tenant's namespace.
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
    /// In whose words policies are written.
    #[serde(default)]
    pub driver: GatewayDriver,
}

/// In whose words policies are written for a Gateway.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum GatewayDriver {
    /// By the controller that the Gateway's class names: Envoy Gateway in its own, every other in the Gateway API's.
    #[default]
    Auto,
    /// Envoy Gateway, 1.9 or later.
    EnvoyGateway,
    /// The Gateway API and nothing else. It has no words for address lists, second factors and TLS versions: accounts
    /// that ask for them are not published.
    GatewayAPI,
}

/// The least that every tenant gets.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanSecurity {
    /// The lowest TLS version.
    #[serde(default)]
    pub min_tls: TlsVersion,
    /// Ranges from which agents may come at all; empty: from anywhere.
    #[serde(default)]
    #[schemars(length(max = 1000), inner(length(min = 2, max = 43)))]
    #[x_kube(validation = Rule::new("self.all(c, isCIDR(c))").message("agentAllow lists ranges in CIDR notation, such as 198.51.100.0/24 or 2001:db8::/48"))]
    pub agent_allow: Vec<String>,
    /// Whether agents need a second factor.
    #[serde(default)]
    pub require_totp: bool,
    /// Who asks for the second factor where the app cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oidc: Option<Oidc>,
    /// How many requests a minute a tenant's API paths take, over all clients and for each proxy of the gateway.
    #[serde(default = "ten_a_second")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub api_requests_per_minute: i32,
}

fn ten_a_second() -> i32 {
    600
}

impl Default for PlanSecurity {
    fn default() -> Self {
        Self {
            min_tls: TlsVersion::default(),
            agent_allow: vec![],
            require_totp: false,
            oidc: None,
            api_requests_per_minute: ten_a_second(),
        }
    }
}

/// A provider of OpenID Connect that asks agents for a second factor.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Oidc {
    /// Its issuer.
    #[schemars(length(min = 9, max = 253))]
    #[x_kube(validation = Rule::new("self.startsWith('https://')").message("issuer is an https:// address"))]
    pub issuer: String,
    /// The client's id there. Every tenant's address with the path /oauth2/callback must be a redirect URI of it.
    #[serde(rename = "clientID")]
    #[schemars(length(min = 1, max = 253))]
    pub client_id: String,
    /// A Secret in the operator's namespace with the key `client-secret`.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub client_secret: String,
    /// Where its keys are published; Envoy must be able to reach it and trust its certificate.
    #[serde(rename = "jwksURI")]
    #[schemars(length(min = 9, max = 253))]
    #[x_kube(validation = Rule::new("self.startsWith('https://')").message("jwksURI is an https:// address"))]
    pub jwks_uri: String,
    /// Where people log in; left out: read from the issuer's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 253))]
    pub authorization_endpoint: Option<String>,
    /// Where codes are exchanged; left out: read from the issuer's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 253))]
    pub token_endpoint: Option<String>,
    /// What the claim `amr` must hold for the second factor to count (RFC 8176).
    #[serde(default = "otp")]
    #[schemars(length(min = 1, max = 64))]
    pub amr: String,
}

fn otp() -> String {
    "otp".into()
}

/// What people read on the page that a blocked tenant's addresses answer with.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SuspendedPage {
    /// Instead of the sentences for customers and owners, in all languages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 400))]
    #[x_kube(validation = Rule::new(r"!self.matches('[\\x00-\\x1f\\x7f-\\x9f\\x{202a}-\\x{202e}\\x{2066}-\\x{2069}]')").message("text must not contain control characters or characters that turn the direction of text"))]
    pub text: Option<String>,
    /// Where an owner can settle the account.
    #[serde(default, rename = "billingURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^https://[A-Za-z0-9._~:/?#@!$&()*+,;=-]+$')").message("billingURL is an https:// address"))]
    pub billing_url: Option<String>,
}

/// A TLS version that may be asked for; older ones are never offered.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum TlsVersion {
    /// TLS 1.2 and later.
    #[default]
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3 only.
    #[serde(rename = "1.3")]
    V13,
}
