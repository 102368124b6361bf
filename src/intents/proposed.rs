//! What is about to be signed, first bytes and replacements alike: what the rules look at, and what the signature is over.

use std::sync::Arc;

use super::bound::Bound;
use super::calldata::Calls;
use super::effects::Effects;
use super::guardrails::{Facts, Seen};
use crate::chain::Chain;
use crate::money::Wei;
use crate::vaults::keys::SigningKey;

/// A transaction that was checked, but for its nonce, with everything that was learnt about it.
pub struct Proposed {
    pub(super) chain: Arc<Chain>,
    pub(super) key: SigningKey,
    pub(super) tx: Bound,
    /// The most that its gas can cost.
    pub(super) max_fee: Wei,
    pub(super) calls: Calls,
    /// Of the simulation, where it tells everything.
    pub(super) effects: Option<Effects>,
    /// The windows that it is charged to, by the rules as they were read here.
    pub(super) units: Vec<String>,
}

impl Proposed {
    /// What the rules look at.
    pub(super) fn facts(&self) -> Facts<'_> {
        let seen = Seen::of(self.effects.as_ref());
        Facts::of(&self.chain.spec().name, &self.tx, self.max_fee, &self.calls, seen)
    }
}
