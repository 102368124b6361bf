"""Agents, their signing keys, the organisation around them, and what is written down about them."""

from datetime import datetime, timezone

from support import CHAIN, TO, client, named, ok, refused


def test_an_agent_is_made_changed_and_deleted(owner, new_agent):
    agent = new_agent(
        description="d",
        intents_api_enabled=True,
        scopes=["vault:read", "tx:sign"],
        tx_to_allowlist=[TO],
        tx_max_value_eth="0.10",
        tx_daily_limit_eth="1",
        tx_allowed_chains=[CHAIN],
        shroud_enabled=True,
        shroud_config={"strictness": "whatever", "pii_policy": "redact"},
    )
    shown = ok(owner.agents.get(agent.id))
    assert shown["tx_max_value_eth"] == "0.1" and shown["tx_allowed_chains"] == [CHAIN]
    assert shown["scopes"] == ["vault:read", "tx:sign"] and shown["shroud_config"]["strictness"] == "whatever"
    assert agent.id in [each["id"] for each in ok(owner.agents.list())["agents"]]
    me = ok(agent.client.agents.me())
    assert me["id"] == agent.id and me["org_id"]
    # None means "leave it" to the SDK; a list can be emptied.
    changed = ok(owner.agents.update(agent.id, tx_to_allowlist=[], tx_max_value_eth="0.2", description=None))
    assert changed["tx_to_allowlist"] == [] and changed["tx_max_value_eth"] == "0.2" and changed["description"] == "d"
    refused(agent.client.agents.update(agent.id, tx_max_value_eth="100"), 403, "auth_error")
    refused(owner.agents.me(), 403, "auth_error")
    keys = ok(owner.agents.rotate_identity_keys(agent.id))
    assert keys["ssh_public_key"] != shown["ssh_public_key"]
    ok(owner.agents.update(agent.id, is_active=False))
    refused(agent.client.agents.me(), 401, "auth_error")
    ok(owner.agents.delete(agent.id), 204)
    refused(owner.agents.get(agent.id), 404, "not_found")


def test_enrolling_is_public_and_tells_nothing():
    reply = ok(client().agents.enroll(named("agent"), f"{named('nobody').replace(' ', '-')}@example.test"), 201)
    assert reply["agent_id"] == "00000000-0000-0000-0000-000000000000" and reply["message"]
    refused(client().agents.enroll(named("agent")), 400, "validation_error")


def test_signing_keys_are_born_listed_replaced_and_ended(owner, new_agent):
    agent = new_agent(intents_api_enabled=True)
    key = ok(owner.signing_keys.create(agent.id, "ethereum"), 201)
    assert key["address"].startswith("0x") and key["key_version"] == 1 and key["is_active"] is True
    refused(owner.signing_keys.create(agent.id, CHAIN), 409, "unknown")
    refused(agent.client.signing_keys.create(agent.id, "ethereum"), 403, "auth_error")
    assert int(ok(owner.signing_keys.balance(agent.id, CHAIN))["balance_wei"]) == 0
    rotated = ok(owner.signing_keys.rotate(agent.id, "ethereum"))
    assert rotated["key_version"] == 2 and rotated["address"] != key["address"]
    listed = ok(owner.signing_keys.list(agent.id))["keys"]
    assert [(each["key_version"], each["is_active"]) for each in listed] == [(2, True), (1, False)]
    ok(owner.signing_keys.deactivate(agent.id, "ethereum"), 204)
    refused(owner.signing_keys.deactivate(agent.id, "ethereum"), 404, "not_found")
    refused(owner.signing_keys.create(agent.id, "solana"), 422, "unknown")


def test_the_organisation_has_members_and_settings(owner, agent):
    me = ok(owner.auth.me())
    assert me["email"] in [each["email"] for each in ok(owner.org.members())["members"]]
    invited = f"{named('x').replace(' ', '-')}@example.test"
    ok(owner.org.invite(invited, "member"))
    refused(owner.org.invite("no address"), 400, "validation_error")
    refused(owner.org.update_member_role(me["id"], "member"), 409, "unknown")
    assert ok(owner.org.agent_keys_vault_id())["vault_id"]
    key = "intents_api.require_simulation"
    assert ok(owner.org.settings())["require_simulation"] is False
    assert ok(owner.org.update_setting(key, "true"))["require_simulation"] is True
    assert ok(owner.org.update_setting(key, "false"))["require_simulation"] is False
    refused(owner.org.update_setting(key, "perhaps"), 400, "validation_error")
    refused(owner.org.update_setting("no.such.setting", "true"), 400, "validation_error")
    refused(agent.client.org.update_setting(key, "true"), 403, "auth_error")
    assert ok(owner.contract_abis.list())["contract_abis"] == []


def test_what_was_done_is_written_down(owner, agent, vault_id):
    since = datetime.now(timezone.utc).isoformat()
    secret = ok(owner.secrets.set(vault_id, "seen", "v"), 201)
    ok(owner.secrets.get(vault_id, "seen"))
    refused(agent.client.secrets.get(vault_id, "seen"), 403, "auth_error")
    events = ok(owner.audit.list(from_time=since))
    assert events["count"] == len(events["events"]) >= 3
    reads = ok(owner.audit.list(action="secret.read", from_time=since, limit=10, offset=0))["events"]
    assert [each["resource_id"] for each in reads] == [secret["id"]]
    event = reads[0]
    assert event["actor_type"] == "user" and event["ip_address"] and event["created_at"] and event["org_id"]
    mine = ok(owner.audit.list(actor_id=agent.id))["events"]
    assert mine and all(each["actor_id"] == agent.id for each in mine)
    assert ok(owner.audit.list(from_time=since, limit=1))["count"] == 1


def test_webhooks_are_made_changed_and_deleted(owner, agent):
    made = ok(owner.webhooks.create("https://hooks.example.com/in", ["freeze.*"]), 201)
    assert made["secret"] and made["is_active"] is True
    shown = ok(owner.webhooks.get(made["id"]))
    assert "secret" not in shown and shown["url"] == "https://hooks.example.com/in"
    assert shown in ok(owner.webhooks.list())["webhooks"]
    assert ok(owner.webhooks.update(made["id"], is_active=False))["is_active"] is False
    refused(owner.webhooks.create("http://10.0.0.1/in", ["freeze.*"]), 400, "validation_error")
    refused(agent.client.webhooks.create("https://hooks.example.com/in", ["freeze.*"]), 403, "auth_error")
    ok(owner.webhooks.delete(made["id"]), 204)
    refused(owner.webhooks.get(made["id"]), 404, "not_found")


def test_chains_and_usage_are_told(owner):
    chains = ok(client().chains.list())["chains"]
    assert CHAIN in [each["name"] for each in chains]
    chain = ok(owner.chains.get(CHAIN))
    assert ok(owner.chains.get(str(chain["chain_id"]))) == chain
    refused(owner.chains.get("no-such-chain"), 404, "not_found")
    assert ok(owner.billing.subscription())
    assert ok(owner.billing.credit_balance())
    assert ok(owner.billing.credit_transactions()) is not None
