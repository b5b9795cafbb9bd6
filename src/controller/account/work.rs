//! One account in one reconcile: what is known of it, and what is found while its parts are made.

use std::sync::Arc;

use kube::{ResourceExt, runtime::reflector::ObjectRef};

use super::{context::Desk, error::Error, observe::Observation, placement::Home};
use crate::{
    api::{HelpDeskAccount, HelpDeskClass, ROTATE_PASSWORD, account::DomainStatus, conditions::Finding, plan::HelpDeskPlan},
    clock::Moment,
    database::{Observed, Terms},
    lifecycle::{Known, Record},
};

/// One account's work in this reconcile.
pub(super) struct Work<'a> {
    pub(super) desk: &'a Desk,
    pub(super) account: &'a HelpDeskAccount,
    pub(super) seen: &'a Observation,
    pub(super) home: Home,
    pub(super) now: Moment,
    /// Whether the stage's effects are under way, as opposed to being kept up.
    pub(super) entering: bool,
    pub(super) waiting_on: Vec<String>,
    pub(super) findings: Vec<Finding>,
    pub(super) domains: Vec<DomainStatus>,
    pub(super) wake_at: Option<Moment>,
}

impl Work<'_> {
    pub(super) fn record(&self) -> &Record {
        &self.home.entry.record
    }

    pub(super) fn plan(&self) -> Result<&HelpDeskPlan, Error> {
        match &self.seen.plan {
            Known::Known(plan) => Ok(plan),
            Known::Unknown(why) => Err(Error::Placement(why.clone())),
        }
    }

    pub(super) fn terms(&self) -> Result<Terms, Error> {
        let class = self.class()?;
        Ok(Terms::of(&self.plan()?.spec.database, class.as_ref().map(|class| &class.spec)))
    }

    /// The plan's class, if there is one of that name.
    pub(super) fn class(&self) -> Result<Option<Arc<HelpDeskClass>>, Error> {
        let name = self.plan()?.spec.class.as_ref();
        Ok(name.and_then(|name| self.desk.caches.classes.get(&ObjectRef::<HelpDeskClass>::new(name))))
    }

    pub(super) fn database(&self) -> Result<&Observed, Error> {
        self.seen.database.as_ref().map_err(|error| Error::Database(error.clone()))
    }

    pub(super) fn wake(&mut self, at: Moment) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }

    pub(super) async fn store(&mut self) -> Result<(), Error> {
        let entry = &self.home.entry;
        self.home.entry = self.desk.telemetry.measure("ledger", "update", self.home.server.ledger.update(entry, entry.revision)).await?;
        Ok(())
    }

    pub(super) fn asked(&self) -> Option<&String> {
        self.account.annotations().get(ROTATE_PASSWORD)
    }
}
