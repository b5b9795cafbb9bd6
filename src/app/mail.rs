//! The mail intake, as a tenant's app knows it. Pure.

use super::dkim::PublicKey;
use crate::api::{
    class_mail::ClassMail,
    mail_status::{DnsRecord, MailStatus},
};

/// The Secret in the tenant's namespace with what the intake needs, and the Role that lets it read that.
pub const SECRET: &str = "app-mail";
/// The port of the intake's Service where apps send mail.
pub const SUBMISSION_PORT: u16 = 587;
/// That port in its pods.
pub const SUBMISSION_POD_PORT: u16 = 2587;
/// The port of the intake where apps teach the filter.
pub const LEARN_PORT: u16 = 8025;

/// The mail intake.
#[derive(Clone, Copy, Debug)]
pub struct MailIntake<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// The name of its Service and of its ServiceAccount.
    pub name: &'a str,
    /// The token that it shares with the app.
    pub token: &'a str,
    /// The password with which the app sends mail.
    pub password: &'a str,
    /// The key that signs what the app sends.
    pub dkim_key: &'a str,
}

/// The addresses of a tenant with this host name, and the DNS records for it. `server` is the name of the mail server: mail
/// arrives there, and leaves from its address. `key` signs what leaves; `None`: it was not made yet.
pub fn status(class: &ClassMail, host: &str, server: &str, key: Option<&PublicKey>) -> MailStatus {
    let record = |name: String, kind: &str, value: String| DnsRecord { name, kind: kind.to_owned(), value };
    let mut records =
        vec![record(host.to_owned(), "MX", format!("10 {server}.")), record(host.to_owned(), "TXT", format!("v=spf1 a:{server} -all"))];
    records.extend(key.map(|key| record(format!("{}._domainkey.{host}", key.selector), "TXT", key.record())));
    // Without a signature, mail that somebody forwards fails SPF: a stricter policy would lose it. Signature and sender have
    // to be of this very host: tenants below one base domain share what a relaxed policy compares.
    let policy = key.map_or("v=DMARC1; p=none", |_| "v=DMARC1; p=quarantine; adkim=s; aspf=s");
    records.push(record(format!("_dmarc.{host}"), "TXT", policy.to_owned()));
    MailStatus { addresses: class.intake.mailboxes.iter().map(|mailbox| format!("{}@{host}", mailbox.name)).collect(), records }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_told_its_addresses_and_the_records_that_lead_to_the_mail_server() {
        let class: ClassMail = serde_json::from_value(serde_json::json!({
            "intake": {"component": "web", "path": "/in", "mailboxes": [{"name": "support"}, {"name": "sales"}]}
        }))
        .unwrap();
        let key = PublicKey::of(&crate::app::dkim::make().unwrap()).unwrap();
        let told = |key| status(&class, "acme.helpdesk.example", "mail.helpdesk.example", key);
        let unsigned: Vec<_> = told(None).records.iter().map(|r| r.value.clone()).collect();
        assert_eq!(unsigned[2..], ["v=DMARC1; p=none"]);
        let told = told(Some(&key));
        assert_eq!(told.addresses, ["support@acme.helpdesk.example", "sales@acme.helpdesk.example"]);
        let records: Vec<_> = told.records.iter().map(|r| format!("{} {} {}", r.name, r.kind, r.value)).collect();
        assert_eq!(
            records,
            [
                "acme.helpdesk.example MX 10 mail.helpdesk.example.",
                "acme.helpdesk.example TXT v=spf1 a:mail.helpdesk.example -all",
                &format!("{}._domainkey.acme.helpdesk.example TXT {}", key.selector, key.record()),
                "_dmarc.acme.helpdesk.example TXT v=DMARC1; p=quarantine; adkim=s; aspf=s",
            ]
        );
    }
}
