//! Lists of revoked client certificates (RFC 5280, section 5): whether they can be used, and until when. Pure.
//!
//! A gateway refuses a list that it cannot use, and goes on without one: everybody whose certificate was revoked would be let in
//! again. So the operator looks first, and lets no agent in instead.

use rustls::pki_types::{CertificateRevocationListDer, pem::PemObject};
use x509_parser::{prelude::FromDer, revocation_list::CertificateRevocationList};

use super::policy::Policy;
use crate::clock::Moment;

/// Closes agents' paths if the policy has lists that cannot be used at the time `now`; the error says why. Otherwise returns
/// until when they can be used, if they end.
pub fn check(policy: &mut Policy, now: Moment) -> Result<Option<Moment>, String> {
    let Some(authority) = &mut policy.client_ca else { return Ok(None) };
    let Some(lists) = &authority.revoked else { return Ok(None) };
    let found = usable_until(lists.as_bytes(), now);
    if found.is_err() {
        authority.revoked = None;
        policy.agents_from = Some(vec![]);
    }
    found.map_err(|why| format!("agentClientCRL: {why}; no agent is let in until there is one that can be used"))
}

fn usable_until(pem: &[u8], now: Moment) -> Result<Option<Moment>, String> {
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    let lists = lists.ok().filter(|lists| !lists.is_empty()).ok_or("it has no list in PEM")?;
    let ends: Result<Vec<_>, String> = lists.iter().map(|list| end(list, now)).collect();
    Ok(ends?.into_iter().flatten().min())
}

fn end(list: &[u8], now: Moment) -> Result<Option<Moment>, String> {
    let (_, list) = CertificateRevocationList::from_der(list).map_err(|_| "it has a list that is none of X.509")?;
    if list.version().is_none() {
        return Err("it has a list of version 1; a gateway takes version 2, with a number".into());
    }
    let moment = |seconds| Moment::from_second(seconds).map_err(|_| "it has a time outside of the calendar".to_owned());
    let begins = moment(list.last_update().timestamp())?;
    if now < begins {
        return Err(format!("its list is not valid before {begins}"));
    }
    let ends = list.next_update().map(|at| moment(at.timestamp())).transpose()?;
    match ends {
        Some(ends) if now >= ends => Err(format!("its list ran out at {ends}")),
        ends => Ok(ends),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::TlsVersion,
        edge::policy::{ApiLimits, ClientAuthority},
    };

    /// Of 2026-01-01, to 2026-02-01, by `openssl ca -gencrl`.
    const LIST: &str = "-----BEGIN X509 CRL-----\nMIGoMFACAQEwCgYIKoZIzj0EAwIwETEPMA0GA1UEAwwGYWdlbnRzFw0yNjAxMDEw\nMDAwMDBaFw0yNjAyMDEwMDAwMDBaoA4wDDAKBgNVHRQEAwIBATAKBggqhkjOPQQD\nAgNIADBFAiEAm7l7x25VUx/8bSrDDNO7d1ZEt+1lHlJ6yuGc2de2+50CIExa/6bC\nKp81cIxyoAwp5Q8Tn7L+dAxXFnr5tzFK5Yop\n-----END X509 CRL-----\n";
    /// The same without a number.
    const VERSION_1: &str = "-----BEGIN X509 CRL-----\nMIGWMD0wCgYIKoZIzj0EAwIwETEPMA0GA1UEAwwGYWdlbnRzFw0yNjAxMDEwMDAw\nMDBaFw0yNjAyMDEwMDAwMDBaMAoGCCqGSM49BAMCA0kAMEYCIQDkwbwMMr8RJXKi\naEyyKgYQzuFR1Tsd20C79POjUPaMiQIhALBr7ileagWi4CPQ9HksIZKpNJDE/SMD\nFbZOHC/WoYK9\n-----END X509 CRL-----\n";

    fn at(text: &str) -> Moment {
        text.parse().unwrap()
    }

    #[test]
    fn a_list_can_be_used_from_its_date_to_its_next_update() {
        let until = |now: &str| usable_until(LIST.as_bytes(), at(now));
        let ends = at("2026-02-01T00:00:00Z");
        assert_eq!((until("2026-01-01T00:00:00Z"), until("2026-01-31T23:59:59Z")), (Ok(Some(ends)), Ok(Some(ends))));
        assert!(until("2026-02-01T00:00:00Z").unwrap_err().contains("ran out at 2026-02-01"));
        assert!(until("2025-12-31T23:59:59Z").unwrap_err().contains("not valid before"));
    }

    #[test]
    fn what_a_gateway_would_refuse_is_no_list() {
        let why = |text: &str| usable_until(text.as_bytes(), at("2026-01-15T00:00:00Z")).unwrap_err();
        assert!(why("").contains("no list in PEM"));
        assert!(why("-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n").contains("none of X.509"));
        assert!(why(VERSION_1).contains("version 1"));
        assert!(why(&format!("{LIST}{VERSION_1}")).contains("version 1"), "the second list was not looked at");
    }

    #[test]
    fn without_a_list_that_can_be_used_no_agent_is_let_in() {
        let authority = ClientAuthority { certificates: String::new(), revoked: Some(LIST.into()) };
        let limits = ApiLimits { requests_per_minute: 1, requests_per_minute_per_credential: 1, max_body: "1Mi".into() };
        let mut policy = Policy { min_tls: TlsVersion::V12, agents_from: None, oidc: None, client_ca: Some(authority), api: limits };
        assert!(check(&mut policy, at("2026-01-15T00:00:00Z")).is_ok());
        assert_eq!(policy.agents_from, None);
        assert!(check(&mut policy, at("2026-02-15T00:00:00Z")).is_err());
        assert_eq!(policy.agents_from, Some(vec![]));
    }
}
