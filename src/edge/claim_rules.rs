//! The rules by which an account may claim a host name. Pure; `claims` stores the result as [`DomainClaim`]s.

use k8s_openapi::jiff::SignedDuration;

use crate::{
    api::{DomainClaim, DomainUse},
    clock::{self, Moment},
};

/// For how many intervals of the repeated proof a name is still served after its TXT record was lost.
pub const PATIENCE: i32 = 3;

/// Whether an account has, may get or may not get a host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimState {
    /// The name is claimed by this account.
    Owned,
    /// The name has no claim, or its claim may be replaced.
    Free,
    /// The name is another account's, which gives it up to this one.
    TakenOver,
    /// The name is claimed by another account, or reserved; with a sentence for people.
    Denied(String),
}

/// What DNS says of two accounts that want one custom name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proofs {
    /// Whether the account's own record is there.
    pub own: bool,
    /// Whether the record of the account that has the name is there; `None`: unknown.
    pub holder: Option<bool>,
}

/// Decides from the existing claim whether the account may have the name. A custom name changes hands once the account has
/// proved it and the record of the one that has it is missing. That one withdraws first; if it has not done so within
/// `again_after`, its claim is replaced all the same.
pub fn claim_state(claim: Option<&DomainClaim>, uid: &str, proofs: Proofs, again_after: SignedDuration, now: Moment) -> ClaimState {
    let Some(claim) = claim else { return ClaimState::Free };
    let spec = &claim.spec;
    if spec.account_uid == uid {
        return ClaimState::Owned;
    }
    match &spec.reserved_until {
        Some(until) if until.0 <= now => return ClaimState::Free,
        Some(until) => {
            return ClaimState::Denied(format!(
                "the name belonged to an account that is gone and is reserved until {}; choose another, or wait",
                clock::whole_seconds(until.0)
            ));
        }
        None => {}
    }
    // The messages must not name the other account: tenants must not learn of each other.
    let denied = |why: &str| ClaimState::Denied(format!("the name is another account's; {why}"));
    if spec.used_as != DomainUse::Custom {
        return denied("choose another");
    }
    match (proofs.own, proofs.holder, &spec.contender) {
        (false, ..) => denied("choose another, or prove that it is this tenant's and remove the other account's record"),
        (true, Some(true), _) => denied("its record is there beside this account's: remove it to take the name over"),
        (true, None, _) => denied("whether its record is still there is not known yet"),
        (true, Some(false), Some(other)) if other.account_uid != uid && now < other.since.0 + again_after => {
            denied("a third one takes it over")
        }
        (true, Some(false), Some(own)) if own.account_uid == uid && now >= own.since.0 + again_after => ClaimState::Free,
        (true, Some(false), _) => ClaimState::TakenOver,
    }
}

/// Why no tenant may have a custom name: it is a base domain, lies below or above one, or has no dot.
pub fn refused_custom<'a>(host: &str, bases: impl Iterator<Item = &'a str>) -> Option<String> {
    for base in bases {
        if host == base || is_below(host, base) {
            return Some(format!(
                "{host} lies in the platform's own domain {base}; use domain.slug for that, or a name of your own domain"
            ));
        }
        if is_below(base, host) {
            return Some(format!("{host} is above the platform's own domain {base} and cannot be a tenant's"));
        }
    }
    if host.split('.').count() < 2 {
        return Some(format!("{host} has no dot; write the whole name, such as help.acme.example"));
    }
    None
}

fn is_below(host: &str, base: &str) -> bool {
    host.strip_suffix(base).is_some_and(|rest| rest.ends_with('.'))
}

/// Whether a claim is of a slug's name that does not lie below the plan's base domain, and its quarantine has not begun.
pub fn is_below_former_base(claim: &DomainClaim, base: &str) -> bool {
    let spec = &claim.spec;
    let host = claim.metadata.name.as_deref().unwrap_or_default();
    spec.used_as != DomainUse::Custom && spec.reserved_until.is_none() && !is_below(host, base)
}

/// Whether a name is still served: its proof was never lost, or at most [`PATIENCE`] intervals ago.
pub fn still_served(claim: &DomainClaim, again_after: SignedDuration, now: Moment) -> bool {
    claim.spec.lost_since.as_ref().is_none_or(|since| now < since.0 + again_after * PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Contender, DomainClaimSpec, Time};

    fn at(text: &str) -> Moment {
        text.parse().unwrap()
    }

    fn claim(uid: &str, change: impl Fn(&mut DomainClaimSpec)) -> DomainClaim {
        let mut spec = DomainClaimSpec {
            account: "acme".into(),
            account_uid: uid.into(),
            used_as: DomainUse::Custom,
            proven_at: None,
            lost_since: None,
            contender: None,
            reserved_until: None,
        };
        change(&mut spec);
        DomainClaim::new("help.acme.example", spec)
    }

    const NOW: &str = "2026-11-23T10:00:00Z";

    const DAY: SignedDuration = SignedDuration::from_hours(24);
    const PROVEN: Proofs = Proofs { own: true, holder: Some(false) };

    fn state(claim: &DomainClaim, uid: &str, proofs: Proofs, now: &str) -> ClaimState {
        claim_state(Some(claim), uid, proofs, DAY, at(now))
    }

    #[test]
    fn a_name_that_nobody_has_is_free_and_ones_own_is_ones_own() {
        assert_eq!(claim_state(None, "b", PROVEN, DAY, at(NOW)), ClaimState::Free);
        assert_eq!(state(&claim("a", |_| ()), "a", Proofs { own: false, holder: None }, NOW), ClaimState::Owned);
    }

    #[test]
    fn a_name_in_quarantine_is_refused_until_its_time() {
        let gone = claim("a", |c| c.reserved_until = Some(Time(at("2026-11-23T12:00:00Z"))));
        assert!(matches!(state(&gone, "b", PROVEN, NOW), ClaimState::Denied(why) if why.contains("2026-11-23T12:00:00Z")));
        assert_eq!(state(&gone, "b", PROVEN, "2026-11-23T12:00:00Z"), ClaimState::Free);
    }

    #[test]
    fn a_custom_name_goes_to_who_proves_it_alone_and_no_other_name_does() {
        let theirs = claim("a", |_| ());
        for (proofs, told) in [
            (Proofs { own: false, holder: None }, "prove that it is this tenant's"),
            (Proofs { own: true, holder: Some(true) }, "remove it to take the name over"),
            (Proofs { own: true, holder: None }, "not known yet"),
        ] {
            assert!(matches!(state(&theirs, "b", proofs, NOW), ClaimState::Denied(why) if why.contains(told)), "{told}");
        }
        assert_eq!(state(&theirs, "b", PROVEN, NOW), ClaimState::TakenOver);
        let slug = claim("a", |c| c.used_as = DomainUse::Slug);
        assert!(matches!(state(&slug, "b", PROVEN, NOW), ClaimState::Denied(_)));
    }

    #[test]
    fn who_has_a_name_has_one_interval_to_withdraw() {
        let contended = claim("a", |c| {
            c.contender = Some(Contender { account: "beta".into(), account_uid: "b".into(), since: Time(at(NOW)) });
        });
        assert_eq!(state(&contended, "b", PROVEN, "2026-11-24T09:59:59Z"), ClaimState::TakenOver);
        assert_eq!(state(&contended, "b", PROVEN, "2026-11-24T10:00:00Z"), ClaimState::Free);
        // The first who proved it comes first, unless that one does not take it.
        assert!(matches!(state(&contended, "c", PROVEN, "2026-11-24T09:59:59Z"), ClaimState::Denied(_)));
        assert_eq!(state(&contended, "c", PROVEN, "2026-11-24T10:00:00Z"), ClaimState::TakenOver);
    }

    #[test]
    fn a_lost_proof_is_forgiven_for_three_intervals() {
        let lost = claim("a", |c| c.lost_since = Some(Time(at(NOW))));
        assert!(still_served(&lost, DAY, at("2026-11-26T09:59:59Z")));
        assert!(!still_served(&lost, DAY, at("2026-11-26T10:00:00Z")));
    }

    #[test]
    fn names_of_the_platform_are_nobodys() {
        let refused = |host: &str| refused_custom(host, ["helpdesk.example"].into_iter()).is_some();
        assert!(refused("helpdesk.example"));
        assert!(refused("acme.helpdesk.example"));
        assert!(refused("a.b.helpdesk.example"));
        assert!(refused("example"));
        assert!(!refused("nothelpdesk.example"));
        assert!(!refused("helpdesk.example.acme.example"));
        assert!(!refused("help.acme.example"));
    }

    #[test]
    fn a_name_below_a_base_domain_that_the_plan_had_before_is_given_up_once_and_a_custom_one_is_not() {
        let is_former = |used_as, base: &str, reserved: bool| {
            let claim = claim("a", |c| {
                c.used_as = used_as;
                c.reserved_until = reserved.then(|| Time(at(NOW)));
            });
            is_below_former_base(&claim, base)
        };
        for used_as in [DomainUse::Slug, DomainUse::FormerSlug] {
            assert!(is_former(used_as, "new.example", false));
            assert!(!is_former(used_as, "acme.example", false), "the base domain that the plan has");
            assert!(!is_former(used_as, "new.example", true), "its quarantine runs");
        }
        assert!(!is_former(DomainUse::Custom, "new.example", false));
    }
}
