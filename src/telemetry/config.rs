//! `[metrics]` and `[telemetry]`.

use std::net::SocketAddr;

use serde::Deserialize;
use url::Url;

/// `[metrics]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// Where `GET /metrics` is served; `None`: nowhere, and nothing is recorded. Environment: `INTENTD_METRICS_LISTEN`.
    pub listen: Option<SocketAddr>,
}

/// `[telemetry]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// An OpenTelemetry collector (OTLP over HTTP), such as `http://127.0.0.1:4318`; `/v1/traces` is added. `None`: no traces.
    /// Environment: `INTENTD_OTLP_ENDPOINT`.
    pub otlp_endpoint: Option<Url>,
}

impl TelemetryConfig {
    /// What is wrong with it.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        let url = self.otlp_endpoint.as_ref()?;
        let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        let good = matches!(url.scheme(), "http" | "https") && url.has_host() && plain && url.fragment().is_none();
        (!good)
            .then(|| "`telemetry.otlp_endpoint` must be an http or https URL without credentials and query".to_owned())
    }

    /// Where traces go.
    #[must_use]
    pub fn traces_url(&self) -> Option<String> {
        self.otlp_endpoint.as_ref().map(|url| format!("{}/v1/traces", url.as_str().trim_end_matches('/')))
    }
}
