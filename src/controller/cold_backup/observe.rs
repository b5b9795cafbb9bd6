//! Reads what the decision about a backup needs. A fact that cannot be read is `Unknown`, which delays an erasure.

use std::sync::PoisonError;

use k8s_openapi::jiff::{Timestamp, fmt::rfc2822::DateTimeParser};
use kube::{Api, Client, ResourceExt};

use super::{
    decide::{Deletion, Facts},
    error::Error,
    placement,
    work::Work,
};
use crate::cluster::During;
use crate::controller::placement::Placement;
use crate::error_chain::chain;
use crate::{
    api::{BackupPhase, CONFIRM_DELETE, ColdBackup, HelpDeskAccount},
    backup::retention::{self, Claim},
    clock::{self, Moment, Trust},
    lifecycle::{Known, Record},
};

/// Reads the facts. Clocks are compared only if an erasure is due.
pub(super) async fn facts(work: &Work<'_>, placement: Option<&Result<Placement, placement::Error>>) -> Result<Facts, Error> {
    let (ctx, backup, status) = (work.ctx, work.backup, &work.status);
    let accounts: Api<HelpDeskAccount> = Api::all(ctx.client.clone());
    let account = accounts.get_opt(&backup.spec.account).await.during("read the account")?;
    let known = placement.and_then(|placement| placement.as_ref().ok());
    // An adopted account has an object with another uid.
    let object_uid = known.map_or(&backup.spec.account_uid, |placement| &placement.entry.object_uid);
    let own = account.as_ref().filter(|a| a.uid().as_ref() == Some(object_uid));
    let record = known.map(|placement| &placement.entry.record);

    let shown = own.and_then(|a| a.status.as_ref()?.data_gone_by.as_ref()).map(|at| at.0);
    let deadline = retention::deadline(&backup.spec, record.map_or(shown, |r| r.data_gone_by));
    let deletion = deletion(backup);
    let ends = deadline <= work.now || deletion == Deletion::Confirmed || status.phase == BackupPhase::Erasing;
    let failed_at = ctx.failed.lock().unwrap_or_else(PoisonError::into_inner).get(&backup.uid().unwrap_or_default()).copied();
    Ok(Facts {
        phase: status.phase,
        reason: backup.spec.reason,
        deadline,
        deletion,
        held: held(backup, own, record, work.now),
        restoring_since: match placement {
            None | Some(Err(placement::Error::Unknown { .. })) => Known::Known(None),
            Some(Ok(placement)) => Known::Known(placement.entry.record.restoring_since),
            Some(Err(error)) => Known::Unknown(chain(error)),
        },
        newest_until: if ends && status.phase == BackupPhase::Verified { newest_until(work, own, record).await } else { None },
        clock: if ends && status.phase != BackupPhase::Erased { trust(work, known).await } else { Trust::Trusted },
        // An adopted account has an object of the same name with another uid, so only the name counts.
        account_gone: account.is_none(),
        failed: failed_at.map(|at| (at, status.attempts)),
    })
}

/// Until when the backup is kept as the newest proven one. While the ledger cannot be read, what the account's object shows
/// counts: it only keeps the backup.
async fn newest_until(work: &Work<'_>, account: Option<&HelpDeskAccount>, record: Option<&Record>) -> Option<Moment> {
    let (backups, now) = (&work.ctx.backups, work.now);
    backups.filled().await;
    // The cache may have older statuses than those that were written last.
    let written = |backup: &ColdBackup| ColdBackup { status: Some(work.ctx.newest(backup)), ..backup.clone() };
    let others: Vec<_> = backups.of_account_uid(&work.backup.spec.account_uid).iter().map(|other| written(other)).collect();
    let claim = match (record, account) {
        (Some(record), _) => Claim::of(record, now),
        (None, Some(account)) => Claim::shown(account, now),
        (None, None) => Claim::None,
    };
    let recorded = work.status.retained_until.as_ref().map(|until| until.0);
    retention::kept_as_newest(&written(work.backup), &others, claim, recorded, now)
}

fn deletion(backup: &ColdBackup) -> Deletion {
    match (&backup.metadata.deletion_timestamp, backup.annotations().get(CONFIRM_DELETE)) {
        (None, _) => Deletion::No,
        (Some(_), Some(name)) if *name == backup.name_any() => Deletion::Confirmed,
        (Some(_), _) => Deletion::Unconfirmed,
    }
}

/// Why the backup is held: it has a hold, or its account has a hold that was not copied yet, or the notice after a hold
/// still runs.
fn held(backup: &ColdBackup, account: Option<&HelpDeskAccount>, record: Option<&Record>, now: Moment) -> Option<String> {
    if let Some(hold) = &backup.spec.hold {
        return Some(hold.reason.clone());
    }
    if let Some(hold) = account.and_then(|a| a.spec.hold.as_ref()) {
        return Some(format!("hold of the account: {}", hold.reason));
    }
    let record = record?;
    if record.held_since.is_some() {
        return Some("the account is held".into());
    }
    let until = record.notice_until.filter(|until| *until > now)?;
    Some(format!("the account was held; the notice runs until {until}"))
}

/// Compares this machine's clock with the clocks of the API server, the database server and the bucket, and with the
/// latest time that was ever recorded. Clocks of an API server or a bucket that does not answer are left out.
async fn trust(work: &Work<'_>, placement: Option<&Placement>) -> Trust {
    let (ctx, backup, now) = (work.ctx, work.backup, work.now);
    let status = &work.status;
    let recorded = [&status.started_at, &status.completed_at, &status.verified_at].into_iter().flatten().map(|at| at.0);
    let mut high_water = recorded.chain(backup.creation_timestamp().map(|at| at.0)).max();
    let mut others = Vec::new();
    if let Some(at) = api_server(&ctx.client).await {
        others.push(("the API server".to_owned(), at));
    }
    if let Some(placement) = placement {
        match (placement.server.ledger.high_water().await, placement.server.driver.identify().await) {
            (Ok(mark), Ok(identity)) => {
                high_water = high_water.max(mark);
                others.push((format!("the server {}", placement.server.name), clock::whole_seconds(identity.now)));
            }
            (Err(error), _) => return Trust::Doubtful(chain(&error)),
            (_, Err(error)) => return Trust::Doubtful(chain(&error)),
        }
    }
    if let Ok(store) = ctx.stores.get(&backup.spec.store).await
        && store.check_identity().await.is_ok()
        && let Some(seen) = store.bucket.clock()
    {
        // Both clocks were read together, a moment ago; the time since then is added.
        others.push((format!("the store {}", backup.spec.store), clock::whole_seconds(seen.theirs + now.duration_since(seen.ours))));
    }
    if others.is_empty() {
        return Trust::Doubtful("no other clock could be asked".into());
    }
    let others: Vec<_> = others.iter().map(|(whose, at)| (whose.as_str(), *at)).collect();
    clock::compare(now, high_water, &others)
}

async fn api_server(client: &Client) -> Option<Moment> {
    let request = http::Request::get("/version").body(kube::client::Body::empty()).ok()?;
    let answer = client.send(request).await.ok()?;
    let date = answer.headers().get(http::header::DATE)?.to_str().ok()?;
    let at: Timestamp = DateTimeParser::new().parse_timestamp(date).ok()?;
    Some(clock::whole_seconds(at))
}
