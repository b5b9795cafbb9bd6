//! What an account's status says about its app.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The app of an account.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppStatus {
    /// The `HelpDeskClass`.
    pub class: String,
    /// The revision of the class that the account has.
    pub revision: String,
}
