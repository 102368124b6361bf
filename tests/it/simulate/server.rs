//! `intentd simulator` as any client of Tenderly's API and any browser sees it.

use alloy::primitives::{Address, U256};
use reqwest::Method;
use serde_json::{Value, json};

use crate::chain::contracts;
use crate::harness::anvil::{Anvil, OTHER, RICH};
use crate::harness::client::{Client, Reply};
use crate::harness::daemon::Daemon;
use crate::harness::simulator::{KEY, Simulator};

const PROJECT: &str = "/api/v1/account/local/project/local";
const EMPTY: &str = "0x1111111111111111111111111111111111111111";

struct Service {
    anvil: Anvil,
    simulator: Simulator,
    client: Client,
}

impl Service {
    async fn start() -> Self {
        let anvil = Anvil::start(31337);
        let simulator =
            Simulator::start(&[("anvil", 31337, anvil.url()), ("lost", 5, "http://127.0.0.1:1".to_owned())]).await;
        let client = Client::new(simulator.url(), None);
        Self { anvil, simulator, client }
    }

    async fn post(&self, path: &str, body: &Value) -> Reply {
        Client::send(self.client.request(Method::POST, path).header("X-Access-Key", KEY).json(body)).await
    }

    async fn simulate(&self, changes: Value) -> Reply {
        self.post(&format!("{PROJECT}/simulate"), &request(changes)).await
    }
}

fn request(changes: Value) -> Value {
    let mut body =
        json!({"network_id": "31337", "from": RICH, "to": EMPTY, "value": "5", "gas": 100_000, "gas_price": "0"});
    body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    body
}

#[track_caller]
fn slug(reply: Reply, status: u16) -> String {
    reply.expect(status)["error"]["slug"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn only_the_project_and_the_key_open_it_and_errors_have_tenderlys_shape() {
    let service = Service::start().await;
    let simulate = format!("{PROJECT}/simulate");
    for key in [None, Some(""), Some("wrong"), Some("simulator-key-do-not-repeat-71a")] {
        let mut http = service.client.request(Method::POST, &simulate).json(&request(json!({})));
        if let Some(key) = key {
            http = http.header("X-Access-Key", key);
        }
        assert_eq!(slug(Client::send(http).await, 401), "unauthorized");
    }
    let other = service.post("/api/v1/account/local/project/other/simulate", &request(json!({}))).await;
    assert_eq!(slug(other, 404), "resource_not_found");
    assert_eq!(slug(service.post("/api/v1/nothing", &json!({})).await, 404), "not_found");
    // Wrong network, a network without a node that answers, and requests that make no sense.
    for network in [json!("1"), json!(1)] {
        assert_eq!(slug(service.simulate(json!({"network_id": network})).await, 400), "invalid_network");
    }
    let lost = service.simulate(json!({"network_id": "5"})).await;
    assert!(lost.headers.contains_key("retry-after"));
    assert_eq!(slug(lost, 503), "node_unavailable");
    for bad in [
        json!({"network_id": "base"}),
        json!({"to": "0x12"}),
        json!({"input": "x"}),
        json!({"block_header": {"number": "0x1"}}),
    ] {
        assert_eq!(slug(service.simulate(bad.clone()).await, 400), "invalid_request", "{bad}");
    }
    assert_eq!(slug(service.simulate(json!({"block_number": 999_999})).await, 400), "invalid_block");
    let bundle = format!("{PROJECT}/simulate-bundle");
    for bad in [
        json!({}),
        json!({"simulations": []}),
        json!({"simulations": vec![request(json!({})); 49]}),
        json!({"simulations": [1]}),
        json!({"simulations": [request(json!({})), request(json!({"network_id": "5"}))]}),
    ] {
        assert_eq!(slug(service.post(&bundle, &bad).await, 400), "invalid_request");
    }
    let long = "0x".to_owned() + &"00".repeat(5 * 1024 * 1024);
    assert_eq!(slug(service.simulate(json!({"input": long})).await, 413), "payload_too_large");
    // A sender without funds is the transaction's fault.
    let poor = service.simulate(json!({"from": EMPTY, "to": RICH})).await;
    assert_eq!(slug(poor, 400), "invalid_transaction_simulation");
    assert!(!service.simulator.daemon.log_text().contains(KEY));
}

#[tokio::test]
async fn an_answer_has_the_documented_members_and_changes_first_what_it_is_told_to() {
    let service = Service::start().await;
    let answer = service.simulate(json!({"value": "1000000000000000000", "gas_price": "2000000000"})).await.expect(200);
    let (transaction, simulation) = (&answer["transaction"], &answer["simulation"]);
    assert_eq!(
        (&transaction["status"], &transaction["gas_used"], &simulation["gas_used"]),
        (&json!(true), &json!(21_000), &json!(21_000))
    );
    assert_eq!(
        (&transaction["value"], &simulation["value"]),
        (&json!("0xde0b6b3a7640000"), &json!("1000000000000000000"))
    );
    let info = &transaction["transaction_info"];
    assert_eq!(info["asset_changes"][0]["raw_amount"], "1000000000000000000");
    assert_eq!(info["logs"], Value::Null);
    let diffs = info["balance_diff"].as_array().unwrap();
    let sender = diffs.iter().find(|diff| diff["address"] == RICH.to_string()).unwrap();
    assert_eq!((&sender["original"], &sender["is_miner"]), (&json!("10000000000000000000000"), &json!(false)));
    assert_eq!(info["nonce_diff"][0]["dirty"], "1");
    // Every member that the samples of our own simulator have is there.
    let sample: Value =
        serde_json::from_str(include_str!("../../fixtures/tenderly/self-hosted-eth-transfer.json")).unwrap();
    for part in ["transaction", "simulation"] {
        for name in sample[part].as_object().unwrap().keys() {
            assert!(answer[part].as_object().unwrap().contains_key(name), "{part}.{name}");
        }
    }
    for name in sample["transaction"]["transaction_info"].as_object().unwrap().keys() {
        assert!(info.as_object().unwrap().contains_key(name), "{name}");
    }
    // The state is changed first: funds, code, a slot.
    let coded =
        json!({EMPTY: {"balance": "7"}, OTHER.to_string(): {"code": "0x5f545f5260205ff3", "storage": {"0x0": "0x2a"}}});
    let answer = service.simulate(json!({"from": EMPTY, "to": OTHER, "state_objects": coded})).await.expect(200);
    let output = answer["transaction"]["transaction_info"]["call_trace"]["output"].as_str().unwrap().to_owned();
    assert!(output.ends_with("2a"), "{output}");
    // A contract is created, and the next of the bundle calls it.
    let nonce = service.anvil.nonce(RICH).await;
    let made = RICH.create(nonce);
    // Returns code that answers 42.
    let init = "0x69602a60005260206000f3600052600a6016f3";
    let body = json!({"simulations": [request(json!({"to": null, "input": init, "value": 0})), request(json!({"to": made, "value": 0}))]});
    let answer = service.post(&format!("{PROJECT}/simulate-bundle"), &body).await.expect(200);
    let results = answer["simulation_results"].as_array().unwrap();
    let frames: Vec<&Value> = results.iter().map(|one| &one["transaction"]["transaction_info"]["call_trace"]).collect();
    assert_eq!(
        (&frames[0]["call_type"], frames[0]["to"].as_str().unwrap()),
        (&json!("CREATE"), format!("{made:#x}").as_str())
    );
    assert!(frames[1]["output"].as_str().unwrap().ends_with("2a"), "{}", frames[1]);
}

#[tokio::test]
async fn a_saved_simulation_is_a_page_that_runs_nothing_and_escapes_everything() {
    let service = Service::start().await;
    let token = Address::repeat_byte(0xc0);
    // A token with a hostile symbol: the four letters of USDX replaced.
    let mut code = contracts::token();
    let at = code.windows(4).position(|word| word == b"USDX").unwrap();
    code[at..at + 4].copy_from_slice(b"<b>&");
    service.anvil.set_code(token, &code).await;
    let balance = alloy::primitives::B256::from(U256::from(100u64));
    service.anvil.request("anvil_setStorageAt", json!([token, RICH.into_word(), balance])).await;
    let transfer = json!({"to": token, "value": 0, "input": contracts::transfer_call(OTHER, 40), "save": true});
    let answer = service.simulate(transfer.clone()).await.expect(200);
    let id = answer["simulation"]["id"].as_str().unwrap().to_owned();

    let get = async |path: String| {
        let response = reqwest::get(format!("{}{path}", service.simulator.url())).await.unwrap();
        (response.status().as_u16(), response.headers().clone(), response.text().await.unwrap())
    };
    let (status, headers, page) = get(format!("/local/local/simulator/{id}")).await;
    assert_eq!(status, 200);
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && policy.contains("frame-ancestors 'none'"));
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert!(page.contains("&lt;b&gt;&amp;") && !page.contains("<b>"), "{page}");
    assert!(!page.contains("<script") && !page.contains("javascript:") && !page.contains(" style="));
    for part in ["Asset movements", "0.00004", "transfer(", &OTHER.to_string(), "Events", "Transfer", "Gas used"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    // The stored answer needs the key, and is the one that was given.
    let stored = Client::send(
        service.client.request(Method::GET, &format!("{PROJECT}/simulations/{id}")).header("X-Access-Key", KEY),
    );
    assert_eq!(stored.await.expect(200), answer);
    assert_eq!(get(format!("{PROJECT}/simulations/{id}")).await.0, 401);

    // A failure says why, in the contract's words and escaped.
    service.anvil.set_code(token, &contracts::revert_text("<img src=x onerror=alert(1)>")).await;
    let mut failing = transfer.clone();
    failing["save"] = json!(false);
    let unsaved = service.simulate(failing.clone()).await.expect(200);
    failing["save_if_fails"] = json!(true);
    let saved = service.simulate(failing).await.expect(200);
    let id_of = |answer: &Value| answer["simulation"]["id"].as_str().unwrap().to_owned();
    assert_eq!(saved["transaction"]["error_message"], "<img src=x onerror=alert(1)>");
    let (status, _, page) = get(format!("/local/local/simulator/{}", id_of(&saved))).await;
    assert!(status == 200 && page.contains("It would fail") && page.contains("&lt;img src=x"), "{page}");
    assert!(!page.contains("<img"));
    for path in [
        format!("/local/local/simulator/{}", id_of(&unsaved)),
        format!("/local/other/simulator/{id}"),
        "/local/local/simulator/not-an-id".to_owned(),
    ] {
        assert_eq!(get(path).await.0, 404);
    }
}

#[tokio::test]
async fn it_starts_only_with_a_key_and_names_errors_by_the_abis_of_its_folder() {
    let anvil = Anvil::start(31337);
    let folder = tempfile::tempdir().unwrap();
    let chains = [("anvil", 31337, anvil.url())];
    let mut command = Simulator::command(&chains, folder.path());
    command.env_remove("INTENTD_SIMULATOR_ACCESS_KEY");
    let Err((status, log)) = Daemon::try_start_as("simulator", command, folder.path(), "keyless").await else {
        panic!("it serves without a key")
    };
    assert!(!status.success() && log.contains("INTENTD_SIMULATOR_ACCESS_KEY"), "{log}");

    let abis = folder.path().join("abis");
    std::fs::create_dir(&abis).unwrap();
    let abi = json!([{"type": "error", "name": "Closed", "inputs": [{"name": "until", "type": "uint256"}]}]);
    std::fs::write(abis.join("shop.json"), json!({"contractName": "Shop", "abi": abi}).to_string()).unwrap();
    let config = folder.path().join("simulator.toml");
    std::fs::write(&config, format!("[simulator]\nabi_folder = {:?}\n", abis.to_str().unwrap())).unwrap();
    let simulator = Simulator::with(&chains, |command| {
        command.env("INTENTD_CONFIG", &config);
    })
    .await;
    let shop = Address::repeat_byte(0xcc);
    let selector = &alloy::primitives::keccak256("Closed(uint256)")[..4];
    let error = [selector, &U256::from(9u64).to_be_bytes::<32>()].concat();
    anvil.set_code(shop, &contracts::reverting(&error)).await;
    let client = Client::new(simulator.url(), None);
    let body = request(json!({"to": shop}));
    let http = client.request(Method::POST, &format!("{PROJECT}/simulate")).header("X-Access-Key", KEY).json(&body);
    let answer = Client::send(http).await.expect(200);
    assert_eq!(answer["transaction"]["error_message"], "Closed(until: 9)");
}
