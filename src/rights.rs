//! The rights that the operator needs, and whether it has them.
//!
//! They are reviewed when the process starts, after the API server answered anything with 403 Forbidden, and again and again
//! while one is missing. While nothing is refused, nothing is asked.

use std::{collections::BTreeMap, fmt::Debug, sync::Arc, time::Duration};

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, ResourceRule, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SelfSubjectRulesReview,
    SelfSubjectRulesReviewSpec,
};
use kube::{
    Api, Client, Resource,
    api::{ListParams, PostParams},
};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use crate::{
    api::{BackupStore, DatabaseServer, DomainClaim, DomainClaimSpec, DomainUse, HelpDeskAccount, HelpDeskClass, SHARD_LABEL},
    cluster::{ClusterError, During},
    error_chain::chain,
    readiness::{ObstacleKind, Obstacles, Readiness},
};

/// The shortest time between two reviews, and how often rights are reviewed while one is missing.
const INTERVAL: Duration = Duration::from_secs(20);
/// A namespace in which the operator has no rights of its own: what it may do there it may do everywhere.
const ANY_NAMESPACE: &str = "default";

/// Verbs on resources of an API group.
#[derive(Clone, Copy, Debug)]
pub struct Right {
    /// The API group; empty for the core.
    pub group: &'static str,
    /// The resources, with their subresources.
    pub resources: &'static [&'static str],
    /// The verbs.
    pub verbs: &'static [&'static str],
}

const READ: &[&str] = &["get", "list", "watch"];
const ALL: &[&str] = &["get", "list", "watch", "create", "update", "patch", "delete"];

const fn right(group: &'static str, resources: &'static [&'static str], verbs: &'static [&'static str]) -> Right {
    Right { group, resources, verbs }
}

const OURS: &str = "helpdesk-operator.io";

/// What the operator does in the whole cluster. The chart's ClusterRole grants exactly this.
pub const EVERYWHERE: &[Right] = &[
    right(
        OURS,
        &["helpdeskaccounts", "databaseservers", "backupstores", "helpdeskplans", "helpdeskclasses"],
        &["get", "list", "watch", "update", "patch"],
    ),
    right(OURS, &["coldbackups", "domainclaims"], ALL),
    right(
        OURS,
        &[
            "helpdeskaccounts/status",
            "databaseservers/status",
            "backupstores/status",
            "coldbackups/status",
            "helpdeskclasses/status",
            "helpdeskplans/status",
        ],
        &["get", "update", "patch"],
    ),
    right(
        OURS,
        &[
            "helpdeskaccounts/finalizers",
            "databaseservers/finalizers",
            "backupstores/finalizers",
            "coldbackups/finalizers",
            "helpdeskplans/finalizers",
            "helpdeskclasses/finalizers",
        ],
        &["update"],
    ),
    right("", &["namespaces", "secrets", "services", "serviceaccounts", "resourcequotas"], ALL),
    right("", &["pods"], &["list", "delete"]),
    right("gateway.networking.k8s.io", &["httproutes", "listenersets", "referencegrants"], ALL),
    right("gateway.networking.k8s.io", &["gateways", "gatewayclasses"], READ),
    right("gateway.envoyproxy.io", &["securitypolicies", "clienttrafficpolicies", "backendtrafficpolicies", "httproutefilters"], ALL),
    right("cert-manager.io", &["certificates"], ALL),
    right("cert-manager.io", &["clusterissuers"], READ),
    right("apps", &["deployments"], ALL),
    right("batch", &["jobs"], ALL),
    right("policy", &["poddisruptionbudgets"], ALL),
    right("rbac.authorization.k8s.io", &["roles", "rolebindings"], ALL),
    right("networking.k8s.io", &["networkpolicies"], ALL),
    right("apiextensions.k8s.io", &["customresourcedefinitions"], READ),
    right("events.k8s.io", &["events"], &["create", "patch"]),
    right("authorization.k8s.io", &["selfsubjectaccessreviews", "selfsubjectrulesreviews"], &["create"]),
];

/// What the operator does in its own namespace. The chart's Role grants exactly this.
pub const IN_OWN_NAMESPACE: &[Right] = &[
    right("", &["secrets"], ALL),
    right("batch", &["jobs"], &["get", "list", "watch", "create", "patch", "delete"]),
    right("", &["pods"], READ),
    right("", &["pods/log"], &["get"]),
    right("apps", &["controllerrevisions"], &["get", "list", "watch", "create", "delete"]),
    right("coordination.k8s.io", &["leases"], &["get", "list", "watch", "create", "update", "patch"]),
];

/// Looks for what keeps this process from acting.
pub struct Reviewer {
    /// The client of the API server.
    pub client: Client,
    /// The operator's own namespace.
    pub namespace: String,
    /// The value of the shard label that this process looks after.
    pub shard: Option<String>,
    /// Told by the client when the API server answered 403 Forbidden.
    pub forbidden: Arc<Notify>,
    /// Where the findings go.
    pub readiness: Readiness,
}

impl Reviewer {
    /// Reviews the rights until the process ends.
    pub async fn run(self) {
        loop {
            let found = match self.review().await {
                Ok(found) => found,
                Err(error) => Obstacles::from([(
                    (ObstacleKind::Right, String::new()),
                    format!("whether the operator has its rights is not known: {}", chain(&error)),
                )]),
            };
            let is_fine = found.is_empty();
            self.readiness.set_rights(found);
            tokio::time::sleep(INTERVAL).await;
            if is_fine {
                self.forbidden.notified().await;
            }
        }
    }

    async fn review(&self) -> Result<Obstacles, ClusterError> {
        let mut found = Obstacles::new();
        for (namespace, rights) in [(ANY_NAMESPACE, EVERYWHERE), (&*self.namespace, IN_OWN_NAMESPACE)] {
            for ((group, resource), verbs) in self.missing(namespace, rights).await? {
                let verbs = verbs.join(", ");
                let place = if rights.len() == EVERYWHERE.len() { "in every namespace" } else { "in its own namespace" };
                let name = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
                let text = format!("the operator may not {verbs} {name} {place}: grant it what the chart's rbac.yaml grants");
                found.entry((ObstacleKind::Right, resource.to_owned())).or_insert(text);
            }
        }
        if let Some(refusal) = self.refusal_of_policies().await? {
            found.insert((ObstacleKind::Policy, "domainclaims".into()), refusal);
        }
        if let Some(shard) = &self.shard
            && !self.shard_exists(shard).await?
        {
            let text = format!(
                "nothing has the label {SHARD_LABEL}={shard}: no account, class, server or store; correct the shard's name, or label what it is to look after"
            );
            found.insert((ObstacleKind::Shard, String::new()), text);
        }
        Ok(found)
    }

    /// The rights that are missing in a namespace. One request answers for all that RBAC grants. What it does not list is
    /// asked one by one, because other authorizers cannot list what they allow.
    async fn missing(&self, namespace: &str, rights: &[Right]) -> Result<Missing, ClusterError> {
        let review = SelfSubjectRulesReview {
            spec: SelfSubjectRulesReviewSpec { namespace: Some(namespace.to_owned()) },
            ..SelfSubjectRulesReview::default()
        };
        let reviews: Api<SelfSubjectRulesReview> = Api::all(self.client.clone());
        let rules = reviews.create(&PostParams::default(), &review).await.during("list the operator's rights")?.status;
        let mut missing = Missing::new();
        for (group, resource, verb) in unlisted(rights, &rules.map(|rules| rules.resource_rules).unwrap_or_default()) {
            if !self.is_allowed(namespace, (group, resource, verb)).await? {
                missing.entry((group, resource)).or_default().push(verb);
            }
        }
        Ok(missing)
    }

    async fn is_allowed(&self, namespace: &str, (group, resource, verb): Single) -> Result<bool, ClusterError> {
        let (resource, subresource) = resource.split_once('/').map_or((resource, None), |(resource, sub)| (resource, Some(sub)));
        let attributes = ResourceAttributes {
            group: Some(group.to_owned()),
            namespace: Some(namespace.to_owned()),
            resource: Some(resource.to_owned()),
            subresource: subresource.map(str::to_owned),
            verb: Some(verb.to_owned()),
            ..ResourceAttributes::default()
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..SelfSubjectAccessReviewSpec::default() },
            ..SelfSubjectAccessReview::default()
        };
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let answer = reviews.create(&PostParams::default(), &review).await.during("ask for a right of the operator")?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }

    /// Why the admission policies refuse what only the operator may write. Nothing is written: it is a dry run.
    async fn refusal_of_policies(&self) -> Result<Option<String>, ClusterError> {
        let spec = DomainClaimSpec {
            account: "dry-run".into(),
            account_uid: "00000000-0000-4000-8000-000000000000".into(),
            used_as: DomainUse::Slug,
            proven_at: None,
            lost_since: None,
            contender: None,
            reserved_until: None,
        };
        let claims: Api<DomainClaim> = Api::all(self.client.clone());
        let dry_run = PostParams { dry_run: true, ..PostParams::default() };
        match claims.create(&dry_run, &DomainClaim::new("helpdesk-operator-dry-run.invalid", spec)).await {
            Err(kube::Error::Api(status)) if status.message.contains("ValidatingAdmissionPolicy") => Ok(Some(format!(
                "the admission policies take this operator for a stranger: add its ServiceAccount to clusterWide.operators of the release that has \
                 them. They say: {}",
                status.message
            ))),
            // A missing right is found by the review.
            Ok(_) | Err(kube::Error::Api(_)) => Ok(None),
            Err(error) => Err(ClusterError::new("try a write", error)),
        }
    }

    /// Whether anything has the label of the shard.
    async fn shard_exists(&self, shard: &str) -> Result<bool, ClusterError> {
        let client = &self.client;
        Ok(has_labelled::<DatabaseServer>(client, shard).await?
            || has_labelled::<BackupStore>(client, shard).await?
            || has_labelled::<HelpDeskAccount>(client, shard).await?
            || has_labelled::<HelpDeskClass>(client, shard).await?)
    }
}

/// What is not granted, by group and resource.
type Missing = BTreeMap<(&'static str, &'static str), Vec<&'static str>>;
/// A group, a resource and a verb.
type Single = (&'static str, &'static str, &'static str);

async fn has_labelled<K>(client: &Client, shard: &str) -> Result<bool, ClusterError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::all(client.clone());
    let one = ListParams::default().labels(&format!("{SHARD_LABEL}={shard}")).limit(1);
    match api.list_metadata(&one).await {
        Ok(found) => Ok(!found.items.is_empty()),
        // It is not known; the missing right is found by the review.
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(true),
        Err(error) => Err(ClusterError::new("look for the shard", error)),
    }
}

/// The rights one by one.
fn singles(rights: &[Right]) -> impl Iterator<Item = Single> {
    rights.iter().flat_map(|right| {
        right.resources.iter().flat_map(move |resource| right.verbs.iter().map(move |verb| (right.group, *resource, *verb)))
    })
}

/// The rights that no rule grants. Pure.
fn unlisted(rights: &[Right], rules: &[ResourceRule]) -> Vec<Single> {
    let has = |list: &Option<Vec<String>>, wanted: &str| list.iter().flatten().any(|one| one == wanted || one == "*");
    let grants = |rule: &ResourceRule, (group, resource, verb): Single| {
        rule.resource_names.as_ref().is_none_or(Vec::is_empty)
            && has(&rule.api_groups, group)
            && has(&rule.resources, resource)
            && (rule.verbs.iter().any(|one| one == verb || one == "*"))
    };
    singles(rights).filter(|single| !rules.iter().any(|rule| grants(rule, *single))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const CHART: &str = include_str!("../charts/helpdesk-operator/templates/rbac.yaml");

    /// What a role of the chart grants.
    fn granted(kind: &str) -> Vec<ResourceRule> {
        let role = CHART.split("\n---\n").find(|object| object.contains(&format!("\nkind: {kind}\n"))).unwrap();
        let rules = &role[role.find("\nrules:\n").unwrap() + 8..];
        serde_yaml_ng::from_str(rules).unwrap()
    }

    #[test]
    fn the_chart_grants_what_the_operator_needs_and_nothing_else() {
        for (kind, rights) in [("ClusterRole", EVERYWHERE), ("Role", IN_OWN_NAMESPACE)] {
            let each = |rule: &ResourceRule| {
                let (groups, resources) = (rule.api_groups.clone().unwrap(), rule.resources.clone().unwrap());
                let verbs = rule.verbs.clone();
                groups.into_iter().flat_map(move |group| {
                    let verbs = verbs.clone();
                    resources.clone().into_iter().flat_map(move |resource| {
                        let group = group.clone();
                        verbs.clone().into_iter().map(move |verb| (group.clone(), resource.clone(), verb))
                    })
                })
            };
            let granted: BTreeSet<_> = granted(kind).iter().flat_map(each).collect();
            let needed: BTreeSet<_> = singles(rights).map(|(group, resource, verb)| (group.into(), resource.into(), verb.into())).collect();
            let difference: Vec<_> = granted.symmetric_difference(&needed).collect();
            assert!(difference.is_empty(), "the chart's {kind} and this list differ: {difference:?}");
        }
    }

    #[test]
    fn a_right_that_is_taken_away_is_missing() {
        let mut rules = granted("ClusterRole");
        assert_eq!(unlisted(EVERYWHERE, &rules), []);
        for rule in &mut rules {
            if rule.resources.iter().flatten().any(|resource| resource == "domainclaims") {
                rule.verbs.retain(|verb| verb != "create");
            }
        }
        assert_eq!(unlisted(EVERYWHERE, &rules), [(OURS, "domainclaims", "create")]);
        // A rule for one object by its name grants nothing in general.
        rules.push(ResourceRule {
            api_groups: Some(vec![OURS.into()]),
            resources: Some(vec!["domainclaims".into()]),
            resource_names: Some(vec!["a".into()]),
            verbs: vec!["create".into()],
        });
        assert_eq!(unlisted(EVERYWHERE, &rules).len(), 1);
        let everything = ResourceRule {
            api_groups: Some(vec!["*".into()]),
            resources: Some(vec!["*".into()]),
            resource_names: None,
            verbs: vec!["*".into()],
        };
        assert_eq!(unlisted(EVERYWHERE, &[everything]), []);
    }
}
