//! The story of one intent, or of one replacement that a caller asked for: what each stage of its pipeline took, and what its simulation said.
//! It goes along with the task that runs the pipeline, so that no stage takes a parameter for it; away from one (what the tracker signs by
//! itself), stages are only timed.

use std::cell::Cell;
use std::fmt::Write as _;
use std::num::NonZeroUsize;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use lru::LruCache;
use parking_lot::Mutex;
use tracing::{Instrument as _, Span};

use super::record;
use crate::ids::IntentId;

/// Target of the spans within an intent: they go to traces, and into log lines only where it is asked for.
pub const SPANS: &str = "intentd::stage";

/// Target of the spans that stand for a whole: a request, an intent. They are there whatever `log` says, for lines within them have their
/// ids, and traces begin with them.
pub const ROOTS: &str = "intentd::root";

/// The name of an intent's span.
pub(super) const INTENT: &str = "intent";

/// A stage of the pipeline. T1 is also the one transaction of a replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Agent, credential and rights; of a replacement, the transaction as it is, and whether it can be replaced.
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
    id: Cell<Option<IntentId>>,
    chain: Cell<&'static str>,
    simulation: Cell<Option<&'static str>>,
    began: Instant,
    took_us: [Cell<u32>; STAGES.len()],
    is_told: Cell<bool>,
}

/// A pipeline that panics, or that is dropped before its end, tells so much.
impl Drop for Story {
    fn drop(&mut self) {
        if self.is_told.get() {
            return;
        }
        let outcome = if std::thread::panicking() { "panicked" } else { "abandoned" };
        let Told { total_ms, stages_ms, simulation } = self.end(outcome);
        let intent = self.id.get().map(tracing::field::display);
        tracing::error!(
            intent,
            kind = self.kind,
            chain = self.chain.get(),
            simulation,
            total_ms,
            stages_ms,
            "intent {outcome}: its pipeline did not come to an end. What was committed is followed all the same; ask for the transaction, \
             or again with the same Idempotency-Key"
        );
    }
}

/// Runs a pipeline with a story and a span of its own.
pub async fn telling<T>(kind: &'static str, pipeline: impl Future<Output = T>) -> T {
    let span = tracing::info_span!(target: ROOTS, INTENT, kind, id = tracing::field::Empty);
    let story = Story {
        span: span.clone(),
        kind,
        id: Cell::new(None),
        chain: Cell::new("none"),
        simulation: Cell::new(None),
        began: Instant::now(),
        took_us: Default::default(),
        is_told: Cell::new(false),
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
        story.id.set(Some(id));
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

/// The intent is signed: what there is to tell until now is remembered until it is final, which may be before its pipeline is over. Of many
/// open ones only the latest; only in this daemon.
pub fn keep_so_far() {
    let _ = STORY.try_with(|story| story.id.get().map(|id| TOLD.lock().put(id, story.told())));
}

/// Remembers all that there was to tell, unless it is final already.
pub fn complete(id: IntentId, told: Told) {
    if let Some(so_far) = TOLD.lock().peek_mut(&id) {
        *so_far = told;
    }
}

/// What was kept of it, once.
#[must_use]
pub fn recall(id: IntentId) -> Option<Told> {
    TOLD.lock().pop(&id)
}

impl Story {
    fn end(&self, outcome: &'static str) -> Told {
        self.is_told.set(true);
        record::stage("total", self.began.elapsed());
        record::intent(self.chain.get(), self.kind, outcome);
        self.told()
    }

    fn told(&self) -> Told {
        let mut stages_ms = String::new();
        for (name, took) in STAGES.iter().zip(&self.took_us) {
            let us = u64::from(took.get());
            if us > 0 {
                let comma = if stages_ms.is_empty() { "" } else { ", " };
                let _ = write!(stages_ms, "{comma}{name} {:.1}", Duration::from_micros(us).as_secs_f64() * 1e3);
            }
        }
        let total_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
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
        assert_eq!(STAGES[Stage::Broadcast as usize], "broadcast");
        assert_eq!(STAGES[Stage::Windows as usize], "windows");
    }
    #[tokio::test]
    async fn what_is_final_before_its_pipeline_is_over_is_told_once_and_not_kept() {
        let id = IntentId(uuid::Uuid::new_v4());
        let sign = async || {
            named(id);
            stage(Stage::Sign, tokio::time::sleep(Duration::from_millis(1))).await;
            keep_so_far();
        };
        telling("submit", async {
            sign().await;
            assert!(recall(id).is_some_and(|told| told.stages_ms.starts_with("sign ")), "the tracker was faster");
            complete(id, end("signed"));
        })
        .await;
        assert!(recall(id).is_none(), "it is final: nobody asks again");
        telling("submit", async {
            sign().await;
            stage(Stage::Broadcast, tokio::time::sleep(Duration::from_millis(1))).await;
            complete(id, end("signed"));
        })
        .await;
        assert!(recall(id).is_some_and(|told| told.stages_ms.contains(", broadcast ")) && recall(id).is_none());
    }

    #[tokio::test]
    async fn a_pipeline_without_an_end_is_counted_as_what_befell_it() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let recorded = recorder.handle();
        // Of this process, which is this test's.
        metrics::set_global_recorder(recorder).unwrap();
        let panics = telling("submit", async {
            on_chain("base");
            stage(Stage::Authorise, async { panic!("on purpose") }).await
        });
        assert!(tokio::spawn(panics).await.unwrap_err().is_panic());
        let hangs = tokio::spawn(telling("sign_only", std::future::pending::<()>()));
        tokio::task::yield_now().await;
        hangs.abort();
        assert!(hangs.await.unwrap_err().is_cancelled());
        telling("submit", async { end("signed") }).await;
        let text = recorded.render();
        let counted: Vec<_> = text.lines().filter(|line| line.starts_with("intentd_intents_total{")).collect();
        for line in [
            r#"{chain="base",kind="submit",outcome="panicked"} 1"#,
            r#"{chain="none",kind="sign_only",outcome="abandoned"} 1"#,
            r#"{chain="none",kind="submit",outcome="signed"} 1"#,
        ] {
            assert!(counted.iter().any(|counted| counted.ends_with(line)), "{line}: {counted:?}");
        }
        assert_eq!(counted.len(), 3, "{counted:?}");
    }
}
