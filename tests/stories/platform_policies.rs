//! The platform's own Gateway and policies beside those of tenants.

use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::json;

use super::{
    authority::Authority,
    client_address::{administrator_makes_gateway, objects_of},
    cluster::{Cluster, eventually, find_condition, setting},
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

#[tokio::test]
async fn what_needs_a_listener_of_its_own_is_withheld_while_the_gateway_takes_none() {
    // Given a Gateway that takes no listeners of tenants.
    let cluster = Cluster::connect().await;
    administrator_applies_class(&cluster).await;
    let network = setting("HELPDESK_TEST_EDGE_ADDRESS").rsplit_once('.').unwrap().0.to_owned();
    administrator_makes_gateway(&cluster, "closed", &[format!("{network}.82")], false).await;
    let placement = json!([{"region": "eu-1", "store": "eu-cold", "domainBase": "helpdesk.example",
        "gateway": {"name": "closed", "namespace": "edge"}}]);
    let oidc =
        json!({"issuer": "https://login.example", "clientID": "desk", "clientSecret": "none", "jwksURI": "https://login.example/jwks"});
    administrator_applies_plan(&cluster, "platform-closed", json!({"placements": placement, "security": {"oidc": oidc}})).await;

    // When accounts ask for what the shared listener cannot keep for one of them, then none is published, and each names the
    // field and what the Gateway lacks.
    let authority = Authority::new("platform-closed");
    let asked = [
        ("platform-tls", json!({"minTls": "1.3"}), "minTls"),
        ("platform-ca", json!({"agentClientCA": authority.read("ca.crt")}), "agentClientCA"),
        ("platform-totp", json!({"requireTotp": true}), "requireTotp"),
    ];
    let mut accounts = vec![];
    for (name, security, field) in asked {
        let account = cluster.customer_signs_up(name, "platform-closed").await;
        account.administrator_applies(json!({"security": security})).await;
        let says =
            |part: &str, a: &_| find_condition(a, "EdgeReady").is_some_and(|c| c.reason == "PolicyUnkeepable" && c.message.contains(part));
        account.wait_until("withheld", |a| says(field, a) && says("set spec.allowedListeners", a)).await;
        let namespace = account.get().await.status.unwrap().namespace.unwrap().name;
        let routes = Api::<DynamicObject>::namespaced_with(
            cluster.client.clone(),
            &namespace,
            &helpdesk_operator::edge::objects::Kind::HttpRoute.resource(),
        );
        assert!(routes.list(&Default::default()).await.unwrap().items.is_empty(), "{name} is published");
        accounts.push(account);
    }

    // When the Gateway takes them, then the accounts are withheld no more for that.
    administrator_makes_gateway(&cluster, "closed", &[format!("{network}.82")], true).await;
    for account in &accounts {
        account
            .wait_until("no longer withheld for that", |a| {
                find_condition(a, "EdgeReady").is_some_and(|c| !c.message.contains("allowedListeners"))
            })
            .await;
    }
    objects_of(&cluster, "gateway.networking.k8s.io/v1", "Gateway").delete("closed", &Default::default()).await.unwrap();
}
