//! Encodings, against a decoder that is not ours, and against a node.

use std::process::Command;

use alloy::primitives::{Address, Bytes, hex};
use intentd::chain::{ChainId, Fees, Signature, SignedTx, UnsignedTx};
use intentd::money::Wei;
use secp256k1::{Message, Secp256k1, SecretKey};
use serde_json::Value;

use crate::harness::anvil::{self, OTHER, RICH, RICH_KEY};

/// Signs with anvil's first account, whose key everybody knows.
pub fn sign(tx: &UnsignedTx, nonce: u64) -> SignedTx {
    let key = SecretKey::from_byte_array(RICH_KEY).unwrap();
    let message = Message::from_digest(tx.signing_digest(nonce));
    let (parity, bytes) = Secp256k1::new().sign_ecdsa_recoverable(message, &key).serialize_compact();
    let (r, s) = bytes.split_at(32);
    let y_parity = i32::from(parity) == 1;
    tx.encode(nonce, &Signature { r: r.try_into().unwrap(), s: s.try_into().unwrap(), y_parity })
}

/// 1 ETH from anvil's first account to its second.
pub fn transfer(chain_id: u64) -> UnsignedTx {
    UnsignedTx {
        chain_id: ChainId(chain_id),
        from: RICH,
        to: OTHER,
        value: Wei::from(10u128.pow(18)),
        data: Bytes::new(),
        gas_limit: 21_000,
        fees: Fees::Eip1559 { max_fee_per_gas: 30_000_000_000, max_priority_fee_per_gas: 1_000_000_000 },
    }
}

fn cast_decode(signed: &SignedTx) -> Value {
    let cast = anvil::binary("cast", "INTENTD_CAST_BIN");
    let output = Command::new(cast).arg("decode-transaction").arg(hex::encode_prefixed(&signed.raw)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // The tool prints its JSON as a JSON string when its output is no terminal.
    match serde_json::from_slice(&output.stdout).unwrap() {
        Value::String(json) => serde_json::from_str(&json).unwrap(),
        json => json,
    }
}

fn quantity(value: &Value) -> u128 {
    u128::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

#[test]
fn what_is_encoded_decodes_elsewhere_to_exactly_the_intent() {
    let legacy = Fees::Legacy { gas_price: 20_000_000_000 };
    let data = Bytes::from(hex!("a9059cbb0000000000000000000000001111111111111111111111111111111111111111"));
    let table = [
        (transfer(1), 0),
        (UnsignedTx { fees: legacy, ..transfer(1) }, 7),
        (UnsignedTx { fees: legacy, ..transfer(42161) }, u64::MAX - 1),
        (UnsignedTx { fees: legacy, ..transfer((1 << 32) + 17) }, 3),
        (UnsignedTx { data: data.clone(), gas_limit: 90_000, value: Wei::ZERO, ..transfer(8453) }, 1 << 40),
        (UnsignedTx { data, fees: legacy, gas_limit: 90_000, ..transfer(137) }, 255),
    ];
    for (tx, nonce) in table {
        let signed = sign(&tx, nonce);
        let decoded = cast_decode(&signed);
        let address = |key: &str| decoded[key].as_str().unwrap().parse::<Address>().unwrap();
        assert_eq!(decoded["hash"].as_str().unwrap(), signed.hash.to_string(), "{decoded}");
        assert_eq!((address("to"), address("signer")), (tx.to, tx.from), "{decoded}");
        assert_eq!(quantity(&decoded["chainId"]), u128::from(tx.chain_id.0), "{decoded}");
        assert_eq!(quantity(&decoded["nonce"]), u128::from(nonce), "{decoded}");
        assert_eq!(quantity(&decoded["gas"]), u128::from(tx.gas_limit), "{decoded}");
        assert_eq!(quantity(&decoded["value"]).to_string(), tx.value.to_string(), "{decoded}");
        assert_eq!(decoded["input"].as_str().unwrap(), hex::encode_prefixed(&tx.data), "{decoded}");
        match tx.fees {
            Fees::Legacy { gas_price } => {
                assert_eq!(decoded["type"], "0x0");
                assert_eq!(quantity(&decoded["gasPrice"]), gas_price);
            }
            Fees::Eip1559 { max_fee_per_gas, max_priority_fee_per_gas } => {
                assert_eq!(decoded["type"], "0x2");
                assert_eq!(quantity(&decoded["maxFeePerGas"]), max_fee_per_gas);
                assert_eq!(quantity(&decoded["maxPriorityFeePerGas"]), max_priority_fee_per_gas);
                assert_eq!(decoded["accessList"], serde_json::json!([]));
            }
        }
    }
}
