//! One reconcile of one account, top to bottom.

use std::time::Duration;

use kube::{Resource, ResourceExt, runtime::controller::Action};
use tracing::Span;

use super::{context::AccountContext, decide, error::Error, failure, finalizer, hostnames, observe, outcome, placement, realize, report};
use crate::{
    api::{HelpDeskAccount, deletion_is_confirmed},
    controller::{Reconciler, until},
    keyed_semaphore::Permit,
    lifecycle::Stage,
    retry::Backoff,
};

/// When an account that took over its data is reconciled again: whoever shut it as a lost one at the same moment is done
/// by then.
const AFTER_ADOPTION: Duration = Duration::from_secs(60);

/// How often an owner's Secret is looked for that is not there.
const OWNER_INTERVAL: Duration = Duration::from_secs(10);

impl Reconciler for AccountContext {
    type Object = HelpDeskAccount;
    type Error = Error;
    const NAME: &'static str = "an account";

    fn span(account: &HelpDeskAccount) -> Span {
        let stage = account.status.as_ref().and_then(|s| s.stage).map_or("", Stage::name);
        tracing::info_span!("account", account = account.name_any(), stage)
    }

    fn backoff(&self) -> &Backoff {
        &self.backoff
    }

    /// Making a database and dropping one take seconds, and only a few are made or dropped at once: an account that waits
    /// for that must not keep others from being blocked or opened on time.
    async fn permit(&self, account: &HelpDeskAccount) -> Option<Permit> {
        let key = semaphore_key(account);
        match account.status.as_ref().and_then(|s| s.stage) {
            None => self.slow_permits.acquire(&format!("{key} beginning")).await,
            Some(stage) if stage >= Stage::Terminated => self.slow_permits.acquire(&format!("{key} ending")).await,
            Some(_) => self.permits.acquire(&key).await,
        }
    }

    async fn reconcile(&self, account: &HelpDeskAccount) -> Result<Action, Error> {
        let result = Box::pin(reconcile(self, account)).await;
        if let Err(error) = &result {
            failure::report(self, account, error).await;
        }
        result
    }

    fn reason(error: &Error) -> &'static str {
        error.reason()
    }

    fn retry_after(&self, account: &HelpDeskAccount, error: &Error, wait: Duration) -> Duration {
        let server = account.status.as_ref().and_then(|s| s.database.as_ref()).map(|database| &database.server);
        if let Some(server) = server.filter(|_| error.is_silence()) {
            self.servers.doubt(server);
        }
        // Secrets of owners may be anywhere, so no watch announces that one was made.
        if matches!(error, Error::Owner(_)) { wait.min(OWNER_INTERVAL) } else { wait }
    }
}

/// The semaphore that an account waits for: that of its server; while it has none, that of its region.
fn semaphore_key(account: &HelpDeskAccount) -> String {
    match account.status.as_ref().and_then(|s| s.database.as_ref()) {
        Some(database) => format!("server {}", database.server),
        None => format!("region {}", account.spec.region),
    }
}

async fn reconcile(ctx: &AccountContext, account: &HelpDeskAccount) -> Result<Action, Error> {
    let is_being_deleted = account.meta().deletion_timestamp.is_some();
    // Its definition was deleted, or the admission policy was bypassed: the finalizer goes, and all data stays.
    if is_being_deleted && !deletion_is_confirmed(account) {
        ctx.stage_counts.forget(&ctx.telemetry, &account.uid().unwrap_or_default());
        return finalizer::remove(ctx, account).await;
    }
    finalizer::ensure(ctx, account).await?;

    // Read once: no decision below reads a clock.
    let now = (ctx.now)();
    // 1. Which server holds the account, and what its ledger says. A new account is assigned to a server.
    let placement = match placement::find_or_assign(ctx, account, now).await {
        Err(Error::NeverPlaced) => return finalizer::remove(ctx, account).await,
        found => found?,
    };
    let was_adopted = placement.was_adopted;
    // 2. Everything that the decision needs. What cannot be read is unknown, with the reason.
    let observed = observe::observe(ctx, account, &placement, now).await?;
    // 3. The decision, stored in the ledger before any effect.
    let decided = decide::decide(ctx, account, placement, &observed, now).await?;
    // 4. Database, namespace, routes and backups as the stage wants them. Every call can be repeated.
    let realized = realize::realize(ctx, account, &observed, decided, now).await?;
    // 5. Once nothing is waited for, the stage is enforced: stored, and its window starts.
    let outcome = outcome::record(ctx, account, &observed, realized, (ctx.now)()).await?;
    // 6. Status, conditions and events, where they differ.
    report::report(ctx, account, &observed, &outcome, (ctx.now)()).await?;

    if is_being_deleted && outcome.is_over() {
        hostnames::begin_quarantine(ctx, &outcome.placement.entry, &observed, now).await?;
        return finalizer::remove(ctx, account).await;
    }
    let sleep = until(outcome.requeue_at);
    Ok(Action::requeue(if was_adopted { sleep.min(AFTER_ADOPTION) } else { sleep }))
}
