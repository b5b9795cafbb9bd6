//! The owner of an account: from the account itself, or from a Secret that is marked for it; and the removal of both.

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::{context::AccountContext, error::Error};
use crate::{
    api::{FOR_ACCOUNT, HelpDeskAccount, account::SecretRef},
    cluster::{During, ignore_not_found_or_conflict},
};

/// What `kubectl apply` keeps of a manifest.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// What stands in the place of the owner's name, and in `spec.owner.email` of an account whose owner was erased.
const ERASED: (&str, &str) = ("erased", "erased@erased.invalid");

/// The owner of an account.
pub(super) struct Owner {
    /// The name, if one is given.
    pub name: Option<String>,
    /// The mail address.
    pub email: String,
}

/// The owner, from the Secret that the account names or from the account itself.
pub(super) async fn read(ctx: &AccountContext, account: &HelpDeskAccount) -> Result<Owner, Error> {
    let owner = &account.spec.owner;
    let Some(reference) = &owner.secret_ref else {
        let email = owner.email.clone();
        let email = email.ok_or_else(|| Error::Owner("spec.owner: name the owner by secretRef or by name and email".into()))?;
        return Ok(Owner { name: owner.name.clone(), email });
    };
    let at = format!("spec.owner.secretRef: Secret {}/{}", reference.namespace, reference.name);
    let known = &ctx.settings.owner_namespaces;
    if !known.contains(&reference.namespace) {
        let message =
            format!("{at}: owners are read in the namespaces {} only; owners.namespaces of the chart lists them", known.join(", "));
        return Err(Error::Owner(message));
    }
    // Who writes accounts may not be allowed to read Secrets: whether another one exists is not told.
    let name = account.name_any();
    let secret = find(ctx, reference, &name).await?.ok_or_else(|| {
        Error::Owner(format!(
            "{at} does not exist or is not marked for this account; it needs the annotation {FOR_ACCOUNT}: {name} and the keys name and email"
        ))
    })?;
    let text = |key: &str| secret.data.as_ref().and_then(|d| d.get(key)).and_then(|v| String::from_utf8(v.0.clone()).ok());
    let email = text("email").filter(|email| email.contains('@'));
    let email = email.ok_or_else(|| Error::Owner(format!("{at} has no key email with a mail address")))?;
    Ok(Owner { name: text("name"), email })
}

/// The Secret of the owner, if it is marked for the account of this name.
async fn find(ctx: &AccountContext, reference: &SecretRef, account: &str) -> Result<Option<Secret>, Error> {
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), &reference.namespace);
    let found = secrets.get_opt(&reference.name).await.during("read the owner's Secret")?;
    Ok(found.filter(|secret| secret.annotations().get(FOR_ACCOUNT).is_some_and(|name| name == account)))
}

/// Whether the account's object has personal data in it.
pub(super) fn is_named(account: &HelpDeskAccount) -> bool {
    let owner = &account.spec.owner;
    owner.email.as_deref().is_some_and(|email| email != ERASED.1) || account.spec.display_name.is_some()
}

/// Removes personal data from the account object, from its last-applied annotation, and from the owner's Secret.
pub(super) async fn scrub(ctx: &AccountContext, account: &HelpDeskAccount) -> Result<(), Error> {
    scrub_secret(ctx, account).await?;
    let mut patch = json!({"spec": {"displayName": null}, "metadata": {"annotations": {LAST_APPLIED: null}}});
    if account.spec.closure.is_some() {
        patch["spec"]["closure"] = json!({"requestedBy": null});
    }
    if account.spec.owner.secret_ref.is_none() {
        patch["spec"]["owner"] = json!({"name": ERASED.0, "email": ERASED.1});
    }
    let api: Api<HelpDeskAccount> = Api::all(ctx.client.clone());
    api.patch(&account.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map(drop)
        .during("scrub the owner")
        .map_err(Error::from)
}

/// Removes the owner's name and address from the Secret that the account names, if it is marked for the account.
pub(super) async fn scrub_secret(ctx: &AccountContext, account: &HelpDeskAccount) -> Result<(), Error> {
    let Some(reference) = &account.spec.owner.secret_ref else { return Ok(()) };
    if !ctx.settings.owner_namespaces.contains(&reference.namespace) {
        return Ok(());
    }
    let Some(found) = find(ctx, reference, &account.name_any()).await? else { return Ok(()) };
    let secrets: Api<Secret> = Api::namespaced(ctx.client.clone(), &reference.namespace);
    let personal = json!({"data": {"name": null, "email": null}, "metadata": {"uid": found.uid(), "annotations": {LAST_APPLIED: null}}});
    secrets
        .patch(&reference.name, &PatchParams::default(), &Patch::Merge(personal))
        .await
        .map(drop)
        .or_else(ignore_not_found_or_conflict)
        .during("scrub the owner's Secret")
        .map_err(Error::from)
}
