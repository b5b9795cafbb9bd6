//! What keeps this process from working: watches that bring nothing, rights that are missing. `/readyz`, a metric, the log
//! and events tell it.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::{FutureExt, Stream, StreamExt};
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;

use crate::telemetry::{ObstacleLabel, Telemetry};

/// How long a first list, or a failing watch, may take before it counts as an obstacle. A watch that is forbidden does so at once.
const SLOW: Duration = Duration::from_secs(10);
/// A watch that sends nothing may have resumed. It has if no other failure came for so long: the watcher tries again within a
/// minute.
const RESUMED: Duration = Duration::from_secs(90);

/// What an obstacle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObstacleKind {
    /// A watch is forbidden, fails, or has not brought its first list.
    Watch,
    /// A right is missing.
    Right,
    /// The admission policies refuse what the operator writes.
    Policy,
    /// Nothing has the label of this shard.
    Shard,
}

impl ObstacleKind {
    /// The value of the metric's label.
    const fn name(self) -> &'static str {
        match self {
            Self::Watch => "Watch",
            Self::Right => "Right",
            Self::Policy => "Policy",
            Self::Shard => "Shard",
        }
    }
}

/// Obstacles with what they say, by their kind and resource.
pub type Obstacles = BTreeMap<(ObstacleKind, String), String>;

/// What keeps this process from working.
#[derive(Clone, Default)]
pub struct Readiness(Arc<State>);

#[derive(Default)]
struct State {
    watches: Mutex<Vec<Arc<Mutex<Watch>>>>,
    /// What [`crate::rights`] found; `None`: it has not looked yet.
    rights: Mutex<Option<Obstacles>>,
}

impl Readiness {
    /// Lists and watches objects. Until the first list was read, and while the watch fails, this is an obstacle.
    pub fn watch<K>(
        &self,
        api: Api<K>,
        config: watcher::Config,
    ) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + use<K>
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let state = Arc::clone(&self.0);
        let resource = api.resource_url().rsplit('/').next().unwrap_or_default().to_owned();
        let events = watcher(api, config.streaming_lists()).default_backoff();
        // Begins when the stream is polled: the watch of a kind may wait until the kind is installed.
        async move {
            let watch = Arc::new(Mutex::new(Watch { resource, begun: Instant::now(), has_listed: false, failing: None }));
            lock(&state.watches).push(Arc::clone(&watch));
            events.inspect(move |event| lock(&watch).saw(event, Instant::now()))
        }
        .flatten_stream()
    }

    /// Replaces what was found about the rights of this process.
    pub fn set_rights(&self, found: Obstacles) {
        *lock(&self.0.rights) = Some(found);
    }

    /// What keeps this process from working now. `None`: that is not known yet.
    pub fn obstacles(&self) -> Option<Obstacles> {
        let mut all = lock(&self.0.rights).clone()?;
        all.extend(self.watch_obstacles());
        Some(all)
    }

    /// The watches that are an obstacle now.
    pub fn watch_obstacles(&self) -> Obstacles {
        let now = Instant::now();
        let told = |watch: &Arc<Mutex<Watch>>| {
            let watch = lock(watch);
            Some(((ObstacleKind::Watch, watch.resource.clone()), watch.obstacle(now)?))
        };
        lock(&self.0.watches).iter().filter_map(told).collect()
    }

    /// Whether this process can work.
    ///
    /// # Errors
    /// The text says what keeps it from working.
    pub fn check(&self) -> Result<(), String> {
        match self.obstacles() {
            None => Err("the rights of this process are not known yet".to_owned()),
            Some(none) if none.is_empty() => Ok(()),
            Some(all) => Err(text(&all)),
        }
    }
}

/// All obstacles, one a line.
pub fn text(obstacles: &Obstacles) -> String {
    obstacles.values().cloned().collect::<Vec<_>>().join("\n")
}

/// Sets the metric of the obstacles.
pub fn measure(telemetry: &Telemetry, obstacles: &Obstacles) {
    telemetry.obstacles.clear();
    for (kind, resource) in obstacles.keys() {
        telemetry.obstacles.get_or_create(&ObstacleLabel { kind: kind.name(), resource: resource.clone() }).set(1);
    }
}

/// What is known about one watch.
struct Watch {
    resource: String,
    begun: Instant,
    has_listed: bool,
    failing: Option<Failing>,
}

/// A run of failures without an event in between.
struct Failing {
    since: Instant,
    last: Instant,
    is_forbidden: bool,
    why: String,
}

impl Watch {
    fn saw<K>(&mut self, event: &Result<watcher::Event<K>, watcher::Error>, now: Instant) {
        match event {
            Ok(watcher::Event::InitDone) => (self.has_listed, self.failing) = (true, None),
            Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_)) => self.failing = None,
            Ok(_) => {}
            Err(error) => self.failed(is_forbidden(error), crate::error_chain::chain(error), now),
        }
    }

    fn failed(&mut self, is_forbidden: bool, why: String, now: Instant) {
        let run = self.failing.take().filter(|failing| now - failing.last < RESUMED);
        self.failing = Some(Failing { since: run.map_or(now, |run| run.since), last: now, is_forbidden, why });
    }

    fn obstacle(&self, now: Instant) -> Option<String> {
        let resource = &self.resource;
        let failing = self.failing.as_ref().filter(|failing| !self.has_listed || now - failing.last < RESUMED);
        let lasts = match failing {
            Some(failing) if self.has_listed => failing.last - failing.since,
            _ if self.has_listed => Duration::ZERO,
            _ => now - self.begun,
        };
        match failing {
            Some(Failing { is_forbidden: true, why, .. }) => Some(format!("watch of {resource} is forbidden: {why}")),
            Some(Failing { why, .. }) if lasts >= SLOW => Some(format!("watch of {resource} fails: {why}")),
            None if lasts >= SLOW => Some(format!("watch of {resource} has not brought its first list for {} s", SLOW.as_secs())),
            _ => None,
        }
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) | watcher::Error::WatchFailed(error) => {
            matches!(error, kube::Error::Api(status) if status.code == 403)
        }
        watcher::Error::WatchError(status) => status.code == 403,
        watcher::Error::NoResourceVersion => false,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Format;

    const SECOND: Duration = Duration::from_secs(1);
    const LISTED: Result<watcher::Event<()>, watcher::Error> = Ok(watcher::Event::InitDone);

    fn watch(begun: Instant) -> Watch {
        Watch { resource: "helpdeskplans".into(), begun, has_listed: false, failing: None }
    }

    #[test]
    fn a_watch_is_an_obstacle_when_its_list_is_slow_and_at_once_when_it_is_forbidden() {
        let begun = Instant::now();
        let mut watch = watch(begun);
        assert_eq!(watch.obstacle(begun + SECOND * 9), None);
        assert!(watch.obstacle(begun + SECOND * 10).unwrap().contains("helpdeskplans has not brought its first list"));
        watch.failed(false, "refused".into(), begun);
        assert_eq!(watch.obstacle(begun + SECOND), None);
        assert_eq!(watch.obstacle(begun + SECOND * 10).unwrap(), "watch of helpdeskplans fails: refused");
        watch.failed(true, "no".into(), begun);
        assert_eq!(watch.obstacle(begun).unwrap(), "watch of helpdeskplans is forbidden: no");
        // However long ago the last answer was: without a list nothing was resumed.
        assert!(watch.obstacle(begun + RESUMED * 2).is_some());
        watch.saw(&LISTED, begun + SECOND);
        assert_eq!(watch.obstacle(begun + RESUMED), None);
    }

    #[test]
    fn a_watch_that_fails_later_is_an_obstacle_when_it_lasts_and_until_it_has_resumed() {
        let begun = Instant::now();
        let mut watch = watch(begun);
        watch.saw(&LISTED, begun);
        let at = begun + SECOND * 1000;
        for seconds in [0, 1, 3] {
            watch.failed(false, "the API server restarts".into(), at + SECOND * seconds);
        }
        assert_eq!(watch.obstacle(at + SECOND * 60), None, "a restart of the API server is no obstacle");
        watch.failed(false, "gone".into(), at + SECOND * 30);
        assert_eq!(watch.obstacle(at + SECOND * 31).unwrap(), "watch of helpdeskplans fails: gone");
        assert_eq!(watch.obstacle(at + SECOND * 30 + RESUMED), None, "a watch that resumed sends nothing while nothing changes");
        watch.failed(true, "no".into(), at + RESUMED * 3);
        assert!(watch.obstacle(at + RESUMED * 3).is_some());
        watch.saw(&Ok(watcher::Event::Apply(())), at + RESUMED * 3);
        assert_eq!(watch.obstacle(at + RESUMED * 3), None);
    }

    #[test]
    fn readiness_says_what_is_missing() {
        let readiness = Readiness::default();
        assert!(readiness.check().is_err(), "ready before anybody looked");
        readiness.set_rights(Obstacles::from([((ObstacleKind::Right, "jobs".into()), "the operator may not create jobs".into())]));
        assert_eq!(readiness.check().unwrap_err(), "the operator may not create jobs");
        let telemetry = Telemetry::default();
        measure(&telemetry, &readiness.obstacles().unwrap());
        assert!(telemetry.encode(Format::Text).contains("helpdesk_operator_obstacles{kind=\"Right\",resource=\"jobs\"} 1"));
        readiness.set_rights(Obstacles::new());
        measure(&telemetry, &readiness.obstacles().unwrap());
        assert!(readiness.check().is_ok() && !telemetry.encode(Format::Text).contains("obstacles{"));
    }
}
