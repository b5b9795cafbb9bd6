//! Sets and removes the finalizer of an account.

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

/// The finalizer that keeps a confirmed deletion from losing data.
pub const FINALIZER: &str = "helpdesk-operator.io/account";

/// Puts the finalizer on the account, so that a deletion takes the safe path.
pub(super) async fn ensure(ctx: &AccountContext, account: &HelpDeskAccount) -> Result<(), Error> {
    if has_finalizer(account) || account.meta().deletion_timestamp.is_some() {
        return Ok(());
    }
    let finalizers: Vec<_> = account.finalizers().iter().cloned().chain([FINALIZER.to_owned()]).collect();
    set_finalizers(ctx, account, &finalizers).await
}

/// Lets the account's object go. Touches no data.
pub(super) async fn remove(ctx: &AccountContext, account: &HelpDeskAccount) -> Result<Action, Error> {
    let uid = account.uid().unwrap_or_default();
    routes::forget(ctx, &uid);
    ctx.stage_counts.forget(&ctx.telemetry, &uid);
    if has_finalizer(account) {
        let finalizers: Vec<_> = account.finalizers().iter().filter(|f| *f != FINALIZER).cloned().collect();
        set_finalizers(ctx, account, &finalizers).await?;
        tracing::info!("let the account's object go; no data was touched by that");
    }
    Ok(Action::await_change())
}

async fn set_finalizers(ctx: &AccountContext, account: &HelpDeskAccount, finalizers: &[String]) -> Result<(), Error> {
    let api: Api<HelpDeskAccount> = Api::all(ctx.client.clone());
    // The resourceVersion keeps a finalizer that somebody else just added.
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": account.resource_version()}});
    api.patch(&account.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map(drop)
        .or_else(ignore_not_found_or_conflict)
        .during("set the account's finalizer")
        .map_err(Error::from)
}

/// Whether the account still carries the operator's finalizer.
fn has_finalizer(account: &HelpDeskAccount) -> bool {
    account.finalizers().iter().any(|f| f == FINALIZER)
}
