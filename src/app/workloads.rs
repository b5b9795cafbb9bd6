//! The objects of a tenant's app: ServiceAccount, Secrets, NetworkPolicy, the bootstrap Job, and for each component a
//! Deployment and a Service. Pure.
//!
//! Every pod keeps to the Pod Security Standard `restricted`, has no token of the cluster, and cannot write to its root
//! file system. Configuration reaches it by Secrets only, never by arguments.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    Error,
    mail::{LEARN_PORT, MailIntake, SECRET as MAIL, SUBMISSION_POD_PORT},
    secrets::{MAIL_PASSWORD, MAIL_TOKEN},
    values::Values,
};
use crate::{
    api::{
        ACCOUNT_LABEL, HelpDeskClassSpec,
        help_desk_class::{Component, ExecHook, Workload},
    },
    digest::sha256,
};

/// The ServiceAccount of the app's pods; it may do nothing.
const SERVICE_ACCOUNT: &str = "app";
/// The Secret with the environment.
const ENVIRONMENT: &str = "app-env";
/// The Secret with the files.
const FILES: &str = "app-files";
/// The Secret with the first password of the app's administrator, for the owner.
const ADMIN: &str = "app-admin";
/// The Secrets of an app.
pub const SECRETS: [&str; 4] = [ENVIRONMENT, FILES, ADMIN, MAIL];
/// Label on the app's pods with the component's name; on the pods of hooks with the hook's.
const COMPONENT: &str = "helpdesk-operator.io/component";
/// Annotation on pods with a digest of their configuration, so that another configuration starts them anew.
const CONFIGURATION: &str = "helpdesk-operator.io/configuration";
/// Where the certificate authority of the database server lies in every container.
pub const DATABASE_CA: &str = "/etc/helpdesk/database-ca.crt";
/// How long a pod is given to end. A request that runs is finished; a stream is cut.
const GRACE_SECONDS: i64 = 5;

/// The kinds of objects of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Who the pods are.
    ServiceAccount,
    /// Environment and files.
    Secret,
    /// What the mail intake may read.
    Role,
    /// That it may.
    RoleBinding,
    /// Who may connect to the pods, and to whom they may.
    NetworkPolicy,
    /// A hook.
    Job,
    /// The pods of a component.
    Deployment,
    /// The address of a component.
    Service,
}

/// An object of the app as it is wanted, without the metadata that all have.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its name in the tenant's namespace.
    pub name: String,
    /// Everything but metadata.
    pub body: Value,
}

/// Whose app it is and what surrounds it.
pub struct App<'a> {
    /// The account's name.
    pub account: &'a str,
    /// The class.
    pub class: &'a HelpDeskClassSpec,
    /// The values of variables.
    pub values: &'a Values,
    /// The first password of the app's administrator.
    pub admin_password: &'a str,
    /// The host and port of the tenant's database server.
    pub database: (&'a str, u16),
    /// The certificate authority of that server, in PEM.
    pub database_ca: Option<&'a str>,
    /// Name and namespace of the Gateway that publishes the app.
    pub gateway: Option<(&'a str, &'a str)>,
    /// The mail intake, if there is one.
    pub mail: Option<MailIntake<'a>>,
}

/// The objects of an app.
pub struct Objects {
    /// What must be there before anything runs.
    pub first: Vec<Object>,
    /// The components that the bootstrap needs.
    pub before_bootstrap: Vec<Object>,
    /// The Job that makes schema and first data.
    pub bootstrap: Option<Object>,
    /// The other components.
    pub components: Vec<Object>,
    /// The Job that teaches the mail filter from the messages that the app has.
    pub learn: Option<Object>,
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
        network_policy(app),
    ];
    if let Some(mail) = mail {
        let shared = BTreeMap::from([(MAIL_TOKEN.to_owned(), mail.token.to_owned()), (MAIL_PASSWORD.to_owned(), mail.password.to_owned())]);
        first.push(secret(MAIL, shared));
        first.extend(read_by_intake(mail));
    }
    let running = app.class.components.iter().filter_map(|component| Some((component, component.workload.as_ref()?)));
    let (early, late): (Vec<_>, Vec<_>) = running.partition(|(_, workload)| workload.before_bootstrap);
    let made = |components: Vec<(&Component, &Workload)>| -> Vec<Object> {
        components.into_iter().flat_map(|(c, w)| std::iter::once(deployment(app, c, w, &configuration)).chain(service(c))).collect()
    };
    let bootstrap = app.class.hooks.bootstrap.as_ref().and_then(|command| hook(app, "bootstrap", command, &configuration));
    let learn = app.class.hooks.learn.as_ref().filter(|_| mail.is_some());
    let learn = learn.and_then(|command| hook(app, "learn", command, &configuration));
    Ok(Objects { first, before_bootstrap: made(early), bootstrap, components: made(late), learn })
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
    let fill = |variable: &crate::api::help_desk_class::EnvVar| {
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
    Ok(files)
}

/// A key of a Secret has no slashes; paths that differ have keys that differ.
fn file_key(path: &str) -> String {
    sha256(path.as_bytes())[..16].to_owned()
}

/// The labels of the mail intake's pods.
fn mail_pods(namespace: &str) -> Value {
    json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "helpdesk-operator", "app.kubernetes.io/component": "mail"}},
    })
}

/// The gateway reaches the components that have routes, the mail intake the component that takes mail, the pods of one app
/// reach each other, and they reach their database server, the cluster's DNS and the mail intake. Nothing else. A policy knows no host names:
/// a database server that has one, and is no Service of the cluster, is allowed by its port alone.
fn network_policy(app: &App<'_>) -> Object {
    let is_published = |c: &&Component| app.class.routes.iter().any(|route| route.component == c.name);
    let published = app.class.components.iter().filter(is_published).filter_map(|c| c.port);
    let ports: Vec<_> = published.map(|port| json!({"protocol": "TCP", "port": port})).collect();
    let pods = json!({"matchExpressions": [{"key": COMPONENT, "operator": "Exists"}]});
    let from_gateway = app.gateway.map(|(name, namespace)| {
        json!({"ports": ports, "from": [{
            "namespaceSelector": {},
            "podSelector": {"matchLabels": {
                "gateway.envoyproxy.io/owning-gateway-name": name,
                "gateway.envoyproxy.io/owning-gateway-namespace": namespace,
            }},
        }]})
    });
    let component = app.class.mail.as_ref().map(|mail| mail.intake.component.as_str());
    let mail_port = app.class.components.iter().find(|c| Some(c.name.as_str()) == component).and_then(|c| c.port);
    let from_mail = mail_port
        .zip(app.mail)
        .map(|(port, mail)| json!({"ports": [{"protocol": "TCP", "port": port}], "from": [mail_pods(mail.namespace)]}));
    let to_mail = app.mail.filter(|_| app.class.mail.is_some());
    let mail_ports = [LEARN_PORT, SUBMISSION_POD_PORT].map(|port| json!({"protocol": "TCP", "port": port}));
    let to_mail = to_mail.map(|mail| json!({"ports": mail_ports, "to": [mail_pods(mail.namespace)]}));
    let (host, port) = app.database;
    let mut to_database = json!({"ports": [{"protocol": "TCP", "port": port}]});
    if let Ok(address) = host.parse::<std::net::IpAddr>() {
        let length = if address.is_ipv4() { 32 } else { 128 };
        to_database["to"] = json!([{"ipBlock": {"cidr": format!("{address}/{length}")}}]);
    } else if let Some((_, namespace)) = host.trim_end_matches(".cluster.local").strip_suffix(".svc").and_then(|h| h.rsplit_once('.')) {
        to_database["to"] = json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}]);
    }
    let dns = json!({"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]});
    let egress: Vec<_> = [to_database, dns, json!({"to": [{"podSelector": pods}]})].into_iter().chain(to_mail).collect();
    Object {
        kind: Kind::NetworkPolicy,
        name: "app".into(),
        body: json!({"spec": {
            "podSelector": pods,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": from_gateway.into_iter().chain(from_mail).chain([json!({"from": [{"podSelector": pods}]})]).collect::<Vec<_>>(),
            "egress": egress,
        }}),
    }
}

/// The name of a hook's Job says what it runs with: another command, image or configuration is another Job.
fn hook(app: &App<'_>, name: &str, hook: &ExecHook, configuration: &str) -> Option<Object> {
    let component = app.class.components.iter().find(|component| component.name == hook.component)?;
    let workload = component.workload.as_ref()?;
    let mut pod = pod(app, name, workload, configuration, container(name, workload, &hook.command, app));
    pod["spec"]["restartPolicy"] = json!("Never");
    let mark = sha256(format!("{:?}{}", hook.command, workload.image).as_bytes());
    Some(Object {
        kind: Kind::Job,
        name: format!("app-{name}-{}", &mark[..10]),
        body: json!({"spec": {
            "backoffLimit": 10,
            "activeDeadlineSeconds": hook.deadline_seconds,
            "podFailurePolicy": {"rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "FailJob", "onExitCodes": {"operator": "NotIn", "values": [75]}},
            ]},
            "template": pod,
        }}),
    })
}

fn deployment(app: &App<'_>, component: &Component, workload: &Workload, configuration: &str) -> Object {
    let mut container = container(&component.name, workload, &workload.command, app);
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
            "template": pod(app, &component.name, workload, configuration, container),
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

fn container(name: &str, workload: &Workload, command: &[String], app: &App<'_>) -> Value {
    let paths = app.class.files.iter().map(|file| file.path.as_str()).chain([DATABASE_CA]);
    let files = paths.map(|path| json!({"name": "files", "mountPath": path, "subPath": file_key(path), "readOnly": true}));
    let scratch =
        workload.scratch.iter().enumerate().map(|(number, folder)| json!({"name": format!("scratch-{number}"), "mountPath": folder.path}));
    let mut container = json!({
        "name": name,
        "image": workload.image,
        "imagePullPolicy": "IfNotPresent",
        "envFrom": [{"secretRef": {"name": ENVIRONMENT}}],
        "volumeMounts": files.chain(scratch).collect::<Vec<_>>(),
        "resources": {"requests": {"cpu": workload.cpu, "memory": workload.memory}, "limits": {"memory": workload.memory}},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
    });
    if !command.is_empty() {
        container["command"] = json!(command.iter().map(|argument| literal(argument)).collect::<Vec<_>>());
    }
    container
}

/// A text that Kubernetes leaves as it is. In a command it would put the environment's value in place of `$(NAME)`, and a
/// password would be in the arguments of a process, which others can read. `$$` stands for `$`.
fn literal(argument: &str) -> String {
    argument.replace('$', "$$")
}

fn pod(app: &App<'_>, component: &str, workload: &Workload, configuration: &str, container: Value) -> Value {
    let scratch = workload
        .scratch
        .iter()
        .enumerate()
        .map(|(number, folder)| json!({"name": format!("scratch-{number}"), "emptyDir": {"sizeLimit": folder.size}}));
    let files = json!({"name": "files", "secret": {"secretName": FILES, "defaultMode": 0o440}});
    json!({
        "metadata": {
            "labels": {COMPONENT: component, ACCOUNT_LABEL: app.account},
            "annotations": {CONFIGURATION: configuration},
        },
        "spec": {
            "serviceAccountName": SERVICE_ACCOUNT,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": GRACE_SECONDS,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": workload.run_as_user,
                "runAsGroup": workload.run_as_user,
                "fsGroup": workload.run_as_user,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": scratch.chain([files]).collect::<Vec<_>>(),
        },
    })
}

#[cfg(test)]
mod tests;
