//! The tree of calls that a transaction makes. Pure.

use alloy::primitives::{Address, Bytes, U256};

use super::EventLog;
use super::effects::{Moved, NATIVE};

/// One call of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallFrame {
    /// `CALL`, `STATICCALL`, `DELEGATECALL`, `CALLCODE`, `CREATE`, `CREATE2` or `SELFDESTRUCT`.
    pub kind: String,
    /// The caller.
    pub from: Address,
    /// Who is called, or what is created; `None` where a creation failed.
    pub to: Option<Address>,
    /// Native amount that is sent along, in wei.
    pub value: U256,
    /// Gas that it was given.
    pub gas: u64,
    /// Gas that it used.
    pub gas_used: u64,
    /// Calldata.
    pub input: Bytes,
    /// Return data; on a revert, the error's bytes.
    pub output: Bytes,
    /// Why it failed.
    pub error: Option<String>,
    /// Events that it emitted itself.
    pub logs: Vec<EventLog>,
    /// The calls that it made.
    pub calls: Vec<CallFrame>,
}

impl CallFrame {
    /// Whether its value changes hands. A `DELEGATECALL` only shows its caller's, a `CALLCODE` pays itself.
    #[must_use]
    pub fn transfers(&self) -> bool {
        !self.value.is_zero() && matches!(self.kind.as_str(), "CALL" | "CREATE" | "CREATE2" | "SELFDESTRUCT")
    }

    /// The frames whose effects stay, this one first, in their order: none below one that failed.
    #[must_use]
    pub fn lasting(&self) -> Vec<&Self> {
        let mut frames = Vec::new();
        let mut open = vec![self];
        while let Some(frame) = open.pop() {
            if frame.error.is_none() {
                frames.push(frame);
                open.extend(frame.calls.iter().rev());
            }
        }
        frames
    }

    /// All native transfers that stay: from whom, to whom, how much.
    #[must_use]
    pub fn transfers_made(&self) -> Vec<(Address, Address, U256)> {
        let transfers = self.lasting().into_iter().filter(|frame| frame.transfers());
        transfers.filter_map(|frame| Some((frame.from, frame.to?, frame.value))).collect()
    }

    /// All events that stay. What looks like [`NATIVE`]'s is none: only `eth_simulateV1` reports transfers that way.
    #[must_use]
    pub fn logs_emitted(&self) -> Vec<EventLog> {
        let logs = self.lasting().into_iter().flat_map(|frame| &frame.logs);
        logs.filter(|log| log.address != NATIVE).cloned().collect()
    }

    /// What moves by native transfers.
    #[must_use]
    pub fn moved_natively(&self) -> Moved {
        let mut moved = Moved::default();
        for (from, to, value) in self.transfers_made() {
            moved.transfer(None, from, to, value);
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Address = Address::repeat_byte(0xa);
    const B: Address = Address::repeat_byte(0xb);
    const C: Address = Address::repeat_byte(0xc);

    fn frame(
        kind: &str,
        from: Address,
        to: Address,
        value: u64,
        error: Option<&str>,
        calls: Vec<CallFrame>,
    ) -> CallFrame {
        let log = EventLog { address: to, topics: Vec::new(), data: Bytes::new() };
        CallFrame {
            kind: kind.to_owned(),
            from,
            to: Some(to),
            value: U256::from(value),
            gas: 0,
            gas_used: 0,
            input: Bytes::new(),
            output: Bytes::new(),
            error: error.map(str::to_owned),
            logs: vec![log],
            calls,
        }
    }

    #[test]
    fn what_a_failed_call_did_does_not_stay() {
        let failed = frame("CALL", B, C, 5, Some("execution reverted"), vec![frame("CALL", C, A, 5, None, vec![])]);
        let tree = frame(
            "CALL",
            A,
            B,
            7,
            None,
            vec![failed, frame("DELEGATECALL", B, C, 7, None, vec![frame("CALL", B, C, 2, None, vec![])])],
        );
        assert_eq!(tree.transfers_made(), [(A, B, U256::from(7)), (B, C, U256::from(2))]);
        assert_eq!(tree.logs_emitted().len(), 3);
        let reverted = CallFrame { error: Some("execution reverted".to_owned()), ..tree };
        assert!(reverted.transfers_made().is_empty() && reverted.logs_emitted().is_empty());
    }
}
