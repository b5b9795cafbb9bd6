//! Writes status, conditions, events and metrics of an account, where they differ.

use k8s_openapi::jiff::SignedDuration;
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{events::EventType, reflector::ObjectRef},
};
use serde_json::json;

use super::{
    context::{AccountContext, FIELD_MANAGER},
    error::Error,
    history,
    observe::Observation,
    outcome::Outcome,
    waiting_for,
};
use crate::cluster::During;
use crate::controller::tenant_secret::TenantSecret;
use crate::error_chain::chain;
use crate::{
    api::{
        BackupPhase, ColdBackup, Condition, DomainUse, HelpDeskAccount, HelpDeskAccountStatus, Time,
        account::{DatabaseRef, DomainState, DomainStatus, EnteringStage, LastBackup, NamespaceRef},
        app_status::AppStatus,
        conditions::{self, Finding, Type},
        mail_status::MailStatus,
    },
    app::{self, dkim::PublicKey, secrets::MAIL_DKIM_KEY},
    clock::{Moment, Trust},
    lifecycle::{Blocker, Frozen, Known, Record, Stage},
};

/// Writes the status if it differs, and publishes events for conditions and stages that changed.
pub(super) async fn report(
    ctx: &AccountContext,
    account: &HelpDeskAccount,
    observed: &Observation,
    outcome: &Outcome,
    now: Moment,
) -> Result<(), Error> {
    let before = account.status.clone().unwrap_or_default();
    let mail = mail(ctx, account, outcome).await.unwrap_or_else(|error| {
        tracing::warn!(account = account.name_any(), error = chain(&error), "the status says of mail what it said before");
        before.mail.clone()
    });
    let history = history::past(ctx, account, outcome).await;
    let mut status = HelpDeskAccountStatus { mail, history, ..build(ctx, account, observed, outcome, &before, now) };
    status.waiting_for = waiting_for::objects(ctx, account, &status);
    status.runbook = waiting_for::runbook(&ctx.settings.runbooks, &status);
    let uid = account.uid().unwrap_or_default();
    let record = &outcome.placement.entry.record;
    ctx.last_records.put(&uid, record.clone());
    let late = outcome.overdue_since.is_some() || entering_since(record, now).is_some();
    ctx.delays.put(&uid, late.then(|| delay(&outcome.blockers)));
    restore_billing(ctx, account, outcome).await?;
    write(ctx, account, &before, &status).await?;
    if before.stage != status.stage
        && let Some(stage) = status.stage
    {
        let reason = outcome.placement.entry.record.reason.name();
        let note = match (&status.next_stage, &status.next_transition_time) {
            (Some(next), Some(at)) => format!("{} ({reason}); {} follows at {}", stage.name(), next.name(), at.0),
            _ => format!("{} ({reason})", stage.name()),
        };
        publish(ctx, account, EventType::Normal, stage.name(), &note, "Enter").await;
    }
    for condition in changed(&before.conditions, &status.conditions) {
        const WARNINGS: [&str; 7] =
            ["RequirementsUnmet", "Stalled", "Overdue", "QuotaExceeded", "ExtensionsMissing", "Unprovable", "CertificateExpires"];
        let warns = WARNINGS.contains(&condition.type_.as_str()) && condition.status == "True";
        // These were published when billing's state was read, once for each state.
        let was_published = matches!(condition.reason.as_str(), "BillingRefused" | "BillingDoubted");
        if (warns && !was_published) || condition.type_ == "Held" {
            let kind = if warns { EventType::Warning } else { EventType::Normal };
            publish(ctx, account, kind, &condition.reason, &condition.message, "Look").await;
        }
    }
    Ok(())
}

/// What delays a step in the metrics: the first reason that is not a hold, because somebody wants the hold.
fn delay(blockers: &[Blocker]) -> &'static str {
    let is_hold = |blocker: &&Blocker| matches!(blocker, Blocker::Hold { .. });
    let other = blockers.iter().filter(|blocker| !is_hold(blocker)).min();
    other.or(blockers.iter().min()).map_or(ENTERING_LATE, Blocker::name)
}

/// The reason of `Overdue` of an account whose closing stage takes long to enter.
const ENTERING_LATE: &str = "Entering";

/// How long entering a closing stage may take before it counts as late.
const ENTERING: SignedDuration = SignedDuration::from_mins(5);

/// Since when a closing stage is being entered, if that takes too long.
fn entering_since(record: &Record, now: Moment) -> Option<Moment> {
    let late = record.enforced_at.is_none() && !record.stage.is_open() && now > record.decided_at + ENTERING;
    late.then_some(record.decided_at)
}

/// Conditions whose status changed, or that are new and `True` or `Unknown`.
pub(super) fn changed<'a>(before: &[Condition], after: &'a [Condition]) -> Vec<&'a Condition> {
    let is_new = |c: &&Condition| match before.iter().find(|b| b.type_ == c.type_) {
        // Each step towards the end of a certificate is another one.
        Some(was) => was.status != c.status || (c.type_ == Type::CertificateExpires.name() && was.reason != c.reason),
        None => c.status != "False",
    };
    after.iter().filter(is_new).collect()
}

fn build(
    ctx: &AccountContext,
    account: &HelpDeskAccount,
    observed: &Observation,
    outcome: &Outcome,
    before: &HelpDeskAccountStatus,
    now: Moment,
) -> HelpDeskAccountStatus {
    let entry = &outcome.placement.entry;
    let record = &entry.record;
    // The status shows a stage once it is enforced. Until then it shows the stage before.
    let shown = match (record.enforced_at, before.stage) {
        (None, Some(stage)) if stage != record.stage => (Some(stage), before.stage_since.clone(), before.reason),
        (since, _) => (Some(record.stage), since.map(Time), Some(record.reason)),
    };
    HelpDeskAccountStatus {
        observed_generation: account.metadata.generation,
        observed_billing_sequence: record.billing.as_ref().map(|b| b.sequence),
        stage: shown.0,
        stage_since: shown.1,
        reason: shown.2,
        entering: record.enforced_at.is_none().then_some(EnteringStage {
            stage: record.stage,
            reason: record.reason,
            since: Time(record.decided_at),
        }),
        next_stage: outcome.next.map(|n| n.stage),
        next_transition_time: outcome.next.map(|n| Time(n.at)),
        upcoming: history::upcoming(observed, outcome, now),
        history: vec![],
        // If this time has passed while data is left, the promise is broken, so the time is not shown.
        data_gone_by: record.data_gone_by.filter(|at| record.stage != Stage::Expired && *at > now).map(Time),
        url: url(outcome, before.url.as_deref()),
        domains: outcome.domains.clone(),
        mail: None,
        app: record
            .class
            .as_ref()
            .filter(|_| record.stage != Stage::Expired)
            .map(|pinned| AppStatus { class: pinned.name.clone(), revision: pinned.revision.clone() }),
        billing: None,
        delinquent_since: record.standing.as_ref().and_then(|standing| standing.failing_since).map(Time),
        database: Some(DatabaseRef {
            server: outcome.placement.server.name.clone(),
            name: outcome.placement.tenant.name.clone(),
            secret: (record.stage < Stage::Terminated).then(|| super::credentials::SECRET.to_owned()),
            oid: entry.database.as_ref().and_then(|d| d.oid),
        }),
        namespace: entry.namespace.as_ref().and_then(|n| Some(NamespaceRef { name: n.name.clone(), uid: n.uid.clone()? })),
        last_backup: observed.backups.iter().filter_map(|b| last_backup(b)).max_by_key(|b| b.verified_at.0),
        certificate: entry.certificate.clone(),
        last_error: None,
        waiting_for: Vec::new(),
        runbook: None,
        conditions: conditions::merge(&before.conditions, &findings(ctx, account, observed, outcome), account.metadata.generation, now),
    }
}

/// The mail addresses of an account that is not terminated, where its class takes mail and the mail intake runs.
async fn mail(ctx: &AccountContext, account: &HelpDeskAccount, outcome: &Outcome) -> Result<Option<MailStatus>, Error> {
    let Some(server) = &ctx.settings.mail_hostname else { return Ok(None) };
    let plan = ctx.caches.plans.get(&ObjectRef::new(&account.spec.plan));
    let class = plan.and_then(|plan| ctx.class_of(&plan, &outcome.placement.entry.record));
    let is_own = |d: &&DomainStatus| d.used_as == DomainUse::Slug && d.state != DomainState::Refused;
    let slug = outcome.domains.iter().find(is_own);
    let lives = outcome.placement.entry.record.stage < Stage::Terminated;
    let class = class.as_ref().and_then(|class| class.mail.as_ref()).filter(|_| lives);
    let (Some(class), Some(slug)) = (class, slug) else { return Ok(None) };
    let key = TenantSecret::of(ctx, &outcome.placement.tenant).value(MAIL_DKIM_KEY).await?;
    let public = key.and_then(|key| PublicKey::of(&key));
    Ok(Some(app::mail::status(class, &slug.host, server, public.as_ref())))
}

fn url(outcome: &Outcome, before: Option<&str>) -> Option<String> {
    let probe_succeeded = outcome.findings.iter().any(|f| f.kind == Type::EdgeReady && f.holds == Some(true));
    published(&outcome.domains, probe_succeeded, before)
}

/// The URL of the slug's host name, from the first successful probe on, for as long as the host name stays published.
fn published(domains: &[DomainStatus], probe_succeeded: bool, before: Option<&str>) -> Option<String> {
    let answers = |d: &&DomainStatus| matches!(d.state, DomainState::Live | DomainState::Suspended);
    let slug = domains.iter().filter(|d| d.used_as == DomainUse::Slug).find(answers)?;
    let url = format!("https://{}", slug.host);
    (probe_succeeded || before == Some(&url)).then_some(url)
}

fn last_backup(backup: &ColdBackup) -> Option<LastBackup> {
    let status = backup.status.as_ref().filter(|s| s.phase == BackupPhase::Verified)?;
    Some(LastBackup {
        name: backup.name_any(),
        reason: backup.spec.reason,
        completed_at: status.completed_at.clone()?,
        verified_at: status.verified_at.clone()?,
        bytes: status.bytes?,
    })
}

fn findings(ctx: &AccountContext, account: &HelpDeskAccount, observed: &Observation, outcome: &Outcome) -> Vec<Finding> {
    let record = &outcome.placement.entry.record;
    let mut findings = vec![ready(account, outcome)];
    findings.extend(outcome.findings.iter().cloned());
    let entering = record.enforced_at.is_none();
    if entering || !outcome.waiting_on.is_empty() {
        let message = if outcome.waiting_on.is_empty() {
            format!("entering {}", record.stage.name())
        } else {
            format!("entering {}: {}", record.stage.name(), outcome.waiting_on.join("; "))
        };
        findings.push(Finding::yes(Type::Reconciling, "Progressing", message));
    }
    if let (Trust::Doubtful(why), Ok(_)) = (&observed.clock, &observed.database) {
        let message = format!("{why}; no deadline is pinned, and nothing is closed or destroyed, until the clock is believed again");
        findings.push(Finding::yes(Type::Stalled, "ClockDoubtful", message));
    }
    if let Some(refused) = &outcome.refused {
        findings.push(Finding::yes(Type::Stalled, "BillingRefused", refused.to_string()));
    } else if let Some(message) = doubted(record) {
        findings.push(Finding::yes(Type::Stalled, "BillingDoubted", message));
    }
    if let Some(message) = unprovable(record) {
        findings.push(Finding::yes(Type::Unprovable, "BackupUnprovable", message.clone()));
        findings.push(Finding::yes(Type::Stalled, "BackupUnprovable", message));
    }
    if let Some(hold) = &account.spec.hold {
        findings.push(Finding::yes(Type::Held, "Hold", format!("nothing is destroyed while the hold is set: {}", hold.reason)));
    } else if let Some(until) = record.notice_until.filter(|until| *until > (ctx.now)()) {
        findings.push(Finding::yes(Type::Held, "Notice", format!("the hold was released; nothing is destroyed before {until}")));
    }
    if let (Some(since), Some(first)) = (outcome.overdue_since, outcome.blockers.iter().min()) {
        let next = outcome.next.map_or("the next step", |n| n.stage.name());
        let mut message = format!("{next} was due at {since} and waits: {}", waits_for(first));
        let erased = observed.frozen(&outcome.placement.entry) == Known::Known(Frozen::Erased);
        if let Some(broken) = broken_promise(record, erased, (ctx.now)()) {
            message.push_str("; ");
            message.push_str(&broken);
        }
        findings.push(Finding::yes(Type::Overdue, first.name(), message));
    } else if let Some(since) = entering_since(record, (ctx.now)()) {
        let waits = if outcome.waiting_on.is_empty() { "it is not enforced yet".to_owned() } else { outcome.waiting_on.join("; ") };
        let message = format!("{} was due at {since} and waits: {waits}", record.stage.name());
        findings.push(Finding::yes(Type::Overdue, ENTERING_LATE, message));
    }
    findings
}

fn ready(account: &HelpDeskAccount, outcome: &Outcome) -> Finding {
    let record = &outcome.placement.entry.record;
    if account.spec.paused {
        return Finding::no(Type::Ready, "Paused", "the operator looks at this account and changes nothing until spec.paused is false");
    }
    if record.enforced_at.is_none() {
        return Finding::no(Type::Ready, "Progressing", format!("entering {}", record.stage.name()));
    }
    // Without an app nothing is behind the addresses, so the app's reason comes first.
    let is_missing = |kind: Type| outcome.findings.iter().find(move |f| f.kind == kind && f.holds != Some(true));
    let missing = is_missing(Type::AppReady).or_else(|| is_missing(Type::EdgeReady));
    match (record.stage, missing) {
        (stage, Some(missing)) if stage.is_open() => Finding::no(Type::Ready, missing.reason.clone(), missing.message.clone()),
        (stage, None) if stage.is_open() => Finding::yes(Type::Ready, "Open", "everything that the stage demands is in place"),
        (Stage::Expired, _) => Finding::yes(
            Type::Ready,
            "Expired",
            "nothing of this account is left; status.certificate is the proof. A payment brings nothing back: create a new account",
        ),
        (stage, _) => Finding::yes(Type::Ready, "Closed", format!("{} is enforced", stage.name())),
    }
}

/// Says what billing has to correct: it sent a state that is older than the payment that counts.
fn doubted(record: &Record) -> Option<String> {
    let standing = record.standing.as_ref()?;
    let doubted = standing.doubted.as_ref()?;
    let paid = standing.paid_since?;
    let counts = doubted.counts_at.map_or_else(|| "once the plan's paymentGrace has passed".to_owned(), |at| format!("at {at}"));
    Some(format!(
        "billing says {:?} since {} (sequence {}), and the payment that counts is of {paid}: this may be the late end of a subscription that was replaced. It counts {counts} unless billing settles it before: Active, with a higher sequence, if the account is paid for; the same state with the time of the present subscription if it has ended",
        doubted.state, doubted.since, doubted.mark.1
    ))
}

fn waits_for(blocker: &Blocker) -> String {
    match blocker {
        Blocker::Hold { until: None } => "a hold is set".into(),
        Blocker::Hold { until: Some(until) } => format!("after a hold there is notice until {until}"),
        Blocker::Unknown(why) | Blocker::Backup(why) => why.clone(),
        Blocker::Brake => "too many accounts are being destroyed at once; if that is right, annotate the DatabaseServer with helpdesk-operator.io/release-brake and the present time".into(),
        Blocker::Paused => "spec.paused is set".into(),
        Blocker::Unprovable { until, why } => format!("no backup can be proven, and until {until} one is waited for: {why}"),
        Blocker::Sessions => "the database is not sealed".into(),
    }
}

/// Says what will happen to an account whose Frozen backup cannot be proven, while its database exists.
fn unprovable(record: &Record) -> Option<String> {
    let unprovable = record.unprovable.as_ref().filter(|_| record.stage.has_database())?;
    let until = record.data_gone_by?;
    let how = match &unprovable.agreed {
        None => format!(
            "the database stays, shut, until dataGoneBy {until} and is dropped then without a proven backup, because the promise to delete it by then has elapsed"
        ),
        Some(agreed) => format!(
            "{} asked and {} approved that the database is dropped, as soon as Deleted is due, without a proven backup and without waiting for dataGoneBy {until}",
            agreed.requested_by, agreed.approved_by
        ),
    };
    Some(format!("no backup of this account can be proven: {how}. An attempt that succeeds before that ends this. {}", unprovable.why))
}

/// Says which data is left and what follows when `dataGoneBy` has passed while the database exists.
fn broken_promise(record: &Record, backup_erased: bool, now: Moment) -> Option<String> {
    let promised = record.data_gone_by.filter(|at| *at <= now && record.stage.has_database())?;
    let gone = if backup_erased { "the Frozen backup reached its deadline and was erased, and the database is all there is; " } else { "" };
    let then = if record.waives_backup() || record.unprovable.is_some() {
        "as soon as nothing delays it the database goes"
    } else {
        "as soon as nothing delays it another backup is taken and proven, the database goes, and that backup is kept for its full window"
    };
    Some(format!("nothing was to be left by {promised}, and that was not kept: {gone}{then}"))
}

/// If the status was wiped, writes billing's part of it again from the ledger. After that only billing writes it.
async fn restore_billing(ctx: &AccountContext, account: &HelpDeskAccount, outcome: &Outcome) -> Result<(), Error> {
    let is_present = account.status.as_ref().is_some_and(|s| s.billing.is_some());
    let Some(billing) = outcome.placement.entry.record.billing.as_ref().filter(|_| !is_present) else { return Ok(()) };
    let api: Api<HelpDeskAccount> = Api::all(ctx.client.clone());
    let patch = json!({"metadata": {"resourceVersion": account.resource_version()}, "status": {"billing": billing}});
    match api.patch_status(&account.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        // 409 Conflict: billing wrote its state meanwhile.
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other.map(drop).during("give billing's state back to the status").map_err(Error::from),
    }
}

pub(super) async fn write(
    ctx: &AccountContext,
    account: &HelpDeskAccount,
    before: &HelpDeskAccountStatus,
    status: &HelpDeskAccountStatus,
) -> Result<(), Error> {
    let uid = account.uid().unwrap_or_default();
    if !ctx.last_statuses.is_news(&uid, &HelpDeskAccountStatus { billing: None, ..before.clone() }, status) {
        return Ok(());
    }
    let api: Api<HelpDeskAccount> = Api::all(ctx.client.clone());
    let applied = json!({
        "apiVersion": HelpDeskAccount::api_version(&()), "kind": HelpDeskAccount::kind(&()),
        "metadata": {"name": account.name_any(), "uid": account.uid()}, "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch_status(&account.name_any(), &params, &Patch::Apply(applied)).await {
        // The object is gone, or another one has its name.
        Err(kube::Error::Api(answer)) if answer.code == 404 || answer.code == 409 => return Ok(()),
        other => other.map(drop).during("write the account's status")?,
    }
    ctx.last_statuses.put(&uid, status);
    Ok(())
}

pub(super) async fn publish(ctx: &AccountContext, account: &HelpDeskAccount, kind: EventType, reason: &str, note: &str, action: &str) {
    ctx.publish(&account.object_ref(&()), kind, reason, note, action).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::{Agreed, Unprovable};

    fn domain(host: &str, used_as: DomainUse, state: DomainState) -> DomainStatus {
        DomainStatus { host: host.into(), used_as, state, message: None, challenge: None, certificate_expires_at: None }
    }

    #[test]
    fn an_address_is_shown_once_it_was_published_and_seen_to_answer() {
        let names = |state| {
            [domain("help.acme.example", DomainUse::Custom, DomainState::Live), domain("acme.desk.example", DomainUse::Slug, state)]
        };
        let url = "https://acme.desk.example";
        assert_eq!(published(&[], true, Some(url)), None, "a plan without a Gateway publishes nothing");
        assert_eq!(published(&names(DomainState::Live), false, None), None, "nobody saw it answer yet");
        assert_eq!(published(&names(DomainState::Live), true, None).as_deref(), Some(url));
        assert_eq!(published(&names(DomainState::Suspended), true, None).as_deref(), Some(url));
        for state in [DomainState::Withheld, DomainState::Refused] {
            assert_eq!(published(&names(state), true, Some(url)), None, "{state:?}");
        }
    }

    fn at(text: &str) -> Moment {
        text.parse().unwrap()
    }

    #[test]
    fn a_hold_is_counted_apart_unless_something_else_delays_too() {
        let hold = Blocker::Hold { until: None };
        assert_eq!(delay(std::slice::from_ref(&hold)), "Held");
        assert_eq!(delay(&[hold, Blocker::Unknown("the clock".into())]), "Unknown");
        assert_eq!(delay(&[]), "Entering");
    }

    #[test]
    fn a_block_that_is_not_enforced_for_minutes_is_late() {
        let mut record = Record::created(at("2026-03-01T00:00:00Z"));
        record.stage = Stage::Blocked;
        assert_eq!(entering_since(&record, at("2026-03-01T00:04:00Z")), None);
        assert_eq!(entering_since(&record, at("2026-03-01T00:06:00Z")), Some(record.decided_at));
        record.enforced_at = Some(at("2026-03-01T00:05:30Z"));
        assert_eq!(entering_since(&record, at("2026-03-01T00:06:00Z")), None);
    }

    #[test]
    fn an_unprovable_account_says_what_will_happen_and_who_wanted_it_sooner() {
        let mut record = Record::created(at("2026-01-01T00:00:00Z"));
        record.stage = Stage::Terminated;
        record.data_gone_by = Some(at("2026-05-01T00:00:00Z"));
        assert_eq!(unprovable(&record), None);
        let due = at("2026-02-01T00:00:00Z");
        record.unprovable =
            Some(Unprovable { due, since: due, reason: "MoverFailed".into(), why: "ColdBackup b: 7 rows and not 8".into(), agreed: None });
        let told = unprovable(&record).unwrap();
        assert!(told.contains("stays, shut, until dataGoneBy 2026-05-01T00:00:00Z and is dropped then without a proven backup"), "{told}");
        assert!(told.ends_with("ColdBackup b: 7 rows and not 8"), "{told}");
        let agreed = Agreed { requested_by: "ana".into(), approved_by: "bob".into(), seen_at: due };
        record.unprovable.as_mut().unwrap().agreed = Some(agreed);
        assert!(unprovable(&record).unwrap().contains("ana asked and bob approved"));
        record.stage = Stage::Deleted;
        assert_eq!(unprovable(&record), None);
    }

    #[test]
    fn a_promise_that_was_not_kept_is_told_with_what_follows() {
        let mut record = Record::created(at("2026-01-01T00:00:00Z"));
        record.stage = Stage::Blocked;
        record.data_gone_by = Some(at("2026-05-01T00:00:00Z"));
        assert_eq!(broken_promise(&record, true, at("2026-04-30T23:59:59Z")), None);
        let told = broken_promise(&record, true, at("2026-05-01T00:00:00Z")).unwrap();
        assert!(
            told.starts_with("nothing was to be left by 2026-05-01T00:00:00Z, and that was not kept: the Frozen backup reached"),
            "{told}"
        );
        assert!(told.contains("another backup is taken and proven"), "{told}");
        assert!(!broken_promise(&record, false, at("2026-05-01T00:00:00Z")).unwrap().contains("erased"));
    }

    #[test]
    fn an_address_that_fails_to_answer_for_a_while_stays_shown() {
        let live = [domain("acme.desk.example", DomainUse::Slug, DomainState::Live)];
        assert_eq!(published(&live, false, Some("https://acme.desk.example")).as_deref(), Some("https://acme.desk.example"));
        assert_eq!(published(&live, false, Some("https://former.desk.example")), None, "another slug is another address");
    }
}
