//! Creates the ColdBackups of an account when they are due, copies holds to them, and erases them with the stage.

use std::sync::Arc;

use k8s_openapi::jiff::SignedDuration;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::reflector::ObjectRef,
};
use serde_json::json;

use super::{error::Error, work::Work};
use crate::{
    api::{
        BackupPhase, BackupReason, CONFIRM_DELETE, ColdBackup, DROP_UNPROVEN_APPROVED_BY, DROP_UNPROVEN_REQUESTED_BY, HelpDeskAccount,
        Hold,
        conditions::{self, Finding, Type},
        plan::Backups as BackupTerms,
    },
    backup::{self, schedule},
    clock::Moment,
    cluster::{During, ignore_not_found_or_conflict},
    lifecycle::Known,
};

/// How soon the creation of a backup that failed is tried again.
const RETRY: SignedDuration = SignedDuration::from_secs(10);

/// Whether the newest proven backup is as new as the schedule demands: not older than `expected`. `since` is when the
/// account was opened.
fn current(backups: &[Arc<ColdBackup>], since: Moment, expected: Option<Moment>) -> Finding {
    let phase = |backup: &ColdBackup| backup.status.as_ref().map(|status| status.phase).unwrap_or_default();
    // The API server's clock may be behind the one by which the backup was due; the mover was started by the latter.
    let started = |backup: &ColdBackup| Some(backup.status.as_ref()?.started_at.as_ref()?.0);
    let made = |backup: &ColdBackup| backup.creation_timestamp().map(|at| at.0).max(started(backup));
    let newest = backups.iter().filter(|b| phase(b) == BackupPhase::Verified).max_by_key(|b| made(b));
    let newest_made = newest.and_then(|backup| made(backup));
    let later = |backup: &&Arc<ColdBackup>| made(backup) > newest_made;
    if let Some(failed) = backups.iter().filter(later).rev().find(|b| phase(b) == BackupPhase::Failed) {
        return Finding::no(Type::BackupsCurrent, "BackupFailed", format!("ColdBackup {} failed; see its conditions", failed.name_any()));
    }
    if let Some(expected) = expected.filter(|expected| newest_made.is_none_or(|made| made < *expected)) {
        let is_open = |b: &&Arc<ColdBackup>| matches!(phase(b), BackupPhase::Pending | BackupPhase::Running);
        let cause = match backups.iter().filter(later).find(is_open) {
            Some(open) => format!("ColdBackup {} is not done; see the movers of its server", open.name_any()),
            None => "none was created, or it is gone; see Ready and the log of the operator".to_owned(),
        };
        return Finding::no(Type::BackupsCurrent, "BackupLate", format!("the backup that was due at {expected} is not proven: {cause}"));
    }
    match newest.and_then(|backup| backup.status.as_ref()?.verified_at.as_ref()) {
        Some(at) => Finding::yes(Type::BackupsCurrent, "Verified", format!("the newest proven backup is of {}", at.0)),
        None => Finding::yes(Type::BackupsCurrent, "NoneDue", format!("no backup had to be proven since {since}")),
    }
}

impl Work<'_> {
    /// Creates the ColdBackup that is due by the plan's schedule.
    pub(super) async fn schedule_backup(&mut self) -> Result<(), Error> {
        let (Some(since), Known::Known(plan)) = (self.record().enforced_at, &self.observed.plan) else { return Ok(()) };
        let BackupTerms { schedule: cron, keep, verify } = plan.spec.backups.clone();
        let store = super::placement::placement(plan, self.account)?.store.clone();
        let uid = self.placement.entry.uid.clone();
        let invalid = |error| Error::Placement(format!("spec.backups.schedule of plan {}: {error}", plan.name_any()));
        let last = self.record().last_scheduled.map_or(since, |last| last.max(since));
        let (due, next) = schedule::due(&cron, &uid, last, self.now).map_err(invalid)?;
        let expected = schedule::expected(&cron, &uid, since, self.now).map_err(invalid)?;
        self.requeue_at(next);
        if let Some(due) = due {
            let expires_at = due + keep.duration();
            if expires_at > self.now {
                if let Err(error) = self.create_backup(&store, expires_at, BackupReason::Scheduled, verify, due).await {
                    self.findings.push(Finding::no(Type::BackupsCurrent, "BackupNotCreated", error.with_causes()));
                    self.requeue_at(self.now + RETRY);
                    return Ok(());
                }
                crate::crash::point("backup-scheduled", &self.placement.entry.account);
            }
            // Stored only after the object was created: until then every look tries again, under the same name.
            self.placement.entry.record.last_scheduled = Some(due);
            self.store().await?;
        }
        if self.ctx.caches.stores.get(&ObjectRef::new(&store)).is_none() {
            let message = format!("there is no BackupStore {store}, which plan {} names, so nothing is backed up", self.account.spec.plan);
            self.findings.push(Finding::no(Type::BackupsCurrent, "NoStore", message));
            return Ok(());
        }
        self.findings.push(current(&self.observed.backups, since, expected));
        Ok(())
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
            // One that is kept beyond its deadline is not erased by itself at once.
            let retained = backup.status.as_ref().is_some_and(|s| s.retained_until.is_some());
            let reached = backup.spec.expires_at.0 <= self.now && !retained;
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

    /// Says which backups should be erased by now and are not.
    pub(super) fn report_overdue_backups(&mut self) {
        for backup in &self.observed.backups {
            let overdue = backup.status.as_ref().and_then(|s| conditions::find(&s.conditions, Type::Overdue));
            if let Some(overdue) = overdue {
                let message = format!("ColdBackup {}: {}", backup.name_any(), overdue.message);
                self.findings.push(Finding::yes(Type::Overdue, "BackupNotErased", message));
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ColdBackupStatus, Time, VerifyMode};

    fn at(text: &str) -> Moment {
        text.parse().unwrap()
    }

    fn backup(due: &str, phase: BackupPhase) -> Arc<ColdBackup> {
        let mut backup = backup::build("acme", "uid", "s", at(END), BackupReason::Scheduled, VerifyMode::Read, at(due));
        backup.metadata.creation_timestamp = Some(Time(at(due)));
        let verified_at = (phase != BackupPhase::Pending).then(|| Time(at(due)));
        backup.status = Some(ColdBackupStatus { phase, verified_at, ..ColdBackupStatus::default() });
        Arc::new(backup)
    }

    const OPENED: &str = "2026-11-01T00:00:00Z";
    const FIRST: &str = "2026-11-23T02:00:00Z";
    const SECOND: &str = "2026-11-24T02:00:00Z";
    const END: &str = "2026-12-24T02:00:00Z";

    fn reason(backups: &[Arc<ColdBackup>], expected: Option<&str>) -> String {
        current(backups, at(OPENED), expected.map(at)).reason.to_string()
    }

    #[test]
    fn backups_are_current_only_if_the_newest_proven_one_is_as_new_as_the_schedule_demands() {
        use BackupPhase::{Erased, Failed, Pending, Verified};
        assert_eq!(reason(&[], None), "NoneDue");
        assert_eq!(reason(&[], Some(FIRST)), "BackupLate", "its creation failed");
        assert_eq!(reason(&[backup(FIRST, Verified)], Some(FIRST)), "Verified");
        assert_eq!(reason(&[backup(FIRST, Verified)], Some(SECOND)), "BackupLate");
        assert_eq!(reason(&[backup(FIRST, Verified), backup(SECOND, Pending)], Some(SECOND)), "BackupLate");
        assert_eq!(reason(&[backup(FIRST, Verified), backup(SECOND, Pending)], Some(FIRST)), "Verified");
        assert_eq!(reason(&[backup(FIRST, Erased)], Some(FIRST)), "BackupLate", "what was erased is no backup");
        assert_eq!(reason(&[backup(FIRST, Verified), backup(SECOND, Failed)], Some(FIRST)), "BackupFailed");
        assert_eq!(reason(&[backup(FIRST, Failed), backup(SECOND, Verified)], Some(SECOND)), "Verified");
    }
}
