//! `kubectl helpdesk`, as a person runs it.

use helpdesk_operator::{api::stage::Stage, clock, lifecycle::Reason};
use k8s_openapi::{api::core::v1::Secret, jiff::SignedDuration};
use kube::Api;
use serde_json::{Value, json};
use tokio::process::Command;

use super::{
    cluster::{Cluster, OPERATOR, eventually, has_condition, setting},
    operator::{Servers, Shard},
};

/// What a command printed, and its exit code.
pub struct Answer {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }
}

/// A person runs `kubectl helpdesk` with these arguments.
pub async fn person_runs(args: &[&str]) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-helpdesk"));
    let output = command.args(args).env("KUBECONFIG", setting("HELPDESK_TEST_KUBECONFIG")).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Answer { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

#[tokio::test]
async fn a_person_learns_what_was_what_comes_and_why_something_is_wrong() {
    // Given an account in its trial.
    let shard = Shard::new("cli-why", Servers::First).await;
    shard.administrator_applies_plan(json!({"trial": "6s"})).await;
    let operator = shard.start_operator("only", &[]);
    let account = shard.customer_signs_up("cli-why").await;
    account.reaches(Stage::Blocked).await;

    // Then its status has what it went through, and every stage that follows.
    let shown = account.wait_until("a Frozen backup", |a| a.status.as_ref().is_some_and(|s| s.last_backup.is_some())).await;
    let status = shown.status.unwrap();
    let past: Vec<_> = status.history.iter().map(|t| (t.stage, t.reason)).collect();
    assert_eq!(past, [(Stage::Trial, Reason::Created), (Stage::Blocked, Reason::TrialEnded)]);
    let future: Vec<_> = status.upcoming.iter().map(|t| t.stage).collect();
    assert_eq!(future, [Stage::Terminated, Stage::Deleted, Stage::Expired]);
    assert_eq!(status.next_transition_time.as_ref(), Some(&status.upcoming[0].at));
    assert_eq!(status.data_gone_by.as_ref(), Some(&status.upcoming[2].at));

    // And a person sees that nothing is wrong, and when what comes.
    let timeline = person_runs(&["timeline", "cli-why", "-o", "json"]).await;
    assert_eq!((timeline.code, &timeline.json()["future"][2]["stage"]), (0, &json!("Expired")), "{}", timeline.out);
    let why = person_runs(&["why", "cli-why"]).await;
    assert_eq!((why.code, why.out.as_str()), (0, "Nothing is wrong with cli-why.\n"), "{}", why.err);
    let told = person_runs(&["status", "cli-why"]).await;
    assert!(told.code == 0 && told.out.contains("Blocked (TrialEnded)"), "{}", told.out);

    // When a person edits its plan in a file, then they see which dates it would change, and nothing is changed.
    let mut plan = shard.cluster.api_of("HelpDeskPlan").get("cli-why").await.unwrap();
    plan.data["spec"]["lifecycle"]["blocked"] = json!("30m");
    plan.data["spec"]["clockPolicy"] = json!("Recompute");
    let file = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cli-why-plan.yaml");
    std::fs::write(&file, serde_json::to_string(&plan).unwrap()).unwrap();
    let edited = person_runs(&["plan", "-f", file.to_str().unwrap(), "-o", "json"]).await;
    let change = edited.json()["accounts"][0].clone();
    assert_eq!((edited.code, &change["account"], &change["changes"]), (0, &json!("cli-why"), &json!(true)), "{}{}", edited.out, edited.err);
    let terminated = |dates: &Value| dates[0]["at"].as_str().unwrap().parse::<clock::Moment>().unwrap();
    assert_eq!(terminated(&change["present"]).duration_since(terminated(&change["edited"])), SignedDuration::from_mins(30));
    assert_eq!(account.get().await.status.unwrap().next_transition_time, status.next_transition_time);

    // When somebody deletes the Secret of its server, then why names it, before the operator has noticed and after that.
    let secrets: Api<Secret> = Api::namespaced(shard.cluster.client.clone(), OPERATOR);
    secrets.delete("cli-why-admin", &Default::default()).await.unwrap();
    let first_cause = async || {
        let why = person_runs(&["why", "cli-why", "-o", "json"]).await;
        assert_eq!(why.code, 3, "{}{}", why.out, why.err);
        let chain = why.json()["causes"][0]["chain"].clone();
        let chain = chain.as_array().unwrap().clone();
        assert_eq!(chain.last().unwrap()["object"], json!({"kind": "Secret", "namespace": OPERATOR, "name": "cli-why-admin"}));
        chain
    };
    assert_eq!(first_cause().await[1]["object"]["kind"], "DatabaseServer");
    eventually("a server that says so", || async {
        let chain = first_cause().await;
        (chain[1]["reason"] == "SecretMissing").then_some(())
    })
    .await;

    // When the operator is gone, then why says that first, once the Lease has run out.
    operator.kill();
    eventually("the Lease as the first cause", || async {
        let why = person_runs(&["why", "cli-why", "-o", "json"]).await.json();
        let chain = why["causes"][0]["chain"].as_array().unwrap();
        let kinds: Vec<&Value> = chain.iter().map(|link| &link["object"]["kind"]).collect();
        (kinds == ["HelpDeskAccount", "Lease", "Deployment"]).then_some(())
    })
    .await;

    // And an account that does not exist is a failure, told in one line.
    let nobody = person_runs(&["why", "cli-nobody"]).await;
    assert_eq!((nobody.code, nobody.err.lines().count()), (1, 1), "{}", nobody.err);
}

#[tokio::test]
async fn a_person_takes_a_backup_holds_an_account_and_closes_it_and_nothing_is_done_unconfirmed() {
    // Given an account in its trial.
    let cluster = Cluster::connect().await;
    let account = cluster.customer_signs_up("cli-hands", "seconds").await;
    account.receives_credentials_in(Stage::Trial).await;

    // When a person asks for a backup and waits, then it is proven in the end.
    let backup = person_runs(&["backup", "cli-hands", "--keep", "2h", "--wait"]).await;
    assert!(backup.code == 0 && backup.out.ends_with("is proven.\n"), "{}{}", backup.out, backup.err);
    assert!(backup.err.contains("Running"), "no progress: {}", backup.err);

    // When a court wants everything kept, then it is held, and nobody overwrites why.
    let held = person_runs(&["hold", "cli-hands", "--reason", "case 7", "--by", "legal@example.com"]).await;
    assert_eq!(held.code, 0, "{}{}", held.out, held.err);
    account.wait_until("Held", |a| has_condition(a, "Held", "True")).await;
    let other = person_runs(&["hold", "cli-hands", "--reason", "case 8", "--by", "legal@example.com"]).await;
    assert!(other.code == 3 && other.out.contains("case 7, by legal@example.com"), "{}", other.out);

    // When nobody confirms, because there is no terminal, then nothing is done.
    for args in [&["release", "cli-hands"][..], &["close", "cli-hands", "--erase", "--no-cold-backup"]] {
        let refused = person_runs(args).await;
        assert!(refused.code == 2 && refused.err.contains("--yes"), "{}{}", refused.out, refused.err);
    }
    let spec = account.get().await.spec;
    assert!(spec.hold.is_some() && spec.closure.is_none());

    // When the hold is released and the account closed, each with a word, then it is said first what follows, and it comes.
    assert_eq!(person_runs(&["release", "cli-hands", "--yes"]).await.code, 0);
    account.wait_until("no hold", |a| !has_condition(a, "Held", "True")).await;
    let closed = person_runs(&["close", "cli-hands", "--cancel", "--requested-by", "ana@acme.example", "--yes"]).await;
    assert!(closed.code == 0 && closed.out.contains("Terminated   at once"), "{}{}", closed.out, closed.err);
    account.reaches(Stage::Terminated).await;
    let withdrawn = person_runs(&["close", "cli-hands", "--withdraw", "--yes"]).await;
    assert_eq!(withdrawn.code, 0, "{}{}", withdrawn.out, withdrawn.err);
    assert_eq!(account.get().await.spec.closure, None);

    // And the brake of its server does not hold; what does not exist is told in one line.
    let brake = person_runs(&["brake", "status", "pg-eu-1", "-o", "json"]).await;
    assert_eq!((brake.code, &brake.json()["holds"]), (0, &json!(false)));
    let nobody = person_runs(&["backup", "cli-nobody"]).await;
    assert_eq!((nobody.code, nobody.err.lines().count()), (1, 1), "{}", nobody.err);
    let orphans = person_runs(&["orphans", "-o", "json"]).await;
    assert!(orphans.json()["notSeen"].as_array().unwrap().is_empty(), "{}", orphans.out);
}

#[tokio::test]
async fn a_person_verifies_a_stage_from_outside_and_a_report_has_no_secret_and_no_person() {
    // Given an account in its trial, with a name for people, on a server that this machine reaches.
    let shard = Shard::new("cli-verify", Servers::First).await;
    shard.administrator_applies_plan(json!({"paymentGrace": "1s"})).await;
    let _operator = shard.start_operator("only", &[]);
    let account = shard.customer_signs_up("cli-verify").await;
    account.administrator_applies(json!({"displayName": "Planted Incorporated", "chatConsent": "Planted consent"})).await;
    let tenant = account.receives_credentials_in(Stage::Trial).await;
    let outcome = |answer: &Answer, what: &str| -> Value {
        let checks = answer.json()["checks"].as_array().unwrap().clone();
        checks.into_iter().find(|check| check["what"] == what).unwrap_or_else(|| panic!("no {what}: {}", answer.out))["outcome"].clone()
    };

    // Then its credentials are let in, which is right for a trial and wrong for anything closed.
    let open = person_runs(&["verify", "cli-verify", "-o", "json"]).await;
    assert_eq!((open.code, outcome(&open, "the tenant's login")), (0, json!("Holds")), "{}{}", open.out, open.err);
    let claimed = person_runs(&["verify", "cli-verify", "--stage", "Terminated", "-o", "json"]).await;
    assert_eq!(claimed.code, 3);
    assert_eq!([outcome(&claimed, "the tenant's login"), outcome(&claimed, "the tenant's namespace")], [json!("Fails"), json!("Fails")]);

    // When it is blocked, then the server refuses them; what cannot be checked from here is told, and counts with --strict.
    account.billing_reports_past_due().await;
    account.reaches(Stage::Blocked).await;
    account.wait_for_backup("a proven Frozen backup", |b| b.status.as_ref().is_some_and(|s| s.verified_at.is_some())).await;
    let shut = person_runs(&["verify", "cli-verify", "-o", "json"]).await;
    assert_eq!((shut.code, outcome(&shut, "the tenant's login")), (0, json!("Holds")), "{}{}", shut.out, shut.err);
    assert_eq!([outcome(&shut, "the keys of the backups"), outcome(&shut, "the addresses")], [json!("Holds"), json!("NotChecked")]);
    assert_eq!(person_runs(&["verify", "cli-verify", "--strict"]).await.code, 3);

    // When somebody who helps needs to see it, then the report has its stage and its backup, and nobody's name or secret.
    let folder = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-report-{}", std::process::id()));
    let path = folder.to_str().unwrap();
    let report = person_runs(&["report", "-f", path]).await;
    assert_eq!(report.code, 0, "{}{}", report.out, report.err);
    let spec = account.get().await.spec;
    let owner = spec.owner.email.clone().unwrap_or_else(|| "nobody@nowhere.example".into());
    let planted = ["Planted Incorporated", "Planted consent", &owner, &tenant.password, "PRIVATE KEY-----\nM", "AGE-SECRET-KEY-1"];
    let mut text = String::new();
    let mut open = vec![folder.clone()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                text.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }
    for planted in planted {
        assert!(!text.contains(planted), "{planted:?} is in the report");
    }
    for needed in ["cli-verify", "stage: Blocked", "reason: Frozen", "helpdesk_operator_accounts", "gitVersion"] {
        assert!(text.contains(needed), "{needed:?} is not in the report");
    }
    let again = person_runs(&["report", "-f", path]).await;
    assert_eq!(again.code, 2, "an existing report was overwritten: {}{}", again.out, again.err);
    std::fs::remove_dir_all(folder).unwrap();
}
