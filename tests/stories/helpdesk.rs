//! `kubectl helpdesk`, as a person runs it.

use helpdesk_operator::{api::stage::Stage, lifecycle::Reason};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::{Value, json};
use tokio::process::Command;

use super::{
    cluster::{OPERATOR, eventually, setting},
    operator::{Servers, Shard},
};

/// What a command printed, and its exit code.
struct Answer {
    code: i32,
    out: String,
    err: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }
}

/// A person runs `kubectl helpdesk` with these arguments.
async fn person_runs(args: &[&str]) -> Answer {
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
    let status = person_runs(&["status", "cli-why"]).await;
    assert!(status.code == 0 && status.out.contains("Blocked (TrialEnded)"), "{}", status.out);

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
