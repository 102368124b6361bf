//! Every way around a list that calldata knows, on contracts that do what they are asked. Each body is refused by both routes alike,
//! takes no nonce, and moves nothing; what is allowed beside it passes and is mined.

use alloy::primitives::{Address, Bytes, U256, address, keccak256};
use alloy::sol_types::SolValue;
use serde_json::{Value, json};

use crate::harness::anvil::{Anvil, OTHER};
use crate::harness::contracts::{
    self, Contracts, Nft, Permit2, Token, all_of, approve, batch, encoded, exec, give, intent, send, view, with_gas,
};
use crate::harness::stack::{Agent, Stack, fresh_scalar, text};

const FOE: Address = address!("00000000000000000000000000000000000F0E00");
const ETHER: u128 = 1_000_000_000_000_000_000;

async fn all_refused(stack: &Stack, agent: &Agent, cases: &[(Value, &str)]) {
    let before = stack.count("SELECT count(*) FROM attempts").await;
    for (body, part) in cases {
        let body = with_gas(body.clone());
        let detail = agent.submit(body.clone()).await.refused(403);
        assert!(detail.starts_with("Transaction denied by guardrail: ") && detail.contains(part), "{part}: {detail}");
        assert_eq!(agent.sign(body).await.refused(403), detail);
    }
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, before, "something was signed");
}

async fn mined(agent: &Agent, body: Value) -> Value {
    let sent = agent.submit(body).await.expect(201);
    let done = agent.settled(&text(&sent, "id")).await;
    assert_eq!(done["receipt_status"], "success", "{done}");
    done
}

/// A permit of the key's owner, as a holder of the key elsewhere would sign it.
async fn permit(anvil: &Anvil, token: Address, scalar: &str, holder: Address, spender: Address, value: u64) -> Bytes {
    let separator = view(anvil, token, &Token::DOMAIN_SEPARATORCall {}).await;
    let kind = keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
    let value = U256::from(value);
    let inner = keccak256((kind, holder, spender, value, U256::ZERO, U256::MAX).abi_encode());
    let digest = keccak256([&[0x19, 0x01][..], &separator.to_be_bytes::<32>(), inner.as_slice()].concat());
    let key: [u8; 32] = hex::decode(scalar.trim_start_matches("0x")).unwrap().try_into().unwrap();
    let key = secp256k1::SecretKey::from_byte_array(key).unwrap();
    let signature = secp256k1::Secp256k1::new().sign_ecdsa_recoverable(secp256k1::Message::from_digest(digest.0), &key);
    let (parity, bytes) = signature.serialize_compact();
    let v = 27 + u8::try_from(i32::from(parity)).unwrap();
    let word = |at: usize| alloy::primitives::B256::from_slice(&bytes[at..at + 32]);
    encoded(&Token::permitCall { holder, spender, value, deadline: U256::MAX, v, r: word(0), s: word(32) })
}

#[tokio::test]
async fn threat_16_no_token_moves_or_is_approved_past_a_recipient_allowlist() {
    let stack = Stack::start().await;
    let c = Contracts::on(stack.chain()).await;
    let scalar = fresh_scalar();
    let rules = json!({
        "tx_to_allowlist": [OTHER, c.token],
        "tx_contract_allowlist": [
            {"address": c.token, "selectors": ["0xa9059cbb", "0x23b872dd", "0x095ea7b3", "0xd505accf", "0xac9650d8"]},
            format!("base:{}", c.nft), c.permit2,
        ],
    });
    let agent = stack.agent_with_key(rules, &scalar).await;
    let anvil = stack.chain();
    give(anvil, c.token, agent.signer, 1_000).await;
    contracts::by(anvil, agent.signer, c.nft, &Nft::mintCall { to: agent.signer, id: U256::from(7) }).await;
    let n = U256::from;
    let from_me = |to| encoded(&Token::transferFromCall { from: agent.signer, to, value: n(1) });
    let foreign_permit = permit(anvil, c.token, &scalar, agent.signer, FOE, 9).await;
    let friendly_permit = permit(anvil, c.token, &scalar, agent.signer, OTHER, 9).await;
    let amount = alloy::primitives::Uint::from(5);
    let permit2 =
        |spender| encoded(&Permit2::approveCall { token: c.token, spender, amount, expiration: Default::default() });
    let mut dirty = send(OTHER, 1).to_vec();
    dirty[4] = 1;
    let nft = |approved| encoded(&Nft::setApprovalForAllCall { operator: FOE, approved });
    let item = |to| encoded(&Nft::safeTransferFromCall { from: agent.signer, to, id: n(7) });
    let unknown = Bytes::from_static(&[0xde, 0xad, 0xbe, 0xef]);
    let mut paid = intent(c.permit2, &Bytes::from_static(&[1]));
    paid["value"] = json!("0.1");
    let cases = [
        (intent(c.token, &send(FOE, 1)), "recipient"),
        (intent(c.token, &send(FOE, 0)), "recipient"),
        (intent(c.token, &from_me(FOE)), "recipient"),
        (intent(c.token, &approve(FOE, n(1))), "spender"),
        (intent(c.token, &approve(FOE, n(0))), "spender"),
        (intent(c.token, &foreign_permit), "spender"),
        (intent(c.token, &all_of(&[send(OTHER, 1), send(FOE, 1)])), "recipient"),
        (intent(c.token, &all_of(&[all_of(std::slice::from_ref(&foreign_permit))])), "spender"),
        (intent(c.token, &all_of(std::slice::from_ref(&unknown))), "is not in tx_contract_allowlist"),
        (intent(c.nft, &nft(true)), "spender"),
        (intent(c.nft, &item(FOE)), "recipient"),
        (intent(c.permit2, &permit2(FOE)), "spender"),
        // Not listed, not understood, not readable, or nothing but a fallback.
        (intent(c.other_token, &send(OTHER, 1)), "is not in tx_contract_allowlist"),
        (intent(c.token, &unknown), "is not understood"),
        (intent(c.token, &Bytes::from_static(&[0xa9, 0x05])), "is not understood"),
        (intent(OTHER, &unknown), "is not understood"),
        (intent(c.token, &Bytes::from(dirty)), "cannot be read"),
        (intent(c.token, &send(OTHER, 1).slice(..60)), "cannot be read"),
        // Value goes to recipients, not to whoever may be called.
        (paid, "destination"),
        (json!({"to": c.permit2, "value": "0", "chain": "base"}), "destination"),
    ];
    all_refused(&stack, &agent, &cases).await;
    assert_eq!(contracts::balance_of(anvil, c.token, agent.signer).await, n(1_000));

    mined(&agent, json!({"to": OTHER, "value": "0.5", "chain": "base"})).await;
    mined(&agent, intent(c.token, &send(OTHER, 10))).await;
    mined(&agent, intent(c.token, &all_of(&[send(OTHER, 1), send(agent.signer, 1), friendly_permit]))).await;
    mined(&agent, intent(c.nft, &nft(false))).await;
    mined(&agent, intent(c.nft, &item(OTHER))).await;
    mined(&agent, intent(c.permit2, &permit2(OTHER))).await;
    assert_eq!(contracts::balance_of(anvil, c.token, OTHER).await, n(11));
    // What was done is in the audit trail, in short.
    let events = stack.owner.get("/v1/audit/events?action=transaction.submit").await.expect(200);
    let does = |part: &str| {
        events["events"].as_array().unwrap().iter().any(|event| event["details"]["does"].to_string().contains(part))
    };
    assert!(does(&format!("transfer 10 of {} to {OTHER}", c.token)) && does("for 9 of"), "{events}");
}

#[tokio::test]
async fn threat_16_unlimited_approvals_can_be_blocked() {
    let stack = Stack::start().await;
    let c = Contracts::on(stack.chain()).await;
    let agent = stack.agent(json!({"tx_block_unlimited_approvals": true})).await;
    let most = U256::from(1).checked_shl(160).unwrap() - U256::from(1);
    let half = U256::from(1).checked_shl(128).unwrap();
    let short = U256::from(1).checked_shl(96).unwrap() - U256::from(1);
    let forever =
        Permit2::approveCall { token: c.token, spender: FOE, amount: most.to(), expiration: Default::default() };
    let cases = [
        (intent(c.token, &approve(FOE, U256::MAX)), "tx_block_unlimited_approvals"),
        (intent(c.token, &approve(FOE, most)), "tx_block_unlimited_approvals"),
        (intent(c.token, &approve(FOE, half)), "tx_block_unlimited_approvals"),
        (intent(c.token, &approve(FOE, short)), "tx_block_unlimited_approvals"),
        (intent(c.token, &all_of(&[send(OTHER, 0), approve(FOE, U256::MAX)])), "tx_block_unlimited_approvals"),
        (intent(c.permit2, &encoded(&forever)), "tx_block_unlimited_approvals"),
        (
            intent(c.nft, &encoded(&Nft::setApprovalForAllCall { operator: FOE, approved: true })),
            "tx_block_unlimited_approvals",
        ),
        // The simulation sees it under any name.
        (
            intent(c.token, &encoded(&Token::trustCall { spender: FOE, value: U256::MAX })),
            "tx_block_unlimited_approvals",
        ),
    ];
    all_refused(&stack, &agent, &cases).await;
    mined(&agent, intent(c.token, &approve(FOE, half - U256::from(1)))).await;
    mined(&agent, intent(c.token, &encoded(&Token::trustCall { spender: FOE, value: U256::from(5) }))).await;
    mined(&agent, intent(c.nft, &encoded(&Nft::setApprovalForAllCall { operator: FOE, approved: false }))).await;
}

#[tokio::test]
async fn threat_17_a_batch_or_a_wallet_hides_nothing() {
    let stack = Stack::start().await;
    let c = Contracts::on(stack.chain()).await;
    let anvil = stack.chain();
    anvil.set_balance(c.wallet, U256::from(10 * ETHER)).await;
    give(anvil, c.token, c.wallet, 1_000).await;
    let listed = json!({
        "tx_to_allowlist": [OTHER, c.token, c.wallet, c.batcher], "tx_max_value_eth": "1", "tx_daily_limit_eth": "1.5",
    });
    let agent = stack.agent(listed).await;
    let none = Bytes::new();
    let ether = |amount: u128, calls: &[(Address, u128, Bytes)]| {
        let mut body = intent(c.batcher, &batch(calls));
        body["value"] = json!(intentd::money::Wei::from(amount).to_units());
        body
    };
    let six_deep = (0..7).fold(send(FOE, 1), |inner, _| all_of(&[inner]));
    let cases = [
        (intent(c.wallet, &exec(c.token, 0, &send(FOE, 1), 0)), "recipient"),
        (intent(c.wallet, &exec(FOE, 1, &none, 0)), "destination"),
        (intent(c.wallet, &exec(c.token, 0, &all_of(&[send(OTHER, 1), approve(FOE, U256::from(1))]), 0)), "spender"),
        // The value is the wallet's, the transaction carries none.
        (intent(c.wallet, &exec(OTHER, 2 * ETHER, &none, 0)), "value 2 ETH exceeds tx_max_value_eth 1 ETH"),
        (ether(ETHER, &[(OTHER, ETHER / 2, none.clone()), (FOE, ETHER / 2, none.clone())]), "destination"),
        (ether(0, &[(OTHER, 2 * ETHER, none.clone())]), "value 2 ETH"),
        (intent(c.batcher, &batch(&[(c.wallet, 0, exec(c.token, 0, &send(FOE, 1), 0))])), "recipient"),
        (intent(c.token, &six_deep), "cannot be read"),
        (intent(c.token, &all_of(&vec![send(OTHER, 0); 256])), "cannot be read"),
        (intent(c.wallet, &exec(OTHER, 0, &Bytes::from_static(&[1, 2, 3, 4]), 0)), "is not understood"),
    ];
    all_refused(&stack, &agent, &cases).await;
    assert_eq!(contracts::balance_of(anvil, c.token, c.wallet).await, U256::from(1_000));

    mined(&agent, intent(c.wallet, &exec(c.token, 0, &all_of(&[send(OTHER, 2), send(OTHER, 3)]), 0))).await;
    assert_eq!(contracts::balance_of(anvil, c.token, OTHER).await, U256::from(5));
    // A wallet's value counts in the day as well.
    mined(&agent, intent(c.wallet, &exec(OTHER, ETHER, &none, 0))).await;
    let detail = agent.submit(intent(c.wallet, &exec(OTHER, ETHER, &none, 0))).await.refused(403);
    assert!(detail.contains("rolling 24h total 2 ETH would exceed tx_daily_limit_eth 1.5 ETH"), "{detail}");
}

#[tokio::test]
async fn threat_18_ownership_upgrades_and_delegatecalls_are_off_unless_allowed() {
    let stack = Stack::start().await;
    let c = Contracts::on(stack.chain()).await;
    let agent = stack.agent(json!({})).await;
    let own = encoded(&Token::transferOwnershipCall { next: agent.signer });
    let upgrade = Bytes::from([&keccak256("upgradeTo(address)")[..4], OTHER.into_word().as_slice()].concat());
    let module = Bytes::from([&keccak256("enableModule(address)")[..4], OTHER.into_word().as_slice()].concat());
    let cases = [
        (intent(c.token, &own), "tx_allow_privileged_calls"),
        (intent(c.token, &all_of(std::slice::from_ref(&own))), "tx_allow_privileged_calls"),
        (intent(c.wallet, &exec(c.token, 0, &own, 0)), "tx_allow_privileged_calls"),
        (intent(c.wallet, &exec(c.token, 0, &send(OTHER, 1), 1)), "delegatecall"),
        (intent(c.wallet, &exec(c.wallet, 0, &module, 0)), "enableModule"),
        (intent(c.token, &upgrade), "upgradeTo"),
        (intent(c.token, &all_of(std::slice::from_ref(&own)).slice(..100)), "tx_allow_privileged_calls"),
    ];
    all_refused(&stack, &agent, &cases).await;
    // Under a name that no standard knows, the simulation shows it.
    let mut hidden = intent(c.token, &encoded(&Token::abdicateCall { next: OTHER }));
    hidden["simulate_first"] = json!(true);
    let detail = agent.submit(hidden).await.refused(403);
    assert!(detail.contains("would give away ownership"), "{detail}");

    stack.sql("UPDATE organisations SET guardrail_widening_requires_confirm = true").await;
    let path = format!("/v1/agents/{}", agent.id);
    let allow = json!({"tx_allow_privileged_calls": true});
    assert!(stack.owner.patch(&path, &allow).await.refused(422).contains("tx_allow_privileged_calls"));
    stack.guardrails(&agent, json!({"tx_allow_privileged_calls": true, "confirm_unrestricted": true})).await;
    contracts::by(
        stack.chain(),
        crate::harness::anvil::RICH,
        c.token,
        &Token::transferOwnershipCall { next: agent.signer },
    )
    .await;
    mined(&agent, intent(c.token, &encoded(&Token::transferOwnershipCall { next: OTHER }))).await;
}

#[tokio::test]
async fn an_agent_without_guardrails_sends_ordinary_contract_calls() {
    let stack = Stack::start().await;
    let c = Contracts::on(stack.chain()).await;
    let anvil = stack.chain();
    let agent = stack.agent(json!({})).await;
    give(anvil, c.token, agent.signer, 10_000_000).await;
    contracts::by(anvil, agent.signer, c.nft, &Nft::mintCall { to: agent.signer, id: U256::from(7) }).await;
    let none = Bytes::new();
    // A suffix behind the arguments, as referrers are told.
    let tagged = Bytes::from([&send(OTHER, 1)[..], &b"referrer"[..]].concat());
    let mut paid_batch = intent(c.batcher, &batch(&[(OTHER, ETHER / 10, none.clone()), (c.wallet, 0, none)]));
    paid_batch["value"] = json!("0.1");
    let ordinary = [
        intent(c.token, &send(OTHER, 1)),
        intent(c.token, &tagged),
        intent(c.token, &approve(c.taker, U256::MAX)),
        intent(c.token, &approve(c.permit2, U256::MAX)),
        intent(c.token, &all_of(&[send(OTHER, 1), approve(FOE, U256::from(1))])),
        intent(c.nft, &encoded(&Nft::setApprovalForAllCall { operator: OTHER, approved: true })),
        intent(c.nft, &encoded(&Nft::safeTransferFromCall { from: agent.signer, to: OTHER, id: U256::from(7) })),
        intent(
            c.permit2,
            &encoded(&Permit2::approveCall {
                token: c.token,
                spender: FOE,
                amount: alloy::primitives::Uint::from(5),
                expiration: Default::default(),
            }),
        ),
        // Functions that no standard knows, a fallback, a message to an account, and a Safe's transaction.
        intent(c.taker, &Bytes::from([&keccak256("take(uint256)")[..4], &U256::from(5).to_be_bytes::<32>()].concat())),
        intent(c.taker, &Bytes::from_static(&[1])),
        intent(OTHER, &Bytes::from_static(b"thanks")),
        intent(c.wallet, &exec(c.batcher, 0, &batch(&[]), 0)),
        paid_batch,
    ];
    let mut sent = Vec::new();
    for body in ordinary {
        let told = agent.simulate(body.clone()).await.expect(200);
        assert_eq!((&told["status"], &told["guardrails"]["allowed"]), (&json!("success"), &json!(true)), "{told}");
        sent.push(text(&agent.submit(body).await.expect(201), "id"));
    }
    for id in sent {
        assert_eq!(agent.settled(&id).await["receipt_status"], "success");
    }
    assert_eq!(stack.count("SELECT count(*) FROM attempts").await, 13);
}
