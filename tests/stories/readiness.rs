//! An operator that cannot work says so.

use k8s_openapi::api::{
    events::v1::Event,
    rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding},
};
use kube::{
    Api, Resource,
    api::{Patch, PatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

use super::{
    cluster::{Cluster, OPERATOR, eventually},
    operator::{Operator, Servers, Shard},
};

/// The ServiceAccount that the operators of this story have the rights of. No object of it is needed.
const BLIND: &str = "blind";

/// What the operator watches here: what accounts are decided on first, then what wakes
/// them.
const WATCHED: &[&str] = &[
    "helpdeskplans",
    "databaseservers",
    "coldbackups",
    "helpdeskclasses",
    "controllerrevisions",
    "domainclaims",
    "gatewayclasses",
    "gateways",
    "httproutes",
    "listenersets",
    "referencegrants",
    "securitypolicies",
    "clienttrafficpolicies",
    "backendtrafficpolicies",
    "httproutefilters",
    "certificates",
    "clusterissuers",
    "helpdeskaccounts",
    "backupstores",
    "deployments",
    "jobs",
    "services",
    "networkpolicies",
    "namespaces",
    "secrets",
];

#[tokio::test]
async fn an_operator_that_sees_or_does_too_little_is_not_ready_and_says_what_it_lacks() {
    // Given a shard with an account, its operator, and a replica that waits for its turn.
    let shard = Shard::new(BLIND, Servers::First).await;
    shard.administrator_applies_plan(json!({})).await;
    let leader = shard.start_operator("leader", &[]);
    let account = shard.customer_signs_up(BLIND).await;
    account.receives_credentials_in(helpdesk_operator::lifecycle::Stage::Trial).await;
    let standby = shard.start_operator("standby", &[]);

    // Then both are ready.
    for operator in [&leader, &standby] {
        is_ready(operator).await;
    }
    assert!(!leader.answers("metrics", "/metrics").await.unwrap().contains("helpdesk_operator_obstacles{"));
    standby.kill();
    leader.kill();

    // When it may not watch one kind, each in turn, then it is not ready, names that kind, and decides nothing.
    let before = account.get().await.metadata.resource_version;
    for resource in WATCHED {
        grants(&shard.cluster, BLIND, |rule| without(rule, resource, &["list", "watch"])).await;
        let operator = shard.start_operator_as(BLIND, "blind", &[]);
        is_not_ready(&operator, &format!("watch of {resource} is forbidden: ")).await;
        if *resource == "httproutefilters" {
            assert_eq!(account.get().await.metadata.resource_version, before, "something was decided");
        }
    }

    // When it may see everything and not write one kind, then it says so, too.
    grants(&shard.cluster, BLIND, |rule| without(rule, "coldbackups", &["create"])).await;
    let operator = shard.start_operator_as(BLIND, "blind", &[]);
    is_not_ready(&operator, "the operator may not create coldbackups.helpdesk-operator.io in every namespace").await;

    // And that the policies do not know it, in its readiness, its metrics and an event about its pod.
    is_not_ready(&operator, "clusterWide.operators").await;
    eventually("a metric", || async {
        operator.answers("metrics", "/metrics").await?.contains("helpdesk_operator_obstacles{kind=\"Policy\"").then_some(())
    })
    .await;
    let events: Api<Event> = Api::namespaced(shard.cluster.client.clone(), OPERATOR);
    eventually("an event", || async {
        let told =
            |event: &Event| event.reason.as_deref() == Some("NotReady") && event.note.as_ref().is_some_and(|n| n.contains("coldbackups"));
        events.list(&Default::default()).await.unwrap().items.iter().any(told).then_some(())
    })
    .await;
    operator.kill();

    // When its shard is misspelt, then it says that it has nothing to do.
    let misspelt = Shard { name: "blnid".into(), ..shard.clone() };
    is_not_ready(&misspelt.start_operator("only", &[]), "nothing has the label helpdesk-operator.io/shard=blnid").await;
}

async fn is_ready(operator: &Operator) {
    eventually("a ready operator", || async { operator.answers("checks", "/readyz").await?.starts_with("HTTP/1.0 200").then_some(()) })
        .await;
}

async fn is_not_ready(operator: &Operator, why: &str) {
    eventually(&format!("not ready: {why}"), || async {
        let answer = operator.answers("checks", "/readyz").await?;
        (answer.starts_with("HTTP/1.0 503") && answer.contains(why)).then_some(())
    })
    .await;
}

/// A rule without these verbs on one resource.
pub fn without(rule: PolicyRule, resource: &str, verbs: &[&str]) -> Vec<PolicyRule> {
    let (this, others) = rule.resources.clone().unwrap_or_default().into_iter().partition(|one| one == resource);
    let left = rule.verbs.iter().filter(|verb| !verbs.contains(&verb.as_str())).cloned().collect();
    let rules = [PolicyRule { resources: Some(this), verbs: left, ..rule.clone() }, PolicyRule { resources: Some(others), ..rule }];
    rules.into_iter().filter(|rule| rule.resources.as_ref().is_some_and(|all| !all.is_empty())).collect()
}

/// Gives a ServiceAccount what the operator has, after `change`.
pub async fn grants(cluster: &Cluster, service_account: &str, change: impl Fn(PolicyRule) -> Vec<PolicyRule>) {
    let everywhere: Api<ClusterRole> = Api::all(cluster.client.clone());
    let in_own: Api<Role> = Api::namespaced(cluster.client.clone(), OPERATOR);
    let changed = |rules: Option<Vec<PolicyRule>>| rules.unwrap_or_default().into_iter().flat_map(&change).collect::<Vec<_>>();
    let all = changed(everywhere.get("helpdesk-operator").await.unwrap().rules);
    let own = changed(in_own.get("helpdesk-operator").await.unwrap().rules);
    let subjects = json!([{"kind": "ServiceAccount", "name": service_account, "namespace": OPERATOR}]);
    let role = |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": service_account});
    apply(&everywhere, service_account, json!({"rules": all})).await;
    apply(&in_own, service_account, json!({"rules": own})).await;
    let bound = |kind: &str| json!({"roleRef": role(kind), "subjects": subjects});
    apply(&Api::<ClusterRoleBinding>::all(cluster.client.clone()), service_account, bound("ClusterRole")).await;
    apply(&Api::<RoleBinding>::namespaced(cluster.client.clone(), OPERATOR), service_account, bound("Role")).await;
}

async fn apply<K>(api: &Api<K>, name: &str, mut fields: serde_json::Value)
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    fields["apiVersion"] = json!(K::api_version(&()));
    fields["kind"] = json!(K::kind(&()));
    fields["metadata"] = json!({"name": name});
    api.patch(name, &PatchParams::apply("stories").force(), &Patch::Apply(fields)).await.unwrap();
}
