//! What the operator costs: its requests as the API server counts them, its processor time and memory as the kernel does.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, PostParams},
};
use serde_json::{Value, json};

use super::cluster::{OPERATOR, eventually, setting};

/// The operator's pod.
pub async fn pod(client: &Client) -> Option<Pod> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), OPERATOR);
    let ours = ListParams::default().labels("app.kubernetes.io/name=helpdesk-operator,app.kubernetes.io/component!=mover");
    pods.list(&ours).await.unwrap().items.into_iter().find(|p| p.metadata.deletion_timestamp.is_none())
}

/// How many accounts it reconciles at once.
pub async fn concurrency(client: &Client) -> usize {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), OPERATOR);
    let deployment = deployments.get("helpdesk-operator").await.unwrap();
    let arguments = deployment.spec.unwrap().template.spec.unwrap().containers[0].args.clone().unwrap();
    arguments.iter().find_map(|a| a.strip_prefix("--concurrency=")).unwrap().parse().unwrap()
}

/// Has it reconcile so many at once, and waits until the pod that does so is ready.
pub async fn set_concurrency(client: &Client, at_once: usize) {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), OPERATOR);
    let mut deployment = deployments.get("helpdesk-operator").await.unwrap();
    let spec = deployment.spec.as_mut().unwrap();
    // The old pod goes first: there is room for one.
    spec.strategy = serde_json::from_value(json!({"type": "Recreate"})).unwrap();
    let arguments = spec.template.spec.as_mut().unwrap().containers[0].args.as_mut().unwrap();
    let place = arguments.iter_mut().find(|a| a.starts_with("--concurrency=")).unwrap();
    *place = format!("--concurrency={at_once}");
    let generation = deployments.replace("helpdesk-operator", &PostParams::default(), &deployment).await.unwrap().metadata.generation;
    eventually("the operator with another concurrency", || async {
        let status = deployments.get("helpdesk-operator").await.unwrap().status.unwrap_or_default();
        (status.observed_generation >= generation && status.updated_replicas == Some(1) && status.available_replicas == Some(1))
            .then_some(())
    })
    .await;
}

/// What the operator itself measured, by the line of its metrics without the value.
pub async fn metrics(client: &Client) -> BTreeMap<String, f64> {
    let path = format!("/api/v1/namespaces/{OPERATOR}/services/helpdesk-operator-metrics:metrics/proxy/metrics");
    lines(&get(client, &path).await.unwrap_or_default())
}

async fn get(client: &Client, path: &str) -> Result<String, kube::Error> {
    client.request_text(axum::http::Request::get(path).body(vec![]).unwrap()).await
}

fn lines(text: &str) -> BTreeMap<String, f64> {
    let line = |l: &str| l.rsplit_once(' ').and_then(|(name, value)| Some((name.to_owned(), value.parse().ok()?)));
    text.lines().filter(|l| !l.starts_with('#')).filter_map(line).collect()
}

/// Mean seconds of the steps between two looks at the metrics, with how many there were.
pub fn steps(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> Vec<(String, f64, f64)> {
    let prefix = "helpdesk_operator_driver_step_duration_seconds_";
    let more = |name: &str| after.get(name).unwrap_or(&0.0) - before.get(name).unwrap_or(&0.0);
    let names = after.keys().filter_map(|k| k.strip_prefix(prefix)?.strip_prefix("count"));
    let step = |labels: &str| {
        let (count, sum) = (more(&format!("{prefix}count{labels}")), more(&format!("{prefix}sum{labels}")));
        (count > 0.0).then(|| (label(labels, "driver") + " " + &label(labels, "step"), sum / count, count))
    };
    names.filter_map(step).collect()
}

fn label(labels: &str, name: &str) -> String {
    let begins = format!("{name}=\"");
    labels.split_once(&begins).and_then(|(_, rest)| rest.split_once('"')).map_or(String::new(), |(value, _)| value.to_owned())
}

/// Has the API server count what the operator asks for apart from everything else: writes, the Lease, the rest.
pub async fn count_requests(client: &Client) {
    let subject = json!([{"kind": "ServiceAccount", "serviceAccount": {"name": "helpdesk-operator", "namespace": OPERATOR}}]);
    let schema = |name: &str, precedence: i32, verbs: Value, group: &str, resource: &str| {
        json!({"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": name},
            "spec": {"matchingPrecedence": precedence, "priorityLevelConfiguration": {"name": "workload-low"},
                "rules": [{"subjects": subject, "resourceRules": [{"verbs": verbs, "apiGroups": [group], "resources": [resource],
                    "namespaces": ["*"], "clusterScope": true}]}]}})
    };
    let writes = json!(["create", "update", "patch", "delete", "deletecollection"]);
    let api: Api<k8s_openapi::api::flowcontrol::v1::FlowSchema> = Api::all(client.clone());
    for schema in [
        schema("bench-lease", 51, json!(["*"]), "coordination.k8s.io", "leases"),
        schema("bench-writes", 52, writes, "*", "*"),
        schema("bench-reads", 53, json!(["*"]), "*", "*"),
    ] {
        let name = schema["metadata"]["name"].as_str().unwrap().to_owned();
        api.patch(&name, &kube::api::PatchParams::apply("bench").force(), &kube::api::Patch::Apply(schema)).await.unwrap();
    }
}

/// Requests that the API server has counted.
pub struct Requests(BTreeMap<String, f64>);

impl Requests {
    pub async fn now(client: &Client) -> Self {
        Self(lines(&get(client, "/metrics").await.unwrap()))
    }

    fn sum(&self, since: &Self, fits: impl Fn(&str) -> bool) -> f64 {
        let more = |(name, value): (&String, &f64)| if fits(name) { value - since.0.get(name).unwrap_or(&0.0) } else { 0.0 };
        self.0.iter().map(more).sum()
    }

    /// What the operator asked for in that time: `writes`, `reads` or `lease`.
    pub fn of_operator(&self, since: &Self, kind: &str) -> f64 {
        let schema = format!("flow_schema=\"bench-{kind}\"");
        self.sum(since, |name| name.starts_with("apiserver_flowcontrol_dispatched_requests_total{") && name.contains(&schema))
    }

    /// Writes in that time by verb and resource, whoever sent them: those of the operator's group, and those to what
    /// else it writes to.
    pub fn writes(&self, since: &Self) -> Vec<(String, f64)> {
        let mut by_kind = BTreeMap::new();
        for (name, value) in &self.0 {
            let ours = name.contains("group=\"helpdesk-operator.io\"")
                || ["secrets", "namespaces", "events", "jobs"].iter().any(|r| name.contains(&format!("resource=\"{r}\"")));
            let more = value - since.0.get(name).unwrap_or(&0.0);
            if name.starts_with("apiserver_request_total{") && ours && is_write(name) && more > 0.0 {
                *by_kind
                    .entry(format!("{} {} {}", label(name, "verb"), label(name, ",resource"), label(name, "subresource")))
                    .or_insert(0.0) += more;
            }
        }
        by_kind.into_iter().collect()
    }
}

fn is_write(name: &str) -> bool {
    ["POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"].iter().any(|v| name.contains(&format!("verb=\"{v}\"")))
}

/// What the kernel says of a pod.
pub struct Usage {
    cpu: PathBuf,
    memory: PathBuf,
}

impl Usage {
    /// The cgroups of a pod, once they are there.
    pub fn of(pod: &Pod) -> Option<Self> {
        let uid = pod.uid()?;
        Some(Self { cpu: group("cpuacct", &uid)?, memory: group("memory", &uid)? })
    }

    /// Seconds of processor time so far.
    pub fn cpu_seconds(&self) -> f64 {
        nanoseconds(&self.cpu.join("cpuacct.usage"))
    }

    /// Bytes that are resident now, without the cache of files.
    pub fn resident(&self) -> Option<u64> {
        let stat = fs::read_to_string(self.memory.join("memory.stat")).ok()?;
        stat.lines().find_map(|l| l.strip_prefix("total_rss ")).and_then(|v| v.parse().ok())
    }

    /// The most bytes that were ever charged to it, with the cache of files.
    pub fn most(&self) -> Option<u64> {
        read_number(&self.memory.join("memory.max_usage_in_bytes"))
    }
}

/// Seconds of processor time so far: these figures depend less than others on what else the machine does.
#[derive(Clone, Copy)]
pub struct Processors {
    postgresql: f64,
    operator: f64,
    cluster: f64,
}

impl Processors {
    /// Of the first PostgreSQL server, of the operator, and of everything that is the cluster's.
    pub async fn now(client: &Client) -> Self {
        let databases: Api<Pod> = Api::namespaced(client.clone(), "databases");
        let of = |pod: Pod| Usage::of(&pod).unwrap().cpu_seconds();
        let cluster = root("cpuacct").unwrap();
        Self {
            postgresql: of(databases.get("pg-eu-1-0").await.unwrap()),
            operator: of(pod(client).await.unwrap()),
            cluster: nanoseconds(&cluster.join("cpuacct.usage")),
        }
    }

    /// What was used since.
    pub fn tell(&self, since: &Self) -> String {
        let (postgresql, operator) = (self.postgresql - since.postgresql, self.operator - since.operator);
        let rest = self.cluster - since.cluster - postgresql - operator;
        format!("PostgreSQL {postgresql:.1} s, operator {operator:.1} s, rest of the cluster {rest:.1} s")
    }
}

fn nanoseconds(file: &Path) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    let seconds = read_number(file).unwrap_or(0) as f64 / 1e9;
    seconds
}

fn read_number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The directory of a pod below the cluster's own cgroup.
fn group(controller: &str, uid: &str) -> Option<PathBuf> {
    find(&root(controller)?, &format!("pod{uid}"))
}

/// The cluster's own cgroup.
fn root(controller: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let fits = |line: &&str| {
        let parts: Vec<_> = line.split(' ').collect();
        parts[2] == "cgroup" && parts[3].split(',').any(|option| option == controller)
    };
    let mount = PathBuf::from(mounts.lines().find(fits)?.split(' ').nth(1)?);
    Some(mount.join("helpdesk-operator").join(setting("HELPDESK_TEST_CLUSTER")))
}

fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let folders: Vec<_> = fs::read_dir(folder).ok()?.flatten().map(|e| e.path()).filter(|p| p.is_dir()).collect();
    if let Some(found) = folders.iter().find(|p| p.ends_with(name)) {
        return Some(found.clone());
    }
    folders.iter().find_map(|folder| find(folder, name))
}
