//! Drops a tenant's database and its roles.

use super::{
    connect::explain,
    driver::{ASK, DROP, Driver, send},
    names::{Roles, quote_ident},
    state::State,
};
use crate::{
    backup::proof::DropAuthority,
    database::{DatabaseId, Error, Tenant},
};

impl Driver {
    /// See [`crate::database::Server::drop`]. What is dropped is looked at once more, in the session that drops it. The
    /// roles own nothing outside of the database; one that another tenant names stays as a shell.
    pub(in crate::database) async fn drop(&self, tenant: &Tenant, facts: &DatabaseId, authority: &DropAuthority) -> Result<(), Error> {
        let refuse = || Error::NotAuthorized(tenant.name.clone());
        if !authority.covers(&tenant.uid, facts.oid, &facts.system_identifier) {
            return Err(refuse());
        }
        let roles = Roles::of(tenant);
        let _turn = self.permit(&self.drop_permits, "drop the tenant's database").await?;
        let mut session = self.within(ASK, "get a session for dropping", self.drops.acquire()).await?;
        let step = "look at the tenant's database";
        let state = self.within(ASK, step, State::read(&mut *session, &tenant.name, &roles.all())).await?;
        state.check_marker(&tenant.uid)?;
        if state.system_identifier != facts.system_identifier {
            return Err(refuse());
        }
        if let Some(found) = &state.database {
            if found.oid != facts.oid {
                return Err(refuse());
            }
            let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote_ident(&tenant.name));
            self.past_locks(DROP, "drop the tenant's database", send(&mut *session, sql)).await?;
        }
        drop(session);
        self.remove_roles("drop the tenant's roles", &those_there(&state), &[]).await.map(drop)
    }

    /// Drops a database that never was a tenant's: a scratch database, or one that a restore did not finish.
    pub(super) async fn drop_unproven(&self, state: &State, uid: &str) -> Result<(), Error> {
        let step = "drop an unfinished database";
        let names: Vec<&str> = state.roles.iter().map(|(name, _)| name.as_str()).collect();
        let _turn = self.permit(&self.drop_permits, step).await?;
        let mut session = self.within(ASK, step, self.drops.acquire()).await?;
        let again = self.within(ASK, step, State::read(&mut *session, &state.name, &names)).await?;
        again.check_marker(uid)?;
        if again.facts()? != state.facts()? {
            return Err(explain(&self.address, step, sqlx::Error::RowNotFound));
        }
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quote_ident(&state.name));
        self.past_locks(DROP, step, send(&mut *session, sql)).await
    }
}

/// The roles that are there, those first that are members of others.
pub(super) fn those_there(state: &State) -> Vec<String> {
    state.roles.iter().rev().filter(|(_, role)| role.is_some()).map(|(name, _)| name.clone()).collect()
}
