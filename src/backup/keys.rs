//! The keys of a backup: one to read it and one to sign for it, made for this backup alone.
//!
//! | Secret | holds | lives |
//! |---|---|---|
//! | `backup-key-<name>` | the age identity, the public half of the signing key, the secrets of the tenant's app, the escrowed text as it was stored | until the backup is erased |
//! | `backup-signing-<name>` | the private half of the signing key | until the backup is proven |
//!
//! The signing Secret is made first and the key Secret follows from it, so a crash between the two loses nothing. The
//! escrow holds the identity once more, encrypted to the offline recovery recipient: nobody here can read it.
//!
//! The secrets of the app belong to the backup: without them the app cannot read what it encrypted in its database. They
//! are copied when the keys are made, so they live exactly as long as the backup can be read. In escrow they are comments
//! below the identity, so that the whole text is an identity file of age.
//!
//! Destroying the key means that both the Secret and every version of the escrow are gone. What remains is what the
//! cluster's own backups of etcd hold.

use std::{collections::BTreeMap, fmt, io::Write as _, str::FromStr as _};

use age::{secrecy::ExposeSecret as _, x25519};
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use zeroize::Zeroizing;

use crate::{
    api::{ACCOUNT_LABEL, ACCOUNT_UID, ColdBackup, backup_store::KeyEscrow},
    app::secrets::AppSecrets,
    store::{self, ConnectedStore},
};

const IDENTITY: &str = "identity";
const RECIPIENT: &str = "recipient";
const VERIFYING: &str = "verifying-key";
const ESCROW: &str = "escrow.age";
const SIGNING: &str = "signing.pk8";
/// Begins the keys of the app's secrets.
const APP: &str = "app.";

/// Why the keys are not at hand.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cluster could not be asked.
    #[error("failed to read or write the Secret {name}")]
    Secret {
        /// The Secret.
        name: String,
        /// What the client said.
        #[source]
        source: Box<kube::Error>,
    },
    /// They could not be listed.
    #[error("failed to list the keys of backups")]
    Secrets(#[source] Box<kube::Error>),
    /// It belongs to something else or is damaged.
    #[error("failed to use the Secret {name}: {why}")]
    Damaged {
        /// The Secret.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The recovery recipient is no public key of age.
    #[error("failed to escrow the key: recoveryRecipient is no X25519 public key of age")]
    Recipient,
    /// Encryption failed.
    #[error("failed to encrypt the key for its escrow")]
    Encrypt(#[source] std::io::Error),
    /// No randomness.
    #[error("failed to get random bytes from the system")]
    Random,
    /// The escrow's store.
    #[error("failed to reach the escrow")]
    Store(#[from] store::Error),
}

/// The keys of one backup.
pub struct Keys {
    /// The secret half: reads the backup.
    pub identity: Zeroizing<String>,
    /// The public half, which the backup is encrypted to; its id.
    pub recipient: String,
    /// Checks the signatures of the backup's reports.
    pub verifying: Vec<u8>,
    /// Identity and secrets of the app as the escrow keeps them, encrypted to the recovery recipient.
    pub escrow: Option<Vec<u8>>,
    /// The secrets of the tenant's app as they were when the keys were made.
    pub app_secrets: AppSecrets,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({})", self.recipient)
    }
}

/// The Secret with the key of a backup.
pub fn key_secret(backup: &str) -> String {
    format!("backup-key-{backup}")
}

/// The Secret with the private signing key of a backup.
pub fn signing_secret(backup: &str) -> String {
    format!("backup-signing-{backup}")
}

/// Where the escrow keeps the key of a backup: a folder, so that every version of it can be erased.
pub fn escrow_folder(folder: &str) -> String {
    format!("keys/{folder}")
}

fn escrow_key(folder: &str) -> String {
    format!("{}identity.age", escrow_folder(folder))
}

/// The keys in the operator's namespace.
pub struct KeyRing {
    api: Api<Secret>,
    namespace: String,
}

impl KeyRing {
    /// The keys in `namespace`.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), namespace: namespace.to_owned() }
    }

    /// The backup's keys; made when there are none, with these secrets of the tenant's app.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn ensure(&self, backup: &ColdBackup, escrow: Option<&KeyEscrow>, app_secrets: &AppSecrets) -> Result<Keys, Error> {
        if let Some(keys) = self.load(backup).await? {
            return Ok(keys);
        }
        let signing = self.signing(backup).await?;
        let fresh = fresh(&self.namespace, backup, &signing, escrow, app_secrets)?;
        read(&self.create(fresh, backup).await?, backup)
    }

    /// The backup's keys; `None` when there are none.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn load(&self, backup: &ColdBackup) -> Result<Option<Keys>, Error> {
        self.get(&key_secret(name(backup))).await?.map(|secret| read(&secret, backup)).transpose()
    }

    /// Destroys the keys in the cluster and returns once they were seen to be gone.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn destroy(&self, backup: &ColdBackup) -> Result<(), Error> {
        self.destroy_signing(backup).await?;
        self.delete(&key_secret(name(backup)), backup).await
    }

    /// Destroys the private signing key: nothing can be signed for the backup any more.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn destroy_signing(&self, backup: &ColdBackup) -> Result<(), Error> {
        self.delete(&signing_secret(name(backup)), backup).await
    }

    /// How many keys of the account's backups there are.
    ///
    /// # Errors
    /// [`Error::Secrets`].
    pub async fn count(&self, account_uid: &str) -> Result<u64, Error> {
        let labelled = ListParams::default().labels(&format!("{KEY_OF}={account_uid}"));
        let secrets = self.api.list_metadata(&labelled).await.map_err(|e| Error::Secrets(Box::new(e)))?;
        Ok(secrets.items.len() as u64)
    }

    /// The private key that signs the backup's reports (PKCS#8), for its mover; made when there is none.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn signing_key(&self, backup: &ColdBackup) -> Result<Zeroizing<Vec<u8>>, Error> {
        let name = signing_secret(name(backup));
        let secret = match self.get(&name).await? {
            Some(secret) => secret,
            None => {
                let pair = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| Error::Random)?;
                let data = BTreeMap::from([(SIGNING.to_owned(), ByteString(pair.as_ref().to_vec()))]);
                self.create(secret(&self.namespace, &name, backup, data), backup).await?
            }
        };
        belongs(&secret, backup)?;
        let bytes = data(&secret, SIGNING).ok_or(Error::Damaged { name, why: "it has no key signing.pk8" })?;
        Ok(Zeroizing::new(bytes.to_vec()))
    }

    async fn signing(&self, backup: &ColdBackup) -> Result<Ed25519KeyPair, Error> {
        let damaged = |_| Error::Damaged { name: signing_secret(name(backup)), why: "its signing.pk8 is no Ed25519 key" };
        Ed25519KeyPair::from_pkcs8(&self.signing_key(backup).await?).map_err(damaged)
    }

    async fn create(&self, secret: Secret, backup: &ColdBackup) -> Result<Secret, Error> {
        let name = secret.metadata.name.clone().unwrap_or_default();
        let made = match self.api.create(&PostParams::default(), &secret).await {
            Ok(made) => made,
            // Another try was faster: what it made counts.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                self.api.get(&name).await.map_err(|source| Error::Secret { name, source: Box::new(source) })?
            }
            Err(source) => return Err(Error::Secret { name, source: Box::new(source) }),
        };
        belongs(&made, backup)?;
        Ok(made)
    }

    async fn get(&self, name: &str) -> Result<Option<Secret>, Error> {
        self.api.get_opt(name).await.map_err(|source| Error::Secret { name: name.to_owned(), source: Box::new(source) })
    }

    async fn delete(&self, name: &str, backup: &ColdBackup) -> Result<(), Error> {
        let wrap = |source| Error::Secret { name: name.to_owned(), source: Box::new(source) };
        let Some(secret) = self.get(name).await? else { return Ok(()) };
        belongs(&secret, backup)?;
        let precondition = kube::api::Preconditions { uid: secret.metadata.uid.clone(), resource_version: None };
        match self.api.delete(name, &DeleteParams { preconditions: Some(precondition), ..DeleteParams::default() }).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(source) => return Err(wrap(source)),
        }
        match self.get(name).await? {
            None => Ok(()),
            Some(_) => Err(Error::Damaged { name: name.to_owned(), why: "it was deleted and is still there: a finalizer keeps it" }),
        }
    }
}

fn fresh(
    namespace: &str,
    backup: &ColdBackup,
    signing: &Ed25519KeyPair,
    escrow: Option<&KeyEscrow>,
    app_secrets: &AppSecrets,
) -> Result<Secret, Error> {
    let identity = x25519::Identity::generate();
    let text = identity.to_string();
    let mut data = BTreeMap::from([
        (IDENTITY.to_owned(), ByteString(text.expose_secret().as_bytes().to_vec())),
        (RECIPIENT.to_owned(), ByteString(identity.to_public().to_string().into_bytes())),
        (VERIFYING.to_owned(), ByteString(signing.public_key().as_ref().to_vec())),
    ]);
    data.extend(app_secrets.iter().map(|(name, value)| (format!("{APP}{name}"), ByteString(value.as_bytes().to_vec()))));
    if let Some(escrow) = escrow {
        let recovery = x25519::Recipient::from_str(&escrow.recovery_recipient).map_err(|_| Error::Recipient)?;
        let file = identity_file(text.expose_secret(), app_secrets);
        data.insert(ESCROW.to_owned(), ByteString(encrypt(&recovery, file.as_bytes())?));
    }
    Ok(secret(namespace, &key_secret(name(backup)), backup, data))
}

/// An identity file of age: the identity, then the secrets of the app as comments.
fn identity_file(identity: &str, app_secrets: &AppSecrets) -> Zeroizing<String> {
    let mut file = Zeroizing::new(identity.to_owned());
    for (name, value) in app_secrets.iter() {
        file.push_str("\n# app secret ");
        file.push_str(name);
        file.push('=');
        // The operator makes no line breaks, but a person may have written the value.
        file.push_str(&Zeroizing::new(value.replace('\n', "\n# ")));
    }
    file
}

fn secret(namespace: &str, name: &str, backup: &ColdBackup, data: BTreeMap<String, ByteString>) -> Secret {
    let metadata = ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(
            [(ACCOUNT_LABEL.to_owned(), backup.spec.account.clone()), (KEY_OF.to_owned(), backup.spec.account_uid.clone())].into(),
        ),
        annotations: Some([(ACCOUNT_UID.to_owned(), backup.spec.account_uid.clone())].into()),
        ..ObjectMeta::default()
    };
    Secret { metadata, data: Some(data), immutable: Some(true), ..Secret::default() }
}

/// Label on the Secrets of backups; its value is the account's uid, so that what is left of an account can be counted.
pub const KEY_OF: &str = "helpdesk-operator.io/backup-key-of";

fn name(backup: &ColdBackup) -> &str {
    backup.metadata.name.as_deref().unwrap_or_default()
}

fn data<'s>(secret: &'s Secret, key: &str) -> Option<&'s [u8]> {
    secret.data.as_ref()?.get(key).map(|b| b.0.as_slice())
}

/// A Secret of this name may have been made for another account's backup, or by hand: it is left alone then.
fn belongs(secret: &Secret, backup: &ColdBackup) -> Result<(), Error> {
    let marked = secret.metadata.annotations.as_ref().and_then(|a| a.get(ACCOUNT_UID));
    if marked == Some(&backup.spec.account_uid) {
        return Ok(());
    }
    Err(Error::Damaged {
        name: secret.metadata.name.clone().unwrap_or_default(),
        why: "it carries another account's uid, or none: it is not this backup's",
    })
}

fn read(secret: &Secret, backup: &ColdBackup) -> Result<Keys, Error> {
    belongs(secret, backup)?;
    let damaged = |why| Error::Damaged { name: secret.metadata.name.clone().unwrap_or_default(), why };
    let text = |key| data(secret, key).and_then(|b| String::from_utf8(b.to_vec()).ok());
    let identity = Zeroizing::new(text(IDENTITY).ok_or(damaged("it has no key identity"))?);
    let parsed = x25519::Identity::from_str(&identity).map_err(|_| damaged("its identity is no X25519 key of age"))?;
    let recipient = text(RECIPIENT).ok_or(damaged("it has no key recipient"))?;
    if parsed.to_public().to_string() != recipient {
        return Err(damaged("its identity and its recipient are no pair"));
    }
    let verifying = data(secret, VERIFYING).filter(|k| k.len() == 32).ok_or(damaged("it has no verifying-key"))?.to_vec();
    let mut app_secrets = AppSecrets::default();
    for (key, value) in secret.data.iter().flatten() {
        let Some(name) = key.strip_prefix(APP) else { continue };
        let value = String::from_utf8(value.0.clone()).map_err(|_| damaged("a secret of the app in it is no text"))?;
        app_secrets.insert(name.to_owned(), Zeroizing::new(value));
    }
    Ok(Keys { identity, recipient, verifying, escrow: data(secret, ESCROW).map(<[u8]>::to_vec), app_secrets })
}

/// Encrypts a few bytes to one recipient.
pub(crate) fn encrypt(recipient: &x25519::Recipient, plain: &[u8]) -> Result<Vec<u8>, Error> {
    let encryptor = age::Encryptor::with_recipients(std::iter::once(recipient as &dyn age::Recipient)).map_err(|_| Error::Recipient)?;
    let mut sealed = Vec::new();
    let mut writer = encryptor.wrap_output(&mut sealed).map_err(Error::Encrypt)?;
    writer.write_all(plain).map_err(Error::Encrypt)?;
    writer.finish().map_err(Error::Encrypt)?;
    Ok(sealed)
}

/// Stores the escrowed key, once.
///
/// # Errors
/// [`Error::Store`].
pub async fn put_escrow(escrow: &ConnectedStore, folder: &str, sealed: &[u8]) -> Result<(), Error> {
    escrow.check_identity().await?;
    escrow.bucket.write_once(&escrow_key(folder), sealed.to_vec()).await?;
    Ok(())
}

/// Reads the escrow back: whether it holds the very bytes that were stored.
///
/// # Errors
/// [`Error::Store`] when nothing is known.
pub async fn has_escrow(escrow: &ConnectedStore, folder: &str, sealed: &[u8]) -> Result<bool, Error> {
    escrow.check_identity().await?;
    match escrow.bucket.read(&escrow_key(folder), sealed.len() as u64).await {
        Ok(bytes) => Ok(bytes == sealed),
        Err(store::Error::Missing(_) | store::Error::Altered { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Destroys every version of the escrowed key and returns once none was listed any more.
///
/// # Errors
/// [`Error::Store`].
pub async fn destroy_escrow(escrow: &ConnectedStore, folder: &str) -> Result<store::Erased, Error> {
    escrow.check_identity().await?;
    Ok(escrow.bucket.erase_prefix(&escrow_folder(folder)).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{BackupReason, VerifyMode};

    fn backup() -> ColdBackup {
        let (due, end) = ("2026-11-23T10:00:03Z".parse().unwrap(), "2026-12-23T10:00:03Z".parse().unwrap());
        crate::backup::build("acme", "8f3a0000-0000-4000-8000-000000000000", "eu-cold", end, BackupReason::Frozen, VerifyMode::Restore, due)
    }

    #[test]
    fn the_key_secret_opens_what_was_encrypted_and_the_escrow_opens_for_recovery_only() {
        let recovery = x25519::Identity::generate();
        let escrow = KeyEscrow { store: "eu-escrow".into(), recovery_recipient: recovery.to_public().to_string() };
        let signing = super::super::manifest::tests::key();
        let secret = fresh("operator", &backup(), &signing, Some(&escrow), &AppSecrets::default()).unwrap();
        let keys = read(&secret, &backup()).unwrap();

        let recipient = x25519::Recipient::from_str(&keys.recipient).unwrap();
        let sealed = encrypt(&recipient, b"all of it").unwrap();
        let identity = x25519::Identity::from_str(&keys.identity).unwrap();
        assert_eq!(age::decrypt(&identity, &sealed).unwrap(), b"all of it");

        let escrowed = keys.escrow.unwrap();
        assert_eq!(age::decrypt(&recovery, &escrowed).unwrap(), keys.identity.as_bytes());
        assert!(age::decrypt(&identity, &escrowed).is_err());
    }

    #[test]
    fn secrets_of_the_app_are_kept_with_the_key_and_the_escrowed_text_is_still_an_identity_file() {
        let recovery = x25519::Identity::generate();
        let escrow = KeyEscrow { store: "eu-escrow".into(), recovery_recipient: recovery.to_public().to_string() };
        let mut app_secrets = AppSecrets::default();
        app_secrets.insert("admin".into(), Zeroizing::new("Ab12".into()));
        app_secrets.insert("secrets.session".into(), Zeroizing::new("cd34".into()));
        let secret = fresh("operator", &backup(), &super::super::manifest::tests::key(), Some(&escrow), &app_secrets).unwrap();
        let keys = read(&secret, &backup()).unwrap();
        assert_eq!(keys.app_secrets, app_secrets);

        let file = String::from_utf8(age::decrypt(&recovery, &keys.escrow.unwrap()).unwrap()).unwrap();
        assert_eq!(file, format!("{}\n# app secret admin=Ab12\n# app secret secrets.session=cd34", *keys.identity));
        let identities = age::IdentityFile::from_buffer(file.as_bytes()).unwrap().into_identities().unwrap();
        let sealed = encrypt(&x25519::Recipient::from_str(&keys.recipient).unwrap(), b"all of it").unwrap();
        let decryptor = age::Decryptor::new(&sealed[..]).unwrap();
        let mut opened = Vec::new();
        let mut reader = decryptor.decrypt(identities.iter().map(|identity| -> &dyn age::Identity { identity.as_ref() })).unwrap();
        std::io::Read::read_to_end(&mut reader, &mut opened).unwrap();
        assert_eq!(opened, b"all of it");
    }

    #[test]
    fn a_secret_of_another_account_is_not_used() {
        let secret = fresh("operator", &backup(), &super::super::manifest::tests::key(), None, &AppSecrets::default()).unwrap();
        let mut other = backup();
        other.spec.account_uid = "00000000-0000-4000-8000-000000000000".into();
        assert!(matches!(read(&secret, &other), Err(Error::Damaged { .. })));
    }
}
