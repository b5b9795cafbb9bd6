//! Carries `ALTER ROLE … SET` and `ALTER DATABASE … SET` from one login to another.

use super::names::{Roles, quote_ident, quote_literal};
use crate::database::{LoginSlot, Tenant};

/// What is set for a tenant, as `name=value`, in its database and as anybody; what comes later wins: for the database,
/// for its logins, for its logins in the database. A login is a role that is named after the database.
pub const SETTINGS_OF_TENANT: &str = "SELECT c.line FROM pg_catalog.pg_db_role_setting s \
    JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database() \
    LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole, pg_catalog.unnest(s.setconfig) WITH ORDINALITY c(line, i) \
    WHERE (s.setdatabase = d.oid AND s.setrole = 0) \
    OR (s.setdatabase IN (0, d.oid) AND r.rolname IN (d.datname || '_a', d.datname || '_b')) \
    ORDER BY s.setrole <> 0, s.setdatabase <> 0, r.rolname, c.i";

/// Sets each for a login in its database. One that this server does not know, or whose value it does not take, is a
/// warning: it must keep nobody out.
pub(super) fn carry(tenant: &Tenant, roles: &Roles, slot: LoginSlot, settings: &[(String, String)]) -> String {
    if settings.is_empty() {
        return String::new();
    }
    let (login, database) = (quote_ident(roles.login(slot)), quote_ident(&tenant.name));
    let mut body = "BEGIN ".to_owned();
    for (name, value) in settings {
        body += &format!(
            "BEGIN ALTER ROLE {login} IN DATABASE {database} SET {} = {}; \
             EXCEPTION WHEN OTHERS THEN RAISE WARNING 'a setting was not carried: %', SQLERRM; END; ",
            quote_ident(name),
            quote_literal(value)
        );
    }
    body += "END";
    // A literal, because a value may hold whatever would end a dollar-quoted body.
    format!("DO {};", quote_literal(&body))
}
