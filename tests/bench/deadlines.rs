//! From a deadline to the block that the database enforces, as the database sees it: the login is shut and no session
//! of the tenant is left.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use helpdesk_operator::{api::HelpDeskAccount, clock, lifecycle::Stage};
use k8s_openapi::{
    api::core::v1::ResourceQuota,
    jiff::{SignedDuration, Timestamp},
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;
use sqlx::{AssertSqlSafe, PgConnection};

use super::{
    cluster::{Account, Cluster, OPERATOR, has_condition, setting},
    number,
    operator::{self, Processors, Requests},
    plain::{self, side_by_side},
    report::{Table, percentile, seconds, tell, time},
    seen,
    tenant::Tenant,
};

/// The plan's paymentGrace, in minutes.
const GRACE: i64 = 10;

pub async fn run() {
    let count = number("BENCH_ACCOUNTS", 200);
    let cluster = Cluster::connect().await;
    let at_once = operator::concurrency(&cluster.client).await;
    operator::count_requests(&cluster.client).await;
    server(&cluster).await;
    no_movers(&cluster).await;
    plan(&cluster).await;

    tell(&format!("making {count} accounts that paid"));
    let mut fleet = Fleet::new(&cluster, count).await;
    fleet.bill("Active", |_| None).await;
    fleet.until_open().await;

    let mut table = Table::new(format!("deadlines: {count} accounts on one server, an open session in each, concurrency {at_once}"));
    tell("(a) deadlines spread over one minute");
    fleet.block(60).await.report(&mut table, "(a) spread over 60 s");

    let concurrencies = std::env::var("BENCH_CONCURRENCY").unwrap_or_else(|_| at_once.to_string());
    let mut bursts = vec![];
    for concurrency in concurrencies.split_whitespace().map(|n| n.parse().unwrap_or_else(|_| panic!("{n} is no number"))) {
        if concurrency != operator::concurrency(&cluster.client).await {
            operator::set_concurrency(&cluster.client, concurrency).await;
        }
        bursts.push((concurrency, fleet.burst(&mut table, concurrency).await));
    }

    tell("(c) every tenant holds its own login's row, and its neighbour's database");
    fleet.pay().await;
    fleet.until_open().await;
    fleet.turn_hostile().await;
    fleet.block(60).await.report(&mut table, "(c) hostile tenants, spread over 60 s");
    drop(fleet);

    tell("the same without an operator: statements, then status patches");
    let by_database = shut_by_statements(&cluster, count, at_once).await;
    let by_api = patch_statuses(&cluster, count, at_once).await;
    let last = |values: &[f64]| percentile(values, 1.0);
    let statements = format!("{count} times the same statements, {at_once} at once");
    let patches = format!("{count} status patches, {at_once} at once");
    for (concurrency, Burst { seen, .. }) in &bursts {
        let which = format!("(b) concurrency {concurrency}");
        table.compared(format!("{which}: until the last login is shut"), last(&seen.shut), &statements, by_database);
        table.compared(format!("{which}: until nobody is in any more"), last(&seen.empty), &patches, by_api);
        table.compared(format!("{which}: until every status says Blocked"), last(&seen.reported), &patches, by_api);
    }
    table.print();
    for (_, Burst { work, .. }) in bursts {
        work.print();
    }
}

/// The plan of a fleet.
pub async fn plan(cluster: &Cluster) {
    cluster
        .administrator_applies_plan(
            "bench",
            json!({"paymentGrace": format!("{GRACE}m"), "trial": "1d", "blocked": "1d", "terminated": "1d"}),
        )
        .await;
}

/// The server of all accounts of a part.
pub async fn server(cluster: &Cluster) {
    cluster
        .administrator_applies(json!({"kind": "DatabaseServer", "metadata": {"name": "pg-eu-1"}, "spec": {
            "engine": "postgresql", "region": "eu-1", "host": "pg-eu-1.databases.svc", "adminSecret": "pg-eu-1-admin",
            "tls": {"mode": "verify-full", "caSecret": "pg-ca"}, "capacity": 10000, "movers": 1,
            "brake": {"percent": 100, "atLeast": 10000}}}))
        .await;
}

/// No pod but the operator's may start: elsewhere movers run on other machines, here they would take the processors
/// that are being measured.
pub async fn no_movers(cluster: &Cluster) {
    let api: Api<ResourceQuota> = Api::namespaced(cluster.client.clone(), OPERATOR);
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "bench"}, "spec": {"hard": {"pods": "1"}}});
    api.patch("bench", &PatchParams::apply("bench"), &Patch::Apply(quota)).await.unwrap();
}

/// Seconds from each account's deadline to what was seen.
pub struct Seen {
    shut: Vec<f64>,
    empty: Vec<f64>,
    reported: Vec<f64>,
    looks: Vec<f64>,
    processors: String,
}

impl Seen {
    pub fn report(&self, table: &mut Table, which: &str) {
        table.spread(&format!("{which}: deadline to login shut"), &self.shut);
        table.spread(&format!("{which}: deadline to nobody in"), &self.empty);
        table.spread(&format!("{which}: deadline to status Blocked"), &self.reported);
        table.spread(&format!("{which}: between two looks at the server"), &self.looks);
        table.figure(format!("{which}: processor time"), &self.processors);
    }
}

/// What followed from deadlines of the same second.
struct Burst {
    seen: Seen,
    /// What the operator did meanwhile.
    work: Table,
}

/// Accounts, each with a session in its database.
pub struct Fleet<'a> {
    cluster: &'a Cluster,
    accounts: Vec<Account>,
    /// The accounts' databases, by the accounts' names.
    databases: HashMap<String, String>,
    sessions: Vec<PgConnection>,
    sequence: i64,
}

impl<'a> Fleet<'a> {
    pub async fn new(cluster: &'a Cluster, count: usize) -> Self {
        let accounts =
            side_by_side(8, (0..count).map(|n| async move { cluster.customer_signs_up(&format!("late-{n}"), "bench").await })).await;
        Self { cluster, accounts, databases: HashMap::new(), sessions: vec![], sequence: 0 }
    }

    fn names(&self) -> HashSet<String> {
        self.accounts.iter().map(|a| a.name.clone()).collect()
    }

    /// Billing writes a state for all accounts. When each was written, by name.
    pub async fn bill(&mut self, state: &str, delinquent_since: impl Fn(usize) -> Option<Timestamp>) -> HashMap<String, f64> {
        self.sequence += 1;
        let api = self.cluster.accounts();
        let write = |(at, account): (usize, &Account)| {
            let since = delinquent_since(at);
            // Whoever pays paid some time ago: a failure from before the payment would be doubted.
            let paid = || clock::now() - SignedDuration::from_mins(4 * GRACE);
            let patch = json!({"status": {"billing": {"state": state, "since": since.unwrap_or_else(paid).to_string(),
                "delinquentSince": since.map(|s| s.to_string()), "sequence": self.sequence}}});
            let (api, name) = (api.clone(), account.name.clone());
            async move {
                api.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
                (name, seen::now())
            }
        };
        let work: Vec<_> = self.accounts.iter().enumerate().map(write).collect();
        side_by_side(8, work).await.into_iter().collect()
    }

    /// Waits until every account is Active, and opens a session in each.
    pub async fn until_open(&mut self) {
        for account in &self.accounts {
            let found = account.wait_until("Active and ready", |a| is_at(a, Stage::Active) && has_condition(a, "Ready", "True")).await;
            self.databases.insert(account.name.clone(), found.status.unwrap().database.unwrap().name);
        }
        let enter = |account: &Account| {
            let (cluster, namespace) = (self.cluster, self.databases[&account.name].replacen("t_", "hd-", 1));
            async move { Tenant::of(&cluster.secret(&namespace, "database").await.unwrap()).logs_in().await.unwrap() }
        };
        let work: Vec<_> = self.accounts.iter().map(enter).collect();
        self.sessions = side_by_side(8, work).await;
    }

    /// Each tenant takes what would hold up its own block and the next one's end, and never gives it back.
    async fn turn_hostile(&mut self) {
        let names: Vec<String> = self.accounts.iter().map(|a| self.databases[&a.name].clone()).collect();
        for (at, session) in self.sessions.iter_mut().enumerate() {
            let next = &names[(at + 1) % names.len()];
            let sql = format!(
                "BEGIN; SET LOCAL ROLE NONE; ALTER ROLE CURRENT_USER PASSWORD 'x'; ALTER ROLE CURRENT_USER IN DATABASE {next} SET work_mem = '4MB'"
            );
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(session).await.unwrap();
        }
    }

    /// Has billing say that payments failed, so that grace ends within so many seconds, and sees what follows.
    pub async fn block(&mut self, within: i64) -> Seen {
        let count = i64::try_from(self.accounts.len()).unwrap();
        let first = clock::now() + SignedDuration::from_secs(20 + count / 8);
        let deadline = |at: usize| first + SignedDuration::from_secs(i64::try_from(at).unwrap() * within / count);
        self.bill("PastDue", |at| Some(deadline(at) - SignedDuration::from_mins(GRACE))).await;
        for (at, account) in self.accounts.iter().enumerate() {
            let due =
                |a: &HelpDeskAccount| a.status.as_ref().and_then(|s| s.next_transition_time.as_ref()).is_some_and(|t| t.0 == deadline(at));
            account.wait_until("its deadline", due).await;
        }
        let reporting = seen::accounts(self.cluster, self.names(), |a| is_at(a, Stage::Blocked)).await;
        let left = first.duration_since(clock::precise_now()) - SignedDuration::from_secs(1);
        tell(&format!("every account knows its deadline {} s before the first one", left.as_secs()));
        tokio::time::sleep(Duration::try_from(left).expect("all deadlines are noted before the first one comes")).await;

        let begun = Processors::now(&self.cluster.client).await;
        let shut = seen::shut(&self.databases.values().cloned().collect()).await;
        let reported = reporting.await.unwrap();
        let processors = Processors::now(&self.cluster.client).await.tell(&begun);
        let due: HashMap<&str, f64> =
            self.accounts.iter().enumerate().map(|(at, a)| (a.name.as_str(), deadline(at).as_duration().as_secs_f64())).collect();
        let late = |seen: &HashMap<String, f64>| due.iter().map(|(name, due)| seen[&self.databases[*name]] - due).collect();
        Seen {
            shut: late(&shut.shut),
            empty: late(&shut.empty),
            reported: due.iter().map(|(name, due)| reported[*name] - due).collect(),
            looks: shut.looks,
            processors,
        }
    }

    /// Everybody pays, and then nobody does, with the same deadline for all.
    async fn burst(&mut self, table: &mut Table, concurrency: usize) -> Burst {
        let client = &self.cluster.client.clone();
        tell(&format!("everybody pays, concurrency {concurrency}"));
        let paid = self.pay().await;
        table.spread(&format!("(b) concurrency {concurrency}, all pay at once: payment to open login"), &paid);
        self.until_open().await;
        tokio::time::sleep(Duration::from_secs(5)).await;

        tell("(b) deadlines in the same second");
        let (requests, metrics) = (Requests::now(client).await, operator::metrics(client).await);
        let seen = self.block(0).await;
        let (requests_after, metrics_after) = (Requests::now(client).await, operator::metrics(client).await);
        seen.report(table, &format!("(b) concurrency {concurrency}"));
        let mut work = Table::new(format!("what the operator did in (b), concurrency {concurrency}, from writing the billing states on"));
        for (step, mean, times) in operator::steps(&metrics, &metrics_after) {
            work.figure(step, format!("{times} times, mean {}", time(mean)));
        }
        for (what, times) in requests_after.writes(&requests) {
            work.figure(what, format!("{times} times"));
        }
        work.figure("requests of the operator: writes", requests_after.of_operator(&requests, "writes").to_string());
        work.figure("requests of the operator: reads", requests_after.of_operator(&requests, "reads").to_string());
        Burst { seen, work }
    }

    /// Everybody pays at once. Seconds from each payment to the open login.
    pub async fn pay(&mut self) -> Vec<f64> {
        let databases: HashSet<String> = self.databases.values().cloned().collect();
        let opening = tokio::spawn(async move { seen::open(&databases).await });
        let paid = self.bill("Active", |_| None).await;
        let opened = opening.await.unwrap();
        paid.iter().map(|(name, at)| opened[&self.databases[name]] - at).collect()
    }
}

fn is_at(account: &HelpDeskAccount, stage: Stage) -> bool {
    account.status.as_ref().is_some_and(|s| s.stage == Some(stage) && s.stage_since.is_some())
}

/// Shuts tenants that a loop of psql made, with a session in each.
async fn shut_by_statements(cluster: &Cluster, count: usize, at_once: usize) -> f64 {
    let (password, verifier) = plain::password().await;
    plain::tenants("plain", count, &verifier).await;
    let _sessions = plain::sessions("plain", count, &password).await;
    let pool = plain::admin_pool(cluster, at_once).await;
    plain::shut(&pool, at_once, "plain", count).await
}

/// Patches the status of accounts that no operator looks after, as the operator does it.
async fn patch_statuses(cluster: &Cluster, count: usize, at_once: usize) -> f64 {
    let model = cluster.accounts().get("late-0").await.unwrap().status.unwrap();
    let account =
        |n: usize| Account { cluster: cluster.clone(), name: format!("idle-{n}"), plan: "bench".into(), region: "nowhere".into() };
    side_by_side(8, (0..count).map(|n| async move { account(n).administrator_applies(json!({})).await })).await;

    let kubeconfig = Kubeconfig::read_from(setting("HELPDESK_TEST_KUBECONFIG")).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.auth_info.impersonate = Some(format!("system:serviceaccount:{OPERATOR}:helpdesk-operator"));
    let api: Api<HelpDeskAccount> = Api::all(Client::try_from(config).unwrap());
    let patch = |n: usize| {
        let mut status = model.clone();
        status.billing = None;
        let applied = json!({"apiVersion": "helpdesk-operator.io/v1alpha1", "kind": "HelpDeskAccount",
            "metadata": {"name": format!("idle-{n}")}, "status": status});
        let api = api.clone();
        async move {
            let params = PatchParams::apply("helpdesk-operator").force();
            api.patch_status(&format!("idle-{n}"), &params, &Patch::Apply(applied)).await.unwrap().name_any()
        }
    };
    patch(0).await;
    let begun = Instant::now();
    side_by_side(at_once, (1..count).map(patch)).await;
    seconds(begun.elapsed())
}
