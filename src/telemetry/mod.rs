//! What operators see: metrics, traces and the story of each intent.
//!
//! `table` is all metrics there are; `record` is what features call, and `handles` makes that cheap; `story` times the stages of an
//! intent; `sampler` reads gauges, `http` serves them; `traces` sets up log lines and the export of spans, `lot` draws which of them. Nothing here decides
//! anything, and no label, span or line has a secret or signed bytes; labels have no ids or addresses either.

mod config;
mod handles;
mod http;
mod lot;
pub mod record;
mod sampler;
mod store;
pub mod story;
pub mod table;
pub mod traces;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use metrics::{KeyName, Recorder as _};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio::net::TcpListener;

pub use config::{MetricsConfig, TelemetryConfig};
use table::Kind;

use crate::app::App;
use crate::http::connections;
use crate::http::listen::{Listener, Room};
use crate::net::Networks;

/// Connections of scrapers at once.
const CONNECTIONS_MAX: u32 = 16;
/// How long one of them may be idle.
const IDLE: Duration = Duration::from_secs(60);

/// The metrics' listener, and what is recorded.
pub struct Metrics {
    listener: TcpListener,
    address: SocketAddr,
    recorded: PrometheusHandle,
}

impl Metrics {
    /// Installs the recorder and takes the listener's place, if one is configured. Comes before everything that records: handles that were
    /// made before do nothing.
    ///
    /// # Errors
    /// When it cannot listen there.
    pub async fn open(config: &MetricsConfig) -> anyhow::Result<Option<Self>> {
        let Some(listen) = config.listen else { return Ok(None) };
        let cannot = || format!("cannot listen on {listen} for metrics (`metrics.listen`)");
        let listener = TcpListener::bind(listen).await.with_context(cannot)?;
        let address = listener.local_addr().with_context(cannot)?;
        let recorder = PrometheusBuilder::new().set_buckets(table::BUCKETS)?.build_recorder();
        for metric in table::ALL {
            let (name, unit, help) = (KeyName::from_const_str(metric.name), Some(metric.unit), metric.help.into());
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, unit, help),
                Kind::Gauge => recorder.describe_gauge(name, unit, help),
                Kind::Histogram => recorder.describe_histogram(name, unit, help),
            }
        }
        let recorded = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|_| anyhow!("a recorder of metrics is installed already"))?;
        record::begin();
        if !address.ip().is_loopback() {
            tracing::warn!(listen = %address, "metrics are served beyond loopback, to whoever asks: let only your collector reach them");
        }
        Ok(Some(Self { listener, address, recorded }))
    }

    /// Serves, samples and asks nodes until the daemon stops.
    pub fn start(self, app: &Arc<App>) {
        let room = Room { all: CONNECTIONS_MAX, of_one: CONNECTIONS_MAX, proxies: Networks::default() };
        let listener = Listener::new(self.listener, None, room);
        let last = sampler::LastRead::never();
        let router = http::router(Arc::clone(app), self.recorded.clone(), Arc::clone(&last));
        app.tasks.spawn(connections::serve(listener, router, IDLE, app.stopping.clone()));
        app.tasks.spawn(sampler::keep_sampling(Arc::clone(app), self.recorded, last));
        app.tasks.spawn(sampler::keep_probing(Arc::clone(app)));
        tracing::info!("metrics at http://{}/metrics", self.address);
    }
}
