//! The identity of this installation: an id that every ledger carries, the key that signs deletion certificates, and
//! the key (pepper) of keyed hashes.
//!
//! All are in the Secret `installation` in the operator's namespace and are made once. A ledger with another id belongs
//! to another installation and is never changed.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{Api, Client, api::PostParams};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
    signature::{Ed25519KeyPair, KeyPair},
};

/// The name of the Secret.
pub const SECRET: &str = "installation";

/// The identity of this installation.
pub struct Installation {
    /// A random id, in hexadecimal digits.
    pub id: String,
    signing: Ed25519KeyPair,
    pepper: hmac::Key,
}

/// Why the identity could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The Secret could not be read or made.
    #[error("failed to read or create the Secret {SECRET}")]
    Secret(#[source] Box<kube::Error>),
    /// A key of the Secret is missing or invalid.
    #[error(
        "failed to use the Secret {SECRET}: its key {0} is missing or damaged; restore it from a backup of the cluster, it cannot be made anew while ledgers carry its id"
    )]
    Damaged(&'static str),
    /// The system gave no random bytes.
    #[error("failed to get random bytes from the system")]
    Random,
}

impl Installation {
    /// Reads the identity, or makes it when there is none.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn load(client: &Client, namespace: &str) -> Result<Self, Error> {
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let wrap = |e| Error::Secret(Box::new(e));
        if let Some(secret) = api.get_opt(SECRET).await.map_err(wrap)? {
            return Self::read(&secret);
        }
        let fresh = Self::fresh_secret(namespace)?;
        match api.create(&PostParams::default(), &fresh).await {
            Ok(secret) => Self::read(&secret),
            Err(kube::Error::Api(status)) if status.code == 409 => Self::read(&api.get(SECRET).await.map_err(wrap)?),
            Err(error) => Err(wrap(error)),
        }
    }

    fn fresh_secret(namespace: &str) -> Result<Secret, Error> {
        let random = SystemRandom::new();
        let mut id = [0_u8; 16];
        let mut pepper = [0_u8; 32];
        random.fill(&mut id).map_err(|_| Error::Random)?;
        random.fill(&mut pepper).map_err(|_| Error::Random)?;
        let signing = Ed25519KeyPair::generate_pkcs8(&random).map_err(|_| Error::Random)?;
        let data = BTreeMap::from([
            ("id".to_owned(), ByteString(crate::digest::hex(&id).into_bytes())),
            ("signing.pk8".to_owned(), ByteString(signing.as_ref().to_vec())),
            ("pepper".to_owned(), ByteString(pepper.to_vec())),
        ]);
        let mut secret = Secret { data: Some(data), immutable: Some(true), ..Secret::default() };
        secret.metadata.name = Some(SECRET.into());
        secret.metadata.namespace = Some(namespace.into());
        Ok(secret)
    }

    fn read(secret: &Secret) -> Result<Self, Error> {
        let get = |key: &'static str| secret.data.as_ref().and_then(|d| d.get(key)).map(|b| b.0.as_slice()).ok_or(Error::Damaged(key));
        let id = String::from_utf8(get("id")?.to_vec()).ok().filter(|id| id.len() == 32).ok_or(Error::Damaged("id"))?;
        let signing = Ed25519KeyPair::from_pkcs8(get("signing.pk8")?).map_err(|_| Error::Damaged("signing.pk8"))?;
        Ok(Self { id, signing, pepper: hmac::Key::new(hmac::HMAC_SHA256, get("pepper")?) })
    }

    /// Signs with the installation's key (Ed25519).
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.signing.sign(message).as_ref().to_vec()
    }

    /// The public half of the signing key.
    pub fn public_key(&self) -> &[u8] {
        self.signing.public_key().as_ref()
    }

    /// A keyed hash (HMAC-SHA-256). The same text always gives the same digits in this installation. Without the key nobody
    /// can find the text by hashing guesses.
    pub fn keyed_hash(&self, text: &str) -> String {
        crate::digest::hex(hmac::sign(&self.pepper, text.as_bytes()).as_ref())
    }
}
