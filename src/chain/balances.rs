//! What an address has of tokens, as their contracts say (ERC-20). A token may say anything: its words are bounded and never believed.

use alloy::primitives::{Address, Bytes, U256};
use alloy::sol_types::SolCall as _;
use serde_json::{Value, json};

use super::error::{NodeError, RpcError};
use super::rpc::Rpc;

mod abi {
    //! ERC-20's reading functions.
    alloy::sol! {
        #![sol(all_derives)]
        function balanceOf(address owner) external view returns (uint256);
        function decimals() external view returns (uint8);
        function symbol() external view returns (string);
    }
}

/// More decimals than any unit has; U256 has 78 digits.
const DECIMALS_MAX: u8 = 77;
/// Longest symbol that is shown, in characters.
const SYMBOL_CHARS_MAX: usize = 32;
/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 4096;

/// A token's answer about one owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBalance {
    /// In the token's smallest unit.
    pub raw: U256,
    /// Digits behind the point, where the token has that function.
    pub decimals: Option<u8>,
    /// Its own name for itself, where it has one that can be shown.
    pub symbol: Option<String>,
}

impl TokenBalance {
    /// The amount in whole tokens, exactly.
    #[must_use]
    pub fn in_units(&self, decimals: u8) -> String {
        let digits = format!("{:0>width$}", self.raw.to_string(), width = usize::from(decimals) + 1);
        let (whole, part) = digits.split_at(digits.len() - usize::from(decimals));
        let part = part.trim_end_matches('0');
        if part.is_empty() { whole.to_owned() } else { format!("{whole}.{part}") }
    }
}

impl Rpc {
    /// What `owner` has of each token, in their order. A contract that does not answer as a token does is an error of its own.
    ///
    /// # Errors
    /// [`RpcError`], when the node cannot be asked.
    pub async fn token_balances(
        &self,
        owner: Address,
        tokens: &[Address],
    ) -> Result<Vec<Result<TokenBalance, &'static str>>, RpcError> {
        let call = |token: &Address, data: Vec<u8>| {
            ("eth_call", json!([{ "to": token, "data": Bytes::from(data) }, "latest"]))
        };
        let ask = |token: &Address| {
            [
                call(token, abi::balanceOfCall { owner }.abi_encode()),
                call(token, abi::decimalsCall {}.abi_encode()),
                call(token, abi::symbolCall {}.abi_encode()),
            ]
        };
        let calls: Vec<(&str, Value)> = tokens.iter().flat_map(ask).collect();
        let answers = self.batch(&calls).await?;
        Ok(answers.chunks(3).map(read).collect())
    }
}

fn read(answers: &[Result<Value, NodeError>]) -> Result<TokenBalance, &'static str> {
    const NO_TOKEN: &str = "there is no ERC-20 token at this address";
    let [balance, decimals, symbol] = answers else { return Err(NO_TOKEN) };
    let raw = bytes(balance).and_then(|data| abi::balanceOfCall::abi_decode_returns(&data).ok()).ok_or(NO_TOKEN)?;
    let decimals = bytes(decimals).and_then(|data| abi::decimalsCall::abi_decode_returns(&data).ok());
    let symbol = bytes(symbol).and_then(|data| abi::symbolCall::abi_decode_returns(&data).ok());
    let shown = |text: String| text.chars().filter(|c| !c.is_control()).take(SYMBOL_CHARS_MAX).collect::<String>();
    Ok(TokenBalance {
        raw,
        decimals: decimals.filter(|decimals| *decimals <= DECIMALS_MAX),
        symbol: symbol.map(shown).filter(|text| !text.is_empty()),
    })
}

fn bytes(answer: &Result<Value, NodeError>) -> Option<Bytes> {
    let text = answer.as_ref().ok()?.as_str()?;
    if text.len() > 2 * ANSWER_BYTES_MAX { None } else { text.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_exactly() {
        let of = |raw: u128| TokenBalance { raw: U256::from(raw), decimals: None, symbol: None };
        for (raw, decimals, text) in [
            (0, 0, "0"),
            (0, 6, "0"),
            (1, 6, "0.000001"),
            (1_500_000, 6, "1.5"),
            (123, 0, "123"),
            (1_000_000, 6, "1"),
            (12, 2, "0.12"),
        ] {
            assert_eq!(of(raw).in_units(decimals), text, "{raw} {decimals}");
        }
    }

    #[test]
    fn a_contract_that_is_no_token_is_told_so_and_a_strange_one_is_bounded() {
        let refused = NodeError { code: 3, message: "execution reverted".to_owned(), data: None };
        let word = |n: u64| Ok(json!(format!("0x{n:064x}")));
        let none = [Ok(json!("0x")), Ok(json!("0x")), Ok(json!("0x"))];
        assert!(read(&none).is_err());
        assert!(read(&[Err(refused.clone()), word(18), word(0)]).is_err());
        let odd = read(&[word(7), word(200), Ok(json!(format!("0x{}", "00".repeat(5000))))]).unwrap();
        assert_eq!(odd, TokenBalance { raw: U256::from(7), decimals: None, symbol: None });
        let long = abi::symbolCall::abi_encode_returns(&format!("A\n{}", "B".repeat(100)));
        let named = read(&[word(7), Err(refused), Ok(json!(Bytes::from(long)))]).unwrap();
        assert_eq!(named.symbol, Some(format!("A{}", "B".repeat(31))));
    }
}
