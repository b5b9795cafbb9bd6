//! Makes database, namespace, routes and backups as the stage wants them, in order. Every call is idempotent and checks
//! the ownership marker.

use k8s_openapi::jiff::SignedDuration;

use super::{
    context::AccountContext,
    credentials,
    decide::Decided,
    desired::{self, Backups, Database},
    error::Error,
    namespace,
    observe::Observation,
    work::Work,
};
use crate::{
    api::{
        HelpDeskAccount,
        account::DomainStatus,
        conditions::{Finding, Type},
    },
    app::apply::{self, Owner},
    clock::Moment,
    lifecycle::{Known, Stage, Step},
};

/// How long Terminated waits for the end of the tenant's namespace.
const NAMESPACE_PATIENCE: SignedDuration = SignedDuration::from_hours(1);

/// The result of one realize.
pub(super) struct Realized {
    /// The decision that was carried out.
    pub decided: Decided,
    /// What the stage still waits for, as text for people.
    pub waiting_on: Vec<String>,
    /// Whether all effects of the stage were observed.
    pub complete: bool,
    /// Whether a restore was completed, and the database was proven equal to the backup.
    pub restored: bool,
    /// Conditions of the database, the routes and the backups.
    pub findings: Vec<Finding>,
    /// The tenant's host names.
    pub domains: Vec<DomainStatus>,
    /// When the account is to be reconciled again, if any part needs it.
    pub requeue_at: Option<Moment>,
}

/// Carries out the decision, as far as that is possible now.
pub(super) async fn realize(
    ctx: &AccountContext,
    account: &HelpDeskAccount,
    observed: &Observation,
    decided: Decided,
    now: Moment,
) -> Result<Realized, Error> {
    let Decided { placement, decision, refused, brake } = decided;
    let entering = placement.entry.record.enforced_at.is_none();
    let may_act = !account.spec.paused && (!entering || decision.step != Step::Stay);
    // While the account may not be changed, routes stay published, so the status shows the host names as before.
    let shown = || account.status.as_ref().map(|s| s.domains.clone()).unwrap_or_default();
    let domains = if may_act { vec![] } else { shown() };
    let mut work =
        Work { ctx, account, observed, placement, now, entering, waiting_on: vec![], findings: vec![], domains, requeue_at: None };
    let mut restored = false;
    if may_act {
        work.copy_hold().await?;
        work.report_overdue_backups();
        work.forget_agreement().await?;
        if decision.step == Step::Restore {
            restored = work.restore().await?;
        } else {
            work.realize_stage().await?;
        }
    }
    let Work { placement, waiting_on, findings, domains, requeue_at, .. } = work;
    let complete = may_act && waiting_on.is_empty() && decision.step != Step::Restore;
    Ok(Realized { decided: Decided { placement, decision, refused, brake }, waiting_on, complete, restored, findings, domains, requeue_at })
}

impl Work<'_> {
    async fn realize_stage(&mut self) -> Result<(), Error> {
        let wanted = desired::state(self.placement.entry.record.stage);
        if let (Known::Unknown(why), true) = (&self.observed.plan, wanted.database != Database::Open) {
            let message = format!("{why}; until then the windows hold that were seen last");
            self.findings.push(Finding::yes(Type::Stalled, "NoPlacement", message));
        }
        if wanted.app == desired::App::Running && matches!(self.observed.plan, Known::Known(_)) {
            self.pin_class().await?;
        }
        match wanted.database {
            Database::Open => self.open().await?,
            Database::Shut => self.shut().await?,
            Database::Gone => self.gone().await?,
        }
        if wanted.database == Database::Gone && !self.waiting_on.is_empty() {
            // Until the database is dropped the account may return to the stage before, which needs the other parts.
            return Ok(());
        }
        if wanted.namespace && wanted.database == Database::Shut && self.record().resumes.is_some() {
            self.restore_namespace().await?;
        }
        self.realize_app(wanted.app).await;
        self.realize_routes(wanted.routes).await;
        if !wanted.namespace {
            self.remove_namespace().await?;
        }
        match wanted.backups {
            Backups::Scheduled => self.schedule_backup().await?,
            Backups::Frozen => self.freeze().await?,
            Backups::FrozenOnly => self.erase_backups(self.placement.entry.record.frozen.is_some()).await?,
            Backups::Gone => self.erase_backups(false).await?,
        }
        if !wanted.personal_data && self.waiting_on.is_empty() {
            self.issue_certificate().await?;
        }
        Ok(())
    }

    /// Creates the namespace again, if the account returned from a stage that was removing it.
    async fn restore_namespace(&mut self) -> Result<(), Error> {
        if self.placement.entry.database.is_none() {
            return Ok(());
        }
        match namespace::ensure(self.ctx, self.account, &self.placement.tenant).await? {
            namespace::Found::Ready(namespace) if self.placement.entry.namespace.as_ref() != Some(&namespace) => {
                self.placement.entry.namespace = Some(namespace);
                self.store().await
            }
            namespace::Found::Ready(_) => Ok(()),
            namespace::Found::Leaving => {
                self.waiting_on.push("the tenant's namespace of before is still being removed".into());
                self.requeue_at(self.now + SignedDuration::from_secs(5));
                Ok(())
            }
        }
    }

    /// Deletes the namespace, also one that the ledger does not have after a crash. Terminated waits for its end, but only for
    /// an hour: what hangs in the cluster must not keep the database beyond its date. Expired, and with it the certificate,
    /// waits for as long as it takes.
    async fn remove_namespace(&mut self) -> Result<(), Error> {
        if self.placement.entry.namespace.is_none() && !self.entering {
            return Ok(());
        }
        let name = namespace::name(&self.placement.tenant);
        if self.entering {
            credentials::delete_binding_secret(self.ctx, &self.placement.tenant, &name).await?;
            let owner = Owner { account: &self.placement.entry.account, uid: &self.placement.entry.uid, namespace: &name };
            apply::delete_secrets(&self.ctx.client, owner).await?;
        }
        let Some(remaining) = namespace::remove(self.ctx, &self.placement.tenant).await? else {
            if self.placement.entry.namespace.take().is_some() {
                self.store().await?;
            }
            return Ok(());
        };
        let waits = match self.record().stage {
            Stage::Terminated => self.now < self.record().decided_at + NAMESPACE_PATIENCE,
            stage => stage == Stage::Expired,
        };
        if self.entering && waits {
            self.waiting_on.push(remaining);
            self.requeue_at(self.now + SignedDuration::from_secs(2));
        } else {
            self.requeue_at(self.now + SignedDuration::from_mins(1));
        }
        Ok(())
    }
}
