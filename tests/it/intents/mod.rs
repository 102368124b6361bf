//! The pipeline on real parts.

mod chains;
mod concurrency;
mod crash;
mod doubts;
mod effects;
mod frozen;
mod held;
mod idempotency;
mod invariants;
mod lying_node;
mod nonces;
pub mod outside;
mod poison;
mod raised;
mod refusals;
mod reorg;
mod replace;
mod sources;
mod stuck;
mod together;
mod whole_flow;
mod window;
mod withheld;
