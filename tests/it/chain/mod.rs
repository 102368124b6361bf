//! Chains, their nodes, and what is encoded for them.

pub mod contracts;
mod registry;
mod rpc;
mod send;
mod simulate;
mod tx;
mod wrong_chain;
