//! Makes the database that a restore fills; its tenant's login opens when the restore was compared.
//!
//! The login for a restore is made before the database and shut in the transaction that finishes it. So while it is
//! open the database holds nothing but an unfinished restore, and may be begun anew.

use super::{
    access::was_open,
    driver::Driver,
    extensions::{Wish, end_config_tables},
    movers::{act_as_owner, login},
    names::{quote_ident, quote_literal},
    settings::carry,
    tenant::{connection_limit, create_login, create_owner, make_schema, open_database, set_up_login},
};
use crate::{
    api::plan::{Extension, Schemas},
    database::{DatabaseId, Error, LoginSecret, LoginSlot, MoverLogin, Password, Tenant, TenantLimits, settings::carried},
};

impl Driver {
    /// See [`crate::database::Server::prepare_restore`].
    pub(in crate::database) async fn prepare_restore(
        &self,
        tenant: &Tenant,
        terms: &TenantLimits,
        secret: &LoginSecret,
        extensions: &[Extension],
    ) -> Result<(DatabaseId, MoverLogin), Error> {
        let (roles, mut state) = self.read_state(tenant).await?;
        let begun = state.is_restoring(&roles);
        if state.database.is_some() {
            if !begun || was_open(&roles, &state) {
                return Err(Error::AlreadyExists(tenant.name.clone()));
            }
            self.drop_unproven(&state, &tenant.uid).await?;
            state.database = None;
        }
        let password = Password::generate()?;
        let mut sql = create_owner(tenant, &roles, &state);
        let name = roles.login(secret.slot);
        if state.role(name).is_some() {
            let verifier = quote_literal(secret.verifier.expose());
            sql += &format!("ALTER ROLE {} NOLOGIN PASSWORD {verifier};", quote_ident(name));
        } else {
            sql += &create_login(tenant, &roles, terms, secret, false);
        }
        sql += &login(&roles.restore, state.role(&roles.restore).is_some(), "", &tenant.uid, &password, &state)?;
        sql += &act_as_owner(&roles);
        self.change("make the roles for a restore", sql).await?;

        let wishes: Vec<Wish> = extensions.iter().map(Wish::copied).collect();
        let facts = self.create_database(&state, connection_limit(terms), &wishes).await?;
        let (restore, own, database) = (quote_ident(&roles.restore), quote_ident(&roles.own), quote_ident(&tenant.name));
        let rights = format!(
            "GRANT CONNECT, TEMPORARY ON DATABASE {database} TO {restore}; GRANT CREATE ON DATABASE {database} TO {own}; \
             ALTER ROLE {restore} IN DATABASE {database} SET role = {};",
            quote_literal(&roles.own)
        );
        self.change("open the database to the restore", open_database(&tenant.name, &tenant.uid, &rights)).await?;
        self.equip_for_restore(&tenant.name, &roles.own, &wishes).await?;
        let mover = self.mover(&tenant.name, &roles.restore, password);
        Ok((facts, mover))
    }

    /// See [`crate::database::Server::finish_restore`].
    pub(in crate::database) async fn finish_restore(
        &self,
        tenant: &Tenant,
        terms: &TenantLimits,
        settings: &[(String, String)],
    ) -> Result<DatabaseId, Error> {
        let (roles, state) = self.read_state(tenant).await?;
        let facts = state.facts()?;
        let Some(role) = state.role(&roles.restore) else { return Ok(facts) };
        let (restore, own, database) = (quote_ident(&roles.restore), quote_ident(&roles.own), quote_ident(&tenant.name));
        if !role.can_login {
            self.remove_roles("drop the login of a restore", &[roles.restore], &[&tenant.name]).await?;
            return Ok(facts);
        }
        let lines: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let settings = carried(lines.iter().map(String::as_str));
        let mut sql = end_config_tables(&roles);
        sql += &make_schema(&roles);
        for slot in [LoginSlot::A, LoginSlot::B] {
            if state.login(&roles, slot).is_some() {
                sql += &set_up_login(tenant, &roles, slot);
                sql += &carry(tenant, &roles, slot, &settings);
            }
        }
        sql += &format!(
            "REASSIGN OWNED BY {restore} TO {own}; DROP OWNED BY {restore}; \
             REVOKE ALL ON DATABASE {database} FROM {restore}; ALTER ROLE {restore} NOLOGIN;"
        );
        if terms.schemas == Schemas::Fixed {
            sql += &format!("REVOKE CREATE ON DATABASE {database} FROM {own};");
        }
        self.run_in_database(&tenant.name, "finish a restore", sql).await?;
        self.end_sessions_of(&[role.oid]).await?;
        self.remove_roles("drop the login of a restore", &[roles.restore], &[&tenant.name]).await?;
        Ok(facts)
    }
}
