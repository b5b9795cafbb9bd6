//! The key that signs what a tenant's app sends (DKIM, RFC 6376), and the DNS record that verifiers read. Pure.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rsa::{
    PrivateKey,
    pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, EncodePublicKey as _},
};
use zeroize::Zeroizing;

use super::Error;
use crate::digest::sha256;

/// The size of a key. Not every verifier knows Ed25519, and one of more bits needs not be supported (RFC 8301).
const BITS: usize = 2048;
/// The longest string of a TXT record, in octets.
const STRING: usize = 255;

/// Makes a private key, as PKCS #8 in Base64. That takes a tenth of a second or so of computing.
///
/// # Errors
/// [`Error::Random`].
pub fn make() -> Result<Zeroizing<String>, Error> {
    let key = PrivateKey::new(&mut getrandom::SysRng, BITS).map_err(|_| Error::Random)?;
    let der = key.to_pkcs8_der().map_err(|_| Error::Random)?;
    Ok(Zeroizing::new(BASE64_STANDARD.encode(der.as_bytes())))
}

/// The public half of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    /// The name of the key below `_domainkey.HOST`. Another key has another, so that both can be published at once.
    pub selector: String,
    der: Vec<u8>,
}

impl PublicKey {
    /// The public half of a private key; `None`: it is none.
    pub fn of(private: &str) -> Option<Self> {
        let der = Zeroizing::new(BASE64_STANDARD.decode(private.trim()).ok()?);
        let der = PrivateKey::from_pkcs8_der(&der).ok()?.to_public_key().to_public_key_der().ok()?.into_vec();
        Some(Self { selector: format!("hd-{}", &sha256(&der)[..16]), der })
    }

    /// The value of the TXT record, as zone files have it: in strings of at most 255 octets.
    pub fn record(&self) -> String {
        let text = format!("v=DKIM1; k=rsa; p={}", BASE64_STANDARD.encode(&self.der));
        let strings = text.as_bytes().chunks(STRING).map(|part| format!("\"{}\"", String::from_utf8_lossy(part)));
        strings.collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_by_itself_and_its_record_has_strings_that_dns_can_carry() {
        let (one, other) = (make().unwrap(), make().unwrap());
        let (public, again) = (PublicKey::of(&one).unwrap(), PublicKey::of(&one).unwrap());
        assert_eq!(public, again);
        assert_ne!(public.selector, PublicKey::of(&other).unwrap().selector);

        let record = public.record();
        let strings: Vec<_> = record.split('"').filter(|part| !part.trim().is_empty()).collect();
        assert_eq!(strings.iter().map(|part| part.len()).collect::<Vec<_>>(), [255, 155], "{record}");
        let joined = strings.concat();
        let key = BASE64_STANDARD.decode(joined.strip_prefix("v=DKIM1; k=rsa; p=").unwrap()).unwrap();
        assert_eq!(key.len(), 294, "a SubjectPublicKeyInfo of 2048 bits");
        assert!(!record.contains(one.as_str()));
    }

    #[test]
    fn what_is_no_key_has_no_public_half() {
        for not_one in ["", "***", "aGVsbG8="] {
            assert_eq!(PublicKey::of(not_one), None);
        }
    }
}
