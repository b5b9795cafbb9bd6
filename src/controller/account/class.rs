//! The revision of its class that an account has: which it is, and how the account is upgraded to another one.

use std::sync::Arc;

use k8s_openapi::jiff::SignedDuration;
use kube::{ResourceExt, runtime::reflector::ObjectRef};

use super::{error::Error, placement, work::Work};
use crate::{
    api::{
        BackupPhase, BackupReason, ColdBackup, HelpDeskClass, HelpDeskClassSpec,
        conditions::{Finding, Type},
        plan::Backups as BackupTerms,
    },
    app::{revision, workloads},
    backup,
    clock::Moment,
    lifecycle::PinnedClass,
};

/// When a revision that the class names already is looked for again in the cache.
const REVISION_RETRY: SignedDuration = SignedDuration::from_secs(1);
/// When a backup is asked for again that could not be asked for.
const RETRY: SignedDuration = SignedDuration::from_secs(30);

impl Work<'_> {
    /// Pins a revision of the class: the present one for an account that has none, and the present one again when it is
    /// the account's turn to be upgraded. What needs the hook `migrate` waits for a proven backup first; the app goes on as
    /// it is meanwhile.
    pub(super) async fn pin_class(&mut self) -> Result<(), Error> {
        let Some(name) = self.plan()?.spec.class.clone() else { return Ok(()) };
        let Some(class) = self.ctx.caches.classes.get(&ObjectRef::<HelpDeskClass>::new(&name)) else { return Ok(()) };
        let status = class.status.clone().unwrap_or_default();
        let pinned = self.record().class.clone().filter(|pinned| pinned.name == name);
        // Until the class's controller has seen the class as it is now, the revision that its status names is an older one.
        let Some(wanted) = status.revision.filter(|_| status.observed_generation == class.metadata.generation) else { return Ok(()) };
        if pinned.as_ref().is_some_and(|pinned| pinned.revision == wanted) {
            return Ok(());
        }
        let turn = status.upgrading.iter().find(|upgrading| upgrading.account == self.placement.entry.account);
        if (pinned.is_some() && turn.is_none()) || (pinned.is_none() && !workloads::has_workloads(&class.spec)) {
            return Ok(());
        }
        let Some(spec) = self.ctx.class_in(&wanted) else {
            self.requeue_at(self.now + REVISION_RETRY);
            return Ok(());
        };
        let migration = revision::migration(&spec);
        let migrated = match (pinned, turn) {
            // The hook `bootstrap` makes the schema of this revision.
            (None, _) => Some(migration),
            (Some(pinned), _) if spec.hooks.migrate.is_none() || pinned.migrated.as_ref() == Some(&migration) => pinned.migrated,
            (Some(pinned), Some(turn)) if self.is_backed_up(turn.since.0).await => pinned.migrated,
            (Some(_), _) => return Ok(()),
        };
        tracing::info!(revision = wanted, "the account gets another revision of its class");
        self.placement.entry.record.class = Some(PinnedClass { name, revision: wanted, since: self.now, migrated });
        self.store().await?;
        crate::crash::point("class-pinned", self.record().stage.name());
        Ok(())
    }

    /// Whether the backup is proven that was asked for at `since`, when the account's turn came. It is asked for if it does
    /// not exist.
    async fn is_backed_up(&mut self, since: Moment) -> bool {
        let name = backup::backup_name(&self.placement.entry.account, since);
        let is_proven = |backup: &Arc<ColdBackup>| backup.status.as_ref().is_some_and(|status| status.phase == BackupPhase::Verified);
        match self.observed.backups.iter().find(|backup| backup.name_any() == name) {
            Some(backup) if is_proven(backup) => return true,
            Some(_) => {}
            None => {
                if let Err(error) = self.ask_for_backup(since).await {
                    self.requeue_at(self.now + RETRY);
                    self.findings.push(Finding::yes(Type::Reconciling, error.reason(), error.with_causes()));
                    return false;
                }
            }
        }
        let message = format!("the account is upgraded once ColdBackup {name} is proven; its app goes on as it is meanwhile");
        self.findings.push(Finding::yes(Type::Reconciling, "Upgrading", message));
        false
    }

    async fn ask_for_backup(&self, due: Moment) -> Result<(), Error> {
        let plan = self.plan()?;
        let BackupTerms { keep, verify, .. } = plan.spec.backups.clone();
        let store = placement::placement(plan, self.account)?.store.clone();
        self.create_backup(&store, self.now + keep.duration(), BackupReason::Upgrade, verify, due).await
    }

    /// A name for the migration that the database needs before the app of this revision may use it; `None`: it has had it.
    pub(super) fn migration_due(&self, class: &HelpDeskClassSpec) -> Option<String> {
        let pinned = self.record().class.as_ref().filter(|_| class.hooks.migrate.is_some())?;
        let wanted = revision::migration(class);
        let is_done = pinned.migrated.as_ref() == Some(&wanted);
        (!is_done).then(|| crate::digest::sha256(format!("{wanted} {}", pinned.since).as_bytes())[..10].to_owned())
    }

    /// Stores that the database has had the hook `migrate` of this revision.
    pub(super) async fn store_migrated(&mut self, class: &HelpDeskClassSpec) -> Result<(), Error> {
        let Some(pinned) = &mut self.placement.entry.record.class else { return Ok(()) };
        pinned.migrated = Some(revision::migration(class));
        self.store().await?;
        crate::crash::point("migration-recorded", self.record().stage.name());
        Ok(())
    }
}
