//! Reading requests the way existing clients send them: any content type, an empty body where a body is optional, explicit nulls.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode};
use futures::StreamExt as _;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::limits::Held;
use super::listen::Connection;
use super::problem::Problem;
use super::proxies;
use crate::access::Principal;
use crate::app::App;

/// Largest request body: 5 MiB.
pub const BODY_BYTES_MAX: usize = 5 * 1024 * 1024;
/// Largest body of a request without an authenticated principal: what the public routes take is short.
const PUBLIC_BODY_BYTES_MAX: usize = 128 * 1024;
/// A body that took longer than this is one behind which a credential may have been revoked: it is looked up again.
const FRESH: Duration = Duration::from_millis(500);
/// How long a body may stop in the middle.
const CHUNK_PATIENCE: Duration = Duration::from_secs(10);
/// How much of a body that is too large is read and thrown away.
const DISCARD_BYTES_MAX: usize = 32 * 1024 * 1024;

/// A JSON body, whatever its `Content-Type` says. An empty body reads as `{}`: clients send the header with nothing behind it.
/// Nesting is bounded by serde_json (128), size by `BYTES_MAX`, and by 128 KiB where nobody is authenticated; what all bodies together
/// take by `limits.body_memory_mib`.
///
/// Who sends it was authenticated before it. When it took its time, they are again: what is revoked meanwhile does nothing.
pub struct Body<T, const BYTES_MAX: usize = BODY_BYTES_MAX>(pub T);

impl<T: DeserializeOwned, const BYTES_MAX: usize> FromRequest<Arc<App>> for Body<T, BYTES_MAX> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let principal = parts.extensions.remove::<Principal>();
        let most = if principal.is_some() { BYTES_MAX } else { BYTES_MAX.min(PUBLIC_BODY_BYTES_MAX) };
        let began = Instant::now();
        let (bytes, _held) = read_whole(app, body, most).await?;
        if let Some(principal) = principal.filter(|_| began.elapsed() > FRESH) {
            crate::access::http::authenticate_again(app, &parts, &principal).await?;
        }
        let bytes: &[u8] = if bytes.iter().all(u8::is_ascii_whitespace) { b"{}" } else { &bytes };
        // serde reads a list as a struct, member by member.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(Problem::bad_request("the body is not valid: it must be one JSON object"));
        }
        serde_json::from_slice(bytes).map(Self).map_err(|error| {
            use serde_json::error::Category;
            match error.classify() {
                Category::Data => Problem::bad_request(format!("the body does not fit: {}", without_value(&error))),
                Category::Syntax | Category::Eof | Category::Io => {
                    Problem::bad_request(format!("the body is not valid JSON: {error}"))
                }
            }
        })
    }
}

/// What was expected and where, but not what was there instead: that may be a secret.
fn without_value(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split_once(", expected ").map_or_else(|| text.clone(), |(_, wanted)| format!("expected {wanted}"))
}

/// A JSON object in which no member is given twice: of two values, what reads the body before us may have judged the other one.
pub struct Members(pub Map<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = Map<String, Value>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
                let mut members = Map::new();
                while let Some((name, value)) = access.next_entry::<String, Value>()? {
                    if members.contains_key(&name) {
                        let shown: String = name.chars().take(40).collect();
                        return Err(serde::de::Error::custom(format!("{shown}: is given twice")));
                    }
                    members.insert(name, value);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Once).map(Self)
    }
}

async fn read_whole(app: &App, body: axum::body::Body, most: usize) -> Result<(Vec<u8>, Held), Problem> {
    let patience = Duration::from_secs(app.config.limits.body_deadline_s);
    let (mut held, mut no_room) = (Held::default(), None);
    let room = |bytes| {
        no_room = app.limits.hold_body(&mut held, bytes).err();
        no_room.is_none()
    };
    let read = read_up_to(body, most, patience, room).await;
    match (read, no_room) {
        (Ok(bytes), _) => Ok((bytes, held)),
        (Err(_), Some(problem)) => Err(problem),
        (Err(BodyFault::TooLarge), _) => {
            let detail = format!("the body is larger than {} KiB", most / 1024);
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail))
        }
        (Err(BodyFault::TooSlow), _) => {
            let detail = "the body did not come in time: send it again, all at once";
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail))
        }
        (Err(BodyFault::Broken | BodyFault::NoRoom), _) => {
            Err(Problem::bad_request("the body could not be read to its end"))
        }
    }
}

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// The connection ended before it did.
    Broken,
    /// Larger than it may be.
    TooLarge,
    /// It stopped in the middle, or took too long as a whole.
    TooSlow,
    /// There is no memory for it now.
    NoRoom,
}

/// The whole body, up to so many bytes, if it comes within `patience` and `room` says yes to as many bytes as there are. What is beyond the
/// limit is read and thrown away, within reason: a client that is still sending would see a broken connection instead of the reply that
/// says why.
///
/// # Errors
/// [`BodyFault`].
pub async fn read_up_to(
    body: axum::body::Body,
    bytes_max: usize,
    patience: Duration,
    mut room: impl FnMut(usize) -> bool,
) -> Result<Vec<u8>, BodyFault> {
    let mut chunks = body.into_data_stream();
    let (mut kept, mut seen) = (Vec::new(), 0_usize);
    let ends = Instant::now() + patience;
    loop {
        let until = ends.min(Instant::now() + CHUNK_PATIENCE);
        let next = tokio::time::timeout_at(until, chunks.next()).await.map_err(|_| BodyFault::TooSlow)?;
        let Some(chunk) = next else { break };
        let chunk = chunk.map_err(|_| BodyFault::Broken)?;
        seen = seen.saturating_add(chunk.len());
        if seen <= bytes_max {
            if !room(seen) {
                return Err(BodyFault::NoRoom);
            }
            kept.extend_from_slice(&chunk);
        } else if seen > DISCARD_BYTES_MAX {
            break;
        } else {
            kept = Vec::new();
        }
    }
    if seen > bytes_max { Err(BodyFault::TooLarge) } else { Ok(kept) }
}

/// The address a request came from: the socket's peer, or behind listed proxies (`limits.trusted_proxies`) the address that the
/// outermost of them was called from. Always canonical: an IPv4-mapped IPv6 address is IPv4.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub Option<IpAddr>);

impl Peer {
    /// From the connection's address and, where a listed proxy is at the other end, `X-Forwarded-For`.
    #[must_use]
    pub fn of(app: &App, parts: &Parts) -> Self {
        let lines = parts.headers.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes);
        let trusted = &app.config.limits.trusted_proxies;
        Self(connection(parts).map(|connection| proxies::client_of(connection.peer.ip(), trusted, lines)))
    }
}

impl FromRequestParts<Arc<App>> for Peer {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        Ok(Self::of(app, parts))
    }
}

/// The connection that a request came by.
#[must_use]
pub fn connection(parts: &Parts) -> Option<&Connection> {
    parts.extensions.get::<ConnectInfo<Connection>>().map(|info| &info.0)
}

/// An authenticated principal; 401 otherwise. Put into the request by the access layer, see `access::http::authenticate`.
impl FromRequestParts<Arc<App>> for Principal {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let principal = crate::access::http::authenticate(app, parts).await?;
        parts.extensions.insert(principal.clone());
        Ok(principal)
    }
}
