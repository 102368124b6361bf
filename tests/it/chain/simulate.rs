//! Simulations on a real anvil, by each method that a node may have.

use std::sync::Arc;

use alloy::primitives::{Address, Bytes, U256};
use intentd::chain::{Chain, ChainId, ChainUnavailable, Fees, RpcError, SendOutcome, UnsignedTx};
use intentd::money::Wei;
use intentd::simulate::{self, Backend, Method, SimulateError, Simulation, SimulationStatus, Trial};
use serde_json::{Value, json};

use super::contracts;
use super::tx::sign;
use crate::harness::anvil::{Anvil, AnvilOptions, OTHER, RICH};
use crate::harness::rpc_proxy::{Act, RpcProxy};

async fn simulate(chain: &Chain, prior: &[UnsignedTx], tx: &UnsignedTx) -> Result<Simulation, SimulateError> {
    simulate::simulate(&Backend::Node, chain, prior, tx).await
}

async fn simulate_bundle(
    chain: &Chain,
    prior: &[UnsignedTx],
    txs: &[UnsignedTx],
) -> Result<Vec<Simulation>, SimulateError> {
    let trials: Vec<Trial> = txs.iter().map(|tx| Trial { tx: tx.clone(), paid: true }).collect();
    simulate::simulate_bundle(&Backend::Node, chain, prior, &trials).await
}

const CONTRACT: Address = Address::repeat_byte(0xc0);
const EMPTY: Address = Address::repeat_byte(0x11);
const ETH: u128 = 1_000_000_000_000_000_000;

fn tx(to: Address, wei: u128, data: &[u8]) -> UnsignedTx {
    UnsignedTx {
        chain_id: ChainId(31337),
        from: RICH,
        to,
        value: Wei::from(wei),
        data: Bytes::copy_from_slice(data),
        gas_limit: 200_000,
        fees: Fees::Legacy { gas_price: 2_000_000_000 },
    }
}

/// A node with all methods, one without `eth_simulateV1`, one without `debug_traceCall` too.
struct Nodes {
    anvil: Anvil,
    proxies: Vec<RpcProxy>,
    chains: Vec<(Method, Arc<Chain>)>,
}

impl Nodes {
    fn start() -> Self {
        Self::before(Anvil::start(31337))
    }

    fn before(anvil: Anvil) -> Self {
        let lacking: [(Method, &[&str]); 3] = [
            (Method::SimulateV1, &[]),
            (Method::TraceCall, &["eth_simulateV1"]),
            (Method::Call, &["eth_simulateV1", "debug_traceCall"]),
        ];
        let mut proxies = Vec::new();
        let mut chains = Vec::new();
        for (method, missing) in lacking {
            let proxy = RpcProxy::start(&anvil.url());
            for name in missing {
                proxy.on(name, Act::error(-32601, &format!("the method {name} does not exist/is not available")));
            }
            chains.push((method, anvil.chain_at("anvil", &proxy.url())));
            proxies.push(proxy);
        }
        Self { anvil, proxies, chains }
    }

    /// By every method; the answers, which name their method.
    async fn simulate(&self, tx: &UnsignedTx) -> Vec<Simulation> {
        let mut simulations = Vec::new();
        for (method, chain) in &self.chains {
            let simulation = simulate(chain, &[], tx).await.unwrap_or_else(|error| panic!("{method:?}: {error}"));
            assert_eq!(simulation.method, *method);
            simulations.push(simulation);
        }
        simulations
    }
}

/// `address token symbol before after change`, as texts.
fn changes(simulation: &Simulation) -> Vec<[String; 5]> {
    let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".to_owned());
    let rows = simulation.balance_changes.iter().map(|change| {
        let asset = text(&change.token_symbol);
        [change.address.to_string(), asset, text(&change.before), text(&change.after), change.change.clone()]
    });
    rows.collect()
}

fn row(address: Address, asset: &str, before: &str, after: &str, change: &str) -> [String; 5] {
    [address.to_string(), asset.to_owned(), before.to_owned(), after.to_owned(), change.to_owned()]
}

#[tokio::test]
async fn a_transfer_shows_who_gains_and_who_loses() {
    let nodes = Nodes::start();
    for simulation in nodes.simulate(&tx(EMPTY, ETH / 2 + 1, &[])).await {
        assert_eq!((simulation.status, simulation.gas_used), (SimulationStatus::Success, 21_000));
        assert_eq!((simulation.error.as_deref(), simulation.error_code), (None, None));
        assert_eq!(
            changes(&simulation),
            [
                row(EMPTY, "ETH", "0", "0.500000000000000001", "+0.500000000000000001"),
                row(RICH, "ETH", "10000", "9999.499999999999999999", "-0.500000000000000001"),
            ],
            "{:?}",
            simulation.method
        );
    }
}

#[tokio::test]
async fn ether_that_a_contract_passes_on_is_seen_where_the_node_can_see_it() {
    let nodes = Nodes::start();
    nodes.anvil.set_code(CONTRACT, &contracts::forwarder(EMPTY)).await;
    for simulation in nodes.simulate(&tx(CONTRACT, 3, &[])).await {
        assert_eq!(simulation.status, SimulationStatus::Success);
        let ends: Vec<_> =
            simulation.balance_changes.iter().map(|change| (change.address, change.delta.to_string())).collect();
        if simulation.effects_are_complete() {
            assert_eq!(ends, [(EMPTY, "+3".to_owned()), (RICH, "-3".to_owned())], "{:?}", simulation.method);
        } else {
            assert_eq!(ends, [(CONTRACT, "+3".to_owned()), (RICH, "-3".to_owned())]);
        }
    }
}

#[tokio::test]
async fn failures_are_told_with_their_reason_by_every_method() {
    let nodes = Nodes::start();
    let custom = [&[0xaa, 0xbb, 0xcc, 0xdd][..], &[7; 32]].concat();
    let sevens = "07".repeat(32);
    let reverted = |reason: &str| (Some("execution_reverted"), Some(reason.to_owned()));
    let table = [
        (contracts::revert_text("Vault: locked"), reverted("Vault: locked")),
        (contracts::panicking(0x12), reverted("Panic(0x12): division or modulo by zero")),
        (contracts::reverting(&custom), reverted(&format!("custom error 0xaabbccdd with data 0x{sevens}"))),
        (contracts::reverting(&custom[..4]), reverted("custom error 0xaabbccdd")),
    ];
    for (code, (error_code, reason)) in table {
        nodes.anvil.set_code(CONTRACT, &code).await;
        for simulation in nodes.simulate(&tx(CONTRACT, 1, &[])).await {
            let method = simulation.method;
            assert_eq!(simulation.status, SimulationStatus::Reverted, "{method:?}");
            assert_eq!((simulation.error_code, &simulation.revert_reason), (error_code, &reason), "{method:?}");
            assert_eq!(simulation.error, reason.as_ref().map(|reason| format!("execution reverted: {reason}")));
            assert!(simulation.balance_changes.is_empty() && simulation.logs.is_empty(), "{method:?}");
            assert!(simulation.gas_used > 21_000 || method == Method::Call, "{method:?}");
        }
    }
}

#[tokio::test]
async fn code_that_runs_out_of_gas_or_breaks_is_reverted_without_a_reason() {
    let nodes = Nodes::start();
    for (code, words) in [
        (contracts::endless(), "out of gas"),
        (contracts::invalid(), "execution failed"),
        (contracts::reverting(&[]), ""),
    ] {
        nodes.anvil.set_code(CONTRACT, &code).await;
        for simulation in nodes.simulate(&tx(CONTRACT, 0, &[])).await {
            let (method, error) = (simulation.method, simulation.error.clone().unwrap());
            assert_eq!(simulation.status, SimulationStatus::Reverted, "{method:?}");
            // anvil's eth_simulateV1 does not tell them apart.
            if method != Method::SimulateV1 {
                assert!(error.contains(words), "{method:?}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn what_cannot_start_is_an_error_and_not_a_revert() {
    let nodes = Nodes::start();
    let poor = UnsignedTx { from: EMPTY, ..tx(OTHER, 1, &[]) };
    let cheap = UnsignedTx { gas_limit: 20_999, ..tx(OTHER, 1, &[]) };
    for (tx, code) in [(poor, "insufficient_funds"), (cheap, "intrinsic_gas")] {
        for simulation in nodes.simulate(&tx).await {
            assert_eq!(simulation.status, SimulationStatus::Error, "{:?}", simulation.method);
            assert_eq!(simulation.error_code, Some(code), "{:?}", simulation.error);
            assert!(simulation.balance_changes.is_empty());
        }
    }
}

async fn with_token(nodes: &Nodes, units: u64) {
    nodes.anvil.set_code(CONTRACT, &contracts::token()).await;
    let balance = U256::from(units).to_be_bytes::<32>();
    let slot = RICH.into_word();
    nodes.anvil.request("anvil_setStorageAt", json!([CONTRACT, slot, alloy::primitives::B256::from(balance)])).await;
}

#[tokio::test]
async fn token_transfers_are_in_the_tokens_own_unit() {
    let nodes = Nodes::start();
    with_token(&nodes, 100_000_000).await;
    for simulation in nodes.simulate(&tx(CONTRACT, 0, &contracts::transfer_call(OTHER, 1_250_000))).await {
        assert_eq!(simulation.status, SimulationStatus::Success, "{:?}", simulation.error);
        assert_eq!(simulation.output.last(), Some(&1));
        if simulation.effects_are_complete() {
            assert_eq!(
                changes(&simulation),
                [row(OTHER, "USDX", "0", "1.25", "+1.25"), row(RICH, "USDX", "100", "98.75", "-1.25")]
            );
            assert!(simulation.balance_changes.iter().all(|change| change.token == Some(CONTRACT)));
            assert_eq!((simulation.logs.len(), simulation.logs[0].address), (1, CONTRACT));
        }
    }
    for simulation in nodes.simulate(&tx(CONTRACT, 0, &contracts::transfer_call(OTHER, 100_000_001))).await {
        assert_eq!(simulation.revert_reason.as_deref(), Some("not enough"), "{:?}", simulation.method);
    }
}

#[tokio::test]
async fn our_unmined_transactions_go_first_and_once() {
    let nodes = Nodes::before(Anvil::with(&AnvilOptions { no_mining: true, ..AnvilOptions::default() }));
    with_token(&nodes, 100).await;
    let chain = &nodes.chains[0].1;
    let send = |amount| tx(CONTRACT, 0, &contracts::transfer_call(OTHER, amount));
    // In the node's pool already, as ours are: state `pending` would apply it twice.
    let prior = [send(60)];
    let rpc = chain.rpc().await.unwrap();
    assert_eq!(super::send_raw(rpc, &sign(&prior[0], 0).raw).await, SendOutcome::Accepted);
    let good = simulate(chain, &prior, &send(40)).await.unwrap();
    assert_eq!(good.status, SimulationStatus::Success, "{:?}", good.error);
    assert_eq!(
        changes(&good),
        [row(OTHER, "USDX", "0.00006", "0.0001", "+0.00004"), row(RICH, "USDX", "0.00004", "0", "-0.00004")]
    );
    let too_much = simulate(chain, &prior, &send(41)).await.unwrap();
    assert_eq!(too_much.revert_reason.as_deref(), Some("not enough"));
    assert_eq!(simulate(chain, &[], &send(41)).await.unwrap().status, SimulationStatus::Success);
    // One of ours that would revert does not stop the next.
    let after_a_failure = simulate(chain, &[send(101), send(60)], &send(40)).await.unwrap();
    assert_eq!(after_a_failure.status, SimulationStatus::Success);
}

#[tokio::test]
async fn sixteen_may_go_first_each_with_a_blocks_worth_of_gas() {
    let nodes = Nodes::start();
    let chain = &nodes.chains[0].1;
    let big = UnsignedTx { gas_limit: 16_000_000, ..tx(EMPTY, ETH, &[]) };
    let simulation = simulate(chain, &vec![big.clone(); 16], &big).await.unwrap();
    assert_eq!(changes(&simulation)[0], row(EMPTY, "ETH", "16", "17", "+1"));
    // anvil adds the gas of a block's calls up for nobody; geth refuses the block that asks for too much.
    let calls = nodes.proxies[0].calls("eth_simulateV1");
    assert_eq!(calls[0].params[0]["blockStateCalls"].as_array().unwrap().len(), 17);
    let error = simulate(chain, &vec![big.clone(); 17], &big).await.unwrap_err();
    assert_eq!(error, SimulateError::TooManyUnmined { count: 17 });
}

#[tokio::test]
async fn without_simulate_v1_the_tracer_carries_the_state_over_and_without_both_nothing_is_simulated_after_others() {
    let nodes = Nodes::before(Anvil::with(&AnvilOptions { no_mining: true, ..AnvilOptions::default() }));
    with_token(&nodes, 100).await;
    let send = |amount| tx(CONTRACT, 0, &contracts::transfer_call(OTHER, amount));
    for (method, chain) in &nodes.chains[..2] {
        let good = simulate(chain, &[send(60)], &send(40)).await.unwrap();
        assert_eq!((good.method, good.status, good.effects_are_complete()), (*method, SimulationStatus::Success, true));
        assert_eq!(changes(&good)[1], row(RICH, "USDX", "0.00004", "0", "-0.00004"));
        let too_much = simulate(chain, &[send(60)], &send(41)).await.unwrap();
        assert_eq!(too_much.revert_reason.as_deref(), Some("not enough"));
        let after_a_failure = simulate(chain, &[send(101), send(60)], &send(40)).await.unwrap();
        assert_eq!(after_a_failure.status, SimulationStatus::Success);
    }
    let error = simulate(&nodes.chains[2].1, &[send(1)], &send(1)).await.unwrap_err();
    assert_eq!(error, SimulateError::UnminedNotSupported { chain: "anvil".to_owned(), count: 1 });
    // A tracer that ignores what it is told of the state is not used for that.
    nodes.proxies[1].on(
        "debug_traceCall",
        Act::edit(|request, mut result: Value| {
            if request["params"][2]["tracer"] == "callTracer" {
                result["output"] = json!("0x");
            }
            result
        }),
    );
    let fresh = nodes.anvil.chain_at("anvil", &nodes.proxies[1].url());
    let error = simulate(&fresh, &[send(60)], &send(40)).await.unwrap_err();
    assert!(matches!(error, SimulateError::UnminedNotSupported { .. }), "{error}");
}

#[tokio::test]
async fn a_bundle_sees_what_went_before_in_it_and_stops_at_the_first_failure() {
    let nodes = Nodes::start();
    with_token(&nodes, 100).await;
    let send = |amount| tx(CONTRACT, 0, &contracts::transfer_call(OTHER, amount));
    for (_, chain) in &nodes.chains[..2] {
        let simulations = simulate_bundle(chain, &[], &[send(70), send(40), send(30)]).await.unwrap();
        let statuses: Vec<_> = simulations.iter().map(|simulation| simulation.status).collect();
        assert_eq!(statuses, [SimulationStatus::Success, SimulationStatus::Reverted]);
        let simulations = simulate_bundle(chain, &[], &[send(70), send(20), send(10)]).await.unwrap();
        assert_eq!(changes(&simulations[2])[1], row(RICH, "USDX", "0.00001", "0", "-0.00001"));
        // Which one cannot start is found, though the node does not say.
        let poor = UnsignedTx { from: EMPTY, ..tx(OTHER, 1, &[]) };
        for place in [0, 2, 3] {
            let mut bundle = vec![send(1), send(1), send(1)];
            bundle.insert(place, poor.clone());
            let simulations = simulate_bundle(chain, &[], &bundle).await.unwrap();
            assert_eq!(simulations.len(), place + 1);
            assert_eq!(simulations[place].error_code, Some("insufficient_funds"));
            assert!(simulations[..place].iter().all(|one| one.status == SimulationStatus::Success));
        }
    }
}

#[tokio::test]
async fn a_contract_cannot_tell_a_simulation_by_its_gas_price() {
    let nodes = Nodes::start();
    // GASPRICE, PUSH0, MSTORE, PUSH1 32, PUSH0, RETURN.
    nodes.anvil.set_code(CONTRACT, &[0x3a, 0x5f, 0x52, 0x60, 0x20, 0x5f, 0xf3]).await;
    for simulation in nodes.simulate(&tx(CONTRACT, 0, &[])).await {
        assert_eq!(U256::from_be_slice(&simulation.output), U256::from(2_000_000_000), "{:?}", simulation.method);
    }
}

#[tokio::test]
async fn what_a_node_lacks_is_asked_for_once() {
    let nodes = Nodes::start();
    for _ in 0..3 {
        simulate(&nodes.chains[2].1, &[], &tx(EMPTY, 1, &[])).await.unwrap();
    }
    let proxy = &nodes.proxies[2];
    assert_eq!((proxy.count("eth_simulateV1"), proxy.count("debug_traceCall"), proxy.count("eth_call")), (1, 1, 3));
}

#[tokio::test]
async fn threat_38_a_node_that_cannot_say_is_could_not_check_and_never_a_success() {
    let nodes = Nodes::start();
    let (proxy, chain) = (&nodes.proxies[0], &nodes.chains[0].1);
    let failures = [
        Act::DropRequest,
        Act::DropReply,
        Act::Http(401),
        Act::Http(429),
        Act::Http(500),
        Act::Garbage(b"<html>".to_vec()),
        Act::Answer(json!(null)),
        Act::Answer(json!([])),
        Act::Answer(json!([{"calls": []}])),
        Act::Answer(json!([{"calls": [{"status": "0x1"}]}])),
        Act::error(-32000, "header not found"),
        Act::error(-32005, "daily request limit exceeded"),
        Act::error(-32603, "internal error"),
        Act::edit(|_, mut blocks: Value| {
            blocks[0]["calls"][0].as_object_mut().unwrap().remove("status");
            blocks
        }),
    ];
    for (index, act) in failures.into_iter().enumerate() {
        proxy.next("eth_simulateV1", act);
        let error = simulate(chain, &[], &tx(EMPTY, 1, &[])).await.expect_err(&format!("failure {index}"));
        assert!(matches!(error, SimulateError::CouldNotCheck(_)), "failure {index}: {error}");
    }
    // The balances belong to the answer.
    proxy.next("eth_getBalance", Act::Http(503));
    assert!(simulate(chain, &[], &tx(EMPTY, 1, &[])).await.is_err());
    assert!(simulate(chain, &[], &tx(EMPTY, 1, &[])).await.is_ok());

    proxy.on("eth_chainId", Act::Answer(json!("0x1")));
    proxy.next("eth_simulateV1", Act::DropReply);
    assert!(simulate(chain, &[], &tx(EMPTY, 1, &[])).await.is_err());
    let error = simulate(chain, &[], &tx(EMPTY, 1, &[])).await.unwrap_err();
    assert!(
        matches!(&error, SimulateError::CouldNotCheck(ChainUnavailable::Rpc(RpcError::WrongChain { .. }))),
        "{error}"
    );
}

#[tokio::test]
async fn a_simulation_reads_as_the_contract_says() {
    let nodes = Nodes::start();
    let simulation = simulate(&nodes.chains[0].1, &[], &tx(EMPTY, ETH / 2, &[])).await.unwrap();
    let json = serde_json::to_value(&simulation).unwrap();
    assert_eq!(json["status"], "success");
    assert_eq!(json["gas_used"], 21_000);
    assert_eq!(
        json["balance_changes"][0],
        json!({"address": EMPTY, "token": null, "token_symbol": "ETH", "before": "0", "after": "0.5", "change": "+0.5"})
    );
    assert!(json["simulation_id"].is_string() && json["simulated_at"].as_str().unwrap().ends_with('Z'), "{json}");
    let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["balance_changes", "gas_used", "simulated_at", "simulation_id", "status"]);
}
