//! Which bucket, with which credentials: from a `BackupStore` and its Secrets to a connected [`Store`].

use std::{collections::HashMap, fmt, sync::Arc};

use kube::Client;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::{Error, Store};
use crate::clock::Moment;

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

/// What the marker object says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Marker {
    /// The installation that took the bucket into use.
    pub installation: String,
    /// The `BackupStore` under which it did.
    pub store: String,
    /// A random id: another bucket has another.
    pub identity: String,
    /// When.
    pub created_at: Moment,
}

/// A store that can be spoken to.
pub struct Connected {
    /// Where it is.
    pub location: Location,
    /// Its region, which the backups of an account must not leave.
    pub region: String,
    /// With the credentials that read and write; erasures use the others where there are any.
    pub store: Store,
    /// What movers get: the credentials that read and write.
    pub credentials: Credentials,
    /// The certificates that its address is checked against; `None`: the system's.
    pub ca_pem: Option<String>,
    /// Where keys are kept a second time.
    pub key_escrow: Option<crate::api::backup_store::KeyEscrow>,
    /// The identity that the `BackupStore`'s status remembers.
    pub identity: Option<String>,
}

/// The connected stores, by the names of their `BackupStore`s.
pub struct Stores {
    client: Client,
    namespace: String,
    connected: Mutex<HashMap<String, (String, Arc<Connected>)>>,
}

impl Stores {
    /// Stores whose Secrets are in `namespace`, the operator's own.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned(), connected: Mutex::new(HashMap::new()) }
    }
}
