//! The lifecycle: the stages of a tenant and every rule by which one follows another.
//!
//! ```text
//!            paid                      first failure + 7 d, period end
//!  ┌───────┐ ────────► ┌────────┐ ───────────────────────────► ┌─────────┐
//!  │ Trial │           │ Active │ ◄─────────── paid ────────── │ Blocked │
//!  └───────┘           └────────┘ ◄──┐                         └─────────┘
//!      │ 14 d                │       │ paid                         │ 60 d
//!      └──────────► Blocked  │       │                              ▼
//!                            │  ┌────┴────────┐                ┌────────────┐
//!                            │  │ restored    │ ◄──── paid ─── │ Terminated │
//!                            │  └─────▲───────┘                └────────────┘
//!              owner cancels │        │ paid                        │ 30 d
//!                            ▼        │                             ▼
//!                       Terminated    └───────────────────── ┌─────────┐  30 d  ┌─────────┐
//!                                                            │ Deleted │ ─────► │ Expired │
//!                                                            └─────────┘        └─────────┘
//! ```
//!
//! While a closing stage is being entered, a payment and the withdrawal of what it was entered for turn it round; so does
//! a hold as long as nothing was dropped.
//!
//! Four pure steps, none of which reads a clock, does I/O or can fail:
//!
//! 1. [`absorb`] writes into the [`Record`] what the world says: billing, the owner's closure, a hold.
//! 2. [`decide`] says what is due: stay, carry on enforcing, enter another stage, go back to the one before, restore.
//! 3. [`enter`] makes the record of the intent, or [`go_back`], which is stored before any effect.
//! 4. [`enforced`] closes the stage once its effects were seen, and pins the deadlines that follow from it.
//!
//! **Invariant: unknown never permits destruction.** A fact that could not be read is [`Known::Unknown`], and every
//! path to [`Stage::Deleted`] and [`Stage::Expired`] asks for all of them.
//!
//! **Invariant: nothing waits for ever.** A database whose backup cannot be proven is kept, shut, until the time by
//! which nothing was to be left, and goes then ([`Reason::PromiseElapsed`]).
//!
//! **Invariant: one stage at a time.** A window starts when its stage was enforced, so an operator that was away for
//! a hundred days lengthens windows and never runs through them.

use k8s_openapi::jiff::SignedDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    api::{Billing, BillingState, ClockPolicy, Closure, ClosureMode, Lifecycle, VerifyMode, Window, account::DroppedUnder},
    billing::{self, Standing, Told},
    clock::{Moment, Trust},
};

pub use crate::billing::{BillingMark, Refused};

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
    fn reason(&self) -> Reason {
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

    fn is_paid(&self) -> bool {
        self.closure.is_none()
            && self.standing.as_ref().is_some_and(|s| s.state == BillingState::Active && self.paid_above.is_none_or(|floor| s.mark > floor))
    }

    /// The record as it is written now: older ones say what was heard of billing, and not what it came to.
    pub fn up_to_date(mut self) -> Self {
        if let (None, Some(heard)) = (&self.standing, &self.billing) {
            let (standing, _) = billing::hear(None, heard, heard.since.0);
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
    fn has_heard(&self, word: &Billing) -> bool {
        let forgotten = || Billing { subscription: None, ..word.clone() };
        self.billing.as_ref().is_some_and(|heard| heard == word || (self.stage == Stage::Expired && *heard == forgotten()))
    }

    /// Since when the stage's windows run; `None` before they do.
    fn pinned_at(&self) -> Option<Moment> {
        self.enforced_at.or(self.resumes)
    }

    /// Whether a stage that was decided for this reason is not enforced yet, and the one before it is known.
    fn is_being_entered_for(&self, reason: Reason) -> bool {
        self.enforced_at.is_none() && self.before.is_some() && self.resumes.is_none() && self.reason == reason
    }

    /// Whether nobody of the tenant could have changed its data since the seal was set, as far as the last look saw.
    pub const fn is_sealed(&self) -> bool {
        self.sealed_since.is_some() && self.seal_broken_since.is_none()
    }

    fn erasure(&self) -> Option<&ClosureRecord> {
        self.closure.as_ref().filter(|c| c.mode == ClosureMode::Erase)
    }

    /// Whether no cold backup may outlive the database, because the owner said so.
    pub fn waives_backup(&self) -> bool {
        self.closure.as_ref().is_some_and(|c| !c.keeps_backup)
    }
}

/// What the account's spec and billing say now.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// `.status.billing`.
    pub billing: Option<&'a Billing>,
    /// `.spec.closure`.
    pub closure: Option<&'a Closure>,
    /// Whether the object is being deleted with a confirmation.
    pub confirmed_deletion: bool,
    /// Whether `.spec.hold` is set.
    pub held: bool,
    /// The plan's windows.
    pub windows: Known<&'a Lifecycle>,
    /// The plan's clock policy.
    pub clock_policy: ClockPolicy,
    /// When the account was created: billing from before that is refused.
    pub created_at: Moment,
    /// Whether the clock may pin anything.
    pub clock: Trust,
}

/// Writes what the world says into the record. Says why billing's present state is unknown, where it is; what did not
/// count besides is in [`Record::told`].
pub fn absorb(record: &Record, seen: &Seen<'_>, now: Moment) -> (Record, Option<Refused>) {
    let mut next = record.clone();
    let refused = absorb_billing(&mut next, seen, now);
    absorb_closure(&mut next, seen, now);
    absorb_hold(&mut next, seen, now);

    if let (Known::Known(windows), Trust::Trusted) = (&seen.windows, &seen.clock) {
        let recompute = seen.clock_policy == ClockPolicy::Recompute;
        if let Some(standing) = &mut next.standing {
            standing.settle(windows.payment_grace.duration(), recompute, now);
        }
        pin_grace(&mut next, windows, recompute);
        if recompute {
            recompute_windows(&mut next, windows);
        }
    }
    (next, refused)
}

fn absorb_billing(next: &mut Record, seen: &Seen<'_>, now: Moment) -> Option<Refused> {
    let word = seen.billing.filter(|word| !next.has_heard(word))?;
    let checked = billing::check(next.billing.as_ref(), word, seen.created_at, now);
    let refused = match checked {
        Err(refused) => Some(refused),
        Ok(()) => {
            let (standing, refused) = billing::hear(next.standing.as_ref(), word, now);
            next.standing = standing;
            next.billing = Some(word.clone());
            refused
        }
    };
    if let Some(why) = &refused {
        next.told = Some(Told { mark: billing::mark(word), why: why.clone() });
    }
    refused.filter(Refused::leaves_unknown)
}

fn absorb_closure(next: &mut Record, seen: &Seen<'_>, now: Moment) {
    let owners = seen.closure.map(|c| (c.mode, c.keeps_backup()));
    let wish = if seen.confirmed_deletion { Some((ClosureMode::Erase, owners.is_none_or(|(_, keeps)| keeps))) } else { owners };
    match (wish, &next.closure) {
        (Some((mode, keeps_backup)), before) => {
            let same = before
                .as_ref()
                .is_some_and(|b| b.mode == mode && b.keeps_backup == keeps_backup && b.by_deletion == seen.confirmed_deletion);
            // A delay is pinned when the wish is seen; without windows or a clock that can be believed it waits.
            let (Known::Known(windows), Trust::Trusted) = (&seen.windows, &seen.clock) else { return };
            if !same {
                let seen_at = before.as_ref().filter(|b| b.mode == mode).map_or(now, |b| b.seen_at);
                let delete_at = match mode {
                    ClosureMode::Cancel => seen_at,
                    ClosureMode::Erase if seen.confirmed_deletion && keeps_backup => now,
                    ClosureMode::Erase => seen_at + windows.erase_delay.duration(),
                };
                next.closure = Some(ClosureRecord { mode, keeps_backup, seen_at, delete_at, by_deletion: seen.confirmed_deletion });
                next.restoring_since = None;
                next.withdrawn = false;
                repin_for_closure(next, windows);
            }
        }
        // A cancellation whose stage nobody has seen enforced leaves nothing behind.
        (None, Some(closure)) if closure.mode == ClosureMode::Cancel && next.is_being_entered_for(Reason::OwnerCancelled) => {
            next.closure = None;
            next.withdrawn = true;
        }
        (None, Some(closure)) if next.stage < Stage::Deleted || (next.stage == Stage::Deleted && next.enforced_at.is_none()) => {
            // Withdrawn: what was open before stays closed until billing speaks anew.
            next.withdrawn = next.stage == Stage::Deleted && closure.mode == ClosureMode::Erase;
            next.closure = None;
            next.paid_above = next.billing.as_ref().map(billing::mark).or(Some((0, -1)));
            if let (Known::Known(windows), Some(enforced_at)) = (&seen.windows, next.pinned_at()) {
                pin_stage(next, windows, enforced_at);
                next.promised = None;
                next.frozen = frozen_pin(next, enforced_at);
            }
        }
        _ => {}
    }
    if let (Some(floor), Some(standing)) = (next.paid_above, &next.standing)
        && standing.mark > floor
    {
        next.paid_above = None;
    }
}

/// An erasure shortens what was promised: the end comes `eraseDelay` after the wish.
fn repin_for_closure(next: &mut Record, windows: &Lifecycle) {
    let Some(erasure) = next.erasure() else { return };
    let delete_at = erasure.delete_at;
    let gone_by = if erasure.keeps_backup { delete_at + windows.cold_backup.duration() } else { delete_at };
    match next.stage {
        Stage::Blocked | Stage::Terminated if next.pinned_at().is_some() => {
            next.leaves_at = Some(next.leaves_at.map_or(delete_at, |at| at.min(delete_at)));
            let gone_by = next.data_gone_by.map_or(gone_by, |at| at.min(gone_by));
            next.data_gone_by = Some(gone_by);
            next.frozen =
                if next.waives_backup() { None } else { frozen_pin(next, next.closure.as_ref().map_or(delete_at, |c| c.seen_at)) };
        }
        Stage::Deleted if next.waives_backup() => {
            let end = next.leaves_at.map_or(delete_at, |at| at.min(delete_at));
            next.leaves_at = Some(end);
            next.data_gone_by = Some(end);
        }
        _ => {}
    }
}

fn absorb_hold(next: &mut Record, seen: &Seen<'_>, now: Moment) {
    match (seen.held, next.held_since) {
        (true, None) => {
            next.held_since = Some(now);
            next.notice_until = None;
        }
        (false, Some(_)) => {
            // Without windows the notice cannot be computed, and the hold stays.
            if let Known::Known(windows) = &seen.windows {
                next.held_since = None;
                next.notice_until = Some(now + windows.hold_notice.duration());
            }
        }
        _ => {}
    }
}

fn pin_grace(next: &mut Record, windows: &Lifecycle, recompute: bool) {
    next.grace = match (next.standing.as_ref().and_then(|standing| standing.failing_since), next.grace) {
        (None, _) => None,
        (Some(since), Some(grace)) if grace.since == since && !recompute => Some(grace),
        (Some(since), _) => Some(Grace { since, ends_at: since + windows.payment_grace.duration() }),
    };
}

fn recompute_windows(next: &mut Record, windows: &Lifecycle) {
    let Some(enforced_at) = next.enforced_at else { return };
    if next.erasure().is_some() {
        return;
    }
    match next.stage {
        Stage::Trial => {
            next.trial_ends_at = Some(enforced_at + windows.trial.duration());
            next.leaves_at = next.trial_ends_at;
        }
        Stage::Blocked => {
            next.leaves_at = Some(enforced_at + windows.blocked.duration());
            next.data_gone_by = next.leaves_at.map(|at| at + windows.terminated.duration() + windows.cold_backup.duration());
        }
        Stage::Terminated => {
            next.leaves_at = Some(enforced_at + windows.terminated.duration());
            next.data_gone_by = next.leaves_at.map(|at| at + windows.cold_backup.duration());
        }
        Stage::Active | Stage::Deleted | Stage::Expired => return,
    }
    if let (Some(pin), Some(gone_by)) = (next.frozen, next.data_gone_by)
        && pin.expires_at != gone_by
    {
        next.frozen = frozen_pin(next, gone_by);
    }
}

/// The Frozen backup that the record's end asks for, named from `due`.
fn frozen_pin(record: &Record, due: Moment) -> Option<FrozenPin> {
    let expires_at = record.data_gone_by?;
    match record.frozen {
        Some(pin) if pin.expires_at == expires_at => Some(pin),
        // Two pins of one account must never share a name.
        Some(pin) => Some(FrozenPin { due: due.max(pin.due + SignedDuration::from_secs(1)), expires_at }),
        None => Some(FrozenPin { due, expires_at }),
    }
}

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
    const fn ends(&self) -> Option<Moment> {
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
pub struct Verdict {
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

/// How much later than promised the end may come before a new Frozen backup is taken: a tenth of its window.
fn slip(windows: &Lifecycle) -> SignedDuration {
    Window::seconds(windows.cold_backup.as_seconds() / 10).duration()
}

/// How long a restore that was begun in time may hold up the destruction of its backup.
pub const RESTORE_EXTENSION: SignedDuration = SignedDuration::from_hours(24);

/// Decides what is to be done with an account, from its record, the facts and the time. See the module's text.
pub fn decide(record: &Record, facts: &Facts, now: Moment) -> Verdict {
    if record.enforced_at.is_none() {
        return enforcing(record, facts, now);
    }
    let next = due(record);
    let Some(next) = next else {
        return Verdict {
            step: Step::Stay,
            next: None,
            blockers: vec![],
            overdue_since: None,
            wake_at: record.notice_until.filter(|at| *at > now),
        };
    };
    if next.at > now {
        return Verdict { step: Step::Stay, next: Some(next), blockers: vec![], overdue_since: None, wake_at: Some(next.at) };
    }
    let (step, blockers) = step_to(record, facts, next, now);
    let (step, overdue_since) = if blockers.is_empty() { (step, None) } else { (Step::Stay, Some(next.at)) };
    let wake_at = blockers.iter().filter_map(Blocker::ends).max();
    let next = match blockers[..] {
        // When it comes all the same is known.
        [Blocker::Unprovable { until, .. }] => Next { at: until, reason: Reason::PromiseElapsed, ..next },
        _ => next,
    };
    Verdict { step, next: Some(next), blockers, overdue_since, wake_at }
}

/// A stage that was decided is carried through, unless what closes it is not to be any more; what destroys is asked
/// about again.
fn enforcing(record: &Record, facts: &Facts, now: Moment) -> Verdict {
    if let Some((step, next)) = turns_round(record, facts, now) {
        let (step, blockers, overdue_since) =
            if facts.paused { (Step::Stay, vec![Blocker::Paused], Some(next.at)) } else { (step, vec![], None) };
        return Verdict { step, next: Some(next), blockers, overdue_since, wake_at: None };
    }
    let mut blockers = Vec::new();
    if record.stage.destroys() {
        blockers.extend(holds(record, now));
        blockers.extend(unknowns(facts, record.closure.is_some()));
    }
    if facts.paused {
        blockers.push(Blocker::Paused);
    }
    let step = if blockers.is_empty() { Step::Enforce } else { Step::Stay };
    let overdue_since = (!blockers.is_empty()).then_some(record.decided_at);
    let wake_at = record.notice_until.filter(|at| *at > now);
    Verdict { step, next: due(record), blockers, overdue_since, wake_at }
}

/// Whether a closing stage that is being entered is not to be entered after all, and what is done instead. A payment
/// opens the account; a cancellation that was withdrawn leads back; a database that is to be dropped stays when it is
/// held, when its erasure was withdrawn, and when its backup ran out. Once the authority to drop is recorded the drop
/// may have begun, and a server may carry out later what it was told: only a backup that ran out leads back then, into
/// a stage that is as closed. An erasure is not turned round by a payment: nothing opens what its owner has closed.
fn turns_round(record: &Record, facts: &Facts, now: Moment) -> Option<(Step, Next)> {
    let (may_open, may_go_back) = match record.stage {
        Stage::Blocked | Stage::Terminated => (true, true),
        Stage::Deleted => {
            let is_there = facts.dropped == Known::Known(false);
            (is_there && record.dropped_under.is_none(), is_there)
        }
        Stage::Trial | Stage::Active | Stage::Expired => (false, false),
    };
    if may_open && record.is_paid() {
        let paid_since = record.standing.as_ref().and_then(|standing| standing.paid_since);
        let at = paid_since.map_or(record.decided_at, |paid| paid.max(record.decided_at));
        let next = Next { stage: Stage::Active, at, reason: Reason::Paid };
        return Some((Step::Enter(Stage::Active, Reason::Paid), next));
    }
    let before = record.before.as_ref().filter(|_| may_go_back)?;
    let back = match record.stage {
        Stage::Deleted if has_run_out(record, facts, now) => true,
        Stage::Deleted if record.dropped_under.is_some() => false,
        // The windows that an erasure cut short are counted anew.
        Stage::Deleted if record.withdrawn => matches!(facts.windows, Known::Known(_)),
        Stage::Deleted => record.held_since.is_some(),
        _ => record.withdrawn,
    };
    back.then_some((Step::GoBack, Next { stage: before.stage, at: record.decided_at, reason: before.reason }))
}

/// Whether the backup under which a database was to be dropped ran out before the drop: another one is taken, which is
/// decided in the stage before.
fn has_run_out(record: &Record, facts: &Facts, now: Moment) -> bool {
    let needed = !record.reason.is_unproven() && !record.waives_backup();
    let expired = facts.clock == Trust::Trusted && record.frozen.is_none_or(|pin| pin.expires_at <= now);
    needed && (expired || facts.frozen == Known::Known(Frozen::Erased))
}

/// Which stage follows, when and why, if nothing delays it.
pub fn due(record: &Record) -> Option<Next> {
    let since = record.enforced_at.unwrap_or(record.decided_at);
    let to = |stage, at, reason| Some(Next { stage, at, reason });
    match record.stage {
        Stage::Trial | Stage::Active => {
            if let Some(closure) = &record.closure {
                return match closure.mode {
                    ClosureMode::Cancel => to(Stage::Terminated, closure.seen_at, closure.reason()),
                    ClosureMode::Erase => to(Stage::Blocked, closure.seen_at, closure.reason()),
                };
            }
            due_by_billing(record, since)
        }
        Stage::Blocked => {
            if let Some(closure) = &record.closure {
                return match closure.mode {
                    ClosureMode::Cancel => to(Stage::Terminated, closure.seen_at.max(since), closure.reason()),
                    ClosureMode::Erase => to(Stage::Deleted, closure.delete_at, closure.reason()),
                };
            }
            if record.is_paid() {
                return to(Stage::Active, since, Reason::Paid);
            }
            to(Stage::Terminated, record.leaves_at?, Reason::WindowEnded)
        }
        Stage::Terminated => {
            if let Some(erasure) = record.erasure() {
                return to(Stage::Deleted, record.leaves_at.map_or(erasure.delete_at, |at| at.min(erasure.delete_at)), erasure.reason());
            }
            if record.is_paid() {
                return to(Stage::Active, since, Reason::Paid);
            }
            to(Stage::Deleted, record.leaves_at?, Reason::WindowEnded)
        }
        Stage::Deleted => {
            let ends = record.leaves_at?;
            if record.reason.is_unproven() {
                // There is no backup: nothing to wait for and nothing to come back from.
                return to(Stage::Expired, ends, record.reason);
            }
            if record.waives_backup() {
                return to(Stage::Expired, ends, Reason::OwnerErased);
            }
            if record.is_paid() && restorable(record, ends) {
                return to(Stage::Active, since, Reason::Paid);
            }
            to(Stage::Expired, ends, Reason::BackupExpired)
        }
        Stage::Expired => None,
    }
}

/// When the tenant's logins are shut by what the record alone says: the end of an open stage, or a closing one that was
/// decided and is not enforced. `None`: nothing that was pinned shuts them, or they are shut.
pub fn shuts_at(record: &Record) -> Option<Moment> {
    match record.stage {
        Stage::Trial | Stage::Active => due(record).filter(|next| !next.stage.is_open()).map(|next| next.at),
        Stage::Blocked | Stage::Terminated => record.enforced_at.is_none().then_some(record.decided_at),
        Stage::Deleted | Stage::Expired => None,
    }
}

/// A restore must begin before the backup's deadline, and extends it by a day at most.
fn restorable(record: &Record, ends: Moment) -> bool {
    record.restoring_since.is_none_or(|begun| begun < ends)
}

/// The earliest of what billing's words come to. A payment comes before all of them.
fn due_by_billing(record: &Record, since: Moment) -> Option<Next> {
    let trial_end = || record.trial_ends_at.map(|at| Next { stage: Stage::Blocked, at, reason: Reason::TrialEnded });
    let Some(standing) = &record.standing else {
        return trial_end().filter(|_| record.stage == Stage::Trial);
    };
    let said = match standing.state {
        BillingState::Active if record.stage == Stage::Active => None,
        // After a withdrawn closure the account stays what it is until billing speaks anew.
        BillingState::Active if !record.is_paid() => trial_end(),
        BillingState::Active => return Some(Next { stage: Stage::Active, at: since, reason: Reason::Paid }),
        state => blocks_at(record, state, standing.ends_at),
    };
    // Whatever was told after it, a failure that no payment followed ends its grace.
    let unpaid = blocks_at(record, BillingState::Unpaid, None);
    let doubted = standing.doubted.as_ref().and_then(|doubted| {
        let counts_at = doubted.counts_at?;
        let then = blocks_at(record, doubted.state, doubted.ends_at);
        let then = then.unwrap_or(Next { stage: Stage::Blocked, at: counts_at, reason: Reason::PaymentFailed });
        Some(Next { at: then.at.max(counts_at), ..then })
    });
    [said, unpaid, doubted].into_iter().flatten().min_by_key(|next| next.at)
}

/// When an account is blocked by a state that is not a payment, and why.
fn blocks_at(record: &Record, state: BillingState, ends_at: Option<Moment>) -> Option<Next> {
    let failing_since = record.standing.as_ref().and_then(|standing| standing.failing_since);
    // The grace of another run says nothing of this one.
    let grace = record.grace.filter(|grace| Some(grace.since) == failing_since);
    let (at, reason) = match state {
        BillingState::PastDue | BillingState::Unpaid => (grace.map(|grace| grace.ends_at), Reason::PaymentFailed),
        BillingState::Canceled => (ends_at, Reason::SubscriptionCanceled),
        BillingState::Paused | BillingState::IncompleteExpired => (ends_at, Reason::SubscriptionLapsed),
        BillingState::Trialing => (record.trial_ends_at, Reason::TrialEnded),
        BillingState::Active | BillingState::Incomplete => return None,
    };
    Some(Next { stage: Stage::Blocked, at: at?, reason })
}

/// What has to be done for the stage that is due, and what delays it.
fn step_to(record: &Record, facts: &Facts, next: Next, now: Moment) -> (Step, Vec<Blocker>) {
    let mut blockers = Vec::new();
    let by_owner = record.closure.is_some();
    let enter = Step::Enter(next.stage, next.reason);
    match next.stage {
        Stage::Active => {
            if facts.paused {
                blockers.push(Blocker::Paused);
            }
            if record.stage != Stage::Deleted {
                return (enter, blockers);
            }
            match restore_is_possible(record, facts, now) {
                Ok(()) => return (Step::Restore, blockers),
                Err(Some(blocker)) => blockers.push(blocker),
                Err(None) => {
                    let end = Next { stage: Stage::Expired, at: record.leaves_at.unwrap_or(now), reason: Reason::BackupExpired };
                    return step_to(record, facts, end, now);
                }
            }
            blockers.sort();
            (Step::Restore, blockers)
        }
        Stage::Trial => (Step::Stay, blockers),
        Stage::Blocked | Stage::Terminated => {
            blockers.extend(unknowns(facts, by_owner));
            if facts.paused {
                blockers.push(Blocker::Paused);
            }
            (enter, blockers)
        }
        Stage::Deleted | Stage::Expired => {
            blockers.extend(holds(record, now));
            blockers.extend(unknowns(facts, by_owner));
            match &facts.brake {
                Known::Known(true) => {}
                Known::Known(false) => blockers.push(Blocker::Brake),
                Known::Unknown(why) => blockers.push(Blocker::Unknown(why.clone())),
            }
            if facts.paused {
                blockers.push(Blocker::Paused);
            }
            if next.stage == Stage::Deleted && blockers.is_empty() {
                return drop_or_wait(record, facts, enter, next.at, now);
            }
            (enter, blockers)
        }
    }
}

/// The last gate before a database goes: sealed, and a proven backup that lives long enough, or the owner's waiver, or
/// the end of the wait for a backup that cannot be proven.
fn drop_or_wait(record: &Record, facts: &Facts, enter: Step, due: Moment, now: Moment) -> (Step, Vec<Blocker>) {
    let mut blockers = Vec::new();
    match &facts.sealed {
        Known::Known(true) => {}
        Known::Known(false) => blockers.push(Blocker::Sessions),
        Known::Unknown(why) => blockers.push(Blocker::Unknown(why.clone())),
    }
    if record.waives_backup() {
        return (enter, blockers);
    }
    if let Some(unprovable) = without_proof(record, facts) {
        return drop_unproven(record, facts, unprovable, blockers, now);
    }
    let Some(pin) = record.frozen.filter(|pin| pin.expires_at > now) else { return (Step::Refreeze, blockers) };
    match &facts.frozen {
        Known::Known(Frozen::Verified) if lives_long_enough(pin, &facts.windows, due, now) => {}
        Known::Known(Frozen::Verified | Frozen::Erased) => return (Step::Refreeze, blockers),
        Known::Known(Frozen::Missing | Frozen::Running) => {
            blockers.push(Blocker::Backup("the cold backup is still being taken and proven".into()));
        }
        Known::Known(Frozen::Failed(why) | Frozen::Unprovable { why, .. }) => blockers.push(Blocker::Backup(why.clone())),
        Known::Unknown(why) => blockers.push(Blocker::Unknown(why.clone())),
    }
    (enter, blockers)
}

/// That the very Frozen backup that has to exist cannot be proven, unless it was proven after all.
fn without_proof<'r>(record: &'r Record, facts: &Facts) -> Option<&'r Unprovable> {
    let unprovable = record.unprovable.as_ref()?;
    let same = record.frozen.is_some_and(|pin| pin.due == unprovable.due);
    (same && facts.frozen != Known::Known(Frozen::Verified)).then_some(unprovable)
}

/// The database waits, shut, until the time by which nothing was to be left, and goes then without a proven backup:
/// keeping it for ever would break the promise in the direction nobody looks at. Two people may agree to do it sooner.
fn drop_unproven(record: &Record, facts: &Facts, unprovable: &Unprovable, mut blockers: Vec<Blocker>, now: Moment) -> (Step, Vec<Blocker>) {
    let elapsed = record.data_gone_by.filter(|until| *until <= now);
    let reason = match (elapsed, &unprovable.agreed) {
        (Some(_), _) => Reason::PromiseElapsed,
        (None, Some(_)) => Reason::DropAgreed,
        (None, None) => {
            let until = record.data_gone_by.unwrap_or(Moment::MAX);
            blockers.push(Blocker::Unprovable { until, why: unprovable.why.clone() });
            return (Step::Stay, blockers);
        }
    };
    if facts.backup_held {
        blockers.push(Blocker::Hold { until: None });
    }
    match &facts.frozen {
        Known::Known(Frozen::Running) => blockers.push(Blocker::Backup("the last attempt at the cold backup has not ended".into())),
        Known::Known(_) => {}
        Known::Unknown(why) => blockers.push(Blocker::Unknown(why.clone())),
    }
    (Step::Enter(Stage::Deleted, reason), blockers)
}

/// Whether the Frozen backup outlives the database for the plan's window, give or take [`slip`]. One that was taken
/// because the end came late had its full window when it was begun; what taking it took is forgiven, up to half.
fn lives_long_enough(pin: FrozenPin, windows: &Known<Lifecycle>, due: Moment, now: Moment) -> bool {
    let Known::Known(windows) = windows else { return false };
    let left = pin.expires_at.duration_since(now);
    let window = windows.cold_backup.duration();
    left >= window - slip(windows) || (pin.due >= due && left >= window / 2)
}

/// Whether the cold backup can be restored; `Err(None)` when nothing is left to restore.
fn restore_is_possible(record: &Record, facts: &Facts, now: Moment) -> Result<(), Option<Blocker>> {
    let ends = record.leaves_at.unwrap_or(now);
    let over = match record.restoring_since {
        Some(_) => now >= ends + RESTORE_EXTENSION,
        None => now >= ends,
    };
    match &facts.frozen {
        _ if over => Err(None),
        Known::Known(Frozen::Verified) => Ok(()),
        Known::Known(Frozen::Erased | Frozen::Missing) => Err(None),
        Known::Known(Frozen::Running) => Err(Some(Blocker::Backup("the cold backup is not proven".into()))),
        Known::Known(Frozen::Failed(why) | Frozen::Unprovable { why, .. }) => Err(Some(Blocker::Backup(why.clone()))),
        Known::Unknown(why) => Err(Some(Blocker::Unknown(why.clone()))),
    }
}

fn holds(record: &Record, now: Moment) -> Option<Blocker> {
    if record.held_since.is_some() {
        return Some(Blocker::Hold { until: None });
    }
    record.notice_until.filter(|until| *until > now).map(|until| Blocker::Hold { until: Some(until) })
}

/// Facts without which nothing is closed or destroyed. The owner's own word does not wait for billing.
fn unknowns(facts: &Facts, by_owner: bool) -> Vec<Blocker> {
    let mut unknown = Vec::new();
    if let Known::Unknown(why) = &facts.windows {
        unknown.push(Blocker::Unknown(why.clone()));
    }
    if let Trust::Doubtful(why) = &facts.clock {
        unknown.push(Blocker::Unknown(why.clone()));
    }
    if !by_owner && let Known::Unknown(why) = &facts.billing {
        unknown.push(Blocker::Unknown(why.clone()));
    }
    unknown
}

/// The record of a decided stage. To be stored before its first effect.
pub fn enter(record: &Record, stage: Stage, reason: Reason, now: Moment) -> Record {
    let mut next = record.clone();
    if let Some(enforced_at) = record.enforced_at {
        next.before = Some(Before {
            stage: record.stage,
            reason: record.reason,
            enforced_at,
            leaves_at: record.leaves_at,
            data_gone_by: record.data_gone_by,
            frozen: record.frozen,
            unprovable: record.unprovable.clone(),
        });
    }
    next.stage = stage;
    next.reason = reason;
    next.decided_at = now;
    next.enforced_at = None;
    next.resumes = None;
    next.withdrawn = false;
    next.restoring_since = None;
    if stage == Stage::Deleted {
        next.restored_without.clear();
    }
    match stage {
        Stage::Active => {
            next.leaves_at = None;
            next.data_gone_by = None;
            next.frozen = None;
            next.sealed_since = None;
            next.seal_broken_since = None;
            next.unprovable = None;
            next.promised = None;
            next.delayed_by.clear();
            next.dropped_under = None;
        }
        // What the attempts left goes with the database, and the promise stands as it was made.
        Stage::Deleted if reason.is_unproven() => {
            next.leaves_at = Some(now);
            next.frozen = None;
        }
        Stage::Deleted => {
            // The promise stands as it was made; see `slip`.
            next.leaves_at = if next.waives_backup() { Some(now) } else { next.frozen.map(|pin| pin.expires_at) };
            next.data_gone_by = next.leaves_at;
            next.unprovable = None;
        }
        Stage::Expired => next.leaves_at = None,
        Stage::Trial | Stage::Blocked | Stage::Terminated => {}
    }
    next
}

/// The record after [`Step::GoBack`]: the stage before is taken up again, with what was pinned for it. To be stored
/// before its first effect.
pub fn go_back(record: &Record, windows: &Known<Lifecycle>, now: Moment) -> Record {
    let Some(before) = &record.before else { return record.clone() };
    let mut next = Record {
        stage: before.stage,
        reason: before.reason,
        decided_at: now,
        enforced_at: None,
        leaves_at: before.leaves_at,
        data_gone_by: before.data_gone_by,
        frozen: before.frozen,
        unprovable: before.unprovable.clone(),
        before: None,
        resumes: Some(before.enforced_at),
        withdrawn: false,
        dropped_under: None,
        ..record.clone()
    };
    if let (Stage::Deleted, true, Known::Known(windows)) = (record.stage, record.withdrawn, windows) {
        pin_stage(&mut next, windows, before.enforced_at);
        next.promised = None;
        next.frozen = frozen_pin(&next, now);
    }
    if record.stage == Stage::Deleted && !record.reason.is_unproven() && next.sealed_since.is_some() {
        // Nobody watched the seal meanwhile.
        next.sealed_since = Some(now);
        next.frozen = next.frozen.map(|pin| FrozenPin { due: now.max(pin.due + SignedDuration::from_secs(1)), ..pin });
    }
    next
}

/// The record of a stage whose effects were all seen: its window starts now. Waits, by leaving the record as it is,
/// where a window cannot be pinned because the plan or the clock cannot be believed.
pub fn enforced(record: &Record, windows: &Known<Lifecycle>, clock: &Trust, now: Moment) -> Record {
    let mut next = record.clone();
    if let Some(since) = record.resumes {
        next.resumes = None;
        next.enforced_at = Some(since);
        return next;
    }
    let pins = matches!(record.stage, Stage::Trial | Stage::Blocked | Stage::Terminated);
    match (windows, clock) {
        (Known::Known(windows), Trust::Trusted) => {
            next.enforced_at = Some(now);
            next.before = None;
            if pins {
                if record.stage != Stage::Trial {
                    next.sealed_since.get_or_insert(now);
                }
                pin_stage(&mut next, windows, now);
                if record.stage != Stage::Trial && !next.waives_backup() {
                    next.frozen = frozen_pin(&next, now);
                }
            }
        }
        _ if pins => {}
        _ => {
            next.enforced_at = Some(now);
            next.before = None;
        }
    }
    next
}

fn pin_stage(next: &mut Record, windows: &Lifecycle, enforced_at: Moment) {
    let erasure = next.erasure().cloned();
    match next.stage {
        Stage::Trial => {
            let ends = *next.trial_ends_at.get_or_insert(enforced_at + windows.trial.duration());
            next.leaves_at = Some(ends);
        }
        Stage::Blocked => {
            let leaves_at = erasure.as_ref().map_or(enforced_at + windows.blocked.duration(), |e| e.delete_at.max(enforced_at));
            next.leaves_at = Some(leaves_at);
            next.data_gone_by = Some(match &erasure {
                None => leaves_at + windows.terminated.duration() + windows.cold_backup.duration(),
                Some(e) if e.keeps_backup => leaves_at + windows.cold_backup.duration(),
                Some(_) => leaves_at,
            });
        }
        Stage::Terminated => {
            let leaves_at = enforced_at + windows.terminated.duration();
            next.leaves_at = Some(leaves_at);
            let honest = leaves_at + windows.cold_backup.duration();
            next.data_gone_by = match next.data_gone_by {
                Some(promised) if promised <= honest && honest - slip(windows) <= promised => Some(promised),
                Some(promised) if promised < honest => {
                    next.promised.get_or_insert(promised);
                    Some(honest)
                }
                _ => Some(honest),
            };
        }
        Stage::Active | Stage::Deleted | Stage::Expired => {}
    }
}

/// The record after it was looked at whether somebody is in, or could get in, although the account is closed. What was
/// frozen before is then older than the data: once nobody is in any more, the seal is set anew and another Frozen backup
/// is due, with the same deadline. While somebody is in, none is: it would be out of date before it was taken.
pub fn watch_the_seal(record: &Record, somebody_is_in: bool, now: Moment) -> Record {
    let mut next = record.clone();
    if record.sealed_since.is_none() || !matches!(record.stage, Stage::Blocked | Stage::Terminated) {
        return next;
    }
    match (somebody_is_in, record.seal_broken_since) {
        (true, None) => next.seal_broken_since = Some(now),
        (false, Some(_)) => {
            next.seal_broken_since = None;
            next.sealed_since = Some(now);
            // Two pins of one account must never share a name.
            next.frozen = record.frozen.map(|pin| FrozenPin { due: now.max(pin.due + SignedDuration::from_secs(1)), ..pin });
        }
        (true, Some(_)) | (false, None) => {}
    }
    next
}

/// The record after it was looked at whether its Frozen backup can be proven. `agreed` are the two who wrote that they
/// do not want to wait: who asked, and who approved.
pub fn watch_the_proof(record: &Record, frozen: &Known<Frozen>, agreed: Option<(&str, &str)>, now: Moment) -> Record {
    let mut next = record.clone();
    if record.stage.destroys() {
        return next;
    }
    let due = record.frozen.map(|pin| pin.due);
    let known = record.unprovable.clone().filter(|u| Some(u.due) == due);
    next.unprovable = match (frozen, due) {
        (Known::Known(Frozen::Verified), _) | (_, None) => None,
        (Known::Known(Frozen::Unprovable { since, reason, why }), Some(due)) if known.is_none() => {
            Some(Unprovable { due, since: *since, reason: reason.clone(), why: why.clone(), agreed: None })
        }
        // Its object may be gone, or be tried again: it stays known until one attempt succeeds.
        _ => known,
    };
    if let Some(unprovable) = &mut next.unprovable {
        unprovable.agreed = agreed.filter(|(requested, approved)| ![*requested, *approved].contains(&"") && requested != approved).map(
            |(requested_by, approved_by)| match &unprovable.agreed {
                Some(before) if before.requested_by == requested_by && before.approved_by == approved_by => before.clone(),
                _ => Agreed { requested_by: requested_by.to_owned(), approved_by: approved_by.to_owned(), seen_at: now },
            },
        );
    }
    next
}

/// The record after something was seen to delay a step that destroys: the certificate tells it.
pub fn note_delay(record: &Record, verdict: &Verdict) -> Record {
    let mut next = record.clone();
    let destroys = record.stage.destroys() || verdict.next.is_some_and(|n| n.stage.destroys());
    if destroys && verdict.overdue_since.is_some() {
        for name in verdict.blockers.iter().map(Blocker::name) {
            if !next.delayed_by.iter().any(|n| n == name) {
                next.delayed_by.push(name.to_owned());
            }
        }
    }
    next
}

/// The record after [`Step::Refreeze`]: a Frozen backup that will live for the plan's window from now on.
pub fn refreeze(record: &Record, windows: &Lifecycle, now: Moment) -> Record {
    let mut next = record.clone();
    if let Some(promised) = record.data_gone_by {
        next.promised.get_or_insert(promised);
    }
    next.data_gone_by = Some(now + windows.cold_backup.duration());
    next.frozen =
        frozen_pin(&Record { frozen: next.frozen.map(|pin| FrozenPin { expires_at: Moment::UNIX_EPOCH, ..pin }), ..next.clone() }, now);
    next
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
