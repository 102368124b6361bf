//! HTTP to the service: no redirects, no proxy from the environment, bounded in time and size.

use std::fmt;
use std::time::Duration;

use reqwest::header::{HeaderValue, RETRY_AFTER};
use serde::Serialize;
use url::Url;

use super::wire::ErrorBody;
use super::{Credentials, Slug};
use crate::simulate::revert::clean;

/// Time to get a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for everything, a retry included.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(8);
/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest that a service may tell us to wait, in seconds.
const RETRY_AFTER_MAX_S: u64 = 300;
/// Longest text of the service that is logged, in characters.
const TEXT_CHARS_MAX: usize = 200;
/// Tenderly's API, whose dashboard is elsewhere.
const TENDERLY_API: &str = "api.tenderly.co";
const TENDERLY_DASHBOARD: &str = "https://dashboard.tenderly.co";

/// A client for one base URL. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    dashboard: Url,
}

/// An answer that makes sense.
pub(super) enum Reply {
    /// 200, with this body.
    Simulated(Vec<u8>),
    /// 400: the transaction, or the request, is refused.
    Refused { slug: String, message: String },
}

/// Why there is no answer. For the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Failure {
    #[error("no connection")]
    Connect,
    #[error("no answer within {} s", TOTAL_TIMEOUT.as_secs())]
    Timeout,
    #[error("the connection ended before the answer did")]
    Dropped,
    #[error("HTTP {status} ({slug})")]
    Status { status: u16, slug: String, retry_after_s: Option<u64> },
    #[error("it refuses the request: {slug}: {message}")]
    Refused { slug: String, message: String },
    #[error("the answer is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    #[error("the answer makes no sense: {0}")]
    Garbage(&'static str),
    #[error("the access key has characters that no header can carry")]
    Key,
}

impl Failure {
    /// When it may be worth another try, in seconds.
    pub(super) fn retry_after_s(&self) -> u64 {
        match self {
            Self::Status { retry_after_s: Some(seconds), .. } => (*seconds).clamp(1, RETRY_AFTER_MAX_S),
            Self::Status { status: 401..=404 | 407, .. } | Self::Refused { .. } | Self::Key => 30,
            Self::Status { status: 429, .. } => 5,
            _ => 2,
        }
    }
}

impl Client {
    /// A client for `base`. Without `dashboard` Tenderly's own for Tenderly, and `base` for any other.
    ///
    /// # Errors
    /// The HTTP client's text, when TLS cannot be set up.
    #[allow(clippy::expect_used, reason = "a constant URL")]
    pub fn new(base: Url, dashboard: Option<Url>) -> Result<Self, String> {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|error| error.without_url().to_string())?;
        let dashboard = dashboard.unwrap_or_else(|| {
            if base.host_str() == Some(TENDERLY_API) {
                TENDERLY_DASHBOARD.parse().expect("a URL")
            } else {
                base.clone()
            }
        });
        Ok(Self { http, base, dashboard })
    }

    pub(super) fn dashboard(&self) -> &Url {
        &self.dashboard
    }

    /// Posts to a route of the account's project. Once more where nothing was reached, or a gateway says so.
    pub(super) async fn post(
        &self,
        credentials: &Credentials,
        route: &str,
        body: &impl Serialize,
    ) -> Result<Reply, Failure> {
        let mut key = HeaderValue::from_str(credentials.access_key.expose()).map_err(|_| Failure::Key)?;
        key.set_sensitive(true);
        let url = self.url(&credentials.account, &credentials.project, route);
        let attempts = async {
            let first = self.once(url.clone(), &key, body).await;
            match first {
                Err(Failure::Connect | Failure::Status { status: 502 | 503, .. }) => self.once(url, &key, body).await,
                answer => answer,
            }
        };
        tokio::time::timeout(TOTAL_TIMEOUT, attempts).await.unwrap_or(Err(Failure::Timeout))
    }

    fn url(&self, account: &Slug, project: &Slug, route: &str) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            let segments = ["api", "v1", "account", account.as_str(), "project", project.as_str(), route];
            path.pop_if_empty().extend(segments);
        }
        url
    }

    async fn once(&self, url: Url, key: &HeaderValue, body: &impl Serialize) -> Result<Reply, Failure> {
        let request = self.http.post(url).header("X-Access-Key", key).json(body);
        let mut response = request.send().await.map_err(|error| classify(&error))?;
        let status = response.status().as_u16();
        let retry_after_s =
            response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| Failure::Dropped)? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Failure::TooLong);
            }
            bytes.extend_from_slice(&chunk);
        }
        if status == 200 {
            return Ok(Reply::Simulated(bytes));
        }
        let (slug, message) = serde_json::from_slice::<ErrorBody>(&bytes)
            .map(|body| (text(&body.error.slug, credentials_of(key)), text(&body.error.message, credentials_of(key))))
            .unwrap_or_default();
        match status {
            400 if !message.is_empty() => Ok(Reply::Refused { slug, message }),
            _ => Err(Failure::Status { status, slug, retry_after_s }),
        }
    }
}

/// Of a key only what must not be repeated.
fn credentials_of(key: &HeaderValue) -> &str {
    key.to_str().unwrap_or_default()
}

/// A text of the service as it may be logged: one line, shortened, without the key.
fn text(text: &str, key: &str) -> String {
    let text = if key.is_empty() { text.to_owned() } else { text.replace(key, "[redacted]") };
    clean(&text).chars().take(TEXT_CHARS_MAX).collect()
}

fn classify(error: &reqwest::Error) -> Failure {
    if error.is_connect() || error.is_builder() { Failure::Connect } else { Failure::Dropped }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Simulated(_) => "Simulated",
            Self::Refused { .. } => "Refused",
        })
    }
}
