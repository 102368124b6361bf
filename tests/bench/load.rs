//! A load generator: so many connections, each with one request at a time, by raw HTTP/1.1 of hyper. Every caller has its own credential,
//! which is why it is ours: the known generators send one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// One who asks, always the same or, with the number of the request, ever something else.
#[derive(Clone)]
pub struct Caller {
    pub method: Method,
    pub bearer: String,
    pub path: Arc<dyn Fn(u64) -> String + Send + Sync>,
    pub body: Arc<dyn Fn(u64) -> String + Send + Sync>,
}

impl Caller {
    /// POSTs of one body to one path.
    pub fn post(bearer: &str, path: &str, body: &serde_json::Value) -> Self {
        let (path, body) = (path.to_owned(), body.to_string());
        Self {
            method: Method::POST,
            bearer: bearer.to_owned(),
            path: Arc::new(move |_| path.clone()),
            body: Arc::new(move |_| body.clone()),
        }
    }
}

/// What came of it.
pub struct Outcome {
    /// Microseconds of the requests that ended well.
    pub latency: Histogram<u64>,
    /// Replies that are not 2xx by status and detail; 0 for those that never came.
    pub others: BTreeMap<(u16, String), u64>,
    /// How long it was measured.
    pub elapsed: Duration,
}

impl Outcome {
    pub fn per_second(&self) -> f64 {
        self.latency.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// Milliseconds.
    pub fn quantile(&self, q: f64) -> f64 {
        self.latency.value_at_quantile(q) as f64 / 1000.0
    }
}

/// Asks with `connections` at once until the time is over. The callers take turns, whatever the connection.
pub async fn run(url: &str, callers: &[Caller], connections: usize, time: Duration) -> Outcome {
    let began = Instant::now();
    let number = Arc::new(AtomicU64::new(0));
    let callers: Arc<[Caller]> = callers.into();
    let tasks: Vec<_> = (0..connections)
        .map(|_| {
            let address = url.trim_start_matches("http://").to_owned();
            tokio::spawn(one(address, Arc::clone(&callers), Arc::clone(&number), began + time))
        })
        .collect();
    let mut latency = Histogram::new(3).unwrap();
    let mut others = BTreeMap::new();
    for task in tasks {
        let (own, own_others) = task.await.unwrap();
        latency.add(own).unwrap();
        for (what, count) in own_others {
            *others.entry(what).or_default() += count;
        }
    }
    Outcome { latency, others, elapsed: began.elapsed() }
}

async fn one(
    address: String,
    callers: Arc<[Caller]>,
    number: Arc<AtomicU64>,
    until: Instant,
) -> (Histogram<u64>, BTreeMap<(u16, String), u64>) {
    let mut latency = Histogram::new(3).unwrap();
    let mut others: BTreeMap<(u16, String), u64> = BTreeMap::new();
    let stream = TcpStream::connect(&address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    while Instant::now() < until {
        let n = number.fetch_add(1, Ordering::Relaxed);
        let caller = &callers[n as usize % callers.len()];
        let request = Request::builder()
            .method(caller.method.clone())
            .uri((caller.path)(n))
            .header("host", &address)
            .header("authorization", format!("Bearer {}", caller.bearer))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from((caller.body)(n))))
            .unwrap();
        let sent = Instant::now();
        let Ok(response) = sender.send_request(request).await else {
            *others.entry((0, "the connection was closed".to_owned())).or_default() += 1;
            break;
        };
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        if status.is_success() {
            latency.record(u64::try_from(sent.elapsed().as_micros()).unwrap()).unwrap();
        } else {
            let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            let detail = problem["detail"].as_str().unwrap_or_default().chars().take(100).collect();
            *others.entry((status.as_u16(), detail)).or_default() += 1;
        }
    }
    (latency, others)
}
