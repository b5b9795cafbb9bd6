//! Metrics of the objects in the cluster, read from the caches whenever somebody asks for the metrics. What they say is what
//! the objects' statuses say, right after a restart too.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use kube::{ResourceExt, runtime::reflector::Store};
use prometheus_client::metrics::{family::Family, gauge::Gauge};

use crate::{
    api::{
        BackupPhase, BackupStore, ColdBackup, Condition, DatabaseServer, HelpDeskAccount, HelpDeskAccountStatus, HelpDeskClass,
        HelpDeskPlan, SHARD_LABEL,
        conditions::{HasConditions, Type},
    },
    backup::index::BackupIndex,
    clock::Moment,
    context::Context,
    lifecycle::{RejectedBilling, Stage},
    telemetry::{RefusedLabel, StageLabel},
};

/// Every metric of this file, and what it says.
const METRICS: &[(&str, &str)] = &[
    ("accounts", "Accounts by the stage that is enforced"),
    ("accounts_decided", "Accounts by the stage that was decided: while it is being entered, the one before is still enforced"),
    (
        "accounts_overdue",
        "Accounts with a deadline that something delays, by what comes first of it; Unknown where nobody can tell. Not those that only a hold delays",
    ),
    ("accounts_held", "Accounts with a deadline that a hold delays and nothing else"),
    ("accounts_condition", "Accounts by condition and its status"),
    ("accounts_not_ready", "Accounts that are not Ready, by the reason"),
    (
        "accounts_last_backup_timestamp_seconds",
        "When the newest proven backup was taken of the open account whose newest is the oldest; of an account without one, when it was created",
    ),
    ("edge_first_certificate_expiry_timestamp_seconds", "When the first certificate of a custom name runs out; 0 without any"),
    ("deletion_certificates", "Accounts with a signed certificate that nothing of them is left"),
    ("database_server_ready", "1 if the DatabaseServer is Ready"),
    ("database_server_braked", "1 while the brake of the DatabaseServer holds"),
    ("database_server_tenants", "Tenants on the DatabaseServer"),
    ("database_server_capacity", "How many tenants the DatabaseServer may have"),
    ("backup_store_ready", "1 if the BackupStore is Ready"),
    ("backup_store_escrow_ready", "1 if the BackupStore that keeps its keys is there and Ready; of a store that names one"),
    ("backup_store_backups", "Backups in the BackupStore that are not erased"),
    ("backup_store_keys", "Keys in the BackupStore of backups that are not erased"),
    ("plan_ready", "1 if everything is there that the HelpDeskPlan names, and it is not being deleted"),
    ("class_ready", "0 if the condition Ready of the HelpDeskClass is False"),
    ("backups", "ColdBackups by phase"),
    ("backups_unprovable", "Backups that are taken for unprovable"),
    ("backups_overdue", "Backups that should be erased by now"),
];

type Labels = Vec<(&'static str, String)>;

/// The value of one series.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sample {
    metric: &'static str,
    labels: Labels,
    value: i64,
}

/// What delays the step of each account whose deadline has passed, for the metrics: the first reason that is not a hold, or
/// else the hold. The condition Overdue shows a hold first.
#[derive(Default)]
pub(super) struct Delays(Mutex<HashMap<String, &'static str>>);

impl Delays {
    /// Sets or removes the reason of an account.
    pub fn put(&self, uid: &str, reason: Option<&'static str>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match reason {
            Some(reason) => all.insert(uid.to_owned(), reason),
            None => all.remove(uid),
        };
    }

    /// All reasons.
    pub fn all(&self) -> Vec<&'static str> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().copied().collect()
    }
}

/// The caches that the metrics are read from.
pub(super) struct ObjectCaches {
    pub accounts: Store<HelpDeskAccount>,
    pub plans: Store<HelpDeskPlan>,
    pub classes: Store<HelpDeskClass>,
    pub servers: Store<DatabaseServer>,
    pub stores: Store<BackupStore>,
    pub backups: Arc<BackupIndex>,
    pub delays: Arc<Delays>,
}

/// Adds the metrics.
pub(super) fn register(ctx: &Context, caches: ObjectCaches) {
    let telemetry = &ctx.telemetry;
    for stage in Stage::ALL {
        drop(telemetry.lateness.get_or_create(&StageLabel { stage: stage.name() }));
    }
    for reason in RejectedBilling::REASONS {
        drop(telemetry.billing_refused.get_or_create(&RefusedLabel { reason }));
    }
    let mut families: HashMap<&str, Family<Labels, Gauge>> = HashMap::new();
    for (name, help) in METRICS {
        let family = Family::default();
        telemetry.register(name, help, family.clone());
        families.insert(name, family);
    }
    let shard = ctx.settings.shard.clone();
    telemetry.on_scrape(move || {
        let objects = Objects::of(&caches, shard.as_deref());
        families.values().for_each(Family::clear);
        for sample in objects.samples() {
            if let Some(family) = families.get(sample.metric) {
                family.get_or_create(&sample.labels).set(sample.value);
            }
        }
    });
}

/// The objects of this operator's shard, and the plans and classes, which belong to all.
#[derive(Default)]
struct Objects {
    accounts: Vec<Arc<HelpDeskAccount>>,
    plans: Vec<Arc<HelpDeskPlan>>,
    classes: Vec<Arc<HelpDeskClass>>,
    servers: Vec<Arc<DatabaseServer>>,
    stores: Vec<Arc<BackupStore>>,
    /// The stores of all shards: an escrow may be another's.
    all_stores: Vec<Arc<BackupStore>>,
    backups: Vec<Arc<ColdBackup>>,
    /// What delays accounts whose deadline has passed.
    delays: Vec<&'static str>,
}

impl Objects {
    fn of(caches: &ObjectCaches, shard: Option<&str>) -> Self {
        fn own<K: ResourceExt>(objects: Vec<Arc<K>>, shard: Option<&str>) -> Vec<Arc<K>> {
            objects.into_iter().filter(|object| object.labels().get(SHARD_LABEL).map(String::as_str) == shard).collect()
        }
        let all_stores = caches.stores.state();
        Self {
            accounts: caches.accounts.state(),
            plans: caches.plans.state(),
            classes: caches.classes.state(),
            servers: own(caches.servers.state(), shard),
            stores: own(all_stores.clone(), shard),
            all_stores,
            backups: own(caches.backups.all(), shard),
            delays: caches.delays.all(),
        }
    }

    fn samples(&self) -> Vec<Sample> {
        let mut samples = Samples::default();
        self.accounts(&mut samples);
        for server in &self.servers {
            let label = || vec![("server", server.name_any())];
            samples.set("database_server_ready", label(), server.has(Type::Ready));
            samples.set("database_server_braked", label(), server.has(Type::Braked));
            samples.set("database_server_tenants", label(), server.status.as_ref().and_then(|s| s.tenants).unwrap_or(0));
            samples.set("database_server_capacity", label(), server.spec.capacity);
        }
        for store in &self.stores {
            let status = store.status.as_ref();
            let label = || vec![("store", store.name_any())];
            samples.set("backup_store_ready", label(), store.has(Type::Ready));
            samples.set("backup_store_backups", label(), status.and_then(|s| s.backups).unwrap_or(0));
            samples.set("backup_store_keys", label(), status.and_then(|s| s.keys).unwrap_or(0));
            if let Some(escrow) = &store.spec.key_escrow {
                let ready = self.all_stores.iter().any(|s| s.name_any() == escrow.store && s.has(Type::Ready));
                samples.set("backup_store_escrow_ready", label(), ready);
            }
        }
        for plan in &self.plans {
            let stays = plan.metadata.deletion_timestamp.is_none();
            samples.set("plan_ready", vec![("plan", plan.name_any())], stays && plan.has(Type::Ready));
        }
        for class in &self.classes {
            // Unknown is a class that is upgrading.
            let found = class.conditions().iter().find(|c| c.type_ == Type::Ready.name());
            let stays = class.metadata.deletion_timestamp.is_none();
            samples.set("class_ready", vec![("class", class.name_any())], stays && found.is_none_or(|c| c.status != "False"));
        }
        self.backups(&mut samples);
        samples.0
    }

    fn accounts(&self, samples: &mut Samples) {
        const STATUSES: [&str; 3] = ["True", "False", "Unknown"];
        /// The conditions of accounts.
        const CONDITIONS: [Type; 15] = [
            Type::Ready,
            Type::Reconciling,
            Type::Stalled,
            Type::DatabaseReady,
            Type::AppReady,
            Type::EdgeReady,
            Type::RequirementsUnmet,
            Type::BackupsCurrent,
            Type::BlockEnforced,
            Type::Held,
            Type::Overdue,
            Type::QuotaExceeded,
            Type::Unprovable,
            Type::ExtensionsMissing,
            Type::CertificateExpires,
        ];
        /// What may delay a step that is due, besides a hold.
        const DELAYS: [&str; 8] =
            ["Unknown", "BackupNotErased", "Entering", "Brake", "Paused", "AwaitingBackup", "Unprovable", "AwaitingSeal"];
        let mut counts: BTreeMap<(&'static str, Labels), i64> = BTreeMap::new();
        for stage in Stage::ALL.map(Stage::name).into_iter().chain([NO_STAGE]) {
            counts.insert(("accounts", vec![("stage", stage.into())]), 0);
            counts.insert(("accounts_decided", vec![("stage", stage.into())]), 0);
        }
        for (condition, status) in CONDITIONS.iter().flat_map(|c| STATUSES.map(|status| (c.name(), status))) {
            counts.insert(("accounts_condition", vec![("condition", condition.into()), ("status", status.into())]), 0);
        }
        for reason in DELAYS {
            counts.insert(("accounts_overdue", vec![("reason", reason.into())]), 0);
        }
        counts.insert(("accounts_held", vec![]), 0);
        counts.insert(("deletion_certificates", vec![]), 0);
        let mut oldest: BTreeMap<String, Moment> = BTreeMap::new();
        let mut first_expiry: Option<Moment> = None;
        for account in &self.accounts {
            let before_the_first_look = HelpDeskAccountStatus::default();
            let status = account.status.as_ref().unwrap_or(&before_the_first_look);
            let mut count = |metric, labels: Labels| *counts.entry((metric, labels)).or_default() += 1;
            let name = |stage: Option<Stage>| stage.map_or(NO_STAGE, Stage::name).to_owned();
            count("accounts", vec![("stage", name(status.stage))]);
            count("accounts_decided", vec![("stage", name(status.entering.as_ref().map(|e| e.stage).or(status.stage)))]);
            for Condition { type_, status, reason, .. } in &status.conditions {
                count("accounts_condition", vec![("condition", type_.clone()), ("status", status.clone())]);
                if type_ == Type::Ready.name() && status != "True" {
                    count("accounts_not_ready", vec![("reason", reason.clone())]);
                }
            }
            if status.certificate.is_some() {
                count("deletion_certificates", vec![]);
            }
            if status.stage.is_some_and(Stage::is_open)
                && let Some(taken) =
                    status.last_backup.as_ref().map(|b| b.completed_at.0).or(account.metadata.creation_timestamp.as_ref().map(|t| t.0))
            {
                let of_plan = oldest.entry(account.spec.plan.clone()).or_insert(taken);
                *of_plan = taken.min(*of_plan);
            }
            let expiries = status.domains.iter().filter_map(|d| d.certificate_expires_at.as_ref().map(|at| at.0));
            first_expiry = expiries.chain(first_expiry).min();
        }
        for reason in &self.delays {
            let (metric, labels) = match *reason {
                "Held" | "Notice" => ("accounts_held", vec![]),
                reason => ("accounts_overdue", vec![("reason", reason.to_owned())]),
            };
            *counts.entry((metric, labels)).or_default() += 1;
        }
        for ((metric, labels), value) in counts {
            samples.push(metric, labels, value);
        }
        for (plan, at) in oldest {
            samples.push("accounts_last_backup_timestamp_seconds", vec![("plan", plan)], at.as_second());
        }
        samples.push("edge_first_certificate_expiry_timestamp_seconds", vec![], first_expiry.map_or(0, Moment::as_second));
    }

    fn backups(&self, samples: &mut Samples) {
        let mut phases: BTreeMap<&str, i64> = BackupPhase::ALL.into_iter().map(|phase| (phase.name(), 0)).collect();
        let (mut unprovable, mut overdue) = (0, 0);
        for backup in &self.backups {
            let phase = backup.status.as_ref().map(|status| status.phase).unwrap_or_default();
            *phases.entry(phase.name()).or_default() += 1;
            let stays = backup.metadata.deletion_timestamp.is_none();
            unprovable += i64::from(stays && backup.has(Type::Unprovable));
            overdue += i64::from(backup.has(Type::Overdue));
        }
        for (phase, count) in phases {
            samples.push("backups", vec![("phase", phase.to_owned())], count);
        }
        samples.push("backups_unprovable", vec![], unprovable);
        samples.push("backups_overdue", vec![], overdue);
    }
}

/// The label of accounts that have no stage yet.
const NO_STAGE: &str = "None";

#[derive(Default)]
struct Samples(Vec<Sample>);

impl Samples {
    fn push(&mut self, metric: &'static str, labels: Labels, value: i64) {
        self.0.push(Sample { metric, labels, value });
    }

    fn set(&mut self, metric: &'static str, labels: Labels, value: impl Into<i64>) {
        self.push(metric, labels, value.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn account(name: &str, status: serde_json::Value) -> Arc<HelpDeskAccount> {
        let object = json!({
            "apiVersion": "helpdesk-operator.io/v1alpha1", "kind": "HelpDeskAccount",
            "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"owner": {"name": "Ana", "email": "ana@acme.example"}, "plan": "standard", "region": "eu-1", "domain": {"slug": name}},
            "status": status,
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn condition(kind: &str, status: &str, reason: &str) -> serde_json::Value {
        json!({"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    fn value(samples: &[Sample], metric: &str, labels: &[(&'static str, &str)]) -> Option<i64> {
        let labels: Labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        samples.iter().find(|s| s.metric == metric && s.labels == labels).map(|s| s.value)
    }

    #[test]
    fn every_sample_has_its_metric_and_every_metric_its_sample() {
        let server = json!({"engine": "postgresql", "region": "eu-1", "host": "pg", "adminSecret": "pg", "tls": {"mode": "verify-full"}, "capacity": 9});
        let store = json!({"region": "eu-1", "endpoint": "https://s3.example", "bucket": "cold", "credentialsSecret": "s3",
            "keyEscrow": {"store": "keys", "recoveryRecipient": "age1"}});
        let plan = json!({"placements": []});
        let class = json!({"app": {"name": "rt", "version": "5"}, "components": [], "routes": []});
        let store = Arc::new(BackupStore::new("cold", serde_json::from_value(store).unwrap()));
        let objects = Objects {
            accounts: vec![account("acme", json!({"stage": "Trial", "conditions": [condition("Ready", "False", "NoPlacement")]}))],
            plans: vec![Arc::new(HelpDeskPlan::new("standard", serde_json::from_value(plan).unwrap()))],
            classes: vec![Arc::new(HelpDeskClass::new("rt", serde_json::from_value(class).unwrap()))],
            servers: vec![Arc::new(DatabaseServer::new("pg", serde_json::from_value(server).unwrap()))],
            stores: vec![store.clone()],
            all_stores: vec![store],
            backups: vec![],
            delays: vec!["Held", "Brake"],
        };
        let samples = objects.samples();
        for sample in &samples {
            assert!(METRICS.iter().any(|(name, _)| *name == sample.metric), "{}", sample.metric);
        }
        for (name, _) in METRICS {
            assert!(samples.iter().any(|sample| sample.metric == *name), "{name}");
        }
        assert_eq!(value(&samples, "backup_store_escrow_ready", &[("store", "cold")]), Some(0), "its escrow is not there");
    }

    #[test]
    fn an_account_that_is_being_blocked_counts_as_active_enforced_and_blocked_decided() {
        let entering = json!({"stage": "Blocked", "reason": "PaymentFailed", "since": "2026-01-01T00:00:00Z"});
        let objects = Objects { accounts: vec![account("acme", json!({"stage": "Active", "entering": entering}))], ..Objects::default() };
        let samples = objects.samples();
        assert_eq!(value(&samples, "accounts", &[("stage", "Active")]), Some(1));
        assert_eq!(value(&samples, "accounts", &[("stage", "Blocked")]), Some(0));
        assert_eq!(value(&samples, "accounts_decided", &[("stage", "Blocked")]), Some(1));
    }

    #[test]
    fn a_hold_is_counted_apart_from_what_is_late() {
        let samples = Objects { delays: vec!["Held", "Notice", "Brake"], ..Objects::default() }.samples();
        assert_eq!(value(&samples, "accounts_held", &[]), Some(2));
        assert_eq!(value(&samples, "accounts_overdue", &[("reason", "Brake")]), Some(1));
        assert_eq!(value(&samples, "accounts_overdue", &[("reason", "Unknown")]), Some(0), "it exists before it counts");
    }

    #[test]
    fn the_account_whose_backups_are_oldest_is_the_one_that_is_told() {
        let backed_up = |at: &str| json!({"stage": "Active", "lastBackup": {"name": "b", "reason": "Scheduled", "completedAt": at, "verifiedAt": at, "bytes": 1}});
        let tell = |accounts| {
            let samples = Objects { accounts, ..Objects::default() }.samples();
            value(&samples, "accounts_last_backup_timestamp_seconds", &[("plan", "standard")])
        };
        let second = |text: &str| text.parse::<Moment>().unwrap().as_second();
        let (old, new) = ("2026-02-01T00:00:00Z", "2026-02-02T00:00:00Z");
        assert_eq!(tell(vec![account("a", backed_up(new)), account("b", backed_up(old))]), Some(second(old)));
        let never = account("c", json!({"stage": "Trial"}));
        assert_eq!(tell(vec![account("a", backed_up(new)), never]), Some(second("2026-01-01T00:00:00Z")));
        assert_eq!(tell(vec![account("d", json!({"stage": "Blocked"}))]), None);
    }
}
