//! Spans of time as users write them: `14d`, `12h`, `90s`, or sums such as `1d12h`.

use std::{borrow::Cow, fmt, str::FromStr};

use k8s_openapi::jiff::SignedDuration;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A span of time, positive and at least one second.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Window(i64);

/// Why a text is no [`Window`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("failed to read {0:?} as a span of time: write sums of whole d, h, m and s, such as 14d or 1d12h")]
pub struct ParseWindow(String);

/// The pattern that the API server accepts: sums of positive parts, so a span is never zero or negative.
pub const PATTERN: &str = "^([1-9][0-9]{0,4}[dhms])+$";

impl Window {
    /// A span of whole seconds; anything below one second is one second.
    pub const fn seconds(seconds: i64) -> Self {
        Self(if seconds < 1 { 1 } else { seconds })
    }

    /// A span of whole hours.
    pub const fn hours(hours: i64) -> Self {
        Self::seconds(hours * 3600)
    }

    /// A span of whole days of 24 hours.
    pub const fn days(days: i64) -> Self {
        Self::seconds(days * 86_400)
    }

    /// The length in seconds.
    pub const fn as_seconds(self) -> i64 {
        self.0
    }

    /// The length as a duration.
    pub const fn duration(self) -> SignedDuration {
        SignedDuration::from_secs(self.0)
    }
}

impl FromStr for Window {
    type Err = ParseWindow;

    fn from_str(text: &str) -> Result<Self, ParseWindow> {
        let refuse = || ParseWindow(text.chars().take(40).collect());
        if text.is_empty() || text.len() > 24 {
            return Err(refuse());
        }
        let (mut total, mut number) = (0_i64, None::<i64>);
        for letter in text.chars() {
            let unit = match letter {
                '0'..='9' => {
                    let digit = i64::from(letter as u32 - '0' as u32);
                    number = Some(number.unwrap_or(0).checked_mul(10).and_then(|n| n.checked_add(digit)).ok_or_else(refuse)?);
                    continue;
                }
                'd' => 86_400,
                'h' => 3_600,
                'm' => 60,
                's' => 1,
                _ => return Err(refuse()),
            };
            let part = number.take().filter(|n| (1..100_000).contains(n)).ok_or_else(refuse)?;
            total += part * unit;
        }
        if number.is_some() { Err(refuse()) } else { Ok(Self(total)) }
    }
}

impl TryFrom<String> for Window {
    type Error = ParseWindow;

    fn try_from(text: String) -> Result<Self, ParseWindow> {
        text.parse()
    }
}

impl From<Window> for String {
    fn from(window: Window) -> Self {
        window.to_string()
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        for (unit, seconds) in [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)] {
            if rest >= seconds {
                write!(f, "{}{unit}", rest / seconds)?;
                rest %= seconds;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl JsonSchema for Window {
    fn schema_name() -> Cow<'static, str> {
        "Window".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // A rule instead of a pattern, because a rule can have a message.
        json_schema!({ "type": "string", "maxLength": 24, "x-kubernetes-validations": [{
            "rule": format!("self.matches('{PATTERN}')"),
            "message": "a span of time is a sum of whole days, hours, minutes and seconds of at least one second, such as 14d, 12h, 90s or 1d12h",
        }] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sums_of_units_add_up() {
        assert_eq!("1d12h".parse(), Ok(Window::hours(36)));
        assert_eq!("90s".parse(), Ok(Window::seconds(90)));
    }

    #[test]
    fn zero_negative_fractional_and_unitless_spans_are_refused() {
        for text in ["", "0s", "0d", "-1d", "1.5h", "14", "d", "1w", "1d ", "１４d", "999999d", "1d12"] {
            assert!(text.parse::<Window>().is_err(), "{text:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(seconds in 1_i64..8_000_000_000) {
            let window = Window::seconds(seconds);
            prop_assert_eq!(window.to_string().parse::<Window>(), Ok(window));
        }
    }
}
