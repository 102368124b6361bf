//! Requests to addresses that people gave us: identity providers, and whatever else is named through the API.
//!
//! Such an address may be meant to reach what only this machine can reach (THREATS: SSRF). So: https, or http to loopback where the
//! configuration lists it; every address of the name is checked, and the connection goes to what was checked, because the check is
//! the resolver of the connection itself; no redirects, no proxies from the environment; bounded time and size. RPC nodes are asked
//! by `chain`: those of the configuration are the operator's own; those that came over the API are held against the same [`Rules`].

pub mod rules;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use serde::Deserialize;
use url::Url;

pub use reqwest::Method;
pub use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
pub use rules::Refusal;

use crate::net::Networks;
use rules::Rules;

/// `[outbound]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutboundConfig {
    /// Networks that may be connected to although they are not public. Environment: `INTENTD_OUTBOUND_ALLOW_PRIVATE`, with commas.
    pub allow_private: Networks,
    /// A connection must stand after this, in milliseconds.
    pub connect_timeout_ms: u64,
    /// The whole reply must be there after this, in milliseconds.
    pub timeout_ms: u64,
}

impl Default for OutboundConfig {
    fn default() -> Self {
        Self { allow_private: Networks::default(), connect_timeout_ms: 3_000, timeout_ms: 10_000 }
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// GET or POST.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// Besides those that every request has.
    pub headers: HeaderMap,
    /// What is sent.
    pub body: Vec<u8>,
    /// The largest reply that is read, in bytes.
    pub reply_bytes_max: usize,
}

impl Request {
    /// A GET.
    #[must_use]
    pub fn get(url: Url, reply_bytes_max: usize) -> Self {
        Self { method: Method::GET, url, headers: HeaderMap::new(), body: Vec::new(), reply_bytes_max }
    }
}

/// What came back, whatever the status: a redirect is a reply like any other.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// A rule forbids it: nothing was sent.
    #[error("the address {0}")]
    Refused(#[source] Refusal),
    /// It could not be reached, or did not answer in time.
    #[error("no answer")]
    Failed(#[source] reqwest::Error),
    /// More than was to be read.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
}

/// How names become addresses. The one implementation outside of tests asks the system.
trait Lookup: Send + Sync {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

struct System;

impl Lookup for System {
    fn lookup(&self, name: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect()) })
    }
}

/// The resolver of one client: what it gives back has been checked.
struct Checked {
    names: Arc<dyn Lookup>,
    rules: Arc<Rules>,
    plain_http: bool,
}

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let (lookup, rules, plain_http) =
            (self.names.lookup(name.as_str().to_owned()), self.rules.clone(), self.plain_http);
        Box::pin(async move {
            let ips = lookup.await?;
            rules.check_addresses(&ips, plain_http)?;
            Ok(Box::new(ips.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

/// The client. Cheap to clone.
#[derive(Clone)]
pub struct Outbound {
    rules: Arc<Rules>,
    https: reqwest::Client,
    http: reqwest::Client,
}

impl Outbound {
    /// From the configuration.
    ///
    /// # Errors
    /// When the system has no root certificates to check servers with, say.
    pub fn new(config: &OutboundConfig) -> Result<Self, reqwest::Error> {
        Self::with(config, Arc::new(System))
    }

    fn with(config: &OutboundConfig, names: Arc<dyn Lookup>) -> Result<Self, reqwest::Error> {
        let rules = Arc::new(Rules { allow_private: config.allow_private.clone() });
        let client = |plain_http: bool| {
            reqwest::Client::builder()
                .dns_resolver(Arc::new(Checked { names: names.clone(), rules: rules.clone(), plain_http }))
                .https_only(!plain_http)
                .redirect(Policy::none())
                .no_proxy()
                .referer(false)
                .user_agent(concat!("intentd/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
                .timeout(Duration::from_millis(config.timeout_ms))
                .pool_max_idle_per_host(2)
                .pool_idle_timeout(Duration::from_secs(30))
                .build()
        };
        Ok(Self { https: client(false)?, http: client(true)?, rules })
    }

    /// What addresses are held against.
    #[must_use]
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// Whether a URL could be asked at all, as far as can be told without asking anybody.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn check_url(&self, url: &Url) -> Result<(), Refusal> {
        self.rules.check_url(url)
    }

    /// Sends a request and reads the reply's status, and nothing else of it.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub async fn send_for_status(&self, request: Request) -> Result<u16, OutboundError> {
        Ok(self.begin(request).await?.status().as_u16())
    }

    async fn begin(&self, request: Request) -> Result<reqwest::Response, OutboundError> {
        self.rules.check_url(&request.url).map_err(OutboundError::Refused)?;
        let client = if request.url.scheme() == "https" { &self.https } else { &self.http };
        let sent = client.request(request.method, request.url).headers(request.headers).body(request.body).send();
        sent.await.map_err(failed)
    }

    /// Sends a request and reads the whole reply.
    ///
    /// # Errors
    /// [`OutboundError`]: refused by rule, or could not be done. The text names neither URL nor address.
    pub async fn send(&self, request: Request) -> Result<Reply, OutboundError> {
        let bytes_max = request.reply_bytes_max;
        let mut response = self.begin(request).await?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len() + chunk.len() > bytes_max {
                return Err(OutboundError::TooLarge(bytes_max));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Reply { status, body })
    }
}

/// A refusal by the resolver comes back inside of the client's own error.
fn failed(error: reqwest::Error) -> OutboundError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(refusal) = inner.downcast_ref::<Refusal>() {
            return OutboundError::Refused(refusal.clone());
        }
        cause = inner.source();
    }
    OutboundError::Failed(error.without_url())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// Answers each look-up with the next list of addresses, and the last one from then on.
    struct Scripted {
        answers: Mutex<Vec<Vec<IpAddr>>>,
        asked: AtomicUsize,
    }

    impl Scripted {
        fn new(answers: &[&[&str]]) -> Arc<Self> {
            let read = |list: &&[&str]| list.iter().map(|ip| ip.parse().unwrap()).collect();
            Arc::new(Self { answers: Mutex::new(answers.iter().map(read).collect()), asked: AtomicUsize::new(0) })
        }
    }

    impl Lookup for Scripted {
        fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let mut answers = self.answers.lock().unwrap();
            let answer = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
            Box::pin(async move { Ok(answer) })
        }
    }

    fn outbound(names: Arc<Scripted>, allow: &[&str]) -> Outbound {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let allow_private = Networks::parse(allow.iter().copied()).unwrap();
        let config = OutboundConfig { allow_private, connect_timeout_ms: 2_000, timeout_ms: 2_000 };
        Outbound::with(&config, names).unwrap()
    }

    /// A server that counts its connections and gives each the same answer.
    async fn server(ip: &str, port: u16, answer: String) -> (u16, Arc<AtomicUsize>) {
        let listener = TcpListener::bind((ip, port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let answer = answer.clone();
                tokio::spawn(async move {
                    let _ = stream.read(&mut [0; 4_096]).await;
                    let _ = stream.write_all(answer.as_bytes()).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        (port, count)
    }

    fn ok(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    fn get(url: &str) -> Request {
        Request::get(url.parse().unwrap(), 100)
    }

    #[tokio::test]
    async fn threat_22_a_name_that_changes_its_address_is_checked_each_time_it_is_connected_to() {
        let (port, first) = server("127.0.0.1", 0, ok("first")).await;
        let (_, second) = server("127.0.0.2", port, ok("second")).await;
        let names = Scripted::new(&[&["127.0.0.1"], &["127.0.0.2"]]);
        let outbound = outbound(names.clone(), &["127.0.0.1/32"]);
        let url = format!("http://rebind.example:{port}/");
        // What was checked is what is connected to: nobody asks a second time.
        let reply = outbound.send(get(&url)).await.unwrap();
        assert_eq!((reply.status, reply.body.as_slice(), names.asked.load(Ordering::SeqCst)), (200, &b"first"[..], 1));
        let refused = outbound.send(get(&url)).await;
        assert!(matches!(refused, Err(OutboundError::Refused(Refusal::Address))), "{refused:?}");
        assert_eq!((first.load(Ordering::SeqCst), second.load(Ordering::SeqCst)), (1, 0));
    }

    #[tokio::test]
    async fn threat_22_no_connection_is_made_to_what_is_not_public() {
        let (port, connections) = server("127.0.0.1", 0, ok("")).await;
        // One good address does not help the bad one.
        for answer in
            [&["127.0.0.1"][..], &["1.1.1.1", "127.0.0.1"], &["::ffff:127.0.0.1"], &["169.254.169.254"], &["::1"]]
        {
            let outbound = outbound(Scripted::new(&[answer]), &[]);
            let refused = outbound.send(get(&format!("https://name.example:{port}/"))).await;
            assert!(matches!(refused, Err(OutboundError::Refused(Refusal::Address))), "{answer:?}: {refused:?}");
        }
        let outbound = outbound(Scripted::new(&[&["127.0.0.1"]]), &[]);
        for host in ["127.0.0.1", "[::ffff:127.0.0.1]", "0x7f.1"] {
            let refused = outbound.send(get(&format!("https://{host}:{port}/"))).await;
            assert!(matches!(refused, Err(OutboundError::Refused(Refusal::Address))), "{host}: {refused:?}");
        }
        let plain = outbound.send(get(&format!("http://name.example:{port}/"))).await;
        assert!(matches!(plain, Err(OutboundError::Refused(Refusal::Address))), "{plain:?}");
        assert_eq!(connections.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn threat_22_a_redirect_is_a_reply_and_a_large_reply_is_cut_off() {
        let (inner, connections) = server("127.0.0.1", 0, ok("inner")).await;
        let location = format!("http://127.0.0.1:{inner}/");
        let moved =
            format!("HTTP/1.1 302 Found\r\nconnection: close\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        let (port, _) = server("127.0.0.1", 0, moved).await;
        let outbound = outbound(Scripted::new(&[&["127.0.0.1"]]), &["127.0.0.0/8"]);
        let reply = outbound.send(get(&format!("http://127.0.0.1:{port}/"))).await.unwrap();
        assert_eq!((reply.status, connections.load(Ordering::SeqCst)), (302, 0));

        let (large, _) = server("127.0.0.1", 0, ok(&"x".repeat(101))).await;
        let reply = outbound.send(get(&format!("http://127.0.0.1:{large}/"))).await;
        assert!(matches!(reply, Err(OutboundError::TooLarge(100))), "{reply:?}");
        // A length that is not told is counted all the same.
        let endless = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}", "x".repeat(10_000));
        let (endless, _) = server("127.0.0.1", 0, endless).await;
        let reply = outbound.send(get(&format!("http://127.0.0.1:{endless}/"))).await;
        assert!(matches!(reply, Err(OutboundError::TooLarge(100))), "{reply:?}");
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let outbound = outbound(Scripted::new(&[&["127.0.0.1"]]), &["127.0.0.0/8"]);
        let reply = outbound.send(get(&url)).await;
        assert!(matches!(reply, Err(OutboundError::Failed(_))), "{reply:?}");
    }
}
