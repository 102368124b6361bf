//! The story of one intent: what each stage of its pipeline took, and what its simulation said. It goes along with the task that runs
//! the pipeline, so that no stage takes a parameter for it; away from a pipeline, stages are only timed.

use std::cell::Cell;
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use tracing::{Instrument as _, Span};

use super::record;
use crate::ids::IntentId;

/// Target of the spans within an intent: they go to traces, and into log lines only where it is asked for.
pub const SPANS: &str = "intentd::stage";

/// A stage of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Agent, credential and rights.
    Authorise,
    /// The idempotency key.
    Claim,
    /// Which key signs.
    Key,
    /// Everything that is asked of the chain, the simulation included.
    Check,
    /// Waiting for the lane's turn in this daemon.
    Turn,
    /// T1: a connection, and BEGIN.
    Begin,
    /// T1: the spending windows' locks and sums.
    Windows,
    /// T1: rules and rights, read again.
    Rules,
    /// T1: the lane's lock, its nonce, and what that decides.
    Nonce,
    /// T1: the HSM.
    Sign,
    /// T1: the rows.
    Write,
    /// T1: COMMIT.
    Commit,
    /// The bytes on their way to the node.
    Broadcast,
}

const STAGES: [&str; 13] = [
    "authorise",
    "claim",
    "key",
    "check",
    "turn",
    "begin",
    "windows",
    "rules",
    "nonce",
    "sign",
    "write",
    "commit",
    "broadcast",
];

tokio::task_local! {
    static STORY: Story;
}

/// What is known so far.
struct Story {
    span: Span,
    kind: &'static str,
    chain: Cell<&'static str>,
    simulation: Cell<Option<&'static str>>,
    began: Instant,
    took_us: [Cell<u32>; STAGES.len()],
}

/// Runs a pipeline with a story and a span of its own.
pub async fn telling<T>(kind: &'static str, pipeline: impl Future<Output = T>) -> T {
    let span = tracing::info_span!("intent", kind, id = tracing::field::Empty);
    let story = Story {
        span: span.clone(),
        kind,
        chain: Cell::new("none"),
        simulation: Cell::new(None),
        began: Instant::now(),
        took_us: Default::default(),
    };
    STORY.scope(story, pipeline).instrument(span).await
}

/// Runs one stage, and notes what it took.
pub async fn stage<T>(stage: Stage, work: impl Future<Output = T>) -> T {
    let name = STAGES[stage as usize];
    let span = tracing::debug_span!(target: SPANS, "stage", otel.name = name);
    let began = Instant::now();
    let result = work.instrument(span).await;
    let took = began.elapsed();
    record::stage(name, took);
    let _ = STORY.try_with(|story| {
        let cell = &story.took_us[stage as usize];
        cell.set(cell.get().saturating_add(u32::try_from(took.as_micros()).unwrap_or(u32::MAX)));
    });
    result
}

/// The intent's chain is known.
pub fn on_chain(name: &str) {
    let _ = STORY.try_with(|story| story.chain.set(record::name_of(name)));
}

/// The intent's id is known: from now on every line of its pipeline has it.
pub fn named(id: IntentId) {
    let _ = STORY.try_with(|story| {
        story.span.record("id", tracing::field::display(id));
    });
}

/// What a simulation said.
pub(super) fn simulated(outcome: &'static str) {
    let _ = STORY.try_with(|story| story.simulation.set(Some(outcome)));
}

/// How it went, for the line at its end.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// What it took, in milliseconds.
    pub total_ms: u64,
    /// `authorise 1.2, check 20.1, …`, in milliseconds: the stages that there were.
    pub stages_ms: String,
    /// What the last simulation said; `none` if there was none.
    pub simulation: &'static str,
}

/// The end: counts the intent by its outcome, and returns what there is to tell.
pub fn end(outcome: &'static str) -> Told {
    STORY.try_with(|story| story.end(outcome)).unwrap_or_default()
}

/// Intents whose stages are remembered for the line at their end.
const KEPT: NonZeroUsize = NonZeroUsize::new(8_192).unwrap();

static TOLD: LazyLock<Mutex<LruCache<IntentId, Told>>> = LazyLock::new(|| Mutex::new(LruCache::new(KEPT)));

/// Remembers what there was to tell of a signed intent until it is final. Of many open ones only the latest; only in this daemon.
pub fn keep(id: IntentId, told: Told) {
    TOLD.lock().unwrap_or_else(PoisonError::into_inner).put(id, told);
}

/// What was kept of it, once.
#[must_use]
pub fn recall(id: IntentId) -> Option<Told> {
    TOLD.lock().unwrap_or_else(PoisonError::into_inner).pop(&id)
}

impl Story {
    fn end(&self, outcome: &'static str) -> Told {
        let total = self.began.elapsed();
        record::stage("total", total);
        record::intent(self.chain.get(), self.kind, outcome);
        let mut stages_ms = String::new();
        for (name, took) in STAGES.iter().zip(&self.took_us) {
            let us = u64::from(took.get());
            if us > 0 {
                let comma = if stages_ms.is_empty() { "" } else { ", " };
                let _ = write!(stages_ms, "{comma}{name} {:.1}", Duration::from_micros(us).as_secs_f64() * 1e3);
            }
        }
        let total_ms = u64::try_from(total.as_millis()).unwrap_or(u64::MAX);
        Told { total_ms, stages_ms, simulation: self.simulation.get().unwrap_or("none") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stages_are_told_in_their_order_and_need_no_story() {
        assert_eq!(stage(Stage::Sign, async { 7 }).await, 7);
        assert_eq!(end("signed").stages_ms, "");
        let told = telling("submit", async {
            for one in [Stage::Broadcast, Stage::Authorise] {
                stage(one, tokio::time::sleep(Duration::from_millis(1))).await;
            }
            simulated("success");
            end("signed")
        })
        .await;
        assert!(told.stages_ms.starts_with("authorise ") && told.stages_ms.contains(", broadcast "), "{told:?}");
        assert_eq!(told.simulation, "success");
        let id = IntentId(uuid::Uuid::nil());
        keep(id, told);
        assert!(recall(id).is_some_and(|told| told.stages_ms.starts_with("authorise ")) && recall(id).is_none());
        assert_eq!(STAGES[Stage::Broadcast as usize], "broadcast");
        assert_eq!(STAGES[Stage::Windows as usize], "windows");
    }
}
