//! What a plan names and nobody has. Pure.

use std::collections::BTreeMap;

use crate::{
    api::{
        HelpDeskPlanSpec,
        conditions::{Finding, Type},
        plan::{Extension, PlanPlacement},
    },
    backup::schedule,
    clock::Moment,
    database::extensions,
};

/// What the cluster has of what a plan names.
#[derive(Default)]
pub(super) struct Present {
    /// The extensions that the class lists; `None`: there is no class of that name.
    pub class: Option<Vec<Extension>>,
    /// The region of every store.
    pub stores: BTreeMap<String, String>,
    /// Every server.
    pub servers: Vec<Server>,
    /// Why a placement's Gateway cannot be used, by region.
    pub gateways: BTreeMap<String, String>,
    /// Why a placement's issuer issues nothing, by region.
    pub issuers: BTreeMap<String, String>,
}

/// A database server.
pub(super) struct Server {
    pub name: String,
    pub region: String,
    /// Extensions that plans list and the server does not offer.
    pub missing_extensions: Vec<String>,
}

/// The plan's condition Ready: everything that it names is there, or the reason of the first thing that is not, and all of
/// them in the message.
pub(super) fn ready(plan: &HelpDeskPlanSpec, present: &Present, now: Moment) -> Finding {
    let mut missing: Vec<(&'static str, String)> = vec![];
    if let Err(error) = schedule::due(&plan.backups.schedule, "", now, now) {
        missing.push(("ScheduleInvalid", format!("spec.backups.schedule: {error}")));
    }
    if let Some(class) = plan.class.as_ref().filter(|_| present.class.is_none()) {
        missing.push(("NoClass", format!("spec.class: there is no HelpDeskClass {class}; create it, or correct the name")));
    }
    let of_class = present.class.as_deref().unwrap_or_default();
    let wanted = extensions::union(&plan.database.extensions, of_class);
    for placement in &plan.placements {
        let at = format!("the placement in {}", placement.region);
        missing.extend(of_placement(placement, &wanted, present).into_iter().map(|(reason, why)| (reason, format!("{at}: {why}"))));
    }
    match missing.first() {
        None => Finding::yes(Type::Ready, "Resolved", "everything that the plan names is there"),
        Some((reason, _)) => {
            let all: Vec<String> = missing.iter().map(|(_, why)| why.clone()).collect();
            Finding::no(Type::Ready, *reason, all.join("; "))
        }
    }
}

fn of_placement(placement: &PlanPlacement, wanted: &[Extension], present: &Present) -> Vec<(&'static str, String)> {
    let PlanPlacement { region, store, .. } = placement;
    let mut missing = vec![];
    match present.stores.get(store) {
        None => missing.push(("NoStore", format!("there is no BackupStore {store}; create it, or correct the name"))),
        Some(other) if other != region => {
            missing.push(("StoreElsewhere", format!("BackupStore {store} is in region {other}; name one of this region")));
        }
        Some(_) => {}
    }
    let servers: Vec<&Server> = present.servers.iter().filter(|server| server.region == *region).collect();
    if servers.is_empty() {
        missing.push(("NoServer", "no DatabaseServer is in this region; create one, or correct the region".to_owned()));
    }
    for server in servers {
        let lacks = |extension: &&Extension| server.missing_extensions.contains(&extension.name);
        let names: Vec<&str> = wanted.iter().filter(lacks).map(|extension| extension.name.as_str()).collect();
        if !names.is_empty() {
            let (server, names) = (&server.name, names.join(", "));
            let why = format!("DatabaseServer {server} does not offer the extension {names}; its condition ExtensionsMissing says why");
            missing.push(("ExtensionsMissing", why));
        }
    }
    missing.extend(present.gateways.get(region).map(|why| ("GatewayUnusable", why.clone())));
    missing.extend(present.issuers.get(region).map(|why| ("IssuerUnusable", why.clone())));
    missing
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plan(change: serde_json::Value) -> HelpDeskPlanSpec {
        let mut spec = json!({"class": "desk", "database": {"extensions": [{"name": "vector"}]},
            "placements": [{"region": "eu-1", "store": "eu-cold", "domainBase": "helpdesk.example"}]});
        for (key, value) in change.as_object().unwrap() {
            spec[key] = value.clone();
        }
        serde_json::from_value(spec).unwrap()
    }

    fn all() -> Present {
        Present {
            class: Some(vec![]),
            stores: [("eu-cold".to_owned(), "eu-1".to_owned())].into(),
            servers: vec![Server { name: "pg".into(), region: "eu-1".into(), missing_extensions: vec![] }],
            ..Present::default()
        }
    }

    fn told(plan: &HelpDeskPlanSpec, present: &Present) -> (String, String) {
        let ready = ready(plan, present, "2026-11-23T10:00:00Z".parse().unwrap());
        assert_eq!(ready.holds, Some(ready.reason == "Resolved"));
        (ready.reason, ready.message)
    }

    #[test]
    fn what_nobody_has_is_named_with_its_field_or_its_region() {
        let plain = plan(json!({}));
        assert_eq!(told(&plain, &all()).0, "Resolved");
        let cases: [(Present, &str, &str); 7] = [
            (Present { class: None, ..all() }, "NoClass", "spec.class: there is no HelpDeskClass desk"),
            (Present { stores: BTreeMap::new(), ..all() }, "NoStore", "the placement in eu-1: there is no BackupStore eu-cold"),
            (Present { stores: [("eu-cold".into(), "us-1".into())].into(), ..all() }, "StoreElsewhere", "is in region us-1"),
            (Present { servers: vec![], ..all() }, "NoServer", "no DatabaseServer is in this region"),
            (
                Present {
                    servers: vec![Server { name: "pg".into(), region: "eu-1".into(), missing_extensions: vec!["vector".into()] }],
                    ..all()
                },
                "ExtensionsMissing",
                "DatabaseServer pg does not offer the extension vector",
            ),
            (Present { gateways: [("eu-1".into(), "Gateway a/b does not exist".into())].into(), ..all() }, "GatewayUnusable", "a/b"),
            (Present { issuers: [("eu-1".into(), "ClusterIssuer x does not exist".into())].into(), ..all() }, "IssuerUnusable", "x"),
        ];
        for (present, reason, text) in cases {
            let (found, message) = told(&plain, &present);
            assert!(found == reason && message.contains(text), "{found}: {message}");
        }
    }

    #[test]
    fn everything_that_is_missing_is_in_one_message() {
        let (reason, message) = told(&plan(json!({})), &Present::default());
        assert_eq!(reason, "NoClass");
        assert!(message.contains("BackupStore eu-cold") && message.contains("no DatabaseServer"), "{message}");
    }

    #[test]
    fn an_extension_that_only_another_plan_lists_is_not_missed() {
        let without = plan(json!({"database": {}}));
        let server = Server { name: "pg".into(), region: "eu-1".into(), missing_extensions: vec!["vector".into()] };
        assert_eq!(told(&without, &Present { servers: vec![server], ..all() }).0, "Resolved");
    }

    #[test]
    fn a_schedule_that_never_comes_is_told() {
        for cron in ["0 0 30 2 *", "0 0 * * SAT-MON"] {
            assert_eq!(told(&plan(json!({"backups": {"schedule": cron}})), &all()).0, "ScheduleInvalid", "{cron}");
        }
    }
}
