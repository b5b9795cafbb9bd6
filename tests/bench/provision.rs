//! From the manifest to a database that its tenant can use, beside psql.

use std::collections::HashSet;

use serde_json::json;

use super::{
    cluster::{Cluster, has_condition},
    deadlines::server,
    number,
    operator::{self, Processors},
    plain::{self, side_by_side},
    report::{Table, percentile, tell, time},
    seen,
};

pub async fn run() {
    let count = number("BENCH_TENANTS", 100);
    let cluster = Cluster::connect().await;
    let at_once = operator::concurrency(&cluster.client).await;
    server(&cluster).await;
    cluster.administrator_applies_plan("bench", json!({"trial": "1d"})).await;
    // The first account has the operator connect, and the ledger's database made.
    cluster.customer_signs_up("first", "bench").await.receives_credentials_in(helpdesk_operator::lifecycle::Stage::Trial).await;
    let (_, verifier) = plain::password().await;

    // Before and after, because what else the machine does changes meanwhile.
    tell(&format!("{count} tenants by psql"));
    let idle = Processors::now(&cluster.client).await;
    let before = plain::tenants("before", count, &verifier).await;
    let by_psql = Processors::now(&cluster.client).await;
    tell(&format!("{count} tenants by the operator"));
    let metrics = operator::metrics(&cluster.client).await;
    let begun_at = Processors::now(&cluster.client).await;
    let names: HashSet<String> = (0..count).map(|n| format!("tenant-{n}")).collect();
    let ready = seen::accounts(&cluster, names, |a| has_condition(a, "DatabaseReady", "True")).await;
    let begun = seen::now();
    let apply = |n: usize| {
        let cluster = &cluster;
        async move {
            let account = cluster.customer_signs_up(&format!("tenant-{n}"), "bench").await;
            (account.name, seen::now())
        }
    };
    let applied = side_by_side(8, (0..count).map(apply)).await;
    let all_applied = seen::now() - begun;
    let ready = ready.await.unwrap();
    let by_operator = Processors::now(&cluster.client).await;
    let steps = operator::steps(&metrics, &operator::metrics(&cluster.client).await);
    tell(&format!("{count} tenants by psql again"));
    let after = plain::tenants("after", count, &verifier).await;

    let took = percentile(&ready.values().map(|at| at - begun).collect::<Vec<_>>(), 1.0);
    let waits: Vec<f64> = applied.iter().map(|(name, at)| ready[name] - at).collect();
    let mut table = Table::new(format!("provision: {count} tenants on one server, concurrency {at_once}"));
    let psql = format!("psql, 4 at once ({} before, {} after)", time(before), time(after));
    table.compared("from the first apply to the last DatabaseReady", took, &psql, f64::midpoint(before, after));
    table.spread("from apply to DatabaseReady", &waits);
    table.figure("applying the manifests took", time(all_applied));
    table.figure("processor time, by the operator", by_operator.tell(&begun_at));
    table.figure("processor time, by psql", by_psql.tell(&idle));
    for (step, mean, times) in steps {
        table.figure(step, format!("{times} times, mean {}", time(mean)));
    }
    table.print();
}
