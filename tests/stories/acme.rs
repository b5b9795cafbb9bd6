//! Certificates of custom names from a real ACME server, with cert-manager's part played by a program of the tests.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use helpdesk_operator::edge::objects::Kind;
use kube::{
    Api, ResourceExt,
    api::{DynamicObject, Patch, PatchParams},
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};

use super::{
    authority::Authority,
    certificates::{certificate_shown_at, shown_certificate},
    cluster::{Cluster, eventually, setting},
    operator::{Servers, Shard},
    web::{
        Dns, administrator_applies_class, administrator_applies_plan_in, challenge, client_addresses, domain_message, is_published,
        tenant_runs_app,
    },
};

const ZONE: &str = "acme-names.example";
const HOST: &str = "help.acme-names.example";

/// pebble, which resolves names in the zone of the story.
struct Pebble {
    process: Child,
    directory: String,
    authority: PathBuf,
}

impl Pebble {
    fn start(dns: &str) -> Self {
        let authority = Authority::new("acme-server");
        authority.issues("localhost", "20260101000000Z", "20990101000000Z");
        let file = |name: &str| authority.folder.join(name).to_str().unwrap().to_owned();
        let [port, management] = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port());
        let settings = json!({"pebble": {"listenAddress": format!("127.0.0.1:{port}"), "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": file("localhost.crt"), "privateKey": file("localhost.key"), "httpPort": 80, "tlsPort": 443,
            "retryAfter": {"authz": 1, "order": 1}, "profiles": {"default": {"description": "90 days", "validityPeriod": 7_776_000}}}});
        fs::write(file("settings"), settings.to_string()).unwrap();
        let process = Command::new(setting("HELPDESK_TEST_PEBBLE"))
            .args(["-config", &file("settings"), "-dnsserver", dns])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, directory: format!("https://localhost:{port}/dir"), authority: authority.folder.join("ca.crt") }
    }

    /// cert-manager looks at a Certificate.
    async fn issues(&self, namespace: &str, certificate: &str) {
        let [machine, _] = client_addresses();
        let mut command = Command::new(setting("HELPDESK_TEST_PYTHON"));
        command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/acme/cert_manager.py"))
            .args([
                &self.directory,
                self.authority.to_str().unwrap(),
                &setting("HELPDESK_TEST_EDGE_ADDRESS"),
                &machine,
                namespace,
                certificate,
            ])
            .env("PATH", format!("{}:{}", setting("HELPDESK_TEST_BIN"), std::env::var("PATH").unwrap()))
            .env("KUBECONFIG", setting("HELPDESK_TEST_KUBECONFIG"));
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn applies(cluster: &Cluster, group: &str, kind: &str, name: &str, body: Value) {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
    let mut object = json!({"apiVersion": resource.api_version, "kind": kind, "metadata": {"name": name}});
    for (key, value) in body.as_object().unwrap() {
        object[key] = value.clone();
    }
    let api: Api<DynamicObject> = Api::all_with(cluster.client.clone(), &resource);
    api.patch(name, &PatchParams::apply("stories").force(), &Patch::Apply(object)).await.unwrap();
}

fn serial() -> Option<String> {
    certificate_shown_at(HOST, "Serial Number:")
}

#[tokio::test]
async fn a_custom_name_gets_its_certificate_by_a_challenge_through_its_own_route_and_is_renewed_without_a_gap() {
    // Given an ACME server, a zone whose owner lets the name lead here, cert-manager's rights, and two issuers.
    let mut dns = Dns::start(ZONE);
    let pebble = Pebble::start(&dns.address);
    let shard = Shard::new("acme-names", Servers::First).await;
    let cluster = &shard.cluster;
    let rights = json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "cert-manager", "namespace": "cert-manager"}]});
    applies(cluster, "rbac.authorization.k8s.io", "ClusterRoleBinding", "stories-cert-manager", rights).await;
    let acme = |solver: Value| json!({"spec": {"acme": {"server": "https://localhost/dir", "privateKeySecretRef": {"name": "account"}, "solvers": [solver]}}});
    let parent =
        json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "edge", "name": "edge", "sectionName": "http"});
    let by_http = acme(json!({"http01": {"gatewayHTTPRoute": {"parentRefs": [parent]}}}));
    let by_dns = acme(json!({"dns01": {"route53": {"region": "eu-central-1"}}}));
    applies(cluster, "cert-manager.io", "ClusterIssuer", "stories-http", by_http).await;
    applies(cluster, "cert-manager.io", "ClusterIssuer", "stories-dns", by_dns).await;
    administrator_applies_class(cluster).await;
    let plan = async |issuer: &str| {
        let placement = json!([{"region": "acme-names", "store": "acme-names-cold", "domainBase": "helpdesk.example",
            "gateway": {"name": "edge", "namespace": "edge"}, "certificateIssuer": {"name": issuer}}]);
        administrator_applies_plan_in(cluster, "acme-names", "acme-names", "acme-names-cold", json!({"placements": placement})).await;
    };
    plan("stories-dns").await;
    let _operator = shard.start_operator("only", &[("HELPDESK_OPERATOR_RESOLVER", &dns.address)]);
    let account = shard.customer_signs_up("acme-names").await;
    account.administrator_applies(json!({"domain": {"slug": "acme-names", "custom": [HOST]}})).await;
    tenant_runs_app(&account).await;
    let asked = account.wait_until("a challenge", |a| challenge(a, HOST).is_some()).await;
    let (record, value) = challenge(&asked, HOST).unwrap();
    let gateway = setting("HELPDESK_TEST_EDGE_ADDRESS");
    dns.zone_has(ZONE, &[format!("{record}. 1 IN TXT \"{value}\""), format!("help 1 IN A {gateway}")]);
    account.administrator_annotates("example.com/look", "now").await;

    // Then an issuer that could answer in the customer's zone only is told.
    let says = |part: &'static str| move |a: &_| domain_message(a, HOST).is_some_and(|message| message.contains(part));
    account.wait_until("DNS is refused", says("answers challenges by DNS only")).await;

    // When the plan has one that answers by HTTP, then the Certificate is as cert-manager's definition asks.
    plan("stories-http").await;
    account.wait_until("it is being issued", says("its certificate is being issued")).await;
    let namespace = account.get().await.status.unwrap().namespace.unwrap().name;
    let certificates: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), &namespace, &Kind::Certificate.resource());
    let certificate = eventually("the Certificate", async || certificates.list(&Default::default()).await.unwrap().items.pop()).await;
    assert_eq!(certificate.data["spec"]["dnsNames"], json!([HOST]));
    assert_eq!(shown_certificate(HOST), None, "a name without a certificate is served");

    // When cert-manager answers the challenge through a route beside the app's, then the name is served under the new one.
    pebble.issues(&namespace, &certificate.name_any()).await;
    let first = eventually("the name is served", async || serial()).await;
    is_published(&account).await;
    let shown = account.get().await.status.unwrap().domains.into_iter().find(|domain| domain.host == HOST).unwrap();
    assert!(shown.certificate_expires_at.is_some() && shown.message.is_none(), "{shown:?}");

    // When it is renewed, then every request meanwhile is answered.
    let name = certificate.name_any();
    let renewal = pebble.issues(&namespace, &name);
    let looks = async {
        for request in 1.. {
            let shown = tokio::task::spawn_blocking(serial).await.unwrap().unwrap_or_else(|| panic!("request {request} was not answered"));
            if shown != first {
                break;
            }
        }
    };
    tokio::join!(renewal, looks);
    is_published(&account).await;
}
