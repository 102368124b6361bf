//! Connections: plain, or TLS of our own. A handshake takes place beside the accepting, so that a slow one holds up nobody.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use crate::access::agent_token::certificate::Certificate;
use crate::net::{Networks, site_of};

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

impl Connection {
    fn of(stream: &Stream, peer: SocketAddr) -> Self {
        let certificate = match stream {
            Either::Left(_) => None,
            Either::Right(tls) => {
                let shown = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
                shown.and_then(|der| Certificate::from_der(der))
            }
        };
        Self { peer, certificate }
    }
}

type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;
type Handshake = (SocketAddr, Option<TlsStream<TcpStream>>, Seat);

/// How many connections there may be.
#[derive(Clone, Debug)]
pub struct Room {
    /// Of all addresses.
    pub all: u32,
    /// Of one address, or IPv6 /64.
    pub of_one: u32,
    /// Proxies: their connections are many callers' and are bounded by `all` alone.
    pub proxies: Networks,
}

/// Connections by where they come from.
#[derive(Debug, Default)]
struct Seats(Mutex<(u32, HashMap<IpAddr, u32>)>);

impl Seats {
    fn take(self: &Arc<Self>, room: &Room, peer: SocketAddr) -> Option<Seat> {
        let site = site_of(peer.ip());
        let mut seats = self.0.lock();
        let (all, by_site) = &mut *seats;
        let taken = by_site.get(&site).copied().unwrap_or_default();
        if *all >= room.all || taken >= room.of_one && !room.proxies.contains(peer.ip()) {
            return None;
        }
        *all += 1;
        by_site.insert(site, taken + 1);
        Some(Seat { seats: Arc::clone(self), site })
    }
}

/// The place of one connection, until it is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    site: IpAddr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.seats.0.lock();
        let (all, by_site) = &mut *seats;
        *all = all.saturating_sub(1);
        if let Some(count) = by_site.get_mut(&self.site) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                by_site.remove(&self.site);
            }
        }
    }
}

/// A connection that can be served.
pub struct Accepted {
    /// What it is read and written by.
    pub stream: Stream,
    /// What its requests see of it.
    pub connection: Connection,
    /// To be kept as long as it is open.
    pub seat: Seat,
}

/// The daemon's listener.
pub struct Listener {
    tcp: TcpListener,
    tls: Option<TlsAcceptor>,
    handshakes: JoinSet<Handshake>,
    by_peer: HashMap<IpAddr, usize>,
    room: Room,
    seats: Arc<Seats>,
}

impl Listener {
    /// On a bound socket, with TLS or without.
    #[must_use]
    pub fn new(tcp: TcpListener, tls: Option<Arc<ServerConfig>>, room: Room) -> Self {
        let (tls, seats) = (tls.map(TlsAcceptor::from), Arc::default());
        Self { tcp, tls, handshakes: JoinSet::new(), by_peer: HashMap::new(), room, seats }
    }

    fn begin(&mut self, acceptor: &TlsAcceptor, stream: TcpStream, peer: SocketAddr, seat: Seat) {
        let of_peer = self.by_peer.entry(site_of(peer.ip())).or_default();
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
            (peer, stream, seat)
        });
    }

    /// One handshake has ended.
    fn end(&mut self, peer: IpAddr) {
        if let Some(count) = self.by_peer.get_mut(&site_of(peer)) {
            *count -= 1;
            if *count == 0 {
                self.by_peer.remove(&site_of(peer));
            }
        }
    }

    /// The next connection. One for which there is no room is closed.
    pub async fn accept(&mut self) -> Accepted {
        loop {
            let room = self.handshakes.len() < HANDSHAKES_MAX;
            tokio::select! {
                // Also waits a moment when there are no file descriptors left, say.
                (stream, peer) = axum::serve::Listener::accept(&mut self.tcp), if room => {
                    let Some(seat) = self.seats.take(&self.room, peer) else {
                        tracing::debug!(%peer, "a connection too many");
                        continue;
                    };
                    // Small replies must not wait for more to send.
                    let _ = stream.set_nodelay(true);
                    match self.tls.clone() {
                        None => {
                            let stream = Either::Left(stream);
                            return Accepted { connection: Connection::of(&stream, peer), stream, seat };
                        }
                        Some(acceptor) => self.begin(&acceptor, stream, peer, seat),
                    }
                }
                Some(ended) = self.handshakes.join_next() => match ended {
                    Ok((peer, stream, seat)) => {
                        self.end(peer.ip());
                        if let Some(stream) = stream {
                            let stream = Either::Right(Box::new(stream));
                            return Accepted { connection: Connection::of(&stream, peer), stream, seat };
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
}
