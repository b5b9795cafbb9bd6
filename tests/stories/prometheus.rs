//! A Prometheus that scrapes an operator of a story, and what it recorded as tests of the chart's alerts.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    cluster::{eventually, setting},
    operator::Operator,
};

/// The alerts of the chart.
const ALERTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/helpdesk-operator/files/alerts.yaml");

/// How often is scraped, in seconds.
const INTERVAL: i64 = 1;

/// A Prometheus of this story. It is ended when this value is dropped.
pub struct Prometheus {
    child: Child,
    folder: PathBuf,
    port: u16,
}

/// A moment that Prometheus has scraped, as a Unix time in seconds.
pub type Second = i64;

impl Prometheus {
    /// Starts one that scrapes nothing yet. Of plans and classes, which all shards share, it sees only those of this name.
    pub async fn start(own: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("prometheus-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("targets.json"), "[]").unwrap();
        // One operator after another is the same target.
        let config = json!({
            "global": {"scrape_interval": format!("{INTERVAL}s"), "scrape_timeout": "1s"},
            "scrape_configs": [{"job_name": "helpdesk-operator",
                "file_sd_configs": [{"files": [folder.join("targets.json")], "refresh_interval": "1s"}],
                "relabel_configs": [{"target_label": "instance", "source_labels": ["replica"]}],
                "metric_relabel_configs": [
                    {"source_labels": ["plan", "class"], "regex": format!(";|{own};|;{own}"), "action": "keep"}]}]});
        fs::write(folder.join("prometheus.yaml"), config.to_string()).unwrap();
        // The port is free until Prometheus takes it.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = fs::File::create(folder.join("log")).unwrap();
        let child = Command::new(Path::new(&setting("HELPDESK_TEST_PROMETHEUS")).join("prometheus"))
            .arg(format!("--config.file={}", folder.join("prometheus.yaml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let prometheus = Self { child, folder, port };
        eventually("a Prometheus that answers", || async { prometheus.try_query("vector(1)").await.map(drop) }).await;
        prometheus
    }

    /// Scrapes these operators, by the names of their replicas, and no others.
    pub async fn scrapes(&self, operators: &[(&str, &Operator)]) {
        let mut targets = Vec::new();
        for (replica, operator) in operators {
            let address = eventually("the address of the metrics", || async { operator.serves("metrics") }).await;
            targets.push(json!({"targets": [address], "labels": {"replica": replica}}));
        }
        // Prometheus must not read half of it.
        let fresh = self.folder.join("targets.fresh");
        fs::write(&fresh, json!(targets).to_string()).unwrap();
        fs::rename(fresh, self.folder.join("targets.json")).unwrap();
    }

    /// The samples of an expression, by their labels.
    pub async fn query(&self, expression: &str) -> Vec<Value> {
        eventually(expression, || self.try_query(expression)).await
    }

    async fn try_query(&self, expression: &str) -> Option<Vec<Value>> {
        let found = self.get("query", &[("query", expression)]).await?;
        Some(found.as_array().cloned().unwrap_or_default())
    }

    /// Waits until the expression has a sample, or none.
    pub async fn waits_for(&self, expression: &str, there: bool) {
        eventually(&format!("{expression} is there: {there}"), || async {
            (self.try_query(expression).await?.is_empty() != there).then_some(())
        })
        .await;
    }

    /// The last scrape.
    pub async fn now(&self) -> Second {
        let found = self.query("vector(time())").await;
        found[0]["value"][0].as_f64().unwrap() as Second
    }

    /// All series of the metrics that alerts are about, a value a second; `_` where there is none.
    pub async fn recorded(&self, from: Second, to: Second) -> BTreeMap<String, Vec<String>> {
        let mut all = BTreeMap::new();
        for metric in metrics_of_alerts() {
            let (from_text, to_text) = (from.to_string(), to.to_string());
            let parameters = [("query", metric.as_str()), ("start", &from_text), ("end", &to_text), ("step", "1")];
            let found = eventually(&metric, || self.get("query_range", &parameters)).await;
            for series in found.as_array().unwrap() {
                let mut values = vec!["_".to_owned(); usize::try_from(to - from + 1).unwrap()];
                for pair in series["values"].as_array().unwrap() {
                    let at = pair[0].as_f64().unwrap() as Second - from;
                    values[usize::try_from(at).unwrap()] = pair[1].as_str().unwrap().to_owned();
                }
                all.insert(name_of(series["metric"].as_object().unwrap()), values);
            }
        }
        all
    }

    async fn get(&self, what: &str, parameters: &[(&str, &str)]) -> Option<Value> {
        let parameters: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
        let path = format!("/api/v1/{what}?{}", parameters.join("&"));
        let mut connection = TcpStream::connect(("127.0.0.1", self.port)).await.ok()?;
        let request = format!("GET {path} HTTP/1.0\r\nHost: prometheus\r\n\r\n");
        connection.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        let answer: Value = serde_json::from_str(body).ok()?;
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        Some(answer["data"]["result"].clone())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A value of a URL's query.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut all, byte| {
        if byte.is_ascii_alphanumeric() {
            all.push(byte.into());
        } else {
            let _ = write!(all, "%{byte:02X}");
        }
        all
    })
}

fn name_of(metric: &serde_json::Map<String, Value>) -> String {
    let labels: Vec<_> = metric.iter().filter(|(name, _)| *name != "__name__").map(|(name, value)| format!("{name}={value}")).collect();
    format!("{}{{{}}}", metric["__name__"].as_str().unwrap(), labels.join(","))
}

/// The metrics that the alerts are about.
fn metrics_of_alerts() -> BTreeSet<String> {
    let rules = fs::read_to_string(ALERTS).unwrap();
    let expressions = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    let words = |line: &str| -> Vec<String> {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        line.split(|c| !is_word(c)).filter(|word| word.starts_with("helpdesk_operator_")).map(str::to_owned).collect()
    };
    expressions.flat_map(words).collect()
}

/// The expression of an alert.
pub fn expression_of(alert: &str) -> String {
    let rules = fs::read_to_string(ALERTS).unwrap();
    let (_, rest) = rules.split_once(&format!("- alert: {alert}\n")).unwrap_or_else(|| panic!("there is no alert {alert}"));
    rest.lines().find_map(|line| line.trim().strip_prefix("expr: ")).unwrap().to_owned()
}

/// How long the tests hold the last sample of an outage, in seconds. That is longer than any alert waits but for those that are
/// about days.
const HELD: usize = 1200;

/// Writes a test for promtool: what was recorded of an outage, whose last sample is held, makes `alert` fire; `None`: nothing
/// may fire. At its beginning nothing fires.
pub fn write_test(outage: &str, recorded: &BTreeMap<String, Vec<String>>, alert: Option<&str>) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("alerts");
    write_into(&folder, outage, recorded, alert);
    if let Ok(folder) = std::env::var("HELPDESK_RECORD") {
        write_into(Path::new(&folder), outage, recorded, alert);
    }
    let promtool = Path::new(&setting("HELPDESK_TEST_PROMETHEUS")).join("promtool");
    let tested = Command::new(promtool).args(["test", "rules"]).arg(folder.join(format!("{outage}.yaml"))).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&tested.stdout), String::from_utf8_lossy(&tested.stderr));
    assert!(tested.status.success(), "{outage}: {said}");
}

fn write_into(folder: &Path, outage: &str, recorded: &BTreeMap<String, Vec<String>>, alert: Option<&str>) {
    fs::create_dir_all(folder).unwrap();
    // Relative where the test is kept.
    let rules = if folder.starts_with(concat!(env!("CARGO_MANIFEST_DIR"), "/tests")) {
        "../../../charts/helpdesk-operator/files/alerts.yaml".to_owned()
    } else {
        ALERTS.to_owned()
    };
    let seconds = recorded.values().map(Vec::len).max().unwrap();
    let end = seconds + HELD;
    let mut text = format!(
        "# {outage}: recorded by tests/stories/night.rs in {seconds} s of a real operator; the last sample is held for {HELD} s.\n\
         rule_files: [{rules}]\nevaluation_interval: 5s\ntests:\n- interval: 1s\n  input_series:\n"
    );
    for (series, values) in recorded {
        let _ = writeln!(text, "  - series: '{series}'\n    values: '{}'", runs(values));
    }
    let expected = match alert {
        Some(alert) => format!("[{{labels: '{{alertname=\"{alert}\"}}', value: 1}}]"),
        None => "[]".to_owned(),
    };
    // Several labels of one alert count as one.
    let name = alert.map(|alert| format!("alertname=\"{alert}\",")).unwrap_or_default();
    let _ = write!(
        text,
        "  promql_expr_test:\n\
         \x20 - expr: count by (alertname) (ALERTS{{alertstate=\"firing\"}})\n    eval_time: 5s\n    exp_samples: []\n\
         \x20 - expr: count by (alertname) (group by (alertname) (ALERTS{{{name}alertstate=\"firing\"}}))\n    eval_time: {end}s\n    exp_samples: {expected}\n"
    );
    fs::write(folder.join(format!("{outage}.yaml")), text).unwrap();
}

/// The values as promtool writes them: `1x3` is four times 1, `_x3` three times
/// nothing.
fn runs(values: &[String]) -> String {
    let mut parts: Vec<(&str, usize)> = Vec::new();
    for value in values {
        match parts.last_mut() {
            Some((last, times)) if last == value => *times += 1,
            _ => parts.push((value, 1)),
        }
    }
    if let Some((_, times)) = parts.last_mut() {
        *times += HELD;
    }
    let run = |(at, (value, times)): (usize, &(&str, usize))| match (*value, at) {
        ("_", 0) => format!("_x{times}"),
        // Prometheus marks the end of a series that it does not find any more.
        ("_", _) => format!("stale _x{times}"),
        (value, _) => format!("{value}x{}", times - 1),
    };
    parts.iter().enumerate().map(run).collect::<Vec<_>>().join(" ")
}

#[test]
fn what_was_recorded_is_written_as_promtool_reads_it() {
    let values: Vec<String> = ["1", "1", "_", "_", "0"].map(str::to_owned).into();
    assert_eq!(runs(&values), format!("1x1 stale _x2 0x{HELD}"));
    assert_eq!(escaped("a b{c=\"d\"}"), "a%20b%7Bc%3D%22d%22%7D");
}

/// The queries of the chart's dashboards, with the title of their panel, as Grafana would send them.
pub fn queries_of_dashboards() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for file in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/charts/helpdesk-operator/files/dashboards")).unwrap() {
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(file.unwrap().path()).unwrap()).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let query = target["expr"].as_str().unwrap().replace("$__rate_interval", "30s").replace("$job", ".*");
                queries.push((panel["title"].as_str().unwrap().to_owned(), query));
            }
        }
    }
    queries
}
