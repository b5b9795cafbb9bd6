//! The pods of an app: what a class chooses of them, and what is the same for all. Pure.
//!
//! Every pod keeps to the Pod Security Standard `restricted`, has no token of the cluster, and cannot write to its root
//! file system. Configuration reaches it by Secrets only, never by arguments.

use serde_json::{Value, json};

use super::object::{App, DATABASE_CA, ENVIRONMENT, FILES, SERVICE_ACCOUNT, file_key};
use crate::api::{
    ACCOUNT_LABEL,
    help_desk_class::{Scratch, Workload},
};

/// Label on the app's pods with the component's name; on the pods of hooks with the hook's.
pub(super) const COMPONENT: &str = "helpdesk-operator.io/component";
/// Annotation on pods with a digest of their configuration, so that another configuration starts them anew.
pub(super) const CONFIGURATION: &str = "helpdesk-operator.io/configuration";
/// How long a pod is given to end. A request that runs is finished; a stream is cut.
const GRACE_SECONDS: i64 = 5;

/// The user that the operator's image has (Dockerfile).
const OPERATOR_USER: i64 = 65532;

/// What a container is made from.
#[derive(Clone, Copy)]
pub(super) struct Container<'a> {
    pub image: &'a str,
    pub command: &'a [String],
    pub run_as_user: i64,
    pub cpu: &'a str,
    pub memory: &'a str,
    pub scratch: &'a [Scratch],
}

impl<'a> Container<'a> {
    /// A container of a component, with this command.
    pub fn of(workload: &'a Workload, command: &'a [String]) -> Self {
        Self {
            image: &workload.image,
            command,
            run_as_user: workload.run_as_user,
            cpu: &workload.cpu,
            memory: &workload.memory,
            scratch: &workload.scratch,
        }
    }

    /// A container of the operator's own image, with this command.
    pub fn of_operator(app: &App<'a>, command: &'a [String]) -> Self {
        Self { image: app.operator_image, command, run_as_user: OPERATOR_USER, cpu: "10m", memory: "64Mi", scratch: &[] }
    }

    /// The container as a pod has it.
    pub fn render(self, name: &str, app: &App<'_>) -> Value {
        let paths = app.class.files.iter().map(|file| file.path.as_str()).chain([DATABASE_CA]);
        let files = paths.map(|path| json!({"name": "files", "mountPath": path, "subPath": file_key(path), "readOnly": true}));
        let scratch =
            self.scratch.iter().enumerate().map(|(number, folder)| json!({"name": format!("scratch-{number}"), "mountPath": folder.path}));
        let mut container = json!({
            "name": name,
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "envFrom": [{"secretRef": {"name": ENVIRONMENT}}],
            "volumeMounts": files.chain(scratch).collect::<Vec<_>>(),
            "resources": {"requests": {"cpu": self.cpu, "memory": self.memory}, "limits": {"memory": self.memory}},
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": {"drop": ["ALL"]},
            },
        });
        if !self.command.is_empty() {
            container["command"] = json!(self.command.iter().map(|argument| literal(argument)).collect::<Vec<_>>());
        }
        container
    }

    /// The pod around that container.
    pub fn pod(self, app: &App<'_>, component: &str, configuration: &str, container: &Value) -> Value {
        let scratch = self
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
                    "runAsUser": self.run_as_user,
                    "runAsGroup": self.run_as_user,
                    "fsGroup": self.run_as_user,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [container],
                "volumes": scratch.chain([files]).collect::<Vec<_>>(),
            },
        })
    }
}

/// A text that Kubernetes leaves as it is. In a command it would put the environment's value in place of `$(NAME)`, and a
/// password would be in the arguments of a process, which others can read. `$$` stands for `$`.
fn literal(argument: &str) -> String {
    argument.replace('$', "$$")
}
