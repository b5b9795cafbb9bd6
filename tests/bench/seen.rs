//! When something was so: accounts by a watch, logins and sessions by looking at the server again and again.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use futures::{StreamExt, pin_mut};
use helpdesk_operator::{api::HelpDeskAccount, clock};
use kube::{
    ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use sqlx::{PgConnection, Row};
use tokio::{sync::oneshot, task::JoinHandle};

use super::{cluster::Cluster, tenant::superuser_logs_in};

/// How often the database is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// Longer than any figure takes.
const PATIENCE: Duration = Duration::from_secs(900);

/// Seconds since 1970.
pub fn now() -> f64 {
    clock::precise_now().as_duration().as_secs_f64()
}

/// Watches accounts from now on: for each of these names, when `test` was first true of it.
pub async fn accounts(
    cluster: &Cluster,
    names: HashSet<String>,
    test: impl Fn(&HelpDeskAccount) -> bool + Send + 'static,
) -> JoinHandle<HashMap<String, f64>> {
    let api = cluster.accounts();
    let (listed, ready) = oneshot::channel();
    let watching = tokio::spawn(async move {
        let mut listed = Some(listed);
        let events = watcher(api, watcher::Config::default()).default_backoff();
        pin_mut!(events);
        let mut seen = HashMap::new();
        while seen.len() < names.len() {
            let event = tokio::time::timeout(PATIENCE, events.next()).await;
            let account = match event.unwrap_or_else(|_| panic!("{} of {} accounts came to be", seen.len(), names.len())).unwrap().unwrap()
            {
                watcher::Event::InitApply(account) | watcher::Event::Apply(account) => account,
                watcher::Event::InitDone => {
                    listed.take().map(|l| l.send(()));
                    continue;
                }
                watcher::Event::Init | watcher::Event::Delete(_) => continue,
            };
            if names.contains(&account.name_any()) && test(&account) {
                seen.entry(account.name_any()).or_insert_with(now);
            }
        }
        seen
    });
    ready.await.unwrap();
    watching
}

/// What one look showed: databases whose login is shut, or no member any more of the role that may connect, and
/// databases with a session of the tenant.
struct Look {
    at: f64,
    shut: HashSet<String>,
    inside: HashSet<String>,
}

const LOOK_AT_ALL: &str = r"SELECT extract(epoch FROM clock_timestamp())::float8 AS at,
    ARRAY(SELECT left(l.rolname::text, -2) FROM pg_authid l WHERE l.rolname LIKE 't\_%\__' AND NOT (l.rolcanlogin AND EXISTS (
        SELECT FROM pg_auth_members m JOIN pg_authid o ON o.oid = m.roleid
        WHERE m.member = l.oid AND o.rolname = left(l.rolname::text, -2) || '_own'))) AS shut,
    ARRAY(SELECT DISTINCT left(usename::text, -2) FROM pg_stat_activity WHERE usename LIKE 't\_%\__') AS inside";

async fn look(superuser: &mut PgConnection) -> Look {
    let row = sqlx::query(LOOK_AT_ALL).fetch_one(superuser).await.unwrap();
    let names = |column| row.get::<Vec<String>, _>(column).into_iter().collect();
    Look { at: row.get("at"), shut: names("shut"), inside: names("inside") }
}

/// When the server showed what, by database.
#[derive(Default)]
pub struct Shut {
    /// The login was shut.
    pub shut: HashMap<String, f64>,
    /// And no session was left.
    pub empty: HashMap<String, f64>,
    /// Seconds between looks.
    pub looks: Vec<f64>,
}

/// Looks until all of these databases are shut and nobody is in.
pub async fn shut(databases: &HashSet<String>) -> Shut {
    let mut superuser = superuser_logs_in("postgres").await;
    let (mut seen, mut before, begun) = (Shut::default(), None, now());
    let mut ticks = ticks();
    while seen.empty.len() < databases.len() {
        ticks.tick().await;
        let look = look(&mut superuser).await;
        seen.looks.extend(before.map(|b| look.at - b));
        before = Some(look.at);
        for name in look.shut.iter().filter(|name| databases.contains(*name)) {
            seen.shut.entry(name.clone()).or_insert(look.at);
            if !look.inside.contains(name) {
                seen.empty.entry(name.clone()).or_insert(look.at);
            }
        }
        assert!(look.at - begun < PATIENCE.as_secs_f64(), "{} of {} databases were shut", seen.empty.len(), databases.len());
    }
    seen
}

/// Looks until the logins of all of these databases are open.
pub async fn open(databases: &HashSet<String>) -> HashMap<String, f64> {
    let mut superuser = superuser_logs_in("postgres").await;
    let (mut seen, begun) = (HashMap::new(), now());
    let mut ticks = ticks();
    while seen.len() < databases.len() {
        ticks.tick().await;
        let look = look(&mut superuser).await;
        for name in databases.difference(&look.shut) {
            seen.entry(name.clone()).or_insert(look.at);
        }
        assert!(look.at - begun < PATIENCE.as_secs_f64(), "{} of {} databases were opened", seen.len(), databases.len());
    }
    seen
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    ticks
}
