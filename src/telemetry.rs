//! Metrics and logs. Labels never carry an account's name, because the number of time series must not grow with the
//! number of tenants.
//!
//! What happens is counted here as it happens. What is, such as accounts by stage, is read from the caches whenever somebody
//! asks for the metrics: see [`Telemetry::on_scrape`].

mod process;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry},
};

/// What is logged. Unless they are named, the libraries log warnings only: what PostgreSQL notices, such as that a table exists
/// already, is of no interest.
fn filter(asked_for: Option<String>) -> tracing_subscriber::EnvFilter {
    let asked_for = asked_for.unwrap_or_else(|| "info".into());
    let quiet = ["kube", "sqlx"].iter().filter(|library| !asked_for.contains(**library)).map(|library| format!("{library}=warn"));
    let all: Vec<String> = std::iter::once(asked_for.clone()).chain(quiet).filter(|directive| !directive.is_empty()).collect();
    tracing_subscriber::EnvFilter::try_new(all.join(",")).unwrap_or_else(|_| "info,kube=warn,sqlx=warn".into())
}

/// Starts writing logs as JSON to the standard output. `RUST_LOG` says how much.
pub fn log_as_json() {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_env_filter(filter(std::env::var("RUST_LOG").ok()))
        .init();
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BuildLabel {
    version: &'static str,
}

/// One step of a driver.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct DriverStep {
    /// `database`, `store`, `mover`, `ledger`.
    pub driver: &'static str,
    /// The step's verb, such as `suspend`.
    pub step: &'static str,
}

/// A stage.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StageLabel {
    /// The stage's name.
    pub stage: &'static str,
}

/// A controller.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ControllerLabel {
    /// Its kind, such as `HelpDeskAccount`.
    pub controller: &'static str,
}

/// Accounts without an object, on one server.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct LostLabel {
    /// The `DatabaseServer`.
    pub server: String,
    /// `open`, `shut`, or `kept_open`: too many for the operator to shut them without a person's consent.
    pub state: &'static str,
}

/// Why what billing wrote was rejected.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RefusedLabel {
    /// The reason, such as `OlderSequence`.
    pub reason: &'static str,
}

/// What keeps the process from working.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ObstacleLabel {
    /// `Watch`, `Right`, `Policy` or `Shard`.
    pub kind: &'static str,
    /// The resource, such as `helpdeskplans`.
    pub resource: String,
}

/// All metrics of the process.
#[derive(Clone)]
pub struct Telemetry {
    registry: Arc<Mutex<Registry>>,
    refreshers: Arc<Mutex<Vec<Refresher>>>,
    /// 1 while this replica holds the Lease.
    pub leader: Gauge,
    /// Durations of driver steps in seconds.
    pub step_seconds: Family<DriverStep, Histogram, fn() -> Histogram>,
    /// Failures of driver steps.
    pub step_failures: Family<DriverStep, Counter>,
    /// How late stages were enforced, in seconds after they were due.
    pub lateness: Family<StageLabel, Histogram, fn() -> Histogram>,
    /// Durations of reconciles in seconds, without the wait for a permit.
    pub reconcile_seconds: Family<ControllerLabel, Histogram, fn() -> Histogram>,
    /// Reconciles that failed.
    pub reconcile_errors: Family<ControllerLabel, Counter>,
    /// Reconciles that wait for a permit.
    pub reconciles_waiting: Family<ControllerLabel, Gauge>,
    /// Reconciles that run.
    pub reconciles_running: Family<ControllerLabel, Gauge>,
    /// Accounts with data but without an object.
    pub accounts_lost: Family<LostLabel, Gauge>,
    /// Changes by billing that were rejected, in whole or in part.
    pub billing_refused: Family<RefusedLabel, Counter>,
    /// What keeps the process from working.
    pub obstacles: Family<ObstacleLabel, Gauge>,
    /// Checks of routes from outside that found a mismatch.
    pub edge_probe_failures: Counter,
    /// Checks of apps that found a mismatch.
    pub app_probe_failures: Counter,
}

/// Sets gauges before they are read.
type Refresher = Box<dyn Fn() + Send + Sync>;

/// How the metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format, version 0.0.4.
    Text,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The format that the header `Accept` of a request asks for. Text is what every client understands.
    pub fn asked_for(accept: Option<&str>) -> Self {
        match accept {
            Some(accept) if accept.contains("application/openmetrics-text") => Self::OpenMetrics,
            _ => Self::Text,
        }
    }

    /// The header `Content-Type` of the answer.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Steps take from milliseconds to half an hour.
fn durations() -> Histogram {
    Histogram::new([0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0])
}

/// Stages are enforced within seconds; one that waits for a person or a server may be days late.
fn latenesses() -> Histogram {
    const HOUR: f64 = 3600.0;
    Histogram::new([0.1, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, HOUR, 4.0 * HOUR, 12.0 * HOUR, 24.0 * HOUR, 72.0 * HOUR, 168.0 * HOUR])
}

/// The steps of drivers that [`Telemetry::measure`] is called with. Their series exist from the start, so that the first
/// failure is an increase.
const STEPS: &[(&str, &[&str])] = &[
    (
        "database",
        &[
            "begin_rotation",
            "check",
            "connect",
            "drop",
            "drop_scratch",
            "dump_login",
            "ensure",
            "finish_restore",
            "finish_rotation",
            "identify",
            "observe",
            "prepare_restore",
            "probe",
            "resume",
            "revoke_dump_login",
            "scratch",
            "set_password",
            "size",
            "suspend",
            "sweep",
        ],
    ),
    ("ledger", &["history", "update", "update_within"]),
    ("store", &["check", "connect", "erase", "sweep"]),
];

/// The kinds that are reconciled.
const CONTROLLERS: [&str; 6] = ["BackupStore", "ColdBackup", "DatabaseServer", "HelpDeskAccount", "HelpDeskClass", "HelpDeskPlan"];

/// The prefix of all metrics but those of the process.
const PREFIX: &str = "helpdesk_operator";

impl Default for Telemetry {
    fn default() -> Self {
        let telemetry = Self {
            registry: Arc::default(),
            refreshers: Arc::default(),
            leader: Gauge::default(),
            step_seconds: Family::new_with_constructor(durations as fn() -> Histogram),
            step_failures: Family::default(),
            lateness: Family::new_with_constructor(latenesses as fn() -> Histogram),
            reconcile_seconds: Family::new_with_constructor(durations as fn() -> Histogram),
            reconcile_errors: Family::default(),
            reconciles_waiting: Family::default(),
            reconciles_running: Family::default(),
            accounts_lost: Family::default(),
            billing_refused: Family::default(),
            obstacles: Family::default(),
            edge_probe_failures: Counter::default(),
            app_probe_failures: Counter::default(),
        };
        telemetry.register_all();
        telemetry
    }
}

impl Telemetry {
    fn register_all(&self) {
        let build: Family<BuildLabel, Gauge> = Family::default();
        build.get_or_create(&BuildLabel { version: env!("CARGO_PKG_VERSION") }).set(1);
        self.register("build_info", "The version of the program; always 1", build);
        self.register("leader", "1 while this replica holds the Lease, and works", self.leader.clone());
        self.register("driver_step_duration_seconds", "How long a step of a driver took", self.step_seconds.clone());
        self.register("driver_step_failures", "Steps of a driver that failed", self.step_failures.clone());
        self.register("transition_lateness_seconds", "How long after it was due a stage was enforced", self.lateness.clone());
        self.register("reconcile_duration_seconds", "How long a reconcile took, once it had its permit", self.reconcile_seconds.clone());
        self.register("reconcile_errors", "Reconciles that failed", self.reconcile_errors.clone());
        self.register("reconciles_waiting", "Reconciles that wait for a permit", self.reconciles_waiting.clone());
        self.register("reconciles_running", "Reconciles that run", self.reconciles_running.clone());
        self.register("accounts_lost", "Accounts with data for which no object speaks", self.accounts_lost.clone());
        self.register("billing_refused", "Words of billing that did not count, or not wholly", self.billing_refused.clone());
        self.register("obstacles", "What keeps the operator from working: watches, rights, policies, the shard", self.obstacles.clone());
        self.register(
            "edge_probe_failures",
            "Looks at addresses from outside that found something wrong",
            self.edge_probe_failures.clone(),
        );
        self.register("app_probe_failures", "Checks of apps that did not show the value of their tenant", self.app_probe_failures.clone());
        self.on_scrape(process::register(&mut self.lock()));

        for (driver, step) in STEPS.iter().flat_map(|(driver, steps)| steps.iter().map(|step| (*driver, *step))) {
            let label = DriverStep { driver, step };
            drop((self.step_seconds.get_or_create(&label), self.step_failures.get_or_create(&label)));
        }
        for controller in CONTROLLERS {
            let label = ControllerLabel { controller };
            drop((self.reconcile_seconds.get_or_create(&label), self.reconcile_errors.get_or_create(&label)));
            drop((self.reconciles_waiting.get_or_create(&label), self.reconciles_running.get_or_create(&label)));
        }
    }

    /// Adds a metric, whose name gets the program's prefix.
    pub fn register(&self, name: &str, help: &str, metric: impl Metric) {
        self.lock().sub_registry_with_prefix(PREFIX).register(name, help, metric);
    }

    /// Runs `refresh` before the metrics are read.
    pub fn on_scrape(&self, refresh: impl Fn() + Send + Sync + 'static) {
        self.refreshers.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(refresh));
    }

    /// All metrics.
    pub fn encode(&self, format: Format) -> String {
        // Held until the end, so that nobody reads gauges that another scrape is setting.
        let refreshers = self.refreshers.lock().unwrap_or_else(PoisonError::into_inner);
        refreshers.iter().for_each(|refresh| refresh());
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.lock());
        match format {
            Format::OpenMetrics => text,
            Format::Text => as_text(&text),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a driver's step, observes its duration and counts its failure.
    ///
    /// # Errors
    /// The error of the step.
    pub async fn measure<T, E>(&self, driver: &'static str, step: &'static str, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let begun = std::time::Instant::now();
        let result = work.await;
        let label = DriverStep { driver, step };
        self.step_seconds.get_or_create(&label).observe(begun.elapsed().as_secs_f64());
        if result.is_err() {
            self.step_failures.get_or_create(&label).inc();
        }
        result
    }
}

/// OpenMetrics as the older text format writes it: a counter's family has the name of its series, which ends with `_total`, and
/// there is no last line.
fn as_text(open_metrics: &str) -> String {
    let counters: HashSet<&str> = open_metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut text = String::with_capacity(open_metrics.len());
    for line in open_metrics.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(kind), Some(name), Some(rest)) if counters.contains(name) => {
                text.push_str(&format!("# {kind} {name}_total {rest}\n"));
            }
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_exists_before_anything_happened() {
        let text = Telemetry::default().encode(Format::Text);
        for series in [
            "helpdesk_operator_leader 0",
            "helpdesk_operator_build_info{version=\"0.1.0\"} 1",
            "helpdesk_operator_driver_step_failures_total{driver=\"store\",step=\"check\"} 0",
            "helpdesk_operator_reconcile_errors_total{controller=\"HelpDeskAccount\"} 0",
            "process_open_fds ",
        ] {
            assert!(text.contains(series), "{series}: {text}");
        }
    }

    #[test]
    fn text_and_open_metrics_name_the_type_of_a_counter_each_in_its_way() {
        let telemetry = Telemetry::default();
        let (text, open) = (telemetry.encode(Format::Text), telemetry.encode(Format::OpenMetrics));
        assert!(
            text.contains("# TYPE helpdesk_operator_edge_probe_failures_total counter\nhelpdesk_operator_edge_probe_failures_total 0\n")
        );
        assert!(open.contains("# TYPE helpdesk_operator_edge_probe_failures counter\nhelpdesk_operator_edge_probe_failures_total 0\n"));
        assert!(!text.contains("# EOF") && open.ends_with("# EOF\n"));
        assert_eq!(Format::asked_for(Some("application/openmetrics-text;version=1.0.0,text/plain;q=0.3")), Format::OpenMetrics);
        assert_eq!(Format::asked_for(Some("*/*")), Format::Text);
        assert_eq!(Format::asked_for(None), Format::Text);
    }

    #[test]
    fn libraries_are_quiet_unless_they_are_named() {
        let plain = filter(Some("info".into())).to_string();
        assert!(plain.contains("kube=warn") && plain.contains("sqlx=warn"), "{plain}");
        assert!(filter(Some("debug,sqlx=info".into())).to_string().contains("sqlx=info"));
        assert_eq!(filter(None).to_string(), plain);
        assert_eq!(filter(Some("no such=level=x".into())).to_string(), plain);
    }

    #[test]
    fn what_is_read_before_a_scrape_is_what_is_told() {
        let telemetry = Telemetry::default();
        let (gauge, counted) = (Gauge::<i64>::default(), Arc::new(std::sync::atomic::AtomicI64::new(3)));
        telemetry.register("things", "Things", gauge.clone());
        let source = Arc::clone(&counted);
        telemetry.on_scrape(move || {
            gauge.set(source.load(std::sync::atomic::Ordering::Relaxed));
        });
        assert!(telemetry.encode(Format::Text).contains("helpdesk_operator_things 3\n"));
        counted.store(4, std::sync::atomic::Ordering::Relaxed);
        assert!(telemetry.encode(Format::Text).contains("helpdesk_operator_things 4\n"));
    }
}
