//! A thousand accounts with which nothing happens, and a restart among them.

use std::{collections::HashSet, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::DeleteParams};
use serde_json::json;

use super::{
    cluster::{Cluster, OPERATOR, has_condition},
    deadlines::server,
    number,
    operator::{self, Requests, Usage},
    plain::side_by_side,
    report::{Table, mib, percentile, tell, time},
    seen,
};

pub async fn run() {
    let (count, minutes) = (number("BENCH_ACCOUNTS", 1000), number("BENCH_MINUTES", 10));
    let cluster = Cluster::connect().await;
    operator::count_requests(&cluster.client).await;
    server(&cluster).await;
    cluster.administrator_applies_plan("bench", json!({"trial": "30d"})).await;

    tell(&format!("making {count} accounts, each with a database"));
    let names: HashSet<String> = (0..count).map(|n| format!("steady-{n}")).collect();
    let ready = seen::accounts(&cluster, names, |a| has_condition(a, "Ready", "True")).await;
    let begun = seen::now();
    let account = |n: usize| {
        let cluster = &cluster;
        async move { cluster.customer_signs_up(&format!("steady-{n}"), "bench").await }
    };
    side_by_side(8, (0..count).map(account)).await;
    let ready = ready.await.unwrap();
    let took = percentile(&ready.values().map(|at| at - begun).collect::<Vec<_>>(), 1.0);

    let mut table = Table::new(format!("steady: {count} accounts in which nothing happens"));
    table.figure("from the first apply until all are ready", time(took));
    tell(&format!("{minutes} minutes in which nothing happens"));
    tokio::time::sleep(Duration::from_secs(30)).await;
    watch(&cluster, minutes, &mut table).await;
    tell("restarting the operator");
    restart(&cluster, count, &mut table).await;
    table.print();
}

async fn watch(cluster: &Cluster, minutes: usize, table: &mut Table) {
    let pod = operator::pod(&cluster.client).await.unwrap();
    let usage = Usage::of(&pod).unwrap();
    let (requests, cpu, begun) = (Requests::now(&cluster.client).await, usage.cpu_seconds(), seen::now());
    let mut resident = vec![];
    while seen::now() - begun < 60.0 * f64::from(u32::try_from(minutes).unwrap()) {
        resident.extend(usage.resident());
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let (later, cpu, passed) = (Requests::now(&cluster.client).await, usage.cpu_seconds() - cpu, (seen::now() - begun) / 60.0);
    for (name, kind) in [("writes", "writes"), ("reads, without the Lease", "reads"), ("reads and renewals of the Lease", "lease")] {
        let times = later.of_operator(&requests, kind);
        table.figure(format!("{name}, in {passed:.1} min"), format!("{times} ({:.1} a minute)", times / passed));
    }
    for (what, times) in later.writes(&requests) {
        table.figure(format!("by anybody: {what}"), format!("{times}"));
    }
    table.figure("processor time a minute", time(cpu / passed));
    let least_and_most = (resident.iter().min().copied().unwrap_or(0), resident.iter().max().copied().unwrap_or(0));
    table.figure("resident memory", format!("{} to {}", mib(least_and_most.0), mib(least_and_most.1)));
}

/// From the end of the operator's pod until another one has looked at every account.
async fn restart(cluster: &Cluster, count: usize, table: &mut Table) {
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), OPERATOR);
    let old = operator::pod(&cluster.client).await.unwrap();
    let requests = Requests::now(&cluster.client).await;
    let begun = seen::now();
    pods.delete(&old.name_any(), &DeleteParams::default()).await.unwrap();
    let (mut started, mut usage) = (None, None);
    loop {
        if started.is_none() {
            let new = operator::pod(&cluster.client).await.filter(|p| p.uid() != old.uid());
            let up = |p: &Pod| p.status.as_ref().and_then(|s| s.container_statuses.as_ref()?.first()?.started).unwrap_or(false);
            started = new.as_ref().filter(|p| up(p)).map(|_| seen::now());
            usage = new.as_ref().and_then(Usage::of);
        }
        let metrics = operator::metrics(&cluster.client).await;
        let seen: f64 = metrics.iter().filter(|(name, _)| name.starts_with("helpdesk_operator_accounts{")).map(|(_, n)| n).sum();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        if started.is_some() && seen as usize >= count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (ended, started) = (seen::now(), started.unwrap());
    let later = Requests::now(&cluster.client).await;
    table.figure("restart: from the pod's deletion until all were looked at", time(ended - begun));
    table.figure("restart: of that, until the new one ran", time(started - begun));
    let usage = usage.unwrap();
    table.figure("restart: processor time of the new one", time(usage.cpu_seconds()));
    table.figure("restart: its resident memory", mib(usage.resident().unwrap_or(0)));
    table.figure("restart: writes", later.of_operator(&requests, "writes").to_string());
    table.figure("restart: reads", later.of_operator(&requests, "reads").to_string());
}
