//! The placement of an account: its server and its entry in that server's ledger.

use std::sync::Arc;

use crate::{
    database::{ConnectedServer, Error, Tenant},
    ledger::Entry,
};

/// The server that holds the data of an account, or held it.
pub(in crate::controller) struct Placement {
    /// The server.
    pub server: Arc<ConnectedServer>,
    /// The tenant's names on the server.
    pub tenant: Tenant,
    /// Its entry in the ledger.
    pub entry: Entry,
    /// Whether the account took over this data in this reconcile.
    pub was_adopted: bool,
}

impl Placement {
    /// The account of `entry` on `server`.
    ///
    /// # Errors
    /// The uid of the entry is not a valid uid.
    pub fn of(server: Arc<ConnectedServer>, entry: Entry) -> Result<Self, Error> {
        Ok(Self { tenant: Tenant::of(&entry.uid)?, server, entry, was_adopted: false })
    }
}
