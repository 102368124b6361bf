//! Chains, their nodes, and what is encoded for them.

pub mod contracts;
mod registry;
mod rpc;
mod send;
mod simulate;
mod tx;
mod wrong_chain;

use intentd::chain::{Rpc, SendOutcome};

/// Sends bytes as soon as the node has said that it is of the chain.
async fn send_raw(rpc: &Rpc, raw: &[u8]) -> SendOutcome {
    match rpc.ready().await {
        Ok(node) => node.send_raw(raw).await,
        Err(error) => error.into(),
    }
}
