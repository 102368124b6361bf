//! `intentd admin hsm bench`: what this HSM and this machine sign, by the same path that a transaction takes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::config::HsmConfig;
use super::error::HsmError;
use super::keks::{self, Kek};
use super::types::{Custody, KeyContext, KeyRef, PublicKey};
use super::{Hsm, SLOW};
use crate::ids::{KeyId, OrgId};

/// Calls in flight for each worker: enough that none waits for us.
const IN_FLIGHT: usize = 4;

/// What to measure.
#[derive(Clone)]
pub struct BenchOptions {
    /// The database's KEKs. With none, temporary ones are made on the token and removed at the end.
    pub keks: Vec<Kek>,
    /// Measures 1, 2, 4 … up to this many workers.
    pub workers_max: usize,
    /// How long each figure is measured.
    pub measure: Duration,
    /// Also makes this many wrapped keys and signs once with each, twice over: memory and misses at scale.
    pub many_keys: Option<usize>,
    /// Told what happens, line by line.
    pub progress: Arc<dyn Fn(&str) + Send + Sync>,
}

impl Default for BenchOptions {
    fn default() -> Self {
        let workers_max = std::thread::available_parallelism().map_or(1, usize::from);
        let (measure, progress) = (Duration::from_secs(2), Arc::new(|_: &str| {}));
        Self { keks: Vec::new(), workers_max, measure, many_keys: None, progress }
    }
}

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    /// What was done.
    pub what: String,
    /// Worker threads.
    pub workers: usize,
    /// Operations per second, all workers together.
    pub per_second: f64,
}

/// All figures. Display prints the machine and the method with them.
#[derive(Clone, Debug, PartialEq)]
pub struct BenchReport {
    /// Processor, cores and module.
    pub machine: String,
    /// How long each was measured.
    pub measure: Duration,
    /// In the order of measuring.
    pub rates: Vec<Rate>,
}

impl BenchReport {
    /// Operations per second of `what` with `workers` workers.
    #[must_use]
    pub fn rate(&self, what: &str, workers: usize) -> Option<f64> {
        self.rates.iter().find(|rate| rate.what == what && rate.workers == workers).map(|rate| rate.per_second)
    }

    /// How much more two workers sign than one.
    #[must_use]
    pub fn scaling(&self) -> Option<f64> {
        Some(self.rate(SIGN_HIT, 2)? / self.rate(SIGN_HIT, 1)?)
    }
}

/// A signature with a live handle.
pub const SIGN_HIT: &str = "sign, verified, key at hand";
/// A signature that unwraps its key first.
pub const SIGN_MISS: &str = "sign, verified, key unwrapped first";
/// C_Sign alone.
pub const SIGN_RAW: &str = "C_Sign alone";
/// A new wrapped key, proven.
pub const GENERATE: &str = "generate a wrapped key, proven";
/// A secret of 1 KiB.
pub const SEAL: &str = "seal 1 KiB";
/// A secret of 1 KiB.
pub const OPEN: &str = "open 1 KiB";

impl fmt::Display for BenchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(
            f,
            "Each figure: {} ms, {IN_FLIGHT} calls in flight for each worker, through the queue and with the check of every signature.",
            self.measure.as_millis()
        )?;
        for Rate { what, workers, per_second } in &self.rates {
            writeln!(f, "{what:36}  {workers:>3} workers  {per_second:>9.0} /s")?;
        }
        match self.scaling() {
            Some(ratio) => write!(f, "Two workers sign {ratio:.2} times as much as one."),
            None => write!(f, "One worker only was measured."),
        }
    }
}

/// Measures. No other [`Hsm`] may be running in this process.
///
/// # Errors
/// Any [`HsmError`] of the HSM's.
pub async fn bench(config: &HsmConfig, options: BenchOptions) -> Result<BenchReport, HsmError> {
    let mut bench = Bench { config: config.clone(), made: Vec::new(), rates: Vec::new(), options };
    let result = bench.run().await;
    let removed = bench.remove_keks().await;
    result.and(removed)?;
    let machine = machine(config);
    Ok(BenchReport { machine, measure: bench.options.measure, rates: bench.rates })
}

struct Bench {
    config: HsmConfig,
    options: BenchOptions,
    made: Vec<Kek>,
    rates: Vec<Rate>,
}

type Key = (KeyContext, KeyRef, PublicKey);

impl Bench {
    async fn run(&mut self) -> Result<(), HsmError> {
        let doubling = std::iter::successors(Some(1), |n| Some(n * 2));
        let mut counts: Vec<usize> = doubling.take_while(|n| *n < self.options.workers_max).collect();
        counts.push(self.options.workers_max.max(1));
        for workers in counts {
            let hsm = self.start(workers, self.config.cache_keys).await?;
            self.raw(&hsm, workers).await?;
            let keys = Arc::new(self.keys(&hsm, workers * IN_FLIGHT).await?);
            let sign = signer(&hsm, &keys);
            self.measure(SIGN_HIT, workers, sign).await?;
            let generate = {
                let hsm = hsm.clone();
                move |_| generate(hsm.clone())
            };
            self.measure(GENERATE, workers, generate).await?;
            self.envelopes(&hsm, workers).await?;
            hsm.shutdown().await?;
            let hsm = self.start(workers, 1).await?;
            let keys = Arc::new(self.keys(&hsm, workers * IN_FLIGHT * 4).await?);
            self.measure(SIGN_MISS, workers, signer(&hsm, &keys)).await?;
            hsm.shutdown().await?;
        }
        match self.options.many_keys {
            Some(count) => self.many(count).await,
            None => Ok(()),
        }
    }

    async fn start(&mut self, workers: usize, cache_keys: usize) -> Result<Hsm, HsmError> {
        let config = HsmConfig { workers: Some(workers), cache_keys, ..self.config.clone() };
        let hsm = Hsm::start(&config).await?;
        if self.options.keks.is_empty() && self.made.is_empty() {
            (self.options.progress)("making temporary key-encryption keys");
            self.made = hsm.create_keks().await?;
        }
        let keks = if self.made.is_empty() { &self.options.keks } else { &self.made };
        hsm.adopt(keks.clone()).await?;
        Ok(hsm)
    }

    async fn remove_keks(&mut self) -> Result<(), HsmError> {
        if self.made.is_empty() {
            return Ok(());
        }
        let hsm = Hsm::start(&self.config).await?;
        let made = std::mem::take(&mut self.made);
        hsm.call("bench", 0, SLOW, move |open| {
            keks::remove(open, &made);
            Ok(())
        })
        .await?;
        hsm.shutdown().await
    }

    async fn keys(&self, hsm: &Hsm, count: usize) -> Result<Vec<Key>, HsmError> {
        let mut keys = Vec::with_capacity(count);
        for n in 0..count {
            if n > 0 && n % 1000 == 0 {
                (self.options.progress)(&format!("made {n} of {count} keys"));
            }
            keys.push(generate(hsm.clone()).await?);
        }
        Ok(keys)
    }

    /// The module's own limit, without queue and check: what the rest is measured against.
    async fn raw(&mut self, hsm: &Hsm, workers: usize) -> Result<(), HsmError> {
        let measure = self.options.measure;
        let tasks = (0..workers).map(|worker| {
            let hsm = hsm.clone();
            async move {
                let (ctx, key, public) = generate(hsm.clone()).await?;
                let ring = hsm.ring()?;
                let run = move |open: &mut super::seat::Open| {
                    let handle = super::custody::handle(open, &ring, &ctx, &key, &public)?;
                    let (start, mut count) = (Instant::now(), 0u64);
                    while start.elapsed() < measure {
                        open.ecdsa(handle, &[7; 32])?;
                        count += 1;
                    }
                    Ok(count as f64 / start.elapsed().as_secs_f64())
                };
                hsm.call("bench", worker, SLOW, run).await
            }
        });
        let rates: Vec<f64> = futures::future::try_join_all(tasks).await?;
        self.note(SIGN_RAW, workers, rates.iter().sum());
        Ok(())
    }

    async fn envelopes(&mut self, hsm: &Hsm, workers: usize) -> Result<(), HsmError> {
        let seal = {
            let hsm = hsm.clone();
            move |_| {
                let hsm = hsm.clone();
                async move { hsm.seal(b"bench", &[7; 1024]).await }
            }
        };
        self.measure(SEAL, workers, seal).await?;
        let sealed = Arc::new(hsm.seal(b"bench", &[7; 1024]).await?);
        let open = {
            let hsm = hsm.clone();
            move |_| {
                let (hsm, sealed) = (hsm.clone(), sealed.clone());
                async move { hsm.open(b"bench", &sealed).await }
            }
        };
        self.measure(OPEN, workers, open).await
    }

    /// Every key once, then once more.
    async fn many(&mut self, count: usize) -> Result<(), HsmError> {
        let workers = self.options.workers_max.max(1);
        let hsm = self.start(workers, self.config.cache_keys).await?;
        let start = Instant::now();
        let keys = self.keys(&hsm, count).await?;
        self.note(&format!("generate {count} keys, one by one"), workers, count as f64 / start.elapsed().as_secs_f64());
        for round in ["first", "second"] {
            let start = Instant::now();
            for chunk in keys.chunks(workers * IN_FLIGHT) {
                let signs = chunk.iter().map(|(ctx, key, public)| hsm.sign(ctx, key, public, [7; 32]));
                futures::future::try_join_all(signs).await?;
            }
            let rate = count as f64 / start.elapsed().as_secs_f64();
            self.note(&format!("sign with {count} keys, {round} round"), workers, rate);
        }
        hsm.shutdown().await
    }

    /// Keeps enough calls in flight until the time is over.
    async fn measure<T, F, Fut>(&mut self, what: &str, workers: usize, call: F) -> Result<(), HsmError>
    where
        F: Fn(usize) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = Result<T, HsmError>> + Send,
        T: Send,
    {
        let (count, measure) = (Arc::new(AtomicU64::new(0)), self.options.measure);
        let start = Instant::now();
        let tasks = (0..workers * IN_FLIGHT).map(|lane| {
            let (call, count) = (call.clone(), count.clone());
            tokio::spawn(async move {
                let mut n = lane;
                while start.elapsed() < measure {
                    call(n).await?;
                    count.fetch_add(1, Relaxed);
                    n += workers * IN_FLIGHT;
                }
                Ok::<_, HsmError>(())
            })
        });
        for task in futures::future::join_all(tasks).await {
            task.unwrap_or(Ok(()))?;
        }
        self.note(what, workers, count.load(Relaxed) as f64 / start.elapsed().as_secs_f64());
        Ok(())
    }

    fn note(&mut self, what: &str, workers: usize, per_second: f64) {
        (self.options.progress)(&format!("{workers} workers: {what}: {per_second:.0} /s"));
        self.rates.push(Rate { what: what.to_owned(), workers, per_second });
    }
}

async fn generate(hsm: Hsm) -> Result<Key, HsmError> {
    let ctx = KeyContext { org_id: OrgId::random(), key_id: KeyId::random(), path: "bench".into(), version: 1 };
    let (key, public) = hsm.generate(&ctx, Custody::Wrapped).await?;
    Ok((ctx, key, public))
}

/// Signs with the keys in turn.
fn signer(
    hsm: &Hsm,
    keys: &Arc<Vec<Key>>,
) -> impl Fn(usize) -> futures::future::BoxFuture<'static, Result<super::Signature, HsmError>> + Clone + Send + use<> {
    let (hsm, keys) = (hsm.clone(), keys.clone());
    move |n| {
        let (hsm, keys) = (hsm.clone(), keys.clone());
        Box::pin(async move {
            let (ctx, key, public) = &keys[n % keys.len()];
            hsm.sign(ctx, key, public, [7; 32]).await
        })
    }
}

fn machine(config: &HsmConfig) -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or(std::env::consts::ARCH, |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{model}, {cores} processors, module {}", config.module.display())
}
