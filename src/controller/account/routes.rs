//! Publishes and deletes the tenant's routes, and reports what the probes from outside saw of them.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

use k8s_openapi::jiff::SignedDuration;
use kube::ResourceExt;

use super::{
    context::AccountContext,
    desired,
    hostnames::{self, Hostname, RECHECK_INTERVAL},
    namespace, placement,
    work::Work,
};
use crate::error_chain::chain;
use crate::{
    api::{
        DomainUse, HelpDeskAccount,
        account::DomainState,
        conditions::{self, Finding, Type},
        plan::PlanPlacement,
    },
    clock::Moment,
    edge::{
        self, Error,
        apply::{self, Acceptance, Owner, Refused},
        certificate::Leaf,
        check::View,
        connections, envoy_gateway,
        gateway::{self, Driver, Gateway},
        objects::Kind,
        page, platform_policy,
        policy::{self, Policy},
        revocation,
        site::{Answer, Site, Wanted},
    },
    lifecycle::Known,
    prober::{Mismatch, Observation, ProbedAccount},
};

/// How long a closed account waits until a probe sees its page. After that its routes are deleted instead.
const PAGE_PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// The same while the probes get an answer that is not the page.
const WRONG_PATIENCE: SignedDuration = SignedDuration::from_mins(10);

/// How soon an open account is reconciled after a probe failed. The prober triggers a reconcile when the result changes.
const SEEN_RECHECK_INTERVAL: SignedDuration = SignedDuration::from_secs(120);

/// Stops the probes of this account's addresses.
pub(super) fn forget(ctx: &AccountContext, uid: &str) {
    ctx.prober.forget(uid);
}

/// Why the routes are not as the stage wants them: the reason of a condition, and its message.
struct Withheld(&'static str, String);

/// Whether a closed account gives up showing its page, given the reason why the page is not shown. Its routes are then
/// deleted, which closes its addresses too.
fn does_without_a_page(reason: &str, closing_since: Moment, now: Moment) -> bool {
    match reason {
        // The addresses still answer something else than the page: wait longer until the probes see that stop.
        "AnswersWrong" => now >= closing_since + WRONG_PATIENCE,
        // These reasons may pass soon.
        "Progressing" | "NotAccepted" | "Unreachable" | "GatewayTooOld" => now >= closing_since + PAGE_PATIENCE,
        // There is no Gateway that could show the page, or no host name for it.
        _ => true,
    }
}

impl Work<'_> {
    /// Makes the tenant's routes as the stage wants them. A failure is reported as a condition and retried; it never stops
    /// the rest of the reconcile.
    pub(super) async fn realize_routes(&mut self, wanted: desired::Routes) {
        let placement = match self.plan() {
            Ok(plan) => placement::placement(plan, self.account).ok().cloned(),
            Err(_) => None,
        };
        let gateway = placement.as_ref().and_then(|p| p.gateway.clone().map(|g| (p.clone(), g)));
        let done = match (wanted, gateway) {
            (desired::Routes::Live | desired::Routes::Suspended, Some((placement, reference))) => {
                match gateway::observe(&self.ctx.caches.edge, &reference, &placement.domain_base) {
                    Ok(gateway) => self.publish(&placement, &gateway, wanted).await,
                    Err(why) => self.report_slug(&placement).await.map(|()| Err(Withheld("GatewayUnusable", why))),
                }
            }
            (desired::Routes::Live | desired::Routes::Suspended, None) => self.unpublished(placement.as_ref(), wanted).await,
            (desired::Routes::Gone { .. }, _) => self.unpublish(wanted).await.map(|()| Ok(())),
        };
        let done = match done {
            // An object without the account's marker belongs to somebody else: it is left alone, and nothing is retried for it.
            Err(Error::Foreign(what)) => Ok(Err(Withheld("Foreign", Error::Foreign(what).to_string()))),
            done => done,
        };
        let done = match done {
            Ok(Err(why)) if wanted == desired::Routes::Suspended => self.without_a_page(why).await,
            done => done,
        };
        match done {
            Ok(Ok(())) => {}
            Ok(Err(Withheld(reason, why))) => self.not_ready(wanted, Finding::no(Type::EdgeReady, reason, why)),
            Err(error) => {
                let message = chain(&error);
                tracing::warn!(error = message, "the edge could not be made as it is wanted");
                self.not_ready(wanted, Finding::unknown(Type::EdgeReady, "GatewayUnreachable", message));
            }
        }
    }

    /// Reports that the routes are not as wanted. An open stage is enforced all the same. A closing stage is not enforced
    /// before its addresses are known to be closed.
    fn not_ready(&mut self, wanted: desired::Routes, finding: Finding) {
        let closed = wanted != desired::Routes::Live;
        if closed && self.entering {
            self.waiting_on.push(finding.message.clone());
        }
        let seen_from_outside = matches!(finding.reason.as_str(), "AnswersWrong" | "Unreachable");
        self.requeue_at(
            self.now
                + match (closed, seen_from_outside) {
                    // The closing stage is enforced already, so nothing waits for its page.
                    (true, _) if !self.entering => PAGE_PATIENCE,
                    (true, true) => PAGE_PATIENCE,
                    (false, true) => SEEN_RECHECK_INTERVAL,
                    (_, false) => RECHECK_INTERVAL,
                },
        );
        self.findings.push(finding);
    }

    /// For a closing account whose page cannot be shown: deletes all its routes. Once none is left its addresses are closed,
    /// and the stage can be enforced. An account that never had routes does not wait.
    async fn without_a_page(&mut self, why: Withheld) -> Result<Result<(), Withheld>, Error> {
        let Withheld(reason, text) = why;
        if !does_without_a_page(reason, self.record().decided_at, self.now) || !self.entering {
            return Ok(Err(Withheld(reason, text)));
        }
        self.delete_routes().await?;
        let left = self.left().await?;
        if !left.is_empty() {
            return Ok(Err(Withheld(reason, format!("{text}; {} is being taken down", left.join(", ")))));
        }
        self.findings.push(Finding::no(Type::EdgeReady, reason, format!("nothing is published: {text}")));
        Ok(Ok(()))
    }

    /// The account's routes that still exist, read from the API server and not from a cache.
    async fn left(&self) -> Result<Vec<String>, Error> {
        let Some(namespace) = &self.placement.entry.namespace else { return Ok(vec![]) };
        let account = self.account.name_any();
        apply::still_published(&self.ctx.client, Owner { account: &account, uid: &self.placement.entry.uid }, &namespace.name).await
    }

    /// For a plan without a Gateway: publishes nothing, but claims the slug's host name, because a Gateway may be added
    /// later.
    async fn unpublished(&mut self, placement: Option<&PlanPlacement>, wanted: desired::Routes) -> Result<Result<(), Withheld>, Error> {
        self.delete_routes().await?;
        let left = if self.entering && wanted == desired::Routes::Suspended { self.left().await? } else { vec![] };
        if !left.is_empty() {
            return Ok(Err(Withheld("Progressing", format!("{} is being taken down", left.join(", ")))));
        }
        if let Some(placement) = placement {
            let slug = self.slug(placement, wanted == desired::Routes::Live).await?;
            self.report_refused(&slug);
            self.domains = slug.into_iter().filter(Hostname::is_refused).map(|name| name.status).collect();
        }
        Ok(Ok(()))
    }

    /// Reports the state of the slug's host name although the Gateway cannot be used.
    async fn report_slug(&mut self, placement: &PlanPlacement) -> Result<(), Error> {
        let slug = self.slug(placement, false).await?;
        self.report_refused(&slug);
        self.domains = slug.into_iter().map(|name| name.status).collect();
        Ok(())
    }

    async fn publish(
        &mut self,
        placement: &PlanPlacement,
        gateway: &Gateway,
        wanted: desired::Routes,
    ) -> Result<Result<(), Withheld>, Error> {
        let live = wanted == desired::Routes::Live;
        let Some(namespace) = self.placement.entry.namespace.as_ref().map(|n| n.name.clone()) else { return Ok(Ok(())) };
        let plan = match &self.observed.plan {
            Known::Known(plan) => plan.clone(),
            Known::Unknown(why) => return Ok(Err(Withheld("NoPlan", why.clone()))),
        };
        let mut names = self.names(placement, live).await?;
        self.report_refused(&names);
        let class = self.ctx.class_of(&plan, self.record());
        let security = self.account.spec.security.as_ref();
        let mut outcome = class.as_ref().map(|class| policy::of(&plan.spec.security, security, class.as_ref(), &gateway.driver.can()));
        let revoked = outcome.as_mut().filter(|_| live).map_or(Ok(None), |outcome| revocation::check(&mut outcome.policy, self.now));
        if let Ok(Some(until)) = revoked {
            self.requeue_at(until);
        }
        let withheld = if live { self.withheld(&plan.spec.class, outcome.as_ref(), gateway) } else { None };
        if let Some(Withheld(reason, why)) = &withheld
            && outcome.is_none()
            && self.keeps_published(&names)
        {
            self.domains = self.account.status.as_ref().map(|status| status.domains.clone()).unwrap_or_default();
            return Ok(Err(Withheld(reason, format!("{why}; what was published last stays as it is"))));
        }

        let min_tls = security.and_then(|s| s.min_tls).unwrap_or_default().max(plan.spec.security.min_tls);
        let asks_certificates = security.is_some_and(|s| s.agent_client_ca.is_some());
        // A login at the gateway is a filter of its own for each tenant. On the shared listener it would end everybody's streams.
        let asks_login = outcome.as_ref().is_some_and(|outcome| outcome.policy.oidc.is_some());
        let wants_own = gateway.driver.can().tls_versions && (min_tls > gateway.shared_min_tls() || asks_certificates || asks_login);
        let refused = gateway.refuses_listener_of_slug().filter(|_| wants_own);
        let slug_on_its_own = wants_own && refused.is_none();
        let withheld = withheld.or_else(|| {
            let why = refused.filter(|_| live)?;
            let field = match (asks_certificates, asks_login) {
                (true, _) => "agentClientCA",
                (_, true) => "requireTotp",
                _ => "minTls",
            };
            Some(Withheld("PolicyUnkeepable", format!("not published: {field} needs a listener of this account's own, and {why}")))
        });
        let (mut extra, leaves) = self.certificates(placement, gateway, &namespace, &mut names).await?;
        let (own, shared) = hostnames::listeners(&names, gateway, slug_on_its_own);
        let former: Vec<_> =
            names.iter().filter(|n| n.status.used_as == DomainUse::FormerSlug && n.served).map(|n| n.status.host.clone()).collect();
        let slug_is_served = names.iter().any(|n| n.status.used_as == DomainUse::Slug && n.served);
        let primary = format!("{}.{}", self.account.spec.domain.slug, placement.domain_base);
        let account = self.account.name_any();
        let uid = self.placement.entry.uid.clone();
        let owner = Owner { account: &account, uid: &uid };
        let pages = page::suspended(&plan.spec.suspended_page);

        let policy = outcome.as_ref().map(|o| o.policy.clone());
        let guarded = match (&class, &policy) {
            (Some(class), Some(policy)) if live => gateway.driver == Driver::EnvoyGateway && envoy_gateway::needs_guards(class, policy),
            // The page of a suspended account is for everybody.
            _ => false,
        };
        let agents_open = !guarded
            || envoy_gateway::GUARDS
                .iter()
                .all(|name| apply::in_force(&self.ctx.caches.edge, Kind::SecurityPolicy, &namespace, name, owner));
        let answer = match (&class, &policy) {
            (Some(class), Some(policy)) if live => Some(Answer::App { class, policy, agents_open }),
            _ if live => None,
            _ => Some(Answer::Suspended(&pages)),
        };
        if let Some(policy) = policy.as_ref().filter(|_| live && withheld.is_none())
            && let Some(missing) = self.secrets(policy, &namespace).await?
        {
            return self.withhold(names, extra, Withheld("SecretMissing", missing)).await;
        }
        let Some(answer) = answer.filter(|_| withheld.is_none() && slug_is_served) else {
            let why = withheld.unwrap_or_else(|| {
                let message = names.iter().find(|n| n.status.used_as == DomainUse::Slug).and_then(|n| n.status.message.clone());
                Withheld("NameTaken", format!("spec.domain.slug: {}", message.unwrap_or_else(|| "the name is being claimed".into())))
            });
            // An open account keeps its certificates: it needs them once its routes are published.
            let kept = if live { extra } else { vec![] };
            return self.withhold(names, kept, why).await;
        };
        let site =
            Site { account: &account, uid: &uid, namespace: &namespace, gateway, primary: &primary, shared, own, former, min_tls, answer };
        extra.extend(edge::wanted(&site));
        let connections_before = connections::to_end(&mut extra, |kind, name| self.published(kind, &namespace, name), self.now);
        let made = apply::apply(&self.ctx.client, &self.ctx.caches.edge, owner, &extra).await?;
        self.release_unwanted(&names).await?;
        for name in names.iter_mut().filter(|n| n.served) {
            name.status.state = match (live, name.status.used_as) {
                (false, _) => DomainState::Suspended,
                (true, DomainUse::FormerSlug) => DomainState::Redirecting,
                (true, _) => DomainState::Live,
            };
        }
        self.domains = names.into_iter().map(|n| n.status).collect();
        if let Some(refused) = made.refused.into_iter().next() {
            return Ok(Err(refusal(refused)));
        }
        match apply::acceptance(&self.ctx.caches.edge, &extra) {
            Acceptance::Accepted if agents_open => {}
            Acceptance::Accepted => return Ok(Err(Withheld("Progressing", "agents' paths open once their policy is in force".into()))),
            Acceptance::Pending(why) => return Ok(self.not_accepted(&extra, live, Withheld("Progressing", why))),
            Acceptance::Rejected(why) => return Ok(self.not_accepted(&extra, live, Withheld("NotAccepted", why))),
        }
        if let (Some(before), Some(class)) = (connections_before, &class) {
            let is_done = self.end_agents_connections(before, class, &namespace).await?;
            if is_done {
                extra.iter_mut().for_each(|one| one.end_connections_before = None);
                apply::apply(&self.ctx.client, &self.ctx.caches.edge, owner, &extra).await?;
            }
        }
        if let Err(why) = revoked {
            return Ok(Err(Withheld("RevocationListUnusable", why)));
        }
        let notes = outcome.map(|o| o.notes).unwrap_or_default();
        Ok(self.report_probe(&site, &leaves, policy.as_ref().filter(|_| live), &notes, owner))
    }

    /// Another version of the operator writes its objects in another way, and the gateway looks at them one after the other: a
    /// policy may name a rule of a route that it has not seen. What was published goes on meanwhile.
    fn not_accepted(&mut self, wanted: &[Wanted], live: bool, why: Withheld) -> Result<(), Withheld> {
        let edge = &self.ctx.caches.edge;
        let is_new = || wanted.iter().any(|one| edge.was_just_written(one.kind, &one.namespace, &one.name));
        let Some(shown) = shown_before(self.account).filter(|_| live && is_new()) else { return Err(why) };
        self.requeue_at(self.now + RECHECK_INTERVAL);
        self.findings.push(shown);
        Ok(())
    }

    /// Whether routes are published that may stay as they are: every host name in them is still this account's.
    fn keeps_published(&self, names: &[Hostname]) -> bool {
        let account = self.account.name_any();
        let hosts = apply::published_hosts(&self.ctx.caches.edge, Owner { account: &account, uid: &self.placement.entry.uid });
        let own = self.claims();
        let is_own = |host: &String| match names.iter().find(|name| name.status.host == *host) {
            Some(name) => name.served,
            None => own.iter().any(|claim| claim.name_any() == *host),
        };
        !hosts.is_empty() && hosts.iter().all(is_own)
    }

    /// Why an open account's routes must not be published, if so.
    fn withheld(&self, class: &Option<String>, outcome: Option<&policy::Outcome>, gateway: &Gateway) -> Option<Withheld> {
        let Some(outcome) = outcome else {
            return Some(match class {
                None => Withheld(
                    "NoClass",
                    "the plan names no class, so it is not known whom which path is for; set spec.class in the plan".into(),
                ),
                Some(name) => {
                    Withheld("NoClass", format!("there is no HelpDeskClass {name}; create it, or correct spec.class in the plan"))
                }
            });
        };
        if !outcome.unkeepable.is_empty() {
            return Some(Withheld("PolicyUnkeepable", format!("not published: {}", outcome.unkeepable.join("; "))));
        }
        let conflict = || {
            let why = platform_policy::conflict(gateway.security.as_ref()?, outcome.policy.oidc.is_some())?;
            Some(format!(
                "the SecurityPolicy of Gateway {}/{} cannot be kept beside this account's: {why}",
                gateway.namespace, gateway.name
            ))
        };
        gateway
            .loose_paths()
            .or_else(conflict)
            .filter(|_| outcome.policy.guards_agents())
            .map(|why| Withheld("PolicyUnkeepable", format!("not published: {why}")))
    }

    /// Publishes nothing but the objects in `keep`, which are certificates.
    async fn withhold(&mut self, mut names: Vec<Hostname>, keep: Vec<Wanted>, why: Withheld) -> Result<Result<(), Withheld>, Error> {
        let account = self.account.name_any();
        let uid = self.placement.entry.uid.clone();
        self.ctx.prober.forget(&uid);
        apply::apply(&self.ctx.client, &self.ctx.caches.edge, Owner { account: &account, uid: &uid }, &keep).await?;
        self.release_unwanted(&names).await?;
        for name in names.iter_mut().filter(|n| n.served) {
            name.status.state = DomainState::Withheld;
            name.status.message = Some(why.1.clone());
        }
        self.domains = names.into_iter().map(|n| n.status).collect();
        Ok(Err(why))
    }

    /// Deletes every object of the tenant's routes.
    async fn delete_routes(&mut self) -> Result<(), Error> {
        let account = self.account.name_any();
        let owner = Owner { account: &account, uid: &self.placement.entry.uid };
        forget(self.ctx, owner.uid);
        apply::apply(&self.ctx.client, &self.ctx.caches.edge, owner, &[]).await.map(drop)
    }

    /// Deletes routes, listeners and certificates. The host names stay reserved; once the account has expired, only for the
    /// plan's quarantine.
    async fn unpublish(&mut self, wanted: desired::Routes) -> Result<(), Error> {
        self.delete_routes().await?;
        let left = if self.entering { self.left().await? } else { vec![] };
        if self.placement.entry.namespace.is_none() {
            self.ctx.caches.edge.forget(&self.placement.entry.uid, &namespace::name(&self.placement.tenant));
        }
        if !left.is_empty() {
            self.waiting_on.push(format!("{} is being taken down", left.join(", ")));
            self.requeue_at(self.now + SignedDuration::from_secs(1));
        }
        if wanted == (desired::Routes::Gone { reserved: false }) && self.entering {
            hostnames::begin_quarantine(self.ctx, &self.placement.entry, self.observed, self.now).await?;
        }
        Ok(())
    }

    /// Reports the last probe of the addresses in exactly this state, and orders another probe if there is none or it is
    /// old.
    fn report_probe(
        &mut self,
        site: &Site<'_>,
        leaves: &BTreeMap<String, Leaf>,
        policy: Option<&Policy>,
        notes: &[String],
        owner: Owner<'_>,
    ) -> Result<(), Withheld> {
        let prober = &self.ctx.prober;
        let has_checked = prober.has_checked(owner.uid);
        let view = View::of(site, leaves, policy);
        let mark = mark(&self.ctx.caches.edge, owner, &view);
        let urgent = self.entering && policy.is_none();
        let observation = prober.observe(ProbedAccount { name: owner.account, uid: owner.uid }, mark, view, urgent);
        match observation {
            Observation::AsExpected => {}
            Observation::Mismatch(Mismatch { reason, why }) => return Err(Withheld(reason, why)),
            Observation::Unchecked => {
                let shown = if has_checked || self.entering { None } else { shown_before(self.account) };
                let unseen = || Withheld("Progressing", "the addresses are being looked at from outside".into());
                self.findings.push(shown.ok_or_else(unseen)?);
                return Ok(());
            }
        }
        let what = if policy.is_some() {
            ("Published", "every address answers under its policy")
        } else {
            ("Suspended", "every address answers that the account is suspended")
        };
        let mut message = what.1.to_owned();
        for note in notes.iter().chain(&self.observed.kept) {
            message.push_str("; ");
            message.push_str(note);
        }
        self.findings.push(Finding::yes(Type::EdgeReady, what.0, message));
        Ok(())
    }
}

/// The result of the last probe, perhaps by an earlier operator process, from the status, if the account was not edited since.
/// The status keeps showing it until this process has probed. It is never used to enforce a stage.
fn shown_before(account: &HelpDeskAccount) -> Option<Finding> {
    conditions::shown(&account.status.as_ref()?.conditions, Type::EdgeReady, account.metadata.generation)
}

/// What the API server refused: a field that its definitions do not have, or a value.
fn refusal(refused: Refused) -> Withheld {
    match refused {
        Refused::Unknown(what) => {
            Withheld("GatewayTooOld", format!("the cluster's Gateway API or gateway does not know what is needed: {what}"))
        }
        Refused::Invalid(what) => Withheld("ObjectRefused", format!("the cluster refuses an object of this account's edge: {what}")),
    }
}

/// Identifies the state that a probe is about: a hash of the objects' generations and the expected answers.
fn mark(objects: &edge::objects::Objects, owner: Owner<'_>, view: &View) -> u64 {
    let mut all: Vec<_> =
        apply::of(objects, owner).into_iter().map(|(kind, o)| (kind, o.namespace(), o.name_any(), o.metadata.generation)).collect();
    all.sort();
    let mut hasher = DefaultHasher::new();
    all.hash(&mut hasher);
    format!("{view:?}").hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_account_does_without_its_page_at_once_or_after_a_while_and_waits_longer_while_something_answers_wrong() {
        let at = |text: &str| text.parse().unwrap();
        let (since, soon, late) = (at("2026-11-23T10:00:00Z"), at("2026-11-23T10:00:59Z"), at("2026-11-23T10:01:00Z"));
        for never_published in ["NameTaken", "GatewayUnusable", "NoPlan", "Foreign"] {
            assert!(does_without_a_page(never_published, since, since), "{never_published}");
        }
        for passing in ["Progressing", "NotAccepted", "Unreachable", "GatewayTooOld"] {
            assert!(!does_without_a_page(passing, since, soon) && does_without_a_page(passing, since, late), "{passing}");
        }
        assert!(!does_without_a_page("AnswersWrong", since, at("2026-11-23T10:09:59Z")));
        assert!(does_without_a_page("AnswersWrong", since, at("2026-11-23T10:10:00Z")));
    }
}
