//! The host names of a tenant: claims, DNS challenges, certificates.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    ByteString,
    api::core::v1::{ObjectReference, Secret},
    jiff::SignedDuration,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{events::EventType, reflector::ObjectRef},
};
use serde_json::json;

use super::{
    context::{AccountContext, FIELD_MANAGER},
    decide,
    observe::Observation,
    work::Work,
};
use crate::cluster::During;
use crate::{
    api::{
        ACCOUNT_LABEL, ACCOUNT_UID, Contender, DomainClaim, DomainClaimSpec, DomainUse, FOR_ACCOUNT, Lifecycle, Time,
        account::{Challenge, DomainState, DomainStatus},
        conditions::{Finding, Type},
        plan::PlanPlacement,
    },
    clock::Moment,
    edge::{
        Error,
        certificate::{self, Leaf},
        claim_rules::{self, ClaimState, Proofs},
        claims,
        dns_challenge::{self, ChallengeResult},
        envoy_gateway,
        gateway::Gateway,
        issuer,
        objects::Kind,
        policy::Policy,
        site::{OwnListener, Wanted},
    },
    ledger::Entry,
    lifecycle::Known,
};

/// How soon the account is reconciled again after a fault whose end triggers no reconcile.
pub(super) const RECHECK_INTERVAL: SignedDuration = SignedDuration::from_secs(5);
/// How soon DNS is asked again for a TXT record that is missing.
const CHALLENGE_INTERVAL: SignedDuration = SignedDuration::from_secs(30);

/// One host name of the account, and whether it may be served.
pub(super) struct Hostname {
    /// Its entry in `status.domains`.
    pub status: DomainStatus,
    /// Whether it may be served.
    pub served: bool,
    /// Whether its certificate is the copy of the Secret that the account names.
    copied: bool,
}

impl Work<'_> {
    pub(super) fn claims(&self) -> Vec<Arc<DomainClaim>> {
        let uid = &self.placement.entry.uid;
        self.ctx.caches.claims.state().into_iter().filter(|c| c.spec.account_uid == *uid).collect()
    }

    fn claim_of(&self, host: &str) -> Option<Arc<DomainClaim>> {
        self.ctx.caches.claims.get(&ObjectRef::new(host))
    }

    /// Only the slug's host name, under the plan's base domain.
    pub(super) async fn slug(&mut self, placement: &PlanPlacement, may_claim: bool) -> Result<Vec<Hostname>, Error> {
        self.leave_former_bases(&placement.domain_base).await?;
        let slug = format!("{}.{}", self.account.spec.domain.slug, placement.domain_base);
        Ok(vec![self.name(&slug, DomainUse::Slug, None, may_claim).await?])
    }

    /// Reports which host names the account cannot have, and in which field they are.
    pub(super) fn report_refused(&mut self, names: &[Hostname]) {
        let refused: Vec<_> = names.iter().filter(|name| name.is_refused()).map(Hostname::field_and_message).collect();
        if !refused.is_empty() {
            self.findings.push(Finding::yes(Type::Stalled, "NameTaken", refused.join("; ")));
            // A host name that becomes free triggers no reconcile of this account.
            self.requeue_at(self.now + CHALLENGE_INTERVAL);
        }
    }

    /// Every host name of the account, with its state. Claims free names only if `may_claim`, which is while the account is
    /// open.
    pub(super) async fn names(&mut self, placement: &PlanPlacement, may_claim: bool) -> Result<Vec<Hostname>, Error> {
        self.leave_former_bases(&placement.domain_base).await?;
        let slug = format!("{}.{}", self.account.spec.domain.slug, placement.domain_base);
        let mut names = vec![self.name(&slug, DomainUse::Slug, None, may_claim).await?];
        let is_former = |c: &DomainClaim| {
            c.spec.used_as != DomainUse::Custom && c.name_any() != slug && c.name_any().ends_with(&format!(".{}", placement.domain_base))
        };
        for claim in self.claims().into_iter().filter(|c| is_former(c)).take(16) {
            let host = claim.name_any();
            names.push(self.name(&host, DomainUse::FormerSlug, None, may_claim).await?);
        }
        let bases: Vec<String> = self
            .ctx
            .caches
            .plans
            .state()
            .iter()
            .flat_map(|p| p.spec.placements.iter().map(|p| p.domain_base.clone()).collect::<Vec<_>>())
            .collect();
        for host in self.account.spec.domain.custom.clone() {
            names.push(match claim_rules::refused_custom(&host, bases.iter().map(String::as_str)) {
                Some(why) => {
                    Hostname { status: status(&host, DomainUse::Custom, DomainState::Refused, Some(why)), served: false, copied: false }
                }
                None => {
                    let challenge = dns_challenge::challenge(&self.ctx.installation, &self.placement.entry.uid, &host);
                    self.name(&host, DomainUse::Custom, Some(challenge), may_claim).await?
                }
            });
        }
        Ok(names)
    }

    async fn name(&mut self, host: &str, used_as: DomainUse, challenge: Option<Challenge>, may_claim: bool) -> Result<Hostname, Error> {
        let claim = self.claim_of(host);
        let uid = self.placement.entry.uid.clone();
        let is_own = claim.as_ref().is_some_and(|claim| claim.spec.account_uid == uid);
        let contender = claim.as_ref().and_then(|claim| claim.spec.contender.clone());
        let is_contended = claim.is_some() && (!is_own || contender.is_some());
        let (challenges, now) = (&self.ctx.challenges, self.now);
        let proof = match &challenge {
            Some(challenge) if is_contended => challenges.of_contended(challenge, now).await,
            Some(challenge) => challenges.of(challenge, now).await,
            None => ChallengeResult::Proven,
        };
        let mut proofs = Proofs { own: proof == ChallengeResult::Proven, holder: None };
        if let (Some(claim), Some(_), false, true) = (&claim, &challenge, is_own, proofs.own) {
            let theirs = dns_challenge::challenge(&self.ctx.installation, &claim.spec.account_uid, host);
            proofs.holder = match challenges.of_contended(&theirs, now).await {
                ChallengeResult::Proven => Some(true),
                ChallengeResult::Missing(_) => Some(false),
                ChallengeResult::Unknown(_) => None,
            };
        }
        let state = claim_rules::claim_state(claim.as_deref(), &uid, proofs, challenges.again_after(), now);
        let mut name = Hostname { status: status(host, used_as, DomainState::Withheld, None), served: false, copied: false };
        if challenge.is_some() {
            // The TXT record may be removed, which triggers no reconcile, so DNS is asked again on time.
            self.requeue_at(self.now + self.ctx.challenges.again_after());
        }
        match (state, proof) {
            (ClaimState::Denied(why), _) => {
                name.status.state = DomainState::Refused;
                let is_reserved = claim.is_some_and(|claim| claim.spec.reserved_until.is_some());
                name.status.challenge = challenge.filter(|_| !is_reserved);
                let record = name.status.challenge.as_ref().map(|c| format!(": {}", record(c))).unwrap_or_default();
                name.status.message = Some(format!("{why}{record}"));
            }
            (ClaimState::TakenOver, _) => {
                let Some(claim) = &claim else { return Ok(name) };
                if may_claim && contender.is_none_or(|contender| contender.account_uid != uid) {
                    let mine = Contender { account: self.account.name_any(), account_uid: uid, since: Time(now) };
                    let to = claims::Change { contender: Some(mine), ..claims::Change::none(claim) };
                    claims::change(&self.ctx.client, claim, to).await?;
                }
                name.status.message = Some("another account gives the name up, because this one has proved it".into());
                self.requeue_at(self.now + CHALLENGE_INTERVAL);
            }
            (ClaimState::Owned, proof) => {
                let Some(claim) = &claim else { return Ok(name) };
                let lost = match (&proof, &claim.spec.lost_since) {
                    (ChallengeResult::Proven, _) => None,
                    (ChallengeResult::Missing(_), None) => Some(Time(self.now)),
                    (_, since) => since.clone(),
                };
                let contender = contender.filter(|_| proof != ChallengeResult::Proven);
                let is_taken = contender.is_some() && matches!(proof, ChallengeResult::Missing(_));
                // An open account that uses the name again ends its quarantine.
                let reserved_until = claim.spec.reserved_until.clone().filter(|_| !may_claim);
                let to = claims::Change { used_as, lost_since: lost.clone(), contender, reserved_until };
                claims::change(&self.ctx.client, claim, to).await?;
                name.served =
                    !is_taken && (lost.is_none() || claim_rules::still_served(claim, self.ctx.challenges.again_after(), self.now));
                if let (Some(since), ChallengeResult::Missing(why)) = (lost, proof) {
                    let until = since.0 + self.ctx.challenges.again_after() * claim_rules::PATIENCE;
                    let since = since.0;
                    name.status.message = Some(if is_taken {
                        format!("the proof is missing since {since}: {why}; another account has proved the name, and this one gives it up")
                    } else {
                        format!("the proof is missing since {since}: {why}; the name is served until {until}")
                    });
                    name.status.challenge = challenge;
                    name.status.state = match (is_taken, name.served) {
                        (true, _) => DomainState::Refused,
                        (false, true) => DomainState::Withheld,
                        (false, false) => DomainState::Unproven,
                    };
                    self.requeue_at(self.now + CHALLENGE_INTERVAL);
                }
            }
            (ClaimState::Free, ChallengeResult::Proven) if may_claim => {
                let spec = DomainClaimSpec {
                    account: self.account.name_any(),
                    account_uid: uid,
                    used_as,
                    proven_at: challenge.is_some().then_some(Time(self.now)),
                    lost_since: None,
                    contender: None,
                    reserved_until: None,
                };
                name.served = claims::claim(&self.ctx.client, host, spec, claim.as_deref()).await?;
                if name.served {
                    if let Some(before) = claim.filter(|claim| claim.spec.reserved_until.is_none()) {
                        self.tell_loser(&before).await;
                    }
                } else {
                    name.status.message = Some("somebody else claims the name at this moment; it is looked at again".into());
                    self.requeue_at(self.now + SignedDuration::from_secs(1));
                }
            }
            (ClaimState::Free, ChallengeResult::Proven) => {
                name.status.message = Some("nobody has the name; it is claimed once the account is open again".into());
            }
            (ClaimState::Free, ChallengeResult::Missing(why) | ChallengeResult::Unknown(why)) => {
                name.status.state = DomainState::Unproven;
                let record = challenge.as_ref().map(record).unwrap_or_default();
                name.status.message = Some(format!("{why}; to prove that the name is the tenant's, set: {record}"));
                name.status.challenge = challenge;
                self.requeue_at(self.now + CHALLENGE_INTERVAL);
            }
        }
        Ok(name)
    }

    /// Starts the quarantine of host names below a base domain that the plan had before.
    async fn leave_former_bases(&self, base: &str) -> Result<(), Error> {
        let windows = decide::windows(self.observed, self.record());
        let until = quarantine_ends(&windows, self.now);
        for claim in self.claims().iter().filter(|claim| claim_rules::is_below_former_base(claim, base)) {
            let to = claims::Change { reserved_until: Some(until.clone()), ..claims::Change::none(claim) };
            claims::change(&self.ctx.client, claim, to).await?;
        }
        Ok(())
    }

    /// Releases the claims of custom host names that the account does not list any more or gives up to another account, after
    /// their routes and certificates are deleted.
    pub(super) async fn release_unwanted(&self, names: &[Hostname]) -> Result<(), Error> {
        for claim in self.claims().iter().filter(|c| c.spec.used_as == DomainUse::Custom) {
            let listed = names.iter().find(|name| name.status.host == claim.name_any());
            let is_lost = claim.spec.contender.is_some() && listed.is_some_and(Hostname::is_refused);
            if listed.is_some() && !is_lost {
                continue;
            }
            let is_released = claims::release(&self.ctx.client, claim).await?;
            if is_released && is_lost {
                self.tell_loser(claim).await;
            }
        }
        Ok(())
    }

    /// Tells the account that had the claim that it lost the name.
    async fn tell_loser(&self, claim: &DomainClaim) {
        let host = claim.name_any();
        tracing::info!(host, loser = claim.spec.account, "a host name goes to another account, which has proved it");
        let about = ObjectReference {
            name: Some(claim.spec.account.clone()),
            uid: Some(claim.spec.account_uid.clone()),
            resource_version: None,
            ..self.account.object_ref(&())
        };
        let note = format!("another account has proved {host}, and this account's record is missing: it is served here no more");
        self.ctx.publish(&about, EventType::Warning, "NameLost", &note, "Release").await;
    }

    /// The certificates of custom host names: requested from cert-manager, or copied from the Secret that the account
    /// names. A host name without a valid certificate is not served.
    pub(super) async fn certificates(
        &mut self,
        placement: &PlanPlacement,
        gateway: &Gateway,
        namespace: &str,
        names: &mut [Hostname],
    ) -> Result<(Vec<Wanted>, BTreeMap<String, Leaf>), Error> {
        let (mut wanted, mut leaves, mut late) = (vec![], BTreeMap::new(), vec![]);
        for name in names.iter_mut().filter(|n| n.status.used_as == DomainUse::Custom && n.served) {
            let host = name.status.host.clone();
            let found = match (&placement.certificate_issuer, &self.account.spec.domain.certificate_secret) {
                _ if let Some(why) = gateway.refuses_listeners() => Err(why),
                (Some(issuer), None) => {
                    let secret = secret_name(&host);
                    let spec = json!({"secretName": secret, "dnsNames": [host], "usages": ["digital signature", "server auth"],
                        "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
                        "secretTemplate": {"labels": {ACCOUNT_LABEL: self.account.name_any()}},
                        "issuerRef": {"name": issuer.name, "kind": issuer.kind, "group": issuer.group}});
                    if self.ctx.caches.edge.has(Kind::Certificate) {
                        wanted.push(Wanted::new(Kind::Certificate, namespace, host.clone(), spec));
                        match self.leaf(namespace, &secret).await? {
                            Some(leaf) => leaf,
                            None => {
                                let refusal = issuer::refusal(&self.ctx.caches.edge, issuer);
                                Err(refusal.unwrap_or_else(|| "its certificate is being issued".to_owned()))
                            }
                        }
                    } else {
                        Err("the plan names an issuer of cert-manager, which is not installed; name a Secret in spec.domain.certificateSecret".into())
                    }
                }
                (_, Some(reference)) => {
                    name.copied = true;
                    self.copy_certificate(namespace, &reference.namespace, &reference.name).await?
                }
                (None, None) => Err("the plan has no issuer; name a Secret with its certificate in spec.domain.certificateSecret".into()),
            };
            let fit = found.and_then(|leaf| leaf.unfit(&host, self.now).map_or(Ok(leaf), Err));
            match fit {
                Ok(leaf) => {
                    name.status.certificate_expires_at = Some(Time(leaf.not_after));
                    if let Some(issuer) = &leaf.unknown_issuer {
                        let message = || format!("its certificate comes without its issuer's ({issuer}), which some clients need, too");
                        name.status.message.get_or_insert_with(message);
                    }
                    if let Some(lateness) = leaf.lateness(self.now) {
                        let message = format!("its certificate runs out at {}; renew it", leaf.not_after);
                        late.push((lateness, format!("{host}: {message}")));
                        name.status.message = Some(message);
                    }
                    self.requeue_at(leaf.next_deadline(self.now).unwrap_or(leaf.not_after));
                    leaves.insert(host, leaf);
                }
                Err(why) => {
                    name.served = false;
                    name.status.state = DomainState::Withheld;
                    name.status.message = Some(why);
                    self.requeue_at(self.now + RECHECK_INTERVAL);
                }
            }
        }
        if let Some(worst) = late.iter().map(|(lateness, _)| *lateness).max() {
            let message = late.into_iter().map(|(_, message)| message).collect::<Vec<_>>().join("; ");
            self.findings.push(Finding::yes(Type::CertificateExpires, worst.reason(), message));
        }
        Ok((wanted, leaves))
    }

    async fn leaf(&self, namespace: &str, name: &str) -> Result<Option<Result<Leaf, String>>, Error> {
        let secrets: Api<Secret> = Api::namespaced(self.ctx.client.clone(), namespace);
        let secret = secrets.get_opt(name).await.during("read a certificate")?;
        Ok(secret.map(|secret| certificate::of_secret(&secret).map_err(|why| format!("Secret {name}: {why}"))))
    }

    /// Copies the certificate that the account names into the tenant's namespace. The Secret must have an annotation with
    /// this account's name, because a person who writes accounts may not be allowed to read Secrets.
    async fn copy_certificate(&self, to: &str, namespace: &str, name: &str) -> Result<Result<Leaf, String>, Error> {
        let at = format!("spec.domain.certificateSecret: Secret {namespace}/{name}");
        let secrets: Api<Secret> = Api::namespaced(self.ctx.client.clone(), namespace);
        let found = secrets.get_opt(name).await.during("read the account's certificate")?;
        let Some(found) = found else { return Ok(Err(format!("{at} does not exist"))) };
        if found.annotations().get(FOR_ACCOUNT) != Some(&self.account.name_any()) {
            return Ok(Err(format!(
                "{at} does not say that it is for this account; annotate it with {FOR_ACCOUNT}: {}",
                self.account.name_any()
            )));
        }
        let leaf = match certificate::of_secret(&found) {
            Ok(leaf) => leaf,
            Err(why) => return Ok(Err(format!("{at}: {why}"))),
        };
        let data = found.data.unwrap_or_default().into_iter().filter(|(key, _)| key == "tls.crt" || key == "tls.key").collect();
        self.put_secret(to, CUSTOM_CERTIFICATE, "kubernetes.io/tls", data).await?;
        Ok(Ok(leaf))
    }

    /// Copies the other Secrets that Envoy reads: the key of the OIDC provider and the CA of agents' certificates. Returns
    /// what is missing, if anything is.
    pub(super) async fn secrets(&self, policy: &Policy, namespace: &str) -> Result<Option<String>, Error> {
        if let Some(oidc) = &policy.oidc {
            let secrets: Api<Secret> = Api::namespaced(self.ctx.client.clone(), &self.ctx.settings.namespace);
            let found = secrets.get_opt(&oidc.client_secret).await.during("read the key of the OIDC provider")?;
            let Some(key) = found.and_then(|s| s.data).and_then(|mut d| d.remove("client-secret")) else {
                let (of, name) = (&self.ctx.settings.namespace, &oidc.client_secret);
                return Ok(Some(format!("the plan's spec.security.oidc.clientSecret: Secret {of}/{name} has no key client-secret")));
            };
            self.put_secret(namespace, envoy_gateway::OIDC_SECRET, "Opaque", [("client-secret".to_owned(), key)].into()).await?;
        }
        if let Some(authority) = &policy.client_ca {
            let keys = [("ca.crt", Some(&authority.certificates)), ("ca.crl", authority.revoked.as_ref())];
            let data = keys.into_iter().filter_map(|(key, pem)| Some((key.to_owned(), ByteString(pem?.clone().into_bytes())))).collect();
            self.put_secret(namespace, envoy_gateway::CLIENT_CA_SECRET, "Opaque", data).await?;
        }
        Ok(None)
    }

    async fn put_secret(&self, namespace: &str, name: &str, kind: &str, data: BTreeMap<String, ByteString>) -> Result<(), Error> {
        let secrets: Api<Secret> = Api::namespaced(self.ctx.client.clone(), namespace);
        let found = secrets.get_opt(name).await.during("read a Secret of the edge")?;
        if let Some(found) = &found {
            if found.annotations().get(ACCOUNT_UID) != Some(&self.placement.entry.uid) {
                return Err(Error::Foreign(format!("Secret {namespace}/{name}")));
            }
            if found.data.as_ref() == Some(&data) {
                return Ok(());
            }
        }
        let applied = json!({"apiVersion": "v1", "kind": "Secret", "type": kind, "data": data, "metadata": {"name": name,
            "labels": {ACCOUNT_LABEL: self.account.name_any()}, "annotations": {ACCOUNT_UID: self.placement.entry.uid}}});
        let params = PatchParams::apply(FIELD_MANAGER).force();
        secrets.patch(name, &params, &Patch::Apply(applied)).await.map(drop).during("write a Secret of the edge").map_err(Error::from)
    }
}

/// Starts the quarantine of the host names of an account that has ended: no other account can have them before the plan's
/// `nameQuarantine` has passed.
pub(super) async fn begin_quarantine(ctx: &AccountContext, entry: &Entry, observed: &Observation, now: Moment) -> Result<(), Error> {
    let until = quarantine_ends(&decide::windows(observed, &entry.record), now);
    let claims = ctx.caches.claims.state();
    for claim in claims.iter().filter(|c| c.spec.account_uid == entry.uid && c.spec.reserved_until.is_none()) {
        let to = claims::Change { reserved_until: Some(until.clone()), ..claims::Change::none(claim) };
        claims::change(&ctx.client, claim, to).await?;
    }
    Ok(())
}

/// When the quarantine of a name that is given up now ends. Without the plan's windows the default of the field applies.
fn quarantine_ends(windows: &Known<Lifecycle>, now: Moment) -> Time {
    let quarantine = match windows {
        Known::Known(windows) => windows.name_quarantine,
        Known::Unknown(_) => Lifecycle::default().name_quarantine,
    };
    Time(now + quarantine.duration())
}

/// Which host names get a listener of their own, and which share the Gateway's.
pub(super) fn listeners(names: &[Hostname], gateway: &Gateway, slug_on_its_own: bool) -> (Vec<OwnListener>, Vec<String>) {
    let (mut own, mut shared) = (vec![], vec![]);
    for name in names.iter().filter(|n| n.served) {
        let host = name.status.host.clone();
        match (name.status.used_as, &gateway.shared_certificate) {
            (DomainUse::FormerSlug, _) => {}
            (DomainUse::Custom, _) => own.push(OwnListener { certificate: (None, name.certificate()), host }),
            (DomainUse::Slug, Some((namespace, secret))) if slug_on_its_own => {
                own.push(OwnListener { host, certificate: (Some(namespace.clone()), secret.clone()) });
            }
            (DomainUse::Slug, _) => shared.push(host),
        }
    }
    (own, shared)
}

impl Hostname {
    /// Whether the account cannot have this host name: another account has it, it is reserved, or it is not allowed.
    pub(super) fn is_refused(&self) -> bool {
        self.status.state == DomainState::Refused
    }

    /// The field of the spec that has this host name, and its message.
    fn field_and_message(&self) -> String {
        let message = self.status.message.as_deref().unwrap_or_default();
        match self.status.used_as {
            DomainUse::Custom => format!("spec.domain.custom: {}: {message}", self.status.host),
            DomainUse::Slug | DomainUse::FormerSlug => format!("spec.domain.slug: {message}"),
        }
    }

    /// The name of the Secret with its certificate, in the tenant's namespace.
    fn certificate(&self) -> String {
        if self.copied { CUSTOM_CERTIFICATE.to_owned() } else { secret_name(&self.status.host) }
    }
}

/// The Secret with the copy of the certificate that an account names.
const CUSTOM_CERTIFICATE: &str = "web-custom";

fn secret_name(host: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, host.as_bytes());
    format!("tls-{}", crate::digest::hex(&digest.as_ref()[..10]))
}

fn record(challenge: &Challenge) -> String {
    format!("{} IN TXT \"{}\"", challenge.record, challenge.value)
}

fn status(host: &str, used_as: DomainUse, state: DomainState, message: Option<String>) -> DomainStatus {
    DomainStatus { host: host.to_owned(), used_as, state, message, challenge: None, certificate_expires_at: None }
}
