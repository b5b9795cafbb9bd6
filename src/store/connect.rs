//! Connects a `BackupStore`: location and credentials from its spec and its Secrets, identity from its marker.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Credentials, Error, Location, MARKER, Silence, Store};
use crate::{
    api::{BackupStore, backup_store::KeyEscrow},
    clock::Moment,
};

/// The contents of the marker object, which tells this bucket from any other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Marker {
    /// The installation that wrote the marker.
    pub installation: String,
    /// The `BackupStore` for which it was written.
    pub store: String,
    /// A random id, which no other bucket has.
    pub identity: String,
    /// When the marker was written.
    pub created_at: Moment,
}

/// A store with its client, credentials and expected identity.
pub struct ConnectedStore {
    /// Where it is.
    pub location: Location,
    /// Its region. Backups of an account must not leave the region.
    pub region: String,
    /// The bucket.
    pub bucket: Store,
    /// The credentials that read and write. Movers get these.
    pub credentials: Credentials,
    /// The certificate authorities that the client trusts for this endpoint; `None`: the system's.
    pub ca_pem: Option<String>,
    /// Where a second copy of each key is kept.
    pub key_escrow: Option<KeyEscrow>,
    /// The identity in the `BackupStore`'s status; `None`: no marker has been written yet.
    pub identity: Option<String>,
    /// Objects that have another tag than the one that was proven, and the same bytes.
    pub copies: Copies,
    /// Remembers whether the store answered last. `None` in movers: each call waits for the store.
    pub silence: Option<Silence>,
}

/// Objects whose bytes were read and found to be those that were proven, although their tags differ: by their keys, with the
/// tags that they had then.
#[derive(Default)]
pub struct Copies(Mutex<HashMap<String, String>>);

impl Copies {
    /// Whether the object with this tag was read.
    pub fn is_same(&self, key: &str, etag: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).is_some_and(|read| read == etag)
    }

    /// Remembers that it was read.
    pub fn remember(&self, key: &str, etag: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), etag.to_owned());
    }
}

/// The largest marker that is read, in bytes.
const LARGEST_MARKER: u64 = 4096;

impl ConnectedStore {
    /// Reads the bucket's marker; `None` when there is none.
    ///
    /// # Errors
    /// The request failed, or the marker's JSON cannot be parsed.
    pub async fn marker(&self) -> Result<Option<Marker>, Error> {
        match &self.silence {
            Some(silence) => silence.find_out(&self.location.endpoint, self.read_marker()).await,
            None => self.read_marker().await,
        }
    }

    async fn read_marker(&self) -> Result<Option<Marker>, Error> {
        match self.bucket.read(MARKER, LARGEST_MARKER).await {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| Error::ForeignBucket(format!("its {MARKER} cannot be read as one ({e})"))),
            Err(Error::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Compares the identity in the bucket's marker with the expected one. Callers must do this before they believe an
    /// empty listing: another bucket would be empty too. If the store did not answer, one caller at a time waits for it.
    ///
    /// # Errors
    /// [`Error::Unclaimed`], [`Error::ForeignBucket`], or the request failed.
    pub async fn check_identity(&self) -> Result<(), Error> {
        let expected = self.identity.as_deref().ok_or(Error::Unclaimed)?;
        let marker = match &self.silence {
            Some(silence) => silence.ask(&self.location.endpoint, self.read_marker()).await?,
            None => self.read_marker().await?,
        };
        match marker {
            Some(marker) if marker.identity == expected => Ok(()),
            Some(marker) => Err(Error::ForeignBucket(format!("its {MARKER} says {}, and it used to be {expected}", marker.identity))),
            None => Err(Error::ForeignBucket(format!("its {MARKER} is gone; it used to be {expected}"))),
        }
    }
}

/// The connected stores, by the names of their `BackupStore`s.
pub struct Stores {
    client: Client,
    namespace: String,
    connected: Mutex<HashMap<String, (String, Arc<ConnectedStore>)>>,
}

impl Stores {
    /// Creates an empty cache. The stores' Secrets are in `namespace`, the operator's own.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned(), connected: Mutex::new(HashMap::new()) }
    }

    /// Returns the connected store. Reads its `BackupStore` and Secrets every time, and connects again if one of them
    /// changed. Sends no request to the bucket.
    ///
    /// # Errors
    /// [`Error::Configuration`], [`Error::Cluster`].
    pub async fn get(&self, name: &str) -> Result<Arc<ConnectedStore>, Error> {
        let cluster = |source| Error::Cluster { store: name.to_owned(), source: Box::new(source) };
        let object = Api::<BackupStore>::all(self.client.clone()).get_opt(name).await.map_err(cluster)?;
        let object = object.ok_or_else(|| Error::Configuration { store: name.to_owned(), why: "there is no such BackupStore".into() })?;
        self.connect(&object).await
    }

    /// Like [`Self::get`], for a `BackupStore` that the caller has read.
    ///
    /// # Errors
    /// [`Error::Configuration`], [`Error::Cluster`].
    pub async fn connect(&self, object: &BackupStore) -> Result<Arc<ConnectedStore>, Error> {
        let name = object.metadata.name.clone().unwrap_or_default();
        let spec = &object.spec;
        let identity = object.status.as_ref().and_then(|s| s.identity.clone());
        let secrets = Secrets { api: Api::namespaced(self.client.clone(), &self.namespace), store: &name };
        let rw = secrets.read(&spec.credentials_secret).await?;
        let eraser = match &spec.erase_credentials_secret {
            Some(secret) => Some(secrets.read(secret).await?),
            None => None,
        };
        let ca = match &spec.ca_secret {
            Some(secret) => Some(secrets.read(secret).await?),
            None => None,
        };
        let versions: Vec<_> =
            [Some(&rw), eraser.as_ref(), ca.as_ref()].into_iter().flatten().map(|s| &s.metadata.resource_version).collect();
        let state = format!("{spec:?} {identity:?} {versions:?}");
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, store)) = connected.get(&name)
            && *known == state
        {
            return Ok(Arc::clone(store));
        }
        let credentials = secrets.credentials(&rw)?;
        let erase_credentials = eraser.as_ref().map_or(Ok(credentials.clone()), |s| secrets.credentials(s))?;
        let ca_pem = ca.as_ref().map(|s| secrets.text(s, "ca.crt")).transpose()?;
        let location = Location {
            name: name.clone(),
            endpoint: spec.endpoint.trim_end_matches('/').to_owned(),
            signing_region: spec.signing_region.clone().unwrap_or_else(|| spec.region.clone()),
            bucket: spec.bucket.clone(),
            prefix: spec.prefix.clone(),
            expected_bucket_owner: spec.expected_bucket_owner.clone(),
        };
        let s3 = super::s3::S3::hasty(location.clone(), &credentials, &erase_credentials, ca_pem.as_deref())?;
        let store = Arc::new(ConnectedStore {
            location,
            region: spec.region.clone(),
            bucket: Store::S3(s3),
            credentials,
            ca_pem,
            key_escrow: spec.key_escrow.clone(),
            identity,
            copies: Copies::default(),
            silence: Some(Silence::default()),
        });
        connected.insert(name, (state, Arc::clone(&store)));
        Ok(store)
    }
}

/// The Secrets of one store.
struct Secrets<'s> {
    api: Api<Secret>,
    store: &'s str,
}

impl Secrets<'_> {
    async fn read(&self, name: &str) -> Result<Secret, Error> {
        let found =
            self.api.get_opt(name).await.map_err(|source| Error::Cluster { store: self.store.to_owned(), source: Box::new(source) })?;
        found.ok_or_else(|| self.wrong(format!("there is no Secret {name} in the operator's namespace")))
    }

    fn text(&self, secret: &Secret, key: &str) -> Result<String, Error> {
        let name = secret.metadata.name.as_deref().unwrap_or_default();
        let bytes = secret.data.as_ref().and_then(|d| d.get(key)).map(|b| b.0.clone()).filter(|b| !b.is_empty());
        let bytes = bytes.ok_or_else(|| self.wrong(format!("the Secret {name} has no key {key}")))?;
        String::from_utf8(bytes).map_err(|_| self.wrong(format!("the key {key} of the Secret {name} is no text")))
    }

    fn credentials(&self, secret: &Secret) -> Result<Credentials, Error> {
        Ok(Credentials {
            access_key_id: self.text(secret, "accessKeyID")?.trim().to_owned(),
            secret_access_key: Zeroizing::new(self.text(secret, "secretAccessKey")?.trim().to_owned()),
        })
    }

    fn wrong(&self, why: String) -> Error {
        Error::Configuration { store: self.store.to_owned(), why }
    }
}
