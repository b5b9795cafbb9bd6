//! The controllers, one folder or file for each reconciled kind, and the frame that they share: watch, wait for a permit,
//! reconcile one object, count its failures, requeue it.
//!
//! Everything outside of this folder is a library that knows no controller, and no controller knows another.

pub mod account;
pub mod backup_store;
pub mod cold_backup;
pub mod database_server;
pub mod help_desk_class;
pub mod help_desk_plan;
mod in_use;
mod object_metrics;
mod placement;
mod tenant_secret;

use std::{
    fmt::Debug,
    hash::{DefaultHasher, Hash, Hasher},
    ops::Deref,
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, Stream, StreamExt};
use kube::{
    Api, Resource, ResourceExt,
    runtime::{
        Config, Controller, WatchStreamExt,
        controller::Action,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};
use prometheus_client::metrics::gauge::Gauge;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tracing::{Instrument, Span};

use crate::{
    api::{
        BackupStore, Condition, DatabaseServer,
        conditions::{self, Type},
    },
    clock::{self, Moment},
    context::Context,
    error_chain::chain,
    keyed_semaphore::Permit,
    readiness::Readiness,
    retry::{Backoff, jitter},
    telemetry::ControllerLabel,
};

/// The cause of failures that are logged together because the API server does not answer.
const API_SERVER: &str = "the API server";

/// How often an object is reconciled at least. This finds changes that no watch reports.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// One controller: its state between reconciles, and the reconcile of one object.
pub(crate) trait Reconciler: Deref<Target = Context> + Send + Sync + 'static {
    /// The kind that is reconciled.
    type Object: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static;
    /// Why a reconcile failed.
    type Error: std::error::Error + Send + Sync + 'static;
    /// The kind in log lines, with its article.
    const NAME: &'static str;
    /// The kind in metrics.
    const CONTROLLER: &'static str;

    /// An object is reconciled once in this time at most. What changes meanwhile is looked at together, and however much
    /// changes, the look comes.
    const PACE: Duration = Duration::ZERO;

    /// The span of one reconcile; it names the object.
    fn span(object: &Self::Object) -> Span;

    /// Failures in a row, by the object's uid.
    fn backoff(&self) -> &Backoff;

    /// Waits until the object may be reconciled; `None`: the process is stopping.
    fn permit(&self, _object: &Self::Object) -> impl Future<Output = Option<Permit>> + Send {
        std::future::ready(Some(Permit::unlimited()))
    }

    /// Reconciles the object as far as that is possible now, and returns when to reconcile it again.
    fn reconcile(&self, object: &Self::Object) -> impl Future<Output = Result<Action, Self::Error>> + Send;

    /// What the failure has in common with those of other objects, such as `server pg-eu-1`: they are logged together.
    fn outage(&self, _object: &Self::Object, _error: &Self::Error) -> Option<String> {
        None
    }

    /// The error's reason, for the log.
    fn reason(error: &Self::Error) -> &'static str;

    /// How long to wait after a failure; `wait` is the delay of the back-off.
    fn retry_after(&self, _object: &Self::Object, _error: &Self::Error, wait: Duration) -> Duration {
        wait
    }
}

/// Runs a controller until its triggers end. The number of concurrent reconciles has no limit here;
/// [`Reconciler::permit`] may limit them by server, so that a server that hangs does not delay objects of other servers.
pub(crate) async fn run<R: Reconciler>(triggers: Controller<R::Object>, reconciler: Arc<R>) {
    let triggers = triggers.with_config(Config::default().concurrency(0));
    triggers.run(reconcile::<R>, error_policy::<R>, reconciler).for_each(|_| std::future::ready(())).await;
}

async fn reconcile<R: Reconciler>(object: Arc<R::Object>, reconciler: Arc<R>) -> Result<Action, R::Error> {
    let span = R::span(&object);
    async {
        if let Some(left) = reconciler.backoff().pace(&uid(&*object), R::PACE) {
            return Ok(Action::requeue(left));
        }
        let label = ControllerLabel { controller: R::CONTROLLER };
        let waiting = Counted::new(reconciler.telemetry.reconciles_waiting.get_or_create_owned(&label));
        let Some(_permit) = reconciler.permit(&object).await else { return Ok(Action::await_change()) };
        drop(waiting);
        let _running = Counted::new(reconciler.telemetry.reconciles_running.get_or_create_owned(&label));
        let begun = Instant::now();
        // Boxed, because very many reconciles may wait for a permit.
        let result = Box::pin(reconciler.reconcile(&object)).await;
        reconciler.telemetry.reconcile_seconds.get_or_create(&label).observe(begun.elapsed().as_secs_f64());
        let action = result?;
        reconciler.backoff().succeeded(&uid(&*object));
        Ok(action)
    }
    .instrument(span)
    .await
}

/// Counts in a gauge for as long as it lives.
struct Counted(Gauge);

impl Counted {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn error_policy<R: Reconciler>(object: Arc<R::Object>, error: &R::Error, reconciler: Arc<R>) -> Action {
    let wait = reconciler.backoff().failed(&uid(&*object));
    let wait = reconciler.retry_after(&object, error, wait);
    reconciler.telemetry.reconcile_errors.get_or_create(&ControllerLabel { controller: R::CONTROLLER }).inc();
    let text = chain(error);
    let is_logged = reconciler.outage(&object, error).is_none_or(|cause| reconciler.outages.is_first(&cause, &text));
    if !is_logged {
        return Action::requeue(wait);
    }
    tracing::warn!(
        parent: &R::span(&object),
        object = object.name_any(),
        reason = R::reason(error),
        error = text,
        retry_in = wait.as_secs(),
        "{} could not be taken further",
        R::NAME
    );
    Action::requeue(wait)
}

fn uid(object: &impl ResourceExt) -> String {
    object.uid().unwrap_or_default()
}

/// Lists and watches one kind: the cache of its objects, without their managed fields, and the stream that fills it.
pub(crate) fn cached<K>(
    readiness: &Readiness,
    api: Api<K>,
    config: watcher::Config,
) -> (Store<K>, impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + use<K>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (cache, writer) = reflector::store();
    let stream = readiness.watch(api, config).modify(|object: &mut K| object.managed_fields_mut().clear());
    (cache, stream.reflect(writer))
}

/// The time until the deadline, with fractions of a second, and at most an hour.
pub(crate) fn until(deadline: Option<Moment>) -> Duration {
    let left = |at: Moment| Duration::try_from(at.duration_since(clock::precise_now())).unwrap_or(Duration::ZERO);
    deadline.map_or(LONGEST_SLEEP, |at| (left(at) + Duration::from_millis(1)).min(LONGEST_SLEEP))
}

/// The interval plus or minus 10%, so that objects that were created together are not reconciled together.
pub(crate) fn about(interval: Duration, name: &str, now: Moment) -> Duration {
    interval.mul_f64(0.9 + 0.2 * jitter(&format!("{name}/{now}")))
}

/// Hash by which a watch tells that an object appeared, was edited or is gone. The generation alone does not tell the last.
pub(crate) fn presence<K>(cache: &Store<K>) -> impl Fn(&K) -> Option<u64> + Send + use<K>
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    let cache = cache.clone();
    move |object| {
        let mut hasher = DefaultHasher::new();
        (&object.meta().uid, object.meta().generation, is_gone(&cache, object)).hash(&mut hasher);
        Some(hasher.finish())
    }
}

/// Whether the object of an event is gone. Before its first list a cache has nothing, and nothing is gone.
pub(crate) fn is_gone<K>(cache: &Store<K>, object: &K) -> bool
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    cache.wait_until_ready().now_or_never().is_some() && cache.get(&ObjectRef::from_obj(object)).is_none()
}

/// Hash of the fields of a server whose change triggers the objects that may wait for it: generation, annotations and
/// readiness.
pub(crate) fn server_readiness(server: &DatabaseServer) -> Option<u64> {
    readiness(server, server.status.as_ref().map(|status| &*status.conditions))
}

/// The same for a store.
pub(crate) fn store_readiness(store: &BackupStore) -> Option<u64> {
    readiness(store, store.status.as_ref().map(|status| &*status.conditions))
}

fn readiness(object: &impl ResourceExt, conditions: Option<&[Condition]>) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    let is_ready = conditions.is_some_and(|all| conditions::holds(all, Type::Ready));
    (object.meta().generation, object.annotations(), is_ready).hash(&mut hasher);
    Some(hasher.finish())
}
