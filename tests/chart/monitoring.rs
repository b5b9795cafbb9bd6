//! What Prometheus and Grafana get.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::rendering::{Objects, chart};

/// Labels and everything else that the two kinds of monitors share.
const COMMON: &str = "enabled: true, namespace: monitoring, labels: {release: prometheus}, annotations: {a: b}, interval: 30s,
  scrapeTimeout: 10s, relabelings: [{action: labeldrop, regex: pod}], metricRelabelings: [{action: drop, sourceLabels: [le], regex: '1'}]";

fn contains(labels: &Value, wanted: &Value) -> bool {
    wanted.as_object().unwrap().iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[test]
fn nothing_is_rendered_for_prometheus_or_grafana_unless_it_is_asked_for() {
    let objects = Objects::of("{}");
    assert!(objects.0.iter().all(|o| !o["apiVersion"].as_str().unwrap().starts_with("monitoring.coreos.com")));
    assert_eq!(objects.all("ConfigMap").count(), 0);
}

#[test]
fn a_service_monitor_selects_the_service_with_metrics_and_no_other() {
    let objects = Objects::of("{serviceMonitor: {enabled: true}, mail: {enabled: true, hostname: mail.helpdesk.example}}");
    let monitor = objects.get("ServiceMonitor", "helpdesk-operator");
    let selected: Vec<&Value> =
        objects.all("Service").filter(|s| contains(&s["metadata"]["labels"], &monitor["spec"]["selector"]["matchLabels"])).collect();
    assert_eq!(selected.len(), 1, "{selected:?}");
    assert_eq!(monitor["spec"]["namespaceSelector"]["matchNames"], json!([selected[0]["metadata"]["namespace"]]));
    let port = &selected[0]["spec"]["ports"][0];
    assert_eq!(monitor["spec"]["endpoints"], json!([{"port": port["name"], "path": "/metrics"}]));
    // Behind it are the operator's pods, which serve metrics on that port.
    let deployment = objects.deployment();
    assert!(contains(&deployment["spec"]["template"]["metadata"]["labels"], &selected[0]["spec"]["selector"]));
    assert!(objects.pod("Deployment")["containers"][0]["ports"].as_array().unwrap().iter().any(|p| p["name"] == port["targetPort"]));
    assert!(!selected[0]["metadata"]["labels"][monitor["spec"]["jobLabel"].as_str().unwrap()].is_null());
}

#[test]
fn a_pod_monitor_selects_the_operators_pods_and_no_others() {
    let objects = Objects::of("{podMonitor: {enabled: true}, mail: {enabled: true, hostname: mail.helpdesk.example}}");
    let monitor = objects.get("PodMonitor", "helpdesk-operator");
    let wanted = &monitor["spec"]["selector"]["matchLabels"];
    let labels = |kind| objects.all(kind).next().unwrap()["spec"]["template"]["metadata"]["labels"].clone();
    assert!(contains(&labels("Deployment"), wanted));
    assert!(!contains(&labels("StatefulSet"), wanted));
    assert_eq!(monitor["spec"]["namespaceSelector"]["matchNames"], json!(["helpdesk-operator"]));
    assert_eq!(monitor["spec"]["podMetricsEndpoints"], json!([{"port": "metrics", "path": "/metrics"}]));
    assert!(objects.pod("Deployment")["containers"][0]["ports"].as_array().unwrap().iter().any(|p| p["name"] == "metrics"));
}

#[test]
fn both_monitors_say_everything_that_their_values_say() {
    for (values, kind, endpoints) in
        [("serviceMonitor", "ServiceMonitor", "endpoints"), ("podMonitor", "PodMonitor", "podMetricsEndpoints")]
    {
        let objects = Objects::of(&format!("{values}: {{{COMMON}}}"));
        let monitor = objects.get(kind, "helpdesk-operator");
        assert_eq!(monitor["metadata"]["namespace"], "monitoring");
        assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
        assert_eq!(monitor["metadata"]["labels"]["app.kubernetes.io/name"], "helpdesk-operator");
        assert_eq!(monitor["metadata"]["annotations"], json!({"a": "b"}));
        assert_eq!(monitor["spec"]["namespaceSelector"]["matchNames"], json!(["helpdesk-operator"]), "pods stay where they are");
        let endpoint = json!({
            "port": "metrics", "path": "/metrics", "interval": "30s", "scrapeTimeout": "10s",
            "relabelings": [{"action": "labeldrop", "regex": "pod"}],
            "metricRelabelings": [{"action": "drop", "sourceLabels": ["le"], "regex": "1"}],
        });
        assert_eq!(monitor["spec"][endpoints], json!([endpoint]));
    }
}

/// A copy of the chart with other files.
fn chart_with(name: &str, files: &[(&str, &str)]) -> PathBuf {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => copy(&entry.path(), &target),
                false => drop(fs::copy(entry.path(), target).unwrap()),
            }
        }
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    copy(&chart(), &folder);
    let _ = fs::remove_dir_all(folder.join("files"));
    for (path, content) in files {
        let path = folder.join("files").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

const RULES: &str = r#"# A comment.
groups:
- name: desk
  rules:
  - alert: Late
    expr: sum by (reason) (late{a="b"}) > 0
    annotations:
      summary: '{{ $value | humanize }} of {{ $labels.reason }}'
      description: |
        Two lines,
        {{ with query "up" }}{{ . | first | value }}{{ end }}.
      runbook_url: docs/operations.md#late
"#;

#[test]
fn the_rule_is_the_file_of_the_chart_with_the_templates_of_prometheus() {
    let chart = chart_with("chart-with-rules", &[("alerts.yaml", RULES)]);
    let file: Value = serde_yaml_ng::from_str(RULES).unwrap();
    let objects = Objects::of_chart(&chart, "prometheusRule: {enabled: true, namespace: monitoring, labels: {role: alerts}}");
    let rule = objects.get("PrometheusRule", "helpdesk-operator");
    assert_eq!(rule["spec"], file);
    assert_eq!(rule["metadata"]["namespace"], "monitoring");
    assert_eq!(rule["metadata"]["labels"]["role"], "alerts");
}

#[test]
fn runbooks_are_found_below_the_address_that_is_given() {
    let chart = chart_with("chart-with-runbooks", &[("alerts.yaml", RULES)]);
    for base in ["https://git.example/desk/blob/main", "https://git.example/desk/blob/main/"] {
        let objects = Objects::of_chart(&chart, &format!("prometheusRule: {{enabled: true, runbookBaseUrl: '{base}'}}"));
        let alert = &objects.get("PrometheusRule", "helpdesk-operator")["spec"]["groups"][0]["rules"][0];
        assert_eq!(alert["annotations"]["runbook_url"], "https://git.example/desk/blob/main/docs/operations.md#late");
        assert_eq!(alert["annotations"]["summary"], "{{ $value | humanize }} of {{ $labels.reason }}");
    }
}

#[test]
fn a_chart_without_alerts_has_no_rule() {
    let chart = chart_with("chart-without-files", &[]);
    let objects = Objects::of_chart(&chart, "{prometheusRule: {enabled: true}, dashboards: {enabled: true}}");
    assert_eq!(objects.all("PrometheusRule").count() + objects.all("ConfigMap").count(), 0);
}

#[test]
fn every_alert_of_the_chart_is_in_its_rule() {
    let file: Value = serde_yaml_ng::from_str(&fs::read_to_string(chart().join("files/alerts.yaml")).unwrap()).unwrap();
    let objects = Objects::of("prometheusRule: {enabled: true}");
    assert_eq!(objects.get("PrometheusRule", "helpdesk-operator")["spec"], file);
}

#[test]
fn each_dashboard_is_a_config_map_that_the_sidecar_of_grafana_finds() {
    let dashboard = r#"{"title": "Desk", "legendFormat": "{{stage}}", "text": "a\nb"}"#;
    let chart = chart_with(
        "chart-with-dashboards",
        &[("dashboards/accounts.json", dashboard), ("dashboards/backups.json", "{}"), ("dashboards/README.md", "")],
    );
    let objects = Objects::of_chart(&chart, "dashboards: {enabled: true}");
    let map = objects.get("ConfigMap", "helpdesk-operator-dashboard-accounts");
    assert_eq!(map["data"], json!({"accounts.json": dashboard}));
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    assert_eq!(map["metadata"].get("annotations"), None);
    assert_eq!(objects.all("ConfigMap").count(), 2);
    let values = "dashboards: {enabled: true, namespace: grafana, label: board, labelValue: 'yes', labels: {c: d}, folder: Desks,
      folderAnnotation: folder, annotations: {a: b}}";
    let objects = Objects::of_chart(&chart, values);
    for map in objects.all("ConfigMap") {
        assert_eq!(map["metadata"]["namespace"], "grafana");
        assert_eq!(map["metadata"]["annotations"], json!({"a": "b", "folder": "Desks"}));
        assert_eq!((&map["metadata"]["labels"]["board"], &map["metadata"]["labels"]["c"]), (&json!("yes"), &json!("d")));
        assert_eq!(map["metadata"]["labels"].get("grafana_dashboard"), None);
    }
}
