//! One look at one account, top to bottom.

use std::{sync::Arc, time::Duration};

use kube::{Resource, ResourceExt, runtime::controller::Action};
use tracing::Instrument;

use super::{context::Desk, decide, error::Error, failure, finalizer, hostnames, observe, outcome, placement, realize, report};
use crate::{
    api::{HelpDeskAccount, deletion_is_confirmed},
    clock,
    keyed_semaphore::Turn,
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
pub(super) async fn reconcile(account: Arc<HelpDeskAccount>, desk: Arc<Desk>) -> Result<Action, Error> {
    let stage = account.status.as_ref().and_then(|s| s.stage).map_or("", Stage::name);
    let span = tracing::info_span!("account", account = account.name_any(), stage);
    async {
        // A server that hangs keeps those waiting that are on it, and nobody else. On the heap, because very many may
        // wait for a turn.
        let Some(_turn) = turn(&desk, &account).await else { return Ok(Action::await_change()) };
        let result = Box::pin(look(&account, &desk)).await;
        if let Err(error) = &result {
            failure::report(&desk, &account, error).await;
        } else if let Some(uid) = account.uid() {
            desk.backoff.succeeded(&uid);
        }
        result
    }
    .instrument(span)
    .await
}

/// Waits for a turn; `None`: the process is told to stop. Making a database and dropping one take seconds, and only a few
/// are made or dropped at once: who waits for that must not keep others from being blocked or opened on time.
async fn turn(desk: &Desk, account: &HelpDeskAccount) -> Option<Turn> {
    let name = lane(account);
    let stage = account.status.as_ref().and_then(|s| s.stage);
    match stage {
        None => desk.slow_lanes.turn(&format!("{name} beginning")).await,
        Some(stage) if stage >= Stage::Terminated => desk.slow_lanes.turn(&format!("{name} ending")).await,
        Some(_) => desk.lanes.turn(&name).await,
    }
}

/// What an account's reconcile waits for: its server; while it has none, all of its region.
fn lane(account: &HelpDeskAccount) -> String {
    match account.status.as_ref().and_then(|s| s.database.as_ref()) {
        Some(database) => format!("server {}", database.server),
        None => format!("region {}", account.spec.region),
    }
}

async fn look(account: &HelpDeskAccount, desk: &Desk) -> Result<Action, Error> {
    if account.meta().deletion_timestamp.is_some() && !deletion_is_confirmed(account) {
        // The definition was deleted, or admission was gone around: no authority over data.
        desk.census.forget(&desk.telemetry, &account.uid().unwrap_or_default());
        return finalizer::let_go(desk, account).await;
    }
    finalizer::hold_on(desk, account).await?;

    let now = (desk.now)();
    let home = match placement::find(desk, account, now).await {
        Err(Error::NeverPlaced) => return finalizer::let_go(desk, account).await,
        home => home?,
    };
    let adopted = home.adopted;
    let facts = observe::observe(desk, account, &home, now).await?;
    let decided = decide::decide(desk, account, home, &facts, now).await?;
    let realized = realize::realize(desk, account, &facts, decided, now).await?;
    let settled = outcome::settle(desk, account, &facts, realized, (desk.now)()).await?;
    report::report(desk, account, &facts, &settled, (desk.now)()).await?;

    if account.meta().deletion_timestamp.is_some() && settled.is_over() {
        hostnames::begin_quarantine(desk, &settled.home.entry, &facts, now).await?;
        return finalizer::let_go(desk, account).await;
    }
    let sleep = sleep_for(settled.wake_at);
    Ok(Action::requeue(if adopted { sleep.min(AFTER_ADOPTION) } else { sleep }))
}

/// Exactly until the deadline, by the clock with its fraction.
fn sleep_for(wake_at: Option<clock::Moment>) -> Duration {
    let until = |at: clock::Moment| Duration::try_from(at.duration_since(clock::precise_now())).unwrap_or(Duration::ZERO);
    wake_at.map_or(LONGEST_SLEEP, |at| (until(at) + Duration::from_millis(1)).min(LONGEST_SLEEP))
}
