//! What operators see: the metrics' listener, the dashboard, log lines and traces.

mod certificate;
mod dashboards;
mod lines;
mod metrics;
mod replaced;
mod traces;
