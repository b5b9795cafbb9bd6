//! `HelpDeskAccount`: one tenant.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Hold, plan::TlsVersion, stage::Stage};

/// One tenant of the help desk: who owns it, under which plan and in which region it lives, and how its life ends.
/// Its stage follows from what billing writes into the status and from the plan's windows.
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
    printcolumn(json_path = ".status.billing.state", name = "Billing", type_ = "string", priority = 1),
    printcolumn(json_path = ".status.database.server", name = "Server", type_ = "string", priority = 1),
    validation = Rule::new("self.metadata.name.size() <= 40").message("the name of an account has at most 40 characters, so that labels and names made from it fit; choose a shorter one"),
    validation = Rule::new("!has(oldSelf.spec.closure) || has(self.spec.closure) || !has(oldSelf.status) || !has(oldSelf.status.stage) || !(oldSelf.status.stage in ['Deleted', 'Expired'])").message("closure cannot be withdrawn any more: the database is already deleted; what is left is the cold backup until dataGoneBy"),
    validation = Rule::new("!has(oldSelf.spec.closure) || !has(self.spec.closure) || oldSelf.spec.closure.mode != 'Erase' || self.spec.closure.mode == 'Erase' || !has(oldSelf.status) || !has(oldSelf.status.stage) || !(oldSelf.status.stage in ['Deleted', 'Expired'])").message("an erasure that was carried out cannot become a cancellation"),
    validation = Rule::new("!has(oldSelf.status) || !has(oldSelf.status.billing) || (has(self.status) && has(self.status.billing))").message("the billing state cannot be removed: write a new state with a higher sequence instead"),
    validation = Rule::new("has(self.spec.accountID) == has(oldSelf.spec.accountID)").message("accountID is immutable: set it when the account is created, or never"),
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HelpDeskAccountSpec {
    /// A random id that the tenant keeps for life: with it, a manifest that is applied again after the loss of the
    /// object finds its own data. Immutable.
    #[serde(default, rename = "accountID", skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("accountID is immutable: it is how the tenant's data is found again"))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$')").message("accountID is a random UUID in lower case, as uuidgen prints it"))]
    #[schemars(length(max = 36))]
    pub account_id: Option<String>,
    /// The tenant's name as people read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    #[x_kube(validation = Rule::new(r"!self.matches('[\\x00-\\x1f\\x7f-\\x9f\\x{202a}-\\x{202e}\\x{2066}-\\x{2069}]')").message("displayName must not contain control characters or characters that turn the direction of text"))]
    pub display_name: Option<String>,
    /// Who owns the account. Scrubbed when the account has expired, wherever it is written.
    pub owner: Owner,
    /// The `HelpDeskPlan` whose terms hold.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub plan: String,
    /// Where the data lives: only servers, stores and gateways of this region are used. Immutable.
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("region is immutable: data does not move between regions; create another account in the other region instead"))]
    pub region: String,
    /// The tenant's addresses on the web.
    pub domain: Domain,
    /// Security of this tenant; it may only tighten what the plan asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<Security>,
    /// The owner's wish to end the account. Setting it needs the verb `close`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closure: Option<Closure>,
    /// A legal hold: nothing of this account is destroyed while it is set. Setting it needs the verb `hold`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// The operator looks at the account and reports, and changes nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

/// The owner, by reference to a Secret with the keys `name` and `email`, or inline.
#[derive(KubeSchema, Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("has(self.secretRef) != has(self.email)").message("name the owner either by secretRef or inline by name and email"))]
pub struct Owner {
    /// A Secret with the keys `name` and `email`.
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

/// Host names of a tenant.
#[derive(KubeSchema, Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Domain {
    /// The label under the plan's base domain.
    #[schemars(length(min = 1, max = 40))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')").message("slug is one DNS label: lower-case letters a to z, digits and inner hyphens, such as acme-support"))]
    #[x_kube(validation = Rule::new("!self.startsWith('xn--') && !self.contains('--')").message("slug must not contain two hyphens in a row: that is how look-alike (IDN) names are spelled"))]
    #[x_kube(validation = Rule::new("!(self in ['www', 'api', 'admin', 'mail', 'smtp', 'imap', 'autoconfig', 'autodiscover', 'ns1', 'ns2', 'localhost', 'status', 'login'])").message("this slug is reserved for the platform; choose another"))]
    pub slug: String,
    /// Host names of the tenant's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 15), inner(length(min = 4, max = 253)))]
    #[x_kube(validation = Rule::new("self.all(h, h.matches('^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?[.])+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$'))").message("custom host names are written in lower case without wildcard, port or final dot, such as help.acme.example"))]
    #[x_kube(validation = Rule::new("self.all(h, self.exists_one(o, o == h))").message("every custom host name may be listed once"))]
    pub custom: Vec<String>,
    /// The certificate of the custom host names, where the plan has no issuer: a Secret of type kubernetes.io/tls that
    /// carries the annotation helpdesk-operator.io/for-account with this account's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_secret: Option<SecretRef>,
}

/// What a tenant asks for beyond the plan.
#[derive(KubeSchema, Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Security {
    /// Ranges from which agents may come, IPv4 and IPv6; empty: from anywhere the plan allows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(min = 2, max = 43)))]
    #[x_kube(validation = Rule::new("self.all(c, isCIDR(c))").message("agentAllow lists ranges in CIDR notation, such as 198.51.100.0/24 or 2001:db8::/48"))]
    pub agent_allow: Vec<String>,
    /// The lowest TLS version that is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_tls: Option<TlsVersion>,
    /// Whether agents need a second factor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_totp: Option<bool>,
    /// Mutual TLS on the agent panel: the authorities whose client certificates agents must show, as PEM.
    #[serde(default, rename = "agentClientCA", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 65536))]
    #[x_kube(validation = Rule::new("self.startsWith('-----BEGIN CERTIFICATE-----')").message("agentClientCA is one or more certificates in PEM, beginning with -----BEGIN CERTIFICATE-----"))]
    pub agent_client_ca: Option<String>,
}

/// How the owner ends the account.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = Rule::new("self.mode == 'Erase' || !has(self.coldBackup)").message("coldBackup belongs to mode Erase; a cancelled account always keeps its cold backup"))]
pub struct Closure {
    /// `Cancel` terminates now and deletes after the plan's window; `Erase` blocks now and deletes after the plan's
    /// `eraseDelay`, and never reopens.
    pub mode: ClosureMode,
    /// Who asked; kept as evidence until the account has expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 254))]
    #[x_kube(validation = Rule::new(r"!self.matches('[\\x00-\\x1f\\x7f-\\x9f\\x{202a}-\\x{202e}\\x{2066}-\\x{2069}]')").message("requestedBy must not contain control characters or characters that turn the direction of text"))]
    pub requested_by: Option<String>,
    /// With `Erase`: whether the normal cold backup is still kept for its window. Without: nothing is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold_backup: Option<bool>,
}

impl Closure {
    /// Whether a cold backup outlives the database.
    pub fn keeps_backup(&self) -> bool {
        match self.mode {
            ClosureMode::Cancel => true,
            ClosureMode::Erase => self.cold_backup.unwrap_or(true),
        }
    }
}

/// The two ways in which an owner ends an account.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClosureMode {
    /// Terminated now, deleted after the plan's window.
    Cancel,
    /// Blocked now, deleted after the plan's `eraseDelay`.
    Erase,
}

/// What is true of the account now, and what will happen to it next.
#[derive(KubeSchema, Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HelpDeskAccountStatus {
    /// The generation of the spec that the rest of the status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The billing sequence that the rest of the status takes into account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_billing_sequence: Option<i64>,
    /// Where in its life the account is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// Since when everything that the stage demands is enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage_since: Option<Time>,
    /// Why the account is in this stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<super::stage::Reason>,
    /// What comes next if nothing changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_stage: Option<Stage>,
    /// When that comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_transition_time: Option<Time>,
    /// When nothing will be left, neither database nor backup, if nothing changes. Absent where nobody can tell: the time
    /// that was promised has passed, and the condition Overdue says what keeps the data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_gone_by: Option<Time>,
    /// The tenant's main address, once it was published at the plan's Gateway and seen to answer; absent where nothing
    /// is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Every host name of the account, with what is true of it at the gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["host".into()]))]
    pub domains: Vec<DomainStatus>,
    /// What billing says; written by billing and by nobody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billing: Option<Billing>,
    /// The tenant's database.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseRef>,
    /// The tenant's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<NamespaceRef>,
    /// The newest verified backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_backup: Option<LastBackup>,
    /// The proof that nothing is left; present from Expired on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// Ready, DatabaseReady, EdgeReady, BackupsCurrent, BlockEnforced, Held, Overdue, Unprovable, Stalled, Reconciling.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// What is true of one host name.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DomainStatus {
    /// The host name.
    pub host: String,
    /// What it is to the account.
    #[serde(rename = "use")]
    pub used_as: super::DomainUse,
    /// What requests to it get.
    pub state: DomainState,
    /// A sentence for people; says what to do where somebody has to do something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The DNS record that proves a custom name, while it is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenge: Option<Challenge>,
    /// When the certificate of a custom name runs out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_expires_at: Option<Time>,
}

/// What requests to a host name get.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DomainState {
    /// The app.
    Live,
    /// A redirect to the present address.
    Redirecting,
    /// The page that says that the account is suspended.
    Suspended,
    /// Nothing: it waits for something that the message names.
    Withheld,
    /// Nothing: the account has not proved that the name is its own.
    Unproven,
    /// Nothing: the name is another account's, or reserved.
    Refused,
}

/// A DNS record of type TXT that proves that a name is the tenant's own.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Challenge {
    /// The record's name.
    pub record: String,
    /// Its value.
    pub value: String,
}

/// What billing says of the account, in Stripe's words for the state of a subscription.
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
    /// The first failure of this run of failed payments. It counts once: what a later word of the same run says of it
    /// changes nothing, until a payment ends the run. Without one, `since` of the first word is it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delinquent_since: Option<Time>,
    /// Until when the account is paid for: when a Canceled one is blocked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_end: Option<Time>,
    /// Billing's own name of the subscription, such as `sub_1NirD82eZvKYlo2C`. Once a payment named one, what is said of
    /// another changes nothing, until a payment names that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[A-Za-z0-9][-A-Za-z0-9._:/]*$"))]
    pub subscription: Option<String>,
    /// Orders the events of billing; every change needs a higher one, by 1000000 at most.
    #[schemars(range(min = 0))]
    pub sequence: i64,
    /// Starts the sequence anew; raised by a person when billing lost count.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000000))]
    pub epoch: i64,
}

/// The states of a subscription as Stripe names them (API reference, "The Subscription object", `status`).
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BillingState {
    /// In the one trial.
    Trialing,
    /// Paid.
    Active,
    /// The last payment failed and is tried again.
    PastDue,
    /// Every try failed.
    Unpaid,
    /// Ended; access until `periodEnd`.
    Canceled,
    /// The first payment is under way: changes nothing.
    Incomplete,
    /// The first payment never came.
    IncompleteExpired,
    /// The trial ended without a way to pay.
    Paused,
}

impl BillingState {
    /// Whether a payment failed.
    pub const fn is_failing(self) -> bool {
        matches!(self, Self::PastDue | Self::Unpaid)
    }
}

/// Where the tenant's data is.
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
    /// The database's own id: a database of the same name that was made anew has another.
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
    /// Its uid: one of the same name that somebody else made has another, and is left alone.
    pub uid: String,
}

/// A verified backup in short.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastBackup {
    /// The `ColdBackup`.
    pub name: String,
    /// Why it was taken.
    pub reason: super::BackupReason,
    /// When its last byte was stored.
    pub completed_at: Time,
    /// When it was proven by a restore or by decoding every byte.
    pub verified_at: Time,
    /// What it takes in the bucket, in bytes.
    pub bytes: i64,
}

/// Under which authority a database was dropped.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DroppedUnder {
    /// What made the drop lawful.
    pub ground: DropGround,
    /// The `ColdBackup` that was proven, or could not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// When the proven backup's snapshot was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_at: Option<Time>,
    /// What a restore of the proven backup does not make as it was, although every row is in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// Why no backup could be proven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// Who asked not to wait for one any longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<String>,
    /// Who approved that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
}

impl DroppedUnder {
    /// With this ground and nothing else.
    pub const fn by(ground: DropGround) -> Self {
        Self { ground, backup: None, snapshot_at: None, left_out: Vec::new(), because: None, requested_by: None, approved_by: None }
    }
}

/// What makes the drop of a database lawful.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DropGround {
    /// A backup of it was proven and seen to be complete just before.
    VerifiedBackup,
    /// Its owner asked for erasure without a backup.
    OwnerWaiver,
    /// No backup could be proven, and the time by which nothing was to be left had come.
    PromiseElapsed,
    /// No backup could be proven, and two people agreed not to wait until that time.
    TwoPeople,
}

/// Proof that nothing of the account is left.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// When the last part was seen to be gone.
    pub issued_at: Time,
    /// What was destroyed and seen to be gone, by kind.
    pub destroyed: BTreeMap<String, i64>,
    /// Empty roles that stay on the database server for now, because others named them in databases of their own. Nobody
    /// can log in as one of them; they are removed once they can be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles_left: Option<i64>,
    /// Under which authority the database was dropped; absent where there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<DroppedUnder>,
    /// By when nothing was to be left, as it was promised first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promised_by: Option<Time>,
    /// What delayed the end, in the words of the condition Overdue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delayed_by: Vec<String>,
    /// SHA-256 over the certificate's facts, as hexadecimal digits.
    pub sha256: String,
    /// Signature of the installation's key over the same facts, in base64 (Ed25519).
    pub signature: String,
    /// What may still hold a copy, and for how long.
    pub note: String,
}
