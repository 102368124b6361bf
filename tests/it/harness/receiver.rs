//! A webhook's receiver on loopback, which can be told to refuse, break and fall silent.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use serde_json::Value;

/// A message as it came.
#[derive(Clone, Debug)]
pub struct Message {
    pub headers: HeaderMap,
    pub raw: Vec<u8>,
    pub body: Value,
}

impl Message {
    pub fn header(&self, name: &str) -> String {
        self.headers[name].to_str().unwrap().to_owned()
    }

    pub fn kind(&self) -> String {
        self.body["type"].as_str().unwrap().to_owned()
    }
}

struct Shared {
    /// What is answered; 0: nothing, for a minute.
    status: u16,
    got: Vec<Message>,
}

pub struct Receiver {
    pub url: String,
    shared: Arc<Mutex<Shared>>,
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let shared = Arc::new(Mutex::new(Shared { status: 204, got: Vec::new() }));
        let router = Router::new().fallback(take).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, shared }
    }

    pub fn answer(&self, status: u16) {
        self.shared.lock().unwrap().status = status;
    }

    /// Everything that came, whatever it was answered.
    pub fn got(&self) -> Vec<Message> {
        self.shared.lock().unwrap().got.clone()
    }
}

async fn take(State(shared): State<Arc<Mutex<Shared>>>, headers: HeaderMap, raw: Bytes) -> StatusCode {
    let status = {
        let mut shared = shared.lock().unwrap();
        let body = serde_json::from_slice(&raw).unwrap();
        shared.got.push(Message { headers, raw: raw.to_vec(), body });
        shared.status
    };
    if status == 0 {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    StatusCode::from_u16(status).unwrap_or(StatusCode::NO_CONTENT)
}
