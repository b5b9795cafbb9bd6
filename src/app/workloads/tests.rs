use serde::Deserialize;
use serde_json::Value;

use super::*;
use crate::{
    api::{
        help_desk_class::{AppFile, EnvVar, Hook, HttpHook, HttpHookHeader, HttpMethod, SqlHook},
        plan::PlanApp,
        variables::VARIABLES,
    },
    app::{pods::CONFIGURATION, secrets, values::Values},
};

const LIMITS: PlanApp = PlanApp { max_cpu: None, max_memory: None, max_pods: Some(5) };
const INTAKE: MailIntake<'_> = MailIntake { namespace: "mail-system", name: "mail", token: "shared", password: "sends", dkim_key: "signs" };

fn class() -> HelpDeskClassSpec {
    serde_json::from_value(json!({
        "app": {"name": "echo", "version": "1"},
        "components": [{"name": "web", "port": 8080, "workload": {
            "image": "echo:1", "command": ["/echo"], "runAsUser": 33, "scratch": [{"path": "/tmp"}], "readinessPath": "/ready",
        }}],
        "routes": [{"path": "/", "component": "web", "audience": "public"}],
        "env": [{"name": "PASSWORD", "value": "${db.password}"}],
        "files": [{"path": "/etc/echo.conf", "content": "host = ${db.host}"}],
        "hooks": {
            "bootstrap": {"exec": {"component": "web", "command": ["/echo", "init"]}},
            "invalidateSessions": {"sql": {"statements": "DELETE FROM sessions"}},
        },
    }))
    .unwrap()
}

fn made(class: &HelpDeskClassSpec, host: &str, password: &str) -> Objects {
    let values = Values::new([("db.host", host.to_owned()), ("db.password", password.to_owned())]);
    made_with(class, &values, host).unwrap()
}

fn made_with(class: &HelpDeskClassSpec, values: &Values, host: &str) -> Result<Objects, Error> {
    objects(&app(class, values, host))
}

fn app<'a>(class: &'a HelpDeskClassSpec, values: &'a Values, host: &'a str) -> App<'a> {
    App {
        account: "acme",
        class,
        values,
        admin_password: "first",
        database: (host, 5432),
        database_ca: Some("PEM"),
        gateway: Some(("edge", "edge-system")),
        mail: Some(INTAKE),
        migration: None,
        password_request: None,
        limits: &LIMITS,
        binding: "database",
        operator_image: "operator:1",
        operator_namespace: "helpdesk-operator",
    }
}

fn pods(objects: &Objects) -> Vec<&Value> {
    objects
        .before_bootstrap
        .iter()
        .chain(&objects.hooks)
        .chain(&objects.components)
        .filter_map(|o| o.body["spec"].get("template"))
        .collect()
}

#[test]
fn every_pod_keeps_to_the_restricted_standard_and_has_no_token_and_no_writable_root() {
    let class = class();
    let all = made(&class, "pg", "x");
    assert_eq!(pods(&all).len(), 3);
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
    for object in all.first.iter().chain(&all.hooks).chain(&all.components) {
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
    let names = |objects: &Objects| objects.hooks.iter().map(|hook| hook.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&one), names(&other));
}

#[test]
fn a_migration_is_a_job_of_its_own_for_each_upgrade_and_comes_with_its_statements() {
    let mut class = class();
    class.hooks.migrate =
        Some(Hook { exec: None, sql: Some(SqlHook { statements: "ALTER TABLE t".into() }), http: None, deadline_seconds: 60 });
    let values = Values::new([("db.host", "pg".to_owned()), ("db.password", "x".to_owned())]);
    let of = |migration: Option<&str>| objects(&App { migration, ..app(&class, &values, "pg") }).unwrap().migrate;
    assert_eq!(of(None), None);
    let (one, other) = (of(Some("aa")).unwrap(), of(Some("bb")).unwrap());
    assert_eq!((one.name.as_str(), other.name.as_str()), ("app-migrate-aa", "app-migrate-bb"));
    assert_eq!(one.body["spec"]["activeDeadlineSeconds"], 60);
    let files = made(&class, "pg", "x").first.into_iter().find(|object| object.name == FILES).unwrap();
    assert_eq!(files.body["data"]["migrate.sql"], BASE64_STANDARD.encode("ALTER TABLE t"));
}

#[test]
fn a_request_of_a_hook_has_names_of_secrets_in_its_arguments_and_no_secret() {
    let mut class = class();
    let http = HttpHook {
        component: "web".into(),
        path: "/setup".into(),
        method: HttpMethod::Put,
        headers: vec![HttpHookHeader { name: "Authorization".into(), value_from_env: "PASSWORD".into() }],
        body_file: Some("/etc/echo.conf".into()),
        expected_status: vec![200, 409],
    };
    class.hooks.bootstrap = Some(Hook { exec: None, sql: None, http: Some(http), deadline_seconds: 60 });
    let all = made(&class, "pg", "hunter2");
    let pod = &all.hooks[0].body["spec"]["template"];
    let container = &pod["spec"]["containers"][0];
    let expected = "helpdesk-operator request --host=web --port=8080 --method=PUT --path=/setup --seconds=15 \
                    --header=Authorization=PASSWORD --body=/etc/echo.conf --status=200 --status=409";
    let command: Vec<_> = container["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    assert_eq!((command.join(" ").as_str(), &container["image"]), (expected, &json!("operator:1")));
    assert_eq!(container["envFrom"][0]["secretRef"]["name"], ENVIRONMENT);
    assert!(container["volumeMounts"].as_array().unwrap().iter().any(|mount| mount["mountPath"] == "/etc/echo.conf"));
}

#[test]
fn a_command_is_taken_literally() {
    let mut class = class();
    let workload = class.components[0].workload.as_mut().unwrap();
    workload.command = ["sh", "-c", "echo ${db.password} $(PASSWORD) $$(PASSWORD) $HOME"].map(str::to_owned).to_vec();
    let all = made(&class, "pg", "hunter2");
    let command = &pods(&all).last().unwrap()["spec"]["containers"][0]["command"];
    // What Kubernetes makes of it: $$ stands for $, and nothing else begins a variable.
    let read = command[2].as_str().unwrap().replace("$$", "$");
    assert_eq!(read, "echo ${db.password} $(PASSWORD) $$(PASSWORD) $HOME");
    assert_eq!(command[2].as_str().unwrap().replace("$$", "").find('$'), None);
}

#[test]
fn what_a_class_writes_into_its_environment_and_files_changes_nothing_of_the_pod() {
    let mut hostile = class();
    for (name, value) in [("LD_PRELOAD", "/tmp/x.so"), ("PATH", "/tmp"), ("KUBERNETES_SERVICE_HOST", "10.0.0.1")] {
        hostile.env.push(EnvVar { name: name.into(), value: value.into() });
    }
    hostile.files.push(AppFile { path: "/etc/passwd".into(), content: "root::0:0::/:/bin/sh".into() });
    let (plain, hostile) = (made(&class(), "pg", "x"), made(&hostile, "pg", "x"));
    for (plain, hostile) in pods(&plain).into_iter().zip(pods(&hostile)) {
        for field in ["securityContext", "serviceAccountName", "automountServiceAccountToken", "volumes"] {
            assert_eq!(plain["spec"][field], hostile["spec"][field], "{field}");
        }
        let container = |pod: &Value| pod["spec"]["containers"][0].clone();
        for field in ["securityContext", "image", "command", "resources", "envFrom"] {
            assert_eq!(container(plain)[field], container(hostile)[field], "{field}");
        }
    }
}

#[test]
fn a_component_in_the_background_has_no_service_and_what_the_bootstrap_needs_comes_before_it() {
    let mut class = class();
    let workload = class.components[0].workload.clone().unwrap();
    let background = Workload { readiness_path: None, ..workload.clone() };
    let cache = Workload { readiness_path: None, before_bootstrap: true, singleton: true, ..workload };
    class.components.push(Component { name: "worker".into(), port: None, workload: Some(background) });
    class.components.push(Component { name: "cache".into(), port: Some(6379), workload: Some(cache) });
    let all = made(&class, "pg", "x");
    let names = |objects: &[Object]| objects.iter().map(|o| format!("{:?} {}", o.kind, o.name)).collect::<Vec<_>>();
    assert_eq!(names(&all.before_bootstrap), ["Deployment cache", "Service cache"]);
    assert_eq!(names(&all.components), ["Deployment web", "Service web", "Deployment worker"]);
    let container = |objects: &[Object], at: usize| objects[at].body["spec"]["template"]["spec"]["containers"][0].clone();
    assert_eq!(container(&all.before_bootstrap, 0)["readinessProbe"]["tcpSocket"], json!({"port": 6379}));
    assert_eq!(container(&all.components, 2)["readinessProbe"], Value::Null);

    let strategy = |object: &Object| object.body["spec"]["strategy"]["type"].clone();
    assert_eq!((strategy(&all.before_bootstrap[0]), strategy(&all.components[0])), (json!("Recreate"), json!("RollingUpdate")));

    // The gateway reaches what has a route, and the app's own pods reach each other.
    let policy = all.first.iter().find(|object| object.kind == Kind::NetworkPolicy && object.name == "app").unwrap();
    let ingress = policy.body["spec"]["ingress"].as_array().unwrap();
    assert_eq!((ingress.len(), &ingress[0]["ports"]), (2, &json!([{"protocol": "TCP", "port": 8080}])));
    assert_eq!(ingress[1]["from"][0]["podSelector"], policy.body["spec"]["podSelector"]);
}

/// Every class in `examples/`, by its file.
fn examples() -> Vec<(String, HelpDeskClassSpec)> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut found = vec![];
    for file in
        std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).filter(|file| file.extension().is_some_and(|e| e == "yaml"))
    {
        let text = std::fs::read_to_string(&file).unwrap();
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            let object = Value::deserialize(document).unwrap();
            if object["kind"] == "HelpDeskClass" {
                found.push((file.display().to_string(), serde_json::from_value(object["spec"].clone()).unwrap()));
            }
        }
    }
    found
}

#[test]
fn every_class_of_the_examples_is_filled_in_and_names_only_what_there_is() {
    let all = examples();
    assert!(all.len() >= 4, "{all:?}");
    for (file, class) in all {
        let secrets = class.secrets.iter().map(|secret| (secrets::name_of(secret), "0123456789abcdef".repeat(8)));
        let known = VARIABLES.iter().map(|variable| (variable.name.to_owned(), format!("value-of-{}", variable.name)));
        let values = Values::new(known.chain(secrets));
        let made = made_with(&class, &values, "pg.databases.svc").unwrap_or_else(|error| panic!("{file}: {error}"));
        let deployments = made.before_bootstrap.iter().chain(&made.components).filter(|o| o.kind == Kind::Deployment).count();
        assert_eq!(deployments, class.components.iter().filter(|c| c.workload.is_some()).count(), "{file}");
        let hooks = [&class.hooks.bootstrap, &class.hooks.invalidate_sessions].into_iter().flatten().count();
        assert_eq!(made.hooks.len(), hooks, "{file}");
    }
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
        let policy = objects.first.iter().find(|object| object.kind == Kind::NetworkPolicy && object.name == "app").unwrap().body.clone();
        policy["spec"]["ingress"].as_array().unwrap().clone()
    };
    assert_eq!(ingress(&class).len(), 2, "a class without mail");
    class.mail = serde_json::from_value(json!({"intake": {"component": "web", "path": "/in", "mailboxes": [{"name": "a"}]}})).unwrap();
    let rules = ingress(&class);
    assert_eq!(rules[1]["ports"], json!([{"protocol": "TCP", "port": 8080}]));
    assert_eq!(rules[1]["from"], json!([policies::mail_pods("mail-system")]));
}

#[test]
fn a_quota_allows_no_storage_that_no_backup_has_and_keeps_to_the_plan() {
    let class = class();
    let all = made(&class, "pg", "x");
    let quota = all.first.iter().find(|object| object.kind == Kind::ResourceQuota).unwrap();
    let hard = json!({"persistentvolumeclaims": "0", "services.nodeports": "0", "services.loadbalancers": "0", "pods": "5"});
    assert_eq!(quota.body["spec"]["hard"], hard);
}

#[test]
fn several_pods_of_a_component_are_taken_away_one_at_a_time() {
    let budgets =
        |class: &HelpDeskClassSpec| made(class, "pg", "x").components.iter().filter(|o| o.kind == Kind::PodDisruptionBudget).count();
    let mut several = class();
    assert_eq!(budgets(&several), 0, "the only pod of a component could never be taken away");
    several.components[0].workload.as_mut().unwrap().replicas = 2;
    assert_eq!(budgets(&several), 1);
}

#[test]
fn sql_of_a_hook_runs_with_the_tenants_login_and_is_on_no_command_line() {
    let class = class();
    let all = made(&class, "pg", "x");
    let job = all.hooks.iter().find(|object| object.name == hooks::INVALIDATE_SESSIONS).unwrap();
    let container = &job.body["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "operator:1");
    assert!(!container["command"].to_string().contains("DELETE"), "{}", container["command"]);
    assert!(
        container["env"]
            .as_array()
            .unwrap()
            .iter()
            .any(|v| v["valueFrom"]["secretKeyRef"] == json!({"name": "database", "key": "password"}))
    );
    let files = all.first.iter().find(|object| object.name == FILES).unwrap();
    assert_eq!(files.body["data"]["invalidate-sessions.sql"], BASE64_STANDARD.encode("DELETE FROM sessions"));
}

fn network_egress(objects: &Objects) -> Value {
    let policy = objects.first.iter().find(|object| object.kind == Kind::NetworkPolicy && object.name == "app").unwrap();
    policy.body["spec"]["egress"][0]["to"].clone()
}
