//! Accounts that have data and no object any more: named, shut on time, never dropped.
//!
//! An object is lost when it is deleted without a confirmation, or with its definition. Nobody takes such an account
//! through its stages then, and its tenant would work on for ever. So the deadline that the ledger has pinned is kept
//! here: the logins are shut, and everything else stays as it is until somebody adopts the data.
//!
//! **Invariant: a view of the cluster that is not complete shuts nobody.** The definition has to be established before
//! and after the look, the list of accounts complete, and the API server itself has to say of each account that there
//! is no object of its name with the uid that speaks for it.
//!
//! **Invariant: many lost accounts at once shut nobody.** More of them than the brake lets go wait for a person, as a
//! definition that was installed anew looks exactly like this.

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

/// The accounts of the cluster, without what is in them.
pub(super) type Accounts = Store<PartialObjectMeta<HelpDeskAccount>>;

/// How long the whole look may take; it never delays the next one.
const PATIENCE: Duration = Duration::from_secs(25);
/// How many objects are asked for at once.
const AT_ONCE: usize = 8;

/// What was seen of lost accounts.
pub(super) struct Look {
    /// For the condition of the server.
    pub finding: Finding,
    /// How many still get in, how many do not, and whether too many do to shut any.
    pub counts: Option<(i64, i64, bool)>,
    /// When the next one is to be shut.
    pub wake_at: Option<Moment>,
}

/// One lost account.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lost {
    account: String,
    uid: String,
    stage: Stage,
    /// Whether its tenant gets in, or is in.
    open: bool,
    /// When the ledger has it shut.
    shuts_at: Option<Moment>,
}

/// What is done about lost accounts.
#[derive(Debug, PartialEq, Eq)]
enum Course {
    /// These are shut now, by their uids.
    Shut(Vec<String>),
    /// None is, although some may be due.
    TooMany,
}

/// Which of the lost accounts are shut now. Pure.
fn course(lost: &[Lost], limit: i64, released: bool, now: Moment) -> Course {
    let open = || lost.iter().filter(|one| one.open);
    if !released && i64::try_from(open().count()).unwrap_or(i64::MAX) > limit {
        return Course::TooMany;
    }
    Course::Shut(open().filter(|one| one.shuts_at.is_some_and(|at| at <= now)).map(|one| one.uid.clone()).collect())
}

/// Looks for lost accounts by the server's roll and shuts those that are due. What goes wrong is told and delays nothing
/// else of the server's look.
pub(super) async fn look(
    ctx: &Context,
    accounts: &Accounts,
    connected: &ConnectedServer,
    roll: &[OnRoll],
    terms: (&Brake, Option<Moment>),
    now: Moment,
) -> Look {
    let unknown = |why: String| Look { finding: Finding::unknown(Type::AccountsLost, "Unknown", why), counts: None, wake_at: None };
    match tokio::time::timeout(PATIENCE, look_into(ctx, accounts, connected, roll, terms, now)).await {
        Ok(Ok(look)) => look,
        Ok(Err(Trouble::Unsure(why))) => unknown(why),
        Ok(Err(Trouble::Failed(error))) => unknown(format!("accounts without an object could not be looked for: {error}")),
        Err(_) => unknown(format!("looking for accounts without an object took longer than {} s", PATIENCE.as_secs())),
    }
}

/// Why nothing is known of lost accounts.
enum Trouble {
    /// The view of the cluster is not complete.
    Unsure(String),
    /// Somebody could not be asked.
    Failed(Error),
}

impl<E: Into<Error>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

async fn look_into(
    ctx: &Context,
    accounts: &Accounts,
    connected: &ConnectedServer,
    roll: &[OnRoll],
    (terms, released_at): (&Brake, Option<Moment>),
    now: Moment,
) -> Result<Look, Trouble> {
    if accounts.wait_until_ready().now_or_never().is_none_or(|ready| ready.is_err()) {
        return Err(Trouble::Unsure("the list of accounts is not complete yet".into()));
    }
    let here: HashSet<String> = accounts.state().iter().filter_map(|account| account.uid()).collect();
    let suspects: Vec<_> = roll.iter().filter(|line| line.has_data && !here.contains(&line.object_uid)).collect();
    if suspects.is_empty() {
        return Ok(Look { finding: told(&[], false, now), counts: Some((0, 0, false)), wake_at: None });
    }
    let definition = established(ctx).await?;
    let asked: Vec<_> = suspects.iter().map(|line| is_gone(ctx, line)).collect();
    let gone: Vec<bool> = stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
    if established(ctx).await? != definition {
        return Err(Trouble::Unsure("the definition of accounts was installed anew a moment ago".into()));
    }
    let high_water = connected.ledger.high_water().await?;
    let gone = suspects.iter().zip(gone).filter(|(_, gone)| *gone).map(|(line, _)| *line);
    let looks: Vec<_> = gone.map(|line| one(connected, line)).collect();
    let seen: Vec<Option<(Lost, Moment)>> = stream::iter(looks).buffered(AT_ONCE).try_collect().await?;
    let whose = format!("server {}", connected.name);
    let mut lost = Vec::new();
    for (one, its_clock) in seen.into_iter().flatten() {
        if let Trust::Doubtful(why) = clock::compare(now, high_water, &[(&whose, its_clock)]) {
            return Err(Trouble::Unsure(format!("no account without an object is shut: {why}")));
        }
        lost.push(one);
    }
    let limit = brake::limit(terms, connected.ledger.tenants().await?);
    // A release counts for the brake's window, as it does for the brake.
    let released = released_at.is_some_and(|at| at <= now && at >= now - terms.window.duration());
    let course = course(&lost, limit, released, now);
    if let Course::Shut(due) = &course {
        for one in lost.iter_mut().filter(|one| due.contains(&one.uid)) {
            one.open = !shut(ctx, connected, &one.uid).await?;
        }
    }
    let too_many = course == Course::TooMany;
    let open = lost.iter().filter(|one| one.open).count();
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    Ok(Look {
        counts: Some((count(open), count(lost.len() - open), too_many)),
        wake_at: lost.iter().filter(|one| one.open && !too_many).filter_map(|one| one.shuts_at).min(),
        finding: told(&lost, too_many, now),
    })
}

/// The uid of the definition of accounts, if it is established.
async fn established(ctx: &Context) -> Result<String, Trouble> {
    let definitions: Api<CustomResourceDefinition> = Api::all(ctx.client.clone());
    let name = HelpDeskAccount::crd_name();
    let found = definitions.get_opt(name).await.map_err(|e| unreadable(name, e))?;
    let found = found.filter(|definition| definition.metadata.deletion_timestamp.is_none());
    let uid = found.filter(|definition| is_crd_established().matches_object(Some(definition))).and_then(|definition| definition.uid());
    uid.ok_or_else(|| Trouble::Unsure(format!("the definition {name} is not established, so no account counts as lost")))
}

/// Whether the API server says that no object of the account's name has the uid that speaks for it.
async fn is_gone(ctx: &Context, line: &OnRoll) -> Result<bool, Error> {
    let api: Api<HelpDeskAccount> = Api::all(ctx.client.clone());
    let found = api.get_metadata_opt(&line.account).await.map_err(|e| unreadable(&line.account, e))?;
    Ok(found.is_none_or(|object| object.uid().as_ref() != Some(&line.object_uid)))
}

/// One account without an object, with the server's clock; `None`: an object speaks for it after all.
async fn one(connected: &ConnectedServer, line: &OnRoll) -> Result<Option<(Lost, Moment)>, Error> {
    let Some(entry) = connected.ledger.load(&line.uid).await?.filter(|entry| entry.object_uid == line.object_uid) else { return Ok(None) };
    let seen = connected.driver.observe(&Tenant::of(&entry.uid)?).await?;
    let open = entry.database.is_some() && seen.database.is_some() && !seen.foreign && (seen.can_login || seen.sessions > 0);
    let Entry { account, uid, record, .. } = entry;
    Ok(Some((Lost { account, uid, stage: record.stage, open, shuts_at: lifecycle::shuts_at(&record) }, seen.now)))
}

/// Shuts one lost account. `true` once nobody is in.
async fn shut(ctx: &Context, connected: &ConnectedServer, uid: &str) -> Result<bool, Error> {
    let Some(entry) = connected.ledger.load(uid).await? else { return Ok(false) };
    // Whoever adopts it at this moment writes the entry too, and one of the two is told that it was changed.
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

fn told(lost: &[Lost], too_many: bool, now: Moment) -> Finding {
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
        assert_eq!(course(&all, 5, false, at(NOW)), Course::Shut(vec!["due".into()]));
    }

    #[test]
    fn more_lost_accounts_than_the_brake_lets_go_shut_nobody_until_a_person_agrees() {
        let mut all: Vec<_> = (0..6).map(|n| lost(&n.to_string(), true, (n == 0).then_some("2026-11-23T09:00:00Z"))).collect();
        assert_eq!(course(&all, 5, false, at(NOW)), Course::TooMany);
        assert_eq!(course(&all, 5, true, at(NOW)), Course::Shut(vec!["0".into()]));
        // Those that are shut already were lost before.
        all[5].open = false;
        assert_eq!(course(&all, 5, false, at(NOW)), Course::Shut(vec!["0".into()]));
    }

    #[test]
    fn what_is_lost_is_told_by_name_with_its_deadline() {
        let all = [lost("a", true, Some("2026-11-24T10:00:00Z")), lost("b", true, Some("2026-11-22T10:00:00Z")), lost("c", false, None)];
        let finding = told(&all, false, at(NOW));
        assert!(finding.message.ends_with(
            "account-a (Trial, uid a, open until 2026-11-24T10:00:00Z), account-b (Trial, uid b, open although it was to be shut at \
             2026-11-22T10:00:00Z), account-c (Trial, uid c, shut)"
        ));
        assert_eq!((told(&all, true, at(NOW)).reason.as_str(), told(&[], false, at(NOW)).holds), ("TooManyLost", Some(false)));
    }
}
