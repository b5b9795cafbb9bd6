//! `backup`: a backup of an account now.

use std::time::Duration;

use clap::Args;
use futures::StreamExt;
use kube::{Api, ResourceExt, api::PostParams, runtime::watcher::watch_object};

use super::{
    connection::Connection,
    error::{Ended, Error},
    find,
    output::{when, write},
};
use crate::{
    api::{ACCOUNT_UID, BackupPhase, BackupReason, ColdBackup, HelpDeskAccount, SHARD_LABEL, Window, conditions::Type},
    backup::build,
    clock::Moment,
    cluster::During,
    database::Tenant,
};

/// The arguments of `backup`.
#[derive(Args, Debug)]
pub(super) struct BackupArgs {
    /// The account.
    name: String,
    /// How long it is kept, such as 30d; without it as long as the plan keeps scheduled backups. It never outlives the
    /// account's dataGoneBy.
    #[arg(long, value_name = "SPAN")]
    keep: Option<Window>,
    /// Wait until it is proven, and show how far it is. Exits with 3 if it is not proven in time.
    #[arg(long)]
    wait: bool,
    /// How long to wait.
    #[arg(long, value_name = "SPAN", default_value = "1h", requires = "wait")]
    timeout: Window,
}

/// Runs `backup`.
pub(super) async fn run(connection: &Connection, args: BackupArgs, now: Moment) -> Result<Ended, Error> {
    let account = find::account(connection, &args.name).await?;
    let plan = find::plan(connection, &account).await?;
    let unfit = |why: String| Error::Unfit { what: "take a backup", why };
    let stage = account.status.as_ref().and_then(|status| status.stage);
    if !stage.is_some_and(|stage| stage.has_database()) {
        return Err(unfit(format!("{} has no database", args.name)));
    }
    let placement = plan.spec.placements.iter().find(|placement| placement.region == account.spec.region);
    let placement = placement.ok_or_else(|| unfit(format!("the plan has no placement in region {}", account.spec.region)))?;
    let uid = data_uid(connection, &account).await?;
    let expires_at = now + args.keep.unwrap_or(plan.spec.backups.keep).duration();
    let mut backup = build(&args.name, &uid, &placement.store, expires_at, BackupReason::Manual, plan.spec.backups.verify, now);
    // Who looks after the account looks after its backups.
    // Names that end in a moment are the operator's.
    backup.metadata.name = Some(format!("{}-now", backup.name_any()));
    if let Some(shard) = account.labels().get(SHARD_LABEL) {
        backup.labels_mut().insert(SHARD_LABEL.to_owned(), shard.clone());
    }
    let api: Api<ColdBackup> = Api::all(connection.client.clone());
    let made = api.create(&PostParams::default(), &backup).await.during("create the ColdBackup")?;
    let name = made.name_any();
    write(format!("ColdBackup {name} in store {}, kept until {}.\n", placement.store, when(expires_at, now)).as_bytes())?;
    if !args.wait {
        write(format!("`kubectl get hcb {name}` shows how far it is.\n").as_bytes())?;
        return Ok(Ended::Fine);
    }
    let limit = Duration::from_secs(args.timeout.as_seconds().unsigned_abs());
    match tokio::time::timeout(limit, is_proven(api, &name)).await {
        Ok(Ok(())) => {
            write(format!("{name} is proven.\n").as_bytes())?;
            Ok(Ended::Fine)
        }
        Ok(Err(why)) => {
            write(format!("{name} is not proven: {why}\n").as_bytes())?;
            Ok(Ended::NotSo)
        }
        Err(_) => {
            write(format!("{name} is not proven after {}; the operator goes on with it.\n", args.timeout).as_bytes())?;
            Ok(Ended::NotSo)
        }
    }
}

/// The uid that the account's data was made for. It is another one than the object's if the object took the data over; the
/// tenant's namespace has it then.
async fn data_uid(connection: &Connection, account: &HelpDeskAccount) -> Result<String, Error> {
    let unfit = |why: &str| Error::Unfit { what: "find whose data it is", why: why.to_owned() };
    let own = account.uid().ok_or_else(|| unfit("the account has no uid"))?;
    let status = account.status.as_ref();
    let database = status.and_then(|status| status.database.as_ref()).ok_or_else(|| unfit("the status names no database"))?;
    if Tenant::of(&own).is_ok_and(|tenant| tenant.name == database.name) {
        return Ok(own);
    }
    let namespace = status.and_then(|status| status.namespace.as_ref());
    let namespace =
        namespace.ok_or_else(|| unfit("it took over the data of another object, and its namespace, which names that, is gone"))?;
    let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(connection.client.clone());
    let found = api.get_metadata(&namespace.name).await.during("read the tenant's namespace")?;
    found.annotations().get(ACCOUNT_UID).cloned().ok_or_else(|| unfit("the tenant's namespace does not name it"))
}

/// Waits until the backup is proven, and tells each step on the standard error.
async fn is_proven(api: Api<ColdBackup>, name: &str) -> Result<(), String> {
    let mut events = watch_object(api, name).boxed();
    let mut told = String::new();
    while let Some(event) = events.next().await {
        // The watch tries again by itself.
        let Ok(backup) = event else { continue };
        let Some(backup) = backup else { return Err("it was deleted".into()) };
        let step = step(&backup);
        if step != told {
            eprintln!("{step}");
            told = step;
        }
        match backup.status.as_ref().map(|status| status.phase) {
            Some(BackupPhase::Verified) => return Ok(()),
            Some(BackupPhase::Erasing | BackupPhase::Erased) => return Err("it is being erased".into()),
            _ => {}
        }
    }
    Err("the watch ended".into())
}

/// How far a backup is, in words.
fn step(backup: &ColdBackup) -> String {
    let Some(status) = &backup.status else { return "waiting for the operator".into() };
    let ready = status.conditions.iter().find(|condition| condition.type_ == Type::Ready.name());
    let why = ready.filter(|ready| ready.status != "True").map(|ready| format!(": {}", ready.message)).unwrap_or_default();
    format!("{:?}{why}", status.phase)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_step_is_told_with_what_it_waits_for() {
        let backup = |status: serde_json::Value| -> ColdBackup {
            serde_json::from_value(json!({"apiVersion": "helpdesk-operator.io/v1alpha1", "kind": "ColdBackup", "metadata": {"name": "b"},
                "spec": {"account": "acme", "accountUID": "u", "store": "cold", "expiresAt": "2026-12-23T10:00:00Z", "reason": "Manual"},
                "status": status}))
            .unwrap()
        };
        let condition = json!({"type": "Ready", "status": "False", "reason": "Waiting", "message": "two others go first",
            "lastTransitionTime": "2026-11-23T10:00:00Z"});
        assert_eq!(step(&backup(json!(null))), "waiting for the operator");
        assert_eq!(step(&backup(json!({"phase": "Pending", "conditions": [condition]}))), "Pending: two others go first");
        assert_eq!(step(&backup(json!({"phase": "Running"}))), "Running");
    }
}
