//! What an account that is not well depends on and is not well either: the objects that it waits for, with their own reasons.

use kube::{ResourceExt, runtime::reflector::ObjectRef};

use super::context::AccountContext;
use crate::{
    api::{
        Condition, HelpDeskAccount, HelpDeskAccountStatus,
        account::WaitingFor,
        conditions::{self, HasConditions, Type},
    },
    edge::objects::{Kind, condition},
};

/// The section of docs/operations.md about a kind.
const RUNBOOKS: &[(&str, &str)] = &[
    ("HelpDeskPlan", "helpdeskplan"),
    ("HelpDeskClass", "helpdeskclass"),
    ("DatabaseServer", "databaseserver"),
    ("BackupStore", "backupstore"),
    ("ColdBackup", "coldbackup"),
];

/// The section about accounts, for everything else.
const ACCOUNTS: &str = "helpdeskaccount";

/// An object that the account depends on.
struct Dependency {
    kind: &'static str,
    name: String,
    /// `None`: it does not exist.
    conditions: Option<Vec<Condition>>,
}

impl Dependency {
    fn of(kind: &'static str, name: &str, found: Option<&impl HasConditions>) -> Self {
        Self { kind, name: name.to_owned(), conditions: found.map(|object| object.conditions().to_vec()) }
    }
}

/// The objects that the account may wait for, none if it is well.
pub(super) fn objects(ctx: &AccountContext, account: &HelpDeskAccount, status: &HelpDeskAccountStatus) -> Vec<WaitingFor> {
    if is_well(&status.conditions) { Vec::new() } else { not_ready(dependencies(ctx, account, status)) }
}

/// Where the documents say what to do: in the section about the first object that is waited for, or else about accounts.
/// `None` if the account is well.
pub(super) fn runbook(base: &str, status: &HelpDeskAccountStatus) -> Option<String> {
    if is_well(&status.conditions) {
        return None;
    }
    let first = status.waiting_for.first().map_or("", |first| first.kind.as_str());
    let section = RUNBOOKS.iter().find(|(kind, _)| *kind == first).map_or(ACCOUNTS, |(_, section)| section);
    Some(format!("{base}docs/operations.md#{section}"))
}

fn is_well(all: &[Condition]) -> bool {
    let has = |kind: Type, status: &str| all.iter().any(|c| c.type_ == kind.name() && c.status == status);
    has(Type::Ready, "True") && !has(Type::Overdue, "True") && !has(Type::Stalled, "True") && !has(Type::BackupsCurrent, "False")
}

fn dependencies(ctx: &AccountContext, account: &HelpDeskAccount, status: &HelpDeskAccountStatus) -> Vec<Dependency> {
    let caches = &ctx.caches;
    let plan = caches.plans.get(&ObjectRef::new(&account.spec.plan));
    let mut all = vec![Dependency::of("HelpDeskPlan", &account.spec.plan, plan.as_deref())];
    if let Some(server) = status.database.as_ref().map(|database| &database.server) {
        all.push(Dependency::of("DatabaseServer", server, caches.servers.get(&ObjectRef::new(server)).as_deref()));
    }
    let Some(plan) = plan else { return all };
    if let Some(class) = &plan.spec.class {
        all.push(Dependency::of("HelpDeskClass", class, caches.classes.get(&ObjectRef::new(class)).as_deref()));
    }
    let Some(placement) = plan.spec.placements.iter().find(|placement| placement.region == account.spec.region) else { return all };
    all.push(Dependency::of("BackupStore", &placement.store, caches.stores.get(&ObjectRef::new(&placement.store)).as_deref()));
    if let Some(gateway) = &placement.gateway {
        let name = format!("{}/{}", gateway.namespace, gateway.name);
        let found = caches.edge.get(Kind::Gateway, Some(&gateway.namespace), &gateway.name);
        let conditions = found.as_ref().map(|gateway| {
            let told = condition(&gateway.data["status"]["conditions"], "Programmed").cloned().unwrap_or_default();
            serde_json::from_value::<Condition>(told).into_iter().collect()
        });
        all.push(Dependency { kind: "Gateway", name, conditions });
    }
    let uid = account.uid().unwrap_or_default();
    let backups = caches.backups.of_account_uid(&uid);
    let late = backups.iter().filter(|backup| backup.has(Type::Unprovable) || backup.has(Type::Overdue));
    all.extend(late.map(|backup| Dependency::of("ColdBackup", &backup.name_any(), Some(backup.as_ref()))));
    all
}

/// Those of the dependencies that do not exist, are not ready, or have tripped their brake.
fn not_ready(dependencies: Vec<Dependency>) -> Vec<WaitingFor> {
    /// What is shown of a message, in characters: the object itself has all of it.
    const SHOWN: usize = 300;
    let mut found = Vec::new();
    for Dependency { kind, name, conditions } in dependencies {
        let waits = |reason: &str, message: &str| WaitingFor {
            kind: kind.to_owned(),
            name: name.clone(),
            reason: reason.to_owned(),
            message: message.chars().take(SHOWN).collect(),
        };
        let Some(conditions) = conditions else {
            found.push(waits("NotFound", &format!("there is no {kind} {name}")));
            continue;
        };
        let ready = conditions.iter().find(|c| matches!(c.type_.as_str(), "Ready" | "Programmed"));
        // Of a class, Unknown is an upgrade that goes on.
        let is_upgrade = |c: &Condition| kind == "HelpDeskClass" && c.status == "Unknown";
        match ready {
            Some(ready) if ready.status != "True" && !is_upgrade(ready) => found.push(waits(&ready.reason, &ready.message)),
            _ => {}
        }
        let others = [Type::Braked, Type::Unprovable, Type::Overdue];
        if let Some(other) = others.iter().find_map(|kind| conditions::find(&conditions, *kind))
            && ready.is_none_or(|ready| ready.status == "True")
        {
            found.push(waits(&other.reason, &other.message));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Time;

    fn condition(kind: &str, status: &str, reason: &str) -> Condition {
        Condition {
            type_: kind.into(),
            status: status.into(),
            reason: reason.into(),
            message: format!("{reason} in words"),
            observed_generation: None,
            last_transition_time: Time("2026-01-01T00:00:00Z".parse().unwrap()),
        }
    }

    fn dependency(kind: &'static str, conditions: Option<Vec<Condition>>) -> Dependency {
        Dependency { kind, name: "x".into(), conditions }
    }

    #[test]
    fn an_object_that_is_missing_not_ready_or_braked_is_named_with_its_own_reason() {
        let found = not_ready(vec![
            dependency("HelpDeskPlan", None),
            dependency("DatabaseServer", Some(vec![condition("Ready", "False", "Unreachable")])),
            dependency(
                "DatabaseServer",
                Some(vec![condition("Ready", "True", "Connected"), condition("Braked", "True", "TooManyDeletions")]),
            ),
            dependency("HelpDeskClass", Some(vec![condition("Ready", "Unknown", "Upgrading")])),
            dependency("BackupStore", Some(vec![condition("Ready", "True", "Connected")])),
            dependency("Gateway", Some(vec![condition("Programmed", "False", "AddressNotAssigned")])),
        ]);
        let told: Vec<_> = found.iter().map(|w| (w.kind.as_str(), w.reason.as_str())).collect();
        let expected = [
            ("HelpDeskPlan", "NotFound"),
            ("DatabaseServer", "Unreachable"),
            ("DatabaseServer", "TooManyDeletions"),
            ("Gateway", "AddressNotAssigned"),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn the_runbook_is_the_one_of_the_first_cause_and_there_is_none_for_who_is_well() {
        let status = |conditions, waiting_for| HelpDeskAccountStatus { conditions, waiting_for, ..HelpDeskAccountStatus::default() };
        let server = WaitingFor { kind: "DatabaseServer".into(), name: "pg".into(), reason: "Unreachable".into(), message: String::new() };
        let ill = vec![condition("Ready", "Unknown", "Unreachable")];
        let link = runbook("https://git.example/", &status(ill.clone(), vec![server]));
        assert_eq!(link.as_deref(), Some("https://git.example/docs/operations.md#databaseserver"));
        assert_eq!(runbook("", &status(ill, vec![])).as_deref(), Some("docs/operations.md#helpdeskaccount"));
        assert_eq!(runbook("", &status(vec![condition("Ready", "True", "Open")], vec![])), None);
        let overdue = vec![condition("Ready", "True", "Closed"), condition("Overdue", "True", "Brake")];
        assert!(runbook("", &status(overdue, vec![])).is_some());
    }
}
