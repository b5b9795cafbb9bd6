//! The types of the interface: a tenant, its limits, its logins, what was observed of its database.

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Error, Lacking, LoginSlot, Password, Verifier, extensions};
use crate::{
    api::{
        HelpDeskClassSpec,
        database_server::TlsMode,
        plan::{Extension, PlanDatabase, Schemas},
    },
    clock::Moment,
};

/// A tenant on a server: the uid that marks what is its own, and the opaque name made from it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tenant {
    /// The uid of the account that the database was made for.
    pub uid: String,
    /// `t_` and the first 16 hexadecimal digits of the uid; every tenant of a server can list these names.
    pub name: String,
}

impl Tenant {
    /// The tenant of an account.
    ///
    /// # Errors
    /// [`Error::BadUid`] if the uid is no UUID.
    pub fn of(uid: &str) -> Result<Self, Error> {
        let digits: String = uid.chars().filter(|c| *c != '-').collect();
        let is_uuid = uid.len() == 36 && digits.len() == 32 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !is_uuid {
            return Err(Error::BadUid(uid.chars().take(64).collect()));
        }
        Ok(Self { uid: uid.to_owned(), name: format!("t_{}", &digits[..16]) })
    }

    /// The name of one of its two logins.
    pub fn login(&self, slot: LoginSlot) -> String {
        format!("{}_{}", self.name, slot.name())
    }
}

/// What a tenant may use; enforced by the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantLimits {
    /// Connections at once.
    pub connection_limit: i32,
    /// Extensions that its database has, each once, by name.
    pub extensions: Vec<Extension>,
    /// Who makes schemas.
    pub schemas: Schemas,
}

impl TenantLimits {
    /// The terms of a plan, with what the app needs.
    pub fn of(plan: &PlanDatabase, class: Option<&HelpDeskClassSpec>) -> Self {
        let needed = class.map(|class| class.database.extensions.as_slice()).unwrap_or_default();
        Self { connection_limit: plan.connection_limit, extensions: extensions::union(&plan.extensions, needed), schemas: plan.schemas }
    }

    /// The terms as one word, so that it can be remembered under which a database was made.
    pub fn mark(&self) -> String {
        let extensions: Vec<String> = self
            .extensions
            .iter()
            .map(|wanted| wanted.version.as_ref().map_or_else(|| wanted.name.clone(), |least| format!("{}>={least}", wanted.name)))
            .collect();
        format!("{};{:?};{}", self.connection_limit, self.schemas, extensions.join(","))
    }
}

/// A database that was made as the terms say, but for what the server does not give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ensured {
    /// Which database it is.
    pub facts: DatabaseId,
    /// Extensions that are not there.
    pub lacking: Vec<Lacking>,
}

/// One of a tenant's logins and what the server needs to check its password.
#[derive(Clone, Debug)]
pub struct LoginSecret {
    /// Which login.
    pub slot: LoginSlot,
    /// Computed here from the password, which the server never sees.
    pub verifier: Verifier,
}

/// Which very database it is: one of the same name that was made anew differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseId {
    /// The database's own id.
    pub oid: u32,
    /// The server's identity.
    pub system_identifier: String,
}

/// What was seen of a tenant's database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedDatabase {
    /// The tenant's database, if there is one with its marker.
    pub database: Option<DatabaseId>,
    /// A database or role of the tenant's name exists without its marker: hands off.
    pub foreign: bool,
    /// Whether at least one login of the tenant is open.
    pub can_login: bool,
    /// Whether the tenant makes schemas.
    pub makes_schemas: bool,
    /// Sessions in the database, without this operator's and its movers'.
    pub sessions: i64,
    /// The server's clock.
    pub now: Moment,
}

/// What is left after logins were shut and sessions ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionsLeft {
    /// Sessions in the database, without this operator's and its movers'.
    pub sessions_left: i64,
    /// The roles that hold them, for people: a superuser's session can only be ended by a superuser.
    pub holders: Vec<String>,
}

/// What became of a try to log in with a tenant's own credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The login is shut.
    Refused,
    /// The login is open and the password is not this one: the tenant changed it, or the Secret is stale.
    WrongPassword,
    /// It was let in.
    LetIn,
}

/// How far the end of a rotation came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotationStep {
    /// The old login still has so many sessions: ask again later.
    Waiting(i64),
    /// The old login is gone.
    Done,
}

/// Who the server says it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// In its own words, such as `17.7`.
    pub version: String,
    /// The major version; dumps need tools that are not older.
    pub major: u32,
    /// Unlike any other server's, and kept by its physical copies.
    pub system_identifier: String,
    /// Counts promotions; unlike the identifier it is not kept by a standby that becomes the primary. `None` of a standby.
    pub timeline: Option<i32>,
    /// The server's clock, with its fraction.
    pub now: Timestamp,
    /// How its connections are shared out.
    pub connections: Connections,
}

/// How the connections of a server are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// How many its tenants may open together, those of closed ones not counted.
    pub promised: i64,
    /// How many it has for them and everybody else.
    pub offered: i64,
    /// How many it keeps for the operator, which nobody else gets.
    pub kept: i64,
}

impl Connections {
    /// How many connections the operator has at most, without its movers.
    pub const OWN: i64 = 32;
    /// How many it needs for itself to shut a tenant while nobody else gets in.
    pub const NEEDED: i64 = 16;

    /// Why tenants could take every connection, if they could.
    pub fn scarcity(&self) -> Option<(&'static str, String)> {
        let Self { promised, offered, kept } = *self;
        if promised + Self::OWN <= offered {
            return None;
        }
        let told = format!(
            "tenants may open {promised} connections together, and the server has {offered} for them and the operator: raise \
             max_connections, lower spec.database.connectionLimit of plans, or place accounts elsewhere"
        );
        if kept >= Self::NEEDED {
            return Some(("MorePromised", format!("{told}; {kept} are kept for the operator, which gets in all the same")));
        }
        let needed = Self::NEEDED;
        Some((
            "NothingKept",
            format!(
                "{told}; once they are taken, nobody can be blocked: set reserved_connections = {needed} on the server, restart it, \
                 and GRANT pg_use_reserved_connections to the admin role"
            ),
        ))
    }
}

/// How a mover gets into one database.
#[derive(Clone, Debug)]
pub struct MoverLogin {
    /// The server's host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The database.
    pub database: String,
    /// The role, which has rights in that database only.
    pub username: String,
    /// Its password.
    pub password: Password,
    /// The authority whose certificates are believed, in PEM; `None`: the system's.
    pub ca_pem: Option<String>,
    /// What is checked of the server's certificate.
    pub tls: TlsMode,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tenants_may_open_together_is_measured_by_what_the_server_has() {
        let reason = |promised, offered, kept| Connections { promised, offered, kept }.scarcity().map(|(reason, _)| reason);
        assert_eq!(reason(0, 97, 0), None);
        assert_eq!(reason(65, 97, 0), None);
        assert_eq!(reason(66, 97, 0), Some("NothingKept"));
        assert_eq!(reason(66, 97, 15), Some("NothingKept"));
        assert_eq!(reason(66, 97, 16), Some("MorePromised"));
    }
}
