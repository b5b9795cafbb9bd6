//! The objects of a tenant's app: ServiceAccount, Secrets, NetworkPolicy, the bootstrap Job, and for each component a
//! Deployment and a Service. Pure.
//!
//! Every pod keeps to the Pod Security Standard `restricted`, has no token of the cluster, and cannot write to its root
//! file system. Configuration reaches it by Secrets only, never by arguments.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{Error, values::Values};
use crate::{
    api::{
        ACCOUNT_LABEL, HelpDeskClassSpec,
        help_desk_class::{Component, Workload},
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
pub const SECRETS: [&str; 3] = [ENVIRONMENT, FILES, ADMIN];
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
    /// The namespace of the mail intake, if there is one.
    pub mail: Option<&'a str>,
}

/// The objects of an app.
pub struct Objects {
    /// What must be there before anything runs.
    pub first: Vec<Object>,
    /// The Job that makes schema and first data.
    pub bootstrap: Option<Object>,
    /// What serves requests: the components.
    pub components: Vec<Object>,
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
    let first = vec![
        Object { kind: Kind::ServiceAccount, name: SERVICE_ACCOUNT.into(), body: json!({"automountServiceAccountToken": false}) },
        secret(ENVIRONMENT, environment),
        secret(FILES, files),
        secret(ADMIN, BTreeMap::from([("password".to_owned(), app.admin_password.to_owned())])),
        network_policy(app),
    ];
    let running = app.class.components.iter().filter_map(|component| Some((component, component.workload.as_ref()?)));
    let components = running.flat_map(|(c, workload)| [deployment(app, c, workload, &configuration), service(c)]).collect();
    Ok(Objects { first, bootstrap: bootstrap(app, &configuration), components })
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

/// Only the gateway and the mail intake reach the pods, and they reach their database server and the cluster's DNS. A policy knows no host
/// names: a database server that has one, and is no Service of the cluster, is allowed by its port alone.
fn network_policy(app: &App<'_>) -> Object {
    let ports: Vec<_> = app.class.components.iter().map(|c| json!({"protocol": "TCP", "port": c.port})).collect();
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
    let mail_port = app.class.components.iter().find(|c| Some(c.name.as_str()) == component).map(|c| c.port);
    let from_mail = mail_port
        .zip(app.mail)
        .map(|(port, namespace)| json!({"ports": [{"protocol": "TCP", "port": port}], "from": [mail_pods(namespace)]}));
    let (host, port) = app.database;
    let mut to_database = json!({"ports": [{"protocol": "TCP", "port": port}]});
    if let Ok(address) = host.parse::<std::net::IpAddr>() {
        let length = if address.is_ipv4() { 32 } else { 128 };
        to_database["to"] = json!([{"ipBlock": {"cidr": format!("{address}/{length}")}}]);
    } else if let Some((_, namespace)) = host.trim_end_matches(".cluster.local").strip_suffix(".svc").and_then(|h| h.rsplit_once('.')) {
        to_database["to"] = json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}]);
    }
    let dns = json!({"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]});
    Object {
        kind: Kind::NetworkPolicy,
        name: "app".into(),
        body: json!({"spec": {
            "podSelector": {"matchExpressions": [{"key": COMPONENT, "operator": "Exists"}]},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": from_gateway.into_iter().chain(from_mail).collect::<Vec<_>>(),
            "egress": [to_database, dns],
        }}),
    }
}

/// The name of a hook's Job says what it runs with: another command, image or configuration is another Job.
fn bootstrap(app: &App<'_>, configuration: &str) -> Option<Object> {
    let hook = app.class.hooks.bootstrap.as_ref()?;
    let component = app.class.components.iter().find(|component| component.name == hook.component)?;
    let workload = component.workload.as_ref()?;
    let mut pod = pod(app, "bootstrap", workload, configuration, container("bootstrap", workload, &hook.command, app));
    pod["spec"]["restartPolicy"] = json!("Never");
    let mark = sha256(format!("{:?}{}", hook.command, workload.image).as_bytes());
    Some(Object {
        kind: Kind::Job,
        name: format!("app-bootstrap-{}", &mark[..10]),
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
    container["ports"] = json!([{"name": "http", "containerPort": component.port, "protocol": "TCP"}]);
    let probe = |path: &String| json!({"httpGet": {"path": path, "port": component.port}, "timeoutSeconds": 5, "periodSeconds": 5});
    if let Some(path) = &workload.readiness_path {
        container["readinessProbe"] = probe(path);
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
            "selector": {"matchLabels": {COMPONENT: component.name}},
            "template": pod(app, &component.name, workload, configuration, container),
        }}),
    }
}

fn service(component: &Component) -> Object {
    Object {
        kind: Kind::Service,
        name: component.name.clone(),
        body: json!({"spec": {
            "selector": {COMPONENT: component.name},
            "ports": [{"name": "http", "port": component.port, "targetPort": component.port, "protocol": "TCP"}],
        }}),
    }
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
        container["command"] = json!(command);
    }
    container
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
mod tests {
    use super::*;

    fn class() -> HelpDeskClassSpec {
        serde_json::from_value(json!({
            "app": {"name": "echo", "version": "1"},
            "components": [{"name": "web", "port": 8080, "workload": {
                "image": "echo:1", "command": ["/echo"], "runAsUser": 33, "scratch": [{"path": "/tmp"}], "readinessPath": "/ready",
            }}],
            "routes": [{"path": "/", "component": "web", "audience": "public"}],
            "env": [{"name": "PASSWORD", "value": "${db.password}"}],
            "files": [{"path": "/etc/echo.conf", "content": "host = ${db.host}"}],
            "hooks": {"bootstrap": {"component": "web", "command": ["/echo", "init"]}},
        }))
        .unwrap()
    }

    fn made(class: &HelpDeskClassSpec, host: &str, password: &str) -> Objects {
        let values = Values::new([("db.host", host.to_owned()), ("db.password", password.to_owned())]);
        let app = App {
            account: "acme",
            class,
            values: &values,
            admin_password: "first",
            database: (host, 5432),
            database_ca: Some("PEM"),
            gateway: Some(("edge", "edge-system")),
            mail: Some("mail-system"),
        };
        objects(&app).unwrap()
    }

    fn pods(objects: &Objects) -> Vec<&Value> {
        objects.bootstrap.iter().chain(&objects.components).filter_map(|o| o.body["spec"].get("template")).collect()
    }

    #[test]
    fn every_pod_keeps_to_the_restricted_standard_and_has_no_token_and_no_writable_root() {
        let class = class();
        let all = made(&class, "pg", "x");
        assert_eq!(pods(&all).len(), 2);
        for pod in pods(&all) {
            let spec = &pod["spec"];
            assert_eq!(spec["automountServiceAccountToken"], false);
            assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
            assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
            for container in spec["containers"].as_array().unwrap() {
                let security = &container["securityContext"];
                assert_eq!(
                    (&security["allowPrivilegeEscalation"], &security["readOnlyRootFilesystem"], &security["capabilities"]["drop"][0]),
                    (&json!(false), &json!(true), &json!("ALL"))
                );
            }
        }
    }

    #[test]
    fn a_secret_value_is_in_a_secret_and_nowhere_else() {
        let class = class();
        let all = made(&class, "pg", "hunter2");
        let encoded = BASE64_STANDARD.encode("hunter2");
        for object in all.first.iter().chain(&all.bootstrap).chain(&all.components) {
            let text = object.body.to_string();
            assert!(!text.contains("hunter2"), "{} {}", object.name, text);
            assert_eq!(text.contains(&encoded), object.name == ENVIRONMENT, "{}", object.name);
        }
    }

    #[test]
    fn another_password_starts_the_pods_anew_and_runs_no_bootstrap_again() {
        let class = class();
        let (one, other) = (made(&class, "pg", "one"), made(&class, "pg", "other"));
        let mark = |objects: &Objects| pods(objects).last().unwrap()["metadata"]["annotations"][CONFIGURATION].clone();
        assert_ne!(mark(&one), mark(&other));
        assert_eq!(one.bootstrap.unwrap().name, other.bootstrap.unwrap().name);
    }

    #[test]
    fn pods_reach_their_database_by_what_is_known_of_its_address() {
        let class = class();
        let to = |host: &str| network_egress(&made(&class, host, "x"));
        assert_eq!(to("10.0.0.7"), json!([{"ipBlock": {"cidr": "10.0.0.7/32"}}]));
        assert_eq!(to("fd00::7"), json!([{"ipBlock": {"cidr": "fd00::7/128"}}]));
        let namespace = json!([{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "databases"}}}]);
        assert_eq!(to("pg.databases.svc"), namespace);
        assert_eq!(to("pg.databases.svc.cluster.local"), namespace);
        assert_eq!(to("pg.example.com"), Value::Null, "a name outside of the cluster: only the port is known");
    }

    #[test]
    fn the_mail_intake_reaches_the_component_that_takes_mail_and_no_other() {
        let mut class = class();
        let ingress = |class: &HelpDeskClassSpec| {
            let objects = made(class, "pg", "x");
            let policy = objects.first.iter().find(|object| object.kind == Kind::NetworkPolicy).unwrap().body.clone();
            policy["spec"]["ingress"].as_array().unwrap().clone()
        };
        assert_eq!(ingress(&class).len(), 1, "a class without mail");
        class.mail = serde_json::from_value(json!({"intake": {"component": "web", "path": "/in", "mailboxes": [{"name": "a"}]}})).unwrap();
        let rules = ingress(&class);
        assert_eq!(rules[1]["ports"], json!([{"protocol": "TCP", "port": 8080}]));
        assert_eq!(rules[1]["from"], json!([mail_pods("mail-system")]));
    }

    fn network_egress(objects: &Objects) -> Value {
        let policy = objects.first.iter().find(|object| object.kind == Kind::NetworkPolicy).unwrap();
        policy.body["spec"]["egress"][0]["to"].clone()
    }
}
