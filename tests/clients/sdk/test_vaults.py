"""Vaults, secrets, and who may read them."""

import base64
import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest
from support import in_an_hour, named, ok, refused, until

TYPES = ["generic", "api_key", "password", "certificate", "file", "note", "env_bundle", "env", "ssh_key", "private_key"]


def test_vaults_are_made_found_and_deleted(owner):
    name = named("vault")
    vault = ok(owner.vaults.create(name, "what is in it"), 201)
    assert set(vault) <= {
        "id", "name", "description", "created_by", "created_by_type", "created_at", "cmek_enabled", "cmek_fingerprint"
    }, "strict decoders take no more"
    assert (vault["name"], vault["description"], vault["created_by_type"]) == (name, "what is in it", "user")
    assert ok(owner.vaults.get(vault["id"])) == vault
    assert vault in ok(owner.vaults.list())["vaults"]
    refused(owner.vaults.create(name), 409, "unknown")
    ok(owner.vaults.delete(vault["id"]), 204)
    refused(owner.vaults.get(vault["id"]), 404, "not_found")


def test_customers_keys_are_turned_on_rotated_and_off(owner, vault_id):
    keys = [os.urandom(32), os.urandom(32)]
    old, new = [hashlib.sha256(key).hexdigest() for key in keys]
    assert ok(owner.vaults.enable_cmek(vault_id, old))["cmek_enabled"] is True
    job = ok(owner.vaults.rotate_cmek(vault_id, *[base64.b64encode(key).decode() for key in keys], new), 202)
    assert ok(owner.vaults.get_rotation_job_status(vault_id, job["id"]))["new_fingerprint"] == new
    until("the rotation", lambda: ok(owner.vaults.get(vault_id))["cmek_fingerprint"] == new)
    assert ok(owner.vaults.disable_cmek(vault_id))["id"] == vault_id


@pytest.mark.parametrize("type", TYPES)
def test_a_secret_of_any_type_comes_back_as_it_went(owner, vault_id, type):
    value = json.dumps({"text": "ü 漢 \" \\ \n", "type": type})
    stored = ok(
        owner.secrets.set(vault_id, f"some/{type}", value, type=type, metadata={"n": 1}, expires_at=in_an_hour()), 201
    )
    assert "value" not in stored and (stored["version"], stored["type"]) == (1, type)
    read = ok(owner.secrets.get(vault_id, f"some/{type}"))
    assert (read["value"], read["metadata"], read["id"]) == (value, {"n": 1}, stored["id"])
    listed = ok(owner.secrets.list(vault_id, prefix="some/"))["secrets"]
    assert [each["path"] for each in listed] == [f"some/{type}"]
    assert "value" not in listed[0]


def test_a_path_is_the_same_raw_and_encoded(owner, vault_id):
    for written in ("a/b/c-1", quote("a/b/c-1", safe=""), "a%2Fb/c-1", "a%2fb%2fc-1"):
        ok(owner.secrets.set(vault_id, written, written), 201)
        for read in ("a/b/c-1", quote("a/b/c-1", safe=""), "a/b%2Fc-1"):
            assert ok(owner.secrets.get(vault_id, read))["value"] == written
    assert [each["path"] for each in ok(owner.secrets.list(vault_id))["secrets"]] == ["a/b/c-1"]
    assert len(ok(owner.secrets.list_versions(vault_id, "a%2Fb%2Fc-1"))["versions"]) == 4
    for wrong in ("a%2F%2Fb", "a%2F..%2Fb", "%2Fa", "a%20b", "a%252Fb"):
        refused(owner.secrets.set(vault_id, wrong, "v"), 400, "validation_error")


def test_a_secret_has_versions_and_an_end(owner, vault_id):
    ok(owner.secrets.set(vault_id, "p", "one", rotation_policy={"days": 30}), 201)
    assert ok(owner.secrets.rotate(vault_id, "p", "two"), 201)["version"] == 2
    assert ok(owner.secrets.rotate_generate(vault_id, "p", length=24, charset="hex"), 201)["version"] == 3
    assert len(ok(owner.secrets.get(vault_id, "p"))["value"]) == 24
    assert ok(owner.secrets.get_version(vault_id, "p", 2))["value"] == "two"
    owner.secrets.disable_version(vault_id, "p", 2)
    refused(owner.secrets.get_version(vault_id, "p", 2), 410, "unknown")
    ok(owner.secrets.set(vault_id, "twice", "v", max_access_count=2), 201)
    for _ in range(2):
        ok(owner.secrets.get(vault_id, "twice"))
    refused(owner.secrets.get(vault_id, "twice"), 410, "unknown")
    ok(owner.secrets.delete(vault_id, "p"), 204)
    refused(owner.secrets.get(vault_id, "p"), 410, "unknown")
    refused(owner.secrets.get(vault_id, "never"), 404, "not_found")


def test_an_agent_reads_what_a_policy_says_and_no_more(owner, agent, vault_id):
    for path in ("app/key", "app/deep/key", "other"):
        ok(owner.secrets.set(vault_id, path, "v"), 201)
    for path in ("app/key", "missing"):
        refused(agent.client.secrets.get(vault_id, path), 403, "auth_error")
    policy = ok(
        owner.policies.create(
            vault_id, principal_type="agent", principal_id=agent.id, secret_path_pattern="app/*", expires_at=in_an_hour()
        ),
        201,
    )
    assert (policy["permissions"], policy["secret_path_pattern"]) == (["read"], "app/*")
    assert [each["id"] for each in ok(owner.policies.list(vault_id))["policies"]] == [policy["id"]]
    assert ok(agent.client.secrets.get(vault_id, "app%2Fkey"))["value"] == "v"
    assert [each["path"] for each in ok(agent.client.secrets.list(vault_id))["secrets"]] == ["app/key"]
    refused(agent.client.secrets.get(vault_id, "app/deep/key"), 403, "auth_error")
    refused(agent.client.secrets.set(vault_id, "app/key", "w"), 403, "auth_error")
    changed = ok(owner.policies.update(vault_id, policy["id"], permissions=["read", "write"]))
    assert changed["permissions"] == ["read", "write"]
    assert ok(agent.client.secrets.set(vault_id, "app/key", "w"), 201)["version"] == 2
    # From elsewhere only: the agent's token is the same, the policy is read again.
    elsewhere = {"ip_allowlist": ["198.51.100.0/24"]}
    ok(owner.policies.update(vault_id, policy["id"], conditions=elsewhere))
    refused(agent.client.secrets.get(vault_id, "app/key"), 403, "auth_error")
    ok(owner.policies.delete(vault_id, policy["id"]), 204)
    refused(agent.client.secrets.get(vault_id, "app/key"), 403, "auth_error")
    unknown = {"moon_phase": "full"}
    refused(
        owner.policies.create(
            vault_id, principal_type="agent", principal_id=agent.id, secret_path_pattern="**", conditions=unknown
        ),
        400,
        "validation_error",
    )


def test_an_agent_has_vaults_of_its_own_which_its_human_sees(owner, agent):
    vault = ok(agent.client.vaults.create(named("vault")), 201)
    assert (vault["created_by"], vault["created_by_type"]) == (agent.id, "agent")
    ok(agent.client.secrets.set(vault["id"], "a", "v", type="api_key"), 201)
    assert ok(agent.client.secrets.get(vault["id"], "a"))["value"] == "v"
    assert vault["id"] in [each["id"] for each in ok(owner.vaults.list())["vaults"]]
    assert [each["id"] for each in ok(agent.client.vaults.list())["vaults"]] == [vault["id"]]


def test_one_client_serves_many_threads(owner, vault_id):
    def store(n):
        return ok(owner.secrets.set(vault_id, "same", str(n)), 201)["version"]

    with ThreadPoolExecutor(8) as threads:
        assert sorted(threads.map(store, range(24))) == list(range(1, 25))
