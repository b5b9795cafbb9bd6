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

/// What is put before a host name to get the name of the record.
const LABEL: &str = "_helpdesk-operator";

/// How long a record that is missing is taken for missing, when somebody asks again.
const MISSING_FOR: SignedDuration = SignedDuration::from_secs(5);

/// What DNS says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChallengeResult {
    /// The record is there.
    Proven,
    /// The name's servers say that it is not, or hold another one.
    Missing(String),
    /// They could not be asked.
    Unknown(String),
}

/// Asks for proofs, and remembers them for a while.
pub struct ChallengeResolver {
    resolver: Result<TokioResolver, String>,
    again_after: SignedDuration,
    seen: Mutex<HashMap<Challenge, (Moment, ChallengeResult)>>,
    /// So many are asked for at once: servers that are silent must not keep everybody waiting.
    turns: Semaphore,
}

/// Names that are asked for at once.
const AT_ONCE: usize = 8;

/// The record that proves that a host name belongs to this account of this installation.
pub fn challenge(installation: &Installation, uid: &str, host: &str) -> Challenge {
    let token = installation.keyed_hash(&format!("domain:{uid}:{host}"));
    Challenge { record: format!("{LABEL}.{host}"), value: format!("helpdesk-operator={}", &token[..token.len().min(40)]) }
}

impl ChallengeResolver {
    /// Asks these servers, or those that the machine is set up with; a proof is asked for again after a time.
    pub fn new(servers: &[SocketAddr], again_after: SignedDuration) -> Self {
        Self { resolver: resolver(servers).map_err(|e| e.to_string()), again_after, seen: Mutex::default(), turns: Semaphore::new(AT_ONCE) }
    }

    /// After this time a proof is asked for again.
    pub fn again_after(&self) -> SignedDuration {
        self.again_after
    }

    /// Whether the record is there.
    pub async fn of(&self, challenge: &Challenge, now: Moment) -> ChallengeResult {
        if let Some((at, proof)) = self.remembered(challenge) {
            let lasts = if proof == ChallengeResult::Proven { self.again_after } else { MISSING_FOR.min(self.again_after) };
            if now < at + lasts && at <= now {
                return proof;
            }
        }
        let Ok(_turn) = self.turns.try_acquire() else {
            return ChallengeResult::Unknown(format!("DNS is being asked for other names; {} follows", challenge.record));
        };
        let proof = self.ask(challenge).await;
        self.lock().insert(challenge.clone(), (now, proof.clone()));
        proof
    }

    fn remembered(&self, challenge: &Challenge) -> Option<(Moment, ChallengeResult)> {
        self.lock().get(challenge).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Challenge, (Moment, ChallengeResult)>> {
        self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    async fn ask(&self, challenge: &Challenge) -> ChallengeResult {
        let resolver = match &self.resolver {
            Ok(resolver) => resolver,
            Err(why) => return ChallengeResult::Unknown(why.clone()),
        };
        match resolver.txt_lookup(format!("{}.", challenge.record)).await {
            Ok(found) => {
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
    // What is remembered is remembered here, and not for as long as an owner's servers would like it.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    builder.build()
}
