//! The driver of PostgreSQL 16 and later; the only place with DDL.
//!
//! A tenant `t_x` is: the role `t_x_own`, which nobody logs in as and which owns the schema `app`; one or, during a
//! rotation, two logins `t_x_a` and `t_x_b`, members of `t_x_own` who act as it from the start of a session; and the
//! database `t_x`, which belongs to the operator, because who owns a database can undo its limits. In it the schema
//! `ext` is the operator's too: extensions are made there. Movers get roles of their own: `t_x_dump`, `t_x_rst`, and a
//! database with a role of the same name for each verification.
//!
//! Statements that belong together are sent together: PostgreSQL makes one transaction of them, so a crash leaves all
//! or nothing. What cannot be in a transaction (`CREATE DATABASE`, `DROP DATABASE`) is alone, between two steps that
//! can be told from what is there ([`state`]).
//!
//! **Invariant: the operator's own sessions resolve names in `pg_catalog` only.** What a tenant plants in its
//! database is not found by whoever looks at it.

mod access;
mod connect;
mod driver;
mod drop;
mod extensions;
mod locks;
mod login;
mod movers;
mod names;
mod orphans;
mod restore;
mod roles;
mod settings;
mod state;
mod tenant;

pub use connect::Admin;
pub use driver::{Address, Driver};
pub use extensions::MADE_FOR_TENANT;
pub use login::{Attempt, attempt};
pub use settings::SETTINGS_OF_TENANT;

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tokio::sync::{Semaphore, SemaphorePermit};

use self::{
    driver::{ASK, CHANGE, PERMIT, send},
    names::Roles,
    state::State,
};
use super::{Error, Tenant};

impl Driver {
    /// Runs a step, but not for longer than it may take, and names it in the error.
    async fn within<T>(&self, limit: Duration, step: &'static str, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Error> {
        match tokio::time::timeout(limit, work).await {
            Ok(result) => result.map_err(|error| connect::explain(&self.address, step, error)),
            Err(_) => Err(Error::TooSlow { step, seconds: limit.as_secs() }),
        }
    }

    /// Waits for a turn.
    async fn permit<'a>(&self, turns: &'a Semaphore, step: &'static str) -> Result<SemaphorePermit<'a>, Error> {
        match tokio::time::timeout(PERMIT, turns.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Error::TooSlow { step, seconds: PERMIT.as_secs() }),
        }
    }

    /// Looks at a tenant's database and roles, and refuses to go on if they are somebody else's.
    async fn read_state(&self, tenant: &Tenant) -> Result<(Roles, State), Error> {
        let roles = Roles::of(tenant);
        let step = "look at the tenant's database";
        let state = self.within(ASK, step, State::read(&self.pool, &tenant.name, &roles.all())).await?;
        state.check_marker(&tenant.uid)?;
        Ok((roles, state))
    }

    /// Sends statements that are one transaction to a session inside a database.
    async fn run_in_database(&self, database: &str, step: &'static str, sql: String) -> Result<(), Error> {
        let _turn = self.permit(&self.session_permits, step).await?;
        let options = self.options.clone().database(database);
        let work = async || {
            let mut session = PgConnection::connect_with(&options).await?;
            let sent = send(&mut session, sql.clone()).await;
            session.close().await.ok();
            sent
        };
        locks::in_spite_of_races(step, || self.past_locks(CHANGE, step, work())).await
    }

    /// Ends the sessions of roles that were just dropped or shut, by their oids.
    async fn end_sessions_of(&self, oids: &[i64]) -> Result<(), Error> {
        let query = sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usesysid::bigint = ANY($1)").bind(oids);
        self.within(ASK, "end the sessions of a mover", query.execute(&self.pool)).await.map(drop)
    }
}
