//! The interface of a database server, without SQL.
//!
//! [`Servers`] hands out [`ConnectedServer`] servers by the name of their `DatabaseServer`: each with its [`Server`], which
//! makes, shuts, opens and drops databases of tenants, and its [`Ledger`], which remembers them.
//!
//! **Invariant: nothing is changed that does not carry the account's uid as its marker.** Databases and roles carry it
//! as their comment; what carries another, or none, is [`Error::Foreign`].
//!
//! **Invariant: a tenant's database is dropped by [`Server::drop`] only**, which takes a
//! [`DropAuthority`](crate::backup::proof::DropAuthority).
//!
//! **Invariant: no password reaches the server's log.** Roles are given verifiers that were computed here.
//!
//! Every method is idempotent: called again after a crash at any point, it comes to the same end. Adding an engine is
//! one folder beside `postgres`, one variant of [`Server`] and the arms that the compiler lists.

mod error;
pub mod extensions;
mod password;
pub mod postgres;
mod servers;
pub mod settings;
mod tenant;

pub use crate::ledger::LoginSlot;
pub use error::Error;
pub use extensions::{Lacking, Offer};
pub use password::{Password, Verifier};
pub use servers::{ConnectedServer, Holds, Servers};
pub use tenant::{
    Connections, DatabaseId, Ensured, LoginSecret, MoverLogin, ObservedDatabase, Probe, RotationStep, ServerInfo, SessionsLeft, Tenant,
    TenantLimits,
};

use std::collections::BTreeSet;

use crate::{api::plan::Extension, backup::proof::DropAuthority};

/// A database server of some engine.
#[derive(Debug)]
pub enum Server {
    /// PostgreSQL 16 or later.
    Postgres(postgres::Driver),
}

/// Passes a call on to the engine's driver.
macro_rules! engine {
    ($server:expr, $driver:ident => $call:expr) => {
        match $server {
            Server::Postgres($driver) => $call,
        }
    };
}

impl Server {
    /// Asks the server who it is and whether it lets this operator do its work. Reads only, except that it takes
    /// the right to connect to the maintenance databases from PUBLIC where the admin role may.
    ///
    /// # Errors
    /// [`Error::MissingPrivileges`] with the SQL to run, [`Error::VersionTooOld`], [`Error::NoTls`],
    /// [`Error::ReadOnly`], or that it cannot be reached.
    pub async fn identify(&self) -> Result<ServerInfo, Error> {
        engine!(self, driver => driver.identify().await)
    }

    /// Makes the tenant's database, its roles, its extensions and its schema `app`, or what of them is missing, and
    /// sets the limits. A login that was shut stays shut, and a password that was set stays. An extension that the
    /// server does not give is named in the answer and keeps nothing else from being made.
    ///
    /// # Errors
    /// [`Error::Foreign`] when something of that name belongs to somebody else, [`Error::Restoring`].
    pub async fn ensure(&self, tenant: &Tenant, terms: &TenantLimits, login: &LoginSecret) -> Result<Ensured, Error> {
        engine!(self, driver => driver.ensure(tenant, terms, login).await)
    }

    /// How the server offers extensions of these names.
    ///
    /// # Errors
    /// That the server cannot be read.
    pub async fn offers(&self, names: &[String]) -> Result<Vec<Offer>, Error> {
        engine!(self, driver => driver.offers(names).await)
    }

    /// Looks at the tenant's database, in one round trip.
    ///
    /// # Errors
    /// That the server cannot be read: then nothing is known, not even that there is no database.
    pub async fn observe(&self, tenant: &Tenant) -> Result<ObservedDatabase, Error> {
        engine!(self, driver => driver.observe(tenant).await)
    }

    /// What the tenant's database takes on disk, in bytes. The server asks its file system about every file of it, which
    /// may take long: nothing that is enforced may wait for it.
    ///
    /// # Errors
    /// That the server cannot be read.
    pub async fn size(&self, tenant: &Tenant) -> Result<i64, Error> {
        engine!(self, driver => driver.size(tenant).await)
    }

    /// Shuts every login of the tenant and ends every session in its database except this operator's and its
    /// movers'. Bounded to about 10 s; call again while sessions are left.
    ///
    /// # Errors
    /// [`Error::Foreign`], [`Error::NoSuchDatabase`].
    pub async fn suspend(&self, tenant: &Tenant) -> Result<SessionsLeft, Error> {
        engine!(self, driver => driver.suspend(tenant).await)
    }

    /// Opens the tenant's logins again.
    ///
    /// # Errors
    /// [`Error::Foreign`], [`Error::NoSuchDatabase`], [`Error::Restoring`].
    pub async fn resume(&self, tenant: &Tenant) -> Result<(), Error> {
        engine!(self, driver => driver.resume(tenant).await)
    }

    /// Tries to log in with the tenant's own credentials, as its app would.
    ///
    /// # Errors
    /// That the server could not be asked: then nothing is known.
    pub async fn probe(&self, tenant: &Tenant, slot: LoginSlot, password: &Password) -> Result<Probe, Error> {
        engine!(self, driver => driver.probe(tenant, slot, password).await)
    }

    /// Whether the tenant's own credentials are refused.
    ///
    /// # Errors
    /// That the server could not be asked: then nothing is known.
    pub async fn probe_refused(&self, tenant: &Tenant, slot: LoginSlot, password: &Password) -> Result<bool, Error> {
        Ok(self.probe(tenant, slot, password).await? != Probe::LetIn)
    }

    /// Sets the password of one of the tenant's logins.
    ///
    /// # Errors
    /// [`Error::Foreign`].
    pub async fn set_password(&self, tenant: &Tenant, login: &LoginSecret) -> Result<(), Error> {
        engine!(self, driver => driver.set_password(tenant, login).await)
    }

    /// Begins a rotation: makes the tenant's other login, which works beside the one in use and gets its settings, as
    /// far as they are [`settings::CARRIED`].
    ///
    /// # Errors
    /// [`Error::Foreign`], [`Error::NoSuchDatabase`].
    pub async fn begin_rotation(&self, tenant: &Tenant, terms: &TenantLimits, new: &LoginSecret) -> Result<(), Error> {
        engine!(self, driver => driver.begin_rotation(tenant, terms, new).await)
    }

    /// Ends a rotation: once the old login has no sessions, what it owns goes to the tenant's owner role and it is
    /// dropped. Ends no session itself.
    ///
    /// # Errors
    /// [`Error::Foreign`].
    pub async fn finish_rotation(&self, tenant: &Tenant, old: LoginSlot) -> Result<RotationStep, Error> {
        engine!(self, driver => driver.finish_rotation(tenant, old).await)
    }

    /// Drops the tenant's database and then its roles. Takes up to minutes on a busy server.
    ///
    /// # Errors
    /// [`Error::NotAuthorized`] unless the authority covers this very database on this very server,
    /// [`Error::Foreign`].
    pub async fn drop(&self, tenant: &Tenant, facts: &DatabaseId, authority: &DropAuthority) -> Result<(), Error> {
        engine!(self, driver => driver.drop(tenant, facts, authority).await)
    }

    /// Makes a login that may read the whole of the tenant's database and nothing else, with a fresh password,
    /// valid for a day. One at a time for a tenant: a second call renews the password.
    ///
    /// # Errors
    /// [`Error::Foreign`], [`Error::NoSuchDatabase`].
    pub async fn dump_login(&self, tenant: &Tenant) -> Result<MoverLogin, Error> {
        engine!(self, driver => driver.dump_login(tenant).await)
    }

    /// Removes the login for dumps, ending its sessions.
    ///
    /// # Errors
    /// [`Error::Foreign`].
    pub async fn revoke_dump_login(&self, tenant: &Tenant) -> Result<(), Error> {
        engine!(self, driver => driver.revoke_dump_login(tenant).await)
    }

    /// Makes a scratch database for the verification of a backup, empty but for the extensions that were made for
    /// the tenant, with a login that owns nothing else. One that is there already under the same label is dropped
    /// first. Restore into it with `pg_restore --no-owner --no-acl`.
    ///
    /// # Errors
    /// [`Error::Foreign`], [`Error::ExtensionsMissing`].
    pub async fn scratch(&self, tenant: &Tenant, label: &str) -> Result<MoverLogin, Error> {
        engine!(self, driver => driver.scratch(tenant, label).await)
    }

    /// Drops a scratch database and its login.
    ///
    /// # Errors
    /// [`Error::Foreign`].
    pub async fn drop_scratch(&self, tenant: &Tenant, label: &str) -> Result<(), Error> {
        engine!(self, driver => driver.drop_scratch(tenant, label).await)
    }

    /// Makes a new database of the tenant, empty but for `extensions`, shut to it, with a login that acts as the
    /// tenant's owner role: restore into it with `pg_restore --no-owner --no-acl`, without `--role`. A half-done
    /// restore is begun anew; a database that was ever open to its tenant is never touched. `extensions` are those
    /// that were made for the tenant in the database that comes back, not by it, with the versions they had.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::Foreign`], [`Error::ExtensionsMissing`].
    pub async fn prepare_restore(
        &self,
        tenant: &Tenant,
        terms: &TenantLimits,
        login: &LoginSecret,
        extensions: &[Extension],
    ) -> Result<(DatabaseId, MoverLogin), Error> {
        engine!(self, driver => driver.prepare_restore(tenant, terms, login, extensions).await)
    }

    /// Ends a restore: the login for it is removed, everything is the owner role's, and the tenant's logins get the
    /// `settings`, as far as they are [`settings::CARRIED`]. The tenant stays shut; [`Server::resume`] opens it.
    ///
    /// # Errors
    /// [`Error::Foreign`], [`Error::NoSuchDatabase`].
    pub async fn finish_restore(&self, tenant: &Tenant, terms: &TenantLimits, settings: &[(String, String)]) -> Result<DatabaseId, Error> {
        engine!(self, driver => driver.finish_restore(tenant, terms, settings).await)
    }

    /// Names of databases and roles that carry the marker of an account that is not among `known` uids, sorted;
    /// without those that movers use for a while.
    ///
    /// # Errors
    /// That the server cannot be read.
    pub async fn orphans(&self, known: &BTreeSet<String>) -> Result<Vec<String>, Error> {
        engine!(self, driver => driver.orphans(known).await)
    }

    /// Removes logins for dumps and scratch databases that no running backup needs: all but those of the `busy`
    /// uids. Returns the names of what it removed.
    ///
    /// # Errors
    /// That the server cannot be read or refuses.
    pub async fn drop_own_leftovers(&self, busy: &BTreeSet<String>) -> Result<Vec<String>, Error> {
        engine!(self, driver => driver.drop_own_leftovers(busy).await)
    }

    /// Removes roles of tenants whose databases are `gone`, by their uids, that could not be dropped with them because
    /// somebody named them. Returns the names of those that are still there.
    ///
    /// # Errors
    /// [`Error::Foreign`]; that the server cannot be read or refuses.
    pub async fn remove_shells(&self, gone: &BTreeSet<String>) -> Result<Vec<String>, Error> {
        engine!(self, driver => driver.remove_shells(gone).await)
    }
}
