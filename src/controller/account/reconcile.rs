//! One reconcile of one account, top to bottom.

use std::time::Duration;

use kube::{Resource, ResourceExt, runtime::controller::Action};
use tracing::Span;

use super::{
    context::AccountContext, decide, error::Error, failure, finalizer, hostnames, notices, observe, outcome, owner, placement, realize,
    report,
};
use crate::{
    api::{HelpDeskAccount, deletion_is_confirmed},
    controller::{API_SERVER, Reconciler, until},
    keyed_semaphore::Permit,
    lifecycle::Stage,
    retry::Backoff,
};

/// When an account that took over data is reconciled again. The server's controller may be shutting it as a lost account
/// at this moment, and is done by then.
const AFTER_ADOPTION: Duration = Duration::from_secs(60);

/// How often a missing owner's Secret is looked up again.
const OWNER_INTERVAL: Duration = Duration::from_secs(10);

impl Reconciler for AccountContext {
    type Object = HelpDeskAccount;
    type Error = Error;
    const NAME: &'static str = "an account";
    const CONTROLLER: &'static str = "HelpDeskAccount";

    fn span(account: &HelpDeskAccount) -> Span {
        let stage = account.status.as_ref().and_then(|s| s.stage).map_or("", Stage::name);
        tracing::info_span!("account", account = account.name_any(), stage)
    }

    fn backoff(&self) -> &Backoff {
        &self.backoff
    }

    /// New and ending accounts have permits of their own. Creating or dropping a database takes seconds, and must never
    /// delay other accounts that are to be blocked or opened on time. Nobody has a turn before every cache was filled.
    async fn permit(&self, account: &HelpDeskAccount) -> Option<Permit> {
        self.filled.clone().await;
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

    fn outage(&self, account: &HelpDeskAccount, error: &Error) -> Option<String> {
        match error {
            Error::Cluster(_) => Some(API_SERVER.to_owned()),
            Error::Store(_) => Some("stores of accounts".to_owned()),
            _ if error.is_of_server() && !error.needs_a_person() => Some(semaphore_key(account)),
            _ => None,
        }
    }

    fn reason(error: &Error) -> &'static str {
        error.reason()
    }

    fn retry_after(&self, account: &HelpDeskAccount, error: &Error, wait: Duration) -> Duration {
        let server = account.status.as_ref().and_then(|s| s.database.as_ref()).map(|database| &database.server);
        if let Some(server) = server.filter(|_| error.is_silence()) {
            self.servers.doubt(server);
        }
        // Owners' Secrets may be in any namespace, and no watch reports when one is created.
        if matches!(error, Error::Owner(_)) { wait.min(OWNER_INTERVAL) } else { wait }
    }
}

/// The key of the semaphore that an account waits for: its server, or its region while it has no server.
fn semaphore_key(account: &HelpDeskAccount) -> String {
    match account.status.as_ref().and_then(|s| s.database.as_ref()) {
        Some(database) => format!("server {}", database.server),
        None => format!("region {}", account.spec.region),
    }
}

async fn reconcile(ctx: &AccountContext, account: &HelpDeskAccount) -> Result<Action, Error> {
    let is_being_deleted = account.meta().deletion_timestamp.is_some();
    // The CRD was deleted, or the admission policy was bypassed: the finalizer is removed, and all data stays.
    if is_being_deleted && !deletion_is_confirmed(account) {
        ctx.last_records.forget(&account.uid().unwrap_or_default());
        ctx.delays.put(&account.uid().unwrap_or_default(), None);
        return finalizer::remove(ctx, account).await;
    }
    finalizer::ensure(ctx, account).await?;

    // The clock is read once; no decision below reads it.
    let now = (ctx.now)();
    // 1. Find the server of the account and its entry in the ledger there. A new account is assigned to a server.
    let placement = match placement::find_or_assign(ctx, account, now).await {
        Err(Error::NeverPlaced) => return finalizer::remove(ctx, account).await,
        found => found?,
    };
    let was_adopted = placement.was_adopted;
    // 2. Read everything that the decision needs. A fact that cannot be read is `Unknown`, with the reason.
    let observed = observe::observe(ctx, account, &placement, now).await?;
    // 3. Decide, and store the decision in the ledger before any effect.
    let decided = decide::decide(ctx, account, placement, &observed, now).await?;
    // 4. Make database, namespace, routes and backups as the stage wants them. Every call can be repeated.
    let realized = realize::realize(ctx, account, &observed, decided, now).await?;
    // 5. Once nothing is waited for, store that the stage is enforced. Its window starts now.
    let mut outcome = outcome::record(ctx, account, &observed, realized, (ctx.now)()).await?;
    notices::tend(ctx, account, &observed, &mut outcome, (ctx.now)()).await?;
    // 6. Write status, conditions and events, where they differ.
    report::report(ctx, account, &observed, &outcome, (ctx.now)()).await?;

    if is_being_deleted && outcome.is_over() {
        // Nobody is left who could ask for it: what is personal goes now, and the cold backup at its deadline.
        hostnames::begin_quarantine(ctx, &outcome.placement.entry, &observed, now).await?;
        owner::scrub_secret(ctx, account).await?;
        outcome::forget_owner(outcome.placement).await?;
        return finalizer::remove(ctx, account).await;
    }
    let sleep = until(outcome.requeue_at);
    Ok(Action::requeue(if was_adopted { sleep.min(AFTER_ADOPTION) } else { sleep }))
}
