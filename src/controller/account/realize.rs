//! Makes the parts as the stage wants them, in order. Every call is idempotent and checks the ownership marker.

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
    clock::Moment,
    lifecycle::{Known, Step},
};

/// What was made of the world.
pub(super) struct Realized {
    /// The decision that was carried out.
    pub decided: Decided,
    /// What is not there yet, for people.
    pub waiting_on: Vec<String>,
    /// Whether all effects of the stage were seen.
    pub complete: bool,
    /// Whether a restore was completed and proven equal.
    pub restored: bool,
    /// What is true of the parts.
    pub findings: Vec<Finding>,
    /// The tenant's host names.
    pub domains: Vec<DomainStatus>,
    /// When a part wants to be looked at again.
    pub wake_at: Option<Moment>,
}

/// Makes the world as the decision wants it, as far as it goes now.
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
    // What is published stays so while nothing is done.
    let shown = || account.status.as_ref().map(|s| s.domains.clone()).unwrap_or_default();
    let domains = if may_act { vec![] } else { shown() };
    let mut work = Work { ctx, account, observed, placement, now, entering, waiting_on: vec![], findings: vec![], domains, wake_at: None };
    let mut restored = false;
    if may_act {
        work.copy_hold().await?;
        work.forget_agreement().await?;
        if decision.step == Step::Restore {
            restored = work.restore().await?;
        } else {
            work.stage().await?;
        }
    }
    let Work { placement, waiting_on, findings, domains, wake_at, .. } = work;
    let complete = may_act && waiting_on.is_empty() && decision.step != Step::Restore;
    Ok(Realized { decided: Decided { placement, decision, refused, brake }, waiting_on, complete, restored, findings, domains, wake_at })
}

impl Work<'_> {
    async fn stage(&mut self) -> Result<(), Error> {
        let world = desired::state(self.placement.entry.record.stage);
        if let (Known::Unknown(why), true) = (&self.observed.plan, world.database != Database::Open) {
            let told = format!("{why}; until then the windows hold that were seen last");
            self.findings.push(Finding::yes(Type::Stalled, "NoPlacement", told));
        }
        match world.database {
            Database::Open => self.open().await?,
            Database::Shut => self.shut().await?,
            Database::Gone => self.gone().await?,
        }
        if world.database == Database::Gone && !self.waiting_on.is_empty() {
            // Until the database is dropped the account may still go back, and then needs the rest.
            return Ok(());
        }
        if world.namespace && world.database == Database::Shut && self.record().resumes.is_some() {
            self.take_up_namespace().await?;
        }
        self.realize_routes(world.routes).await;
        if !world.namespace {
            self.remove_namespace().await?;
        }
        match world.backups {
            Backups::Scheduled => self.schedule_backup().await?,
            Backups::Frozen => self.freeze().await?,
            Backups::FrozenOnly => self.erase_backups(self.placement.entry.record.frozen.is_some()).await?,
            Backups::Gone => self.erase_backups(false).await?,
        }
        if !world.personal_data && self.waiting_on.is_empty() {
            self.certify().await?;
        }
        Ok(())
    }

    /// A namespace that was being removed is made anew.
    async fn take_up_namespace(&mut self) -> Result<(), Error> {
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
                self.wake(self.now + SignedDuration::from_secs(5));
                Ok(())
            }
        }
    }

    async fn remove_namespace(&mut self) -> Result<(), Error> {
        let Some(recorded) = self.placement.entry.namespace.clone() else { return Ok(()) };
        if self.entering {
            credentials::delete_binding_secret(self.ctx, &self.placement.tenant, &recorded.name).await?;
        }
        if namespace::remove(self.ctx, &self.placement.tenant).await? {
            self.placement.entry.namespace = None;
            self.store().await?;
        }
        Ok(())
    }
}
