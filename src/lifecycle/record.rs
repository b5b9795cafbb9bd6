//! The record of an account in the ledger: its stage, its deadlines, and the inputs that they follow from.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{
    Reason, Stage,
    billing::{self, BillingMark, Standing, Told},
};
use crate::{
    api::{Billing, BillingState, ClosureMode, Lifecycle, VerifyMode, account::DroppedUnder, plan::PlanPlacement},
    clock::{Moment, TOLERANCE},
};

/// A fact, or why it could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known<T> {
    /// It was read.
    Known(T),
    /// It could not be read; the text says why. An unknown fact never permits destruction.
    Unknown(String),
}

/// The record of an account in the ledger. It is the truth about the account: stored before effects, copied to the
/// status after them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When the account was created. It stays when another object takes the account over.
    #[serde(default)]
    pub created_at: Option<Moment>,
    /// The stage that was decided last.
    pub stage: Stage,
    /// Why.
    pub reason: Reason,
    /// When it was decided; its effects follow.
    pub decided_at: Moment,
    /// When all its effects were observed; `None` while they are under way.
    pub enforced_at: Option<Moment>,
    /// When the stage's window ends, pinned when it was enforced.
    pub leaves_at: Option<Moment>,
    /// The promise to the owner: from then on no data is left.
    pub data_gone_by: Option<Moment>,
    /// When the trial ends. An account has one trial, so this is pinned once.
    pub trial_ends_at: Option<Moment>,
    /// The newest `status.billing` that was accepted, as billing wrote it.
    pub billing: Option<Billing>,
    /// The billing state that follows from all accepted values of `status.billing`. Decisions use this one.
    #[serde(default)]
    pub standing: Option<Standing>,
    /// The last `status.billing` of which a part, or all, was rejected.
    #[serde(default)]
    pub told: Option<Told>,
    /// After a closure was withdrawn: only a payment above this mark opens the account.
    pub paid_above: Option<BillingMark>,
    /// The grace of the present run of failed payments: its first failure and its end.
    pub grace: Option<Grace>,
    /// The owner's closure.
    pub closure: Option<ClosureRecord>,
    /// Since when a hold is set.
    pub held_since: Option<Moment>,
    /// When the notice period after a hold ends.
    pub notice_until: Option<Moment>,
    /// The Frozen backup that belongs to the present block.
    pub frozen: Option<FrozenPin>,
    /// While a stage is being entered: the stage before it.
    #[serde(default)]
    pub before: Option<Before>,
    /// While the account returns to the stage before: since when that stage had been enforced. Its windows are counted from
    /// then, as if it had never been left.
    #[serde(default)]
    pub resumes: Option<Moment>,
    /// Whether the closure for which a stage is being entered was withdrawn.
    #[serde(default)]
    pub withdrawn: bool,
    /// Since when a restore runs.
    pub restoring_since: Option<Moment>,
    /// The restore that was completed, by its [`Self::restoring_since`].
    #[serde(default)]
    pub restored: Option<Moment>,
    /// Since when the tenant cannot have changed its data; `None` while the account is open.
    pub sealed_since: Option<Moment>,
    /// Since when somebody has a session, or could open one, although the account is closed; `None` again afterwards.
    #[serde(default)]
    pub seal_broken_since: Option<Moment>,
    /// The due time of the newest scheduled backup. It is kept after that backup expired, which would otherwise be taken a
    /// second time.
    #[serde(default)]
    pub last_scheduled: Option<Moment>,
    /// Set if the Frozen backup cannot be proven. Kept after the database was dropped without proof, as the reason.
    #[serde(default)]
    pub unprovable: Option<Unprovable>,
    /// The first value of [`Self::data_gone_by`] that had to be moved to a later time.
    #[serde(default)]
    pub promised: Option<Moment>,
    /// The names of the blockers that delayed a step that destroys: each once, in the order in which they were observed.
    #[serde(default)]
    pub delayed_by: Vec<String>,
    /// The authority under which the database is dropped; stored before the drop.
    #[serde(default)]
    pub dropped_under: Option<DroppedUnder>,
    /// What the restore from the cold backup could not make as it was, although every row is there.
    #[serde(default)]
    pub restored_without: Vec<String>,
    /// The names of the secrets that were handed to the tenant's app. One of these that is lost is never made again: what
    /// the app wrote may be encrypted with it.
    #[serde(default)]
    pub app_secrets: BTreeSet<String>,
    /// The account's plan as it was when it was last read.
    #[serde(default)]
    pub plan: Option<PlanSeen>,
    /// The revision of its class that the account has.
    #[serde(default)]
    pub class: Option<PinnedClass>,
    /// The ids of the notices that were delivered last.
    #[serde(default)]
    pub notices: Vec<String>,
    /// The newest request for another password of the app's administrator.
    #[serde(default)]
    pub admin_password: Option<AdminPassword>,
}

/// A request for another password of the app's administrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminPassword {
    /// A digest of the annotation that asked.
    pub request: String,
    /// Whether the app has it.
    pub is_set: bool,
}

/// The revision of a class that an account has until it is upgraded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedClass {
    /// The class.
    pub name: String,
    /// The name of the `ControllerRevision`.
    pub revision: String,
    /// Since when.
    pub since: Moment,
    /// A digest of the hook `migrate` that the database has had last; `None`: not known, as after a restore.
    pub migrated: Option<String>,
}

/// A plan as it was when it was last read. The end of an account uses it when the plan is deleted, and a reference that was
/// removed from the plan stays in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanSeen {
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// Its class.
    #[serde(default)]
    pub class: Option<String>,
    /// Its placement in the account's region.
    #[serde(default)]
    pub placement: Option<PlanPlacement>,
    /// Its windows.
    pub windows: Lifecycle,
    /// The `BackupStore` of its placement in the account's region.
    pub store: Option<String>,
    /// How its backups are proven.
    pub verify: VerifyMode,
}

/// The finding of the backup's controller, after many attempts, that a Frozen backup cannot be proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unprovable {
    /// Names the backup, as [`FrozenPin::due`] does. The finding is valid for this backup only.
    pub due: Moment,
    /// Since when that is known.
    pub since: Moment,
    /// One word for the first cause.
    pub reason: String,
    /// The first cause. It may quote the tenant's data, so it is removed when the account is Expired.
    pub why: String,
    /// The two people who agreed not to wait for `data_gone_by`.
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

/// A pinned grace period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grace {
    /// The first failure of the run.
    pub since: Moment,
    /// When the account is blocked.
    pub ends_at: Moment,
}

/// A stage that was enforced, with its pinned deadlines. The account returns to it if the stage after it is not entered
/// after all.
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
    /// The promise that was valid in it.
    pub data_gone_by: Option<Moment>,
    /// The Frozen backup of its block.
    pub frozen: Option<FrozenPin>,
    /// Set if that backup cannot be proven.
    pub unprovable: Option<Unprovable>,
}

/// A closure as it was first observed.
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
    /// Whether it comes from a confirmed deletion of the object. That is an erasure which keeps the backup, unless the owner
    /// waived it, and then has no delay.
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

/// The Frozen backup that must exist before the database may be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrozenPin {
    /// The backup's name is made from it, so that a crash cannot make two.
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
            restored: None,
            sealed_since: None,
            seal_broken_since: None,
            last_scheduled: None,
            unprovable: None,
            promised: None,
            delayed_by: Vec::new(),
            dropped_under: None,
            restored_without: Vec::new(),
            app_secrets: BTreeSet::new(),
            plan: None,
            class: None,
            notices: Vec::new(),
            admin_password: None,
        }
    }

    pub(super) fn is_paid(&self) -> bool {
        self.closure.is_none()
            && self.standing.as_ref().is_some_and(|s| s.state == BillingState::Active && self.paid_above.is_none_or(|floor| s.mark > floor))
    }

    /// Adds `standing` to a record of an older version, which has only `billing`.
    pub fn up_to_date(mut self) -> Self {
        if let (None, Some(heard)) = (&self.standing, &self.billing) {
            let (standing, _) = billing::judge_billing(None, heard, heard.since.0);
            let pinned = self.grace.map(|grace| grace.since);
            self.standing = standing.map(|s| Standing { failing_since: s.failing_since.map(|since| pinned.unwrap_or(since)), ..s });
        }
        self
    }

    /// Removes billing's id of the subscription, because it leads to a person.
    pub fn forget_subscription(&mut self) {
        if let Some(billing) = &mut self.billing {
            billing.subscription = None;
        }
        if let Some(standing) = &mut self.standing {
            standing.subscription = None;
        }
        self.told = None;
    }

    /// Whether this `status.billing` was accepted already. The record may lack its subscription once the database is gone.
    pub(super) fn has_heard(&self, word: &Billing) -> bool {
        let forgotten = || Billing { subscription: None, ..word.clone() };
        self.billing.as_ref().is_some_and(|heard| heard == word || (self.stage.destroys() && *heard == forgotten()))
    }

    /// When the stage's window started; `None` before it does.
    pub(super) fn pinned_at(&self) -> Option<Moment> {
        self.enforced_at.or(self.resumes)
    }

    /// Whether a stage was decided for this reason, is not enforced yet, and can be left for the one before it.
    pub(super) fn is_being_entered_for(&self, reason: Reason) -> bool {
        self.enforced_at.is_none() && self.before.is_some() && self.resumes.is_none() && self.reason == reason
    }

    /// Whether the tenant's own database was dropped. Whatever has its name since then is a copy that a restore made, into
    /// which nobody was let yet.
    pub fn holds_only_a_copy(&self) -> bool {
        match self.stage {
            Stage::Deleted => self.enforced_at.is_some(),
            Stage::Expired => true,
            Stage::Trial | Stage::Active | Stage::Blocked | Stage::Terminated => false,
        }
    }

    /// Whether a dump with this snapshot was taken after the seal was set. The name of the Frozen backup is another one
    /// after each seal, so this check is the second one, and it allows for the two clocks that it compares.
    pub fn seals(&self, snapshot_at: Moment) -> bool {
        self.sealed_since.is_some_and(|sealed| snapshot_at + TOLERANCE >= sealed)
    }

    /// Whether the tenant cannot have changed its data since the seal was set, by the last observation.
    pub const fn is_sealed(&self) -> bool {
        self.sealed_since.is_some() && self.seal_broken_since.is_none()
    }

    pub(super) fn erasure(&self) -> Option<&ClosureRecord> {
        self.closure.as_ref().filter(|c| c.mode == ClosureMode::Erase)
    }

    /// Whether the owner asked that no cold backup outlives the database.
    pub fn waives_backup(&self) -> bool {
        self.closure.as_ref().is_some_and(|c| !c.keeps_backup)
    }
}
