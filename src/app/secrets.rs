//! The secrets of a tenant's app: the first password of its administrator, and the secrets that its class lists. Pure.
//!
//! Each is made once for an account. What the app wrote into the tenant's database may be encrypted with it, so a second
//! one is never made in place of one that was lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::{Error, dkim};
use crate::api::{
    HelpDeskClassSpec,
    help_desk_class::{GeneratedSecret, SecretFormat},
};

/// The name of the first password of the app's administrator.
pub const ADMIN: &str = "admin";

/// The name of the token that the app and the mail intake share, where the class takes mail.
pub const MAIL_TOKEN: &str = "mail.inboundToken";

/// The name of the password with which the app sends mail, where the class takes mail.
pub const MAIL_PASSWORD: &str = "mail.password";

/// The name of the key that signs what the app sends, where the class takes mail.
pub const MAIL_DKIM_KEY: &str = "mail.dkimKey";

/// How long the first password is, in letters and digits.
const ADMIN_LENGTH: u16 = 40;

/// Secrets by name. They are wiped from memory when dropped, and never shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AppSecrets(BTreeMap<String, Zeroizing<String>>);

impl AppSecrets {
    /// The value of a secret.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.as_str())
    }

    /// Adds a secret, or replaces it.
    pub fn insert(&mut self, name: String, value: Zeroizing<String>) {
        self.0.insert(name, value);
    }

    /// Adds each secret of `others` that is not there yet.
    pub fn fill_up(&mut self, others: Self) {
        for (name, value) in others.0 {
            self.0.entry(name).or_insert(value);
        }
    }

    /// Puts `others` in the place of those of the same names.
    pub fn replace(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Keeps the secrets whose names are listed.
    pub fn keep(&mut self, names: &BTreeSet<String>) {
        self.0.retain(|name, _| names.contains(name));
    }

    /// Removes each secret that `others` have with the same value.
    pub fn remove_all(&mut self, others: &Self) {
        self.0.retain(|name, value| others.0.get(name) != Some(value));
    }

    /// Names and values, in order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a key of the operator's Secret of a tenant holds a secret of the app. The others hold database passwords.
    pub fn is_name(key: &str) -> bool {
        [ADMIN, MAIL_TOKEN, MAIL_PASSWORD, MAIL_DKIM_KEY].contains(&key) || key.starts_with("secrets.")
    }
}

impl fmt::Debug for AppSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The name of a secret that a class lists. It is the name of its variable too.
pub fn name_of(secret: &GeneratedSecret) -> String {
    format!("secrets.{}", secret.name)
}

/// What a secret is made of.
#[derive(Clone, Copy)]
enum Content {
    /// Random letters, so many.
    Text(SecretFormat, u16),
    /// A key for DKIM.
    DkimKey,
}

/// The secrets that an app of this class gets, by name.
fn wanted(class: &HelpDeskClassSpec) -> impl Iterator<Item = (String, Content)> {
    let password = Content::Text(SecretFormat::Alnum, ADMIN_LENGTH);
    let mail = class.mail.iter().flat_map(move |_| [(MAIL_TOKEN, password), (MAIL_PASSWORD, password), (MAIL_DKIM_KEY, Content::DkimKey)]);
    let own = std::iter::once((ADMIN, password)).chain(mail).map(|(name, content)| (name.to_owned(), content));
    own.chain(class.secrets.iter().map(|secret| (name_of(secret), Content::Text(secret.format, secret.length))))
}

/// Which secrets of the class the operator's Secret of the tenant does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// They were never handed to the app: they can be made.
    pub new: BTreeSet<String>,
    /// They were handed to the app: they have to be found again.
    pub lost: BTreeSet<String>,
}

/// Which secrets of the class are missing, and whether the app was given them before.
pub fn missing(class: &HelpDeskClassSpec, stored: &AppSecrets, handed_out: &BTreeSet<String>) -> Missing {
    let missing = wanted(class).map(|(name, _)| name).filter(|name| stored.get(name).is_none());
    let (lost, new) = missing.partition(|name| handed_out.contains(name));
    Missing { new, lost }
}

/// Makes the secrets of these names, in the formats of the class.
///
/// # Errors
/// [`Error::Random`].
pub fn make(class: &HelpDeskClassSpec, names: &BTreeSet<String>) -> Result<AppSecrets, Error> {
    let mut made = AppSecrets::default();
    for (name, content) in wanted(class).filter(|(name, _)| names.contains(name)) {
        let value = match content {
            Content::Text(format, length) => random_text(format, length.into())?,
            Content::DkimKey => dkim::make()?,
        };
        made.insert(name, value);
    }
    Ok(made)
}

/// A random text. Every letter of the alphabet is equally likely.
fn random_text(format: SecretFormat, length: usize) -> Result<Zeroizing<String>, Error> {
    let alphabet: &[u8] = match format {
        SecretFormat::Hex => b"0123456789abcdef",
        SecretFormat::Alnum => b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
    };
    // Above the largest multiple of the alphabet's size, some letters would come more often.
    let fair = 256 - 256 % alphabet.len();
    let random = SystemRandom::new();
    let mut text = Zeroizing::new(String::with_capacity(length));
    let mut bytes = Zeroizing::new([0_u8; 64]);
    while text.len() < length {
        random.fill(bytes.as_mut_slice()).map_err(|_| Error::Random)?;
        for byte in bytes.iter().map(|byte| usize::from(*byte)).filter(|byte| *byte < fair) {
            if text.len() < length {
                text.push(char::from(alphabet[byte % alphabet.len()]));
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn class() -> HelpDeskClassSpec {
        serde_json::from_value(json!({
            "app": {"name": "echo", "version": "1"},
            "components": [{"name": "web", "port": 8080}],
            "routes": [{"path": "/", "component": "web", "audience": "public"}],
            "secrets": [{"name": "session", "format": "hex", "length": 128}, {"name": "disk", "format": "alnum", "length": 32}],
        }))
        .unwrap()
    }

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_secret_is_made_once_and_one_that_was_handed_out_is_never_made_again() {
        let mut stored = AppSecrets::default();
        let all = names(&["admin", "secrets.session", "secrets.disk"]);
        assert_eq!(missing(&class(), &stored, &names(&[])), Missing { new: all.clone(), lost: names(&[]) });
        assert_eq!(missing(&class(), &stored, &all), Missing { new: names(&[]), lost: all });

        stored.insert("admin".into(), Zeroizing::new("first".into()));
        stored.insert("secrets.session".into(), Zeroizing::new("ab".into()));
        let found = missing(&class(), &stored, &names(&["admin", "secrets.session"]));
        assert_eq!(found, Missing { new: names(&["secrets.disk"]), lost: names(&[]) });
    }

    #[test]
    fn secrets_have_the_format_and_the_length_of_the_class_and_are_never_the_same() {
        let all = names(&["admin", "secrets.session", "secrets.disk"]);
        let (one, two) = (make(&class(), &all).unwrap(), make(&class(), &all).unwrap());
        let hex = one.get("secrets.session").unwrap();
        assert!(hex.len() == 128 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{hex}");
        let letters = one.get("secrets.disk").unwrap();
        assert!(letters.len() == 32 && letters.bytes().all(|b| b.is_ascii_alphanumeric()), "{letters}");
        assert_eq!(one.get("admin").unwrap().len(), 40);
        assert!(one.iter().zip(two.iter()).all(|(a, b)| a.0 == b.0 && a.1 != b.1));
        assert!(!format!("{one:?}").contains(hex), "a secret is shown");
    }

    #[test]
    fn what_is_there_already_is_kept_when_lost_ones_are_filled_up() {
        let of = |values: &[(&str, &str)]| {
            let mut secrets = AppSecrets::default();
            values.iter().for_each(|(name, value)| secrets.insert((*name).into(), Zeroizing::new((*value).into())));
            secrets
        };
        let mut stored = of(&[("admin", "new")]);
        stored.fill_up(of(&[("admin", "old"), ("secrets.disk", "x"), ("secrets.other", "y")]));
        stored.keep(&names(&["admin", "secrets.disk"]));
        assert_eq!(stored, of(&[("admin", "new"), ("secrets.disk", "x")]));
        stored.remove_all(&of(&[("admin", "old"), ("secrets.disk", "x")]));
        assert_eq!(stored, of(&[("admin", "new")]), "another value of the same name was taken for the same secret");
    }
}
