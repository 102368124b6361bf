//! What operators see: the metrics' listener, the dashboard, log lines and traces.

mod dashboards;
mod lines;
mod metrics;
mod traces;
