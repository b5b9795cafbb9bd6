//! Every condition type, and the only function that writes conditions into a list.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{BackupStore, ColdBackup, DatabaseServer, HelpDeskAccount, HelpDeskClass, HelpDeskPlan};
use crate::clock::Moment;

/// The types of conditions of all kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Everything that the stage requires is in place.
    Ready,
    /// The operator is still working towards that (kstatus).
    Reconciling,
    /// A person has to do something (kstatus).
    Stalled,
    /// The tenant can log in to its database.
    DatabaseReady,
    /// The pods of the tenant's app are ready.
    AppReady,
    /// Something that the account or its plan asks for is done by neither the app nor the gateway.
    RequirementsUnmet,
    /// The tenant's host names, checked from outside, answer as the stage requires.
    EdgeReady,
    /// The newest verified backup is not older than the schedule allows.
    BackupsCurrent,
    /// The tenant cannot log in to its database: the server refused a login with the tenant's credentials.
    BlockEnforced,
    /// A hold is set, or the notice after its release still runs.
    Held,
    /// A deadline has passed, and a blocker delays the step.
    Overdue,
    /// The brake is tripped and waits for a person.
    Braked,
    /// The database is larger than the plan allows.
    QuotaExceeded,
    /// Attempts at a backup failed so often and for so long that perhaps none can ever be verified.
    Unprovable,
    /// Extensions that the plan or the class lists are not in the database, or the server does not have them.
    ExtensionsMissing,
    /// The connection limits of a server's tenants add up to more connections than the server allows.
    Overcommitted,
    /// The ledger of a server has accounts with data but without an object.
    AccountsLost,
    /// A certificate of one of the tenant's own host names was not renewed in time.
    CertificateExpires,
    /// `False`: the endpoint of notices did not take one that is due.
    NoticesDelivered,
}

impl Type {
    /// The name in status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::DatabaseReady => "DatabaseReady",
            Self::AppReady => "AppReady",
            Self::RequirementsUnmet => "RequirementsUnmet",
            Self::EdgeReady => "EdgeReady",
            Self::BackupsCurrent => "BackupsCurrent",
            Self::BlockEnforced => "BlockEnforced",
            Self::Held => "Held",
            Self::Overdue => "Overdue",
            Self::Braked => "Braked",
            Self::QuotaExceeded => "QuotaExceeded",
            Self::Unprovable => "Unprovable",
            Self::ExtensionsMissing => "ExtensionsMissing",
            Self::Overcommitted => "Overcommitted",
            Self::AccountsLost => "AccountsLost",
            Self::CertificateExpires => "CertificateExpires",
            Self::NoticesDelivered => "NoticesDelivered",
        }
    }
}

/// The value of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its type.
    pub kind: Type,
    /// Its status; `None`: unknown.
    pub holds: Option<bool>,
    /// One word in CamelCase for programs.
    pub reason: String,
    /// A sentence for people. It says what to do, if a person has to do something.
    pub message: String,
}

impl Finding {
    /// The condition holds.
    pub fn yes(kind: Type, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, holds: Some(true), reason: reason.into(), message: message.into() }
    }

    /// The condition does not hold.
    pub fn no(kind: Type, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, holds: Some(false), reason: reason.into(), message: message.into() }
    }

    /// Whether the condition holds is unknown.
    pub fn unknown(kind: Type, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, holds: None, reason: reason.into(), message: message.into() }
    }

    fn status(&self) -> &'static str {
        match self.holds {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        }
    }
}

/// The longest message the API server stores.
const LONGEST_MESSAGE: usize = 1024;

/// Makes the list of conditions from the findings. A transition time changes only with the condition's status, so that
/// an unchanged list is equal and need not be written.
///
/// If a type has several findings, the first one counts; messages of others with the same status are appended.
pub fn merge(before: &[Condition], findings: &[Finding], generation: Option<i64>, now: Moment) -> Vec<Condition> {
    let mut once: Vec<Finding> = Vec::with_capacity(findings.len());
    for finding in findings {
        match once.iter_mut().find(|f| f.kind == finding.kind) {
            None => once.push(finding.clone()),
            Some(first) if first.holds == finding.holds && first.message != finding.message => {
                first.message = format!("{}; {}", first.message, finding.message);
            }
            Some(_) => {}
        }
    }
    once.iter()
        .map(|finding| {
            let same = before.iter().find(|c| c.type_ == finding.kind.name() && c.status == finding.status());
            Condition {
                type_: finding.kind.name().to_owned(),
                status: finding.status().to_owned(),
                reason: finding.reason.clone(),
                message: finding.message.chars().take(LONGEST_MESSAGE).collect(),
                observed_generation: generation,
                last_transition_time: same.map_or(Time(now), |c| c.last_transition_time.clone()),
            }
        })
        .collect()
}

/// A resource whose status has conditions.
pub trait HasConditions {
    /// What is known about the object; nothing before it was looked at for the first time.
    fn conditions(&self) -> &[Condition];

    /// Whether the object has this condition with the status True.
    fn has(&self, kind: Type) -> bool {
        holds(self.conditions(), kind)
    }
}

macro_rules! has_conditions {
    ($($kind:ty),+) => {
        $(impl HasConditions for $kind {
            fn conditions(&self) -> &[Condition] {
                self.status.as_ref().map_or(&[], |status| &status.conditions)
            }
        })+
    };
}

has_conditions!(BackupStore, ColdBackup, DatabaseServer, HelpDeskAccount, HelpDeskClass, HelpDeskPlan);

/// Whether a list has this condition with the status True.
pub fn holds(conditions: &[Condition], kind: Type) -> bool {
    find(conditions, kind).is_some()
}

/// What a list says with the status True of this generation of the object: what an earlier process found.
pub fn shown(conditions: &[Condition], kind: Type, generation: Option<i64>) -> Option<Finding> {
    let condition = find(conditions, kind).filter(|condition| condition.observed_generation == generation)?;
    Some(Finding::yes(kind, condition.reason.clone(), condition.message.clone()))
}

/// The condition, if a list has it with the status True.
pub fn find(conditions: &[Condition], kind: Type) -> Option<&Condition> {
    conditions.iter().find(|c| c.type_ == kind.name() && c.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_twice_is_said_once_with_both_sentences() {
        let now = "2026-11-23T10:00:00Z".parse().unwrap();
        let findings = [
            Finding::yes(Type::Stalled, "NameTaken", "choose another name"),
            Finding::no(Type::EdgeReady, "NameTaken", "nothing is published"),
            Finding::yes(Type::Stalled, "BillingRefused", "write a newer state"),
            Finding::yes(Type::EdgeReady, "Published", "it is"),
        ];
        let told = merge(&[], &findings, None, now);
        let told: Vec<_> = told.iter().map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_str(), c.message.as_str())).collect();
        assert_eq!(
            told,
            [
                ("Stalled", "True", "NameTaken", "choose another name; write a newer state"),
                ("EdgeReady", "False", "NameTaken", "nothing is published"),
            ]
        );
    }
    #[test]
    fn what_an_earlier_process_found_counts_while_it_was_true_of_this_generation() {
        let now = "2026-11-23T10:00:00Z".parse().unwrap();
        let found = Finding::yes(Type::EdgeReady, "Published", "it is");
        let conditions = merge(&[], &[found, Finding::no(Type::AppReady, "Checking", "it is asked")], Some(2), now);
        let text = |kind, generation| shown(&conditions, kind, generation).map(|f| (f.reason, f.message));
        assert_eq!(text(Type::EdgeReady, Some(2)), Some(("Published".to_owned(), "it is".to_owned())));
        assert_eq!(text(Type::EdgeReady, Some(3)), None, "the account was edited since");
        assert_eq!(text(Type::AppReady, Some(2)), None, "it was not true");
    }
}
