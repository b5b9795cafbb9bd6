//! What the ledger remembers of an account: its stage, its deadlines, and what they follow from.

use serde::{Deserialize, Serialize};

use super::{
    Reason, Stage,
    billing::{self, BillingMark, Standing, Told},
};
use crate::{
    api::{Billing, BillingState, ClosureMode, Lifecycle, VerifyMode, account::DroppedUnder},
    clock::Moment,
};

/// A fact, or why it could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known<T> {
    /// It was read.
    Known(T),
    /// It could not be read; never a reason to destroy anything.
    Unknown(String),
}

/// What the ledger remembers of an account; the truth about it. Stored before effects, shown in status after.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When the account was created, whichever object speaks for it now.
    #[serde(default)]
    pub created_at: Option<Moment>,
    /// The stage that was decided last.
    pub stage: Stage,
    /// Why.
    pub reason: Reason,
    /// When it was decided; its effects follow.
    pub decided_at: Moment,
    /// When all its effects were seen; `None` while they are under way.
    pub enforced_at: Option<Moment>,
    /// When the stage's window ends, pinned when it was enforced.
    pub leaves_at: Option<Moment>,
    /// When nothing will be left.
    pub data_gone_by: Option<Moment>,
    /// When the one trial ends, pinned once in an account's life.
    pub trial_ends_at: Option<Moment>,
    /// The newest word of billing that was heard, as it was written.
    pub billing: Option<Billing>,
    /// What the account stands at by all of billing's words; decisions rest on it.
    #[serde(default)]
    pub standing: Option<Standing>,
    /// The last word of billing that did not count, or not wholly.
    #[serde(default)]
    pub told: Option<Told>,
    /// Payment counts only above this mark, after a closure was withdrawn.
    pub paid_above: Option<BillingMark>,
    /// The grace of the present run of failed payments: its first failure and its end.
    pub grace: Option<Grace>,
    /// The owner's closure.
    pub closure: Option<ClosureRecord>,
    /// Since when a hold is set.
    pub held_since: Option<Moment>,
    /// Until when the notice after a hold runs.
    pub notice_until: Option<Moment>,
    /// The Frozen backup that belongs to the present block.
    pub frozen: Option<FrozenPin>,
    /// What the account was before the stage that is being entered, while it is.
    #[serde(default)]
    pub before: Option<Before>,
    /// While the stage before is taken up again: since when that had been enforced. Its windows run on from then.
    #[serde(default)]
    pub resumes: Option<Moment>,
    /// Whether the closure for which a stage is being entered was withdrawn.
    #[serde(default)]
    pub withdrawn: bool,
    /// Since when a restore runs.
    pub restoring_since: Option<Moment>,
    /// Since when nobody of the tenant could have changed its data; `None` while the account is open.
    pub sealed_since: Option<Moment>,
    /// Since when somebody is in although the account is closed; `None` again once nobody is.
    #[serde(default)]
    pub seal_broken_since: Option<Moment>,
    /// The due time of the newest backup that the schedule asked for, so that a backup that has run out is not taken
    /// a second time.
    #[serde(default)]
    pub last_scheduled: Option<Moment>,
    /// That the Frozen backup cannot be proven. Kept after its database was dropped for that, as the reason.
    #[serde(default)]
    pub unprovable: Option<Unprovable>,
    /// What was promised before [`Self::data_gone_by`] had to be moved, the first of such promises.
    #[serde(default)]
    pub promised: Option<Moment>,
    /// What delayed a step that destroys, each word once, in the order in which it was seen.
    #[serde(default)]
    pub delayed_by: Vec<String>,
    /// Under which authority the database was dropped; written before that.
    #[serde(default)]
    pub dropped_under: Option<DroppedUnder>,
    /// What of the database was not made as it was when it came back from its cold backup, although every row is there.
    #[serde(default)]
    pub restored_without: Vec<String>,
    /// What the account's plan said when it was seen last.
    #[serde(default)]
    pub plan: Option<PlanSeen>,
}

/// What a plan said when it was seen last: an end rests on it when the plan, or its placement, is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanSeen {
    /// Its windows.
    pub windows: Lifecycle,
    /// The `BackupStore` of its placement in the account's region.
    pub store: Option<String>,
    /// How its backups are proven.
    pub verify: VerifyMode,
}

/// That a Frozen backup cannot be proven, as its controller found after many attempts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unprovable {
    /// Names the backup, as [`FrozenPin::due`] does: another one has to be found unprovable by itself.
    pub due: Moment,
    /// Since when it is known.
    pub since: Moment,
    /// One word for the first cause.
    pub reason: String,
    /// The first cause. It may quote what the tenant wrote, so it is forgotten with the rest of the account.
    pub why: String,
    /// Who agreed not to wait until the promise has elapsed.
    #[serde(default)]
    pub agreed: Option<Agreed>,
}

/// Two people who agreed that a database is dropped although no backup of it can be proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    /// Who asked for it.
    pub requested_by: String,
    /// Who approved.
    pub approved_by: String,
    /// When the operator saw both.
    pub seen_at: Moment,
}

/// A pinned grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grace {
    /// The first failure of the run.
    pub since: Moment,
    /// When the account is blocked.
    pub ends_at: Moment,
}

/// A stage that was enforced, with what was pinned for it: what an account goes back to if the stage after it is not
/// to be entered after all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// The stage.
    pub stage: Stage,
    /// Why the account was in it.
    pub reason: Reason,
    /// Since when it was enforced.
    pub enforced_at: Moment,
    /// When its window ends.
    pub leaves_at: Option<Moment>,
    /// When nothing was to be left.
    pub data_gone_by: Option<Moment>,
    /// The Frozen backup of its block.
    pub frozen: Option<FrozenPin>,
    /// That this one cannot be proven.
    pub unprovable: Option<Unprovable>,
}

/// A closure as it was first seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosureRecord {
    /// How the account ends.
    pub mode: ClosureMode,
    /// Whether a cold backup outlives the database.
    pub keeps_backup: bool,
    /// When the operator first saw it.
    pub seen_at: Moment,
    /// With [`ClosureMode::Erase`]: when the data may be deleted.
    pub delete_at: Moment,
    /// Whether it comes from a confirmed deletion of the object, which is an erasure that keeps the backup and has
    /// no delay.
    #[serde(default)]
    pub by_deletion: bool,
}

impl ClosureRecord {
    pub(super) fn reason(&self) -> Reason {
        match self.mode {
            _ if self.by_deletion => Reason::ObjectDeleted,
            ClosureMode::Cancel => Reason::OwnerCancelled,
            ClosureMode::Erase => Reason::OwnerErased,
        }
    }
}

/// Which Frozen backup has to exist before the database may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrozenPin {
    /// Names the backup, so that a crash cannot make two.
    pub due: Moment,
    /// Its deadline.
    pub expires_at: Moment,
}

impl Record {
    /// The record of an account that was just created.
    pub fn created(now: Moment) -> Self {
        Self {
            created_at: Some(now),
            stage: Stage::Trial,
            reason: Reason::Created,
            decided_at: now,
            enforced_at: None,
            leaves_at: None,
            data_gone_by: None,
            trial_ends_at: None,
            billing: None,
            standing: None,
            told: None,
            paid_above: None,
            grace: None,
            closure: None,
            held_since: None,
            notice_until: None,
            frozen: None,
            before: None,
            resumes: None,
            withdrawn: false,
            restoring_since: None,
            sealed_since: None,
            seal_broken_since: None,
            last_scheduled: None,
            unprovable: None,
            promised: None,
            delayed_by: Vec::new(),
            dropped_under: None,
            restored_without: Vec::new(),
            plan: None,
        }
    }

    pub(super) fn is_paid(&self) -> bool {
        self.closure.is_none()
            && self.standing.as_ref().is_some_and(|s| s.state == BillingState::Active && self.paid_above.is_none_or(|floor| s.mark > floor))
    }

    /// The record as it is written now: older ones say what was heard of billing, and not what it came to.
    pub fn up_to_date(mut self) -> Self {
        if let (None, Some(heard)) = (&self.standing, &self.billing) {
            let (standing, _) = billing::judge_billing(None, heard, heard.since.0);
            let pinned = self.grace.map(|grace| grace.since);
            self.standing = standing.map(|s| Standing { failing_since: s.failing_since.map(|since| pinned.unwrap_or(since)), ..s });
        }
        self
    }

    /// Forgets billing's name of the subscription, which leads to a person.
    pub fn forget_subscription(&mut self) {
        if let Some(billing) = &mut self.billing {
            billing.subscription = None;
        }
        if let Some(standing) = &mut self.standing {
            standing.subscription = None;
        }
        self.told = None;
    }

    /// Whether this is the newest word that was heard; its subscription may have been forgotten since.
    pub(super) fn has_heard(&self, word: &Billing) -> bool {
        let forgotten = || Billing { subscription: None, ..word.clone() };
        self.billing.as_ref().is_some_and(|heard| heard == word || (self.stage == Stage::Expired && *heard == forgotten()))
    }

    /// Since when the stage's windows run; `None` before they do.
    pub(super) fn pinned_at(&self) -> Option<Moment> {
        self.enforced_at.or(self.resumes)
    }

    /// Whether a stage that was decided for this reason is not enforced yet, and the one before it is known.
    pub(super) fn is_being_entered_for(&self, reason: Reason) -> bool {
        self.enforced_at.is_none() && self.before.is_some() && self.resumes.is_none() && self.reason == reason
    }

    /// Whether nobody of the tenant could have changed its data since the seal was set, as far as the last look saw.
    pub const fn is_sealed(&self) -> bool {
        self.sealed_since.is_some() && self.seal_broken_since.is_none()
    }

    pub(super) fn erasure(&self) -> Option<&ClosureRecord> {
        self.closure.as_ref().filter(|c| c.mode == ClosureMode::Erase)
    }

    /// Whether no cold backup may outlive the database, because the owner said so.
    pub fn waives_backup(&self) -> bool {
        self.closure.as_ref().is_some_and(|c| !c.keeps_backup)
    }
}
