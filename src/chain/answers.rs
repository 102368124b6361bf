//! What a node's answer to `eth_sendRawTransaction` means. Pure.
//!
//! By the lower-cased message and not by the code: geth, anvil, Nethermind, Erigon, Besu and ZKsync agree on neither, but the
//! words are few.

/// What is known after sending a transaction's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    /// In the pool.
    Accepted,
    /// It was there already: as good as accepted.
    AlreadyKnown,
    /// The nonce is used: by one of our attempts (look for receipts) or by somebody else with the key.
    NonceTooLow,
    /// The pool wants more per gas: to replace what it has, or to take it at all. Keep if one of our hashes is known.
    Underpriced,
    /// The balance went after the check. Hold and try again, never drop.
    InsufficientFunds,
    /// The node says no, in these words.
    Rejected(String),
    /// It may or may not be in the pool (time-out, lost answer, overload): send the same bytes again.
    Unknown(String),
}

/// An outcome, and what messages that mean it contain.
type Meaning = (fn(String) -> SendOutcome, &'static [&'static str]);

/// The first line with a match decides.
const MEANINGS: [Meaning; 5] = [
    (
        |_| SendOutcome::AlreadyKnown,
        &["already known", "already imported", "alreadyknown", "already_exists", "already exists", "already in the "],
    ),
    (|_| SendOutcome::NonceTooLow, &["nonce too low", "nonce is too low", "oldnonce", "invalid nonce: too low"]),
    (
        |_| SendOutcome::Underpriced,
        &[
            "underpriced",
            "fee too low",
            "feetoolow",
            "gas price too low",
            "less than block base fee",
            "below block base fee",
            "lower than the current baseline gas price",
        ],
    ),
    (
        |_| SendOutcome::InsufficientFunds,
        &[
            "insufficient funds",
            "insufficientfunds",
            "insufficient balance",
            "upfront cost exceeds",
            "not enough balance",
            "lack of funds",
        ],
    ),
    (
        SendOutcome::Unknown,
        &[
            "timeout",
            "timed out",
            "rate limit",
            "too many requests",
            "limit exceeded",
            "try again",
            "overloaded",
            "busy",
            "txpool is full",
            "pool is full",
            "unavailable",
            "internal error",
            "header not found",
            "syncing",
        ],
    ),
];

/// Reads the message of an error answer.
#[must_use]
pub fn outcome(message: &str) -> SendOutcome {
    let lower = message.to_lowercase();
    // Besu and ZKsync: "Known transaction". Not: "unknown transaction type".
    if lower.starts_with("known transaction") {
        return SendOutcome::AlreadyKnown;
    }
    for (make, words) in MEANINGS {
        if words.iter().any(|word| lower.contains(word)) {
            return make(message.to_owned());
        }
    }
    SendOutcome::Rejected(message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_answers_mean_the_same_whoever_wrote_them() {
        use SendOutcome::{AlreadyKnown, InsufficientFunds, NonceTooLow, Underpriced};
        let table = [
            ("already known", AlreadyKnown),
            ("ALREADY_EXISTS: already known", AlreadyKnown),
            ("transaction already imported", AlreadyKnown),
            ("AlreadyKnown", AlreadyKnown),
            ("Known transaction", AlreadyKnown),
            ("known transaction. transaction with hash 0x12 is already in the system", AlreadyKnown),
            ("nonce too low: next nonce 5, tx nonce 4", NonceTooLow),
            ("nonce too low", NonceTooLow),
            ("OldNonce, Current nonce: 5, nonce of rejected tx: 4", NonceTooLow),
            ("replacement transaction underpriced", Underpriced),
            ("transaction underpriced: gas tip cap 1, minimum needed 2", Underpriced),
            ("max fee per gas less than block base fee", Underpriced),
            ("FeeTooLow, MaxFeePerGas too low", Underpriced),
            ("insufficient funds for gas * price + value: balance 0, tx cost 21000", InsufficientFunds),
            ("Insufficient funds for gas * price + value", InsufficientFunds),
            ("Upfront cost exceeds account balance", InsufficientFunds),
        ];
        for (message, expected) in table {
            assert_eq!(outcome(message), expected, "{message}");
        }
    }

    #[test]
    fn threat_01_what_does_not_say_no_is_unknown_and_never_a_refusal() {
        for message in
            ["request timed out", "txpool is full", "Too Many Requests", "Internal error", "daily limit exceeded"]
        {
            assert_eq!(outcome(message), SendOutcome::Unknown(message.to_owned()));
        }
    }

    #[test]
    fn a_refusal_keeps_the_words_of_the_node() {
        for message in
            ["unknown transaction type", "exceeds block gas limit", "invalid sender", "intrinsic gas too low"]
        {
            assert_eq!(outcome(message), SendOutcome::Rejected(message.to_owned()));
        }
    }
}
