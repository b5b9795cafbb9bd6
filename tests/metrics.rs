//! What is said about metrics in several places is the same in all of them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sources;

use std::{collections::BTreeSet, fs, path::Path};

use sources::sources;

/// The text between `before` and the next double quote, wherever that occurs.
fn quoted<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    text.match_indices(before).filter_map(move |(at, _)| text[at + before.len()..].split_once('"'))
}

#[test]
fn every_step_that_is_measured_has_its_series_from_the_start() {
    let series = helpdesk_operator::telemetry::Telemetry::default().encode(helpdesk_operator::telemetry::Format::Text);
    let mut measured = BTreeSet::new();
    for (_, source) in sources(Path::new("src")) {
        let source = source.replace(char::is_whitespace, "").replace("\",\"", "\", \"");
        for (driver, rest) in quoted(&source, ".measure(\"") {
            measured.insert((driver.to_owned(), quoted(rest, ", \"").next().unwrap().0.to_owned()));
        }
    }
    assert!(measured.len() > 15, "{measured:?}");
    for (driver, step) in measured {
        let name = format!("helpdesk_operator_driver_step_failures_total{{driver=\"{driver}\",step=\"{step}\"}} 0");
        assert!(series.contains(&name), "{name} is not in STEPS of src/telemetry.rs");
    }
}

#[test]
fn every_metric_in_alerts_dashboards_and_documents_exists() {
    let code: String = sources(Path::new("src")).into_iter().map(|(_, code)| code).collect();
    let mut texts = vec![fs::read_to_string("docs/operations.md").unwrap()];
    for folder in ["charts/helpdesk-operator/files", "charts/helpdesk-operator/files/dashboards"] {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        texts
            .extend(entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).map(|path| fs::read_to_string(path).unwrap()));
    }
    let text = texts.concat();
    let mut seen = 0;
    for (at, prefix) in text.match_indices("helpdesk_operator_") {
        let name: String = text[at + prefix.len()..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
        let bare = ["_total", "_bucket", "_count", "_sum"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(&name);
        assert!(
            code.contains(&format!("\"{name}\"")) || code.contains(&format!("\"{bare}\"")),
            "there is no metric helpdesk_operator_{name}"
        );
        seen += 1;
    }
    assert!(seen > 30, "{seen}");
}

#[test]
fn every_alert_has_its_entry_in_the_documents() {
    let alerts = fs::read_to_string("charts/helpdesk-operator/files/alerts.yaml").unwrap();
    let documents = fs::read_to_string("docs/operations.md").unwrap();
    let names: Vec<_> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(names.len() > 15);
    for name in names {
        assert!(documents.contains(&format!("\n### {name}\n")), "docs/operations.md has no heading {name}");
        let link = format!("runbook_url: docs/operations.md#{}\n", name.to_lowercase());
        assert!(alerts.contains(&link), "{name} has no runbook_url {link}");
    }
}
