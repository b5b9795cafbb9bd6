//! Sets and removes the finalizer of an account.

use std::time::Duration;

use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::controller::Action,
};
use serde_json::json;

use super::{context::AccountContext, error::Error, routes};
use crate::{
    api::HelpDeskAccount,
    cluster::{During, ignore_not_found_or_conflict},
};

/// The finalizer of accounts. It keeps the object until a confirmed deletion has been carried out.
pub const FINALIZER: &str = "helpdesk-operator.io/account";

/// When is looked again whether the object is gone.
const RETRY: Duration = Duration::from_secs(2);

/// Adds the finalizer, so that the object is not removed before the operator has handled its deletion.
pub(super) async fn ensure(ctx: &AccountContext, account: &HelpDeskAccount) -> Result<(), Error> {
    if has_finalizer(account) || account.meta().deletion_timestamp.is_some() {
        return Ok(());
    }
    let finalizers: Vec<_> = account.finalizers().iter().cloned().chain([FINALIZER.to_owned()]).collect();
    set_finalizers(ctx, account, &finalizers).await
}

/// Removes the finalizer, so that the object can be deleted. Touches no data.
pub(super) async fn remove(ctx: &AccountContext, account: &HelpDeskAccount) -> Result<Action, Error> {
    let uid = account.uid().unwrap_or_default();
    routes::forget(ctx, &uid);
    ctx.last_records.forget(&uid);
    ctx.last_statuses.forget(&uid);
    ctx.delays.put(&uid, None);
    if has_finalizer(account) {
        let finalizers: Vec<_> = account.finalizers().iter().filter(|f| *f != FINALIZER).cloned().collect();
        set_finalizers(ctx, account, &finalizers).await?;
        tracing::info!("letting the account's object go; no data is touched by that");
        // The object may have changed since it was read, and a change of its status alone triggers no reconcile. It is
        // looked at again until it is gone.
        return Ok(Action::requeue(RETRY));
    }
    Ok(Action::await_change())
}

async fn set_finalizers(ctx: &AccountContext, account: &HelpDeskAccount, finalizers: &[String]) -> Result<(), Error> {
    let api: Api<HelpDeskAccount> = Api::all(ctx.client.clone());
    // With the resourceVersion, a finalizer that another controller just added is not lost.
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": account.resource_version()}});
    api.patch(&account.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map(drop)
        .or_else(ignore_not_found_or_conflict)
        .during("set the account's finalizer")
        .map_err(Error::from)
}

/// Whether the account has the operator's finalizer.
fn has_finalizer(account: &HelpDeskAccount) -> bool {
    account.finalizers().iter().any(|f| f == FINALIZER)
}
