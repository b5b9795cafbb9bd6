//! How the accounts of a class get a change of it, and how far they are.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::InUseBy;

/// The most accounts that are upgraded at once.
pub const MOST_AT_ONCE: usize = 100;

/// How the accounts of a class get a change of it: some at a time, and no further ones after failures. Every account keeps
/// the revision of the class that it was provisioned with until it is upgraded.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Upgrade {
    /// How many accounts are upgraded at once: a number from 1 to 100, or a percentage of the accounts, rounded up and at
    /// most 100 accounts.
    #[serde(default = "tenth_of_the_accounts")]
    #[schemars(schema_with = "int_or_percent")]
    #[x_kube(validation = Rule::new("type(self) == int ? self >= 1 && self <= 100 : self.matches('^([1-9][0-9]?|100)%$')").message("maxConcurrent is a number from 1 to 100, or a percentage such as 10%"))]
    pub max_concurrent: IntOrString,
    /// How many upgrades may fail. With more, no further account is upgraded until the failed ones are ready again, or the
    /// class is changed.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub max_failures: i32,
    /// How long an upgrade may take, in seconds, before it counts as failed.
    #[serde(default = "half_an_hour")]
    #[schemars(range(min = 10, max = 86400))]
    pub progress_deadline_seconds: i32,
    /// How long the app has to be ready, in seconds, before the next account takes its turn.
    #[serde(default = "half_a_minute")]
    #[schemars(range(min = 0, max = 86400))]
    pub min_ready_seconds: i32,
    /// While it is set, no further account is upgraded. Upgrades that have begun go on.
    #[serde(default)]
    pub paused: bool,
}

fn int_or_percent(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"x-kubernetes-int-or-string": true})
}

fn tenth_of_the_accounts() -> IntOrString {
    IntOrString::String("10%".into())
}

const fn half_an_hour() -> i32 {
    1800
}

const fn half_a_minute() -> i32 {
    30
}

impl Default for Upgrade {
    fn default() -> Self {
        Self {
            max_concurrent: tenth_of_the_accounts(),
            max_failures: 0,
            progress_deadline_seconds: half_an_hour(),
            min_ready_seconds: half_a_minute(),
            paused: false,
        }
    }
}

impl Upgrade {
    /// How many of so many accounts are upgraded at once: at least one.
    pub fn at_once(&self, accounts: usize) -> usize {
        let wanted = match &self.max_concurrent {
            IntOrString::Int(number) => usize::try_from(*number).unwrap_or(1),
            IntOrString::String(percent) => {
                let percent: usize = percent.trim_end_matches('%').parse().unwrap_or(1);
                accounts.saturating_mul(percent).div_ceil(100)
            }
        };
        wanted.clamp(1, MOST_AT_ONCE)
    }

    /// Whether it says nothing but the defaults.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The observed state of the class.
#[derive(KubeSchema, Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HelpDeskClassStatus {
    /// The `metadata.generation` that the rest of the status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The `ControllerRevision` in the operator's namespace with the class as it is now. New accounts get it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The accounts whose plans name the class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_use_by: Option<InUseBy>,
    /// How many accounts have a revision of the class.
    #[serde(default)]
    pub accounts: i32,
    /// How many of them have the present one.
    #[serde(default)]
    pub updated_accounts: i32,
    /// Since when accounts are upgraded to the present revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout_started_at: Option<Time>,
    /// The accounts that are being upgraded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upgrading: Vec<UpgradingAccount>,
    /// Accounts whose upgrade failed, or whose app stopped being ready after it; the first 20 of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
    /// Ready, Reconciling, Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// An account that is being upgraded.
#[derive(JsonSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpgradingAccount {
    /// The account.
    pub account: String,
    /// Since when. The backup that is taken before the hook `migrate` is named after it.
    pub since: Time,
    /// Whether its app was ready before. If it was not, the upgrade may be what repairs it, and cannot fail.
    pub was_ready: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_rounded_up_and_at_least_one_account_is_upgraded() {
        let at_once = |max: IntOrString, accounts| Upgrade { max_concurrent: max, ..Upgrade::default() }.at_once(accounts);
        assert_eq!(at_once(IntOrString::String("10%".into()), 0), 1);
        assert_eq!(at_once(IntOrString::String("10%".into()), 41), 5);
        assert_eq!(at_once(IntOrString::String("100%".into()), 5000), 100);
        assert_eq!(at_once(IntOrString::Int(3), 2), 3);
    }
}
