//! One account in one reconcile: what was read of it, and the findings so far.

use std::sync::Arc;

use kube::ResourceExt;

use super::{context::AccountContext, error::Error, observe::Observation};
use crate::controller::placement::Placement;
use crate::{
    api::{HelpDeskAccount, HelpDeskClassSpec, ROTATE_PASSWORD, account::DomainStatus, conditions::Finding, plan::HelpDeskPlan},
    clock::Moment,
    database::{ObservedDatabase, TenantLimits},
    lifecycle::{Known, Record},
};

/// One account's work in this reconcile.
pub(super) struct Work<'a> {
    pub(super) ctx: &'a AccountContext,
    pub(super) account: &'a HelpDeskAccount,
    pub(super) observed: &'a Observation,
    pub(super) placement: Placement,
    pub(super) now: Moment,
    /// Whether the stage is being entered; `false` once it is enforced.
    pub(super) entering: bool,
    pub(super) waiting_on: Vec<String>,
    pub(super) findings: Vec<Finding>,
    pub(super) domains: Vec<DomainStatus>,
    pub(super) requeue_at: Option<Moment>,
}

impl Work<'_> {
    pub(super) fn record(&self) -> &Record {
        &self.placement.entry.record
    }

    pub(super) fn plan(&self) -> Result<&HelpDeskPlan, Error> {
        match &self.observed.plan {
            Known::Known(plan) => Ok(plan),
            Known::Unknown(why) => Err(Error::Placement(why.clone())),
        }
    }

    pub(super) fn limits(&self) -> Result<TenantLimits, Error> {
        Ok(TenantLimits::of(&self.plan()?.spec.database, self.class()?.as_deref()))
    }

    /// The plan's class as the account has it, if there is one of that name.
    pub(super) fn class(&self) -> Result<Option<Arc<HelpDeskClassSpec>>, Error> {
        Ok(self.ctx.class_of(self.plan()?, self.record()))
    }

    pub(super) fn database(&self) -> Result<&ObservedDatabase, Error> {
        self.observed.database.as_ref().map_err(|error| Error::Database(error.clone()))
    }

    pub(super) fn requeue_at(&mut self, at: Moment) {
        self.requeue_at = Some(self.requeue_at.map_or(at, |before| before.min(at)));
    }

    pub(super) async fn store(&mut self) -> Result<(), Error> {
        let entry = &self.placement.entry;
        self.placement.entry =
            self.ctx.telemetry.measure("ledger", "update", self.placement.server.ledger.update(entry, entry.revision)).await?;
        Ok(())
    }

    pub(super) fn asked(&self) -> Option<&String> {
        self.account.annotations().get(ROTATE_PASSWORD)
    }
}
