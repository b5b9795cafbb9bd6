//! The pods of the operator, of the mail intake and of movers.

use clap::Parser;
use helpdesk_operator::{mover::job::MoverPod, run};
use serde_json::{Value, json};

use crate::rendering::{Objects, refusal};

const MAIL: &str = "mail: {enabled: true, hostname: mail.helpdesk.example}";

/// What the operator is told about the pods of movers, as it reads it.
pub fn mover_pod(objects: &Objects) -> MoverPod {
    let env = objects.pod("Deployment")["containers"][0]["env"].as_array().unwrap();
    let variable = env.iter().find(|variable| variable["name"] == "HELPDESK_OPERATOR_MOVER_POD").unwrap();
    serde_json::from_str(variable["value"].as_str().unwrap()).unwrap()
}

/// The arguments of the operator.
pub fn arguments(objects: &Objects) -> Vec<String> {
    let arguments = objects.pod("Deployment")["containers"][0]["args"].as_array().unwrap();
    arguments.iter().map(|argument| argument.as_str().unwrap().to_owned()).collect()
}

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    _run: run::Args,
}

#[test]
fn the_program_takes_every_argument_that_the_chart_gives_it() {
    let values = "{concurrency: 8, shard: two, owners: {namespaces: [a, b]}, copiesKept: {EtcdSnapshots: 30d, ServerBackups: 1d12h},
      web: {resolvers: ['10.0.0.1:53', '[fd00::1]:53'], proveAgain: 60}, billing: {lease: accounting/alive},
      prometheusRule: {runbookBaseUrl: 'https://git.example/desk'}, mail: {enabled: true, hostname: mail.helpdesk.example}, extraArgs: [--client-majors=17, '--health=[::]:8081']}";
    for values in ["{}", values] {
        let arguments = arguments(&Objects::of(values));
        let accepted = Program::try_parse_from(&arguments);
        assert!(accepted.is_ok(), "{arguments:?}: {}", accepted.err().unwrap());
    }
}

#[test]
fn one_replica_goes_anywhere_and_has_no_budget() {
    let objects = Objects::of("{}");
    let pod = objects.pod("Deployment");
    assert_eq!((pod.get("affinity"), pod.get("topologySpreadConstraints")), (None, None));
    assert_eq!(objects.all("PodDisruptionBudget").count(), 0);
}

#[test]
fn several_replicas_are_kept_apart_where_there_is_room() {
    let objects = Objects::of("replicas: 2");
    let (deployment, pod) = (objects.deployment(), objects.pod("Deployment"));
    let preferred = pod["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"].as_array().unwrap();
    assert_eq!(preferred.len(), 1);
    assert_eq!(preferred[0]["podAffinityTerm"]["topologyKey"], "kubernetes.io/hostname");
    assert_eq!(preferred[0]["podAffinityTerm"]["labelSelector"], deployment["spec"]["selector"]);
    let spread = pod["topologySpreadConstraints"].as_array().unwrap();
    assert_eq!(spread.len(), 1);
    assert_eq!(spread[0]["topologyKey"], "topology.kubernetes.io/zone");
    assert_eq!(spread[0]["whenUnsatisfiable"], "ScheduleAnyway");
    assert_eq!(spread[0]["labelSelector"], deployment["spec"]["selector"]);
}

#[test]
fn an_affinity_that_is_set_goes_before_the_charts_own() {
    let own = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}});
    let objects = Objects::of(&json!({"replicas": 2, "affinity": own}).to_string());
    assert_eq!(objects.pod("Deployment")["affinity"], own);
    assert!(objects.pod("Deployment").get("topologySpreadConstraints").is_some());
}

#[test]
fn constraints_that_are_set_go_before_the_charts_own_and_count_the_operators_pods() {
    let objects = Objects::of(
        "{replicas: 2, topologySpreadConstraints: [{topologyKey: rack, maxSkew: 1, whenUnsatisfiable: DoNotSchedule},
          {topologyKey: room, maxSkew: 1, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {a: b}}}]}",
    );
    let spread = objects.pod("Deployment")["topologySpreadConstraints"].as_array().unwrap();
    assert_eq!(spread.iter().map(|s| s["topologyKey"].as_str().unwrap()).collect::<Vec<_>>(), ["rack", "room"]);
    assert_eq!(spread[0]["labelSelector"], objects.deployment()["spec"]["selector"]);
    assert_eq!(spread[1]["labelSelector"], json!({"matchLabels": {"a": "b"}}));
}

#[test]
fn a_budget_lets_one_pod_go_unless_it_is_told_otherwise() {
    let budget = |values: &str| {
        let objects = Objects::of(values);
        let budget = objects.all("PodDisruptionBudget").next().cloned();
        budget.map(|budget| {
            assert_eq!(budget["spec"]["selector"], objects.deployment()["spec"]["selector"]);
            (budget["spec"]["minAvailable"].clone(), budget["spec"]["maxUnavailable"].clone())
        })
    };
    assert_eq!(budget("replicas: 2"), Some((Value::Null, json!(1))));
    assert_eq!(budget("{replicas: 2, podDisruptionBudget: {maxUnavailable: 0}}"), Some((Value::Null, json!(0))));
    assert_eq!(budget("{replicas: 3, podDisruptionBudget: {minAvailable: 50%}}"), Some((json!("50%"), Value::Null)));
    assert_eq!(budget("{replicas: 2, podDisruptionBudget: {create: false}}"), None);
    assert_eq!(budget("{podDisruptionBudget: {maxUnavailable: 1}}"), None, "one replica has none");
}

#[test]
fn the_pod_meets_the_standard_restricted() {
    let objects = Objects::of("{}");
    let pod = objects.pod("Deployment");
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    let container = &pod["containers"][0]["securityContext"];
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(container["capabilities"], json!({"drop": ["ALL"]}));
}

#[test]
fn a_cluster_that_chooses_users_itself_may_do_so() {
    let objects = Objects::of(
        "{podSecurityContext: {runAsUser: null, runAsGroup: null, fsGroup: null}, containerSecurityContext: {readOnlyRootFilesystem: false}}",
    );
    let pod = objects.pod("Deployment");
    assert_eq!(pod["securityContext"], json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}));
    let container = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": false, "capabilities": {"drop": ["ALL"]}});
    assert_eq!(pod["containers"][0]["securityContext"], container);
}

#[test]
fn extras_come_after_what_the_chart_says() {
    let objects = Objects::of(
        "{extraArgs: [--client-majors=17], extraEnv: [{name: HTTPS_PROXY, value: http://proxy}],
          extraVolumes: [{name: ca, configMap: {name: ca}}], extraVolumeMounts: [{name: ca, mountPath: /ca}]}",
    );
    let pod = objects.pod("Deployment");
    let container = &pod["containers"][0];
    assert_eq!(arguments(&objects).last().unwrap(), "--client-majors=17");
    let last = |list: &Value| list.as_array().unwrap().last().unwrap().clone();
    assert_eq!(last(&container["env"]), json!({"name": "HTTPS_PROXY", "value": "http://proxy"}));
    assert_eq!(last(&container["volumeMounts"]), json!({"name": "ca", "mountPath": "/ca"}));
    assert_eq!(last(&pod["volumes"]), json!({"name": "ca", "configMap": {"name": "ca"}}));
    assert_eq!(pod["volumes"][0]["name"], "tmp", "what the operator needs stays");
}

/// An argument that the chart adds belongs into the refusals as well, or it could be given twice.
#[test]
fn whatever_the_chart_sets_is_refused_as_an_extra() {
    let objects = Objects::of(
        "{shard: two, copiesKept: {EtcdSnapshots: 30d}, web: {resolvers: ['10.0.0.1:53']}, billing: {lease: a/b},
          prometheusRule: {runbookBaseUrl: 'https://git.example/desk'}, mail: {enabled: true, hostname: mail.helpdesk.example}}",
    );
    for argument in arguments(&objects).iter().skip(1) {
        let words = refusal(&json!({"extraArgs": [argument]}).to_string());
        assert!(words.contains("set that instead"), "{argument}: {words}");
    }
    for variable in objects.pod("Deployment")["containers"][0]["env"].as_array().unwrap() {
        let words = refusal(&json!({"extraEnv": [{"name": variable["name"], "value": "x"}]}).to_string());
        assert!(words.contains("set that instead"), "{variable}: {words}");
    }
}

#[test]
fn where_pods_go_and_how_images_are_pulled_counts_for_the_mail_intake_too() {
    let values = format!(
        "{{imagePullSecrets: [{{name: registry}}], nodeSelector: {{disk: fast}}, tolerations: [{{key: desk, operator: Exists}}],
          priorityClassName: urgent, podAnnotations: {{a: b}}, {MAIL}}}"
    );
    let objects = Objects::of(&values);
    for kind in ["Deployment", "StatefulSet"] {
        let pod = objects.pod(kind);
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "registry"}]), "{kind}");
        assert_eq!(pod["nodeSelector"], json!({"disk": "fast"}), "{kind}");
        assert_eq!(pod["tolerations"], json!([{"key": "desk", "operator": "Exists"}]), "{kind}");
        assert_eq!(pod["priorityClassName"], "urgent", "{kind}");
        assert_eq!(objects.all(kind).next().unwrap()["spec"]["template"]["metadata"]["annotations"]["a"], "b", "{kind}");
    }
}

#[test]
fn movers_pull_with_the_operators_secrets_and_go_where_their_own_values_say() {
    let movers = mover_pod(&Objects::of("{imagePullSecrets: [{name: registry}], nodeSelector: {disk: fast}, image: {pullPolicy: Always}}"));
    assert_eq!(movers.image_pull_secrets.unwrap()[0].name, "registry");
    assert_eq!(movers.image_pull_policy.as_deref(), Some("Always"));
    assert_eq!(movers.service_account_name.as_deref(), Some("helpdesk-operator-mover"));
    assert_eq!(movers.node_selector, None, "the operator's nodes are not the movers'");
    let movers = mover_pod(&Objects::of(
        "{imagePullSecrets: [{name: registry}], tolerations: [{key: mine, operator: Exists}],
          movers: {imagePullSecrets: [{name: other}], nodeSelector: {disk: slow}, tolerations: [{key: bulk, operator: Exists}],
            resources: {requests: {cpu: 2}, limits: {cpu: 1500m, ephemeral-storage: 1Gi}}, priorityClassName: low,
            affinity: {nodeAffinity: {}}, podAnnotations: {a: b}, serviceAccount: {name: carrier, labels: {c: d}}}}",
    ));
    assert_eq!(movers.image_pull_secrets.unwrap()[0].name, "other");
    assert_eq!(movers.node_selector.unwrap()["disk"], "slow");
    assert_eq!(movers.tolerations.unwrap()[0].key.as_deref(), Some("bulk"));
    assert_eq!(movers.resources.requests.unwrap()["cpu"].0, "2");
    let limits = movers.resources.limits.unwrap();
    assert_eq!((limits["cpu"].0.as_str(), limits["ephemeral-storage"].0.as_str()), ("1500m", "1Gi"));
    assert_eq!(movers.priority_class_name.as_deref(), Some("low"));
    assert!(movers.affinity.unwrap().node_affinity.is_some());
    assert_eq!(movers.annotations["a"], "b");
    assert_eq!(movers.service_account_name.as_deref(), Some("carrier"));
}

#[test]
fn a_service_account_that_exists_is_used_and_not_made() {
    let objects = Objects::of("serviceAccount: {create: false, name: theirs}");
    assert!(objects.find("ServiceAccount", "theirs").is_none());
    assert_eq!(objects.pod("Deployment")["serviceAccountName"], "theirs");
    assert_eq!(objects.get("ClusterRoleBinding", "helpdesk-operator")["subjects"][0]["name"], "theirs");
}
