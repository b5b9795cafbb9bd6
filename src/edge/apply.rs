//! Applies the objects of a site, and reads whether the gateway accepted them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions, ValidationDirective},
    core::DynamicObject,
};
use serde_json::{Value, json};

use super::{
    error::Error,
    objects::{Kind, Objects, condition},
    site::Wanted,
};
use crate::api::{ACCOUNT_LABEL, ACCOUNT_UID};
use crate::clock::Moment;
use crate::cluster::{ClusterError, During};
use crate::object_diff::contains;

/// The account to which objects belong.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// The account's name, for the label by which they are found.
    pub account: &'a str,
    /// The account's uid: the ownership marker.
    pub uid: &'a str,
}

/// The result of [`apply`].
#[derive(Debug, Default)]
pub struct Applied {
    /// How many objects were written or deleted.
    pub changes: usize,
    /// Objects that the API server refused.
    pub refused: Vec<Refused>,
}

/// What the API server said of an object that it refused, for people.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// The definitions that are installed do not know a field (400).
    Unknown(String),
    /// A value is not allowed (422).
    Invalid(String),
}

/// Applies the wanted objects in their order, and then deletes the owner's objects that are not wanted.
///
/// # Errors
/// A request to the API server failed, or an object of that name belongs to another owner.
pub async fn apply(client: &Client, objects: &Objects, owner: Owner<'_>, wanted: &[Wanted]) -> Result<Applied, Error> {
    let mut applied = Applied::default();
    for one in wanted {
        let found = objects.get(one.kind, Some(&one.namespace), &one.name);
        if let Some(found) = &found {
            if found.annotations().get(ACCOUNT_UID).is_none_or(|uid| uid != owner.uid) {
                return Err(Error::Foreign(format!("{} {}/{}", one.kind.resource().kind, one.namespace, one.name)));
            }
            if objects.is_current(one.kind, found) && is_up_to_date(one, found, owner) {
                continue;
            }
        }
        match write(client, owner, one).await {
            Ok(written) => {
                objects.wrote(one.kind, &written);
                applied.changes += 1;
            }
            Err(kube::Error::Api(answer)) if matches!(answer.code, 400 | 422) => {
                let what = format!("{} {}: {}", one.kind.resource().kind, one.name, answer.message);
                applied.refused.push(if answer.code == 400 { Refused::Unknown(what) } else { Refused::Invalid(what) });
            }
            Err(error) => return Err(ClusterError::new("write an object of the edge", error).into()),
        }
    }
    let is_wanted = |o: &DynamicObject, kind| {
        wanted.iter().any(|w| w.kind == kind && Some(&w.namespace) == o.namespace().as_ref() && w.name == o.name_any())
    };
    for (kind, unwanted) in of(objects, owner).into_iter().filter(|(kind, o)| !is_wanted(o, *kind)) {
        delete(client, kind, &unwanted).await?;
        objects.deleted(kind, &unwanted);
        applied.changes += 1;
    }
    Ok(applied)
}

/// Every cached object of the owner.
pub fn of(objects: &Objects, owner: Owner<'_>) -> Vec<(Kind, Arc<DynamicObject>)> {
    // Routes come first, so that nothing is published any more while the policies are deleted.
    objects.of_owner(owner.uid)
}

/// The host names of the owner's routes.
pub fn published_hosts(objects: &Objects, owner: Owner<'_>) -> BTreeSet<String> {
    let routes = of(objects, owner).into_iter().filter(|(kind, _)| *kind == Kind::HttpRoute);
    let hosts = |route: &DynamicObject| route.data["spec"]["hostnames"].as_array().cloned().unwrap_or_default();
    routes.flat_map(|(_, route)| hosts(&route)).filter_map(|host| host.as_str().map(str::to_owned)).collect()
}

/// Lists the owner's routes and listeners in its namespace from the API server, not from a cache. The list includes
/// objects that are being deleted, because they may still publish something.
///
/// # Errors
/// A request to the API server failed; whether anything is published is unknown then.
pub async fn still_published(client: &Client, owner: Owner<'_>, namespace: &str) -> Result<Vec<String>, Error> {
    let mut published = vec![];
    for kind in [Kind::HttpRoute, Kind::ListenerSet] {
        let resource = kind.resource();
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        let found = match api.list(&ListParams::default().labels(ACCOUNT_LABEL)).await {
            Ok(found) => found.items,
            // The CRD is not installed, so there are no such objects.
            Err(kube::Error::Api(answer)) if answer.code == 404 => vec![],
            Err(error) => return Err(ClusterError::new("read back what is published", error).into()),
        };
        let is_owned = |o: &&DynamicObject| o.annotations().get(ACCOUNT_UID).is_some_and(|uid| uid == owner.uid);
        published.extend(found.iter().filter(is_owned).map(|o| format!("{} {}", resource.kind, o.name_any())));
    }
    Ok(published)
}

async fn write(client: &Client, owner: Owner<'_>, wanted: &Wanted) -> Result<DynamicObject, kube::Error> {
    let resource = wanted.kind.resource();
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &wanted.namespace, &resource);
    let mut applied = json!({
        "apiVersion": resource.api_version, "kind": resource.kind,
        "metadata": {"name": wanted.name, "labels": labels(owner), "annotations": {ACCOUNT_UID: owner.uid, APPLIED: digest(&wanted.spec)}},
        "spec": wanted.spec,
    });
    if let Some(before) = wanted.end_connections_before {
        applied["metadata"]["annotations"][END_CONNECTIONS_BEFORE] = json!(before.to_string());
    }
    // Strict: otherwise the API server drops a field that the installed CRD does not have, and with it a policy.
    let params =
        PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::apply("helpdesk-operator-edge").force() };
    tracing::debug!(kind = resource.kind, namespace = wanted.namespace, name = wanted.name, "writing an object of the edge");
    api.patch(&wanted.name, &params, &Patch::Apply(applied)).await
}

async fn delete(client: &Client, kind: Kind, object: &DynamicObject) -> Result<(), Error> {
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &kind.resource());
    let params =
        DeleteParams { preconditions: Some(Preconditions { uid: object.uid(), resource_version: None }), ..DeleteParams::default() };
    match api.delete(&object.name_any(), &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => Ok(()),
        other => Ok(other.map(drop).during("delete an object of the edge")?),
    }
}

fn labels(owner: Owner<'_>) -> BTreeMap<&'static str, &str> {
    BTreeMap::from([(ACCOUNT_LABEL, owner.account), ("app.kubernetes.io/managed-by", "helpdesk-operator")])
}

/// The annotation with a digest of the applied spec. It differs when a field is no longer wanted.
const APPLIED: &str = "helpdesk-operator.io/applied";

/// The annotation of [`Wanted::end_connections_before`].
const END_CONNECTIONS_BEFORE: &str = "helpdesk-operator.io/end-connections-before";

/// What is noted on an object of connections that are to be ended.
pub fn end_connections_before(found: &DynamicObject) -> Option<Moment> {
    found.annotations().get(END_CONNECTIONS_BEFORE)?.parse().ok()
}

fn digest(spec: &Value) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, spec.to_string().as_bytes());
    crate::digest::hex(&digest.as_ref()[..8])
}

/// Whether an object equals its desired state, so that it need not be written.
fn is_up_to_date(wanted: &Wanted, found: &DynamicObject, owner: Owner<'_>) -> bool {
    found.metadata.deletion_timestamp.is_none()
        && labels(owner).iter().all(|(key, value)| found.labels().get(*key).is_some_and(|v| v == value))
        && found.annotations().get(APPLIED) == Some(&digest(&wanted.spec))
        && end_connections_before(found) == wanted.end_connections_before
        && contains(&found.data["spec"], &wanted.spec)
}

/// Whether the gateway accepted an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// The gateway accepted the object in its present generation.
    Accepted,
    /// The gateway has not reported on the object, or not on its present generation.
    Pending(String),
    /// The gateway rejected the object.
    Rejected(String),
}

/// Whether the gateway accepted all objects: the first rejection, or else the first pending one.
pub fn acceptance(objects: &Objects, wanted: &[Wanted]) -> Acceptance {
    let mut pending = None;
    for one in wanted {
        let what = format!("{} {}", one.kind.resource().kind, one.name);
        let Some(found) = objects.get(one.kind, Some(&one.namespace), &one.name) else {
            pending.get_or_insert(format!("{what} is not there yet"));
            continue;
        };
        if !objects.is_current(one.kind, &found) {
            pending.get_or_insert(format!("{what} was just written"));
            continue;
        }
        match acceptance_of(one.kind, &found, &one.spec) {
            Acceptance::Accepted => {}
            Acceptance::Pending(why) => {
                pending.get_or_insert(format!("{what}: {why}"));
            }
            Acceptance::Rejected(why) => return Acceptance::Rejected(format!("{what}: {why}")),
        }
    }
    pending.map_or(Acceptance::Accepted, Acceptance::Pending)
}

/// Whether the gateway accepted one object; `wanted` is its desired spec.
fn acceptance_of(kind: Kind, found: &DynamicObject, wanted: &Value) -> Acceptance {
    let status = &found.data["status"];
    let generation = found.metadata.generation.unwrap_or_default();
    match kind {
        Kind::HttpRoute => {
            let parents = status["parents"].as_array().cloned().unwrap_or_default();
            let about = |reference: &Value| {
                parents.iter().find(|p| ["kind", "name", "sectionName"].iter().all(|key| p["parentRef"][key] == reference[key])).cloned()
            };
            all(wanted["parentRefs"].as_array().into_iter().flatten().map(|reference| match about(reference) {
                Some(parent) => from_conditions(&parent["conditions"], &["Accepted", "ResolvedRefs"], generation),
                None => Acceptance::Pending("no gateway has looked at it; is it running?".into()),
            }))
        }
        Kind::ListenerSet => {
            let listeners = status["listeners"].as_array().cloned().unwrap_or_default();
            let parts =
                listeners.iter().map(|l| from_conditions(&l["conditions"], &["Accepted", "ResolvedRefs", "Programmed"], generation));
            all([from_conditions(&status["conditions"], &["Accepted"], generation)].into_iter().chain(parts))
        }
        Kind::SecurityPolicy | Kind::PlatformSecurityPolicy | Kind::ClientTrafficPolicy | Kind::BackendTrafficPolicy => {
            let ancestors = status["ancestors"].as_array().cloned().unwrap_or_default();
            if ancestors.is_empty() {
                return Acceptance::Pending("no gateway has looked at it; is it running?".into());
            }
            all(ancestors.iter().map(|a| from_conditions(&a["conditions"], &["Accepted"], generation)))
        }
        Kind::Certificate | Kind::HttpRouteFilter | Kind::ReferenceGrant | Kind::Gateway | Kind::GatewayClass | Kind::ClusterIssuer => {
            Acceptance::Accepted
        }
    }
}

fn all(parts: impl Iterator<Item = Acceptance>) -> Acceptance {
    let mut worst = Acceptance::Accepted;
    for acceptance in parts {
        match acceptance {
            Acceptance::Rejected(why) => return Acceptance::Rejected(why),
            Acceptance::Pending(why) if worst == Acceptance::Accepted => worst = Acceptance::Pending(why),
            Acceptance::Pending(_) | Acceptance::Accepted => {}
        }
    }
    worst
}

fn from_conditions(conditions: &Value, kinds: &[&str], generation: i64) -> Acceptance {
    all(kinds.iter().map(|kind| match condition(conditions, kind) {
        None => Acceptance::Pending(format!("the gateway has not said whether it is {kind}")),
        Some(c) if c["observedGeneration"].as_i64().is_some_and(|seen| seen < generation) => {
            Acceptance::Pending("the gateway has not looked at its present form".into())
        }
        Some(c) if c["status"] == "True" => Acceptance::Accepted,
        Some(c) => Acceptance::Rejected(format!("{}: {}", c["reason"].as_str().unwrap_or(kind), c["message"].as_str().unwrap_or_default())),
    }))
}

/// Whether the gateway accepted the owner's policy in some generation, and no ancestor rejects it now.
pub fn in_force(objects: &Objects, kind: Kind, namespace: &str, name: &str, owner: Owner<'_>) -> bool {
    objects.get(kind, Some(namespace), name).is_some_and(|found| {
        let ancestors = found.data["status"]["ancestors"].as_array().cloned().unwrap_or_default();
        found.annotations().get(ACCOUNT_UID).is_some_and(|uid| uid == owner.uid)
            && found.metadata.deletion_timestamp.is_none()
            && !ancestors.is_empty()
            && ancestors.iter().all(|a| from_conditions(&a["conditions"], &["Accepted"], 0) == Acceptance::Accepted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_server_filled_in_is_no_difference() {
        let wanted = json!({"rules": [{"name": "web", "backendRefs": [{"name": "web"}]}]});
        let found = json!({"rules": [{"name": "web", "matches": [], "backendRefs": [{"name": "web", "weight": 1}]}]});
        assert!(contains(&found, &wanted));
    }

    #[test]
    fn an_entry_that_was_added_by_hand_is_a_difference() {
        let wanted = json!({"clientCIDRs": ["10.0.0.0/8"]});
        assert!(!contains(&json!({"clientCIDRs": ["10.0.0.0/8", "0.0.0.0/0"]}), &wanted));
        assert!(!contains(&json!({"clientCIDRs": ["0.0.0.0/0"]}), &wanted));
        assert!(!contains(&json!({}), &wanted));
    }

    fn object(status: Value) -> DynamicObject {
        let mut object = DynamicObject::new("web", &Kind::SecurityPolicy.resource()).data(json!({"status": status}));
        object.metadata.generation = Some(2);
        object
    }

    fn policy(status: &str, generation: i64) -> DynamicObject {
        object(
            json!({"ancestors": [{"conditions": [{"type": "Accepted", "status": status, "reason": "Invalid", "message": "bad", "observedGeneration": generation}]}]}),
        )
    }

    #[test]
    fn a_policy_is_in_force_only_once_its_present_form_was_accepted() {
        let acceptance = |o: &DynamicObject| acceptance_of(Kind::SecurityPolicy, o, &json!({}));
        assert_eq!(acceptance(&policy("True", 2)), Acceptance::Accepted);
        assert!(matches!(acceptance(&policy("True", 1)), Acceptance::Pending(_)));
        assert_eq!(acceptance(&policy("False", 2)), Acceptance::Rejected("Invalid: bad".into()));
        assert!(matches!(acceptance(&object(json!({}))), Acceptance::Pending(_)));
    }

    #[test]
    fn a_route_is_accepted_only_by_all_its_parents() {
        let parent = |section: &str, status: &str| {
            json!({"parentRef": {"kind": "Gateway", "name": "edge", "sectionName": section},
            "conditions": [{"type": "Accepted", "status": status, "message": "no", "reason": "NotAllowed", "observedGeneration": 2},
                {"type": "ResolvedRefs", "status": "True", "observedGeneration": 2}]})
        };
        let wanted = json!({"parentRefs": [{"kind": "Gateway", "name": "edge", "sectionName": "a"}, {"kind": "Gateway", "name": "edge", "sectionName": "b"}]});
        let acceptance = |parents: Value| acceptance_of(Kind::HttpRoute, &object(json!({"parents": parents})), &wanted);
        assert_eq!(acceptance(json!([parent("a", "True"), parent("b", "True")])), Acceptance::Accepted);
        assert!(matches!(acceptance(json!([parent("a", "True")])), Acceptance::Pending(_)));
        assert!(matches!(acceptance(json!([parent("a", "True"), parent("b", "False")])), Acceptance::Rejected(_)));
    }
}
