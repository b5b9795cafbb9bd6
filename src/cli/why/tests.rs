//! Each scene leads to the cause that is in it.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    scene::{Leadership, Operator},
    *,
};
use crate::{
    api::{BackupStore, ColdBackup, DatabaseServer, HelpDeskAccount, HelpDeskClass, HelpDeskPlan},
    cli::seen::Seen,
};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};

const OPERATOR: &str = "helpdesk-operator";

fn made<T: DeserializeOwned>(kind: &str, name: &str, fields: Value) -> T {
    let mut object = json!({"apiVersion": "helpdesk-operator.io/v1alpha1", "kind": kind, "metadata": {"name": name}});
    for (key, value) in fields.as_object().unwrap() {
        object[key] = value.clone();
    }
    serde_json::from_value(object).unwrap()
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": format!("the message of {reason}"),
        "lastTransitionTime": "2026-11-23T09:00:00Z"})
}

fn account(conditions: Vec<Value>) -> HelpDeskAccount {
    let mut account: HelpDeskAccount = made(
        "HelpDeskAccount",
        "acme",
        json!({"spec": {"owner": {"secretRef": {"namespace": "accounts", "name": "acme-owner"}}, "plan": "standard", "region": "eu-1",
            "domain": {"slug": "acme"}},
        "status": {"stage": "Active", "stageSince": "2026-11-20T10:00:00Z", "observedGeneration": 1, "conditions": conditions,
            "database": {"server": "pg", "name": "t_0123456789abcdef"}, "namespace": {"name": "hd-1", "uid": "u"}}}),
    );
    account.metadata.generation = Some(1);
    account
}

fn ready(status: &str, reason: &str) -> Value {
    json!({"conditions": [condition("Ready", status, reason)]})
}

fn plan(status: Value) -> HelpDeskPlan {
    made(
        "HelpDeskPlan",
        "standard",
        json!({"spec": {"class": "desk", "placements": [{"region": "eu-1", "store": "cold", "domainBase": "helpdesk.example",
            "gateway": {"name": "edge", "namespace": "edge"}, "certificateIssuer": {"name": "issuer"}}]}, "status": status}),
    )
}

fn server(name: &str, status: Value) -> DatabaseServer {
    made(
        "DatabaseServer",
        name,
        json!({"spec": {"engine": "postgresql", "region": "eu-1", "host": "pg", "adminSecret": "pg-admin"}, "status": status}),
    )
}

fn store(name: &str, escrow: Option<&str>, status: Value) -> BackupStore {
    let escrow = escrow.map(|store| json!({"store": store, "recoveryRecipient": "age1"}));
    made(
        "BackupStore",
        name,
        json!({"spec": {"region": "eu-1", "endpoint": "https://s3", "bucket": "b", "credentialsSecret": format!("{name}-keys"),
            "keyEscrow": escrow}, "status": status}),
    )
}

fn backup(status: Value) -> ColdBackup {
    let mut backup: ColdBackup = made(
        "ColdBackup",
        "acme-1",
        json!({"spec": {"account": "acme", "accountUID": "00000000-0000-0000-0000-000000000000", "store": "cold",
            "expiresAt": "2026-12-23T10:00:00Z", "reason": "Frozen"}, "status": status}),
    );
    backup.metadata.creation_timestamp = Some("2026-11-23T08:00:00Z".parse().map(crate::api::Time).unwrap());
    backup
}

fn mover() -> (Job, Pod) {
    let job = json!({"metadata": {"name": "backup-acme-1", "namespace": OPERATOR, "annotations": {"helpdesk-operator.io/backup": "acme-1"}},
        "status": {"conditions": [{"type": "Failed", "status": "True", "message": "it reached its limit"}]}});
    let pod = json!({"metadata": {"name": "backup-acme-1-x", "namespace": OPERATOR, "labels": {"batch.kubernetes.io/job-name": "backup-acme-1"}},
        "status": {"phase": "Failed", "containerStatuses": [{"name": "mover", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}});
    (serde_json::from_value(job).unwrap(), serde_json::from_value(pod).unwrap())
}

fn pod(status: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "web-1", "namespace": "hd-1"}, "status": status})).unwrap()
}

/// An account with which everything is in order.
fn in_order() -> Scene {
    let gateway = json!({"spec": {"listeners": [{"name": "https", "protocol": "HTTPS", "port": 443, "hostname": "*.helpdesk.example"}]},
        "status": {"conditions": [{"type": "Programmed", "status": "True"}]}});
    let secrets = [("accounts", "acme-owner"), (OPERATOR, "pg-admin"), (OPERATOR, "cold-keys"), (OPERATOR, "escrow-keys")];
    Scene {
        now: "2026-11-23T10:00:00Z".parse().unwrap(),
        operator_namespace: OPERATOR.into(),
        missing_definitions: Seen::There(vec![]),
        account: account(vec![condition("Ready", "True", "Open"), condition("DatabaseReady", "True", "Open")]),
        plan: Seen::There(plan(ready("True", "Resolved"))),
        class: Some(Seen::There(
            serde_json::from_value::<HelpDeskClass>(json!({"apiVersion": "helpdesk-operator.io/v1alpha1", "kind": "HelpDeskClass",
                "metadata": {"name": "desk"}, "spec": {"app": {"name": "desk", "version": "1"}, "components": [], "routes": []},
                "status": ready("True", "UpToDate")}))
            .unwrap(),
        )),
        servers: Seen::There(vec![server("pg", ready("True", "Connected"))]),
        stores: Seen::There(vec![
            store("cold", Some("escrow"), ready("True", "Connected")),
            store("escrow", None, ready("True", "Connected")),
        ]),
        backups: Seen::There(vec![backup(json!({"phase": "Verified", "conditions": [condition("Ready", "True", "Verified")]}))]),
        secrets: secrets.map(|(namespace, name)| ((namespace.to_owned(), name.to_owned()), Seen::There(()))).into(),
        mover_jobs: Seen::There(vec![]),
        mover_pods: Seen::There(vec![]),
        gateway: Some(Seen::There(gateway)),
        issuer: Some(Seen::There(())),
        namespace: Some(Seen::There(serde_json::from_value(json!({"metadata": {"name": "hd-1"}})).unwrap())),
        pods: Seen::There(vec![]),
        operator: Operator {
            deployments: Seen::There(vec![deployment(1, 1)]),
            pods: Seen::There(vec![]),
            lease: Seen::There(Leadership { holder: Some("operator-1".into()), renewed_at: None, is_renewed: true }),
            lease_name: OPERATOR.into(),
            events: Seen::There(vec![]),
        },
    }
}

fn deployment(replicas: i32, ready: i32) -> k8s_openapi::api::apps::v1::Deployment {
    serde_json::from_value(json!({"metadata": {"name": OPERATOR, "namespace": OPERATOR},
        "spec": {"replicas": replicas, "selector": {}, "template": {"spec": {"containers": [{"name": "operator", "args": ["run"]}]}}},
        "status": {"readyReplicas": ready}}))
    .unwrap()
}

/// The objects of the first chain, each with its reason.
fn first(scene: &Scene) -> Vec<String> {
    let causes = causes(scene);
    let Some(cause) = causes.first() else { return vec![] };
    let told = |link: &Link| match &link.reason {
        Some(reason) => format!("{} {reason}", link.object),
        None => link.object.to_string(),
    };
    cause.chain.iter().skip(1).map(told).collect()
}

/// A change that puts a fault into a scene.
type Fault = fn(&mut Scene);

#[test]
fn nothing_is_wrong_where_everything_is_in_order() {
    let scene = in_order();
    assert_eq!(causes(&scene), vec![]);
    assert_eq!(text(&answer(&scene, "acme"), scene.now), "Nothing is wrong with acme.\n");
}

#[test]
fn each_fault_is_found_through_the_objects_that_lead_to_it() {
    let faults: &[(&str, Fault, &[&str])] = &[
        ("no definition", |s| s.missing_definitions = Seen::There(vec!["x.y".into()]), &["CustomResourceDefinition x.y"]),
        ("no plan", |s| s.plan = Seen::Missing, &["HelpDeskPlan standard"]),
        (
            "no class",
            |s| {
                s.plan = Seen::There(plan(ready("False", "NoClass")));
                s.class = Some(Seen::Missing);
            },
            &["HelpDeskPlan standard NoClass", "HelpDeskClass desk"],
        ),
        (
            "the server's Secret is gone",
            |s| {
                s.account = account(vec![condition("Ready", "Unknown", "SecretMissing")]);
                s.servers = Seen::There(vec![server("pg", ready("False", "SecretMissing"))]);
                s.secrets.insert((OPERATOR.into(), "pg-admin".into()), Seen::Missing);
            },
            &["DatabaseServer pg SecretMissing", "Secret helpdesk-operator/pg-admin"],
        ),
        (
            "the server's Secret is gone, and nobody has noticed",
            |s| _ = s.secrets.insert((OPERATOR.into(), "pg-admin".into()), Seen::Missing),
            &["DatabaseServer pg", "Secret helpdesk-operator/pg-admin"],
        ),
        (
            "the server's object is gone",
            |s| {
                s.account = account(vec![condition("Ready", "Unknown", "NotFound")]);
                s.servers = Seen::There(vec![]);
            },
            &["DatabaseServer pg"],
        ),
        (
            "the brake holds",
            |s| {
                s.account = account(vec![condition("Overdue", "True", "Brake")]);
                let braked = [condition("Ready", "True", "Connected"), condition("Braked", "True", "TooMany")];
                s.servers = Seen::There(vec![server("pg", json!({"conditions": braked}))]);
            },
            &["DatabaseServer pg TooMany"],
        ),
        (
            "the escrow store lost its Secret",
            |s| {
                s.account = account(vec![condition("BackupsCurrent", "False", "BackupLate")]);
                s.backups =
                    Seen::There(vec![backup(json!({"phase": "Pending", "conditions": [condition("Ready", "Unknown", "NotEscrowed")]}))]);
                s.stores = Seen::There(vec![
                    store("cold", Some("escrow"), ready("False", "NoEscrow")),
                    store("escrow", None, ready("False", "Configuration")),
                ]);
                s.secrets.insert((OPERATOR.into(), "escrow-keys".into()), Seen::Missing);
            },
            &[
                "ColdBackup acme-1 NotEscrowed",
                "BackupStore cold NoEscrow",
                "BackupStore escrow Configuration",
                "Secret helpdesk-operator/escrow-keys",
            ],
        ),
        (
            "a mover ran out of memory",
            |s| {
                s.account = account(vec![condition("BackupsCurrent", "False", "BackupFailed")]);
                s.backups =
                    Seen::There(vec![backup(json!({"phase": "Failed", "conditions": [condition("Ready", "False", "MoverFailed")]}))]);
                let (job, pod) = mover();
                (s.mover_jobs, s.mover_pods) = (Seen::There(vec![job]), Seen::There(vec![pod]));
            },
            &["ColdBackup acme-1 MoverFailed", "Job helpdesk-operator/backup-acme-1", "Pod helpdesk-operator/backup-acme-1-x"],
        ),
        (
            "the Gateway is not programmed",
            |s| {
                s.account =
                    account(vec![condition("EdgeReady", "False", "GatewayUnusable"), condition("Ready", "False", "GatewayUnusable")]);
                s.gateway = Some(Seen::There(json!({})));
            },
            &["Gateway edge/edge"],
        ),
        (
            "the issuer is gone",
            |s| {
                s.plan = Seen::There(plan(ready("False", "IssuerUnusable")));
                s.issuer = Some(Seen::Missing);
            },
            &["HelpDeskPlan standard IssuerUnusable", "ClusterIssuer issuer"],
        ),
        (
            "an image cannot be pulled",
            |s| {
                s.account = account(vec![condition("AppReady", "False", "Progressing"), condition("Ready", "False", "Progressing")]);
                s.pods =
                    Seen::There(vec![pod(json!({"containerStatuses": [{"name": "web", "image": "desk:9", "imageID": "", "ready": false,
                    "restartCount": 0, "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}))]);
            },
            &["Pod hd-1/web-1"],
        ),
        (
            "the tenant's namespace does not go",
            |s| {
                s.account = account(vec![condition("Reconciling", "True", "Progressing")]);
                s.namespace = Some(Seen::There(
                    serde_json::from_value(json!({"metadata": {"name": "hd-1", "deletionTimestamp": "2026-11-23T09:00:00Z"},
                        "status": {"conditions": [{"type": "NamespaceFinalizersRemaining", "status": "True", "message": "a finalizer"}]}}))
                    .unwrap(),
                ));
            },
            &["Namespace hd-1"],
        ),
        (
            "the owner's Secret is gone",
            |s| {
                s.account = account(vec![condition("Stalled", "True", "OwnerUnknown"), condition("Ready", "False", "OwnerUnknown")]);
                s.secrets.insert(("accounts".into(), "acme-owner".into()), Seen::Missing);
            },
            &["Secret accounts/acme-owner"],
        ),
        (
            "the operator was scaled down",
            |s| {
                s.operator.lease = Seen::There(Leadership { holder: Some("operator-1".into()), renewed_at: None, is_renewed: false });
                s.operator.deployments = Seen::There(vec![deployment(0, 0)]);
            },
            &["Lease helpdesk-operator/helpdesk-operator", "Deployment helpdesk-operator/helpdesk-operator"],
        ),
    ];
    for (fault, put, expected) in faults {
        let mut scene = in_order();
        put(&mut scene);
        assert_eq!(first(&scene), *expected, "{fault}");
        let answer = answer(&scene, "acme");
        assert!(!answer.causes[0].cause.passes, "{fault}: it is said to pass by itself");
        assert!(!answer.causes[0].advice.is_empty(), "{fault}: nobody is told what to do");
    }
}

#[test]
fn one_fault_is_told_once_however_many_conditions_tell_it() {
    let mut scene = in_order();
    scene.account = account(vec![
        condition("Ready", "False", "NoPlacement"),
        condition("Stalled", "True", "NoPlacement"),
        condition("EdgeReady", "False", "NoPlan"),
    ]);
    scene.plan = Seen::Missing;
    let causes = causes(&scene);
    assert_eq!(causes.iter().filter(|cause| !cause.passes).count(), 1, "{causes:#?}");
}

#[test]
fn what_could_not_be_looked_at_is_said_and_is_no_cause() {
    let mut scene = in_order();
    scene.plan = Seen::Unseen("the plan: you may not read it".into());
    scene.servers = Seen::Unseen("DatabaseServers: you may not read it".into());
    scene.secrets.insert((OPERATOR.into(), "pg-admin".into()), Seen::Unseen("Secrets: you may not read it".into()));
    assert_eq!(causes(&scene), vec![]);
    let told = text(&answer(&scene, "acme"), scene.now);
    assert!(
        told.starts_with("Nothing is wrong with acme in what could be looked at.") && told.contains("  the plan: you may not"),
        "{told}"
    );
}

#[test]
fn a_hold_is_waited_for_and_no_fault() {
    let mut scene = in_order();
    scene.account = account(vec![condition("Held", "True", "Hold"), condition("Overdue", "True", "Held")]);
    let causes = causes(&scene);
    assert!(causes.len() == 1 && causes[0].passes, "{causes:#?}");
    assert!(text(&answer(&scene, "acme"), scene.now).starts_with("Waited for:\nHelpDeskAccount acme: Overdue=True (Held)"));
}

#[test]
fn the_text_leads_from_the_account_to_the_cause_and_says_what_to_do() {
    let mut scene = in_order();
    scene.account = account(vec![condition("Ready", "Unknown", "SecretMissing")]);
    scene.servers = Seen::There(vec![server("pg", ready("False", "SecretMissing"))]);
    scene.secrets.insert((OPERATOR.into(), "pg-admin".into()), Seen::Missing);
    let told = text(&answer(&scene, "acme"), scene.now);
    let expected = "HelpDeskAccount acme: Ready=Unknown (SecretMissing), since 2026-11-23T09:00:00Z (1h ago)
    the message of SecretMissing
  DatabaseServer pg: Ready=False (SecretMissing), since 2026-11-23T09:00:00Z (1h ago)
      the message of SecretMissing
    Secret helpdesk-operator/pg-admin: it does not exist
  → create or correct the Secret; its host must be spec.host (docs/operations.md#databaseserver)
";
    assert_eq!(told, expected);
}
