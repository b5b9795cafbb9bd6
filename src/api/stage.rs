//! The stages of an account, and the reasons for which one follows another.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where in its life an account is. In this order, except that payment leads back to Active.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// Accounts in this stage try the help desk for free.
    Trial,
    /// Accounts in this stage are paid for, or failed to pay less than the plan's grace ago.
    Active,
    /// Accounts in this stage are closed to everybody; their data is as it was.
    Blocked,
    /// Accounts in this stage have no domain and no configuration in the cloud; their data is kept.
    Terminated,
    /// Accounts in this stage have no database any more, only a cold backup, or not even that.
    Deleted,
    /// Of accounts in this stage nothing is left but the proof of that.
    Expired,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Self; 6] = [Self::Trial, Self::Active, Self::Blocked, Self::Terminated, Self::Deleted, Self::Expired];

    /// The stage's name as users see it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trial => "Trial",
            Self::Active => "Active",
            Self::Blocked => "Blocked",
            Self::Terminated => "Terminated",
            Self::Deleted => "Deleted",
            Self::Expired => "Expired",
        }
    }

    /// Reads what [`Self::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }

    /// Whether the tenant's people may log in.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Trial | Self::Active)
    }

    /// Whether the tenant's database exists.
    pub const fn has_database(self) -> bool {
        !matches!(self, Self::Deleted | Self::Expired)
    }

    /// Whether entering it destroys something that cannot be brought back.
    pub const fn destroys(self) -> bool {
        matches!(self, Self::Deleted | Self::Expired)
    }
}

/// Why an account is in its stage, or will be in the next.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// The account was created.
    Created,
    /// Billing says that it is paid for.
    Paid,
    /// The trial ended without payment.
    TrialEnded,
    /// The grace after the first failed payment ended.
    PaymentFailed,
    /// The subscription was cancelled and its period ended.
    SubscriptionCanceled,
    /// The first payment never came, or the trial ended without a way to pay.
    SubscriptionLapsed,
    /// The owner cancelled.
    OwnerCancelled,
    /// The owner asked for erasure.
    OwnerErased,
    /// The window of the stage before ended.
    WindowEnded,
    /// The deadline of the last backup came, or there is none.
    BackupExpired,
    /// The object was deleted with an explicit confirmation.
    ObjectDeleted,
    /// No backup could be proven, and the time by which nothing was to be left has come.
    PromiseElapsed,
    /// No backup could be proven, and two people agreed not to wait any longer.
    DropAgreed,
}

impl Reason {
    const ALL: [Self; 13] = [
        Self::Created,
        Self::Paid,
        Self::TrialEnded,
        Self::PaymentFailed,
        Self::SubscriptionCanceled,
        Self::SubscriptionLapsed,
        Self::OwnerCancelled,
        Self::OwnerErased,
        Self::WindowEnded,
        Self::BackupExpired,
        Self::ObjectDeleted,
        Self::PromiseElapsed,
        Self::DropAgreed,
    ];

    /// The reason's name as users see it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Created => "Created",
            Self::Paid => "Paid",
            Self::TrialEnded => "TrialEnded",
            Self::PaymentFailed => "PaymentFailed",
            Self::SubscriptionCanceled => "SubscriptionCanceled",
            Self::SubscriptionLapsed => "SubscriptionLapsed",
            Self::OwnerCancelled => "OwnerCancelled",
            Self::OwnerErased => "OwnerErased",
            Self::WindowEnded => "WindowEnded",
            Self::BackupExpired => "BackupExpired",
            Self::ObjectDeleted => "ObjectDeleted",
            Self::PromiseElapsed => "PromiseElapsed",
            Self::DropAgreed => "DropAgreed",
        }
    }

    /// Whether the database goes, or went, without a proven backup although its owner did not ask for that.
    pub const fn is_unproven(self) -> bool {
        matches!(self, Self::PromiseElapsed | Self::DropAgreed)
    }

    /// Reads what [`Self::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}
