//! The edge to the chains: which there are, how to ask their nodes, how a transaction is built and encoded.
//!
//! - [`spec`], [`registry`], [`overlay`]: chains.toml, the URLs from the environment, and what platform admins add.
//! - [`rpc`], [`node`], [`market`]: JSON-RPC to one node per chain; each chain by itself, no lock that two chains share.
//! - [`balances`]: what tokens say an address has.
//! - [`tx`], [`fees`]: pure.
//!
//! What a node says is never believed beyond a bound that comes from elsewhere: the chain id is compared with the registry,
//! fees with the ceilings, a transaction's hash with the bytes.

pub mod answers;
pub mod api;
pub mod balances;
pub mod error;
pub mod fees;
pub mod guard;
pub mod http;
pub mod market;
pub mod node;
pub mod overlay;
pub mod registry;
pub mod rpc;
pub mod spec;
mod transport;
pub mod tx;

pub use answers::SendOutcome;
pub use error::{ChainUnavailable, NodeError, RpcError, Unreachable};
pub use fees::{Ceilings, FeeError, FeeQuote, FeeRequest};
pub use market::{Account, Market};
pub use node::{Head, Log, Receipt, TxRequest};
pub use overlay::Overlay;
pub use registry::{Chain, Chains, ChainsError, DEFAULT_CHAINS};
pub use rpc::{Ready, Rpc};
pub use spec::{ChainId, ChainSpec, Kind, NODES_MAX, RpcUrl};
pub use tx::{Fees, LimitError, Signature, SignedTx, UnsignedTx};
