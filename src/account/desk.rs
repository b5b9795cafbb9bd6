//! What every step of a reconcile is given.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use kube::runtime::reflector::Store;

use crate::{
    api::{ColdBackup, DatabaseServer, DomainClaim, HelpDeskClass, HelpDeskPlan},
    clock::Moment,
    context::{Context, Shared},
    edge::{lookouts::Lookouts, objects::Objects, proof::Proofs},
    lanes::Lanes,
    lifecycle::Stage,
    retry::Backoff,
    telemetry::StageLabel,
};

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
pub(super) struct Desk {
    /// What all controllers share.
    pub ctx: Shared,
    /// What is known of the cluster.
    pub caches: Caches,
    /// Failures in a row.
    pub backoff: Backoff,
    /// The stages last seen, for the metrics.
    pub census: Census,
    /// What is remembered of addresses.
    pub web: super::web::Memory,
    /// Who looks at them from outside.
    pub lookouts: Arc<Lookouts>,
    /// How many accounts of one server are looked after at once.
    pub lanes: Lanes,
    /// Proofs of host names.
    pub proofs: Proofs,
    /// Since when this operator leads, at the latest.
    pub led_since: Moment,
    /// Where it began to write entries of new accounts.
    pub placed: super::home::Placed,
}

/// The context, for short.
impl std::ops::Deref for Desk {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.ctx
    }
}

/// The stages last seen, for the metrics: which account is in which stage, and which are overdue.
#[derive(Default)]
pub(super) struct Census {
    accounts: Mutex<HashMap<String, (Option<Stage>, bool)>>,
}

impl Census {
    /// Counts an account anew; `None`: it is gone.
    pub fn count(&self, desk: &Desk, uid: &str, now: Option<(Stage, bool)>) {
        let mut accounts = self.accounts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let before = match now {
            Some((stage, overdue)) => accounts.insert(uid.to_owned(), (Some(stage), overdue)),
            None => accounts.remove(uid),
        };
        for (counted, by) in [(before, -1), (now.map(|(s, o)| (Some(s), o)), 1)] {
            let Some((Some(stage), overdue)) = counted else { continue };
            desk.telemetry.accounts.get_or_create(&StageLabel { stage: stage.name() }).inc_by(by);
            desk.telemetry.overdue.inc_by(if overdue { by } else { 0 });
        }
    }
}
