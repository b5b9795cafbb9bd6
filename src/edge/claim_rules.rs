//! The rules by which an account may claim a host name. Pure; `claims` stores the result as [`DomainClaim`]s.

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
    /// The name is claimed by another account, or reserved; with a sentence for people.
    Denied(String),
}

/// Decides from the existing claim whether the account may have the name. An account with a proof may replace the claim
/// of one that has lost its proof.
pub fn claim_state(claim: Option<&DomainClaim>, uid: &str, proven: bool, now: Moment) -> ClaimState {
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
    if proven && spec.used_as == DomainUse::Custom && spec.lost_since.is_some() {
        return ClaimState::Free;
    }
    // The message must not name the other account: tenants must not learn of each other.
    ClaimState::Denied("the name is another account's; choose another".into())
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

/// Whether a name is still served: its proof was never lost, or at most [`PATIENCE`] intervals ago.
pub fn still_served(claim: &DomainClaim, again_after: k8s_openapi::jiff::SignedDuration, now: Moment) -> bool {
    claim.spec.lost_since.as_ref().is_none_or(|since| now < since.0 + again_after * PATIENCE)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::SignedDuration;

    use super::*;
    use crate::api::{DomainClaimSpec, Time};

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
            reserved_until: None,
        };
        change(&mut spec);
        DomainClaim::new("help.acme.example", spec)
    }

    const NOW: &str = "2026-11-23T10:00:00Z";

    #[test]
    fn the_first_proven_owner_wins_and_the_loser_is_told() {
        let theirs = claim("a", |_| ());
        assert_eq!(claim_state(None, "b", true, at(NOW)), ClaimState::Free);
        assert_eq!(claim_state(Some(&theirs), "a", true, at(NOW)), ClaimState::Owned);
        assert!(matches!(claim_state(Some(&theirs), "b", true, at(NOW)), ClaimState::Denied(_)));
    }

    #[test]
    fn a_name_in_quarantine_is_refused_until_its_time() {
        let gone = claim("a", |c| c.reserved_until = Some(Time(at("2026-11-23T12:00:00Z"))));
        assert!(matches!(claim_state(Some(&gone), "b", true, at(NOW)), ClaimState::Denied(why) if why.contains("2026-11-23T12:00:00Z")));
        assert_eq!(claim_state(Some(&gone), "b", true, at("2026-11-23T12:00:00Z")), ClaimState::Free);
    }

    #[test]
    fn a_lost_name_goes_to_whoever_proves_it() {
        let lost = claim("a", |c| c.lost_since = Some(Time(at(NOW))));
        assert!(matches!(claim_state(Some(&lost), "b", false, at(NOW)), ClaimState::Denied(_)));
        assert_eq!(claim_state(Some(&lost), "b", true, at(NOW)), ClaimState::Free);
        let slug = claim("a", |c| {
            c.lost_since = Some(Time(at(NOW)));
            c.used_as = DomainUse::Slug;
        });
        assert!(matches!(claim_state(Some(&slug), "b", true, at(NOW)), ClaimState::Denied(_)));
    }

    #[test]
    fn a_lost_proof_is_forgiven_for_three_intervals() {
        let lost = claim("a", |c| c.lost_since = Some(Time(at(NOW))));
        let day = SignedDuration::from_hours(24);
        assert!(still_served(&lost, day, at("2026-11-26T09:59:59Z")));
        assert!(!still_served(&lost, day, at("2026-11-26T10:00:00Z")));
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
}
