//! What is printed.

use std::{fmt::Write, fs, time::Duration};

/// The machine that the figures are of, and what else it is doing.
pub fn machine(when: &str) {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, key: &str| {
        text.lines().find(|l| l.starts_with(key)).and_then(|l| l.split(':').nth(1)).map_or("unknown".to_owned(), |v| v.trim().to_owned())
    };
    let load = read("/proc/loadavg");
    if when == "before" {
        let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        println!(
            "machine    {cores} cores ({}), {} of memory",
            value(&read("/proc/cpuinfo"), "model name"),
            value(&read("/proc/meminfo"), "MemTotal")
        );
        println!("kernel     {}", read("/proc/sys/kernel/osrelease").trim());
        println!("operator   {}", profile(&std::env::var("BENCH_PROGRAM").unwrap_or_default()));
    }
    println!(
        "load       {} {when} (everything runs on this machine: cluster, databases, stores, this program)",
        load.split(' ').take(3).collect::<Vec<_>>().join(" ")
    );
}

/// How the measured operator was built, by where it lies.
fn profile(program: &str) -> &str {
    match program.rsplit('/').nth(1) {
        Some("release") => "built as it is shipped",
        Some("debug") => "a development build: its dependencies are optimised, its own code is not",
        _ => program,
    }
}

/// Says what is being done, to whoever waits.
pub fn tell(what: &str) {
    eprintln!("   {what}");
}

/// Figures, each beside what it is compared to.
pub struct Table {
    title: String,
    rows: Vec<[String; 4]>,
}

impl Table {
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            rows: vec![["figure", "value", "compared to", "ratio"].map(str::to_owned).to_vec().try_into().unwrap()],
        }
    }

    /// A figure that stands alone.
    pub fn figure(&mut self, what: impl Into<String>, value: impl Into<String>) {
        self.rows.push([what.into(), value.into(), String::new(), String::new()]);
    }

    /// A figure and the same by other means.
    pub fn compared(&mut self, what: impl Into<String>, seconds: f64, to: &str, other: f64) {
        self.rows.push([what.into(), time(seconds), format!("{to}: {}", time(other)), format!("{:.2}", seconds / other)]);
    }

    /// p50, p99 and the largest of these seconds.
    pub fn spread(&mut self, what: &str, values: &[f64]) {
        if values.is_empty() {
            self.figure(what, "none");
            return;
        }
        let at = |share| time(percentile(values, share));
        self.figure(format!("{what} ({})", values.len()), format!("p50 {}  p99 {}  max {}", at(0.5), at(0.99), at(1.0)));
    }

    pub fn print(&self) {
        // What stands alone may be longer than the columns.
        let compared = || self.rows.iter().filter(|r| !r[2].is_empty());
        let width = |column: usize| match column {
            0 => self.rows.iter().map(|r| r[0].chars().count()).max().unwrap_or(0),
            _ => compared().map(|r| r[column].chars().count()).max().unwrap_or(0),
        };
        let widths = [width(0), width(1), width(2)];
        let mut text = format!("\n== {}\n", self.title);
        for [what, value, to, ratio] in &self.rows {
            let line = format!("{what:<0$}  {value:<1$}  {to:<2$}  {ratio}", widths[0], widths[1], widths[2]);
            let _ = writeln!(text, "{}", line.trim_end());
        }
        println!("{text}");
    }
}

/// The value below which this share of all lies.
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let at = (share * sorted.len() as f64).ceil() as usize;
    sorted[at.clamp(1, sorted.len()) - 1]
}

pub fn time(seconds: f64) -> String {
    if seconds.abs() < 10.0 { format!("{seconds:.3} s") } else { format!("{seconds:.1} s") }
}

#[allow(clippy::cast_precision_loss)]
pub fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

pub fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
