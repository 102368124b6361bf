//! What documents the routes of this feature.

use crate::http::api::{Doc, Tag};

/// Sign a transaction and send it.
#[must_use]
pub fn submit() -> Doc {
    Doc::new(Tag::Intents, "submitTransaction", "Sign a transaction and send it")
}

/// List an agent's transactions.
#[must_use]
pub fn list() -> Doc {
    Doc::new(Tag::Intents, "listTransactions", "List an agent's transactions")
}

/// Sign a transaction and hand it out.
#[must_use]
pub fn sign() -> Doc {
    Doc::new(Tag::Intents, "signTransaction", "Sign a transaction and hand it out")
}

/// See what a transaction would do.
#[must_use]
pub fn simulate() -> Doc {
    Doc::new(Tag::Intents, "simulateTransaction", "See what a transaction would do")
}

/// See what transactions would do one after the other.
#[must_use]
pub fn simulate_bundle() -> Doc {
    Doc::new(Tag::Intents, "simulateBundle", "See what transactions would do one after the other")
}

/// Look at a transaction.
#[must_use]
pub fn get_one() -> Doc {
    Doc::new(Tag::Intents, "getTransaction", "Look at a transaction")
}
