"""The people of these tests. See support.py for where they meet."""

import os
from types import SimpleNamespace

import pytest
from support import client, named, node, ok


@pytest.fixture(scope="session")
def owner():
    """An owner of the organisation, by an API key that the SDK exchanges for a token at once."""
    with client(os.environ["INTENTD_USER_KEY"]) as owner:
        yield owner


@pytest.fixture
def vault_id(owner):
    return ok(owner.vaults.create(named("vault")), 201)["id"]


@pytest.fixture
def new_agent(owner):
    """Makes agents: `id`, `key`, and `client` that has that key."""
    clients = []

    def make(**options):
        made = ok(owner.agents.create(named("agent"), **options), 201)
        clients.append(client(made["api_key"]))
        return SimpleNamespace(id=made["agent"]["id"], key=made["api_key"], client=clients[-1])

    yield make
    for each in clients:
        each.close()


@pytest.fixture
def agent(new_agent):
    return new_agent()


@pytest.fixture
def signer(owner, new_agent):
    """Makes agents with a key of their own in the HSM, and money at its address."""

    def make(**options):
        agent = new_agent(intents_api_enabled=True, **options)
        agent.address = ok(owner.signing_keys.create(agent.id, "ethereum"), 201)["address"]
        node("anvil_setBalance", agent.address, hex(10**21))
        return agent

    return make
