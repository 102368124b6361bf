//! Log lines, and spans for an OpenTelemetry collector.

use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use async_trait::async_trait;
use opentelemetry::KeyValue;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing::Span;
use tracing::instrument::WithSubscriber as _;
use tracing::subscriber::NoSubscriber;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

use super::lot::Lot;
use super::story;
use crate::config::{Config, LogFormat};

/// A batch must be taken by the collector within this.
const EXPORT: Duration = Duration::from_secs(5);
/// Most that is read of a collector's answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The export of spans, to be ended with the process; nothing if there is none.
#[derive(Default)]
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Sends what is left. Blocks, for some seconds at most: not for the runtime's own threads.
    pub fn finish(self) {
        if let Some(provider) = self.0
            && let Err(error) = provider.shutdown_with_timeout(EXPORT)
        {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

/// Whether spans are exported.
static EXPORTED: AtomicBool = AtomicBool::new(false);

/// Makes a request's span a part of the trace that its `traceparent` names (W3C Trace Context). It decides nothing else: whether spans are
/// exported is not the caller's choice, and log lines have ids of ours. Before the span is entered.
pub fn join(span: &Span, headers: &reqwest::header::HeaderMap) {
    if EXPORTED.load(Ordering::Relaxed)
        && let Some(traceparent) = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok())
    {
        let _ = span.set_parent(TraceContextPropagator::new().extract(&Caller(traceparent)));
    }
}

const TRACEPARENT: &str = "traceparent";

/// What a caller says of its trace: two ids and a flag, of a fixed length. Its `tracestate` is of any length and would go with every span:
/// it is not read.
struct Caller<'a>(&'a str);

impl Extractor for Caller<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == TRACEPARENT).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT]
    }
}

/// Log lines go to stderr (stdout is for results), and spans to the collector, if one is configured.
///
/// # Errors
/// When the filter cannot be read, or no client be made.
pub fn start(config: &Config, runtime: &Handle) -> anyhow::Result<Traces> {
    let lot = Lot::new(config.telemetry.sample_ratio);
    let provider = config.telemetry.traces_url().map(|url| provider(&url, lot, runtime.clone())).transpose()?;
    // One filter for everything: filters of single layers forget lines after somebody has only asked whether a line would be wanted
    // (`tracing::enabled!`), as the database driver does. So spans have targets of their own, and what is logged is another thing than what
    // is traced.
    let stages = provider.as_ref().map_or_else(String::new, |_| format!("{}=debug,", story::SPANS));
    let filter = EnvFilter::try_new(format!("{}=info,{stages}{},{}", story::ROOTS, crate::db::QUIET, config.log))
        .map_err(|error| anyhow!("configuration key `log` (environment: INTENTD_LOG): {error}"))?;
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).with_target(false);
    let lines: Box<dyn Layer<_> + Send + Sync> = match config.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let spans = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("intentd"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
    });
    EXPORTED.store(provider.is_some(), Ordering::Relaxed);
    tracing_subscriber::registry().with(filter).with(lines).with(spans).init();
    Ok(Traces(provider))
}

fn provider(url: &str, lot: Lot, runtime: Handle) -> anyhow::Result<SdkTracerProvider> {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(EXPORT)
        .build()
        .context("no HTTP client for traces")?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Collector { client, runtime })
        .with_endpoint(url)
        .with_timeout(EXPORT)
        .build()
        .context("traces cannot be exported")?;
    let resource = Resource::builder()
        .with_service_name("intentd")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    Ok(SdkTracerProvider::builder().with_sampler(lot).with_batch_exporter(exporter).with_resource(resource).build())
}

/// The client of the exporter, whose thread is none of the runtime's: requests are made there, and waited for here.
#[derive(Debug)]
struct Collector {
    client: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        // Its own requests are no part of what it tells.
        let sending = async move { send(&client, request).await }.with_subscriber(NoSubscriber::default());
        self.runtime.spawn(sending).await?
    }
}

async fn send(client: &reqwest::Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let mut reply = client.execute(request.try_into()?).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = reply.chunk().await? {
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err("the collector's answer is too long".into());
        }
        bytes.extend_from_slice(&chunk);
    }
    let mut response = Response::new(Bytes::from(bytes));
    *response.status_mut() = reply.status();
    Ok(response)
}
