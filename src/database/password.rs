//! Passwords, and what a server needs to check them (SCRAM-SHA-256, RFC 5802 and RFC 7677).

use std::{fmt, num::NonZeroU32};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::{
    digest, hmac, pbkdf2,
    rand::{SecureRandom, SystemRandom},
};
use zeroize::Zeroizing;

use super::Error;

/// A password: wiped from memory when dropped, and never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<String>);

/// Letters of generated passwords; nothing that a URI, a shell or a configuration file would have to escape.
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Length of generated passwords: 238 bits.
const LENGTH: usize = 40;

impl Password {
    /// A fresh random password of 40 letters and digits.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn generate() -> Result<Self, Error> {
        let random = SystemRandom::new();
        let mut text = Zeroizing::new(String::with_capacity(LENGTH));
        let mut bytes = Zeroizing::new([0_u8; 64]);
        while text.len() < LENGTH {
            random.fill(bytes.as_mut_slice()).map_err(|_| Error::Random)?;
            // 248 is the largest multiple of 62 in a byte: above it some letters would come more often.
            for byte in bytes.iter().filter(|byte| **byte < 248) {
                if text.len() < LENGTH {
                    text.push(char::from(ALPHABET[usize::from(byte % 62)]));
                }
            }
        }
        Ok(Self(text))
    }

    /// A password that was made elsewhere or read from a Secret.
    pub fn from_text(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The password itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What a server needs to check this password, with a fresh salt.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn verifier(&self) -> Result<Verifier, Error> {
        let mut salt = [0_u8; 16];
        SystemRandom::new().fill(&mut salt).map_err(|_| Error::Random)?;
        Ok(Verifier::derive(&self.0, &salt))
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// PostgreSQL's default, which its `scram_iterations` raises; passwords here are random, so more would buy nothing.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4096).expect("4096 is not zero");

/// What a server keeps instead of a password. Only good for trying passwords out, so not shown either.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier(Zeroizing<String>);

impl Verifier {
    fn derive(password: &str, salt: &[u8]) -> Self {
        let mut salted = Zeroizing::new([0_u8; digest::SHA256_OUTPUT_LEN]);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, salt, password.as_bytes(), salted.as_mut_slice());
        let key = hmac::Key::new(hmac::HMAC_SHA256, salted.as_slice());
        let client_key = hmac::sign(&key, b"Client Key");
        let stored_key = digest::digest(&digest::SHA256, client_key.as_ref());
        let server_key = hmac::sign(&key, b"Server Key");
        Self(Zeroizing::new(format!(
            "SCRAM-SHA-256${ITERATIONS}:{}${}:{}",
            BASE64_STANDARD.encode(salt),
            BASE64_STANDARD.encode(stored_key),
            BASE64_STANDARD.encode(server_key)
        )))
    }

    /// In PostgreSQL's notation, which `PASSWORD '…'` takes as it is.
    pub(in crate::database) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3: the server's signature over its exchange proves the verifier's keys.
    #[test]
    fn the_example_of_rfc_7677_is_verified() {
        let salt = BASE64_STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let verifier = Verifier::derive("pencil", &salt);
        let (_, keys) = verifier.expose().rsplit_once('$').unwrap();
        let (stored_key, server_key) = keys.split_once(':').unwrap();
        let exchange = b"n=user,r=rOprNGfwEbeRWgbNEkqO,\
            r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
            c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";

        let server_key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64_STANDARD.decode(server_key).unwrap());
        assert_eq!(BASE64_STANDARD.encode(hmac::sign(&server_key, exchange)), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");

        // ClientProof XOR HMAC(StoredKey, exchange) is the client's key, whose digest is the stored key.
        let stored_key = BASE64_STANDARD.decode(stored_key).unwrap();
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &stored_key), exchange);
        let proof = BASE64_STANDARD.decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=").unwrap();
        let client_key: Vec<u8> = proof.iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        assert_eq!(digest::digest(&digest::SHA256, &client_key).as_ref(), stored_key);
    }

    #[test]
    fn generated_passwords_are_40_letters_and_digits_and_never_the_same() {
        let (one, two) = (Password::generate().unwrap(), Password::generate().unwrap());
        assert_eq!(one.expose().len(), 40);
        assert!(one.expose().bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_ne!(one.expose(), two.expose());
    }

    #[test]
    fn secrets_are_not_shown() {
        let password = Password::from_text("hunter2".into());
        let shown = format!("{password:?} {:?}", password.verifier().unwrap());
        assert!(!shown.contains("hunter2") && !shown.contains("SCRAM"), "{shown}");
    }
}
