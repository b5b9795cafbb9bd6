//! The Jobs that movers run in, and the Secrets that they read. Pure.
//!
//! A mover's pod has no credentials of the cluster, runs as a user without rights on a read-only root file system, and
//! reads all its input from one folder of files. The Job owns the Secret, which is deleted with it.

use std::collections::BTreeMap;

use k8s_openapi::{
    ByteString,
    api::{
        batch::v1::{Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule},
        core::v1::{
            Affinity, Capabilities, Container, EmptyDirVolumeSource, EnvVar, LocalObjectReference, PodSecurityContext, PodSpec,
            PodTemplateSpec, ResourceRequirements, SeccompProfile, Secret, SecretVolumeSource, SecurityContext, Toleration, Volume,
            VolumeMount,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, OwnerReference},
    },
};
use serde::Deserialize;

use super::{
    Task,
    config::{self, LoginFile, MoverConfig},
};
use crate::digest;
use crate::{
    api::{ACCOUNT_LABEL, ACCOUNT_UID, ColdBackup, MoverMemory},
    backup::keys::Keys,
    database::MoverLogin,
    store::ConnectedStore,
};

/// Label on every object that is created for movers.
pub const COMPONENT: (&str, &str) = ("app.kubernetes.io/component", "mover");
const NAME: (&str, &str) = ("app.kubernetes.io/name", "helpdesk-operator");
/// Label with the `DatabaseServer`; the movers of one server are counted by it.
pub const SERVER: &str = "helpdesk-operator.io/server";
/// Annotation with the `ColdBackup`.
pub const BACKUP: &str = "helpdesk-operator.io/backup";
/// Annotation with the label of the scratch database.
pub const SCRATCH: &str = "helpdesk-operator.io/scratch";

/// Where the files are in the pod.
const PLAN_FOLDER: &str = "/etc/mover";
const RUN_FOLDER: &str = "/run/mover";
const NOBODY: i64 = 65_532;
/// The `activeDeadlineSeconds` of a Job: ends a mover that hangs, but not one that copies a terabyte.
const LONGEST: i64 = 24 * 3600;
/// The `ttlSecondsAfterFinished` of a Job: how long the operator has to read a finished Job.
const LINGERS: i32 = 3600;

/// The name of a mover's Job and of its Secret. The same attempt has the same name, so a crash cannot start two movers.
pub fn job_name(task: Task, backup: &str, account_uid: &str, attempt: &str) -> String {
    let short: String = backup.chars().take(28).collect();
    let hash: String = digest::sha256(format!("{account_uid}/{backup}").as_bytes()).chars().take(8).collect();
    format!("{}-{}-{hash}-{attempt}", task.name(), short.trim_matches(['-', '.']).replace('.', "-"))
}

/// What the installation says about the pods of movers: where they may run, as whom, and how their image is pulled. The
/// fields are those of a pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MoverPod {
    /// A ServiceAccount of the operator's namespace; no pod gets its token.
    pub service_account_name: Option<String>,
    /// When the image is pulled.
    pub image_pull_policy: Option<String>,
    /// Secrets for the registry.
    pub image_pull_secrets: Option<Vec<LocalObjectReference>>,
    /// Labels of the nodes.
    pub node_selector: Option<BTreeMap<String, String>>,
    /// Tolerated taints of nodes.
    pub tolerations: Option<Vec<Toleration>>,
    /// Preferred nodes.
    pub affinity: Option<Affinity>,
    /// The priority class.
    pub priority_class_name: Option<String>,
    /// Requests and limits besides memory, which each backup has its own of.
    pub resources: ResourceRequirements,
    /// Additional labels.
    pub labels: BTreeMap<String, String>,
    /// Additional annotations.
    pub annotations: BTreeMap<String, String>,
}

/// The parameters of a mover's Job.
pub struct MoverJob<'o> {
    /// The Job's name.
    pub name: String,
    /// The mover's task.
    pub task: Task,
    /// The backup.
    pub backup: &'o ColdBackup,
    /// The `DatabaseServer` that it uses.
    pub server: &'o str,
    /// The label of its scratch database, if it has one.
    pub scratch: Option<&'o str>,
    /// The operator's namespace.
    pub namespace: &'o str,
    /// The image.
    pub image: &'o str,
    /// Its memory limit.
    pub memory: MoverMemory,
    /// What the installation says about its pod.
    pub pod: &'o MoverPod,
}

/// The files that a mover reads.
pub struct MoverFiles<'f> {
    /// The configuration, without secrets.
    pub plan: &'f MoverConfig,
    /// The bucket.
    pub store: &'f ConnectedStore,
    /// The keys of the backup.
    pub keys: &'f Keys,
    /// The private key that signs the report (PKCS#8).
    pub signing: &'f [u8],
    /// The login for the database that is dumped.
    pub source: Option<&'f MoverLogin>,
    /// The login for the database that is filled.
    pub target: Option<&'f MoverLogin>,
}

impl MoverFiles<'_> {
    /// The contents of the files by their names.
    ///
    /// # Errors
    /// The configuration or a login cannot be written as JSON, which does not happen.
    pub fn render(&self) -> Result<BTreeMap<String, ByteString>, serde_json::Error> {
        let MoverFiles { plan, store, keys, signing, source, target } = self;
        let mut files = BTreeMap::from([
            (config::PLAN.to_owned(), ByteString(serde_json::to_vec_pretty(plan)?)),
            (config::ACCESS_KEY_ID.to_owned(), ByteString(store.credentials.access_key_id.clone().into_bytes())),
            (config::SECRET_ACCESS_KEY.to_owned(), ByteString(store.credentials.secret_access_key.as_bytes().to_vec())),
            (config::IDENTITY.to_owned(), ByteString(keys.identity.as_bytes().to_vec())),
            (config::SIGNING.to_owned(), ByteString(signing.to_vec())),
        ]);
        if let Some(pem) = &store.ca_pem {
            files.insert(config::STORE_CA.to_owned(), ByteString(pem.clone().into_bytes()));
        }
        for (name, login) in [(config::SOURCE, source), (config::TARGET, target)] {
            if let Some(login) = login {
                files.insert(name.to_owned(), ByteString(serde_json::to_vec(&LoginFile::from(*login))?));
            }
        }
        Ok(files)
    }
}

impl MoverJob<'_> {
    fn metadata(&self) -> ObjectMeta {
        let spec = &self.backup.spec;
        let labels = [COMPONENT, NAME, (ACCOUNT_LABEL, spec.account.as_str()), (SERVER, self.server)];
        let name = self.backup.metadata.name.clone().unwrap_or_default();
        let mut annotations = BTreeMap::from([(ACCOUNT_UID.to_owned(), spec.account_uid.clone()), (BACKUP.to_owned(), name)]);
        if let Some(scratch) = self.scratch {
            annotations.insert(SCRATCH.to_owned(), scratch.to_owned());
        }
        ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.to_owned()),
            labels: Some(labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }
    }

    /// The Secret of a Job. The garbage collector deletes it with its owner, the Job.
    pub fn secret(&self, owner: &Job, files: BTreeMap<String, ByteString>) -> Secret {
        let reference = OwnerReference {
            api_version: "batch/v1".into(),
            kind: "Job".into(),
            name: self.name.clone(),
            uid: owner.metadata.uid.clone().unwrap_or_default(),
            ..OwnerReference::default()
        };
        let metadata = ObjectMeta { owner_references: Some(vec![reference]), ..self.metadata() };
        Secret { metadata, data: Some(files), ..Secret::default() }
    }

    /// The Job.
    pub fn job(&self) -> Job {
        let metadata = self.metadata();
        let template = PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some(with(&self.pod.labels, metadata.labels.clone())),
                annotations: Some(with(&self.pod.annotations, metadata.annotations.clone())),
                ..ObjectMeta::default()
            }),
            spec: Some(self.pod()),
        };
        let spec = JobSpec {
            template,
            backoff_limit: Some(1),
            active_deadline_seconds: Some(LONGEST),
            ttl_seconds_after_finished: Some(LINGERS),
            // A new pod starts only after the old one has ended: two pods would abort each other's uploads.
            pod_replacement_policy: Some("Failed".into()),
            // A pod that is evicted from a drained node does not count as a failure.
            pod_failure_policy: Some(PodFailurePolicy {
                rules: vec![PodFailurePolicyRule {
                    action: "Ignore".into(),
                    on_exit_codes: None,
                    on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                        type_: "DisruptionTarget".into(),
                        status: "True".into(),
                    }]),
                }],
            }),
            ..JobSpec::default()
        };
        Job { metadata, spec: Some(spec), status: None }
    }

    fn pod(&self) -> PodSpec {
        let volume = |name: &str| Volume { name: name.into(), ..Volume::default() };
        let secret =
            SecretVolumeSource { secret_name: Some(self.name.clone()), default_mode: Some(0o440), ..SecretVolumeSource::default() };
        let in_memory = EmptyDirVolumeSource { medium: Some("Memory".into()), size_limit: Some(Quantity("1Mi".into())) };
        PodSpec {
            restart_policy: Some("Never".into()),
            service_account_name: self.pod.service_account_name.clone(),
            image_pull_secrets: self.pod.image_pull_secrets.clone(),
            node_selector: self.pod.node_selector.clone(),
            tolerations: self.pod.tolerations.clone(),
            affinity: self.pod.affinity.clone(),
            priority_class_name: self.pod.priority_class_name.clone(),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(5),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                run_as_user: Some(NOBODY),
                run_as_group: Some(NOBODY),
                fs_group: Some(NOBODY),
                seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), localhost_profile: None }),
                ..PodSecurityContext::default()
            }),
            containers: vec![self.container()],
            volumes: Some(vec![
                Volume { secret: Some(secret), ..volume("plan") },
                Volume { empty_dir: Some(in_memory), ..volume("run") },
                Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..volume("tmp") },
            ]),
            ..PodSpec::default()
        }
    }

    fn container(&self) -> Container {
        let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
            name: name.into(),
            mount_path: path.into(),
            read_only: Some(read_only),
            ..VolumeMount::default()
        };
        let quantity = |(name, value): (&str, &str)| (name.to_owned(), Quantity(value.to_owned()));
        let resources = &self.pod.resources;
        let requests = [("cpu", "100m")].map(quantity).into_iter().chain(resources.requests.clone().unwrap_or_default());
        let limits = resources.limits.clone().unwrap_or_default().into_iter();
        Container {
            name: "mover".into(),
            image: Some(self.image.to_owned()),
            image_pull_policy: self.pod.image_pull_policy.clone(),
            args: Some(vec!["mover".into(), self.task.name().into()]),
            env: Some(vec![
                EnvVar { name: "TMPDIR".into(), value: Some("/tmp".into()), value_from: None },
                // Large buffers are allocated and freed; with many arenas, malloc would keep them.
                EnvVar { name: "MALLOC_ARENA_MAX".into(), value: Some("2".into()), value_from: None },
            ]),
            resources: Some(ResourceRequirements {
                requests: Some(requests.chain([quantity(("memory", self.memory.request()))]).collect()),
                limits: Some(limits.chain([quantity(("memory", self.memory.limit()))]).collect()),
                ..ResourceRequirements::default()
            }),
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                read_only_root_filesystem: Some(true),
                capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
                ..SecurityContext::default()
            }),
            termination_message_policy: Some("File".into()),
            volume_mounts: Some(vec![mount("plan", PLAN_FOLDER, true), mount("run", RUN_FOLDER, false), mount("tmp", "/tmp", false)]),
            ..Container::default()
        }
    }
}

/// The labels or annotations of the installation; those of the operator count in case of doubt.
fn with(pod: &BTreeMap<String, String>, own: Option<BTreeMap<String, String>>) -> BTreeMap<String, String> {
    pod.clone().into_iter().chain(own.unwrap_or_default()).collect()
}

/// The state of a Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// A pod of the Job is running or will run.
    Running,
    /// The Job succeeded.
    Complete,
    /// The Job failed for good; the text says why.
    Failed(String),
}

/// Reads the state of a Job from its conditions.
pub fn state(job: &Job) -> State {
    let conditions = job.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let is = |kind: &str| conditions.iter().find(|c| c.type_ == kind && c.status == "True");
    if is("Complete").is_some() {
        return State::Complete;
    }
    match is("Failed") {
        Some(failed) => State::Failed(failed.message.clone().or_else(|| failed.reason.clone()).unwrap_or_default()),
        None => State::Running,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::api::{BackupReason, VerifyMode};

    const UID: &str = "8f3a0000-0000-4000-8000-000000000000";

    static PLAIN: LazyLock<MoverPod> = LazyLock::new(MoverPod::default);

    fn backup() -> ColdBackup {
        let due = "2026-11-23T10:00:03Z".parse().unwrap();
        crate::backup::build("acme", UID, "eu-cold", due, BackupReason::Frozen, VerifyMode::Restore, due)
    }

    fn order(backup: &ColdBackup) -> MoverJob<'_> {
        let name = job_name(Task::Backup, "acme-20261123t100003z", UID, "1");
        MoverJob {
            name,
            task: Task::Backup,
            backup,
            server: "pg-eu-1",
            scratch: None,
            namespace: "helpdesk-operator",
            image: "operator:1",
            memory: MoverMemory::default(),
            pod: &PLAIN,
        }
    }

    #[test]
    fn a_name_fits_into_a_label_however_long_the_account_is() {
        let long = format!("{}-20261123t100003z", "a".repeat(40));
        for task in [Task::Backup, Task::Verify, Task::Restore] {
            let name = job_name(task, &long, UID, "20261123t100003z");
            assert!(name.len() <= 63, "{name}");
        }
        assert_ne!(job_name(Task::Backup, &long, UID, "1"), job_name(Task::Backup, &format!("{long}x"), UID, "1"));
    }

    #[test]
    fn nothing_secret_is_in_arguments_or_environment() {
        let job = order(&backup()).job();
        let container = &job.spec.unwrap().template.spec.unwrap().containers[0];
        assert_eq!(container.args.as_ref().unwrap(), &["mover", "backup"]);
        assert!(container.command.is_none() && container.env_from.is_none());
        assert!(
            container
                .env
                .as_ref()
                .unwrap()
                .iter()
                .all(|e| e.value_from.is_none() && ["TMPDIR", "MALLOC_ARENA_MAX"].contains(&e.name.as_str()))
        );
    }

    #[test]
    fn the_pod_keeps_to_the_restricted_standard_and_knows_nothing_of_the_cluster() {
        let job = order(&backup()).job();
        let pod = job.spec.unwrap().template.spec.unwrap();
        let security = pod.security_context.unwrap();
        assert_eq!((security.run_as_non_root, security.run_as_user), (Some(true), Some(65_532)));
        assert_eq!(security.seccomp_profile.unwrap().type_, "RuntimeDefault");
        assert_eq!((pod.automount_service_account_token, pod.host_network, pod.host_pid), (Some(false), None, None));
        let container = pod.containers[0].security_context.clone().unwrap();
        assert_eq!(container.capabilities.unwrap().drop.unwrap(), ["ALL"]);
        assert_eq!((container.allow_privilege_escalation, container.read_only_root_filesystem), (Some(false), Some(true)));
        let folders: Vec<_> = pod.volumes.unwrap().into_iter().map(|v| (v.name, v.secret.is_some(), v.host_path.is_some())).collect();
        assert_eq!(folders, [("plan".into(), true, false), ("run".into(), false, false), ("tmp".into(), false, false)]);
        assert!(pod.containers[0].resources.as_ref().unwrap().limits.as_ref().unwrap().contains_key("memory"));
    }

    #[test]
    fn a_mover_gets_the_memory_that_its_backup_needs_and_a_quarter_of_it_for_sure() {
        for (memory, limit, request) in
            [(MoverMemory::Small, "256Mi", "128Mi"), (MoverMemory::Medium, "1Gi", "256Mi"), (MoverMemory::Large, "4Gi", "1Gi")]
        {
            let job = MoverJob { memory, ..order(&backup()) }.job();
            let resources = job.spec.unwrap().template.spec.unwrap().containers[0].resources.clone().unwrap();
            let (limits, requests) = (resources.limits.unwrap(), resources.requests.unwrap());
            assert_eq!((limits["memory"].0.as_str(), requests["memory"].0.as_str()), (limit, request));
        }
    }

    #[test]
    fn a_pod_is_where_and_as_the_installation_says_and_keeps_what_the_operator_says() {
        let pod: MoverPod = serde_json::from_value(serde_json::json!({
            "serviceAccountName": "mover", "imagePullPolicy": "Always", "imagePullSecrets": [{"name": "registry"}],
            "nodeSelector": {"pool": "backups"}, "tolerations": [{"key": "backups", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}}, "priorityClassName": "low",
            "resources": {"requests": {"cpu": "1", "memory": "1Ki"}, "limits": {"ephemeral-storage": "1Gi"}},
            "labels": {"team": "storage", (COMPONENT.0): "other"}, "annotations": {"note": "x"},
        }))
        .unwrap();
        let template = MoverJob { pod: &pod, ..order(&backup()) }.job().spec.unwrap().template;
        let (meta, spec) = (template.metadata.unwrap(), template.spec.unwrap());
        let labels = meta.labels.unwrap();
        assert_eq!((labels["team"].as_str(), labels[COMPONENT.0].as_str()), ("storage", COMPONENT.1));
        assert!(meta.annotations.unwrap().contains_key("note"));
        assert_eq!((spec.service_account_name, spec.automount_service_account_token), (Some("mover".into()), Some(false)));
        assert_eq!((spec.image_pull_secrets, spec.node_selector), (pod.image_pull_secrets, pod.node_selector));
        assert_eq!((spec.tolerations, spec.affinity, spec.priority_class_name), (pod.tolerations, pod.affinity, pod.priority_class_name));
        let container = &spec.containers[0];
        assert_eq!(container.image_pull_policy.as_deref(), Some("Always"));
        let resources = container.resources.clone().unwrap();
        let (requests, limits) = (resources.requests.unwrap(), resources.limits.unwrap());
        assert_eq!((requests["cpu"].0.as_str(), requests["memory"].0.as_str()), ("1", "128Mi"));
        assert_eq!((limits["ephemeral-storage"].0.as_str(), limits["memory"].0.as_str()), ("1Gi", "256Mi"));
        assert!(serde_json::from_str::<MoverPod>(r#"{"nodeSelektor": {}}"#).is_err());
    }

    #[test]
    fn the_secret_goes_with_its_job() {
        let backup = backup();
        let order = order(&backup);
        let mut job = order.job();
        job.metadata.uid = Some("j".into());
        let secret = order.secret(&job, BTreeMap::new());
        let owner = &secret.metadata.owner_references.unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.uid.as_str(), Some(&owner.name)), ("Job", "j", job.metadata.name.as_ref()));
    }
}
