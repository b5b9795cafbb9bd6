//! The context of the ColdBackup controller: its state between reconciles.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::channel::mpsc;
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::reflector::ObjectRef,
};
use serde_json::json;

use super::{error::Error, mover_slots::MoverSlots};
use crate::{
    api::{ColdBackup, ColdBackupStatus},
    clock::Moment,
    cluster::{During, ignore_not_found_or_conflict},
    context::{Context, Shared},
    keyed_semaphore::KeyedSemaphore,
    retry::{Backoff, jitter},
};

/// The field manager of what this controller applies.
const FIELD_MANAGER: &str = "helpdesk-operator-backups";
/// How many backups of one server and one store are reconciled at once.
const PERMITS: usize = 16;
/// How often objects, key and escrow of a proven backup are rechecked.
const RECHECK_INTERVAL: Duration = Duration::from_secs(6 * 3600);

/// The context of a reconcile: clients, and the state between reconciles.
pub(super) struct ColdBackupContext {
    pub(super) shared: Arc<Context>,
    pub(super) backoff: Backoff,
    /// The last status that was written, by the backup's uid: the cache may still have an older one.
    written: Mutex<HashMap<String, ColdBackupStatus>>,
    /// Slots of movers that are being started.
    pub(super) slots: MoverSlots,
    /// Limits how many backups of one server and one store are reconciled at once.
    pub(super) permits: KeyedSemaphore,
    /// The server on which each account was found last, by the account's uid.
    servers_of: Mutex<HashMap<String, String>>,
    /// When the last attempt failed, by the backup's uid. Deleting the failed Job triggers a reconcile at once, so the
    /// back-off alone would not delay the next attempt.
    pub(super) failed: Mutex<HashMap<String, Moment>>,
    pub(super) recheck_times: RecheckTimes,
    /// Wakes backups that are kept until another is proven.
    superseded: mpsc::UnboundedSender<ObjectRef<ColdBackup>>,
}

/// When proven backups are rechecked next, by their uids.
#[derive(Default)]
pub(super) struct RecheckTimes(Mutex<HashMap<String, Instant>>);

impl RecheckTimes {
    /// Whether a recheck is due; if so, the next one is due an interval later. The first recheck of each backup is delayed
    /// by a jitter, so that a start of the operator does not recheck all backups at once.
    pub(super) fn is_due(&self, uid: &str) -> bool {
        let now = Instant::now();
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = next.entry(uid.to_owned()).or_insert_with(|| now + RECHECK_INTERVAL.mul_f64(jitter(uid)));
        let due = *at <= now;
        if due {
            *at = now + RECHECK_INTERVAL;
        }
        due
    }
}

impl std::ops::Deref for ColdBackupContext {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.shared
    }
}

impl ColdBackupContext {
    pub(super) fn new(ctx: Shared, superseded: mpsc::UnboundedSender<ObjectRef<ColdBackup>>) -> Self {
        Self {
            shared: ctx,
            backoff: Backoff::default(),
            written: Mutex::default(),
            slots: MoverSlots::default(),
            permits: KeyedSemaphore::new(PERMITS),
            servers_of: Mutex::default(),
            failed: Mutex::default(),
            recheck_times: RecheckTimes::default(),
            superseded,
        }
    }

    /// Triggers a reconcile of the account's backups that are kept beyond their deadline: this one is proven.
    pub(super) fn wake_retained(&self, proven: &ColdBackup) {
        for other in self.backups.of_account_uid(&proven.spec.account_uid) {
            if other.status.as_ref().is_some_and(|status| status.retained_until.is_some()) {
                // An error says that the process is stopping.
                let _ = self.superseded.unbounded_send(ObjectRef::from_obj(&*other));
            }
        }
    }

    /// The key of the semaphore that a backup's reconcile waits for: its server, if that is known, and its store.
    pub(super) fn semaphore_key(&self, backup: &ColdBackup) -> String {
        let servers = self.servers_of.lock().unwrap_or_else(PoisonError::into_inner);
        let server = servers.get(&backup.spec.account_uid).map_or("", String::as_str);
        format!("server {server} store {}", backup.spec.store)
    }

    pub(super) fn remember_server(&self, backup: &ColdBackup, server: &str) {
        let mut servers = self.servers_of.lock().unwrap_or_else(PoisonError::into_inner);
        servers.insert(backup.spec.account_uid.clone(), server.to_owned());
    }

    /// The last status that was written, or the backup's status if this process wrote none.
    pub(super) fn newest(&self, backup: &ColdBackup) -> ColdBackupStatus {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = || backup.status.clone().unwrap_or_default();
        backup.uid().and_then(|uid| written.get(&uid).cloned()).unwrap_or_else(shown)
    }

    /// Forgets the state of a backup whose object is deleted.
    pub(super) fn forget(&self, uid: &str) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        self.recheck_times.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    pub(super) async fn write(&self, backup: &ColdBackup, before: &ColdBackupStatus, status: &ColdBackupStatus) -> Result<(), Error> {
        let uid = backup.uid().unwrap_or_default();
        if status == before && backup.status.is_some() {
            return Ok(());
        }
        let api: Api<ColdBackup> = Api::all(self.client.clone());
        let applied = json!({
            "apiVersion": ColdBackup::api_version(&()), "kind": ColdBackup::kind(&()),
            "metadata": {"name": backup.name_any(), "uid": uid}, "status": status,
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        match api.patch_status(&backup.name_any(), &params, &Patch::Apply(applied)).await {
            Ok(_) => {
                self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, status.clone());
                Ok(())
            }
            Err(error) => {
                self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid);
                ignore_not_found_or_conflict(error).during("write the backup's status").map_err(Error::from)
            }
        }
    }
}
