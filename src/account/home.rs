//! Where an account lives: the server and the entry in its ledger.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Resource, ResourceExt};

use super::{
    desk::Desk,
    error::{During, Error},
};
use crate::{
    api::{DatabaseServer, HelpDeskAccount, HelpDeskPlan, plan::Placement},
    clock::Moment,
    database::{Connected, Tenant},
    ledger::Entry,
    lifecycle::Record,
};

/// Where an account lives.
pub(super) struct Home {
    /// Its server.
    pub server: Arc<Connected>,
    /// Its names there.
    pub tenant: Tenant,
    /// What the ledger remembers.
    pub entry: Entry,
}

/// Finds the account's home, or gives a new account one.
pub(super) async fn find(desk: &Desk, account: &HelpDeskAccount, now: Moment) -> Result<Home, Error> {
    let uid = account.uid().ok_or(Error::Incomplete("uid"))?;
    let tenant = Tenant::of(&uid)?;
    if let Some(database) = account.status.as_ref().and_then(|s| s.database.as_ref()) {
        let server = desk.servers.get(&database.server).await?;
        let entry = server.ledger.load_by_object(&uid).await?.ok_or_else(|| Error::LostEntry { server: database.server.clone() })?;
        return Ok(Home { server, tenant, entry });
    }
    // Without a status, every server of the region is asked before a new database may be made anywhere.
    let candidates = in_region(desk, &account.spec.region);
    let mut asked = Vec::with_capacity(candidates.len());
    for candidate in &candidates {
        let server = desk.servers.get(&candidate.name_any()).await?;
        if let Some(entry) = server.ledger.load_by_object(&uid).await? {
            return Ok(Home { server, tenant, entry });
        }
        if let Some(account_id) = &account.spec.account_id
            && let Some(other) = server.ledger.load_by_account_id(account_id).await?.into_iter().next()
        {
            return Err(Error::NeedsAdoption { server: candidate.name_any(), account_id: account_id.clone(), uid: other.uid });
        }
        asked.push(server);
    }
    if account.meta().deletion_timestamp.is_some() {
        return Err(Error::NeverPlaced);
    }
    let server = choose(desk, account, &candidates, asked).await?;
    let fresh = Entry::new(&uid, &account.name_any(), Record::created(now));
    let fresh = Entry {
        account_id: account.spec.account_id.clone(),
        shard: desk.settings.shard.clone(),
        owner_hash: Some(desk.installation.keyed_hash(&owner(desk, account).await?)),
        ..fresh
    };
    let entry = server.ledger.insert(&fresh).await?;
    tracing::info!(server = server.name, "a new account was given a home");
    Ok(Home { server, tenant, entry })
}

fn in_region(desk: &Desk, region: &str) -> Vec<Arc<DatabaseServer>> {
    let mut servers: Vec<_> = desk.caches.servers.state().into_iter().filter(|s| s.spec.region == region).collect();
    servers.sort_by_key(|s| s.name_any());
    servers
}

/// The emptiest server of the region that takes tenants and has room.
async fn choose(
    desk: &Desk,
    account: &HelpDeskAccount,
    candidates: &[Arc<DatabaseServer>],
    asked: Vec<Arc<Connected>>,
) -> Result<Arc<Connected>, Error> {
    let plan = plan(desk, account)?;
    placement(&plan, account)?;
    let region = &account.spec.region;
    if candidates.is_empty() {
        return Err(Error::Placement(format!("spec.region: no DatabaseServer is in region {region}; create one, or correct the region")));
    }
    let mut best: Option<(i64, Arc<Connected>)> = None;
    let mut refused = String::new();
    for (candidate, server) in candidates.iter().zip(asked) {
        // What could never be backed up could never end.
        if let Some(refusal) = desk.settings.clients.refusal(server.identity.major) {
            refused = format!("{refused}; {}: {refusal}", server.name);
            continue;
        }
        let tenants = server.ledger.tenants().await?;
        let has_room =
            tenants < i64::from(candidate.spec.capacity) && !candidate.spec.draining && candidate.spec.engine == plan.spec.database.engine;
        if has_room && best.as_ref().is_none_or(|(fewest, _)| tenants < *fewest) {
            best = Some((tenants, server));
        }
    }
    best.map(|(_, server)| server).ok_or_else(|| {
        Error::Placement(format!(
            "no DatabaseServer of region {region} has room for another tenant: raise spec.capacity, end draining, or add a server{refused}"
        ))
    })
}

/// The account's plan.
pub(super) fn plan(desk: &Desk, account: &HelpDeskAccount) -> Result<Arc<HelpDeskPlan>, Error> {
    let name = &account.spec.plan;
    desk.caches
        .plans
        .get(&kube::runtime::reflector::ObjectRef::new(name))
        .ok_or_else(|| Error::Placement(format!("spec.plan: there is no HelpDeskPlan {name}; create it, or correct the name")))
}

/// The plan's placement in the account's region.
pub(super) fn placement<'a>(plan: &'a HelpDeskPlan, account: &HelpDeskAccount) -> Result<&'a Placement, Error> {
    let region = &account.spec.region;
    plan.spec.placements.iter().find(|p| p.region == *region).ok_or_else(|| {
        Error::Placement(format!(
            "spec.region: the plan {} has no placement in region {region}; add one to the plan, or correct the region",
            account.spec.plan
        ))
    })
}

/// The owner's mail address, wherever it is written.
async fn owner(desk: &Desk, account: &HelpDeskAccount) -> Result<String, Error> {
    let owner = &account.spec.owner;
    let Some(reference) = &owner.secret_ref else {
        return owner.email.clone().ok_or_else(|| Error::Owner("spec.owner: name the owner by secretRef or by name and email".into()));
    };
    let at = format!("spec.owner.secretRef: Secret {}/{}", reference.namespace, reference.name);
    let secrets: Api<Secret> = Api::namespaced(desk.client.clone(), &reference.namespace);
    let secret = secrets.get_opt(&reference.name).await.during("read the owner's Secret")?;
    let secret = secret.ok_or_else(|| Error::Owner(format!("{at} does not exist; create it with the keys name and email")))?;
    let value = secret.data.as_ref().and_then(|d| d.get("email")).and_then(|v| String::from_utf8(v.0.clone()).ok());
    value.filter(|v| v.contains('@')).ok_or_else(|| Error::Owner(format!("{at} has no key email with a mail address")))
}
