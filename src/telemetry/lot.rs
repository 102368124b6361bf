//! Which spans are exported. It is drawn here, once for each whole (a request, an intent), and nothing that a request says has a say in it:
//! neither the trace that it names nor the flag of that trace, so that a stranger can neither fill a collector nor hide in front of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry::trace::{Link, SpanKind, TraceContextExt as _, TraceId, TraceState};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{SamplingDecision, SamplingResult, ShouldSample};
use parking_lot::Mutex;
use uuid::Uuid;

use super::story::INTENT;

/// Requests whose spans are exported within a second. Most come before anybody has shown who they are.
const REQUESTS_MAX: u32 = 100;
/// Intents whose spans are exported within a second, beside those: they have shown who they are, and whoever floods the daemon with
/// requests does not hide them.
const INTENTS_MAX: u32 = 100;

/// Draws.
#[derive(Clone, Debug)]
pub(super) struct Lot {
    ratio: f64,
    requests: Arc<Second>,
    intents: Arc<Second>,
}

impl Lot {
    /// Lets this part of all of them through, from 0 to 1.
    pub(super) fn new(ratio: f64) -> Self {
        Self { ratio, requests: Second::with(REQUESTS_MAX), intents: Second::with(INTENTS_MAX) }
    }

    /// `is_within`: whether the span is part of one of ours that is exported, or that is not.
    fn draws(&self, name: &str, is_within: Option<bool>) -> bool {
        match is_within {
            Some(true) => true,
            Some(false) if name == INTENT => self.is_drawn() && self.intents.has_room(),
            Some(false) => false,
            None => self.is_drawn() && self.requests.has_room(),
        }
    }

    fn is_drawn(&self) -> bool {
        // 32 random bits of ours.
        let (random, ..) = Uuid::new_v4().as_fields();
        f64::from(random) < self.ratio * (f64::from(u32::MAX) + 1.0)
    }
}

impl ShouldSample for Lot {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        _: TraceId,
        name: &str,
        _: &SpanKind,
        _: &[KeyValue],
        _: &[Link],
    ) -> SamplingResult {
        let span = parent.map(|context| context.span().span_context().clone());
        let ours = span.filter(|span| span.is_valid() && !span.is_remote());
        let decision = if self.draws(name, ours.map(|span| span.is_sampled())) {
            SamplingDecision::RecordAndSample
        } else {
            SamplingDecision::Drop
        };
        SamplingResult { decision, attributes: Vec::new(), trace_state: TraceState::default() }
    }
}

/// A bound on how many there are in a second.
#[derive(Debug)]
struct Second {
    most: u32,
    now: Mutex<(Instant, u32)>,
}

impl Second {
    fn with(most: u32) -> Arc<Self> {
        Arc::new(Self { most, now: Mutex::new((Instant::now(), 0)) })
    }

    fn has_room(&self) -> bool {
        let mut now = self.now.lock();
        if now.0.elapsed() >= Duration::from_secs(1) {
            *now = (Instant::now(), 0);
        }
        let has_room = now.1 < self.most;
        now.1 += u32::from(has_room);
        has_room
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags};

    use super::*;

    fn exported(lot: &Lot, name: &str, parent: Option<(bool, bool)>) -> bool {
        let context = parent.map(|(is_remote, is_sampled)| {
            let flags = TraceFlags::default().with_sampled(is_sampled);
            let state = TraceState::from_key_value([("stranger", "canary")]).unwrap();
            let span = SpanContext::new(TraceId::from(1), SpanId::from(1), flags, is_remote, state);
            Context::new().with_remote_span_context(span)
        });
        let result = lot.should_sample(context.as_ref(), TraceId::from(1), name, &SpanKind::Internal, &[], &[]);
        assert_eq!(result.trace_state, TraceState::default(), "what a stranger says is not passed on");
        result.decision == SamplingDecision::RecordAndSample
    }

    #[test]
    fn whose_trace_is_exported_is_not_the_callers_choice() {
        let (all, none) = (Lot::new(1.0), Lot::new(0.0));
        for is_sampled in [true, false] {
            assert!(
                exported(&all, "http", Some((true, is_sampled))) && !exported(&none, "http", Some((true, is_sampled)))
            );
        }
        assert!(exported(&all, "http", None) && !exported(&none, "http", None));
        // What is within goes with its whole.
        assert!(exported(&none, "sign", Some((false, true))) && !exported(&all, "sign", Some((false, false))));
        let half = Lot::new(0.5);
        let drawn = (0..1_000).filter(|_| half.is_drawn()).count();
        assert!((300..700).contains(&drawn), "{drawn}");
    }

    #[test]
    fn a_flood_of_requests_is_bounded_and_hides_no_intent() {
        let lot = Lot::new(1.0);
        let flood = || (0..10 * REQUESTS_MAX).filter(|_| exported(&lot, "http", Some((true, true)))).count();
        let began = Instant::now();
        let through = flood();
        let seconds = began.elapsed().as_secs() + 1;
        assert!(through >= REQUESTS_MAX as usize && through as u64 <= u64::from(REQUESTS_MAX) * (seconds + 1));
        assert!(exported(&lot, INTENT, Some((false, false))), "an intent within a request that is not exported");
        let intents = (0..10 * INTENTS_MAX).filter(|_| exported(&lot, INTENT, Some((false, false)))).count();
        assert!(intents < 10 * INTENTS_MAX as usize, "{intents}");
    }
}
