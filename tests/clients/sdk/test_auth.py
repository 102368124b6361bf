"""Who a client is: keys, tokens, passwords, and their ends."""

import os
import time

import oneclaw.http_client
import pytest
from oneclaw import OneclawError
from support import client, named, ok, refused

EMAIL, PASSWORD = os.environ["INTENTD_USER_EMAIL"], os.environ["INTENTD_USER_PASSWORD"]


def token_of(any_client):
    return any_client._http.get_token()


def test_a_key_of_a_human_is_exchanged_as_the_client_is_made(owner):
    assert token_of(owner).count(".") == 2, "a JWT, whose end the SDK reads"
    me = ok(owner.auth.me())
    assert me["id"] and me["email"]
    again = client()
    token = ok(again.auth.api_key_token(os.environ["INTENTD_USER_KEY"]))
    assert set(token) == {"access_token", "token_type", "expires_in"}, "strict decoders take no more"
    assert ok(again.auth.me())["id"] == me["id"]


def test_a_password_gives_a_token_and_a_wrong_one_does_not():
    human = client()
    login = ok(human.auth.login(EMAIL, PASSWORD))
    assert login["token_type"] == "Bearer" and isinstance(login["expires_in"], int)
    assert ok(human.auth.me())["email"] == EMAIL
    refused(client().auth.login(EMAIL, PASSWORD + "x"), 401, "auth_error")
    refused(human.auth.refresh(), 400, "validation_error")
    refused(human.auth.change_password(PASSWORD + "x", "Battery+Staple-9"), 403, "auth_error")
    assert ok(human.auth.mfa_status())["enabled"] is False
    assert ok(client().auth.forgot_password("nobody@example.test"))


def test_an_agent_needs_its_key_alone_and_exchanges_it_once(agent):
    assert agent.client.resolved_agent_id is None
    assert ok(agent.client.agents.me())["id"] == agent.id
    assert agent.client.resolved_agent_id == agent.id
    token = token_of(agent.client)
    ok(agent.client.vaults.list())
    assert token_of(agent.client) == token
    named_agent = client(agent.key, agent_id=agent.id)
    assert ok(named_agent.agents.me())["id"] == agent.id
    exchanged = ok(client().auth.agent_token(agent.key))
    assert exchanged["agent_id"] == agent.id and exchanged["vault_ids"] == []
    assert isinstance(exchanged["expires_in"], int)


def test_a_token_is_renewed_a_minute_before_it_ends(new_agent, monkeypatch):
    agent = new_agent(token_ttl_seconds=120)
    assert ok(agent.client.agents.me())["id"] == agent.id
    first = token_of(agent.client)
    now = time.time
    monkeypatch.setattr(oneclaw.http_client.time, "time", lambda: now() + 50)
    ok(agent.client.agents.me())
    assert token_of(agent.client) == first
    monkeypatch.setattr(oneclaw.http_client.time, "time", lambda: now() + 61)
    ok(agent.client.agents.me())
    assert token_of(agent.client) != first


def test_a_revoked_token_is_refused_and_the_key_gives_another(agent):
    ok(agent.client.agents.me())
    bearer = client(token=token_of(agent.client))
    ok(bearer.auth.revoke_token(), 204)
    for each in (bearer, agent.client):
        refused(each.agents.me(), 401, "auth_error")
    assert ok(client(agent.key).agents.me())["id"] == agent.id


def test_a_rotated_key_ends_the_old_one_and_its_tokens(owner, agent):
    ok(agent.client.agents.me())
    new_key = ok(owner.agents.rotate_key(agent.id))["api_key"]
    refused(agent.client.agents.me(), 401, "auth_error")
    with pytest.raises(OneclawError) as error:
        client(agent.key).agents.me()
    assert (error.value.status, error.value.error_type) == (401, "auth_error")
    assert ok(client(new_key).agents.me())["id"] == agent.id


def test_humans_make_and_end_their_keys(owner):
    made = ok(owner.api_keys.create(named("key"), scopes=["keys/*"]), 201)
    assert made["api_key"].startswith(made["key"]["key_prefix"])
    assert made["key"]["id"] in [key["id"] for key in ok(owner.api_keys.list())["keys"]]
    plain = ok(owner.api_keys.create(named("key")), 201)
    holder = client(plain["api_key"])
    ok(holder.vaults.list())
    for key in (made, plain):
        ok(owner.api_keys.delete(key["key"]["id"]), 204)
    refused(holder.vaults.list(), 401, "auth_error")
    refused(owner.api_keys.delete(plain["key"]["id"]), 404, "not_found")


def test_a_key_itself_is_a_bearer(agent):
    assert ok(client(token=agent.key).agents.me())["id"] == agent.id
    assert ok(client(token=os.environ["INTENTD_USER_KEY"]).auth.me())["email"]
