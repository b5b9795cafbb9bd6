//! Every condition type and reason, once, and the only place where a condition is put into a list.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::clock::Moment;

/// The types of conditions, over all kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Everything that the stage demands is in place.
    Ready,
    /// The operator is on its way there (kstatus).
    Reconciling,
    /// Something needs a person (kstatus).
    Stalled,
    /// The tenant can log in to its database.
    DatabaseReady,
    /// The tenant's addresses answer as the stage demands, seen from outside.
    EdgeReady,
    /// The newest verified backup is not older than the schedule allows.
    BackupsCurrent,
    /// Nobody of the tenant gets in: a probe with the tenant's own credentials was refused.
    BlockEnforced,
    /// A hold is set, or its notice still runs.
    Held,
    /// A deadline has passed and something of higher rank delays it.
    Overdue,
    /// The brake waits for a person.
    Braked,
    /// The database is larger than the plan allows.
    QuotaExceeded,
    /// So many attempts at a backup failed over so long a time that none may ever be proven.
    Unprovable,
    /// Extensions that plan or class list are not in the database, or not to be had from the server.
    ExtensionsMissing,
    /// A server's tenants may together open more connections than it has.
    Overcommitted,
    /// The ledger of a server knows accounts with data for which no object speaks.
    AccountsLost,
}

impl Type {
    /// The name in status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Reconciling => "Reconciling",
            Self::Stalled => "Stalled",
            Self::DatabaseReady => "DatabaseReady",
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
        }
    }
}

/// What a condition says; `None` is unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub kind: Type,
    /// `Some(true)`, `Some(false)`, or unknown.
    pub holds: Option<bool>,
    /// One word in CamelCase for programs.
    pub reason: String,
    /// A sentence for people; says what to do where somebody has to do something.
    pub message: String,
}

impl Finding {
    /// The condition holds.
    pub fn yes(kind: Type, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, holds: Some(true), reason: reason.into(), message: message.into() }
    }

    /// It does not.
    pub fn no(kind: Type, reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { kind, holds: Some(false), reason: reason.into(), message: message.into() }
    }

    /// It cannot be told.
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

/// Makes the list of conditions from the findings; a transition time changes only when the status does, so that a
/// status that says the same is equal and need not be written.
///
/// A type that was found more than once is said once: the first finding counts, and what others of the same say is added.
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

/// Whether a list of conditions says that this one holds.
pub fn holds(conditions: &[Condition], kind: Type) -> bool {
    conditions.iter().any(|c| c.type_ == kind.name() && c.status == "True")
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
}
