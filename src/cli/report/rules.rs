//! Which fields of the operator's kinds a report keeps. What is on neither list is removed, and a test wants it decided.

/// Fields that a report keeps, with everything below them, by kind.
pub(super) const KEPT: &[(&str, &[&str])] = &[
    (
        "HelpDeskAccount",
        &[
            "spec.accountID",
            "spec.closure.mode",
            "spec.domain.certificateSecret",
            "spec.owner.secretRef",
            "spec.plan",
            "spec.region",
            "spec.security.minTls",
            "status.app",
            "status.billing.delinquentSince",
            "status.billing.periodEnd",
            "status.billing.since",
            "status.billing.state",
            "status.certificate.authority.backup",
            "status.certificate.authority.ground",
            "status.certificate.authority.snapshotAt",
            "status.certificate.delayedBy",
            "status.certificate.destroyed",
            "status.certificate.issuedAt",
            "status.certificate.notCounted",
            "status.certificate.note",
            "status.certificate.promisedBy",
            "status.certificate.sha256",
            "status.certificate.signature",
            "status.conditions",
            "status.dataGoneBy",
            "status.database",
            "status.delinquentSince",
            "status.domains[].certificateExpiresAt",
            "status.domains[].host",
            "status.domains[].message",
            "status.domains[].state",
            "status.domains[].use",
            "status.entering",
            "status.history",
            "status.lastBackup",
            "status.lastError",
            "status.namespace",
            "status.nextStage",
            "status.nextTransitionTime",
            "status.reason",
            "status.runbook",
            "status.stage",
            "status.stageSince",
            "status.upcoming",
            "status.waitingFor",
        ],
    ),
    (
        "ColdBackup",
        &[
            "spec.account",
            "spec.accountUID",
            "spec.expiresAt",
            "spec.reason",
            "spec.store",
            "spec.verify",
            "status.completedAt",
            "status.conditions",
            "status.erasedAt",
            "status.failing.reason",
            "status.failing.since",
            "status.failing.unprovableSince",
            "status.keyEscrow",
            "status.keyID",
            "status.manifestSha256",
            "status.moverMemory",
            "status.phase",
            "status.prefix",
            "status.restoredBy",
            "status.retainedUntil",
            "status.shreddedAt",
            "status.startedAt",
            "status.verifiedAt",
        ],
    ),
    (
        "DomainClaim",
        &["spec.account", "spec.accountUID", "spec.contender", "spec.lostSince", "spec.provenAt", "spec.reservedUntil", "spec.use"],
    ),
    ("HelpDeskPlan", &["spec", "status"]),
    ("HelpDeskClass", &["spec", "status"]),
    ("DatabaseServer", &["spec", "status"]),
    ("BackupStore", &["spec", "status"]),
];

/// Fields that a report leaves out, because they may lead to a person, belong to a customer, or be a secret.
pub(super) const REMOVED: &[(&str, &[&str])] = &[
    (
        "HelpDeskAccount",
        &[
            "spec.chatConsent",
            "spec.closure.requestedBy",
            "spec.displayName",
            "spec.domain.custom",
            "spec.domain.slug",
            "spec.hold",
            "spec.owner.email",
            "spec.owner.name",
            "spec.security.agentAllow",
            "spec.security.agentClientCA",
            "spec.security.agentClientCRL",
            "status.billing.subscription",
            "status.certificate.authority.approvedBy",
            "status.certificate.authority.because",
            "status.certificate.authority.leftOut",
            "status.certificate.authority.requestedBy",
            "status.domains[].challenge",
            "status.mail",
            "status.url",
        ],
    ),
    ("ColdBackup", &["spec.hold", "status.failing.message", "status.leftOut"]),
    ("DomainClaim", &[]),
    ("HelpDeskPlan", &["spec.security.agentAllow", "spec.security.oidc.clientID", "spec.suspendedPage.text"]),
    (
        "HelpDeskClass",
        &[
            "spec.components[].workload.command",
            "spec.env[].value",
            "spec.files[].content",
            "spec.hooks.bootstrap.exec.command",
            "spec.hooks.bootstrap.sql.statements",
            "spec.hooks.invalidateSessions.exec.command",
            "spec.hooks.invalidateSessions.sql.statements",
            "spec.hooks.learn.exec.command",
            "spec.hooks.learn.sql.statements",
            "spec.hooks.migrate.exec.command",
            "spec.hooks.migrate.sql.statements",
            "spec.hooks.setAdminPassword.exec.command",
            "spec.hooks.setAdminPassword.sql.statements",
            "spec.mail.intake.mailboxes[].fields[].value",
            "spec.mail.intake.mailboxes[].quarantine[].value",
        ],
    ),
    ("DatabaseServer", &[]),
    ("BackupStore", &["spec.expectedBucketOwner"]),
];

/// Whether a field is kept; `None`: nobody decided.
pub(super) fn is_kept(kind: &str, path: &str) -> Option<bool> {
    let longest = |table: &[(&str, &[&str])]| {
        let paths = table.iter().find(|(of, _)| *of == kind).map(|(_, paths)| *paths).unwrap_or_default();
        paths.iter().filter(|prefix| covers(prefix, path)).map(|prefix| prefix.len()).max()
    };
    match (longest(KEPT), longest(REMOVED)) {
        (None, None) => None,
        (kept, removed) => Some(kept > removed),
    }
}

/// Whether a path is this field, or below it.
fn covers(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Reasons whose messages may quote a mover, and with it what is in a tenant's database.
pub(super) const QUOTING: &[&str] = &[
    "AwaitingBackup",
    "BackupFailed",
    "BackupLate",
    "BackupUnprovable",
    "BackupUnproven",
    "Failed",
    "HookFailed",
    "MoverFailed",
    "OutOfMemory",
    "RestoreFailed",
    "Unprovable",
    "Unproven",
    "ValueNotShown",
];

#[cfg(test)]
mod tests {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, JSONSchemaPropsOrArray};

    use super::*;
    use crate::api::definitions;

    /// The paths of all texts below a schema.
    fn texts(schema: &JSONSchemaProps, path: &str, found: &mut Vec<String>) {
        for (name, field) in schema.properties.iter().flatten() {
            texts(field, &format!("{path}.{name}"), found);
        }
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
            texts(items, &format!("{path}[]"), found);
        }
        if schema.properties.is_none()
            && schema.items.is_none()
            && !matches!(schema.type_.as_deref(), Some("integer" | "boolean" | "number"))
        {
            found.push(path.to_owned());
        }
    }

    #[test]
    fn of_every_text_of_every_kind_it_is_decided_whether_a_report_keeps_it() {
        let mut undecided = Vec::new();
        for (_, definition) in definitions() {
            let kind = definition.spec.names.kind.clone();
            let schema = definition.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
            for part in ["spec", "status"] {
                let Some(field) = schema.properties.as_ref().and_then(|properties| properties.get(part)) else { continue };
                let mut paths = Vec::new();
                texts(field, part, &mut paths);
                assert!(!paths.is_empty());
                undecided.extend(paths.into_iter().filter(|path| is_kept(&kind, path).is_none()).map(|path| format!("{kind}: {path}")));
            }
        }
        assert!(undecided.is_empty(), "put each on the list KEPT or on the list REMOVED: {undecided:#?}");
    }

    #[test]
    fn the_longer_path_decides() {
        assert_eq!(is_kept("HelpDeskClass", "spec.env[].name"), Some(true));
        assert_eq!(is_kept("HelpDeskClass", "spec.env[].value"), Some(false));
        assert_eq!(is_kept("HelpDeskAccount", "spec.hold.reason"), Some(false));
        assert_eq!(is_kept("HelpDeskAccount", "spec.holding"), None, "a field that only begins alike");
    }
}
