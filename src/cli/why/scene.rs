//! What the rules of `why` look at: an account, and every object that it refers to, as far as they could be read.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::Deployment,
    batch::v1::Job,
    core::v1::{Namespace, Pod},
    events::v1::Event,
};
use serde_json::Value;

use crate::{
    api::{BackupStore, ColdBackup, DatabaseServer, HelpDeskAccount, HelpDeskClass, HelpDeskPlan, plan::PlanPlacement},
    cli::seen::Seen,
    clock::Moment,
};

/// An account with what it refers to.
pub(super) struct Scene {
    /// The present, by the clock of this machine.
    pub now: Moment,
    /// The namespace of the operator.
    pub operator_namespace: String,
    /// The definitions of the operator's kinds that are not there, or not established.
    pub missing_definitions: Seen<Vec<String>>,
    /// The account.
    pub account: HelpDeskAccount,
    /// Its plan.
    pub plan: Seen<HelpDeskPlan>,
    /// The class that its plan names.
    pub class: Option<Seen<HelpDeskClass>>,
    /// Every server.
    pub servers: Seen<Vec<DatabaseServer>>,
    /// Every store.
    pub stores: Seen<Vec<BackupStore>>,
    /// The account's backups.
    pub backups: Seen<Vec<ColdBackup>>,
    /// Whether the Secrets are there that these objects name, by namespace and name.
    pub secrets: BTreeMap<(String, String), Seen<()>>,
    /// The Jobs of movers that work for the account.
    pub mover_jobs: Seen<Vec<Job>>,
    /// Their pods.
    pub mover_pods: Seen<Vec<Pod>>,
    /// The Gateway of the plan's placement.
    pub gateway: Option<Seen<Value>>,
    /// The ClusterIssuer of the plan's placement.
    pub issuer: Option<Seen<()>>,
    /// The namespace that the status names.
    pub namespace: Option<Seen<Namespace>>,
    /// The pods in it.
    pub pods: Seen<Vec<Pod>>,
    /// The operator that looks after the account.
    pub operator: Operator,
}

/// The operator's own objects.
pub(super) struct Operator {
    /// The Deployments of operators, in every namespace that may be looked at.
    pub deployments: Seen<Vec<Deployment>>,
    /// The pods of operators in its namespace.
    pub pods: Seen<Vec<Pod>>,
    /// The Lease that the leader renews.
    pub lease: Seen<Leadership>,
    /// Its name.
    pub lease_name: String,
    /// Events that say why an operator is not ready.
    pub events: Seen<Vec<Event>>,
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leadership {
    /// The replica; `None`: nobody.
    pub holder: Option<String>,
    /// When it renewed the Lease last.
    pub renewed_at: Option<Moment>,
    /// Whether it goes on renewing it.
    pub is_renewed: bool,
}

impl Scene {
    /// The placement of the plan in the account's region.
    pub fn placement(&self) -> Option<&PlanPlacement> {
        self.plan.there()?.spec.placements.iter().find(|placement| placement.region == self.account.spec.region)
    }

    /// What could not be looked at, each once.
    pub fn unseen(&self) -> Vec<String> {
        let operator = &self.operator;
        let whole = [
            self.missing_definitions.unseen(),
            self.plan.unseen(),
            self.class.as_ref().and_then(Seen::unseen),
            self.servers.unseen(),
            self.stores.unseen(),
            self.backups.unseen(),
            self.mover_jobs.unseen(),
            self.mover_pods.unseen(),
            self.gateway.as_ref().and_then(Seen::unseen),
            self.issuer.as_ref().and_then(Seen::unseen),
            self.namespace.as_ref().and_then(Seen::unseen),
            self.pods.unseen(),
            operator.deployments.unseen(),
            operator.pods.unseen(),
            operator.lease.unseen(),
            operator.events.unseen(),
        ];
        let secrets = self.secrets.values().map(Seen::unseen);
        let mut all: Vec<String> = whole.into_iter().chain(secrets).flatten().map(str::to_owned).collect();
        all.sort();
        all.dedup();
        all
    }
}
