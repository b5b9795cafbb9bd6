//! The variables that texts of a class may contain, and how they are filled in. Pure.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;

use super::{
    Error,
    mail::{LEARN_PORT, SUBMISSION_PORT},
    secrets::{ADMIN, AppSecrets, MAIL_PASSWORD, MAIL_TOKEN},
};
use crate::{
    api::variables::{CHAT_CONSENT, REQUIRE_API_TOKENS, REQUIRE_TOTP},
    digest::sha256,
};

/// What the values of variables are made from.
pub struct Facts<'a> {
    /// The name of the account.
    pub account: &'a str,
    /// Its uid.
    pub uid: &'a str,
    /// Its name for people.
    pub display_name: Option<&'a str>,
    /// The credentials of its database, in the keys of the Service Binding specification.
    pub database: &'a BTreeMap<String, ByteString>,
    /// The path of the file with the certificate authority of the database server.
    pub database_ca: &'a str,
    /// The host name below the plan's base domain.
    pub fqdn: &'a str,
    /// The account's own host names.
    pub aliases: &'a [String],
    /// The text that customers agree to before a chat.
    pub chat_consent: Option<&'a str>,
    /// Whether agents need a second factor.
    pub require_totp: bool,
    /// Whether programs need tokens.
    pub require_api_tokens: bool,
    /// The owner's name, if it is known.
    pub owner_name: Option<&'a str>,
    /// The owner's mail address.
    pub owner_email: &'a str,
    /// The namespace of the mail intake and the name of its Service.
    pub intake: Option<(&'a str, &'a str)>,
    /// The first mailbox of the class.
    pub mailbox: Option<&'a str>,
    /// The secrets of the app.
    pub secrets: &'a AppSecrets,
}

/// A value that tells this tenant from all others. It is no secret: an app may show it to everybody.
fn marker(uid: &str) -> String {
    sha256(format!("marker {uid}").as_bytes())[..32].to_owned()
}

/// The value of every variable, by its name. Some are secrets, so this is never shown.
pub struct Values(BTreeMap<String, String>);

impl Values {
    /// The value of every variable of [`VARIABLES`](crate::api::variables::VARIABLES), and of every secret.
    pub fn of(facts: &Facts<'_>) -> Self {
        let database = |key: &str| facts.database.get(key).map(|value| String::from_utf8_lossy(&value.0).into_owned()).unwrap_or_default();
        let secrets = facts.secrets.iter().filter(|(name, _)| name.starts_with("secrets."));
        let learn_url = |(namespace, name)| format!("http://{name}.{namespace}.svc:{LEARN_PORT}/accounts/{}", facts.account);
        let values = [
            ("tenant.name", facts.account.to_owned()),
            ("tenant.displayName", facts.display_name.unwrap_or(facts.account).to_owned()),
            (CHAT_CONSENT, facts.chat_consent.unwrap_or_default().to_owned()),
            ("tenant.marker", marker(facts.uid)),
            (REQUIRE_TOTP, facts.require_totp.to_string()),
            (REQUIRE_API_TOKENS, facts.require_api_tokens.to_string()),
            ("db.host", database("host")),
            ("db.port", database("port")),
            ("db.name", database("database")),
            ("db.user", database("username")),
            ("db.password", database("password")),
            ("db.url", database("uri")),
            ("db.sslmode", database("sslmode")),
            ("db.caFile", facts.database_ca.to_owned()),
            ("web.fqdn", facts.fqdn.to_owned()),
            ("web.aliases", facts.aliases.join(",")),
            ("web.url", format!("https://{}", facts.fqdn)),
            ("web.scheme", "https".to_owned()),
            ("web.port", "443".to_owned()),
            ("admin.name", facts.owner_name.unwrap_or(facts.owner_email).to_owned()),
            ("admin.email", facts.owner_email.to_owned()),
            ("mail.host", facts.intake.map(|(namespace, name)| format!("{name}.{namespace}.svc")).unwrap_or_default()),
            ("mail.port", SUBMISSION_PORT.to_string()),
            ("mail.user", facts.account.to_owned()),
            ("mail.password", facts.secrets.get(MAIL_PASSWORD).unwrap_or_default().to_owned()),
            ("mail.from", facts.mailbox.map(|mailbox| format!("{mailbox}@{}", facts.fqdn)).unwrap_or_default()),
            ("mail.learnUrl", facts.intake.map(learn_url).unwrap_or_default()),
            ("mail.inboundToken", facts.secrets.get(MAIL_TOKEN).unwrap_or_default().to_owned()),
            ("admin.password", facts.secrets.get(ADMIN).unwrap_or_default().to_owned()),
        ];
        Self::new(values.into_iter().chain(secrets.map(|(name, value)| (name, value.to_owned()))))
    }

    /// These variables.
    pub fn new<N: Into<String>>(values: impl IntoIterator<Item = (N, String)>) -> Self {
        Self(values.into_iter().map(|(name, value)| (name.into(), value)).collect())
    }

    /// Fills in a text: `${name}` becomes the variable's value, `$${` becomes `${`, and everything else stays. A value is
    /// not filled in again, so a tenant's name cannot ask for a password.
    ///
    /// # Errors
    /// [`Error::UnknownVariable`] with the name of the field; it never shows a value.
    pub fn fill_in(&self, field: &str, text: &str) -> Result<String, Error> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                filled.push_str(&rest[..at - 1]);
                filled.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            filled.push_str(&rest[..at]);
            let name = rest[at + 2..].split('}').next().unwrap_or_default();
            let is_closed = rest.len() > at + 2 + name.len();
            let value = self.0.get(name).filter(|_| is_closed).ok_or_else(|| self.unknown(field, name))?;
            filled.push_str(value);
            rest = &rest[at + 3 + name.len()..];
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn unknown(&self, field: &str, variable: &str) -> Error {
        let known: Vec<_> = self.0.keys().map(String::as_str).collect();
        let variable = variable.chars().take(64).filter(|letter| !letter.is_control()).collect();
        Error::UnknownVariable { field: field.to_owned(), variable, known: known.join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::variables::VARIABLES;

    fn values() -> Values {
        Values::new([("db.host", "pg".to_owned()), ("db.password", "hunter2".to_owned()), ("tenant.name", "${db.password}".to_owned())])
    }

    #[test]
    fn variables_are_filled_in_once_and_everything_else_stays() {
        let fill = |text: &str| values().fill_in("env", text).unwrap();
        assert_eq!(fill("host=${db.host}, $5, {x}, $"), "host=pg, $5, {x}, $");
        assert_eq!(fill("$${db.host} is ${db.host}"), "${db.host} is pg");
        assert_eq!(fill("${tenant.name}"), "${db.password}", "a value asks for nothing");
    }

    #[test]
    fn a_variable_that_does_not_exist_is_named_with_its_field_and_no_value_is_shown() {
        for text in ["${db.hots}", "${", "${db.host", "${}", "a ${ {b} }"] {
            let told = values().fill_in("env X", text).unwrap_err().to_string();
            assert!(told.contains("env X") && told.contains("db.host, db.password") && !told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn every_variable_of_the_table_has_a_value_and_none_has_it_besides() {
        let mut secrets = AppSecrets::default();
        secrets.insert(ADMIN.into(), "first".to_owned().into());
        secrets.insert("secrets.session".into(), "ab12".to_owned().into());
        let facts = Facts {
            account: "acme",
            uid: "u-1",
            display_name: None,
            database: &[("host", "pg"), ("sslmode", "verify-ca")].map(|(key, value)| (key.to_owned(), ByteString(value.into()))).into(),
            database_ca: "/ca",
            fqdn: "acme.helpdesk.example",
            aliases: &["help.acme.example".into(), "desk.acme.example".into()],
            chat_consent: None,
            require_totp: false,
            require_api_tokens: false,
            owner_name: None,
            owner_email: "ana@acme.example",
            intake: Some(("mail-system", "mail")),
            mailbox: Some("support"),
            secrets: &secrets,
        };
        let values = Values::of(&facts);
        let mut known: Vec<_> = VARIABLES.iter().map(|variable| variable.name).chain(["secrets.session"]).collect();
        known.sort_unstable();
        assert_eq!(values.0.keys().map(String::as_str).collect::<Vec<_>>(), known);
        let text = "${db.host} ${db.sslmode} ${web.url} ${web.aliases} ${admin.name} ${admin.password} ${secrets.session} ${mail.learnUrl} ${mail.from}";
        let filled = "pg verify-ca https://acme.helpdesk.example help.acme.example,desk.acme.example ana@acme.example first ab12 http://mail.mail-system.svc:8025/accounts/acme support@acme.helpdesk.example";
        assert_eq!(values.fill_in("env", text).unwrap(), filled);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _ = values().fill_in("env", &text);
        }
    }
}
