//! Which accounts use a plan or a class.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The finalizer of a plan or a class. It is set while accounts use the object.
pub const IN_USE: &str = "helpdesk-operator.io/in-use";

/// How many names are listed.
const NAMES: usize = 5;

/// The accounts that use an object, except those that have expired. While there are any, the object stays although it was
/// deleted. It may lag behind by a few seconds.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InUseBy {
    /// How many there are.
    pub accounts: i32,
    /// The names of the first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

impl InUseBy {
    /// Of the accounts with these names.
    pub fn of(mut names: Vec<String>) -> Self {
        let accounts = i32::try_from(names.len()).unwrap_or(i32::MAX);
        names.sort_unstable();
        names.truncate(NAMES);
        Self { accounts, names }
    }
}

impl std::fmt::Display for InUseBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let more = if usize::try_from(self.accounts).is_ok_and(|all| all > self.names.len()) { ", …" } else { "" };
        let word = if self.accounts == 1 { "account" } else { "accounts" };
        write!(f, "{} {word} ({}{more})", self.accounts, self.names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_names_stand_for_all() {
        let names = |range: std::ops::Range<u8>| range.rev().map(|n| format!("a{n}")).collect::<Vec<_>>();
        assert_eq!(InUseBy::of(names(0..1)).to_string(), "1 account (a0)");
        assert_eq!(InUseBy::of(names(0..2)).to_string(), "2 accounts (a0, a1)");
        assert_eq!(InUseBy::of(names(1..8)).to_string(), "7 accounts (a1, a2, a3, a4, a5, …)");
    }
}
