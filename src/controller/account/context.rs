//! The context of the account controller: caches of the watched kinds, and its state between reconciles.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::runtime::reflector::Store;

use crate::{
    api::{ColdBackup, DatabaseServer, DomainClaim, HelpDeskClass, HelpDeskPlan},
    clock::Moment,
    context::Context,
    edge::{dns_challenge::ChallengeResolver, objects::Objects, prober::Prober},
    keyed_semaphore::KeyedSemaphore,
    lifecycle::{Record, Stage},
    retry::Backoff,
    telemetry::{StageLabel, Telemetry},
};

/// Writes the operator's part of the status.
pub(super) const FIELD_MANAGER: &str = "helpdesk-operator";

/// What the controller knows of the cluster without asking it again.
pub(super) struct Caches {
    /// All plans.
    pub plans: Store<HelpDeskPlan>,
    /// All servers.
    pub servers: Store<DatabaseServer>,
    /// All backups.
    pub backups: Store<ColdBackup>,
    /// All classes.
    pub classes: Store<HelpDeskClass>,
    /// All claims of host names.
    pub claims: Store<DomainClaim>,
    /// Gateways, routes and what belongs to them.
    pub edge: Objects,
}

/// What a reconcile is given.
pub(super) struct AccountContext {
    /// What all controllers share.
    pub shared: Arc<Context>,
    /// What is known of the cluster.
    pub caches: Caches,
    /// Failures in a row.
    pub backoff: Backoff,
    /// What is known of the accounts, for the metrics.
    pub stage_counts: StageCounts,
    /// What is remembered of addresses.
    pub expiries: CertificateExpiries,
    /// Who looks at them from outside.
    pub prober: Arc<Prober>,
    /// How many accounts of one server are looked after at once.
    pub permits: KeyedSemaphore,
    /// The same for those whose database may be made or dropped.
    pub slow_permits: KeyedSemaphore,
    /// Proofs of host names.
    pub challenges: ChallengeResolver,
    /// Since when this operator leads, at the latest.
    pub led_since: Moment,
    /// Where it began to write entries of new accounts.
    pub attempts: PlacementAttempts,
}

/// The context, for short.
impl std::ops::Deref for AccountContext {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.shared
    }
}

/// How it stands with an account's deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deadline {
    /// None has passed.
    Kept,
    /// One has passed, and something delays it or keeps anybody from knowing.
    Missed,
    /// One has passed, and a hold delays it and nothing else: that is as somebody wanted it.
    Held,
}

/// What is known of the accounts of this process, for the metrics, and for telling what is due while a ledger is silent.
#[derive(Default)]
pub(super) struct StageCounts {
    accounts: Mutex<HashMap<String, Counted>>,
}

struct Counted {
    stage: Option<Stage>,
    deadline: Deadline,
    record: Option<Record>,
}

impl StageCounts {
    /// Counts an account anew, as its ledger has it.
    pub fn count(&self, telemetry: &Telemetry, uid: &str, shown: Stage, record: &Record, deadline: Deadline) {
        self.replace(telemetry, uid, Some(Counted { stage: Some(shown), deadline, record: Some(record.clone()) }));
    }

    /// Counts an account anew of which nobody can tell; `record` is what is believed of it.
    pub fn presume(&self, telemetry: &Telemetry, uid: &str, stage: Option<Stage>, record: Option<Record>, deadline: Deadline) {
        self.replace(telemetry, uid, Some(Counted { stage, deadline, record }));
    }

    /// Counts an account no more: it is gone.
    pub fn forget(&self, telemetry: &Telemetry, uid: &str) {
        self.replace(telemetry, uid, None);
    }

    /// What was believed of an account last.
    pub fn record(&self, uid: &str) -> Option<Record> {
        self.lock().get(uid)?.record.clone()
    }

    fn replace(&self, telemetry: &Telemetry, uid: &str, now: Option<Counted>) {
        let mut accounts = self.lock();
        let counts = |counted: &Option<Counted>| counted.as_ref().map(|c| (c.stage, c.deadline));
        let after = counts(&now);
        let before = match now {
            Some(now) => accounts.insert(uid.to_owned(), now),
            None => accounts.remove(uid),
        };
        for (counted, by) in [(counts(&before), -1), (after, 1)] {
            let Some((stage, deadline)) = counted else { continue };
            if let Some(stage) = stage {
                telemetry.accounts.get_or_create(&StageLabel { stage: stage.name() }).inc_by(by);
            }
            telemetry.overdue.inc_by(if deadline == Deadline::Missed { by } else { 0 });
            telemetry.held.inc_by(if deadline == Deadline::Held { by } else { 0 });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Counted>> {
        self.accounts.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// When the first certificate of a custom name runs out, by account.
#[derive(Default)]
pub(super) struct CertificateExpiries(Mutex<HashMap<String, Moment>>);

impl CertificateExpiries {
    /// Remembers, or forgets; returns when the first certificate of all runs out.
    pub fn put(&self, uid: &str, first_expiry: Option<Moment>) -> Option<Moment> {
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match first_expiry {
            Some(at) => all.insert(uid.to_owned(), at),
            None => all.remove(uid),
        };
        all.values().min().copied()
    }
}

/// Where this operator began to write entries of new accounts, and their marks. Whether a write that was cut off
/// arrived is not known.
#[derive(Default)]
pub(super) struct PlacementAttempts(Mutex<HashSet<(String, String)>>);

impl PlacementAttempts {
    pub fn try_at(&self, server: &str, marks: Vec<String>) {
        self.lock().extend(marks.into_iter().map(|mark| (server.to_owned(), mark)));
    }

    pub fn tried(&self, server: &str, marks: &[String]) -> bool {
        let all = self.lock();
        marks.iter().any(|mark| all.contains(&(server.to_owned(), mark.clone())))
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<(String, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_counted_once_whether_its_ledger_is_read_or_not() {
        let (stage_counts, telemetry) = (StageCounts::default(), Telemetry::default());
        let record = Record::created("2026-01-01T00:00:00Z".parse().unwrap());
        let counts = || (telemetry.overdue.get(), telemetry.held.get());
        let trials = || telemetry.accounts.get_or_create(&StageLabel { stage: "Trial" }).get();
        stage_counts.count(&telemetry, "a", Stage::Trial, &record, Deadline::Kept);
        assert_eq!((counts(), trials()), ((0, 0), 1));
        // Its server is away when its deadline comes.
        stage_counts.presume(&telemetry, "a", Some(Stage::Trial), stage_counts.record("a"), Deadline::Missed);
        stage_counts.presume(&telemetry, "a", Some(Stage::Trial), stage_counts.record("a"), Deadline::Missed);
        assert_eq!((counts(), trials()), ((1, 0), 1));
        stage_counts.count(&telemetry, "a", Stage::Terminated, &record, Deadline::Held);
        assert_eq!((counts(), trials()), ((0, 1), 0));
        stage_counts.forget(&telemetry, "a");
        assert_eq!((counts(), stage_counts.record("a")), ((0, 0), None));
    }
}
