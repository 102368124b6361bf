"""What the tests of the SDK share: the stack that they run against, and how they read its replies."""

import os
import time
import uuid
from datetime import datetime, timedelta, timezone

import httpx
from oneclaw import OneclawClient, create_client

URL = os.environ["INTENTD_URL"]
# A chain whose node takes `anvil_setBalance`, so that new keys can be given money.
CHAIN = os.environ.get("INTENTD_CHAIN", "anvil")
CHAIN_RPC_URL = os.environ.get("ANVIL_RPC_URL")
TO = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"


def client(key=None, **options) -> OneclawClient:
    return create_client(base_url=URL, api_key=key, **options)


def ok(response, status=200):
    """The body, when the SDK took the reply for a success with this status."""
    assert response.error is None, f"{response.meta.status}: {response.error}"
    assert response.meta.status == status
    return response.data


def refused(response, status, error_type) -> str:
    """The text of an error, when the SDK made one of this status and type of the reply."""
    assert response.error is not None, f"{response.meta.status}: {response.data}"
    assert (response.meta.status, response.error.type) == (status, error_type), response.error.message
    assert not response.error.message.startswith("HTTP "), "the problem has no detail"
    return response.error.message


def named(kind: str) -> str:
    return f"{kind} {uuid.uuid4()}"


def in_an_hour() -> str:
    return (datetime.now(timezone.utc) + timedelta(hours=1)).isoformat()


def node(method: str, *params):
    """Asks the chain's node itself."""
    reply = httpx.post(CHAIN_RPC_URL, json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).json()
    assert "error" not in reply, reply
    return reply["result"]


def until(what: str, reached, within_s=30):
    """What `reached` returns, once it is true."""
    deadline = time.monotonic() + within_s
    while not (value := reached()):
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.05)
    return value
