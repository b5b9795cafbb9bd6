//! PostgreSQL servers that stories make for themselves, because one server belongs to one `DatabaseServer`.

use std::sync::atomic::{AtomicU8, Ordering};

use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::Service};
use kube::{Api, api::PostParams};
use serde_json::json;

use super::{
    cluster::{Cluster, OPERATOR, eventually, setting},
    operator::administrator_scales,
    tenant::STARTED,
};

/// The namespace of servers.
const DATABASES: &str = "databases";
/// The server after whose example the others are made.
const EXAMPLE: &str = "pg-eu-1";

/// The last bytes of the addresses for which `tests/cluster/infra.sh` made folders and a certificate.
static NEXT: AtomicU8 = AtomicU8::new(101);
const LAST: u8 = 180;

/// A server of a story's own. It has the roles and passwords of `pg-eu-1`.
#[derive(Clone, Debug)]
pub struct Postgres {
    name: String,
    /// Its address, from this machine and from pods.
    pub host: String,
}

impl Postgres {
    /// Starts a server, and waits until it answers.
    pub async fn start(cluster: &Cluster) -> Self {
        let services: Api<Service> = Api::namespaced(cluster.client.clone(), DATABASES);
        let (number, host) = loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            assert!(number <= LAST, "no address is left for another server");
            let host = format!("{}.{number}", setting("HELPDESK_TEST_STORY_NETWORK"));
            let name = format!("story-{number}");
            let service = json!({"metadata": {"name": name},
                "spec": {"clusterIP": host, "selector": {"app": name}, "ports": [{"name": "postgresql", "port": 5432}]}});
            match services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await {
                Ok(_) => break (number, host),
                // The API server gave the address to another Service, or an earlier run had it.
                Err(kube::Error::Api(status)) if [409, 422].contains(&status.code) => {}
                Err(error) => panic!("{error}"),
            }
        };
        let name = format!("story-{number}");
        let sets: Api<StatefulSet> = Api::namespaced(cluster.client.clone(), DATABASES);
        let mut set = serde_json::to_value(sets.get(EXAMPLE).await.unwrap()).unwrap();
        for field in ["metadata", "status"] {
            set.as_object_mut().unwrap().remove(field);
        }
        set["metadata"] = json!({"name": name});
        set["spec"]["serviceName"] = json!(name);
        set["spec"]["selector"]["matchLabels"]["app"] = json!(name);
        set["spec"]["template"]["metadata"]["labels"]["app"] = json!(name);
        for volume in set["spec"]["template"]["spec"]["volumes"].as_array_mut().unwrap() {
            match volume["name"].as_str().unwrap() {
                "data" => volume["hostPath"]["path"] = json!(volume["hostPath"]["path"].as_str().unwrap().replace(EXAMPLE, &name)),
                "tls" => volume["secret"]["secretName"] = json!("stories"),
                _ => {}
            }
        }
        // Two dozen of them would leave no processor to request for the pods of movers.
        set["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({});
        sets.create(&PostParams::default(), &serde_json::from_value(set).unwrap()).await.unwrap();
        eventually(&format!("{name} answers"), || async {
            let status = sets.get(&name).await.unwrap().status.unwrap_or_default();
            (status.ready_replicas == Some(1)).then_some(())
        })
        .await;
        STARTED.lock().unwrap().push(host.clone());
        Self { name, host }
    }

    /// The server stops; its data stays.
    pub async fn stops(&self, cluster: &Cluster) {
        STARTED.lock().unwrap().retain(|host| *host != self.host);
        administrator_scales(cluster, DATABASES, &self.name, 0).await;
    }

    /// The server starts again.
    pub async fn starts_again(&self, cluster: &Cluster) {
        administrator_scales(cluster, DATABASES, &self.name, 1).await;
        STARTED.lock().unwrap().push(self.host.clone());
    }

    /// Writes the Secret with which an operator logs in to it at this address.
    pub async fn administrator_writes_secret(&self, cluster: &Cluster, name: &str, host: &str) {
        let admin = cluster.secret(OPERATOR, &format!("{EXAMPLE}-admin")).await.unwrap();
        cluster.administrator_writes_admin_secret(name, &admin, host).await;
    }
}
