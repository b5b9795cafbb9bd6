//! The cluster as the stories use it. Helpers are named by what a customer, an administrator or billing does.

use std::{collections::BTreeMap, future::Future, time::Duration};

use helpdesk_operator::{
    api::{ColdBackup, Condition, DomainClaim, HelpDeskAccount, HelpDeskAccountStatus, SHARD_LABEL},
    lifecycle::Stage,
};
use k8s_openapi::api::{core::v1::Secret, events::v1::Event};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::wait::{Condition as WaitCondition, await_condition},
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// Longer than any step takes on a machine with two cores that runs all stories at once.
const PATIENCE: Duration = Duration::from_secs(240);

/// The namespace of the operator.
pub const OPERATOR: &str = "helpdesk-operator";

static PREPARED: OnceCell<()> = OnceCell::const_new();

/// A setting of the environment.
pub fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the stories by `make test`"))
}

/// A connection to the cluster.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
}

impl Cluster {
    /// Connects, and applies the plan, the server and the stores that stories share.
    pub async fn connect() -> Self {
        let kubeconfig = Kubeconfig::read_from(setting("HELPDESK_TEST_KUBECONFIG")).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let cluster = Self { client: Client::try_from(config).unwrap() };
        PREPARED.get_or_init(|| cluster.prepare()).await;
        cluster
    }

    async fn prepare(&self) {
        self.administrator_applies(json!({"kind": "BackupStore", "metadata": {"name": "eu-escrow"}, "spec": {
            "region": "eu-1", "endpoint": "https://s3-eu-1.storage.svc", "bucket": "helpdesk-escrow", "prefix": "stories/",
            "credentialsSecret": "s3-eu-1-escrow", "caSecret": "s3-ca", "expectedBucketOwner": "100000000001"}}))
            .await;
        self.administrator_applies(json!({"kind": "BackupStore", "metadata": {"name": "eu-cold"}, "spec": {
            "region": "eu-1", "endpoint": "https://s3-eu-1.storage.svc", "bucket": "helpdesk-cold", "prefix": "stories/",
            "credentialsSecret": "s3-eu-1", "eraseCredentialsSecret": "s3-eu-1-erase", "caSecret": "s3-ca",
            "expectedBucketOwner": "100000000001",
            "keyEscrow": {"store": "eu-escrow", "recoveryRecipient": "age1tlk3wdrp5w3m5slgkmqexjys4tna4zha3ds5f55075r3g6xwlygsvjrl8s"}}}))
            .await;
        self.administrator_applies(json!({"kind": "DatabaseServer", "metadata": {"name": "pg-eu-1"}, "spec": {
            "engine": "postgresql", "region": "eu-1", "host": "pg-eu-1.databases.svc", "adminSecret": "pg-eu-1-admin",
            "tls": {"mode": "verify-full", "caSecret": "pg-ca"}, "capacity": 1000, "movers": 4,
            "brake": {"percent": 100, "atLeast": 10000}}}))
            .await;
        self.administrator_applies_plan(
            "seconds",
            json!({"trial": "1h", "paymentGrace": "3s", "blocked": "1h", "terminated": "1h", "coldBackup": "1h"}),
        )
        .await;
    }

    /// Applies a manifest of the operator's group, as `kubectl apply --server-side` does.
    pub async fn administrator_applies(&self, manifest: Value) -> Value {
        self.administrator_tries_to_apply(manifest).await.unwrap()
    }

    /// Applies a manifest; the answer may be a refusal.
    pub async fn administrator_tries_to_apply(&self, mut manifest: Value) -> Result<Value, kube::Error> {
        let kind = manifest["kind"].as_str().unwrap().to_owned();
        let name = manifest["metadata"]["name"].as_str().unwrap().to_owned();
        manifest["apiVersion"] = json!("helpdesk-operator.io/v1alpha1");
        let applied = self.api_of(&kind).patch(&name, &PatchParams::apply("stories").force(), &Patch::Apply(manifest)).await?;
        Ok(serde_json::to_value(applied).unwrap())
    }

    /// The objects of one of the operator's kinds.
    pub fn api_of(&self, kind: &str) -> Api<DynamicObject> {
        let plural = if kind.ends_with('s') { format!("{}es", kind.to_lowercase()) } else { format!("{}s", kind.to_lowercase()) };
        let resource = ApiResource {
            group: "helpdesk-operator.io".into(),
            version: "v1alpha1".into(),
            api_version: "helpdesk-operator.io/v1alpha1".into(),
            kind: kind.into(),
            plural,
        };
        Api::all_with(self.client.clone(), &resource)
    }

    /// Applies a plan with these windows; the others have lengths that no story lives to see.
    pub async fn administrator_applies_plan(&self, name: &str, windows: Value) {
        self.administrator_applies_plan_with(name, windows, json!({})).await;
    }

    /// Applies a plan with these windows, and these fields besides.
    pub async fn administrator_applies_plan_with(&self, name: &str, windows: Value, fields: Value) {
        let mut lifecycle = json!({"trial": "1h", "paymentGrace": "1h", "blocked": "1h", "terminated": "1h", "coldBackup": "1h",
            "eraseDelay": "1h", "nameQuarantine": "1h", "holdNotice": "3s"});
        for (key, value) in windows.as_object().unwrap() {
            lifecycle[key] = value.clone();
        }
        let mut spec = json!({
            "lifecycle": lifecycle,
            "backups": {"schedule": "0 0 1 1 *", "keep": "1h", "verify": "Restore"},
            "database": {"connectionLimit": 10},
            "placements": [{"region": "eu-1", "store": "eu-cold", "domainBase": "helpdesk.example"}]});
        for (key, value) in fields.as_object().unwrap() {
            spec[key] = value.clone();
        }
        self.administrator_applies(json!({"kind": "HelpDeskPlan", "metadata": {"name": name}, "spec": spec})).await;
    }

    /// A customer signs up: an account under this plan is applied.
    pub async fn customer_signs_up(&self, name: &str, plan: &str) -> Account {
        let account = Account { cluster: self.clone(), name: name.to_owned(), plan: plan.to_owned(), region: "eu-1".to_owned() };
        account.administrator_applies(json!({})).await;
        account
    }

    pub fn accounts(&self) -> Api<HelpDeskAccount> {
        Api::all(self.client.clone())
    }

    pub fn claims(&self) -> Api<DomainClaim> {
        Api::all(self.client.clone())
    }

    pub fn backups(&self) -> Api<ColdBackup> {
        Api::all(self.client.clone())
    }

    /// The status of an account is lost, as in a restored cluster. This needs the operator's own rights.
    pub async fn status_is_wiped(&self, name: &str) {
        let accounts: Api<HelpDeskAccount> = Api::all(Self::as_operator().await);
        let mut account = accounts.get(name).await.unwrap();
        // Billing's part cannot be removed, not even by the operator: the schema keeps it.
        account.status = account.status.map(|s| HelpDeskAccountStatus { billing: s.billing, ..HelpDeskAccountStatus::default() });
        accounts.replace_status(name, &Default::default(), &account).await.unwrap();
    }

    /// The object of an account is lost, without a confirmation and in any stage. No policy lets anybody do that, so this
    /// uses the operator's own rights. No operator may run meanwhile.
    pub async fn account_object_is_lost(&self, name: &str) {
        let accounts: Api<HelpDeskAccount> = Api::all(Self::as_operator().await);
        let expired = json!({"status": {"stage": "Expired"}});
        accounts.patch_status(name, &PatchParams::default(), &Patch::Merge(expired)).await.unwrap();
        self.accounts().delete(name, &Default::default()).await.unwrap();
        accounts.patch(name, &PatchParams::default(), &Patch::Merge(json!({"metadata": {"finalizers": null}}))).await.unwrap();
        wait_until_deleted(self.accounts(), name).await;
    }

    /// A plan or a class that is in use is lost, around policy and finalizer.
    pub async fn is_lost_although_in_use<K>(&self, name: &str)
    where
        K: Clone + std::fmt::Debug + Send + Sync + serde::de::DeserializeOwned + kube::Resource<DynamicType = ()> + 'static,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let confirmed = json!({"metadata": {"annotations": {"helpdesk-operator.io/confirm-delete": name}}});
        api.patch(name, &PatchParams::default(), &Patch::Merge(confirmed)).await.unwrap();
        api.delete(name, &Default::default()).await.unwrap();
        if api.get_opt(name).await.unwrap().is_some() {
            Api::<K>::all(Self::as_operator().await)
                .patch(name, &PatchParams::default(), &Patch::Merge(json!({"metadata": {"finalizers": null}})))
                .await
                .unwrap();
        }
        wait_until_deleted(api, name).await;
    }

    /// The cluster with the operator's own rights.
    pub async fn as_operator() -> Client {
        let kubeconfig = Kubeconfig::read_from(setting("HELPDESK_TEST_KUBECONFIG")).unwrap();
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        config.auth_info.impersonate = Some(format!("system:serviceaccount:{OPERATOR}:helpdesk-operator"));
        Client::try_from(config).unwrap()
    }

    /// Writes the Secret of a database server with the credentials of another one, for this host.
    pub async fn administrator_writes_admin_secret(&self, name: &str, admin: &BTreeMap<String, String>, host: &str) {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), OPERATOR);
        let copy = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "stringData": {"username": admin["username"], "password": admin["password"], "host": host}});
        secrets.patch(name, &PatchParams::apply("stories").force(), &Patch::Apply(copy)).await.unwrap();
    }

    /// An administrator deletes a Secret of the operator's, and confirms that.
    pub async fn administrator_deletes_secret(&self, name: &str) {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), OPERATOR);
        let confirmed = json!({"metadata": {"annotations": {"helpdesk-operator.io/confirm-delete": name}}});
        secrets.patch(name, &PatchParams::default(), &Patch::Merge(confirmed)).await.unwrap();
        secrets.delete(name, &Default::default()).await.unwrap();
    }

    /// A Secret's values as text.
    pub async fn secret(&self, namespace: &str, name: &str) -> Option<BTreeMap<String, String>> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let secret = api.get_opt(name).await.unwrap()?;
        Some(secret.data.unwrap_or_default().into_iter().map(|(k, v)| (k, String::from_utf8(v.0).unwrap())).collect())
    }
}

/// One account of a story.
#[derive(Clone)]
pub struct Account {
    pub cluster: Cluster,
    pub name: String,
    pub plan: String,
    pub region: String,
}

impl Account {
    /// An administrator applies the account with these fields added to a plain spec.
    pub async fn administrator_applies(&self, fields: Value) {
        self.administrator_tries_to_apply(fields).await.unwrap();
    }

    /// An administrator applies the account. Admission may refuse it.
    pub async fn administrator_tries_to_apply(&self, fields: Value) -> Result<Value, kube::Error> {
        let mut spec = json!({"owner": {"name": "Ana", "email": format!("ana@{}.example", self.name)}, "plan": self.plan, "region": self.region,
            "domain": {"slug": self.name}});
        for (key, value) in fields.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let labels = if self.region == "eu-1" { json!({}) } else { json!({SHARD_LABEL: self.region}) };
        self.cluster
            .administrator_tries_to_apply(
                json!({"kind": "HelpDeskAccount", "metadata": {"name": self.name, "labels": labels}, "spec": spec}),
            )
            .await
    }

    /// The owner cancels: the account is closed, and its data is kept for the plan's windows.
    pub async fn owner_cancels(&self) {
        self.administrator_applies(json!({"closure": {"mode": "Cancel"}})).await;
    }

    /// The owner wants everything erased, without a cold backup.
    pub async fn owner_erases_without_cold_backup(&self) {
        self.administrator_applies(json!({"closure": {"mode": "Erase", "coldBackup": false}})).await;
    }

    /// Billing reports that the account is paid for.
    pub async fn billing_reports_active(&self) {
        self.billing_reports("Active").await;
    }

    /// Billing reports that a payment failed.
    pub async fn billing_reports_past_due(&self) {
        self.billing_reports("PastDue").await;
    }

    /// Billing reports that the period that was paid for has ended.
    pub async fn billing_reports_canceled(&self) {
        self.billing_reports("Canceled").await;
    }

    /// Billing writes a state with the next sequence number.
    async fn billing_reports(&self, state: &str) {
        let now = helpdesk_operator::clock::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let before = self.get().await.status.and_then(|s| s.billing);
        let sequence = before.map_or(1, |b| b.sequence + 1);
        let mut billing = json!({"state": state, "since": now, "sequence": sequence, "delinquentSince": null});
        if matches!(state, "PastDue" | "Unpaid") {
            billing["delinquentSince"] = json!(now);
        }
        if state == "Canceled" {
            billing["periodEnd"] = json!(now);
        }
        self.cluster
            .accounts()
            .patch_status(&self.name, &PatchParams::default(), &Patch::Merge(json!({"status": {"billing": billing}})))
            .await
            .unwrap();
    }

    /// Billing writes these fields, as a merge patch: what it leaves out stays as it is.
    pub async fn billing_writes(&self, fields: Value) {
        let patch = json!({"status": {"billing": fields}});
        self.cluster.accounts().patch_status(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Waits until an event of this reason is about the account, and returns what it says.
    pub async fn wait_for_event(&self, reason: &str) -> String {
        let events: Api<Event> = Api::namespaced(self.cluster.client.clone(), "default");
        let about =
            |e: &Event| e.regarding.as_ref().and_then(|r| r.name.as_ref()) == Some(&self.name) && e.reason.as_deref() == Some(reason);
        eventually(&format!("{}: an event {reason}", self.name), || async {
            events.list(&Default::default()).await.unwrap().items.into_iter().find(|e| about(e)).and_then(|e| e.note)
        })
        .await
    }

    /// An administrator annotates the account.
    pub async fn administrator_annotates(&self, key: &str, value: &str) {
        let patch = json!({"metadata": {"annotations": {key: value}}});
        self.cluster.accounts().patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub async fn get(&self) -> HelpDeskAccount {
        self.cluster.accounts().get(&self.name).await.unwrap()
    }

    /// Waits until the test is true of the account.
    pub async fn wait_until(&self, what: &str, test: impl Fn(&HelpDeskAccount) -> bool) -> HelpDeskAccount {
        let condition = |account: Option<&HelpDeskAccount>| account.is_some_and(&test);
        let waiting = await_condition(self.cluster.accounts(), &self.name, condition);
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(found) => found.unwrap().unwrap(),
            Err(_) => {
                let status = self.cluster.accounts().get_opt(&self.name).await.unwrap().map(|a| a.status);
                panic!("{}: {what} did not come to be; status: {}", self.name, serde_json::to_string_pretty(&status).unwrap())
            }
        }
    }

    /// Waits until the account is in a stage, enforced.
    pub async fn reaches(&self, stage: Stage) -> HelpDeskAccount {
        self.wait_until(stage.name(), |a| a.status.as_ref().is_some_and(|s| s.stage == Some(stage) && s.stage_since.is_some())).await
    }

    /// Waits until the account is in an open stage and Ready, and returns the tenant with the credentials of its Secret.
    pub async fn receives_credentials_in(&self, stage: Stage) -> super::tenant::Tenant {
        self.reaches(stage).await;
        let account = self.wait_until("Ready", |a| has_condition(a, "Ready", "True")).await;
        let namespace = account.status.unwrap().namespace.unwrap().name;
        super::tenant::Tenant::of(&self.cluster.secret(&namespace, "database").await.expect("no credentials"))
    }

    /// The account's backups.
    pub async fn backups(&self) -> Vec<ColdBackup> {
        let params = ListParams::default().labels(&format!("helpdesk-operator.io/account={}", self.name));
        self.cluster.backups().list(&params).await.unwrap().items
    }

    /// The statuses of its backups are lost, as in a restored cluster. This needs the operator's own rights.
    pub async fn backup_statuses_are_wiped(&self) {
        let backups: Api<ColdBackup> = Api::all(Cluster::as_operator().await);
        for backup in self.backups().await {
            let name = backup.name_any();
            backups.replace_status(&name, &Default::default(), &ColdBackup { status: None, ..backup }).await.unwrap();
        }
    }

    /// Waits until the test is true of one of the account's backups.
    pub async fn wait_for_backup(&self, what: &str, test: impl Fn(&ColdBackup) -> bool) -> ColdBackup {
        eventually(&format!("{}: {what}", self.name), || async { self.backups().await.into_iter().find(|b| test(b)) }).await
    }
}

/// Whether a condition has this status.
pub fn has_condition(account: &HelpDeskAccount, kind: &str, status: &str) -> bool {
    find_condition(account, kind).is_some_and(|c| c.status == status)
}

/// A condition of an account.
pub fn find_condition<'a>(account: &'a HelpDeskAccount, kind: &str) -> Option<&'a Condition> {
    account.status.as_ref()?.conditions.iter().find(|c| c.type_ == kind)
}

/// Tries again and again until there is an answer. For facts that no watch reports.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let search = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, search).await.unwrap_or_else(|_| panic!("{what} did not come to be"))
}

/// Waits until an object is gone.
pub async fn wait_until_deleted<K>(api: Api<K>, name: &str)
where
    K: Clone + std::fmt::Debug + Send + Sync + serde::de::DeserializeOwned + kube::Resource + 'static,
{
    fn absent<K>() -> impl WaitCondition<K> {
        |object: Option<&K>| object.is_none()
    }
    let waiting = await_condition(api, name, absent());
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{name} did not go")).unwrap();
}
