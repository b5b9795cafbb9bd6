//! What commands print: text for people, JSON and YAML for programs.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use k8s_openapi::jiff::SignedDuration;
use serde::Serialize;

use super::error::Error;
use crate::clock::Moment;

/// In which form a command prints what it found.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct OutputArgs {
    /// The form of the output; without it, text for people.
    #[arg(short, long, value_enum, value_name = "FORM")]
    pub output: Option<Form>,
}

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// JSON.
    Json,
    /// YAML.
    Yaml,
    /// Text with more in it.
    Wide,
}

impl OutputArgs {
    /// Whether the text has more in it.
    pub fn is_wide(self) -> bool {
        self.output == Some(Form::Wide)
    }

    /// Prints the data, or the text where text is asked for.
    pub fn print(self, data: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Error> {
        let bad = |error: &dyn std::fmt::Display| Error::Format(error.to_string());
        let text = match self.output {
            Some(Form::Json) => serde_json::to_string_pretty(data).map_err(|error| bad(&error))? + "\n",
            Some(Form::Yaml) => serde_yaml_ng::to_string(data).map_err(|error| bad(&error))?,
            Some(Form::Wide) | None => text(),
        };
        write(text.as_bytes())
    }
}

/// Writes to the standard output. A reader that has closed its end, such as `head`, has read enough.
pub(super) fn write(bytes: &[u8]) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Error::Output),
    }
}

/// How wide text is at most.
const WIDTH: usize = 110;

/// A text in lines of at most [`WIDTH`] columns, all of them indented.
pub(super) fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines.iter().map(|line| format!("{:indent$}{line}\n", "")).collect()
}

/// Rows with columns of the same width.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// A span of time in its largest unit and the next smaller one, such as `3d4h`.
pub(super) fn span(duration: SignedDuration) -> String {
    const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];
    let seconds = duration.as_secs().unsigned_abs();
    let largest = UNITS.iter().position(|(_, unit)| seconds >= *unit).unwrap_or(UNITS.len() - 1);
    let (name, unit) = UNITS[largest];
    let next = UNITS.get(largest + 1).map(|(name, smaller)| (name, seconds % unit / smaller)).filter(|(_, count)| *count > 0);
    format!("{}{name}{}", seconds / unit, next.map(|(name, count)| format!("{count}{name}")).unwrap_or_default())
}

/// A moment, and how far it is from now: `2026-11-23T10:00:00Z (in 3d)`.
pub(super) fn when(at: Moment, now: Moment) -> String {
    if at > now { format!("{at} (in {})", span(at.duration_since(now))) } else { format!("{at} ({} ago)", span(now.duration_since(at))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Moment {
        text.parse().unwrap()
    }

    #[test]
    fn a_moment_says_how_far_it_is() {
        let now = at("2026-11-23T10:00:00Z");
        assert_eq!(when(at("2026-11-26T14:00:05Z"), now), "2026-11-26T14:00:05Z (in 3d4h)");
        assert_eq!(when(at("2026-11-23T09:59:30Z"), now), "2026-11-23T09:59:30Z (30s ago)");
        assert_eq!(when(now, now), "2026-11-23T10:00:00Z (0s ago)");
        assert_eq!(when(at("2026-11-20T09:59:59Z"), now), "2026-11-20T09:59:59Z (3d ago)", "seconds say nothing beside days");
    }

    #[test]
    fn long_text_is_broken_between_words_and_indented() {
        let text = wrapped(&"word ".repeat(60), 4);
        assert!(text.lines().count() > 1 && text.lines().all(|line| line.starts_with("    word") && line.len() <= WIDTH), "{text}");
        assert_eq!(wrapped("one", 2), "  one\n");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["a".to_owned(), "b".into()], vec!["long".into(), "c".into()]];
        assert_eq!(table(&rows), "a      b\nlong   c\n");
    }
}
