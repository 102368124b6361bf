//! Readers of what strangers send, given anything: none panics, none runs on, and what is read is what was written. Calldata, globs and
//! amounts have further properties of their own beside their code.

use alloy::primitives::{Address, U256};
use intentd::access::SecretPath;
use intentd::access::agent_token::assertion::Assertion;
use intentd::access::glob::Glob;
use intentd::access::jwt;
use intentd::chain::ChainId;
use intentd::intents::parse::{DATA_BYTES_MAX, Kind, idempotency_key, parse};
use intentd::intents::{calldata, parse::Request};
use intentd::money::Wei;
use intentd::simulate::tenderly::wire;
use proptest::prelude::*;
use serde_json::{Map, Number, Value, json};

/// Any JSON, not deep, in which texts that mean something are frequent.
fn any_json() -> impl Strategy<Value = Value> {
    let texts = prop::sample::select(vec![
        "",
        "0",
        "0x",
        "-1",
        "1e9",
        "0.05",
        "base",
        "8453",
        "0x0",
        "9".repeat(80).leak() as &str,
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|float| Number::from_f64(float).map_or(Value::Null, Value::Number)),
        texts.prop_map(Value::from),
        "(0x)?[0-9a-fA-FxX.\\-+ ]{0,80}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 48, 6, |inner| {
        let members = prop::collection::btree_map(prop_oneof![field(), "[a-z_]{0,8}"], inner.clone(), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..6).prop_map(Value::from),
            members.prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// Names that some reader looks at.
fn field() -> impl Strategy<Value = String> {
    const FIELDS: &[&str] = &[
        "chain",
        "chain_id",
        "to",
        "value",
        "data",
        "nonce",
        "gas_limit",
        "gas_price",
        "max_fee_per_gas",
        "max_priority_fee_per_gas",
        "simulate_first",
        "signing_key_path",
        "from",
        "access_list",
        "type",
        "transaction",
        "simulation",
        "transaction_info",
        "call_trace",
        "calls",
        "logs",
        "asset_changes",
        "balance_diff",
        "token_info",
        "raw",
        "topics",
        "address",
        "error",
        "status",
        "simulation_results",
        "gas_used",
        "raw_amount",
        "error_message",
        "hash",
        "id",
        "output",
        "input",
        "state_diff",
    ];
    prop::sample::select(FIELDS).prop_map(str::to_owned)
}

/// An intent that is nearly right: each member may be anything.
fn any_request() -> impl Strategy<Value = Map<String, Value>> {
    let good = json!({"to": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "value": "0.1", "chain": "base"});
    prop::collection::btree_map(field(), any_json(), 0..5).prop_map(move |members| {
        let mut body = good.as_object().unwrap().clone();
        body.extend(members);
        body
    })
}

fn read(body: &Map<String, Value>) -> Option<Request> {
    parse(Kind::Submit, body, |name| matches!(name, "base" | "8453").then_some(ChainId(8453))).ok()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn an_intent_of_anything_is_read_or_refused(body in any_request()) {
        if let Some(request) = read(&body) {
            prop_assert!(request.data.len() <= DATA_BYTES_MAX);
            prop_assert_eq!(read(&body).map(|again| again.hash()), Some(request.hash()));
            // Spelled as it was understood, it is the same request.
            let mut again = body.clone();
            again.insert("value".to_owned(), json!(request.value.to_units()));
            again.insert("chain".to_owned(), json!(request.chain_id.0.to_string()));
            again.insert("to".to_owned(), json!(request.to.to_string()));
            prop_assert_eq!(read(&again).map(|again| again.hash()), Some(request.hash()));
        }
    }

    #[test]
    fn no_bytes_are_more_than_an_idempotency_key_an_amount_or_calldata(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(idempotency_key(&bytes).is_none() || (1..=255).contains(&bytes.len()));
        let found = calldata::read(Address::ZERO, U256::ZERO, &bytes);
        prop_assert!(!found.calls.is_empty());
        if let Ok(wei) = Wei::from_wei_text(&String::from_utf8_lossy(&bytes)) {
            prop_assert_eq!(Wei::from_wei_text(&wei.to_string()), Ok(wei));
        }
    }

    #[test]
    fn any_text_is_a_path_and_a_pattern_or_neither(text in prop_oneof!["[a-z*/%._\\-]{0,40}", ".{0,40}", "\\PC{0,300}"], path in "[a-z]{1,3}(/[a-z]{1,3}){0,8}") {
        let path = SecretPath::parse(&path).unwrap();
        for read in [SecretPath::parse(&text), SecretPath::from_wire(&text)].into_iter().flatten() {
            prop_assert_eq!(SecretPath::parse(read.as_str()), Ok(read));
        }
        if let Ok(glob) = Glob::parse(&text) {
            let again = Glob::parse(&glob.to_string()).unwrap();
            prop_assert_eq!(again.matches(&path), glob.matches(&path));
            prop_assert!(glob.covers(&again));
        }
    }

    #[test]
    fn no_token_that_was_not_signed_is_one(
        text in prop_oneof![".{0,80}", "[A-Za-z0-9_\\-]{0,60}\\.[A-Za-z0-9_\\-]{0,60}\\.[A-Za-z0-9_\\-]{0,90}"],
        header in any_json(),
        claims in any_json(),
    ) {
        use base64::Engine as _;
        let encode = |part: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(part.to_string());
        let signed_by_nobody = format!("{}.{}.{}", encode(&header), encode(&claims), encode(&json!("signature")));
        for text in [&text, &signed_by_nobody] {
            prop_assert!(jwt::verify(&[7; 32], "intentd", text).is_err());
            let _ = Assertion::read(text);
        }
    }

    #[test]
    fn whatever_a_simulator_answers_is_read_or_refused(answer in any_json(), transaction in any_json(), member in field(), inner in any_json()) {
        let mut whole = json!({"transaction": {"transaction_info": {"call_trace": transaction.clone()}}, "simulation": answer.clone()});
        whole["transaction"]["transaction_info"][&member] = inner.clone();
        whole["transaction"][&member] = inner;
        for value in [answer, transaction, whole.clone(), json!({ "simulation_results": [whole] })] {
            let text = value.to_string();
            let _ = serde_json::from_str::<wire::Simulated>(&text);
            let _ = serde_json::from_str::<wire::BundleSimulated>(&text);
            let _ = wire::read_quantity(&value);
        }
    }

    #[test]
    fn a_quantity_is_read_as_it_was_written(number in any::<u128>()) {
        let number = U256::from(number);
        prop_assert_eq!(wire::read_quantity(&json!(number.to_string())), Some(number));
        prop_assert_eq!(wire::read_quantity(&json!(format!("{number:#x}"))), Some(number));
    }
}
