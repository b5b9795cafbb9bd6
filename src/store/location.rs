//! Where a bucket is, and the credentials for it.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The key of the marker object, below the store's prefix.
pub const MARKER: &str = "helpdesk-operator.json";

/// The address of a bucket and how requests to it are made, without credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Location {
    /// The `BackupStore`.
    pub name: String,
    /// The URL of the S3 endpoint.
    pub endpoint: String,
    /// The region for which requests are signed (Signature Version 4).
    pub signing_region: String,
    /// The bucket.
    pub bucket: String,
    /// The folder in the bucket; empty, or with a slash at its end.
    pub prefix: String,
    /// The AWS account that must own the bucket (`x-amz-expected-bucket-owner`).
    pub expected_bucket_owner: Option<String>,
}

/// An access key. `Debug` never prints it.
#[derive(Clone)]
pub struct Credentials {
    /// The access key ID, which is not secret.
    pub access_key_id: String,
    /// The secret access key.
    pub secret_access_key: Zeroizing<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}
