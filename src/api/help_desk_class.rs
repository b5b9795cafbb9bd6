//! `HelpDeskClass`: the help-desk app that tenants get.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{class_mail::ClassMail, plan::Extension, variables};

mod hooks;
mod upgrade;

pub use hooks::{ExecHook, Hook, Hooks, HttpHook, HttpHookHeader, HttpMethod, SqlHook};
pub use upgrade::{HelpDeskClassStatus, MOST_AT_ONCE, Upgrade, UpgradingAccount};

/// The help-desk app that tenants get: its components, and which component answers which paths for which audience.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "helpdesk-operator.io",
    version = "v1alpha1",
    kind = "HelpDeskClass",
    shortname = "hdc",
    category = "helpdesk",
    status = "HelpDeskClassStatus",
    derive = "PartialEq",
    printcolumn(json_path = ".spec.app.name", name = "App", type_ = "string"),
    printcolumn(json_path = ".spec.app.version", name = "Version", type_ = "string"),
    printcolumn(json_path = ".status.inUseBy.accounts", name = "Accounts", type_ = "integer"),
    printcolumn(json_path = ".status.updatedAccounts", name = "Updated", type_ = "integer"),
    printcolumn(json_path = ".status.conditions[?(@.type=='Ready')].status", name = "Ready", type_ = "string"),
    printcolumn(json_path = ".status.conditions[?(@.type=='Ready')].reason", name = "Reason", type_ = "string"),
    printcolumn(json_path = ".spec.capabilities.totp", name = "TOTP", type_ = "string", priority = 1),
    validation = Rule::new("self.spec.routes.all(r, self.spec.components.exists(c, c.name == r.component && has(c.port)))").message("routes: every component must be listed in components, and have a port"),
    validation = Rule::new("!has(self.spec.hooks) || !has(self.spec.hooks.bootstrap) || !has(self.spec.hooks.bootstrap.exec) || self.spec.components.exists(c, c.name == self.spec.hooks.bootstrap.exec.component && has(c.workload))").message("hooks.bootstrap.exec.component must be a component with a workload: the hook runs in its image"),
    validation = Rule::new("!has(self.spec.hooks) || !has(self.spec.hooks.invalidateSessions) || !has(self.spec.hooks.invalidateSessions.exec) || self.spec.components.exists(c, c.name == self.spec.hooks.invalidateSessions.exec.component && has(c.workload))").message("hooks.invalidateSessions.exec.component must be a component with a workload: the hook runs in its image"),
    validation = Rule::new("!has(self.spec.readiness) || self.spec.components.exists(c, c.name == self.spec.readiness.component && has(c.port))").message("readiness.component must be listed in components, and have a port"),
    validation = Rule::new("!has(self.spec.mail) || self.spec.components.exists(c, c.name == self.spec.mail.intake.component && has(c.port))").message("mail.intake.component must be listed in components, and have a port"),
    validation = Rule::new("!has(self.spec.files) || self.spec.components.all(c, !has(c.workload) || !has(c.workload.scratch) || c.workload.scratch.all(s, !self.spec.files.exists(f, f.path == s.path)))").message("files: the path of a file is not the path of a scratch folder too"),
    validation = Rule::new("!has(self.spec.hooks) || !has(self.spec.hooks.learn) || !has(self.spec.hooks.learn.exec) || self.spec.components.exists(c, c.name == self.spec.hooks.learn.exec.component && has(c.workload))").message("hooks.learn.exec.component must be a component with a workload: the hook runs in its image"),
    validation = Rule::new("!has(self.spec.hooks) || !has(self.spec.hooks.migrate) || !has(self.spec.hooks.migrate.exec) || self.spec.components.exists(c, c.name == self.spec.hooks.migrate.exec.component && has(c.workload))").message("hooks.migrate.exec.component must be a component with a workload: the hook runs in its image"),
    validation = Rule::new("!has(self.spec.hooks) || !has(self.spec.hooks.setAdminPassword) || !has(self.spec.hooks.setAdminPassword.exec) || self.spec.components.exists(c, c.name == self.spec.hooks.setAdminPassword.exec.component && has(c.workload))").message("hooks.setAdminPassword.exec.component must be a component with a workload: the hook runs in its image"),
    validation = Rule::new(hooks::each(&["bootstrap", "migrate", "invalidateSessions"], "self.spec.components.exists(c, c.name == HOOK.http.component && has(c.port) && (!has(c.workload) || (has(c.workload.beforeBootstrap) && c.workload.beforeBootstrap)))")).message("hooks: http.component must be listed in components, have a port, and have beforeBootstrap: the hook runs before the other pods are started"),
    validation = Rule::new(hooks::each(&["learn", "setAdminPassword"], "self.spec.components.exists(c, c.name == HOOK.http.component && has(c.port))")).message("hooks: http.component must be listed in components, and have a port"),
    validation = Rule::new(hooks::each(&["bootstrap", "migrate", "invalidateSessions", "learn", "setAdminPassword"], "!has(HOOK.http.bodyFile) || (has(self.spec.files) && self.spec.files.exists(f, f.path == HOOK.http.bodyFile))")).message("hooks: http.bodyFile must be the path of one of files"),
    validation = Rule::new(hooks::each(&["bootstrap", "migrate", "invalidateSessions", "learn", "setAdminPassword"], "!has(HOOK.http.headers) || HOOK.http.headers.all(h, has(self.spec.env) && self.spec.env.exists(v, v.name == h.valueFromEnv))")).message("hooks: http.headers.valueFromEnv must be the name of one of env"),
    // An HTTPRoute takes 16 rules (Gateway API 1.6); two of them are no component's.
    validation = Rule::new("self.spec.components.filter(c, self.spec.routes.exists(r, r.component == c.name && r.audience == 'public')).size() + self.spec.components.filter(c, self.spec.routes.exists(r, r.component == c.name && r.audience == 'api')).size() + self.spec.components.filter(c, self.spec.routes.exists(r, r.component == c.name && r.audience == 'agent')).size() <= 14").message("routes: at most 14 pairs of a component and an audience; let fewer components answer, or each for fewer audiences"),
    validation = Rule::new("self.spec.routes.exists_one(r, r.path == '/')").message("routes: exactly one route has the path /; it gets whatever no other route names, so give it the audience agent unless everybody may see it"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HelpDeskClassSpec {
    /// Name and version of the app, for people.
    pub app: App,
    /// The parts of the app. Each that listens has a Service of the same name in the tenant's namespace, by which the others
    /// reach it. The operator makes it, with the pods behind it, where the component has a workload.
    #[schemars(length(min = 1, max = 8))]
    #[x_kube(validation = Rule::new("self.all(c, self.exists_one(d, d.name == c.name))").message("every component has a name of its own"))]
    pub components: Vec<Component>,
    /// Which component answers a path, and for which audience. The longest matching path wins.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.all(r, self.exists_one(s, s.path == r.path))").message("every path is listed once"))]
    pub routes: Vec<Route>,
    /// What the app itself can do. The gateway does the rest; what it cannot do either is reported.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// The app's requirements for its database.
    #[serde(default, skip_serializing_if = "ClassDatabase::is_empty")]
    pub database: ClassDatabase,
    /// Environment variables of every container of the app. A value may contain variables such as `${db.host}`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,
    /// Files of every container of the app. Their contents may contain variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path"]))]
    pub files: Vec<AppFile>,
    /// Secrets that the operator makes for each account, such as the key with which the app signs its sessions. It makes
    /// each once, keeps it with the account's backups, and destroys it with them. The variable `${secrets.NAME}` is the
    /// secret. A change of format or length reaches accounts that do not have the secret yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub secrets: Vec<GeneratedSecret>,
    /// What the operator runs as Jobs at certain moments.
    #[serde(default, skip_serializing_if = "Hooks::is_empty")]
    pub hooks: Hooks,
    /// What the app must show before `AppReady` becomes True. Without it, `AppReady` says that the pods are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<ShownValue>,
    /// How the app takes mail; absent: it takes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail: Option<ClassMail>,
    /// How accounts get a change of the class, where it has workloads.
    #[serde(default, skip_serializing_if = "Upgrade::is_default")]
    pub upgrade: Upgrade,
}

/// A text that the app shows. The operator requests the path from the component's Service inside the cluster. Let the
/// bootstrap hook write `${tenant.marker}` into the database, and the app read it from there: an app that shows it is
/// connected to the database of this tenant and of no other.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShownValue {
    /// The component.
    #[schemars(length(min = 1, max = 40))]
    pub component: String,
    /// The path, which needs no login.
    #[schemars(length(min = 1, max = 200), regex(pattern = r"^/[!-~]*$"))]
    pub path: String,
    /// The text that the answer contains, with variables, in its first 64 KiB. The answer's status is 200.
    #[serde(default = "marker")]
    #[schemars(length(min = 1, max = 200))]
    pub contains: String,
}

fn marker() -> String {
    "${tenant.marker}".into()
}

/// A secret that the operator makes for each account, once.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GeneratedSecret {
    /// Its name, as in `${secrets.NAME}`.
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Which letters it is made of.
    pub format: SecretFormat,
    /// How long it is, in letters.
    #[schemars(with = "i32", range(min = 32, max = 256))]
    pub length: u16,
}

/// Which letters a secret is made of.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SecretFormat {
    /// Hexadecimal digits in lower case: 4 bits a letter.
    Hex,
    /// Letters from A to Z, in upper and lower case, and digits: almost 6 bits a letter.
    Alnum,
}

/// A path is none of the container runtime's, and none of the operator's own.
const FOREIGN_PATHS: &str = "!self.matches('^/(proc|sys|dev|etc/helpdesk|run/secrets|var/run/secrets)(/|$)')";
const FOREIGN_PATHS_MESSAGE: &str = "path is not in /proc, /sys, /dev, /run/secrets or /var/run/secrets, which are the container runtime's, nor in /etc/helpdesk, which is the operator's";

/// One environment variable.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvVar {
    /// Its name.
    #[schemars(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,
    /// Its value, with variables.
    #[schemars(length(max = 2048), description = variables::description())]
    #[x_kube(validation = Rule::new(variables::rule()).message(variables::message().as_str()))]
    pub value: String,
}

/// One file, readable in every container of the app.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AppFile {
    /// Where it lies.
    #[schemars(length(min = 2, max = 200))]
    #[x_kube(validation = Rule::new("self.matches('^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$')").message("path is absolute and plain, such as /etc/app/settings.py: no final slash, no empty or dot segments"))]
    #[x_kube(validation = Rule::new(FOREIGN_PATHS).message(FOREIGN_PATHS_MESSAGE))]
    pub path: String,
    /// What is in it, with variables.
    #[schemars(length(max = 16384), description = variables::description_of_content())]
    #[x_kube(validation = Rule::new(variables::rule_of_content()).message(variables::message_of_content().as_str()))]
    pub content: String,
}

/// The pods of a component. Nothing else of a pod can be chosen: they run without root, without capabilities, without a
/// token of the cluster, and on a root file system that cannot be written.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("!has(self.singleton) || !self.singleton || !has(self.replicas) || self.replicas == 1").message("a singleton has one replica"))]
pub struct Workload {
    /// The image.
    #[schemars(length(min = 1, max = 300), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._/:@-]*$"))]
    pub image: String,
    /// The command with its arguments, instead of the image's; no variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(max = 8192)))]
    pub command: Vec<String>,
    /// How many pods.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 20))]
    pub replicas: i32,
    /// The user and group that the containers run as.
    #[schemars(range(min = 1, max = 65535))]
    pub run_as_user: i64,
    /// The processor time that is reserved for each pod, such as `100m`.
    #[serde(default = "tenth_of_a_cpu")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]+(\.[0-9]+)?m?$"))]
    pub cpu: String,
    /// The memory of each pod: it is reserved, and a pod that takes more is killed. Such as `512Mi`.
    #[serde(default = "half_a_gibibyte")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]+(Ki|Mi|Gi)$"))]
    pub memory: String,
    /// Folders that can be written. They are empty at every start, and no backup has them: what must last belongs into the
    /// database. That holds for a component that keeps data of its own too, such as Redis: what it has is gone with its pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["path"]))]
    pub scratch: Vec<Scratch>,
    /// Whether two of its pods must never run at once, as of a scheduler: the old one ends before a new one is started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub singleton: bool,
    /// Whether its pods are started, and have to be ready, before the hook `bootstrap` runs. It is for what the hook needs,
    /// such as a cache.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub before_bootstrap: bool,
    /// The path that a pod answers once it serves requests, on the component's port. Without it a pod is ready once it
    /// accepts connections there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200), regex(pattern = r"^/"))]
    pub readiness_path: Option<String>,
    /// The path that a pod answers as long as it need not be started anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200), regex(pattern = r"^/"))]
    pub liveness_path: Option<String>,
}

/// A folder that can be written and is empty at every start.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scratch {
    /// Where it is.
    #[schemars(length(min = 2, max = 200))]
    #[x_kube(validation = Rule::new("self.matches('^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$')").message("path is absolute and plain, such as /var/cache/app: no final slash, no empty or dot segments"))]
    #[x_kube(validation = Rule::new(FOREIGN_PATHS).message(FOREIGN_PATHS_MESSAGE))]
    pub path: String,
    /// How much may be in it, such as `64Mi`; a pod that writes more is ended.
    #[serde(default = "sixty_four_mebibytes")]
    #[schemars(length(max = 16), regex(pattern = r"^[0-9]+(Ki|Mi|Gi)$"))]
    pub size: String,
}

const fn one() -> i32 {
    1
}

fn tenth_of_a_cpu() -> String {
    "100m".into()
}

fn half_a_gibibyte() -> String {
    "512Mi".into()
}

fn sixty_four_mebibytes() -> String {
    "64Mi".into()
}

/// The app's requirements for its database.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClassDatabase {
    /// Extensions that the app needs, besides those that the plan lists. If both name a version, the higher one is
    /// needed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub extensions: Vec<Extension>,
}

impl ClassDatabase {
    /// Whether there are no requirements.
    pub const fn is_empty(&self) -> bool {
        self.extensions.is_empty()
    }
}

/// Name and version of the app, for people.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct App {
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Its version.
    #[schemars(length(min = 1, max = 63))]
    pub version: String,
}

/// A part of the app.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.port) || has(self.workload)").message("a component without a port has a workload: there is nothing else of it"))]
#[x_kube(validation = Rule::new("has(self.port) || !has(self.workload) || !(has(self.workload.readinessPath) || has(self.workload.livenessPath))").message("readinessPath and livenessPath are asked for at the component's port: give it one"))]
pub struct Component {
    /// Its name, which is the name of its Service too.
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The port on which it listens. A component that only works in the background has none, and no Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// The pods that the operator runs for each tenant. Without it somebody else deploys what stands behind the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<Workload>,
}

/// Which component answers a path, and for which audience.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// The path, normalized as in RFC 3986. The route is for everything below it too.
    #[schemars(length(min = 1, max = 200))]
    #[x_kube(validation = Rule::new("self == '/' || self.matches('^(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+$')").message("path is absolute and plain, such as /NoAuth or /REST/2.0: no final slash, no empty or dot segments, no escapes"))]
    pub path: String,
    /// The component that answers.
    #[schemars(length(min = 1, max = 40))]
    pub component: String,
    /// For whom the path is.
    pub audience: Audience,
}

/// For whom a path is.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Audience {
    /// Customers: everybody.
    Public,
    /// Programs: the gateway refuses requests without credentials for the app, and limits the rate.
    Api,
    /// Agents: the gateway checks their address and, if the app does not, the second factor.
    Agent,
}

/// What the app itself can do.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Capabilities {
    /// Who asks agents for a second factor.
    #[serde(default)]
    pub totp: SecondFactor,
    /// Who asks customers for their consent before a chat, with the text `${tenant.chatConsent}`.
    #[serde(default)]
    pub chat_consent: ByApp,
    /// Who refuses people's passwords to programs, where `${security.requireApiTokens}` is `true`.
    #[serde(default)]
    pub api_tokens: ByApp,
    /// The authentication schemes of the app's API. The answer to a request without credentials has them in
    /// `WWW-Authenticate` (RFC 9110, section 11.6.1).
    #[serde(default = "bearer")]
    #[schemars(
        length(min = 1, max = 4),
        inner(length(min = 1, max = 100), regex(pattern = r"^[A-Za-z][A-Za-z0-9-]*( [A-Za-z0-9 =,.\x22_-]+)?$"))
    )]
    pub api_challenges: Vec<String>,
}

fn bearer() -> Vec<String> {
    vec!["Bearer".into()]
}

impl Default for Capabilities {
    fn default() -> Self {
        Self { totp: SecondFactor::default(), chat_consent: ByApp::None, api_tokens: ByApp::None, api_challenges: bearer() }
    }
}

/// Who does what the gateway cannot do.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ByApp {
    /// The app itself.
    App,
    /// Nobody.
    #[default]
    None,
}

/// Who asks agents for a second factor.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SecondFactor {
    /// The app itself, where `${security.requireTotp}` is `true`.
    App,
    /// The gateway, by OpenID Connect, if the plan names a provider.
    Gateway,
    /// Nobody.
    #[default]
    None,
}
