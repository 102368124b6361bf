//! Which web pages may call this API from a browser: the CORS protocol of the Fetch standard.
//!
//! Without a list there is none of it, and browsers keep every page of another origin out. It protects people's browsers, not the
//! daemon: whoever is not a browser is not asked. Clients authenticate by a header that they set themselves and never by a cookie, so
//! `Access-Control-Allow-Credentials` is never sent, and neither is `*`.

use std::time::Duration;

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Method};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// Origins at most.
const ORIGINS_MAX: usize = 64;
/// How long a browser may remember the answer to a preflight.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Headers beyond the standard's safe ones that requests to us may have.
const REQUEST_HEADERS: [HeaderName; 5] = [
    AUTHORIZATION,
    CONTENT_TYPE,
    HeaderName::from_static("idempotency-key"),
    HeaderName::from_static("x-cmek-old-key"),
    HeaderName::from_static("x-cmek-new-key"),
];
/// Headers of our replies that a page may read.
const REPLY_HEADERS: [HeaderName; 2] = [RETRY_AFTER, HeaderName::from_static("idempotency-replayed")];

/// `[cors]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CorsConfig {
    /// Origins of pages, as browsers send them: `https://app.example.com`. Environment: `INTENTD_CORS_ALLOWED_ORIGINS`, with commas.
    pub allowed_origins: Origins,
}

/// Origins, each spelled as browsers spell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Vec<HeaderValue>);

impl Origins {
    /// From a list of texts.
    ///
    /// # Errors
    /// Names the entry that is no origin.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let origins: Vec<_> = entries.into_iter().map(|entry| origin(entry.trim())).collect::<Result<_, _>>()?;
        if origins.len() > ORIGINS_MAX {
            return Err(format!("at most {ORIGINS_MAX} origins"));
        }
        Ok(Self(origins))
    }
}

/// Scheme, host, and a port that is not the scheme's own; nothing else. A spelling that no browser sends would never match, and `*` and
/// `null` are everybody's.
fn origin(entry: &str) -> Result<HeaderValue, String> {
    let url = (!entry.contains('*')).then(|| url::Url::parse(entry).ok()).flatten();
    let spelled = url.filter(|url| matches!(url.scheme(), "http" | "https"));
    let spelled = spelled.map(|url| url.origin().ascii_serialization());
    match spelled {
        Some(spelled) if spelled == entry => {
            HeaderValue::from_str(&spelled).map_err(|_| format!("\"{}\" is no origin", entry.escape_debug()))
        }
        Some(spelled) => {
            Err(format!("\"{}\" is not how browsers write an origin: \"{spelled}\"", entry.escape_debug()))
        }
        None => Err(format!("\"{}\" is no origin such as \"https://app.example.com\"", entry.escape_debug())),
    }
}

/// A list of texts, or (from the environment) one text with commas.
impl<'de> Deserialize<'de> for Origins {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a list of origins such as \"https://app.example.com\"")]
        enum Form {
            List(Vec<String>),
            Text(String),
        }
        let origins = match Form::deserialize(deserializer)? {
            Form::List(list) => Self::parse(list.iter().map(String::as_str)),
            Form::Text(text) => Self::parse(text.split(',').filter(|entry| !entry.trim().is_empty())),
        };
        origins.map_err(D::Error::custom)
    }
}

/// What answers preflights and marks replies for pages of these origins. `None` when there are none.
#[must_use]
pub fn layer(config: &CorsConfig) -> Option<CorsLayer> {
    let origins = &config.allowed_origins.0;
    (!origins.is_empty()).then(|| {
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins.iter().cloned()))
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
            .allow_headers(REQUEST_HEADERS)
            .expose_headers(REPLY_HEADERS)
            .max_age(REMEMBERED)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_spelled_as_browsers_spell_it() {
        for good in ["https://app.example.com", "http://localhost:3000", "https://[::1]:8443", "http://127.0.0.1:1"] {
            assert_eq!(Origins::parse([good]), Ok(Origins(vec![HeaderValue::from_static(good)])));
        }
        for bad in [
            "*",
            "null",
            "",
            "app.example.com",
            "https://app.example.com/",
            "https://app.example.com:443",
            "https://App.example.com",
            "https://app.example.com/path",
            "https://user@app.example.com",
            "https://*.example.com",
            "file:///tmp",
            "chrome-extension://abc",
        ] {
            assert!(Origins::parse([bad]).is_err(), "{bad}");
        }
        assert!(Origins::parse(std::iter::repeat_n("https://a.example", ORIGINS_MAX + 1)).is_err());
    }
}
