//! `orphans`: what is left over and belongs to nobody.

use std::collections::BTreeSet;

use clap::Args;
use k8s_openapi::api::{batch::v1::Job, core::v1::Namespace};
use kube::{Api, ResourceExt, api::ListParams};
use serde::Serialize;

use super::{
    connection::Connection,
    error::{Ended, Error},
    output::{OutputArgs, table, wrapped},
    seen::{Seen, list},
};
use crate::{
    api::{
        ACCOUNT_LABEL, BackupStore, ColdBackup, DatabaseServer, HelpDeskAccount,
        conditions::{self, HasConditions, Type},
    },
    mover::job::{BACKUP, COMPONENT},
};

/// The arguments of `orphans`.
#[derive(Args, Debug)]
pub(super) struct OrphansArgs {
    #[command(flatten)]
    output: OutputArgs,
}

/// What was read.
struct Objects {
    servers: Seen<Vec<DatabaseServer>>,
    stores: Seen<Vec<BackupStore>>,
    accounts: Seen<Vec<HelpDeskAccount>>,
    backups: Seen<Vec<ColdBackup>>,
    movers: Seen<Vec<Job>>,
    namespaces: Seen<Vec<Namespace>>,
}

/// What is left over.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Orphans {
    found: Vec<Orphan>,
    /// What could not be looked at.
    not_seen: Vec<String>,
}

/// One thing that belongs to nobody.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Orphan {
    /// Where it was found.
    at: String,
    what: String,
    /// What to do about it.
    #[serde(rename = "do")]
    remedy: &'static str,
}

/// Runs `orphans`.
pub(super) async fn run(connection: &Connection, args: OrphansArgs) -> Result<Ended, Error> {
    let client = &connection.client;
    let everything = ListParams::default();
    let movers = ListParams::default().labels(&format!("{}={}", COMPONENT.0, COMPONENT.1));
    let of_accounts = ListParams::default().labels(ACCOUNT_LABEL);
    let (servers, stores) = (Api::<DatabaseServer>::all(client.clone()), Api::<BackupStore>::all(client.clone()));
    let (accounts, backups) = (Api::<HelpDeskAccount>::all(client.clone()), Api::<ColdBackup>::all(client.clone()));
    let jobs: Api<Job> = Api::namespaced(client.clone(), &connection.operator_namespace);
    let namespaces: Api<Namespace> = Api::all(client.clone());
    // What may belong to something is read before what it may belong to: what is made in between is no orphan.
    let (servers, stores, movers, namespaces) = tokio::join!(
        list(&servers, &everything, "DatabaseServers"),
        list(&stores, &everything, "BackupStores"),
        list(&jobs, &movers, "the movers' Jobs"),
        list(&namespaces, &of_accounts, "namespaces of tenants"),
    );
    let (accounts, backups) = tokio::join!(list(&accounts, &everything, "HelpDeskAccounts"), list(&backups, &everything, "ColdBackups"),);
    let orphans = orphans(&Objects { servers, stores, accounts, backups, movers, namespaces });
    args.output.print(&orphans, || text(&orphans))?;
    Ok(if orphans.found.is_empty() { Ended::Fine } else { Ended::NotSo })
}

fn orphans(objects: &Objects) -> Orphans {
    let mut found = Vec::new();
    for server in objects.servers.all() {
        let at = format!("DatabaseServer {}", server.name_any());
        let lost = conditions::find(server.conditions(), Type::AccountsLost);
        found.extend(lost.map(|lost| Orphan {
            at: at.clone(),
            what: lost.message.clone(),
            remedy: "apply the manifests again (docs/operations.md#accounts-without-an-object)",
        }));
        found.extend(server.status.iter().flat_map(|status| status.orphans.clone()).map(|what| Orphan {
            at: at.clone(),
            what,
            remedy: "apply the account's manifest again to adopt it, or drop it by hand once you know (docs/operations.md#databaseserver)",
        }));
    }
    for store in objects.stores.all() {
        found.extend(store.status.iter().flat_map(|status| &status.orphans).map(|what| Orphan {
            at: format!("BackupStore {}", store.name_any()),
            what: format!("folder {what}"),
            remedy: "look at it, and delete it by hand (docs/operations.md#backupstore)",
        }));
    }
    if let Some(backups) = objects.backups.there() {
        let names: BTreeSet<String> = backups.iter().map(ResourceExt::name_any).collect();
        let is_orphan = |job: &&Job| job.annotations().get(BACKUP).is_some_and(|name| !names.contains(name));
        found.extend(objects.movers.all().iter().filter(is_orphan).map(|job| Orphan {
            at: format!("Job {}/{}", job.namespace().unwrap_or_default(), job.name_any()),
            what: format!("a mover whose ColdBackup {} is gone", job.annotations().get(BACKUP).map_or("", String::as_str)),
            remedy: "the operator removes it within ten minutes; if it stays, ask why with kubectl helpdesk why",
        }));
    }
    if let Some(accounts) = objects.accounts.there() {
        let names: BTreeSet<String> = accounts.iter().map(ResourceExt::name_any).collect();
        let is_orphan = |namespace: &&Namespace| {
            let of = namespace.labels().get(ACCOUNT_LABEL);
            of.is_some_and(|name| !names.contains(name)) && namespace.metadata.deletion_timestamp.is_none()
        };
        found.extend(objects.namespaces.all().iter().filter(is_orphan).map(|namespace| Orphan {
            at: format!("Namespace {}", namespace.name_any()),
            what: format!("of the account {}, which has no object", namespace.labels().get(ACCOUNT_LABEL).map_or("", String::as_str)),
            remedy: "apply the account's manifest again (docs/operations.md#accounts-without-an-object)",
        }));
    }
    let unseen = [
        objects.servers.unseen(),
        objects.stores.unseen(),
        objects.accounts.unseen(),
        objects.backups.unseen(),
        objects.movers.unseen(),
        objects.namespaces.unseen(),
    ];
    Orphans { found, not_seen: unseen.into_iter().flatten().map(str::to_owned).collect() }
}

fn text(orphans: &Orphans) -> String {
    let mut text = String::new();
    if orphans.found.is_empty() {
        text.push_str("Nothing is left over.\n");
    }
    let mut by_remedy: Vec<&'static str> = orphans.found.iter().map(|one| one.remedy).collect();
    by_remedy.sort_unstable();
    by_remedy.dedup();
    for remedy in by_remedy {
        let rows: Vec<Vec<String>> =
            orphans.found.iter().filter(|one| one.remedy == remedy).map(|one| vec![one.at.clone(), one.what.clone()]).collect();
        text.push_str(&table(&rows));
        text.push_str(&wrapped(&format!("→ {remedy}"), 2));
    }
    if !orphans.not_seen.is_empty() {
        text.push_str("\nNot looked at:\n");
        for why in &orphans.not_seen {
            text.push_str(&wrapped(why, 2));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn one<T: serde::de::DeserializeOwned>(object: serde_json::Value) -> Seen<Vec<T>> {
        Seen::There(vec![serde_json::from_value(object).unwrap()])
    }

    fn objects() -> Objects {
        let server = json!({"apiVersion": "helpdesk-operator.io/v1alpha1", "kind": "DatabaseServer", "metadata": {"name": "pg"},
            "spec": {"engine": "postgresql", "region": "eu-1", "host": "pg", "adminSecret": "s"},
            "status": {"orphans": ["database t_1"], "conditions": [{"type": "AccountsLost", "status": "True", "reason": "Lost",
                "message": "acme", "lastTransitionTime": "2026-11-23T09:00:00Z"}]}});
        let store = json!({"apiVersion": "helpdesk-operator.io/v1alpha1", "kind": "BackupStore", "metadata": {"name": "cold"},
            "spec": {"region": "eu-1", "endpoint": "https://s3", "bucket": "b", "credentialsSecret": "s"}, "status": {"orphans": ["u/1/"]}});
        let job = json!({"metadata": {"name": "backup-1", "namespace": "ops", "annotations": {BACKUP: "gone"}}});
        let namespace = json!({"metadata": {"name": "hd-1", "labels": {ACCOUNT_LABEL: "acme"}}});
        Objects {
            servers: one(server),
            stores: one(store),
            accounts: Seen::There(vec![]),
            backups: Seen::There(vec![]),
            movers: one(job),
            namespaces: one(namespace),
        }
    }

    #[test]
    fn everything_that_belongs_to_nobody_is_listed_with_what_to_do() {
        let orphans = orphans(&objects());
        let at: Vec<&str> = orphans.found.iter().map(|one| one.at.as_str()).collect();
        assert_eq!(at, ["DatabaseServer pg", "DatabaseServer pg", "BackupStore cold", "Job ops/backup-1", "Namespace hd-1"]);
        assert!(text(&orphans).contains("BackupStore cold   folder u/1/"), "{}", text(&orphans));
    }

    #[test]
    fn what_cannot_be_compared_is_not_called_an_orphan() {
        let unseen = || "ColdBackups: you may not read it".to_owned();
        let objects = Objects { backups: Seen::Unseen(unseen()), accounts: Seen::Unseen(unseen()), ..objects() };
        let orphans = orphans(&objects);
        assert_eq!(orphans.found.len(), 3, "{orphans:#?}");
        assert!(text(&orphans).contains("Not looked at"));
    }

    #[test]
    fn nothing_left_over_is_said() {
        let none = || Seen::There(vec![]);
        let objects = Objects {
            servers: none(),
            stores: Seen::There(vec![]),
            movers: Seen::There(vec![]),
            namespaces: Seen::There(vec![]),
            ..objects()
        };
        assert_eq!(text(&orphans(&objects)), "Nothing is left over.\n");
    }
}
