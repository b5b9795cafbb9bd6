//! What an account's status says about its mail.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The mail of an account.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MailStatus {
    /// The addresses at which the app takes mail.
    pub addresses: Vec<String>,
    /// The DNS records without which mail does not arrive, or is taken for forged. Whoever has the zone publishes them; a
    /// wildcard record for all tenants does as well where the type is MX or the record is SPF.
    pub records: Vec<DnsRecord>,
}

/// A DNS record.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DnsRecord {
    /// Its name, without the final dot.
    pub name: String,
    /// Its type, such as `MX` or `TXT`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its value. A text that is longer than a string of DNS can be, 255 octets, is shown as several strings in quotes, which
    /// verifiers read as one.
    pub value: String,
}
