//! Connections that clients keep: what is answered early leaves them fit for the next request, or says that it does not.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::stack::{Options, Stack};

const PATIENCE: Duration = Duration::from_secs(20);

struct Kept(TcpStream);

impl Kept {
    async fn open(url: &str) -> Self {
        let stream = TcpStream::connect(url.trim_start_matches("http://")).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// The head of a request whose body is to come.
    async fn head(&mut self, path: &str, more: &str) {
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n");
        self.write(head.as_bytes()).await;
    }

    /// One reply with a `Content-Length`: its head in lower case.
    async fn reply(&mut self) -> String {
        let mut bytes = Vec::new();
        loop {
            let mut byte = [0];
            let read = tokio::time::timeout(PATIENCE, self.0.read(&mut byte)).await.expect("a reply");
            assert_eq!(read.unwrap(), 1, "the connection was closed: {}", String::from_utf8_lossy(&bytes));
            bytes.push(byte[0]);
            if bytes.ends_with(b"\r\n\r\n") {
                break;
            }
        }
        let head = String::from_utf8(bytes).unwrap().to_lowercase();
        let length = head.split_once("content-length: ").unwrap().1.split_once("\r\n").unwrap().0.parse().unwrap();
        self.0.read_exact(&mut vec![0; length]).await.unwrap();
        head
    }
}

#[tokio::test]
async fn what_is_answered_before_its_body_has_come_does_not_break_the_next_request() {
    let stack = Stack::with(Options { chains: Vec::new(), ..Options::default() }).await;
    let url = &stack.daemons[0].url;
    // A refusal of each kind, over and over on one connection; head and body go separately, as many clients send them.
    let mut kept = Kept::open(url).await;
    for round in 0..60 {
        let (path, status) = [("/v1/nothing/here", "404"), ("/v1/vaults", "401"), ("/v1/health", "405")][round % 3];
        let body = "x".repeat(1 + round * 500);
        if round % 2 == 0 {
            kept.head(path, &format!("Content-Length: {}\r\n", body.len())).await;
            tokio::task::yield_now().await;
            kept.write(body.as_bytes()).await;
        } else {
            kept.head(path, "Transfer-Encoding: chunked\r\n").await;
            kept.write(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes()).await;
        }
        let head = kept.reply().await;
        assert!(head.starts_with(&format!("http/1.1 {status} ")) && !head.contains("connection: close"), "{head}");
    }

    // Much, nothing, and what waits to be asked for: the reply says that this was the connection's last.
    for (more, body) in [
        ("Content-Length: 1000000\r\n", 100_000),
        ("Content-Length: 10\r\n", 0),
        ("Transfer-Encoding: chunked\r\n", 0),
        ("Content-Length: 10\r\nExpect: 100-continue\r\n", 0),
    ] {
        let mut kept = Kept::open(url).await;
        kept.head("/v1/nothing/here", more).await;
        kept.write(&vec![b'x'; body]).await;
        let head = kept.reply().await;
        assert!(head.starts_with("http/1.1 404 ") && head.contains("connection: close\r\n"), "{more}: {head}");
    }

    // What the router itself cannot read is a problem too.
    for (path, status) in [("/v1/agents/%FF/transactions", 404), ("/v1/agents/x/transactions?limit=1&limit=1", 400)] {
        let reply = stack.owner.get(path).await;
        assert_eq!(reply.headers["content-type"], "application/problem+json", "{path}");
        assert!(!reply.refused(status).is_empty(), "{path}");
    }
}
