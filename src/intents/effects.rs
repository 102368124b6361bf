//! What a transaction would do, or has done, to the assets of the key that signs it: by its events and its native balance. Pure.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256, U256, b256};

use super::calldata::{Change, TokenEffect};
use crate::simulate::effects::TRANSFER;
use crate::simulate::{EventLog, Simulation, SimulationStatus};

/// `Approval(address,address,uint256)`, of ERC-20 and ERC-721.
const APPROVAL: B256 = b256!("8c5be1e5ebec7d5bd14f71427d1e84f3dd0314c0f7b2291e5b200ac8c7c3b925");
/// `ApprovalForAll(address,address,bool)`.
const APPROVAL_FOR_ALL: B256 = b256!("17307eab39ab6107e8899845ad3d59bd9653f200f220920489ca2b5937696c31");
/// `TransferSingle(address,address,address,uint256,uint256)`.
const TRANSFER_SINGLE: B256 = b256!("c3d58168c5ae7397731d063d5bbf3d657854427343f4c083240f7aacaa2d0f62");
/// `TransferBatch(address,address,address,uint256[],uint256[])`.
const TRANSFER_BATCH: B256 = b256!("4a39dc06d4c0dbc64b70af90fd698a233a518aa5d07e595d983b8c0526c8f7fb");
/// Permit2's `Approval(address,address,address,uint160,uint48)`.
const PERMIT2_APPROVAL: B256 = b256!("da9fa7c1b00402c17d0161b249b1ab8bbec047c5a52207b9c112deffd817036b");
/// Permit2's `Permit(address,address,address,uint160,uint48,uint48)`.
const PERMIT2_PERMIT: B256 = b256!("c6a377bfc4eb120024a8ac08eef205be16b817020812c73223e81d1bdb9708ec");
/// `OwnershipTransferred(address,address)`.
const OWNERSHIP_TRANSFERRED: B256 = b256!("8be0079c531659141344cd1fd0a4f28419497f9722a3daafe3b4186f6b6457e0");
/// `RoleGranted(bytes32,address,address)`.
const ROLE_GRANTED: B256 = b256!("2f8788117e7eff1d82e926ec794901d17c78024a50270940304540a733656f0d");

/// What happens to the assets of one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Native value that it loses, the network's fee aside, in wei.
    pub native: U256,
    /// What goes from it, and who may take from it.
    pub tokens: Vec<TokenEffect>,
    /// Contracts that it commanded and gave away, or gave a role in.
    pub privileged: Vec<Address>,
}

impl Effects {
    /// Of a simulation that succeeded and tells everything; `None` otherwise.
    #[must_use]
    pub fn of_simulation(simulation: &Simulation, signer: Address) -> Option<Self> {
        if simulation.status != SimulationStatus::Success || !simulation.effects_are_complete() {
            return None;
        }
        let own = |address: Address, token: Option<Address>| address == signer && token.is_none();
        let changes = simulation.balance_changes.iter().filter(|change| own(change.address, change.token));
        let native = changes
            .map(|change| change.delta.loss().unwrap_or(U256::MAX))
            .fold(U256::ZERO, |sum, loss| sum.saturating_add(loss));
        Some(Self { native, ..Self::of_logs(&simulation.logs, signer) })
    }

    /// Of events. Those of one kind on one token for one party are summed.
    #[must_use]
    pub fn of_logs(logs: &[EventLog], signer: Address) -> Self {
        let mut sums: BTreeMap<(Address, Change, Address), U256> = BTreeMap::new();
        let mut privileged = Vec::new();
        for log in logs {
            if let Some(effect) = token_effect(log, signer) {
                let sum = sums.entry((effect.token, effect.change, effect.party)).or_default();
                *sum = sum.saturating_add(effect.amount);
            } else if gives_away(log, signer) && !privileged.contains(&log.address) {
                privileged.push(log.address);
            }
        }
        let effect = |((token, change, party), amount)| TokenEffect { token, change, party, amount };
        Self { native: U256::ZERO, tokens: sums.into_iter().map(effect).collect(), privileged }
    }
}

/// Old tokens index fewer arguments than the standards say: arguments are taken from the topics first and from the data then.
fn token_effect(log: &EventLog, signer: Address) -> Option<TokenEffect> {
    let (topic, indexed) = log.topics.split_first()?;
    let args: Vec<U256> = indexed
        .iter()
        .map(|topic| U256::from_be_bytes(topic.0))
        .chain(log.data.chunks_exact(32).take(8).map(U256::from_be_slice))
        .collect();
    let address = |at: usize| args.get(at).map(|word| Address::from_word(word.to_be_bytes().into()));
    let number = |at: usize| args.get(at).copied();
    let of = |owner: usize, change: Change, party: usize, amount: U256| {
        (address(owner)? == signer).then_some(TokenEffect {
            token: log.address,
            change,
            party: address(party)?,
            amount,
        })
    };
    // An NFT's item number is indexed, an amount is not.
    let amount = |at: usize| if indexed.len() == 3 { Some(U256::from(1)) } else { number(at) };
    let allowance =
        |at: usize| number(at).map(|n| (if n.is_zero() { Change::Revocation } else { Change::Approval }, n));
    match *topic {
        TRANSFER => of(0, Change::Transfer, 1, amount(2)?),
        TRANSFER_SINGLE => of(1, Change::Transfer, 2, number(4)?),
        // The amounts are a list behind a list; whoever gives the token a limit reads them as more than any.
        TRANSFER_BATCH => of(1, Change::Transfer, 2, batch_sum(&log.data).unwrap_or(U256::MAX)),
        APPROVAL if indexed.len() == 3 && address(1)?.is_zero() => of(0, Change::Revocation, 1, U256::ZERO),
        APPROVAL if indexed.len() == 3 => of(0, Change::Approval, 1, U256::from(1)),
        APPROVAL => {
            let (change, amount) = allowance(2)?;
            of(0, change, 1, amount)
        }
        APPROVAL_FOR_ALL if number(2)?.is_zero() => of(0, Change::Revocation, 1, U256::ZERO),
        APPROVAL_FOR_ALL => of(0, Change::Operator, 1, U256::MAX),
        PERMIT2_APPROVAL | PERMIT2_PERMIT => {
            let (change, amount) = allowance(3)?;
            of(0, change, 2, amount).and_then(|effect| Some(TokenEffect { token: address(1)?, ..effect }))
        }
        _ => None,
    }
}

fn batch_sum(data: &[u8]) -> Option<U256> {
    use super::calldata::abi::{Budget, decode, types_of};
    let args = decode(&types_of("f(uint256[],uint256[])")?, data, &mut Budget::small()).ok()?;
    args.at(1)
        .ok()?
        .list()
        .ok()?
        .iter()
        .try_fold(U256::ZERO, |sum, amount| Some(sum.saturating_add(amount.uint().ok()?)))
}

fn gives_away(log: &EventLog, signer: Address) -> bool {
    let is_signer = |at: usize| log.topics.get(at).is_some_and(|topic| *topic == signer.into_word());
    match log.topics.first() {
        Some(&OWNERSHIP_TRANSFERRED) => is_signer(1),
        Some(&ROLE_GRANTED) => is_signer(3),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::primitives::keccak256;

    const S: Address = Address::repeat_byte(0x5);
    const R: Address = Address::repeat_byte(0xb);
    const T: Address = Address::repeat_byte(0xc);

    fn log(topics: &[B256], data: &[U256]) -> EventLog {
        let data: Vec<u8> = data.iter().flat_map(|word| word.to_be_bytes::<32>()).collect();
        EventLog { address: T, topics: topics.to_vec(), data: data.into() }
    }

    #[test]
    fn topics_are_the_hashes_of_their_signatures() {
        for (topic, signature) in [
            (TRANSFER, "Transfer(address,address,uint256)"),
            (APPROVAL, "Approval(address,address,uint256)"),
            (APPROVAL_FOR_ALL, "ApprovalForAll(address,address,bool)"),
            (TRANSFER_SINGLE, "TransferSingle(address,address,address,uint256,uint256)"),
            (TRANSFER_BATCH, "TransferBatch(address,address,address,uint256[],uint256[])"),
            (PERMIT2_APPROVAL, "Approval(address,address,address,uint160,uint48)"),
            (PERMIT2_PERMIT, "Permit(address,address,address,uint160,uint48,uint48)"),
            (OWNERSHIP_TRANSFERRED, "OwnershipTransferred(address,address)"),
            (ROLE_GRANTED, "RoleGranted(bytes32,address,address)"),
        ] {
            assert_eq!(topic, keccak256(signature), "{signature}");
        }
    }

    #[test]
    fn threat_16_events_say_what_goes_from_the_signer_and_who_may_take_from_it() {
        let (s, r, t, n) = (S.into_word(), R.into_word(), T.into_word(), |n: u64| U256::from(n));
        let word = |n: u64| B256::from(U256::from(n));
        let cases = [
            (log(&[TRANSFER, s, r], &[n(7)]), Some((Change::Transfer, n(7)))),
            // An NFT, an early NFT without an index, and somebody else's.
            (log(&[TRANSFER, s, r, word(7)], &[]), Some((Change::Transfer, n(1)))),
            (log(&[TRANSFER], &[s.into(), r.into(), n(7)]), Some((Change::Transfer, n(7)))),
            (log(&[TRANSFER, r, s], &[n(7)]), None),
            (log(&[TRANSFER_SINGLE, r, s, r], &[n(1), n(9)]), Some((Change::Transfer, n(9)))),
            (
                log(&[TRANSFER_BATCH, r, s, r], &[n(64), n(160), n(2), n(1), n(2), n(2), n(3), n(4)]),
                Some((Change::Transfer, n(7))),
            ),
            (log(&[TRANSFER_BATCH, r, s, r], &[n(64), n(1 << 40)]), Some((Change::Transfer, U256::MAX))),
            (log(&[APPROVAL, s, r], &[n(7)]), Some((Change::Approval, n(7)))),
            (log(&[APPROVAL, s, r], &[n(0)]), Some((Change::Revocation, n(0)))),
            (log(&[APPROVAL, s, r, word(7)], &[]), Some((Change::Approval, n(1)))),
            (log(&[APPROVAL_FOR_ALL, s, r], &[n(1)]), Some((Change::Operator, U256::MAX))),
            (log(&[APPROVAL_FOR_ALL, s, r], &[n(0)]), Some((Change::Revocation, n(0)))),
            (log(&[PERMIT2_APPROVAL, s, t, r], &[n(7), n(1)]), Some((Change::Approval, n(7)))),
            (log(&[PERMIT2_PERMIT, s, t, r], &[n(7), n(1), n(1)]), Some((Change::Approval, n(7)))),
            (log(&[], &[]), None),
            (log(&[TRANSFER, s], &[]), None),
        ];
        for (log, expected) in cases {
            let effects = Effects::of_logs(std::slice::from_ref(&log), S);
            let expected = expected.map(|(change, amount)| TokenEffect { token: T, change, party: R, amount });
            assert_eq!(effects.tokens, expected.into_iter().collect::<Vec<_>>(), "{log:?}");
        }
        let sum = Effects::of_logs(&[log(&[TRANSFER, s, r], &[n(7)]), log(&[TRANSFER, s, r], &[U256::MAX])], S);
        assert_eq!(sum.tokens[0].amount, U256::MAX);
        let given = Effects::of_logs(&[log(&[OWNERSHIP_TRANSFERRED, s, r], &[])], S);
        assert_eq!(given.privileged, [T]);
        assert!(Effects::of_logs(&[log(&[OWNERSHIP_TRANSFERRED, r, s], &[])], S).privileged.is_empty());
    }
}
