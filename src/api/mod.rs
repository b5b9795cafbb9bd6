//! The custom resources, one file for each kind.
//!
//! The schema rejects invalid objects at admission, with a message that says what to do. Names and defaults here are
//! the public API. Nothing in this module reads a clock or uses the network.

pub mod account;
pub mod app_status;
pub mod backup_store;
mod certificate;
pub mod class_mail;
pub mod cold_backup;
pub mod conditions;
pub mod database_server;
mod deletion;
pub mod domain_claim;
pub mod help_desk_class;
mod hold;
mod in_use;
pub mod mail_status;
pub mod notices;
pub mod plan;
mod plan_rules;
mod plan_security;
mod plan_status;
pub mod stage;
pub mod variables;
mod window;

pub use account::{Billing, BillingState, Closure, ClosureMode, HelpDeskAccount, HelpDeskAccountSpec, HelpDeskAccountStatus};
pub use backup_store::{BackupStore, BackupStoreSpec, BackupStoreStatus};
pub use cold_backup::{BackupPhase, BackupReason, ColdBackup, ColdBackupSpec, ColdBackupStatus, Failing, MoverMemory};
pub use database_server::{DatabaseServer, DatabaseServerSpec, DatabaseServerStatus, Engine};
pub use deletion::{CONFIRM_DELETE, deletion_is_confirmed};
pub use domain_claim::{Contender, DomainClaim, DomainClaimSpec, DomainUse};
pub use help_desk_class::{Audience, HelpDeskClass, HelpDeskClassSpec, SecondFactor};
pub use hold::Hold;
pub use in_use::{IN_USE, InUseBy};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
pub use plan::{ClockPolicy, HelpDeskPlan, HelpDeskPlanSpec, Lifecycle, VerifyMode};
pub use plan_security::{Oidc, PlanSecurity, TlsVersion};
pub use plan_status::HelpDeskPlanStatus;
pub use window::{ParseWindow, Window};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The API group of every resource, label and annotation of this operator.
pub const GROUP: &str = "helpdesk-operator.io";
/// Label on every object that belongs to an account; its value is the account's name. It is for finding objects and
/// never decides ownership.
pub const ACCOUNT_LABEL: &str = "helpdesk-operator.io/account";
/// Annotation with the uid of the owning account. The operator checks this ownership marker before any change.
pub const ACCOUNT_UID: &str = "helpdesk-operator.io/account-uid";
/// Annotation by which a person with the `adopt` verb lets an account take over the data of the account with this uid.
pub const ADOPT: &str = "helpdesk-operator.io/adopt";
/// Annotation by which a person with the `drop-unproven` verb asks to drop the database of an account although no
/// backup of it can be verified; its value is that person's username.
pub const DROP_UNPROVEN_REQUESTED_BY: &str = "helpdesk-operator.io/drop-unproven-requested-by";
/// Annotation by which another person with that verb approves it; its value is that person's username.
pub const DROP_UNPROVEN_APPROVED_BY: &str = "helpdesk-operator.io/drop-unproven-approved-by";
/// Annotation on a Secret with a certificate; its value is the name of the account that may use it.
pub const FOR_ACCOUNT: &str = "helpdesk-operator.io/for-account";
/// Annotation that asks for a new database password. Each new value asks once.
pub const ROTATE_PASSWORD: &str = "helpdesk-operator.io/rotate-password";
/// Annotation that asks for a new password of the app's administrator. Each new value asks once.
pub const ROTATE_APP_PASSWORD: &str = "helpdesk-operator.io/rotate-app-password";
/// Annotation on a DatabaseServer by which a person releases a tripped brake; its value is a time in RFC 3339.
pub const RELEASE_BRAKE: &str = "helpdesk-operator.io/release-brake";
/// Annotation on a DatabaseServer by which a person corrects a highest recorded time that lies in the future; its value is
/// the present time in RFC 3339.
pub const RESET_CLOCK: &str = "helpdesk-operator.io/reset-clock";
/// Annotation on a DatabaseServer by which a person with the verb `accept-identity` says that it is the same server under
/// another system identifier, as after `pg_upgrade`; its value is that identifier.
pub const ACCEPT_IDENTITY: &str = "helpdesk-operator.io/accept-identity";
/// Label that assigns an object to the operator with the same `--shard`. An object without it belongs to the operator
/// without `--shard`.
pub const SHARD_LABEL: &str = "helpdesk-operator.io/shard";

/// The CRDs of all kinds, each with its file name in `crds/`.
pub fn definitions() -> Vec<(&'static str, CustomResourceDefinition)> {
    let all = [
        ("helpdeskaccounts.yaml", HelpDeskAccount::crd()),
        ("helpdeskplans.yaml", HelpDeskPlan::crd()),
        ("databaseservers.yaml", DatabaseServer::crd()),
        ("backupstores.yaml", BackupStore::crd()),
        ("coldbackups.yaml", ColdBackup::crd()),
        ("domainclaims.yaml", DomainClaim::crd()),
        ("helpdeskclasses.yaml", HelpDeskClass::crd()),
    ];
    all.into_iter().map(|(file, definition)| (file, described(definition))).collect()
}

/// Says of the kind what is said of its spec: `kubectl explain` prints the first.
fn described(mut definition: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut definition.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        if let Some(schema) = schema
            && let Some(spec) = schema.properties.as_mut().and_then(|fields| fields.get_mut("spec"))
        {
            schema.description = spec.description.replace("What the object asks for.".to_owned());
        }
    }
    definition
}

/// Writes a CRD as YAML for Kubernetes, which reads YAML 1.1: words that YAML 1.1 takes for booleans are quoted, which
/// a writer of YAML 1.2 does not do.
///
/// # Errors
/// The CRD cannot be serialized, which does not happen.
pub fn yaml(definition: &CustomResourceDefinition) -> Result<String, serde_yaml_ng::Error> {
    let text = serde_yaml_ng::to_string(definition)?;
    let quoted = text.lines().map(|line| match line.rsplit_once(' ') {
        Some((before, word @ ("Off" | "On" | "Yes" | "No"))) if before.ends_with([':', '-']) => format!("{before} '{word}'\n"),
        _ => format!("{line}\n"),
    });
    Ok(quoted.collect())
}
