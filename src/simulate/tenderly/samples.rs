//! Every sample of a payload is read, and the values that matter are the ones that stand in it.

use alloy::primitives::{Address, U256, address};
use serde_json::Value;

use super::super::wire::{BundleSimulated, ErrorBody, Frame};
use super::*;

const DAI: Address = address!("6b175474e89094c44da98b954eedeac495271d0f");
const RICH: Address = address!("f39fd6e51aad88f6f4ce6ab8827279cfffb92266");
const ONES: Address = address!("1111111111111111111111111111111111111111");
const ETH: u128 = 1_000_000_000_000_000_000;

macro_rules! sample {
    ($name:literal) => {
        serde_json::from_str::<Value>(include_str!(concat!("../../../tests/fixtures/tenderly/", $name, ".json")))
            .unwrap()
    };
}

fn single(sample: Value) -> (Simulated, Outcome) {
    let result: Simulated = serde_json::from_value(sample).unwrap();
    let outcome = effects(&result.transaction).unwrap();
    (result, outcome)
}

/// As a call that asks for exactly what the sample answers.
fn asked(result: &Simulated) -> (u64, Call) {
    let transaction = &result.transaction;
    let call = Call {
        from: transaction.from.unwrap(),
        to: transaction.to,
        value: transaction.value.unwrap(),
        data: transaction.input.clone().unwrap(),
        gas_limit: None,
        fees: None,
        access_list: Vec::new(),
    };
    (transaction.network_id.as_ref().unwrap().parse().unwrap(), call)
}

/// `(account, token, change)` of all that moved.
fn changes(outcome: &Outcome) -> Vec<(Address, Option<Address>, String)> {
    outcome.moved.changes().map(|((who, token), delta)| (who, token, delta.to_string())).collect()
}

fn gain(amount: u128) -> String {
    format!("+{amount}")
}

#[test]
fn documented_answers_are_read() {
    for (sample, gas_used, logs) in [
        (serde_json::json!({"transaction": sample!("rest-01-simulate-quick-approve.transaction")}), 46_098, 1),
        (serde_json::json!({"transaction": sample!("rest-02-simulate-full-approve.transaction")}), 46_098, 1),
        (sample!("rest-06-response-full-dai-name-call"), 21_693, 0),
        (sample!("rest-08-response-optimism"), 23_432, 0),
    ] {
        let (result, outcome) = single(sample);
        assert_eq!((&outcome.end, outcome.gas_used, outcome.logs.len()), (&End::Success, gas_used, logs));
        assert!(changes(&outcome).is_empty());
        let (chain_id, call) = asked(&result);
        let read = super::outcome(&result, chain_id, &call).unwrap();
        assert_eq!(read.id.is_some(), result.simulation.is_some());
        // On an OP chain a vault gets the fee: nobody loses more than the calls show.
        assert!(read.complete);
    }
    let (result, outcome) = single(sample!("rest-03-simulate-full-mint-state-objects"));
    let minted = [(address!("e58b9ee93700a616b50509c8292977fa7a0f8ce1"), Some(DAI), gain(2 * ETH))];
    assert_eq!((changes(&outcome).as_slice(), outcome.complete), (minted.as_slice(), true));
    assert_eq!(result.simulation.unwrap().id.unwrap(), "46cb1f92-c9ee-4ef2-8736-6dc6ae84f8d8");
}

#[test]
fn documented_bundles_are_read_in_order() {
    let bundle: BundleSimulated =
        serde_json::from_value(sample!("rest-04-simulate-bundle-quick-mint-approve-transferFrom")).unwrap();
    let outcomes: Vec<Outcome> =
        bundle.simulation_results.iter().map(|one| effects(&one.transaction).unwrap()).collect();
    assert_eq!(outcomes.iter().map(|outcome| outcome.gas_used).collect::<Vec<_>>(), [53_465, 46_146, 58_251]);
    assert!(outcomes.iter().all(|outcome| outcome.succeeded() && outcome.complete));
    let amounts: Vec<usize> = outcomes.iter().map(|outcome| changes(outcome).len()).collect();
    assert_eq!(amounts, [1, 0, 2]);
}

#[test]
fn what_our_own_simulator_answers_is_read_exactly() {
    let (result, ether) = single(sample!("self-hosted-eth-transfer"));
    assert_eq!(changes(&ether), [(ONES, None, gain(ETH)), (RICH, None, format!("-{ETH}"))]);
    assert!(ether.complete);
    let (chain_id, call) = asked(&result);
    assert_eq!((chain_id, call.value), (31_337, U256::from(ETH)));
    assert_eq!(
        super::outcome(&result, chain_id, &call).unwrap().id.unwrap().to_string(),
        "db459073-1ea5-491f-b794-f30e21a3cbb6"
    );

    let token = address!("5fbdb2315678afecb367f032d93f642f64180aa3");
    let (_, transfer) = single(sample!("self-hosted-erc20-transfer"));
    assert_eq!(changes(&transfer), [(ONES, Some(token), gain(5_000_000)), (RICH, Some(token), "-5000000".to_owned())]);
    let (_, inner) = single(sample!("self-hosted-inner-eth"));
    assert_eq!(changes(&inner), [(ONES, None, gain(7)), (RICH, None, "-7".to_owned())]);
    let (_, approve) = single(sample!("self-hosted-erc20-approve"));
    assert_eq!((changes(&approve).len(), approve.logs.len()), (0, 1));
    let (_, changed_first) = single(sample!("self-hosted-state-objects"));
    assert_eq!(changes(&changed_first)[0].2, "-5");

    let bundle: BundleSimulated = serde_json::from_value(sample!("self-hosted-bundle-approve-transferFrom")).unwrap();
    assert!(bundle.simulation_results.iter().all(|one| effects(&one.transaction).unwrap().succeeded()));
    let failing: BundleSimulated = serde_json::from_value(sample!("self-hosted-bundle-fails-second")).unwrap();
    let ends: Vec<End> = failing.simulation_results.iter().map(|one| effects(&one.transaction).unwrap().end).collect();
    assert_eq!(ends, [End::Success, End::Reverted]);
}

#[test]
fn failures_keep_their_bytes_and_words() {
    let reason = |outcome: &Outcome| crate::simulate::revert::Reason::decode(&outcome.output).to_string();
    let (_, text) = single(sample!("self-hosted-revert-string"));
    assert_eq!((&text.end, reason(&text).as_str()), (&End::Reverted, "boom reason"));
    let (_, panic) = single(sample!("self-hosted-panic"));
    assert_eq!((&panic.end, reason(&panic).as_str()), (&End::Reverted, "Panic(0x12): division or modulo by zero"));
    let (_, custom) = single(sample!("self-hosted-custom-error"));
    assert!(reason(&custom).starts_with("custom error 0xa8b21345 with data 0x"), "{}", reason(&custom));
    let (_, gas) = single(sample!("self-hosted-out-of-gas"));
    assert!(matches!(&gas.end, End::Halted(words) if words.starts_with("out of gas")));
    for outcome in [text, panic, custom, gas] {
        assert!(changes(&outcome).is_empty() && outcome.logs.is_empty() && outcome.gas_used > 21_000);
    }
    for (sample, slug) in [
        (sample!("self-hosted-insufficient-funds"), "invalid_transaction_simulation"),
        (sample!("self-hosted-wrong-network"), "invalid_network"),
    ] {
        let body: ErrorBody = serde_json::from_value(sample).unwrap();
        assert_eq!(body.error.slug, slug);
    }
    // Only the root frames of two simulations.
    let partial = sample!("rest-11-partial-failure");
    let good: Frame = serde_json::from_value(partial["success"]["call_trace"].clone()).unwrap();
    let bad: Frame = serde_json::from_value(partial["failure"]["call_trace"].clone()).unwrap();
    assert_eq!((good.error, bad.error.as_deref()), (None, Some("execution reverted")));
    assert!(bad.error_reason.unwrap().starts_with("A subcourt cannot be the parent"));
}

#[test]
fn asset_lists_are_summed() {
    let weth = address!("c02aaa39b223fe8d0a0e5c4f27ead9083c756cc2");
    let swap: Vec<AssetChange> = serde_json::from_value(sample!("rest-09-asset_changes-erc20-swap")).unwrap();
    let moved = assets_moved(&swap);
    let pair = address!("dfc14d2af169b0d36c4eff567ada9b2e0cae044f");
    let router = address!("3fc91a3afd70395cd496c647d5a6cc9d4b2b7fad");
    let four = |sign: &str| format!("{sign}4000000000000000");
    assert_eq!(moved.of((pair, Some(weth))).to_string(), four("+"));
    assert_eq!((moved.of((router, Some(weth))).is_zero(), moved.of((router, None)).is_zero()), (true, true));
    assert_eq!(moved.of((weth, None)).to_string(), four("+"));

    let many: Vec<AssetChange> = serde_json::from_value(sample!("rest-10-asset_changes-nft")).unwrap();
    let collections =
        [address!("7a420aeff902aaa2c85a190d7b91ce8beffffe14"), address!("4245a1bd84eb5f3ebc115c2edf57e50667f98b0b")];
    let moved = assets_moved(&many);
    assert!(moved.changes().all(|((_, token), _)| token.is_none_or(|token| !collections.contains(&token))));
    let buyer = address!("e8e6959a29bb94cb1080de4257417e6f22ab3ae2");
    assert_eq!(moved.of((buyer, None)).to_string(), "-9434000000000000000");
}

#[test]
fn the_json_rpc_faces_answers_are_read_too() {
    let read = |sample: Value| {
        let transaction: Transaction = serde_json::from_value(sample).unwrap();
        effects(&transaction).unwrap()
    };
    let one = read(sample!("rpc-02-simulateTransaction-response")["result"].clone());
    let moved = changes(&one);
    assert_eq!((one.gas_used, moved.len(), one.complete), (51_534, 2, false));
    assert!(moved.iter().any(|(_, _, change)| change == "-1"));
    let several = sample!("rpc-04-simulateBundle-response");
    let gas: Vec<u64> = several["result"].as_array().unwrap().iter().map(|one| read(one.clone()).gas_used).collect();
    assert_eq!(gas, [45_992, 35_448]);
    let traced = read(sample!("rpc-05-traceTransaction-response")["result"].clone());
    let sender = address!("17b11ed010e715bf4336a88489fe4f0ef6a09dc7");
    assert_eq!(traced.moved.of((sender, None)).to_string(), "-25000000000000000");

    let minted = read(sample!("alloy-rpc-success"));
    assert_eq!((minted.gas_used, changes(&minted).len()), (57_765, 1));
    let failed = read(sample!("alloy-rpc-failure"));
    assert_eq!((failed.end, failed.gas_used), (End::Reverted, 21_857));
    let bundle = sample!("alloy-rpc-bundle_success");
    let counts: Vec<usize> = bundle.as_array().unwrap().iter().map(|one| changes(&read(one.clone())).len()).collect();
    assert_eq!(counts, [1, 0, 2]);
    // What is no simulation is not taken for one.
    for other in [
        sample!("alloy-rpc-estimate_gas"),
        sample!("alloy-rpc-estimate_gas_bundle")[0].clone(),
        sample!("alloy-rpc-decode_error"),
        sample!("alloy-rpc-gas_price"),
    ] {
        assert!(serde_json::from_value::<Transaction>(other).is_err());
    }
}

#[test]
fn threat_16_an_answer_about_another_transaction_is_none() {
    let (result, _) = single(sample!("self-hosted-eth-transfer"));
    let (chain_id, call) = asked(&result);
    assert!(super::outcome(&result, chain_id, &call).is_ok());
    let others = [
        (1, call.clone()),
        (chain_id, Call { from: ONES, ..call.clone() }),
        (chain_id, Call { to: Some(RICH), ..call.clone() }),
        (chain_id, Call { value: U256::from(ETH + 1), ..call.clone() }),
        (chain_id, Call { data: Bytes::from_static(&[1]), ..call }),
    ];
    for (chain_id, other) in others {
        assert!(super::outcome(&result, chain_id, &other).is_err());
    }
}

#[test]
fn threat_16_an_answer_that_knows_of_more_than_its_calls_show_is_not_complete() {
    let with = |edit: fn(&mut Value)| {
        let mut sample = sample!("self-hosted-inner-eth");
        edit(&mut sample["transaction"]["transaction_info"]);
        single(sample).1
    };
    assert!(with(|_| {}).complete);
    let incomplete: [fn(&mut Value); 3] = [
        // Ether leaves an account that no call shows.
        |info| info["asset_changes"][0]["raw_amount"] = "8".into(),
        |info| {
            info["balance_diff"][0]["original"] = "111".into();
            info["balance_diff"][0]["dirty"] = "104".into();
        },
        |info| info["call_trace"] = Value::Null,
    ];
    for edit in incomplete {
        assert!(!with(edit).complete);
    }
    let mut sample = sample!("self-hosted-inner-eth");
    sample["simulation"]["effects_complete"] = false.into();
    let (result, _) = single(sample);
    let (chain_id, call) = asked(&result);
    assert!(!super::outcome(&result, chain_id, &call).unwrap().complete);
}

#[test]
fn a_function_inside_of_a_contract_is_no_call() {
    let mut sample = sample!("self-hosted-inner-eth");
    let root = &mut sample["transaction"]["transaction_info"]["call_trace"];
    let inner = root["calls"][0].take();
    root["calls"][0] = serde_json::json!({
        "call_type": "JUMPDEST", "from": ONES, "to": ONES, "value": null, "calls": [inner],
    });
    assert_eq!(single(sample.clone()).1.moved, single(sample!("self-hosted-inner-eth")).1.moved);
    sample["transaction"]["transaction_info"]["call_trace"]["calls"][0]["call_type"] = "TELEPORT".into();
    sample["transaction"]["transaction_info"]["call_trace"]["calls"][0]["value"] = "1".into();
    let result: Simulated = serde_json::from_value(sample).unwrap();
    assert!(effects(&result.transaction).is_err());
}

#[test]
fn threat_38_an_answer_that_contradicts_itself_is_none() {
    let sample = || sample!("self-hosted-erc20-transfer");
    let read = |sample: Value| effects(&serde_json::from_value::<Simulated>(sample).unwrap().transaction);
    assert!(read(sample()).unwrap().complete);
    let mut failed = sample();
    failed["transaction"]["error_message"] = "execution reverted".into();
    assert!(read(failed).is_err());
    let mut failed = sample();
    failed["transaction"]["transaction_info"]["call_trace"]["error"] = "out of gas".into();
    assert!(read(failed).is_err());
    // A transfer that no event tells of.
    let mut silent = sample();
    for logs in ["/transaction/transaction_info/logs", "/transaction/logs"] {
        if let Some(logs) = silent.pointer_mut(logs) {
            *logs = Value::Null;
        }
    }
    assert!(silent.pointer("/transaction/transaction_info/asset_changes/0").is_some());
    assert!(!read(silent).unwrap().complete);
    // A tree of another call than the one that was asked about.
    let (result, _) = single(sample());
    let (chain_id, call) = asked(&result);
    assert!(super::outcome(&result, chain_id, &call).is_ok());
    for (field, value) in [("from", ONES.to_string()), ("to", ONES.to_string()), ("value", "7".to_owned())] {
        let mut other = sample();
        other["transaction"]["transaction_info"]["call_trace"][field] = value.into();
        let other: Simulated = serde_json::from_value(other).unwrap();
        assert!(super::outcome(&other, chain_id, &call).is_err(), "{field}");
    }
}
