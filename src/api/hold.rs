//! A legal hold, on an account or on one backup.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// A legal hold.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hold {
    /// The reason of the hold, such as the legal case.
    #[schemars(length(min = 1, max = 500))]
    #[x_kube(validation = Rule::new(r"!self.matches('[\\x00-\\x1f\\x7f-\\x9f\\x{202a}-\\x{202e}\\x{2066}-\\x{2069}]')").message("reason must not contain control characters or characters that turn the direction of text"))]
    pub reason: String,
    /// The person or authority that ordered the hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 254))]
    #[x_kube(validation = Rule::new(r"!self.matches('[\\x00-\\x1f\\x7f-\\x9f\\x{202a}-\\x{202e}\\x{2066}-\\x{2069}]')").message("by must not contain control characters or characters that turn the direction of text"))]
    pub by: Option<String>,
}
