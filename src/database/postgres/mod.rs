//! The driver of PostgreSQL 16 and later; the only place with DDL.

use std::collections::BTreeSet;

use super::{
    DatabaseFacts, Error, Identity, Letter, LoginSecret, MoverLogin, Observed, Password, Probe, RotationStep, Suspended, Tenant, Terms,
};
use crate::backup::proof::DropAuthority;

/// A PostgreSQL server and the pools of connections to it.
#[derive(Debug)]
pub struct Driver {}

#[allow(missing_docs, clippy::missing_errors_doc, clippy::unused_async)]
impl Driver {
    pub async fn identify(&self) -> Result<Identity, Error> {
        todo!()
    }
    pub async fn ensure(&self, _: &Tenant, _: &Terms, _: &LoginSecret) -> Result<DatabaseFacts, Error> {
        todo!()
    }
    pub async fn observe(&self, _: &Tenant) -> Result<Observed, Error> {
        todo!()
    }
    pub async fn suspend(&self, _: &Tenant) -> Result<Suspended, Error> {
        todo!()
    }
    pub async fn resume(&self, _: &Tenant) -> Result<(), Error> {
        todo!()
    }
    pub async fn probe(&self, _: &Tenant, _: Letter, _: &Password) -> Result<Probe, Error> {
        todo!()
    }
    pub async fn set_password(&self, _: &Tenant, _: &LoginSecret) -> Result<(), Error> {
        todo!()
    }
    pub async fn begin_rotation(&self, _: &Tenant, _: &Terms, _: &LoginSecret) -> Result<(), Error> {
        todo!()
    }
    pub async fn finish_rotation(&self, _: &Tenant, _: Letter) -> Result<RotationStep, Error> {
        todo!()
    }
    pub async fn drop(&self, _: &Tenant, _: &DatabaseFacts, _: &DropAuthority) -> Result<(), Error> {
        todo!()
    }
    pub async fn dump_login(&self, _: &Tenant) -> Result<MoverLogin, Error> {
        todo!()
    }
    pub async fn revoke_dump_login(&self, _: &Tenant) -> Result<(), Error> {
        todo!()
    }
    pub async fn scratch(&self, _: &Tenant, _: &str) -> Result<MoverLogin, Error> {
        todo!()
    }
    pub async fn drop_scratch(&self, _: &Tenant, _: &str) -> Result<(), Error> {
        todo!()
    }
    pub async fn prepare_restore(&self, _: &Tenant, _: &Terms, _: &LoginSecret) -> Result<(DatabaseFacts, MoverLogin), Error> {
        todo!()
    }
    pub async fn finish_restore(&self, _: &Tenant) -> Result<DatabaseFacts, Error> {
        todo!()
    }
    pub async fn orphans(&self, _: &BTreeSet<String>) -> Result<Vec<String>, Error> {
        todo!()
    }
    pub async fn drop_own_leftovers(&self, _: &BTreeSet<String>) -> Result<Vec<String>, Error> {
        todo!()
    }
}
