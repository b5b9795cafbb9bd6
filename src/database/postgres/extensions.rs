//! Creates and updates extensions in the databases of tenants.
//!
//! The script of a trusted extension runs as a superuser and finds names in the schema that the extension is made in.
//! So it is never one in which somebody else may create: whoever can plant a function there would have it called. The
//! operator has a schema of its own for them, on which the tenant has USAGE, and everything an extension requires must
//! lie in such a schema too.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{Connection, PgConnection, Row, postgres::PgRow};

use super::{
    connect::explain,
    driver::{ASK, CHANGE, Driver, send},
    names::{Roles, quote_ident, quote_literal},
};
use crate::{
    api::plan::Extension,
    database::{
        Error, Lacking, Offer,
        extensions::{SCHEMA, TEMPLATE, at_least, needs_superuser, no_files, too_old},
    },
};

/// An extension that a database should have.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    name: String,
    /// The lowest version that will do.
    least: Option<String>,
    /// The version that is made, if the server still can.
    exactly: Option<String>,
}

impl Wish {
    /// As a plan asks for it.
    pub fn planned(wanted: &Extension) -> Self {
        Self { name: wanted.name.clone(), least: wanted.version.clone(), exactly: None }
    }

    /// As another database has it.
    pub fn copied(found: &Extension) -> Self {
        Self { name: found.name.clone(), least: None, exactly: found.version.clone() }
    }
}

/// What a database and its server say of one extension.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    name: String,
    /// The version in this database, if it is there.
    installed: Option<String>,
    /// Whether the operator may change it.
    mine: bool,
    /// Whether nobody but the operator and superusers may create in its schema, or the one that it will have.
    safe: bool,
    /// Its schema, or the one that its author gave it.
    schema: Option<String>,
    /// Whether that schema is there.
    has_schema: bool,
    /// The version that is made by default.
    default: Option<String>,
    /// The version that was asked for, if the server can make it.
    exact: Option<String>,
    requires: Vec<String>,
}

/// Of the wanted ones and everything that they require, `$2` being the versions that they had elsewhere.
const FIND: &str = "WITH RECURSIVE v AS MATERIALIZED (SELECT v.name::text AS name, v.version, v.schema::text AS schema, v.requires::text[] AS requires \
        FROM pg_available_extension_versions v JOIN pg_available_extensions a ON a.name = v.name AND a.default_version = v.version), \
    w AS (SELECT name COLLATE \"C\" AS name FROM unnest($1::text[]) n(name) UNION SELECT r FROM w JOIN v USING (name), unnest(v.requires) r), \
    safe AS (SELECT n.oid, n.nspname::text AS nspname, NOT EXISTS (SELECT FROM (SELECT n.nspowner AS oid UNION ALL \
        SELECT x.grantee FROM aclexplode(n.nspacl) x WHERE x.privilege_type = 'CREATE') c LEFT JOIN pg_roles r ON r.oid = c.oid \
        WHERE r.oid IS NULL OR NOT (r.rolsuper OR r.rolname IN (current_user, 'pg_database_owner'))) AS safe FROM pg_namespace n) \
    SELECT w.name, e.extversion AS installed, coalesce(pg_get_userbyid(e.extowner) = current_user, false) AS mine, \
        coalesce(s.safe, f.safe, true) AS safe, coalesce(s.nspname, v.schema) AS schema, \
        coalesce(s.oid, f.oid) IS NOT NULL AS has_schema, v.version AS by_default, x.version AS exact, \
        coalesce(v.requires, '{}') AS requires \
    FROM w LEFT JOIN v USING (name) LEFT JOIN pg_extension e ON e.extname = w.name LEFT JOIN safe s ON s.oid = e.extnamespace \
        LEFT JOIN safe f ON f.nspname = v.schema \
        LEFT JOIN unnest($1::text[], $2::text[]) p(name, version) ON p.name = w.name \
        LEFT JOIN pg_available_extension_versions x ON x.name = p.name AND x.version = p.version";

/// Whether the operator's schema is there, and whether it is the operator's.
const SCHEMA_IS_OURS: &str = "SELECT pg_get_userbyid(n.nspowner) = current_user AND NOT EXISTS (SELECT FROM aclexplode(n.nspacl) x \
    WHERE x.privilege_type = 'CREATE' AND x.grantee <> n.nspowner) FROM pg_namespace n WHERE n.nspname = $1";

/// What the server offers, and whether the operator may make it: it is trusted, or needs no superuser, or the operator
/// is one. And whether there is a template that a superuser or the operator made, and that nobody enters.
const OFFERS: &str = "SELECT n.name, v.version, coalesce(NOT v.superuser OR v.trusted OR r.rolsuper, false) AS makeable, \
        EXISTS (SELECT FROM pg_database d JOIN pg_roles o ON o.oid = d.datdba WHERE d.datname = $2 AND d.datistemplate \
        AND NOT d.datallowconn AND (o.rolsuper OR o.oid = r.oid)) AS has_template \
    FROM pg_roles r, unnest($1::text[]) n(name) LEFT JOIN pg_available_extensions a ON a.name = n.name \
    LEFT JOIN pg_available_extension_versions v ON v.name = a.name AND v.version = a.default_version WHERE r.rolname = current_user";

/// The extensions that were made for a tenant and not by it, with their versions. In its database, as anybody; a role
/// whose name begins with the database's is the tenant's. What lies in a schema of the tenant's, or in `public`, is
/// made by whoever restores that schema.
pub const MADE_FOR_TENANT: &str = "SELECT e.extname::text AS name, e.extversion AS version FROM pg_catalog.pg_extension e \
    JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname <> 'plpgsql' AND n.nspname <> 'public' \
    AND NOT pg_catalog.starts_with(pg_catalog.pg_get_userbyid(e.extowner)::text, pg_catalog.current_database() || '_') \
    AND NOT pg_catalog.starts_with(pg_catalog.pg_get_userbyid(n.nspowner)::text, pg_catalog.current_database() || '_') ORDER BY 1";

impl Driver {
    /// See [`crate::database::Server::offers`].
    pub(in crate::database) async fn offers(&self, names: &[String]) -> Result<Vec<Offer>, Error> {
        let step = "ask which extensions the server offers";
        let rows = self.within(ASK, step, sqlx::query(OFFERS).bind(names).bind(TEMPLATE).fetch_all(&self.pool)).await?;
        let read = |row: &PgRow| {
            Ok(Offer {
                name: row.try_get("name")?,
                version: row.try_get("version")?,
                makeable: row.try_get("makeable")?,
                has_template: row.try_get("has_template")?,
            })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(|error| explain(&self.address, step, error))
    }

    /// The database that a new one is a copy of: an empty one, unless an extension is wanted that only a superuser
    /// could make and a superuser has made a template.
    pub(super) async fn template(&self, wishes: &[Wish]) -> Result<&'static str, Error> {
        let names: Vec<String> = wishes.iter().map(|wish| wish.name.clone()).collect();
        if names.is_empty() {
            return Ok("template0");
        }
        let from_template = |offer: &Offer| offer.version.is_some() && !offer.makeable && offer.has_template;
        Ok(if self.offers(&names).await?.iter().any(from_template) { TEMPLATE } else { "template0" })
    }

    /// The extensions that were made for a tenant in its database.
    pub(super) async fn made_for_tenant(&self, database: &str) -> Result<Vec<Extension>, Error> {
        let step = "read the extensions of the tenant's database";
        let _turn = self.permit(&self.session_permits, step).await?;
        let options = self.options.clone().database(database);
        let work = async {
            let mut session = PgConnection::connect_with(&options).await?;
            let rows = sqlx::query(MADE_FOR_TENANT).fetch_all(&mut session).await;
            session.close().await.ok();
            rows?.iter().map(|row| Ok(Extension { name: row.try_get("name")?, version: Some(row.try_get("version")?) })).collect()
        };
        self.within(ASK, step, work).await
    }

    /// Makes the operator's schema in a database, lets `user` use it, and makes the extensions that are missing there.
    /// `more` is sent in the transaction that makes the schema.
    pub(super) async fn equip(
        &self,
        database: &str,
        step: &'static str,
        user: &str,
        more: &str,
        wishes: &[Wish],
    ) -> Result<Vec<Lacking>, Error> {
        let _turn = self.permit(&self.session_permits, step).await?;
        let options = self.options.clone().database(database);
        let work = async {
            let mut session = PgConnection::connect_with(&options).await?;
            let lacking = equip(&mut session, user, more, wishes).await;
            session.close().await.ok();
            lacking
        };
        self.past_locks(CHANGE, step, work).await
    }

    /// As [`Self::equip`], for a restore by `user`: of no use without every one of them.
    pub(super) async fn equip_for_restore(&self, database: &str, user: &str, wishes: &[Wish]) -> Result<(), Error> {
        let step = "make the extensions for a restore";
        let lacking = self.equip(database, step, user, "", wishes).await?;
        if !lacking.is_empty() {
            return Err(Error::ExtensionsMissing { database: database.to_owned(), lacking });
        }
        if wishes.is_empty() {
            return Ok(());
        }
        self.run_in_database(database, step, config_tables("GRANT SELECT, INSERT, DELETE", &quote_ident(user))).await
    }
}

async fn equip(session: &mut PgConnection, user: &str, more: &str, wishes: &[Wish]) -> Result<Vec<Lacking>, sqlx::Error> {
    let ours: Option<bool> = sqlx::query_scalar(SCHEMA_IS_OURS).bind(SCHEMA).fetch_optional(&mut *session).await?.flatten();
    if ours == Some(false) {
        send(&mut *session, more.to_owned()).await?;
        let why = format!("the schema {SCHEMA} in this database is not the operator's own; rename it, or give it to the admin role");
        return Ok(wishes.iter().map(|wish| Lacking { name: wish.name.clone(), why: why.clone() }).collect());
    }
    let (schema, user) = (quote_ident(SCHEMA), quote_ident(user));
    send(&mut *session, format!("CREATE SCHEMA IF NOT EXISTS {schema}; GRANT USAGE ON SCHEMA {schema} TO {user}; {more}")).await?;
    if wishes.is_empty() {
        return Ok(vec![]);
    }
    let found = find(session, wishes).await?;
    let mut lacking = BTreeMap::new();
    for name in in_order(&found, wishes) {
        let Some(extension) = found.get(name) else { continue };
        let wish = wishes.iter().find(|wish| wish.name == name);
        match decide(extension, wish, &found, &lacking) {
            Step::Nothing => {}
            Step::Lack(why) => drop(lacking.insert(name.to_owned(), why)),
            Step::Run(mut sql) => {
                if let Some(made) = extension.schema.as_deref().filter(|_| !extension.has_schema) {
                    sql += &format!(" GRANT USAGE ON SCHEMA {} TO {user};", quote_ident(made));
                }
                match send(&mut *session, sql).await {
                    // A superuser is asked for, by the code for a lack of rights.
                    Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42501") => {
                        lacking.insert(name.to_owned(), needs_superuser(name));
                    }
                    // The extension's own script failed; 57 and 53 are the server's troubles.
                    Err(sqlx::Error::Database(error)) if !error.code().is_some_and(|c| c.starts_with("57") || c.starts_with("53")) => {
                        lacking.insert(name.to_owned(), format!("the server could not make it: {}", error.message()));
                    }
                    sent => sent?,
                }
            }
        }
    }
    Ok(lacking.into_iter().map(|(name, why)| Lacking { name, why }).collect())
}

async fn find(session: &mut PgConnection, wishes: &[Wish]) -> Result<BTreeMap<String, Found>, sqlx::Error> {
    let names: Vec<&str> = wishes.iter().map(|wish| wish.name.as_str()).collect();
    let versions: Vec<Option<&str>> = wishes.iter().map(|wish| wish.exactly.as_deref()).collect();
    let rows = sqlx::query(FIND).bind(names).bind(versions).fetch_all(session).await?;
    let read = |row: &PgRow| -> Result<(String, Found), sqlx::Error> {
        let name: String = row.try_get("name")?;
        let found = Found {
            name: name.clone(),
            installed: row.try_get("installed")?,
            mine: row.try_get("mine")?,
            safe: row.try_get("safe")?,
            schema: row.try_get("schema")?,
            has_schema: row.try_get("has_schema")?,
            default: row.try_get("by_default")?,
            exact: row.try_get("exact")?,
            requires: row.try_get("requires")?,
        };
        Ok((name, found))
    };
    rows.iter().map(read).collect()
}

/// The wanted ones, each after what it requires.
fn in_order<'a>(found: &'a BTreeMap<String, Found>, wishes: &'a [Wish]) -> Vec<&'a str> {
    fn run_in_database<'a>(name: &'a str, found: &'a BTreeMap<String, Found>, seen: &mut BTreeSet<&'a str>, order: &mut Vec<&'a str>) {
        if seen.insert(name) {
            for required in found.get(name).map(|f| f.requires.as_slice()).unwrap_or_default() {
                run_in_database(required, found, seen, order);
            }
            order.push(name);
        }
    }
    let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
    for wish in wishes {
        run_in_database(&wish.name, found, &mut seen, &mut order);
    }
    order
}

/// What is done about one extension.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Run(String),
    Lack(String),
}

fn decide(extension: &Found, wish: Option<&Wish>, all: &BTreeMap<String, Found>, lacking: &BTreeMap<String, String>) -> Step {
    let name = quote_ident(&extension.name);
    let least = wish.and_then(|wish| wish.least.as_deref());
    let enough = |version: &str| least.is_none_or(|least| at_least(version, least));
    if let Some(installed) = &extension.installed {
        if enough(installed) {
            return Step::Nothing;
        }
        return match &extension.default {
            Some(default) if enough(default) && extension.mine && extension.safe => Step::Run(format!("ALTER EXTENSION {name} UPDATE;")),
            Some(default) if enough(default) => Step::Lack(format!(
                "version {installed} is there, {} is wanted, and the operator did not make it; its owner runs this in the database: \
                 ALTER EXTENSION {name} UPDATE",
                least.unwrap_or_default()
            )),
            _ => Step::Lack(too_old(installed, least.unwrap_or_default())),
        };
    }
    let Some(default) = &extension.default else { return Step::Lack(no_files()) };
    if !enough(default) {
        return Step::Lack(too_old(default, least.unwrap_or_default()));
    }
    if !extension.safe {
        let schema = extension.schema.as_deref().unwrap_or_default();
        return Step::Lack(format!(
            "it can only be made in the schema {schema}, which is the tenant's own here; the tenant has to drop that"
        ));
    }
    for required in &extension.requires {
        if let Some(why) = lacking.get(required) {
            return Step::Lack(format!("it requires {required}: {why}"));
        }
        if all.get(required).is_some_and(|found| !found.safe) {
            return Step::Lack(format!(
                "it requires {required}, which the tenant made in a schema of its own; the tenant has to drop that"
            ));
        }
    }
    // One whose author named a schema is made there, and the server makes that schema.
    let schema = extension.schema.as_ref().map_or_else(|| format!(" SCHEMA {}", quote_ident(SCHEMA)), |_| String::new());
    let version = extension.exact.as_ref().map(|exact| format!(" VERSION {}", quote_literal(exact))).unwrap_or_default();
    Step::Run(format!("CREATE EXTENSION IF NOT EXISTS {name}{schema}{version};"))
}

/// Rights on tables in which extensions keep what their users write, for whoever restores; as far as the operator may
/// give them. `action` is the verb and the rights.
fn config_tables(action: &str, role: &str) -> String {
    let towards = if action.starts_with("GRANT") { "TO" } else { "FROM" };
    format!(
        "DO $do$ DECLARE found record; BEGIN FOR found IN SELECT c.oid::regclass::text AS name FROM pg_extension e, unnest(e.extconfig) x \
         JOIN pg_class c ON c.oid = x WHERE c.relkind IN ('r', 'p') AND (pg_get_userbyid(c.relowner) = current_user \
         OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)) \
         LOOP EXECUTE format({}, found.name); END LOOP; END $do$;",
        quote_literal(&format!("{action} ON %s {towards} {}", role.replace('%', "%%")))
    )
}

/// Takes back what a restore needed of the tables in which extensions keep what their users write.
pub(super) fn end_config_tables(roles: &Roles) -> String {
    config_tables("REVOKE INSERT, DELETE", &quote_ident(&roles.own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(name: &str, requires: &[&str]) -> Found {
        Found {
            name: name.into(),
            installed: None,
            mine: false,
            safe: true,
            schema: None,
            has_schema: false,
            default: Some("1.2".into()),
            exact: None,
            requires: requires.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn all(found: &[&Found]) -> BTreeMap<String, Found> {
        found.iter().map(|one| (one.name.clone(), (*one).clone())).collect()
    }

    fn wish(name: &str, least: Option<&str>) -> Wish {
        Wish { name: name.into(), least: least.map(Into::into), exactly: None }
    }

    fn run(sql: &str) -> Step {
        Step::Run(sql.to_owned())
    }

    #[test]
    fn an_extension_is_made_in_the_operators_schema_after_what_it_requires() {
        let (cube, earth) = (offered("cube", &[]), offered("earthdistance", &["cube"]));
        let found = all(&[&cube, &earth]);
        let wishes = [wish("earthdistance", None)];
        assert_eq!(in_order(&found, &wishes), ["cube", "earthdistance"]);
        assert_eq!(decide(&cube, None, &found, &BTreeMap::new()), run("CREATE EXTENSION IF NOT EXISTS \"cube\" SCHEMA \"ext\";"));
        let exact = Found { exact: Some("1.1".into()), ..cube };
        assert_eq!(
            decide(&exact, None, &found, &BTreeMap::new()),
            run("CREATE EXTENSION IF NOT EXISTS \"cube\" SCHEMA \"ext\" VERSION '1.1';")
        );
    }

    #[test]
    fn nothing_is_made_where_a_tenant_could_have_planted_something() {
        let planted = Found { installed: Some("1.2".into()), safe: false, schema: Some("traps".into()), ..offered("cube", &[]) };
        let earth = offered("earthdistance", &["cube"]);
        let found = all(&[&planted, &earth]);
        assert_eq!(decide(&planted, None, &found, &BTreeMap::new()), Step::Nothing);
        assert!(matches!(decide(&earth, None, &found, &BTreeMap::new()), Step::Lack(why) if why.contains("requires cube")));
        let authors = Found { safe: false, schema: Some("topology".into()), has_schema: true, ..offered("postgis_topology", &[]) };
        assert!(matches!(decide(&authors, None, &found, &BTreeMap::new()), Step::Lack(why) if why.contains("topology")));
        let lacking = BTreeMap::from([("cube".to_owned(), "gone".to_owned())]);
        assert!(matches!(decide(&earth, None, &found, &lacking), Step::Lack(why) if why.contains("gone")));
        // An author's schema that is not there yet is made by the server, for the operator.
        let authors = Found { safe: true, has_schema: false, ..authors };
        assert_eq!(decide(&authors, None, &found, &BTreeMap::new()), run("CREATE EXTENSION IF NOT EXISTS \"postgis_topology\";"));
    }

    #[test]
    fn an_old_version_is_brought_up_to_date_where_the_operator_made_it_and_named_elsewhere() {
        let (old, none) = (Found { installed: Some("1.1".into()), mine: true, ..offered("cube", &[]) }, BTreeMap::new());
        let least = |least| wish("cube", Some(least));
        assert_eq!(decide(&old, Some(&least("1.1")), &BTreeMap::new(), &none), Step::Nothing);
        assert_eq!(decide(&old, Some(&least("1.2")), &BTreeMap::new(), &none), run("ALTER EXTENSION \"cube\" UPDATE;"));
        assert!(matches!(decide(&old, Some(&least("1.10")), &BTreeMap::new(), &none), Step::Lack(why) if why.contains("newer package")));
        let theirs = Found { mine: false, ..old };
        assert!(
            matches!(decide(&theirs, Some(&least("1.2")), &BTreeMap::new(), &none), Step::Lack(why) if why.contains("ALTER EXTENSION"))
        );
        let offered = offered("cube", &[]);
        assert!(matches!(decide(&offered, Some(&least("1.3")), &BTreeMap::new(), &none), Step::Lack(why) if why.contains("1.3")));
    }
}
