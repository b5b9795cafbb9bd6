//! Connects each DatabaseServer once, and reconnects when its spec or its Secrets change.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt};
use tokio::time::{Instant, timeout};

use super::{
    Error, Password, Server, ServerInfo,
    postgres::{Address, Admin, Driver},
};
use crate::{
    api::{ACCEPT_IDENTITY, DatabaseServer, DatabaseServerSpec, Engine},
    ledger::{Claim, Ledger, OnRoll},
};

/// The database servers by the names of their `DatabaseServer` objects, connected when they are first asked for.
pub struct Servers {
    client: Client,
    namespace: String,
    installation_id: String,
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    holds: Mutex<HashMap<String, Arc<Holds>>>,
}

/// Whose data a server holds, as its ledger said when it was read last. Only the operator that leads adds to it, so while
/// it leads this stays true of a server that does not answer any more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    /// The names of accounts with data.
    pub names: BTreeSet<String>,
    /// Every accountID, also of those that have expired.
    pub account_ids: BTreeSet<String>,
}

impl Holds {
    /// By a ledger's roll.
    pub fn of(roll: &[OnRoll]) -> Self {
        Self {
            names: roll.iter().filter(|line| line.has_data).map(|line| line.account.clone()).collect(),
            account_ids: roll.iter().filter_map(|line| line.account_id.clone()).collect(),
        }
    }
}

/// One server. Whoever asks while it is being looked at waits for the same answer; but of one that failed last, the
/// failure is the answer at once, and only who looks waits: a server that hangs would keep everybody waiting.
#[derive(Default)]
struct Slot {
    remembered: tokio::sync::Mutex<Option<CachedConnection>>,
    /// The last outcome, if it was a failure.
    failing: Mutex<Option<Error>>,
    /// What is remembered has to be looked at again before it counts.
    doubted: AtomicBool,
    /// The connection has to be made anew.
    broken: AtomicBool,
}

impl Slot {
    async fn lock(&self) -> Result<tokio::sync::MutexGuard<'_, Option<CachedConnection>>, Error> {
        if let Ok(free) = self.remembered.try_lock() {
            return Ok(free);
        }
        match self.failing() {
            Some(error) => Err(error),
            None => Ok(self.remembered.lock().await),
        }
    }

    fn failing(&self) -> Option<Error> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, failure: Option<Error>) {
        *self.failing.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }
}

struct CachedConnection {
    looked_at: Instant,
    basis: ConnectionInputs,
    outcome: Result<Arc<ConnectedServer>, Error>,
}

/// What a connection was made from; when it changed the connection is made anew.
#[derive(Clone, PartialEq, Eq, Default)]
struct ConnectionInputs {
    uid: String,
    spec: String,
    admin: String,
    authority: String,
}

/// One server that was reached, identified and whose ledger is this installation's.
#[derive(Debug)]
pub struct ConnectedServer {
    /// The name of the `DatabaseServer`.
    pub name: String,
    /// Its spec when it was connected.
    pub spec: DatabaseServerSpec,
    /// The server.
    pub driver: Server,
    /// Its ledger.
    pub ledger: Ledger,
    /// Who it said it was when it was connected.
    pub identity: ServerInfo,
}

/// How long an answer is good before the objects are looked at again.
const FRESH: Duration = Duration::from_secs(10);
/// How long a failure is everybody's answer.
const FAILED: Duration = Duration::from_secs(5);
/// How long the cluster may take to tell an object.
const READ: Duration = Duration::from_secs(10);

impl Servers {
    /// Knows no server yet. `namespace` is the operator's, where Secrets are read; `installation_id` claims ledgers.
    pub fn new(client: Client, namespace: &str, installation_id: &str) -> Self {
        let (namespace, installation_id) = (namespace.to_owned(), installation_id.to_owned());
        Self { client, namespace, installation_id, slots: Mutex::default(), holds: Mutex::default() }
    }

    /// The server, connected. Looks at its object and Secrets again every few seconds and connects anew when they
    /// changed. A failure is remembered for a few seconds too: a dead server is not asked by every account.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get(&self, name: &str) -> Result<Arc<ConnectedServer>, Error> {
        let slot = self.slot(name);
        let mut remembered = slot.lock().await?;
        if slot.broken.swap(false, Ordering::Relaxed) {
            *remembered = None;
        }
        let doubted = slot.doubted.swap(false, Ordering::Relaxed);
        if let Some(CachedConnection { looked_at, outcome, .. }) = remembered.as_ref().filter(|_| !doubted) {
            let good_for = if outcome.is_ok() { FRESH } else { FAILED };
            if looked_at.elapsed() < good_for {
                return outcome.clone();
            }
        }
        let (basis, outcome) = match self.look(name).await {
            Err(error) => (ConnectionInputs::default(), Err(error)),
            Ok(seen) => match remembered.take() {
                Some(CachedConnection { basis, outcome: Ok(connected), .. }) if basis == seen.basis => {
                    let identity = if doubted { connected.driver.identify().await } else { Ok(connected.identity.clone()) };
                    (basis, identity.and_then(|identity| seen.recognise(&identity)).map(|()| connected))
                }
                _ => (seen.basis.clone(), self.connect(seen).await.map(Arc::new)),
            },
        };
        *remembered = Some(CachedConnection { looked_at: Instant::now(), basis, outcome: outcome.clone() });
        slot.note(outcome.as_ref().err().cloned());
        outcome
    }

    /// The next [`Self::get`] looks at the server's object and Secrets, and asks the server whether it is there.
    pub fn doubt(&self, name: &str) {
        self.slot(name).doubted.store(true, Ordering::Relaxed);
    }

    /// The next [`Self::get`] looks again and connects anew.
    pub fn invalidate(&self, name: &str) {
        self.slot(name).broken.store(true, Ordering::Relaxed);
    }

    /// Forgets a server that is not there any more.
    pub fn forget(&self, name: &str) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Remembers whose data a server holds.
    pub fn remember_holds(&self, name: &str, holds: Holds) {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), Arc::new(holds));
    }

    /// Whose data a server holds, if its ledger was read since this process runs.
    pub fn holds(&self, name: &str) -> Option<Arc<Holds>> {
        self.holds.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn slot(&self, name: &str) -> Arc<Slot> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).entry(name.to_owned()).or_default().clone()
    }

    async fn look(&self, name: &str) -> Result<ServerObject, Error> {
        let servers: Api<DatabaseServer> = Api::all(self.client.clone());
        let object = read(format!("the DatabaseServer {name}"), servers.get_opt(name)).await?;
        let object = object.ok_or_else(|| Error::NoSuchServer(name.to_owned()))?;
        let spec = object.spec.clone();

        let admin = self.secret(&spec.admin_secret).await?;
        let key = |key| text(&admin, &spec.admin_secret, key);
        let (host, username, password) = (key("host")?, key("username")?, key("password")?);
        if host != spec.host {
            return Err(Error::HostMismatch { secret: spec.admin_secret, found: host, wanted: spec.host });
        }
        let mut authority = String::new();
        let ca_pem = match &spec.tls.ca_secret {
            None => None,
            Some(name) => {
                let secret = self.secret(name).await?;
                authority = version(&secret);
                Some(text(&secret, name, "ca.crt")?)
            }
        };
        Ok(ServerObject {
            basis: ConnectionInputs {
                uid: object.uid().unwrap_or_default(),
                // Only what the connection rests on, and what callers read from it: any change counts.
                spec: serde_json::to_string(&spec).unwrap_or_default(),
                admin: version(&admin),
                authority,
            },
            accepted: object.annotations().get(ACCEPT_IDENTITY).cloned(),
            timeline: object.status.as_ref().and_then(|status| status.timeline),
            recorded: object.status.as_ref().and_then(|status| status.system_identifier.clone()),
            address: Address { host: spec.host.clone(), port: spec.port, tls: spec.tls.mode, ca_pem },
            admin: Admin { username, password: Password::from_text(password) },
            name: name.to_owned(),
            spec,
        })
    }

    /// Connects the server, and claims it for this `DatabaseServer`. One that another has is taken over only once that object
    /// is gone.
    async fn connect(&self, seen: ServerObject) -> Result<ConnectedServer, Error> {
        let connected = seen.connect(&self.installation_id).await?;
        let holder = connected.ledger.claim_server(&connected.name).await?;
        if holder != connected.name {
            let servers: Api<DatabaseServer> = Api::all(self.client.clone());
            if read(format!("the DatabaseServer {holder}"), servers.get_metadata_opt(&holder)).await?.is_some() {
                return Err(Error::ServerTaken(holder));
            }
            connected.ledger.hand_over_server(&holder, &connected.name).await?;
        }
        Ok(connected)
    }

    async fn secret(&self, name: &str) -> Result<Secret, Error> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = read(format!("the Secret {name}"), secrets.get_opt(name)).await?;
        found.ok_or_else(|| Error::SecretMissing {
            secret: name.to_owned(),
            problem: format!("it does not exist in the namespace {}; create it", self.namespace),
        })
    }
}

/// What a connection is made from.
struct ServerObject {
    name: String,
    spec: DatabaseServerSpec,
    basis: ConnectionInputs,
    recorded: Option<String>,
    /// The newest timeline of that identity.
    timeline: Option<i32>,
    /// The identity that a person has accepted.
    accepted: Option<String>,
    address: Address,
    admin: Admin,
}

impl ServerObject {
    async fn connect(self, installation_id: &str) -> Result<ConnectedServer, Error> {
        let (server, pool) = match self.spec.engine {
            Engine::Postgresql => {
                let (driver, pool) = Driver::connect(self.address.clone(), &self.admin).await?;
                (Server::Postgres(driver), pool)
            }
        };
        let identity = server.identify().await?;
        self.recognise(&identity)?;
        let ledger = Ledger::new(pool);
        // A ledger of somebody else is not even brought up to date.
        if let Some(id) = ledger.claimed_by().await?.filter(|id| id != installation_id) {
            return Err(Error::ForeignLedger(id));
        }
        ledger.migrate().await?;
        match ledger.claim(installation_id).await? {
            Claim::Ours => Ok(ConnectedServer { name: self.name, spec: self.spec, driver: server, ledger, identity }),
            Claim::Foreign(id) => Err(Error::ForeignLedger(id)),
        }
    }

    fn recognise(&self, identity: &ServerInfo) -> Result<(), Error> {
        recognise(self.recorded.as_deref(), self.timeline, self.accepted.as_deref(), identity)
    }
}

/// Whether it is the server that status remembers, one that a person has accepted, or one that status does not know yet.
fn recognise(recorded: Option<&str>, timeline: Option<i32>, accepted: Option<&str>, identity: &ServerInfo) -> Result<(), Error> {
    let seen = identity.system_identifier.as_str();
    match recorded {
        None => Ok(()),
        Some(recorded) if recorded == seen => match (timeline, identity.timeline) {
            (Some(recorded), Some(seen)) if seen < recorded => Err(Error::FormerPrimary { recorded, seen }),
            _ => Ok(()),
        },
        Some(_) if accepted == Some(seen) => Ok(()),
        Some(recorded) => Err(Error::IdentityChanged { recorded: recorded.to_owned(), seen: seen.to_owned() }),
    }
}

async fn read<T>(what: String, work: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Error> {
    match timeout(READ, work).await {
        Ok(result) => result.map_err(|error| Error::ReadObject { what, source: error.into() }),
        Err(_) => Err(Error::TooSlow { step: "read the DatabaseServer and its Secrets from the cluster", seconds: READ.as_secs() }),
    }
}

fn version(secret: &Secret) -> String {
    format!("{}/{}", secret.uid().unwrap_or_default(), secret.resource_version().unwrap_or_default())
}

fn text(secret: &Secret, name: &str, key: &'static str) -> Result<String, Error> {
    let missing = |problem: String| Error::SecretMissing { secret: name.to_owned(), problem };
    let bytes = secret.data.as_ref().and_then(|data| data.get(key)).ok_or_else(|| missing(format!("add its key {key}")))?;
    let text = String::from_utf8(bytes.0.clone()).map_err(|_| missing(format!("its key {key} is no text")))?;
    // A file that became a key often ends in a newline, which no name, password or host does.
    let text = if key == "ca.crt" { text } else { text.trim_end_matches(['\n', '\r']).to_owned() };
    if text.is_empty() { Err(missing(format!("its key {key} is empty"))) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Connections;

    #[test]
    fn a_server_of_another_identity_or_on_an_older_timeline_is_refused_unless_a_person_accepted_it() {
        let server = |identifier: &str, timeline| ServerInfo {
            version: "17.7".into(),
            major: 17,
            system_identifier: identifier.into(),
            timeline: Some(timeline),
            now: k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
            connections: Connections { promised: 0, offered: 100, kept: 10 },
        };
        assert!(recognise(None, None, None, &server("7412", 1)).is_ok());
        assert!(recognise(Some("7412"), Some(3), None, &server("7412", 3)).is_ok());
        assert!(recognise(Some("7412"), Some(3), None, &server("7412", 4)).is_ok(), "a promoted standby");
        assert!(matches!(recognise(Some("7412"), Some(3), None, &server("7412", 2)), Err(Error::FormerPrimary { recorded: 3, seen: 2 })));
        assert!(matches!(recognise(Some("7412"), Some(3), None, &server("7500", 9)), Err(Error::IdentityChanged { .. })));
        assert!(matches!(recognise(Some("7412"), Some(3), Some("7600"), &server("7500", 9)), Err(Error::IdentityChanged { .. })));
        assert!(recognise(Some("7412"), Some(3), Some("7500"), &server("7500", 1)).is_ok(), "pg_upgrade begins with timeline 1");
    }
}
