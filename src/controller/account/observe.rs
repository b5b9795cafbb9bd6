//! Reads everything that the decision needs besides the ledger. A fact that cannot be read is `Unknown`, with the reason.

use std::sync::Arc;

use k8s_openapi::{api::coordination::v1::Lease, jiff::SignedDuration};
use kube::{Api, ResourceExt, runtime::reflector::ObjectRef};

use super::{accepted_plan, context::AccountContext, error::Error, placement};
use crate::controller::placement::Placement;
use crate::{
    api::{BackupPhase, ColdBackup, ColdBackupStatus, HelpDeskAccount, HelpDeskPlan, RELEASE_BRAKE, conditions, deletion_is_confirmed},
    backup,
    brake::Allowance,
    clock::{self, Moment, Trust},
    database::{self, ObservedDatabase},
    ledger::Entry,
    lifecycle::{Frozen, Known, Record, Stage},
};

/// The facts that a reconcile read, besides the ledger's entry.
pub(super) struct Observation {
    /// The plan, with what was removed from it and stays in use.
    pub plan: Known<Arc<HelpDeskPlan>>,
    /// What was removed from the plan and stays in use, as sentences.
    pub kept: Vec<String>,
    /// Whether the clock can be trusted.
    pub clock: Trust,
    /// The tenant's database.
    pub database: Result<ObservedDatabase, database::Error>,
    /// The account's backups, by their names.
    pub backups: Vec<Arc<ColdBackup>>,
    /// How many destructive steps the brake allows; `None` in a stage in which none can be due.
    pub allowance: Option<Allowance>,
    /// Whether the brake allowed one more destructive step when it was read.
    pub brake: Known<bool>,
    /// Whether billing renewed its Lease in time, where one is configured.
    pub heartbeat: Known<()>,
    /// Whether the object is being deleted with a confirmation.
    pub confirmed_deletion: bool,
}

/// Reads all facts.
pub(super) async fn observe(
    ctx: &AccountContext,
    account: &HelpDeskAccount,
    placement: &Placement,
    now: Moment,
) -> Result<Observation, Error> {
    let uid = &placement.entry.uid;
    let (plan, kept) = match placement::plan(ctx, account) {
        Ok(plan) => accepted_plan::accepted(plan, &account.spec.region, placement.entry.record.plan.as_ref()),
        Err(error) => (Known::Unknown(error.with_causes()), vec![]),
    };
    let database = ctx.telemetry.measure("database", "observe", placement.server.driver.observe(&placement.tenant)).await;
    let clock = match &database {
        Ok(observed) => clock::compare(
            now,
            placement.server.ledger.high_water().await?,
            &[(&format!("server {}", placement.server.name), observed.now)],
        ),
        Err(_) => Trust::Doubtful("no other clock could be asked".into()),
    };
    let backups = ctx.caches.backups.of_account_uid(uid);
    let (allowance, brake) = observe_brake(ctx, placement, now).await?;
    Ok(Observation {
        plan,
        kept,
        clock,
        database,
        backups,
        allowance,
        brake,
        heartbeat: heartbeat(ctx, now).await,
        confirmed_deletion: deletion_is_confirmed(account),
    })
}

/// Whether billing renewed its Lease in time. If it did not, billing's state is `Unknown`: a payment may be missing
/// because billing does not run, and that must never close an account.
async fn heartbeat(ctx: &AccountContext, now: Moment) -> Known<()> {
    let Some((namespace, name)) = &ctx.settings.billing_lease else { return Known::Known(()) };
    let leases: Api<Lease> = Api::namespaced(ctx.client.clone(), namespace);
    let why = match leases.get_opt(name).await {
        Ok(Some(lease)) => {
            let spec = lease.spec.unwrap_or_default();
            let lasts = SignedDuration::from_secs(spec.lease_duration_seconds.unwrap_or(0).into());
            match spec.renew_time {
                Some(renewed) if renewed.0 + lasts >= now => return Known::Known(()),
                Some(renewed) => format!("was renewed last at {}", clock::whole_seconds(renewed.0)),
                None => "was never renewed".to_owned(),
            }
        }
        Ok(None) => "does not exist".to_owned(),
        Err(_) => "cannot be read".to_owned(),
    };
    Known::Unknown(format!("billing is silent: its Lease {namespace}/{name} {why}"))
}

/// Reads the brake, only in stages in which a destructive step may be due. The ledger checks the brake again when the
/// decision is stored, and that check counts.
async fn observe_brake(ctx: &AccountContext, placement: &Placement, now: Moment) -> Result<(Option<Allowance>, Known<bool>), Error> {
    let may_destroy = matches!(placement.entry.record.stage, Stage::Blocked | Stage::Terminated | Stage::Deleted);
    if !may_destroy {
        return Ok((None, Known::Known(true)));
    }
    let Some(server) = ctx.caches.servers.get(&ObjectRef::new(&placement.server.name)) else {
        return Ok((None, Known::Unknown(format!("the DatabaseServer {} is not there", placement.server.name))));
    };
    let released_at = server.annotations().get(RELEASE_BRAKE).and_then(|at| at.parse().ok());
    let allowance = Allowance::at(&server.spec.brake, released_at, now);
    let (steps, tenants) =
        (placement.server.ledger.destructive_steps_since(allowance.since()).await?, placement.server.ledger.tenants().await?);
    Ok((Some(allowance), Known::Known(allowance.lets_through(tenants, steps))))
}

impl Observation {
    /// The facts of an account whose reconcile failed: only the plan and the deletion are known.
    pub fn unknown(ctx: &AccountContext, account: &HelpDeskAccount, why: &str) -> Self {
        let plan = placement::plan(ctx, account).map_or_else(|error| Known::Unknown(error.with_causes()), Known::Known);
        Self {
            plan,
            kept: vec![],
            clock: Trust::Trusted,
            database: Err(database::Error::Unreachable { address: String::new(), reason: why.to_owned() }),
            backups: vec![],
            allowance: None,
            brake: Known::Unknown(why.to_owned()),
            heartbeat: Known::Unknown(why.to_owned()),
            confirmed_deletion: deletion_is_confirmed(account),
        }
    }

    /// The Frozen backup that the record names.
    pub fn frozen_backup(&self, entry: &Entry) -> Option<&Arc<ColdBackup>> {
        let name = backup::backup_name(&entry.account, entry.record.frozen?.due);
        self.backups.iter().find(|b| b.name_any() == name)
    }

    /// The state of the Frozen backup that the record names.
    pub fn frozen(&self, entry: &Entry) -> Known<Frozen> {
        let Some(backup) = self.frozen_backup(entry) else {
            return match entry.record.stage {
                // The database was dropped, so the backup existed: its ColdBackup object was lost.
                Stage::Deleted if entry.record.frozen.is_some() => Known::Unknown(
                    "the ColdBackup that outlived the database is not there; restore the object from a backup of the cluster".into(),
                ),
                _ => Known::Known(Frozen::Missing),
            };
        };
        let status = backup.status.clone().unwrap_or_default();
        Known::Known(match status.phase {
            BackupPhase::Verified => Frozen::Verified,
            BackupPhase::Pending | BackupPhase::Running => {
                match status.conditions.iter().find(|c| c.type_ == conditions::Type::Stalled.name() && c.status == "True") {
                    Some(stalled) => Frozen::Failed(format!("ColdBackup {}: {}", backup.name_any(), stalled.message)),
                    None => Frozen::Running,
                }
            }
            BackupPhase::Failed => failed(backup, &status),
            BackupPhase::Erasing | BackupPhase::Erased => Frozen::Erased,
        })
    }

    /// Whether the database is sealed: the tenant has no session and cannot log in, and had none since the seal was set.
    pub fn sealed(&self, record: &Record) -> Known<bool> {
        match &self.database {
            Ok(seen) => Known::Known(record.is_sealed() && !seen.can_login && seen.sessions == 0),
            Err(error) => Known::Unknown(error.to_string()),
        }
    }
}

fn failed(backup: &ColdBackup, status: &ColdBackupStatus) -> Frozen {
    let name = backup.name_any();
    if let Some(failing) = &status.failing
        && let Some(since) = &failing.unprovable_since
    {
        let (reason, why) = (failing.reason.clone(), format!("ColdBackup {name}: {}", failing.message));
        return Frozen::Unprovable { since: since.0, reason, why };
    }
    let condition = status.conditions.iter().find(|c| c.status == "False" || c.type_ == "Stalled");
    Frozen::Failed(format!("ColdBackup {name}: {}", condition.map_or("failed", |c| c.message.as_str())))
}
