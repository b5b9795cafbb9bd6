//! The process: leader election, which controllers run, shutdown.

use std::{
    net::{Ipv6Addr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use clap::Args as ClapArgs;
use futures::future::{FutureExt, Shared};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::SignedDuration;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use crate::{
    api::{Window, account::OtherCopy},
    clock, cluster,
    context::{Context, LONGEST_NOTE, Patience, Settings},
    controller,
    database::Servers,
    error_chain::chain,
    http,
    installation::Installation,
    leader::Leadership,
    mover::{Clients, job::MoverPod},
    notices::Endpoint,
    readiness::{self, Readiness},
    rights::Reviewer,
    store::Stores,
    telemetry::{self, Telemetry},
};

/// How the operator is run.
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// The operator's own namespace, with its Secrets, movers and lease.
    #[arg(long, env = "HELPDESK_OPERATOR_NAMESPACE", default_value = "helpdesk-operator")]
    namespace: String,
    /// The image of movers; this program's own.
    #[arg(long, env = "HELPDESK_OPERATOR_IMAGE")]
    image: String,
    /// What is said about the pods of movers, as JSON with the fields of a pod: serviceAccountName, imagePullPolicy,
    /// imagePullSecrets, nodeSelector, tolerations, affinity, priorityClassName, resources, labels, annotations.
    #[arg(long, env = "HELPDESK_OPERATOR_MOVER_POD", value_parser = mover_pod, default_value = "{}")]
    mover_pod: Box<MoverPod>,
    /// The major versions of the PostgreSQL clients in that image, such as 17,18. Without it those count that this
    /// program finds beside itself.
    #[arg(long, env = "HELPDESK_OPERATOR_CLIENT_MAJORS", value_delimiter = ',')]
    client_majors: Vec<u32>,
    /// Where this program looks for them, one folder a major version.
    #[arg(long, default_value = "/usr/lib/postgresql")]
    postgresql: PathBuf,
    /// Look after the objects with this value of the label helpdesk-operator.io/shard only; without it, after those
    /// without the label.
    #[arg(long, env = "HELPDESK_OPERATOR_SHARD")]
    shard: Option<String>,
    /// A Lease, as NAMESPACE/NAME, that billing renews while it works. Once it runs out, nothing is done that only
    /// billing's silence would justify.
    #[arg(long, env = "HELPDESK_OPERATOR_BILLING_LEASE", value_parser = namespaced_name)]
    billing_lease: Option<(String, String)>,
    /// The mail intake, as NAMESPACE/NAME of its Service: tenants' apps are opened to it.
    #[arg(long, env = "HELPDESK_OPERATOR_MAIL", value_parser = namespaced_name)]
    mail: Option<(String, String)>,
    /// The name of its mail server in DNS, as MX records have it.
    #[arg(long, env = "HELPDESK_OPERATOR_MAIL_HOSTNAME", requires = "mail")]
    mail_hostname: Option<String>,
    /// A namespace in which Secrets with owners are read; may be given several times.
    #[arg(long, env = "HELPDESK_OPERATOR_OWNER_NAMESPACES", value_delimiter = ',', default_value = "accounts")]
    owner_namespace: Vec<String>,
    /// How long copies are kept that the operator cannot see, as KIND=WINDOW such as EtcdSnapshots=30d; may be given several
    /// times. The certificate of deletion says it. Kinds: ServerBackups, ServerReplicas, BucketReplicas, EtcdSnapshots.
    #[arg(long, env = "HELPDESK_OPERATOR_COPIES_KEPT", value_delimiter = ',', value_parser = kept)]
    copies_kept: Vec<(OtherCopy, Window)>,
    /// An HTTPS endpoint that takes a notice before and after each stage that closes an account, as a signed CloudEvent.
    #[arg(long, env = "HELPDESK_OPERATOR_NOTICES_URL", value_parser = https, requires = "notices_secret")]
    notices_url: Option<::http::Uri>,
    /// The Secret in the operator's namespace with the key `secret` of the signatures, and `ca.crt` for an authority of your own.
    #[arg(long, env = "HELPDESK_OPERATOR_NOTICES_SECRET")]
    notices_secret: Option<String>,
    /// Where the repository's files can be read, such as https://git.example/helpdesk-operator/blob/main: an account that is not
    /// well has a link to docs/operations.md there. Without it the link is that file's path.
    #[arg(long, env = "HELPDESK_OPERATOR_RUNBOOK_BASE_URL", default_value = "")]
    runbook_base_url: String,
    /// How many accounts of one server are reconciled at once.
    #[arg(long, env = "HELPDESK_OPERATOR_CONCURRENCY", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,
    /// A DNS server, as ADDRESS:PORT, that is asked whether a custom host name is the tenant's own; may be given several
    /// times. Without it those of the machine are asked.
    #[arg(long, env = "HELPDESK_OPERATOR_RESOLVER", value_delimiter = ',')]
    resolver: Vec<SocketAddr>,
    /// After how many seconds that is asked again.
    #[arg(long, env = "HELPDESK_OPERATOR_PROVE_AGAIN", default_value_t = 86_400, value_parser = clap::value_parser!(u32).range(1..))]
    prove_again: u32,
    /// After how many failed attempts a backup may be taken for unprovable. Tests shorten it.
    #[arg(long, hide = true, env = "HELPDESK_OPERATOR_UNPROVABLE_ATTEMPTS", default_value_t = Patience::DEFAULT.attempts, value_parser = clap::value_parser!(i32).range(1..))]
    unprovable_attempts: i32,
    /// And how many seconds after the first of them. Tests shorten it.
    #[arg(long, hide = true, env = "HELPDESK_OPERATOR_UNPROVABLE_SECONDS", default_value_t = Patience::DEFAULT.time.as_secs(), value_parser = clap::value_parser!(i64).range(1..1_000_000))]
    unprovable_seconds: i64,
    /// Where /metrics is served.
    #[arg(long, default_value_t = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8080)))]
    metrics: SocketAddr,
    /// Where /livez and /readyz are served.
    #[arg(long, default_value_t = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8081)))]
    health: SocketAddr,
    /// The name under which this replica leads.
    #[arg(long, env = "POD_NAME", default_value = "helpdesk-operator")]
    identity: String,
}

fn namespaced_name(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => Ok((namespace.to_owned(), name.to_owned())),
        _ => Err("write NAMESPACE/NAME".to_owned()),
    }
}

fn https(text: &str) -> Result<::http::Uri, String> {
    let url: ::http::Uri = text.parse().map_err(|error| format!("{error}"))?;
    if url.scheme_str() == Some("https") && url.host().is_some() { Ok(url) } else { Err("write https://HOST/PATH".to_owned()) }
}

fn mover_pod(text: &str) -> Result<Box<MoverPod>, serde_json::Error> {
    serde_json::from_str(text).map(Box::new)
}

fn kept(text: &str) -> Result<(OtherCopy, Window), String> {
    let (kind, window) = text.split_once('=').ok_or("write KIND=WINDOW, such as EtcdSnapshots=30d")?;
    let kind = OtherCopy::ALL.into_iter().find(|known| format!("{known:?}") == kind);
    let kind = kind.ok_or_else(|| format!("KIND is one of {:?}", OtherCopy::ALL))?;
    Ok((kind, window.parse().map_err(|error| format!("{error}"))?))
}

/// Why the process cannot run.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("failed to find the cluster")]
    Client(#[source] Box<kube::Error>),
    #[error("failed to read the cluster's configuration")]
    Config(#[source] Box<kube::config::InferConfigError>),
    #[error(transparent)]
    Installation(#[from] crate::installation::Error),
    #[error("failed to listen for signals")]
    Signals(#[source] std::io::Error),
    #[error(transparent)]
    Http(#[from] http::Error),
}

/// Runs the operator until it receives SIGTERM or SIGINT, or loses its Lease.
pub async fn run(args: Args) -> ExitCode {
    telemetry::log_as_json();
    match serve(args).await {
        Ok(code) => code,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::error!(%error, cause, "cannot run");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Args) -> Result<ExitCode, Error> {
    let stop = stop_signal()?;
    let forbidden = Arc::new(Notify::new());
    let client = client(Arc::clone(&forbidden)).await?;
    let (telemetry, readiness) = (Telemetry::default(), Readiness::default());
    let ready = readiness.clone();
    http::serve(args.metrics, args.health, telemetry.clone(), move || ready.check()).await?;
    let recorder =
        Recorder::new(client.clone(), Reporter { controller: "helpdesk-operator".into(), instance: Some(args.identity.clone()) });
    let pod = ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: Some(args.identity.clone()),
        namespace: Some(args.namespace.clone()),
        ..ObjectReference::default()
    };
    tokio::spawn(tell(readiness.clone(), telemetry.clone(), recorder.clone(), pod));
    let (namespace, shard) = (args.namespace.clone(), args.shard.clone());
    tokio::spawn(Reviewer { client: client.clone(), namespace, shard, forbidden, readiness: readiness.clone() }.run());

    let lease = args.shard.as_ref().map_or_else(|| "helpdesk-operator".to_owned(), |shard| format!("helpdesk-operator-{shard}"));
    let leadership = Leadership::new(client.clone(), &args.namespace, lease, args.identity.clone());
    tracing::info!(identity = args.identity, "waiting to lead");
    tokio::select! {
        () = leadership.acquire() => {}
        () = stop.clone() => return Ok(ExitCode::SUCCESS),
    }
    tracing::info!(identity = args.identity, "leading");
    telemetry.leader.set(1);

    let clients =
        if args.client_majors.is_empty() { Clients::in_folder(&args.postgresql) } else { Clients::from_majors(&args.client_majors) };
    if clients.is_unknown() {
        tracing::warn!(
            folder = %args.postgresql.display(),
            "no PostgreSQL clients found: whether movers can serve a server shows only when one runs; --client-majors tells it"
        );
    }
    let installation = Installation::load(&client, &args.namespace).await?;
    let ctx = Arc::new(Context {
        servers: Servers::new(client.clone(), &args.namespace, &installation.id),
        stores: Stores::new(client.clone(), &args.namespace),
        backups: Arc::default(),
        recorder,
        settings: Settings {
            namespace: args.namespace,
            shard: args.shard,
            image: args.image,
            mover_pod: *args.mover_pod,
            clients,
            billing_lease: args.billing_lease,
            mail: args.mail,
            mail_hostname: args.mail_hostname,
            owner_namespaces: args.owner_namespace,
            copies_kept: args.copies_kept,
            notices: args.notices_url.zip(args.notices_secret).map(|(url, secret)| Endpoint { url, secret }),
            runbooks: if args.runbook_base_url.is_empty() {
                String::new()
            } else {
                format!("{}/", args.runbook_base_url.trim_end_matches('/'))
            },
            concurrency: args.concurrency,
            resolvers: args.resolver,
            prove_again: SignedDuration::from_secs(args.prove_again.into()),
            patience: Patience { attempts: args.unprovable_attempts, time: SignedDuration::from_secs(args.unprovable_seconds) },
        },
        client,
        installation,
        telemetry,
        readiness,
        outages: Arc::default(),
        now: clock::now,
    });
    let outages = Arc::clone(&ctx.outages);
    tokio::spawn(async move { outages.log().await });
    let controllers = async {
        tokio::join!(
            controller::account::run(ctx.clone(), stop.clone()),
            until(stop.clone(), controller::cold_backup::run(ctx.clone())),
            until(stop.clone(), controller::database_server::run(ctx.clone())),
            until(stop.clone(), controller::backup_store::run(ctx.clone())),
            until(stop.clone(), controller::help_desk_class::run(ctx.clone())),
            until(stop.clone(), controller::help_desk_plan::run(ctx.clone())),
        );
    };
    tokio::select! {
        () = controllers => {
            leadership.release().await;
            tracing::info!("stopped");
            Ok(ExitCode::SUCCESS)
        }
        () = leadership.keep() => {
            // Effects can be interrupted at any point: the next leader continues them.
            tracing::error!("lost the lease; stopping at once");
            Ok(ExitCode::FAILURE)
        }
        () = overdue(stop.clone()) => {
            tracing::warn!("reconciles did not end in time; stopping without them");
            leadership.release().await;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Runs `work` until `stop` resolves. Effects of these controllers can be interrupted at any point.
async fn until(stop: impl Future<Output = ()>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        () = stop => {}
    }
}

/// How long running reconciles may take to end after SIGTERM; less than the pod's grace period.
const GRACE: Duration = Duration::from_secs(20);

async fn overdue(stop: impl Future<Output = ()>) {
    stop.await;
    tokio::time::sleep(GRACE).await;
}

/// How often is looked whether something keeps this process from working.
const LOOK: Duration = Duration::from_secs(2);

/// Tells once what keeps this process from working: in the log, by an event about its pod, and as a metric.
async fn tell(readiness: Readiness, telemetry: Telemetry, recorder: Recorder, pod: ObjectReference) {
    let mut told = readiness::Obstacles::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(found) = readiness.obstacles() else { continue };
        // What a watch says of its failures may change from one to the next.
        if found.keys().eq(told.keys()) {
            continue;
        }
        readiness::measure(&telemetry, &found);
        let text = readiness::text(&found);
        if found.is_empty() {
            tracing::info!("nothing keeps the operator from working any more");
        } else {
            tracing::warn!(obstacles = text, "the operator is not ready, because something keeps it from working");
            let event = Event {
                type_: EventType::Warning,
                reason: "NotReady".into(),
                note: Some(text.chars().take(LONGEST_NOTE).collect()),
                action: "Work".into(),
                secondary: None,
            };
            if let Err(error) = recorder.publish(&event, &pod).await {
                tracing::warn!(error = chain(&error), "failed to publish an event about the operator");
            }
        }
        told = found;
    }
}

async fn client(forbidden: Arc<Notify>) -> Result<Client, Error> {
    let config = kube::Config::infer().await.map_err(|e| Error::Config(Box::new(e)))?;
    cluster::connect(config, forbidden).map_err(|e| Error::Client(Box::new(e)))
}

type Stop = Shared<futures::future::BoxFuture<'static, ()>>;

fn stop_signal() -> Result<Stop, Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("told to stop");
        drop(sender);
    });
    Ok(receiver.map(|_| ()).boxed().shared())
}
