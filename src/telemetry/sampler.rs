//! Gauges: those of rows are read every few seconds by one task, those of memory when somebody asks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusHandle;

use super::{record, store};
use crate::app::App;
use crate::chain::ChainId;
use crate::db::DbError;

/// How often the database is read.
const INTERVAL: Duration = Duration::from_secs(15);

/// Reads the database until the daemon stops, and folds what was recorded into its buckets, also when nobody asks.
pub(super) async fn keep_sampling(app: Arc<App>, recorded: PrometheusHandle) {
    loop {
        let began = Instant::now();
        let sampled = sample(&app).await;
        record::sampled(sampled.is_ok(), began.elapsed());
        if let Err(error) = sampled {
            tracing::warn!(%error, "the gauges of the database were not read; they stay as they were");
        }
        recorded.run_upkeep();
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

async fn sample(app: &App) -> Result<(), DbError> {
    let began = Instant::now();
    let mut conn = app.db.acquire().await?;
    record::acquired(began.elapsed());
    let mut sample = store::sample(&mut conn).await?;
    let mut groups: BTreeSet<String> = sample.limits.keys().cloned().collect();
    for chain in app.chains.iter() {
        let spec = chain.spec();
        record::slots(&spec.name, &sample.chains.remove(&spec.chain_id.0).unwrap_or_default());
        groups.insert(spec.spend_group.clone());
    }
    // Withdrawn chains, and such that are in no registry any more.
    for (id, counts) in sample.chains {
        let name = app.chains.tracked(ChainId(id)).map_or_else(|| id.to_string(), |chain| chain.spec().name.clone());
        record::slots(&name, &counts);
    }
    for group in groups {
        let (at_80, at_100) = sample.limits.get(&group).copied().unwrap_or_default();
        record::agents_at_limit(&group, at_80, at_100);
    }
    for scope in ["organisation", "agent", "key", "chain"] {
        record::freezes(scope, sample.freezes.get(scope).copied().unwrap_or_default());
    }
    record::waiting(sample.webhooks_waiting, sample.webhooks_dead, sample.mails, sample.unlinked);
    Ok(())
}

/// What is in memory, as it is now.
pub(super) fn look(app: &App) {
    record::pool(app.db.size(), app.db.num_idle(), app.config.database.max_connections);
    record::hsm_counts(&app.hsm.counts());
    record::lane_turns(app.lanes.turns());
    for chain in app.chains.iter() {
        record::nodes_up(&chain.spec().name, chain.nodes_up());
    }
}
