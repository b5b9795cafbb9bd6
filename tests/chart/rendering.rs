//! What Helm makes of the chart.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

use serde::Deserialize;
use serde_json::Value;

pub const RELEASE: &str = "helpdesk-operator";
/// The oldest Kubernetes that the chart is for, and the one of the development cluster.
pub const KUBERNETES: [&str; 2] = ["1.34", "1.37"];

/// The chart in this repository.
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/helpdesk-operator")
}

/// A program of the development cluster's tools, which are fetched unless they are there.
fn tool(path: &str) -> PathBuf {
    static TOOLS: OnceLock<PathBuf> = OnceLock::new();
    let bin = TOOLS.get_or_init(|| {
        let cluster = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/cluster");
        let fetched = Command::new(&cluster).arg("tools").output().expect("tests/cluster/cluster runs");
        assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
        let bin = Command::new(&cluster).arg("bin").output().expect("tests/cluster/cluster runs");
        PathBuf::from(String::from_utf8_lossy(&bin.stdout).trim())
    });
    bin.join(path)
}

fn run(command: &mut Command, input: &str) -> Output {
    let mut running = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    running.stdin.take().expect("it has an input").write_all(input.as_bytes()).expect("it reads its input");
    running.wait_with_output().expect("it ends")
}

fn helm(chart: &Path, arguments: &[&str], values: &str) -> Output {
    let mut command = Command::new(tool("helm"));
    command.args(arguments).arg(chart).args(["--namespace", RELEASE, "--values", "-"]);
    run(&mut command, values)
}

/// The objects of a chart with these values.
pub struct Objects(pub Vec<Value>);

impl Objects {
    pub fn of(values: &str) -> Self {
        Self::of_chart(&chart(), values)
    }

    pub fn of_chart(chart: &Path, values: &str) -> Self {
        let rendered = helm(chart, &["template", RELEASE], values);
        assert!(rendered.status.success(), "{values}: {}", String::from_utf8_lossy(&rendered.stderr));
        let text = String::from_utf8(rendered.stdout).expect("objects are text");
        let documents = serde_yaml_ng::Deserializer::from_str(&text).map(|d| Value::deserialize(d).expect("objects are YAML"));
        Self(documents.filter(|document| !document.is_null()).collect())
    }

    pub fn all(&self, kind: &str) -> impl Iterator<Item = &Value> {
        let kind = kind.to_owned();
        self.0.iter().filter(move |object| object["kind"] == kind)
    }

    pub fn find(&self, kind: &str, name: &str) -> Option<&Value> {
        self.all(kind).find(|object| object["metadata"]["name"] == name)
    }

    pub fn get(&self, kind: &str, name: &str) -> &Value {
        self.find(kind, name).unwrap_or_else(|| panic!("there is no {kind} {name}"))
    }

    pub fn deployment(&self) -> &Value {
        self.all("Deployment").next().expect("there is a Deployment")
    }

    /// The pod of the Deployment or of the StatefulSet.
    pub fn pod(&self, kind: &str) -> &Value {
        &self.all(kind).next().unwrap_or_else(|| panic!("there is no {kind}"))["spec"]["template"]["spec"]
    }
}

/// Why a chart with these values is refused.
pub fn refusal(values: &str) -> String {
    let rendered = helm(&chart(), &["template", RELEASE], values);
    assert!(!rendered.status.success(), "was not refused: {values}");
    String::from_utf8(rendered.stderr).expect("a refusal is text")
}

/// What a person reads after an installation.
pub fn notes(values: &str) -> String {
    let rendered = helm(&chart(), &["install", "--dry-run=client", RELEASE], values);
    assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
    let text = String::from_utf8(rendered.stdout).expect("notes are text");
    text.split_once("NOTES:\n").expect("there are notes").1.to_owned()
}

/// What the API server's schemas say against these objects. Kinds that Kubernetes does not have itself are left out.
pub fn complaints(objects: &Objects, kubernetes: &str) -> String {
    let core: Vec<&Value> = objects
        .0
        .iter()
        .filter(|o| !o["apiVersion"].as_str().expect("an object has a version").contains("monitoring.coreos.com"))
        .collect();
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("chart-{}-{:?}.yaml", std::process::id(), std::thread::current().id()));
    // As JSON: what reads it takes the text yes for a truth where YAML does not quote it.
    let text: String = core.iter().map(|object| format!("---\n{object}\n")).collect();
    std::fs::write(&file, text).expect("the folder of tests can be written");
    let mut command = Command::new(tool("../kubernetes-validate/bin/kubernetes-validate"));
    let validated = run(command.args(["--strict", "--quiet", "--kubernetes-version", kubernetes]).arg(&file), "");
    std::fs::remove_file(&file).expect("the file can be removed");
    match validated.status.success() {
        true => String::new(),
        false => String::from_utf8_lossy(&[validated.stdout, validated.stderr].concat()).into_owned(),
    }
}
