//! What a transaction is, before and after it is signed. Pure.
//!
//! Two encodings: legacy with replay protection (EIP-155) and type 2 (EIP-1559 in an EIP-2718 envelope). Contract creation
//! cannot be expressed, because `to` is an address; access lists are always empty.

use alloy::consensus::{SignableTransaction, TxEip1559, TxLegacy};
use alloy::primitives::{Address, B256, Bytes, Signature as RawSignature, TxKind, U256, keccak256};

use super::spec::{ChainId, Kind};
pub use crate::hsm::Signature;
use crate::money::Wei;

/// Longest encoded transaction that public pools take, in bytes (geth's `txMaxSize`).
pub const ENCODED_BYTES_MAX: usize = 128 * 1024;
/// Most gas that one transaction may ask for on Ethereum (EIP-7825): 2^24.
pub const TX_GAS_MAX: u64 = 1 << 24;

/// Gas of any transaction, before its calldata.
const BASE_GAS: u64 = 21_000;
/// What a calldata token costs at least (EIP-7623); a zero byte is one token, any other byte four. Above the 4 gas of
/// EIP-2028, so before execution it is always this number that counts.
const TOKEN_FLOOR_GAS: u64 = 10;

/// What is paid per unit of gas, in wei; it decides the transaction's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fees {
    /// Type 0 with EIP-155: one price.
    Legacy {
        /// Wei per gas, all of it paid.
        gas_price: u128,
    },
    /// Type 2: a cap on the sum of base fee and tip, and the tip.
    Eip1559 {
        /// The most that is paid per gas, in wei.
        max_fee_per_gas: u128,
        /// The most that the block's producer gets per gas, in wei.
        max_priority_fee_per_gas: u128,
    },
}

impl Fees {
    /// The most that one unit of gas can cost, in wei.
    #[must_use]
    pub fn max_per_gas(self) -> u128 {
        match self {
            Self::Legacy { gas_price } => gas_price,
            Self::Eip1559 { max_fee_per_gas, .. } => max_fee_per_gas,
        }
    }
}

/// A transaction without its nonce and signature: everything that the rules check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsignedTx {
    /// The chain, from our registry only.
    pub chain_id: ChainId,
    /// The signer's address.
    pub from: Address,
    /// The recipient. There is no contract creation.
    pub to: Address,
    /// Native amount sent along.
    pub value: Wei,
    /// Calldata; empty for a plain transfer.
    pub data: Bytes,
    /// The most gas that it may use.
    pub gas_limit: u64,
    /// What it pays per gas.
    pub fees: Fees,
}

/// Signed bytes, as a node takes them.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedTx {
    /// The EIP-2718 encoding: what `eth_sendRawTransaction` takes.
    pub raw: Bytes,
    /// The transaction's hash: keccak-256 of `raw`.
    pub hash: B256,
}

/// Signed bytes are worth money to whoever reads them, so only the hash is shown.
impl std::fmt::Debug for SignedTx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignedTx").field("hash", &self.hash).finish_non_exhaustive()
    }
}

/// Why a node's pool would never take a transaction, whatever its nonce.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// Below the intrinsic cost.
    #[error("gas_limit {gas_limit} is below the {intrinsic_gas} gas that this transaction costs before it executes")]
    GasBelowIntrinsic {
        /// What was asked.
        gas_limit: u64,
        /// What is needed at least.
        intrinsic_gas: u64,
    },
    /// Above what the chain, the block or our registry allows.
    #[error("gas_limit {gas_limit} is above the {limit} gas that one transaction may ask for on this chain")]
    GasAboveLimit {
        /// What was asked.
        gas_limit: u64,
        /// The strictest of the limits.
        limit: u64,
    },
    /// Longer than [`ENCODED_BYTES_MAX`].
    #[error("the encoded transaction would be {len} bytes; nodes take at most {ENCODED_BYTES_MAX}")]
    TooLong {
        /// Bytes, with the longest nonce and signature.
        len: usize,
    },
    /// value + gas_limit × fee does not fit in 256 bits.
    #[error("value plus the highest fee is larger than any balance can be")]
    CostOverflow,
}

impl UnsignedTx {
    /// A hash over everything but the nonce: what was checked is what is signed (invariant I7).
    ///
    /// Every field is of fixed width, but for the calldata, whose length goes before it; so two different transactions
    /// never have the same preimage. The zero word stands for the (always empty) access list.
    #[must_use]
    pub fn checked_hash(&self) -> B256 {
        let (kind, fee, tip) = match self.fees {
            Fees::Legacy { gas_price } => (0u8, gas_price, 0),
            Fees::Eip1559 { max_fee_per_gas, max_priority_fee_per_gas } => {
                (2u8, max_fee_per_gas, max_priority_fee_per_gas)
            }
        };
        let mut preimage = Vec::with_capacity(192 + self.data.len());
        preimage.extend_from_slice(b"intentd checked transaction v1\0");
        preimage.extend_from_slice(&self.chain_id.0.to_be_bytes());
        preimage.extend_from_slice(self.from.as_slice());
        preimage.extend_from_slice(self.to.as_slice());
        preimage.extend_from_slice(&self.value.0.to_be_bytes::<32>());
        preimage.extend_from_slice(&self.gas_limit.to_be_bytes());
        preimage.push(kind);
        preimage.extend_from_slice(&fee.to_be_bytes());
        preimage.extend_from_slice(&tip.to_be_bytes());
        preimage.extend_from_slice(&0u64.to_be_bytes());
        preimage.extend_from_slice(&(self.data.len() as u64).to_be_bytes());
        preimage.extend_from_slice(&self.data);
        keccak256(preimage)
    }

    /// The 32 bytes that the key signs, for this nonce (EIP-155, EIP-1559).
    #[must_use]
    pub fn signing_digest(&self, nonce: u64) -> [u8; 32] {
        match self.fees {
            Fees::Legacy { gas_price } => self.legacy(nonce, gas_price).signature_hash().0,
            Fees::Eip1559 { max_fee_per_gas, max_priority_fee_per_gas } => {
                self.eip1559(nonce, max_fee_per_gas, max_priority_fee_per_gas).signature_hash().0
            }
        }
    }

    /// The signed bytes and their hash.
    ///
    /// A legacy v is 35 + 2 × chain id + parity, computed in 128 bits: chain ids may use all 64.
    #[must_use]
    pub fn encode(&self, nonce: u64, signature: &Signature) -> SignedTx {
        let signature =
            RawSignature::new(U256::from_be_bytes(signature.r), U256::from_be_bytes(signature.s), signature.y_parity);
        let mut raw = Vec::with_capacity(256 + self.data.len());
        match self.fees {
            Fees::Legacy { gas_price } => {
                self.legacy(nonce, gas_price).into_signed(signature).eip2718_encode(&mut raw);
            }
            Fees::Eip1559 { max_fee_per_gas, max_priority_fee_per_gas } => {
                self.eip1559(nonce, max_fee_per_gas, max_priority_fee_per_gas)
                    .into_signed(signature)
                    .eip2718_encode(&mut raw);
            }
        }
        SignedTx { hash: keccak256(&raw), raw: raw.into() }
    }

    /// The least gas limit that a node takes: 21,000, and for each calldata byte the higher of its price (4 or 16, EIP-2028)
    /// and its floor (10 or 40, EIP-7623), which is the floor.
    #[must_use]
    pub fn intrinsic_gas(&self) -> u64 {
        let tokens: u64 = self.data.iter().map(|byte| if *byte == 0 { 1 } else { 4 }).sum();
        BASE_GAS.saturating_add(tokens.saturating_mul(TOKEN_FLOOR_GAS))
    }

    /// The longest that the encoding can get, in bytes: the highest nonce, r and s of 32 bytes.
    #[must_use]
    pub fn encoded_len_max(&self) -> usize {
        let signature = Signature { r: [0xff; 32], s: [0xff; 32], y_parity: true };
        self.encode(u64::MAX, &signature).raw.len()
    }

    /// value + gas_limit × the highest fee: what the balance must cover. `None` past 2^256 − 1.
    #[must_use]
    pub fn max_cost(&self) -> Option<Wei> {
        self.value.checked_add(self.max_fee()?)
    }

    /// gas_limit × the highest fee. `None` past 2^256 − 1 (which 64 × 128 bits cannot reach).
    #[must_use]
    pub fn max_fee(&self) -> Option<Wei> {
        Wei::from(self.fees.max_per_gas()).checked_mul(self.gas_limit)
    }

    /// Whether a pool could take it at all, so that no doomed transaction takes a nonce.
    ///
    /// # Errors
    /// The first limit that it breaks. `chain_gas_max` is the registry's, `block_gas_limit` the head's.
    pub fn check_limits(&self, kind: Kind, chain_gas_max: u64, block_gas_limit: u64) -> Result<(), LimitError> {
        let gas_limit = self.gas_limit;
        let intrinsic_gas = self.intrinsic_gas();
        if gas_limit < intrinsic_gas {
            return Err(LimitError::GasBelowIntrinsic { gas_limit, intrinsic_gas });
        }
        let protocol_gas_max = if kind == Kind::Ethereum { TX_GAS_MAX } else { u64::MAX };
        let limit = chain_gas_max.min(block_gas_limit).min(protocol_gas_max);
        if gas_limit > limit {
            return Err(LimitError::GasAboveLimit { gas_limit, limit });
        }
        let len = self.encoded_len_max();
        if len > ENCODED_BYTES_MAX {
            return Err(LimitError::TooLong { len });
        }
        self.max_cost().map(|_| ()).ok_or(LimitError::CostOverflow)
    }

    fn legacy(&self, nonce: u64, gas_price: u128) -> TxLegacy {
        TxLegacy {
            chain_id: Some(self.chain_id.0),
            nonce,
            gas_price,
            gas_limit: self.gas_limit,
            to: TxKind::Call(self.to),
            value: self.value.0,
            input: self.data.clone(),
        }
    }

    fn eip1559(&self, nonce: u64, max_fee_per_gas: u128, max_priority_fee_per_gas: u128) -> TxEip1559 {
        TxEip1559 {
            chain_id: self.chain_id.0,
            nonce,
            gas_limit: self.gas_limit,
            max_fee_per_gas,
            max_priority_fee_per_gas,
            to: TxKind::Call(self.to),
            value: self.value.0,
            access_list: alloy::eips::eip2930::AccessList::default(),
            input: self.data.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy::consensus::{Transaction, TxEnvelope};
    use alloy::eips::eip2718::Decodable2718;
    use alloy::primitives::{address, hex};
    use proptest::prelude::*;
    use secp256k1::{Message, PublicKey, Secp256k1, SecretKey, ecdsa::RecoverableSignature};

    /// Keys exist in tests only; the daemon's are in an HSM.
    fn sign(key: &[u8; 32], digest: [u8; 32]) -> Signature {
        let key = SecretKey::from_byte_array(*key).unwrap();
        let signature = Secp256k1::new().sign_ecdsa_recoverable(Message::from_digest(digest), &key);
        let (parity, bytes) = signature.serialize_compact();
        let (r, s) = bytes.split_at(32);
        Signature { r: r.try_into().unwrap(), s: s.try_into().unwrap(), y_parity: i32::from(parity) == 1 }
    }

    fn address_of(key: &[u8; 32]) -> Address {
        let public = PublicKey::from_secret_key(&Secp256k1::new(), &SecretKey::from_byte_array(*key).unwrap());
        Address::from_raw_public_key(&public.serialize_uncompressed()[1..])
    }

    fn legacy(chain_id: u64, data: &[u8]) -> UnsignedTx {
        UnsignedTx {
            chain_id: ChainId(chain_id),
            from: address_of(&[0x46; 32]),
            to: Address::repeat_byte(0x35),
            value: Wei::from(10u128.pow(18)),
            data: Bytes::copy_from_slice(data),
            gas_limit: 21_000,
            fees: Fees::Legacy { gas_price: 20_000_000_000 },
        }
    }

    /// The example in the text of EIP-155.
    #[test]
    fn the_example_of_eip_155() {
        let tx = legacy(1, &[]);
        let digest = tx.signing_digest(9);
        assert_eq!(hex::encode(digest), "daf5a779ae972f972197303d7b574746c7ef83eadac0f2791ad23db92e4c8e53");
        let signed = tx.encode(9, &sign(&[0x46; 32], digest));
        assert_eq!(
            hex::encode(&signed.raw),
            "f86c098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a76400008025a0\
             28ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276a0\
             67cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83"
        );
        assert_eq!(signed.hash, keccak256(&signed.raw));
    }

    /// Three rows of the EIP-1559 vectors that ethereumjs and others share (`eip1559.json`, chain id 7822).
    #[test]
    fn the_vectors_of_eip_1559() {
        let key = hex!("8f2a55949038a9610f50fb23b5883af3b4ecb3c3bb792cbcefbd1542c692be63");
        let to = address!("000000000000000000000000000000000000aaaa");
        let rows: [(u64, u128, u64, u128, u128, &str); 3] = [
            (
                819,
                43_203_529,
                35_552,
                75_853,
                121_212,
                "02f870821e8e8203338301284d8301d97c828ae094000000000000000000000000000000000000aaaa8402933bc980c080a0\
                 d067f2167008c59219652f91cbf8788dbca5f771f6e91e2b7657e85b78b472e0a0\
                 1d305af9fe81fdba43f0dfcd400ed24dcace0a7e30d4e85701dcaaf484cd079e",
            ),
            (
                353,
                61_901_619,
                32_593,
                38_850,
                136_295,
                "02f86f821e8e8201618297c283021467827f5194000000000000000000000000000000000000aaaa8403b08b3380c001a0\
                 04205678f13fc1d7b10feea6513dfa76e24418b6e08097d95c6f93a3b64e536da0\
                 1d45ad61bfece43862de2cce7d2575a8c1d08c26c87f3cb5f26d7b0be54a91b2",
            ),
            (
                709,
                6_478_043,
                28_335,
                86_252,
                94_636,
                "02f86f821e8e8202c5830150ec830171ac826eaf94000000000000000000000000000000000000aaaa8362d8db80c001a0\
                 9880d133cd636f8c8dce32e2c43494b9f2dc000eee8dc61931e09f866ed04b46a0\
                 0e44d5c503c7f08b36c8b062c32a963f3dd20a71e95e3d903bfbe7f4da47cd47",
            ),
        ];
        for (nonce, value, gas_limit, tip, max_fee, encoded) in rows {
            let tx = UnsignedTx {
                chain_id: ChainId(7822),
                from: address_of(&key),
                to,
                value: Wei::from(value),
                data: Bytes::new(),
                gas_limit,
                fees: Fees::Eip1559 { max_fee_per_gas: max_fee, max_priority_fee_per_gas: tip },
            };
            let signed = tx.encode(nonce, &sign(&key, tx.signing_digest(nonce)));
            assert_eq!(hex::encode(&signed.raw), encoded);
        }
    }

    #[test]
    fn threat_11_the_legacy_v_carries_chain_ids_of_all_64_bits() {
        for chain_id in [1, 137, 8453, (1 << 32) - 1, 1 << 32, (1 << 32) + 5, u64::MAX / 2, u64::MAX] {
            let tx = legacy(chain_id, &[]);
            for (y_parity, parity) in [(false, 0u128), (true, 1)] {
                let signed = tx.encode(0, &Signature { r: [1; 32], s: [1; 32], y_parity });
                let v = 35 + 2 * u128::from(chain_id) + parity;
                let mut expected = Vec::new();
                alloy::rlp::Encodable::encode(&v, &mut expected);
                let tail = signed.raw.len() - 66;
                assert_eq!(signed.raw[tail - expected.len()..tail], expected, "{chain_id}");
                let decoded = TxEnvelope::decode_2718(&mut signed.raw.as_ref()).unwrap();
                assert_eq!(decoded.chain_id(), Some(chain_id));
            }
        }
    }

    /// RLP integers have no leading zeros: a short r or s must come out shorter, and decode to the same number.
    #[test]
    fn threat_12_leading_zeros_of_r_and_s_survive_the_encoding() {
        let (mut r, mut s) = ([7; 32], [9; 32]);
        (r[0], s[0], s[1]) = (0, 0, 0);
        for fees in [Fees::Legacy { gas_price: 1 }, Fees::Eip1559 { max_fee_per_gas: 1, max_priority_fee_per_gas: 0 }] {
            let tx = UnsignedTx { fees, ..legacy(1, &[]) };
            let short = tx.encode(0, &Signature { r, s, y_parity: true });
            let full = tx.encode(0, &Signature { r: [7; 32], s: [9; 32], y_parity: true });
            assert_eq!(short.raw.len() + 3, full.raw.len());
            let decoded = TxEnvelope::decode_2718(&mut short.raw.as_ref()).unwrap();
            assert_eq!(decoded.signature().r().to_be_bytes::<32>(), r);
            assert_eq!(decoded.signature().s().to_be_bytes::<32>(), s);
        }
    }

    #[test]
    fn gas_before_execution_is_the_calldata_floor() {
        let table: [(&[u8], u64); 5] =
            [(&[], 21_000), (&[0], 21_010), (&[1], 21_040), (&[0, 0, 0xff], 21_060), (&[0xff; 100], 25_000)];
        for (data, gas) in table {
            assert_eq!(legacy(1, data).intrinsic_gas(), gas, "{data:?}");
        }
    }

    #[test]
    fn threat_42_what_no_pool_takes_is_refused_before_it_has_a_nonce() {
        let check = |tx: &UnsignedTx, kind| tx.check_limits(kind, 100_000_000, 60_000_000);
        let good = legacy(1, &[]);
        assert_eq!(check(&good, Kind::Ethereum), Ok(()));
        let gas = |gas_limit| UnsignedTx { gas_limit, ..good.clone() };
        assert!(matches!(check(&gas(20_999), Kind::Ethereum), Err(LimitError::GasBelowIntrinsic { .. })));
        assert_eq!(check(&gas(TX_GAS_MAX), Kind::Ethereum), Ok(()));
        assert_eq!(
            check(&gas(TX_GAS_MAX + 1), Kind::Ethereum),
            Err(LimitError::GasAboveLimit { gas_limit: TX_GAS_MAX + 1, limit: TX_GAS_MAX })
        );
        assert_eq!(check(&gas(TX_GAS_MAX + 1), Kind::Arbitrum), Ok(()));
        assert!(matches!(check(&gas(60_000_001), Kind::Arbitrum), Err(LimitError::GasAboveLimit { .. })));
        assert!(good.check_limits(Kind::Op, 20_999, u64::MAX).is_err());
        let dear = UnsignedTx { value: Wei(U256::MAX), ..good.clone() };
        assert_eq!(check(&dear, Kind::Ethereum), Err(LimitError::CostOverflow));

        // The longest calldata that fits, and one byte more.
        let long = |len| UnsignedTx { gas_limit: 10_000_000, ..legacy(1, &vec![1; len]) };
        let overhead = long(100_000).encoded_len_max() - 100_000;
        let fits = ENCODED_BYTES_MAX - overhead;
        assert_eq!(check(&long(fits), Kind::Ethereum), Ok(()));
        let len = ENCODED_BYTES_MAX + 1;
        assert_eq!(check(&long(fits + 1), Kind::Ethereum), Err(LimitError::TooLong { len }));
    }

    #[test]
    fn the_highest_cost_is_value_and_gas_at_the_highest_fee() {
        let tx = legacy(1, &[]);
        assert_eq!(tx.max_fee(), Some(Wei::from(21_000u128 * 20_000_000_000)));
        assert_eq!(tx.max_cost(), Some(Wei::from(10u128.pow(18) + 21_000 * 20_000_000_000)));
    }

    #[test]
    fn every_field_but_the_nonce_is_under_the_checked_hash() {
        let tx = legacy(1, &[1, 2]);
        let others = [
            UnsignedTx { chain_id: ChainId(2), ..tx.clone() },
            UnsignedTx { from: Address::ZERO, ..tx.clone() },
            UnsignedTx { to: Address::ZERO, ..tx.clone() },
            UnsignedTx { value: Wei::from(1u64), ..tx.clone() },
            UnsignedTx { data: Bytes::from_static(&[1]), ..tx.clone() },
            UnsignedTx { data: Bytes::from_static(&[1, 2, 0]), ..tx.clone() },
            UnsignedTx { gas_limit: 21_001, ..tx.clone() },
            UnsignedTx { fees: Fees::Legacy { gas_price: 1 }, ..tx.clone() },
            UnsignedTx {
                fees: Fees::Eip1559 { max_fee_per_gas: 20_000_000_000, max_priority_fee_per_gas: 0 },
                ..tx.clone()
            },
            UnsignedTx {
                fees: Fees::Eip1559 { max_fee_per_gas: 20_000_000_000, max_priority_fee_per_gas: 1 },
                ..tx.clone()
            },
        ];
        let mut hashes: Vec<_> = others.iter().map(UnsignedTx::checked_hash).chain([tx.checked_hash()]).collect();
        hashes.sort();
        hashes.dedup();
        assert_eq!(hashes.len(), others.len() + 1);
        assert_eq!(tx.checked_hash(), tx.clone().checked_hash());
    }

    prop_compose! {
        fn any_tx()(
            chain_id in 1..=u64::MAX, to: [u8; 20], value: [u64; 4], data in prop::collection::vec(any::<u8>(), 0..300),
            gas_limit: u64, fee: u128, tip: u128, typed: bool, key in prop::array::uniform32(1u8..0xff),
        ) -> (UnsignedTx, [u8; 32]) {
            let fees = match typed {
                true => Fees::Eip1559 { max_fee_per_gas: fee, max_priority_fee_per_gas: tip },
                false => Fees::Legacy { gas_price: fee },
            };
            let (to, value) = (Address::from(to), Wei(U256::from_limbs(value)));
            let tx = UnsignedTx {
                chain_id: ChainId(chain_id), from: address_of(&key), to, value, data: data.into(), gas_limit, fees,
            };
            (tx, key)
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_intent_and_recovers_the_signer((tx, key) in any_tx(), nonce: u64) {
            let signed = tx.encode(nonce, &sign(&key, tx.signing_digest(nonce)));
            let mut raw = signed.raw.as_ref();
            let decoded = TxEnvelope::decode_2718(&mut raw).unwrap();
            prop_assert!(raw.is_empty());
            prop_assert!(signed.raw.len() <= tx.encoded_len_max());
            prop_assert_eq!(*decoded.tx_hash(), signed.hash);
            prop_assert_eq!(decoded.nonce(), nonce);
            prop_assert_eq!(decoded.chain_id(), Some(tx.chain_id.0));
            prop_assert_eq!(decoded.to(), Some(tx.to));
            prop_assert_eq!(decoded.value(), tx.value.0);
            prop_assert_eq!(decoded.input(), &tx.data);
            prop_assert_eq!(decoded.gas_limit(), tx.gas_limit);
            prop_assert!(decoded.access_list().is_none_or(|list| list.is_empty()));
            let fees = match (decoded.gas_price(), decoded.max_priority_fee_per_gas()) {
                (Some(gas_price), None) => Fees::Legacy { gas_price },
                (_, tip) => Fees::Eip1559 {
                    max_fee_per_gas: decoded.max_fee_per_gas(),
                    max_priority_fee_per_gas: tip.unwrap(),
                },
            };
            prop_assert_eq!(fees, tx.fees);

            let signature = decoded.signature();
            let bytes = [signature.r().to_be_bytes::<32>(), signature.s().to_be_bytes::<32>()].concat();
            let parity = i32::from(signature.v()).try_into().unwrap();
            let signature = RecoverableSignature::from_compact(&bytes, parity).unwrap();
            let public = Secp256k1::new().recover_ecdsa(Message::from_digest(tx.signing_digest(nonce)), &signature).unwrap();
            prop_assert_eq!(Address::from_raw_public_key(&public.serialize_uncompressed()[1..]), tx.from);
        }

        #[test]
        fn another_nonce_is_another_digest_and_the_same_checked_hash((tx, _) in any_tx(), nonce: u64, other: u64) {
            prop_assume!(nonce != other);
            prop_assert_ne!(tx.signing_digest(nonce), tx.signing_digest(other));
        }
    }
}
