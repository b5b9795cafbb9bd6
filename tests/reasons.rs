//! Every reason that a condition can have stands in docs/operations.md.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sources;

use std::{collections::BTreeMap, fs, path::Path};

use sources::sources;

/// The words in quotes that begin with a capital and have no space.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_reason = |word: &&str| word.starts_with(|c: char| c.is_ascii_uppercase()) && word.chars().all(|c| c.is_ascii_alphanumeric());
    text.split('"').skip(1).step_by(2).filter(is_reason)
}

/// What follows `after`, up to the first `until`, wherever that occurs.
fn parts<'a>(code: &'a str, after: &'a str, until: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(after).filter_map(move |(at, _)| code[at + after.len()..].split(until).next())
}

#[test]
fn every_reason_has_its_entry_in_the_documents() {
    let mut reasons = BTreeMap::new();
    for (file, code) in sources(Path::new("src")) {
        let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
        for finding in ["Finding::yes(", "Finding::no(", "Finding::unknown("] {
            for arguments in parts(&code, finding, ")") {
                // The second argument, if it is written there.
                let reason = arguments.split(", ").nth(1).unwrap_or_default();
                reasons.extend(words(reason).map(|word| (word.to_owned(), file.clone())));
            }
        }
        for after in ["reason: \"", "Withheld(\"", "ENTERING_LATE: &str = \""] {
            reasons.extend(
                parts(&code, after, "\"")
                    .flat_map(|word| words(&format!("\"{word}\"")).map(str::to_owned).collect::<Vec<_>>())
                    .map(|word| (word, file.clone())),
            );
        }
        // Functions that give an error its reason.
        for body in parts(&code, "fn reason(", "} }") {
            if body.split('{').next().unwrap().contains("&'static str") {
                reasons.extend(words(body).map(|word| (word.to_owned(), file.clone())));
            }
        }
    }
    assert!(reasons.len() > 110, "the scan finds too little: {reasons:#?}");
    let documents = fs::read_to_string("docs/operations.md").unwrap();
    let missing: Vec<_> = reasons.iter().filter(|(reason, _)| !documents.contains(&format!("`{reason}`"))).collect();
    assert!(missing.is_empty(), "docs/operations.md says nothing about: {missing:#?}");
}
