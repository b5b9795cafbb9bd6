//! Opens and shuts a tenant's database, ends its sessions, rotates its login.

use std::time::Duration;

use sqlx::{Connection, PgConnection, Row};
use tokio::time::{Instant, sleep};

use super::{
    connect::{code, explain, options},
    driver::{ASK, Driver},
    names::{Roles, quote_ident, quote_literal},
    settings::carry,
    state::{Role, State},
    tenant::{create_login, grant_connect, set_up_login},
};
use crate::database::{
    Error, LoginSecret, LoginSlot, Password, Probe, RotationStep, SessionsLeft, Tenant, TenantLimits, settings::carried,
};

/// How long sessions are given to end.
const ENDING: Duration = Duration::from_secs(10);
/// A session that passed the check of its login just before it was shut is not listed yet; so long it may take to be.
const SETTLE: Duration = Duration::from_millis(150);

/// Ends every session in a database, and wherever else one of `$3` has one, except this operator's and its movers'. A
/// superuser's session only a superuser may end; it is left, counted and named.
const TERMINATE: &str = "SELECT pg_terminate_backend(s.pid) FROM pg_stat_activity s JOIN pg_roles r ON r.oid = s.usesysid \
    WHERE (s.datid::bigint = $1 OR r.rolname = ANY($3)) AND s.pid <> pg_backend_pid() AND r.rolname <> ALL($2) AND r.rolname <> current_user \
    AND (NOT r.rolsuper OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user))";

const SESSIONS: &str = "SELECT count(*) AS sessions, coalesce(array_agg(DISTINCT s.usename::text), '{}') AS holders \
    FROM pg_stat_activity s WHERE (s.datid::bigint = $1 OR s.usename = ANY($3)) AND s.usesysid IS NOT NULL AND s.pid <> pg_backend_pid() \
    AND s.usename <> ALL($2) AND s.usename <> current_user";

impl Driver {
    /// See [`crate::database::Server::suspend`]. Three walls, the one first that no tenant can hold up: a login that is no
    /// member of the owner role has no right to connect. Once its sessions are gone, nobody of the tenant holds what the
    /// other two need: the logins are shut, and the owner role loses the right to connect.
    pub(in crate::database) async fn suspend(&self, tenant: &Tenant) -> Result<SessionsLeft, Error> {
        let (roles, state) = self.read_state(tenant).await?;
        let oid = i64::from(state.facts()?.oid);
        let logins = [roles.login(LoginSlot::A), roles.login(LoginSlot::B)];
        if logins.iter().any(|login| state.role(login).is_some_and(|role| role.belongs)) {
            let revocations = self.revocations(&logins, Some(&[&roles.own])).await?;
            if let Err(error) = self.change("take the tenant's logins out of its role", revocations).await {
                // The other walls are as good, if only nobody holds them up.
                tracing::warn!(%error, "one of three ways to shut a tenant's logins failed");
            }
        }
        let before = self.end_sessions(oid, &roles).await?;
        let mut sql = String::new();
        for login in logins {
            if state.role(login).is_some_and(|role| role.can_login) {
                sql += &format!("ALTER ROLE {} NOLOGIN;", quote_ident(login));
            }
        }
        if state.role(&roles.own).is_some_and(|role| role.connects) {
            sql += &format!("REVOKE CONNECT, TEMPORARY ON DATABASE {} FROM {};", quote_ident(&tenant.name), quote_ident(&roles.own));
        }
        if sql.is_empty() {
            return Ok(before);
        }
        self.change("shut the tenant's logins", sql).await?;
        self.end_sessions(oid, &roles).await
    }

    async fn end_sessions(&self, oid: i64, roles: &Roles) -> Result<SessionsLeft, Error> {
        let movers = [roles.dump.as_str(), roles.restore.as_str()];
        let logins = [roles.login(LoginSlot::A), roles.login(LoginSlot::B)];
        let until = Instant::now() + ENDING;
        let mut seen_empty = false;
        loop {
            let query = sqlx::query(TERMINATE).bind(oid).bind(movers.as_slice()).bind(logins.as_slice());
            self.within(ASK, "end the tenant's sessions", query.execute(&self.pool)).await?;
            let left = self.sessions(oid, &movers, &logins).await?;
            if (left.sessions_left == 0 && seen_empty) || Instant::now() >= until {
                return Ok(left);
            }
            seen_empty = left.sessions_left == 0;
            sleep(SETTLE).await;
        }
    }

    async fn sessions(&self, oid: i64, movers: &[&str], logins: &[&str]) -> Result<SessionsLeft, Error> {
        let step = "count the tenant's sessions";
        let query = sqlx::query(SESSIONS).bind(oid).bind(movers).bind(logins);
        let row = self.within(ASK, step, query.fetch_one(&self.pool)).await?;
        let read = || Ok(SessionsLeft { sessions_left: row.try_get("sessions")?, holders: row.try_get("holders")? });
        read().map_err(|error| explain(&self.address, step, error))
    }

    /// See [`crate::database::Server::resume`].
    pub(in crate::database) async fn resume(&self, tenant: &Tenant) -> Result<(), Error> {
        let (roles, state) = self.read_state(tenant).await?;
        state.facts()?;
        if state.is_restoring(&roles) {
            return Err(Error::Restoring(tenant.name.clone()));
        }
        let mut sql = String::new();
        if !state.role(&roles.own).is_some_and(|role| role.connects) {
            sql += &grant_connect(tenant, &roles);
        }
        for slot in [LoginSlot::A, LoginSlot::B] {
            if let Some(role) = state.login(&roles, slot) {
                sql += &open_login(&roles, roles.login(slot), role);
            }
        }
        self.change("open the tenant's logins", sql).await
    }

    /// See [`crate::database::Server::probe`].
    pub(in crate::database) async fn probe(&self, tenant: &Tenant, slot: LoginSlot, password: &Password) -> Result<Probe, Error> {
        let step = "try the tenant's own credentials";
        let options = options(&self.address, &tenant.login(slot), password).database(&tenant.name);
        // However many accounts are probed at once, the server has room for these sessions.
        let permit = self.permit(&self.session_permits, step).await?;
        let attempt = async {
            match PgConnection::connect_with(&options).await {
                Ok(session) => {
                    session.close().await.ok();
                    Ok(true)
                }
                Err(error) => match code(&error).as_deref() {
                    // A password, a role, a right, a database or a database's openness that is not there.
                    Some("28P01" | "28000" | "42501" | "3D000" | "55000") => Ok(false),
                    _ => Err(error),
                },
            }
        };
        if self.within(ASK, step, attempt).await? {
            return Ok(Probe::LetIn);
        }
        drop(permit);
        // Refused, but perhaps for another reason than that the login is shut: the catalog decides.
        let (roles, state) = self.read_state(tenant).await?;
        let shut = !state.role(&roles.own).is_some_and(|role| role.connects)
            || !state.login(&roles, slot).is_some_and(|role| role.can_login && role.belongs)
            || !state.database.as_ref().is_some_and(|found| found.open);
        Ok(if shut { Probe::Refused } else { Probe::WrongPassword })
    }

    /// See [`crate::database::Server::set_password`].
    pub(in crate::database) async fn set_password(&self, tenant: &Tenant, login: &LoginSecret) -> Result<(), Error> {
        let (roles, state) = self.read_state(tenant).await?;
        let name = roles.login(login.slot);
        if state.role(name).is_none() {
            return Err(Error::NoSuchLogin(name.to_owned()));
        }
        self.change("set the tenant's password", set_password(name, login)).await
    }

    /// See [`crate::database::Server::begin_rotation`].
    pub(in crate::database) async fn begin_rotation(&self, tenant: &Tenant, terms: &TenantLimits, new: &LoginSecret) -> Result<(), Error> {
        let (roles, state) = self.read_state(tenant).await?;
        state.facts()?;
        let name = roles.login(new.slot);
        let open = state.login(&roles, new.slot.other()).is_none_or(|old| old.can_login);
        let mut sql = match state.role(name) {
            // Somebody names it, so that it could not be dropped after the rotation before.
            Some(shell) if open && !shell.can_login => set_password(name, new) + &open_login(&roles, name, shell),
            Some(_) => set_password(name, new),
            None => create_login(tenant, &roles, terms, new, open),
        };
        sql += &set_up_login(tenant, &roles, new.slot);
        let old = state.login(&roles, new.slot.other()).map(|old| old.settings.as_slice()).unwrap_or_default();
        sql += &carry(tenant, &roles, new.slot, &carried(old.iter().map(String::as_str)));
        self.change("make the tenant's other login", sql).await
    }

    /// See [`crate::database::Server::finish_rotation`].
    pub(in crate::database) async fn finish_rotation(&self, tenant: &Tenant, old: LoginSlot) -> Result<RotationStep, Error> {
        let (roles, state) = self.read_state(tenant).await?;
        let name = roles.login(old);
        let Some(role) = state.role(name) else { return Ok(RotationStep::Done) };
        state.facts()?;
        if state.login(&roles, old.other()).is_none() {
            return Err(Error::NoSuchLogin(roles.login(old.other()).to_owned()));
        }
        let sessions = self.sessions_of(role.oid).await?;
        if sessions > 0 {
            return Ok(RotationStep::Waiting(sessions));
        }
        if role.can_login {
            self.change("shut the tenant's old login", format!("ALTER ROLE {} NOLOGIN", quote_ident(name))).await?;
            sleep(SETTLE).await;
            let sessions = self.sessions_of(role.oid).await?;
            if sessions > 0 {
                // Somebody still uses it: a rotation cuts nobody off.
                self.change("open the tenant's old login", format!("ALTER ROLE {} LOGIN", quote_ident(name))).await?;
                return Ok(RotationStep::Waiting(sessions));
            }
        }
        let (own, quoted, database) = (quote_ident(&roles.own), quote_ident(name), quote_ident(&tenant.name));
        let mut sql = format!("REASSIGN OWNED BY {quoted} TO {own}; DROP OWNED BY {quoted};");
        if !state.role(&roles.own).is_some_and(|own| own.creates) {
            // Who gets a publication needs this right, if only within this transaction.
            sql = format!("GRANT CREATE ON DATABASE {database} TO {own}; {sql} REVOKE CREATE ON DATABASE {database} FROM {own};");
        }
        self.run_in_database(&tenant.name, "hand over what the tenant's old login owns", sql).await?;
        self.remove_roles("drop the tenant's old login", &[name.to_owned()], &[&tenant.name]).await?;
        Ok(RotationStep::Done)
    }

    async fn sessions_of(&self, role: i64) -> Result<i64, Error> {
        let query = sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE usesysid::bigint = $1").bind(role);
        self.within(ASK, "count the sessions of the tenant's old login", query.fetch_one(&self.pool)).await
    }
}

/// Lets a login in again: makes it a member of the owner role, and able to log in.
fn open_login(roles: &Roles, name: &str, role: &Role) -> String {
    let (own, name) = (quote_ident(&roles.own), quote_ident(name));
    let mut sql = String::new();
    if !role.belongs {
        sql += &format!("GRANT {own} TO {name} WITH INHERIT TRUE, SET TRUE;");
    }
    if !role.can_login {
        sql += &format!("ALTER ROLE {name} LOGIN;");
    }
    sql
}

fn set_password(name: &str, login: &LoginSecret) -> String {
    format!("ALTER ROLE {} PASSWORD {};", quote_ident(name), quote_literal(login.verifier.expose()))
}

/// Whether a tenant was ever let into the database: its owner role may connect, or a login is set up in it.
pub(super) fn was_open(roles: &Roles, state: &State) -> bool {
    state.role(&roles.own).is_some_and(|role| role.connects)
        || [LoginSlot::A, LoginSlot::B].into_iter().any(|slot| state.login(roles, slot).is_some_and(|role| role.set_up))
}
