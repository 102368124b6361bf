//! From what moved to what is shown: balances before, symbols and decimals, read in one batch.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{Address, Bytes, U256};
use serde_json::{Value, json};

use super::backend::{End, Outcome, Run};
use super::effects::{Delta, Moved, Position};
use super::revert::{Reason, clean};
use super::{BalanceChange, SimulateError, Simulation, SimulationStatus};
use crate::chain::{ChainSpec, Rpc};
use crate::ids::SimulationId;

/// Most balances that are read; further changes are shown without.
const POSITIONS_MAX: usize = 64;
/// Most tokens whose symbol and decimals are read.
const TOKENS_MAX: usize = 32;
/// Longest symbol that is shown, in characters.
const SYMBOL_CHARS_MAX: usize = 32;
/// A token with more decimals than 2^256 has digits does not know what it says.
const DECIMALS_MAX: u8 = 77;

const BALANCE_OF: [u8; 4] = [0x70, 0xa0, 0x82, 0x31];
const SYMBOL: [u8; 4] = [0x95, 0xd8, 0x9b, 0x41];
const DECIMALS: [u8; 4] = [0x31, 0x3c, 0xe5, 0x67];

/// What the node says about the assets and accounts that moved.
#[derive(Default)]
struct Known {
    balances: BTreeMap<Position, U256>,
    symbols: BTreeMap<Address, String>,
    decimals: BTreeMap<Address, u8>,
}

/// Makes the results of a run, in its order.
pub(super) async fn finish(spec: &ChainSpec, rpc: &Rpc, run: Run) -> Result<Vec<Simulation>, SimulateError> {
    let known = read(rpc, &run).await?;
    let simulated_at = crate::clock::now();
    let mut before = run.prior;
    let mut simulations = Vec::with_capacity(run.outcomes.len());
    for outcome in run.outcomes {
        let balance_changes =
            outcome.moved.changes().map(|(position, delta)| known.change(spec, &before, position, delta)).collect();
        before.merge(&outcome.moved);
        let (status, error_code, error, revert_reason) = explain(&outcome);
        simulations.push(Simulation {
            id: SimulationId::random(),
            status,
            gas_used: outcome.gas_used,
            balance_changes,
            error_code,
            error,
            revert_reason,
            output: outcome.output,
            logs: outcome.logs,
            method: run.method,
            simulated_at,
        });
    }
    Ok(simulations)
}

type Explained = (SimulationStatus, Option<&'static str>, Option<String>, Option<String>);

fn explain(outcome: &Outcome) -> Explained {
    match &outcome.end {
        End::Success => (SimulationStatus::Success, None, None, None),
        End::Reverted => {
            let reason = Reason::decode(&outcome.output).to_string();
            let error = format!("execution reverted: {reason}");
            (SimulationStatus::Reverted, Some("execution_reverted"), Some(error), Some(reason))
        }
        End::Halted(words) => {
            let out_of_gas = words.to_lowercase().replace(' ', "").contains("outofgas");
            let (code, error) = match (out_of_gas, words.as_str()) {
                (true, _) => ("out_of_gas", "out of gas".to_owned()),
                (false, "" | "execution failed") => {
                    ("execution_failed", "execution failed, without a reason".to_owned())
                }
                (false, words) => ("execution_failed", format!("execution failed: {}", clean(words))),
            };
            (SimulationStatus::Reverted, Some(code), Some(error), None)
        }
        End::Refused(code, words) => (SimulationStatus::Error, Some(code), Some(clean(words)), None),
    }
}

impl Known {
    fn change(&self, spec: &ChainSpec, prior: &Moved, position: Position, delta: Delta) -> BalanceChange {
        let (address, token) = position;
        let (token_symbol, decimals) = match token {
            None => (Some(spec.native_currency.clone()), 18),
            Some(token) => (self.symbols.get(&token).cloned(), self.decimals.get(&token).copied().unwrap_or(0)),
        };
        let before = self.balances.get(&position).map(|balance| Delta::gain(*balance).plus(prior.of(position)));
        BalanceChange {
            address,
            token,
            token_symbol,
            decimals,
            before: before.map(|before| before.to_units(decimals)),
            after: before.map(|before| before.plus(delta).to_units(decimals)),
            change: delta.to_signed_units(decimals),
            delta,
        }
    }
}

async fn read(rpc: &Rpc, run: &Run) -> Result<Known, SimulateError> {
    let positions: BTreeSet<Position> =
        run.outcomes.iter().flat_map(|outcome| outcome.moved.changes()).map(|(position, _)| position).collect();
    let tokens: BTreeSet<Address> = positions.iter().filter_map(|(_, token)| *token).take(TOKENS_MAX).collect();
    let positions: Vec<Position> = positions.into_iter().take(POSITIONS_MAX).collect();

    let mut calls: Vec<(&str, Value)> = Vec::new();
    for (address, token) in &positions {
        calls.push(match token {
            None => ("eth_getBalance", json!([address, "latest"])),
            Some(token) => view(*token, &[&BALANCE_OF[..], address.into_word().as_slice()].concat()),
        });
    }
    for token in &tokens {
        calls.extend([view(*token, &SYMBOL), view(*token, &DECIMALS)]);
    }

    let mut answers = rpc.batch(&calls).await?.into_iter();
    let mut next = || answers.next()?.ok().and_then(|value| value.as_str().map(str::to_owned));
    let mut known = Known::default();
    for (address, token) in positions {
        let balance = next().and_then(|text| match token {
            None => text.parse().ok(),
            Some(_) => word(&text),
        });
        known.balances.extend(balance.map(|balance| ((address, token), balance)));
    }
    for token in tokens {
        known.symbols.extend(next().and_then(|text| symbol(&text)).map(|symbol| (token, symbol)));
        let decimals = next().and_then(|text| word(&text)).and_then(|word| u8::try_from(word).ok());
        known.decimals.extend(decimals.filter(|decimals| *decimals <= DECIMALS_MAX).map(|decimals| (token, decimals)));
    }
    Ok(known)
}

fn view(token: Address, data: &[u8]) -> (&'static str, Value) {
    ("eth_call", json!([{"to": token, "data": Bytes::copy_from_slice(data)}, "latest"]))
}

/// The first word of return data.
fn word(text: &str) -> Option<U256> {
    let data: Bytes = text.parse().ok()?;
    data.first_chunk::<32>().map(|word| U256::from_be_bytes(*word))
}

/// `string`, or the `bytes32` of early tokens.
fn symbol(text: &str) -> Option<String> {
    use alloy::sol_types::{SolType, sol_data};
    let data: Bytes = text.parse().ok()?;
    let text = match data.len() {
        32 => String::from_utf8_lossy(&data).trim_end_matches('\0').to_owned(),
        _ => sol_data::String::abi_decode(&data).ok()?,
    };
    let symbol: String = clean(&text).trim().chars().take(SYMBOL_CHARS_MAX).collect();
    (!symbol.is_empty()).then_some(symbol)
}
