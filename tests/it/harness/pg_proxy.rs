//! A proxy in front of Postgres that can lose the COMMIT of a transaction that signed something, or its answer.
//!
//! It reads the client's half of the protocol (PostgreSQL 15, chapter 55.7) just far enough to know the prepared statements by
//! name, so that it knows the one connection that is in T1.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::Notify;

/// What happens to the next COMMIT of a T1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It reaches the server, and its answer is lost with the connection.
    LoseAnswer,
    /// The connection breaks before it reaches the server.
    LoseCommit,
    /// It is held back until [`PgProxy::release`].
    Hold,
}

#[derive(Default)]
struct Shared {
    armed: Mutex<Option<Fault>>,
    struck: Notify,
    released: Notify,
}

pub struct PgProxy {
    shared: Arc<Shared>,
    port: u16,
    database: String,
}

impl PgProxy {
    /// In front of the cluster whose socket is in `socket`. Must run in a Tokio runtime.
    pub async fn start(socket: &Path, database: &str) -> Self {
        let shared = Arc::new(Shared::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let socket = socket.join(".s.PGSQL.5432");
        tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let Ok(server) = UnixStream::connect(&socket).await else { continue };
                    tokio::spawn(serve(Arc::clone(&shared), client, server));
                }
            }
        });
        Self { shared, port, database: database.to_owned() }
    }

    pub fn url(&self) -> String {
        format!("postgres://{}@127.0.0.1:{}/{}?sslmode=disable", self.database, self.port, self.database)
    }

    pub fn arm(&self, fault: Fault) {
        *self.shared.armed.lock().unwrap() = Some(fault);
    }

    /// No fault any more, unless it has struck.
    pub fn disarm(&self) {
        *self.shared.armed.lock().unwrap() = None;
    }

    /// Waits until the fault has struck.
    pub async fn struck(&self) {
        self.shared.struck.notified().await;
    }

    pub fn release(&self) {
        self.shared.released.notify_waiters();
    }
}

async fn serve(shared: Arc<Shared>, client: TcpStream, server: UnixStream) {
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
    });
    let mut messages = Messages { from: from_client, started: false };
    let mut t1 = T1::default();
    while let Some(message) = messages.next().await {
        if t1.is_its_commit(&message) {
            let fault = shared.armed.lock().unwrap().take();
            match fault {
                None => {}
                Some(Fault::LoseCommit) => {
                    shared.struck.notify_one();
                    break;
                }
                Some(Fault::LoseAnswer) => {
                    back.abort();
                    let _ = to_server.write_all(&message).await;
                    shared.struck.notify_one();
                    // The server commits before it notices that nobody listens.
                    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
                    break;
                }
                Some(Fault::Hold) => {
                    let released = shared.released.notified();
                    shared.struck.notify_one();
                    released.await;
                }
            }
        }
        if to_server.write_all(&message).await.is_err() {
            break;
        }
    }
    back.abort();
}

struct Messages {
    from: OwnedReadHalf,
    started: bool,
}

impl Messages {
    /// One whole message with its header; the first has no type byte.
    async fn next(&mut self) -> Option<Vec<u8>> {
        let head = if self.started { 5 } else { 4 };
        let mut message = vec![0; head];
        self.from.read_exact(&mut message).await.ok()?;
        let length = u32::from_be_bytes(message[head - 4..].try_into().ok()?) as usize;
        let mut rest = vec![0; length - 4];
        self.from.read_exact(&mut rest).await.ok()?;
        message.extend(rest);
        self.started = true;
        Some(message)
    }
}

/// Whether the connection is in a transaction that has written signed bytes.
#[derive(Default)]
struct T1 {
    writers: HashSet<Vec<u8>>,
    wrote: bool,
}

impl T1 {
    fn is_its_commit(&mut self, message: &[u8]) -> bool {
        let body = message.get(5..).unwrap_or_default();
        let cut = |bytes: &[u8]| bytes.split(|b| *b == 0).next().unwrap_or_default().to_vec();
        match message.first() {
            // Parse: statement name, query.
            Some(b'P') => {
                let name = cut(body);
                let query = &body[(name.len() + 1).min(body.len())..];
                if query.windows(20).any(|w| w == b"INSERT INTO attempts") {
                    self.writers.insert(name);
                }
                false
            }
            // Bind: portal name, statement name.
            Some(b'B') => {
                let portal = cut(body);
                let name = cut(&body[(portal.len() + 1).min(body.len())..]);
                self.wrote |= self.writers.contains(&name);
                false
            }
            Some(b'Q') => {
                let text = cut(body);
                let ends = text.starts_with(b"COMMIT") || text == b"ROLLBACK";
                let is_commit = text.starts_with(b"COMMIT") && self.wrote;
                if ends {
                    self.wrote = false;
                }
                is_commit
            }
            _ => false,
        }
    }
}
