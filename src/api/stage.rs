//! The stages of an account, and the reasons for which one follows another.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The stage of an account. Stages follow in this order, except that a payment leads back to Active.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// The account may use the help desk for free.
    Trial,
    /// The account is paid for, or its first failed payment is less than the plan's grace ago.
    Active,
    /// The account is closed to everybody; its data is unchanged.
    Blocked,
    /// The account has no routes and no namespace any more; its data is kept.
    Terminated,
    /// The account has no database any more. It has a cold backup, or not even that.
    Deleted,
    /// Nothing of the account is left but the signed certificate that says so.
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

    /// Whether entering the stage destroys data for good.
    pub const fn destroys(self) -> bool {
        matches!(self, Self::Deleted | Self::Expired)
    }
}

/// A stage that an account entered or will enter.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// The stage.
    pub stage: Stage,
    /// When it was decided to enter it, or when that will be.
    pub at: Time,
    /// Why.
    pub reason: Reason,
}

/// How many transitions a status shows.
pub const SHOWN_TRANSITIONS: usize = 16;

/// Why an account is in its stage, or will enter the next one.
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
    /// The subscription was canceled and its period ended.
    SubscriptionCanceled,
    /// The first payment was not made in time, or the trial ended without a payment method.
    SubscriptionLapsed,
    /// The owner closed the account with mode `Cancel`.
    OwnerCancelled,
    /// The owner closed the account with mode `Erase`.
    OwnerErased,
    /// The window of the previous stage ended.
    WindowEnded,
    /// The last backup expired, or there is none.
    BackupExpired,
    /// The object was deleted with an explicit confirmation.
    ObjectDeleted,
    /// No backup could be verified, and the promised `dataGoneBy` has come.
    PromiseElapsed,
    /// No backup could be verified, and two people agreed not to wait any longer.
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

    /// Whether the database is or was dropped without a verified backup although the owner did not ask for that.
    pub const fn is_unproven(self) -> bool {
        matches!(self, Self::PromiseElapsed | Self::DropAgreed)
    }

    /// Reads what [`Self::name`] wrote.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}
