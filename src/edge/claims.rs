//! Host names as the API server keeps them: one [`DomainClaim`] a name, made by creation, which only one can win.

use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;

use super::Error;
use crate::api::{ACCOUNT_LABEL, DomainClaim, DomainClaimSpec, DomainUse, Time};
use crate::cluster::{ClusterError, During};

/// Claims a name; `false` if somebody else was faster. A claim that nobody may keep is removed first.
///
/// # Errors
/// The cluster could not be asked.
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

/// Gives a name back; `false` if the claim was changed in the meantime.
///
/// # Errors
/// The cluster could not be asked.
pub async fn release(client: &Client, claim: &DomainClaim) -> Result<bool, Error> {
    let api: Api<DomainClaim> = Api::all(client.clone());
    let this_one = Preconditions { uid: claim.uid(), resource_version: claim.resource_version() };
    match api.delete(&claim.name_any(), &DeleteParams { preconditions: Some(this_one), ..DeleteParams::default() }).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(true),
        Err(kube::Error::Api(answer)) if answer.code == 409 => Ok(false),
        Err(error) => Err(ClusterError::new("give a host name back", error).into()),
    }
}

/// What may change in a claim.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What the name is to its account.
    pub used_as: DomainUse,
    /// Since when its proof is missing.
    pub lost_since: Option<Time>,
    /// Until when nobody else gets it.
    pub reserved_until: Option<Time>,
}

impl Change {
    /// No change.
    pub fn none(claim: &DomainClaim) -> Self {
        let DomainClaimSpec { used_as, lost_since, reserved_until, .. } = claim.spec.clone();
        Self { used_as, lost_since, reserved_until }
    }
}

/// Changes a claim if it differs.
///
/// # Errors
/// The cluster could not be asked, or the claim was changed in the meantime.
pub async fn change(client: &Client, claim: &DomainClaim, to: Change) -> Result<(), Error> {
    if Change::none(claim) == to {
        return Ok(());
    }
    let api: Api<DomainClaim> = Api::all(client.clone());
    let patch = json!({"metadata": {"resourceVersion": claim.resource_version()},
        "spec": {"use": to.used_as, "lostSince": to.lost_since, "reservedUntil": to.reserved_until}});
    api.patch(&claim.name_any(), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map(drop)
        .during("change the claim of a host name")
        .map_err(Error::from)
}
