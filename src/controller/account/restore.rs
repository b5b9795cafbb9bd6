//! Restores a Deleted account: its cold backup is restored into a new database, and the two are compared before the tenant
//! can log in.

use k8s_openapi::jiff::SignedDuration;
use kube::ResourceExt;

use super::{credentials, error::Error, restore_job, work::Work};
use crate::controller::tenant_secret::TenantSecret;
use crate::{
    api::ColdBackup,
    clock::Moment,
    database::{DatabaseId, LoginSlot},
    ledger::{DatabaseEntry, LoginEntry},
};

impl Work<'_> {
    /// Restores the Frozen backup into a new database. `true` once the database equals the backup; it is still shut then.
    pub(super) async fn restore(&mut self) -> Result<bool, Error> {
        let Some(backup) = self.observed.frozen_backup(&self.placement.entry).cloned() else {
            return Err(Error::NoAuthority("the cold backup is not there to restore".into()));
        };
        let since = self.record().restoring_since.unwrap_or(self.now);
        if self.record().restored == Some(since) {
            return self.end_restore(&backup, since).await;
        }
        if restore_job::progress(self.ctx, &backup, since).await? == restore_job::Progress::NotStarted {
            if let Some(refusal) = self.ctx.settings.clients.refusal(self.placement.server.identity.major) {
                self.waiting_on.push(refusal);
                self.requeue_at(self.now + SignedDuration::from_secs(60));
                return Ok(false);
            }
            if let Some(DatabaseEntry { oid: Some(oid), system_identifier, .. }) = self.placement.entry.database.clone() {
                // An attempt that was not completed, or one that was given up before the account was paid for once more.
                self.drop_copy(&DatabaseId { oid, system_identifier }).await?;
                if self.placement.entry.database.is_some() {
                    return Ok(false);
                }
            }
            // What the app wrote may be encrypted with them: they are there before the app is started again.
            let app_secrets = restore_job::app_secrets(self.ctx, &backup).await?;
            if !app_secrets.is_empty() {
                TenantSecret::of(self.ctx, &self.placement.tenant).put(&self.placement.entry.account, app_secrets.iter()).await?;
            }
            let limits = self.limits()?;
            let password = credentials::password_or_new(self.ctx, self.account, &self.placement.tenant, LoginSlot::A).await?;
            let secret = credentials::login_secret(LoginSlot::A, &password)?;
            let (extensions, _) = restore_job::needs(self.ctx, &backup).await?;
            let work = self.placement.server.driver.prepare_restore(&self.placement.tenant, &limits, &secret, &extensions);
            let (facts, mover) = self.ctx.telemetry.measure("database", "prepare_restore", work).await?;
            self.placement.entry.database = Some(DatabaseEntry {
                name: self.placement.tenant.name.clone(),
                oid: Some(facts.oid),
                system_identifier: facts.system_identifier.clone(),
            });
            self.placement.entry.login = Some(LoginEntry {
                slot: LoginSlot::A,
                password_set_at: self.now,
                rotation_token: self.asked().cloned(),
                retiring: false,
                terms: None,
                password_lost: false,
                password_hash: Some(credentials::hash(self.ctx, &password)),
            });
            self.store().await?;
            crate::crash::point("restore-prepared", "Deleted");
            restore_job::start(self.ctx, &backup, &self.placement.server.name, &mover, &facts, since).await?;
        }
        match restore_job::progress(self.ctx, &backup, since).await? {
            restore_job::Progress::Done(report) => {
                let oid = self.placement.entry.database.as_ref().and_then(|d| d.oid);
                if oid != Some(report.database_oid) {
                    return Err(Error::NoAuthority("the restore's report is about another database".into()));
                }
                let limits = self.limits()?;
                let (_, settings) = restore_job::needs(self.ctx, &backup).await?;
                let work = self.placement.server.driver.finish_restore(&self.placement.tenant, &limits, &settings);
                self.ctx.telemetry.measure("database", "finish_restore", work).await?;
                let left_out = report.restored.map(|restored| restored.left_out).unwrap_or_default();
                self.placement.entry.record.restored_without = left_out.iter().map(ToString::to_string).collect();
                // The backup may be older than what migrated the database last.
                if let Some(pinned) = &mut self.placement.entry.record.class {
                    pinned.migrated = None;
                }
                // Stored before the Job is deleted: without the Job, the restore would begin anew.
                self.placement.entry.record.restored = Some(since);
                self.store().await?;
                crate::crash::point("restore-proven", "Deleted");
                tracing::info!(backup = backup.name_any(), "the cold backup was restored and is equal to what was frozen");
                self.end_restore(&backup, since).await
            }
            restore_job::Progress::Failed(why) => {
                restore_job::discard(self.ctx, &backup, since).await?;
                Err(Error::RestoreFailed { backup: backup.name_any(), why })
            }
            restore_job::Progress::NotStarted | restore_job::Progress::Running => {
                self.waiting_on.push(format!("ColdBackup {} is being restored", backup.name_any()));
                self.requeue_at(self.now + SignedDuration::from_secs(2));
                Ok(false)
            }
        }
    }
    /// Removes what a completed restore left. `true`: the database equals the backup.
    async fn end_restore(&self, backup: &ColdBackup, since: Moment) -> Result<bool, Error> {
        restore_job::discard(self.ctx, backup, since).await?;
        crate::crash::point("restore-tidied", "Deleted");
        Ok(true)
    }
}
