//! One look at one account, top to bottom.

use std::{sync::Arc, time::Duration};

use kube::{Resource, ResourceExt, runtime::controller::Action};
use tracing::Instrument;

use super::{context::AccountContext, decide, error::Error, failure, finalizer, hostnames, observe, outcome, placement, realize, report};
use crate::{
    api::{HelpDeskAccount, deletion_is_confirmed},
    clock,
    keyed_semaphore::Permit,
    lifecycle::Stage,
};

/// Without a nearer deadline, an account is looked at this often: timers die with the process, and what nobody
/// announces is found this way.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// When an account is looked at again that took over its data: whoever shut it as a lost one at the same moment is done
/// by then.
const AFTER_ADOPTION: Duration = Duration::from_secs(60);

/// Takes an account as far as it can go now, and says when to look again.
///
/// # Errors
/// See [`Error`]; it was reported in the account's conditions, and the account is tried again by itself.
pub(super) async fn reconcile(account: Arc<HelpDeskAccount>, ctx: Arc<AccountContext>) -> Result<Action, Error> {
    let stage = account.status.as_ref().and_then(|s| s.stage).map_or("", Stage::name);
    let span = tracing::info_span!("account", account = account.name_any(), stage);
    async {
        // A server that hangs keeps those waiting that are on it, and nobody else. On the heap, because very many may
        // wait for a turn.
        let Some(_turn) = acquire(&ctx, &account).await else { return Ok(Action::await_change()) };
        let result = Box::pin(look(&account, &ctx)).await;
        if let Err(error) = &result {
            failure::report(&ctx, &account, error).await;
        } else if let Some(uid) = account.uid() {
            ctx.backoff.succeeded(&uid);
        }
        result
    }
    .instrument(span)
    .await
}

/// Waits for a turn; `None`: the process is told to stop. Making a database and dropping one take seconds, and only a few
/// are made or dropped at once: who waits for that must not keep others from being blocked or opened on time.
async fn acquire(ctx: &AccountContext, account: &HelpDeskAccount) -> Option<Permit> {
    let name = lane(account);
    let stage = account.status.as_ref().and_then(|s| s.stage);
    match stage {
        None => ctx.slow_permits.acquire(&format!("{name} beginning")).await,
        Some(stage) if stage >= Stage::Terminated => ctx.slow_permits.acquire(&format!("{name} ending")).await,
        Some(_) => ctx.permits.acquire(&name).await,
    }
}

/// What an account's reconcile waits for: its server; while it has none, all of its region.
fn lane(account: &HelpDeskAccount) -> String {
    match account.status.as_ref().and_then(|s| s.database.as_ref()) {
        Some(database) => format!("server {}", database.server),
        None => format!("region {}", account.spec.region),
    }
}

async fn look(account: &HelpDeskAccount, ctx: &AccountContext) -> Result<Action, Error> {
    if account.meta().deletion_timestamp.is_some() && !deletion_is_confirmed(account) {
        // The definition was deleted, or admission was gone around: no authority over data.
        ctx.stage_counts.forget(&ctx.telemetry, &account.uid().unwrap_or_default());
        return finalizer::remove(ctx, account).await;
    }
    finalizer::ensure(ctx, account).await?;

    let now = (ctx.now)();
    let placement = match placement::find_or_assign(ctx, account, now).await {
        Err(Error::NeverPlaced) => return finalizer::remove(ctx, account).await,
        placement => placement?,
    };
    let adopted = placement.adopted;
    let facts = observe::observe(ctx, account, &placement, now).await?;
    let decided = decide::decide(ctx, account, placement, &facts, now).await?;
    let realized = realize::realize(ctx, account, &facts, decided, now).await?;
    let outcome = outcome::settle(ctx, account, &facts, realized, (ctx.now)()).await?;
    report::report(ctx, account, &facts, &outcome, (ctx.now)()).await?;

    if account.meta().deletion_timestamp.is_some() && outcome.is_over() {
        hostnames::begin_quarantine(ctx, &outcome.placement.entry, &facts, now).await?;
        return finalizer::remove(ctx, account).await;
    }
    let sleep = sleep_for(outcome.wake_at);
    Ok(Action::requeue(if adopted { sleep.min(AFTER_ADOPTION) } else { sleep }))
}

/// Exactly until the deadline, by the clock with its fraction.
fn sleep_for(wake_at: Option<clock::Moment>) -> Duration {
    let until = |at: clock::Moment| Duration::try_from(at.duration_since(clock::precise_now())).unwrap_or(Duration::ZERO);
    wake_at.map_or(LONGEST_SLEEP, |at| (until(at) + Duration::from_millis(1)).min(LONGEST_SLEEP))
}
