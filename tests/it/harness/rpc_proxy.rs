//! An HTTP proxy in front of a node, which lies, loses, delays and counts as told, per JSON-RPC method.
//!
//! ```ignore
//! let proxy = RpcProxy::start(&anvil.url());
//! proxy.on("eth_sendRawTransaction", Act::DropReply);          // the node has it, the caller does not know
//! proxy.next("eth_gasPrice", Act::Answer(json!("0xffffffff"))); // once
//! proxy.freeze();                                               // nothing gets an answer …
//! proxy.clear();                                                // … until now
//! assert_eq!(proxy.count("eth_sendRawTransaction"), 1);
//! ```
//! It has a thread of its own, so it works for tests with and without an async runtime. Every request of a JSON-RPC batch is
//! treated by itself; an act that concerns the connection (drop, HTTP status, garbage) then concerns the whole batch.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Makes another answer of a request and its answer.
pub type Change = dyn Fn(&Value, Value) -> Value + Send + Sync;

/// What happens to a call.
#[derive(Clone)]
pub enum Act {
    /// To the node and back.
    Pass,
    /// To the node; its reply is thrown away and the connection closed.
    DropReply,
    /// Not to the node; the connection is closed.
    DropRequest,
    /// To the node after this time.
    Delay(Duration),
    /// Held, not given to the node, until the rule changes; then treated by the new rule.
    Freeze,
    /// Not to the node; an error object.
    Error { code: i64, message: String, data: Option<Value> },
    /// Not to the node; this `result`.
    Answer(Value),
    /// To the node; its whole answer object (`result` or `error`) is changed, given the request.
    Edit(Arc<Change>),
    /// Not to the node; this HTTP status with an empty body.
    Http(u16),
    /// Not to the node; a redirect (307) to this URL.
    Redirect(String),
    /// Not to the node; this body with status 200.
    Garbage(Vec<u8>),
}

impl Act {
    /// An error object without data.
    pub fn error(code: i64, message: &str) -> Self {
        Self::Error { code, message: message.to_owned(), data: None }
    }

    /// Changes the `result` of the node's answer.
    pub fn edit(change: impl Fn(&Value, Value) -> Value + Send + Sync + 'static) -> Self {
        Self::Edit(Arc::new(move |request, mut answer| {
            if let Some(result) = answer.get_mut("result") {
                *result = change(request, result.take());
            }
            answer
        }))
    }
}

/// One call that arrived, whatever became of it.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: String,
    pub params: Value,
    pub at: Instant,
}

#[derive(Default)]
struct State {
    target: String,
    always: HashMap<String, Act>,
    once: HashMap<String, VecDeque<Act>>,
    everything: Option<Act>,
    reverse_batches: bool,
    close_after_reply: bool,
    calls: Vec<Call>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// A rule has changed, or a call has arrived.
    changed: Notify,
    hang_up: Mutex<CancellationToken>,
}

/// A running proxy. Ends when dropped.
pub struct RpcProxy {
    port: u16,
    shared: Arc<Shared>,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl RpcProxy {
    /// Listens on a free loopback port; passes everything to `target`.
    pub fn start(target: &str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a non-blocking socket");
        let port = listener.local_addr().expect("an address").port();
        let shared = Arc::new(Shared::default());
        shared.state().target = target.to_owned();
        let stop = CancellationToken::new();
        let (inside, stopped) = (shared.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! { () = accept(listener, inside) => {}, () = stopped.cancelled() => {} }
            });
        });
        Self { port, shared, stop, thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// From now on, for this method.
    pub fn on(&self, method: &str, act: Act) {
        self.change(|state| drop(state.always.insert(method.to_owned(), act)));
    }

    /// For the next call of this method that has none yet; after it, what [`Self::on`] said.
    pub fn next(&self, method: &str, act: Act) {
        self.change(|state| state.once.entry(method.to_owned()).or_default().push_back(act));
    }

    /// For all methods without a rule of their own.
    pub fn on_everything(&self, act: Act) {
        self.change(|state| state.everything = Some(act));
    }

    /// No call gets an answer until [`Self::clear`], rules or not.
    pub fn freeze(&self) {
        self.change(|state| {
            state.always.clear();
            state.once.clear();
            state.everything = Some(Act::Freeze);
        });
    }

    /// Passes everything again, what is frozen included. Counters stay.
    pub fn clear(&self) {
        self.change(|state| {
            state.always.clear();
            state.once.clear();
            state.everything = None;
        });
    }

    /// Another node from now on; open connections stay.
    pub fn forward_to(&self, target: &str) {
        self.change(|state| state.target = target.to_owned());
    }

    /// Answers batches in another order than they were asked in.
    pub fn reverse_batches(&self) {
        self.change(|state| state.reverse_batches = true);
    }

    /// Whether each reply ends its connection, announced as HTTP has it: the client then reconnects without an error.
    pub fn close_after_reply(&self, close: bool) {
        self.change(|state| state.close_after_reply = close);
    }

    /// Closes every open connection, unannounced; new ones are accepted.
    pub fn hang_up(&self) {
        let mut token = self.shared.hang_up.lock().expect("no panic under this lock");
        std::mem::take(&mut *token).cancel();
    }

    /// How often this method was called, dropped and frozen calls included.
    pub fn count(&self, method: &str) -> usize {
        self.shared.state().calls.iter().filter(|call| call.method == method).count()
    }

    /// All calls of this method.
    pub fn calls(&self, method: &str) -> Vec<Call> {
        self.shared.state().calls.iter().filter(|call| call.method == method).cloned().collect()
    }

    /// How many calls there were.
    pub fn total(&self) -> usize {
        self.shared.state().calls.len()
    }

    /// Returns when `method` has been called `count` times in all; panics after `within`.
    pub async fn wait_for(&self, method: &str, count: usize, within: Duration) {
        self.wait_until(within, |proxy| proxy.count(method) >= count).await;
    }

    /// Returns when `reached`, which is asked again at each call that arrives; panics after `within`.
    pub async fn wait_until(&self, within: Duration, reached: impl Fn(&Self) -> bool) {
        let wait = async {
            loop {
                let changed = self.shared.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if reached(self) {
                    return;
                }
                changed.await;
            }
        };
        let waited = tokio::time::timeout(within, wait).await;
        waited.unwrap_or_else(|_| panic!("not reached within {within:?}; calls: {:?}", self.counts()));
    }

    /// How often each method was called.
    pub fn counts(&self) -> std::collections::BTreeMap<String, usize> {
        let mut counts = std::collections::BTreeMap::new();
        for call in &self.shared.state().calls {
            *counts.entry(call.method.clone()).or_default() += 1;
        }
        counts
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.state());
        self.shared.changed.notify_waiters();
    }
}

impl Drop for RpcProxy {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }

    /// Counts the call.
    fn arrive(&self, request: &Value) {
        let method = request["method"].as_str().unwrap_or_default().to_owned();
        self.state().calls.push(Call { method, params: request["params"].clone(), at: Instant::now() });
        self.changed.notify_waiters();
    }

    /// The rule for a call, once there is one other than to hold it.
    async fn act(&self, request: &Value) -> Act {
        let method = request["method"].as_str().unwrap_or_default();
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let act = {
                let mut state = self.state();
                let once = state.once.get_mut(method).and_then(VecDeque::pop_front);
                once.or_else(|| state.always.get(method).cloned()).or_else(|| state.everything.clone())
            };
            match act.unwrap_or(Act::Pass) {
                Act::Freeze => changed.await,
                act => return act,
            }
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let client = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
    while let Ok((stream, _)) = listener.accept().await {
        let (shared, client) = (shared.clone(), client.clone());
        let hang_up = shared.hang_up.lock().expect("no panic under this lock").clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = serve(stream, &shared, &client) => {}
                () = hang_up.cancelled() => {}
            }
        });
    }
}

/// One connection. `None` ends it.
async fn serve(stream: TcpStream, shared: &Shared, client: &reqwest::Client) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let body = read_request(&mut stream).await?;
        let requests: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let batch = requests.as_array();
        for request in batch.map_or(std::slice::from_ref(&requests), Vec::as_slice) {
            shared.arrive(request);
        }
        let mut answers = Vec::new();
        let mut whole = None;
        for request in batch.map_or(std::slice::from_ref(&requests), Vec::as_slice) {
            match perform(request, shared, client).await {
                Reply::Json(answer) => answers.push(answer),
                other => whole = Some(other),
            }
        }
        if shared.state().reverse_batches {
            answers.reverse();
        }
        let (status, headers, body) = match whole {
            None if batch.is_some() => (200, String::new(), Value::Array(answers).to_string().into_bytes()),
            None => (200, String::new(), answers.pop()?.to_string().into_bytes()),
            Some(Reply::Http(status)) => (status, String::new(), Vec::new()),
            Some(Reply::Redirect(url)) => (307, format!("location: {url}\r\n"), Vec::new()),
            Some(Reply::Garbage(bytes)) => (200, String::new(), bytes),
            Some(Reply::HangUp | Reply::Json(_)) => return None,
        };
        let close = shared.state().close_after_reply;
        let head = format!(
            "HTTP/1.1 {status} As-Told\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: {}\r\n{headers}\r\n",
            body.len(),
            if close { "close" } else { "keep-alive" },
        );
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(&body).await.ok()?;
        stream.flush().await.ok()?;
        if close {
            return None;
        }
    }
}

enum Reply {
    Json(Value),
    HangUp,
    Http(u16),
    Redirect(String),
    Garbage(Vec<u8>),
}

async fn perform(request: &Value, shared: &Shared, client: &reqwest::Client) -> Reply {
    let target = |shared: &Shared| shared.state().target.clone();
    let with_id = |mut body: Value| {
        body["jsonrpc"] = json!("2.0");
        body["id"] = request["id"].clone();
        Reply::Json(body)
    };
    match shared.act(request).await {
        Act::Pass => forward(client, &target(shared), request).await.map_or(Reply::HangUp, Reply::Json),
        Act::Delay(time) => {
            tokio::time::sleep(time).await;
            forward(client, &target(shared), request).await.map_or(Reply::HangUp, Reply::Json)
        }
        Act::DropReply => {
            let _ = forward(client, &target(shared), request).await;
            Reply::HangUp
        }
        Act::DropRequest | Act::Freeze => Reply::HangUp,
        Act::Error { code, message, data } => {
            let mut error = json!({"code": code, "message": message});
            if let Some(data) = data {
                error["data"] = data;
            }
            with_id(json!({"error": error}))
        }
        Act::Answer(result) => with_id(json!({"result": result})),
        Act::Edit(change) => match forward(client, &target(shared), request).await {
            Some(answer) => Reply::Json(change(request, answer)),
            None => Reply::HangUp,
        },
        Act::Http(status) => Reply::Http(status),
        Act::Redirect(url) => Reply::Redirect(url),
        Act::Garbage(bytes) => Reply::Garbage(bytes),
    }
}

async fn forward(client: &reqwest::Client, target: &str, request: &Value) -> Option<Value> {
    client.post(target).json(request).send().await.ok()?.json().await.ok()
}

/// The body of one HTTP/1.1 request with a content-length, which is all that JSON-RPC clients send.
async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"))?.trim().parse().ok()?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    Some(body)
}
