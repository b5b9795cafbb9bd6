//! The authority to drop a database: the only values that [`Server::drop`](crate::database::Server::drop) accepts.
//!
//! **Invariant:** [`DropAuthority`] has no public constructor but [`Verified`], which only a re-check of a proven
//! backup makes, [`OwnerWaiver`], which only the owner's own recorded wish makes, [`WaitOver`], which only the
//! ledger's record of a backup that cannot be proven makes, once the promise to have nothing left has elapsed or two
//! people have cut it short, and [`UnwantedCopy`], which only the ledger's record of a database that was dropped before
//! makes. Nothing else compiles, and there is no flag.

use crate::{
    api::{
        Time,
        account::{DropGround, DroppedUnder},
    },
    clock::{Moment, Trust},
    lifecycle::{self, Agreed, Reason, Record, Stage},
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

/// The end of the wait for a backup that cannot be proven.
#[derive(Debug)]
#[allow(clippy::manual_non_exhaustive, reason = "the seal keeps the rest of this crate out as well")]
pub struct WaitOver {
    /// The account's uid.
    pub account_uid: String,
    /// The `ColdBackup` that cannot be proven.
    pub backup: String,
    /// Since when that is known.
    pub since: Moment,
    /// One word for why it cannot.
    pub reason: String,
    /// Who cut the wait short; `None`: the promise has elapsed.
    pub agreed: Option<Agreed>,
    _seal: (),
}

impl WaitOver {
    /// The permission, if the record carries the decision, made under the brake and stored, and everything that it
    /// rests on still holds by a clock that can be believed.
    pub fn of(record: &Record, account: &str, account_uid: &str, clock: &Trust, now: Moment) -> Option<Self> {
        let unprovable = record.unprovable.as_ref()?;
        let decided = record.stage == Stage::Deleted && record.enforced_at.is_none();
        let agreed = match record.reason {
            Reason::PromiseElapsed => record.data_gone_by.filter(|until| *until <= now).map(|_| None)?,
            Reason::DropAgreed => Some(unprovable.agreed.clone()?),
            _ => return None,
        };
        let held = record.held_since.is_some() || record.notice_until.is_some_and(|until| until > now);
        (decided && !held && *clock == Trust::Trusted).then(|| Self {
            account_uid: account_uid.to_owned(),
            backup: super::backup_name(account, unprovable.due),
            since: unprovable.since,
            reason: unprovable.reason.clone(),
            agreed,
            _seal: (),
        })
    }
}

/// A restored copy that is not wanted any more, as when billing took back the payment for which it was made.
#[derive(Debug)]
#[allow(clippy::manual_non_exhaustive, reason = "the seal keeps the rest of this crate out as well")]
pub struct UnwantedCopy {
    /// The account's uid.
    pub account_uid: String,
    /// The oid of the copy.
    pub database_oid: u32,
    /// The server that it is on.
    pub system_identifier: String,
    _seal: (),
}

impl UnwantedCopy {
    /// The permission, if the record says that the tenant's own database was dropped, and either that no restore was
    /// completed, or that the account does not come back and is not held.
    pub fn of(record: &Record, account_uid: &str, database_oid: u32, system_identifier: &str) -> Option<Self> {
        let wanted = lifecycle::due(record).is_some_and(|next| next.stage == Stage::Active);
        let useless = record.restored.is_none() || (!wanted && record.held_since.is_none());
        (record.holds_only_a_copy() && useless).then(|| Self {
            account_uid: account_uid.to_owned(),
            database_oid,
            system_identifier: system_identifier.to_owned(),
            _seal: (),
        })
    }
}

/// Permission to drop one account's database.
#[derive(Debug)]
pub enum DropAuthority {
    /// Its contents are safe.
    Verified(Verified),
    /// Its owner wants it gone.
    Waived(OwnerWaiver),
    /// Its contents can be kept safe by nobody, and it was promised that they go.
    Unprovable(WaitOver),
    /// It is a copy, and its contents are in the cold backup.
    Unwanted(UnwantedCopy),
}

impl DropAuthority {
    /// The account it is about.
    pub fn account_uid(&self) -> &str {
        match self {
            Self::Verified(proof) => &proof.account_uid,
            Self::Waived(waiver) => &waiver.account_uid,
            Self::Unprovable(over) => &over.account_uid,
            Self::Unwanted(copy) => &copy.account_uid,
        }
    }

    /// What the ledger and the certificate say of it. Of a copy they say nothing: they have the authority under which the
    /// tenant's own database was dropped.
    pub fn told(&self) -> Option<DroppedUnder> {
        Some(match self {
            Self::Unwanted(_) => return None,
            Self::Verified(proof) => DroppedUnder {
                backup: Some(proof.backup.clone()),
                snapshot_at: Some(Time(proof.snapshot_at)),
                ..DroppedUnder::by(DropGround::VerifiedBackup)
            },
            Self::Waived(_) => DroppedUnder::by(DropGround::OwnerWaiver),
            Self::Unprovable(WaitOver { backup, since, reason, agreed, .. }) => DroppedUnder {
                backup: Some(backup.clone()),
                // The cause itself may quote what the tenant wrote.
                because: Some(format!("{reason}; taken for unprovable since {since}")),
                requested_by: agreed.as_ref().map(|a| a.requested_by.clone()),
                approved_by: agreed.as_ref().map(|a| a.approved_by.clone()),
                ..DroppedUnder::by(if agreed.is_some() { DropGround::TwoPeople } else { DropGround::PromiseElapsed })
            },
        })
    }

    /// Whether it covers this very database. Another database of the same name is another database.
    pub fn covers(&self, account_uid: &str, oid: u32, system_identifier: &str) -> bool {
        self.account_uid() == account_uid
            && match self {
                Self::Verified(proof) => proof.database_oid == oid && proof.system_identifier == system_identifier,
                Self::Unwanted(copy) => copy.database_oid == oid && copy.system_identifier == system_identifier,
                Self::Waived(_) | Self::Unprovable(_) => true,
            }
    }
}
