//! Guardrails on what a transaction does: tokens, approvals, nested and privileged calls, and sums of more than the native unit.

mod battery;
mod limits;
mod simulated;
mod verdict;
