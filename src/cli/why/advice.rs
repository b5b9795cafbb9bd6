//! What to do about a reason. The text is the one of `docs/operations.md`, so that there is one place that says it.

use serde::Serialize;

use super::chain::Link;

const OPERATIONS: &str = include_str!("../../../docs/operations.md");
const FILE: &str = "docs/operations.md";

/// What to do, and where more is written about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Advice {
    /// What to do.
    pub text: String,
    /// The section of the documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub see: Option<String>,
}

/// What to do about the first cause of a chain: what is known of the cause itself, then what the documents say of the last
/// reason that they have a row for.
pub(super) fn advice(chain: &[Link]) -> Vec<Advice> {
    let own = chain.last().and_then(|link| link.remedy.clone()).map(|text| Advice { text, see: None });
    let documented = chain.iter().rev().find_map(of_link);
    own.into_iter().chain(documented).collect()
}

fn of_link(link: &Link) -> Option<Advice> {
    let (condition, reason) = (link.condition.as_deref()?, link.reason.as_deref()?);
    // An account has the reasons of its server too.
    let of_server = (link.object.kind == "HelpDeskAccount").then_some("DatabaseServer");
    std::iter::once(link.object.kind).chain(of_server).find_map(|kind| {
        let section = section(kind)?;
        let text = rows(section, condition, reason).or_else(|| paragraph(section, condition, reason))?;
        Some(Advice { text: plain(&text), see: Some(format!("{FILE}#{}", kind.to_lowercase())) })
    })
}

/// The lines of the section about a kind.
fn section(kind: &str) -> Option<&'static str> {
    let heading = format!("\n### {kind}\n");
    let from = OPERATIONS.find(&heading)? + heading.len();
    let rest = &OPERATIONS[from..];
    Some(&rest[..rest.find("\n## ").into_iter().chain(rest.find("\n### ")).min().unwrap_or(rest.len())])
}

/// The last cell of the row for a reason, in the table about a condition. Ready has the reasons of other conditions too, and
/// Stalled those of Ready.
fn rows(section: &str, condition: &str, reason: &str) -> Option<String> {
    let word = format!("`{reason}`");
    let mut about = String::new();
    let mut others = None;
    let lines: Vec<&str> = section.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        let is_header = lines.get(at + 1).is_some_and(|next| next.starts_with("|---"));
        if line.starts_with('`') {
            about = first_word(line);
        } else if line.starts_with('|') {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            if is_header {
                about = if cells[0].starts_with('`') { first_word(cells[0]) } else { about };
            } else if cells[0].contains(&word) {
                let last = cells.last().map(|cell| (*cell).to_owned());
                if about == condition {
                    return last;
                }
                others = others.or(last);
            }
        }
    }
    others.filter(|_| matches!(condition, "Ready" | "Stalled" | "DatabaseReady" | "Overdue"))
}

/// The condition that a text in backticks begins with.
fn first_word(text: &str) -> String {
    text.trim_start_matches('`').chars().take_while(|letter| letter.is_alphanumeric()).collect()
}

/// The paragraph about a condition, or the part of it that is about the reason.
fn paragraph(section: &str, condition: &str, reason: &str) -> Option<String> {
    let begins = [format!("`{condition}="), format!("`{condition}`"), format!("`Stalled={reason}")];
    let paragraphs = section.split("\n\n").filter(|text| text.starts_with('`'));
    let about = |text: &&str| begins.iter().any(|begin| text.starts_with(begin)) && !text.contains("\n|");
    let candidates: Vec<&str> = paragraphs.filter(about).collect();
    let word = |text: &&&str| text.contains(reason);
    let text = candidates.iter().find(word).or_else(|| candidates.first().filter(|_| condition != "Ready" && condition != "Stalled"))?;
    let part = text.split("; ").find(|part| part.contains(&format!("`{reason}`")) && part.contains(": "));
    Some(part.unwrap_or(text).to_owned())
}

/// Without the marks of Markdown; a link is followed by its address.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("](") {
        let Some(open) = rest[..at].rfind('[') else { break };
        let Some(end) = rest[at..].find(')') else { break };
        let (name, target) = (&rest[open + 1..at], &rest[at + 2..at + end]);
        let target = if target.starts_with('#') {
            format!("{FILE}{target}")
        } else {
            target.replace("../", "").replacen("classes.md", "docs/classes.md", 1)
        };
        out.push_str(&format!("{}{name} ({target})", &rest[..open]));
        rest = &rest[at + end + 1..];
    }
    out.push_str(rest);
    out.replace('`', "").replace("**", "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::why::chain::Object;

    fn told(kind: &'static str, condition: &str, reason: &str) -> Option<Advice> {
        of_link(&Link { condition: Some(condition.into()), reason: Some(reason.into()), ..Link::seen(Object::of(kind, "x"), "something") })
    }

    #[test]
    fn the_row_of_a_reason_is_the_one_of_its_condition() {
        let text = |kind, condition, reason| {
            told(kind, condition, reason).unwrap_or_else(|| panic!("nothing of {kind}, {condition}, {reason}")).text
        };
        assert!(text("HelpDeskAccount", "Ready", "NoPlacement").starts_with("create the plan"));
        assert!(text("HelpDeskAccount", "AppReady", "Foreign").contains("remove or rename it"));
        assert!(text("HelpDeskAccount", "Overdue", "Paused").contains("spec.paused to false"));
        assert!(text("HelpDeskAccount", "EdgeReady", "GatewayUnusable").contains("what the message names"));
        assert!(text("DatabaseServer", "Ready", "SecretMissing").starts_with("create or correct the Secret"));
        assert!(text("HelpDeskAccount", "Stalled", "SecretMissing").starts_with("create or correct the Secret"));
        assert!(text("BackupStore", "Ready", "AccessDenied").contains("credentials"));
        assert!(text("ColdBackup", "Ready", "MoverFailed").contains("read the message"));
        assert!(text("HelpDeskPlan", "Ready", "NoStore").contains("create what the message names"));
        assert!(text("HelpDeskAccount", "BackupsCurrent", "NoStore").contains("create the BackupStore that the plan names"));
        assert!(text("HelpDeskAccount", "Overdue", "Brake").contains("docs/operations.md#the-brake-holds"));
    }

    /// Every reason that may be written for one of these kinds has something to do about it.
    #[test]
    fn every_reason_of_the_documents_is_found_again() {
        for kind in ["HelpDeskAccount", "DatabaseServer", "BackupStore", "ColdBackup", "HelpDeskPlan", "HelpDeskClass"] {
            let rows = section(kind).unwrap().lines().filter(|line| line.starts_with("| `"));
            let reasons = rows.filter_map(|line| line.split(" | ").next()).flat_map(|cell| cell.split('`').skip(1).step_by(2));
            for reason in reasons.filter(|word| word.chars().all(char::is_alphanumeric) && !["Ready", "True"].contains(word)) {
                assert!(told(kind, "Ready", reason).is_some(), "{kind}: {reason}");
            }
        }
    }

    #[test]
    fn links_keep_their_address() {
        assert_eq!(
            plain("[look](#here) at **it**, see [classes](classes.md#up) and `x`"),
            "look (docs/operations.md#here) at it, see classes (docs/classes.md#up) and x"
        );
    }

    #[test]
    fn every_section_that_is_named_is_there() {
        let sources = [include_str!("objects.rs"), include_str!("operator.rs"), include_str!("causes.rs")];
        for anchor in sources.iter().flat_map(|source| source.split("docs/operations.md#").skip(1)) {
            let anchor: String = anchor.chars().take_while(|letter| letter.is_ascii_lowercase() || *letter == '-').collect();
            let heading = |line: &&str| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-") == anchor;
            assert!(OPERATIONS.lines().filter(|line| line.starts_with('#')).any(|line| heading(&line)), "{anchor}");
        }
    }
}
