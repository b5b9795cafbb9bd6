//! The hooks of a class: what the operator runs as Jobs at certain moments.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator runs as Jobs at certain moments.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Hooks {
    /// Makes the app's schema and its first data. It runs before the app's pods are started, and again whenever the class
    /// gives it another command or image: it must change nothing that is there already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Hook>,
    /// Brings the app's schema and data from any earlier revision of the class to this one. It runs when an account is
    /// upgraded and the hook is another one than the account had last, and after a restore. A proven backup is there
    /// before it runs, and the app has no pods while it runs, but for components with `beforeBootstrap`. A new account does
    /// not need it: `bootstrap` makes its schema. It must change nothing that is as it should be already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migrate: Option<Hook>,
    /// Ends every session and token of the app. It runs before the pods are started for the first time, and again before
    /// they are started after a block: nobody could use a session meanwhile, and nobody can afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invalidate_sessions: Option<Hook>,
    /// Teaches the mail filter anew from the messages that the app has: it lets the filter forget everything first. It runs
    /// when the app has come up for the first time, and when it has come back from a backup, because what the filter learned
    /// is in no backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learn: Option<Hook>,
    /// Gives the app's administrator the password `${admin.password}`, and ends the sessions that began with another one. It
    /// runs when somebody asks for a new password. Without it the first password is the only one that the operator makes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_admin_password: Option<Hook>,
}

impl Hooks {
    /// Every hook, with its name.
    pub fn all(&self) -> [(&'static str, Option<&Hook>); 5] {
        [
            ("bootstrap", self.bootstrap.as_ref()),
            ("migrate", self.migrate.as_ref()),
            ("invalidate-sessions", self.invalidate_sessions.as_ref()),
            ("learn", self.learn.as_ref()),
            ("set-admin-password", self.set_admin_password.as_ref()),
        ]
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all().iter().all(|(_, hook)| hook.is_none())
    }
}

/// One hook: a command, SQL, or a request.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("[has(self.exec), has(self.sql), has(self.http)].filter(has, has).size() == 1").message("a hook has one of exec, sql and http"))]
pub struct Hook {
    /// A command in a container like those of a component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecHook>,
    /// SQL, as the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<SqlHook>,
    /// A request to a component.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpHook>,
    /// How long it may take, in seconds.
    #[serde(default = "ten_minutes")]
    #[schemars(range(min = 1, max = 86400))]
    pub deadline_seconds: i64,
}

/// A command that runs in a container like those of a component. Its exit code is 0 when all is done, 75 when it has to
/// be tried again (`EX_TEMPFAIL` of sysexits.h), and anything else when trying again would not help.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecHook {
    /// The component whose image, user and scratch folders it gets.
    #[schemars(length(min = 1, max = 40))]
    pub component: String,
    /// The command with its arguments; no variables.
    #[schemars(length(min = 1, max = 32), inner(length(max = 8192)))]
    pub command: Vec<String>,
}

/// SQL that runs in the tenant's database with the tenant's own login, in one transaction. It has no variables. If the
/// database does not answer it is tried again; an error of a statement fails the hook.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SqlHook {
    /// The statements, as psql reads them.
    #[schemars(length(min = 1, max = 65536))]
    pub statements: String,
}

/// A request to a component of the app, and nowhere else; a redirect is not followed. It is done when the answer's status is
/// an expected one. It is tried again when the component does not answer, or answers 408, 425, 429 or 5xx; any other answer
/// fails the hook.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpHook {
    /// The component.
    #[schemars(length(min = 1, max = 40))]
    pub component: String,
    /// The path; no variables.
    #[schemars(length(min = 1, max = 200), regex(pattern = r"^/[!-~]*$"))]
    pub path: String,
    /// The method.
    #[serde(default)]
    pub method: HttpMethod,
    /// Headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Vec<HttpHookHeader>,
    /// The path of one of the class's `files`, which is the body. Without it the body is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 200))]
    pub body_file: Option<String>,
    /// The expected status codes. Without them each from 200 to 299 is expected.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(range(min = 200, max = 499)))]
    pub expected_status: Vec<i32>,
}

/// A header of a request.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpHookHeader {
    /// Its name.
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z][A-Za-z0-9-]*$"))]
    pub name: String,
    /// The name of one of the class's `env`, whose value it has.
    #[schemars(length(min = 1, max = 128))]
    pub value_from_env: String,
}

/// A method of HTTP.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    /// DELETE.
    Delete,
    /// GET.
    Get,
    /// PATCH.
    Patch,
    /// POST.
    #[default]
    Post,
    /// PUT.
    Put,
}

impl HttpMethod {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Delete => "DELETE",
            Self::Get => "GET",
            Self::Patch => "PATCH",
            Self::Post => "POST",
            Self::Put => "PUT",
        }
    }
}

/// The rule, in CEL, that what holds for `HOOK` holds for each of these hooks that is a request. The API server takes every
/// hook for a type of its own, so they are in no list.
pub(super) fn each(names: &[&str], holds: &str) -> String {
    let of = |name: &&str| {
        let hook = format!("self.spec.hooks.{name}");
        format!("(!has({hook}) || !has({hook}.http) || ({}))", holds.replace("HOOK", &hook))
    };
    format!("!has(self.spec.hooks) || ({})", names.iter().map(of).collect::<Vec<_>>().join(" && "))
}

const fn ten_minutes() -> i64 {
    600
}
