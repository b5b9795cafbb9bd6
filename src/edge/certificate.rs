//! Reads a certificate: its names and its dates. Pure.

use k8s_openapi::{ByteString, api::core::v1::Secret};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{extensions::GeneralName, prelude::FromDer};

use crate::clock::Moment;

/// The leaf certificate: the first one of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The certificate itself, as DER.
    pub der: Vec<u8>,
    /// Its DNS names (`subjectAltName`), in lower case.
    pub names: Vec<String>,
    /// When its validity begins.
    pub not_before: Moment,
    /// When it expires.
    pub not_after: Moment,
}

/// Reads the certificate of a Secret of type `kubernetes.io/tls`; the error says what is wrong with the Secret.
pub fn of_secret(secret: &Secret) -> Result<Leaf, String> {
    let part = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|ByteString(bytes)| bytes.as_slice());
    let chain = part("tls.crt").ok_or("it has no key tls.crt")?;
    part("tls.key").filter(|key| !key.is_empty()).ok_or("it has no key tls.key")?;
    of_pem(chain)
}

/// Reads the first certificate of a chain in PEM.
pub fn of_pem(chain: &[u8]) -> Result<Leaf, String> {
    let der = CertificateDer::from_pem_slice(chain).map_err(|_| "tls.crt is no certificate in PEM")?;
    of_der(&der)
}

/// Reads a certificate in DER.
pub fn of_der(der: &[u8]) -> Result<Leaf, String> {
    let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der).map_err(|_| "it is no certificate of X.509")?;
    let validity = certificate.validity();
    let moment = |seconds| Moment::from_second(seconds).map_err(|_| "its time lies outside of the calendar".to_owned());
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let names = alternatives.into_iter().flat_map(|a| &a.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    Ok(Leaf {
        der: der.to_vec(),
        names: names.collect(),
        not_before: moment(validity.not_before.timestamp())?,
        not_after: moment(validity.not_after.timestamp())?,
    })
}

impl Leaf {
    /// Whether the certificate is for this host name; a wildcard stands for one label (RFC 6125, section 6.4.3).
    pub fn covers(&self, host: &str) -> bool {
        self.names.iter().any(|name| match name.strip_prefix("*.") {
            Some(parent) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
            None => name == host,
        })
    }

    /// Why the certificate is not valid for a host name at the time `now`.
    pub fn unfit(&self, host: &str, now: Moment) -> Option<String> {
        if !self.covers(host) {
            return Some(format!("the certificate is not for {host}, but for {}", self.names.join(", ")));
        }
        if now >= self.not_after {
            return Some(format!("the certificate ran out at {}", self.not_after));
        }
        (now < self.not_before).then(|| format!("the certificate is not valid before {}", self.not_before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(names: &[&str]) -> Leaf {
        Leaf {
            der: vec![],
            names: names.iter().map(|n| (*n).to_owned()).collect(),
            not_before: "2026-01-01T00:00:00Z".parse().unwrap(),
            not_after: "2026-12-01T00:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn a_wildcard_stands_for_one_label() {
        let wildcard = leaf(&["*.helpdesk.example"]);
        assert!(wildcard.covers("acme.helpdesk.example"));
        assert!(!wildcard.covers("a.b.helpdesk.example"));
        assert!(!wildcard.covers("helpdesk.example"));
        assert!(!wildcard.covers("acme.otherhelpdesk.example"));
    }

    #[test]
    fn a_certificate_that_ran_out_or_is_for_others_is_unfit() {
        let now = "2026-11-23T10:00:00Z".parse().unwrap();
        let acme = leaf(&["help.acme.example"]);
        assert_eq!(acme.unfit("help.acme.example", now), None);
        assert!(acme.unfit("help.beta.example", now).is_some());
        assert!(acme.unfit("help.acme.example", "2026-12-01T00:00:00Z".parse().unwrap()).is_some());
        assert!(acme.unfit("help.acme.example", "2025-12-01T00:00:00Z".parse().unwrap()).is_some());
    }

    #[test]
    fn what_is_no_certificate_is_said_to_be_none() {
        assert!(of_pem(b"nonsense").is_err());
        assert!(of_der(b"\x30\x00").is_err());
    }
}
