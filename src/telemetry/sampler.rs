//! Gauges: those of rows are read every few seconds by one task, those of memory when somebody asks. Nodes are asked by another task, so
//! that what is shown of them is so also where nothing is signed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use metrics_exporter_prometheus::PrometheusHandle;
use parking_lot::Mutex;

use super::record::{self, NodeSeen, Rows};
use super::store;
use crate::app::App;
use crate::chain::ChainId;
use crate::db::DbError;

/// The database has to be read within this.
const DEADLINE: Duration = Duration::from_secs(10);
/// What was read is shown for so many intervals, and withdrawn when nothing could be read since: a number that nobody has looked at is worse
/// than none.
const SHOWN_FOR: u32 = 4;

/// When rows were last read, for whoever shows what they said.
#[derive(Debug)]
pub(super) struct LastRead(Mutex<Option<Instant>>);

impl LastRead {
    /// Nothing was read, and nothing is shown.
    pub(super) fn never() -> Arc<Self> {
        Arc::new(Self(Mutex::new(None)))
    }

    fn show(&self, rows: &Rows, at: Instant) {
        let mut last = self.0.lock();
        record::rows(rows);
        *last = Some(at);
    }

    fn withdraw_if_older(&self, than: Duration) {
        let mut last = self.0.lock();
        if last.is_some_and(|at| at.elapsed() > than) {
            record::rows(&Rows::default());
            *last = None;
        }
    }
}

fn interval(app: &App) -> Duration {
    Duration::from_secs(app.config.metrics.sample_s.max(1))
}

/// Why rows were not read.
#[derive(Debug, thiserror::Error)]
enum SampleError {
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("the database did not answer within {} s", DEADLINE.as_secs())]
    TooSlow,
}

/// Reads the database until the daemon stops, and folds what was recorded into its buckets, also when nobody asks.
pub(super) async fn keep_sampling(app: Arc<App>, recorded: PrometheusHandle, last: Arc<LastRead>) {
    loop {
        let began = Instant::now();
        let sampled = tokio::select! {
            () = app.stopping.cancelled() => return,
            sampled = tokio::time::timeout(DEADLINE, sample(&app, &last)) => sampled,
        };
        let sampled = sampled.unwrap_or(Err(SampleError::TooSlow));
        record::sampled(sampled.is_ok(), began.elapsed());
        if let Err(error) = sampled {
            tracing::warn!(error = %crate::http::problem::chain(&error), "the gauges of the database were not read");
        }
        recorded.run_upkeep();
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(interval(&app)) => {}
        }
    }
}

async fn sample(app: &App, last: &LastRead) -> Result<(), SampleError> {
    let began = Instant::now();
    let mut conn = app.db.acquire().await.map_err(DbError::from)?;
    record::acquired(began.elapsed());
    let mut sample = store::sample(&mut conn).await.map_err(DbError::from)?;
    let mut rows = Rows { waiting: Some(sample.waiting), ..Rows::default() };
    for chain in app.chains.iter() {
        let spec = chain.spec();
        rows.chains.insert(record::name_of(&spec.name), sample.chains.remove(&spec.chain_id.0).unwrap_or_default());
        rows.limits.insert(record::name_of(&spec.spend_group), Default::default());
    }
    // Withdrawn chains, and such that are in no registry any more.
    for (id, counts) in sample.chains {
        let name = app.chains.tracked(ChainId(id)).map_or_else(|| id.to_string(), |chain| chain.spec().name.clone());
        rows.chains.insert(record::name_of(&name), counts);
    }
    rows.limits.extend(sample.limits.iter().map(|(group, agents)| (record::name_of(group), *agents)));
    for scope in ["organisation", "agent", "key", "chain"] {
        rows.freezes.insert(scope, sample.freezes.get(scope).copied().unwrap_or_default());
    }
    last.show(&rows, began);
    Ok(())
}

/// Asks every node until the daemon stops whether it is there. Each has its own deadline; one that hangs holds up none of the others.
pub(super) async fn keep_probing(app: Arc<App>) {
    loop {
        let chains: Vec<_> = app.chains.iter().collect();
        tokio::select! {
            () = app.stopping.cancelled() => return,
            _ = join_all(chains.iter().map(|chain| chain.probe())) => {}
        }
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(interval(&app)) => {}
        }
    }
}

/// What is in memory, as it is now; and what rows said, as long as it may be believed.
pub(super) fn look(app: &App, last: &LastRead) {
    record::pool(app.db.size(), app.db.num_idle(), app.config.database.max_connections);
    record::hsm_counts(&app.hsm.counts());
    record::lane_turns(app.lanes.turns());
    let mut nodes = Vec::new();
    for chain in app.chains.iter() {
        let name = record::name_of(&chain.spec().name);
        let seen = chain.nodes_seen().enumerate();
        nodes.extend(seen.map(|(index, (is_up, head_time_s))| NodeSeen { chain: name, index, is_up, head_time_s }));
    }
    record::nodes(&nodes);
    // Those that are withdrawn are followed too.
    let followed = app.chains.subscribe();
    record::tracked(&followed.borrow().iter().map(|chain| record::name_of(&chain.spec().name)).collect());
    last.withdraw_if_older(interval(app) * SHOWN_FOR);
}
