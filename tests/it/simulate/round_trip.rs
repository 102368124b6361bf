//! What our Tenderly client reads from `intentd simulator` is what the node itself says.

use std::sync::Arc;

use alloy::primitives::{Address, Bytes, U256};
use intentd::chain::{Chain, ChainId, Fees, UnsignedTx};
use intentd::money::Wei;
use intentd::simulate::{self, Backend, Method, Simulation, SimulationStatus, Trial};
use serde_json::json;

use crate::chain::contracts;
use crate::harness::anvil::{Anvil, AnvilOptions, OTHER, RICH};
use crate::harness::rpc_proxy::{Act, RpcProxy};
use crate::harness::simulator::Simulator;

const EMPTY: Address = Address::repeat_byte(0x11);
const ETH: u128 = 1_000_000_000_000_000_000;

fn place(n: u8) -> Address {
    Address::repeat_byte(n)
}

fn tx(to: Address, wei: u128, data: &[u8]) -> UnsignedTx {
    UnsignedTx {
        chain_id: ChainId(31337),
        from: RICH,
        to,
        value: Wei::from(wei),
        data: Bytes::copy_from_slice(data),
        gas_limit: 200_000,
        fees: Fees::Eip1559 { max_fee_per_gas: 3_000_000_000, max_priority_fee_per_gas: 1_000_000 },
    }
}

async fn with_contracts(anvil: &Anvil) {
    let custom = [&[0xaa, 0xbb, 0xcc, 0xdd][..], &[7; 32]].concat();
    let codes = [
        (0xc0, contracts::token()),
        (0xc1, contracts::forwarder(EMPTY)),
        (0xc2, contracts::revert_text("Vault: <locked>")),
        (0xc3, contracts::panicking(0x12)),
        (0xc4, contracts::reverting(&custom)),
        (0xc5, contracts::endless()),
        (0xc6, contracts::invalid()),
        (0xc7, contracts::reverting(&[])),
        // CREATE(value, 0, 0): a new contract without code gets what was sent.
        (0xc8, vec![0x5f, 0x5f, 0x34, 0xf0, 0x00]),
    ];
    for (n, code) in codes {
        anvil.set_code(place(n), &code).await;
    }
    let balance = alloy::primitives::B256::from(U256::from(100_000_000u64));
    anvil.request("anvil_setStorageAt", json!([place(0xc0), RICH.into_word(), balance])).await;
}

/// All that both must agree on.
fn facts(simulation: &Simulation) -> impl PartialEq + std::fmt::Debug {
    let changes: Vec<_> = simulation
        .balance_changes
        .iter()
        .map(|c| (c.address, c.token, c.token_symbol.clone(), c.before.clone(), c.after.clone(), c.delta))
        .collect();
    (
        (simulation.status, simulation.error_code, simulation.revert_reason.clone(), simulation.gas_used),
        (changes, simulation.logs.clone(), simulation.output.clone()),
        (simulation.effects_are_complete(), simulation.checked_hash()),
    )
}

struct Both {
    anvil: Anvil,
    /// A chain whose node traces only: anvil's `eth_simulateV1` does not tell what a fault was.
    chain: Arc<Chain>,
    simulator: Simulator,
    _proxy: RpcProxy,
}

impl Both {
    async fn start(options: AnvilOptions) -> Self {
        let anvil = Anvil::with(&options);
        with_contracts(&anvil).await;
        let proxy = RpcProxy::start(&anvil.url());
        proxy.on("eth_simulateV1", Act::error(-32601, "the method eth_simulateV1 does not exist"));
        let chain = anvil.chain_at("anvil", &proxy.url());
        let simulator = Simulator::start(&[("anvil", 31337, anvil.url())]).await;
        Self { anvil, chain, simulator, _proxy: proxy }
    }

    async fn agree(&self, prior: &[UnsignedTx], txs: &[UnsignedTx]) -> Vec<Simulation> {
        let trials: Vec<Trial> = txs.iter().map(|tx| Trial { tx: tx.clone(), paid: true }).collect();
        let service = self.simulator.backend(false);
        let told = simulate::simulate_bundle(&service, &self.chain, prior, &trials).await.unwrap();
        let found = simulate::simulate_bundle(&Backend::Node, &self.chain, prior, &trials).await.unwrap();
        assert_eq!(told.len(), found.len());
        for (told, found) in told.iter().zip(&found) {
            assert_eq!(facts(told), facts(found), "{:?}", found.error);
            assert_eq!((told.method, told.dashboard_url.as_deref()), (Method::Tenderly, None));
        }
        told
    }
}

#[tokio::test]
async fn the_service_says_what_the_node_says() {
    let both = Both::start(AnvilOptions::default()).await;
    let poor = UnsignedTx { from: EMPTY, ..tx(OTHER, 1, &[]) };
    let cheap = UnsignedTx { gas_limit: 20_999, ..tx(OTHER, 1, &[]) };
    let legacy = UnsignedTx { fees: Fees::Legacy { gas_price: 2_000_000_000 }, ..tx(EMPTY, 1, &[]) };
    let table = [
        (tx(EMPTY, ETH / 2 + 1, &[]), SimulationStatus::Success, None),
        (legacy, SimulationStatus::Success, None),
        (tx(place(0xc1), 7, &[]), SimulationStatus::Success, None),
        (tx(place(0xc8), 9, &[]), SimulationStatus::Success, None),
        (tx(place(0xc0), 0, &contracts::transfer_call(OTHER, 1_250_000)), SimulationStatus::Success, None),
        (
            tx(place(0xc0), 0, &contracts::transfer_call(OTHER, 100_000_001)),
            SimulationStatus::Reverted,
            Some("execution_reverted"),
        ),
        (tx(place(0xc2), 1, &[]), SimulationStatus::Reverted, Some("execution_reverted")),
        (tx(place(0xc3), 1, &[]), SimulationStatus::Reverted, Some("execution_reverted")),
        (tx(place(0xc4), 1, &[]), SimulationStatus::Reverted, Some("execution_reverted")),
        (tx(place(0xc5), 0, &[]), SimulationStatus::Reverted, Some("out_of_gas")),
        (tx(place(0xc6), 0, &[]), SimulationStatus::Reverted, Some("execution_failed")),
        (tx(place(0xc7), 0, &[]), SimulationStatus::Reverted, Some("execution_reverted")),
        (poor, SimulationStatus::Error, Some("insufficient_funds")),
        (cheap, SimulationStatus::Error, Some("intrinsic_gas")),
    ];
    for (tx, status, code) in table {
        let told = both.agree(&[], std::slice::from_ref(&tx)).await;
        assert_eq!((told[0].status, told[0].error_code), (status, code), "{:?}", told[0].error);
    }
    // What was created is told, and is not a call that is unknown to the reader.
    let made = both.agree(&[], &[tx(place(0xc8), 9, &[])]).await;
    let nonce = both.anvil.nonce(place(0xc8)).await;
    let created = place(0xc8).create(nonce);
    assert!(
        made[0]
            .balance_changes
            .iter()
            .any(|change| (change.address, change.change.as_str()) == (created, "+0.000000000000000009"))
    );
    // In order, each on what the one before left, up to the first failure.
    let send = |amount| tx(place(0xc0), 0, &contracts::transfer_call(OTHER, amount));
    let told = both.agree(&[], &[send(70_000_000), send(40_000_000), send(1)]).await;
    assert_eq!((told.len(), told[1].revert_reason.as_deref()), (2, Some("not enough")));
    assert_eq!(both.agree(&[], &[send(70_000_000), send(30_000_000), tx(EMPTY, 1, &[])]).await.len(), 3);
    // One that cannot even start is the one that it is, wherever it stands.
    let rich = tx(EMPTY, 999_999 * ETH, &[]);
    for place in 0..5 {
        let mut txs = vec![send(1); 5];
        txs[place] = rich.clone();
        let told = both.agree(&[], &txs).await;
        assert_eq!((told.len(), told[place].error_code), (place + 1, Some("insufficient_funds")));
    }
    // A guess of the gas is bound to nothing and costs nothing.
    let guess = Trial { tx: UnsignedTx { gas_limit: 16_000_000, ..tx(EMPTY, 9_999 * ETH, &[]) }, paid: false };
    let guess = simulate::simulate_bundle(&both.simulator.backend(false), &both.chain, &[], &[guess]).await.unwrap();
    assert_eq!((guess[0].status, guess[0].checked_hash()), (SimulationStatus::Success, None));
}

#[tokio::test]
async fn our_unmined_transactions_go_first_in_one_bundle_and_a_failing_one_is_left_out() {
    let both = Both::start(AnvilOptions { no_mining: true, ..AnvilOptions::default() }).await;
    let send = |amount| tx(place(0xc0), 0, &contracts::transfer_call(OTHER, amount));
    let told = both.agree(&[send(60_000_000)], &[send(40_000_000)]).await;
    assert_eq!(told[0].balance_changes[1].before.as_deref(), Some("40"));
    let told = both.agree(&[send(60_000_000)], &[send(40_000_001)]).await;
    assert_eq!(told[0].revert_reason.as_deref(), Some("not enough"));
    // A real bundle stops at the first failure: one of ours that reverts is left out, and a second one; not a third.
    let bad = send(100_000_001);
    let told = both.agree(&[bad.clone(), send(60_000_000), bad.clone()], &[send(40_000_000)]).await;
    assert_eq!(told[0].status, SimulationStatus::Success);
    let service = both.simulator.backend(false);
    let three = [bad.clone(), bad.clone(), bad];
    assert!(simulate::simulate(&service, &both.chain, &three, &send(1)).await.is_err());
    // Sixteen, each with a block's worth of gas.
    let big = UnsignedTx { gas_limit: 16_000_000, ..tx(EMPTY, ETH, &[]) };
    let told = both.agree(&vec![big.clone(); 16], std::slice::from_ref(&big)).await;
    assert_eq!(told[0].balance_changes[0].after.as_deref(), Some("17"));
    assert!(simulate::simulate(&service, &both.chain, &vec![big.clone(); 17], &big).await.is_err());
    drop(both.anvil);
}

#[tokio::test]
async fn a_simulator_whose_node_cannot_trace_still_tells_all_transfers_or_says_that_it_cannot() {
    let anvil = Anvil::start(31337);
    with_contracts(&anvil).await;
    let proxy = RpcProxy::start(&anvil.url());
    proxy.on("debug_traceCall", Act::error(-32601, "the method debug_traceCall does not exist"));
    let simulator = Simulator::start(&[("anvil", 31337, proxy.url())]).await;
    let (service, chain) = (simulator.backend(false), anvil.chain("anvil"));
    let inner = tx(place(0xc1), 7, &[]);
    let told = simulate::simulate(&service, &chain, &[], &inner).await.unwrap();
    let ends: Vec<_> = told.balance_changes.iter().map(|c| (c.address, c.delta.to_string())).collect();
    assert_eq!(ends, [(EMPTY, "+7".to_owned()), (RICH, "-7".to_owned())]);
    assert!(told.effects_are_complete());
    let token = tx(place(0xc0), 0, &contracts::transfer_call(OTHER, 5));
    let told = simulate::simulate(&service, &chain, std::slice::from_ref(&inner), &token).await.unwrap();
    assert_eq!((told.logs.len(), told.balance_changes.len(), told.effects_are_complete()), (1, 2, true));

    proxy.on("eth_simulateV1", Act::error(-32601, "the method eth_simulateV1 does not exist"));
    let blind = Simulator::start(&[("anvil", 31337, proxy.url())]).await;
    let told = simulate::simulate(&blind.backend(false), &chain, &[], &inner).await.unwrap();
    assert_eq!((told.status, told.effects_are_complete()), (SimulationStatus::Success, false));
    assert!(simulate::simulate(&blind.backend(false), &chain, std::slice::from_ref(&inner), &inner).await.is_err());
}
