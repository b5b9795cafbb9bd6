//! Applies the objects of an app with server-side apply, where they are not as they are wanted.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions},
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use serde_json::{Value, json};

use super::{
    Error,
    hooks::{INVALIDATE_SESSIONS, MIGRATE},
    object::{self, Kind, Object},
    pods::COMPONENT,
};
use crate::{
    api::{ACCOUNT_LABEL, ACCOUNT_UID},
    cluster::{ClusterError, During, ignore_not_found_or_conflict},
    object_diff::contains,
};

/// Owns the fields that the operator sets; what others add stays.
const FIELD_MANAGER: &str = "helpdesk-operator-app";

impl Kind {
    fn resource(self) -> ApiResource {
        let (group, version, kind, plural) = match self {
            Self::ServiceAccount => ("", "v1", "ServiceAccount", "serviceaccounts"),
            Self::Secret => ("", "v1", "Secret", "secrets"),
            Self::Role => ("rbac.authorization.k8s.io", "v1", "Role", "roles"),
            Self::RoleBinding => ("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"),
            Self::NetworkPolicy => ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
            Self::Job => ("batch", "v1", "Job", "jobs"),
            Self::Deployment => ("apps", "v1", "Deployment", "deployments"),
            Self::Service => ("", "v1", "Service", "services"),
            Self::PodDisruptionBudget => ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
            Self::ResourceQuota => ("", "v1", "ResourceQuota", "resourcequotas"),
        };
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    }
}

/// Whose objects they are.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The account's name, for the label.
    pub account: &'a str,
    /// The account's uid: the ownership marker.
    pub uid: &'a str,
    /// The tenant's namespace.
    pub namespace: &'a str,
}

/// Makes the object as it is wanted, and returns it as the API server has it. What is as it is wanted is not written.
///
/// # Errors
/// See [`Error`].
pub async fn apply(client: &Client, owner: Owner<'_>, object: &Object) -> Result<DynamicObject, Error> {
    let resource = object.kind.resource();
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), owner.namespace, &resource);
    let labels = BTreeMap::from([(ACCOUNT_LABEL, owner.account), ("app.kubernetes.io/managed-by", "helpdesk-operator")]);
    if let Some(found) = api.get_opt(&object.name).await.during("read an object of the app")? {
        if found.annotations().get(ACCOUNT_UID).is_none_or(|uid| uid != owner.uid) {
            return Err(Error::Foreign(format!("{} {}/{}", resource.kind, owner.namespace, object.name)));
        }
        let is_labelled = labels.iter().all(|(key, value)| found.labels().get(*key).is_some_and(|v| v == value));
        // A Job cannot be changed once it exists.
        if object.kind == Kind::Job || (is_labelled && contains(&found.data, &object.body)) {
            return Ok(found);
        }
    }
    let mut applied = object.body.clone();
    applied["apiVersion"] = json!(resource.api_version);
    applied["kind"] = json!(resource.kind);
    applied["metadata"] = json!({"name": object.name, "labels": labels, "annotations": {ACCOUNT_UID: owner.uid}});
    tracing::info!(kind = resource.kind, name = object.name, "applying an object of the app");
    match api.patch(&object.name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(applied)).await {
        Ok(written) => Ok(written),
        Err(kube::Error::Api(answer)) if matches!(answer.code, 400 | 403 | 422) => {
            Err(Error::Refused { what: format!("{} {}", resource.kind, object.name), message: answer.message })
        }
        Err(error) => Err(ClusterError::new("write an object of the app", error).into()),
    }
}

/// How long a pod gets that ends because somebody must not be connected to it any more, in seconds.
const SHORT_GRACE: u32 = 1;

/// Ends pods of the app that were started up to this time, so that no connection to them lives on; `None`: all of them. Of
/// these components only, if any are named. A Deployment that is not stopped starts others. Returns how many pods there are.
///
/// # Errors
/// A request to the API server failed.
pub async fn end_pods(client: &Client, owner: Owner<'_>, of: &[&str], started_until: Option<Timestamp>) -> Result<usize, ClusterError> {
    let api: Api<Pod> = Api::namespaced(client.clone(), owner.namespace);
    let labels = format!("{ACCOUNT_LABEL}={},{COMPONENT}", owner.account);
    let pods = api.list(&ListParams::default().labels(&labels)).await.during("list pods of the app")?.items;
    let is_meant = |pod: &&Pod| {
        let component = pod.labels().get(COMPONENT).map(String::as_str).unwrap_or_default();
        let is_ours = pod.owner_references().iter().any(|owner| owner.kind == "ReplicaSet");
        // The API server keeps whole seconds.
        let is_old = started_until.is_none_or(|until| pod.creation_timestamp().is_none_or(|at| at.0.as_second() <= until.as_second()));
        is_ours && is_old && (of.is_empty() || of.contains(&component))
    };
    let mut count = 0;
    for pod in pods.iter().filter(is_meant) {
        count += 1;
        if pod.metadata.deletion_grace_period_seconds.is_some_and(|grace| grace <= SHORT_GRACE.into()) {
            continue;
        }
        tracing::info!(name = pod.name_any(), "ending a pod of the app with its connections");
        let params = DeleteParams {
            grace_period_seconds: Some(SHORT_GRACE),
            preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        let deleted = api.delete(&pod.name_any(), &params).await.map(drop).or_else(ignore_not_found_or_conflict);
        deleted.during("end a pod of the app")?;
    }
    Ok(count)
}

/// Ends the pods of the app and of its hooks, whatever the class says by now. Before the components are started again,
/// sessions are ended again. Returns how many pods are left; `None`: the app has no Deployment.
///
/// # Errors
/// See [`Error`].
pub async fn stop(client: &Client, owner: Owner<'_>) -> Result<Option<i64>, Error> {
    let mut left = None;
    for found in list(client, owner, Kind::Deployment).await? {
        let name = found.name_any();
        let patched = if found.data["spec"]["replicas"] == 0 {
            found
        } else {
            tracing::info!(name, "ending the pods of the app");
            patch(client, owner, Kind::Deployment, &name, json!({"spec": {"replicas": 0}})).await?.unwrap_or(found)
        };
        left = Some(left.unwrap_or_default() + patched.data["status"]["replicas"].as_i64().unwrap_or_default());
    }
    if left.is_some_and(|left| left > 0) {
        end_pods(client, owner, &[], None).await?;
    }
    for job in list(client, owner, Kind::Job).await? {
        if job.name_any() == INVALIDATE_SESSIONS {
            delete_job(client, owner, &job.name_any()).await?;
        } else if job_state(&job) == JobState::Running && job.data["spec"]["suspend"] != true {
            patch(client, owner, Kind::Job, &job.name_any(), json!({"spec": {"suspend": true}})).await?;
        }
    }
    Ok(left)
}

/// Ends what uses the database besides this migration: the pods of components that are not `kept`, and Jobs of earlier
/// migrations. Returns how many pods are left that may use it, those of other hooks among them.
///
/// # Errors
/// See [`Error`].
pub async fn make_room(client: &Client, owner: Owner<'_>, migration: &str, kept: &[&str]) -> Result<usize, Error> {
    for found in list(client, owner, Kind::Deployment).await? {
        let name = found.name_any();
        if !kept.contains(&name.as_str()) && found.data["spec"]["replicas"] != 0 {
            tracing::info!(name, migration, "ending the pods of the app for its migration");
            patch(client, owner, Kind::Deployment, &name, json!({"spec": {"replicas": 0}})).await?;
        }
    }
    for job in list(client, owner, Kind::Job).await? {
        let name = job.name_any();
        if name.starts_with(MIGRATE) && name != migration {
            delete_job(client, owner, &name).await?;
        }
    }
    let api: Api<Pod> = Api::namespaced(client.clone(), owner.namespace);
    let pods =
        api.list(&ListParams::default().labels(&format!("{ACCOUNT_LABEL}={}", owner.account))).await.during("list pods of the app")?;
    let has_ended = |pod: &Pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()).is_some_and(|p| ["Succeeded", "Failed"].contains(&p));
    let may_stay = |pod: &Pod| {
        let label = |key: &str| pod.labels().get(key).map(String::as_str);
        label(JOB_NAME) == Some(migration) || label(COMPONENT).is_some_and(|component| kept.contains(&component))
    };
    Ok(pods.items.iter().filter(|pod| !has_ended(pod) && !may_stay(pod)).count())
}

/// Label on the pods of a Job (https://kubernetes.io/docs/reference/labels-annotations-taints/#batchkubernetesio-job-name).
const JOB_NAME: &str = "batch.kubernetes.io/job-name";

/// Deletes the components that the class does not have any more: Deployments that are not among `wanted`, and what belongs
/// to them.
///
/// # Errors
/// See [`Error`].
pub async fn prune<'o>(client: &Client, owner: Owner<'_>, wanted: impl Iterator<Item = &'o Object> + Clone) -> Result<(), Error> {
    for found in list(client, owner, Kind::Deployment).await? {
        let name = found.name_any();
        if wanted.clone().any(|object| object.kind == Kind::Deployment && object.name == name) {
            continue;
        }
        tracing::info!(name, "deleting a component that the class does not have any more");
        for kind in [Kind::Service, Kind::PodDisruptionBudget, Kind::Deployment] {
            delete(client, owner, kind, &name).await?;
        }
    }
    Ok(())
}

/// The objects of this kind that carry the owner's marker.
async fn list(client: &Client, owner: Owner<'_>, kind: Kind) -> Result<Vec<DynamicObject>, Error> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), owner.namespace, &kind.resource());
    let ours = ListParams::default().labels(ACCOUNT_LABEL);
    let found = api.list(&ours).await.during("list objects of the app")?;
    Ok(found.items.into_iter().filter(|object| object.annotations().get(ACCOUNT_UID).is_some_and(|uid| uid == owner.uid)).collect())
}

/// Lets a Job go on that was suspended when the app was stopped.
///
/// # Errors
/// See [`Error`].
pub async fn resume(client: &Client, owner: Owner<'_>, job: &DynamicObject) -> Result<(), Error> {
    if job.data["spec"]["suspend"] == true {
        patch(client, owner, Kind::Job, &job.name_any(), json!({"spec": {"suspend": false}})).await?;
    }
    Ok(())
}

/// Deletes a Job with its pods, so that it is made anew.
///
/// # Errors
/// See [`Error`].
pub async fn delete_job(client: &Client, owner: Owner<'_>, name: &str) -> Result<(), Error> {
    delete(client, owner, Kind::Job, name).await
}

/// Deletes the Secrets of the app before its namespace. Deleting a namespace takes a while; the secrets must not be readable
/// meanwhile.
///
/// # Errors
/// See [`Error`].
pub async fn delete_secrets(client: &Client, owner: Owner<'_>) -> Result<(), Error> {
    for name in object::SECRETS {
        delete(client, owner, Kind::Secret, name).await?;
    }
    Ok(())
}

/// Deletes an object of the owner, with what belongs to it.
async fn delete(client: &Client, owner: Owner<'_>, kind: Kind, name: &str) -> Result<(), Error> {
    let Some(found) = find(client, owner, kind, name).await? else { return Ok(()) };
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), owner.namespace, &kind.resource());
    let this_one =
        DeleteParams { preconditions: Some(Preconditions { uid: found.uid(), resource_version: None }), ..DeleteParams::background() };
    let deleted = api.delete(name, &this_one).await.map(drop).or_else(ignore_not_found_or_conflict);
    Ok(deleted.during("delete an object of the app")?)
}

/// An object of the owner, if it exists.
async fn find(client: &Client, owner: Owner<'_>, kind: Kind, name: &str) -> Result<Option<DynamicObject>, Error> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), owner.namespace, &kind.resource());
    let found = api.get_opt(name).await.during("read an object of the app")?;
    Ok(found.filter(|object| object.annotations().get(ACCOUNT_UID).is_some_and(|uid| uid == owner.uid)))
}

/// Changes an object; `None`: it is gone.
async fn patch(client: &Client, owner: Owner<'_>, kind: Kind, name: &str, patch: Value) -> Result<Option<DynamicObject>, Error> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), owner.namespace, &kind.resource());
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch(name, &params, &Patch::Merge(patch)).await {
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(None),
        other => Ok(Some(other.during("change an object of the app")?)),
    }
}

/// How far a Job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It runs, or waits to be tried again.
    Running,
    /// It is done.
    Complete,
    /// It failed, and is not tried again.
    Failed {
        /// What the API server says of it.
        message: String,
        /// When it failed.
        at: Option<Timestamp>,
    },
}

/// How far a Job is, by its conditions.
pub fn job_state(job: &DynamicObject) -> JobState {
    let holds = |kind: &str| {
        let conditions = job.data["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
        conditions.iter().find(|c| c["type"] == kind && c["status"] == "True").cloned()
    };
    if holds("Complete").is_some() {
        return JobState::Complete;
    }
    match holds("Failed") {
        Some(failed) => JobState::Failed {
            message: format!("{}: {}", failed["reason"].as_str().unwrap_or("Failed"), failed["message"].as_str().unwrap_or_default()),
            at: failed["lastTransitionTime"].as_str().and_then(|at| at.parse().ok()),
        },
        None => JobState::Running,
    }
}

/// Why not every wanted pod of a Deployment is ready; `None`: all are, and none of an earlier configuration is left.
pub fn why_not_ready(deployment: &DynamicObject) -> Option<String> {
    let number = |value: &Value| value.as_i64().unwrap_or_default();
    let (spec, status) = (&deployment.data["spec"], &deployment.data["status"]);
    let wanted = number(&spec["replicas"]);
    if number(&status["observedGeneration"]) < deployment.metadata.generation.unwrap_or_default() {
        return Some(format!("{} was changed a moment ago", deployment.name_any()));
    }
    let (updated, ready, all) = (number(&status["updatedReplicas"]), number(&status["readyReplicas"]), number(&status["replicas"]));
    if updated == wanted && ready >= wanted && all == wanted {
        return None;
    }
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let why = conditions.iter().find(|c| c["type"] == "ReplicaFailure" || (c["type"] == "Progressing" && c["status"] == "False"));
    let why = why.and_then(|c| c["message"].as_str()).map(|message| format!(": {message}")).unwrap_or_default();
    Some(format!("{ready} of {wanted} pods of {} are ready{why}", deployment.name_any()))
}

/// Why a pod of a component or a hook does not run, if its kubelet or the scheduler says so.
///
/// # Errors
/// See [`Error`].
pub async fn why_pods_wait(client: &Client, owner: Owner<'_>, component: &str) -> Result<Option<String>, Error> {
    let api: Api<Pod> = Api::namespaced(client.clone(), owner.namespace);
    let of_component = ListParams::default().labels(&format!("{ACCOUNT_LABEL}={},{COMPONENT}={component}", owner.account));
    let pods = api.list(&of_component).await.during("list pods of the app")?;
    Ok(pods.items.iter().find_map(why_waiting))
}

/// Why a pod does not run, if its kubelet or the scheduler says so. The words stay the same from try to try, so that they are
/// written once.
pub fn why_waiting(pod: &Pod) -> Option<String> {
    let (name, status) = (pod.name_any(), pod.status.as_ref()?);
    let unscheduled = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False");
    if let Some(message) = unscheduled.and_then(|condition| condition.message.as_ref()) {
        return Some(format!("no node has room for pod {name}: {message}"));
    }
    status.container_statuses.iter().flatten().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
        match waiting.reason.as_deref()? {
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
                Some(format!("the image {} of pod {name} cannot be pulled", container.image))
            }
            "CrashLoopBackOff" => {
                let ended = last.map(|last| format!(" with exit code {}", last.exit_code)).unwrap_or_default();
                Some(format!("pod {name} ends again and again{ended}; its log says why"))
            }
            reason @ ("CreateContainerConfigError" | "CreateContainerError" | "RunContainerError") => Some(format!(
                "the container of pod {name} cannot be started ({reason}): {}",
                waiting.message.as_deref().unwrap_or_default()
            )),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_that_waits_says_why_in_words_that_stay_the_same() {
        let pod = |status: Value| serde_json::from_value::<Pod>(json!({"metadata": {"name": "web-1"}, "status": status})).unwrap();
        let waiting = |reason: &str, message: &str| {
            let container = json!({"name": "web", "image": "none:1", "imageID": "", "ready": false, "restartCount": 3,
                "state": {"waiting": {"reason": reason, "message": message}}, "lastState": {"terminated": {"exitCode": 3}}});
            why_waiting(&pod(json!({"containerStatuses": [container]})))
        };
        assert_eq!(waiting("ErrImagePull", "a"), waiting("ImagePullBackOff", "b"));
        assert!(waiting("ErrImagePull", "a").unwrap().contains("none:1"));
        assert_eq!(waiting("CrashLoopBackOff", "back-off 10s"), waiting("CrashLoopBackOff", "back-off 20s"));
        assert!(waiting("CrashLoopBackOff", "").unwrap().contains("exit code 3"));
        assert_eq!(waiting("ContainerCreating", ""), None);
        let full = json!({"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}]});
        assert!(why_waiting(&pod(full)).unwrap().contains("0/1 nodes"));
        assert_eq!(why_waiting(&pod(json!({"phase": "Running"}))), None);
    }

    fn object(generation: i64, data: Value) -> DynamicObject {
        let mut object = DynamicObject::new("web", &Kind::Deployment.resource()).data(data);
        object.metadata.generation = Some(generation);
        object
    }

    #[test]
    fn a_deployment_is_ready_only_when_its_present_form_is() {
        let status = |updated: i64, ready: i64, all: i64| json!({"spec": {"replicas": 1}, "status": {"observedGeneration": 2, "updatedReplicas": updated, "readyReplicas": ready, "replicas": all}});
        assert_eq!(why_not_ready(&object(2, status(1, 1, 1))), None);
        assert!(why_not_ready(&object(3, status(1, 1, 1))).is_some(), "its change was not seen yet");
        assert!(why_not_ready(&object(2, status(1, 1, 2))).is_some(), "a pod of before is left");
        assert!(why_not_ready(&object(2, status(1, 0, 1))).unwrap().starts_with("0 of 1 pods of web"));
        assert!(why_not_ready(&object(2, json!({"spec": {"replicas": 1}}))).is_some());
    }

    #[test]
    fn a_job_that_nobody_looked_at_runs() {
        let with =
            |kind: &str| object(1, json!({"status": {"conditions": [{"type": kind, "status": "True", "reason": "R", "message": "m"}]}}));
        assert_eq!(job_state(&object(1, json!({}))), JobState::Running);
        assert_eq!(job_state(&with("Complete")), JobState::Complete);
        assert_eq!(job_state(&with("Failed")), JobState::Failed { message: "R: m".into(), at: None });
        // A Job that is about to be complete has other conditions first.
        assert_eq!(job_state(&with("SuccessCriteriaMet")), JobState::Running);
    }
}
