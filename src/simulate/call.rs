//! A call as it is simulated: any sender, a contract or a new one, on a state that may be changed first. Pure.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256, Bytes, U256};
use serde_json::{Map, Value, json};

use crate::chain::{Fees, UnsignedTx};

/// A call. Unlike a transaction of ours it may create a contract, and may be without gas limit and fees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The sender that is played.
    pub from: Address,
    /// The recipient; `None` creates a contract.
    pub to: Option<Address>,
    /// Native amount sent along, in wei.
    pub value: U256,
    /// Calldata, or the code that creates the contract.
    pub data: Bytes,
    /// Gas limit; `None` leaves it to the node.
    pub gas_limit: Option<u64>,
    /// What it pays per gas; with `None` nodes take no fee from the balance, and contracts see a gas price of 0.
    pub fees: Option<Fees>,
    /// Addresses and slots that are warm from the start (EIP-2930).
    pub access_list: Vec<(Address, Vec<B256>)>,
}

impl Call {
    /// As JSON-RPC writes a call.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut call = json!({ "from": self.from, "value": format!("{:#x}", self.value), "data": self.data });
        if let Some(to) = self.to {
            call["to"] = json!(to);
        }
        if let Some(gas_limit) = self.gas_limit {
            call["gas"] = json!(format!("{gas_limit:#x}"));
        }
        match self.fees {
            None => {}
            Some(Fees::Legacy { gas_price }) => call["gasPrice"] = json!(format!("{gas_price:#x}")),
            Some(Fees::Eip1559 { max_fee_per_gas, max_priority_fee_per_gas }) => {
                call["maxFeePerGas"] = json!(format!("{max_fee_per_gas:#x}"));
                call["maxPriorityFeePerGas"] = json!(format!("{max_priority_fee_per_gas:#x}"));
            }
        }
        if !self.access_list.is_empty() {
            let item = |(address, keys): &(Address, Vec<B256>)| json!({ "address": address, "storageKeys": keys });
            call["accessList"] = self.access_list.iter().map(item).collect();
        }
        call
    }

    /// The same call, paying nothing for its gas.
    #[must_use]
    pub fn unpaid(self) -> Self {
        Self { fees: None, ..self }
    }
}

impl From<&UnsignedTx> for Call {
    fn from(tx: &UnsignedTx) -> Self {
        Self {
            from: tx.from,
            to: Some(tx.to),
            value: tx.value.0,
            data: tx.data.clone(),
            gas_limit: Some(tx.gas_limit),
            fees: Some(tx.fees),
            access_list: Vec::new(),
        }
    }
}

/// What is changed of an account before a call; `None` leaves it as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Override {
    /// In wei.
    pub balance: Option<U256>,
    /// The next nonce.
    pub nonce: Option<u64>,
    /// The code.
    pub code: Option<Bytes>,
    /// Slots; those not named stay.
    pub storage: BTreeMap<B256, B256>,
}

/// What is changed of the state before a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides(pub BTreeMap<Address, Override>);

impl Overrides {
    /// Changes `self` as `later` says; where both say something, `later` holds.
    pub fn apply(&mut self, later: &Self) {
        for (address, change) in &later.0 {
            let account = self.0.entry(*address).or_default();
            account.balance = change.balance.or(account.balance);
            account.nonce = change.nonce.or(account.nonce);
            account.code = change.code.clone().or(account.code.take());
            account.storage.extend(&change.storage);
        }
    }

    /// As JSON-RPC writes a state override set.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut set = Map::new();
        for (address, account) in &self.0 {
            let mut change = Map::new();
            if let Some(balance) = account.balance {
                change.insert("balance".to_owned(), json!(format!("{balance:#x}")));
            }
            if let Some(nonce) = account.nonce {
                change.insert("nonce".to_owned(), json!(format!("{nonce:#x}")));
            }
            if let Some(code) = &account.code {
                change.insert("code".to_owned(), json!(code));
            }
            if !account.storage.is_empty() {
                change.insert("stateDiff".to_owned(), json!(account.storage));
            }
            set.insert(address.to_string(), Value::Object(change));
        }
        Value::Object(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_changes_hold_and_what_they_do_not_name_stays() {
        let account = Address::repeat_byte(1);
        let slot = |n| B256::with_last_byte(n);
        let one = |change: Override| Overrides([(account, change)].into());
        let mut state = one(Override {
            balance: Some(U256::from(1)),
            nonce: Some(7),
            storage: [(slot(1), slot(1)), (slot(2), slot(2))].into(),
            ..Override::default()
        });
        state.apply(&one(Override {
            balance: Some(U256::ZERO),
            code: Some(Bytes::from_static(&[0xfe])),
            storage: [(slot(2), slot(9))].into(),
            ..Override::default()
        }));
        let account = &state.0[&account];
        assert_eq!((account.balance, account.nonce), (Some(U256::ZERO), Some(7)));
        assert_eq!(account.storage, [(slot(1), slot(1)), (slot(2), slot(9))].into());
        assert_eq!(state.to_json()[Address::repeat_byte(1).to_string()]["code"], "0xfe");
    }
}
