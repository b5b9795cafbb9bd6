//! One HTTP request to a place inside the cluster.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The most that is read of an answer.
const LONGEST_ANSWER: usize = 256 * 1024;

/// A request with the method GET.
#[derive(Clone, Copy, Debug)]
pub struct Get<'a> {
    /// The host to connect to.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// The path.
    pub path: &'a str,
    /// How long it may take in all.
    pub patience: Duration,
}

/// A request.
pub struct Call<'a> {
    /// The method.
    pub method: Method,
    /// The host to connect to.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// The value of the header `Host`.
    pub authority: &'a str,
    /// The path.
    pub path: &'a str,
    /// Other headers.
    pub headers: Vec<(&'a str, String)>,
    /// The body.
    pub body: Bytes,
    /// How long it may take in all.
    pub patience: Duration,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There was no connection.
    #[error("failed to connect")]
    Connect(#[source] std::io::Error),
    /// The connection broke.
    #[error("failed to get an answer")]
    Broken(#[source] hyper::Error),
    /// The answer broke off, or was too long.
    #[error("failed to read the answer")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The request is none.
    #[error("failed to write the request")]
    Request(#[source] http::Error),
    /// It took too long.
    #[error("failed to get an answer in time")]
    Silent,
    /// The status code is not 200.
    #[error("failed to get an answer: HTTP status {0}")]
    Status(u16),
}

/// Sends a request, and returns the answer as a text.
///
/// # Errors
/// There is no answer, or its status code is not 200.
pub async fn get(request: Get<'_>) -> Result<String, Error> {
    let Get { host, port, path, patience } = request;
    match call(Call { method: Method::GET, host, port, authority: host, path, headers: vec![], body: Bytes::new(), patience }).await? {
        Answer { status: 200, body } => Ok(String::from_utf8_lossy(&body).into_owned()),
        Answer { status, .. } => Err(Error::Status(status)),
    }
}

/// Sends a request. A redirect is not followed.
///
/// # Errors
/// There is no answer; every status code is one.
pub async fn call(request: Call<'_>) -> Result<Answer, Error> {
    let patience = request.patience;
    tokio::time::timeout(patience, send(request)).await.unwrap_or(Err(Error::Silent))
}

async fn send(request: Call<'_>) -> Result<Answer, Error> {
    let stream = TcpStream::connect((request.host, request.port)).await.map_err(Error::Connect)?;
    let (mut sender, connection) = http1::Builder::new().handshake(TokioIo::new(stream)).await.map_err(Error::Broken)?;
    let connection = tokio::spawn(connection);
    let mut built = Request::builder()
        .method(request.method)
        .uri(request.path)
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
