//! Workers that check what tenants answer: their routes from outside, their apps inside the cluster. A reconcile never waits
//! for them; it reads their last result.
//!
//! A reconcile calls [`Prober::observe`], which starts a check if needed and returns the last result of exactly this
//! view. A worker (a task) runs the check; a new result triggers a reconcile of the account. For each group of views, such
//! as those of one Gateway, the number of concurrent checks is limited. Repeated checks after a failure have fewer permits, of their own. So neither
//! apps that accept connections and never answer nor a Gateway that is down delay the checks of others for long.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded},
    future::BoxFuture,
};
use prometheus_client::metrics::counter::Counter;
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep},
};

use crate::{keyed_semaphore::KeyedSemaphore, retry::jitter};

/// What a check is made from. It has all inputs of the check, so that a worker can run it later.
pub trait View: Send + Sync + 'static {
    /// Views of one group share the limit of concurrent checks.
    fn group(&self) -> &str;
}

/// A difference between what a check found and what it expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The reason that the condition gets.
    pub reason: &'static str,
    /// A sentence for people.
    pub why: String,
}

/// Timing and concurrency of the checks.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// For how long after the first check a mismatch is no failure: a gateway needs time to do what it accepted.
    pub settling: Duration,
    /// The pause between checks in that time.
    pub every: Duration,
    /// The pause after the first failure; it doubles with each further failure.
    pub pause: Duration,
    /// The longest pause after a failure.
    pub longest_pause: Duration,
    /// How long a check without a mismatch counts.
    pub fresh: Duration,
    /// The number of concurrent checks of one group that are first checks or that a closing account waits for.
    pub first: usize,
    /// The number of concurrent checks of one group that repeat a failed one.
    pub again: usize,
}

impl Pace {
    /// The values outside of tests.
    pub const DEFAULT: Self = Self {
        settling: Duration::from_secs(3),
        every: Duration::from_millis(150),
        pause: Duration::from_secs(3),
        longest_pause: Duration::from_secs(30),
        fresh: Duration::from_secs(30 * 60),
        first: 64,
        again: 8,
    };

    fn pause_after(&self, uid: &str, failures: u32) -> Duration {
        let plain = self.pause.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.longest_pause);
        plain.mul_f64(0.8 + 0.4 * jitter(&format!("{uid}/{failures}")))
    }
}

/// The last result for a view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// Everything answered as expected.
    AsExpected,
    /// Something did not answer as expected.
    Mismatch(Mismatch),
    /// The view has not been checked; a worker is about to check it.
    Unchecked,
}

/// The account that is checked.
#[derive(Clone, Copy, Debug)]
pub struct ProbedAccount<'a> {
    /// Its name, which is sent when the result changes.
    pub name: &'a str,
    /// Its uid.
    pub uid: &'a str,
}

/// A check of a view; `None`: everything is as expected.
pub type Check<V> = Box<dyn Fn(Arc<V>) -> BoxFuture<'static, Option<Mismatch>> + Send + Sync>;

/// The workers, and their last results.
pub struct Prober<V> {
    pace: Pace,
    check: Check<V>,
    first: KeyedSemaphore,
    again: KeyedSemaphore,
    changed: UnboundedSender<String>,
    failures: Counter,
    watched: Mutex<HashMap<String, Watched>>,
}

/// The worker and the last result of one account.
struct Watched {
    /// Tells this worker from earlier ones for the same account.
    worker: u64,
    mark: u64,
    urgent: bool,
    last: Option<Result<Instant, Mismatch>>,
    /// Whether a check has ended, of this view or of one before.
    has_checked: bool,
    task: AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<V: View> Prober<V> {
    /// Returns workers that run this check, and a stream of the names of accounts whose result changed. `failures` counts
    /// mismatches.
    pub fn new<F>(failures: Counter, check: impl Fn(Arc<V>) -> F + Send + Sync + 'static) -> (Arc<Self>, UnboundedReceiver<String>)
    where
        F: Future<Output = Option<Mismatch>> + Send + 'static,
    {
        Self::with(Pace::DEFAULT, failures, Box::new(move |view| check(view).boxed()))
    }

    fn with(pace: Pace, failures: Counter, check: Check<V>) -> (Arc<Self>, UnboundedReceiver<String>) {
        let (changed, changes) = unbounded();
        let (first, again) = (KeyedSemaphore::new(pace.first), KeyedSemaphore::new(pace.again));
        (Arc::new(Self { pace, check, first, again, changed, failures, watched: Mutex::default() }), changes)
    }

    /// Whether a check of this account, of whatever view, has ended since the process started.
    pub fn has_checked(&self, uid: &str) -> bool {
        self.lock().get(uid).is_some_and(|watched| watched.has_checked)
    }

    /// Returns the last result for this view, and starts a worker if there is none or it is old. `mark` is a hash of
    /// everything that the view depends on; a result under another mark does not count. Checks of an `urgent` account
    /// never queue behind repeated checks of failed ones.
    pub fn observe(self: &Arc<Self>, account: ProbedAccount<'_>, mark: u64, view: V, urgent: bool) -> Observation {
        let mut all = self.lock();
        let before = all.get(account.uid).filter(|watched| watched.mark == mark);
        let last = before.and_then(|watched| watched.last.clone());
        let is_running = before.is_some_and(|watched| !watched.task.is_finished() && watched.urgent >= urgent);
        let is_fresh = matches!(&last, Some(Ok(at)) if at.elapsed() < self.pace.fresh);
        if !is_running && !is_fresh {
            let worker = all.get(account.uid).map_or(0, |watched| watched.worker + 1);
            let work = Arc::clone(self).watch(account.name.to_owned(), account.uid.to_owned(), worker, Arc::new(view), urgent);
            let task = tokio::spawn(work).abort_handle();
            let has_checked = all.get(account.uid).is_some_and(|watched| watched.has_checked);
            all.insert(account.uid.to_owned(), Watched { worker, mark, urgent, last: last.clone(), has_checked, task });
        }
        match last {
            None => Observation::Unchecked,
            Some(Ok(_)) => Observation::AsExpected,
            Some(Err(mismatch)) => Observation::Mismatch(mismatch),
        }
    }

    /// Stops the worker of this account and drops its last result.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Repeats the check until it finds no mismatch.
    async fn watch(self: Arc<Self>, account: String, uid: String, worker: u64, view: Arc<V>, urgent: bool) {
        let mut begun = None;
        let mut failures = 0;
        loop {
            let semaphore = if urgent || failures == 0 { &self.first } else { &self.again };
            let Some(permit) = semaphore.acquire(view.group()).await else { return };
            let since = *begun.get_or_insert_with(Instant::now);
            let Some(mismatch) = (self.check)(Arc::clone(&view)).await else {
                self.record(&account, &uid, worker, Ok(Instant::now()));
                return;
            };
            drop(permit);
            if since.elapsed() < self.pace.settling {
                sleep(self.pace.every).await;
                continue;
            }
            failures += 1;
            self.failures.inc();
            self.record(&account, &uid, worker, Err(mismatch));
            sleep(self.pace.pause_after(&uid, failures)).await;
        }
    }

    /// Stores a worker's result, and sends the account's name if the result changed.
    fn record(&self, account: &str, uid: &str, worker: u64, result: Result<Instant, Mismatch>) {
        let mut all = self.lock();
        let Some(watched) = all.get_mut(uid).filter(|watched| watched.worker == worker) else { return };
        let has_changed = match (&watched.last, &result) {
            (Some(Ok(_)), Ok(_)) => false,
            (Some(Err(before)), Err(now)) => before != now,
            _ => true,
        };
        watched.last = Some(result);
        watched.has_checked = true;
        if has_changed {
            // Sending fails only while the process ends, when the receiver is gone.
            let _ = self.changed.unbounded_send(account.to_owned());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::StreamExt;

    use super::*;

    const QUICK: Pace = Pace {
        settling: Duration::from_millis(40),
        every: Duration::from_millis(5),
        pause: Duration::from_millis(50),
        longest_pause: Duration::from_millis(400),
        fresh: Duration::from_secs(60),
        first: 64,
        again: 2,
    };

    /// A view that is only a host name.
    struct Host(String);

    impl View for Host {
        fn group(&self) -> &str {
            "edge/edge"
        }
    }

    fn view(host: &str) -> Host {
        Host(host.to_owned())
    }

    fn account(name: &str) -> ProbedAccount<'_> {
        ProbedAccount { name, uid: name }
    }

    fn wrong() -> Mismatch {
        Mismatch { reason: "AnswersWrong", why: "no".into() }
    }

    async fn next(changes: &mut UnboundedReceiver<String>) -> String {
        tokio::time::timeout(Duration::from_secs(5), changes.next()).await.expect("nothing was told").unwrap()
    }

    /// A prober whose check hangs for some hosts, finds some right, and finds a mismatch for all others.
    fn prober(pace: Pace) -> (Arc<Prober<Host>>, UnboundedReceiver<String>) {
        Prober::with(
            pace,
            Counter::default(),
            Box::new(|view| {
                async move {
                    match view.0.as_str() {
                        host if host.starts_with("hangs") => {
                            sleep(Duration::from_millis(500)).await;
                            Some(Mismatch { reason: "Unreachable", why: "it took too long".into() })
                        }
                        host if host.starts_with("right") => None,
                        _ => Some(wrong()),
                    }
                }
                .boxed()
            }),
        )
    }

    #[tokio::test]
    async fn sixty_apps_that_never_answer_keep_neither_the_asker_nor_another_account_waiting() {
        let (prober, mut changes) = prober(QUICK);
        let begun = Instant::now();
        for i in 0..60 {
            let name = format!("hangs-{i}");
            assert_eq!(prober.observe(account(&name), 1, view(&name), false), Observation::Unchecked);
        }
        assert!(begun.elapsed() < Duration::from_millis(100), "ordering looks took {:?}", begun.elapsed());
        for round in 0..5 {
            let name = format!("right-{round}");
            let begun = Instant::now();
            prober.observe(account(&name), 1, view(&name), false);
            while next(&mut changes).await != name {}
            assert!(begun.elapsed() < Duration::from_millis(300), "{name} waited {:?} for apps that hang", begun.elapsed());
            assert_eq!(prober.observe(account(&name), 1, view(&name), false), Observation::AsExpected);
            // In the later rounds the hosts that hang have failed, and wait for the permits of repeated checks.
            sleep(Duration::from_millis(200)).await;
        }
    }

    #[tokio::test]
    async fn what_was_seen_counts_for_this_very_view_only() {
        let (prober, mut changes) = prober(QUICK);
        prober.observe(account("right"), 1, view("right"), false);
        assert!(!prober.has_checked("right"), "a check that was only begun counted");
        assert_eq!(next(&mut changes).await, "right");
        assert_eq!(prober.observe(account("right"), 1, view("right"), true), Observation::AsExpected);
        assert_eq!(prober.observe(account("right"), 2, view("wrong"), true), Observation::Unchecked, "another view counted as seen");
        assert!(prober.has_checked("right"));
        assert_eq!(next(&mut changes).await, "right");
        assert_eq!(prober.observe(account("right"), 2, view("wrong"), true), Observation::Mismatch(wrong()));
        prober.forget("right");
        assert_eq!(prober.observe(account("right"), 1, view("right"), true), Observation::Unchecked, "what was forgotten counted as seen");
    }

    #[tokio::test]
    async fn what_stays_wrong_is_told_once_and_looked_at_less_and_less() {
        let looks = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&looks);
        let check: Check<Host> = Box::new(move |_| {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            async move { (number < 12).then(wrong) }.boxed()
        });
        let pace = Pace { settling: Duration::ZERO, ..QUICK };
        let (prober, mut changes) = Prober::with(pace, Counter::default(), check);
        prober.observe(account("a"), 1, view("a"), false);
        assert_eq!(next(&mut changes).await, "a");
        for _ in 0..50 {
            assert_eq!(prober.observe(account("a"), 1, view("a"), false), Observation::Mismatch(wrong()));
        }
        sleep(Duration::from_millis(500)).await;
        let so_far = looks.load(Ordering::SeqCst);
        assert!((2..=6).contains(&so_far), "{so_far} looks in half a second");
        assert!(changes.try_recv().is_err(), "the same failure was told again");
        assert_eq!(next(&mut changes).await, "a");
        assert_eq!(prober.observe(account("a"), 1, view("a"), false), Observation::AsExpected);
    }

    #[tokio::test]
    async fn what_was_right_stays_so_while_it_is_looked_at_again() {
        let pace = Pace { fresh: Duration::ZERO, ..QUICK };
        let (prober, mut changes) = prober(pace);
        prober.observe(account("right"), 1, view("right"), false);
        next(&mut changes).await;
        for _ in 0..5 {
            assert_eq!(prober.observe(account("right"), 1, view("right"), false), Observation::AsExpected);
            sleep(Duration::from_millis(10)).await;
        }
        assert!(changes.try_recv().is_err(), "nothing had changed");
    }
}
