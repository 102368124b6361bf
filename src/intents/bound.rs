//! What was checked is what is signed (I7): a transaction, the hash of it that was taken at the check, and the simulation of exactly it.
//! No field can be changed from outside of this file, and nothing is signed that is not one of these.

use std::ops::Deref;

use alloy::primitives::B256;

use crate::chain::{Signature, SignedTx, UnsignedTx};
use crate::simulate::Simulation;

/// A checked transaction. Reads as the transaction; cannot be changed.
#[derive(Clone, Debug)]
pub struct Bound {
    tx: UnsignedTx,
    hash: B256,
    simulation: Option<(Simulation, Ahead)>,
}

/// Our own transactions that a simulation applied first: those of the key with nonces from `mined` on and below its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// Below it every nonce was used on the state that was simulated on.
    pub mined: u64,
    /// Nonces, and the hashes of their bytes.
    pub list: Vec<(u64, B256)>,
}

/// The simulation is of another transaction than the one that would be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the transaction is not the one that was simulated")]
pub struct NotTheSame;

impl Bound {
    /// Binds a transaction to its hash, and to its simulation if there was one, with what that applied first.
    ///
    /// # Errors
    /// [`NotTheSame`]: any field differs from what was simulated, gas and fees included.
    pub fn new(tx: UnsignedTx, simulation: Option<(Simulation, Ahead)>) -> Result<Self, NotTheSame> {
        let hash = tx.checked_hash();
        match &simulation {
            Some((simulation, _)) if simulation.checked_hash() != Some(hash) => Err(NotTheSame),
            _ => Ok(Self { tx, hash, simulation }),
        }
    }

    /// The simulation, if there was one.
    #[must_use]
    pub fn simulation(&self) -> Option<&Simulation> {
        self.simulation.as_ref().map(|(simulation, _)| simulation)
    }

    /// What the simulation applied first, if there was one: with anything else before it, it was not simulated.
    #[must_use]
    pub fn ahead(&self) -> Option<&Ahead> {
        self.simulation.as_ref().map(|(_, ahead)| ahead)
    }

    /// What the key signs, for this nonce.
    ///
    /// # Errors
    /// [`NotTheSame`]: the transaction is not the one that was checked.
    pub fn signing_digest(&self, nonce: u64) -> Result<[u8; 32], NotTheSame> {
        if self.tx.checked_hash() == self.hash { Ok(self.tx.signing_digest(nonce)) } else { Err(NotTheSame) }
    }

    /// The signed bytes.
    #[must_use]
    pub fn encode(&self, nonce: u64, signature: &Signature) -> SignedTx {
        self.tx.encode(nonce, signature)
    }
}

impl Deref for Bound {
    type Target = UnsignedTx;

    fn deref(&self) -> &UnsignedTx {
        &self.tx
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{ChainId, Fees};
    use crate::money::Wei;
    use crate::simulate::simulated_for_tests;
    use alloy::primitives::{Address, Bytes};

    /// A change of one field.
    type Change = fn(&mut UnsignedTx);

    #[test]
    fn threat_16_no_field_may_differ_from_what_was_simulated() {
        let tx = UnsignedTx {
            chain_id: ChainId(1),
            from: Address::repeat_byte(1),
            to: Address::repeat_byte(2),
            value: Wei::from(3u64),
            data: Bytes::from_static(&[4]),
            gas_limit: 21_000,
            fees: Fees::Eip1559 { max_fee_per_gas: 6, max_priority_fee_per_gas: 5 },
        };
        let simulation = (simulated_for_tests(Some(tx.checked_hash())), Ahead::default());
        assert!(Bound::new(tx.clone(), Some(simulation.clone())).is_ok());
        assert!(Bound::new(tx.clone(), None).is_ok());
        let changes: [Change; 8] = [
            |tx| tx.chain_id = ChainId(2),
            |tx| tx.from = Address::repeat_byte(9),
            |tx| tx.to = Address::repeat_byte(9),
            |tx| tx.value = Wei::from(4u64),
            |tx| tx.data = Bytes::from_static(&[5]),
            |tx| tx.gas_limit += 1,
            |tx| tx.fees = Fees::Legacy { gas_price: 6 },
            |tx| tx.fees = Fees::Eip1559 { max_fee_per_gas: 6, max_priority_fee_per_gas: 6 },
        ];
        for change in changes {
            let mut other = tx.clone();
            change(&mut other);
            assert_eq!(Bound::new(other, Some(simulation.clone())).err(), Some(NotTheSame));
        }
        // A simulation with a guessed gas limit is bound to nothing.
        assert!(Bound::new(tx.clone(), Some((simulated_for_tests(None), Ahead::default()))).is_err());
        // What T1 compares.
        let bound = Bound { hash: B256::ZERO, ..Bound::new(tx, None).unwrap() };
        assert_eq!(bound.signing_digest(0), Err(NotTheSame));
    }
}
