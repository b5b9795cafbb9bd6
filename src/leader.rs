//! Leader election: of several replicas, the one that holds the Lease works.
//!
//! A Lease is no fence: a leader that hung may continue after another replica took over. So safety never depends on the
//! Lease; every effect is idempotent and guarded by the ledger's revision. It only keeps replicas from doubling work.

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::SignedDuration,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, PostParams},
};
use std::time::Duration;

use crate::{clock, error_chain::chain};

const LASTS: i32 = 10;
const RENEW: Duration = Duration::from_secs(3);
const RETRY: Duration = Duration::from_secs(1);

/// A replica's claim on a Lease.
pub struct Leadership {
    api: Api<Lease>,
    name: String,
    holder: String,
}

impl Leadership {
    /// A claim of `holder` on the Lease `name`.
    pub fn new(client: Client, namespace: &str, name: String, holder: String) -> Self {
        Self { api: Api::namespaced(client, namespace), name, holder }
    }

    /// Returns once this replica holds the Lease.
    pub async fn acquire(&self) {
        loop {
            match self.take().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(error = chain(&error), "failed to ask for the lease"),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Renews the Lease; returns once it is lost.
    pub async fn keep(&self) {
        let mut renewed = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(RENEW).await;
            match tokio::time::timeout(RENEW, self.take()).await {
                Ok(Ok(true)) => renewed = tokio::time::Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!(error = chain(&error), "failed to renew the lease"),
                Err(_) => tracing::warn!("the API server did not answer in time to renew the lease"),
            }
            if renewed.elapsed() > Duration::from_secs(LASTS.unsigned_abs().into()) - RENEW {
                return;
            }
        }
    }

    /// Releases the Lease, so that another replica need not wait until it expires.
    pub async fn release(&self) {
        if let Ok(Some(mut lease)) = self.api.get_opt(&self.name).await
            && lease.spec.as_ref().and_then(|s| s.holder_identity.as_deref()) == Some(self.holder.as_str())
        {
            if let Some(spec) = &mut lease.spec {
                spec.holder_identity = None;
            }
            if let Err(error) = self.api.replace(&self.name, &PostParams::default(), &lease).await {
                tracing::warn!(error = chain(&error), "failed to release the lease");
            }
        }
    }

    async fn take(&self) -> Result<bool, kube::Error> {
        let now = clock::precise_now();
        let new_spec = |transitions| LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: Some(LASTS),
            acquire_time: Some(MicroTime(now)),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        };
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let lease = Lease { metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() }, spec: Some(new_spec(0)) };
            return Ok(conflict_is_no(self.api.create(&PostParams::default(), &lease).await)?.is_some());
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let held_here = spec.holder_identity.as_deref() == Some(&self.holder);
        let lasts = SignedDuration::from_secs(spec.lease_duration_seconds.unwrap_or(LASTS).into());
        let expired = spec.renew_time.as_ref().is_none_or(|at| at.0 + lasts < now);
        if !held_here && !expired && spec.holder_identity.as_deref().is_some_and(|h| !h.is_empty()) {
            return Ok(false);
        }
        let transitions = spec.lease_transitions.unwrap_or(0);
        lease.spec = Some(if held_here {
            LeaseSpec { acquire_time: spec.acquire_time, ..new_spec(transitions) }
        } else {
            new_spec(transitions + 1)
        });
        // `replace` sends the resourceVersion that was read, so it fails with 409 Conflict if another replica wrote.
        debug_assert!(lease.resource_version().is_some());
        Ok(conflict_is_no(self.api.replace(&self.name, &PostParams::default(), &lease).await)?.is_some())
    }
}

fn conflict_is_no<T>(result: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(None),
        Err(error) => Err(error),
    }
}
