//! The only authority by which a tenant's database may be dropped.
//!
//! **Invariant:** [`DropAuthority`] has no public constructor but [`Verified`], which only a re-check of a proven
//! backup makes, and [`OwnerWaiver`], which only the owner's own recorded wish makes. Nothing else compiles.

use crate::{
    clock::{Moment, Trust},
    lifecycle::Record,
};

/// A backup that was proven by a restore or by decoding every byte, and that was seen to be complete just now.
#[derive(Debug)]
#[allow(clippy::manual_non_exhaustive, reason = "the seal keeps the rest of this crate out as well")]
pub struct Verified {
    /// The `ColdBackup`.
    pub backup: String,
    /// The account's uid in its manifest.
    pub account_uid: String,
    /// The oid of the database it was taken from.
    pub database_oid: u32,
    /// The server it was taken from.
    pub system_identifier: String,
    /// When the dump's snapshot was taken: after the last session of the tenant ended.
    pub snapshot_at: Moment,
    /// When its objects, its key and its escrow were last seen to be complete.
    pub rechecked_at: Moment,
    _seal: (),
}

impl Verified {
    /// Made by the re-check in this folder and by nothing else.
    pub(in crate::backup) fn attest(
        backup: String,
        account_uid: String,
        database_oid: u32,
        system_identifier: String,
        snapshot_at: Moment,
        rechecked_at: Moment,
    ) -> Self {
        Self { backup, account_uid, database_oid, system_identifier, snapshot_at, rechecked_at, _seal: () }
    }
}

/// The owner's recorded wish to be erased without a backup, after its delay.
#[derive(Debug)]
#[allow(clippy::manual_non_exhaustive, reason = "the seal keeps the rest of this crate out as well")]
pub struct OwnerWaiver {
    /// The account's uid.
    pub account_uid: String,
    /// The generation of the spec that carries the wish.
    pub generation: i64,
    _seal: (),
}

impl OwnerWaiver {
    /// The waiver, if the record carries one whose delay has passed by a clock that can be believed.
    pub fn of(record: &Record, account_uid: &str, generation: i64, clock: &Trust, now: Moment) -> Option<Self> {
        let closure = record.closure.as_ref()?;
        let ripe = record.waives_backup() && closure.delete_at <= now && *clock == Trust::Trusted;
        ripe.then(|| Self { account_uid: account_uid.to_owned(), generation, _seal: () })
    }
}

/// Permission to drop one account's database.
#[derive(Debug)]
pub enum DropAuthority {
    /// Its contents are safe.
    Verified(Verified),
    /// Its owner wants it gone.
    Waived(OwnerWaiver),
}

impl DropAuthority {
    /// The account it is about.
    pub fn account_uid(&self) -> &str {
        match self {
            Self::Verified(proof) => &proof.account_uid,
            Self::Waived(waiver) => &waiver.account_uid,
        }
    }

    /// Whether it covers this very database. Another database of the same name is another database.
    pub fn covers(&self, account_uid: &str, oid: u32, system_identifier: &str) -> bool {
        self.account_uid() == account_uid
            && match self {
                Self::Verified(proof) => proof.database_oid == oid && proof.system_identifier == system_identifier,
                Self::Waived(_) => true,
            }
    }
}
