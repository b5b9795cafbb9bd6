//! The HTTP server of the process: `/livez`, `/readyz` and `/metrics`.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{Router, http::StatusCode, routing::get};
use tokio::net::TcpListener;

use crate::telemetry::Telemetry;

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on {address}")]
pub struct Error {
    /// Where.
    address: SocketAddr,
    /// Why not.
    #[source]
    source: std::io::Error,
}

/// Whether this replica can take over.
#[derive(Clone, Default)]
pub struct Health(Arc<AtomicBool>);

impl Health {
    /// From now on it can.
    pub fn ready(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Serves until the process ends.
///
/// # Errors
/// When an address cannot be listened on.
pub async fn serve(metrics: SocketAddr, health: SocketAddr, telemetry: Telemetry, ready: Health) -> Result<(), Error> {
    let exposed = Router::new().route("/metrics", get(move || std::future::ready(telemetry.encode())));
    let readiness =
        move || std::future::ready(if ready.0.load(Ordering::Relaxed) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE });
    let checks = Router::new().route("/livez", get(|| std::future::ready(StatusCode::OK))).route("/readyz", get(readiness));
    for (address, router) in [(metrics, exposed), (health, checks)] {
        let listener = TcpListener::bind(address).await.map_err(|source| Error { address, source })?;
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, %address, "stopped serving");
            }
        });
    }
    Ok(())
}
