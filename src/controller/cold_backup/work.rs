//! One backup in one reconcile: its new status, its conditions, its finalizer.

use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{controller::Action, events::EventType},
};
use serde_json::json;

use super::{context::ColdBackupContext, error::Error};
use crate::controller::placement::Placement;
use crate::error_chain::chain;
use crate::{
    api::{
        BackupPhase, ColdBackup, ColdBackupStatus,
        conditions::{self, Finding, Type},
    },
    backup::FINALIZER,
    clock::Moment,
    cluster::{During, ignore_not_found_or_conflict},
};

/// One backup in one reconcile.
pub(super) struct Work<'a> {
    pub(super) ctx: &'a ColdBackupContext,
    pub(super) backup: &'a ColdBackup,
    /// The status that will be written.
    pub(super) status: ColdBackupStatus,
    pub(super) now: Moment,
}

impl Work<'_> {
    pub(super) async fn ensure(&self) -> Result<(), Error> {
        if self.backup.finalizers().iter().any(|f| f == FINALIZER) || self.backup.meta().deletion_timestamp.is_some() {
            return Ok(());
        }
        let finalizers: Vec<_> = self.backup.finalizers().iter().cloned().chain([FINALIZER.to_owned()]).collect();
        self.set_finalizers(&finalizers).await
    }

    pub(super) async fn remove(&self) -> Result<Action, Error> {
        self.ctx.forget(&self.backup.uid().unwrap_or_default());
        let finalizers: Vec<_> = self.backup.finalizers().iter().filter(|f| *f != FINALIZER).cloned().collect();
        if finalizers.len() < self.backup.finalizers().len() {
            self.set_finalizers(&finalizers).await?;
        }
        Ok(Action::await_change())
    }

    pub(super) async fn set_finalizers(&self, finalizers: &[String]) -> Result<(), Error> {
        let api: Api<ColdBackup> = Api::all(self.ctx.client.clone());
        let patch = json!({"metadata": {"finalizers": finalizers, "uid": self.backup.uid()}});
        api.patch(&self.backup.name_any(), &PatchParams::default(), &Patch::Merge(patch))
            .await
            .map(drop)
            .or_else(ignore_not_found_or_conflict)
            .during("set the backup's finalizer")
            .map_err(Error::from)
    }

    /// Writes the status now, to store an intent before its effect.
    pub(super) async fn store(&mut self, placement: Option<&Placement>) -> Result<(), Error> {
        let before = self.ctx.newest(self.backup);
        self.ctx.write(self.backup, &before, &self.status).await?;
        if let Some(placement) = placement {
            placement.store_backup(self.backup, &self.status).await?;
        }
        Ok(())
    }

    /// The store that keeps the second copy of the backup's key: as it was recorded, or else as the backup's store says. A
    /// store that cannot be read is an error, because it may have named one.
    pub(super) async fn key_escrow(&self, placement: Option<&Placement>) -> Result<Option<String>, Error> {
        if self.status.key_escrow.is_some() {
            return Ok(self.status.key_escrow.clone());
        }
        let entry = match placement {
            Some(placement) => placement.server.ledger.backup(&self.backup.name_any()).await?,
            None => None,
        };
        let own = entry.filter(|entry| entry.uid == self.backup.spec.account_uid);
        if let Some(recorded) = own.and_then(|entry| entry.key_escrow) {
            return Ok(Some(recorded));
        }
        let store = self.ctx.stores.get(&self.backup.spec.store).await?;
        Ok(store.key_escrow.as_ref().map(|escrow| escrow.store.clone()))
    }

    /// Replaces the conditions by this finding, and by the condition `Unprovable` if that holds.
    pub(super) fn set_finding(&mut self, finding: Finding) {
        self.status.observed_generation = self.backup.metadata.generation;
        let findings: Vec<_> = [Some(finding), self.unprovable()].into_iter().flatten().collect();
        self.status.conditions = conditions::merge(&self.status.conditions, &findings, self.backup.metadata.generation, self.now);
    }

    /// The condition `Unprovable`, if so many attempts failed that the backup counts as unprovable.
    pub(super) fn unprovable(&self) -> Option<Finding> {
        let over = matches!(self.status.phase, BackupPhase::Erasing | BackupPhase::Erased);
        let failing = self.status.failing.as_ref().filter(|f| !over && f.unprovable_since.is_some())?;
        let message = format!(
            "{} attempts since {} came to nothing; the first: {}; it is tried again every {} minutes",
            failing.attempts,
            failing.since.0,
            failing.message,
            self.ctx.settings.patience.pause().as_mins().max(1),
        );
        Some(Finding::yes(Type::Unprovable, failing.reason.clone(), message))
    }

    /// Adds a finding to the conditions.
    pub(super) fn add_finding(&mut self, finding: Finding) {
        let more = conditions::merge(&self.status.conditions, &[finding], self.backup.metadata.generation, self.now);
        self.status.conditions.extend(more);
    }

    pub(super) fn set_failure(&mut self, error: &Error) {
        let message = chain(error);
        self.set_finding(Finding::no(Type::Ready, error.reason(), message.clone()));
        if error.needs_a_person() {
            self.add_finding(Finding::yes(Type::Stalled, error.reason(), message.clone()));
        }
        if self.is_overdue() {
            self.add_finding(Finding::yes(Type::Overdue, error.reason(), format!("it should be destroyed by now: {message}")));
        }
    }

    /// Whether the backup should be erased by now, and nothing keeps it that may.
    fn is_overdue(&self) -> bool {
        let retained = self.status.retained_until.as_ref().is_some_and(|until| until.0 > self.now);
        match self.status.phase {
            BackupPhase::Erased => false,
            BackupPhase::Erasing => true,
            _ => self.backup.spec.expires_at.0 <= self.now && self.backup.spec.hold.is_none() && !retained,
        }
    }

    pub(super) async fn publish(&self, kind: EventType, reason: &str, note: &str) {
        self.ctx.publish(&self.backup.object_ref(&()), kind, reason, note, "Look").await;
    }
}
