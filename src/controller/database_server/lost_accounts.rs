//! Lost accounts: they have data on the server and no object any more. They are reported, shut on time, and never dropped.
//!
//! An object is lost when it is deleted without a confirmation, or with its CRD. Then no reconcile takes the account through
//! its stages, and its tenant could keep working for ever. So this module keeps the deadline that is pinned in the ledger:
//! it shuts the logins, and leaves everything else as it is until a new object adopts the data.
//!
//! **Invariant: an incomplete view of the cluster never shuts an account.** The CRD must be established before and after
//! the check, and the list of accounts must be complete. For each account, the API server itself must report that there is
//! no object with its name and `object_uid`.
//!
//! **Invariant: many lost accounts at once are never shut.** If more are lost than the brake allows, a person has to agree,
//! because a CRD that was deleted and installed again looks exactly like this.

use std::{collections::HashSet, time::Duration};

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, CustomResourceExt, ResourceExt,
    core::PartialObjectMeta,
    runtime::{reflector::Store, wait::Condition, wait::conditions::is_crd_established},
};

use crate::{
    api::{
        HelpDeskAccount,
        conditions::{Finding, Type},
        database_server::Brake,
    },
    brake,
    clock::{self, Moment, Trust},
    context::Context,
    database::{ConnectedServer, Error, Tenant},
    ledger::{Entry, OnRoll},
    lifecycle::{self, Stage},
};

/// The metadata of all accounts of the cluster.
pub(super) type Accounts = Store<PartialObjectMeta<HelpDeskAccount>>;

/// How long the whole check may take, so that it never delays the next health check.
const CHECK_TIMEOUT: Duration = Duration::from_secs(25);
/// How many objects are read at once.
const AT_ONCE: usize = 8;

/// The result of a check for lost accounts.
pub(super) struct Check {
    /// The condition `AccountsLost` of the server.
    pub finding: Finding,
    /// How many lost accounts are open, how many are shut, and whether too many are open to shut any.
    pub counts: Option<(i64, i64, bool)>,
    /// When the next lost account is to be shut.
    pub requeue_at: Option<Moment>,
}

/// One lost account.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lost {
    account: String,
    uid: String,
    stage: Stage,
    /// Whether its tenant can log in or has a session.
    open: bool,
    /// When it is to be shut, by its record in the ledger.
    shuts_at: Option<Moment>,
}

/// What is done about lost accounts.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// The accounts with these uids are shut now.
    Shut(Vec<String>),
    /// Too many are open, so none is shut, although some may be due.
    TooMany,
}

/// Decides which of the lost accounts are shut now. Pure.
fn decide(lost: &[Lost], limit: i64, released: bool, now: Moment) -> Decision {
    let open = || lost.iter().filter(|one| one.open);
    if !released && i64::try_from(open().count()).unwrap_or(i64::MAX) > limit {
        return Decision::TooMany;
    }
    Decision::Shut(open().filter(|one| one.shuts_at.is_some_and(|at| at <= now)).map(|one| one.uid.clone()).collect())
}

/// Looks for lost accounts among the accounts of the server's ledger, and shuts those that are due. An error becomes part of
/// the finding, and never fails the reconcile of the server.
pub(super) async fn check(
    ctx: &Context,
    accounts: &Accounts,
    connected: &ConnectedServer,
    roll: &[OnRoll],
    brake: (&Brake, Option<Moment>),
    now: Moment,
) -> Check {
    let unknown = |why: String| Check { finding: Finding::unknown(Type::AccountsLost, "Unknown", why), counts: None, requeue_at: None };
    match tokio::time::timeout(CHECK_TIMEOUT, try_check(ctx, accounts, connected, roll, brake, now)).await {
        Ok(Ok(check)) => check,
        Ok(Err(CheckError::Incomplete(why))) => unknown(why),
        Ok(Err(CheckError::Failed(error))) => unknown(format!("accounts without an object could not be looked for: {error}")),
        Err(_) => unknown(format!("looking for accounts without an object took longer than {} s", CHECK_TIMEOUT.as_secs())),
    }
}

/// Why the check gave no result.
enum CheckError {
    /// The view of the cluster is incomplete, or the clock is doubtful.
    Incomplete(String),
    /// The API server or the database server could not be read.
    Failed(Error),
}

impl<E: Into<Error>> From<E> for CheckError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

async fn try_check(
    ctx: &Context,
    accounts: &Accounts,
    connected: &ConnectedServer,
    roll: &[OnRoll],
    (brake, released_at): (&Brake, Option<Moment>),
    now: Moment,
) -> Result<Check, CheckError> {
    if accounts.wait_until_ready().now_or_never().is_none_or(|ready| ready.is_err()) {
        return Err(CheckError::Incomplete("the list of accounts is not complete yet".into()));
    }
    let objects: HashSet<String> = accounts.state().iter().filter_map(|account| account.uid()).collect();
    let suspects: Vec<_> = roll.iter().filter(|line| line.has_data && !objects.contains(&line.object_uid)).collect();
    if suspects.is_empty() {
        return Ok(Check { finding: to_finding(&[], false, now), counts: Some((0, 0, false)), requeue_at: None });
    }
    let definition = established_crd(ctx).await?;
    let requests: Vec<_> = suspects.iter().map(|line| is_gone(ctx, line)).collect();
    let gone: Vec<bool> = stream::iter(requests).buffered(AT_ONCE).try_collect().await?;
    if established_crd(ctx).await? != definition {
        return Err(CheckError::Incomplete("the definition of accounts was installed anew a moment ago".into()));
    }
    let high_water = connected.ledger.high_water().await?;
    let gone = suspects.iter().zip(gone).filter(|(_, gone)| *gone).map(|(line, _)| *line);
    let requests: Vec<_> = gone.map(|line| read_lost(connected, line)).collect();
    let observed: Vec<Option<(Lost, Moment)>> = stream::iter(requests).buffered(AT_ONCE).try_collect().await?;
    let whose = format!("server {}", connected.name);
    let mut lost = Vec::new();
    for (one, server_time) in observed.into_iter().flatten() {
        if let Trust::Doubtful(why) = clock::compare(now, high_water, &[(&whose, server_time)]) {
            return Err(CheckError::Incomplete(format!("no account without an object is shut: {why}")));
        }
        lost.push(one);
    }
    let limit = brake::limit(brake, connected.ledger.tenants().await?);
    // As for the brake itself, a release is valid for one window.
    let released = released_at.is_some_and(|at| at <= now && at >= now - brake.window.duration());
    let decision = decide(&lost, limit, released, now);
    if let Decision::Shut(due) = &decision {
        for one in lost.iter_mut().filter(|one| due.contains(&one.uid)) {
            one.open = !shut(ctx, connected, &one.uid).await?;
        }
    }
    let too_many = decision == Decision::TooMany;
    let open = lost.iter().filter(|one| one.open).count();
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    Ok(Check {
        counts: Some((count(open), count(lost.len() - open), too_many)),
        requeue_at: lost.iter().filter(|one| one.open && !too_many).filter_map(|one| one.shuts_at).min(),
        finding: to_finding(&lost, too_many, now),
    })
}

/// The uid of the accounts' CRD, if it is established.
async fn established_crd(ctx: &Context) -> Result<String, CheckError> {
    let definitions: Api<CustomResourceDefinition> = Api::all(ctx.client.clone());
    let name = HelpDeskAccount::crd_name();
    let found = definitions.get_opt(name).await.map_err(|e| unreadable(name, e))?;
    let found = found.filter(|definition| definition.metadata.deletion_timestamp.is_none());
    let uid = found.filter(|definition| is_crd_established().matches_object(Some(definition))).and_then(|definition| definition.uid());
    uid.ok_or_else(|| CheckError::Incomplete(format!("the definition {name} is not established, so no account counts as lost")))
}

/// Whether the API server has no object with the account's name and `object_uid`.
async fn is_gone(ctx: &Context, line: &OnRoll) -> Result<bool, Error> {
    let api: Api<HelpDeskAccount> = Api::all(ctx.client.clone());
    let found = api.get_metadata_opt(&line.account).await.map_err(|e| unreadable(&line.account, e))?;
    Ok(found.is_none_or(|object| object.uid().as_ref() != Some(&line.object_uid)))
}

/// Reads one account without an object, and the server's clock; `None`: the account was adopted or is gone meanwhile.
async fn read_lost(connected: &ConnectedServer, line: &OnRoll) -> Result<Option<(Lost, Moment)>, Error> {
    let Some(entry) = connected.ledger.load(&line.uid).await?.filter(|entry| entry.object_uid == line.object_uid) else { return Ok(None) };
    let observed = connected.driver.observe(&Tenant::of(&entry.uid)?).await?;
    let open =
        entry.database.is_some() && observed.database.is_some() && !observed.foreign && (observed.can_login || observed.sessions > 0);
    let Entry { account, uid, record, .. } = entry;
    Ok(Some((Lost { account, uid, stage: record.stage, open, shuts_at: lifecycle::shuts_at(&record) }, observed.now)))
}

/// Shuts one lost account. `true` once it has no session.
async fn shut(ctx: &Context, connected: &ConnectedServer, uid: &str) -> Result<bool, Error> {
    let Some(entry) = connected.ledger.load(uid).await? else { return Ok(false) };
    // An object that adopts the account at this moment updates the entry too. One of the two updates then fails with a
    // conflict.
    let epoch = Entry { access_epoch: entry.access_epoch + 1, ..entry.clone() };
    match connected.ledger.update(&epoch, entry.revision).await {
        Err(error) if error.is_conflict() => return Ok(false),
        written => written?,
    };
    let left = ctx.telemetry.measure("database", "suspend", connected.driver.suspend(&Tenant::of(uid)?)).await?;
    tracing::warn!(
        account = entry.account,
        server = connected.name,
        sessions_left = left.sessions_left,
        "shut an account that has no object"
    );
    Ok(left.sessions_left == 0)
}

fn to_finding(lost: &[Lost], too_many: bool, now: Moment) -> Finding {
    if lost.is_empty() {
        return Finding::no(Type::AccountsLost, "NoneLost", "an object speaks for every account with data on this server");
    }
    let one = |lost: &Lost| {
        let when = match (lost.open, lost.shuts_at) {
            (false, _) => "shut".to_owned(),
            (true, Some(at)) if at <= now => format!("open although it was to be shut at {at}"),
            (true, Some(at)) => format!("open until {at}"),
            (true, None) => "open: nothing in the ledger shuts it".to_owned(),
        };
        format!("{} ({}, uid {}, {when})", lost.account, lost.stage.name(), lost.uid)
    };
    let all = lost.iter().map(one).collect::<Vec<_>>().join(", ");
    if too_many {
        let text = format!(
            "{} accounts without an object are open, more than the brake lets go at once, so none of them is shut: if their objects are \
             really gone, annotate this DatabaseServer with helpdesk-operator.io/release-brake and the present time: {all}",
            lost.iter().filter(|one| one.open).count()
        );
        return Finding::yes(Type::AccountsLost, "TooManyLost", text);
    }
    let text = format!("no object speaks for these accounts; nothing of them is dropped; apply their manifests again to adopt them: {all}");
    Finding::yes(Type::AccountsLost, "Lost", text)
}

pub(super) fn unreadable(what: &str, source: kube::Error) -> Error {
    Error::ReadObject { what: what.to_owned(), source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Moment {
        text.parse().unwrap()
    }

    fn lost(uid: &str, open: bool, shuts_at: Option<&str>) -> Lost {
        Lost { account: format!("account-{uid}"), uid: uid.into(), stage: Stage::Trial, open, shuts_at: shuts_at.map(at) }
    }

    const NOW: &str = "2026-11-23T10:00:00Z";

    #[test]
    fn a_lost_account_is_shut_by_the_ledgers_deadline_and_one_that_pays_never() {
        let all = [
            lost("due", true, Some("2026-11-23T10:00:00Z")),
            lost("later", true, Some("2026-11-23T10:00:01Z")),
            lost("pays", true, None),
            lost("shut", false, Some("2026-11-22T10:00:00Z")),
        ];
        assert_eq!(decide(&all, 5, false, at(NOW)), Decision::Shut(vec!["due".into()]));
    }

    #[test]
    fn more_lost_accounts_than_the_brake_lets_go_shut_nobody_until_a_person_agrees() {
        let mut all: Vec<_> = (0..6).map(|n| lost(&n.to_string(), true, (n == 0).then_some("2026-11-23T09:00:00Z"))).collect();
        assert_eq!(decide(&all, 5, false, at(NOW)), Decision::TooMany);
        assert_eq!(decide(&all, 5, true, at(NOW)), Decision::Shut(vec!["0".into()]));
        // Those that are shut already were lost before.
        all[5].open = false;
        assert_eq!(decide(&all, 5, false, at(NOW)), Decision::Shut(vec!["0".into()]));
    }

    #[test]
    fn what_is_lost_is_told_by_name_with_its_deadline() {
        let all = [lost("a", true, Some("2026-11-24T10:00:00Z")), lost("b", true, Some("2026-11-22T10:00:00Z")), lost("c", false, None)];
        let finding = to_finding(&all, false, at(NOW));
        assert!(finding.message.ends_with(
            "account-a (Trial, uid a, open until 2026-11-24T10:00:00Z), account-b (Trial, uid b, open although it was to be shut at \
             2026-11-22T10:00:00Z), account-c (Trial, uid c, shut)"
        ));
        assert_eq!((to_finding(&all, true, at(NOW)).reason.as_str(), to_finding(&[], false, at(NOW)).holds), ("TooManyLost", Some(false)));
    }
}
