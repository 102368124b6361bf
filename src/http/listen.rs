//! Connections: plain, or TLS of our own. A handshake takes place beside the accepting, so that a slow one holds up nobody.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::access::agent_token::certificate::Certificate;

/// A handshake must be over after this.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at once; further connections wait to be accepted.
const HANDSHAKES_MAX: usize = 1_024;
/// Handshakes at once with one address; further connections of it are closed.
const HANDSHAKES_PER_PEER_MAX: usize = 64;

/// A connection, as requests on it see it.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The socket's peer.
    pub peer: SocketAddr,
    /// The certificate that the peer has proven to hold the key of.
    pub certificate: Option<Certificate>,
}

type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;
type Handshake = (SocketAddr, Option<TlsStream<TcpStream>>);

/// The daemon's listener.
pub struct Listener {
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
    handshakes: JoinSet<Handshake>,
    by_peer: HashMap<IpAddr, usize>,
}

impl Listener {
    /// On a bound socket, with TLS or without.
    #[must_use]
    pub fn new(tcp: TcpListener, tls: Option<Arc<ServerConfig>>) -> Self {
        Self { tcp, tls: tls.map(TlsAcceptor::from), handshakes: JoinSet::new(), by_peer: HashMap::new() }
    }

    fn begin(&mut self, acceptor: &TlsAcceptor, stream: TcpStream, peer: SocketAddr) {
        let of_peer = self.by_peer.entry(peer.ip()).or_default();
        if *of_peer >= HANDSHAKES_PER_PEER_MAX {
            return;
        }
        *of_peer += 1;
        let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream));
        self.handshakes.spawn(async move {
            let stream = match handshake.await {
                Ok(Ok(stream)) => Some(stream),
                Ok(Err(error)) => {
                    tracing::debug!(%peer, %error, "a TLS handshake failed");
                    None
                }
                Err(_) => {
                    tracing::debug!(%peer, "a TLS handshake took too long");
                    None
                }
            };
            (peer, stream)
        });
    }

    /// One handshake has ended.
    fn end(&mut self, peer: IpAddr) {
        if let Some(count) = self.by_peer.get_mut(&peer) {
            *count -= 1;
            if *count == 0 {
                self.by_peer.remove(&peer);
            }
        }
    }
}

impl axum::serve::Listener for Listener {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        loop {
            let room = self.handshakes.len() < HANDSHAKES_MAX;
            tokio::select! {
                // Also waits a moment when there are no file descriptors left, say.
                (stream, peer) = axum::serve::Listener::accept(&mut self.tcp), if room => {
                    // Small replies must not wait for more to send.
                    let _ = stream.set_nodelay(true);
                    match self.tls.clone() {
                        None => return (Either::Left(stream), peer),
                        Some(acceptor) => self.begin(&acceptor, stream, peer),
                    }
                }
                Some(ended) = self.handshakes.join_next() => match ended {
                    Ok((peer, stream)) => {
                        self.end(peer.ip());
                        if let Some(stream) = stream {
                            return (Either::Right(Box::new(stream)), peer);
                        }
                    }
                    // Whose it was is lost with it: all counts begin anew.
                    Err(error) => {
                        tracing::error!(%error, "a TLS handshake panicked");
                        self.by_peer.clear();
                    }
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

impl Connected<IncomingStream<'_, Listener>> for Connection {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        let certificate = match stream.io() {
            Either::Left(_) => None,
            Either::Right(tls) => {
                let shown = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
                shown.and_then(|der| Certificate::from_der(der))
            }
        };
        Self { peer: *stream.remote_addr(), certificate }
    }
}
