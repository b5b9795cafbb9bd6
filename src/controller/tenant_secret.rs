//! The operator's own Secret of a tenant, `login-<tenant>` in the operator's namespace: the passwords of its database, and
//! the secrets of its app.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;
use zeroize::Zeroizing;

use crate::{
    api::{ACCOUNT_LABEL, ACCOUNT_UID, BackupPhase, ColdBackup},
    app::secrets::AppSecrets,
    backup::keys,
    cluster::{ClusterError, During, ignore_not_found_or_conflict},
    context::Context,
    database::Tenant,
};

/// Why the Secret, or what a backup has of it, could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The Secret does not carry the marker of the account.
    #[error(
        "failed to use the Secret {0}: it exists and does not carry the marker of this account; nothing was done to it. Remove or rename it"
    )]
    Foreign(String),
    /// The key of a backup.
    #[error(transparent)]
    Keys(#[from] keys::Error),
}

/// The operator's own Secret of one tenant.
#[derive(Clone, Copy)]
pub(in crate::controller) struct TenantSecret<'a> {
    ctx: &'a Context,
    tenant: &'a Tenant,
}

impl<'a> TenantSecret<'a> {
    /// The Secret of this tenant.
    pub fn of(ctx: &'a Context, tenant: &'a Tenant) -> Self {
        Self { ctx, tenant }
    }

    /// Namespace and name.
    pub fn path(&self) -> String {
        format!("{}/{}", self.ctx.settings.namespace, self.name())
    }

    fn name(&self) -> String {
        self.tenant.name.replacen("t_", "login-", 1)
    }

    fn api(&self) -> Api<Secret> {
        Api::namespaced(self.ctx.client.clone(), &self.ctx.settings.namespace)
    }

    async fn find(&self) -> Result<Option<Secret>, Error> {
        let Some(secret) = self.api().get_opt(&self.name()).await.during("read the tenant's passwords")? else { return Ok(None) };
        if secret.annotations().get(ACCOUNT_UID) != Some(&self.tenant.uid) {
            return Err(Error::Foreign(self.path()));
        }
        Ok(Some(secret))
    }

    /// The value of a key.
    pub async fn value(&self, key: &str) -> Result<Option<Zeroizing<String>>, Error> {
        Ok(self.find().await?.and_then(|secret| value(&secret, key)))
    }

    /// The secrets of the app that it has.
    pub async fn app_secrets(&self) -> Result<AppSecrets, Error> {
        let mut found = AppSecrets::default();
        let Some(secret) = self.find().await? else { return Ok(found) };
        for key in secret.data.iter().flatten().map(|(key, _)| key).filter(|key| AppSecrets::is_name(key)) {
            if let Some(value) = value(&secret, key) {
                found.insert(key.clone(), value);
            }
        }
        Ok(found)
    }

    /// Stores these values. Other keys stay as they are. `account` is for the label.
    pub async fn put<'v>(&self, account: &str, values: impl IntoIterator<Item = (&'v str, &'v str)>) -> Result<(), Error> {
        let data: BTreeMap<_, _> = values.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec()))).collect();
        let metadata = ObjectMeta {
            name: Some(self.name()),
            labels: Some(BTreeMap::from([(ACCOUNT_LABEL.to_owned(), account.to_owned())])),
            annotations: Some(BTreeMap::from([(ACCOUNT_UID.to_owned(), self.tenant.uid.clone())])),
            ..ObjectMeta::default()
        };
        let secret = Secret { metadata, data: Some(data.clone()), ..Secret::default() };
        match self.api().create(&PostParams::default(), &secret).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                self.find().await?;
                let patch = Patch::Merge(Secret { data: Some(data), ..Secret::default() });
                let patched = self.api().patch(&self.name(), &PatchParams::default(), &patch).await;
                Ok(patched.map(drop).during("store the tenant's passwords")?)
            }
            Err(error) => Ok(Err(error).during("store the tenant's passwords")?),
        }
    }

    /// Removes a key.
    pub async fn remove(&self, key: &str) -> Result<(), Error> {
        if self.value(key).await?.is_none() {
            return Ok(());
        }
        let patch = json!({"data": {key: null}});
        let patched = self.api().patch(&self.name(), &PatchParams::default(), &Patch::Merge(patch)).await;
        Ok(patched.map(drop).or_else(ignore_not_found_or_conflict).during("discard an old password")?)
    }

    /// Deletes what nobody needs any more once the database is dropped: its passwords, and the secrets of the app that the
    /// cold backup has. What that backup lacks stays for an account that comes back. A backup has no secret that a person
    /// restored after its keys were made.
    pub async fn delete_saved(&self, saved: &AppSecrets) -> Result<(), Error> {
        let mut unsaved = self.app_secrets().await?;
        unsaved.remove_all(saved);
        if unsaved.is_empty() {
            return self.delete().await;
        }
        let Some(secret) = self.find().await? else { return Ok(()) };
        let keys = secret.data.iter().flatten().map(|(key, _)| key).filter(|key| unsaved.get(key).is_none());
        let patch = json!({"data": keys.map(|key| (key.clone(), None::<()>)).collect::<BTreeMap<_, _>>()});
        tracing::warn!(secret = self.path(), kept = ?unsaved, "the cold backup lacks secrets of the app: they stay until the account expires");
        let patched = self.api().patch(&self.name(), &PatchParams::default(), &Patch::Merge(patch)).await;
        Ok(patched.map(drop).or_else(ignore_not_found_or_conflict).during("remove the tenant's passwords")?)
    }

    /// Deletes the Secret.
    pub async fn delete(&self) -> Result<(), Error> {
        let Some(secret) = self.find().await? else { return Ok(()) };
        let this_one =
            DeleteParams { preconditions: Some(Preconditions { uid: secret.uid(), resource_version: None }), ..DeleteParams::default() };
        let deleted = self.api().delete(&self.name(), &this_one).await;
        Ok(deleted.map(drop).or_else(ignore_not_found_or_conflict).during("remove the tenant's passwords")?)
    }

    /// The secrets of the app that are lost, as far as proven backups of the account have them. The newest backup counts.
    pub async fn find_in_backups(&self, account: &str, lost: &BTreeSet<String>) -> Result<AppSecrets, Error> {
        let mut found = AppSecrets::default();
        if lost.is_empty() {
            return Ok(found);
        }
        let of_account = ListParams::default().labels(&format!("{ACCOUNT_LABEL}={account}"));
        let listed = Api::<ColdBackup>::all(self.ctx.client.clone()).list(&of_account).await.during("list the account's backups")?;
        for backup in newest_first(listed.items, &self.tenant.uid) {
            if let Some(keys) = self.ctx.key_ring().load(&backup).await? {
                found.fill_up(keys.app_secrets);
            }
        }
        found.keep(lost);
        Ok(found)
    }
}

fn value(secret: &Secret, key: &str) -> Option<Zeroizing<String>> {
    let bytes = secret.data.as_ref()?.get(key)?.0.clone();
    String::from_utf8(bytes).ok().map(Zeroizing::new)
}

/// The proven backups of an account, the newest first.
fn newest_first(mut backups: Vec<ColdBackup>, uid: &str) -> Vec<ColdBackup> {
    let is_proven = |backup: &ColdBackup| backup.status.as_ref().is_some_and(|status| status.phase == BackupPhase::Verified);
    backups.retain(|backup| backup.spec.account_uid == uid && is_proven(backup));
    backups.sort_by_key(|backup| std::cmp::Reverse(backup.status.as_ref().and_then(|status| status.completed_at.clone()).map(|at| at.0)));
    backups
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{BackupReason, ColdBackupStatus, Time, VerifyMode};

    #[test]
    fn the_newest_proven_backup_of_the_account_comes_first_and_no_other_counts() {
        let backup = |uid: &str, phase, completed: &str| {
            let at = completed.parse().unwrap();
            let mut backup = crate::backup::build("acme", uid, "eu-cold", at, BackupReason::Scheduled, VerifyMode::Restore, at);
            backup.status = Some(ColdBackupStatus { phase, completed_at: Some(Time(at)), ..ColdBackupStatus::default() });
            backup
        };
        let all = vec![
            backup("u-1", BackupPhase::Verified, "2026-11-01T00:00:00Z"),
            backup("u-1", BackupPhase::Verified, "2026-11-03T00:00:00Z"),
            backup("u-1", BackupPhase::Failed, "2026-11-04T00:00:00Z"),
            backup("u-2", BackupPhase::Verified, "2026-11-05T00:00:00Z"),
        ];
        let order: Vec<_> = newest_first(all.clone(), "u-1").iter().map(ResourceExt::name_any).collect();
        assert_eq!(order, [all[1].name_any(), all[0].name_any()]);
    }
}
