//! Which objects may be behind a condition of an account. Pure.

/// What may be behind a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// The plan.
    Plan,
    /// The class that the plan names.
    Class,
    /// The Secret with the owner.
    Owner,
    /// The servers of the account's region, for an account that has none yet.
    Region,
    /// The account's server.
    Server,
    /// The brake of that server.
    Brake,
    /// The extensions that the server lacks.
    Extensions,
    /// The store of the plan's placement, or of a backup, and its escrow.
    Store,
    /// The account's backups, with their movers.
    Backups,
    /// The Gateway of the placement.
    Gateway,
    /// The issuer of the placement.
    Issuer,
    /// The tenant's namespace.
    Namespace,
    /// The pods in it.
    Pods,
    /// The operator's Secret of the tenant.
    Login,
}

use Behind::{Backups, Brake, Class, Extensions, Gateway, Issuer, Login, Namespace, Owner, Plan, Pods, Region, Server, Store};

/// What may be behind a condition of an account, the likeliest first. Empty: the account says all there is to say.
pub(super) fn behind(condition: &str, reason: &str) -> &'static [Behind] {
    match (condition, reason) {
        // What says its whole cause itself.
        (_, "Paused" | "Held" | "Notice" | "Hold") => &[],
        (_, "NeedsAdoption" | "NotAdopted" | "LedgerEntryLost" | "DatabaseLost" | "Foreign" | "NameTaken") => &[],
        (_, "BillingRefused" | "BillingDoubted" | "ClockDoubtful" | "SealBroken" | "TooLarge" | "BackupNotCreated") => &[],

        ("AppReady", "NoClass" | "ClassInvalid" | "RevisionLost" | "ObjectRefused") => &[Plan, Class],
        (_, "SecretLost") => &[Login],
        ("AppReady", _) => &[Server, Namespace, Pods, Gateway],
        ("RequirementsUnmet", _) => &[Plan, Class],
        ("EdgeReady", "NoPlan" | "NoClass" | "PolicyUnkeepable") => &[Plan, Class, Gateway],
        ("EdgeReady", _) => &[Gateway, Issuer, Namespace, Pods],
        ("BackupsCurrent", "NoStore") => &[Plan, Store],
        ("BackupsCurrent", _) => &[Backups, Store, Server],
        ("ExtensionsMissing", _) => &[Extensions, Server],

        ("Overdue", "Brake") => &[Brake],
        ("Overdue", "AwaitingBackup" | "Unprovable" | "BackupNotErased") => &[Backups, Store, Server],
        ("Overdue", "AwaitingSeal") => &[Server],
        ("Overdue", "Unknown") => &[Server, Plan, Store, Backups],
        ("Overdue", "Entering") | ("Reconciling", _) => &[Region, Server, Namespace, Pods, Gateway, Backups, Store],

        (_, "NoPlacement") => &[Plan, Region],
        (_, "ServerAway") => &[Region],
        (_, "OwnerUnknown") => &[Owner],
        (_, "StoreUnreachable") => &[Store],
        (_, "BackupUnprovable" | "BackupUnproven" | "NoAuthority" | "RestoreFailed") => &[Backups, Store],
        (_, "Progressing") => &[Region, Server, Namespace, Pods, Gateway, Backups, Store],
        // Every other reason is one of a server's own.
        _ => &[Server],
    }
}

/// Whether a condition of an account passes by itself, or is as somebody wants it.
pub(super) fn passes(condition: &str, reason: &str) -> bool {
    match condition {
        "Held" | "Reconciling" => true,
        "Overdue" => matches!(reason, "Held" | "Notice"),
        "AppReady" | "Ready" | "EdgeReady" => {
            matches!(reason, "Progressing" | "Waiting" | "Bootstrapping" | "Checking" | "Stopping" | "Migrating")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_leads_to_the_object_that_it_is_about() {
        let first: &[(&str, &str, Option<Behind>)] = &[
            ("Ready", "NoPlacement", Some(Plan)),
            ("Stalled", "NoPlacement", Some(Plan)),
            ("Ready", "OwnerUnknown", Some(Owner)),
            ("Ready", "ServerAway", Some(Region)),
            ("Ready", "SecretMissing", Some(Server)),
            ("Ready", "AuthenticationFailed", Some(Server)),
            ("DatabaseReady", "Unreachable", Some(Server)),
            ("Ready", "LedgerUnreachable", Some(Server)),
            ("Ready", "StoreUnreachable", Some(Store)),
            ("Ready", "RestoreFailed", Some(Backups)),
            ("Stalled", "BackupUnprovable", Some(Backups)),
            ("AppReady", "NoClass", Some(Plan)),
            ("AppReady", "HookFailed", Some(Server)),
            ("AppReady", "SecretLost", Some(Login)),
            ("Ready", "SecretLost", Some(Login)),
            ("EdgeReady", "GatewayUnusable", Some(Gateway)),
            ("EdgeReady", "NoPlan", Some(Plan)),
            ("BackupsCurrent", "NoStore", Some(Plan)),
            ("BackupsCurrent", "BackupLate", Some(Backups)),
            ("Overdue", "Brake", Some(Brake)),
            ("Overdue", "AwaitingBackup", Some(Backups)),
            ("Overdue", "Unknown", Some(Server)),
            ("Overdue", "Held", None),
            ("Held", "Hold", None),
            ("Ready", "Paused", None),
            ("Ready", "NeedsAdoption", None),
            ("Stalled", "BillingRefused", None),
            ("Stalled", "NameTaken", None),
            ("BlockEnforced", "SealBroken", None),
            ("ExtensionsMissing", "NotMade", Some(Extensions)),
        ];
        for (condition, reason, expected) in first {
            assert_eq!(behind(condition, reason).first(), expected.as_ref(), "{condition}, {reason}");
        }
    }

    #[test]
    fn what_is_waited_for_or_wanted_is_told_apart_from_what_is_wrong() {
        assert!(passes("Held", "Hold") && passes("Overdue", "Notice") && passes("AppReady", "Migrating"));
        assert!(!passes("Overdue", "Brake") && !passes("Ready", "Paused") && !passes("AppReady", "HookFailed"));
    }
}
