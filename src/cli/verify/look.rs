//! Looks for evidence of a stage: in the cluster, at the server, at the gateway. The account's status is not read for it.

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use kube::{Api, Client, ResourceExt, api::ListParams, core::DynamicObject};

use super::judge::{Answer, Evidence, Login};
use crate::{
    api::{
        ACCOUNT_LABEL, ACCOUNT_UID, ColdBackup, DomainClaim, HelpDeskAccount, HelpDeskClass, HelpDeskPlan,
        database_server::TlsMode,
        plan::{GatewayRef, PlanPlacement},
    },
    app::workloads::has_workloads,
    backup::keys,
    cli::{
        connection::Connection,
        error::Error,
        seen::{Seen, exists, get, list},
    },
    clock::Moment,
    database::{
        Password, Tenant,
        postgres::{Address, attempt},
    },
    edge::{
        objects::Kind,
        probe::{self, Offer, ProbeError, Target},
    },
    error_chain::chain,
};

/// The Secret with the tenant's credentials.
const CREDENTIALS: &str = "database";
/// The port of HTTPS where the Gateway's listener cannot be read.
const HTTPS: u16 = 443;

/// What there is of an account, found by its name and uid.
pub(super) async fn evidence(connection: &Connection, account: &HelpDeskAccount, now: Moment) -> Result<Evidence, Error> {
    let client = &connection.client;
    let name = account.name_any();
    let (namespace_name, namespace) = namespace(client, account).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace_name);
    let backups: Api<ColdBackup> = Api::all(client.clone());
    let of_account = ListParams::default().labels(&format!("{ACCOUNT_LABEL}={name}"));
    let plans: Api<HelpDeskPlan> = Api::all(client.clone());
    let (pods, backups, plan, login) = tokio::join!(
        list(&pods, &of_account, "the tenant's pods"),
        list(&backups, &of_account, "the account's ColdBackups"),
        get(&plans, &account.spec.plan, "the plan"),
        login(client, &namespace_name),
    );
    let backups = backups.map(|all| all.into_iter().filter(|backup| backup.spec.account == name).collect::<Vec<_>>());
    let placement = plan.there().and_then(|plan| plan.spec.placements.iter().find(|p| p.region == account.spec.region).cloned());
    let (keys, runs_app, hosts) =
        tokio::join!(present_keys(connection, &backups), runs_app(client, &plan), hosts(client, account, placement),);
    let waives_backup = account.spec.closure.as_ref().is_some_and(|closure| !closure.keeps_backup());
    Ok(Evidence { now, namespace, pods, runs_app, login, backups, keys, waives_backup, hosts })
}

/// The tenant's namespace: by the uid of the account, or, if it took data over, by the label and the marker of another uid.
async fn namespace(client: &Client, account: &HelpDeskAccount) -> Result<(String, Seen<()>), Error> {
    let api: Api<Namespace> = Api::all(client.clone());
    let unfit = |why: String| Error::Unfit { what: "find what belongs to the account", why };
    let uid = account.uid().ok_or_else(|| unfit("it has no uid".into()))?;
    let own = Tenant::of(&uid).map_err(|error| unfit(error.to_string()))?.name.replacen("t_", "hd-", 1);
    let by_uid = exists(&api, &own, "the tenant's namespace").await;
    if !by_uid.is_missing() {
        return Ok((own, by_uid));
    }
    let labelled = ListParams::default().labels(&format!("{ACCOUNT_LABEL}={}", account.name_any()));
    let others = list(&api, &labelled, "namespaces of tenants").await;
    let taken_over = others.all().iter().find(|namespace| namespace.annotations().contains_key(ACCOUNT_UID));
    Ok(match taken_over {
        Some(namespace) => (namespace.name_any(), Seen::There(())),
        None => (own, others.map(drop).and_missing()),
    })
}

/// Tries the credentials in the tenant's namespace.
async fn login(client: &Client, namespace: &str) -> Login {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = match get(&api, CREDENTIALS, &format!("the Secret {CREDENTIALS} of the namespace {namespace}")).await {
        Seen::There(secret) => secret,
        Seen::Missing => return Login::NoSecret,
        Seen::Unseen(why) => return Login::Untried(why),
    };
    let data = secret.data.unwrap_or_default();
    let value = |key: &str| data.get(key).and_then(|value| String::from_utf8(value.0.clone()).ok());
    let (Some(host), Some(username), Some(password), Some(database)) =
        (value("host"), value("username"), value("password"), value("database"))
    else {
        return Login::Untried(format!("the Secret {CREDENTIALS} of the namespace {namespace} lacks a key"));
    };
    let mode = if value("sslmode").is_some_and(|mode| mode == TlsMode::VerifyCa.name()) { TlsMode::VerifyCa } else { TlsMode::VerifyFull };
    let port = value("port").and_then(|port| port.parse().ok()).unwrap_or(5432);
    let address = Address { host, port, tls: mode, ca_pem: value("ca.crt") };
    match attempt(&address, &username, &Password::from_text(password), &database).await {
        Ok(attempt) => Login::Tried(attempt),
        Err(error) => Login::Untried(format!("the server cannot be judged from here: {}", chain(&error))),
    }
}

/// The backups whose keys are there.
async fn present_keys(connection: &Connection, backups: &Seen<Vec<ColdBackup>>) -> Seen<Vec<String>> {
    let api: Api<Secret> = Api::namespaced(connection.client.clone(), &connection.operator_namespace);
    let looks = backups.all().iter().map(async |backup| {
        let name = backup.name_any();
        (exists(&api, &keys::key_secret(&name), "whether the keys of backups are there").await, name)
    });
    let mut present = Vec::new();
    for (seen, name) in join_all(looks).await {
        match seen {
            Seen::There(()) => present.push(name),
            Seen::Missing => {}
            Seen::Unseen(why) => return Seen::Unseen(why),
        }
    }
    Seen::There(present)
}

/// Whether the operator runs an app for accounts of the plan.
async fn runs_app(client: &Client, plan: &Seen<HelpDeskPlan>) -> Seen<bool> {
    let class = match plan {
        Seen::There(plan) => plan.spec.class.clone(),
        Seen::Missing => return Seen::Missing,
        Seen::Unseen(why) => return Seen::Unseen(why.clone()),
    };
    let Some(class) = class else { return Seen::There(false) };
    let api: Api<HelpDeskClass> = Api::all(client.clone());
    get(&api, &class, "the class").await.map(|class| has_workloads(&class.spec))
}

/// Asks every host name that is claimed for the account, at the address of the Gateway.
async fn hosts(client: &Client, account: &HelpDeskAccount, placement: Option<PlanPlacement>) -> Result<Vec<(String, Answer)>, String> {
    let wanted = placement.ok_or("the plan has no placement that could be read")?.gateway.ok_or("the plan names no Gateway")?;
    let (target, port) = gateway(client, &wanted).await?;
    let claims: Api<DomainClaim> = Api::all(client.clone());
    let of_account = ListParams::default().fields(&format!("spec.account={}", account.name_any()));
    let claims = match list(&claims, &of_account, "DomainClaims").await {
        Seen::There(claims) => claims,
        Seen::Missing => return Err("the kind DomainClaim is not installed".into()),
        Seen::Unseen(why) => return Err(why),
    };
    let hosts: Vec<String> = claims.iter().map(ResourceExt::name_any).collect();
    if hosts.is_empty() {
        return Err("no host name is claimed for the account".into());
    }
    let asked = hosts.into_iter().map(async |host| {
        let answer = match probe::https(&target, port, &host, "/", Offer::All).await {
            Ok(answer) => Answer::Status(answer.status),
            Err(ProbeError::Unreachable(why)) => Answer::Unreachable(format!("cannot be reached from here: {why}")),
            Err(error) => Answer::NoTls(error.to_string()),
        };
        (host, answer)
    });
    Ok(join_all(asked).await)
}

/// The addresses of the Gateway, and its port for HTTPS.
async fn gateway(client: &Client, wanted: &GatewayRef) -> Result<(Target, u16), String> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &wanted.namespace, &Kind::Gateway.resource());
    let gateway = match get(&api, &wanted.name, "the Gateway").await {
        Seen::There(gateway) => gateway.data,
        Seen::Missing => return Err(format!("the Gateway {}/{} does not exist", wanted.namespace, wanted.name)),
        Seen::Unseen(why) => return Err(why),
    };
    let listeners = gateway["spec"]["listeners"].as_array();
    let https = listeners.into_iter().flatten().find(|listener| listener["protocol"] == "HTTPS");
    let port = https.and_then(|listener| listener["port"].as_u64()).and_then(|port| u16::try_from(port).ok()).unwrap_or(HTTPS);
    let addresses = gateway["status"]["addresses"].as_array().into_iter().flatten().filter_map(|address| address["value"].as_str());
    let addresses: Vec<String> = addresses.map(str::to_owned).collect();
    if addresses.is_empty() {
        Err(format!("the Gateway {}/{} has no address", wanted.namespace, wanted.name))
    } else {
        Ok((Target { addresses, proxy_protocol: false }, port))
    }
}
