//! A real `intentd simulator` as a child, and a proxy in front of one that fails as told.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use intentd::config::Secret;
use intentd::simulate::Backend;
use intentd::simulate::tenderly::{Client, Credentials, Session, Slug};
use serde_json::Value;

use super::daemon::Daemon;
use super::install::DAEMON;

/// The key of every simulator that a test starts; a canary too: it must stand in no log and no reply.
pub const KEY: &str = "simulator-key-do-not-repeat-71ac";

pub struct Simulator {
    pub daemon: Daemon,
    pub folder: tempfile::TempDir,
}

impl Simulator {
    /// On these chains: name, id, RPC URL.
    pub async fn start(chains: &[(&str, u64, String)]) -> Self {
        Self::with(chains, |_| {}).await
    }

    pub async fn with(chains: &[(&str, u64, String)], change: impl FnOnce(&mut Command)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Self::command(chains, folder.path());
        change(&mut command);
        let daemon = Daemon::start_as("simulator", command, folder.path(), "simulator").await;
        Self { daemon, folder }
    }

    pub fn command(chains: &[(&str, u64, String)], folder: &std::path::Path) -> Command {
        let toml: String =
            chains.iter().map(|(name, id, _)| super::stack::chain_toml(name, *id, "eth", 1, 900, "")).collect();
        std::fs::write(folder.join("chains.toml"), toml).unwrap();
        let mut command = Command::new(DAEMON);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("INTENTD_")) {
            command.env_remove(name);
        }
        command.env("INTENTD_CHAINS_FILE", folder.join("chains.toml")).env("INTENTD_SIMULATOR_ACCESS_KEY", KEY);
        for (name, _, url) in chains {
            command.env(format!("INTENTD_RPC_URL_{}", name.to_uppercase().replace('-', "_")), url);
        }
        command
    }

    pub fn url(&self) -> &str {
        &self.daemon.url
    }

    /// Our own client, as the daemon has it.
    pub fn backend(&self, save: bool) -> Backend {
        backend_at(self.url(), save)
    }
}

pub fn backend_at(url: &str, save: bool) -> Backend {
    let client = Client::new(url.parse().unwrap(), None).unwrap();
    let access_key = Secret::from(KEY.to_owned());
    let credentials = Credentials { account: Slug::local(), project: Slug::local(), access_key };
    Backend::Tenderly(Arc::new(Session { client, credentials, save }))
}

/// What tells a daemon to use a simulator.
pub fn variables(url: &str) -> Vec<(String, String)> {
    let variables = [
        ("INTENTD_SIMULATION_BACKEND", "tenderly"),
        ("INTENTD_SIMULATION_URL", url),
        ("INTENTD_SIMULATION_ACCOUNT", "local"),
        ("INTENTD_SIMULATION_PROJECT", "local"),
        ("INTENTD_SIMULATION_ACCESS_KEY", KEY),
        ("INTENTD_SIMULATION_SAVE", "true"),
    ];
    variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// What happens to a request.
#[derive(Clone)]
pub enum Fault {
    /// Passed on.
    None,
    /// Not passed on; this status with these headers and this body.
    Status(u16, Vec<(&'static str, &'static str)>, Vec<u8>),
    /// Passed on after this time.
    Delay(Duration),
    /// Passed on, and the answer's JSON changed.
    Edit(Arc<dyn Fn(Value) -> Value + Send + Sync>),
}

#[derive(Clone)]
struct Shared {
    target: String,
    fault: Arc<Mutex<Fault>>,
    count: Arc<AtomicUsize>,
    http: reqwest::Client,
}

/// In front of a simulator.
pub struct FaultyProxy {
    pub url: String,
    shared: Shared,
}

impl FaultyProxy {
    pub async fn start(target: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let shared = Shared {
            target: target.to_owned(),
            fault: Arc::new(Mutex::new(Fault::None)),
            count: Arc::new(AtomicUsize::new(0)),
            http,
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(forward).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, shared }
    }

    pub fn set(&self, fault: Fault) {
        *self.shared.fault.lock().unwrap() = fault;
    }

    /// Requests since the last call of this.
    pub fn take_count(&self) -> usize {
        self.shared.count.swap(0, Ordering::SeqCst)
    }
}

async fn forward(State(shared): State<Shared>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    shared.count.fetch_add(1, Ordering::SeqCst);
    let fault = shared.fault.lock().unwrap().clone();
    let edit = match fault {
        Fault::Status(status, headers, body) => {
            let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
            for (name, value) in headers {
                response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            return response;
        }
        Fault::Delay(time) => {
            tokio::time::sleep(time).await;
            None
        }
        Fault::Edit(edit) => Some(edit),
        Fault::None => None,
    };
    let mut request = shared.http.request(method, format!("{}{uri}", shared.target)).body(body);
    for name in ["x-access-key", "content-type"] {
        if let Some(value) = headers.get(name) {
            request = request.header(name, value);
        }
    }
    let Ok(answer) = request.send().await else { return StatusCode::BAD_GATEWAY.into_response() };
    let status = answer.status();
    let bytes = answer.bytes().await.unwrap_or_default();
    match edit {
        None => (status, bytes).into_response(),
        Some(edit) => (status, edit(serde_json::from_slice(&bytes).unwrap()).to_string()).into_response(),
    }
}
