//! Claims of host names in the API server: one [`DomainClaim`] for each name. Of two accounts that create it, one wins.

use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;

use super::Error;
use crate::api::{ACCOUNT_LABEL, Contender, DomainClaim, DomainClaimSpec, DomainUse, Time};
use crate::cluster::{ClusterError, During};

/// Creates the claim of a name; `false` if another account was faster. Deletes `before` first, a claim that its account
/// may not keep.
///
/// # Errors
/// A request to the API server failed.
pub async fn claim(client: &Client, host: &str, spec: DomainClaimSpec, before: Option<&DomainClaim>) -> Result<bool, Error> {
    let api: Api<DomainClaim> = Api::all(client.clone());
    if let Some(before) = before
        && !release(client, before).await?
    {
        return Ok(false);
    }
    let labels = [(ACCOUNT_LABEL.to_owned(), spec.account.clone())].into();
    let metadata = ObjectMeta { name: Some(host.to_owned()), labels: Some(labels), ..ObjectMeta::default() };
    match api.create(&PostParams::default(), &DomainClaim { metadata, spec }).await {
        Ok(_) => {
            tracing::info!(host, "a host name was claimed");
            Ok(true)
        }
        Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(false),
        Err(error) => Err(ClusterError::new("claim a host name", error).into()),
    }
}

/// Deletes the claim of a name; `false` if the claim was changed in the meantime (409 Conflict).
///
/// # Errors
/// The request to the API server failed.
pub async fn release(client: &Client, claim: &DomainClaim) -> Result<bool, Error> {
    let api: Api<DomainClaim> = Api::all(client.clone());
    let preconditions = Preconditions { uid: claim.uid(), resource_version: claim.resource_version() };
    match api.delete(&claim.name_any(), &DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() }).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(true),
        Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(false),
        Err(error) => Err(ClusterError::new("give a host name back", error).into()),
    }
}

/// The fields of a claim that may change.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// How the account uses the name.
    pub used_as: DomainUse,
    /// Since when the TXT record has been missing.
    pub lost_since: Option<Time>,
    /// Who takes the name over.
    pub contender: Option<Contender>,
    /// Until when no other account gets the name.
    pub reserved_until: Option<Time>,
}

impl Change {
    /// The present values of a claim.
    pub fn none(claim: &DomainClaim) -> Self {
        let DomainClaimSpec { used_as, lost_since, contender, reserved_until, .. } = claim.spec.clone();
        Self { used_as, lost_since, contender, reserved_until }
    }
}

/// Changes a claim if its values differ.
///
/// # Errors
/// The request to the API server failed, or the claim was changed in the meantime.
pub async fn change(client: &Client, claim: &DomainClaim, to: Change) -> Result<(), Error> {
    if Change::none(claim) == to {
        return Ok(());
    }
    let api: Api<DomainClaim> = Api::all(client.clone());
    let patch = json!({"metadata": {"resourceVersion": claim.resource_version()},
        "spec": {"use": to.used_as, "lostSince": to.lost_since, "contender": to.contender, "reservedUntil": to.reserved_until}});
    api.patch(&claim.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map(drop)
        .during("change the claim of a host name")
        .map_err(Error::from)
}
