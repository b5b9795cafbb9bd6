//! The TXT record by which a tenant proves that a host name is its own.

use std::{collections::HashMap, net::SocketAddr, sync::Mutex, time::Duration};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{DnsError, NetError, NoRecords, runtime::TokioRuntimeProvider},
    proto::{op::ResponseCode, rr::RData},
};
use k8s_openapi::jiff::SignedDuration;
use tokio::sync::Semaphore;

use crate::{api::account::Challenge, clock::Moment, installation::Installation};

/// The label before a host name in the name of its TXT record.
const LABEL: &str = "_helpdesk-operator";

/// How long a result other than `Proven` is cached, and every result where two accounts want the name.
const MISSING_FOR: SignedDuration = SignedDuration::from_secs(5);

/// The result of one DNS query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChallengeResult {
    /// The record is there.
    Proven,
    /// The name's DNS servers have no such record, or one with another value.
    Missing(String),
    /// The DNS query failed.
    Unknown(String),
}

/// Resolves TXT records, and caches the results for a while.
pub struct ChallengeResolver {
    resolver: Result<TokioResolver, String>,
    again_after: SignedDuration,
    cache: Mutex<HashMap<Challenge, (Moment, ChallengeResult)>>,
    /// Limits concurrent queries. A reconcile without a permit does not wait, because DNS servers may not answer.
    permits: Semaphore,
}

/// How many queries run at once.
const AT_ONCE: usize = 8;

/// The record that proves that a host name belongs to this account of this installation.
pub fn challenge(installation: &Installation, uid: &str, host: &str) -> Challenge {
    let token = installation.keyed_hash(&format!("domain:{uid}:{host}"));
    Challenge { record: format!("{LABEL}.{host}"), value: format!("helpdesk-operator={}", &token[..token.len().min(40)]) }
}

impl ChallengeResolver {
    /// Queries `servers`, or the system's if there are none. A proof is cached for `again_after`.
    pub fn new(servers: &[SocketAddr], again_after: SignedDuration) -> Self {
        Self {
            resolver: resolver(servers).map_err(|e| e.to_string()),
            again_after,
            cache: Mutex::default(),
            permits: Semaphore::new(AT_ONCE),
        }
    }

    /// The interval after which a proof is repeated.
    pub fn again_after(&self) -> SignedDuration {
        self.again_after
    }

    /// Whether the record is there, from the cache or by a query.
    pub async fn of(&self, challenge: &Challenge, now: Moment) -> ChallengeResult {
        self.within(challenge, self.again_after, now).await
    }

    /// The same where another account wants the name: a proof counts for seconds only.
    pub async fn of_contended(&self, challenge: &Challenge, now: Moment) -> ChallengeResult {
        self.within(challenge, MISSING_FOR, now).await
    }

    async fn within(&self, challenge: &Challenge, proven_for: SignedDuration, now: Moment) -> ChallengeResult {
        if let Some((at, result)) = self.cached(challenge) {
            let lifetime = if result == ChallengeResult::Proven { proven_for } else { MISSING_FOR.min(self.again_after) };
            if now < at + lifetime && at <= now {
                return result;
            }
        }
        let Ok(_permit) = self.permits.try_acquire() else {
            return ChallengeResult::Unknown(format!("DNS is being asked for other names; {} follows", challenge.record));
        };
        let result = self.query(challenge).await;
        self.lock().insert(challenge.clone(), (now, result.clone()));
        result
    }

    fn cached(&self, challenge: &Challenge) -> Option<(Moment, ChallengeResult)> {
        self.lock().get(challenge).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Challenge, (Moment, ChallengeResult)>> {
        self.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Queries the record. An alias is no proof: a wildcard such as `*.example.com CNAME desk.example` answers for this name
    /// too, and whoever has its target could publish the record there (go-acme/lego#1816). The answers do not tell a wildcard
    /// from an alias that somebody set for this name.
    async fn query(&self, challenge: &Challenge) -> ChallengeResult {
        let resolver = match &self.resolver {
            Ok(resolver) => resolver,
            Err(why) => return ChallengeResult::Unknown(why.clone()),
        };
        match resolver.txt_lookup(format!("{}.", challenge.record)).await {
            Ok(found) => {
                if found.answers().iter().any(|record| matches!(record.data, RData::CNAME(_))) {
                    return ChallengeResult::Missing(format!(
                        "{} is an alias (CNAME) of another name, which proves nothing; publish the TXT record itself there",
                        challenge.record
                    ));
                }
                let texts = found.answers().iter().filter_map(|record| match &record.data {
                    RData::TXT(text) => Some(text.txt_data.concat()),
                    _ => None,
                });
                if texts.into_iter().any(|text| text == challenge.value.as_bytes()) {
                    return ChallengeResult::Proven;
                }
                ChallengeResult::Missing(format!("the TXT record {} has another value", challenge.record))
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(NoRecords {
                response_code: ResponseCode::NXDomain | ResponseCode::NoError,
                ..
            }))) => ChallengeResult::Missing(format!("there is no TXT record {}", challenge.record)),
            Err(error) => ChallengeResult::Unknown(format!("DNS could not be asked for {}: {error}", challenge.record)),
        }
    }
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, NetError> {
    let mut builder = if servers.is_empty() {
        TokioResolver::builder_tokio()?
    } else {
        let servers = servers.iter().map(|server| {
            let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
            for connection in &mut connections {
                connection.port = server.port();
            }
            NameServerConfig::new(server.ip(), true, connections)
        });
        TokioResolver::builder_with_config(ResolverConfig::from_name_servers(servers.collect()), TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.timeout = Duration::from_secs(3);
    options.attempts = 2;
    // Only this cache keeps results: the TTL that a tenant's DNS server sends must not decide how long.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    builder.build()
}
