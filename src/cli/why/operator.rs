//! Whether an operator looks after the account, and if not, why. Pure.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::ResourceExt;

use super::{
    chain::{Link, Object},
    pods,
    scene::Scene,
};
use crate::{
    api::SHARD_LABEL,
    cli::{output::when, seen::Seen},
};

/// What keeps the operator from working, from its Lease to its pod; empty: it works, or nobody can tell.
pub(super) fn links(scene: &Scene) -> Vec<Link> {
    let operator = &scene.operator;
    let lease = Object::within("Lease", &scene.operator_namespace, &operator.lease_name);
    let unled = match &operator.lease {
        Seen::There(leadership) if leadership.is_renewed => None,
        Seen::There(leadership) => {
            let holder = leadership.holder.as_ref().map_or_else(|| "nobody holds it".to_owned(), |holder| format!("{holder} holds it"));
            let renewed = leadership.renewed_at.map(|at| format!(", and renewed it last at {}", when(at, scene.now))).unwrap_or_default();
            Some(Link::seen(lease, format!("no operator works: {holder}{renewed}")))
        }
        Seen::Missing => Some(Link::seen(lease, "no operator works: nobody has ever held it")),
        Seen::Unseen(_) => None,
    };
    let below = below(scene);
    match (unled, &operator.lease) {
        (Some(unled), _) => std::iter::once(unled).chain(below).collect(),
        // The leader works; that another replica does not is no cause of anything.
        (None, Seen::There(_)) => obstacles(scene),
        (None, _) => below,
    }
}

/// What keeps a leader from working, although it renews its Lease.
fn obstacles(scene: &Scene) -> Vec<Link> {
    let leader = scene.operator.lease.there().and_then(|leadership| leadership.holder.as_deref());
    let pod = scene.operator.pods.all().iter().find(|pod| Some(pod.name_any().as_str()) == leader);
    pod.and_then(|pod| of_pod(scene, pod)).into_iter().collect()
}

/// The Deployment and the pod that should work.
fn below(scene: &Scene) -> Vec<Link> {
    let Some(deployments) = scene.operator.deployments.there() else { return vec![] };
    let shard = scene.account.labels().get(SHARD_LABEL);
    let Some(deployment) = deployments.iter().find(|deployment| shard_of(deployment).as_ref() == shard) else {
        let whose = shard.map_or_else(|| "accounts without a shard".to_owned(), |shard| format!("the shard {shard}"));
        let object = Object::within("Deployment", &scene.operator_namespace, "helpdesk-operator");
        let says = format!("no Deployment of an operator for {whose} is there");
        let remedy =
            "install the chart, or correct the account's label helpdesk-operator.io/shard; --operator-namespace names another namespace";
        return vec![Link::seen(object, says).remedy(remedy)];
    };
    let (namespace, instance) = (deployment.namespace(), deployment.labels().get("app.kubernetes.io/instance"));
    let is_its = |pod: &&Pod| pod.namespace() == namespace && pod.labels().get("app.kubernetes.io/instance") == instance;
    let pod = scene.operator.pods.all().iter().filter(is_its).find_map(|pod| of_pod(scene, pod));
    pods::of_deployment(deployment).into_iter().chain(pod).collect()
}

/// The shard that an operator looks after, by its arguments.
fn shard_of(deployment: &Deployment) -> Option<String> {
    let containers = &deployment.spec.as_ref()?.template.spec.as_ref()?.containers;
    let mut arguments = containers.iter().flat_map(|container| container.args.iter().flatten());
    arguments.find_map(|argument| argument.strip_prefix("--shard=").map(str::to_owned))
}

/// What is wrong with a pod of the operator, in the words of its event, which names every obstacle.
fn of_pod(scene: &Scene, pod: &Pod) -> Option<Link> {
    let link = pods::of_pod(pod)?;
    let name = pod.name_any();
    let about = scene.operator.events.all().iter().filter(|event| event.regarding.as_ref().and_then(|r| r.name.as_ref()) == Some(&name));
    let newest = about.max_by_key(|event| (event.series.as_ref().map(|s| s.last_observed_time.0), event.event_time.as_ref().map(|t| t.0)));
    match newest.and_then(|event| event.note.clone()) {
        Some(note) if link.says.starts_with("it is not ready") => Some(Link {
            reason: Some("NotReady".into()),
            says: note,
            remedy: Some("read what keeps an operator from being Ready (docs/operations.md#an-operator-that-is-not-ready)".into()),
            ..link
        }),
        _ => Some(link),
    }
}
