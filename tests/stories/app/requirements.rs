//! What an account asks of its app.

use kube::ResourceExt;
use serde_json::{Value, json};

use super::namespace;
use crate::cluster::{Cluster, eventually, find_condition, has_condition};

#[tokio::test]
async fn an_app_is_told_what_its_account_asks_for_and_the_account_says_what_the_app_cannot_do() {
    // Given a class that can ask for consent before a chat, and not keep programs to tokens.
    let cluster = Cluster::connect().await;
    let class = |capabilities: Value| {
        json!({"kind": "HelpDeskClass", "metadata": {"name": "app-asked"}, "spec": {
            "app": {"name": "echo", "version": "1"},
            "components": [{"name": "web", "port": 8080, "workload": {"image": "localhost/echo:1", "runAsUser": 65532, "cpu": "10m"}}],
            "routes": [{"path": "/", "component": "web", "audience": "public"}],
            "capabilities": capabilities,
            "env": [{"name": "CONSENT", "value": "${tenant.chatConsent}"}, {"name": "TOKENS", "value": "${security.requireApiTokens}"}],
            "upgrade": {"minReadySeconds": 0}}})
    };
    cluster.administrator_applies(class(json!({"chatConsent": "app"}))).await;
    let fields = json!({"class": "app-asked", "security": {"requireApiTokens": true}});
    cluster.administrator_applies_plan_with("app-asked", json!({}), fields).await;

    // When an account has a text for it, which asks for a password of its own accord.
    let account = cluster.customer_signs_up("app-asked", "app-asked").await;
    let text = "We keep this chat for a year. ${db.password} $(TOKENS)\n\"Agree?\"";
    account.administrator_applies(json!({"chatConsent": text})).await;

    // Then the app gets the text as it is.
    let running = account.wait_until("AppReady", |a| has_condition(a, "AppReady", "True")).await;
    let given = async || {
        let environment = cluster.secret(&namespace(&running), "app-env").await?;
        (environment["CONSENT"] == text && environment["TOKENS"] == "true").then_some(())
    };
    eventually("the text of the account", given).await;

    // Then the account names what nobody does, and nothing else of it waits.
    let told = account.wait_until("what is unmet", |a| has_condition(a, "RequirementsUnmet", "True")).await;
    let message = &find_condition(&told, "RequirementsUnmet").unwrap().message;
    assert!(message.contains("requireApiTokens") && !message.contains("chatConsent"), "{message}");
    assert!(has_condition(&told, "Ready", "True"), "{:?}", told.name_any());

    // When the class can do that too, then nothing is unmet.
    cluster.administrator_applies(class(json!({"chatConsent": "app", "apiTokens": "app"}))).await;
    account.wait_until("nothing to be unmet", |a| find_condition(a, "RequirementsUnmet").is_none()).await;
}
