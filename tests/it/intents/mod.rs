//! The pipeline on real parts.

mod chains;
mod concurrency;
mod crash;
mod effects;
mod idempotency;
mod invariants;
mod lying_node;
mod nonces;
pub mod outside;
mod poison;
mod refusals;
mod reorg;
mod whole_flow;
mod window;
