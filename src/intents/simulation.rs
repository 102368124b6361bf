//! `POST …/transactions/simulate` and `/simulate-bundle`: what intents would do and what the guardrails would say, with nothing signed
//! and nothing reserved. They walk the pipeline as far as a submit would walk it without a lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::Address;
use serde_json::{Map, Value, json};

use super::authorise::{self, Authorised};
use super::check::{self, Gas};
use super::error::IntentError;
use super::lanes::Lane;
use super::parse::{self, Kind, ParseError, Request};
use super::refuse;
use super::store;
use super::verdict::Judge;
use crate::access::Principal;
use crate::agents::Agent;
use crate::app::App;
use crate::audit::{self, Event, Resource};
use crate::chain::fees::{self, FeeError};
use crate::chain::{Chain, FeeQuote, Fees, Head, Market, Rpc, UnsignedTx};
use crate::contracts;
use crate::ids::AgentId;
use crate::money::Wei;
use crate::simulate::local::{self, Facts};
use crate::simulate::{self, BUNDLE_MAX, Simulation, SimulationStatus, Trial, UNMINED_MAX, price, settings};
use crate::vaults::keys::SigningKey;

/// One intent: the SimulationResponse with the guardrails' verdict.
///
/// # Errors
/// [`IntentError`]: not allowed, not usable, or could not be checked. That it would fail is an answer.
pub async fn one(
    app: &Arc<App>,
    principal: &Principal,
    agent_id: AgentId,
    body: &Map<String, Value>,
) -> Result<Value, IntentError> {
    let shown = recorded(app, principal, agent_id, async {
        let request = read(app, body)?;
        run(app, principal, agent_id, vec![request]).await
    })
    .await?;
    Ok(shown.into_iter().next().unwrap_or_default())
}

/// Several intents of one chain in order, each on the state that the one before left: results up to the first that fails.
///
/// # Errors
/// As [`one`].
pub async fn bundle(
    app: &Arc<App>,
    principal: &Principal,
    agent_id: AgentId,
    body: &Map<String, Value>,
) -> Result<Value, IntentError> {
    let shown = recorded(app, principal, agent_id, async {
        let requests = read_bundle(app, body)?;
        run(app, principal, agent_id, requests).await
    })
    .await?;
    let violations: Vec<&Value> =
        shown.iter().filter_map(|one| one["guardrails"]["violations"].as_array()).flatten().collect();
    let guardrails = json!({ "allowed": violations.is_empty(), "violations": violations });
    Ok(json!({ "simulations": shown, "guardrails": guardrails }))
}

/// A refusal is written down too.
async fn recorded(
    app: &Arc<App>,
    principal: &Principal,
    agent_id: AgentId,
    work: impl Future<Output = Result<Vec<Value>, IntentError>>,
) -> Result<Vec<Value>, IntentError> {
    let deadline = Duration::from_millis(app.config.intents.read_deadline_ms);
    let result = tokio::time::timeout(deadline, work).await.unwrap_or_else(|_| {
        Err(IntentError::could_not_check(format!("the simulation was not done within {} ms", deadline.as_millis())))
    });
    if let Err(error) = &result {
        tracing::info!(agent = %agent_id, why = error.label(), "simulation refused: {error}");
        refuse::record(app, principal, agent_id, Kind::Simulate, None, error).await;
    }
    result
}

fn read(app: &App, body: &Map<String, Value>) -> Result<Request, ParseError> {
    parse::parse(Kind::Simulate, body, |text| app.chains.get(text).map(|chain| chain.spec().chain_id))
}

fn read_bundle(app: &App, body: &Map<String, Value>) -> Result<Vec<Request>, ParseError> {
    let Some(Value::Array(items)) = body.get("transactions") else {
        return Err(ParseError("transactions: is missing: it must be an array of transactions".to_owned()));
    };
    if items.is_empty() || items.len() > BUNDLE_MAX {
        return Err(ParseError(format!("transactions: must be 1 to {BUNDLE_MAX}, not {}", items.len())));
    }
    let mut requests = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let place = |text: &str| ParseError(format!("transactions[{index}]: {text}"));
        let object = item.as_object().ok_or_else(|| place("must be an object"))?;
        requests.push(read(app, object).map_err(|error| place(&error.0))?);
    }
    let chain_id = requests[0].chain_id;
    match requests.iter().position(|request| request.chain_id != chain_id) {
        None => Ok(requests),
        Some(other) => Err(ParseError(format!("transactions[{other}]: chain: all of a bundle run on one chain"))),
    }
}

/// A request with who signs it, as far as the chain has been asked.
struct Step {
    request: Request,
    key: SigningKey,
    /// The transaction, or why there is none.
    planned: Result<Trial, Refused>,
}

/// What needs no simulation to be told.
struct Refused {
    code: &'static str,
    error: String,
    /// The rule that it would break.
    rule: Option<String>,
}

impl Refused {
    fn new(code: &'static str, error: impl std::fmt::Display) -> Self {
        Self { code, error: error.to_string(), rule: None }
    }
}

async fn run(
    app: &Arc<App>,
    principal: &Principal,
    agent_id: AgentId,
    requests: Vec<Request>,
) -> Result<Vec<Value>, IntentError> {
    let mut allowed: Vec<(Authorised, SigningKey)> = Vec::with_capacity(requests.len());
    let asker = authorise::admit(app, principal, agent_id)?;
    let mut conn = app.db.acquire().await?;
    for request in requests {
        let authorised = authorise::authorise(app, &mut conn, &asker, request).await?;
        let key = authorise::find_key(&mut conn, &authorised).await?;
        allowed.push((authorised, key));
    }
    drop(conn);
    let Some((first, _)) = allowed.first() else { return Ok(Vec::new()) };
    let (agent, chain) = (first.agent().clone(), Arc::clone(first.chain()));
    let unreachable = |error: &dyn std::fmt::Display| IntentError::could_not_check(error.to_string());
    let rpc = chain.rpc().await.map_err(|error| unreachable(&error))?;
    let Market { quote, head } = rpc.market().await.map_err(|error| unreachable(&error))?;

    let mut steps = Vec::with_capacity(allowed.len());
    for (index, (authorised, key)) in allowed.into_iter().enumerate() {
        let request = authorised.into_request();
        let planned = plan(&chain, rpc, &agent, &request, key.address, (&quote, &head), index == 0).await?;
        steps.push(Step { request, key, planned });
    }
    let mut prior = Priors::default();
    for step in &steps {
        prior.add(app, rpc, &chain, step.key.address).await?;
    }
    let simulations = simulate_steps(app, &chain, &agent, &mut steps, &prior, &quote, &head).await?;
    let shown = show(app, &chain, rpc, &agent, &steps, simulations, &quote).await?;
    record(app, principal, agent_id, &chain, &steps, &shown).await?;
    Ok(shown)
}

/// The transaction that a submit would make. Where its gas can only be guessed (it would fail, or rests on one before it in the bundle)
/// it is a trial that is not held against fee and balance.
async fn plan(
    chain: &Chain,
    rpc: &Rpc,
    agent: &Agent,
    request: &Request,
    from: Address,
    (quote, head): (&FeeQuote, &Head),
    first: bool,
) -> Result<Result<Trial, Refused>, IntentError> {
    let spec = chain.spec();
    let fees = match fees::choose(request.fees, quote, check::ceilings(agent, spec)) {
        Ok(fees) => fees,
        Err(error @ (FeeError::BelowBaseFee { .. } | FeeError::NoBaseFee)) => {
            return Ok(Err(Refused::new("fee_below_base_fee", error)));
        }
        Err(error @ FeeError::AboveCeiling { .. }) => {
            let rule = Some(error.to_string());
            return Ok(Err(Refused { rule, ..Refused::new("fee_above_ceiling", error) }));
        }
        Err(error) => return Err(error.into()),
    };
    let gas = if first || check::is_plain(spec.kind, request) {
        check::gas_limit(chain, rpc, request, from, None).await?
    } else {
        request.gas_limit.map_or_else(|| Gas::WouldFail(String::new()), Gas::Limit)
    };
    let (gas_limit, paid) = match gas {
        Gas::Limit(limit) => (limit, true),
        Gas::WouldFail(_) => (check::most_gas(spec, head), false),
    };
    let tx = UnsignedTx {
        chain_id: spec.chain_id,
        from,
        to: request.to,
        value: request.value,
        data: request.data.clone(),
        gas_limit,
        fees,
    };
    Ok(Ok(Trial { tx, paid }))
}

/// What goes before the simulated ones: the unmined transactions of their keys.
#[derive(Default)]
struct Priors {
    unmined: Vec<UnsignedTx>,
    /// One of them is only signed, and may never be sent.
    withheld: bool,
    /// Balance, and what the unmined ones can still cost.
    funds: BTreeMap<Address, (Wei, Wei)>,
}

impl Priors {
    async fn add(&mut self, app: &App, rpc: &Rpc, chain: &Chain, address: Address) -> Result<(), IntentError> {
        if self.funds.contains_key(&address) {
            return Ok(());
        }
        let lane = Lane { chain_id: chain.spec().chain_id, address };
        let unreachable = |error: crate::chain::RpcError| IntentError::could_not_check(error.to_string());
        let (balance, latest, pending) =
            tokio::try_join!(rpc.balance(address), rpc.latest_nonce(address), rpc.pending_nonce(address))
                .map_err(unreachable)?;
        let mut conn = app.db.acquire().await?;
        let (open_cost, _) = store::open_cost(&mut conn, lane, latest).await?;
        let own = store::likely_nonce(&mut conn, lane, pending, latest).await?;
        for row in store::ahead_of(&mut conn, lane, latest, own, UNMINED_MAX as u64 + 1).await? {
            self.withheld |= row.withheld;
            self.unmined.push(row.tx);
        }
        self.funds.insert(address, (balance, open_cost));
        Ok(())
    }
}

/// Simulates what can be simulated; what is refused without asking ends the list.
async fn simulate_steps(
    app: &Arc<App>,
    chain: &Chain,
    agent: &Agent,
    steps: &mut [Step],
    prior: &Priors,
    quote: &FeeQuote,
    head: &Head,
) -> Result<Vec<Simulation>, IntentError> {
    let spec = chain.spec();
    let mut trials = Vec::with_capacity(steps.len());
    let mut refused = None;
    for (index, step) in steps.iter_mut().enumerate() {
        let (balance, taken) = prior.funds.get(&step.key.address).copied().unwrap_or_default();
        // What the ones before it bring or take cannot be told here.
        let balance = if index == 0 { balance } else { Wei(alloy::primitives::U256::MAX) };
        let facts = Facts {
            kind: spec.kind,
            unit: &spec.native_currency,
            chain_gas_max: spec.max_gas_limit,
            block_gas_limit: head.gas_limit,
            base_fee: quote.base_fee,
            balance,
            taken,
        };
        let planned = match &step.planned {
            Ok(trial) => match local::refusal(trial, &facts) {
                None => {
                    trials.push(trial.clone());
                    continue;
                }
                Some((code, error)) => (code, error),
            },
            Err(Refused { code, error, .. }) => (*code, error.clone()),
        };
        refused = Some(simulate::refused_locally(planned.0, planned.1));
        break;
    }
    let mut simulations = Vec::with_capacity(steps.len());
    if !trials.is_empty() {
        let backend = settings::backend(app, agent.org_id).await?;
        simulations = simulate::simulate_bundle(&backend, chain, &prior.unmined, &trials).await?;
        if prior.withheld {
            simulations = simulations.into_iter().map(Simulation::without_effects).collect();
        }
    }
    let all_good = simulations.iter().all(|simulation| simulation.status == SimulationStatus::Success);
    if simulations.len() == trials.len() && all_good {
        simulations.extend(refused);
    }
    for (simulation, step) in simulations.iter_mut().zip(steps.iter()) {
        contracts::name_error(app, agent.org_id, simulation, step.request.to).await;
    }
    Ok(simulations)
}

/// The transaction with the gas limit that a submit would choose by what was used, and the fee that it could cost at most.
fn paid_tx(step: &Step, simulation: &Simulation) -> Option<(UnsignedTx, Wei)> {
    let trial = step.planned.as_ref().ok()?;
    let gas_limit = if trial.paid {
        trial.tx.gas_limit
    } else {
        let used = Some(simulation.gas_used).filter(|used| *used > 0)?;
        used.saturating_add(used / 5)
    };
    let tx = UnsignedTx { gas_limit, ..trial.tx.clone() };
    let max_fee = tx.max_fee()?;
    Some((tx, max_fee))
}

async fn show(
    app: &App,
    chain: &Chain,
    rpc: &Rpc,
    agent: &Agent,
    steps: &[Step],
    simulations: Vec<Simulation>,
    quote: &FeeQuote,
) -> Result<Vec<Value>, IntentError> {
    let now_s = u64::try_from(crate::clock::now().unix_timestamp()).unwrap_or_default();
    let usd_per_unit = price::usd_per_unit(chain.spec(), rpc, now_s).await;
    let mut judge = Judge::new(app, agent, chain.spec());
    let mut shown = Vec::with_capacity(simulations.len());
    for (step, simulation) in steps.iter().zip(simulations) {
        let paid = paid_tx(step, &simulation);
        let tx = paid.as_ref().map(|(tx, max_fee)| (tx, *max_fee));
        let mut verdict = judge.judge(&step.request, step.key.address, tx, &simulation).await?;
        if let Err(Refused { rule: Some(rule), .. }) = &step.planned {
            verdict.violations.push(rule.clone());
        }
        let fees: Option<Fees> = step.planned.as_ref().ok().map(|trial| trial.tx.fees);
        let usd = usd_per_unit
            .zip(fees.filter(|_| simulation.gas_used > 0))
            .and_then(|(price, fees)| price::gas_in_usd(simulation.gas_used, fees, quote, price));
        let mut body = json!(simulation);
        if let Some(usd) = usd {
            body["gas_estimate_usd"] = json!(usd);
        }
        body["guardrails"] = verdict.show();
        shown.push(body);
    }
    Ok(shown)
}

/// The audit row: one for each request.
async fn record(
    app: &App,
    principal: &Principal,
    agent_id: AgentId,
    chain: &Chain,
    steps: &[Step],
    shown: &[Value],
) -> Result<(), IntentError> {
    let each: Vec<Value> = steps
        .iter()
        .zip(shown)
        .map(|(step, shown)| {
            json!({
                "from": step.key.address.to_string(),
                "to": step.request.to.to_string(),
                "value_wei": step.request.value.to_string(),
                "simulation_id": shown["simulation_id"],
                "status": shown["status"],
                "allowed": shown["guardrails"]["allowed"],
            })
        })
        .collect();
    let event = Event::by(principal, Kind::Simulate.action(), Resource::new("agent", agent_id))
        .with("outcome", "simulated")
        .with("chain", chain.spec().name.as_str())
        .with("transactions", each);
    let mut conn = app.db.acquire().await?;
    audit::record(&mut conn, event).await?;
    Ok(())
}
