//! Removes roles that other tenants may have named.
//!
//! Nobody can be kept from naming another's role in a grant, a policy or default privileges in its own database, and a
//! role that is named anywhere cannot be dropped. So the databases that name it are visited, and it is taken out there.
//! Where even that fails, because somebody names it again and again, or a database lets nobody in, the role stays as an
//! empty shell, which nobody can log in as and which is a member of nothing. It holds nothing up, and is removed later.

use std::collections::BTreeSet;

use sqlx::Row;

use super::{
    connect::{code, explain},
    driver::{ASK, Driver},
    drop::those_there,
    names::quote_ident,
};
use crate::database::{Error, Tenant};

/// A role cannot be dropped because something depends on it.
const DEPENDED_ON: &str = "2BP01";

/// Databases that let people in and name a role anywhere in their catalogs.
const NAMED_IN: &str = "SELECT DISTINCT d.datname::text FROM pg_shdepend s JOIN pg_roles r ON s.refclassid = 'pg_authid'::regclass AND r.oid = s.refobjid \
    JOIN pg_database d ON d.oid = s.dbid WHERE r.rolname = ANY($1) AND d.datallowconn AND d.datname <> ALL($2) ORDER BY 1";

/// What a role is a member of, and who made it so.
const MEMBERSHIPS: &str = "SELECT m.rolname::text AS member, g.rolname::text AS role, b.rolname::text AS grantor FROM pg_auth_members a \
    JOIN pg_roles m ON m.oid = a.member JOIN pg_roles g ON g.oid = a.roleid JOIN pg_roles b ON b.oid = a.grantor \
    WHERE m.rolname = ANY($1) AND ($2::text[] IS NULL OR g.rolname = ANY($2)) ORDER BY 1, 2, 3";

impl Driver {
    /// Drops roles, and first whatever names them elsewhere. Databases of `spared` are not visited: there the roles may
    /// own what must stay. Returns those that could not be dropped yet.
    pub(super) async fn remove_roles(&self, step: &'static str, roles: &[String], spared: &[&str]) -> Result<Vec<String>, Error> {
        if roles.is_empty() {
            return Ok(Vec::new());
        }
        let quoted = |roles: &[String]| roles.iter().map(|role| quote_ident(role)).collect::<Vec<_>>().join(", ");
        let at_once = self.change(step, format!("DROP ROLE IF EXISTS {};", quoted(roles))).await;
        if !is_depended_on(&at_once) {
            return at_once.map(|()| Vec::new());
        }
        let query = sqlx::query_scalar::<_, String>(NAMED_IN).bind(roles).bind(spared);
        for database in self.within(ASK, "look where roles are named", query.fetch_all(&self.pool)).await? {
            let sql = format!("DROP OWNED BY {};", quoted(&self.existing(roles).await?));
            if let Err(error) = self.run_in_database(&database, "take roles out of a database that names them", sql).await {
                tracing::warn!(server = %self.address, database, %error, "roles stay named there");
            }
        }
        let mut left = Vec::new();
        for role in roles {
            let dropped = self.change(step, format!("DROP ROLE IF EXISTS {};", quote_ident(role))).await;
            if is_depended_on(&dropped) {
                left.push(role.clone());
            } else {
                dropped?;
            }
        }
        if !left.is_empty() {
            tracing::warn!(server = %self.address, roles = left.join(", "), "somebody names these roles; they stay as shells and are removed later");
            let shut: String = left.iter().map(|role| format!("ALTER ROLE {} NOLOGIN;", quote_ident(role))).collect();
            let all: Vec<&str> = left.iter().map(String::as_str).collect();
            self.change("shut roles that are still named", shut + &self.revocations(&all, None).await?).await?;
        }
        Ok(left)
    }

    async fn existing(&self, roles: &[String]) -> Result<Vec<String>, Error> {
        let query = sqlx::query_scalar("SELECT rolname::text FROM pg_roles WHERE rolname = ANY($1)").bind(roles);
        self.within(ASK, "look which roles there are", query.fetch_all(&self.pool)).await
    }

    /// The statements that take `members` out of `roles`, or out of all, as whoever put them in.
    pub(super) async fn revocations(&self, members: &[&str], roles: Option<&[&str]>) -> Result<String, Error> {
        let step = "look what roles are members of";
        let query = sqlx::query(MEMBERSHIPS).bind(members).bind(roles);
        let rows = self.within(ASK, step, query.fetch_all(&self.pool)).await?;
        let one = |row: &sqlx::postgres::PgRow| -> Result<String, sqlx::Error> {
            let [member, role, grantor] =
                [row.try_get::<&str, _>("member")?, row.try_get("role")?, row.try_get("grantor")?].map(quote_ident);
            Ok(format!("REVOKE {role} FROM {member} GRANTED BY {grantor};"))
        };
        rows.iter().map(one).collect::<Result<_, _>>().map_err(|error| explain(&self.address, step, error))
    }

    /// See [`crate::database::Server::remove_shells`].
    pub(in crate::database) async fn remove_shells(&self, gone: &BTreeSet<String>) -> Result<Vec<String>, Error> {
        let mut left = Vec::new();
        let named: BTreeSet<String> = self.marked().await?.into_iter().map(|found| found.uid).filter(|uid| gone.contains(uid)).collect();
        for uid in named {
            let Some((roles, state)) = self.unless_refused(&uid, self.read_state(&Tenant::of(&uid)?).await)? else { continue };
            let there = those_there(&state);
            // Roles also come before their database.
            if state.database.is_none() && !there.is_empty() && !state.is_restoring(&roles) {
                let removed = self.remove_roles("remove roles that were named", &there, &[]).await;
                left.extend(self.unless_refused(&uid, removed)?.unwrap_or(there));
            }
        }
        Ok(left)
    }
}

fn is_depended_on(result: &Result<(), Error>) -> bool {
    matches!(result, Err(Error::Query { source, .. }) if code(source).as_deref() == Some(DEPENDED_ON))
}
