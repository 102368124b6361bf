//! The registry: which chains there are and the one node of each.
//!
//! A chain's id is the registry's, never a request's and never a node's.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use tokio::sync::watch;

use super::error::ChainUnavailable;
use super::overlay::{self, Effective, Overlay};
use super::rpc::Rpc;
use super::spec::{ChainId, ChainSpec, RpcUrl};
use crate::telemetry::record;

/// The chains.toml that is built in.
pub const DEFAULT_CHAINS: &str = include_str!("../../chains.toml");

/// Why there is no registry. Every fault is listed, each with its chain and key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chains are not usable: {}", faults.join("; "))]
pub struct ChainsError {
    /// `chain "base": chain_id: must not be 0 (…)`.
    pub faults: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChainsFile {
    chain: Vec<ChainSpec>,
}

/// Reads chains.toml, and each chain's URL with `variable`, the environment's look-up.
///
/// # Errors
/// [`ChainsError`], for the file's grammar and for URLs. The specs themselves are judged in [`Chains::load`].
pub fn read(toml_text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Vec<ChainSpec>, ChainsError> {
    let file: ChainsFile = toml::from_str(toml_text).map_err(|error| {
        let line = error.span().map_or(0, |span| toml_text[..span.start].matches('\n').count() + 1);
        ChainsError { faults: vec![format!("line {line}: {}", error.message())] }
    })?;
    let mut specs = file.chain;
    let mut faults = Vec::new();
    for spec in &mut specs {
        let name = spec.rpc_url_variable();
        let Some(text) = variable(&name).filter(|text| !text.trim().is_empty()) else { continue };
        let urls: Option<Vec<RpcUrl>> = text.split_whitespace().map(RpcUrl::parse).collect();
        let Some(urls) = urls else {
            faults.push(format!("{name}: must be an http or https URL, or several with spaces between"));
            continue;
        };
        let mut urls = urls.into_iter();
        spec.rpc_url = urls.next();
        spec.rpc_urls = urls.chain(std::mem::take(&mut spec.rpc_urls)).collect();
    }
    if faults.is_empty() { Ok(specs) } else { Err(ChainsError { faults }) }
}

/// All chains of this process. Cheap to clone; every clone sees what [`Chains::apply`] changes. Whoever has a [`Chain`] keeps it as it
/// was: what was checked by it is signed by it.
#[derive(Clone, Debug)]
pub struct Chains {
    /// chains.toml with its URLs: what the rows are laid over.
    file: Arc<[ChainSpec]>,
    now: Arc<watch::Sender<Arc<[Arc<Chain>]>>>,
}

impl Chains {
    /// Checks the specs as a whole and makes a client for each that has a URL. Nothing is asked yet.
    ///
    /// # Errors
    /// [`ChainsError`] with everything that is wrong: keys out of range, chain id 0, a name or id given twice.
    pub fn load(specs: Vec<ChainSpec>) -> Result<Self, ChainsError> {
        let mut faults: Vec<String> = Vec::new();
        for (index, spec) in specs.iter().enumerate() {
            let fault = |text: &str| format!("chain {:?}: {text}", spec.name);
            faults.extend(spec.faults().iter().map(|text| fault(text)));
            let before = &specs[..index];
            if before.iter().any(|other| other.name == spec.name) {
                faults.push(fault("name: is given twice"));
            }
            if let Some(other) = before.iter().find(|other| other.chain_id == spec.chain_id) {
                faults.push(fault(&format!("chain_id: {} is also chain {:?}'s", spec.chain_id, other.name)));
            }
        }
        let mut chains = Vec::with_capacity(specs.len());
        for spec in specs.iter().cloned() {
            let label = record::name_of(&spec.name);
            match Chain::new(Effective::of_file(spec), label, None) {
                Ok(chain) => chains.push(Arc::new(chain)),
                Err(fault) => faults.push(fault),
            }
        }
        if !faults.is_empty() {
            return Err(ChainsError { faults });
        }
        Ok(Self { file: specs.into(), now: Arc::new(watch::Sender::new(chains.into())) })
    }

    /// Lays these rows over chains.toml. A chain of which nothing has changed stays the same, its connections and what is known of its
    /// node with it. What makes no sense is left out, with a sentence for the log.
    pub fn apply(&self, rows: &[Overlay]) -> Vec<String> {
        let (wanted, mut faults) = overlay::effective(&self.file, rows);
        let before = self.snapshot();
        let mut chains: Vec<Arc<Chain>> = Vec::with_capacity(wanted.len());
        for one in wanted {
            let old = before.iter().find(|chain| chain.spec().chain_id == one.spec.chain_id);
            if let Some(same) = old.filter(|chain| chain.is == one) {
                chains.push(Arc::clone(same));
                continue;
            }
            let label = record::name_of(&one.spec.name);
            match Chain::new(one, label, old.map(Arc::as_ref)) {
                Ok(chain) => chains.push(Arc::new(chain)),
                Err(fault) => faults.push(fault),
            }
        }
        let same = chains.len() == before.len() && chains.iter().zip(before.iter()).all(|(a, b)| Arc::ptr_eq(a, b));
        if !same {
            self.now.send_replace(chains.into());
        }
        faults
    }

    fn snapshot(&self) -> Arc<[Arc<Chain>]> {
        Arc::clone(&self.now.borrow())
    }

    /// Told of every change.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<[Arc<Chain>]>> {
        self.now.subscribe()
    }

    /// The chain of chains.toml with this id, without what rows add.
    #[must_use]
    pub fn of_file(&self, chain_id: ChainId) -> Option<&ChainSpec> {
        self.file.iter().find(|spec| spec.chain_id == chain_id)
    }

    /// By id, also one that is withdrawn: for following what was signed on it.
    #[must_use]
    pub fn tracked(&self, chain_id: ChainId) -> Option<Arc<Chain>> {
        self.snapshot().iter().find(|chain| chain.spec().chain_id == chain_id).cloned()
    }

    /// By name (`"base"`) or by id in decimal digits (`"8453"`).
    #[must_use]
    pub fn get(&self, name_or_id: &str) -> Option<Arc<Chain>> {
        let decimal = !name_or_id.starts_with('0') && name_or_id.bytes().all(|b| b.is_ascii_digit());
        if decimal {
            return self.by_id(ChainId(name_or_id.parse().ok()?));
        }
        self.iter().find(|chain| chain.spec().name == name_or_id)
    }

    /// By id.
    #[must_use]
    pub fn by_id(&self, chain_id: ChainId) -> Option<Arc<Chain>> {
        self.iter().find(|chain| chain.spec().chain_id == chain_id)
    }

    /// All that are not withdrawn, in the file's order and then the rows', as they are now.
    pub fn iter(&self) -> impl Iterator<Item = Arc<Chain>> {
        let chains: Vec<_> = self.snapshot().iter().filter(|chain| !chain.is.deleted).cloned().collect();
        chains.into_iter()
    }
}

/// A node whose newest block is older than this, and than so many blocks, stands still: it is asked when there is no other.
const STANDS_STILL_MIN: Duration = Duration::from_secs(120);
const STANDS_STILL_BLOCKS: u32 = 20;

/// One chain and its nodes, as they were when somebody asked.
#[derive(Debug)]
pub struct Chain {
    is: Effective,
    /// In the order in which they are asked.
    nodes: Vec<Arc<Rpc>>,
}

impl Chain {
    /// With the clients of `before`, as far as they are for the same URLs. `label` is what its calls are counted as.
    fn new(is: Effective, label: &'static str, before: Option<&Self>) -> Result<Self, String> {
        let spec = &is.spec;
        let asks_as = |spec: &ChainSpec| (spec.name.clone(), spec.chain_id, spec.rpc_deadline_ms);
        let kept = before.filter(|before| asks_as(before.spec()) == asks_as(spec)).map_or(&[][..], |b| &b.nodes);
        let deadline = Duration::from_millis(spec.rpc_deadline_ms);
        let node = |url: RpcUrl| match kept.iter().find(|node| node.is_at(&url)) {
            Some(node) => Ok(Arc::clone(node)),
            None => Rpc::new((&spec.name, label), spec.chain_id, url, deadline).map(Arc::new),
        };
        let nodes: Result<Vec<_>, String> = spec.nodes().into_iter().map(node).collect();
        match nodes {
            Ok(nodes) => Ok(Self { nodes, is }),
            Err(text) => Err(format!("chain {:?}: no HTTP client: {text}", spec.name)),
        }
    }

    /// A chain that is in no registry yet, to ask its node whether it is one of it. Its name is what a request says: it is counted as
    /// `candidate`.
    ///
    /// # Errors
    /// When there is no HTTP client.
    pub fn candidate(spec: ChainSpec) -> Result<Self, String> {
        Self::new(Effective::of_file(spec), "candidate", None)
    }

    /// What the registry says.
    #[must_use]
    pub fn spec(&self) -> &ChainSpec {
        &self.is.spec
    }

    /// Whether anything new is signed for it. What was signed is followed to its end either way.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.is.is_enabled && !self.is.deleted
    }

    /// Where it stands, and what rows say of it.
    #[must_use]
    pub fn effective(&self) -> &Effective {
        &self.is
    }

    /// A node that has said that it serves this chain: asked before the first use and again after any failure or new connection. The
    /// first in order that did not just fail and does not stand still, if any is such. Takes no lock; waits for this chain's nodes only, at
    /// most `rpc_deadline_ms` for each. All that belongs together should be asked of the one that is returned.
    ///
    /// # Errors
    /// [`ChainUnavailable`], as a sentence for the caller of the API.
    pub async fn rpc(&self) -> Result<&Rpc, ChainUnavailable> {
        // One that failed is asked in the background whether it is back, so that no request waits for it. One that answers may stand still,
        // which only shows when its newest block is looked at.
        if self.nodes.len() > 1 {
            for node in &self.nodes {
                if node.is_down_and_due() || node.is_due_for_probe() {
                    let node = Arc::clone(node);
                    tokio::spawn(async move { node.probe().await });
                }
            }
        }
        self.first_of(self.nodes.iter()).await
    }

    async fn first_of<'a>(&self, nodes: impl Iterator<Item = &'a Arc<Rpc>>) -> Result<&'a Rpc, ChainUnavailable> {
        // By the clock, not by each other: one that invents blocks ahead of the others must not come first for that.
        let bound =
            STANDS_STILL_MIN.max(Duration::from_millis(self.spec().block_time_ms).saturating_mul(STANDS_STILL_BLOCKS));
        let (last, first): (Vec<_>, Vec<_>) = nodes.partition(|node| node.is_down() || node.is_behind(bound));
        let mut why = None;
        for node in first.into_iter().chain(last) {
            match node.ensure_verified().await {
                Ok(()) => return Ok(node),
                Err(error) => why = Some(error),
            }
        }
        Err(why.map_or_else(|| self.no_rpc_url(), ChainUnavailable::from))
    }

    fn no_rpc_url(&self) -> ChainUnavailable {
        let (chain, variable) = (self.spec().name.clone(), self.spec().rpc_url_variable());
        ChainUnavailable::NoRpcUrl { chain, variable }
    }

    /// How many nodes it has.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Of each of its nodes, in their order: whether it answered the last time that it was asked, and the time of the newest block that
    /// it told [`Chain::probe`] of, in seconds since 1970.
    pub fn nodes_seen(&self) -> impl Iterator<Item = (bool, Option<u64>)> {
        self.nodes.iter().map(|node| (!node.is_down(), node.head_time_s()))
    }

    /// Asks every node whether it is there. Waits for all of them at once, at most a few times `rpc_deadline_ms`.
    pub async fn probe(&self) {
        futures::future::join_all(self.nodes.iter().map(|node| node.probe())).await;
    }

    /// The nodes that bytes are sent to: those that did not just fail, or all of them.
    #[must_use]
    pub fn to_send_to(&self) -> Vec<Arc<Rpc>> {
        let up: Vec<_> = self.nodes.iter().filter(|node| !node.is_down()).cloned().collect();
        if up.is_empty() { self.nodes.clone() } else { up }
    }

    /// Another node than `first`, for what should not rest on one alone. `None`: there is only one.
    ///
    /// # Errors
    /// [`ChainUnavailable`]: there are others, and none can be asked. Then nothing should be decided.
    pub async fn second(&self, first: &Rpc) -> Result<Option<&Rpc>, ChainUnavailable> {
        if self.nodes.len() < 2 {
            return Ok(None);
        }
        self.first_of(self.nodes.iter().filter(|node| !std::ptr::eq(&***node, first))).await.map(Some)
    }
}
