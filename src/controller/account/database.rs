//! Opens, shuts or drops the tenant's database, as the stage wants it.

use k8s_openapi::jiff::SignedDuration;
use kube::{Api, Resource, ResourceExt};

use super::{credentials, error::Error, namespace, restore_job, work::Work};
use crate::cluster::During;
use crate::controller::tenant_secret::TenantSecret;
use crate::{
    api::{
        HelpDeskAccount,
        conditions::{Finding, Type},
        plan::Schemas,
    },
    app::secrets::AppSecrets,
    backup::{
        self,
        proof::{DropAuthority, OwnerWaiver, UnwantedCopy, WaitOver},
    },
    database::{DatabaseId, Ensured, Lacking, LoginSlot, Probe, TenantLimits},
    ledger::{DatabaseEntry, LoginEntry},
    lifecycle::{self, Stage},
};

impl Work<'_> {
    /// Whether database and login have these limits. While the plan's class is missing, their limits are not known, and
    /// an existing login is left as it is.
    fn has_limits(&self, login: &LoginEntry, limits: &TenantLimits) -> Result<bool, Error> {
        let class_is_unknown = self.plan()?.spec.class.is_some() && self.class()?.is_none();
        let is_same = login.terms.as_ref().is_some_and(|made| class_is_unknown || *made == limits.mark());
        Ok(is_same && self.database()?.makes_schemas == (limits.schemas == Schemas::Own))
    }

    /// Makes the database exist, and lets its tenant log in.
    pub(super) async fn open(&mut self) -> Result<(), Error> {
        self.check_identity()?;
        let namespace = match namespace::ensure(self.ctx, self.account, &self.placement.tenant).await? {
            namespace::Found::Ready(namespace) => namespace,
            namespace::Found::Leaving => {
                self.waiting_on.push("the tenant's namespace of before is still being removed".into());
                self.requeue_at(self.now + SignedDuration::from_secs(5));
                return Ok(());
            }
        };
        let namespace_name = namespace.name.clone();
        let before = self.placement.entry.clone();
        self.placement.entry.namespace = Some(namespace);
        let mut current = before.login.clone().unwrap_or(LoginEntry {
            slot: LoginSlot::A,
            password_set_at: self.now,
            rotation_token: self.asked().cloned(),
            retiring: false,
            terms: None,
            password_lost: false,
            password_hash: None,
        });
        if before.login.is_some() && !self.has_password(&current).await? {
            // Stored in the ledger before a new password is generated: after a crash in between, the server still gets
            // the new password.
            current.password_lost = true;
            self.placement.entry.login = Some(current.clone());
            self.store().await?;
            // An older copy is not used again: it may have been replaced because somebody else knew it.
            TenantSecret::of(self.ctx, &self.placement.tenant).remove(current.slot.name()).await?;
        }
        let password = credentials::password_or_new(self.ctx, self.account, &self.placement.tenant, current.slot).await?;
        let limits = self.limits()?;
        let is_new = self.database()?.database.is_none() || before.login.is_none();
        if is_new || !self.has_limits(&current, &limits)? {
            let Ensured { facts, lacking } = self.ensure(&limits, current.slot, &password).await?;
            self.placement.entry.database = Some(DatabaseEntry {
                name: self.placement.tenant.name.clone(),
                oid: Some(facts.oid),
                system_identifier: facts.system_identifier,
            });
            if lacking.is_empty() {
                current.terms = Some(limits.mark());
            } else {
                self.report_lacking(&lacking, current.terms.is_none());
            }
            self.placement.entry.login = Some(current.clone());
        }
        if current.password_lost {
            let secret = credentials::login_secret(current.slot, &password)?;
            self.ctx
                .telemetry
                .measure("database", "set_password", self.placement.server.driver.set_password(&self.placement.tenant, &secret))
                .await?;
            current.password_lost = false;
            current.password_set_at = self.now;
            tracing::warn!(login = current.slot.name(), "the tenant got another password: the operator's copy was lost, or an older one");
        }
        current.password_hash = Some(credentials::hash(self.ctx, &password));
        self.placement.entry.login = Some(current.clone());
        let shut = !self.database()?.can_login;
        // If the account returned from entering a closing stage, the database may be shut in part.
        if !is_new && (shut || self.entering) {
            self.ctx.telemetry.measure("database", "resume", self.placement.server.driver.resume(&self.placement.tenant)).await?;
            self.placement.entry.access_epoch += i64::from(shut);
        }
        credentials::ensure_binding_secret(self.ctx, self.account, &self.placement, &namespace_name, current.slot, &password).await?;

        if !self.entering {
            let by = credentials::Rotation { limits, asked: self.asked(), interval: self.plan()?.spec.database.rotate_password };
            let slot = current.slot;
            let (rotated, requeue_at) = credentials::rotate(self.ctx, self.account, &self.placement, current, &by, self.now).await?;
            current = rotated;
            self.requeue_at(requeue_at);
            if current.slot != slot {
                let password = credentials::password_or_new(self.ctx, self.account, &self.placement.tenant, current.slot).await?;
                credentials::ensure_binding_secret(self.ctx, self.account, &self.placement, &namespace_name, current.slot, &password)
                    .await?;
            }
            self.placement.entry.login = Some(current);
        }
        if self.placement.entry != before {
            self.store().await?;
            crate::crash::point("home-recorded", self.record().stage.name());
        }
        self.findings.push(Finding::yes(
            Type::DatabaseReady,
            "Open",
            open_to_tenant(&self.placement.tenant.name, &self.placement.server.name, &self.record().restored_without),
        ));
        self.check_quota().await;
        Ok(())
    }

    /// Whether the operator's copy is the password that the server has.
    async fn has_password(&self, login: &LoginEntry) -> Result<bool, Error> {
        let Some(copy) = credentials::password(self.ctx, &self.placement.tenant, login.slot).await? else { return Ok(false) };
        Ok(login.password_hash.as_ref().is_none_or(|hash| *hash == credentials::hash(self.ctx, &copy)))
    }

    /// Reports which extensions are missing. A new tenant waits for them, because its app could not start. An existing
    /// tenant keeps running without them.
    fn report_lacking(&mut self, lacking: &[Lacking], is_new: bool) {
        let text = lacking.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        if is_new && self.entering {
            self.waiting_on.push(text.clone());
        }
        self.findings.push(Finding::yes(Type::ExtensionsMissing, "NotMade", text));
        self.requeue_at(self.now + SignedDuration::from_secs(60));
    }

    async fn ensure(&self, limits: &TenantLimits, slot: LoginSlot, password: &crate::database::Password) -> Result<Ensured, Error> {
        let secret = credentials::login_secret(slot, password)?;
        let work = self.placement.server.driver.ensure(&self.placement.tenant, limits, &secret);
        Ok(self.ctx.telemetry.measure("database", "ensure", work).await?)
    }

    /// Checks that the database on the server is the one that the ledger records, by marker and oid.
    fn check_identity(&self) -> Result<(), Error> {
        let observed = self.database()?;
        let name = &self.placement.tenant.name;
        if observed.foreign {
            return Err(Error::Foreign { what: format!("database or role {name} on server {}", self.placement.server.name) });
        }
        let recorded = self.placement.entry.database.as_ref().and_then(|d| d.oid);
        match (recorded, &observed.database) {
            (Some(oid), None) => Err(Error::LostDatabase {
                name: name.clone(),
                why: format!("the database with oid {oid} is gone, and it was not dropped here"),
            }),
            (Some(oid), Some(facts)) if facts.oid != oid => Err(Error::LostDatabase {
                name: name.clone(),
                why: format!("it has oid {} and the one that was made here had {oid}", facts.oid),
            }),
            _ => Ok(()),
        }
    }

    /// Reports a database that is larger than the plan allows. Blocks nothing, also when the size cannot be read.
    async fn check_quota(&mut self) {
        let Some(max_bytes) = self.plan().ok().and_then(|plan| plan.spec.database.max_bytes()) else { return };
        let finding = match self.ctx.telemetry.measure("database", "size", self.placement.server.driver.size(&self.placement.tenant)).await
        {
            Ok(bytes) if bytes > max_bytes => {
                let message = format!(
                    "the database takes {bytes} bytes, the plan allows {max_bytes}; writes are not refused: move the tenant to a larger plan"
                );
                Finding::yes(Type::QuotaExceeded, "TooLarge", message)
            }
            Ok(_) => return,
            Err(error) => Finding { kind: Type::QuotaExceeded, holds: None, reason: "NotMeasured".into(), message: error.to_string() },
        };
        self.findings.push(finding);
    }

    /// Closes the database to its tenant, and keeps its data.
    pub(super) async fn shut(&mut self) -> Result<(), Error> {
        self.record_database().await?;
        if self.placement.entry.database.is_none() && self.database()?.database.is_none() {
            // The account was blocked before its database was created: there is nothing to shut and nothing to freeze.
            return Ok(());
        }
        self.check_identity()?;
        let observed = self.database()?;
        if self.entering || observed.can_login || observed.sessions > 0 {
            if !self.end_sessions().await? {
                if let Some(since) = self.record().seal_broken_since {
                    let message = format!("somebody is in the database since {since}; once nobody is, its Frozen backup is taken anew");
                    self.findings.push(Finding::no(Type::BlockEnforced, "SealBroken", message));
                }
                return Ok(());
            }
            if let Some(refusal) = self.probe().await? {
                self.waiting_on.push(refusal);
                self.requeue_at(self.now + SignedDuration::from_secs(1));
                return Ok(());
            }
        }
        if self.record().seal_broken_since.is_some() {
            // The last session ended. The next reconcile reads that first, and sets the seal again.
            self.requeue_at(self.now + SignedDuration::from_secs(1));
        }
        self.findings.push(Finding::no(Type::DatabaseReady, "Shut", "the database is closed to its tenant and its data is kept"));
        self.findings.push(Finding::yes(
            Type::BlockEnforced,
            "Refused",
            "the database refuses the tenant's own credentials and has no session",
        ));
        Ok(())
    }

    /// Shuts every login and ends every session. `false` while sessions are left.
    async fn end_sessions(&mut self) -> Result<bool, Error> {
        let work = self.placement.server.driver.suspend(&self.placement.tenant);
        let left = self.ctx.telemetry.measure("database", "suspend", work).await?;
        if left.sessions_left > 0 {
            self.waiting_on.push(format!("{} sessions in the database do not end (of {})", left.sessions_left, left.holders.join(", ")));
            self.requeue_at(self.now + SignedDuration::from_secs(1));
        }
        Ok(left.sessions_left == 0)
    }

    /// Tries to log in with the tenant's own credentials. Returns the problem if the server lets them in.
    async fn probe(&self) -> Result<Option<String>, Error> {
        let Some(current) = &self.placement.entry.login else { return Ok(None) };
        let Some(password) = credentials::password(self.ctx, &self.placement.tenant, current.slot).await? else { return Ok(None) };
        let work = self.placement.server.driver.probe(&self.placement.tenant, current.slot, &password);
        let outcome = self.ctx.telemetry.measure("database", "probe", work).await?;
        Ok((outcome == Probe::LetIn).then(|| "the database still let the tenant's credentials in".to_owned()))
    }

    /// Drops the database, under an authority that is checked right before.
    pub(super) async fn gone(&mut self) -> Result<(), Error> {
        self.record_database().await?;
        let Some(recorded) = self.placement.entry.database.clone() else { return Ok(()) };
        if self.database()?.foreign {
            return Err(Error::Foreign {
                what: format!("database or role {} on server {}", self.placement.tenant.name, self.placement.server.name),
            });
        }
        let Some(oid) = recorded.oid else { return Ok(()) };
        let facts = DatabaseId { oid, system_identifier: recorded.system_identifier.clone() };
        if self.record().holds_only_a_copy() {
            let comes_back = lifecycle::due(self.record()).is_some_and(|next| next.stage == Stage::Active);
            return if comes_back { Ok(()) } else { self.drop_copy(&facts).await };
        }
        if self.database()?.database.is_some() {
            self.check_identity()?;
            if !self.end_sessions().await? {
                return Ok(());
            }
        }
        let Some(authority) = self.authority().await? else { return Ok(()) };
        let mut dropped_under = authority.told();
        if let Some(dropped_under) = &mut dropped_under
            && let Some(backup) =
                self.observed.frozen_backup(&self.placement.entry).filter(|b| dropped_under.backup.as_ref() == Some(&b.name_any()))
        {
            // The certificate names only the objects that were left out: their reasons may quote the tenant's data.
            let left_out = backup.status.iter().flat_map(|status| &status.left_out);
            dropped_under.left_out =
                left_out.map(|text| text.split_once(" (").map_or(text.as_str(), |(what, _)| what).to_owned()).collect();
        }
        let secrets = self.secrets_of_cold_backup(&authority).await?;
        if !self.is_unchanged().await? {
            return Ok(());
        }
        if self.record().dropped_under != dropped_under {
            self.placement.entry.record.dropped_under = dropped_under;
            self.store().await?;
            crate::crash::point("authority-recorded", self.record().stage.name());
        }
        self.ctx
            .telemetry
            .measure("database", "drop", self.placement.server.driver.drop(&self.placement.tenant, &facts, &authority))
            .await?;
        crate::crash::point("database-dropped", self.record().stage.name());
        self.forget_database(secrets).await
    }

    /// Drops a copy that a restore made and that is useless.
    pub(super) async fn drop_copy(&mut self, facts: &DatabaseId) -> Result<(), Error> {
        let uid = &self.placement.entry.uid;
        let Some(copy) = UnwantedCopy::of(self.record(), uid, facts.oid, &facts.system_identifier) else { return Ok(()) };
        let authority = DropAuthority::Unwanted(copy);
        let backup = self.observed.frozen_backup(&self.placement.entry);
        if let (Some(backup), Some(since)) = (backup, self.record().restoring_since) {
            restore_job::discard(self.ctx, backup, since).await?;
        }
        let secrets = self.secrets_of_cold_backup(&authority).await?;
        if !self.is_unchanged().await? {
            return Ok(());
        }
        let record = &mut self.placement.entry.record;
        if record.restored.take().is_some() {
            // Stored before the drop: a payment that comes after a crash in between begins another restore.
            record.restoring_since = None;
            record.restored_without.clear();
            self.store().await?;
        }
        self.ctx
            .telemetry
            .measure("database", "drop", self.placement.server.driver.drop(&self.placement.tenant, facts, &authority))
            .await?;
        crate::crash::point("copy-dropped", self.record().stage.name());
        tracing::info!("dropped what a restore had made");
        self.forget_database(secrets).await
    }

    /// Discards the passwords of a database that was dropped, and its app's secrets but for those that the cold backup
    /// lacks, and stores that it is gone.
    async fn forget_database(&mut self, saved: Option<AppSecrets>) -> Result<(), Error> {
        let own = TenantSecret::of(self.ctx, &self.placement.tenant);
        match saved {
            Some(saved) => own.delete_saved(&saved).await?,
            None => own.delete().await?,
        }
        self.placement.entry.database = None;
        self.placement.entry.login = None;
        self.store().await
    }

    /// Records a database of the tenant that the ledger does not have: the operator crashed between making it and storing
    /// that.
    async fn record_database(&mut self) -> Result<(), Error> {
        let (None, Ok(observed)) = (&self.placement.entry.database, &self.observed.database) else { return Ok(()) };
        let Some(facts) = observed.database.as_ref().filter(|_| !observed.foreign) else { return Ok(()) };
        let name = self.placement.tenant.name.clone();
        let system_identifier = facts.system_identifier.clone();
        self.placement.entry.database = Some(DatabaseEntry { name, oid: Some(facts.oid), system_identifier });
        self.store().await
    }

    /// The secrets of the app that outlive the database with its cold backup; `None`: no backup outlives it.
    async fn secrets_of_cold_backup(&self, authority: &DropAuthority) -> Result<Option<AppSecrets>, Error> {
        let outlived = match authority {
            DropAuthority::Verified(_) => true,
            DropAuthority::Unwanted(_) => self.record().stage == Stage::Deleted,
            DropAuthority::Waived(_) | DropAuthority::Unprovable(_) => false,
        };
        let Some(backup) = self.observed.frozen_backup(&self.placement.entry).filter(|_| outlived) else { return Ok(None) };
        Ok(Some(restore_job::app_secrets(self.ctx, backup).await?))
    }

    /// Whether the account object is still what this reconcile decided on. It is read from the API server, not from a
    /// cache, right before something is destroyed for ever. `false`: the reconcile must end, and another one follows.
    pub(super) async fn is_unchanged(&mut self) -> Result<bool, Error> {
        let api: Api<HelpDeskAccount> = Api::all(self.ctx.client.clone());
        let live = api.get_opt(&self.account.name_any()).await.during("read the account afresh")?;
        let is_unchanged = live.is_some_and(|live| has_same_inputs(self.account, &live));
        if !is_unchanged {
            self.waiting_on.push("the account was changed since it was read; it is looked at again before anything is destroyed".into());
            self.requeue_at(self.now + SignedDuration::from_secs(1));
        }
        Ok(is_unchanged)
    }

    /// The permission to drop: a backup that is rechecked right now, the owner's waiver, or the end of the wait for a
    /// backup that cannot be proven. `None`: the backup is older than the seal, or of the server under another identity, and
    /// the next reconcile goes back and takes another one.
    async fn authority(&mut self) -> Result<Option<DropAuthority>, Error> {
        let record = self.record();
        let uid = &self.placement.entry.uid;
        if record.reason.is_unproven() {
            return WaitOver::of(record, &self.placement.entry.account, uid, &self.observed.clock, self.now)
                .map(|over| Some(DropAuthority::Unprovable(over)))
                .ok_or_else(|| Error::NoAuthority("the wait for a backup that cannot be proven is not over".into()));
        }
        if record.waives_backup() {
            let generation = self.account.metadata.generation.unwrap_or_default();
            return OwnerWaiver::of(record, uid, generation, &self.observed.clock, self.now)
                .map(|waiver| Some(DropAuthority::Waived(waiver)))
                .ok_or_else(|| Error::NoAuthority("the delay after the owner's wish has not passed".into()));
        }
        let backup = self
            .observed
            .frozen_backup(&self.placement.entry)
            .ok_or_else(|| Error::NoAuthority("its Frozen backup is not there".into()))?;
        let proof = backup::recheck(&self.ctx.stores, &self.ctx.key_ring(), backup, uid, (self.ctx.now)()).await?;
        let own = self.placement.entry.database.as_ref();
        let is_own = own.is_some_and(|own| own.oid == Some(proof.database_oid) && own.system_identifier == proof.system_identifier);
        if is_own && record.seals(proof.snapshot_at) {
            return Ok(Some(DropAuthority::Verified(proof)));
        }
        let message = format!("the backup {} is not of this database since its last session ended; another one is taken", proof.backup);
        self.waiting_on.push(message);
        self.requeue_at(self.now);
        self.placement.entry.record = lifecycle::discard_frozen(self.record());
        self.store().await?;
        Ok(None)
    }
}

/// Whether two reads of an account object agree in every field that decides about the account's data.
fn has_same_inputs(observed: &HelpDeskAccount, live: &HelpDeskAccount) -> bool {
    let own_annotations = |account: &HelpDeskAccount| -> Vec<(String, String)> {
        account
            .annotations()
            .iter()
            .filter(|(key, _)| key.starts_with("helpdesk-operator.io/"))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect()
    };
    let billing = |account: &HelpDeskAccount| account.status.as_ref().and_then(|status| status.billing.clone());
    observed.uid() == live.uid()
        && observed.spec == live.spec
        && observed.meta().deletion_timestamp.is_some() == live.meta().deletion_timestamp.is_some()
        && own_annotations(observed) == own_annotations(live)
        && billing(observed) == billing(live)
}

/// Says that a database is open, and what a restore could not bring back as it was.
fn open_to_tenant(database: &str, server: &str, without: &[String]) -> String {
    let mut text = format!("database {database} on server {server} is open to its tenant");
    if !without.is_empty() {
        text += &format!("; it came back from a cold backup with every row, but {}", without.join("; "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_decides_about_data_is_compared_before_a_database_is_dropped() {
        let account = |changes: serde_json::Value| -> HelpDeskAccount {
            let mut account = serde_json::json!({
                "apiVersion": "helpdesk-operator.io/v1alpha1", "kind": "HelpDeskAccount",
                "metadata": {"name": "acme", "uid": "u-1", "annotations": {"helpdesk-operator.io/rotate-password": "1"}},
                "spec": {"owner": {"name": "Ana", "email": "ana@acme.example"}, "plan": "standard", "region": "eu-1", "domain": {"slug": "acme"}},
                "status": {"stage": "Terminated", "billing": {"state": "Unpaid", "since": "2026-11-23T10:00:00Z", "sequence": 41}}
            });
            json_patch(&mut account, &changes);
            serde_json::from_value(account).unwrap()
        };
        let observed = account(serde_json::json!({}));
        for same in [
            serde_json::json!({}),
            serde_json::json!({"metadata": {"annotations": {"example.org/x": "1"}}, "status": {"stage": "Deleted"}}),
        ] {
            assert!(has_same_inputs(&observed, &account(same.clone())), "{same}");
        }
        for changed in [
            serde_json::json!({"metadata": {"uid": "u-2"}}),
            serde_json::json!({"metadata": {"deletionTimestamp": "2026-11-23T10:00:00Z"}}),
            serde_json::json!({"metadata": {"annotations": {"helpdesk-operator.io/confirm-delete": "acme"}}}),
            serde_json::json!({"spec": {"hold": {"reason": "case 7"}}}),
            serde_json::json!({"spec": {"closure": {"mode": "Cancel"}}}),
            serde_json::json!({"spec": {"paused": true}}),
            serde_json::json!({"status": {"billing": {"state": "Active", "sequence": 42}}}),
        ] {
            assert!(!has_same_inputs(&observed, &account(changed.clone())), "{changed}");
        }
    }

    fn json_patch(into: &mut serde_json::Value, changes: &serde_json::Value) {
        match (into, changes) {
            (serde_json::Value::Object(into), serde_json::Value::Object(changes)) => {
                for (key, change) in changes {
                    json_patch(into.entry(key).or_insert(serde_json::Value::Null), change);
                }
            }
            (into, change) => *into = change.clone(),
        }
    }
}
