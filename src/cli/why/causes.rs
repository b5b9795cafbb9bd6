//! **The rule**: from an account, and what it refers to, to the first causes of what is wrong with it. Pure.

use kube::{Resource, ResourceExt};

use super::{
    backups,
    chain::{Cause, Link, Object},
    objects, operator, pods,
    rules::{Behind, behind, passes},
    scene::Scene,
};
use crate::{
    api::{CONFIRM_DELETE, Condition, conditions::Type, deletion_is_confirmed},
    cli::matters::matters,
};

/// Conditions in the order in which they are explained: what needs a person first, what is waited for last.
const ORDER: [Type; 14] = [
    Type::Stalled,
    Type::Overdue,
    Type::Unprovable,
    Type::AppReady,
    Type::EdgeReady,
    Type::DatabaseReady,
    Type::BlockEnforced,
    Type::Ready,
    Type::BackupsCurrent,
    Type::RequirementsUnmet,
    Type::ExtensionsMissing,
    Type::QuotaExceeded,
    Type::CertificateExpires,
    Type::Reconciling,
];

/// What an account refers to, whatever its conditions say.
const REFERENCES: [Behind; 11] = [
    Behind::Plan,
    Behind::Class,
    Behind::Owner,
    Behind::Region,
    Behind::Server,
    Behind::Brake,
    Behind::Store,
    Behind::Backups,
    Behind::Gateway,
    Behind::Issuer,
    Behind::Pods,
];

/// Everything that is wrong with an account, each with the way to its first cause. What does not pass by itself comes first.
pub(super) fn causes(scene: &Scene) -> Vec<Cause> {
    let mut found = Vec::new();
    found.extend(definitions(scene));
    found.extend(unattended(scene));
    found.extend(deletion(scene));
    found.extend(conditions(scene));
    for reference in REFERENCES {
        let links = links(scene, reference);
        if let Some(first) = links.first() {
            let names = Link::seen(account(scene), format!("it depends on {}", first.object));
            found.push(Cause { chain: std::iter::once(names).chain(links).collect(), passes: false });
        }
    }
    let mut each: Vec<Cause> = Vec::new();
    for cause in found {
        if !each.iter().any(|known| known.is_same(&cause)) {
            each.push(cause);
        }
    }
    each.sort_by_key(|cause| cause.passes);
    each
}

/// What is wrong with what may be behind a condition, from the object itself down to the first cause; empty: nothing that
/// could be seen.
fn links(scene: &Scene, behind: Behind) -> Vec<Link> {
    match behind {
        Behind::Plan => objects::plan(scene),
        Behind::Class => objects::class(scene),
        Behind::Owner => objects::owner(scene),
        Behind::Region => objects::region(scene),
        Behind::Server => objects::own_server(scene),
        Behind::Brake => objects::server_condition(scene, Type::Braked),
        Behind::Extensions => objects::server_condition(scene, Type::ExtensionsMissing),
        Behind::Store => objects::stores(scene).first().map(|name| objects::store(scene, name)).unwrap_or_default(),
        Behind::Backups => backups::links(scene),
        Behind::Gateway => objects::gateway(scene),
        Behind::Issuer => objects::issuer(scene),
        Behind::Namespace => objects::namespace(scene),
        Behind::Pods => scene.pods.all().iter().find_map(pods::of_pod).into_iter().collect(),
        Behind::Login => objects::login(scene),
    }
}

fn account(scene: &Scene) -> Object {
    Object::of("HelpDeskAccount", scene.account.name_any())
}

/// Definitions that are not there: nothing can be known of what they define.
fn definitions(scene: &Scene) -> Option<Cause> {
    let missing = scene.missing_definitions.there()?.first()?;
    let link = Link::seen(Object::of("CustomResourceDefinition", missing), "it is not installed, or not established");
    let remedy = "install the definitions: helm upgrade --install with the chart that the operator is of";
    let names = Link::seen(account(scene), "the operator works with definitions that are not there");
    Some(Cause { chain: vec![names, link.remedy(remedy)], passes: false })
}

/// That no operator looks after the account.
fn unattended(scene: &Scene) -> Option<Cause> {
    let links = operator::links(scene);
    if links.is_empty() {
        return None;
    }
    let generation = scene.account.metadata.generation;
    let observed = scene.account.status.as_ref().and_then(|status| status.observed_generation);
    let says = match (observed, generation) {
        (None, _) => "no operator has looked at it yet".to_owned(),
        (Some(observed), Some(generation)) if observed != generation => {
            format!("its status describes generation {observed}, and its spec is of generation {generation}")
        }
        _ => "its status may be old: nobody brings it up to date".to_owned(),
    };
    Some(Cause { chain: std::iter::once(Link::seen(account(scene), says)).chain(links).collect(), passes: false })
}

/// That the object is being deleted.
fn deletion(scene: &Scene) -> Option<Cause> {
    scene.account.meta().deletion_timestamp.as_ref()?;
    let finalizers = scene.account.finalizers().join(", ");
    let is_confirmed = deletion_is_confirmed(&scene.account);
    let says = if is_confirmed {
        format!(
            "it is being deleted, and the deletion was confirmed: it is blocked, backed up, and its database dropped; the object stays until then by its finalizer {finalizers}"
        )
    } else {
        format!("it is being deleted without the annotation {CONFIRM_DELETE}: its finalizer {finalizers} is removed, and all data stays")
    };
    Some(Cause { chain: vec![Link::seen(account(scene), says)], passes: true })
}

/// What the conditions of the account say, each followed to what is behind it.
fn conditions(scene: &Scene) -> Vec<Cause> {
    let status = scene.account.status.clone().unwrap_or_default();
    let is_wrong = |condition: &&Condition| matters(condition, status.stage);
    let mut told: Vec<&Condition> = Vec::new();
    for kind in ORDER {
        let condition = status.conditions.iter().filter(is_wrong).find(|condition| condition.type_ == kind.name());
        // Ready repeats what a more specific condition says.
        let is_repeated = |condition: &&Condition| told.iter().any(|t| t.reason == condition.reason && t.message == condition.message);
        told.extend(condition.filter(|condition| !is_repeated(condition)));
    }
    let follow = |condition: &Condition| {
        let start = Link::told(account(scene), condition);
        let way = behind(&origin(&status.conditions, condition), &condition.reason).iter().map(|object| links(scene, *object));
        let below = way.into_iter().find(|links| !links.is_empty()).unwrap_or_default();
        let passes = passes(&condition.type_, &condition.reason) && below.is_empty();
        Cause { chain: std::iter::once(start).chain(below).collect(), passes }
    };
    told.into_iter().map(follow).collect()
}

/// The condition that a reason comes from: Ready and Stalled have the reasons of others.
fn origin(all: &[Condition], condition: &Condition) -> String {
    let repeats = matches!(condition.type_.as_str(), "Ready" | "Stalled");
    let source = all.iter().find(|other| {
        matches!(other.type_.as_str(), "AppReady" | "EdgeReady" | "DatabaseReady")
            && other.status != "True"
            && other.reason == condition.reason
            && other.message == condition.message
    });
    source.filter(|_| repeats).unwrap_or(condition).type_.clone()
}
