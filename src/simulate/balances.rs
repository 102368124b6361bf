//! From what moved to what is shown: balances before, symbols and decimals, read in one batch.

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{Address, Bytes, U256};
use serde_json::{Value, json};

use super::effects::{Delta, Moved, Position};
use super::node::{End, Outcome, Run};
use super::revert::{Reason, clean};
use super::{BalanceChange, Method, SimulateError, Simulation, SimulationStatus, Trial};
use crate::chain::{ChainSpec, Rpc, RpcError, Unreachable};
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
pub(super) struct Known {
    balances: BTreeMap<Position, U256>,
    pub(super) symbols: BTreeMap<Address, String>,
    pub(super) decimals: BTreeMap<Address, u8>,
}

/// Makes the results of a run, in its order: one for each outcome.
pub(super) async fn finish(
    spec: &ChainSpec,
    rpc: &Rpc,
    run: Run,
    trials: &[Trial],
) -> Result<Vec<Simulation>, SimulateError> {
    let known = read(rpc, &run).await?;
    let mut before = run.prior;
    let mut simulations = Vec::with_capacity(run.outcomes.len());
    for (outcome, trial) in run.outcomes.into_iter().zip(trials) {
        let balance_changes =
            outcome.moved.changes().map(|(position, delta)| known.change(spec, &before, position, delta)).collect();
        before.merge(&outcome.moved);
        let explained = explain(&outcome);
        simulations.push(Simulation {
            id: outcome.id.unwrap_or_else(SimulationId::random),
            gas_used: outcome.gas_used,
            balance_changes,
            dashboard_url: outcome.dashboard_url,
            output: outcome.output,
            logs: outcome.logs,
            method: run.method,
            complete: outcome.complete,
            checked_hash: trial.paid.then(|| trial.tx.checked_hash()),
            ..explained
        });
    }
    if simulations.is_empty() { Err(garbage(rpc)) } else { Ok(simulations) }
}

fn garbage(rpc: &Rpc) -> SimulateError {
    let cause = Unreachable::Garbage("no result for the transaction");
    RpcError::Unreachable { chain: rpc.chain().to_owned(), cause }.into()
}

/// A result that nobody was asked for.
pub(super) fn local(code: &'static str, error: String) -> Simulation {
    explain(&Outcome::ended(End::Refused(code, error)))
}

/// For people: a contract said no.
pub(super) fn contract_refused(reason: &str) -> String {
    format!("The contract refuses this transaction: {reason}")
}

/// How it ended and why, with nothing else in it yet.
fn explain(outcome: &Outcome) -> Simulation {
    let mut simulation = Simulation {
        id: SimulationId::random(),
        status: SimulationStatus::Success,
        gas_used: 0,
        balance_changes: Vec::new(),
        error_code: None,
        error: None,
        error_human_readable: None,
        revert_reason: None,
        dashboard_url: None,
        output: Bytes::new(),
        logs: Vec::new(),
        method: Method::Local,
        simulated_at: crate::clock::now(),
        complete: outcome.complete,
        checked_hash: None,
    };
    let mut failed = |status, code, error: String, human: String| {
        simulation.status = status;
        simulation.error_code = Some(code);
        simulation.error = Some(error);
        simulation.error_human_readable = Some(human);
    };
    match &outcome.end {
        End::Success => {}
        End::Reverted => {
            let reason = match (&outcome.reason, Reason::decode(&outcome.output)) {
                (Some(told), Reason::Empty) => clean(told),
                (_, decoded) => decoded.to_string(),
            };
            let error = format!("execution reverted: {reason}");
            failed(SimulationStatus::Reverted, "execution_reverted", error, contract_refused(&reason));
            simulation.revert_reason = Some(reason);
        }
        End::Halted(words) => {
            let out_of_gas = words.to_lowercase().replace(' ', "").contains("outofgas");
            let (code, error, human) = match (out_of_gas, words.as_str()) {
                (true, _) => ("out_of_gas", "out of gas".to_owned(), "It runs out of gas: it needs a higher gas_limit"),
                (false, "" | "execution failed") => (
                    "execution_failed",
                    "execution failed, without a reason".to_owned(),
                    "The contract's code fails, without saying why",
                ),
                (false, words) => {
                    ("execution_failed", format!("execution failed: {}", clean(words)), "The contract's code fails")
                }
            };
            failed(SimulationStatus::Reverted, code, error, human.to_owned());
        }
        End::Refused(code, words) => {
            let human = match *code {
                "insufficient_funds" => "The key has not enough funds for the value and the fee",
                "intrinsic_gas" => "Its gas_limit is below what any such transaction costs",
                "gas_limit" => "Its gas_limit is above what the chain allows",
                "fee_below_base_fee" => "It offers less per gas than any block takes now",
                _ => "No block would take this transaction",
            };
            failed(SimulationStatus::Error, *code, clean(words), human.to_owned());
        }
    }
    simulation
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

async fn read(rpc: &Rpc, run: &Run) -> Result<Known, RpcError> {
    let positions: BTreeSet<Position> =
        run.outcomes.iter().flat_map(|outcome| outcome.moved.changes()).map(|(position, _)| position).collect();
    let tokens: BTreeSet<Address> = positions.iter().filter_map(|(_, token)| *token).collect();
    ask(rpc, positions, tokens).await
}

/// Balances on mined blocks, and what tokens say of themselves; a bounded number of each.
pub(super) async fn ask(
    rpc: &Rpc,
    positions: BTreeSet<Position>,
    tokens: BTreeSet<Address>,
) -> Result<Known, RpcError> {
    let positions: Vec<Position> = positions.into_iter().take(POSITIONS_MAX).collect();
    let tokens: Vec<Address> = tokens.into_iter().take(TOKENS_MAX).collect();

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
