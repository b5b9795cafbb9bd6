//! Workers that check routes from outside. A reconcile never waits for them; it reads what they saw last.
//!
//! Whoever wants to know whether addresses answer as they should orders a look and goes on with what was seen last of
//! exactly this view. The look is taken by a task of its own; what it finds out wakes the account. Of one Gateway so
//! many are looked at in one moment, and those that failed before have fewer turns, of their own: any number of apps
//! that accept connections and never answer, or a Gateway that is dead, delays nothing but themselves.

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

use super::check::{self, Mismatch, View};
use crate::{keyed_semaphore::KeyedSemaphore, retry::jitter};

/// How fast, and how many at once.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long a gateway may take to do what it has accepted before that counts as a failure.
    pub settling: Duration,
    /// How often, in that time, it is looked whether it has.
    pub every: Duration,
    /// After the first failure; doubled each time.
    pub pause: Duration,
    /// At most.
    pub longest_pause: Duration,
    /// How long it is believed that addresses answer as they were seen to.
    pub fresh: Duration,
    /// First looks, and looks that a closing account waits for, at one Gateway at once.
    pub first: usize,
    /// Looks at one Gateway at once at what failed before.
    pub again: usize,
}

impl Pace {
    /// What holds unless a test says otherwise.
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

/// What is known of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sight {
    /// They were seen to answer as they should.
    Right,
    /// They were seen not to.
    Mismatch(Mismatch),
    /// Nobody has seen them as they are now; a worker is about to.
    Unseen,
}

/// Whose addresses they are.
#[derive(Clone, Copy, Debug)]
pub struct Whose<'a> {
    /// The account's name, which is told when something turned.
    pub account: &'a str,
    /// Its uid.
    pub uid: &'a str,
}

type Look = Box<dyn Fn(Arc<View>) -> BoxFuture<'static, Option<Mismatch>> + Send + Sync>;

/// The workers, and what they saw last.
pub struct Prober {
    pace: Pace,
    look: Look,
    first: KeyedSemaphore,
    again: KeyedSemaphore,
    told: UnboundedSender<String>,
    failures: Counter,
    watched: Mutex<HashMap<String, Watched>>,
}

/// What one account's addresses are watched for.
struct Watched {
    /// Tells an order from an earlier one for the same account.
    order: u64,
    mark: u64,
    urgent: bool,
    seen: Option<Result<Instant, Mismatch>>,
    task: AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Prober {
    /// Workers that look for themselves, and the names of accounts of which they have news. `failures` counts what was
    /// seen to be wrong.
    pub fn new(failures: Counter) -> (Arc<Self>, UnboundedReceiver<String>) {
        Self::with(Pace::DEFAULT, failures, Box::new(|view| check::check(view).boxed()))
    }

    fn with(pace: Pace, failures: Counter, look: Look) -> (Arc<Self>, UnboundedReceiver<String>) {
        let (told, news) = unbounded();
        let (first, again) = (KeyedSemaphore::new(pace.first), KeyedSemaphore::new(pace.again));
        (Arc::new(Self { pace, look, first, again, told, failures, watched: Mutex::default() }), news)
    }

    /// Whether anything of this account was ordered since the process started.
    pub fn know(&self, uid: &str) -> bool {
        self.lock().contains_key(uid)
    }

    /// What is known of this view, and if that is nothing or old, that somebody goes and looks. `mark` stands for
    /// everything that the view rests on: what was seen under another mark does not count. Whoever is `urgent` does not
    /// queue behind those that failed before.
    pub fn order(self: &Arc<Self>, whose: Whose<'_>, mark: u64, view: View, urgent: bool) -> Sight {
        let mut all = self.lock();
        let before = all.get(whose.uid).filter(|known| known.mark == mark);
        let seen = before.and_then(|known| known.seen.clone());
        let at_work = before.is_some_and(|known| !known.task.is_finished() && known.urgent >= urgent);
        let is_fresh = matches!(&seen, Some(Ok(at)) if at.elapsed() < self.pace.fresh);
        if !at_work && !is_fresh {
            let order = all.get(whose.uid).map_or(0, |known| known.order + 1);
            let worker = Arc::clone(self).watch(whose.account.to_owned(), whose.uid.to_owned(), order, Arc::new(view), urgent);
            let task = tokio::spawn(worker).abort_handle();
            all.insert(whose.uid.to_owned(), Watched { order, mark, urgent, seen: seen.clone(), task });
        }
        match seen {
            None => Sight::Unseen,
            Some(Ok(_)) => Sight::Right,
            Some(Err(wrong)) => Sight::Mismatch(wrong),
        }
    }

    /// Nothing of this account is looked at any more.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Looks until it was seen to be right.
    async fn watch(self: Arc<Self>, account: String, uid: String, order: u64, view: Arc<View>, urgent: bool) {
        let mut begun = None;
        let mut failures = 0;
        loop {
            let lanes = if urgent || failures == 0 { &self.first } else { &self.again };
            let Some(acquire) = lanes.acquire(&view.gateway).await else { return };
            let since = *begun.get_or_insert_with(Instant::now);
            let Some(wrong) = (self.look)(Arc::clone(&view)).await else {
                self.saw(&account, &uid, order, Ok(Instant::now()));
                return;
            };
            drop(acquire);
            if since.elapsed() < self.pace.settling {
                sleep(self.pace.every).await;
                continue;
            }
            failures += 1;
            self.failures.inc();
            self.saw(&account, &uid, order, Err(wrong));
            sleep(self.pace.pause_after(&uid, failures)).await;
        }
    }

    /// Remembers what was seen, and tells the account if that is news.
    fn saw(&self, account: &str, uid: &str, order: u64, what: Result<Instant, Mismatch>) {
        let mut all = self.lock();
        let Some(known) = all.get_mut(uid).filter(|known| known.order == order) else { return };
        let is_news = match (&known.seen, &what) {
            (Some(Ok(_)), Ok(_)) => false,
            (Some(Err(before)), Err(now)) => before != now,
            _ => true,
        };
        known.seen = Some(what);
        if is_news {
            // Nobody listens any more only when the process ends.
            let _ = self.told.unbounded_send(account.to_owned());
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::atomic::AtomicU32, sync::atomic::Ordering};

    use futures::StreamExt;

    use super::*;
    use crate::{
        api::plan::TlsVersion,
        edge::{check::Expected, gateway::Driver},
    };

    const QUICK: Pace = Pace {
        settling: Duration::from_millis(40),
        every: Duration::from_millis(5),
        pause: Duration::from_millis(50),
        longest_pause: Duration::from_millis(400),
        fresh: Duration::from_secs(60),
        first: 64,
        again: 2,
    };

    fn view(host: &str, port: u16) -> View {
        View {
            gateway: "edge/edge".into(),
            driver: Driver::GatewayApi,
            addresses: vec!["127.0.0.1".into()],
            port,
            plain_port: None,
            hosts: vec![host.to_owned()],
            leaves: BTreeMap::new(),
            min_tls: TlsVersion::default(),
            answer: Expected::Suspended,
        }
    }

    fn whose(name: &str) -> Whose<'_> {
        Whose { account: name, uid: name }
    }

    fn wrong() -> Mismatch {
        Mismatch { reason: "AnswersWrong", why: "no".into() }
    }

    async fn next(news: &mut UnboundedReceiver<String>) -> String {
        tokio::time::timeout(Duration::from_secs(5), news.next()).await.expect("nothing was told").unwrap()
    }

    /// Looks at hosts that hang, that are right, and all others, which are wrong.
    fn prober(pace: Pace) -> (Arc<Prober>, UnboundedReceiver<String>) {
        Prober::with(
            pace,
            Counter::default(),
            Box::new(|view| {
                async move {
                    match view.hosts[0].as_str() {
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
        let (prober, mut news) = prober(QUICK);
        let begun = Instant::now();
        for i in 0..60 {
            let name = format!("hangs-{i}");
            assert_eq!(prober.order(whose(&name), 1, view(&name, 1), false), Sight::Unseen);
        }
        assert!(begun.elapsed() < Duration::from_millis(100), "ordering looks took {:?}", begun.elapsed());
        for round in 0..5 {
            let name = format!("right-{round}");
            let begun = Instant::now();
            prober.order(whose(&name), 1, view(&name, 1), false);
            while next(&mut news).await != name {}
            assert!(begun.elapsed() < Duration::from_millis(300), "{name} waited {:?} for apps that hang", begun.elapsed());
            assert_eq!(prober.order(whose(&name), 1, view(&name, 1), false), Sight::Right);
            // In the later rounds those that hang have failed and wait for turns of their own.
            sleep(Duration::from_millis(200)).await;
        }
    }

    #[tokio::test]
    async fn what_was_seen_counts_for_this_very_view_only() {
        let (prober, mut news) = prober(QUICK);
        assert!(!prober.know("right"));
        prober.order(whose("right"), 1, view("right", 1), false);
        assert_eq!(next(&mut news).await, "right");
        assert_eq!(prober.order(whose("right"), 1, view("right", 1), true), Sight::Right);
        assert_eq!(prober.order(whose("right"), 2, view("wrong", 1), true), Sight::Unseen, "another view counted as seen");
        assert_eq!(next(&mut news).await, "right");
        assert_eq!(prober.order(whose("right"), 2, view("wrong", 1), true), Sight::Mismatch(wrong()));
        prober.forget("right");
        assert_eq!(prober.order(whose("right"), 1, view("right", 1), true), Sight::Unseen, "what was forgotten counted as seen");
    }

    #[tokio::test]
    async fn what_stays_wrong_is_told_once_and_looked_at_less_and_less() {
        let looks = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&looks);
        let look: Look = Box::new(move |_| {
            let number = counted.fetch_add(1, Ordering::SeqCst);
            async move { (number < 12).then(wrong) }.boxed()
        });
        let pace = Pace { settling: Duration::ZERO, ..QUICK };
        let (prober, mut news) = Prober::with(pace, Counter::default(), look);
        prober.order(whose("a"), 1, view("a", 1), false);
        assert_eq!(next(&mut news).await, "a");
        for _ in 0..50 {
            assert_eq!(prober.order(whose("a"), 1, view("a", 1), false), Sight::Mismatch(wrong()));
        }
        sleep(Duration::from_millis(500)).await;
        let so_far = looks.load(Ordering::SeqCst);
        assert!((2..=6).contains(&so_far), "{so_far} looks in half a second");
        assert!(news.try_recv().is_err(), "the same failure was told again");
        assert_eq!(next(&mut news).await, "a");
        assert_eq!(prober.order(whose("a"), 1, view("a", 1), false), Sight::Right);
    }

    #[tokio::test]
    async fn what_was_right_stays_so_while_it_is_looked_at_again() {
        let pace = Pace { fresh: Duration::ZERO, ..QUICK };
        let (prober, mut news) = prober(pace);
        prober.order(whose("right"), 1, view("right", 1), false);
        next(&mut news).await;
        for _ in 0..5 {
            assert_eq!(prober.order(whose("right"), 1, view("right", 1), false), Sight::Right);
            sleep(Duration::from_millis(10)).await;
        }
        assert!(news.try_recv().is_err(), "nothing had changed");
    }

    #[tokio::test]
    async fn a_host_that_accepts_connections_and_never_answers_is_unreachable() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let silent = tokio::spawn(async move {
            let mut held = vec![];
            while let Ok(connection) = listener.accept().await {
                held.push(connection);
            }
        });
        let begun = Instant::now();
        let seen = check::check(Arc::new(view("silent.example", port))).await.expect("it answered");
        assert_eq!(seen.reason, "Unreachable", "{}", seen.why);
        assert!(begun.elapsed() < Duration::from_secs(10));
        silent.abort();
    }
}
