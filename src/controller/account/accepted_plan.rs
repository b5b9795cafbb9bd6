//! The plan as an account uses it. A reference that was removed from the plan, around the policy that refuses it, stays as it
//! was accepted last: what is published stays published. Pure.

use std::sync::Arc;

use kube::ResourceExt;

use crate::{
    api::HelpDeskPlan,
    lifecycle::{Known, PlanSeen},
};

/// The plan with what was removed from it since it was read last, and a sentence for each.
pub(super) fn accepted(plan: Arc<HelpDeskPlan>, region: &str, seen: Option<&PlanSeen>) -> (Known<Arc<HelpDeskPlan>>, Vec<String>) {
    let name = plan.name_any();
    // What another plan said is nothing to an account that was given this one.
    let Some(seen) = seen.filter(|seen| seen.name == name) else { return (Known::Known(plan), vec![]) };
    let mut accepted = HelpDeskPlan::clone(&plan);
    let mut kept = vec![];
    if let (None, Some(class)) = (&accepted.spec.class, &seen.class) {
        kept.push(format!("plan {name} names no class, and HelpDeskClass {class} stays in use"));
        accepted.spec.class = Some(class.clone());
    }
    match (accepted.spec.placements.iter_mut().find(|placement| placement.region == region), &seen.placement) {
        (None, Some(before)) => {
            kept.push(format!("plan {name} has no placement in region {region}, and the one that it had stays in use"));
            accepted.spec.placements.push(before.clone());
        }
        (Some(placement), Some(before)) => {
            if let (None, Some(gateway)) = (&placement.gateway, &before.gateway) {
                kept.push(format!("plan {name} names no Gateway, and {}/{} stays in use", gateway.namespace, gateway.name));
                placement.gateway = Some(gateway.clone());
            }
            if let (None, Some(issuer)) = (&placement.certificate_issuer, &before.certificate_issuer) {
                kept.push(format!("plan {name} names no issuer, and {} {} stays in use", issuer.kind, issuer.name));
                placement.certificate_issuer = Some(issuer.clone());
            }
        }
        (_, None) => {}
    }
    (Known::Known(if kept.is_empty() { plan } else { Arc::new(accepted) }), kept)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn plan(name: &str, change: Value) -> Arc<HelpDeskPlan> {
        let mut spec = json!({"class": "desk", "placements": [{"region": "eu-1", "store": "eu-cold", "domainBase": "helpdesk.example",
            "gateway": {"name": "edge", "namespace": "edge"}, "certificateIssuer": {"name": "acme"}}]});
        for (key, value) in change.as_object().unwrap() {
            spec[key] = value.clone();
        }
        Arc::new(HelpDeskPlan::new(name, serde_json::from_value(spec).unwrap()))
    }

    fn seen(plan: &HelpDeskPlan) -> PlanSeen {
        PlanSeen {
            name: plan.name_any(),
            class: plan.spec.class.clone(),
            placement: plan.spec.placements.first().cloned(),
            windows: plan.spec.lifecycle,
            store: None,
            verify: plan.spec.backups.verify,
        }
    }

    fn used(plan: Arc<HelpDeskPlan>, seen: &PlanSeen) -> (Arc<HelpDeskPlan>, Vec<String>) {
        match accepted(plan, "eu-1", Some(seen)) {
            (Known::Known(plan), kept) => (plan, kept),
            (Known::Unknown(why), _) => panic!("{why}"),
        }
    }

    #[test]
    fn what_was_removed_from_a_plan_stays_in_use_and_is_told() {
        let whole = plan("standard", json!({}));
        let elsewhere = json!([{"region": "us-1", "store": "us-cold", "domainBase": "helpdesk.example"}]);
        let bare = json!([{"region": "eu-1", "store": "eu-cold", "domainBase": "helpdesk.example"}]);
        for (change, told) in [
            (json!({"class": null}), &["names no class"][..]),
            (json!({"placements": elsewhere}), &["has no placement in region eu-1"]),
            (json!({"placements": bare}), &["names no Gateway", "names no issuer"]),
        ] {
            let (used, kept) = used(plan("standard", change), &seen(&whole));
            assert!(kept.len() == told.len() && kept.iter().zip(told).all(|(kept, told)| kept.contains(told)), "{kept:?}");
            assert_eq!(seen(&used).class, seen(&whole).class);
            assert!(used.spec.placements.contains(&whole.spec.placements[0]));
        }
    }

    #[test]
    fn what_a_plan_names_otherwise_counts_and_another_plan_without_a_gateway_has_none() {
        let whole = plan("standard", json!({}));
        let other = plan("standard", json!({"class": "other"}));
        assert_eq!(used(other.clone(), &seen(&whole)), (other, vec![]));
        let plain =
            plan("plain", json!({"class": null, "placements": [{"region": "eu-1", "store": "eu-cold", "domainBase": "helpdesk.example"}]}));
        assert_eq!(used(plain.clone(), &seen(&whole)), (plain, vec![]));
    }
}
