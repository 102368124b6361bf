//! What a client has still to send when its request is answered already: most refusals need no body.
//!
//! hyper closes an HTTP/1 connection whose request was not read to its end, and the reply does not say so. A client that keeps its
//! connections then sends its next request into one that is closed, and gets no answer. So the rest of a small body is read and thrown
//! away before the reply goes out; where it is large, slow or still waits for `100 Continue`, the reply says `Connection: close`.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::header::{CONNECTION, EXPECT};
use axum::http::{HeaderValue, Version};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;

/// The most that is read for nothing.
const BYTES_MAX: usize = 64 * 1024;
/// … and how long that may take.
const WAIT: Duration = Duration::from_millis(500);

/// Serves the request, and leaves its connection either fit for the next one or announced to be closed.
pub async fn read(request: Request, next: Next) -> Response {
    // A stream of HTTP/2 can end without its connection.
    if request.version() > Version::HTTP_11 || request.body().is_end_stream() {
        return next.run(request).await;
    }
    let waits = request.headers().contains_key(EXPECT);
    let (parts, body) = request.into_parts();
    let left = Left(Arc::new(Mutex::new(State { body, ended: false })));
    let mut response = next.run(Request::from_parts(parts, Body::new(left.clone()))).await;
    let over = left.0.lock().ended || (!waits && tokio::time::timeout(WAIT, left.rest()).await.unwrap_or(false));
    if !over {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A request's body, which whoever answers early leaves behind.
#[derive(Clone)]
struct Left(Arc<Mutex<State>>);

struct State {
    body: Body,
    ended: bool,
}

impl Left {
    /// Nothing under this lock can leave it half-way.
    /// Reads up to the end, and whether it came.
    async fn rest(&self) -> bool {
        let (mut left, mut bytes) = (self.clone(), 0);
        loop {
            match poll_fn(|cx| Pin::new(&mut left).poll_frame(cx)).await {
                None => return true,
                Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, Bytes::len),
                Some(Err(_)) => return false,
            }
            if bytes > BYTES_MAX {
                return false;
            }
        }
    }
}

impl HttpBody for Left {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut state = self.0.lock();
        let frame = Pin::new(&mut state.body).poll_frame(cx);
        let fails = matches!(frame, Poll::Ready(Some(Err(_))));
        state.ended |= matches!(frame, Poll::Ready(None)) || (!fails && state.body.is_end_stream());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().body.size_hint()
    }
}
