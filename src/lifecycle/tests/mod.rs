//! Golden timelines that read like a story, and random ones that hold the promises.

use k8s_openapi::jiff::SignedDuration;
use proptest::prelude::*;

use super::billing::{self, Standing};
use super::*;
use crate::{
    api::{Billing, BillingState, ClockPolicy, Closure, ClosureMode, Lifecycle, Time, Window, account::DroppedUnder},
    backup::proof::{UnwantedCopy, WaitOver},
    clock::{Moment, Trust},
};

mod closure;
mod forecast;
pub(crate) mod invariants;
#[path = "billing.rs"]
mod of_billing;
mod proof;
mod timelines;

fn at(text: &str) -> Moment {
    text.parse().unwrap_or_else(|_| format!("{text}T00:00:00Z").parse().unwrap())
}

fn days(n: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * n)
}

/// An account whose effects succeed at once, driven as the controller drives it.
#[derive(Clone)]
pub(crate) struct Story {
    pub(crate) now: Moment,
    pub(crate) created_at: Moment,
    pub(crate) record: Record,
    pub(crate) windows: Lifecycle,
    pub(crate) policy: ClockPolicy,
    pub(crate) billing: Option<Billing>,
    pub(crate) closure: Option<Closure>,
    pub(crate) held: bool,
    pub(crate) deleting: bool,
    pub(crate) facts: Facts,
    /// Backups by the deadline that their pin asked for.
    frozen_taken: Option<FrozenPin>,
    log: Vec<String>,
    refused: Vec<RejectedBilling>,
    /// Since when no backup can be proven.
    unprovable_since: Option<Moment>,
    /// Who asked and who approved that this is not waited for.
    agreed: Option<(&'static str, &'static str)>,
    /// Every stage that was entered, with the time and the stage before.
    entered: Vec<(Moment, Stage, Stage)>,
    restores: u32,
    /// Whether a backup that is begun now is still being taken, and not proven at once.
    taking: bool,
    /// Whether the effects of a stage are held up, as by a superuser's session in the database.
    stuck: bool,
}

impl Story {
    pub(crate) fn new() -> Self {
        let now = at("2026-01-01");
        let windows = Lifecycle::default();
        Self {
            now,
            created_at: now,
            record: Record::created(now),
            windows,
            policy: ClockPolicy::Keep,
            billing: None,
            closure: None,
            held: false,
            deleting: false,
            facts: Facts {
                windows: Known::Known(windows),
                clock: Trust::Trusted,
                billing: Known::Known(()),
                frozen: Known::Known(Frozen::Missing),
                backup_held: false,
                dropped: Known::Known(false),
                sealed: Known::Known(true),
                brake: Known::Known(true),
                paused: false,
            },
            frozen_taken: None,
            unprovable_since: None,
            agreed: None,
            log: Vec::new(),
            refused: Vec::new(),
            entered: Vec::new(),
            restores: 0,
            taking: false,
            stuck: false,
        }
        .settled()
    }

    fn settled(mut self) -> Self {
        self.settle();
        self
    }

    fn bill(&mut self, state: BillingState) -> &mut Self {
        let sequence = self.billing.as_ref().map_or(1, |b| b.sequence + 1);
        let delinquent = matches!(state, BillingState::PastDue | BillingState::Unpaid);
        let before = self.billing.as_ref().filter(|b| matches!(b.state, BillingState::PastDue | BillingState::Unpaid));
        let delinquent_since = delinquent.then(|| before.and_then(|b| b.delinquent_since.clone()).unwrap_or(Time(self.now)));
        let period_end = (state == BillingState::Canceled).then(|| Time(self.now + days(10)));
        self.billing = Some(Billing { state, since: Time(self.now), delinquent_since, period_end, subscription: None, sequence, epoch: 0 });
        self.settle();
        self
    }

    /// A look that finds somebody in the database, or nobody.
    fn intrude(&mut self, somebody_is_in: bool) {
        self.record = check_seal(&self.record, somebody_is_in, &self.facts.clock, self.now);
    }

    fn close(&mut self, mode: ClosureMode, cold_backup: Option<bool>) -> &mut Self {
        self.closure = Some(Closure { mode, requested_by: None, cold_backup });
        self.settle();
        self
    }

    /// One reconcile. Says whether anything moved.
    fn reconcile(&mut self) -> bool {
        let before = self.record.clone();
        let seen = Inputs {
            billing: self.billing.as_ref(),
            closure: self.closure.as_ref(),
            confirmed_deletion: self.deleting,
            held: self.held,
            windows: match &self.facts.windows {
                Known::Known(_) => Known::Known(&self.windows),
                Known::Unknown(why) => Known::Unknown(why.clone()),
            },
            clock_policy: self.policy,
            created_at: self.created_at,
            clock: self.facts.clock.clone(),
        };
        let (record, refused) = update_record(&self.record, &seen, self.now);
        self.record = record;
        self.refused.extend(refused);
        if let Known::Known(windows) = &mut self.facts.windows {
            *windows = self.windows;
        }
        if self.record.enforced_at.is_some()
            && matches!(self.record.stage, Stage::Blocked | Stage::Terminated)
            && self.record.frozen.is_some()
            && self.facts.frozen != Known::Known(Frozen::Failed("no space left in the bucket".into()))
            && self.unprovable_since.is_none()
            && !self.taking
        {
            self.frozen_taken = self.record.frozen;
        }
        if !matches!(self.facts.frozen, Known::Unknown(_) | Known::Known(Frozen::Failed(_))) {
            let taken = self.frozen_taken.filter(|pin| Some(*pin) == self.record.frozen);
            let ran_out = self.record.frozen.is_some_and(|pin| pin.expires_at <= self.now);
            self.facts.frozen = Known::Known(match (taken, self.unprovable_since) {
                (Some(pin), _) if pin.expires_at <= self.now => Frozen::Erased,
                (Some(_), _) => Frozen::Verified,
                (None, Some(since)) if self.record.frozen.is_some() && !ran_out => {
                    Frozen::Unprovable { since, reason: "MoverFailed".into(), why: "7 rows and not 8".into() }
                }
                (None, Some(_)) if ran_out => Frozen::Erased,
                (None, _) if self.taking => Frozen::Running,
                (None, _) => Frozen::Missing,
            });
        }
        self.record = check_proof(&self.record, &self.facts.frozen, self.agreed, self.now);
        let verdict = decide(&self.record, &self.facts, self.now);
        self.record = note_delay(&self.record, &verdict);
        match verdict.step {
            Step::Stay => {}
            Step::Enforce if self.stuck => {}
            Step::Enforce => {
                if self.record.stage == Stage::Deleted {
                    self.record.dropped_under = Some(DroppedUnder::by(crate::api::account::DropGround::VerifiedBackup));
                }
                let known = self.facts.windows.clone();
                self.record = enforced(&self.record, &known, &self.facts.clock.clone(), self.now);
            }
            Step::Enter(stage, reason) => {
                self.entered.push((self.now, self.record.stage, stage));
                self.log.push(format!("{} {} ({})", self.now.strftime("%Y-%m-%d %H:%M"), stage.name(), reason.name()));
                self.record = enter(&self.record, stage, reason, self.now);
            }
            Step::GoBack => {
                self.record = go_back(&self.record, &self.facts.windows, self.now);
                self.log.push(format!("{} back to {}", self.now.strftime("%Y-%m-%d %H:%M"), self.record.stage.name()));
            }
            Step::Refreeze => self.record = refreeze(&self.record, &self.windows, self.now),
            Step::Restore => {
                self.restores += 1;
                self.log.push(format!("{} restored", self.now.strftime("%Y-%m-%d %H:%M")));
                self.entered.push((self.now, self.record.stage, Stage::Active));
                self.record = enter(&self.record, Stage::Active, Reason::Paid, self.now);
            }
        }
        self.record != before
    }

    /// Reconciles at this moment until nothing moves.
    pub(crate) fn settle(&mut self) {
        for _ in 0..20 {
            if !self.reconcile() {
                return;
            }
        }
        panic!("never settles: {:?}", self.record);
    }

    /// Sleeps as the controller does, until each deadline, up to `until`.
    pub(crate) fn run_until(&mut self, until: Moment) -> &mut Self {
        loop {
            let wake = decide(&self.record, &self.facts, self.now).requeue_at.filter(|w| *w > self.now && *w <= until);
            self.now = wake.unwrap_or(until);
            self.settle();
            if wake.is_none() {
                return self;
            }
        }
    }

    fn pass(&mut self, n: i64) -> &mut Self {
        self.run_until(self.now + days(n))
    }

    fn told(&self) -> String {
        self.log.join("\n")
    }

    pub(crate) fn verdict(&self) -> Decision {
        decide(&self.record, &self.facts, self.now)
    }
}

/// Each fact in turn, made unknown.
fn with_unknown(n: usize, story: &mut Story) {
    let why = || "could not be read".to_owned();
    match n {
        0 => story.facts.windows = Known::Unknown(why()),
        1 => story.facts.clock = Trust::Doubtful(why()),
        2 => story.facts.billing = Known::Unknown(why()),
        3 => story.facts.frozen = Known::Unknown(why()),
        4 => story.facts.sealed = Known::Unknown(why()),
        _ => story.facts.brake = Known::Unknown(why()),
    }
}

/// An account that nobody pays for and whose backup cannot be proven.
fn unprovable() -> Story {
    let mut story = Story::new();
    story.unprovable_since = Some(at("2026-01-15T04:00:00Z"));
    story
}
