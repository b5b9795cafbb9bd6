//! The controller of `BackupStore`: whether the bucket can be used, whether it is still the same bucket, which folders are
//! orphaned.
//!
//! A health check every minute. Every ten minutes also a check for orphaned folders, which are reported and never erased.
//! The only write is the marker of a bucket that is taken into use.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    core::PartialObjectMeta,
    runtime::{Controller, PredicateConfig, WatchStreamExt, controller::Action, predicates, reflector::ObjectRef, watcher},
};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::Instant;

use super::Reconciler;
use crate::error_chain::chain;
use crate::{
    api::{
        BackupStore, BackupStoreStatus,
        backup_store::ObjectLock,
        conditions::{self, Finding, Type},
    },
    backup::{folder_of, index::BackupIndex},
    clock::Moment,
    context::{Context, Shared},
    retry::Backoff,
    store::{ConnectedStore, Error, MARKER, Marker, Versioning},
};
use tracing::Span;

/// How often a store is checked.
const HEALTH_INTERVAL: Duration = Duration::from_secs(60);
/// The same for a store that cannot be used: backups may wait for it.
const NOT_READY_INTERVAL: Duration = Duration::from_secs(5);
/// How often orphans are looked for.
const ORPHAN_INTERVAL: Duration = Duration::from_secs(600);
/// The field manager of what this controller applies.
const FIELD_MANAGER: &str = "helpdesk-operator-stores";
/// The folder of escrowed keys.
const KEYS: &str = "keys/";

struct StoreContext {
    shared: Arc<Context>,
    backoff: Backoff,
    /// When orphans were looked for last, by store.
    orphans_checked: Mutex<HashMap<String, Instant>>,
}

impl std::ops::Deref for StoreContext {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.shared
    }
}

impl Reconciler for StoreContext {
    type Object = BackupStore;
    type Error = Error;
    const NAME: &'static str = "a store";
    const CONTROLLER: &'static str = "BackupStore";

    fn span(store: &BackupStore) -> Span {
        tracing::info_span!("store", store = store.name_any())
    }

    fn backoff(&self) -> &Backoff {
        &self.backoff
    }

    fn reason(error: &Error) -> &'static str {
        error.reason()
    }

    async fn reconcile(&self, store: &BackupStore) -> Result<Action, Error> {
        reconcile(self, &store.name_any()).await
    }
}

/// Runs the controller of the BackupStores of this operator's shard.
pub async fn run(ctx: Shared) {
    let (stores, stream) = super::cached(
        &ctx.readiness,
        Api::<BackupStore>::all(ctx.client.clone()),
        watcher::Config::default().labels(&ctx.settings.selector()),
    );
    let stream = stream.applied_objects().predicate_filter(predicates::generation, PredicateConfig::default());
    let secrets = ctx.secrets();
    let known = stores.clone();
    let known_too = stores.clone();
    let named = move |secret: PartialObjectMeta<Secret>| {
        let name = secret.name_any();
        let names = move |store: &BackupStore| {
            let spec = &store.spec;
            spec.credentials_secret == name || [&spec.erase_credentials_secret, &spec.ca_secret].into_iter().flatten().any(|s| *s == name)
        };
        known.state().into_iter().filter(move |s| names(s)).map(|s| ObjectRef::from_obj(&*s)).collect::<Vec<_>>()
    };
    // A store that another begins to use as its escrow has to say so before anybody deletes it.
    let users = ctx
        .readiness
        .watch(Api::<BackupStore>::all(ctx.client.clone()), watcher::Config::default())
        .touched_objects()
        .predicate_filter(predicates::generation, PredicateConfig::default());
    let escrow_of = |store: BackupStore| store.spec.key_escrow.map(|escrow| ObjectRef::<BackupStore>::new(&escrow.store));
    let escrow = move |store: BackupStore| escrow_of(store).filter(|escrow| known_too.get(escrow).is_some());
    let triggers = Controller::for_stream(stream, stores).watches_stream(secrets, named).watches_stream(users, escrow);
    super::run(triggers, Arc::new(StoreContext { shared: ctx, backoff: Backoff::default(), orphans_checked: Mutex::default() })).await;
}

async fn reconcile(ctx: &StoreContext, name: &str) -> Result<Action, Error> {
    let api: Api<BackupStore> = Api::all(ctx.client.clone());
    // Read from the API server, because the identity in status decides whether this is still the same bucket. A cache may
    // have an old one.
    let Some(store) = api.get_opt(name).await.map_err(|e| unreadable(name, e))? else { return Ok(Action::await_change()) };
    // Without a complete list, backups would be missing in the count that guards the store.
    ctx.backups.filled().await;
    let before = store.status.clone().unwrap_or_default();
    let now = (ctx.now)();
    let mut status = BackupStoreStatus { observed_generation: store.metadata.generation, conditions: Vec::new(), ..before.clone() };
    let ready = match ctx.telemetry.measure("store", "check", observe(ctx, &store, &mut status, now)).await {
        Ok(finding) => finding,
        Err(error) => Finding::no(Type::Ready, error.reason(), format!("{}{}", chain(&error), advice(&error))),
    };
    status.conditions = conditions::merge(&before.conditions, std::slice::from_ref(&ready), store.metadata.generation, now);
    if status != before {
        write(&api, &store, &status).await?;
        if !before.conditions.iter().any(|c| c.type_ == Type::Ready.name() && c.reason == ready.reason) {
            ctx.publish_readiness(&store.object_ref(&()), &ready).await;
        }
    }
    let interval = if ready.holds == Some(true) { HEALTH_INTERVAL } else { NOT_READY_INTERVAL };
    Ok(Action::requeue(super::about(interval, name, now)))
}

/// Reads the bucket: its settings, its identity, and, when that is due, its orphaned folders.
async fn observe(ctx: &StoreContext, store: &BackupStore, status: &mut BackupStoreStatus, now: Moment) -> Result<Finding, Error> {
    // What guards the store, whether or not the bucket answers.
    let name = store.name_any();
    status.backups = Some(i32::try_from(ctx.backups.count_in(&name)).unwrap_or(i32::MAX));
    status.keys = Some(i32::try_from(ctx.backups.count_keys_in(&name)).unwrap_or(i32::MAX));
    status.escrow_of = stores_with_escrow(ctx, &name).await?;
    let connected = ctx.telemetry.measure("store", "connect", ctx.stores.connect(store)).await?;
    // The first request finds out early whether the store answers, so that others do not wait for a store that does not.
    connected.marker().await?;
    let versioning = connected.bucket.versioning().await?;
    status.versioning = Some(versioning.name().to_owned());
    if let Some(refusal) = refuse_unversioned(versioning, store) {
        return Ok(refusal);
    }
    if let Some(refusal) = refuse_lock(&connected, store.spec.object_lock).await? {
        return Ok(refusal);
    }
    let marker = claim(ctx, &connected, status.identity.as_deref(), now).await?;
    status.identity = Some(marker.identity);
    if orphan_check_is_due(ctx, &name) {
        status.orphans = ctx.telemetry.measure("store", "sweep", orphans(&connected, &ctx.backups)).await?;
        ctx.orphans_checked.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Instant::now());
    }
    if let Some(escrow) = &store.spec.key_escrow
        && let Err(error) = ctx.stores.get(&escrow.store).await
    {
        return Ok(Finding::no(Type::Ready, "NoEscrow", format!("spec.keyEscrow names the store {}: {}", escrow.store, chain(&error))));
    }
    Ok(Finding::yes(Type::Ready, "Connected", "the bucket answers and is the one that was taken into use"))
}

/// Checks that the bucket is the same as before, by its marker. A bucket without one is taken into use.
async fn claim(ctx: &StoreContext, connected: &ConnectedStore, remembered: Option<&str>, now: Moment) -> Result<Marker, Error> {
    let (installation, name) = (&ctx.installation.id, &connected.location.name);
    match (connected.marker().await?, remembered) {
        (Some(marker), _) if marker.installation != *installation => {
            Err(Error::ForeignBucket(format!("its {MARKER} belongs to another installation, {}", marker.installation)))
        }
        (Some(marker), _) if marker.store != *name => {
            Err(Error::ForeignBucket(format!("its prefix is already used by the BackupStore {}", marker.store)))
        }
        (Some(marker), Some(identity)) if marker.identity != identity => {
            Err(Error::ForeignBucket(format!("its {MARKER} says {}, and it used to be {identity}", marker.identity)))
        }
        (Some(marker), _) => Ok(marker),
        (None, Some(identity)) => Err(Error::ForeignBucket(format!("its {MARKER} is gone; it used to be {identity}"))),
        (None, None) => {
            let mut random = [0_u8; 16];
            let refused = |_| Error::Refused { action: "make an identity", code: "NoRandomness".into(), source: "ring".into() };
            SystemRandom::new().fill(&mut random).map_err(refused)?;
            let marker =
                Marker { installation: installation.clone(), store: name.clone(), identity: crate::digest::hex(&random), created_at: now };
            let bytes = serde_json::to_vec(&marker).map_err(|e| Error::Refused {
                action: "write the marker",
                code: "Json".into(),
                source: e.into(),
            })?;
            match connected.bucket.write_once(MARKER, bytes).await {
                Ok(_) => Ok(marker),
                // Another replica wrote its marker first, so that one counts.
                Err(Error::Altered { .. }) => connected.marker().await?.ok_or(Error::Unclaimed),
                Err(error) => Err(error),
            }
        }
    }
}

/// Refuses a bucket in which an overwritten object is lost, unless the spec accepts that.
fn refuse_unversioned(versioning: Versioning, store: &BackupStore) -> Option<Finding> {
    if versioning == Versioning::Enabled || store.spec.allow_overwrites {
        return None;
    }
    let bucket = &store.spec.bucket;
    let message = format!(
        "the bucket keeps no versions ({}), so whoever has a mover's credentials could destroy every backup in it by overwriting it; switch \
         versioning on (aws s3api put-bucket-versioning --bucket {bucket} --versioning-configuration Status=Enabled), or accept the loss by \
         spec.allowOverwrites",
        versioning.name()
    );
    Some(Finding::no(Type::Ready, "NotVersioned", message))
}

/// Refuses a bucket whose default object lock would delay the erasure of a backup, beyond what the spec declares.
async fn refuse_lock(connected: &ConnectedStore, declared: ObjectLock) -> Result<Option<Finding>, Error> {
    let Some(lock) = connected.bucket.default_lock().await? else { return Ok(None) };
    let no = |message: String| Ok(Some(Finding::no(Type::Ready, "ObjectLocked", message)));
    match declared {
        ObjectLock::Off => no(format!(
            "the bucket locks every new object for {} days ({}), so a backup could not be destroyed on time; remove the bucket's default retention, or use another bucket",
            lock.days, lock.mode
        )),
        ObjectLock::Governance if lock.mode == "COMPLIANCE" => no(format!(
            "the bucket locks every new object for {} days in COMPLIANCE mode, which nobody can lift; use GOVERNANCE or no default retention",
            lock.days
        )),
        ObjectLock::Governance => Ok(None),
    }
}

/// The names of the stores whose keys go into this one.
async fn stores_with_escrow(ctx: &StoreContext, name: &str) -> Result<Vec<String>, Error> {
    let all = Api::<BackupStore>::all(ctx.client.clone()).list(&ListParams::default()).await.map_err(|e| unreadable(name, e))?;
    let names_it = |store: &&BackupStore| store.spec.key_escrow.as_ref().is_some_and(|escrow| escrow.store == name);
    Ok(all.items.iter().filter(names_it).map(ResourceExt::name_any).take(100).collect())
}

/// Folders without a ColdBackup: folders of backups, and folders of escrowed keys below `keys/`.
async fn orphans(connected: &ConnectedStore, backups: &BackupIndex) -> Result<Vec<String>, Error> {
    let mut orphans = Vec::new();
    for top in ["", KEYS] {
        for account in connected.bucket.folders(top).await?.into_iter().filter(|f| top == KEYS || f != KEYS) {
            let known: BTreeSet<String> = backups.of_account_uid(account.trim_end_matches('/')).iter().map(|b| folder_of(b)).collect();
            for moment in connected.bucket.folders(&format!("{top}{account}")).await? {
                let folder = format!("{account}{moment}");
                if !known.contains(&folder) {
                    orphans.push(format!("{top}{folder}"));
                }
            }
        }
    }
    Ok(orphans)
}

fn orphan_check_is_due(ctx: &StoreContext, name: &str) -> bool {
    let checked = ctx.orphans_checked.lock().unwrap_or_else(PoisonError::into_inner);
    checked.get(name).is_none_or(|at| at.elapsed() >= ORPHAN_INTERVAL)
}

/// What a person can do about the error.
const fn advice(error: &Error) -> &'static str {
    match error {
        Error::Unreachable { .. } => "; check spec.endpoint, the network and caSecret",
        Error::AccessDenied { .. } => "; check the credentials and what the bucket's policy grants them",
        Error::NoSuchBucket(_) => "; create the bucket, or correct spec.bucket",
        Error::ForeignBucket(_) => "; nothing is written or erased there: correct the location, or bring back the bucket that it was",
        _ => "",
    }
}

async fn write(api: &Api<BackupStore>, store: &BackupStore, status: &BackupStoreStatus) -> Result<(), Error> {
    let name = store.name_any();
    let patch = serde_json::json!({
        "apiVersion": BackupStore::api_version(&()),
        "kind": BackupStore::kind(&()),
        "metadata": { "name": name, "uid": store.metadata.uid },
        "status": status,
    });
    api.patch_status(&name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(patch))
        .await
        .map(drop)
        .map_err(|e| unreadable(&name, e))
}

fn unreadable(store: &str, source: kube::Error) -> Error {
    Error::Cluster { store: store.to_owned(), source: Box::new(source) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_that_keeps_no_versions_is_refused_unless_the_spec_accepts_what_is_lost() {
        let store = |accepts: bool| {
            let spec = serde_json::json!({"region": "eu-1", "endpoint": "https://s3.example", "bucket": "cold", "credentialsSecret": "s3",
                "allowOverwrites": accepts});
            BackupStore::new("cold", serde_json::from_value(spec).unwrap())
        };
        assert_eq!(refuse_unversioned(Versioning::Enabled, &store(false)), None);
        for versioning in [Versioning::Off, Versioning::Suspended] {
            let refusal = refuse_unversioned(versioning, &store(false)).unwrap();
            assert_eq!((refusal.holds, refusal.reason.as_str()), (Some(false), "NotVersioned"));
            assert!(refusal.message.contains("--bucket cold") && refusal.message.contains("allowOverwrites"));
            assert_eq!(refuse_unversioned(versioning, &store(true)), None);
        }
    }
}
