//! Finds the server and the ledger entry of a backup's account; the backup may outlive the account's object.

use std::sync::Arc;

use kube::{Api, ResourceExt, api::ListParams};

use crate::controller::placement::Placement;
use crate::{
    api::{ColdBackup, ColdBackupStatus, DatabaseServer, HelpDeskAccount},
    backup::folder_of,
    context::Context,
    database::{self, ConnectedServer},
    ledger::{self, BackupEntry, Entry},
};

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A server that may hold it cannot be asked.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// Its ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The cluster cannot be asked.
    #[error("failed to read the account or the servers")]
    Cluster(#[source] Box<kube::Error>),
    /// No ledger knows the account.
    #[error(
        "failed to find account {account} with uid {uid} in any ledger: spec.account and spec.accountUID must name an account that is there"
    )]
    Unknown {
        /// Its name.
        account: String,
        /// Its uid.
        uid: String,
    },
}

impl Error {
    /// Whether a person has to do something first.
    pub const fn needs_a_person(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }
}

/// Finds the account's server: by the account's status, or by asking every server.
pub(super) async fn find(ctx: &Context, backup: &ColdBackup) -> Result<Placement, Error> {
    let cluster = |e| Error::Cluster(Box::new(e));
    let uid = &backup.spec.account_uid;
    let account = Api::<HelpDeskAccount>::all(ctx.client.clone()).get_opt(&backup.spec.account).await.map_err(cluster)?;
    let told = account.filter(|a| a.uid().as_ref() == Some(uid)).and_then(|a| a.status?.database).map(|d| d.server);
    let names = match told {
        Some(name) => vec![name],
        None => {
            let servers = Api::<DatabaseServer>::all(ctx.client.clone()).list(&ListParams::default()).await.map_err(cluster)?;
            servers.items.iter().map(ResourceExt::name_any).collect()
        }
    };
    let mut silent = None;
    for name in names {
        match ask(ctx, &name, uid).await {
            Ok(Some((server, entry))) => return Ok(Placement::of(server, entry)?),
            Ok(None) => {}
            // One that does not answer may be the one, and another one may still be.
            Err(error) => silent = Some(error),
        }
    }
    if let Some(error) = silent {
        return Err(error);
    }
    Err(Error::Unknown { account: backup.spec.account.clone(), uid: uid.clone() })
}

async fn ask(ctx: &Context, server: &str, uid: &str) -> Result<Option<(Arc<ConnectedServer>, Entry)>, Error> {
    let server = ctx.servers.get(server).await?;
    Ok(server.ledger.load(uid).await?.map(|entry| (server, entry)))
}

impl Placement {
    /// Writes what is true of the backup into the ledger, which outlives its object.
    pub async fn remember(&self, backup: &ColdBackup, status: &ColdBackupStatus) -> Result<(), ledger::Error> {
        let entry = BackupEntry {
            name: backup.name_any(),
            uid: backup.spec.account_uid.clone(),
            account: backup.spec.account.clone(),
            store: backup.spec.store.clone(),
            prefix: folder_of(backup),
            key_id: status.key_id.clone(),
            expires_at: backup.spec.expires_at.0,
            phase: format!("{:?}", status.phase),
            manifest_sha256: status.manifest_sha256.clone(),
        };
        self.server.ledger.put_backup(&entry).await
    }
}
