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

/// Whether the node has no such method, or not for us: by JSON-RPC's code for that, or in words that speak of a method. A node that
/// refuses for any other reason (a quota, a state that it no longer has) may answer the next time.
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
    let of_method = ["method", "eth_simulatev1", "debug_tracecall", "debug_ namespace"];
    let has = |list: &[&str]| list.iter().any(|word| words.contains(word));
    *code == -32601 || (has(&of_method) && has(&missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_38_only_a_method_that_is_missing_is_missing() {
        let missing = |code, message: &str| {
            let error = NodeError { code, message: message.to_owned(), data: None };
            is_missing(&RpcError::Node { chain: "base".to_owned(), error })
        };
        assert!(missing(-32601, "") && missing(-32000, "the method debug_traceCall does not exist/is not available"));
        assert!(missing(-32000, "eth_simulateV1 is not supported") && missing(-32004, "Method not supported"));
        for (code, message) in [
            (-32602, "invalid argument 1"),
            (-32004, "too busy"),
            (-32000, "required historical state is not available"),
            (-32000, "the account is disabled: daily quota reached"),
            (-32000, "block does not exist"),
        ] {
            assert!(!missing(code, message), "{message}");
        }
    }
}
