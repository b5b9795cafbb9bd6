//! Finds the server and the ledger entry of a backup's account. The account's object may be deleted before the backup.

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

/// Why the placement is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A server that may have the entry does not answer.
    #[error(transparent)]
    Database(#[from] database::Error),
    /// The server's ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] ledger::Error),
    /// The API server cannot be read.
    #[error("failed to read the account or the servers")]
    Cluster(#[source] Box<kube::Error>),
    /// No ledger has an entry of the account.
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
    /// Whether a person has to act.
    pub const fn needs_a_person(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }
}

/// Finds the account's server: from the account's status, or by asking every server.
pub(super) async fn find(ctx: &Context, backup: &ColdBackup) -> Result<Placement, Error> {
    let cluster = |e| Error::Cluster(Box::new(e));
    let uid = &backup.spec.account_uid;
    let account = Api::<HelpDeskAccount>::all(ctx.client.clone()).get_opt(&backup.spec.account).await.map_err(cluster)?;
    let shown = account.filter(|a| a.uid().as_ref() == Some(uid)).and_then(|a| a.status?.database).map(|d| d.server);
    let names = match shown {
        Some(name) => vec![name],
        None => {
            let servers = Api::<DatabaseServer>::all(ctx.client.clone()).list(&ListParams::default()).await.map_err(cluster)?;
            servers.items.iter().map(ResourceExt::name_any).collect()
        }
    };
    let mut unanswered = None;
    for name in names {
        match ask(ctx, &name, uid).await {
            Ok(Some((server, entry))) => return Ok(Placement::of(server, entry)?),
            Ok(None) => {}
            // This server may have the entry, but the next ones are asked too.
            Err(error) => unanswered = Some(error),
        }
    }
    if let Some(error) = unanswered {
        return Err(error);
    }
    Err(Error::Unknown { account: backup.spec.account.clone(), uid: uid.clone() })
}

async fn ask(ctx: &Context, server: &str, uid: &str) -> Result<Option<(Arc<ConnectedServer>, Entry)>, Error> {
    let server = ctx.servers.get(server).await?;
    Ok(server.ledger.load(uid).await?.map(|entry| (server, entry)))
}

impl Placement {
    /// Writes the state of the backup into the ledger, which keeps it after the object is deleted.
    pub async fn store_backup(&self, backup: &ColdBackup, status: &ColdBackupStatus) -> Result<(), ledger::Error> {
        let entry = BackupEntry {
            name: backup.name_any(),
            uid: backup.spec.account_uid.clone(),
            account: backup.spec.account.clone(),
            store: backup.spec.store.clone(),
            key_escrow: status.key_escrow.clone(),
            prefix: folder_of(backup),
            key_id: status.key_id.clone(),
            expires_at: status.retained_until.as_ref().map_or(backup.spec.expires_at.0, |until| until.0),
            phase: format!("{:?}", status.phase),
            manifest_sha256: status.manifest_sha256.clone(),
        };
        self.server.ledger.put_backup(&entry).await
    }
}
