//! The metrics of the process, with the names that Prometheus' client libraries give them (Prometheus, "Writing client
//! libraries", "Process metrics").

use std::{
    fs,
    sync::atomic::{AtomicU64, Ordering},
};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

/// Clock ticks a second in `/proc`: Linux shows them to programs as hundredths, whatever it counts in (proc(5), `USER_HZ`).
const TICKS: f64 = 100.0;

/// Adds the metrics, and returns what sets them.
pub(super) fn register(registry: &mut Registry) -> impl Fn() + Send + Sync + use<> {
    let cpu = Counter::<f64, AtomicU64>::default();
    let memory = Gauge::<i64>::default();
    let open = Gauge::<i64>::default();
    let limit = Gauge::<i64>::default();
    let started = Gauge::<f64, AtomicU64>::default();
    registry.register("process_cpu_seconds", "Processor time that was used, in seconds", cpu.clone());
    registry.register("process_resident_memory_bytes", "Memory in use, in bytes", memory.clone());
    registry.register("process_open_fds", "Open file descriptors", open.clone());
    registry.register("process_max_fds", "How many file descriptors may be open", limit.clone());
    registry.register("process_start_time_seconds", "When the process started, as a Unix time in seconds", started.clone());
    let counted = AtomicU64::new(0);
    move || {
        let Some(stat) = read("stat") else { return };
        let (used, start) = ticks(&stat).unwrap_or_default();
        let before = counted.swap(used, Ordering::Relaxed);
        #[allow(clippy::cast_precision_loss)]
        cpu.inc_by(used.saturating_sub(before) as f64 / TICKS);
        memory.set(read("status").and_then(|status| resident(&status)).unwrap_or_default());
        open.set(fs::read_dir("/proc/self/fd").map_or(0, |all| i64::try_from(all.count()).unwrap_or(i64::MAX)));
        limit.set(read("limits").and_then(|limits| max_open(&limits)).unwrap_or_default());
        let booted = fs::read_to_string("/proc/stat").ok().and_then(|stat| booted(&stat)).unwrap_or_default();
        #[allow(clippy::cast_precision_loss)]
        started.set(booted + start as f64 / TICKS);
    }
}

fn read(file: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/self/{file}")).ok()
}

/// The processor time of the process, in user and system mode, and when it started after boot; in ticks.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    // The second field is the name in parentheses, which may contain spaces.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some((number(14)? + number(15)?, number(22)?))
}

fn resident(status: &str) -> Option<i64> {
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix("kB")?;
    kibibytes.trim().parse::<i64>().ok().map(|n| n * 1024)
}

fn max_open(limits: &str) -> Option<i64> {
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

/// When the machine was started, as a Unix time in seconds.
fn booted(stat: &str) -> Option<f64> {
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_from_proc_whatever_the_program_is_called() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 4 0 900 1 2 18446744073709551615";
        assert_eq!(ticks(stat), Some((200, 900)));
        assert_eq!(resident("Name:\tx\nVmRSS:\t   2048 kB\n"), Some(2_097_152));
        assert_eq!(max_open("Limit  Soft Limit  Hard Limit  Units\nMax open files            1024    4096    files\n"), Some(1024));
        assert_eq!(booted("cpu 1 2\nbtime 1700000000\n"), Some(1_700_000_000.0));
    }

    #[test]
    fn the_process_tells_its_memory_and_its_age() {
        let mut registry = Registry::default();
        register(&mut registry)();
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let value = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<f64>().ok()).unwrap();
        assert!(value("process_resident_memory_bytes ") > 1e6, "{text}");
        assert!(value("process_start_time_seconds ") > 1.7e9, "{text}");
        assert!(value("process_max_fds ") >= value("process_open_fds "), "{text}");
    }
}
