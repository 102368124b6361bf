"""Transactions: looked at, signed, sent, sent again, found again."""

import uuid

import pytest
from eth_account import Account
from support import CHAIN, CHAIN_RPC_URL, TO, node, ok, refused, until

pytestmark = pytest.mark.skipif(not CHAIN_RPC_URL, reason="no chain to give money on (ANVIL_RPC_URL)")


def pay(value="0.01", **more):
    return dict(chain=CHAIN, to=TO, value=value, **more)


def test_an_intent_is_signed_sent_and_mined(signer):
    agent = signer()
    sent = ok(agent.client.agents.submit_transaction(agent.id, **pay("0.25")), 201)
    assert sent["agent_id"] == agent.id and sent["chain"] == CHAIN and sent["value_wei"] == "250000000000000000"
    assert sent["signed_tx"].startswith("0x") and sent["tx_hash"].startswith("0x")
    receipt = until("a receipt", lambda: node("eth_getTransactionReceipt", sent["tx_hash"]))
    assert (receipt["from"], receipt["to"], receipt["status"]) == (agent.address.lower(), TO.lower(), "0x1")
    plain = ok(agent.client.agents.get_transaction(agent.id, sent["id"]))
    assert "signed_tx" not in plain and plain["tx_hash"] == sent["tx_hash"]
    whole = ok(agent.client.agents.get_transaction(agent.id, sent["id"], include_signed_tx=True))
    assert whole["signed_tx"] == sent["signed_tx"]
    assert [each["id"] for each in ok(agent.client.agents.list_transactions(agent.id))["transactions"]] == [sent["id"]]


def test_one_idempotency_key_is_one_transaction(signer):
    agent = signer()
    key = str(uuid.uuid4())
    first = ok(agent.client.agents.submit_transaction(agent.id, **pay(), idempotency_key=key), 201)
    again = ok(agent.client.agents.submit_transaction(agent.id, **pay(), idempotency_key=key), 200)
    assert (again["id"], again["tx_hash"], again["signed_tx"]) == (first["id"], first["tx_hash"], first["signed_tx"])
    other = agent.client.agents.submit_transaction(agent.id, **pay("0.02"), idempotency_key=key)
    refused(other, 422, "unknown")
    assert len(ok(agent.client.agents.list_transactions(agent.id))["transactions"]) == 1


def test_fields_are_taken_as_they_are_given(signer):
    agent = signer()
    legacy = pay("0", gas_price="3000000000", gas_limit=30_000, nonce=0, data="0x")
    sent = ok(agent.client.agents.submit_transaction(agent.id, **legacy), 201)
    # Null for a field that is not of its type, and absent for one that is.
    assert sent.get("max_fee_per_gas") is None and sent["gas_price"] == "3000000000" and sent["nonce"] == 0
    fees = dict(max_fee_per_gas="4000000000", max_priority_fee_per_gas="1000000000")
    sent = ok(agent.client.agents.submit_transaction(agent.id, **pay("0", **fees)), 201)
    assert {name: sent[name] for name in fees} == fees
    both = pay(gas_price="1", max_fee_per_gas="1")
    refused(agent.client.agents.submit_transaction(agent.id, **both), 400, "validation_error")
    for wrong in ("-1", "1e18", "0x1", "", "0.0000000000000000001"):
        refused(agent.client.agents.submit_transaction(agent.id, **pay(wrong)), 400, "validation_error")
    smart = agent.client.agents.submit_transaction(agent.id, **pay(mode="smart_account"))
    assert smart.meta.status in (400, 422) and smart.data is None


def test_signing_only_sends_nothing(signer):
    agent = signer()
    signed = ok(agent.client.agents.sign_transaction(agent.id, **pay("0.5")))
    assert (signed["status"], signed["from"], signed["nonce"]) == ("sign_only", agent.address, 0)
    assert node("eth_getTransactionByHash", signed["tx_hash"]) is None
    listed = ok(agent.client.agents.list_transactions(agent.id))["transactions"]
    assert [(each["tx_hash"], each["status"]) for each in listed] == [(signed["tx_hash"], "sign_only")]
    node("eth_sendRawTransaction", signed["signed_tx"])
    until("a receipt", lambda: node("eth_getTransactionReceipt", signed["tx_hash"]))


def test_a_simulation_tells_what_would_happen(signer):
    agent = signer()
    looked = ok(agent.client.agents.simulate_transaction(agent.id, **pay("1.5")))
    assert looked["status"] == "success" and isinstance(looked["gas_used"], int) and looked["simulation_id"]
    own = [each for each in looked["balance_changes"] if each["address"].lower() == agent.address.lower()]
    assert own and own[0]["change"].startswith("-1.5")
    bundle = [pay("600"), pay("600")]
    first, second = ok(agent.client.agents.simulate_bundle(agent.id, bundle))["simulations"]
    assert first["status"] == "success" and second["status"] != "success", "the second sees what the first has spent"
    assert ok(agent.client.agents.list_transactions(agent.id))["transactions"] == []


def test_what_would_revert_is_not_signed(signer):
    agent = signer()
    # PUSH1 0 PUSH1 0 REVERT
    contract = "0x" + "c0de" * 10
    node("anvil_setCode", contract, "0x60006000fd")
    call = dict(chain=CHAIN, to=contract, value="0", data="0x12345678", simulate_first=True)
    message = refused(agent.client.agents.submit_transaction(agent.id, **call), 422, "unknown")
    assert "revert" in message.lower()
    looked = ok(agent.client.agents.simulate_transaction(agent.id, chain=CHAIN, to=contract, value="0", data="0x12345678"))
    assert looked["status"] == "reverted"
    ok(agent.client.agents.submit_transaction(agent.id, **pay(simulate_first=True)), 201)


def test_guardrails_refuse_and_say_which(signer):
    agent = signer(tx_max_value_eth="0.1", tx_daily_limit_eth="0.15", tx_allowed_chains=[CHAIN], tx_to_allowlist=[TO])
    submit = agent.client.agents.submit_transaction
    for intent, field in [
        (pay("0.11"), "tx_max_value_eth"),
        (dict(pay("0.01"), to="0x" + "11" * 20), "tx_to_allowlist"),
    ]:
        message = refused(submit(agent.id, **intent), 403, "auth_error")
        assert "denied" in message and "guardrail" in message and field in message
    ok(submit(agent.id, **pay("0.1")), 201)
    message = refused(submit(agent.id, **pay("0.1")), 403, "auth_error")
    assert "tx_daily_limit_eth" in message


def test_a_key_that_was_stored_signs_and_is_not_given_back(owner, new_agent, vault_id):
    agent = new_agent(intents_api_enabled=True)
    account = Account.create()
    key = account.key.to_0x_hex()
    node("anvil_setBalance", account.address, hex(10**18))
    path = f"keys/{CHAIN}-signer"
    ok(owner.secrets.set(vault_id, path, key, type="private_key", metadata={"chain": CHAIN, "label": "l"}), 201)
    ok(
        owner.policies.create(
            vault_id, principal_type="agent", principal_id=agent.id, secret_path_pattern="keys/*"
        ),
        201,
    )
    assert ok(agent.client.agents.sign_transaction(agent.id, **pay()))["from"] == account.address
    for each in (owner, agent.client):
        refused(each.secrets.get(vault_id, path), 403, "auth_error")


def test_others_transactions_are_nobodys_business(owner, signer, new_agent):
    agent, stranger = signer(), new_agent(intents_api_enabled=True)
    sent = ok(agent.client.agents.submit_transaction(agent.id, **pay()), 201)
    for call in (
        lambda: stranger.client.agents.get_transaction(agent.id, sent["id"]),
        lambda: stranger.client.agents.submit_transaction(agent.id, **pay()),
        lambda: owner.agents.submit_transaction(agent.id, **pay()),
    ):
        refused(call(), 403, "auth_error")
    assert ok(owner.agents.get_transaction(agent.id, sent["id"]))["id"] == sent["id"]
    refused(agent.client.agents.get_transaction(agent.id, str(uuid.uuid4())), 404, "not_found")
