//! Ends the connections of agents whom a stricter policy refuses.

use k8s_openapi::jiff::SignedDuration;
use kube::ResourceExt;

use super::work::Work;
use crate::{
    api::{Audience, HelpDeskClassSpec},
    app,
    clock::Moment,
    edge::{Error, apply, connections::Published, objects::Kind},
};

/// How long after a policy was written the proxies have it, where the gateway accepts it at once: its status says nothing of
/// them. Measured with 136 routes: 0.8 s at the median, 3.1 s at most.
const IN_FORCE_AFTER: SignedDuration = SignedDuration::from_secs(3);

impl Work<'_> {
    /// The state of an object in the tenant's namespace, from the cache.
    pub(super) fn published(&self, kind: Kind, namespace: &str, name: &str) -> Option<Published> {
        let found = self.ctx.caches.edge.get(kind, Some(namespace), name)?;
        Some(Published { spec: found.data["spec"].clone(), end_connections_before: apply::end_connections_before(&found) })
    }

    /// Ends the pods that answer agents and were started before a policy got stricter, once it is in force. Returns whether
    /// that is done.
    pub(super) async fn end_agents_connections(
        &mut self,
        before: Moment,
        class: &HelpDeskClassSpec,
        namespace: &str,
    ) -> Result<bool, Error> {
        let due = before + IN_FORCE_AFTER;
        if self.now < due {
            self.requeue_at(due);
            return Ok(false);
        }
        let components: Vec<&str> =
            class.routes.iter().filter(|route| route.audience == Audience::Agent).map(|route| route.component.as_str()).collect();
        let owner = app::apply::Owner { account: &self.account.name_any(), uid: &self.placement.entry.uid, namespace };
        let ended = app::apply::end_pods(&self.ctx.client, owner, &components, Some(before)).await?;
        tracing::info!(pods = ended, "agents' paths got stricter; connections from before are ended");
        Ok(true)
    }
}
