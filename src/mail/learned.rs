//! What the filter has learned for each tenant, and its end.
//!
//! rspamd keeps it in Redis, below `RS` and the tenant's uid: hashed words with counts, from which no message can be taken
//! out again. So it is erased as a whole. It goes when the account reaches Deleted, or when its object is gone. The list of
//! messages that were learned has hashes of all tenants' messages, and goes with it each time: the worst that follows is
//! that another tenant's message is learned twice.

use std::{io, sync::Arc, time::Duration};

use super::{
    directory::{Directory, Life},
    redis::Redis,
};

/// The start of every key of a tenant.
const PREFIX: &str = "RS";
/// The lists of tenants for whom something was learned.
const LISTS: [&str; 2] = ["BAYES_SPAM_keys", "BAYES_HAM_keys"];
/// The list of messages that were learned, in parts.
const MESSAGES: &str = "learned_ids*";
/// How often it is looked for what has to go.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How many keys are deleted at once.
const AT_ONCE: usize = 500;

/// Whether anything is left of what was learned for the tenant with this uid.
pub(super) async fn is_any_left(uid: &str) -> io::Result<bool> {
    let mut redis = Redis::connect().await?;
    Ok(tenants(&mut redis).await?.iter().any(|tenant| tenant == uid) || !redis.keys(&pattern(uid)?).await?.is_empty())
}

/// Erases what was learned for the tenant with this uid.
pub(super) async fn erase(uid: &str) -> io::Result<()> {
    let mut redis = Redis::connect().await?;
    let mut keys = redis.keys(&pattern(uid)?).await?;
    let count = keys.len();
    keys.extend(redis.keys(MESSAGES).await?);
    for some in keys.chunks(AT_ONCE) {
        let words: Vec<_> = std::iter::once("UNLINK").chain(some.iter().map(String::as_str)).collect();
        redis.ask(&words).await?;
    }
    // Last: whatever is cut off before this is found again.
    for list in LISTS {
        redis.ask(&["SREM", list, &format!("{PREFIX}{uid}")]).await?;
    }
    // The file to which Redis appends still has it until it is written anew.
    if let Err(error) = redis.ask(&["BGREWRITEAOF"]).await {
        tracing::info!(%error, "the file of what was learned is being written anew already");
    }
    tracing::info!(uid, keys = count, "what the filter had learned for a tenant was erased");
    Ok(())
}

/// The keys of a tenant. A uid is made of hexadecimal digits and hyphens: nothing that a pattern could mean otherwise.
fn pattern(uid: &str) -> io::Result<String> {
    let is_uid = uid.len() >= 16 && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    is_uid.then(|| format!("{PREFIX}{uid}*")).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no uid of an account"))
}

/// The uids of tenants for whom something was learned.
async fn tenants(redis: &mut Redis) -> io::Result<Vec<String>> {
    let mut found = vec![];
    for list in LISTS {
        found.extend(redis.ask(&["SMEMBERS", list]).await?.texts());
    }
    found.sort();
    found.dedup();
    Ok(found.iter().filter_map(|key| key.strip_prefix(PREFIX)).map(str::to_owned).collect())
}

/// Erases what has to go, until the process ends.
pub(super) async fn keep_erasing(directory: Arc<Directory>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if let Err(error) = erase_what_has_to_go(&directory).await {
            tracing::warn!(%error, "failed to look for what the filter has to forget; it is tried again");
        }
    }
}

async fn erase_what_has_to_go(directory: &Directory) -> io::Result<()> {
    let mut redis = Redis::connect().await?;
    for uid in tenants(&mut redis).await? {
        if directory.life_of(&uid) == Life::Over {
            erase(&uid).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_uid_matches_another_tenants_keys() {
        assert_eq!(pattern("8f3a1111-2222-3333-4444-555566667777").unwrap(), "RS8f3a1111-2222-3333-4444-555566667777*");
        for not_one in ["", "*", "8f3a", "8f3a1111-2222-3333-4444-55556666777?", "[a-z]8f3a1111-2222-3333"] {
            assert!(pattern(not_one).is_err(), "{not_one}");
        }
    }
}
