//! Makes a tenant's database with its roles, and observes it.

use sqlx::Row;

use super::{
    connect::{code, explain},
    driver::{ASK, CHANGE, Driver, send},
    extensions::Wish,
    names::{Roles, quote_ident, quote_literal},
    state::State,
};
use crate::{
    api::plan::Schemas,
    clock::Moment,
    database::{DatabaseId, Ensured, Error, LoginSecret, LoginSlot, ObservedDatabase, Tenant, TenantLimits, extensions::SCHEMA},
};

impl Driver {
    /// Makes what is missing of a tenant. In steps, each of which leaves all or nothing:
    ///
    /// 1. the owner role and the login, marked;
    /// 2. the database, empty and closed;
    /// 3. the database's marker and its privileges, and it opens to those who have them: to the operator;
    /// 4. the operator's schema, the tenant's schema, the login's settings and the owner's right to connect;
    /// 5. the extensions, each by itself;
    /// 6. the right to make schemas, once none of the operator's schema's name can be made any more.
    pub(in crate::database) async fn ensure(&self, tenant: &Tenant, terms: &TenantLimits, login: &LoginSecret) -> Result<Ensured, Error> {
        let (roles, state) = self.read_state(tenant).await?;
        if state.is_restoring(&roles) {
            return Err(Error::Restoring(tenant.name.clone()));
        }
        let (existing, other) = (state.login(&roles, login.slot), state.login(&roles, login.slot.other()));

        let mut sql = create_owner(tenant, &roles, &state);
        match existing {
            None => {
                let open = other.is_none_or(|other| other.can_login);
                sql += &create_login(tenant, &roles, terms, login, open);
            }
            Some(role) if role.limit != terms.connection_limit => {
                sql += &format!("ALTER ROLE {} CONNECTION LIMIT {};", quote_ident(roles.login(login.slot)), terms.connection_limit);
            }
            Some(_) => {}
        }
        if state.database.as_ref().is_some_and(|found| found.limit != connection_limit(terms)) {
            sql += &format!("ALTER DATABASE {} CONNECTION LIMIT {};", quote_ident(&tenant.name), connection_limit(terms));
        }
        self.change("make the tenant's roles", sql).await?;

        let wishes: Vec<Wish> = terms.extensions.iter().map(Wish::planned).collect();
        let facts = self.create_database(&state, connection_limit(terms), &wishes).await?;
        if state.database.as_ref().is_none_or(|found| found.marker.is_none()) {
            self.change("open the tenant's database", open_database(&tenant.name, &tenant.uid, "")).await?;
        }
        let mut sql = String::new();
        if !existing.is_some_and(|role| role.set_up) {
            sql += &make_schema(&roles);
            sql += &set_up_login(tenant, &roles, login.slot);
            if !other.is_some_and(|role| role.set_up) {
                sql += &grant_connect(tenant, &roles);
            }
        }
        for slot in [LoginSlot::A, LoginSlot::B] {
            if state.login(&roles, slot).is_some_and(|role| role.settings.iter().any(|line| line == "search_path=app")) {
                sql += &find_extensions(tenant, &roles, slot);
            }
        }
        let lacking = self.equip(&tenant.name, "make the tenant's schema", &roles.own, &sql, &wishes).await?;
        let creates = state.role(&roles.own).is_some_and(|role| role.creates);
        self.change("say who makes schemas", set_schemas(tenant, &roles, terms, creates)).await?;
        Ok(Ensured { facts, lacking })
    }

    /// Makes a database, empty and closed, unless it is there.
    pub(super) async fn create_database(&self, state: &State, limit: i32, wishes: &[Wish]) -> Result<DatabaseId, Error> {
        if state.database.is_some() {
            return state.facts();
        }
        let step = "make the tenant's database";
        let (name, template) = (quote_ident(&state.name), quote_ident(self.template(wishes).await?));
        let sql = format!("CREATE DATABASE {name} TEMPLATE {template} ENCODING 'UTF8' ALLOW_CONNECTIONS false CONNECTION LIMIT {limit}");
        let permit = self.permit(&self.create_permits, step).await?;
        self.within(CHANGE, step, send(&self.pool, sql)).await?;
        drop(permit);
        let query = sqlx::query_scalar::<_, i64>("SELECT oid::bigint FROM pg_database WHERE datname = $1").bind(state.name.clone());
        let oid = self.within(ASK, step, query.fetch_one(&self.pool)).await?;
        let oid = u32::try_from(oid).map_err(|e| explain(&self.address, step, sqlx::Error::Decode(e.into())))?;
        Ok(DatabaseId { oid, system_identifier: state.system_identifier.clone() })
    }

    /// See [`crate::database::Server::observe`].
    pub(in crate::database) async fn observe(&self, tenant: &Tenant) -> Result<ObservedDatabase, Error> {
        let roles = Roles::of(tenant);
        let ours: Vec<&str> = roles.all().to_vec();
        let step = "look at the tenant's database";
        let query = sqlx::query(OBSERVE)
            .bind(&tenant.name)
            .bind(&tenant.uid)
            .bind(ours)
            .bind(vec![roles.login(LoginSlot::A), roles.login(LoginSlot::B)])
            .bind(vec![roles.dump.as_str(), roles.restore.as_str()])
            .bind(&roles.own);
        let row = match self.within(ASK, step, query.fetch_one(&self.pool)).await {
            // The database went away between two of the statement's own looks at it.
            Err(Error::Query { source, .. }) if code(&source).as_deref() == Some("3D000") => {
                return Err(Error::NoSuchDatabase(tenant.name.clone()));
            }
            other => other?,
        };
        observed(&row).map_err(|error| explain(&self.address, step, error))
    }

    /// See [`crate::database::Server::size`].
    pub(in crate::database) async fn size(&self, tenant: &Tenant) -> Result<i64, Error> {
        let query = sqlx::query_scalar("SELECT pg_database_size($1::name)").bind(&tenant.name);
        self.within(ASK, "measure the tenant's database", query.fetch_one(&self.pool)).await
    }
}

/// A database in the making has no marker yet and is nobody's but its maker's: neither the tenant's nor foreign.
const OBSERVE: &str = "WITH d AS (SELECT oid, shobj_description(oid, 'pg_database') AS marker, datacl, \
        (NOT datallowconn AND pg_get_userbyid(datdba) = current_user) AS making FROM pg_database WHERE datname = $1), \
    r AS (SELECT oid, rolname, rolcanlogin, shobj_description(oid, 'pg_authid') AS marker FROM pg_roles WHERE rolname = ANY($3)) \
    SELECT (SELECT oid::bigint FROM d WHERE marker = $2) AS oid, \
    (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier, \
    EXISTS (SELECT FROM d WHERE marker IS DISTINCT FROM $2 AND NOT (marker IS NULL AND making AND EXISTS (SELECT FROM r WHERE marker = $2))) \
        OR EXISTS (SELECT FROM r WHERE marker IS DISTINCT FROM $2) AS foreign, \
    EXISTS (SELECT FROM r, d WHERE r.rolname = ANY($4) AND r.rolcanlogin AND r.marker = $2 AND d.marker = $2 \
        AND has_database_privilege(r.oid, d.oid, 'CONNECT')) AS can_login, \
    EXISTS (SELECT FROM d, aclexplode(d.datacl) x JOIN r ON r.oid = x.grantee \
        WHERE d.marker = $2 AND x.privilege_type = 'CREATE' AND r.rolname = $6) AS makes_schemas, \
    (SELECT count(*) FROM pg_stat_activity s JOIN d ON s.datid = d.oid WHERE s.usesysid IS NOT NULL AND s.pid <> pg_backend_pid() \
        AND s.usename <> ALL($5) AND s.usename <> current_user) AS sessions, \
    extract(epoch FROM clock_timestamp())::bigint AS now";

fn observed(row: &sqlx::postgres::PgRow) -> Result<ObservedDatabase, sqlx::Error> {
    let oid = row.try_get::<Option<i64>, _>("oid")?.map(u32::try_from).transpose().map_err(|e| sqlx::Error::Decode(e.into()))?;
    let system_identifier: String = row.try_get("system_identifier")?;
    Ok(ObservedDatabase {
        database: oid.map(|oid| DatabaseId { oid, system_identifier }),
        foreign: row.try_get("foreign")?,
        can_login: row.try_get("can_login")?,
        makes_schemas: row.try_get("makes_schemas")?,
        sessions: row.try_get("sessions")?,
        now: Moment::from_second(row.try_get("now")?).map_err(|e| sqlx::Error::Decode(e.into()))?,
    })
}

/// Sessions in a tenant's database: both logins during a rotation, and a few for the operator and its movers.
pub(super) const fn connection_limit(terms: &TenantLimits) -> i32 {
    terms.connection_limit.saturating_mul(2).saturating_add(8)
}

/// The owner role, unless it is there. The operator can act as it, to make and to hand over what it owns.
pub(super) fn create_owner(tenant: &Tenant, roles: &Roles, state: &State) -> String {
    if state.role(&roles.own).is_some() {
        return String::new();
    }
    let (own, uid) = (quote_ident(&roles.own), quote_literal(&tenant.uid));
    format!("CREATE ROLE {own} NOLOGIN; COMMENT ON ROLE {own} IS {uid}; GRANT {own} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE;")
}

/// One of the two logins. The operator may act as it too: what a tenant makes after `SET ROLE NONE` is the login's.
pub(super) fn create_login(tenant: &Tenant, roles: &Roles, terms: &TenantLimits, login: &LoginSecret, open: bool) -> String {
    let (name, own, uid) = (quote_ident(roles.login(login.slot)), quote_ident(&roles.own), quote_literal(&tenant.uid));
    format!(
        "CREATE ROLE {name} {} CONNECTION LIMIT {} IN ROLE {own} PASSWORD {}; COMMENT ON ROLE {name} IS {uid}; \
         GRANT {name} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE;",
        if open { "LOGIN" } else { "NOLOGIN" },
        terms.connection_limit,
        quote_literal(login.verifier.expose()),
    )
}

/// Marks a closed database, takes PUBLIC's rights, gives `more` and lets those in who have the right: in one
/// transaction, because PUBLIC may connect to a database that was just made.
pub(super) fn open_database(name: &str, uid: &str, more: &str) -> String {
    let (name, uid) = (quote_ident(name), quote_literal(uid));
    format!(
        "COMMENT ON DATABASE {name} IS {uid}; REVOKE ALL ON DATABASE {name} FROM PUBLIC; {more} \
         ALTER DATABASE {name} ALLOW_CONNECTIONS true;"
    )
}

/// The schema that everything of the tenant is in. To be sent to a session inside its database.
pub(super) fn make_schema(roles: &Roles) -> String {
    format!("CREATE SCHEMA IF NOT EXISTS app AUTHORIZATION {};", quote_ident(&roles.own))
}

/// What a login does acts as the owner and finds the schema, and last the extensions.
pub(super) fn set_up_login(tenant: &Tenant, roles: &Roles, slot: LoginSlot) -> String {
    let (login, own, database) = (quote_ident(roles.login(slot)), quote_literal(&roles.own), quote_ident(&tenant.name));
    format!("ALTER ROLE {login} IN DATABASE {database} SET role = {own};") + &find_extensions(tenant, roles, slot)
}

fn find_extensions(tenant: &Tenant, roles: &Roles, slot: LoginSlot) -> String {
    let (login, database) = (quote_ident(roles.login(slot)), quote_ident(&tenant.name));
    format!("ALTER ROLE {login} IN DATABASE {database} SET search_path = app, {};", quote_ident(SCHEMA))
}

/// The right to make schemas, given or taken; nothing if it is as the terms say.
pub(super) fn set_schemas(tenant: &Tenant, roles: &Roles, terms: &TenantLimits, creates: bool) -> String {
    let (database, own) = (quote_ident(&tenant.name), quote_ident(&roles.own));
    match (terms.schemas, creates) {
        (Schemas::Own, false) => format!("GRANT CREATE ON DATABASE {database} TO {own};"),
        (Schemas::Fixed, true) => format!("REVOKE CREATE ON DATABASE {database} FROM {own};"),
        (Schemas::Own, true) | (Schemas::Fixed, false) => String::new(),
    }
}

/// The tenant's right to enter its database.
pub(super) fn grant_connect(tenant: &Tenant, roles: &Roles) -> String {
    format!("GRANT CONNECT, TEMPORARY ON DATABASE {} TO {};", quote_ident(&tenant.name), quote_ident(&roles.own))
}
