//! Through batches and wallets to the calls inside them. Pure, and bounded: calls, depth and bytes that are looked at have limits, and
//! what lies beyond them is unreadable, which is never taken for harmless.

use alloy::primitives::{Address, U256};

use super::abi::{self, Budget};
use super::known::{self, Inner, Reader};
use super::{Call, Calls, Kind};

/// Calls that are looked at, the transaction's own included.
pub const CALLS_MAX: usize = 256;
/// Wrappings that are unpacked.
pub const DEPTH_MAX: usize = 6;
/// Bytes of inner calldata that are looked at, over all calls: offsets may point at the same bytes again and again.
const BYTES_MAX: usize = 4 << 20;

/// Reads what a transaction to `to` with `value` (wei) and `data` does, as far as its calldata tells.
#[must_use]
pub fn read(to: Address, value: U256, data: &[u8]) -> Calls {
    let mut walk = Walk { found: Calls::default(), budget: Budget::default(), bytes: BYTES_MAX };
    let own = Inner { target: to, value, data, delegate: false, for_caller: false };
    walk.found.native = walk.call(&own, to, None, 0);
    walk.found
}

struct Walk {
    found: Calls,
    budget: Budget,
    bytes: usize,
}

impl Walk {
    /// Looks at one call, made by or, for a delegatecall, running as `caller`; `by` is the account that makes it where that is not the
    /// signer. Returns the native value that leaves by it: its own, or more where its inner calls pay from what the contract has.
    fn call(&mut self, call: &Inner<'_>, caller: Address, by: Option<Address>, depth: usize) -> U256 {
        let selector = call.data.first_chunk::<4>().copied();
        let at = self.found.calls.len();
        let privileged = call.delegate.then_some("delegatecall");
        self.found.calls.push(Call {
            target: call.target,
            value: call.value,
            selector,
            kind: Kind::Unknown,
            privileged,
            by,
        });
        if call.data.is_empty() {
            self.found.calls[at].kind = if call.delegate { Kind::Unknown } else { Kind::Plain };
            return call.value;
        }
        let Some(known) = selector.and_then(known::known) else { return call.value };
        if call.delegate && known.signature != known::MULTI_SEND_SIGNATURE {
            return call.value;
        }
        let read = match &known.reader {
            // Whoever may do that at all may do it with any arguments.
            Reader::Privileged => {
                self.found.calls[at].privileged = Some(known.signature);
                return call.value;
            }
            Reader::Says(read) | Reader::Wraps(read) => read,
        };
        let this = if call.delegate { caller } else { call.target };
        let args = abi::decode(&known.types, &call.data[4..], &mut self.budget);
        let meaning = match args.and_then(|args| read(this, &args)) {
            Ok(meaning) => meaning,
            Err(why) => {
                self.unreadable(at, why.0, matches!(known.reader, Reader::Wraps(_)));
                return call.value;
            }
        };
        self.found.calls[at].kind = Kind::Understood;
        self.found.tokens.extend(meaning.tokens);
        let mut paid = U256::ZERO;
        for inner in &meaning.inner {
            let Some(left) = self.bytes.checked_sub(inner.data.len()).filter(|_| depth < DEPTH_MAX) else {
                self.unreadable(at, "calls are nested too deep, or there is too much of them", true);
                break;
            };
            self.bytes = left;
            if self.found.calls.len() >= CALLS_MAX {
                self.unreadable(at, "it holds too many calls", true);
                break;
            }
            let by = if inner.for_caller { by } else { Some(this) };
            paid = paid.saturating_add(self.call(inner, this, by, depth + 1));
        }
        call.value.max(paid)
    }

    /// A call of which nothing is believed. One that may hold others may hold privileged ones.
    fn unreadable(&mut self, at: usize, why: &'static str, wraps: bool) {
        let call = &mut self.found.calls[at];
        call.kind = Kind::Unreadable(why);
        if wraps && call.privileged.is_none() {
            call.privileged = Some("a batch or wallet call that cannot be read");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Change, TokenEffect};
    use super::*;
    use alloy::primitives::{Bytes, address};
    use alloy::sol;
    use alloy::sol_types::SolCall;
    use proptest::prelude::*;

    sol! {
        struct Call3 { address target; bool allowFailure; bytes callData; }
        struct Call3Value { address target; bool allowFailure; uint256 value; bytes callData; }
        struct Execution { address target; uint256 value; bytes data; }
        struct Details { address token; uint160 amount; uint48 expiration; uint48 nonce; }
        struct PermitSingle { Details details; address spender; uint256 sigDeadline; }
        struct PermitBatch { Details[] details; address spender; uint256 sigDeadline; }
        struct Allowed { address token; uint256 amount; }
        struct PermitTransfer { Allowed permitted; uint256 nonce; uint256 deadline; }
        struct PermitTransferBatch { Allowed[] permitted; uint256 nonce; uint256 deadline; }
        struct To { address to; uint256 requested; }
        struct AllowanceTransfer { address from; address to; uint160 amount; address token; }
        interface Erc20 {
            function transfer(address to, uint256 amount);
            function transferFrom(address from, address to, uint256 amount);
            function approve(address spender, uint256 amount);
            function increaseAllowance(address spender, uint256 amount);
            function decreaseAllowance(address spender, uint256 amount);
            function permit(address owner, address spender, uint256 value, uint256 deadline, uint8 v, bytes32 r, bytes32 s);
            function transferWithAuthorization(address from, address to, uint256 value, uint256 a, uint256 b, bytes32 n, uint8 v, bytes32 r, bytes32 s);
        }
        interface Dai {
            function permit(address holder, address spender, uint256 nonce, uint256 expiry, bool allowed, uint8 v, bytes32 r, bytes32 s);
        }
        interface Nft {
            function setApprovalForAll(address operator, bool allowed);
            function safeTransferFrom(address from, address to, uint256 id);
        }
        interface Nft2 { function safeTransferFrom(address from, address to, uint256 id, bytes data); }
        interface Multi {
            function safeTransferFrom(address from, address to, uint256 id, uint256 amount, bytes data);
            function safeBatchTransferFrom(address from, address to, uint256[] ids, uint256[] amounts, bytes data);
        }
        interface Permit2 {
            function approve(address token, address spender, uint160 amount, uint48 expiration);
            function permit(address owner, PermitSingle single, bytes signature);
            function transferFrom(address from, address to, uint160 amount, address token);
            function permitTransferFrom(PermitTransfer permit, To details, address owner, bytes signature);
        }
        interface Permit2Batch {
            function permit(address owner, PermitBatch batch, bytes signature);
            function transferFrom(AllowanceTransfer[] details);
            function permitTransferFrom(PermitTransferBatch permit, To[] details, address owner, bytes signature);
        }
        struct PackedOp { address sender; uint256 nonce; bytes initCode; bytes callData; bytes32 limits; uint256 gas; bytes32 fees; bytes paymaster; bytes signature; }
        struct PlainOp { address sender; uint256 nonce; bytes initCode; bytes callData; uint256 a; uint256 b; uint256 c; uint256 maxFee; uint256 tip; bytes paymaster; bytes signature; }
        interface Packed7 { function handleOps(PackedOp[] ops, address beneficiary); }
        interface Plain6 { function handleOps(PlainOp[] ops, address beneficiary); }
        interface Ds { function execute(address target, bytes data); }
        interface Bound { function executeCall(address to, uint256 value, bytes data); }
        function multicall(bytes[] calls);
        function aggregate3(Call3[] calls);
        function aggregate3Value(Call3Value[] calls);
        function multiSend(bytes transactions);
        function executeBatch(Execution[] calls);
        function execute(bytes32 mode, bytes executionData);
        function execTransaction(
            address to, uint256 value, bytes data, uint8 operation, uint256 safeTxGas, uint256 baseGas, uint256 gasPrice,
            address gasToken, address refundReceiver, bytes signatures);
    }

    const X: Address = address!("00000000000000000000000000000000000000a1");
    const T: Address = address!("00000000000000000000000000000000000000a2");
    const P: Address = address!("00000000000000000000000000000000000000a3");
    const O: Address = address!("00000000000000000000000000000000000000a4");

    fn n(n: u64) -> U256 {
        U256::from(n)
    }

    fn data(call: &impl SolCall) -> Bytes {
        call.abi_encode().into()
    }

    fn send() -> Bytes {
        data(&Erc20::transferCall { to: P, amount: n(7) })
    }

    fn exec(to: Address, value: u64, data: Bytes, operation: u8, gas_price: u64) -> execTransactionCall {
        execTransactionCall {
            to,
            value: n(value),
            data,
            operation,
            safeTxGas: n(0),
            baseGas: n(0),
            gasPrice: n(gas_price),
            gasToken: O,
            refundReceiver: O,
            signatures: Bytes::new(),
        }
    }

    fn packed(calls: &[(u8, Address, u64, &[u8])]) -> Bytes {
        let one = |(operation, to, value, data): &(u8, Address, u64, &[u8])| {
            [
                &[*operation][..],
                to.as_slice(),
                &n(*value).to_be_bytes::<32>(),
                &n(data.len() as u64).to_be_bytes::<32>(),
                data,
            ]
            .concat()
        };
        calls.iter().flat_map(one).collect::<Vec<u8>>().into()
    }

    #[test]
    fn threat_16_every_standard_way_to_move_or_approve_a_token_is_read() {
        fn sig<T: Default>() -> T {
            T::default()
        }
        let (r, s) = (sig(), sig());
        let details = Details { token: T, amount: alloy::primitives::Uint::from(7), expiration: sig(), nonce: sig() };
        let permitted = Allowed { token: T, amount: n(9) };
        let to = To { to: P, requested: n(7) };
        let allowance = AllowanceTransfer { from: O, to: P, amount: alloy::primitives::Uint::from(7), token: T };
        let permit = Erc20::permitCall { owner: O, spender: P, value: n(7), deadline: n(1), v: 27, r, s };
        let dai = |allowed| Dai::permitCall { holder: O, spender: P, nonce: n(1), expiry: n(1), allowed, v: 27, r, s };
        let x402 = Erc20::transferWithAuthorizationCall {
            from: O,
            to: P,
            value: n(7),
            a: n(0),
            b: n(1),
            n: sig(),
            v: 27,
            r,
            s,
        };
        let batch = Multi::safeBatchTransferFromCall {
            from: O,
            to: P,
            ids: vec![n(1), n(2)],
            amounts: vec![n(3), n(4)],
            data: sig(),
        };
        let pull = |permitted| PermitTransfer { permitted, nonce: n(0), deadline: n(1) };
        let of_permit2 = [
            (
                data(&Permit2::approveCall { token: T, spender: P, amount: details.amount, expiration: sig() }),
                Change::Approval,
            ),
            (
                data(&Permit2::permitCall {
                    owner: O,
                    single: PermitSingle { details: details.clone(), spender: P, sigDeadline: n(1) },
                    signature: sig(),
                }),
                Change::Approval,
            ),
            (
                data(&Permit2Batch::permitCall {
                    owner: O,
                    batch: PermitBatch { details: vec![details], spender: P, sigDeadline: n(1) },
                    signature: sig(),
                }),
                Change::Approval,
            ),
            (data(&Permit2::transferFromCall { from: O, to: P, amount: allowance.amount, token: T }), Change::Transfer),
            (data(&Permit2Batch::transferFromCall { details: vec![allowance] }), Change::Transfer),
            (
                data(&Permit2::permitTransferFromCall {
                    permit: pull(permitted.clone()),
                    details: to.clone(),
                    owner: O,
                    signature: sig(),
                }),
                Change::Transfer,
            ),
            (
                data(&Permit2Batch::permitTransferFromCall {
                    permit: PermitTransferBatch { permitted: vec![permitted], nonce: n(0), deadline: n(1) },
                    details: vec![to],
                    owner: O,
                    signature: sig(),
                }),
                Change::Transfer,
            ),
        ];
        let of_token = [
            (send(), Change::Transfer, n(7)),
            (data(&Erc20::transferFromCall { from: O, to: P, amount: n(7) }), Change::Transfer, n(7)),
            (data(&Erc20::approveCall { spender: P, amount: n(7) }), Change::Approval, n(7)),
            (data(&Erc20::increaseAllowanceCall { spender: P, amount: n(7) }), Change::Approval, n(7)),
            (data(&Erc20::decreaseAllowanceCall { spender: P, amount: n(7) }), Change::Revocation, n(0)),
            (data(&permit), Change::Approval, n(7)),
            (data(&dai(true)), Change::Operator, U256::MAX),
            (data(&dai(false)), Change::Revocation, n(0)),
            (data(&x402), Change::Transfer, n(7)),
            (data(&Nft::setApprovalForAllCall { operator: P, allowed: true }), Change::Operator, U256::MAX),
            (data(&Nft::setApprovalForAllCall { operator: P, allowed: false }), Change::Revocation, n(0)),
            (data(&Nft::safeTransferFromCall { from: O, to: P, id: n(99) }), Change::Transfer, n(1)),
            (data(&Nft2::safeTransferFromCall { from: O, to: P, id: n(99), data: sig() }), Change::Transfer, n(1)),
            (
                data(&Multi::safeTransferFromCall { from: O, to: P, id: n(99), amount: n(7), data: sig() }),
                Change::Transfer,
                n(7),
            ),
            (data(&batch), Change::Transfer, n(7)),
        ];
        let of_permit2 = of_permit2.into_iter().map(|(data, change)| (X, data, change, n(7)));
        for (target, data, change, amount) in of_token.into_iter().map(|(d, c, a)| (T, d, c, a)).chain(of_permit2) {
            let expected = TokenEffect { token: T, change, party: P, amount };
            let direct = read(target, U256::ZERO, &data);
            assert!(direct.understood(), "{data}");
            assert_eq!(direct.tokens, [expected], "{data}");
            // And wherever it hides.
            let aggregate = Call3 { target, allowFailure: true, callData: data.clone() };
            let hidden = [
                (target, self::data(&multicallCall { calls: vec![data.clone()] })),
                (X, self::data(&aggregate3Call { calls: vec![aggregate] })),
                (X, self::data(&exec(target, 0, data.clone(), 0, 0))),
                (X, self::data(&multiSendCall { transactions: packed(&[(0, target, 0, &data)]) })),
                (
                    X,
                    self::data(&executeBatchCall {
                        calls: vec![Execution { target, value: n(0), data: data.clone() }],
                    }),
                ),
            ];
            for (to, wrapped) in hidden {
                let found = read(to, U256::ZERO, &wrapped);
                assert!(found.understood(), "{wrapped}");
                assert_eq!(found.tokens, [expected], "{wrapped}");
            }
        }
    }

    #[test]
    fn threat_17_value_is_found_wherever_it_is_paid_from() {
        let call = |value: u64| Call3Value { target: P, allowFailure: false, value: n(value), callData: Bytes::new() };
        let batch = data(&aggregate3ValueCall { calls: vec![call(3), call(4)] });
        assert_eq!(read(X, n(7), &batch).native, n(7));
        assert_eq!(read(X, n(9), &batch).native, n(9));
        // From what a wallet has, the transaction itself carries nothing.
        let inside =
            exec(X, 0, data(&multiSendCall { transactions: packed(&[(0, P, 5, &[]), (0, P, 6, &send())]) }), 0, 0);
        let found = read(O, U256::ZERO, &data(&inside));
        assert_eq!(found.native, n(11));
        assert_eq!(
            found.calls.iter().map(|call| (call.target, call.value)).collect::<Vec<_>>(),
            [(O, n(0)), (X, n(0)), (P, n(5)), (P, n(6)),]
        );
        assert_eq!(
            read(
                X,
                U256::ZERO,
                &data(&aggregate3ValueCall { calls: vec![Call3Value { value: U256::MAX, ..call(1) }, call(1)] })
            )
            .native,
            U256::MAX
        );
    }

    #[test]
    fn threat_17_modes_of_execution_are_read_or_not_believed() {
        let mode = |head: &[u8]| {
            let mut mode = [0u8; 32];
            mode[..head.len()].copy_from_slice(head);
            mode.into()
        };
        let single = [T.as_slice(), &n(2).to_be_bytes::<32>(), &send()].concat();
        let found = read(X, U256::ZERO, &data(&executeCall { mode: mode(&[0]), executionData: single.into() }));
        assert_eq!((found.tokens.len(), found.native), (1, n(2)));
        // A batch, with a call to the account itself by the zero address.
        let calls = vec![
            Execution { target: T, value: n(0), data: send() },
            Execution { target: Address::ZERO, value: n(1), data: Bytes::new() },
        ];
        let encoded = alloy::sol_types::SolValue::abi_encode(&calls);
        for head in [&[1][..], &[1, 0, 0, 0, 0, 0, 0x78, 0x21, 0, 1]] {
            let found =
                read(X, U256::ZERO, &data(&executeCall { mode: mode(head), executionData: encoded.clone().into() }));
            assert_eq!(found.tokens.len(), 1);
            assert_eq!(found.calls[2..].iter().map(|call| call.target).collect::<Vec<_>>(), [X, Address::ZERO]);
        }
        let delegate = [T.as_slice(), &send()].concat();
        let found = read(X, U256::ZERO, &data(&executeCall { mode: mode(&[0xff]), executionData: delegate.into() }));
        assert_eq!((found.understood(), found.calls[1].privileged), (false, Some("delegatecall")));
        for head in [&[2][..], &[1, 0, 0, 0, 0, 0, 0x78, 0x21, 0, 2]] {
            let found =
                read(X, U256::ZERO, &data(&executeCall { mode: mode(head), executionData: encoded.clone().into() }));
            assert!(matches!(found.calls[0].kind, Kind::Unreadable(_)) && found.calls[0].privileged.is_some());
        }
    }

    #[test]
    fn threat_17_proxies_bound_accounts_and_user_operations_are_wallets() {
        let bound = data(&Bound::executeCallCall { to: T, value: n(3), data: send() });
        let found = read(O, U256::ZERO, &bound);
        assert_eq!((found.tokens.len(), found.native, found.calls[1].by), (1, n(3), Some(O)));
        let proxy = read(O, U256::ZERO, &data(&Ds::executeCall { target: T, data: send() }));
        assert_eq!((proxy.understood(), proxy.calls[1].privileged), (false, Some("delegatecall")));
        let packed = |fee: u64| PackedOp {
            sender: O,
            nonce: n(0),
            initCode: Bytes::new(),
            callData: bound.clone(),
            limits: Default::default(),
            gas: n(0),
            fees: n(fee).into(),
            paymaster: Bytes::new(),
            signature: Bytes::new(),
        };
        let plain = |fee: u64| PlainOp {
            sender: O,
            nonce: n(0),
            initCode: Bytes::new(),
            callData: bound.clone(),
            a: n(0),
            b: n(0),
            c: n(0),
            maxFee: n(fee),
            tip: n(0),
            paymaster: Bytes::new(),
            signature: Bytes::new(),
        };
        let both = |fee| {
            [
                data(&Packed7::handleOpsCall { ops: vec![packed(fee)], beneficiary: P }),
                data(&Plain6::handleOpsCall { ops: vec![plain(fee)], beneficiary: P }),
            ]
        };
        for calldata in both(0) {
            let found = read(X, U256::ZERO, &calldata);
            assert!(found.understood());
            assert_eq!(
                (found.tokens.len(), found.native, found.calls[1].by, found.calls[2].by),
                (1, n(3), Some(X), Some(O))
            );
        }
        for calldata in both(1) {
            assert!(matches!(read(X, U256::ZERO, &calldata).calls[0].kind, Kind::Unreadable(_)));
        }
    }

    #[test]
    fn threat_18_a_delegatecall_is_privileged_and_what_it_holds_is_found() {
        let many = data(&multiSendCall { transactions: packed(&[(0, T, 0, &send()), (1, T, 0, &send())]) });
        let found = read(O, U256::ZERO, &data(&exec(X, 0, many, 1, 0)));
        let flags: Vec<bool> = found.calls.iter().map(|call| call.privileged.is_some()).collect();
        assert_eq!(flags, [false, true, false, true]);
        assert_eq!(found.tokens.len(), 1, "code of a token that runs as the Safe moves no token");
        assert!(!found.understood());
        // A refund pays an amount that nobody can tell.
        let refund = read(O, U256::ZERO, &data(&exec(T, 0, send(), 0, 1)));
        assert!(matches!(refund.calls[0].kind, Kind::Unreadable(_)) && refund.tokens.is_empty());
        let odd = read(O, U256::ZERO, &data(&exec(T, 0, send(), 2, 0)));
        assert!(matches!(odd.calls[0].kind, Kind::Unreadable(_)));
    }

    #[test]
    fn threat_17_depth_and_number_are_bounded_and_the_rest_is_not_believed() {
        let mut nested = send();
        for depth in 1..=DEPTH_MAX + 2 {
            nested = data(&multicallCall { calls: vec![nested] });
            let found = read(T, U256::ZERO, &nested);
            assert_eq!(found.understood(), depth <= DEPTH_MAX, "{depth}");
            assert_eq!(found.tokens.len(), usize::from(depth <= DEPTH_MAX));
        }
        let many = read(T, U256::ZERO, &data(&multicallCall { calls: vec![send(); CALLS_MAX] }));
        assert!(!many.understood() && many.calls.len() == CALLS_MAX && many.calls[0].privileged.is_some());
        // Offsets that all point at the same bytes: a list of lists of lists.
        let words = |n: u64| U256::from(n).to_be_bytes::<32>();
        let mut bomb = vec![];
        for _ in 0..DEPTH_MAX {
            let inner = [&multicallCall::SELECTOR[..], &bomb].concat();
            let count = 200u64;
            let mut next = [words(32), words(count)].concat();
            (0..count).for_each(|_| next.extend(words(32 * count)));
            next.extend(words(inner.len() as u64));
            next.extend(inner);
            bomb = next;
        }
        let bomb = read(T, U256::ZERO, &[&multicallCall::SELECTOR[..], &bomb].concat());
        assert!(!bomb.understood() && bomb.calls.len() <= CALLS_MAX);
    }

    /// Bytes that look like calldata: known selectors, small words, addresses.
    fn hostile() -> impl Strategy<Value = Vec<u8>> {
        let word = prop_oneof![
            (0u64..400).prop_map(|n| U256::from(n).to_be_bytes::<32>().to_vec()),
            any::<[u8; 20]>().prop_map(|a| Address::from(a).into_word().to_vec()),
            any::<[u8; 32]>().prop_map(|word| word.to_vec()),
            Just(vec![0xff; 32]),
            prop::collection::vec(any::<u8>(), 0..40),
        ];
        let selectors: Vec<[u8; 4]> = vec![
            multicallCall::SELECTOR,
            multiSendCall::SELECTOR,
            execTransactionCall::SELECTOR,
            aggregate3Call::SELECTOR,
            executeCall::SELECTOR,
            Permit2Batch::permitCall::SELECTOR,
            Multi::safeBatchTransferFromCall::SELECTOR,
            Erc20::transferCall::SELECTOR,
        ];
        (prop::sample::select(selectors), prop::collection::vec(word, 0..24))
            .prop_map(|(selector, words)| [selector.to_vec(), words.concat()].concat())
    }

    proptest! {
        #[test]
        fn no_bytes_panic_it_and_nothing_grows_past_its_bound(data in prop_oneof![hostile(), prop::collection::vec(any::<u8>(), 0..400)]) {
            let found = read(T, U256::from(1), &data);
            prop_assert!((1..=CALLS_MAX).contains(&found.calls.len()) && found.native >= U256::from(1));
        }

        /// Whatever follows the arguments changes nothing, and a cut anywhere is never read as something else.
        #[test]
        fn a_cut_is_unreadable_and_a_tail_is_nothing(cut in 4usize..300, tail in prop::collection::vec(any::<u8>(), 0..40)) {
            let whole = data(&multicallCall { calls: vec![send(), send()] });
            let tailed = [&whole[..], &tail].concat();
            prop_assert_eq!(read(T, U256::ZERO, &tailed), read(T, U256::ZERO, &whole));
            let last_byte = whole.len() - 28;
            if cut < last_byte {
                prop_assert!(!read(T, U256::ZERO, &whole[..cut]).understood());
            }
        }
    }
}
