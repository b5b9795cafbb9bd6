//! Whether the app shows a value of its tenant: one request from inside the cluster.
//!
//! The host is the Service of a component in the tenant's namespace, whose name the operator has made, so no tenant can
//! direct the request anywhere else. A redirect is not followed.

use std::{sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::prober::{self, Mismatch};

/// How long one request may take in all.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of an answer is read.
const LONGEST: usize = 64 * 1024;
/// How much of an answer's status line and headers is read.
const HEAD: usize = 16 * 1024;

/// What an app has to show.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// The tenant's namespace.
    pub namespace: String,
    /// The component's Service.
    pub service: String,
    /// Its port.
    pub port: u16,
    /// The path to request.
    pub path: String,
    /// The public host name, which the request is for.
    pub host: String,
    /// The text that the answer contains.
    pub contains: String,
}

impl prober::View for View {
    fn group(&self) -> &'static str {
        "apps"
    }
}

/// Requests the path; returns what is wrong with the answer.
pub async fn check(view: Arc<View>) -> Option<Mismatch> {
    let address = format!("{}.{}.svc", view.service, view.namespace);
    let answered = tokio::time::timeout(PATIENCE, request(&view, &address)).await;
    let unreachable = |why: String| Some(Mismatch { reason: "Unreachable", why: format!("{} at port {} {why}", view.service, view.port) });
    let shown = match answered {
        Err(_) => return unreachable(format!("took longer than {} s to answer {}", PATIENCE.as_secs(), view.path)),
        Ok(Err(why)) => return unreachable(format!("did not answer {}: {why}", view.path)),
        Ok(Ok(shown)) => shown,
    };
    let wrong = |why: String| Some(Mismatch { reason: "ValueNotShown", why: format!("{} {why}", view.path) });
    match shown {
        (StatusCode::OK, body) if body.contains(&view.contains) => None,
        (StatusCode::OK, _) => wrong(format!(
            "does not show the value of this tenant ({}): the app is connected to another database, or its bootstrap did not write it",
            view.contains
        )),
        (status, _) => wrong(format!("answers {status}")),
    }
}

async fn request(view: &View, address: &str) -> Result<(StatusCode, String), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect((address, view.port)).await?;
    let (mut sender, connection) = http1::Builder::new().max_buf_size(HEAD).handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get(&view.path)
        .header(header::HOST, &view.host)
        .header(header::USER_AGENT, "helpdesk-operator")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let read = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let mut limited = Limited::new(answer.into_body(), LONGEST);
        let mut body = Vec::new();
        // What is longer than the limit is cut there.
        while let Some(Ok(frame)) = limited.frame().await {
            if let Ok(data) = frame.into_data() {
                body.extend_from_slice(&data);
            }
        }
        Ok::<_, hyper::Error>((status, String::from_utf8_lossy(&body).into_owned()))
    };
    let result = read.await;
    connection.abort();
    Ok(result?)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// An app that gives this answer to everybody, and what the check says of it.
    async fn seen(answer: String) -> Option<Mismatch> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let app = tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let _ = connection.read(&mut asked).await;
            let _ = connection.write_all(answer.as_bytes()).await;
        });
        let view = View {
            namespace: String::new(),
            service: String::new(),
            port,
            path: "/ready".into(),
            host: "acme.example".into(),
            contains: "marker-of-acme".into(),
        };
        let shown = tokio::time::timeout(Duration::from_secs(5), request(&view, "127.0.0.1")).await.unwrap();
        app.abort();
        match shown {
            Ok((status, body)) => (status != StatusCode::OK || !body.contains(&view.contains))
                .then(|| Mismatch { reason: "ValueNotShown", why: format!("{status} {}", body.len()) }),
            Err(error) => Some(Mismatch { reason: "Unreachable", why: error.to_string() }),
        }
    }

    fn page(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn only_an_app_that_shows_the_value_of_its_tenant_is_ready() {
        assert_eq!(seen(page("<p>marker-of-acme</p>")).await, None);
        assert_eq!(seen(page("<p>marker-of-beta</p>")).await.unwrap().reason, "ValueNotShown");
        assert_eq!(
            seen("HTTP/1.1 302 Found\r\nLocation: http://10.0.0.1/\r\nContent-Length: 0\r\n\r\n".into()).await.unwrap().reason,
            "ValueNotShown"
        );
        assert_eq!(seen("no HTTP at all\r\n\r\n".into()).await.unwrap().reason, "Unreachable");
    }

    #[tokio::test]
    async fn a_page_without_an_end_is_read_up_to_a_limit() {
        let endless = format!("HTTP/1.1 200 OK\r\n\r\nmarker-of-acme{}", "x".repeat(4 * LONGEST));
        assert_eq!(seen(endless).await, None);
        let late = format!("HTTP/1.1 200 OK\r\n\r\n{}marker-of-acme", "x".repeat(4 * LONGEST));
        assert_eq!(seen(late).await.unwrap().reason, "ValueNotShown");
    }
}
