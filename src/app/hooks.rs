//! The Jobs of an app's hooks. Pure.

use serde_json::json;

use super::{
    object::{App, DATABASE_CA, FILES, Kind, Object},
    pods::Container,
};
use crate::{
    api::help_desk_class::{ExecHook, Hook, HttpHook},
    digest::sha256,
};

/// The Job that ends sessions. It has one name whatever it runs, so that another class ends no session of a tenant who
/// works; it is deleted when the app is stopped, and is made anew when the app is started.
pub const INVALIDATE_SESSIONS: &str = "app-invalidate-sessions";

/// The exit codes that ask for another try: psql's, when it lost the database
/// (https://www.postgresql.org/docs/17/app-psql.html, Exit Status); a hook's own; those of a container that was killed (128
/// and the number of SIGKILL or SIGTERM), which is no word of the hook.
const AGAIN: [u8; 4] = [2, 75, 137, 143];

/// How the names of Jobs of the hook `migrate` begin.
pub const MIGRATE: &str = "app-migrate-";

/// The folder of a hook's SQL.
const SQL_FOLDER: &str = "/etc/helpdesk/sql";

/// The Jobs that have to be complete before the pods are started, in order.
pub(super) fn before_pods(app: &App<'_>, configuration: &str) -> Vec<Object> {
    let hooks = &app.class.hooks;
    let bootstrap = hooks.bootstrap.as_ref().and_then(|hook| named_by_content(app, "bootstrap", hook, configuration));
    let sessions =
        hooks.invalidate_sessions.as_ref().and_then(|hook| job(app, "invalidate-sessions", INVALIDATE_SESSIONS, hook, configuration));
    bootstrap.into_iter().chain(sessions).collect()
}

/// The Job that brings the schema to this revision of the class, where there is one. Each upgrade has its own Job, named
/// with `mark`: a class that goes back to an earlier hook runs it again.
pub(super) fn migrate(app: &App<'_>, configuration: &str, mark: &str) -> Option<Object> {
    let hook = app.class.hooks.migrate.as_ref()?;
    job(app, "migrate", &format!("{MIGRATE}{mark}"), hook, configuration)
}

/// The Job that gives the app's administrator a new password, where there is one. Each request has its own.
pub(super) fn set_admin_password(app: &App<'_>, configuration: &str, request: &str) -> Option<Object> {
    let hook = app.class.hooks.set_admin_password.as_ref()?;
    job(app, "set-admin-password", &format!("app-set-admin-password-{request}"), hook, configuration)
}

/// The Job that teaches the mail filter, where there is one.
pub(super) fn learn(app: &App<'_>, configuration: &str) -> Option<Object> {
    let hook = app.class.hooks.learn.as_ref().filter(|_| app.mail.is_some() && app.class.mail.is_some())?;
    named_by_content(app, "learn", hook, configuration)
}

/// The texts of SQL hooks, by their keys in the Secret of files.
pub(super) fn files(app: &App<'_>) -> Vec<(String, String)> {
    let sql = |(name, hook): (_, Option<&Hook>)| Some((sql_key(name), hook?.sql.as_ref()?.statements.clone()));
    app.class.hooks.all().into_iter().filter_map(sql).collect()
}

fn sql_key(hook: &str) -> String {
    format!("{hook}.sql")
}

/// The Job's name says what the hook runs: another command or image is another Job.
fn named_by_content(app: &App<'_>, hook_name: &str, hook: &Hook, configuration: &str) -> Option<Object> {
    let content = match hook {
        Hook { exec: Some(exec), .. } => format!("{:?}{}", exec.command, image(app, exec).unwrap_or_default()),
        Hook { sql: Some(sql), .. } => sql.statements.clone(),
        Hook { http: Some(http), .. } => format!("{http:?}"),
        Hook { .. } => return None,
    };
    job(app, hook_name, &format!("app-{hook_name}-{}", &sha256(content.as_bytes())[..10]), hook, configuration)
}

fn image<'a>(app: &App<'a>, exec: &ExecHook) -> Option<&'a str> {
    let component = app.class.components.iter().find(|component| component.name == exec.component)?;
    Some(&component.workload.as_ref()?.image)
}

/// `None`: the hook names a component without a workload, which admission refuses.
fn job(app: &App<'_>, hook_name: &str, name: &str, hook: &Hook, configuration: &str) -> Option<Object> {
    let (mut pod, again) = match hook {
        Hook { exec: Some(exec), .. } => (exec_pod(app, hook_name, exec, configuration)?, &AGAIN[1..]),
        Hook { sql: Some(_), .. } => (sql_pod(app, hook_name, configuration), &AGAIN[..]),
        Hook { http: Some(http), .. } => (http_pod(app, hook_name, http, hook.deadline_seconds, configuration)?, &AGAIN[1..]),
        Hook { .. } => return None,
    };
    pod["spec"]["restartPolicy"] = json!("Never");
    Some(Object {
        kind: Kind::Job,
        name: name.to_owned(),
        body: json!({"spec": {
            "backoffLimit": 10,
            "activeDeadlineSeconds": hook.deadline_seconds,
            "podFailurePolicy": {"rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": again}},
            ]},
            "template": pod,
        }}),
    })
}

fn exec_pod(app: &App<'_>, hook: &str, exec: &ExecHook, configuration: &str) -> Option<serde_json::Value> {
    let component = app.class.components.iter().find(|component| component.name == exec.component)?;
    let container = Container::of(component.workload.as_ref()?, &exec.command);
    Some(container.pod(app, hook, configuration, &container.render(hook, app)))
}

/// This program from the operator's image, with the app's environment and files. It gets the names of environment variables
/// and files as arguments, never what is in them.
fn http_pod(app: &App<'_>, name: &str, hook: &HttpHook, deadline_seconds: i64, configuration: &str) -> Option<serde_json::Value> {
    let port = app.class.components.iter().find(|component| component.name == hook.component)?.port?;
    // Each try has a quarter of the time, so that a component that hangs once is asked again.
    let seconds = (deadline_seconds / 4).max(1).to_string();
    let port = port.to_string();
    let mut options = vec![
        ("host", hook.component.as_str()),
        ("port", &port),
        ("method", hook.method.name()),
        ("path", &hook.path),
        ("seconds", &seconds),
    ];
    let headers: Vec<_> = hook.headers.iter().map(|header| format!("{}={}", header.name, header.value_from_env)).collect();
    let status: Vec<_> = hook.expected_status.iter().map(ToString::to_string).collect();
    options.extend(headers.iter().map(|header| ("header", header.as_str())));
    options.extend(hook.body_file.iter().map(|path| ("body", path.as_str())));
    options.extend(status.iter().map(|status| ("status", status.as_str())));
    let program = ["helpdesk-operator".to_owned(), "request".to_owned()];
    let command: Vec<_> = program.into_iter().chain(options.into_iter().map(|(option, value)| format!("--{option}={value}"))).collect();
    let container = Container::of_operator(app, &command);
    Some(container.pod(app, name, configuration, &container.render(name, app)))
}

/// psql from the operator's image, which has it for its movers. It reads the login from the tenant's Secret and the
/// statements from a file.
fn sql_pod(app: &App<'_>, hook: &str, configuration: &str) -> serde_json::Value {
    let file = format!("{SQL_FOLDER}/{}", sql_key(hook));
    let command = ["psql", "--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1", "--file", &file].map(str::to_owned);
    let container = Container::of_operator(app, &command);
    let mut rendered = container.render(hook, app);
    let secret = |variable: &str, key: &str| json!({"name": variable, "valueFrom": {"secretKeyRef": {"name": app.binding, "key": key}}});
    let value = |variable: &str, value: &str| json!({"name": variable, "value": value});
    // What the class sets for its app is not for this program.
    rendered["envFrom"] = json!([]);
    rendered["env"] = json!([
        secret("PGHOST", "host"),
        secret("PGPORT", "port"),
        secret("PGDATABASE", "database"),
        secret("PGUSER", "username"),
        secret("PGPASSWORD", "password"),
        secret("PGSSLMODE", "sslmode"),
        value("PGSSLROOTCERT", DATABASE_CA),
        value("PGCONNECT_TIMEOUT", "10"),
    ]);
    if let Some(mounts) = rendered["volumeMounts"].as_array_mut() {
        mounts.push(json!({"name": "sql", "mountPath": SQL_FOLDER, "readOnly": true}));
    }
    let mut pod = container.pod(app, hook, configuration, &rendered);
    if let Some(volumes) = pod["spec"]["volumes"].as_array_mut() {
        volumes.push(json!({"name": "sql", "secret": {
            "secretName": FILES, "defaultMode": 0o440, "items": [{"key": sql_key(hook), "path": sql_key(hook)}],
        }}));
    }
    pod
}
