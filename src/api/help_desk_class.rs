//! `HelpDeskClass`: the help-desk app that tenants get.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::plan::Extension;

/// The help-desk app that tenants get: its components, and which component answers which paths for which audience.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "helpdesk-operator.io",
    version = "v1alpha1",
    kind = "HelpDeskClass",
    shortname = "hdc",
    category = "helpdesk",
    derive = "PartialEq",
    printcolumn(json_path = ".spec.app.name", name = "App", type_ = "string"),
    printcolumn(json_path = ".spec.app.version", name = "Version", type_ = "string"),
    printcolumn(json_path = ".spec.capabilities.totp", name = "TOTP", type_ = "string"),
    validation = Rule::new("self.spec.routes.all(r, self.spec.components.exists(c, c.name == r.component))").message("routes: every component must be listed in components"),
    validation = Rule::new("self.spec.routes.exists_one(r, r.path == '/')").message("routes: exactly one route has the path /; it gets whatever no other route names, so give it the audience agent unless everybody may see it"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HelpDeskClassSpec {
    /// Name and version of the app, for people.
    pub app: App,
    /// The parts of the app that listen. Each has a Service of the same name in the tenant's namespace.
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

/// A part of the app that listens.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Component {
    /// The name of its Service.
    #[schemars(length(min = 1, max = 40), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The Service's port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
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
        Self { totp: SecondFactor::default(), api_challenges: bearer() }
    }
}

/// Who asks agents for a second factor.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SecondFactor {
    /// The app itself.
    App,
    /// The gateway, by OpenID Connect, if the plan names a provider.
    Gateway,
    /// Nobody.
    #[default]
    None,
}
