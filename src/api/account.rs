//! `HelpDeskAccount`: one tenant.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::certificate::{Certificate, DropGround, DroppedUnder, OtherCopies, OtherCopy};
use super::{
    Hold,
    app_status::AppStatus,
    mail_status::MailStatus,
    plan_rules::cidr,
    plan_security::TlsVersion,
    stage::{Stage, Transition},
};

/// One tenant of the help desk: its owner, its plan, its region, its host names, and how it is closed. The operator
/// decides its stage from what billing writes into the status and from the plan's windows.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "helpdesk-operator.io",
    version = "v1alpha1",
    kind = "HelpDeskAccount",
    shortname = "hda",
    category = "helpdesk",
    status = "HelpDeskAccountStatus",
    derive = "PartialEq",
    selectable = ".spec.plan",
    selectable = ".spec.region",
    selectable = ".status.stage",
    printcolumn(json_path = ".status.stage", name = "Stage", type_ = "string"),
    printcolumn(json_path = ".status.stageSince", name = "Since", type_ = "date"),
    printcolumn(json_path = ".status.nextStage", name = "Next", type_ = "string"),
    printcolumn(json_path = ".status.nextTransitionTime", name = "At", type_ = "string"),
    printcolumn(json_path = ".status.dataGoneBy", name = "Data-Gone-By", type_ = "string"),
    printcolumn(json_path = ".spec.plan", name = "Plan", type_ = "string"),
    printcolumn(json_path = ".status.url", name = "URL", type_ = "string"),
    printcolumn(json_path = ".status.conditions[?(@.type==\"Ready\")].status", name = "Ready", type_ = "string"),
    printcolumn(json_path = ".status.conditions[?(@.type==\"Overdue\")].reason", name = "Overdue", type_ = "string"),
    printcolumn(json_path = ".status.entering.stage", name = "Entering", type_ = "string", priority = 1),
    printcolumn(json_path = ".status.billing.state", name = "Billing", type_ = "string", priority = 1),
    printcolumn(json_path = ".status.database.server", name = "Server", type_ = "string", priority = 1),
    validation = Rule::new("self.metadata.name.size() <= 40").message("the name of an account has at most 40 characters, so that labels and names made from it fit; choose a shorter one"),
    validation = Rule::new("!has(oldSelf.spec.closure) || has(self.spec.closure) || !has(oldSelf.status) || !has(oldSelf.status.stage) || !(oldSelf.status.stage in ['Deleted', 'Expired'])").message("closure cannot be withdrawn any more: the database is already deleted; what is left is the cold backup until dataGoneBy"),
    validation = Rule::new("!has(oldSelf.spec.closure) || !has(self.spec.closure) || oldSelf.spec.closure.mode != 'Erase' || self.spec.closure.mode == 'Erase' || !has(oldSelf.status) || !has(oldSelf.status.stage) || !(oldSelf.status.stage in ['Deleted', 'Expired'])").message("an erasure that was carried out cannot become a cancellation"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.billing) || (has(self.status) && has(self.status.billing))").message("the billing state cannot be removed: write a new state with a higher sequence instead"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.stage) || oldSelf.status.stage != 'Expired' || ((self.spec.owner == oldSelf.spec.owner || (has(self.spec.owner.email) && self.spec.owner.email == 'erased@erased.invalid')) && (!has(self.spec.displayName) || (has(oldSelf.spec.displayName) && self.spec.displayName == oldSelf.spec.displayName)))").message("the account has expired and its owner was erased: names are not stored again. Take this manifest out of what is applied, and name owners by owner.secretRef where manifests are applied again and again, as by GitOps"),
    validation = Rule::new("has(self.spec.accountID) == has(oldSelf.spec.accountID)").message("accountID is immutable: set it when the account is created, or never"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HelpDeskAccountSpec {
    /// A random id of the tenant, which never changes. If the object is lost and its manifest is applied again, the
    /// operator finds the tenant's data by this id. Immutable.
    #[serde(default, rename = "accountID", skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("accountID is immutable: it is how the tenant's data is found again"))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$')").message("accountID is a random UUID in lower case, as uuidgen prints it"))]
    #[schemars(length(max = 36))]
    pub account_id: Option<String>,
    /// The tenant's name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(validation = Rule::new(r"!self.matches('[\\x00-\\x1f\\x7f-\\x9f\\x{202a}-\\x{202e}\\x{2066}-\\x{2069}]')").message("displayName must not contain control characters or characters that turn the direction of text"))]
    pub display_name: Option<String>,
    /// The owner of the account. When the account has expired, the operator removes the owner from the object and from
    /// the Secret.
    pub owner: Owner,
    /// The `HelpDeskPlan` whose terms apply.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub plan: String,
    /// The region of the data: the operator uses only servers, stores and gateways of this region. Immutable.
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("region is immutable: data does not move between regions; create another account in the other region instead"))]
    pub region: String,
    /// The tenant's host names.
    pub domain: Domain,
    /// Security settings of this tenant. They can make the plan's stricter, never looser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<Security>,
    /// The text that customers agree to before they begin a chat, where the app asks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2000))]
    pub chat_consent: Option<String>,
    /// The owner's request to close the account. Setting it needs the verb `close`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closure: Option<Closure>,
    /// A legal hold: while it is set, the operator never destroys anything of this account. Setting it needs the verb
    /// `hold`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// If true, the operator observes the account and writes its status, and changes nothing else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

/// The owner: a reference to a Secret with the keys `name` and `email`, or both inline.
#[derive(KubeSchema, Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.secretRef) != has(self.email)").message("name the owner either by secretRef or inline by name and email"))]
pub struct Owner {
    /// A Secret with the keys `name` and `email` and the annotation `helpdesk-operator.io/for-account`, whose value is the
    /// account's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// The owner's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(validation = Rule::new(r"!self.matches('[\\x00-\\x1f\\x7f-\\x9f\\x{202a}-\\x{202e}\\x{2066}-\\x{2069}]')").message("name must not contain control characters or characters that turn the direction of text"))]
    pub name: Option<String>,
    /// The owner's mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 254))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9._%+-]+@[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?([.][A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)+$')").message("email is one plain address, such as ana@acme.example"))]
    pub email: Option<String>,
}

/// A Secret in a namespace.
#[derive(JsonSchema, Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRef {
    /// The Secret's namespace.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub namespace: String,
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// The host names of a tenant.
#[derive(KubeSchema, Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Domain {
    /// The DNS label below the plan's base domain: with the slug `acme` and the base domain `helpdesk.example`, the
    /// host name is `acme.helpdesk.example`.
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')").message("slug is one DNS label: lower-case letters a to z, digits and inner hyphens, such as acme-support"))]
    #[x_kube(validation = Rule::new("!self.startsWith('xn--') && !self.contains('--')").message("slug must not contain two hyphens in a row: that is how look-alike (IDN) names are spelled"))]
    #[x_kube(validation = Rule::new("!(self in ['www', 'api', 'admin', 'mail', 'smtp', 'imap', 'autoconfig', 'autodiscover', 'ns1', 'ns2', 'localhost', 'status', 'login'])").message("this slug is reserved for the platform; choose another"))]
    pub slug: String,
    /// Host names in the tenant's own domains.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 15), inner(length(min = 4, max = 253)))]
    #[x_kube(validation = Rule::new("self.all(h, h.matches('^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?[.])+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$'))").message("custom host names are written in lower case without wildcard, port or final dot, such as help.acme.example"))]
    #[x_kube(validation = Rule::new("self.all(h, self.exists_one(o, o == h))").message("every custom host name may be listed once"))]
    pub custom: Vec<String>,
    /// The certificate of the custom host names, if the plan has no issuer: a Secret of type kubernetes.io/tls with the
    /// annotation helpdesk-operator.io/for-account, whose value is this account's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_secret: Option<SecretRef>,
}

/// Security settings that are stricter than the plan's.
#[derive(KubeSchema, Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("!has(self.agentClientCRL) || has(self.agentClientCA)").message("agentClientCRL says what the authorities of agentClientCA revoked: set that, too"))]
pub struct Security {
    /// Address ranges of agents, IPv4 and IPv6; empty: every address that the plan allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(min = 2, max = 43)))]
    #[x_kube(validation = Rule::new(cidr::RULE).message(cidr::MESSAGE))]
    #[x_kube(validation = Rule::new(cidr::WHOLE).message(cidr::WHOLE_MESSAGE))]
    pub agent_allow: Vec<String>,
    /// The lowest TLS version that the gateway accepts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_tls: Option<TlsVersion>,
    /// Whether agents need a second factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_totp: Option<bool>,
    /// Mutual TLS on agents' paths: agents must present a client certificate of one of these certificate authorities
    /// (PEM).
    #[serde(default, rename = "agentClientCA", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 65536))]
    #[x_kube(validation = Rule::new("self.startsWith('-----BEGIN CERTIFICATE-----')").message("agentClientCA is one or more certificates in PEM, beginning with -----BEGIN CERTIFICATE-----"))]
    pub agent_client_ca: Option<String>,
    /// Which client certificates these authorities revoked: one list for each of them (PEM, RFC 5280). While a list is past its
    /// next update, no client certificate is taken.
    #[serde(default, rename = "agentClientCRL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 262_144))]
    #[x_kube(validation = Rule::new("self.startsWith('-----BEGIN X509 CRL-----')").message("agentClientCRL is one or more lists in PEM, beginning with -----BEGIN X509 CRL-----"))]
    pub agent_client_crl: Option<String>,
}

/// How the owner closes the account.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self.mode == 'Erase' || !has(self.coldBackup)").message("coldBackup belongs to mode Erase; a cancelled account always keeps its cold backup"))]
pub struct Closure {
    /// `Cancel` terminates the account now and deletes it after the plan's window. `Erase` blocks the account now and
    /// deletes it after the plan's `eraseDelay`; the account never opens again.
    pub mode: ClosureMode,
    /// Who asked for it. It is kept as evidence until the account has expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 254))]
    #[x_kube(validation = Rule::new(r"!self.matches('[\\x00-\\x1f\\x7f-\\x9f\\x{202a}-\\x{202e}\\x{2066}-\\x{2069}]')").message("requestedBy must not contain control characters or characters that turn the direction of text"))]
    pub requested_by: Option<String>,
    /// For `Erase`: whether a cold backup is kept for the plan's window. If absent, it is kept; if false, nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_backup: Option<bool>,
}

impl Closure {
    /// Whether a cold backup is kept after the database is dropped.
    pub fn keeps_backup(&self) -> bool {
        match self.mode {
            ClosureMode::Cancel => true,
            ClosureMode::Erase => self.cold_backup.unwrap_or(true),
        }
    }
}

/// The two ways in which an owner closes an account.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClosureMode {
    /// The account is terminated now and deleted after the plan's window.
    Cancel,
    /// The account is blocked now and deleted after the plan's `eraseDelay`.
    Erase,
}

/// The observed state of the account, and its next stage.
#[derive(KubeSchema, Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HelpDeskAccountStatus {
    /// The `metadata.generation` that the rest of the status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The `sequence` of the billing state that the rest of the status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_billing_sequence: Option<i64>,
    /// The stage of the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// Since when everything that the stage requires is enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage_since: Option<Time>,
    /// Why the account is in this stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<super::stage::Reason>,
    /// The stage that was decided and is not enforced yet; absent while `stage` is what was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entering: Option<EnteringStage>,
    /// The next stage, if nothing changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_stage: Option<Stage>,
    /// When the next stage is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_transition_time: Option<Time>,
    /// The stages that follow, if nothing changes and nothing delays them. A step that is delayed ends the list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub upcoming: Vec<Transition>,
    /// The last stages that the account entered, from the ledger of its server; the newest is the last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub history: Vec<Transition>,
    /// When neither database nor backup will exist any more, if nothing changes. Absent if that time is unknown: the
    /// promised time has passed, and the condition Overdue says why the data still exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_gone_by: Option<Time>,
    /// The URL of the tenant's main host name, once it is published at the plan's Gateway and a probe got an answer.
    /// Absent if nothing is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Every host name of the account, with its state at the gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["host".into()]))]
    pub domains: Vec<DomainStatus>,
    /// The billing state. Only billing writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billing: Option<Billing>,
    /// The first failure of the run of failed payments that no payment has ended yet. The operator takes it from what billing
    /// wrote first, and the grace is counted from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delinquent_since: Option<Time>,
    /// The tenant's database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseRef>,
    /// The tenant's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<NamespaceRef>,
    /// The newest verified backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<LastBackup>,
    /// Its mail addresses, and the DNS records that they need; absent if the class takes no mail, or no mail intake runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail: Option<MailStatus>,
    /// Which revision of its class it has; absent if the class has no workloads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppStatus>,
    /// The signed certificate that nothing of the account is left; present from Expired on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// Why the last look at the account failed; absent once one succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
    /// What the account depends on and is not ready itself, in the order in which to look; empty while the account is well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting_for: Vec<WaitingFor>,
    /// Where the documents say what to do; absent while the account is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runbook: Option<String>,
    /// Ready, DatabaseReady, AppReady, EdgeReady, BackupsCurrent, BlockEnforced, Held, Overdue, Unprovable, Stalled, Reconciling.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// A stage that was decided and is not enforced yet. The condition Reconciling says what it waits for.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnteringStage {
    /// The stage.
    pub stage: Stage,
    /// Why it was decided.
    pub reason: super::stage::Reason,
    /// When it was decided.
    pub since: Time,
}

/// Why looks at an account fail.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastError {
    /// The reason, as in the conditions.
    pub reason: String,
    /// The error with its causes.
    pub message: String,
    /// When this run of failures began.
    pub since: Time,
    /// In which time it is tried again, at the latest. The time grows up to six minutes; whatever wakes the account shortens it.
    pub retry_within: super::Window,
}

/// An object that the account depends on, and why it is not ready.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingFor {
    /// Its kind.
    pub kind: String,
    /// Its name, after its namespace if it has one.
    pub name: String,
    /// Its own reason, or `NotFound`.
    pub reason: String,
    /// Its own message, or the beginning of it.
    pub message: String,
}

/// The state of one host name.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DomainStatus {
    /// The host name.
    pub host: String,
    /// How the account uses the host name.
    #[serde(rename = "use")]
    pub used_as: super::DomainUse,
    /// How the gateway answers requests to the host name.
    pub state: DomainState,
    /// A sentence for people. It says what to do, if a person has to do something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The DNS record that the tenant must create to prove a custom host name, while it is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Challenge>,
    /// When the certificate of a custom host name expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_expires_at: Option<Time>,
}

/// How the gateway answers requests to a host name.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DomainState {
    /// With the app.
    Live,
    /// With a redirect to the tenant's present host name.
    Redirecting,
    /// With the page that says that the account is suspended.
    Suspended,
    /// Not at all: the host name is not published yet, and the message says why.
    Withheld,
    /// Not at all: the account has not proved that it owns the name.
    Unproven,
    /// Not at all: the name belongs to another account, or is reserved.
    Refused,
}

/// A DNS record of type TXT that proves that the tenant owns a name.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Challenge {
    /// The record's name.
    pub record: String,
    /// Its value.
    pub value: String,
}

/// The billing state of the account, with Stripe's names for the state of a subscription.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self == oldSelf || self.epoch != oldSelf.epoch || self.sequence > oldSelf.sequence").message(Message::Expression("'sequence %d is not above %d, which was counted last: every change, a repeat with another time too, takes a number from %d to %d; an event that was counted already need not be written again'.format([self.sequence, oldSelf.sequence, oldSelf.sequence + 1, oldSelf.sequence + 1000000])".into())))]
#[x_kube(validation = Rule::new("self.epoch != oldSelf.epoch || self.sequence <= oldSelf.sequence || self.sequence - oldSelf.sequence <= 1000000").message(Message::Expression("'sequence %d jumps too far: the last one was %d, and one change may go up to %d; count events, and use no clock as a sequence'.format([self.sequence, oldSelf.sequence, oldSelf.sequence + 1000000])".into())))]
#[x_kube(validation = Rule::new("self.epoch == oldSelf.epoch || self.epoch == oldSelf.epoch + 1").message(Message::Expression("'epoch %d does not follow %d: it goes up by one, to %d, and the sequence begins anew with it'.format([self.epoch, oldSelf.epoch, oldSelf.epoch + 1])".into())))]
pub struct Billing {
    /// The subscription's state.
    pub state: BillingState,
    /// When this state began.
    pub since: Time,
    /// When the first payment of this run of failed payments failed. The operator takes it from the first PastDue or
    /// Unpaid state of the run and ignores later values until a payment ends the run. If absent, `since` of that first
    /// state counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delinquent_since: Option<Time>,
    /// Until when the account is paid for. A Canceled account is blocked at this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_end: Option<Time>,
    /// Billing's id of the subscription, such as `sub_1NirD82eZvKYlo2C`. Once a payment has named a subscription,
    /// states of another one change nothing, until a payment names that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[A-Za-z0-9][-A-Za-z0-9._:/]*$"))]
    pub subscription: Option<String>,
    /// The number of this event of billing. Every change needs a higher number, by 1000000 at most.
    #[schemars(range(min = 0))]
    pub sequence: i64,
    /// A person raises it by one if billing lost its sequence; `sequence` then starts again from any number.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000000))]
    pub epoch: i64,
}

/// The states of a subscription as Stripe names them (API reference, "The Subscription object", `status`).
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BillingState {
    /// The subscription is in its trial.
    Trialing,
    /// The subscription is paid.
    Active,
    /// The last payment failed and is tried again.
    PastDue,
    /// Every attempt at the last payment failed.
    Unpaid,
    /// The subscription was canceled; the account stays open until `periodEnd`.
    Canceled,
    /// The first payment is being made. This state changes nothing.
    Incomplete,
    /// The first payment was not made in time.
    IncompleteExpired,
    /// The trial ended without a payment method.
    Paused,
}

impl BillingState {
    /// Whether a payment failed.
    pub const fn is_failing(self) -> bool {
        matches!(self, Self::PastDue | Self::Unpaid)
    }
}

/// The server and database with the tenant's data.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseRef {
    /// The `DatabaseServer`.
    pub server: String,
    /// The database's name on it.
    pub name: String,
    /// The Secret with the tenant's credentials, in the tenant's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The database's oid in PostgreSQL. A new database of the same name has another oid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<i64>")]
    pub oid: Option<u32>,
}

/// The tenant's namespace.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceRef {
    /// Its name, made from the account's uid.
    pub name: String,
    /// Its uid. The operator never changes a namespace of the same name with another uid.
    pub uid: String,
}

/// A summary of a verified backup.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastBackup {
    /// The `ColdBackup`.
    pub name: String,
    /// Why it was taken.
    pub reason: super::BackupReason,
    /// When its last byte was stored.
    pub completed_at: Time,
    /// When it was verified, by a restore or by decoding every byte.
    pub verified_at: Time,
    /// Its size in the bucket in bytes.
    pub bytes: i64,
}
