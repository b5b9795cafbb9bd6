//! The process of the mail intake.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
};

use clap::Args as ClapArgs;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use super::{deliver::Delivery, directory::Directory, learn_api, learned, lmtp, outgoing, queue, sasl, socketmap, tokens::Tokens};
use crate::{
    cluster,
    error_chain::chain,
    http,
    telemetry::{self, Telemetry},
};

/// How the mail intake is run.
#[derive(ClapArgs, Debug)]
pub struct Args {
    /// Where the mail server asks about addresses (socketmap).
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 2501)))]
    socketmap: SocketAddr,
    /// Where the mail server delivers (LMTP).
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 2502)))]
    lmtp: SocketAddr,
    /// Where the mail server checks passwords (Dovecot's protocol).
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 2503)))]
    sasl: SocketAddr,
    /// Where the mail server's queue is shown.
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 2504)))]
    queue: SocketAddr,
    /// Where what apps send is shown before it is taken (rspamd's protocol).
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 2505)))]
    outgoing: SocketAddr,
    /// Where apps teach the filter.
    #[arg(long, default_value_t = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8025)))]
    learn: SocketAddr,
    /// Where /metrics is served.
    #[arg(long, default_value_t = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8080)))]
    metrics: SocketAddr,
    /// Where /livez and /readyz are served.
    #[arg(long, default_value_t = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 8081)))]
    health: SocketAddr,
}

/// Why the process cannot run.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("failed to find the cluster")]
    Client(#[source] Box<kube::Error>),
    #[error("failed to read the cluster's configuration")]
    Config(#[source] Box<kube::config::InferConfigError>),
    #[error("failed to listen for signals")]
    Signals(#[source] std::io::Error),
    #[error("failed to listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("failed to accept connections")]
    Accept(#[source] std::io::Error),
    #[error(transparent)]
    Http(#[from] http::Error),
}

/// Runs the mail intake until it receives SIGTERM.
pub async fn run(args: Args) -> ExitCode {
    telemetry::log_as_json();
    match serve(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = chain(&error), "cannot run");
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: Args) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let config = kube::Config::infer().await.map_err(|e| Error::Config(Box::new(e)))?;
    let client = cluster::connect(config, Arc::default()).map_err(|e| Error::Client(Box::new(e)))?;
    let directory = Directory::watch(&client);
    let read = Arc::clone(&directory);
    http::serve(args.metrics, args.health, Telemetry::default(), move || read.check()).await?;
    let delivery = Arc::new(Delivery::new(directory.clone()));
    let tokens = Arc::new(Tokens::new(client, directory.clone()));
    let (questions, messages, lessons) = (listen(args.socketmap).await?, listen(args.lmtp).await?, listen(args.learn).await?);
    let (logins, shown, sent) = (listen(args.sasl).await?, listen(args.queue).await?, listen(args.outgoing).await?);
    tokio::spawn(learned::keep_erasing(directory.clone()));
    tokio::select! {
        broken = socketmap::serve(questions, directory.clone()) => broken.map_err(Error::Accept),
        broken = lmtp::serve(messages, delivery) => broken.map_err(Error::Accept),
        broken = sasl::serve(logins, tokens.clone()) => broken.map_err(Error::Accept),
        broken = axum::serve(shown, queue::router(directory.clone())) => broken.map_err(Error::Accept),
        broken = axum::serve(sent, outgoing::router(directory.clone(), tokens.clone())) => broken.map_err(Error::Accept),
        broken = axum::serve(lessons, learn_api::router(tokens)) => broken.map_err(Error::Accept),
        _ = terminate.recv() => Ok(()),
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}
