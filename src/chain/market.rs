//! What is asked before something is signed: prices, the head, an account's counts and balance. One HTTP request and one node each, so
//! that what is put together belongs together.

use alloy::primitives::{Address, Bytes, U256};
use serde_json::{Value, json};

use super::error::{NodeError, RpcError};
use super::fees::FeeQuote;
use super::node::Head;
use super::rpc::Rpc;
use crate::money::Wei;

/// The latest block and the prices that go with it.
#[derive(Clone, Copy, Debug)]
pub struct Market {
    /// Bound by ceilings in [`super::fees::choose`].
    pub quote: FeeQuote,
    /// The latest block.
    pub head: Head,
}

/// An account, and the market at the same moment.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    /// The next nonce, transactions in the node's pool counted. A floor, not the truth: pools forget.
    pub pending_nonce: u64,
    /// The next nonce in mined blocks.
    pub latest_nonce: u64,
    /// The native balance in mined blocks.
    pub balance: Wei,
    /// Whether there is code where that was asked for. Delegated code (EIP-7702) is code.
    pub has_code: Option<bool>,
    /// Prices and head.
    pub market: Market,
}

type Call = (&'static str, Value);
type Answer = Result<Value, NodeError>;

fn market_calls() -> [Call; 3] {
    [
        ("eth_getBlockByNumber", json!(["latest", false])),
        ("eth_gasPrice", json!([])),
        ("eth_maxPriorityFeePerGas", json!([])),
    ]
}

impl Rpc {
    /// Prices as this node quotes them, with its latest block.
    ///
    /// # Errors
    /// [`RpcError`]. That the node has no `eth_maxPriorityFeePerGas` is not one: the tip is then what its gas price has above the base fee.
    pub async fn market(&self) -> Result<Market, RpcError> {
        let answers = self.batch(&market_calls()).await?;
        self.read_market(&mut answers.into_iter())
    }

    /// An account's standing with the market, and whether there is code at `code_at`.
    ///
    /// # Errors
    /// [`RpcError`].
    pub async fn account(&self, address: Address, code_at: Option<Address>) -> Result<Account, RpcError> {
        let mut calls = Vec::with_capacity(7);
        calls.extend(market_calls());
        calls.push(("eth_getTransactionCount", json!([address, "pending"])));
        calls.push(("eth_getTransactionCount", json!([address, "latest"])));
        calls.push(("eth_getBalance", json!([address, "latest"])));
        calls.extend(code_at.map(|address| ("eth_getCode", json!([address, "latest"]))));
        let mut answers = self.batch(&calls).await?.into_iter();
        let market = self.read_market(&mut answers)?;
        Ok(Account {
            market,
            pending_nonce: self.number(&self.result(answers.next())?)?,
            latest_nonce: self.number(&self.result(answers.next())?)?,
            balance: Wei(self.number::<U256>(&self.result(answers.next())?)?),
            has_code: match code_at {
                Some(_) => Some(!self.read::<Bytes>(self.result(answers.next())?, "the code is not hex")?.is_empty()),
                None => None,
            },
        })
    }

    fn read_market(&self, answers: &mut impl Iterator<Item = Answer>) -> Result<Market, RpcError> {
        let head = self.read_head(self.result(answers.next())?)?;
        let gas_price: u128 = self.number(&self.result(answers.next())?)?;
        let tip = match answers.next() {
            Some(Err(_)) => None,
            tip => Some(self.number(&self.result(tip)?)?),
        };
        let above_base = gas_price.saturating_sub(head.base_fee.unwrap_or_default());
        let quote = FeeQuote { base_fee: head.base_fee, gas_price, priority_fee: tip.unwrap_or(above_base) };
        Ok(Market { quote, head })
    }

    fn result(&self, answer: Option<Answer>) -> Result<Value, RpcError> {
        answer.unwrap_or(Ok(Value::Null)).map_err(|error| self.node(error))
    }
}
