//! The client of the API server. Every request has a timeout.
//!
//! The client bounds how long connecting takes and how long sending takes. An API server that takes a request and is
//! silent then would keep whoever asked waiting for ever, with everything that they hold. A watch is silent by nature:
//! of it only the beginning is bounded here, and the watcher takes it up anew when it stays silent too long.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use http::{Request, Response, Uri};
use hyper::body::{Frame, SizeHint};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, DynBody},
};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tower::{BoxError, Layer, Service};

/// How long the API server may be silent before it answers, and between two parts of an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client of the cluster that `config` leads to.
///
/// # Errors
/// A configuration that leads to none.
pub fn connect(mut config: Config) -> Result<Client, kube::Error> {
    config.connect_timeout = Some(Duration::from_secs(5));
    config.write_timeout = Some(Duration::from_secs(20));
    with(config, PATIENCE)
}

fn with(config: Config, patience: Duration) -> Result<Client, kube::Error> {
    Ok(ClientBuilder::try_from(config)?.with_layer(&Impatience(patience)).build())
}

/// Bounds how long answers are waited for.
#[derive(Clone, Copy)]
struct Impatience(Duration);

impl<S> Layer<S> for Impatience {
    type Service = Impatient<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Impatient { inner, patience: self.0 }
    }
}

#[derive(Clone)]
struct Impatient<S> {
    inner: S,
    patience: Duration,
}

/// It was silent for too long.
#[derive(Debug, thiserror::Error)]
#[error("the API server was silent for {} s", .0.as_secs_f32())]
struct Silent(Duration);

impl<S> Service<Request<Body>> for Impatient<S>
where
    S: Service<Request<Body>, Response = Response<Box<DynBody>>, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Response<Bounded>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (patience, is_watch) = (self.patience, is_watch(request.uri()));
        let answer = self.inner.call(request);
        async move {
            let answer = timeout(patience, answer).await.map_err(|_| Silent(patience))??;
            Ok(answer.map(|inner| Bounded { inner, patience: (!is_watch).then_some(patience), silence: Box::pin(sleep(patience)) }))
        }
        .boxed()
    }
}

fn is_watch(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|part| matches!(part, "watch=true" | "watch=1" | "follow=true")))
}

/// The body of an answer.
struct Bounded {
    inner: Box<DynBody>,
    /// `None`: it may be silent for as long as it likes.
    patience: Option<Duration>,
    silence: Pin<Box<Sleep>>,
}

impl hyper::body::Body for Bounded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let part = Pin::new(&mut self.inner).poll_frame(cx);
        let Some(patience) = self.patience else { return part };
        if part.is_ready() {
            self.silence.as_mut().reset(Instant::now() + patience);
            return part;
        }
        self.silence.as_mut().poll(cx).map(|()| Some(Err(Silent(patience).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Takes 404 and 409 for success: what was to be changed or deleted is not there any more, or was made anew meanwhile.
///
/// # Errors
/// Every other answer.
pub fn ignore_not_found_or_conflict(error: kube::Error) -> Result<(), kube::Error> {
    match error {
        kube::Error::Api(status) if status.code == 404 || status.code == 409 => Ok(()),
        other => Err(other),
    }
}

/// A request to the API server that failed, with what it was for.
#[derive(Debug, thiserror::Error)]
#[error("failed to {action}")]
pub struct ClusterError {
    /// What was asked.
    action: &'static str,
    /// What the client said.
    source: Box<kube::Error>,
}

impl ClusterError {
    /// The request that `action` needed failed.
    pub fn new(action: &'static str, source: kube::Error) -> Self {
        Self { action, source: Box::new(source) }
    }
}

/// Names what a request to the API server was for.
pub trait During<T> {
    /// Puts the action into the error.
    ///
    /// # Errors
    /// The error of the request.
    fn during(self, action: &'static str) -> Result<T, ClusterError>;
}

impl<T> During<T> for Result<T, kube::Error> {
    fn during(self, action: &'static str) -> Result<T, ClusterError> {
        self.map_err(|source| ClusterError::new(action, source))
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use k8s_openapi::api::core::v1::Secret;
    use kube::{Api, api::WatchParams};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    const SOON: Duration = Duration::from_millis(200);

    /// A client of an API server that takes connections, reads what is asked, says this much, and is silent then.
    async fn cluster(says: &'static str) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let mut held = vec![];
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut asked = [0; 1024];
                let _ = connection.read(&mut asked).await;
                connection.write_all(says.as_bytes()).await.unwrap();
                held.push(connection);
            }
        });
        with(Config::new(url.parse().unwrap()), SOON).unwrap()
    }

    async fn told(work: impl Future<Output = Result<Secret, kube::Error>>) -> String {
        let answer = timeout(SOON * 10, work).await.expect("it is still waited for");
        crate::error_chain::chain(&answer.unwrap_err())
    }

    #[tokio::test]
    async fn an_api_server_that_takes_requests_and_never_answers_is_not_waited_for() {
        let secrets: Api<Secret> = Api::namespaced(cluster("").await, "a");
        let told = told(secrets.get("b")).await;
        assert!(told.contains("the API server was silent for 0.2 s"), "{told}");
    }

    #[tokio::test]
    async fn nor_one_that_breaks_off_in_the_middle_of_an_answer() {
        let begun = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{\"kind\":";
        let secrets: Api<Secret> = Api::namespaced(cluster(begun).await, "a");
        let told = told(secrets.get("b")).await;
        assert!(told.contains("silent"), "{told}");
    }

    #[tokio::test]
    async fn a_watch_is_silent_while_nothing_happens() {
        let begun = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
        let secrets: Api<Secret> = Api::namespaced(cluster(begun).await, "a");
        let mut events = Box::pin(secrets.watch(&WatchParams::default(), "0").await.unwrap());
        assert!(timeout(SOON * 5, events.try_next()).await.is_err(), "a watch was cut off");
    }
}
