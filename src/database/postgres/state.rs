//! Reads the state of a database and its roles in one round trip, before anything is changed.

use sqlx::{PgExecutor, Row};

use crate::database::{DatabaseId, Error, LoginSlot};

/// A role that exists.
#[derive(Clone, Debug)]
pub(super) struct Role {
    pub oid: i64,
    pub marker: Option<String>,
    pub can_login: bool,
    pub limit: i32,
    /// Whether it has the right to connect to the database by a grant of its own.
    pub connects: bool,
    /// Whether it may make schemas in the database, by a grant of its own.
    pub creates: bool,
    /// Whether it is a member of the first role that was asked for.
    pub belongs: bool,
    /// Whether it has settings of its own in the database.
    pub set_up: bool,
    /// Its settings as `name=value`; what comes later, for this database, wins.
    pub settings: Vec<String>,
}

/// A database that exists.
#[derive(Clone, Debug)]
pub(super) struct Database {
    pub oid: u32,
    pub marker: Option<String>,
    pub mine: bool,
    pub open: bool,
    pub limit: i32,
}

/// A database, and the roles that were asked for in their order. The first role is made before the database and
/// marked in the same transaction, so that a database whose maker crashed before marking it can be told.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub system_identifier: String,
    /// A day from now, by the server's clock, as it writes times.
    pub tomorrow: String,
    pub name: String,
    pub database: Option<Database>,
    pub roles: Vec<(String, Option<Role>)>,
}

const LOOK: &str = "SELECT n.name, (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier, \
    (now() + interval '1 day')::text AS tomorrow, \
    r.oid::bigint AS role, shobj_description(r.oid, 'pg_authid') AS role_marker, r.rolcanlogin, r.rolconnlimit, \
    EXISTS (SELECT FROM aclexplode(d.datacl) x WHERE x.grantee = r.oid AND x.privilege_type = 'CONNECT') AS connects, \
    EXISTS (SELECT FROM aclexplode(d.datacl) x WHERE x.grantee = r.oid AND x.privilege_type = 'CREATE') AS creates, \
    EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE g.rolname = $2[1] AND m.member = r.oid) AS belongs, \
    EXISTS (SELECT FROM pg_db_role_setting s WHERE s.setdatabase = d.oid AND s.setrole = r.oid) AS set_up, \
    ARRAY(SELECT c.line FROM pg_db_role_setting s, unnest(s.setconfig) WITH ORDINALITY c(line, i) \
        WHERE s.setrole = r.oid AND s.setdatabase IN (0, d.oid) ORDER BY s.setdatabase, c.i) AS settings, \
    d.oid::bigint AS database, shobj_description(d.oid, 'pg_database') AS database_marker, \
    pg_get_userbyid(d.datdba) = current_user AS mine, d.datallowconn, d.datconnlimit \
    FROM unnest($2::text[]) WITH ORDINALITY n(name, i) \
    LEFT JOIN pg_roles r ON r.rolname = n.name LEFT JOIN pg_database d ON d.datname = $1 ORDER BY n.i";

impl State {
    /// Looks.
    pub async fn read(executor: impl PgExecutor<'_>, database: &str, roles: &[&str]) -> Result<Self, sqlx::Error> {
        let names: Vec<String> = roles.iter().map(|role| (*role).to_owned()).collect();
        let rows = sqlx::query(LOOK).bind(database).bind(names).fetch_all(executor).await?;
        let first = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let found = match first.try_get::<Option<i64>, _>("database")? {
            None => None,
            Some(oid) => Some(Database {
                oid: u32::try_from(oid).map_err(|e| sqlx::Error::Decode(e.into()))?,
                marker: first.try_get("database_marker")?,
                mine: first.try_get("mine")?,
                open: first.try_get("datallowconn")?,
                limit: first.try_get("datconnlimit")?,
            }),
        };
        let role = |row: &sqlx::postgres::PgRow| -> Result<(String, Option<Role>), sqlx::Error> {
            let found = match row.try_get::<Option<i64>, _>("role")? {
                None => None,
                Some(oid) => Some(Role {
                    oid,
                    marker: row.try_get("role_marker")?,
                    can_login: row.try_get("rolcanlogin")?,
                    limit: row.try_get("rolconnlimit")?,
                    connects: row.try_get("connects")?,
                    creates: row.try_get("creates")?,
                    belongs: row.try_get("belongs")?,
                    set_up: row.try_get("set_up")?,
                    settings: row.try_get("settings")?,
                }),
            };
            Ok((row.try_get("name")?, found))
        };
        Ok(Self {
            system_identifier: first.try_get("system_identifier")?,
            tomorrow: first.try_get("tomorrow")?,
            name: database.to_owned(),
            database: found,
            roles: rows.iter().map(role).collect::<Result<_, _>>()?,
        })
    }

    /// Refuses to go on if anything of these names is not the account's own.
    ///
    /// A database is its own if it carries the marker; or if it carries none, belongs to this operator, lets nobody
    /// in and its first role carries the marker: then its maker crashed before it could mark it.
    pub fn check_marker(&self, uid: &str) -> Result<(), Error> {
        let foreign = |name: &str| Error::Foreign { name: name.to_owned(), uid: uid.to_owned() };
        for (name, role) in &self.roles {
            if role.as_ref().is_some_and(|role| role.marker.as_deref() != Some(uid)) {
                return Err(foreign(name));
            }
        }
        match &self.database {
            Some(Database { marker: Some(marker), .. }) if marker == uid => Ok(()),
            Some(Database { marker: None, mine: true, open: false, .. }) if self.first().is_some() => Ok(()),
            Some(_) => Err(foreign(&self.name)),
            None => Ok(()),
        }
    }

    fn first(&self) -> Option<&Role> {
        self.roles.first().and_then(|(_, role)| role.as_ref())
    }

    /// The role of this name, if it exists.
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.iter().find(|(n, _)| n == name).and_then(|(_, role)| role.as_ref())
    }

    /// The tenant's login of this letter, if it exists. Only for states of tenants.
    pub fn login(&self, roles: &super::names::Roles, slot: LoginSlot) -> Option<&Role> {
        self.role(roles.login(slot))
    }

    /// Whether a restore into the database was begun and not finished: its login is open. Only for states of tenants.
    pub fn is_restoring(&self, roles: &super::names::Roles) -> bool {
        self.role(&roles.restore).is_some_and(|role| role.can_login)
    }

    /// Which database it is.
    ///
    /// # Errors
    /// [`Error::NoSuchDatabase`].
    pub fn facts(&self) -> Result<DatabaseId, Error> {
        let database = self.database.as_ref().ok_or_else(|| Error::NoSuchDatabase(self.name.clone()))?;
        Ok(DatabaseId { oid: database.oid, system_identifier: self.system_identifier.clone() })
    }
}
