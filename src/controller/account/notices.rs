//! Has an account's notices delivered, and records which were.

use k8s_openapi::jiff::SignedDuration;
use kube::{ResourceExt, runtime::reflector::ObjectRef};

use super::{context::AccountContext, decide, error::Error, observe::Observation, outcome::Outcome};
use crate::{
    api::{
        HelpDeskAccount,
        conditions::{Finding, Type},
    },
    clock::{Moment, Trust},
    lifecycle::{Next, Record},
    notices::{Delivery, Notice, due::due, event},
};

/// How many delivered notices are remembered: more than can be news at once.
const REMEMBERED: usize = 8;

/// How soon is looked again for a delivery that is under way; the sender wakes the account when it ended.
const AGAIN: SignedDuration = SignedDuration::from_mins(10);

/// Hands over what is due, and records what was delivered. Nothing waits for it.
pub(super) async fn tend(
    ctx: &AccountContext,
    account: &HelpDeskAccount,
    observed: &Observation,
    outcome: &mut Outcome,
    now: Moment,
) -> Result<(), Error> {
    let Some(sender) = &ctx.notices else { return Ok(()) };
    // A date by a clock that is not believed would be wrong.
    let Some(plan) = ctx.caches.plans.get(&ObjectRef::new(&account.spec.plan)).filter(|_| observed.clock == Trust::Trusted) else {
        return Ok(());
    };
    let (name, uid) = (account.name_any(), account.uid().unwrap_or_default());
    let record = outcome.placement.entry.record.clone();
    let (notices, wake) = due(&record, announced(account, &record, outcome.next), &plan.spec.notices, now);
    let id = |notice: &Notice| notice.id(&ctx.installation.id, &uid);
    sender.keep(&name, &notices.iter().map(id).collect::<Vec<_>>());
    let about = event::About { account: &name, uid: &uid, stage: record.stage, data_gone_by: record.data_gone_by };
    let mut delivered = Vec::new();
    for notice in notices.iter().filter(|notice| !record.notices.contains(&id(notice))) {
        match sender.deliver(&name, &id(notice), || event::body(notice, &about, &ctx.installation.id)) {
            Delivery::Delivered => delivered.push(id(notice)),
            Delivery::Pending => outcome.wake_at(now + AGAIN),
            Delivery::Failing(why) => {
                outcome.wake_at(now + AGAIN);
                let message =
                    format!("the notice about {} at {} is not delivered: {why}; it is tried again", notice.stage.name(), notice.at);
                outcome.findings.push(Finding::no(Type::NoticesDelivered, "NotDelivered", message));
            }
        }
    }
    if let Some(at) = wake {
        outcome.wake_at(at);
    }
    if delivered.is_empty() {
        return Ok(());
    }
    let mut notices: Vec<String> = record.notices.iter().cloned().chain(delivered).collect();
    notices.drain(..notices.len().saturating_sub(REMEMBERED));
    decide::store(ctx, &mut outcome.placement, Record { notices, ..record }, &observed.clock, now).await
}

/// The next stage, if it will come: not while the account is paused, and nothing that destroys while a hold keeps it.
fn announced(account: &HelpDeskAccount, record: &Record, next: Option<Next>) -> Option<Next> {
    let is_held = account.spec.hold.is_some() || record.held_since.is_some();
    next.filter(|next| !(account.spec.paused || is_held && next.stage.destroys()))
}
