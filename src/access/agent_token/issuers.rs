//! The keys of identity providers: found by OpenID Connect Discovery, kept for a while, asked again within bounds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{Jwk, JwkSet};
use moka::future::Cache;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use url::Url;

use crate::outbound::{Outbound, OutboundError, Refusal, Request};

/// Keys are taken as they are for this long.
const FRESH: Duration = Duration::from_secs(300);
/// … and for this long when the issuer does not answer.
const STALE: Duration = Duration::from_secs(3_600);
/// An issuer that answered is not asked again before this, whatever key an assertion names.
const PAUSE: Duration = Duration::from_secs(30);
/// … and one that did not answer, before this.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Issuers that are remembered.
const ISSUERS_MAX: u64 = 1_000;
/// Largest document of an issuer, in bytes.
const DOCUMENT_BYTES_MAX: usize = 512 * 1024;
/// Most keys of an issuer.
const KEYS_MAX: usize = 100;

/// Why an issuer's keys are not there.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IssuerError {
    /// It may not be asked: a rule forbids it.
    #[error("its address {0}")]
    Refused(#[source] Refusal),
    /// It did not answer, or nothing that can be used. The text is for the log.
    #[error("the identity provider gave no usable answer: {0}")]
    Unavailable(String),
}

/// The issuers that were asked.
pub struct Issuers {
    outbound: Outbound,
    known: Cache<String, Arc<Mutex<Held>>>,
}

/// What is held of one issuer. One request at a time asks it; the others wait for that.
#[derive(Default)]
struct Held {
    keys: Option<(Arc<JwkSet>, Instant)>,
    asked: Option<(Instant, Result<(), IssuerError>)>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: Url,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<Value>,
}

impl Issuers {
    /// None yet.
    #[must_use]
    pub fn new(outbound: Outbound) -> Self {
        let known = Cache::builder().max_capacity(ISSUERS_MAX).time_to_idle(STALE).build();
        Self { outbound, known }
    }

    /// An issuer's keys. When `wanted` is not among those at hand, the issuer is asked again, at most every 30 seconds.
    ///
    /// # Errors
    /// [`IssuerError`]. Keys at hand that have what is wanted serve for an hour when the issuer fails.
    pub async fn keys(&self, issuer: &str, wanted: impl Fn(&JwkSet) -> bool) -> Result<Arc<JwkSet>, IssuerError> {
        let held = self.known.get_with(issuer.to_owned(), async { Arc::default() }).await;
        let mut held = held.lock().await;
        let at_hand = held.keys.clone().map(|(keys, since)| (keys, since.elapsed()));
        if let Some((keys, age)) = &at_hand
            && *age < FRESH
            && wanted(keys)
        {
            return Ok(keys.clone());
        }
        let usable = at_hand.filter(|(keys, age)| *age < STALE && wanted(keys)).map(|(keys, _)| keys);
        match &held.asked {
            Some((at, Ok(()))) if at.elapsed() < PAUSE => {
                // Whatever is wanted, it was not there a moment ago.
                return held.keys.clone().map(|(keys, _)| keys).ok_or_else(|| unavailable("it has no keys"));
            }
            Some((at, Err(error))) if at.elapsed() < PAUSE_AFTER_FAILURE => return usable.ok_or_else(|| error.clone()),
            _ => {}
        }
        let fetched = self.fetch(issuer).await;
        held.asked = Some((Instant::now(), fetched.as_ref().map(|_| ()).map_err(Clone::clone)));
        match fetched {
            Ok(keys) => {
                let keys = Arc::new(keys);
                held.keys = Some((keys.clone(), Instant::now()));
                Ok(keys)
            }
            Err(error) => {
                tracing::warn!(issuer, %error, "an identity provider could not be asked");
                usable.ok_or(error)
            }
        }
    }

    /// Asks for the two documents.
    async fn fetch(&self, issuer: &str) -> Result<JwkSet, IssuerError> {
        // OpenID Connect Discovery §4: a slash at the end is taken off before the path is put on.
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let url = url.parse().map_err(|_| IssuerError::Refused(Refusal::Url))?;
        let discovery: Discovery = self.document(url).await?;
        if discovery.issuer != issuer {
            return Err(unavailable("its discovery document is another issuer's"));
        }
        let Keys { keys } = self.document(discovery.jwks_uri).await?;
        // Kinds of keys that are not known here are left out.
        let keys: Vec<Jwk> =
            keys.into_iter().take(KEYS_MAX).filter_map(|key| serde_json::from_value(key).ok()).collect();
        Ok(JwkSet { keys })
    }

    async fn document<T: serde::de::DeserializeOwned>(&self, url: Url) -> Result<T, IssuerError> {
        let reply = self.outbound.send(Request::get(url, DOCUMENT_BYTES_MAX)).await.map_err(|error| match error {
            OutboundError::Refused(refusal) => IssuerError::Refused(refusal),
            error => IssuerError::Unavailable(crate::http::problem::chain(&error)),
        })?;
        if reply.status != 200 {
            return Err(IssuerError::Unavailable(format!("a document was answered with status {}", reply.status)));
        }
        serde_json::from_slice(&reply.body).map_err(|_| unavailable("a document is not what it should be"))
    }
}

fn unavailable(what: &str) -> IssuerError {
    IssuerError::Unavailable(what.to_owned())
}
