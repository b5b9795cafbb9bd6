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

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on {address}")]
pub struct Error {
    /// The address to listen on.
    address: SocketAddr,
    /// Why listening failed.
    #[source]
    source: std::io::Error,
}

/// Whether this replica is ready; `/readyz` answers 503 until then.
#[derive(Clone, Default)]
pub struct Health(Arc<AtomicBool>);

impl Health {
    /// Makes `/readyz` answer 200 from now on.
    pub fn ready(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Starts both servers, which run until the process ends.
///
/// # Errors
/// Listening on an address failed.
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
