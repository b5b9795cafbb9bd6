//! The ColdBackups of the cluster, found by their account or their store without a look at all the others.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use kube::{ResourceExt, runtime::watcher::Event};
use tokio::sync::watch;

use crate::api::{BackupPhase, ColdBackup};

/// A cache of all ColdBackups, filled by one watch.
#[derive(Default)]
pub struct BackupIndex {
    groups: RwLock<Groups>,
    filled: watch::Sender<bool>,
}

#[derive(Default)]
struct Groups {
    found: HashMap<Key, BTreeMap<String, Arc<ColdBackup>>>,
    /// What a list has returned so far. It counts once it is complete.
    listing: Vec<ColdBackup>,
}

/// What a backup is found by.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Name(String),
    Account(String),
    AccountUid(String),
    /// Of a backup that is not erased.
    Store(String),
    /// The escrow of the key of a backup that is not erased.
    Escrow(String),
}

impl BackupIndex {
    /// Takes over what the watch says.
    pub fn apply(&self, event: &Event<ColdBackup>) {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Init => groups.listing.clear(),
            Event::InitApply(backup) => groups.listing.push(backup.clone()),
            Event::InitDone => {
                groups.found.clear();
                for backup in std::mem::take(&mut groups.listing) {
                    groups.put(backup);
                }
                self.filled.send_replace(true);
            }
            Event::Apply(backup) => groups.put(backup.clone()),
            Event::Delete(backup) => groups.remove(&backup.name_any()),
        }
    }

    /// Waits for the first complete list. What is not in the index before that may exist.
    pub async fn filled(&self) {
        // An error says that the index is gone, which it is not.
        let _ = self.filled.subscribe().wait_for(|filled| *filled).await;
    }

    /// The backups of the account with this uid, by their names.
    pub fn of_account_uid(&self, uid: &str) -> Vec<Arc<ColdBackup>> {
        self.read(&Key::AccountUid(uid.to_owned()), |group| group.values().cloned().collect())
    }

    /// The backups of all accounts that have, or had, this name.
    pub fn of_account(&self, name: &str) -> Vec<Arc<ColdBackup>> {
        self.read(&Key::Account(name.to_owned()), |group| group.values().cloned().collect())
    }

    /// All backups.
    pub fn all(&self) -> Vec<Arc<ColdBackup>> {
        let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
        groups.found.iter().filter(|(key, _)| matches!(key, Key::Name(_))).flat_map(|(_, group)| group.values().cloned()).collect()
    }

    /// How many backups in the store are not erased.
    pub fn count_in(&self, store: &str) -> usize {
        self.read(&Key::Store(store.to_owned()), BTreeMap::len)
    }

    /// How many keys of backups that are not erased the store keeps as their escrow.
    pub fn count_keys_in(&self, store: &str) -> usize {
        self.read(&Key::Escrow(store.to_owned()), BTreeMap::len)
    }

    fn read<T: Default>(&self, key: &Key, of: impl FnOnce(&BTreeMap<String, Arc<ColdBackup>>) -> T) -> T {
        self.groups.read().unwrap_or_else(PoisonError::into_inner).found.get(key).map(of).unwrap_or_default()
    }
}

impl Groups {
    fn put(&mut self, backup: ColdBackup) {
        let name = backup.name_any();
        self.remove(&name);
        let backup = Arc::new(backup);
        for key in keys(&backup) {
            self.found.entry(key).or_default().insert(name.clone(), Arc::clone(&backup));
        }
    }

    fn remove(&mut self, name: &str) {
        // By the object that was put in: the new one may be in other groups.
        let Some(known) = self.found.get(&Key::Name(name.to_owned())).and_then(|group| group.get(name)).cloned() else { return };
        for key in keys(&known) {
            if let Some(group) = self.found.get_mut(&key) {
                group.remove(name);
                if group.is_empty() {
                    self.found.remove(&key);
                }
            }
        }
    }
}

fn keys(backup: &ColdBackup) -> Vec<Key> {
    let spec = &backup.spec;
    let mut keys = vec![Key::Name(backup.name_any()), Key::Account(spec.account.clone()), Key::AccountUid(spec.account_uid.clone())];
    if backup.status.as_ref().is_none_or(|status| status.phase != BackupPhase::Erased) {
        keys.push(Key::Store(spec.store.clone()));
        keys.extend(backup.status.as_ref().and_then(|status| status.key_escrow.clone()).map(Key::Escrow));
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::{BackupReason, ColdBackupStatus, VerifyMode},
        backup,
        clock::Moment,
    };

    fn at(text: &str) -> Moment {
        text.parse().unwrap()
    }

    fn made(account: &str, store: &str, due: &str, phase: BackupPhase) -> ColdBackup {
        let end = at("2027-01-01T00:00:00Z");
        let uid = format!("uid-{account}");
        let mut backup = backup::build(account, &uid, store, end, BackupReason::Scheduled, VerifyMode::Read, at(due));
        backup.status = Some(ColdBackupStatus { phase, ..ColdBackupStatus::default() });
        backup
    }

    const FIRST: &str = "2026-11-23T10:00:00Z";
    const SECOND: &str = "2026-11-24T10:00:00Z";

    fn names(found: &[Arc<ColdBackup>]) -> Vec<String> {
        found.iter().map(|backup| backup.name_any()).collect()
    }

    #[test]
    fn a_backup_is_found_by_its_account_and_counted_in_its_store_until_it_is_erased() {
        let index = BackupIndex::default();
        index.apply(&Event::Apply(made("acme", "eu", FIRST, BackupPhase::Verified)));
        index.apply(&Event::Apply(made("acme", "us", SECOND, BackupPhase::Pending)));
        index.apply(&Event::Apply(made("other", "eu", FIRST, BackupPhase::Pending)));
        assert_eq!(names(&index.of_account("acme")), ["acme-20261123t100000z", "acme-20261124t100000z"]);
        assert_eq!(names(&index.of_account_uid("uid-other")), ["other-20261123t100000z"]);
        assert_eq!((index.count_in("eu"), index.count_in("us"), index.count_in("none")), (2, 1, 0));

        index.apply(&Event::Apply(made("acme", "eu", FIRST, BackupPhase::Erased)));
        assert_eq!((index.of_account("acme").len(), index.count_in("eu")), (2, 1), "an erased one is evidence and in no store");

        index.apply(&Event::Delete(made("acme", "eu", FIRST, BackupPhase::Erased)));
        index.apply(&Event::Delete(made("other", "eu", FIRST, BackupPhase::Verified)));
        assert_eq!(names(&index.of_account_uid("uid-acme")), ["acme-20261124t100000z"]);
        assert_eq!((index.of_account("other").len(), index.count_in("eu")), (0, 0));
    }

    #[test]
    fn a_key_is_counted_in_the_escrow_that_the_backup_used_until_it_is_erased() {
        let index = BackupIndex::default();
        let mut backup = made("acme", "eu", FIRST, BackupPhase::Verified);
        backup.status.as_mut().unwrap().key_escrow = Some("safe".into());
        index.apply(&Event::Apply(backup.clone()));
        assert_eq!((index.count_keys_in("safe"), index.count_in("safe")), (1, 0));
        backup.status.as_mut().unwrap().phase = BackupPhase::Erased;
        index.apply(&Event::Apply(backup));
        assert_eq!(index.count_keys_in("safe"), 0);
    }

    #[test]
    fn a_list_counts_once_it_is_complete_and_replaces_what_was_known() {
        let index = BackupIndex::default();
        index.apply(&Event::Init);
        index.apply(&Event::InitApply(made("acme", "eu", FIRST, BackupPhase::Verified)));
        assert!(!*index.filled.borrow() && index.of_account("acme").is_empty());
        index.apply(&Event::InitDone);
        assert!(*index.filled.borrow());
        assert_eq!(index.count_in("eu"), 1);

        index.apply(&Event::Init);
        index.apply(&Event::InitApply(made("acme", "eu", SECOND, BackupPhase::Verified)));
        assert_eq!(names(&index.of_account("acme")), ["acme-20261123t100000z"]);
        index.apply(&Event::InitDone);
        assert_eq!(names(&index.of_account("acme")), ["acme-20261124t100000z"]);
    }

    #[test]
    fn a_look_reads_the_backups_of_one_account_only_however_many_there_are() {
        let index = BackupIndex::default();
        for number in 0..2000 {
            index.apply(&Event::Apply(made(&format!("a{number}"), "eu", FIRST, BackupPhase::Verified)));
        }
        let groups = index.groups.read().unwrap();
        let read = groups.found.get(&Key::AccountUid("uid-a7".into())).unwrap();
        assert_eq!((read.len(), groups.found[&Key::Store("eu".into())].len()), (1, 2000));
    }
}
