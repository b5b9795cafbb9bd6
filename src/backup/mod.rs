//! Cold backups: how they are taken, proven, restored and destroyed.
//!
//! A backup is a folder in a bucket, `<account uid>/<moment>/` below the store's prefix:
//!
//! | object | what it is |
//! |---|---|
//! | `dump.zst.age` | `pg_dump` in its custom format, compressed, then encrypted to the backup's own key |
//! | `secrets.age` | what must survive besides the database, encrypted to the same key |
//! | `manifest.json` | whose it is, what of, when, sizes, checksums, fingerprint; signed; written last and once |
//! | `verification.json` | that it was read back and proven, and how; signed |
//! | `restore-<moment>.json` | that it was restored, into which database, and that it was equal; signed |
//!
//! 1. The controller ([`reconcile`](crate::controller::cold_backup::reconcile)) records its intent in the status, makes the keys ([`keys`]) and a Job ([`job`](crate::mover::job)).
//! 2. The Job ([`mover`](crate::mover)) dumps, uploads, reads back, proves, and writes its report into the bucket.
//! 3. The controller believes the signed report in the bucket and nothing else: no report is unknown.
//! 4. At the deadline everything below the folder is erased and listed empty, then the keys go ([`retention`]).
//!
//! **Invariant:** bulk data never flows through the controller, and a mover has no credentials of the cluster.

pub mod index;
pub mod keys;
pub mod manifest;
pub mod proof;
pub mod recheck;
pub mod retention;
pub mod schedule;

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::ObjectMeta, jiff::tz::TimeZone};

use kube::ResourceExt;

use crate::{
    api::{ACCOUNT_LABEL, ACCOUNT_UID, BackupReason, ColdBackup, ColdBackupSpec, Time, VerifyMode},
    clock::Moment,
};

pub use recheck::{NotVerified, Remaining, recheck, remaining};

/// The finalizer that keeps a `ColdBackup` until its data is gone.
pub const FINALIZER: &str = "helpdesk-operator.io/erase";

/// The name of the backup that is due at `due`: a crash and a second try find the same name.
pub fn backup_name(account: &str, due: Moment) -> String {
    format!("{account}-{}", stamp(due).to_ascii_lowercase())
}

/// The folder of a backup below the store's prefix, with a slash at its end.
///
/// A backup that was named by [`backup_name`] is found by its moment; one that a person named, by that name.
pub fn folder(account: &str, account_uid: &str, name: &str) -> String {
    let moment = name.strip_prefix(account).and_then(|rest| rest.strip_prefix('-')).map(str::to_ascii_uppercase).filter(|m| is_stamp(m));
    format!("{account_uid}/{}/", moment.as_deref().unwrap_or(name))
}

/// The backup's folder below the store's prefix.
pub(crate) fn folder_of(backup: &ColdBackup) -> String {
    folder(&backup.spec.account, &backup.spec.account_uid, &backup.name_any())
}

/// `20261123T100003Z`.
pub(crate) fn stamp(moment: Moment) -> String {
    moment.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ").to_string()
}

fn is_stamp(text: &str) -> bool {
    text.len() == 16
        && text.bytes().enumerate().all(|(at, letter)| match at {
            8 => letter == b'T',
            15 => letter == b'Z',
            _ => letter.is_ascii_digit(),
        })
}

/// The object that asks for a backup. Pure: the same facts make the same object.
pub fn build(
    account: &str,
    account_uid: &str,
    store: &str,
    expires_at: Moment,
    reason: BackupReason,
    verify: VerifyMode,
    due: Moment,
) -> ColdBackup {
    let spec = ColdBackupSpec {
        account: account.to_owned(),
        account_uid: account_uid.to_owned(),
        store: store.to_owned(),
        expires_at: Time(expires_at),
        reason,
        verify,
        hold: None,
    };
    let metadata = ObjectMeta {
        name: Some(backup_name(account, due)),
        labels: Some([(ACCOUNT_LABEL.to_owned(), account.to_owned())].into()),
        annotations: Some([(ACCOUNT_UID.to_owned(), account_uid.to_owned())].into()),
        finalizers: Some(vec![FINALIZER.to_owned()]),
        ..ObjectMeta::default()
    };
    ColdBackup { metadata, spec, status: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "8f3a0000-0000-4000-8000-000000000000";

    #[test]
    fn a_backup_is_named_and_found_by_its_due_moment() {
        let due = "2026-11-23T10:00:03Z".parse().unwrap();
        assert_eq!(backup_name("acme", due), "acme-20261123t100003z");
        assert_eq!(folder("acme", UID, "acme-20261123t100003z"), format!("{UID}/20261123T100003Z/"));
    }

    #[test]
    fn a_backup_that_a_person_named_has_a_folder_of_its_own() {
        assert_eq!(folder("acme", UID, "before-upgrade"), format!("{UID}/before-upgrade/"));
        assert_eq!(folder("acme", UID, "acme-b-20261123t100003z"), format!("{UID}/acme-b-20261123t100003z/"));
    }
}
