//! Reads a certificate: its names and its dates. Pure.

use k8s_openapi::{ByteString, api::core::v1::Secret, jiff::SignedDuration};
use rustls::{
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer};

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
    /// Its issuer, if it comes alone, without the certificate of that one: clients have to know it.
    pub unknown_issuer: Option<String>,
}

/// Reads the certificate of a Secret of type `kubernetes.io/tls`; the error says what is wrong with the Secret.
pub fn of_secret(secret: &Secret) -> Result<Leaf, String> {
    let part = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|ByteString(bytes)| bytes.as_slice());
    let chain = part("tls.crt").ok_or("it has no key tls.crt")?;
    let key = part("tls.key").filter(|key| !key.is_empty()).ok_or("it has no key tls.key")?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(|_| "tls.crt is no certificate in PEM")?;
    let leaf = of_chain(&chain)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| "tls.key is no private key in PEM")?;
    let key = any_supported_type(&key).map_err(|_| "tls.key is a key of a kind that no client takes")?;
    CertifiedKey::new(chain, key).keys_match().map_err(|_| "tls.key is not the key of the certificate in tls.crt")?;
    Ok(leaf)
}

/// Reads a chain in the order of TLS: the leaf, and then each one's issuer (RFC 8446, section 4.4.2).
fn of_chain(chain: &[CertificateDer<'_>]) -> Result<Leaf, String> {
    let mut leaf = of_der(chain.first().ok_or("tls.crt is no certificate in PEM")?)?;
    let mut issuer: Option<String> = None;
    for der in chain {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| "tls.crt has a certificate that is none of X.509")?;
        let subject = certificate.subject().to_string();
        if let Some(issuer) = issuer.filter(|issuer| *issuer != subject) {
            return Err(format!("tls.crt is no chain: after the certificate that {issuer} issued comes {subject}"));
        }
        let by = certificate.issuer().to_string();
        leaf.unknown_issuer = (chain.len() == 1 && by != subject).then(|| by.clone());
        issuer = Some(by);
    }
    Ok(leaf)
}

/// How late the renewal of a certificate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lateness {
    /// It should have been renewed: 21 days are left.
    Due,
    /// Somebody has to look: 7 days are left.
    Overdue,
    /// 1 day is left.
    LastDay,
}

impl Lateness {
    /// The reason of the condition `CertificateExpires`.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Due => "RenewalDue",
            Self::Overdue => "RenewalOverdue",
            Self::LastDay => "LastDay",
        }
    }
}

/// Reads a certificate in DER.
pub fn of_der(der: &[u8]) -> Result<Leaf, String> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| "it is no certificate of X.509")?;
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
        unknown_issuer: None,
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

    /// How late its renewal is at the time `now`, if it is: one that is renewed by a machine is renewed by then.
    pub fn lateness(&self, now: Moment) -> Option<Lateness> {
        let passed = self.deadlines().into_iter().rev().find(|(_, at)| *at <= now);
        passed.map(|(lateness, _)| lateness)
    }

    /// When that changes next.
    pub fn next_deadline(&self, now: Moment) -> Option<Moment> {
        self.deadlines().into_iter().map(|(_, at)| at).find(|at| *at > now)
    }

    /// 21, 7 and 1 days before its end, and later for one that lives for less than three months.
    fn deadlines(&self) -> [(Lateness, Moment); 3] {
        let life = self.not_after.duration_since(self.not_before);
        let before = |days: i64, part: i32| self.not_after - SignedDuration::from_hours(24 * days).min(life / part);
        [(Lateness::Due, before(21, 4)), (Lateness::Overdue, before(7, 12)), (Lateness::LastDay, before(1, 24))]
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
            unknown_issuer: None,
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
    fn a_renewal_is_late_at_21_7_and_1_days_and_later_for_what_lives_for_days() {
        let at = |text: &str| text.parse::<Moment>().unwrap();
        let year = leaf(&["help.acme.example"]);
        let when = |leaf: &Leaf, now: &str| (leaf.lateness(at(now)), leaf.next_deadline(at(now)));
        assert_eq!(when(&year, "2026-11-09T23:59:59Z"), (None, Some(at("2026-11-10T00:00:00Z"))));
        assert_eq!(when(&year, "2026-11-10T00:00:00Z"), (Some(Lateness::Due), Some(at("2026-11-24T00:00:00Z"))));
        assert_eq!(when(&year, "2026-11-24T00:00:00Z"), (Some(Lateness::Overdue), Some(at("2026-11-30T00:00:00Z"))));
        assert_eq!(when(&year, "2026-11-30T00:00:00Z"), (Some(Lateness::LastDay), None));
        let six_days = Leaf { not_before: at("2026-11-25T00:00:00Z"), ..year };
        assert_eq!(when(&six_days, "2026-11-26T00:00:00Z"), (None, Some(at("2026-11-29T12:00:00Z"))));
        assert_eq!(when(&six_days, "2026-11-30T12:00:00Z").0, Some(Lateness::Overdue));
    }

    #[test]
    fn what_is_no_certificate_is_said_to_be_none() {
        assert!(of_chain(&[]).is_err());
        assert!(of_der(b"\x30\x00").is_err());
    }
}
