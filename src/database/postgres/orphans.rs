//! Finds databases of tenants that no ledger entry speaks of, and leftovers of movers.

use std::collections::BTreeSet;

use sqlx::Row;

use super::{
    connect::explain,
    driver::{ASK, Driver},
};
use crate::database::{Error, Tenant};

/// Something that carries the marker of an account.
pub(super) struct Marked {
    pub name: String,
    pub uid: String,
}

/// Names that this driver gives, with the marker that fits them. Anybody may name a role like a tenant's; without the
/// marker it is foreign and not counted.
const MARKED: &str = "SELECT name, uid FROM (\
    SELECT datname::text AS name, shobj_description(oid, 'pg_database') AS uid FROM pg_database UNION \
    SELECT rolname::text, shobj_description(oid, 'pg_authid') FROM pg_roles) AS everything \
    WHERE uid ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' \
    AND name ~ ('^t_' || left(replace(uid, '-', ''), 16) || '(_own|_a|_b|_dump|_rst|_v_[0-9a-f]{10})?$') ORDER BY name";

impl Driver {
    pub(super) async fn marked(&self) -> Result<Vec<Marked>, Error> {
        let step = "list what carries a marker";
        let rows = self.within(ASK, step, sqlx::query(MARKED).fetch_all(&self.pool)).await?;
        rows.iter()
            .map(|row| Ok(Marked { name: row.try_get("name")?, uid: row.try_get("uid")? }))
            .collect::<Result<_, _>>()
            .map_err(|error| explain(&self.address, step, error))
    }

    /// See [`crate::database::Server::orphans`].
    pub(in crate::database) async fn orphans(&self, known: &BTreeSet<String>) -> Result<Vec<String>, Error> {
        let movers = |name: &str| name.contains("_v_") || name.ends_with("_dump") || name.ends_with("_rst");
        let marked = self.marked().await?.into_iter();
        Ok(marked.filter(|found| !known.contains(&found.uid) && !movers(&found.name)).map(|found| found.name).collect())
    }

    /// See [`crate::database::Server::drop_own_leftovers`].
    pub(in crate::database) async fn drop_own_leftovers(&self, busy: &BTreeSet<String>) -> Result<Vec<String>, Error> {
        let mut gone = Vec::new();
        for Marked { name, uid } in self.marked().await? {
            let tenant = Tenant::of(&uid)?;
            if busy.contains(&uid) {
                continue;
            }
            let removed = if name == format!("{}_dump", tenant.name) {
                self.remove_dump_login(&tenant).await
            } else if name.starts_with(&format!("{}_v_", tenant.name)) {
                self.drop_scratch_named(&tenant, &name).await
            } else {
                continue;
            };
            if self.unless_refused(&name, removed)? == Some(true) {
                gone.push(name);
            }
        }
        gone.dedup();
        Ok(gone)
    }

    /// What the server refuses to remove, because another admin role made it or somebody uses it, is left, and keeps no
    /// other from being removed.
    pub(super) fn unless_refused<T>(&self, name: &str, result: Result<T, Error>) -> Result<Option<T>, Error> {
        match result {
            Ok(done) => Ok(Some(done)),
            Err(error @ (Error::Query { .. } | Error::Foreign { .. })) => {
                tracing::warn!(server = %self.address, name, %error, "something that movers or tenants left cannot be removed");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
