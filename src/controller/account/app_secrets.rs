//! The secrets of a tenant's app: which it has, and a new password of its administrator when somebody asks for one.

use std::collections::BTreeSet;

use kube::ResourceExt;

use super::{error::Error, work::Work};
use crate::{
    api::{HelpDeskClassSpec, ROTATE_APP_PASSWORD},
    app::{
        self,
        secrets::{self, ADMIN, AppSecrets, Missing},
    },
    controller::tenant_secret::TenantSecret,
    digest::sha256,
    lifecycle::AdminPassword,
};

impl Work<'_> {
    /// The secrets of the app, by name: those that are stored, those that had to be taken from a backup, and new ones. The
    /// ledger has their names before the app gets them.
    pub(super) async fn app_secrets(&mut self, class: &HelpDeskClassSpec) -> Result<AppSecrets, Error> {
        let account = self.placement.entry.account.clone();
        let own = TenantSecret::of(self.ctx, &self.placement.tenant);
        let mut secrets = own.app_secrets().await?;
        let Missing { new, lost } = secrets::missing(class, &secrets, &self.record().app_secrets);
        let found = own.find_in_backups(&account, &lost).await?;
        let still_lost: Vec<_> = lost.iter().filter(|name| found.get(name).is_none()).cloned().collect();
        if !still_lost.is_empty() {
            return Err(Error::SecretLost { names: still_lost.join(", "), secret: own.path() });
        }
        let (of_class, names) = (class.clone(), new.clone());
        // The primes of a key take long to find.
        let made = tokio::task::spawn_blocking(move || secrets::make(&of_class, &names)).await;
        let mut added = made.map_err(|_| app::Error::Random)??;
        added.fill_up(found);
        if !added.is_empty() {
            own.put(&account, added.iter()).await?;
            secrets.fill_up(added);
        }
        let handed_out = &mut self.placement.entry.record.app_secrets;
        let before = handed_out.len();
        handed_out.extend(new);
        if handed_out.len() > before {
            self.store().await?;
        }
        Ok(secrets)
    }

    /// Makes a new password of the app's administrator, once for each value of the annotation that asks for one, where the
    /// class can set it. After a crash in between another one is made: none of them was handed over yet.
    pub(super) async fn renew_admin_password(&mut self, class: &HelpDeskClassSpec, secrets: &mut AppSecrets) -> Result<(), Error> {
        let Some(asked) = self.account.annotations().get(ROTATE_APP_PASSWORD).filter(|_| class.hooks.set_admin_password.is_some()) else {
            return Ok(());
        };
        let request = sha256(asked.as_bytes())[..16].to_owned();
        if self.record().admin_password.as_ref().is_some_and(|known| known.request == request) {
            return Ok(());
        }
        let made = secrets::make(class, &BTreeSet::from([ADMIN.to_owned()]))?;
        TenantSecret::of(self.ctx, &self.placement.tenant).put(&self.placement.entry.account, made.iter()).await?;
        secrets.replace(made);
        self.placement.entry.record.admin_password = Some(AdminPassword { request, is_set: false });
        self.store().await?;
        crate::crash::point("admin-password-made", self.record().stage.name());
        Ok(())
    }

    /// The request whose password the app does not have yet.
    pub(super) fn unset_admin_password(&self) -> Option<String> {
        self.record().admin_password.as_ref().filter(|password| !password.is_set).map(|password| password.request.clone())
    }

    /// Stores that the app has the password.
    pub(super) async fn store_admin_password_set(&mut self) -> Result<(), Error> {
        let Some(password) = &mut self.placement.entry.record.admin_password else { return Ok(()) };
        password.is_set = true;
        self.store().await
    }
}
