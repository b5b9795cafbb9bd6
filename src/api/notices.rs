//! When notices of stages are sent, by plan.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Window, stage::Stage};

/// How long before each stage a notice goes to the endpoint that the operator was given, so that the company can write to the
/// owner in time. After each of these stages was entered, one more notice goes. An empty list: none before that stage.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Notices {
    /// Before an account is blocked.
    #[schemars(length(max = 8))]
    pub before_blocked: Vec<Window>,
    /// Before it is terminated.
    #[schemars(length(max = 8))]
    pub before_terminated: Vec<Window>,
    /// Before its database is deleted.
    #[schemars(length(max = 8))]
    pub before_deleted: Vec<Window>,
    /// Before its cold backup is erased.
    #[schemars(length(max = 8))]
    pub before_expired: Vec<Window>,
}

impl Default for Notices {
    fn default() -> Self {
        let usual = || vec![Window::days(7), Window::days(1)];
        Self { before_blocked: usual(), before_terminated: usual(), before_deleted: usual(), before_expired: usual() }
    }
}

impl Notices {
    /// How long before this stage notices go.
    pub fn before(&self, stage: Stage) -> &[Window] {
        match stage {
            Stage::Trial | Stage::Active => &[],
            Stage::Blocked => &self.before_blocked,
            Stage::Terminated => &self.before_terminated,
            Stage::Deleted => &self.before_deleted,
            Stage::Expired => &self.before_expired,
        }
    }
}
