//! What is wrong with a pod, a Deployment, or a namespace. Pure.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Namespace, Pod},
};
use kube::ResourceExt;

use super::chain::{Link, Object};
use crate::app::apply::why_waiting;

/// What is wrong with a pod. One that has succeeded is in order, and so is one that is being ended.
pub(super) fn of_pod(pod: &Pod) -> Option<Link> {
    let status = pod.status.as_ref()?;
    let object = Object::within("Pod", pod.namespace().unwrap_or_default(), pod.name_any());
    let log = format!("kubectl -n {} logs {} --all-containers", object.namespace.as_deref().unwrap_or_default(), object.name);
    if let Some(why) = why_waiting(pod) {
        return Some(Link::seen(object, why).remedy(format!("look at the pod's log and events: {log}")));
    }
    let containers = || status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let ended = containers().find_map(|container| {
        let state = container.state.as_ref()?.terminated.as_ref().filter(|ended| ended.exit_code != 0)?;
        let reason = state.reason.as_deref().unwrap_or("Error");
        Some(format!("its container {} ended with exit code {} ({reason})", container.name, state.exit_code))
    });
    match (status.phase.as_deref(), ended) {
        (Some("Succeeded"), _) => None,
        (Some("Failed"), ended) => {
            let said = [status.reason.clone(), status.message.clone()].into_iter().flatten().collect::<Vec<_>>().join(": ");
            let why = ended.unwrap_or_else(|| if said.is_empty() { "it failed".to_owned() } else { said });
            Some(Link::seen(object, why).remedy(format!("read its log: {log}")))
        }
        (_, Some(ended)) => Some(Link::seen(object, ended).remedy(format!("read its log: {log} --previous"))),
        _ if pod.metadata.deletion_timestamp.is_some() => None,
        _ => not_ready(pod).map(|why| Link::seen(object, why).remedy(format!("read its log: {log}"))),
    }
}

fn not_ready(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.iter().flatten();
    let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready" && condition.status != "True")?;
    Some(ready.message.clone().map_or_else(|| "it is not ready".to_owned(), |message| format!("it is not ready: {message}")))
}

/// What is wrong with a Deployment: fewer pods are ready than are wanted, or none are wanted.
pub(super) fn of_deployment(deployment: &Deployment) -> Option<Link> {
    let (namespace, name) = (deployment.namespace().unwrap_or_default(), deployment.name_any());
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
    let object = Object::within("Deployment", namespace.clone(), name.clone());
    if wanted == 0 {
        let again = format!("start it again: kubectl -n {namespace} scale deployment {name} --replicas=1");
        return Some(Link::seen(object, "it is scaled to no replicas").remedy(again));
    }
    if ready >= wanted {
        return None;
    }
    let conditions = deployment.status.as_ref().and_then(|status| status.conditions.as_ref());
    let failed = conditions.into_iter().flatten().find(|c| c.type_ == "ReplicaFailure" && c.status == "True");
    let why = failed.and_then(|condition| condition.message.as_ref()).map(|message| format!(": {message}")).unwrap_or_default();
    Some(Link::seen(object, format!("{ready} of {wanted} replicas are ready{why}")))
}

/// What keeps a namespace from being used.
pub(super) fn of_namespace(namespace: &Namespace) -> Option<Link> {
    namespace.metadata.deletion_timestamp.as_ref()?;
    let conditions = namespace.status.as_ref().and_then(|status| status.conditions.as_ref());
    let held: Vec<String> =
        conditions.into_iter().flatten().filter(|c| c.status == "True").filter_map(|condition| condition.message.clone()).collect();
    let why = if held.is_empty() { "it is being deleted".to_owned() } else { format!("it is being deleted: {}", held.join("; ")) };
    let remedy = "see to what holds it, as the message names it: whoever set a finalizer has to remove it";
    Some(Link::seen(Object::of("Namespace", namespace.name_any()), why).remedy(remedy))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web-1", "namespace": "hd-1"}, "status": status})).unwrap()
    }

    fn says(status: Value) -> Option<String> {
        of_pod(&pod(status)).map(|link| link.says)
    }

    #[test]
    fn a_pod_says_what_keeps_it_from_running() {
        let waiting = |reason: &str| {
            json!({"containerStatuses": [{"name": "web", "image": "desk:1", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": reason}}}]})
        };
        assert!(says(waiting("ImagePullBackOff")).unwrap().contains("image desk:1"));
        let ended = json!({"phase": "Failed", "containerStatuses": [{"name": "mover", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]});
        assert_eq!(says(ended).unwrap(), "its container mover ended with exit code 137 (OOMKilled)");
        assert_eq!(says(json!({"phase": "Failed", "reason": "Evicted", "message": "disk"})).unwrap(), "Evicted: disk");
        let unready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False", "message": "probe failed"}]});
        assert_eq!(says(unready).unwrap(), "it is not ready: probe failed");
        assert_eq!(says(json!({"phase": "Succeeded"})), None);
        assert_eq!(says(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]})), None);
    }

    #[test]
    fn a_deployment_that_somebody_scaled_down_says_how_to_start_it() {
        let deployment = |replicas: i32, ready: i32| -> Deployment {
            serde_json::from_value(json!({"metadata": {"name": "operator", "namespace": "ops"},
                "spec": {"replicas": replicas, "selector": {}, "template": {}}, "status": {"readyReplicas": ready}}))
            .unwrap()
        };
        assert!(of_deployment(&deployment(0, 0)).unwrap().remedy.unwrap().contains("scale deployment operator --replicas=1"));
        assert_eq!(of_deployment(&deployment(2, 1)).unwrap().says, "1 of 2 replicas are ready");
        assert_eq!(of_deployment(&deployment(1, 1)), None);
    }
}
