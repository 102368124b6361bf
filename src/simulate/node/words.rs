//! What a node's error means, by its words: geth, anvil, Nethermind, Erigon, Besu and Tenderly agree on no code. Pure.

use super::End;
use crate::chain::{NodeError, RpcError};

/// How a call ended, from the text of an error; `None` where the text is not about the call.
pub(in crate::simulate) fn end_of(message: &str) -> Option<End> {
    let words = message.to_lowercase();
    let has = |list: &[&str]| list.iter().any(|word| words.contains(word));
    let refused = |code| Some(End::Refused(code, message.to_owned()));
    if has(&["insufficient funds", "insufficient balance", "lack of funds", "insufficientfunds"]) {
        return refused("insufficient_funds");
    }
    if has(&["intrinsic gas", "gas floor", "floor data gas", "callgascostmorethangaslimit"]) {
        return refused("intrinsic_gas");
    }
    if has(&["block base fee", "basefee", "feecaptoolow", "fee cap less than"]) {
        return refused("fee_below_base_fee");
    }
    if has(&["gas limit", "gaslimit", "gas required exceeds"]) && has(&["exceed", "too high", "above", "higher", "max"])
    {
        return refused("gas_limit");
    }
    if has(&["revert"]) {
        return Some(End::Reverted);
    }
    const FAULTS: [&str; 7] =
        ["out of gas", "outofgas", "invalid opcode", "stack underflow", "stack overflow", "invalid jump", "evm error"];
    has(&FAULTS).then(|| End::Halted(message.to_owned()))
}

/// Whether the node has no such method, or not for us.
pub(in crate::simulate) fn is_missing(error: &RpcError) -> bool {
    let Some(NodeError { code, message, .. }) = error.node_error() else { return false };
    let words = message.to_lowercase();
    let missing = [
        "method not found",
        "does not exist",
        "not available",
        "not supported",
        "unsupported",
        "not allowed",
        "not enabled",
        "disabled",
        "whitelisted",
        "unknown method",
    ];
    matches!(code, -32601 | -32602 | -32004) || missing.iter().any(|word| words.contains(word))
}
