//! Making the world as the stage wants it. Every effect is idempotent and guarded by an ownership marker.

use std::collections::BTreeMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::{
    advance::Decided,
    controller::Desk,
    error::{During, Error},
    home::Home,
    login, namespace,
    observe::Observation,
    world::{self, Backups, Database},
};
use crate::{
    api::{
        BackupPhase, BackupReason, CONFIRM_DELETE, ColdBackup, HelpDeskAccount, Hold, ROTATE_PASSWORD, Time,
        account::Certificate,
        conditions::{Finding, Type},
        plan::{Backups as BackupTerms, HelpDeskPlan},
    },
    backup::{
        self,
        proof::{DropAuthority, OwnerWaiver},
        restore, schedule,
    },
    clock::Moment,
    database::{DatabaseFacts, Letter, Observed, Probe, Terms},
    ledger::{DatabaseEntry, LoginEntry},
    lifecycle::{Known, Record, Step},
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
    /// When a part wants to be looked at again.
    pub wake_at: Option<Moment>,
}

/// One account's work in this reconcile.
struct Work<'a> {
    desk: &'a Desk,
    account: &'a HelpDeskAccount,
    seen: &'a Observation,
    home: Home,
    now: Moment,
    /// Whether the stage's effects are under way, as opposed to being kept up.
    entering: bool,
    waiting_on: Vec<String>,
    findings: Vec<Finding>,
    wake_at: Option<Moment>,
}

/// Makes the world as the decision wants it, as far as it goes now.
pub(super) async fn realize(
    desk: &Desk,
    account: &HelpDeskAccount,
    seen: &Observation,
    decided: Decided,
    now: Moment,
) -> Result<Realized, Error> {
    let Decided { home, verdict, refused } = decided;
    let entering = home.entry.record.enforced_at.is_none();
    let may_act = !account.spec.paused && (!entering || verdict.step != Step::Stay);
    let mut work = Work { desk, account, seen, home, now, entering, waiting_on: vec![], findings: vec![], wake_at: None };
    let mut restored = false;
    if may_act {
        work.copy_hold().await?;
        if verdict.step == Step::Restore {
            restored = work.restore().await?;
        } else {
            work.stage().await?;
        }
    }
    let Work { home, waiting_on, findings, wake_at, .. } = work;
    let complete = may_act && waiting_on.is_empty() && verdict.step != Step::Restore;
    Ok(Realized { decided: Decided { home, verdict, refused }, waiting_on, complete, restored, findings, wake_at })
}

impl Work<'_> {
    async fn stage(&mut self) -> Result<(), Error> {
        let world = world::wanted(self.home.entry.record.stage);
        match world.database {
            Database::Open => self.open().await?,
            Database::Shut => self.shut().await?,
            Database::Gone => self.gone().await?,
        }
        if !world.namespace {
            self.remove_namespace().await?;
        }
        match world.backups {
            Backups::Scheduled => self.schedule_backup().await?,
            Backups::Frozen => self.freeze().await?,
            Backups::FrozenOnly => self.erase_backups(self.home.entry.record.frozen.is_some()).await?,
            Backups::Gone => self.erase_backups(false).await?,
        }
        if !world.personal_data && self.waiting_on.is_empty() {
            self.certify().await?;
        }
        Ok(())
    }

    fn record(&self) -> &Record {
        &self.home.entry.record
    }

    fn plan(&self) -> Result<&HelpDeskPlan, Error> {
        match &self.seen.plan {
            Known::Known(plan) => Ok(plan),
            Known::Unknown(why) => Err(Error::Placement(why.clone())),
        }
    }

    fn terms(&self) -> Result<Terms, Error> {
        Ok(Terms { connection_limit: self.plan()?.spec.database.connection_limit })
    }

    fn database(&self) -> Result<&Observed, Error> {
        self.seen.database.as_ref().map_err(|error| Error::Database(error.clone()))
    }

    fn wake(&mut self, at: Moment) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }

    async fn store(&mut self) -> Result<(), Error> {
        let entry = &self.home.entry;
        self.home.entry = self.desk.telemetry.measure("ledger", "update", self.home.server.ledger.update(entry, entry.revision)).await?;
        Ok(())
    }

    /// The database exists and its tenant logs in.
    async fn open(&mut self) -> Result<(), Error> {
        self.check_identity()?;
        let namespace = match namespace::ensure(self.desk, self.account, &self.home.tenant).await? {
            namespace::Found::Ready(namespace) => namespace,
            namespace::Found::Leaving => {
                self.waiting_on.push("the tenant's namespace of before is still being removed".into());
                self.wake(self.now + k8s_openapi::jiff::SignedDuration::from_secs(5));
                return Ok(());
            }
        };
        let namespace_name = namespace.name.clone();
        let before = self.home.entry.clone();
        self.home.entry.namespace = Some(namespace);
        let mut current = before.login.clone().unwrap_or(LoginEntry {
            letter: Letter::A,
            password_set_at: self.now,
            rotation_token: self.asked().cloned(),
            retiring: false,
        });
        let password = login::password_or_new(self.desk, self.account, &self.home.tenant, current.letter).await?;
        let terms = self.terms()?;
        if self.database()?.database.is_none() || before.login.is_none() {
            let facts = self.ensure(&terms, current.letter, &password).await?;
            self.home.entry.database = Some(DatabaseEntry {
                name: self.home.tenant.name.clone(),
                oid: Some(facts.oid),
                system_identifier: facts.system_identifier,
            });
            self.home.entry.login = Some(current.clone());
        } else if !self.database()?.can_login {
            self.desk.telemetry.measure("database", "resume", self.home.server.server.resume(&self.home.tenant)).await?;
            self.home.entry.access_epoch += 1;
        }
        login::hand_over(self.desk, self.account, &self.home, &namespace_name, current.letter, &password).await?;

        if !self.entering {
            let by = login::Rotation { terms, asked: self.asked(), interval: self.plan()?.spec.database.rotate_password };
            let letter = current.letter;
            let (rotated, look_again) = login::rotate(self.desk, self.account, &self.home, current, &by, self.now).await?;
            current = rotated;
            self.wake(look_again);
            if current.letter != letter {
                let password = login::password_or_new(self.desk, self.account, &self.home.tenant, current.letter).await?;
                login::hand_over(self.desk, self.account, &self.home, &namespace_name, current.letter, &password).await?;
            }
            self.home.entry.login = Some(current);
        }
        if self.home.entry != before {
            self.store().await?;
            crate::crash::point("home-recorded", self.record().stage.name());
        }
        self.findings.push(Finding::yes(
            Type::DatabaseReady,
            "Open",
            format!("database {} on server {} is open to its tenant", self.home.tenant.name, self.home.server.name),
        ));
        self.check_quota();
        Ok(())
    }

    async fn ensure(&self, terms: &Terms, letter: Letter, password: &crate::database::Password) -> Result<DatabaseFacts, Error> {
        let secret = login::verified(letter, password)?;
        let work = self.home.server.server.ensure(&self.home.tenant, terms, &secret);
        Ok(self.desk.telemetry.measure("database", "ensure", work).await?)
    }

    fn asked(&self) -> Option<&String> {
        self.account.annotations().get(ROTATE_PASSWORD)
    }

    /// The database on the server is the one that the ledger speaks of.
    fn check_identity(&self) -> Result<(), Error> {
        let seen = self.database()?;
        let name = &self.home.tenant.name;
        if seen.foreign {
            return Err(Error::Foreign { what: format!("database or role {name} on server {}", self.home.server.name) });
        }
        let recorded = self.home.entry.database.as_ref().and_then(|d| d.oid);
        match (recorded, &seen.database) {
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

    fn check_quota(&mut self) {
        let (Ok(seen), Ok(plan)) = (self.database(), self.plan()) else { return };
        if let Some(most) = plan.spec.database.max_bytes()
            && seen.bytes > most
        {
            let message = format!(
                "the database takes {} bytes, the plan allows {most}; writes are not refused: move the tenant to a larger plan",
                seen.bytes
            );
            self.findings.push(Finding::yes(Type::QuotaExceeded, "TooLarge", message));
        }
    }

    /// The database exists and nobody of the tenant gets in.
    async fn shut(&mut self) -> Result<(), Error> {
        if self.home.entry.database.is_none() && self.database()?.database.is_none() {
            // Blocked before it was ever provisioned: there is nothing to shut and nothing to freeze.
            return Ok(());
        }
        self.check_identity()?;
        let seen = self.database()?;
        if self.entering || seen.can_login || seen.sessions > 0 {
            let left = self.desk.telemetry.measure("database", "suspend", self.home.server.server.suspend(&self.home.tenant)).await?;
            if left.sessions_left > 0 {
                self.waiting_on.push(format!(
                    "{} sessions in the database do not end (of {})",
                    left.sessions_left,
                    left.holders.join(", ")
                ));
                self.wake(self.now + k8s_openapi::jiff::SignedDuration::from_secs(1));
                return Ok(());
            }
            if let Some(refusal) = self.probe().await? {
                self.waiting_on.push(refusal);
                self.wake(self.now + k8s_openapi::jiff::SignedDuration::from_secs(1));
                return Ok(());
            }
        }
        self.findings.push(Finding::no(Type::DatabaseReady, "Shut", "the database is closed to its tenant and its data is kept"));
        self.findings.push(Finding::yes(
            Type::BlockEnforced,
            "Refused",
            "the database refuses the tenant's own credentials and has no session",
        ));
        Ok(())
    }

    /// Tries the tenant's own credentials; says what is wrong if they are let in.
    async fn probe(&self) -> Result<Option<String>, Error> {
        let Some(current) = &self.home.entry.login else { return Ok(None) };
        let Some(password) = login::password(self.desk, &self.home.tenant, current.letter).await? else { return Ok(None) };
        let work = self.home.server.server.probe(&self.home.tenant, current.letter, &password);
        let outcome = self.desk.telemetry.measure("database", "probe", work).await?;
        Ok((outcome == Probe::LetIn).then(|| "the database still let the tenant's credentials in".to_owned()))
    }

    /// The database is dropped, under an authority that is made here and now.
    async fn gone(&mut self) -> Result<(), Error> {
        let Some(recorded) = self.home.entry.database.clone() else { return Ok(()) };
        if self.database()?.foreign {
            return Err(Error::Foreign { what: format!("database or role {} on server {}", self.home.tenant.name, self.home.server.name) });
        }
        let (Some(oid), true) = (recorded.oid, self.entering) else { return Ok(()) };
        let facts = DatabaseFacts { oid, system_identifier: recorded.system_identifier.clone() };
        if self.database()?.database.is_some() {
            self.check_identity()?;
            let left = self.desk.telemetry.measure("database", "suspend", self.home.server.server.suspend(&self.home.tenant)).await?;
            if left.sessions_left > 0 {
                self.waiting_on.push(format!(
                    "{} sessions in the database do not end (of {})",
                    left.sessions_left,
                    left.holders.join(", ")
                ));
                self.wake(self.now + k8s_openapi::jiff::SignedDuration::from_secs(1));
                return Ok(());
            }
        }
        let authority = self.authority().await?;
        self.desk.telemetry.measure("database", "drop", self.home.server.server.drop(&self.home.tenant, &facts, &authority)).await?;
        crate::crash::point("database-dropped", self.record().stage.name());
        login::forget(self.desk, &self.home.tenant).await?;
        self.home.entry.database = None;
        self.home.entry.login = None;
        self.store().await
    }

    /// The permission to drop: a backup that is proven this very moment, or the owner's waiver.
    async fn authority(&self) -> Result<DropAuthority, Error> {
        let record = self.record();
        let uid = &self.home.entry.uid;
        if record.waives_backup() {
            let generation = self.account.metadata.generation.unwrap_or_default();
            return OwnerWaiver::of(record, uid, generation, &self.seen.clock, self.now)
                .map(DropAuthority::Waived)
                .ok_or_else(|| Error::NoAuthority("the delay after the owner's wish has not passed".into()));
        }
        let backup =
            self.seen.frozen_backup(&self.home.entry).ok_or_else(|| Error::NoAuthority("its Frozen backup is not there".into()))?;
        let proof = backup::recheck(self.desk, backup, uid).await?;
        match record.sealed_since {
            Some(sealed) if proof.snapshot_at >= sealed => Ok(DropAuthority::Verified(proof)),
            _ => Err(Error::NoAuthority(format!("the backup {} was taken before the last session ended", proof.backup))),
        }
    }

    async fn remove_namespace(&mut self) -> Result<(), Error> {
        let Some(recorded) = self.home.entry.namespace.clone() else { return Ok(()) };
        if self.entering {
            login::take_back(self.desk, &self.home.tenant, &recorded.name).await?;
        }
        if namespace::remove(self.desk, &self.home.tenant).await? {
            self.home.entry.namespace = None;
            self.store().await?;
        }
        Ok(())
    }

    /// Takes the backup that the schedule asks for.
    async fn schedule_backup(&mut self) -> Result<(), Error> {
        let (Some(since), Known::Known(plan)) = (self.record().enforced_at, &self.seen.plan) else { return Ok(()) };
        let BackupTerms { schedule: cron, keep, verify } = plan.spec.backups.clone();
        let store = super::home::placement(plan, self.account)?.store.clone();
        let since = self.record().last_scheduled.map_or(since, |last| last.max(since));
        let (due, next) = schedule::due(&cron, &self.home.entry.uid, since, self.now)
            .map_err(|error| Error::Placement(format!("spec.backups.schedule of plan {}: {error}", plan.name_any())))?;
        self.wake(next);
        if let Some(due) = due {
            self.home.entry.record.last_scheduled = Some(due);
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
        let failed = self.seen.backups.iter().rev().find(|b| b.status.as_ref().is_some_and(|s| s.phase == BackupPhase::Failed));
        let newest = self.seen.backups.iter().filter_map(|b| b.status.as_ref()?.verified_at.as_ref()).map(|t| t.0).max();
        let scheduled = |b: &&std::sync::Arc<ColdBackup>| b.spec.reason == BackupReason::Scheduled;
        let unfinished = |b: &ColdBackup| b.status.as_ref().is_none_or(|s| matches!(s.phase, BackupPhase::Pending | BackupPhase::Running));
        let late = self.seen.backups.iter().filter(scheduled).rev().skip(1).find(|b| unfinished(b));
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

    /// Takes the Frozen backup that the record names.
    async fn freeze(&mut self) -> Result<(), Error> {
        let Some(pin) = self.record().frozen else { return Ok(()) };
        let Known::Known(plan) = &self.seen.plan else { return Ok(()) };
        if self.entering
            || pin.expires_at <= self.now
            || self.seen.frozen_backup(&self.home.entry).is_some()
            || self.home.entry.database.is_none()
        {
            return Ok(());
        }
        let store = super::home::placement(plan, self.account)?.store.clone();
        self.create_backup(&store, pin.expires_at, BackupReason::Frozen, plan.spec.backups.verify, pin.due).await
    }

    async fn create_backup(
        &self,
        store: &str,
        expires_at: Moment,
        reason: BackupReason,
        verify: crate::api::VerifyMode,
        due: Moment,
    ) -> Result<(), Error> {
        let entry = &self.home.entry;
        let mut backup = backup::build(&entry.account, &entry.uid, store, expires_at, reason, verify, due);
        if let Some(shard) = &self.desk.settings.shard {
            backup.metadata.labels.get_or_insert_default().insert(crate::api::SHARD_LABEL.into(), shard.clone());
        }
        let api: Api<ColdBackup> = Api::all(self.desk.client.clone());
        match api.create(&PostParams::default(), &backup).await {
            Ok(made) => {
                tracing::info!(backup = made.name_any(), ?reason, "asked for a backup");
                Ok(())
            }
            // It was made before a crash: the name comes from the due time.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error).during("ask for a backup"),
        }
    }

    /// Erases the account's backups, but for the Frozen one if it is to be kept, and waits until they are gone.
    async fn erase_backups(&mut self, keep_frozen: bool) -> Result<(), Error> {
        if !self.entering {
            return Ok(());
        }
        let kept = self.record().frozen.filter(|_| keep_frozen).map(|pin| backup::backup_name(&self.home.entry.account, pin.due));
        let api: Api<ColdBackup> = Api::all(self.desk.client.clone());
        for backup in &self.seen.backups {
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
                let patch = json!({"metadata": {"annotations": {CONFIRM_DELETE: name}}});
                api.patch(&name, &PatchParams::default(), &Patch::Merge(patch))
                    .await
                    .map(drop)
                    .or_else(namespace::gone_is_fine)
                    .during("confirm the erasure of a backup")?;
                api.delete(&name, &DeleteParams::default()).await.map(drop).or_else(namespace::gone_is_fine).during("erase a backup")?;
            }
            self.waiting_on.push(format!("ColdBackup {name} is being erased"));
        }
        Ok(())
    }

    /// Copies the account's hold onto its backups, and takes it back when the notice is over.
    async fn copy_hold(&mut self) -> Result<(), Error> {
        const COPIED: &str = "hold of the account: ";
        let noticed = self.record().notice_until.is_some_and(|until| until > self.now);
        let api: Api<ColdBackup> = Api::all(self.desk.client.clone());
        for backup in &self.seen.backups {
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
                .or_else(namespace::gone_is_fine)
                .during("copy the hold onto a backup")?;
        }
        if let Some(until) = self.record().notice_until.filter(|until| *until > self.now) {
            self.wake(until);
        }
        Ok(())
    }

    /// Restores the Frozen backup into a new database. `true` once it is there, equal, and still shut.
    async fn restore(&mut self) -> Result<bool, Error> {
        let Some(backup) = self.seen.frozen_backup(&self.home.entry).cloned() else {
            return Err(Error::NoAuthority("the cold backup is not there to restore".into()));
        };
        let since = self.record().restoring_since.unwrap_or(self.now);
        if restore::progress(self.desk, &backup, since).await? == restore::Progress::NotStarted {
            let terms = self.terms()?;
            let password = login::password_or_new(self.desk, self.account, &self.home.tenant, Letter::A).await?;
            let secret = login::verified(Letter::A, &password)?;
            let work = self.home.server.server.prepare_restore(&self.home.tenant, &terms, &secret);
            let (facts, mover) = self.desk.telemetry.measure("database", "prepare_restore", work).await?;
            self.home.entry.database = Some(DatabaseEntry {
                name: self.home.tenant.name.clone(),
                oid: Some(facts.oid),
                system_identifier: facts.system_identifier.clone(),
            });
            self.home.entry.login =
                Some(LoginEntry { letter: Letter::A, password_set_at: self.now, rotation_token: self.asked().cloned(), retiring: false });
            self.store().await?;
            crate::crash::point("restore-prepared", "Deleted");
            restore::start(self.desk, &backup, &self.home.server.name, &mover, &facts, since).await?;
        }
        match restore::progress(self.desk, &backup, since).await? {
            restore::Progress::Done(report) => {
                let oid = self.home.entry.database.as_ref().and_then(|d| d.oid);
                if oid != Some(report.database_oid) {
                    return Err(Error::NoAuthority("the restore's report is about another database".into()));
                }
                self.desk
                    .telemetry
                    .measure("database", "finish_restore", self.home.server.server.finish_restore(&self.home.tenant))
                    .await?;
                restore::discard(self.desk, &backup, since).await?;
                tracing::info!(backup = backup.name_any(), "the cold backup was restored and is equal to what was frozen");
                Ok(true)
            }
            restore::Progress::Failed(why) => {
                restore::discard(self.desk, &backup, since).await?;
                Err(Error::RestoreFailed { backup: backup.name_any(), why })
            }
            restore::Progress::NotStarted | restore::Progress::Running => {
                self.waiting_on.push(format!("ColdBackup {} is being restored", backup.name_any()));
                self.wake(self.now + k8s_openapi::jiff::SignedDuration::from_secs(2));
                Ok(false)
            }
        }
    }

    /// Everything is gone: asks the store one last time, scrubs what is personal, and signs the proof.
    async fn certify(&mut self) -> Result<(), Error> {
        if !self.entering {
            return Ok(());
        }
        let uid = self.home.entry.uid.clone();
        let mut destroyed = BTreeMap::from([("databases".to_owned(), 1), ("backups".to_owned(), 0)]);
        destroyed.insert("backups".into(), i64::try_from(self.seen.backups.len()).unwrap_or(i64::MAX));
        let mut stores: Vec<_> = self.seen.backups.iter().map(|b| b.spec.store.clone()).collect();
        if let Ok(plan) = self.plan()
            && let Ok(placement) = super::home::placement(plan, self.account)
        {
            stores.push(placement.store.clone());
        }
        stores.sort();
        stores.dedup();
        for store in stores {
            let left = backup::remaining(self.desk, &uid, &store).await?;
            if !left.is_empty() {
                self.waiting_on.push(format!(
                    "store {store} still lists {} objects, {} versions, {} uploads and {} keys",
                    left.objects, left.versions, left.uploads, left.keys
                ));
                self.wake(self.now + k8s_openapi::jiff::SignedDuration::from_secs(5));
                return Ok(());
            }
        }
        self.scrub().await?;
        let certificate = certificate(self.desk, &uid, destroyed, self.now);
        self.home.entry.certificate = Some(certificate);
        self.home.entry.tombstone = Some(json!({"expiredAt": self.now.to_string()}));
        self.store().await
    }

    /// Removes the owner's personal data from the object, from its last-applied copy, and from the Secret it names.
    async fn scrub(&self) -> Result<(), Error> {
        const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
        if let Some(reference) = &self.account.spec.owner.secret_ref {
            let api: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(self.desk.client.clone(), &reference.namespace);
            let patch = json!({"data": {"name": null, "email": null}});
            api.patch(&reference.name, &PatchParams::default(), &Patch::Merge(patch))
                .await
                .map(drop)
                .or_else(namespace::gone_is_fine)
                .during("scrub the owner's Secret")?;
        } else {
            let patch = json!({"spec": {"owner": {"name": "erased", "email": "erased@erased.invalid"}, "displayName": null}, "metadata": {"annotations": {LAST_APPLIED: null}}});
            let api: Api<HelpDeskAccount> = Api::all(self.desk.client.clone());
            api.patch(&self.account.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await.during("scrub the owner")?;
        }
        Ok(())
    }
}

fn certificate(desk: &Desk, uid: &str, destroyed: BTreeMap<String, i64>, now: Moment) -> Certificate {
    let facts =
        json!({"installation": desk.installation.id, "accountUID": uid, "issuedAt": now.to_string(), "destroyed": destroyed}).to_string();
    let digest = ring::digest::digest(&ring::digest::SHA256, facts.as_bytes());
    Certificate {
        issued_at: Time(now),
        destroyed,
        sha256: crate::hex(digest.as_ref()),
        signature: BASE64_STANDARD.encode(desk.installation.sign(facts.as_bytes())),
        note: "Snapshots of etcd and of the database server's disks may hold copies until they run out; those of the backup cannot be read without their destroyed keys.".into(),
    }
}
