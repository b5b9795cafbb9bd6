//! The secrets by which a tenant's app proves whose it is. They are in a Secret of the tenant's namespace, which a Role
//! there lets the intake read.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt};
use ring::{hmac, rand::SystemRandom};
use zeroize::Zeroizing;

use super::{directory::Directory, recipient::is_of};
use crate::{
    api::ACCOUNT_UID,
    app::{
        dkim::PublicKey,
        mail::SECRET,
        secrets::{MAIL_DKIM_KEY, MAIL_PASSWORD, MAIL_TOKEN},
    },
    cluster::{ClusterError, During},
};

/// For how long a token that was read counts.
const KEEP: Duration = Duration::from_secs(30);

/// What the operator gave to a tenant's app and to the intake.
struct Shared {
    /// The uid of the account, which is the owner of what the filter learns.
    uid: String,
    /// With which the app teaches the filter.
    token: Zeroizing<String>,
    /// With which it sends mail.
    password: Zeroizing<String>,
    /// With which that mail is signed.
    signing: Option<SigningKey>,
}

/// The key that signs what a tenant's app sends.
#[derive(Clone)]
pub(super) struct SigningKey {
    /// Its name in DNS.
    pub(super) selector: String,
    /// PKCS #8, in Base64.
    pub(super) private: Zeroizing<String>,
}

/// What an app shows to prove whose it is.
#[derive(Clone, Copy)]
pub(super) enum Proof<'a> {
    /// The token, for the filter.
    Token(&'a str),
    /// The password, for sending mail.
    Password(&'a str),
}

struct Read {
    shared: Option<Arc<Shared>>,
    at: Instant,
}

/// Checks tokens.
pub(super) struct Tokens {
    client: Client,
    directory: Arc<Directory>,
    read: Mutex<HashMap<String, Read>>,
}

impl Tokens {
    /// Checks tokens of the accounts of this directory.
    pub(super) fn new(client: Client, directory: Arc<Directory>) -> Self {
        Self { client, directory, read: Mutex::default() }
    }

    /// The uid of the account, if it is open and this is its own secret.
    pub(super) async fn uid_if_valid(&self, account: &str, proof: Proof<'_>) -> Result<Option<String>, ClusterError> {
        let Some((account, namespace)) = self.directory.open_account(account) else { return Ok(None) };
        let known = self.shared_with(&namespace).await?;
        let known = known.filter(|known| {
            let (own, shown) = match proof {
                Proof::Token(token) => (&known.token, token),
                Proof::Password(password) => (&known.password, password),
            };
            is_of(&account, &known.uid) && !own.is_empty() && are_equal(own, shown)
        });
        Ok(known.map(|known| known.uid.clone()))
    }

    /// The key that signs what the app of this account sends, if the account is open and has one.
    pub(super) async fn signing_key(&self, account: &str) -> Result<Option<SigningKey>, ClusterError> {
        let Some((account, namespace)) = self.directory.open_account(account) else { return Ok(None) };
        let known = self.shared_with(&namespace).await?;
        Ok(known.filter(|known| is_of(&account, &known.uid)).and_then(|known| known.signing.clone()))
    }

    async fn shared_with(&self, namespace: &str) -> Result<Option<Arc<Shared>>, ClusterError> {
        {
            let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            read.retain(|_, read| read.at.elapsed() < KEEP);
            if let Some(found) = read.get(namespace) {
                return Ok(found.shared.clone());
            }
        }
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secret = secrets.get_opt(SECRET).await.during("read the token of a tenant")?;
        let shared = secret.and_then(|secret| {
            let uid = secret.annotations().get(ACCOUNT_UID)?.clone();
            let mut data = secret.data?;
            let mut text = |key: &str| Some(Zeroizing::new(String::from_utf8(data.remove(key)?.0).ok()?));
            let private = text(MAIL_DKIM_KEY);
            let signing = private.and_then(|private| Some(SigningKey { selector: PublicKey::of(&private)?.selector, private }));
            Some(Shared { uid, token: text(MAIL_TOKEN)?, password: text(MAIL_PASSWORD)?, signing })
        });
        let shared = shared.map(Arc::new);
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.insert(namespace.to_owned(), Read { shared: shared.clone(), at: Instant::now() });
        Ok(shared)
    }
}

/// Whether two secrets are equal. How long it takes says nothing about where they differ: their digests under a key that
/// nobody knows are compared.
fn are_equal(one: &str, other: &str) -> bool {
    let Ok(key) = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()) else { return false };
    hmac::verify(&key, other.as_bytes(), hmac::sign(&key, one.as_bytes()).as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_equal_to_itself_only() {
        assert!(are_equal("abc", "abc"));
        for other in ["", "ab", "abcd", "abd"] {
            assert!(!are_equal("abc", other));
        }
    }
}
