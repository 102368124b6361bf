//! What can go wrong with a node. "Could not reach" and "the node said no" are different errors, and no text has the URL.

use alloy::primitives::{Bytes, U256};

use super::spec::ChainId;

/// Why there is no usable answer. Nothing is known of what the node did with the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// No connection: refused, no route, no such host, TLS.
    #[error("no connection to its node")]
    Connect,
    /// No whole answer within the deadline.
    #[error("its node did not answer within {ms} ms")]
    Timeout {
        /// The deadline, in milliseconds.
        ms: u64,
    },
    /// The connection ended before the answer did.
    #[error("its node closed the connection without an answer")]
    Dropped,
    /// An HTTP status without a JSON-RPC answer: 401, 429, 5xx, a redirect.
    #[error("its node answered HTTP {0}")]
    Status(u16),
    /// Not an answer to what was asked.
    #[error("its node's answer makes no sense: {0}")]
    Garbage(&'static str),
}

/// An error object of JSON-RPC. The text is the node's: shortened, and cleaned of anything from the URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeError {
    /// The code; nodes do not agree on their meaning.
    pub code: i64,
    /// The message.
    pub message: String,
    /// The data: a reverted call's return data, where it is hex.
    pub data: Option<Bytes>,
}

/// Why a call of a node has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// Could not reach the node, or it answered garbage.
    #[error("chain {chain}: {cause}")]
    Unreachable {
        /// The chain's name.
        chain: String,
        /// What happened.
        cause: Unreachable,
    },
    /// The node answered an error.
    #[error("chain {chain}: its node answered error {}: {}", error.code, error.message)]
    Node {
        /// The chain's name.
        chain: String,
        /// The error.
        error: NodeError,
    },
    /// The node serves another chain. Nothing is signed for the chain until that is mended.
    #[error(
        "chain {chain} is unavailable: its RPC URL leads to another chain (expected chain id {expected}, the node answered {answered})"
    )]
    WrongChain {
        /// The chain's name.
        chain: String,
        /// The registry's id.
        expected: ChainId,
        /// The node's.
        answered: U256,
    },
}

impl RpcError {
    /// The error object, if the node answered one.
    #[must_use]
    pub fn node_error(&self) -> Option<&NodeError> {
        match self {
            Self::Node { error, .. } => Some(error),
            Self::Unreachable { .. } | Self::WrongChain { .. } => None,
        }
    }
}

/// Why a chain cannot be used now. All of it is "could not check" (503), never "refused by rule".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainUnavailable {
    /// Listed, but nobody said where its node is.
    #[error("chain {chain} is unavailable: it has no RPC URL (set {variable})")]
    NoRpcUrl {
        /// The chain's name.
        chain: String,
        /// The environment variable that is not set.
        variable: String,
    },
    /// The node cannot be asked, or serves another chain.
    #[error(transparent)]
    Rpc(#[from] RpcError),
}
