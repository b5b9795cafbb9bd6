//! Reads the proof of a backup again, immediately before a drop or a restore relies on it; counts what is left of an
//! account.

use kube::ResourceExt;

use super::{
    folder_of,
    keys::{self, KeyRing, Keys, escrow_folder},
    manifest::{self, Manifest, Object, Verification},
    proof::Verified,
};
use crate::digest;
use crate::{
    api::ColdBackup,
    clock::Moment,
    store::{self, ConnectedStore, Head, Stores},
};

/// Why a backup proves nothing at this moment.
#[derive(Debug, thiserror::Error)]
pub enum NotVerified {
    /// It was not proven yet, or is not any more.
    #[error("failed to rely on the backup: {0}")]
    NotVerified(String),
    /// Its proof is about something else: another account, another database, another key.
    #[error("failed to rely on the backup: {0}; its proof is about something else")]
    Mismatch(String),
    /// An object, a key or an escrow is missing or differs from what was proven.
    #[error("failed to find the backup complete: {0}")]
    Incomplete(String),
    /// A report is damaged or not signed by the backup's own key.
    #[error(transparent)]
    Report(#[from] manifest::Error),
    /// A key could not be read.
    #[error(transparent)]
    Keys(#[from] keys::Error),
    /// The store could not be asked: nothing is known.
    #[error("failed to ask the store")]
    Store(#[from] store::Error),
    /// The cluster could not be asked: nothing is known.
    #[error("failed to ask the cluster")]
    Cluster(#[source] Box<kube::Error>),
    /// A mover could not be described; it always can.
    #[error("failed to write down what a mover is to do")]
    Plan(#[from] serde_json::Error),
}

/// What was read of a backup that is complete: its manifest and the checksum of that.
pub(crate) struct SignedManifest {
    /// The manifest.
    pub manifest: Manifest,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// Reads the manifest and believes it if the backup's own key signed it for this very backup.
pub(crate) async fn read_manifest(store: &ConnectedStore, backup: &ColdBackup, keys: &Keys) -> Result<SignedManifest, NotVerified> {
    let folder = folder_of(backup);
    let bytes = store.bucket.read(&format!("{folder}{}", manifest::MANIFEST), manifest::LARGEST_REPORT).await?;
    let sha256 = digest::sha256(&bytes);
    let manifest: Manifest = manifest::verify(&bytes, &keys.verifying)?;
    let name = backup.name_any();
    if manifest.backup != name || manifest.account_uid != backup.spec.account_uid {
        return Err(NotVerified::Mismatch(format!(
            "the manifest speaks of backup {} of account {}",
            manifest.backup, manifest.account_uid
        )));
    }
    if manifest.key_id != keys.recipient {
        return Err(NotVerified::Mismatch("the manifest names another key".into()));
    }
    Ok(SignedManifest { manifest, sha256 })
}

/// Reads manifest and verification and believes them if the backup's own key signed both, and the verification is of this
/// manifest.
pub(crate) async fn read_proof(
    store: &ConnectedStore,
    backup: &ColdBackup,
    keys: &Keys,
) -> Result<(SignedManifest, Verification), NotVerified> {
    let signed = read_manifest(store, backup, keys).await?;
    let key = format!("{}{}", folder_of(backup), manifest::VERIFICATION);
    let verification: Verification = manifest::verify(&store.bucket.read(&key, manifest::LARGEST_REPORT).await?, &keys.verifying)?;
    if verification.manifest_sha256 != signed.sha256 || verification.plain != signed.manifest.plain {
        return Err(NotVerified::Mismatch("the verification is of another manifest".into()));
    }
    Ok((signed, verification))
}

/// Reads manifest and verification again, checks their signatures, and looks at every object, the key and its escrow.
///
/// # Errors
/// See [`NotVerified`]; every one of them forbids a drop.
pub async fn recheck(
    stores: &Stores,
    keys: &KeyRing,
    backup: &ColdBackup,
    account_uid: &str,
    now: Moment,
) -> Result<Verified, NotVerified> {
    if backup.spec.account_uid != account_uid {
        return Err(NotVerified::Mismatch(format!("it belongs to account {}", backup.spec.account_uid)));
    }
    let keys = keys.load(backup).await?.ok_or_else(|| NotVerified::Incomplete("its key is not in the operator's namespace".into()))?;
    let store = stores.get(&backup.spec.store).await?;
    store.check_identity().await?;
    let (SignedManifest { manifest, .. }, _) = read_proof(&store, backup, &keys).await?;
    let folder = folder_of(backup);
    for object in manifest.objects() {
        is_there(&store, &folder, object).await?;
    }
    let recorded = backup.status.as_ref().and_then(|status| status.key_escrow.as_ref());
    if let (Some(escrow), Some(sealed)) = (recorded.or(store.key_escrow.as_ref().map(|escrow| &escrow.store)), &keys.escrow) {
        let second = stores.get(escrow).await?;
        if !keys::has_escrow(&second, &folder, sealed).await? {
            return Err(NotVerified::Incomplete(format!("its key is not in the escrow {escrow}")));
        }
    }
    let Manifest { source, snapshot_at, .. } = manifest;
    Ok(Verified::attest(backup.name_any(), account_uid.to_owned(), source.database_oid, source.system_identifier, snapshot_at, now))
}

async fn is_there(store: &ConnectedStore, folder: &str, object: &Object) -> Result<(), NotVerified> {
    let key = format!("{folder}{}", object.name);
    let head = store.bucket.head(&key).await?.ok_or_else(|| NotVerified::Incomplete(format!("{key} is not in the bucket")))?;
    let is_same = match compare(&head, object) {
        Compared::Same => true,
        Compared::Other => false,
        Compared::Unknown => has_bytes(store, &key, &head, object).await?,
    };
    if is_same {
        return Ok(());
    }
    let path = format!("{}/{}{key}", store.location.bucket, store.location.prefix);
    let back = way_back(&head, object, &path);
    Err(NotVerified::Incomplete(format!("{key} is not what was proven: {} bytes with the tag {}{back}", head.size, head.etag)))
}

/// What a person can do about an object that was overwritten: the version that was proven is still in the bucket.
fn way_back(head: &Head, object: &Object, path: &str) -> String {
    match &object.version_id {
        Some(proven) if head.version_id.as_ref() != Some(proven) => format!(
            "; it was overwritten after the version {proven} was proven: find out by whom, and copy that version over it \
             (aws s3api copy-object --copy-source '{path}?versionId={proven}' …)"
        ),
        _ => String::new(),
    }
}

/// Whether an object is the one that was proven, by its metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compared {
    Same,
    Other,
    /// It has another tag. A store makes a tag as it likes, and another one for a copy: only the bytes can tell.
    Unknown,
}

fn compare(head: &Head, object: &Object) -> Compared {
    let same_sum = head.crc64nvme.is_none() || object.crc64nvme.is_none() || head.crc64nvme == object.crc64nvme;
    match head.size == object.size && same_sum {
        false => Compared::Other,
        true if head.etag == object.etag => Compared::Same,
        true => Compared::Unknown,
    }
}

/// Reads an object piece by piece and compares its SHA-256 with the signed one. The process remembers the answer for as long
/// as the object keeps its tag, so that a copied bucket is read once.
async fn has_bytes(store: &ConnectedStore, key: &str, head: &Head, object: &Object) -> Result<bool, NotVerified> {
    if store.copies.is_same(key, &head.etag) {
        return Ok(true);
    }
    let mut download = store.bucket.get(key).await?;
    let mut hash = digest::Sha256::default();
    while let Some(chunk) = download.next().await? {
        hash.update(&chunk);
    }
    let is_same = hash.hex() == object.sha256;
    if is_same {
        store.copies.remember(key, &head.etag);
    }
    Ok(is_same)
}

/// What is left of an account's backups, and of keys of its backups, in one store and in the escrow that it names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remaining {
    /// Objects.
    pub objects: u64,
    /// Versions and delete markers.
    pub versions: u64,
    /// Uploads that were never completed.
    pub uploads: u64,
    /// Keys, as Secrets and in escrow.
    pub keys: u64,
}

impl Remaining {
    /// Whether nothing is left.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// Counts what is left; the last fact that a certificate of deletion needs. A store that was an escrow has to be asked like
/// one with backups.
///
/// # Errors
/// When the store, the escrow or the cluster cannot be asked, or the bucket does not prove who it is.
pub async fn remaining(stores: &Stores, keys: &KeyRing, account_uid: &str, store: &str) -> Result<Remaining, NotVerified> {
    let store = stores.get(store).await?;
    store.check_identity().await?;
    let contents = store.bucket.contents(&format!("{account_uid}/")).await?;
    let secrets = keys.count(account_uid).await?;
    let mut keys = secrets + escrowed(&store, account_uid).await?;
    if let Some(escrow) = &store.key_escrow {
        let second = stores.get(&escrow.store).await?;
        second.check_identity().await?;
        keys += escrowed(&second, account_uid).await?;
    }
    Ok(Remaining { objects: contents.objects, versions: contents.versions, uploads: contents.uploads, keys })
}

/// How much of keys of the account's backups is in the store.
async fn escrowed(store: &ConnectedStore, account_uid: &str) -> Result<u64, store::Error> {
    let contents = store.bucket.contents(&escrow_folder(&format!("{account_uid}/"))).await?;
    Ok(contents.versions.max(contents.objects) + contents.uploads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_tag_makes_an_object_be_read_and_other_bytes_are_told_without_reading() {
        let object = Object {
            name: "dump.zst.age".into(),
            size: 7,
            sha256: "s".into(),
            etag: "e".into(),
            crc64nvme: Some("c".into()),
            version_id: None,
        };
        let head = |size, etag: &str, crc: Option<&str>| {
            let crc64nvme = crc.map(str::to_owned);
            Head { size, etag: etag.into(), crc64nvme, version_id: None, modified_at: None }
        };
        assert_eq!(compare(&head(7, "e", Some("c")), &object), Compared::Same);
        assert_eq!(compare(&head(7, "e", None), &object), Compared::Same, "a store that keeps no checksum");
        assert_eq!(compare(&head(7, "e-2", Some("c")), &object), Compared::Unknown, "a copy in other parts");
        assert_eq!(compare(&head(7, "e-2", None), &object), Compared::Unknown);
        assert_eq!(compare(&head(8, "e", Some("c")), &object), Compared::Other);
        assert_eq!(compare(&head(7, "e", Some("d")), &object), Compared::Other);
    }

    #[test]
    fn an_object_that_was_overwritten_proves_nothing_and_its_version_is_named() {
        let object =
            Object { name: "dump".into(), size: 7, sha256: "x".into(), etag: "a".into(), crc64nvme: None, version_id: Some("v1".into()) };
        let mut head = Head { size: 7, etag: "a".into(), crc64nvme: None, version_id: Some("v1".into()), modified_at: None };
        assert_eq!(compare(&head, &object), Compared::Same);
        (head.etag, head.version_id) = ("b".into(), Some("v2".into()));
        assert_ne!(compare(&head, &object), Compared::Same);
        assert!(way_back(&head, &object, "cold/eu-1/uid/dump").contains("'cold/eu-1/uid/dump?versionId=v1'"));
        assert_eq!(way_back(&head, &Object { version_id: None, ..object }, "cold/eu-1/uid/dump"), "");
    }
}
