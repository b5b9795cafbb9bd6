//! The variables that texts of a `HelpDeskClass` may contain, as `${db.host}`: one table, which the schema checks, the
//! documents show, and the values are made for.

use std::fmt::Write;

/// One variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What its value is.
    pub meaning: &'static str,
    /// Whether a tenant chooses the text. Such a value may contain quotes and line breaks, so it reaches the app by the
    /// environment only: inside of a file it could become a part of the app's configuration, or code.
    pub is_free_text: bool,
}

const fn plain(name: &'static str, meaning: &'static str) -> Variable {
    Variable { name, meaning, is_free_text: false }
}

const fn free(name: &'static str, meaning: &'static str) -> Variable {
    Variable { name, meaning, is_free_text: true }
}

/// The variable with the text that customers agree to before a chat.
pub const CHAT_CONSENT: &str = "tenant.chatConsent";
/// The variable that says whether agents need a second factor.
pub const REQUIRE_TOTP: &str = "security.requireTotp";
/// The variable that says whether programs need tokens.
pub const REQUIRE_API_TOKENS: &str = "security.requireApiTokens";

/// Every variable but the secrets of the class, which are `${secrets.NAME}`.
pub const VARIABLES: &[Variable] = &[
    plain("tenant.name", "the name of the account"),
    free("tenant.displayName", "the tenant's name for people; the account's name if it has none"),
    free(CHAT_CONSENT, "the text that customers agree to before a chat; empty if the account has none"),
    plain("tenant.marker", "a value that no other tenant has, and no secret: what an app shows to be ready"),
    plain("db.host", "the host of the tenant's database server"),
    plain("db.port", "its port"),
    plain("db.name", "the name of the tenant's database"),
    plain("db.user", "the login for it; another one after a rotation of the password"),
    plain("db.password", "the password of that login: letters and digits"),
    plain("db.url", "all of these as one URL, with sslmode"),
    plain(
        "db.sslmode",
        "how the certificate of the database server is checked, as spec.tls.mode of the DatabaseServer says: verify-full or verify-ca",
    ),
    plain("db.caFile", "the path of the file with the certificate authority of the database server"),
    plain("web.fqdn", "the host name of the account below the plan's base domain"),
    plain("web.aliases", "the account's own host names, separated by commas; empty if there are none"),
    plain("web.url", "https:// and web.fqdn"),
    plain("web.scheme", "https"),
    plain("web.port", "443"),
    plain(REQUIRE_TOTP, "`true` if agents need a second factor, otherwise `false`"),
    plain(REQUIRE_API_TOKENS, "`true` if programs need tokens instead of people's passwords, otherwise `false`"),
    plain("mail.host", "the mail server through which the app sends; empty where there is none"),
    plain("mail.port", "its port; the connection is not encrypted"),
    plain("mail.user", "the name that the app logs in with"),
    plain("mail.password", "its password: letters and digits"),
    plain("mail.from", "the address under which the app sends: the first mailbox of the class"),
    plain("mail.learnUrl", "where the app teaches the mail filter; empty where there is no mail intake"),
    plain("mail.inboundToken", "the token that the app and the mail intake share; empty where the class takes no mail"),
    free("admin.name", "the name of the owner; the mail address if there is no name"),
    free("admin.email", "the mail address of the owner"),
    plain("admin.password", "the first password of the app's administrator: letters and digits"),
];

/// The description of a text with variables, for the schema.
pub(super) fn description() -> String {
    let mut text = "Its value. It may contain variables: ".to_owned();
    for variable in VARIABLES {
        let _ = write!(text, "`${{{}}}` ({}), ", variable.name, variable.meaning);
    }
    text + "`${secrets.NAME}` (a secret of the class). `$${` stands for `${`."
}

/// The same for the content of a file.
pub(super) fn description_of_content() -> String {
    format!("What is in it, with the variables that a value of `env` may contain, except {}.", names(|v| v.is_free_text).join(", "))
}

/// The rule that every variable in a text is known, in CEL.
pub(super) fn rule() -> String {
    matches(&names(|_| true))
}

/// What is said when it is not.
pub(super) fn message() -> String {
    format!(
        "a variable does not exist: there are {} and secrets.NAME for each secret of the class; write $${{ for ${{",
        names(|_| true).join(", ")
    )
}

/// The rule that every variable in a text is known and no tenant's free text, in CEL.
pub(super) fn rule_of_content() -> String {
    matches(&names(|variable| !variable.is_free_text))
}

/// What is said when it is not.
pub(super) fn message_of_content() -> String {
    format!(
        "a variable does not exist, or is not for files: there are {} and secrets.NAME for each secret of the class; {} are written by \
         the tenant and could become code in a file: hand them over by env; write $${{ for ${{",
        names(|variable| !variable.is_free_text).join(", "),
        names(|variable| variable.is_free_text).join(", ")
    )
}

fn names(which: impl Fn(&Variable) -> bool) -> Vec<&'static str> {
    VARIABLES.iter().filter(|variable| which(variable)).map(|variable| variable.name).collect()
}

/// Reads a text as it is read when the variables are filled in: a dollar sign before another letter, or at the end, stands
/// for itself, and two before a brace stand for one. The API server bounds a rule's cost, to which each letter of the
/// pattern adds: names of one group are written together.
fn matches(names: &[&str]) -> String {
    let mut groups: Vec<(&str, Vec<&str>)> = vec![];
    for (group, name) in names.iter().filter_map(|name| name.split_once('.')) {
        match groups.last_mut().filter(|(last, _)| *last == group) {
            Some((_, names)) => names.push(name),
            None => groups.push((group, vec![name])),
        }
    }
    let groups: Vec<_> = groups.into_iter().map(|(group, names)| format!("{group}[.]({})", names.join("|"))).collect();
    format!("self.matches('^([^$]|[$]+[^${{]|[$][$]+[{{]|[$][{{]({}|secrets[.][a-z0-9-]+)[}}])*[$]*$')", groups.join("|"))
}

/// The table of all variables, as the documents show it.
pub fn table() -> String {
    let mut table = "| variable | value |\n|---|---|\n".to_owned();
    for Variable { name, meaning, is_free_text } in VARIABLES {
        let only = if *is_free_text { " (only in `env`)" } else { "" };
        let _ = writeln!(table, "| `${{{name}}}` | {meaning}{only} |");
    }
    table + "| `${secrets.NAME}` | the secret of that name in `spec.secrets` |\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_have_the_table_of_the_code() {
        let told = include_str!("../../docs/classes.md");
        assert!(told.contains(&table()), "docs/classes.md should have this table:\n{}", table());
    }
}
