//! The functions whose meaning is known, by signature. Pure.
//!
//! Sources: ERC-20, 677, 721, 777, 1155, 1363, 2612, 3009, 4337, 6551, 7579, 7821; OpenZeppelin's AccessControl, Ownable and proxies;
//! Uniswap's Permit2, Multicall and SelfPermit; Multicall 1 to 3; Safe 1.3 to 1.5; DSProxy.

use std::collections::HashMap;
use std::sync::LazyLock;

use alloy::primitives::{Address, U256, keccak256};

use super::abi::{self, Type, Unreadable, Value};
use super::privileged::PRIVILEGED;
use super::{Change, TokenEffect};

/// A call that another one makes.
#[derive(Clone, Debug)]
pub(super) struct Inner<'a> {
    pub target: Address,
    pub value: U256,
    pub data: &'a [u8],
    /// The code runs as the caller: on its storage and with its assets.
    pub delegate: bool,
    /// The contract calls its own functions for whoever called it: the caller stays the same.
    pub for_caller: bool,
}

/// What a call does.
#[derive(Clone, Debug, Default)]
pub(super) struct Meaning<'a> {
    pub tokens: Vec<TokenEffect>,
    pub inner: Vec<Inner<'a>>,
}

type Read = for<'a> fn(Address, &Value<'a>) -> Result<Meaning<'a>, Unreadable>;

/// What there is to know of a function.
pub(super) enum Reader {
    /// Its arguments say what it does.
    Says(Read),
    /// It holds other calls.
    Wraps(Read),
    /// It changes who commands the contract, or its code.
    Privileged,
}

/// A known function.
pub(super) struct Known {
    pub signature: &'static str,
    pub types: Vec<Type>,
    pub reader: Reader,
}

static KNOWN: LazyLock<HashMap<[u8; 4], Known>> = LazyLock::new(|| {
    let says = SAYS.iter().map(|(signature, read)| (*signature, Reader::Says(*read)));
    let wraps = WRAPS.iter().map(|(signature, read)| (*signature, Reader::Wraps(*read)));
    let privileged = PRIVILEGED.iter().map(|signature| (*signature, Reader::Privileged));
    let all = says.chain(wraps).chain(privileged);
    all.filter_map(|(signature, reader)| {
        let types = abi::types_of(signature)?;
        Some((selector(signature), Known { signature, types, reader }))
    })
    .collect()
});

/// The function of a selector.
pub(super) fn known(selector: [u8; 4]) -> Option<&'static Known> {
    KNOWN.get(&selector)
}

fn selector(signature: &str) -> [u8; 4] {
    let [a, b, c, d, ..] = keccak256(signature).0;
    [a, b, c, d]
}

fn effect<'a>(token: Address, change: Change, party: Address, amount: U256) -> Result<Meaning<'a>, Unreadable> {
    Ok(Meaning { tokens: vec![TokenEffect { token, change, party, amount }], ..Meaning::default() })
}

fn operator<'a>(token: Address, party: Address, allowed: bool) -> Result<Meaning<'a>, Unreadable> {
    match allowed {
        true => effect(token, Change::Operator, party, U256::MAX),
        false => effect(token, Change::Revocation, party, U256::ZERO),
    }
}

/// Of a call to a token: the recipient and amount, or spender and amount, at these arguments.
macro_rules! of_token {
    ($change:ident, $party:literal, $amount:literal) => {
        |token, args| effect(token, Change::$change, args.at($party)?.address()?, args.at($amount)?.uint()?)
    };
}

/// One item of an NFT.
const ONE_ITEM: Read = |token, args| effect(token, Change::Transfer, args.at(1)?.address()?, U256::from(1));
/// Takes away from an allowance.
const LESS: Read = |token, args| effect(token, Change::Revocation, args.at(0)?.address()?, U256::ZERO);

/// `(token, amount, …)` to a party.
fn permitted(change: Change, party: Address, detail: &Value<'_>) -> Result<TokenEffect, Unreadable> {
    Ok(TokenEffect { token: detail.at(0)?.address()?, change, party, amount: detail.at(1)?.uint()? })
}

/// Permit2: what was permitted in `(token, amount)[]` or one of it, and the `(to, requested)` of each.
fn permit_transfer<'a>(args: &Value<'a>, batch: bool) -> Result<Meaning<'a>, Unreadable> {
    let (permitted, details) = (args.at(0)?.at(0)?, args.at(1)?);
    let pairs = match batch {
        false => vec![(permitted, details)],
        true if permitted.list()?.len() != details.list()?.len() => {
            return Err(Unreadable("there is not one recipient for each token"));
        }
        true => permitted.list()?.iter().zip(details.list()?).collect(),
    };
    let transfer = |(permitted, detail): (&Value<'a>, &Value<'a>)| {
        let (token, party, amount) = (permitted.at(0)?.address()?, detail.at(0)?.address()?, detail.at(1)?.uint()?);
        Ok(TokenEffect { token, change: Change::Transfer, party, amount })
    };
    Ok(Meaning { tokens: pairs.into_iter().map(transfer).collect::<Result<_, _>>()?, ..Meaning::default() })
}

#[rustfmt::skip]
const SAYS: &[(&str, Read)] = &[
    // ERC-20 and what grew around it. The first three are ERC-721's too, whose item number then stands for the amount.
    ("transfer(address,uint256)", of_token!(Transfer, 0, 1)),
    ("transferFrom(address,address,uint256)", of_token!(Transfer, 1, 2)),
    ("approve(address,uint256)", of_token!(Approval, 0, 1)),
    ("increaseAllowance(address,uint256)", of_token!(Approval, 0, 1)),
    ("increaseApproval(address,uint256)", of_token!(Approval, 0, 1)),
    ("decreaseAllowance(address,uint256)", LESS),
    ("decreaseApproval(address,uint256)", LESS),
    ("burn(uint256)", |token, args| effect(token, Change::Transfer, Address::ZERO, args.at(0)?.uint()?)),
    ("permit(address,address,uint256,uint256,uint8,bytes32,bytes32)", of_token!(Approval, 1, 2)),
    ("permit(address,address,uint256,uint256,bytes)", of_token!(Approval, 1, 2)),
    ("permit(address,address,uint256,uint256,bool,uint8,bytes32,bytes32)",
        |token, args| operator(token, args.at(1)?.address()?, args.at(4)?.bool()?)),
    ("approveAndCall(address,uint256,bytes)", of_token!(Approval, 0, 1)),
    ("approveAndCall(address,uint256)", of_token!(Approval, 0, 1)),
    ("transferAndCall(address,uint256,bytes)", of_token!(Transfer, 0, 1)),
    ("transferAndCall(address,uint256)", of_token!(Transfer, 0, 1)),
    ("transferFromAndCall(address,address,uint256,bytes)", of_token!(Transfer, 1, 2)),
    ("transferFromAndCall(address,address,uint256)", of_token!(Transfer, 1, 2)),
    ("transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)", of_token!(Transfer, 1, 2)),
    ("transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)", of_token!(Transfer, 1, 2)),
    ("receiveWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)", of_token!(Transfer, 1, 2)),
    ("receiveWithAuthorization(address,address,uint256,uint256,uint256,bytes32,bytes)", of_token!(Transfer, 1, 2)),
    ("send(address,uint256,bytes)", of_token!(Transfer, 0, 1)),
    ("authorizeOperator(address)", |token, args| operator(token, args.at(0)?.address()?, true)),
    ("revokeOperator(address)", |token, args| operator(token, args.at(0)?.address()?, false)),
    // ERC-721 and 1155.
    ("setApprovalForAll(address,bool)", |token, args| operator(token, args.at(0)?.address()?, args.at(1)?.bool()?)),
    ("safeTransferFrom(address,address,uint256)", ONE_ITEM),
    ("safeTransferFrom(address,address,uint256,bytes)", ONE_ITEM),
    ("safeTransferFrom(address,address,uint256,uint256,bytes)", of_token!(Transfer, 1, 3)),
    ("safeBatchTransferFrom(address,address,uint256[],uint256[],bytes)", |token, args| {
        let amounts = args.at(3)?.list()?;
        if amounts.len() != args.at(2)?.list()?.len() {
            return Err(Unreadable("there is not one amount for each item"));
        }
        let sum = amounts.iter().try_fold(U256::ZERO, |sum, amount| Ok(sum.saturating_add(amount.uint()?)))?;
        effect(token, Change::Transfer, args.at(1)?.address()?, sum)
    }),
    // Permit2.
    ("approve(address,address,uint160,uint48)",
        |_, args| effect(args.at(0)?.address()?, Change::Approval, args.at(1)?.address()?, args.at(2)?.uint()?)),
    ("permit(address,((address,uint160,uint48,uint48),address,uint256),bytes)", |_, args| {
        let permit = args.at(1)?;
        let tokens = vec![permitted(Change::Approval, permit.at(1)?.address()?, permit.at(0)?)?];
        Ok(Meaning { tokens, ..Meaning::default() })
    }),
    ("permit(address,((address,uint160,uint48,uint48)[],address,uint256),bytes)", |_, args| {
        let permit = args.at(1)?;
        let spender = permit.at(1)?.address()?;
        let tokens = permit.at(0)?.list()?.iter().map(|detail| permitted(Change::Approval, spender, detail));
        Ok(Meaning { tokens: tokens.collect::<Result<_, _>>()?, ..Meaning::default() })
    }),
    ("transferFrom(address,address,uint160,address)",
        |_, args| effect(args.at(3)?.address()?, Change::Transfer, args.at(1)?.address()?, args.at(2)?.uint()?)),
    ("transferFrom((address,address,uint160,address)[])", |_, args| {
        let transfer = |detail: &Value<'_>| {
            let (party, amount) = (detail.at(1)?.address()?, detail.at(2)?.uint()?);
            Ok(TokenEffect { token: detail.at(3)?.address()?, change: Change::Transfer, party, amount })
        };
        Ok(Meaning { tokens: args.at(0)?.list()?.iter().map(transfer).collect::<Result<_, _>>()?, ..Meaning::default() })
    }),
    ("permitTransferFrom(((address,uint256),uint256,uint256),(address,uint256),address,bytes)",
        |_, args| permit_transfer(args, false)),
    ("permitTransferFrom(((address,uint256)[],uint256,uint256),(address,uint256)[],address,bytes)",
        |_, args| permit_transfer(args, true)),
    ("permitWitnessTransferFrom(((address,uint256),uint256,uint256),(address,uint256),address,bytes32,string,bytes)",
        |_, args| permit_transfer(args, false)),
    ("permitWitnessTransferFrom(((address,uint256)[],uint256,uint256),(address,uint256)[],address,bytes32,string,bytes)",
        |_, args| permit_transfer(args, true)),
    ("lockdown((address,address)[])", |_, args| {
        let less = |pair: &Value<'_>| {
            let (token, party) = (pair.at(0)?.address()?, pair.at(1)?.address()?);
            Ok(TokenEffect { token, change: Change::Revocation, party, amount: U256::ZERO })
        };
        Ok(Meaning { tokens: args.at(0)?.list()?.iter().map(less).collect::<Result<_, _>>()?, ..Meaning::default() })
    }),
    // Permits inside a router's batch: the router itself is the spender.
    ("selfPermit(address,uint256,uint256,uint8,bytes32,bytes32)", SELF_PERMIT),
    ("selfPermitIfNecessary(address,uint256,uint256,uint8,bytes32,bytes32)", SELF_PERMIT),
    ("selfPermitAllowed(address,uint256,uint256,uint8,bytes32,bytes32)", SELF_PERMIT_ALL),
    ("selfPermitAllowedIfNecessary(address,uint256,uint256,uint8,bytes32,bytes32)", SELF_PERMIT_ALL),
];

const SELF_PERMIT: Read = |router, args| effect(args.at(0)?.address()?, Change::Approval, router, args.at(1)?.uint()?);
const SELF_PERMIT_ALL: Read = |router, args| operator(args.at(0)?.address()?, router, true);

fn wraps<'a>(inner: impl Iterator<Item = Result<Inner<'a>, Unreadable>>) -> Result<Meaning<'a>, Unreadable> {
    Ok(Meaning { inner: inner.collect::<Result<_, _>>()?, ..Meaning::default() })
}

fn call(target: Address, value: U256, data: &[u8]) -> Inner<'_> {
    Inner { target, value, data, delegate: false, for_caller: false }
}

/// A batch of calls to the contract itself.
fn own_calls<'a>(this: Address, list: &Value<'a>) -> Result<Meaning<'a>, Unreadable> {
    wraps(list.list()?.iter().map(|data| Ok(Inner { for_caller: true, ..call(this, U256::ZERO, data.bytes()?) })))
}

/// `(target, …, data)[]`, with the value at its place where it has one.
fn batch<'a>(this: Address, list: &Value<'a>, value: Option<usize>) -> Result<Meaning<'a>, Unreadable> {
    let mut inner = Vec::new();
    for member in list.list()? {
        let data = member.list()?.last().ok_or(Unreadable("a call is missing"))?.bytes()?;
        let value = value.map_or(Ok(U256::ZERO), |at| member.at(at)?.uint())?;
        with_self(&mut inner, this, call(member.at(0)?.address()?, value, data));
    }
    Ok(Meaning { inner, ..Meaning::default() })
}

/// ERC-7821 and the newer MultiSends call themselves where no target is given, others burn what they send there: it is taken as both.
fn with_self<'a>(inner: &mut Vec<Inner<'a>>, this: Address, call: Inner<'a>) {
    if call.target.is_zero() {
        inner.push(Inner { target: this, ..call.clone() });
    }
    inner.push(call);
}

/// `target, value, data, operation` of a Safe and of its modules: 0 calls, 1 delegates.
fn operation<'a>(_: Address, args: &Value<'a>) -> Result<Meaning<'a>, Unreadable> {
    let delegate = match args.at(3)?.uint()?.try_into() {
        Ok(0u8) => false,
        Ok(1u8) => true,
        _ => return Err(Unreadable("the operation is neither a call nor a delegatecall")),
    };
    let inner = call(args.at(0)?.address()?, args.at(1)?.uint()?, args.at(2)?.bytes()?);
    wraps(std::iter::once(Ok(Inner { delegate, ..inner })))
}

/// Safe's `execTransaction`. A gas refund pays somebody an amount that the calldata does not say.
const EXEC_TRANSACTION: Read = |this, args| {
    if !args.at(6)?.uint()?.is_zero() {
        return Err(Unreadable("the Safe would refund gas to somebody"));
    }
    operation(this, args)
};

/// MultiSend: operation (1 byte), target (20), value (32), length (32) and data, one after the other without padding.
const MULTI_SEND: Read = |this, args| {
    let mut rest = args.at(0)?.bytes()?;
    let mut inner = Vec::new();
    while !rest.is_empty() {
        const SHORT: Unreadable = Unreadable("a packed call is cut off");
        let (head, after) = rest.split_first_chunk::<85>().ok_or(SHORT)?;
        let len: usize = U256::from_be_slice(&head[53..]).try_into().map_err(|_| SHORT)?;
        let data = after.get(..len).ok_or(SHORT)?;
        rest = &after[len..];
        let delegate = match head[0] {
            0 => false,
            1 => true,
            _ => return Err(Unreadable("the operation is neither a call nor a delegatecall")),
        };
        let packed = call(Address::from_slice(&head[1..21]), U256::from_be_slice(&head[21..53]), data);
        with_self(&mut inner, this, Inner { delegate, ..packed });
    }
    Ok(Meaning { inner, ..Meaning::default() })
};

/// ERC-7579's and ERC-7821's `execute(mode, executionData)`: the mode's first byte says single, batch or delegate.
const EXECUTE_BY_MODE: Read = |this, args| {
    let (mode, data) = (args.at(0)?.fixed()?, args.at(1)?.bytes()?);
    const SHORT: Unreadable = Unreadable("a packed call is cut off");
    match mode[0] {
        0x00 => {
            let (head, calldata) = data.split_first_chunk::<52>().ok_or(SHORT)?;
            let inner = call(Address::from_slice(&head[..20]), U256::from_be_slice(&head[20..]), calldata);
            wraps(std::iter::once(Ok(inner)))
        }
        // A batch of batches has the same first byte.
        0x01 if mode[6..10] != [0x78, 0x21, 0x00, 0x02] => {
            let types = [Type::Array(Box::new(Type::Tuple(vec![Type::Address, Type::Uint(256), Type::Bytes])))];
            batch(this, abi::decode(&types, data, &mut abi::Budget::small())?.at(0)?, Some(1))
        }
        0xff => {
            let (head, calldata) = data.split_first_chunk::<20>().ok_or(SHORT)?;
            let inner = Inner { delegate: true, ..call(Address::from_slice(head), U256::ZERO, calldata) };
            wraps(std::iter::once(Ok(inner)))
        }
        _ => Err(Unreadable("the mode of execution is not known")),
    }
};

/// `targets[], [values[],] datas[]`.
fn columns<'a>(args: &Value<'a>, has_values: bool) -> Result<Meaning<'a>, Unreadable> {
    let (targets, datas) = (args.at(0)?.list()?, args.at(if has_values { 2 } else { 1 })?.list()?);
    let values: &[Value<'a>] = if has_values { args.at(1)?.list()? } else { &[] };
    // Some accounts take an empty list of values for none at all.
    if targets.len() != datas.len() || (!values.is_empty() && values.len() != targets.len()) {
        return Err(Unreadable("there is not one of each for every call"));
    }
    wraps(targets.iter().zip(datas).enumerate().map(|(index, (target, data))| {
        let value = values.get(index).map_or(Ok(U256::ZERO), Value::uint)?;
        Ok(call(target.address()?, value, data.bytes()?))
    }))
}

/// `EntryPoint.handleOps` (ERC-4337): each account is called with what it is asked. It pays the bundler for the gas if a fee is set, an
/// amount that the calldata does not say; `fees` are where the fees stand.
fn user_operations<'a>(args: &Value<'a>, fees: &[usize]) -> Result<Meaning<'a>, Unreadable> {
    wraps(args.at(0)?.list()?.iter().map(|operation| {
        for at in fees {
            let fee = operation.at(*at)?;
            if !fee.uint().or_else(|_| fee.fixed().map(U256::from_be_bytes))?.is_zero() {
                return Err(Unreadable("the account would pay somebody for gas"));
            }
        }
        Ok(call(operation.at(0)?.address()?, U256::ZERO, operation.at(3)?.bytes()?))
    }))
}

/// Holds calls that are not looked for.
const OPAQUE: Read = |_, _| Err(Unreadable("what it would run is not read"));

#[rustfmt::skip]
const WRAPS: &[(&str, Read)] = &[
    ("multicall(bytes[])", |this, args| own_calls(this, args.at(0)?)),
    ("multicall(uint256,bytes[])", |this, args| own_calls(this, args.at(1)?)),
    ("multicall(bytes32,bytes[])", |this, args| own_calls(this, args.at(1)?)),
    ("batch(bytes[],bool)", |this, args| own_calls(this, args.at(0)?)),
    ("aggregate((address,bytes)[])", |this, args| batch(this, args.at(0)?, None)),
    ("blockAndAggregate((address,bytes)[])", |this, args| batch(this, args.at(0)?, None)),
    ("tryAggregate(bool,(address,bytes)[])", |this, args| batch(this, args.at(1)?, None)),
    ("tryBlockAndAggregate(bool,(address,bytes)[])", |this, args| batch(this, args.at(1)?, None)),
    ("aggregate3((address,bool,bytes)[])", |this, args| batch(this, args.at(0)?, None)),
    ("aggregate3Value((address,bool,uint256,bytes)[])", |this, args| batch(this, args.at(0)?, Some(2))),
    ("execute(address,uint256,bytes)",
        |_, args| wraps(std::iter::once(Ok(call(args.at(0)?.address()?, args.at(1)?.uint()?, args.at(2)?.bytes()?))))),
    ("execute((address,uint256,bytes)[])", |this, args| batch(this, args.at(0)?, Some(1))),
    ("executeBatch((address,uint256,bytes)[])", |this, args| batch(this, args.at(0)?, Some(1))),
    ("executeBatch(address[],bytes[])", |_, args| columns(args, false)),
    ("executeBatch(address[],uint256[],bytes[])", |_, args| columns(args, true)),
    ("execute(bytes32,bytes)", EXECUTE_BY_MODE),
    ("executeFromExecutor(bytes32,bytes)", EXECUTE_BY_MODE),
    ("execute(address,uint256,bytes,uint8)", operation),
    ("execute(address,uint256,bytes,uint256)", operation),
    ("executeCall(address,uint256,bytes)",
        |_, args| wraps(std::iter::once(Ok(call(args.at(0)?.address()?, args.at(1)?.uint()?, args.at(2)?.bytes()?))))),
    // DSProxy runs the code as itself.
    ("execute(address,bytes)", |_, args| {
        let inner = call(args.at(0)?.address()?, U256::ZERO, args.at(1)?.bytes()?);
        wraps(std::iter::once(Ok(Inner { delegate: true, ..inner })))
    }),
    ("execute(bytes,bytes)", OPAQUE),
    ("handleOps((address,uint256,bytes,bytes,uint256,uint256,uint256,uint256,uint256,bytes,bytes)[],address)",
        |_, args| user_operations(args, &[7, 8])),
    ("handleOps((address,uint256,bytes,bytes,bytes32,uint256,bytes32,bytes,bytes)[],address)",
        |_, args| user_operations(args, &[6])),
    ("handleAggregatedOps(((address,uint256,bytes,bytes,uint256,uint256,uint256,uint256,uint256,bytes,bytes)[],address,bytes)[],address)", OPAQUE),
    ("handleAggregatedOps(((address,uint256,bytes,bytes,bytes32,uint256,bytes32,bytes,bytes)[],address,bytes)[],address)", OPAQUE),
    ("execTransaction(address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,bytes)", EXEC_TRANSACTION),
    ("execTransactionFromModule(address,uint256,bytes,uint8)", operation),
    ("execTransactionFromModuleReturnData(address,uint256,bytes,uint8)", operation),
    (MULTI_SEND_SIGNATURE, MULTI_SEND),
];

/// The one function that is understood also when it is delegated to: it is made for that.
pub(super) const MULTI_SEND_SIGNATURE: &str = "multiSend(bytes)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signature_is_well_formed_and_no_two_share_a_selector() {
        let all = SAYS.iter().chain(WRAPS).map(|(signature, _)| *signature).chain(PRIVILEGED.iter().copied());
        let mut count = 0;
        for signature in all {
            assert!(abi::types_of(signature).is_some(), "{signature}");
            assert_eq!(known(selector(signature)).expect(signature).signature, signature);
            count += 1;
        }
        assert_eq!(KNOWN.len(), count);
    }

    #[test]
    fn selectors_are_the_ones_that_everybody_knows() {
        for (signature, expected) in [
            ("transfer(address,uint256)", "a9059cbb"),
            ("approve(address,uint256)", "095ea7b3"),
            ("setApprovalForAll(address,bool)", "a22cb465"),
            ("permit(address,address,uint256,uint256,uint8,bytes32,bytes32)", "d505accf"),
            ("permit(address,((address,uint160,uint48,uint48),address,uint256),bytes)", "2b67b570"),
            ("multicall(bytes[])", "ac9650d8"),
            ("aggregate3((address,bool,bytes)[])", "82ad56cb"),
            ("execTransaction(address,uint256,bytes,uint8,uint256,uint256,uint256,address,address,bytes)", "6a761202"),
            ("multiSend(bytes)", "8d80ff0a"),
            ("upgradeToAndCall(address,bytes)", "4f1ef286"),
        ] {
            assert_eq!(hex::encode(selector(signature)), expected, "{signature}");
            assert!(known(selector(signature)).is_some());
        }
    }
}
