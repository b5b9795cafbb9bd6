//! The objects of a tenant's app: ServiceAccount, Secrets, policies, the Jobs of hooks, and for each component a Deployment
//! and a Service. Pure.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::json;

use super::{
    Error, hooks,
    mail::{MailIntake, SECRET as MAIL},
    object::{ADMIN, App, DATABASE_CA, ENVIRONMENT, FILES, Kind, Object, SERVICE_ACCOUNT, file_key},
    pods::{COMPONENT, Container},
    policies,
    secrets::{MAIL_DKIM_KEY, MAIL_PASSWORD, MAIL_TOKEN},
};
use crate::{
    api::{
        HelpDeskClassSpec,
        help_desk_class::{Component, EnvVar, Workload},
    },
    digest::sha256,
};

/// The objects of an app.
pub struct Objects {
    /// What must be there before anything runs.
    pub first: Vec<Object>,
    /// The components that the hooks need.
    pub before_bootstrap: Vec<Object>,
    /// The Job of the hook `migrate`.
    pub migrate: Option<Object>,
    /// The Jobs that have to be complete before the other pods are started, in order.
    pub hooks: Vec<Object>,
    /// The other components.
    pub components: Vec<Object>,
    /// The Job that teaches the mail filter from the messages that the app has.
    pub learn: Option<Object>,
    /// The Job that gives the app's administrator a new password.
    pub set_admin_password: Option<Object>,
    /// A digest of environment and files.
    pub configuration: String,
}

/// Whether the operator runs anything of this class.
pub fn has_workloads(class: &HelpDeskClassSpec) -> bool {
    class.components.iter().any(|component| component.workload.is_some())
}

/// The objects of the app.
///
/// # Errors
/// [`Error::UnknownVariable`].
pub fn objects(app: &App<'_>) -> Result<Objects, Error> {
    let environment = environment(app)?;
    let files = files(app)?;
    let configuration = sha256(format!("{environment:?}{files:?}").as_bytes())[..16].to_owned();
    let secret = |name: &str, data: BTreeMap<String, String>| Object {
        kind: Kind::Secret,
        name: name.into(),
        body: json!({"type": "Opaque", "data": data.into_iter().map(|(k, v)| (k, BASE64_STANDARD.encode(v))).collect::<BTreeMap<_, _>>()}),
    };
    let mail = app.mail.filter(|_| app.class.mail.is_some());
    let mut first = vec![
        Object { kind: Kind::ServiceAccount, name: SERVICE_ACCOUNT.into(), body: json!({"automountServiceAccountToken": false}) },
        secret(ENVIRONMENT, environment),
        secret(FILES, files),
        secret(ADMIN, BTreeMap::from([("password".to_owned(), app.admin_password.to_owned())])),
    ];
    if let Some(mail) = mail {
        let shared = [(MAIL_TOKEN, mail.token), (MAIL_PASSWORD, mail.password), (MAIL_DKIM_KEY, mail.dkim_key)];
        first.push(secret(MAIL, shared.map(|(name, value)| (name.to_owned(), value.to_owned())).into()));
        first.extend(read_by_intake(mail));
    }
    first.extend(policies::before_pods(app));
    let running = app.class.components.iter().filter_map(|component| Some((component, component.workload.as_ref()?)));
    let (early, late): (Vec<_>, Vec<_>) = running.partition(|(_, workload)| workload.before_bootstrap);
    let of_component = |(component, workload)| {
        let pods = deployment(app, component, workload, &configuration);
        std::iter::once(pods).chain(service(component)).chain(policies::disruption_budget(component))
    };
    Ok(Objects {
        first,
        before_bootstrap: early.into_iter().flat_map(of_component).collect(),
        migrate: app.migration.and_then(|mark| hooks::migrate(app, &configuration, mark)),
        hooks: hooks::before_pods(app, &configuration),
        components: late.into_iter().flat_map(of_component).collect(),
        learn: hooks::learn(app, &configuration),
        set_admin_password: app.password_request.and_then(|request| hooks::set_admin_password(app, &configuration, request)),
        configuration,
    })
}

/// The Role by which the mail intake reads its Secret here, and nothing else.
fn read_by_intake(mail: MailIntake<'_>) -> [Object; 2] {
    let rules = json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": [MAIL], "verbs": ["get"]}]);
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": MAIL});
    let subjects = json!([{"kind": "ServiceAccount", "name": mail.name, "namespace": mail.namespace}]);
    [
        Object { kind: Kind::Role, name: MAIL.into(), body: json!({"rules": rules}) },
        Object { kind: Kind::RoleBinding, name: MAIL.into(), body: json!({"roleRef": role, "subjects": subjects}) },
    ]
}

fn environment(app: &App<'_>) -> Result<BTreeMap<String, String>, Error> {
    let fill = |variable: &EnvVar| {
        let value = app.values.fill_in(&format!("env {}", variable.name), &variable.value)?;
        Ok((variable.name.clone(), value))
    };
    app.class.env.iter().map(fill).collect()
}

/// The contents of the files, by their keys in the Secret.
fn files(app: &App<'_>) -> Result<BTreeMap<String, String>, Error> {
    let mut files = BTreeMap::from([(file_key(DATABASE_CA), app.database_ca.unwrap_or_default().to_owned())]);
    for file in &app.class.files {
        files.insert(file_key(&file.path), app.values.fill_in(&format!("files {}", file.path), &file.content)?);
    }
    files.extend(hooks::files(app));
    Ok(files)
}

fn deployment(app: &App<'_>, component: &Component, workload: &Workload, configuration: &str) -> Object {
    let made = Container::of(workload, &workload.command);
    let mut container = made.render(&component.name, app);
    let probe = |path: &String| json!({"httpGet": {"path": path, "port": component.port}, "timeoutSeconds": 5, "periodSeconds": 5});
    if let Some(port) = component.port {
        container["ports"] = json!([{"name": "http", "containerPort": port, "protocol": "TCP"}]);
        let connects = || json!({"tcpSocket": {"port": port}, "timeoutSeconds": 5, "periodSeconds": 5});
        container["readinessProbe"] = workload.readiness_path.as_ref().map_or_else(connects, probe);
    }
    if let Some(path) = &workload.liveness_path {
        container["livenessProbe"] = probe(path);
        container["livenessProbe"]["failureThreshold"] = json!(6);
        container["livenessProbe"]["initialDelaySeconds"] = json!(30);
    }
    Object {
        kind: Kind::Deployment,
        name: component.name.clone(),
        body: json!({"spec": {
            "replicas": workload.replicas,
            "revisionHistoryLimit": 1,
            "strategy": {"type": if workload.singleton { "Recreate" } else { "RollingUpdate" }},
            "selector": {"matchLabels": {COMPONENT: component.name}},
            "template": made.pod(app, &component.name, configuration, &container),
        }}),
    }
}

/// The Service of a component that listens.
fn service(component: &Component) -> Option<Object> {
    let port = component.port?;
    Some(Object {
        kind: Kind::Service,
        name: component.name.clone(),
        body: json!({"spec": {
            "selector": {COMPONENT: component.name},
            "ports": [{"name": "http", "port": port, "targetPort": port, "protocol": "TCP"}],
        }}),
    })
}

#[cfg(test)]
mod tests;
