//! Why there is no answer.

use super::UNMINED_MAX;
use crate::chain::{ChainUnavailable, RpcError};

/// Why there is no answer. Always "could not check" (503), never "refused".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SimulateError {
    /// The node is out of reach, overloaded, answers garbage, or serves another chain.
    #[error("could not simulate: {0}")]
    CouldNotCheck(#[source] ChainUnavailable),
    /// The simulator is out of reach, refuses us, or answers garbage. The cause is in the log alone: it may name accounts.
    #[error(
        "could not simulate: the simulator gave no usable answer; nothing was signed. The daemon's log has the cause"
    )]
    Simulator {
        /// When to try again, in seconds.
        retry_after_s: u64,
    },
    /// The organisation's own simulator cannot be used as it is configured.
    #[error("could not simulate: the organisation's simulator is not usable as it is configured: {0}")]
    Configuration(&'static str),
    /// More of our own transactions are unmined than are applied first.
    #[error(
        "could not simulate: {count} transactions of this key are not mined yet (at most {UNMINED_MAX} can be simulated ahead)"
    )]
    TooManyUnmined {
        /// How many.
        count: usize,
    },
    /// One of our own unmined transactions cannot start (no funds): what comes after it would not run either.
    #[error(
        "could not simulate: a transaction of this key that is not mined yet and comes first cannot start (its funds may be gone); cancel it, or wait"
    )]
    UnminedCannotStart,
    /// The node cannot simulate several transactions one after the other.
    #[error(
        "could not simulate: {count} transactions come first, and the node of chain {chain} cannot simulate after them (it lacks eth_simulateV1, and debug_traceCall with stateOverrides)"
    )]
    UnminedNotSupported {
        /// The chain's name.
        chain: String,
        /// How many.
        count: usize,
    },
}

impl SimulateError {
    /// When to try again, in seconds.
    #[must_use]
    pub fn retry_after_s(&self) -> u64 {
        match self {
            Self::Simulator { retry_after_s } => *retry_after_s,
            Self::Configuration(_) => 60,
            Self::CouldNotCheck(_)
            | Self::TooManyUnmined { .. }
            | Self::UnminedCannotStart
            | Self::UnminedNotSupported { .. } => 2,
        }
    }
}

impl From<ChainUnavailable> for SimulateError {
    fn from(error: ChainUnavailable) -> Self {
        Self::CouldNotCheck(error)
    }
}

impl From<RpcError> for SimulateError {
    fn from(error: RpcError) -> Self {
        Self::CouldNotCheck(error.into())
    }
}
