//! The signed reports of a backup: manifest, verification and restore report; how they are signed and verified.
//!
//! Every report is a JSON object with the facts and a signature over them by the backup's own Ed25519 key. The private
//! half is in the mover's hands only; the public half is in the key Secret. So whoever can write into the bucket can
//! destroy a backup and cannot forge one, and a stolen mover can sign for no other backup.
//!
//! What is signed is the facts as this program writes them, after the name of what they are: a manifest can never be
//! taken for a verification. Unknown fields are refused, so that nothing unsigned can be slipped in.

use ring::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use crate::api::cold_backup::Way;
use crate::digest::unhex;
use crate::{
    api::{VerifyMode, plan::Extension},
    clock::Moment,
};

/// The names of the objects in a backup's folder.
pub const MANIFEST: &str = "manifest.json";
/// The dump, unless one lies there that no manifest speaks of.
pub const DUMP: &str = "dump.zst.age";
/// The contents that were dumped, to compare a copy with: definitions, checksums of rows, places of sequences.
pub const CONTENTS: &str = "contents.zst.age";
/// What must survive besides the database.
pub const SECRETS: &str = "secrets.age";
/// The proof.
pub const VERIFICATION: &str = "verification.json";
/// The largest report that is read, in bytes.
pub const LARGEST_REPORT: u64 = 64 * 1024;

/// What was backed up, when, and into which objects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// The `ColdBackup`.
    pub backup: String,
    /// The account.
    pub account: String,
    /// The account's uid.
    pub account_uid: String,
    /// The `BackupStore`.
    pub store: String,
    /// The identity in the bucket's marker.
    pub store_identity: String,
    /// The public key (age) that the objects are encrypted to.
    pub key_id: String,
    /// The database that was read.
    pub source: Source,
    /// When the snapshot was taken, by the database server's clock.
    pub snapshot_at: Moment,
    /// When the last byte of the dump was stored, by the mover's clock.
    pub completed_at: Moment,
    /// The dump.
    pub dump: Object,
    /// What must survive besides the database.
    pub secrets: Object,
    /// What a copy is compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contents: Option<Object>,
    /// The dump before compression, as `pg_dump` wrote it.
    pub plain: Plain,
    /// Tables whose rows are not in the dump, because `COPY` cannot write one of them as text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apart: Vec<Apart>,
    /// The contents that the snapshot showed.
    pub fingerprint: Fingerprint,
    /// The extensions that were made for the tenant, with their versions: they have to be there before a restore.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<Extension>,
    /// The settings of its logins in this database that are carried along, by their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<(String, String)>,
}

impl Manifest {
    /// Every object that a restore needs.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        [&self.dump, &self.secrets].into_iter().chain(&self.contents).chain(self.apart.iter().map(|rows| &rows.object))
    }
}

/// A database, told apart from every other one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// Its own id on its server.
    pub database_oid: u32,
    /// The server's identity.
    pub system_identifier: String,
    /// The server's version, such as `17.7`.
    pub server_version: String,
}

/// An object of the backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Object {
    /// Its name in the backup's folder.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of its bytes, in hexadecimal digits.
    pub sha256: String,
    /// The store's own tag.
    pub etag: String,
    /// CRC-64/NVME in base64, where the store keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crc64nvme: Option<String>,
    /// The id of the version that was written, where the bucket keeps versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
}

/// A table whose rows lie in an object of their own, as `COPY (FORMAT binary)` wrote them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Apart {
    /// The table, as it is written in SQL.
    pub table: String,
    /// Its columns in the object, as they are written in SQL.
    pub columns: String,
    /// The object, compressed and encrypted like the dump.
    pub object: Object,
    /// The rows before compression.
    pub plain: Plain,
}

/// Bytes that are not stored as such.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plain {
    /// How many.
    pub size: u64,
    /// Their SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// The contents of a database in a few numbers; equal for equal contents, in whatever order they are stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fingerprint {
    /// Tables that hold rows of their own.
    pub relations: u64,
    /// Rows in them.
    pub rows: u64,
    /// Sequences.
    pub sequences: u64,
    /// Large objects.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub large_objects: u64,
    /// SHA-256 over the rows of every table, in hexadecimal digits.
    pub contents: String,
    /// SHA-256 over the definitions of everything, in hexadecimal digits. Another major version may write them
    /// differently.
    pub definitions: String,
    /// SHA-256 over where every sequence stands; absent when one moved while the dump was taken, because sequences
    /// belong to no snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence_state: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Fingerprint {
    /// What differs between the rows of a source and those that were restored from it; `None` when they are equal.
    /// Definitions are compared by who can ask a server how it prints them, and sequences by who knows whether they
    /// stood still.
    pub fn differs(&self, restored: &Self) -> Option<String> {
        let differ = || "as many rows were restored as the source had, and they are not the same".into();
        self.differs_in_numbers(restored).or_else(|| (self.contents != restored.contents).then(differ))
    }

    /// What differs in the numbers of tables, rows, sequences and large objects.
    pub fn differs_in_numbers(&self, restored: &Self) -> Option<String> {
        let (a, b) = (self, restored);
        if (a.relations, a.rows, a.sequences, a.large_objects) != (b.relations, b.rows, b.sequences, b.large_objects) {
            return Some(format!(
                "the source had {} tables with {} rows, {} sequences and {} large objects, what was restored has {}, {}, {} and {}",
                a.relations, a.rows, a.sequences, a.large_objects, b.relations, b.rows, b.sequences, b.large_objects
            ));
        }
        None
    }
}

/// What a restore did besides bringing back every row.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Restored {
    /// How.
    pub way: Way,
    /// What could not be made as it was; the first of them, where there are many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<LeftOut>,
    /// How many there are.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left_out_count: u64,
}

impl Restored {
    /// So many are named in a report, which has a largest size.
    const NAMED: usize = 40;

    /// Names as many as fit.
    pub fn new(way: Way, mut left_out: Vec<LeftOut>) -> Self {
        let left_out_count = left_out.len() as u64;
        left_out.truncate(Self::NAMED);
        Self { way, left_out, left_out_count }
    }

    /// For people; `None` when everything is as it was.
    pub fn sentence(&self) -> Option<String> {
        let shown: Vec<_> = self.left_out.iter().take(5).map(ToString::to_string).collect();
        let more = self.left_out_count.saturating_sub(shown.len() as u64);
        let more = if more == 0 { String::new() } else { format!("; and {more} more, see verification.json") };
        (!shown.is_empty()).then(|| format!("every row is there; {}{more}", shown.join("; ")))
    }
}

/// Something that the rows of a database do not let be made again as it was, or that is computed from them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LeftOut {
    /// What, such as `constraint app.tickets tickets_owner_fkey`.
    pub what: String,
    /// What is left of it.
    pub remains: Remains,
    /// Why.
    pub why: String,
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let remains = match self.remains {
            Remains::NotValid => "is NOT VALID",
            Remains::Missing => "is left out",
            Remains::Empty => "is empty",
            Remains::Recomputed => "were computed again and differ",
        };
        write!(f, "{} {remains} ({})", self.what, self.why)
    }
}

/// What is left of something that could not be made as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Remains {
    /// A constraint that holds for new rows only.
    NotValid,
    /// Nothing.
    Missing,
    /// A materialized view without rows.
    Empty,
    /// Other values than the source had.
    Recomputed,
}

/// That a backup was read back and proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verification {
    /// SHA-256 of the manifest that was proven, in hexadecimal digits.
    pub manifest_sha256: String,
    /// How it was proven.
    pub mode: VerifyMode,
    /// The dump that was decrypted and decompressed.
    pub plain: Plain,
    /// What the restored database contained; absent when nothing was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
    /// How it was restored; absent when nothing was restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
    /// When, by the mover's clock.
    pub verified_at: Moment,
}

/// What a finished restore reports.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreReport {
    /// The account's uid.
    pub account_uid: String,
    /// SHA-256 of the manifest of the backup that was restored.
    pub manifest_sha256: String,
    /// The id of the database that was filled.
    pub database_oid: u32,
    /// The server that it is on.
    pub system_identifier: String,
    /// The fingerprint of what was restored; equal to the manifest's.
    pub fingerprint: Fingerprint,
    /// How it was restored, and what could not be made as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Restored>,
    /// When it was complete.
    pub completed_at: Moment,
}

/// The name of the report of the restore that is wanted since `since` into one database, in the backup's folder.
/// Another attempt fills another database and has another report.
pub(crate) fn report_name(since: Moment, database_oid: u32) -> String {
    format!("restore-{}-{database_oid}.json", super::stamp(since))
}

/// A report of a kind, which its signature covers.
pub trait SignedReport: Serialize + DeserializeOwned {
    /// What it is.
    const KIND: &'static str;
}

impl SignedReport for Manifest {
    const KIND: &'static str = "helpdesk-operator.io backup manifest v1";
}

impl SignedReport for Verification {
    const KIND: &'static str = "helpdesk-operator.io backup verification v1";
}

impl SignedReport for RestoreReport {
    const KIND: &'static str = "helpdesk-operator.io restore report v1";
}

/// Why a report is not believed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It does not parse.
    #[error("failed to read the {kind}")]
    Parse {
        /// What it should be.
        kind: &'static str,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// Its signature is not by this backup's key over these facts.
    #[error("failed to believe the {0}: its signature is not that of this backup's key")]
    BadSignature(&'static str),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed<T> {
    facts: T,
    signature: String,
}

fn message<T: SignedReport>(facts: &T) -> Result<Vec<u8>, Error> {
    let mut message = T::KIND.as_bytes().to_vec();
    message.push(b'\n');
    serde_json::to_writer(&mut message, facts).map_err(|source| Error::Parse { kind: T::KIND, source })?;
    Ok(message)
}

/// A report with its signature, as it is stored.
///
/// # Errors
/// Never, as long as a report can be written as JSON.
pub fn sign<T: SignedReport>(facts: T, key: &Ed25519KeyPair) -> Result<Vec<u8>, Error> {
    let signature = crate::digest::hex(key.sign(&message(&facts)?).as_ref());
    let mut bytes = serde_json::to_vec_pretty(&Signed { facts, signature }).map_err(|source| Error::Parse { kind: T::KIND, source })?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads a report and believes it only if this backup's key signed it.
///
/// # Errors
/// See [`Error`].
pub fn verify<T: SignedReport>(bytes: &[u8], verifying_key: &[u8]) -> Result<T, Error> {
    let sealed: Signed<T> = serde_json::from_slice(bytes).map_err(|source| Error::Parse { kind: T::KIND, source })?;
    let signature = unhex(&sealed.signature).ok_or(Error::BadSignature(T::KIND))?;
    let signed = message(&sealed.facts)?;
    UnparsedPublicKey::new(&ED25519, verifying_key).verify(&signed, &signature).map_err(|_| Error::BadSignature(T::KIND))?;
    Ok(sealed.facts)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::digest::sha256;
    use proptest::prelude::*;
    use ring::{rand::SystemRandom, signature::KeyPair};

    pub(crate) fn key() -> Ed25519KeyPair {
        Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap().as_ref()).unwrap()
    }

    pub(crate) fn manifest() -> Manifest {
        let object =
            |name: &str| Object { name: name.into(), size: 7, sha256: sha256(b"x"), etag: "e".into(), crc64nvme: None, version_id: None };
        Manifest {
            backup: "acme-20261123t100003z".into(),
            account: "acme".into(),
            account_uid: "8f3a0000-0000-4000-8000-000000000000".into(),
            store: "eu-cold".into(),
            store_identity: "1f".into(),
            key_id: "age1".into(),
            source: Source { database_oid: 16_412, system_identifier: "7412".into(), server_version: "17.7".into() },
            snapshot_at: "2026-11-23T10:00:03Z".parse().unwrap(),
            completed_at: "2026-11-23T10:00:09Z".parse().unwrap(),
            dump: object(DUMP),
            secrets: object(SECRETS),
            contents: Some(object(CONTENTS)),
            plain: Plain { size: 9, sha256: sha256(b"y") },
            apart: vec![Apart {
                table: "app.files".into(),
                columns: "id, content".into(),
                object: object("rows.zst.age"),
                plain: Plain { size: 8, sha256: sha256(b"r") },
            }],
            fingerprint: Fingerprint {
                relations: 1,
                rows: 2,
                sequences: 1,
                large_objects: 1,
                contents: sha256(b"z"),
                definitions: sha256(b"d"),
                sequence_state: Some(sha256(b"s")),
            },
            extensions: vec![Extension { name: "pg_trgm".into(), version: Some("1.6".into()) }],
            settings: vec![("default_text_search_config".into(), "pg_catalog.german".into())],
        }
    }

    #[test]
    fn what_was_signed_is_believed() {
        let key = key();
        let bytes = sign(manifest(), &key).unwrap();
        assert_eq!(verify::<Manifest>(&bytes, key.public_key().as_ref()).unwrap(), manifest());
    }

    #[test]
    fn another_backups_key_signs_nothing_here() {
        let bytes = sign(manifest(), &key()).unwrap();
        assert!(matches!(verify::<Manifest>(&bytes, key().public_key().as_ref()), Err(Error::BadSignature(_))));
    }

    #[test]
    fn an_unsigned_field_is_refused() {
        let key = key();
        let text = String::from_utf8(sign(manifest(), &key).unwrap()).unwrap();
        let more = text.replacen("\"backup\":", "\"note\": \"trust me\", \"backup\":", 1);
        assert!(verify::<Manifest>(more.as_bytes(), key.public_key().as_ref()).is_err());
    }

    #[test]
    fn a_signature_over_one_kind_is_none_over_another() {
        #[derive(Serialize, Deserialize)]
        struct Other(Manifest);
        impl SignedReport for Other {
            const KIND: &'static str = "other";
        }
        let key = key();
        let bytes = sign(Other(manifest()), &key).unwrap();
        assert!(matches!(verify::<Manifest>(&bytes, key.public_key().as_ref()), Err(Error::BadSignature(_))));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_found_or_changes_nothing(at in 0_usize..2600, bit in 0_u8..8) {
            let key = key();
            let mut bytes = sign(manifest(), &key).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(read) = verify::<Manifest>(&bytes, key.public_key().as_ref()) {
                prop_assert_eq!(read, manifest());
            }
        }
    }
}
