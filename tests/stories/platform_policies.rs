//! Policies of the platform beside those of tenants.

use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::json;

use super::{
    cluster::{Cluster, eventually},
    web::{administrator_applies_class, administrator_applies_plan, client_addresses, is_published, tenant_runs_app, visitor_tries_to_get},
};

#[tokio::test]
async fn what_the_platform_denies_at_its_gateway_is_denied_to_tenants_with_and_without_a_list() {
    // Given a tenant without a list, and one with.
    let cluster = Cluster::connect().await;
    administrator_applies_class(&cluster).await;
    administrator_applies_plan(&cluster, "platform", json!({})).await;
    let [first, second] = client_addresses();
    let open = cluster.customer_signs_up("platform-open", "platform").await;
    let listed = cluster.customer_signs_up("platform-listed", "platform").await;
    listed.administrator_applies(json!({"security": {"agentAllow": [format!("{first}/32")]}})).await;
    for account in [&open, &listed] {
        tenant_runs_app(account).await;
        is_published(account).await;
    }
    let status = |host: &str, path: &str, from: &str, is_denied: bool| {
        let mark = if is_denied { "X-Platform: denied" } else { "X-Platform: fine" };
        let url = format!("https://{host}.helpdesk.example{path}");
        visitor_tries_to_get(&url, &["--interface", from, "--header", mark]).map(|answer| answer.status).unwrap_or_default()
    };
    eventually("the apps answer", async || {
        let answers = [status("platform-open", "/queue", &second, true), status("platform-listed", "/queue", &first, true)];
        (answers == [200, 200]).then_some(())
    })
    .await;

    // When the platform denies some requests at the Gateway.
    let resource = helpdesk_operator::edge::objects::Kind::PlatformSecurityPolicy.resource();
    let policies: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), "edge", &resource);
    let policy = json!({"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "SecurityPolicy", "metadata": {"name": "platform"}, "spec": {
        "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}],
        "authorization": {"defaultAction": "Allow", "rules": [
            {"name": "marked", "action": "Deny", "principal": {"headers": [{"name": "x-platform", "values": ["denied"]}]}}]}}});
    policies.patch("platform", &PatchParams::apply("stories").force(), &Patch::Apply(policy)).await.unwrap();

    // Then they are denied to both, on agents' paths and on all others, and everything else is as it was.
    let cells = || {
        [
            status("platform-open", "/queue", &second, true),
            status("platform-open", "/help", &second, true),
            status("platform-listed", "/queue", &first, true),
            status("platform-listed", "/help", &second, true),
            status("platform-open", "/queue", &second, false),
            status("platform-listed", "/queue", &first, false),
            status("platform-listed", "/help", &second, false),
            status("platform-listed", "/queue", &second, false),
        ]
    };
    eventually("the platform's policy holds beside the tenants'", async || {
        (cells() == [403, 403, 403, 403, 200, 200, 200, 403]).then_some(())
    })
    .await;
    is_published(&open).await;
    is_published(&listed).await;

    // When the platform takes that back, then nothing of it is left.
    policies.delete("platform", &Default::default()).await.unwrap();
    eventually("everything is as it was", async || (cells() == [200, 200, 200, 200, 200, 200, 200, 403]).then_some(())).await;
}
