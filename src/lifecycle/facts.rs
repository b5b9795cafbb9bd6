//! What a decision is made from besides the record, and what a decision is.

use super::{Reason, Stage, record::Known};
use crate::{
    api::Lifecycle,
    clock::{Moment, Trust},
};

/// What is known of the Frozen backup that [`Record::frozen`] names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frozen {
    /// There is none yet.
    Missing,
    /// It is being taken or proven.
    Running,
    /// It was proven and, a moment ago, was still all there.
    Verified,
    /// It could not be taken; the text says why.
    Failed(String),
    /// So many attempts failed over so long a time that none may ever succeed.
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

/// What [`decide`] has to know besides the record.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The plan's windows.
    pub windows: Known<Lifecycle>,
    /// Whether the clock may be believed.
    pub clock: Trust,
    /// Whether billing still speaks, where it promised a heartbeat, and whether its state is the newest one.
    pub billing: Known<()>,
    /// The Frozen backup.
    pub frozen: Known<Frozen>,
    /// Whether the Frozen backup has a hold of its own.
    pub backup_held: bool,
    /// Whether the database is gone, or not the one any more that was made.
    pub dropped: Known<bool>,
    /// Whether the database's last session ended before the Frozen backup was taken and nobody got in since.
    pub sealed: Known<bool>,
    /// Whether the brake lets one more destructive step through.
    pub brake: Known<bool>,
    /// `spec.paused`.
    pub paused: bool,
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Stay,
    /// Carry on with the effects of the stage that was decided.
    Enforce,
    /// Decide another stage.
    Enter(Stage, Reason),
    /// The Frozen backup would not live long enough: take another one.
    Refreeze,
    /// Restore the cold backup into a new database; Active follows.
    Restore,
    /// Do not enter the stage after all, and take up the one before it again.
    GoBack,
}

/// What delays a step that is due, by falling rank.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blocker {
    /// A hold, or the notice after it.
    Hold {
        /// Until when the notice runs; `None` while the hold is set.
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
    /// The Frozen backup cannot be proven, and the promise to have nothing left has not elapsed yet.
    Unprovable {
        /// When it has.
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

    /// When it ends, where that is known.
    pub(super) const fn ends(&self) -> Option<Moment> {
        match self {
            Self::Hold { until } => *until,
            Self::Unprovable { until, .. } => Some(*until),
            _ => None,
        }
    }
}

/// What comes next if nothing changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Next {
    /// The stage.
    pub stage: Stage,
    /// When.
    pub at: Moment,
    /// Why.
    pub reason: Reason,
}

/// The decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is to be done now.
    pub step: Step,
    /// What comes next.
    pub next: Option<Next>,
    /// What delays what is due.
    pub blockers: Vec<Blocker>,
    /// Since when a step is due that something delays.
    pub overdue_since: Option<Moment>,
    /// When to look again at the latest, if nothing happens before.
    pub wake_at: Option<Moment>,
}
