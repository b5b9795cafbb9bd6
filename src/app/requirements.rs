//! What an account or its plan asks of the app, and whether the app can do it. Pure.
//!
//! An app does what its class states as a capability. Where the operator runs the app, the app also has to be told: a
//! capability counts only if the class hands over the variable that switches it on.

use super::workloads::has_workloads;
use crate::api::{
    HelpDeskAccountSpec, HelpDeskClassSpec, PlanSecurity, SecondFactor,
    help_desk_class::ByApp,
    variables::{CHAT_CONSENT, REQUIRE_API_TOKENS, REQUIRE_TOTP},
};

/// What the account says about a second factor.
pub fn totp_of(account: &HelpDeskAccountSpec) -> Option<bool> {
    account.security.as_ref()?.require_totp
}

/// What is asked for and done by nobody, each with what to do about it. A second factor that the app does not ask for is
/// the gateway's, which withholds the routes if it cannot.
pub fn unmet(plan: &PlanSecurity, account: &HelpDeskAccountSpec, class: &HelpDeskClassSpec) -> Vec<String> {
    let can = &class.capabilities;
    let app = &class.app.name;
    let asked = [
        (account.chat_consent.is_some(), can.chat_consent == ByApp::App, "spec.chatConsent", "chatConsent", CHAT_CONSENT),
        (plan.require_api_tokens, can.api_tokens == ByApp::App, "requireApiTokens of the plan", "apiTokens", REQUIRE_API_TOKENS),
    ];
    let mut unmet: Vec<_> = asked
        .into_iter()
        .filter(|(is_asked, ..)| *is_asked)
        .filter_map(|(_, can, field, capability, variable)| match can {
            false => {
                Some(format!("{field}: the app {app} cannot do it (capabilities.{capability} of its class), and neither can the gateway"))
            }
            true => is_not_told(class, variable).then(|| not_told(field, app, variable)),
        })
        .collect();
    if plan.needs_second_factor(totp_of(account)) && can.totp == SecondFactor::App && is_not_told(class, REQUIRE_TOTP) {
        unmet.push(not_told("requireTotp", app, REQUIRE_TOTP));
    }
    unmet
}

fn not_told(field: &str, app: &str, variable: &str) -> String {
    format!("{field}: the app {app} is not told; hand ${{{variable}}} over in env or files of its class")
}

fn is_not_told(class: &HelpDeskClassSpec, variable: &str) -> bool {
    let variable = format!("${{{variable}}}");
    let mut texts = class.env.iter().map(|env| &env.value).chain(class.files.iter().map(|file| &file.content));
    has_workloads(class) && !texts.any(|text| text.contains(&variable))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn unmet_by(class: Value) -> Vec<String> {
        let mut whole = json!({
            "app": {"name": "echo", "version": "1"},
            "components": [{"name": "web", "port": 8080, "workload": {"image": "echo:1", "runAsUser": 33}}],
            "routes": [{"path": "/", "component": "web", "audience": "public"}],
        });
        whole.as_object_mut().unwrap().extend(class.as_object().unwrap().clone());
        let account = json!({"owner": {"name": "Ana", "email": "ana@acme.example"}, "plan": "standard", "region": "eu-1",
            "domain": {"slug": "acme"}, "chatConsent": "We keep this chat.", "security": {"requireTotp": true}});
        let plan = PlanSecurity { require_api_tokens: true, ..PlanSecurity::default() };
        unmet(&plan, &serde_json::from_value(account).unwrap(), &serde_json::from_value(whole).unwrap())
    }

    #[test]
    fn what_an_app_cannot_do_or_is_not_told_is_unmet() {
        let able = json!({"totp": "app", "chatConsent": "app", "apiTokens": "app"});
        let unable = unmet_by(json!({}));
        assert_eq!(unable.len(), 2, "{unable:?}");
        assert!(unable[0].starts_with("spec.chatConsent") && unable[1].starts_with("requireApiTokens"), "{unable:?}");
        let untold = unmet_by(json!({"capabilities": able}));
        assert!(untold.len() == 3 && untold.iter().all(|what| what.contains("is not told")), "{untold:?}");
        let env: Vec<_> = [CHAT_CONSENT, REQUIRE_API_TOKENS, REQUIRE_TOTP]
            .iter()
            .enumerate()
            .map(|(number, variable)| json!({"name": format!("V{number}"), "value": format!("${{{variable}}}")}))
            .collect();
        assert_eq!(unmet_by(json!({"capabilities": able, "env": env})), [] as [String; 0]);
        // What somebody else deploys is told by somebody else.
        let elsewhere = json!([{"name": "web", "port": 8080}]);
        assert_eq!(unmet_by(json!({"capabilities": able, "components": elsewhere})), [] as [String; 0]);
    }
}
