//! What the world outside the daemon does in these tests: it reads signed bytes with a decoder that is not ours, signs with an
//! agent's key, and stands between the daemon and its node.

use std::time::Duration;

use alloy::consensus::{Transaction as _, TxEnvelope};
use alloy::eips::eip2718::Decodable2718 as _;
use alloy::primitives::{Address, B256, Bytes};
use intentd::chain::{ChainId, Fees, Signature, SignedTx, UnsignedTx};
use intentd::money::Wei;
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{Message, Secp256k1, SecretKey};
use serde_json::{Value, json};

use crate::harness::anvil::{Anvil, OTHER};
use crate::harness::rpc_proxy::RpcProxy;
use crate::harness::stack::{Options, Stack};

/// Signed bytes as others read them, the signer recovered.
pub struct Decoded {
    pub tx: UnsignedTx,
    pub nonce: u64,
    pub hash: B256,
}

/// Panics for bytes that are no signed transaction, are for no chain, or carry an access list.
pub fn decode(raw: &[u8]) -> Decoded {
    let envelope = TxEnvelope::decode_2718(&mut &*raw).unwrap();
    assert!(envelope.access_list().is_none_or(|list| list.is_empty()), "an access list nobody asked for");
    let fees = match envelope.gas_price() {
        Some(gas_price) => Fees::Legacy { gas_price },
        None => Fees::Eip1559 {
            max_fee_per_gas: envelope.max_fee_per_gas(),
            max_priority_fee_per_gas: envelope.max_priority_fee_per_gas().unwrap(),
        },
    };
    let tx = UnsignedTx {
        chain_id: ChainId(envelope.chain_id().expect("not replayable")),
        from: signer(&envelope),
        to: envelope.to().expect("not a contract creation"),
        value: Wei(envelope.value()),
        data: envelope.input().clone(),
        gas_limit: envelope.gas_limit(),
        fees,
    };
    Decoded { tx, nonce: envelope.nonce(), hash: *envelope.tx_hash() }
}

fn signer(envelope: &TxEnvelope) -> Address {
    let parity = RecoveryId::try_from(i32::from(envelope.signature().v())).unwrap();
    let signature = RecoverableSignature::from_compact(&envelope.signature().as_bytes()[..64], parity).unwrap();
    let message = Message::from_digest(envelope.signature_hash().0);
    let key = Secp256k1::new().recover_ecdsa(message, &signature).unwrap();
    Address::from_raw_public_key(&key.serialize_uncompressed()[1..])
}

/// `signed_tx` of a reply.
pub fn decode_reply(reply: &Value) -> Decoded {
    let raw = reply["signed_tx"].as_str().unwrap_or_else(|| panic!("no signed_tx: {reply}"));
    decode(&hex::decode(raw.trim_start_matches("0x")).unwrap())
}

/// Somebody else uses an agent's key: sent straight to the node.
pub async fn use_key_elsewhere(anvil: &Anvil, scalar: &str, from: Address, nonce: u64) {
    let signed = sign_elsewhere(anvil, scalar, from, nonce);
    anvil.request("eth_sendRawTransaction", json!([signed.raw])).await;
}

/// 0.001 ETH by an agent's key, signed by somebody else.
pub fn sign_elsewhere(anvil: &Anvil, scalar: &str, from: Address, nonce: u64) -> SignedTx {
    let tx = UnsignedTx {
        chain_id: ChainId(anvil.chain_id),
        from,
        to: OTHER,
        value: Wei::from(10u128.pow(15)),
        data: Bytes::new(),
        gas_limit: 21_000,
        fees: Fees::Eip1559 { max_fee_per_gas: 30_000_000_000, max_priority_fee_per_gas: 1_000_000_000 },
    };
    let secret: [u8; 32] = hex::decode(scalar.trim_start_matches("0x")).unwrap().try_into().unwrap();
    let message = Message::from_digest(tx.signing_digest(nonce));
    let key = SecretKey::from_byte_array(secret).unwrap();
    let (parity, bytes) = Secp256k1::new().sign_ecdsa_recoverable(message, &key).serialize_compact();
    let (r, s) = bytes.split_at(32);
    let y_parity = i32::from(parity) == 1;
    tx.encode(nonce, &Signature { r: r.try_into().unwrap(), s: s.try_into().unwrap(), y_parity })
}

/// A stack whose daemons reach `base` through a proxy.
pub async fn proxied(options: Options) -> (Stack, RpcProxy) {
    let proxy = RpcProxy::start("http://127.0.0.1:1");
    let daemons = options.daemons;
    let rpc_urls = [("base", proxy.url())].into();
    let mut stack = Stack::with(Options { daemons: 0, rpc_urls, ..options }).await;
    proxy.forward_to(&stack.anvil("base").url());
    for index in 0..daemons {
        stack.add_daemon(&format!("daemon-{index}")).await;
    }
    (stack, proxy)
}

/// The tracker has looked at the chain as often again.
pub async fn rounds(proxy: &RpcProxy, count: usize) {
    // A look at a lane asks for its count once.
    let before = proxy.count("eth_getTransactionCount");
    proxy.wait_for("eth_getTransactionCount", before + count, Duration::from_secs(30)).await;
}
