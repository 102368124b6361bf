//! `[metrics]` and `[telemetry]`.

use std::fmt;
use std::net::SocketAddr;

use serde::Deserialize;
use url::Url;

/// `[metrics]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// Where `GET /metrics` is served; `None`: nowhere, and nothing is recorded. Environment: `INTENTD_METRICS_LISTEN`.
    pub listen: Option<SocketAddr>,
    /// How often the database is read for gauges, and nodes are asked whether they are there, in seconds. What was read is shown for
    /// four times as long. Environment: `INTENTD_METRICS_SAMPLE_S`.
    pub sample_s: u64,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { listen: None, sample_s: 15 }
    }
}

impl MetricsConfig {
    /// What is wrong with it.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let good = (1..=300).contains(&self.sample_s);
        (!good).then(|| "`metrics.sample_s` must be from 1 to 300".to_owned())
    }
}

/// `[telemetry]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// An OpenTelemetry collector (OTLP over HTTP), such as `http://127.0.0.1:4318`; `/v1/traces` is added. `None`: no traces.
    /// Environment: `INTENTD_OTLP_ENDPOINT`.
    pub otlp_endpoint: Option<Endpoint>,
    /// The part of all requests whose traces are exported, from 0 to 1, by lot: nothing that a request says changes it.
    pub sample_ratio: f64,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { otlp_endpoint: None, sample_ratio: 1.0 }
    }
}

impl TelemetryConfig {
    /// What is wrong with it.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        if self.otlp_endpoint.as_ref().is_some_and(|endpoint| !endpoint.is_plain()) {
            return Some(
                "`telemetry.otlp_endpoint` must be an http or https URL without credentials and query".to_owned(),
            );
        }
        let good = (0.0..=1.0).contains(&self.sample_ratio);
        (!good).then(|| "`telemetry.sample_ratio` must be from 0 to 1".to_owned())
    }

    /// Where traces go.
    #[must_use]
    pub fn traces_url(&self) -> Option<String> {
        self.otlp_endpoint.as_ref().map(|Endpoint(url)| format!("{}/v1/traces", url.as_str().trim_end_matches('/')))
    }
}

/// Where a collector is. It should have no credentials; one that has them is refused when the daemon starts, and is not shown by what
/// prints a configuration before.
#[derive(Clone, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Endpoint(Url);

impl Endpoint {
    /// An http or https URL, with nothing in it that could be a secret.
    fn is_plain(&self) -> bool {
        let url = &self.0;
        let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        matches!(url.scheme(), "http" | "https") && url.has_host() && bare && url.fragment().is_none()
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_plain() { self.0.as_str() } else { "(redacted)" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_with_anything_secret_is_refused_and_never_shown() {
        let config = |url: &str| TelemetryConfig {
            otlp_endpoint: Some(Endpoint(url.parse().unwrap())),
            ..TelemetryConfig::default()
        };
        let good = config("http://127.0.0.1:4318");
        assert!(good.fault().is_none() && format!("{good:?}").contains("127.0.0.1:4318"));
        for url in [
            "https://user:canary@collector.example",
            "https://canary@collector.example",
            "https://collector.example/?key=canary",
            "https://collector.example/#canary",
            "ftp://canary.example/",
        ] {
            let wrong = config(url);
            let fault = wrong.fault().unwrap();
            assert!(!fault.contains("canary") && !format!("{wrong:?}").contains("canary"), "{url}");
        }
    }

    #[test]
    fn numbers_out_of_their_bounds_are_refused() {
        for sample_ratio in [-0.1, 1.1, f64::NAN] {
            assert!(TelemetryConfig { sample_ratio, ..TelemetryConfig::default() }.fault().is_some(), "{sample_ratio}");
        }
        for sample_s in [0, 301] {
            assert!(MetricsConfig { sample_s, ..MetricsConfig::default() }.fault().is_some(), "{sample_s}");
        }
    }
}
