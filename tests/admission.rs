//! What the API server refuses, with the message that a user gets, and the good twin of it that is accepted.
//!
//! Needs a cluster with the definitions and the chart's policies, named by `HELPDESK_TEST_KUBECONFIG`. Every row is a
//! dry run, so the rows do not meet each other; what they run against carries a shard label that no operator looks after.

#![allow(clippy::unwrap_used)]

use std::{env, fmt::Write, time::Duration};

use axum::http;
use kube::{
    Client, Config,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::Request,
};
use serde_json::{Value, json};

const OPERATOR: &str = "system:serviceaccount:helpdesk-operator:helpdesk-operator";
const BILLING: &str = "system:serviceaccount:helpdesk-operator:billing";
/// The cluster's administrator, as the kubeconfig has it: every verb, and still not everything is allowed.
const ADMIN: &str = "";
/// Has the ClusterRole `helpdesk-edit` and nothing else.
const EDITOR: &str = "admission-editor";
/// Has every ClusterRole for people.
const DIRECTOR: &str = "admission-director";

/// Another person who may ask for, or approve, a drop without a proven backup.
const PARTNER: &str = "admission-partner";

/// What somebody tries.
enum Try {
    /// To create the good object of this kind with these changes.
    New(&'static Kind, &'static str),
    /// To change what is there.
    Edit(&'static Kind, &'static str, &'static str),
    /// To change the status of what is there.
    Status(&'static Kind, &'static str, &'static str),
    /// To delete it.
    Delete(&'static Kind, &'static str),
    /// To delete all of a kind in one request.
    DeleteAll(&'static Kind),
}
use Try::{Delete, DeleteAll, Edit, New, Status};

struct Kind {
    path: &'static str,
    good: &'static str,
}

const ACCOUNT: Kind = Kind {
    path: "/apis/helpdesk-operator.io/v1alpha1/helpdeskaccounts",
    good: r#"
apiVersion: helpdesk-operator.io/v1alpha1
kind: HelpDeskAccount
metadata: {name: admission-new, labels: {helpdesk-operator.io/shard: admission}}
spec:
  displayName: Ådmission & Søns (日本)
  owner: {name: Ana, email: ana@acme.example}
  plan: admission-plain
  region: eu-1
  domain: {slug: admission-new, custom: [help.acme.example]}
"#,
};
const PLAN: Kind = Kind {
    path: "/apis/helpdesk-operator.io/v1alpha1/helpdeskplans",
    good: r"
apiVersion: helpdesk-operator.io/v1alpha1
kind: HelpDeskPlan
metadata: {name: admission-new, labels: {helpdesk-operator.io/shard: admission}}
spec:
  placements: [{region: eu-1, store: eu-cold, domainBase: helpdesk.example}]
",
};
const SERVER: Kind = Kind {
    path: "/apis/helpdesk-operator.io/v1alpha1/databaseservers",
    good: r"
apiVersion: helpdesk-operator.io/v1alpha1
kind: DatabaseServer
metadata: {name: admission-new, labels: {helpdesk-operator.io/shard: admission}}
spec: {engine: postgresql, region: eu-1, host: pg.databases.svc, adminSecret: pg-admin}
",
};
const STORE: Kind = Kind {
    path: "/apis/helpdesk-operator.io/v1alpha1/backupstores",
    good: r"
apiVersion: helpdesk-operator.io/v1alpha1
kind: BackupStore
metadata: {name: admission-new, labels: {helpdesk-operator.io/shard: admission}}
spec: {region: eu-1, endpoint: https://s3.eu-1.example, bucket: helpdesk-cold, prefix: eu-1/, credentialsSecret: s3-eu-1}
",
};
const BACKUP: Kind = Kind {
    path: "/apis/helpdesk-operator.io/v1alpha1/coldbackups",
    good: r#"
apiVersion: helpdesk-operator.io/v1alpha1
kind: ColdBackup
metadata: {name: admission-new, labels: {helpdesk-operator.io/shard: admission}}
spec:
  account: admission-active
  accountUID: 00000000-0000-4000-8000-000000000000
  store: eu-cold
  expiresAt: "2097-03-23T10:00:00Z"
  reason: Manual
"#,
};
const SECRET: Kind = Kind {
    path: "/api/v1/namespaces/helpdesk-operator/secrets",
    good: r"
apiVersion: v1
kind: Secret
metadata: {name: admission-new, labels: {helpdesk-operator.io/shard: admission}}
stringData: {identity: AGE-SECRET-KEY-1}
",
};
const NAMESPACE: Kind = Kind {
    path: "/api/v1/namespaces",
    good: r"
apiVersion: v1
kind: Namespace
metadata: {name: admission-new}
",
};
const CLASS: Kind = Kind {
    path: "/apis/helpdesk-operator.io/v1alpha1/helpdeskclasses",
    good: r"
apiVersion: helpdesk-operator.io/v1alpha1
kind: HelpDeskClass
metadata: {name: admission-new}
spec:
  app: {name: desk, version: '1'}
  components: [{name: web, port: 8080}]
  routes: [{path: /, component: web, audience: agent}, {path: /REST/2.0, component: web, audience: api}]
",
};
const CLAIM: Kind = Kind {
    path: "/apis/helpdesk-operator.io/v1alpha1/domainclaims",
    good: r"
apiVersion: helpdesk-operator.io/v1alpha1
kind: DomainClaim
metadata: {name: help.admission.example}
spec: {account: admission-active, accountUID: 00000000-0000-4000-8000-000000000000, use: Custom}
",
};
const DEFINITION: Kind = Kind { path: "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", good: "" };
const BINDING: Kind = Kind {
    path: "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
    good: r"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: admission-new, labels: {helpdesk-operator.io/shard: admission}}
",
};

/// What the rows run against: kind, changes to the good object, status.
const THERE: &[(&Kind, &str, &str)] = &[
    (&PLAN, "metadata: {name: admission-plain}", ""),
    (
        &PLAN,
        r#"{metadata: {name: admission-strict}, spec: {security: {minTls: "1.3", agentAllow: [198.51.100.0/24, "2001:db8::/32"], requireTotp: true}}}"#,
        "",
    ),
    (
        &PLAN,
        "{metadata: {name: admission-used, finalizers: [helpdesk-operator.io/in-use]}, spec: {class: admission-used, placements: [{region: eu-1, store: eu-cold, domainBase: helpdesk.example, gateway: {name: edge, namespace: edge}, certificateIssuer: {name: acme}}, {region: us-1, store: us-cold, domainBase: helpdesk.example, gateway: {name: edge, namespace: edge}}]}}",
        "{inUseBy: {accounts: 7, names: [a, b]}, regionsInUse: [eu-1]}",
    ),
    (&CLASS, "{metadata: {name: admission-class}}", ""),
    (
        &CLASS,
        "{metadata: {name: admission-used, labels: {helpdesk-operator.io/shard: admission}}}",
        "{inUseBy: {accounts: 1, names: [acme]}}",
    ),
    (&ACCOUNT, "{metadata: {name: admission-fresh}}", ""),
    (
        &ACCOUNT,
        "{metadata: {name: admission-active}, spec: {accountID: 6c0f0000-0000-4000-8000-000000000000}}",
        r#"{stage: Active, url: "https://a.example", billing: {state: Active, since: "2026-11-01T00:00:00Z", sequence: 42}}"#,
    ),
    (&ACCOUNT, "{metadata: {name: admission-staged}}", "{stage: Trial}"),
    (&ACCOUNT, "{metadata: {name: admission-closed}, spec: {closure: {mode: Cancel}, hold: {reason: case 1}}}", "{stage: Terminated}"),
    (&ACCOUNT, "{metadata: {name: admission-deleted}, spec: {closure: {mode: Erase}}}", "{stage: Deleted}"),
    (&ACCOUNT, "{metadata: {name: admission-expired}}", "{stage: Expired}"),
    (
        &ACCOUNT,
        "{metadata: {name: admission-confirmed, annotations: {helpdesk-operator.io/confirm-delete: admission-confirmed}}}",
        "{stage: Active}",
    ),
    (
        &ACCOUNT,
        "{metadata: {name: admission-misconfirmed, annotations: {helpdesk-operator.io/confirm-delete: \"true\"}}}",
        "{stage: Active}",
    ),
    (&ACCOUNT, "{metadata: {name: admission-final, finalizers: [helpdesk-operator.io/account, example.org/other]}}", "{stage: Active}"),
    (&ACCOUNT, "{metadata: {name: admission-unprovable}}", UNPROVABLE),
    (&ACCOUNT, "{metadata: {name: admission-asked}}", UNPROVABLE),
    (&ACCOUNT, "{metadata: {name: admission-agreed}}", UNPROVABLE),
    (&BACKUP, "{metadata: {name: admission-verified}}", "{phase: Verified, attempts: 1}"),
    (&BACKUP, "{metadata: {name: admission-erased}}", "{phase: Erased, attempts: 1}"),
    (&SERVER, "{metadata: {name: admission-full}}", "{tenants: 3}"),
    (&SERVER, "{metadata: {name: admission-empty}}", "{tenants: 0}"),
    (&STORE, "{metadata: {name: admission-full}}", "{backups: 7}"),
    (&STORE, "{metadata: {name: admission-empty}}", "{backups: 0, keys: 0}"),
    (&STORE, "{metadata: {name: admission-escrow}}", "{backups: 0, keys: 3, escrowOf: [eu-cold, eu-other]}"),
    (&STORE, "{metadata: {name: admission-former-escrow}}", "{backups: 0, keys: 3}"),
    (&STORE, "{metadata: {name: admission-fresh-escrow}}", "{backups: 0, keys: 0, escrowOf: [eu-cold]}"),
    (&SECRET, "{metadata: {name: backup-key-admission}}", ""),
    (&SECRET, "{metadata: {name: login-admission}}", ""),
    (&SECRET, "{metadata: {name: admission-other}}", ""),
];

const DIRECTORS: &[&str] = &["edit", "close", "hold", "adopt", "reset-billing", "drop-unproven", "accept-identity", "fail-over"];
/// The status of an account whose backup cannot be proven.
const UNPROVABLE: &str = r#"{stage: Terminated, conditions: [{type: Unprovable, status: "True", reason: BackupUnprovable, message: "", lastTransitionTime: "2026-11-01T00:00:00Z"}]}"#;
/// Annotations that only their authors could write; they are put there in the operator's name.
const WRITTEN: &[(&str, &str)] = &[
    ("admission-asked", "{helpdesk-operator.io/drop-unproven-requested-by: admission-director}"),
    (
        "admission-agreed",
        "{helpdesk-operator.io/drop-unproven-requested-by: admission-director, helpdesk-operator.io/drop-unproven-approved-by: admission-partner}",
    ),
];

const SLUG: &str = "slug is one DNS label";
const HOST: &str = "custom host names are written in lower case without wildcard, port or final dot";
const SPAN: &str = "a span of time is a sum of whole days, hours, minutes and seconds of at least one second, such as 14d";
const WHOLE: &str = "write 10.0.0.0/8 for the whole range, or 10.0.0.5/32 (IPv6: /128) for the one address";
const CIDR: &str = "agentAllow lists ranges in CIDR notation, such as 198.51.100.0/24 or 2001:db8::/48";
const PREFIX: &str = "prefix is one or more names of letters, digits, _ and -, each followed by a slash, such as eu-1/";
const ENDPOINT: &str = "endpoint is an https address without a path, such as https://s3.eu-1.example";
const SEQUENCE: &str = "which was counted last: every change, a repeat with another time too, takes a number from 43 to 1000042";
const TEXT: &str = "must not contain control characters or characters that turn the direction of text";

/// What is refused: what it is, who tries, what, and what the user is told.
#[rustfmt::skip]
const REFUSED: &[(&str, &str, Try, &str)] = &[
    // ---- accounts: texts that end up in host names, SQL, logs and mails ----
    ("SQL in a slug", EDITOR, New(&ACCOUNT, r#"spec: {domain: {slug: "x'; DROP DATABASE t_x; --"}}"#), SLUG),
    ("a path in a slug", EDITOR, New(&ACCOUNT, "spec: {domain: {slug: ../admin}}"), SLUG),
    ("two labels in a slug", EDITOR, New(&ACCOUNT, "spec: {domain: {slug: acme.evil}}"), SLUG),
    ("a final newline in a slug", EDITOR, New(&ACCOUNT, r#"spec: {domain: {slug: "acme\n"}}"#), SLUG),
    ("upper case in a slug", EDITOR, New(&ACCOUNT, "spec: {domain: {slug: Acme}}"), SLUG),
    ("a Cyrillic letter in a slug", EDITOR, New(&ACCOUNT, "spec: {domain: {slug: аcme}}"), SLUG),
    ("a look-alike in punycode", EDITOR, New(&ACCOUNT, "spec: {domain: {slug: xn--cme-5cd}}"), "slug must not contain two hyphens in a row"),
    ("a slug of the platform's", EDITOR, New(&ACCOUNT, "spec: {domain: {slug: admin}}"), "this slug is reserved for the platform; choose another"),
    ("an empty slug", EDITOR, New(&ACCOUNT, r#"spec: {domain: {slug: ""}}"#), "should be at least 1 chars long"),
    ("a slug too long for its objects", EDITOR, New(&ACCOUNT, "spec: {domain: {slug: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}}"), "spec.domain.slug: Too long: may not be more than 40"),
    ("a name too long for labels", EDITOR, New(&ACCOUNT, "metadata: {name: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}"), "the name of an account has at most 40 characters, so that labels and names made from it fit"),
    ("a wildcard host", EDITOR, New(&ACCOUNT, r#"spec: {domain: {custom: ["*.acme.example"]}}"#), HOST),
    ("a host with a port", EDITOR, New(&ACCOUNT, r#"spec: {domain: {custom: ["help.acme.example:443"]}}"#), HOST),
    ("a host with a Cyrillic letter", EDITOR, New(&ACCOUNT, "spec: {domain: {custom: [help.аcme.example]}}"), HOST),
    ("an address for a host", EDITOR, New(&ACCOUNT, "spec: {domain: {custom: [169.254.169.254]}}"), HOST),
    ("one host twice", EDITOR, New(&ACCOUNT, "spec: {domain: {custom: [a.acme.example, a.acme.example]}}"), "every custom host name may be listed once"),
    ("seventeen hosts", EDITOR, New(&ACCOUNT, "spec: {domain: {custom: [a.aa, b.aa, c.aa, d.aa, e.aa, f.aa, g.aa, h.aa, i.aa, j.aa, k.aa, l.aa, m.aa, n.aa, o.aa, p.aa, q.aa]}}"), "must have at most 15 items"),
    ("a bell in a name", EDITOR, New(&ACCOUNT, r#"spec: {displayName: "Ac\u0007me"}"#), TEXT),
    ("a line break in a name", EDITOR, New(&ACCOUNT, r#"spec: {displayName: "Acme\nlevel=error"}"#), TEXT),
    ("a name that turns its direction", EDITOR, New(&ACCOUNT, r#"spec: {displayName: "Acme \u202Egro.live"}"#), TEXT),
    ("a mail address with a second header", EDITOR, New(&ACCOUNT, r#"spec: {owner: {email: "a@acme.example\nBcc: all@evil.example"}}"#), "email is one plain address, such as ana@acme.example"),
    ("an owner twice", EDITOR, New(&ACCOUNT, "spec: {owner: {secretRef: {namespace: accounts, name: o}}}"), "name the owner either by secretRef or inline by name and email"),
    ("no owner", EDITOR, New(&ACCOUNT, "spec: {owner: null}"), "spec.owner: Required value"),
    ("a path for a Secret", EDITOR, New(&ACCOUNT, "spec: {owner: {name: null, email: null, secretRef: {namespace: accounts, name: ../../kube-system/secrets/x}}}"), "spec.owner.secretRef.name in body should match"),
    ("a range with a hole", EDITOR, New(&ACCOUNT, "spec: {security: {agentAllow: [198.51.100.300/24]}}"), CIDR),
    ("an address without a range", EDITOR, New(&ACCOUNT, "spec: {security: {agentAllow: [198.51.100.7]}}"), CIDR),
    ("an address that is not the first of its range", EDITOR, New(&ACCOUNT, "spec: {security: {agentAllow: [198.51.100.0/24, 10.0.0.5/8]}}"), WHOLE),
    ("TLS 1.0", EDITOR, New(&ACCOUNT, r#"spec: {security: {minTls: "1.0"}}"#), r#"supported values: "1.2", "1.3""#),
    ("an account's id that is no id", EDITOR, New(&ACCOUNT, "spec: {accountID: acme}"), "accountID is a random UUID in lower case"),
    ("another region", EDITOR, Edit(&ACCOUNT, "admission-active", "spec: {region: us-1}"), "region is immutable: data does not move between regions"),
    ("another account's id", EDITOR, Edit(&ACCOUNT, "admission-active", "spec: {accountID: 6c0f0000-0000-4000-8000-000000000001}"), "accountID is immutable"),
    ("an account's id, later", EDITOR, Edit(&ACCOUNT, "admission-fresh", "spec: {accountID: 6c0f0000-0000-4000-8000-000000000001}"), "accountID is immutable: set it when the account is created, or never"),

    // ---- accounts may only tighten their plan ----
    ("TLS below the plan's", EDITOR, New(&ACCOUNT, r#"spec: {plan: admission-strict, security: {minTls: "1.2"}}"#), "spec.security may only tighten the plan: plan admission-strict asks for TLS 1.3; leave minTls out or write the same"),
    ("agents from outside the plan's ranges", EDITOR, New(&ACCOUNT, "spec: {plan: admission-strict, security: {agentAllow: [198.51.100.0/25, 0.0.0.0/0]}}"), "0.0.0.0/0 is outside the ranges that plan admission-strict allows (198.51.100.0/24, 2001:db8::/32)"),
    ("the same in IPv6", EDITOR, New(&ACCOUNT, r#"spec: {plan: admission-strict, security: {agentAllow: ["2001:db8::/31"]}}"#), "2001:db8::/31 is outside the ranges"),
    ("no second factor where the plan asks for one", EDITOR, New(&ACCOUNT, "spec: {plan: admission-strict, security: {requireTotp: false}}"), "leave requireTotp out or write true"),
    ("a move to a plan that is tighter than the account", EDITOR, Edit(&ACCOUNT, "admission-active", r#"spec: {plan: admission-strict, security: {minTls: "1.2"}}"#), "plan admission-strict asks for TLS 1.3"),

    // ---- decisions and their verbs ----
    ("closing without the verb", EDITOR, Edit(&ACCOUNT, "admission-active", "spec: {closure: {mode: Cancel}}"), "needs the verb close on helpdeskaccounts, which admission-editor gets from the ClusterRole helpdesk-close"),
    ("born closed without the verb", EDITOR, New(&ACCOUNT, "spec: {closure: {mode: Erase, coldBackup: false}}"), "needs the verb close on helpdeskaccounts"),
    ("withdrawing without the verb", EDITOR, Edit(&ACCOUNT, "admission-closed", "spec: {closure: null}"), "setting, changing or withdrawing it needs the verb close"),
    ("from cancelled to erased without the verb", EDITOR, Edit(&ACCOUNT, "admission-closed", "spec: {closure: {mode: Erase}}"), "needs the verb close"),
    ("a hold without the verb", EDITOR, Edit(&ACCOUNT, "admission-active", "spec: {hold: {reason: case 2}}"), "spec.hold is a legal hold: setting, changing or releasing it needs the verb hold on helpdeskaccounts"),
    ("releasing a hold without the verb", EDITOR, Edit(&ACCOUNT, "admission-closed", "spec: {hold: null}"), "needs the verb hold on helpdeskaccounts"),
    ("adopting without the verb", EDITOR, Edit(&ACCOUNT, "admission-fresh", "metadata: {annotations: {helpdesk-operator.io/adopt: 8f3a}}"), "hands one tenant's data to this account: it needs the verb adopt on helpdeskaccounts"),
    ("closing by billing", BILLING, Edit(&ACCOUNT, "admission-active", "spec: {closure: {mode: Erase}}"), "cannot patch resource \"helpdeskaccounts\""),
    ("withdrawn after the database is gone", DIRECTOR, Edit(&ACCOUNT, "admission-deleted", "spec: {closure: null}"), "closure cannot be withdrawn any more: the database is already deleted; what is left is the cold backup until dataGoneBy"),
    ("an erasure turned into a cancellation after it", DIRECTOR, Edit(&ACCOUNT, "admission-deleted", "spec: {closure: {mode: Cancel}}"), "an erasure that was carried out cannot become a cancellation"),
    ("a cancellation without a backup", DIRECTOR, Edit(&ACCOUNT, "admission-active", "spec: {closure: {mode: Cancel, coldBackup: false}}"), "coldBackup belongs to mode Erase; a cancelled account always keeps its cold backup"),
    ("an unknown way to close", DIRECTOR, Edit(&ACCOUNT, "admission-active", "spec: {closure: {mode: Purge}}"), r#"supported values: "Cancel", "Erase""#),

    // ---- a drop without a proven backup takes two people ----
    ("asking to drop unproven without the verb", EDITOR, Edit(&ACCOUNT, "admission-unprovable", "metadata: {annotations: {helpdesk-operator.io/drop-unproven-requested-by: admission-editor}}"), "needs the verb drop-unproven on helpdeskaccounts, which admission-editor gets from the ClusterRole helpdesk-drop-unproven"),
    ("approving it without the verb", EDITOR, Edit(&ACCOUNT, "admission-asked", "metadata: {annotations: {helpdesk-operator.io/drop-unproven-approved-by: admission-editor}}"), "needs the verb drop-unproven"),
    ("taking it back without the verb", EDITOR, Edit(&ACCOUNT, "admission-asked", "metadata: {annotations: {helpdesk-operator.io/drop-unproven-requested-by: null}}"), "needs the verb drop-unproven"),
    ("asking in another's name", DIRECTOR, Edit(&ACCOUNT, "admission-unprovable", "metadata: {annotations: {helpdesk-operator.io/drop-unproven-requested-by: admission-partner}}"), "whoever asks writes their own name: helpdesk-operator.io/drop-unproven-requested-by=admission-director"),
    ("approving in another's name", DIRECTOR, Edit(&ACCOUNT, "admission-asked", "metadata: {annotations: {helpdesk-operator.io/drop-unproven-approved-by: admission-partner}}"), "whoever approves writes their own name: helpdesk-operator.io/drop-unproven-approved-by=admission-director"),
    ("approving what one asked for oneself", DIRECTOR, Edit(&ACCOUNT, "admission-asked", "metadata: {annotations: {helpdesk-operator.io/drop-unproven-approved-by: admission-director}}"), "two different people decide this: admission-director asked, so somebody else has to approve"),
    ("asking and approving at once", DIRECTOR, Edit(&ACCOUNT, "admission-unprovable", "metadata: {annotations: {helpdesk-operator.io/drop-unproven-requested-by: admission-director, helpdesk-operator.io/drop-unproven-approved-by: admission-director}}"), "two different people decide this"),
    ("asking for both at once", DIRECTOR, Edit(&ACCOUNT, "admission-unprovable", "metadata: {annotations: {helpdesk-operator.io/drop-unproven-requested-by: admission-director, helpdesk-operator.io/drop-unproven-approved-by: admission-partner}}"), "whoever approves writes their own name"),
    ("taking over what another asked for", PARTNER, Edit(&ACCOUNT, "admission-asked", "metadata: {annotations: {helpdesk-operator.io/drop-unproven-requested-by: admission-partner}}"), "admission-director has asked already: remove that and any approval first"),
    ("taking over another's approval", DIRECTOR, Edit(&ACCOUNT, "admission-agreed", "metadata: {annotations: {helpdesk-operator.io/drop-unproven-approved-by: admission-director}}"), "admission-partner has approved already: remove that first"),
    ("approving what nobody asked for", PARTNER, Edit(&ACCOUNT, "admission-unprovable", "metadata: {annotations: {helpdesk-operator.io/drop-unproven-approved-by: admission-partner}}"), "an approval is of what somebody asked for"),
    ("an approval that outlives what it was of", DIRECTOR, Edit(&ACCOUNT, "admission-agreed", "metadata: {annotations: {helpdesk-operator.io/drop-unproven-requested-by: null}}"), "an approval is of what somebody asked for"),
    ("asking where a backup may be proven", DIRECTOR, Edit(&ACCOUNT, "admission-closed", "metadata: {annotations: {helpdesk-operator.io/drop-unproven-requested-by: admission-director}}"), "only of an account with the condition Unprovable"),
    ("born with it", DIRECTOR, New(&ACCOUNT, "metadata: {annotations: {helpdesk-operator.io/drop-unproven-requested-by: admission-director}}"), "only of an account with the condition Unprovable"),
    ("the administrator in another's name", ADMIN, Edit(&ACCOUNT, "admission-asked", "metadata: {annotations: {helpdesk-operator.io/drop-unproven-approved-by: admission-partner}}"), "whoever approves writes their own name"),

    // ---- status: billing's field, and everybody else's hands off ----
    ("billing removed", BILLING, Status(&ACCOUNT, "admission-active", "billing: null"), "the billing state cannot be removed: write a new state with a higher sequence instead"),
    ("the status removed, billing and all", BILLING, Status(&ACCOUNT, "admission-active", "null"), "the billing state cannot be removed"),
    ("the status removed where billing never spoke", BILLING, Status(&ACCOUNT, "admission-staged", "null"), "the status cannot be removed: billing writes status.billing, the rest is the operator's"),
    ("an older event", BILLING, Status(&ACCOUNT, "admission-active", "billing: {state: PastDue, sequence: 41}"), SEQUENCE),
    ("another state with the same sequence", BILLING, Status(&ACCOUNT, "admission-active", "billing: {state: PastDue}"), SEQUENCE),
    ("a repeat with another time", BILLING, Status(&ACCOUNT, "admission-active", r#"billing: {since: "2026-11-02T00:00:00Z"}"#), "sequence 42 is not above 42, which was counted last"),
    ("a repeat that names a subscription", BILLING, Status(&ACCOUNT, "admission-active", "billing: {subscription: sub_1}"), SEQUENCE),
    ("a subscription with a line break", BILLING, Status(&ACCOUNT, "admission-active", r#"billing: {subscription: "sub_1\nx", sequence: 43}"#), "billing.subscription in body should match"),
    ("a jump that would use the sequence up", BILLING, Status(&ACCOUNT, "admission-active", "billing: {sequence: 9000000000000000000}"), "sequence 9000000000000000000 jumps too far: the last one was 42, and one change may go up to 1000042"),
    ("a clock for a sequence", BILLING, Status(&ACCOUNT, "admission-active", "billing: {sequence: 1764064800}"), "jumps too far: the last one was 42, and one change may go up to 1000042"),
    ("a negative sequence", BILLING, Status(&ACCOUNT, "admission-fresh", r#"billing: {state: Active, since: "2026-11-01T00:00:00Z", sequence: -1}"#), "should be greater than or equal to 0"),
    ("a state that Stripe does not know", BILLING, Status(&ACCOUNT, "admission-active", "billing: {state: Delinquent, sequence: 43}"), "status.billing.state: Unsupported value: \"Delinquent\""),
    ("a time that is none", BILLING, Status(&ACCOUNT, "admission-active", "billing: {since: yesterday, sequence: 43}"), "billing.since in body must be of type date-time"),
    ("a state without its time", BILLING, Status(&ACCOUNT, "admission-fresh", "billing: {state: Active, sequence: 1}"), "status.billing.since: Required value"),
    ("billing counting anew by itself", BILLING, Status(&ACCOUNT, "admission-active", "billing: {sequence: 0, epoch: 1}"), "needs the verb reset-billing on helpdeskaccounts"),
    ("billing born in another epoch", BILLING, Status(&ACCOUNT, "admission-fresh", r#"billing: {state: Active, since: "2026-11-01T00:00:00Z", sequence: 1, epoch: 7}"#), "needs the verb reset-billing"),
    ("an epoch skipped", ADMIN, Status(&ACCOUNT, "admission-active", "billing: {sequence: 0, epoch: 2}"), "epoch 2 does not follow 0: it goes up by one, to 1"),
    ("billing writing a stage", BILLING, Status(&ACCOUNT, "admission-active", "stage: Deleted"), "only the operator writes status.stage; patch nothing but status.billing"),
    ("billing removing a stage", BILLING, Status(&ACCOUNT, "admission-active", "stage: null"), "only the operator writes status.stage"),
    ("billing adding a deadline to its own field", BILLING, Status(&ACCOUNT, "admission-active", r#"{billing: {sequence: 43}, dataGoneBy: "2026-11-24T00:00:00Z"}"#), "only the operator writes status.dataGoneBy"),
    ("billing writing a stage where there is no status", BILLING, Status(&ACCOUNT, "admission-fresh", "stage: Expired"), "only the operator writes status.stage"),
    ("billing forging a condition", BILLING, Status(&ACCOUNT, "admission-active", r#"conditions: [{type: Ready, status: "True", reason: Ok, message: "", lastTransitionTime: "2026-11-01T00:00:00Z"}]"#), "only the operator writes status.conditions"),
    ("the administrator writing a stage", ADMIN, Status(&ACCOUNT, "admission-active", "stage: Expired"), "only the operator writes status.stage"),
    ("an editor writing billing", EDITOR, Status(&ACCOUNT, "admission-active", "billing: {sequence: 43}"), "cannot patch resource \"helpdeskaccounts/status\""),
    ("billing writing the spec", BILLING, Edit(&ACCOUNT, "admission-active", "spec: {paused: true}"), "cannot patch resource \"helpdeskaccounts\""),
    ("billing confirming a deletion", BILLING, Edit(&ACCOUNT, "admission-active", "metadata: {annotations: {helpdesk-operator.io/confirm-delete: admission-active}}"), "cannot patch resource \"helpdeskaccounts\""),
    ("a forged proof", ADMIN, Status(&BACKUP, "admission-verified", "phase: Erased"), "only the operator writes this status"),
    ("a server emptied on paper", ADMIN, Status(&SERVER, "admission-full", "tenants: 0"), "only the operator writes this status"),

    // ---- deletions ----
    ("deleting an account with data", ADMIN, Delete(&ACCOUNT, "admission-active"), "the stage of account admission-active is Active, so there may be data. To end the account set spec.closure"),
    ("what to type to delete it all the same", EDITOR, Delete(&ACCOUNT, "admission-active"), "kubectl annotate helpdeskaccount admission-active helpdesk-operator.io/confirm-delete=admission-active"),
    ("deleting an account that nobody looked at yet", EDITOR, Delete(&ACCOUNT, "admission-fresh"), "is not known yet"),
    ("deleting an account whose database is gone but not its backup", EDITOR, Delete(&ACCOUNT, "admission-deleted"), "is Deleted, so there may be data"),
    ("deleting with a confirmation and without the verb", EDITOR, Delete(&ACCOUNT, "admission-confirmed"), "deleting it ends it: that needs the verb close on helpdeskaccounts, which admission-editor gets from the ClusterRole helpdesk-close"),
    ("a confirmation that does not say what", EDITOR, Delete(&ACCOUNT, "admission-misconfirmed"), "confirm first"),
    ("deleting every account at once", ADMIN, DeleteAll(&ACCOUNT), "so there may be data"),
    ("the owner of an expired account once more", EDITOR, Edit(&ACCOUNT, "admission-expired", "spec: {owner: {name: Ana, email: other@acme.example}}"), "names are not stored again"),
    ("the name of an expired account once more", EDITOR, Edit(&ACCOUNT, "admission-expired", "spec: {displayName: Other}"), "name owners by owner.secretRef where manifests are applied again and again"),
    ("billing deleting an account", BILLING, Delete(&ACCOUNT, "admission-expired"), "cannot delete resource \"helpdeskaccounts\""),
    ("taking the finalizer off", ADMIN, Edit(&ACCOUNT, "admission-final", "metadata: {finalizers: null}"), "the operator takes its finalizer off once nothing is left; by hand it would leave data behind"),
    ("deleting a backup", ADMIN, Delete(&BACKUP, "admission-verified"), "is not erased yet; the operator erases it at 2097-03-23T10:00:00Z"),
    ("deleting a server with tenants", ADMIN, Delete(&SERVER, "admission-full"), "server admission-full holds databases of 3 tenants"),
    ("deleting the key escrow of other stores", ADMIN, Delete(&STORE, "admission-escrow"), "store admission-escrow is the key escrow of the stores [eu-cold, eu-other] and keeps the keys of 3 backups"),
    ("deleting a former escrow with keys", ADMIN, Delete(&STORE, "admission-former-escrow"), "keeps the keys of 3 backups, which nobody would destroy on time without it"),
    ("deleting an escrow that has no keys yet", ADMIN, Delete(&STORE, "admission-fresh-escrow"), "is the key escrow of the stores [eu-cold]"),
    ("moving a former escrow with keys", EDITOR, Edit(&STORE, "admission-former-escrow", "spec: {bucket: other-bucket}"), "cannot change while the store holds backups or keys of backups"),
    ("deleting a store with backups", ADMIN, Delete(&STORE, "admission-full"), "store admission-full holds 7 backups, which nobody would erase on time without it"),
    ("deleting a definition", ADMIN, Delete(&DEFINITION, "coldbackups.helpdesk-operator.io"), "deleting this definition deletes every ColdBackup"),
    ("deleting the operator's namespace", ADMIN, Delete(&NAMESPACE, "helpdesk-operator"), "holds the installation's identity and the keys of every backup"),
    ("deleting the key of a backup", ADMIN, Delete(&SECRET, "backup-key-admission"), "is the key of a backup: without it the backup cannot be read"),
    ("deleting the passwords of a tenant", ADMIN, Delete(&SECRET, "login-admission"), "has the passwords of a tenant and the secrets of its app"),
    ("changing a password of a tenant", ADMIN, Edit(&SECRET, "login-admission", "data: {identity: AAAA}"), "or a tenant would be locked out"),
    ("removing a password of a tenant", ADMIN, Edit(&SECRET, "login-admission", "data: {identity: null}"), "or a tenant would be locked out"),
    ("adding to the key of a backup", ADMIN, Edit(&SECRET, "backup-key-admission", "data: {other: AAAA}"), "only the operator writes Secret backup-key-admission"),
    ("changing the key of a backup", ADMIN, Edit(&SECRET, "backup-key-admission", "data: {identity: AAAA}"), "only the operator writes Secret backup-key-admission"),

    // ---- backups ----
    ("a namespace that says that it is a tenant's", ADMIN, New(&NAMESPACE, "metadata: {labels: {helpdesk-operator.io/account: acme}}"), "make a namespace a tenant's, which may publish host names: only the operator sets them"),
    ("a namespace with a tenant's marker", ADMIN, New(&NAMESPACE, "metadata: {annotations: {helpdesk-operator.io/account-uid: x}}"), "only the operator sets them"),
    ("a host name for oneself", ADMIN, New(&CLAIM, "{}"), "only the operator writes domainclaims"),
    ("an app's extension that is no name", EDITOR, New(&CLASS, "spec: {database: {extensions: [{name: Vector}]}}"), "spec.database.extensions[0].name in body should match"),
    ("a class whose route leads nowhere", EDITOR, New(&CLASS, "spec: {routes: [{path: /, component: api, audience: agent}]}"), "every component must be listed in components"),
    ("a class whose hook runs in no image", EDITOR, New(&CLASS, "spec: {hooks: {bootstrap: {exec: {component: web, command: [/init]}}}}"), "hooks.bootstrap.exec.component must be a component with a workload"),
    ("a class whose hook ends sessions in no image", EDITOR, New(&CLASS, "spec: {hooks: {invalidateSessions: {exec: {component: web, command: [/end]}}}}"), "hooks.invalidateSessions.exec.component must be a component with a workload"),
    ("a class whose hook does two things", EDITOR, New(&CLASS, "spec: {hooks: {bootstrap: {exec: {component: web, command: [/init]}, sql: {statements: SELECT 1}}}}"), "a hook has one of exec, sql and http"),
    ("a class whose hook does nothing", EDITOR, New(&CLASS, "spec: {hooks: {bootstrap: {deadlineSeconds: 5}}}"), "a hook has one of exec, sql and http"),
    ("a request to a component that is not there", EDITOR, New(&CLASS, "spec: {hooks: {learn: {http: {component: elsewhere, path: /}}}}"), "hooks: http.component must be listed in components, and have a port"),
    ("a request before the pods to a component that is started later", EDITOR, New(&CLASS, "spec: {components: [{name: web, port: 80, workload: {image: i, runAsUser: 33}}], hooks: {migrate: {http: {component: web, path: /}}}}"), "have beforeBootstrap: the hook runs before the other pods are started"),
    ("a request with a file that is not the class's", EDITOR, New(&CLASS, "spec: {hooks: {learn: {http: {component: web, path: /, bodyFile: /etc/passwd}}}}"), "hooks: http.bodyFile must be the path of one of files"),
    ("a request with a variable that is not the class's", EDITOR, New(&CLASS, "spec: {hooks: {learn: {http: {component: web, path: /, headers: [{name: A, valueFromEnv: PATH}]}}}}"), "hooks: http.headers.valueFromEnv must be the name of one of env"),
    ("a request to another place", EDITOR, New(&CLASS, "spec: {hooks: {learn: {http: {component: web, path: 'http://elsewhere.example/'}}}}"), "spec.hooks.learn.http.path in body should match"),
    ("an upgrade of nobody at once", EDITOR, New(&CLASS, "spec: {upgrade: {maxConcurrent: 0}}"), "maxConcurrent is a number from 1 to 100, or a percentage such as 10%"),
    ("an upgrade of more than all at once", EDITOR, New(&CLASS, "spec: {upgrade: {maxConcurrent: 101%}}"), "maxConcurrent is a number from 1 to 100, or a percentage such as 10%"),
    ("a class's status by hand", ADMIN, Status(&CLASS, "admission-class", "accounts: 5"), "only the operator writes this status"),
    ("a class that asks nobody whether it is ready", EDITOR, New(&CLASS, "spec: {readiness: {component: api, path: /ready}}"), "readiness.component must be listed in components, and have a port"),
    ("a class with a file that climbs", EDITOR, New(&CLASS, "spec: {files: [{path: /etc/../root/x, content: ''}]}"), "path is absolute and plain"),
    ("a class whose mail goes to no component", EDITOR, New(&CLASS, "spec: {mail: {intake: {component: other, path: /in, mailboxes: [{name: support}]}}}"), "mail.intake.component must be listed in components"),
    ("a class whose mail goes to an odd path", EDITOR, New(&CLASS, "spec: {mail: {intake: {component: web, path: '/in?a=b', mailboxes: [{name: support}]}}}"), "path is absolute and plain"),
    ("a class with fields and no form", EDITOR, New(&CLASS, "spec: {mail: {intake: {component: web, path: /in, mailboxes: [{name: support, fields: [{name: a, value: b}]}]}}}"), "name the field of the message in messageField"),
    ("a class with an odd mailbox", EDITOR, New(&CLASS, "spec: {mail: {intake: {component: web, path: /in, mailboxes: [{name: 'Su pport'}]}}}"), "should match"),
    ("a variable that does not exist", EDITOR, New(&CLASS, "spec: {env: [{name: A, value: 'host=${db.hots}'}]}"), "a variable does not exist: there are tenant.name, tenant.displayName, tenant.chatConsent, tenant.marker, db.host"),
    ("a variable without an end", EDITOR, New(&CLASS, "spec: {env: [{name: A, value: 'x ${db.host'}]}"), "a variable does not exist"),
    ("a variable in a variable", EDITOR, New(&CLASS, "spec: {env: [{name: A, value: '${${tenant.name}}'}]}"), "a variable does not exist"),
    ("a variable after an escaped one", EDITOR, New(&CLASS, "spec: {env: [{name: A, value: '$${x} ${y}'}]}"), "a variable does not exist"),
    ("a file with a variable that does not exist", EDITOR, New(&CLASS, "spec: {files: [{path: /a, content: \"a\\nb = ${db.passwd}\"}]}"), "a variable does not exist, or is not for files"),
    ("a tenant's text in a file, where it could be code", EDITOR, New(&CLASS, "spec: {files: [{path: /a.py, content: \"NAME = '${tenant.displayName}'\"}]}"), "could become code in a file: hand them over by env"),
    ("a template for a component's name", EDITOR, New(&CLASS, "spec: {components: [{name: '${tenant.name}', port: 80}]}"), "spec.components[0].name in body should match"),
    ("a template for an image", EDITOR, New(&CLASS, "spec: {components: [{name: web, port: 80, workload: {image: '${db.host}/x', runAsUser: 33}}]}"), "workload.image in body should match"),
    ("a template for a file's path", EDITOR, New(&CLASS, "spec: {files: [{path: '/etc/${tenant.name}', content: ''}]}"), "path is absolute and plain"),
    ("a template for a variable's name", EDITOR, New(&CLASS, "spec: {env: [{name: '${db.host}', value: ''}]}"), "spec.env[0].name in body should match"),
    ("a file among the processes", EDITOR, New(&CLASS, "spec: {files: [{path: /proc/1/environ, content: ''}]}"), "path is not in /proc"),
    ("a file where the operator puts its own", EDITOR, New(&CLASS, "spec: {files: [{path: /etc/helpdesk/database-ca.crt, content: ''}]}"), "nor in /etc/helpdesk, which is the operator's"),
    ("a scratch folder over the operator's files", EDITOR, New(&CLASS, "spec: {components: [{name: web, port: 80, workload: {image: i, runAsUser: 33, scratch: [{path: /etc/helpdesk}]}}]}"), "nor in /etc/helpdesk, which is the operator's"),
    ("a scratch folder for a token of the cluster", EDITOR, New(&CLASS, "spec: {components: [{name: web, port: 80, workload: {image: i, runAsUser: 33, scratch: [{path: /var/run/secrets/kubernetes.io/serviceaccount}]}}]}"), "path is not in /proc"),
    ("a file that is a folder too", EDITOR, New(&CLASS, "spec: {files: [{path: /tmp, content: ''}], components: [{name: web, port: 80, workload: {image: i, runAsUser: 33, scratch: [{path: /tmp}]}}]}"), "the path of a file is not the path of a scratch folder too"),
    ("a component of nothing", EDITOR, New(&CLASS, "spec: {components: [{name: web, port: 80}, {name: worker}]}"), "a component without a port has a workload"),
    ("a route to what does not listen", EDITOR, New(&CLASS, "spec: {components: [{name: web, workload: {image: i, runAsUser: 33}}]}"), "and have a port"),
    ("a path to ask for without a port", EDITOR, New(&CLASS, "spec: {components: [{name: web, port: 80}, {name: worker, workload: {image: i, runAsUser: 33, livenessPath: /}}]}"), "readinessPath and livenessPath are asked for at the component's port"),
    ("more files than a Secret holds", EDITOR, New(&CLASS, "spec: {files: [{path: /a, content: ''}, {path: /b, content: ''}, {path: /c, content: ''}, {path: /d, content: ''}, {path: /e, content: ''}, {path: /f, content: ''}, {path: /g, content: ''}, {path: /h, content: ''}, {path: /i, content: ''}, {path: /j, content: ''}, {path: /k, content: ''}, {path: /l, content: ''}, {path: /m, content: ''}, {path: /n, content: ''}, {path: /o, content: ''}, {path: /p, content: ''}, {path: /q, content: ''}]}"), "spec.files: Too many: 17: must have at most 16 items"),
    ("two of what there must be one of", EDITOR, New(&CLASS, "spec: {components: [{name: web, port: 80, workload: {image: i, runAsUser: 33, replicas: 2, singleton: true}}]}"), "a singleton has one replica"),
    ("a thousand pods for each tenant", EDITOR, New(&CLASS, "spec: {components: [{name: web, port: 80, workload: {image: i, runAsUser: 33, replicas: 1000}}]}"), "should be less than or equal to 20"),
    ("a class whose filter is taught in no image", EDITOR, New(&CLASS, "spec: {hooks: {learn: {exec: {component: web, command: [/learn]}}}}"), "hooks.learn.exec.component must be a component with a workload"),
    ("a class whose pods are root", EDITOR, New(&CLASS, "spec: {components: [{name: web, port: 80, workload: {image: i, runAsUser: 0}}]}"), "greater than or equal to 1"),
    ("a class with more rules than a route takes", EDITOR, New(&CLASS, "spec: {components: [{name: a, port: 80}, {name: b, port: 80}, {name: c, port: 80}, {name: d, port: 80}, {name: e, port: 80}], routes: [{path: /, component: a, audience: public}, {path: /aapi, component: a, audience: api}, {path: /aagent, component: a, audience: agent}, {path: /bpublic, component: b, audience: public}, {path: /bapi, component: b, audience: api}, {path: /bagent, component: b, audience: agent}, {path: /cpublic, component: c, audience: public}, {path: /capi, component: c, audience: api}, {path: /cagent, component: c, audience: agent}, {path: /dpublic, component: d, audience: public}, {path: /dapi, component: d, audience: api}, {path: /dagent, component: d, audience: agent}, {path: /epublic, component: e, audience: public}, {path: /eapi, component: e, audience: api}, {path: /eagent, component: e, audience: agent}]}"), "at most 14 pairs of a component and an audience"),
    ("a class without a route for the rest", EDITOR, New(&CLASS, "spec: {routes: [{path: /help, component: web, audience: public}]}"), "exactly one route has the path /"),
    ("a path that can be read in two ways", EDITOR, New(&CLASS, "spec: {routes: [{path: /, component: web, audience: agent}, {path: /help/../x, component: web, audience: public}]}"), "path is absolute and plain"),
    ("an escaped path", EDITOR, New(&CLASS, "spec: {routes: [{path: /, component: web, audience: agent}, {path: /he%6cp, component: web, audience: public}]}"), "path is absolute and plain"),
    ("a secret that can be guessed", EDITOR, New(&CLASS, "spec: {secrets: [{name: session, format: hex, length: 8}]}"), "spec.secrets[0].length in body should be greater than or equal to 32"),
    ("a secret without end", EDITOR, New(&CLASS, "spec: {secrets: [{name: session, format: hex, length: 257}]}"), "should be less than or equal to 256"),
    ("a secret in a format of nobody's", EDITOR, New(&CLASS, "spec: {secrets: [{name: session, format: rot13, length: 32}]}"), r#"supported values: "hex", "alnum""#),
    ("a secret with a variable for a name", EDITOR, New(&CLASS, "spec: {secrets: [{name: '${db.host}', format: hex, length: 32}]}"), "spec.secrets[0].name in body should match"),
    ("a secret twice", EDITOR, New(&CLASS, "spec: {secrets: [{name: a, format: hex, length: 32}, {name: a, format: alnum, length: 32}]}"), "Duplicate value"),
    ("a provider without TLS", EDITOR, New(&PLAN, "spec: {security: {oidc: {issuer: 'http://id.example', clientID: a, clientSecret: b, jwksURI: 'https://id.example/keys'}}}"), "issuer is an https:// address"),
    ("a Frozen backup by a person", ADMIN, New(&BACKUP, "spec: {reason: Frozen}"), "only the operator takes Frozen backups; to have a backup now, write reason: Manual"),
    ("a Scheduled backup by a person", EDITOR, New(&BACKUP, "spec: {reason: Scheduled}"), "only the operator takes Scheduled backups"),
    ("a name that the operator will need", EDITOR, New(&BACKUP, "metadata: {name: acme-20261123t100003z}"), "names that end in a moment, such as acme-20261123t100003z, are the operator's"),
    ("a backup whose end has passed", EDITOR, New(&BACKUP, r#"spec: {expiresAt: "2026-01-31T00:00:00Z"}"#), "expiresAt 2026-01-31T00:00:00Z has passed already: nothing would be taken"),
    ("a backup that lives longer", ADMIN, Edit(&BACKUP, "admission-verified", r#"spec: {expiresAt: "2099-01-01T00:00:00Z"}"#), "a ColdBackup is immutable but for hold: create another one instead"),
    ("a backup of another account", ADMIN, Edit(&BACKUP, "admission-verified", "spec: {account: other}"), "a ColdBackup is immutable but for hold"),
    ("holding a backup without the verb", EDITOR, Edit(&BACKUP, "admission-verified", "spec: {hold: {reason: case 3}}"), "needs the verb hold on coldbackups"),
    ("a path for an account's uid", EDITOR, New(&BACKUP, "spec: {accountUID: ../../../../../../../../../../../../}"), "spec.accountUID in body should match"),

    // ---- plans ----
    ("a trial of no time", EDITOR, New(&PLAN, "spec: {lifecycle: {trial: 0d}}"), SPAN),
    ("negative time", EDITOR, New(&PLAN, "spec: {lifecycle: {coldBackup: -30d}}"), SPAN),
    ("a fraction of a day", EDITOR, New(&PLAN, "spec: {lifecycle: {blocked: 1.5d}}"), SPAN),
    ("weeks", EDITOR, New(&PLAN, "spec: {lifecycle: {terminated: 4w}}"), SPAN),
    ("digits that only look like digits", EDITOR, New(&PLAN, "spec: {lifecycle: {trial: １４d}}"), SPAN),
    ("more time than there is", EDITOR, New(&PLAN, "spec: {lifecycle: {blocked: 999999999d}}"), SPAN),
    ("seconds as a number", EDITOR, New(&PLAN, "spec: {lifecycle: {trial: 14}}"), "must be of type string"),
    ("a schedule of six fields", EDITOR, New(&PLAN, r#"spec: {backups: {schedule: "0 0 2 * * *"}}"#), "schedule has the five fields of cron"),
    ("an hour that no day has", EDITOR, New(&PLAN, r#"spec: {backups: {schedule: "61 25 * * *"}}"#), "minute (0-59), hour (0-23)"),
    ("a minute that no hour has", EDITOR, New(&PLAN, r#"spec: {backups: {schedule: "0,60 2 * * *"}}"#), "minute (0-59), hour (0-23)"),
    ("a day that no month has", EDITOR, New(&PLAN, r#"spec: {backups: {schedule: "0 2 32 * *"}}"#), "day of the month (1-31)"),
    ("a month of another language", EDITOR, New(&PLAN, r#"spec: {backups: {schedule: "0 2 1 MAI *"}}"#), "month (1-12 or JAN-DEC)"),
    ("a step of nothing", EDITOR, New(&PLAN, r#"spec: {backups: {schedule: "*/0 * * * *"}}"#), "schedule has the five fields of cron"),
    ("a range over midnight", EDITOR, New(&PLAN, r#"spec: {backups: {schedule: "0 22-4 * * *"}}"#), "write 22-23,0-4 for one over midnight"),
    ("a plan's address that is not the first of its range", EDITOR, New(&PLAN, r#"spec: {security: {agentAllow: ["2001:db8::1/32"]}}"#), WHOLE),
    ("a plan's status by hand", ADMIN, Status(&PLAN, "admission-plain", "observedGeneration: 5"), "only the operator writes this status"),
    ("a command for a schedule", EDITOR, New(&PLAN, r#"spec: {backups: {schedule: "0 2 * * $(id)"}}"#), "schedule has the five fields of cron"),
    ("a size that overflows", EDITOR, New(&PLAN, "spec: {database: {maxBytes: 99999999999Ti}}"), "maxBytes is a whole number of bytes, or of Ki, Mi, Gi or Ti, such as 5Gi"),
    ("no connections", EDITOR, New(&PLAN, "spec: {database: {connectionLimit: 0}}"), "should be greater than or equal to 1"),
    ("all connections", EDITOR, New(&PLAN, "spec: {database: {connectionLimit: 2147483648}}"), "should be less than or equal to 1000"),
    ("an extension that is no name", EDITOR, New(&PLAN, r#"spec: {database: {extensions: [{name: "x; DROP"}]}}"#), "spec.database.extensions[0].name in body should match"),
    ("a version that is no number", EDITOR, New(&PLAN, "spec: {database: {extensions: [{name: vector, version: newest}]}}"), "spec.database.extensions[0].version in body should match"),
    ("an extension twice", EDITOR, New(&PLAN, "spec: {database: {extensions: [{name: vector}, {name: vector, version: '0.7'}]}}"), "Duplicate value"),
    ("schemas by name", EDITOR, New(&PLAN, "spec: {database: {schemas: Some}}"), r#"supported values: "Fixed", "Own""#),
    ("one region twice", EDITOR, New(&PLAN, "spec: {placements: [{region: eu-1, store: a, domainBase: a.example}, {region: eu-1, store: b, domainBase: b.example}]}"), "placements has one entry a region; this region is listed twice"),
    ("no placement", EDITOR, New(&PLAN, "spec: {placements: []}"), "should have at least 1 items"),
    ("a base domain with a wildcard", EDITOR, New(&PLAN, r#"spec: {placements: [{region: eu-1, store: a, domainBase: "*.example"}]}"#), "domainBase is a domain in lower case without wildcard or final dot"),

    ("deleting a plan in use", ADMIN, Delete(&PLAN, "admission-used"), "HelpDeskPlan admission-used is used by 7 accounts (a, b, …). Give them another plan first"),
    ("deleting a class in use", ADMIN, Delete(&CLASS, "admission-used"), "HelpDeskClass admission-used is used by 1 account (acme)"),
    ("deleting all plans", ADMIN, DeleteAll(&PLAN), "is used by 7 accounts"),
    ("emptying the class of a plan in use", EDITOR, Edit(&PLAN, "admission-used", "spec: {class: null}"), "spec.class cannot be emptied while the plan is used by 7 accounts"),
    ("removing a placement in use", EDITOR, Edit(&PLAN, "admission-used", "spec: {placements: [{region: us-1, store: us-cold, domainBase: helpdesk.example, gateway: {name: edge, namespace: edge}}]}"), "the placement in eu-1 is used by accounts of the plan"),
    ("emptying the Gateway of a placement in use", EDITOR, Edit(&PLAN, "admission-used", "spec: {placements: [{region: eu-1, store: eu-cold, domainBase: helpdesk.example, certificateIssuer: {name: acme}}]}"), "the placement in eu-1 cannot lose its gateway"),
    ("emptying the issuer of a placement in use", EDITOR, Edit(&PLAN, "admission-used", "spec: {placements: [{region: eu-1, store: eu-cold, domainBase: helpdesk.example, gateway: {name: edge, namespace: edge}}]}"), "the placement in eu-1 cannot lose its certificateIssuer"),
    ("the finalizer of a plan in use", ADMIN, Edit(&PLAN, "admission-used", "metadata: {finalizers: null}"), "by hand it would leave data behind"),

    // ---- servers and stores ----
    ("a server without a certificate check", EDITOR, New(&SERVER, "spec: {tls: {mode: disable}}"), r#"supported values: "verify-full", "verify-ca""#),
    ("options hidden in a host", EDITOR, New(&SERVER, r#"spec: {host: "pg.example/postgres?sslmode=disable"}"#), "spec.host in body should match"),
    ("port 0", EDITOR, New(&SERVER, "spec: {port: 0}"), "should be greater than or equal to 1"),
    ("port 65536", EDITOR, New(&SERVER, "spec: {port: 65536}"), "should be less than or equal to 65535"),
    ("an engine without a driver", EDITOR, New(&SERVER, "spec: {engine: oracle}"), r#"supported values: "postgresql""#),
    ("a brake that never holds", EDITOR, New(&SERVER, "spec: {brake: {percent: 1000}}"), "should be less than or equal to 100"),
    ("a path for a certificate's Secret", EDITOR, New(&SERVER, "spec: {tls: {caSecret: ../x}}"), "spec.tls.caSecret in body should match"),
    ("a server of another identity", EDITOR, Edit(&SERVER, "admission-full", "metadata: {annotations: {helpdesk-operator.io/accept-identity: '7412'}}"), "needs the verb accept-identity on databaseservers, which admission-editor gets from the ClusterRole helpdesk-accept-identity"),
    ("a full server at another address", EDITOR, Edit(&SERVER, "admission-full", "spec: {host: other.databases.svc}"), "needs the verb fail-over on databaseservers, which admission-editor gets from the ClusterRole helpdesk-fail-over"),
    ("a full server in another region", DIRECTOR, Edit(&SERVER, "admission-full", "spec: {region: eu-2}"), "engine and region cannot change while the server holds tenants"),
    ("a store without TLS", EDITOR, New(&STORE, "spec: {endpoint: http://s3.eu-1.example}"), ENDPOINT),
    ("credentials in an address", EDITOR, New(&STORE, "spec: {endpoint: https://key:secret@s3.eu-1.example}"), ENDPOINT),
    ("a path in an address", EDITOR, New(&STORE, "spec: {endpoint: https://s3.eu-1.example/other}"), ENDPOINT),
    ("a prefix that climbs", EDITOR, New(&STORE, "spec: {prefix: ../other/}"), PREFIX),
    ("a prefix from the root", EDITOR, New(&STORE, "spec: {prefix: /eu-1/}"), PREFIX),
    ("a prefix without an end", EDITOR, New(&STORE, "spec: {prefix: eu-1}"), PREFIX),
    ("an encoded climb", EDITOR, New(&STORE, "spec: {prefix: eu-1/%2e%2e/}"), PREFIX),
    ("a bucket that is a path", EDITOR, New(&STORE, "spec: {bucket: a/../b}"), "spec.bucket in body should match"),
    ("the secret half of the recovery key", EDITOR, New(&STORE, "spec: {keyEscrow: {store: eu-escrow, recoveryRecipient: AGE-SECRET-KEY-1QQQQ}}"), "recoveryRecipient is the public key that age-keygen prints, such as age1…; never the secret one"),
    ("a lock of a kind that cannot be undone", EDITOR, New(&STORE, "spec: {objectLock: Compliance}"), r#"Unsupported value: "Compliance""#),
    ("a full store at another place", EDITOR, Edit(&STORE, "admission-full", "spec: {bucket: other-bucket}"), "region, endpoint, bucket and prefix cannot change while the store holds backups"),
];

/// The good twins: what it is, who does it, what.
#[rustfmt::skip]
const ACCEPTED: &[(&str, &str, Try)] = &[
    ("an account", EDITOR, New(&ACCOUNT, "{}")),
    ("a slug of forty", EDITOR, New(&ACCOUNT, "spec: {domain: {slug: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}}")),
    ("an owner by Secret", EDITOR, New(&ACCOUNT, "spec: {owner: {name: null, email: null, secretRef: {namespace: accounts, name: acme-owner}}}")),
    ("ranges of both families", EDITOR, New(&ACCOUNT, r#"spec: {security: {agentAllow: [198.51.100.0/24, "2001:db8::/48"]}}"#)),
    ("tighter than the plan", EDITOR, New(&ACCOUNT, r#"spec: {plan: admission-strict, security: {minTls: "1.3", agentAllow: [198.51.100.64/26, "2001:db8:1::/48"], requireTotp: true}}"#)),
    ("as tight as the plan, by silence", EDITOR, New(&ACCOUNT, "spec: {plan: admission-strict}")),
    ("a plan that comes later", EDITOR, New(&ACCOUNT, r#"spec: {plan: admission-later, security: {minTls: "1.2"}}"#)),
    ("closing with the verb", DIRECTOR, Edit(&ACCOUNT, "admission-active", "spec: {closure: {mode: Erase, coldBackup: false, requestedBy: ana@acme.example}}")),
    ("withdrawing with the verb", DIRECTOR, Edit(&ACCOUNT, "admission-closed", "spec: {closure: null}")),
    ("holding with the verb", DIRECTOR, Edit(&ACCOUNT, "admission-active", "spec: {hold: {reason: case 2026-117, by: legal@example.com}}")),
    ("releasing with the verb", DIRECTOR, Edit(&ACCOUNT, "admission-closed", "spec: {hold: null}")),
    ("adopting with the verb", DIRECTOR, Edit(&ACCOUNT, "admission-fresh", "metadata: {annotations: {helpdesk-operator.io/adopt: 8f3a}}")),
    ("asking to drop unproven with the verb", DIRECTOR, Edit(&ACCOUNT, "admission-unprovable", "metadata: {annotations: {helpdesk-operator.io/drop-unproven-requested-by: admission-director}}")),
    ("approving by another person", PARTNER, Edit(&ACCOUNT, "admission-asked", "metadata: {annotations: {helpdesk-operator.io/drop-unproven-approved-by: admission-partner}}")),
    ("taking one's wish back", DIRECTOR, Edit(&ACCOUNT, "admission-asked", "metadata: {annotations: {helpdesk-operator.io/drop-unproven-requested-by: null}}")),
    ("taking one's approval back", PARTNER, Edit(&ACCOUNT, "admission-agreed", "metadata: {annotations: {helpdesk-operator.io/drop-unproven-approved-by: null}}")),
    ("taking both back", PARTNER, Edit(&ACCOUNT, "admission-agreed", "metadata: {annotations: {helpdesk-operator.io/drop-unproven-requested-by: null, helpdesk-operator.io/drop-unproven-approved-by: null}}")),
    ("an edit that leaves both names alone", EDITOR, Edit(&ACCOUNT, "admission-agreed", "spec: {displayName: Other}")),
    ("the operator taking both names off", OPERATOR, Edit(&ACCOUNT, "admission-agreed", "metadata: {annotations: {helpdesk-operator.io/drop-unproven-requested-by: null, helpdesk-operator.io/drop-unproven-approved-by: null}}")),
    ("an edit that leaves closure and hold alone", EDITOR, Edit(&ACCOUNT, "admission-closed", "spec: {displayName: Other, paused: true}")),
    ("the operator scrubbing", OPERATOR, Edit(&ACCOUNT, "admission-closed", "spec: {closure: {requestedBy: null}, hold: null}")),
    ("the first word of billing", BILLING, Status(&ACCOUNT, "admission-fresh", r#"billing: {state: PastDue, since: "2026-11-16T10:00:00Z", delinquentSince: "2026-11-16T10:00:00Z", sequence: 42}"#)),
    ("the next word", BILLING, Status(&ACCOUNT, "admission-active", "billing: {state: PastDue, sequence: 43}")),
    ("the next word, of a subscription", BILLING, Status(&ACCOUNT, "admission-active", "billing: {state: Canceled, delinquentSince: null, periodEnd: null, subscription: sub_1NirD82eZvKYlo2C, sequence: 43}")),
    ("the longest jump", BILLING, Status(&ACCOUNT, "admission-active", "billing: {sequence: 1000042}")),
    ("the same word again", BILLING, Status(&ACCOUNT, "admission-active", r#"billing: {state: Active, since: "2026-11-01T00:00:00Z", sequence: 42}"#)),
    ("the count started anew", DIRECTOR, Status(&ACCOUNT, "admission-active", "billing: {sequence: 0, epoch: 1}")),
    ("the operator's status", OPERATOR, Status(&ACCOUNT, "admission-active", "{stage: Blocked, observedBillingSequence: 42}")),
    ("erasing the owner of an expired account", OPERATOR, Edit(&ACCOUNT, "admission-expired", "spec: {displayName: null, owner: {name: erased, email: erased@erased.invalid}}")),
    ("deleting an expired account", EDITOR, Delete(&ACCOUNT, "admission-expired")),
    ("deleting with a confirmation", DIRECTOR, Delete(&ACCOUNT, "admission-confirmed")),
    ("confirming", EDITOR, Edit(&ACCOUNT, "admission-active", "metadata: {annotations: {helpdesk-operator.io/confirm-delete: admission-active}}")),
    ("somebody else's finalizer", EDITOR, Edit(&ACCOUNT, "admission-final", "metadata: {finalizers: [helpdesk-operator.io/account]}")),
    ("the operator's own finalizer", OPERATOR, Edit(&ACCOUNT, "admission-final", "metadata: {finalizers: [example.org/other]}")),
    ("deleting an erased backup", EDITOR, Delete(&BACKUP, "admission-erased")),
    ("the operator deleting a backup", OPERATOR, Delete(&BACKUP, "admission-verified")),
    ("deleting an empty server", EDITOR, Delete(&SERVER, "admission-empty")),
    ("deleting an empty store", EDITOR, Delete(&STORE, "admission-empty")),
    ("the operator deleting a key", OPERATOR, Delete(&SECRET, "backup-key-admission")),
    ("putting a secret of an app back", ADMIN, Edit(&SECRET, "login-admission", "data: {secrets.session: AAAA}")),
    ("deleting another Secret", ADMIN, Delete(&SECRET, "admission-other")),
    ("a label on a key", ADMIN, Edit(&SECRET, "backup-key-admission", "metadata: {labels: {seen: by-backup-tool}}")),
    ("a class", EDITOR, New(&CLASS, "{}")),
    ("a class that takes mail as it is", EDITOR, New(&CLASS, "spec: {mail: {intake: {component: web, path: /in, mailboxes: [{name: support}]}}}")),
    ("a class that takes mail in a form", EDITOR, New(&CLASS, "spec: {mail: {intake: {component: web, path: /in, messageField: message, accepted: ok, refused: not ok, mailboxes: [{name: support, fields: [{name: queue, value: General}], quarantine: [{name: queue, value: Spam}]}]}}}")),
    ("a class with every way to write a dollar sign", EDITOR, New(&CLASS, "spec: {env: [{name: A, value: '$5 $$ $(x) $${x} ${db.host}${secrets.a-1}\\ ${tenant.displayName} $'}, {name: LD_PRELOAD, value: /x.so}, {name: PATH, value: ''}]}")),
    ("a file over one of the image's", EDITOR, New(&CLASS, "spec: {files: [{path: /etc/passwd, content: \"a $ b\\n${web.url}\\n\"}]}")),
    ("a class with a worker in the background and a cache", EDITOR, New(&CLASS, "spec: {components: [{name: web, port: 80}, {name: worker, workload: {image: 'ghcr.io/x/y:1.0@sha256:00', runAsUser: 33}}, {name: redis, port: 6379, workload: {image: i, runAsUser: 33, beforeBootstrap: true, singleton: true}}]}")),
    ("a class with secrets", EDITOR, New(&CLASS, "spec: {secrets: [{name: session, format: hex, length: 128}, {name: disk-key, format: alnum, length: 32}]}")),
    ("a class with pods, files and a hook", EDITOR, New(&CLASS, "spec: {components: [{name: web, port: 80, workload: {image: i, runAsUser: 33, scratch: [{path: /tmp}]}}], env: [{name: A, value: '${db.host}'}], files: [{path: /etc/a.conf, content: x}], hooks: {bootstrap: {exec: {component: web, command: [/init]}}, invalidateSessions: {sql: {statements: DELETE FROM sessions}}}, readiness: {component: web, path: /ready}}")),
    ("a class with extensions", EDITOR, New(&CLASS, "spec: {database: {extensions: [{name: pg_trgm}, {name: vector, version: '0.7'}]}}")),
    ("a class with a request and waves", EDITOR, New(&CLASS, "spec: {components: [{name: web, port: 80, workload: {image: i, runAsUser: 33, beforeBootstrap: true}}], files: [{path: /etc/setup.json, content: '{}'}], env: [{name: TOKEN, value: '${secrets.setup}'}], hooks: {migrate: {http: {component: web, path: '/setup?x=1', bodyFile: /etc/setup.json, headers: [{name: X-Token, valueFromEnv: TOKEN}], expectedStatus: [200, 409]}}}, upgrade: {maxConcurrent: 100%, maxFailures: 3, minReadySeconds: 0}}")),
    ("a namespace", ADMIN, New(&NAMESPACE, "{}")),
    ("a tenant's namespace by the operator", OPERATOR, New(&NAMESPACE, "metadata: {labels: {helpdesk-operator.io/account: acme}}")),
    ("a host name by the operator", OPERATOR, New(&CLAIM, "{}")),
    ("a backup now", EDITOR, New(&BACKUP, "{}")),
    ("a Frozen backup by the operator", OPERATOR, New(&BACKUP, "{metadata: {name: acme-20261123t100003z}, spec: {reason: Frozen}}")),
    ("holding a backup with the verb", DIRECTOR, Edit(&BACKUP, "admission-verified", "spec: {hold: {reason: case 3}}")),
    ("a plan", EDITOR, New(&PLAN, "{}")),
    ("a plan with extensions and schemas", EDITOR, New(&PLAN, "spec: {database: {extensions: [{name: pg_trgm, version: '1.6'}, {name: uuid-ossp}], schemas: Own}}")),
    ("a schedule of lists, ranges, steps and names", EDITOR, New(&PLAN, r#"spec: {backups: {schedule: "0,30 */6,1-5/2 1,15 JAN-mar SUN"}}"#)),
    ("a schedule with a leading zero", EDITOR, New(&PLAN, r#"spec: {backups: {schedule: "05 02 * * 7"}}"#)),
    ("a single address", EDITOR, New(&PLAN, r#"spec: {security: {agentAllow: [10.0.0.5/32, "2001:db8::1/128"]}}"#)),
    ("the operator's status of a plan", OPERATOR, Status(&PLAN, "admission-plain", "observedGeneration: 5")),
    ("another class and another Gateway for a plan in use", EDITOR, Edit(&PLAN, "admission-used", "spec: {class: other, placements: [{region: eu-1, store: eu-cold, domainBase: helpdesk.example, gateway: {name: other, namespace: edge}, certificateIssuer: {name: acme}}]}")),
    ("deleting a plan that nobody uses", EDITOR, Delete(&PLAN, "admission-strict")),
    ("deleting a class that nobody uses", EDITOR, Delete(&CLASS, "admission-class")),
    ("the operator's finalizer of a plan", OPERATOR, Edit(&PLAN, "admission-used", "metadata: {finalizers: null}")),
    ("sums of time", EDITOR, New(&PLAN, "spec: {lifecycle: {trial: 1d12h, blocked: 90s}}")),
    ("a server", EDITOR, New(&SERVER, "{}")),
    ("a server of another identity", DIRECTOR, Edit(&SERVER, "admission-full", "metadata: {annotations: {helpdesk-operator.io/accept-identity: '7412'}}")),
    ("a full server whose standby was promoted", DIRECTOR, Edit(&SERVER, "admission-full", "spec: {host: other.databases.svc}")),
    ("an empty server at another address", EDITOR, Edit(&SERVER, "admission-empty", "spec: {host: other.databases.svc}")),
    ("a store", EDITOR, New(&STORE, "spec: {keyEscrow: {store: eu-escrow, recoveryRecipient: age1tlk3wdrp5w3m5slgkmqexjys4tna4zha3ds5f55075r3g6xwlygsvjrl8s}}")),
    ("no lock, as kubectl reads a bare Off", EDITOR, New(&STORE, "spec: {objectLock: false}")),
];

/// The classes of real help desks.
const CLASSES: &[(&str, &str)] = &[
    ("request-tracker", include_str!("../examples/request-tracker.yaml")),
    ("django-helpdesk", include_str!("../examples/django-helpdesk.yaml")),
    ("zammad", include_str!("../examples/zammad.yaml")),
    ("chatwoot", include_str!("../examples/chatwoot.yaml")),
];

#[tokio::test]
#[ignore = "needs an API server: make test"]
async fn what_is_refused_says_why_and_its_good_twin_is_accepted() {
    let server = Server::connect().await;
    server.clear().await;
    server.prepare().await;
    let mut wrong = String::new();
    for (name, who, what, says) in REFUSED {
        match server.dry_run(who, what).await {
            Ok(_) => writeln!(wrong, "{name}: accepted").unwrap(),
            Err(told) if told.contains(says) => {}
            Err(told) => writeln!(wrong, "{name}: should say {says:?}, says {told:?}").unwrap(),
        }
    }
    for (name, who, what) in ACCEPTED {
        if let Err(told) = server.dry_run(who, what).await {
            writeln!(wrong, "{name}: should be accepted, says {told:?}").unwrap();
        }
    }
    for (name, text) in CLASSES {
        let mut class = yaml(text);
        class["metadata"]["name"] = json!("admission-new");
        if let Err(told) = server.create(EDITOR, &CLASS, &class, true).await {
            writeln!(wrong, "examples/{name}.yaml: should be accepted, says {told:?}").unwrap();
        }
    }
    let mut large = yaml(CLASS.good);
    large["spec"]["files"] = json!([{"path": "/a", "content": "x".repeat(1 << 20)}]);
    match server.create(EDITOR, &CLASS, &large, true).await {
        Err(told) if told.contains("spec.files[0].content: Too long: may not be more than 16384") => {}
        other => writeln!(wrong, "a file of 1 MiB: {other:?}").unwrap(),
    }
    let smuggled = "{metadata: {annotations: {helpdesk-operator.io/confirm-delete: admission-active}}, spec: {paused: true}, status: {billing: {sequence: 43}}}";
    let after = server.patch(BILLING, &ACCOUNT, "admission-active", Some("status"), &yaml(smuggled), true).await.unwrap();
    if after["spec"]["paused"] == true || after["metadata"]["annotations"] != Value::Null {
        writeln!(wrong, "a status patch reaches spec or metadata: {after}").unwrap();
    }
    server.clear().await;
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Billing patches while the operator applies the rest, and neither takes the other's fields away.
#[tokio::test]
#[ignore = "needs an API server: make test"]
async fn billing_and_the_operator_write_one_status_side_by_side() {
    let server = Server::connect().await;
    let name = "admission-side-by-side";
    let object = changed(&ACCOUNT, "{metadata: {name: admission-side-by-side, labels: {helpdesk-operator.io/shard: admission-side}}}");
    server.remove(&ACCOUNT, name).await;
    server.create(ADMIN, &ACCOUNT, &object, false).await.unwrap();
    let apply = |stage: &'static str| {
        let applied = json!({
            "apiVersion": object["apiVersion"], "kind": object["kind"], "metadata": {"name": name}, "status": {"stage": stage, "url": "https://a.example"},
        });
        server.apply_status(OPERATOR, &ACCOUNT, name, applied)
    };
    apply("Trial").await.unwrap();
    let word = r#"{status: {billing: {state: Active, since: "2026-11-23T10:00:00Z", sequence: 1}}}"#;
    server.patch(BILLING, &ACCOUNT, name, Some("status"), &yaml(word), false).await.unwrap();
    let after = apply("Active").await.unwrap();
    server.remove(&ACCOUNT, name).await;
    assert_eq!(after["status"]["stage"], "Active");
    assert_eq!(after["status"]["billing"]["sequence"], 1);
}

/// The API server, addressed as anybody.
struct Server {
    client: Client,
}

impl Server {
    async fn connect() -> Self {
        let path = env::var("HELPDESK_TEST_KUBECONFIG").expect("HELPDESK_TEST_KUBECONFIG names the cluster");
        let config = Config::from_custom_kubeconfig(Kubeconfig::read_from(path).unwrap(), &KubeConfigOptions::default()).await.unwrap();
        Self { client: Client::try_from(config).unwrap() }
    }

    /// Makes what the rows run against, and waits until roles and policies are in force.
    async fn prepare(&self) {
        for (user, roles) in [(EDITOR, &["edit"][..]), (DIRECTOR, DIRECTORS), (PARTNER, &["edit", "drop-unproven"])] {
            for role in roles {
                let mut binding = changed(&BINDING, &format!("metadata: {{name: {user}-{role}}}"));
                binding["roleRef"] =
                    json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": format!("helpdesk-{role}")});
                binding["subjects"] = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]);
                self.create(ADMIN, &BINDING, &binding, false).await.unwrap();
            }
        }
        for (kind, changes, status) in THERE {
            let object = changed(kind, changes);
            let made = self.create(ADMIN, kind, &object, false).await.unwrap();
            if !status.is_empty() {
                let status = json!({ "status": yaml(status) });
                self.patch(OPERATOR, kind, made["metadata"]["name"].as_str().unwrap(), Some("status"), &status, false).await.unwrap();
            }
        }
        for (name, annotations) in WRITTEN {
            let written = json!({"metadata": {"annotations": yaml(annotations)}});
            self.patch(OPERATOR, &ACCOUNT, name, None, &written, false).await.unwrap();
        }
        let strict = New(&ACCOUNT, "spec: {plan: admission-strict, security: {requireTotp: false}}");
        for _ in 0..60 {
            let roles = self.dry_run(DIRECTOR, &Edit(&ACCOUNT, "admission-active", "spec: {closure: {mode: Cancel}}")).await;
            let policies = self.dry_run(ADMIN, &strict).await;
            if roles.is_ok() && policies.is_err_and(|told| told.contains("tighten")) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        panic!("roles and policies of the chart are not in force after 30 s");
    }

    /// Deletes what [`Self::prepare`] made, in the way in which policies let it go.
    async fn clear(&self) {
        for (kind, changes, _) in THERE {
            self.remove(kind, yaml(changes)["metadata"]["name"].as_str().unwrap()).await;
        }
        let directors = DIRECTORS.iter().map(|role| format!("{DIRECTOR}-{role}"));
        let others = [format!("{EDITOR}-edit"), format!("{PARTNER}-edit"), format!("{PARTNER}-drop-unproven")];
        for binding in directors.chain(others) {
            self.remove(&BINDING, &binding).await;
        }
    }

    async fn remove(&self, kind: &Kind, name: &str) {
        let _ = self.patch(OPERATOR, kind, name, None, &json!({"metadata": {"finalizers": null}}), false).await;
        let confirmed = json!({"metadata": {"annotations": {"helpdesk-operator.io/confirm-delete": name}}});
        let _ = self.patch(ADMIN, kind, name, None, &confirmed, false).await;
        let _ = self.delete(ADMIN, kind, name, false).await;
    }

    async fn dry_run(&self, who: &str, what: &Try) -> Result<Value, String> {
        match what {
            New(kind, changes) => self.create(who, kind, &changed(kind, changes), true).await,
            Edit(kind, name, changes) => self.patch(who, kind, name, None, &yaml(changes), true).await,
            Status(kind, name, status) => self.patch(who, kind, name, Some("status"), &json!({ "status": yaml(status) }), true).await,
            Delete(kind, name) => self.delete(who, kind, name, true).await,
            DeleteAll(kind) => {
                let request = Request::new(kind.path).delete_collection(&dry(true), &kube::api::ListParams::default()).unwrap();
                self.send(who, request).await
            }
        }
    }

    async fn create(&self, who: &str, kind: &Kind, object: &Value, dry_run: bool) -> Result<Value, String> {
        let params = PostParams { dry_run, ..PostParams::default() };
        self.send(who, Request::new(kind.path).create(&params, object.to_string().into_bytes()).unwrap()).await
    }

    async fn patch(&self, who: &str, kind: &Kind, name: &str, part: Option<&str>, changes: &Value, dry_run: bool) -> Result<Value, String> {
        let (params, patch) = (PatchParams { dry_run, ..PatchParams::default() }, Patch::Merge(changes));
        let request = match part {
            Some(part) => Request::new(kind.path).patch_subresource(part, name, &params, &patch),
            None => Request::new(kind.path).patch(name, &params, &patch),
        };
        self.send(who, request.unwrap()).await
    }

    async fn apply_status(&self, who: &str, kind: &Kind, name: &str, object: Value) -> Result<Value, String> {
        let params = PatchParams::apply("helpdesk-operator").force();
        self.send(who, Request::new(kind.path).patch_subresource("status", name, &params, &Patch::Apply(object)).unwrap()).await
    }

    async fn delete(&self, who: &str, kind: &Kind, name: &str, dry_run: bool) -> Result<Value, String> {
        self.send(who, Request::new(kind.path).delete(name, &dry(dry_run)).unwrap()).await
    }

    async fn send(&self, who: &str, mut request: http::Request<Vec<u8>>) -> Result<Value, String> {
        if who != ADMIN {
            request.headers_mut().insert("impersonate-user", who.parse().unwrap());
        }
        self.client.request(request).await.map_err(|error| match error {
            kube::Error::Api(status) => status.message.clone(),
            error => panic!("failed to ask the API server: {error:?}"),
        })
    }
}

fn dry(dry_run: bool) -> DeleteParams {
    DeleteParams { dry_run, ..DeleteParams::default() }
}

fn yaml(text: &str) -> Value {
    serde_yaml_ng::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

/// The good object of a kind with changes, as a merge patch makes them.
fn changed(kind: &Kind, changes: &str) -> Value {
    let mut object = yaml(kind.good);
    merge(&mut object, &yaml(changes));
    object
}

fn merge(into: &mut Value, changes: &Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            for (key, change) in changes {
                if change.is_null() {
                    into.remove(key);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), change);
                }
            }
        }
        (into, change) => *into = change.clone(),
    }
}
