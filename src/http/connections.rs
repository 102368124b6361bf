//! Connections while they are served: how long one may do nothing, and that all end in order when the daemon stops.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use futures::future::BoxFuture;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{BoxError, Service, ServiceExt as _};

use super::listen::{Accepted, Connection, Listener};

/// Requests that one HTTP/2 connection may have open.
const STREAMS_MAX: u32 = 200;

/// Accepts and serves until `stopping`, then waits for what is in flight; whoever calls gives up the wait.
///
/// A connection on which no request is served is closed after `idle`: before its first request, while a head comes in pieces, and
/// between requests. A reply that is not read is given up after twice as long.
pub async fn serve(mut listener: Listener, router: Router, idle: Duration, stopping: CancellationToken) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(idle);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(idle)
        .keep_alive_timeout(idle);
    let builder = Arc::new(builder);
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stopping.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        connections.spawn(one(Arc::clone(&builder), accepted, router.clone(), idle, stopping.clone()));
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn one(
    builder: Arc<Builder<TokioExecutor>>,
    accepted: Accepted,
    router: Router,
    idle: Duration,
    stopping: CancellationToken,
) {
    let Accepted { stream, connection, seat: _seat } = accepted;
    let peer = connection.peer;
    let work = Arc::new(Work::default());
    let service = TowerToHyperService::new(Served { router, connection, work: Arc::clone(&work) });
    let mut serving = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let (mut ending, mut given_up) = (false, false);
    loop {
        tokio::select! {
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "a connection ended");
                }
                return;
            }
            () = stopping.cancelled(), if !ending => {
                ending = true;
                serving.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep_until(work.none_since().unwrap_or_else(Instant::now) + idle) => {
                if work.none_since().is_none_or(|since| since.elapsed() < idle) {
                    continue;
                }
                if given_up {
                    return;
                }
                (given_up, ending) = (true, true);
                work.change(0);
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

/// The requests of a connection that are being served.
struct Work(Mutex<(i64, Instant)>);

impl Default for Work {
    fn default() -> Self {
        Self(Mutex::new((0, Instant::now())))
    }
}

impl Work {
    fn change(&self, by: i64) {
        let mut work = self.0.lock();
        *work = (work.0 + by, Instant::now());
    }

    /// Since when there has been none; `None`: there is some.
    fn none_since(&self) -> Option<Instant> {
        let (count, since) = *self.0.lock();
        (count == 0).then_some(since)
    }
}

/// One request that is being served, until it is dropped.
struct Doing(Arc<Work>);

impl Drop for Doing {
    fn drop(&mut self) {
        self.0.change(-1);
    }
}

/// The router, for the requests of one connection.
#[derive(Clone)]
struct Served {
    router: Router,
    connection: Connection,
    work: Arc<Work>,
}

impl<B> Service<Request<B>> for Served
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(self.connection.clone()));
        self.work.change(1);
        let doing = Doing(Arc::clone(&self.work));
        let reply = self.router.clone().oneshot(request);
        Box::pin(async move {
            let reply = reply.await;
            drop(doing);
            reply
        })
    }
}
