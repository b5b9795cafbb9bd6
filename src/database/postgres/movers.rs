//! Logins of movers: for dumps, and for the scratch databases in which dumps are verified.

use super::{
    driver::{ASK, Driver},
    drop::those_there,
    extensions::Wish,
    names::{Roles, quote_ident, quote_literal, scratch},
    state::State,
    tenant::open_database,
};
use crate::database::{Error, LoginSlot, MoverLogin, Password, Tenant};

/// Sessions that a mover may have at once.
const SESSIONS: u8 = 4;

/// Makes everything readable to `%s`, the login for dumps, through the roles that it is a member of. A tenant can take the
/// right to read what is its own from itself: its owners get it back. What belongs to somebody else is given to the login
/// itself, where the operator may; where it may not, the owner is named.
const READABLE: &str = "DO $$ DECLARE one record; reader name := %s; BEGIN \
    FOR one IN SELECT m.oid, pg_get_userbyid(m.lomowner) AS owner FROM pg_largeobject_metadata m WHERE m.lomacl IS NOT NULL \
        AND NOT EXISTS (SELECT FROM aclexplode(m.lomacl) x WHERE x.grantee = m.lomowner AND x.privilege_type = 'SELECT') \
    LOOP EXECUTE format('GRANT SELECT ON LARGE OBJECT %s TO %I', one.oid, one.owner); END LOOP; \
    FOR one IN SELECT n.nspname, pg_get_userbyid(n.nspowner) AS owner FROM pg_namespace n \
        WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND pg_has_role(reader, n.nspowner, 'USAGE') \
        AND NOT has_schema_privilege(n.nspowner, n.oid, 'USAGE') \
    LOOP EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', one.nspname, one.owner); END LOOP; \
    FOR one IN SELECT c.oid::regclass::text AS relation, pg_get_userbyid(c.relowner) AS owner, \
            pg_has_role(reader, c.relowner, 'USAGE') AS tenants FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
        WHERE c.relkind IN ('r', 'p', 'm', 'S') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' \
        AND NOT CASE WHEN pg_has_role(reader, c.relowner, 'USAGE') THEN has_table_privilege(c.relowner, c.oid, 'SELECT') \
            ELSE has_table_privilege(reader, c.oid, 'SELECT') END \
        AND (NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') \
            OR EXISTS (SELECT FROM pg_extension e WHERE c.oid = ANY(e.extconfig))) \
    LOOP \
        BEGIN EXECUTE format('GRANT SELECT ON TABLE %s TO %I', one.relation, CASE WHEN one.tenants THEN one.owner ELSE reader END); \
        EXCEPTION WHEN insufficient_privilege THEN \
            RAISE EXCEPTION '% belongs to % and cannot be read for a backup: give it to the tenant with ALTER TABLE … OWNER TO, \
or let % read it', one.relation, one.owner, reader; END; \
    END LOOP; END $$;";

impl Driver {
    /// See [`crate::database::Server::dump_login`]. A tenant that takes rights from its owner role, or makes things
    /// that are not the owner role's, is dumped all the same: the login is a member of the tenant's roles, which are
    /// given back what they need, and is held by no row security. Its right to connect is to this database only. It
    /// reads nothing that is not the tenant's, so a mover that was taken over learns of no other; it could write what
    /// the tenant could write, if it undid that its sessions are read-only.
    pub(in crate::database) async fn dump_login(&self, tenant: &Tenant) -> Result<MoverLogin, Error> {
        let (roles, state) = self.read_state(tenant).await?;
        state.facts()?;
        if state.is_restoring(&roles) {
            return Err(Error::Restoring(tenant.name.clone()));
        }
        let password = Password::generate()?;
        let (name, database) = (quote_ident(&roles.dump), quote_ident(&tenant.name));
        let mut sql = login(&roles.dump, state.role(&roles.dump).is_some(), "BYPASSRLS", &tenant.uid, &password, &state)?;
        let mut owners = vec![quote_ident(&roles.own)];
        for slot in [LoginSlot::A, LoginSlot::B] {
            if state.login(&roles, slot).is_some() {
                owners.push(quote_ident(roles.login(slot)));
            }
        }
        sql += &format!(
            "GRANT {} TO {name} WITH INHERIT TRUE, SET FALSE; \
             GRANT CONNECT ON DATABASE {database} TO {name}; \
             ALTER ROLE {name} IN DATABASE {database} SET default_transaction_read_only = on; \
             ALTER ROLE {name} IN DATABASE {database} SET search_path = pg_catalog; \
             ALTER ROLE {name} IN DATABASE {database} SET role = none;",
            owners.join(", ")
        );
        self.change("make the login for a dump", sql).await?;
        let readable = READABLE.replacen("%s", &quote_literal(&roles.dump), 1);
        self.run_in_database(&tenant.name, "make everything readable for a dump", readable).await?;
        Ok(self.mover(&tenant.name, &roles.dump, password))
    }

    /// See [`crate::database::Server::revoke_dump_login`].
    pub(in crate::database) async fn revoke_dump_login(&self, tenant: &Tenant) -> Result<(), Error> {
        self.remove_dump_login(tenant).await.map(drop)
    }

    /// Shuts the login for dumps and drops it. `false` if its role stays as a shell, because somebody names it.
    pub(super) async fn remove_dump_login(&self, tenant: &Tenant) -> Result<bool, Error> {
        let (roles, state) = self.read_state(tenant).await?;
        let Some(role) = state.role(&roles.dump) else { return Ok(true) };
        let (name, database) = (quote_ident(&roles.dump), quote_ident(&tenant.name));
        let mut sql = format!("ALTER ROLE {name} NOLOGIN;");
        if state.database.is_some() {
            sql += &format!("REVOKE ALL ON DATABASE {database} FROM {name};");
        }
        self.change("shut the login for a dump", sql).await?;
        self.end_sessions_of(&[role.oid]).await?;
        Ok(self.remove_roles("remove the login for a dump", &[roles.dump], &[]).await?.is_empty())
    }

    /// See [`crate::database::Server::scratch`].
    pub(in crate::database) async fn scratch(&self, tenant: &Tenant, label: &str) -> Result<MoverLogin, Error> {
        let name = scratch(tenant, label);
        let mut state = self.look_at_scratch(tenant, &name).await?;
        if state.database.is_some() {
            self.drop_unproven(&state, &tenant.uid).await?;
            state.database = None;
        }
        let wishes: Vec<Wish> = self.made_for_tenant(&tenant.name).await?.iter().map(Wish::copied).collect();
        let password = Password::generate()?;
        let sql = login(&name, state.role(&name).is_some(), "", &tenant.uid, &password, &state)?;
        self.change("make the login of a scratch database", sql).await?;
        self.create_database(&state, i32::from(SESSIONS) + 2, &wishes).await?;
        let rights = format!("GRANT CONNECT, TEMPORARY, CREATE ON DATABASE {0} TO {0};", quote_ident(&name));
        self.change("open a scratch database", open_database(&name, &tenant.uid, &rights)).await?;
        self.equip_for_restore(&name, &name, &wishes).await?;
        Ok(self.mover(&name, &name, password))
    }

    /// See [`crate::database::Server::drop_scratch`].
    pub(in crate::database) async fn drop_scratch(&self, tenant: &Tenant, label: &str) -> Result<(), Error> {
        self.drop_scratch_named(tenant, &scratch(tenant, label)).await.map(drop)
    }

    /// Drops a scratch database by its own name. `false` if its role stays as a shell, because somebody names it.
    pub(super) async fn drop_scratch_named(&self, tenant: &Tenant, name: &str) -> Result<bool, Error> {
        let state = self.look_at_scratch(tenant, name).await?;
        if state.database.is_some() {
            self.drop_unproven(&state, &tenant.uid).await?;
        }
        self.remove_roles("drop the login of a scratch database", &those_there(&state), &[]).await.map(|left| left.is_empty())
    }

    async fn look_at_scratch(&self, tenant: &Tenant, name: &str) -> Result<State, Error> {
        let state = self.within(ASK, "look at a scratch database", State::read(&self.pool, name, &[name])).await?;
        state.check_marker(&tenant.uid)?;
        Ok(state)
    }

    pub(super) fn mover(&self, database: &str, username: &str, password: Password) -> MoverLogin {
        MoverLogin {
            host: self.address.host.clone(),
            port: self.address.port,
            database: database.to_owned(),
            username: username.to_owned(),
            password,
            ca_pem: self.address.ca_pem.clone(),
            tls: self.address.tls,
        }
    }
}

/// Makes or renews a mover's login: a fresh password that is good for a day.
pub(super) fn login(name: &str, exists: bool, attributes: &str, uid: &str, password: &Password, state: &State) -> Result<String, Error> {
    let name = quote_ident(name);
    let (verb, mark) = if exists {
        ("ALTER", String::new())
    } else {
        let take = format!("GRANT {name} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE;");
        ("CREATE", format!("COMMENT ON ROLE {name} IS {}; {take}", quote_literal(uid)))
    };
    Ok(format!(
        "{verb} ROLE {name} LOGIN {attributes} CONNECTION LIMIT {SESSIONS} PASSWORD {} VALID UNTIL {}; {mark}",
        quote_literal(password.verifier()?.expose()),
        quote_literal(&state.tomorrow)
    ))
}

/// The names of a tenant's own roles, for the grants of a restore.
pub(super) fn act_as_owner(roles: &Roles) -> String {
    format!("GRANT {} TO {} WITH INHERIT TRUE, SET TRUE;", quote_ident(&roles.own), quote_ident(&roles.restore))
}
