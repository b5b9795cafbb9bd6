//! The finalizer by which an account's deletion takes the safe path.

use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::controller::Action,
};
use serde_json::json;

use super::{
    context::Desk,
    error::{During, Error},
    routes,
};
use crate::{api::HelpDeskAccount, cluster::gone_is_fine};

/// The finalizer that keeps a confirmed deletion from losing data.
pub const FINALIZER: &str = "helpdesk-operator.io/account";

/// Puts the finalizer on the account, so that a deletion takes the safe path.
pub(super) async fn hold_on(desk: &Desk, account: &HelpDeskAccount) -> Result<(), Error> {
    if has_finalizer(account) || account.meta().deletion_timestamp.is_some() {
        return Ok(());
    }
    let finalizers: Vec<_> = account.finalizers().iter().cloned().chain([FINALIZER.to_owned()]).collect();
    set_finalizers(desk, account, &finalizers).await
}

/// Lets the account's object go. Touches no data.
pub(super) async fn let_go(desk: &Desk, account: &HelpDeskAccount) -> Result<Action, Error> {
    let uid = account.uid().unwrap_or_default();
    routes::forget(desk, &uid);
    desk.census.forget(&desk.telemetry, &uid);
    if has_finalizer(account) {
        let finalizers: Vec<_> = account.finalizers().iter().filter(|f| *f != FINALIZER).cloned().collect();
        set_finalizers(desk, account, &finalizers).await?;
        tracing::info!("let the account's object go; no data was touched by that");
    }
    Ok(Action::await_change())
}

async fn set_finalizers(desk: &Desk, account: &HelpDeskAccount, finalizers: &[String]) -> Result<(), Error> {
    let api: Api<HelpDeskAccount> = Api::all(desk.client.clone());
    // The resourceVersion keeps a finalizer that somebody else just added.
    let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": account.resource_version()}});
    api.patch(&account.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map(drop)
        .or_else(gone_is_fine)
        .during("set the account's finalizer")
}

/// Whether the account still carries the operator's finalizer.
fn has_finalizer(account: &HelpDeskAccount) -> bool {
    account.finalizers().iter().any(|f| f == FINALIZER)
}
