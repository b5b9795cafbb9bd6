//! Metrics and logs. Labels never carry an account's name, because the number of time series must not grow with the
//! number of tenants.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use std::sync::{Arc, Mutex};

/// Starts writing logs as JSON to the standard output. `RUST_LOG` says how much.
pub fn log_as_json() {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,kube=warn,sqlx=warn".into()))
        .init();
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
    /// The registry of the metrics that `/metrics` serves.
    pub registry: Arc<Mutex<Registry>>,
    /// Durations of driver steps in seconds.
    pub step_seconds: Family<DriverStep, Histogram, fn() -> Histogram>,
    /// Failures of driver steps.
    pub step_failures: Family<DriverStep, Counter>,
    /// Accounts by stage.
    pub accounts: Family<StageLabel, Gauge>,
    /// How late stages were enforced, in seconds after they were due.
    pub lateness: Family<StageLabel, Histogram, fn() -> Histogram>,
    /// Accounts with a deadline that something delays, or whose delay is unknown. Accounts that only a hold delays are
    /// in [`Self::held`].
    pub overdue: Gauge,
    /// Accounts with a deadline that only a hold delays.
    pub held: Gauge,
    /// Accounts with data but without an object.
    pub accounts_lost: Family<LostLabel, Gauge>,
    /// Changes by billing that were rejected, in whole or in part.
    pub billing_refused: Family<RefusedLabel, Counter>,
    /// Backups that cannot be verified.
    pub backups_unprovable: Gauge,
    /// What keeps the process from working.
    pub obstacles: Family<ObstacleLabel, Gauge>,
    /// Backups that should be erased by now.
    pub backups_overdue: Gauge,
    /// Checks of routes from outside that found a mismatch.
    pub edge_probe_failures: Counter,
    /// Checks of apps that found a mismatch.
    pub app_probe_failures: Counter,
    /// When the first certificate of a custom host name expires, as a Unix time in seconds; 0 if there is none.
    pub edge_first_expiry: Gauge,
}

fn durations() -> Histogram {
    Histogram::new([0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0])
}

impl Default for Telemetry {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("helpdesk_operator");
        let step_seconds = Family::new_with_constructor(durations as fn() -> Histogram);
        let lateness = Family::new_with_constructor(durations as fn() -> Histogram);
        let step_failures = Family::default();
        let accounts = Family::default();
        let overdue = Gauge::default();
        let held = Gauge::default();
        let accounts_lost = Family::default();
        let billing_refused = Family::default();
        let backups_unprovable = Gauge::default();
        let obstacles = Family::default();
        let backups_overdue = Gauge::default();
        let edge_probe_failures = Counter::default();
        let app_probe_failures = Counter::default();
        let edge_first_expiry = Gauge::default();
        registry.register("driver_step_duration_seconds", "How long a step of a driver took", step_seconds.clone());
        registry.register("driver_step_failures", "Steps of a driver that failed", step_failures.clone());
        registry.register("accounts", "Accounts by stage", accounts.clone());
        registry.register("transition_lateness_seconds", "How long after it was due a stage was enforced", lateness.clone());
        registry.register(
            "accounts_overdue",
            "Accounts with a deadline that something delays, or of which nobody can tell; not those that only a hold delays",
            overdue.clone(),
        );
        registry.register("accounts_held", "Accounts with a deadline that a hold delays and nothing else", held.clone());
        registry.register("accounts_lost", "Accounts with data for which no object speaks", accounts_lost.clone());
        registry.register("billing_refused", "Words of billing that did not count, or not wholly", billing_refused.clone());
        registry.register("backups_unprovable", "Backups that are taken for unprovable", backups_unprovable.clone());
        registry.register("obstacles", "What keeps the operator from working: watches, rights, policies, the shard", obstacles.clone());
        registry.register("backups_overdue", "Backups that should be erased by now", backups_overdue.clone());
        registry.register("edge_probe_failures", "Looks at addresses from outside that found something wrong", edge_probe_failures.clone());
        registry.register("app_probe_failures", "Checks of apps that did not show the value of their tenant", app_probe_failures.clone());
        registry.register(
            "edge_first_certificate_expiry_timestamp_seconds",
            "When the first certificate of a custom name runs out; 0 without any",
            edge_first_expiry.clone(),
        );
        Self {
            registry: Arc::new(Mutex::new(registry)),
            step_seconds,
            step_failures,
            accounts,
            lateness,
            overdue,
            held,
            accounts_lost,
            billing_refused,
            backups_unprovable,
            obstacles,
            backups_overdue,
            edge_probe_failures,
            app_probe_failures,
            edge_first_expiry,
        }
    }
}

impl Telemetry {
    /// The metrics in the text format of Prometheus.
    pub fn encode(&self) -> String {
        let registry = self.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut text = String::new();
        // Writing into a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_billing_wrote_in_vain_is_counted_by_reason() {
        let telemetry = Telemetry::default();
        telemetry.billing_refused.get_or_create(&RefusedLabel { reason: "OlderSequence" }).inc();
        let text = telemetry.encode();
        assert!(text.contains("helpdesk_operator_billing_refused_total{reason=\"OlderSequence\"} 1"), "{text}");
    }
}
