//! The contracts of `tests/contracts/Effects.sol` on an anvil, and how they are called.

use alloy::primitives::{Address, Bytes, U256, hex};
use alloy::sol;
use alloy::sol_types::SolCall;
use serde_json::{Value, json};

use super::anvil::{Anvil, RICH};

sol! {
    struct Call3Value { address target; bool allowFailure; uint256 value; bytes callData; }

    interface Token {
        function transfer(address to, uint256 value);
        function transferFrom(address from, address to, uint256 value);
        function approve(address spender, uint256 value);
        function permit(address holder, address spender, uint256 value, uint256 deadline, uint8 v, bytes32 r, bytes32 s);
        function multicall(bytes[] calls);
        function transferOwnership(address next);
        function shove(address to, uint256 value);
        function trust(address spender, uint256 value);
        function abdicate(address next);
        function balanceOf(address who) returns (uint256);
        function allowance(address owner, address spender) returns (uint256);
        function DOMAIN_SEPARATOR() returns (bytes32);
    }
    interface Nft {
        function mint(address to, uint256 id);
        function setApprovalForAll(address operator, bool approved);
        function safeTransferFrom(address from, address to, uint256 id);
    }
    interface Wallet {
        function execTransaction(
            address to, uint256 value, bytes data, uint8 operation, uint256 a, uint256 b, uint256 c, address d, address e, bytes f);
    }
    interface Batcher { function aggregate3Value(Call3Value[] calls); }
    interface Permit2 {
        function approve(address token, address spender, uint160 amount, uint48 expiration);
        function transferFrom(address from, address to, uint160 amount, address token);
    }
    interface Taker {
        function turn(uint256 to, address who);
        function take(uint256 amount);
    }
}

macro_rules! code {
    ($name:literal) => {
        include_str!(concat!("../../contracts/bin/Effects_sol_", $name, ".bin"))
    };
}

/// All of them, each once.
pub struct Contracts {
    pub token: Address,
    pub other_token: Address,
    pub nft: Address,
    pub wallet: Address,
    pub batcher: Address,
    pub permit2: Address,
    pub taker: Address,
}

impl Contracts {
    pub async fn on(anvil: &Anvil) -> Self {
        let token = deploy(anvil, code!("Token"), &[]).await;
        Self {
            token,
            other_token: deploy(anvil, code!("Token"), &[]).await,
            nft: deploy(anvil, code!("Nft"), &[]).await,
            wallet: deploy(anvil, code!("Wallet"), &[]).await,
            batcher: deploy(anvil, code!("Batcher"), &[]).await,
            permit2: deploy(anvil, code!("Permit2"), &[]).await,
            taker: deploy(anvil, code!("Taker"), token.into_word().as_slice()).await,
        }
    }
}

async fn deploy(anvil: &Anvil, code: &str, args: &[u8]) -> Address {
    let data = [hex::decode(code.trim()).unwrap(), args.to_vec()].concat();
    let hash = anvil
        .request("eth_sendTransaction", json!([{"from": RICH, "data": Bytes::from(data), "gas": "0x4c4b40"}]))
        .await;
    anvil.mine(1).await;
    let receipt = anvil.request("eth_getTransactionReceipt", json!([hash])).await;
    assert_eq!(receipt["status"], "0x1", "{receipt}");
    receipt["contractAddress"].as_str().unwrap().parse().unwrap()
}

/// A call past the code under test.
pub async fn by(anvil: &Anvil, from: Address, to: Address, call: &impl SolCall) {
    let data = Bytes::from(call.abi_encode());
    anvil.request("anvil_impersonateAccount", json!([from])).await;
    let hash =
        anvil.request("eth_sendTransaction", json!([{"from": from, "to": to, "data": data, "gas": "0x4c4b40"}])).await;
    anvil.mine(1).await;
    let receipt = anvil.request("eth_getTransactionReceipt", json!([hash])).await;
    assert_eq!(receipt["status"], "0x1", "{receipt}");
}

pub async fn view(anvil: &Anvil, to: Address, call: &impl SolCall) -> U256 {
    let answer = anvil.request("eth_call", json!([{"to": to, "data": Bytes::from(call.abi_encode())}, "latest"])).await;
    answer.as_str().unwrap().parse().unwrap()
}

pub async fn balance_of(anvil: &Anvil, token: Address, who: Address) -> U256 {
    view(anvil, token, &Token::balanceOfCall { who }).await
}

/// Gives somebody tokens.
pub async fn give(anvil: &Anvil, token: Address, to: Address, value: u64) {
    by(anvil, RICH, token, &Token::transferCall { to, value: U256::from(value) }).await;
}

pub fn encoded(call: &impl SolCall) -> Bytes {
    call.abi_encode().into()
}

/// The body of an intent on `base`.
pub fn intent(to: Address, data: &Bytes) -> Value {
    json!({"to": to, "value": "0", "chain": "base", "data": data})
}

/// The same with a gas limit: nothing has to be estimated, so a call that would revert gets as far as the rules.
pub fn with_gas(mut body: Value) -> Value {
    body["gas_limit"] = json!(500_000);
    body
}

pub fn send(to: Address, value: u64) -> Bytes {
    encoded(&Token::transferCall { to, value: U256::from(value) })
}

pub fn approve(spender: Address, value: U256) -> Bytes {
    encoded(&Token::approveCall { spender, value })
}

pub fn all_of(calls: &[Bytes]) -> Bytes {
    encoded(&Token::multicallCall { calls: calls.to_vec() })
}

pub fn exec(to: Address, value: u128, data: &Bytes, operation: u8) -> Bytes {
    let (a, d) = (U256::ZERO, Address::ZERO);
    let (data, value) = (data.clone(), U256::from(value));
    encoded(&Wallet::execTransactionCall { to, value, data, operation, a, b: a, c: a, d, e: d, f: Bytes::new() })
}

pub fn batch(calls: &[(Address, u128, Bytes)]) -> Bytes {
    let call = |(target, value, data): &(Address, u128, Bytes)| Call3Value {
        target: *target,
        allowFailure: false,
        value: U256::from(*value),
        callData: data.clone(),
    };
    encoded(&Batcher::aggregate3ValueCall { calls: calls.iter().map(call).collect() })
}
