//! Creates the ColdBackups of an account when they are due, copies holds to them, and erases them with the stage.

use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::{error::Error, work::Work};
use crate::{
    api::{
        BackupPhase, BackupReason, CONFIRM_DELETE, ColdBackup, DROP_UNPROVEN_APPROVED_BY, DROP_UNPROVEN_REQUESTED_BY, HelpDeskAccount,
        Hold,
        conditions::{Finding, Type},
        plan::Backups as BackupTerms,
    },
    backup::{self, schedule},
    clock::Moment,
    cluster::{During, ignore_not_found_or_conflict},
    lifecycle::Known,
};

impl Work<'_> {
    /// Creates the ColdBackup that is due by the plan's schedule.
    pub(super) async fn schedule_backup(&mut self) -> Result<(), Error> {
        let (Some(since), Known::Known(plan)) = (self.record().enforced_at, &self.observed.plan) else { return Ok(()) };
        let BackupTerms { schedule: cron, keep, verify } = plan.spec.backups.clone();
        let store = super::placement::placement(plan, self.account)?.store.clone();
        let since = self.record().last_scheduled.map_or(since, |last| last.max(since));
        let (due, next) = schedule::due(&cron, &self.placement.entry.uid, since, self.now)
            .map_err(|error| Error::Placement(format!("spec.backups.schedule of plan {}: {error}", plan.name_any())))?;
        self.requeue_at(next);
        if let Some(due) = due {
            self.placement.entry.record.last_scheduled = Some(due);
            self.store().await?;
            let expires_at = due + keep.duration();
            if expires_at > self.now {
                self.create_backup(&store, expires_at, BackupReason::Scheduled, verify, due).await?;
            }
        }
        self.report_backups(since);
        Ok(())
    }

    fn report_backups(&mut self, since: Moment) {
        let failed = self.observed.backups.iter().rev().find(|b| b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Failed));
        let newest = self.observed.backups.iter().filter_map(|b| b.status.as_ref()?.verified_at.as_ref()).map(|t| t.0).max();
        let scheduled = |b: &&std::sync::Arc<ColdBackup>| b.spec.reason == BackupReason::Scheduled;
        let unfinished = |b: &ColdBackup| b.status.as_ref().is_none_or(|s| matches!(s.phase, BackupPhase::Pending | BackupPhase::Running));
        let late = self.observed.backups.iter().filter(scheduled).rev().skip(1).find(|b| unfinished(b));
        if let Some(late) = late {
            let message = format!("ColdBackup {} is not done although the next one is due; see the movers of its server", late.name_any());
            self.findings.push(Finding::no(Type::BackupsCurrent, "BackupLate", message));
            return;
        }
        self.findings.push(match (failed, newest) {
            (Some(failed), newest) if newest.is_none_or(|at| failed.creation_timestamp().is_some_and(|made| made.0 > at)) => {
                Finding::no(Type::BackupsCurrent, "BackupFailed", format!("ColdBackup {} failed; see its conditions", failed.name_any()))
            }
            (_, Some(at)) => Finding::yes(Type::BackupsCurrent, "Verified", format!("the newest proven backup is of {at}")),
            (_, None) => Finding::yes(Type::BackupsCurrent, "NoneDue", format!("no backup was due since {since}")),
        });
    }

    /// Creates the Frozen backup that the record names, if the database is sealed: while a tenant is in it, its data may
    /// still change.
    pub(super) async fn freeze(&mut self) -> Result<(), Error> {
        let Some(pin) = self.record().frozen.filter(|_| self.record().is_sealed()) else { return Ok(()) };
        let Some(plan) = self.record().plan.clone() else { return Ok(()) };
        if self.entering
            || pin.expires_at <= self.now
            || self.observed.frozen_backup(&self.placement.entry).is_some()
            || self.placement.entry.database.is_none()
        {
            return Ok(());
        }
        let Some(store) = plan.store else {
            let Known::Known(plan) = &self.observed.plan else { return Ok(()) };
            return super::placement::placement(plan, self.account).map(drop);
        };
        self.create_backup(&store, pin.expires_at, BackupReason::Frozen, plan.verify, pin.due).await
    }

    pub(super) async fn create_backup(
        &self,
        store: &str,
        expires_at: Moment,
        reason: BackupReason,
        verify: crate::api::VerifyMode,
        due: Moment,
    ) -> Result<(), Error> {
        let entry = &self.placement.entry;
        let mut backup = backup::build(&entry.account, &entry.uid, store, expires_at, reason, verify, due);
        if let Some(shard) = &self.ctx.settings.shard {
            backup.metadata.labels.get_or_insert_default().insert(crate::api::SHARD_LABEL.into(), shard.clone());
        }
        let api: Api<ColdBackup> = Api::all(self.ctx.client.clone());
        match api.create(&PostParams::default(), &backup).await {
            Ok(made) => {
                tracing::info!(backup = made.name_any(), ?reason, "asked for a backup");
                Ok(())
            }
            // 409 Conflict: it was created before a crash. Its name is made from the due time, so it is the same.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error).during("ask for a backup").map_err(Error::from),
        }
    }

    /// Erases the account's backups, except the Frozen one with `keep_frozen`, and waits until they are erased.
    pub(super) async fn erase_backups(&mut self, keep_frozen: bool) -> Result<(), Error> {
        if !self.entering {
            return Ok(());
        }
        let kept = self.record().frozen.filter(|_| keep_frozen).map(|pin| backup::backup_name(&self.placement.entry.account, pin.due));
        let api: Api<ColdBackup> = Api::all(self.ctx.client.clone());
        for backup in &self.observed.backups {
            let name = backup.name_any();
            let erased = backup.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Erased);
            if kept.as_ref() == Some(&name) || erased {
                continue;
            }
            if backup.spec.hold.is_some() {
                self.waiting_on.push(format!("ColdBackup {name} is held"));
                continue;
            }
            let reached = backup.spec.expires_at.0 <= self.now;
            if backup.metadata.deletion_timestamp.is_none() && !reached {
                if !self.is_unchanged().await? {
                    return Ok(());
                }
                let patch = json!({"metadata": {"annotations": {CONFIRM_DELETE: name}}});
                api.patch(&name, &PatchParams::default(), &Patch::Merge(patch))
                    .await
                    .map(drop)
                    .or_else(ignore_not_found_or_conflict)
                    .during("confirm the erasure of a backup")?;
                api.delete(&name, &DeleteParams::default())
                    .await
                    .map(drop)
                    .or_else(ignore_not_found_or_conflict)
                    .during("erase a backup")?;
            }
            self.waiting_on.push(format!("ColdBackup {name} is being erased"));
        }
        Ok(())
    }

    /// Removes the two approval annotations once the backup that they were about is proven after all. Otherwise they would
    /// count for another backup.
    pub(super) async fn forget_agreement(&self) -> Result<(), Error> {
        let names = [DROP_UNPROVEN_REQUESTED_BY, DROP_UNPROVEN_APPROVED_BY];
        if self.record().unprovable.is_some() || !names.iter().any(|name| self.account.annotations().contains_key(*name)) {
            return Ok(());
        }
        let api: Api<HelpDeskAccount> = Api::all(self.ctx.client.clone());
        let patch = json!({"metadata": {"annotations": {DROP_UNPROVEN_REQUESTED_BY: null, DROP_UNPROVEN_APPROVED_BY: null}}});
        api.patch(&self.account.name_any(), &PatchParams::default(), &Patch::Merge(patch))
            .await
            .map(drop)
            .or_else(ignore_not_found_or_conflict)
            .during("take names off that were written for another backup")
            .map_err(Error::from)
    }

    /// Copies the account's hold onto its backups, and removes the copies when the notice is over.
    pub(super) async fn copy_hold(&mut self) -> Result<(), Error> {
        const COPIED: &str = "hold of the account: ";
        let noticed = self.record().notice_until.is_some_and(|until| until > self.now);
        let api: Api<ColdBackup> = Api::all(self.ctx.client.clone());
        for backup in &self.observed.backups {
            let wanted = match (&self.account.spec.hold, &backup.spec.hold) {
                (Some(hold), None) => {
                    Some(Hold { reason: format!("{COPIED}{}", hold.reason).chars().take(500).collect(), by: hold.by.clone() })
                }
                (None, Some(copied)) if copied.reason.starts_with(COPIED) && !noticed => None,
                _ => continue,
            };
            if backup.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Erased) {
                continue;
            }
            let patch = json!({"spec": {"hold": wanted}});
            api.patch(&backup.name_any(), &PatchParams::default(), &Patch::Merge(patch))
                .await
                .map(drop)
                .or_else(ignore_not_found_or_conflict)
                .during("copy the hold onto a backup")?;
        }
        if let Some(until) = self.record().notice_until.filter(|until| *until > self.now) {
            self.requeue_at(until);
        }
        Ok(())
    }
}
