//! Handles of metrics, kept by their labels: to record costs a look-up in a small map and an atomic operation, and allocates nothing.
//! While no recorder is installed, handles do nothing.

use std::collections::{BTreeMap, BTreeSet};

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder};
use parking_lot::RwLock;

use super::table::{Kind, Metric};

/// What a series says that was withdrawn. Such series are not served.
pub(super) const WITHDRAWN: f64 = f64::NAN;

/// Distinct names that become labels: chains, spend groups, statuses. More are one, `other`.
const NAMES_MAX: usize = 1_024;

/// A kind of handle.
pub(super) trait Handle: Clone {
    /// Of which metrics.
    const KIND: Kind;
    /// From the recorder.
    fn register(recorder: &dyn Recorder, key: &Key, metadata: &Metadata<'_>) -> Self;
}

impl Handle for Counter {
    const KIND: Kind = Kind::Counter;
    fn register(recorder: &dyn Recorder, key: &Key, metadata: &Metadata<'_>) -> Self {
        recorder.register_counter(key, metadata)
    }
}

impl Handle for Gauge {
    const KIND: Kind = Kind::Gauge;
    fn register(recorder: &dyn Recorder, key: &Key, metadata: &Metadata<'_>) -> Self {
        recorder.register_gauge(key, metadata)
    }
}

impl Handle for Histogram {
    const KIND: Kind = Kind::Histogram;
    fn register(recorder: &dyn Recorder, key: &Key, metadata: &Metadata<'_>) -> Self {
        recorder.register_histogram(key, metadata)
    }
}

/// A metric with `N` labels. That kind and number are the table's is checked when it is compiled.
pub(super) struct Family<H, const N: usize> {
    metric: &'static Metric,
    known: RwLock<BTreeMap<[&'static str; N], H>>,
}

impl<H: Handle, const N: usize> Family<H, N> {
    /// Of the table. For statics.
    pub(super) const fn new(metric: &'static Metric) -> Self {
        assert!(metric.labels.len() == N, "another number of labels than the table's");
        assert!(metric.kind as u8 == H::KIND as u8, "another kind than the table's");
        Self { metric, known: RwLock::new(BTreeMap::new()) }
    }

    /// The handle with these labels, in the table's order.
    pub(super) fn of(&self, labels: [&'static str; N]) -> H {
        if let Some(handle) = self.known.read().get(&labels) {
            return handle.clone();
        }
        let pairs: Vec<Label> =
            self.metric.labels.iter().zip(labels).map(|(name, value)| Label::from_static_parts(name, value)).collect();
        let key = Key::from_parts(self.metric.name, pairs);
        let metadata = Metadata::new("intentd", Level::INFO, None);
        let handle = metrics::with_recorder(|recorder| H::register(recorder, &key, &metadata));
        self.known.write().entry(labels).or_insert(handle).clone()
    }
}

impl<const N: usize> Family<Gauge, N> {
    /// Sets what is so now, and withdraws every other series of the family: what it stood for is gone, or not known any more.
    pub(super) fn replace(&self, now: impl IntoIterator<Item = ([&'static str; N], f64)>) {
        let mut given = BTreeSet::new();
        for (labels, value) in now {
            self.of(labels).set(value);
            given.insert(labels);
        }
        let known = self.known.read();
        for (_, gauge) in known.iter().filter(|(labels, _)| !given.contains(*labels)) {
            gauge.set(WITHDRAWN);
        }
    }
}

/// A name as a label. It is kept for good, so only what an operator chose or the protocol lists may come here, never what a request
/// says; beyond a bound all are `other`.
pub(super) fn interned(name: &str) -> &'static str {
    static NAMES: RwLock<BTreeSet<&'static str>> = RwLock::new(BTreeSet::new());
    if let Some(known) = NAMES.read().get(name) {
        return known;
    }
    let mut names = NAMES.write();
    match names.get(name) {
        Some(known) => known,
        None if names.len() >= NAMES_MAX => "other",
        None => {
            let kept: &'static str = Box::leak(name.to_owned().into_boxed_str());
            names.insert(kept);
            kept
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded() {
        let first = interned("a chain");
        assert!(std::ptr::eq(first, interned("a chain")));
        let distinct: BTreeSet<_> = (0..2 * NAMES_MAX).map(|n| interned(&format!("chain-{n}"))).collect();
        assert!(distinct.len() <= NAMES_MAX && distinct.contains("other"));
        assert_eq!(interned("a chain"), "a chain");
    }
}
