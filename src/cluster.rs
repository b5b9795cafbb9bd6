//! The client of the API server. Every request has a timeout.
//!
//! The kube client limits how long connecting and sending take, but not how long an answer takes. Without a limit, an API
//! server that accepts a request and never answers would block the caller for ever. A watch sends nothing while nothing
//! changes, so only the start of its answer is limited here; the watcher renews a watch that sends nothing for too long.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use http::{Request, Response, StatusCode, Uri};
use hyper::body::{Frame, SizeHint};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, DynBody},
};
use tokio::{
    sync::Notify,
    time::{Instant, Sleep, sleep, timeout},
};
use tower::{BoxError, Layer, Service};

/// How long the API server may take until it answers, and between two parts of an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// A client of the API server that `config` names. `forbidden` is notified when that answers 403 Forbidden.
///
/// # Errors
/// The configuration is invalid.
pub fn connect(mut config: Config, forbidden: Arc<Notify>) -> Result<Client, kube::Error> {
    config.connect_timeout = Some(Duration::from_secs(5));
    config.write_timeout = Some(Duration::from_secs(20));
    with(config, ANSWER_TIMEOUT, forbidden)
}

fn with(config: Config, limit: Duration, forbidden: Arc<Notify>) -> Result<Client, kube::Error> {
    Ok(ClientBuilder::try_from(config)?.with_layer(&AnswerLayer { limit, forbidden }).build())
}

/// Adds the timeout of answers, and notices those that forbid something.
#[derive(Clone)]
struct AnswerLayer {
    limit: Duration,
    forbidden: Arc<Notify>,
}

impl<S> Layer<S> for AnswerLayer {
    type Service = AnswerService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        AnswerService { inner, limit: self.limit, forbidden: Arc::clone(&self.forbidden) }
    }
}

#[derive(Clone)]
struct AnswerService<S> {
    inner: S,
    limit: Duration,
    forbidden: Arc<Notify>,
}

/// The API server sent nothing for too long.
#[derive(Debug, thiserror::Error)]
#[error("the API server was silent for {} s", .0.as_secs_f32())]
struct Silent(Duration);

impl<S> Service<Request<Body>> for AnswerService<S>
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
        let (limit, is_watch, forbidden) = (self.limit, is_watch(request.uri()), Arc::clone(&self.forbidden));
        let answer = self.inner.call(request);
        async move {
            let answer = timeout(limit, answer).await.map_err(|_| Silent(limit))??;
            if answer.status() == StatusCode::FORBIDDEN {
                forbidden.notify_one();
            }
            Ok(answer.map(|inner| Bounded { inner, limit: (!is_watch).then_some(limit), silence: Box::pin(sleep(limit)) }))
        }
        .boxed()
    }
}

fn is_watch(uri: &Uri) -> bool {
    uri.query().is_some_and(|query| query.split('&').any(|part| matches!(part, "watch=true" | "watch=1" | "follow=true")))
}

/// The body of an answer, with a timeout between its parts.
struct Bounded {
    inner: Box<DynBody>,
    /// `None`: no timeout.
    limit: Option<Duration>,
    silence: Pin<Box<Sleep>>,
}

impl hyper::body::Body for Bounded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let part = Pin::new(&mut self.inner).poll_frame(cx);
        let Some(limit) = self.limit else { return part };
        if part.is_ready() {
            self.silence.as_mut().reset(Instant::now() + limit);
            return part;
        }
        self.silence.as_mut().poll(cx).map(|()| Some(Err(Silent(limit).into())))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Treats 404 Not Found and 409 Conflict as success: the object is gone, or another one has its name.
///
/// # Errors
/// Every other error.
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
    /// What the request was for.
    action: &'static str,
    /// The error of the kube client.
    source: Box<kube::Error>,
}

impl ClusterError {
    /// The error of a request that was made to `action`.
    pub fn new(action: &'static str, source: kube::Error) -> Self {
        Self { action, source: Box::new(source) }
    }
}

/// Names what a request to the API server was for.
pub trait During<T> {
    /// Adds the action to the error.
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
        with(Config::new(url.parse().unwrap()), SOON, Arc::default()).unwrap()
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
