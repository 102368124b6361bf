//! A mail server (RFC 5321, as much as a sender needs) that keeps what it is given and can be told to refuse.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

#[derive(Default)]
struct State {
    /// Whole messages, with their dots unstuffed.
    taken: Mutex<Vec<String>>,
    /// Answer 451 to every message.
    refusing: AtomicBool,
    refused: std::sync::atomic::AtomicUsize,
    /// `AUTH` lines, decoded by nobody.
    logins: Mutex<Vec<String>>,
}

pub struct Smtp {
    state: Arc<State>,
    pub port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl Smtp {
    pub async fn start() -> Self {
        Self::on(0).await
    }

    /// On a given port; 0 for a free one.
    pub async fn on(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self { state, port, task }
    }

    pub fn url(&self) -> String {
        format!("smtp://postman:its-pass-77%21@127.0.0.1:{}", self.port)
    }

    pub fn taken(&self) -> Vec<String> {
        self.state.taken.lock().unwrap().clone()
    }

    pub fn logins(&self) -> Vec<String> {
        self.state.logins.lock().unwrap().clone()
    }

    pub fn refuse(&self, refusing: bool) {
        self.state.refusing.store(refusing, Relaxed);
    }

    pub fn refused(&self) -> usize {
        self.state.refused.load(Relaxed)
    }
}

impl Drop for Smtp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, state: Arc<State>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut say = async |text: &str| write.write_all(format!("{text}\r\n").as_bytes()).await.is_ok();
    say("220 test").await;
    while let Ok(Some(line)) = lines.next_line().await {
        let verb = line.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
        let ok = match verb.as_str() {
            "EHLO" => say("250-test\r\n250 AUTH PLAIN").await,
            "AUTH" => {
                state.logins.lock().unwrap().push(line.clone());
                say("235 in").await
            }
            "DATA" => {
                say("354 go on").await;
                let mut message = String::new();
                while let Ok(Some(line)) = lines.next_line().await {
                    if line == "." {
                        break;
                    }
                    message.push_str(line.strip_prefix('.').unwrap_or(&line));
                    message.push('\n');
                }
                if state.refusing.load(Relaxed) {
                    state.refused.fetch_add(1, Relaxed);
                    say("451 not now").await
                } else {
                    state.taken.lock().unwrap().push(message);
                    say("250 taken").await
                }
            }
            "QUIT" => {
                say("221 bye").await;
                return;
            }
            _ => say("250 ok").await,
        };
        if !ok {
            return;
        }
    }
}
