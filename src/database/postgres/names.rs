//! Names of databases and roles, and how they are written into SQL.

use ring::digest;

use crate::database::{LoginSlot, Tenant};

/// Writes a name so that it means itself, whatever it contains. A NUL, which no name can have, is left out.
pub(super) fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('\0', "").replace('"', "\"\""))
}

/// Writes a text as a literal that means itself, whatever `standard_conforming_strings` says.
pub(super) fn quote_literal(text: &str) -> String {
    let text = text.replace('\0', "").replace('\'', "''");
    if text.contains('\\') { format!("E'{}'", text.replace('\\', "\\\\")) } else { format!("'{text}'") }
}

/// The roles of a tenant.
#[derive(Clone, Debug)]
pub(super) struct Roles {
    /// Owns everything in the tenant's database; nobody logs in as it.
    pub own: String,
    /// Reads everything for a dump.
    pub dump: String,
    /// Acts as the owner during a restore.
    pub restore: String,
    logins: [String; 2],
}

impl Roles {
    /// The roles of a tenant.
    pub fn of(tenant: &Tenant) -> Self {
        Self {
            own: format!("{}_own", tenant.name),
            dump: format!("{}_dump", tenant.name),
            restore: format!("{}_rst", tenant.name),
            logins: [tenant.login(LoginSlot::A), tenant.login(LoginSlot::B)],
        }
    }

    /// One of the two logins.
    pub fn login(&self, slot: LoginSlot) -> &str {
        match slot {
            LoginSlot::A => &self.logins[0],
            LoginSlot::B => &self.logins[1],
        }
    }

    /// All of them, in the order of [`super::state::State`].
    pub fn all(&self) -> [&str; 5] {
        [&self.own, &self.logins[0], &self.logins[1], &self.dump, &self.restore]
    }
}

/// The name of a scratch database and of its only role. Labels may tell who the tenant is, so only a hash is shown.
pub(super) fn scratch(tenant: &Tenant, label: &str) -> String {
    let hash = digest::digest(&digest::SHA256, label.as_bytes());
    format!("{}_v_{}", tenant.name, crate::digest::hex(&hash.as_ref()[..5]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_name_means_itself() {
        assert_eq!(quote_ident(r#"a"; DROP ROLE x; --"#), r#""a""; DROP ROLE x; --""#);
        assert_eq!(quote_ident("a\0b"), "\"ab\"");
    }

    #[test]
    fn a_quoted_text_means_itself_under_either_reading_of_backslashes() {
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal(r"\'; DROP ROLE x; --"), r"E'\\''; DROP ROLE x; --'");
    }

    #[test]
    fn a_tenants_name_tells_nothing_but_digits_of_its_uid() {
        let tenant = Tenant::of("8f3a1c2e-0b4d-4f6a-9c8e-1234567890ab").unwrap();
        assert_eq!(tenant.name, "t_8f3a1c2e0b4d4f6a");
        assert_eq!(tenant.login(LoginSlot::B), "t_8f3a1c2e0b4d4f6a_b");
        assert!(!scratch(&tenant, "acme-20261123t100003z").contains("acme"));
    }

    #[test]
    fn no_name_is_made_from_what_is_no_uid() {
        for uid in ["", "acme", "8F3A1C2E-0b4d-4f6a-9c8e-1234567890ab", "8f3a1c2e-0b4d-4f6a-9c8e-1234567890a\""] {
            assert!(Tenant::of(uid).is_err(), "{uid:?} was accepted");
        }
    }
}
