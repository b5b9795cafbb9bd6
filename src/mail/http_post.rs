//! One HTTP request with the method POST, to a place inside the cluster.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The most that is read of an answer.
const LONGEST_ANSWER: usize = 256 * 1024;

/// A request.
pub(super) struct Post<'a> {
    /// The host to connect to.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// The value of the header `Host`.
    pub authority: &'a str,
    /// The path.
    pub path: &'a str,
    /// Other headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Bytes,
    /// How long it may take in all.
    pub patience: Duration,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("failed to connect")]
    Connect(#[source] std::io::Error),
    #[error("failed to get an answer")]
    Broken(#[source] hyper::Error),
    #[error("failed to read the answer")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("failed to write the request")]
    Request(#[source] http::Error),
    #[error("failed to get an answer in time")]
    Silent,
}

/// Sends the request.
pub(super) async fn post(request: Post<'_>) -> Result<Answer, Error> {
    let patience = request.patience;
    tokio::time::timeout(patience, send(request)).await.unwrap_or(Err(Error::Silent))
}

async fn send(request: Post<'_>) -> Result<Answer, Error> {
    let stream = TcpStream::connect((request.host, request.port)).await.map_err(Error::Connect)?;
    let (mut sender, connection) = http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(Error::Broken)?;
    let connection = tokio::spawn(connection);
    let mut built = Request::post(request.path)
        .header(header::HOST, request.authority)
        .header(header::USER_AGENT, "helpdesk-operator")
        .header(header::CONNECTION, "close");
    for (name, value) in request.headers {
        built = built.header(name, value);
    }
    let built = built.body(Full::new(request.body)).map_err(Error::Request)?;
    let answer = sender.send_request(built).await.map_err(Error::Broken)?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), LONGEST_ANSWER).collect().await.map_err(Error::Body)?.to_bytes();
    connection.abort();
    Ok(Answer { status, body })
}
