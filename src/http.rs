//! The HTTP server of the process: `/livez`, `/readyz` and `/metrics`.

use std::net::SocketAddr;

use axum::{
    Router,
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    routing::get,
};
use tokio::net::TcpListener;

use crate::telemetry::{Format, Telemetry};

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

/// Starts both servers, which run until the process ends. `/readyz` answers 503 with what `check` says while this process is
/// not ready.
///
/// # Errors
/// Listening on an address failed.
pub async fn serve(
    metrics: SocketAddr,
    health: SocketAddr,
    telemetry: Telemetry,
    check: impl Fn() -> Result<(), String> + Clone + Send + Sync + 'static,
) -> Result<(), Error> {
    let metrics_of = move |headers: HeaderMap| {
        let format = Format::asked_for(headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()));
        std::future::ready(([(CONTENT_TYPE, format.content_type())], telemetry.encode(format)))
    };
    let exposed = Router::new().route("/metrics", get(metrics_of));
    let readiness = move || {
        std::future::ready(match check() {
            Ok(()) => (StatusCode::OK, String::new()),
            Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
        })
    };
    let checks = Router::new().route("/livez", get(|| std::future::ready(StatusCode::OK))).route("/readyz", get(readiness));
    for (name, address, router) in [("metrics", metrics, exposed), ("checks", health, checks)] {
        let failed = |source| Error { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        tracing::info!(address = %listener.local_addr().map_err(failed)?, "serving {name}");
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, %address, "stopped serving");
            }
        });
    }
    Ok(())
}
