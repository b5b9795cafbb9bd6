//! The facts that a decision needs besides the record, and the types of the decision.

use super::{Reason, Stage, record::Known};
use crate::{
    api::Lifecycle,
    clock::{Moment, Trust},
};

/// The state of the Frozen backup that [`Record::frozen`] names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frozen {
    /// Its object does not exist yet.
    Missing,
    /// It is being taken or proven.
    Running,
    /// It was proven, and the recheck of a moment ago found all of it.
    Verified,
    /// It could not be taken or proven; the text says why.
    Failed(String),
    /// So many attempts failed over so long a time that no further one is expected to succeed.
    Unprovable {
        /// Since when that is known.
        since: Moment,
        /// One word for the first cause.
        reason: String,
        /// The first cause.
        why: String,
    },
    /// It was destroyed.
    Erased,
}

/// The facts that [`decide`] needs besides the record.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The plan's windows.
    pub windows: Known<Lifecycle>,
    /// Whether the clock may be believed.
    pub clock: Trust,
    /// Unknown if billing's heartbeat is late, where billing sends one, or if the newest `status.billing` was rejected.
    pub billing: Known<()>,
    /// The Frozen backup.
    pub frozen: Known<Frozen>,
    /// Whether the Frozen backup has a hold of its own.
    pub backup_held: bool,
    /// Whether the database is gone, or another one has its name.
    pub dropped: Known<bool>,
    /// Whether the database's last session ended before the Frozen backup was taken and nobody got in since.
    pub sealed: Known<bool>,
    /// Whether the brake lets one more destructive step through.
    pub brake: Known<bool>,
    /// `spec.paused`.
    pub paused: bool,
}

/// The step that is taken now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Stay,
    /// Carry on with the effects of the stage that was decided.
    Enforce,
    /// Decide another stage.
    Enter(Stage, Reason),
    /// Take another Frozen backup: the present one would expire too early.
    Refreeze,
    /// Restore the cold backup into a new database; Active follows.
    Restore,
    /// Do not enter the stage after all; return to the one before it.
    GoBack,
}

/// What delays a step that is due, by falling rank.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blocker {
    /// A hold, or the notice period after it.
    Hold {
        /// When the notice period ends; `None` while the hold is set.
        until: Option<Moment>,
    },
    /// A fact that could not be read.
    Unknown(String),
    /// The brake.
    Brake,
    /// `spec.paused`.
    Paused,
    /// The Frozen backup is not proven yet.
    Backup(String),
    /// The Frozen backup cannot be proven, and `data_gone_by` has not come yet.
    Unprovable {
        /// `data_gone_by`.
        until: Moment,
        /// The first cause.
        why: String,
    },
    /// The database is not sealed yet.
    Sessions,
}

impl Blocker {
    /// One word for it, as in the condition `Overdue`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hold { until: None } => "Held",
            Self::Hold { until: Some(_) } => "Notice",
            Self::Unknown(_) => "Unknown",
            Self::Brake => "Brake",
            Self::Paused => "Paused",
            Self::Backup(_) => "AwaitingBackup",
            Self::Unprovable { .. } => "Unprovable",
            Self::Sessions => "AwaitingSeal",
        }
    }

    /// When the blocker ends by itself; `None`: unknown.
    pub(super) const fn ends(&self) -> Option<Moment> {
        match self {
            Self::Hold { until } => *until,
            Self::Unprovable { until, .. } => Some(*until),
            _ => None,
        }
    }
}

/// The stage that follows if no input changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// The stage.
    pub stage: Stage,
    /// When.
    pub at: Moment,
    /// Why.
    pub reason: Reason,
}

/// The decision that [`decide`](super::decide) returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The step to take now.
    pub step: Step,
    /// The stage that follows.
    pub next: Option<Next>,
    /// What delays the step that is due, if it is delayed.
    pub blockers: Vec<Blocker>,
    /// When the delayed step became due.
    pub overdue_since: Option<Moment>,
    /// When the next reconcile must run at the latest.
    pub requeue_at: Option<Moment>,
}
