//! Where the data of an account is: its server and its entry in that server's ledger.

use std::sync::Arc;

use crate::{
    database::{ConnectedServer, Error, Tenant},
    ledger::Entry,
};

/// Where the data of an account is, or was.
pub(in crate::controller) struct Placement {
    /// The server.
    pub server: Arc<ConnectedServer>,
    /// The tenant's names there.
    pub tenant: Tenant,
    /// What the ledger remembers.
    pub entry: Entry,
    /// Whether the account took over this data in this very reconcile.
    pub was_adopted: bool,
}

impl Placement {
    /// The account of `entry` on `server`.
    ///
    /// # Errors
    /// When the uid of the entry is no uid.
    pub fn of(server: Arc<ConnectedServer>, entry: Entry) -> Result<Self, Error> {
        Ok(Self { tenant: Tenant::of(&entry.uid)?, server, entry, was_adopted: false })
    }
}
