//! The calls that the pipeline and the tracker make, typed. Each reads what it needs and refuses what makes no sense.

use alloy::primitives::{Address, B256, Bytes, U256, keccak256};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::answers::{self, SendOutcome};
use super::error::RpcError;
use super::rpc::{Ready, Rpc, u256};
use super::tx::UnsignedTx;
use crate::money::Wei;

/// A call that is not signed: for estimates and simulations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxRequest {
    /// The sender that is played.
    pub from: Address,
    /// The recipient.
    pub to: Address,
    /// Native amount sent along.
    pub value: Wei,
    /// Calldata.
    pub data: Bytes,
    /// Gas limit; `None` leaves it to the node.
    pub gas_limit: Option<u64>,
}

impl TxRequest {
    /// As JSON-RPC writes a call. Without fees: nodes then take no fee from the balance.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut call = json!({
            "from": self.from,
            "to": self.to,
            "value": format!("{:#x}", self.value.0),
            "data": self.data,
        });
        if let Some(gas_limit) = self.gas_limit {
            call["gas"] = json!(format!("{gas_limit:#x}"));
        }
        call
    }
}

impl From<&UnsignedTx> for TxRequest {
    fn from(tx: &UnsignedTx) -> Self {
        Self { from: tx.from, to: tx.to, value: tx.value, data: tx.data.clone(), gas_limit: Some(tx.gas_limit) }
    }
}

/// A block's header, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Height.
    pub number: u64,
    /// Hash.
    pub hash: B256,
    /// The parent's hash.
    pub parent_hash: B256,
    /// Seconds since 1970.
    pub timestamp: u64,
    /// The most gas that the block may use.
    pub gas_limit: u64,
    /// Wei per gas; `None` before EIP-1559.
    pub base_fee: Option<u128>,
}

/// A mined transaction's receipt, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The transaction.
    pub transaction_hash: B256,
    /// Height of its block.
    pub block_number: u64,
    /// Hash of its block: compare it again when the transaction is deep enough, a reorganisation changes it.
    pub block_hash: B256,
    /// Whether it did what it should (EIP-658); `false`: reverted or out of gas, the fee is paid all the same.
    pub success: bool,
    /// Gas used.
    pub gas_used: u64,
    /// Wei per gas that were paid, where the node says.
    pub effective_gas_price: Option<u128>,
    /// Its events; none where the node writes them in a way that cannot be read.
    pub logs: Vec<Log>,
}

/// An event of a mined transaction.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Log {
    /// The contract.
    pub address: Address,
    /// Topics, at most four.
    #[serde(default)]
    pub topics: Vec<B256>,
    /// The rest.
    #[serde(default)]
    pub data: Bytes,
}

impl Ready<'_> {
    /// Hands the bytes to the node. Never an error: every way it can go is an outcome, and what is not known to be refused is
    /// [`SendOutcome::Unknown`].
    pub async fn send_raw(&self, raw: &[u8]) -> SendOutcome {
        let hash = keccak256(raw);
        let answer = self.request("eth_sendRawTransaction", json!([Bytes::copy_from_slice(raw)])).await;
        match answer {
            Ok(answer) if answer.as_str().and_then(|text| text.parse().ok()) == Some(hash) => SendOutcome::Accepted,
            Ok(_) => SendOutcome::Unknown(self.rpc.garbage("another transaction's hash").to_string()),
            Err(error) => error.into(),
        }
    }
}

impl From<RpcError> for SendOutcome {
    fn from(error: RpcError) -> Self {
        match error {
            RpcError::Node { error, .. } => answers::outcome(&error.message),
            RpcError::Unreachable { .. } | RpcError::WrongChain { .. } => Self::Unknown(error.to_string()),
        }
    }
}

impl Rpc {
    /// The next nonce of `address`, transactions in the node's pool counted. A floor, not the truth: pools forget.
    ///
    /// # Errors
    /// [`RpcError`], as every call here.
    pub async fn pending_nonce(&self, address: Address) -> Result<u64, RpcError> {
        self.quantity("eth_getTransactionCount", json!([address, "pending"])).await
    }

    /// The next nonce of `address` in mined blocks.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn latest_nonce(&self, address: Address) -> Result<u64, RpcError> {
        self.quantity("eth_getTransactionCount", json!([address, "latest"])).await
    }

    /// The next nonce of `address` as of a block: below it every nonce is used at that depth.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn nonce_at(&self, address: Address, block: u64) -> Result<u64, RpcError> {
        self.quantity("eth_getTransactionCount", json!([address, format!("{block:#x}")])).await
    }

    /// The native balance of `address` in mined blocks.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn balance(&self, address: Address) -> Result<Wei, RpcError> {
        let answer = self.request("eth_getBalance", json!([address, "latest"])).await?;
        u256(&answer).map(Wei).ok_or_else(|| self.garbage("a balance is not a number"))
    }

    /// The code at `address`; empty for an account without code. An account with delegated code (EIP-7702) has code.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn code(&self, address: Address) -> Result<Bytes, RpcError> {
        let answer = self.request("eth_getCode", json!([address, "latest"])).await?;
        self.read(answer, "the code is not hex")
    }

    /// Whether there is code at `address`.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn has_code(&self, address: Address) -> Result<bool, RpcError> {
        Ok(!self.code(address).await?.is_empty())
    }

    /// The node's estimate of the gas limit, on the state with the pool's transactions (so an `approve` of ours that is not
    /// mined yet counts).
    ///
    /// # Errors
    /// [`RpcError`]; a call that reverts is [`RpcError::Node`] with the return data.
    pub async fn estimate_gas(&self, call: &TxRequest) -> Result<u64, RpcError> {
        self.quantity("eth_estimateGas", json!([call.to_json(), "pending"])).await
    }

    /// The latest block.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn head(&self) -> Result<Head, RpcError> {
        let answer = self.request("eth_getBlockByNumber", json!(["latest", false])).await?;
        self.read_head(answer)
    }

    pub(super) fn read_head(&self, answer: Value) -> Result<Head, RpcError> {
        self.read::<HeadJson>(answer, "a block header lacks a field").map(Head::from)
    }

    /// The block at a height; `None` above the head. For comparing its hash with a receipt's.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn block(&self, number: u64) -> Result<Option<Head>, RpcError> {
        let answer = self.request("eth_getBlockByNumber", json!([format!("{number:#x}"), false])).await?;
        let head: Option<HeadJson> = self.read(answer, "a block header lacks a field")?;
        match head {
            Some(head) if head.number.to::<u64>() != number => {
                Err(self.garbage("another block than the one asked for"))
            }
            head => Ok(head.map(Head::from)),
        }
    }

    /// The receipt, once the transaction is in a block; `None` before (or where the node does not know it).
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn receipt(&self, hash: B256) -> Result<Option<Receipt>, RpcError> {
        let answer = self.request("eth_getTransactionReceipt", json!([hash])).await?;
        self.read_receipt(hash, answer)
    }

    /// The receipts of several transactions, in their order, in one or a few HTTP requests.
    ///
    /// # Errors
    /// [`RpcError`], when any of them has no usable answer.
    pub async fn receipts(&self, hashes: &[B256]) -> Result<Vec<Option<Receipt>>, RpcError> {
        let calls: Vec<_> = hashes.iter().map(|hash| ("eth_getTransactionReceipt", json!([hash]))).collect();
        let answers = self.batch(&calls).await?;
        let pairs = hashes.iter().zip(answers);
        pairs.map(|(hash, answer)| self.read_receipt(*hash, answer.map_err(|error| self.node(error))?)).collect()
    }

    /// Several calls that answer a number, in their order.
    ///
    /// # Errors
    /// [`RpcError`], when any of them has no usable answer.
    pub async fn quantities(&self, calls: &[(&str, Value)]) -> Result<Vec<u64>, RpcError> {
        let answers = self.batch(calls).await?;
        let read = answers.into_iter().map(|answer| self.number(&answer.map_err(|error| self.node(error))?));
        read.collect()
    }

    /// The hashes of the blocks at these heights, as the node has them now; `None` above its head.
    ///
    /// # Errors
    /// [`RpcError`], when any of them has no usable answer.
    pub async fn block_hashes(&self, heights: &[u64]) -> Result<Vec<Option<B256>>, RpcError> {
        let calls: Vec<_> =
            heights.iter().map(|height| ("eth_getBlockByNumber", json!([format!("{height:#x}"), false]))).collect();
        let answers = self.batch(&calls).await?;
        let read = heights.iter().zip(answers).map(|(height, answer)| {
            let answer = answer.map_err(|error| self.node(error))?;
            match self.read::<Option<HeadJson>>(answer, "a block header lacks a field")? {
                Some(block) if block.number.to::<u64>() != *height => {
                    Err(self.garbage("another block than the one asked for"))
                }
                block => Ok(block.map(|block| block.hash)),
            }
        });
        read.collect()
    }

    /// Whether the node knows the transaction, mined or in its pool.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn transaction_known(&self, hash: B256) -> Result<bool, RpcError> {
        let answer = self.request("eth_getTransactionByHash", json!([hash])).await?;
        let transaction: Option<TransactionJson> = self.read(answer, "a transaction without a hash")?;
        match transaction {
            None => Ok(false),
            Some(transaction) if transaction.hash == hash => Ok(true),
            Some(_) => Err(self.garbage("another transaction than the one asked for")),
        }
    }

    async fn quantity<T: TryFrom<U256>>(&self, method: &'static str, params: Value) -> Result<T, RpcError> {
        self.number(&self.request(method, params).await?)
    }

    /// A hex quantity that fits.
    pub(super) fn number<T: TryFrom<U256>>(&self, answer: &Value) -> Result<T, RpcError> {
        let number = u256(answer).and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| self.garbage("not a number, or one beyond all reason"))
    }

    pub(super) fn read<T: DeserializeOwned>(&self, answer: Value, otherwise: &'static str) -> Result<T, RpcError> {
        serde_json::from_value(answer).map_err(|_| self.garbage(otherwise))
    }

    fn read_receipt(&self, hash: B256, answer: Value) -> Result<Option<Receipt>, RpcError> {
        let receipt: Option<ReceiptJson> = self.read(answer, "a receipt lacks a field")?;
        match receipt {
            Some(receipt) if receipt.transaction_hash != hash => Err(self.garbage("another transaction's receipt")),
            Some(receipt) => Ok(receipt.mined()),
            None => Ok(None),
        }
    }
}

#[derive(Deserialize)]
struct TransactionJson {
    hash: B256,
}

type Quantity64 = alloy::primitives::U64;
type Quantity128 = alloy::primitives::U128;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HeadJson {
    number: Quantity64,
    hash: B256,
    parent_hash: B256,
    timestamp: Quantity64,
    gas_limit: Quantity64,
    #[serde(default)]
    base_fee_per_gas: Option<Quantity128>,
}

impl From<HeadJson> for Head {
    fn from(head: HeadJson) -> Self {
        Self {
            number: head.number.to(),
            hash: head.hash,
            parent_hash: head.parent_hash,
            timestamp: head.timestamp.to(),
            gas_limit: head.gas_limit.to(),
            base_fee: head.base_fee_per_gas.map(|fee| fee.to()),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReceiptJson {
    transaction_hash: B256,
    #[serde(default)]
    block_number: Option<Quantity64>,
    #[serde(default)]
    block_hash: Option<B256>,
    status: Quantity64,
    gas_used: Quantity64,
    #[serde(default)]
    effective_gas_price: Option<Quantity128>,
    /// A receipt counts whatever its events look like.
    #[serde(default)]
    logs: Value,
}

impl ReceiptJson {
    /// Some nodes answer a receipt without a block for a transaction that is still in the pool: that is none yet.
    fn mined(self) -> Option<Receipt> {
        Some(Receipt {
            transaction_hash: self.transaction_hash,
            block_number: self.block_number?.to(),
            block_hash: self.block_hash?,
            success: self.status == Quantity64::from(1),
            gas_used: self.gas_used.to(),
            effective_gas_price: self.effective_gas_price.map(|price| price.to()),
            logs: serde_json::from_value(self.logs).unwrap_or_default(),
        })
    }
}
