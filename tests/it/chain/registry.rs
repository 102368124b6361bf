//! chains.toml: read whole, refused whole.

use intentd::chain::{ChainId, ChainSpec, Chains, ChainsError, DEFAULT_CHAINS, Kind, RpcUrl, registry};

fn read(toml: &str) -> Result<Chains, ChainsError> {
    Chains::load(registry::read(toml, |_| None)?)
}

/// The built-in file with one piece of text replaced: what goes wrong then.
fn fault(from: &str, to: &str) -> String {
    assert!(DEFAULT_CHAINS.contains(from), "{from}");
    read(&DEFAULT_CHAINS.replacen(from, to, 1)).expect_err(to).to_string()
}

#[test]
fn the_seven_default_chains_are_known_by_name_and_by_id() {
    let chains = read(DEFAULT_CHAINS).unwrap();
    let expected = [
        ("ethereum", 1, Kind::Ethereum, "eth", false),
        ("base", 8453, Kind::Op, "eth", false),
        ("optimism", 10, Kind::Op, "eth", false),
        ("arbitrum-one", 42161, Kind::Arbitrum, "eth", false),
        ("polygon", 137, Kind::Ethereum, "pol", false),
        ("sepolia", 11_155_111, Kind::Ethereum, "eth-test", true),
        ("base-sepolia", 84532, Kind::Op, "eth-test", true),
    ];
    assert_eq!(chains.iter().count(), expected.len());
    for (name, id, kind, spend_group, is_testnet) in expected {
        for text in [name.to_owned(), id.to_string()] {
            let chain = chains.get(&text).unwrap_or_else(|| panic!("{text}"));
            let spec = chain.spec();
            assert_eq!((spec.name.as_str(), spec.chain_id, spec.kind), (name, ChainId(id), kind));
            assert_eq!((spec.spend_group.as_str(), spec.is_testnet), (spend_group, is_testnet));
        }
    }
}

#[test]
fn nothing_else_names_a_chain() {
    let chains = read(DEFAULT_CHAINS).unwrap();
    for text in
        ["", "Base", " base", "base ", "08453", "0x2105", "+8453", "0", "8453.0", "18446744073709551617", "eip155:1"]
    {
        assert!(chains.get(text).is_none(), "{text:?}");
    }
}

#[test]
fn threat_11_chain_id_0_is_refused() {
    let text = fault("chain_id = 8453", "chain_id = 0");
    assert!(text.contains("\"base\"") && text.contains("chain_id") && text.contains("must not be 0"), "{text}");
}

#[test]
fn every_fault_names_its_chain_and_key() {
    let table = [
        ("chain_id = 10\n", "chain_id = 1\n", "chain \"optimism\": chain_id: 1 is also chain \"ethereum\"'s"),
        ("name = \"polygon\"", "name = \"base\"", "chain \"base\": name: is given twice"),
        ("name = \"polygon\"", "name = \"137\"", "chain \"137\": name:"),
        ("name = \"polygon\"", "name = \"Polygon\"", "chain \"Polygon\": name:"),
        ("confirmations = 12", "confirmations = 0", "chain \"ethereum\": confirmations:"),
        ("max_gas_limit = 16_777_216", "max_gas_limit = 20_999", "chain \"ethereum\": max_gas_limit:"),
        ("= 500_000_000_000", "= 0", "chain \"ethereum\": max_fee_per_gas_ceiling_wei:"),
        ("block_time_ms = 12_000", "block_time_ms = 0", "chain \"ethereum\": block_time_ms:"),
        ("spend_group = \"pol\"", "spend_group = \"\"", "chain \"polygon\": spend_group:"),
        ("https://polygonscan.com", "ftp://polygonscan.com", "chain \"polygon\": explorer_url:"),
        ("kind = \"op\"", "kind = \"plasma\"", "plasma"),
        ("kind = \"op\"", "kind = \"op\"\nl1_fee = true", "l1_fee"),
        ("chain_id = 8453", "chain_id = -1", "line 36"),
        ("chain_id = 8453", "", "missing field `chain_id`"),
    ];
    for (from, to, expected) in table {
        let text = fault(from, to);
        assert!(text.contains(expected), "{to:?} gave {text:?}, not {expected:?}");
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let toml = DEFAULT_CHAINS.replace("confirmations = 30", "confirmations = 0");
    assert_eq!(read(&toml).unwrap_err().faults.len(), 3);
}

#[test]
fn urls_come_from_the_environment_by_the_chains_name() {
    let variable = |name: &str| match name {
        "INTENTD_RPC_URL_ARBITRUM_ONE" => Some("https://node.example/v2/key-of-arbitrum".to_owned()),
        "INTENTD_RPC_URL_BASE" => Some(String::new()),
        _ => None,
    };
    let specs = registry::read(DEFAULT_CHAINS, variable).unwrap();
    let with_url: Vec<_> = specs.iter().filter(|spec| spec.rpc_url.is_some()).map(|spec| &spec.name).collect();
    assert_eq!(with_url, ["arbitrum-one"]);
}

#[test]
fn threat_23_a_url_is_in_no_error_and_no_debug_text() {
    for url in
        ["postgres://node.example/v2/hush-hush", "node.example/hush-hush", "https://hush hush", "http://[hush-hush"]
    {
        let error = registry::read(DEFAULT_CHAINS, |_| Some(url.to_owned())).unwrap_err();
        assert!(error.to_string().contains("INTENTD_RPC_URL_BASE"), "{error}");
        assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
    }
    let specs = registry::read(DEFAULT_CHAINS, |_| Some("https://u:hush@hush.example/hush".to_owned())).unwrap();
    assert!(!format!("{specs:?}").contains("hush"));
    let chains = Chains::load(specs).unwrap();
    assert!(!format!("{chains:?}").contains("hush"));
    // The file never holds one, and a line that tries is not echoed.
    let toml = DEFAULT_CHAINS.replacen("kind = ", "rpc_url = \"https://hush.example\"\nkind = ", 1);
    let error = registry::read(&toml, |_| None).unwrap_err().to_string();
    assert!(error.contains("rpc_url") && !error.contains("hush"), "{error}");
    let toml = DEFAULT_CHAINS.replacen("kind = ", "rpc_urls = [\"ftp://hush.example\"]\nkind = ", 1);
    let error = registry::read(&toml, |_| None).unwrap_err().to_string();
    assert!(error.contains("rpc_urls") && !error.contains("hush"), "{error}");
}

#[test]
fn further_nodes_come_after_those_of_the_environment_and_each_once() {
    let own = "rpc_urls = [\"https://b.example/\", \"https://c.example/\"]\nkind = ";
    let toml = DEFAULT_CHAINS.replacen("kind = ", own, 1);
    let variable =
        |name: &str| (name == "INTENTD_RPC_URL_ETHEREUM").then(|| "https://a.example https://b.example".to_owned());
    let nodes = |specs: Vec<ChainSpec>| {
        let first = specs.into_iter().next().unwrap();
        first.nodes().iter().map(|url| url.reveal().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(
        nodes(registry::read(&toml, variable).unwrap()),
        ["https://a.example/", "https://b.example/", "https://c.example/"]
    );
    assert_eq!(nodes(registry::read(&toml, |_| None).unwrap()), ["https://b.example/", "https://c.example/"]);
}

#[tokio::test]
async fn a_chain_without_a_url_says_which_variable_is_missing() {
    let chains = read(DEFAULT_CHAINS).unwrap();
    let error = chains.get("base-sepolia").unwrap().rpc().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "chain base-sepolia is unavailable: it has no RPC URL (set INTENTD_RPC_URL_BASE_SEPOLIA)"
    );
}

#[test]
fn a_local_chain_keeps_name_and_id_and_spends_apart() {
    let specs = registry::read(DEFAULT_CHAINS, |_| None).unwrap();
    let base = specs.into_iter().find(|spec| spec.name == "base").unwrap();
    let local = base.into_local(RpcUrl::parse("http://127.0.0.1:1").unwrap());
    assert_eq!((local.name.as_str(), local.chain_id, local.kind), ("base", ChainId(8453), Kind::Op));
    assert_eq!((local.spend_group.as_str(), local.is_testnet, local.confirmations), ("eth-test", true, 1));
    assert!(local.faults().is_empty());
    let huge = ChainSpec::local("huge", ChainId(u64::MAX), RpcUrl::parse("http://127.0.0.1:1").unwrap());
    assert!(Chains::load(vec![local, huge]).unwrap().get("18446744073709551615").is_some());
}
