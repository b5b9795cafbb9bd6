//! The controller of `BackupStore`: is the bucket usable, is it still the same bucket, which folders belong to nobody.
//!
//! A look every minute, with reads only; every ten minutes a longer one for orphans, which are named and never erased.

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
        BackupPhase, BackupStore, BackupStoreStatus, ColdBackup,
        backup_store::ObjectLock,
        conditions::{self, Finding, Type},
    },
    backup,
    clock::Moment,
    context::{Context, Shared},
    retry::Backoff,
    store::{ConnectedStore, Error, MARKER, Marker},
};
use tracing::Span;

/// Between two looks.
const HEALTH_INTERVAL: Duration = Duration::from_secs(60);
/// Between two looks at one that cannot be used: backups may wait for it.
const UNWELL: Duration = Duration::from_secs(5);
/// Between two long looks.
const ORPHAN_INTERVAL: Duration = Duration::from_secs(600);
/// Owns the fields that this controller writes.
const FIELD_MANAGER: &str = "helpdesk-operator-stores";
/// The folder of escrowed keys.
const KEYS: &str = "keys/";

struct StoreContext {
    shared: Arc<Context>,
    backoff: Backoff,
    /// When the last long look at each store was.
    swept: Mutex<HashMap<String, Instant>>,
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
    let (stores, stream) =
        super::cached(Api::<BackupStore>::all(ctx.client.clone()), watcher::Config::default().labels(&ctx.settings.selector()));
    let stream = stream.applied_objects().predicate_filter(predicates::generation, PredicateConfig::default());
    let secrets = ctx.secrets();
    let known = stores.clone();
    let named = move |secret: PartialObjectMeta<Secret>| {
        let name = secret.name_any();
        let names = move |store: &BackupStore| {
            let spec = &store.spec;
            spec.credentials_secret == name || [&spec.erase_credentials_secret, &spec.ca_secret].into_iter().flatten().any(|s| *s == name)
        };
        known.state().into_iter().filter(move |s| names(s)).map(|s| ObjectRef::from_obj(&*s)).collect::<Vec<_>>()
    };
    let triggers = Controller::for_stream(stream, stores).watches_stream(secrets, named);
    super::run(triggers, Arc::new(StoreContext { shared: ctx, backoff: Backoff::default(), swept: Mutex::default() })).await;
}

async fn reconcile(ctx: &StoreContext, name: &str) -> Result<Action, Error> {
    let api: Api<BackupStore> = Api::all(ctx.client.clone());
    // The identity in status decides whether this is still the same bucket: an old copy of it will not do.
    let Some(store) = api.get_opt(name).await.map_err(|e| unreadable(name, e))? else { return Ok(Action::await_change()) };
    let before = store.status.clone().unwrap_or_default();
    let now = (ctx.now)();
    let mut status = BackupStoreStatus { observed_generation: store.metadata.generation, conditions: Vec::new(), ..before.clone() };
    let ready = match look(ctx, &store, &mut status, now).await {
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
    let next_look = if ready.holds == Some(true) { HEALTH_INTERVAL } else { UNWELL };
    Ok(Action::requeue(super::about(next_look, name, now)))
}

/// Looks at the bucket, from who it is to what lies in it.
async fn look(ctx: &StoreContext, store: &BackupStore, status: &mut BackupStoreStatus, now: Moment) -> Result<Finding, Error> {
    let connected = ctx.telemetry.measure("store", "connect", ctx.stores.connect(store)).await?;
    // The first question: one that never answers is known to be silent soon, and nobody else waits for it.
    connected.marker().await?;
    let backups = backups(ctx, store).await?;
    let here = |b: &&ColdBackup| b.spec.store == store.name_any() && b.status.as_ref().is_none_or(|s| s.phase != BackupPhase::Erased);
    let alive = backups.iter().filter(here).count();
    status.backups = Some(i32::try_from(alive).unwrap_or(i32::MAX));
    status.versioning = Some(connected.bucket.versioning().await?.name().to_owned());
    if let Some(refusal) = refuse_lock(&connected, store.spec.object_lock).await? {
        return Ok(refusal);
    }
    let marker = claim(ctx, &connected, status.identity.as_deref(), now).await?;
    status.identity = Some(marker.identity);
    let name = store.name_any();
    if due(ctx, &name) {
        status.orphans = ctx.telemetry.measure("store", "sweep", orphans(&connected, &backups)).await?;
        ctx.swept.lock().unwrap_or_else(PoisonError::into_inner).insert(name, Instant::now());
    }
    Ok(Finding::yes(Type::Ready, "Connected", "the bucket answers and is the one that was taken into use"))
}

/// Whether the bucket is the one that it was; an unclaimed one is taken into use.
async fn claim(ctx: &StoreContext, connected: &ConnectedStore, remembered: Option<&str>, now: Moment) -> Result<Marker, Error> {
    let (ours, name) = (&ctx.installation.id, &connected.location.name);
    match (connected.marker().await?, remembered) {
        (Some(marker), _) if marker.installation != *ours => {
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
            let marker = Marker { installation: ours.clone(), store: name.clone(), identity: crate::digest::hex(&random), created_at: now };
            let bytes = serde_json::to_vec(&marker).map_err(|e| Error::Refused {
                action: "write the marker",
                code: "Json".into(),
                source: e.into(),
            })?;
            match connected.bucket.write_once(MARKER, bytes).await {
                Ok(_) => Ok(marker),
                // Another replica was faster: what it wrote counts.
                Err(Error::Altered { .. }) => connected.marker().await?.ok_or(Error::Unclaimed),
                Err(error) => Err(error),
            }
        }
    }
}

/// A lock that a wish for erasure could not be met under.
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

async fn backups(ctx: &StoreContext, store: &BackupStore) -> Result<Vec<ColdBackup>, Error> {
    let api: Api<ColdBackup> = Api::all(ctx.client.clone());
    let name = store.name_any();
    let all = api.list(&ListParams::default()).await.map_err(|e| unreadable(&name, e))?;
    Ok(all.items)
}

/// Folders that belong to no backup: of backups below a uid, of keys below `keys/` and a uid.
async fn orphans(connected: &ConnectedStore, backups: &[ColdBackup]) -> Result<Vec<String>, Error> {
    let known: BTreeSet<String> = backups.iter().map(|b| backup::folder(&b.spec.account, &b.spec.account_uid, &b.name_any())).collect();
    let mut orphans = Vec::new();
    for top in ["", KEYS] {
        for account in connected.bucket.folders(top).await?.into_iter().filter(|f| top == KEYS || f != KEYS) {
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

fn due(ctx: &StoreContext, name: &str) -> bool {
    let swept = ctx.swept.lock().unwrap_or_else(PoisonError::into_inner);
    swept.get(name).is_none_or(|at| at.elapsed() >= ORPHAN_INTERVAL)
}

/// What a person may do about it.
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
