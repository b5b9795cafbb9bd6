//! From the manifest to the first page of a Request Tracker, beside the same objects and statements by hand.

use std::{collections::BTreeMap, time::Duration};

use helpdesk_operator::api::HelpDeskAccount;
use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::Deployment,
        batch::v1::Job,
        core::v1::{Namespace, Secret, Service, ServiceAccount},
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    cluster::{Cluster, eventually, has_condition},
    deadlines::server,
    number, plain,
    report::{Table, percentile, tell, time},
    seen,
};

/// The page of the app that needs no login.
const PAGE: &str = "/NoAuth/Login.html";
/// How often the page is requested until it answers.
const LOOK: Duration = Duration::from_millis(100);

pub async fn run() {
    let rounds = number("BENCH_PAGES", 3);
    let cluster = Cluster::connect().await;
    server(&cluster).await;
    cluster.administrator_applies(serde_yaml_ng::from_str(include_str!("../../examples/request-tracker.yaml")).unwrap()).await;
    cluster.administrator_applies_plan_with("bench", json!({"trial": "30d"}), json!({"class": "request-tracker"})).await;
    let (password, verifier) = plain::password().await;

    let (mut pages, mut ready, mut by_hand) = (vec![], vec![], vec![]);
    // The first round has the operator and the server make what they make once, and is not counted.
    for round in 0..=rounds {
        tell(&format!("round {round}: by the operator"));
        let name = format!("page-{round}");
        let begun = seen::now();
        let account = cluster.customer_signs_up(&name, "bench").await;
        let found = account.wait_until("its namespace", |a| a.status.as_ref().is_some_and(|s| s.namespace.is_some())).await;
        let namespace = namespace(&found);
        page_answers(&cluster.client, &namespace).await;
        let page = seen::now() - begun;
        account.wait_until("AppReady", |a| has_condition(a, "AppReady", "True")).await;
        let all = seen::now() - begun;
        tell(&format!("round {round}: by hand"));
        let template = Objects::of(&cluster.client, &namespace).await;
        let begun = seen::now();
        template.made_by_hand(&cluster.client, &format!("hand{round}"), &password, &verifier).await;
        let hand = seen::now() - begun;
        if round > 0 {
            pages.push(page);
            ready.push(all);
            by_hand.push(hand);
        }
    }
    let mut table = Table::new(format!("page: one Request Tracker at a time, {rounds} times"));
    let hand = percentile(&by_hand, 0.5);
    table.compared("from apply to the first page, median", percentile(&pages, 0.5), "psql and the same objects by hand, median", hand);
    table.figure("from apply to AppReady, median", time(percentile(&ready, 0.5)));
    table.spread("from apply to the first page", &pages);
    table.spread("by hand", &by_hand);
    table.print();
}

fn namespace(account: &HelpDeskAccount) -> String {
    account.status.as_ref().unwrap().namespace.as_ref().unwrap().name.clone()
}

/// Waits until the app's Service answers with the page.
async fn page_answers(client: &Client, namespace: &str) {
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let address = async || services.get_opt("web").await.unwrap()?.spec?.cluster_ip;
    let address = eventually("the app's Service", address).await;
    loop {
        let url = format!("http://{address}:8080{PAGE}");
        let mut curl = tokio::process::Command::new("curl");
        let asked = curl.args(["--silent", "--fail", "--max-time", "5", "--output", "/dev/null", &url]).kill_on_drop(true);
        if asked.status().await.unwrap().success() {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What the operator made of the app.
struct Objects {
    secrets: Vec<Secret>,
    jobs: Vec<Job>,
    deployment: Deployment,
    service: Service,
}

impl Objects {
    async fn of(client: &Client, namespace: &str) -> Self {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
        let services: Api<Service> = Api::namespaced(client.clone(), namespace);
        let mut jobs = jobs.list(&ListParams::default()).await.unwrap().items;
        jobs.retain(|job| job.name_any().starts_with("app-bootstrap-") || job.name_any() == "app-invalidate-sessions");
        jobs.sort_by_key(|job| job.creation_timestamp().unwrap().0);
        Self {
            secrets: vec![
                secrets.get("app-env").await.unwrap(),
                secrets.get("app-files").await.unwrap(),
                secrets.get("database").await.unwrap(),
            ],
            jobs,
            deployment: deployments.get("web").await.unwrap(),
            service: services.get("web").await.unwrap(),
        }
    }

    /// Makes a database with psql and the app's objects in a namespace of their own, and waits for the page.
    async fn made_by_hand(&self, client: &Client, name: &str, password: &str, verifier: &str) {
        plain::tenants(name, 1, verifier).await;
        let (database, user) = (format!("{name}_1"), format!("{name}_1_a"));
        let own = json!({"metadata": {"name": name}});
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &serde_json::from_value(own).unwrap()).await.unwrap();
        create(client, name, &serde_json::from_value::<ServiceAccount>(json!({"metadata": {"name": "app"}})).unwrap()).await;
        for secret in &self.secrets {
            let mut data: BTreeMap<String, ByteString> = secret.data.clone().unwrap_or_default();
            for (key, value) in [("PGDATABASE", &database), ("PGUSER", &user), ("database", &database), ("username", &user)] {
                data.entry(key.to_owned()).and_modify(|found| *found = ByteString(value.clone().into_bytes()));
            }
            for key in ["PGPASSWORD", "password"] {
                data.entry(key.to_owned()).and_modify(|found| *found = ByteString(password.as_bytes().to_vec()));
            }
            create(client, name, &Secret { data: Some(data), ..anew(secret) }).await;
        }
        let jobs: Api<Job> = Api::namespaced(client.clone(), name);
        for job in &self.jobs {
            let mut made = anew(job);
            let spec = made.spec.as_mut().unwrap();
            spec.selector = None;
            spec.template.metadata.as_mut().unwrap().labels = None;
            create(client, name, &Job { status: None, ..made }).await;
            let is_done = async || jobs.get(&job.name_any()).await.unwrap().status.and_then(|s| s.succeeded).filter(|pods| *pods > 0);
            eventually("a hook", is_done).await;
        }
        create(client, name, &Deployment { status: None, ..anew(&self.deployment) }).await;
        let mut service = anew(&self.service);
        let spec = service.spec.as_mut().unwrap();
        (spec.cluster_ip, spec.cluster_ips) = (None, None);
        create(client, name, &Service { status: None, ..service }).await;
        page_answers(client, name).await;
    }
}

/// The object with nothing of its metadata but the name.
fn anew<K: Resource + Clone>(found: &K) -> K {
    let mut object = found.clone();
    let name = object.meta().name.clone();
    *object.meta_mut() = kube::api::ObjectMeta { name, ..Default::default() };
    object
}

async fn create<K>(client: &Client, namespace: &str, object: &K)
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope> + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    Api::<K>::namespaced(client.clone(), namespace).create(&PostParams::default(), object).await.unwrap();
}
