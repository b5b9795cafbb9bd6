//! Creates and deletes the tenant's namespace.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;

use super::{context::AccountContext, error::Error};
use crate::{
    api::{ACCOUNT_LABEL, ACCOUNT_UID, HelpDeskAccount},
    cluster::{During, ignore_not_found_or_conflict},
    database::Tenant,
    ledger::NamespaceEntry,
};

/// The name of a tenant's namespace. Like the database's name it is made from the uid.
pub(super) fn name(tenant: &Tenant) -> String {
    tenant.name.replacen("t_", "hd-", 1)
}

/// The state of the tenant's namespace.
pub(super) enum Found {
    /// It exists and can be used.
    Ready(NamespaceEntry),
    /// It is still being deleted.
    Leaving,
}

/// Creates the tenant's namespace, or uses the existing one if it carries the account's marker.
pub(super) async fn ensure(ctx: &AccountContext, account: &HelpDeskAccount, tenant: &Tenant) -> Result<Found, Error> {
    let api: Api<Namespace> = Api::all(ctx.client.clone());
    let name = name(tenant);
    let found = match api.get_opt(&name).await.during("read the tenant's namespace")? {
        Some(found) => found,
        None => match api.create(&PostParams::default(), &build(account, tenant)).await {
            Ok(made) => made,
            Err(kube::Error::Api(status)) if status.code == 409 => api.get(&name).await.during("read the tenant's namespace")?,
            Err(error) => return Err(error).during("create the tenant's namespace").map_err(Error::from),
        },
    };
    if found.annotations().get(ACCOUNT_UID) != Some(&tenant.uid) {
        return Err(Error::Foreign { what: format!("Namespace {name}") });
    }
    if found.meta().deletion_timestamp.is_some() {
        return Ok(Found::Leaving);
    }
    // The labels give pods their limits and routes their Gateway.
    let labels = labels(account);
    if labels.iter().any(|(key, value)| found.labels().get(key) != Some(value)) {
        let patch = json!({"metadata": {"labels": labels, "resourceVersion": found.resource_version()}});
        api.patch(&name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .map(drop)
            .or_else(ignore_not_found_or_conflict)
            .during("put the labels of the tenant's namespace back")?;
    }
    Ok(Found::Ready(NamespaceEntry { name, uid: found.uid() }))
}

fn labels(account: &HelpDeskAccount) -> BTreeMap<String, String> {
    BTreeMap::from([
        (ACCOUNT_LABEL.to_owned(), account.name_any()),
        ("app.kubernetes.io/managed-by".to_owned(), "helpdesk-operator".to_owned()),
        ("pod-security.kubernetes.io/enforce".to_owned(), "restricted".to_owned()),
    ])
}

fn build(account: &HelpDeskAccount, tenant: &Tenant) -> Namespace {
    let annotations = BTreeMap::from([(ACCOUNT_UID.to_owned(), tenant.uid.clone())]);
    let metadata =
        ObjectMeta { name: Some(name(tenant)), labels: Some(labels(account)), annotations: Some(annotations), ..ObjectMeta::default() };
    Namespace { metadata, ..Namespace::default() }
}

/// Deletes the tenant's namespace with everything in it. Returns what it still waits for; `None` once it does not exist any
/// more.
pub(super) async fn remove(ctx: &AccountContext, tenant: &Tenant) -> Result<Option<String>, Error> {
    let api: Api<Namespace> = Api::all(ctx.client.clone());
    let name = name(tenant);
    let Some(found) = api.get_opt(&name).await.during("read the tenant's namespace")? else { return Ok(None) };
    if found.annotations().get(ACCOUNT_UID) != Some(&tenant.uid) {
        // It does not carry the account's marker, so it is left alone.
        return Ok(None);
    }
    if found.meta().deletion_timestamp.is_none() {
        let this_one =
            DeleteParams { preconditions: Some(Preconditions { uid: found.uid(), resource_version: None }), ..DeleteParams::default() };
        api.delete(&name, &this_one).await.map(drop).or_else(ignore_not_found_or_conflict).during("delete the tenant's namespace")?;
    }
    Ok(Some(remaining(&name, &found)))
}

/// What a namespace that is being deleted waits for, as its conditions say.
fn remaining(name: &str, namespace: &Namespace) -> String {
    let conditions = namespace.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let reasons: Vec<&str> = conditions.filter(|c| c.status == "True").filter_map(|c| c.message.as_deref()).collect();
    let mut text = format!("the namespace {name} is being deleted");
    if !reasons.is_empty() {
        text = format!("{text}: {}", reasons.join("; "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_hangs_says_what_holds_it() {
        let namespace = |conditions: serde_json::Value| -> Namespace {
            serde_json::from_value(json!({"metadata": {"name": "hd-1"}, "status": {"phase": "Terminating", "conditions": conditions}}))
                .unwrap()
        };
        let condition = |status: &str| {
            json!({"type": "NamespaceFinalizersRemaining", "status": status, "reason": "SomeFinalizersRemain",
                "message": "Some content in the namespace has finalizers remaining: example.org/x in 1 resource instances"})
        };
        assert_eq!(remaining("hd-1", &namespace(json!([condition("False")]))), "the namespace hd-1 is being deleted");
        assert!(
            remaining("hd-1", &namespace(json!([condition("True")])))
                .ends_with("finalizers remaining: example.org/x in 1 resource instances")
        );
    }
}
