//! What each object behind an account says, down to what it refers to itself. Pure.

use kube::{Resource, ResourceExt};

use super::{
    chain::{Link, Object},
    pods,
    scene::Scene,
};
use crate::{
    api::{
        BackupStore, Condition, DatabaseServer,
        conditions::{self, HasConditions, Type},
    },
    cli::seen::Seen,
    edge::gateway,
};

/// The condition of this type, if it does not have the status that it should have.
pub(super) fn unless<'c>(all: &'c [Condition], kind: Type, wanted: &str) -> Option<&'c Condition> {
    all.iter().find(|condition| condition.type_ == kind.name() && condition.status != wanted)
}

/// The plan, and what it names.
pub(super) fn plan(scene: &Scene) -> Vec<Link> {
    let object = Object::of("HelpDeskPlan", &scene.account.spec.plan);
    let plan = match &scene.plan {
        Seen::There(plan) => plan,
        Seen::Missing => {
            let remedy = "create the plan, or correct spec.plan of the account";
            return vec![Link::seen(object, "it does not exist").remedy(remedy)];
        }
        Seen::Unseen(_) => return vec![],
    };
    if let Some(ready) = unless(plan.conditions(), Type::Ready, "True") {
        let below = match ready.reason.as_str() {
            "NoClass" => class(scene),
            "NoStore" => stores(scene).first().map(|name| store(scene, name)).unwrap_or_default(),
            "ExtensionsMissing" => server_condition(scene, Type::ExtensionsMissing),
            "GatewayUnusable" => gateway(scene),
            "IssuerUnusable" => issuer(scene),
            _ => vec![],
        };
        return std::iter::once(Link::told(object, ready)).chain(below).collect();
    }
    if scene.placement().is_none() {
        let region = &scene.account.spec.region;
        let remedy = format!("add a placement in region {region} to the plan, or give the account another plan");
        return vec![Link::seen(object, format!("it has no placement in region {region}")).remedy(remedy)];
    }
    vec![]
}

/// The class that the plan names.
pub(super) fn class(scene: &Scene) -> Vec<Link> {
    let Some(name) = scene.plan.there().and_then(|plan| plan.spec.class.clone()) else { return vec![] };
    let object = Object::of("HelpDeskClass", name);
    match &scene.class {
        Some(Seen::Missing) => {
            vec![Link::seen(object, "it does not exist").remedy("create the class, or correct spec.class of the plan")]
        }
        Some(Seen::There(class)) => {
            let stalled = conditions::find(class.conditions(), Type::Stalled);
            let wrong = stalled.or_else(|| unless(class.conditions(), Type::Ready, "True").filter(|ready| ready.reason != "Upgrading"));
            wrong.map(|condition| Link::told(object, condition)).into_iter().collect()
        }
        Some(Seen::Unseen(_)) | None => vec![],
    }
}

/// The Secret with the owner.
pub(super) fn owner(scene: &Scene) -> Vec<Link> {
    scene.account.spec.owner.secret_ref.iter().filter_map(|secret| missing_secret(scene, &secret.namespace, &secret.name)).collect()
}

/// A Secret that is not there.
pub(super) fn missing_secret(scene: &Scene, namespace: &str, name: &str) -> Option<Link> {
    let seen = scene.secrets.get(&(namespace.to_owned(), name.to_owned()))?;
    seen.is_missing().then(|| Link::seen(Object::within("Secret", namespace, name), "it does not exist"))
}

/// The name of the operator's Secret of the tenant.
pub(super) fn login_name(scene: &Scene) -> Option<String> {
    let database = &scene.account.status.as_ref()?.database.as_ref()?.name;
    Some(database.replacen("t_", "login-", 1))
}

/// The operator's Secret of the tenant, with the secrets of its app.
pub(super) fn login(scene: &Scene) -> Vec<Link> {
    let missing = login_name(scene).and_then(|name| missing_secret(scene, &scene.operator_namespace, &name));
    missing.into_iter().collect()
}

/// The servers of the region, for an account that has none.
pub(super) fn region(scene: &Scene) -> Vec<Link> {
    let has_server = scene.account.status.as_ref().is_some_and(|status| status.database.is_some());
    let Some(all) = scene.servers.there().filter(|_| !has_server) else { return vec![] };
    let region = &scene.account.spec.region;
    let of_region: Vec<&DatabaseServer> = all.iter().filter(|server| server.spec.region == *region).collect();
    if of_region.is_empty() {
        let object = Object::of("DatabaseServer", format!("(any in region {region})"));
        return vec![
            Link::seen(object, format!("there is none in region {region}")).remedy("create one, or correct spec.region of the account"),
        ];
    }
    let wrong = of_region.iter().map(|one| server(scene, &one.name_any())).find(|links| !links.is_empty());
    wrong.unwrap_or_else(|| of_region.iter().find_map(|server| without_room(server)).into_iter().collect())
}

fn without_room(server: &DatabaseServer) -> Option<Link> {
    let object = Object::of("DatabaseServer", server.name_any());
    let tenants = server.status.as_ref().and_then(|status| status.tenants).unwrap_or(0);
    if server.spec.draining {
        return Some(Link::seen(object, "it is draining, and gets no new tenants").remedy("set spec.draining to false, or add a server"));
    }
    let full = tenants >= server.spec.capacity;
    full.then(|| {
        let says = format!("it is full: {tenants} tenants of {}", server.spec.capacity);
        Link::seen(object, says).remedy("raise spec.capacity, or add a server")
    })
}

/// The account's server; of an account that has none, those of its region.
pub(super) fn own_server(scene: &Scene) -> Vec<Link> {
    let name = scene.account.status.as_ref().and_then(|status| status.database.as_ref()).map(|database| database.server.clone());
    name.map_or_else(|| region(scene), |name| server(scene, &name))
}

fn named<'s, K: ResourceExt>(all: &'s Seen<Vec<K>>, name: &str) -> Seen<&'s K> {
    match all {
        Seen::There(all) => all.iter().find(|object| object.name_any() == name).map_or(Seen::Missing, Seen::There),
        Seen::Missing => Seen::Missing,
        Seen::Unseen(why) => Seen::Unseen(why.clone()),
    }
}

/// What is wrong with an object that is there: it is not ready, or one of these Secrets that it names is missing.
fn unready<'s>(scene: &Scene, object: Object, all: &[Condition], secrets: impl IntoIterator<Item = &'s String>) -> Vec<Link> {
    let missing = secrets.into_iter().find_map(|secret| missing_secret(scene, &scene.operator_namespace, secret));
    match (unless(all, Type::Ready, "True"), missing) {
        (Some(ready), missing) => std::iter::once(Link::told(object, ready)).chain(missing).collect(),
        // The operator has not looked since the Secret went.
        (None, Some(missing)) => {
            let remedy = "create it again, as whoever keeps these credentials has them; its keys are described in the field that names it";
            vec![Link::seen(object, "it names a Secret that is not there"), missing.remedy(remedy)]
        }
        (None, None) => vec![],
    }
}

/// A server, and the Secrets that it names.
pub(super) fn server(scene: &Scene, name: &str) -> Vec<Link> {
    let object = Object::of("DatabaseServer", name);
    match named(&scene.servers, name) {
        Seen::There(server) => {
            let secrets = [Some(&server.spec.admin_secret), server.spec.tls.ca_secret.as_ref()];
            unready(scene, object, server.conditions(), secrets.into_iter().flatten())
        }
        Seen::Missing => {
            let remedy = "apply its manifest again, as it was: the data is still on that server";
            vec![Link::seen(object, "it does not exist").remedy(remedy)]
        }
        Seen::Unseen(_) => vec![],
    }
}

/// A condition of the account's server that holds although it should not.
pub(super) fn server_condition(scene: &Scene, kind: Type) -> Vec<Link> {
    let name = scene.account.status.as_ref().and_then(|status| status.database.as_ref()).map(|database| database.server.clone());
    let Some(name) = name else { return vec![] };
    let found = named(&scene.servers, &name);
    let holds = found.there().and_then(|server| conditions::find(server.conditions(), kind));
    let link = holds.map(|condition| {
        let link = Link::told(Object::of("DatabaseServer", &name), condition);
        let look = format!("look first, then release it: kubectl helpdesk brake status {name} (docs/operations.md#the-brake-holds)");
        if kind == Type::Braked { link.remedy(look) } else { link }
    });
    link.into_iter().collect()
}

/// The stores that the account needs: of its plan, and of its backups that exist.
pub(super) fn stores(scene: &Scene) -> Vec<String> {
    let of_backups = scene.backups.all().iter().map(|backup| backup.spec.store.clone());
    let mut names: Vec<String> = scene.placement().map(|placement| placement.store.clone()).into_iter().chain(of_backups).collect();
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names.sort_by_key(|name| store(scene, name).is_empty());
    names
}

/// A store, the store that keeps its keys, and the Secrets that they name.
pub(super) fn store(scene: &Scene, name: &str) -> Vec<Link> {
    match named(&scene.stores, name) {
        Seen::There(found) => {
            let own = store_alone(scene, found);
            let is_escrow = own.first().is_none_or(|link| link.reason.as_deref() == Some("NoEscrow"));
            let escrow = found.spec.key_escrow.as_ref().filter(|_| is_escrow).map(|escrow| escrow_of(scene, &escrow.store));
            match (own, escrow.unwrap_or_default()) {
                (own, escrow) if own.is_empty() && !escrow.is_empty() => {
                    let names =
                        Link::seen(Object::of("BackupStore", name), "the store that keeps the second copies of its keys is not usable");
                    std::iter::once(names).chain(escrow).collect()
                }
                (own, escrow) => own.into_iter().chain(escrow).collect(),
            }
        }
        Seen::Missing => vec![missing_store(name)],
        Seen::Unseen(_) => vec![],
    }
}

fn missing_store(name: &str) -> Link {
    Link::seen(Object::of("BackupStore", name), "it does not exist").remedy("create it as it was, or correct the name in the plan")
}

fn escrow_of(scene: &Scene, name: &str) -> Vec<Link> {
    match named(&scene.stores, name) {
        Seen::There(escrow) => store_alone(scene, escrow),
        Seen::Missing => vec![missing_store(name)],
        Seen::Unseen(_) => vec![],
    }
}

fn store_alone(scene: &Scene, store: &BackupStore) -> Vec<Link> {
    let spec = &store.spec;
    let secrets = [Some(&spec.credentials_secret), spec.erase_credentials_secret.as_ref(), spec.ca_secret.as_ref()];
    unready(scene, Object::of("BackupStore", store.name_any()), store.conditions(), secrets.into_iter().flatten())
}

/// The Gateway of the placement.
pub(super) fn gateway(scene: &Scene) -> Vec<Link> {
    let Some(placement) = scene.placement() else { return vec![] };
    let Some(wanted) = &placement.gateway else { return vec![] };
    let object = Object::within("Gateway", &wanted.namespace, &wanted.name);
    match &scene.gateway {
        Some(Seen::There(found)) => {
            let refusal = gateway::refusal_of(found, wanted, &placement.domain_base);
            refusal
                .map(|why| Link::seen(object, why).remedy("see to the Gateway, and to the controller of its class"))
                .into_iter()
                .collect()
        }
        Some(Seen::Missing) => {
            let remedy = "create it, or correct the placement of the plan; where no Gateway API is installed, install it";
            vec![Link::seen(object, "it does not exist").remedy(remedy)]
        }
        Some(Seen::Unseen(_)) | None => vec![],
    }
}

/// The issuer of the placement.
pub(super) fn issuer(scene: &Scene) -> Vec<Link> {
    let Some(name) = scene.placement().and_then(|placement| placement.certificate_issuer.as_ref()).map(|issuer| &issuer.name) else {
        return vec![];
    };
    let is_missing = scene.issuer.as_ref().is_some_and(Seen::is_missing);
    let link =
        || Link::seen(Object::of("ClusterIssuer", name), "it does not exist").remedy("create it, or correct the placement of the plan");
    is_missing.then(link).into_iter().collect()
}

/// The tenant's namespace.
pub(super) fn namespace(scene: &Scene) -> Vec<Link> {
    let Some(name) = scene.account.status.as_ref().and_then(|status| status.namespace.as_ref()).map(|namespace| &namespace.name) else {
        return vec![];
    };
    let link = match &scene.namespace {
        Some(Seen::There(namespace)) if namespace.meta().deletion_timestamp.is_some() => pods::of_namespace(namespace),
        Some(Seen::Missing) => {
            let remedy = "the operator makes it again by itself while it works and the account is open";
            Some(Link::seen(Object::of("Namespace", name), "it does not exist").remedy(remedy))
        }
        _ => None,
    };
    link.into_iter().collect()
}
