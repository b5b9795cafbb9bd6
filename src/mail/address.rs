//! Mail addresses, as far as the intake has to understand them. Pure.

/// An address of a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The part before the `@`, in lower case and without an extension (`+…`).
    pub mailbox: String,
    /// The part after it, in lower case.
    pub domain: String,
}

impl Address {
    /// Reads an address; `None`: it is none, or one that no tenant has.
    pub fn parse(text: &str) -> Option<Self> {
        let (local, domain) = text.rsplit_once('@')?;
        let local = local.to_ascii_lowercase();
        let mailbox = local.split('+').next().unwrap_or_default().to_owned();
        let is_plain = |part: &str, more: &str| {
            !part.is_empty() && part.len() <= 253 && part.bytes().all(|b| b.is_ascii_alphanumeric() || more.as_bytes().contains(&b))
        };
        let domain = domain.to_ascii_lowercase();
        (is_plain(&mailbox, ".-_") && is_plain(&domain, ".-")).then_some(Self { mailbox, domain })
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.mailbox, self.domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_without_case_and_extension() {
        let read = |text: &str| Address::parse(text).map(|a| a.to_string());
        assert_eq!(read("Support+case.7@Acme.Helpdesk.Example").as_deref(), Some("support@acme.helpdesk.example"));
        for not_one in
            ["support", "@acme.example", "support@", "a b@acme.example", "\"a@b\"@acme.example", "ü@acme.example", "a@[127.0.0.1]"]
        {
            assert_eq!(read(not_one), None, "{not_one}");
        }
    }
}
