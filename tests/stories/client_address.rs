//! An allow list is about the address that a client has, whatever stands between it and the gateway.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use k8s_openapi::api::core::v1::Service;
use kube::{
    Api,
    api::{DynamicObject, ListParams, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

use super::{
    cluster::{Cluster, eventually, setting},
    web::{administrator_applies_class, administrator_applies_plan, client_addresses, is_published, tenant_runs_app},
};

fn list(name: &str) -> Vec<String> {
    setting(name).split(',').filter(|one| !one.is_empty()).map(str::to_owned).collect()
}

pub fn objects_of(cluster: &Cluster, group: &str, kind: &str) -> Api<DynamicObject> {
    let (group, version) = group.split_once('/').unwrap();
    Api::namespaced_with(cluster.client.clone(), "edge", &ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind)))
}

/// A Gateway as the one of the other stories, at addresses of its own. `own_listeners`: whether it takes ListenerSets.
pub async fn administrator_makes_gateway(cluster: &Cluster, name: &str, addresses: &[String], own_listeners: bool) {
    let gateways = objects_of(cluster, "gateway.networking.k8s.io/v1", "Gateway");
    let mut spec = gateways.get("edge").await.unwrap().data["spec"].clone();
    if !own_listeners {
        spec["allowedListeners"] = json!({"namespaces": {"from": "None"}});
    }
    let gateway = json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": name}, "spec": spec});
    gateways.patch(name, &PatchParams::apply("stories").force(), &Patch::Apply(gateway)).await.unwrap();
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), "envoy-gateway-system");
    let of_gateway = ListParams::default().labels(&format!("gateway.envoyproxy.io/owning-gateway-name={name}"));
    let service = eventually("its Service", async || services.list(&of_gateway).await.unwrap().items.pop()).await.metadata.name.unwrap();
    let ingress: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    let status = json!({"status": {"loadBalancer": {"ingress": ingress}}});
    services.patch_status(&service, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    eventually("the Gateway is programmed", async || {
        let conditions = gateways.get(name).await.unwrap().data["status"]["conditions"].clone();
        conditions.as_array()?.iter().any(|c| c["type"] == "Programmed" && c["status"] == "True").then_some(())
    })
    .await;
}

async fn administrator_says_whom_the_gateway_believes(cluster: &Cluster, fields: Value) {
    let mut spec = json!({"targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "proxied"}],
        "tls": {"alpnProtocols": ["h2", "http/1.1"]}});
    for (key, value) in fields.as_object().unwrap() {
        spec[key] = value.clone();
    }
    let policy = json!({"apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "ClientTrafficPolicy", "metadata": {"name": "proxied"}, "spec": spec});
    let policies = objects_of(cluster, "gateway.envoyproxy.io/v1alpha1", "ClientTrafficPolicy");
    policies.patch("proxied", &PatchParams::apply("stories").force(), &Patch::Apply(policy)).await.unwrap();
}

/// A real proxy on this machine: one port hands connections on with the PROXY protocol, version 2, and one hands requests on
/// with X-Forwarded-For. Two more have one socket for both families, and so see clients of IPv4 with mapped addresses.
struct Proxy(Child);

impl Proxy {
    const WITH_HEADER: u16 = 18443;
    const WITH_FORWARDED_FOR: u16 = 18444;
    const MAPPED_WITH_HEADER: u16 = 18445;
    const MAPPED_WITH_FORWARDED_FOR: u16 = 18446;

    fn start(gateway: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("client-address");
        fs::create_dir_all(&folder).unwrap();
        let certificate = setting("HELPDESK_TEST_EDGE_CERTIFICATE");
        let key = fs::read_to_string(certificate.replace(".crt", ".key")).unwrap();
        fs::write(folder.join("pem"), fs::read_to_string(&certificate).unwrap() + &key).unwrap();
        let settings = format!(
            "defaults\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
             listen with-header\n mode tcp\n bind 0.0.0.0:{}\n bind :::{} v6only\n bind :::{} v4v6\n \
             server gateway {gateway}:443 send-proxy-v2\n\
             listen with-forwarded-for\n mode http\n option forwardfor\n \
             bind 0.0.0.0:{} ssl crt {pem}\n bind :::{} v6only ssl crt {pem}\n bind :::{} v4v6 ssl crt {pem}\n \
             server gateway {gateway}:443 ssl verify none sni req.hdr(host)\n",
            Self::WITH_HEADER,
            Self::WITH_HEADER,
            Self::MAPPED_WITH_HEADER,
            Self::WITH_FORWARDED_FOR,
            Self::WITH_FORWARDED_FOR,
            Self::MAPPED_WITH_FORWARDED_FOR,
            pem = folder.join("pem").display(),
        );
        fs::write(folder.join("settings"), settings).unwrap();
        Self(Command::new("haproxy").arg("-db").arg("-f").arg(folder.join("settings")).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The status that an agent at this address gets of `to`; 0: no connection, or one that broke off.
fn status(account: &str, from: &str, to: &str, more: &[&str]) -> u16 {
    let output = Command::new("curl")
        .args(["--silent", "--max-time", "10", "--output", "/dev/null", "--write-out", "%{http_code}", "--interface", from])
        .args(["--cacert", &setting("HELPDESK_TEST_CA"), "--connect-to", &format!("::{to}")])
        .args(more)
        .arg(format!("https://{account}.helpdesk.example/queue"))
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).parse().unwrap()
}

#[tokio::test]
async fn an_allow_list_is_about_the_clients_own_address_behind_every_kind_of_proxy() {
    // Given a Gateway of its own, a proxy before it, and two accounts with a list: one on the shared listener, and one with TLS
    // 1.3 on its own. A client of each family is listed, and one is not.
    let cluster = Cluster::connect().await;
    administrator_applies_class(&cluster).await;
    let addresses = list("HELPDESK_TEST_EDGE_SPARE_ADDRESSES");
    administrator_makes_gateway(&cluster, "proxied", &addresses, true).await;
    let placement = json!([{"region": "eu-1", "store": "eu-cold", "domainBase": "helpdesk.example",
        "gateway": {"name": "proxied", "namespace": "edge"}}]);
    administrator_applies_plan(&cluster, "proxied", json!({"placements": placement})).await;
    let (clients4, clients6) = (list("HELPDESK_TEST_EDGE_CLIENTS"), list("HELPDESK_TEST_EDGE_CLIENTS6"));
    let [machine, _] = client_addresses();
    let families = [clients4, clients6].into_iter().filter(|clients| !clients.is_empty());
    let clients: Vec<[String; 2]> = families.map(|clients| [clients[0].clone(), clients[1].clone()]).collect();
    let listed: Vec<_> =
        clients.iter().map(|[listed, _]| if listed.contains(':') { format!("{listed}/128") } else { format!("{listed}/32") }).collect();
    let _proxy = Proxy::start(&addresses[0]);
    // To the proxy, by the family of the client: this machine's own address, or the client's.
    let by_proxy = |client: &str, port: u16| if client.contains(':') { format!("[{client}]:{port}") } else { format!("{machine}:{port}") };
    let straight = |client: &str| {
        let gateway = addresses.iter().find(|address| address.contains(':') == client.contains(':')).unwrap();
        if gateway.contains(':') { format!("[{gateway}]:443") } else { format!("{gateway}:443") }
    };
    let mut accounts = vec![];
    for (name, security) in [("proxied-shared", json!({})), ("proxied-own", json!({"minTls": "1.3"}))] {
        let account = cluster.customer_signs_up(name, "proxied").await;
        let mut security = security;
        security["agentAllow"] = json!(listed);
        account.administrator_applies(json!({"security": security})).await;
        tenant_runs_app(&account).await;
        accounts.push((name, account));
    }
    let is_in_force = async |port: u16| {
        for (name, account) in &accounts {
            let client = &clients[0][0];
            eventually("a listed client is let in", async || (status(name, client, &by_proxy(client, port), &[]) == 200).then_some(()))
                .await;
            is_published(account).await;
        }
    };

    // When nothing is said of proxies, then clients that come straight are told apart, and nobody is believed what they say.
    for (name, account) in &accounts {
        is_published(account).await;
        for [listed, other] in &clients {
            let forged = format!("X-Forwarded-For: {listed}");
            eventually("a listed client is let in", async || (status(name, listed, &straight(listed), &[]) == 200).then_some(())).await;
            assert_eq!(status(name, other, &straight(other), &[]), 403, "{name}: {other}");
            assert_eq!(status(name, other, &straight(other), &["--header", &forged]), 403, "{name}: {other}, forged");
        }
    }

    // When the Gateway believes the proxy's X-Forwarded-For, then its clients are told apart by their own addresses, and neither
    // they nor whoever comes straight can claim another one.
    for detection in [json!({"trustedCIDRs": [format!("{machine}/32")]}), json!({"numTrustedHops": 1})] {
        administrator_says_whom_the_gateway_believes(&cluster, json!({"clientIPDetection": {"xForwardedFor": detection}})).await;
        let port = Proxy::WITH_FORWARDED_FOR;
        is_in_force(port).await;
        for (name, _) in &accounts {
            for [listed, other] in &clients {
                let forged = format!("X-Forwarded-For: {listed}");
                assert_eq!(status(name, listed, &by_proxy(listed, port), &[]), 200, "{name}: {listed}, {detection}");
                assert_eq!(status(name, other, &by_proxy(other, port), &[]), 403, "{name}: {other}, {detection}");
                assert_eq!(
                    status(name, other, &by_proxy(other, port), &["--header", &forged]),
                    403,
                    "{name}: {other}, forged, {detection}"
                );
                // Whoever is told with a mapped address is not let in, listed or not: the gateway has no range for it.
                assert_eq!(status(name, other, &by_proxy(other, Proxy::MAPPED_WITH_FORWARDED_FOR), &[]), 403, "{name}: {other}, mapped");
                if detection["trustedCIDRs"].is_array() {
                    assert_eq!(status(name, other, &straight(other), &["--header", &forged]), 403, "{name}: {other}, no proxy, forged");
                    assert_eq!(status(name, listed, &straight(listed), &[]), 200, "{name}: {listed}, no proxy");
                }
            }
        }
    }

    // When the Gateway reads the PROXY protocol, then the same, who comes without it gets nothing, and the operator still sees
    // the addresses.
    administrator_says_whom_the_gateway_believes(&cluster, json!({"proxyProtocol": {}})).await;
    let port = Proxy::WITH_HEADER;
    is_in_force(port).await;
    for (name, account) in &accounts {
        for [listed, other] in &clients {
            let forged = format!("X-Forwarded-For: {listed}");
            assert_eq!(status(name, listed, &by_proxy(listed, port), &[]), 200, "{name}: {listed}, PROXY protocol");
            assert_eq!(status(name, other, &by_proxy(other, port), &[]), 403, "{name}: {other}, PROXY protocol");
            assert_eq!(status(name, other, &by_proxy(other, port), &["--header", &forged]), 403, "{name}: {other}, forged");
            assert_eq!(status(name, other, &by_proxy(other, Proxy::MAPPED_WITH_HEADER), &[]), 403, "{name}: {other}, mapped");
            assert_eq!(status(name, listed, &straight(listed), &[]), 0, "{name}: {listed}, without the header");
        }
        let seen = account.get().await;
        let before = seen.metadata.generation;
        account.administrator_applies(json!({"displayName": format!("Desk of {name}")})).await;
        account.wait_until("looked at again", |a| a.status.as_ref().and_then(|s| s.observed_generation) > before).await;
        is_published(account).await;
    }
    objects_of(&cluster, "gateway.networking.k8s.io/v1", "Gateway").delete("proxied", &Default::default()).await.unwrap();
}
