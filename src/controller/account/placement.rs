//! Finds the server and the ledger entry of an account, or assigns a new account to a server.

use std::sync::Arc;

use futures::future::join_all;
use kube::{Api, Resource, ResourceExt, runtime::events::EventType};

use super::{
    context::AccountContext,
    error::Error,
    owner,
    placement_rules::{self, Claim, Newcomer, Silent},
};
use crate::cluster::During;
use crate::controller::placement::Placement;
use crate::{
    api::{ADOPT, DatabaseServer, HelpDeskAccount, HelpDeskPlan, plan::PlanPlacement},
    clock::Moment,
    database::{self, ConnectedServer},
    ledger::Entry,
    lifecycle::Record,
};

/// Finds the server that holds the account, or assigns a new account to a server. An account may take over the data
/// of a deleted account object.
pub(super) async fn find_or_assign(ctx: &AccountContext, account: &HelpDeskAccount, now: Moment) -> Result<Placement, Error> {
    let uid = account.uid().ok_or(Error::Incomplete("uid"))?;
    let shown = account.status.as_ref().and_then(|s| s.database.as_ref()).map(|d| d.server.clone());
    if let Some(name) = &shown {
        let server = ctx.servers.get(name).await?;
        if let Some(entry) = server.ledger.load_by_object(&uid).await? {
            return Ok(Placement::of(server, entry)?);
        }
    }
    // Without a status, every server of the region is asked before a new database may be made anywhere.
    let answers = match ask_servers(ctx, account, &uid).await {
        Lookup::Found(server, entry) => return Ok(Placement::of(server, *entry)?),
        Lookup::NotFound(answers) => answers,
    };
    let name = account.name_any();
    let newcomer = Newcomer {
        name: &name,
        account_id: account.spec.account_id.as_deref(),
        adopts: account.annotations().get(ADOPT).map(String::as_str).filter(|value| !value.is_empty()),
        created_at: account.creation_timestamp().map_or(Moment::UNIX_EPOCH, |at| at.0),
        has_forerunner: has_forerunner(ctx, &name, &uid),
    };
    for (server, error) in &answers.silent {
        let holds = ctx.servers.holds(server);
        let silent = Silent { holds: holds.as_deref(), tried: ctx.attempts.tried(server, &marks(account, &uid)) };
        if let Some(why) = placement_rules::may_hold(&newcomer, &silent, ctx.led_since) {
            return Err(Error::ServerAway { server: server.clone(), why, source: Box::new(error.clone()) });
        }
    }
    if account.meta().deletion_timestamp.is_some() {
        return Err(Error::NeverPlaced);
    }
    let entries: Vec<Entry> = answers.others.iter().map(|(_, entry)| entry.clone()).collect();
    let server_of = |entry: &Entry| answers.others.iter().find(|(_, other)| other.uid == entry.uid).map(|(server, _)| server.clone());
    match (placement_rules::claim(&newcomer, &entries), shown) {
        (Claim::Data(entry), _) => match server_of(entry) {
            Some(server) => adopt(ctx, account, server, entry).await,
            None => Err(Error::Incomplete("server")),
        },
        // The status names a server: the account has data there, so a new database is never created for it.
        (_, Some(server)) => Err(Error::LostEntry { server }),
        (Claim::Undecided(entry), None) => {
            let server = server_of(entry).map(|server| server.name.clone()).unwrap_or_default();
            Err(Error::NeedsAdoption { server, uid: entry.uid.clone() })
        }
        (Claim::Refused(why), None) => Err(Error::NotAdopted(why)),
        (Claim::Nothing, None) => place(ctx, account, &uid, &answers, now).await,
    }
}

/// The result of asking the servers of a region for the entry of an account object.
enum Lookup {
    /// A server has the entry of this object.
    Found(Arc<ConnectedServer>, Box<Entry>),
    /// No server that answered has one.
    NotFound(Answers),
}

/// The answers of the servers of a region, none of which has an entry of the account object.
#[derive(Default)]
struct Answers {
    /// The servers that answered.
    answered: Vec<(Arc<DatabaseServer>, Arc<ConnectedServer>)>,
    /// The servers that did not answer, and why.
    silent: Vec<(String, database::Error)>,
    /// Entries of other objects under the same name, the same accountID, or the uid that a person names.
    others: Vec<(Arc<ConnectedServer>, Entry)>,
}

/// Asks every server of the region at the same time, so that the wait is only as long as that for the slowest server.
async fn ask_servers(ctx: &AccountContext, account: &HelpDeskAccount, uid: &str) -> Lookup {
    let candidates = in_region(ctx, &account.spec.region);
    let results = join_all(candidates.iter().map(async |candidate| ask_one(ctx, account, uid, &candidate.name_any()).await)).await;
    let mut answers = Answers::default();
    for (candidate, result) in candidates.into_iter().zip(results) {
        match result {
            Ok((server, Some(entry), _)) => return Lookup::Found(server, Box::new(entry)),
            Ok((server, None, others)) => {
                answers.others.extend(others.into_iter().map(|entry| (server.clone(), entry)));
                answers.answered.push((candidate, server));
            }
            Err(error) => answers.silent.push((candidate.name_any(), error)),
        }
    }
    Lookup::NotFound(answers)
}

/// Asks one server for the entry of this account object. If the server has none, also returns the entries of other
/// objects that the account might take over.
async fn ask_one(
    ctx: &AccountContext,
    account: &HelpDeskAccount,
    uid: &str,
    server: &str,
) -> Result<(Arc<ConnectedServer>, Option<Entry>, Vec<Entry>), database::Error> {
    let server = ctx.servers.get(server).await?;
    if let Some(entry) = server.ledger.load_by_object(uid).await? {
        return Ok((server, Some(entry), vec![]));
    }
    let mut others = server.ledger.load_by_name(&account.name_any()).await?;
    if let Some(account_id) = &account.spec.account_id {
        others.extend(server.ledger.load_by_account_id(account_id).await?);
    }
    if let Some(named) = account.annotations().get(ADOPT) {
        others.extend(server.ledger.load(named).await?);
    }
    others.sort_by(|a, b| a.uid.cmp(&b.uid));
    others.dedup_by(|a, b| a.uid == b.uid);
    Ok((server, None, others))
}

/// Whether the cluster has a DomainClaim or a ColdBackup of an account with this name and another uid.
fn has_forerunner(ctx: &AccountContext, name: &str, uid: &str) -> bool {
    let is_former = |account: &str, of: &str| account == name && of != uid;
    ctx.caches.claims.state().iter().any(|c| c.spec.reserved_until.is_none() && is_former(&c.spec.account, &c.spec.account_uid))
        || ctx.caches.backups.of_account(name).iter().any(|b| b.spec.account_uid != uid)
}

/// Assigns the entry of a deleted account object to this object. All pinned deadlines stay. Stages that came due
/// meanwhile are decided by the next reconciles, one stage each.
async fn adopt(ctx: &AccountContext, account: &HelpDeskAccount, server: Arc<ConnectedServer>, entry: &Entry) -> Result<Placement, Error> {
    let uid = account.uid().ok_or(Error::Incomplete("uid"))?;
    // The API server has one object of a name. If that is this object, the other one is deleted, whatever a cache says.
    let api: Api<HelpDeskAccount> = Api::all(ctx.client.clone());
    let live = api.get_metadata_opt(&account.name_any()).await.during("read the account")?;
    if live.and_then(|object| object.uid()).as_ref() != Some(&uid) {
        return Err(Error::Replaced);
    }
    let adopted = Entry {
        object_uid: uid,
        account_id: account.spec.account_id.clone().or_else(|| entry.account_id.clone()),
        shard: ctx.settings.shard.clone(),
        ..entry.clone()
    };
    let entry = server.ledger.update(&adopted, entry.revision).await?;
    tracing::warn!(server = server.name, uid = entry.uid, before = adopted.uid, "an account took over the data that another object left");
    let note =
        format!("took over the data of uid {} on server {}; its stage goes on from {}", entry.uid, server.name, entry.record.stage.name());
    ctx.publish(&account.object_ref(&()), EventType::Normal, "Adopted", &note, "Adopt").await;
    Ok(Placement { was_adopted: true, ..Placement::of(server, entry)? })
}

/// Chooses a server for a new account, and creates its entry in the ledger there.
async fn place(ctx: &AccountContext, account: &HelpDeskAccount, uid: &str, answers: &Answers, now: Moment) -> Result<Placement, Error> {
    let server = choose(ctx, account, answers).await?;
    let fresh = Entry::new(uid, &account.name_any(), Record::created(now));
    let fresh = Entry {
        account_id: account.spec.account_id.clone(),
        shard: ctx.settings.shard.clone(),
        owner_hash: Some(ctx.installation.keyed_hash(&owner::read(ctx, account).await?.email)),
        ..fresh
    };
    ctx.attempts.try_at(&server.name, marks(account, uid));
    let entry = server.ledger.insert(&fresh).await?;
    tracing::info!(server = server.name, "a new account was given a home");
    Ok(Placement::of(server, entry)?)
}

/// The keys under which an entry is found again: the object's uid, the account's name, its accountID.
fn marks(account: &HelpDeskAccount, uid: &str) -> Vec<String> {
    [Some(uid.to_owned()), Some(account.name_any()), account.spec.account_id.clone()].into_iter().flatten().collect()
}

fn in_region(ctx: &AccountContext, region: &str) -> Vec<Arc<DatabaseServer>> {
    let mut servers: Vec<_> = ctx.caches.servers.state().into_iter().filter(|s| s.spec.region == region).collect();
    servers.sort_by_key(|s| s.name_any());
    servers
}

/// The server of the region with the fewest tenants, of those that have room and are not draining.
async fn choose(ctx: &AccountContext, account: &HelpDeskAccount, answers: &Answers) -> Result<Arc<ConnectedServer>, Error> {
    let plan = plan(ctx, account)?;
    placement(&plan, account)?;
    let region = &account.spec.region;
    if answers.answered.is_empty() && answers.silent.is_empty() {
        return Err(Error::Placement(format!("spec.region: no DatabaseServer is in region {region}; create one, or correct the region")));
    }
    let mut best: Option<(i64, Arc<ConnectedServer>)> = None;
    let mut refused = String::new();
    for (server, error) in &answers.silent {
        refused = format!("{refused}; {server}: {error}");
    }
    for (candidate, server) in &answers.answered {
        // Without a backup an account could never be deleted, so a server whose version the movers cannot dump gets none.
        if let Some(refusal) = ctx.settings.clients.refusal(server.identity.major) {
            refused = format!("{refused}; {}: {refusal}", server.name);
            continue;
        }
        let tenants = server.ledger.tenants().await?;
        let has_room =
            tenants < i64::from(candidate.spec.capacity) && !candidate.spec.draining && candidate.spec.engine == plan.spec.database.engine;
        if has_room && best.as_ref().is_none_or(|(fewest, _)| tenants < *fewest) {
            best = Some((tenants, server.clone()));
        }
    }
    best.map(|(_, server)| server).ok_or_else(|| {
        Error::Placement(format!(
            "no DatabaseServer of region {region} has room for another tenant: raise spec.capacity, end draining, or add a server{refused}"
        ))
    })
}

/// The account's plan.
pub(super) fn plan(ctx: &AccountContext, account: &HelpDeskAccount) -> Result<Arc<HelpDeskPlan>, Error> {
    let name = &account.spec.plan;
    ctx.caches
        .plans
        .get(&kube::runtime::reflector::ObjectRef::new(name))
        .ok_or_else(|| Error::Placement(format!("spec.plan: there is no HelpDeskPlan {name}; create it, or correct the name")))
}

/// The plan's placement in the account's region.
pub(super) fn placement<'a>(plan: &'a HelpDeskPlan, account: &HelpDeskAccount) -> Result<&'a PlanPlacement, Error> {
    let region = &account.spec.region;
    plan.spec.placements.iter().find(|p| p.region == *region).ok_or_else(|| {
        Error::Placement(format!(
            "spec.region: the plan {} has no placement in region {region}; add one to the plan, or correct the region",
            account.spec.plan
        ))
    })
}
