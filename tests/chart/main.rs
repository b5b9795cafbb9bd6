//! The chart, rendered by Helm with many values: what each value does, what is refused and with which words, and that the API
//! server would take every object.
//!
//! Needs no cluster. Helm and the schemas of Kubernetes come from `tests/cluster/cluster tools`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod monitoring;
mod pods;
mod rendering;

use std::{collections::BTreeSet, env, fs, path::Path};

use rendering::{KUBERNETES, Objects, RELEASE, chart, complaints, notes, refusal};
use serde_json::{Map, Value, json};

/// Everything that can be switched on, in as few installations as it takes.
const COMBINATIONS: &[&str] = &[
    "{}",
    "mail: {enabled: true, hostname: mail.helpdesk.example, tlsSecret: mail-tls}",
    "mail: {enabled: true, hostname: mail.helpdesk.example, storage: {enabled: false}, service: {type: ClusterIP, annotations: {a: b}}}",
    "{clusterWide: {create: false}, shard: two, fullnameOverride: desk, serviceAccount: {create: false, name: two}}",
    "{policies: {create: false}, networkPolicy: {create: false}, podSecurityContext: {runAsUser: null, runAsGroup: null, fsGroup: null}}",
    "{billing: {lease: billing/alive, subjects: [{kind: Group, name: billing, apiGroup: rbac.authorization.k8s.io}]}}",
    "{billing: {serviceAccount: {create: false}}, networkPolicy: {metricsFrom: [{podSelector: {}}]}}",
    "{replicas: 3, commonLabels: {team: desk}, podLabels: {a: b}, podAnnotations: {c: d}, priorityClassName: system-cluster-critical}",
    "{replicas: 2, podDisruptionBudget: {minAvailable: 0}}",
    "{replicas: 2, podDisruptionBudget: {maxUnavailable: 50%}, affinity: {podAntiAffinity: {}}}",
    "{replicas: 2, topologySpreadConstraints: [{topologyKey: rack, maxSkew: 2, whenUnsatisfiable: DoNotSchedule}]}",
    "{nodeSelector: {disk: fast}, tolerations: [{key: desk, operator: Exists}], imagePullSecrets: [{name: registry}]}",
    "{extraArgs: [--client-majors=17], extraEnv: [{name: HTTPS_PROXY, value: http://proxy}],
      extraVolumes: [{name: ca, configMap: {name: ca}}], extraVolumeMounts: [{name: ca, mountPath: /ca, readOnly: true}]}",
    "{serviceMonitor: {enabled: true, interval: 30s}, prometheusRule: {enabled: true}, dashboards: {enabled: true, folder: Desk}}",
    "podMonitor: {enabled: true, scrapeTimeout: 10s, relabelings: [{action: labeldrop, regex: pod}]}",
];

#[test]
fn the_api_server_would_take_every_object() {
    let mut different: Vec<Value> = COMBINATIONS.iter().flat_map(|values| Objects::of(values).0).collect();
    different.sort_by_cached_key(Value::to_string);
    different.dedup();
    let objects = Objects(different);
    for kubernetes in KUBERNETES {
        let complaints = complaints(&objects, kubernetes);
        assert!(complaints.is_empty(), "Kubernetes {kubernetes}:\n{complaints}");
    }
}

#[test]
fn an_object_that_the_api_server_would_refuse_is_noticed() {
    let mut objects = Objects::of("{}");
    let deployment = objects.0.iter_mut().find(|o| o["kind"] == "Deployment").unwrap();
    deployment["spec"]["replicaz"] = json!(1);
    assert!(complaints(&objects, KUBERNETES[0]).contains("'replicaz' was unexpected"));
}

/// A selector cannot be changed, and an object under another name is another object: both would hurt installations that run.
/// `UPDATE_GOLDEN=1` rewrites the list.
#[test]
fn default_values_keep_the_names_and_selectors_of_running_installations() {
    let all = Objects::of("{replicas: 2, mail: {enabled: true, hostname: mail.helpdesk.example}, billing: {lease: billing/alive}}");
    let mut lines: Vec<String> = all
        .0
        .iter()
        .map(|object| {
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or("-");
            let selector = object["spec"].get("selector").filter(|s| s.is_object()).map(|s| format!(" {s}")).unwrap_or_default();
            format!("{} {namespace} {}{selector}\n", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
        })
        .collect();
    lines.sort();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chart/names.golden");
    if env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
        fs::write(&path, lines.concat()).unwrap();
    }
    assert_eq!(lines.concat(), fs::read_to_string(path).unwrap(), "an installation that runs would not survive this upgrade");
}

#[test]
fn objects_are_named_after_the_release_unless_a_value_says_otherwise() {
    let name = |values: &str| Objects::of(values).deployment()["metadata"]["name"].as_str().unwrap().to_owned();
    assert_eq!(name("{}"), RELEASE);
    assert_eq!(name("nameOverride: tickets"), "helpdesk-operator-tickets");
    assert_eq!(name("fullnameOverride: desk"), "desk");
    assert_eq!(name("{fullnameOverride: desk, nameOverride: tickets}"), "desk");
}

#[test]
fn what_tenants_policies_find_the_operator_by_does_not_follow_its_name() {
    for values in ["{}", "fullnameOverride: desk", "nameOverride: tickets"] {
        let objects = Objects::of(values);
        let labels = &objects.deployment()["spec"]["template"]["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/name"], "helpdesk-operator");
        assert_eq!(labels["app.kubernetes.io/component"], "operator");
    }
}

#[test]
fn whatever_names_an_object_of_the_release_follows_its_name() {
    let objects = Objects::of("{fullnameOverride: desk, mail: {enabled: true, hostname: mail.helpdesk.example}}");
    let kept = ["CustomResourceDefinition", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"];
    let fixed = |object: &&Value| !kept.contains(&object["kind"].as_str().unwrap()) && object["metadata"]["name"] != "billing";
    for object in objects.0.iter().filter(fixed) {
        let name = object["metadata"]["name"].as_str().unwrap();
        assert!(name == "desk" || name.starts_with("desk-") || name.starts_with("helpdesk-"), "{name}");
    }
    let policies = objects.all("ValidatingAdmissionPolicy").map(Value::to_string).collect::<String>();
    assert!(policies.contains("'system:serviceaccount:helpdesk-operator:desk'"), "the policies know the operator");
    assert!(!policies.contains("'system:serviceaccount:helpdesk-operator:helpdesk-operator'"), "and nobody else");
}

#[test]
fn common_labels_are_on_every_object_and_pod_and_in_no_selector() {
    let values = "{replicas: 2, commonLabels: {team: desk}, podLabels: {team: pods}, movers: {podLabels: {tier: low}},
      mail: {enabled: true, hostname: mail.helpdesk.example}, serviceMonitor: {enabled: true}, prometheusRule: {enabled: true}}";
    let objects = Objects::of(values);
    for object in &objects.0 {
        assert_eq!(object["metadata"]["labels"]["team"], "desk", "{}", object["metadata"]["name"]);
        for part in ["selector", "podSelector", "volumeClaimTemplates"] {
            assert!(!object["spec"][part].to_string().contains("team"), "{part} of {}", object["metadata"]["name"]);
        }
    }
    // What is said of pods goes before what is said of everything.
    for kind in ["Deployment", "StatefulSet"] {
        assert_eq!(objects.all(kind).next().unwrap()["spec"]["template"]["metadata"]["labels"]["team"], "pods");
    }
    assert_eq!(pods::mover_pod(&objects).labels, [("team", "desk"), ("tier", "low")].map(|(k, v)| (k.to_owned(), v.to_owned())).into());
}

#[test]
fn what_exists_once_in_a_cluster_is_left_out_of_a_shard() {
    let objects = Objects::of("{clusterWide: {create: false}, shard: two}");
    for kind in ["CustomResourceDefinition", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"] {
        assert_eq!(objects.all(kind).count(), 0, "{kind}");
    }
    assert!(objects.find("ClusterRole", "helpdesk-edit").is_none());
}

#[test]
fn definitions_and_policies_stay_when_the_release_goes() {
    let objects = Objects::of("{}");
    for kind in ["CustomResourceDefinition", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"] {
        assert!(objects.all(kind).count() > 5, "{kind}");
        for object in objects.all(kind) {
            assert_eq!(object["metadata"]["annotations"]["helm.sh/resource-policy"], "keep", "{}", object["metadata"]["name"]);
        }
    }
}

#[test]
fn billing_renews_its_lease_and_the_operator_reads_it() {
    let objects = Objects::of("billing: {lease: accounting/alive, subjects: [{kind: User, name: ana}]}");
    assert!(pods::arguments(&objects).contains(&"--billing-lease=accounting/alive".to_owned()));
    let verbs = |role: &str| objects.get("Role", role)["rules"][0].clone();
    let lease =
        |verbs: &[&str]| json!({"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["alive"], "verbs": verbs});
    assert_eq!(verbs("helpdesk-operator-read-billing-lease"), lease(&["get"]));
    assert_eq!(verbs("helpdesk-operator-billing-lease"), lease(&["get", "update", "patch"]));
    let names = |binding: &str| {
        let binding = objects.get("RoleBinding", binding);
        assert_eq!(binding["metadata"]["namespace"], "accounting");
        binding["subjects"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("helpdesk-operator-read-billing-lease"), ["helpdesk-operator"]);
    assert_eq!(names("helpdesk-operator-billing-lease"), ["ana", "billing"]);
    assert_eq!(Objects::of("{}").all("Role").count(), 1, "without a lease there are no roles for one");
}

/// Values, and words of the refusal: what is wrong, and where it helps what to do.
const REFUSALS: &[(&str, &str)] = &[
    ("replica: 2", "additional properties 'replica' not allowed"),
    ("replicas: two", "at '/replicas': got string, want integer"),
    ("replicas: 11", "at '/replicas': maximum: got 11, want 10"),
    ("image: {tag: 1.5}", "at '/image/tag': got number, want string"),
    ("image: {digest: latest}", "at '/image/digest': 'latest' does not match pattern"),
    ("fullnameOverride: a-name-that-is-longer-than-forty-characters", "at '/fullnameOverride': maxLength: got 43, want 40"),
    ("commonLabels: {team: 'two words'}", "at '/commonLabels/team': 'two words' does not match pattern"),
    ("commonLabels: {app.kubernetes.io/name: desk}", "commonLabels: app.kubernetes.io/name is the chart's own"),
    ("commonLabels: {rbac.authorization.k8s.io/aggregate-to-view: 'true'}", "has a meaning that is not meant for every object"),
    ("commonLabels: {helpdesk-operator.io/account: acme}", "has a meaning that is not meant for every object"),
    ("podDisruptionBudget: {minAvailable: 1, maxUnavailable: 1}", "minAvailable or maxUnavailable, not both"),
    ("podDisruptionBudget: {minAvailable: half}", "at '/podDisruptionBudget/minAvailable': 'half' does not match pattern"),
    ("serviceMonitor: {interval: 30}", "at '/serviceMonitor/interval': got number, want string"),
    ("serviceMonitor: {interval: often}", "at '/serviceMonitor/interval': 'often' does not match pattern"),
    ("podMonitor: {relabellings: []}", "additional properties 'relabellings' not allowed"),
    ("{serviceMonitor: {enabled: true}, podMonitor: {enabled: true}}", "every sum would count twice: enable one of them"),
    ("prometheusRule: {runbookBaseUrl: docs}", "at '/prometheusRule/runbookBaseUrl': 'docs' does not match pattern"),
    ("extraArgs: [--concurrency=3]", "extraArgs: --concurrency comes from concurrency; set that instead"),
    ("extraArgs: [--owner-namespace, people]", "extraArgs: --owner-namespace comes from owners.namespaces"),
    ("extraEnv: [{name: RUST_LOG, value: debug}]", "extraEnv: RUST_LOG comes from log; set that instead"),
    ("extraEnv: {A: b}", "at '/extraEnv': got object, want array"),
    ("extraVolumeMounts: [{name: ca}]", "missing property 'mountPath'"),
    ("topologySpreadConstraints: [{topologyKey: zone}]", "missing properties 'maxSkew', 'whenUnsatisfiable'"),
    ("movers: {resources: {limits: {memory: 1Gi}}}", "at '/movers/resources/limits/memory': false schema"),
    ("billing: {lease: alive}", "at '/billing/lease': 'alive' does not match pattern"),
    ("mail: {enabled: true}", "at '/mail/hostname': minLength: got 0, want 3"),
];

#[test]
fn what_is_refused_names_the_value_and_what_is_wrong_with_it() {
    for (values, words) in REFUSALS {
        let refusal = refusal(values);
        assert!(refusal.contains(words), "{values}: {refusal}");
    }
}

fn default_values() -> Value {
    serde_yaml_ng::from_str(&fs::read_to_string(chart().join("values.yaml")).unwrap()).unwrap()
}

fn schema() -> Value {
    serde_json::from_str(&fs::read_to_string(chart().join("values.schema.json")).unwrap()).unwrap()
}

/// The schema of a value, behind its reference.
fn behind<'s>(root: &'s Value, schema: &'s Value) -> &'s Value {
    match schema["$ref"].as_str() {
        Some(reference) => behind(root, root.pointer(reference.trim_start_matches('#')).unwrap()),
        None => schema,
    }
}

#[test]
fn the_schema_knows_the_keys_of_the_values_and_no_others() {
    fn compare(root: &Value, at: &str, schema: &Value, values: &Map<String, Value>) {
        let Some(properties) = behind(root, schema)["properties"].as_object() else { return };
        let known: BTreeSet<&String> =
            properties.keys().filter(|key| !(at.is_empty() && ["global", "enabled"].contains(&key.as_str()))).collect();
        assert_eq!(known, values.keys().collect(), "of {at:?} the schema and values.yaml know different keys");
        for (key, value) in values {
            let types = behind(root, &properties[key]);
            let typed = ["type", "enum", "anyOf"].iter().any(|word| types.get(word).is_some());
            assert!(typed, "the schema has no type of {at}.{key}");
            if let Some(values) = value.as_object() {
                compare(root, &format!("{at}.{key}"), types, values);
            }
        }
    }
    let mut values = default_values();
    // What a mover's resources may be is said of their sides, which nothing sets by default.
    values["movers"]["resources"] = json!({"requests": {"memory": false}, "limits": {"memory": false}});
    let schema = schema();
    let mut root = schema.clone();
    root["definitions"]["besidesMemory"]["properties"]["memory"] = json!({"type": "boolean"});
    compare(&root, "", &root, values.as_object().unwrap());
}

#[test]
fn an_unknown_key_is_refused_at_every_level() {
    fn closed(root: &Value, at: &[String], schema: &Value, values: &Value, found: &mut Vec<Vec<String>>) {
        let schema = behind(root, schema);
        if schema["additionalProperties"] != json!(false) {
            return;
        }
        found.push(at.to_vec());
        for (key, schema) in schema["properties"].as_object().unwrap() {
            if values[key].is_object() {
                closed(root, &[at, std::slice::from_ref(key)].concat(), schema, &values[key], found);
            }
        }
    }
    let (root, mut levels) = (schema(), Vec::new());
    closed(&root, &[], &root, &default_values(), &mut levels);
    assert!(levels.len() > 15, "{levels:?}");
    for level in levels {
        let values = level.iter().rev().fold(json!({"unheardOf": true}), |inner, key| json!({key: inner}));
        let refusal = refusal(&values.to_string());
        assert!(refusal.contains("additional properties 'unheardOf' not allowed"), "{level:?}: {refusal}");
    }
}

#[test]
fn a_parent_chart_may_pass_its_globals_and_its_condition() {
    assert_eq!(Objects::of("{global: {imageRegistry: a, anything: [1]}, enabled: true}").0, Objects::of("{}").0);
}

#[test]
fn the_notes_say_what_to_do_next_in_commands_that_exist() {
    let notes = notes("fullnameOverride: desk");
    for words in [
        "desk 0.1.0 is installed in the namespace helpdesk-operator",
        "no DatabaseServer, no BackupStore, no HelpDeskPlan",
        "kubectl -n helpdesk-operator rollout status deployment/desk",
        "kubectl apply -f quickstart.yaml",
        "kubectl wait --for=condition=Ready databaseservers,backupstores,helpdeskplans --all",
        "serviceMonitor.enabled",
    ] {
        assert!(notes.contains(words), "{words:?} is not in: {notes}");
    }
}
