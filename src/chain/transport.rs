//! HTTP to one node: one JSON value out, one JSON value back, under a deadline. No redirects, no proxy from the environment,
//! an answer of bounded size.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use serde_json::Value;

use super::error::Unreachable;
use super::guard::GuardedResolver;
use super::spec::RpcUrl;

/// Time to get a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest answer that is read, in bytes. A trace of a large transaction takes a few megabytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Shortest piece of a URL that is taken for a secret when a node's text repeats it, in characters.
const SECRET_CHARS_MIN: usize = 8;
/// Longest text of a node that is passed on, in characters.
const TEXT_CHARS_MAX: usize = 300;

/// A client for one URL.
pub(super) struct Transport {
    client: reqwest::Client,
    url: RpcUrl,
    deadline: Duration,
    generation: Generation,
}

/// Counts new connections and failed exchanges. As long as it stands still, all answers came over connections that were
/// already there.
#[derive(Clone, Default)]
struct Generation(Arc<AtomicU64>);

impl Generation {
    fn advance(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Transport {
    /// # Errors
    /// The client's own text, when TLS cannot be set up.
    pub(super) fn new(url: RpcUrl, deadline: Duration) -> Result<Self, String> {
        let generation = Generation::default();
        let builder = reqwest::Client::builder();
        let builder = match url.guard() {
            Some(rules) => builder.dns_resolver(Arc::new(GuardedResolver(Arc::clone(rules)))),
            None => builder,
        };
        let client = builder
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .connector_layer(generation.clone())
            .build()
            .map_err(|error| error.without_url().to_string())?;
        Ok(Self { client, url, deadline, generation })
    }

    /// Whether it is for this URL.
    pub(super) fn is_at(&self, url: &RpcUrl) -> bool {
        self.url == *url
    }

    /// See [`Generation`].
    pub(super) fn generation(&self) -> u64 {
        self.generation.0.load(Ordering::SeqCst)
    }

    /// Sends `body`, returns the answer's JSON.
    pub(super) async fn exchange(&self, body: &Value) -> Result<Value, Unreachable> {
        let answer = match tokio::time::timeout(self.deadline, self.post(body)).await {
            Ok(answer) => answer,
            Err(_) => Err(Unreachable::Timeout { ms: u64::try_from(self.deadline.as_millis()).unwrap_or(u64::MAX) }),
        };
        if answer.is_err() {
            self.generation.advance();
        }
        answer
    }

    async fn post(&self, body: &Value) -> Result<Value, Unreachable> {
        let request = self.client.post(self.url.expose().clone()).json(body);
        let mut response = request.send().await.map_err(|error| classify(&error))?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| Unreachable::Dropped)? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Unreachable::Garbage("it is longer than 16 MiB"));
            }
            bytes.extend_from_slice(&chunk);
        }
        let json = serde_json::from_slice::<Value>(&bytes);
        if status.is_success() {
            return json.map_err(|_| Unreachable::Garbage("it is not JSON"));
        }
        // Some nodes put a JSON-RPC error under a 4xx. What says "not you" or "not now" is not an answer.
        match (status.as_u16(), json) {
            (401 | 403 | 407 | 408 | 429, _) => Err(Unreachable::Status(status.as_u16())),
            (400..=499, Ok(json)) if json.get("error").is_some_and(Value::is_object) => Ok(json),
            (code, _) => Err(Unreachable::Status(code)),
        }
    }

    /// A node's text as it may be shown: one line, shortened, and without any piece of the URL.
    pub(super) fn scrub(&self, text: &str) -> String {
        let url = self.url.expose();
        let mut clean = text.replace(url.as_str(), "[redacted]");
        let pieces = url
            .path_segments()
            .into_iter()
            .flatten()
            .map(str::to_owned)
            .chain(url.query_pairs().map(|(_, value)| value.into_owned()))
            .chain([url.username().to_owned(), url.password().unwrap_or_default().to_owned()]);
        for piece in pieces.filter(|piece| piece.len() >= SECRET_CHARS_MIN) {
            clean = clean.replace(&piece, "[redacted]");
        }
        clean.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_CHARS_MAX).collect()
    }
}

fn classify(error: &reqwest::Error) -> Unreachable {
    if error.is_connect() || error.is_builder() { Unreachable::Connect } else { Unreachable::Dropped }
}

/// Advances the generation at each new connection.
#[derive(Clone)]
struct CountConnections<S> {
    inner: S,
    generation: Generation,
}

impl<S> tower::Layer<S> for Generation {
    type Service = CountConnections<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CountConnections { inner, generation: self.clone() }
    }
}

impl<S: tower::Service<R>, R> tower::Service<R> for CountConnections<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        self.generation.advance();
        self.inner.call(request)
    }
}
