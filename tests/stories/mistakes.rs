//! Typical mistakes of the first day: where each shows, with which words, and after which time.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use kube::{
    Api,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, ValidationDirective},
};
use serde_json::{Value, json};

use super::{
    cluster::{OPERATOR, eventually, setting},
    operator::{Servers, Shard},
};

const SHARD: &str = "mistakes";

/// Longer than the operator takes to tell any of them.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a mistake shows.
enum Shows {
    /// Whoever applies the manifest is told this.
    AtApply(&'static str),
    /// A condition of the object, its reason, and a part of its message.
    In(&'static str, &'static str, &'static str),
}
use Shows::{AtApply, In};

/// What was meant, the kind, what of its good manifest is different, and where that shows.
type Mistake = (&'static str, &'static str, Value, Shows);

/// The good manifest of each kind.
fn good(kind: &str) -> Value {
    let endpoint = setting("HELPDESK_TEST_S3_EU_1_ENDPOINT");
    let owner = setting("HELPDESK_TEST_S3_EU_1_ACCESS_KEY_ID");
    let spec = match kind {
        "HelpDeskAccount" => json!({"owner": {"name": "Ana", "email": "ana@acme.example"}, "plan": SHARD, "region": SHARD,
            "domain": {"slug": "mistake"}}),
        "HelpDeskPlan" => json!({"placements": [{"region": SHARD, "store": format!("{SHARD}-cold"), "domainBase": "helpdesk.example"}]}),
        "DatabaseServer" => json!({"engine": "postgresql", "region": SHARD, "host": setting("HELPDESK_TEST_PG_EU_2_HOST"),
            "adminSecret": "mistakes-copy", "tls": {"mode": "verify-full", "caSecret": "pg-ca"}, "capacity": 10}),
        "BackupStore" => json!({"region": SHARD, "signingRegion": "eu-1", "endpoint": endpoint, "bucket": "helpdesk-cold",
            "prefix": "mistake/", "credentialsSecret": "s3-eu-1", "eraseCredentialsSecret": "s3-eu-1-erase", "caSecret": "s3-ca",
            "expectedBucketOwner": owner}),
        "HelpDeskClass" => json!({"app": {"name": "Echo", "version": "1"}, "components": [{"name": "web", "port": 8080}],
            "routes": [{"path": "/", "component": "web", "audience": "agent"}]}),
        "ColdBackup" => {
            json!({"account": SHARD, "accountUID": "7d1f0b52-52f5-4b1e-9a57-0c6f3f5b7a19", "store": format!("{SHARD}-cold"), "expiresAt": "2099-01-01T00:00:00Z", "reason": "Manual"})
        }
        other => panic!("{other}"),
    };
    json!({"apiVersion": "helpdesk-operator.io/v1alpha1", "kind": kind, "spec": spec,
        "metadata": {"name": "mistake", "labels": {"helpdesk-operator.io/shard": SHARD}}})
}

fn mistakes() -> Vec<Mistake> {
    let mut all = of_accounts();
    all.extend(of_plans_and_classes());
    all.extend(of_servers());
    all.extend(of_stores_and_backups());
    all
}

fn of_accounts() -> Vec<Mistake> {
    const KIND: &str = "HelpDeskAccount";
    vec![
        ("a name with capitals", KIND, json!({"metadata": {"name": "Acme"}}), AtApply("lowercase RFC 1123")),
        ("a name that is too long", KIND, json!({"metadata": {"name": "a".repeat(41)}}), AtApply("at most 40 characters")),
        ("no owner", KIND, json!({"spec": {"owner": null}}), AtApply("spec.owner: Required value")),
        ("an owner without an address", KIND, json!({"spec": {"owner": {"email": null}}}), AtApply("owner")),
        ("an address that is none", KIND, json!({"spec": {"owner": {"email": "ana"}}}), AtApply("spec.owner.email")),
        ("a field that does not exist", KIND, json!({"spec": {"domains": ["x"]}}), AtApply(".spec.domains: field not declared in schema")),
        ("a slug with a dot", KIND, json!({"spec": {"domain": {"slug": "acme.eu"}}}), AtApply("spec.domain.slug")),
        (
            "a custom name with https://",
            KIND,
            json!({"spec": {"domain": {"custom": ["https://help.acme.example"]}}}),
            AtApply("spec.domain.custom"),
        ),
        (
            "an address range that is none",
            KIND,
            json!({"spec": {"security": {"agentAllow": ["10.0.0.300/24"]}}}),
            AtApply("spec.security.agentAllow"),
        ),
        ("an old version of TLS", KIND, json!({"spec": {"security": {"minTls": "1.0"}}}), AtApply("supported values: \"1.2\", \"1.3\"")),
        ("an accountID that is no UUID", KIND, json!({"spec": {"accountID": "acme"}}), AtApply("random UUID")),
        ("a stage written by hand", KIND, json!({"spec": {"stage": "Active"}}), AtApply(".spec.stage: field not declared in schema")),
        (
            "a plan that does not exist",
            KIND,
            json!({"spec": {"plan": "standart"}}),
            In("Stalled", "NoPlacement", "there is no HelpDeskPlan standart"),
        ),
        ("a region that the plan does not have", KIND, json!({"spec": {"region": "eu-7"}}), In("Stalled", "NoPlacement", "eu-7")),
        (
            "an owner's Secret that does not exist",
            KIND,
            json!({"spec": {"owner": {"name": null, "email": null, "secretRef": {"namespace": "accounts", "name": "ana"}}}}),
            In("Stalled", "OwnerUnknown", "accounts/ana"),
        ),
        (
            "an owner's Secret in another namespace",
            KIND,
            json!({"spec": {"owner": {"name": null, "email": null, "secretRef": {"namespace": "default", "name": "ana"}}}}),
            In("Stalled", "OwnerUnknown", "owners.namespaces"),
        ),
    ]
}

fn of_plans_and_classes() -> Vec<Mistake> {
    const KIND: &str = "HelpDeskPlan";
    const CLASS: &str = "HelpDeskClass";
    let placement = |fields: Value| {
        let mut placement = good(KIND)["spec"]["placements"][0].clone();
        placement.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({"spec": {"placements": [placement]}})
    };
    vec![
        ("a window in words", KIND, json!({"spec": {"lifecycle": {"blocked": "60 days"}}}), AtApply("spec.lifecycle.blocked")),
        ("a window without a unit", KIND, json!({"spec": {"lifecycle": {"blocked": 60}}}), AtApply("spec.lifecycle.blocked")),
        ("a schedule with six fields", KIND, json!({"spec": {"backups": {"schedule": "0 0 2 * * *"}}}), AtApply("spec.backups.schedule")),
        ("a day that never comes", KIND, json!({"spec": {"backups": {"schedule": "0 2 31 2 *"}}}), In("Ready", "ScheduleInvalid", "31")),
        ("no placement", KIND, json!({"spec": {"placements": []}}), AtApply("spec.placements")),
        (
            "a region twice",
            KIND,
            json!({"spec": {"placements": [good(KIND)["spec"]["placements"][0], good(KIND)["spec"]["placements"][0]]}}),
            AtApply("one entry a region"),
        ),
        ("a class that does not exist", KIND, json!({"spec": {"class": "request-traker"}}), In("Ready", "NoClass", "request-traker")),
        ("a store that does not exist", KIND, placement(json!({"store": "eu-cool"})), In("Ready", "NoStore", "eu-cool")),
        (
            "a region without a server",
            KIND,
            placement(json!({"region": "eu-7"})),
            In("Ready", "StoreElsewhere", "no DatabaseServer is in this region"),
        ),
        (
            "a Gateway that does not exist",
            KIND,
            placement(json!({"gateway": {"name": "egde", "namespace": "edge"}})),
            In("Ready", "GatewayUnusable", "egde"),
        ),
        (
            "a size without a unit that is known",
            KIND,
            json!({"spec": {"database": {"maxBytes": "5 GB"}}}),
            AtApply("spec.database.maxBytes"),
        ),
        (
            "a route to a component that is not there",
            CLASS,
            json!({"spec": {"routes": [{"path": "/", "component": "wep", "audience": "agent"}]}}),
            AtApply("every component must be listed"),
        ),
        (
            "no route for /",
            CLASS,
            json!({"spec": {"routes": [{"path": "/x", "component": "web", "audience": "agent"}]}}),
            AtApply("exactly one route has the path /"),
        ),
        (
            "an audience that does not exist",
            CLASS,
            json!({"spec": {"routes": [{"path": "/", "component": "web", "audience": "agents"}]}}),
            AtApply("\"public\", \"api\", \"agent\""),
        ),
    ]
}

fn of_servers() -> Vec<Mistake> {
    const KIND: &str = "DatabaseServer";
    vec![
        ("another engine", KIND, json!({"spec": {"engine": "postgres"}}), AtApply("supported values: \"postgresql\"")),
        ("a URL instead of a host", KIND, json!({"spec": {"host": "postgres://pg.example:5432"}}), AtApply("spec.host")),
        ("no room", KIND, json!({"spec": {"capacity": -1}}), AtApply("spec.capacity")),
        (
            "a Secret that does not exist",
            KIND,
            json!({"spec": {"adminSecret": "pg-eu-1-admim"}}),
            In("Ready", "SecretMissing", "pg-eu-1-admim"),
        ),
        ("a Secret for another host", KIND, json!({"spec": {"host": "127.0.0.9"}}), In("Ready", "HostMismatch", "127.0.0.9")),
        (
            "a Secret with another password",
            KIND,
            json!({"spec": {"adminSecret": "mistakes-password"}}),
            In("Ready", "AuthenticationFailed", "check username and password"),
        ),
        ("an authority that does not exist", KIND, json!({"spec": {"tls": {"caSecret": "pg-cq"}}}), In("Ready", "SecretMissing", "pg-cq")),
        ("another authority", KIND, json!({"spec": {"tls": {"caSecret": "mistakes-ca"}}}), In("Ready", "Unreachable", "certificate")),
        ("another port", KIND, json!({"spec": {"port": 5433}}), In("Ready", "Unreachable", "5433")),
    ]
}

fn of_stores_and_backups() -> Vec<Mistake> {
    const KIND: &str = "BackupStore";
    const BACKUP: &str = "ColdBackup";
    vec![
        ("http instead of https", KIND, json!({"spec": {"endpoint": "http://s3.example"}}), AtApply("spec.endpoint")),
        ("a bucket that does not exist", KIND, json!({"spec": {"bucket": "helpdesk-clod"}}), In("Ready", "NoSuchBucket", "helpdesk-clod")),
        (
            "a Secret of a store that does not exist",
            KIND,
            json!({"spec": {"credentialsSecret": "s3-eu-l"}}),
            In("Ready", "Configuration", "s3-eu-l"),
        ),
        (
            "another's credentials",
            KIND,
            json!({"spec": {"credentialsSecret": "s3-eu-2"}}),
            In("Ready", "AccessDenied", "check the credentials"),
        ),
        ("another's bucket", KIND, json!({"spec": {"expectedBucketOwner": "999999999999"}}), In("Ready", "AccessDenied", "")),
        (
            "a bucket without versions",
            KIND,
            json!({"spec": {"bucket": "helpdesk-plain"}}),
            In("Ready", "NotVersioned", "put-bucket-versioning"),
        ),
        (
            "the place of another store",
            KIND,
            json!({"spec": {"prefix": format!("{SHARD}/")}}),
            In("Ready", "ForeignBucket", "already used by the BackupStore"),
        ),
        (
            "a store for the keys that does not exist",
            KIND,
            json!({"spec": {"keyEscrow": {"store": "eu-escorw",
                "recoveryRecipient": "age1tlk3wdrp5w3m5slgkmqexjys4tna4zha3ds5f55075r3g6xwlygsvjrl8s"}}}),
            In("Ready", "NoEscrow", "eu-escorw"),
        ),
        (
            "a secret key instead of the recipient",
            KIND,
            json!({"spec": {"keyEscrow": {"store": "eu-escrow", "recoveryRecipient": "AGE-SECRET-KEY-1XXX"}}}),
            AtApply("recoveryRecipient"),
        ),
        ("a backup that ends in the past", BACKUP, json!({"spec": {"expiresAt": "2020-01-01T00:00:00Z"}}), AtApply("expiresAt")),
    ]
}

/// A merge patch (RFC 7396).
fn merge(into: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            into.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut into[name], value);
        }
    }
}

/// The condition of an object: its reason and message.
fn condition(object: &DynamicObject, kind: &str) -> Option<(String, String)> {
    let all = object.data["status"]["conditions"].as_array()?;
    let found = all.iter().find(|c| c["type"] == kind && (kind != "Ready" || c["status"] != "True"))?;
    Some((found["reason"].as_str()?.to_owned(), found["message"].as_str()?.to_owned()))
}

#[tokio::test]
async fn typical_mistakes_of_the_first_day_are_told_at_once_and_say_what_to_do() {
    // Given a region with all that an account needs, and Secrets with another password and another authority.
    let shard = Shard::new(SHARD, Servers::First).await;
    let cluster = &shard.cluster;
    shard.administrator_applies_plan(json!({})).await;
    let admin = cluster.secret(OPERATOR, "pg-eu-2-admin").await.unwrap();
    let host = setting("HELPDESK_TEST_PG_EU_2_HOST");
    cluster.administrator_writes_admin_secret("mistakes-copy", &admin, &host).await;
    let mut wrong = admin.clone();
    wrong.insert("password".into(), "not this".into());
    cluster.administrator_writes_admin_secret("mistakes-password", &wrong, &host).await;
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(cluster.client.clone(), OPERATOR);
    let other_ca =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mistakes-ca"}, "stringData": {"ca.crt": OTHER_AUTHORITY}});
    secrets.patch("mistakes-ca", &PatchParams::apply("stories").force(), &Patch::Apply(other_ca)).await.unwrap();
    let _operator = shard.start_operator("only", &[]);

    // When each mistake is made, one after the other, then it shows where the table says, with these words.
    let mut table = String::from("| mistake | shows | after | with the words |\n|---|---|---|---|\n");
    let mut untold = Vec::new();
    let all = mistakes();
    assert!(all.len() >= 45, "there are {}", all.len());
    for (number, (mistake, kind, patch, shows)) in all.into_iter().enumerate() {
        let mut manifest = good(kind);
        manifest["metadata"]["name"] = json!(format!("mistake-{number}"));
        manifest["spec"]["domain"]["slug"] = json!(format!("mistake-{number}"));
        if kind != "HelpDeskAccount" {
            manifest["spec"].as_object_mut().unwrap().remove("domain");
        }
        if kind == "BackupStore" {
            // A place of its own: the first store that is connected takes it into use.
            manifest["spec"]["prefix"] = json!(format!("mistake-{number}/"));
        }
        merge(&mut manifest, &patch);
        let name = manifest["metadata"]["name"].as_str().unwrap().to_owned();
        let api = cluster.api_of(kind);
        let params = PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::apply("stories") };
        let begun = Instant::now();
        let applied = api.patch(&name, &params, &Patch::Apply(&manifest)).await;
        let (place, words, is_told) = match (&shows, applied) {
            (AtApply(fragment), Err(kube::Error::Api(refusal))) => {
                ("at apply".to_owned(), refusal.message.clone(), refusal.message.contains(fragment))
            }
            (In(condition_type, reason, fragment), Ok(_)) => {
                let look = eventually(mistake, || async {
                    condition(&api.get(&name).await.unwrap(), condition_type).filter(|(found, _)| found == reason)
                });
                let found = tokio::time::timeout(PATIENCE, look).await.map(|(_, message)| message);
                let shown = || async { format!("{:?}", condition(&api.get(&name).await.unwrap(), condition_type)) };
                let is_told = found.as_ref().is_ok_and(|message| message.contains(fragment));
                let message = match found {
                    Ok(message) => message,
                    Err(_) => shown().await,
                };
                (format!("`{condition_type}`, `{reason}`"), message, is_told)
            }
            (_, other) => (String::new(), format!("{other:?}"), false),
        };
        if !is_told {
            untold.push(format!("{mistake}: {words}"));
        }
        let words: String = words.chars().take(160).collect();
        let _ = writeln!(
            table,
            "| {mistake} | {place} | {:.1} s | {} |",
            begun.elapsed().as_secs_f64(),
            words.replace('|', "\\|").replace('\n', " ")
        );
        if matches!(shows, In(..)) {
            let confirmed = json!({"metadata": {"annotations": {"helpdesk-operator.io/confirm-delete": name}}});
            api.patch(&name, &PatchParams::default(), &Patch::Merge(confirmed)).await.unwrap();
            let _ = api.delete(&name, &DeleteParams::default()).await;
            super::cluster::wait_until_deleted(api.clone(), &name).await;
        }
    }
    std::fs::write(concat!(env!("CARGO_TARGET_TMPDIR"), "/mistakes.md"), &table).unwrap();
    println!("{table}");
    assert!(untold.is_empty(), "{untold:#?}");
}

/// A certificate of an authority that has signed nothing here (self-signed, made for this story; its key was thrown away).
const OTHER_AUTHORITY: &str = include_str!("mistakes/other-authority.crt");
