//! In whose name an app may send. Pure.

use kube::ResourceExt;
use mail_parser::{Address, HeaderName, HeaderValue, MessageParser};

use super::recipient::{Facts, Standing, standing};
use crate::api::DomainUse;

/// Who may send under the addresses of a host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// The app of this account; it logs in with that name.
    Account(String),
    /// That is not known now.
    Unknown,
    /// Nobody.
    Nobody,
}

/// Who may send under the addresses of a host name. A name that somebody claims and has not proven is not theirs yet.
pub(super) fn may_send(facts: &Facts) -> Sender {
    let is_own = facts.claim.as_ref().is_some_and(|claim| claim.spec.used_as != DomainUse::Custom || claim.spec.proven_at.is_some());
    match (standing(facts), &facts.account) {
        (Standing::Open, Some(account)) if is_own => Sender::Account(account.name_any()),
        (Standing::Unknown, _) => Sender::Unknown,
        _ => Sender::Nobody,
    }
}

/// The domain in whose name a message speaks, in lower case: that of its header From. Otherwise why it names none.
pub(super) fn author_domain(message: &[u8]) -> Result<String, &'static str> {
    let parsed = MessageParser::new().header_address(HeaderName::From).default_header_ignore().parse_headers(message);
    let parsed = parsed.ok_or("the message has no headers")?;
    let mut found = parsed.header_values(HeaderName::From);
    let address = match (found.next(), found.next()) {
        (None, _) => return Err("the message has no header From"),
        (Some(HeaderValue::Address(Address::List(addresses))), None) => match addresses.as_slice() {
            [address] if angles(parsed.header_raw(HeaderName::From).unwrap_or_default()) <= 1 => address.address.as_deref(),
            _ => None,
        },
        (Some(_), None) => None,
        (Some(_), Some(_)) => return Err("the message has more than one header From"),
    };
    let domain = address.and_then(|address| address.rsplit_once('@')).map(|(_, domain)| domain.to_ascii_lowercase());
    domain.ok_or("the header From of the message has to be one address")
}

/// How many `<` stand outside of quoted strings and comments. With two, programs differ about which address it is.
fn angles(value: &str) -> usize {
    let (mut count, mut is_quoted, mut comments, mut letters) = (0, false, 0_usize, value.chars());
    while let Some(letter) = letters.next() {
        match letter {
            '\\' if is_quoted || comments > 0 => drop(letters.next()),
            '"' if comments == 0 => is_quoted = !is_quoted,
            '(' if !is_quoted => comments += 1,
            ')' if !is_quoted => comments = comments.saturating_sub(1),
            '<' if !is_quoted && comments == 0 => count += 1,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{api::stage::Stage, mail::recipient::tests::facts};

    #[test]
    fn an_app_may_send_while_its_tenant_is_open_under_names_that_are_proven() {
        let acme = Sender::Account("acme".into());
        assert_eq!([Stage::Trial, Stage::Active].map(|stage| may_send(&facts(Some(stage)))), [acme.clone(), acme.clone()]);
        for stage in [Stage::Blocked, Stage::Terminated, Stage::Deleted, Stage::Expired] {
            assert_eq!(may_send(&facts(Some(stage))), Sender::Nobody, "{stage:?}");
        }
        assert_eq!(may_send(&Facts { is_fresh: false, ..facts(Some(Stage::Active)) }), Sender::Unknown);

        let mut custom = facts(Some(Stage::Active));
        let mut claim = (**custom.claim.as_ref().unwrap()).clone();
        claim.spec.used_as = DomainUse::Custom;
        custom.claim = Some(Arc::new(claim.clone()));
        assert_eq!(may_send(&custom), Sender::Nobody, "anybody may claim a name");
        claim.spec.proven_at = Some(serde_json::from_value(serde_json::json!("2026-01-01T00:00:00Z")).unwrap());
        custom.claim = Some(Arc::new(claim));
        assert_eq!(may_send(&custom), acme);
    }

    fn domain_of(head: &str) -> Result<String, &'static str> {
        author_domain(format!("Subject: x\r\n{head}To: c@customer.example\r\n\r\nFrom: b@body.example\r\n").as_bytes())
    }

    #[test]
    fn a_message_speaks_for_the_one_address_of_its_header_from() {
        for from in [
            "From: support@Acme.example\r\n",
            "from : <support@acme.example>\r\n",
            "From: \"ceo@bank.example, CEO\" <support@acme.example>\r\n",
            "From: ceo@bank.example <support@acme.example>\r\n",
            "From: \"<ceo@bank.example> \\\" <\" (<) <support@acme.example>\r\n",
            "From:\r\n =?utf-8?q?Caf=C3=A9?=\r\n <support@acme.example> (ceo@bank.example)\r\n",
        ] {
            assert_eq!(domain_of(from).as_deref(), Ok("acme.example"), "{from}");
        }
    }

    #[test]
    fn a_message_that_speaks_for_nobody_or_for_several_is_refused() {
        for from in [
            "",
            "From:\r\n",
            "From: Support\r\n",
            "From: a@acme.example, b@bank.example\r\n",
            "From: a@acme.example\r\nFrom: b@bank.example\r\n",
            "From: a@acme.example\r\nfrom : b@bank.example\r\n",
            "From: Team: a@acme.example, b@bank.example;\r\n",
            "From: <b@bank.example> <a@acme.example>\r\n",
        ] {
            assert!(domain_of(from).is_err(), "{from}: {:?}", domain_of(from));
        }
    }
}
