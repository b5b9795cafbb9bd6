//! Where a bucket is, and the credentials for it.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The object that says whose bucket this is; below the store's prefix.
pub const MARKER: &str = "helpdesk-operator.json";

/// Where a store is; everything about it that is no secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Location {
    /// The `BackupStore`.
    pub name: String,
    /// Its address.
    pub endpoint: String,
    /// The region that requests are signed for.
    pub signing_region: String,
    /// The bucket.
    pub bucket: String,
    /// The folder in the bucket; empty, or with a slash at its end.
    pub prefix: String,
    /// The account that must own the bucket.
    pub expected_bucket_owner: Option<String>,
}

/// A pair of keys. Never shown.
#[derive(Clone)]
pub struct Credentials {
    /// The public half, by which the store finds the other.
    pub access_key_id: String,
    /// The secret half.
    pub secret_access_key: Zeroizing<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}
