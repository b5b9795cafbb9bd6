//! The figures, each beside what it is compared to in the same run. `make bench` brings a cluster up for each part;
//! nothing here is asserted, because a figure depends on the machine.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod apps;
mod backup;
mod beside;
#[allow(unused, clippy::disallowed_methods)]
#[path = "../stories/cluster.rs"]
mod cluster;
mod deadlines;
mod operator;
mod page;
mod plain;
mod provision;
mod report;
mod seen;
mod steady;
#[allow(unused)]
#[path = "../stories/tenant.rs"]
mod tenant;

#[tokio::main]
async fn main() {
    // Cargo adds an option of its own.
    let part = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    report::machine("before");
    match part.as_str() {
        "apps" => apps::run().await,
        "page" => page::run().await,
        "deadlines" => deadlines::run().await,
        "beside" => beside::run().await,
        "provision" => provision::run().await,
        "backup" => backup::run().await,
        "steady" => steady::run().await,
        other => panic!("no such part: {other:?} (choose apps, page, deadlines, beside, provision, backup or steady)"),
    }
    report::machine("after");
}

/// A number of the environment, or what it is without one.
fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}
