//! The resources as users type them, one file a kind.
//!
//! What the schema can refuse is refused at admission, with a message that says what to do. Names and defaults here
//! are the public face; nothing in this module reads a clock or talks to anything.

pub mod account;
pub mod backup_store;
pub mod cold_backup;
pub mod conditions;
pub mod database_server;
mod deletion;
pub mod domain_claim;
pub mod help_desk_class;
mod hold;
pub mod plan;
pub mod stage;
mod window;

pub use account::{Billing, BillingState, Closure, ClosureMode, HelpDeskAccount, HelpDeskAccountSpec, HelpDeskAccountStatus};
pub use backup_store::{BackupStore, BackupStoreSpec, BackupStoreStatus};
pub use cold_backup::{BackupPhase, BackupReason, ColdBackup, ColdBackupSpec, ColdBackupStatus, Failing, MoverMemory};
pub use database_server::{DatabaseServer, DatabaseServerSpec, DatabaseServerStatus, Engine};
pub use deletion::{CONFIRM_DELETE, deletion_is_confirmed};
pub use domain_claim::{DomainClaim, DomainClaimSpec, DomainUse};
pub use help_desk_class::{Audience, HelpDeskClass, HelpDeskClassSpec, SecondFactor};
pub use hold::Hold;
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
pub use plan::{ClockPolicy, HelpDeskPlan, HelpDeskPlanSpec, Lifecycle, VerifyMode};
pub use window::{ParseWindow, Window};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The API group of every resource, label and annotation of this operator.
pub const GROUP: &str = "helpdesk-operator.io";
/// Label on everything that belongs to an account; its value is the account's name. For finding, never for trust.
pub const ACCOUNT_LABEL: &str = "helpdesk-operator.io/account";
/// Annotation that carries the uid of the owning account: the ownership marker that is checked before any change.
pub const ACCOUNT_UID: &str = "helpdesk-operator.io/account-uid";
/// Annotation by which a person with the `adopt` verb lets an account take over what the named uid left behind.
pub const ADOPT: &str = "helpdesk-operator.io/adopt";
/// Annotation by which a person with the `drop-unproven` verb asks that the database of an account goes although no
/// backup of it can be proven; its value is that person's username.
pub const DROP_UNPROVEN_REQUESTED_BY: &str = "helpdesk-operator.io/drop-unproven-requested-by";
/// Annotation by which another person with that verb approves it; its value is that person's username.
pub const DROP_UNPROVEN_APPROVED_BY: &str = "helpdesk-operator.io/drop-unproven-approved-by";
/// Annotation on a Secret with a certificate: the account that may use it.
pub const FOR_ACCOUNT: &str = "helpdesk-operator.io/for-account";
/// Annotation that asks for a new database password; any value that was not seen before asks once.
pub const ROTATE_PASSWORD: &str = "helpdesk-operator.io/rotate-password";
/// Annotation on a DatabaseServer by which a person lets a tripped brake go: a time in RFC 3339.
pub const RELEASE_BRAKE: &str = "helpdesk-operator.io/release-brake";
/// Label that hands an object to the operator that runs with the same `--shard`; without it, to the one without.
pub const SHARD_LABEL: &str = "helpdesk-operator.io/shard";

/// The definitions of every resource, each with the file name under `crds/`.
pub fn definitions() -> Vec<(&'static str, CustomResourceDefinition)> {
    vec![
        ("helpdeskaccounts.yaml", HelpDeskAccount::crd()),
        ("helpdeskplans.yaml", HelpDeskPlan::crd()),
        ("databaseservers.yaml", DatabaseServer::crd()),
        ("backupstores.yaml", BackupStore::crd()),
        ("coldbackups.yaml", ColdBackup::crd()),
        ("domainclaims.yaml", DomainClaim::crd()),
        ("helpdeskclasses.yaml", HelpDeskClass::crd()),
    ]
}

/// A definition as YAML that Kubernetes reads as it is meant: the words that YAML 1.1 takes for booleans are quoted,
/// which a writer of YAML 1.2 does not do.
///
/// # Errors
/// None that a definition could cause: it is plain data.
pub fn yaml(definition: &CustomResourceDefinition) -> Result<String, serde_yaml_ng::Error> {
    let text = serde_yaml_ng::to_string(definition)?;
    let quoted = text.lines().map(|line| match line.rsplit_once(' ') {
        Some((before, word @ ("Off" | "On" | "Yes" | "No"))) if before.ends_with([':', '-']) => format!("{before} '{word}'\n"),
        _ => format!("{line}\n"),
    });
    Ok(quoted.collect())
}
